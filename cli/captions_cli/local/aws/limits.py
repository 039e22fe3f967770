"""Limits of the AWS services that moto does not have: what AWS refuses is refused here too.

DynamoDB ("Quotas in Amazon DynamoDB", "Designing partition keys to distribute your workload"):
* one partition takes 1,000 write units a second; here each partition key stands for a partition: the worst case;
* the items of a TransactWriteItems have 4 MB in all, numbers 38 digits, nesting 32 levels, an expression 4 KB.
SQS (API reference, SendMessage): a message holds only characters that XML 1.0 allows.
EventBridge ("Calculating PutEvents event entry size"): an entry has at most 256 KB.
S3 ("Creating object key names", "Working with object metadata"): a key has 1,024 bytes, an object's own metadata 2 KB.

moto has the other limits of these pages that matter here: items of 400 KB, keys of 2,048 bytes, messages of
1 MiB, delays of 15 minutes, ten entries of PutEvents, DeleteTable under protection.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from captions_cli.local.aws.server import AwsCall, Forward

PARTITION_WRITES = 1_000
_TRANSACTION_BYTES = 4 << 20
_EXPRESSION_BYTES = 4_096
_DIGITS = 38
_LEVELS = 32
_ENTRY_BYTES = 256 << 10
_KEY_BYTES = 1_024
_METADATA_BYTES = 2_048
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EXPRESSIONS = ("UpdateExpression", "ConditionExpression", "FilterExpression", "KeyConditionExpression")

Attributes = Mapping[str, Mapping[str, Any]]


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class _Write:
    """One item that a call writes: its table, its attributes or key, and the bytes that the call says about it."""

    table: str
    item: Attributes
    size: int


class ServiceLimits:
    """An interceptor of the local stack that refuses what the services refuse.

    `partition_writes` is how many write units a second one partition key takes; `partition_key` returns the name of a
    table's partition key, by region and table, None for an unknown table.
    """

    def __init__(
        self,
        partition_key: Callable[[str, str], str | None],
        partition_writes: float = PARTITION_WRITES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partition_writes = partition_writes
        self._partition_key = partition_key
        self._clock = clock
        self._guard = threading.Lock()
        self._second = 0
        self._written: dict[tuple[str, str, str], float] = {}

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        """Answer a call that is over a limit with the service's error; pass on the others."""
        try:
            match call.service:
                case "dynamodb":
                    self._dynamodb(call)
                case "sqs":
                    _sqs(call)
                case "events" if call.action == "PutEvents":
                    _events(call)
                case "s3" if call.environ.get("REQUEST_METHOD") in ("PUT", "POST"):
                    _s3(call)
        except _RefusedError as error:
            return refusal(call, error.code, 400, str(error))
        return forward(call)

    def _dynamodb(self, call: AwsCall) -> None:
        document = _document(call)
        for part in _parts(document):
            for name in _EXPRESSIONS:
                if len(str(part.get(name, "")).encode()) > _EXPRESSION_BYTES:
                    message = f"Invalid {name}: Expression size has exceeded the maximum allowed size"
                    raise _RefusedError("ValidationException", message)
        writes = list(_writes(call.action, document))
        for write in writes:
            for value in write.item.values():
                _check_value(value, 1)
        if call.action == "TransactWriteItems" and sum(write.size for write in writes) > _TRANSACTION_BYTES:
            raise _RefusedError("ValidationException", "Collection size cannot exceed 4194304 bytes")
        twice = 2 if call.action == "TransactWriteItems" else 1
        for write in writes:
            self._count(call.region, write, twice)

    def _count(self, region: str, write: _Write, times: int) -> None:
        name = self._partition_key(region, write.table)
        if name is None or name not in write.item:
            return
        partition = (region, write.table, json.dumps(write.item[name], sort_keys=True))
        units = times * max(1, math.ceil(write.size / 1_024))
        with self._guard:
            second = int(self._clock())
            if second != self._second:
                self._second, self._written = second, {}
            before = self._written.get(partition, 0.0)
            # A write larger than a second's units passes where nothing else was written: DynamoDB allows bursts.
            if before and before + units > self.partition_writes:
                raise _RefusedError("ThrottlingException", "Throughput exceeds the partition's write limit.")
            self._written[partition] = before + units


