"""Camera raw files: the preview that the camera put into them, which is what people see of them anywhere.

Developing a raw file is left to programs for it. Each maker places the preview elsewhere (TIFF directories, boxes,
tables), so it is looked for by its own header: of the JPEG pictures inside, the largest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from captions.media.errors import MediaError

_MOST_CANDIDATES = 200
_MOST_SEGMENTS = 500
_LEAST_SIDE = 640
"""Pixels of the longer side: what is smaller is a thumbnail, whose caption would be a guess."""
_MAKE, _ORIENTATION, _SUB_DIRECTORIES, _DNG_VERSION = 271, 274, 330, 50706
_SUBFILE, _WIDTH = 254, 256
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended, progressive; the sensor's own data may be a lossless JPEG (SOF3), which shows nothing."""


@dataclass(frozen=True)
class Preview:
    """The bytes of the largest JPEG in a raw file, its size in pixels as stored, and the raw EXIF orientation."""

    data: bytes
    width: int
    height: int
    orientation: int


def media_type(data: bytes) -> str | None:
    """Return the media type of a camera raw file; None if it is none that is known."""
    if data.startswith(b"FUJIFILMCCD-RAW"):
        return "image/x-fuji-raf"
    if data[4:8] == b"ftyp" and data[8:12] == b"crx ":
        return "image/x-canon-cr3"
    if data[:4] in (b"IIRO", b"IIRS", b"MMOR"):
        return "image/x-olympus-orf"
    if data[:4] == b"IIU\0":
        return "image/x-panasonic-rw2"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    if data[8:10] == b"CR":
        return "image/x-canon-cr2"
    tags = _first_directory(data)
    if _DNG_VERSION in tags:
        return "image/x-adobe-dng"
    if _MAKE in tags and _SUB_DIRECTORIES in tags and (tags.get(_SUBFILE, 0) & 1 or tags.get(_WIDTH, 0) <= _LEAST_SIDE):
        return "image/x-raw"  # NEF, ARW, PEF, SRW and their like: a thumbnail first, the rest below it
    return None


def preview(data: bytes) -> Preview:
    """Return the preview of a camera raw file.

    Raises:
        MediaError: `unsupported`, it holds none that is more than a thumbnail.
    """
    largest = max(_pictures(data), key=lambda found: found[2] * found[3], default=None)
    if largest is None or max(largest[2], largest[3]) < _LEAST_SIDE:
        raise MediaError("unsupported", "camera raw pictures without a preview of their own size are not captioned")
    start, end, width, height = largest
    found = _first_directory(data).get(_ORIENTATION, 1)
    return Preview(data[start:end], width, height, found if 1 <= found <= 8 else 1)


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
        end = data.find(b"\xff\xd9", start + 2)
        # Thumbnails within a picture's EXIF end first: the picture's own end is the last one before the next begins.
        following = data.find(b"\xff\xd8\xff", size[2])
        last = data.rfind(b"\xff\xd9", size[2], following if following > 0 else len(data))
        if last >= 0 or end >= 0:
            yield start, (last if last >= 0 else end) + 2, size[0], size[1]
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
            if marker not in _FRAMES or length < 8 or position + 9 > len(data):
                return None
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = (width, height) if width and height else None
        position += 2 + length
    return None


def _first_directory(data: bytes) -> dict[int, int]:
    """Return the tags of a TIFF's first directory with their values as far as they fit into it."""
    base = 0
    if data[4:8] == b"ftyp" or data.startswith(b"FUJIFILM"):
        base = max(data.find(b"II*\0", 0, 65_536), 0)  # the EXIF block of the file or of its preview
    order = "<" if data[base : base + 2] == b"II" else ">"
    try:
        start = base + struct.unpack_from(f"{order}I", data, base + 4)[0]
        count = min(struct.unpack_from(f"{order}H", data, start)[0], 1_000)
        tags = {}
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHII", data, start + 2 + 12 * entry)
            short = kind == 3
            tags[tag] = struct.unpack_from(f"{order}H", data, start + 10 + 12 * entry)[0] if short else value
    except struct.error:
        return {}
    return tags
