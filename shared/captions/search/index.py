"""Keeps the words' index: takes completion events, and tidies the segments that come of them.

An event only says which upload to look at; what is written is what its record says then. So it does not matter how
often an event comes, in which order, or who else writes about the same upload: of two rows about one upload the later
version counts, wherever they stand, and neither is shown unless the record agrees. What was never written, because its
event was lost or its message given up, is missed by the comparison with the table, and written then.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from captions import telemetry
from captions.records.attention import group_of
from captions.records.record import Record
from captions.records.table import Records
from captions.search.embeddings import EmbeddingsError
from captions.search.segment_store import Manifest, SegmentEntry, SegmentStore, of_a_kind
from captions.search.segments import NUMBERED_APART_MS, Gone, Row, build, number_of
from captions.search.words import facets, folded
from captions.timestamps import timestamp

if TYPE_CHECKING:
    from captions.search.meaning import MeaningIndex

FANOUT = 8
"""Segments of about one size that become one."""
MOST_ROWS = 1_000_000
"""Of a segment: calculated so that a merge fits the function's time and memory; none so large was ever made."""
SETTLED_SECONDS = 900.0
"""How old an end must be before its absence from the index is a loss rather than a delay."""
OVERLAP_SECONDS = 900.0
"""Of one comparison with the next; clocks differ, and an index of DynamoDB lags behind its table."""
FIRST_CHECK_SECONDS = 86_400.0
EDIT_AGES_SECONDS = (86_400.0, 3 * 86_400.0, 9 * 86_400.0)
"""How old captions are when they are compared with their records: an edit moves its upload to no other place of the
table's index, so that only the record tells. Each age costs a read of each caption; people edit what is young."""
SLOWEST_WRITER_SECONDS = 3_600.0
"""What is written an hour after a deletion was, by a function that runs for minutes, knew of it."""
PURGE_SECONDS = 86_400.0
"""How often each segment is looked through for words of what was deleted since."""
AUDIT_SECONDS = 30 * 86_400.0
"""How often each row of a segment is compared with its record."""
SLICE_SECONDS = 86_400.0
"""Compared at once, where a comparison is far behind; a million ends a day fit the memory of the function."""
TAKEN_AT_ONCE = 5_000
READ_AT_ONCE = 100
READERS = 8
MOST_WORDS = 100_000
"""Characters of one caption that are indexed; a longer transcript is found by its beginning."""


@dataclass(frozen=True)
class Tidied:
    """What one tidying did."""

    merged: int = 0
    purged: int = 0
    missing: int = 0
    """Uploads the index had not, or not as they are."""
    removed: int = 0


