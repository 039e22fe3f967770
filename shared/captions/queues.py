"""What stands on the queues, besides the events of S3 itself."""

import json
import random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captions.picture_class import Looks
from captions.records.record import ClaimRef
from captions.routing.experiments import Arm
from captions.tasks import Ask
from captions.uploads.version import ObjectVersion

MAX_DELAY_SECONDS = 900
"""The longest an SQS message can be delayed (Amazon SQS, message quotas)."""

LONGEST_REST_SECONDS = 3_600.0
"""Between two looks at an upload that waits for nothing but its turn."""


class Job(BaseModel):
    """One upload that a worker is to caption."""

    model_config = ConfigDict(frozen=True)

    type: Literal["job"] = "job"
    upload: ObjectVersion
    kind: str
    media_type: str
    ask: Ask
    """All that is asked."""
    prompt_version: str | None = None
    """The prompt the claim was made for; an answer to another one is not shared. None: whichever."""
    shared_as: str | None = None
    """What the claim was made for where copies may be asked otherwise, as they look otherwise; None: the ask alone."""
    content: tuple[str, ...] | None = None
    """Keys of exact identity of its content (`Fingerprint.exact`); None: of a job from before they stood in it."""
    looks: Looks | None = None
    """What the picture looks like; None for other media."""
    arm: Arm | None = None
    """Its side of an experiment; None: it takes part in none."""
    note: str | None = None
    """What a reader of the caption should know of the file, such as that it is shorter than its header tells."""
    since: str | None = None
    """That the upload is to be captioned once more: an answer from before this time (ISO 8601) is none to this job."""
    claim: ClaimRef
    queued_at: float = Field(ge=0)
    """Epoch seconds of the first time it was queued; deferrals keep it."""
    deferrals: int = Field(default=0, ge=0)
    lane: Literal["bulk"] | None = None
    """Whether it is to be answered in a batch."""
    unusable: int = Field(default=0, ge=0)
    """How many of the last deferrals in a row were for answers that the task cannot use, from every model."""


class Revisit(BaseModel):
    """An upload that is to go through dedupe again: it stopped on the way, lost its leader, is redriven or recaptioned.

    `stalled` asks to end it: it was put back often enough. `recaption` asks for another answer beside one that is there
    (`mode` says whether only a stale one counts as none), or for a first one where nothing is known of the object.
    """

    model_config = ConfigDict(frozen=True)

    type: Literal["revisit"] = "revisit"
    upload: ObjectVersion
    reason: Literal["sweep", "stalled", "leader_lost", "contention", "redrive", "recaption"]
    seen: str | None = None
    """The record's `updated_at` when this was asked for; `redrive`, `recaption` and `stalled` only mean a record as it
    was then."""
    mode: Literal["missing", "stale", "force"] | None = None
    attempt: int = Field(default=0, ge=0)


class Queues:
    """Sends jobs and revisits; `sqs` is a boto3 SQS client."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs

    def send(self, queue_url: str, message: Job | Revisit, *, delay: float = 0) -> None:
        """Put a message on a queue; `delay` in seconds is cut to what SQS allows."""
        self._sqs.send_message(
            QueueUrl=queue_url,
            # Escaped to ASCII: SQS refuses some characters that object keys may have.
            MessageBody=json.dumps(message.model_dump(mode="json", exclude_none=True)),
            DelaySeconds=min(MAX_DELAY_SECONDS, max(0, round(delay))),
        )


def backoff(attempt: int, *, base: float = 4.0, cap: float = MAX_DELAY_SECONDS, at_least: float = 0.0) -> float:
    """Seconds to wait before try number `attempt` (0 is the first), growing threefold, with half of it as jitter.

    Of the longest delay an eighth is jitter: those that wait so long are spread by the delays before, and each time
    one is put back costs an invocation and several writes. `at_least` is a time that was asked for; up to a quarter is
    added to it, because many are asked for the same one.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (equal jitter, so that no delay is near zero).
    """
    ceiling = min(cap, base * 3.0 ** min(attempt, 30))
    grown = ceiling - random.uniform(0, ceiling / (2 if ceiling < cap else 8))  # noqa: S311 - jitter is no secret
    return min(cap, max(grown, at_least * random.uniform(1.0, 1.25)))  # noqa: S311 - nor is this
