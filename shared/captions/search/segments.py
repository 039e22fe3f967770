"""One segment of the words' index: an SQLite database with an FTS5 table, written once and then only read.

Rows are numbered by when their captions ended, the newest first, so that a search for the newest stops early, a range
of days is a range of rows, and a page goes on where the one before it ended.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import apsw

from captions.search.words import TOKENIZER, QueryWords

NEWEST = 1 << 43
"""Milliseconds that rows are counted back from; in the year 2248 they run out."""
NUMBERED_APART_MS = 10_000
"""Rows of one millisecond take the numbers behind it: that far a row may stand from its caption's own time."""
COMMON_SHARE = 0.1
MOST_COMMON = 200
PAGE_BYTES = 8_192
READ_ONLY = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI

_SCHEMA = f"""
CREATE TABLE docs(
    id INTEGER PRIMARY KEY, asset TEXT NOT NULL, sequencer TEXT NOT NULL, updated_at TEXT NOT NULL,
    words TEXT NOT NULL, facets TEXT NOT NULL);
CREATE TABLE gone(
    asset TEXT PRIMARY KEY, sequencer TEXT NOT NULL, updated_at TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE found USING fts5(
    words, facets, content='docs', content_rowid='id', columnsize=0, tokenize="porter {TOKENIZER}");
CREATE TEMP TABLE staged(
    asset TEXT PRIMARY KEY, at INTEGER NOT NULL, sequencer TEXT NOT NULL, updated_at TEXT NOT NULL,
    words TEXT NOT NULL, facets TEXT NOT NULL) WITHOUT ROWID;
"""
_STAGE = """
INSERT INTO staged VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(asset) DO UPDATE SET
    at = excluded.at, sequencer = excluded.sequencer, updated_at = excluded.updated_at,
    words = excluded.words, facets = excluded.facets
WHERE (excluded.sequencer, excluded.updated_at) > (staged.sequencer, staged.updated_at)
"""
_NOTE = """
INSERT INTO gone VALUES(?, ?, ?, ?) ON CONFLICT(asset) DO UPDATE SET
    sequencer = excluded.sequencer, updated_at = excluded.updated_at, at = excluded.at
WHERE (excluded.sequencer, excluded.updated_at) > (gone.sequencer, gone.updated_at)
"""
# Rows that want the same number take the next ones free; each is then at least as great as its own and the one before.
_FILL = """
INSERT INTO docs
SELECT nth + max(at - nth) OVER (ORDER BY nth), asset, sequencer, updated_at, words, facets
FROM (SELECT *, row_number() OVER (ORDER BY at, asset) AS nth FROM temp.staged AS kept WHERE NOT EXISTS (
    SELECT 1 FROM gone
    WHERE gone.asset = kept.asset AND (gone.sequencer, gone.updated_at) >= (kept.sequencer, kept.updated_at)))
"""
_FIND = "SELECT rowid FROM found WHERE found MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid LIMIT ?"
_LIST = "SELECT id FROM docs WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"


def number_of(moment: str) -> int:
    """Return the row number of a caption that ended at a moment (ISO 8601)."""
    return NEWEST - int(datetime.fromisoformat(moment).timestamp() * 1000)


@dataclass(frozen=True)
class Row:
    """A caption as it stands in a segment."""

    asset: str
    at: int
    """What `number_of` says of when it ended."""
    sequencer: str
    updated_at: str
    words: str
    facets: str


@dataclass(frozen=True)
class Gone:
    """An upload that has no caption since this version."""

    asset: str
    sequencer: str
    updated_at: str
    at: float
    """Epoch seconds when that was noticed."""


@dataclass(frozen=True)
class Built:
    """A new segment."""

    content: bytes
    rows: int
    low: int
    high: int
    gone: int
    common: tuple[str, ...]
    """Words, by their stems, that more than a tenth of the captions have."""


