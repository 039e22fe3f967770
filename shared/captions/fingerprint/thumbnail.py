"""The evidence that two pictures are the same, kept per exemplar: what of a picture is compared with another's.

Evidence is a thumbnail: luma on a square grid, chroma on a coarser one, the original's size, and whether the picture is
of writing, which is judged by other limits.
"""

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from captions import media
from captions.fingerprint.planes import Plane, grown, value_range

# Cells a side. Pictures of writing have smaller details that mean more; what surrounds them costs little to keep.
# Photos are judged on the coarse grid, where compression is averaged out, and once more as finely as they are kept,
# since a page that lies in them has letters of a few pixels.
COARSE_SIDE = 192
_FINE_SIDE, _SIDE_STEP, _FINE_QUALITIES = 512, 64, (88, 80, 70, 60, 50, 40, 30, 20)  # the first that fits
TEXT_SIDE, _TEXT_QUALITIES = 384, (88, 76)
_FINE_METHOD, _TEXT_METHOD = 1, 2  # WebP's effort: with less, even ground is not kept even, by which pages are told
CHROMA_SIDE, _CHROMA_QUALITY = 64, 92
_LARGEST = 64_000  # bytes
_GUESS = 12  # of quality: by how much more than in proportion to the size it may be
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

# A picture says too little to be recognised by if fewer of its cells than this share have any edge in them.
_EDGE_RANGE = 16  # of 255 within 3 x 3 cells
_EDGE_SHARE = 0.01
_SMALLEST_SIDE = 32  # pixels

# Layout, width, height, writing, bytes of palette (RGB) and of chroma (WebP) that follow, before the luma.
_HEADER = struct.Struct("<BIIBHH")
_LAYOUT = 5
NO_WRITING, PERHAPS_WRITING, WRITING = 0, 1, 2

_PALETTE_COLOURS = 128  # fewer are a drawing's, and predict nothing


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PictureEvidence:
    """What is kept of a picture, unpacked."""

    width: int  # pixels of the original
    height: int
    writing: int  # NO_WRITING, PERHAPS_WRITING or WRITING
    palette: bytes  # RGB; empty for a picture of many colours
    luma: Plane  # square, 0..255
    blue: Plane  # chroma, square, -128..127
    red: Plane


def evidence_of(picture: media.Picture) -> bytes | None:
    """Return what `same_picture` compares, 10 to 64 KB; None for pictures that show too little to be told apart."""
    shorter = min(picture.width, picture.height)
    if shorter < _SMALLEST_SIDE:
        return None
    grey, box = picture.working.convert("L"), _extent(picture)
    values = np.asarray(_thumbnail(grey, COARSE_SIDE, box), dtype=np.float32)
    if float((value_range(values, 1) > _EDGE_RANGE).mean()) < _EDGE_SHARE:
        return None
    writing = _writing(values)
    if writing is None or (writing and shorter > _TEXT_CELL * TEXT_SIDE):
        return None
    blue, red = _thumbnail(picture.working, CHROMA_SIDE, box).convert("YCbCr").split()[1:]
    chroma = Image.new("L", (2 * CHROMA_SIDE, CHROMA_SIDE))
    chroma.paste(blue, (0, 0))
    chroma.paste(red, (CHROMA_SIDE, 0))
    packed_chroma = _webp(chroma, _CHROMA_QUALITY, _TEXT_METHOD)
    palette = picture.palette if picture.palette and len(picture.palette) >= 3 * _PALETTE_COLOURS else b""
    room = _LARGEST - _HEADER.size - len(palette) - len(packed_chroma)
    if writing:
        packed = _fitting(_thumbnail(grey, TEXT_SIDE, box), _TEXT_QUALITIES, _TEXT_METHOD, room)
    else:  # fur and grass take more room than there is for so many cells: fewer then
        sides = range(_photo_side(pixels_a_side(picture.width, picture.height)), COARSE_SIDE - 1, -2 * _SIDE_STEP)
        tries = (_fitting(_thumbnail(grey, side, box), _FINE_QUALITIES, _FINE_METHOD, room) for side in sides)
        packed = next((attempt for attempt in tries if attempt is not None), None)
    if packed is None:
        return None
    header = _HEADER.pack(_LAYOUT, picture.width, picture.height, writing, len(palette), len(packed_chroma))
    return header + palette + packed_chroma + packed


def pixels_a_side(width: int, height: int) -> float:
    """Return how many pixels a picture has a side, for the square grid of its cells: between its mean and shorter side.

    With cells for the shorter side alone, those of a wide picture are as wide as the letters of a price.
    """
    return (math.sqrt(width * height) + min(width, height)) / 2


def _photo_side(pixels: float) -> int:
    """Return how many cells a side are kept of a photo of so many pixels a side: what it can show, in steps."""
    return min(_FINE_SIDE, max(COARSE_SIDE, math.ceil(_KEPT_PER_PIXEL * pixels / _SIDE_STEP) * _SIDE_STEP))


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


def _fitting(plane: Image.Image, qualities: Sequence[int], method: int, room: int) -> bytes | None:
    """Return `plane` in the best of the qualities that fits into `room` bytes; None if none does."""
    guess = 100.0
    for quality in qualities:
        if quality > guess:  # encoding takes longer than all else here: hopeless ones are passed over
            continue
        packed = _webp(plane, quality, method)
        if len(packed) <= room:
            return packed
        guess = quality * room / len(packed) + _GUESS
    return None


def _webp(plane: Image.Image, quality: int, method: int) -> bytes:
    stream = io.BytesIO()
    plane.save(stream, "WEBP", quality=quality, method=method)
    return stream.getvalue()


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
    counts = np.bincount(luma.astype(np.uint8).reshape(-1), minlength=256)
    one_tone = float(np.convolve(counts, np.ones(9), "same").max()) / luma.size
    if strokes > _STROKE_SHARE_ON_TONE and one_tone > _TONE_SHARE:
        return PERHAPS_WRITING
    edges = float((value_range(luma, 1) > _EDGE_RANGE).mean())
    if strokes > max(_FEW_STROKES, _STROKES_OF_EDGES * edges):
        return PERHAPS_WRITING
    faint = ((closed - luma > _FAINT_HEIGHT) & (value_range(closed, 3) < _PLAIN_RANGE)) | (
        (luma - opened > _FAINT_HEIGHT) & (value_range(opened, 3) < _PLAIN_RANGE)
    )
    return None if float(faint.mean()) > max(_FAINT_SHARE, _FAINT_OF_EDGES * edges) else NO_WRITING


def luma_of(evidence: bytes) -> Image.Image:
    """Return the luma thumbnail (mode L, square) that `evidence` holds."""
    *_, palette_size, chroma_size = _HEADER.unpack_from(evidence)
    return _decoded(evidence[_HEADER.size + palette_size + chroma_size :])


def _decoded(packed: bytes) -> Image.Image:
    return Image.open(io.BytesIO(packed), formats=["WEBP"]).convert("L")


def unpacked(evidence: bytes) -> PictureEvidence | None:
    """Read packed evidence; None for that of another layout."""
    if evidence[0] != _LAYOUT:
        return None
    _, width, height, writing, palette_size, chroma_size = _HEADER.unpack_from(evidence)
    palette = evidence[_HEADER.size : _HEADER.size + palette_size]
    start = _HEADER.size + palette_size
    chroma = np.asarray(_decoded(evidence[start : start + chroma_size]), np.float32) - 128
    luma = np.asarray(luma_of(evidence), np.float32)
    return PictureEvidence(width, height, writing, palette, luma, chroma[:, :CHROMA_SIDE], chroma[:, CHROMA_SIDE:])
