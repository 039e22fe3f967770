"""Whether two pictures are the same, by their evidence.

Two thumbnails are first made comparable (`residual`). What then differs is judged against what re-encoding and resizing
do: they leave a noise that follows the picture's own detail and is spread all over it. An edit, however small, stands
out from that noise in one region, in luma or in chroma; then the pictures are not the same.
"""

import math
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from captions import media
from captions.fingerprint.alignment import Framing, find_framing
from captions.fingerprint.planes import Plane, mean_around, quantile, resampled, value_range
from captions.fingerprint.recreation import MOST_PIXELS, recreation, unpacked_pixels
from captions.fingerprint.residual import Grid, Residual, expected_noise
from captions.fingerprint.thumbnail import (
    CELLS_PER_PIXEL,
    CHROMA_SIDE,
    COARSE_SIDE,
    NO_WRITING,
    PERHAPS_WRITING,
    TEXT_SIDE,
    WRITING,
    PictureEvidence,
    evidence_of,
    pixels_a_side,
    unpacked,
)

Strictness = Literal["exact", "strict", "loose"]


class _Limits(NamedTuple):
    """The largest differences (of 255) that copies of one picture may show; docs/near-duplicates.md has the margins."""

    aspect: float  # relative
    gain: float  # ratio of contrast, either way
    offset: float
    sharpness: float  # change of the detail's strength
    peak: float  # luma, one cell
    region: float  # luma, root mean square of 5 x 5 cells
    outlier: float  # luma, the same in units of the noise expected there
    chroma_peak: float
    chroma_region: float  # mean of 3 x 3 cells
    chroma_area: float  # mean of 5 x 5 cells: compression leaves next to nothing there, another colour all of it
    wide: bool = True  # wider where sharpening was found


