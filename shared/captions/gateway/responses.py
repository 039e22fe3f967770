"""What came back: an answer, or the class of failure it really is.

Written against what `openai` 3.x was seen to do: an error object with HTTP 200 raises nothing, a stream that is cut
ends like one that is complete, an error inside a stream has no status, and text that is no JSON is returned as text.
"""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import openai

from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import (
    AttemptFailed,
    classify_error_object,
    classify_status,
    message_of,
    retry_after_s,
)
from captions.gateway.pricing import usage_of
from captions.gateway.types import Segment, Usage

_DETAIL_CHARACTERS = 200
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelAnswer:
    """A text that is complete, as one model gave it."""

    text: str
    reported_model: str | None
    finish_reason: str
    usage: Usage
    stated_cost: Decimal | None
    raw_usage: object = None
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    mean_logprob: float | None = None
    transcribed: bool = False


def answer_of(response: object) -> ModelAnswer:
    """Return the answer a chat completion holds.

    Raises:
        AttemptFailed: it holds none.
    """
    usage = getattr(response, "usage", None)
    reported = _text(getattr(response, "model", None))
    _raise_error_in(response, usage, reported)
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        extra = getattr(response, "model_extra", None)
        why, _ = classify_error_object(extra)
        known = why if why is not ErrorClass.ERROR_BODY else ErrorClass.GARBLED
        raise AttemptFailed(known, status=200, detail=detail_of(extra), usage=usage, reported_model=reported)
    choice = choices[0]
    _raise_error_in(choice, usage, reported)
    message = getattr(choice, "message", None)
    return _judged(
        text=_content(getattr(message, "content", None)),
        finish_reason=_text(getattr(choice, "finish_reason", None)),
        refusal=bool(getattr(message, "refusal", None)),
        usage=usage,
        reported=reported,
        logprobs=_logprobs(choice),
    )


def transcript_of(response: object, wire_name: str) -> ModelAnswer:
    """Return the answer a transcription holds. Without speech its text is empty, which is no failure.

    Raises:
        AttemptFailed: it holds none.
    """
    usage = getattr(response, "usage", None)
    duration = getattr(response, "duration", None)
    if usage is None and isinstance(duration, int | float):
        usage = {"seconds": duration}  # how older servers report the time they bill
    _raise_error_in(response, usage, wire_name)
    text = getattr(response, "text", None)
    if not isinstance(text, str):
        raise AttemptFailed(ErrorClass.GARBLED, status=200, usage=usage, reported_model=wire_name)
    tokens, stated = usage_of(usage)
    language = _text(getattr(response, "language", None))
    segments = _segments(getattr(response, "segments", None))
    # A transcription names no model: the one that was asked for answered.
    return ModelAnswer(
        _whole(text).strip(), wire_name, "stop", tokens, stated, usage, segments, language, transcribed=True
    )


def _segments(given: object) -> tuple[Segment, ...]:
    """Return the segments whose times and words make sense, in order of their start."""
    segments = []
    for entry in given if isinstance(given, list) else ():
        start, end, text = (getattr(entry, name, None) for name in ("start", "end", "text"))
        if not (isinstance(start, int | float) and isinstance(end, int | float) and isinstance(text, str)):
            continue
        if math.isfinite(start) and math.isfinite(end) and 0 <= start <= end and text.strip():
            segments.append(Segment(float(start), float(end), _whole(text).strip()))
    return tuple(sorted(segments, key=lambda segment: segment.start_s))


