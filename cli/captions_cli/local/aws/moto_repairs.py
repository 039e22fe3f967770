"""What moto gets wrong, put right: each repair replaces one of its functions while a stack is up.

- S3 emits constant sequencers and event ids, two events for a multipart upload, none for a versioned delete, and
  tagging events for uploads: `_S3Repairs` sends one event per change through the event router.
- EventBridge skips input transformers for S3's events, ignores a disabled rule and dead-letter queues: rules hand
  their events to the router.
- An enabled event source mapping makes SQS's SendMessage invoke the function in Docker: the mapping stays, its polling
  is off.
- SQS walks all messages several times for each receive and delete, and holds its lock through a long poll.
- SQS has no message move tasks, and does not keep the trace header of a request with the message it sends.
- It is slow, DynamoDB above all (moto_speed.py).
- S3 does not tell of a bucket's notifications that they go to EventBridge.
- S3 lists versions without the encoding of keys that was asked for: a control character in a key, and the answer is no
  XML. It hands out objects stored with a customer's own key (SSE-C) to requests without that key.
- A bucket policy's statements count whatever their conditions say, so that "deny without TLS" denies everything:
  bucket policies are kept and shown, not enforced.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from captions_cli.local.aws.events import EMPTY_ETAG, EventRouter, Sequencers, event_time, s3_event
from captions_cli.local.aws.moto_speed import Replacements, make_moto_fast
from captions_cli.local.aws.server import AwsCall, Forward, ServiceLocks, current_call
from captions_cli.local.cloudformation.translate import ACCOUNT_ID

LOGGER = logging.getLogger(__name__)

_CREATED_REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
}
_LONG_POLL_STEP_S = 0.5  # how often a waiting receive looks for messages whose visibility timeout has passed


class MotoRepairs:
    """Holds the repairs in place between `install` and `remove`."""

    def __init__(self, locks: ServiceLocks, router: EventRouter) -> None:
        self._locks = locks
        self._router = router
        self._sequencers = Sequencers()
        self._replace = Replacements()
        self._silent = threading.local()
        self.queue_changed: Callable[[], None] = lambda: None  # told of every message that became receivable

    def install(self) -> None:
        """Put the repairs in place."""
        import moto.s3.notifications
        import moto.s3.responses
        from moto.events.models import Rule
        from moto.iam.access_control import PermissionResult
        from moto.s3.models import FakeBucket, S3Backend
        from moto.s3.responses import S3Response
        from moto.sqs.models import Queue, SQSBackend

        # Path-style requests only (the server has seen to that), whatever the host is called.
        self._replace(moto.s3.responses, "S3_IGNORE_SUBDOMAIN_BUCKETNAME", True)
        self._replace(moto.s3.notifications, "_send_event_bridge_message", self._s3_created)
        self._replace(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL)
        self._replace(S3Response, "get_bucket_notification", _telling_eventbridge(S3Response.get_bucket_notification))
        self._replace(S3Response, "list_object_versions", _listing_encoded(S3Response.list_object_versions))
        self._replace(S3Response, "put_object", _putting_sse_c(S3Response.put_object))
        self._replace(S3Response, "_get_key", _getting_sse_c(S3Response._get_key))
        self._replace(S3Backend, "delete_object", self._deleting(S3Backend.delete_object))
        self._replace(Rule, "send_to_targets", self._rule_event)
        self._replace(Queue, "lambda_event_source_mappings", property(lambda _: {}, lambda _, __: None))
        self._replace(Queue, "approximate_number_of_messages", property(_visible_count))
        self._replace(Queue, "approximate_number_of_messages_not_visible", property(_in_flight_count))
        self._replace(Queue, "approximate_number_of_messages_delayed", property(_delayed_count))
        self._replace(Queue, "add_message", self._adding(Queue.add_message))
        self._replace(Queue, "delete_message", _delete_message)
        self._replace(SQSBackend, "receive_message", self._receiving(SQSBackend.receive_message))
        self._replace(SQSBackend, "change_message_visibility", self._changing(SQSBackend.change_message_visibility))
        make_moto_fast(self._replace)

    def remove(self) -> None:
        """Give moto its own functions back."""
        self._replace.undo()

    # S3

    def _s3_created(self, account_id: str, bucket: Any, event_name: str, key: Any) -> None:
        name = str(getattr(event_name, "value", event_name))
        if name == "s3:ObjectRestore:Post":
            # A restore that takes hours in AWS is over at once here.
            etag, event = key.etag.replace('"', ""), "Object Restore Completed"
            self._publish(event, bucket, key.name, version_id=key.version_id, etag=etag, size=key.size, reason=None)
            return
        reason = _CREATED_REASONS.get(name)
        if reason is None:
            return  # removals are sent by _deleting; tagging and ACL events of uploads do not exist in AWS
        if reason == "PutObject" and key.multipart is not None:
            return  # moto announces a completed multipart upload twice
        self._publish(
            "Object Created",
            bucket,
            key.name,
            version_id=key.version_id,
            etag=key.etag.replace('"', ""),
            size=key.size,
            reason=reason,
        )

    def _deleting(self, original: Any) -> Any:
        repairs = self

        def delete_object(
            self: Any, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
        ) -> tuple[bool, dict[str, Any]]:
            bucket = self.get_bucket(bucket_name)
            before = {str(key.version_id): key for key in bucket.keys.getlist(key_name, [])}
            success, headers = original(self, bucket_name, key_name, version_id=version_id, bypass=bypass)
            if not success or not _events_on(bucket):
                return success, headers
            if bucket.is_versioned and version_id is None:
                repairs._publish_deleted(bucket, key_name, headers["version-id"], EMPTY_ETAG, "Delete Marker Created")
            elif bucket.is_versioned and str(version_id) in before:
                etag = getattr(before[str(version_id)], "etag", EMPTY_ETAG)
                repairs._publish_deleted(bucket, key_name, version_id, etag, "Permanently Deleted")
            elif not bucket.is_versioned and before:
                etag = next(iter(before.values())).etag
                repairs._publish_deleted(bucket, key_name, None, etag, "Permanently Deleted")
            return success, headers

        return delete_object

    def _publish_deleted(self, bucket: Any, key: str, version_id: str | None, etag: str, deletion_type: str) -> None:
        self._publish(
            "Object Deleted",
            bucket,
            key,
            version_id=version_id,
            etag=etag.replace('"', ""),
            size=None,
            reason="DeleteObject",
            deletion_type=deletion_type,
        )

    def _publish(self, detail_type: str, bucket: Any, key: str, *, version_id: str | None, **facts: Any) -> None:
        call = current_call.get()
        event = s3_event(
            detail_type,
            region=bucket.region_name,
            bucket=bucket.name,
            key=key,
            version_id=str(version_id) if bucket.is_versioned else None,
            # Of a restore S3 tells no sequencer: nothing was written.
            sequencer=self._sequencers.next() if facts["reason"] is not None else None,
            request_id=call.request_id if call else uuid.uuid4().hex[:16].upper(),
            source_ip=str(call.environ["REMOTE_ADDR"]) if call else "127.0.0.1",
            **facts,
        )
        self._router.publish("default", bucket.region_name, event)

    # EventBridge

    @property
    def _rule_event(self) -> Any:
        router = self._router

        def send_to_targets(self: Any, original_event: Mapping[str, Any], transform_input: bool = True) -> None:
            event = {key: value for key, value in original_event.items() if key != "ingestion-time"}
            if not isinstance(event.get("time"), str):
                event["time"] = event_time(float(event["time"]))
            router.offer(self, event)

        return send_to_targets

    # SQS

    def _adding(self, original: Any) -> Any:
        repairs = self

        def add_message(self: Any, message: Any) -> None:
            call = current_call.get()
            header = call.environ.get("HTTP_X_AMZN_TRACE_ID") if call else None
            if header and "AWSTraceHeader" not in message.system_attributes:
                message.system_attributes["AWSTraceHeader"] = {"DataType": "String", "StringValue": header}
            original(self, message)
            repairs._notify()

        return add_message

    def _changing(self, original: Any) -> Any:
        repairs = self

        def change_message_visibility(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
            original(self, queue_name, receipt_handle, visibility_timeout)
            if int(visibility_timeout) == 0:
                repairs._notify()

        return change_message_visibility

    def _notify(self) -> None:
        condition = self._locks.of("sqs")
        with condition:
            condition.notify_all()
        self.queue_changed()

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


def _events_on(bucket: Any) -> bool:
    configuration = bucket.notification_configuration
    return configuration is not None and configuration.event_bridge is not None


def _telling_eventbridge(original: Any) -> Any:
    def get_bucket_notification(self: Any) -> Any:
        answer = original(self)
        configuration = self.backend.get_bucket_notification_configuration(self.bucket_name)
        if configuration is None or configuration.event_bridge is None:
            return answer
        status, headers, body = answer
        text = body.decode() if isinstance(body, bytes) else str(body)
        opened = re.sub(r"<NotificationConfiguration([^>]*)/>", r"<NotificationConfiguration\1>", text)
        closed = opened if "</NotificationConfiguration>" in opened else f"{opened}</NotificationConfiguration>"
        extended = closed.replace(
            "</NotificationConfiguration>", "<EventBridgeConfiguration/></NotificationConfiguration>"
        )
        return status, headers, extended

    return get_bucket_notification


def _listing_encoded(original: Any) -> Any:
    """ListObjectVersions with EncodingType=url, which every SDK asks for (Amazon S3 API, ListObjectVersions)."""

    def quoted(value: Any) -> Any:
        return urllib.parse.quote(value) if isinstance(value, str) else value

    def list_object_versions(self: Any) -> Any:
        if self.querystring.get("encoding-type", [None])[0] != "url":
            return original(self)
        write = self.serialized

        def encoded(answer: Any) -> Any:
            listed = answer.result
            for name in ("Prefix", "Delimiter", "KeyMarker", "NextKeyMarker"):
                if name in listed:
                    listed[name] = quoted(listed[name])
            for version in (*listed["Versions"], *listed["DeleteMarkers"]):
                version["Key"] = quoted(version["Key"])
            for common in listed.get("CommonPrefixes", ()):
                common["Prefix"] = quoted(common["Prefix"])
            listed["EncodingType"] = "url"
            return write(answer)

        self.serialized = encoded
        try:
            return original(self)
        finally:
            del self.serialized

    return list_object_versions


_SSE_C_KEY = "x-amz-server-side-encryption-customer-key-md5"


def _putting_sse_c(original: Any) -> Any:
    def put_object(self: Any) -> Any:
        answer = original(self)
        given = self.headers.get(_SSE_C_KEY)
        if given is not None and "x-amz-copy-source" not in self.headers:
            self.backend.get_object(self.bucket_name, self.parse_key_name()).sse_c_key = given
        return answer

    return put_object


def _getting_sse_c(original: Any) -> Any:
    """Ask for the key again where an object was stored under SSE-C.

    Source: Amazon S3 user guide, "Using server-side encryption with customer-provided keys (SSE-C)".
    """

    def _get_key(self: Any, *args: Any, **kwargs: Any) -> Any:
        from moto.s3.exceptions import S3ClientError

        key, not_modified = original(self, *args, **kwargs)
        wanted, given = getattr(key, "sse_c_key", None), self.headers.get(_SSE_C_KEY)
        if wanted is not None and given is None:
            raise S3ClientError(
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. "
                "The correct parameters must be provided to retrieve the object.",
            )
        if wanted is not None and wanted != given:
            raise S3ClientError("AccessDenied", "Access Denied")
        return key, not_modified

    return _get_key


def _visible_count(queue: Any) -> int:
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


class MessageMoveTasks:
    """StartMessageMoveTask, ListMessageMoveTasks and CancelMessageMoveTask, which moto lacks.

    As in AWS the source must be a dead-letter queue of an SQS queue, one task runs per source, and the moved messages
    are new ones. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """

    _DEFAULT_RATE = 500  # messages per second, AWS's maximum

    def __init__(self) -> None:
        self._tasks: list[dict[str, Any]] = []
        self._guard = threading.Lock()
        self.locks: ServiceLocks | None = None

    def __call__(self, call: AwsCall, forward: Forward) -> Any:
        """Answer the three operations; pass on everything else."""
        from werkzeug.wrappers import Response

        operations = {
            "StartMessageMoveTask": self._start,
            "ListMessageMoveTasks": self._list,
            "CancelMessageMoveTask": self._cancel,
        }
        operation = operations.get(call.action) if call.service == "sqs" else None
        if operation is None:
            return forward(call)
        try:
            answer, status = operation(json.loads(call.body), call.region), 200
        except _SqsError as error:
            answer, status = {"__type": f"com.amazonaws.sqs#{error.code}", "message": error.message}, 400
        return Response(json.dumps(answer), status=status, content_type="application/x-amz-json-1.0")

    def _start(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        source_arn = request["SourceArn"]
        with self._sqs_lock():
            source = self._queue(source_arn, region)
            sources = [q for q in self._queues(region).values() if q.dead_letter_queue is source]
            if not sources:
                raise _SqsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
            destination_arn = request.get("DestinationArn")
            if destination_arn:
                self._queue(destination_arn, region)
            count = _visible_count(source)
        task = {
            "TaskHandle": str(uuid.uuid4()),
            "SourceArn": source_arn,
            "DestinationArn": destination_arn,
            "MaxNumberOfMessagesPerSecond": request.get("MaxNumberOfMessagesPerSecond"),
            "Status": "RUNNING",
            "ApproximateNumberOfMessagesMoved": 0,
            "ApproximateNumberOfMessagesToMove": count,
            "StartedTimestamp": int(time.time() * 1000),
        }
        with self._guard:
            if any(t["SourceArn"] == source_arn and t["Status"] == "RUNNING" for t in self._tasks):
                raise _SqsError("UnsupportedOperation", "There is already a task running. Only one is allowed.")
            self._tasks.append(task)
        threading.Thread(target=self._move, args=(task, region, sources[0].queue_arn), daemon=True).start()
        return {"TaskHandle": task["TaskHandle"]}

    def _move(self, task: dict[str, Any], region: str, default_arn: str) -> None:
        pause_s = 1 / (task["MaxNumberOfMessagesPerSecond"] or self._DEFAULT_RATE)
        try:
            for _ in range(task["ApproximateNumberOfMessagesToMove"]):
                if task["Status"] != "RUNNING":
                    task["Status"] = "CANCELLED"
                    return
                if not self._move_one(task, region, default_arn):
                    break
                task["ApproximateNumberOfMessagesMoved"] += 1
                time.sleep(pause_s)
            task["Status"] = "COMPLETED"
        except Exception as error:
            LOGGER.exception("message_move_failed source=%s", task["SourceArn"])
            task |= {"Status": "FAILED", "FailureReason": str(error)}

    def _move_one(self, task: Mapping[str, Any], region: str, default_arn: str) -> bool:
        from moto.sqs.models import sqs_backends

        with self._sqs_lock():
            source = self._queue(task["SourceArn"], region)
            now = time.time() * 1000
            message = next((m for m in source._messages if m.visible_at < now and m.delayed_until <= now), None)
            if message is None:
                return False
            own_source = getattr(message, "dead_letter_source_arn", default_arn)
            target = self._queue(task["DestinationArn"] or own_source, region)
            sqs_backends[ACCOUNT_ID][region].send_message(
                target.name, message.body, message_attributes=message.message_attributes, group_id=message.group_id
            )
            source._messages.remove(message)
            source.pending_messages.discard(message)
        return True

    def _list(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        self._queue(request["SourceArn"], region)
        with self._guard:
            tasks = [dict(t) for t in reversed(self._tasks) if t["SourceArn"] == request["SourceArn"]]
        listed = []
        for task in tasks[: int(request.get("MaxResults") or 1)]:
            if task["Status"] != "RUNNING":
                del task["TaskHandle"]  # AWS gives it for running tasks only
            listed.append({key: value for key, value in task.items() if value is not None})
        return {"Results": listed}

    def _cancel(self, request: Mapping[str, Any], region: str) -> dict[str, Any]:
        with self._guard:
            for task in self._tasks:
                if task["TaskHandle"] == request["TaskHandle"] and task["Status"] == "RUNNING":
                    task["Status"] = "CANCELLING"
                    return {"ApproximateNumberOfMessagesMoved": task["ApproximateNumberOfMessagesMoved"]}
        raise _SqsError("ResourceNotFoundException", "Task does not exist.")

    def _sqs_lock(self) -> threading.Condition:
        assert self.locks is not None
        return self.locks.of("sqs")

    def _queues(self, region: str) -> Mapping[str, Any]:
        from moto.sqs.models import sqs_backends

        queues: Mapping[str, Any] = sqs_backends[ACCOUNT_ID][region].queues
        return queues

    def _queue(self, arn: str, region: str) -> Any:
        queue = self._queues(region).get(arn.rpartition(":")[2])
        if queue is None:
            raise _SqsError(
                "ResourceNotFoundException",
                "The resource that you specified for the SourceArn parameter doesn't exist.",
            )
        return queue


class _SqsError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
