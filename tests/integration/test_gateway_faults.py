"""The gateway with the real client, over real HTTP, against an endpoint that fails in every way it can."""

import asyncio
import io
import logging
import socket
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from PIL import Image

from captions.gateway import (
    AccountProblem,
    Attempt,
    BreakerPolicy,
    Breakers,
    CircuitsOpen,
    DeadlineExceeded,
    Endpoint,
    ErrorClass,
    Exhausted,
    Gateway,
    GatewayError,
    Media,
    NoCapableModel,
    Refused,
    Request,
    RetryPolicy,
    StreamEvent,
    Unacceptable,
)
from captions.gateway.api_keys import Keys
from captions.gateway.catalogue import load
from captions.records.attempts import CallLedger
from captions_cli.local.model_endpoint import LocalEndpoint

pytestmark = pytest.mark.anyio

FIRST, SAME_PROVIDER, SECOND, THIRD = (
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen3-VL-32B-Instruct",
    "GLM-4.6V",
    "Hunyuan-Vision",
)
CHAIN = [FIRST, SECOND, THIRD]
KEY = "sk-a-key-nobody-may-see"


def picture(colour: tuple[int, int, int] = (180, 40, 40)) -> Media:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(file, "JPEG")
    return Media("image", "image/jpeg", file.getvalue())


PICTURE = picture()


def gateway(*urls: str, keys: Keys = lambda force: KEY, **options: Any) -> Gateway:
    options.setdefault("retries", RetryPolicy(first_delay_s=0.01, longest_delay_s=0.05))
    options.setdefault("catalogue", load())
    return Gateway(endpoints=[Endpoint(url) for url in urls], keys=keys, **options)


def ask(**changes: Any) -> Request:
    return Request(**({"instructions": "Be brief.", "text": "What is it?", "media": (PICTURE,)} | changes))


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def outcomes(attempts: Sequence[Attempt]) -> list[tuple[str, str]]:
    return [(attempt.model, attempt.outcome) for attempt in attempts]


def called(endpoint: LocalEndpoint) -> list[str]:
    return [entry["model"] for entry in endpoint.requests()]


async def test_an_answer_says_who_gave_it(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(request_id="job-7"), CHAIN, deadline=soon())

    assert "red" in completion.text
    assert (completion.model, completion.reported_model) == (FIRST, "local/pixels")
    assert completion.finish_reason == "stop"
    assert completion.usage.completion
    assert outcomes(completion.attempts) == [(FIRST, "ok")]
    (entry,) = endpoint.requests()
    assert entry["client_request_id"] == "job-7"


async def test_calls_that_begin_at_once_are_told_apart(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        done = await asyncio.gather(*(client.complete(ask(), CHAIN, deadline=soon()) for _ in range(30)))

    ledger = CallLedger()
    ledger.add(attempt.as_dict() for completion in done for attempt in completion.attempts)
    assert len(ledger.made) == 30


class opened:
    def __init__(self, *urls: str, **options: Any) -> None:
        self.client = gateway(*urls, **options)

    async def __aenter__(self) -> Gateway:
        return self.client

    async def __aexit__(self, *exc: object) -> None:
        await self.client.aclose()


FALLS_BACK = {
    "rate_limited": ErrorClass.RATE_LIMITED,
    "overloaded": ErrorClass.SERVER_ERROR,
    "server_error": ErrorClass.SERVER_ERROR,
    "bad_gateway": ErrorClass.SERVER_ERROR,
    "gateway_timeout": ErrorClass.SERVER_ERROR,
    "not_found": ErrorClass.UNAVAILABLE,
    "bad_request": ErrorClass.OURS,
    "connection_reset": ErrorClass.CONNECTION,
    "error_body": ErrorClass.SERVER_ERROR,
    "malformed": ErrorClass.GARBLED,
    "stream_error": ErrorClass.ERROR_BODY,
    "empty": ErrorClass.EMPTY,
    "reasoning_only": ErrorClass.TRUNCATED,
    "truncated": ErrorClass.TRUNCATED,
    "no_finish_reason": ErrorClass.CUT,
    "refusal": ErrorClass.REFUSED,
    "cut_stream": ErrorClass.CONNECTION,
}
STREAMED_OTHERWISE = {
    # An endpoint that answers a stream with something else than a stream sends no piece of one.
    "malformed": ErrorClass.CUT,
    "cut_stream": ErrorClass.CUT,
}


@pytest.mark.parametrize("fault", FALLS_BACK)
async def test_every_failure_of_one_model_is_classed_and_survived(endpoint: LocalEndpoint, fault: str) -> None:
    endpoint.set_faults([{"fault": fault, "model": FIRST}])

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(), CHAIN, deadline=soon())

    assert outcomes(completion.attempts) == [(FIRST, FALLS_BACK[fault]), (SECOND, "ok")]
    assert called(endpoint) == [FIRST, SECOND]


