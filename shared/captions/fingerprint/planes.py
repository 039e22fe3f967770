"""Small planes of luma or chroma, and what is computed around each of their cells."""

import numpy as np
import numpy.typing as npt
from PIL import Image

Plane = npt.NDArray[np.float32]


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
    padded = np.pad(plane, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4).astype(np.float32)


def value_range(plane: Plane, radius: int) -> Plane:
    """Return the largest less the smallest value around each cell."""
    high, low = plane, plane
    for _ in range(radius):
        high, low = grown(high, np.maximum), grown(low, np.minimum)
    return high - low


def grown(plane: Plane, extreme: np.ufunc) -> Plane:
    """Return of each cell and its eight neighbours the extreme value."""
    padded = np.pad(plane, 1, mode="edge")
    rows = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:])
    grown: Plane = extreme(extreme(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return grown


def mean_around(plane: Plane, size: int) -> Plane:
    """Return the mean of the size x size cells around each cell, zero outside the picture."""
    total = np.pad(plane.astype(np.float64), ((size // 2 + 1, size // 2),) * 2).cumsum(axis=0).cumsum(axis=1)
    sums = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    floor = 0 if plane.min() >= 0 else -np.inf  # rounding
    means: Plane = np.maximum(sums / size**2, floor).astype(np.float32)
    return means
