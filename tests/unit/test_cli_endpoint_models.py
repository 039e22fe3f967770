"""What the command asks an endpoint for, and what it makes of the answer."""

import json
import urllib.error
from collections.abc import Iterator
from email.message import Message
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from captions.gateway.catalogue import load
from captions_cli import doctor, endpoint_models
from captions_cli.stack import Stack
from support.serving import QuietHandler, serving

WORD = {"choices": [{"message": {"role": "assistant", "content": "Yes."}}]}
UNKNOWN_MODEL = {"error": {"message": "no such model", "code": "model_not_found"}}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    listed: bytes = json.dumps({"data": [{"id": "*"}]}).encode()
    status = 200
    answer: object = WORD
    moved_to = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.pages: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(QuietHandler):
    def _answer(self) -> None:
        server = cast(Server, self.server)
        sent = self.body()
        server.asked.append(json.loads(sent)["model"] if sent else self.path)
        status, body = (
            (200, server.pages.get(self.path, server.listed))
            if not sent
            else (server.status, json.dumps(server.answer).encode())
        )
        if server.moved_to:
            self.answer(307, body, Location=server.moved_to)
        else:
            self.answer(status, body)

    do_GET = do_POST = _answer


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with serving(Server()) as first, serving(Server()) as second:
        yield [first, second]


def examined(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setenv("CAPTIONS_ENDPOINT_KEY", "k")
    stack = cast(Stack, SimpleNamespace(parameters={}, client=None))
    return [(level, message) for level, message, _ in doctor._one_endpoint(stack, server.url, load())]


@pytest.mark.parametrize(("code", "certain"), [(404, False), (401, True)])
def test_a_given_endpoint_without_a_list_of_models_may_answer_all_the_same(
    code: int, certain: bool, servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = servers[0].url

    def refuse(*_: object) -> None:
        raise urllib.error.HTTPError(url, code, "no", Message(), None)

    assert endpoint_models.trouble_with_given({"CAPTIONS_ENDPOINT_URL": url}) is None
    monkeypatch.setattr(endpoint_models, "ask", refuse)
    trouble = endpoint_models.trouble_with_given({"CAPTIONS_ENDPOINT_URL": url})

    assert trouble is not None
    assert trouble[0].startswith(f"CAPTIONS_ENDPOINT_URL: {url} ")
    assert trouble[1] is certain


@pytest.mark.parametrize(
    ("status", "answer", "level", "words"),
    [
        (200, WORD, "ok", "which it does not list"),
        (404, UNKNOWN_MODEL, "problem", "offers none"),
        (400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, "problem", "offers none"),
        (200, UNKNOWN_MODEL, "problem", "offers none"),
        (429, {"error": {"message": "slow down"}}, "unknown", "not known"),
        (503, {}, "unknown", "not known"),
        (200, [], "unknown", "not known"),
    ],
)
def test_an_endpoint_that_lists_other_names_is_asked_before_it_is_judged(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, status: int, answer: Any, level: str, words: str
) -> None:
    servers[0].status, servers[0].answer = status, answer
    ((result, message),) = examined(servers[0], monkeypatch)
    assert result == level
    assert words in message
    assert len(servers[0].asked) == 2, "the list, and one model"


@pytest.mark.parametrize("listed", [b"[]", b"null", b"[" * 200_000, b'{"data": {}}', b"\xff", b""])
def test_a_list_of_models_that_is_none_is_a_problem_and_no_traceback(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, listed: bytes
) -> None:
    servers[0].listed = listed
    assert [level for level, _ in examined(servers[0], monkeypatch)] == ["problem"]


def test_a_list_of_models_without_an_end_is_not_read_to_it(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_models, "_MOST_BYTES", 100_000)
    servers[0].listed = b" " * 100_001
    ((level, message),) = examined(servers[0], monkeypatch)
    assert (level, "more than 100000 bytes" in message) == ("problem", True)


def test_no_redirect_takes_the_key_to_another_host(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    servers[0].moved_to = f"{servers[1].url}/models"
    ((level, message),) = examined(servers[0], monkeypatch)
    assert (level, "307" in message) == ("problem", True)
    with pytest.raises(urllib.error.HTTPError):
        endpoint_models.ask(f"{servers[0].url}/chat/completions", "k", {"model": "m"})
    assert servers[1].asked == []