_STRICT = _Limits(0.012, 1.2, 28, 0.7, 34, 13.5, 5, 30, 18, 9)
_DOUBTFUL = _Limits(0.012, 1.2, 28, 0.7, 26, 10, 3.8, 24, 15, 8)  # perhaps of writing, or only one of the two
_TEXT = _Limits(0.012, 1.2, 28, 0.7, 16, 6, 2.5, 20, 12, 7, wide=False)
_TEXT_RESIZED = _Limits(0.012, 1.2, 28, 0.7, 13, 5, 2.1, 20, 12, 7, wide=False)
_PAGE_RESIZED = _Limits(0.012, 1.2, 28, 0.7, 8, 2.8, 1.4, 20, 12, 7, wide=False)
_PALETTE = _Limits(0.012, 1.2, 28, 0.7, 42, 16.5, 6.2, 34, 20, 12)  # one of the two has few colours
_OF_NOISE, _IN_DOUBT = ("peak", "region", "outlier", "chroma_peak", "chroma_region", "chroma_area"), 2.5
_SHARPENED = 0.4
_BRIGHTENED = 3  # the third is wider by this for each unit of the gain's logarithm: what clips is no noise of detail
_PIXELS_PER_CELL = 2  # where it is no more, letters are many cells large
# As many cells for each pixel of the smaller picture's longer side (0.6 for one of the shorter) show letters of a few
# pixels: writing in pictures of up to so many pixels is held to the finest grid too, and may then be resized. In larger
# ones there is room for a page of small print, whose detail hides a letter.
_CELLS_OF_LETTERS, _SMALL_WRITING = 0.36, 400
_RESIZED = 0.02  # logarithm of the scale: beyond it one of the two was scaled, and small letters are blurred
# Beyond this scale a letter of a page may be a few grey cells, whose change is little more than what resampling leaves:
# less must be left, in cells of no more than so many of the smaller one's pixels. A page is writing on a plain ground:
# this share of its cells is all but even. Texture of a photo seldom is.
_PAGE_SCALE, _PAGE_CELL = 0.31, 6  # logarithm of 1.36; pixels
_PLAIN, _EVEN_RANGE = 0.13, 2  # of 255 within 3 x 3 cells
_FINE_PIXELS_PER_CELL, _FINE_SHARE = 3, 0.8
# What such a page may leave shrinks as its cells cover more pixels: of a changed digit they show so much less.
# The smaller a picture is, the fewer cells an edit of some share of it covers, and the more of it is blurred: below
# this many pixels of the shorter side the limits of luma shrink with its power of 1.5, to no less than 45 %.
_FULL_SIDE, _FULL_SIDE_PAGE = 192, 320
_LEAST_CHROMA = 0.65  # of the limits of chroma, which shrink in proportion
_FURTHEST_OUTLIER = 3.1  # of writing and of resized pictures, unless one of the two has a palette
# The same of 3 x 3 cells of the finest grid, for all but large pages: what a word changed on a photographed page
# exceeds. Resampling blurs, and thereby leaves less of both.
_FINEST_OUTLIER, _FINEST_OUTLIER_RESIZED, _FINEST_OUTLIER_REFRAMED = 1.6, 1.5, 2.3
# Each follows from the other unless it was brightened, while of a letter that is nearly lost in noise one of the two
# ways often shows more: the sum of both, in many cells and where there are fewer than COARSE_SIDE a side, of which the
# largest is smaller. Where less is left than so many of 255, it may be noise if neither way shows more than the third.
_FINEST_BOTH_WAYS, _FINEST_BOTH_WAYS_SMALL, _FINEST_EITHER_WAY, _STANDS_OUT = 2.9, 2.7, 1.8, 8
_FINEST_SHARPENED, _UNSHARPENED = 2, 0.12  # wider by this for each unit of sharpness beyond what compression does
_FINEST_GAIN, _GAIN = 1.2, 0.12  # and by this for each unit of the gain's logarithm, as far as that; for what clipped
_DIFFERS = 1.5  # of 255
_EVEN_TAIL = 1.1  # root mean square by mean of a noise that is spread evenly
_FINEST_NOISE = 2  # of 255: what compression leaves on even ground
# A small pale mark that `loose` passes over.
_MARK_SHARE = 0.5  # of the limits; beyond it something stands out
_MARK_SMALLEST_SIDE = 256  # pixels: below it a strip of another picture fills as few cells as a line of letters
_MARK_AREA, _MARK_EDGE = 0.04, 0.06  # of the picture; its distance from the upper or lower edge, of the side
_MARK_WIDTH = 2.2  # times its height, at least: a replaced part is rarely so wide, a line of writing is wider
_MARK_OPACITY, _MARK_NOISE = 0.35, 8  # of what there is to white or black, strokes thinner than a cell; of 255
_MARK_FILL = (0.05, 0.27)  # of its box, what strokes fill (over half of the largest change): letters 9 to 24 %
_MARK_AGAINST = 0.12  # of the squares of all its changes, those that go the other way
_LOOSE_ASPECT = 0.025
_LOOSE_SMALLEST_SIDE = 96  # pixels; of smaller pictures reframing leaves too little to tell an edit by
# Of a small picture it leaves less than of others, copies and edits alike: these shares of the limits keep them apart.
_SMALL_SIDE, _SMALL_REFRAMED, _SMALL_REFRAMED_FINEST = 200, 0.6, 0.45
_REFRAMED_DETAIL = 0.7  # moving a picture by fractions of a cell blurs its finest detail, which is then left out


def may_be_reframed(evidence: bytes) -> bool:
    """Return whether `loose` could ever find this picture the same as a crop of it, or with a mark on it."""
    parts = unpacked(evidence)
    return parts is not None and parts.writing != WRITING and min(parts.width, parts.height) >= _LOOSE_SMALLEST_SIDE


