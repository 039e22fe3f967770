"""An evaluation for people: a row for each model, and how sure its place is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from captions_cli import printing


def contenders(facts: Mapping[str, Any]) -> Table:
    """A table of models or policies by test, 0 to 100, with what they cost and how long they take."""
    tests = list(dict.fromkeys(test for contender in facts["contenders"] for test in contender["tests"]))
    numbers = ("Mean", *tests, "Refused", "Repaired", "Escalated", "p50", "p99", "$ per 1,000")
    table = printing.columns("Model", *numbers, right=numbers)
    for contender in facts["contenders"]:
        table.add_row(
            contender["name"],
            _mean(contender, len(tests)),
            *(points(contender["tests"][test]["score"]) if test in contender["tests"] else "" for test in tests),
            *(share(contender[name]) for name in ("refused_share", "repaired_share", "escalated_share")),
            *(seconds(contender["latency_ms"][name]) for name in ("p50", "p99")),
            dollars(contender["dollars_per_1000"]),
        )
    return table


def measures(facts: Mapping[str, Any]) -> Table:
    """A table of every measure of every test."""
    table = printing.columns("Test", "Measure", "Model", "Value", "Answered", right=("Value", "Answered"))
    for row in measure_rows(facts):
        table.add_row(*row)
    return table


def measure_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield test, measure, model, value and how many questions were answered."""
    for contender in facts["contenders"]:
        for test, about in contender["tests"].items():
            for name, value in about["measures"].items():
                answered = f"{about['states'].get('answered', 0)} of {about['questions']}"
                yield test, name, contender["name"], _figure(value), answered


def verdicts(facts: Mapping[str, Any]) -> Iterator[str]:
    """Whether the first is better than the others, in words."""
    for comparison in facts["comparisons"]:
        gap = comparison["difference"]
        about = f"{comparison['first']} and {comparison['second']}, {comparison['items']} answers each"
        if comparison["verdict"] == "too few":
            yield f"{about}: too few to tell them apart"
            continue
        by = f"{100 * gap['value']:+.1f} points ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
        if comparison["verdict"] == "cannot be told":
            yield f"{about}: {by}, which of them is better cannot be told"
        else:
            better, worse = (comparison["first"], comparison["second"])[
                :: 1 if comparison["verdict"] == "better" else -1
            ]
            yield f"{better} is better than {worse}: {by} over {comparison['items']} answers each"


def points(value: Mapping[str, Any] | None) -> str:
    """A score as the field writes it, 0 to 100, with its interval."""
    if value is None:
        return "-"
    if value["low"] is None:
        return f"{100 * value['value']:.1f}"
    return f"{100 * value['value']:.1f} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def share(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.0f}%"


def seconds(milliseconds: float | None) -> str:
    """A time in seconds."""
    return "-" if milliseconds is None else f"{milliseconds / 1000:.2f} s"


def dollars(cost: Mapping[str, Any]) -> str:
    """Dollars per 1,000, as far as they are known."""
    if cost["value"] is None:
        return "unknown" if cost["unknown_calls"] else "-"
    amount = float(cost["value"])
    dollars = f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.4f}"
    return f"at least {dollars}" if cost["at_least"] else dollars


def _mean(contender: Mapping[str, Any], tests: int) -> str:
    mean = points(contender["mean"])
    return mean if contender["tests_scored"] in (0, tests) else f"{mean}, {contender['tests_scored']} of {tests} tests"


def _figure(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
