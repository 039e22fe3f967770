"""What the parts of a recording were answered with, kept until the whole is: no part is paid for twice.

They are items of the control table, by a digest of the object's version, a plan and the number of the part. The plan is
a digest of everything the parts and their answers depend on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from captions import control_table

KEPT_SECONDS = 4 * 86_400.0
"""Longer than any job is put back (MaxJobAgeSeconds is three days at the most)."""


class Progress(Protocol):
    """Where answered parts are kept; the methods block."""

    def read(self, recording: str, plan: str) -> dict[int, dict[str, Any]]:
        """Return what was kept of a recording under this plan, by the number of the part."""

    def write(self, recording: str, plan: str, index: int, part: Mapping[str, Any]) -> None:
        """Keep one part's JSON-plain values."""

    def forget(self, recording: str) -> None:
        """Drop everything that was kept of a recording."""


class Forgetful:
    """Progress that keeps nothing."""

    def read(self, recording: str, plan: str) -> dict[int, dict[str, Any]]:
        """Return nothing."""
        return {}

    def write(self, recording: str, plan: str, index: int, part: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def forget(self, recording: str) -> None:
        """Have nothing to drop."""


class ProgressTable:
    """Progress on the control table; `dynamodb` is a boto3 DynamoDB client, safe to share between threads."""

    def __init__(self, dynamodb: Any, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def read(self, recording: str, plan: str) -> dict[int, dict[str, Any]]:
        """Return what was kept of a recording under this plan, by the number of the part (strongly consistent)."""
        parts: dict[int, dict[str, Any]] = {}
        for item in self._items(recording, f"{plan}#"):
            parts[int(item["sk"]["S"].rpartition("#")[2])] = json.loads(item["part"]["S"])
        return parts

    def write(self, recording: str, plan: str, index: int, part: Mapping[str, Any]) -> None:
        """Keep one part; written again it is the same, or what a later delivery paid for."""
        self._dynamodb.update_item(
            TableName=self._table,
            Key=control_table.part(recording, f"{plan}#{index:05d}"),
            UpdateExpression="SET part = :part, expires_at = :expires",
            ExpressionAttributeValues={
                ":part": {"S": json.dumps(part, ensure_ascii=False)},
                ":expires": {"N": str(int(time.time() + KEPT_SECONDS))},
            },
        )

    def forget(self, recording: str) -> None:
        """Drop everything that was kept of a recording: its words do not stay once they are in the record."""
        for item in self._items(recording, ""):
            self._dynamodb.delete_item(TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]})

    def _items(self, recording: str, begins: str) -> list[dict[str, Any]]:
        condition, names = "pk = :pk", {":pk": control_table.part(recording)["pk"]}
        if begins:
            condition, names[":begins"] = f"{condition} AND begins_with(sk, :begins)", {"S": begins}
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=names,
            ConsistentRead=True,
        )
        return [item for page in pages for item in page["Items"]]
