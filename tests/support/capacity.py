"""Counts what DynamoDB would bill, from the calls really made and the items really touched.

moto's own figures are constants, so the documented rules are applied here. Sources: Amazon DynamoDB developer guide,
"DynamoDB item sizes and formats" and "DynamoDB read and write operations"; a kilobyte is 1,024 bytes there.

* An item's size is that of its attribute names and values; a list or map adds 3 bytes, each element in it 1 byte.
* A write costs one unit for each kilobyte of the larger of the item before and after it; a failed condition costs too.
* A strongly consistent read costs one unit for each 4 KB, an eventually consistent one half of that; a batch rounds up
  each of its items, a query the sum of what it went through before its filter. Reading nothing costs as much as 4 KB.
"""

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

KIB = 1_024
KEYS = ("pk", "sk", "asset")
"""What the keys of the stack's tables are called."""
WRITE_PRICE, READ_PRICE = 0.625, 0.125
"""Dollars for a million request units on demand, in us-east-1 since November 2024 (Amazon DynamoDB pricing)."""


def item_size(item: Mapping[str, Any]) -> int:
    """Bytes an item counts for."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, held),) = value.items()
    match kind:
        case "S":
            return len(held.encode())
        case "B":
            return len(held)
        case "N":
            return math.ceil(len(held.lstrip("-").replace(".", "").strip("0")) / 2) + 1
        case "M":
            return 3 + len(held) + item_size(held)
        case "L":
            return 3 + len(held) + sum(map(_value_size, held))
        case _:
            return 1


@dataclass
class Bill:
    """What some calls came to, in request units."""

    calls: Counter[str] = field(default_factory=Counter)
    read: float = 0.0
    written: int = 0

    @property
    def dollars_per_million(self) -> float:
        """What a million of these would cost."""
        return self.read * READ_PRICE + self.written * WRITE_PRICE


class Meter:
    """Watches a boto3 DynamoDB client that talks to moto, where looking again is free."""

    def __init__(self, client: Any) -> None:
        self._call = client._make_api_call
        self._bill = Bill()
        self._lock = threading.RLock()
        client._make_api_call = self._metered

    @contextmanager
    def measuring(self) -> Iterator[Bill]:
        """Collect the bill of the calls made inside."""
        self._bill = bill = Bill()
        yield bill
        self._bill = Bill()

    def _metered(self, operation: str, arguments: dict[str, Any]) -> Any:
        with self._lock:
            return self._billed(operation, arguments)

    def _billed(self, operation: str, arguments: dict[str, Any]) -> Any:
        bill = self._bill
        bill.calls[operation] += 1
        match operation:
            case "Query":
                bill.read += self._queried(arguments)
                return self._call(operation, arguments)
            case "BatchGetItem":
                for table, asked in arguments["RequestItems"].items():
                    for key in asked["Keys"]:
                        bill.read += _read_units(self._size(table, key), asked.get("ConsistentRead", False))
                return self._call(operation, arguments)
            case "GetItem":
                size = self._size(arguments["TableName"], arguments["Key"])
                bill.read += _read_units(size, arguments.get("ConsistentRead", False))
                return self._call(operation, arguments)
            case "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem":
                keys = list(written(operation, arguments))
                before = [self._size(table, key) for table, key in keys]
                try:
                    return self._call(operation, arguments)
                finally:
                    after = [self._size(table, key) for table, key in keys]
                    bill.written += sum(
                        max(1, math.ceil(max(sizes) / KIB)) for sizes in zip(before, after, strict=True)
                    )
            case _:
                return self._call(operation, arguments)

    def _size(self, table: str, key: Mapping[str, Any]) -> int:
        return item_size(self._call("GetItem", {"TableName": table, "Key": key}).get("Item", {}))

    def _queried(self, arguments: dict[str, Any]) -> float:
        used = ("TableName", "IndexName", "KeyConditionExpression", "ExclusiveStartKey", "Limit")
        values = arguments["ExpressionAttributeValues"]
        unfiltered = {name: arguments[name] for name in used if name in arguments}
        unfiltered["ExpressionAttributeValues"] = {
            name: value for name, value in values.items() if name in arguments["KeyConditionExpression"]
        }
        items = self._call("Query", unfiltered)["Items"]
        return _read_units(sum(map(item_size, items)), arguments.get("ConsistentRead", False))


def written(operation: str, arguments: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the table and the key of each item that a call writes to."""
    if operation == "BatchWriteItem":
        for table, requests in arguments["RequestItems"].items():
            for request in requests:
                yield (
                    table,
                    _key(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"]),
                )
    else:
        yield arguments["TableName"], _key(arguments.get("Item") or arguments["Key"])


def _key(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in KEYS if name in item}


def _read_units(size: int, consistent: bool) -> float:
    return max(1, math.ceil(size / (4 * KIB))) * (1.0 if consistent else 0.5)
