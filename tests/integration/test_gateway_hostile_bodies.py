"""Answers no sane server gives: each is bounded, classed and accounted for, and the next model answers instead."""

import asyncio
import contextlib
import gzip
import json
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from captions.aws.dynamodb import to_item
from captions.gateway import AccountProblem, Completion, DeadlineExceeded, Endpoint, Gateway, Request, StreamEvent
from captions.gateway.batch_api import BatchApi, BatchCallError
from captions.gateway.catalogue import load
from captions.gateway.transport import MOST_ANSWER_BYTES
from captions.records.attempts import paid
from captions.records.record import Provenance
from support.serving import QuietHandler, serving

FIRST, SECOND = "GPT-4o", "GLM-4.6V"


def chat(**changes: Any) -> bytes:
    message = {"role": "assistant", "content": "a pale sky"}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    return json.dumps(body | changes).encode()


class Server(ThreadingHTTPServer):
    """Answers the first model as it is told to, and every other one well."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Handler)
        self.status, self.headers, self.body = 200, dict[str, str](), b""
        self.asked: list[str] = []
        self.promised, self.hangs, self.released = 0, False, threading.Event()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"


class _Handler(QuietHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.body())
        self.server.asked.append(request.get("model", ""))
        first = len(set(self.server.asked)) == 1
        body = self.server.body if first else chat()
        self.send_response(self.server.status if first else 200)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body) + self.server.promised * first)}
        for name, value in (headers | (self.server.headers if first else {})).items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever has read enough hangs up
            self.wfile.write(body)
        if first and self.server.promised:
            self.close_connection = True
            self.server.released.wait(10 if self.server.hangs else 0)

    do_GET = do_POST


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


def asked(server: Server) -> Completion:
    gateway = Gateway(endpoints=[Endpoint(f"{server.url}/v1")], keys=lambda _: "key", catalogue=load())

    async def ask() -> Completion:
        try:
            request = Request(instructions="", text="hi")
            return await gateway.complete(request, [FIRST, SECOND], deadline=time.monotonic() + 20)
        finally:
            await gateway.aclose()

    return asyncio.run(ask())


def streamed(server: Server, seconds: float = 20) -> list[StreamEvent]:
    gateway = Gateway(endpoints=[Endpoint(f"{server.url}/v1")], keys=lambda _: "key", catalogue=load())

    async def ask() -> list[StreamEvent]:
        try:
            events = gateway.stream(
                Request(instructions="", text="hi"), [FIRST, SECOND], deadline=time.monotonic() + seconds
            )
            return [event async for event in events]
        finally:
            await gateway.aclose()

    return asyncio.run(ask())


def chunk(text: str = "", finish_reason: str | None = None, **changes: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body | changes).encode() + b"\n\n"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"choices":' + b"[" * 200_000,
        b'{"choices":' + b'{"a":' * 100_000,
        b'{"choices": ' + b"9" * 5_000 + b"}",
        b"null",
        b"\xff\xfe{}",
        b" " * (MOST_ANSWER_BYTES + 1),
    ],
    ids=["lists", "choices", "objects", "digits", "null", "utf-8", "long"],
)
def test_a_body_that_cannot_be_read_is_garbled_and_the_next_model_answers(server: Server, body: bytes) -> None:
    server.body = body

    answer = asked(server)

    assert (answer.model, answer.text) == (SECOND, "a pale sky")
    assert [(attempt.model, attempt.outcome) for attempt in answer.attempts] == [(FIRST, "garbled"), (SECOND, "ok")]


@pytest.mark.parametrize("packing", ["gzip", "x-gzip", "deflate"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_small_answer_that_unpacks_to_gigabytes_is_given_up_early(server: Server, packing: str, status: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 15 if packing == "deflate" else 31)
    zeros = bytes(1_000_000)
    server.body = b"".join([*(packer.compress(zeros) for _ in range(40)), packer.flush()])
    server.status, server.headers = status, {"Content-Encoding": packing}

    answer = asked(server)

    assert [attempt.outcome for attempt in answer.attempts] == ["garbled", "ok"]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("packing", ["", "gzip"])
@pytest.mark.parametrize(
    "hostile", [b"[" * 200_000, b'{"a":' * 100_000, b" " * (MOST_ANSWER_BYTES + 1), b'{"id": ' + b"9" * 5_000 + b"}"]
)
def test_the_batch_api_takes_no_body_that_cannot_be_read(
    server: Server, hostile: bytes, packing: str, status: int
) -> None:
    server.body, server.status = (gzip.compress(hostile), status) if packing else (hostile, status)
    server.headers = {"Content-Encoding": packing} if packing else {}
    api = BatchApi(lambda fresh: "key", [f"{server.url}/v1"])

    async def made() -> None:
        try:
            await api.create(f"{server.url}/v1", "file", "batch")
        finally:
            await api.aclose()

    with pytest.raises(BatchCallError) as raised:
        asyncio.run(made())
    assert raised.value.kind == ("unknown" if status == 200 else "never") or len(hostile) > MOST_ANSWER_BYTES


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, gzip"])
def test_an_answer_packed_as_nobody_asked_for_is_garbled(server: Server, packing: str) -> None:
    server.body, server.headers = chat(), {"Content-Encoding": packing}

    assert [attempt.outcome for attempt in asked(server).attempts] == ["garbled", "ok"]


def test_an_answer_that_is_packed_without_having_been_asked_is_read(server: Server) -> None:
    server.body, server.headers = gzip.compress(chat()), {"Content-Encoding": "gzip"}

    answer = asked(server)

    assert (answer.model, answer.text) == (FIRST, "a pale sky")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_goes_where_a_redirect_leads(server: Server, status: int) -> None:
    with serving(Server("127.0.0.2")) as other:
        server.status, server.headers = status, {"Location": f"{other.url}/2018-06-01/runtime/invocation/next"}

        answer = asked(server)

    assert (answer.model, other.asked) == (SECOND, [])


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 1e-200}, "0.000000000001"),
        ({"cost": "0.0000123456789012345678901234567890123456789"}, "0.000012345679"),
        ({"cost": 1e200}, "0.000125"),
        ({"cost": -1}, "0.000125"),
        ({"cost": float("nan")}, "0.000125"),
        ({"prompt_tokens": 10**300}, None),
        ({"prompt_tokens": 10**400}, None),
        ({"prompt_tokens": 10.0}, "0.000125"),
    ],
)
def test_what_a_call_cost_can_be_stored_whatever_the_endpoint_states(
    server: Server, usage: dict[str, Any], cost: str | None
) -> None:
    server.body = chat(usage={"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20} | usage)

    answer = asked(server)

    attempts = tuple(attempt.as_dict() for attempt in answer.attempts)
    assert attempts[0].get("cost") == cost
    to_item(Provenance(**paid(attempts)).model_dump(exclude_none=True))


def test_a_server_that_does_not_stream_is_taken_at_its_whole_answer(server: Server) -> None:
    server.body = chat()

    first, done = streamed(server)

    assert (first.kind, first.text, first.model) == ("delta", "a pale sky", FIRST)
    assert done.completion is not None
    assert [(attempt.outcome, str(attempt.cost)) for attempt in done.completion.attempts] == [("ok", "0.000125")]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error": {"message": "Insufficient Balance", "code": "insufficient_balance"}}', "account"),
        (b'{"error": {"message": "Rate limit reached", "code": 429}}', "rate_limited"),
        (b"[]", "garbled"),
        (b"[" * 200_000, "garbled"),
    ],
    ids=["balance", "rate", "list", "deep"],
)
def test_an_error_in_the_place_of_a_stream_is_classed_like_any_other(server: Server, body: bytes, outcome: str) -> None:
    server.body = body

    with contextlib.suppress(AccountProblem):
        attempts = streamed(server)[-1].completion
        assert attempts is not None
        assert attempts.attempts[0].outcome == outcome
        return
    assert outcome == "account"


def test_a_stream_that_is_called_json_is_a_stream_all_the_same(server: Server) -> None:
    server.body = chunk("a pale ") + chunk("sky") + chunk(finish_reason="stop") + b"data: [DONE]\n\n"

    completion = streamed(server)[-1].completion

    assert completion is not None
    assert (completion.model, completion.text) == (FIRST, "a pale sky")


@pytest.mark.parametrize("end", ["hangs", "breaks off", "garbled"])
def test_an_answer_that_is_complete_is_kept_though_its_stream_does_not_end_well(server: Server, end: str) -> None:
    """It was paid for, and another model would be paid for the same."""
    server.body = chunk("a pale sky") + chunk(finish_reason="stop") + (b"data: {no\n\n" if end == "garbled" else b"")
    server.headers = {"Content-Type": "text/event-stream"}
    server.promised, server.hangs = 0 if end == "garbled" else 100, end == "hangs"
    began = time.monotonic()

    events = streamed(server)

    server.released.set()
    assert [(event.kind, event.model) for event in events] == [("delta", FIRST), ("done", FIRST)]
    assert time.monotonic() - began < 6


@pytest.mark.parametrize("text", ["a pa", "a pale sky"])
def test_a_reason_to_end_that_stands_in_every_piece_says_nothing_of_the_end(server: Server, text: str) -> None:
    server.body = chunk("so ", "stop") + chunk(text, "stop")
    server.headers, server.promised = {"Content-Type": "text/event-stream"}, 100

    assert [event.kind for event in streamed(server)] == ["delta", "delta", "restart", "delta", "done"]


def test_pieces_that_come_faster_than_they_are_read_do_not_outlast_the_deadline(server: Server) -> None:
    server.body = chunk("a ") * 80_000
    server.headers = {"Content-Type": "text/event-stream"}
    began = time.monotonic()

    with contextlib.suppress(DeadlineExceeded):
        streamed(server, seconds=0.5)

    assert time.monotonic() - began < 3


def test_what_follows_an_archive_is_not_read(server: Server) -> None:
    server.body, server.headers = gzip.compress(chat()) + bytes(1_000), {"Content-Encoding": "gzip"}
    server.promised, server.hangs = 1_000_000_000, True

    answer = asked(server)

    server.released.set()
    assert answer.model == FIRST


@pytest.mark.parametrize(("before", "cost"), [(b"", "0"), (chunk("a pa"), None)])
def test_an_error_behind_the_first_words_may_have_been_charged(server: Server, before: bytes, cost: str | None) -> None:
    server.body = before + b'data: {"error": {"message": "CUDA error", "code": 500}}\n\n'
    server.headers = {"Content-Type": "text/event-stream"}

    completion = streamed(server)[-1].completion

    assert completion is not None
    failed = completion.attempts[0].as_dict()
    assert (failed["outcome"], failed.get("cost")) == ("server_error", cost)


def test_a_long_body_that_is_neither_json_nor_a_stream_is_given_up_at_once(server: Server) -> None:
    server.body = b"a\n" * 7_000_000
    began = time.process_time()

    completion = streamed(server)[-1].completion

    assert completion is not None
    assert completion.attempts[0].outcome == "garbled"
    assert time.process_time() - began < 3
