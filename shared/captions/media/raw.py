"""Camera raw files: the preview that the camera put into them, which is what people see of them anywhere.

Developing a raw file is left to programs for it. Each maker places the preview elsewhere (TIFF directories, boxes,
tables), so it is looked for by its own header: of the JPEG pictures inside, the largest.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from captions.media.errors import MediaError

_MOST_CANDIDATES = 200
_MOST_SEGMENTS = 500
_LEAST_SIDE = 640
"""Pixels of the longer side: what is smaller is a thumbnail, whose caption would be a guess."""
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_STRIPS = 64, 1_000, 100_000
_STRIP_LENGTHS, _TILE_LENGTHS = 279, 325
_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 259, 262
_MAKE, _STRIPS, _ORIENTATION, _TILES, _SUB_DIRECTORIES, _DNG_VERSION = 271, 273, 274, 324, 330, 50706
_SENSOR = frozenset({32_803, 34_892})
"""Photometric interpretations of what a sensor saw: a colour filter's mosaic, and linear raw (DNG 1.7, chapter 3)."""
_PACKED = frozenset({262, 32_767, 32_769, 32_770, 32_772, 34_713, 34_892, 65_000, 65_535})
"""Compressions of cameras: Kodak, Sony, Samsung, Nikon, lossy DNG, Pentax (ExifTool, "Compression Values")."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended, progressive; the sensor's own data may be a lossless JPEG (SOF3), which shows nothing."""
_SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (4, b"ftypcrx ", "image/x-canon-cr3"),
    (6, b"HEAPCCDR", "image/x-canon-crw"),
    (0, b"IIRO", "image/x-olympus-orf"),
    (0, b"IIRS", "image/x-olympus-orf"),
    (0, b"MMOR", "image/x-olympus-orf"),
    (0, b"IIU\0", "image/x-panasonic-rw2"),
    (0, b"\0MRM", "image/x-minolta-mrw"),
    (0, b"FOVb", "image/x-sigma-x3f"),
)
_TIFF = re.compile(rb"II\*\0|MM\0\*")
_BASE = 1 << 20
Tags = dict[int, int]


class Preview(NamedTuple):
    """The bytes of the largest JPEG in a raw file, its size in pixels as stored, and the raw EXIF orientation."""

    data: bytes
    width: int
    height: int
    orientation: int


def media_type(data: bytes) -> str | None:
    """Return the media type of a camera raw file; None if it is none that is known."""
    for at, signature, name in _SIGNATURES:
        if data.startswith(signature, at):
            return name
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    if data[8:10] == b"CR":
        return "image/x-canon-cr2"
    directories = list(_directories(data))
    first = directories[0] if directories else {}
    if _DNG_VERSION in first:
        return "image/x-adobe-dng"
    sensor = any(
        directory.get(_PHOTOMETRIC) in _SENSOR or directory.get(_COMPRESSION) in _PACKED for directory in directories
    )
    # NEF, ARW, PEF, SRW and their like: a thumbnail first, the rest below it or behind it.
    thumbnail = _MAKE in first and bool(first.get(_SUBFILE, 0) & 1 or first.get(_WIDTH, 0) <= _LEAST_SIDE)
    if sensor or (thumbnail and (_SUB_DIRECTORIES in first or _larger(data, first))):
        return "image/x-raw"
    return None


def ends_early(data: bytes) -> bool:
    """Tell whether a TIFF says of its pictures that they end behind the file's end."""
    if struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0] >= len(data):
        return True
    for tags in _directories(data):
        for start, length in ((_STRIPS, _STRIP_LENGTHS), (_TILES, _TILE_LENGTHS)):
            places = zip(_places(data, tags, start), _places(data, tags, length), strict=False)
            if any(place + size - tags[_BASE] > len(data) for place, size in places):
                return True
            if tags.get(-start, 1) > 1 and tags[start] + 4 * tags[-start] > len(data):
                return True
    return False


def _larger(data: bytes, first: Tags) -> bool:
    """Tell whether a JPEG inside has more pixels than the picture of the first directory, and is no thumbnail."""
    shown = first.get(_WIDTH, 0) * first.get(_HEIGHT, 0)
    return any(width * height > shown and max(width, height) >= _LEAST_SIDE for _, _, width, height in _pictures(data))


