"""What sandboxes share through the control table: circuits and spending."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import boto3
import pytest
from moto import mock_aws
from PIL import Image

from captions.gateway import (
    BreakerPolicy,
    Breakers,
    Budgets,
    BudgetSpent,
    ControlTable,
    Endpoint,
    Gateway,
    Media,
    Request,
    SharedCircuit,
)
from captions.gateway.budgets import Reservation
from captions.gateway.catalogue import load
from captions_cli.local.model_endpoint import LocalEndpoint

pytestmark = pytest.mark.anyio

DEAD, ALIVE = "Qwen/Qwen3-VL-8B-Instruct", "GLM-4.6V"
NOW = 1_700_000_000.0


class Counting:
    """A DynamoDB client that counts its calls; moto's tables are not made for several threads at once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self.exceptions = client.exceptions
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(**arguments: Any) -> Any:
            with self._lock:
                self.calls[name] = self.calls.get(name, 0) + 1
                return method(**arguments)

        return call

    @property
    def writes(self) -> int:
        return sum(count for name, count in self.calls.items() if name not in ("query", "get_item"))


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName="control",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )
        yield Counting(client)


@pytest.fixture
def table(dynamodb: Counting) -> ControlTable:
    return ControlTable(dynamodb, "control")


def circuit(until: float, name: str = "e#m", level: int = 1) -> SharedCircuit:
    return SharedCircuit(name, until, level, "failing")


def test_an_open_circuit_is_read_back_with_its_time(table: ControlTable, dynamodb: Counting) -> None:
    table.open(circuit(NOW + 5.125), NOW)

    assert list(table.read()) == [circuit(NOW + 5.125)]
    (item,) = dynamodb.scan(TableName="control")["Items"]
    assert int(item["expires_at"]["N"]) > NOW


def test_a_circuit_that_is_open_is_not_written_over_by_about_the_same(table: ControlTable) -> None:
    table.open(circuit(NOW + 10.0, level=1), NOW)
    table.open(circuit(NOW + 11.0, level=2), NOW)
    assert list(table.read()) == [circuit(NOW + 10.0, level=1)]

    table.open(circuit(NOW + 60.0, level=3), NOW)
    assert list(table.read()) == [circuit(NOW + 60.0, level=3)]


def test_the_probe_is_leased_to_one_and_only_when_the_circuit_is_half_open(table: ControlTable) -> None:
    table.open(circuit(NOW + 10.0), NOW)

    assert not table.lease("e#m", "a", NOW + 9.0, 60.0)
    assert table.lease("e#m", "a", NOW + 11.0, 60.0)
    assert not table.lease("e#m", "b", NOW + 12.0, 60.0)
    assert table.lease("e#m", "b", NOW + 72.0, 60.0)
    assert not table.lease("never", "a", NOW, 60.0)


def test_only_the_holder_of_the_probe_closes(table: ControlTable) -> None:
    table.open(circuit(NOW + 10.0), NOW)
    table.lease("e#m", "a", NOW + 11.0, 60.0)

    table.close("e#m", "b")
    assert list(table.read()) != []
    table.close("e#m", "a")
    assert list(table.read()) == []


def test_a_probe_that_failed_opens_anew_and_frees_the_lease(table: ControlTable) -> None:
    table.open(circuit(NOW + 10.0), NOW)
    table.lease("e#m", "a", NOW + 11.0, 60.0)
    table.open(circuit(NOW + 31.0, level=2), NOW + 11.5)

    assert list(table.read()) == [circuit(NOW + 31.0, level=2)]
    assert table.lease("e#m", "b", NOW + 32.0, 60.0)