def _document(call: AwsCall) -> dict[str, Any]:
    try:
        document = json.loads(call.body or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _parts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what may hold expressions: the call itself, and each action of a transaction."""
    yield document
    for action in document.get("TransactItems", ()):
        yield from action.values()


def _writes(action: str, document: Mapping[str, Any]) -> Iterator[_Write]:
    match action:
        case "PutItem" | "DeleteItem" | "UpdateItem":
            yield _write(document)
        case "TransactWriteItems":
            for request in document.get("TransactItems", ()):
                yield from map(_write, request.values())
        case "BatchWriteItem":
            for table, requests in document.get("RequestItems", {}).items():
                for request in requests:
                    yield from (_write({"TableName": table, **write}) for write in request.values())


def _write(request: Mapping[str, Any]) -> _Write:
    item = request.get("Item") or request.get("Key") or {}
    values = request.get("ExpressionAttributeValues") or {}
    return _Write(str(request.get("TableName", "")), {**item, **values}, _size(item) + _size(values))


def _size(item: Attributes) -> int:
    """Return about how many bytes an item has: its names and values, without the JSON around them."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "M":
            return 3 + _size(content)
        case "L":
            return 3 + sum(map(_value_size, content))
        case "SS" | "NS" | "BS":
            return sum(len(str(each).encode()) for each in content)
        case "B":
            return len(content) * 3 // 4
        case "N":
            return len(content) // 2 + 1
        case "S":
            return len(content.encode("utf-8", "surrogatepass"))
    return 1


def _check_value(value: Mapping[str, Any], level: int) -> None:
    if level > _LEVELS + 1:
        raise _RefusedError("ValidationException", "Nesting Levels have exceeded supported limits")
    ((kind, content),) = value.items()
    if kind == "N" and len(str(content).split("e")[0].split("E")[0].replace(".", "").strip("-+0")) > _DIGITS:
        raise _RefusedError("ValidationException", "Attempting to store more than 38 significant digits in a Number")
    if kind in ("M", "L"):
        for inner in content.values() if kind == "M" else content:
            _check_value(inner, level + 1)


def _sqs(call: AwsCall) -> None:
    if not call.action.startswith("SendMessage"):
        return
    document = _document(call)
    bodies = [document.get("MessageBody", ""), *(entry.get("MessageBody", "") for entry in document.get("Entries", ()))]
    if not document:
        bodies = [value for name, value in parse_qsl(call.body.decode()) if name.endswith("MessageBody")]
    if any(_NOT_IN_XML.search(body) for body in bodies):
        raise _RefusedError("InvalidMessageContents", "Invalid characters in message body")


def _events(call: AwsCall) -> None:
    for entry in _document(call).get("Entries", ()):
        texts = [entry.get(name) or "" for name in ("Source", "DetailType", "Detail")] + (entry.get("Resources") or [])
        if sum(len(text.encode()) for text in texts) + 14 * ("Time" in entry) > _ENTRY_BYTES:
            raise _RefusedError("ValidationException", "Total size of the entries in the request is over the limit.")


def _s3(call: AwsCall) -> None:
    key = unquote_to_bytes(call.path).lstrip(b"/").partition(b"/")[2]
    if len(key) > _KEY_BYTES:
        raise _RefusedError("KeyTooLongError", "Your key is too long")
    own = {name: value for name, value in call.environ.items() if name.startswith("HTTP_X_AMZ_META_")}
    if sum(len(name) - len("HTTP_X_AMZ_META_") + len(str(value)) for name, value in own.items()) > _METADATA_BYTES:
        raise _RefusedError("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")


def partition_key(region: str, table: str) -> str | None:
    """Return the name of the partition key of one of moto's tables."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.dynamodb.models import dynamodb_backends

    kept = dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables.get(table.rpartition("/")[2])
    return None if kept is None else str(kept.hash_key_attr)


def refusal(call: AwsCall, code: str, status: int, message: str) -> Response:
    """Return an error as the service's protocol writes it."""
    from werkzeug.wrappers import Response

    if call.environ.get("HTTP_X_AMZ_TARGET"):
        body = json.dumps({"__type": code, "message": message})
        return Response(body, status, {"x-amzn-ErrorType": code}, content_type="application/x-amz-json-1.0")
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    body = error if call.service == "s3" else f"<ErrorResponse>{error}</ErrorResponse>"
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>{body}', status, content_type="application/xml")
