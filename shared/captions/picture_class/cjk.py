"""Whether writing is Chinese, Japanese or Korean: told from how lines are built, without reading a letter.

Their characters fill a square each, with several strokes above one another; letters of alphabets have one or two, most
of their ink between baseline and x-height, and gaps between words. Looked at is the part with most writing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

_SMALLEST_LINE, _TALLEST_LINE = 8, 60  # pixels: of smaller lines strokes run together, larger ones are headings
_LEAST_COLUMNS = 80  # with ink, in all lines together
_DENSEST = 0.45  # of a line's pixels: bars and inverted headings have more
_CONTRAST = 50  # of 255 between ink and ground


def measured_lines(working: Image.Image, box: Box) -> dict[str, float] | None:
    """Measure the lines of writing in `box` (shares of width and height); None where there are none to measure."""
    width, height = working.size
    area = (int(box[0] * width), int(box[1] * height), math.ceil(box[2] * width), math.ceil(box[3] * height))
    luma = np.asarray(working.crop(area).convert("L"))
    ink = _ink(luma)
    if ink is None:
        return None
    lines = [line for line in (ink[top:bottom] for top, bottom in _lines(ink)) if line.mean() < _DENSEST]
    stacked = [_stacked(line) for line in lines]
    columns = sum(len(rows) for rows in stacked)
    if columns < _LEAST_COLUMNS:
        return None
    runs = np.concatenate(stacked)
    weights = [line.sum() for line in lines]
    return {
        "stacked": float(runs.mean()),
        "stacked_many": float((runs >= 3).mean()),
        "upper": float(np.average([_upper(line) for line in lines], weights=weights)),
        "filled": float(np.average([line.any(axis=0).mean() for line in lines], weights=weights)),
        "even": float(np.average([_even(line) for line in lines], weights=weights)),
        "dense": float(np.average([line.mean() for line in lines], weights=weights)),
    }


def _ink(luma: Bytes) -> Mask | None:
    """Return where the writing's ink is: what differs from the commonest tone by half of what the most does."""
    counts = np.bincount(luma.reshape(-1), minlength=256)
    ground = int(np.convolve(counts, np.ones(9), "same").argmax())
    off = np.abs(luma.astype(np.int16) - ground)
    strongest = int(np.searchsorted(np.bincount(off.reshape(-1), minlength=256).cumsum(), 0.985 * off.size))
    if strongest < _CONTRAST:
        return None
    dark: Mask = off > strongest / 2
    return dark


def _lines(ink: Mask) -> list[tuple[int, int]]:
    """Return (top, bottom) of the lines: rows with ink between rows with none or hardly any."""
    filled = ink.mean(axis=1) > 0.008
    edges = np.flatnonzero(np.diff(np.concatenate(([False], filled, [False])).astype(np.int8)))
    bands = list(zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True))
    # what touches the edge is cut off
    return [
        (top, bottom)
        for top, bottom in bands
        if _SMALLEST_LINE <= bottom - top <= _TALLEST_LINE and top > 0 and bottom < len(ink)
    ]


def _stacked(line: Mask) -> npt.NDArray[np.int64]:
    """Return how many strokes stand above one another in each column that has any."""
    starts: npt.NDArray[np.int64] = line[0].astype(np.int64) + (line[1:] & ~line[:-1]).sum(axis=0)
    return starts[starts > 0]


def _upper(line: Mask) -> float:
    """Return the ink in the line's uppermost quarter, to its share of an even one."""
    quarter = max(1, len(line) // 4)
    return float(line[:quarter].mean() / max(1e-3, line.mean()))


def _even(line: Mask) -> float:
    """Return how strongly the columns' ink repeats at the distance of the line's height: 0 not at all, 1 exactly."""
    profile = line.mean(axis=0) - line.mean()
    power = float((profile**2).sum())
    best = 0.0
    for lag in range(max(2, int(0.9 * len(line))), int(1.35 * len(line)) + 2):
        if lag < len(profile) // 2 and power > 0:
            best = max(best, float((profile[lag:] * profile[:-lag]).sum()) / power)
    return best


@dataclass(frozen=True)
class ScriptModel:
    """A logistic regression on what `measured_lines` returns."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float

    @classmethod
    def of(cls, document: Mapping[str, float]) -> ScriptModel:
        """Return the model that a mapping of names to weights, with `bias`, describes."""
        names = tuple(name for name in document if name != "bias")
        return cls(names, tuple(float(document[name]) for name in names), float(document["bias"]))

    def likelihood(self, values: Mapping[str, float]) -> float:
        """Return how likely (0..1) lines with these measurements are Chinese, Japanese or Korean."""
        total = self.bias + sum(weight * values[name] for name, weight in zip(self.names, self.weights, strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))
