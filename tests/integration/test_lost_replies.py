"""Writes whose reply was lost: botocore sends them again, AWS has done them, and they count once all the same."""

from typing import Any

import pytest
from captions_api.own_table import OwnTable

from captions.bulk.batch_table import BatchTable
from captions.search.segment_store import SegmentStore
from captions.search.segments import build
from captions.webhooks.health import HealthTable
from support.pipeline import Aws
from support.search import INDEX

CONTROL = "control"


class Lossy:
    """A boto3 client whose first reply to each write is lost, so that the write is sent once more, as botocore does."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in ("put_item", "update_item", "delete_item", "put_object", "transact_write_items"):
            return real

        def twice(**request: Any) -> Any:
            real(**request)
            return real(**request)

        return twice


def test_a_segment_whose_entry_was_written_twice_stands_in_the_manifest_once_and_can_be_merged(aws: Aws) -> None:
    aws.s3.create_bucket(Bucket=INDEX)
    store = SegmentStore(Lossy(aws.s3), INDEX)
    first, second, third = (store.put(build((), ()), purged_at=0.0) for _ in range(3))
    store.add(first)
    store.add(second)
    assert [entry.name for entry in store.manifest().segments] == [first.name, second.name]
    assert store.swap([first, second], [third])
    assert [entry.name for entry in store.manifest().segments] == [third.name]
    assert not store.swap([first], [second])


def test_an_invocation_looks_after_the_batches_though_the_reply_to_its_lease_was_lost(aws: Aws) -> None:
    table = BatchTable(Lossy(aws.dynamodb), CONTROL, aws.s3, INDEX)
    assert table.take_over(1000.0, 1900.0)
    assert not BatchTable(aws.dynamodb, CONTROL, aws.s3, INDEX).take_over(1001.0, 1901.0)
    table.hand_back(1900.0)
    assert BatchTable(aws.dynamodb, CONTROL, aws.s3, INDEX).take_over(1001.0, 1901.0)


@pytest.mark.parametrize("probing", [False, True])
def test_a_failure_of_an_endpoint_counts_once(aws: Aws, probing: bool) -> None:
    lossy, sound = HealthTable(Lossy(aws.dynamodb), CONTROL), HealthTable(aws.dynamodb, CONTROL)
    for _ in range(3):
        lossy.failed("a", "HTTP 500", 1000.0)
        sound.failed("b", "HTTP 500", 1000.0)
    lossy.failed("a", "HTTP 500", 1100.0, probing=probing)
    sound.failed("b", "HTTP 500", 1100.0, probing=probing)
    known = sound.read()
    assert known["a"] == known["b"]
    assert known["a"].failures == 4


def test_a_write_under_a_key_is_not_refused_because_its_own_beginning_was_written_twice(aws: Aws) -> None:
    table = OwnTable(Lossy(aws.dynamodb), CONTROL)
    assert table.begin_write("me", "key", "print", ("",)) is None
    earlier = table.begin_write("me", "key", "print", ("",))
    assert earlier is not None
    assert earlier.status is None
