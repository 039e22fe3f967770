"""The models the pipeline may call: what each understands, costs and needs.

The entries stand in `models.toml` beside this module. An override document of the same shape (from a parameter store,
say) changes single fields, adds models and endpoints, or disables an entry, without a deploy:

    >>> catalogue = load('[models."GPT-4o"]\\ninput_price = 2.0')
    >>> catalogue.model("GPT-4o").input_price
    Decimal('2.0')
    >>> catalogue.model("GPT-4o").output_price
    Decimal('10.00')
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from captions.once import once
from captions.overrides import laid_over

Modality = Literal["text", "image", "audio", "video"]

ContentPart = Literal[
    "image_url_data",  # image_url with a data URI
    "image_url",  # image_url with a link
    "input_audio",  # input_audio with base64
    "input_audio_url",  # input_audio with a link in its data field (DashScope)
    "audio_url",  # audio_url with a link
    "audio_url_data",  # audio_url with a data URI
    "audio_transcriptions",  # a file of its own, to /v1/audio/transcriptions instead of a chat
    "video_url",  # video_url with a link
    "video_url_data",  # video_url with a data URI
]

_PARTS_OF: Mapping[str, frozenset[ContentPart]] = MappingProxyType(
    {
        "text": frozenset(),
        "image": frozenset({"image_url_data", "image_url"}),
        "audio": frozenset({"input_audio", "input_audio_url", "audio_url", "audio_url_data", "audio_transcriptions"}),
        "video": frozenset({"video_url", "video_url_data"}),
    }
)

_TRANSCRIPTIONS: frozenset[ContentPart] = frozenset({"audio_transcriptions"})

Structured = Literal["json_schema", "json_object", "none"]
"""The strongest `response_format` a model takes: a schema it must keep to, any JSON object, or none at all."""


class CatalogueError(Exception):
    """The catalogue, or the document that overrides it, is not what the pipeline can work with."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


class Latency(_Entry):
    """Seconds, as measured on the hosted endpoint."""

    p50: float = Field(gt=0)
    p99: float = Field(gt=0)
    longest: float | None = Field(default=None, gt=0)


class Timeouts(_Entry):
    """Seconds one attempt may take, by what is sent."""

    text: float = Field(default=15.0, gt=0)
    image: float = Field(default=15.0, gt=0)
    audio: float = Field(default=30.0, gt=0)
    video: float = Field(default=45.0, gt=0)
    long_media_from: float = Field(default=300.0, gt=0)
    long_media_per_minute: float = Field(default=6.0, ge=0)
    longest: float = Field(default=120.0, gt=0)

    def seconds(self, kind: Modality, duration_s: float | None = None) -> float:
        """Return the timeout of one attempt on media of this kind that plays for `duration_s` seconds."""
        base: float = getattr(self, kind)
        if kind in ("text", "image") or duration_s is None or duration_s <= self.long_media_from:
            return base
        extra = (duration_s - self.long_media_from) / 60 * self.long_media_per_minute
        return min(base + extra, max(base, self.longest))


