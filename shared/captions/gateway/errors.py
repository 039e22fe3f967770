"""How a call can fail: what one attempt's failure is, and the error a whole call ends with."""

# ruff: noqa: E501, SIM905 - the tables of what servers say read better in long lines

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

from captions.cost import Cost
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
        self.begun = False
        """A part of an answer came before it, which may be charged whatever the failure is called."""


class GatewayError(Exception):
    """A call got no answer. `attempts` tells what was tried, `retry_after_s` when trying again makes sense."""

    def __init__(self, message: str, *, attempts: tuple[Attempt, ...] = (), retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.retry_after_s = retry_after_s

    @property
    def spent(self) -> Cost:
        """What the attempts cost, as far as it is known."""
        return Cost.sum(attempt.spent for attempt in self.attempts)


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


# What servers say, most telling first: codes, then words where a code says no more than "bad request". Codes are compared
# in lower case; of Anthropic, Azure, DashScope, DeepSeek, Google, Groq, llama.cpp, Mistral, Moonshot, OpenAI, OpenRouter,
# SiliconFlow and Zhipu.
_CODES: Mapping[ErrorClass, frozenset[str]] = {
    ErrorClass.ACCOUNT: frozenset(
        """
        insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated arrearage invalid_api_key
        insufficient_balance insufficient_user_quota insufficient_credits exceeded_current_quota_error billing_error
        access_terminated authentication_error permission_error unauthorized invalid_authentication_error
        budget_exceeded auth_error token_not_found_in_db expired_key organization_restricted credit_limit
        allocationquota.freetieronly accountoverdue accountoverdueerror overduebalance quota_exceeded_balance
        1000 1001 1002 1003 1004 1110 1111 1112 1113 1309 30001 30011
        """.split()
    ),
    ErrorClass.REFUSED: frozenset(
        """
        content_policy_violation content_filter contentfilter content_filtered responsibleaipolicyviolation
        data_inspection_failed datainspectionfailed moderation_blocked moderation_error sensitive_content
        sensitivecontentdetected inputtextsensitivecontentdetected inputimagesensitivecontentdetected
        outputtextsensitivecontentdetected image_content_policy_violation safety prohibited_content recitation
        model_refusal guardrail_intervened invalidparameter.datainspectionfailed sensitive_words_detected 1301
        """.split()
    ),
    ErrorClass.TOO_LARGE: frozenset(
        """
        context_length_exceeded string_above_max_length request_too_large exceed_context_size_error
        context_window_exceeded contextwindowexceedederror max_tokens_exceeded input_too_long oversizeimage oversizedimage
        invalidparameter.oversizeimage invalidparameter.oversizedimage 1261
        """.split()
    ),
    ErrorClass.UNAVAILABLE: frozenset(
        """
        model_not_found model_not_available model_deprecated model_decommissioned deploymentnotfound
        deployment_not_found model_not_exist modelnotfound invalid_model invalidendpointormodel.notfound model_not_supported modelnotopen modeldeprecated
        key_model_access_denied team_model_access_denied model.accessdenied operationnotsupported 1211 1220 1311
        """.split()
    ),
    ErrorClass.RATE_LIMITED: frozenset("rate_limit_exceeded rate_limited rate_limit_error 1302 1303 1305".split()),
    ErrorClass.UNFIT: frozenset({"json_validate_failed"}),  # the model's own words did not keep to the form
}


_READ_CHARACTERS = 1_000


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


# Each is read within a few hundred characters, and only of an error: what a caption says is never looked at here.
_WORDS: Mapping[ErrorClass, re.Pattern[str]] = {
    ErrorClass.TOO_LARGE: _words(
        r"(maximum|max|exceeds?|exceeded|exceeding|longer than|greater than|over)\b.{0,80}\b(context|model)('s)?[ _](length|window|len|size|limit)",
        r"(available )?context[ _](length|window|size|limit)\b.{0,60}\b(exceed|only|reached|overflow)",
        r"maximum (model )?length|max(imum)? (input|prompt) (length|tokens|size)",
        r"exceeds? (the )?(max(imum)? )?(number of tokens|(input |prompt |token )?(length|limit))",
        r"(input|prompt|message|request|conversation|multimodal prompt|image|file|payload|body|size)s?( \([^)]{0,40}\))? (is |are |was )?too (long|large|big)",
        r"(input|total|prompt) tokens? (exceeds?|count .{0,40}exceeds)|tokens exceed the configured limit",
        r"longer than the (model|maximum)|range of input length|reduce (the )?(length|size) of|too (long|large|big) (to fit|for model)",
        r"exceed(s|ed)? (the )?max(imum)? (allowed )?(size|length|pixels|dimension)|image dimensions exceed|image exceeds|size of the input image exceeds",
        r"max_(completion_)?tokens must be at least 1, got -|must be less than max_seq_len",
        r"exceed(s|ed)?\b.{0,40}\b(token limit|message tokens|\d+ ?[MK]B maximum)|limit on max bytes|(longer than|exceeds( the)?) max_model_len",
        r"must have less than \d+ tokens|token count is \d+ but|content size limit|is longer than [\d.]+ (seconds|minutes)",
        r"tokens\b.{0,60}\bmust be <=|too many (input )?tokens|tokens? limit exceeded|exceeds? .{0,30}tokens? limit",
        r"(entity|content|body|payload) too large|超长|超出.{0,8}(最大|限制)|长度超过|超过.{0,8}(最大|上下文).{0,8}长度",
    ),
    ErrorClass.ACCOUNT: _words(
        r"insufficient[ _](account )?(balance|credits?|funds|quota)|balance is (insufficient|not enough|too low)",
        r"(out of|not enough|no|add( more)?|purchase( more)?|run out of|lack of) credits?\b|(please |to )(recharge|top up)",
        r"exceeded your current quota|free (tier|quota|trial).{0,40}(exhausted|used up|exceeded|expired|ended)",
        r"(account|subscription).{0,30}(overdue|in arrears|suspended|disabled|deactivated|expired)|arrear|payment required",
        r"(incorrect|invalid|missing|expired|revoked|no) api[ _-]?key|api key (is )?(not valid|invalid|expired|missing)",
        r"(please )?pass a valid api key|budget has been exceeded|spending limit|reached (its|your)( specified)?( api)? usage limits?",
        r"billing|欠费|余额不足|请充值|账户.{0,6}(冻结|停用)|额度(已)?(用尽|失败|不足)|无效的令牌|(套餐|令牌).{0,6}(到期|过期)",
        r"exceeded ?(token)?budget|over budget|exceeded budget for (user|key|team)|credits are required|exceeded .{0,20}included credits",
        r"(organization|account|team).{0,20}(been )?restricted|user location is not supported|reported as leaked|key limit exceeded",
    ),
    ErrorClass.REFUSED: _words(
        r"blocked (due to|by|because of|for) .{0,40}(safety|policy|filter|guardrail|moderation|prohibited)",
        r"(content|usage|safety)[ _](management )?(policy|policies|filter|system|moderation)|responsible ai|safety settings",
        r"(flagged|rejected|blocked|filtered) .{0,40}(moderation|safety|policy|harmful|sensitive|inappropriate)",
        r"(inappropriate|unsafe|harmful|sensitive|prohibited|disallowed|objectionable) (content|material|input|output|image)",
        r"content (exists risk|violates)|outputted is blocked|violated? .{0,20}guardrail|guardrail intervened|flagged as (nsfw|unsafe)|input was flagged|prohibited_content",
        r"not allowed by our safety|data may contain inappropriate|politically sensitive|high[- ]risk content|敏感|不安全|违规|审核未通过|内容安全",
    ),
    ErrorClass.UNAVAILABLE: _words(
        r"is not a valid model|(unknown|invalid|unsupported|unrecognized|no such) model\b(?! (parameter|argument|input))",
        r"model\b.{0,80}\b(does(n't| not) exist|not (be )?found|not available|not supported|no longer|not exist|was retired)",
        r"model\b.{0,80}\b(deprecated|decommissioned|retired|discontinued|sunset|been (shut down|removed)|end of life|cannot be found)",
        r"model (identifier|id) is invalid|model\b.{0,40}\bend of its life|access to (the )?model\b|on-demand throughput|\bmodel disabled",
        r"no (endpoints|providers?|deployments?|healthy deployments?) (found|available) (for|that|matching)|模型不存在|模型已下线|无权访问|无可用渠道",
        r"not allowed to access model|choose (a )?different model|no such model|model access denied",
        r"(images?|image[_ ]url|image input|vision|multimodal)( inputs?| content)? (is|are) (not|only) (supported|enabled|available)",
        r"(does(n't| not)|cannot) (support|accept|take|process) (image|vision|multimodal)|is not a multimodal model|missing data required for image",
        r"unknown variant `?image_url|image_url not supported|at most 0 image",
    ),
}  # fmt: skip
_FETCHING = _words(
    r"(time.?out|timed out|failed|unable|error) (to |while |when )?(download|fetch|retriev)\w* .{0,40}(https?:|url|file|media|resource|image|link)",
    r"download\w* .{0,40}(file|media|resource|image|url).{0,20}(timed out|time.?out|failed)",
)
"""A link that could not be followed in time, which another try may."""
_TOO_MUCH_AT_ONCE = _words(r"request too large for\b")
"""One request that is more than a minute's tokens: however long it waits."""
_PASSING = _words(r"rate.?limit|too many requests|(per|a) (second|minute|day)\b|(retry|try again) (in|after) [\d.]+")
"""Limits of a time, whose messages like to name the page where more is sold."""
_BUSY = _words(
    r"too many requests|rate.?limit|throttl|overload|(concurrency|requests?) limit|temporarily|(over|at|no|insufficient) capacity",
    r"\b(server|service|system|upstream|engine|model|backend)\b.{0,40}\b(busy|unavailable|loading|starting|not ready)",
    r"\b(try|retry)( your request)?( again)? (later|in a)\b|cuda (error|out of memory)|internal (server )?error|繁忙|稍后(再|重)?试|访问量过大",
)
"""What passes by itself, said under a status that means otherwise: taken for a wrong request, it would end an upload."""


def classify_status(status: int, body: object) -> ErrorClass:
    """Return the class of an HTTP error, by its status and what its body says.

    `body` is the decoded body, or the `error` object in it. What is unknown fails on the safe side: 403 stops the
    endpoint, 429 and 5xx are tried again, any other is a request that no retry mends.
    """
    codes, message, metadata = _facts(body)
    by_code = _of_codes(codes)
    if by_code in (ErrorClass.ACCOUNT, ErrorClass.REFUSED):
        return by_code
    if _flagged(metadata):
        return ErrorClass.REFUSED
    by_words = _of_words(message)
    if status in (401, 402, 403, 407):
        # Moderation and models that a key may not use come as 401 and 403 too; both leave the endpoint's other models.
        if by_code is ErrorClass.UNAVAILABLE:
            return by_code
        own_words = (ErrorClass.REFUSED, ErrorClass.UNAVAILABLE) if status == 403 else ()
        if by_words is None and status == 403 and _busy(message):
            return ErrorClass.RATE_LIMITED
        return by_words if by_words is not None and by_words in own_words else ErrorClass.ACCOUNT
    if status in (404, 410):
        return ErrorClass.UNAVAILABLE
    if status == 429:
        if by_code is ErrorClass.UNAVAILABLE:
            return by_code
        if _TOO_MUCH_AT_ONCE.search(message[:_READ_CHARACTERS]):
            return ErrorClass.TOO_LARGE
        passing = by_code is ErrorClass.RATE_LIMITED or _PASSING.search(message[:_READ_CHARACTERS])
        return ErrorClass.ACCOUNT if by_words is ErrorClass.ACCOUNT and not passing else ErrorClass.RATE_LIMITED
    if status in _ELSEWHERE or status >= 500 or status < 400:
        # llama.cpp's own word for an input that no other try makes shorter is 500; of all else, only a code is certain.
        too_large = ErrorClass.TOO_LARGE in (by_code, by_words)
        return ErrorClass.TOO_LARGE if too_large else ErrorClass.SERVER_ERROR
    if status in _CERTAIN:
        return _CERTAIN[status]
    fetching = by_code is None and _FETCHING.search(message[:_READ_CHARACTERS])
    known = by_code or (ErrorClass.SERVER_ERROR if fetching else by_words)
    # Proxies answer 400 and name the status that they were answered.
    named = next((int(code) for code in codes if _STATUS.fullmatch(code) and code != "400"), None)
    if known is None and status == 400 and named is not None:
        return classify_status(named, body)
    return known or (ErrorClass.SERVER_ERROR if _busy(message) else ErrorClass.OURS)


_CERTAIN = {413: ErrorClass.TOO_LARGE, 451: ErrorClass.REFUSED}
_STATUS = re.compile(r"[45]\d\d")


def _busy(message: str) -> bool:
    return not _PAGE.match(message) and bool(_BUSY.search(message[:_READ_CHARACTERS]))


_ELSEWHERE = frozenset({408, 409, 423, 424, 425, 498, 499})
"""Client errors by their number that tell of a moment or of something behind the server: TGI and Bedrock (424) say so
where the model failed, Groq (498) where it has no capacity, nginx (499) where a connection was closed."""


def classify_error_object(error: object) -> tuple[ErrorClass, int | None]:
    """Return the class of an error object that came with HTTP 200 or inside a stream, and the status it names.

    OpenRouter puts the upstream's status into `error.code`
    (https://openrouter.ai/docs/api-reference/errors); without one the error is of the transient kind.
    """
    codes, message, metadata = _facts(error)
    status = next((int(code) for code in codes if _STATUS.fullmatch(code)), None)
    if status is not None:
        return classify_status(status, error), status
    if _flagged(metadata):
        return ErrorClass.REFUSED, None
    return _of_codes(codes) or _of_words(message) or ErrorClass.ERROR_BODY, None


def _of_codes(codes: tuple[str, ...]) -> ErrorClass | None:
    return next((kind for kind, known in _CODES.items() if not known.isdisjoint(codes)), None)


def _of_words(message: str) -> ErrorClass | None:
    if _PAGE.match(message):
        return None  # a proxy's page; its status is all it says
    return next((kind for kind, words in _WORDS.items() if words.search(message[:_READ_CHARACTERS])), None)


_PAGE = re.compile(r"\s*<[!?a-z]", re.IGNORECASE)
"""DashScope begins its messages with `<400>`."""


def message_of(body: object) -> str:
    """Return what an error's body says, or an empty text."""
    return _facts(body)[1]


def _facts(body: object) -> tuple[tuple[str, ...], str, object]:
    """Return an error's codes (`code`, `type`, `status`), its message, and its metadata.

    Proxies put what they were answered into their own answer, as an object, as text, or beside words of theirs.
    """
    codes: list[str] = []
    words: list[str] = []
    metadata: object = None
    waiting: list[object] = [body]
    for _ in range(_MOST_WITHIN):
        if not waiting:
            break
        body = _parsed(waiting.pop(0))
        if isinstance(body, list):
            waiting[:0] = body[:1]  # Google's compatible endpoint wraps errors in a list, Cloudflare's too
        elif isinstance(body, str):
            words.append(body)
        elif isinstance(body, Mapping):
            given = (body.get(name) for name in ("code", "type", "status", "error_type", "__type"))
            codes += (str(code).lower() for code in given if isinstance(code, str | int) and code != "")
            texts = (text for name in ("message", "msg", "Message") if isinstance(text := body.get(name), str))
            words += islice(texts, 1)
            metadata = metadata or body.get("metadata")
            raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
            inner = (*(body.get(name) for name in ("error", "detail", "errors", "innererror")), raw)
            waiting += (item for item in inner if isinstance(item, Mapping | str | list) and item)
            waiting += (item for item in (body.get("message"),) if isinstance(item, Mapping))  # of Mistral
    return tuple(codes), "\n".join(dict.fromkeys(words)), metadata


_MOST_WITHIN = 8
_MOST_PARSED = 20_000


def _parsed(body: object) -> object:
    """Return what a text in JSON holds; anything else as it is."""
    if isinstance(body, str) and body[:_MOST_PARSED].lstrip().startswith(("{", "[")):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body
    return body


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
