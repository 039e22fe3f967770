"""What is left of one picture where another one, fitted to it, is taken away; and what noise is to be expected there.

The fit allows for what copies may differ by: brightness, contrast, sharpness, clipping, the bands of a palette.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions.fingerprint.alignment import Framing, reframed
from captions.fingerprint.planes import Plane, grown, mean_around, resampled, rgb_of, smoothed, value_range
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

    def of(self, planes: list[Plane]) -> Plane:
        """Return what the fit makes of a picture: RGB, not clipped."""
        return rgb_of(planes) * self.gain + self.offset + self.detail

    @property
    def moved(self) -> bool:
        """Whether its brightness or contrast was changed."""
        return abs(math.log(max(self.gain, 1e-3))) >= _UNCHANGED or abs(self.offset) >= _PALER


class Residual(NamedTuple):
    """What of the second picture is left where the first one, fitted to it, is taken away: square planes."""

    fit: "Fit"
    first: Plane  # luma, as it was
    second: Plane
    expected: Plane  # luma of the second, by the first
    luma: Plane
    blue: Plane
    red: Plane
    clipped: Plane  # what the fit pushed beyond black and white


def residual_of(
    a: PictureEvidence, b: PictureEvidence, side: int, framing: Framing | None, backwards: bool
) -> Residual:
    """Fit `a` to `b`, or `b` to `a` if `backwards`, on a grid of `side` cells and framed alike; return what is left.

    What clipped and what was sharpened follows from what was not, but not the other way round.
    """
    first = [resampled(reframed(plane, framing), side) for plane in (a.luma, a.blue, a.red)]
    second = [resampled(plane, side) for plane in (b.luma, b.blue, b.red)]
    seen = np.ones((side, side), np.float32) if framing is None else framing.seen(side)
    palettes = (a.palette, b.palette)
    if backwards:
        first, second, palettes = second, first, palettes[::-1]
    fit = _fit(first, second)
    rgb = fit.of(first)
    clipped = np.maximum(rgb.max(axis=0) - 255, 0) + np.maximum(-rgb.min(axis=0), 0)
    red, green, blue = np.clip(rgb, 0, 255)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    # Inside a cell some pixels clip and some do not: half of what clipping took is left open. Of what sharpening pushes
    # beyond white or black beside an edge, the edge's own cells have a share.
    cut = np.maximum(clipped, np.minimum(grown(clipped, np.maximum), grown(np.abs(fit.detail), np.maximum))) / 2
    off_luma = _beyond(second[0] - expected, -_clipped_in_part(first[0], fit))
    if fit.sharpened > _SHARPENED:  # a line of a pixel that is white already gets no whiter, however grey its cell is
        off_luma = _beyond(off_luma, -fit.detail)
    off_luma = (np.sign(off_luma) * np.maximum(np.abs(off_luma) - cut, 0) * seen).astype(np.float32)
    off_blue = second[1] - (blue - expected) / 1.772
    off_red = second[2] - (red - expected) / 1.402
    if bool(palettes[0]) != bool(palettes[1]) and WRITING not in (a.writing, b.writing):
        open_luma, open_blue, open_red = _palette_errors(second if palettes[0] else first, palettes)
        off_luma, off_blue, off_red = (
            _beyond(value, error)
            for value, error in ((off_luma, open_luma), (off_blue, open_blue), (off_red, open_red))
        )
    return Residual(fit, first[0], second[0], expected, off_luma, off_blue * seen, off_red * seen, clipped)


def _fit(first: list[Plane], second: list[Plane]) -> Fit:
    """Return how the second picture follows from the first.

    A subject of one tone leaves open whether it got lighter or paler, and what clips is left out of the fit, the
    lightest tones with it. Which of these fits holds, the whole of the picture then tells, as it clips.
    """
    rgb_a, rgb_b = rgb_of(first), rgb_of(second)
    whole = np.ones_like(first[0], dtype=bool)
    usable = (np.maximum(rgb_a, rgb_b).max(axis=0) < 242) & (np.minimum(rgb_a, rgb_b).min(axis=0) > 12)
    fit = _fitted(first, second, _LIGHTER, usable if usable.mean() >= 0.05 else whole)
    if not fit.moved:
        return fit
    fits = [fit, _fitted(first, second, 1.0, usable if usable.mean() >= 0.05 else whole)]
    if usable.sum() >= _FEWEST:
        # Cells that are chosen by what became of them tell a smaller gain than there was: these are by what they were.
        gain = float(np.median(second[0][usable] / np.maximum(first[0][usable], 1)))
        fits.append(_fitted(first, second, 1.0, (rgb_a.max(axis=0) * gain < 250) & (rgb_a.min(axis=0) > 12)))
    return min(fits, key=lambda fit: float(np.abs(np.clip(fit.of(first), 0, 255) - rgb_b).mean()))


def _clipped_in_part(luma: Plane, fit: Fit) -> Plane:
    """Return what a cell of `luma` can lose at most because some of its pixels are white and get no whiter.

    The others are taken to be darker than any cell around by as much as those differ: an even ground has none.
    """
    pushed = max(0.0, 255 * (fit.gain - 1) + fit.offset)
    darkest = 2 * grown(luma, np.minimum) - grown(luma, np.maximum)
    share: Plane = np.clip((luma - darkest) / np.maximum(255 - darkest, 1), 0, 1)
    return pushed * share


def _fitted(first: list[Plane], second: list[Plane], lighter: float, usable: npt.NDArray[np.bool_]) -> Fit:
    """Fit the second luma as gain, offset and two bands of detail of the first: least squares without the worst 5 %.

    `usable` are the cells that are fitted to.
    """
    a, b = first[0], second[0]
    fine = smoothed(a)
    coarse = smoothed(smoothed(smoothed(fine)))
    middle = float(a[usable].mean()) if usable.any() else float(a.mean())
    detail = np.stack([a - fine, fine - coarse])
    busy = np.abs(detail).sum(axis=0) > _BUSY
    step = max(1, a.size // _FITTED_CELLS)
    step += step > 1 and len(a) % step == 0  # not the same columns of every row
    terms = np.stack([np.ones_like(a), a - middle, *detail]).reshape(4, -1)[:, ::step]
    values, allowed, detailed = b.reshape(-1)[::step], usable.reshape(-1)[::step], busy.reshape(-1)[::step]
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
        chosen = allowed & (error <= np.quantile(error[measured], 0.95) + 1)
    gain = float(solution[1])
    changed: Plane = np.tensordot(solution[2:].astype(np.float32), detail, 1)
    return Fit(
        gain, float(solution[0]) - gain * middle, float(np.abs(solution[2:]).max()), float(solution[2:].max()), changed
    )


def _palette_errors(planes: list[Plane], palettes: tuple[bytes, bytes]) -> list[Plane]:
    """Return by how much each cell's luma and chroma would change if the picture had only the other one's colours.

    Where a picture is smooth, a palette shows as bands: this predicts them. The sign is that of the second picture less
    the first.
    """
    palette = Image.new("P", (1, 1))
    palette.putpalette(palettes[0] or palettes[1])
    full = np.clip(np.rint(rgb_of(planes).transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(full)
    banded = picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    before, after = (np.asarray(p.convert("YCbCr"), dtype=np.float32) for p in (picture, banded))
    change = np.clip(after - before, -_PALETTE_ERROR, _PALETTE_ERROR) * (-1 if palettes[0] else 1)
    return [change[:, :, plane] for plane in range(3)]


def _beyond(value: Plane, error: Plane) -> Plane:
    """Return what of `value` is not explained by anything between nothing and `error`."""
    return value - np.clip(value, np.minimum(error, 0), np.maximum(error, 0))


class Detail(NamedTuple):
    """How much happens in either picture around each cell.

    That is the largest less the smallest luma within 3 x 3 and 7 x 7 cells, and the root mean square of the detail
    within 7 x 7: a codec spreads its noise over blocks, and one dark line in a block makes less of it than many.
    """

    near: Plane
    around: Plane
    energy: Plane

    @classmethod
    def of(cls, residual: Residual) -> "Detail":
        """Measure the detail of both pictures of a comparison."""
        a, b = residual.first, residual.second
        return cls(
            np.maximum(value_range(a, 1), value_range(b, 1)),
            np.maximum(value_range(a, 3), value_range(b, 3)),
            np.sqrt(np.maximum(*(mean_around((plane - smoothed(plane)) ** 2, 7) for plane in (a, b)))),
        )


def expected_noise(residual: Plane, detail: Detail, where: npt.NDArray[np.bool_] | None = None) -> Plane:
    """Return the mean residual to be expected at each cell, from the detail near it: a fit over the whole picture.

    `where` are the cells to be fitted to, if not all are.
    """
    size = np.abs(residual)
    # What stands out in a small part is not noise. An even ground makes none, and is not counted.
    busy = max(_LEAST_BUSY, float((detail.near > _BUSY).mean()))
    size = np.minimum(size, np.quantile(size, 1 - 0.02 * busy))
    terms = np.stack([np.ones_like(detail.near), detail.near, detail.around, detail.energy], axis=-1)
    chosen, sizes = (terms, size) if where is None else (terms[where], size[where])
    chosen, sizes = chosen.reshape(-1, 4).astype(np.float64), sizes.reshape(-1).astype(np.float64)
    square, right = chosen.T @ chosen, chosen.T @ sizes
    for kept in _TERMS:
        weights = np.linalg.solve(square[np.ix_(kept, kept)] + 1e-3 * np.eye(len(kept)), right[kept])
        if (weights[1:] >= 0).all():
            break
    expected: Plane = (terms[:, :, kept] @ weights).astype(np.float32)
    return np.maximum(expected, 0.3)
