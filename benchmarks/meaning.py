"""How fast a search by meaning answers among 100,000 captions, and what part of the answer is ours.

python benchmarks/meaning.py [--captions 100000] [--queries 10] [--markdown docs/search.md]

S3 Vectors is moto's, whose QueryVectors is our repair: it compares the query with every vector in plain Python. Its
time says nothing of AWS and is given apart, as is that of the endpoint, which is the local one over HTTP: vectors of
letters, 256 numbers, no model. What is left is ours: the query's filters, its words in their index (in moto's
S3), comparing the captions' records with the query again, and the fusion. Records are read from DynamoDB as moto
plays it, given apart too. All is CPU time of this process, in which all of it runs: what else the machine does hardly
shows in it.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from search import CHUNKS, Drawn, percentile, publish

WRITTEN_AT_ONCE = 500
REGION = "us-east-1"


class Parts:
    """The seconds of CPU that each part of the searches took, beside each other."""

    def __init__(self) -> None:
        self.now: dict[str, float] = {}
        self.all: list[dict[str, float]] = []

    def timing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self.now[name] = self.now.get(name, 0.0) + time.process_time() - began

        return timed

    def measure(self, call: Callable[[], Any]) -> Any:
        self.now = {}
        began = time.process_time()
        answer = call()
        took = time.process_time() - began
        whole = took - self.now.pop("writing", 0.0)
        self.all.append({**self.now, "all": whole, "ours": whole - sum(self.now.values())})
        return answer

    def shown(self, name: str) -> str:
        values = [each.get(name, 0.0) * 1_000 for each in self.all]
        return f"{percentile(values, 0.5):,.1f} / {max(values):,.1f} ms"


class Written:
    """Records in DynamoDB, each put there when it is first read: what a read costs does not depend on the others."""

    def __init__(self, drawn: Drawn, dynamodb: Any, table: str) -> None:
        from captions.records.table import Records

        self._drawn, self._dynamodb, self._table = drawn, dynamodb, table
        self._records = Records(dynamodb, table)
        self._there: set[str] = set()
        self.parts: Parts | None = None

    def read(self, assets: Iterable[str]) -> Iterator[Any]:
        from captions.aws.dynamodb import to_item

        names = list(assets)
        paused = time.process_time()
        for record in self._drawn.read(name for name in names if name not in self._there):
            item = to_item(record.model_dump(mode="json", exclude_none=True))
            self._dynamodb.put_item(TableName=self._table, Item=item)
            self._there.add(record.asset)
        if self.parts is None:
            return self._records.read(names)
        self.parts.now["writing"] = self.parts.now.get("writing", 0.0) + time.process_time() - paused
        return iter(self.parts.timing("records", lambda: list(self._records.read(names)))())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": REGION}
    os.environ |= {"POWERTOOLS_METRICS_NAMESPACE": "x", "POWERTOOLS_TRACE_DISABLED": "1"}
    import boto3
    from moto import mock_aws

    from captions.search.embeddings import CaptionEmbeddings, SpendingLedger
    from captions.search.fusion import Search
    from captions.search.index import WordsIndex
    from captions.search.meaning import NOT_FILTERED, MeaningIndex, key_of
    from captions.search.searching import SearchQuery, WordsSearch
    from captions.search.segment_store import SegmentStore
    from captions_cli.local.aws.repairs.replacements import Replacements
    from captions_cli.local.aws.repairs.s3vectors import s3vectors_repairs
    from captions_cli.local.model_endpoint import LocalEndpoint, embedding

    drawn, chance, replace = Drawn(given.captions), random.Random(3), Replacements()
    for repair in s3vectors_repairs():
        repair.put(replace)
    with mock_aws(), LocalEndpoint(latency_scale=0.0) as endpoint:
        s3, vectors = boto3.client("s3"), boto3.client("s3vectors")
        dynamodb: Any = boto3.client("dynamodb")
        s3.create_bucket(Bucket="index")
        for name, keys in (("captions", ["asset"]), ("control", ["pk", "sk"])):
            dynamodb.create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
                KeySchema=[
                    {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
            )
        vectors.create_vector_bucket(vectorBucketName="vectors")
        where = {"vectorBucketName": "vectors", "indexName": "captions"}
        vectors.create_index(
            **where, dataType="float32", dimension=embedding.DIMENSIONS, distanceMetric="cosine",
            metadataConfiguration={"nonFilterableMetadataKeys": list(NOT_FILTERED)},
        )  # fmt: skip
        arn = vectors.get_index(**where)["index"]["indexArn"]
        ledger = SpendingLedger(dynamodb, "control", now=time.time)
        embeddings = CaptionEmbeddings(
            [endpoint.url], lambda _: {}, "letters", embedding.DIMENSIONS, ledger, Decimal("0.02")
        )
        records: Any = Written(drawn, dynamodb, "captions")
        meaning = MeaningIndex(vectors, arn, records, embeddings)
        store = SegmentStore(s3, "index")
        index: Any = WordsIndex(store, drawn)  # type: ignore[arg-type]
        chunk = given.captions // CHUNKS
        for start in range(0, given.captions, chunk):
            index.take(drawn.record(number).asset for number in range(start, min(start + chunk, given.captions)))
        index._merge(time.monotonic() + 3_600)
        for start in range(0, given.captions, WRITTEN_AT_ONCE):
            some = [drawn.record(number) for number in range(start, min(start + WRITTEN_AT_ONCE, given.captions))]
            made = [
                {
                    "key": key_of(record.asset),
                    "data": {"float32": embedding.vector(record.result.text)},
                    "metadata": meaning._metadata(record),
                }
                for record in some
            ]
            vectors.put_vectors(indexArn=arn, vectors=made)

        rows = [("captions, numbers of a vector", f"{given.captions:,}, {embedding.DIMENSIONS}")]
        timed_vectors, timed_embeddings = vectors.query_vectors, embeddings.of
        searches = Search(index, WordsSearch(store, records), meaning)
        texts = [drawn.texts[chance.randrange(given.captions)].split() for _ in range(given.queries)]
        queries = [" ".join(chance.sample(text, min(len(text), 4))) for text in texts]
        searches.find(SearchQuery(text=queries[0]))  # connections are made, segments cached
        for name, about in (
            ("by meaning", {"by": "meaning"}),
            ("by words and meaning", {}),
            ("by words and meaning, within a folder and a category", {"prefix": "folder-7/", "category": "photo"}),
        ):
            parts = records.parts = Parts()
            meaning._client = Timed(vectors, parts.timing("vectors", timed_vectors))
            embeddings.of = parts.timing("embedding", timed_embeddings)  # type: ignore[method-assign]
            pages = [
                parts.measure(lambda text=text, about=about: searches.find(SearchQuery(text=text, **about)))  # type: ignore[misc]
                for text in queries
            ]
            rows += [
                (f"{name}: CPU of the whole answer, median / most", parts.shown("all")),
                ("of it the endpoint's vector of the query (local, over HTTP)", parts.shown("embedding")),
                ("of it QueryVectors in the stand-in, each vector in plain Python", parts.shown("vectors")),
                ("of it reading records in the stand-in", parts.shown("records")),
                ("of it ours", parts.shown("ours")),
                ("results a search, of 20 asked for", f"{sum(len(page.records) for page in pages) / len(pages):.1f}"),
            ]
    replace.undo()
    publish(rows, "meaning", given.markdown)


class Timed:
    """A client of S3 Vectors whose queries are timed."""

    def __init__(self, client: Any, query_vectors: Callable[..., Any]) -> None:
        self._client = client
        self.query_vectors = query_vectors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


if __name__ == "__main__":
    main()
