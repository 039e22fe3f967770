"""Records for people: newest first, least certain first, by category, or drawn at random; in pages, or to the end.

A page reads a bounded number of index entries and records, however many there are: where a filter lets few through, it
ends early, and its position tells where the next one goes on. The index is eventually consistent, and so are the reads;
what a record says counts, not the entry that led to it.
"""

import heapq
import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from typing import Any, Literal

from captions.once import Once
from captions.records import attention
from captions.records.record import PENDING, SHARDS, Record, State
from captions.records.table import READ_AT_ONCE, read_items, readable

MOST_ENTRIES = 2_000
"""Index entries looked at for one page: 2,000 of some 200 bytes are 50 read units."""
MOST_READ = 300
"""Records read for one page."""
MOST_STAGES = 32
"""Days, or other sets of partitions, looked into for one page."""
MOST_AHEAD = 8
"""Stages asked for at once."""
THREADS = 32
"""Reads under way at once."""
COUNTED_PAGES = 2
"""Pages of 1 MB read of a partition to count what stands in it: some ten thousand entries."""
SEGMENT_ITEMS = 250
"""About so many items has a part of the table from which a sample is drawn, and as many parts are read as it takes."""
MOST_SEGMENTS = 1_000_000
"""Of a parallel scan (Amazon DynamoDB, API reference, Scan)."""
MOST_SAMPLED_SEGMENTS = 200
READ_FOR_EACH = 4
"""Records read for each that is wanted, at the most."""

CLOCKS_DIFFER = timedelta(hours=1)
"""Far more than functions' clocks differ by: so long before midnight (UTC), an upload may carry the next day's date."""

Order = Literal["newest", "confidence", "category"]


@dataclass(frozen=True)
class Bounds:
    """What a page may look at."""

    entries: int = MOST_ENTRIES
    reads: int = MOST_READ
    stages: int = MOST_STAGES
    at_once: int = READ_AT_ONCE
    """Records read at the same time."""
    of_partition: int | None = None
    """Entries of a partition asked for at once; None: as many as the page may show."""


@dataclass(frozen=True)
class Filters:
    """What a record must be to be shown; what is not given is not asked."""

    prefixes: tuple[str, ...] = ("",)
    """Beginnings of `bucket/key`, of which one must fit."""
    states: frozenset[State] = frozenset()
    """Empty: every state but `deleted`."""
    kind: str | None = None
    group: str | None = None
    """A picture's category, or what else it is (`attention.GROUPS`)."""
    model: str | None = None
    task: str | None = None
    reviewed: bool | None = None
    most_confidence: float | None = None
    copy_of: str | None = None
    """The asset that its caption was copied from."""
    cell: str | None = None
    """The id of what a person's verdict is counted in (captions.quality.cells)."""
    words: str = ""
    """In the key, the text or the tags, in any case of letters."""

    def names(self, asset: str) -> bool:
        """Tell whether an asset may be shown by its name alone, before anything is read of it."""
        return asset.startswith(self.prefixes)

    def show(self, record: Record) -> bool:
        """Tell whether a record is to be shown."""
        provenance, result = record.provenance, record.result
        if not self.names(record.asset) or record.state not in (self.states or _LIVING):
            return False
        if self.reviewed is not None and record.reviewed != self.reviewed:
            return False
        if self.most_confidence is not None:
            confidence = result.confidence if result is not None else None
            if result is None or (confidence or 0.0) > self.most_confidence:
                return False
        judged = record.human.judged if record.human is not None and record.reviewed else None
        asked = (
            (self.copy_of, provenance.copied_from if provenance else None),
            (self.cell, judged.cell.id if judged is not None else None),
            (self.kind, record.kind),
            (self.group, attention.group_of(provenance.category if provenance else None, record.kind)),
            (self.model, provenance.model if provenance else None),
            (self.task, result.task if result else None),
        )
        if any(wanted is not None and wanted != actual for wanted, actual in asked):
            return False
        if not self.words:
            return True
        texts = (record.key, result.text, *result.tags) if result else (record.key,)
        return _caseless(self.words) in _caseless("\n".join(texts))