class Resemblance(NamedTuple):
    """How alike two pictures are that were held for the same: their largest differences, and what copies may show.

    `luma` is the largest root mean square difference of 5 x 5 cells, `chroma` the largest mean of 3 x 3, both of 255;
    where a copy was made once more, of 3 x 3 and of 5 x 5 pixels.
    """

    way: Literal["whole", "marked", "cropped"]
    """As they are, but for a small pale mark, or in the part that both show."""
    luma: float
    luma_limit: float
    chroma: float
    chroma_limit: float


def same_picture(a: bytes, b: bytes, policy: Strictness) -> bool:
    """Return whether two pictures, whose hashes are near, are the same by their evidence (`resemblance`)."""
    return resemblance(a, b, policy) is not None


def resemblance(a: bytes, b: bytes, policy: Strictness) -> Resemblance | None:
    """Return how two pictures, whose hashes are near, are alike; None where they are not the same by their evidence.

    `exact` never says so, `strict` after re-encoding, resizing and mild adjustments, `loose` also after crops of about
    1 % and with a small pale mark, but not of writing. Symmetric and deterministic; on any doubt None. Evidence of
    another layout is never the same.
    """
    if policy == "exact":
        return None
    first, second = (_read(evidence) for evidence in sorted((a, b)))
    if first is None or second is None:
        return None
    limits = _limits_for(first, second)
    if limits is None:
        return None
    aspect, rounding = _shapes(first, second)
    shaped_alike = aspect <= limits.aspect + rounding
    whole = _Compared(first, second)
    if shaped_alike and (difference := _alike(whole, limits)) is not None:
        return _resemblance("whole", difference, limits)
    if policy == "strict" or WRITING in (first.writing, second.writing) or aspect > _LOOSE_ASPECT + rounding:
        return None
    shortest = min(first.width, first.height, second.width, second.height)
    if shortest < _LOOSE_SMALLEST_SIDE:
        return None
    if shaped_alike and shortest >= _MARK_SMALLEST_SIDE:
        difference = _alike(whole, limits, marked=True)
        if difference is not None:
            return _resemblance("marked", difference, limits)
    if shortest < _SMALL_SIDE:
        share = _SMALL_REFRAMED
        limits = limits._replace(peak=limits.peak * share, region=limits.region * share, outlier=limits.outlier * share)
    framing = find_framing(first.luma, second.luma)
    if framing is None or not framing.is_crop:
        return None
    difference = _alike(_Compared(first, second, framing), limits)
    return _resemblance("cropped", difference, limits) if difference is not None else None


def _read(evidence: bytes) -> PictureEvidence | None:
    """Read evidence as thumbnails; of a picture that is kept whole they are made."""
    pixels = unpacked_pixels(evidence)
    if pixels is None:
        return unpacked(evidence)
    picture = media.Picture(pixels.image, *pixels.image.size, 1, None, pixels.palette, finely=True)
    made = evidence_of(picture)
    return None if made is None else unpacked(made)


def decided_finely(a: bytes, b: bytes, alike: Resemblance | None) -> bool:
    """Return whether finer evidence decides if two pictures are the same, whose own says `alike`.

    So it is with a camera's photo, decoded at a fraction of its size: nothing but the finest grid may tell a reduced
    copy from it, whose thin lines differ; and where the two are the same as a whole, a letter of 12 to 18 pixels may be
    another. And with smaller pictures that are held for the same, since a pale letter may be another, or for others,
    but not by far.
    """
    first, second = (unpacked(evidence) for evidence in sorted((a, b)))
    if first is None or second is None or (alike is not None and alike.way != "whole"):
        return False
    limits = _limits_for(first, second)
    if max(min(first.width, first.height), min(second.width, second.height)) > media.LARGE_SIDE:
        if limits is None or not first.writing == second.writing == NO_WRITING:
            return False
    elif max(first.width * first.height, second.width * second.height) > MOST_PIXELS:
        return False
    elif alike is not None:
        return True
    else:
        limits = _doubted(limits or _DOUBTFUL)
    aspect, rounding = _shapes(first, second)
    if aspect > limits.aspect + rounding:
        return False
    grid = Grid(first, second, _coarse_cells(first, second), None)
    return any(_within(_difference(grid.residual(backwards)), limits) for backwards in (False, True))


