"""The client of the API, without the API: what it claims to cover, how it reads streams, tries again and refuses."""

import importlib.util
import inspect
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from captions_client import (
    CaptionsError,
    ChangedMeanwhileError,
    Client,
    ConnectionFailedError,
    Delta,
    Done,
    Event,
    NotAllowedError,
    NotAvailableError,
    NotFoundError,
    ProblemError,
    UnexpectedAnswerError,
    WaitTimeoutError,
    calls,
    models,
)  # fmt: skip
from captions_client.errors import problem
from captions_client.events import EventReader

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())
URL = "http://127.0.0.1:1"

_spec = importlib.util.spec_from_file_location("client_code", ROOT / "tools" / "client_code.py")
assert _spec is not None
assert _spec.loader is not None
client_code = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(client_code)


def claimed() -> dict[tuple[str, str], calls.Call[Any]]:
    """Every operation the client knows, by method and path."""
    made = [calls.STREAM]
    for name, function in vars(calls).items():
        if inspect.isfunction(function) and str(inspect.signature(function).return_annotation).startswith("Call["):
            about = inspect.signature(function).parameters.values()
            needed = [each for each in about if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
            examples: dict[str, Any] = {"wanted": models.NewUpload(size=1), "numbers": [1], "etags": {1: "x"}}
            made.append(function(**{each.name: examples.get(each.name, f"<{name}>") for each in needed}))
    return {(call.method, call.path): call for call in made}


def test_the_client_covers_every_operation_of_the_api_and_no_other() -> None:
    operations = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert set(claimed()) == operations, "cli/client/captions_client/calls.py has a call for each operation"


@pytest.mark.parametrize("operation", sorted(claimed()), ids=" ".join)
def test_each_operation_sends_and_reads_what_the_document_says(operation: tuple[str, str]) -> None:
    method, path = operation
    call, about = claimed()[operation], DOCUMENT["paths"][path][method.lower()]
    answers = [answer for status, answer in about["responses"].items() if status.startswith("2")]
    shapes = [kind["schema"].get("$ref", "") for answer in answers for kind in answer.get("content", {}).values()
              if "schema" in kind]  # fmt: skip
    if any(shapes):
        assert call.reads is not None
        assert shapes == [f"#/components/schemas/{call.reads.__name__}"]
    parameters = {(each["in"], each["name"]) for each in about.get("parameters", [])}
    assert {name for where, name in parameters if where == "path"} == set(call.places)
    filters: dict[str, Any] = {"/v1/assets": calls.Filters, "/v1/search": calls.SearchFilters}
    takes = set(call.query) | (set(filters[path].__annotations__) if path in filters else set())
    assert {name for where, name in parameters if where == "query"} == takes
    if call is not calls.STREAM:
        body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        assert body.get("$ref", "").rpartition("/")[2] == (type(call.body).__name__ if call.body else "")


def test_the_models_and_the_waiting_client_are_what_their_sources_say() -> None:
    assert client_code.models(DOCUMENT) == client_code.MODELS.read_text(), "make openapi"
    assert client_code.client(client_code.SOURCE.read_text()) == client_code.CLIENT.read_text(), "make openapi"


def asset(**changed: Any) -> dict[str, Any]:
    """An asset as the API answers it: what its shape asks for, and nothing else."""
    shape = DOCUMENT["components"]["schemas"]["Asset"]
    empty = {"array": [], "boolean": False, "integer": 0, "string": ""}
    made: dict[str, Any] = {name: empty.get(shape["properties"][name].get("type")) for name in shape["required"]}
    made |= {"id": "x", "bucket": "b", "key": "k", "state": "captioned", "text": "a cat", "text_cut": False, "size": 1}
    made |= {"received_at": "2026", "updated_at": "2026", "recaptioning": False, "etag": '"1"'}
    return made | changed


def test_what_a_later_api_adds_does_not_break_an_older_client() -> None:
    read = models.Asset.model_validate(asset(state="pondered", mood="merry"))
    assert read.state == "pondered"


STREAM = (
    ": a comment\r\n\r\n"
    "event: waiting\ndata: {}\n\n"
    'event: delta\ndata: {"text": "a\u2028cat\x85", "model": "m"}\r\n\r\n'
    "event: mood\ndata: {}\n\n"
    f"event: done\ndata: {json.dumps({'asset': asset(), 'usage': {'completion_tokens': 3}})}\n\n"
).encode()


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_a_stream_is_read_in_pieces_of_any_size(size: int) -> None:
    reader, events = EventReader(), list[Event]()
    for start in range(0, len(STREAM), size):
        events += reader.feed(STREAM[start : start + size])
    assert [type(event).__name__ for event in events] == ["Waiting", "Delta", "Done"]
    assert events[1] == Delta("a\u2028cat\x85", "m")
    assert isinstance(events[2], Done)
    assert (events[2].asset.text, events[2].usage, events[2].copied) == ("a cat", {"completion_tokens": 3}, False)
    assert reader.ended


def test_an_error_in_a_stream_is_raised_as_the_problem_it_is() -> None:
    data = {"type": "/problems/deferred", "title": "Not available", "status": 503, "detail": "later", "id": "x"}
    with pytest.raises(NotAvailableError) as raised:
        list(EventReader().feed(f"event: error\ndata: {json.dumps(data)}\n\n".encode()))
    assert raised.value.members == {"id": "x"}
    with pytest.raises(UnexpectedAnswerError):
        list(EventReader().feed(b"event: done\ndata: []\n\n"))


def client(answer: Callable[[httpx.Request], httpx.Response], **more: Any) -> Client:
    transport = httpx.MockTransport(answer)
    return Client(URL, token="secret", transport=transport, storage_transport=transport, **more)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captions_client.client.sleep", lambda seconds: None)


def test_a_stream_that_breaks_off_is_no_caption() -> None:
    with pytest.raises(ConnectionFailedError):
        list(client(lambda request: httpx.Response(200, content=STREAM[:60])).stream(b"x"))


def test_a_write_is_tried_again_under_one_key_until_it_is_answered() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        match len(seen):
            case 1:
                raise httpx.ReadError("gone")
            case 2:
                return httpx.Response(409, json={"type": "/problems/under-way", "status": 409})
            case 3:
                return httpx.Response(503, json={"status": 503}, headers={"Retry-After": "1"})
        return httpx.Response(200, json=asset(text="mine"))

    assert client(answer).edit("x", "mine", etag='"1"').text == "mine"
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert {request.headers["If-Match"] for request in seen} == {'"1"'}
    assert {request.content for request in seen} == {b'{"text":"mine"}'}
    with pytest.raises(ProblemError):
        client(lambda request: httpx.Response(409, json={"type": "/problems/parts"}), retries=9).redrive("x")


def test_tries_end_and_tell_why() -> None:
    seen: list[httpx.Request] = []

    def away(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ConnectError("refused")

    with pytest.raises(ConnectionFailedError, match="refused"):
        client(away, retries=2).get("x")
    assert len(seen) == 3
    with pytest.raises(NotAvailableError):
        client(lambda request: httpx.Response(502, text="<html>"), retries=1).get("x")


def test_retry_after_is_waited_for_within_reason() -> None:
    assert calls.wait_before_retry(1, 3, httpx.Response(503, headers={"Retry-After": "7"})) >= 7  # type: ignore[operator]
    assert calls.wait_before_retry(1, 3, httpx.Response(503, headers={"Retry-After": "9999"})) == 30
    assert calls.wait_before_retry(4, 3, None) is None
    assert calls.wait_before_retry(1, 3, httpx.Response(404)) is None


def test_a_wait_ends_in_its_time_however_the_api_fails() -> None:
    asked: list[Any] = []

    def busy(request: httpx.Request) -> httpx.Response:
        asked.append(request.extensions["timeout"]["read"])
        return httpx.Response(503, headers={"Retry-After": "20"})

    with pytest.raises(WaitTimeoutError) as error:
        client(busy).wait("x", timeout=2)
    assert isinstance(error.value.__cause__, NotAvailableError)
    assert len(asked) == 1  # the second try would be too late
    assert asked[0] <= 2
    with pytest.raises(NotAvailableError):
        client(busy, retries=0).wait("x", timeout=600)


def test_a_state_that_a_later_api_ends_with_is_an_end() -> None:
    archived = asset(state="archived", completed_at="2026")
    assert client(lambda request: httpx.Response(200, json=archived)).wait("x", timeout=5).state == "archived"


def test_a_token_is_in_no_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return httpx.Response(200, json=asset())

    with Client(URL, token="secret\n", transport=httpx.MockTransport(answer)) as made:  # as a file has it
        made.get("x")
    with pytest.raises(ValueError, match="no header") as error:
        Client(URL, token="se\ncret")
    assert "cret" not in str(error.value)

    def refused(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value b'Bearer secret'")

    with pytest.raises(ConnectionFailedError) as unsent:
        client(refused, retries=9).get("x")  # not tried again: the request is wrong
    assert "secret" not in "".join(traceback.format_exception(unsent.value))


@pytest.mark.parametrize("status", [200, 400])
def test_what_is_no_answer_of_the_api_is_an_error_of_this_package(status: int) -> None:
    with pytest.raises(CaptionsError):
        client(lambda request: httpx.Response(status, content=b"[" * 100_000), retries=0).get("x")

    def garbled(request: httpx.Request) -> httpx.Response:
        raise httpx.DecodingError("incorrect header check")

    with pytest.raises(UnexpectedAnswerError, match="encoding"):
        client(garbled).get("x")
    with pytest.raises(UnexpectedAnswerError, match="encoding"):
        list(client(garbled).stream(b"x"))
    page = {"items": [], "cursor": "c", "live": "l"}
    with pytest.raises(UnexpectedAnswerError, match="page that it is at"):
        list(client(lambda request: httpx.Response(200, json=page)).iterate())


def test_the_token_goes_to_the_api_alone() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "bucket":
            assert "Authorization" not in request.headers
            return httpx.Response(204, headers={"x-amz-version-id": "v1"})
        assert request.headers["Authorization"] == "Bearer secret"
        if request.url.path == "/v1/uploads":
            return httpx.Response(201, json={"id": "x", "key": "k", "url": "http://bucket/", "fields": {}})
        return httpx.Response(302, headers={"Location": "http://elsewhere/"})

    with client(answer) as made:
        assert made.upload(b"bytes", name="a.jpg").version_id == "v1"
        with pytest.raises(UnexpectedAnswerError, match="redirects"):
            made.get("x")


def test_an_id_cannot_name_another_route() -> None:
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(404, json={"title": "Not there", "status": 404})

    with pytest.raises(NotFoundError):
        client(answer).get("../status?x=#")
    assert paths == [b"/v1/assets/..%2Fstatus%3Fx%3D%23"]


def test_every_status_of_the_document_has_its_type_and_others_answers_are_problems_too() -> None:
    statuses = {int(status) for methods in DOCUMENT["paths"].values() for about in methods.values()
                for status in about["responses"] if not status.startswith("2")}  # fmt: skip
    assert {status for status in statuses if type(problem(status, {})) is ProblemError} == {405}
    changed = problem(412, {"type": "/problems/changed", "status": 412, "etag": '"2"'})
    assert isinstance(changed, ChangedMeanwhileError)
    assert changed.etag == '"2"'
    with pytest.raises(NotAllowedError, match="Forbidden"):
        client(lambda request: httpx.Response(403, json={"message": "Forbidden"})).status()


def test_an_empty_file_and_an_ambiguous_stream_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="empty"):
        client(lambda request: httpx.Response(500)).upload(b"")
    with pytest.raises(ValueError, match="give a picture"):
        list(client(lambda request: httpx.Response(500)).stream())
