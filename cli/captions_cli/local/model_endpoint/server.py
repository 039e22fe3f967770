"""The OpenAI-compatible HTTP server: chat completions, models, and the admin API beside them.

    POST /v1/chat/completions    GET /v1/models    GET /v1/models/{name}    POST /v1/audio/transcriptions
    POST /v1/embeddings          /v1/files, /v1/batches (see `batches`)
    GET|DELETE /_local/requests  GET|PUT|DELETE /_local/faults  GET /_local/stats

Built on aiohttp's low-level server: what stands between a client and its answer is parsing, a dictionary of
descriptions, and nothing else, so that a throughput benchmark measures the client.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import math
import random
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from pydantic import ValidationError

from captions.gateway.catalogue import Catalogue, ContentPart, Dialect, Latency, Modality, Model
from captions.gateway.catalogue import load as load_catalogue
from captions_cli.local.model_endpoint import batches, embedding, eyes, prose, quality, structured, transcript
from captions_cli.local.model_endpoint import faults as fault_kinds
from captions_cli.local.model_endpoint.description import Description, UnreadableMediaError
from captions_cli.local.model_endpoint.faults import Fault, FaultBook
from captions_cli.local.model_endpoint.viewing import Viewer
from captions_cli.local.model_endpoint.wire import (
    ApiError,
    ChatCall,
    CountedTokens,
    MediaPart,
    ServerAnswer,
    clip_tokens,
    count_tokens,
    has_text,
    parse_chat,
    sse,
)
from captions_cli.local.model_endpoint.witness import Entry, Witness

# Where the catalogue knows no latency of its own: the middle of the field's measured figures (seconds).
_USUAL_LATENCY: Mapping[str, Latency] = {
    "text": Latency(p50=0.5, p99=1.5),
    "image": Latency(p50=0.7, p99=2.1),
    "audio": Latency(p50=3.1, p99=8.2),
    "video": Latency(p50=3.1, p99=8.2),
}
# The 99th percentile of the standard normal distribution.
_Z99 = 2.3263
# The share of a streamed answer's time that passes before its first token.
_FIRST_TOKEN_SHARE = 0.4
# What vLLM caches prompts by: whole blocks of so many tokens.
_CACHE_BLOCK_TOKENS = 16
_CACHED_PREFIXES = 4096
_CACHED_DESCRIPTIONS = 20_000
_DEFAULT_MAX_TOKENS = 1024
_FETCH_TIMEOUT_S = 15.0
_DRIP_S = 1.0
_CREATED = 1_735_689_600
# OpenAI's limit for a file to transcribe: 25 MB.
_TRANSCRIPTION_BYTES = 25 * 1024 * 1024
_READING_CEILING = 64 * 1024 * 1024

_FORMATS_NAMED_OTHERWISE = {
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/opus": "audio/ogg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "image/jpg": "image/jpeg",
}
_PART_WITH_DATA: Mapping[str, ContentPart] = {
    "image_url": "image_url_data",
    "input_audio": "input_audio",
    "audio_url": "audio_url_data",
    "video_url": "video_url_data",
}
_PART_WITH_URL: Mapping[str, ContentPart] = {
    "image_url": "image_url",
    "input_audio": "input_audio_url",
    "audio_url": "audio_url",
    "video_url": "video_url",
}


@dataclass(frozen=True)
class Options:
    """How the endpoint behaves; everything has the value that suits a demo."""

    latency_scale: float = 1.0
    """Multiplies the catalogue's latencies; 0 answers as fast as it can."""
    seed: int = 0
    """Of the latencies and the faults' probabilities: the same calls in the same order give the same ones."""
    keys: frozenset[str] | None = None
    """The accepted keys; None accepts any that is not empty."""
    dialect: str = "openai"
    """A dialect of the catalogue: the server then takes what that kind of server takes, and errs as it does."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Catalogue name -> the name this server gives the model; with `only_named` it serves no other."""
    only_named: bool = False
    report_cost: bool = False
    """Put `usage.cost` (dollars) into answers where the model's prices are known."""
    assumed_input_price: Decimal | None = None
    """Dollars per million prompt tokens for models without a published price, so that their cost can be reported."""
    log: Path | None = None
    """Append every finished request to this file as a JSON line."""
    eyes: bool = False
    """Small models look at pictures, which are described from their pixels otherwise; see `eyes.missing`."""
    media_hosts: frozenset[str] = frozenset()
    """Hosts besides the loopback that media may be fetched from."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Catalogue name -> how much of what is seen the model tells rightly, 0 to 1; 1 for those that are not named."""
    batch_seconds: float = 2.0
    """How long a batch takes at the least, times `latency_scale`."""
    max_image_pixels: int = 50_000_000
    max_audio_s: float = 900.0
    speech_workers: int = 2


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
        self.models = _served_models(catalogue, self.options)
        self.witness = Witness(self.options.log)
        self._batches = batches.BatchBook(
            self._line_answer, self.options.batch_seconds * max(0.0, self.options.latency_scale)
        )
        self.faults = FaultBook(self.options.seed)
        self.url = ""
        self._strict = self.options.dialect != "openai"
        self._largest_body = max((model.max_body for model in self.models.values() if model.chats), default=0)
        self._viewer = Viewer(
            eyes=self.options.eyes,
            max_image_pixels=self.options.max_image_pixels,
            max_audio_s=self.options.max_audio_s,
            speech_workers=self.options.speech_workers,
        )
        self._descriptions: OrderedDict[tuple[str, str], asyncio.Task[Description]] = OrderedDict()
        self._prefixes: OrderedDict[str, None] = OrderedDict()
        self._draws: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._low_level: _CountingServer | None = None
        self._runner: web.ServerRunner | None = None
        self._fetching: aiohttp.ClientSession | None = None
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
        self._viewer.warm()
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
        pending = [task for task in self._descriptions.values() if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._fetching is not None:
            await self._fetching.close()
        await self._viewer.close()
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
            "described": len(self._descriptions),
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
                return _json(embedding.answer(await self._document(request)))
            if path.startswith(("/v1/files", "/v1/batches")):
                self._authorize(request)
                return await self._batch_api(request, path.split("/")[2:])
            if path == "/v1/models":
                _require_method(request, "GET")
                self._authorize(request)
                return _json({"object": "list", "data": [self._model_card(name) for name in self.models]})
            if path.startswith("/v1/models/"):
                _require_method(request, "GET")
                self._authorize(request)
                name = unquote(path.removeprefix("/v1/models/"))
                if name not in self.models:
                    raise fault_kinds.model_not_found(name)
                return _json(self._model_card(name))
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
        except _SeveredError:
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
        return _json(body, status=error.status, headers=error.headers)

    def _model_card(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        card: dict[str, Any] = {"id": name, "object": "model", "created": _CREATED, "owned_by": model.provider}
        if self.options.dialect == "openai":
            card["context_length"] = model.context
            pricing = {
                side: str((price / 1_000_000).normalize())
                for side, price in (("prompt", model.input_price), ("completion", model.output_price))
                if price is not None
            }
            card["pricing"] = pricing
        return card

    async def _chat(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        call = parse_chat(await self._body(request))
        entry.note(
            model=call.model,
            kind=call.kind,
            streamed=call.stream,
            media_sha256=call.media[0].sha256 if call.media else None,
            prompt_tokens=0,
        )
        model = self.models.get(call.model)
        fault = self.faults.choose(
            model=call.model,
            provider=model.provider if model else None,
            kind=call.kind,
            request_id=entry.fields["client_request_id"] or "",
            streamed=call.stream,
        )
        if fault is not None:
            entry.note(fault=fault.fault)
            early = await self._struck_early(request, entry, fault, call.model, model.context if model else 0)
            if early is not None:
                return early
        if model is None:
            raise fault_kinds.model_not_found(call.model)
        if (request.content_length or 0) > model.max_body:
            raise _too_large(model.max_body)
        self._check_parts(call, model)
        began = time.perf_counter()
        answer = await self._complete(call, model, entry)
        if fault is not None:
            answer = _spoiled(answer, fault)
        due = self._latency(call.model, call.kind, model, entry)
        if fault is not None and fault.fault == "late":
            due += fault.delay_s or 0.0
        rest = due - (time.perf_counter() - began)
        usage = answer.usage
        entry.note(
            status=200,
            finish_reason=answer.finish_reason,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            cached_tokens=usage.cached,
            cost=self._price(model, usage),
        )
        if call.stream:
            return await self._stream(request, entry, call, answer, fault, rest)
        if rest > 0:
            await asyncio.sleep(rest)
        return await self._send_whole(request, entry, answer, fault)

    # Batches

    async def _batch_api(self, request: web.BaseRequest, place: list[str]) -> web.StreamResponse:
        book = self._batches
        match request.method, place:
            case "POST", ["files"]:
                fields, data, name = await self._form(request, batches.MOST_FILE_BYTES)
                if fields.get("purpose") != "batch":
                    raise ApiError(400, "This server keeps files of the purpose 'batch' alone.", param="purpose")
                return _json(book.keep(name, "batch", data))
            case "GET", ["files"]:
                return _json(book.files())
            case "GET", ["files", id_]:
                return _json(book.file(id_).card())
            case "DELETE", ["files", id_]:
                return _json(book.delete_file(id_))
            case "GET", ["files", id_, "content"]:
                return web.Response(body=book.file(id_).data, content_type="application/octet-stream")
            case "POST", ["batches"]:
                fault = self.faults.choose(model="", provider=None, kind="batch", of="batch")
                created = book.create(await self._document(request), fault)
                if fault is not None and fault.fault == "batch_unconfirmed":
                    _reset(request)
                    raise asyncio.CancelledError
                return _json(created)
            case "GET", ["batches"]:
                limit = request.query.get("limit", "20")
                if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 100:
                    raise ApiError(400, "Invalid 'limit': expected an integer from 1 to 100.", param="limit")
                return _json(book.batches(request.query.get("after"), int(limit)))
            case "GET", ["batches", id_]:
                return _json(book.batch(id_).card())
            case "POST", ["batches", id_, "cancel"]:
                return _json(book.cancel(id_))
        raise ApiError(404, f"Unknown request URL: {request.method} {request.path}.", code="unknown_url")

    async def _line_answer(self, batch: str, line: str, body: bytes) -> tuple[int, dict[str, Any], Fault | None]:
        """Answer one line of a batch, which stands in the log like a call, with its `custom_id` as the request's id."""
        entry = self.witness.open(connection=0, client_request_id=line, path=batches.ENDPOINT)
        entry.note(authorized=True, batch=batch)
        outcome, fault = "gone", None
        try:
            call = parse_chat(body)
            model = self.models.get(call.model)
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
            if model is None:
                raise fault_kinds.model_not_found(call.model)
            if model.batch_factor is None:
                raise ApiError(
                    400, f"The model `{call.model}` is not supported by the batch API.", code="model_not_found"
                )
            if len(body) > model.max_body:
                raise _too_large(model.max_body)
            self._check_parts(call, model)
            answer = await self._complete(call, model, entry, factor=model.batch_factor)
            if fault is not None:
                answer = _spoiled(answer, fault)
            usage = answer.usage
            entry.note(
                status=200,
                finish_reason=answer.finish_reason,
                prompt_tokens=usage.prompt,
                completion_tokens=usage.completion,
                cached_tokens=usage.cached,
                cost=self._price(model, usage, model.batch_factor),
            )
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
        limit = self._largest_body if ceiling is None else ceiling
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

    def _check_parts(self, call: ChatCall, model: Model) -> None:
        if self.options.dialect == "ollama" and call.choices > 1:
            raise ApiError(400, "n is not supported", param="n")
        if not model.chats:
            raise ApiError(400, f"The model `{call.model}` does not answer chats.", code="unsupported_modality")
        if model.streaming_only and not call.stream:
            raise ApiError(400, "This model only support stream mode, please enable the stream parameter.")
        for part in call.media:
            if part.kind not in model.modalities:
                message = f"The model `{call.model}` does not support {part.kind} input."
                raise ApiError(400, message, code="unsupported_modality", param="messages")
            if not self._carries(part, model):
                how = "a URL" if part.data is None else "data"
                message = f"The model `{call.model}` does not take {part.kind} as {part.part} with {how}."
                raise ApiError(400, message, code="unsupported_content_part", param="messages")
            media_type = _FORMATS_NAMED_OTHERWISE.get(part.media_type or "", part.media_type)
            if media_type is not None and not model.accepts(part.kind, media_type):
                message = f"You uploaded an unsupported {part.kind}: {media_type}."
                raise ApiError(400, message, code=f"unsupported_{part.kind}_format", param="messages")
            wanted = model.audio_data_prefix
            if wanted and part.part == "input_audio" and part.data is not None and not part.prefix:
                raise ApiError(400, f"The audio data must start with '{wanted}'.", param="messages")

    def _carries(self, part: MediaPart, model: Model) -> bool:
        with_url, with_data = _PART_WITH_URL[part.part], _PART_WITH_DATA[part.part]
        if part.data is None:
            return with_url in model.takes
        if with_data in model.takes:
            return True
        # A server that fetches links reads data URIs as well, unless its dialect says otherwise.
        return not self._strict and part.part != "input_audio" and with_url in model.takes

    async def _complete(self, call: ChatCall, model: Model, entry: Entry, factor: Decimal = Decimal(1)) -> ServerAnswer:
        described = [await self._described(part) for part in call.media]
        for part, seen in zip(call.media, described, strict=True):
            _check_length(model, part.kind, seen)
        prompt = call.text_tokens + sum(description.tokens for description in described)
        wanted = call.max_tokens or min(_DEFAULT_MAX_TOKENS, model.context)
        if prompt + min(wanted, model.context // 2) > model.context:
            raise fault_kinds.context_too_long(model.context, prompt)
        text = "\n".join(description.text for description in described) if described else prose.condense(call.user)
        wanted_form = _wanted_form(call)
        if wanted_form is not None:
            text = structured.shaped(wanted_form, text, described, call.user)
        digests = "/".join(part.sha256 for part in call.media if part.data is not None)
        good = self.options.quality.get(call.model, 1.0)
        text = quality.worsened(text, good, f"{self.options.seed}/{call.model}/{digests or call.user}")
        finish = "stop"
        clipped = clip_tokens(text, wanted)
        if clipped != text:
            text, finish = clipped, "length"
        cached = self._cached_tokens(call, described)
        usage = CountedTokens(prompt=prompt, completion=count_tokens(text) * call.choices, cached=min(cached, prompt))
        if self.options.report_cost:
            cost = self._price(model, usage, factor)
            usage = CountedTokens(usage.prompt, usage.completion, usage.cached, usage.reasoning, cost)
        return ServerAnswer(
            id=f"chatcmpl-local-{entry.fields['id']:08d}",
            created=int(time.time()),
            model=_answered_by(described),
            text=text,
            finish_reason=finish,
            usage=usage,
            choices=call.choices,
            logprobs=call.logprobs,
            certainty=_certainty(described),
        )

    async def _described(self, part: MediaPart) -> Description:
        """Return the part's description; the same bytes are looked at once, however many ask at the same time."""
        if part.data is not None:
            data, digest = part.data, part.sha256
        else:
            data = await self._fetch(part.url or "")
            digest = hashlib.sha256(data).hexdigest()
        key = (part.kind, digest)
        task = self._descriptions.get(key)
        if task is None:
            task = asyncio.ensure_future(self._viewer.describe(part.kind, data))
            self._descriptions[key] = task
            while len(self._descriptions) > _CACHED_DESCRIPTIONS:
                self._descriptions.popitem(last=False)
        try:
            # Shielded: a client that leaves must not take the others' description along.
            return await asyncio.shield(task)
        except UnreadableMediaError as refused:
            raise ApiError(400, refused.message, code=refused.code, param="messages") from None
        except BaseException:
            if task.done() and (task.cancelled() or task.exception() is not None):
                self._descriptions.pop(key, None)
            raise

    async def _fetch(self, url: str) -> bytes:
        split = urlsplit(url)
        host = split.hostname or ""
        if not _is_loopback(host) and host not in self.options.media_hosts:
            message = "Media is only fetched from this machine: the URL's host is not a loopback address."
            raise ApiError(400, message, code="invalid_media_url", param="messages")
        if self._fetching is None:
            timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
            self._fetching = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        try:
            async with self._fetching.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ApiError(400, f"Fetching the media gave HTTP {response.status}.", code="media_fetch_failed")
                data = await response.content.read(_READING_CEILING + 1)
                while len(data) <= _READING_CEILING and (more := await response.content.read(_READING_CEILING)):
                    data += more
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(400, "The media could not be fetched from its URL.", code="media_fetch_failed") from error
        if not data or len(data) > _READING_CEILING:
            raise ApiError(400, "The media behind the URL is empty or too large.", code="media_fetch_failed")
        return data

    def _cached_tokens(self, call: ChatCall, described: list[Description]) -> int:
        """Return how many leading prompt tokens an earlier call had too, in whole blocks of the prompt cache."""
        chain = hashlib.sha256(call.model.encode())
        media_tokens = sum(description.tokens for description in described)
        known = 0
        total = 0
        missed = False
        for position, (digest, tokens) in enumerate(call.message_tokens):
            chain.update(digest.encode())
            prefix = chain.hexdigest()
            last = position == len(call.message_tokens) - 1
            total += tokens + (media_tokens if last else 0)
            if prefix in self._prefixes and not missed:
                known = total
                self._prefixes.move_to_end(prefix)
            else:
                missed = True
                self._prefixes[prefix] = None
        while len(self._prefixes) > _CACHED_PREFIXES:
            self._prefixes.popitem(last=False)
        return known // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS

    def _latency(self, name: str, modality: Modality, model: Model, entry: Entry) -> float:
        """Draw the seconds this call takes: log-normal through the model's p50 and p99, times the scale."""
        if self.options.latency_scale <= 0:
            return 0.0
        latency = model.latency.get(modality) or _USUAL_LATENCY[modality]
        key = f"{name}/{entry.fields['client_request_id'] or entry.fields['media_sha256'] or ''}"
        nth = self._draws.get(key, 0)
        self._draws[key] = nth + 1
        return drawn_seconds(latency, f"{self.options.seed}/{key}/{nth}") * self.options.latency_scale

    def _price(self, model: Model, usage: CountedTokens, factor: Decimal = Decimal(1)) -> str | None:
        """Return the dollars a call costs as decimal text, or None where a price it needs is not known.

        `factor` is a batch's part of the price.
        """
        input_price = model.input_price if model.input_price is not None else self.options.assumed_input_price
        if input_price is None or model.output_price is None:
            return None
        cached_price = model.cached_input_price if model.cached_input_price is not None else input_price
        dollars = (
            factor
            * (
                (usage.prompt - usage.cached) * input_price
                + usage.cached * cached_price
                + usage.completion * model.output_price
            )
            / 1_000_000
        )
        return format(dollars.normalize(), "f")

    # Answers and their faults

    async def _struck_early(
        self, request: web.BaseRequest, entry: Entry, fault: Fault, model: str, context: int
    ) -> web.StreamResponse | None:
        """Carry out the faults that leave no answer; return None for those that only spoil one."""
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
                return _json({"error": {"message": message, "code": 502, "type": "upstream_error"}})
            case "malformed":
                entry.note(status=200, _outcome="error")
                return web.Response(text=fault.text or '{"id": "chatcmpl-', content_type="application/json")
            case "bad_gateway":
                entry.note(status=502, _outcome="error")
                page = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
                return web.Response(status=502, text=page, content_type="text/html")
            case "connection_reset":
                _reset(request)
                raise _SeveredError
            case "hang":
                await asyncio.sleep(fault.delay_s if fault.delay_s is not None else 3600.0)
                _sever(request)
                raise _SeveredError
        return None

    async def _send_whole(
        self, request: web.BaseRequest, entry: Entry, answer: ServerAnswer, fault: Fault | None
    ) -> web.StreamResponse:
        name = fault.fault if fault else None
        body = json.dumps(answer.body(), ensure_ascii=False, separators=(",", ":")).encode()
        if fault is None or name not in {"slow_drip", "cut_stream", "stream_error"}:
            return web.Response(body=body, content_type="application/json", headers={"X-Request-Id": answer.id})
        if name == "stream_error":
            entry.note(_outcome="error")
            return _json(_mid_stream_error(entry, fault))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        if name == "cut_stream":
            await response.write(body[: len(body) // 2])
            _sever(request)
            raise _SeveredError
        for at in range(0, len(body), 16):
            await response.write(body[at : at + 16])
            await asyncio.sleep(fault.delay_s if fault.delay_s is not None else _DRIP_S)
        await response.write_eof()
        return response

    async def _stream(
        self,
        request: web.BaseRequest,
        entry: Entry,
        call: ChatCall,
        answer: ServerAnswer,
        fault: Fault | None,
        rest: float,
    ) -> web.StreamResponse:
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
                raise _SeveredError
            entry.note(_outcome="cut")
        else:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _transcription(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        fields, data, _ = await self._form(request)
        name = fields.get("model", "")
        if not name or not data:
            missing = "file" if name else "model"
            raise ApiError(400, f"you must provide a {missing} parameter", param=missing)
        part = MediaPart("audio", "input_audio", None, data, None)
        entry.note(model=name, kind="audio", media_sha256=part.sha256)
        model = self.models.get(name)
        fault = self.faults.choose(
            model=name,
            provider=model.provider if model else None,
            kind="audio",
            request_id=entry.fields["client_request_id"] or "",
        )
        if fault is not None:
            entry.note(fault=fault.fault)
            early = await self._struck_early(request, entry, fault, name, model.context if model else 0)
            if early is not None:
                return early
        if model is None:
            raise fault_kinds.model_not_found(name)
        if "audio" not in model.modalities:
            raise ApiError(400, f"The model `{name}` does not support audio input.", code="unsupported_modality")
        began = time.perf_counter()
        heard = await self._described(part)
        _check_length(model, "audio", heard)
        if fault is not None:
            heard = transcript.spoiled(heard, fault)
        due = self._latency(name, "audio", model, entry) + (fault.delay_s or 0.0 if fault is not None else 0.0)
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
        completion = count_tokens(heard.text)
        usage = CountedTokens(prompt=heard.tokens, completion=completion)
        seconds = math.ceil(heard.duration_s or 0.0) if model.minute_price is not None else None
        if seconds is None or model.minute_price is None:
            cost = self._price(model, usage)
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
                return _json({"requests": self.witness.requests()})
            case "DELETE", "/_local/requests":
                self.witness.clear()
                return web.Response(status=204)
            case "GET", "/_local/faults":
                return _json({"faults": self.faults.as_list()})
            case "PUT", "/_local/faults":
                try:
                    document = json.loads(await self._body(request, ceiling=1_000_000))
                    self.faults.set(document["faults"] if isinstance(document, dict) else document)
                except (ValueError, KeyError, TypeError) as error:
                    detail = error.errors(include_url=False) if isinstance(error, ValidationError) else str(error)
                    return _json({"error": {"message": "not a list of faults", "detail": detail}}, status=400)
                return _json({"faults": self.faults.as_list()})
            case "DELETE", "/_local/faults":
                self.faults.clear()
                return web.Response(status=204)
            case "GET", "/_local/stats":
                return _json(self.stats())
        return _json({"error": {"message": f"no such admin call: {request.method} {path}"}}, status=404)


def drawn_seconds(latency: Latency, seed: str) -> float:
    """Return seconds drawn from the log-normal distribution through a model's p50 and p99, never over its longest."""
    spread = math.log(latency.p99 / latency.p50) / _Z99
    drawn = latency.p50 * math.exp(spread * random.Random(seed).gauss(0.0, 1.0))  # noqa: S311
    return min(drawn, latency.longest or latency.p99 * 3)


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


class _SeveredError(Exception):
    """A fault ended the connection."""


def _served_models(catalogue: Catalogue, options: Options) -> dict[str, Model]:
    dialect: Dialect = catalogue.dialects[options.dialect]
    served: dict[str, Model] = {}
    for name, model in catalogue.models.items():
        if not model.enabled or (options.only_named and name not in options.names):
            continue
        spoken = dialect.spoken_by(model)
        if spoken is not None:
            served[options.names.get(name, name)] = spoken
    return served


def _check_length(model: Model, kind: Modality, media: Description) -> None:
    longest = model.longest(kind)
    # Re-encoding pads sound by a frame or two, which no server minds.
    if longest is not None and media.duration_s is not None and media.duration_s > longest + 0.5:
        raise ApiError(
            400, f"The {kind} is longer than {longest:g} seconds.", code=f"{kind}_too_long", param="messages"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _require_method(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise ApiError(405, f"Not allowed to {request.method} on this path.", code="method_not_allowed")


def _json(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _mid_stream_error(entry: Entry, fault: Fault) -> dict[str, Any]:
    message = fault.text or "The upstream model stopped while it answered."
    entry.note_error("server_error", message)
    return {"error": {"message": message, "type": "server_error", "code": "server_error", "param": None}}


def _answered_by(described: Sequence[Description]) -> str:
    """Return what the answer's `model` says: what really looked, listened or wrote, whatever model was asked for."""
    names = dict.fromkeys(description.model for description in described)
    return f"local/{'+'.join(names) if names else prose.NAME}"


def _certainty(described: Sequence[Description]) -> float | None:
    """Return how sure the words of an answer are, 0 to 1: as sure as those heard least surely of what it is about.

    Of sound it is the mean posterior probability that the recogniser gives to its words. Pixels are measured, and their
    measures have no probability: of them, and of a text that is only condensed, it is not known.
    """
    known = [description.measured.get("confidence") for description in described]
    heard = [float(value) for value in known if isinstance(value, int | float)]
    return min(heard) if heard and len(heard) == len(known) else None


def _wanted_form(call: ChatCall) -> Mapping[str, Any] | None:
    """Return the shape of the answer: the schema that is given, or else what the instructions show in words."""
    given = call.response_format
    if given is not None and given.get("type") == "json_schema":
        return given
    return structured.told_in_words(call.system) or given


def _spoiled(answer: ServerAnswer, fault: Fault) -> ServerAnswer:
    """Return the answer as a fault leaves it."""
    usage = answer.usage

    def changed(text: str | None, finish_reason: str | None, **more: Any) -> ServerAnswer:
        spent = more.pop("spent", count_tokens(text or "") * answer.choices)
        counted = CountedTokens(usage.prompt, spent, usage.cached, more.pop("thought", 0), usage.cost)
        return ServerAnswer(
            answer.id,
            answer.created,
            answer.model,
            text,
            finish_reason,
            counted,
            answer.choices,
            logprobs=answer.logprobs,
            **more,
        )

    match fault.fault:
        case "empty":
            return changed("", "stop")
        case "reasoning_only":
            thought = fault.text or "The request asks for a description. Let me look at the input step by step."
            spent = count_tokens(thought)
            return changed("", "length", reasoning=thought, spent=spent, thought=spent)
        case "truncated":
            text = answer.text or ""
            return changed(text[: max(1, len(text) // 2)], "length", certainty=answer.certainty)
        case "no_finish_reason":
            return changed(answer.text, None, certainty=answer.certainty)
        case "answer":
            return changed(fault.text or "", "stop", certainty=fault.certainty)
        case "refusal":
            words = fault_kinds.refusal_text(fault)
            if fault.form == "text":
                return changed(words, "stop")
            if fault.form == "content_filter":
                return changed("", "content_filter")
            return changed(None, "stop", refusal=words, spent=count_tokens(words))
    return answer


def _reset(request: web.BaseRequest) -> None:
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
