"""What goes into the gateway and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from captions.cost import Cost
from captions.gateway.error_class import ErrorClass

CostSource = Literal["endpoint", "catalogue", "unknown"]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API: its base URL with `/v1`, and the name it has in logs and records."""

    base_url: str
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if not self.name:
            object.__setattr__(self, "name", self.base_url.partition("://")[2].partition("/")[0] or self.base_url)


@dataclass(frozen=True)
class Media:
    """One medium of a request.

    `url` makes a link to the medium that is good for so many seconds. It is called only for a model that takes links,
    and only if the bytes are not at hand or do not fit into the model's body; each attempt gets a link of its own, for
    the time that the attempt has. `duration_s` is how long sound or video plays.
    """

    kind: Literal["image", "audio", "video"]
    media_type: str
    data: bytes | None = field(default=None, repr=False)
    url: Callable[[float], str] | None = field(default=None, repr=False)
    duration_s: float | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a model: `instructions` (system), `text` (user), media, and at most `max_tokens` in reply.

    `response_format` is the wanted form of the answer; of a model that takes less, less is asked.
    `judge` looks at a complete text and returns None to accept it, or why not: `ErrorClass.REFUSED` for a refusal in
    prose, `ErrorClass.UNFIT` for an answer the task cannot use. A text that is not accepted is a failed attempt, paid
    like any other, and the next model of the chain is asked. `budget_scopes` names the spending limits that the call
    counts against (see `Budgets`). `transcription` says that nothing but the words of the one sound is asked for, so
    that models at `/v1/audio/transcriptions` may answer; they get no instructions.
    """

    instructions: str
    text: str
    media: tuple[Media, ...] = ()
    max_tokens: int = 512
    temperature: float = 0.2
    response_format: Mapping[str, Any] | None = None
    request_id: str = ""
    judge: Callable[[str], ErrorClass | None] | None = field(default=None, repr=False)
    budget_scopes: tuple[str, ...] = ()
    transcription: bool = False

    @property
    def kind(self) -> Literal["text", "image", "audio", "video"]:
        """The heaviest modality of the request, which its timeout goes by."""
        kinds = {medium.kind for medium in self.media}
        for kind in ("video", "audio", "image"):
            if kind in kinds:
                return kind
        return "text"

    @property
    def duration_s(self) -> float | None:
        """Seconds that the sound and video of the request play in sum, None if no duration is known."""
        known = [medium.duration_s for medium in self.media if medium.duration_s is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counted them. `cached` lies inside `prompt`, `reasoning` inside `completion`.

    `seconds` of sound are counted instead where a model is billed by time.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: seconds from the start of the medium, and its words."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class CallReport:
    """One call to one model that has ended, for those who watch calls: nothing of what was asked or answered."""

    attempt: Attempt
    operation: Literal["chat", "transcription"]
    provider: str
    base_url: str
    wire_name: str
    """What the endpoint calls the model that was asked."""
    reported_model: str | None
    finish_reason: str | None


@dataclass(frozen=True)
class Attempt:
    """One call to one model. `outcome` is "ok" or a value of `ErrorClass`.

    `spent` is what it cost as far as that is known, `cost` the dollars if it is known in full. `role` and `tier` say
    what the call was made for, where whoever made it keeps track of that.
    """

    model: str
    endpoint: str
    outcome: str
    status: int | None
    latency_ms: int
    prompt_tokens: int | None
    completion_tokens: int | None
    spent: Cost
    started_at: str
    detail: str | None = None
    role: str | None = None
    tier: str | None = None
    lane: str | None = None
    """`bulk` where it was a line of a batch."""
    batch: str | None = None
    """That batch."""
    saved: Cost | None = None
    """What a call by itself would have cost beyond it, by the catalogue's prices; None where it was no billed line."""

    @property
    def cost(self) -> Decimal | None:
        """Dollars, None unless they are known in full."""
        return self.spent.exact

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as plain JSON values, costs as text; what is unknown is left out."""
        values: dict[str, Any] = {
            "model": self.model,
            "endpoint": self.endpoint,
            "outcome": self.outcome,
            "status": self.status,
            "latency_ms": self.latency_ms,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            **self.spent.fields(),
            "started_at": self.started_at,
            "detail": self.detail,
            "role": self.role,
            "tier": self.tier,
            "lane": self.lane,
            "batch": self.batch,
            **(self.saved.fields("saved") if self.saved is not None else {}),
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Completion:
    """A model's answer.

    `model` is the catalogue's name, `reported_model` what the endpoint says answered. `cost` is this answer's, in
    dollars, None if it is not known in full; `spent` adds the failed attempts', as far as they are known. `latency_ms`
    runs from the call to the answer, with every attempt and wait. A transcription has its `segments` and the spoken
    `language` as the endpoint names it, where the model gives them. `mean_logprob` is the mean natural logarithm of the
    probabilities of the answer's tokens, from models that the catalogue says tell them.
    """

    text: str
    model: str
    reported_model: str | None
    endpoint: str
    finish_reason: str
    usage: Usage
    cost: Decimal | None
    spent: Cost
    cost_source: CostSource
    latency_ms: int
    attempts: tuple[Attempt, ...]
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    mean_logprob: float | None = None
    transcribed: bool = False
    """Not answered in a chat but at `/v1/audio/transcriptions`: plain words, whatever was asked."""


@dataclass(frozen=True)
class StreamEvent:
    """One event of a stream.

    * `delta`: `text` continues what came before it.
    * `restart`: the model broke off; everything since the start is void and `model` begins again.
    * `done`: `completion` holds the whole text, the usage and the cost. It is the last event.
    """

    kind: Literal["delta", "restart", "done"]
    text: str = ""
    model: str = ""
    completion: Completion | None = None
