"""Servers of one's own: Ollama, vLLM, SGLang and DashScope take media each in their way, by configuration alone."""

import functools
import http.server
import io
import math
import struct
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from captions.gateway import Completion, Endpoint, Gateway, Media, NoCapableModel, Request
from captions.gateway.catalogue import Catalogue, load
from captions_cli.local.model_endpoint import LocalEndpoint
from support.serving import serving

pytestmark = pytest.mark.anyio

OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
VL = "Qwen/Qwen3-VL-8B-Instruct"


def tone() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(
            b"".join(struct.pack("<h", int(9_000 * math.sin(math.tau * 440 * t / 16_000))) for t in range(8_000))
        )
    return file.getvalue()


def photo(media_type: str = "image/jpeg") -> Media:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (20, 120, 60)).save(file, media_type.partition("/")[2].upper())
    return Media("image", media_type, file.getvalue())


TONE = tone()
SOUND = Media("audio", "audio/wav", TONE, duration_s=0.5)


def configured(url: str, dialect: str, **more: str) -> Catalogue:
    lines = [f'[endpoints."{url}"]', f'dialect = "{dialect}"', *(f"{key} = {value}" for key, value in more.items())]
    return load("\n".join(lines))


async def complete(url: str, catalogue: Catalogue, chain: list[str], *media: Media) -> Completion:
    gateway = Gateway(endpoints=[Endpoint(url)], keys=lambda force: "sk-test", catalogue=catalogue)
    try:
        return await gateway.complete(
            Request("Be brief.", "What is it?", media), chain, deadline=time.monotonic() + 60.0
        )
    finally:
        await gateway.aclose()


async def test_ollama_gets_data_uris_and_its_own_names_and_costs_nothing() -> None:
    names = {VL: "qwen3-vl:8b"}
    with LocalEndpoint(latency_scale=0.0, dialect="ollama", names=names, only_named=True) as ollama:
        catalogue = configured(
            ollama.url, "ollama", names=f'{{ "{VL}" = "qwen3-vl:8b" }}', only_named="true", free="true"
        )
        for media_type in ("image/jpeg", "image/png", "image/webp"):
            completion = await complete(ollama.url, catalogue, ["GPT-4o", VL], photo(media_type))
            assert (completion.model, ollama.requests()[-1]["model"]) == (VL, "qwen3-vl:8b")
            assert completion.cost == 0
        with pytest.raises(NoCapableModel):
            await complete(ollama.url, catalogue, [VL, OMNI], SOUND)


@pytest.mark.parametrize("dialect", ["openai", "vllm", "sglang", "dashscope"])
async def test_sound_is_heard_by_every_server_that_takes_it(dialect: str) -> None:
    with LocalEndpoint(latency_scale=0.0, dialect=dialect) as server:
        completion = await complete(server.url, configured(server.url, dialect), [OMNI], SOUND)
        (entry,) = server.requests()

    assert completion.model == OMNI
    assert completion.text
    assert completion.usage.completion
    assert (entry["kind"], entry["streamed"]) == ("audio", dialect == "dashscope")


@pytest.mark.parametrize("dialect", ["openai", "vllm", "ollama", "sglang", "dashscope"])
async def test_a_picture_is_seen_by_every_server(dialect: str) -> None:
    with LocalEndpoint(latency_scale=0.0, dialect=dialect) as server:
        completion = await complete(server.url, configured(server.url, dialect), [VL], photo())
        (entry,) = server.requests()

    assert "green" in completion.text
    assert (entry["kind"], entry["streamed"]) == ("image", False)


async def test_the_wrong_dialect_is_a_bad_request_and_the_right_one_is_not() -> None:
    with LocalEndpoint(latency_scale=0.0, dialect="sglang") as server:
        with pytest.raises(Exception, match="reject"):
            await complete(server.url, configured(server.url, "openai"), [OMNI], SOUND)
        assert (await complete(server.url, configured(server.url, "sglang"), [OMNI], SOUND)).text


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "sound.wav").write_bytes(TONE)
    handler = functools.partial(_Silent, directory=str(tmp_path))
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "dashscope"])
async def test_what_does_not_fit_into_a_body_is_sent_as_a_link(bucket: str, dialect: str) -> None:
    large = Media("audio", "audio/wav", b"\0" * 4_000_000, url=lambda seconds: f"{bucket}/sound.wav", duration_s=0.5)

    with LocalEndpoint(latency_scale=0.0, dialect=dialect) as server:
        completion = await complete(server.url, configured(server.url, dialect), [OMNI], large)

    assert completion.text


async def test_the_hosted_endpoint_takes_over_from_a_server_of_ones_own() -> None:
    with (
        LocalEndpoint(latency_scale=0.0, dialect="ollama", names={VL: "qwen3-vl:8b"}, only_named=True) as own,
        LocalEndpoint(latency_scale=0.0) as hosted,
    ):
        catalogue = configured(own.url, "ollama", names=f'{{ "{VL}" = "qwen3-vl:8b" }}', only_named="true")
        gateway = Gateway(
            endpoints=[Endpoint(own.url), Endpoint(hosted.url)], keys=lambda force: "sk-test", catalogue=catalogue
        )
        request = Request("Be brief.", "What is it?", (photo(),))
        first = await gateway.complete(request, [VL], deadline=time.monotonic() + 20.0)
        own.set_faults([{"fault": "overloaded"}])
        second = await gateway.complete(request, [VL], deadline=time.monotonic() + 20.0)
        await gateway.aclose()
        asked = [endpoint.requests()[-1]["model"] for endpoint in (own, hosted)]

    assert [first.model, second.model] == [VL, VL]
    assert asked == ["qwen3-vl:8b", VL]
