"""What is measured on a picture: some sixty numbers about its tones, colours, edges, lines, strokes and layout.

All are measured at one scale, AREA pixels, so that a copy in another size measures the same. None of them is
about what is shown, only about how it is drawn: plain ground or texture, few colours or many, strokes or shades.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.fft import irfft, rfft
from PIL import Image

Plane = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

AREA = 100_000  # pixels looked at: a page's lines of text are then some 5 pixels high
_LONGEST = 1024  # pixels a side, of very long pictures
_SMALLEST = 8

_TONE = 6  # of 255: as far as compression moves a plain tone
_EDGE = 24  # of 255 from one pixel to the next: an edge that is drawn rather than shaded
_STROKE = 25  # of 255 above or below its ground
_PLAIN = 14  # of 255 within 7 x 7 pixels of the ground, strokes taken away
_HARD = 70  # of 255 from one pixel to the next: an edge as ink and screens have it
_CLEAR_STROKE, _CLEAR_PLAIN = 50, 9  # the same for what foliage and fur do not do
_COLOURFUL = 40  # of 255 between the largest and the smallest channel
_LINE = 0.22  # of the picture's side: an edge as long as this and straight is a ruled line, an axis or a frame
_WINDOW, _LEAST_CELLS = 180, 3.0  # pixels a side in which the script is looked at; squares of writing it must hold
_CELL = 12  # pixels: the squares in which writing is looked for


@dataclass(frozen=True)
class Measured:
    """The features by name, the share of the picture's area (0..1) that looks like lines of writing, and the part of
    the picture with most of it (left, top, right, bottom as shares of width and height; None: there is hardly any).
    """

    values: dict[str, float]
    text_share: float
    written: tuple[float, float, float, float] | None = None


def measured(working: Image.Image, width: int, height: int) -> Measured:
    """Measure an RGB picture; `width` x `height` is the original's size in pixels."""
    size = _measured_size(working.size)
    # Averaged in luma alone, which takes a third of the time; colours are sampled, which mixes none that are not there.
    # Planes, since numpy is slow along short axes.
    luma = np.asarray(working.convert("L").resize(size, Image.Resampling.BOX, reducing_gap=1.0))
    rgb = np.stack([np.asarray(channel) for channel in working.resize(size, Image.Resampling.NEAREST).split()])
    values: dict[str, float] = {}
    values["aspect"] = math.log(width / height)
    values["elongation"] = abs(values["aspect"])
    values["size"] = math.log2(max(1, width * height)) / 20
    values |= _tones(luma)
    values |= _colours(rgb)
    values |= _edges(luma)
    values |= _ground(rgb, luma)
    strokes, lines = _strokes(luma, rgb)
    values |= lines
    values |= _lines(luma)
    values |= _rows(strokes.text)
    values["clear_text"] = strokes.clear_share
    return Measured(
        {name: round(float(value), 5) for name, value in values.items()}, float(strokes.clear_share), strokes.written
    )


def _measured_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1.0, math.sqrt(AREA / (width * height)), _LONGEST / max(width, height))
    return max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale))


def _share(mask: Mask) -> float:
    return float(np.count_nonzero(mask)) / mask.size if mask.size else 0.0


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    """Return the entropy of a histogram in bits."""
    total = counts.sum()
    if total == 0:
        return 0.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum())


def _tones(luma: Bytes) -> dict[str, float]:
    counts = np.bincount(luma.reshape(-1), minlength=256)
    near = np.convolve(counts, np.ones(2 * _TONE + 1), "same") / luma.size
    first = int(near.argmax())
    rest = near.copy()
    rest[max(0, first - 2 * _TONE) : first + 2 * _TONE + 1] = 0
    second = int(rest.argmax())
    cumulative = counts.cumsum() / luma.size
    return {
        "tone_share": float(near[first]),
        "tone_level": first / 255,
        "second_tone_share": float(rest[second]),
        "tones_apart": abs(first - second) / 255,
        "tone_entropy": _entropy(counts.reshape(64, 4).sum(axis=1)),
        "luma_mean": float((counts * np.arange(256)).sum() / luma.size / 255),
        "dark_share": float(cumulative[40]),
        "light_share": float(1 - cumulative[225]),
        "spread": float((np.searchsorted(cumulative, 0.95) - np.searchsorted(cumulative, 0.05)) / 255),
    }