def resemblance_finely(a: bytes, b: bytes, alike: Resemblance | None) -> Resemblance | None:
    """Return how two pictures are alike by their finer evidence, whose own says `alike`; None where they are not.

    Of two that are kept whole one is made into the other. What then leaves it open was saved as neither shows, as two
    copies of one original are: their own evidence stands. Others are held to the same limits, on smaller cells.
    """
    first, second = (unpacked_pixels(evidence) for evidence in sorted((a, b)))
    if first is None or second is None:
        return resemblance(a, b, "strict")
    left = recreation(first, second)
    if left is not None and left.is_another:
        return None
    return Resemblance("whole", *left[:4]) if left is not None and left.excess <= 1 else alike


def _doubted(limits: _Limits) -> _Limits:
    """Return as far as two pictures may be beyond limits, and yet be copies."""
    return limits._replace(**{name: _IN_DOUBT * getattr(limits, name) for name in _OF_NOISE})


def _shapes(a: PictureEvidence, b: PictureEvidence) -> tuple[float, float]:
    """Return the logarithm of the ratio of their aspect ratios, and how much of it rounding to whole pixels may be."""
    apart = abs(math.log(a.width * b.height / (a.height * b.width)))
    return apart, 0.6 / min(a.width, a.height, b.width, b.height)


def _resemblance(way: Literal["whole", "marked", "cropped"], difference: "_Difference", limits: _Limits) -> Resemblance:
    region = _widened(limits, difference).region
    return Resemblance(way, difference.region, region, difference.chroma_region, limits.chroma_region)


def _limits_for(a: PictureEvidence, b: PictureEvidence) -> _Limits | None:
    """Return what copies may differ by; None where no difference that is left could be told from an edit."""
    scale = _scale(a, b)
    shortest = min(a.width, a.height, b.width, b.height)
    if _resolved(a, b) and WRITING in (a.writing, b.writing) and scale > _RESIZED:
        return _shrunk(_TEXT, shortest / _FULL_SIDE)
    if _resolved(a, b) or (NO_WRITING in (a.writing, b.writing) and WRITING not in (a.writing, b.writing)):
        return _unscaled_limits(a, b, shortest, resized=scale > _RESIZED)
    page = max(_plain(a), _plain(b)) >= _PLAIN
    # What fills little of a large page may be small print.
    page_like = page or a.writing == b.writing == PERHAPS_WRITING  # a form crowded with faint lines has no plain ground
    fine = page_like and max(a.width, a.height, b.width, b.height) > _FINE_PIXELS_PER_CELL * TEXT_SIDE
    if scale > _RESIZED and (fine or WRITING in (a.writing, b.writing)):
        if page and scale > _PAGE_SCALE:
            pixels = min(a.width * a.height, b.width * b.height)
            return _PAGE_RESIZED if pixels <= _PAGE_CELL * _coarse_cells(a, b) ** 2 else None
        return _shrunk(_TEXT_RESIZED, shortest / (_FULL_SIDE_PAGE if page else _FULL_SIDE))
    if fine and WRITING not in (a.writing, b.writing):
        share = _PAGE_CELL * _coarse_cells(a, b) ** 2 / min(a.width * a.height, b.width * b.height)
        return _shrunk(_TEXT, _FINE_SHARE)._replace(
            peak=_PAGE_RESIZED.peak * min(1.0, share), region=_PAGE_RESIZED.region * min(1.0, share)
        )
    return _unscaled_limits(a, b, shortest, resized=scale > _RESIZED)


def _scale(a: PictureEvidence, b: PictureEvidence) -> float:
    """Return the logarithm of how much larger one of the two is, along a side."""
    return abs(math.log(a.width * a.height / (b.width * b.height))) / 2


