"""How a call can fail: what one attempt's failure is, and the error a whole call ends with."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from captions.gateway.error_class import ErrorClass
from captions.gateway.types import Attempt


class AttemptFailed(Exception):
    """One attempt failed. Never leaves the package."""

    def __init__(
        self,
        error_class: ErrorClass,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        detail: str | None = None,
        usage: Any = None,
        reported_model: str | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(error_class.value)
        self.error_class = error_class
        self.status = status
        self.retry_after_s = retry_after_s
        self.detail = detail
        self.usage = usage
        self.reported_model = reported_model
        self.unreachable = unreachable
        """No connection was made: the endpoint is to blame, whichever model was asked for."""


class GatewayError(Exception):
    """A call got no answer. `attempts` tells what was tried, `retry_after_s` when trying again makes sense."""

    def __init__(self, message: str, *, attempts: tuple[Attempt, ...] = (), retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.retry_after_s = retry_after_s

    @property
    def total_cost(self) -> Decimal | None:
        """Dollars the attempts cost, None if one of them may have cost something unknown."""
        costs = [attempt.cost for attempt in self.attempts]
        return sum((cost for cost in costs if cost is not None), Decimal(0)) if None not in costs else None


class Exhausted(GatewayError):
    """Every model that can do the job failed in a way that may pass."""


class CircuitsOpen(GatewayError):
    """No model was called: every circuit is open, or its one probe is under way."""


class DeadlineExceeded(GatewayError):
    """The time given to the call ran out."""


class BudgetSpent(GatewayError):
    """A spending limit leaves no room for the call. `scope` names the limit."""

    def __init__(self, message: str, *, scope: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.scope = scope


class AccountProblem(GatewayError):
    """No endpoint is left that accepts the key (401, 403) or has credit (402)."""


class Refused(GatewayError):
    """Every model that can do the job refused it."""


class Unacceptable(GatewayError):
    """The request is wrong, or too large for every model."""


class NoCapableModel(GatewayError):
    """No model of the chain understands this kind of media at any endpoint."""


# Codes, of OpenAI, Azure, DashScope, Zhipu and OpenRouter; compared in lower case.
_CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_CONTENT_CODES = frozenset(
    {
        "content_policy_violation",
        "content_filter",
        "contentfilter",
        "responsibleaipolicyviolation",
        "data_inspection_failed",
        "datainspectionfailed",
        "moderation_blocked",
        "sensitive_content",
        "1301",
    }
)
_ACCOUNT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "arrearage",
        "invalid_api_key",
        "insufficient_balance",
    }
)
# vLLM, SGLang and Ollama give a context that is too long the code of any bad request: only the words tell.
_CONTEXT_WORDS = re.compile(
    r"(maximum|max|exceeds?|longer than|over)\b.{0,60}\b(context|model)('s)?[ _](length|window|len)"
    r"|context[ _](length|window)\b.{0,40}\bexceed"
    r"|input (is )?too long|prompt is too long|range of input length|request (entity|body) too large",
    re.IGNORECASE | re.DOTALL,
)


def classify_status(status: int, body: object) -> ErrorClass:
    """Return the class of an HTTP error, by its status and what its body says.

    `body` is the decoded body, or the `error` object in it.
    """
    code, message, metadata = _facts(body)
    if code in _ACCOUNT_CODES:
        return ErrorClass.ACCOUNT
    if code in _CONTENT_CODES or _flagged(metadata):
        return ErrorClass.REFUSED
    if status in (401, 402, 403):
        return ErrorClass.ACCOUNT
    if status == 404:
        return ErrorClass.UNAVAILABLE
    if status == 429:
        return ErrorClass.RATE_LIMITED
    if status in (408, 409, 425) or status >= 500 or status < 400:
        return ErrorClass.SERVER_ERROR
    if status == 413 or code in _CONTEXT_CODES or _CONTEXT_WORDS.search(message):
        return ErrorClass.TOO_LARGE
    return ErrorClass.OURS


def classify_error_object(error: object) -> tuple[ErrorClass, int | None]:
    """Return the class of an error object that came with HTTP 200 or inside a stream, and the status it names.

    OpenRouter puts the upstream's status into `error.code`
    (https://openrouter.ai/docs/api-reference/errors); without one the error is of the transient kind.
    """
    code, message, metadata = _facts(error)
    if code.isdigit() and 400 <= int(code) <= 599:
        return classify_status(int(code), error), int(code)
    if code in _ACCOUNT_CODES:
        return ErrorClass.ACCOUNT, None
    if code in _CONTENT_CODES or _flagged(metadata):
        return ErrorClass.REFUSED, None
    if code in _CONTEXT_CODES or _CONTEXT_WORDS.search(message):
        return ErrorClass.TOO_LARGE, None
    if code in ("rate_limit_exceeded", "rate_limited"):
        return ErrorClass.RATE_LIMITED, None
    return ErrorClass.ERROR_BODY, None


def message_of(body: object) -> str:
    """Return what an error's body says, or an empty text."""
    return _facts(body)[1]


def _facts(body: object) -> tuple[str, str, object]:
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if isinstance(body, Mapping):
        code = body.get("code")
        if code is None or code == "":
            code = body.get("type")
        message = body.get("message")
        return str(code or "").lower(), message if isinstance(message, str) else "", body.get("metadata")
    return "", body if isinstance(body, str) else "", None


def _flagged(metadata: object) -> bool:
    """Tell whether OpenRouter's metadata says that moderation flagged the input (which it answers with 403)."""
    return isinstance(metadata, Mapping) and bool(metadata.get("reasons") or metadata.get("flagged_input"))


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3: seconds or a date) asks for."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
