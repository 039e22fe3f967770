"""The captions table: one item per object, and the conditions under which it may change.

Every write names the sequencer it was decided on, so that a repeated, late or out-of-order event or job finds its
condition false instead of overwriting something newer. Only `accept`, `delete` and `reopen` leave a terminal state.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

from captions.aws.dynamodb import to_item
from captions.records.attempts import call_id, cost, kept, paid, totals
from captions.records.attention import ATTENTION, unreviewed, without_caption
from captions.records.record import (
    PENDING,
    SHARDS,
    ClaimRef,
    Draft,
    Ended,
    Human,
    Provenance,
    Reason,
    Recaption,
    Record,
    Result,
    shard_of,
)
from captions.timestamps import timestamp
from captions.uploads.version import ObjectVersion

COUNTED_PAGES = 4
"""Pages of 1 MB read of each shard to count what is on its way: tens of thousands of uploads."""
MAX_DRAFT_BYTES = 12_000
"""Of the answers an upload has while its worker asks on; of longer ones only what they cost is noted."""


_PAID = ("paid", "paid_calls", "paid_unknown", "paid_counted", "paid_tokens")
_SUPERSEDED = (
    "superseded_cost", "superseded_calls", "superseded_unknown", "superseded_counted", "superseded_tokens",
)  # fmt: skip
"""The `totals` of a version's calls: kept beside the version, so that replacing it is a single write that need not read
them."""
_NAMED_IN_CONDITIONS = ("state", "human", "sequencer", "recaption")


@dataclass(frozen=True)
class Accepted:
    """The event was new: the record now stands at `received`."""

    record: Record


@dataclass(frozen=True)
class Duplicate:
    """The same version was accepted before; `record` is where it stands."""

    record: Record


@dataclass(frozen=True)
class Superseded:
    """A newer event of the same object was seen; `record` is what it left."""

    record: Record | None


@dataclass(frozen=True)
class Begun:
    """The worker holds the lease on this upload."""

    record: Record


@dataclass(frozen=True)
class Busy:
    """Another delivery of the same job holds the lease until `lease_until` (epoch seconds)."""

    lease_until: float


class Watch(Protocol):
    """Is told of every record that was changed, and whether that ended it."""

    def __call__(self, item: Mapping[str, Any], *, ended: bool) -> None: ...


class Records:
    """Reads and writes the captions table; `dynamodb` is a boto3 DynamoDB client, safe to share between threads.

    `watch` is told of each change that was stored; it must not fail because of what it does with it.
    """

    def __init__(self, dynamodb: Any, table: str, watch: Watch | None = None) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._watch = watch

    def get(self, asset: str) -> Record | None:
        """Read one record, strongly consistent."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=_key(asset), ConsistentRead=True)
        return Record.from_item(answer["Item"]) if "Item" in answer else None

    def accept(self, upload: ObjectVersion, *, now: float, due: float) -> Accepted | Duplicate | Superseded:
        """Note a new upload, unless this or a newer event of the object was noted before.

        What a person wrote about an earlier version stays beside the record, and what such a version cost in its
        `superseded` sums. `due` is when the sweep shall look.
        """
        values = {
            "bucket": upload.bucket,
            "key": upload.key,
            "version_id": upload.version_id,
            "sequencer": upload.sequencer,
            "etag": upload.etag,
            "size": upload.size,
            "state": "received",
            "received_at": timestamp(now),
            "updated_at": timestamp(now),
            **_pending(upload.asset, due),
        }
        cleared = {
            "reason", "kind", "media_type", "source", "result", "provenance", "attempts", "claim", "lease_until",
            "completed_at", "sweeps", "begun", "suggestion", "recaption", "draft", *_PAID, *ATTENTION,
            *(name for name, value in values.items() if value is None),
        }  # fmt: skip
        changed, item = self._update(
            upload.asset,
            values,
            remove=cleared,
            condition="attribute_not_exists(asset) OR sequencer < :decided_on",
            names={":decided_on": upload.sequencer},
            added=tuple(zip(_SUPERSEDED, _PAID, strict=True)),
        )
        record = Record.from_item(item) if item else None
        if changed and record is not None:
            return Accepted(record)
        if record is not None and record.sequencer == upload.sequencer:
            return Duplicate(record)
        return Superseded(record)

    def delete(self, deletion: ObjectVersion, *, now: float) -> Record | None:
        """Note that the object is gone; None when a newer event makes that untrue, or known.

        The caption goes with the object; what it cost, and what a person wrote, stays.
        """
        reason = Reason(code="deleted", message="the object was deleted")
        values = {
            "bucket": deletion.bucket,
            "key": deletion.key,
            "version_id": deletion.version_id,
            "sequencer": deletion.sequencer,
            **ended(deletion.asset, "deleted", now),
            "reason": reason.model_dump(),
        }
        removed = {"result", "lease_until", "sweeps", "begun", "suggestion", "recaption", "draft", *ATTENTION}
        changed, item = self._update(
            deletion.asset,
            values,
            remove=removed | {name for name, value in values.items() if value is None},
            condition="attribute_not_exists(asset) OR sequencer < :decided_on",
            names={":decided_on": deletion.sequencer},
        )
        return _ended_record(item, deletion.sequencer, now, changed=changed)

    def reopen(self, record: Record, *, now: float, due: float) -> Record | None:
        """Let a failed or blocked upload be tried anew; None when it is not as `record` tells any more.

        What was tried and paid before joins the next provenance.
        """
        attempts = kept((*(record.provenance.attempts if record.provenance else ()), *record.attempts))
        changed, item = self._update(
            record.asset,
            {
                "state": "received",
                "received_at": timestamp(now),
                "updated_at": timestamp(now),
                "attempts": list(attempts) or None,
                **_pending(record.asset, due),
            },
            remove={"reason", "completed_at", "lease_until", "sweeps", "begun", "claim", "provenance", *ATTENTION},
            condition="sequencer = :decided_on AND #state IN (:failed, :blocked) AND updated_at = :seen",
            names={
                ":decided_on": record.sequencer,
                ":seen": record.updated_at,
                ":failed": "failed",
                ":blocked": "blocked",
            },
        )
        return Record.from_item(item) if changed and item else None

    def recaption(self, record: Record, mode: Literal["stale", "force"], *, now: float, due: float) -> Record | None:
        """Send a captioned upload on its way once more; None when it is not as `record` tells any more.

        Its caption stays until the new one is there. What was paid before joins the next provenance.
        """
        attempts = kept((*(record.provenance.attempts if record.provenance else ()), *record.attempts))
        # They move, as an item has no room for very many of them twice; its end brings them back.
        rest = record.provenance.model_copy(update={"attempts": ()}) if record.provenance else None
        before = cost(attempts).pair("paid")
        marker = Recaption(mode=mode, at=timestamp(now), completed_at=record.completed_at, **before)
        changed, item = self._update(
            record.asset,
            {
                "state": "received",
                "received_at": timestamp(now),
                "updated_at": timestamp(now),
                "attempts": list(attempts) or None,
                "provenance": rest.model_dump(exclude_none=True) if rest is not None else None,
                "recaption": marker.model_dump(exclude_none=True),
                **_pending(record.asset, due),
            },
            remove={"reason", "lease_until", "sweeps", "begun"},
            condition="sequencer = :decided_on AND #state = :captioned AND updated_at = :seen",
            names={":decided_on": record.sequencer, ":seen": record.updated_at, ":captioned": "captioned"},
        )
        return Record.from_item(item) if changed and item else None

    def progress(
        self,
        upload: ObjectVersion,
        state: Literal["received", "queued", "waiting"],
        *,
        now: float,
        due: float,
        kind: str | None = None,
        media_type: str | None = None,
        claim: ClaimRef | None = None,
        content: Sequence[str] = (),
    ) -> bool:
        """Move a pending upload on and say when the sweep shall look; False when it is not pending.

        A worker's lease is left alone: the sweep may look at an upload that is being captioned. One that waits for a
        leader which is at work does not stand still, so its sweeps are forgotten.
        """
        values: dict[str, Any] = {
            "state": state,
            "kind": kind,
            "media_type": media_type,
            "claim": claim.model_dump() if claim else None,
            "content": list(content) or None,
            "updated_at": timestamp(now),
            **_pending(upload.asset, due),
        }
        changed, _ = self._update(
            upload.asset,
            values,
            remove={"sweeps", "begun"} if state == "waiting" else (),
            condition="sequencer = :decided_on AND #state IN (:received, :queued, :waiting)",
            names={":decided_on": upload.sequencer, **_states()},
        )
        return changed

    def release(
        self,
        upload: ObjectVersion,
        lease_until: float,
        *,
        now: float,
        due: float,
        attempts: Sequence[Mapping[str, Any]] = (),
        reason: Reason | None = None,
    ) -> bool:
        """Give a lease back without an end; False when it was not held.

        `attempts` are all model calls made for the upload so far, `reason` says why it must wait. A worker that came
        this far shows that the upload does not stand still, so its sweeps and broken deliveries are forgotten.
        """
        changed, _ = self._update(
            upload.asset,
            {
                "updated_at": timestamp(now),
                "attempts": list(attempts) or None,
                "reason": reason.model_dump() if reason else None,
                **_pending(upload.asset, due),
            },
            remove={"lease_until", "sweeps", "begun", "draft"},
            condition="sequencer = :decided_on AND #state IN (:received, :queued, :waiting) AND lease_until = :mine",
            names={":decided_on": upload.sequencer, ":mine": lease_until, **_states()},
        )
        return changed

    def note(
        self,
        upload: ObjectVersion,
        lease_until: float,
        *,
        now: float,
        attempts: Sequence[Mapping[str, Any]],
        draft: Draft,
    ) -> bool:
        """Keep what a worker paid so far before it asks on; False when it does not hold the lease any more.

        `attempts` are all model calls made for the upload so far. Answers that are too long are left out of the draft.
        """
        told = draft.model_dump_json()
        if len(told.encode()) > MAX_DRAFT_BYTES:
            told = draft.model_copy(update={"answers": ()}).model_dump_json()
        changed, _ = self._update(
            upload.asset,
            {"updated_at": timestamp(now), "attempts": list(attempts), "draft": told},
            condition="sequencer = :decided_on AND #state IN (:received, :queued, :waiting) AND lease_until = :mine",
            names={":decided_on": upload.sequencer, ":mine": lease_until, **_states()},
        )
        return changed

    def begin(self, upload: ObjectVersion, *, now: float, lease_until: float) -> Begun | Busy | Duplicate | Superseded:
        """Take the lease on an upload before anything is paid for it.

        Answers Duplicate when the upload already ended, Busy when another worker holds the lease.
        """
        changed, item = self._update(
            upload.asset,
            {"lease_until": lease_until},
            condition="sequencer = :decided_on AND #state IN (:received, :queued, :waiting)"
            " AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            names={":decided_on": upload.sequencer, ":now": now, **_states()},
            counted="begun",
        )
        record = Record.from_item(item) if item else None
        if changed and record is not None:
            return Begun(record)
        if record is None or record.sequencer != upload.sequencer:
            return Superseded(record)
        if record.terminal:
            return Duplicate(record)
        return Busy(float(record.lease_until or 0))

    def finish(
        self,
        upload: ObjectVersion,
        state: Ended,
        *,
        now: float,
        source: Literal["model", "cache", "human"] | None = None,
        result: Result | None = None,
        provenance: Provenance | None = None,
        reason: Reason | None = None,
        kind: str | None = None,
        media_type: str | None = None,
        claim: ClaimRef | None = None,
        content: Sequence[str] = (),
        human: Human | None = None,
    ) -> Record | None:
        """End an upload; None when it was superseded, or had ended before.

        `claim` is the one that the answer was paid under: dedupe may have died before it noted that. `human` is whose
        words the result is (source `human`), about this version from now on.

        What a person wrote or accepted stays the result; a model's answer is then a suggestion beside it. An upload
        that was to be captioned once more, and could not be, keeps the caption it has.
        """
        final, at = ended(upload.asset, state, now), timestamp(now)
        about: dict[str, Any] = {"kind": kind, "media_type": media_type, "claim": claim.model_dump() if claim else None}
        about |= {"content": list(content) or None, "human": human.model_dump() if human else None}
        told = {
            "provenance": provenance.model_dump(exclude_none=True) if provenance else None,
            "reason": reason.model_dump() if reason else None,
        }
        before = {"lease_until", "attempts", "sweeps", "begun", "reason", "recaption", "draft"}
        removed = before | ATTENTION
        pending = "sequencer = :decided_on AND #state IN (:received, :queued, :waiting)"
        names = {":decided_on": upload.sequencer, **_states()}
        reviewed = "#human.#sequencer = :decided_on"
        if state == "deleted":
            gone = removed | {"result", "suggestion"}
            changed, item = self._update(
                upload.asset, {**final, **about, **told}, remove=gone, condition=pending, names=names
            )
            return _ended_record(item, upload.sequencer, now, changed=changed)
        if result is None:
            changed, item = self._update(
                upload.asset,
                {**final, **about, **told, "source": source, **without_caption(upload.asset, state, at)},
                remove=removed,
                condition=f"{pending} AND attribute_not_exists(#recaption)",
                names=names,
            )
            if not changed and item is not None and "recaption" in item:
                # The reason tells why there is no newer caption than this one, whose provenance stays with what was
                # paid since.
                kept_one = Record.from_item(item).provenance or Provenance()
                since = paid(provenance.attempts) if provenance else {}
                told["provenance"] = kept_one.model_copy(update=since).model_dump(exclude_none=True)
                changed, item = self._update(
                    upload.asset,
                    {**ended(upload.asset, "captioned", now), **told},
                    remove=before,
                    condition=f"{pending} AND attribute_exists(#recaption)",
                    names=names,
                )
            return _ended_record(item, upload.sequencer, now, changed=changed)
        answer = result.model_dump(exclude_none=True)
        category = provenance.category if provenance else None
        place = unreviewed(upload.asset, category=category, kind=kind, confidence=result.confidence, at=at)
        changed, item = self._update(
            upload.asset,
            {**final, **about, **told, "source": source, "result": answer, **(place if human is None else {})},
            remove=removed,
            condition=f"{pending} AND NOT (attribute_exists(#human) AND {reviewed})",
            names=names,
        )
        if not changed and item is not None and Record.from_item(item).reviewed:
            suggestion = {"result": answer, "source": source or "model", "at": final["completed_at"]}
            changed, item = self._update(
                upload.asset,
                {**final, **about, **told, "suggestion": suggestion},
                remove=removed,
                condition=f"{pending} AND {reviewed}",
                names=names,
            )
        return _ended_record(item, upload.sequencer, now, changed=changed)

    def end_stalled(self, record: Record, *, now: float, reason: Reason) -> Record | None:
        """Fail a pending upload that got nowhere; None when it moved since, or a worker is at it.

        One that was only to be captioned once more keeps the caption it has.
        """
        before = record.provenance if record.recaption is not None else None
        provenance = (before or Provenance()).model_copy(update=paid(record.attempts))
        state: Ended = "failed" if record.recaption is None else "captioned"
        changed, item = self._update(
            record.asset,
            {
                **ended(record.asset, state, now),
                **without_caption(record.asset, state, timestamp(now)),
                "reason": reason.model_dump(),
                "provenance": provenance.model_dump(exclude_none=True),
            },
            remove={"lease_until", "attempts", "sweeps", "begun", "recaption", "draft"},
            condition="sequencer = :decided_on AND #state IN (:received, :queued, :waiting) AND updated_at = :seen"
            " AND (attribute_not_exists(lease_until) OR lease_until < :now)",
            names={":decided_on": record.sequencer, ":seen": record.updated_at, ":now": now, **_states()},
        )
        return _ended_record(item, record.sequencer, now, changed=changed)

    def add_superseded(self, asset: str, attempts: Sequence[Mapping[str, Any]]) -> None:
        """Account for calls whose answer came too late: their version has ended, or was replaced or deleted.

        Told again, right away as by a client that lost the answer to its write, the same calls are not added again.
        """
        if not attempts:
            return
        sums = {f":{name}": value for name, value in zip(_SUPERSEDED, totals(attempts), strict=True)}
        named = "".join(sorted(call_id(attempt) for attempt in attempts))
        marker = hashlib.sha256(named.encode()).hexdigest()[:16]
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(asset),
                UpdateExpression=f"ADD {', '.join(f'{name} :{name}' for name in _SUPERSEDED)}"
                " SET superseded_last = :marker",
                ConditionExpression="attribute_exists(asset) AND"
                " (attribute_not_exists(superseded_last) OR superseded_last <> :marker)",
                ExpressionAttributeValues=to_item({**sums, ":marker": marker}),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return

    def postpone(self, record: Record, *, due: float, counted: bool = True) -> bool:
        """Say when the next sweep of a pending upload is due; False when it moved on meanwhile.

        `counted`: this sweep put it back, which is one of the tries that an upload has.
        """
        changed, _ = self._update(
            record.asset,
            {"sweeps": record.sweeps + counted, **_pending(record.asset, due)},
            condition="sequencer = :decided_on AND #state = :state AND updated_at = :updated_at",
            names={
                ":decided_on": record.sequencer,
                ":state": record.state,
                ":updated_at": record.updated_at,
            },
        )
        return changed

    def due(self, shard: int, now: float) -> Iterator[Record]:
        """Yield one shard's pending uploads whose time to be looked at has come, longest overdue first."""
        yield from self.read(self._index(f"pending#{shard}", until=timestamp(now), newest_first=False))

    def pending_count(self) -> int:
        """Count the uploads on their way, eventually consistent, and no further than COUNTED_PAGES in each shard."""
        total = 0
        for shard in range(SHARDS):
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="activity",
                KeyConditionExpression="activity = :partition",
                ExpressionAttributeValues=to_item({":partition": f"pending#{shard}"}),
                Select="COUNT",
            )
            total += sum(page["Count"] for page in islice(pages, COUNTED_PAGES))
        return total

    def recent(self, *, days: Iterable[str] = (), pending: bool = True) -> Iterator[Record]:
        """Yield records newest first within each shard: the pending ones, then those that ended on the given days.

        `days` are UTC dates as YYYY-MM-DD.
        """
        partitions = [f"pending#{shard}" for shard in range(SHARDS)] if pending else []
        partitions += [f"{day}#{shard}" for day in days for shard in range(SHARDS)]
        for partition in partitions:
            yield from self.read(self._index(partition, newest_first=True))

    def read(self, assets: Iterable[str]) -> Iterator[Record]:
        """Yield the records of the given assets that exist, reading a hundred at a time."""
        batch: list[str] = []
        for asset in assets:
            batch.append(asset)
            if len(batch) == 100:
                yield from self._read_batch(batch)
                batch = []
        if batch:
            yield from self._read_batch(batch)

    def _read_batch(self, assets: Sequence[str]) -> Iterator[Record]:
        request: dict[str, Any] = {self._table: {"Keys": [_key(asset) for asset in assets], "ConsistentRead": True}}
        found: dict[str, Record] = {}
        while request:
            answer = self._dynamodb.batch_get_item(RequestItems=request)
            for item in answer["Responses"].get(self._table, []):
                record = Record.from_item(item)
                found[record.asset] = record
            request = answer.get("UnprocessedKeys") or {}
        yield from (found[asset] for asset in assets if asset in found)

    def _index(self, partition: str, *, until: str | None = None, newest_first: bool) -> Iterator[str]:
        condition, names = "activity = :partition", {":partition": partition}
        if until is not None:
            condition += " AND activity_at <= :until"
            names[":until"] = until
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="activity",
            KeyConditionExpression=condition,
            ExpressionAttributeValues=to_item(names),
            ScanIndexForward=not newest_first,
        )
        for page in pages:
            for item in page["Items"]:
                yield item["asset"]["S"]

    def _update(
        self,
        asset: str,
        values: Mapping[str, Any],
        *,
        condition: str,
        names: Mapping[str, Any],
        remove: Iterable[str] = (),
        counted: str | None = None,
        added: Sequence[tuple[str, str]] = (),
    ) -> tuple[bool, dict[str, Any] | None]:
        """Update one item under a condition: whether it held, and the item as it then stands (None: there is none).

        `counted` names a number that grows by one with it, `added` pairs of one that grows and the
        number of the item that it grows by.
        """
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        made = given.get("attempts") or given.get("provenance", {}).get("attempts") or ()
        given |= {name: value for name, value in zip(_PAID, totals(made), strict=True) if value}
        placeholders = {name: f"#{name}" for name in (*given, *remove, *_NAMED_IN_CONDITIONS, *itertools.chain(*added))}
        expression = "SET " + ", ".join(f"#{name} = :set_{name}" for name in given)
        bound: dict[str, Any] = {**names, **{f":set_{name}": value for name, value in given.items()}}
        if counted:
            placeholders[counted] = f"#{counted}"
            expression += f", #{counted} = if_not_exists(#{counted}, :zero) + :one"
            bound |= {":zero": 0, ":one": 1}
        for grows, by in added:
            expression += f", #{grows} = if_not_exists(#{grows}, :none) + if_not_exists(#{by}, :none)"
            bound[":none"] = 0
        removed = sorted(set(remove) - set(given))
        if removed:
            expression += " REMOVE " + ", ".join(f"#{name}" for name in removed)
        used = condition + expression
        try:
            answer = self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(asset),
                UpdateExpression=expression,
                ConditionExpression=condition,
                ExpressionAttributeNames={
                    mark: name for name, mark in placeholders.items() if re.search(rf"{mark}\b", used)
                },
                ExpressionAttributeValues=to_item(bound),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as failure:
            return False, failure.response.get("Item")
        if self._watch is not None:
            self._watch(answer["Attributes"], ended="completed_at" in given)
        return True, answer["Attributes"]


def _key(asset: str) -> dict[str, Any]:
    return {"asset": {"S": asset}}


def _states() -> dict[str, str]:
    return {f":{state}": state for state in PENDING}


def _pending(asset: str, due: float) -> dict[str, str]:
    return {"activity": f"pending#{shard_of(asset)}", "activity_at": timestamp(due)}


def _ended_record(item: Mapping[str, Any] | None, sequencer: str, now: float, *, changed: bool) -> Record | None:
    """Return the record as a write that ended it at `now` left it; None if the write did not take place.

    A client that lost the answer to its write makes it again, and that one fails on the first one's effect: this very
    version ended at this very microsecond then.
    """
    if item is None:
        return None
    record = Record.from_item(item)
    ended_here = record.terminal and record.completed_at == record.updated_at == timestamp(now)
    return record if changed or (ended_here and record.sequencer == sequencer) else None


def ended(asset: str, state: str, now: float) -> dict[str, str]:
    """Return what an end writes into a record, its place in the `activity` index with it."""
    at = timestamp(now)
    return {
        "state": state,
        "completed_at": at,
        "updated_at": at,
        "activity": f"{at[:10]}#{shard_of(asset)}",
        "activity_at": at,
    }
