"""Pictures of which a stretch was never written: a file was preallocated, or lost sectors, and zeros stand there.

Most decoders draw something in its place. Long runs of zeros prove nothing by themselves: a flat part of a whole JPEG,
WebP or deflated TIFF may be coded as thousands of them. What is whole is read to its end, though. After zeros in place
of data a decoder is done too early, or reads beyond the end. AV1 and HEVC never hold such runs (as measured, and as
ITU-T H.265 rules them out in 7.4.2), and so do QOI, PackBits and faxes.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

from PIL import Image, ImageChops

from captions.media import jpeg_ends
from captions.media.containers.mp4 import boxes
from captions.media.pictures import LARGE_PIXELS

LEAST = 256
"""Bytes of a run of zeros that is looked at."""
_LEAST_LZW = 512
"""Encoders that avoid LZW's patent write a black picture as 285 zeros between two codes."""
_LEAST_SHARE = 0.02
"""Of a picture whose pixels are not packed: what is missing is only what the zeros cover."""
_SEED = bytes(64)
_ZEROS = re.compile(rb"\0*")
_FEW, _LAST = 64, 16
"""Bytes that are changed to see whether they are read."""
_BLOCK_BYTES = 1_024
"""More than one place of a JPEG takes in all its channels: at an eighth, only the first data of each block are seen."""
_BLOCKS_LEFT_OUT = 3
"""At the end of a JPEG: some encoders leave out its last byte."""
_STRIP = 64
_MOST_TRIED = 4
"""Chunks of a file that are decoded once more."""
_PACKED_SIMPLY = frozenset({2, 3, 4, 32_773})
_DEFLATED = frozenset({8, 32_946})
_LZW, _JPEG, _NOT_PACKED = 5, 7, 1
_QOI_END = bytes(7) + b"\1"
_CODED_ITEMS = frozenset({b"av01", b"hvc1", b"hev1", b"avc1", b"lhv1"})
_ROWS_AROUND = 8
_EDGE = 32
_LEAST_FAR = 4
_SECTOR = 512
_LEAST_WIDTH = 384
_SIDE = 12
"""Bytes on each side of a column: four pixels of three channels."""
_SAME = 16
"""How much the mean values on both sides of a column may differ where no edge is."""
_BRIGHT = 16
"""Mean value of bytes that do not fade into black."""
Span = tuple[int, int]


def drawn_over(image: Image.Image, tiles: Sequence[Any], data: bytes, name: str) -> bool:
    """Tell whether a stretch of the file `data`, which the Pillow plugin `name` reads, was never written.

    `tiles` are those of the picture before it was loaded.
    """
    try:
        match name:
            case "JPEG":
                return _jpeg(data)
            case "WEBP":
                return _webp(data, image.width * image.height <= LARGE_PIXELS)
            case "AVIF" | "HEIF":
                return _coded_items(data)
            case "JPEG2000":
                least = LEAST + _packets(data)
                return any(True for _ in runs(data, data.find(b"\xff\x93"), len(data.rstrip(b"\0")), least))
            case "QOI":
                return any(True for _ in runs(data, 14, data.rfind(_QOI_END), LEAST))
            case "TIFF" if image.format == "TIFF" and image.tag_v2.get(259, 1) != _NOT_PACKED:  # type: ignore[attr-defined]
                return _tiff(image.tag_v2, data)  # type: ignore[attr-defined]
            case "ICO" | "CUR":
                return any(_is_torn(data, *icon) for icon in _icons(data))
            case _:
                return any(_is_torn(data, *band) for band in _bands(tiles))
    except (struct.error, IndexError, ValueError, KeyError, TypeError):
        return False  # it was decoded all the same


def runs(data: bytes, start: int, end: int, least: int) -> Iterator[Span]:
    """Yield where runs of at least `least` zeros begin and end."""
    at = start
    while (at := data.find(_SEED, at, end)) >= 0:
        match = _ZEROS.match(data, at, end)
        assert match is not None
        if match.end() - at >= least:
            yield at, match.end()
        at = match.end()