def _resolved(a: PictureEvidence, b: PictureEvidence) -> bool:
    """Return whether the grid shows letters, however small they may be, as finely as resampling allows."""
    longer = min(max(a.width, a.height), max(b.width, b.height))
    return longer <= _SMALL_WRITING and _coarse_cells(a, b) >= _CELLS_OF_LETTERS * longer


def _unscaled_limits(a: PictureEvidence, b: PictureEvidence, shortest: int, *, resized: bool) -> _Limits:
    limits = _shrunk(_full_sized_limits(a, b), shortest / _FULL_SIDE)
    colour = min(1.0, max(_LEAST_CHROMA, shortest / _FULL_SIDE))
    limits = limits._replace(chroma_peak=limits.chroma_peak * colour, chroma_region=limits.chroma_region * colour)
    if (resized or a.writing == b.writing == WRITING) and bool(a.palette) == bool(b.palette):
        return limits._replace(outlier=min(limits.outlier, _FURTHEST_OUTLIER))
    return limits


def _full_sized_limits(a: PictureEvidence, b: PictureEvidence) -> _Limits:
    one_palette = bool(a.palette) != bool(b.palette)
    if a.writing == b.writing == NO_WRITING:
        return _PALETTE if one_palette else _STRICT
    if a.writing + b.writing <= WRITING:
        return _STRICT if one_palette and WRITING not in (a.writing, b.writing) else _DOUBTFUL
    if _resolved(a, b) or max(a.width, a.height, b.width, b.height) <= _PIXELS_PER_CELL * _coarse_cells(a, b):
        return _DOUBTFUL
    return _TEXT


def _shrunk(limits: _Limits, share: float) -> _Limits:
    share = min(1.0, max(0.45, share**1.5))
    return limits._replace(peak=limits.peak * share, region=limits.region * share, outlier=limits.outlier * share)


def _plain(evidence: PictureEvidence) -> float:
    luma = evidence.luma if evidence.writing else resampled(evidence.luma, COARSE_SIDE)
    return float((value_range(luma, 1) <= _EVEN_RANGE).mean())


class _Difference(NamedTuple):
    gain: float
    offset: float
    sharpness: float
    peak: float
    region: float
    outlier: float
    chroma_peak: float
    chroma_region: float
    chroma_area: float


def _widened(limits: _Limits, difference: _Difference) -> _Limits:
    # Sharpening that is found all over the picture leaves more at its edges than two bands of detail can follow.
    if not limits.wide:
        return limits
    more = 1 + _SHARPENED * difference.sharpness
    clipped = 1 + _BRIGHTENED * min(_GAIN, abs(math.log(max(difference.gain, 1e-3))))
    return limits._replace(
        peak=limits.peak * more, region=limits.region * more, outlier=limits.outlier * more * clipped
    )


def _within(difference: _Difference, limits: _Limits) -> bool:
    limits = _widened(limits, difference)
    return (
        1 / limits.gain <= difference.gain <= limits.gain
        and abs(difference.offset) <= limits.offset
        and difference.sharpness <= limits.sharpness
        and difference.peak <= limits.peak
        and difference.region <= limits.region
        and difference.outlier <= limits.outlier
        and difference.chroma_peak <= limits.chroma_peak
        and difference.chroma_region <= limits.chroma_region
        and difference.chroma_area <= limits.chroma_area
    )


def _coarse_cells(a: PictureEvidence, b: PictureEvidence) -> int:
    """Return the side of the grid on which all limits but one hold: what writing needs, or what photos do."""
    shorter = min(a.width, a.height, b.width, b.height)
    side = min(len(a.luma), len(b.luma), TEXT_SIDE if a.writing and b.writing else COARSE_SIDE)
    return int(min(side, max(48, CELLS_PER_PIXEL * shorter)))


