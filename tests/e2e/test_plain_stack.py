"""The stack as its template is, one for all tests of this file: every task, recordings, and the client for programs."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from captions.records.record import Record
from captions.tasks import TASKS
from captions_cli.local import LocalStack
from captions_cli.local.lambda_runtime.processes import FORKS
from captions_cli.local.options import ModelOptions
from captions_cli.subtitles import words
from captions_client import AsyncClient, ChangedMeanwhileError, Client, Done
from support import drawn, recordings
from support.drawn import ORDERS, bar_chart, page, png
from support.pipeline import MEDIA
from support.recordings import PHRASE, encoded, samples

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "media"
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
UPLOADS: dict[str, Callable[[], bytes]] = {
    "memo.wma": lambda: encoded(samples(PHRASE), "asf", "wmav2"),
    "talk.mp4": lambda: recordings.film(COLOURS, sound=samples(PHRASE)),
    "talk.avi": lambda: recordings.film(COLOURS, sound=samples(PHRASE), container="avi"),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("plain")
    with LocalStack(
        ROOT / "template.yaml", state_dir=home, model=ModelOptions(latency_scale=0), serve_api=True
    ) as running:
        yield running


def ended(stack: LocalStack, keys: set[str], seconds: float) -> dict[str, Record]:
    """Wait until these uploads have ended; return their records by key."""
    deadline = time.monotonic() + seconds
    result: dict[str, Record] = {}
    while time.monotonic() < deadline:
        pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["CaptionsTableName"])
        items = [item for page in pages for item in page["Items"]]
        result = {record.key: record for record in map(Record.from_item, items) if record.key in keys}
        if result.keys() == keys and all(record.terminal for record in result.values()):
            return result
        time.sleep(0.5)
    pytest.fail(f"not ended in {seconds} s: { ({key: record.state for key, record in result.items()}) }")


def asked(stack: LocalStack) -> list[dict[str, Any]]:
    """The model endpoint's own log."""
    with urllib.request.urlopen(stack.endpoint_url.removesuffix("/v1") + "/_local/requests") as answer:
        return list(json.load(answer)["requests"])


@pytest.mark.timeout(280)
def test_a_converted_recording_a_video_by_link_and_one_by_its_frames(stack: LocalStack) -> None:
    before = len(asked(stack))
    for name, make in UPLOADS.items():
        stack.client("s3").put_object(Bucket=stack.outputs["MediaBucketName"], Key=name, Body=make())
    records = ended(stack, set(UPLOADS), 240)
    assert {name: record.state for name, record in records.items()} == dict.fromkeys(UPLOADS, "captioned")
    assert stack.wait_idle(60)  # a worker forgets the parts of a recording once its record has ended
    kept = stack.client("dynamodb").scan(TableName=stack.outputs["ControlTableName"])["Items"]
    paid = [request["kind"] for request in asked(stack)[before:] if request["outcome"] == "ok"]
    assert {"audio", "image", "video"} <= set(paid)
    assert "comparatively" in words(records["memo.wma"], "text")
    assert "-->" in words(records["memo.wma"], "vtt")
    by_link, by_frames = records["talk.mp4"].result, records["talk.avi"].result
    assert by_link is not None
    assert by_frames is not None
    assert "frames" not in by_link.data
    assert by_frames.data["frames"]
    assert "comparatively" in by_frames.data["segments"][0]["text"]
    assert [item for item in kept if item["pk"]["S"].startswith("recording#")] == []


