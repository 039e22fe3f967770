"""The environment variables of functions, as typed models that are read once. Here stands what dedupe needs, which
starts cold most often; `function_environments` has all others, which it does not load.
"""

import os
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

Strictness = Literal["exact", "strict", "loose"]


class FunctionEnvironment(BaseModel):
    """A function's environment; field names are the environment's names in lower case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read the settings from an environment, by default the process's own; empty values count as not given.

        Raises pydantic.ValidationError naming every variable that is missing or wrong.
        """
        values = {name.lower(): value for name, value in (os.environ if env is None else env).items() if value != ""}
        return cls.model_validate({name: values[name] for name in cls.model_fields if name in values})


class Settings(FunctionEnvironment):
    """Settings of every function on the way of an upload."""

    captions_table: str
    fingerprints_table: str
    uploads_queue_url: str
    event_bus_name: str
    exemplar_ttl_days: PositiveFloat = 90
    """How long a captioned picture serves near-duplicates."""
    queue_lease_seconds: PositiveFloat = 900
    """How long a queued job may wait before a twin may take its place."""
    sweep_after_seconds: PositiveFloat = 120
    """How long an upload may rest between two steps before the sweep looks at it."""
    max_job_age_seconds: PositiveFloat = 21_600
    """How long an upload is tried before it is `failed`."""

    terminal_seconds: PositiveFloat = 900
    """Within how long an upload should have ended: the service level objective that alarms watch."""


class RoutingSettings(Settings):
    """What decides which queue, task and language an upload gets."""

    image_queue_url: str
    audio_queue_url: str
    bulk_queue_url: str | None = None
    """Where jobs of the bulk lane stand; None: there is none, and they go the ordinary way."""
    language: str = "en"
    """BCP-47 tag of the language captions are written in."""
    policy_override: str | None = None
    """An SSM parameter's name, or s3://BUCKET/KEY: TOML that is laid over the policy."""


class IntakeSettings(RoutingSettings):
    """The dedupe function."""

    tenant_prefix_segments: NonNegativeInt = 0
    """How many leading path segments of a key name its tenant; 0: the bucket is the tenant."""
    near_duplicates: Strictness = "strict"
    replica_handling: Literal["caption", "skip"] = "caption"
    """Whether objects that S3 replicated here are captioned like any other, or left to the region of origin."""
    max_image_bytes: PositiveInt = 40_000_000
    max_image_pixels: PositiveInt = 50_000_000
    max_audio_bytes: PositiveInt = 25_000_000
    max_video_bytes: PositiveInt = 100_000_000
