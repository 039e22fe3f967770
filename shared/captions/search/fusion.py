"""Joins what is found by words and by meaning: reciprocal rank fusion.

A caption's score is the sum of 1 / (60 + its rank) over the lists it is in, which needs no common measure of how well a
caption fits (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009). Ranks are among what the caller may see, so that nothing of others shows in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from botocore.exceptions import BotoCoreError, ClientError

from captions import telemetry
from captions.records.record import Record
from captions.search.embeddings import EmbeddingsError
from captions.search.index import WordsIndex, text_of
from captions.search.meaning import MeaningIndex, digest_of
from captions.search.searching import MOST_RESULTS, SearchPage, SearchQuery, WordsSearch
from captions.search.segments import Check
from captions.search.words import QueryError, QueryWords, plain

CONSTANT = 60
RANKED = "ranked-"
"""What cursors of fused results begin with; the rest is how many were shown."""


@dataclass(frozen=True)
class Search:
    """Both sides of the search of a stack; without `meaning` it knows words alone."""

    index: WordsIndex
    words: WordsSearch
    meaning: MeaningIndex | None = None

    def find(self, query: SearchQuery) -> SearchPage:
        """Return the captions that a query's words and meaning lead to, the best first; without a text the newest.

        Where no vector can be had of the text, or nothing is heard from those who keep them, words alone are searched,
        and `SearchPage.by` says so. Raises QueryError.
        """
        text = plain(query.text)
        if self.meaning is None and query.by == "meaning":
            raise QueryError("this stack has no search by meaning (parameter Search=meaning)")
        ranked = query.cursor is None or query.cursor.startswith(RANKED)
        if self.meaning is None or query.by == "words" or not text or not ranked:
            return replace(self.words.search(query), by=("words",))
        shown = _shown(query.cursor)
        try:
            near = self._near(self.meaning, text, query)
        except (EmbeddingsError, ClientError, BotoCoreError):
            if query.by == "meaning" or shown:
                raise
            telemetry.logger().warning("searched_by_words_alone", exc_info=True)
            telemetry.count("SearchedByWordsAlone")
            return replace(self.words.search(query), by=("words",))
        by_words = SearchPage(())
        if query.by == "both":
            by_words = self.words.search(replace(query, cursor=None, limit=MOST_RESULTS))
        records = fused(by_words.records, near)
        limit = max(1, min(query.limit, MOST_RESULTS))
        more = len(records) > shown + limit
        return SearchPage(
            tuple(records[shown : shown + limit]),
            f"{RANKED}{shown + limit}" if more else None,
            relaxed=by_words.relaxed,
            by=("meaning",) if query.by == "meaning" else ("words", "meaning"),
        )

    def _near(self, meaning: MeaningIndex, text: str, query: SearchQuery) -> list[Record]:
        """Return the nearest captions as their records are now, with the query's phrases and without what it leaves."""
        nearest = meaning.near(text, query)
        records = {record.asset: record for record in self.words.records.read(dict.fromkeys(n.asset for n in nearest))}
        kept = [
            record
            for each in nearest
            if (record := records.get(each.asset)) is not None
            and query.admits(record)
            and digest_of(record) == each.digest
        ]
        matching = Check().matching([text_of(record) for record in kept], QueryWords.read(query.text), None)
        return [record for place, record in enumerate(kept) if place in matching]


def fused(*lists: Sequence[Record]) -> list[Record]:
    """Return the records of ranked lists, each once, by reciprocal rank fusion; of a tie, that of the first list."""
    scores: dict[str, float] = {}
    records: dict[str, Record] = {}
    for ranked in lists:
        for rank, record in enumerate(ranked, 1):
            records.setdefault(record.asset, record)
            scores[record.asset] = scores.get(record.asset, 0.0) + 1 / (CONSTANT + rank)
    return sorted(records.values(), key=lambda record: -scores[record.asset])


def _shown(cursor: str | None) -> int:
    if cursor is None:
        return 0
    number = cursor.removeprefix(RANKED)
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) < 2 * MOST_RESULTS:
        raise QueryError("the cursor is none of a search")
    return int(number)
