"""Small planes of luma or chroma, and what is computed around each of their cells."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Plane = npt.NDArray[np.float32]
Floating = TypeVar("Floating", bound=np.floating)


def resampled(plane: Plane, side: int) -> Plane:
    """Return a plane of `side` by `side` cells."""
    if plane.shape == (side, side):
        return plane
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


def rgb_of(planes: list[Plane]) -> Plane:
    """Return red, green and blue of luma and the two chroma planes (ITU-T T.871, JFIF)."""
    luma, blue, red = planes
    side = len(luma)
    blue, red = resampled(blue, side), resampled(red, side)
    return np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])


def smoothed(plane: Plane) -> Plane:
    """Return a plane whose cells are averaged with their neighbours, 1:2:1 along both sides."""
    padded = _edged(plane, 1)
    rows = 2 * padded[1:-1]
    rows += padded[:-2]
    rows += padded[2:]
    both = 2 * rows[:, 1:-1]
    both += rows[:, :-2]
    both += rows[:, 2:]
    both /= 16
    return both.astype(np.float32, copy=False)


def value_range(plane: Plane, radius: int) -> Plane:
    """Return the largest less the smallest value around each cell, up to so many cells away."""
    return grown(plane, np.maximum, radius) - grown(plane, np.minimum, radius)


def grown(plane: Plane, extreme: np.ufunc, radius: int = 1) -> Plane:
    """Return the extreme value around each cell, up to so many cells away along both sides."""
    grown = _edged(plane, radius)
    reached = 1
    while reached <= 2 * radius:  # of two extremes of as many cells that of twice as many
        step = min(reached, 2 * radius + 1 - reached)
        grown = extreme(grown[:-step], grown[step:])
        grown = extreme(grown[:, :-step], grown[:, step:])
        reached += step
    return grown


def mean_around(plane: Plane, size: int) -> Plane:
    """Return the mean of the size x size cells around each cell, zero outside the picture; `size` is odd."""
    height, width = plane.shape
    before = size // 2 + 1
    total = np.zeros((height + size, width + size))
    total[before : before + height, before : before + width] = plane
    above = total[0]
    for row in total[1:]:  # four times as fast as cumsum, which goes down one column after the other
        row += above
        above = row
    np.cumsum(total, axis=1, out=total)
    sums = total[size:, size:] - total[:-size, size:]
    sums -= total[size:, :-size]
    sums += total[:-size, :-size]
    sums /= size**2
    if plane.min() >= 0:
        np.maximum(sums, 0, out=sums)  # rounding
    return sums.astype(np.float32)


def quantile(values: npt.NDArray[Floating], share: float) -> Floating:
    """Return the value that a share of all are at most; between two values what is as far between them.

    That is `numpy.quantile` for what is finite, in a fraction of its time.
    """
    flat = values.reshape(-1)
    place = share * (flat.size - 1)
    index = int(place)
    parted = np.partition(flat, index)
    low, after = parted[index], parted[index + 1 :]
    high, between = after.min() if after.size else low, place - index
    value: Floating = low + (high - low) * between if between < 0.5 else high - (high - low) * (1 - between)
    return value


def _edged(plane: Plane, by: int) -> Plane:
    """Return a plane with so many cells more at each side, which repeat its edge: np.pad without its checks."""
    height, width = plane.shape
    padded = np.empty((height + 2 * by, width + 2 * by), plane.dtype)
    padded[by:-by, by:-by] = plane
    padded[:by, by:-by], padded[-by:, by:-by] = plane[0], plane[-1]
    padded[:, :by], padded[:, -by:] = padded[:, by : by + 1], padded[:, -by - 1 : -by]
    return padded
