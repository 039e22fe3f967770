"""JPEG 2000 of more than 8 bits a channel, whose white Pillow 13.0 turns into black and whose opaque into transparent.

It rounds to 8 bits, and 255.5 and more to 256, of which it keeps the lower byte: 0. Read once more as if it had one bit
more than it has, a picture takes the middle half of what 8 bits can hold, and such a 0 differs from a true one.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image, ImageChops

_SIZE, _QUANTISATION, _QUANTISATION_OF_CHANNEL, _TILE = 0xFF51, 0xFF5C, 0xFF5D, 0xFF90
_START = struct.pack(">HH", 0xFF4F, _SIZE)


def unwrapped(image: Image.Image, data: bytes) -> Image.Image:
    """Return a loaded picture, of the file `data`, with its brightest values as they are. Raises OSError."""
    try:
        wider = _with_a_bit_more(data) if image.mode in ("RGB", "RGBA", "LA") else None
    except (IndexError, ValueError, struct.error):
        return image  # its header says what no encoder does
    if wider is None:
        return image
    again = Image.open(io.BytesIO(wider), formats=["JPEG2000"])
    again.load()
    bands = image.split()
    for band, middle in zip(bands, again.split(), strict=True):
        zero = band.point(lambda value: 255 * (value == 0))
        bright = middle.point(lambda value: 255 * (value >= 128))
        band.paste(255, mask=ImageChops.darker(zero, bright))
    result = Image.merge(image.mode, bands)
    result.info = image.info
    return result


def _with_a_bit_more(data: bytes) -> bytes | None:
    """Return the file with a bit more in each channel, of the same values; None where none has more than 8.

    Values stand around the middle of their range (ITU-T T.800, G.1). Where they were quantised, the steps double with
    the range (E.1), so that exponents are raised by one for that, and guard bits lowered by one for the exponents.
    """
    start = data.find(_START)
    if start < 0:
        return None
    wider = bytearray(data)
    for marker, at, size in _segments(data, start + 2):
        if marker == _SIZE:
            (channels,) = struct.unpack_from(">H", data, at + 36)
            bits = range(at + 38, at + 38 + 3 * channels, 3)
            if all(data[place] & 0x7F < 8 for place in bits):
                return None
            for place in bits:
                wider[place] += 1
        elif marker in (_QUANTISATION, _QUANTISATION_OF_CHANNEL):
            style = at + 2 + (0 if marker == _QUANTISATION else 1 if channels < 257 else 2)
            if data[style] & 0x1F:
                wider[style] -= 0x20
                for place in range(style + 1, at + size, 2):
                    wider[place] += 0x08
    return bytes(wider)


def _segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment of the main header, where its length stands, and how much that is."""
    while position + 4 <= len(data):
        marker, size = struct.unpack_from(">HH", data, position)
        if marker == _TILE:
            return
        yield marker, position + 2, size
        position += 2 + size
