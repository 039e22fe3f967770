"""The service level objective: how many uploads reach their end in time.

Each upload counts once, as soon as it is decided: in time when it ends in time, late when it ends late or, while it is
still on its way, when its time is seen to be over. So an outage shows while it lasts, not when its uploads are through.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from captions import telemetry


class Objective:
    """Counts uploads as in time or late; `dynamodb` is a boto3 DynamoDB client, `seconds` the time an upload may take.

    Given to `Records` as its `watch`.
    """

    def __init__(self, dynamodb: Any, table: str, seconds: float, now: Callable[[], float] = time.time) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._seconds = seconds
        self._now = now

    def __call__(self, item: Mapping[str, Any], *, ended: bool) -> None:
        """Take note of a record that was just changed; `item` as DynamoDB has it, `ended` if this change ended it."""
        received_at = item.get("received_at", {}).get("S")
        if received_at is None or item["state"]["S"] == "deleted" or item.get("late_since", {}).get("S") == received_at:
            return
        late = self._now() - datetime.fromisoformat(received_at).timestamp() > self._seconds
        if ended:
            telemetry.count("TerminalLate" if late else "TerminalInTime")
        elif late and self._first_to_see(item, received_at):
            telemetry.count("TerminalLate")

    def _first_to_see(self, item: Mapping[str, Any], received_at: str) -> bool:
        """Write down that this upload was counted, so that its end, or a second sweep, does not count it again."""
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key={"asset": item["asset"]},
                UpdateExpression="SET late_since = :received",
                ConditionExpression="received_at = :received AND #state IN (:state)"
                " AND (attribute_not_exists(late_since) OR late_since <> :received)",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":received": {"S": received_at}, ":state": item["state"]},
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        except self._dynamodb.exceptions.ClientError:
            # The change itself is stored; who looks next, or the end, counts the upload.
            telemetry.logger().exception("lateness_not_noted", asset=item["asset"]["S"])
            return False
        return True
