"""What breaks off, is refused, or was written by another version: nothing is lost, stuck, or paid twice once stored."""

import json
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest

from captions import telemetry
from captions.aws.dynamodb import to_item
from captions.completion_events import NotDeliveredError, Notifier
from captions.config.function_environments import SweepSettings
from captions.config.policy import load
from captions.gateway import Budgets, ControlTable, Endpoint, Gateway
from captions.gateway.catalogue import load as catalogue
from captions.near_duplicates.exemplar import Outcome
from captions.pipeline import caption
from captions.pipeline.sweep import Sweeper
from captions.queues import Revisit
from captions.records.attempts import calls, kept
from captions.records.record import MAX_RESULT_BYTES, Draft, Provenance, Record, Result, fitted
from captions.records.reviews import Reviews
from captions.records.spending import spending
from captions.records.table import MAX_DRAFT_BYTES, Begun, Records
from support.worker import Workshop

EASY, HARD = "GLM-4.5V", "Qwen/Qwen3-VL-32B-Instruct"
UNSURE = json.dumps({"caption": "Something stands on a street.", "tags": [], "safety": "safe", "confidence": 0.1})
SURE = json.dumps({"caption": "A house of stone in the sun.", "tags": ["house"], "safety": "safe", "confidence": 0.9})


class Killed(BaseException):
    """The sandbox is gone: nothing of ours catches it."""


def says(text: str, model: str = "*") -> dict[str, Any]:
    return {"fault": "answer", "text": text, "model": model}


@pytest.fixture
def doubtful(shop: Workshop) -> Workshop:
    """Pictures go to the easy tier, whose answer is doubtful; the tier above is sure."""
    shop.worker.policies = lambda: load('[routing]\nimage = "easy"\ncategory_from = 1.0')
    shop.endpoint.set_faults([says(UNSURE, EASY), says(SURE, HARD)])
    return shop


def captioned(shop: Workshop, key: str, data: bytes) -> Record:
    shop.dedupe.upload(key, data)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    return shop.dedupe.record(key)


def wish(shop: Workshop, key: str) -> Revisit:
    """That a key is to be captioned again, as `captions recaption --force` says it."""
    shop.dedupe.clock.at += 60
    record = shop.dedupe.record(key)
    return Revisit(upload=record.upload, reason="recaption", mode="force", seen=record.updated_at)


def events_of(shop: Workshop) -> list[tuple[str, dict[str, Any]]]:
    """What the event bus carried since last asked: detail types and details."""
    return [(event["detail-type"], event["detail"]) for event in shop.dedupe.aws.receive(shop.dedupe.aws.heard_queue)]


def models_asked(shop: Workshop) -> list[str]:
    return [request["model"] for request in shop.endpoint.requests()]


# -- the step up -----------------------------------------------------------------------------------------------------


def test_where_the_budget_ends_at_the_step_up_the_first_answer_is_kept(doubtful: Workshop, photo: bytes) -> None:
    store = ControlTable(doubtful.dedupe.aws.dynamodb, "control")

    class SpentAfterOne:
        """The real sums, with a limit that the first call's cost reaches."""

        def reserve(self, reservation: Any, limits: Any) -> str | None:
            return store.reserve(reservation, {scope: Decimal(0) for scope in limits} if doubtful.paid() else limits)

        def settle(self, reservation: Any, spent: Decimal) -> None:
            store.settle(reservation, spent)

    doubtful.worker.gateway = Gateway(
        endpoints=[Endpoint(doubtful.endpoint.url)],
        keys=lambda fresh: "a key",
        catalogue=catalogue(),
        budgets=Budgets({"*": Decimal(5)}, SpentAfterOne()),
    )
    record = captioned(doubtful, "a.jpg", photo)
    assert record.result is not None
    assert record.result.text == "Something stands on a street."
    assert record.provenance is not None
    assert not record.provenance.escalated
    assert [(attempt["role"], attempt["outcome"]) for attempt in record.provenance.attempts] == [("first", "ok")]
    assert models_asked(doubtful) == [EASY]  # and not the tier above, which there was no money for
    assert [what for what, _ in events_of(doubtful)] == ["Caption.Completed"]
    assert doubtful.jobs() == []


