"""Streams: deltas, restarts, and never two models' texts in one."""

import asyncio
import io
import time
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from captions.gateway import DeadlineExceeded, Endpoint, Gateway, Media, Request, RetryPolicy, StreamEvent
from captions.gateway.catalogue import load
from captions_cli.local.model_endpoint import LocalEndpoint

pytestmark = pytest.mark.anyio

FIRST, SECOND = "Qwen/Qwen3-VL-8B-Instruct", "GLM-4.6V"


@pytest.fixture
async def client(endpoint: LocalEndpoint) -> AsyncIterator[Gateway]:
    gateway = Gateway(
        endpoints=[Endpoint(endpoint.url)],
        keys=lambda force: "sk-test",
        catalogue=load(),
        retries=RetryPolicy(first_delay_s=0.01),
    )
    yield gateway
    await gateway.aclose()


def ask() -> Request:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "JPEG")
    return Request("Be brief.", "What is it?", (Media("image", "image/jpeg", file.getvalue()),))


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


async def collect(client: Gateway, chain: list[str], deadline: float | None = None) -> list[StreamEvent]:
    return [event async for event in client.stream(ask(), chain, deadline=deadline or soon())]


async def test_a_stream_is_deltas_and_the_whole_at_the_end(client: Gateway, endpoint: LocalEndpoint) -> None:
    *deltas, done = await collect(client, [FIRST, SECOND])

    assert {event.kind for event in deltas} == {"delta"}
    assert len(deltas) > 1
    assert done.kind == "done"
    assert done.completion is not None
    assert done.completion.text == "".join(event.text for event in deltas)
    assert done.completion.usage.completion
    assert done.completion.text == (await client.complete(ask(), [FIRST], deadline=soon())).text


async def test_a_model_that_breaks_off_is_restarted_and_never_continued(
    client: Gateway, endpoint: LocalEndpoint
) -> None:
    endpoint.set_faults([{"fault": "cut_stream", "model": FIRST, "after_pieces": 3}])

    events = await collect(client, [FIRST, SECOND])

    kinds = [event.kind for event in events]
    assert kinds.count("restart") == 1
    at = kinds.index("restart")
    assert {event.model for event in events[:at]} == {FIRST}
    assert {event.model for event in events[at:]} == {SECOND}
    void = "".join(event.text for event in events[:at])
    whole = "".join(event.text for event in events[at:-1])
    assert void
    completion = events[-1].completion
    assert completion is not None
    assert completion.text == whole
    assert [attempt.outcome for attempt in completion.attempts] == ["cut", "ok"]


async def test_a_model_that_fails_before_its_first_word_is_replaced_without_notice(
    client: Gateway, endpoint: LocalEndpoint
) -> None:
    endpoint.set_faults([{"fault": "stream_error", "model": FIRST, "after_pieces": 1}])

    events = await collect(client, [FIRST, SECOND])

    assert "restart" not in [event.kind for event in events]
    assert events[-1].completion is not None
    assert events[-1].completion.model == SECOND


async def test_a_stream_that_drips_ends_at_its_deadline(client: Gateway, endpoint: LocalEndpoint) -> None:
    await collect(client, [FIRST])
    endpoint.set_faults([{"fault": "slow_drip", "delay_s": 0.1}])
    deadline = soon(0.7)

    seen = []

    async def read() -> None:
        async for event in client.stream(ask(), [FIRST], deadline=deadline):
            seen.append(event)  # noqa: PERF401 - what was seen before the error counts

    with pytest.raises(DeadlineExceeded) as caught:
        await read()

    assert {event.kind for event in seen} == {"delta"}
    assert time.monotonic() - deadline < 1.0
    assert caught.value.attempts[0].outcome == "deadline"


async def test_a_consumer_that_stops_early_leaves_nothing_open(client: Gateway, endpoint: LocalEndpoint) -> None:
    stream = client.stream(ask(), [FIRST], deadline=soon())
    async for event in stream:
        assert event.kind == "delta"
        break
    await stream.aclose()

    assert (await client.complete(ask(), [FIRST], deadline=soon())).model == FIRST


async def test_a_slow_consumers_own_time_is_not_the_models(client: Gateway, endpoint: LocalEndpoint) -> None:
    quick = load("[defaults.timeouts]\nimage = 1.0")
    gateway = Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda force: "k", catalogue=quick)
    await gateway.complete(ask(), [FIRST], deadline=soon())
    kinds = []
    async for event in gateway.stream(ask(), [FIRST], deadline=soon()):
        kinds.append(event.kind)
        if len(kinds) == 1:
            await asyncio.sleep(1.2)
    await gateway.aclose()

    assert kinds[-1] == "done"
    assert "restart" not in kinds
