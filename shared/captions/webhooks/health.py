"""What is known of each endpoint, on the control table, so that one that hangs or fails is left alone by every sandbox.

One item for each; one that answers has none. `failures` in a row, `failing_since`; `open_until`: nothing is sent
before; `opens`: how often that was set; `paused_at`: nothing is sent at all, until a person resumes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captions.control_table import webhook

OPENS_AFTER = 3
"""Failures in a row: what fails once or twice is a bad moment, or one event that the receiver cannot take."""
FIRST_OPEN_SECONDS = 5.0
LONGEST_OPEN_SECONDS = 300.0
"""So soon after an endpoint works again it is tried, however long it failed."""
PROBE_SECONDS = 20.0
"""For how long whoever tries an open endpoint has it for himself; longer than an attempt may take."""
PAUSED_AFTER_SECONDS = 3 * 86_400.0
"""So long without one success: everything that was sent when it began to fail has been given up by then."""


@dataclass(frozen=True)
class Health:
    """What is known of one endpoint. Times are epoch seconds; 0: not so."""

    failures: int = 0
    failing_since: float = 0.0
    open_until: float = 0.0
    paused_at: float = 0.0
    last_error: str = ""
    opens: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it failed so often that one attempt at a time is enough."""
        return self.failures >= OPENS_AFTER


HEALTHY = Health()


class HealthTable:
    """Reads and writes the endpoints' health; `client` is a boto3 DynamoDB client, which is safe to use in threads."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def read(self) -> dict[str, Health]:
        """Return every endpoint that is not healthy, by name (strongly consistent)."""
        answer = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": webhook()["pk"]},
            ConsistentRead=True,
        )
        return {item["sk"]["S"]: _health(item) for item in answer["Items"]}

    def probe(self, name: str, seen: Health, now: float) -> bool:
        """Take the one attempt at an endpoint that is open; False if another sandbox has it."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key=webhook(name),
                UpdateExpression="SET open_until = :until",
                ConditionExpression="open_until = :seen AND attribute_not_exists(paused_at)",
                ExpressionAttributeValues={":until": _number(now + PROBE_SECONDS), ":seen": _number(seen.open_until)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def succeeded(self, name: str) -> None:
        """Forget that it failed. A pause stays: only a person ends it."""
        try:
            self._client.delete_item(
                TableName=self._table, Key=webhook(name), ConditionExpression="attribute_not_exists(paused_at)"
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def failed(
        self, name: str, why: str, now: float, *, probing: bool = False, gone: bool = False
    ) -> tuple[Health, bool]:
        """Count a failure; return what is known now, and whether it paused the endpoint.

        `probing`: by the one attempt at an open endpoint; `gone`: it says itself that it wants no more (HTTP 410).
        """
        try:
            item = self._client.update_item(
                TableName=self._table,
                Key=webhook(name),
                UpdateExpression=(
                    "SET failing_since = if_not_exists(failing_since, :now), last_error = :why, last_write = :id,"
                    " open_until = if_not_exists(open_until, :zero) ADD failures :one"
                ),
                # botocore repeats a write whose reply was lost, and the repetition must not count.
                ConditionExpression="attribute_not_exists(last_write) OR last_write <> :id",
                ExpressionAttributeValues={
                    ":now": _number(now),
                    ":why": {"S": why[:500]},
                    ":zero": _number(0.0),
                    ":one": {"N": "1"},
                    ":id": {"S": uuid.uuid4().hex},
                },
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )["Attributes"]
        except self._client.exceptions.ConditionalCheckFailedException as done:
            item = done.response["Item"]
        health = _health(item)
        if gone or now - health.failing_since >= PAUSED_AFTER_SECONDS:
            return health, self.pause(name, now)
        if health.is_open:
            self._leave_alone(name, health, now, probing=probing)
        return health, False

    def _leave_alone(self, name: str, health: Health, now: float, *, probing: bool) -> None:
        """Open it for longer each time; attempts that were under way together count as one time."""
        until = now + min(FIRST_OPEN_SECONDS * 2 ** min(health.opens, 16), LONGEST_OPEN_SECONDS)
        try:
            self._client.update_item(
                TableName=self._table,
                Key=webhook(name),
                UpdateExpression="SET open_until = :until ADD opens :one",
                # Where another sandbox had success meanwhile there is no item any more, and none must come of this.
                ConditionExpression="attribute_exists(failures) AND open_until "
                + ("<> :until" if probing else "<= :now"),
                ExpressionAttributeValues={":until": _number(until), ":one": {"N": "1"}}
                | ({} if probing else {":now": _number(now)}),
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def pause(self, name: str, now: float) -> bool:
        """Send nothing any more; False if that is so already."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key=webhook(name),
                UpdateExpression="SET paused_at = :now",
                ConditionExpression="attribute_not_exists(paused_at)",
                ExpressionAttributeValues={":now": _number(now)},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def resume(self, name: str) -> Health | None:
        """Send again, as if it had never failed; return what was known, None if nothing was."""
        answer = self._client.delete_item(TableName=self._table, Key=webhook(name), ReturnValues="ALL_OLD")
        return _health(answer["Attributes"]) if answer.get("Attributes") else None


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}


def _health(item: Mapping[str, Any]) -> Health:
    def number(name: str) -> float:
        return float(item[name]["N"]) if name in item else 0.0

    return Health(
        failures=int(number("failures")),
        failing_since=number("failing_since"),
        open_until=number("open_until"),
        paused_at=number("paused_at"),
        last_error=item["last_error"]["S"] if "last_error" in item else "",
        opens=int(number("opens")),
    )
