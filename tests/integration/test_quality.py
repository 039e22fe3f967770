"""What people edit too often is counted with each verdict, flagged once, told once, and lowered again."""

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import boto3
import pytest

from captions import telemetry
from captions.completion_events import NotDeliveredError, Notifier
from captions.config.function_environments import SweepSettings
from captions.pipeline.quality_watch import Mail, QualityWatch
from captions.pipeline.sweep import Sweeper
from captions.quality import cells
from captions.quality.cells import KEPT_DAYS, WINDOW_DAYS, Cell, Quality, VerdictCounts
from captions.records.listing import Filters, Listing, stages
from captions.records.record import Provenance, Record, Result
from captions.records.reviews import Reviews
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.pipeline import BUCKET, REGION, Aws, aws_for_the_pipeline, dedupe_on

NOW = 1_800_000_000.0
DAY = 86_400.0
PHOTOS = Cell("photo", "GPT-4o", "caption", "caption-1")
CHARTS = Cell("chart", "GLM-4.6V", "caption", "caption-1", "short", "variant")


class Desk:
    """Somebody who judges captions of one cell after the other."""

    def __init__(self, aws: Aws) -> None:
        self.aws, self.number, self.items = aws, 0, dict[tuple[Cell, float], dict[str, Any]]()
        self.records = dedupe_on(aws).records
        self.reviews = Reviews(aws.dynamodb, "captions", "control")
        self.watch = QualityWatch(aws.dynamodb, "control", Notifier(aws.events, "captions"))

    def captioned(self, cell: Cell = PHOTOS, now: float = NOW) -> Record:
        """An upload of this cell that ended; the first of its kind by the pipeline's own writes, others like it."""
        self.number += 1
        key, like = f"{self.number}.jpg", self.items.get((cell, now))
        if like is not None:
            item = {**like, "asset": {"S": f"{BUCKET}/{key}"}, "key": {"S": key}}
            self.aws.dynamodb.put_item(TableName="captions", Item=item)
            return Record.from_item(item)
        version = ObjectVersion(bucket=BUCKET, key=key, sequencer=pad_sequencer("1"))
        self.records.accept(version, now=now, due=now)
        ended = self.records.finish(
            version,
            "captioned",
            now=now,
            source="model",
            result=Result(text="a cat", language="en", task=cell.task),
            provenance=Provenance(
                model=cell.model,
                category=cell.category,
                prompt_version=cell.prompt_version,
                experiment=cell.experiment,
                arm=cell.arm,
                score=0.5,
            ),
            kind="image",
        )
        assert ended is not None
        stored = self.aws.dynamodb.get_item(TableName="captions", Key={"asset": {"S": ended.asset}})["Item"]
        self.items[cell, now] = stored
        return ended

    def judge(self, edited: int, accepted: int, cell: Cell = PHOTOS, now: float = NOW) -> list[Record]:
        given = [self.reviews.edit(self.captioned(cell, now), "a dog", now=now + 1) for _ in range(edited)]
        return given + [self.reviews.accept(self.captioned(cell, now), now=now + 1) for _ in range(accepted)]

    def counts_by_cell(self, days: int = WINDOW_DAYS, now: float = NOW) -> dict[Cell, VerdictCounts]:
        return cells.counts_by_cell(self.aws.dynamodb, "control", days=days, now=now)

    def report(self, days: int = WINDOW_DAYS, now: float = NOW) -> list[Quality]:
        return cells.report(self.aws.dynamodb, "control", days=days, now=now)

    def flagged(self) -> list[dict[str, Any]]:
        """What the bus carried of flags since last asked."""
        events = self.aws.receive(self.aws.heard_queue)
        return [event["detail"] for event in events if event["detail-type"] == "Quality.Flagged"]


@pytest.fixture
def desk() -> Iterator[Desk]:
    with aws_for_the_pipeline() as aws:
        yield Desk(aws)


def test_a_verdict_counts_where_its_answer_came_from(desk: Desk) -> None:
    desk.judge(2, 1)
    desk.judge(0, 1, CHARTS)
    assert desk.counts_by_cell() == {PHOTOS: VerdictCounts(2, 1), CHARTS: VerdictCounts(0, 1)}
    assert {name: counts.judged for name, counts in cells.grouped(desk.report(), "experiment").items()} == {
        ("-", "-"): 3, ("short", "variant"): 1,
    }  # fmt: skip


