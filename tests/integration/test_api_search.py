"""Search over HTTP: what the search function finds, as it is now, and what becomes of a query it cannot answer."""

from collections.abc import Iterator
from typing import Any

import pytest

from captions.search.index import WordsIndex
from captions.search.segment_store import SegmentStore
from support.api import Api, api_on, keys
from support.pipeline import BUCKET, Aws
from support.search import INDEX, Library, SearchFunction


@pytest.fixture
def function(aws: Aws) -> SearchFunction:
    return SearchFunction(Library(aws))


@pytest.fixture
def api(aws: Aws, function: SearchFunction) -> Iterator[Api]:
    with api_on(aws, search=function) as made:
        yield made


def indexed(api: Api, key: str, text: str, **about: Any) -> None:
    api.captioned(key, text, **about)
    WordsIndex(SegmentStore(api.aws.s3, INDEX), api.records).take([f"{BUCKET}/{key}"])


def test_captions_are_found_by_words_phrases_and_filters(api: Api) -> None:
    indexed(api, "shop/1.jpg", "Crème brûlée on a red car.", tags=("street",))
    indexed(api, "shop/2.png", "A car that is red.", category="document")
    indexed(api, "home/3.jpg", "A red car.", tags=("Street",))
    everything = ["home/3.jpg", "shop/2.png", "shop/1.jpg"]
    assert keys(api.get("/v1/search?q=RED+cars")) == everything
    assert keys(api.get("/v1/search", params={"q": '"red car"'})) == ["home/3.jpg", "shop/1.jpg"]
    assert keys(api.get("/v1/search?q=creme+brulee")) == ["shop/1.jpg"]
    assert keys(api.get("/v1/search?q=car&prefix=shop/")) == ["shop/2.png", "shop/1.jpg"]
    assert keys(api.get("/v1/search?q=car&category=document")) == ["shop/2.png"]
    assert keys(api.get("/v1/search?tag=STREET")) == ["home/3.jpg", "shop/1.jpg"]
    assert keys(api.get("/v1/search?q=car&until=2001-01-01")) == []
    assert keys(api.get("/v1/search?q=car&since=2001-01-01")) == everything
    relaxed = api.get("/v1/search?q=red+car+zeppelin")
    assert (keys(relaxed), relaxed["relaxed"]) == (everything, True)
    assert keys(api.get("/v1/search?q=car&until=9999-12-31&since=0001-01-01")) == everything
    assert keys(api.get("/v1/search?q=red%00car")) == ["home/3.jpg", "shop/1.jpg"]
    first = api.get("/v1/search?q=car&limit=2")
    assert keys(api.get(f"/v1/search?q=car&limit=2&cursor={first['cursor']}")) == ["shop/1.jpg"]


def test_what_cannot_be_searched_for_is_told_why(api: Api) -> None:
    many = "+".join(map(str, range(17)))
    for query in ("", "q=-cat", f"q={many}", "q=cat&since=soon", "q=cat&limit=0", "q=cat&cursor=x", "q=" + "x" * 501):
        answer = api.call("GET", f"/v1/search?{query}")
        assert (answer.status_code, bool(answer.json()["detail"])) == (400 if "cursor" in query else 422, True)


def test_a_search_that_fails_may_be_tried_again_and_none_is_named_as_such_before_it_is_asked(
    api: Api, aws: Aws
) -> None:
    aws.s3.put_object(Bucket=INDEX, Key="words/manifest.json", Body=b"{")
    failed = api.call("GET", "/v1/search?q=cat")
    assert (failed.status_code, failed.json()["type"]) == (503, "/problems/not-available")
    with api_on(aws) as without:
        assert without.call("GET", "/v1/search?q=cat").json()["type"] == "/problems/no-search"
        assert [made.get("/config.json")["search"] for made in (api, without)] == [True, False]
