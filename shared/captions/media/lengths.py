"""Whether a picture's file ends before the length that it states itself, or before its end marker.

Decoders often say only that it is broken, or nothing at all: of a file that was preallocated and written in part, zeros
stand in place of its tail.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from captions.media import raw

_MOST_BOXES = 1_000
MARKED = frozenset({"PNG", "QOI", "ICO", "CUR"})
"""Formats whose files close with a marker, or hold such files, though a picture is drawn without it."""
_PNG, _PNG_END, _QOI_END = b"\x89PNG", b"IEND\xaeB`\x82", bytes(7) + b"\1"


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
            case "PNG":
                return _PNG_END not in data
            case "QOI":
                return not data.rstrip(b"\0").endswith(_QOI_END)
            case "TIFF":
                return raw.ends_early(data)
            case "ICO" | "CUR":
                entries = struct.iter_unpack("<8xII", data[6 : 6 + 16 * int.from_bytes(data[4:6], "little")])
                icons = [data[start : start + size] for size, start in entries if start + size <= len(data)]
                whole = 6 + 16 * len(icons) <= len(data) and len(icons) == int.from_bytes(data[4:6], "little")
                return not whole or any(icon[:4] == _PNG and _PNG_END not in icon for icon in icons)
    except struct.error:
        return True  # within its header
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
