"""Whether a picture's file ends before the length that it states itself, or before its end marker.

Decoders often say only that it is broken, or nothing at all: of a file that was preallocated and written in part, zeros
stand in place of its tail.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from captions.media import raw

_MOST_BOXES = 1_000
_PNG, _PNG_END, _QOI_END = b"\x89PNG", b"IEND\xaeB`\x82", bytes(7) + b"\1"
_PIECE_BYTES = 1 << 20
_MOST_PNG_BYTES = 1 << 29
"""Of pixels that are unpacked to see whether they are all there: 50 million of four channels of 16 bits are fewer."""


def ends_early(data: bytes, name: str) -> bool:
    """Tell whether a file that the Pillow plugin `name` would read lacks its end."""
    try:
        match name:
            case "WEBP":
                return int.from_bytes(data[4:8], "little") + 8 > len(data)
            case "AVIF" | "HEIF":
                return any(end > len(data) for _, end in _boxes(data))
            case "JPEG2000":
                boxed = data[:4] != b"\xff\x4f\xff\x51"
                cut = boxed and any(end > len(data) for _, end in _boxes(data))
                return cut or not data.rstrip(b"\0").endswith(b"\xff\xd9")
            case "TIFF":
                return raw.ends_early(data)
            case "ICO" | "CUR":
                entries = struct.iter_unpack("<8xII", data[6 : 6 + 16 * int.from_bytes(data[4:6], "little")])
                return any(start + size > len(data) for size, start in entries)
    except struct.error:
        return True  # within its header
    return drawn_in_part(data, name)


def drawn_in_part(data: bytes, name: str) -> bool:
    """Tell whether a file lacks its end that the Pillow plugin `name` draws all the same, filled up with a colour.

    A PNG that lacks its end marker alone has all its pixels, and is shown by browsers.
    """
    match name:
        case "PNG":
            return not _png_is_whole(data)
        case "QOI":
            return _QOI_END not in data
        case "ICO" | "CUR":
            entries = struct.iter_unpack("<8xII", data[6 : 6 + 16 * int.from_bytes(data[4:6], "little")])
            icons = (data[start : start + size] for size, start in entries)
            return any(icon.startswith(_PNG) and not _png_is_whole(icon) for icon in icons)
    return False


def _png_is_whole(data: bytes) -> bool:
    """Tell whether a PNG has its end marker, or else whether its pixels unpack to their end."""
    if _PNG_END in data:
        return True
    pixels, unpacked, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(data) and unpacked <= _MOST_PNG_BYTES:
        size, kind = struct.unpack_from(">I4s", data, at)
        packed = data[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
        while not pixels.eof and unpacked <= _MOST_PNG_BYTES:
            try:
                piece = pixels.decompress(packed, _PIECE_BYTES)
            except zlib.error:
                return False
            packed = pixels.unconsumed_tail
            if not piece and not packed:
                break
            unpacked += len(piece)
        if pixels.eof:
            return True
    return False


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of the boxes of an ISO file (ISO/IEC 14496-12, 4.2)."""
    position = 0
    for _ in range(_MOST_BOXES):
        if position >= len(data):
            return
        size, name = struct.unpack_from(">I4s", data, position)
        if size == 1:
            size = struct.unpack_from(">Q", data, position + 8)[0]
        position = position + size if size else len(data)
        yield name, position
        if size and size < 8:
            return
