"""What becomes of an upload before anything is paid for it."""

import contextlib
import io
import time
from typing import Any

import pytest
from PIL import Image

from captions import telemetry
from captions.fingerprint import RADIUS
from captions.pipeline.looking import DECODERS, LEAST_SECONDS, NotStartedError
from captions.records.record import Human, Likeness, Reason
from captions.uploads.version import UnreadableEventError, from_event
from support.pipeline import MEDIA, RESULT, Dedupe, captioned, half_size


def test_a_new_picture_becomes_a_job(dedupe: Dedupe, photo: bytes) -> None:
    assert dedupe.upload("a.jpg", photo) == "queued"
    (job,) = dedupe.jobs()
    assert job.upload.key == "a.jpg"
    assert (job.kind, job.media_type, job.ask.task) == ("image", "image/jpeg", "caption")
    record = dedupe.record("a.jpg")
    assert record.state == "queued"
    assert record.claim == job.claim


@pytest.mark.parametrize("places", ["decoders", "one_large"])
def test_what_waits_too_long_for_a_decoder_is_not_started(places: str, dedupe: Dedupe) -> None:
    large = io.BytesIO()
    Image.new("L", (4_200, 3_000), 90).save(large, "PNG")
    event = dedupe.aws.put("large.png", large.getvalue())
    held = getattr(dedupe.intake.looker, places)
    free = held._value
    for _ in range(free):
        held.acquire()

    with pytest.raises(NotStartedError):
        dedupe.intake.handle(from_event(event), until=time.monotonic() + LEAST_SECONDS + 2)

    assert dedupe.record("large.png").state == "received"
    assert dedupe.intake.looker.decoders._value == (0 if places == "decoders" else DECODERS)
    held.release(free)
    assert dedupe.deliver(event) == "queued"


def test_speech_goes_to_the_audio_queue(dedupe: Dedupe, speech: bytes) -> None:
    assert dedupe.upload("a.wav", speech) == "queued"
    (job,) = dedupe.jobs(dedupe.aws.audio_queue)
    assert (job.kind, job.ask.task) == ("audio", "transcribe")
    assert dedupe.jobs() == []


