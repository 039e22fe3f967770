"""Files made to cost far more than they show, told by their structure before a decoder sees them.

Pillow refuses by the size of a picture. What it walks through in Python, or hands to a library that allocates by
another field than the size, is bounded here.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from captions.media.errors import Limits, MediaError

# A file of 40 MB has no more: cameras' segments are 64 KB long, a PNG's chunks 8 KB, a GIF's blocks 255 bytes.
_MOST_PARTS = 100_000
_MOST_BLOCKS = 1_000_000
_MOST_PAGES = 5_000
# Encoders make some 10; each is a pass over the whole picture, and needs but a few bytes.
_MOST_SCANS = 100
_MOST_JUNK = 65_536  # bytes between a JPEG's segments

# Decoders in Python that take microseconds a pixel; SGI16 works on whole lines. XBM is read in C, but by lines of text.
_SLOW_PIXELS = 4_000_000
_NOT_SLOW = frozenset({"SGI16"})

# The buffer that a tiled TIFF asks for is a tile's, and may be far larger than the picture.
_SMALL_TILE = 4_000_000

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


def refuse_size(width: int, height: int, limit: int) -> None:
    """Raise MediaError (`bomb`) for more than `limit` pixels, `broken` for none."""
    if width <= 0 or height <= 0:
        raise MediaError("broken", f"the picture's header says {width} x {height} pixels")
    if width * height > limit:
        raise MediaError(
            "bomb",
            f"the picture would unpack to {width} x {height} pixels; at most {limit / 1e6:g} megapixels are taken",
        )


def refuse_costly(image: Image.Image, limits: Limits) -> None:
    """Raise MediaError (`bomb`) for a large picture that would be decoded in Python, or take more memory than others.

    OpenJPEG holds each band in 32 bits, twice: with four of them 24 bytes a pixel.
    """
    if image.format == "TIFF":
        _refuse_tiles(image.tag_v2)  # type: ignore[attr-defined]
    if image.format == "JPEG2000" and len(image.getbands()) > 3:
        refuse_size(*image.size, limits.image_pixels * 3 // len(image.getbands()))
    codecs = {tile[0] for tile in getattr(image, "tile", ())} - _NOT_SLOW
    if image.format == "XBM" or not codecs.isdisjoint(Image.DECODERS):
        refuse_size(*image.size, min(limits.image_pixels, _SLOW_PIXELS))


def _refuse_tiles(tags: Mapping[int, Any]) -> None:
    width, height, across, down = (_first(tags.get(tag, 0)) for tag in (256, 257, 322, 323))
    if across * down > max(_SMALL_TILE, 2 * width * height):
        raise MediaError("bomb", f"the TIFF file has tiles of {across} x {down} pixels, far more than it shows")


def _first(value: Any) -> int:
    number = value[0] if isinstance(value, tuple) and value else value
    return number if isinstance(number, int) else 0


def refuse_structure(data: bytes, name: str, limits: Limits) -> None:
    """Raise MediaError (`bomb`, `broken`, `truncated`) for what the structure of the file `data` alone gives away.

    `name` is the Pillow plugin that would read it.
    """
    try:
        match name:
            case "JPEG":
                _jpeg(data)
            case "PNG":
                _few(_png_chunks(data), _MOST_PARTS, name)
            case "WEBP":
                _few(_riff_chunks(data), _MOST_PARTS, name)
            case "TIFF":
                _tiff(data)
            case "ICO" | "CUR":
                _icons(data, limits)
            case "GIF":
                for width, height in _gif_extents(data):
                    refuse_size(max(width, 1), max(height, 1), limits.image_pixels)
    except (struct.error, IndexError) as error:
        raise MediaError("truncated", f"the {name} file ends inside its headers") from error


def _few(parts: Iterator[object], most: int, name: str) -> None:
    for number, _ in enumerate(parts, 1):
        if number > most:
            raise MediaError("bomb", f"the {name} file is made of more than {most:,} parts")


def _png_chunks(data: bytes) -> Iterator[int]:
    position = 8
    while position + 12 <= len(data):
        yield position
        size, name = struct.unpack_from(">I4s", data, position)
        if name in (b"IEND", bytes(4)):
            return  # what stands behind is not read, and zeros are no chunks
        position += 12 + size


def _riff_chunks(data: bytes) -> Iterator[int]:
    position, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= end:
        yield position
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2


def _jpeg(data: bytes) -> None:
    position, parts, scans, components, progressive = 2, 0, 0, 0, False
    while match := (_MARKER_IN_SCAN if scans else _MARKER).search(data, position):
        if not scans and match.end() - position > _MOST_JUNK:
            raise MediaError("broken", "the JPEG file has no marker where a segment begins")
        parts += 1
        if parts > _MOST_PARTS:
            raise MediaError("bomb", f"the JPEG file is made of more than {_MOST_PARTS:,} parts")
        marker, position = match[1][0], match.end()
        if marker == 0xD9:
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue  # they stand alone
        size = int.from_bytes(data[position : position + 2], "big")
        if marker in _SOF and size >= 8:
            components, progressive = data[position + 7], marker in _PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            if scans > _MOST_SCANS:
                raise MediaError("bomb", f"the JPEG file paints its picture more than {_MOST_SCANS} times over")
            if not progressive and data[position + 2] >= components:
                return  # all is in this scan
        position += size


def _tiff(data: bytes) -> None:
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    offset, head, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    position = struct.unpack_from(f"{order}{offset}", data, 8 if big else 4)[0]
    seen: set[int] = set()
    while position and position not in seen:
        seen.add(position)
        if len(seen) > _MOST_PAGES:
            raise MediaError("bomb", f"the TIFF file has more than {_MOST_PAGES:,} pages")
        if position + struct.calcsize(f"={head}") > len(data):
            return
        count = struct.unpack_from(f"{order}{head}", data, position)[0]
        position += struct.calcsize(f"={head}")
        position += entry * count
        if position + struct.calcsize(f"={offset}") > len(data):
            return
        position = struct.unpack_from(f"{order}{offset}", data, position)[0]


def _icons(data: bytes, limits: Limits) -> None:
    for entry in range(struct.unpack_from("<H", data, 4)[0]):
        offset = struct.unpack_from("<I", data, 6 + 16 * entry + 12)[0]
        png = data[offset : offset + 4] == b"\x89PNG"
        width, height = struct.unpack_from(">II" if png else "<ii", data, offset + (16 if png else 4))
        refuse_size(max(width, 1), max(height if png else abs(height) // 2, 1), limits.image_pixels)


def _gif_extents(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the canvas (width, height) that each frame of a GIF asks for (GIF89a specification, sections 18 to 26)."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    yield width, height
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0
    while position < len(data) and data[position] in (0x21, 0x2C):
        if data[position] == 0x2C and position + 10 <= len(data):
            left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, position + 1)
            yield max(width, left + wide), max(height, top + high)
            position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            position += 2
        blocks += 1
        while position < len(data) and data[position]:
            position += 1 + data[position]
            blocks += 1
            if blocks > _MOST_BLOCKS:
                break
        position += 1
        if blocks > _MOST_BLOCKS:
            raise MediaError("bomb", f"the GIF file is made of more than {_MOST_BLOCKS:,} blocks")
