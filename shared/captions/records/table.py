"""The captions table, one item per object: nothing else writes it. It changes by `captions.records.lifecycle`.

Every write names the sequencer it was decided on, so that a repeated, late or out-of-order event or job finds its
condition false instead of overwriting something newer.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from captions import telemetry
from captions.aws.dynamodb import to_item
from captions.records import lifecycle
from captions.records.attempts import CallLedger, call_ids, cost, kept, named, newest, paid, totals
from captions.records.attention import places, unreviewed, without_caption
from captions.records.record import (
    SHARDS,
    ClaimRef,
    Draft,
    Ended,
    Human,
    Likeness,
    Provenance,
    Reason,
    Recaption,
    Record,
    Result,
    shard_of,
)
from captions.records.updates import key_of, written
from captions.timestamps import timestamp
from captions.uploads.version import BEFORE_ITS_EVENT, ObjectVersion

COUNTED_PAGES = 4
"""Pages of 1 MB read of each shard to count what is on its way: tens of thousands of uploads."""
READ_AT_ONCE = 100
"""The most that BatchGetItem takes."""
TRANSACTION_TRIES = 6
"""Of a transaction that conflicts with others."""
_PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Why a transaction is cancelled that may go through a moment later (Amazon DynamoDB API, TransactWriteItems)."""
LONGEST_REST_SECONDS = 0.1
"""Between two of them; a transaction takes about a tenth of that."""
MAX_DRAFT_BYTES = 12_000
"""Of the answers an upload has while its worker asks on; of longer ones only what they cost is noted."""


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


class ChangedMeanwhileError(Exception):
    """The record is not as it was when a person saw it; they should look again."""


class Watch(Protocol):
    """Is called with every record that was changed, whether that ended it, and what marks it as late.

    `mark_late` answers whether this is the first to do so since the record was received.
    """

    def __call__(self, item: Mapping[str, Any], *, ended: bool, mark_late: Callable[[], bool]) -> None:
        """Take note of an item that is written, and of whether its upload ended with it."""
        ...


