"""Retries within a budget, dollars within a limit, keys that rotate."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from captions.cost import Cost
from captions.gateway import AccountProblem, Budgets, BudgetSpent, Media, Request, RetryBudget, parse_secret
from captions.gateway.api_keys import CACHED_S, NO_KEY, KeyRing
from captions.gateway.budgets import Reservation
from captions.gateway.catalogue import Model, load

pytestmark = pytest.mark.anyio

MODELS = [load().model("GPT-4o"), load().model("GLM-4.6V")]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_retries_are_a_share_of_the_calls_after_a_burst() -> None:
    budget = RetryBudget(per_call=0.2, burst=10.0)

    assert sum(budget.take() for _ in range(100)) == 10
    for _ in range(50):
        budget.called()
    assert 9 <= sum(budget.take() for _ in range(100)) <= 10


class MemoryStore:
    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], Decimal] = {}
        self.broken = False

    def reserve(self, reservation: Reservation, limits: Mapping[str, Decimal]) -> str | None:
        if self.broken:
            raise ConnectionError("the table cannot be reached")
        for scope in reservation.scopes:
            if self.sums.get((scope, reservation.day), Decimal(0)) + reservation.dollars > limits[scope]:
                return scope
        for scope in reservation.scopes:
            key = (scope, reservation.day)
            self.sums[key] = self.sums.get(key, Decimal(0)) + reservation.dollars
        return None

    def settle(self, reservation: Reservation, spent: Decimal) -> None:
        for scope in reservation.scopes:
            self.sums[scope, reservation.day] += spent - reservation.dollars


def request(*scopes: str) -> Request:
    return Request("Be brief.", "What?", (Media("image", "image/jpeg", b"x"),), max_tokens=200, budget_scopes=scopes)


async def reserved(budgets: Budgets, asked: Request, models: Sequence[Model]) -> Reservation:
    reservation = await budgets.reserve(asked, models)
    assert reservation is not None
    return reservation


async def test_a_call_without_a_limited_scope_reserves_nothing() -> None:
    store = MemoryStore()

    assert await Budgets({"shop/": Decimal(1)}, store).reserve(request("other/"), MODELS) is None
    assert store.sums == {}


async def test_the_dearest_of_the_models_is_reserved_and_the_real_cost_settled() -> None:
    store = MemoryStore()
    budgets = Budgets({"*": Decimal(10), "shop/": Decimal(1)}, store, now=lambda: NOON)

    reservation = await reserved(budgets, request("shop/"), MODELS)

    assert reservation.scopes == ("*", "shop/")
    assert reservation.dollars > 200 * Decimal("10.00") / 1_000_000  # GPT-4o's completion alone
    await budgets.settle(reservation, Cost(dollars=Decimal("0.0005")))
    assert store.sums == {("*", "2026-11-22"): Decimal("0.0005"), ("shop/", "2026-11-22"): Decimal("0.0005")}


async def test_an_unknown_cost_leaves_the_reservation_standing() -> None:
    store = MemoryStore()
    budgets = Budgets({"*": Decimal(10)}, store, now=lambda: NOON)

    reservation = await reserved(budgets, request(), MODELS[1:])
    await budgets.settle(reservation, Cost(dollars=Decimal("0.0001"), uncounted_calls=1))

    assert store.sums["*", "2026-11-22"] == reservation.dollars > 0


async def test_a_call_that_nobody_counted_never_takes_what_is_known_away() -> None:
    store = MemoryStore()
    budgets = Budgets({"*": Decimal(10)}, store, now=lambda: NOON)

    reservation = await reserved(budgets, request(), MODELS[1:])
    await budgets.settle(reservation, Cost(dollars=reservation.dollars + 1, uncounted_calls=1))

    assert store.sums["*", "2026-11-22"] == reservation.dollars + 1


async def test_tokens_without_a_price_are_settled_at_the_assumed_one_beside_what_is_known() -> None:
    store = MemoryStore()
    budgets = Budgets({"*": Decimal(10)}, store, assumed_price=Decimal(5), now=lambda: NOON)

    reservation = await reserved(budgets, request(), MODELS[1:])
    await budgets.settle(reservation, Cost(dollars=Decimal("0.0001"), unpriced_tokens=600))

    assert store.sums["*", "2026-11-22"] == Decimal("0.0031") < reservation.dollars


async def test_a_spent_limit_says_which_and_until_when() -> None:
    store = MemoryStore()
    budgets = Budgets({"*": Decimal(10), "shop/": Decimal("0.0001")}, store, now=lambda: NOON)

    with pytest.raises(BudgetSpent, match=r"shop/.*\$0\.0001 a day") as caught:
        await budgets.reserve(request("shop/"), MODELS)

    assert caught.value.scope == "shop/"
    assert caught.value.retry_after_s == 12 * 3600
    assert store.sums == {}


async def test_limits_that_cannot_be_reached_stop_the_spending() -> None:
    store = MemoryStore()
    store.broken = True

    with pytest.raises(BudgetSpent, match="cannot be reached"):
        await Budgets({"*": Decimal(10)}, store).reserve(request(), MODELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sk-1\n", {"default": "sk-1"}),
        ('{"default": "sk-1", "http://h/v1/": "sk-2"}', {"default": "sk-1", "http://h/v1": "sk-2"}),
        ("{not json", {"default": "{not json"}),
        ('{"a": 1}', {"default": '{"a": 1}'}),
    ],
)
def test_a_secret_is_a_key_or_a_key_for_each_endpoint(text: str, expected: dict[str, str]) -> None:
    assert parse_secret(text) == expected


class Secret:
    def __init__(self, *values: str | Exception) -> None:
        self.values = list(values)
        self.forced: list[bool] = []

    def __call__(self, force: bool) -> str:
        self.forced.append(force)
        value = self.values[0] if len(self.values) == 1 else self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return value


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_is_fetched_once_and_again_after_its_time() -> None:
    secret, clock = Secret("one", "two"), Clock()
    ring = KeyRing(secret, clock=clock)

    keys = await asyncio.gather(*(ring.key("http://h/v1") for _ in range(50)))
    assert set(keys) == {"one"}
    clock.now = CACHED_S + 1.0
    assert await ring.key("http://h/v1") == "two"
    assert secret.forced == [False, False]


async def test_a_rejected_key_is_renewed_once_for_all_calls() -> None:
    secret, clock = Secret("old", "new"), Clock()
    ring = KeyRing(secret, clock=clock)
    await ring.key("http://h/v1")

    renewed = await asyncio.gather(*(ring.renewed("http://h/v1", "old") for _ in range(50)))

    assert set(renewed) == {"new"}
    assert secret.forced == [False, True]
    assert await ring.renewed("http://h/v1", "new") is None
    assert secret.forced == [False, True]
    clock.now = 60.0
    assert await ring.renewed("http://h/v1", "new") is None
    assert secret.forced == [False, True, True]


async def test_each_endpoint_gets_its_own_key_and_one_without_gets_none() -> None:
    ring = KeyRing(lambda force: {"default": "sk-1", "http://own/v1/": "", "http://other/v1": "sk-2"})

    assert await ring.key("http://any/v1") == "sk-1"
    assert await ring.key("http://other/v1") == "sk-2"
    assert await ring.key("http://own/v1") == NO_KEY


async def test_an_old_key_is_better_than_none() -> None:
    secret, clock = Secret("old", ConnectionError("no"), "new"), Clock()
    ring = KeyRing(secret, clock=clock)
    await ring.key("http://h/v1")
    clock.now = CACHED_S + 1.0

    assert await ring.key("http://h/v1") == "old"
    clock.now += 11.0
    assert await ring.key("http://h/v1") == "new"


async def test_a_key_that_was_never_there_is_an_account_problem_without_its_text() -> None:
    ring = KeyRing(Secret(ValueError("the secret sk-hidden is malformed")))

    with pytest.raises(AccountProblem) as caught:
        await ring.key("http://h/v1")

    assert "sk-hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
