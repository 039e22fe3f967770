"""Secondary indexes of DynamoDB tables that are kept in order, and transactions that copy what they change alone.

Moto looks through all items of a table, and sorts those it finds, for each page of an index. With each write of a
transaction it copies the whole table, should the transaction fail. Both take seconds with 100,000 items.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any

from captions.once import once
from captions_cli.local.aws.repairs.replacements import Repair, Replace, naming

_Key = tuple[Any, Any]
"""An item's keys in its table, as moto's DynamoType; the second is None in a table without a sort key."""
_Rank = tuple[Any, ...]
"""What an index is sorted by: its own sort key and the table's keys, each with its type, as types do not compare."""

_BOUNDS = {"<", "LT", "<=", "LE", ">", "GT", ">=", "GE", "=", "EQ", "BETWEEN", "BEGINS_WITH"}
_LAST = chr(0x10FFFF)
"""The last character there is: what begins with a text stands before it with this behind."""


class _Partitions:
    """One index: for each partition key its entries in order."""

    def __init__(self, table: Any, hash_name: str, range_name: str | None) -> None:
        self._table = table
        self._names = (hash_name, range_name)
        self._entries: dict[Any, list[tuple[_Rank, _Key]]] = {}
        self._places: dict[_Key, tuple[Any, _Rank]] = {}
        self.stale: set[_Key] = set()
        for item in _all_items(table):
            self._put(item)
        for entries in self._entries.values():
            entries.sort(key=_rank)

    def of(self, partition: Any) -> list[tuple[_Rank, _Key]]:
        """Return a partition's entries, once what was written since is in its place."""
        while self.stale:
            key = self.stale.pop()
            if (place := self._places.pop(key, None)) is not None:
                entries = self._entries[place[0]]
                del entries[bisect_left(entries, place[1], key=_rank)]
            if (item := self._table.get_item(*key)) is not None:
                self._put(item, sort=True)
        return self._entries.get(partition, [])

    def _put(self, item: Any, *, sort: bool = False) -> None:
        hash_name, range_name = self._names
        partition, ranked = item.attrs.get(hash_name), item.attrs.get(range_name) if range_name else None
        if partition is None or (range_name and ranked is None):
            return
        key = (item.hash_key, item.range_key)
        rank = tuple(_typed(part) for part in (ranked, *key) if part is not None)
        entries = self._entries.setdefault(partition, [])
        if sort:
            insort(entries, (rank, key), key=_rank)
        else:
            entries.append((rank, key))
        self._places[key] = (partition, rank)


class _Indexes:
    """The indexes of one table that were asked for. A copy of a table makes its own."""

    def __init__(self) -> None:
        self.built: dict[str, _Partitions] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Indexes:
        return _Indexes()

    def changed(self, key: _Key) -> None:
        for partitions in self.built.values():
            partitions.stale.add(key)


def _rank(entry: tuple[_Rank, _Key]) -> _Rank:
    return entry[0]


def _typed(value: Any) -> tuple[str, Any]:
    return value.type, value.cast_value


def _all_items(table: Any) -> Iterator[Any]:
    for entry in table.items.values():
        yield from entry.values() if table.range_key_attr else (entry,)


def _indexes(table: Any) -> _Indexes:
    kept: _Indexes = vars(table).setdefault("kept_indexes", _Indexes())
    return kept


