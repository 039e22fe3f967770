"""Search by meaning, on S3 Vectors in moto and the local endpoint's embeddings: what is found, paid for and mended."""

from __future__ import annotations

import json
import threading
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from captions import control_table
from captions.cost import Cost
from captions.search.embeddings import MOST_ANSWER_BYTES, CaptionEmbeddings, EmbeddingsError, SpendingLedger, spent
from captions.search.fusion import Search, fused
from captions.search.index import AUDIT_SECONDS, WordsIndex
from captions.search.meaning import MOST_FACETS, NOT_FILTERED, MeaningIndex, key_of
from captions.search.searching import SearchPage, SearchQuery
from captions.search.words import QueryError, facets
from captions_cli.local.aws.repairs.replacements import Replacements
from captions_cli.local.aws.repairs.s3vectors import s3vectors_repairs
from captions_cli.local.model_endpoint import embedding
from support.pipeline import BUCKET, REGION, Aws
from support.search import Library
from support.serving import QuietHandler, serving

DAY = "2026-09-21"


class Answers(CaptionEmbeddings):
    """The local endpoint's own vectors without a port between; `calls` are the texts that were asked for."""

    def _post(self, base: str, texts: Any, *, fresh: bool) -> Any:
        self.calls.append(list(texts))
        if self.before is not None:
            before, self.before = self.before, None
            before()
        if self.failing:
            raise ConnectionResetError("gone")
        return embedding.answer({"model": self.model, "input": texts})

    calls: list[list[str]]
    failing = False
    before: Any = None


@dataclass
class Meaning:
    """A library whose captions are searched by their meaning too."""

    library: Library
    vectors: Any
    index_arn: str
    embeddings: Answers
    index: MeaningIndex
    search: Search

    def caption(self, key: str, text: str, **about: Any) -> None:
        self.library.caption(key, text, **about)
        self.take(key)

    def take(self, *keys: str) -> None:
        self.search.index.take([f"{BUCKET}/{key}" for key in keys])

    def page(self, text: str, **about: Any) -> SearchPage:
        return self.search.find(SearchQuery(text=text, **about))

    def hits(self, text: str, **about: Any) -> list[str]:
        return [record.key for record in self.page(text, **about).records]

    def held(self) -> dict[str, str]:
        """The uploads that have a vector, and of when."""
        listed = self.vectors.list_vectors(indexArn=self.index_arn, returnMetadata=True)["vectors"]
        return {vector["metadata"]["asset"].partition("/")[2]: vector["metadata"]["updated_at"] for vector in listed}

    def spent(self) -> tuple[int, int, Cost]:
        return spent(self.library.aws.dynamodb, "control", DAY)


@pytest.fixture
def meaning(aws: Aws) -> Iterator[Meaning]:
    replace = Replacements()
    for repair in s3vectors_repairs():
        repair.put(replace)
    library = Library(aws)
    vectors = boto3.client("s3vectors", region_name=REGION)
    vectors.create_vector_bucket(vectorBucketName="vectors")
    index = {"vectorBucketName": "vectors", "indexName": "captions"}
    vectors.create_index(
        **index,
        dataType="float32",
        dimension=embedding.DIMENSIONS,
        distanceMetric="cosine",
        metadataConfiguration={"nonFilterableMetadataKeys": list(NOT_FILTERED)},
    )
    arn = vectors.get_index(**index)["index"]["indexArn"]
    ledger = SpendingLedger(aws.dynamodb, "control", now=library.clock)
    embeddings = Answers(
        ["http://127.0.0.1:9/v1"], lambda _: {}, "letters", embedding.DIMENSIONS, ledger, Decimal("0.02")
    )
    embeddings.calls = []
    made = MeaningIndex(vectors, arn, library.records, embeddings)
    words = WordsIndex(library.store, library.records, meaning=made, now=library.clock, fanout=3)
    yield Meaning(library, vectors, arn, embeddings, made, Search(words, library.searching, made))
    replace.undo()


