"""How sure a figure is: intervals by bootstrap over a set's items (Efron and Tibshirani, 1993, percentile method).

Contenders that answered the same items are compared on the same draws of items, test by test, so that what is hard for
all of them says nothing for or against one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import default_rng

DRAWS = 2_000
SEED = 20_260_000
"""Fixed: the same answers give the same intervals."""
COVERED = 0.95
FEWEST = 10
"""Items; of fewer no interval is worth giving."""
_AT_ONCE = 4_000_000
"""Drawn numbers that are held at the same time."""

Float64s = npt.NDArray[np.float64]
Test = Sequence[tuple[float, float]]
"""Of each item: a sum and its divisor."""


@dataclass(frozen=True)
class Interval:
    """A figure and the range that covers it with 95%; None where there is too little to tell."""

    value: float
    low: float | None
    high: float | None


def of(tests: Mapping[str, Test]) -> Interval | None:
    """Return the mean over tests of each test's value; None without any."""
    if not tests:
        return None
    return _interval(float(np.mean([_value(test) for test in tests.values()])), tests, _drawn(tests))


def difference(first: Mapping[str, Test], second: Mapping[str, Test]) -> Interval | None:
    """Return by how much the first is better; both have the same items in the same order."""
    if not first:
        return None
    value = float(np.mean([_value(first[name]) - _value(second[name]) for name in first]))
    return _interval(value, first, _drawn(first) - _drawn(second))


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return a quantile; None of nothing."""
    return float(np.quantile(np.asarray(values), share)) if values else None


def _interval(value: float, tests: Mapping[str, Test], drawn: Float64s) -> Interval:
    if sum(map(len, tests.values())) < FEWEST:
        return Interval(value, None, None)
    low, high = np.quantile(drawn, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return Interval(value, float(low), float(high))


def _drawn(tests: Mapping[str, Test]) -> Float64s:
    """Return the mean over tests for each draw; a test's draws depend on its name and number of items alone."""
    drawn = np.stack([_test_drawn(name, test) for name, test in sorted(tests.items())])
    mean: Float64s = drawn.mean(axis=0)
    return mean


def _test_drawn(name: str, test: Test) -> Float64s:
    sums, divisors = np.asarray(test, np.float64).reshape(-1, 2).T
    random = default_rng([SEED, len(test), *name.encode()])
    drawn = np.empty(DRAWS)
    step = max(1, _AT_ONCE // max(1, len(test)))
    for start in range(0, DRAWS, step):
        picked = random.integers(0, len(test), (min(step, DRAWS - start), len(test)), dtype=np.int32)
        whole = divisors[picked].sum(axis=1)
        values = np.divide(sums[picked].sum(axis=1), whole, out=np.zeros(len(whole)), where=whole > 0)
        drawn[start : start + step] = values
    return drawn


def _value(test: Test) -> float:
    whole = sum(divisor for _, divisor in test)
    return sum(part for part, _ in test) / whole if whole else 0.0
