"""What the sweep and the records count: each upload once, as in time or late, and what people made of captions."""

from decimal import Decimal

import pytest

from captions import telemetry
from captions.config.function_environments import SweepSettings
from captions.control_table import ControlState, read_control
from captions.gateway import EVERYTHING, ControlTable, Reservation, SharedCircuit
from captions.pipeline.sweep import Sweeper
from captions.queues import Queues
from captions.records.record import Reason
from captions.records.slo import Objective
from support.pipeline import Aws, Dedupe

SECONDS = 900.0
REASON = Reason(code="gave_up", message="no model answered")


@pytest.fixture
def counted(dedupe: Dedupe, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was counted so far; from now on the records are watched."""
    dedupe.records._watch = Objective(SECONDS, dedupe.clock)
    result: list[str] = []
    monkeypatch.setattr(telemetry, "count", lambda name, value=1: result.append(name) if "Terminal" in name else None)
    return result


def sweep(dedupe: Dedupe) -> None:
    settings = SweepSettings(
        captions_table="captions",
        fingerprints_table="fingerprints",
        uploads_queue_url=dedupe.aws.uploads_queue,
        event_bus_name="captions",
    )
    Sweeper(settings, dedupe.records, Queues(dedupe.aws.sqs), dedupe.aws.sqs, now=dedupe.clock).run(deadline=1e12)


def end(dedupe: Dedupe, key: str) -> None:
    assert dedupe.records.finish(dedupe.record(key).upload, "failed", now=dedupe.clock(), reason=REASON) is not None


def test_an_upload_that_ends_soon_is_in_time(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.clock.at += SECONDS - 1
    end(dedupe, "a.jpg")
    assert counted == ["TerminalInTime"]


def test_an_upload_that_is_rejected_at_once_is_in_time(dedupe: Dedupe, counted: list[str]) -> None:
    dedupe.upload("a.jpg", b"")
    assert counted == ["TerminalInTime"]


def test_an_upload_that_ends_after_its_time_is_late(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.clock.at += SECONDS + 1
    end(dedupe, "a.jpg")
    assert counted == ["TerminalLate"]


def test_an_upload_that_does_not_end_is_late_once(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    for _ in range(6):
        dedupe.clock.at += SECONDS
        sweep(dedupe)
    assert counted == ["TerminalLate"]
    end(dedupe, "a.jpg")
    assert counted == ["TerminalLate"]


def test_a_job_that_is_put_back_while_no_model_answers_is_late_once(
    dedupe: Dedupe, photo: bytes, counted: list[str]
) -> None:
    dedupe.upload("a.jpg", photo)
    for _ in range(5):
        dedupe.clock.at += 400
        upload, until = dedupe.record("a.jpg").upload, dedupe.clock() + 60
        dedupe.records.begin(upload, now=dedupe.clock(), lease_until=until)
        dedupe.records.release(upload, until, now=dedupe.clock(), due=dedupe.clock() + 1000, reason=REASON)
    assert counted == ["TerminalLate"]


def test_a_newer_version_counts_for_itself(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.clock.at += 2 * SECONDS
    sweep(dedupe)
    dedupe.upload("a.jpg", photo + b" ")
    end(dedupe, "a.jpg")
    assert counted == ["TerminalLate", "TerminalInTime"]


def test_an_upload_that_is_tried_anew_counts_anew(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    end(dedupe, "a.jpg")
    record = dedupe.record("a.jpg")
    assert dedupe.records.reopen(record, now=dedupe.clock(), due=dedupe.clock() + 60) is not None
    end(dedupe, "a.jpg")
    assert len(counted) == 2


def test_a_deletion_is_neither(dedupe: Dedupe, photo: bytes, counted: list[str]) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.deliver(dedupe.aws.delete("a.jpg"))
    assert counted == []


def test_repeated_deliveries_count_once(dedupe: Dedupe, counted: list[str]) -> None:
    event = dedupe.aws.put("a.jpg", b"")
    for _ in range(3):
        dedupe.deliver(event)
    assert counted == ["TerminalInTime"]


def test_the_control_tables_verdicts_circuits_and_spending_are_read_as_their_owners_write_them(aws: Aws) -> None:
    for model, task, edited, accepted in (("a", "caption", 2, 5), ("b", "ocr", 1, 0)):
        aws.dynamodb.put_item(
            TableName="control",
            Item={
                "pk": {"S": f"quality#{model}#{task}"},
                "sk": {"S": "counts"},
                "edited": {"N": str(edited)},
                "edited_3": {"N": "9"},
                **({"accepted": {"N": str(accepted)}} if accepted else {}),
            },
        )
    store = ControlTable(aws.dynamodb, "control")
    now = 1_800_000_000.0
    assert read_control(aws.dynamodb, "control", now) == ControlState(edited=3, accepted=5)

    for circuit, until in (("endpoint https://a/v1", now + 60), ("model b", now - 1)):
        store.open(SharedCircuit(circuit, until, 1, "failing"), now - 100)
    for day, dollars in (("2027-01-15", "1.25"), ("2027-01-14", "9")):
        reservation = Reservation(day, (EVERYTHING,), Decimal(dollars))
        assert store.reserve(reservation, {EVERYTHING: Decimal(100)}) is None
    state = ControlState(edited=3, accepted=5, open_circuits=1, spent=Decimal("1.25"))
    assert read_control(aws.dynamodb, "control", now) == state