class WordsIndex:
    """Writes the words' index. Two may do so at once."""

    def __init__(
        self,
        store: SegmentStore,
        records: Records,
        *,
        meaning: "MeaningIndex | None" = None,
        now: Callable[[], float] = time.time,
        fanout: int = FANOUT,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._store = store
        self._records = records
        self._meaning = meaning
        self._now = now
        self._fanout = fanout
        self._most_rows = most_rows

    def take(self, assets: Iterable[str]) -> Sequence[Record]:
        """Write what the records of these uploads say now, as one segment, and their vectors; return the records.

        Raises ContentionError, in which case nothing is readable yet; EmbeddingsError, in which case the words are
        there and the vectors are not; and botocore's errors.
        """
        records = list(self._records.read(dict.fromkeys(assets)))
        now = self._now()
        built = build((_row(record) for record in records if captioned(record)), _gone(records, now))
        if built.rows or built.gone:
            self._store.add(self._store.put(built, purged_at=now - SLOWEST_WRITER_SECONDS))
        if self._meaning is not None:
            self._meaning.take(records)
        return records

    def tidy(self, *, deadline: float) -> Tidied:
        """Merge segments, remove what is gone, and find what is missing, until `deadline` (time.monotonic).

        Everything can be broken off and done again. What somebody else replaced meanwhile is left to the next time.
        """
        missing = 0
        try:
            # Each has half of what is left: one that is far behind, or slow, must not take it from those behind it.
            missing += self._compare(_half(deadline))
            missing += self._compare_edits(_half(deadline))
            missing += self._audit(_half(deadline))
        except EmbeddingsError:  # what it is about is compared again next time
            telemetry.logger().exception("vectors_not_written")
        purged = self._purge(_half(deadline))
        merged = self._merge(deadline)
        removed = self._store.collect_garbage()
        manifest = self._store.manifest()
        telemetry.gauge("SearchSegments", len(manifest.segments))
        telemetry.gauge("SearchRows", sum(entry.rows for entry in manifest.segments))
        return Tidied(merged, purged, missing, removed)

    def check_since(self, since: float) -> None:
        """Have what ended since then (epoch seconds) compared with the table again, from the next tidying on."""
        self._store.change(lambda seen: replace(seen, checked_until=since))

    def _merge(self, deadline: float) -> int:
        merged = 0
        while time.monotonic() < deadline:
            manifest = self._store.manifest()
            together = of_a_kind(manifest.segments, self._fanout, self._most_rows)
            if together is None:
                break
            # What was gone before the last look through every segment has left no words anywhere.
            forgotten = min(entry.purged_at for entry in manifest.segments)
            merged += len(together) if self._rewrite(together, forgotten=forgotten) else 0
        return merged

    def _purge(self, deadline: float) -> int:
        """Remove the words of what was deleted, from each segment once a day."""
        began = self._now()
        manifest = self._store.manifest()
        due = [entry for entry in manifest.segments if entry.purged_at < began - PURGE_SECONDS]
        if not due:
            return 0
        gone: list[Gone] = []
        for entry in manifest.segments:
            if entry.gone:
                with self._store.opened(entry) as segment:
                    gone += segment.gone()
        purged = 0
        for entry in due:
            if time.monotonic() >= deadline:
                break
            since = [each for each in gone if each.at >= entry.purged_at]
            with self._store.opened(entry) as segment:
                outdated = segment.outdated(since)
            if outdated:
                purged += self._rewrite([entry], since, purged_at=began)
            else:
                self._store.swap([entry], [replace(entry, purged_at=began)])
        return purged

    def _rewrite(
        self,
        entries: Sequence[SegmentEntry],
        gone: Sequence[Gone] = (),
        *,
        forgotten: float = 0.0,
        purged_at: float | None = None,
        audited_at: float | None = None,
    ) -> bool:
        """Put one segment in the place of others, without rows that `gone` outdates; False if one of them is gone."""

        def rows() -> Iterator[Row]:
            for entry in entries:
                with self._store.opened(entry) as segment:
                    yield from segment.rows()

        def still_gone() -> Iterator[Gone]:
            for entry in entries:
                if entry.gone:
                    with self._store.opened(entry) as segment:
                        yield from (each for each in segment.gone() if each.at >= forgotten)

        known = {each.asset: each for each in gone}
        built = build((row for row in rows() if not _outdated(row, known.get(row.asset))), still_gone())
        new = self._store.put(
            built,
            purged_at=min(entry.purged_at for entry in entries) if purged_at is None else purged_at,
            audited_at=min(entry.audited_at for entry in entries) if audited_at is None else audited_at,
        )
        return self._store.swap(entries, [new] if new.rows or new.gone else [])

    def _compare(self, deadline: float) -> int:
        """Take what ended since the last comparison and is not in the index; return how much that was."""
        now, missing = self._now(), 0
        since = self._store.manifest().checked_until or now - FIRST_CHECK_SECONDS
        while since < now - SETTLED_SECONDS and time.monotonic() < deadline:
            until = min(since + SLICE_SECONDS, now - SETTLED_SECONDS)
            first, last = timestamp(since - OVERLAP_SECONDS), timestamp(until)
            ended = dict(self._records.ended_between(first, last))
            if ended:
                known = self._updated(number_of(last) - NUMBERED_APART_MS, number_of(first) + NUMBERED_APART_MS)
                lost = [asset for asset, at in ended.items() if known.get(asset, "") < at]
                lost += self._without_vector([asset for asset in ended if asset not in set(lost)])
                telemetry.count("NotIndexed", len(lost))
                for start in range(0, len(lost), TAKEN_AT_ONCE):
                    missing += sum(map(captioned, self.take(lost[start : start + TAKEN_AT_ONCE])))
            since = until
            self._store.change(partial(_checked, until=until))
        return missing

    def _compare_edits(self, deadline: float) -> int:
        """Take captions that came to one of the ages and were edited since they were indexed; return how many."""
        now, missing = self._now(), 0
        since = self._store.manifest().edits_until or now - FIRST_CHECK_SECONDS
        while since < now and time.monotonic() < deadline:
            until = min(since + SLICE_SECONDS, now)
            lost = [asset for age in EDIT_AGES_SECONDS for asset in self._edited(since - age, until - age)]
            if lost:
                telemetry.count("NotIndexed", len(lost))
            for start in range(0, len(lost), TAKEN_AT_ONCE):
                missing += len(self.take(lost[start : start + TAKEN_AT_ONCE]))
            since = until
            self._store.change(lambda seen, until=until: replace(seen, edits_until=until))  # type: ignore[misc]
        return missing

    def _edited(self, since: float, until: float) -> Iterator[str]:
        """Yield what ended in this time and whose record is newer than its row; its event is no longer on its way."""
        first, last, settled = timestamp(since), timestamp(until), timestamp(self._now() - SETTLED_SECONDS)
        ended = [asset for asset, _ in self._records.ended_between(first, last)]
        if not ended:
            return
        known = self._updated(number_of(last) - NUMBERED_APART_MS, number_of(first) + NUMBERED_APART_MS)
        for records in _side_by_side(self._records, ended):
            for record in records:
                # What has no caption is known for as long as the index must tell that it is gone.
                at = known.get(record.asset, "" if captioned(record) else record.updated_at)
                if record.terminal and at < record.updated_at <= settled:
                    yield record.asset

    def _without_vector(self, assets: Sequence[str]) -> list[str]:
        if self._meaning is None:
            return []
        return [
            record.asset
            for records in _side_by_side(self._records, assets)
            for record in self._meaning.missing(record for record in records if record.terminal)
        ]

    def _updated(self, low: int, high: int) -> dict[str, str]:
        """Return when the uploads numbered `low` to `high`, and those that are gone, were last updated, as written."""
        known: dict[str, str] = {}
        for entry in self._store.manifest().segments:
            if entry.gone or (entry.rows and entry.low <= high and entry.high >= low):
                with self._store.opened(entry) as segment:
                    rows = [(asset, at) for asset, (_, at) in segment.versions(low, high).items()]
                    for asset, at in (*rows, *((gone.asset, gone.updated_at) for gone in segment.gone())):
                        known[asset] = max(at, known.get(asset, ""))
        return known

    def _audit(self, deadline: float) -> int:
        """Compare each row with its record and its vector, once a month: old captions are edited too.

        Rows that are outdated leave their segment. Returns for how many the index had nothing newer.
        """
        began = self._now()
        manifest = self._store.manifest()
        due = [entry for entry in manifest.segments if entry.audited_at < began - AUDIT_SECONDS]
        missing = 0
        for entry in sorted(due, key=lambda entry: entry.audited_at):
            with self._store.opened(entry) as segment:
                written = segment.versions(entry.low, entry.high)
            changed: dict[str, Record] = {}
            lost: list[str] = []
            for records in _side_by_side(self._records, list(written)):
                if time.monotonic() >= deadline:
                    return missing
                changed |= {
                    each.asset: each for each in records if each.terminal and _version(each) > written[each.asset]
                }
                if self._meaning is not None:
                    vectorless = self._meaning.missing(record for record in records if record.terminal)
                    lost += [record.asset for record in vectorless]
            known: set[str] = set()
            for other in manifest.segments:
                if other.name != entry.name and changed:
                    with self._store.opened(other) as segment:
                        known |= {a for a, each in changed.items() if segment.has(a, *_version(each))}
            lost += [asset for asset in changed if asset not in known and asset not in set(lost)]
            telemetry.count("NotIndexed", len(lost))
            for start in range(0, len(lost), TAKEN_AT_ONCE):
                missing += len(self.take(lost[start : start + TAKEN_AT_ONCE]))
            if changed:
                now = [Gone(a, *written[a], began) for a in changed]  # the rows that were read, and no newer ones
                self._rewrite([entry], now, audited_at=began)
            else:
                self._store.swap([entry], [replace(entry, audited_at=began)])
        return missing


def _half(deadline: float) -> float:
    return (time.monotonic() + deadline) / 2


def _checked(seen: Manifest, until: float) -> Manifest:
    return replace(seen, checked_until=until)


def _side_by_side(records: Records, assets: Sequence[str]) -> Iterator[list[Record]]:
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(assets), READERS * READ_AT_ONCE):
            some = assets[start : start + READERS * READ_AT_ONCE]
            parts = [some[at : at + READ_AT_ONCE] for at in range(0, len(some), READ_AT_ONCE)]
            yield from readers.map(lambda part: list(records.read(part)), parts)


