"""Carries queued messages and schedules to functions, as Lambda's event source mappings and EventBridge's schedules do.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from captions_cli.local.aws.events import event_time
from captions_cli.local.aws.schedules import Next
from captions_cli.local.aws.server import ServiceLocks
from captions_cli.local.cloudformation.resources import ACCOUNT_ID
from captions_cli.local.lambda_runtime import lineage
from captions_cli.local.lambda_runtime.sandboxes import Function, InvocationOutcome, Sandbox, Sandboxes

LOGGER = logging.getLogger(__name__)

POLL_S = 0.25  # how often an idle poller looks for messages whose visibility timeout or delay has passed
RECEIVE_MOST = 10  # messages per receive, SQS's limit
ASYNC_ATTEMPTS = 3  # Lambda tries an asynchronous invocation again twice
ASYNC_RETRY_S = 1.0  # Lambda waits one minute, then two


@dataclass(frozen=True)
class EventSource:
    """One queue and the function that reads it."""

    function: Function
    queue_arn: str
    batch_size: int
    window_s: float
    maximum_concurrency: int | None
    partial_responses: bool  # FunctionResponseTypes: ReportBatchItemFailures
    filters: tuple[Mapping[str, Any], ...] = ()  # patterns; a message that matches none is deleted
    enabled: bool = True

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self.queue_arn.rpartition(":")[2]

    @property
    def region(self) -> str:
        """The queue's region."""
        return self.queue_arn.split(":")[3]


@dataclass(frozen=True)
class Schedule:
    """A function that is invoked at certain times."""

    arn: str
    function: Function
    next_after: Next
    input: str | None  # JSON; None: the event that the scheduling service makes
    source: str  # aws.events (a rule) or aws.scheduler


