"""The bulk lane at work: jobs become lines, lines become batches, and results are handed out like any answer.

An upload's lease is taken when its line is made and held until its answer is there; whatever is delivered twice finds
it held, or its upload ended. What a batch does not answer well enough, or not at all, goes to the ordinary queue, and
takes along what was paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from captions import telemetry
from captions.bulk import protocol
from captions.bulk.batch_table import BatchLine, BatchTable, Waiting
from captions.bulk.protocol import Batch, Finished, HandedOut, Postponed, Refusal, Running, Unconfirmed
from captions.config.function_environments import BulkSettings
from captions.cost import Cost
from captions.gateway import BudgetSpent, Endpoint, ErrorClass
from captions.gateway.batch_api import (
    BatchApi,
    BatchCallError,
    LineResult,
    read_line,
    request_line,
    result_lines,
    unanswered,
)
from captions.gateway.catalogue import Catalogue, CatalogueError, Model
from captions.gateway.requests import MessageParts
from captions.gateway.types import Attempt, CallReport, Completion
from captions.inference import asking
from captions.inference.candidate import Candidate, Noted
from captions.inference.escalation import Answered, judged, marked, request_of, rests
from captions.pipeline.caption import FINAL, STORING_SECONDS, Worker, ending_of
from captions.pipeline.delivery import Delivery
from captions.queues import Job
from captions.records.record import Draft
from captions.records.table import Busy
from captions.routing import routes
from captions.routing.routes import Chains
from captions.tasks import prompt, read
from captions.telemetry import MetricUnit

T = TypeVar("T")

LONGEST_FUNCTION_SECONDS = 900.0
"""A lease that holds longer is none of a function's at work (AWS Lambda quotas), but the lane's own."""
GATHERING_SECONDS = 60.0
"""The lease of a job while its line is made, a matter of seconds. With one held for all of the
invocation's time, another delivery of the job came back only after half of that."""
AT_ONCE = 16
"""Results that are handed out side by side."""
CHUNK = 256
"""Results between two writes of how far a batch has come."""
MOST_FAILED = 100
"""Lines of a batch whose results cannot be handed out while others can; with more, all wait for what ails them."""
CLOSING_SECONDS = 20.0
"""Kept back from the time of an invocation: a chunk that began must end."""


@dataclass(frozen=True)
class Ran:
    """What one look at the batches did."""

    formed: int = 0
    submitted: int = 0
    handed_out: int = 0
    returned: int = 0
    closed: int = 0
    open: int = 0
    waiting: int = 0


