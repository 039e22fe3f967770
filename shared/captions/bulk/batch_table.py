"""Where the bulk lane keeps what it works on: lines and lists in a bucket, what waits and runs in the control table.

* `lines/<line>` in the bucket: what the line is about, and behind a line's end the request itself.
* `batches/<batch>`: the ids of a batch's lines, in the order of its file.
* `bulk-waiting` in the control table: the lines that are in no batch yet; `bulk-batches`: the batches; `bulk-run`:
  which invocation looks after them now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from captions import control_table
from captions.aws.dynamodb import from_item, to_item
from captions.bulk.protocol import Batch
from captions.cost import Cost
from captions.gateway import Reservation
from captions.queues import Job

T = TypeVar("T")

KEPT_SECONDS = 7 * 86_400
"""How long a batch is still shown once it is closed, and lines are kept at the most (the bucket's lifecycle)."""
SHOWN_SECONDS = 86_400
"""How long a closed batch is shown beside those under way."""
MOST_COUNTED = 1_000
"""Lines that are counted for somebody who looks: about 40 read units."""
_HEAD_BYTES = 32_768
_READERS = 16


@dataclass(frozen=True)
class BatchLine:
    """One upload of a batch."""

    id: str
    job: Job
    lease_until: float
    """Its upload's lease, which is the lane's own: whoever holds it may end the upload."""
    reservation: Reservation | None = None

    def stored(self) -> bytes:
        """Return it as one line of JSON."""
        reservation = self.reservation
        set_aside = {**asdict(reservation), "dollars": str(reservation.dollars)} if reservation is not None else None
        values = {
            "id": self.id,
            "job": self.job.model_dump(mode="json", exclude_none=True),
            "lease_until": self.lease_until,
            "reservation": set_aside,
        }
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def read(cls, text: bytes) -> BatchLine:
        """Read what `stored` wrote."""
        values = json.loads(text)
        aside = values["reservation"]
        if aside is not None:
            aside = Reservation(aside["day"], tuple(aside["scopes"]), Decimal(aside["dollars"]), aside["id"])
        return cls(values["id"], Job.model_validate(values["job"]), float(values["lease_until"]), aside)


@dataclass(frozen=True)
class Waiting:
    """A line that is in no batch yet."""

    line: str
    model: str
    endpoint: str
    size: int
    """Bytes of its request."""
    gathered_at: float
    lease_until: float

    @property
    def key(self) -> control_table.ControlKey:
        """Its item's key: the oldest come first."""
        return control_table.bulk_waiting(f"{self.gathered_at:017.3f}#{self.line}")


@dataclass(frozen=True)
class WaitingCount:
    """How many lines wait."""

    number: int
    complete: bool
    """Whether that is all of them."""
    since: float | None
    """When the first of them was gathered, in epoch seconds; None where none waits."""


class BatchTable:
    """Lines, lists and batches; `dynamodb` and `s3` are boto3 clients, safe to share between threads."""

    def __init__(self, dynamodb: Any, table: str, s3: Any, bucket: str) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._s3 = s3
        self._bucket = bucket

    # -- lines

    def keep(self, line: BatchLine, request: bytes) -> None:
        """Write a line; written again it is the same."""
        self._s3.put_object(Bucket=self._bucket, Key=f"lines/{line.id}", Body=line.stored() + b"\n" + request)

    def waiting_put(self, waiting: Waiting) -> dict[str, Any]:
        """Return the write that has a line wait, for a transaction."""
        values = {**asdict(waiting), "expires_at": int(waiting.lease_until)}
        return {"TableName": self._table, "Item": {**waiting.key, **to_item(values)}}

    def waiting(self) -> list[Waiting]:
        """Return every line that waits, the oldest first (strongly consistent)."""
        stored = []
        for item in self._items(control_table.bulk_waiting()):
            values = {name: value for name, value in from_item(item).items() if name in Waiting.__dataclass_fields__}
            stored.append(Waiting(**values | {name: float(values[name]) for name in ("gathered_at", "lease_until")}))
        return stored

    def count_waiting(self) -> WaitingCount:
        """Count the lines that wait, MOST_COUNTED at the most, by what was written a moment ago."""
        page = self._dynamodb.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": control_table.bulk_waiting()["pk"]},
            ProjectionExpression="sk",
            Limit=MOST_COUNTED,
        )
        items = page["Items"]
        since = float(items[0]["sk"]["S"].partition("#")[0]) if items else None
        return WaitingCount(len(items), "LastEvaluatedKey" not in page, since)

    def line(self, id_: str) -> BatchLine | None:
        """Return what a line is about; None where it is not there any more."""
        head = self._read(f"lines/{id_}", Range=f"bytes=0-{_HEAD_BYTES - 1}")
        if head is not None and b"\n" not in head:
            head = self._read(f"lines/{id_}")
        return BatchLine.read(head.partition(b"\n")[0]) if head is not None else None

    def requests(self, ids: Sequence[str]) -> Iterator[bytes]:
        """Yield the requests of lines, in their order; raises KeyError where one is not there."""
        with ThreadPoolExecutor(_READERS) as readers:
            for some in _by(_READERS, ids):
                for id_, whole in zip(some, readers.map(lambda id_: self._read(f"lines/{id_}"), some), strict=True):
                    if whole is None:
                        raise KeyError(id_)
                    yield whole.partition(b"\n")[2]

    # -- batches

    def form(self, batch: Batch, waiting: Sequence[Waiting]) -> bool:
        """Store a batch with the list of its lines; False where it stands already."""
        listed = json.dumps([asdict(line) for line in waiting]).encode()
        self._s3.put_object(Bucket=self._bucket, Key=f"batches/{batch.id}", Body=listed)
        return self._put(batch, "attribute_not_exists(pk)", {})

    def lines_of(self, batch: Batch) -> list[Waiting]:
        """Return the lines of a batch as they waited, in the order of its file."""
        listed = self._read(f"batches/{batch.id}")
        return [Waiting(**values) for values in json.loads(listed)] if listed is not None else []

    def detach(self, lines: Iterable[Waiting]) -> None:
        """Have lines wait no longer."""
        for some in _by(25, lines):
            left = [{"DeleteRequest": {"Key": line.key}} for line in some]
            while left:
                answer = self._dynamodb.batch_write_item(RequestItems={self._table: left})
                left = answer.get("UnprocessedItems", {}).get(self._table, [])

    def move(self, seen: Batch, batch: Batch) -> bool:
        """Store a batch in place of what was seen; False where it is not so any more."""
        condition = "#state = :was AND #at = :at AND taken = :taken"
        values = {":was": seen.state, ":at": seen.at, ":taken": seen.taken}
        return self._put(batch, condition, {"Names": {"#state": "state", "#at": "at"}, "Values": to_item(values)})

    def batches(self) -> list[Batch]:
        """Return every batch, also those closed lately, the oldest first (strongly consistent)."""
        stored = []
        for item in self._items(control_table.bulk_batch()):
            values = {name: value for name, value in from_item(item).items() if name in Batch.__dataclass_fields__}
            values |= {name: float(values[name]) for name in ("deadline", "at", "gathered_at")}
            values |= {name: Cost.model_validate(values[name]) for name in ("spent", "saved")}
            values |= {name: tuple(values[name]) for name in ("outputs", "failed")}
            stored.append(Batch(**values))
        return sorted(stored, key=lambda batch: batch.deadline)

    def recent(self, now: float) -> list[Batch]:
        """Return the batches that are worked at, and those that were closed within SHOWN_SECONDS."""
        return [batch for batch in self.batches() if batch.state != "closed" or batch.at > now - SHOWN_SECONDS]

    def discard(self, batch: Batch, ids: Iterable[str]) -> None:
        """Remove lines and the list of a batch."""
        for some in _by(1_000, (*(f"lines/{id_}" for id_ in ids), f"batches/{batch.id}")):
            keys = [{"Key": key} for key in some]
            self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})

    # -- one invocation at a time

    def take_over(self, now: float, until: float) -> bool:
        """Become the one that looks after the batches, until then; False where another one does."""
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=control_table.bulk_run(),
                UpdateExpression="SET lease_until = :until, expires_at = :expires",
                # Its own end: botocore repeats a write whose reply was lost.
                ConditionExpression="attribute_not_exists(lease_until) OR lease_until < :now OR lease_until = :until",
                ExpressionAttributeValues=to_item({":until": until, ":now": now, ":expires": int(until) + 86_400}),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def hand_back(self, until: float) -> None:
        """Let another invocation look after the batches at once."""
        try:
            self._dynamodb.delete_item(
                TableName=self._table,
                Key=control_table.bulk_run(),
                ConditionExpression="lease_until = :until",
                ExpressionAttributeValues=to_item({":until": until}),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return

    def _put(self, batch: Batch, condition: str, needs: Mapping[str, Any]) -> bool:
        values = {name: value for name, value in asdict(batch).items() if value is not None}
        values |= {
            "outputs": list(batch.outputs),
            "failed": list(batch.failed),
            "spent": batch.spent.model_dump(),
            "saved": batch.saved.model_dump(),
            "expires_at": int(batch.deadline) + KEPT_SECONDS,
        }
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item={**control_table.bulk_batch(batch.id), **to_item(values)},
                ConditionExpression=condition,
                **{f"ExpressionAttribute{name}": value for name, value in needs.items()},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _items(self, key: control_table.ControlKey) -> Iterator[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": key["pk"]},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    def _read(self, key: str, **options: Any) -> bytes | None:
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=key, **options)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        data: bytes = body.read()
        return data


def _by(number: int, these: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(these)
    while some := list(islice(rest, number)):
        yield some
