"""`sam deploy` itself, in three regions of a local stack: captions everywhere, failover, and an update under way.

The functions run from what SAM CLI has uploaded, with the built layers, on Lambda's version of Python if one is here.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from captions.records.record import Record
from captions_cli.local import LocalStack
from captions_cli.local.cloudformation.artifacts import lambda_python
from captions_cli.local.model_endpoint.running import LocalEndpoint
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.sam import ARCHITECTURE, ROOT, begin_deploy, built_template, finish_deploy

# One worker has both files that build.
pytestmark = [pytest.mark.sam, pytest.mark.timeout(1500)]

CANARY, *OTHERS = REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
STACK = "media-captions"
PHOTO = ROOT / "cli" / "captions_cli" / "demo_media" / "perched-osprey.jpg"
PATIENCE_SECONDS = 300
UPLOAD_PAUSE_SECONDS = 1.0
NEXT_MODEL = "GPT-4o"
"""What the update asks first; before it, the template's default goes first."""
MARK = "the layer of the update is loaded"


class Region:
    """One region's stack, as whoever uploads there sees it."""

    def __init__(self, stack: LocalStack, name: str) -> None:
        self._stack = stack
        self.name = name
        described = stack.client("cloudformation", name).describe_stacks(StackName=STACK)["Stacks"][0]
        self.status = described["StackStatus"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        self.bucket = self.outputs["MediaBucketName"]

    def put(self, key: str, data: bytes) -> None:
        self._stack.client("s3", self.name).put_object(Bucket=self.bucket, Key=key, Body=data)

    def records(self) -> dict[str, Record]:
        """All records by key."""
        dynamodb = self._stack.client("dynamodb", self.name)
        pages = dynamodb.get_paginator("scan").paginate(TableName=self.outputs["CaptionsTableName"])
        result = [Record.from_item(item) for page in pages for item in page["Items"]]
        return {record.key: record for record in result}

    def until_ended(self, keys: set[str]) -> dict[str, Record]:
        """The records of these uploads, once each has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            result = self.records()
            if all(key in result and result[key].terminal for key in keys):
                return {key: result[key] for key in keys}
            time.sleep(0.5)
        result = self.records()
        states = Counter(result[key].state if key in result else "no record" for key in keys)
        pytest.fail(f"{self.name}: not ended in {PATIENCE_SECONDS} s: {states}")

    def dead_letters(self) -> dict[str, int]:
        sqs = self._stack.client("sqs", self.name)
        result = {}
        for name, url in self.outputs.items():
            if name.endswith("DeadLetterQueueUrl"):
                attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
                result[name] = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
        return result

    def log(self, function: str) -> str:
        """What a function has written."""
        path = self._stack.state_dir / "logs" / f"{self.name}.{STACK}.{function}.log"
        return path.read_text(errors="replace") if path.exists() else ""


_pictures = itertools.count()


def picture() -> bytes:
    """A photo that is like no other one: part of it turned round by its hue."""
    number = next(_pictures)
    with Image.open(PHOTO) as photo:
        cut = photo.convert("HSV").crop((40 * (number % 5), 30 * (number // 5 % 5), photo.width, photo.height))
    hue, saturation, value = cut.resize((480, 360)).split()
    turned = Image.merge("HSV", (hue.point(lambda h: (h + 47 * number) % 256), saturation, value))
    answer = BytesIO()
    turned.convert("RGB").save(answer, "JPEG", quality=90)
    return answer.getvalue()


class SteadyUploads:
    """Uploads pictures one after the other until it is left."""

    def __init__(self, region: Region) -> None:
        self.keys: set[str] = set()
        self._region = region
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> SteadyUploads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            key = f"steady/{number}.jpg"
            self._region.put(key, picture())
            self.keys.add(key)
            if self._ending.wait(UPLOAD_PAUSE_SECONDS):
                return


@pytest.fixture(scope="module")
def template() -> Path:
    return built_template()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    with LocalStack(
        None,
        state_dir=tmp_path / "state",
        model=ModelOptions(latency_scale=0.05),
        workers=WorkerOptions(schedules=False),
    ) as running:
        yield running


def updated(template: Path, folder: Path) -> Path:
    """The build with another product layer: it says so when it is imported."""
    build = folder / "aws-sam" / "build"  # as deep as the real one, whose functions lie two folders up
    shutil.copytree(ROOT / "functions", folder / "functions", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(template.parent, build, ignore=shutil.ignore_patterns("__pycache__"))
    package = build / "ProductLayer" / "python" / "captions" / "__init__.py"
    package.write_text(f'{package.read_text(encoding="utf-8")}\nprint("{MARK}", flush=True)\n', encoding="utf-8")
    return build / "template.yaml"


def test_three_regions_are_deployed_fail_over_and_are_updated_while_uploads_keep_coming(
    stack: LocalStack, template: Path, tmp_path: Path
) -> None:
    common = {"Architecture": ARCHITECTURE, "EndpointKey": "any"}
    with LocalEndpoint(latency_scale=0.05) as nearest:
        order = dict.fromkeys(REGIONS, stack.endpoint_url)
        order["eu-west-1"] = f"{nearest.url},{stack.endpoint_url}"
        begun = {
            region: begin_deploy(region, stack.aws_endpoint_url, template, common | {"EndpointUrls": order[region]})
            for region in REGIONS
        }
        text = {region: finish_deploy(deploying) for region, deploying in begun.items()}
        assert all(f"Successfully created/updated stack - {STACK} in {name}" in text for name, text in text.items())
        regions = {name: Region(stack, name) for name in REGIONS}
        assert {region.status for region in regions.values()} == {"CREATE_COMPLETE"}
        assert len({region.bucket for region in regions.values()}) == 3

        # Each region captions its own upload, with its own endpoint.
        for region in regions.values():
            region.put("first.jpg", picture())
        first = {name: region.until_ended({"first.jpg"})["first.jpg"] for name, region in regions.items()}
        assert {record.state for record in first.values()} == {"captioned"}
        used = {name: record.provenance.endpoint for name, record in first.items() if record.provenance}
        assert used == {name: urlsplit(order[name].split(",")[0]).netloc for name in REGIONS}
        assert all(list(region.records()) == ["first.jpg"] for region in regions.values())

    # The nearest endpoint of one region is gone: the next one in the region's order takes its work.
    europe = regions["eu-west-1"]
    europe.put("failover.jpg", picture())
    record = europe.until_ended({"failover.jpg"})["failover.jpg"]
    assert (record.state, record.source) == ("captioned", "model"), record.reason
    assert record.provenance is not None
    assert record.provenance.endpoint == urlsplit(stack.endpoint_url).netloc
    assert record.provenance.attempts[0]["endpoint"] == urlsplit(nearest.url).netloc
    assert record.provenance.attempts[0]["outcome"] != "ok"

    # The update: another parameter, another layer. Its region is uploaded to all the while.
    canary = regions[CANARY]
    before = canary.outputs
    with SteadyUploads(canary) as uploads:
        update = updated(template, tmp_path)
        deploying = begin_deploy(
            CANARY, stack.aws_endpoint_url, update, common | {"EndpointUrls": order[CANARY], "ImageModels": NEXT_MODEL}
        )
        assert "Successfully created/updated stack" in finish_deploy(deploying)
        canary = Region(stack, CANARY)
        assert (canary.status, canary.outputs) == ("UPDATE_COMPLETE", before)
        canary.put("after.jpg", picture())
        after = canary.until_ended({"after.jpg"})["after.jpg"]
    ended = canary.until_ended(uploads.keys)
    assert {record.state for record in ended.values()} == {"captioned"}
    models = {record.provenance.model for record in ended.values() if record.provenance}
    assert models - {NEXT_MODEL}  # the update came while uploads did
    assert after.provenance is not None
    assert after.provenance.model == NEXT_MODEL
    for function in ("DedupeFunction", "CaptionFunction"):
        assert MARK in canary.log(function)
        assert MARK not in europe.log(function)
    for region in regions.values():
        assert set(region.dead_letters().values()) == {0}

    # Nothing has changed since: SAM CLI says so and is content.
    again = begin_deploy(
        CANARY, stack.aws_endpoint_url, update, common | {"EndpointUrls": order[CANARY], "ImageModels": NEXT_MODEL}
    )
    assert "No changes to deploy" in finish_deploy(again)
    if lambda_python() is not None:
        assert runs_from_layers(stack)


def runs_from_layers(stack: LocalStack) -> bool:
    """Whether every worker runs on Lambda's version of Python and has its packages from unpacked layers."""
    import psutil

    for _, pid in stack.workers():
        process = psutil.Process(pid)
        environment: dict[str, Any] = process.environ()
        if "site-packages" in environment["PYTHONPATH"] or "captions-code-" not in environment["PYTHONPATH"]:
            return False
        maps = Path(f"/proc/{pid}/maps")
        if maps.exists() and str(ROOT / ".venv") in maps.read_text():
            return False  # something compiled came from the project's own packages
    return True