@pytest.mark.parametrize("fault", FALLS_BACK)
async def test_every_failure_of_one_model_is_classed_and_survived_in_a_stream(
    endpoint: LocalEndpoint, fault: str
) -> None:
    endpoint.set_faults([{"fault": fault, "model": FIRST}])

    async with opened(endpoint.url) as client:
        events = [event async for event in client.stream(ask(), CHAIN, deadline=soon())]

    completion = events[-1].completion
    assert completion is not None
    expected = STREAMED_OTHERWISE.get(fault, FALLS_BACK[fault])
    assert outcomes(completion.attempts) == [(FIRST, expected), (SECOND, "ok")]
    assert completion.text == text_since_restart(events)
    assert all(event.model == SECOND for event in events[restart_of(events) :])


def restart_of(events: list[StreamEvent]) -> int:
    return max((place for place, event in enumerate(events) if event.kind == "restart"), default=0)


def text_since_restart(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events[restart_of(events) :] if event.kind == "delta")


@pytest.mark.parametrize("form", ["field", "content_filter", "error"])
async def test_a_refusal_of_any_form_asks_another_provider(endpoint: LocalEndpoint, form: str) -> None:
    endpoint.set_faults([{"fault": "refusal", "provider": "Qwen", "form": form}])

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(), [FIRST, SAME_PROVIDER, SECOND], deadline=soon())

    assert outcomes(completion.attempts) == [(FIRST, "refused"), (SECOND, "ok")]


async def test_a_refusal_in_prose_is_the_callers_to_judge(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "refusal", "model": FIRST, "form": "text"}])

    def judge(text: str) -> ErrorClass | None:
        return ErrorClass.REFUSED if text.startswith("I'm sorry") else None

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(judge=judge), CHAIN, deadline=soon())

    assert outcomes(completion.attempts) == [(FIRST, "refused"), (SECOND, "ok")]
    assert completion.attempts[0].completion_tokens


async def test_what_every_model_refuses_is_refused(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "refusal"}])

    async with opened(endpoint.url) as client:
        with pytest.raises(Refused) as caught:
            await client.complete(ask(), CHAIN, deadline=soon())

    assert outcomes(caught.value.attempts) == [(model, "refused") for model in CHAIN]


async def test_a_request_that_two_models_call_wrong_is_not_retried(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "bad_request"}])

    async with opened(endpoint.url) as client:
        with pytest.raises(Unacceptable):
            await client.complete(ask(), CHAIN, deadline=soon())

    assert called(endpoint) == [FIRST, SECOND]


async def test_what_is_too_long_for_one_context_goes_to_a_larger_one(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "context_too_long", "model": FIRST}])

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(), [FIRST, SECOND, "GPT-4o"], deadline=soon())

    assert outcomes(completion.attempts) == [(FIRST, "too_large"), ("GPT-4o", "ok")]


async def test_a_body_the_endpoint_finds_too_large_is_not_retried(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "too_large"}])

    async with opened(endpoint.url) as client:
        with pytest.raises(Unacceptable, match="too large"):
            await client.complete(ask(), CHAIN, deadline=soon())

    assert called(endpoint) == [FIRST]


async def test_a_model_that_fails_is_retried_a_limited_number_of_times(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "server_error"}])

    async with opened(endpoint.url) as client:
        with pytest.raises(Exhausted) as caught:
            await client.complete(ask(), CHAIN[:2], deadline=soon())

    assert called(endpoint) == [FIRST, SECOND] * 3
    assert len(caught.value.attempts) == 6
    assert caught.value.spent.exact == 0


async def test_a_failure_that_passes_is_survived_by_the_only_model(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "overloaded", "times": 2}])

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(), [FIRST], deadline=soon())

    assert [attempt.outcome for attempt in completion.attempts] == ["server_error", "server_error", "ok"]