# --- JPEG ------------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> bool:
    scans = jpeg_ends.read_scans(data)
    if scans is None:
        return False
    tried = 0
    for number, (start, end) in enumerate(scans.scans):
        last = start + len(data[start:end].rstrip(b"\0"))  # padding is held to be harmless
        if not any(True for _ in runs(data, start, end, LEAST)):
            continue
        if not scans.even[number] and any(True for _ in runs(data, start, last, LEAST)):
            return True
        if scans.interval:
            numbers = [match[0][1] for match in jpeg_ends.RESTART.finditer(data, start, end)]
            if any((following - number) % 8 != 1 for number, following in pairwise(numbers)):
                return True
        elif tried < _MOST_TRIED and not scans.refining[number]:
            tried, side = tried + 1, scans.sides[number]
            # Of the scales at which libjpeg draws, the smallest at which this scan is seen.
            if _is_misread(data, start, end, side, (-(-side * scans.width // 8), -(-side * scans.height // 8))):
                return True
    return False


def _is_misread(data: bytes, start: int, end: int, side: int, size: tuple[int, int]) -> bool:
    """Tell whether the decoder is done before the end of a scan that holds zeros, or reads more than there is."""

    def drawn(body: bytes) -> Image.Image:
        return jpeg_ends.drawn(data[:start] + body + data[end:], size)

    def is_read(begin: int, stop: int) -> bool:
        return _differ(drawn(data[start:begin] + _random(stop - begin) + data[stop:end]), whole)

    whole = drawn(data[start:end])
    last = start + len(data[start:end].rstrip(b"\xff"))
    zeros = list(runs(data, start, last, LEAST))
    if zeros and zeros[-1][1] == last and not is_read(zeros[-1][0], last):
        last = zeros.pop()[0]  # padding behind all that is read
    if not zeros:
        return False
    if not is_read(max(start, last - _BLOCK_BYTES), last) and is_read(zeros[0][0], zeros[0][0] + _FEW):
        return True
    bands = ImageChops.difference(drawn(data[start:last] + _random(4_096)), whole).split()
    more = reduce(ImageChops.lighter, bands)
    return more.width * more.height - more.histogram()[0] > _BLOCKS_LEFT_OUT * side * side


def _random(size: int) -> bytes:
    """Return bytes in which no marker is."""
    return random.Random(size).randbytes(size).replace(b"\xff", b"\0")  # noqa: S311  no secret


def _differ(image: Image.Image | None, other: Image.Image) -> bool:
    if image is None or (image.size, image.mode) != (other.size, other.mode):
        return True
    return ImageChops.difference(image, other).getbbox(alpha_only=False) is not None


# --- WebP ------------------------------------------------------------------------------------------------------------


def _webp(data: bytes, again: bool) -> bool:
    """Tell it of a WebP, of which frames may be decoded `again`: for a large one that takes too much memory."""
    tried = 0
    for frame in _frames(data, 12, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])):
        for number, (name, body) in enumerate(frame):
            if name == bytes(4):
                return True  # in place of a chunk
            raw_alpha = name == b"ALPH" and body[0] & 3 == 0
            if raw_alpha or not again or tried == _MOST_TRIED or not any(True for _ in runs(body, 0, len(body), LEAST)):
                continue
            tried += 1
            if _is_left_over(frame, number):
                return True
    return False


def _frames(data: bytes, at: int, end: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the chunks of pixels of each frame (WebP container specification)."""
    still = []
    while at + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"ANMF":
            yield from _frames(data, at + 24, at + 8 + size)
        elif name in (b"ALPH", b"VP8 ", b"VP8L", bytes(4)):
            still.append((name, data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    if still:
        yield still


def _is_left_over(frame: list[tuple[bytes, bytes]], number: int) -> bool:
    """Tell whether the decoder reads where a run of zeros begins, but not where it or its part of the chunk ends."""
    name, body = frame[number]
    whole = _looks(frame)

    def is_read(start: int, end: int) -> bool:
        changed = body[:start] + _random(end - start) + body[end:]
        return _looks([*frame[:number], (name, changed), *frame[number + 1 :]]) != whole

    # Of VP8 the modes of all blocks come first, and have an end of their own (RFC 6386, 9.1).
    modes = 10 + (int.from_bytes(body[:3], "little") >> 5) if name == b"VP8 " else 0
    start, end = next(runs(body, 0, len(body), LEAST))
    last = modes if start < modes else len(body)
    unread = not all(is_read(max(start, at - _LAST), at) for at in {min(end, last), last})
    return unread and (end < len(body) or is_read(start, start + _FEW))


def _looks(frame: list[tuple[bytes, bytes]]) -> int | None:
    """Return a checksum of a frame's pixels, None if its data are not enough or make no sense."""
    packed = b"".join(name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for name, body in frame)
    if frame[0][0] == b"ALPH":
        width, height = struct.unpack_from("<HH", frame[-1][1], 6)
        canvas = b"".join(struct.pack("<I", (side & 0x3FFF) - 1)[:3] for side in (width, height))
        packed = b"VP8X" + struct.pack("<II", 10, 0x10) + canvas + packed
    try:
        file = b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed
        image = Image.open(io.BytesIO(file), formats=["WEBP"])
        image.load()
    except (OSError, SyntaxError, ValueError):
        return None
    look, (width, height) = 0, image.size
    for top in range(0, height, _STRIP):
        look = zlib.crc32(image.crop((0, top, width, min(top + _STRIP, height))).tobytes(), look)
    return look


# --- boxes -----------------------------------------------------------------------------------------------------------


def _coded_items(data: bytes) -> bool:
    """Tell whether AV1 or HEVC in an ISO file holds a long run of zeros (ISO/IEC 14496-12, 8.11)."""
    top = list(boxes(data, 0, len(data)))
    meta = next(((start, end) for name, start, end in top if name == b"meta"), None)
    coded: list[Span] = []
    other: list[Span] = []
    if meta is not None:
        inner = {name: (start, end) for name, start, end in boxes(data, meta[0] + 4, meta[1])}
        kinds = _item_types(data, *inner[b"iinf"])
        for item, spans in _item_places(data, inner[b"iloc"][0]):
            (coded if kinds.get(item) in _CODED_ITEMS else other).extend(spans)
    if any(name == b"moov" for name, _, _ in top):
        coded += [(start, end) for name, start, end in top if name == b"mdat"]
    return any(
        not any(start < end_of and begin < end for begin, end_of in other)
        for span in coded
        for start, end in runs(data, *span, LEAST)
    )


def _item_types(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Return the type of each item by its number."""
    kinds = {}
    for name, at, _ in boxes(data, start + (6 if data[start] == 0 else 8), end):
        if name == b"infe" and data[at] in (2, 3):
            number, kind = struct.unpack_from(">H2x4s" if data[at] == 2 else ">I2x4s", data, at + 4)
            kinds[number] = kind
    return kinds


def _item_places(data: bytes, at: int) -> Iterator[tuple[int, list[Span]]]:
    """Yield the number of each item that lies in the file, and where."""
    version, sizes = data[at], struct.unpack_from(">H", data, at + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    count, at = int.from_bytes(data[at + 6 : at + 6 + wide], "big"), at + 6 + wide

    def taken(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise IndexError("the table of items ends outside the file")
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(count):
        number = taken(wide)
        method = taken(2) & 15 if version else 0
        taken(2)
        base, spans = taken(base_size), []
        for _ in range(taken(2)):
            if version:
                taken(index_size)
            start = base + taken(offset_size)
            spans.append((start, start + taken(length_size)))
        if method == 0:
            yield number, spans


def _packets(data: bytes) -> int:
    """Return how many packets a tile of a JPEG 2000 has, as an empty one is a single 0 (ITU-T T.800, A.5.1, A.6.1)."""
    at = data.find(b"\xff\x4f\xff\x51")
    right, bottom, left, top, width, height = struct.unpack_from(">6I", data, at + 8)
    (channels,) = struct.unpack_from(">H", data, at + 40)
    width, height = min(width, right - left), min(height, bottom - top)
    at = data.find(b"\xff\x52", at)
    style, layers, levels = data[at + 4], struct.unpack_from(">H", data, at + 6)[0], data[at + 9]
    packets = 0
    for level in range(levels + 1):
        exponents = data[at + 14 + level] if style & 1 else 0xFF
        across, down = (-(-side >> levels - level) for side in (width, height))
        packets += (1 + (across >> (exponents & 15))) * (1 + (down >> (exponents >> 4)))
    return int(packets * channels * layers)


# --- TIFF ------------------------------------------------------------------------------------------------------------


def _tiff(tags: Any, data: bytes) -> bool:
    compression = tags[259]
    starts, lengths = (tags[273], tags[279]) if 273 in tags else (tags[324], tags[325])
    tried = 0
    for start, length in zip(starts, lengths, strict=True):
        least = _LEAST_LZW if compression == _LZW else LEAST
        if tried == _MOST_TRIED or not any(True for _ in runs(data, start, start + length, least)):
            continue
        if compression in _PACKED_SIMPLY or compression == _LZW:
            return True
        tried += 1
        strip = data[start : start + length]
        if compression in _DEFLATED and not _unpacks(strip):
            return True
        tables = bytes(tags.get(347) or b"\xff\xd8\xff\xd9")
        if compression == _JPEG and _jpeg(tables[:-2] + strip[2:]):
            return True
    return False


def _unpacks(packed: bytes) -> bool:
    """Tell whether deflated data reach their end and have the checksum they state."""
    unpacking = zlib.decompressobj()
    try:
        while not unpacking.eof and packed:
            if not unpacking.decompress(packed, 1 << 20) and packed == unpacking.unconsumed_tail:
                return False
            packed = unpacking.unconsumed_tail
    except zlib.error:
        return False
    return unpacking.eof


# --- pixels that are not packed --------------------------------------------------------------------------------------


def _bands(tiles: Sequence[Any]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (where it begins, bytes of a row's pixels, bytes from row to row, rows) of what lies in one piece."""
    pending: tuple[int, int, int, int] | None = None
    for codec, extent, offset, args in tiles:
        mode, step, *_ = (args, 0) if isinstance(args, str) else (*args, 0)
        bits = _bits(codec, mode, step)
        if bits < 8 or extent is None:
            continue
        width = (extent[2] - extent[0]) * bits // 8
        band = offset, width, step if codec == "raw" and step else width, extent[3] - extent[1]
        if pending and pending[1:3] == band[1:3] and pending[0] + pending[2] * pending[3] == offset:
            pending = (*pending[:3], pending[3] + band[3])
            continue
        if pending:
            yield pending
        pending = band
    if pending:
        yield pending


def _bits(codec: str, mode: Any, most: int) -> int:
    """Return the bits of a pixel as Pillow's raw modes name them; 0 for what is packed."""
    if codec == "ppm":
        return len(mode) * (16 if most > 255 else 8)
    if codec != "raw" or not isinstance(mode, str):
        return 0
    channels, _, rest = mode.partition(";")
    depth = re.match(r"\d+", rest)
    if channels == "1" or (depth and int(depth[0]) < 8 and channels != "BGR"):
        return 0
    if channels in ("BGR", "BGRA") and depth and int(depth[0]) <= 16:
        return 16
    return len(channels) * (int(depth[0]) if depth else 32 if channels in ("I", "F") else 8)


def _icons(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the pixels of an icon file's bitmaps, without their masks."""
    for entry in range(struct.unpack_from("<H", data, 4)[0]):
        at = struct.unpack_from("<I", data, 6 + 16 * entry + 12)[0]
        size, width, height, _, bits = struct.unpack_from("<IIIHH", data, at)
        if size == 40 and bits in (24, 32):
            row = width * bits // 8
            yield at + size, row, -(-row // 4) * 4, height // 2


def _is_torn(data: bytes, start: int, width: int, step: int, rows: int) -> bool:
    """Tell whether pixels that are not packed turn into zeros for many rows, and do so in the middle of a row.

    A black margin begins with a row, a dark part gets dark by and by, and of what lies on black the rows above its last
    one end in black too.
    """
    end = min(start + step * rows, len(data))
    least = max(2 * step, int(_LEAST_SHARE * step * rows), LEAST)
    at, zeros = start, bytes(least // 2)
    while at + len(zeros) <= end:
        if data[at] or not data.startswith(zeros, at):
            at += len(zeros)
            continue
        match = _ZEROS.match(data, at, end)
        assert match is not None
        before, after = start + len(data[start:at].rstrip(b"\0")), match.end()
        if after - before >= least:
            row, column = divmod(before - start, step)
            above = [start + step * each for each in range(row - _ROWS_AROUND, row + 1)]
            row, to = divmod(after - start, step)
            below = [start + step * each for each in range(row + _ROWS_AROUND, row - 1, -1)]
            if _goes_on(data, above, (start, end), column, width, before=True, exact=before % _SECTOR == 0):
                return True
            exact = after % _SECTOR == 0
            if after < end and _goes_on(data, below, (start, end), to, width, before=False, exact=exact):
                return True
        at = after + 1
    return False


def _goes_on(data: bytes, rows: list[int], within: Span, column: int, width: int, *, before: bool, exact: bool) -> bool:
    """Tell whether the last row breaks off at a column, before or behind zeros, where the rows next to it do not.

    Elsewhere than at the end of a sector (`exact`), nothing may show in the rows next to it where the column is: an
    edge there may be that of a part of the picture.
    """
    edge = min(_EDGE, width // 4)
    near, far = (column, width - column) if before else (width - column, column)
    if near < edge or far < _LEAST_FAR or rows[0] < within[0] or max(rows) + width > within[1]:
        return False
    missing = slice(min(column, width - edge), width) if before else slice(0, max(column, edge))
    there = slice(0, column) if before else slice(column, width)
    *others, last = (data[row : row + width] for row in rows)
    for part in (row[missing] for row in others):
        outer = part[-edge:] if before else part[:edge]
        if sum(part) < _BRIGHT * len(part) or sum(outer) < _BRIGHT * edge or outer.count(0) > edge // 8:
            return False
    if sum(last[there]) <= sum(others[-1][there]) // 2:
        return False
    side = min(_SIDE, far)
    steps = sum(abs(sum(row[column - side : column]) - sum(row[column : column + side])) for row in others)
    return exact or (width >= _LEAST_WIDTH and steps < _SAME * side * _ROWS_AROUND)
