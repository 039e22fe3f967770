"""The evidence that two pictures are the same, kept per exemplar, and the comparison of two such evidences.

Evidence is a thumbnail: luma on a square grid, chroma on a coarser one, the original's size. Two thumbnails are first
made comparable: resampled to what the smaller original can show, one's brightness, contrast and sharpness fitted to
the other's, and clipped where the fit clips. What then differs is judged against what re-encoding and resizing
do: they leave a noise that follows the picture's own detail and is spread all over it. An edit, however small,
stands out from that noise in one region, in luma or in chroma; then the pictures are not the same.
"""

import io
import math
import struct
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions import media
from captions.fingerprint.framing import Framing, find_framing, reframed

Policy = Literal["exact", "strict", "loose"]
Plane = npt.NDArray[np.float32]

# Cells a side. Pictures of writing have smaller details that mean more; what surrounds them costs little to keep.
_SIDE, _QUALITY = 192, 92
_TEXT_SIDE, _TEXT_QUALITIES = 384, (88, 76)  # the second where the first does not fit
_CHROMA_SIDE = 64
_LARGEST = 31_000  # bytes

# How much of a picture is thin strokes on plain ground: this share makes it one of writing (a form, a receipt on a
# table), less than half of it a possible one if besides one tone fills much of it (a slide, a chart, a drawing).
_STROKE_HEIGHT = 25  # of 255 above or below the ground, and gone after opening or closing with 5 x 5 cells
_PLAIN_RANGE = 12  # of 255 within 7 x 7 cells of the ground, strokes taken away
_STROKE_SHARE = 0.025
_STROKE_SHARE_ON_TONE, _TONE_SHARE = 0.01, 0.33
# A little writing and nothing else: of all cells with an edge in them, this share are strokes (photos: under 0.1).
_STROKES_OF_EDGES, _FEW_STROKES = 0.11, 0.003
# Small print: strokes that are as faint as this fill more of the picture than half of what has edges (photos: 0.3).
_FAINT_HEIGHT, _FAINT_SHARE, _FAINT_OF_EDGES = 12, 0.05, 0.5
# Writing of more than this many pixels to a cell could be changed unseen: such pictures match exactly or not at all.
_TEXT_CELL = media.LARGE_SIDE / _TEXT_SIDE

# A picture says too little to be recognised by if fewer of its cells than this share have any edge in them.
_EDGE_RANGE = 16  # of 255 within 3 x 3 cells
_EDGE_SHARE = 0.01
_SMALLEST_SIDE = 32  # pixels

_HEADER = struct.Struct("<BIIBH")  # layout, width, height, writing, bytes of palette (RGB) that follow
_LAYOUT = 4
_NO_WRITING, _PERHAPS_WRITING, _WRITING = 0, 1, 2


_PALETTE_COLOURS = 128  # fewer are a drawing's, and predict nothing
_PALETTE_ERROR = 20  # of 255; bands of a palette chosen for a photo are narrower


@dataclass(frozen=True)
class _Evidence:
    width: int
    height: int
    writing: int
    palette: bytes
    luma: Plane
    blue: Plane
    red: Plane