def test_a_change_of_mind_and_an_undo_count_on_the_day_of_the_verdict(desk: Desk) -> None:
    accepted = desk.reviews.accept(desk.captioned(), now=NOW)
    edited = desk.reviews.edit(accepted, "a dog", now=NOW + 3 * DAY)
    later = NOW + 3 * DAY
    assert desk.counts_by_cell(now=later) == {PHOTOS: VerdictCounts(1, 0)}
    assert desk.counts_by_cell(days=3, now=later) == {PHOTOS: VerdictCounts(1, 0)}
    again = desk.reviews.undo(edited, now=NOW + 5 * DAY)
    assert desk.counts_by_cell(now=NOW + 5 * DAY) == {PHOTOS: VerdictCounts(0, 1)}
    assert desk.counts_by_cell(days=5, now=NOW + 5 * DAY) == {}
    desk.reviews.undo(again, now=NOW + 6 * DAY)
    assert desk.counts_by_cell(now=NOW + 6 * DAY) == {}


def test_a_verdict_that_is_not_stored_counts_nowhere(desk: Desk) -> None:
    seen = desk.captioned()
    desk.reviews.accept(seen, now=NOW + 1)
    with pytest.raises(Exception, match="meanwhile"):
        desk.reviews.edit(seen, "a dog", now=NOW + 2)
    assert desk.counts_by_cell() == {PHOTOS: VerdictCounts(0, 1)}


def test_there_is_one_item_for_each_day_and_category_and_it_expires(desk: Desk) -> None:
    for day in range(3):
        for model in ("A", "B"):
            for prompt in ("caption-1", "caption-2"):
                for category in ("photo", "chart"):
                    desk.judge(1, 1, Cell(category, model, "caption", prompt), NOW + day * DAY)
    items = desk.aws.dynamodb.query(
        TableName="control",
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "verdicts"}},
    )["Items"]
    assert len(items) == 3 * 2
    for item in items:
        assert KEPT_DAYS - 1 < (int(item["expires_at"]["N"]) - NOW) / DAY < KEPT_DAYS + 3
    assert len(desk.counts_by_cell(now=NOW + 2 * DAY)) == 8


@pytest.mark.deep
def test_a_cell_is_flagged_once_and_lowered_at_the_line_and_may_be_flagged_again(desk: Desk) -> None:
    judged = desk.judge(30, 30)
    desk.judge(2, 18, CHARTS)
    assert [desk.watch.look(NOW + minute) for minute in (2, 3, 4)] == [1, 1, 1]
    (flagged,) = desk.flagged()
    assert (flagged["category"], flagged["model"], flagged["prompt_version"]) == ("photo", "GPT-4o", "caption-1")
    assert (flagged["edited"], flagged["judged"], flagged["share_percent"], flagged["low_percent"]) == (30, 60, 50, 38)
    assert [(entry.cell, entry.flagged) for entry in desk.report()] == [(PHOTOS, True), (CHARTS, False)]
    # Still above the line, and no more certain: it stays. At the line it is lowered.
    desk.judge(0, 39)
    assert desk.watch.look(NOW + 5) == 1
    desk.judge(0, 1)
    assert desk.watch.look(NOW + 6) == 0
    assert desk.flagged() == []
    assert not any(entry.flagged for entry in desk.report())
    desk.judge(40, 0)
    assert [desk.watch.look(NOW + 7), desk.watch.look(NOW + 8)] == [1, 1]
    (again,) = desk.flagged()
    assert again["id"] != flagged["id"]
    # What was said in error does not hold a flag up.
    for record in judged[:30]:
        desk.reviews.undo(record, now=NOW + 9)
    assert desk.watch.look(NOW + 10) == 1
    for record in desk.reviews._records.read(f"{BUCKET}/{number}.jpg" for number in range(121, 161)):
        if record.human is not None and record.human.action == "edited":
            desk.reviews.undo(record, now=NOW + 11)
    assert desk.watch.look(NOW + 12) == 0