def preview(data: bytes) -> Preview:
    """Return the preview of a camera raw file.

    Raises:
        MediaError: `unsupported`, it holds none that is more than a thumbnail.
    """
    pieces = _pieces(data)
    shown = (picture for picture in _pictures(data) if picture[0] not in pieces)
    largest = max(shown, key=lambda picture: picture[2] * picture[3], default=None)
    if largest is None or max(largest[2], largest[3]) < _LEAST_SIDE:
        raise MediaError("unsupported", "camera raw pictures without a preview of their own size are not captioned")
    start, end, width, height = largest
    orientation = next(_directories(data), {}).get(_ORIENTATION, 1)
    return Preview(data[start:end], width, height, orientation if 1 <= orientation <= 8 else 1)


def _pictures(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, end, width, height) of the JPEG pictures inside."""
    position = 0
    for _ in range(_MOST_CANDIDATES):
        start = data.find(b"\xff\xd8\xff", position)
        if start < 0:
            return
        position = start + 2
        size = _size(data, start)
        if size is None:
            continue
        # Thumbnails within a picture's EXIF end first: the picture's own end is the last one before the next begins.
        following = data.find(b"\xff\xd8\xff", size[2])
        last = data.rfind(b"\xff\xd9", size[2], following if following > 0 else len(data))
        yield start, last + 2 if last >= 0 else len(data), size[0], size[1]
        position = max(position, size[2])


def _size(data: bytes, start: int) -> tuple[int, int, int] | None:
    """Return width, height and where the scan begins of the JPEG at `start`; None if its segments make no sense."""
    position, size = start + 2, None
    for _ in range(_MOST_SEGMENTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return None
        marker, length = data[position + 1], int(struct.unpack_from(">H", data, position + 2)[0])
        if marker == 0xDA:
            return (*size, position) if size else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in _FRAMES or length < 8 or position + 9 > len(data) or data[position + 4] != 8:
                return None  # of more than 8 bits is what a sensor saw
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = (width, height) if width and height else None
        position += 2 + length
    return None


def _pieces(data: bytes) -> frozenset[int]:
    """Return where JPEG pictures begin that are no preview: what a sensor saw, and parts of a picture."""
    offsets: set[int] = set()
    for tags in _directories(data):
        several = tags.get(-_STRIPS, 1) > 1 or tags.get(-_TILES, 1) > 1
        if several or tags.get(_PHOTOMETRIC) in _SENSOR or tags.get(_COMPRESSION) in _PACKED:
            offsets.update(_places(data, tags, _STRIPS), _places(data, tags, _TILES))
    return frozenset(offsets)


def _places(data: bytes, tags: Tags, tag: int) -> Iterator[int]:
    count, base = min(tags.get(-tag, 0), _MOST_STRIPS), tags[_BASE]
    if count == 1:
        yield base + tags[tag]
    elif count > 1:
        at, order = base + tags[tag], "<" if data[base : base + 2] == b"II" else ">"
        there = data[at : at + 4 * count]
        yield from (base + place for (place,) in struct.iter_unpack(f"{order}I", there[: len(there) // 4 * 4]))


def _directories(data: bytes) -> Iterator[Tags]:
    """Yield the directories of a TIFF, or of the one within another container, and those below them.

    Each has its tags with their first value, or where their values stand; under the tag's negative how many there are;
    and under `_BASE` where the TIFF begins.
    """
    base = 0
    if data[:2] not in (b"II", b"MM") or data[6:10] == b"HEAP":
        header = _TIFF.search(data, 0, 65_536)  # the EXIF block of the file or of its preview
        base = header.start() if header else 0
    order = "<" if data[base : base + 2] == b"II" else ">"
    waiting, seen = [4], {0}
    while waiting and len(seen) < _MOST_DIRECTORIES:
        try:
            start = struct.unpack_from(f"{order}I", data, base + waiting.pop(0))[0]
            if start in seen:
                continue
            seen.add(start)
            count = min(struct.unpack_from(f"{order}H", data, base + start)[0], _MOST_ENTRIES)
            tags: Tags = {_BASE: base}
            for at in range(start + 2, start + 2 + 12 * count, 12):
                tag, kind, number, value = struct.unpack_from(f"{order}HHII", data, base + at)
                short = kind == 3 and number <= 2
                tags[tag] = struct.unpack_from(f"{order}H", data, base + at + 8)[0] if short else value
                tags[-tag] = number if kind == 4 or number == 1 else 0  # lists of short numbers are not read
                if tag == _SUB_DIRECTORIES:
                    places = [at + 8] if number == 1 else [value + 4 * place for place in range(min(number, 8))]
                    waiting += places
        except struct.error:
            continue
        yield tags
        waiting.append(start + 2 + 12 * count)