def test_captions_are_found_by_what_is_near_and_the_best_in_both_comes_first(meaning: Meaning) -> None:
    meaning.caption("1.jpg", "A photographer photographs birds.")
    meaning.caption("2.jpg", "An invoice with five lines of text.")
    meaning.caption("3.jpg", "Photography of a mountain.")
    assert meaning.hits("mountainside", by="words") == []
    assert meaning.hits("mountainside", by="meaning")[0] == "3.jpg"
    page = meaning.page("photography")
    assert (page.records[0].key, page.by) == ("3.jpg", ("words", "meaning"))
    assert meaning.hits("photography -mountain", by="meaning")[0] == "1.jpg"
    assert meaning.hits('"of a mountain"') == ["3.jpg"]
    first = meaning.page("photography", limit=2)
    rest = meaning.page("photography", limit=2, cursor=first.cursor)
    assert len({record.key for page in (first, rest) for record in page.records}) == 3
    assert rest.cursor is None
    assert meaning.page("", prefix="1").by == ("words",)
    for wrong in ("ranked-0", "ranked-x", "ranked-999", "x"):
        with pytest.raises(QueryError):
            meaning.page("photography", cursor=wrong)
    with pytest.raises(QueryError):
        Search(meaning.search.index, meaning.search.words).find(SearchQuery(text="x", by="meaning"))


def test_words_are_searched_while_the_service_of_vectors_is_away(
    meaning: Meaning, monkeypatch: pytest.MonkeyPatch
) -> None:
    meaning.caption("1.jpg", "A red kite over a hill.")

    def throttled(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "ServiceUnavailableException"}}, "QueryVectors")

    monkeypatch.setattr(meaning.index, "_client", SimpleNamespace(query_vectors=throttled))
    page = meaning.page("kite")
    assert ([record.key for record in page.records], page.by) == (["1.jpg"], ("words",))
    with pytest.raises(ClientError):
        meaning.page("kite", by="meaning")


def test_nobody_finds_by_meaning_what_they_may_not_see(meaning: Meaning) -> None:
    meaning.caption("a/1.jpg", "The sea.", tags=("Été",))
    meaning.caption("ab/2.jpg", "The sea.", category="document")
    meaning.caption("b/3.jpg", "The sea.")

    def hits(**about: Any) -> list[str]:
        return sorted(meaning.hits("sea", by="meaning", **about))

    assert hits(within=("a/",)) == ["a/1.jpg"]
    assert hits(within=("a",)) == ["a/1.jpg", "ab/2.jpg"]
    assert hits(within=("a/", "b/")) == ["a/1.jpg", "b/3.jpg"]
    assert hits(within=()) == []
    assert hits(within=("a/",), prefix="b/") == []
    assert hits(tag="ete") == ["a/1.jpg"]
    assert hits(category="document") == ["ab/2.jpg"]
    sent = meaning.index._filter(SearchQuery(text="sea", within=("a/", "b/"), category="photo"))
    assert len(sent["$and"]) == 4  # the model, where, what, when: nothing is left to be passed over afterwards


def test_an_edit_a_deletion_and_another_caption_reach_the_vectors(meaning: Meaning) -> None:
    meaning.caption("1.jpg", "A lighthouse.")
    record = meaning.library.records.get(f"{BUCKET}/1.jpg")
    assert record is not None
    meaning.library.reviews.edit(record, "A submarine.", language=None, now=meaning.library.now + 5)
    # Not in the index yet: the old words' vector is no proposal any more.
    assert meaning.hits("lighthouse", by="meaning") == []
    meaning.take("1.jpg")
    assert meaning.hits("submarines", by="meaning") == ["1.jpg"]
    meaning.caption("1.jpg", "A zebra.")
    assert meaning.hits("zebras", by="meaning") == ["1.jpg"]
    meaning.library.delete("1.jpg")
    assert meaning.hits("zebras", by="meaning") == []
    meaning.take("1.jpg")
    assert meaning.held() == {}


