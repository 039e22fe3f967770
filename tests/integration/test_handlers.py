"""The handlers: partial batch responses, and what is not started for want of time."""

import importlib.util
import json
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from captions import composition, telemetry
from captions.pipeline.looking import SIDE_BY_SIDE
from support.pipeline import Dedupe
from support.template import current, properties
from support.worker import Workshop

FUNCTIONS = Path(__file__).parents[2] / "functions"


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is sent spans, which the workers' settings decide: here a worker is given, and no settings."""
    monkeypatch.setattr(composition, "model_spans", lambda: None)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_app", FUNCTIONS / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def context(milliseconds: int) -> Any:
    return SimpleNamespace(
        get_remaining_time_in_millis=lambda: milliseconds,
        function_name="f",
        memory_limit_in_mb=128,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:f",
        aws_request_id="1",
    )


def batch(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": str(index),
                "receiptHandle": "r",
                "body": body,
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:uploads",
                "awsRegion": "us-east-1",
            }
            for index, body in enumerate(bodies)
        ]
    }


def failures(answer: dict[str, Any]) -> list[str]:
    return sorted(item["itemIdentifier"] for item in answer["batchItemFailures"])


def test_only_the_messages_that_failed_come_back(dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "intake", lambda: dedupe.intake)
    good = json.dumps(dedupe.aws.put("a.jpg", photo))
    answer = load("dedupe").handler(batch("garbage", good, '{"type": "revisit"}', "[]"), context(60_000))
    assert failures(answer) == ["0", "2", "3"]
    assert dedupe.record("a.jpg").state == "queued"


def test_a_message_of_a_later_version_comes_back_and_changes_nothing_but_a_field_of_one_is_passed_over(
    dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "intake", lambda: dedupe.intake)
    dedupe.upload("a.jpg", photo)
    before = dedupe.record("a.jpg")
    revisit = {"type": "revisit", "upload": before.upload.model_dump(), "reason": "sweep"}
    unheard_of, added = {**revisit, "reason": "of_a_later_version"}, {**revisit, "field_of_a_later_version": 1}
    app = load("dedupe")
    assert failures(app.handler(batch(json.dumps(unheard_of)), context(60_000))) == ["0"]
    assert dedupe.record("a.jpg") == before
    assert len(dedupe.jobs()) == 1
    assert failures(app.handler(batch(json.dumps(added)), context(60_000))) == []
    assert len(dedupe.jobs()) == 1


def test_an_invocation_writes_its_metrics_also_of_what_failed(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(composition, "worker", lambda: shop.worker)
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    telemetry.flush()
    app = load("caption")
    capsys.readouterr()
    app.handler(batch("garbage", job.model_dump_json()), context(60_000))
    blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [blob["RecordFailed"] for blob in blobs if "RecordFailed" in blob] == [[1.0]]
    assert [(blob["task"], blob["outcome"]) for blob in blobs if "ModelCalls" in blob] == [("caption", "ok")]
    assert "a.jpg" not in json.dumps(blobs)


def test_an_upload_is_not_started_without_the_time_for_it(
    dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "intake", lambda: dedupe.intake)
    answer = load("dedupe").handler(batch(json.dumps(dedupe.aws.put("a.jpg", photo))), context(5_000))
    assert failures(answer) == ["0"]
    assert dedupe.records.get("media/a.jpg") is None


@pytest.mark.parametrize("name", ["caption", "transcribe"])
def test_jobs_that_cannot_be_started_or_read_come_back(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(composition, "worker", lambda: shop.worker)
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    app = load(name)
    assert failures(app.handler(batch("garbage", job.model_dump_json()), context(6_000))) == ["0", "1"]
    assert shop.paid() == []
    assert failures(app.handler(batch("garbage", job.model_dump_json()), context(60_000))) == ["0"]
    assert shop.dedupe.record("a.jpg").state == "captioned"


def test_all_messages_of_a_batch_are_handled_side_by_side(dedupe: Dedupe, monkeypatch: pytest.MonkeyPatch) -> None:
    events = properties(current().raw, "DedupeFunction")["Events"]
    assert events["Uploads"]["Properties"]["BatchSize"] == SIDE_BY_SIDE
    together = threading.Barrier(SIDE_BY_SIDE, timeout=30)

    def wait_for_the_others(message: Any, *, until: float) -> str:
        together.wait()
        return "ignored"

    monkeypatch.setattr(dedupe.intake, "handle", wait_for_the_others)
    monkeypatch.setattr(composition, "intake", lambda: dedupe.intake)
    bodies = [json.dumps(dedupe.aws.event("Object Created", f"{n}.jpg", "1", size=1)) for n in range(SIDE_BY_SIDE)]
    answer = load("dedupe").handler(batch(*bodies), context(60_000))
    assert answer == {"batchItemFailures": []}
