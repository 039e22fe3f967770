"""Charts: their data, and whether what is said of them contradicts itself: axes, data, shares and trends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Lines, Number, Shape, Text, list_of, part_of
from captions.tasks.registry import PICTURES, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft
    from captions.tasks.result import Problem

_FROM_ZERO = ("bar", "column", "area", "histogram")
_ROUND = ("pie", "donut", "doughnut")
_CUT = ("zero", "truncat", "cut", "null", "baseline", "not start", "cero", "zéro", "abgeschnitten", "截断", "零")
_RISING = ("increas", "rise", "rising", "rose", "grow", "grew", "upward", "climb")
_FALLING = ("decreas", "fall", "fell", "declin", "drop", "downward", "shrink", "shrank")
_MIXED = ("then", "before", "after", "until", "while", "except", "but", "peak", "fluctuat")


class Axis(Shape):
    """An axis of a chart."""

    aliases: ClassVar[Mapping[str, str]] = {"title": "label", "name": "label", "minimum": "min", "maximum": "max"}
    label: Text = Field("", description="its title")
    unit: Text = Field("", description="its unit")
    min: Number = Field(None, description="the value at its start")
    max: Number = Field(None, description="the value at its end")
    scale: Text = Field("", description="linear, log, categories, dates")


class Point(Shape):
    """A value of a series."""

    aliases: ClassVar[Mapping[str, str]] = {"label": "x", "category": "x", "name": "x", "value": "y"}
    x: Text = Field("", description="category or value")
    y: Number = Field(None, description="value")


class Series(Shape):
    """A line, or a set of bars."""

    aliases: ClassVar[Mapping[str, str]] = {"label": "name", "data": "points", "values": "points"}
    name: Text = Field("", description="its name in the legend")
    points: Annotated[tuple[Point, ...], list_of(Point)] = Field(())
    read: Text = Field("", description="'labels' if the values are written, 'estimated' if read off the axis")


class ChartAnswer(Answer):
    """What a chart shows, and its data."""

    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"type": "chart_type", "description": "summary", "data": "series"}
    summary: Text = Field("", description="what the chart shows and its main finding, in one to three sentences")
    chart_type: Text = Field("", description="bar, line, pie, scatter, ...; 'none' if this is no chart")
    title: Text = Field("", description="the title as written")
    x_axis: Annotated[Axis, part_of(Axis)] = Field(Axis())
    y_axis: Annotated[Axis, part_of(Axis)] = Field(Axis())
    series: Annotated[tuple[Series, ...], list_of(Series)] = Field(())
    trends: Lines = Field((), description="one trend or comparison, with its figures")
    misleading: Lines = Field((), description="what could mislead: an axis not from zero, uneven steps, two scales ...")


def read(answer: ChartAnswer, draft: AnswerDraft) -> None:
    """Read a chart: where the picture looks like none, or like one that was missed, the answer is doubted."""
    summary = draft.plain(answer.summary)
    if not summary and not answer.series:
        draft.fail("empty", "There was neither a summary nor any data.")
        return
    is_chart = answer.chart_type.strip().lower() not in ("none", "no chart")
    if is_chart:
        draft.add(*problems(answer))
        if draft.seen.category in ("photo", "product", "busy", "little"):
            message = "A chart was described, but the picture does not look like one; its type is 'none' if it is none."
            draft.doubt("no_chart", message, repairable=True, weight=0.3)
    elif draft.seen.category == "chart":
        draft.doubt("chart_missed", "The picture looks like a chart, but was called none.", repairable=True, weight=0.3)
    draft.text = summary or answer.title or answer.chart_type
    draft.written = [text for text in (summary, *answer.trends, *answer.misleading) if text]
    draft.read = [answer.title, answer.x_axis.label, answer.y_axis.label, *(series.name for series in answer.series)]
    draft.read += [point.x for series in answer.series for point in series.points]
    draft.data = {
        "chart_type": answer.chart_type.strip().lower() or "unknown",
        "title": answer.title,
        "x_axis": answer.x_axis.model_dump(),
        "y_axis": answer.y_axis.model_dump(),
        "series": [series.model_dump(mode="json") for series in answer.series],
        "trends": list(answer.trends),
        "misleading": list(notes(answer)) if is_chart else [],
    }


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
    """Return what could mislead, with what the figures show and the model did not say."""
    if truncated(answer) and not any(word in note.lower() for note in answer.misleading for word in _CUT):
        axis = answer.y_axis if answer.y_axis.min is not None else answer.x_axis
        return (*answer.misleading, f"The value axis begins at {axis.min:g}, not at zero.")
    return answer.misleading


def problems(answer: ChartAnswer) -> Iterator[Problem]:
    """Yield the contradictions."""
    from captions.tasks.result import Problem

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
    from captions.tasks.result import Problem

    total = sum(values)
    # Only what is near a whole is meant in percent; counts may add up to anything.
    percent = "%" in answer.y_axis.unit or "percent" in answer.y_axis.unit.lower() or 80 <= total <= 120
    if values and percent and not 97 <= total <= 103 and not 0.97 <= total <= 1.03:
        message = f"The shares add up to {total:g}, not to 100."
        yield Problem(code="shares", message=message, repairable=True, weight=0.2)


def _trends(answer: ChartAnswer) -> Iterator[Problem]:
    """A plain claim that a series rises or falls is held against its first and last values."""
    from captions.tasks.result import Problem

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
    named = [line for line in series if line.name.lower() in words]
    return named[0] if len(named) == 1 else None


TASK = Task(
    name="chart",
    kinds=PICTURES,
    needs="image",
    max_tokens=3_000,
    shape=ChartAnswer,
    role="You read charts for people who cannot see them.",
    rules=(
        "Give type, title, axes with their units and first and last values, and the data of every series: written "
        "values as they are written, others estimated from the axis and marked so.",
        "Name trends and comparisons with their figures, from the data alone.",
        "Call out what could mislead: a value axis that does not begin at zero under bars or areas, uneven steps, "
        "two scales, shares that do not add up, three-dimensional distortion, a cut range.",
        "If the picture is no chart, its type is 'none' and the lists are empty.",
    ),
    request="Read this chart.",
    read=read,
    exact_only=True,
    prose_is_useful=False,
)