class Collector:
    """The chunks of a stream, put together."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._finish_reason: str | None = None
        self._talked_on = False
        self._whole: ModelAnswer | None = None
        self._refusal = False
        self._usage: object = None
        self._reported: str | None = None
        self._logprobs: list[float] = []

    def add(self, chunk: object) -> str:
        """Take a chunk and return the text it adds.

        Raises:
            AttemptFailed: the chunk holds an error.
        """
        self._usage = getattr(chunk, "usage", None) or self._usage
        self._reported = _text(getattr(chunk, "model", None)) or self._reported
        _raise_error_in(chunk, self._usage, self._reported)
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list) or not choices:
            return ""
        choice = choices[0]
        _raise_error_in(choice, self._usage, self._reported)
        delta = getattr(choice, "delta", None)
        ended = self.ended
        self._finish_reason = _text(getattr(choice, "finish_reason", None)) or self._finish_reason
        self._refusal = self._refusal or bool(getattr(delta, "refusal", None))
        self._logprobs += _logprobs(choice)
        text = _content(getattr(delta, "content", None))
        if text:
            self._texts.append(text)
            self._talked_on = self._talked_on or ended
        return text

    def add_whole(self, body: object) -> str:
        """Take the body of a server that does not stream, and return its text.

        Raises:
            AttemptFailed: it holds no answer.
        """
        # Imported here: the client imports it when it is first called.
        from openai.types.chat import ChatCompletion

        if not isinstance(body, Mapping):
            raise AttemptFailed(ErrorClass.GARBLED, status=200)
        self._whole = answer_of(ChatCompletion.construct(**body))
        return self._whole.text

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, so that nothing but its usage can follow.

        Not where a server gives each chunk a reason to have ended.
        """
        return self._whole is not None or (self._finish_reason is not None and not self._talked_on)

    def answer(self) -> ModelAnswer:
        """Return the answer of a stream that ended.

        Raises:
            AttemptFailed: it ended before its answer was complete.
        """
        return self._whole or _judged(
            text="".join(self._texts),
            finish_reason=self._finish_reason,
            refusal=self._refusal,
            usage=self._usage,
            reported=self._reported,
            logprobs=self._logprobs,
        )

    def failed(self, failure: AttemptFailed) -> AttemptFailed:
        """Give a failure the usage and the model that were seen before it."""
        failure.begun = bool(self._texts)
        failure.usage = failure.usage or self._usage
        failure.reported_model = failure.reported_model or self._reported
        return failure