async def test_a_text_that_was_cut_short_is_asked_for_with_more_tokens(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(max_tokens=12), [FIRST], deadline=soon())

    *cut, whole = completion.attempts
    assert [attempt.outcome for attempt in cut] == ["truncated"] * len(cut) != []
    assert (whole.completion_tokens or 0) > 12


async def test_a_retry_after_that_is_long_sends_every_call_to_the_next_model(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "rate_limited", "model": FIRST, "retry_after": 300}])

    async with opened(endpoint.url) as client:
        answers = [await client.complete(ask(), CHAIN, deadline=soon()) for _ in range(10)]

    assert {answer.model for answer in answers} == {SECOND}
    assert called(endpoint).count(FIRST) == 1


async def test_a_retry_after_that_is_short_is_waited_for_if_nothing_else_is_left(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "rate_limited", "times": 1, "retry_after": 0.3}])

    async with opened(endpoint.url) as client:
        completion = await client.complete(ask(), [FIRST], deadline=soon())

    assert outcomes(completion.attempts) == [(FIRST, "rate_limited"), (FIRST, "ok")]
    assert completion.latency_ms >= 300


async def test_a_retry_after_that_is_longer_goes_back_with_its_time(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "rate_limited", "retry_after": 60}])

    async with opened(endpoint.url) as client:
        with pytest.raises(Exhausted) as caught:
            await client.complete(ask(), [FIRST], deadline=soon(90.0))
        with pytest.raises(CircuitsOpen) as later:
            await client.complete(ask(), [FIRST], deadline=soon(90.0))

    assert 55 < (caught.value.retry_after_s or 0) <= 60
    assert 55 < (later.value.retry_after_s or 0) <= 60
    assert called(endpoint) == [FIRST]


async def test_a_dead_model_is_called_no_more_than_its_breaker_needs(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "server_error", "model": FIRST}])
    breakers = Breakers()

    async with opened(endpoint.url, breakers=breakers) as client:
        for _ in range(40):
            await client.complete(ask(), CHAIN, deadline=soon())

    assert called(endpoint).count(FIRST) == breakers.policy.consecutive


async def test_with_every_circuit_open_nothing_is_called_and_one_probe_finds_the_way_back(
    endpoint: LocalEndpoint,
) -> None:
    endpoint.set_faults([{"fault": "server_error"}])
    breakers = Breakers(BreakerPolicy(open_s=0.4, longest_open_s=0.4, endpoint_consecutive=1_000))

    async with opened(endpoint.url, breakers=breakers) as client:
        for _ in range(2):
            with pytest.raises(Exhausted):
                await client.complete(ask(), CHAIN, deadline=soon())
        before = len(endpoint.requests())
        with pytest.raises(CircuitsOpen) as caught:
            await client.complete(ask(), CHAIN, deadline=soon())
        assert len(endpoint.requests()) == before
        assert 0 < (caught.value.retry_after_s or 0) <= 0.48

        endpoint.set_faults([])
        await asyncio.sleep(0.6)
        results = await asyncio.gather(
            *(client.complete(ask(), CHAIN[:1], deadline=soon()) for _ in range(10)), return_exceptions=True
        )
        assert sum(not isinstance(result, Exception) for result in results) == 1
        assert (await client.complete(ask(), CHAIN, deadline=soon())).model == FIRST


async def test_a_key_that_was_rotated_is_fetched_anew_without_losing_a_call() -> None:
    forced = []

    def keys(force: bool) -> dict[str, str]:
        forced.append(force)
        return {"default": "sk-new" if force else "sk-old"}

    with LocalEndpoint(latency_scale=0.0, keys=["sk-new"]) as strict:
        async with opened(strict.url, keys=keys) as client:
            completions = await asyncio.gather(
                *(client.complete(ask(), CHAIN, deadline=soon()) for _ in range(8)),
            )
            again = await client.complete(ask(), CHAIN, deadline=soon())

    assert {completion.model for completion in completions} == {FIRST}
    assert {outcome for c in completions for _, outcome in outcomes(c.attempts)} == {"account", "ok"}
    assert outcomes(again.attempts) == [(FIRST, "ok")]
    assert forced == [False, True]