def _caseless(text: str) -> str:
    """Return a text in one case and one form: some systems write an accent of a file's name as a letter of its own."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


_LIVING: frozenset[State] = frozenset({*PENDING, "captioned", "rejected", "blocked", "failed"})


@dataclass(frozen=True)
class Position:
    """Where a page ended: the stage, and the last entry that was looked at in it (empty: none)."""

    stage: int
    at: str = ""
    asset: str = ""


BEGINNING = Position(0)


@dataclass(frozen=True)
class Page:
    """Some records in order, and where the next page begins; None: there is no more."""

    records: tuple[Record, ...]
    next: Position | None


@dataclass(frozen=True)
class Sample:
    """Records drawn at random, and about how many there are that might have been; None: not known."""

    records: tuple[Record, ...]
    population: int | None


@dataclass(frozen=True)
class Stage:
    """Partitions of one index that are read as one list."""

    index: Literal["activity", "attention", "copy_of"]
    partitions: tuple[str, ...]
    newest_first: bool
    begins: str = ""
    """What the sort key begins with."""

    @property
    def ranked_by(self) -> str:
        """The index's sort key."""
        return _RANKED_BY[self.index]

    def range(self, after: Position) -> "Range | None":
        """Return which of its entries are read: those from `after` on, itself included; None: all."""
        if not after.at:
            return ("begins_with(#rank, :begin)", {":begin": self.begins}) if self.begins else None
        if not self.newest_first:
            return "#rank >= :edge", {":edge": after.at}
        if not self.begins:
            return "#rank <= :edge", {":edge": after.at}
        return "#rank BETWEEN :begin AND :edge", {":begin": self.begins, ":edge": after.at}


_RANKED_BY = {"activity": "activity_at", "attention": "attention_rank", "copy_of": "completed_at"}
Range = tuple[str, Mapping[str, str]]
"""A condition on the sort key, and its values."""


def last_day(now: float) -> date:
    """Return the last day (UTC) on which an upload may have ended by the clock of any function (`now`: of this one)."""
    return (datetime.fromtimestamp(now, UTC) + CLOCKS_DIFFER).date()


def stages(
    order: Order, filters: Filters, *, today: date, first: date | None, days: int, last: date | None = None
) -> tuple[Stage, ...]:
    """Return what is read for a list, in order: days back from `today` (UTC), or the partitions of what waits.

    Before `first` there is nothing, nor after `last`; None: that is not known.
    """
    if filters.copy_of is not None:
        return (Stage("copy_of", (filters.copy_of,), newest_first=True),)
    if filters.cell is not None:
        names = attention.partitions(attention.JUDGED)
        return (Stage("attention", names, newest_first=True, begins=f"{filters.cell}#"),)
    if order != "newest":
        groups = (filters.group,) if filters.group in attention.GROUPS else attention.GROUPS
        each = tuple(attention.partitions(f"unreviewed#{group}") for group in groups)
        joined = (tuple(name for group in each for name in group),)
        return tuple(
            Stage("attention", names, newest_first=False) for names in (each if order == "category" else joined)
        )
    if filters.states and filters.states <= set(attention.ENDED_WITHOUT):
        names = tuple(partition for state in sorted(filters.states) for partition in attention.partitions(state))
        return (Stage("attention", names, newest_first=True),)
    stages: list[Stage] = []
    states = filters.states or _LIVING
    if states & set(PENDING):
        stages.append(_activity("pending"))
    if states - set(PENDING):
        # Clocks differ by seconds: what has just ended may already carry tomorrow's date. That day has its place though
        # nothing can be in it yet: a position is that of a stage.
        tomorrow = today + timedelta(days=1)
        back = days if first is None else min(days, max(0, (today - first).days + 1))
        there_yet = last is None or last >= tomorrow
        stages.append(_activity(tomorrow.isoformat()) if there_yet else Stage("activity", (), newest_first=True))
        stages += [_activity((today - timedelta(days=number)).isoformat()) for number in range(back)]
    return tuple(stages)


def ended_on(day: date) -> Stage:
    """Return what is read for the uploads that last ended on a day (UTC)."""
    return _activity(day.isoformat())