def test_what_comes_again_is_not_paid_for_again(meaning: Meaning) -> None:
    meaning.library.caption("1.jpg", "A lighthouse.")
    meaning.library.caption("2.jpg", "A lighthouse.")
    meaning.take("1.jpg", "2.jpg")
    assert meaning.embeddings.calls == [["A lighthouse."]]  # one text, once
    meaning.take("2.jpg", "1.jpg")
    record = meaning.library.records.get(f"{BUCKET}/1.jpg")
    assert record is not None
    meaning.library.reviews.accept(record, now=meaning.library.now + 5)
    meaning.take("1.jpg")
    assert len(meaning.embeddings.calls) == 1
    accepted = meaning.library.records.get(f"{BUCKET}/1.jpg")
    assert accepted is not None
    assert meaning.held()["1.jpg"] == accepted.updated_at


def test_who_is_overtaken_while_it_asks_does_not_leave_an_older_vector(meaning: Meaning) -> None:
    meaning.library.caption("1.jpg", "A lighthouse.")

    def overtake() -> None:
        meaning.library.caption("1.jpg", "A submarine.")
        meaning.take("1.jpg")

    meaning.embeddings.before = overtake
    meaning.take("1.jpg")
    assert meaning.hits("submarine", by="meaning") == ["1.jpg"]
    meaning.library.caption("2.jpg", "A zebra.")
    meaning.embeddings.before = lambda: meaning.library.delete("2.jpg")
    meaning.take("2.jpg")
    assert set(meaning.held()) == {"1.jpg"}


def test_calls_are_counted_to_the_last_token_and_a_lost_answer_as_one_that_nobody_counted(meaning: Meaning) -> None:
    meaning.caption("1.jpg", "A lighthouse on a rock.")
    tokens = embedding.answer({"model": "m", "input": ["A lighthouse on a rock."]})["usage"]["total_tokens"]
    cost = tokens * Decimal("0.02") / 1_000_000
    assert meaning.spent() == (1, tokens, Cost(dollars=cost))
    meaning.embeddings.failing = True
    with pytest.raises(EmbeddingsError, match="gone"):
        meaning.caption("2.jpg", "A zebra.")
    assert meaning.spent() == (1, tokens, Cost(dollars=cost, uncounted_calls=1))
    # Its words are there, and a search says that it knows words alone.
    page = meaning.page("zebra")
    assert ([record.key for record in page.records], page.by) == (["2.jpg"], ("words",))
    with pytest.raises(EmbeddingsError):
        meaning.page("zebra", by="meaning")


def test_a_write_whose_reply_was_lost_counts_once(meaning: Meaning) -> None:
    ledger = meaning.embeddings.ledger
    again: list[Any] = []
    ledger._dynamodb = Twice(ledger._dynamodb, again)
    ledger.answered(ledger.begun(), 5, Cost(unpriced_tokens=5))
    ledger.unanswered(ledger.begun())
    assert len(again) == 4
    assert meaning.spent() == (1, 5, Cost(unpriced_tokens=5))


def test_embeddings_count_against_the_daily_budget_and_keep_to_it(meaning: Meaning) -> None:
    aws = meaning.library.aws
    limit = Decimal("0.000002")  # a hundred tokens, which a hundred characters are at the most
    meaning.embeddings.ledger = SpendingLedger(aws.dynamodb, "control", now=meaning.library.clock, limit=limit)

    def counted() -> Decimal:
        item = aws.dynamodb.get_item(TableName="control", Key=control_table.budget("*", DAY))["Item"]
        return Decimal(item["dollars"]["N"])

    meaning.caption("1.jpg", "A lighthouse on a rock.")
    assert counted() == meaning.spent()[2].dollars > 0
    meaning.embeddings.failing = True
    with pytest.raises(EmbeddingsError, match="gone"):
        meaning.caption("2.jpg", "A zebra.")
    assert counted() > meaning.spent()[2].dollars  # nobody knows what it cost: what was set aside stands
    meaning.embeddings.failing = False
    long = "Many zebras. " * 7
    with pytest.raises(EmbeddingsError, match="spending limit"):
        meaning.caption("3.jpg", long)
    assert counted() <= limit
    meaning.library.now += 86_400
    meaning.take("3.jpg")
    assert "3.jpg" in meaning.held()


