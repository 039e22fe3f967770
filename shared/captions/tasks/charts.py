"""Checks of a chart's reading against itself: axes, data, shares and trends must not contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from captions.tasks.answers import ChartAnswer, Series
from captions.tasks.outputs import Problem

_FROM_ZERO = ("bar", "column", "area", "histogram")
_ROUND = ("pie", "donut", "doughnut")
_CUT = ("zero", "truncat", "cut", "null", "baseline", "not start", "cero", "zéro", "abgeschnitten", "截断", "零")
_RISING = ("increas", "rise", "rising", "rose", "grow", "grew", "upward", "climb")
_FALLING = ("decreas", "fall", "fell", "declin", "drop", "downward", "shrink", "shrank")
_MIXED = ("then", "before", "after", "until", "while", "except", "but", "peak", "fluctuat")


def truncated(answer: ChartAnswer) -> bool:
    """Tell whether bars or areas stand on a value axis that does not begin at zero, by the answer's own figures."""
    if not any(kind in answer.chart_type.lower() for kind in _FROM_ZERO):
        return False
    if "log" in answer.y_axis.scale.lower():
        return False
    # Bars that lie have their values along x.
    lying = "horizontal" in answer.chart_type.lower() or (answer.y_axis.min is None and answer.x_axis.min is not None)
    start = (answer.x_axis if lying else answer.y_axis).min
    values = [point.y for series in answer.series for point in series.points if point.y is not None]
    return start is not None and start > 0 and (not values or min(values) >= start)


def notes(answer: ChartAnswer) -> tuple[str, ...]:
    """Return what could mislead, with what the figures tell and the model did not say."""
    told = answer.misleading
    if truncated(answer) and not any(word in note.lower() for note in told for word in _CUT):
        axis = answer.y_axis if answer.y_axis.min is not None else answer.x_axis
        return (*told, f"The value axis begins at {axis.min:g}, not at zero.")
    return told


def problems(answer: ChartAnswer) -> Iterator[Problem]:
    """Yield the contradictions."""
    values = [point.y for series in answer.series for point in series.points if point.y is not None]
    is_none = answer.chart_type.strip().lower() in ("none", "no chart", "")
    if not is_none and not values:
        message = "No series has data; give the values, estimated from the axis where they are not written."
        yield Problem(code="no_data", message=message, repairable=True, weight=0.3)
    if truncated(answer) and notes(answer) != answer.misleading:
        message = "The value axis does not begin at zero, which was not called out."
        yield Problem(code="truncated_axis", message=message, weight=0.1)
    low, high = answer.y_axis.min, answer.y_axis.max
    lying = "horizontal" in answer.chart_type.lower()
    if low is not None and high is not None and not lying and values:
        if low > high:
            message = "The value axis ends below where it begins."
            yield Problem(code="axis", message=message, repairable=True, weight=0.2)
        else:
            room = 0.05 * (high - low)
            outside = sum(not low - room <= value <= high + room for value in values)
            if outside:
                message = f"{outside} of {len(values)} values lie outside the range of the value axis."
                yield Problem(code="outside_axis", message=message, repairable=True, weight=0.25)
    if any(kind in answer.chart_type.lower() for kind in _ROUND):
        yield from _shares(answer, values)
    yield from _trends(answer)


def _shares(answer: ChartAnswer, values: list[float]) -> Iterator[Problem]:
    total = sum(values)
    # Only what is near a whole is meant in percent; counts may add up to anything.
    percent = "%" in answer.y_axis.unit or "percent" in answer.y_axis.unit.lower() or 80 <= total <= 120
    if values and percent and not 97 <= total <= 103 and not 0.97 <= total <= 1.03:
        message = f"The shares add up to {total:g}, not to 100."
        yield Problem(code="shares", message=message, repairable=True, weight=0.2)


def _trends(answer: ChartAnswer) -> Iterator[Problem]:
    """A plain claim that a series rises or falls is held against its first and last values."""
    if len(answer.series) != 1 and not all(series.name for series in answer.series):
        return
    for trend in answer.trends:
        words = trend.lower()
        rising, falling = (any(word in words for word in stems) for stems in (_RISING, _FALLING))
        if rising == falling or any(word in words for word in _MIXED):
            continue
        series = _meant(answer.series, words)
        ends = [point.y for point in series.points if point.y is not None] if series else []
        if len(ends) >= 3 and ends[0] != ends[-1] and (ends[-1] > ends[0]) != rising:
            message = "A trend that was named contradicts the series' first and last values."
            yield Problem(code="trend", message=message, repairable=True, weight=0.25)
            return


def _meant(series: tuple[Series, ...], words: str) -> Series | None:
    if len(series) == 1:
        return series[0]
    named = [one for one in series if one.name.lower() in words]
    return named[0] if len(named) == 1 else None