def _fine_cells(a: PictureEvidence, b: PictureEvidence) -> int:
    """Return the side of the finest grid that both can be compared on."""
    smaller = min((a, b), key=lambda evidence: evidence.width * evidence.height)
    pixels = pixels_a_side(smaller.width, smaller.height)
    if min(smaller.width, smaller.height) < _FULL_SIDE_PAGE and _scale(a, b) <= _RESIZED:
        pixels = max(smaller.width, smaller.height)  # letters of a price may be six pixels high, and narrower
    return int(min(len(a.luma), len(b.luma), max(48, CELLS_PER_PIXEL * pixels)))


class _Compared:
    """Two pictures on the grids that are compared, each made when first asked for."""

    def __init__(self, a: PictureEvidence, b: PictureEvidence, framing: Framing | None = None) -> None:
        self.a, self.b, self.framing = a, b, framing
        self._detail = 1 if framing is None else _REFRAMED_DETAIL

    @cached_property
    def coarse(self) -> Grid:
        return Grid(self.a, self.b, int(self._detail * _coarse_cells(self.a, self.b)), self.framing)

    @cached_property
    def finest(self) -> Grid:
        return Grid(self.a, self.b, int(self._detail * _fine_cells(self.a, self.b)), self.framing)


def _alike(compared: _Compared, limits: _Limits, *, marked: bool = False) -> _Difference | None:
    """Return how they differ where nothing stands out, or nothing but a mark if `marked`."""
    each = (_follows(compared, limits, marked, backwards) for backwards in (False, True))
    return next((difference for difference in each if difference is not None), None)


def _follows(compared: _Compared, limits: _Limits, marked: bool, backwards: bool) -> _Difference | None:
    a, b, framing = compared.a, compared.b, compared.framing
    residual = compared.coarse.residual(backwards)
    box = _mark(residual, limits, a.width / a.height) if marked else None
    if marked and box is None:
        return None  # without one they have been compared
    if box is not None:
        residual = _without(residual, box)
    difference = _difference(residual)
    if not _within(difference, limits):
        return None
    if bool(a.palette) != bool(b.palette) or (a.writing == b.writing == WRITING and not _resolved(a, b)):
        return difference
    finest = compared.finest.residual(backwards)
    limit = _FINEST_OUTLIER if len(a.luma) == len(b.luma) else _FINEST_OUTLIER_RESIZED
    if framing is not None:
        limit = _FINEST_OUTLIER_REFRAMED
        if min(a.width, a.height, b.width, b.height) < _SMALL_SIDE:
            limit *= _SMALL_REFRAMED_FINEST
    one_way = _finest_outlier(finest if box is None else _without(finest, box))
    if one_way > limit:
        return None
    if framing is not None or box is not None or finest.fit.moved:
        return difference
    other_way = _finest_outlier(compared.finest.residual(not backwards))
    few = _fine_cells(a, b) < COARSE_SIDE
    if one_way + other_way <= (_FINEST_BOTH_WAYS_SMALL if few else _FINEST_BOTH_WAYS):
        return difference
    stands_out = float(np.sqrt(mean_around(finest.luma**2, 3)).max()) > _STANDS_OUT
    return None if stands_out or other_way > _FINEST_EITHER_WAY else difference


