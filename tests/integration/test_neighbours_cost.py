"""What the near-duplicate index costs, counted from the calls it makes; docs/index-cost.md says what that means."""

import threading
from collections import Counter
from collections.abc import Iterator

import boto3
import pytest

from support.capacity import Bill, item_size
from support.journeys import measured
from support.pipeline import MEDIA, REGION, aws_in_this_process, locked


@pytest.fixture(scope="module")
def bills() -> Iterator[dict[str, Bill]]:
    with pytest.MonkeyPatch.context() as patch, aws_in_this_process():
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        client = locked(boto3.client("dynamodb", region_name=REGION), threading.RLock())
        client.create_table(
            TableName="fingerprints",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        )
        yield measured(client, "fingerprints", (MEDIA / "casa-mila.jpg").read_bytes())


@pytest.mark.parametrize(
    ("journey", "calls"),
    [
        ("copy, same bytes", {"Query": 1, "BatchGetItem": 1}),
        ("copy, other bytes", {"Query": 12, "BatchGetItem": 1}),
        ("copy while it is captioned", {"Query": 12, "BatchGetItem": 2, "PutItem": 1}),
        ("new picture", {"Query": 24, "PutItem": 1, "BatchWriteItem": 1, "UpdateItem": 1}),
        ("new sound", {"Query": 2, "PutItem": 1, "BatchWriteItem": 1, "UpdateItem": 1}),
        ("worker starts", {"BatchGetItem": 1}),
        ("worker starts late", {"BatchGetItem": 1, "UpdateItem": 1}),
        ("result stored", {"BatchGetItem": 1, "UpdateItem": 1, "Query": 1}),
        ("each follower told", {"DeleteItem": 1}),
    ],
)
def test_calls(bills: dict[str, Bill], journey: str, calls: dict[str, int]) -> None:
    assert dict(bills[journey].calls) == calls


def test_a_copy_writes_nothing_to_the_index(bills: dict[str, Bill]) -> None:
    assert bills["copy, same bytes"].written == 0
    assert bills["copy, other bytes"].written == 0


def test_read_units_of_a_lookup_are_the_least_there_can_be(bills: dict[str, Bill]) -> None:
    """Half a unit for each band and for the exact key, one for the claim."""
    assert bills["copy, same bytes"].read == 0.5 + 1
    assert bills["copy, other bytes"].read == 12 * 0.5 + 1
    assert bills["new picture"].read == 12 * 0.5 + 12


def test_write_units_of_a_new_picture(bills: dict[str, Bill]) -> None:
    """Claim, postings and commit at one unit each."""
    assert bills["new sound"].written == 1 + 1 + 1
    assert bills["new picture"].written == 1 + 12 + 1


def test_loose_looks_further_only_for_what_is_not_found_at_once(bills: dict[str, Bill]) -> None:
    """Its probes share bands with the hash and with each other, each of which is asked for once."""
    least = Counter(bills["new picture"].calls)
    more = bills["new picture, loose"].calls
    assert least["Query"] < more["Query"] < 2 * 24 * 11
    assert {name: calls for name, calls in more.items() if name != "Query"} == {
        name: calls for name, calls in least.items() if name != "Query"
    }
    assert bills["new picture, loose"].written == bills["new picture"].written
    assert bills["crop, loose"].written == 0


def test_item_sizes_follow_the_documented_rules() -> None:
    assert item_size({"pk": {"S": "ab"}, "n": {"N": "1700000000"}, "b": {"B": b"1234"}}) == (2 + 2) + (1 + 2) + (1 + 4)
    assert item_size({"m": {"M": {"a": {"S": "xy"}}}, "l": {"L": [{"S": "x"}]}}) == (1 + 3 + 1 + 3) + (1 + 3 + 1 + 1)
