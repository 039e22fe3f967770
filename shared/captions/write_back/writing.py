"""Keeps what is written beside objects as their records are.

An event only says that an object's record changed: what is written is what the record holds at that moment, so that
events in another order, or twice, end alike. If the record changed while it was written, it is written again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from captions import telemetry
from captions.config.policy import Policy, WriteBackRule
from captions.records.record import Record
from captions.records.table import Records
from captions.uploads.s3_objects import explained, unreadable
from captions.uploads.version import COPIES_WRITTEN_BACK, WRITTEN_BACK, is_written_back
from captions.write_back.embedding import NotEmbeddableError, embed, extension_of
from captions.write_back.metadata import metadata
from captions.write_back.sidecars import as_xmp, files, tags

MARK = "written-back"
"""Name of the user metadata that says a file is ours: it holds the SHA-256 of its content."""
MOST_ROUNDS = 5
MOST_KEY_BYTES = 1_024
"""Of an object's key (Amazon S3 user guide, "Naming Amazon S3 objects")."""
MOST_EMBEDDED_BYTES = 40_000_000
"""Of a file that is copied with its caption inside: one at a time is held in memory, up to three times over."""
EMBEDDED = "embedded 2"
"""Changes where the same words would be written into a file in another way: then copies are made again."""
PICTURES = frozenset({"image", "animation", "document"})
_MEDIA_TYPES = {
    ".caption.jpg": "image/jpeg", ".caption.png": "image/png", ".caption.webp": "image/webp",
    ".caption.tif": "image/tiff", ".caption.gif": "image/gif",
}  # fmt: skip


class KeepsChangingError(RuntimeError):
    """The record changed each time while it was written; the message is to come again."""