async def test_a_key_that_stays_wrong_stops_the_endpoint_and_alarms() -> None:
    seen = []
    with LocalEndpoint(latency_scale=0.0, keys=["sk-other"]) as strict:
        async with opened(strict.url, observe=lambda event, fields: seen.append((event, fields))) as client:
            for _ in range(5):
                with pytest.raises(AccountProblem) as caught:
                    await client.complete(ask(), CHAIN, deadline=soon())
        assert len(strict.requests()) == 1

    assert 0 < (caught.value.retry_after_s or 0) <= 60
    assert [fields["status"] for event, fields in seen if event == "account_problem"] == [401]


@pytest.mark.parametrize("fault", ["payment_required", "forbidden", "quota_exceeded"])
async def test_an_endpoint_without_credit_is_left_for_the_next(endpoint: LocalEndpoint, fault: str) -> None:
    endpoint.set_faults([{"fault": fault}])
    with LocalEndpoint(latency_scale=0.0) as other:
        async with opened(endpoint.url, other.url) as client:
            answers = [await client.complete(ask(), CHAIN, deadline=soon()) for _ in range(5)]

        assert len(other.requests()) == 5
    assert {answer.model for answer in answers} == {FIRST}
    assert len(endpoint.requests()) == 1


async def test_an_endpoint_that_cannot_be_reached_is_left_for_the_next(endpoint: LocalEndpoint) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with opened(dead, endpoint.url) as client:
            answers = [await client.complete(ask(), CHAIN, deadline=soon()) for _ in range(10)]

    failed = [attempt for answer in answers for attempt in answer.attempts if attempt.outcome != "ok"]
    assert len(failed) == BreakerPolicy().unreachable_consecutive
    assert {attempt.outcome for attempt in failed} == {"connection"}
    assert all(answer.spent.exact == answer.cost for answer in answers)


@pytest.mark.parametrize("fault", [{"fault": "hang"}, {"fault": "slow_drip", "delay_s": 0.2}])
async def test_no_call_outlives_its_deadline(endpoint: LocalEndpoint, fault: dict[str, Any]) -> None:
    endpoint.set_faults([fault])

    async with opened(endpoint.url) as client:
        await warm(client, endpoint, fault)
        deadlines = [soon(0.2 + 0.05 * place) for place in range(12)]
        ends = await asyncio.gather(*(ended(client, deadline) for deadline in deadlines))

    for deadline, (end, error) in zip(deadlines, ends, strict=True):
        assert isinstance(error, DeadlineExceeded | Exhausted)
        assert end - deadline < 1.0  # what it is in truth, the benchmark measures


async def warm(client: Gateway, endpoint: LocalEndpoint, fault: dict[str, Any]) -> None:
    endpoint.set_faults([])
    await client.complete(ask(), CHAIN, deadline=soon())
    endpoint.set_faults([fault])


async def ended(client: Gateway, deadline: float) -> tuple[float, GatewayError | None]:
    try:
        await client.complete(ask(), CHAIN, deadline=deadline)
    except GatewayError as error:
        return time.monotonic(), error
    return time.monotonic(), None


async def test_a_model_that_hangs_leaves_time_for_the_next(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "hang", "model": FIRST}])
    quick = load('[defaults.timeouts]\nimage = 0.5\n[models."GLM-4.6V".timeouts]\nimage = 15.0')

    async with opened(endpoint.url, catalogue=quick) as client:
        completion = await client.complete(ask(), CHAIN, deadline=soon())
        tight = await client.complete(ask(), CHAIN, deadline=soon(2.0))

    assert outcomes(completion.attempts) == [(FIRST, "timeout"), (SECOND, "ok")]
    assert completion.spent.exact is None  # nobody knows what the call that was cut off cost
    assert outcomes(tight.attempts)[-1] == (SECOND, "ok")


