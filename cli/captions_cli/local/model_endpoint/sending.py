"""How an answer is sent: whole or as a stream, and with the fault that strikes it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from captions_cli.local.model_endpoint import faults as fault_kinds
from captions_cli.local.model_endpoint.faults import Fault
from captions_cli.local.model_endpoint.wire import ChatCall, ServerAnswer, has_text, sse
from captions_cli.local.model_endpoint.witness import Entry

# The share of a streamed answer's time that passes before its first token.
_FIRST_TOKEN_SHARE = 0.4
_DRIP_S = 1.0


class SeveredError(Exception):
    """A fault ended the connection."""


def as_json(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON document as an answer."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def struck_early(
    request: web.BaseRequest, entry: Entry, fault: Fault, model: str, context: int
) -> web.StreamResponse | None:
    """Carry out the faults that leave no answer; return None for those that only spoil one.

    Raises:
        ApiError: the fault is an HTTP error.
        SeveredError: the fault ended the connection.
    """
    error = fault_kinds.http_error(fault, model, context)
    if error is not None or fault.fault in {"error_body", "malformed", "bad_gateway", "connection_reset"}:
        await asyncio.sleep(fault.delay_s or 0.0)
    if error is not None:
        raise error
    match fault.fault:
        case "error_body":
            entry.note(status=200, _outcome="error")
            message = fault.text or "Upstream provider returned an error."
            entry.note_error(502, message)
            return as_json({"error": {"message": message, "code": 502, "type": "upstream_error"}})
        case "malformed":
            entry.note(status=200, _outcome="error")
            return web.Response(text=fault.text or '{"id": "chatcmpl-', content_type="application/json")
        case "bad_gateway":
            entry.note(status=502, _outcome="error")
            page = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
            return web.Response(status=502, text=page, content_type="text/html")
        case "connection_reset":
            reset(request)
            raise SeveredError
        case "hang":
            await asyncio.sleep(fault.delay_s if fault.delay_s is not None else 3600.0)
            _sever(request)
            raise SeveredError
    return None


async def send_whole(
    request: web.BaseRequest, entry: Entry, answer: ServerAnswer, fault: Fault | None
) -> web.StreamResponse:
    """Send an answer as one JSON document. Raises SeveredError where the fault ends the connection."""
    name = fault.fault if fault else None
    body = json.dumps(answer.body(), ensure_ascii=False, separators=(",", ":")).encode()
    if fault is None or name not in {"slow_drip", "cut_stream", "stream_error"}:
        return web.Response(body=body, content_type="application/json", headers={"X-Request-Id": answer.id})
    if name == "stream_error":
        entry.note(_outcome="error")
        return as_json(_mid_stream_error(entry, fault))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    if name == "cut_stream":
        await response.write(body[: len(body) // 2])
        _sever(request)
        raise SeveredError
    for at in range(0, len(body), 16):
        await response.write(body[at : at + 16])
        await asyncio.sleep(fault.delay_s if fault.delay_s is not None else _DRIP_S)
    await response.write_eof()
    return response


async def send_stream(
    request: web.BaseRequest,
    entry: Entry,
    call: ChatCall,
    answer: ServerAnswer,
    fault: Fault | None,
    rest: float,
) -> web.StreamResponse:
    """Send an answer as server-sent events spread over `rest` seconds. Raises SeveredError as `send_whole` does."""
    name = fault.fault if fault else None
    chunks = answer.chunks(include_usage=call.include_usage)
    stop_after: int | None = None
    if fault is not None and name in {"cut_stream", "stream_error"}:
        stop_after = fault.after_pieces if fault.after_pieces is not None else max(2, len(chunks) // 2)
        chunks = chunks[:stop_after]
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Request-Id": answer.id}
    )
    if rest > 0:
        await asyncio.sleep(rest * _FIRST_TOKEN_SHARE)
    pause = max(0.0, rest) * (1 - _FIRST_TOKEN_SHARE) / max(1, len(chunks))
    if fault is not None and name == "slow_drip":
        pause = fault.delay_s if fault.delay_s is not None else _DRIP_S
    await response.prepare(request)
    if pause == 0:
        entry.note(first_token_ms=entry.elapsed_ms())
        await response.write(b"".join(map(sse, chunks)))
    else:
        for chunk in chunks:
            if entry.fields["first_token_ms"] is None and has_text(chunk):
                entry.note(first_token_ms=entry.elapsed_ms())
            await response.write(sse(chunk))
            await asyncio.sleep(pause)
    if fault is not None and name == "stream_error":
        await response.write(sse(_mid_stream_error(entry, fault)))
        entry.note(_outcome="error")
    elif stop_after is not None:
        if fault is None or not fault.clean:
            _sever(request)
            raise SeveredError
        entry.note(_outcome="cut")
    else:
        await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _mid_stream_error(entry: Entry, fault: Fault) -> dict[str, Any]:
    message = fault.text or "The upstream model stopped while it answered."
    entry.note_error("server_error", message)
    return {"error": {"message": message, "type": "server_error", "code": "server_error", "param": None}}


def reset(request: web.BaseRequest) -> None:
    """End the connection with a TCP reset."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _sever(request: web.BaseRequest) -> None:
    """End the connection in order, as a proxy that lost its upstream does: what was written arrives."""
    if request.transport is not None:
        request.transport.close()
