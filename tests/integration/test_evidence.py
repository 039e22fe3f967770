"""What pictures are compared by is made of their objects: what becomes of copies when an object is there no longer."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from captions import media
from captions.fingerprint import fingerprint_image
from captions.near_duplicates import index
from captions.near_duplicates.evidence import KEPT, ObjectEvidence
from captions.near_duplicates.protocol import Claim, claim_id
from captions.pipeline import looking
from captions.pipeline.looking import NotStartedError
from captions.uploads.s3_objects import Objects
from captions.uploads.version import ObjectVersion, from_event
from support.drawn import cameras_photo, soft_photo
from support.pipeline import BUCKET, Aws, Dedupe, captioned, dedupe_on, half_size


def claim_of(aws: Aws, key: str, data: bytes, *, versioned: bool = True) -> Claim:
    """The claim of an upload as the index keeps it."""
    upload = from_event(aws.put(key, data))
    assert isinstance(upload, ObjectVersion)
    if not versioned:
        upload = upload.model_copy(update={"version_id": None})
    exact = fingerprint_image(data).exact
    return Claim(claim_id("scope", upload), "READY", 1, 0.0, 9e9, upload, exact=exact)


class Counting(Objects):
    """Counts what is read."""

    def __init__(self, s3: Any) -> None:
        super().__init__(s3)
        self.reads: list[str] = []

    def read(self, upload: ObjectVersion) -> bytes:
        self.reads.append(upload.key)
        time.sleep(0.05)
        return super().read(upload)


def evidence_of(aws: Aws) -> tuple[ObjectEvidence, Counting]:
    objects = Counting(aws.s3)
    return ObjectEvidence(objects, media.DEFAULT_LIMITS, nullcontext, nullcontext), objects


def test_evidence_is_that_of_the_upload_itself(aws: Aws, photo: bytes) -> None:
    evidence, _ = evidence_of(aws)
    assert evidence(claim_of(aws, "a.jpg", photo)) == fingerprint_image(photo).evidence


def test_threads_that_need_the_same_evidence_make_it_once(aws: Aws, photo: bytes) -> None:
    evidence, objects = evidence_of(aws)
    claim = claim_of(aws, "a.jpg", photo)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(evidence, [claim] * 8))
    assert made == {fingerprint_image(photo).evidence}
    assert objects.reads == ["a.jpg"]


def test_what_was_decoded_here_is_not_read_again_and_no_more_than_so_much_is_kept(aws: Aws, photo: bytes) -> None:
    evidence, objects = evidence_of(aws)
    claim = claim_of(aws, "a.jpg", photo)
    fingerprint = fingerprint_image(photo)
    evidence.remember(fingerprint)
    assert evidence(claim) == fingerprint.evidence
    assert objects.reads == []
    for number in range(KEPT):
        evidence.remember(type(fingerprint)((f"b:{number}",), fingerprint.phash, fingerprint.evidence))
    assert evidence(claim) == fingerprint.evidence
    assert objects.reads == ["a.jpg"]


def test_an_object_that_has_other_bytes_by_now_is_no_evidence(aws: Aws, photo: bytes, other_photo: bytes) -> None:
    """In a bucket without versions, where nothing else would tell."""
    evidence, _ = evidence_of(aws)
    claim = claim_of(aws, "a.jpg", photo, versioned=False)
    aws.put("a.jpg", other_photo)
    assert evidence(claim) is None
    blind = claim.upload.model_copy(update={"etag": ""})
    assert evidence(Claim(claim.id, "READY", 1, 0.0, 9e9, blind, exact=claim.exact)) is None
    aws.put("a.jpg", photo)
    assert evidence(claim) is not None, "what could not be read once may be there later"


def test_an_error_that_may_pass_is_raised_and_the_next_try_reads_again(aws: Aws, photo: bytes) -> None:
    evidence, objects = evidence_of(aws)
    claim = claim_of(aws, "a.jpg", photo)
    call = aws.s3._make_api_call
    refused = threading.Event()

    def busy(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "GetObject" and not refused.is_set():
            refused.set()
            raise ClientError(
                {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}},  # type: ignore[typeddict-item]
                operation,
            )
        return call(operation, arguments)

    aws.s3._make_api_call = busy
    try:
        with pytest.raises(ClientError):
            evidence(claim)
        assert evidence(claim) == fingerprint_image(photo).evidence
        assert objects.reads == ["a.jpg", "a.jpg"]
    finally:
        aws.s3._make_api_call = call


# -- in the pipeline ---------------------------------------------------------------------------------------------------


def restarted(dedupe: Dedupe) -> Dedupe:
    """Another sandbox on the same tables, which remembers nothing."""
    return dedupe_on(dedupe.aws)


def test_another_sandbox_finds_a_smaller_copy(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    assert restarted(dedupe).upload("small.jpg", half_size(photo)) == "hit"


@pytest.mark.deep
def test_another_sandbox_finds_a_copy_of_a_cameras_photo_as_messengers_make_it_and_pays_for_an_edit(
    dedupe: Dedupe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thin lines are other ones than the copy's, as the fingerprint decodes them: both are read once more."""

    def reduced(photo: Image.Image, quality: int = 85) -> bytes:
        stream = io.BytesIO()
        photo.resize((2048, 1536), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=quality)
        return stream.getvalue()

    photo, stream = cameras_photo("28.60"), io.BytesIO()
    photo.save(stream, "JPEG", quality=95)
    dedupe.upload("a.jpg", stream.getvalue())
    captioned(dedupe, "a.jpg")
    assert restarted(dedupe).upload("copy.jpg", reduced(photo)) == "hit"
    assert restarted(dedupe).upload("edited.jpg", reduced(cameras_photo("23.60"))) == "queued"
    monkeypatch.setattr(index, "MOST_DOUBTED", 0)
    assert restarted(dedupe).upload("other.jpg", reduced(photo, 84)) == "queued", "so many comparisons were made"


