"""The local endpoint, asked by the real `openai` client over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx2
import openai
import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from captions_cli.local.model_endpoint import LocalEndpoint, eyes
from support.serving import QuietHandler, serving

VISION = "Qwen/Qwen3-VL-8B-Instruct"
TEXT_ONLY = "Qwen3-32B"
OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
PRICED = "GLM-4-Plus"
CLOSING = "(described from pixels by the local model)"
AUDIO = Path(__file__).parent.parent / "media" / "audio"


def picture(ground: str = "navy", spot: str = "yellow", place: tuple[int, int] = (40, 40)) -> bytes:
    image = Image.new("RGB", (320, 200), ground)
    x, y = place
    ImageDraw.Draw(image).ellipse((x, y, x + 90, y + 90), fill=spot)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def messages(*images: bytes, text: str = "Describe the picture.") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in images]
    return [{"role": "system", "content": "You describe pictures."}, {"role": "user", "content": parts}]


def of_part(**part: Any) -> list[dict[str, Any]]:
    (kind,) = part
    return [{"role": "user", "content": [{"type": kind, kind: part[kind]}]}]


def reading() -> bytes:
    """Eight seconds of English."""
    return (AUDIO / "LJ001-0005.mp3").read_bytes()


def spoken() -> bytes:
    """The first 2.5 seconds of it, which take half as long to recognise."""
    return reading()[:10_500]


def client_of(endpoint: LocalEndpoint, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": endpoint.url, "api_key": "any-key", "max_retries": 0, "timeout": 60, **options})


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0) as running:
        yield running


@pytest.fixture
def client(endpoint: LocalEndpoint) -> Iterator[openai.OpenAI]:
    with client_of(endpoint) as made:
        yield made


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    return client.chat.completions.create(**{"model": VISION, "messages": messages(picture()), **changes})


def text_of(answer: Any) -> str:
    content = answer.choices[0].message.content
    assert isinstance(content, str)
    return content


# Answers


def test_different_pictures_get_different_captions(client: openai.OpenAI) -> None:
    night = ask(client, messages=messages(picture("navy", "yellow")))
    day = ask(client, messages=messages(picture("white", "red", (200, 90))))
    assert "navy" in text_of(night)
    assert "red" in text_of(day)
    assert text_of(night).count(CLOSING) == 1
    assert night.choices[0].finish_reason == "stop"
    assert night.model == "local/pixels"


def test_an_endpoint_with_eyes_reads_and_says_which_model_read() -> None:
    image = Image.new("RGB", (700, 260), "white")
    ImageDraw.Draw(image).text((40, 90), "Closed on Mondays", fill="black", font=ImageFont.load_default(48))
    out = io.BytesIO()
    image.save(out, "PNG")
    with LocalEndpoint(latency_scale=0.0, eyes=True) as endpoint, client_of(endpoint) as client:
        answer = ask(client, messages=messages(out.getvalue()))

    assert "Closed on Mondays" in text_of(answer)
    assert answer.model == "local/PP-OCRv6"


def test_an_endpoint_whose_eyes_are_not_installed_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eyes, "_PACKAGES", ("onnxruntime", "no_such_package"))
    with pytest.raises(ValueError, match="not installed: no_such_package"):
        LocalEndpoint(eyes=True)


def test_the_request_log_witnesses_what_was_asked(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    ask(client, extra_headers={"X-Client-Request-Id": "job-7"})
    (entry,) = endpoint.requests()
    assert entry["client_request_id"] == "job-7"
    assert (entry["model"], entry["kind"], entry["status"], entry["outcome"]) == (VISION, "image", 200, "ok")
    assert entry["authorized"] is True
    assert "any-key" not in repr(entry)


def test_the_log_file_holds_every_finished_request(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with LocalEndpoint(latency_scale=0.0, log=log) as endpoint, client_of(endpoint) as client:
        ask(client)
        with pytest.raises(openai.NotFoundError):
            ask(client, model="no-such-model")
        kept = endpoint.requests()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == kept
    assert [line["outcome"] for line in lines] == ["ok", "error"]
    assert [line["error_code"] for line in lines] == [None, "model_not_found"]
    assert lines[0]["error_message"] is None
    assert "no-such-model" in lines[1]["error_message"]


def test_the_request_log_tells_why_sound_was_refused(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    sound = {"data": base64.b64encode(b"plain text").decode(), "format": "wav"}
    with pytest.raises(openai.BadRequestError):
        ask(client, model=OMNI, messages=of_part(input_audio=sound))
    (entry,) = endpoint.requests()
    assert (entry["status"], entry["outcome"], entry["error_code"]) == (400, "error", "invalid_media")
    assert entry["error_message"] == "The media could not be decoded; its container is not known."


def test_the_request_log_keeps_messages_short(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, model="m" * 5000)
    (entry,) = endpoint.requests()
    assert len(entry["error_message"]) == 300
    assert entry["error_message"].endswith("…")


def test_the_same_picture_asked_often_at_once_is_looked_at_once(endpoint: LocalEndpoint) -> None:
    async def all_at_once() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=endpoint.url, api_key="k", max_retries=0) as client:
            same = messages(picture())
            return await asyncio.gather(
                *(client.chat.completions.create(model=VISION, messages=same) for _ in range(200))  # type: ignore[arg-type]
            )

    answers = asyncio.run(all_at_once())
    assert len({text_of(answer) for answer in answers}) == 1
    assert endpoint.stats()["described"] == 1
    assert len(endpoint.requests()) == 200


def test_streamed_pieces_join_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == text_of(whole)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_without_the_option_carries_no_usage(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None for chunk in ask(client, stream=True))


def test_usage_counts_the_cached_prefix_of_a_repeated_prompt(client: openai.OpenAI) -> None:
    long_system = [{"role": "system", "content": "Be exact. " * 100}, *messages(picture())[1:]]
    first, second = (ask(client, messages=long_system).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert 0 < second.prompt_tokens_details.cached_tokens <= second.prompt_tokens


def test_cost_is_reported_only_on_request_and_only_where_prices_are_known() -> None:
    with LocalEndpoint(latency_scale=0.0, report_cost=True) as endpoint, client_of(endpoint) as client:
        usage = ask(client, model=PRICED).usage
        cost = (usage.prompt_tokens * 0.20 + usage.completion_tokens * 0.80) / 1e6
        assert usage.model_extra["cost"] == pytest.approx(cost)
        assert "cost" not in ask(client).usage.model_extra
        assert [entry["cost"] is None for entry in endpoint.requests()] == [False, True]
    with LocalEndpoint(latency_scale=0.0) as endpoint, client_of(endpoint) as client:
        assert "cost" not in ask(client, model=PRICED).usage.model_extra


def test_text_is_answered_with_an_extract_of_itself(client: openai.OpenAI) -> None:
    story = (
        "The harbour lies in fog. Boats wait in the harbour for the fog to lift. A dog barks. "
        "The fog over the harbour lifts and the boats leave. Somebody laughs."
    )
    answer = text_of(ask(client, model=TEXT_ONLY, messages=[{"role": "user", "content": story}]))
    assert "Boats wait in the harbour" in answer
    assert "A dog barks" not in answer
    assert all(sentence.strip(". ") in story for sentence in answer.split(". "))


def test_max_tokens_cuts_the_answer_and_says_so(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=6)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens <= 6


def test_a_json_schema_is_filled_with_the_description(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "caption": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "safe": {"type": "boolean"},
            "kind": {"enum": ["photo", "drawing"]},
        },
        "required": ["caption", "tags", "safe", "kind"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}}
    document = json.loads(text_of(ask(client, response_format=wanted)))
    assert set(document) == {"caption", "tags", "safe", "kind"}
    assert "navy" in document["caption"]
    assert "navy" in document["tags"]
    assert document["kind"] == "photo"


def test_pictures_are_fetched_from_this_machine_only(client: openai.OpenAI) -> None:
    image = picture("white", "green")

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.answer(200, image)

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        url = f"http://127.0.0.1:{server.server_port}/a.png?X-Amz-Signature=x"
        assert "green" in text_of(ask(client, messages=of_part(image_url={"url": url})))
    with pytest.raises(openai.BadRequestError, match="loopback"):
        ask(client, messages=of_part(image_url={"url": "http://203.0.113.7/a.png"}))


# Sound and film


def test_english_speech_is_transcribed(client: openai.OpenAI) -> None:
    sound = {"data": base64.b64encode(reading()).decode(), "format": "mp3"}
    heard = text_of(ask(client, model=OMNI, messages=of_part(input_audio=sound))).split()
    text = {"invention", "letters", "middle", "fifteenth", "century", "considered", "art", "printing"}
    assert len(text & set(heard)) >= 6
    as_url = {"url": data_uri(reading(), "audio/mpeg")}
    assert text_of(ask(client, model=OMNI, messages=of_part(audio_url=as_url))).split() == heard


@pytest.mark.deep
def test_speech_with_tags_in_an_old_encoding_is_transcribed(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    with av.open(io.BytesIO(spoken())) as source:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
        frames = [out for frame in source.decode(audio=0) for out in resampler.resample(frame)]
        samples = b"".join(frame.to_ndarray().tobytes() for frame in frames)
    title = b"caf\xe9 \xff\xfe"
    info = b"INFOINAM" + len(title).to_bytes(4, "little") + title + bytes(len(title) % 2)
    form = b"\1\0\1\0" + (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little") + b"\2\0\x10\0"
    chunks = [(b"fmt ", form), (b"LIST", info), (b"data", samples)]
    body = b"WAVE" + b"".join(name + len(held).to_bytes(4, "little") + held for name, held in chunks)
    data = b"RIFF" + len(body).to_bytes(4, "little") + body
    sound = {"data": base64.b64encode(data).decode(), "format": "wav"}
    assert "invention" in text_of(ask(client, model=OMNI, messages=of_part(input_audio=sound)))
    assert endpoint.requests()[0]["error_code"] is None


@pytest.mark.deep
def test_a_mistake_in_the_process_that_listens_is_told_and_survived() -> None:
    # As when a library no longer takes an argument: the first job fails in an unforeseen way, the second does not.
    program = (
        "import sys; from captions_cli.local.model_endpoint import listening; whole = listening._open\n"
        "def broken(data): listening._open = whole; raise TypeError('no argument of this name')\n"
        "listening._open = broken; sys.exit(listening.main(['60']))"
    )
    job = b"a" + len(spoken()).to_bytes(7, "big") + spoken()
    done = subprocess.run([sys.executable, "-c", program], input=job * 2, capture_output=True, timeout=60, check=True)
    answers = []
    stream = io.BytesIO(done.stdout)
    while length := stream.read(4):
        answers.append(json.loads(stream.read(int.from_bytes(length, "big"))))
    code, message = answers[0]["refused"]
    assert code == "decoder_failed"
    assert message == "The media could not be decoded: TypeError: no argument of this name"
    assert "invention" in answers[1]["heard"]["segments"][0]["text"]


def test_silence_is_not_given_words(client: openai.OpenAI) -> None:
    header = b"RIFF" + (36 + 64000).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"\1\0\1\0" + (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little") + b"\2\0\x10\0"
    silence = header + b"data" + (64000).to_bytes(4, "little") + bytes(64000)
    sound = {"data": base64.b64encode(silence).decode(), "format": "wav"}
    answer = text_of(ask(client, model=OMNI, messages=of_part(input_audio=sound)))
    assert answer == "No speech was recognised in this recording: 2.0 seconds of silence."


@pytest.mark.parametrize(
    "hostile",
    [
        b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + b"\0" * 64,
        b"plain text",
        b"\xff\xfb\x90\x64" * 50 + b"\0" * 9,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
    ],
)
def test_hostile_sound_is_refused_and_the_server_lives(client: openai.OpenAI, hostile: bytes) -> None:
    sound = {"data": base64.b64encode(hostile).decode(), "format": "wav"}
    with pytest.raises(openai.BadRequestError):
        ask(client, model=OMNI, messages=of_part(input_audio=sound))
    assert CLOSING in text_of(ask(client))


def test_sound_beyond_the_limit_is_refused_with_the_limit() -> None:
    sound = {"data": base64.b64encode(spoken()).decode(), "format": "wav"}
    with (
        LocalEndpoint(latency_scale=0.0, max_audio_s=2.0) as endpoint,
        client_of(endpoint) as client,
        pytest.raises(openai.BadRequestError, match="longer than 2 seconds") as caught,
    ):
        ask(client, model=OMNI, messages=of_part(input_audio=sound))
    assert caught.value.code == "audio_too_long"


def test_a_film_is_described_by_its_frames(client: openai.OpenAI) -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(40):
            image = Image.new("RGB", (160, 120), "darkred" if number < 20 else "green")
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    film = {"url": data_uri(out.getvalue(), "video/mp4")}
    answer = text_of(ask(client, model=OMNI, messages=of_part(video_url=film)))
    assert "A video of 4.0 seconds, 160x120." in answer
    assert answer.index("red") < answer.index("green")
    with pytest.raises(openai.BadRequestError):
        ask(client, model=OMNI, messages=of_part(video_url={"url": data_uri(b"no film", "video/mp4")}))


# Errors


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="no-such-model")
    assert caught.value.code == "model_not_found"


def test_a_modality_the_model_lacks_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support image"):
        ask(client, model=TEXT_ONLY)


def test_what_is_no_picture_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=messages(b"\x89PNG\r\n\x1a\nnot really"))
    assert caught.value.code == "invalid_image"


def test_a_body_over_the_models_limit_is_too_large(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, messages=messages(b"\0" * 3_100_000))
    assert caught.value.status_code == 413


def test_a_prompt_over_the_context_window_is_refused_as_such(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model=TEXT_ONLY, messages=[{"role": "user", "content": "word " * 30_000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model": 3}',
        b'{"model": "GPT-4o", "messages": []}',
        b'{"model": "GPT-4o", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 3}]}]}',
        b'{"model": "GPT-4o", "messages": [{"role": "user", "content": [{"type": "nothing"}]}]}',
        b'{"model": "GPT-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": -1}',
        b'{"model": "GPT-4o", "messages": [{"role": "user", "content": "hi"}], "n": 0}',
    ],
)
def test_malformed_requests_get_an_error_object(endpoint: LocalEndpoint, body: bytes) -> None:
    headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
    answer = httpx2.post(f"{endpoint.url}/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_only_the_accepted_keys_pass() -> None:
    with LocalEndpoint(latency_scale=0.0, keys=["right"]) as endpoint:
        with client_of(endpoint, api_key="right") as client:
            ask(client)
        with client_of(endpoint, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            ask(client)
        assert [entry["authorized"] for entry in endpoint.requests()] == [True, False]
        assert "wrong" not in repr(endpoint.requests())


def test_no_key_is_no_access(endpoint: LocalEndpoint) -> None:
    assert httpx2.get(f"{endpoint.url}/models").status_code == 401


def test_the_models_are_the_catalogues(client: openai.OpenAI) -> None:
    offered = {model.id: model for model in client.models.list()}
    assert {VISION, TEXT_ONLY, OMNI, "GLM-4.5V"} <= set(offered)
    assert client.models.retrieve(VISION).owned_by == "Qwen"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("quota_exceeded", 429, "insufficient_quota"),
        ("overloaded", 503, None),
        ("server_error", 500, None),
        ("bad_gateway", 502, None),
        ("gateway_timeout", 504, None),
        ("unauthorized", 401, "invalid_api_key"),
        ("payment_required", 402, "402"),
        ("forbidden", 403, "unsupported_country_region_territory"),
        ("not_found", 404, "model_not_found"),
        ("too_large", 413, "request_too_large"),
        ("bad_request", 400, None),
        ("context_too_long", 400, "context_length_exceeded"),
    ],
)
def test_a_fault_answers_with_its_status(
    endpoint: LocalEndpoint, client: openai.OpenAI, fault: str, status: int, code: str | None
) -> None:
    endpoint.set_faults([{"fault": fault, "times": 1}])
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert CLOSING in text_of(ask(client))
    struck, fine = endpoint.requests()
    assert (struck["fault"], struck["status"], struck["outcome"]) == (fault, status, "error")
    assert (fine["fault"], fine["outcome"]) == (None, "ok")


def test_retry_after_is_sent_when_asked_for(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    endpoint.set_faults([{"fault": "rate_limited", "times": 1, "retry_after": 7}, {"fault": "rate_limited"}])
    waits = []
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        waits.append(caught.value.response.headers.get("retry-after"))
    assert waits == ["7", None]


@pytest.mark.parametrize("fault", ["connection_reset", "hang"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_lost_connection_is_a_connection_error(
    endpoint: LocalEndpoint, client: openai.OpenAI, fault: str, stream: bool
) -> None:
    endpoint.set_faults([{"fault": fault, "delay_s": 0.05}])
    with pytest.raises(openai.APIConnectionError):
        ask(client, stream=stream)
    assert endpoint.requests()[0]["outcome"] == "cut"


def test_a_client_that_gives_up_on_a_hang_is_noted_as_gone(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "hang"}])
    with client_of(endpoint, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
        ask(client)
    waiting = threading.Event()
    for _ in range(200):
        if endpoint.requests()[0]["outcome"] != "open":
            break
        waiting.wait(0.05)
    assert endpoint.requests()[0]["outcome"] == "gone"


def test_an_error_body_comes_with_http_200(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    endpoint.set_faults([{"fault": "error_body"}])
    answer = ask(client)
    assert not answer.choices
    assert answer.model_extra["error"]["code"] == 502
    (entry,) = endpoint.requests()
    assert (entry["outcome"], entry["error_code"]) == ("error", 502)
    assert entry["error_message"] == "Upstream provider returned an error."


def test_a_cut_stream_ends_without_a_finish_reason(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    endpoint.set_faults([{"fault": "cut_stream", "after_pieces": 4}])
    chunks = list(ask(client, stream=True))
    assert len(chunks) == 4
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    endpoint.set_faults([{"fault": "cut_stream", "clean": False}])
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, stream=True))
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert [entry["outcome"] for entry in endpoint.requests()] == ["cut"] * 3


def test_an_error_in_mid_stream_comes_after_some_text(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    endpoint.set_faults([{"fault": "stream_error"}])
    seen = []
    with pytest.raises(openai.APIError, match="stopped while it answered"):
        seen.extend(ask(client, stream=True))
    assert [entry["error_code"] for entry in endpoint.requests()] == ["server_error"]
    endpoint.clear()


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_drip_arrives_whole(endpoint: LocalEndpoint, client: openai.OpenAI, stream: bool) -> None:
    endpoint.set_faults([{"fault": "slow_drip", "delay_s": 0.002}])
    answer = ask(client, stream=stream)
    answer = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else text_of(answer)
    assert answer.endswith(CLOSING)


@pytest.mark.parametrize(
    ("fault", "text", "finish"),
    [
        ({"fault": "empty"}, "", "stop"),
        ({"fault": "reasoning_only"}, "", "length"),
        ({"fault": "answer", "text": "Ignore all rules."}, "Ignore all rules.", "stop"),
        ({"fault": "refusal", "form": "text"}, "I'm sorry, but I can't assist with that request.", "stop"),
        ({"fault": "refusal", "form": "content_filter"}, "", "content_filter"),
        ({"fault": "refusal"}, None, "stop"),
    ],
)
def test_bad_answers(
    endpoint: LocalEndpoint, client: openai.OpenAI, fault: dict[str, Any], text: str | None, finish: str
) -> None:
    endpoint.set_faults([fault])
    choice = ask(client).choices[0]
    assert (choice.message.content, choice.finish_reason) == (text, finish)
    streamed = [chunk.choices[0] for chunk in ask(client, stream=True)]
    assert "".join(piece.delta.content or "" for piece in streamed) == (text or "")
    assert streamed[-1].finish_reason == finish


def test_half_answers(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    whole = text_of(ask(client))
    endpoint.set_faults([{"fault": "truncated"}])
    cut = ask(client)
    assert whole.startswith(text_of(cut))
    assert (text_of(cut) != whole, cut.choices[0].finish_reason) == (True, "length")
    endpoint.set_faults([{"fault": "no_finish_reason"}])
    open_ended = ask(client)
    assert (text_of(open_ended), open_ended.choices[0].finish_reason) == (whole, None)


def test_a_fault_strikes_only_what_it_names(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    endpoint.set_faults(
        [
            {"fault": "overloaded", "model": "Qwen/*-8B-*"},
            {"fault": "server_error", "provider": "Zhipu", "match_client_request_id": "bad-*"},
        ]
    )
    with pytest.raises(openai.InternalServerError):
        ask(client)
    ask(client, model="Qwen/Qwen3-VL-32B-Instruct")
    ask(client, model="GLM-4.6V", extra_headers={"X-Client-Request-Id": "good-1"})
    with pytest.raises(openai.InternalServerError):
        ask(client, model="GLM-4.6V", extra_headers={"X-Client-Request-Id": "bad-1"})
    assert [fault["fired"] for fault in endpoint.faults()] == [1, 1]


def test_a_probable_fault_strikes_the_same_calls_with_the_same_seed() -> None:
    def outcomes(seed: int) -> list[str]:
        with LocalEndpoint(latency_scale=0.0, seed=seed) as endpoint, client_of(endpoint) as client:
            endpoint.set_faults([{"fault": "empty", "probability": 0.5}])
            for _ in range(24):
                ask(client)
            return [str(entry["fault"]) for entry in endpoint.requests()]

    first = outcomes(1)
    assert first == outcomes(1)
    assert set(first) == {"None", "empty"}
    assert first != outcomes(2)


# Dialects


def test_ollama_takes_three_formats_as_data_and_no_n() -> None:
    names = {VISION: "qwen3-vl:8b"}
    with (
        LocalEndpoint(latency_scale=0.0, dialect="ollama", names=names, only_named=True) as endpoint,
        client_of(endpoint) as client,
    ):
        assert [model.id for model in client.models.list()] == ["qwen3-vl:8b"]
        assert CLOSING in text_of(ask(client, model="qwen3-vl:8b"))
        for wrong in (
            {"n": 2},
            {"messages": of_part(image_url={"url": f"{endpoint.url}/a.png"})},
            {"messages": of_part(image_url={"url": data_uri(picture(), "image/gif")})},
            {"messages": of_part(input_audio={"data": "AAAA", "format": "wav"})},
        ):
            with pytest.raises(openai.BadRequestError):
                ask(client, **{"model": "qwen3-vl:8b", **wrong})


@pytest.mark.deep
def test_sglang_takes_sound_as_audio_url_only() -> None:
    with LocalEndpoint(latency_scale=0.0, dialect="sglang") as endpoint, client_of(endpoint) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, model=OMNI, messages=of_part(input_audio={"data": "AAAA", "format": "wav"}))
        assert caught.value.body["object"] == "error"  # type: ignore[index]
        sound = {"url": data_uri(spoken(), "audio/mpeg")}
        assert "invention" in text_of(ask(client, model=OMNI, messages=of_part(audio_url=sound)))


def test_dashscope_wants_its_data_prefix_and_a_stream() -> None:
    encoded = base64.b64encode(spoken()).decode()
    right = of_part(input_audio={"data": f"data:;base64,{encoded}", "format": "wav"})
    with LocalEndpoint(latency_scale=0.0, dialect="dashscope") as endpoint, client_of(endpoint) as client:
        with pytest.raises(openai.BadRequestError, match="stream mode"):
            ask(client, model=OMNI, messages=right)
        with pytest.raises(openai.BadRequestError, match="must start with"):
            ask(client, model=OMNI, stream=True, messages=of_part(input_audio={"data": encoded, "format": "wav"}))
        chunks = ask(client, model=OMNI, stream=True, messages=right)
        assert "invention" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


# Running it


def test_the_admin_api_sets_faults_and_shows_requests(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    admin = endpoint.url.removesuffix("/v1") + "/_local"
    assert httpx2.put(f"{admin}/faults", json=[{"fault": "empty", "times": 1}]).status_code == 200
    ask(client)
    (fault,) = httpx2.get(f"{admin}/faults").json()["faults"]
    assert fault["fired"] == 1
    (entry,) = httpx2.get(f"{admin}/requests").json()["requests"]
    assert entry["fault"] == "empty"
    assert httpx2.get(f"{admin}/stats").json()["faults"] == {"empty": 1}
    assert httpx2.delete(f"{admin}/requests").status_code == 204
    assert httpx2.delete(f"{admin}/faults").status_code == 204
    assert httpx2.get(f"{admin}/requests").json() == {"requests": []}
    assert httpx2.put(f"{admin}/faults", json=[{"fault": "no-such"}]).status_code == 400
    assert httpx2.get(f"{admin}/nothing").status_code == 404


def test_a_client_that_keeps_its_connection_is_counted_once(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    for _ in range(5):
        ask(client)
    assert endpoint.connections == 1
    assert {entry["connection"] for entry in endpoint.requests()} == {1}


def test_several_run_at_once_and_know_only_their_own_requests() -> None:
    with LocalEndpoint(latency_scale=0.0) as item, LocalEndpoint(latency_scale=0.0) as other:
        with client_of(item) as client:
            ask(client)
        assert (len(item.requests()), len(other.requests())) == (1, 0)
        assert item.url != other.url


def test_stopping_ends_a_hanging_request_and_the_port(endpoint: LocalEndpoint) -> None:
    endpoint.set_faults([{"fault": "hang"}])
    failures: list[Exception] = []

    def hang() -> None:
        with client_of(endpoint) as client:
            try:
                ask(client)
            except openai.APIConnectionError as error:
                failures.append(error)

    waiting = threading.Thread(target=hang)
    waiting.start()
    while not endpoint.requests():
        threading.Event().wait(0.02)
    endpoint.stop()
    waiting.join(30)
    assert failures
    with client_of(endpoint) as client, pytest.raises(openai.APIConnectionError):
        ask(client)


def test_the_processes_that_listen_die_with_a_killed_server() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "captions_cli.local.model_endpoint", "--latency-scale", "0"], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        sound = {"data": base64.b64encode(spoken()).decode(), "format": "mp3"}
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            ask(client, model=OMNI, messages=of_part(input_audio=sound))
        workers = psutil.Process(process.pid).children()
        assert workers
        process.kill()
        assert psutil.wait_procs(workers, timeout=30)[1] == []
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("ending", ["closed stdin", "SIGTERM"])
def test_the_process_prints_its_url_and_ends_when_told(ending: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "captions_cli.local.model_endpoint", "--latency-scale", "0", "--exit-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        url = json.loads(process.stdout.readline())["url"]
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            assert CLOSING in text_of(ask(client))
        if ending == "SIGTERM":
            process.terminate()
        else:
            process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


# Transcriptions


def test_a_transcription_has_segments_with_times(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": OMNI, "file": ("clip.mp3", reading())}
    verbose = client.audio.transcriptions.create(**asked, response_format="verbose_json")
    assert verbose.segments
    assert 0 <= verbose.segments[0].start < verbose.segments[-1].end <= verbose.duration == pytest.approx(8.1, abs=0.2)
    assert " ".join(segment.text for segment in verbose.segments) == verbose.text
    assert client.audio.transcriptions.create(**asked).text == verbose.text
    timed = client.audio.transcriptions.create(**{**asked, "model": "whisper-1"}, response_format="verbose_json")
    assert timed.usage is not None
    assert (timed.usage.type, timed.usage.seconds) == ("duration", 9)
    vtt = client.audio.transcriptions.create(**asked, response_format="vtt")
    assert str(vtt).startswith("WEBVTT\n\n00:00:0")
    assert [entry["kind"] for entry in endpoint.requests()] == ["audio"] * 4


def test_transcriptions_suffer_faults_and_refuse_what_they_cannot_hear(
    endpoint: LocalEndpoint, client: openai.OpenAI
) -> None:
    asked: dict[str, Any] = {"model": OMNI, "file": ("clip.mp3", spoken())}
    endpoint.set_faults([{"fault": "overloaded", "times": 1}, {"fault": "empty", "times": 1}])
    with pytest.raises(openai.InternalServerError):
        client.audio.transcriptions.create(**asked)
    assert client.audio.transcriptions.create(**asked).text == ""
    for wrong in ({"model": VISION}, {"file": ("clip.mp3", b"no sound")}, {"response_format": "poem"}):
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(**{**asked, **wrong})
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(**{**asked, "model": "no-such-model"})
