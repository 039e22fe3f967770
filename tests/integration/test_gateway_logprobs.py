"""How sure a model says it is of its tokens: from the wire to the confidence of an answer."""

import math
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captions.gateway import Completion, Endpoint, Gateway, Media, Request
from captions.gateway.catalogue import load
from captions.gateway.responses import Collector, answer_of
from captions.inference.escalation import Asking, answer
from captions.routing.routes import Chains
from captions.tasks import Ask
from captions_cli.local.model_endpoint import LocalEndpoint

pytestmark = pytest.mark.anyio
MEDIA = Path(__file__).parents[1] / "media"
OMNI, VISION = "Qwen/Qwen3-Omni-30B-A3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
SPEECH = Media("audio", "audio/wav", (MEDIA / "audio/LJ001-0002.wav").read_bytes(), duration_s=1.9)
PHOTO = Media("image", "image/jpeg", (MEDIA / "photos/coffee.jpg").read_bytes())


@pytest.fixture
def endpoint(hearer: LocalEndpoint) -> LocalEndpoint:
    return hearer


def gateway_to(endpoint: LocalEndpoint, *, offered: bool = True) -> Gateway:
    text = f'structured = "json_schema"\nlogprobs = {str(offered).lower()}\n'
    named = "".join(f'[models."{name}"]\n{text}' for name in (OMNI, VISION))
    return Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda fresh: "a key", catalogue=load(named))


async def completed(
    endpoint: LocalEndpoint, medium: Media, model: str, *, streamed: bool, offered: bool = True
) -> Completion:
    gateway, request = gateway_to(endpoint, offered=offered), Request("", "What is said or seen here?", (medium,))
    try:
        if not streamed:
            return await gateway.complete(request, [model], deadline=time.monotonic() + 60)
        *_, last = [event async for event in gateway.stream(request, [model], deadline=time.monotonic() + 60)]
        assert last.completion is not None
        return last.completion
    finally:
        await gateway.aclose()


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_how_sure_the_recogniser_is_of_its_words_comes_through(endpoint: LocalEndpoint, streamed: bool) -> None:
    completion = await completed(endpoint, SPEECH, OMNI, streamed=streamed)
    assert completion.mean_logprob is not None
    assert completion.mean_logprob < 0
    with_fields = Request("", "Transcribe", (SPEECH,), response_format=WITH_CONFIDENCE)
    gateway = gateway_to(endpoint)
    try:
        shaped = await gateway.complete(with_fields, [OMNI], deadline=time.monotonic() + 60)
    finally:
        await gateway.aclose()
    # The same certainty that it names where a shape asks for it.
    assert f'"confidence": {round(math.exp(completion.mean_logprob), 3)}' in shaped.text


WITH_CONFIDENCE = {
    "type": "json_schema",
    "json_schema": {
        "name": "heard",
        "schema": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "confidence": {"type": "number"}},
            "required": ["text", "confidence"],
        },
    },
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_what_is_measured_without_a_certainty_has_none(endpoint: LocalEndpoint, streamed: bool) -> None:
    assert (await completed(endpoint, PHOTO, VISION, streamed=streamed)).mean_logprob is None


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_nobody_is_told_who_did_not_ask(endpoint: LocalEndpoint, streamed: bool) -> None:
    assert (await completed(endpoint, SPEECH, OMNI, streamed=streamed, offered=False)).mean_logprob is None


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_the_mean_is_that_of_every_token_of_every_chunk(endpoint: LocalEndpoint, streamed: bool) -> None:
    text = "A cup of coffee stands on a table of dark wood, beside it a spoon."
    endpoint.set_faults([{"fault": "answer", "text": text, "certainty": 0.25}])
    completion = await completed(endpoint, PHOTO, VISION, streamed=streamed)
    assert completion.text == text
    assert completion.mean_logprob == pytest.approx(math.log(0.25))


async def test_an_answer_whose_tokens_are_doubtful_is_trusted_less(endpoint: LocalEndpoint) -> None:
    text = '{"caption": "A cup of coffee on a table.", "tags": ["coffee"], "safety": "safe", "confidence": 0.9}'
    chains = Chains(tier="easy", models=(VISION,), higher=(), higher_tier=None, threshold=0.0, least_seconds=0.0)
    scores = []
    for certainty in (1.0, 0.5, 0.1):
        endpoint.set_faults([{"fault": "answer", "text": text, "certainty": certainty}])
        gateway = gateway_to(endpoint)
        try:
            answered = await answer(Asking(gateway, time.monotonic() + 60), Ask(task="caption"), (PHOTO,), chains)
        finally:
            await gateway.aclose()
        scores.append(answered.kept.score)
    assert scores == [pytest.approx(0.5 + 0.5 * (0.9 + certainty) / 2) for certainty in (1.0, 0.5, 0.1)]


def tokens(*logprobs: Any) -> SimpleNamespace:
    return SimpleNamespace(content=[SimpleNamespace(token="a", logprob=logprob) for logprob in logprobs])


def choice(logprobs: Any, **more: Any) -> list[SimpleNamespace]:
    return [SimpleNamespace(logprobs=logprobs, **more)]


@pytest.mark.parametrize(
    ("logprobs_given", "mean"),
    [
        (tokens(-0.1, -0.3), -0.2),
        (tokens(0.0), 0.0),
        (tokens(-0.4, -9999.0, None, "-1", 0.5, math.nan), -0.4),  # out of the likeliest, and nonsense
        (tokens(), None),
        (None, None),
        (SimpleNamespace(content=None), None),
        (SimpleNamespace(content="-0.1"), None),
    ],
)
async def test_what_servers_tell_of_tokens_is_averaged_and_nonsense_passed_over(
    logprobs_given: Any, mean: float | None
) -> None:
    whole = SimpleNamespace(
        choices=choice(logprobs_given, message=SimpleNamespace(content="a b"), finish_reason="stop"),
        model="m",
        usage=None,
    )
    assert answer_of(whole).mean_logprob == (None if mean is None else pytest.approx(mean))
    stream = Collector()
    for part in (logprobs_given, tokens(-2.0), None):
        delta = SimpleNamespace(content="a ")
        stream.add(SimpleNamespace(choices=choice(part, delta=delta, finish_reason="stop"), model="m", usage=None))
    kept = (
        [
            item.logprob
            for item in logprobs_given.content
            if isinstance(item.logprob, float) and -9999 < item.logprob <= 0
        ]
        if (mean is not None)
        else []
    )
    assert stream.answer().mean_logprob == pytest.approx(statistics.fmean([*kept, -2.0]))
