"""However many calls an upload needed, its record has room for them, and their sums stay exact."""

import json
from decimal import Decimal
from typing import Any

import pytest

from captions.cost import Cost
from captions.gateway import Attempt
from captions.records.attempts import (
    MAX_ATTEMPTS_BYTES,
    MAX_ATTEMPTS_KEPT,
    MAX_CALL_IDS,
    MAX_SUMS,
    CallLedger,
    call_ids,
    calls,
    cost,
    kept,
    named,
    newest,
    paid,
)
from captions.records.record import Provenance, Record
from captions.records.spending import spending


def attempt(number: int, *, model: str = "GPT-4o", cost: str | None = "0.00123", **changes: Any) -> dict[str, Any]:
    made = {
        "model": model,
        "endpoint": "models.example",
        "outcome": "ok",
        "latency_ms": 840,
        "prompt_tokens": 1_000 + number,
        "completion_tokens": 50,
        "cost": cost,
        "started_at": f"2026-01-{number // 1_000 + 1:02}T00:00:00.{number % 1_000:03}+00:00",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def added(attempts: tuple[dict[str, Any], ...], name: str) -> int:
    return sum(int(attempt.get(name, 0)) for attempt in attempts)


def size(attempts: tuple[dict[str, Any], ...]) -> int:
    return len(json.dumps(attempts).encode())


def as_record(attempts: tuple[dict[str, Any], ...]) -> Record:
    about = {"asset": "media/a.jpg", "bucket": "media", "key": "a.jpg", "sequencer": "01", "state": "captioned"}
    return Record.model_validate(about | {"source": "model", "provenance": Provenance(**paid(attempts))})


def test_few_calls_are_kept_one_by_one() -> None:
    few = tuple(attempt(number) for number in range(MAX_ATTEMPTS_KEPT))
    assert kept(few) == few


@pytest.mark.slow
@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.deep)])
def test_thousands_of_paid_calls_have_room_and_cost_what_they_cost(count: int) -> None:
    made = [attempt(number, model=f"model-{number % 3}", cost=f"0.00{number % 977:03}1") for number in range(count)]
    record: tuple[dict[str, Any], ...] = ()
    for item in made:
        record = kept((*record, item))

    assert sum(map(calls, record)) == count
    assert cost(record) == cost(made) != Cost()
    for name in ("prompt_tokens", "completion_tokens", "latency_ms"):
        assert added(record, name) == added(tuple(made), name)
    assert list(record[-MAX_ATTEMPTS_KEPT:]) == made[-MAX_ATTEMPTS_KEPT:]
    assert size(record) < 40_000
    by_model, total = spending([as_record(record)], "model")
    told_by_model, told_total = spending([as_record(tuple(made))], "model")
    assert (by_model, total) == (told_by_model, told_total)


def test_calls_of_unknown_cost_stay_apart_from_those_whose_cost_is_known() -> None:
    made = [attempt(number, cost=None if number % 2 else "0.5") for number in range(200)]
    record = kept(made)

    assert cost(record).exact is None
    _, total = spending([as_record(record)], "day")
    assert (total.calls, total.cost_unknown, total.cost.dollars) == (200, 100, Decimal(50))


def test_what_batches_saved_is_added_up_with_the_calls() -> None:
    made = [attempt(number, saved="0.25" if number < 100 else None) for number in range(200)]

    _, total = spending([as_record(kept(made))], "day")
    assert total.saved_by_batches == Cost(dollars=Decimal(25))


def test_what_cost_nothing_is_summed_before_what_was_paid() -> None:
    failures = [attempt(number, cost="0", outcome="rate_limited") for number in range(1, 300)]
    record = kept([attempt(0), *failures])

    (total, *single) = record
    assert (total["outcomes"], total["cost"]) == ({"rate_limited": 300 - MAX_ATTEMPTS_KEPT}, "0")
    assert single[0] == attempt(0)


def test_long_details_do_not_fill_the_record() -> None:
    record = kept([attempt(number, detail="x" * 2_000) for number in range(MAX_ATTEMPTS_KEPT)])
    assert size(record) < MAX_ATTEMPTS_BYTES + 2_000
    assert sum(map(calls, record)) == MAX_ATTEMPTS_KEPT


def test_very_many_models_have_sums_together() -> None:
    made = [attempt(number, model=f"model-{number}") for number in range(500)]
    record = kept(made)
    assert len(record) <= MAX_ATTEMPTS_KEPT + MAX_SUMS
    assert cost(record) == cost(made)


@pytest.mark.parametrize("number", [MAX_ATTEMPTS_KEPT, 2 * MAX_ATTEMPTS_KEPT, 500])
def test_a_call_that_a_sum_holds_is_not_taken_for_a_new_one(number: int) -> None:
    made = [
        Attempt(
            model="GPT-4o",
            endpoint="models.example",
            outcome="ok",
            status=200,
            latency_ms=840,
            prompt_tokens=1_000,
            completion_tokens=50,
            spent=Cost(dollars=Decimal("0.01")),
            started_at=f"2026-01-01T00:00:00.{at:03}+00:00",
        )
        for at in range(number + 1)
    ]
    record = kept([item.as_dict() for item in made[:number]])
    ledger = CallLedger(record)
    ledger.add(item.as_dict() for item in made)

    assert ledger.made == (made[-1].as_dict(),)


def test_the_newest_calls_of_sums_are_known_and_the_oldest_forgotten() -> None:
    made = [attempt(number) for number in range(5_000)]
    known = call_ids(kept(made))
    assert len(known) == MAX_CALL_IDS + MAX_ATTEMPTS_KEPT
    assert call_ids(made[-MAX_CALL_IDS:]) <= known


def test_ids_of_replaced_versions_have_room_and_the_oldest_go_first() -> None:
    long, short = named("0500", [attempt(number) for number in range(970)]), named("06", [attempt(0)])
    assert newest([long, short]) == [long, short]
    assert newest([short, long, short]) == [short, long, short]
    assert newest([short, long, long, short]) == [long, short]
    assert newest([short, long * 2]) == [long * 2]


def test_calls_of_two_versions_in_one_batch_are_two() -> None:
    record = as_record(()).model_copy(update={"paid_ids": (named("0100", [attempt(0)]),)})
    ledger = CallLedger()
    ledger.add([attempt(0)])
    assert ledger.unknown_to(record, "01") == ()
    assert ledger.unknown_to(record, "02") == (attempt(0),)


def test_an_upload_on_its_way_once_more_is_not_counted_twice() -> None:
    made = (attempt(0), attempt(1))
    waiting = as_record(made).model_copy(update={"state": "queued", "attempts": (*made, attempt(2))})
    deleted = waiting.model_copy(update={"state": "deleted"})

    assert spending([waiting], "day")[1].calls == spending([deleted], "day")[1].calls == 3
    assert spending([waiting], "day")[1].cost.exact == Decimal("0.00369")
