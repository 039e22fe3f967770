"""Answers a search: segments propose uploads, the newest first, and their records decide.

Nothing of other uploads shows in an answer: a caption is compared by itself, and results are ordered by time, not by
how rare a word is among everybody's captions.
"""

import base64
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Literal

from captions.records.record import Record
from captions.records.table import Records
from captions.search.index import captioned, category_of, ended_at, text_of
from captions.search.segment_store import Manifest, SegmentEntry, SegmentStore
from captions.search.segments import NEWEST, NUMBERED_APART_MS, Check, number_of
from captions.search.words import QueryError, QueryWords, facet, prefix_facet, tidy_tag

MOST_RESULTS = 100
DAY_MS = 86_400_000
READERS = 32
"""Segments read side by side."""
SLACK = 10
"""Proposals asked for beyond what is wanted: some are outdated, or of another prefix."""
MOST_LOOKED_AT = 5_000
"""Proposals that one search looks at; one whose proposals nearly all fail ends with fewer results, and a cursor."""


@dataclass(frozen=True)
class SearchQuery:
    """What is searched for: words, and what the uploads must be."""

    text: str = ""
    prefix: str = ""
    within: tuple[str, ...] = ("",)
    """Beginnings of keys, one of which an upload must have as well: what whoever asks may see."""
    category: str | None = None
    """One of `attention.GROUPS`."""
    tag: str | None = None
    since: date | None = None
    until: date | None = None
    """Days (UTC) between which the caption must have ended, both included."""
    limit: int = 20
    cursor: str | None = None
    by: Literal["both", "words", "meaning"] = "both"
    """By what captions are found, where the stack knows both."""

    def admits(self, record: Record) -> bool:
        """Tell whether an upload is one of those that are searched, whatever its caption says."""
        if not (captioned(record) and record.key.startswith(self.prefix) and record.key.startswith(self.within)):
            return False
        if self.category is not None and self.category != category_of(record):
            return False
        if self.tag is not None and tidy_tag(self.tag) not in map(
            tidy_tag, record.result.tags if record.result else ()
        ):
            return False
        low, high = self.numbers
        return low <= number_of(ended_at(record)) <= high

    @property
    def numbers(self) -> tuple[int, int]:
        """The rows of the days that are searched."""
        low = 0 if self.until is None else NEWEST - _milliseconds(self.until) - DAY_MS + 1
        return low, NEWEST if self.since is None else NEWEST - _milliseconds(self.since)

    @property
    def facets(self) -> tuple[str, ...]:
        """The FTS5 terms of what the uploads must have."""
        allowed = {prefix_facet(prefix) for prefix in self.within}
        terms = (
            prefix_facet(self.prefix),
            " OR ".join(sorted(prefix for prefix in allowed if prefix is not None)) if None not in allowed else None,
            facet("c", self.category) if self.category is not None else None,
            facet("t", tidy_tag(self.tag)) if self.tag is not None else None,
        )
        return tuple(term for term in terms if term)


@dataclass(frozen=True)
class SearchPage:
    """Some results, the best first."""

    records: tuple[Record, ...]
    cursor: str | None = None
    relaxed: bool = False
    """Whether no caption has every word, so that these lack some."""
    by: tuple[Literal["words", "meaning"], ...] = ("words",)
    """By what was searched."""


