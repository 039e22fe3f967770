"""Recordings and video through the real template and its real handlers: links, layers' packages, permissions."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from captions.records.record import Record
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions
from captions_cli.subtitles import words
from support.recordings import PHRASE, encoded, film, samples

ROOT = Path(__file__).parents[2]
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
UPLOADS: dict[str, Callable[[], bytes]] = {
    "memo.wma": lambda: encoded(samples(PHRASE), "asf", "wmav2"),
    "talk.mp4": lambda: film(COLOURS, sound=samples(PHRASE)),
    "talk.avi": lambda: film(COLOURS, sound=samples(PHRASE), container="avi"),
}


@pytest.mark.timeout(280)
def test_a_converted_recording_a_video_by_link_and_one_by_its_frames(tmp_path: Path) -> None:
    with LocalStack(ROOT / "template.yaml", state_dir=tmp_path, model=ModelOptions(latency_scale=0.0)) as stack:
        bucket, table = stack.outputs["MediaBucketName"], stack.outputs["CaptionsTableName"]
        for name, make in UPLOADS.items():
            stack.client("s3").put_object(Bucket=bucket, Key=name, Body=make())
        records: dict[str, Record] = {}
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (
            len(records) == len(UPLOADS) and all(record.terminal for record in records.values())
        ):
            time.sleep(0.5)
            items = stack.client("dynamodb").scan(TableName=table)["Items"]
            records = {record.key: record for record in map(Record.from_item, items)}
        assert {name: record.state for name, record in records.items()} == dict.fromkeys(UPLOADS, "captioned")
        with urllib.request.urlopen(stack.endpoint_url.removesuffix("/v1") + "/_local/requests") as answer:
            log = json.load(answer)
        assert stack.wait_idle(60)  # a worker forgets the parts of a recording once its record has ended
        kept = stack.client("dynamodb").scan(TableName=stack.outputs["ControlTableName"])["Items"]

    requests = log["requests"] if isinstance(log, dict) else log
    paid = [request["kind"] for request in requests if request["outcome"] == "ok"]
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
