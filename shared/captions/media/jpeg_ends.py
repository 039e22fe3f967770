"""JPEG files that were cut in the middle and closed with an end marker, as recovery and upload tools do.

libjpeg fills what is missing with the last colour and says nothing. Whether data are missing shows when bytes are put
in front of the end: of a whole picture they are not read, in one that was cut they are decoded to something else.
"""

from __future__ import annotations

import io
import random
import re
from dataclasses import dataclass, field

from PIL import Image, ImageChops

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
_FILLINGS = tuple(random.Random(seed).randbytes(4_096).replace(b"\xff", b"\0") for seed in (1, 2))  # noqa: S311  no secret
"""No marker is in them, as no byte is 255."""
_MISSING = 0.02
"""Share of its height that has to be missing: some encoders leave out the last byte."""
_TAIL = 16
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_SIDES = [max(place) + 1 for place in sorted(
    ((row, column) for row in range(8) for column in range(8)), key=lambda at: (sum(at), at[sum(at) % 2 == 0])
)]  # fmt: skip
"""Of each coefficient in its order, the side of the square of them that a decoder needs to show it (T.81, A.3.6)."""


@dataclass
class Scans:
    """What the headers of a JPEG say of its scans."""

    frame: int = 0
    width: int = 0
    height: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: set[tuple[int, int]] = field(default_factory=set)
    interval: int = 0
    closed: bool = True
    """Whether there is an end marker; else what was written ends where zeros begin."""
    scans: list[tuple[int, int]] = field(default_factory=list)
    """Where the data of each begin and end."""
    sides: list[int] = field(default_factory=list)
    """The smallest of `_SIDES` in each."""
    tables: dict[int, int] = field(default_factory=dict)
    """Of each Huffman table, by its class and number, what a code of zeros alone stands for."""
    even: list[bool] = field(default_factory=list)
    """Whether zeros may stand for blocks in which nothing changes, in each."""
    refining: list[bool] = field(default_factory=list)
    """Whether each adds the next bit to values of scans before it, of which little may be seen."""


