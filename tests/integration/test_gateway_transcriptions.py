"""Sound to words at /v1/audio/transcriptions: with times, the same fallback, circuits, deadlines and exact costs."""

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from captions.gateway import (
    Completion,
    Endpoint,
    ErrorClass,
    Exhausted,
    Gateway,
    Media,
    NoCapableModel,
    Request,
    Unacceptable,
)
from captions.gateway.catalogue import load
from captions_cli.local.model_endpoint import LocalEndpoint

pytestmark = pytest.mark.anyio

OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
WHISPER = "whisper-1"
SPEECH = Media(
    "audio", "audio/mpeg", (Path(__file__).parents[1] / "media/audio/LJ001-0005.mp3").read_bytes(), duration_s=8.1
)
ASKED = Request("Write down every word.", "Transcribe this.", (SPEECH,), request_id="r-1", transcription=True)


@pytest.fixture
def endpoint(hearer: LocalEndpoint) -> LocalEndpoint:
    return hearer


async def complete(
    endpoint: LocalEndpoint, chain: list[str], request: Request = ASKED, override: str = "", seconds: float = 60.0
) -> Completion:
    gateway = Gateway(
        endpoints=[Endpoint(endpoint.url)], keys=lambda force: "sk-test", catalogue=load(override or None)
    )
    try:
        return await gateway.complete(request, chain, deadline=time.monotonic() + seconds)
    finally:
        await gateway.aclose()


async def test_a_transcription_has_words_times_language_and_the_price_of_its_seconds(endpoint: LocalEndpoint) -> None:
    # Alone in its chain, and with time: the local endpoint really listens, which a starved machine takes long over. The
    # gateway would rightly fall back to the next model, or ask it again and count a call of unknown cost.
    patient = f'[models."{WHISPER}".timeouts]\naudio = 230.0\n'
    heard = await complete(endpoint, [WHISPER], override=patient, seconds=240.0)

    assert heard.model == heard.reported_model == WHISPER
    assert "printing" in heard.text
    assert heard.language == "english"
    assert heard.segments
    assert 0 <= heard.segments[0].start_s < heard.segments[-1].end_s <= 8.2
    assert " ".join(segment.text for segment in heard.segments) == heard.text
    assert (heard.usage.seconds, heard.usage.prompt) == (9.0, None)
    assert heard.cost == heard.spent.exact == Decimal("0.006") * 9 / 60
    assert heard.cost_source == "catalogue"
    (request,) = endpoint.requests()
    assert (request["path"], request["client_request_id"]) == ("/v1/audio/transcriptions", "r-1")


async def test_a_broken_transcription_falls_back_to_a_chat_and_its_cost_counts(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "error_body", "model": WHISPER}])

    heard = await complete(endpoint, [WHISPER, OMNI])

    assert (heard.model, heard.segments) == (OMNI, ())
    assert [attempt.outcome for attempt in heard.attempts] == ["server_error", "ok"]
    assert heard.spent.exact == heard.cost  # an error is not billed


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("overloaded", "server_error"),
        ("malformed", "garbled"),
        ("bad_gateway", "server_error"),
        ("connection_reset", "connection"),
    ],
)
async def test_each_failure_has_the_class_it_has_in_chats(
    endpoint: LocalEndpoint, fault: dict[str, Any], outcome: str
) -> None:
    endpoint.set_faults([{"fault": fault}])

    with pytest.raises(Exhausted) as raised:
        await complete(endpoint, [WHISPER], seconds=8.0)

    assert {attempt.outcome for attempt in raised.value.attempts} == {outcome}


async def test_silence_is_an_answer_and_not_a_failure(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "empty"}])

    heard = await complete(endpoint, [WHISPER])

    assert (heard.text, heard.segments) == ("", ())
    assert [attempt.outcome for attempt in heard.attempts] == ["ok"]


async def test_an_answer_that_is_not_accepted_goes_to_the_next_model(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "empty", "model": WHISPER}])
    request = Request(
        "", "Transcribe.", (SPEECH,), transcription=True, judge=lambda text: None if text else ErrorClass.UNFIT
    )

    heard = await complete(endpoint, [WHISPER, OMNI], request)

    assert heard.model == OMNI
    assert heard.attempts[0].outcome == "unfit"
    assert heard.attempts[0].cost is not None


async def test_a_model_that_gives_no_times_is_asked_for_none(endpoint: LocalEndpoint) -> None:
    heard = await complete(endpoint, [WHISPER], override=f'[models."{WHISPER}"]\ntranscript_format = "json"')

    assert "printing" in heard.text
    assert (heard.segments, heard.language) == ((), None)


async def test_without_a_price_the_cost_stays_unknown(endpoint: LocalEndpoint) -> None:
    priceless = """
    [models."scribe"]
    provider = "Own"
    modalities = ["audio"]
    takes = ["audio_transcriptions"]
    context = 448
    """
    names = {"scribe": "whisper-1"}
    override = f'{priceless}\n[endpoints."{endpoint.url}"]\nnames = {{ scribe = "{names["scribe"]}" }}'

    heard = await complete(endpoint, ["scribe"], override=override)

    assert heard.usage.seconds == 9.0
    assert (heard.cost, heard.cost_source) == (None, "unknown")


async def test_only_the_words_of_sound_are_asked_of_it(endpoint: LocalEndpoint) -> None:
    described = Request("Be brief.", "What is heard?", (SPEECH,))
    with pytest.raises(NoCapableModel):
        await complete(endpoint, [WHISPER], described)
    with pytest.raises(NoCapableModel):
        await complete(endpoint, [WHISPER], Request("Be brief.", "Hello?"))
    assert (await complete(endpoint, [WHISPER, OMNI], described)).model == OMNI
    assert [request["path"] for request in endpoint.requests()] == ["/v1/chat/completions"]


async def test_sound_that_is_surely_too_long_is_not_sent(endpoint: LocalEndpoint) -> None:
    hour = Request("", "Transcribe.", (Media("audio", "audio/mpeg", b"ID3", duration_s=3_600.0),), transcription=True)
    with pytest.raises(Unacceptable, match="too large"):
        await complete(endpoint, [OMNI], hour)
    assert endpoint.requests() == []


async def test_what_is_streamed_comes_from_a_chat(endpoint: LocalEndpoint) -> None:
    gateway = Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda force: "sk-test", catalogue=load())
    try:
        events = [event async for event in gateway.stream(ASKED, [WHISPER, OMNI], deadline=time.monotonic() + 60.0)]
    finally:
        await gateway.aclose()
    assert {event.model for event in events} == {OMNI}


async def test_a_dialect_grants_no_transcriptions_to_models_that_have_none() -> None:
    catalogue = load("\n".join(f'[endpoints."http://{name}/v1"]\ndialect = "{name}"' for name in ("vllm", "sglang")))
    omni, whisper = (catalogue.served(name, "http://vllm/v1") for name in (OMNI, WHISPER))
    assert omni is not None
    assert whisper is not None

    assert "audio_transcriptions" not in omni[0].takes
    assert whisper[0].takes == {"audio_transcriptions"}
    assert catalogue.served(WHISPER, "http://sglang/v1") is None