def test_a_copy_of_a_captioned_picture_costs_nothing(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.jobs()
    assert dedupe.upload("copies/a.jpg", photo) == "hit"
    record = dedupe.record("copies/a.jpg")
    assert (record.state, record.source) == ("captioned", "cache")
    assert record.result == RESULT
    assert record.provenance is not None
    assert (record.provenance.cost, record.provenance.saved) == ("0", "0.0002")
    assert record.provenance.copied_from == "media/a.jpg"
    assert record.provenance.likeness == Likeness(kind="same_bytes", hash_distance=0)
    assert dedupe.jobs() == []
    assert dedupe.aws.heard() == [("Caption.Completed", "copies/a.jpg")]


def test_a_smaller_copy_is_a_hit_too(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    assert dedupe.upload("small.jpg", half_size(photo)) == "hit"
    provenance = dedupe.record("small.jpg").provenance
    assert provenance is not None
    assert (why := provenance.likeness) is not None
    assert (why.kind, why.way) == ("near", "whole")
    assert 0 <= (why.hash_distance or 0) <= RADIUS
    assert (why.luma, why.chroma) == (0, 0), "it was made once more, to the last bit"
    assert (why.luma_limit or 0) > 0
    assert (why.chroma_limit or 0) > 0


def test_a_task_where_every_letter_counts_shares_only_identical_media(dedupe: Dedupe, photo: bytes) -> None:
    ocr = {"caption-task": "ocr"}
    dedupe.upload("a.jpg", photo, metadata=ocr)
    captioned(dedupe, "a.jpg")
    assert dedupe.upload("same.jpg", photo, metadata=ocr) == "hit"
    assert dedupe.upload("small.jpg", half_size(photo), metadata=ocr) == "queued"


def test_video_goes_to_the_pool_of_the_slow(dedupe: Dedupe) -> None:
    film = (MEDIA / "rabbit.webm").read_bytes()
    assert dedupe.upload("film.webm", film) == "queued"
    (job,) = dedupe.jobs(dedupe.aws.audio_queue)
    assert (job.kind, job.ask.task) == ("video", "video")
    assert dedupe.upload("copy.webm", film) == "waiting"


def test_another_picture_is_not_a_hit(dedupe: Dedupe, photo: bytes, other_photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    assert dedupe.upload("b.jpg", other_photo) == "queued"


def test_invoices_that_differ_in_their_numbers_are_never_shared(dedupe: Dedupe) -> None:
    dedupe.upload("a.png", (MEDIA / "invoice-a.png").read_bytes())
    captioned(dedupe, "a.png")
    assert dedupe.upload("b.png", (MEDIA / "invoice-b.png").read_bytes()) == "queued"


@pytest.mark.parametrize("underline", [255, 217], ids=["white", "a pale line besides"])
def test_white_drawings_on_transparency_are_told_apart(dedupe: Dedupe, underline: int) -> None:
    """On white nothing but the line can be seen, while models are sent the drawing on grey."""

    def logo(box: tuple[int, int, int, int]) -> bytes:
        image = Image.new("RGBA", (200, 200), (255, 255, 255, 0))
        image.paste((255, 255, 255, 255), box)
        image.paste((underline,) * 3 + (255,), (20, 190, 180, 191))
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    dedupe.upload("a.png", logo((10, 10, 90, 90)))
    captioned(dedupe, "a.png")
    assert dedupe.upload("same.png", logo((10, 10, 90, 90))) == "hit"
    assert dedupe.upload("other.png", logo((60, 120, 180, 140))) == "queued"


def test_tenants_share_nothing(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update={"tenant_prefix_segments": 1})
    dedupe.upload("acme/a.jpg", photo)
    captioned(dedupe, "acme/a.jpg")
    assert dedupe.upload("acme/deep/b.jpg", photo) == "hit"
    assert dedupe.upload("umbrella/a.jpg", photo) == "queued"


def replicated(dedupe: Dedupe, handling: str) -> None:
    """From now on every object is one that S3 replicated here, which moto has no way to be told."""

    def as_a_replica(parsed: dict[str, Any], **_: Any) -> None:
        parsed["ReplicationStatus"] = "REPLICA"

    dedupe.aws.s3.meta.events.register("after-call.s3.GetObject", as_a_replica)
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update={"replica_handling": handling})


def test_a_replica_is_captioned_for_itself_where_that_is_wanted(dedupe: Dedupe, photo: bytes) -> None:
    replicated(dedupe, "caption")
    assert dedupe.upload("a.jpg", photo) == "queued"


def test_a_replica_is_left_to_its_origin_where_that_is_wanted(dedupe: Dedupe, photo: bytes) -> None:
    replicated(dedupe, "skip")
    event = dedupe.aws.put("a.jpg", photo)
    assert dedupe.deliver(event) == "rejected"
    record = dedupe.record("a.jpg")
    assert record.reason is not None
    assert (record.state, record.reason.code) == ("rejected", "replica")
    assert dedupe.jobs() == []
    assert dedupe.aws.heard() == [("Caption.Rejected", "a.jpg")]
    assert dedupe.deliver(event) == "duplicate"


def test_a_replica_too_large_to_be_read_whole_is_told_by_its_beginning(dedupe: Dedupe, photo: bytes) -> None:
    replicated(dedupe, "skip")
    small = {"max_image_bytes": 1_000, "max_audio_bytes": 1_000}
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update=small)
    dedupe.upload("a.jpg", photo)
    assert dedupe.record("a.jpg").reason == Reason(
        code="replica", message="a replica of another bucket's object, which is captioned there"
    )


def test_an_upload_to_a_bucket_that_replicates_is_no_replica(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update={"replica_handling": "skip"})

    def at_the_origin(parsed: dict[str, Any], **_: Any) -> None:
        parsed["ReplicationStatus"] = "PENDING"

    dedupe.aws.s3.meta.events.register("after-call.s3.GetObject", at_the_origin)
    assert dedupe.upload("a.jpg", photo) == "queued"


def test_a_twin_in_flight_is_waited_for(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    assert dedupe.upload("b.jpg", half_size(photo)) == "waiting"
    assert len(dedupe.jobs()) == 1
    leader = dedupe.record("a.jpg").claim
    assert dedupe.record("b.jpg").state == "waiting"
    assert leader is not None
    followers = dedupe.neighbours.settle(leader.id, leader.generation, "READY", {"asset": "x"})
    assert [follower.key for follower in followers] == ["b.jpg"]


def test_the_same_event_twice_makes_one_job(dedupe: Dedupe, photo: bytes) -> None:
    event = dedupe.aws.put("a.jpg", photo)
    assert dedupe.deliver(event) == "queued"
    assert dedupe.deliver(event) == "duplicate"
    assert len(dedupe.jobs()) == 1


def test_an_event_redelivered_after_a_crash_before_the_job_was_sent_sends_it(dedupe: Dedupe, photo: bytes) -> None:
    event = dedupe.aws.put("a.jpg", photo)
    send = dedupe.intake.queues.send

    def crash(*_: object, **__: object) -> None:
        raise ConnectionError("killed")

    dedupe.intake.queues.send = crash  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        dedupe.deliver(event)
    assert dedupe.record("a.jpg").state == "received"
    dedupe.intake.queues.send = send  # type: ignore[method-assign]
    assert dedupe.deliver(event) == "queued"
    assert len(dedupe.jobs()) == 1


def test_an_older_event_after_a_newer_one_changes_nothing(dedupe: Dedupe, photo: bytes, other_photo: bytes) -> None:
    older = dedupe.aws.put("a.jpg", photo)
    newer = dedupe.aws.put("a.jpg", other_photo)
    assert dedupe.deliver(newer) == "queued"
    before = dedupe.record("a.jpg")
    assert dedupe.deliver(older) == "superseded"
    assert dedupe.record("a.jpg") == before


def test_an_overwrite_starts_anew_and_the_old_result_does_not_come_through(
    dedupe: Dedupe, photo: bytes, other_photo: bytes
) -> None:
    dedupe.upload("a.jpg", photo)
    first = dedupe.record("a.jpg")
    assert dedupe.upload("a.jpg", other_photo) == "queued"
    assert dedupe.record("a.jpg").version_id != first.version_id
    assert dedupe.records.finish(first.upload, "captioned", now=dedupe.clock(), result=RESULT) is None
    assert dedupe.record("a.jpg").state == "queued"


def test_a_delete_ends_the_upload_and_outlives_a_late_event(dedupe: Dedupe, photo: bytes) -> None:
    created = dedupe.aws.put("a.jpg", photo)
    deleted = dedupe.aws.delete("a.jpg")
    assert dedupe.deliver(deleted) == "deleted"
    assert dedupe.deliver(created) == "superseded"
    assert dedupe.record("a.jpg").state == "deleted"
    assert dedupe.aws.heard() == [("Caption.Deleted", "a.jpg")]
    # The first delivery may have died before it told anybody.
    assert dedupe.deliver(deleted) == "duplicate"
    assert dedupe.aws.heard() == [("Caption.Deleted", "a.jpg")]


def test_deleting_an_exemplar_forgets_it_and_leaves_its_copies_their_captions(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.jobs()
    assert dedupe.upload("b.jpg", photo) == "hit"
    deleted = dedupe.aws.delete("a.jpg")
    assert dedupe.deliver(deleted) == "deleted"
    assert dedupe.deliver(deleted) == "duplicate"
    assert dedupe.record("a.jpg").result is None
    assert dedupe.record("b.jpg").result == RESULT
    stored = dedupe.aws.dynamodb.scan(TableName="fingerprints")["Items"]
    assert RESULT.text not in str(stored)
    assert not [item for item in stored if item["sk"]["S"].startswith("e#")]
    assert dedupe.upload("c.jpg", photo) == "queued"


def test_deleting_a_copy_leaves_the_exemplar_in_service(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.upload("b.jpg", photo)
    dedupe.deliver(dedupe.aws.delete("b.jpg"))
    assert dedupe.upload("c.jpg", photo) == "hit"


def test_removing_an_old_version_does_not_delete_the_upload(dedupe: Dedupe, photo: bytes, other_photo: bytes) -> None:
    old = dedupe.aws.put("a.jpg", photo)
    dedupe.deliver(dedupe.aws.put("a.jpg", other_photo))
    event = dedupe.aws.event("Object Deleted", "a.jpg", old["detail"]["object"]["version-id"])
    event["detail"]["deletion-type"] = "Permanently Deleted"
    assert dedupe.deliver(event) == "duplicate"
    assert dedupe.record("a.jpg").state == "queued"


def test_an_object_restored_from_its_delete_marker_is_captioned_again(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    marker = dedupe.aws.delete("a.jpg")
    dedupe.deliver(marker)
    version = marker["detail"]["object"]["version-id"]
    dedupe.aws.s3.delete_object(Bucket="media", Key="a.jpg", VersionId=version)
    event = dedupe.aws.event("Object Deleted", "a.jpg", version)
    event["detail"]["deletion-type"] = "Permanently Deleted"
    # The first version's job still stands on its queue and leads for this very picture.
    assert dedupe.deliver(event) == "waiting"
    assert dedupe.record("a.jpg").state == "waiting"


def test_an_object_that_is_gone_ends_as_deleted(dedupe: Dedupe, photo: bytes) -> None:
    event = dedupe.aws.put("a.jpg", photo)
    dedupe.aws.s3.delete_object(Bucket="media", Key="a.jpg", VersionId=event["detail"]["object"]["version-id"])
    assert dedupe.deliver(event) == "deleted"
    record = dedupe.record("a.jpg")
    assert record.reason is not None
    assert record.reason.code == "gone"


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("empty.jpg", b""),
        ("text.jpg", b"not a picture at all, only a name that says so\n"),
        ("folder/", b""),
        ("truncated.jpg", (MEDIA / "casa-mila.jpg").read_bytes()[:9_000]),
    ],
)
def test_what_will_not_be_captioned_is_rejected_with_its_reason(dedupe: Dedupe, key: str, data: bytes) -> None:
    assert dedupe.upload(key, data) == "rejected"
    record = dedupe.record(key)
    assert record.state == "rejected"
    assert record.reason is not None
    assert record.reason.code
    assert record.reason.message
    assert dedupe.aws.heard() == [("Caption.Rejected", key)]


def test_an_object_above_every_limit_is_rejected_unread(dedupe: Dedupe, photo: bytes) -> None:
    small = {"max_image_bytes": 1_000, "max_audio_bytes": 1_000, "max_video_bytes": 1_000}
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update=small)
    assert dedupe.upload("a.jpg", photo) == "rejected"
    record = dedupe.record("a.jpg")
    assert record.reason is not None
    assert record.reason.code == "too_large"


def test_words_of_a_person_outlive_every_write_of_the_pipeline(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.aws.dynamodb.update_item(
        TableName="captions",
        Key={"asset": {"S": "media/a.jpg"}},
        UpdateExpression="SET human = :words",
        ExpressionAttributeValues={":words": {"M": {"text": {"S": "Casa Milà, as I saw it"}}}},
    )
    captioned(dedupe, "a.jpg")
    dedupe.upload("a.jpg", half_size(photo))
    dedupe.deliver(dedupe.aws.delete("a.jpg"))
    assert dedupe.record("a.jpg").human == Human(text="Casa Milà, as I saw it")


def test_a_failed_upload_can_be_redriven(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    dedupe.jobs()
    record = dedupe.record("a.jpg")
    assert record.claim is not None
    dedupe.records.finish(record.upload, "failed", now=dedupe.clock(), reason=Reason(code="x", message="x"))
    dedupe.neighbours.settle(record.claim.id, record.claim.generation, "DEAD")
    failed = dedupe.record("a.jpg")
    revisit = {"type": "revisit", "reason": "redrive", "upload": record.upload.model_dump(), "seen": failed.updated_at}
    assert dedupe.deliver(revisit) == "queued"
    (job,) = dedupe.jobs()
    assert job.claim.generation > record.claim.generation
    # The same wish once more, late, is about a record that is no longer as it was seen.
    dedupe.clock.at += 1
    dedupe.records.finish(record.upload, "failed", now=dedupe.clock(), reason=Reason(code="y", message="y"))
    assert dedupe.deliver(revisit) == "duplicate"
    assert dedupe.record("a.jpg").state == "failed"


def test_a_key_with_odd_characters_is_taken_as_it_is(dedupe: Dedupe, photo: bytes) -> None:
    key = "Ordner mit Leerzeichen/a+b%20c — 写真 #1?.jpg"
    assert dedupe.upload(key, photo) == "queued"
    assert dedupe.record(key).key == key


@pytest.mark.parametrize("event", [{}, [], 7, None, {"source": "aws.ec2"}, {"source": "aws.s3", "detail": 3}])
def test_a_message_that_is_no_event_is_refused(event: object) -> None:
    from captions.uploads.version import from_event

    with pytest.raises(UnreadableEventError):
        from_event(event)


@pytest.fixture
def lost_answers(dedupe: Dedupe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table does every update, its answer gets lost, and the SDK makes the call again, as it does by itself."""
    client = dedupe.aws.dynamodb
    update = client.update_item

    def once_more(**arguments: Any) -> Any:
        with contextlib.suppress(client.exceptions.ConditionalCheckFailedException):
            update(**arguments)
        return update(**arguments)

    monkeypatch.setattr(client, "update_item", once_more)


@pytest.mark.usefixtures("lost_answers")
def test_an_end_is_told_although_the_answer_to_its_write_was_lost(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.upload("copy.jpg", photo)
    dedupe.upload("broken.jpg", b"no picture")
    dedupe.deliver(dedupe.aws.delete("copy.jpg"))

    assert dedupe.aws.heard() == [
        ("Caption.Completed", "copy.jpg"),
        ("Caption.Rejected", "broken.jpg"),
        ("Caption.Deleted", "copy.jpg"),
    ]


def test_a_second_delivery_does_not_take_anothers_end_for_its_own(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    upload = dedupe.record("a.jpg").upload

    ends = [dedupe.records.finish(upload, "captioned", now=dedupe.clock() + after, result=RESULT) for after in (0, 0.1)]

    assert [end is not None for end in ends] == [True, False]


def test_each_decision_is_logged_with_its_claim_and_scope_for_whoever_looks_for_a_cache_that_split(
    dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(telemetry.logger(), "debug", lambda event, **fields: lines.append({"event": event, **fields}))
    dedupe.upload("a.jpg", photo)
    dedupe.upload("b.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.upload("c.jpg", half_size(photo))

    assert [(line["event"], line["asset"], line["decision"]) for line in lines] == [
        ("claim_decided", "media/a.jpg", "Lead"),
        ("claim_decided", "media/b.jpg", "Follow"),
        ("claim_decided", "media/c.jpg", "Hit"),
    ]
    claim = dedupe.record("a.jpg").claim
    assert claim is not None
    assert [line["answered_by"] for line in lines] == [claim.id] * 3
    assert [line["claim"] == claim.id for line in lines] == [True, False, False]
    (scope,) = {line["scope"] for line in lines}
    assert scope.startswith("media|caption-")