@dataclass(frozen=True)
class _Limits:
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
_TEXT = _Limits(0.012, 1.2, 28, 0.7, 18, 7.4, 2.7, 20, 12, 7, wide=False)
_TEXT_RESIZED = _Limits(0.012, 1.2, 28, 0.7, 14, 5.8, 2.2, 20, 12, 7, wide=False)
_PALETTE = _Limits(0.012, 1.2, 28, 0.7, 42, 16.5, 6.2, 34, 20, 12)  # one of the two has few colours
_SHARPENED = 0.4
_PIXELS_PER_CELL = 2  # where it is no more, letters are many cells large
_RESIZED = 0.02  # logarithm of the scale: beyond it one of the two was scaled, and small letters are blurred
# Beyond this scale a letter of a page may be a few grey cells, whose change is no more than what resampling leaves. A
# page is writing on a plain ground: this share of its cells is all but even. Texture of a photo seldom is.
_PAGE_SCALE = 0.31  # logarithm of 1.36
_PLAIN, _EVEN_RANGE = 0.13, 2  # of 255 within 3 x 3 cells
_ALL_PLAIN, _SMALL_PAGE = 0.6, 144  # pixels of the shorter side
_FINE_PIXELS_PER_CELL, _FINE_SHARE = 3, 0.8
# The smaller a picture is, the fewer cells an edit of some share of it covers, and the more of it is blurred: below
# this many pixels of the shorter side the limits of luma shrink with its power of 1.5, to no less than 45 %.
_FULL_SIDE, _FULL_SIDE_PAGE = 192, 320
# No pair may go beyond this outlier, whatever its size, unless one of the two has a palette: of 1,592 copies of photos
# three do, all sharpened. A word changed on a photographed page often lies between this and what _STRICT allows.
_FURTHEST_OUTLIER = 3.1
_LOOSE_ASPECT = 0.025
_LOOSE_SMALLEST_SIDE = 200  # pixels; of smaller pictures reframing leaves too little to tell an edit by
_REFRAMED_DETAIL = 0.7  # moving a picture by fractions of a cell blurs its finest detail, which is then left out


def evidence_of(picture: media.Picture) -> bytes | None:
    """Return what `same_picture` compares, some 10 KB; None for pictures that show too little to be told apart."""
    if min(picture.width, picture.height) < _SMALLEST_SIDE:
        return None
    planes = _thumbnail(picture.working, _SIDE)
    values = np.asarray(planes[0], dtype=np.float32)
    if float((_range(values, 1) > _EDGE_RANGE).mean()) < _EDGE_SHARE:
        return None
    writing = _writing(values)
    if writing is None:
        return None
    if writing:
        if min(picture.width, picture.height) > _TEXT_CELL * _TEXT_SIDE:
            return None
        planes = _thumbnail(picture.working, _TEXT_SIDE)
    side, qualities = planes[0].width, _TEXT_QUALITIES if writing else (_QUALITY,)
    sheet = Image.new("L", (side, side + _CHROMA_SIDE), 128)
    sheet.paste(planes[0], (0, 0))
    for column, plane in enumerate(planes[1:]):
        sheet.paste(plane.resize((_CHROMA_SIDE, _CHROMA_SIDE), Image.Resampling.BOX), (column * _CHROMA_SIDE, side))
    packed = next((data for data in (_webp(sheet, quality) for quality in qualities) if len(data) <= _LARGEST), None)
    if packed is None:
        return None
    palette = picture.palette if picture.palette and len(picture.palette) >= 3 * _PALETTE_COLOURS else b""
    header = _HEADER.pack(_LAYOUT, picture.width, picture.height, writing, len(palette))
    return header + palette + packed


def _thumbnail(picture: Image.Image, side: int) -> tuple[Image.Image, ...]:
    """Return luma and chroma on a square grid; what is much larger is averaged first, which is faster and as good."""
    small = picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return small.convert("YCbCr").split()


