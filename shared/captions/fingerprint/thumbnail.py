"""The evidence that two pictures are the same, kept per exemplar: what of a picture is compared with another's.

Evidence is a thumbnail: luma on a square grid, chroma on a coarser one, the original's size, and whether the picture is
of writing, which is judged by other limits.
"""

import math
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from captions import media
from captions.fingerprint.phash import hamming, perceptual_hash
from captions.fingerprint.planes import Plane, grown, value_range

# Cells a side. Pictures of writing have smaller details that mean more. Photos are judged on the coarse grid, where
# compression is averaged out, and once more as finely as they are kept, since a page that lies in them has letters of a
# few pixels. Cells are kept as they are: a codec's noise would be most of what two thumbnails of one page differ by.
COARSE_SIDE = 192
_FINE_SIDE, _SIDE_STEP = 512, 64
_FINEST_SIDE = 1024  # of a picture that was decoded finely, for a camera's photo and its reduced copies
TEXT_SIDE = 384
CHROMA_SIDE = 64
CELLS_PER_PIXEL = 0.6  # of the smaller picture's shorter side: at this or less resampling hardly shows
_KEPT_PER_PIXEL = 1.0  # of the picture's own side: a grid made from more cells than it has shows less of their raster

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
_TEXT_CELL = media.LARGE_SIDE / TEXT_SIDE

# A picture says too little to be recognised by if fewer of its cells than this share have any edge in them: but for
# soft shapes of many tones, whose hash is moved by so few bits by a noise as compression leaves it.
_EDGE_RANGE = 16  # of 255 within 3 x 3 cells
_EDGE_SHARE = 0.01
_NOISE, _MOVED = 2, 6  # of 255, either way; bits
_SMALLEST_SIDE = 32  # pixels

# Layout, width, height, writing, bytes of palette (RGB) that follow, before blue, red and luma.
_HEADER = struct.Struct("<BIIBH")
_LAYOUT = 6
NO_WRITING, PERHAPS_WRITING, WRITING = 0, 1, 2

_PALETTE_COLOURS = 128  # fewer are a drawing's, and predict nothing


Box = tuple[float, float, float, float]


class PictureEvidence(NamedTuple):
    """What is kept of a picture, unpacked."""

    width: int  # pixels of the original
    height: int
    writing: int  # NO_WRITING, PERHAPS_WRITING or WRITING
    palette: bytes  # RGB; empty for a picture of many colours
    luma: Plane  # square, 0..255
    blue: Plane  # chroma, square, -128..127
    red: Plane


def evidence_of(picture: media.Picture) -> bytes | None:
    """Return what `same_picture` compares; None for pictures that show too little to be told apart.

    It takes 45 to 271 KB, or up to 1.1 MB of a picture that was decoded finely, which is of no use to writing.
    """
    shorter = min(picture.width, picture.height)
    if shorter < _SMALLEST_SIDE or picture.hidden:
        return None
    grey, box = picture.working.convert("L"), _extent(picture)
    values = np.asarray(_thumbnail(grey, COARSE_SIDE, box), dtype=np.float32)
    if float((value_range(values, 1) > _EDGE_RANGE).mean()) < _EDGE_SHARE and not _softly_shaped(values):
        return None
    writing = _writing(values)
    if writing is None or (writing and (picture.finely or shorter > _TEXT_CELL * TEXT_SIDE)):
        return None
    blue, red = _thumbnail(picture.working, CHROMA_SIDE, box).convert("YCbCr").split()[1:]
    palette = picture.palette if picture.palette and len(picture.palette) >= 3 * _PALETTE_COLOURS else b""
    side = TEXT_SIDE if writing else _photo_side(pixels_a_side(picture.width, picture.height), finely=picture.finely)
    header = _HEADER.pack(_LAYOUT, picture.width, picture.height, writing, len(palette))
    return b"".join((header, palette, blue.tobytes(), red.tobytes(), _thumbnail(grey, side, box).tobytes()))


def pixels_a_side(width: int, height: int) -> float:
    """Return how many pixels a picture has a side, for the square grid of its cells: between its mean and shorter side.

    With cells for the shorter side alone, those of a wide picture are as wide as the letters of a price.
    """
    return (math.sqrt(width * height) + min(width, height)) / 2


def _photo_side(pixels: float, *, finely: bool) -> int:
    """Return how many cells a side are kept of a photo of so many pixels a side: what it can show, in steps."""
    shown = math.ceil(_KEPT_PER_PIXEL * pixels / _SIDE_STEP) * _SIDE_STEP
    return min(_FINEST_SIDE if finely else _FINE_SIDE, max(COARSE_SIDE, shown))


