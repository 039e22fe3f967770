"""Circuits and spending that every sandbox shares, in the control table (captions.control_table)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from captions import control_table
from captions.gateway.breakers import SharedCircuit
from captions.gateway.budgets import Reservation

_KEPT_AFTER_OPEN_S = 3_600


class ControlTable:
    """Both stores of the gateway on one table. `client` is a boto3 DynamoDB client, which is safe to use in threads."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def read(self) -> Iterable[SharedCircuit]:
        """Return every circuit that is not closed (strongly consistent: a probe's result must be seen)."""
        circuits: list[SharedCircuit] = []
        start: dict[str, Any] = {}
        while True:
            page = self._client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": control_table.breaker()["pk"]},
                ConsistentRead=True,
                **start,
            )
            circuits.extend(
                SharedCircuit(
                    circuit=item["sk"]["S"],
                    open_until=float(item["open_until"]["N"]),
                    level=int(item["level"]["N"]),
                    reason=item["reason"]["S"],
                )
                for item in page["Items"]
            )
            if "LastEvaluatedKey" not in page:
                return circuits
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def open(self, circuit: SharedCircuit, now: float) -> None:
        """Write down that a circuit opened, unless it is already open for longer."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key=control_table.breaker(circuit.circuit),
                UpdateExpression=(
                    "SET open_until = :until, #level = :level, reason = :reason, expires_at = :expires"
                    " REMOVE probe_owner, probe_until"
                ),
                # An open circuit is written again only for a longer time; sandboxes that trip together write once.
                ConditionExpression="attribute_not_exists(sk) OR open_until <= :now OR open_until < :much",
                ExpressionAttributeNames={"#level": "level"},
                ExpressionAttributeValues={
                    ":until": _number(circuit.open_until),
                    ":level": {"N": str(circuit.level)},
                    ":reason": {"S": circuit.reason},
                    ":expires": {"N": str(int(circuit.open_until) + _KEPT_AFTER_OPEN_S)},
                    ":now": _number(now),
                    ":much": _number(circuit.open_until - 5.0),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def suspect(self, circuit: str, owner: str, now: float, window_s: float) -> int:
        """Write down that a sandbox suspects a circuit, and return how many did within the window."""
        key = control_table.suspects(circuit)
        try:
            written = self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression="ADD owners :owner",
                ConditionExpression="since > :start",
                ExpressionAttributeValues={":owner": {"SS": [owner]}, ":start": _number(now - window_s)},
                ReturnValues="ALL_NEW",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            written = self._client.update_item(
                TableName=self._table,
                Key=key,
                UpdateExpression="SET owners = :owner, since = :now, expires_at = :expires",
                ExpressionAttributeValues={
                    ":owner": {"SS": [owner]},
                    ":now": _number(now),
                    ":expires": {"N": str(int(now + window_s) + _KEPT_AFTER_OPEN_S)},
                },
                ReturnValues="ALL_NEW",
            )
        return len(written["Attributes"]["owners"]["SS"])

    def lease(self, circuit: str, owner: str, now: float, lease_s: float) -> bool:
        """Take the one probe of a half-open circuit; False if somebody else holds it or the circuit is open."""
        try:
            self._client.update_item(
                TableName=self._table,
                Key=control_table.breaker(circuit),
                UpdateExpression="SET probe_owner = :owner, probe_until = :until",
                ConditionExpression=(
                    "attribute_exists(sk) AND open_until <= :now"
                    " AND (attribute_not_exists(probe_until) OR probe_until <= :now OR probe_owner = :owner)"
                ),
                ExpressionAttributeValues={
                    ":owner": {"S": owner},
                    ":until": _number(now + lease_s),
                    ":now": _number(now),
                },
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def close(self, circuit: str, owner: str) -> None:
        """Forget the circuit, if `owner` still holds its probe."""
        try:
            self._client.delete_item(
                TableName=self._table,
                Key=control_table.breaker(circuit),
                ConditionExpression="probe_owner = :owner",
                ExpressionAttributeValues={":owner": {"S": owner}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return

    def reserve(self, reservation: Reservation, limits: Mapping[str, Decimal]) -> str | None:
        """Add the dollars to each scope's sum of that day, all or none; return a scope whose limit forbids it."""
        for scope in reservation.scopes:
            if reservation.dollars > limits[scope]:
                return scope
        taken: list[str] = []
        for scope in reservation.scopes:
            if not self._add_within(scope, reservation, limits[scope]):
                # Undone one by one: a transaction over a sum that every call changes would be cancelled by conflicts.
                for earlier in taken:
                    self._replace(earlier, reservation, Decimal(0))
                return scope
            taken.append(scope)
        return None

    def _add_within(self, scope: str, reservation: Reservation, limit: Decimal) -> bool:
        return control_table.set_aside(
            self._client, self._table, scope, reservation.day, reservation.id, reservation.dollars, limit
        )

    def settle(self, reservation: Reservation, spent: Decimal) -> None:
        """Replace the dollars set aside by those really spent."""
        for scope in reservation.scopes:
            self._replace(scope, reservation, spent)

    def _replace(self, scope: str, reservation: Reservation, spent: Decimal) -> None:
        difference = spent - reservation.dollars
        control_table.settle(self._client, self._table, scope, reservation.day, reservation.id, difference)


def _number(seconds: float) -> dict[str, str]:
    return {"N": f"{seconds:.3f}"}
