"""How often people edit captions, by category, model, prompt and side of an experiment, and where that is too often.

Verdicts are counted by day in the control table, in one item for each day and category, which expires: there are never
more of them than days are kept times categories. A cell is flagged once it is certain that more than LINE of its judged
captions are edited, and until that share is at most LINE. Half an interval lies between the two, so that a share near
the line does not flag it again and again.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Self

from captions import control_table
from captions.aws.dynamodb import from_item

LINE = 0.3
"""Share of edited captions above which a model or prompt is not good enough for what it is asked about."""
MINIMUM = 20
"""Verdicts in a cell, below which nothing is said about it."""
WINDOW_DAYS = 28
"""The last days that decide whether a cell is flagged: four weeks, so that weekdays weigh the same."""
KEPT_DAYS = 100
"""How long the counts of a day are kept."""
CONFIDENCE = 0.95
"""Of intervals."""

VerdictKind = Literal["edited", "accepted"]


@dataclass(frozen=True)
class Cell:
    """What verdicts are counted by; `experiment` and `arm` are None outside experiments."""

    category: str
    model: str
    task: str
    prompt_version: str
    experiment: str | None = None
    arm: str | None = None

    @property
    def id(self) -> str:
        """Return 12 hexadecimal digits that tell it from all others."""
        return hashlib.sha256(json.dumps(list(asdict(self).values())).encode()).hexdigest()[:12]

    def count(self, verdict: VerdictKind) -> str:
        """Return the name of its count of a verdict, in the item of its category and a day."""
        return json.dumps([verdict, *list(asdict(self).values())[1:]], separators=(",", ":"))


@dataclass(frozen=True)
class VerdictCounts:
    """How many captions people edited, and accepted as they were."""

    edited: int = 0
    accepted: int = 0

    def __add__(self, other: "VerdictCounts") -> "VerdictCounts":
        return VerdictCounts(self.edited + other.edited, self.accepted + other.accepted)

    @property
    def judged(self) -> int:
        """Both together."""
        return self.edited + self.accepted

    @property
    def share(self) -> float | None:
        """The share that was edited; None where nothing was judged."""
        return self.edited / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval of that share; from 0 to 1 where nothing was judged.

        Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
        """
        if not self.judged:
            return 0.0, 1.0
        n, p, z = self.judged, self.edited / self.judged, _Z
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def too_often(self, *, flagged: bool) -> bool:
        """Tell whether a cell with these counts is to be flagged, or to stay so."""
        if self.judged < MINIMUM or self.share is None:
            return False
        return self.share > LINE if flagged else self.interval[0] > LINE


_Z = 1.959963984540054
"""How many standard deviations lie on each side of the mean in CONFIDENCE of a normal distribution."""


def difference(entry: VerdictCounts, other: VerdictCounts) -> tuple[float, float, float] | None:
    """Return by how much the edited share of `one` is above the other's, and the interval's ends; None: no verdicts.

    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine
    17 (1998), method 10.
    """
    if entry.share is None or other.share is None:
        return None
    (low1, high1), (low2, high2) = entry.interval, other.interval
    by = entry.share - other.share
    below = math.hypot(entry.share - low1, high2 - other.share)
    above = math.hypot(high1 - entry.share, other.share - low2)
    return by, by - below, by + above


class Quality(NamedTuple):
    """A cell and what people did with its captions; `flagged_since` is ISO 8601, None where it is not flagged."""

    cell: Cell
    counts: VerdictCounts
    flagged_since: str | None = None

    @property
    def flagged(self) -> bool:
        """Whether it is edited too often."""
        return self.flagged_since is not None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values; shares are 0 to 1."""
        (low, high), share = self.counts.interval, self.counts.share
        return {
            "id": self.cell.id,
            **asdict(self.cell),
            **asdict(self.counts),
            "share": None if share is None else round(share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "flagged": self.flagged,
            "flagged_since": self.flagged_since,
        }


class QualityFlag(NamedTuple):
    """A cell's entry in the control table: since when it is edited too often, and whether the bus has it."""

    cell: Cell
    since: str
    published: bool

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Read it from DynamoDB attribute values."""
        values: dict[str, Any] = from_item(item)
        named = {entry.name: values[entry.name] for entry in fields(Cell) if entry.name in values}
        cell = Cell(**named)
        return cls(cell, str(values["since"]), bool(values.get("published")))


def expires_at(day: str) -> int:
    """Return when the counts of a day, YYYY-MM-DD, may go, in epoch seconds."""
    return int((datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=KEPT_DAYS)).timestamp())


def counts_by_cell(dynamodb: Any, table: str, *, days: int, now: float) -> dict[Cell, VerdictCounts]:
    """Add up the last `days` days by cell, this day (UTC) included; one query of some kilobytes a day."""
    first = (datetime.fromtimestamp(now, UTC) - timedelta(days=days - 1)).date().isoformat()
    start = control_table.verdicts_of_day(first)
    counts_of: dict[Cell, VerdictCounts] = defaultdict(VerdictCounts)
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :pk AND sk >= :first",
        ExpressionAttributeValues={":pk": start["pk"], ":first": start["sk"]},
    )
    for item in (item for page in pages for item in page["Items"]):
        category = item["sk"]["S"].partition("#")[2]
        for name, value in item.items():
            if name.startswith("["):
                verdict, *cell = json.loads(name)
                counts_of[Cell(category, *cell)] += VerdictCounts(**{verdict: int(value["N"])})
    # Of a verdict taken back whose day has expired meanwhile, less than nothing may be left.
    held = {cell: VerdictCounts(max(0, entry.edited), max(0, entry.accepted)) for cell, entry in counts_of.items()}
    return {cell: counts for cell, counts in held.items() if counts.judged}


def flags(dynamodb: Any, table: str) -> dict[Cell, QualityFlag]:
    """Return the cells that are flagged."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": control_table.flag()["pk"]},
        ConsistentRead=True,
    )
    read = (QualityFlag.from_item(item) for page in pages for item in page["Items"])
    return {flag.cell: flag for flag in read}


def report(dynamodb: Any, table: str, *, days: int, now: float) -> list[Quality]:
    """Return every cell with verdicts in the last `days` days, flagged ones first, then by the certain share.

    `dynamodb` is a boto3 client, `table` the control table. The sweep decides whether a cell is flagged, by the last
    WINDOW_DAYS, whatever `days` says.
    """
    flagged = flags(dynamodb, table)
    counted = counts_by_cell(dynamodb, table, days=days, now=now)
    counts_of = [
        Quality(cell, counted.get(cell, VerdictCounts()), flagged[cell].since if cell in flagged else None)
        for cell in {*counted, *flagged}
    ]
    return sorted(counts_of, key=lambda entry: (not entry.flagged, -entry.counts.interval[0], entry.cell.id))


def grouped(
    counts_of: Iterable[Quality], by: Literal["category", "model", "prompt", "experiment"]
) -> dict[tuple[str, ...], VerdictCounts]:
    """Add up cells that agree in their category, model, prompt version, or experiment and arm."""
    sums: dict[tuple[str, ...], VerdictCounts] = defaultdict(VerdictCounts)
    for entry in counts_of:
        cell = entry.cell
        match by:
            case "category":
                name: tuple[str, ...] = (cell.category,)
            case "model":
                name = (cell.model,)
            case "prompt":
                name = (cell.prompt_version,)
            case "experiment":
                name = (cell.experiment or "-", cell.arm or "-")
        sums[name] += entry.counts
    return dict(sorted(sums.items()))