def _put(replace: Replace) -> None:
    """Put the functions in place. As in a stack, one call at a time may be under way."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table

    replace(Table, "put_item", _putting(Table.put_item))
    replace(Table, "delete_item", _deleting(Table.delete_item))
    replace(DynamoDBBackend, "update_item", _updating(DynamoDBBackend.update_item))
    replace(DynamoDBBackend, "transact_write_items", _transacting(DynamoDBBackend.transact_write_items))
    replace(Table, "__deepcopy__", _copied)
    replace(Table, "query", _querying(Table.query))


def _putting(original: Any) -> Any:
    def put_item(self: Any, *arguments: Any, **named: Any) -> Any:
        item = original(self, *arguments, **named)
        _indexes(self).changed((item.hash_key, item.range_key))
        return item

    return put_item


def _deleting(original: Any) -> Any:
    def delete_item(self: Any, hash_key: Any, range_key: Any) -> Any:
        _indexes(self).changed((hash_key, range_key))
        return original(self, hash_key, range_key)

    return delete_item


def _updating(original: Any) -> Any:
    def update_item(self: Any, table_name: str, key: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        try:
            return original(self, table_name, key, *arguments, **named)
        finally:  # moto has changed some attributes when it finds that another one makes the item too large
            table = self.get_table(table_name)
            _indexes(table).changed(self.get_keys_value(table, key))

    return update_item


def _transacting(original: Any) -> Any:
    """Moto's transactions, which copy the items that they name and not the tables."""

    def transact_write_items(self: Any, transact_items: list[dict[str, Any]]) -> None:
        before: list[tuple[Any, _Key, Any]] = []
        streams: dict[int, tuple[Any, int]] = {}
        tables: dict[int, Any] = {}
        for operation in (operation for item in transact_items for operation in item.values()):
            table = self.tables.get(operation.get("TableName"))
            given = operation.get("Item") or operation.get("Key") or {}
            if table is None or table.hash_key_attr not in given or table.range_key_attr not in {None, *given}:
                continue  # moto says what is wrong with it
            tables[id(table)] = table
            key = self.get_keys_value(table, given)
            before.append((table, key, copy.deepcopy(table.get_item(*key))))
            if table.stream_shard is not None:
                streams.setdefault(id(table), (table.stream_shard, len(table.stream_shard.items)))
        for table in tables.values():
            table.copies_itself = True
        try:
            original(self, transact_items)
        except BaseException:
            for table, key, item in reversed(before):
                _restore(table, key, item)
            for shard, length in streams.values():
                del shard.items[length:]
            raise
        finally:
            for table in tables.values():
                del table.copies_itself

    return transact_write_items


def _restore(table: Any, key: _Key, item: Any) -> None:
    hash_key, range_key = key
    if item is None:
        table.delete_item(hash_key, range_key)
    elif range_key is not None:
        table.items[hash_key][range_key] = item
    else:
        table.items[hash_key] = item
    _indexes(table).changed(key)


def _copied(self: Any, memo: dict[int, Any]) -> Any:
    """A copy of a table; itself while a transaction is at it that puts back what it changes."""
    if "copies_itself" in vars(self):
        return self
    duplicate = object.__new__(type(self))
    memo[id(self)] = duplicate
    duplicate.__dict__.update(copy.deepcopy(vars(self), memo))
    return duplicate


def _querying(original: Any) -> Any:
    """Moto's query, which is given those items of an index that a page can be of, instead of all of the table."""
    arguments_of = naming(original)

    def query(self: Any, *arguments: Any, **named: Any) -> Any:
        asked = arguments_of(self, *arguments, **named)
        items = _page(self, asked) if asked.get("index_name") else None
        if items is not None:
            self.index_items = items  # DynamoDB's lock is held
        try:
            return original(self, *arguments, **named)
        finally:
            vars(self).pop("index_items", None)

    return query


