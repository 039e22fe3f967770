"""One picture captioned while somebody watches: through cache and claims like an upload, its words as they come.

It is an upload like any other: its object is in the bucket, its record is taken before S3's event comes, dedupe decides
on it, and the worker asks, stores and hands over. Only that its job does not go through a queue, and that the gateway's
stream is read by whoever watches. Should they, or this process, go away, the job ends all the same, or the sweep puts
the upload back.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Literal

from pydantic_core import from_json

from captions import telemetry
from captions.gateway import Completion, Gateway, Request
from captions.pipeline.caption import Worker
from captions.pipeline.ingest import Intake
from captions.queues import Job, Queues, Revisit
from captions.records.record import Record
from captions.tasks import TASKS
from captions.tasks.quoting import plain
from captions.tasks.unwrapping import begins_with_reasoning, unwrapped_field, without_reasoning
from captions.uploads.s3_objects import Fetched, Objects
from captions.uploads.version import ObjectVersion, Upload

SECONDS = 90.0
"""How long one may take, storing included."""
LOOK_SECONDS, MOST_LOOK_SECONDS = 0.1, 1.0
"""How often the record is read of an upload that somebody else captions; rarer the longer it takes."""
CONTENDED_SECONDS = 0.5
_UNDECIDED = 40
"""Characters of a text that begins like a mark: before these it may become one of reasoning."""


@dataclass(frozen=True)
class Event:
    """What has become of it so far.

    * `waiting`: another upload of the same picture is being captioned, and this one will get its answer.
    * `delta`: `text` continues the caption; `restart`: what was shown is void, another answer begins.
    * `hit`: `record` has a caption that was paid for before; `done`: it has the one that was waited for.
    * `ended`: `record` has none, and says why; `deferred`: no model can be had now, the upload goes on by itself.
    """

    kind: Literal["waiting", "delta", "restart", "hit", "done", "ended", "deferred"]
    text: str = ""
    model: str = ""
    record: Record | None = None
    usage: Mapping[str, int | None] | None = None


class MainText:
    """Reads the main text of a task's answer while its JSON is written.

    Nothing is shown of what may yet prove to be reasoning: neither of an answer in prose, which many models begin with
    their thoughts and only mark where these end, nor of an object that stands within such a text.
    """

    def __init__(self, task: str) -> None:
        self._main = TASKS[task].shape.main if task in TASKS else ""
        self._written = ""
        self._shown = ""

    def add(self, piece: str) -> str:
        """Return what this piece of the answer adds to the text."""
        self._written += piece
        text = self._text()
        if not text.startswith(self._shown):
            return ""
        added, self._shown = text[len(self._shown) :], text
        return added

    def _text(self) -> str:
        # Some servers cut the two halves of an emoji apart; the first is no text until the second has come.
        written = _visible(self._written.encode("utf-16", "surrogatepass").decode("utf-16", "ignore"))
        if not written.startswith(("{", "```")) or (begin := written.find("{")) < 0 or "\n" in written[:begin].strip():
            return self._shown
        try:
            value = from_json(written[begin:], allow_partial="trailing-strings")
        except ValueError:
            return self._shown
        text = value.get(self._main) if isinstance(value, dict) else None
        if not isinstance(text, str) or text.lstrip().startswith(("{", '"{', "```")):
            return self._shown
        return _visible(unwrapped_field(plain(text)))


def _visible(text: str) -> str:
    """Return what of the beginning of a text is no reasoning, as far as that can be told yet."""
    text = text.lstrip()
    if text[:1] in "<[◁＜&`*" and len(text) < _UNDECIDED and not text.startswith("```"):
        return ""
    return without_reasoning(text)[0] if begins_with_reasoning(text) else text


class _Spoken:
    """A gateway whose answers are streamed to whoever watches; to its callers it is like any other."""

    def __init__(self, gateway: Gateway, task: str, tell: Callable[[Event], None]) -> None:
        self._gateway = gateway
        self._task = task
        self._tell = tell
        self._spoken = False
        self.usage: dict[str, int | None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    async def complete(self, request: Request, chain: Sequence[str], *, deadline: float) -> Completion:
        """Return the first complete answer of the chain's models, as the gateway does."""
        self._begin(chain[0] if chain else "")
        words, completion = MainText(self._task), None
        async for event in self._gateway.stream(request, chain, deadline=deadline):
            if event.kind == "restart":
                words = MainText(self._task)
                self._begin(event.model)
            elif event.kind == "delta" and (text := words.add(event.text)):
                self._spoken = True
                self._tell(Event("delta", text=text, model=event.model))
            elif event.kind == "done":
                completion = event.completion
        assert completion is not None  # a stream ends with it, or raises
        self.usage = {"prompt_tokens": completion.usage.prompt, "completion_tokens": completion.usage.completion}
        return completion

    def _begin(self, model: str) -> None:
        if self._spoken:
            self._spoken = False
            self._tell(Event("restart", model=model))