def _mark(residual: "Residual", limits: _Limits, aspect: float) -> tuple[float, float, float, float] | None:
    """Return where (left, top, right, bottom as shares of the side) one of two pictures bears a small pale mark.

    A mark is a line of writing that is blended in: it moves what is beneath towards white, or towards black, by less
    than half of what there is, and nothing the other way. It stands at the upper or lower edge and covers little.
    """
    side = len(residual.luma)
    stands_out = (np.abs(residual.luma) > _MARK_SHARE * limits.peak) | (
        np.sqrt(mean_around(residual.luma**2, 5)) > _MARK_SHARE * limits.region
    )
    rows, columns = np.flatnonzero(stands_out.any(axis=1)), np.flatnonzero(stands_out.any(axis=0))
    if not rows.size:
        return None
    top, bottom = max(0, rows[0] - 1), min(side, rows[-1] + 2)
    left, right = max(0, columns[0] - 1), min(side, columns[-1] + 2)
    if (bottom - top) * (right - left) > _MARK_AREA * side**2:
        return None
    if min(top, side - bottom) > _MARK_EDGE * side or (right - left) * aspect < _MARK_WIDTH * (bottom - top):
        return None
    inside = slice(top, bottom), slice(left, right)
    change, clean, other = residual.luma[inside], residual.expected[inside], (residual.expected + residual.luma)[inside]
    if abs(change.min()) > change.max():
        change, clean, other = -change, other, clean
    against = np.minimum(change, 0)
    if (against**2).sum() > _MARK_AGAINST * (change**2).sum() or -against.min() > _MARK_SHARE * limits.peak:
        return None
    filled = float((change > change.max() / 2).mean())
    if not _MARK_FILL[0] <= filled <= _MARK_FILL[1]:
        return None
    # white laid on the darker picture, or black on the lighter one
    if not any((change <= _MARK_OPACITY * room + _MARK_NOISE).all() for room in (255 - clean, other)):
        return None
    return left / side, top / side, right / side, bottom / side


def _without(residual: "Residual", box: tuple[float, float, float, float]) -> "Residual":
    """Return the residual with nothing left of luma in `box`."""
    side, luma = len(residual.luma), residual.luma.copy()
    left, top, right, bottom = box
    luma[int(top * side) : math.ceil(bottom * side), int(left * side) : math.ceil(right * side)] = 0
    return residual._replace(luma=luma)


def _difference(residual: Residual) -> _Difference:
    noise = 1 + expected_noise(residual.luma, residual.detail)
    region = np.sqrt(mean_around(residual.luma**2, 5))
    chroma_side = min(CHROMA_SIDE, max(16, len(residual.luma) // 2))
    off_blue, off_red = resampled(residual.blue, chroma_side), resampled(residual.red, chroma_side)
    open_chroma: Plane = (resampled(residual.clipped, chroma_side) / 2).astype(np.float32)

    def around(size: int) -> Plane:
        colour: Plane = np.hypot(mean_around(off_blue, size), mean_around(off_red, size))
        return colour

    return _Difference(
        gain=residual.fit.gain,
        offset=residual.fit.offset,
        sharpness=residual.fit.sharpness,
        peak=float(np.abs(residual.luma).max()),
        region=float(region.max()),
        outlier=float((region / np.sqrt(mean_around(noise**2, 5))).max()),
        chroma_peak=float((np.hypot(off_blue, off_red) - open_chroma).max()),
        chroma_region=float((around(3) - open_chroma).max()),
        chroma_area=float((around(5) - mean_around(open_chroma, 5)).max()),
    )


def _finest_outlier(residual: Residual) -> float:
    """Return the largest root mean square residual of 3 x 3 cells, in units of the noise expected there.

    Unlike in `_difference`, the noise is fitted to the cells that differ, and scaled by how heavy its tail is: a JPEG
    saved twice at one quality is the same in most places and noisy in the rest, all over the picture.
    """
    size = np.abs(residual.luma)
    differs = size > min(_DIFFERS, float(quantile(size, 0.9)))
    relative = size / expected_noise(residual.luma, residual.detail)
    relative = np.minimum(relative, quantile(relative, 0.98))  # what stands out in a small part is not noise
    tail = float(np.sqrt((relative**2).mean()) / max(float(relative.mean()), 1e-6)) / _EVEN_TAIL
    noise = _FINEST_NOISE + expected_noise(residual.luma, residual.detail, differs) * max(1.0, tail)
    outlier = float((np.sqrt(mean_around(residual.luma**2, 3)) / np.sqrt(mean_around(noise**2, 3))).max())
    sharpened = _FINEST_SHARPENED * max(0.0, residual.fit.sharpness - _UNSHARPENED)
    brightened = _FINEST_GAIN * min(_GAIN, abs(math.log(max(residual.fit.gain, 1e-3))))
    return outlier / (1 + sharpened + brightened)
