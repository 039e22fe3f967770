"""The real template, its real handlers in processes, and what happens when those are killed."""

import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from captions.records.record import Record
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.pipeline import MEDIA

ROOT = Path(__file__).parents[2]


def records(stack: LocalStack) -> list[Record]:
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["CaptionsTableName"])
    return [Record.from_item(item) for page in pages for item in page["Items"]]


def asked(stack: LocalStack) -> list[dict[str, Any]]:
    """The model endpoint's own log."""
    with urllib.request.urlopen(stack.endpoint_url.removesuffix("/v1") + "/_local/requests") as answer:
        return list(json.load(answer)["requests"])


def until_all_ended(stack: LocalStack, count: int, seconds: float) -> list[Record]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = records(stack)
        if len(result) == count and all(record.terminal for record in result):
            return result
        time.sleep(0.5)
    result = records(stack)
    pytest.fail(
        f"not ended in {seconds} s: {Counter(record.state for record in result)} of {count}, {stack.queue_depths()}"
    )


@pytest.mark.deep
def test_a_burst_of_copies_pays_once_for_each_picture(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    burst = [sys.executable, str(ROOT / "benchmarks" / "pipeline.py"), "--uploads", "24", "--distinct", "6"]
    done = subprocess.run(
        [*burst, "--timeout", "200", "--json", str(figures)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(figures.read_text())
    assert result["states"] == {"captioned": 24}
    assert result["sources"] == {"model": 6, "cache": 18}
    assert result["paid_calls"] == 6
    assert result["dead_letters"] == 0


@pytest.mark.timeout(400)
@pytest.mark.deep
def test_killed_workers_and_a_restarted_pump_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(3)
    photos = [Image.open(path).convert("RGB") for path in sorted(MEDIA.glob("*.jpg"))]
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=tmp_path,
        parameters={"SweepAfterSeconds": "30", "SweepSchedule": "rate(1 minute)"},
        workers=WorkerOptions(warm=0, visibility_s=29),
        model=ModelOptions(latency_scale=1.0),
    ) as stack:
        assert stack.workers() == [], "a sandbox was started before there was work"
        bucket, s3 = stack.outputs["MediaBucketName"], stack.client("s3")
        files = {}
        for index in range(24):
            photo = photos[index % len(photos)]
            left, top = rng.randrange(photo.width // 3), rng.randrange(photo.height // 3)
            cut = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
            path = tmp_path / f"{index:02}.jpg"
            (cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index >= 12 else cut).save(path, quality=90)
            files[f"{index:02}.jpg"] = path.read_bytes()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda file: s3.put_object(Bucket=bucket, Key=file[0], Body=file[1]), files.items()))

        killed = []
        for _ in range(6):
            time.sleep(rng.uniform(0.5, 1.5))
            workers = stack.workers()
            if workers:
                new = {child.pid for child in psutil.Process().children()}
                assert all(pid in new or not psutil.pid_exists(pid) for _, pid in workers), "a sandbox was forked"
                function, pid = rng.choice(workers)
                stack.kill_worker(pid)
                killed.append(function)
        stack.restart_pump()
        ended = until_all_ended(stack, len(files), 300)
        stack.wait_idle(60)

        assert Counter(record.state for record in ended) == {"captioned": len(files)}, killed
        decided = (tmp_path / "logs" / "DedupeFunction.log").read_text()
        assert all(f'"claim":"{record.claim.id}"' in decided for record in ended if record.claim), (
            "no decision is logged"
        )
        paid = [request for request in asked(stack) if request["outcome"] == "ok"]
        for record in ended:
            if record.source != "model":
                continue
            assert record.claim is not None
            assert record.completed_at is not None
            stored_at = datetime.fromisoformat(record.completed_at)
            again = [
                request
                for request in paid
                if request["client_request_id"] == record.claim.id
                and datetime.fromisoformat(request["at"]) > stored_at + timedelta(milliseconds=1)
            ]
            assert not again, f"{record.key} was paid for again after its result was stored"
        assert not any(sum(depth.values()) for name, depth in stack.queue_depths().items() if "DeadLetter" in name)
