"""What an upload is asked, how its answer is judged, what people make of it, and how it is captioned again."""

import io
import json
from collections.abc import Sequence
from typing import Any

import boto3
import pytest
from PIL import Image

from captions import media
from captions.config.policy import load
from captions.overrides import UnreadableOverrideError, read
from captions.picture_class import Looks, classify
from captions.quality.calibration import Platt, bin_of
from captions.queues import Job, Revisit
from captions.records.record import MAX_RESULT_BYTES, Record
from captions.records.reviews import Calibrations, ChangedMeanwhileError, NotReviewableError, Reviews, read_verdicts
from support.pipeline import REGION, Aws
from support.worker import Workshop

EASY, HARD = "GLM-4.5V", "Qwen/Qwen3-VL-32B-Instruct"
UNSURE = json.dumps({"caption": "Something stands on a street.", "tags": [], "safety": "safe", "confidence": 0.1})
SURE = json.dumps({"caption": "A house of stone in the sun.", "tags": ["house"], "safety": "safe", "confidence": 0.9})


def says(text: str, model: str = "*", **more: Any) -> dict[str, Any]:
    return {"fault": "answer", "text": text, "model": model, **more}


def easily(shop: Workshop) -> None:
    """Let the packaged tiers decide, and every picture look easy."""
    shop.worker.policies = lambda: load('[routing]\nimage = "easy"\ncategory_from = 1.0')


def roles(record: Record) -> list[tuple[str, str]]:
    assert record.provenance is not None
    return [(attempt["role"], attempt["model"]) for attempt in record.provenance.attempts]


def reviews(shop: Workshop) -> Reviews:
    return Reviews(shop.dedupe.aws.dynamodb, "captions", "control")


def test_what_an_object_asks_for_is_asked_and_nothing_else_shares_it(shop: Workshop, photo: bytes) -> None:
    titled = {"caption-task": "alt_text", "caption-context-title": "Our stand"}
    record = shop.captioned("a.jpg", photo, metadata=titled)
    assert record.result is not None
    assert (record.result.task, record.result.language) == ("alt_text", "en")
    assert shop.dedupe.upload("b.jpg", photo, metadata=titled) == "hit"
    assert shop.dedupe.upload("c.jpg", photo, metadata={**titled, "caption-context-title": "Theirs"}) == "queued"
    assert shop.dedupe.upload("d.jpg", photo, tags={"caption:task": "alt_text"}) == "queued"


def test_what_cannot_be_done_is_rejected_with_its_reason(shop: Workshop, photo: bytes) -> None:
    for key, text in {
        "a.jpg": {"metadata": {"caption-task": "transcribe"}},
        "b.jpg": {"tags": {"caption:language": "klingon language"}},
    }.items():
        assert shop.dedupe.upload(key, photo, **text) == "rejected"
        record = shop.dedupe.record(key)
        assert record.reason is not None
        assert "caption" in record.reason.message
    assert shop.jobs() == []


def test_a_doubtful_answer_goes_one_step_up_once_and_the_better_is_kept(shop: Workshop, photo: bytes) -> None:
    easily(shop)
    shop.endpoint.set_faults([says(UNSURE, EASY), says(SURE, HARD)])
    record = shop.captioned("a.jpg", photo)
    assert record.result is not None
    assert record.result.text == "A house of stone in the sun."
    assert roles(record) == [("first", EASY), ("escalation", HARD)]
    assert record.provenance is not None
    assert (record.provenance.model, record.provenance.tier, record.provenance.escalated) == (HARD, "easy", True)
    assert [attempt["tier"] for attempt in record.provenance.attempts] == ["easy", "hard"]


@pytest.mark.parametrize("fault", ["server_error", "refusal", "malformed"])
def test_an_escalation_that_fails_keeps_the_first_answer(shop: Workshop, photo: bytes, fault: str) -> None:
    easily(shop)
    higher = load().tiers["hard"].models
    shop.endpoint.set_faults([says(UNSURE, EASY), *({"fault": fault, "model": model} for model in higher)])
    record = shop.captioned("a.jpg", photo)
    assert record.result is not None
    assert record.result.text == "Something stands on a street."
    assert record.provenance is not None
    assert record.provenance.model == EASY
    assert not record.provenance.escalated
    assert len(record.provenance.attempts) > 1


