"""What is left of one picture where another one, fitted to it, is taken away; and what noise is to be expected there.

The fit allows for what copies may differ by: brightness, contrast, sharpness, clipping, the bands of a palette.
"""

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions.fingerprint.alignment import Framing, reframed
from captions.fingerprint.planes import Plane, grown, mean_around, quantile, resampled, rgb_of, smoothed, value_range
from captions.fingerprint.thumbnail import WRITING, PictureEvidence

_FITTED_CELLS = 40_000  # more say no more of four terms
_FEWEST = 100  # cells that a fit takes
_LIGHTER = 0.002  # how far black is held to stay black
_PALER = 10  # of 255: how far black may be lifted before it is tried whether it stays
_UNCHANGED = 0.02  # logarithm of the gain; beyond it too: what clips is left out of the fit, the lightest tones with it
_SHARPENED = 0.12  # more than compression does
_BUSY = 2  # of 255, of detail: an even ground has less
_TERMS = ([0, 1, 2, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2], [0, 3], [0, 1], [0, 2], [0])  # more detail makes no less noise
_LEAST_BUSY = 0.25  # of the cells, which count as busy in any case
_PALETTE_ERROR = 20  # of 255; bands of a palette chosen for a photo are narrower


class Fit(NamedTuple):
    """How the second luma follows from the first."""

    gain: float
    offset: float  # of 255
    sharpness: float  # the larger change of the two bands of detail, as a share of its strength
    sharpened: float  # of these changes the larger one; negative for a picture that was blurred
    detail: Plane  # what the change of sharpness adds to each cell

    def of(self, shown: "Shown") -> Plane:
        """Return what the fit makes of a picture: RGB, not clipped."""
        made = shown.rgb * self.gain
        made += self.offset
        made += self.detail
        return made

    @property
    def moved(self) -> bool:
        """Whether its brightness or contrast was changed."""
        return abs(math.log(max(self.gain, 1e-3))) >= _UNCHANGED or abs(self.offset) >= _PALER


class Shown:
    """A picture on a square grid of cells, and what is asked of it again and again, each computed when first asked."""

    def __init__(self, planes: list[Plane], palette: bytes) -> None:
        self.luma, self.blue, self.red = planes
        self.palette = palette

    @cached_property
    def rgb(self) -> Plane:
        """Its red, green and blue."""
        return rgb_of([self.luma, self.blue, self.red])

    @cached_property
    def detail(self) -> Plane:
        """Two bands of the detail of its luma, the finer one first."""
        fine = smoothed(self.luma)
        coarse = smoothed(smoothed(smoothed(fine)))
        return np.stack([self.luma - fine, fine - coarse])

    @cached_property
    def busy(self) -> npt.NDArray[np.bool_]:
        """Which cells have detail."""
        busy: npt.NDArray[np.bool_] = np.abs(self.detail).sum(axis=0) > _BUSY
        return busy

    @cached_property
    def white(self) -> Plane:
        """The largest share of each cell that may be white already, and gets no whiter.

        The others of its pixels are taken to be darker than any cell around by as much as those differ: an even ground
        has none.
        """
        darkest = 2 * grown(self.luma, np.minimum) - grown(self.luma, np.maximum)
        share: Plane = np.clip((self.luma - darkest) / np.maximum(255 - darkest, 1), 0, 1)
        return share


class Detail:
    """How much happens in either of two pictures around each cell.

    That is the largest less the smallest luma within 3 x 3 and 7 x 7 cells, and the root mean square of the detail
    within 7 x 7: a codec spreads its noise over blocks, and one dark line in a block makes less of it than many.
    """

    def __init__(self, a: Shown, b: Shown) -> None:
        near = np.maximum(value_range(a.luma, 1), value_range(b.luma, 1))
        around = np.maximum(value_range(a.luma, 3), value_range(b.luma, 3))
        energy = np.sqrt(np.maximum(*(mean_around(shown.detail[0] ** 2, 7) for shown in (a, b))))
        self.terms = np.ones((near.size, 4))
        """One, and the three of them, of each cell."""
        for column, plane in enumerate((near, around, energy), 1):
            self.terms[:, column] = plane.reshape(-1)
        self.busy = float(np.count_nonzero(near > _BUSY)) / near.size
        """Of all cells."""


class Residual(NamedTuple):
    """What of the second picture is left where the first one, fitted to it, is taken away: square planes."""

    fit: "Fit"
    detail: Detail
    expected: Plane  # luma of the second, by the first
    luma: Plane
    blue: Plane
    red: Plane
    clipped: Plane  # what the fit pushed beyond black and white


