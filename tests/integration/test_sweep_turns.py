"""A sweep that cannot look at all that is due still comes to every shard."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from captions import telemetry
from captions.config.function_environments import SweepSettings
from captions.pipeline.sweep import Sweeper
from captions.queues import Job, Revisit
from captions.records.record import SHARDS, Record, shard_of
from captions.records.table import Records
from captions.uploads.version import Upload, pad_sequencer

LEASE_SECONDS = 450


class Outbox:
    """A queue that keeps what it is sent, and refuses what it is asked to refuse."""

    def __init__(self, refuses: Callable[[str], bool] = lambda asset: False) -> None:
        self.assets: list[str] = []
        self.refused: list[str] = []
        self._refuses = refuses

    def send(self, queue_url: str, message: Job | Revisit, *, delay: float = 0) -> None:
        if self._refuses(message.upload.asset):
            self.refused.append(message.upload.asset)
            raise OSError("the queue refuses it")
        self.assets.append(message.upload.asset)


class OneShardFails(Records):
    """A table one of whose shards cannot be read, as when its partition is throttled for longer than is retried."""

    def due(self, shard: int, now: float) -> Iterator[Record]:
        if shard == 3:
            raise OSError("throttled")
        return super().due(shard, now)


def due_uploads(records: Records, count: int, now: float) -> list[Upload]:
    uploads = [
        Upload(bucket="media", key=f"{n}.png", version_id="1", sequencer=pad_sequencer("5"), size=9)
        for n in range(count)
    ]
    for upload in uploads:
        records.accept(upload, now=now - 1_000, due=now - 10)
    return uploads


def sweep_of(records: Records, outbox: Any, now: Callable[[], float]) -> Sweeper:
    settings = SweepSettings(
        captions_table="captions", fingerprints_table="f", uploads_queue_url="q", event_bus_name="e",
        queue_lease_seconds=LEASE_SECONDS,
    )  # fmt: skip
    return Sweeper(settings, records, outbox, None, now=now)


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], float]:
    """Lets a sweep look at so many uploads before its deadline, which this returns."""

    def only(count: int) -> float:
        ticks = itertools.chain([0.0], iter(float(n) for n in range(10_000)))
        monkeypatch.setattr("time.monotonic", lambda: next(ticks))
        return float(count)

    return only


@pytest.mark.deep
@pytest.mark.parametrize("capacity", [2, 9])
def test_every_shard_is_looked_at_in_the_end(dedupe: Any, managed: Callable[[int], float], capacity: int) -> None:
    shards = {shard_of(upload.asset) for upload in due_uploads(dedupe.records, 60, dedupe.clock())}
    assert shards == set(range(SHARDS))
    seen: Counter[int] = Counter()
    for _ in range(300 // capacity):
        outbox = Outbox()
        sweep_of(dedupe.records, outbox, dedupe.clock).run(deadline=managed(capacity))
        seen.update(map(shard_of, outbox.assets))
        if set(seen) == shards:
            return
        dedupe.clock.at += LEASE_SECONDS * 3
    pytest.fail(f"only {set(seen)} of {shards} were looked at")


def test_a_sweep_with_time_for_eight_uploads_looks_at_one_of_each_shard(
    dedupe: Any, managed: Callable[[int], float]
) -> None:
    now = dedupe.clock()
    due_uploads(dedupe.records, 60, now)
    outbox = Outbox()
    sweep_of(dedupe.records, outbox, dedupe.clock).run(deadline=managed(SHARDS))
    assert sorted(map(shard_of, outbox.assets)) == list(range(SHARDS))


def test_a_shard_that_cannot_be_read_keeps_no_other_from_its_turn_and_is_raised_at_the_end(dedupe: Any) -> None:
    now = dedupe.clock()
    uploads = due_uploads(dedupe.records, 40, now)
    outbox = Outbox()
    sweep = sweep_of(OneShardFails(dedupe.aws.dynamodb, "captions"), outbox, lambda: now)
    with pytest.raises(ExceptionGroup, match="could not be done"):
        sweep.run(deadline=float("inf"))
    assert set(outbox.assets) == {upload.asset for upload in uploads if shard_of(upload.asset) != 3}


def test_a_record_that_nobody_can_read_keeps_none_behind_it_from_its_turn(dedupe: Any) -> None:
    """As one of a later version that was deployed and taken back again."""
    uploads = due_uploads(dedupe.records, 40, dedupe.clock())
    first = {shard_of(upload.asset): upload.asset for upload in reversed(uploads)}
    for asset in first.values():
        dedupe.aws.dynamodb.update_item(
            TableName="captions",
            Key={"asset": {"S": asset}},
            UpdateExpression="SET lane = :lane, activity_at = :long_ago",
            ExpressionAttributeValues={":lane": {"S": "express"}, ":long_ago": {"S": "2020-01-01T00:00:00.000000Z"}},
        )
    outbox = Outbox()
    sweep_of(dedupe.records, outbox, dedupe.clock).run(deadline=float("inf"))
    assert set(outbox.assets) == {upload.asset for upload in uploads} - set(first.values())


def test_an_upload_that_is_named_twice_is_read_once_a_batch(dedupe: Any) -> None:
    (upload,) = due_uploads(dedupe.records, 1, dedupe.clock())
    assert [record.asset for record in dedupe.records.read([upload.asset] * 3)] == [upload.asset] * 3


def test_what_dynamodb_has_no_capacity_for_is_asked_for_again_after_a_rest(
    dedupe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, dynamodb, rests = due_uploads(dedupe.records, 3, dedupe.clock()), dedupe.aws.dynamodb, list[float]()
    read = dynamodb.batch_get_item

    def throttled(RequestItems: Any) -> Any:
        return (
            read(RequestItems=RequestItems) if len(rests) == 4 else {"Responses": {}, "UnprocessedKeys": RequestItems}
        )

    dynamodb.batch_get_item = throttled
    monkeypatch.setattr("time.sleep", rests.append)
    assert len(list(dedupe.records.read([upload.asset for upload in uploads]))) == 3
    assert len(set(rests)) == 4


@pytest.mark.deep
def test_what_the_queue_refuses_makes_room_for_those_behind_it_and_loses_no_try(
    dedupe: Any, managed: Callable[[int], float]
) -> None:
    uploads = [upload for upload in due_uploads(dedupe.records, 60, dedupe.clock()) if shard_of(upload.asset) == 1]
    refused = {upload.asset for upload in uploads[:-1]}
    outbox = Outbox(lambda asset: asset in refused or shard_of(asset) != 1)
    for _ in range(len(uploads) + 1):
        sweep_of(dedupe.records, outbox, dedupe.clock).run(deadline=managed(SHARDS))
        dedupe.clock.at += 1
    assert outbox.assets == [uploads[-1].asset]
    assert {dedupe.records.get(asset).sweeps for asset in refused} == {0}


def test_the_age_of_the_oldest_is_seen_though_its_turn_does_not_come(
    dedupe: Any, managed: Callable[[int], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = dedupe.clock()
    uploads = due_uploads(dedupe.records, 60, now)
    (old, *_) = (upload for upload in uploads if shard_of(upload.asset) == 7)
    dedupe.records.accept(old.model_copy(update={"sequencer": pad_sequencer("6")}), now=now - 90_000, due=now - 80_000)
    gauges: dict[str, float] = {}
    monkeypatch.setattr(telemetry, "gauge", lambda name, value, *unit: gauges.update({name: value}))
    sweep_of(dedupe.records, Outbox(), lambda: now).run(deadline=managed(0))
    assert gauges["OldestDueSeconds"] == 90_000


def test_an_event_that_the_queue_refuses_keeps_no_other_from_being_restored(dedupe: Any) -> None:
    moved: list[str] = []
    left = [{"Body": body, "ReceiptHandle": body} for body in ("a", "too large", "b")]

    class Queue:
        def receive_message(self, **_: Any) -> dict[str, Any]:
            messages, left[:] = left[:], []
            return {"Messages": messages}

        def send_message(self, MessageBody: str, **_: Any) -> None:
            if MessageBody == "too large":
                raise OSError("refused")
            moved.append(MessageBody)

        def delete_message(self, **_: Any) -> None: ...

    sweep = sweep_of(dedupe.records, Outbox(), dedupe.clock)
    sweep.settings = sweep.settings.model_copy(update={"rule_dead_letter_queue_url": "dead"})
    sweep.sqs = Queue()
    assert sweep.run(deadline=float("inf")).restored == 2
    assert moved == ["a", "b"]
