"""The report's plot of quality against cost: every model of known cost is in it, and its labels never overlap."""

import itertools
from typing import Any

import pytest

from captions_cli.evaluate.report import _LINE, _costs


def contender(name: str, mean: float, dollars: str | None, at_least: bool = False) -> dict[str, Any]:
    score = {"value": mean, "low": max(0.0, mean - 0.1), "high": min(1.0, mean + 0.1)}
    return {"name": name, "mean": score, "dollars_per_1000": {"value": dollars, "at_least": at_least}}


@pytest.mark.parametrize("mean", [0.0, 0.5, 1.0])
def test_labels_of_models_that_are_alike_stand_beside_one_another_inside_the_plot(mean: float) -> None:
    plot = _costs([contender(f"model {number}", mean, "1.00") for number in range(8)])
    places = sorted(mark.label_y for mark in plot.marks)
    assert all(below - above >= _LINE for above, below in itertools.pairwise(places))
    assert plot.top <= places[0]
    assert places[-1] <= plot.bottom


def test_a_model_that_costs_at_least_so_much_is_shown_as_such() -> None:
    plot = _costs([contender("a", 0.9, "2.00"), contender("b", 0.8, "0.10", at_least=True), contender("c", 0.7, None)])
    assert {mark.label: mark.at_least for mark in plot.marks} == {"a": False, "b": True}
    assert plot.marks[0].y < plot.marks[1].y
