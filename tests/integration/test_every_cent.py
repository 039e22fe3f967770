"""What the endpoint was paid stands in the records, to the cent, whoever dies and whatever becomes of the upload."""

import asyncio
import json
import time
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from captions import telemetry
from captions.config.policy import load
from captions.gateway import Gateway
from captions.queues import Revisit
from captions.records.attempts import CallLedger
from captions.records.record import Record
from captions.records.spending import spending
from captions.records.table import MAX_DRAFT_BYTES, Records
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.worker import Workshop

CHEAP, BETTER = "GLM-4-Plus", "GPT-4o"
"""Both have published prices."""
UNSURE = {"caption": "Something stands on a street.", "tags": [], "safety": "safe", "confidence": 0.1}
SURE = {"caption": "A house of stone in the sun.", "tags": ["house"], "safety": "safe", "confidence": 0.9}
USELESS = {"caption": ""}


class Killed(BaseException):
    """The sandbox is gone: nothing of ours catches it."""


def says(answer: dict[str, Any], model: str, **more: Any) -> dict[str, Any]:
    return {"fault": "answer", "text": json.dumps(answer), "model": model, **more}


def tiers(easy: list[str], hard: list[str]) -> str:
    tables = f"[tiers.easy]\nmodels = {json.dumps(easy)}\n[tiers.hard]\nmodels = {json.dumps(hard)}\n"
    return f'[routing]\nimage = "easy"\ncategory_from = 1.0\n{tables}'


@pytest.fixture
def doubtful(shop: Workshop) -> Workshop:
    """Pictures go to a cheap model, whose answer is doubtful; the better one is sure."""
    shop.worker.policies = lambda: load(tiers([CHEAP], [BETTER]))
    shop.endpoint.set_faults([says(UNSURE, CHEAP), says(SURE, BETTER)])
    return shop


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the worker die when it is about to call a model for the time given; `dies.stop()` ends that."""
    complete = Gateway.complete

    class Dies:
        def at_call(self, number: int) -> None:
            made = iter(range(1, 100))

            async def die(self: Gateway, request: Any, chain: Any, **more: Any) -> Any:
                if next(made) == number:
                    raise Killed
                return await complete(self, request, chain, **more)

            monkeypatch.setattr(Gateway, "complete", die)

        def stop(self) -> None:
            monkeypatch.setattr(Gateway, "complete", complete)

    return Dies()


def asked(shop: Workshop) -> list[str]:
    return [request["model"] for request in shop.endpoint.requests()]


def paid(shop: Workshop) -> Decimal:
    """What the endpoint's own log says was paid."""
    return sum((Decimal(request["cost"]) for request in shop.paid()), Decimal(0))


def accounted(*records: Record) -> Decimal:
    """What `captions costs` says was paid."""
    result = spending(records, "day")[1].cost.exact
    assert result is not None
    return result


def killed_at(shop: Workshop, dies: Any, call: int, photo: bytes) -> Any:
    """Upload, and have the worker killed at this call; return the job, the lease being over."""
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    dies.at_call(call)
    with pytest.raises(Killed):
        shop.run(job)
    dies.stop()
    shop.dedupe.clock.at += 900
    return job


def test_who_takes_over_between_the_calls_of_a_step_up_goes_on_from_the_first_answer(
    doubtful: Workshop, dies: Any, photo: bytes
) -> None:
    job = killed_at(doubtful, dies, 2, photo)
    assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful) > 0
    assert doubtful.run(job) == "captioned"

    assert asked(doubtful) == [CHEAP, BETTER]
    record = doubtful.dedupe.record("a.jpg")
    assert record.provenance is not None
    assert [(attempt["role"], attempt["model"]) for attempt in record.provenance.attempts] == [
        ("first", CHEAP),
        ("escalation", BETTER),
    ]
    assert accounted(record) == Decimal(record.provenance.cost or 0) == paid(doubtful)
    assert (record.draft, record.attempts, record.provenance.escalated) == (None, (), True)


def test_the_noted_answer_is_the_caption_where_nothing_better_comes(
    doubtful: Workshop, dies: Any, photo: bytes
) -> None:
    job = killed_at(doubtful, dies, 2, photo)
    doubtful.endpoint.set_faults([{"fault": "server_error", "model": BETTER}])
    assert doubtful.run(job) == "captioned"

    record = doubtful.dedupe.record("a.jpg")
    assert record.result is not None
    assert record.provenance is not None
    assert (record.result.text, record.result.confidence) == (UNSURE["caption"], record.provenance.score)
    assert (record.provenance.model, record.claim) == (CHEAP, job.claim)
    assert accounted(record) == paid(doubtful)


