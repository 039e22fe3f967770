"""What makes moto fast without changing what it answers.

It lists the methods of a service's class again for each request. DynamoDB writes each attribute of an answer by trying
every spelling of every type's name on it. It reads expressions over and over (`expressions`), and measures and copies
values as often (`values`). A query sorts the whole table first, and so does each page of a scan, by comparing its
values one by one in Python. SQS asks for the time at every message of a queue, several times for each message that is
sent, and makes it of three datetimes. The 52 letters of each answer's id are drawn one by one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache, wraps
from string import ascii_letters, digits
from typing import Any

from captions.once import once
from captions_cli.local.aws.repairs import expressions, values
from captions_cli.local.aws.repairs.indexes import INDEXES
from captions_cli.local.aws.repairs.replacements import Repair, Replace, naming

_MOST_ACTIONS = 1_000


def _make_fast(replace: Replace) -> None:
    """Put the faster functions in place. As in a stack, one call at a time may be under way."""
    import moto.core.responses
    import moto.sqs.models
    from moto.core.serialize import JSONSerializer
    from moto.dynamodb.models.table import Table
    from moto.moto_api._internal.moto_random import MotoRandom

    replace(moto.core.responses, "method_names_from_class", _method_names())
    replace(moto.core.responses, "camelcase_to_underscores", _names_of_actions())
    replace(moto.sqs.models, "unix_time_millis", _now_ms)
    replace(MotoRandom, "get_random_string", _random_string)
    replace(JSONSerializer, "_serialize_type_structure", _writing_attributes(JSONSerializer._serialize_type_structure))
    expressions.make_fast(replace)
    replace(Table, "query", _querying(Table.query))
    replace(Table, "scan", _scanning(Table.scan))
    replace(Table, "all_items", _all_items)
    values.make_fast(replace)


@once
def _method_names() -> Any:
    """Moto's list of a class's methods, made once in a process, however often repairs are put in place."""
    from moto.core.responses import method_names_from_class

    return once(method_names_from_class)


@once
def _names_of_actions() -> Any:
    """Moto's names of actions in Python's style, of which each is made once."""
    from moto.core.utils import camelcase_to_underscores

    return lru_cache(maxsize=_MOST_ACTIONS)(camelcase_to_underscores)


def _now_ms() -> float:
    """Tell how late it is, in milliseconds since 1970."""
    return datetime.now(UTC).timestamp() * 1000


def _writing_attributes(original: Any) -> Any:
    """Moto's serialisation of JSON structures, with a short way for DynamoDB's attribute values."""

    def serialize_type_structure(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and key and _is_plain_attribute(value):
            self._default_serialize(serialized, value, shape, key)
        else:
            original(self, serialized, value, shape, key)

    return serialize_type_structure


def _is_plain_attribute(value: Any) -> bool:
    """Whether an attribute value is JSON as it stands: no binary, none of moto's own objects."""
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, content),) = value.items()
    match kind:
        case "S" | "N":
            return type(content) is str
        case "BOOL" | "NULL":
            return type(content) is bool
        case "SS" | "NS":
            return type(content) is list and all(type(item) is str for item in content)
        case "L":
            return type(content) is list and all(_is_plain_attribute(item) for item in content)
        case "M":
            return type(content) is dict and all(_is_plain_attribute(item) for item in content.values())
        case _:
            return False


def _querying(original: Any) -> Any:
    """Moto's query, which looks at one partition instead of sorting all items of the table to find it."""
    arguments_of = naming(original)

    @wraps(original)  # whose arguments the other repair of it reads
    def query(self: Any, hash_key: Any, *arguments: Any, **named: Any) -> Any:
        index_name = arguments_of(self, hash_key, *arguments, **named).get("index_name")
        if index_name is None:
            partition = self.items.get(hash_key, {})
            items = list(partition.values()) if self.range_key_attr else [partition] if partition else []
        elif (of_index := vars(self).get("index_items")) is not None:
            items = of_index
        else:
            items = _items(self)
        self.queried_items = items  # what all_items gives meanwhile; DynamoDB's lock is held
        try:
            return original(self, hash_key, *arguments, **named)
        finally:
            vars(self).pop("queried_items", None)

    return query


def _scanning(original: Any) -> Any:
    """Moto's scan, which of the items that it sorts leaves out those of other segments."""
    arguments_of = naming(original)

    @wraps(original)
    def scan(self: Any, *arguments: Any, **named: Any) -> Any:
        asked = arguments_of(self, *arguments, **named)
        if asked.get("index_name") is None:
            self.scanned_segment = asked.get("segments", (None, None))  # DynamoDB's lock is held
        try:
            return original(self, *arguments, **named)
        finally:
            vars(self).pop("scanned_segment", None)

    return scan


def _items(table: Any) -> list[Any]:
    entries = table.items.values()
    return [item for entry in entries for item in entry.values()] if table.range_key_attr else list(entries)


def _all_items(self: Any) -> list[Any]:
    """Moto's list of a table's items, ordered by their keys: all are of one type, whose plain values compare."""
    queried: list[Any] | None = vars(self).get("queried_items")
    if queried is not None:
        return queried
    items = _items(self)
    segment, total = vars(self).get("scanned_segment", (None, None))
    if total is not None:
        items = [item for item in items if _segment_byte(item.hash_key.value) % total == segment]
    if self.range_key_attr:
        return sorted(items, key=lambda item: (item.hash_key.cast_value, item.range_key.cast_value))
    return sorted(items, key=lambda item: item.hash_key.cast_value)


@lru_cache(maxsize=1_000_000)
def _segment_byte(key: str) -> int:
    """What moto tells an item's segment by (`Item.is_within_segment`)."""
    return hashlib.md5(key.encode(), usedforsecurity=False).digest()[0]


def _random_string(self: Any, length: int = 20, include_digits: bool = True, lower_case: bool = False) -> str:
    """Moto's random letters, drawn all at once: each answer has 52 of them for its id."""
    drawn = "".join(self.choices(ascii_letters + digits if include_digits else ascii_letters, k=length))
    return drawn.lower() if lower_case else drawn


SPEED = (Repair("speed", "It is slow, DynamoDB above all.", _make_fast), INDEXES)
