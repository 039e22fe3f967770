"""The files in events/ are what AWS sends, and the product reads them as what they are."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import SQSEvent
from aws_lambda_powertools.utilities.parser.models import (
    EventBridgeModel,
    S3EventNotificationEventBridgeModel,
    SqsModel,
)
from moto.events.models import EventPattern

from captions.queues import Job, Revisit
from captions.uploads.version import Deletion, Ignored, UnreadableEventError, Upload, from_event, pad_sequencer
from captions_cli.local.cloudformation.translate import load_template

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"
DEMO_MEDIA = ROOT / "cli" / "captions_cli" / "demo_media"
BUCKET = "amzn-s3-demo-bucket"

S3_EVENTS = sorted(path.name for path in (EVENTS / "s3").glob("*ed-*.json"))
GARBAGE = sorted(path.name for path in (EVENTS / "garbage").iterdir())
BATCHES = sorted(f"{folder}/{path.name}" for folder in ("dedupe", "caption", "transcribe")
                 for path in (EVENTS / folder).glob("*.json"))  # fmt: skip


def module(path: str) -> ModuleType:
    """Load a file of the project that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def read(path: str) -> Any:
    return json.loads((EVENTS / path).read_text(encoding="utf-8"))


def test_the_batches_are_made_of_the_messages() -> None:
    assert module("events/batches.py").stale() == []


@pytest.mark.parametrize("name", S3_EVENTS)
def test_s3_event_has_the_shape_that_eventbridge_documents(name: str) -> None:
    S3EventNotificationEventBridgeModel.model_validate(read(f"s3/{name}"))


@pytest.mark.parametrize("name", S3_EVENTS)
def test_the_rule_takes_the_s3_event(name: str) -> None:
    rule = load_template(ROOT / "template.yaml")["Resources"]["UploadsRule"]["Properties"]
    pattern = {**rule["EventPattern"], "detail": {"bucket": {"name": [BUCKET]}}}
    assert EventPattern.load(json.dumps(pattern)).matches_event(read(f"s3/{name}"))
    assert not EventPattern.load(json.dumps(pattern)).matches_event(read("garbage/other-source.json"))


@pytest.mark.parametrize("name", S3_EVENTS)
def test_an_s3_event_is_read_as_the_change_its_name_says(name: str) -> None:
    event = read(f"s3/{name}")
    happening = from_event(event)
    assert isinstance(happening, Upload if name.startswith("created-") else Deletion)
    stated = event["detail"]["object"]
    assert (happening.bucket, happening.key) == (BUCKET, stated["key"])
    assert happening.version_id == stated.get("version-id")
    assert happening.sequencer == stated["sequencer"].ljust(64, "0")
    assert (happening.version_id is None) == ("unversioned" in name)


def test_the_key_of_an_event_is_raw() -> None:
    happening = from_event(read("s3/created-odd-key.json"))
    assert isinstance(happening, Upload)
    assert happening.key == "Größe ñ/50% off + more (1)&copy=#1;日本語 🎨?.jpg"


@pytest.mark.parametrize(
    ("name", "permanent"),
    [
        ("deleted-marker.json", False),
        ("deleted-lifecycle.json", False),
        ("deleted-permanent.json", True),
        ("deleted-unversioned.json", True),
    ],
)
def test_a_deletion_says_whether_the_bytes_are_gone(name: str, permanent: bool) -> None:
    happening = from_event(read(f"s3/{name}"))
    assert isinstance(happening, Deletion)
    assert happening.permanent is permanent


def test_the_out_of_order_batch_is_out_of_order() -> None:
    bodies = [json.loads(record["body"]) for record in read("dedupe/batch-out-of-order.json")["Records"]]
    sequencers = [pad_sequencer(body["detail"]["object"]["sequencer"]) for body in bodies]
    assert sequencers == sorted(sequencers, reverse=True)
    assert len({body["detail"]["object"]["key"] for body in bodies}) == 1


def test_the_test_event_asks_for_nothing() -> None:
    assert from_event(read("s3/test-event.json")) == Ignored(reason="s3:TestEvent")


@pytest.mark.parametrize("name", S3_EVENTS)
def test_the_uploads_are_of_media_that_is_there(name: str) -> None:
    """So that a file can be uploaded and the event then be used as it is."""
    happening = from_event(read(f"s3/{name}"))
    if not isinstance(happening, Upload) or name in ("created-folder-marker.json", "created-multipart.json"):
        return  # an empty object; an entity tag that is no MD5
    assert (happening.etag, happening.size) in {
        (hashlib.md5(media.read_bytes()).hexdigest(), media.stat().st_size) for media in DEMO_MEDIA.iterdir()
    }


@pytest.mark.parametrize("name", sorted(path.name for path in (EVENTS / "jobs").iterdir()))
def test_a_job_is_written_as_the_product_writes_it(name: str) -> None:
    job = read(f"jobs/{name}")
    kind = Revisit if name.startswith("revisit-") else Job
    assert json.loads(kind.model_validate(job).model_dump_json(exclude_none=True)) == job


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused(name: str) -> None:
    text = (EVENTS / "garbage" / name).read_text(encoding="utf-8")
    if name.startswith("job-"):
        with pytest.raises(ValueError, match="claim"):
            Job.model_validate_json(text)
        return
    with pytest.raises(ValueError):  # noqa: PT011 - broken JSON and UnreadableEventError are both refusals
        module("functions/dedupe/app.py").parse(text)


def test_a_wrong_event_is_told_from_broken_json() -> None:
    with pytest.raises(UnreadableEventError):
        from_event(read("garbage/other-source.json"))


@pytest.mark.parametrize("path", BATCHES)
def test_a_batch_is_what_lambda_hands_over(path: str) -> None:
    event = read(path)
    SqsModel.model_validate(event)
    records = list(SQSEvent(event).records)
    assert len({record.message_id for record in records}) == len(records)
    assert all(hashlib.md5(record.body.encode()).hexdigest() == record.md5_of_body for record in records)


def test_the_schedule_is_what_eventbridge_sends() -> None:
    event = EventBridgeModel.model_validate(read("sweep/schedule.json"))
    assert (event.source, event.detail_type) == ("aws.events", "Scheduled Event")
