"""How far answers are trusted, and what people's verdicts change in that."""

import math
import random

import pytest

from captions.quality.calibration import BINS, Verdicts, bin_of, fit, fuse
from captions.tasks import Output, Problem, Reading


def reading(*weights: float, own: float | None = None) -> Reading:
    problems = tuple(Problem(code="x", message="x", weight=weight) for weight in weights)
    return Reading(Output(text="A dog.", language="en", confidence=own), problems)


def test_checks_decide_and_a_model_can_only_lower_its_own_score() -> None:
    assert fuse(reading()) == 1.0
    assert fuse(reading(0.1, 0.3)) == pytest.approx(0.6)
    assert fuse(reading(0.9, 0.9)) == 0.0
    assert fuse(reading(own=1.0)) == 1.0
    assert fuse(reading(own=0.0)) == 0.5
    assert fuse(reading(0.5, own=1.0)) == 0.5
    assert fuse(reading(own=0.8), mean_logprob=math.log(0.6)) == pytest.approx(0.5 + 0.5 * 0.7)
    assert fuse(Reading(None)) == 0.0


def judged(count: int, slope: float, offset: float) -> Verdicts:
    chance = random.Random(7)
    accepted, edited = [0] * BINS, [0] * BINS
    for _ in range(count):
        score = chance.uniform(0.02, 0.98)
        p = 1 / (1 + math.exp(-(slope * math.log(score / (1 - score)) + offset)))
        (accepted if chance.random() < p else edited)[bin_of(score)] += 1
    return Verdicts(accepted, edited)


def test_a_calibration_finds_what_people_did() -> None:
    calibration = fit(judged(5_000, 1.5, -1.0), least=100)
    assert calibration is not None
    for score in (0.2, 0.5, 0.8):
        truth = 1 / (1 + math.exp(-(1.5 * math.log(score / (1 - score)) - 1.0)))
        assert calibration(score) == pytest.approx(truth, abs=0.05)
    assert 0 < calibration(0.0) < calibration(1.0) < 1


@pytest.mark.parametrize(
    "verdicts",
    [
        Verdicts(),
        judged(99, 1.5, 0.0),
        Verdicts([10] * BINS, [0] * BINS),
        Verdicts([0] * BINS, [10] * BINS),
        judged(2_000, -1.5, 0.0),
    ],
    ids=["nothing", "too few", "only accepts", "only edits", "the wrong way round"],
)
def test_without_enough_of_both_nothing_is_calibrated(verdicts: Verdicts) -> None:
    assert fit(verdicts, least=100) is None
