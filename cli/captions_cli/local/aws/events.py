"""EventBridge on one machine: S3's events as AWS sends them, matched against the rules and carried to their targets.

Field names and values follow https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from captions_cli.local.aws.server import ServiceLocks
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, partition_of

LOGGER = logging.getLogger(__name__)

EMPTY_ETAG = "d41d8cd98f00b204e9800998ecf8427e"  # a delete marker's, in S3's events
SHUFFLE_SPREAD_S = 1.0  # how far apart shuffled deliveries of events of the same moment may lie
TARGET_ATTEMPTS = 3  # EventBridge tries for 24 hours; here a target that fails thrice goes to the dead-letter queue
TARGET_RETRY_S = 0.2


class Sequencers:
    """Hexadecimal numbers that only grow, as S3 gives one to every change of an object."""

    def __init__(self) -> None:
        self._last = 0
        self._guard = threading.Lock()

    def next(self) -> str:
        """The next one: 16 digits, seconds since the epoch in the first eight."""
        with self._guard:
            self._last = max(self._last + 1, int(time.time() * 2**32))
            return f"{self._last:016x}"


def event_time(seconds: float | None = None) -> str:
    """A moment (seconds since the epoch; now by default) as EventBridge writes it."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def s3_event(
    detail_type: str,
    *,
    region: str,
    bucket: str,
    key: str,
    version_id: str | None,
    sequencer: str | None,
    etag: str | None,
    size: int | None,
    reason: str | None,
    request_id: str,
    source_ip: str,
    deletion_type: str | None = None,
) -> dict[str, Any]:
    """One event of S3 for EventBridge. `key` is raw, never URL-encoded; `version_id` is None without versioning."""
    described: dict[str, Any] = {"key": key}
    if size is not None:
        described["size"] = size
    if etag is not None:
        described["etag"] = etag
    if version_id is not None:
        described["version-id"] = version_id
    if sequencer is not None:
        described["sequencer"] = sequencer
    detail: dict[str, Any] = {
        "version": "0",
        "bucket": {"name": bucket},
        "object": described,
        "request-id": request_id,
        "requester": ACCOUNT_ID,
        "source-ip-address": source_ip,
    }
    if reason is not None:
        detail["reason"] = reason
    if deletion_type is not None:
        detail["deletion-type"] = deletion_type
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": "aws.s3",
        "account": ACCOUNT_ID,
        "time": event_time(),
        "region": region,
        "resources": [f"arn:{partition_of(region)}:s3:::{bucket}"],
        "detail": detail,
    }


@dataclass(frozen=True)
class Unreliability:
    """What EventBridge and SQS are allowed to do and rarely do: for tests."""

    deliver_twice: bool = False
    shuffle: bool = False
    seed: int | None = None


@dataclass(frozen=True)
class _Delivery:
    rule_arn: str
    target: Mapping[str, Any]
    event: Mapping[str, Any]
    attempt: int = 1


