"""Keeps what is written beside objects as their records are.

An event only says that an object's record changed: what is written is what the record holds at that moment, so that
events in another order, or twice, end alike. If the record changed while it was written, it is written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from captions import telemetry
from captions.config.policy import Policy
from captions.records.record import Record
from captions.records.table import Records
from captions.uploads.version import WRITTEN_BACK, is_written_back
from captions.write_back.sidecars import files, tags

MARK = "written-back"
"""Name of the user metadata that says a file is ours: it holds the SHA-256 of its content."""
MOST_ROUNDS = 5


class KeepsChangingError(RuntimeError):
    """The record changed each time while it was written; the message is to come again."""


class WriteBack:
    """Writes captions back; `s3` is a boto3 S3 client."""

    def __init__(self, *, records: Records, s3: Any, policies: Callable[[], Policy]) -> None:
        self._records = records
        self._s3 = s3
        self._policies = policies

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
            written = self._write(record, rule.to)
            again = self._records.get(asset)
            if again is not None and again.updated_at == record.updated_at:
                return "written" if written else "unchanged"
        raise KeepsChangingError(asset)

    def _write(self, record: Record, kinds: tuple[str, ...]) -> bool:
        wanted = files(record, kinds) if record.state == "captioned" else {}
        changed = False
        for end in WRITTEN_BACK:
            if end in wanted:
                changed |= self._put(record, end, *wanted[end])
            else:
                changed |= self._remove(record, end)
        if "tags" in kinds and record.state != "deleted":
            changed |= self._tag(record)
        return changed

    def _put(self, record: Record, end: str, text: str, media_type: str) -> bool:
        body = text.encode("utf-8", "replace")
        digest = hashlib.sha256(body).hexdigest()
        there = self._mark(record, end)
        if there == digest:
            return False
        if there == "":
            telemetry.logger().warning("sidecar_of_somebody_else", asset=record.asset, end=end)
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
        """The digest that a file of ours holds; "" for one of somebody else, None where there is none."""
        from botocore.exceptions import ClientError

        try:
            answer = self._s3.head_object(Bucket=record.bucket, Key=record.key + end)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
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