def test_without_the_time_for_it_nothing_escalates(shop: Workshop, photo: bytes) -> None:
    shop.worker.policies = lambda: load(
        '[routing]\nimage = "easy"\ncategory_from = 1.0\n[escalation]\nleast_seconds = 500.0'
    )
    shop.endpoint.set_faults([says(UNSURE, EASY)])
    assert roles(shop.captioned("a.jpg", photo)) == [("first", EASY)]


def test_a_spoilt_answer_is_shown_to_its_model_once(shop: Workshop, photo: bytes) -> None:
    easily(shop)
    shop.endpoint.set_faults([says('{"caption": ""}', EASY, times=1), says(SURE, EASY)])
    record = shop.captioned("a.jpg", photo)
    assert roles(record) == [("first", EASY), ("repair", EASY)]
    assert record.provenance is not None
    assert [attempt["outcome"] for attempt in record.provenance.attempts] == ["unfit", "ok"]
    assert record.result is not None
    assert record.result.text == "A house of stone in the sun."


def test_a_second_delivery_of_an_escalated_job_pays_nothing(shop: Workshop, photo: bytes) -> None:
    easily(shop)
    shop.endpoint.set_faults([says(UNSURE, EASY), says(SURE, HARD)])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert [shop.run(job), shop.run(job)] == ["captioned", "settled"]
    assert len(shop.endpoint.requests()) == 2


# -- captioned again --------------------------------------------------------------------------------------------------


def test_forced_a_caption_is_asked_for_anew_and_the_next_copy_gets_it(shop: Workshop, photo: bytes) -> None:
    shop.captioned("a.jpg", photo)
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    shop.endpoint.set_faults([says(SURE)])
    assert shop.recaption("copy.jpg", "force") == "queued"
    pending = shop.dedupe.record("copy.jpg")
    assert pending.state == "queued"
    assert pending.result is not None  # until the new one is there
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    record = shop.dedupe.record("copy.jpg")
    assert record.result is not None
    assert (record.source, record.result.text) == ("model", "A house of stone in the sun.")
    assert record.recaption is None
    assert shop.dedupe.upload("later.jpg", photo) == "hit"
    later = shop.dedupe.record("later.jpg").result
    assert later is not None
    assert later.text == "A house of stone in the sun."


def test_a_recaption_delivered_twice_is_paid_once(shop: Workshop, photo: bytes) -> None:
    shop.captioned("a.jpg", photo)
    record = shop.dedupe.record("a.jpg")
    shop.dedupe.clock.at += 60
    revisit = Revisit(upload=record.upload, reason="recaption", mode="force", seen=record.updated_at)
    assert [shop.dedupe.intake.handle(revisit), shop.dedupe.intake.handle(revisit)] == ["queued", "queued"]
    jobs = shop.jobs()
    assert shop.run(jobs[0]) == "captioned"
    assert {shop.run(job) for job in jobs} == {"settled"}
    assert len(shop.paid()) == 2
    assert shop.dedupe.intake.handle(revisit) == "duplicate"
    assert shop.jobs() == []


def test_a_recaption_that_fails_keeps_the_caption_and_what_it_cost(shop: Workshop, photo: bytes) -> None:
    before = shop.captioned("a.jpg", photo)
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    shop.endpoint.set_faults([{"fault": "refusal"}])
    assert shop.run(job) == "blocked"
    record = shop.dedupe.record("a.jpg")
    assert (record.state, record.result, record.source) == ("captioned", before.result, "model")
    assert record.reason is not None
    assert record.reason.code == "refused"
    assert record.provenance is not None
    assert before.provenance is not None
    assert record.provenance.model == before.provenance.model
    assert len(record.provenance.attempts) > len(before.provenance.attempts)
    # What is reported about the failed try is no answer to whoever waits for one.
    shop.endpoint.clear()
    assert shop.dedupe.upload("b.jpg", photo) == "queued"


def test_stale_goes_by_the_prompt_and_takes_what_is_there_of_the_new_one(shop: Workshop, photo: bytes) -> None:
    shop.captioned("a.jpg", photo)
    shop.dedupe.upload("b.jpg", photo)
    newer = load('[tasks.caption]\nstyle = "concise"')
    shop.dedupe.intake.policies = lambda: newer
    assert shop.recaption("a.jpg", "stale") == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    assert shop.recaption("b.jpg", "stale") == "hit"
    assert shop.dedupe.record("b.jpg").result == shop.dedupe.record("a.jpg").result
    assert len(shop.paid()) == 2