def _colours(rgb: Bytes) -> dict[str, float]:
    red, green, blue = rgb
    codes = (red >> 4).astype(np.uint16) << 8 | (green & 0xF0) | blue >> 4
    counts = np.sort(np.bincount(codes.reshape(-1), minlength=4096))[::-1]
    shares = counts / codes.size
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    chromas = np.bincount(chroma.reshape(-1), minlength=256)
    above = 1 - chromas.cumsum() / chroma.size
    colourful = chroma > _COLOURFUL
    share = float(above[_COLOURFUL])
    hue_entropy = 0.0
    if share > 0.002:
        # a coarse hue: which channel leads, which follows, and whether it follows closely
        r, g, b = (channel[colourful].astype(np.int16) for channel in (red, green, blue))
        middle = (r + g + b - high[colourful] - low[colourful]) - low[colourful].astype(np.int16)
        close = (2 * middle > chroma[colourful]).astype(np.int64)
        order = (r >= g).astype(np.int64) * 4 + (g >= b) * 2 + (b >= r)
        hue_entropy = _entropy(np.bincount(order * 2 + close, minlength=16))
    return {
        "colour_top1": float(shares[0]),
        "colour_top2": float(shares[:2].sum()),
        "colour_top8": float(shares[:8].sum()),
        "colour_top32": float(shares[:32].sum()),
        "colour_entropy": _entropy(counts),
        "colours": math.log2(1 + int((shares > 0.0005).sum())),
        "chroma_mean": float((chromas * np.arange(256)).sum() / chroma.size / 255),
        "colourful_share": share,
        "vivid_share": float(above[120]),
        "grey_share": float(1 - above[13]),
        "hue_entropy": hue_entropy,
    }