def test_every_task_is_answered_through_the_stack(stack: LocalStack) -> None:
    photo = (FILES / "photos/chelsea.jpg").read_bytes()
    speech = (FILES / "audio/LJ001-0002.wav").read_bytes()
    uploads: dict[str, tuple[bytes, dict[str, str]]] = {
        "caption.jpg": (photo, {"style": "concise"}),
        "alt_text.png": (png(page(*ORDERS, *ORDERS)), {"context-title": " ".join(ORDERS[:2])}),
        "objects.jpg": ((FILES / "photos/teddy-bear.jpg").read_bytes(), {}),
        "ocr.png": ((FILES / "documents/contoso_invoice_2.png").read_bytes(), {}),
        "chart.png": (png(bar_chart([100, 300, 200, 50])), {}),
        "code.png": ((FILES / "documents/fw9_1.png").read_bytes(), {}),
        "transcribe.wav": (speech, {}),
        "audio_qa.wav": (speech, {"question": "What is it comparatively?"}),
        "emotion.wav": (speech, {}),
        "music.wav": (speech, {}),
        "video.mp4": (drawn.film(), {}),
    }
    assert {Path(key).stem for key in uploads} == set(TASKS), (
        "tests/e2e/test_plain_stack.py: `uploads` needs one of each task"
    )
    for key, (data, wishes) in uploads.items():
        metadata = {"caption-task": Path(key).stem} | {f"caption-{name}": value for name, value in wishes.items()}
        stack.client("s3").put_object(Bucket=stack.outputs["MediaBucketName"], Key=key, Body=data, Metadata=metadata)
    records = ended(stack, set(uploads), 120)

    assert {key: record.state for key, record in records.items()} == dict.fromkeys(uploads, "captioned")
    results = {Path(key).stem: record.result for key, record in records.items()}
    assert all(result is not None and result.task == task for task, result in results.items())
    texts = {task: result.text for task, result in results.items() if result is not None}
    answers = {task: result.data for task, result in results.items() if result is not None}
    assert "brown" in texts["caption"]
    assert "lines of text" in texts["alt_text"]
    assert "All clear" not in texts["alt_text"]
    assert answers["alt_text"]["purpose"] == "informative"
    assert isinstance(answers["objects"]["objects"], list)
    assert "cannot read" in answers["ocr"]["unclear"][0]
    assert len(answers["chart"]["series"][0]["points"]) == 4
    assert texts["code"] == ""
    assert "comparatively" in texts["transcribe"]
    assert answers["audio_qa"]["answerable"] is True
    assert answers["emotion"]["emotion"] == "unknown"
    assert "words a second" in texts["music"]
    assert answers["video"]["scenes"]


def test_a_program_uploads_waits_edits_streams_and_iterates(stack: LocalStack) -> None:
    assert stack.api is not None
    with Client(stack.api.url, token=stack.api.token) as client:
        uploaded = client.upload(MEDIA / "perched-osprey.jpg", key="birds/osprey.jpg", language="en")
        asset = client.wait(uploaded, timeout=60)
        assert (asset.state, asset.version_id) == ("captioned", uploaded.version_id)
        edited = client.edit(asset, "An osprey on its perch")
        with pytest.raises(ChangedMeanwhileError):
            client.edit(asset, "A hawk")
        large = client.upload(bytes(17 * 1_048_576), key="odd/zeros.bin")
        assert client.wait(large, timeout=60).state == "rejected"
        assert {each.key: each.text for each in client.iterate(prefix="birds/", limit=1)} == {edited.key: edited.text}

    async def on_a_loop() -> None:
        assert stack.api is not None
        async with AsyncClient(stack.api.url, token=stack.api.token) as client:
            events = [event async for event in client.stream(MEDIA / "casa-mila.jpg", language="en")]
            assert isinstance(events[-1], Done)
            again = await client.wait(await client.upload(MEDIA / "casa-mila.jpg", language="en"), timeout=60)
            assert (again.source, again.text) == ("cache", events[-1].asset.text)

    asyncio.run(on_a_loop())


@pytest.mark.skipif(not FORKS, reason="sandboxes are forked on Linux only")
def test_sandboxes_are_forks_of_one_process_that_has_imported_packages(stack: LocalStack) -> None:
    parents = {psutil.Process(pid).parent() for _, pid in stack.workers()}
    (server,) = parents
    assert server is not None
    assert Path(server.cmdline()[-1]).name == "fork_server.py"
