"""Objects that S3 has and does not hand out: they end with their reason, and get another try."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from captions.queues import Revisit
from support.pipeline import Dedupe
from support.worker import Workshop

REFUSALS = [
    ("InvalidObjectState", 403, "archived", "The operation is not valid for the object's storage class"),
    ("InvalidRequest", 400, "key_unusable", "The object was stored using a form of Server Side Encryption."),
    ("AccessDenied", 403, "access_denied", "not authorized to perform: kms:Decrypt on the resource"),
    ("AccessDenied", 403, "access_denied", "with an explicit deny in a resource-based policy"),
    ("KMS.DisabledException", 400, "key_unusable", "arn:aws:kms:eu-west-1:1:key/2 is disabled."),
    ("KMS.KMSInvalidStateException", 400, "key_unusable", "the key is pending deletion."),
    ("KMS.NotFoundException", 400, "key_unusable", "Invalid keyId"),
    ("KMS.InvalidKeyUsageException", 400, "key_unusable", "wrong usage"),
    ("AllAccessDisabled", 403, "unreadable", "All access to this object has been disabled"),
    ("InvalidRequest", 400, "unreadable", "Something that nobody has seen yet"),
]
PASSING = [
    ("SlowDown", 503), ("InternalError", 500), ("ServiceUnavailable", 503), ("RequestTimeout", 400),
    ("ExpiredToken", 400), ("RequestTimeTooSkewed", 403), ("KMS.ThrottlingException", 400), ("OperationAborted", 409),
    ("TooManyRequests", 429), ("InvalidAccessKeyId", 403),
]  # fmt: skip


class Refusing:
    """An S3 client that refuses the named operations, until it is put right; all else goes to the real one."""

    def __init__(self, s3: Any, code: str, status: int, message: str = "", *, operations: set[str]) -> None:
        self._s3, self.refusing = s3, True
        self._answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
        self._operations = operations

    def __getattr__(self, name: str) -> Any:
        if self.refusing and name in self._operations:

            def refused(**_: Any) -> Any:
                raise ClientError(self._answer, name)  # type: ignore[arg-type]

            return refused
        return getattr(self._s3, name)


def refuse(dedupe: Dedupe, code: str, status: int, message: str = "", operation: str = "get_object") -> Refusing:
    s3 = Refusing(dedupe.aws.s3, code, status, message, operations={operation})
    dedupe.intake.objects._s3 = s3
    return s3


def redriven(dedupe: Dedupe, key: str) -> str:
    record = dedupe.record(key)
    return dedupe.intake.handle(Revisit(upload=record.upload, reason="redrive", seen=record.updated_at))


@pytest.mark.parametrize(("code", "status", "reason", "message"), REFUSALS)
def test_what_s3_refuses_fails_at_once_with_its_reason_and_can_be_redriven(
    dedupe: Dedupe, photo: bytes, code: str, status: int, reason: str, message: str
) -> None:
    s3 = refuse(dedupe, code, status, message)
    event = dedupe.aws.put("a.jpg", photo)
    assert [dedupe.deliver(event), dedupe.deliver(event)] == ["failed", "duplicate"]
    record = dedupe.record("a.jpg")
    assert (record.state, record.terminal) == ("failed", True)
    assert record.reason is not None
    assert record.reason.code == reason
    assert redriven(dedupe, "a.jpg") == "failed"
    s3.refusing = False
    assert redriven(dedupe, "a.jpg") == "queued"


@pytest.mark.parametrize(
    ("code", "status"), [("NoSuchKey", 404), ("NoSuchVersion", 404), ("PreconditionFailed", 412), ("InvalidRange", 416)]
)
def test_what_is_another_object_by_now_is_gone(dedupe: Dedupe, photo: bytes, code: str, status: int) -> None:
    refuse(dedupe, code, status)
    assert dedupe.upload("a.jpg", photo) == "deleted"
    assert dedupe.record("a.jpg").state == "deleted"


@pytest.mark.parametrize(("code", "status"), PASSING)
def test_what_may_pass_is_delivered_again(dedupe: Dedupe, photo: bytes, code: str, status: int) -> None:
    s3 = refuse(dedupe, code, status)
    event = dedupe.aws.put("a.jpg", photo)
    with pytest.raises(ClientError):
        dedupe.deliver(event)
    assert dedupe.record("a.jpg").state == "received"
    s3.refusing = False
    assert dedupe.deliver(event) == "queued"


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_captioned_once_it_is_restored(dedupe: Dedupe, photo: bytes, storage_class: str) -> None:
    answer = dedupe.aws.s3.put_object(Bucket="media", Key="a.jpg", Body=photo, StorageClass=storage_class)
    created = dedupe.aws.event("Object Created", "a.jpg", answer["VersionId"], size=len(photo))
    assert dedupe.deliver(created) == "failed"
    reason = dedupe.record("a.jpg").reason
    assert reason is not None
    assert reason.code == "archived"
    restored = dedupe.aws.event("Object Restore Completed", "a.jpg", answer["VersionId"], size=len(photo))
    del restored["detail"]["object"]["sequencer"]
    assert dedupe.deliver(restored) == "failed"  # S3 has not restored it after all
    dedupe.aws.s3.restore_object(Bucket="media", Key="a.jpg", RestoreRequest={"Days": 1})
    assert [dedupe.deliver(restored), dedupe.deliver(restored)] == ["queued", "duplicate"]


def test_a_restore_changes_nothing_for_what_was_readable_or_is_another_version(
    dedupe: Dedupe, photo: bytes, other_photo: bytes
) -> None:
    first = dedupe.aws.put("a.jpg", photo)["detail"]["object"]["version-id"]
    assert dedupe.upload("a.jpg", other_photo) == "queued"
    current = dedupe.record("a.jpg").version_id
    assert current is not None
    assert dedupe.deliver(dedupe.aws.event("Object Restore Completed", "a.jpg", first)) == "superseded"
    assert dedupe.deliver(dedupe.aws.event("Object Restore Completed", "a.jpg", current)) == "duplicate"
    assert dedupe.deliver(dedupe.aws.event("Object Restore Completed", "never-seen.jpg", first)) == "superseded"


def test_tags_that_may_not_be_read_fail_an_upload_whose_rules_need_them(dedupe: Dedupe, photo: bytes) -> None:
    refuse(dedupe, "AccessDenied", 403, operation="get_object_tagging")
    event = dedupe.aws.put("a.jpg", photo, tags={"captions-language": "de"})
    assert dedupe.deliver(event) in ("failed", "queued")  # queued where the rules ask for no tags
    if "tags" in dedupe.intake.policy.overrides:
        assert dedupe.record("a.jpg").state == "failed"


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (400, "KMS.DisabledException"), (400, "KMS.ThrottlingException"), (403, "")],
)
def test_a_deletion_ends_though_what_is_below_it_cannot_be_looked_at_and_waits_for_what_passes(
    dedupe: Dedupe, photo: bytes, other_photo: bytes, status: int, code: str
) -> None:
    old = dedupe.aws.put("a.jpg", photo)["detail"]["object"]["version-id"]
    dedupe.upload("a.jpg", other_photo)
    if code:
        refuse(dedupe, code, status)
    # A HEAD has no body, so no code: why, a GET tells, where it is refused at all.
    s3 = Refusing(dedupe.intake.objects._s3, str(status), status, operations={"head_object"})
    dedupe.intake.objects._s3 = s3
    removed = dedupe.aws.event("Object Deleted", "a.jpg", old)
    removed["detail"]["deletion-type"] = "Permanently Deleted"
    if code in ("", "KMS.ThrottlingException"):
        with pytest.raises(ClientError):
            dedupe.deliver(removed)
        s3.refusing = False
    assert dedupe.deliver(removed) == "duplicate"
    assert dedupe.deliver(dedupe.aws.delete("a.jpg")) == "deleted"


def test_a_job_whose_object_became_unreadable_fails_and_can_be_redriven(shop: Workshop, photo: bytes) -> None:
    shop.dedupe.upload("a.jpg", photo)
    (job,) = shop.jobs()
    readable = shop.worker.objects._s3
    shop.worker.objects._s3 = Refusing(readable, "KMS.DisabledException", 400, operations={"get_object"})
    assert shop.run(job) == "failed"
    shop.worker.objects._s3 = readable
    assert redriven(shop.dedupe, "a.jpg") == "queued"
    assert shop.paid() == []