def test_a_mail_names_what_is_flagged_and_where_to_look(desk: Desk) -> None:
    sns, sqs = boto3.client("sns", region_name=REGION), desk.aws.sqs
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="inbox")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    desk.watch.mail = Mail(sns, topic, "https://books.example")
    cell = Cell("chart", "模型-" + "x" * 200, "caption", "caption-1", "short", "variant")
    desk.judge(20, 5, cell)
    desk.watch.look(NOW)
    desk.watch.look(NOW + 300)
    (mail,) = desk.aws.receive(queue)
    assert mail["Subject"].startswith("Captions of chart by ??-x")
    for words in (cell.model, "chart", "caption-1", "short, variant", cell.id, "20 of 25", "quality-flagged.md"):
        assert words in mail["Message"]


def test_a_flag_goes_with_the_verdicts_it_stood_on(desk: Desk) -> None:
    desk.judge(20, 5)
    assert desk.watch.look(NOW) == 1
    assert desk.watch.look(NOW + (WINDOW_DAYS - 1) * DAY) == 1
    assert desk.watch.look(NOW + WINDOW_DAYS * DAY) == 0
    assert len(desk.flagged()) == 1


class Deaf(Notifier):
    """A bus that takes nothing."""

    def flagged(self, cell: Quality) -> None:
        raise NotDeliveredError("throttled")


def test_a_flag_that_nobody_was_told_of_is_told_by_the_next_look(desk: Desk) -> None:
    desk.judge(20, 5)
    deaf = QualityWatch(desk.aws.dynamodb, "control", Deaf(desk.aws.events, "captions"))
    with pytest.raises(NotDeliveredError):
        deaf.look(NOW)
    assert desk.flagged() == []
    desk.watch.look(NOW + 300)
    desk.watch.look(NOW + 600)
    (flagged,) = desk.flagged()
    assert flagged["flagged_since"] == desk.report()[0].flagged_since


def test_who_dies_before_the_flag_is_marked_is_repeated_with_the_same_id(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.judge(20, 5)
    with monkeypatch.context() as dying:
        dying.setattr(QualityWatch, "_mark_published", lambda self, flag: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            desk.watch.look(NOW)
    desk.watch.look(NOW + 300)
    first, second = desk.flagged()
    assert first["id"] == second["id"]


def test_of_two_looks_at_once_one_tells(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.judge(20, 5)
    raised = QualityWatch._raised

    def beaten(self: QualityWatch, cell: Cell, now: float) -> Any:
        with monkeypatch.context() as other:
            other.setattr(QualityWatch, "_raised", raised)
            desk.watch.look(now)
        return raised(self, cell, now)

    with monkeypatch.context() as racing:
        racing.setattr(QualityWatch, "_raised", beaten)
        desk.watch.look(NOW)
    assert len(desk.flagged()) == 1


def test_the_pictures_behind_a_cell_are_found_newest_first_until_their_verdict_is_taken_back(desk: Desk) -> None:
    first = desk.judge(1, 1)[0]
    second, other = desk.judge(1, 0, now=NOW + 60)[0], desk.judge(1, 0, CHARTS)[0]

    def behind(cell: Cell, verdict: str = "edited") -> list[str]:
        filters = Filters(cell=cell.id)
        order = stages("newest", filters, today=date(2027, 1, 15), first=None, days=1)
        read = Listing(desk.aws.dynamodb, "captions").walk(order, filters)
        return [record.asset for record in read if record.human and record.human.action == verdict]

    assert behind(PHOTOS) == [second.asset, first.asset]
    assert behind(CHARTS) == [other.asset]
    assert len(behind(PHOTOS, "accepted")) == 1
    desk.reviews.undo(second, now=NOW + 120)
    assert behind(PHOTOS) == [first.asset]


def test_the_sweep_counts_flags_and_goes_on_where_it_cannot(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gauges: dict[str, float] = {}
    monkeypatch.setattr(telemetry, "gauge", lambda name, value, *unit: gauges.update({name: value}))
    settings = SweepSettings(captions_table="c", fingerprints_table="f", uploads_queue_url="q", event_bus_name="e")
    desk.judge(20, 5)
    sweeper = Sweeper(settings, desk.records, None, None, now=lambda: NOW, quality=desk.watch.look)  # type: ignore[arg-type]
    sweeper.run(deadline=time.monotonic() + 60)
    assert gauges["FlaggedCells"] == 1
    sweeper.quality = QualityWatch(desk.aws.dynamodb, "no-such-table", desk.watch.notifier).look
    with pytest.raises(ExceptionGroup):
        sweeper.run(deadline=time.monotonic() + 60)
    assert gauges["PendingUploads"] == 0