class HeldObjects(Objects):
    """Objects of which some need not be read again, as they have just been sent; `s3` is a boto3 S3 client."""

    def __init__(self, s3: Any) -> None:
        super().__init__(s3)
        self._held: dict[tuple[str, str], Fetched] = {}

    def hold(self, upload: ObjectVersion, data: bytes, metadata: Mapping[str, str]) -> None:
        """Keep an object's bytes until `drop`."""
        self._held[_content_of(upload)] = Fetched(data, metadata)

    def drop(self, upload: ObjectVersion) -> None:
        """Forget an object's bytes."""
        self._held.pop(_content_of(upload), None)

    def fetch(self, upload: ObjectVersion, *, first: int | None = None, replicas: bool = True) -> Fetched:
        """Return what `Objects.fetch` does."""
        held = self._held.get(_content_of(upload))
        return held if held is not None else super().fetch(upload, first=first, replicas=replicas)


def _content_of(upload: ObjectVersion) -> tuple[str, str]:
    """Return what only this content has, also where two people send a picture under one name at the same time."""
    return upload.asset, upload.version_id or upload.etag


class _KeptJobs(Queues):
    """Queues that keep the jobs of uploads which are captioned here; everything else is sent."""

    def __init__(self, sqs: Any) -> None:
        super().__init__(sqs)
        self._guard = Lock()
        self._kept: dict[str, Job | None] = {}

    def keep(self, upload: ObjectVersion) -> None:
        """Keep the next job of a version."""
        with self._guard:
            self._kept[upload.digest] = None

    def take(self, upload: ObjectVersion) -> Job | None:
        """Return the job of a version, and keep none any more."""
        with self._guard:
            return self._kept.pop(upload.digest, None)

    def send(self, queue_url: str, message: Job | Revisit, *, delay: float = 0) -> None:
        """Put a message on a queue, or keep it."""
        if isinstance(message, Job):
            with self._guard:
                if message.upload.digest in self._kept:
                    self._kept[message.upload.digest] = message
                    return
        super().send(queue_url, message, delay=delay)