def _webp(sheet: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    sheet.save(stream, "WEBP", quality=quality, method=2)
    return stream.getvalue()


def _writing(luma: Plane) -> int | None:
    """Return whether the picture is, or may be, of writing or line drawing: thin strokes stand on plain ground.

    None if it is of small print that these cells show as faint stripes, in which a letter makes no difference.
    """
    closed, opened = luma, luma
    for larger, smaller in ((np.maximum, np.minimum),) * 2 + ((np.minimum, np.maximum),) * 2:
        closed, opened = _grown(closed, larger), _grown(opened, smaller)
    dark = (closed - luma > _STROKE_HEIGHT) & (_range(closed, 3) < _PLAIN_RANGE)
    light = (luma - opened > _STROKE_HEIGHT) & (_range(opened, 3) < _PLAIN_RANGE)
    strokes = float((dark | light).mean())
    if strokes > _STROKE_SHARE:
        return _WRITING
    counts = np.bincount(luma.astype(np.uint8).reshape(-1), minlength=256)
    one_tone = float(np.convolve(counts, np.ones(9), "same").max()) / luma.size
    if strokes > _STROKE_SHARE_ON_TONE and one_tone > _TONE_SHARE:
        return _PERHAPS_WRITING
    edges = float((_range(luma, 1) > _EDGE_RANGE).mean())
    if strokes > max(_FEW_STROKES, _STROKES_OF_EDGES * edges):
        return _PERHAPS_WRITING
    faint = ((closed - luma > _FAINT_HEIGHT) & (_range(closed, 3) < _PLAIN_RANGE)) | (
        (luma - opened > _FAINT_HEIGHT) & (_range(opened, 3) < _PLAIN_RANGE)
    )
    return None if float(faint.mean()) > max(_FAINT_SHARE, _FAINT_OF_EDGES * edges) else _NO_WRITING


def may_be_reframed(evidence: bytes) -> bool:
    """Return whether `loose` could ever find this picture the same as a crop of it."""
    _, width, height, writing, _ = _HEADER.unpack_from(evidence)
    return bool(writing != _WRITING and min(width, height) >= _LOOSE_SMALLEST_SIDE)


def luma_of(evidence: bytes) -> Image.Image:
    """Return the luma thumbnail (mode L, square) that `evidence` holds."""
    sheet = _sheet(evidence)
    return sheet.crop((0, 0, sheet.width, sheet.width))


def _sheet(evidence: bytes) -> Image.Image:
    palette_size = _HEADER.unpack_from(evidence)[-1]
    return Image.open(io.BytesIO(evidence[_HEADER.size + palette_size :]), formats=["WEBP"]).convert("L")


def same_picture(a: bytes, b: bytes, policy: Policy) -> bool:
    """Return whether two pictures, whose hashes are near, are the same by their evidence.

    `exact` never says so, `strict` after re-encoding, resizing and mild adjustments, `loose` also after crops of about
    1 %, but not of writing. Symmetric and deterministic; on any doubt False. Evidence of another layout is never the
    same.
    """
    if policy == "exact":
        return False
    first, second = (_unpacked(evidence) for evidence in sorted((a, b)))
    if first is None or second is None:
        return False
    limits = _limits_for(first, second)
    if limits is None:
        return False
    aspect = abs(math.log(first.width * second.height / (first.height * second.width)))
    rounding = 0.6 / min(first.width, first.height, second.width, second.height)
    if aspect <= limits.aspect + rounding and _within(_compared(first, second), limits):
        return True
    if policy == "strict" or _WRITING in (first.writing, second.writing) or aspect > _LOOSE_ASPECT + rounding:
        return False
    if min(first.width, first.height, second.width, second.height) < _LOOSE_SMALLEST_SIDE:
        return False
    framing = find_framing(first.luma, second.luma)
    return framing is not None and framing.is_crop and _within(_compared(first, second, framing), limits)


def _limits_for(a: _Evidence, b: _Evidence) -> _Limits | None:
    """Return what copies may differ by; None where no difference that is left could be told from an edit."""
    scale = abs(math.log(a.width * a.height / (b.width * b.height))) / 2
    shortest = min(a.width, a.height, b.width, b.height)
    if _NO_WRITING in (a.writing, b.writing) and _WRITING not in (a.writing, b.writing):
        if shortest < _SMALL_PAGE and scale > _PAGE_SCALE and min(_plain(a), _plain(b)) >= _ALL_PLAIN:
            return None  # a few marks on a page, of which such a small copy shows too little
        return _unscaled_limits(a, b, shortest)
    page = max(_plain(a), _plain(b)) >= _PLAIN
    # What fills little of a large page may be small print.
    fine = page and max(a.width, a.height, b.width, b.height) > _FINE_PIXELS_PER_CELL * _TEXT_SIDE
    if scale > _RESIZED and (fine or _WRITING in (a.writing, b.writing)):
        if page and scale > _PAGE_SCALE:
            return None
        return _shrunk(_TEXT_RESIZED, shortest / (_FULL_SIDE_PAGE if page else _FULL_SIDE))
    if fine and _WRITING not in (a.writing, b.writing):
        return _shrunk(_TEXT, _FINE_SHARE)
    return _unscaled_limits(a, b, shortest)


def _unscaled_limits(a: _Evidence, b: _Evidence, shortest: int) -> _Limits:
    limits = _shrunk(_full_sized_limits(a, b), shortest / _FULL_SIDE)
    one_palette = bool(a.palette) != bool(b.palette)
    return limits if one_palette else replace(limits, outlier=min(limits.outlier, _FURTHEST_OUTLIER))


def _full_sized_limits(a: _Evidence, b: _Evidence) -> _Limits:
    one_palette = bool(a.palette) != bool(b.palette)
    if a.writing == b.writing == _NO_WRITING:
        return _PALETTE if one_palette else _STRICT
    if a.writing + b.writing <= _WRITING:
        return _STRICT if one_palette and _WRITING not in (a.writing, b.writing) else _DOUBTFUL
    if max(a.width, a.height, b.width, b.height) <= _PIXELS_PER_CELL * _cells(a, b):
        return _DOUBTFUL
    return _TEXT


def _shrunk(limits: _Limits, share: float) -> _Limits:
    share = min(1.0, max(0.45, share**1.5))
    return replace(limits, peak=limits.peak * share, region=limits.region * share, outlier=limits.outlier * share)


def _plain(evidence: _Evidence) -> float:
    return float((_range(evidence.luma, 1) <= _EVEN_RANGE).mean())


def _unpacked(evidence: bytes) -> _Evidence | None:
    if evidence[0] != _LAYOUT:
        return None
    _, width, height, writing, palette_size = _HEADER.unpack_from(evidence)
    palette = evidence[_HEADER.size : _HEADER.size + palette_size]
    sheet = np.asarray(_sheet(evidence), np.float32)
    side = sheet.shape[1]
    chroma = sheet[side:, : 2 * _CHROMA_SIDE] - 128
    blue, red = chroma[:, :_CHROMA_SIDE], chroma[:, _CHROMA_SIDE:]
    return _Evidence(width, height, writing, palette, sheet[:side], blue, red)


@dataclass(frozen=True)
class _Difference:
    gain: float
    offset: float
    sharpness: float
    peak: float
    region: float
    outlier: float
    chroma_peak: float
    chroma_region: float
    chroma_area: float


def _within(found: _Difference, limits: _Limits) -> bool:
    # Sharpening that is found all over the picture leaves more at its edges than two bands of detail can follow.
    if limits.wide:
        more = 1 + _SHARPENED * found.sharpness
        limits = replace(limits, peak=limits.peak * more, region=limits.region * more, outlier=limits.outlier * more)
    return (
        1 / limits.gain <= found.gain <= limits.gain
        and abs(found.offset) <= limits.offset
        and found.sharpness <= limits.sharpness
        and found.peak <= limits.peak
        and found.region <= limits.region
        and found.outlier <= limits.outlier
        and found.chroma_peak <= limits.chroma_peak
        and found.chroma_region <= limits.chroma_region
        and found.chroma_area <= limits.chroma_area
    )


def _cells(a: _Evidence, b: _Evidence) -> int:
    """Return the side of the grid of comparison: at 0.6 cells a pixel or less, resampling hardly shows."""
    shortest = min(a.width, a.height, b.width, b.height)
    return int(min(len(a.luma), len(b.luma), max(48, 0.6 * shortest)))


def _compared(a: _Evidence, b: _Evidence, framing: Framing | None = None) -> _Difference:
    side = _cells(a, b)
    if framing is not None:
        side = int(side * _REFRAMED_DETAIL)
    first = [_resampled(reframed(plane, framing), side) for plane in (a.luma, a.blue, a.red)]
    second = [_resampled(plane, side) for plane in (b.luma, b.blue, b.red)]
    seen = np.ones((side, side), np.float32) if framing is None else framing.seen(side)
    palettes = (a.palette, b.palette)
    fit = _fitted(first, second)
    if fit.gain < 1:  # towards the stronger contrast: it is the one that may have clipped
        first, second, palettes = second, first, palettes[::-1]
        fit = _fitted(first, second)
    rgb = _rgb(first) * fit.gain + fit.offset
    clipped = np.maximum(rgb.max(axis=0) - 255, 0) + np.maximum(-rgb.min(axis=0), 0)
    red, green, blue = np.clip(rgb, 0, 255)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = np.clip(luma + fit.detail, 0, 255)
    # inside a cell some pixels clip and some do not: half of what clipping took is left open
    residual = second[0] - expected
    residual = (np.sign(residual) * np.maximum(np.abs(residual) - clipped / 2, 0) * seen).astype(np.float32)
    off_blue = second[1] - (blue - luma) / 1.772
    off_red = second[2] - (red - luma) / 1.402
    if bool(palettes[0]) != bool(palettes[1]) and _WRITING not in (a.writing, b.writing):
        open_luma, open_blue, open_red = _palette_errors(second if palettes[0] else first, palettes)
        residual, off_blue, off_red = (
            _beyond(value, error)
            for value, error in ((residual, open_luma), (off_blue, open_blue), (off_red, open_red))
        )
    noise = 1 + _noise(residual, first[0], second[0])
    region = np.sqrt(_mean(residual**2, 5))
    chroma_side = min(_CHROMA_SIDE, max(16, side // 2))
    off_blue, off_red = _resampled(off_blue * seen, chroma_side), _resampled(off_red * seen, chroma_side)
    open_chroma: Plane = (_resampled(clipped, chroma_side) / 2).astype(np.float32)
    return _Difference(
        gain=fit.gain,
        offset=fit.offset,
        sharpness=fit.sharpness,
        peak=float(np.abs(residual).max()),
        region=float(region.max()),
        outlier=float((region / np.sqrt(_mean(noise**2, 5))).max()),
        chroma_peak=float((np.hypot(off_blue, off_red) - open_chroma).max()),
        chroma_region=float((np.hypot(_mean(off_blue, 3), _mean(off_red, 3)) - open_chroma).max()),
        chroma_area=float((np.hypot(_mean(off_blue, 5), _mean(off_red, 5)) - _mean(open_chroma, 5)).max()),
    )


@dataclass(frozen=True)
class _Fit:
    gain: float
    offset: float
    sharpness: float
    detail: Plane  # what the change of sharpness adds to each cell


def _fitted(first: list[Plane], second: list[Plane]) -> _Fit:
    """Fit the second luma as gain, offset and two bands of detail of the first: least squares without the worst 5 %."""
    a, b = first[0], second[0]
    rgb_a, rgb_b = _rgb(first), _rgb(second)
    usable = (np.maximum(rgb_a, rgb_b).max(axis=0) < 242) & (np.minimum(rgb_a, rgb_b).min(axis=0) > 12)
    if usable.mean() < 0.05:
        usable = np.ones_like(usable)
    fine = _smoothed(a)
    coarse = _smoothed(_smoothed(_smoothed(fine)))
    middle = float(a[usable].mean())
    terms = np.stack([np.ones_like(a), a - middle, a - fine, fine - coarse]).reshape(4, -1)
    values, allowed = b.reshape(-1), usable.reshape(-1)
    chosen = allowed
    solution = np.array([middle, 1.0, 0.0, 0.0])
    for _ in range(3):
        count = float(chosen.sum())
        if count < 100:
            break
        # A weak pull to "unchanged", for pictures that leave a term open: without it, letters put on a blurred picture
        # would be taken for sharpening.
        pull = np.diag([1e-3, 2 * count, 2 * count, 2 * count])
        weighted = terms * chosen
        system = (weighted @ terms.T).astype(np.float64) + pull
        right = (weighted @ values).astype(np.float64) + pull @ np.array([0.0, 1.0, 0.0, 0.0])
        solution = np.linalg.solve(system, right)
        error = np.abs(values - solution.astype(np.float32) @ terms)
        chosen = allowed & (error <= np.quantile(error[chosen], 0.95) + 1)
    gain = float(solution[1])
    detail = (solution[2:].astype(np.float32) @ terms[2:]).reshape(a.shape)
    return _Fit(gain, float(solution[0]) - gain * middle, float(np.abs(solution[2:]).max()), detail)


def _palette_errors(planes: list[Plane], palettes: tuple[bytes, bytes]) -> list[Plane]:
    """Return by how much each cell's luma and chroma would change if the picture had only the other one's colours.

    Where a picture is smooth, a palette shows as bands: this predicts them. The sign is that of the second picture less
    the first.
    """
    palette = Image.new("P", (1, 1))
    palette.putpalette(palettes[0] or palettes[1])
    full = np.clip(np.rint(_rgb(planes).transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(full)
    banded = picture.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB")
    before, after = (np.asarray(p.convert("YCbCr"), dtype=np.float32) for p in (picture, banded))
    change = np.clip(after - before, -_PALETTE_ERROR, _PALETTE_ERROR) * (-1 if palettes[0] else 1)
    return [change[:, :, plane] for plane in range(3)]


def _beyond(value: Plane, error: Plane) -> Plane:
    """Return what of `value` is not explained by anything between nothing and `error`."""
    return value - np.clip(value, np.minimum(error, 0), np.maximum(error, 0))


def _noise(residual: Plane, a: Plane, b: Plane) -> Plane:
    """Return the mean residual to be expected at each cell, from the detail near it: a fit over the whole picture."""
    near = np.maximum(_range(a, 1), _range(b, 1))
    around = np.maximum(_range(a, 3), _range(b, 3))
    size = np.abs(residual)
    size = np.minimum(size, np.quantile(size, 0.98)).reshape(-1).astype(np.float64)
    terms = np.stack([np.ones_like(near), near, around], axis=-1).reshape(-1, 3).astype(np.float64)
    square, right = terms.T @ terms, terms.T @ size
    for kept in ([0, 1, 2], [0, 1], [0, 2], [0]):  # detail never makes less noise
        weights = np.linalg.solve(square[np.ix_(kept, kept)] + 1e-3 * np.eye(len(kept)), right[kept])
        if (weights[1:] >= 0).all():
            break
    expected: Plane = (terms[:, kept] @ weights).reshape(residual.shape).astype(np.float32)
    return np.maximum(expected, 0.3)


def _resampled(plane: Plane, side: int) -> Plane:
    if plane.shape == (side, side):
        return plane
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


def _rgb(planes: list[Plane]) -> Plane:
    luma, blue, red = planes
    side = len(luma)
    blue, red = _resampled(blue, side), _resampled(red, side)
    return np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])


def _smoothed(plane: Plane) -> Plane:
    padded = np.pad(plane, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4).astype(np.float32)


def _range(plane: Plane, radius: int) -> Plane:
    """Return the largest less the smallest value around each cell."""
    high, low = plane, plane
    for _ in range(radius):
        high, low = _grown(high, np.maximum), _grown(low, np.minimum)
    return high - low


def _grown(plane: Plane, extreme: np.ufunc) -> Plane:
    padded = np.pad(plane, 1, mode="edge")
    rows = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:])
    grown: Plane = extreme(extreme(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return grown


def _mean(plane: Plane, size: int) -> Plane:
    """Return the mean of the size x size cells around each cell, zero outside the picture."""
    total = np.pad(plane.astype(np.float64), ((size // 2 + 1, size // 2),) * 2).cumsum(axis=0).cumsum(axis=1)
    sums = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    floor = 0 if plane.min() >= 0 else -np.inf  # rounding
    means: Plane = np.maximum(sums / size**2, floor).astype(np.float32)
    return means
