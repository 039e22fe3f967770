"""Which of a TIFF's directories are pages, and which are smaller copies or masks of one (TIFF 6.0, NewSubfileType).

Pyramids for viewers of maps and slides, thumbnails in front, masks behind: all of them are one picture.
"""

from __future__ import annotations

import struct

_SUBFILE, _PHOTOMETRIC = 254, 262
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType; the latter is also the photometric interpretation of masks
_SHORT, _MOST_PAGES, _MOST_ENTRIES = 3, 5_000, 16


def pages(data: bytes) -> list[int]:
    """Return the numbers of the directories that are pages, by the order in which they are chained; at least one."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    offset, head, entry = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}I", f"{order}H", 12)
    kinds: list[bool] = []
    seen: set[int] = set()
    try:
        position = struct.unpack_from(offset, data, 8 if big else 4)[0]
        while position and position not in seen and len(seen) < _MOST_PAGES:
            seen.add(position)
            tags: dict[int, int] = {}
            count = struct.unpack_from(head, data, position)[0]
            position += struct.calcsize(head)
            for at in range(position, position + entry * min(count, _MOST_ENTRIES), entry):
                tag, kind = struct.unpack_from(f"{order}HH", data, at)
                if tag > _PHOTOMETRIC:
                    break  # they stand in order
                value = at + (12 if big else 8)
                tags[tag] = struct.unpack_from(f"{order}H" if kind == _SHORT else f"{order}I", data, value)[0]
            part = tags.get(_SUBFILE, 0) & (_REDUCED | _MASK) or tags.get(_PHOTOMETRIC) == _MASK
            kinds.append(not part)
            position = struct.unpack_from(offset, data, position + entry * count)[0]
    except struct.error:
        pass  # the chain ends outside the file
    return [number for number, is_page in enumerate(kinds) if is_page] or [0]
