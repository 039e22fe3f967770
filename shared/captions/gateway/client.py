"""The gateway: one call that ends with an answer, or with the reason why there is none, before its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx2
import openai

from captions.cost import Cost
from captions.gateway.api_keys import KeyRing, Keys
from captions.gateway.breakers import Breakers, Observer
from captions.gateway.budgets import Budgets, Reservation, RetryBudget
from captions.gateway.call import CallContext, GatewayCall, RetryPolicy, Turn
from captions.gateway.catalogue import Catalogue, CatalogueError, Modality, Model, first_in_batches
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import (
    AccountProblem,
    AttemptFailed,
    Exhausted,
    NoCapableModel,
)
from captions.gateway.fallback import Plan
from captions.gateway.pricing import usage_of
from captions.gateway.requests import MessageParts
from captions.gateway.responses import Collector, ModelAnswer, answer_of, failure_of, transcript_of
from captions.gateway.transport import http_client
from captions.gateway.types import CallReport, Completion, Endpoint, Request, StreamEvent

_URL_QUERY = re.compile(r"(?<=[^\s?])\?[\w.~%-]+=[^\s\"'<>\\]*")
"""The query of a URL within a text: of a presigned one, what lets its reader in."""
_CONNECT_S = 3.0
_CONNECT_SHARE = 0.8
"""A region that cannot be reached must not take an attempt's whole time, and must be told from a slow model."""

_LATE_S = 0.1
"""A timer that fires so much too late means a process that is starved of CPU, not a slow model."""

_UNKNOWN_MODEL_S = 300.0
"""After how long a chain is worth another look that names nothing the catalogue has: an override is read so often."""

_AFTERWORD_S = 2.0
"""How long a stream whose answer is complete is waited for: what was used may follow, or nothing ever."""

_MOST_MISNAMED = 1_000_000
"""Bytes of a stream that calls itself JSON: it is taken apart at one go, which for so many takes up to a second."""

_WRITING_S = 0.25
"""How long an ended call waits for writes to the control table that it began."""


