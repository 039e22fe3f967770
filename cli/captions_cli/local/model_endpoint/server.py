"""The OpenAI-compatible HTTP server: chat completions, models, and the admin API beside them.

    POST /v1/chat/completions    GET /v1/models    GET /v1/models/{name}    POST /v1/audio/transcriptions
    POST /v1/embeddings          /v1/files, /v1/batches (see `batches`)
    GET|DELETE /_local/requests  GET|PUT|DELETE /_local/faults  GET /_local/stats

Built on aiohttp's low-level server: what stands between a client and its answer is parsing, a dictionary of
descriptions, and nothing else, so that a throughput benchmark measures the client.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from pydantic import ValidationError

from captions.gateway.catalogue import Catalogue
from captions.gateway.catalogue import load as load_catalogue
from captions_cli.local.model_endpoint import batches, embedding, eyes, transcript
from captions_cli.local.model_endpoint import faults as fault_kinds
from captions_cli.local.model_endpoint.faults import Fault, FaultBook
from captions_cli.local.model_endpoint.sending import (
    SeveredError,
    as_json,
    reset,
    send_stream,
    send_whole,
    struck_early,
)
from captions_cli.local.model_endpoint.serving import Options, ServedModels
from captions_cli.local.model_endpoint.viewing import MediaReader, Viewer
from captions_cli.local.model_endpoint.wire import (
    ApiError,
    CountedTokens,
    MediaPart,
    RequestKind,
    count_tokens,
    parse_chat,
)
from captions_cli.local.model_endpoint.witness import Entry, Witness

# OpenAI's limit for a file to transcribe: 25 MB.
_TRANSCRIPTION_BYTES = 25 * 1024 * 1024


class EndpointServer:
    """The server's state and its handlers; `start` and `stop` run it on the current event loop."""

    def __init__(self, options: Options | None = None, catalogue: Catalogue | None = None) -> None:
        self.options = options or Options()
        catalogue = catalogue or load_catalogue()
        if self.options.dialect not in catalogue.dialects:
            raise ValueError(
                f"unknown dialect {self.options.dialect!r}; known: {', '.join(sorted(catalogue.dialects))}"
            )
        if self.options.eyes and (absent := eyes.missing()):
            raise ValueError(f"the small models need packages that are not installed: {', '.join(absent)}")
        self.witness = Witness(self.options.log)
        self._batches = batches.BatchBook(
            self._line_answer, self.options.batch_seconds * max(0.0, self.options.latency_scale)
        )
        self.faults = FaultBook(self.options.seed)
        self.url = ""
        viewer = Viewer(
            eyes=self.options.eyes,
            max_image_pixels=self.options.max_image_pixels,
            max_audio_s=self.options.max_audio_s,
            speech_workers=self.options.speech_workers,
        )
        self._media = MediaReader(viewer, self.options.media_hosts)
        self._models = ServedModels(self.options, catalogue, self._media)
        self._server: asyncio.Server | None = None
        self._low_level: _CountingServer | None = None
        self._runner: web.ServerRunner | None = None
        self._started = time.monotonic()

    # Life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL (`http://host:port/v1`). Port 0 takes a free one."""
        self._low_level = _CountingServer(
            self._answer, access_log=None, handler_cancellation=True, keepalive_timeout=75.0
        )
        self._runner = web.ServerRunner(self._low_level)
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(self._low_level, host, port, backlog=1024)
        bound = self._server.sockets[0].getsockname()
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"http://{name}:{bound[1]}/v1"
        self._media.warm()
        return self.url

    async def stop(self) -> None:
        """Stop listening, end open requests and worker processes, close the log."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None and self._low_level is not None:
            self._low_level.pre_shutdown()
            await self._low_level.shutdown(timeout=0.2)
            await self._runner.cleanup()
        await self._batches.stop()
        await self._media.close()
        self.witness.end()

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted since the start."""
        return self._low_level.accepted if self._low_level is not None else 0

    def stats(self) -> dict[str, Any]:
        """Return counts of connections, requests by outcome, fault and model, and of media described."""
        return {
            "url": self.url,
            "connections": self.connections,
            "described": self._media.described,
            "up_s": round(time.monotonic() - self._started, 3),
            **self.witness.tally(),
        }

    # Requests

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path == "/v1/chat/completions":
            return await self._witnessed(request, path, self._chat)
        if path == "/v1/audio/transcriptions":
            return await self._witnessed(request, path, self._transcription)
        if path.startswith("/_local/"):
            return await self._admin(request, path)
        try:
            if path == "/v1/embeddings":
                _require_method(request, "POST")
                self._authorize(request)
                return as_json(embedding.answer(await self._document(request)))
            if path.startswith(("/v1/files", "/v1/batches")):
                self._authorize(request)
                return await self._batch_api(request, path.split("/")[2:])
            if path == "/v1/models":
                _require_method(request, "GET")
                self._authorize(request)
                return as_json(self._models.cards())
            if path.startswith("/v1/models/"):
                _require_method(request, "GET")
                self._authorize(request)
                return as_json(self._models.card(unquote(path.removeprefix("/v1/models/"))))
            raise ApiError(404, f"Unknown request URL: {request.method} {path}.", code="unknown_url")
        except ApiError as error:
            return self._error(error)

    async def _witnessed(
        self,
        request: web.BaseRequest,
        path: str,
        handle: Callable[[web.BaseRequest, Entry], Coroutine[Any, Any, web.StreamResponse]],
    ) -> web.StreamResponse:
        entry = self.witness.open(
            connection=self._low_level.number(request.protocol) if self._low_level is not None else 0,
            client_request_id=request.headers.get("X-Client-Request-Id"),
            path=path,
        )
        outcome = "gone"
        try:
            _require_method(request, "POST")
            self._authorize(request)
            entry.note(authorized=True)
            response = await handle(request, entry)
            outcome = entry.fields.pop("_outcome", "ok")
            return response
        except ApiError as error:
            outcome = "error"
            entry.note(status=error.status)
            entry.note_error(error.code, error.message)
            return self._error(error)
        except SeveredError:
            outcome = "cut"
            raise asyncio.CancelledError from None
        except (ConnectionResetError, aiohttp.ClientConnectionError):
            # The client left while it was answered: nobody is there to be told.
            raise asyncio.CancelledError from None
        finally:
            self.witness.close(entry, outcome)

    def _authorize(self, request: web.BaseRequest) -> None:
        if self.options.dialect == "ollama":
            return  # Ollama asks for a key to please clients, and looks at none.
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "You didn't provide an API key.", code="missing_api_key")
        if self.options.keys is not None and key not in self.options.keys:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    def _error(self, error: ApiError) -> web.Response:
        body = error.body()
        if self.options.dialect == "sglang":
            # SGLang sends the error object itself, with the HTTP status as its code.
            body = {"object": "error", "message": error.message, "type": "BadRequestError", "param": None}
            body["code"] = error.status
        return as_json(body, status=error.status, headers=error.headers)

    async def _chat(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        call = parse_chat(await self._body(request))
        entry.note(
            model=call.model,
            kind=call.kind,
            streamed=call.stream,
            media_sha256=call.media[0].sha256 if call.media else None,
            prompt_tokens=0,
        )
        fault, early = await self._struck(request, entry, call.model, call.kind, streamed=call.stream)
        if early is not None:
            return early
        model = self._models.served(call.model)
        if (request.content_length or 0) > model.max_body:
            raise _too_large(model.max_body)
        began = time.perf_counter()
        answer = await self._models.complete(call, model, fault, entry)
        due = self._models.latency(call.model, call.kind, model, entry)
        if fault is not None and fault.fault == "late":
            due += fault.delay_s or 0.0
        rest = due - (time.perf_counter() - began)
        if call.stream:
            return await send_stream(request, entry, call, answer, fault, rest)
        if rest > 0:
            await asyncio.sleep(rest)
        return await send_whole(request, entry, answer, fault)

    async def _struck(
        self, request: web.BaseRequest, entry: Entry, name: str, kind: RequestKind, *, streamed: bool = False
    ) -> tuple[Fault | None, web.StreamResponse | None]:
        """Return the fault that a call suffers, and the answer to it where that is all the fault leaves."""
        model = self._models.get(name)
        fault = self.faults.choose(
            model=name,
            provider=model.provider if model else None,
            kind=kind,
            request_id=entry.fields["client_request_id"] or "",
            streamed=streamed,
        )
        if fault is None:
            return None, None
        entry.note(fault=fault.fault)
        return fault, await struck_early(request, entry, fault, name, model.context if model else 0)

    # Batches

    async def _batch_api(self, request: web.BaseRequest, place: list[str]) -> web.StreamResponse:
        book = self._batches
        match request.method, place:
            case "POST", ["files"]:
                fields, data, name = await self._form(request, batches.MOST_FILE_BYTES)
                if fields.get("purpose") != "batch":
                    raise ApiError(400, "This server keeps files of the purpose 'batch' alone.", param="purpose")
                return as_json(book.keep(name, "batch", data))
            case "GET", ["files"]:
                return as_json(book.files())
            case "GET", ["files", id_]:
                return as_json(book.file(id_).card())
            case "DELETE", ["files", id_]:
                return as_json(book.delete_file(id_))
            case "GET", ["files", id_, "content"]:
                return web.Response(body=book.file(id_).data, content_type="application/octet-stream")
            case "POST", ["batches"]:
                fault = self.faults.choose(model="", provider=None, kind="batch", of="batch")
                created = book.create(await self._document(request), fault)
                if fault is not None and fault.fault == "batch_unconfirmed":
                    reset(request)
                    raise asyncio.CancelledError
                return as_json(created)
            case "GET", ["batches"]:
                limit = request.query.get("limit", "20")
                if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 100:
                    raise ApiError(400, "Invalid 'limit': expected an integer from 1 to 100.", param="limit")
                return as_json(book.batches(request.query.get("after"), int(limit)))
            case "GET", ["batches", id_]:
                return as_json(book.batch(id_).card())
            case "POST", ["batches", id_, "cancel"]:
                return as_json(book.cancel(id_))
        raise ApiError(404, f"Unknown request URL: {request.method} {request.path}.", code="unknown_url")

    async def _line_answer(self, batch: str, line: str, body: bytes) -> tuple[int, dict[str, Any], Fault | None]:
        """Answer one line of a batch, which stands in the log like a call, with its `custom_id` as the request's id."""
        entry = self.witness.open(connection=0, client_request_id=line, path=batches.ENDPOINT)
        entry.note(authorized=True, batch=batch)
        outcome, fault = "gone", None
        try:
            call = parse_chat(body)
            model = self._models.get(call.model)
            sha = call.media[0].sha256 if call.media else None
            entry.note(model=call.model, kind=call.kind, media_sha256=sha)
            provider = model.provider if model else None
            fault = self.faults.choose(model=call.model, provider=provider, kind=call.kind, of="line")
            if fault is not None:
                entry.note(fault=fault.fault)
                if fault.fault == "lost_line":
                    outcome = "lost"
                    return 500, {}, fault
                if (error := fault_kinds.http_error(fault, call.model, model.context if model else 0)) is not None:
                    raise error
            model = self._models.served(call.model)
            if model.batch_factor is None:
                raise ApiError(
                    400, f"The model `{call.model}` is not supported by the batch API.", code="model_not_found"
                )
            if len(body) > model.max_body:
                raise _too_large(model.max_body)
            answer = await self._models.complete(call, model, fault, entry, factor=model.batch_factor)
            outcome = "ok"
            return 200, answer.body(), fault
        except ApiError as error:
            outcome = "error"
            entry.note(status=error.status)
            entry.note_error(error.code, error.message)
            return error.status, error.body(), fault
        finally:
            self.witness.close(entry, outcome)

    async def _document(self, request: web.BaseRequest) -> Any:
        try:
            return json.loads(await self._body(request))
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "We could not parse the JSON body of your request.") from error

    async def _body(self, request: web.BaseRequest, ceiling: int | None = None) -> bytes:
        limit = self._models.largest_body if ceiling is None else ceiling
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        pieces: list[bytes] = []
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # Answers and their faults

    async def _transcription(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        fields, data, _ = await self._form(request)
        name = fields.get("model", "")
        if not name or not data:
            missing = "file" if name else "model"
            raise ApiError(400, f"you must provide a {missing} parameter", param=missing)
        part = MediaPart("audio", "input_audio", None, data, None)
        entry.note(model=name, kind="audio", media_sha256=part.sha256)
        fault, early = await self._struck(request, entry, name, "audio")
        if early is not None:
            return early
        model = self._models.served(name)
        if "audio" not in model.modalities:
            raise ApiError(400, f"The model `{name}` does not support audio input.", code="unsupported_modality")
        began = time.perf_counter()
        heard = await self._models.described(part, model)
        if fault is not None:
            heard = transcript.spoiled(heard, fault)
        due = self._models.latency(name, "audio", model, entry) + (fault.delay_s or 0.0 if fault is not None else 0.0)
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
        completion = count_tokens(heard.text)
        usage = CountedTokens(prompt=heard.tokens, completion=completion)
        seconds = math.ceil(heard.duration_s or 0.0) if model.minute_price is not None else None
        if seconds is None or model.minute_price is None:
            cost = self._models.price(model, usage)
            counted = {"type": "tokens", "input_tokens": usage.prompt, "output_tokens": completion}
        else:
            cost = format((seconds * model.minute_price / 60).normalize(), "f")
            counted = {"type": "duration", "seconds": seconds}
        entry.note(status=200, prompt_tokens=usage.prompt, completion_tokens=completion, cost=cost)
        body, content_type = transcript.formatted(heard, fields.get("response_format", "json"), counted)
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    async def _form(
        self, request: web.BaseRequest, most: int = _TRANSCRIPTION_BYTES
    ) -> tuple[dict[str, str], bytes, str]:
        """Return the text fields of a multipart form, the bytes of its field `file`, and that file's name."""
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "Expected a request of type multipart/form-data.")
        if (request.content_length or 0) > most:
            raise _too_large(most)
        fields: dict[str, str] = {}
        data, filename = b"", ""
        try:
            async for part in await request.multipart():
                if not isinstance(part, aiohttp.BodyPartReader):
                    raise ApiError(400, "The form holds a form.")
                pieces: list[bytes] = []
                size = 0
                while piece := await part.read_chunk(1 << 16):
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    pieces.append(piece)
                if part.name == "file":
                    data, filename = b"".join(pieces), part.filename or "file"
                elif part.name:
                    fields[part.name] = b"".join(pieces).decode("utf-8", "replace")
        except ValueError as error:
            raise ApiError(400, "The form could not be read.") from error
        return fields, data, filename

    # Admin

    async def _admin(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        match request.method, path:
            case "GET", "/_local/requests":
                return as_json({"requests": self.witness.requests()})
            case "DELETE", "/_local/requests":
                self.witness.clear()
                return web.Response(status=204)
            case "GET", "/_local/faults":
                return as_json({"faults": self.faults.as_list()})
            case "PUT", "/_local/faults":
                try:
                    document = json.loads(await self._body(request, ceiling=1_000_000))
                    self.faults.set(document["faults"] if isinstance(document, dict) else document)
                except (ValueError, KeyError, TypeError) as error:
                    detail = error.errors(include_url=False) if isinstance(error, ValidationError) else str(error)
                    return as_json({"error": {"message": "not a list of faults", "detail": detail}}, status=400)
                return as_json({"faults": self.faults.as_list()})
            case "DELETE", "/_local/faults":
                self.faults.clear()
                return web.Response(status=204)
            case "GET", "/_local/stats":
                return as_json(self.stats())
        return as_json({"error": {"message": f"no such admin call: {request.method} {path}"}}, status=404)


class _CountingServer(web.Server):
    """aiohttp's low-level server, numbering the connections it accepts."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.accepted = 0
        self._numbers: dict[RequestHandler, int] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self.accepted += 1
        self._numbers[handler] = self.accepted
        super().connection_made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._numbers.pop(handler, None)
        super().connection_lost(handler, exc)

    def number(self, handler: RequestHandler) -> int:
        """Return the connection's place in the order of arrival, from 1 on; 0 when it is gone."""
        return self._numbers.get(handler, 0)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _require_method(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise ApiError(405, f"Not allowed to {request.method} on this path.", code="method_not_allowed")
