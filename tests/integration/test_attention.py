"""What waits for a person stands in the `attention` index, and nothing else does."""

from collections.abc import Iterator
from typing import Any

import pytest

from captions.records.attention import GROUPS, partitions
from captions.records.record import Provenance, Reason, Record, Result
from captions.records.reviews import Reviews
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.pipeline import BUCKET, Aws, aws_for_the_pipeline, dedupe_on

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with aws_for_the_pipeline() as made:
        yield made


def version(key: str, number: int = 1) -> ObjectVersion:
    return ObjectVersion(bucket=BUCKET, key=key, sequencer=pad_sequencer(f"{number:x}"))


def waiting(aws: Aws, name: str) -> list[str]:
    result: list[dict[str, Any]] = []
    for partition in partitions(name):
        result += aws.dynamodb.query(
            TableName="captions",
            IndexName="attention",
            KeyConditionExpression="attention = :partition",
            ExpressionAttributeValues={":partition": {"S": partition}},
        )["Items"]
    ranked = sorted(result, key=lambda item: item["attention_rank"]["S"])
    return [item["asset"]["S"].partition("/")[2] for item in ranked]


def anywhere(aws: Aws, key: str) -> list[str]:
    names = [*(f"unreviewed#{group}" for group in GROUPS), "failed", "blocked", "rejected"]
    return [name for name in names if key in waiting(aws, name)]


def captioned(aws: Aws, key: str, confidence: float | None = 0.5, category: str | None = "photo") -> Record:
    records = dedupe_on(aws).records
    records.accept(version(key), now=NOW, due=NOW)
    ended = records.finish(
        version(key),
        "captioned",
        now=NOW + 1,
        source="model",
        result=Result(text="a cat", language="en", task="caption", confidence=confidence),
        provenance=Provenance(model="M", category=category, score=0.5),
        kind="image",
    )
    assert ended is not None
    return ended


def test_unreviewed_captions_stand_by_category_the_least_certain_first(aws: Aws) -> None:
    for key, confidence in (("order/sure", 0.93), ("order/unsure", 0.2), ("order/unknown", None)):
        captioned(aws, key, confidence, "chart")
    captioned(aws, "order/other", 0.1, None)
    assert waiting(aws, "unreviewed#chart") == ["order/unknown", "order/unsure", "order/sure"]
    assert "order/other" in waiting(aws, "unreviewed#other")


def test_a_verdict_takes_a_caption_out(aws: Aws) -> None:
    reviews = Reviews(aws.dynamodb, "captions", "control")
    accepted, edited = captioned(aws, "judged/accepted"), captioned(aws, "judged/edited")
    assert anywhere(aws, "judged/accepted") == ["unreviewed#photo"]
    reviews.accept(accepted, now=NOW + 2)
    reviews.edit(edited, "a dog", now=NOW + 2)
    assert anywhere(aws, "judged/accepted") == anywhere(aws, "judged/edited") == []


def test_a_verdict_taken_back_puts_it_in_again_where_none_is_left(aws: Aws) -> None:
    reviews = Reviews(aws.dynamodb, "captions", "control")
    accepted = reviews.accept(captioned(aws, "undone"), now=NOW + 2)
    edited = reviews.edit(accepted, "a dog", now=NOW + 3)
    assert anywhere(aws, "undone") == []
    accepted = reviews.undo(edited, now=NOW + 4)
    assert anywhere(aws, "undone") == []
    reviews.undo(accepted, now=NOW + 5)
    assert anywhere(aws, "undone") == ["unreviewed#photo"]


@pytest.mark.parametrize("state", ["failed", "blocked", "rejected"])
def test_what_ended_without_a_caption_stands_by_its_state_until_it_is_tried_again(aws: Aws, state: Any) -> None:
    records, key = dedupe_on(aws).records, f"ended/{state}"
    records.accept(version(key), now=NOW, due=NOW)
    ended = records.finish(version(key), state, now=NOW, reason=Reason(code="x", message="y"))
    assert anywhere(aws, key) == [state]
    if state != "rejected":
        reviews = Reviews(aws.dynamodb, "captions", "control")
        assert ended is not None
        ended = reviews.undo(reviews.edit(ended, "a dog", now=NOW + 1), now=NOW + 2)
        assert anywhere(aws, key) == [state]
        records.reopen(ended, now=NOW + 1, due=NOW + 2)
        assert anywhere(aws, key) == []
    records.accept(version(key, 2), now=NOW, due=NOW)
    assert anywhere(aws, key) == []


def test_a_deleted_upload_waits_for_nobody(aws: Aws) -> None:
    captioned(aws, "deleted")
    dedupe_on(aws).records.delete(version("deleted", 2), now=NOW + 2)
    assert anywhere(aws, "deleted") == []


def test_a_caption_to_be_made_anew_that_was_not_keeps_its_place(aws: Aws) -> None:
    record = captioned(aws, "again")
    records = dedupe_on(aws).records
    on_its_way = records.recaption(record, "force", now=NOW + 2, due=NOW + 3)
    assert on_its_way is not None
    records.finish(on_its_way.upload, "failed", now=NOW + 4, reason=Reason(code="x", message="y"))
    assert anywhere(aws, "again") == ["unreviewed#photo"]


def test_uploads_from_before_the_indexes_are_given_their_places_once(aws: Aws) -> None:
    records, reviews = dedupe_on(aws).records, Reviews(aws.dynamodb, "captions", "control")
    captioned(aws, "before/waits", 0.3, "chart")
    reviews.edit(captioned(aws, "before/judged", category="chart"), "my words", now=NOW + 2)
    records.accept(version("before/failed"), now=NOW, due=NOW)
    records.finish(version("before/failed"), "failed", now=NOW + 1, reason=Reason(code="x", message="x"))
    records.accept(version("before/copy"), now=NOW, due=NOW)
    records.finish(
        version("before/copy"),
        "captioned",
        now=NOW + 1,
        source="cache",
        result=Result(text="a cat", language="en", task="caption"),
        provenance=Provenance(model="M", copied_from=f"{BUCKET}/before/waits"),
    )
    names = ("waits", "judged", "failed", "copy")

    def items() -> list[Any]:
        keys = [{"asset": {"S": f"{BUCKET}/before/{name}"}} for name in names]
        return [aws.dynamodb.get_item(TableName="captions", Key=key)["Item"] for key in keys]

    written = items()
    for item in written:  # as they stood before there were indexes
        bare = {name: value for name, value in item.items() if name not in ("attention", "attention_rank", "copy_of")}
        aws.dynamodb.put_item(TableName="captions", Item=bare)
    bare_records = list(records.unindexed(f"{BUCKET}/before/"))
    assert sorted(record.key for record in bare_records) == sorted(f"before/{name}" for name in names)
    assert [records.index(record) for record in bare_records] == [True] * 4
    assert items() == written
    assert list(records.unindexed(f"{BUCKET}/before/")) == []
    # One that moved since it was read takes its own place.
    assert not records.index(bare_records[0].model_copy(update={"updated_at": "2020-01-01T00:00:00.000000Z"}))
