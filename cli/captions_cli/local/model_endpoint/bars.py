"""Upright bars on an even ground, counted and measured: what pixels alone say about a bar chart.

Bars are stretches of columns of one colour that begin at a common base, end at different heights under open ground,
are about equally wide, and make up most of what is drawn. Their values are not known, as the axis is not read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 320
_LEAST = 3
_MOST = 60


@dataclass(frozen=True)
class Bar:
    """A bar: its middle as a share of the frame's width, its height as a share of the highest one's, its colour."""

    x: float
    height: float
    rgb: tuple[int, int, int]


def bars_of(image: Image.Image) -> tuple[Bar, ...]:
    """Return the bars of a picture from left to right; none if it does not look like a bar chart."""
    copy = image.convert("RGB")
    copy.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    pixels = np.asarray(copy, dtype=np.int16)
    height, width = pixels.shape[:2]
    if height < 32 or width < 32:
        return ()
    # Four bits a channel: compression's noise stays within one colour.
    codes = (pixels[..., 0] >> 4 << 8) | (pixels[..., 1] >> 4 << 4) | (pixels[..., 2] >> 4)
    colours, counts = np.unique(codes, return_counts=True)
    ground = colours[counts.argmax()]
    if counts.max() < 0.3 * codes.size:
        return ()
    drawn = codes != ground
    rectangles: list[tuple[int, int, int, int]] = []  # left, right, top, bottom
    for colour in colours[np.argsort(-counts)][:12]:
        if colour != ground and (codes == colour).mean() > 0.003:
            rectangles += _rectangles(codes == colour, drawn)
    best: list[tuple[int, int, int, int]] = []
    for base in {rectangle[3] for rectangle in rectangles}:
        standing = [rectangle for rectangle in rectangles if abs(rectangle[3] - base) <= 2]
        if not standing:
            continue
        usual = float(np.median([right - left for left, right, _, _ in standing]))
        alike = _joined(
            [rectangle for rectangle in standing if 0.7 * usual <= rectangle[1] - rectangle[0] <= 1.4 * usual]
        )
        best = max(best, alike, key=_area)
    tall = [bottom - top for _, _, top, bottom in best]
    if not _LEAST <= len(best) <= _MOST or max(tall) - min(tall) < 0.05 * max(tall) or max(tall) < height / 6:
        return ()
    if _area(best) < 0.5 * drawn.sum():
        return ()
    return tuple(
        Bar(
            x=(left + right) / 2 / width,
            height=(bottom - top) / max(tall),
            rgb=tuple(int(value) for value in pixels[(top + bottom) // 2, (left + right) // 2]),  # type: ignore[arg-type]
        )
        for left, right, top, bottom in sorted(best)
    )


def _joined(rectangles: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join the halves of bars that a thin upright line, such as an error bar, parts in the middle."""
    joined: list[tuple[int, int, int, int]] = []
    for left, right, top, bottom in sorted(rectangles):
        if joined and left - joined[-1][1] <= 2 and abs(top - joined[-1][2]) <= 1:
            joined[-1] = (joined[-1][0], right, min(top, joined[-1][2]), max(bottom, joined[-1][3]))
        else:
            joined.append((left, right, top, bottom))
    return joined


def _area(rectangles: list[tuple[int, int, int, int]]) -> int:
    return sum((right - left) * (bottom - top) for left, right, top, bottom in rectangles)


def _rectangles(mask: npt.NDArray[np.bool_], drawn: npt.NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Return the upright rectangles of one colour with open ground above them."""
    width = mask.shape[1]
    tops, bottoms = np.full(width, -1), np.full(width, -1)
    for x in range(width):
        rows = np.flatnonzero(np.diff(np.concatenate([[0], mask[:, x].astype(np.int8), [0]])))
        if rows.size:
            runs = rows.reshape(-1, 2)
            tops[x], bottoms[x] = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    rectangles = []
    left = 0
    for x in range(1, width + 1):
        same = x < width and tops[x] >= 0 and abs(tops[x] - tops[left]) <= 1 and abs(bottoms[x] - bottoms[left]) <= 1
        if same:
            continue
        top, bottom = int(tops[left]), int(bottoms[left])
        open_above = top > 2 and not drawn[max(0, top - 4) : max(1, top - 2), left:x].all()
        if tops[left] >= 0 and x - left >= 3 and bottom - top >= 3 and open_above:
            rectangles.append((left, x, top, bottom))
        left = x
    return rectangles
