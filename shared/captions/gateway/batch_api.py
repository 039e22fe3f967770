"""OpenAI's Batch API (`/v1/files`, `/v1/batches`), and what a line of its results means.

Written against the API reference (https://platform.openai.com/docs/api-reference/batch) and where others differ: Zhipu
and Together take files of 100 MB, some leave the metadata out of what they list, so that batches are told apart by
their input file, and an id of no file may be an empty text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import openai
from openai.types.chat import ChatCompletion

from captions.cost import Cost
from captions.gateway.api_keys import KeyRing, Keys
from captions.gateway.catalogue import Model
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import AccountProblem, AttemptFailed, classify_error_object, classify_status
from captions.gateway.pricing import cost_of, saved_in_batch, usage_of
from captions.gateway.responses import ModelAnswer, answer_of, detail_of, failure_of
from captions.gateway.transport import MOST_ANSWER_BYTES, http_client
from captions.gateway.types import Attempt, CostSource, Endpoint

CHAT = "/v1/chat/completions"
WINDOW = "24h"
"""The only one that OpenAI takes."""
MOST_LISTED = 1_000
"""Batches that are looked through for one."""
CLOCKS_APART_SECONDS = 3_600.0
"""Of the endpoint's clock and ours, at the most."""
_MOST_RESULT_BYTES = 900_000_000
"""Of one file of results: 10,000 answers of 90 KB, as those with the probabilities of a thousand tokens are. Of a
longer one this is read. The function's disk holds twice as much."""
_MOST_LINE_BYTES = 4_000_000
"""Of one result: no answer to a picture is so long, and it is read as a whole."""
_NAMED = re.compile(rb'"custom_id"\s*:\s*"([\w-]+)"')
_HEAD_BYTES = 1_024
"""Of a line that is too long, which is taken for garbled: where its id is looked for."""
_PIECE_BYTES = 1 << 16
_TIMEOUT = openai.Timeout(120.0, connect=5.0)

BatchStatus = Literal["running", "completed", "ended"]


