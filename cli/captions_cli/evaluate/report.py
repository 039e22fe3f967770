"""An evaluation as one HTML file: tables, plots, and the worst answers beside what is true.

Labels and answers are other people's text: the template escapes every value, control characters are shown as escapes,
the page has no script, and its own policy lets it load nothing.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from captions_cli.evaluate import tables
from captions_cli.evaluate.labels import Item
from captions_cli.evaluate.summary import JudgedAnswer
from captions_cli.printable import printable, printable_lines
from captions_cli.rendering import money

WORST = 20
_LONGEST = 3_000
_SIDE = 320
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b")
"""Told apart also by those who see few colours (Okabe and Ito, 2008)."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis."""

    at: float
    label: str
    strong: bool = False


@dataclass(frozen=True)
class Mark:
    """One value and its range, in pixels."""

    x: float
    y: float
    low: float | None
    high: float | None
    colour: str
    label: str = ""


@dataclass
class Plot:
    """A plot's frame in pixels, and what is in it."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


def html(facts: Mapping[str, Any], judged: Sequence[JudgedAnswer]) -> str:
    """Return the page."""
    from jinja2 import Environment

    found = facts["contenders"]
    tests = list(dict.fromkeys(test for one in found for test in one["tests"]))
    template = files("captions_cli.evaluate").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, finalize=_shown).from_string(template)
    return page.render(
        set=facts["set"],
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        spent=money(facts["spent"]),
        unknown=facts["calls_of_unknown_cost"],
        headings=("Mean", *tests, "Refused", "Repaired", "Escalated", "p50", "p99", "$ per 1,000"),
        rows=[_row(one, tests) for one in found],
        verdicts=list(tables.verdicts(facts)),
        costs=_costs(found),
        unpriced=[one["name"] for one in found if _dollars(one) is None],
        tests=_tests(found, tests),
        measures=list(tables.measure_rows(facts)),
        worst=[_bad(one) for one in _worst(judged)],
    )


def _shown(value: object) -> object:
    return printable_lines(value) if isinstance(value, str) else value


def _row(one: Mapping[str, Any], tests: Sequence[str]) -> list[str]:
    return [
        one["name"],
        tables.points(one["mean"]),
        *(tables.points(one["tests"][test]["score"]) if test in one["tests"] else "" for test in tests),
        *(tables.share(one[name]) for name in ("refused_share", "repaired_share", "escalated_share")),
        *(tables.seconds(one["latency_ms"][name]) for name in ("p50", "p99")),
        tables.dollars(one["dollars_per_1000"]),
    ]


def _dollars(one: Mapping[str, Any]) -> float | None:
    """Return what is known in full and can stand on a logarithmic axis."""
    cost = one["dollars_per_1000"]
    return float(cost["value"]) if cost["value"] is not None and not cost["at_least"] and float(cost["value"]) else None


def _costs(found: Sequence[Mapping[str, Any]]) -> Plot:
    plot = Plot(760, 400, 50, 600, 20, 340)
    priced = [(one, cost) for one in found if one["mean"] is not None and (cost := _dollars(one)) is not None]
    if not priced:
        return plot
    first = math.floor(math.log10(min(cost for _, cost in priced)))
    last = max(first + 1, math.ceil(math.log10(max(cost for _, cost in priced))))

    def across(cost: float) -> float:
        return round(plot.left + (math.log10(cost) - first) / (last - first) * (plot.right - plot.left), 1)

    def up(share: float) -> float:
        return round(plot.bottom - share * (plot.bottom - plot.top), 1)

    plot.x_ticks = [Tick(across(10.0**power), f"${10.0**power:g}") for power in range(first, last + 1)]
    plot.y_ticks = [Tick(up(score / 100), str(score)) for score in range(0, 101, 20)]
    for one, cost in priced:
        mean = one["mean"]
        low, high = (None if mean[side] is None else up(mean[side]) for side in ("low", "high"))
        plot.marks.append(Mark(across(cost), up(mean["value"]), low, high, _colour(found, one), one["name"]))
    return plot


def _tests(found: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> Plot:
    rows = sum(1 + sum(test in one["tests"] for one in found) for test in tests)
    plot = Plot(760, 22 * rows + 60, 260, 740, 10, 22 * rows + 20)

    def across(share: float) -> float:
        return round(plot.left + share * (plot.right - plot.left), 1)

    plot.x_ticks = [Tick(across(score / 100), str(score)) for score in range(0, 101, 20)]
    y = plot.top + 11
    for test in tests:
        plot.y_ticks.append(Tick(y, test, strong=True))
        for one in found:
            if test not in one["tests"]:
                continue
            y += 22
            plot.y_ticks.append(Tick(y, one["name"]))
            score = one["tests"][test]["score"]
            if score is not None:
                low, high = (None if score[side] is None else across(score[side]) for side in ("low", "high"))
                plot.marks.append(Mark(across(score["value"]), y, low, high, _colour(found, one)))
        y += 22
    return plot


def _colour(found: Sequence[Mapping[str, Any]], one: Mapping[str, Any]) -> str:
    return _COLOURS[found.index(one) % len(_COLOURS)]


def _worst(judged: Sequence[JudgedAnswer]) -> Iterator[JudgedAnswer]:
    """Yield the answers that are worth least, short of those that a model cannot give at all."""
    counted = [one for one in judged if one.parts is not None and one.state != "unable" and one.score[1]]
    ranked = sorted(counted, key=lambda one: one.score[0] / one.score[1])
    yield from (one for one in ranked[:WORST] if one.score[0] < one.score[1])


def _bad(one: JudgedAnswer) -> dict[str, Any]:
    item = one.question.item
    return {
        "name": printable(item.name),
        "model": one.question.contender.name,
        "test": one.test,
        "score": f"{100 * one.score[0] / one.score[1]:.0f} ({one.main})",
        "why": one.state if one.state != "answered" else ", ".join(one.answer["problems"]),
        "truth": _clipped(_truth(item)),
        "answer": _clipped(_answer(one)),
        "picture": _picture(item),
    }


def _truth(item: Item) -> str:
    if item.points:
        return "\n".join(f"{point.series} {point.x}: {point.y:g}".strip() for point in item.points)
    if item.objects:
        return "\n".join(" or ".join(names) for names in item.objects)
    return "\n".join(item.texts)


def _answer(one: JudgedAnswer) -> str:
    output = one.answer.get("output")
    if output is None:
        return str(one.answer.get("why", ""))
    data = output["data"]
    if one.question.item.measure == "chart":
        points = [(series["name"], point) for series in data.get("series", ()) for point in series["points"]]
        return "\n".join(f"{name} {point['x']}: {point['y']}".strip() for name, point in points)
    if one.question.item.measure == "objects":
        return "\n".join(thing["name"] for thing in data.get("objects", ()))
    return str(output["text"])


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _picture(item: Item) -> str | None:
    """Return a small copy of a picture for the page; None of what is none."""
    from PIL import Image

    from captions import media

    try:
        data = item.path.read_bytes()
        if media.sniff(data).kind in ("audio", "video"):
            return None
        copy, _ = media.model_copy(data, max_bytes=1_000_000, limits=media.Limits())
        with Image.open(io.BytesIO(copy)) as image:
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=70)
    except (OSError, media.MediaError):
        return None
    return base64.b64encode(file.getvalue()).decode()