class _Results:
    """A batch's files of results, read line by line; `ids` are those of its lines."""

    def __init__(self, paths: Sequence[Path], ids: frozenset[str]) -> None:
        self.ids = ids
        self.position = 0
        self._paths = paths
        self._lines = self.all()
        self._cut: EOFError | None = None
        self._seen: set[str] = set()

    def all(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield every line with its id; raises EOFError where a file ends within one."""
        for path in self._paths:
            yield from result_lines(path)

    def next(self, number: int) -> tuple[int, dict[str, Mapping[str, Any]]]:
        """Return how many lines come next, so many or fewer at the end, and those of them that answer one by its id.

        A line that comes twice was answered by the first. Raises BatchCallError where they end within a line: the rest
        may be there the next time.
        """
        some: list[tuple[str, Mapping[str, Any]]] = []
        try:
            for line in islice(self._lines, number):
                some.append(line)  # noqa: PERF402 - those before a cut count
        except EOFError as error:
            self._cut = error
        if self._cut is not None and not some:
            raise BatchCallError("later", str(self._cut))
        self.position += len(some)
        firsts: dict[str, Mapping[str, Any]] = {}
        for line_id, result in some:
            if line_id in self.ids and line_id not in self._seen:
                self._seen.add(line_id)
                firsts[line_id] = result
        return len(some), firsts

    def remove(self) -> None:
        """Make room on the disk for those of other batches."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def skip(self, number: int) -> None:
        """Go on behind so many lines."""
        while self.position < number and self.next(min(CHUNK, number - self.position))[0]:
            pass


@dataclass
class BulkLane:
    """What the bulk function works with."""

    settings: BulkSettings
    worker: Worker
    table: BatchTable
    api: BatchApi
    catalogue: Catalogue
    report: Callable[[CallReport], None] | None = None
    """Is called with each line that was handed out, whatever came of it."""

    def __post_init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._results: dict[str, _Results] = {}
        self._folder = ""
        self._deadline = float("inf")
        self._slow: set[str] = set()
        self._leases = self.settings.bulk_patience_seconds + protocol.HANDING_SECONDS

    # -- gathering -----------------------------------------------------------------------------------------------------

    async def gather(self, job: Job, *, deadline: float) -> str:
        """Make a job a line that waits for its batch, and say what became of it; `deadline` is of time.monotonic()."""
        worker = self.worker
        rules = worker.policy
        chains = asking.chains(job.upload.key, job.kind, job.ask, job.looks, rules, job.arm)
        target = worker.gateway.in_batches(chains.models)
        if target is None or job.kind in ("audio", "video"):
            await self._ordinary(job)
            return "ordinary"
        begun = await worker.begin(job, min(deadline, time.monotonic() + GATHERING_SECONDS))
        if isinstance(begun, Busy):
            if begun.lease_until - worker.now() > LONGEST_FUNCTION_SECONDS:
                return "entrusted"  # it is a line already
            await worker.send_later(job, max(1.0, (begun.lease_until - worker.now()) / 2))
            return "busy"
        if not isinstance(begun, Delivery):
            return begun
        lease_until = round(worker.now() + self._leases, 3)
        if not await worker.lead(begun, lease_until):
            return "lost"
        if begun.before(job.ask).candidates:
            # A worker that crashed had its answer: nothing is to be paid again.
            await self._return(BatchLine("", job, begun.lease_until), begun)
            return "ordinary"
        try:
            return await self._entrust(begun, lease_until, *target)
        except FINAL as error:
            return await worker.give_up(begun, *ending_of(error))
        except BudgetSpent as error:
            return await worker.defer(begun, error)

    async def _entrust(
        self, delivery: Delivery, lease_until: float, model: Model, wire_name: str, endpoint: Endpoint
    ) -> str:
        job, worker = delivery.job, self.worker
        item, _ = await worker.read(job)
        scopes = routes.budget_scopes(job.upload, worker.policy.budgets.prefixes)
        request = request_of(job.ask, prompt(job.ask), (item,), job.claim.id, scopes)
        parts = MessageParts(request)
        if not parts.fit(model):
            await self._return(BatchLine("", job, delivery.lease_until), delivery)
            return "ordinary"
        body = parts.body(model, wire_name, max_tokens=request.max_tokens, stream=False, seconds=0)
        # Another one where the upload is gathered again: a line that was given up leads to nobody's lease.
        line_id = f"{job.claim.id}-{job.claim.generation}-{lease_until:.0f}"
        text = request_line(line_id, body)
        reservation = await worker.gateway.reserve(request, model)
        line = BatchLine(line_id, job, lease_until, reservation)
        waiting = Waiting(line_id, model.name, endpoint.base_url, len(text) + 1, worker.now(), lease_until)
        await asyncio.to_thread(self.table.keep, line, text)
        entrusted = await asyncio.to_thread(
            worker.records.entrust,
            job.upload,
            delivery.lease_until,
            now=worker.now(),
            until=lease_until,
            beside=self.table.waiting_put(waiting),
        )
        if not entrusted:  # overwritten, deleted, or taken over meanwhile: they see to it
            await worker.gateway.settle(reservation, Cost())
            return "lost"
        telemetry.count("BulkGathered")
        return "gathered"

    # -- batches -------------------------------------------------------------------------------------------------------

    async def run(self, *, deadline: float) -> Ran | None:
        """Form batches of what waits, and take every batch as far as it goes before `deadline` (time.monotonic()).

        None where another invocation is at it.
        """
        now = self.worker.now()
        self._deadline = deadline - CLOSING_SECONDS
        self._counts, self._slow = {}, set()
        # The function ends before its lease: nobody works beside it, even if it is killed.
        until = round(now + max(1.0, deadline - time.monotonic()) + STORING_SECONDS, 3)
        if not await asyncio.to_thread(self.table.take_over, now, until):
            return None
        try:
            with tempfile.TemporaryDirectory() as self._folder:
                return await self._run()
        finally:
            self._results.clear()
            await self.worker.gateway.flush()
            await asyncio.to_thread(self.table.hand_back, until)

    async def _run(self) -> Ran:
        stuck = False
        for batch in await asyncio.to_thread(self.table.batches):
            # Lines of a batch that is only formed still wait, and must not get into another one.
            if batch.state == "formed" and (await self._advance(batch)).state == "formed":
                telemetry.logger().error("no_batches_formed", waits_for=batch.id)
                stuck = True
        waiting = await asyncio.to_thread(self.table.waiting)
        formed = self._formed(waiting) if not stuck and time.monotonic() < self._deadline else []
        left = len(waiting) - sum(len(lines) for _, lines in formed)
        for batch, lines in formed:
            if await asyncio.to_thread(self.table.form, batch, lines):
                self._count("formed")
        open_batches = 0
        overdue = 0.0
        left_over = deque(batch for batch in await asyncio.to_thread(self.table.batches) if batch.state != "closed")
        put_off: set[str] = set()
        while left_over:
            batch = left_over.popleft()
            if batch.endpoint in self._slow and batch.id not in put_off:
                # Batches of an endpoint that hangs would take the time of all that come after them, at each look.
                put_off.add(batch.id)
                left_over.append(batch)
                continue
            if stuck and batch.state == "formed":
                open_batches += 1
                continue
            if time.monotonic() < self._deadline:
                batch = await self._advance(batch)
            open_batches += batch.state != "closed"
            if batch.state != "closed":
                overdue = max(overdue, self.worker.now() - batch.deadline)
        telemetry.gauge("BulkOverdueSeconds", overdue, MetricUnit.Seconds)
        telemetry.gauge("BulkOpenBatches", open_batches)
        telemetry.gauge("BulkWaiting", left)
        return Ran(**self._counts, open=open_batches, waiting=left)

    def _formed(self, waiting: Sequence[Waiting]) -> list[tuple[Batch, list[Waiting]]]:
        """Return the batches that are due: full, or of lines that have waited long enough."""
        now, settings = self.worker.now(), self.settings
        latest = now + protocol.HANDING_SECONDS + protocol.LEAST_SECONDS
        late = [line for line in waiting if line.lease_until <= latest]
        waiting = [line for line in waiting if line.lease_until > latest]
        # Nobody looked for a day: these go the ordinary way, and take no others along.
        formed = [(self._batch(late[0].model, late[0].endpoint, late, 0), late)] if late else []
        for model, endpoint in dict.fromkeys((line.model, line.endpoint) for line in waiting):
            lines = [line for line in waiting if (line.model, line.endpoint) == (model, endpoint)]
            while lines:
                number, size = 0, 0
                for line in lines:
                    if number == settings.bulk_max_requests or (number and size + line.size > settings.bulk_max_bytes):
                        break
                    number, size = number + 1, size + line.size
                full = number < len(lines) or number == settings.bulk_max_requests
                if not full and now - lines[0].gathered_at < settings.bulk_gather_seconds:
                    break
                these, lines = lines[:number], lines[number:]
                formed.append((self._batch(model, endpoint, these, size), these))
        return formed

    def _batch(self, model: str, endpoint: str, lines: Sequence[Waiting], size: int) -> Batch:
        named = "\0".join(line.line for line in lines)
        return Batch(
            id=hashlib.sha256(named.encode()).hexdigest()[:24],
            state="formed",
            model=model,
            endpoint=endpoint,
            lines=len(lines),
            size=size,
            deadline=min(line.lease_until for line in lines) - protocol.HANDING_SECONDS,
            at=round(self.worker.now(), 3),
            gathered_at=min(line.gathered_at for line in lines),
            factor=self._listed(model, endpoint)[0].batch_factor,
        )

    async def _advance(self, batch: Batch) -> Batch:
        """Take one batch as far as it goes; what fails unforeseen leaves it as it is stored, for the next look."""
        steps = protocol.advance(batch, lambda: round(self.worker.now(), 3))
        answer: Any = None
        seen = batch
        try:
            while True:
                step = steps.send(answer)
                answer = await self._take(step)
                if isinstance(step, protocol.MoveBatch):
                    seen = step.batch
        except StopIteration as stop:
            advanced: Batch = stop.value
            return advanced
        except protocol.OvertakenError:
            telemetry.logger().info("batch_overtaken", batch=batch.id)
        except Exception:
            telemetry.logger().exception("batch_not_advanced", batch=batch.id, state=seen.state)
            telemetry.count("BulkFailed")
        finally:
            if (results := self._results.pop(batch.id, None)) is not None:
                results.remove()
        return seen

    async def _take(self, step: protocol.BatchStep) -> Any:  # noqa: C901 - one branch for each step
        """Take one step of the protocol and answer what it asks."""
        batch = step.seen if isinstance(step, protocol.MoveBatch) else step.batch
        try:
            match step:
                case protocol.Detach():
                    lines = await asyncio.to_thread(self.table.lines_of, batch)
                    return await asyncio.to_thread(self.table.detach, lines)
                case protocol.MoveBatch():
                    return await self._move(step.seen, step.batch)
                case protocol.UploadFile():
                    return await self._upload(batch)
                case protocol.CreateBatch():
                    created = self.api.create(batch.endpoint, batch.file_id or "", batch.id)
                    return await self._in_time(batch.endpoint, created, "unknown")
                case protocol.Find():
                    return await self._in_time(
                        batch.endpoint, self.api.find(batch.endpoint, batch.file_id or "", batch.submitted_at or "")
                    )
                case protocol.Retrieve():
                    remote = await self._in_time(
                        batch.endpoint, self.api.retrieve(batch.endpoint, batch.remote_id or "")
                    )
                    ended = remote.status != "running"
                    return Finished(remote.outputs, remote.reason) if ended else Running(remote.outputs)
                case protocol.Cancel():
                    return await self._in_time(batch.endpoint, self.api.cancel(batch.endpoint, batch.remote_id or ""))
                case protocol.HandOut():
                    return await self._hand_out(batch)
                case protocol.ReturnRest():
                    return await self._return_rest(batch)
                case protocol.Discard():
                    lines = await asyncio.to_thread(self.table.lines_of, batch)
                    return await asyncio.to_thread(self.table.discard, batch, [line.line for line in lines])
                case protocol.RemoveFiles():
                    for file_id in filter(None, (batch.file_id, *batch.outputs)):
                        with contextlib.suppress(BatchCallError):  # not every endpoint removes files
                            await self._in_time(batch.endpoint, self.api.remove(batch.endpoint, file_id))
                    return None
        except BatchCallError as error:
            telemetry.logger().warning("batch_call_failed", batch=batch.id, step=type(step).__name__, error=str(error))
            telemetry.count("BulkCallFailed")
            if error.account:
                telemetry.count("EndpointAccountProblem")
            if error.kind == "unknown":
                return Unconfirmed()
            if error.kind == "later" or isinstance(step, protocol.Find | protocol.HandOut | protocol.Cancel):
                return Postponed(str(error))
            return Refusal(str(error))

    async def _in_time(self, endpoint: str, call: Awaitable[T], otherwise: Literal["later", "unknown"] = "later") -> T:
        """Wait for a call of the endpoint, but for half of the time that is left: other batches come after this one."""
        try:
            async with asyncio.timeout(max(1.0, (self._deadline - time.monotonic()) / 2)):
                return await call
        except TimeoutError as error:
            self._slow.add(endpoint)
            raise BatchCallError(otherwise, "the endpoint takes too long") from error
        except BatchCallError:
            self._slow.add(endpoint)
            raise

    async def _move(self, seen: Batch, batch: Batch) -> bool:
        moved = await asyncio.to_thread(self.table.move, seen, batch)
        if moved and batch.state != seen.state:
            telemetry.logger().info(
                "batch_moved", batch=batch.id, state=batch.state, lines=batch.lines, remote=batch.remote_id,
                reason=batch.reason,
            )  # fmt: skip
            if batch.state in ("submitted", "closed"):
                self._count(batch.state)
            if batch.state == "ended" and batch.reason is not None:
                telemetry.count("BulkBatchIncomplete")
        return moved

    async def _upload(self, batch: Batch) -> str | Refusal:
        lines = await asyncio.to_thread(self.table.lines_of, batch)

        def write(to: Path) -> None:
            with to.open("wb") as out:
                for request in self.table.requests([line.line for line in lines]):
                    out.write(request + b"\n")

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "batch.jsonl"
            try:
                await asyncio.to_thread(write, path)
            except KeyError as error:
                return Refusal(f"the line {error} is not there any more")
            return await self._in_time(
                batch.endpoint, self.api.upload(batch.endpoint, f"captions-{batch.id}.jsonl", path)
            )

    # -- results -------------------------------------------------------------------------------------------------------

    async def _hand_out(self, batch: Batch) -> HandedOut | Postponed | None:
        """Hand out the next results, as the protocol's step says."""
        if time.monotonic() >= self._deadline:
            return None
        results = self._results.get(batch.id)
        if results is None or results.position != batch.taken:
            # The cursor counts the lines of the batch's files: they are read again from their beginning.
            results = self._results[batch.id] = await self._downloaded(batch)
            await asyncio.to_thread(results.skip, batch.taken)
        number, firsts = await asyncio.to_thread(results.next, CHUNK)
        calls: list[Attempt] = []

        async def handle(item: tuple[str, Mapping[str, Any]]) -> None:
            line_id, called = item[0], self._called(batch, item[1])
            calls.append(called.attempt)
            await self._result(batch, line_id, called)

        failed = await self._each(handle, firsts.items())
        if len(batch.failed) + len(failed) > MOST_FAILED:
            results.position = -1  # from the last cursor on, once more
            return Postponed(f"{len(failed)} of {len(firsts)} results cannot be handed out")
        spent = Cost.sum(call.spent for call in calls)
        saved = Cost.sum(call.saved for call in calls if call.saved is not None)
        return HandedOut(number, tuple(line_id for line_id, _ in failed), spent, saved)

    def _called(self, batch: Batch, result: Mapping[str, Any]) -> LineResult:
        return read_line(result, self._served(batch)[0], Endpoint(batch.endpoint), batch.submitted_at or "", batch.id)

    async def _each(self, handle: Callable[[T], Awaitable[Any]], items: Iterable[T]) -> list[T]:
        """Handle items side by side, and return those that failed: one must not keep the others from their ends."""
        side_by_side = asyncio.Semaphore(AT_ONCE)
        failed: list[T] = []

        async def guarded(item: T) -> None:
            async with side_by_side:
                try:
                    await handle(item)
                except Exception:
                    telemetry.logger().exception("batch_line_not_handled")
                    telemetry.count("BulkFailed")
                    failed.append(item)

        await asyncio.gather(*map(guarded, items))
        return failed

    async def _downloaded(self, batch: Batch) -> _Results:
        """Return the results of a batch, whose files stay until it is taken as far as it goes."""
        paths = [Path(self._folder) / f"{batch.id}-{place}.jsonl" for place in range(len(batch.outputs))]
        for file_id, path in zip(batch.outputs, paths, strict=True):
            await self._in_time(batch.endpoint, self.api.download(batch.endpoint, file_id, path))
        lines = await asyncio.to_thread(self.table.lines_of, batch)
        return _Results(paths, frozenset(line.line for line in lines))

    def _served(self, batch: Batch) -> tuple[Model, str]:
        """Return the batch's model, at the part of its prices that the batch was formed at, and its name there."""
        model, wire_name = self._listed(batch.model, batch.endpoint)
        return (model if batch.factor is None else model.model_copy(update={"batch_factor": batch.factor})), wire_name

    def _listed(self, name: str, endpoint: str) -> tuple[Model, str]:
        """Return a model and its name at an endpoint; without prices where the catalogue has it no more."""
        with contextlib.suppress(CatalogueError):
            served = self.catalogue.served(name, endpoint)
            return served if served is not None else (self.catalogue.model(name), name)
        return Model(name=name, provider="unknown", modalities=frozenset({"text"}), context=1), name

    async def _result(self, batch: Batch, line_id: str, called: LineResult) -> None:
        """Hand out one result; taken again, it changes nothing."""
        worker = self.worker
        line = await asyncio.to_thread(self.table.line, line_id)
        record = await asyncio.to_thread(worker.records.get, line.job.upload.asset) if line is not None else None
        if line is None or record is None:
            telemetry.logger().warning("batch_line_without_upload", batch=batch.id)
            return
        job = line.job
        delivery = Delivery(job, record, line.lease_until, worker.records, worker.now)
        rules = worker.policy
        chains = asking.chains(job.upload.key, job.kind, job.ask, job.looks, rules, job.arm)
        ending: str = "ordinary"
        candidate = await self._candidate(delivery, called, chains)
        spent = Cost.sum(map(Cost.of_call, delivery.ledger.made))
        if candidate is not None and rests(candidate, chains):
            assert candidate.reading.output is not None
            answered = Answered(candidate.reading.output, candidate, (candidate,), candidate.completion.latency_ms)
            ending = await worker.store(delivery, answered, chains)
            first = ending == "captioned"
        else:
            first = await self._return(line, delivery, candidate)
        if first:
            self._count("handed_out")
            telemetry.model_calls(job.ask.task, delivery.ledger.made)
            self._reported(batch, called)
        await worker.gateway.settle(line.reservation, spent)
        telemetry.logger().info("batch_line_handled", batch=batch.id, asset=job.upload.asset, ending=ending)

    def _reported(self, batch: Batch, called: LineResult) -> None:
        if self.report is None:
            return
        (model, wire_name), answer = self._served(batch), called.answer
        self.report(
            CallReport(
                attempt=called.attempt,
                operation="chat",
                provider=model.provider,
                base_url=batch.endpoint,
                wire_name=wire_name,
                reported_model=answer.reported_model if answer is not None else None,
                finish_reason=answer.finish_reason if answer is not None else None,
            )
        )

    async def _candidate(self, delivery: Delivery, called: LineResult, chains: Chains) -> Candidate | None:
        """Put the call into the ledger, and return its answer; None where there is none."""
        job = delivery.job
        attempt, answer = called.attempt, called.answer
        candidate = None
        if answer is not None:
            reading = read(job.ask, answer.text, seen=self._seen(job))
            if reading.refused:
                attempt = replace(attempt, outcome=ErrorClass.REFUSED.value)
            elif reading.output is None:
                attempt = replace(attempt, outcome=ErrorClass.UNFIT.value)
            if not reading.refused:
                completion = Completion(
                    text=answer.text,
                    model=attempt.model,
                    reported_model=answer.reported_model,
                    endpoint=attempt.endpoint,
                    finish_reason=answer.finish_reason,
                    usage=answer.usage,
                    cost=attempt.cost,
                    spent=attempt.spent,
                    cost_source=called.cost_source,
                    latency_ms=round(max(0.0, self.worker.now() - job.queued_at) * 1000),
                    attempts=(attempt,),
                    mean_logprob=answer.mean_logprob,
                )
                known = await self.worker.calibrated(job, chains, self.worker.policy)
                candidate = judged("first", chains.tier, completion, reading, known.get((attempt.model, job.ask.task)))
        delivery.ledger.add(made.as_dict() for made in marked((attempt,), "first", chains.tier))
        return candidate

    def _seen(self, job: Job) -> Any:
        from captions.gateway import Media

        return asking.seen(job.kind, job.looks, Media("image", job.media_type), self.worker.policy)

    # -- the ordinary way ----------------------------------------------------------------------------------------------

    async def _return_rest(self, batch: Batch) -> bool:
        """Send what no result answered the ordinary way; False where there was no time for all of it."""
        lines = await asyncio.to_thread(self.table.lines_of, batch)
        failed, answered, unknown = set(batch.failed), set[str](), 0
        if batch.outputs:
            results = self._results[batch.id]  # the very files that were handed out
            for line_id, _ in results.all():
                answered.add(line_id)
                unknown += line_id not in results.ids
            again = {line_id: result for line_id, result in results.all() if line_id in failed}
            handle = lambda item: self._result(batch, item[0], self._called(batch, item[1]))  # noqa: E731
            still = await self._each(handle, again.items())
            answered -= {line_id for line_id, _ in still}
        rest = [line for line in lines if line.line not in answered]
        for start in range(0, len(rest), AT_ONCE):
            if time.monotonic() >= self._deadline:
                return False
            left = await self._each(lambda line: self._return_waiting(batch, line), rest[start : start + AT_ONCE])
            if left and self.worker.now() < batch.deadline + protocol.HANDING_SECONDS:
                return False  # later on their leases are over, and the sweep sees to them
        if unknown:
            telemetry.logger().warning("batch_lines_unknown", batch=batch.id, lines=unknown)
        return True

    async def _return_waiting(self, batch: Batch, waiting: Waiting) -> None:
        line = await asyncio.to_thread(self.table.line, waiting.line)
        record = await asyncio.to_thread(self.worker.records.get, line.job.upload.asset) if line is not None else None
        if line is None or record is None:
            return
        delivery = Delivery(line.job, record, line.lease_until, self.worker.records, self.worker.now)
        spent = Cost()
        if batch.doubtful:
            where, began = Endpoint(batch.endpoint), batch.submitted_at or ""
            lost = unanswered(self._served(batch)[0], where, began, batch.id, batch.reason)
            chains = asking.chains(
                line.job.upload.key, line.job.kind, line.job.ask, line.job.looks, self.worker.policy, line.job.arm
            )
            delivery.ledger.add(made.as_dict() for made in marked((lost,), "first", chains.tier))
            spent = lost.spent
        await self._return(line, delivery)
        await self.worker.gateway.settle(line.reservation, spent)

    async def _return(self, line: BatchLine, delivery: Delivery, candidate: Candidate | None = None) -> bool:
        """Give the lease back and queue the job for a worker, with what was paid and answered; False if not held."""
        job, worker = line.job, self.worker
        draft = delivery.record.draft
        if candidate is not None:
            noted = Noted((candidate,), frozenset({"first"}))
            draft = Draft(
                sequencer=job.upload.sequencer, claim=job.claim.id, identity=job.ask.identity, **noted.values()
            )
        now = worker.now()
        released = await asyncio.to_thread(
            worker.records.release,
            job.upload,
            line.lease_until,
            now=now,
            due=now + worker.settings.queue_lease_seconds,
            attempts=delivery.ledger.kept,
            draft=draft,
            lane="now",
        )
        if released:
            self._count("returned")
            await self._ordinary(job)
            return True
        stored = await worker.account(delivery)
        if stored is None or stored.sequencer != job.upload.sequencer:
            # It was replaced or deleted while it waited: its claim is free, and a follower leads.
            await worker.pass_on(job)
        return False

    async def _ordinary(self, job: Job) -> None:
        """Queue a job for a worker; how long it waited for a batch is not held against it."""
        later = job.model_copy(update={"lane": None, "queued_at": self.worker.now()})
        await self.worker.send_later(later, 0)

    def _count(self, name: str) -> None:
        if name in Ran.__dataclass_fields__:
            self._counts[name] = self._counts.get(name, 0) + 1