async def test_a_deadline_that_passed_calls_nobody(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        with pytest.raises(DeadlineExceeded):
            await client.complete(ask(), CHAIN, deadline=time.monotonic() - 1.0)

    assert endpoint.requests() == []


async def test_connections_are_kept_and_used_again() -> None:
    with LocalEndpoint(latency_scale=0.0) as fresh:
        async with opened(fresh.url) as client:
            for _ in range(20):
                await client.complete(ask(), CHAIN, deadline=soon())
            assert fresh.connections == 1
            for _ in range(5):
                await asyncio.gather(*(client.complete(ask(), CHAIN, deadline=soon()) for _ in range(10)))
            assert fresh.connections <= 10


async def test_a_name_the_catalogue_lacks_is_passed_over_and_told_once(endpoint: LocalEndpoint) -> None:
    seen = []
    catalogue = load('[models."GLM-4.5V"]\nenabled = false')
    chain = ["GLM-46V", "GLM-4.5V", FIRST]

    async with opened(endpoint.url, catalogue=catalogue, observe=lambda *event: seen.append(event)) as client:
        answers = [await client.complete(ask(), chain, deadline=soon()) for _ in range(2)]

    assert [answer.model for answer in answers] == [FIRST, FIRST]
    assert seen == [("unknown_model", {"model": "GLM-46V"}), ("unknown_model", {"model": "GLM-4.5V"})]


async def test_a_chain_of_unknown_names_is_worth_another_try_once_it_is_put_right(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        with pytest.raises(Exhausted, match="GLM-46V") as caught:
            await client.complete(ask(), ["GLM-46V", "Qwen3-32B"], deadline=soon())
        with pytest.raises(NoCapableModel):  # all names are known here: waiting changes nothing
            await client.complete(ask(), ["Qwen3-32B"], deadline=soon())

    assert caught.value.retry_after_s
    assert called(endpoint) == []


async def test_a_concurrent_batch_is_answered_in_full(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "server_error", "model": FIRST, "probability": 0.3}])

    async with opened(endpoint.url) as client:
        answers = await asyncio.gather(*(client.complete(ask(), CHAIN, deadline=soon(60)) for _ in range(64)))

    assert len(answers) == 64


async def test_the_key_is_in_no_error_no_record_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []
    with LocalEndpoint(latency_scale=0.0, keys=["sk-other"]) as strict:
        async with opened(strict.url, observe=lambda event, fields: seen.append((event, fields))) as client:
            with pytest.raises(AccountProblem) as caught:
                await client.complete(ask(), CHAIN, deadline=soon())

    reported = [str(caught.value), repr(caught.value), repr(caught.value.attempts), repr(seen), caplog.text]
    assert not any(KEY in text for text in reported)
    assert not any(KEY in repr(attempt.as_dict()) for attempt in caught.value.attempts)


async def test_the_endpoints_own_figure_is_the_cost_and_every_attempt_counts() -> None:
    catalogue = load()
    with LocalEndpoint(latency_scale=0.0, report_cost=True, assumed_input_price=Decimal("0.1")) as reporting:
        reporting.set_faults([{"fault": "refusal", "model": FIRST}])
        async with opened(reporting.url, catalogue=catalogue) as client:
            completion = await client.complete(ask(), CHAIN, deadline=soon())
        paid = [Decimal(entry["cost"]) for entry in reporting.requests()]

    assert completion.cost_source == "endpoint"
    assert completion.cost == paid[1]
    assert completion.spent.exact is not None
    assert completion.spent.exact >= paid[1]
    assert completion.attempts[0].cost is not None


async def test_without_a_figure_the_catalogues_prices_count(endpoint: LocalEndpoint) -> None:
    async with opened(endpoint.url) as client:
        known = await client.complete(ask(), ["GPT-4o"], deadline=soon())
        unknown = await client.complete(ask(), [FIRST], deadline=soon())

    prompt, written = known.usage.prompt or 0, known.usage.completion or 0
    assert known.cost_source == "catalogue"
    assert known.cost == (prompt * Decimal("2.50") + written * Decimal("10.00")) / 1_000_000 > 0
    assert (unknown.cost, unknown.spent.exact, unknown.cost_source) == (None, None, "unknown")


async def test_a_call_that_is_cancelled_leaves_no_circuit_behind(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "hang"}])

    async with opened(endpoint.url) as client:
        task = asyncio.ensure_future(client.complete(ask(), CHAIN, deadline=soon()))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        endpoint.set_faults([])
        assert (await client.complete(ask(), CHAIN, deadline=soon())).model == FIRST


def test_a_gateway_survives_the_end_of_its_event_loop(endpoint: LocalEndpoint) -> None:
    client = gateway(endpoint.url)

    texts = {asyncio.run(client.complete(ask(), CHAIN, deadline=soon())).text for _ in range(3)}

    assert len(texts) == 1