def is_cut_short(image: Image.Image, data: bytes) -> bool:
    """Tell whether the loaded picture, of the JPEG file `data`, was filled up, as its data end too early.

    A second decoding is made only where the picture ends in one flat colour or where scans are missing, and of every
    progressive one: what is missing from its last scan is drawn coarser, and not flat.
    """
    scans = read_scans(data)
    if scans is None or not scans.scans:
        return False
    start, end = scans.scans[-1]
    if scans.interval:
        # Between restart markers the decoder passes over what is too much, so they are counted.
        if scans.frame not in _SEQUENTIAL or len(scans.scans) > 1:
            return False
        there = len(RESTART.findall(data, start, end)) + 1
        return there < (1 - _MISSING) * -(-_units(scans) // scans.interval)
    if scans.closed and scans.frame != _PROGRESSIVE and not scans.missing and not _flat_tail(image):
        return False
    size, whole = image.size, image
    try:
        if not scans.missing and 8 * image.width < scans.sides[-1] * scans.width:
            # At this scale nothing of the last scan is seen.
            size = -(-scans.sides[-1] * scans.width // 8), -(-scans.sides[-1] * scans.height // 8)
            whole = _filled(data, end, _FILLINGS[1], image.mode, size)
        filled = _filled(data, end, _FILLINGS[0], image.mode, size)
    except OSError:
        return True  # it was read, and found to be nonsense
    if filled.size != whole.size or filled.mode != whole.mode:
        return False
    changed = ImageChops.difference(filled, whole).getbbox()
    return changed is not None and changed[1] < (1 - _MISSING) * whole.height


def closed(data: bytes) -> bytes:
    """Return a JPEG file with an end marker, which libjpeg asks for though all pixels may be there without it."""
    if data.rfind(_END) > data.rfind(_SCAN) or data.endswith(bytes(_TAIL)):
        return data
    scans = read_scans(data)
    return data if scans is None or scans.closed else data + _END


def _filled(data: bytes, end: int, filling: bytes, mode: str, size: tuple[int, int]) -> Image.Image:
    """Return the picture with more data in its last scan, at a scale that gives this size. Raises OSError."""
    tail = data[end:]
    return drawn(data[:end] + filling + (tail if _END in tail else tail + _END), size, mode)


def drawn(data: bytes, size: tuple[int, int], mode: str | None = None) -> Image.Image:
    """Return the picture of a JPEG file at a scale that gives this size. Raises OSError."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    # A pixel less, as the size was rounded up and would otherwise be taken from the next larger scale.
    image.draft(mode, (max(1, size[0] - 1), max(1, size[1] - 1)))
    image.load()
    return image


def _flat_tail(image: Image.Image) -> bool:
    """Tell whether the lower right end of a picture is of one colour."""
    width, height = image.size
    return image.crop((max(0, width - _TAIL), height - 1, width, height)).getcolors(1) is not None


def _units(scans: Scans) -> int:
    """Return how many units (MCU) the picture has (ITU-T T.81, A.2)."""
    across = max(horizontal for horizontal, _ in scans.components.values())
    down = max(vertical for _, vertical in scans.components.values())
    if len(scans.components) == 1:
        across = down = 1
    return -(-scans.width // (8 * across)) * -(-scans.height // (8 * down))


def read_scans(data: bytes) -> Scans | None:
    """Read the markers; None for what is arithmetically coded, lossless or makes no sense: libjpeg judges it alone."""
    scans, position = Scans(), 2
    while (match := _MARKER.search(data, position)) is not None:
        marker, position = match[1][0], match.end()
        if scans.scans and scans.scans[-1][1] < 0:
            scans.scans[-1] = (scans.scans[-1][0], match.start())
        if marker == 0xD9:
            return scans
        if marker in (0x01, 0xD8):
            continue
        size = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + size]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if (marker not in _SEQUENTIAL and marker != _PROGRESSIVE) or len(body) < 6 or scans.frame:
                return None
            _frame(scans, marker, body)
        elif marker == 0xC4:
            _tables(scans, body)
        elif marker == 0xDD and len(body) >= 2:
            scans.interval = int.from_bytes(body[:2], "big")
        elif marker == 0xDA:
            if not _scan(scans, body):
                return None
            scans.scans.append((position + size, -1))
        position += size
    if not scans.scans or scans.scans[-1][1] >= 0:
        return None
    scans.scans[-1] = (scans.scans[-1][0], len(data.rstrip(b"\0").removesuffix(b"\xff")))
    scans.closed = False
    return scans


def _frame(scans: Scans, marker: int, body: bytes) -> None:
    scans.frame = marker
    scans.height, scans.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    for number, sampling in zip(body[6::3], body[7::3], strict=False):
        scans.components[number] = (sampling >> 4 or 1, sampling & 15 or 1)
        coefficients = range(64) if marker == _PROGRESSIVE else range(1)
        scans.missing.update((number, coefficient) for coefficient in coefficients)


def _tables(scans: Scans, body: bytes) -> None:
    at = 0
    while at + 17 < len(body):
        scans.tables[body[at]] = body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])


def _scan(scans: Scans, body: bytes) -> bool:
    """Take note of what a scan holds in its last bit; False if it makes no sense."""
    if not scans.components or not body or len(body) < 4 + 2 * body[0]:
        return False
    first, last, low = body[-3], body[-2], body[-1] & 15
    if scans.frame != _PROGRESSIVE:
        first = last = low = 0
    if not first <= last < 64:
        return False
    scans.refining.append(scans.frame == _PROGRESSIVE and body[-1] >> 4 > 0)
    codes = list(body[2 : 1 + 2 * body[0] : 2])
    steady = first > 0 or scans.refining[-1] or all(scans.tables.get(code >> 4, 0) == 0 for code in codes)
    # Of a block, or of a number of them, nothing follows: 0x00 to 0xE0 (T.81, G.1.2.2).
    ends = all(scans.tables.get(0x10 | code & 15, 0) in range(0, 0xF0, 16) for code in codes)
    scans.even.append(steady and (ends or (scans.frame == _PROGRESSIVE and first == 0)))
    scans.sides.append(min(_SIDES[first : last + 1]))
    if low == 0:
        scans.missing.difference_update(
            (number, coefficient) for number in body[1 : 1 + 2 * body[0] : 2] for coefficient in range(first, last + 1)
        )
    return True