class Pump:
    """Polls the event sources and runs the schedules until it is stopped."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        locks: ServiceLocks,
        sources: Sequence[EventSource],
        schedules: Sequence[Schedule],
        visibility_s: int | None = None,
    ) -> None:
        self._pollers = [_Poller(sandboxes, locks, source, visibility_s) for source in sources if source.enabled]
        self._sandboxes = sandboxes
        self._schedules = schedules
        self._ending = threading.Event()  # nothing new is begun
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self._asynchronous = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to poll."""
        for poller in self._pollers:
            self._threads.append(threading.Thread(target=poller.run, name="poller", daemon=True))
        for schedule in self._schedules:
            self._threads.append(threading.Thread(target=self._run_schedule, args=(schedule,), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop at once, as a crash would: what functions answer from now on is not heard, their messages come back."""
        self._ending.set()
        self._stopped.set()
        for poller in self._pollers:
            poller.stop()
        for thread in self._threads:
            thread.join(timeout=5)

    def retire(self) -> None:
        """Begin nothing new, because another pump does; what is under way ends as if nothing had happened."""
        self._ending.set()
        for poller in self._pollers:
            poller.retire()

    def wake(self) -> None:
        """A message became receivable."""
        for poller in self._pollers:
            poller.wake()

    def working(self) -> int:
        """Invocations that have not ended."""
        with self._guard:
            return self._asynchronous + sum(poller.in_flight for poller in self._pollers)

    def invoke(self, function: Function, event: Any) -> InvocationOutcome:
        """Invoke a function and wait for its answer."""
        while not self._stopped.is_set():
            sandbox = self._sandboxes.acquire(function, 1.0)
            if sandbox is not None:
                return self._sandboxes.run(sandbox, event)
        return InvocationOutcome(False, {"errorType": "Stopped", "errorMessage": "the local stack has stopped"}, "")

    def invoke_async(self, function: Function, event: Any) -> None:
        """Invoke a function without waiting; an error is tried again twice."""
        with self._guard:
            self._asynchronous += 1
        threading.Thread(target=self._invoke_retrying, args=(function, event), daemon=True).start()

    def _invoke_retrying(self, function: Function, event: Any) -> None:
        try:
            for attempt in range(ASYNC_ATTEMPTS):
                outcome = self.invoke(function, event)
                if outcome.ok or self._stopped.wait(ASYNC_RETRY_S * (attempt + 1)):
                    return
            LOGGER.error("async_invocation_failed function=%s error=%s", function.logical_id, outcome.payload)
        finally:
            with self._guard:
                self._asynchronous -= 1

    def _run_schedule(self, schedule: Schedule) -> None:
        due = schedule.next_after(datetime.now(UTC))
        while due is not None:
            if self._ending.wait(max(0.0, (due - datetime.now(UTC)).total_seconds())):
                return
            self.invoke_async(schedule.function, schedule_event(schedule, due))
            due = schedule.next_after(due)


def schedule_event(schedule: Schedule, due: datetime) -> Any:
    """What a scheduled function gets: the schedule's input, or the service's own event."""
    moment = event_time(due.timestamp())
    if schedule.input is not None:
        text = schedule.input
        if schedule.source == "aws.scheduler":
            text = text.replace("<aws.scheduler.schedule-arn>", schedule.arn)
            text = text.replace("<aws.scheduler.scheduled-time>", moment)
            text = text.replace("<aws.scheduler.execution-id>", str(uuid.uuid4()))
            text = text.replace("<aws.scheduler.attempt-number>", "1")
        return json.loads(text)
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": schedule.source,
        "account": ACCOUNT_ID,
        "time": moment,
        "region": schedule.arn.split(":")[3],
        "resources": [schedule.arn],
        "detail": "{}" if schedule.source == "aws.scheduler" else {},
    }


class _Poller:
    """Reads one queue: reserves a sandbox first, so that no message is received before it can be worked on."""

    def __init__(
        self, sandboxes: Sandboxes, locks: ServiceLocks, source: EventSource, visibility_s: int | None = None
    ) -> None:
        self._visibility_s = visibility_s
        self._sandboxes = sandboxes
        self._locks = locks
        self._source = source
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self.in_flight = 0

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stopped.set()
        self.retire()

    def retire(self) -> None:
        self._ending.set()
        self._woken.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        while not self._ending.is_set():
            self._woken.clear()
            try:
                if not self._depth():
                    self._woken.wait(POLL_S)
                    continue
                self._carry_one_batch()
            except Exception:
                LOGGER.exception("poll_failed queue=%s", self._source.queue_name)
                self._ending.wait(1.0)

    def _carry_one_batch(self) -> None:
        if not self._wait_for_concurrency():
            return
        sandbox = self._sandboxes.acquire(self._source.function, 1.0)
        if sandbox is None:
            return
        # What another pump polls for meanwhile is not begun any more.
        messages = [] if self._ending.is_set() else self._receive_batch()
        if not messages:
            self._sandboxes.release(sandbox)
            return
        with self._changed:
            self.in_flight += 1
        threading.Thread(target=self._invoke, args=(sandbox, messages), name="invocation", daemon=True).start()

    def _wait_for_concurrency(self) -> bool:
        most = self._source.maximum_concurrency
        with self._changed:
            if most is not None and self.in_flight >= most:
                self._changed.wait(1.0)
                return self.in_flight < most
        return True

    def _invoke(self, sandbox: Sandbox, messages: Sequence[Any]) -> None:
        try:
            function = self._source.function
            taken = [message for message in messages if not self._in_loop(message)]
            if not taken:
                self._sandboxes.release(sandbox)
                return
            records = [sqs_record(message, self._source) for message in taken]
            chain = lineage.advanced(map(trace_header, taken), function.arn)
            outcome = self._sandboxes.run(sandbox, {"Records": records}, lineage=chain)
            if self._stopped.is_set():
                return  # nobody hears the answer
            failed = failed_messages(outcome, [m.id for m in taken], partial=self._source.partial_responses)
            for message in taken:
                if message.id not in failed:
                    self._delete(message)
        except Exception:
            LOGGER.exception("invocation_failed function=%s", self._source.function.logical_id)
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def _in_loop(self, message: Any) -> bool:
        """Whether Lambda would not invoke the function with it: it comes again until its receives are used up."""
        function = self._source.function
        if function.recursive_loop == "Allow" or not lineage.ended(trace_header(message), function.arn):
            return False
        LOGGER.warning("recursive_loop_ended function=%s message=%s", function.logical_id, message.id)
        return True

    def _backend(self) -> Any:
        from moto.sqs.models import sqs_backends

        return sqs_backends[ACCOUNT_ID][self._source.region]

    def _depth(self) -> int:
        with self._locks.of("sqs"):
            return int(self._backend().get_queue(self._source.queue_name).approximate_number_of_messages)

    def _receive_batch(self) -> list[Any]:
        messages = self._receive(self._source.batch_size)
        if not messages or not self._source.window_s:
            return messages
        # The window opens with the first message and closes when the batch is full.
        closes = time.monotonic() + self._source.window_s
        while len(messages) < self._source.batch_size and not self._ending.is_set():
            left_s = closes - time.monotonic()
            if left_s <= 0:
                break
            self._woken.clear()
            more = self._receive(self._source.batch_size - len(messages))
            messages += more
            if not more:
                self._woken.wait(min(left_s, POLL_S))
        return messages

    def _receive(self, count: int) -> list[Any]:
        with self._locks.of("sqs"):
            backend = self._backend()
            name = self._source.queue_name
            visibility_s = self._visibility_s or float(backend.get_queue(name).visibility_timeout)
            messages: list[Any] = backend.receive_message(name, min(count, RECEIVE_MOST), 0, visibility_s, ["All"])
            wanted = [m for m in messages if matches(self._source.filters, m.body)]
            for message in messages:
                if message not in wanted:
                    backend.delete_message(self._source.queue_name, message.receipt_handle)
        return wanted

    def _delete(self, message: Any) -> None:
        from moto.sqs.exceptions import ReceiptHandleIsInvalid

        with self._locks.of("sqs"):
            try:
                self._backend().delete_message(self._source.queue_name, message.receipt_handle)
            except ReceiptHandleIsInvalid:
                # The handler deleted it itself, or it went to the dead-letter queue meanwhile.
                LOGGER.info("message_already_gone queue=%s message=%s", self._source.queue_name, message.id)


def matches(filters: Sequence[Mapping[str, Any]], body: str) -> bool:
    """Whether a message passes an event source's filter criteria: any of the patterns, or there are none."""
    from moto.events.models import EventPattern

    if not filters:
        return True
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = body
    return any(EventPattern(None, dict(pattern)).matches_event({"body": parsed}) for pattern in filters)


def failed_messages(outcome: InvocationOutcome, ids: Sequence[str], *, partial: bool) -> frozenset[str]:
    """Ids of the messages that stay on the queue after a batch with these ids ended so.

    A response with partial failures counts as Lambda counts it: an empty or null `batchItemFailures`, or none, is full
    success; an identifier that is empty, null, misnamed or not of the batch makes the whole batch fail.
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    everything = frozenset(ids)
    if not outcome.ok:
        return everything
    if not partial or outcome.payload is None:
        return frozenset()
    if not isinstance(outcome.payload, dict):
        return everything
    failures = outcome.payload.get("batchItemFailures") or []
    if not isinstance(failures, list):
        return everything
    named = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in failures]
    if any(name not in everything for name in named):
        return everything
    return frozenset(str(name) for name in named)


def trace_header(message: Any) -> str:
    """The trace header that one of moto's messages was sent with; empty where there is none."""
    value = (message.system_attributes or {}).get("AWSTraceHeader", "")
    return str(value["StringValue"]) if isinstance(value, Mapping) else str(value)


def sqs_record(message: Any, source: EventSource) -> dict[str, Any]:
    """One of moto's received messages as the record a function gets."""
    attributes = {
        "ApproximateReceiveCount": str(message.approximate_receive_count),
        "SentTimestamp": str(message.sent_timestamp),
        "SenderId": message.sender_id,
        "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
    }
    for name, value in (message.system_attributes or {}).items():
        attributes[name] = value["StringValue"] if isinstance(value, Mapping) else str(value)
    if message.group_id is not None:
        attributes["MessageGroupId"] = message.group_id
    if message.deduplication_id is not None:
        attributes |= {
            "MessageDeduplicationId": message.deduplication_id,
            "SequenceNumber": message.sequence_number or "",
        }
    record = {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": attributes,
        "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
        "md5OfBody": message.body_md5,
        "eventSource": "aws:sqs",
        "eventSourceARN": source.queue_arn,
        "awsRegion": source.region,
    }
    if message.message_attributes:
        record["md5OfMessageAttributes"] = message.attribute_md5
    return record


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value.get("DataType") or value.get("data_type"),
    }
    if "StringValue" in value:
        described["stringValue"] = str(value["StringValue"])
    if "BinaryValue" in value:
        binary = value["BinaryValue"]
        described["binaryValue"] = binary if isinstance(binary, str) else base64.b64encode(binary).decode()
    return described
