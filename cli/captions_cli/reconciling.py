"""Finds uploads of which the pipeline has had no event, and sends it the events that S3 should have sent.

An event so made comes after everything that is recorded of its object, and before every later event of S3: sequencers
are compared as text padded with zeros to a width that S3 does not use up, and the last digit is raised by one. For an
object without a record it has none, which counts as older than any. So a late event of S3 always takes its place, and
the same event made twice is the same event.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Literal

from captions.records.record import Record
from captions.records.table import READ_AT_ONCE
from captions.uploads.version import SEQUENCER_WIDTH, is_written_back
from captions_cli import listing
from captions_cli.stack import Stack

SENT_AT_ONCE = 10
"""Messages of one SendMessageBatch."""
SAMPLE = 200
"""Captions by models whose cost is averaged for the estimate."""
SAMPLE_DAYS = 30

LostKind = Literal["missing", "replaced", "deleted"]


@dataclass(frozen=True)
class Listed:
    """The newest version of one object as S3 lists it; a delete marker is one."""

    key: str
    version_id: str | None
    etag: str
    size: int
    modified: datetime
    is_marker: bool


@dataclass(frozen=True)
class Lost:
    """What no event came for: an object without a record, a version newer than the record's, a deletion."""

    kind: LostKind
    listed: Listed
    record: Record | None


@dataclass
class Tally:
    """What a comparison found; `recent` are left alone because their events may still be on their way."""

    listed: int = 0
    in_order: int = 0
    recent: int = 0
    lost: dict[LostKind, int] = field(default_factory=lambda: {"missing": 0, "replaced": 0, "deleted": 0})
    sent: int = 0


@dataclass
class IndexTally:
    """How many uploads stood in no index for people, and how many of them do now."""

    unindexed: int = 0
    indexed: int = 0


def index(stack: Stack, *, prefix: str = "", most: int | None = None, dry_run: bool = False) -> IndexTally:
    """Give up to `most` ended uploads their places in the indexes; what moves meanwhile takes its own."""
    counted = IndexTally()
    for record in islice(stack.records.unindexed(f"{stack.bucket}/{prefix}"), most):
        counted.unindexed += 1
        counted.indexed += not dry_run and stack.records.index(record)
    return counted


def compare(stack: Stack, tally: Tally, *, prefix: str = "", older_than: float = 900.0) -> Iterator[Lost]:
    """Walk through the bucket and yield what the captions table does not know, counting everything in `tally`.

    Objects younger than `older_than` seconds are left alone.
    """
    settled = datetime.now(UTC) - timedelta(seconds=older_than)
    objects = _objects(stack, prefix)
    while batch := list(islice(objects, READ_AT_ONCE)):
        known = {
            record.key: record
            for record in stack.records.read([f"{stack.bucket}/{candidate.key}" for candidate in batch])
        }
        for listed in batch:
            tally.listed += 1
            kind = _judge(listed, known.get(listed.key))
            if kind is None:
                tally.in_order += 1
            elif listed.modified > settled:
                tally.recent += 1
            else:
                tally.lost[kind] += 1
                yield Lost(kind, listed, known.get(listed.key))


def _judge(listed: Listed, record: Record | None) -> LostKind | None:
    if listed.is_marker:
        # Without a record nothing is left to be taken back.
        return "deleted" if record is not None and record.state != "deleted" else None
    if record is None:
        return "missing"
    if record.state == "deleted":
        return "replaced"
    same = (
        record.version_id == listed.version_id
        if listed.version_id is not None
        else record.version_id is None and record.etag in {"", listed.etag}
    )
    return None if same else "replaced"


def _objects(stack: Stack, prefix: str) -> Iterator[Listed]:
    """The newest version of each object, delete markers included."""
    pages = stack.client("s3").get_paginator("list_object_versions").paginate(Bucket=stack.bucket, Prefix=prefix)
    for page in pages:
        for version in page.get("Versions", []):
            if version["IsLatest"] and not is_written_back(version["Key"]):
                yield _listed(version, version["ETag"].strip('"'), version["Size"])
        for marker in page.get("DeleteMarkers", []):
            if marker["IsLatest"] and not is_written_back(marker["Key"]):
                yield _listed(marker, "", 0, is_marker=True)


def _listed(entry: dict[str, Any], etag: str, size: int, *, is_marker: bool = False) -> Listed:
    version = entry.get("VersionId")
    return Listed(
        entry["Key"], None if version in (None, "", "null") else version, etag, size, entry["LastModified"], is_marker
    )


def event(lost: Lost, bucket: str, region: str, *, bulk: bool = False) -> dict[str, Any]:
    """The event that S3 should have sent, as EventBridge would have delivered it; `bulk`: its caption can wait."""
    listed = lost.listed
    about: dict[str, Any] = {"key": listed.key}
    if listed.version_id is not None:
        about["version-id"] = listed.version_id
    if not listed.is_marker:
        about |= {"etag": listed.etag, "size": listed.size}
    if lost.record is not None:
        about["sequencer"] = successor(lost.record.sequencer)
    detail: dict[str, Any] = {"version": "0", "bucket": {"name": bucket}, "object": about, "reason": "reconcile"}
    if bulk:
        detail["lane"] = "bulk"
    if listed.is_marker:
        detail["deletion-type"] = "Delete Marker Created"
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Deleted" if listed.is_marker else "Object Created",
        "time": listed.modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "detail": detail,
    }


def successor(sequencer: str) -> str:
    """The sequencer right after a stored one."""
    return f"{int(sequencer, 16) + 1:0{SEQUENCER_WIDTH}X}"


def send(stack: Stack, lost_uploads: Iterable[Lost], tally: Tally, *, bulk: bool = False) -> None:
    """Put the events of what is lost on the uploads queue; `bulk`: captions from batches will do."""
    sqs, url = stack.client("sqs"), stack.output("UploadsQueueUrl")
    waiting = iter(lost_uploads)
    while batch := list(islice(waiting, SENT_AT_ONCE)):
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(event(lost, stack.bucket, stack.region, bulk=bulk))}
            for number, lost in enumerate(batch)
        ]
        while entries:
            answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
            tally.sent += len(answer.get("Successful", []))
            refused = {failure["Id"] for failure in answer.get("Failed", []) if not failure.get("SenderFault")}
            entries = [entry for entry in entries if entry["Id"] in refused]


def average_cost(stack: Stack) -> Decimal | None:
    """Dollars that a caption by a model cost lately, on the average; None when no cost is known."""
    costs = []
    for record in islice(listing.recent(stack, states=("captioned",), days=SAMPLE_DAYS), SAMPLE * 5):
        made = record.provenance if record.source == "model" else None
        spent = made.answer_spent if made is not None else None
        if spent is not None and spent.exact is not None:
            costs.append(spent.exact)
        if len(costs) == SAMPLE:
            break
    return sum(costs, Decimal(0)) / len(costs) if costs else None