@pytest.mark.deep
def test_a_small_price_in_a_reduced_cameras_photo_is_paid_for(dedupe: Dedupe) -> None:
    def saved(photo: Image.Image, quality: int) -> bytes:
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=quality)
        return stream.getvalue()

    def halved(price: str) -> bytes:
        return saved(soft_photo(price, 16).resize((2048, 1152), Image.Resampling.LANCZOS), 85)

    dedupe.upload("a.jpg", saved(soft_photo("71.90", 16), 95))
    captioned(dedupe, "a.jpg")
    assert restarted(dedupe).upload("edited.jpg", halved("77.90")) == "queued"
    captioned(dedupe, "edited.jpg")
    assert restarted(dedupe).upload("copy.jpg", halved("71.90")) == "hit"
    record = dedupe.record("copy.jpg")
    assert record.provenance is not None
    assert str(record.provenance.copied_from).endswith("a.jpg")


def test_a_strongly_compressed_copy_is_found_and_an_edit_saved_the_same_way_is_paid_for(
    dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thumbnails cannot tell what its codec did from an edit; the copy is made once more from the original's pixels."""

    def saved(picture: Image.Image, quality: int) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return stream.getvalue()

    with Image.open(io.BytesIO(photo)) as shown:
        original = saved(shown.convert("RGB").resize((300, 200), Image.Resampling.LANCZOS), 95)
    with Image.open(io.BytesIO(original)) as shown:
        small = shown.convert("RGB")
    edited = small.copy()
    edited.paste(small.crop((40, 40, 60, 60)).rotate(180), (200, 120))
    dedupe.upload("a.jpg", original)
    captioned(dedupe, "a.jpg")
    with monkeypatch.context() as never:
        never.setattr(index, "MOST_DOUBTED", 0)
        assert restarted(dedupe).upload("other.jpg", saved(small, 25)) == "queued"
        # What thumbnails hold for the same is compared all the same, however many look-alikes came before.
        assert restarted(dedupe).upload("alike.jpg", saved(small, 90)) == "hit"
        never.setattr(index, "MOST_CONFIRMED", 0)
        assert restarted(dedupe).upload("alike-too.jpg", saved(small, 89)) == "queued"
    assert restarted(dedupe).upload("copy.jpg", saved(small, 30)) == "hit"
    assert restarted(dedupe).upload("edited.jpg", saved(edited, 30)) == "queued"


def test_a_copy_of_what_was_overwritten_is_a_hit_where_versions_are_kept(
    dedupe: Dedupe, photo: bytes, other_photo: bytes
) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    dedupe.upload("a.jpg", other_photo)
    assert restarted(dedupe).upload("small.jpg", half_size(photo)) == "hit"


def test_a_copy_is_paid_for_where_its_exemplars_version_is_gone_and_the_same_bytes_are_not(
    dedupe: Dedupe, photo: bytes
) -> None:
    dedupe.upload("a.jpg", photo)
    version = dedupe.record("a.jpg").version_id
    captioned(dedupe, "a.jpg")
    dedupe.aws.s3.delete_object(Bucket=BUCKET, Key="a.jpg", VersionId=version)  # its event is still on its way
    other = restarted(dedupe)
    assert other.upload("small.jpg", half_size(photo)) == "queued"
    assert other.upload("same.jpg", photo) == "hit", "which exact keys tell"


def test_a_copy_of_what_is_on_its_way_waits_for_it_in_another_sandbox_too(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    assert restarted(dedupe).upload("small.jpg", half_size(photo)) == "waiting"


def test_who_finds_no_decoder_for_a_comparison_is_delivered_again(
    dedupe: Dedupe, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    other = restarted(dedupe)
    event = dedupe.aws.put("small.jpg", half_size(photo))
    evidence = other.intake.looker.evidence
    decoding, taken = evidence._decoding, threading.BoundedSemaphore(1)
    taken.acquire()
    monkeypatch.setattr(looking, "FREE_WITHIN_SECONDS", 0.1)
    evidence._decoding = lambda: looking._soon(taken)
    with pytest.raises(NotStartedError):
        other.deliver(event)
    evidence._decoding = decoding
    assert other.deliver(event) == "hit"


@pytest.mark.deep
def test_copies_that_come_together_read_their_exemplar_once_in_a_sandbox(dedupe: Dedupe, photo: bytes) -> None:
    dedupe.upload("a.jpg", photo)
    captioned(dedupe, "a.jpg")
    other = restarted(dedupe)
    read: list[str] = []
    call = dedupe.aws.s3._make_api_call

    def noting(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "GetObject":
            read.append(arguments["Key"])
        return call(operation, arguments)

    dedupe.aws.s3._make_api_call = noting
    try:
        events = []
        for number in range(4):
            stream = io.BytesIO()
            with Image.open(io.BytesIO(photo)) as picture:
                picture.save(stream, "JPEG", quality=88 - number)
            events.append(dedupe.aws.put(f"copy-{number}.jpg", stream.getvalue()))
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(other.deliver, events)) == ["hit"] * 4
    finally:
        dedupe.aws.s3._make_api_call = call
    assert read.count("a.jpg") == 2, "for its thumbnail, and for its pixels"