def _extent(picture: media.Picture) -> Box:
    """Return what of the working picture (left, top, right, bottom in its pixels) is covered by the original.

    Reducing rounds the sides up: a last column or row of which the original covers a part would shift all cells by it.
    """
    working = picture.working
    width = picture.width / math.ceil(picture.width / working.width)
    height = picture.height / math.ceil(picture.height / working.height)
    left, top = (working.width - width, working.height - height) if picture.pixels_digest is None else (0, 0)
    left, top = left * (picture.orientation in (2, 3, 6, 7)), top * (picture.orientation in (3, 4, 7, 8))
    return left, top, left + width, top + height


def _thumbnail(picture: Image.Image, side: int, box: Box) -> Image.Image:
    """Return a part of the picture on a square grid; much larger ones are averaged first: faster, and as good."""
    return picture.resize((side, side), Image.Resampling.BICUBIC, box, reducing_gap=2.0)


def _writing(luma: Plane) -> int | None:
    """Return whether the picture is, or may be, of writing or line drawing: thin strokes stand on plain ground.

    None if it is of small print that these cells show as faint stripes, in which a letter makes no difference.
    """
    closed, opened = luma, luma
    for larger, smaller in ((np.maximum, np.minimum),) * 2 + ((np.minimum, np.maximum),) * 2:
        closed, opened = grown(closed, larger), grown(opened, smaller)
    dark = (closed - luma > _STROKE_HEIGHT) & (value_range(closed, 3) < _PLAIN_RANGE)
    light = (luma - opened > _STROKE_HEIGHT) & (value_range(opened, 3) < _PLAIN_RANGE)
    strokes = float((dark | light).mean())
    if strokes > _STROKE_SHARE:
        return WRITING
    if strokes > _STROKE_SHARE_ON_TONE and _commonest_tone(luma) > _TONE_SHARE:
        return PERHAPS_WRITING
    edges = float((value_range(luma, 1) > _EDGE_RANGE).mean())
    if strokes > max(_FEW_STROKES, _STROKES_OF_EDGES * edges):
        return PERHAPS_WRITING
    faint = ((closed - luma > _FAINT_HEIGHT) & (value_range(closed, 3) < _PLAIN_RANGE)) | (
        (luma - opened > _FAINT_HEIGHT) & (value_range(opened, 3) < _PLAIN_RANGE)
    )
    return None if float(faint.mean()) > max(_FAINT_SHARE, _FAINT_OF_EDGES * edges) else NO_WRITING


def _commonest_tone(luma: Plane) -> float:
    """Return the largest share of the picture that one tone fills: nine values of luma."""
    counts = np.bincount(luma.astype(np.uint8).reshape(-1), minlength=256)
    return float(np.convolve(counts, np.ones(9), "same").max()) / luma.size


def _softly_shaped(luma: Plane) -> bool:
    """Return whether a picture without edges shows something all the same.

    One of few tones may be a blank page, and of a mere gradient most of the hash is rounding.
    """
    if _commonest_tone(luma) > _TONE_SHARE:
        return False
    from numpy.random import default_rng  # for few pictures: it takes as long to load as numpy's half

    noise = default_rng(0).uniform(-_NOISE, _NOISE, luma.shape)
    noisy = Image.fromarray(np.clip(np.rint(luma + noise), 0, 255).astype(np.uint8))
    return hamming(perceptual_hash(Image.fromarray(luma.astype(np.uint8))), perceptual_hash(noisy)) <= _MOVED


def luma_of(evidence: bytes) -> Image.Image:
    """Return the luma thumbnail (mode L, square) that `evidence` holds."""
    *_, palette_size = _HEADER.unpack_from(evidence)
    luma = evidence[_HEADER.size + palette_size + 2 * CHROMA_SIDE**2 :]
    side = math.isqrt(len(luma))
    return Image.frombytes("L", (side, side), luma)


def unpacked(evidence: bytes) -> PictureEvidence | None:
    """Read packed evidence; None for that of another layout."""
    if evidence[0] != _LAYOUT:
        return None
    _, width, height, writing, palette_size = _HEADER.unpack_from(evidence)
    palette = evidence[_HEADER.size : _HEADER.size + palette_size]
    chroma = np.frombuffer(evidence, np.uint8, 2 * CHROMA_SIDE**2, _HEADER.size + palette_size).astype(np.float32) - 128
    blue, red = chroma.reshape(2, CHROMA_SIDE, CHROMA_SIDE)
    return PictureEvidence(width, height, writing, palette, np.asarray(luma_of(evidence), np.float32), blue, red)
