"""Faults on demand: what a call is made to suffer instead of, or on top of, its answer."""

from __future__ import annotations

import fnmatch
import random
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captions_cli.local.model_endpoint.wire import ApiError, CountedTokens, ServerAnswer, count_tokens

FaultName = Literal[
    # Answered at once with an HTTP error.
    "rate_limited",  # 429, with Retry-After if `retry_after` is given
    "quota_exceeded",  # 429 insufficient_quota: no waiting helps
    "overloaded",  # 503
    "server_error",  # 500
    "bad_gateway",  # 502 with an HTML page, as a proxy sends it
    "gateway_timeout",  # 504
    "unauthorized",  # 401
    "payment_required",  # 402
    "forbidden",  # 403
    "not_found",  # 404, the model is not there
    "too_large",  # 413
    "bad_request",  # 400
    "context_too_long",  # 400 context_length_exceeded
    # Broken on the wire.
    "connection_reset",  # TCP reset before any answer
    "hang",  # accepted, then nothing for `delay_s` (default: until the client leaves)
    "slow_drip",  # a right answer, `delay_s` (default 1 s) between its pieces
    "cut_stream",  # the answer ends in the middle, see `clean`
    "stream_error",  # an error event in the middle of a stream (an error body if not streamed)
    "error_body",  # HTTP 200 with {"error": ...} instead of choices
    "malformed",  # HTTP 200 with a body that is not JSON
    # Answered, but not well.
    "empty",  # no text, finish_reason stop
    "reasoning_only",  # tokens spent on reasoning, no text, finish_reason length
    "truncated",  # half the text, finish_reason length
    "no_finish_reason",  # the whole text, finish_reason null
    "refusal",  # see `form`
    "answer",  # `text` instead of the answer: over-long, hostile or malformed model output
    "late",  # the right answer, `delay_s` later than it would have come
    # Of batches alone: of one line ...
    "lost_line",  # it is not worked at, and stands in neither file
    "doubled_line",  # its answer stands in the file twice
    # ... or of the whole batch, chosen when it is created.
    "batch_failed",  # its file does not pass the validation
    "batch_expired",  # its time is over when half of its lines are answered
    "batch_stuck",  # it stays in progress until it is cancelled
    "batch_unconfirmed",  # it is created, and the connection breaks before that is answered
]
OF_A_BATCH = frozenset({"batch_failed", "batch_expired", "batch_stuck", "batch_unconfirmed"})
OF_A_LINE = frozenset({"lost_line", "doubled_line"})
NOT_OF_A_LINE = frozenset(
    {"bad_gateway", "connection_reset", "hang", "slow_drip", "cut_stream", "stream_error", "error_body", "malformed"}
)
"""What happens to a connection: a line of a batch has none of its own."""

_REFUSAL = "I'm sorry, but I can't assist with that request."


class Fault(BaseModel):
    """One fault and the calls it strikes. All conditions must hold; an absent condition always holds."""

    model_config = ConfigDict(extra="forbid")

    fault: FaultName
    model: str | None = Field(default=None, description="glob on the requested model's name")
    provider: str | None = Field(default=None, description="the model's provider in the catalogue")
    kind: Literal["text", "image", "audio", "video"] | None = None
    match_client_request_id: str | None = Field(default=None, description="glob on the header X-Client-Request-Id")
    streamed: bool | None = Field(default=None, description="only streamed calls, or only whole ones")
    skip: int = Field(default=0, ge=0, description="let the first n matching calls pass")
    times: int | None = Field(default=None, ge=0, description="strike n times, then never again")
    probability: float | None = Field(default=None, ge=0, le=1)
    for_s: float | None = Field(default=None, ge=0, description="strike for so many seconds from when it was set")
    period_s: float | None = Field(default=None, gt=0, description="flapping: of every `period_s` seconds ...")
    down_s: float | None = Field(default=None, ge=0, description="... strike in the first `down_s`")
    retry_after: float | None = Field(default=None, ge=0, description="seconds, sent as Retry-After")
    delay_s: float | None = Field(default=None, ge=0)
    after_pieces: int | None = Field(default=None, ge=0, description="cut_stream, stream_error: pieces sent before")
    clean: bool = Field(
        default=True,
        description="cut_stream: a stream's body ends in order, as a proxy ends it, so that nothing but the missing "
        "finish_reason tells; false breaks the connection. A whole answer is always broken.",
    )
    text: str | None = Field(default=None, description="answer, refusal: the text to send")
    certainty: float | None = Field(
        default=None, gt=0, le=1, description="answer: the probability of each of its tokens, where that is asked for"
    )
    form: Literal["field", "text", "content_filter", "error"] = Field(
        default="field",
        description="refusal as message.refusal, as plain text, as finish_reason content_filter, or as HTTP 400",
    )