class Records:
    """Reads and writes the captions table; `dynamodb` is a boto3 DynamoDB client, safe to share between threads.

    `watch` is called with each change that was stored; it must not fail because of what it does with it.
    """

    def __init__(self, dynamodb: Any, table: str, watch: Watch | None = None) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._watch = watch

    def get(self, asset: str) -> Record | None:
        """Read one record, strongly consistent."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=key_of(asset), ConsistentRead=True)
        return Record.from_item(answer["Item"]) if "Item" in answer else None

    def accept(
        self, upload: ObjectVersion, *, now: float, due: float, lane: Literal["bulk"] | None = None
    ) -> Accepted | Duplicate | Superseded:
        """Note a new upload, unless this or a newer event of the object was noted before.

        What a person wrote about an earlier version stays beside the record, and what such a version cost in its
        `superseded` sums. `due` is when the sweep shall look. A version that was taken before its event came
        (`taken_before_its_event`) is no new one to that.
        """
        values = {name: getattr(upload, name) for name in ObjectVersion.model_fields}
        values |= {"lane": lane, **_received(upload.asset, now, due)}
        facts = {"unheard": BEFORE_ITS_EVENT, "version": upload.version_id or ""}
        changed, item = self._change(lifecycle.ACCEPT, upload, values, **facts)
        record = Record.from_item(item) if item else None
        if changed and record is not None:
            if len(ids := newest(record.superseded_ids)) < len(record.superseded_ids):
                self._name_superseded(record, ids)
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
            "reason": reason.model_dump(),
            **ended(deletion.asset, now),
        }
        return _ended_record(*self._change(lifecycle.DELETE, deletion, values), deletion.sequencer, now)

    def reopen(self, record: Record, *, now: float, due: float) -> Record | None:
        """Let a failed or blocked upload be tried again; None when it is not as `record` tells any more.

        What was tried and paid before joins the next provenance.
        """
        values = {"attempts": _tried(record), **_received(record.asset, now, due)}
        changed, item = self._change(lifecycle.REOPEN, record.upload, values, seen=record.updated_at)
        return Record.from_item(item) if changed and item else None

    def recaption(self, record: Record, mode: Literal["stale", "force"], *, now: float, due: float) -> Record | None:
        """Send a captioned upload on its way once more; None when it is not as `record` tells any more.

        Its caption stays until the new one is there. What was paid before joins the next provenance.
        """
        attempts = _tried(record)
        # They move, as an item has no room for very many of them twice; its end brings them back.
        rest = record.provenance.model_copy(update={"attempts": ()}) if record.provenance else None
        before = cost(attempts or ()).pair("paid")
        marker = Recaption(mode=mode, at=timestamp(now), completed_at=record.completed_at, **before)
        values = {
            "attempts": attempts,
            "provenance": _plain(rest),
            "recaption": _plain(marker),
            **_received(record.asset, now, due),
        }
        changed, item = self._change(lifecycle.RECAPTION, record.upload, values, seen=record.updated_at)
        return Record.from_item(item) if changed and item else None

    def progress(
        self,
        upload: ObjectVersion,
        state: Literal["queued", "waiting"],
        *,
        now: float,
        due: float,
        kind: str | None = None,
        media_type: str | None = None,
        claim: ClaimRef | None = None,
        content: Sequence[str] = (),
        likeness: Likeness | None = None,
        lane: Literal["bulk"] | None = None,
    ) -> bool:
        """Move a pending upload on and say when the sweep shall look; False when it is not pending."""
        values = {
            "lane": lane,
            "kind": kind,
            "media_type": media_type,
            "claim": _plain(claim),
            "content": list(content) or None,
            "likeness": _plain(likeness),
            "updated_at": timestamp(now),
            **_pending(upload.asset, due),
        }
        changed, _ = self._change(lifecycle.QUEUE if state == "queued" else lifecycle.WAIT, upload, values)
        return changed

    def identify(self, upload: ObjectVersion, *, kind: str, media_type: str, content: Sequence[str]) -> bool:
        """Note what an upload is that has ended already: a person's words about it are known by its content."""
        values = {"kind": kind, "media_type": media_type, "content": list(content)}
        return self._change(lifecycle.IDENTIFY, upload, values)[0]

    def begin(self, upload: ObjectVersion, *, now: float, lease_until: float) -> Begun | Busy | Duplicate | Superseded:
        """Take the lease on an upload before anything is paid for it.

        Answers Duplicate when the upload already ended, Busy when another worker holds the lease.
        """
        changed, item = self._change(lifecycle.BEGIN, upload, {"lease_until": lease_until}, now=now)
        record = Record.from_item(item) if item else None
        if changed and record is not None:
            return Begun(record)
        if record is None or record.sequencer != upload.sequencer:
            return Superseded(record)
        if record.terminal:
            return Duplicate(record)
        return Busy(float(record.lease_until or 0))

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
        values = {"updated_at": timestamp(now), "attempts": list(attempts), "draft": _text(draft)}
        changed, _ = self._change(lifecycle.NOTE, upload, values, mine=lease_until)
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
        draft: Draft | None = None,
        lane: Literal["now"] | None = None,
    ) -> bool:
        """Give a lease back without an end; False when it was not held.

        `attempts` are all model calls made for the upload so far, `reason` says why it must wait. `draft` is what
        whoever takes over goes on from, `lane` that no batch will answer it.
        """
        values = {
            "updated_at": timestamp(now),
            "attempts": list(attempts) or None,
            "reason": _plain(reason),
            "draft": _text(draft) if draft is not None else None,
            "lane": lane,
            **_pending(upload.asset, due),
        }
        changed, _ = self._change(lifecycle.RELEASE, upload, values, mine=lease_until)
        return changed

    def entrust(
        self, upload: ObjectVersion, lease_until: float, *, now: float, until: float, beside: Mapping[str, Any]
    ) -> bool:
        """Extend a lease until a batch has answered, in one transaction with a Put of another table; False when it was
        not held.

        The sweep looks when the lease is over.
        """
        values = {"updated_at": timestamp(now), "lease_until": until, **_pending(upload.asset, until)}
        update = written(self._table, lifecycle.ENTRUST, upload, values, mine=lease_until)
        return self._transact([{"Update": update}, {"Put": beside}])

    def postpone(self, record: Record, *, due: float, counted: bool = True) -> bool:
        """Say when the next sweep of a pending upload is due; False when it moved on meanwhile.

        `counted`: this sweep put it back, which is one of the tries that an upload has.
        """
        values = {"sweeps": record.sweeps + counted, **_pending(record.asset, due)}
        changed, _ = self._change(lifecycle.POSTPONE, record.upload, values, seen=record.updated_at)
        return changed

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
        poster: bytes | None = None,
        held: Sequence[str] = (),
    ) -> Record | None:
        """End an upload; None when it was superseded, or had ended before.

        `claim` is the one that the answer was paid under: dedupe may have died before it noted that. `human` is whose
        words the result is (source `human`), about this version from now on. `poster` is a small picture of a video.

        What a person wrote or accepted stays the result; a model's answer is then a suggestion beside it. An upload
        that was to be captioned once more, and could not be, keeps the caption it has.

        `held` tells which calls the record holds as far as is known here (`Record.paid_ids`). Others that it holds, as
        of a worker whose lease this one took over, or who takes this one for dead, stay with it.
        """
        values: dict[str, Any] = {
            "kind": kind,
            "media_type": media_type,
            "claim": _plain(claim),
            "content": list(content) or None,
            "provenance": _plain(provenance),
            **ended(upload.asset, now),
        }
        if result is not None:
            category = provenance.category if provenance else None
            place = unreviewed(
                upload.asset, category=category, kind=kind, confidence=result.confidence, at=timestamp(now)
            )
            copy_of = provenance.copied_from if provenance else None
            values |= {"copy_of": copy_of or None, "poster": poster}
            answer: dict[str, Any] = {"source": source, "result": _plain(result)}
            answer |= {"human": human.model_dump()} if human is not None else place
            changed, item = self._change(lifecycle.ANSWER, upload, {**values, **answer}, held=held)
            if not changed and item is not None and Record.from_item(item).reviewed:
                stands = {"result": answer["result"], "source": source or "model", "at": values["completed_at"]}
                changed, item = self._change(lifecycle.SUGGEST, upload, {**values, "suggestion": stands}, held=held)
        elif state == "deleted":
            changed, item = self._change(lifecycle.VANISH, upload, {**values, "reason": _plain(reason)}, held=held)
        else:
            values |= {"state": state, "reason": _plain(reason)}
            values |= without_caption(upload.asset, state, timestamp(now))
            changed, item = self._change(lifecycle.GIVE_UP, upload, values, held=held)
            if not changed and item is not None and "recaption" in item:
                # The caption's provenance stays with what was paid since.
                before = Record.from_item(item).provenance or Provenance()
                since = before.model_copy(update=paid(provenance.attempts) if provenance else {})
                kept_one = {"provenance": _plain(since), "reason": _plain(reason), **ended(upload.asset, now)}
                changed, item = self._change(lifecycle.KEEP, upload, kept_one, held=held)
        return _ended_record(changed, item, upload.sequencer, now)

    def index(self, record: Record) -> bool:
        """Give an upload its places in the indexes; False where it has none, or is not as `record` tells any more."""
        values = places(record)
        return bool(values) and self._change(lifecycle.INDEX, record.upload, values, seen=record.updated_at)[0]

    def unindexed(self, prefix: str = "") -> Iterator[Record]:
        """Yield the ended uploads named so that stand in no index for people; reads the whole table."""
        states = {f":{state}": {"S": state} for state in lifecycle.INDEX.starts}
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._table,
            FilterExpression=f"#state IN ({', '.join(states)}) AND begins_with(asset, :prefix) AND"
            " (attribute_not_exists(attention)"
            " OR (attribute_exists(provenance.copied_from) AND attribute_not_exists(copy_of)))",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={**states, ":prefix": {"S": prefix}},
        )
        items = (item for page in pages for item in page["Items"])
        yield from (record for item in items if (record := readable(item)) is not None and places(record))

    def end_stalled(self, record: Record, *, now: float, reason: Reason) -> Record | None:
        """Fail a pending upload that got nowhere; None when it moved since, or a worker is at it.

        One that was only to be captioned once more keeps the caption it has.
        """
        before = record.provenance if record.recaption is not None else None
        state: Ended = "failed" if record.recaption is None else "captioned"
        values = {
            "state": state,
            "reason": reason.model_dump(),
            "provenance": _plain((before or Provenance()).model_copy(update=paid(record.attempts))),
            **ended(record.asset, now),
            **without_caption(record.asset, state, timestamp(now)),
        }
        changed, item = self._change(lifecycle.STALL, record.upload, values, now=now, seen=record.updated_at)
        return _ended_record(changed, item, record.sequencer, now)

    def review(
        self, record: Record, way: lifecycle.Transition, values: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]
    ) -> Record:
        """Change a record as a person said, in one transaction with updates of other tables.

        Raises ChangedMeanwhileError when it is not as `record` tells any more, or others write to these items.
        """
        update = written(self._table, way, record.upload, values, seen=record.updated_at)
        if not self._transact([{"Update": write} for write in (update, *beside)]):
            raise ChangedMeanwhileError("the record changed meanwhile")
        answer = self._dynamodb.get_item(TableName=self._table, Key=key_of(record.asset), ConsistentRead=True)
        return Record.from_item(answer["Item"])

    def _transact(self, writes: Sequence[Mapping[str, Any]]) -> bool:
        """Make writes all together; False where a condition does not hold.

        Raises ChangedMeanwhileError where others write to these items all the time.
        """
        for tries_left in reversed(range(TRANSACTION_TRIES)):
            try:
                self._dynamodb.transact_write_items(TransactItems=list(writes))
            except self._dynamodb.exceptions.TransactionCanceledException as error:
                codes = {reason.get("Code") for reason in error.response.get("CancellationReasons", [])}
                if "ConditionalCheckFailed" in codes:
                    return False
                if not codes & _PASSING:
                    raise
                if not tries_left:
                    raise ChangedMeanwhileError("others write to it, or to its counts, all the time") from error
            else:
                return True
            # Two people's verdicts on answers of one model change the same counts.
            time.sleep(random.uniform(0, LONGEST_REST_SECONDS))  # noqa: S311 - spreads tries, no secret
        return False

    def account(self, upload: ObjectVersion, ledger: CallLedger) -> Record | None:
        """Account for calls that came to nothing, as their version has ended, or was replaced or deleted.

        Those that the record accounts for already, wherever it holds them, are not added again, whatever became of the
        answers to their writes and however often they are handed in. Returns the record as it was before.
        """
        while (record := self.get(upload.asset)) is not None:
            late = ledger.unknown_to(record, upload.sequencer)
            if not late:
                return record
            ids = newest([*record.superseded_ids, named(upload.sequencer, late)])
            sums = {f":{name}": value for name, value in zip(lifecycle.SUPERSEDED, totals(late), strict=True)}
            added = ", ".join(f"{name} :{name}" for name in lifecycle.SUPERSEDED)
            if self._name_superseded(record, ids, f" ADD {added}", sums):
                return record
        return None

    def _name_superseded(
        self, record: Record, ids: Sequence[str], more: str = "", values: Mapping[str, Any] | None = None
    ) -> bool:
        """Write which calls the superseded sums are of; False where that changed since the record was read."""
        none_before = "" if record.superseded_ids else "attribute_not_exists(superseded_ids) OR "
        bound = {":ids": list(ids), ":before": list(record.superseded_ids), **(values or {})}
        try:
            self._update(
                TableName=self._table,
                Key=key_of(record.asset),
                UpdateExpression=f"SET superseded_ids = :ids{more}",
                ConditionExpression=f"attribute_exists(asset) AND ({none_before}superseded_ids = :before)",
                ExpressionAttributeValues=to_item(bound),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def due(self, shard: int, now: float) -> Iterator[Record]:
        """Yield one shard's pending uploads whose time to be looked at has come, longest overdue first."""
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="activity",
            KeyConditionExpression="activity = :partition AND activity_at <= :until",
            ExpressionAttributeValues=to_item({":partition": f"pending#{shard}", ":until": timestamp(now)}),
        )
        yield from self.read(item["asset"]["S"] for page in pages for item in page["Items"])

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

    def ended_between(self, since: str, until: str) -> Iterator[tuple[str, str]]:
        """Yield the uploads that ended between two moments (ISO 8601) and when, from the index alone."""
        day, last = date.fromisoformat(since[:10]), date.fromisoformat(until[:10])
        while day <= last:
            for shard in range(SHARDS):
                pages = self._dynamodb.get_paginator("query").paginate(
                    TableName=self._table,
                    IndexName="activity",
                    KeyConditionExpression="activity = :partition AND activity_at BETWEEN :since AND :until",
                    ExpressionAttributeValues=to_item(
                        {":partition": f"{day.isoformat()}#{shard}", ":since": since, ":until": until}
                    ),
                )
                for page in pages:
                    yield from ((item["asset"]["S"], item["activity_at"]["S"]) for item in page["Items"])
            day += timedelta(days=1)

    def read(self, assets: Iterable[str]) -> Iterator[Record]:
        """Yield the records of the given assets that can be read, a hundred at a time, strongly consistent."""
        names = iter(assets)
        while batch := list(islice(names, READ_AT_ONCE)):
            # An upload that moves meanwhile may be named twice, which BatchGetItem refuses.
            items = read_items(self._dynamodb, self._table, list(dict.fromkeys(batch)), consistent=True)
            read = {record.asset: record for item in items if (record := readable(item)) is not None}
            yield from (read[asset] for asset in batch if asset in read)

    def _change(
        self, way: lifecycle.Transition, upload: ObjectVersion, values: Mapping[str, Any], **facts: Any
    ) -> tuple[bool, dict[str, Any] | None]:
        """Take a transition, if the record is where it starts: whether it was, and the item as it then stands.

        `facts` are what its needs go by: `now`, the `updated_at` that was `seen`, the lease that is `mine`, the calls
        that are `held`; where it holds others, these are taken along.
        """
        update = written(self._table, way, upload, values, **facts)
        try:
            answer = self._update(**update, ReturnValues="ALL_NEW", ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except self._dynamodb.exceptions.ConditionalCheckFailedException as failure:
            before: dict[str, Any] | None = failure.response.get("Item")
            record = Record.from_item(before) if before and "held" in facts else None
            if record is None or record.terminal or record.sequencer != upload.sequencer:
                return False, before
            if record.paid_ids == tuple(facts["held"]):
                return False, before
            provenance = _with_calls_of(record, values.get("provenance"))
            return self._change(way, upload, {**values, "provenance": provenance}, **facts | {"held": record.paid_ids})
        item: dict[str, Any] = answer["Attributes"]
        if self._watch is not None:
            self._watch(item, ended="completed_at" in values, mark_late=partial(self._mark_late, item))
        return True, item

    def _update(self, **update: Any) -> Any:
        """Make a write again that is refused while a transaction is at its item; no SDK does that by itself.

        A person may judge a caption at the moment when an answer is stored that was paid for.
        """
        for _ in range(TRANSACTION_TRIES - 1):
            try:
                return self._dynamodb.update_item(**update)
            except self._dynamodb.exceptions.TransactionConflictException:
                time.sleep(random.uniform(0, LONGEST_REST_SECONDS))  # noqa: S311 - spreads tries, no secret
        return self._dynamodb.update_item(**update)

    def _mark_late(self, item: Mapping[str, Any]) -> bool:
        """Mark an upload as late, unless it is, or has moved on, since this item was read."""
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"asset": item["asset"]},
                UpdateExpression="SET late_since = :received",
                ConditionExpression="received_at = :received AND #state IN (:state)"
                " AND (attribute_not_exists(late_since) OR late_since <> :received)",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":received": item["received_at"], ":state": item["state"]},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        except self._dynamodb.exceptions.ClientError:
            # The change itself is stored; who looks next, or the end, counts the upload.
            telemetry.logger().exception("lateness_not_noted", asset=item["asset"]["S"])
            return False
        return True