def test_a_repair_that_was_made_is_not_made_again(doubtful: Workshop, dies: Any, photo: bytes) -> None:
    doubtful.endpoint.set_faults([says(USELESS, CHEAP), says(SURE, BETTER)])
    job = killed_at(doubtful, dies, 3, photo)
    assert doubtful.run(job) == "captioned"

    assert asked(doubtful) == [CHEAP, CHEAP, BETTER]
    record = doubtful.dedupe.record("a.jpg")
    assert record.provenance is not None
    assert [attempt["role"] for attempt in record.provenance.attempts] == ["first", "repair", "escalation"]
    assert accounted(record) == paid(doubtful)


def test_an_answer_too_long_to_be_noted_is_paid_for_again_and_accounted(
    doubtful: Workshop, dies: Any, photo: bytes
) -> None:
    long = UNSURE | {"caption": "Word after word. " * (MAX_DRAFT_BYTES // 10)}
    doubtful.endpoint.set_faults([says(long, CHEAP), says(SURE, BETTER)])
    job = killed_at(doubtful, dies, 2, photo)
    assert doubtful.run(job) == "captioned"
    assert asked(doubtful)[0] == asked(doubtful)[-2] == CHEAP
    assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful)


@pytest.mark.parametrize("becomes", ["deleted", "overwritten"])
def test_what_a_dead_worker_paid_is_accounted_whatever_becomes_of_the_upload(
    doubtful: Workshop, dies: Any, photo: bytes, other_photo: bytes, becomes: str
) -> None:
    job = killed_at(doubtful, dies, 2, photo)
    if becomes == "deleted":
        doubtful.dedupe.deliver(doubtful.dedupe.aws.delete("a.jpg"))
    else:
        doubtful.dedupe.upload("a.jpg", other_photo)
    assert doubtful.run(job) == "superseded"
    assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful) > 0
    assert asked(doubtful) == [CHEAP]


@pytest.mark.parametrize("becomes", ["deleted", "overwritten", "captioned"])
def test_who_lost_the_upload_between_two_calls_makes_no_second_one(
    doubtful: Workshop, photo: bytes, other_photo: bytes, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    shop = doubtful
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    complete, calls = Gateway.complete, []

    async def lost_meanwhile(self: Gateway, request: Any, chain: Any, **more: Any) -> Any:
        completion = await complete(self, request, chain, **more)
        calls.append(completion.model)
        if len(calls) > 1:
            return completion
        if becomes == "deleted":
            shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
        elif becomes == "overwritten":
            shop.dedupe.upload("a.jpg", other_photo)
        else:  # by a second delivery, which takes this worker for dead
            shop.dedupe.clock.at += 900
            assert await shop.worker.run(job, deadline=time.monotonic() + 60) == "captioned"
            shop.dedupe.clock.at += 1
        return completion

    monkeypatch.setattr(Gateway, "complete", lost_meanwhile)
    assert shop.run(job) == ("settled" if becomes == "captioned" else "superseded")

    assert asked(shop) == ([CHEAP, CHEAP, BETTER] if becomes == "captioned" else [CHEAP])
    assert accounted(shop.dedupe.record("a.jpg")) == paid(shop) > 0


@pytest.mark.parametrize("becomes", ["deleted", "overwritten"])
def test_useless_answers_are_accounted_where_the_upload_is_gone_when_they_come(
    doubtful: Workshop, photo: bytes, other_photo: bytes, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    shop = doubtful
    shop.endpoint.set_faults([says(USELESS, CHEAP), says(USELESS, BETTER)])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    complete = Gateway.complete

    async def gone_at_last(self: Gateway, request: Any, chain: Any, **more: Any) -> Any:
        completion = await complete(self, request, chain, **more)
        if completion.model == BETTER:
            if becomes == "deleted":
                shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
            else:
                shop.dedupe.upload("a.jpg", other_photo)
        return completion

    monkeypatch.setattr(Gateway, "complete", gone_at_last)
    assert shop.run(job) == "deferred"
    assert accounted(shop.dedupe.record("a.jpg")) == paid(shop) > 0


def test_what_replaced_versions_had_cost_stays_in_the_account(
    doubtful: Workshop, photo: bytes, other_photo: bytes
) -> None:
    for data in (photo, other_photo):
        event = doubtful.dedupe.aws.put("a.jpg", data)
        doubtful.dedupe.deliver(event)
        doubtful.dedupe.deliver(event)
        (job,) = doubtful.jobs()
        assert doubtful.run(job) == "captioned"
        assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful)
    doubtful.dedupe.deliver(doubtful.dedupe.aws.delete("a.jpg"))
    assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful)


def test_calls_that_came_too_late_are_added_once(doubtful: Workshop, photo: bytes) -> None:
    doubtful.dedupe.upload("a.jpg", photo)
    late = [{"model": CHEAP, "endpoint": "e", "started_at": "2026-01-01T00:00:00.000+00:00", "cost": "0.01"}]
    other = [late[0] | {"cost": "0.1"}]
    version = doubtful.dedupe.record("a.jpg").upload
    for _ in range(2):
        for upload, calls in (version, late), (version.model_copy(update={"sequencer": pad_sequencer("1")}), other):
            ledger = CallLedger()
            ledger.add(calls)
            doubtful.dedupe.records.account(upload, ledger)
    assert accounted(doubtful.dedupe.record("a.jpg")) == Decimal("0.11")