class WriteBack:
    """Writes captions back; `s3` is a boto3 S3 client.

    Copies go into `copies_bucket`, or into the bucket of their object.
    """

    def __init__(
        self, *, records: Records, s3: Any, policies: Callable[[], Policy], copies_bucket: str | None = None
    ) -> None:
        self._records = records
        self._s3 = s3
        self._copies_bucket = copies_bucket
        self._policies = policies
        self._one_file = threading.Lock()

    def take(self, asset: str, key: str) -> str:
        """Write what the record of an asset holds to where a rule says; say what became of it."""
        if is_written_back(key):
            return "own"
        for _ in range(MOST_ROUNDS):
            record = self._records.get(asset)
            if record is None:
                return "no_record"
            rule = self._policies().write_back_rule(record.key, record.kind or "")
            if rule is None:
                return "no_rule"
            written = self._write(record, rule)
            again = self._records.get(asset)
            if again is not None and again.updated_at == record.updated_at:
                return "written" if written else "unchanged"
        raise KeepsChangingError(asset)

    def _write(self, record: Record, rule: WriteBackRule) -> bool:
        kinds = rule.to
        # What is captioned once more keeps its caption meanwhile: whatever has a result is captioned.
        wanted = files(record, kinds)
        changed = False
        for end in WRITTEN_BACK:
            if end in wanted:
                changed |= self._put(record, end, *wanted[end])
            else:
                changed |= self._remove(record, end)
        if rule.copies:
            changed |= self._copy(record, rule)
        if "tags" in kinds and record.state != "deleted":
            changed |= self._tag(record)
        return changed

    def _copy(self, record: Record, rule: WriteBackRule) -> bool:
        """Keep the copy that carries its caption: it is what the file, the words and the rule make together."""
        place, result = rule.copies + record.key, record.result
        if result is None or record.kind not in PICTURES:
            return self._remove_copies(record, place, but=None)
        xmp = as_xmp(record, result)
        made_of = [EMBEDDED, rule.existing, record.etag, record.version_id or "", xmp]
        if "metadata" in rule.to:
            # An object may be written again with the same bytes and other metadata: its sequencer tells.
            made_of += [*sorted({"embed", "metadata"} & set(rule.to)), record.sequencer, record.source or ""]
        digest = hashlib.sha256("\n".join(made_of).encode("utf-8", "replace")).hexdigest()
        bucket = self._copies_bucket or record.bucket
        marks = {end: self._mark_of(bucket, place + end) for end in COPIES_WRITTEN_BACK}
        if digest in marks.values():
            return False
        try:
            with self._one_file:
                media = self._media(record)
                if media is None:
                    return False  # another version is there by now, whose own event comes
                data, own = media
                end = f".caption.{extension_of(data)}"
                if marks[end] == "":
                    raise NotEmbeddableError("something of somebody else has the copy's key, or it is too long")
                marked = {MARK: digest}
                self._s3.put_object(
                    Bucket=bucket,
                    Key=place + end,
                    Body=embed(data, xmp, rule.existing) if "embed" in rule.to else data,
                    ContentType=_MEDIA_TYPES[end],
                    Metadata=metadata(record, result, own, marked) if "metadata" in rule.to else marked,
                )
        except NotEmbeddableError as error:
            telemetry.logger().warning(
                "not_embedded" if "embed" in rule.to else "not_copied", asset=record.asset, reason=str(error)
            )
            return self._remove_copies(record, place, but=None)
        self._remove_copies(record, place, but=end)
        return True

    def _media(self, record: Record) -> tuple[bytes, Mapping[str, str]] | None:
        """Return the file a record is about and its user metadata; None where it is another one by now.

        Raises NotEmbeddableError where it is too large, or S3 does not hand it out.
        """
        from botocore.exceptions import ClientError

        if record.size > MOST_EMBEDDED_BYTES:
            raise NotEmbeddableError(f"it has more than {MOST_EMBEDDED_BYTES:,} bytes")
        version = {"VersionId": record.version_id} if record.version_id else {}
        try:
            answer = self._s3.get_object(Bucket=record.bucket, Key=record.key, **version)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 405):
                return None  # the version went meanwhile: the event of its deletion is on its way
            refused = unreadable(error, record.asset)
            # What the function may not do is for an operator to put right; the message waits for it among dead letters.
            if refused is not None and refused.code != "access_denied":
                raise NotEmbeddableError(refused.message) from error
            raise
        if record.etag and answer["ETag"].strip('"') != record.etag:
            return None
        return answer["Body"].read(), answer.get("Metadata", {})

    def _remove_copies(self, record: Record, place: str, *, but: str | None) -> bool:
        removed, bucket = False, self._copies_bucket or record.bucket
        for end in COPIES_WRITTEN_BACK:
            if end != but and self._mark_of(bucket, place + end):
                self._s3.delete_object(Bucket=bucket, Key=place + end)
                removed = True
        return removed

    def _put(self, record: Record, end: str, text: str, media_type: str) -> bool:
        body = text.encode("utf-8", "replace")
        digest = hashlib.sha256(body).hexdigest()
        there = self._mark(record, end)
        if there == digest:
            return False
        if there == "":
            telemetry.logger().warning("sidecar_key_not_ours", asset=record.asset, end=end)
            return False
        self._s3.put_object(
            Bucket=record.bucket,
            Key=record.key + end,
            Body=body,
            ContentType=media_type,
            Metadata={MARK: digest},
        )
        return True

    def _remove(self, record: Record, end: str) -> bool:
        if not self._mark(record, end):
            return False
        self._s3.delete_object(Bucket=record.bucket, Key=record.key + end)
        return True

    def _mark(self, record: Record, end: str) -> str | None:
        return self._mark_of(record.bucket, record.key + end)

    def _mark_of(self, bucket: str, key: str) -> str | None:
        """The digest that a file of ours holds; None where there is none, "" for what is not ours to write.

        That is a file of somebody else, or a key that is too long for one.
        """
        from botocore.exceptions import ClientError

        if len(key.encode("utf-8", "surrogatepass")) > MOST_KEY_BYTES:
            return ""
        try:
            answer = self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                return None
            if status == 400 and unreadable(explained(self._s3, error, bucket, key), key) is not None:
                return ""  # encrypted with a key of somebody else's (SSE-C), which ours never are
            raise
        return str(answer.get("Metadata", {}).get(MARK, ""))

    def _tag(self, record: Record) -> bool:
        from botocore.exceptions import ClientError

        version = {"VersionId": record.version_id} if record.version_id else {}
        try:
            answer = self._s3.get_object_tagging(Bucket=record.bucket, Key=record.key, **version)
            present = {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}
            wanted = tags(record, present)
            if wanted == present:
                return False
            tag_set = [{"Key": name, "Value": value} for name, value in wanted.items()]
            self._s3.put_object_tagging(Bucket=record.bucket, Key=record.key, Tagging={"TagSet": tag_set}, **version)
        except ClientError as error:
            # The version went meanwhile: the event of its deletion is on its way.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 405):
                return False
            raise
        return True
