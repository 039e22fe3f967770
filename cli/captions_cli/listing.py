"""Reads the captions table for people: newest first, filtered, and one record in full."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import get_args

from captions.records.listing import Filters, stages
from captions.records.record import Record, State
from captions.records.table import READ_AT_ONCE
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack

STATES: tuple[State, ...] = get_args(State)
COUNTED = 2_000
"""Records read to count what there is in each state."""


def recent(
    stack: Stack, *, states: Collection[str] = STATES, prefix: str = "", days: int = 7, chunk: int = READ_AT_ONCE
) -> Iterator[Record]:
    """Yield records: first those still on their way, then those that ended, newest first.

    `days` is how many days back to look, today included, in UTC. `chunk` records are read at a time.
    """
    today = datetime.now(UTC).date()
    oldest = (today - timedelta(days=days - 1)).isoformat()
    filters = Filters((f"{stack.bucket}/{prefix}",), frozenset(state for state in STATES if state in states))
    order = stages("newest", filters, today=today, first=None, days=days)
    yield from takewhile(
        # Those that ended without a caption have an index of their own, of any age.
        lambda record: record.completed_at is None or record.completed_at >= oldest,
        stack.listing.walk(order, filters, chunk=chunk),
    )


def get(stack: Stack, key: str) -> Record:
    """Read the record of one key, which may be given as s3://BUCKET/KEY.

    Raises CommandError for an empty key, and for one without a record, telling whether the object itself is there.
    """
    own = f"s3://{stack.bucket}/"
    if key.startswith(own):
        key = key[len(own) :]
    if not key:
        raise CommandError("the key is empty", ExitCode.USAGE)
    record = stack.records.get(f"{stack.bucket}/{key}")
    if record is not None:
        return record
    if _exists(stack, key):
        raise CommandError(
            f"{printable(key)} is in the bucket but has no record yet: its event is still on the way, "
            "or it was uploaded before the stack was made",
            ExitCode.NOT_CAPTIONED,
        )
    raise CommandError(f"there is no {printable(key)} in {stack.bucket}", ExitCode.NOT_CAPTIONED)


def count(stack: Stack) -> tuple[dict[str, int], bool]:
    """Count records by state, and say whether that is all of them: those on their way, and those ended in a day.

    Reads at most COUNTED records, so that a look at a large table stays cheap.
    """
    counted: dict[str, int] = dict.fromkeys(STATES, 0)
    for index, record in enumerate(recent(stack, days=1)):
        if index == COUNTED:
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