def _page(table: Any, asked: dict[str, Any]) -> list[Any] | None:
    """Return the items that a page of an index can be of, and one more; None where moto has to look at all."""
    from moto.dynamodb.models import DynamoType

    index = next((each for each in table.all_indexes() if each.name == asked["index_name"]), None)
    if index is None:
        return None
    hashes = [key["AttributeName"] for key in index.schema if key["KeyType"] == "HASH"]
    ranges = [key["AttributeName"] for key in index.schema if key["KeyType"] == "RANGE"]
    conditions = asked.get("hash_key_conditions") or []
    if len(hashes) != 1 or len(ranges) > 1 or [name for name, _ in conditions] != hashes:
        return None
    built = _indexes(table).built
    if index.name not in built:
        built[index.name] = _Partitions(table, hashes[0], ranges[0] if ranges else None)
    entries = built[index.name].of(conditions[0][1])
    first, end, whole = _range(entries, asked)
    backwards = asked["scan_index_forward"] is False
    if start := asked.get("exclusive_start_key"):
        names = [name for name in (*ranges, table.hash_key_attr, table.range_key_attr) if name is not None]
        if not start.keys() >= set(names):
            return None
        rank = tuple(_typed(DynamoType(start[name])) for name in names)
        first, end = _after(entries, first, end, rank, backwards=backwards)
    # Moto says that there is more where another entry follows, of whatever sort key.
    first, end = (max(0, first - 1), end) if backwards else (first, min(len(entries), end + 1))
    if whole and isinstance(limit := asked.get("limit"), int):
        within = slice(first, min(end, first + limit + 1))
        if backwards:
            within = slice(max(first, end - limit - 1), end)
    else:
        within = slice(first, end)
    items = [table.get_item(*key) for _, key in entries[within]]
    if index.projection.get("ProjectionType") != "KEYS_ONLY":
        return items
    kept = [name for name in (*hashes, *ranges, table.hash_key_attr, table.range_key_attr) if name is not None]
    entry = _entries()
    return [entry(item, kept) for item in items]


@once
def _entries() -> Any:
    """The class of items as an index of keys holds them: made for one answer, and not copied again for it."""
    from moto.dynamodb.models.dynamo_type import Item, LimitedSizeDict

    class Entry(Item):  # type: ignore[misc,unused-ignore] # moto's classes are untyped to some versions of mypy
        def __init__(self, item: Any, names: list[str]) -> None:
            self.hash_key, self.range_key = item.hash_key, item.range_key
            self.attrs = LimitedSizeDict({name: item.attrs[name] for name in names})

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            return self

        def project(self, paths: list[list[str]]) -> Any:
            return (
                self if {path[0] for path in paths if len(path) == 1} >= self.attrs.keys() else super().project(paths)
            )

    return Entry


def _range(entries: list[tuple[_Rank, _Key]], asked: dict[str, Any]) -> tuple[int, int, bool]:
    """Return the bounds of the entries that the key condition may fit, and whether it fits all of them."""
    comparison, filters = asked.get("range_comparison"), asked.get("filter_kwargs")
    if not comparison:
        return 0, len(entries), not filters
    if comparison not in _BOUNDS:
        return 0, len(entries), False
    values = [(_typed(value),) for value in asked["range_objs"]]
    if comparison == "BEGINS_WITH":
        kind, text = values[0][0]
        if not isinstance(text, str):
            return 0, len(entries), False
        values.append(((kind, text + _LAST),))
    first, end = 0, len(entries)
    if comparison in (">=", "GE", "=", "EQ", "BETWEEN", "BEGINS_WITH"):
        first = bisect_left(entries, values[0], key=_sort_key)
    elif comparison in (">", "GT"):
        first = bisect_right(entries, values[0], key=_sort_key)
    if comparison in ("<=", "LE", "=", "EQ", "BETWEEN", "BEGINS_WITH"):
        end = bisect_right(entries, values[-1], key=_sort_key)
    elif comparison in ("<", "LT"):
        end = bisect_left(entries, values[0], key=_sort_key)
    return first, max(first, end), not filters


def _sort_key(entry: tuple[_Rank, _Key]) -> _Rank:
    return entry[0][:1]


def _after(
    entries: list[tuple[_Rank, _Key]], first: int, end: int, start: _Rank, *, backwards: bool
) -> tuple[int, int]:
    if backwards:
        return first, max(first, min(end, bisect_left(entries, start, key=_rank)))
    return min(end, max(first, bisect_right(entries, start, key=_rank))), end


INDEXES = Repair("indexes", "It looks through a whole table for a page of an index, or for a transaction.", _put)