Struck = Literal["call", "line", "batch"]
"""What a fault may strike: a call of its own, a line of a batch, or a batch that is created."""


def _may_strike(name: str, of: Struck) -> bool:
    if of == "batch":
        return name in OF_A_BATCH
    if name in OF_A_BATCH:
        return False
    return name not in NOT_OF_A_LINE if of == "line" else name not in OF_A_LINE


class ArmedFault:
    """A fault that was set, with what it has done so far."""

    def __init__(self, fault: Fault, set_at: float, seed: str) -> None:
        self.fault = fault
        self.set_at = set_at
        self.matched = 0
        self.fired = 0
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def strikes(
        self, *, model: str, provider: str | None, kind: str, request_id: str, streamed: bool, now: float, of: Struck
    ) -> bool:
        """Return whether the fault strikes this call, and count it."""
        fault = self.fault
        if not _may_strike(fault.fault, of):
            return False
        if fault.model is not None and not fnmatch.fnmatchcase(model, fault.model):
            return False
        if fault.provider is not None and fault.provider != provider:
            return False
        if fault.kind is not None and fault.kind != kind:
            return False
        if fault.streamed is not None and fault.streamed != streamed:
            return False
        if fault.match_client_request_id is not None and not fnmatch.fnmatchcase(
            request_id, fault.match_client_request_id
        ):
            return False
        elapsed = now - self.set_at
        if fault.for_s is not None and elapsed >= fault.for_s:
            return False
        if fault.period_s is not None and elapsed % fault.period_s >= (fault.down_s or 0.0):
            return False
        if fault.times is not None and self.fired >= fault.times:
            return False
        self.matched += 1
        if self.matched <= fault.skip:
            return False
        if fault.probability is not None and self._random.random() >= fault.probability:
            return False
        self.fired += 1
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the fault's settings with `matched` and `fired` counts."""
        settings = self.fault.model_dump(exclude_none=True, exclude_defaults=True)
        return {**settings, "matched": self.matched, "fired": self.fired}


