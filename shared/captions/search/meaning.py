"""Captions by what they mean: a vector of each caption's text in Amazon S3 Vectors, the nearest of them to a query's.

As with words, an event only says which upload to look at. After a vector was written its record is read once more: who
was overtaken meanwhile does it again, so that the last to write has read what the record says last. A vector is only a
proposal: it is shown if it is of the text that the record has now.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captions import telemetry
from captions.records.record import Record
from captions.records.table import Records
from captions.search.embeddings import CaptionEmbeddings, EmbeddingsError
from captions.search.index import captioned, category_of, ended_at
from captions.search.searching import SearchQuery
from captions.search.segments import number_of
from captions.search.words import facets

MOST_NEAREST = 100
"""Nearest vectors of one query: as many as the service gives (S3 user guide, "Limitations and restrictions")."""
READ_AT_ONCE = 100
WRITTEN_AT_ONCE = 100
"""The service takes 500, and 20 MiB: vectors of 4,096 numbers are 50 KB of JSON each."""
MOST_FACETS = 60
"""Filterable metadata are 2 KB at the most; a facet has up to 18 characters."""
MOST_CHARACTERS = 6_000
"""Of a text; models of embeddings read 8,192 tokens, and in some scripts a character is one."""
ROUNDS = 5
NOT_FILTERED = ("asset", "digest", "sequencer", "updated_at")
"""Metadata that no query filters by, as the index is made with."""


@dataclass(frozen=True)
class Nearest:
    """An upload whose caption is near to a query."""

    asset: str
    distance: float
    """Cosine distance, 0 (alike) to 2."""
    digest: str
    """Of the text whose vector it is."""


class MeaningIndex:
    """The vectors of captions; `client` is boto3's of S3 Vectors. Two may write at once. Safe between threads."""

    def __init__(self, client: Any, index_arn: str, records: Records, embeddings: CaptionEmbeddings) -> None:
        self._client = client
        self._index = index_arn
        self._records = records
        self._embeddings = embeddings

    def take(self, records: Iterable[Record]) -> None:
        """Write the vectors of these captions as they are now, and remove those of uploads that have none any more.

        A text that has its vector is not paid for again. Raises EmbeddingsError, and botocore's errors.
        """
        left = {record.asset: record for record in records}
        for _ in range(ROUNDS):
            if not left:
                return
            self._write([record for record in left.values() if captioned(record)])
            self._remove([record for record in left.values() if record.terminal and not captioned(record)])
            now = {record.asset: record for record in self._records.read(left)}
            left = {asset: record for asset, record in now.items() if _version(record) != _version(left[asset])}
        raise EmbeddingsError("records change all the time")

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """Return those of these records whose vector is not there, or of another text or version, or there still."""
        known = list(records)
        held = self._held([record.asset for record in known], data=False)
        return [
            record
            for record in known
            if (record.asset in held if not captioned(record) else not self._current(record, held.get(record.asset)))
        ]

    def near(self, text: str, query: SearchQuery) -> list[Nearest]:
        """Return the captions nearest to a text, the nearest first. Raises EmbeddingsError."""
        (vector,) = self._embeddings.of([text[:MOST_CHARACTERS]])
        if vector is None:
            raise EmbeddingsError("no endpoint takes this text")
        answer = self._client.query_vectors(
            indexArn=self._index,
            topK=MOST_NEAREST,
            queryVector={"float32": vector},
            filter=self._filter(query),
            returnDistance=True,
            returnMetadata=True,
        )
        return [
            Nearest(each["metadata"]["asset"], each["distance"], each["metadata"]["digest"])
            for each in answer["vectors"]
        ]

    def _filter(self, query: SearchQuery) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = [{"model": {"$eq": self._embeddings.model}}]
        conditions += [{"facets": {"$in": term.split(" OR ")}} for term in query.facets]
        low, high = query.numbers
        conditions.append({"number": {"$gte": low, "$lte": high}})
        return {"$and": conditions}

    def _write(self, records: Sequence[Record]) -> None:
        held = self._held([record.asset for record in records])
        changed = [record for record in records if not self._current(record, held.get(record.asset))]
        vectors: dict[str, list[float] | None] = {
            digest: held[record.asset]["data"]["float32"]
            for record in changed
            if record.asset in held
            and (digest := digest_of(record)) == held[record.asset]["metadata"].get("digest")
            and held[record.asset]["metadata"].get("model") == self._embeddings.model
        }
        texts = {digest_of(record): _text(record) for record in changed if digest_of(record) not in vectors}
        vectors |= dict(zip(texts, self._embeddings.of(list(texts.values())), strict=True))
        # A text that no endpoint takes has no vector; one of its words before would lead nowhere.
        self._remove([record for record in changed if vectors[digest_of(record)] is None and record.asset in held])
        changed = [record for record in changed if vectors[digest_of(record)] is not None]
        for start in range(0, len(changed), WRITTEN_AT_ONCE):
            self._client.put_vectors(
                indexArn=self._index,
                vectors=[
                    {
                        "key": key_of(record.asset),
                        "data": {"float32": vectors[digest_of(record)]},
                        "metadata": self._metadata(record),
                    }
                    for record in changed[start : start + WRITTEN_AT_ONCE]
                ],
            )
        if changed:
            telemetry.count("VectorsWritten", len(changed))

    def _metadata(self, record: Record) -> dict[str, Any]:
        tokens = facets(record.key, category_of(record), record.result.tags if record.result else ()).split()
        sequencer, updated_at = _version(record)
        return {
            "model": self._embeddings.model,
            "number": number_of(ended_at(record)),
            "facets": tokens[:MOST_FACETS],
            "asset": record.asset,
            "digest": digest_of(record),
            "sequencer": sequencer,
            "updated_at": updated_at,
        }

    def _remove(self, records: Sequence[Record]) -> None:
        keys = [key_of(record.asset) for record in records]
        for start in range(0, len(keys), WRITTEN_AT_ONCE):
            self._client.delete_vectors(indexArn=self._index, keys=keys[start : start + WRITTEN_AT_ONCE])

    def _held(self, assets: Sequence[str], *, data: bool = True) -> dict[str, Mapping[str, Any]]:
        held: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(assets), READ_AT_ONCE):
            answer = self._client.get_vectors(
                indexArn=self._index,
                keys=[key_of(asset) for asset in assets[start : start + READ_AT_ONCE]],
                returnData=data,
                returnMetadata=True,
            )
            held |= {vector["metadata"]["asset"]: vector for vector in answer["vectors"]}
        return held

    def _current(self, record: Record, vector: Mapping[str, Any] | None) -> bool:
        return vector is not None and vector["metadata"] == self._metadata(record)


def key_of(asset: str) -> str:
    """Return the vector's key of an upload: `bucket/key` may be longer than the 1,024 characters of one."""
    return hashlib.sha256(asset.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of(record: Record) -> str:
    """Return the digest of the text that a caption's vector is made of."""
    return hashlib.sha256(_text(record).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _text(record: Record) -> str:
    result = record.result
    assert result is not None
    parts = (result.text, str(result.data.get("alt") or ""), ", ".join(result.tags))
    return "\n".join(part for part in parts if part)[:MOST_CHARACTERS]


def _version(record: Record) -> tuple[str, str]:
    return record.sequencer.rstrip("0"), record.updated_at