class Grid:
    """Two pictures on one grid of cells and framed alike, compared both ways."""

    def __init__(self, a: PictureEvidence, b: PictureEvidence, side: int, framing: Framing | None) -> None:
        first = [resampled(reframed(plane, framing), side) for plane in (a.luma, a.blue, a.red)]
        second = [resampled(plane, side) for plane in (b.luma, b.blue, b.red)]
        self._pictures = Shown(first, a.palette), Shown(second, b.palette)
        self._seen = None if framing is None else framing.seen(side)
        self._residuals: dict[bool, Residual] = {}
        self._banded = bool(a.palette) != bool(b.palette) and WRITING not in (a.writing, b.writing)

    @cached_property
    def detail(self) -> Detail:
        """The detail of both pictures."""
        return Detail(*self._pictures)

    def residual(self, backwards: bool) -> Residual:
        """Return what is left where the first picture is fitted to the second, or if `backwards` the second to it.

        What clipped and what was sharpened follows from what was not, but not the other way round.
        """
        if backwards not in self._residuals:
            self._residuals[backwards] = self._residual(*(self._pictures[::-1] if backwards else self._pictures))
        return self._residuals[backwards]

    @cached_property
    def _unclipped(self) -> npt.NDArray[np.bool_]:
        a, b = (shown.rgb for shown in self._pictures)
        unclipped: npt.NDArray[np.bool_] = np.maximum(a, b).max(axis=0) < 242
        unclipped &= np.minimum(a, b).min(axis=0) > 12
        return unclipped

    def _residual(self, first: Shown, second: Shown) -> Residual:
        fit = _fit(first, second, self._unclipped)
        rgb = fit.of(first)
        clipped = np.maximum(rgb.max(axis=0) - 255, 0) + np.maximum(-rgb.min(axis=0), 0)
        red, green, blue = np.clip(rgb, 0, 255, out=rgb)
        expected = 0.299 * red + 0.587 * green + 0.114 * blue
        off_luma = second.luma - expected
        if (pushed := 255 * (fit.gain - 1) + fit.offset) > 0:
            off_luma = _beyond(off_luma, -pushed * first.white)
        if fit.sharpened > _SHARPENED:  # a line of a pixel that is white already gets no whiter, however grey its cell
            off_luma = _beyond(off_luma, -fit.detail)
        if clipped.any():
            # Inside a cell some pixels clip and some do not: half of what clipping took is left open. Of what
            # sharpening pushes beyond white or black beside an edge, the edge's own cells have a share.
            beside = np.minimum(grown(clipped, np.maximum), grown(np.abs(fit.detail), np.maximum))
            cut = np.maximum(clipped, beside) / 2
            off_luma = np.sign(off_luma) * np.maximum(np.abs(off_luma) - cut, 0)
        off_blue = second.blue - (blue - expected) / 1.772
        off_red = second.red - (red - expected) / 1.402
        if self._seen is not None:
            off_luma, off_blue, off_red = off_luma * self._seen, off_blue * self._seen, off_red * self._seen
        off_luma = off_luma.astype(np.float32, copy=False)
        if self._banded:
            errors = _palette_errors(second if first.palette else first, first.palette, second.palette)
            off_luma, off_blue, off_red = (
                _beyond(value, error) for value, error in zip((off_luma, off_blue, off_red), errors, strict=True)
            )
        return Residual(fit, self.detail, expected, off_luma, off_blue, off_red, clipped)


def _fit(first: Shown, second: Shown, unclipped: npt.NDArray[np.bool_]) -> Fit:
    """Return how the second picture follows from the first.

    A subject of one tone leaves open whether it got lighter or paler, and what clips is left out of the fit, the
    lightest tones with it. Which of these fits holds, the whole of the picture then tells, as it clips.
    """
    count = np.count_nonzero(unclipped)
    usable = unclipped if count / unclipped.size >= 0.05 else np.ones_like(unclipped)
    fit = _fitted(first, second, _LIGHTER, usable)
    if not fit.moved:
        return fit
    fits = [fit, _fitted(first, second, 1.0, usable)]
    if count >= _FEWEST:
        # Cells that are chosen by what became of them tell a smaller gain than there was: these are by what they were.
        gain = float(np.median(second.luma[unclipped] / np.maximum(first.luma[unclipped], 1)))
        kept = (first.rgb.max(axis=0) * gain < 250) & (first.rgb.min(axis=0) > 12)
        fits.append(_fitted(first, second, 1.0, kept))
    return min(fits, key=lambda fit: float(np.abs(np.clip(fit.of(first), 0, 255) - second.rgb).mean()))


