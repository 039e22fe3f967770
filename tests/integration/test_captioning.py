"""From a job to a stored caption, everyone who waits for it, and the event bus."""

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from PIL import Image

from captions.config.function_environments import SweepSettings
from captions.gateway import Budgets, ControlTable, Endpoint, Gateway
from captions.gateway.catalogue import load
from captions.pipeline.caption import JobNotStartedError
from captions.pipeline.sweep import Sweeper
from captions.records.table import Begun
from captions.uploads.version import Upload, from_event
from support.worker import IMAGE_MODELS, Workshop

FIRST, SECOND, _ = IMAGE_MODELS


def recompressed(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=88)
    return out.getvalue()


def test_a_job_ends_in_a_caption_its_provenance_and_an_event(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    record = shop.dedupe.record("a.jpg")
    assert (record.state, record.source) == ("captioned", "model")
    assert record.result is not None
    assert len(record.result.text) > 20
    assert record.provenance is not None
    assert record.provenance.model == FIRST
    assert record.provenance.prompt_version is not None
    assert record.provenance.prompt_version == f"caption-{record.provenance.prompt_version.split('-')[1]}"
    assert [attempt["outcome"] for attempt in record.provenance.attempts] == ["ok"]
    assert shop.dedupe.aws.heard() == [("Caption.Completed", "a.jpg")]
    assert len(shop.paid()) == 1


def test_speech_is_transcribed(shop: Workshop, speech: bytes) -> None:
    shop.dedupe.upload("a.wav", speech)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    result = shop.dedupe.record("a.wav").result
    assert result is not None
    assert "printed book" in result.text.lower()


def test_a_second_delivery_pays_nothing_and_tells_again(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.run(job)
    before = shop.dedupe.record("a.jpg")
    shop.dedupe.aws.heard()
    assert shop.run(job) == "settled"
    assert shop.dedupe.record("a.jpg") == before
    assert len(shop.paid()) == 1
    assert shop.dedupe.aws.heard() == [("Caption.Completed", "a.jpg")]


def test_two_deliveries_at_once_pay_once(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    endings = shop.run_all([job, job])
    assert "captioned" in endings
    assert set(endings) <= {"captioned", "settled", "deferred"}
    assert len(shop.paid()) == 1


def test_everyone_who_waits_gets_the_caption(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    for name in ("b.jpg", "c.jpg"):
        assert shop.dedupe.upload(name, recompressed(photo)) == "waiting"
    (job,) = shop.jobs()
    shop.run(job)
    leader = shop.dedupe.record("a.jpg")
    for name in ("b.jpg", "c.jpg"):
        record = shop.dedupe.record(name)
        assert (record.state, record.source, record.result) == ("captioned", "cache", leader.result)
        assert record.provenance is not None
        assert record.provenance.copied_from == "media/a.jpg"
        assert record.provenance.likeness is not None
        assert (record.provenance.likeness.kind, record.provenance.likeness.way) == ("near", "whole")
    assert sorted(shop.dedupe.aws.heard()) == [("Caption.Completed", name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert len(shop.paid()) == 1
    assert shop.dedupe.upload("d.jpg", photo) == "hit"


def test_a_crash_after_the_result_was_stored_loses_nothing(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("b.jpg", recompressed(photo))
    (job,) = shop.jobs()
    settle = shop.worker.neighbours.settle

    def crash(*_: object) -> None:
        raise ConnectionError("killed")

    shop.worker.neighbours.settle = crash  # type: ignore[method-assign, assignment]
    (ending,) = shop.run_all([job])
    assert isinstance(ending, ConnectionError)
    assert shop.dedupe.record("a.jpg").state == "captioned"
    assert shop.dedupe.record("b.jpg").state == "waiting"
    shop.worker.neighbours.settle = settle  # type: ignore[method-assign]
    assert shop.run(job) == "settled"
    assert shop.dedupe.record("b.jpg").state == "captioned"
    assert sorted(shop.dedupe.aws.heard()) == [("Caption.Completed", "a.jpg"), ("Caption.Completed", "b.jpg")]
    assert len(shop.paid()) == 1


def test_a_model_that_fails_is_passed_over_and_its_attempt_is_kept(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "server_error", "model": FIRST}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    provenance = shop.dedupe.record("a.jpg").provenance
    assert provenance is not None
    assert provenance.model == SECOND
    assert provenance.attempts[0]["model"] == FIRST
    assert provenance.attempts[0]["outcome"] != "ok"
    assert provenance.attempts[-1]["outcome"] == "ok"


def test_a_picture_every_model_refuses_is_blocked_and_so_are_its_twins(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "refusal"}])
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("b.jpg", recompressed(photo))
    (job,) = shop.jobs()
    assert shop.run(job) == "blocked"
    for name in ("a.jpg", "b.jpg"):
        record = shop.dedupe.record(name)
        assert record.state == "blocked"
        assert record.reason is not None
        assert record.reason.code == "refused"
    assert sorted(shop.dedupe.aws.heard()) == [("Caption.Blocked", "a.jpg"), ("Caption.Blocked", "b.jpg")]


def test_a_refusal_in_plain_words_is_no_caption(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "refusal", "form": "text", "model": FIRST}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    provenance = shop.dedupe.record("a.jpg").provenance
    assert provenance is not None
    assert [attempt["outcome"] for attempt in provenance.attempts] == ["refused", "ok"]


def test_when_every_model_is_down_the_job_goes_back_and_ends_when_they_are_up(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "overloaded"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job, seconds=14.0) == "deferred"
    record = shop.dedupe.record("a.jpg")
    assert record.state == "queued"
    assert record.reason is not None  # why it waits
    assert record.attempts
    shop.endpoint.clear()
    shop.dedupe.clock.at += 60
    later = job.model_copy(update={"deferrals": 1})
    shop.worker.gateway = type(shop.worker.gateway)(  # circuits closed again, as they are after their time
        endpoints=shop.worker.gateway._endpoints, keys=lambda fresh: "a key", catalogue=shop.worker.gateway._catalogue
    )
    assert shop.run(later) == "captioned"
    provenance = shop.dedupe.record("a.jpg").provenance
    assert provenance is not None
    assert len(provenance.attempts) > len(record.attempts)


def test_a_job_tried_for_too_long_fails_with_its_reason(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "overloaded"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.dedupe.clock.at += shop.worker.settings.max_job_age_seconds + 1
    shop.worker.neighbours.renew = lambda *_: True  # type: ignore[method-assign]
    assert shop.run(job, seconds=14.0) == "failed"
    record = shop.dedupe.record("a.jpg")
    assert record.reason is not None
    assert record.reason.code == "gave_up"
    assert shop.dedupe.aws.heard() == [("Caption.Failed", "a.jpg")]


def test_a_spent_budget_sends_work_back_with_its_reason_and_without_an_end(shop: Workshop, photo: bytes) -> None:
    prefixed = {"prefix_budgets": {"scans/": Decimal("0.000001"), "photos/": Decimal(5)}}
    shop.worker.settings = shop.worker.settings.model_copy(update=prefixed)
    store = ControlTable(shop.dedupe.aws.dynamodb, "control")
    shop.worker.gateway = Gateway(
        endpoints=[Endpoint(shop.endpoint.url)],
        keys=lambda fresh: "a key",
        catalogue=load(),
        budgets=Budgets(shop.worker.settings.prefix_budgets, store),
    )
    shop.dedupe.upload("scans/a.jpg", photo)
    (job,) = shop.jobs()
    job = job.model_copy(update={"queued_at": 0.0})
    assert shop.run(job) == "deferred"
    record = shop.dedupe.record("scans/a.jpg")
    assert record.state == "queued"
    assert record.reason is not None
    assert record.reason.code == "budget_spent"
    assert shop.paid() == []
    settings = shop.worker.settings.model_copy(update={"prefix_budgets": {"photos/": Decimal(5)}})
    shop.worker.settings = settings
    assert shop.run(job) == "captioned"
    assert shop.dedupe.record("scans/a.jpg").reason is None


def test_an_overwrite_while_captioning_keeps_the_newer_one(shop: Workshop, photo: bytes, other_photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("twin.jpg", recompressed(photo))
    (job,) = shop.jobs()
    complete = shop.worker.gateway.complete

    async def overwritten_meanwhile(*arguments: object, **named: object) -> object:
        completion = await complete(*arguments, **named)  # type: ignore[arg-type]
        shop.dedupe.upload("a.jpg", other_photo)
        return completion

    shop.worker.gateway.complete = overwritten_meanwhile  # type: ignore[method-assign, assignment]
    assert shop.run(job) == "superseded"
    assert shop.dedupe.record("a.jpg").state == "queued"
    # What was paid for is right for the picture it was paid for: the twin has it, and nobody pays again.
    twin = shop.dedupe.record("twin.jpg")
    assert (twin.state, twin.source) == ("captioned", "cache")
    shop.worker.gateway.complete = complete  # type: ignore[method-assign]
    (newer,) = shop.jobs()
    assert shop.run(newer) == "captioned"
    assert shop.dedupe.record("a.jpg").result != twin.result


def test_a_delete_while_waiting_for_a_worker_costs_nothing_and_a_twin_leads(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("twin.jpg", recompressed(photo))
    (job,) = shop.jobs()
    shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
    assert shop.run(job) == "superseded"
    assert shop.paid() == []
    (revisit,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert shop.dedupe.deliver(revisit) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    assert shop.dedupe.record("twin.jpg").source == "model"
    assert shop.dedupe.record("a.jpg").state == "deleted"


def test_a_delete_while_captioning_stays_deleted_and_leaves_nothing_in_the_index(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    complete = shop.worker.gateway.complete

    async def deleted_meanwhile(*arguments: object, **named: object) -> object:
        completion = await complete(*arguments, **named)  # type: ignore[arg-type]
        shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
        return completion

    shop.worker.gateway.complete = deleted_meanwhile  # type: ignore[method-assign, assignment]
    assert shop.run(job) == "superseded"
    record = shop.dedupe.record("a.jpg")
    assert record.state == "deleted"
    assert record.result is None
    assert shop.dedupe.upload("b.jpg", photo) == "queued"


def test_the_answer_of_an_object_that_was_deleted_when_its_worker_died_leaves_the_index(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    settle = shop.dedupe.intake.neighbours.settle

    def deleted_and_killed(*arguments: Any, **named: Any) -> None:
        shop.dedupe.deliver(shop.dedupe.aws.delete("a.jpg"))
        settle(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(shop.worker.neighbours, "settle", deleted_and_killed)
        with pytest.raises(KeyboardInterrupt):
            shop.run(job)
    assert shop.run(job) == "superseded"
    assert shop.dedupe.upload("b.jpg", photo) == "queued"


def test_a_worker_taken_for_dead_goes_through_dedupe_again(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.dedupe.clock.at += shop.worker.settings.queue_lease_seconds + 1
    assert shop.dedupe.upload("twin.jpg", recompressed(photo)) == "queued"
    (taken_over,) = shop.jobs()
    assert shop.run(job) == "lost"
    assert shop.paid() == []
    (revisit,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert shop.dedupe.deliver(revisit) == "waiting"
    assert shop.run(taken_over) == "captioned"
    assert shop.dedupe.record("a.jpg").state == "captioned"
    assert len(shop.paid()) == 1


def test_an_object_gone_before_its_turn_is_deleted(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.dedupe.aws.s3.delete_object(Bucket="media", Key="a.jpg", VersionId=job.upload.version_id)
    assert shop.run(job) == "deleted"
    assert shop.paid() == []


def test_a_job_is_not_started_without_time_to_end_it(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    (ending,) = shop.run_all([job], seconds=5.0)
    assert isinstance(ending, JobNotStartedError)
    assert shop.dedupe.record("a.jpg").lease_until is None
    assert shop.paid() == []


def sweeper(shop: Workshop) -> Sweeper:
    settings = SweepSettings(**shop.dedupe.intake.settings.model_dump(include=set(SweepSettings.model_fields)))
    return Sweeper(settings, shop.dedupe.records, shop.worker.queues, shop.dedupe.aws.sqs, shop.dedupe.clock)


@pytest.mark.parametrize("state", ["received", "queued", "waiting"])
def test_the_sweep_finds_what_stopped_on_the_way(shop: Workshop, photo: bytes, state: str) -> None:
    aws, sweep = shop.dedupe.aws, sweeper(shop)
    event, now = aws.put("a.jpg", photo), shop.dedupe.clock.at
    if state == "received":
        upload = from_event(event)
        assert isinstance(upload, Upload)
        shop.dedupe.records.accept(upload, now=now, due=now + 100)
    else:
        shop.dedupe.deliver(event)
        shop.jobs()  # lost
        record = shop.dedupe.record("a.jpg")
        shop.dedupe.records.progress(record.upload, state, now=now, due=now + 100)  # type: ignore[arg-type]
    assert sweep.run(deadline=float("inf")).revisited == 0
    shop.dedupe.clock.at += 1_000
    assert sweep.run(deadline=float("inf")).revisited == 1
    assert sweep.run(deadline=float("inf")).revisited == 0
    (revisit,) = aws.receive(aws.uploads_queue)
    assert shop.dedupe.deliver(revisit) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    shop.dedupe.clock.at += 1_000_000
    assert sweep.run(deadline=float("inf")).revisited == 0


def test_what_breaks_every_worker_is_ended_with_everyone_who_waits_for_it(shop: Workshop, photo: bytes) -> None:
    aws, sweep = shop.dedupe.aws, sweeper(shop)
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("twin.jpg", recompressed(photo))
    leader = shop.dedupe.record("a.jpg").upload
    for _ in range(3):
        # The worker dies with the lease in its hand.
        shop.dedupe.clock.at += 50_000
        now = shop.dedupe.clock.at
        assert isinstance(shop.dedupe.records.begin(leader, now=now, lease_until=now + 60), Begun)
        sweep.run(deadline=float("inf"))
        for revisit in aws.receive(aws.uploads_queue):
            if revisit["upload"]["key"] == leader.key and revisit["reason"] == "sweep":
                assert shop.dedupe.deliver(revisit) == "queued"
    shop.dedupe.clock.at += 50_000
    assert sweep.run(deadline=float("inf")).ended == 1
    (stalled,) = [body for body in aws.receive(aws.uploads_queue) if body["reason"] == "stalled"]
    # While a worker is at it after all, it is not ended.
    now = shop.dedupe.clock.at
    shop.dedupe.records.begin(leader, now=now, lease_until=now + 60)
    assert shop.dedupe.deliver(stalled) == "duplicate"
    shop.dedupe.clock.at += 100
    assert shop.dedupe.deliver(stalled) == "failed"
    for key in ("a.jpg", "twin.jpg"):
        record = shop.dedupe.record(key)
        assert record.state == "failed"
        assert record.reason is not None
        assert record.reason.code == "stalled"
    assert sorted(aws.heard()) == [("Caption.Failed", "a.jpg"), ("Caption.Failed", "twin.jpg")]


@pytest.mark.deep
def test_an_upload_that_merely_stands_on_a_long_queue_is_never_given_up(shop: Workshop, photo: bytes) -> None:
    aws, sweep = shop.dedupe.aws, sweeper(shop)
    shop.dedupe.upload("a.jpg", photo)
    (first,) = shop.jobs()
    for _ in range(60):
        shop.dedupe.clock.at += 800
        assert sweep.run(deadline=float("inf")).ended == 0
        for revisit in aws.receive(aws.uploads_queue):
            assert shop.dedupe.deliver(revisit) == "queued"
    # Thirteen hours: its job was sent again now and then, ever more seldom, as it might have been lost.
    assert len(shop.jobs()) <= 16
    assert shop.run(first) == "captioned"


def test_one_record_that_cannot_be_put_back_does_not_stop_the_sweep(shop: Workshop, photo: bytes) -> None:
    sweep = sweeper(shop)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        shop.dedupe.upload(name, photo)
    send = sweep.queues.send

    def picky(queue: str, message: object, **delay: float) -> None:
        if "b.jpg" in str(message):
            raise ValueError("refused")
        send(queue, message, **delay)  # type: ignore[arg-type]

    sweep.queues.send = picky  # type: ignore[method-assign, assignment]
    shop.dedupe.clock.at += 10_000
    assert sweep.run(deadline=float("inf")).revisited == 2


def test_an_answer_stored_by_a_worker_that_then_died_is_not_paid_for_again(shop: Workshop, speech: bytes) -> None:
    shop.dedupe.upload("a.wav", speech)
    assert shop.dedupe.upload("b.wav", speech) == "waiting"
    (job,) = shop.jobs()
    shop.worker._handover.settle = lambda *_, **__: None  # type: ignore[method-assign]
    assert shop.run(job) == "captioned"  # and told nobody
    shop.dedupe.clock.at += 10_000
    revisit = {"type": "revisit", "reason": "sweep", "upload": shop.dedupe.record("b.wav").upload.model_dump()}
    assert shop.dedupe.deliver(revisit) == "hit"
    assert shop.dedupe.record("b.wav").result == shop.dedupe.record("a.wav").result
    assert len(shop.paid()) == 1


def test_an_answer_in_another_language_than_the_claim_is_for_is_not_shared(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (english,) = shop.jobs()
    shop.dedupe.intake.settings = shop.dedupe.intake.settings.model_copy(update={"language": "de"})
    revisit = {"type": "revisit", "reason": "sweep", "upload": english.upload.model_dump()}
    assert shop.dedupe.deliver(revisit) == "queued"
    (german,) = shop.jobs()
    assert shop.run(english) == "captioned"
    assert shop.run(german) == "settled"
    assert shop.dedupe.upload("b.jpg", photo) == "queued"


def test_an_answer_to_another_prompt_than_the_claim_is_for_is_not_shared(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("twin.jpg", recompressed(photo))
    (job,) = shop.jobs()
    assert shop.run(job.model_copy(update={"prompt_version": "caption-0ld"})) == "captioned"
    assert shop.dedupe.record("twin.jpg").state == "waiting"
    (revisit,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert shop.dedupe.deliver(revisit) == "queued"


def test_answers_that_are_always_cut_short_are_not_paid_for_all_day(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "truncated"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    endings: list[str] = []
    while not endings or endings[-1] == "deferred":
        endings.append(shop.run(job.model_copy(update={"unusable": len(endings)})))
        shop.dedupe.clock.at += 900
        assert len(endings) < 9
    assert endings[-1] == "failed"
    assert len(endings) <= 4
    record = shop.dedupe.record("a.jpg")
    assert record.reason is not None
    assert record.reason.code == "unusable_answers"
    assert record.provenance is not None
    assert len(record.provenance.attempts) == len(shop.endpoint.requests())


def test_an_answer_is_known_by_its_claim_though_dedupe_died_before_it_noted_that(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.dedupe.aws.dynamodb.update_item(
        TableName="captions",
        Key={"asset": {"S": job.upload.asset}},
        UpdateExpression="REMOVE claim SET #state = :received",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":received": {"S": "received"}},
    )
    assert shop.run(job) == "captioned"
    assert shop.dedupe.record("a.jpg").claim == job.claim


def test_one_round_of_nonsense_after_a_long_outage_ends_nothing(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "truncated"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job.model_copy(update={"deferrals": 9})) == "deferred"
    shop.endpoint.set_faults([])
    shop.dedupe.clock.at += 900
    assert shop.run(job.model_copy(update={"deferrals": 10, "unusable": 1})) == "captioned"


def test_a_redriven_upload_remembers_what_it_cost(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "refusal"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "blocked"
    blocked = shop.dedupe.record("a.jpg")
    shop.endpoint.set_faults([])
    redrive = {"type": "revisit", "reason": "redrive", "seen": blocked.updated_at}
    assert shop.dedupe.deliver({**redrive, "upload": blocked.upload.model_dump()}) == "queued"
    (again,) = shop.jobs()
    assert shop.run(again) == "captioned"
    provenance = shop.dedupe.record("a.jpg").provenance
    assert provenance is not None
    assert blocked.provenance is not None
    assert provenance.attempts[:-1] == blocked.provenance.attempts


@pytest.mark.deep
def test_a_follower_of_a_leader_at_work_is_never_given_up(shop: Workshop, photo: bytes) -> None:
    aws, sweep = shop.dedupe.aws, sweeper(shop)
    shop.dedupe.upload("a.jpg", photo)
    shop.dedupe.upload("twin.jpg", recompressed(photo))
    claim = shop.dedupe.record("a.jpg").claim
    assert claim is not None
    for _ in range(9):
        shop.dedupe.clock.at += 50_000
        shop.worker.neighbours.renew(claim.id, claim.generation, shop.dedupe.clock.at + 60_000)
        sweep.run(deadline=float("inf"))
        for revisit in aws.receive(aws.uploads_queue):
            if revisit["upload"]["key"] == "twin.jpg":
                assert shop.dedupe.deliver(revisit) == "waiting"


def test_events_that_could_not_be_delivered_come_back(shop: Workshop, photo: bytes) -> None:
    aws, sweep = shop.dedupe.aws, sweeper(shop)
    lost = aws.sqs.create_queue(QueueName="lost")["QueueUrl"]
    sweep.settings = sweep.settings.model_copy(update={"rule_dead_letter_queue_url": lost})
    aws.sqs.send_message(QueueUrl=lost, MessageBody=json.dumps(aws.put("a.jpg", photo)))
    assert sweep.run(deadline=float("inf")).restored == 1
    (event,) = aws.receive(aws.uploads_queue)
    assert shop.dedupe.deliver(event) == "queued"
    assert aws.receive(lost) == []
