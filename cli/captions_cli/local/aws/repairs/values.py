"""What makes moto's handling of DynamoDB's values fast without changing what it answers.

Each attribute that is set measures the whole item, for which it makes every map in it again and encodes every text;
each level of a value that is shown copies all levels below it.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

from captions_cli.local.aws.repairs.replacements import Replace

_MOST_BYTES = 405_000
"""Of an item (LimitedSizeDict)."""


def make_fast(replace: Replace) -> None:
    """Put the faster functions in place."""
    from moto.dynamodb.models.dynamo_type import DynamoType, LimitedSizeDict

    replace(LimitedSizeDict, "__setitem__", _setting(DynamoType))
    replace(DynamoType, "__deepcopy__", _copied)
    replace(DynamoType, "size", _size)
    replace(DynamoType, "to_regular_json", _shown)


def _copied(self: Any, memo: dict[int, Any]) -> Any:
    """A value with all that is in it."""
    copied = object.__new__(type(self))
    copied.type, value = self.type, self.value
    match self.type:
        case "L":
            copied.value = [_copied(item, memo) for item in value]
        case "M":
            copied.value = {name: _copied(item, memo) for name, item in value.items()}
        case "SS" | "NS" | "BS":
            copied.value = list(value)
        case _:
            copied.value = value
    return copied


def _setting(value_type: type[Any]) -> Any:
    """Moto's setting of an item's attribute, by which the item must not grow beyond what moto allows."""
    from moto.dynamodb.exceptions import ItemSizeTooLarge

    def set_item(self: Any, name: str, value: Any) -> None:
        size = _bytes(name) + (_size(value) if type(value) is value_type else _bytes(str(value)))
        for known, item in self.items():
            size += _bytes(str(known)) + (_size(item) if type(item) is value_type else _bytes(str(item)))
        if size > _MOST_BYTES:
            raise ItemSizeTooLarge
        dict.__setitem__(self, name, value)

    return set_item


def _bytes(value: Any) -> int:
    return len(value if isinstance(value, bytes) or value.isascii() else value.encode())


def _size(self: Any) -> int:
    """Of a value, in bytes, as moto counts it."""
    value = self.value
    match self.type:
        case "N":
            return len(str(value))
        case "NS":
            return sum(len(str(number)) for number in value)
        case "SS" | "BS":
            return sum(map(_bytes, value))
        case "L":
            return sum(map(_size, value))
        case "M":
            return sum(_bytes(name) + _size(item) for name, item in value.items())
        case _:
            return 1 if isinstance(value, bool) else _bytes(value)


def _shown(self: Any) -> dict[str, Any]:
    """A value as JSON."""
    value = self.value
    if isinstance(value, dict):
        value = {name: _plain(item) for name, item in value.items()}
    elif isinstance(value, list):
        value = list(map(_plain, value))
    elif self.type == "B" and isinstance(value, str):
        value = base64.b64decode(value)
    return {self.type: value}


def _plain(item: Any) -> Any:
    return _shown(item) if hasattr(item, "type") else copy.deepcopy(item)