class EventRouter:
    """Carries events from buses to the targets of the rules that match them, in a thread of its own.

    Rules are read from moto at the moment of the event, so what the EventBridge API changes has effect.
    `invoke` starts a function asynchronously: it takes the function's ARN and the event.
    """

    def __init__(
        self,
        locks: ServiceLocks,
        invoke: Callable[[str, Mapping[str, Any]], None],
        unreliability: Unreliability,
    ) -> None:
        self._locks = locks
        self._invoke = invoke
        self._unreliability = unreliability
        self._random = random.Random(unreliability.seed)  # noqa: S311 - order of test deliveries
        self._due: list[tuple[float, int, _Delivery]] = []
        self._counter = itertools.count()
        self._changed = threading.Condition()
        self._delivering = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="event-router", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """Stop delivering; what was not delivered is dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def pending(self) -> int:
        """Deliveries that have not reached their target yet."""
        with self._changed:
            return len(self._due) + self._delivering

    def publish(self, bus: str, region: str, event: Mapping[str, Any]) -> None:
        """Offer an event to every rule of a bus."""
        from moto.events.models import events_backends

        buses = events_backends[ACCOUNT_ID][region].event_buses
        if bus in buses:
            for rule in list(buses[bus].rules.values()):
                self.offer(rule, event)

    def offer(self, rule: Any, event: Mapping[str, Any]) -> None:
        """Deliver the event to the targets of one of moto's rules, if the rule is enabled and matches."""
        if rule.state != "ENABLED" or not rule.event_pattern.get_pattern():
            return
        if not rule.event_pattern.matches_event(dict(event)):
            return
        for target in list(rule.targets):
            for _ in range(2 if self._unreliability.deliver_twice else 1):
                self._schedule(_Delivery(rule.arn, target, event))

    def _schedule(self, delivery: _Delivery, delay_s: float = 0.0) -> None:
        if self._unreliability.shuffle and delivery.attempt == 1:
            delay_s += self._random.uniform(0, SHUFFLE_SPREAD_S)
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._counter), delivery))
            self._changed.notify_all()

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            try:
                self._deliver(delivery)
            except Exception as error:
                self._failed(delivery, error)
            finally:
                with self._changed:
                    self._delivering -= 1

    def _next(self) -> _Delivery | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    self._delivering += 1
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
        return None

    def _deliver(self, delivery: _Delivery) -> None:
        arn = str(delivery.target["Arn"])
        _, _, service, region, _, resource = arn.split(":", 5)
        payload = target_input(delivery.target, delivery.event)
        if service == "sqs":
            self._send(region, resource, payload, delivery.target.get("SqsParameters", {}).get("MessageGroupId"))
        elif service == "lambda":
            self._invoke(arn, json.loads(payload))
        elif service == "events" and resource.startswith("event-bus/"):
            self.publish(resource.removeprefix("event-bus/"), region, delivery.event)
        elif service in {"logs", "sns"}:
            LOGGER.info("event_target_not_emulated rule=%s target=%s", delivery.rule_arn, arn)
        else:
            raise ValueError(f"the local stack does not deliver to {service}")

    def _send(
        self,
        region: str,
        queue: str,
        body: str,
        group_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        from moto.sqs.models import sqs_backends

        with self._locks.of("sqs"):
            sqs_backends[ACCOUNT_ID][region].send_message(
                queue, body, message_attributes=dict(attributes or {}), group_id=group_id
            )

    def _failed(self, delivery: _Delivery, error: Exception) -> None:
        LOGGER.warning("event_delivery_failed rule=%s attempt=%d error=%r", delivery.rule_arn, delivery.attempt, error)
        if delivery.attempt < TARGET_ATTEMPTS:
            again = _Delivery(delivery.rule_arn, delivery.target, delivery.event, delivery.attempt + 1)
            self._schedule(again, TARGET_RETRY_S * delivery.attempt)
            return
        dead_letter_arn = delivery.target.get("DeadLetterConfig", {}).get("Arn")
        if not dead_letter_arn:
            return
        _, _, _, region, _, queue = dead_letter_arn.split(":", 5)
        facts = {
            "RULE_ARN": delivery.rule_arn,
            "TARGET_ARN": str(delivery.target["Arn"]),
            "ERROR_CODE": type(error).__name__,
            "ERROR_MESSAGE": str(error) or type(error).__name__,
        }
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in facts.items()}
        try:
            self._send(region, queue, json.dumps(delivery.event), attributes=attributes)
        except Exception:
            LOGGER.exception("event_lost rule=%s dead_letter=%s", delivery.rule_arn, dead_letter_arn)


def parse_function_name(reference: str) -> str:
    """The name in a function's ARN or partial ARN, without version or alias; a name is its own."""
    if ":function:" in reference:
        reference = reference.split(":function:")[1]
    return reference.split(":")[0]


def target_input(target: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """What a target gets, in JSON: its Input, what is at InputPath, its InputTransformer's text, or the event."""
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return _compact(_at(event, target["InputPath"]))
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        values = {name: _at(event, path) for name, path in transformer.get("InputPathsMap", {}).items()}
        return _fill(transformer["InputTemplate"], values)
    return _compact(event)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    # A placeholder within quotes stands for text, one outside of them for JSON.
    def value(match: re.Match[str]) -> str:
        value = values.get(match.group(1), "")
        quoted = template[: match.start()].count('"') % 2 == 1
        if not quoted:
            return _compact(value)
        return _compact(value)[1:-1] if isinstance(value, str) else _compact(value).replace('"', '\\"')

    return re.sub(r"<([^<>]+)>", value, template)


def _at(event: Any, path: str) -> Any:
    value = event
    for name in path.removeprefix("$").split("."):
        if name:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
