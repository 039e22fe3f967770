"""Repairs of moto's SQS."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from captions_cli.local.aws.repairs.replacements import Repair, Replace
from captions_cli.local.aws.server import ServiceLocks, current_call

_LONG_POLL_STEP_S = 0.5  # how often a waiting receive looks for messages whose visibility timeout has passed


def sqs_repairs(locks: ServiceLocks, changed: Callable[[], None]) -> tuple[Repair, ...]:
    """Return the repairs; `changed` is called whenever a message became receivable."""
    queues = _Queues(locks, changed)
    return (
        Repair(
            "mappings",
            "SendMessage invokes the function of an enabled event source mapping in Docker: the mapping stays, its "
            "polling is off.",
            _mappings,
        ),
        Repair("depths", "A queue's depth is counted by walking all messages several times.", _depths),
        Repair("sent", "The trace header of a request is not kept, and nobody can wait for messages.", queues.put_sent),
        Repair(
            "received",
            "Each receive walks all messages, and a long poll holds the service's lock.",
            queues.put_received,
        ),
        Repair("deleted-messages", "Each delete walks all messages.", _deleted),
        Repair("shown", "Nobody can wait for a message that is given back.", queues.put_shown),
    )


def _mappings(replace: Replace) -> None:
    from moto.sqs.models import Queue

    replace(Queue, "lambda_event_source_mappings", property(lambda _: {}, lambda _, __: None))


def _depths(replace: Replace) -> None:
    from moto.sqs.models import Queue

    replace(Queue, "approximate_number_of_messages", property(visible_count))
    replace(Queue, "approximate_number_of_messages_not_visible", property(_in_flight_count))
    replace(Queue, "approximate_number_of_messages_delayed", property(_delayed_count))


def _deleted(replace: Replace) -> None:
    from moto.sqs.models import Queue

    replace(Queue, "delete_message", _delete_message)


class _Queues:
    """Wakes those who wait for messages."""

    def __init__(self, locks: ServiceLocks, changed: Callable[[], None]) -> None:
        self._locks = locks
        self._changed = changed

    def put_sent(self, replace: Replace) -> None:
        from moto.sqs.models import Queue

        replace(Queue, "add_message", self._adding(Queue.add_message))

    def put_received(self, replace: Replace) -> None:
        from moto.sqs.models import SQSBackend

        replace(SQSBackend, "receive_message", self._receiving(SQSBackend.receive_message))

    def put_shown(self, replace: Replace) -> None:
        from moto.sqs.models import SQSBackend

        replace(SQSBackend, "change_message_visibility", self._changing(SQSBackend.change_message_visibility))

    def _adding(self, original: Any) -> Any:
        queues = self

        def add_message(self: Any, message: Any) -> None:
            call = current_call.get()
            header = call.environ.get("HTTP_X_AMZN_TRACE_ID") if call else None
            if header and "AWSTraceHeader" not in message.system_attributes:
                message.system_attributes["AWSTraceHeader"] = {"DataType": "String", "StringValue": header}
            original(self, message)
            queues._notify()

        return add_message

    def _changing(self, original: Any) -> Any:
        queues = self

        def change_message_visibility(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
            original(self, queue_name, receipt_handle, visibility_timeout)
            if int(visibility_timeout) == 0:
                queues._notify()

        return change_message_visibility

    def _notify(self) -> None:
        condition = self._locks.of("sqs")
        with condition:
            condition.notify_all()
        self._changed()

    def _receiving(self, original: Any) -> Any:
        condition = self._locks.of("sqs")

        def receive_message(
            self: Any,
            queue_name: str,
            count: int,
            wait_seconds_timeout: int,
            visibility_timeout: int,
            message_attribute_names: list[str] | None = None,
        ) -> list[Any]:
            deadline = time.monotonic() + int(wait_seconds_timeout or 0)
            with condition:
                while True:
                    if self.get_queue(queue_name).fifo_queue:
                        messages = original(self, queue_name, count, 0, visibility_timeout, message_attribute_names)
                    else:
                        messages = _receive(
                            self.get_queue(queue_name), int(count), int(visibility_timeout), message_attribute_names
                        )
                    left_s = deadline - time.monotonic()
                    if messages or left_s <= 0:
                        return list(messages)
                    condition.wait(min(left_s, _LONG_POLL_STEP_S))  # gives up the lock, however often it is held

        return receive_message


def visible_count(queue: Any) -> int:
    """Return how many messages of a queue can be received."""
    now = time.time() * 1000
    return sum(1 for m in queue._messages if m.visible_at < now and m.delayed_until <= now)


def _in_flight_count(queue: Any) -> int:
    now = time.time() * 1000
    return sum(1 for m in queue._messages if m.visible_at >= now)


def _delayed_count(queue: Any) -> int:
    now = time.time() * 1000
    return sum(1 for m in queue._messages if m.delayed_until > now)


def _receive(queue: Any, count: int, visibility_timeout: int, attribute_names: list[str] | None) -> list[Any]:
    """Moto's receive for standard queues in one pass over the messages."""
    from moto.sqs.models import _filter_message_attributes

    now = time.time() * 1000
    expired_at = now - queue.message_retention_period * 1000
    received: list[Any] = []
    dead: list[Any] = []
    expired: list[Any] = []
    most = queue.redrive_policy["maxReceiveCount"] if queue.dead_letter_queue and queue.redrive_policy else None
    for message in queue._messages:
        if message.visible_at >= now or message.delayed_until > now:
            continue
        queue.pending_messages.discard(message)
        if message.sent_timestamp <= expired_at:
            expired.append(message)
        elif most is not None and message.approximate_receive_count >= most:
            dead.append(message)
        else:
            received.append(message)
            if len(received) == count:
                break
    for message in expired:
        queue._messages.remove(message)
    for message in dead:
        queue._messages.remove(message)
        message.dead_letter_source_arn = queue.queue_arn
        queue.dead_letter_queue.add_message(message)
    handles = vars(queue).setdefault("handles", {})
    copies = []
    for message in received:
        queue.pending_messages.add(message)
        message.mark_received(visibility_timeout=visibility_timeout)
        handles[message.receipt_handle] = message
        seen = copy.copy(message)
        seen.message_attributes = dict(message.message_attributes)
        _filter_message_attributes(seen, attribute_names or [])
        copies.append(seen)
    return copies


def _delete_message(queue: Any, receipt_handle: str) -> None:
    """Moto's delete, which finds the message by its handle in an index instead of walking the queue."""
    from moto.sqs.exceptions import ReceiptHandleIsInvalid

    if receipt_handle in queue.deleted_messages:
        return
    message = vars(queue).setdefault("handles", {}).get(receipt_handle)
    if message is None or message not in queue._messages:
        message = next((m for m in queue._messages if m.had_receipt_handle(receipt_handle)), None)
    if message is None:
        raise ReceiptHandleIsInvalid
    queue.pending_messages.discard(message)
    queue._messages.remove(message)
    for handle in message.all_receipt_handles:
        queue.deleted_messages.add(handle)
        queue.handles.pop(handle, None)
