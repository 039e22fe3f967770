"""What is known of one object: the item of the captions table as it is read."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from captions.aws.dynamodb import from_item
from captions.cost import Cost
from captions.quality.cells import Cell
from captions.uploads.version import ObjectVersion


class ClaimRef(BaseModel):
    """The claim on the near-duplicate index that a job was led from."""

    model_config = ConfigDict(frozen=True)

    id: str
    generation: int


State = Literal["received", "queued", "waiting", "captioned", "rejected", "blocked", "failed", "deleted"]

Ended = Literal["captioned", "rejected", "blocked", "failed", "deleted"]

PENDING: tuple[State, ...] = ("received", "queued", "waiting")

SHARDS = 8
"""Partitions each day, and the pending uploads, are spread over in the `activity` index."""

MAX_RESULT_BYTES = 210_000
"""Of one result as JSON, so that a person's words (twice 40 KB, and those they had before), attempts, a draft and a
poster still fit beside it into an item of 400 KB."""

MAX_EARLIER_BYTES = 4_000
"""Of the words of a third verdict, which stand beside all that."""

_WHOLE_JSON_CHARACTERS = re.compile(r'(?:[^\\"]|\\u[0-9a-f]{4}|\\[^u])*')


def _floats(value: Any) -> Any:
    """Turn DynamoDB's decimals inside plain values back into the floats they were."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _floats(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_floats(inner) for inner in value]
    return value


def shard_of(asset: str) -> int:
    """The shard of the `activity` index an asset belongs to."""
    return hashlib.sha256(asset.encode()).digest()[0] % SHARDS


class Reason(BaseModel):
    """Why an upload is rejected, blocked, failed or deleted: a code for programs and a sentence for people."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Result(BaseModel):
    """What was said about the media."""

    model_config = ConfigDict(frozen=True)

    text: str
    language: str
    task: str
    style: str = ""
    tags: tuple[str, ...] = ()
    safety: str | None = None
    """The model's verdict: safe, sensitive, unsafe or unknown."""
    confidence: float | None = None
    """0 to 1, as far as the pipeline trusts the answer; None where nothing was known to judge it by."""
    data: dict[str, Any] = Field(default_factory=dict)
    """The task's further fields, as plain JSON values."""
    left_out: tuple[Literal["data", "tags", "text"], ...] = ()
    """What a record has no room for: all `data`, all `tags`, the end of `text`."""

    @field_validator("data", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any) -> Any:
        return _floats(value)