def _fitted(first: Shown, second: Shown, lighter: float, usable: npt.NDArray[np.bool_]) -> Fit:
    """Fit the second luma as gain, offset and two bands of detail of the first: least squares without the worst 5 %.

    `usable` are the cells that are fitted to.
    """
    a = first.luma
    middle = float(a[usable].mean()) if usable.any() else float(a.mean())
    step = max(1, a.size // _FITTED_CELLS)
    step += step > 1 and len(a) % step == 0  # not the same columns of every row
    terms = np.ones((4, -(-a.size // step)), np.float32)
    terms[1] = a.reshape(-1)[::step]
    terms[1] -= middle
    terms[2:] = first.detail.reshape(2, -1)[:, ::step]
    values = second.luma.reshape(-1)[::step]
    allowed, detailed = (cells.reshape(-1)[::step] for cells in (usable, first.busy))
    chosen = allowed
    solution = np.array([middle, 1.0, 0.0, 0.0])
    black = np.array([1.0, -middle, 0.0, 0.0])  # what becomes of black
    for _ in range(3):
        count = float(chosen.sum())
        if count < _FEWEST:
            break
        # A weak pull to "unchanged", for pictures that leave a term open: without it, letters put on a blurred picture
        # would be taken for sharpening.
        pull = np.diag([1e-3, 2 * count, 2 * count, 2 * count])
        weighted = terms * chosen
        system = (weighted @ terms.T).astype(np.float64) + pull + count * lighter * np.outer(black, black)
        right = (weighted @ values).astype(np.float64) + pull @ np.array([0.0, 1.0, 0.0, 0.0])
        solution = np.linalg.solve(system, right)
        error = np.abs(values - solution.astype(np.float32) @ terms)
        # Of an even ground nearly nothing is left, and all edges together may be less than 5 % of such a picture.
        measured = chosen & detailed if (chosen & detailed).any() else chosen
        chosen = allowed & (error <= quantile(error[measured], 0.95) + 1)
    gain = float(solution[1])
    changed: Plane = np.tensordot(solution[2:].astype(np.float32), first.detail, 1)
    return Fit(
        gain, float(solution[0]) - gain * middle, float(np.abs(solution[2:]).max()), float(solution[2:].max()), changed
    )


def _palette_errors(shown: Shown, first: bytes, second: bytes) -> list[Plane]:
    """Return by how much each cell's luma and chroma would change if the picture had only the other one's colours.

    Where a picture is smooth, a palette shows as bands: this predicts them. The sign is that of the second picture less
    the first.
    """
    palette = Image.new("P", (1, 1))
    palette.putpalette(first or second)
    full = np.clip(np.rint(shown.rgb.transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(full)
    banded = picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    before, after = (np.asarray(p.convert("YCbCr"), dtype=np.float32) for p in (picture, banded))
    change = np.clip(after - before, -_PALETTE_ERROR, _PALETTE_ERROR) * (-1 if first else 1)
    return [change[:, :, plane] for plane in range(3)]


def _beyond(value: Plane, error: Plane) -> Plane:
    """Return what of `value` is not explained by anything between nothing and `error`."""
    return value - np.clip(value, np.minimum(error, 0), np.maximum(error, 0))


def expected_noise(residual: Plane, detail: Detail, where: npt.NDArray[np.bool_] | None = None) -> Plane:
    """Return the mean residual to be expected at each cell, from the detail near it: a fit over the whole picture.

    `where` are the cells to be fitted to, if not all are.
    """
    size = np.abs(residual)
    # What stands out in a small part is not noise. An even ground makes none, and is not counted.
    size = np.minimum(size, quantile(size, 1 - 0.02 * max(_LEAST_BUSY, detail.busy)))
    chosen, sizes = detail.terms, size.reshape(-1)
    if where is not None:
        at = np.flatnonzero(where)
        chosen, sizes = chosen.take(at, axis=0), sizes.take(at)
    square, right = chosen.T @ chosen, chosen.T @ sizes.astype(np.float64)
    weights = np.zeros(4)
    for kept in _TERMS:
        weights[:] = 0
        weights[kept] = np.linalg.solve(square[np.ix_(kept, kept)] + 1e-3 * np.eye(len(kept)), right[kept])
        if (weights[1:] >= 0).all():
            break
    expected: Plane = (detail.terms @ weights).astype(np.float32).reshape(residual.shape)
    return np.maximum(expected, 0.3, out=expected)
