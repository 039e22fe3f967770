"""What the parts of a recording were answered with, and how their data go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captions.tasks.result import Output


@dataclass(frozen=True)
class Heard:
    """What a part, from `start_s` to `end_s` of the recording, was answered with; its own times count from 0."""

    start_s: float
    end_s: float
    output: Output
    model: str = ""

    @property
    def seconds(self) -> float:
        """How long the part plays."""
        return max(0.0, self.end_s - self.start_s)


def longest(parts: Sequence[Heard], of: Callable[[Heard], str]) -> str | None:
    """Return the value that holds for most of the time; None without parts."""
    milliseconds: Counter[str] = Counter()
    for part in parts:
        milliseconds[of(part)] += max(1, round(part.seconds * 1000))
    return milliseconds.most_common(1)[0][0] if milliseconds else None


def lists(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the first part's fields, with what the others add to its lists."""
    data: dict[str, Any] = {}
    for part in parts:
        for name, value in part.output.data.items():
            if name not in data:
                data[name] = list(value) if isinstance(value, list) else value
            elif isinstance(value, list) and isinstance(data[name], list):
                data[name] += [item for item in value if item not in data[name]]
    return data
