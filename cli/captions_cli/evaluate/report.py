"""An evaluation as one HTML file: tables, plots, and the worst answers beside what is true.

Labels and answers are other people's text: the template escapes every value, control characters are shown as escapes,
the page has no script, and its own policy lets it load nothing.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_COLOURS = 8
"""In the template, told apart also by those who see few colours (Okabe and Ito, 2008), lighter on dark ground."""
_LINE = 18.0
"""Pixels from one label to the next."""


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
    colour: int
    label: str = ""
    at_least: bool = False
    """Whether it may lie further right."""
    label_x: float = 0.0
    label_y: float = 0.0


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

    contenders = facts["contenders"]
    tests = list(dict.fromkeys(test for contender in contenders for test in contender["tests"]))
    template = files("captions_cli.evaluate").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, finalize=_shown).from_string(template)
    return page.render(
        set=facts["set"],
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        spent=money(facts["spent"]),
        unknown=facts["calls_of_unknown_cost"],
        headings=("Mean", *tests, "Refused", "Repaired", "Escalated", "p50", "p99", "$ per 1,000"),
        rows=[_row(contender, tests) for contender in contenders],
        verdicts=list(tables.verdicts(facts)),
        costs=_costs(contenders),
        unpriced=[contender["name"] for contender in contenders if _dollars(contender) is None],
        tests=_tests(contenders, tests),
        measures=list(tables.measure_rows(facts)),
        worst=[_bad(answer) for answer in _worst(judged)],
    )


def _shown(value: object) -> object:
    return printable_lines(value) if isinstance(value, str) else value


def _row(contender: Mapping[str, Any], tests: Sequence[str]) -> list[str]:
    return [
        contender["name"],
        tables.points(contender["mean"]),
        *(tables.points(contender["tests"][test]["score"]) if test in contender["tests"] else "" for test in tests),
        *(tables.share(contender[name]) for name in ("refused_share", "repaired_share", "escalated_share")),
        *(tables.seconds(contender["latency_ms"][name]) for name in ("p50", "p99")),
        tables.dollars(contender["dollars_per_1000"]),
    ]


def _dollars(contender: Mapping[str, Any]) -> float | None:
    """Return what is known and can stand on a logarithmic axis."""
    cost = contender["dollars_per_1000"]
    return float(cost["value"]) if cost["value"] is not None and float(cost["value"]) else None


def _costs(contenders: Sequence[Mapping[str, Any]]) -> Plot:
    plot = Plot(900, 400, 50, 620, 20, 340)
    priced = [
        (contender, cost)
        for contender in contenders
        if contender["mean"] is not None and (cost := _dollars(contender)) is not None
    ]
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
    for contender, cost in priced:
        mean = contender["mean"]
        low, high = (None if mean[side] is None else up(mean[side]) for side in ("low", "high"))
        at_least = bool(contender["dollars_per_1000"]["at_least"])
        colour, name = _colour(contenders, contender), contender["name"]
        plot.marks.append(Mark(across(cost), up(mean["value"]), low, high, colour, name, at_least))
    plot.marks = _labelled(plot)
    return plot


def _labelled(plot: Plot) -> list[Mark]:
    """Stand the labels beside the plot, each as near to the height of its mark as those above it let it."""
    ordered = sorted(plot.marks, key=lambda mark: (mark.y, -mark.x))
    lowest = plot.bottom - _LINE * len(ordered)
    placed: list[Mark] = []
    for place, mark in enumerate(ordered):
        y = max(min(mark.y, lowest + _LINE * (place + 1)), placed[-1].label_y + _LINE if placed else plot.top)
        placed.append(replace(mark, label_x=plot.right + 40, label_y=round(y, 1)))
    return placed


def _tests(contenders: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> Plot:
    rows = sum(1 + sum(test in contender["tests"] for contender in contenders) for test in tests)
    plot = Plot(760, 22 * rows + 60, 260, 740, 10, 22 * rows + 20)

    def across(share: float) -> float:
        return round(plot.left + share * (plot.right - plot.left), 1)

    plot.x_ticks = [Tick(across(score / 100), str(score)) for score in range(0, 101, 20)]
    y = plot.top + 11
    for test in tests:
        plot.y_ticks.append(Tick(y, test, strong=True))
        for contender in contenders:
            if test not in contender["tests"]:
                continue
            y += 22
            plot.y_ticks.append(Tick(y, contender["name"]))
            score = contender["tests"][test]["score"]
            if score is not None:
                low, high = (None if score[side] is None else across(score[side]) for side in ("low", "high"))
                plot.marks.append(Mark(across(score["value"]), y, low, high, _colour(contenders, contender)))
        y += 22
    return plot


def _colour(contenders: Sequence[Mapping[str, Any]], contender: Mapping[str, Any]) -> int:
    return contenders.index(contender) % _COLOURS


def _worst(judged: Sequence[JudgedAnswer]) -> Iterator[JudgedAnswer]:
    """Yield the answers that are worth least, short of those that a model cannot give at all."""
    counted = [answer for answer in judged if answer.parts is not None and answer.state != "unable" and answer.score[1]]
    ranked = sorted(counted, key=lambda answer: answer.score[0] / answer.score[1])
    yield from (answer for answer in ranked[:WORST] if answer.score[0] < answer.score[1])


def _bad(answer: JudgedAnswer) -> dict[str, Any]:
    item = answer.question.item
    return {
        "name": printable(item.name),
        "model": answer.question.contender.name,
        "test": answer.test,
        "score": f"{100 * answer.score[0] / answer.score[1]:.0f} ({answer.main})",
        "why": answer.state if answer.state != "answered" else ", ".join(answer.answer["problems"]),
        "truth": _clipped(_truth(item)),
        "answer": _clipped(_answer(answer)),
        "picture": _picture(item),
    }


def _truth(item: Item) -> str:
    if item.points:
        return "\n".join(f"{point.series} {point.x}: {point.y:g}".strip() for point in item.points)
    if item.objects:
        return "\n".join(" or ".join(names) for names in item.objects)
    return "\n".join(item.texts)


def _answer(answer: JudgedAnswer) -> str:
    output = answer.answer.get("output")
    if output is None:
        return str(answer.answer.get("why", ""))
    data = output["data"]
    if answer.question.item.measure == "chart":
        points = [(series["name"], point) for series in data.get("series", ()) for point in series["points"]]
        return "\n".join(f"{name} {point['x']}: {point['y']}".strip() for name, point in points)
    if answer.question.item.measure == "objects":
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