def _logprobs(choice: object) -> list[float]:
    """Return the logarithms of the probabilities that a choice gives for its tokens; none where they are nonsense."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    values = [getattr(token, "logprob", None) for token in tokens] if isinstance(tokens, list) else []
    # -9999 stands for a token that is not among the likeliest (OpenAI API reference).
    return [float(value) for value in values if isinstance(value, int | float) and -9999 < value <= 0]


# How models end that have not answered, in the words of OpenAI, Anthropic, Bedrock, DashScope, DeepSeek, Gemini,
# Mistral, SGLang, vLLM and Zhipu. An unknown word is an end like any other.
_ENDED: Mapping[ErrorClass, frozenset[str]] = {
    ErrorClass.REFUSED: frozenset(
        """
        content_filter content_filtered sensitive safety recitation prohibited_content blocklist spii image_safety
        guardrail_intervened refusal
        """.split()  # noqa: SIM905 - a table reads better in words
    ),
    ErrorClass.ERROR_BODY: frozenset(
        """
        error network_error abort aborted cancelled canceled timeout insufficient_system_resource
        malformed_function_call
        """.split()  # noqa: SIM905
    ),
    ErrorClass.TRUNCATED: frozenset(
        "length max_tokens max_output_tokens model_length model_context_window_exceeded incomplete".split()  # noqa: SIM905
    ),
    ErrorClass.UNFIT: frozenset({"repetition_truncation", "repetition"}),
}


def _judged(
    *,
    text: str,
    finish_reason: str | None,
    refusal: bool,
    usage: object,
    reported: str | None,
    logprobs: list[float],
) -> ModelAnswer:
    reason = (finish_reason or "").lower()
    error: ErrorClass | None = None
    ended = next((kind for kind, reasons in _ENDED.items() if reason in reasons), None)
    if refusal or ended is ErrorClass.REFUSED:
        error = ErrorClass.REFUSED
    elif ended is not None:
        error = ended
    elif not text.strip() and reason:
        error = ErrorClass.EMPTY  # a reasoning model can spend everything on its reasoning
    elif not reason:
        error = ErrorClass.CUT
    if error is not None:
        raise AttemptFailed(error, status=200, usage=usage, reported_model=reported)
    tokens, stated = usage_of(usage)
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    return ModelAnswer(_whole(text), reported, reason, tokens, stated, usage, mean_logprob=mean)


def _raise_error_in(holder: object, usage: object, reported: str | None) -> None:
    extra = getattr(holder, "model_extra", None)
    kind = getattr(holder, "object", None)
    answered = any(getattr(holder, name, None) for name in ("choices", "text"))
    error = _error_in(extra, kind, answered) if isinstance(extra, Mapping) else None
    if not error:
        return
    error_class, status = classify_error_object(error)
    raise AttemptFailed(
        error_class, status=status or 200, detail=detail_of(error), usage=usage, reported_model=reported
    )


def _error_in(extra: Mapping[str, Any], kind: object, answered: bool) -> object:
    """Return the error that stands in an answer, or is the whole of it, as of vLLM (`object` is "error"), of DashScope
    and SiliconFlow (`code` and `message`) and of MiniMax (`base_resp`); None where there is none.
    """
    if error := extra.get("error"):
        return error
    base = extra.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code"):
        return {"message": base.get("status_msg")}  # its numbers are others' too, and mean something else there
    message = extra.get("message", extra.get("msg"))
    code = extra.get("code")
    named = kind == "error" or str(extra.get("type")).endswith("error")
    if answered:
        return None  # a word for success, in one of many spellings
    if isinstance(message, str) and message and (named or code not in (None, "", 0, "0", 200, "200")):
        return {"code": code, "type": extra.get("type"), "message": message}
    return None


def failure_of(error: Exception) -> AttemptFailed:
    """Return what an exception of the client means.

    What it never raises by itself is a body that it could not take (JSON nested too deep, numbers of thousands of
    digits): the call was made and is accounted for, and the next model is asked.
    """
    if isinstance(error, openai.APIStatusError):
        error_class = classify_status(error.status_code, error.body)
        return AttemptFailed(
            error_class,
            status=error.status_code,
            retry_after_s=retry_after_s(error.response.headers),
            # An endpoint that rejects a key likes to quote it.
            detail=None if error_class is ErrorClass.ACCOUNT else detail_of(error.body),
        )
    if isinstance(error.__cause__, AttemptFailed):  # of the transport, in the client's wrapping
        return error.__cause__
    if isinstance(error, openai.APIConnectionError):
        unreachable = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
        timed_out = isinstance(error, openai.APITimeoutError) and not unreachable
        return AttemptFailed(ErrorClass.TIMEOUT if timed_out else ErrorClass.CONNECTION, unreachable=unreachable)
    if isinstance(error, openai.APIResponseValidationError):
        return AttemptFailed(ErrorClass.GARBLED, status=error.status_code)
    if isinstance(error, openai.APIError):
        error_class, status = classify_error_object(error.body)
        return AttemptFailed(error_class, status=status, detail=detail_of(error.body))
    if isinstance(error, httpx2.HTTPError):
        return AttemptFailed(ErrorClass.CONNECTION)
    # Without the exception's own words, which may be the answer's.
    where = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("an answer could not be read: %s\n%s", type(error).__name__, where)
    return AttemptFailed(ErrorClass.GARBLED)


def detail_of(body: object) -> str | None:
    """Return what an error's body says, short enough to be kept, None if that is nothing."""
    return _whole(message_of(body)[:_DETAIL_CHARACTERS]) or None


_MOST_NAME = 200
"""Characters of a name that an endpoint states; records hold it beside everything else."""


def _text(value: object) -> str | None:
    return _whole(value[:_MOST_NAME]) if isinstance(value, str) and value else None


def _content(value: Any) -> str:
    """Return a message's text; some servers send it as a list of parts, or the object that its JSON is."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, list):
        texts = (_field(part, "text") for part in value if not _THOUGHT.search(str(_field(part, "type"))))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _field(part: object, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)


def _whole(text: str) -> str:
    """Replace halves of surrogate pairs: JSON can spell them, and neither a table nor a request can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
