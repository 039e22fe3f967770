"""How fast a search by words answers, and what it costs, beside SQLite in memory and a scan of every caption.

python benchmarks/search.py [--captions 100000] [--markdown docs/search.md]

Captions are drawn by Zipf's law from 30,000 words, as captions' own words are distributed. They are written as the
function writes them (deltas, then merges), to S3 as moto plays it in this process, with DynamoDB left out: results are
compared with captions in memory. Reads of S3 are counted, and what they would take on S3 is added by a stated latency.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

GET_SECONDS = 0.03
"""A ranged GET of 256 KB from Lambda in the same region; S3 documents 100 to 200 ms as its high end."""
S3_GET, S3_PUT, LAMBDA_GB_SECOND, LAMBDA_REQUEST, SQS, RRU = 4e-7, 5e-6, 1.33334e-05, 2e-7, 4e-7, 1.25e-7
S3_GB_MONTH = 0.023
WORDS = 30_000
CHUNKS = 10
"""Segments that captions are written as, before they are merged."""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Drawn:
    """Records as the index reads them: `Records` without a table."""

    def __init__(self, captions: int) -> None:
        chance = random.Random(7)
        letters = "etaoinshrdlucm"
        self.words = ["".join(chance.choice(letters) for _ in range(chance.randint(2, 10))) for _ in range(WORDS)]
        weights = [1 / (rank + 3) for rank in range(WORDS)]
        self.texts = [" ".join(chance.choices(self.words, weights, k=chance.randint(8, 30))) for _ in range(captions)]
        self.tags = [chance.choices(self.words[50:500], k=5) for _ in range(captions)]

    def record(self, number: int) -> Any:
        from captions.records.record import Provenance, Record, Result
        from captions.timestamps import timestamp

        at = timestamp(1_700_000_000 + number * 1.728)
        key = f"folder-{number % 200}/{number}.jpg"
        return Record.model_construct(
            asset=f"media/{key}", key=key, bucket="media",
            sequencer=f"{number:016X}", state="captioned", kind="image", updated_at=at, completed_at=at, human=None,
            result=Result(text=self.texts[number], language="en", task="caption", tags=tuple(self.tags[number])),
            provenance=Provenance(category="photo"),
        )  # fmt: skip

    def read(self, assets: Iterable[str]) -> Iterator[Any]:
        for asset in assets:
            yield self.record(int(asset.rpartition("/")[2].partition(".")[0]))

    def ended_between(self, since: str, until: str) -> Iterator[tuple[str, str]]:
        return iter(())


def timed(ask: Callable[[str], Any], queries: list[str]) -> list[float]:
    took = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        took.append(time.perf_counter() - began)
    return took


def peers(texts: list[str], queries: list[str]) -> tuple[float, list[float], list[float]]:
    """CPU seconds to write a caption into SQLite in memory; what each query takes there, and in a scan of the texts."""
    from captions.search.words import folded

    memory = sqlite3.connect(":memory:")
    memory.execute('CREATE VIRTUAL TABLE t USING fts5(x, tokenize="porter unicode61")')
    began = time.process_time()
    memory.executemany("INSERT INTO t VALUES(?)", ((folded(text),) for text in texts))
    memory_cpu = (time.process_time() - began) / len(texts)

    def in_memory(text: str) -> list[Any]:
        match = " AND ".join(f'"{word}"' for word in text.split())
        return memory.execute(
            "SELECT rowid, x FROM t WHERE t MATCH ? ORDER BY rowid DESC LIMIT 21", (match,)
        ).fetchall()

    fts = timed(in_memory, queries)
    pages = [folded(text) for text in texts]
    scan = timed(lambda text: [page for page in pages if all(word in page for word in text.split())][:21], queries[:20])
    return memory_cpu, fts, scan


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"POWERTOOLS_METRICS_NAMESPACE": "x", "POWERTOOLS_TRACE_DISABLED": "1"}
    import boto3
    from moto import mock_aws

    from captions.search.index import WordsIndex
    from captions.search.searching import SearchQuery, WordsSearch
    from captions.search.segment_store import SegmentStore

    drawn = Drawn(given.captions)
    chance = random.Random(3)

    def query() -> str:
        some = drawn.texts[chance.randrange(given.captions)].split()
        return " ".join(chance.sample(some, min(len(some), chance.randint(1, 3))))

    queries = [query() for _ in range(given.queries)]
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="index")
        store = SegmentStore(s3, "index")
        index: Any = WordsIndex(store, drawn)  # type: ignore[arg-type]
        began = time.process_time()
        chunk = given.captions // CHUNKS
        for start in range(0, given.captions, chunk):
            index.take(drawn.record(number).asset for number in range(start, min(start + chunk, given.captions)))
        write_cpu = (time.process_time() - began) / given.captions
        began = time.process_time()
        merged = index._merge(time.monotonic() + 3_600)
        merge_cpu = (time.process_time() - began) / (merged * chunk)
        manifest = store.manifest()
        size = sum(entry.size for entry in manifest.segments)

        cold: list[float] = []
        reads: list[int] = []
        for each in queries[:30]:
            fresh = SegmentStore(s3, "index")
            search = WordsSearch(fresh, drawn)  # type: ignore[arg-type]
            cold += timed(lambda text, search=search: search.search(SearchQuery(text=text)), [each])  # type: ignore[misc]
            reads.append(fresh.fetched)
        warm_search = WordsSearch(store, drawn)  # type: ignore[arg-type]
        for each in queries:
            warm_search.search(SearchQuery(text=each))
        warm = timed(lambda text: warm_search.search(SearchQuery(text=text)), queries)

    memory_cpu, fts, scan = peers(drawn.texts, queries)

    # Of a million captions that come at 50,000 a day, gathered for 30 s.
    batches = 1e6 / 50_000 * 86_400 / 30
    lambda_second = 2 * LAMBDA_GB_SECOND
    batch_seconds = 0.35  # the manifest read and written, the records read, the segment written, one after the other
    merges = 7  # tiers of a million captions by eights: how often a caption is written again
    writing = {
        "SQS, three requests a batch of ten": 1e6 * 0.3 * SQS,
        "Lambda": batches * (batch_seconds * lambda_second + LAMBDA_REQUEST)
        + 1e6 * (write_cpu + merges * merge_cpu) * lambda_second,
        "S3, writes": batches * (2 + 1 / 7) * S3_PUT,
        "S3, reads": batches * 2 * S3_GET,
        "DynamoDB, four reads of records": 4e6 * RRU,  # when they are written, and at each of EDIT_AGES_SECONDS
    }
    blocks = statistics.median(reads)
    hundred_million = 100 * 3  # segments of a million: the word's pages of each, 32 side by side
    rows = [
        ("captions", f"{given.captions:,}"),
        ("segments, bytes a caption", f"{len(manifest.segments)}, {size / given.captions:.0f}"),
        ("CPU to write a caption, and once more when merged", f"{write_cpu * 1e6:.0f} µs, {merge_cpu * 1e6:.0f} µs"),
        ("search, nothing cached: CPU and moto p50 / p99",
         f"{percentile(cold, .5) * 1e3:.0f} / {percentile(cold, .99) * 1e3:.0f} ms"),
        ("of it reads of S3, median and most", f"{blocks:.0f}, {max(reads)}"),
        (f"that many one after the other at {GET_SECONDS * 1e3:.0f} ms", f"{blocks * GET_SECONDS * 1e3:.0f} ms"),
        ("search, cached p50 / p99", f"{percentile(warm, .5) * 1e3:.1f} / {percentile(warm, .99) * 1e3:.1f} ms"),
        ("SQLite FTS5 in memory p50 / p99", f"{percentile(fts, .5) * 1e3:.1f} / {percentile(fts, .99) * 1e3:.1f} ms"),
        ("CPU to write a caption there", f"{memory_cpu * 1e6:.0f} µs"),
        ("scan of all captions in memory p50 / p99",
         f"{percentile(scan, .5) * 1e3:.0f} / {percentile(scan, .99) * 1e3:.0f} ms"),
        ("1e8 captions, calculated: a frequent word, the newest 32 segments", f"{6 * GET_SECONDS * 1e3:.0f} ms"),
        ("1e8 captions, calculated: a rare word, all 100 segments in four waves of 32",
         f"{4 * 6 * GET_SECONDS * 1e3:.0f} ms, {hundred_million * 2 * S3_GET * 1e6:.0f} $ a million searches"),
        ("a million captions at 50,000 a day: " + ", ".join(f"{name} {cost:.2f}" for name, cost in writing.items()),
         f"{sum(writing.values()):.2f} $"),
        ("a million captions kept for a month", f"{size / given.captions * 1e6 / 1e9 * S3_GB_MONTH:.3f} $"),
        ("a million searches: Lambda for 0.25 s, 10 reads of S3, 20 records",
         f"{1e6 * (0.25 * lambda_second + LAMBDA_REQUEST + 10 * S3_GET + 20 * RRU):.2f} $"),
    ]  # fmt: skip
    publish(rows, "search", given.markdown)


def publish(rows: Iterable[tuple[str, str]], name: str, markdown: Path | None) -> None:
    """Print a table, and write it into a page where that has its place, if one is given."""
    table = "| | |\n| --- | ---: |\n" + "".join(f"| {what} | {value} |\n" for what, value in rows)
    print(table)
    if markdown is not None:
        before, _, rest = markdown.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        markdown.write_text(f"{before}<!-- {name} -->\n{table}<!-- end of {name} -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
