"""What is known of a cost is shown, added up and kept; what is not stands beside it."""

from decimal import Decimal
from typing import Any

import pytest

from captions.aws.dynamodb import from_item, to_item
from captions.cost import Cost
from captions.near_duplicates.exemplar import Asked, Outcome
from captions.records.attempts import kept, paid, paid_since, totals
from captions.records.record import Provenance, Recaption, Record
from captions_cli import rendering

BOUND = Cost(dollars=Decimal("0.000054"), unpriced_tokens=628)


def attempt(number: int, spent: Cost, **more: Any) -> dict[str, Any]:
    about = {"model": "GLM-4.6V", "endpoint": "e", "outcome": "ok", "latency_ms": 900}
    about |= {"started_at": f"2026-01-01T00:00:{number:06.3f}+00:00"}
    return about | spent.fields() | more


def test_a_cost_is_read_as_it_was_written_and_an_exact_one_as_ever() -> None:
    for spent in (BOUND, Cost(), Cost(uncounted_calls=2), Cost(dollars=Decimal("1e-12"))):
        assert Cost.read(from_item(to_item(spent.fields("saved"))), "saved") == spent
    assert Cost(dollars=Decimal("0.10")).fields() == {"cost": "0.10"}
    assert BOUND.fields() == {"cost_at_least": {"dollars": "0.000054", "unpriced_tokens": 628}}
    assert Cost.read({}) is None


def test_costs_are_added_and_taken_away_part_by_part() -> None:
    whole = Cost.sum([BOUND, Cost(uncounted_calls=1), Cost(dollars=Decimal("0.1"))])
    assert whole == Cost(dollars=Decimal("0.100054"), unpriced_tokens=628, uncounted_calls=1)
    assert whole - BOUND == Cost(dollars=Decimal("0.1"), uncounted_calls=1)
    assert whole.exact is None
    assert Cost().exact == (whole - whole).exact == 0


def test_a_call_is_what_its_record_says_or_one_that_nobody_counted() -> None:
    assert Cost.of_call({"outcome": "timeout"}) == Cost(uncounted_calls=1)
    assert Cost.of_call({"cost": "0.25", "prompt_tokens": 600}) == Cost(dollars=Decimal("0.25"))


def test_sums_of_older_calls_keep_what_each_lacked() -> None:
    parts = [BOUND, Cost(uncounted_calls=1), Cost(dollars=Decimal("0.5")), Cost(unpriced_tokens=10)]
    made = [attempt(number, parts[number % 4], prompt_tokens=10) for number in range(400)]
    record: tuple[dict[str, Any], ...] = ()
    for item in made:
        record = kept((*record, item))

    assert any("calls" in item for item in record)
    assert paid(record)["cost_at_least"] == paid(made)["cost_at_least"]
    assert totals(record) == totals(made) == (Decimal("50.0054"), 400, 300, 200, 100 * 628 + 100 * 10)
    to_item(Provenance(**paid(record)).model_dump(exclude_none=True))


def test_what_was_paid_before_a_recaption_is_not_the_new_captions() -> None:
    before = (attempt(0, BOUND), attempt(1, Cost(uncounted_calls=1)))
    marker = Recaption(mode="force", at="2026-01-01T00:00:00+00:00", **Cost.sum(map(Cost.of_call, before)).pair("paid"))
    stored = Recaption.model_validate(from_item(to_item(marker.model_dump(exclude_none=True))))
    assert paid_since((*before, attempt(2, BOUND)), stored) == BOUND


def test_copies_tell_what_they_saved_as_far_as_it_is_known() -> None:
    about = {"asset": "b/a.jpg", "bucket": "b", "key": "a.jpg", "sequencer": "01", "state": "captioned"}
    result = {"text": "A roof.", "language": "en", "task": "caption"}
    provenance = Provenance(model="GLM-4.6V", identity="i", **BOUND.pair("answer_cost"))
    record = Record.model_validate(about | {"source": "model", "result": result, "provenance": provenance})
    outcome = Outcome.of(record, Asked("i"))
    assert outcome is not None

    copied = Outcome.read(from_item(to_item(outcome.stored()))).copied()

    assert (copied.spared, copied.saved, copied.spent) == (BOUND, None, Cost())
    older = {name: value for name, value in outcome.stored().items() if name != "cost_at_least"}
    assert Outcome.read(older).copied().spared is None


@pytest.mark.parametrize(
    ("spent", "shown"),
    [
        (Cost(), "$0"),
        (Cost(dollars=Decimal("0.0005")), "$0.000500"),
        (BOUND, "≥ $0.000054 + 628 tokens"),
        (Cost(unpriced_tokens=1_628), "≥ $0 + 1,628 tokens"),
        (BOUND + Cost(uncounted_calls=2), "≥ $0.000054 + 628 tokens + 2 unknown"),
        (Cost(uncounted_calls=1), "unknown"),
        (None, ""),
    ],
)
def test_people_see_the_bound_and_what_it_leaves_out(spent: Cost | None, shown: str) -> None:
    assert rendering.cost(spent) == shown


def test_a_record_shows_one_cost_for_its_two_fields() -> None:
    about = {"asset": "b/a.jpg", "bucket": "b", "key": "a.jpg", "sequencer": "01", "state": "captioned"}
    record = Record.model_validate(about | {"source": "model", "provenance": paid((attempt(0, BOUND),))})
    names, values = (list(map(str, column.cells)) for column in rendering.details(record).columns)
    assert dict(zip(names, values, strict=True))["provenance.cost"] == "≥ $0.000054 + 628 tokens"
    assert not any("at_least" in name for name in names)
    assert str(rendering.row(rendering.summary(record))[5]) == "≥ $0.000054 + 628 tokens"