class Streaming:
    """Captions uploads while somebody watches, with a dedupe and a worker of this process.

    `worker` is asked for each, as its gateway changes with the catalogue; `s3` and `sqs` are boto3 clients.
    """

    def __init__(self, intake: Intake, worker: Callable[[], Worker], s3: Any, sqs: Any) -> None:
        self._jobs = _KeptJobs(sqs)
        self.objects = HeldObjects(s3)
        self._intake = replace(intake, queues=self._jobs, objects=self.objects)
        self._worker = worker
        self._under_way: set[asyncio.Task[None]] = set()

    async def caption(self, upload: Upload, data: bytes, metadata: Mapping[str, str]) -> AsyncIterator[Event]:
        """Yield what becomes of an upload whose object has just been stored; the last event tells its end.

        Whoever stops reading does not stop it: what is under way is paid for, and is stored.
        """
        self.objects.hold(upload, data, metadata)
        self._jobs.keep(upload)

        def forget() -> None:
            self._jobs.take(upload)
            self.objects.drop(upload)

        async for event in self._reported(upload, lambda tell: self._run(upload, tell), forget):
            yield event

    async def overtake(self, record: Record) -> AsyncIterator[Event]:
        """Yield what becomes of an upload that is on its way, and caption it here unless a worker is at it."""
        deadline = time.monotonic() + SECONDS
        events = self._reported(record.upload, lambda tell: self._overtake(record, deadline, tell), lambda: None)
        async for event in events:
            yield event

    async def _reported(
        self,
        upload: ObjectVersion,
        act: Callable[[Callable[[Event], None]], Awaitable[None]],
        forget: Callable[[], None],
    ) -> AsyncIterator[Event]:
        """Yield the events of `act`, which goes on to its end though nobody listens; `forget` follows it."""
        events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

        async def run() -> None:
            try:
                await act(events.put_nowait)
                events.put_nowait(None)
            except BaseException as error:
                telemetry.logger().exception("streamed_upload_failed", asset=upload.asset)
                events.put_nowait(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                forget()

        task = asyncio.get_running_loop().create_task(run())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        while (event := await events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    async def flush(self) -> None:
        """Wait until what is under way has ended."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def watch(self, asset: str, sequencer: str) -> AsyncIterator[Event]:
        """Yield what becomes of an upload that the pipeline, or another request, is at."""
        until = time.monotonic() + SECONDS
        pause = LOOK_SECONDS
        yield Event("waiting")
        while True:
            record = await asyncio.to_thread(self._intake.records.get, asset)
            if record is None or record.sequencer != sequencer or record.terminal:
                yield _ended(record, "done")
                return
            if time.monotonic() > until:
                yield Event("deferred", record=record)
                return
            await asyncio.sleep(pause)
            pause = min(MOST_LOOK_SECONDS, pause * 1.2)

    async def _run(self, upload: Upload, tell: Callable[[Event], None]) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            ending = await asyncio.to_thread(self._intake.handle, upload, until=deadline)
            if ending != "contended" or time.monotonic() > deadline - SECONDS / 2:
                break
            await asyncio.sleep(CONTENDED_SECONDS)
        if ending == "queued" and (job := self._jobs.take(upload)) is not None:
            await self._ask(job, deadline, tell)
            return
        if ending in ("waiting", "contended"):
            async for event in self.watch(upload.asset, upload.sequencer):
                tell(event)
            return
        record = await asyncio.to_thread(self._intake.records.get, upload.asset)
        if record is not None and not record.terminal and record.version_id == upload.version_id:
            await self._overtake(record, deadline, tell)
            return
        tell(_ended(record, "hit"))

    async def _overtake(self, record: Record, deadline: float, tell: Callable[[Event], None]) -> None:
        """Caption an upload whose own event was quicker, as another delivery of it, or watch the worker that is at it.

        Both deliveries come to the same claim, and the record's lease lets one of their workers ask. The pipeline's own
        job stays where it is: should this process die, it captions the upload.
        """
        upload = record.upload
        if record.state in ("received", "queued"):
            self._jobs.keep(upload)
            try:
                revisit = Revisit(upload=upload, reason="redrive")
                await asyncio.to_thread(self._intake.handle, revisit, until=deadline)
            finally:
                job = self._jobs.take(upload)
            if job is not None:
                await self._ask(job, deadline, tell)
                return
        async for event in self.watch(upload.asset, upload.sequencer):
            tell(event)

    async def _ask(self, job: Job, deadline: float, tell: Callable[[Event], None]) -> None:
        worker = self._worker()
        spoken: Any = _Spoken(worker.gateway, job.ask.task, tell)
        ending = await replace(worker, gateway=spoken, objects=self.objects).run(job, deadline=deadline)
        record = await asyncio.to_thread(self._intake.records.get, job.upload.asset)
        under_way = record is not None and record.sequencer == job.upload.sequencer and not record.terminal
        if ending not in ("deferred", "lost") or not under_way:  # another delivery's worker may have ended it by now
            tell(replace(_ended(record, "done"), usage=spoken.usage))
        elif record is not None and (record.lease_until or 0) > self._intake.now():
            async for event in self.watch(job.upload.asset, job.upload.sequencer):
                tell(event)
        else:
            tell(Event("deferred", record=record))


def _ended(record: Record | None, kind: Literal["hit", "done"]) -> Event:
    captioned = record is not None and record.state == "captioned"
    return Event(kind if captioned else "ended", record=record)