def test_a_worker_that_dies_between_the_calls_of_a_step_up_leaves_the_upload_to_the_next_delivery(
    doubtful: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful.dedupe.upload("a.jpg", photo)
    (job,) = doubtful.jobs()
    complete = Gateway.complete

    async def dies(self: Gateway, request: Any, chain: Any, **more: Any) -> Any:
        if chain[0] == HARD:
            raise Killed
        return await complete(self, request, chain, **more)

    monkeypatch.setattr(Gateway, "complete", dies)
    with pytest.raises(Killed):
        doubtful.run(job)
    monkeypatch.setattr(Gateway, "complete", complete)
    record = doubtful.dedupe.record("a.jpg")
    assert (record.state, record.result, doubtful.dedupe.aws.heard()) == ("queued", None, [])

    assert doubtful.run(job) == "deferred"  # the dead worker's lease holds
    doubtful.dedupe.clock.at += 900
    assert doubtful.run(job) == "captioned"
    assert models_asked(doubtful) == [EASY, HARD]  # the first answer was noted before the step up
    assert doubtful.run(job) == "settled"
    assert len(doubtful.endpoint.requests()) == 2
    record = doubtful.dedupe.record("a.jpg")
    assert record.result is not None
    assert record.result.text == "A house of stone in the sun."


# -- captioned again --------------------------------------------------------------------------------------------------


def test_a_refused_recaption_keeps_the_caption_and_record_event_and_log_say_the_same(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = captioned(shop, "a.jpg", photo)
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    copy = shop.dedupe.record("copy.jpg")
    first_told = {detail["key"]: detail for _, detail in events_of(shop)}
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(
        telemetry.logger(), "warning", lambda event, **fields: logged.append({"event": event, **fields})
    )
    assert shop.dedupe.intake.handle(wish(shop, "a.jpg")) == "queued"
    assert shop.dedupe.upload("waiting.jpg", photo) == "waiting"
    (job,) = shop.jobs()
    shop.endpoint.set_faults([{"fault": "refusal"}])
    assert shop.run(job) == "blocked"

    record = shop.dedupe.record("a.jpg")
    assert (record.state, record.result, record.recaption) == ("captioned", before.result, None)
    assert record.reason is not None
    ((what, detail),) = events_of(shop)
    assert (what, detail["key"], detail["state"]) == ("Caption.Completed", "a.jpg", record.state)
    assert detail["reason"] == record.reason.model_dump()
    assert detail["text"] == before.result.text if before.result else None
    assert detail["id"] != first_told["a.jpg"]["id"]  # another end, which nobody takes for the first one told again
    (line,) = [line for line in logged if line["event"] == "upload_ended"]
    assert (line["state"], line["reason"], line["recaption"]) == (record.state, record.reason.code, "blocked")

    assert shop.dedupe.record("copy.jpg") == copy
    # Who waited is no recaption: it leads now, and ends by what the models say of it.
    (revisit,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert (revisit["upload"]["key"], revisit["reason"]) == ("waiting.jpg", "leader_lost")
    shop.endpoint.clear()
    shop.dedupe.deliver(revisit)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"


def test_dedupe_that_dies_between_the_wish_and_its_job_is_taken_up_again(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = captioned(shop, "a.jpg", photo)
    revisit, intake = wish(shop, "a.jpg"), shop.dedupe.intake
    place = intake._place

    def dies(*_: object) -> Any:
        raise Killed

    monkeypatch.setattr(intake, "_place", dies)
    with pytest.raises(Killed):
        intake.handle(revisit)
    monkeypatch.setattr(intake, "_place", place)
    pending = shop.dedupe.record("a.jpg")
    assert (pending.state, pending.result) == ("received", before.result)

    assert intake.handle(revisit) == "queued"  # its message comes back
    (job,) = shop.jobs()
    assert job.since is not None
    assert shop.run(job) == "captioned"
    assert len(shop.paid()) == 2
    after = shop.dedupe.record("a.jpg")
    assert after.recaption is None
    assert intake.handle(revisit) == "duplicate"
    assert (shop.jobs(), len(shop.paid())) == ([], 2)


def test_a_wish_whose_message_is_lost_with_its_dedupe_is_found_by_the_sweep(shop: Workshop, photo: bytes) -> None:
    captioned(shop, "a.jpg", photo)
    revisit, intake = wish(shop, "a.jpg"), shop.dedupe.intake
    shop.dedupe.records.recaption(shop.dedupe.record("a.jpg"), "force", now=shop.dedupe.clock(), due=0.0)
    settings = SweepSettings(**intake.settings.model_dump(include=set(SweepSettings.model_fields)))
    sqs = shop.dedupe.aws.sqs
    sweeper = Sweeper(settings, shop.dedupe.records, intake.queues, sqs, shop.dedupe.clock)
    assert sweeper.run(deadline=float("inf")).revisited == 1
    (swept,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert swept["reason"] == "sweep"
    assert shop.dedupe.deliver(swept) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    assert intake.handle(revisit) == "duplicate"
    assert len(shop.paid()) == 2


# -- what people say -------------------------------------------------------------------------------------------------


def test_an_edit_and_an_acceptance_are_told_on_the_event_bus(shop: Workshop, photo: bytes) -> None:
    record = captioned(shop, "a.jpg", photo)
    events_of(shop)
    reviews = Reviews(shop.dedupe.aws.dynamodb, "captions", "control")
    notifier = Notifier(shop.dedupe.aws.events, "captions")
    accepted = reviews.accept(record, now=shop.dedupe.clock() + 1)
    notifier.reviewed(accepted)
    notifier.reviewed(accepted)
    edited = reviews.edit(accepted, "Casa Milà", now=shop.dedupe.clock() + 2)
    notifier.reviewed(edited)
    (first, item), (_, again), (second, other) = events_of(shop)
    assert (first, second) == ("Caption.Accepted", "Caption.Edited")
    assert record.result is not None
    assert (item["source"], item["text"]) == ("model", record.result.text)
    assert (other["source"], other["text"], other["key"], other["state"]) == (
        "human", "Casa Milà", "a.jpg", "captioned",
    )  # fmt: skip
    assert item["id"] == again["id"] != other["id"]


def test_an_event_that_the_bus_does_not_take_is_sent_again_and_those_that_it_took_are_not() -> None:
    """Nobody delivers a person's verdict again, as a queue does with an upload's end."""
    sent: list[list[str]] = []
    answers = iter([[True, False, True], [False], [True]])

    class Bus:
        def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
            sent.append([json.loads(entry["Detail"])["key"] for entry in Entries])
            taken = next(answers, [False])
            reported = [
                {"EventId": "1"} if ok else {"ErrorCode": "InternalFailure", "ErrorMessage": ""} for ok in taken
            ]
            return {"FailedEntryCount": taken.count(False), "Entries": reported}

    record = Record(asset="m/a", bucket="m", key="a", sequencer="01", state="failed", updated_at="2026-01-01")
    notifier = Notifier(Bus(), "captions")
    notifier.ended([record.model_copy(update={"key": key}) for key in "abc"])
    assert sent == [["a", "b", "c"], ["b"], ["b"]]
    with pytest.raises(NotDeliveredError, match="1 events were not taken: InternalFailure"):
        notifier.ended([record])


# -- a result that no record holds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["A word. " * 100_000, '"\n' * 200_000, "水" * 200_000])
def test_of_an_endless_result_the_record_says_what_was_left_out(text: str) -> None:
    result = Result(text=text, language="en", task="ocr", tags=("page",), data={"lines": ["a"]})
    short = fitted(result)
    assert short.left_out == ("data", "tags", "text")
    assert text.startswith(short.text)
    size = len(json.dumps(short.model_dump(), ensure_ascii=False).encode())
    assert MAX_RESULT_BYTES - 8 <= size <= MAX_RESULT_BYTES
    without_data = fitted(result.model_copy(update={"text": "short", "data": {"lines": ["a" * 300_000]}}))
    assert (without_data.text, without_data.data, without_data.left_out) == ("short", {}, ("data",))
    assert fitted(without_data) == without_data


def test_an_endless_answer_is_captioned_as_far_as_a_record_holds_it(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = {"caption": "A house.", "tags": ["house"], "safety": "safe", "confidence": 0.9}
    shop.endpoint.set_faults([says(json.dumps(endless))])
    monkeypatch.setattr(caption, "fitted", lambda result: fitted(result.model_copy(update={"text": "x" * 400_000})))
    record = captioned(shop, "a.jpg", photo)
    assert record.result is not None
    assert record.result.left_out[-1] == "text"
    assert len(record.result.text) < MAX_RESULT_BYTES
    # A copy of it tells so too, and a person's words still fit beside it.
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    copied = shop.dedupe.record("copy.jpg").result
    assert copied is not None
    assert copied.left_out == record.result.left_out
    edited = Reviews(shop.dedupe.aws.dynamodb, "captions", "control").edit(record, "y" * 40_000, now=1.0)
    assert edited.suggestion is not None
    assert edited.suggestion.result == record.result


# -- of another version ----------------------------------------------------------------------------------------------


def strip(shop: Workshop, key: str) -> Record:
    """Rewrite a record as the first version would have left it."""
    record = shop.dedupe.record(key)
    item = shop.dedupe.aws.dynamodb.get_item(TableName="captions", Key={"asset": {"S": record.asset}})["Item"]
    for name in ("human", "suggestion", "recaption", "begun", "superseded_cost"):
        item.pop(name, None)
    for name in ("identity", "tier", "category", "score", "escalated", "answered_at"):
        item["provenance"]["M"].pop(name, None)
    for name in ("style", "confidence", "data", "left_out"):
        item["result"]["M"].pop(name, None)
    shop.dedupe.aws.dynamodb.put_item(TableName="captions", Item=item)
    return shop.dedupe.record(key)


def test_a_record_of_the_first_version_is_read_reviewed_and_captioned_anew(shop: Workshop, photo: bytes) -> None:
    captioned(shop, "a.jpg", photo)
    old = strip(shop, "a.jpg")
    assert old.result is not None
    assert (old.terminal, old.reviewed, old.result.left_out, old.result.data) == (True, False, (), {})
    reviews = Reviews(shop.dedupe.aws.dynamodb, "captions", "control")
    reviews.accept(old, now=shop.dedupe.clock() + 1)
    assert shop.dedupe.intake.handle(wish(shop, "a.jpg")) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    after = shop.dedupe.record("a.jpg")
    assert after.result == old.result  # it was accepted
    assert after.suggestion is not None


def test_an_outcome_of_the_first_version_is_a_hit_and_an_unknown_field_of_a_later_one_no_error(
    shop: Workshop, photo: bytes
) -> None:
    record = captioned(shop, "a.jpg", photo)
    assert record.claim is not None
    table, client = "fingerprints", shop.dedupe.aws.dynamodb
    (item,) = [Item for Item in client.scan(TableName=table)["Items"] if "outcome" in Item]
    outcomes: tuple[dict[str, Any], ...] = (
        {"asset": record.asset, "result": {"text": "An old caption.", "language": "en", "task": "caption"}},
        {**later(record), "of_a_later_version": True},
    )
    for outcome in outcomes:
        item["outcome"] = to_item({"outcome": outcome})["outcome"]
        client.put_item(TableName=table, Item=item)
        name = f"copy-{len(outcome)}.jpg"
        assert shop.dedupe.upload(name, photo) == "hit"
        copied = shop.dedupe.record(name)
        assert copied.result is not None
        assert copied.result.text == outcome["result"]["text"]
        assert copied.provenance is not None
        assert copied.provenance.copied_from == record.asset


def later(record: Record) -> dict[str, Any]:
    assert record.result is not None
    outcome = Outcome(asset=record.asset, result=record.result, model="GPT-4o", cost="0.001", identity="x", score=0.5)
    return outcome.stored()


@pytest.mark.deep
def test_a_caption_made_anew_hundreds_of_times_still_has_room_in_its_record(shop: Workshop, photo: bytes) -> None:
    record = captioned(shop, "a.jpg", photo)
    assert record.provenance is not None
    (paid,) = record.provenance.attempts
    # As the version before wrote it: every paid call by itself.
    many = [
        paid | {"cost": "0.0012", "started_at": f"2026-01-01T00:00:{at // 1_000:02}.{at % 1_000:03}+00:00"}
        for at in range(1_200)
    ]
    shop.dedupe.aws.dynamodb.update_item(
        TableName="captions",
        Key={"asset": {"S": record.asset}},
        UpdateExpression="SET provenance.attempts = :many",
        ExpressionAttributeValues=to_item({":many": many}),
    )
    assert shop.dedupe.intake.handle(wish(shop, "a.jpg")) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"

    record = shop.dedupe.record("a.jpg")
    assert record.provenance is not None
    assert sum(map(calls, record.provenance.attempts)) == 1_201
    assert sum(Decimal(attempt["cost"]) for attempt in record.provenance.attempts if "cost" in attempt) == Decimal(
        "1.44"
    )


def test_a_record_has_room_for_everything_at_its_largest(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    records, record, now = shop.dedupe.records, shop.dedupe.record("a.jpg"), shop.dedupe.clock()
    many = [
        {
            "model": f"provider/a-model-with-a-name-{at % 40}",
            "endpoint": "models.example",
            "outcome": "ok",
            "cost": None if at % 2 else "0.00123",
            "started_at": f"2026-01-01T00:00:{at // 1_000:02}.{at % 1_000:03}+00:00",
            "latency_ms": 1_234,
            "detail": "x" * 200,
        }
        for at in range(5_000)
    ]
    result = fitted(Result(text="é" * 400_000, language="en", task="caption"))

    paid = Provenance(attempts=kept(many))
    assert records.finish(record.upload, "captioned", now=now, source="model", result=result, provenance=paid)
    Reviews(shop.dedupe.aws.dynamodb, "captions", "control").edit(shop.dedupe.record("a.jpg"), "y" * 40_000, now=now)
    assert records.recaption(shop.dedupe.record("a.jpg"), "force", now=now, due=now) is not None
    begun = records.begin(record.upload, now=now, lease_until=now + 60)
    assert isinstance(begun, Begun)
    answer = {"text": "z" * (MAX_DRAFT_BYTES - 1_000)}
    draft = Draft(sequencer=record.sequencer, claim="c", identity="i", answers=(answer,))
    held = kept((*begun.record.attempts, *many))
    assert records.note(record.upload, now + 60, now=now, attempts=held, draft=draft)
    assert shop.dedupe.record("a.jpg").draft == draft
    assert sum(map(calls, shop.dedupe.record("a.jpg").attempts)) == 10_000


# -- the same content again --------------------------------------------------------------------------------------------


def edited(shop: Workshop, key: str, data: bytes, words: str) -> Record:
    record = captioned(shop, key, data)
    return Reviews(shop.dedupe.aws.dynamodb, "captions", "control").edit(record, words, now=shop.dedupe.clock() + 1)


def test_words_of_a_person_stay_in_force_when_the_same_bytes_come_again(shop: Workshop, photo: bytes) -> None:
    """As every sync of a folder uploads them: under another version, with nothing to be paid."""
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    for _ in range(2):
        shop.dedupe.clock.at += 60
        event = shop.dedupe.aws.put("a.jpg", photo)
        assert shop.dedupe.deliver(event) == "hit"
        assert shop.dedupe.deliver(event) == "duplicate"
        record = shop.dedupe.record("a.jpg")
        assert (record.state, record.source, record.reviewed) == ("captioned", "human", True)
        assert record.result is not None
        assert (record.result.text, record.result.language) == ("The roof of Casa Milà", "en")
    assert len(shop.paid()) == 1


def test_they_stay_in_force_after_the_object_was_deleted_between(shop: Workshop, photo: bytes) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
    shop.dedupe.upload("a.jpg", photo)

    record = shop.dedupe.record("a.jpg")
    assert (record.source, record.result.text if record.result else None) == ("human", "The roof of Casa Milà")


def test_words_about_other_content_only_stand_beside_it(shop: Workshop, photo: bytes, other_photo: bytes) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")

    record = captioned(shop, "a.jpg", other_photo)

    assert (record.source, record.reviewed) == ("model", False)
    assert record.human is not None
    assert record.human.text == "The roof of Casa Milà"
    assert shop.dedupe.upload("a.jpg", photo) == "hit"  # and are in force again with what they are about
    assert shop.dedupe.record("a.jpg").source == "human"


def test_words_about_each_of_two_contents_are_in_force_whenever_it_is_there(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    edited(shop, "a.jpg", other_photo, "An osprey")
    for _ in range(2):
        for data, words in ((photo, "The roof of Casa Milà"), (other_photo, "An osprey")):
            shop.dedupe.clock.at += 60
            assert shop.dedupe.upload("a.jpg", data) == "hit"
            record = shop.dedupe.record("a.jpg")
            assert (record.source, record.result and record.result.text) == ("human", words)


def test_words_about_other_content_outlive_second_thoughts_about_what_came_after_it(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    judge, now = Reviews(shop.dedupe.aws.dynamodb, "captions", "control"), shop.dedupe.clock() + 100
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    osprey = edited(shop, "a.jpg", other_photo, "An osprei")
    for at, words in enumerate(("An osprey", "An osprey on a branch")):
        osprey = judge.edit(osprey, words, now=now + at)

    shop.dedupe.upload("a.jpg", photo)
    roof = shop.dedupe.record("a.jpg")
    assert (roof.source, roof.result and roof.result.text) == ("human", "The roof of Casa Milà")
    shop.dedupe.upload("a.jpg", other_photo)
    branch = shop.dedupe.record("a.jpg")
    assert (branch.source, branch.result and branch.result.text) == ("human", "An osprey on a branch")


def test_taking_words_back_takes_none_about_other_content_along(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    judge, now = Reviews(shop.dedupe.aws.dynamodb, "captions", "control"), shop.dedupe.clock() + 100
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    osprey = judge.edit(edited(shop, "a.jpg", other_photo, "An osprei"), "An osprey", now=now)
    model = judge.undo(judge.undo(osprey, now=now + 1), now=now + 2)
    assert (model.source, model.reviewed) == ("model", False)

    shop.dedupe.upload("a.jpg", photo)
    assert shop.dedupe.record("a.jpg").source == "human"


def test_a_caption_found_right_takes_no_words_about_other_content_away(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    judged = captioned(shop, "a.jpg", other_photo)
    Reviews(shop.dedupe.aws.dynamodb, "captions", "control").accept(judged, now=shop.dedupe.clock() + 1)

    shop.dedupe.upload("a.jpg", photo)
    assert shop.dedupe.record("a.jpg").source == "human"


def test_words_that_a_person_gave_up_for_a_newer_answer_do_not_come_back(shop: Workshop, photo: bytes) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")
    assert shop.dedupe.intake.handle(wish(shop, "a.jpg")) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    shop.dedupe.clock.at += 60
    judge = Reviews(shop.dedupe.aws.dynamodb, "captions", "control")
    judge.accept(shop.dedupe.record("a.jpg"), now=shop.dedupe.clock())

    shop.dedupe.upload("a.jpg", photo)
    assert shop.dedupe.record("a.jpg").source == "cache"


@pytest.mark.parametrize("noted", ["never", "too late"])
def test_words_are_about_what_was_captioned_though_its_dedupe_died_or_was_slow(
    shop: Workshop, photo: bytes, other_photo: bytes, monkeypatch: pytest.MonkeyPatch, noted: str
) -> None:
    """The job is sent before it is noted: its worker may store the answer before, or instead."""
    captioned(shop, "a.jpg", photo)
    records, progress = shop.dedupe.intake.records, Records.progress

    def interrupted(*given: Any, **how: Any) -> bool:
        if noted == "never":
            raise Killed
        (job,) = shop.jobs()
        shop.run(job)
        return progress(records, *given, **how)

    monkeypatch.setattr(records, "progress", interrupted)
    event = shop.dedupe.aws.put("a.jpg", other_photo)
    with pytest.raises(Killed) if noted == "never" else nullcontext():
        shop.dedupe.deliver(event)
    monkeypatch.undo()
    for job in shop.jobs():
        shop.run(job)
    Reviews(shop.dedupe.aws.dynamodb, "captions", "control").edit(
        shop.dedupe.record("a.jpg"), "An osprey", now=shop.dedupe.clock() + 1
    )

    shop.dedupe.clock.at += 60
    shop.dedupe.upload("a.jpg", photo)
    assert shop.dedupe.record("a.jpg").source == "cache"
    shop.dedupe.upload("a.jpg", other_photo)
    assert shop.dedupe.record("a.jpg").source == "human"


def test_words_about_a_copy_whose_leader_was_faster_are_known_by_its_content(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    records, progress = shop.dedupe.intake.records, Records.progress

    def slow(*given: Any, **how: Any) -> bool:
        shop.run(job)
        return progress(records, *given, **how)

    monkeypatch.setattr(records, "progress", slow)
    assert shop.dedupe.upload("copy.jpg", photo) == "waiting"
    monkeypatch.undo()
    copy = shop.dedupe.record("copy.jpg")
    assert (copy.state, copy.kind, copy.media_type) == ("captioned", "image", "image/jpeg")
    Reviews(shop.dedupe.aws.dynamodb, "captions", "control").edit(copy, "A copy", now=shop.dedupe.clock() + 1)
    shop.dedupe.upload("copy.jpg", photo)
    assert shop.dedupe.record("copy.jpg").source == "human"


def test_a_copy_under_another_key_gets_the_models_words(shop: Workshop, photo: bytes) -> None:
    edited(shop, "a.jpg", photo, "The roof of Casa Milà")

    assert shop.dedupe.upload("b.jpg", photo) == "hit"
    assert shop.dedupe.record("b.jpg").source == "cache"


def test_what_replaced_versions_took_stays_in_the_account_where_its_price_is_unknown(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    before = captioned(shop, "a.jpg", photo)
    assert before.provenance is not None
    known = [attempt.get("cost") for attempt in before.provenance.attempts]
    captioned(shop, "a.jpg", other_photo)
    shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))

    record = shop.dedupe.record("a.jpg")
    (_, total) = spending([record], "day")
    assert total.calls == len(shop.paid()) == 2
    assert total.cost_unknown == 2 * known.count(None)


def test_of_a_model_without_a_price_the_account_never_says_that_it_cost_nothing(
    shop: Workshop, photo: bytes, other_photo: bytes
) -> None:
    shop.worker.policies = lambda: load('[tiers.easy]\nmodels = ["GLM-4.6V"]\n[tiers.hard]\nmodels = ["GLM-4.6V"]\n')
    captioned(shop, "a.jpg", photo)
    captioned(shop, "a.jpg", other_photo)

    (_, total) = spending([shop.dedupe.record("a.jpg")], "day")
    assert (total.calls, total.cost_unknown) == (2, 2)
    assert total.cost.unpriced_tokens == sum(int(call["prompt_tokens"]) for call in shop.paid()) > 0
