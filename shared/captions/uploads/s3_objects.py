"""Reads the very version of an object that an event was about, and what its uploader said beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from captions.uploads.version import ObjectVersion


class GoneError(Exception):
    """The version is not there any more: deleted, or overwritten in a bucket without versions."""


class ReplicaError(Exception):
    """S3 replicated this version from another bucket, where it is captioned."""


class UnreadableError(Exception):
    """S3 refuses this version for as long as nobody changes it, its key or its bucket: `code` for programs, `message`.

    Archived (code "archived") or not for the pipeline to read ("access_denied", "key_unusable", "unreadable").
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_ARCHIVED = "InvalidObjectState"
_PASSING = frozenset(
    {
        # Too much at once, or a request that took too long; KMS's own throttling comes through S3 as it is.
        *("SlowDown", "RequestTimeout", "RequestLimitExceeded", "BandwidthLimitExceeded", "Throttling"),
        *("ThrottlingException", "TooManyRequests", "TooManyRequestsException", "KMS.ThrottlingException"),
        *("KMS.LimitExceededException", "KMS.DependencyTimeoutException", "KMS.KMSInternalException"),
        *("InternalError", "ServiceUnavailable"),
        # The function's own credentials or clock, which the next sandbox has new.
        *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidAccessKeyId", "RequestExpired"),
        *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired", "AuthorizationHeaderMalformed"),
    }
)
"""What S3 answers with 400 or 403 that another try may not meet (Amazon S3 API reference, "Error responses")."""

_BARE = ("400", "403")


def unreadable(error: Any, upload: str) -> UnreadableError | None:
    """Return what an answer of S3 means for an object that is there; None where another try may be answered better."""
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message") or "no reason given")
    if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (400, 403) or code in _PASSING or code in _BARE:
        return None
    if code == _ARCHIVED:
        tier = details.get("StorageClass") or details.get("AccessTier") or "an archive tier"
        return UnreadableError("archived", f"{upload} is archived ({tier}) and must be restored before it can be read")
    if code == "InvalidRequest" and "encryption" in message.lower():
        code, message = "SSE-C", "encrypted with a key that its owner gives with each request (SSE-C)"
    kind = "key_unusable" if code == "SSE-C" or code.startswith("KMS") else "unreadable"
    if code == "AccessDenied":
        kind = "access_denied"
    return UnreadableError(kind, f"S3 does not let the pipeline read it: {code}: {message}")


def explained(s3: Any, error: Any, bucket: str, key: str) -> Any:
    """Return what a GET of an object is refused with whose HEAD was refused; the HEAD's own error where it is not.

    A HEAD is answered without a body, so with a bare number where a code would tell what passes (KMS that throttles)
    from what does not.
    """
    if error.response.get("Error", {}).get("Code") in _BARE:
        try:
            s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except s3.exceptions.ClientError as refused:
            return refused
    return error


@dataclass(frozen=True)
class Fetched:
    """An object's bytes and what one request tells besides: its user metadata, and how many tags it has."""

    data: bytes = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tag_count: int = 0


class Objects:
    """Reads objects; `s3` is a boto3 S3 client, safe to share between threads."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def read(self, upload: ObjectVersion) -> bytes:
        """Return the version's bytes. Raises GoneError and UnreadableError as `fetch` does."""
        return self.fetch(upload).data

    def fetch(self, upload: ObjectVersion, *, first: int | None = None, replicas: bool = True) -> Fetched:
        """Return the version's bytes, or only the `first` so many, with the metadata that came along.

        Raises GoneError when S3 has that version no longer, UnreadableError when it does not hand it out, and
        ReplicaError where `replicas` are not wanted. No event of S3 tells a replica from an upload; the answer to a
        request does (Amazon S3 user guide, "Getting replication status information").
        """
        request: dict[str, Any] = {"Bucket": upload.bucket, "Key": upload.key}
        if upload.version_id is not None:
            request["VersionId"] = upload.version_id
        elif upload.etag:
            request["IfMatch"] = upload.etag
        if first is not None and upload.size > first:
            request["Range"] = f"bytes=0-{first - 1}"
        try:
            answer = self._s3.get_object(**request)
            if not replicas and answer.get("ReplicationStatus") == "REPLICA":
                answer["Body"].close()
                raise ReplicaError(f"{upload.asset} is a replica")
            return Fetched(answer["Body"].read(), answer.get("Metadata", {}), int(answer.get("TagCount") or 0))
        except self._s3.exceptions.ClientError as error:
            # 405: the id names a delete marker; 412: the object was overwritten; 416: so it was, as it is shorter than
            # its event told (Amazon S3 API, GetObject).
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 405, 412, 416):
                raise GoneError(f"{upload.asset} is gone") from error
            if (refused := unreadable(error, upload.asset)) is not None:
                raise refused from error
            raise

    def tags(self, upload: ObjectVersion) -> dict[str, str]:
        """Return the version's tags.

        Raises GoneError when S3 has that version no longer, and UnreadableError when it does not tell them.
        """
        request: dict[str, Any] = {"Bucket": upload.bucket, "Key": upload.key}
        if upload.version_id is not None:
            request["VersionId"] = upload.version_id
        try:
            answer = self._s3.get_object_tagging(**request)
        except self._s3.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 405):
                raise GoneError(f"{upload.asset} is gone") from error
            if (refused := unreadable(error, upload.asset)) is not None:
                raise refused from error
            raise
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def current(self, bucket: str, key: str) -> ObjectVersion | None:
        """Return the object's current version, without a sequencer; None when there is none.

        Raises UnreadableError when S3 does not tell.
        """
        try:
            head = self._s3.head_object(Bucket=bucket, Key=key)
        except self._s3.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 405):
                return None
            if (refused := unreadable(explained(self._s3, error, bucket, key), f"{bucket}/{key}")) is not None:
                raise refused from error
            raise
        version = head.get("VersionId")
        return ObjectVersion(
            bucket=bucket,
            key=key,
            version_id=None if version in (None, "null") else version,
            sequencer="0" * 64,
            etag=head["ETag"].strip('"'),
            size=head["ContentLength"],
        )

    def link(self, upload: ObjectVersion, seconds: float) -> str:
        """Return a presigned URL of this version, good for `seconds`, rounded up to a whole one.

        Raises ValueError for an upload without a version: its link would be to whatever has its key by then.
        """
        if upload.version_id is None:
            raise ValueError(f"{upload.asset} has no version to link to")
        request = {"Bucket": upload.bucket, "Key": upload.key, "VersionId": upload.version_id}
        url: str = self._s3.generate_presigned_url("get_object", Params=request, ExpiresIn=math.ceil(seconds))
        return url