def _activity(name: str) -> Stage:
    return Stage("activity", tuple(f"{name}#{shard}" for shard in range(SHARDS)), newest_first=True)


class Listing:
    """Reads pages of the captions table; `dynamodb` is a boto3 DynamoDB client, safe to share between threads."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="listing")
        self.first_day = Once(self._first_day)
        """Before which day (UTC) no upload can have ended; None: that is not known."""

    def _first_day(self) -> date | None:
        table = self._dynamodb.describe_table(TableName=self._table)["Table"]
        # A table that was restored holds what is older than it.
        if "RestoreSummary" in table or "CreationDateTime" not in table:
            return None
        created: datetime = table["CreationDateTime"]
        return created.astimezone(UTC).date()

    def page(
        self,
        order: Sequence[Stage],
        filters: Filters,
        *,
        limit: int,
        after: Position = BEGINNING,
        bounds: Bounds = Bounds(),
    ) -> Page:
        """Return up to `limit` records from `after` on."""
        reading = _Reading(self, order, filters, limit, after, bounds)
        return reading.page()

    def since(self, at: str, filters: Filters, *, now: str, limit: int) -> tuple[tuple[Record, ...], str | None]:
        """Return about `limit` records that ended after `at`, oldest first, then those on their way that moved since;
        and until when that is, where more ended or may have (None: until now).

        `at` and `now` are ISO 8601; a day and the next are looked into at once.
        """
        day, last = date.fromisoformat(at[:10]), last_day(datetime.fromisoformat(now).timestamp())
        ahead = (last - date.fromisoformat(now[:10])).days
        until = min(last, day + timedelta(days=1 + ahead))
        days = [day + timedelta(days=number) for number in range((until - day).days + 1)]
        names = [f"{day.isoformat()}#{shard}" for day in days for shard in range(SHARDS)]
        ended = self._open(Stage("activity", tuple(names), newest_first=False), limit, Position(0, at))
        pending = self._open(_activity("pending"), limit, BEGINNING)
        newest = sorted(e for f in ended for e in _entries(f.result(), "activity_at") if e[0] > at)
        reached = f"{until.isoformat()}T23:59:59.999999Z" if until < last else None
        if len(newest) > limit:
            reached = newest[limit - 1][0]
            newest = [entry for entry in newest if entry[0] <= reached]  # those of the same moment too
        moving = sorted((e for f in pending for e in _entries(f.result(), "activity_at")), reverse=True)[:limit]
        wanted = dict.fromkeys(asset for _, asset in (*newest, *moving) if filters.names(asset))
        read = self.read(list(wanted))
        shown = (each for each in read if filters.show(each) and (each.terminal or each.updated_at > at))
        return tuple(shown), reached

    def sample(self, filters: Filters, wanted: int, draw: random.Random) -> Sample:
        """Draw up to `wanted` records that are to be shown; reads a few times as many, however large the table is.

        The table's own order is that of a hash of the names, so that a stretch of it is as good as a draw: what a
        record says has no part in where it stands. How many items there are DynamoDB counts every six hours.
        """
        items = int(self._dynamodb.describe_table(TableName=self._table)["Table"].get("ItemCount", 0))
        total = min(max(1, items // SEGMENT_ITEMS), MOST_SEGMENTS)
        read = 0
        records: list[Record] = []
        for segment in draw.sample(range(total), min(total, MOST_SAMPLED_SEGMENTS)):
            for record in self._segment(segment, total, wanted * READ_FOR_EACH - read):
                read += 1
                if record is not None and filters.show(record):
                    records.append(record)
            if len(records) >= wanted or read >= wanted * READ_FOR_EACH:
                break
        population = round(max(items, read) * len(records) / read) if read else 0
        draw.shuffle(records)
        return Sample(tuple(records[:wanted]), population)

    def _segment(self, segment: int, total: int, most: int) -> Iterator[Record | None]:
        """Yield up to `most` records of a part of the table; None for an item that cannot be read."""
        request: dict[str, Any] = {"TableName": self._table, "Segment": segment, "TotalSegments": total}
        while most > 0:
            answer = self._dynamodb.scan(**request, Limit=most)
            for item in answer["Items"]:
                most -= 1
                yield readable(item)
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def count(self, index: str, partitions: Sequence[str], prefixes: Sequence[str]) -> tuple[int, bool]:
        """Count entries whose names begin so, and say whether all were looked at: COUNTED_PAGES of each partition."""
        counted = list(self._readers.map(lambda partition: self._count(index, partition, prefixes), partitions))
        return sum(number for number, _ in counted), all(whole for _, whole in counted)

    def _count(self, index: str, partition: str, prefixes: Sequence[str]) -> tuple[int, bool]:
        if not prefixes:
            return 0, True
        values = {":partition": {"S": partition}}
        values |= {f":begin{number}": {"S": prefix} for number, prefix in enumerate(prefixes)}
        request: dict[str, Any] = {
            "TableName": self._table,
            "IndexName": index,
            "KeyConditionExpression": "#partition = :partition",
            "FilterExpression": " OR ".join(f"begins_with(asset, :begin{number})" for number in range(len(prefixes))),
            "ExpressionAttributeNames": {"#partition": index},
            "ExpressionAttributeValues": values,
            "Select": "COUNT",
        }
        number = 0
        for _ in range(COUNTED_PAGES):
            answer = self._dynamodb.query(**request)
            number += answer["Count"]
            if "LastEvaluatedKey" not in answer:
                return number, True
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return number, False

    def read(self, assets: Sequence[str]) -> list[Record]:
        """Return the records of assets that exist, in the order given; eventually consistent."""
        parts = [assets[start : start + READ_AT_ONCE] for start in range(0, len(assets), READ_AT_ONCE)]
        read: dict[str, Record] = {}
        for items in self._readers.map(lambda part: read_items(self._dynamodb, self._table, part), parts):
            read |= {record.asset: record for item in items if (record := readable(item)) is not None}
        return [read[asset] for asset in assets if asset in read]

    def walk(self, order: Sequence[Stage], filters: Filters, *, chunk: int = READ_AT_ONCE) -> Iterator[Record]:
        """Yield all records that are to be shown, however many; `chunk` of them are read at a time."""
        seen: set[str] = set()
        for _, entries in self.entries(order, limit=None):
            # An upload that moves meanwhile stands in two partitions.
            names = (asset for _, asset in entries if filters.names(asset) and asset not in seen)
            while batch := list(dict.fromkeys(islice(names, min(chunk, READ_AT_ONCE)))):
                seen.update(batch)
                yield from filter(filters.show, self.read(batch))

    def captioned(self, prefix: str) -> Iterator[Record]:
        """Yield what is captioned and named so, in no order; reads the whole table, as captions may be of any age."""
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._table,
            FilterExpression="#state = :captioned AND begins_with(asset, :prefix)",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":captioned": {"S": "captioned"}, ":prefix": {"S": prefix}},
        )
        yield from (record for page in pages for item in page["Items"] if (record := readable(item)) is not None)

    def _query(
        self, stage: Stage, partition: str, limit: int | None, after: Position, start: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        names: dict[str, str] = {"#partition": stage.index}
        values = {":partition": {"S": partition}}
        condition = "#partition = :partition"
        if (wanted := stage.range(after)) is not None:
            names["#rank"] = stage.ranked_by
            values |= {name: {"S": value} for name, value in wanted[1].items()}
            condition += f" AND {wanted[0]}"
        page: Mapping[str, Any] = self._dynamodb.query(
            TableName=self._table,
            IndexName=stage.index,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ScanIndexForward=not stage.newest_first,
            **({"Limit": limit} if limit else {}),
            **({"ExclusiveStartKey": start} if start else {}),
        )
        return page

    def entries(
        self, order: Sequence[Stage], *, limit: int | None, after: Position = BEGINNING
    ) -> Iterator[tuple[int, Iterator[tuple[str, str]]]]:
        """Yield the number and the entries (rank, asset) of each stage from `after` on, `limit` of a partition at once.

        Ever more of the stages behind are asked for ahead: uploads may be weeks apart.
        """
        opened: dict[int, list[Future[Mapping[str, Any]]]] = {}
        # A list begins with what is on its way, tomorrow by other clocks, and today.
        ahead = 3 if after == BEGINNING else 1
        for number in range(after.stage, len(order)):
            start = after if number == after.stage else BEGINNING
            if number not in opened:
                for place in range(number, min(number + ahead, len(order))):
                    opened[place] = self._open(order[place], limit, start if place == number else BEGINNING)
                ahead = min(2 * ahead, MOST_AHEAD)
            yield number, self._merged(order[number], opened.pop(number), limit, start)

    def _open(self, stage: Stage, limit: int | None, after: Position) -> "list[Future[Mapping[str, Any]]]":
        """Ask for the first page of each of a stage's partitions."""
        return [self._readers.submit(self._query, stage, name, limit, after) for name in stage.partitions]

    def _merged(
        self,
        stage: Stage,
        first: "Sequence[Future[Mapping[str, Any]]]",
        limit: int | None,
        after: Position,
    ) -> Iterator[tuple[str, str]]:
        """Yield (rank, asset) of a stage's partitions, merged, from behind `after` on."""

        def shard(name: str, future: "Future[Mapping[str, Any]]") -> Iterator[tuple[str, str]]:
            page = future.result()
            while True:
                yield from _entries(page, stage.ranked_by)
                if "LastEvaluatedKey" not in page:
                    return
                page = self._query(stage, name, limit, after, page["LastEvaluatedKey"])

        def ordered(entries: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
            # The index promises no order among entries of the same rank; the merge and the position need one.
            for _, same in groupby(entries, key=lambda entry: entry[0]):
                yield from sorted(same, reverse=stage.newest_first)

        shards = [ordered(shard(name, future)) for name, future in zip(stage.partitions, first, strict=True)]
        merged: Iterable[tuple[str, str]] = heapq.merge(*shards, reverse=stage.newest_first)
        if not after.at:
            yield from merged
            return
        behind = (after.at, after.asset)
        yield from (entry for entry in merged if (entry < behind if stage.newest_first else entry > behind))


class _Reading:
    """One page while it is read."""

    def __init__(
        self,
        listing: Listing,
        order: Sequence[Stage],
        filters: Filters,
        limit: int,
        after: Position,
        bounds: Bounds,
    ) -> None:
        self._listing = listing
        self._order = order
        self._filters = filters
        self._limit = limit
        self._after = after
        self._bounds = bounds
        self._entries_left = bounds.entries
        self._reads_left = bounds.reads
        self._shown: dict[str, Record] = {}

    def page(self) -> Page:
        order = self._order[: self._after.stage + self._bounds.stages]
        of_partition = self._bounds.of_partition or self._limit
        for number, entries in self._listing.entries(order, limit=of_partition, after=self._after):
            stopped = self._read(entries, number)
            if stopped is not None:
                return self._ended(stopped)
        return self._ended(Position(len(order)) if len(order) < len(self._order) else None)

    def _read(self, entries: Iterator[tuple[str, str]], number: int) -> Position | None:
        """Read a stage's records; where the page ends within it, its position."""
        while True:
            chosen: list[tuple[str, str]] = []
            last: tuple[str, str] | None = None
            for last in islice(entries, self._entries_left):
                self._entries_left -= 1
                if self._filters.names(last[1]) and last[1] not in self._shown:
                    chosen.append(last)
                    if len(chosen) >= min(
                        self._bounds.at_once, max(self._limit - len(self._shown), 20), self._reads_left
                    ):
                        break
            read = {record.asset: record for record in self._listing.read([asset for _, asset in chosen])}
            self._reads_left -= len(chosen)
            for at, asset in chosen:
                if asset in read and self._filters.show(read[asset]):
                    self._shown[asset] = read[asset]
                    if len(self._shown) == self._limit:
                        return Position(number, at, asset)
            if last is None:
                return None
            if self._reads_left <= 0 or self._entries_left <= 0:
                return Position(number, *last)

    def _ended(self, position: Position | None) -> Page:
        return Page(tuple(self._shown.values()), position)


def _entries(page: Mapping[str, Any], rank: str) -> list[tuple[str, str]]:
    return [(item[rank]["S"], item["asset"]["S"]) for item in page["Items"]]
