"""Writes that are sent again under one Idempotency-Key are done once, and answered as they were.

After draft-ietf-httpapi-idempotency-key-header: the key belongs to its caller, another request under it is refused
(422), and one that is still under way as well (409). What failed with nothing done may be sent again. A caller who may
see less now than when they were answered is not answered again (403).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captions import telemetry
from captions_api.access import Caller, caller_of
from captions_api.own_table import MOST_ANSWER_BYTES, OwnTable
from captions_api.problems import Refusal

HEADER = "idempotency-key"
REPLAYED = "Idempotency-Replayed"
MOST_BODY_BYTES = 1_000_000
_WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_KEPT_HEADERS = frozenset({b"content-type", b"etag", b"cache-control", b"location"})
_DONE_NOTHING = frozenset({401, 403, 408, 413, 429})
"""What a request may be answered that another try, with other credentials or later, may not be."""


@dataclass
class _Answer:
    """An answer on its way out, kept as it goes."""

    send: Send
    status: int = 500
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() in _KEPT_HEADERS
            ]
        elif message["type"] == "http.response.body" and len(self.body) <= MOST_ANSWER_BYTES:
            self.body += message.get("body", b"")
        await self.send(message)


@dataclass
class RepeatedWrites:
    """Passes requests on; a write under a key that was answered before is answered the same. `streams` are let be.

    `tenant` returns a caller as they are limited now; it may raise Refusal.
    """

    app: ASGIApp
    table: OwnTable
    tenant: Callable[[Caller], Caller]
    streams: frozenset[str] = frozenset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, once."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers({})
        key = headers.get(HEADER)
        if key is None or scope["method"] not in _WRITES or scope["path"] in self.streams:
            await self.app(scope, receive, send)
            return
        try:
            await self._once(key, headers, scope, receive, send)
        except Refusal as problem:
            await problem.response()(scope, receive, send)

    async def _once(self, key: str, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        if not _KEY.fullmatch(key):
            raise Refusal(400, "idempotency-key", "Idempotency-Key: 1 to 200 visible ASCII characters")
        body = await _read(receive)
        request = (scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"))
        about = "\x00".join((*request, headers.get("if-match", ""), headers.get("content-type", "")))
        fingerprint = hashlib.sha256(about.encode("utf-8", "surrogatepass") + b"\x00" + body).hexdigest()
        who = await asyncio.to_thread(self.tenant, caller_of(scope))
        caller = who.name
        earlier = await asyncio.to_thread(self.table.begin_write, caller, key, fingerprint, who.prefixes)
        if earlier is not None:
            if earlier.fingerprint != fingerprint:
                raise Refusal(422, "idempotency-key-reused", "this Idempotency-Key was sent with another request")
            if earlier.status is None:
                raise Refusal(409, "under-way", "the same request is under way", headers={"Retry-After": "1"})
            if not all(map(who.may, earlier.prefixes)):
                raise Refusal(403, "not-yours", "it was done; its answer may tell of keys that are not yours any more")
            kept = dict(earlier.headers) | {REPLAYED: "true"}
            await Response(earlier.body, earlier.status, kept)(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self.app(scope, _given(body, receive), answer)
        except BaseException:
            await asyncio.to_thread(self.table.forget_write, caller, key)
            raise
        whole = len(answer.body) <= MOST_ANSWER_BYTES
        if answer.status >= 500 or answer.status in _DONE_NOTHING or not whole:
            await asyncio.to_thread(self.table.forget_write, caller, key)
            return
        try:
            await asyncio.to_thread(
                self.table.end_write, caller, key, answer.status, answer.headers, bytes(answer.body)
            )
        except Exception:
            # Done and answered. Sent again, it is refused while somebody may be working on it, then done again.
            telemetry.logger().exception("write_not_kept")


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "disconnected", "the request ended before it was whole")
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES:
            raise Refusal(413, "too-large", f"a write may have {MOST_BODY_BYTES:,} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _given(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read to whoever reads it next."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again
