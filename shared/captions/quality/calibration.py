"""How far an answer can be trusted: fused from what is known of it, and calibrated by what people made of it.

Until people have judged enough answers of a model to a task, the score is

    checks * (0.5 + 0.5 * mean(what the model says of itself, as far as it says anything))

where `checks` is 1 less the weights of the problems found (at least 0), and what the model says is its own rating and
the geometric mean of its tokens' probabilities. A model's opinion of itself thus takes half of the score at most, and
never mends what a check has found. From then on that score is mapped to the share of such answers that people accepted
as they were: p = 1 / (1 + exp(a * f + b)), with f the score's log-odds (Platt, "Probabilistic Outputs for Support
Vector Machines", 1999; fitted as in Lin, Lin and Weng, "A Note on Platt's Probabilistic Outputs", 2007).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captions.tasks import Reading

BINS = 20
"""Bins of the score in which accepts and edits are counted: a bin is 0.05 wide."""
LEAST_SHARE = 0.1
"""Of either verdict, below which a model's scores are left alone: a curve through one kind of verdict says nothing."""
_EDGE = 0.01
_ITERATIONS = 100
_STEEPEST = 0.0


@dataclass(frozen=True)
class Platt:
    """One model's calibration for one task, from `judged` answers."""

    a: float
    b: float
    judged: int

    def __call__(self, score: float) -> float:
        """Return the probability that a person accepts an answer of this score as it is."""
        return 1.0 / (1.0 + math.exp(self.a * _log_odds(score) + self.b))


@dataclass(frozen=True)
class Verdicts:
    """How often people accepted and edited answers, by the bin of their score."""

    accepted: Sequence[int] = (0,) * BINS
    edited: Sequence[int] = (0,) * BINS

    @property
    def judged(self) -> int:
        """Answers in all."""
        return sum(self.accepted) + sum(self.edited)


def fuse(reading: Reading, mean_logprob: float | None = None) -> float:
    """Return the score of an answer, 0 to 1, before calibration; 0 for one that is of no use.

    `mean_logprob` is the mean natural logarithm of the probabilities of the answer's tokens, where the model gave them.
    """
    if reading.output is None:
        return 0.0
    checks = max(0.0, 1.0 - sum(problem.weight for problem in reading.problems))
    pairs = []
    if reading.output.confidence is not None:
        pairs.append(reading.output.confidence)
    if mean_logprob is not None:
        pairs.append(math.exp(min(0.0, mean_logprob)))
    return checks * (0.5 + 0.5 * sum(pairs) / len(pairs)) if pairs else checks


def bin_of(score: float) -> int:
    """Return the bin that a score is counted in."""
    return min(BINS - 1, max(0, int(score * BINS)))


def fit(verdicts: Verdicts, *, least: int) -> Platt | None:
    """Fit the calibration to what people did; None while fewer than `least` answers, or all of one kind, were judged.

    A curve that would trust lower scores more is noise, and is not used either.
    """
    positive, negative = sum(verdicts.accepted), sum(verdicts.edited)
    judged = positive + negative
    if judged < least or min(positive, negative) < LEAST_SHARE * judged:
        return None
    # Bayes-smoothed targets instead of 0 and 1, so that few answers do not make a certainty (Platt, section 2.2).
    hit, miss = (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0)
    points = [
        (_log_odds((index + 0.5) / BINS), count, target)
        for counts, target in ((verdicts.accepted, hit), (verdicts.edited, miss))
        for index, count in enumerate(counts)
        if count
    ]
    a, b = _newton(points, math.log((negative + 1.0) / (positive + 1.0)))
    return Platt(a, b, judged) if a < _STEEPEST else None


def _log_odds(score: float) -> float:
    clipped = min(1.0 - _EDGE, max(_EDGE, score))
    return math.log(clipped / (1.0 - clipped))


def _newton(points: Sequence[tuple[float, int, float]], b: float) -> tuple[float, float]:
    """Minimise the cross-entropy of (log-odds, count, target) by Newton's method with backtracking."""
    a = 0.0
    loss = _loss(points, a, b)
    for _ in range(_ITERATIONS):
        h11 = h22 = 1e-12
        h21 = g1 = g2 = 0.0
        for f, count, target in points:
            p = 1.0 / (1.0 + math.exp(a * f + b))
            curvature = count * p * (1.0 - p)
            h11 += f * f * curvature
            h22 += curvature
            h21 += f * curvature
            slope = count * (target - p)
            g1 += f * slope
            g2 += slope
        if abs(g1) < 1e-5 and abs(g2) < 1e-5:
            break
        determinant = h11 * h22 - h21 * h21
        da, db = -(h22 * g1 - h21 * g2) / determinant, -(h11 * g2 - h21 * g1) / determinant
        descent = g1 * da + g2 * db
        step = 1.0
        while step >= 1e-10:
            tried = _loss(points, a + step * da, b + step * db)
            if tried < loss + 1e-4 * step * descent:
                a, b, loss = a + step * da, b + step * db, tried
                break
            step /= 2.0
        else:
            break
    return a, b


def _loss(points: Sequence[tuple[float, int, float]], a: float, b: float) -> float:
    total = 0.0
    for f, count, target in points:
        z = a * f + b
        # log(1 + e^z) without overflow, on either side of zero.
        total += count * (max(z, 0.0) + math.log1p(math.exp(-abs(z))) - (1.0 - target) * z)
    return total
