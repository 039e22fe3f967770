"""What a failure is, what an answer is, what it cost."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from openai._models import construct_type
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from captions.cost import Cost
from captions.gateway import ErrorClass, Usage
from captions.gateway.catalogue import load
from captions.gateway.errors import AttemptFailed, classify_error_object, classify_status, retry_after_s
from captions.gateway.pricing import cost_of, usage_of
from captions.gateway.responses import Collector, answer_of, failure_of


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"code": "rate_limit_exceeded"}}, ErrorClass.RATE_LIMITED),
        (429, {"error": {"code": "insufficient_quota"}}, ErrorClass.ACCOUNT),
        (500, "<html>", ErrorClass.SERVER_ERROR),
        (503, None, ErrorClass.SERVER_ERROR),
        (529, None, ErrorClass.SERVER_ERROR),
        (408, None, ErrorClass.SERVER_ERROR),
        (401, {"error": {"code": "invalid_api_key"}}, ErrorClass.ACCOUNT),
        (402, None, ErrorClass.ACCOUNT),
        (403, None, ErrorClass.ACCOUNT),
        (403, {"error": {"code": 403, "metadata": {"reasons": ["violence"]}}}, ErrorClass.REFUSED),
        (400, {"error": {"code": "content_policy_violation"}}, ErrorClass.REFUSED),
        (
            400,
            {"code": "data_inspection_failed", "message": "Input data may contain inappropriate"},
            ErrorClass.REFUSED,
        ),
        (400, {"code": "Arrearage", "message": "Access denied"}, ErrorClass.ACCOUNT),
        (404, {"error": {"code": "model_not_found"}}, ErrorClass.UNAVAILABLE),
        (413, None, ErrorClass.TOO_LARGE),
        (400, {"error": {"code": "context_length_exceeded"}}, ErrorClass.TOO_LARGE),
        (400, {"message": "This model's maximum context length is 4096 tokens.", "code": 400}, ErrorClass.TOO_LARGE),
        (400, {"message": "Range of input length should be [1, 30720]"}, ErrorClass.TOO_LARGE),
        (400, {"error": {"message": "Unknown parameter: 'foo'."}}, ErrorClass.OURS),
        (422, {"detail": "x"}, ErrorClass.OURS),
    ],
)
def test_a_status_and_its_body_have_one_class(status: int, body: object, expected: ErrorClass) -> None:
    assert classify_status(status, body) is expected


@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        ({"code": 429, "message": "slow down"}, ErrorClass.RATE_LIMITED, 429),
        ({"code": "502", "message": "upstream"}, ErrorClass.SERVER_ERROR, 502),
        ({"code": "rate_limit_exceeded"}, ErrorClass.RATE_LIMITED, None),
        ({"code": "content_filter"}, ErrorClass.REFUSED, None),
        ({"message": "prompt is too long"}, ErrorClass.TOO_LARGE, None),
        ({"type": "overloaded_error"}, ErrorClass.ERROR_BODY, None),
        ("something broke", ErrorClass.ERROR_BODY, None),
    ],
)
def test_an_error_that_came_with_http_200_is_classed_by_what_it_says(
    error: object, expected: ErrorClass, status: int | None
) -> None:
    assert classify_error_object(error) == (expected, status)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 37.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:48:00 GMT"}, 0.0),
        ({"retry-after": "-4"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_milliseconds_or_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, now=784_111_740.0) == expected


def chat(**changes: Any) -> Any:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A cat."}}
    choice |= changes.pop("choice", {})
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice]}
    return construct_type(type_=ChatCompletion, value=body | changes)


def outcome(call: Callable[..., object], *arguments: object) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as caught:
        call(*arguments)
    return caught.value


def test_a_whole_answer_is_one() -> None:
    answer = answer_of(chat())

    assert (answer.text, answer.reported_model, answer.finish_reason) == ("A cat.", "m-1", "stop")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"finish_reason": None}, ErrorClass.CUT),
        ({"finish_reason": "length"}, ErrorClass.TRUNCATED),
        ({"finish_reason": "MAX_TOKENS"}, ErrorClass.TRUNCATED),
        ({"finish_reason": "content_filter"}, ErrorClass.REFUSED),
        ({"finish_reason": "error"}, ErrorClass.ERROR_BODY),
        ({"message": {"role": "assistant", "content": "  \n"}}, ErrorClass.EMPTY),
        ({"message": {"role": "assistant", "content": None}}, ErrorClass.EMPTY),
        ({"message": {"role": "assistant", "content": None, "refusal": "no"}}, ErrorClass.REFUSED),
        ({"message": None}, ErrorClass.EMPTY),
        ({"error": {"code": 502, "message": "upstream"}}, ErrorClass.SERVER_ERROR),
    ],
)
def test_what_is_not_a_whole_answer_is_a_failure(choice: dict[str, Any], expected: ErrorClass) -> None:
    assert outcome(answer_of, chat(choice=choice)).error_class is expected


@pytest.mark.parametrize("response", ["<html>busy</html>", chat(choices=None), chat(choices=[]), None, 7])
def test_what_is_no_completion_is_garbled(response: object) -> None:
    assert outcome(answer_of, response).error_class is ErrorClass.GARBLED


def test_a_text_in_parts_is_put_together() -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]}

    assert answer_of(chat(choice={"message": message})).text == "A cat."


def chunk(text: str | None = None, finish: str | None = None, usage: dict[str, int] | None = None, **extra: Any) -> Any:
    choices = [] if usage else [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices}
    return construct_type(type_=ChatCompletionChunk, value=body | {"usage": usage} | extra)


def test_a_stream_is_whole_only_with_a_finish_reason() -> None:
    whole, cut = Collector(), Collector()
    for piece in (chunk("A "), chunk("cat."), chunk(finish="stop"), chunk(usage={"prompt_tokens": 9})):
        whole.add(piece)
    for piece in (chunk("A "), chunk("cat.")):
        cut.add(piece)

    assert whole.answer().text == "A cat."
    assert whole.answer().usage.prompt == 9
    assert outcome(cut.answer).error_class is ErrorClass.CUT


def test_a_failure_of_a_stream_keeps_the_tokens_it_told_of() -> None:
    collector = Collector()
    collector.add(chunk(usage={"prompt_tokens": 9, "completion_tokens": 3}))

    failure = collector.failed(AttemptFailed(ErrorClass.CUT))

    assert usage_of(failure.usage)[0] == Usage(prompt=9, completion=3)


def test_what_the_client_never_raises_is_a_garbled_answer_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert failure_of(KeyError("words of the answer")).error_class is ErrorClass.GARBLED
    assert "KeyError" in caplog.text
    assert "words of the answer" not in caplog.text


def test_a_connection_that_was_never_made_blames_the_endpoint() -> None:
    error = openai.APIConnectionError(request=httpx2.Request("POST", "http://h/v1"))
    error.__cause__ = httpx2.ConnectError("refused")
    late = openai.APITimeoutError(request=httpx2.Request("POST", "http://h/v1"))
    late.__cause__ = httpx2.ConnectTimeout("no answer")

    assert failure_of(error).unreachable
    assert failure_of(late).unreachable
    assert failure_of(late).error_class is ErrorClass.CONNECTION


def test_an_endpoint_that_quotes_the_key_is_not_quoted() -> None:
    request = httpx2.Request("POST", "http://h/v1")
    body = {"error": {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key"}}
    response = httpx2.Response(401, request=request, json=body)

    failure = failure_of(openai.AuthenticationError("no", response=response, body=body["error"]))

    assert failure.detail is None


GPT = load().model("GPT-4o")
VL = load().model("Qwen/Qwen3-VL-8B-Instruct")


def test_the_endpoints_own_figure_comes_first() -> None:
    usage, stated = usage_of({"prompt_tokens": 1000, "completion_tokens": 10, "cost": 0.0001})

    assert cost_of(usage, stated, GPT) == (Cost(dollars=Decimal("0.0001")), "endpoint")


def test_tokens_are_priced_in_disjoint_buckets_and_exactly() -> None:
    model = GPT.model_copy(update={"cached_input_price": Decimal("1.25")})
    usage = Usage(prompt=1_000, completion=100, cached=400, reasoning=60)

    # 600 fresh at 2.50, 400 cached at 1.25, 100 completion (60 reasoning among them) at 10.00
    assert cost_of(usage, None, model) == (Cost(dollars=Decimal("0.0030")), "catalogue")
    assert cost_of(usage, None, GPT)[0].exact == Decimal("0.0035")


def test_tokens_without_a_price_and_calls_without_a_count_stand_beside_the_dollars_and_never_cost_nothing() -> None:
    five = Decimal("0.000005")

    assert cost_of(Usage(prompt=100, completion=10), None, VL) == (Cost(dollars=five, unpriced_tokens=100), "unknown")
    assert cost_of(Usage(prompt=0, completion=10), None, VL) == (Cost(dollars=five), "catalogue")
    assert cost_of(Usage(completion=10), None, VL) == (Cost(dollars=five, uncounted_calls=1), "unknown")
    assert cost_of(Usage(), None, GPT) == (Cost(uncounted_calls=1), "unknown")
    timed = load().model("whisper-1")
    assert cost_of(Usage(), None, timed) == (Cost(uncounted_calls=1), "unknown")
    assert cost_of(Usage(seconds=30.0), None, timed)[0].exact == Decimal("0.003")


@pytest.mark.parametrize("cost", [-1, float("nan"), True, "free", None, []])
def test_a_figure_that_is_none_is_not_believed(cost: object) -> None:
    assert usage_of({"prompt_tokens": 1, "completion_tokens": 1, "cost": cost})[1] is None
