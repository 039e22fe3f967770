"""Reads the captions table for people: newest first, filtered, and one record in full."""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from captions.records.record import PENDING, SHARDS, Record
from captions.records.table import Records
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack

STATES = ("received", "queued", "waiting", "captioned", "rejected", "blocked", "failed", "deleted")
READ_AHEAD = 100
"""Records read at once, the most that BatchGetItem takes."""
QUERIES_AT_ONCE = 16
MOST_DAYS_AT_ONCE = 16


def recent(
    stack: Stack, *, states: Collection[str] = STATES, prefix: str = "", days: int = 7, chunk: int = READ_AHEAD
) -> Iterator[Record]:
    """Yield records: first those still on their way, then those that ended, newest first.

    `days` is how many days back to look, today included, in UTC. `chunk` records are read at a time.
    """
    records = Records(stack.client("dynamodb"), stack.captions_table)
    start = f"{stack.bucket}/{prefix}"
    names = (asset for asset in _newest_first(stack, states, days) if asset.startswith(start))
    while batch := list(islice(names, chunk)):
        yield from (record for record in records.read(batch) if record.state in states)


def get(stack: Stack, key: str) -> Record:
    """Read the record of one key, which may be given as s3://BUCKET/KEY.

    Raises CommandError, telling whether the object itself is there.
    """
    own = f"s3://{stack.bucket}/"
    if key.startswith(own):
        key = key[len(own) :]
    record = Records(stack.client("dynamodb"), stack.captions_table).get(f"{stack.bucket}/{key}")
    if record is not None:
        return record
    if _exists(stack, key):
        raise CommandError(
            f"{printable(key)} is in the bucket but has no record yet: its event is still on the way, "
            "or it was uploaded before the stack was made",
            ExitCode.NOT_CAPTIONED,
        )
    raise CommandError(f"there is no {printable(key)} in {stack.bucket}", ExitCode.NOT_CAPTIONED)


def count(stack: Stack, *, days: int = 1, at_most: int = 2000) -> tuple[dict[str, int], bool]:
    """Count records by state, and say whether that is all of them: those on their way, and those ended since `days`.

    Reads at most `at_most` records, so that a look at a large table stays cheap.
    """
    counted = dict.fromkeys(STATES, 0)
    for index, record in enumerate(recent(stack, days=days)):
        if index == at_most:
            return counted, False
        counted[record.state] += 1
    return counted, True


def _exists(stack: Stack, key: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        stack.client("s3").head_object(Bucket=stack.bucket, Key=key)
    except ClientError as error:
        # 403: without ListBucket permission S3 does not tell a missing object from a forbidden one.
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (403, 404):
            return False
        raise
    return True


def _newest_first(stack: Stack, states: Collection[str], days: int) -> Iterator[str]:
    """Yield each asset once, though it may stand in two partitions of the eventually consistent index."""
    seen: set[str] = set()
    for asset in _indexed(stack, states, days):
        if asset not in seen:
            seen.add(asset)
            yield asset


def _indexed(stack: Stack, states: Collection[str], days: int) -> Iterator[str]:
    with ThreadPoolExecutor(QUERIES_AT_ONCE) as pool:
        if any(state in PENDING for state in states):
            yield from _merged(_first_pages(stack, pool, "pending"))
        if any(state not in PENDING for state in states):
            for shards in _days_ahead(stack, pool, days):
                yield from _merged(shards)


def _days_ahead(stack: Stack, pool: ThreadPoolExecutor, days: int) -> "Iterator[list[Shard]]":
    """Yield each day's shards, newest first; more and more days are asked for at once, as sparse tables need it."""
    # Clocks differ by seconds: what has just ended may already carry tomorrow's date.
    newest = datetime.now(UTC).date() + timedelta(days=1)
    names = [(newest - timedelta(days=back)).isoformat() for back in range(days + 1)]
    block = 2
    while names:
        ahead, names = names[:block], names[block:]
        yield from [_first_pages(stack, pool, day) for day in ahead]
        block = min(2 * block, MOST_DAYS_AT_ONCE)


def _first_pages(stack: Stack, pool: ThreadPoolExecutor, day: str) -> "list[Shard]":
    return [Shard(stack, pool, f"{day}#{shard}") for shard in range(SHARDS)]


def _merged(shards: "Iterable[Shard]") -> Iterator[str]:
    merged: Iterable[tuple[str, str]] = heapq.merge(*(shard.entries() for shard in shards), reverse=True)
    yield from (asset for _, asset in merged)


class Shard:
    """One partition of the `activity` index, newest first; its first page is asked for at once, others when needed."""

    def __init__(self, stack: Stack, pool: ThreadPoolExecutor, partition: str) -> None:
        self._query: dict[str, Any] = {
            "TableName": stack.captions_table,
            "IndexName": "activity",
            "KeyConditionExpression": "activity = :partition",
            "ExpressionAttributeValues": {":partition": {"S": partition}},
            "ScanIndexForward": False,
        }
        self._client = stack.client("dynamodb")
        self._first = pool.submit(self._page, None)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yield (time, asset)."""
        page = self._first.result()
        while True:
            yield from ((item["activity_at"]["S"], item["asset"]["S"]) for item in page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            page = self._page(page["LastEvaluatedKey"])

    def _page(self, after: Mapping[str, Any] | None) -> Mapping[str, Any]:
        start = {"ExclusiveStartKey": after} if after else {}
        page: Mapping[str, Any] = self._client.query(**self._query, **start)
        return page
