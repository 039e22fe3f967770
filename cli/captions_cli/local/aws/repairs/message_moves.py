"""What moto's SQS lacks: moving messages from a dead-letter queue back to where they came from."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from captions_cli.local.aws.repairs.sqs import visible_count
from captions_cli.local.aws.server import AwsCall, Forward, ServiceLocks
from captions_cli.local.cloudformation.resources import ACCOUNT_ID

LOGGER = logging.getLogger(__name__)


class MessageMoveTasks:
    """StartMessageMoveTask, ListMessageMoveTasks and CancelMessageMoveTask, which moto 5.2.5 lacks.

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
            count = visible_count(source)
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