@dataclass(frozen=True)
class _Place:
    """Where a page ended: at which level, after which number, and who of that number was shown."""

    level: int = 0
    number: int = 0
    shown: tuple[str, ...] = ()

    @classmethod
    def read(cls, cursor: str) -> "_Place":
        try:
            level, number, shown = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=="))
            place = cls(int(level), int(number), tuple(map(str, shown)))
        except (ValueError, TypeError) as error:
            raise QueryError("the cursor is none of a search") from error
        if place.level < 0 or not 0 <= place.number <= NEWEST:
            raise QueryError("the cursor is none of a search")
        return place

    def written(self) -> str:
        place = json.dumps([self.level, self.number, self.shown], separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


@dataclass
class WordsSearch:
    """Searches the words' index. Safe to share between threads."""

    store: SegmentStore
    records: Records
    readers: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, READERS, "segments"))

    def search(self, query: SearchQuery) -> SearchPage:
        """Return the newest captions that have every word of a query; if there are none, those that have most of them.

        Raises QueryError.
        """
        words = QueryWords.read(query.text)
        if not (words.asked or query.prefix or query.category or query.tag or query.since or query.until):
            raise QueryError("say what to search for")
        manifest = self.store.manifest()
        check = Check()
        common = _common(manifest, words, check)
        place = _Place.read(query.cursor) if query.cursor is not None else _Place()
        last = place.level if query.cursor is not None else words.relaxed(common)
        for level in range(place.level, last + 1):
            start = place if level == place.level else _Place(level)
            page = self._level(query, words, common, manifest.segments, start, check)
            if page.records or page.cursor is not None:
                return page
        return SearchPage(())

    def _level(
        self,
        query: SearchQuery,
        words: QueryWords,
        common: frozenset[str],
        segments: Sequence[SegmentEntry],
        start: _Place,
        check: Check,
    ) -> SearchPage:
        match, wanted = words.match(start.level, common, query.facets), words.match(start.level, common)
        limit = max(1, min(query.limit, MOST_RESULTS))
        low, high = query.numbers
        hits: list[tuple[int, Record]] = []
        seen = set(start.shown)
        looked_at = 0
        proposals = _Proposals(self.store, self.readers, segments, match, max(low, start.number), high, limit + SLACK)
        while len(hits) <= limit and looked_at < MOST_LOOKED_AT:
            some = proposals.next(limit + SLACK)
            if not some:
                break
            looked_at += len(some)
            new = [(number, asset) for number, asset in some if asset not in seen]
            at = {record.asset: record for record in self.records.read(dict.fromkeys(asset for _, asset in new))}
            numbered = [
                (number, at[asset])
                for number, asset in new
                if asset in at and query.admits(at[asset]) and _its_own(number, at[asset])
            ]
            matching = check.matching([text_of(record) for _, record in numbered], words, wanted)
            for position, (number, record) in enumerate(numbered):
                if position in matching and record.asset not in seen:
                    seen.add(record.asset)
                    hits.append((number, record))
        page = hits[:limit]
        cursor = None
        if len(hits) > limit or proposals.left:
            number = page[-1][0] if len(hits) > limit else proposals.reached
            shown = {record.asset for at, record in page if at == number} | (
                set(start.shown) if number == start.number else set()
            )
            cursor = _Place(start.level, number, tuple(sorted(shown))).written()
        return SearchPage(tuple(record for _, record in page), cursor, relaxed=start.level > 0)


class _Proposals:
    """What the segments propose, the newest first, each segment read no earlier and no further than needed."""

    def __init__(
        self,
        store: SegmentStore,
        readers: ThreadPoolExecutor,
        segments: Sequence[SegmentEntry],
        match: str | None,
        low: int,
        high: int,
        at_once: int,
    ) -> None:
        self._store, self._readers, self._match, self._high, self._at_once = store, readers, match, high, at_once
        fitting = [entry for entry in segments if entry.rows and entry.low <= high and entry.high >= low]
        self._unread = sorted(((max(low, entry.low), entry) for entry in fitting), key=lambda pair: pair[0])
        """Segments, or what is left of them, and from which number on."""
        self._read: list[tuple[int, str, SegmentEntry]] = []
        self.reached = low

    @property
    def left(self) -> bool:
        """Whether there may be more."""
        return bool(self._unread or self._read)

    def next(self, most: int) -> list[tuple[int, str]]:
        """Return the next proposals, as number and upload; none: there are no more."""
        while self._unread and (len(self._read) < most or self._read[most - 1][0] >= self._unread[0][0]):
            some, self._unread = self._unread[:READERS], self._unread[READERS:]
            for (_, entry), numbers in zip(some, self._readers.map(self._find, some), strict=True):
                self._read += [(number, entry.name, entry) for number in numbers]
                if len(numbers) == self._at_once:
                    self._unread.append((numbers[-1] + 1, entry))
            self._read.sort(key=lambda ranked: ranked[:2])
            self._unread.sort(key=lambda pair: pair[0])
        chosen, self._read = self._read[:most], self._read[most:]
        if chosen:
            self.reached = chosen[-1][0]
        return list(zip((number for number, _, _ in chosen), self._readers.map(self._asset, chosen), strict=True))

    def _find(self, unread: tuple[int, SegmentEntry]) -> list[int]:
        low, entry = unread
        with self._store.opened(entry) as segment:
            return segment.find(self._match, low, self._high, self._at_once)

    def _asset(self, chosen: tuple[int, str, SegmentEntry]) -> str:
        number, _, entry = chosen
        with self._store.opened(entry) as segment:
            return segment.asset(number)


def _its_own(number: int, record: Record) -> bool:
    """Tell whether a row stands at its caption's time; one of an earlier caption does not, and another one does."""
    return 0 <= number - number_of(ended_at(record)) <= NUMBERED_APART_MS


def _common(manifest: Manifest, words: QueryWords, check: Check) -> frozenset[str]:
    """Return the loose words of a query that are common in the largest segment."""
    largest = max(manifest.segments, key=lambda entry: entry.rows, default=None)
    stems = frozenset(largest.common) if largest is not None else frozenset()
    return frozenset(word for word in words.loose if check.stem(word.strip('"*')) in stems)


def _milliseconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp() * 1_000)