class Model(_Entry):
    """One model: prices in dollars per million tokens (None: not published), context in tokens, bodies in bytes.

    `minute_price` is in dollars per minute of sound, for models that are billed by time. `longest_audio` and
    `longest_video` are the seconds one call may hold. A model without the modality `text` does not chat: it turns sound
    into words at `/v1/audio/transcriptions`. `transcript_format` is what it is asked for there: `verbose_json` has the
    language and segments with times, which not every model gives. `structured` is the strongest `response_format` that
    is documented for it. `batch_factor` is the part of its prices that a call in a batch costs (`/v1/batches`), None
    where it takes no batches.
    """

    name: str = Field(min_length=1)
    provider: str = Field(min_length=1)
    modalities: frozenset[Modality]
    input_price: Decimal | None = Field(default=None, ge=0)
    cached_input_price: Decimal | None = Field(default=None, ge=0)
    output_price: Decimal | None = Field(default=None, ge=0)
    minute_price: Decimal | None = Field(default=None, ge=0)
    priced_on: date | None = None
    """When the prices were read where they are published."""
    context: int = Field(gt=0)
    latency: Mapping[Modality, Latency] = Field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    takes: frozenset[ContentPart] = frozenset()
    max_body: int = Field(default=4_000_000, gt=0)
    longest_audio: float | None = Field(default=None, gt=0)
    longest_video: float | None = Field(default=None, gt=0)
    transcript_format: Literal["verbose_json", "json"] = "verbose_json"
    streaming_only: bool = False
    structured: Structured = "none"
    logprobs: bool = False
    """Whether it tells the probabilities of its tokens when asked; a model that does not may refuse the request."""
    media_types: Mapping[Modality, tuple[str, ...]] = Field(default_factory=dict)
    audio_data_prefix: str = ""
    batch_factor: Decimal | None = Field(default=None, gt=0, le=1)
    enabled: bool = True

    @model_validator(mode="after")
    def _takes_what_it_understands(self) -> Model:
        if self.enabled:
            for modality in self.modalities - {"text"}:
                if not self.takes & _PARTS_OF[modality]:
                    raise ValueError(f"{self.name} understands {modality} but takes no part that carries it")
        return self

    @property
    def priced(self) -> bool:
        """Whether the cost of a call can be calculated from its tokens or seconds."""
        return self.minute_price is not None or None not in (self.input_price, self.output_price)

    @property
    def chats(self) -> bool:
        """Whether the model answers chat completions, rather than transcriptions alone."""
        return "text" in self.modalities

    @property
    def takes_batches(self) -> bool:
        """Whether a call about a picture can be a line of a batch."""
        return self.batch_factor is not None and "image_url_data" in self.takes and not self.streaming_only

    def costs_no_more_than(self, other: Model) -> bool:
        """Whether no token costs more than another model's, for certain: a price that is not known may be any."""
        prices = ((getattr(self, name), getattr(other, name)) for name in ("input_price", "output_price"))
        return all(own is not None and theirs is not None and own <= theirs for own, theirs in prices)

    def in_batches(self) -> Model:
        """Return the model at the prices of a batch."""
        factor = self.batch_factor or Decimal(1)
        prices = ("input_price", "cached_input_price", "output_price", "minute_price")
        known = {name: price * factor for name in prices if (price := getattr(self, name)) is not None}
        return self.model_copy(update=known)

    def longest(self, kind: Modality) -> float | None:
        """Return the seconds of this kind that one call may hold; None where no limit is known."""
        return {"audio": self.longest_audio, "video": self.longest_video}.get(kind)

    def timeout_s(self, kind: Modality, duration_s: float | None = None) -> float:
        """Return the seconds one attempt on this kind of media may take."""
        return self.timeouts.seconds(kind, duration_s)

    def accepts(self, kind: Modality, media_type: str) -> bool:
        """Tell whether the model reads this media type; a kind without a list of its own is not restricted."""
        if kind not in self.modalities:
            return False
        listed = self.media_types.get(kind)
        return listed is None or media_type in listed


class Dialect(_Entry):
    """How a kind of server takes media, where that differs from the model's entry."""

    takes: frozenset[ContentPart] | None = None
    media_types: Mapping[Modality, tuple[str, ...]] = Field(default_factory=dict)
    audio_data_prefix: str | None = None
    streaming_only_models: tuple[str, ...] = ()
    structured: Structured | None = None
    logprobs: bool | None = None
    max_body: int | None = Field(default=None, gt=0)
    batches: bool = True
    """Whether such a server has `/v1/files` and `/v1/batches`."""

    def spoken_by(self, model: Model) -> Model | None:
        """Return the model as this server takes it, or None if the server takes nothing the model understands."""
        changes: dict[str, Any] = {}
        if self.takes is not None:
            # A server's dialect says how media go into chats; transcriptions are only what the model itself offers.
            takes = self.takes & model.takes if not model.chats else self.takes - (_TRANSCRIPTIONS - model.takes)
            understood = frozenset(m for m in model.modalities if m == "text" or takes & _PARTS_OF[m])
            if model.modalities - {"text"} and understood <= {"text"}:
                return None
            carried: frozenset[ContentPart] = frozenset().union(*(_PARTS_OF[m] for m in understood))
            changes["modalities"] = understood
            changes["takes"] = takes & carried
        if self.media_types:
            changes["media_types"] = dict(model.media_types) | {
                kind: tuple(t for t in types if t in model.media_types.get(kind, types))
                for kind, types in self.media_types.items()
            }
        if self.audio_data_prefix is not None:
            changes["audio_data_prefix"] = self.audio_data_prefix
        if any(fnmatchcase(model.name, pattern) for pattern in self.streaming_only_models):
            changes["streaming_only"] = True
        if self.structured is not None:
            # Who constrains the decoding is the server, whatever the model.
            changes["structured"] = self.structured
        if self.logprobs is not None:
            changes["logprobs"] = self.logprobs
        if not self.batches:
            changes["batch_factor"] = None
        if self.max_body is not None:
            changes["max_body"] = min(self.max_body, model.max_body)
        return model.model_copy(update=changes)