def test_reservations_never_exceed_a_limit_however_many_ask_at_once(table: ControlTable) -> None:
    limits = {"*": Decimal("1"), "shop/": Decimal("0.07")}
    results = []

    def reserve() -> None:
        results.append(table.reserve(Reservation("2026-11-22", ("*", "shop/"), Decimal("0.01")), limits))

    threads = [threading.Thread(target=reserve) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results.count(None) == 7
    assert set(results) == {None, "shop/"}
    everything = Reservation("2026-11-22", ("*",), Decimal("0.93"))
    assert table.reserve(everything, limits) is None  # what a refused call set aside was given back
    assert table.reserve(Reservation("2026-11-22", ("*",), Decimal("0.01")), limits) == "*"
    assert table.reserve(Reservation("2026-11-23", ("*",), Decimal("0.01")), limits) is None


def test_settling_replaces_what_was_set_aside(table: ControlTable) -> None:
    reservation, another = (Reservation("2026-11-22", ("*",), Decimal("0.06")) for _ in range(2))
    limits = {"*": Decimal("0.10")}
    assert table.reserve(reservation, limits) is None
    assert table.reserve(another, limits) == "*"

    table.settle(reservation, Decimal("0.0123"))

    assert table.reserve(another, limits) is None


@pytest.mark.parametrize("lost", range(6))
def test_a_write_whose_reply_is_lost_counts_once(table: ControlTable, lost: int) -> None:
    """botocore makes the request again; DynamoDB has done it."""
    client, writes = table._client._client, 0

    def needs_retry(**_: Any) -> int | None:
        nonlocal writes
        writes += 1
        return 0 if writes == lost + 1 else None

    client.meta.events.register_first("needs-retry.dynamodb.UpdateItem", needs_retry)
    try:
        for _ in range(3):
            reservation = Reservation("2026-11-22", ("*",), Decimal("0.05"))
            assert table.reserve(reservation, {"*": Decimal("1")}) is None
            table.settle(reservation, Decimal("0.003"))
            table.settle(reservation, Decimal("0.003"))
    finally:
        client.meta.events.unregister("needs-retry.dynamodb.UpdateItem", needs_retry)

    item = client.get_item(TableName=table._table, Key={"pk": {"S": "budget#*"}, "sk": {"S": "2026-11-22"}})["Item"]
    assert (item["dollars"]["N"], "held" in item) == ("0.009", False)


def test_suspicions_of_several_sandboxes_add_up_within_their_window(table: ControlTable) -> None:
    assert [table.suspect("e#m", owner, NOW, 30.0) for owner in ("a", "b", "b", "c")] == [1, 2, 2, 3]
    assert table.suspect("e#m", "d", NOW + 31.0, 30.0) == 1


def ask(**changes: Any) -> Request:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (20, 120, 60)).save(file, "JPEG")
    media = (Media("image", "image/jpeg", file.getvalue()),)
    return Request("Be brief.", "What is it?", media, max_tokens=100, **changes)


def soon() -> float:
    return time.monotonic() + 30.0


async def test_twenty_sandboxes_learn_of_a_dead_model_from_each_other(table: ControlTable, dynamodb: Counting) -> None:
    # On a busy machine a look takes longer than a caption should wait for it, and a circuit's open time may be over.
    policy = BreakerPolicy(doubt_refresh_s=0.0, look_s=60.0, open_s=600.0, longest_open_s=600.0)
    with LocalEndpoint(latency_scale=0.0) as endpoint:
        sandboxes = [
            Gateway(
                endpoints=[Endpoint(endpoint.url)],
                keys=lambda force: "sk-test",
                catalogue=load(),
                breakers=Breakers(policy, store=table),
            )
            for _ in range(20)
        ]
        for sandbox in sandboxes:
            await sandbox.complete(ask(), [DEAD, ALIVE], deadline=soon())
        assert dynamodb.writes == 0

        endpoint.clear()
        endpoint.set_faults([{"fault": "overloaded", "model": DEAD}])
        for _ in range(5):
            for sandbox in sandboxes:
                completion = await sandbox.complete(ask(), [DEAD, ALIVE], deadline=soon())
                assert completion.model == ALIVE
        for sandbox in sandboxes:
            await sandbox.aclose()
        to_the_dead = [entry["model"] for entry in endpoint.requests()].count(DEAD)

    assert to_the_dead <= 20 + policy.suspecting_sandboxes  # alone it would be 20 times 5
    assert dynamodb.writes <= 6


async def test_a_spent_budget_sends_the_work_back_and_says_why(table: ControlTable) -> None:
    with LocalEndpoint(latency_scale=0.0) as endpoint:
        gateway = Gateway(
            endpoints=[Endpoint(endpoint.url)],
            keys=lambda force: "sk-test",
            catalogue=load(),
            budgets=Budgets({"shop/": Decimal("0.02")}, table),
        )
        results = await asyncio.gather(
            *(gateway.complete(ask(budget_scopes=("shop/",)), ["GPT-4o"], deadline=soon()) for _ in range(30)),
            return_exceptions=True,
        )
        paid = len(endpoint.requests())
        spent = [result for result in results if isinstance(result, BudgetSpent)]
        other = await gateway.complete(ask(budget_scopes=("news/",)), ["GPT-4o"], deadline=soon())
        later = await gateway.complete(ask(budget_scopes=("shop/",)), ["GPT-4o"], deadline=soon())
        await gateway.aclose()

    assert 0 < paid < 30
    assert len(spent) == 30 - paid
    assert "shop/" in str(spent[0])
    assert 0 < (spent[0].retry_after_s or 0) <= 86_400
    assert spent[0].attempts == ()
    assert other.cost is not None
    assert later.cost is not None  # once the calls are settled at their real cost there is room again


async def test_a_retry_after_is_known_to_a_sandbox_that_starts_later(table: ControlTable) -> None:
    with LocalEndpoint(latency_scale=0.0) as endpoint:
        endpoint.set_faults([{"fault": "rate_limited", "model": DEAD, "retry_after": 120}])

        def sandbox() -> Gateway:
            return Gateway(
                endpoints=[Endpoint(endpoint.url)],
                keys=lambda force: "sk-test",
                catalogue=load(),
                breakers=Breakers(store=table),
            )

        for _ in range(3):
            gateway = sandbox()
            await gateway.complete(ask(), [DEAD, ALIVE], deadline=soon())
            await gateway.aclose()

        assert [entry["model"] for entry in endpoint.requests()].count(DEAD) == 1
