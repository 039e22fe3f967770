"""Whatever is sent, and whatever stands in records: a problem or an answer, never a failure inside."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from captions_api.application import api as without_door
from captions_api.ids import asset_of, id_of
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.core.result import Ok

from support.api import HOST, TOKENS, Api, api_on, keys, path_of
from support.pipeline import aws_for_the_pipeline

CONTRACT = Path(__file__).parents[2] / "docs" / "openapi.json"
CONTROLS = "".join(random.Random(1).choices([*map(chr, range(1, 32)), "\x7f"], k=1_000))
KEYS = [
    "\u202egpj.exe", "a\u0000b", "a\nb", " ", "../../etc/passwd", "%2e%2e/", "<img src=x onerror=alert(1)>", "é" * 500,
    "\U0001f600" * 250, "a" * 1_024, CONTROLS, "?x=1#y", "\ufeff", "'; DROP TABLE captions; --", "\x7f", "a//b/",
    "${filename}",
]  # fmt: skip


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with aws_for_the_pipeline() as aws, api_on(aws) as made:
        for key in KEYS:
            made.captioned(f"hostile/{key}"[:1_024], f"<script>alert({key!r})</script>\u202e", tags=(key,))
        made.captioned("plain.jpg")
        yield made


def test_keys_may_hold_anything(api: Api) -> None:
    listed: list[str] = []
    cursor = ""
    while True:
        page = api.get(f"/v1/assets?limit=1&prefix=hostile/{cursor}")
        listed += keys(page)
        for item in page["items"]:
            shown = api.get(f"/v1/assets/{item['id']}")
            assert shown["key"] == item["key"]
            assert asset_of(item["id"]) == f"media/{item['key']}"
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert sorted(listed) == sorted(f"hostile/{key}"[:1_024] for key in KEYS)


def test_a_transcript_of_a_million_characters_is_cut_in_lists(api: Api) -> None:
    record = api.captioned("long.mp3", "word " * 40_000, kind="audio")
    (item,) = api.get("/v1/assets?prefix=long")["items"]
    assert (len(item["text"]), item["text_cut"]) == (2_000, True)
    assert len(api.get(path_of(record))["text"]) == 200_000


@pytest.mark.parametrize(
    "path",
    [
        "/v1/assets/%00", "/v1/assets/" + "A" * 5_000, "/v1/assets/bWVkaWE", "/v1/assets/..%2f..%2f", "/v1/assets/%ff",
        "/v1/assets/" + id_of("media/"), "/v1/assets/" + id_of("/key"), "/v1/assets/" + id_of("other/key"),
        "/v1/assets/" + id_of("media/plain.jpg") + "=", "/v1/nothing", "/v2/assets", "/v1/assets/x/tracks/captions.exe",
        "/static/../../pyproject.toml", "/static/%2e%2e/%2e%2e/pyproject.toml",
    ],
)  # fmt: skip
def test_addresses_that_lead_nowhere(api: Api, path: str) -> None:
    assert api.call("GET", path).status_code in (404, 422)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=9999", "limit=x", "cursor=%00", "cursor=" + "A" * 4_001, "cursor=%F0%9F%98%80",
        "since=xx", "state=dead", "order=best", "days=0", "max_confidence=nan", "max_confidence=inf", "reviewed=maybe",
        "q=" + "x" * 201, "prefix=" + "x" * 1_025, "cursor=" + "QUFB" * 20,
    ],
)  # fmt: skip
def test_queries_that_make_no_sense(api: Api, query: str) -> None:
    assert api.call("GET", f"/v1/assets?{query}").status_code in (400, 422)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"), (b"[]", "application/json"), (b"\xff\xfe", "application/json"), (b"", ""),
        (b'{"text": "\\ud800"}', "application/json"), (b'{"text": 5}', "application/json"), (b"text=x", "text/plain"),
        (b'{"text": "' + b"x" * 60_000 + b'"}', "application/json"), (b"<text/>", "application/xml"),
        (b'{"text": "   "}', "application/json"), (b"[" * 100_000, "application/json"),
        (b'{"text": "x", "language": "\xe2\x80\xae"}', "application/json"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(api: Api, content: bytes, content_type: str) -> None:
    record = api.services.records.get("media/plain.jpg")
    assert record is not None
    headers = {"If-Match": api.get(path_of(record))["etag"], "Content-Type": content_type}
    answer = api.call("PATCH", path_of(record), content=content, headers=headers)
    assert answer.status_code in (200, 400, 409, 415, 422), answer.text


def test_who_has_no_token_is_told_nothing(api: Api) -> None:
    for path in ("/v1/assets", "/v1/openapi.json", "/", "/static/x.js", "/v1/nothing"):
        assert api.call("GET", path, token=None).status_code == 401
        assert api.call("GET", path, token="wrong").status_code == 401
    assert api.call("GET", "/?token=wrong", token=None).status_code == 401
    assert api.call("GET", "/healthz", token=None).status_code == 200


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/v1/assets"])
def test_a_browser_without_the_token_is_shown_what_to_do(api: Api, path: str) -> None:
    headers = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Cookie": "captions=old"}
    answer = api.client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "captions console" in answer.text
    assert "wrong" not in answer.text


def test_another_sites_page_may_do_nothing(api: Api) -> None:
    entered = api.call("GET", "/?token=all", token=None, follow_redirects=False)
    cookie = entered.headers["set-cookie"]
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    jar = {"Cookie": cookie.partition(";")[0]}
    assert api.call("GET", "/v1/assets", token=None, headers=jar).status_code == 200
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
        {"Host": "evil.example"}, {"Host": "evil.example:8080"}, {"Sec-Fetch-Site": "cross-site"},
    ):  # fmt: skip
        answer = api.call("POST", "/v1/uploads", token=None, json={"size": 3}, headers={**jar, **headers})
        assert answer.status_code == 403, headers
    own = {**jar, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert api.call("POST", "/v1/uploads", token=None, json={"size": 3}, headers=own).status_code == 201


def test_every_answer_lets_nothing_foreign_run(api: Api) -> None:
    for path, token in (("/v1/assets", "all"), ("/v1/nothing", "all"), ("/v1/assets", None), ("/", "all")):
        headers = api.call("GET", path, token=token).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


# What the code says of itself, and every route driven by it.


def test_the_checked_in_document_is_what_the_code_says(api: Api) -> None:
    assert api.get("/v1/openapi.json") == json.loads(CONTRACT.read_text()), "make openapi writes docs/openapi.json"


def test_the_document_is_openapi_3_1_and_names_every_error(api: Api) -> None:
    document = api.get("/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            problem = operation["responses"]["404"]["content"]
            assert list(problem) == ["application/problem+json"], (method, path)


def breaks(before: Any, after: Any) -> list[str]:
    """What clients of `before` could trip over in `after`."""
    changes = []
    for path, methods in before["paths"].items():
        for method, operation in methods.items():
            now = after["paths"].get(path, {}).get(method)
            if now is None:
                changes.append(f"{method} {path} is gone")
                continue
            known = {(entry["name"], entry["in"]) for entry in operation.get("parameters", ())}
            changes += [
                f"{method} {path} now needs {entry['name']}"
                for entry in now.get("parameters", ())
                if entry.get("required") and (entry["name"], entry["in"]) not in known
            ]
            if gone := known - {(entry["name"], entry["in"]) for entry in now.get("parameters", ())}:
                changes.append(f"{method} {path} lost {sorted(gone)}")
    for name, schema in before["components"]["schemas"].items():
        now = after["components"]["schemas"].get(name)
        if now is None:
            changes.append(f"the shape {name} is gone")
        elif lost := set(schema.get("properties", {})) - set(now.get("properties", {})):
            changes.append(f"{name} lost {sorted(lost)}")
    return changes


def test_nothing_that_was_released_has_gone(api: Api) -> None:
    released = json.loads(CONTRACT.read_text())
    assert breaks(released, api.get("/v1/openapi.json")) == []


def test_that_check_can_fail(api: Api) -> None:
    now = api.get("/v1/openapi.json")
    before = json.loads(json.dumps(now))
    before["components"]["schemas"]["AssetSummary"]["properties"]["nickname"] = {}
    before["paths"]["/v1/gone"] = {"get": {"responses": {}}}
    assert len(breaks(before, now)) == 2


EXAMPLES = 12


@pytest.mark.deep
def test_every_route_takes_what_its_document_lets_it(api: Api) -> None:
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", without_door_for(api))
    routes = 0
    for changes in schema.get_all_operations():
        assert isinstance(changes, Ok), changes
        operation = changes.ok()
        routes += 1

        @hypothesis.given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def drive(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code == 503, (case.as_curl_command(), answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0] == "application/problem+json", answer.text
            case.validate_response(answer, checks=CHECKS)

        drive()
    assert routes >= 20


CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def without_door_for(api: Api) -> Any:
    """The application with a caller who may see everything, as schemathesis knows no door."""
    inner = without_door(api.services)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["caller"] = TOKENS["all"]
        await inner(scope, receive, send)

    return app
