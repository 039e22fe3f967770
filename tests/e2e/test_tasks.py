"""Every task through the local stack: one upload each, asked for in its metadata, answered from what was measured."""

import time
from pathlib import Path

import pytest

from captions.records.record import Record
from captions.tasks import TASKS
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions
from support.drawn import ORDERS, bar_chart, film, page, png

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "media"


def ended(stack: LocalStack, count: int, seconds: float) -> dict[str, Record]:
    deadline = time.monotonic() + seconds
    result: dict[str, Record] = {}
    while time.monotonic() < deadline:
        pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["CaptionsTableName"])
        items = [item for page in pages for item in page["Items"]]
        result = {record.key: record for record in (Record.from_item(item) for item in items)}
        if len(result) == count and all(record.terminal for record in result.values()):
            return result
        time.sleep(0.5)
    pytest.fail(f"not ended in {seconds} s: { ({key: record.state for key, record in result.items()}) }")


def test_every_task_is_answered_through_the_stack(tmp_path: Path) -> None:
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
        "video.mp4": (film(), {}),
    }
    assert {Path(key).stem for key in uploads} == set(TASKS), (
        "tests/e2e/test_tasks.py: `uploads` needs one of each task"
    )
    with LocalStack(ROOT / "template.yaml", state_dir=tmp_path, model=ModelOptions(latency_scale=0.0)) as stack:
        for key, (data, asked) in uploads.items():
            metadata = {"caption-task": Path(key).stem} | {f"caption-{name}": value for name, value in asked.items()}
            stack.client("s3").put_object(
                Bucket=stack.outputs["MediaBucketName"], Key=key, Body=data, Metadata=metadata
            )
        records = ended(stack, len(uploads), 120)

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