class Judged(BaseModel):
    """The model's answer that a verdict is about, as far as verdicts are counted by it (captions.quality.cells)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    task: str
    category: str
    """One of `attention.GROUPS`."""
    prompt_version: str
    experiment: str | None = None
    arm: str | None = None
    score: float | None = None
    """The answer's confidence before calibration, 0 to 1."""

    @field_validator("score", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return _floats(value)

    @property
    def cell(self) -> Cell:
        """What it is counted in."""
        return Cell(self.category, self.model, self.task, self.prompt_version, self.experiment, self.arm)


class BeforeVerdict(BaseModel):
    """What a verdict took the place of and nothing else in the record tells, so that the verdict can be taken back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    human: "Human | None" = None
    """The verdict before it, perhaps about an earlier version; of what that took the place of it has no answers."""
    result: Result | None = None
    """Of a person's words before it: the result they were, without its text, which `human` has."""
    counted_out: bool = False
    """Whether the verdict before it ceased to be counted with it."""
    state: Literal["failed", "blocked"] | None = None
    """How the upload had ended, where nothing but the person's words made it captioned."""
    reason: Reason | None = None
    completed_at: str | None = None


class Human(BaseModel):
    """What a person said about a version: words of their own in place of the model's, or that the model's are good."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequencer: str = ""
    """The version it was said about; a later one has other pixels, so that it then only stands beside the record."""
    action: Literal["edited", "accepted"] = "edited"
    text: str = ""
    language: str = "und"
    at: str = ""
    content: tuple[str, ...] = ()
    """Keys of exact identity of what they spoke about: where it is uploaded again, their words stay in force."""
    judged: Judged | None = None
    """The answer it is counted for; None: no model had answered."""
    before: BeforeVerdict | None = None

    def known(self) -> Iterator["Human"]:
        """Yield this verdict and those before it that are still known, the newest first."""
        verdict: Human | None = self
        while verdict is not None:
            yield verdict
            verdict = verdict.before.human if verdict.before is not None else None

    def above(self, earlier: Iterable["Human"], **ending: Any) -> "Human":
        """Return this verdict as it stands in a later one: with the newest of `earlier` that there is room for."""
        fit = (verdict for verdict in earlier if len(verdict.text.encode()) <= MAX_EARLIER_BYTES)
        last = next(fit, None)
        bare = last.model_copy(update={"before": None}) if last is not None else None
        before = BeforeVerdict.model_validate({**ending, "human": bare}) if bare or ending else None
        return self.model_copy(update={"before": before})


BeforeVerdict.model_rebuild()


class Suggestion(BaseModel):
    """A model's answer that stands beside a person's words, which it never replaces."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    result: Result
    source: Literal["model", "cache"] = "model"
    at: str = ""
    replaced: bool = False
    """Whether it is what the person's words took the place of, rather than a later answer."""


class Recaption(BaseModel):
    """That a captioned version is on its way once more; the caption it has stays until the new one is there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    mode: Literal["stale", "force"]
    at: str
    completed_at: str | None = None
    paid: str | None = None
    """What the upload had cost until then, in dollars as decimal text; None: not known in full."""
    paid_at_least: Cost | None = None


class Likeness(BaseModel):
    """Why a copy was held for the same as what its caption is from, as it was decided."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["same_bytes", "same_content", "near"]
    """`same_content`: the same payload or pixels, in other bytes."""
    hash_distance: int | None = None
    """Bits of 256 in which the nearest two of their perceptual hashes differ; None: they were not compared by them."""
    way: Literal["whole", "marked", "cropped"] | None = None
    """What was compared: all of both, all but a pale mark, or what both show."""
    luma: float | None = None
    """The largest difference of a part, of 255; beside it what copies may show (`Resemblance`)."""
    luma_limit: float | None = None
    chroma: float | None = None
    chroma_limit: float | None = None


class Draft(BaseModel):
    """Answers of a worker that asks on (repair, step up), so that whoever takes over from it need not pay for them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequencer: str
    claim: str
    """The claim they were paid under."""
    identity: str
    """Digest of what was asked."""
    asked: tuple[str, ...] = ()
    """The roles whose calls were made, also those that failed."""
    refused: tuple[str, ...] = ()
    """The models that refused."""
    answers: tuple[dict[str, Any], ...] = ()
    """As `answering.stored` wrote them."""
    calls: int = 0
    """How many of the record's attempts, the newest, were made for it."""


class Provenance(BaseModel):
    """Where a result came from and what it cost, in dollars as decimal text.

    A cost that is not known in full is absent, never zero; what is known of it stands beside it, under `…_at_least`.
    """

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    reported_model: str | None = None
    endpoint: str | None = None
    prompt_version: str | None = None
    identity: str | None = None
    """Digest of everything that was asked; answers are only shared between uploads that have the same."""
    shared_as: str | None = None
    """What its claim was made for, where copies may be asked otherwise (`Job.shared_as`)."""
    tier: str | None = None
    category: str | None = None
    """What the picture looked like, without a model."""
    experiment: str | None = None
    """The policy's experiment that the answer was given in, and the side of it: `control` or `variant`."""
    arm: str | None = None
    score: float | None = None
    """The answer's confidence before calibration, 0 to 1."""
    escalated: bool | None = None
    answered_at: str | None = None
    """When the model gave the answer, ISO 8601; it stays that where the answer is copied."""
    attempts: tuple[dict[str, Any], ...] = ()
    cost: str | None = None
    """What the upload cost, captions that were replaced since included."""
    cost_at_least: Cost | None = None
    answer_cost: str | None = None
    """What this caption alone took."""
    answer_cost_at_least: Cost | None = None
    cost_source: str | None = None
    latency_ms: int | None = None
    copied_from: str | None = None
    """The asset whose caption this is, where the source is `cache`."""
    likeness: Likeness | None = None
    """Why it may be; None: not known, as of copies from before it was kept."""
    saved: str | None = None
    """What the copied caption had cost."""
    saved_at_least: Cost | None = None

    @property
    def spent(self) -> Cost | None:
        """What the upload cost as far as it is known; None: unknown."""
        return _cost(self.cost, self.cost_at_least)

    @property
    def answer_spent(self) -> Cost | None:
        """What this caption alone took as far as it is known; None: unknown."""
        return _cost(self.answer_cost, self.answer_cost_at_least)

    @property
    def spared(self) -> Cost | None:
        """What the copied caption had cost as far as it is known; None: unknown."""
        return _cost(self.saved, self.saved_at_least)


def _cost(exact: str | None, at_least: Cost | None) -> Cost | None:
    return at_least if exact is None else Cost(dollars=Decimal(exact))


def fitted(result: Result) -> Result:
    """Return a result that an item has room for: of an endless one the further fields go first, then the text's end.

    What went stands in its `left_out`.
    """
    if _bytes(result) <= MAX_RESULT_BYTES:
        return result
    if result.data:
        return fitted(result.model_copy(update={"data": {}, "left_out": ("data",)}))
    left_out: tuple[str, ...] = (*result.left_out, *(("tags",) if result.tags else ()), "text")
    short = result.model_copy(update={"text": "", "tags": (), "left_out": left_out})
    room = MAX_RESULT_BYTES - _bytes(short)
    quoted = json.dumps(result.text, ensure_ascii=False).encode()[1 : room + 1]
    # As JSON, a line's end or a quotation mark takes two bytes; half of one is no character.
    text = _WHOLE_JSON_CHARACTERS.match(quoted.decode(errors="ignore"))
    return short.model_copy(update={"text": json.loads(f'"{text[0] if text else ""}"')})


def _bytes(result: Result) -> int:
    return len(json.dumps(result.model_dump(), ensure_ascii=False).encode())


class Record(BaseModel):
    """One item of the captions table."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    asset: str
    bucket: str
    key: str
    version_id: str | None = None
    sequencer: str
    etag: str = ""
    size: int = 0
    state: State
    reason: Reason | None = None
    kind: str | None = None
    media_type: str | None = None
    source: Literal["model", "cache", "human"] | None = None
    result: Result | None = None
    provenance: Provenance | None = None
    lane: Literal["now", "bulk"] | None = None
    """`bulk`: it waits for a batch, or was to; `now`: no batch answered it, and it went the ordinary way. None: it was
    never meant for one."""
    attempts: tuple[dict[str, Any], ...] = ()
    """Model calls of deferred tries; they join the provenance when the upload ends."""
    claim: ClaimRef | None = None
    lease_until: Decimal | None = None
    received_at: str = ""
    updated_at: str = ""
    completed_at: str | None = None
    sweeps: int = 0
    begun: int = 0
    """How many deliveries took the lease since a worker last came as far as its models."""
    human: Human | None = None
    suggestion: Suggestion | None = None
    """The model's latest answer, where `result` is a person's words; the provenance is that of this answer."""
    undone: tuple[str, str] | None = None
    """When the record had been updated that the last undo took a verdict of, and when that was: only while this is its
    last update, it is as that undo left it."""
    recaption: Recaption | None = None
    likeness: Likeness | None = None
    """Why it waits for another one's caption."""
    content: tuple[str, ...] = ()
    """Keys of exact identity of this version's content (`Fingerprint.exact`), once it was looked at."""
    superseded_calls: int = 0
    """Calls made for versions that were replaced since, or whose answer came too late."""
    superseded_unknown: int = 0
    """Of these, the calls whose cost is not known in full."""
    superseded_counted: int = 0
    """Of these again, the calls whose tokens are known."""
    superseded_tokens: int = 0
    """Tokens of those without a known price."""
    superseded_cost: Decimal | None = None
    """Dollars paid for versions of the object that were replaced, as far as they are known."""
    paid_ids: tuple[str, ...] = ()
    """Which calls were made for this version, or the one that was deleted (`captions.records.attempts.named`)."""
    superseded_ids: tuple[str, ...] = ()
    """Which calls the `superseded` sums hold, oldest first, as far as there is room."""
    draft: Draft | None = None
    poster: bytes | None = Field(None, repr=False)
    """A small picture of a video, as WebP (`inference.recording`): it lives and ends with the record."""

    @field_validator("superseded_cost")
    @classmethod
    def _none_superseded(cls, value: Decimal | None) -> Decimal | None:
        return value or None

    @field_validator("draft", mode="before")
    @classmethod
    def _of_another_version(cls, value: Any) -> Any:
        try:
            return Draft.model_validate_json(value) if isinstance(value, str) else value
        except ValidationError:
            return None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Read a record from DynamoDB attribute values."""
        return cls.model_validate(from_item(item))

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to this version."""
        return self.state not in PENDING

    @property
    def reviewed(self) -> bool:
        """Whether a person spoke about this very version."""
        return self.human is not None and self.human.sequencer == self.sequencer

    @property
    def answer(self) -> Suggestion | None:
        """The model's own latest answer, also where a person's words stand in its place; None: there is none."""
        if self.suggestion is not None:
            return self.suggestion
        if self.result is None or self.source is None or self.source == "human":
            return None
        return Suggestion(result=self.result, source=self.source, at=self.completed_at or "")

    @property
    def superseded(self) -> Cost:
        """What was paid for versions that were replaced, as far as it is known."""
        return Cost(
            dollars=self.superseded_cost or Decimal(0),
            unpriced_tokens=self.superseded_tokens,
            uncounted_calls=max(0, self.superseded_unknown - self.superseded_counted),
        )

    @property
    def upload(self) -> ObjectVersion:
        """The object version this record is about."""
        return ObjectVersion(
            bucket=self.bucket,
            key=self.key,
            version_id=self.version_id,
            sequencer=self.sequencer,
            etag=self.etag,
            size=self.size,
        )