class Gateway:
    """A client of several models at several OpenAI-compatible endpoints.

    Calls may run concurrently on one event loop; they share connections, circuits, the retry budget and the key. It
    reads nothing from the environment, and opens no connection before the first call.

        gateway = Gateway(endpoints=[Endpoint("https://api.example.com/v1")], keys=read_key, catalogue=load())
        completion = await gateway.complete(request, ["GLM-4.6V", "GPT-4o"], deadline=time.monotonic() + 30)

    Args:
        endpoints: in order of preference; a later one takes over where an earlier one cannot be used.
        keys: returns the key, or a mapping from base URL (or "default") to key; called in a thread, with True where a
            fresh one is needed. Never stored beyond 300 s.
        catalogue: the models.
        breakers: the circuits, with a store if sandboxes shall share them.
        budgets: spending limits, if there are any.
        retries: how often and how soon a model is called again.
        retry_budget: how many retries there may be in relation to calls.
        observe: is called with events (`attempt_failed`, `circuit_opened`, `circuit_closed`, `account_problem`,
            `key_renewed`, `unknown_model`, `breaker_store_failed`, `settlement_failed`) with their fields, for logs,
            metrics and alarms.
        report: is called with each call that has ended, whatever came of it.
    """

    def __init__(
        self,
        *,
        endpoints: Sequence[Endpoint],
        keys: Keys,
        catalogue: Catalogue,
        breakers: Breakers | None = None,
        budgets: Budgets | None = None,
        retries: RetryPolicy | None = None,
        retry_budget: RetryBudget | None = None,
        observe: Observer | None = None,
        report: Callable[[CallReport], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not endpoints:
            raise ValueError("a gateway needs an endpoint")
        self._endpoints = tuple(endpoints)
        self._keys = KeyRing(keys)
        self._catalogue = catalogue
        self._observe: Observer = observe or (lambda event, fields: None)
        self._report = report
        self._clock = clock
        self._breakers = breakers or Breakers(clock=clock, observe=observe)
        self._budgets = budgets
        self._retries = retries or RetryPolicy()
        self._retry_budget = retry_budget or RetryBudget()
        self._settling: set[asyncio.Task[None]] = set()
        self._served: dict[tuple[str, str], tuple[Model, str] | None] = {}
        self._unknown: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: httpx2.AsyncClient | None = None
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    async def complete(self, request: Request, chain: Sequence[str], *, deadline: float) -> Completion:
        """Return the first complete answer of the chain's models.

        Args:
            request: what is asked.
            chain: names of models in order of preference; those that cannot do the job are passed over, and so are
                names that the catalogue does not have (`unknown_model` reports them).
            deadline: a value of `time.monotonic()` by which the call has ended, one way or the other.

        Raises:
            Exhausted, CircuitsOpen, DeadlineExceeded, AccountProblem, BudgetSpent: worth another try later, after
                `retry_after_s` if it is set.
            Refused: every model refused.
            Unacceptable, NoCapableModel: no model will ever take this.
        """
        call = await self._begin(request, chain, deadline)
        try:
            while True:
                turn = await self._next(call)
                answer = await self._turn(call, turn)
                if answer is not None:
                    return call.completion(turn, answer)
        finally:
            await self._end(call)

    async def stream(
        self, request: Request, chain: Sequence[str], *, deadline: float
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield the answer while it is written, then one `done` event with the whole of it.

        A model that fails before its first word is replaced without notice; one that fails after it is replaced after a
        `restart` event, which voids what came before: the texts of two models are never spliced. The arguments and the
        errors are those of `complete`. Only chats are streamed, so a transcription is asked of models that chat.
        """
        call = await self._begin(replace(request, transcription=False), chain, deadline)
        spoken = False
        try:
            while True:
                turn = await self._next(call)
                if spoken:
                    spoken = False
                    yield StreamEvent("restart", model=turn.candidate.model.name)
                answer: ModelAnswer | None = None
                pieces = self._streamed_turn(call, turn)
                try:
                    async for piece in pieces:
                        if isinstance(piece, ModelAnswer):
                            answer = piece
                        else:
                            spoken = True
                            yield StreamEvent("delta", text=piece, model=turn.candidate.model.name)
                finally:
                    await pieces.aclose()
                if answer is not None:
                    completion = call.completion(turn, answer)
                    yield StreamEvent("done", model=completion.model, completion=completion)
                    return
        finally:
            await self._end(call)

    def able(self, kind: Modality, chain: Sequence[str]) -> list[Model]:
        """Return the models of the chain that understand this kind of media, as their first endpoint takes them."""
        able = []
        for name in dict.fromkeys(chain):
            served = (self._serve(name, endpoint.base_url) for endpoint in self._endpoints)
            model = next((entry[0] for entry in served if entry is not None and kind in entry[0].modalities), None)
            if model is not None:
                able.append(model)
        return able

    def in_batches(self, chain: Sequence[str]) -> tuple[Model, str, Endpoint] | None:
        """Return the chain's first model that takes batches of pictures, its name at the endpoint, and the endpoint.

        None where there is none, or where each costs more in a batch than the first model that sees does by itself.
        """
        targets = [
            (*served, endpoint)
            for name in dict.fromkeys(chain)
            for endpoint in self._endpoints
            if (served := self._serve(name, endpoint.base_url)) is not None
            and served[0].chats
            and "image" in served[0].modalities
        ]
        place = first_in_batches(model for model, _, _ in targets)
        return None if place is None else targets[place]

    async def reserve(self, request: Request, model: Model) -> Reservation | None:
        """Set aside what a request in a batch will cost at the most; None if no limit concerns it.

        Raises:
            BudgetSpent: a limit leaves no room.
        """
        return None if self._budgets is None else await self._budgets.reserve(request, [model.in_batches()])

    async def settle(self, reservation: Reservation | None, spent: Cost) -> None:
        """Replace what was set aside for a line of a batch by what it cost."""
        if reservation is not None and self._budgets is not None:
            await self._settle(reservation, spent)

    async def flush(self) -> None:
        """Wait until what the sandboxes share is written; worth calling before a sandbox is frozen."""
        if pending := self._pending():
            await asyncio.wait(pending)

    async def aclose(self) -> None:
        """Close every connection. The gateway opens new ones if it is called again."""
        await self.flush()
        http, self._http, self._loop = self._http, None, None
        self._clients.clear()
        if http is not None:
            await http.aclose()

    def _shared(self) -> CallContext:
        return CallContext(self._breakers, self._retries, self._retry_budget, self._observe, self._report)

    async def _begin(self, request: Request, chain: Sequence[str], deadline: float) -> GatewayCall:
        parts = MessageParts(request)
        plan = self._plan(request, chain, parts)
        self._retry_budget.called()
        call = GatewayCall(self._shared(), request, parts, plan, deadline)
        async with call.bounded():
            await self._breakers.refresh()
            if self._budgets is not None:
                call.reservation = await self._budgets.reserve(request, [c.model for c in plan.candidates])
        return call

    async def _end(self, call: GatewayCall) -> None:
        """Give what is still to be written a moment, within the deadline: a sandbox may be frozen after the call."""
        if call.reservation is not None:
            # A task of its own: a call that is cancelled has spent its money all the same.
            task = asyncio.get_running_loop().create_task(self._settle(call.reservation, call.spent()))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        pending = self._pending()
        if pending and (left := call.left()) > 0:
            await asyncio.wait(pending, timeout=min(_WRITING_S, left))

    def _pending(self) -> set[asyncio.Task[None]]:
        pending = self._breakers.pending()
        if self._settling:
            loop = asyncio.get_running_loop()
            pending |= {task for task in self._settling if task.get_loop() is loop}
        return pending

    async def _settle(self, reservation: Reservation, spent: Cost) -> None:
        assert self._budgets is not None
        try:
            await self._budgets.settle(reservation, spent)
        except Exception as error:  # whatever the store's client raises: the sum stays too high, which is the safe side
            self._observe("settlement_failed", {"error": type(error).__name__})

    def _serve(self, name: str, base_url: str) -> tuple[Model, str] | None:
        key = (name, base_url)
        if key not in self._served:
            try:
                self._served[key] = self._catalogue.served(name, base_url)
            except CatalogueError:
                # A slip in a chain, or a model that was taken out: the chain's other models do its work.
                self._served[key] = None
                if name not in self._unknown:
                    self._unknown.add(name)
                    self._observe("unknown_model", {"model": name})
        return self._served[key]

    def _plan(self, request: Request, chain: Sequence[str], parts: MessageParts) -> Plan:
        try:
            return Plan.of(request, chain, self._endpoints, self._serve, parts)
        except NoCapableModel as error:
            if unknown := [name for name in chain if name in self._unknown]:
                # Whoever configured it can put it right; until then the work must not end as if nothing could do it.
                message = f"the catalogue has no model {', '.join(map(repr, unknown))}, and {error}"
                raise Exhausted(message, retry_after_s=_UNKNOWN_MODEL_S) from error
            raise

    def _client(self, endpoint: Endpoint) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to the loop that opened them; a closed loop took its connections along.
            self._loop, self._http = loop, None
            self._clients.clear()
        client = self._clients.get(endpoint.base_url)
        if client is None:
            if self._http is None:
                self._http = http_client()
            client = openai.AsyncOpenAI(
                base_url=endpoint.base_url, api_key="sent-with-each-call", max_retries=0, http_client=self._http
            )
            # The client takes these from the environment, where they were meant for another endpoint.
            client.organization = client.project = None
            self._clients[endpoint.base_url] = client
        return client

    async def _next(self, call: GatewayCall) -> Turn:
        if not self._breakers.shared:
            return await call.next()  # nothing in it can take longer than it means to
        async with call.bounded():
            return await call.next()

    async def _turn(self, call: GatewayCall, turn: Turn) -> ModelAnswer | None:
        """Run one attempt, or two if the key was renewed in between; return the answer or None after a failure."""
        with turn.admitted(self._breakers):
            while True:
                turn.begin()
                try:
                    async with asyncio.timeout(turn.left()):
                        answer = _fit(await self._asked(call, turn), call.request)
                except Exception as error:
                    if not await self._failed(call, turn, error):
                        return None
                else:
                    turn.answered(self._breakers)
                    call.record(turn, "ok", 200, answer.usage, answer.stated_cost, answer=answer)
                    return answer

    async def _asked(self, call: GatewayCall, turn: Turn) -> ModelAnswer:
        candidate = turn.candidate
        form = call.parts.form(candidate.model, candidate.wire_name)
        if form is not None:
            turn.operation = "transcription"
            options = await self._options(call, turn)
            client = self._client(candidate.endpoint)
            return transcript_of(await client.audio.transcriptions.create(**form, **options), candidate.wire_name)
        if turn.candidate.model.streaming_only:
            collector = Collector()
            try:
                async with contextlib.aclosing(self._pieces(call, turn, collector)) as pieces:
                    async for _ in pieces:
                        pass
            except Exception as error:
                raise self._of_stream(turn, collector, error) from None
            return collector.answer()
        return answer_of(await self._send(call, turn, stream=False))

    async def _streamed_turn(self, call: GatewayCall, turn: Turn) -> AsyncGenerator[str | ModelAnswer, None]:
        """Yield the texts of one attempt and then its answer; end without one after a failure."""
        with turn.admitted(self._breakers):
            while True:
                turn.begin()
                collector = Collector()
                try:
                    async with contextlib.aclosing(self._pieces(call, turn, collector)) as pieces:
                        async for piece in pieces:
                            yield piece
                    answer = _fit(collector.answer(), call.request)
                except Exception as error:
                    if not await self._failed(call, turn, self._of_stream(turn, collector, error)):
                        return
                else:
                    turn.answered(self._breakers)
                    call.record(turn, "ok", 200, answer.usage, answer.stated_cost, answer=answer)
                    yield answer
                    return

    async def _pieces(self, call: GatewayCall, turn: Turn, collector: Collector) -> AsyncGenerator[str, None]:
        """Yield the texts of one stream, and have `collector` take its chunks."""
        # No time-out spans a `yield`: it would cancel the consumer in the middle of its own work.
        async with asyncio.timeout(turn.left()):
            chunks = await self._send(call, turn, stream=True)
        try:
            if "json" in chunks.response.headers.get("content-type", ""):
                # A server that does not stream, or has nothing but an error. What is no JSON is a stream all the same.
                async with asyncio.timeout(turn.left()):
                    body = await chunks.response.aread()
                with contextlib.suppress(ValueError):
                    yield collector.add_whole(json.loads(body))
                    return
                if len(body) > _MOST_MISNAMED:
                    raise AttemptFailed(ErrorClass.GARBLED, status=200)
            while True:
                try:
                    async with asyncio.timeout(min(turn.left(), _AFTERWORD_S) if collector.ended else turn.left()):
                        chunk = await anext(chunks, None)
                except (TimeoutError, openai.APIConnectionError, httpx2.HTTPError, ValueError):
                    if not collector.ended:
                        raise
                    return
                if chunk is None:
                    return
                if text := collector.add(chunk):
                    handed_out = time.monotonic()
                    yield text
                    turn.extend(time.monotonic() - handed_out, call.deadline)
                # Chunks that come faster than they are read never let a time-out fire.
                if turn.overdue() > 0:
                    if collector.ended:
                        return
                    raise TimeoutError
        finally:
            await chunks.close()

    async def _send(self, call: GatewayCall, turn: Turn, *, stream: bool) -> Any:
        candidate = turn.candidate
        options = await self._options(call, turn)
        body = call.parts.body(
            candidate.model, candidate.wire_name, max_tokens=call.max_tokens, stream=stream, seconds=turn.left()
        )
        return await self._client(candidate.endpoint).chat.completions.create(**body, **options)

    async def _options(self, call: GatewayCall, turn: Turn) -> dict[str, Any]:
        """Return what every request has beside its body: the key, the request's id, the time it has."""
        turn.key = await self._keys.key(turn.candidate.endpoint.base_url)
        headers = {"Authorization": f"Bearer {turn.key}"}
        if call.request.request_id:
            headers["X-Client-Request-Id"] = call.request.request_id
        limit = turn.left()
        return {
            "extra_headers": headers,
            # The client's time-out holds for each read by itself; the one around this call is the one that counts.
            "timeout": openai.Timeout(limit + 1.0, connect=min(_CONNECT_S, limit * _CONNECT_SHARE)),
        }

    async def _failed(self, call: GatewayCall, turn: Turn, error: Exception) -> bool:
        """Take in a failure; return True if the same attempt is worth repeating at once, with another key."""
        if isinstance(error, AccountProblem):
            error.attempts = tuple(call.attempts)
            raise error
        failure = self._classed(turn, error)
        tokens, stated = usage_of(failure.usage)
        detail = _discreet(failure.detail, turn.key) if failure.detail else failure.detail
        call.record(turn, failure.error_class.value, failure.status, tokens, stated, failure=failure, detail=detail)
        if failure.status == 401 and not turn.key_renewed:
            turn.key_renewed = True
            with contextlib.suppress(TimeoutError, AccountProblem):
                async with asyncio.timeout(turn.left()):
                    if await self._keys.renewed(turn.candidate.endpoint.base_url, turn.key) is not None:
                        self._observe("key_renewed", {"endpoint": turn.candidate.endpoint.name})
                        return True
        if failure.error_class is ErrorClass.ACCOUNT:
            self._observe("account_problem", {"endpoint": turn.candidate.endpoint.name, "status": failure.status})
        turn.settle(self._breakers, failure)
        call.plan.failed(turn.candidate, failure)
        if failure.error_class is ErrorClass.TRUNCATED:
            most = call.request.max_tokens * self._retries.longest_growth
            call.max_tokens = min(call.max_tokens * self._retries.truncated_growth, most)
        return False

    def _of_stream(self, turn: Turn, collector: Collector, error: Exception) -> Exception:
        """Return an error as the failure of a stream that may have begun."""
        return error if isinstance(error, AccountProblem) else collector.failed(self._classed(turn, error))

    @staticmethod
    def _classed(turn: Turn, error: Exception) -> AttemptFailed:
        if isinstance(error, AttemptFailed):
            return error
        if isinstance(error, TimeoutError):
            # A call that had less than half of the model's time says little about the model; one that still waited for
            # its key, or whose process had no time to listen (then its own timer comes late, too), says nothing.
            listened = bool(turn.key) and turn.overdue() < _LATE_S
            enough = time.monotonic() - turn.began >= turn.candidate.model.timeout_s(*turn.timed_by) / 2
            return AttemptFailed(ErrorClass.TIMEOUT if listened and enough else ErrorClass.DEADLINE)
        if not turn.key:
            raise error  # nothing was asked yet: it is no endpoint's doing
        return failure_of(error)


def _discreet(detail: str, key: str) -> str:
    """Return an endpoint's words without the key, and without the signatures of links that it repeats."""
    unsigned = _URL_QUERY.sub("?…", detail)
    return unsigned.replace(key, "…") if key else unsigned


def _fit(answer: ModelAnswer, request: Request) -> ModelAnswer:
    verdict = request.judge(answer.text) if request.judge is not None else None
    if verdict is not None:
        raise AttemptFailed(verdict, status=200, usage=answer.raw_usage, reported_model=answer.reported_model)
    return answer