def first_in_batches(models: Iterable[Model]) -> int | None:
    """Return the place of the first model that takes batches, and whose tokens cost no more there than those of the
    first model do by themselves; None if there is none.
    """
    first: Model | None = None
    for place, model in enumerate(models):
        first = first or model
        if model.takes_batches and (model is first or model.in_batches().costs_no_more_than(first)):
            return place
    return None


class EndpointEntry(_Entry):
    """What is known of one endpoint: its dialect, what it calls the models, and which of them it has.

    `names` maps the catalogue's name to the endpoint's (`qwen3-vl:8b` at Ollama). `only_named` says that the endpoint
    serves nothing else, which is what a self-hosted server does.
    """

    dialect: str = "openai"
    names: Mapping[str, str] = Field(default_factory=dict)
    only_named: bool = False
    free: bool = False


class Catalogue(_Entry):
    """The models, the dialects servers speak, and what is known of single endpoints."""

    models: Mapping[str, Model]
    dialects: Mapping[str, Dialect] = Field(default_factory=lambda: {"openai": Dialect()})
    endpoints: Mapping[str, EndpointEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_what_it_has(self) -> Catalogue:
        for url, endpoint in self.endpoints.items():
            if endpoint.dialect not in self.dialects:
                raise ValueError(f"endpoint {url}: unknown dialect {endpoint.dialect!r}")
            if unknown := sorted(set(endpoint.names) - set(self.models)):
                raise ValueError(f"endpoint {url}: names a model that is not in the catalogue: {unknown[0]}")
        return self

    def model(self, name: str) -> Model:
        """Return the entry of this name.

        Raises:
            CatalogueError: no enabled model has this name.
        """
        model = self.models.get(name)
        if model is None or not model.enabled:
            raise CatalogueError(f"the catalogue has no model {name!r}")
        return model

    def endpoint(self, base_url: str) -> EndpointEntry:
        """Return what is known of the endpoint at this base URL (a closing slash makes no difference)."""
        return self.endpoints.get(base_url.rstrip("/"), EndpointEntry())

    def served(self, name: str, base_url: str) -> tuple[Model, str] | None:
        """Return the model as the endpoint takes it, with the name the endpoint knows it by; None if it has it not.

        Raises:
            CatalogueError: no enabled model has this name.
        """
        entry = self.endpoint(base_url)
        model = self.model(name)
        if entry.only_named and name not in entry.names:
            return None
        spoken = self.dialects[entry.dialect].spoken_by(model)
        if spoken is None:
            return None
        if entry.free:
            spoken = spoken.model_copy(
                update=dict.fromkeys(("input_price", "cached_input_price", "output_price", "minute_price"), Decimal(0))
            )
        return spoken, entry.names.get(name, name)


def load(override: str | None = None) -> Catalogue:
    """Return the packaged catalogue, with the TOML document `override` merged over it.

    Tables are merged key by key; every other value replaces what stood there. `enabled = false` removes a model.

    Raises:
        CatalogueError: the document is not TOML, or what results of it is not a catalogue. The message names the field.
    """
    document = _packaged()
    if override is not None and override.strip():
        document = laid_over(document, _parse(override, "the catalogue's override"))
    return _checked(document)


@once
def _packaged() -> Mapping[str, Any]:
    return _parse(files("captions.gateway").joinpath("models.toml").read_text(encoding="utf-8"), "models.toml")


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{what} is not valid TOML: {error}") from error


def _checked(document: Mapping[str, Any]) -> Catalogue:
    defaults = document.get("defaults", {})
    models = document.get("models", {})
    if not isinstance(defaults, Mapping) or not isinstance(models, Mapping):
        raise CatalogueError("the catalogue's `defaults` and `models` must be tables")
    if unknown := sorted(set(document) - {"defaults", "models", "dialects", "endpoints"}):
        raise CatalogueError(f"the catalogue has an unknown table: {unknown[0]}")
    entries = {}
    for name, fields in models.items():
        if not isinstance(fields, Mapping):
            raise CatalogueError(f"models.{name} must be a table")
        entries[name] = laid_over(defaults, fields) | {"name": name}
    endpoints = document.get("endpoints", {})
    if isinstance(endpoints, Mapping):
        endpoints = {url.rstrip("/"): entry for url, entry in endpoints.items()}
    try:
        return Catalogue.model_validate(
            {"models": entries, "dialects": document.get("dialects", {}), "endpoints": endpoints}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise CatalogueError(f"the catalogue is wrong at {where or 'its top'}: {first['msg']}") from error
