"""Finds how one picture is framed within another: by up to about two percent at each side, as a crop leaves it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions.fingerprint.planes import Plane, quantile

_REACH = 0.025  # of the side: the largest margin that is looked for
_SIDE = 128  # cells: a margin of 1 % is little more than one of them, as the linear search wants it
_STEPS = 8
_LEAST_MARGIN = 0.003  # of the side; less is what rounding to whole pixels does


class Framing(NamedTuple):
    """The part of the first picture that the second one shows, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def is_crop(self) -> bool:
        """Whether one of the two pictures lies within the other and lacks a margin of it somewhere."""
        margins = (self.left, self.top, 1 - self.right, 1 - self.bottom)
        within = min(margins) > -_LEAST_MARGIN or max(margins) < _LEAST_MARGIN
        return within and max(map(abs, margins)) >= _LEAST_MARGIN

    def seen(self, side: int) -> Plane:
        """Return 1 for the cells of the second picture that the first one shows too, else 0."""
        across = self.left + (self.right - self.left) * (np.arange(side) + 0.5) / side
        down = self.top + (self.bottom - self.top) * (np.arange(side) + 0.5) / side
        edge = 1.0 / side
        shown_across = (across > edge) & (across < 1 - edge)
        shown_down = (down > edge) & (down < 1 - edge)
        return np.outer(shown_down, shown_across).astype(np.float32)


def reframed(plane: Plane, framing: Framing | None) -> Plane:
    """Return `plane` (square) as `framing` shows it, in as many cells; what lies outside is mirrored in."""
    if framing is None:
        return plane
    side = len(plane)
    pad = int(side * _REACH * 2) + 4
    padded = Image.fromarray(np.pad(np.ascontiguousarray(plane, dtype=np.float32), pad, mode="reflect"))
    box = (
        pad + framing.left * side,
        pad + framing.top * side,
        pad + framing.right * side,
        pad + framing.bottom * side,
    )
    return np.asarray(padded.resize((side, side), Image.Resampling.BICUBIC, box=box))


def find_framing(first: Plane, second: Plane) -> Framing | None:
    """Return how `second` frames `first` (luma, square), or None if no framing within reach makes them alike.

    Gauss-Newton on offset and scale both ways (Lucas and Kanade 1981); brightness and contrast are fitted along.
    """
    a, b = _small(first), _small(second)
    positions = (np.arange(_SIDE) + 0.5) / _SIDE
    state = np.array([0.0, 1.0, 0.0, 1.0])  # left, width, top, height
    for _ in range(_STEPS):
        frame = Framing(state[0], state[2], state[0] + state[1], state[2] + state[3])
        seen = frame.seen(_SIDE).astype(bool)
        moved = reframed(a, frame)
        slope_down, slope_across = np.gradient(moved)
        across, down = slope_across * _SIDE, slope_down * _SIDE
        terms = np.stack(
            [across, across * positions[None, :], down, down * positions[:, None], moved, np.ones_like(moved)], axis=-1
        )[seen].astype(np.float64)
        values = b[seen].astype(np.float64)
        solution = np.linalg.lstsq(terms.T @ terms + 1e-3 * np.eye(6), terms.T @ values, rcond=None)[0]
        error = np.abs(values - terms @ solution)
        kept = error <= quantile(error, 0.95)  # an edit must not pull the frame
        system = terms[kept].T @ terms[kept] + 1e-3 * np.eye(6)
        solution = np.linalg.lstsq(system, terms[kept].T @ values[kept], rcond=None)[0]
        gain = solution[4]
        if not 0.7 < gain < 1.4:
            return None
        step = np.clip(solution[:4] / gain, -0.01, 0.01)
        state = state + step
        if not _within_reach(state):
            return None
        if np.abs(step).max() < 1e-4:
            break
    return Framing(float(state[0]), float(state[2]), float(state[0] + state[1]), float(state[2] + state[3]))


def _within_reach(state: npt.NDArray[np.float64]) -> bool:
    margins = (state[0], state[2], 1 - state[0] - state[1], 1 - state[2] - state[3])
    return all(abs(margin) <= _REACH for margin in margins)


def _small(plane: Plane) -> Plane:
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
