"""How often people edit captions, by what the captions came from, and the pictures behind it."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from captions.quality import cells
from captions.quality.cells import LINE, MINIMUM, Quality, VerdictCounts
from captions.records.listing import Filters, stages
from captions.records.record import Record
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack

QualityBy = Literal["cell", "category", "model", "prompt", "experiment"]


def report(stack: Stack, *, days: int) -> list[Quality]:
    """Return every cell with verdicts in the last days, flagged ones first."""
    table = stack.output("ControlTableName")
    return cells.report(stack.client("dynamodb"), table, days=days, now=time.time())


def behind(stack: Stack, entries: Sequence[Quality], cell: str, *, limit: int) -> tuple[Quality, list[Record]]:
    """Return a cell, named by its id or the beginning of it, and up to `limit` judged records, edited ones first.

    Raises CommandError where no cell, or more than one, is named so.
    """
    named = [entry for entry in entries if entry.cell.id.startswith(cell)]
    if len(named) != 1:
        what = "no row" if not named else f"{len(named)} rows"
        raise CommandError(f"{what} of `captions quality` has the id {cell!r}", ExitCode.NOT_CAPTIONED)
    (quality,) = named
    filters = Filters((f"{stack.bucket}/",), cell=quality.cell.id)
    order = stages("newest", filters, today=datetime.now(UTC).date(), first=None, days=1)
    return quality, list(islice(stack.listing.walk(order, filters, chunk=limit), limit))


def as_json(entries: Iterable[Quality], by: QualityBy, days: int) -> dict[str, Any]:
    """Return the report as plain values, as `GET /v1/quality` answers it; sums where it is grouped."""
    entries = list(entries)
    result: dict[str, Any] = {"days": days, "minimum": MINIMUM, "line": LINE}
    if by == "cell":
        return result | {"cells": [entry.as_dict() for entry in entries]}
    result["groups"] = [
        {by: " ".join(dict.fromkeys(name)), **counted(sums)} for name, sums in cells.grouped(entries, by).items()
    ]
    if by == "experiment":
        result["differences"] = [entry.__dict__ for entry in differences(entries)]
    return result


def counted(sums: VerdictCounts) -> dict[str, Any]:
    """Return counts, the share and its interval as plain values."""
    (low, high), share = sums.interval, sums.share
    return {
        "edited": sums.edited,
        "accepted": sums.accepted,
        "share": None if share is None else round(share, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


@dataclass(frozen=True)
class Difference:
    """By how much more of an experiment's variant is edited than of its control, as shares, and the interval's ends.

    `certain`: each side has as many verdicts as a flag needs, and the interval does not hold zero.
    """

    experiment: str
    by: float
    low: float
    high: float
    certain: bool


def differences(entries: Iterable[Quality]) -> list[Difference]:
    """Compare the two sides of each experiment."""
    arms: dict[str, dict[str, VerdictCounts]] = defaultdict(dict)
    for (experiment, arm), sums in cells.grouped(entries, "experiment").items():
        arms[experiment][arm] = sums
    result: list[Difference] = []
    for name, sides in arms.items():
        variant, control = sides.get("variant", VerdictCounts()), sides.get("control", VerdictCounts())
        if (compared := cells.difference(variant, control)) is not None:
            by, low, high = (round(entry, 4) for entry in compared)
            certain = min(variant.judged, control.judged) >= MINIMUM and not low <= 0 <= high
            result.append(Difference(name, by, low, high, certain))
    return result
