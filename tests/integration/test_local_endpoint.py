"""The local endpoint, asked by the real `openai` client over real HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image, ImageDraw

from captions_cli.local.endpoint import LocalEndpoint

VISION = "Qwen/Qwen3-VL-8B-Instruct"
TEXT_ONLY = "Qwen3-32B"
OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"


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


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0) as running:
        yield running


@pytest.fixture
def client(endpoint: LocalEndpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=endpoint.url, api_key="any-key", max_retries=0, timeout=20) as made:
        yield made


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    return client.chat.completions.create(**{"model": VISION, "messages": messages(picture()), **changes})


def test_different_pictures_get_different_captions(client: openai.OpenAI) -> None:
    night = ask(client, messages=messages(picture("navy", "yellow")))
    day = ask(client, messages=messages(picture("white", "red", (200, 90))))
    assert "navy" in night.choices[0].message.content
    assert "red" in day.choices[0].message.content
    assert night.choices[0].message.content.count("(described from pixels by the local model)") == 1
    assert night.choices[0].finish_reason == "stop"
    assert night.model == VISION


def test_the_request_log_witnesses_what_was_asked(endpoint: LocalEndpoint, client: openai.OpenAI) -> None:
    ask(client, extra_headers={"X-Client-Request-Id": "job-7"})
    (entry,) = endpoint.requests()
    assert entry["client_request_id"] == "job-7"
    assert (entry["model"], entry["kind"], entry["status"], entry["outcome"]) == (VISION, "image", 200, "ok")
    assert entry["authorized"] is True
    assert "any-key" not in repr(entry)