def read_items(dynamodb: Any, table: str, assets: Sequence[str], *, consistent: bool = False) -> list[dict[str, Any]]:
    """Return the items of up to READ_AT_ONCE assets, of those that exist, in no order."""
    items: list[dict[str, Any]] = []
    request: dict[str, Any] = {table: {"Keys": [key_of(asset) for asset in assets], "ConsistentRead": consistent}}
    while request:
        answer = dynamodb.batch_get_item(RequestItems=request)
        items += answer["Responses"].get(table, [])
        request = answer.get("UnprocessedKeys") or {}
        if request and not answer["Responses"].get(table):
            # Throttled, in an answer that is a success to the SDK.
            time.sleep(random.uniform(0, LONGEST_REST_SECONDS))  # noqa: S311 - spreads tries, no secret
    return items


def readable(item: Mapping[str, Any]) -> Record | None:
    """Read a record; None for what something else wrote, which must not keep all others from being seen to."""
    try:
        return Record.from_item(item)
    except ValidationError as error:
        asset = item.get("asset", {}).get("S")
        telemetry.logger().warning("record_unreadable", asset=asset, errors=error.error_count())
        return None


def _text(draft: Draft) -> str:
    text = draft.model_dump_json()
    if len(text.encode()) > MAX_DRAFT_BYTES:
        text = draft.model_copy(update={"answers": ()}).model_dump_json()
    return text


