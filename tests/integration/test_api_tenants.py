"""Who may see some prefixes is answered nothing of others, whichever route they ask."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from captions_api.access import Caller

from captions.search.index import WordsIndex
from captions.search.segment_store import SegmentStore
from support.api import TOKENS, Api, api_on, keys, path_of
from support.pipeline import BUCKET, MEDIA, aws_for_the_pipeline
from support.search import INDEX, Library, SearchFunction

SECRET = "SECRET-OF-ANOTHER"

POLICY = """
[tenants]
"by-name" = ["photos/"]
"by-role/*" = ["photos/"]
"by-claim" = ["photos/", "scans/"]
"none" = []
"""
RULED = {
    "by-name": Caller("by-name"),
    "by-role": Caller("by-role/ann"),
    "by-claim": Caller("by-claim", ("photos/",)),
    "none": Caller("none"),
}
"""Callers that the policy limits, one of them by a claim as well."""


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with (
        aws_for_the_pipeline() as aws,
        api_on(
            aws, {**TOKENS, **RULED}, search=SearchFunction(Library(aws)), policy_override=f"s3://{BUCKET}/policy.toml"
        ) as made,
    ):
        aws.put("policy.toml", POLICY.encode())
        other = made.captioned(f"scans/{SECRET}.jpg", f"a page of {SECRET}", data={"segments": []}, category="document")
        made.captioned("photos/mine.jpg", "my cat")
        made.captioned(
            "photos/copy.jpg", "a page", source="cache", copied_from=other.asset, saved="0.5", cost="0", model="Qwen"
        )
        made.failed(f"scans/{SECRET}-failed.jpg")
        made.failed("photos/failed.jpg")
        made.received(f"scans/{SECRET}-moving.jpg")
        aws.put(f"scans/{SECRET}.jpg", (MEDIA / "tea-gardens.jpg").read_bytes())
        made.services.own.open(other.asset, SECRET)
        words = WordsIndex(SegmentStore(aws.s3, INDEX), made.records)
        words.take(f"{BUCKET}/{key}" for key in (f"scans/{SECRET}.jpg", "photos/mine.jpg", "photos/copy.jpg"))
        yield made


def routes(api: Api) -> list[tuple[str, str]]:
    paths = api.get("/v1/openapi.json")["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


BODIES: dict[str, Any] = {
    "PATCH /v1/assets/{id}": {"text": "x"},
    "POST /v1/assets/{id}/recaption": {"dry_run": False},
    "POST /v1/uploads": {"key": f"scans/{SECRET}.jpg", "size": 3},
    "POST /v1/uploads/multipart": {"key": f"scans/{SECRET}.jpg", "size": 3},
    "POST /v1/captions:stream": {"key": f"scans/{SECRET}.jpg"},
}
QUERIES = {
    "GET /v1/assets": ["", "?order=confidence", "?state=failed", "?state=received", "?prefix=scans/", "?prefix=s",
                       "?q=page", "?kind=image", "?category=document", "?days=3650"],
    "GET /v1/review": ["", "?order=category", "?order=random", "?category=document"],
    "GET /v1/search": ["?q=page", "?q=page+" + SECRET, "?prefix=scans/", "?category=document", "?q=cat&prefix=photos/"],
    "GET /v1/costs": ["", "?by=prefix", "?by=model", "?by=task"],
}  # fmt: skip
NOT_OF_ASSETS = {"GET /v1/models"}
"""What answers nothing of any upload."""
SEALED = {f"POST /v1/uploads/multipart/{step}" for step in ("parts", "complete", "abort")}
"""What takes a sealed value that another caller was given."""


def test_every_route_answers_nothing_of_another_prefix(api: Api) -> None:
    other = api.services.records.get(f"{BUCKET}/scans/{SECRET}.jpg")
    assert other is not None
    foreign = path_of(other).rpartition("/")[2]
    before = api.services.records.get(other.asset)
    tried = 0
    for method, template in routes(api):
        name = f"{method} {template}"
        if name in NOT_OF_ASSETS:
            continue
        path = template.replace("{id}", foreign).replace("{form}", "vtt")
        body = {"json": BODIES[name]} if name in BODIES else {}
        if name in SEALED:
            begun = api.call("POST", "/v1/uploads/multipart", json={"key": "scans/x.jpg", "size": 3}).json()["upload"]
            more: dict[str, Any] = {"numbers": [1]} if name.endswith("parts") else {}
            more |= {"parts": [{"number": 1, "etag": "x"}]} if name.endswith("complete") else {}
            body = {"json": {"upload": begun, **more}}
        for token in ("photos", "nothing", *RULED):
            for query in QUERIES.get(name, [""]):
                answer = api.call(method, path + query, token=token, headers={"If-Match": '"x"'}, **body)
                assert SECRET not in answer.text, (name, query)
                assert foreign not in answer.text, (name, query)
                if "{id}" in template or name == "POST /v1/captions:stream":
                    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-there"), name
                elif name in BODIES:
                    assert answer.status_code == 403, name
                elif name in SEALED:
                    assert answer.status_code == 400, name
                else:
                    assert answer.status_code in (200, 403), (name, answer.text)
                tried += 1
    assert tried > 40
    assert api.services.records.get(other.asset) == before
    assert api.aws.receive(api.aws.uploads_queue) == []


def test_what_is_not_theirs_and_what_is_not_there_are_answered_alike(api: Api) -> None:
    other = api.services.records.get(f"{BUCKET}/scans/{SECRET}.jpg")
    missing = other.model_copy(update={"asset": f"{BUCKET}/scans/nothing.jpg"}) if other else None
    assert other is not None
    assert missing is not None
    answers = [api.call("GET", path_of(record), token="photos") for record in (other, missing)]
    assert answers[0].content == answers[1].content


def test_lists_counts_costs_and_samples_are_of_ones_own(api: Api) -> None:
    own = ["photos/copy.jpg", "photos/failed.jpg", "photos/mine.jpg"]
    assert sorted(keys(api.get("/v1/assets", token="photos"))) == own
    assert api.get("/v1/assets", token="nothing")["items"] == []
    status = api.get("/v1/status", token="photos")
    assert (status["queues"], status["alarms"]) == (None, None)
    assert (status["states"]["failed"], status["states"]["unreviewed"], status["states"]["on_their_way"]) == (1, 2, 0)
    assert set(api.get("/v1/status", token="nothing")["states"].values()) == {0}
    assert [row["name"] for row in api.get("/v1/costs?by=prefix", token="photos")["rows"]] == ["photos/"]
    sample = api.get("/v1/review?order=random", token="photos")
    assert (sorted(keys(sample)), sample["population"]) == (["photos/copy.jpg", "photos/mine.jpg"], None)


def test_a_search_is_of_ones_own(api: Api) -> None:
    assert sorted(keys(api.get("/v1/search?q=page"))) == ["photos/copy.jpg", f"scans/{SECRET}.jpg"]
    assert keys(api.get("/v1/search?q=page", token="photos")) == ["photos/copy.jpg"]
    assert api.get("/v1/search?prefix=photos/", token="two")["items"] == []
    assert api.get("/v1/search?q=page", token="nothing") == {
        "items": [], "cursor": None, "relaxed": False, "by": ["words"],
    }  # fmt: skip
    first = api.get("/v1/search?prefix=photos/&limit=1", token="photos")
    second = api.get(f"/v1/search?prefix=photos/&limit=1&cursor={first['cursor']}", token="photos")
    assert sorted(keys(first) + keys(second)) == ["photos/copy.jpg", "photos/mine.jpg"]
    for token, query in (("all", "prefix=photos/&limit=1"), ("photos", "prefix=photos/&limit=1&q=cat")):
        assert api.call("GET", f"/v1/search?{query}&cursor={first['cursor']}", token=token).status_code == 400


def test_what_a_caption_was_copied_from_is_told_to_whom_it_may_be(api: Api) -> None:
    copy = api.services.records.get(f"{BUCKET}/photos/copy.jpg")
    assert copy is not None
    assert api.get(path_of(copy))["copied_from"]["key"] == f"scans/{SECRET}.jpg"
    assert api.get(path_of(copy), token="photos")["copied_from"] is None


def test_a_cursor_tells_nothing_of_what_it_passed_over(api: Api) -> None:
    page = api.get("/v1/assets?limit=1", token="photos")
    assert re.fullmatch(r"[\w-]+", page["cursor"])
    assert api.call("GET", f"/v1/assets?limit=1&cursor={page['cursor']}", token="all").status_code == 400


def test_who_is_limited_may_still_upload_to_a_prefix_of_theirs(api: Api) -> None:
    made = api.call("POST", "/v1/uploads", json={"name": "x.jpg", "size": 3}, token="two").json()
    assert made["key"].startswith("a/")
    assert api.call("POST", "/v1/uploads", json={"key": "b/x.jpg", "size": 3}, token="two").status_code == 201


def test_a_policy_limits_callers_by_name_beside_their_claim(api: Api) -> None:
    own = ["photos/copy.jpg", "photos/failed.jpg", "photos/mine.jpg"]
    for token in ("by-name", "by-role", "by-claim"):
        assert sorted(keys(api.get("/v1/assets", token=token))) == own, token
        assert api.call("GET", "/v1/quality", token=token).status_code == 403
    assert api.get("/v1/assets", token="none")["items"] == []
    assert f"scans/{SECRET}.jpg" in keys(api.get("/v1/assets"))  # of whom it says nothing


def test_nobody_is_answered_while_a_policy_that_may_limit_them_was_never_read(api: Api) -> None:
    with api_on(api.aws, policy_override=f"s3://{BUCKET}/none.toml") as unread:
        answer = unread.call("GET", "/v1/assets")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/no-policy")
