"""The month's bill keeps what is known apart from what is not."""

import sys
from decimal import Decimal
from pathlib import Path

from captions.cost import Cost
from captions.gateway import Attempt
from captions.gateway.catalogue import load

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import economics


def attempt(model: str, prompt: int | None, completion: int | None) -> Attempt:
    return Attempt(model, "http://here/v1", "ok", 200, 1, prompt, completion, Cost(), "2026-01-01T00:00:00Z")


def test_an_unpublished_input_price_leaves_tokens_and_no_dollars() -> None:
    bill = economics.Bill()
    bill.add([attempt("GLM-4.5V", 1_000_000, 2_000_000), attempt("GPT-4o", 1_000_000, 1_000_000)], None)

    assert bill.unpriced_tokens(load()) == {"GLM-4.5V": 1_000_000}
    assert bill.input_dollars(load()) == Decimal("2.5")
    assert bill.output_dollars(load()) == Decimal("10.02")


def test_ten_thousand_answers_of_the_references_length_cost_the_references_26_dollars() -> None:
    bill = economics.Bill()
    bill.add([attempt("Qwen/Qwen3-VL-32B-Instruct", 500, 100)] * 10_000, economics.REFERENCE_TOKENS)

    assert bill.output_dollars(load()) == Decimal("26")


def test_attempts_that_used_nothing_are_not_billed() -> None:
    bill = economics.Bill()
    bill.add([attempt("GPT-4o", None, None)], economics.REFERENCE_TOKENS)

    assert not bill.calls


def test_the_bulk_lane_takes_half_off_what_is_asked_first_of_models_that_take_batches() -> None:
    bill = economics.Bill()
    for _ in range(3):
        bill.add([attempt("GPT-4o", 1_000_000, 1_000_000), attempt("GPT-4o", 1_000_000, 1_000_000)], None)
    bill.add([attempt("deepseek-ai/DeepSeek-V4-Flash", 1_000_000, 1_000_000), attempt("GPT-4o", 1_000, 1_000)], None)

    assert bill.spared_dollars(load()) == 3 * Decimal("12.5") / 2
    row = bill.row("all", load(), 1.0)
    assert row["bulk_lane_dollars"] == round(row["output_dollars"] + row["input_dollars_known"] - 18.75, 2)


def test_the_break_even_price_is_what_is_saved_by_what_is_sent_more() -> None:
    before = {"output_dollars": 10.0, "input_tokens_unpriced": {"large": 4_000_000}}
    after = {"output_dollars": 4.0, "input_tokens_unpriced": {"cheap": 4_000_000, "large": 2_000_000}}

    assert economics.break_even(before, after) == 3.0
    assert economics.break_even(after, before) is None
