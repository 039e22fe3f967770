"""The connection to endpoints: answers are bounded, unpacked here, and never followed to another host."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx2
import openai

from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import AttemptFailed
from captions.once import once

MOST_ANSWER_BYTES = 16_000_000
"""Of one answer, unpacked. The longest transcript with times and probabilities takes a few; ten calls run at once."""
_PIECE_BYTES = 65_536
_CONNECTIONS = 256
_KEEPALIVE_S = 60.0
"""Longer than the client's 5 s: a sandbox that is called every few seconds keeps its connections."""


def http_client(most_bytes: int = MOST_ANSWER_BYTES) -> httpx2.AsyncClient:
    """Return a client that endpoints share, whose answers have so many bytes at the most.

    Redirects are not followed: they would take prompt, media and a request id to a host that nobody configured. Answers
    are asked for unpacked; from a server that packs them all the same, gzip and deflate are taken.
    """
    return openai.DefaultAsyncHttpxClient(
        verify=_trust(),
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        limits=httpx2.Limits(
            max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_KEEPALIVE_S
        ),
        event_hooks={"response": [partial(_bound, most_bytes)]},
    )


@once
def _trust() -> ssl.SSLContext:
    """The certificates that endpoints are checked against; reading them takes 30 ms, and whoever asked waits for it."""
    return httpx2.create_ssl_context()


async def _bound(most_bytes: int, response: httpx2.Response) -> None:
    """Put a bounded stream in the place of a response's own, before anything of it is read."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise AttemptFailed(
            ErrorClass.GARBLED, status=response.status_code, detail=f"an answer packed as {encoding[:40]}"
        )
    if encoding not in ("identity", ""):
        del response.headers["content-encoding"]
    packed = None if encoding in ("identity", "") else zlib.decompressobj(47 if encoding != "deflate" else 15)
    response.stream = _Bounded(response.stream, response.status_code, packed, most_bytes)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, status: int, packed: Any, most_bytes: int) -> None:
        self._most = most_bytes
        self._stream = stream
        self._status = status
        self._packed = packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for received in self._stream:
            for piece in self._unpacked(received):
                left -= len(piece)
                if left < 0:
                    detail = f"an answer of more than {self._most} bytes"
                    raise AttemptFailed(ErrorClass.GARBLED, status=self._status, detail=detail)
                yield piece
            if self._packed is not None and self._packed.eof:
                return  # what follows an archive is none of it, and zlib would keep it all

    def _unpacked(self, received: bytes) -> Any:
        if self._packed is None:
            yield received
            return
        try:
            while received and not self._packed.eof:
                yield self._packed.decompress(received, _PIECE_BYTES)
                received = self._packed.unconsumed_tail
        except zlib.error as error:
            raise AttemptFailed(ErrorClass.GARBLED, status=self._status, detail="a broken archive") from error

    async def aclose(self) -> None:
        await self._stream.aclose()