@pytest.mark.deep
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_the_model_does_not_take_keeps_no_other_from_its_vector(meaning: Meaning, status: int) -> None:
    post = meaning.embeddings._post

    def picky(base: str, texts: Any, *, fresh: bool) -> Any:
        if any(len(text) > 1_000 or "forbidden" in text for text in texts):
            raise urllib.error.HTTPError(base, status, "no", {}, None)  # type: ignore[arg-type]
        return post(base, texts, fresh=fresh)

    meaning.embeddings._post = picky  # type: ignore[method-assign]
    keys = [f"{n}.jpg" for n in range(9)]
    for n, key in enumerate(keys):
        words = {3: "A long text. " * 200, 5: "Something forbidden."}.get(n, f"A lighthouse, {n}.")
        meaning.library.caption(key, words)
    meaning.take(*keys)
    assert set(meaning.held()) == set(keys) - {"5.jpg"}
    assert meaning.spent()[2].uncounted_calls == 0
    assert meaning.search.index.tidy(deadline=1e12).missing == 0

    def closed(base: str, texts: Any, *, fresh: bool) -> Any:
        raise urllib.error.HTTPError(base, status, "no", {}, None)  # type: ignore[arg-type]

    meaning.embeddings._post = closed  # type: ignore[method-assign]
    meaning.library.caption("10.jpg", "A zebra.")
    with pytest.raises(EmbeddingsError):  # it takes nothing at all: that is no fault of the text
        meaning.take("10.jpg")


def test_a_vector_that_is_lost_by_itself_is_found_by_the_monthly_comparison(meaning: Meaning) -> None:
    meaning.caption("1.jpg", "A lighthouse.")
    meaning.caption("2.jpg", "A zebra.")
    meaning.library.now += 3_600
    meaning.search.index.tidy(deadline=1e12)
    meaning.vectors.delete_vectors(indexArn=meaning.index_arn, keys=[key_of(f"{BUCKET}/1.jpg")])
    meaning.library.now += 900
    meaning.search.index.tidy(deadline=1e12)
    assert set(meaning.held()) == {"2.jpg"}
    meaning.library.now += AUDIT_SECONDS
    meaning.library.compared()
    assert meaning.search.index.tidy(deadline=1e12).missing == 1
    assert set(meaning.held()) == {"1.jpg", "2.jpg"}


class Twice:
    """Does each write twice, as botocore does whose first reply was lost."""

    def __init__(self, client: Any, again: list[Any]) -> None:
        self._client, self._again, self.exceptions = client, again, client.exceptions

    def update_item(self, **request: Any) -> Any:
        self._client.update_item(**request)
        self._again.append(request)
        return self._client.update_item(**request)