def test_the_calls_of_a_dead_worker_are_counted_once_by_who_takes_over(
    doubtful: Workshop, dies: Any, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(telemetry, "model_call", lambda **reported: counted.append(reported["model"]))
    job = killed_at(doubtful, dies, 2, photo)
    assert doubtful.run(job) == "captioned"
    assert counted == [CHEAP, BETTER]


def test_a_picture_answered_in_one_call_takes_two_writes_of_its_record(shop: Workshop, photo: bytes) -> None:
    shop.worker.policies = lambda: load(tiers([CHEAP], [BETTER]))
    shop.endpoint.set_faults([says(SURE, CHEAP)])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    written: list[str] = []
    shop.dedupe.aws.dynamodb.meta.events.register(
        "provide-client-params.dynamodb.UpdateItem", lambda params, **_: written.append(params["TableName"])
    )
    assert shop.run(job) == "captioned"
    assert written.count("captions") == 2


def test_a_model_that_refused_is_not_asked_again(shop: Workshop, dies: Any, photo: bytes) -> None:
    shop.worker.policies = lambda: load(tiers([BETTER, CHEAP], ["GLM-4.6V"]))
    useless = [says(USELESS, model) for model in (CHEAP, "GLM-4.6V")]
    shop.endpoint.set_faults([{"fault": "refusal", "model": BETTER}, *useless])
    job = killed_at(shop, dies, 3, photo)
    assert shop.run(job) == "deferred"
    assert asked(shop) == [BETTER, CHEAP, CHEAP, "GLM-4.6V"]


def test_a_broken_draft_is_none(doubtful: Workshop, dies: Any, photo: bytes) -> None:
    job = killed_at(doubtful, dies, 2, photo)
    doubtful.dedupe.aws.dynamodb.update_item(
        TableName="captions",
        Key={"asset": {"S": "media/a.jpg"}},
        UpdateExpression="SET draft = :draft",
        ExpressionAttributeValues={":draft": {"S": '{"sequencer": 7'}},
    )
    assert asyncio.run(doubtful.worker.run(job, deadline=time.monotonic() + 60)) == "captioned"
    assert asked(doubtful) == [CHEAP, CHEAP, BETTER]
    assert accounted(doubtful.dedupe.record("a.jpg")) == paid(doubtful)


def test_a_copy_saved_what_its_caption_took_and_not_what_those_before_it_had_cost(
    doubtful: Workshop, photo: bytes
) -> None:
    shop = doubtful
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    before = paid(shop)
    shop.dedupe.clock.at += 60
    record = shop.dedupe.record("a.jpg")
    wish = Revisit(upload=record.upload, reason="recaption", mode="force", seen=record.updated_at)
    assert shop.dedupe.intake.handle(wish) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"

    assert accounted(shop.dedupe.record("a.jpg")) == paid(shop)
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    copy = shop.dedupe.record("copy.jpg").provenance
    assert copy is not None
    assert Decimal(copy.saved or 0) == paid(shop) - before > 0


class Narrow(Records):
    """A table that refuses every caption for good, as DynamoDB does with items over 400 KB."""

    def finish(self, upload: ObjectVersion, state: Any, **about: Any) -> Record | None:
        if about.get("result") is not None:
            message = "Item size has exceeded the maximum allowed size"
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "UpdateItem")
        return super().finish(upload, state, **about)


def test_an_answer_that_the_table_never_takes_is_paid_once_and_ends_the_upload(shop: Workshop, photo: bytes) -> None:
    shop.worker.records = Narrow(shop.dedupe.aws.dynamodb, "captions")
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()

    assert [shop.run(job) for _ in range(3)] == ["failed", "settled", "settled"]

    record = shop.dedupe.record("a.jpg")
    assert (record.state, record.reason.code if record.reason else None) == ("failed", "unstorable")
    assert record.provenance is not None
    assert len(record.provenance.attempts) == len(shop.paid()) == 1


def test_an_answer_is_paid_once_though_a_transaction_is_at_its_record(shop: Workshop, photo: bytes) -> None:
    """As of a person who judges the caption at that moment; DynamoDB refuses other writes meanwhile."""
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    dynamodb = shop.dedupe.aws.dynamodb
    write, refused = dynamodb.update_item, Counter[str]()

    def refuse_at_first(**given: Any) -> Any:
        if given["TableName"] == "captions" and refused[given["UpdateExpression"]] < 3:
            refused[given["UpdateExpression"]] += 1
            answer = {"Error": {"Code": "TransactionConflictException", "Message": "Transaction is ongoing"}}
            raise dynamodb.exceptions.TransactionConflictException(answer, "UpdateItem")
        return write(**given)

    dynamodb.update_item = refuse_at_first
    assert shop.run(job) == "captioned"
    assert len(refused) == 2  # the lease, and the end
    assert len(shop.paid()) == 1