def test_an_object_from_before_the_pipeline_is_captioned(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.aws.put("old.jpg", photo)
    current = shop.dedupe.intake.objects.current("media", "old.jpg")
    assert current is not None
    revisit = Revisit(upload=current, reason="recaption", mode="missing")
    assert shop.dedupe.intake.handle(revisit) == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"


# -- what people make of it ------------------------------------------------------------------------------------------


def test_a_persons_words_stay_and_a_newer_answer_stands_beside_them(shop: Workshop, photo: bytes) -> None:
    record = shop.captioned("a.jpg", photo)
    edited = reviews(shop).edit(record, "Casa Milà, as I saw it", now=shop.dedupe.clock())
    assert edited.result is not None
    assert edited.suggestion is not None
    assert (edited.source, edited.result.text) == ("human", "Casa Milà, as I saw it")
    assert edited.suggestion.result == record.result
    shop.dedupe.clock.at += 60
    shop.endpoint.set_faults([says(SURE)])
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    assert shop.run(job) == "captioned"
    after = shop.dedupe.record("a.jpg")
    assert after.result == edited.result
    assert after.source == "human"
    assert after.suggestion is not None
    assert after.suggestion.result.text == "A house of stone in the sun."
    # A copy takes the model's words: one person's edit is about one upload.
    assert shop.dedupe.upload("copy.jpg", photo) == "hit"
    copied = shop.dedupe.record("copy.jpg").result
    assert copied is not None
    assert copied.text == "A house of stone in the sun."
    accepted = reviews(shop).accept(after, now=shop.dedupe.clock())
    assert accepted.result is not None
    assert (accepted.source, accepted.result.text) == ("model", "A house of stone in the sun.")


def test_verdicts_are_counted_once_by_score_and_a_change_of_mind_moves_them(shop: Workshop, photo: bytes) -> None:
    record = shop.captioned("a.jpg", photo)
    assert record.provenance is not None
    assert record.provenance.score is not None
    index, judge, now = bin_of(record.provenance.score), reviews(shop), shop.dedupe.clock() + 10

    def counts() -> tuple[int, int]:
        assert record.provenance is not None
        result = read_verdicts(shop.dedupe.aws.dynamodb, "control", str(record.provenance.model), "caption")
        return result.accepted[index], result.edited[index]

    accepted = judge.accept(record, now=now)
    assert judge.accept(accepted, now=now + 1) == accepted
    assert counts() == (1, 0)
    with pytest.raises(ChangedMeanwhileError):  # what a second terminal still shows
        judge.accept(record, now=now + 2)
    edited = judge.edit(accepted, "My words", now=now + 3)
    assert counts() == (0, 1)
    assert judge.edit(edited, "My words", now=now + 4) == edited
    judge.edit(edited, "My better words", now=now + 5)
    assert counts() == (0, 1)


def test_a_person_can_caption_what_no_model_would(shop: Workshop, photo: bytes) -> None:
    shop.endpoint.set_faults([{"fault": "refusal"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "blocked"
    with pytest.raises(NotReviewableError):
        reviews(shop).accept(shop.dedupe.record("a.jpg"), now=1.0)
    edited = reviews(shop).edit(shop.dedupe.record("a.jpg"), "My words", language="de", now=shop.dedupe.clock())
    assert (edited.state, edited.source, edited.reason) == ("captioned", "human", None)


def test_enough_verdicts_calibrate_what_an_answer_is_worth(shop: Workshop, photo: bytes) -> None:
    easily(shop)
    shop.endpoint.set_faults([says(SURE.replace("0.9", "0.5"))])
    for verdict, number in (("accepted", 20), ("edited", 80)):
        for index in range(20):
            of_this = number * (index + 1 if verdict == "accepted" else 20 - index) // 100
            shop.dedupe.aws.dynamodb.update_item(
                TableName="control",
                Key={"pk": {"S": f"quality#{EASY}#caption"}, "sk": {"S": "counts"}},
                UpdateExpression=f"ADD {verdict}_{index} :n",
                ExpressionAttributeValues={":n": {"N": str(of_this)}},
            )
    assert roles(shop.captioned("a.jpg", photo)) == [("first", EASY)]
    shop.worker.calibrations = Calibrations(shop.dedupe.aws.dynamodb, "control")
    assert shop.recaption("a.jpg", "force") == "queued"
    (job,) = shop.jobs()
    shop.run(job)
    wary = shop.dedupe.record("a.jpg")
    # People edit most of this model's answers: it is asked no more without a second opinion.
    assert ("escalation", HARD) in roles(wary)


def test_a_job_goes_by_the_policy_it_began_with(shop: Workshop, photo: bytes) -> None:
    routing = '[routing]\nimage = "easy"\ncategory_from = 1.0\n[confidence]\ncalibrated_from = '
    policies = [load(f"{routing}{number}") for number in (77, 33)]
    began_with = policies[-1]
    shop.worker.policies = lambda: policies.pop() if len(policies) > 1 else policies[0]
    least: list[int] = []

    def calibrations(models: Sequence[str], task: str, number: int) -> dict[tuple[str, str], Platt]:
        least.append(number)
        return {}

    shop.worker.calibrations = calibrations
    shop.captioned("a.jpg", photo)
    assert least == [began_with.confidence.calibrated_from] == [33]


# -- where overrides are kept ----------------------------------------------------------------------------------------


def test_an_override_is_read_from_a_parameter_or_an_object(aws: Aws) -> None:
    def client(service: str) -> Any:
        return boto3.client(service, region_name=REGION)  # type: ignore[call-overload] # named at run time

    client("ssm").put_parameter(Name="/captions/policy", Value="a = 1", Type="String")
    client("s3").put_object(Bucket="media", Key="policy.toml", Body=b"b = 2")
    assert read("/captions/policy", client) == "a = 1"
    assert read("s3://media/policy.toml", client) == "b = 2"
    for where in ("/captions/none", "s3://media/none.toml", "s3://nowhere/policy.toml"):
        with pytest.raises(UnreadableOverrideError, match=where):
            read(where, client)


def test_what_was_paid_stays_with_an_upload_that_is_rejected_when_it_is_tried_again(
    shop: Workshop, photo: bytes
) -> None:
    shop.endpoint.set_faults([{"fault": "refusal"}])
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    assert shop.run(job) == "blocked"
    blocked = shop.dedupe.record("a.jpg")
    assert blocked.provenance is not None
    assert blocked.provenance.attempts
    shop.dedupe.intake.policies = lambda: load("[tasks.caption]\nenabled = false")
    redrive = {"type": "revisit", "reason": "redrive", "seen": blocked.updated_at}
    assert shop.dedupe.deliver({**redrive, "upload": blocked.upload.model_dump()}) == "rejected"
    record = shop.dedupe.record("a.jpg")
    assert record.provenance is not None
    assert record.provenance.attempts == blocked.provenance.attempts
    assert record.provenance.cost == blocked.provenance.cost


def test_what_was_paid_stays_with_an_upload_that_follows_in_the_end(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    shop.endpoint.set_faults([{"fault": "answer", "text": "[1, 2"}])
    assert shop.run(job) == "deferred"
    shop.endpoint.clear()
    paid = shop.dedupe.record("a.jpg").attempts
    assert paid
    (again,) = shop.jobs() or (job,)
    # Its lease runs out while the queue is long; a twin leads, and it waits.
    shop.dedupe.clock.at += 3 * shop.worker.settings.queue_lease_seconds
    assert shop.dedupe.upload("twin.jpg", photo) == "queued"
    (twin,) = [job for job in shop.jobs() if job.upload.key == "twin.jpg"]
    assert shop.run(again) == "lost"
    (revisit,) = shop.dedupe.aws.receive(shop.dedupe.aws.uploads_queue)
    assert shop.dedupe.deliver(revisit) == "waiting"
    assert shop.run(twin) == "captioned"
    record = shop.dedupe.record("a.jpg")
    assert (record.state, record.source) == ("captioned", "cache")
    assert record.provenance is not None
    assert record.provenance.attempts == paid


def test_a_persons_words_leave_room_for_the_longest_answer_of_a_model_beside_them(shop: Workshop, photo: bytes) -> None:
    record = shop.captioned("a.jpg", photo)
    with pytest.raises(NotReviewableError, match="bytes"):
        reviews(shop).edit(record, "\u4e2d" * 13_334, now=shop.dedupe.clock.at)
    written = reviews(shop).edit(record, "\u4e2d" * 13_333, now=shop.dedupe.clock.at)
    item = len(written.model_dump_json().encode())
    assert item + MAX_RESULT_BYTES < 400 * 1024


def by_looks(shop: Workshop, photo: bytes, copy: bytes, task: str) -> tuple[bytes, bytes]:
    """Let pictures that look like the photo get another task, and believe that of one of the two alone; that one first.

    A copy may look otherwise than what it was made of: here less sure, elsewhere of another category.
    """
    surer, doubtful = sorted((photo, copy), key=lambda data: looks(data).confidence, reverse=True)
    assert looks(surer).category == looks(doubtful).category
    between = (looks(surer).confidence + looks(doubtful).confidence) / 2
    assert looks(surer).confidence > between > looks(doubtful).confidence
    rules = load(f'[auto.categories]\n{looks(surer).category} = "{task}"\n[routing]\ncategory_from = {between}')
    shop.dedupe.intake.policies = lambda: rules
    return surer, doubtful


def looks(data: bytes) -> Looks:
    picture = media.inspect(data).picture
    assert picture is not None
    return classify(picture)


def half(data: bytes) -> bytes:
    image, out = Image.open(io.BytesIO(data)), io.BytesIO()
    image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.mark.parametrize("doubtful_first", [False, True])
def test_copies_that_look_otherwise_share_the_answer_to_the_task_of_the_first(
    shop: Workshop, photo: bytes, doubtful_first: bool
) -> None:
    surer, doubtful = by_looks(shop, photo, half(photo), "alt_text")
    first, second = (doubtful, surer) if doubtful_first else (surer, doubtful)

    assert shop.dedupe.upload("first.jpg", first) == "queued"
    assert shop.dedupe.upload("second.jpg", second) == "waiting"
    (job,) = shop.jobs()
    assert job.ask.task == ("caption" if doubtful_first else "alt_text")
    assert shop.run(job) == "captioned"
    assert shop.dedupe.upload("third.jpg", second) == "hit"

    results = [shop.dedupe.record(f"{name}.jpg").result for name in ("first", "second", "third")]
    assert results[0] is not None
    assert results == [results[0]] * 3
    assert len(shop.paid()) == 1


def test_what_is_asked_for_by_name_gets_that_task_whatever_its_copies_got(shop: Workshop, photo: bytes) -> None:
    surer, doubtful = by_looks(shop, photo, half(photo), "alt_text")
    assert shop.run(*upload(shop, "a.jpg", surer)) == "captioned"

    assert shop.dedupe.upload("b.jpg", doubtful, metadata={"caption-task": "caption"}) == "queued"
    assert shop.dedupe.upload("c.jpg", doubtful, metadata={"caption-language": "de"}) == "queued"


def test_a_task_where_every_letter_counts_is_shared_with_no_copy_that_looks_otherwise(
    shop: Workshop, photo: bytes
) -> None:
    surer, doubtful = by_looks(shop, photo, half(photo), "ocr")
    assert shop.run(*upload(shop, "a.jpg", surer)) == "captioned"

    assert shop.dedupe.upload("b.jpg", doubtful) == "queued"
    assert shop.dedupe.upload("c.jpg", surer) == "hit"


def test_an_answer_whose_worker_died_before_it_shared_it_is_found_by_a_copy_that_looks_otherwise(
    shop: Workshop, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    surer, doubtful = by_looks(shop, photo, half(photo), "alt_text")
    (job,) = upload(shop, "a.jpg", surer)
    with monkeypatch.context() as killed:
        killed.setattr(shop.worker._handover, "settle", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert isinstance(shop.run_all([job])[0], OSError)
    assert shop.dedupe.record("a.jpg").state == "captioned"
    shop.dedupe.clock.at += shop.dedupe.intake.settings.queue_lease_seconds + 60

    assert shop.dedupe.upload("b.jpg", doubtful) == "hit"
    assert len(shop.paid()) == 1


def upload(shop: Workshop, key: str, data: bytes) -> list[Job]:
    assert shop.dedupe.upload(key, data) == "queued"
    return shop.jobs()
