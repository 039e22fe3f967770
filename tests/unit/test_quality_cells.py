"""Shares of edited captions: what is certain of them, and when a cell is flagged."""

from statistics import NormalDist

import pytest

from captions.quality.cells import LINE, MINIMUM, Cell, VerdictCounts, difference

CELL = Cell("photo", "GPT-4o", "caption", "caption-0123")


@pytest.mark.parametrize(("edited", "judged"), [(0, 1), (1, 1), (7, 20), (31, 100), (300, 1000), (0, 500)])
def test_intervals_are_wilsons(edited: int, judged: int) -> None:
    """At its two ends, and nowhere else, the score test is as sure as the interval is."""
    low, high = VerdictCounts(edited, judged - edited).interval
    assert 0 <= low < high <= 1
    for end in (low, high):
        score = judged * (edited / judged - end) ** 2
        assert score == pytest.approx(NormalDist().inv_cdf(0.975) ** 2 * end * (1 - end), abs=1e-9)


def test_nothing_judged_says_nothing() -> None:
    assert (VerdictCounts().share, VerdictCounts().interval) == (None, (0.0, 1.0))
    assert difference(VerdictCounts(), VerdictCounts(1, 1)) is None


def test_the_difference_is_newcombes() -> None:
    # Newcombe 1998, table II, method 10: 56/70 and 48/80.
    result = difference(VerdictCounts(56, 14), VerdictCounts(48, 32))
    assert result == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_a_flag_is_raised_when_it_is_certain_and_lowered_at_the_line() -> None:
    below = [VerdictCounts(edited, judged - edited) for judged in range(MINIMUM) for edited in range(judged + 1)]
    assert not any(counts.too_often(flagged=flagged) for counts in below for flagged in (False, True))
    assert VerdictCounts(12, 8).too_often(flagged=False)
    above_but_not_certain = VerdictCounts(32, 68)
    assert above_but_not_certain.share is not None
    assert above_but_not_certain.share > LINE
    assert not above_but_not_certain.too_often(flagged=False)
    assert above_but_not_certain.too_often(flagged=True)
    assert not VerdictCounts(30, 70).too_often(flagged=True)


def test_cells_are_told_apart_by_everything_they_are_counted_by() -> None:
    others = [
        Cell("chart", "GPT-4o", "caption", "caption-0123"),
        Cell("photo", "GLM-4.6V", "caption", "caption-0123"),
        Cell("photo", "GPT-4o", "alt_text", "caption-0123"),
        Cell("photo", "GPT-4o", "caption", "caption-4567"),
        Cell("photo", "GPT-4o", "caption", "caption-0123", "short", "control"),
        Cell("photo", "GPT-4o", "caption", "caption-0123", "short", "variant"),
    ]
    assert len({entry.id for entry in (CELL, *others)}) == 7
    assert len({entry.count("edited") for entry in (CELL, *others) if entry.category == "photo"}) == 6