class FaultBook:
    """The faults now set, asked in order: the first that strikes is taken. Safe to use from any thread."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._armed: list[ArmedFault] = []
        self._lock = threading.Lock()

    def set(self, faults: Iterable[Fault | Mapping[str, Any]]) -> None:
        """Replace all faults. Raises `pydantic.ValidationError` on a fault it does not know."""
        parsed = [fault if isinstance(fault, Fault) else Fault.model_validate(fault) for fault in faults]
        now = time.monotonic()
        armed = [ArmedFault(fault, now, f"{self._seed}/{place}") for place, fault in enumerate(parsed)]
        with self._lock:
            self._armed = armed

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed = []

    def choose(
        self,
        *,
        model: str,
        provider: str | None,
        kind: str,
        request_id: str = "",
        streamed: bool = False,
        of: Struck = "call",
    ) -> Fault | None:
        """Return the fault this call, line or batch suffers, or None."""
        if not self._armed:
            return None
        now = time.monotonic()
        with self._lock:
            for armed in self._armed:
                if armed.strikes(
                    model=model,
                    provider=provider,
                    kind=kind,
                    request_id=request_id,
                    streamed=streamed,
                    now=now,
                    of=of,
                ):
                    return armed.fault
        return None

    def as_list(self) -> list[dict[str, Any]]:
        """Return every fault that is set, with its counts."""
        with self._lock:
            return [armed.as_dict() for armed in self._armed]


def http_error(fault: Fault, model: str, context: int) -> ApiError | None:
    """Return the HTTP error a fault stands for, or None if it is not of that sort.

    Messages, types and codes are those of https://platform.openai.com/docs/guides/error-codes.
    """
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
    match fault.fault:
        case "rate_limited":
            return ApiError(
                429,
                f"Rate limit reached for {model} on requests per minute (RPM).",
                error_type="requests",
                code="rate_limit_exceeded",
                headers=headers,
            )
        case "quota_exceeded":
            return ApiError(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                error_type="insufficient_quota",
                code="insufficient_quota",
                headers=headers,
            )
        case "overloaded":
            message = "The engine is currently overloaded, please try again later."
            return ApiError(503, message, error_type="service_unavailable", headers=headers)
        case "server_error":
            message = "The server had an error while processing your request."
            return ApiError(500, message, error_type="server_error", headers=headers)
        case "gateway_timeout":
            return ApiError(
                504, "The upstream model did not answer in time.", error_type="server_error", headers=headers
            )
        case "unauthorized":
            return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        case "payment_required":
            return ApiError(402, "Insufficient credits.", error_type="insufficient_credits", code=402)
        case "forbidden":
            message = "Your account may not use this model or region."
            return ApiError(403, message, error_type="permission_error", code="unsupported_country_region_territory")
        case "not_found":
            return model_not_found(model)
        case "too_large":
            return ApiError(413, "The request body is too large.", code="request_too_large")
        case "bad_request":
            return ApiError(400, "Invalid value in the request.")
        case "context_too_long":
            return context_too_long(context, context + 1)
        case "refusal" if fault.form == "error":
            message = "The request was rejected as a result of the safety system."
            return ApiError(400, message, code="content_policy_violation")
    return None


def model_not_found(model: str) -> ApiError:
    """Return OpenAI's 404 for a model that is not served."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found")


def context_too_long(context: int, tokens: int) -> ApiError:
    """Return OpenAI's 400 for a prompt that does not fit the model's context window (both in tokens)."""
    message = (
        f"This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} "
        "tokens. Please reduce the length of the messages."
    )
    return ApiError(400, message, code="context_length_exceeded", param="messages")


def refusal_text(fault: Fault) -> str:
    """Return the words a refusing model answers with."""
    return fault.text if fault.text is not None else _REFUSAL


def spoiled(answer: ServerAnswer, fault: Fault) -> ServerAnswer:
    """Return the answer as a fault leaves it."""
    usage = answer.usage

    def changed(text: str | None, finish_reason: str | None, **more: Any) -> ServerAnswer:
        spent = more.pop("spent", count_tokens(text or "") * answer.choices)
        counted = CountedTokens(usage.prompt, spent, usage.cached, more.pop("thought", 0), usage.cost)
        return ServerAnswer(
            answer.id,
            answer.created,
            answer.model,
            text,
            finish_reason,
            counted,
            answer.choices,
            logprobs=answer.logprobs,
            **more,
        )

    match fault.fault:
        case "empty":
            return changed("", "stop")
        case "reasoning_only":
            thought = fault.text or "The request asks for a description. Let me look at the input step by step."
            spent = count_tokens(thought)
            return changed("", "length", reasoning=thought, spent=spent, thought=spent)
        case "truncated":
            text = answer.text or ""
            return changed(text[: max(1, len(text) // 2)], "length", certainty=answer.certainty)
        case "no_finish_reason":
            return changed(answer.text, None, certainty=answer.certainty)
        case "answer":
            return changed(fault.text or "", "stop", certainty=fault.certainty)
        case "refusal":
            words = refusal_text(fault)
            if fault.form == "text":
                return changed(words, "stop")
            if fault.form == "content_filter":
                return changed("", "content_filter")
            return changed(None, "stop", refusal=words, spent=count_tokens(words))
    return answer
