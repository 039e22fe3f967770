"""People's verdicts, taken back: the record, its counts and what the bus hears are as before them."""

from functools import partial
from typing import Any

import pytest

from captions.records.record import Record
from captions.records.reviews import ChangedMeanwhileError, NotReviewableError, Reviews
from support.worker import Workshop

SURE = '{"caption": "A house of stone in the sun.", "tags": ["house"], "safety": "safe", "confidence": 0.9}'


@pytest.fixture
def judge(shop: Workshop) -> Reviews:
    return Reviews(shop.dedupe.aws.dynamodb, "captions", "control")


def counts(shop: Workshop) -> dict[str, int]:
    """Every count of every model and task that is not zero."""
    items = shop.dedupe.aws.dynamodb.scan(TableName="control")["Items"]
    quality = [item for item in items if item["pk"]["S"].startswith("quality#")]
    return {
        f"{item['pk']['S']} {name}": int(value["N"])
        for item in quality
        for name, value in item.items()
        if value.get("N", "0") != "0"
    }


def as_it_was(record: Record) -> dict[str, Any]:
    return record.model_dump(exclude={"updated_at", "undone"})


def test_each_verdict_is_taken_back_with_what_it_was_counted_for(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    record, now = shop.captioned("a.jpg", photo), shop.dedupe.clock()
    with pytest.raises(NotReviewableError):
        judge.undo(record, now=now)
    for verdict in (judge.accept, partial(judge.edit, text="My words")):
        now += 2
        given = verdict(record, now=now)
        assert counts(shop)
        undone = judge.undo(given, now=now + 1)
        assert as_it_was(undone) == as_it_was(record)
        assert counts(shop) == {}
        record = undone


def test_the_verdict_before_holds_again(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    record, now = shop.captioned("a.jpg", photo), shop.dedupe.clock()
    accepted = judge.accept(record, now=now + 1)
    for_accepted = counts(shop)
    edited = judge.edit(accepted, "My words", language="de", now=now + 2)
    for_edited = counts(shop)
    better = judge.edit(edited, "My better words", now=now + 3)
    again = judge.undo(better, now=now + 4)
    assert again.result == edited.result
    assert (again.source, again.suggestion) == ("human", edited.suggestion)
    assert counts(shop) == for_edited
    # Its own `before` went when the better words came: the model's answer is left.
    back = judge.undo(again, now=now + 5)
    assert (back.source, back.result, back.human, back.suggestion) == ("model", record.result, None, None)

    edited = judge.edit(judge.accept(back, now=now + 6), "My words", now=now + 7)
    back = judge.undo(edited, now=now + 8)
    assert as_it_was(back) | {"human": None} == as_it_was(record)
    assert back.human is not None
    assert back.human.action == "accepted"
    assert counts(shop) == for_accepted
    assert as_it_was(judge.undo(back, now=now + 9)) == as_it_was(record)
    assert counts(shop) == {}


def test_a_verdict_before_a_newer_answer_leaves_the_newer_answer(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    record = shop.captioned("a.jpg", photo)
    edited = judge.edit(record, "My words", now=shop.dedupe.clock())
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    shop.endpoint.set_faults([{"fault": "answer", "text": SURE}])
    assert shop.run(job) == "captioned"
    newer = shop.dedupe.record("a.jpg")
    accepted = judge.accept(newer, now=shop.dedupe.clock())
    back = judge.undo(accepted, now=shop.dedupe.clock())
    assert (back.source, back.result) == ("human", edited.result)
    assert back.suggestion is not None
    assert newer.suggestion is not None
    assert (back.suggestion.result, back.suggestion.replaced) == (newer.suggestion.result, False)
    assert [name.split()[1].split("_")[0] for name in counts(shop)] == ["edited", "edited"]
    last = judge.undo(back, now=shop.dedupe.clock())
    assert last.result == newer.suggestion.result
    assert (last.source, last.human, last.suggestion) == ("model", None, None)
    assert counts(shop) == {}


def test_a_consent_to_words_that_are_gone_does_not_come_back(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    record = shop.captioned("a.jpg", photo)
    judge.accept(record, now=shop.dedupe.clock())
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    shop.endpoint.set_faults([{"fault": "answer", "text": SURE}])
    assert shop.run(job) == "captioned"
    of_the_first = counts(shop)
    accepted = judge.accept(shop.dedupe.record("a.jpg"), now=shop.dedupe.clock())
    back = judge.undo(accepted, now=shop.dedupe.clock())
    assert back.human is None
    assert back.result is not None
    assert back.result.text == "A house of stone in the sun."
    assert counts(shop) == of_the_first


@pytest.mark.parametrize("edits", [1, 2])
def test_an_upload_that_no_model_captioned_ends_as_it_did(
    shop: Workshop, judge: Reviews, photo: bytes, edits: int
) -> None:
    shop.endpoint.set_faults([{"fault": "refusal"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "blocked"
    blocked = record = shop.dedupe.record("a.jpg")
    now = shop.dedupe.clock()
    for number in range(edits):
        record = judge.edit(record, f"My words {number}", now=now + number)
    for number in range(edits):
        record = judge.undo(record, now=now + 10 + number)
    assert as_it_was(record) == as_it_was(blocked)
    assert counts(shop) == {}
    # It can be tried again like any other that was blocked.
    shop.endpoint.clear()
    assert shop.dedupe.records.reopen(record, now=now + 20, due=now + 30) is not None


def test_what_another_person_did_meanwhile_is_not_undone(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    record, now = shop.captioned("a.jpg", photo), shop.dedupe.clock()
    accepted = judge.accept(record, now=now + 1)
    judge.edit(accepted, "Words of another", now=now + 2)
    before = counts(shop)
    with pytest.raises(ChangedMeanwhileError):
        judge.undo(accepted, now=now + 3)
    assert counts(shop) == before


def test_words_carried_over_from_an_earlier_version_stay(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    edited = judge.edit(shop.captioned("a.jpg", photo), "My words", now=shop.dedupe.clock())
    assert edited.human is not None
    assert shop.dedupe.upload("a.jpg", photo) == "hit"
    again = shop.dedupe.record("a.jpg")
    assert (again.source, again.human and again.human.text) == ("human", "My words")
    before = counts(shop)
    with pytest.raises(NotReviewableError, match="no model"):
        judge.undo(again, now=shop.dedupe.clock())
    assert counts(shop) == before


class _Conflicting:
    """A DynamoDB client whose first transactions conflict with another one's, or are throttled."""

    def __init__(self, dynamodb: Any, times: int, code: str = "TransactionConflict") -> None:
        self._dynamodb, self._times, self._code = dynamodb, times, code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def transact_write_items(self, **given: Any) -> Any:
        if self._times:
            self._times -= 1
            reasons = [{"Code": "None"}, {"Code": self._code}]
            raise self._dynamodb.exceptions.TransactionCanceledException(
                {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons},
                "TransactWriteItems",
            )
        return self._dynamodb.transact_write_items(**given)


def test_two_peoples_verdicts_on_one_model_at_once_are_both_kept(shop: Workshop, photo: bytes) -> None:
    record, dynamodb = shop.captioned("a.jpg", photo), shop.dedupe.aws.dynamodb
    never = Reviews(_Conflicting(dynamodb, 1_000), "captions", "control")
    with pytest.raises(ChangedMeanwhileError, match="all the time"):
        never.accept(record, now=shop.dedupe.clock())
    at_last = Reviews(_Conflicting(dynamodb, 3), "captions", "control")
    assert (accepted := at_last.accept(record, now=shop.dedupe.clock())).reviewed
    throttled = Reviews(_Conflicting(dynamodb, 3, "ThrottlingError"), "captions", "control")
    assert throttled.undo(accepted, now=shop.dedupe.clock() + 1).human is None


def test_the_language_of_ones_words_is_put_right(shop: Workshop, judge: Reviews, photo: bytes) -> None:
    words = judge.edit(shop.captioned("a.jpg", photo), "Das Dach", now=shop.dedupe.clock())
    german = judge.edit(words, "Das Dach", language="de", now=shop.dedupe.clock() + 1)
    assert (german.result and german.result.language, german.human and german.human.language) == ("de", "de")
    assert judge.edit(german, "Das Dach", now=shop.dedupe.clock() + 2) == german