class BatchCallError(Exception):
    """A call of the Batch API failed: `later` (certainly without effect, may work later), `never` (it never will), or
    `unknown` (it may have had its effect).
    """

    def __init__(self, kind: Literal["later", "never", "unknown"], message: str, *, account: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.account = account


@dataclass(frozen=True)
class RemoteBatch:
    """A batch as the endpoint has it; `outputs` are the ids of those files of results and errors that it has."""

    id: str
    status: BatchStatus
    outputs: tuple[str, ...] = ()
    reason: str | None = None
    """Why it ended without answering everything."""


@dataclass(frozen=True)
class LineResult:
    """What one line of a batch came to: the call it was, and its answer if it has one."""

    attempt: Attempt
    answer: ModelAnswer | None
    cost_source: CostSource


class BatchApi:
    """A client of the Batch API of `endpoints`; connections belong to the event loop of its calls.

    One that was configured when a batch began, and is no longer, gets no key that is not its own.
    """

    def __init__(self, keys: Keys, endpoints: Iterable[str]) -> None:
        self._keys = KeyRing(keys)
        self._endpoints = frozenset(Endpoint(url).base_url for url in endpoints)
        self._clients: dict[tuple[str, int], openai.AsyncOpenAI] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def upload(self, base_url: str, name: str, path: Path) -> str:
        """Send a file of lines, and return its id. A file that is sent twice costs nothing."""
        with path.open("rb") as data:
            made = await self._call(base_url, lambda api: api.files.create(file=(name, data), purpose="batch"))
        return str(made.id)

    async def create(self, base_url: str, file_id: str, batch: str) -> str:
        """Have the endpoint work at a file, and return its batch's id. Whoever asks for it twice pays twice."""
        created = await self._call(
            base_url,
            lambda api: api.batches.create(
                input_file_id=file_id,
                endpoint=CHAT,
                completion_window=WINDOW,
                metadata={"captions_batch": batch},
            ),
            writes=True,
        )
        if not getattr(created, "id", None):
            raise BatchCallError("unknown", "the endpoint answered without a batch")
        return str(created.id)

    async def find(self, base_url: str, file_id: str, since: str = "") -> str | None:
        """Return the id of a batch that was made of a file, at `since` (ISO 8601) or later; None if there is none.

        Raises BatchCallError where more than MOST_LISTED are listed without it: then nobody knows.
        """
        seen: set[str] = set()
        after: str | None = None
        while len(seen) < MOST_LISTED:
            options = {} if after is None else {"after": after}
            page = await self._call(base_url, lambda api, o=options: api.batches.list(limit=100, **o))
            for batch in page.data:
                if batch.input_file_id == file_id:
                    return str(batch.id)
            # Some say nothing of whether there are more, and some give the same page for ever.
            new = {str(batch.id) for batch in page.data} - seen
            if not new or getattr(page, "has_more", None) is False or _before(page.data, since):
                return None
            seen |= new
            after = page.data[-1].id
        raise BatchCallError("later", f"the batch is not among the first {MOST_LISTED} that are listed")

    async def retrieve(self, base_url: str, batch: str) -> RemoteBatch:
        """Return how a batch is."""
        batch_object = await self._call(base_url, lambda api: api.batches.retrieve(batch))
        status = str(getattr(batch_object, "status", "")).lower().replace("canceled", "cancelled")
        answers, errors = (getattr(batch_object, name, None) for name in ("output_file_id", "error_file_id"))
        outputs = tuple(str(file) for file in (answers, errors) if file)
        # It may say that it has ended before it names the file of what it answered.
        answered = getattr(getattr(batch_object, "request_counts", None), "completed", None) or 0
        if status not in ("completed", "failed", "expired", "cancelled") or (answered and not answers):
            return RemoteBatch(batch, "running", outputs)
        if status == "completed":
            return RemoteBatch(batch, "completed", outputs)
        problems = getattr(getattr(batch_object, "errors", None), "data", None) or ()
        why = "; ".join(str(detail_of(problem.message)) for problem in problems[:3] if problem.message)
        return RemoteBatch(batch, "ended", outputs, f"{status}: {why}"[:300] if why else status)

    async def cancel(self, base_url: str, batch: str) -> None:
        """Have a batch end early; what it answered until then stays."""
        await self._call(base_url, lambda api: api.batches.cancel(batch))

    async def download(self, base_url: str, file_id: str, to: Path) -> None:
        """Write a file of results to a path, or as much of it as is read."""

        async def fetch(api: openai.AsyncOpenAI) -> None:
            left = _MOST_RESULT_BYTES
            async with api.files.with_streaming_response.content(file_id) as response:
                with to.open("wb") as out:
                    async for piece in response.iter_bytes(_PIECE_BYTES):
                        left -= out.write(piece[:left])
                        if not left:
                            break

        # What is above the file's bound is left on the line, not an error.
        await self._call(base_url, fetch, most_bytes=2 * _MOST_RESULT_BYTES)

    async def remove(self, base_url: str, file_id: str) -> None:
        """Remove a file: what was sent, or what was answered."""
        await self._call(base_url, lambda api: api.files.delete(file_id))

    async def aclose(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _call(
        self, base_url: str, call: Any, *, writes: bool = False, most_bytes: int = MOST_ANSWER_BYTES
    ) -> Any:
        try:
            key = await self._keys.key(base_url)
            if base_url not in self._endpoints and not await self._keys.own(base_url):
                raise AccountProblem(
                    f"{base_url} is not among the stack's endpoints any more, and has no key of its own"
                )
        except AccountProblem as error:
            raise BatchCallError("later", str(error), account=True) from error
        for _ in range(2):
            try:
                return await call(self._client(base_url, most_bytes).with_options(api_key=key))
            except openai.AuthenticationError as error:
                renewed = await self._keys.renewed(base_url, key)
                if renewed is None:
                    raise BatchCallError("later", "the endpoint rejects the key", account=True) from error
                key = renewed
            except Exception as error:  # whatever a body that nobody can take makes of the client's classes
                raise _call_error(error, writes) from error
        raise BatchCallError("later", "the endpoint rejects the key", account=True)

    def _client(self, base_url: str, most_bytes: int) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._clients = loop, {}
        if (base_url, most_bytes) not in self._clients:
            client = openai.AsyncOpenAI(
                base_url=base_url,
                api_key="sent-with-each-call",
                max_retries=0,
                timeout=_TIMEOUT,
                http_client=http_client(most_bytes),
            )
            client.organization = client.project = None
            self._clients[base_url, most_bytes] = client
        return self._clients[base_url, most_bytes]


def _before(page: Sequence[Any], since: str) -> bool:
    """Whether a page, and so all that follow it, has only older batches: where it is seen to be newest first."""
    times = [at for batch in page if isinstance(at := getattr(batch, "created_at", None), int)]
    if not since or len(times) < len(page):
        return False
    newest_first = times == sorted(times, reverse=True) and times[0] > times[-1]
    return newest_first and times[0] < datetime.fromisoformat(since).timestamp() - CLOCKS_APART_SECONDS


def _call_error(error: Exception, writes: bool) -> BatchCallError:
    failure = failure_of(error)
    message = failure.detail or (f"HTTP {failure.status}" if failure.status else type(error).__name__)
    if failure.error_class is ErrorClass.ACCOUNT:
        return BatchCallError("later", message, account=True)
    if failure.error_class is ErrorClass.RATE_LIMITED or failure.unreachable:
        return BatchCallError("later", message)
    if failure.error_class in (ErrorClass.OURS, ErrorClass.TOO_LARGE, ErrorClass.UNAVAILABLE, ErrorClass.REFUSED):
        return BatchCallError("never", message)
    return BatchCallError("unknown" if writes else "later", message)


def request_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """Return one line of a batch's file, without its end."""
    line = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line, separators=(",", ":")).encode()


def result_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line of a file of results with its custom id; what is no such line has an empty one.

    A file that ends within a line was not read to its end: raises EOFError there.
    """
    with path.open("rb") as lines:
        while text := lines.readline(_MOST_LINE_BYTES):
            too_long = len(text) == _MOST_LINE_BYTES and not text.endswith(b"\n")
            while too_long and (rest := lines.readline(_MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            if not text.strip():
                continue
            try:
                line = None if too_long else json.loads(text.decode("utf-8-sig", "replace"))
            except (ValueError, RecursionError) as error:
                if not text.endswith(b"\n"):
                    raise EOFError(f"{path.name} ends within a line") from error
                line = None
            if isinstance(line, dict) and isinstance(custom_id := line.get("custom_id"), str):
                yield custom_id, line
            else:
                named = _NAMED.search(text[:_HEAD_BYTES]) if too_long else None
                yield (named[1].decode(), {"response": {"status_code": 200}}) if named else ("", {})


def read_line(line: Mapping[str, Any], model: Model, endpoint: Endpoint, started_at: str, batch: str) -> LineResult:
    """Return what a line of a batch's results means, at a batch's prices: an answer, or the failure that it is."""
    response = line.get("response")
    response = response if isinstance(response, Mapping) else {}
    body, status = response.get("body"), response.get("status_code")
    status = status if isinstance(status, int) and not isinstance(status, bool) else None
    error = line.get("error")
    answer: ModelAnswer | None = None
    try:
        if status is not None and status != 200:
            raise AttemptFailed(classify_status(status, body), status=status, detail=detail_of(body))
        if error or not isinstance(body, Mapping):
            raise AttemptFailed(classify_error_object(error)[0], detail=detail_of(error))
        answer = answer_of(ChatCompletion.construct(**body))
        usage, stated, outcome, detail = answer.usage, answer.stated_cost, "ok", None
    except AttemptFailed as failure:
        usage, stated = usage_of(failure.usage)
        outcome, detail = failure.error_class.value, failure.detail
        answer = None
    except Exception:  # whatever a body of the wrong shape makes of the client's classes
        usage, stated = usage_of(body.get("usage") if isinstance(body, Mapping) else None)
        outcome, detail, answer = ErrorClass.GARBLED.value, None, None
    spent, source = cost_of(usage, stated, model.in_batches())
    saved: Cost | None = saved_in_batch(usage, stated, spent, model)
    failed = status != 200 if status is not None else bool(error)
    if spent.exact is None and outcome != "ok" and (failed or ErrorClass(outcome).unbilled):
        spent, saved = Cost(), None  # a line that failed is not billed (OpenAI's Batch guide)
    attempt = Attempt(
        model=model.name,
        endpoint=endpoint.name,
        outcome=outcome,
        status=status,
        latency_ms=0,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        spent=spent,
        started_at=started_at,
        detail=detail,
        lane="bulk",
        batch=batch,
        saved=saved,
    )
    return LineResult(attempt, answer, source)


def unanswered(model: Model, endpoint: Endpoint, started_at: str, batch: str, why: str | None) -> Attempt:
    """Return the call that a line was which no result answers, and of which nobody knows whether it was billed."""
    return Attempt(
        model=model.name,
        endpoint=endpoint.name,
        outcome=ErrorClass.TIMEOUT.value,
        status=None,
        latency_ms=0,
        prompt_tokens=None,
        completion_tokens=None,
        spent=Cost(uncounted_calls=1),
        started_at=started_at,
        detail=(why or "no line of the batch's results answers it")[:200],
        lane="bulk",
        batch=batch,
    )