def build(rows: Iterable[Row], gone: Iterable[Gone] = ()) -> Built:
    """Make a segment of the newest version of each upload; what is gone since leaves no words behind."""
    database = apsw.Connection("")  # in memory, and on disk once it is large
    try:
        database.execute(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
        database.execute(_SCHEMA)
        with database:
            database.executemany(_STAGE, ((r.asset, r.at, r.sequencer, r.updated_at, r.words, r.facets) for r in rows))
            database.executemany(_NOTE, ((g.asset, g.sequencer, g.updated_at, g.at) for g in gone))
            database.execute(_FILL)
            database.execute("DROP TABLE temp.staged; CREATE INDEX docs_by_asset ON docs(asset)")
            database.execute("INSERT INTO found(found) VALUES('rebuild'); INSERT INTO found(found) VALUES('optimize')")
        count, low, high, gone_count = database.execute(
            "SELECT count(*), ifnull(min(id), 0), ifnull(max(id), 0), (SELECT count(*) FROM gone) FROM docs"
        ).get
        common = _common(database, count)
        database.execute("VACUUM")  # rows and postings in the order in which they are read
        return Built(database.serialize("main"), count, low, high, gone_count, common)
    finally:
        database.close()


def _common(database: apsw.Connection, rows: int) -> tuple[str, ...]:
    database.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab('main', 'found', 'col')")
    counted = database.execute(
        "SELECT term FROM temp.vocabulary WHERE col = 'words' AND doc > ? ORDER BY doc DESC LIMIT ?",
        (max(4, rows * COMMON_SHARE), MOST_COMMON),
    )
    words = tuple(term for (term,) in counted)
    database.execute("DROP TABLE temp.vocabulary")
    return words


class IndexSegment:
    """A segment that is read; for one thread."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database

    @classmethod
    def of(cls, content: bytes) -> "IndexSegment":
        """Open a segment that is at hand."""
        database = apsw.Connection(":memory:")
        database.deserialize("main", content)
        return cls(database)

    def find(self, match: str | None, low: int, high: int, most: int) -> list[int]:
        """Return which rows, numbered `low` to `high`, an FTS5 query proposes, the newest first; None: all."""
        statement, values = (_LIST, (low, high, most)) if match is None else (_FIND, (match, low, high, most))
        return [number for (number,) in self._database.execute(statement, values)]

    def asset(self, number: int) -> str:
        """Return the upload of a row."""
        return str(self._database.execute("SELECT asset FROM docs WHERE id = ?", (number,)).get)

    def rows(self) -> Iterator[Row]:
        """Yield every row."""
        for at, *values in self._database.execute(
            "SELECT id, asset, sequencer, updated_at, words, facets FROM docs ORDER BY id"
        ):
            asset, sequencer, updated_at, words, facets = values
            yield Row(asset, at, sequencer, updated_at, words, facets)

    def gone(self) -> Iterator[Gone]:
        """Yield what has no caption any more."""
        for values in self._database.execute("SELECT asset, sequencer, updated_at, at FROM gone"):
            yield Gone(*values)

    def versions(self, low: int, high: int) -> dict[str, tuple[str, str]]:
        """Return the uploads numbered `low` to `high`, each with its sequencer and when it was updated."""
        hits = self._database.execute(
            "SELECT asset, sequencer, updated_at FROM docs WHERE id BETWEEN ? AND ?", (low, high)
        )
        return {asset: (sequencer, updated_at) for asset, sequencer, updated_at in hits}

    def has(self, asset: str, sequencer: str, updated_at: str) -> bool:
        """Tell whether this version of an upload, or a later one, stands here, or that it is gone."""
        statement = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE asset = ?1 AND (sequencer, updated_at) >= (?2, ?3)"  # noqa: S608
            for table in ("docs", "gone")
        )
        return self._database.execute(statement, (asset, sequencer, updated_at)).fetchone() is not None

    def outdated(self, gone: Sequence[Gone]) -> bool:
        """Tell whether the segment still has words of something that is gone."""
        return any(
            self._database.execute(
                "SELECT 1 FROM docs WHERE asset = ? AND (sequencer, updated_at) <= (?, ?)",
                (each.asset, each.sequencer, each.updated_at),
            ).fetchone()
            for each in gone
        )

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> "IndexSegment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Check:
    """Compares captions at hand with a query just as the index would, and phrases to the letter."""

    def __init__(self) -> None:
        self._database = apsw.Connection(":memory:")
        for name, tokenizer in (("loose", f"porter {TOKENIZER}"), ("exact", TOKENIZER)):
            self._database.execute(f'CREATE VIRTUAL TABLE {name} USING fts5(words, facets, tokenize="{tokenizer}")')
        self._tokens = self._database.fts5_tokenizer("porter", shlex.split(TOKENIZER))

    def matching(self, captions: Sequence[tuple[str, str]], words: QueryWords, match: str | None) -> set[int]:
        """Return which captions, each its words and facets, match a level's query, and phrases to the letter."""
        without, without_phrases = words.unwanted
        with self._database:
            for table in ("loose", "exact"):
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - the two names above
                self._database.executemany(
                    f"INSERT INTO {table}(rowid, words, facets) VALUES(?, ?, ?)",
                    ((at, *caption) for at, caption in enumerate(captions)),
                )
            matching = set(range(len(captions))) if match is None else self._of("loose", match)
            if words.exact:
                matching &= self._of("exact", words.exact)
            for table, unwanted in (("loose", without), ("exact", without_phrases)):
                matching -= self._of(table, unwanted) if unwanted else set()
        return matching

    def stem(self, word: str) -> str:
        """Return a folded word as it stands in the index; of several words the first."""
        tokens = self._tokens(
            word.encode(), apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False, include_colocated=False
        )
        return next((token for token in tokens if isinstance(token, str)), "")

    def _of(self, table: str, match: str) -> set[int]:
        return {at for (at,) in self._database.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH ?", (match,))}  # noqa: S608