def captioned(record: Record) -> bool:
    """Tell whether an upload has words to be searched."""
    return record.result is not None and bool(record.result.text) and record.state != "deleted"


def text_of(record: Record) -> tuple[str, str]:
    """Return the words and facets of a record that has a result."""
    result = record.result
    assert result is not None
    text = " ".join(
        (result.text, *(str(result.data[name]) for name in ("alt",) if result.data.get(name)), *result.tags)
    )
    return folded(text[:MOST_WORDS]), facets(record.key, category_of(record), result.tags)


def category_of(record: Record) -> str:
    """Return what a record is grouped by: what its picture looks like, or its kind."""
    return group_of(record.provenance.category if record.provenance is not None else None, record.kind)


def ended_at(record: Record) -> str:
    """Return when a caption ended, by which results are ordered, ISO 8601."""
    return record.completed_at or record.updated_at


def _row(record: Record) -> Row:
    words, tokens = text_of(record)
    sequencer, updated_at = _version(record)
    return Row(record.asset, number_of(ended_at(record)), sequencer, updated_at, words, tokens)


def _gone(records: Iterable[Record], now: float) -> Iterator[Gone]:
    for record in records:
        if record.terminal and not captioned(record):
            yield Gone(record.asset, *_version(record), now)


def _version(record: Record) -> tuple[str, str]:
    """Return what orders the versions of one upload; a sequencer without its padding sorts as with it."""
    return record.sequencer.rstrip("0"), record.updated_at


def _outdated(row: Row, gone: Gone | None) -> bool:
    return gone is not None and (gone.sequencer, gone.updated_at) >= (row.sequencer, row.updated_at)