def _plain(model: BaseModel | None) -> dict[str, Any] | None:
    return model.model_dump(exclude_none=True) if model is not None else None


def _tried(record: Record) -> list[dict[str, Any]] | None:
    """Return every call made for a version so far, as its next try takes them along."""
    return list(kept((*(record.provenance.attempts if record.provenance else ()), *record.attempts))) or None


def _with_calls_of(record: Record, provenance: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a provenance with the calls that a record holds besides."""
    own = Provenance.model_validate(provenance or {})
    known = call_ids(own.attempts)
    others = [call for call in _tried(record) or () if call_ids([call]).isdisjoint(known)]
    return _plain(own.model_copy(update=paid(kept((*others, *own.attempts))))) if others else provenance


def _pending(asset: str, due: float) -> dict[str, str]:
    return {"activity": f"pending#{shard_of(asset)}", "activity_at": timestamp(due)}


def _received(asset: str, now: float, due: float) -> dict[str, str]:
    return {"received_at": timestamp(now), "updated_at": timestamp(now), **_pending(asset, due)}


def _ended_record(changed: bool, item: Mapping[str, Any] | None, sequencer: str, now: float) -> Record | None:
    """Return the record as a write that ended it at `now` left it; None if the write did not take place.

    A client that lost the answer to its write makes it again, and that one fails on the first one's effect: this very
    version ended at this very microsecond then.
    """
    if item is None:
        return None
    record = Record.from_item(item)
    ended_here = record.terminal and record.completed_at == record.updated_at == timestamp(now)
    return record if changed or (ended_here and record.sequencer == sequencer) else None


def ended(asset: str, now: float) -> dict[str, str]:
    """Return what an end writes into a record beside its state, its place in the `activity` index with it."""
    at = timestamp(now)
    return {
        "completed_at": at,
        "updated_at": at,
        "activity": f"{at[:10]}#{shard_of(asset)}",
        "activity_at": at,
    }