def test_a_lost_event_is_found_by_the_comparison_and_told(meaning: Meaning, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(
        "captions.telemetry.count", lambda name, number=1: counted.append(number) if name == "NotIndexed" else None
    )
    library = meaning.library
    for key in ("1.jpg", "2.jpg", "3.jpg"):
        library.caption(key, f"A lighthouse, {key}.")
    library.take("1.jpg", "2.jpg")  # the words of both; nobody wrote their vectors
    meaning.take("1.jpg")
    meaning.embeddings.failing = True
    library.now += 3_600
    failed = meaning.search.index.tidy(deadline=1e12)
    assert (failed.missing, counted, set(meaning.held())) == (0, [2], {"1.jpg"})
    meaning.embeddings.failing = False
    library.now += 900
    assert meaning.search.index.tidy(deadline=1e12).missing == 2
    assert set(meaning.held()) == {"1.jpg", "2.jpg", "3.jpg"}
    library.now += 900
    assert meaning.search.index.tidy(deadline=1e12).missing == 0
    assert counted == [2, 2]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"data": []}, "did not give"), ([], "did not give"), ({"data": [{"embedding": [1.0]}]}, "EmbeddingDimensions"),
        ({"data": [{"embedding": "x"}]}, "cannot be read"), ({"data": [{"index": 7, "embedding": []}]}, "cannot be"),
        ({"data": [{"embedding": [float("nan")] * embedding.DIMENSIONS}]}, "cannot be read"),
        ({"data": [{"embedding": [0] * embedding.DIMENSIONS}]}, "cannot be read"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error_with_its_reason(answer: Any, why: str) -> None:
    class Silent:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: "day"

    silent: Any = Silent()
    asked = CaptionEmbeddings(["http://a"], lambda _: {}, "m", embedding.DIMENSIONS, silent)
    asked._post = lambda *_, **__: answer  # type: ignore[method-assign]
    with pytest.raises(EmbeddingsError, match=why):
        asked.of(["x"])


def test_endpoints_are_asked_in_their_order_with_their_keys(meaning: Meaning) -> None:
    seen: list[tuple[str, str]] = []
    guard = threading.Lock()

    class Endpoint(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            with guard:
                seen.append((self.path, self.headers["authorization"]))
            good = self.headers["authorization"] == "Bearer new" and self.path.startswith("/b/")
            status = 200 if good else 401 if self.path.startswith("/b/") else 302
            self.answer(status, json.dumps(embedding.answer(body)), Location="http://127.0.0.1:9/")

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)) as server:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        asked = CaptionEmbeddings(
            [f"{base}/a", f"{base}/b/"],
            lambda fresh: {"default": "new" if fresh else "old"},
            "letters",
            embedding.DIMENSIONS,
            meaning.embeddings.ledger,
        )
        assert asked.of(["one", "two"]) == [embedding.vector("one"), embedding.vector("two")]
    assert seen == [
        ("/a/embeddings", "Bearer old"), ("/b/embeddings", "Bearer old"), ("/b/embeddings", "Bearer new"),
    ]  # fmt: skip
    calls, _, cost = meaning.spent()
    assert (calls, bool(cost.unpriced_tokens), cost.uncounted_calls) == (1, True, 0)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"[" * 200_000, "nested too deep"),
        (200, b'{"data": ' + b"9" * 6_000 + b"}", "gave no embeddings"),
        (200, b" " * (MOST_ANSWER_BYTES + 1), "more than"),
        (200, b"\xff\xfe", "gave no embeddings"),
        (500, b"busy", "answered 500"),
    ],
)
def test_an_answer_of_an_endpoint_that_nobody_can_read_is_an_error_and_counted(
    meaning: Meaning, status: int, body: bytes, why: str
) -> None:
    class Endpoint(QuietHandler):
        def do_POST(self) -> None:
            self.body()
            self.answer(status, body)

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        asked = CaptionEmbeddings([url], lambda _: {}, "m", embedding.DIMENSIONS, meaning.embeddings.ledger)
        with pytest.raises(EmbeddingsError, match=why):
            asked.of(["a lighthouse"])
    assert meaning.spent()[2].uncounted_calls == (status == 200)


def test_a_text_that_llama_cpp_finds_too_long_is_shortened_and_keeps_no_other_back(meaning: Meaning) -> None:
    class Endpoint(QuietHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.body())
            if any(len(text) > 600 for text in asked["input"]):
                message = "input (992 tokens) is too large to process. increase the physical batch size"
                self.answer(500, json.dumps({"error": {"code": 500, "message": message}}))
            else:
                self.answer(200, json.dumps(embedding.answer(asked)))

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        asked = CaptionEmbeddings([url], lambda _: {}, "m", embedding.DIMENSIONS, meaning.embeddings.ledger)
        long = "A lighthouse on a rock. " * 50
        assert asked.of([long, "zebras"]) == [embedding.vector(long[: len(long) // 2]), embedding.vector("zebras")]


def test_fusion_and_keys(meaning: Meaning) -> None:
    first, second, third = (meaning.library.caption(f"{n}.jpg", "x") for n in range(3))
    assert fused([first, second], [third, second]) == [second, first, third]
    assert fused([], []) == []
    assert len(key_of("b/" + "ü" * 1_024)) <= 1_024
    long = facets("/".join(str(n) for n in range(400)), "photo", ("t",)).split()[:MOST_FACETS]
    assert sum(len(token) + 4 for token in long) < 1_900  # of the 2 KB that filters may be about