def _edges(luma: Bytes) -> dict[str, float]:
    across, down = _apart(luma[:, 1:], luma[:, :-1])[:-1], _apart(luma[1:], luma[:-1])[:, :-1]
    steps = np.maximum(across, down)
    counts = np.bincount(steps.reshape(-1), minlength=256)
    up_to = counts.cumsum() / steps.size
    strong = steps > _EDGE
    share = float(1 - up_to[_EDGE])
    edges = max(1, int(np.count_nonzero(strong)))
    # of an edge that runs along the picture's sides, one of the two differences is nothing
    upright = strong & (np.minimum(across, down) < steps // 6)
    blocks = _pooled(strong, 6)
    finely = _pooled(steps > 4, 6)
    crossed, climbed = int(np.count_nonzero(across > _EDGE)), int(np.count_nonzero(down > _EDGE))
    return {
        "flat_share": float(up_to[1]),
        "plain_share": float(up_to[4]),
        "edge_share": share,
        "hard_share": float(1 - up_to[_HARD]),
        "shaded_share": float(up_to[_EDGE] - up_to[4]),
        "edge_hardness": float(1 - up_to[_HARD]) * steps.size / edges,
        "upright_edges": int(np.count_nonzero(upright)) / edges,
        "across_edges": crossed / max(1, crossed + climbed),
        "step_mean": float((counts * np.arange(256)).sum() / steps.size / 16),
        "step_median": float(np.searchsorted(up_to, 0.5)),
        "edge_blocks_least": float(np.partition(blocks.reshape(-1), blocks.size // 4)[blocks.size // 4]),
        "edge_blocks_most": float(blocks.max()),
        "edge_blocks_spread": float(blocks.std()),
        "detail_blocks_least": float(np.partition(finely.reshape(-1), finely.size // 6)[finely.size // 6]),
        "detail_blocks_median": float(np.median(finely)),
        "blocks_with_edges": _share(blocks > 0.05),
    }


def _apart(a: Bytes, b: Bytes) -> Bytes:
    """Return the absolute difference of two planes of bytes, without leaving bytes."""
    return np.maximum(a, b) - np.minimum(a, b)


def _pooled(mask: Mask, cells: int) -> Plane:
    """Return the shares of True in cells x cells equal parts of the mask."""
    return _cells(mask, min(cells, mask.shape[0]), min(cells, mask.shape[1]))


def _ground(rgb: Bytes, luma: Bytes) -> dict[str, float]:
    """Measure what surrounds the subject: the tone of the picture's border, and what stands out from it."""
    frame = max(1, min(luma.shape) // 50)
    sides = (rgb[:, :frame], rgb[:, -frame:], rgb[:, :, :frame], rgb[:, :, -frame:])
    border = np.concatenate([side.reshape(3, -1) for side in sides], axis=1)
    colour = [_median(channel) for channel in border]
    even = _share(_furthest(border, colour) <= 2 * _TONE)
    subject = _furthest(rgb, colour) > 2 * _TONE
    share = _share(subject)
    rows = np.count_nonzero(subject, axis=1) / luma.shape[1]
    columns = np.count_nonzero(subject, axis=0) / luma.shape[0]
    tall, wide = np.flatnonzero(rows > 0.01), np.flatnonzero(columns > 0.01)
    box = (int(tall[-1] - tall[0]) + 1) * (int(wide[-1] - wide[0]) + 1) / luma.size if len(tall) and len(wide) else 0.0
    inside = subject[:, 1:] & subject[:, :-1]
    counts = np.bincount(_apart(luma[:, 1:], luma[:, :-1])[inside], minlength=256)
    within = counts.cumsum() / max(1, counts.sum())
    core = subject[luma.shape[0] // 3 : 2 * luma.shape[0] // 3 + 1, luma.shape[1] // 3 : 2 * luma.shape[1] // 3 + 1]
    return {
        "border_even": even,
        "border_luma": sum(colour) / 3 / 255,
        "border_chroma": (max(colour) - min(colour)) / 255,
        "subject_share": share,
        "subject_box": float(box),
        "subject_filled": share / box if box else 0.0,
        "subject_core": _share(core),
        "subject_gaps": _share(subject[:, 1:] != subject[:, :-1]) / max(0.01, share),
        # a photographed thing is shaded all over; a drawn one is plain between its outlines
        "subject_plain": float(within[1]) if within[-1] else 1.0,
        "subject_shaded": float(within[_EDGE] - within[2]),
        "subject_hard": float(within[-1] - within[_HARD]),
    }


def _median(channel: Bytes) -> int:
    counts = np.bincount(channel, minlength=256).cumsum()
    return int(np.searchsorted(counts, counts[-1] / 2))


def _furthest(rgb: Bytes, colour: list[int]) -> Bytes:
    """Return each pixel's largest distance from `colour` in any channel."""
    red, green, blue = (
        _apart(channel, np.array([value], np.uint8)) for channel, value in zip(rgb, colour, strict=True)
    )
    return np.maximum(np.maximum(red, green), blue)


def _grown(plane: Bytes, extreme: np.ufunc) -> Bytes:
    """Return each pixel's extreme within 5 x 5 pixels; beyond the sides the plane goes on as it ends."""
    padded = np.pad(plane, 2, mode="edge")
    pairs = extreme(padded[:-1], padded[1:])
    rows = extreme(extreme(pairs[:-3], pairs[2:-1]), padded[4:])
    pairs = extreme(rows[:, :-1], rows[:, 1:])
    grown: Bytes = extreme(extreme(pairs[:, :-3], pairs[:, 2:-1]), rows[:, 4:])
    return grown


@dataclass(frozen=True)
class _Strokes:
    text: Mask  # strokes that stand like writing
    clear_share: float  # of the picture, where they do so beyond doubt
    written: tuple[float, float, float, float] | None  # the part with most of that


def _strokes(luma: Bytes, rgb: Bytes) -> tuple[_Strokes, dict[str, float]]:
    """Find thin strokes on plain ground, and the squares in which they stand like writing."""
    closed = _grown(_grown(luma, np.maximum), np.minimum)
    opened = _grown(_grown(luma, np.minimum), np.maximum)
    under = _grown(closed, np.maximum) - _grown(closed, np.minimum)
    over = _grown(opened, np.maximum) - _grown(opened, np.minimum)
    darker, lighter = closed - luma, luma - opened
    dark, light = (darker > _STROKE) & (under < _PLAIN), (lighter > _STROKE) & (over < _PLAIN)
    clear = ((darker > _CLEAR_STROKE) & (under < _CLEAR_PLAIN)) | ((lighter > _CLEAR_STROKE) & (over < _CLEAR_PLAIN))
    dark_share, light_share = _share(dark), _share(light)
    strokes = dark | light
    red, green, blue = (channel[strokes] for channel in rgb)
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    text, surely = _writing(strokes), _writing(clear)
    written = _share(text)
    return _Strokes(text & strokes, _share(surely), _fullest(surely)), {
        "dark_strokes": dark_share,
        "light_strokes": light_share,
        "strokes": _share(strokes),
        "light_lead": (light_share - dark_share) / (light_share + dark_share + 0.002),
        "stroke_colour": _share(chroma > _COLOURFUL),
        "text_share": written,
        "text_density": _share(strokes[text]),
        "strokes_elsewhere": _share(strokes & ~text),
    }


def _writing(strokes: Mask) -> Mask:
    """Return where strokes stand like writing: many ends side by side, none of them long."""
    height, width = strokes.shape
    turns, ups = np.zeros_like(strokes), np.zeros_like(strokes)
    turns[:, 1:] = strokes[:, 1:] != strokes[:, :-1]
    ups[1:] = strokes[1:] != strokes[:-1]
    rows, columns = max(1, height // _CELL), max(1, width // _CELL)
    cells = [_cells(mask, rows, columns) for mask in (turns, ups, strokes)]
    # letters cross a row of pixels often; a ruled line crosses none, or in one direction only
    like = (cells[0] > 0.08) & (cells[1] > 0.05) & (cells[2] > 0.05) & (cells[2] < 0.6)
    beside = np.zeros_like(like)
    beside[:, 1:] |= like[:, :-1]
    beside[:, :-1] |= like[:, 1:]
    like &= beside  # a letter alone is no writing
    top, left = np.arange(rows + 1) * height // rows, np.arange(columns + 1) * width // columns
    return np.repeat(np.repeat(like, np.diff(top), axis=0), np.diff(left), axis=1)


def _fullest(text: Mask) -> tuple[float, float, float, float] | None:
    """Return the window of WINDOW pixels a side that holds most of the writing, as shares of width and height."""
    height, width = text.shape
    tall, wide = min(_WINDOW, height), min(_WINDOW, width)
    rows, columns = max(1, height // _CELL), max(1, width // _CELL)
    summed = np.pad(_cells(text, rows, columns), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    down, across = min(rows, math.ceil(tall / _CELL)), min(columns, math.ceil(wide / _CELL))
    held = summed[down:, across:] - summed[:-down, across:] - summed[down:, :-across] + summed[:-down, :-across]
    top, left = np.unravel_index(int(held.argmax()), held.shape)
    if held[top, left] < _LEAST_CELLS:
        return None
    return left / columns, top / rows, min(1.0, (left + across) / columns), min(1.0, (top + down) / rows)


def _cells(mask: Mask, rows: int, columns: int) -> Plane:
    """Return the shares of True in rows x columns equal parts of the mask."""
    top = np.arange(rows + 1) * mask.shape[0] // rows
    left = np.arange(columns + 1) * mask.shape[1] // columns
    sums = np.add.reduceat(
        np.add.reduceat(mask.view(np.uint8), top[:-1], axis=0, dtype=np.uint16), left[:-1], axis=1, dtype=np.float32
    )
    return (sums / np.outer(np.diff(top), np.diff(left))).astype(np.float32)


def _lines(luma: Bytes) -> dict[str, float]:
    """Measure long straight edges along the picture's sides: rules, frames, axes, bars."""
    rows = _longest_runs(_apart(luma[1:], luma[:-1]) > _EDGE)
    columns = _longest_runs(np.ascontiguousarray((_apart(luma[:, 1:], luma[:, :-1]) > _EDGE).T))
    ruled, stood = rows > _LINE, columns > _LINE
    return {
        "level_lines": _share(ruled),
        "upright_lines": _share(stood),
        "longest_level": float(rows.max(initial=0)),
        "longest_upright": float(columns.max(initial=0)),
        "lines_both": math.sqrt(_share(ruled) * _share(stood)),
        "level_line_count": math.log2(1 + _groups(ruled)),
        "upright_line_count": math.log2(1 + _groups(stood)),
    }


def _longest_runs(mask: Mask) -> Plane:
    """Return each row's longest run of edge, as a share of its length; gaps of one pixel are bridged."""
    width = mask.shape[1]
    bridged = mask.copy()
    bridged[:, 1:-1] |= mask[:, 2:] & mask[:, :-2]
    padded = np.pad(bridged, ((0, 0), (1, 1)))
    flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    longest = np.zeros(len(mask), np.float32)
    if len(changes) >= 2:
        starts, ends = changes[0::2], changes[1::2]
        np.maximum.at(longest, starts // (width + 2), (ends - starts).astype(np.float32))
    shares: Plane = longest / width
    return shares


def _groups(mask: Mask) -> int:
    """Return how many runs of True there are."""
    return int(mask[0]) + int(np.count_nonzero(mask[1:] & ~mask[:-1])) if len(mask) else 0


def _rows(text: Mask) -> dict[str, float]:
    """Measure how the writing is laid out: rows at even distances, where they begin and end, how full they are."""
    height, width = text.shape
    profile = text.mean(axis=1, dtype=np.float32)
    filled = profile > 0.01
    count = int(filled.sum())
    if count < 4:
        return {
            "row_rhythm": 0.0, "row_count": 0.0, "row_start": 0.5, "row_start_spread": 0.0, "row_end": 0.5,
            "row_end_spread": 0.0, "row_fill": 0.0, "text_left": 0.0, "text_rows": 0.0, "column_rhythm": 0.0,
        }  # fmt: skip
    lines = text[filled]
    starts = lines.argmax(axis=1) / width
    ends = 1 - lines[:, ::-1].argmax(axis=1) / width
    columns = text.mean(axis=0, dtype=np.float32)
    total = float(columns.sum()) or 1.0
    return {
        "row_rhythm": _rhythm(profile),
        "row_count": math.log2(1 + _groups(filled)),
        "row_start": float(np.median(starts)),
        "row_start_spread": float(starts.std()),
        "row_end": float(np.median(ends)),
        "row_end_spread": float(ends.std()),
        "row_fill": float(np.median(lines.mean(axis=1))),
        "text_left": float(columns[: width // 2].sum()) / total,
        "text_rows": count / height,
        "column_rhythm": _rhythm(columns),
    }


def _rhythm(profile: Plane) -> float:
    """Return the autocorrelation's highest peak beyond its first valley, 0..1: 1 for lines at even distances."""
    centred = profile - profile.mean()
    power = float((centred**2).sum())
    if power <= 0 or len(profile) < 24:
        return 0.0
    spectrum = rfft(centred, 2 * len(profile))
    correlation = irfft(np.abs(spectrum) ** 2)[: len(profile) // 3] / power
    falling = np.flatnonzero(correlation < 0.3 * correlation[0])
    if not len(falling):
        return 0.0
    return float(np.clip(correlation[falling[0] :].max(), 0, 1))
