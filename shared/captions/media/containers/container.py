"""What every reader of a container returns, and the bounds that all of them keep to."""

import struct
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from captions.media.errors import MediaError

Chunks = Iterable[bytes | memoryview]

# Frames, packets, boxes, blocks. Four hours of 20 ms frames are 720,000; a file made of empty ones would be walked for
# minutes.
MOST_PARTS = 3_000_000
MOST_STREAMS = 1_000
MOST_TAGS = 100


def check_parts(parts: int) -> None:
    """Refuse a file of more parts than any recording has, whose reading would take minutes."""
    if parts > MOST_PARTS:
        raise MediaError("bomb", f"the file is made of more than {MOST_PARTS:,} parts")


class Container(NamedTuple):
    """A container: `format` is its short name ("wav", "mp3", "mp4"...), `duration_s` None where no header tells it.

    `essence()` yields what is heard or seen, in order, without tags: equal essence means equal content. It is None
    where the format is not taken apart.
    """

    kind: Literal["audio", "video"]
    media_type: str
    format: str
    duration_s: float | None = None
    essence: Callable[[], Chunks] | None = None
    note: str | None = None
    """What a reader of the caption should know of the file; None: nothing."""


def essence_of(*chunks: bytes | memoryview) -> Callable[[], Chunks]:
    """Return the essence that these chunks are."""
    return lambda: chunks


CUT_OFF = "the recording was cut off; what is there was heard and seen"
STREAMED = 0x7F000000
"""A length from here on says that it is not known: what SoX, GStreamer and others write."""


_LEAST_REST = 8_192  # bytes behind the samples; what is less may be any tail
_TAGS = (b"ID3", b"APETAGEX", b"TAG")  # what programs for MP3 put behind any sound


def goes_on(data: bytes, end: int, stated: int, order: str | None) -> bool:
    """Tell whether more follows the stated bytes of sound than they are, and is no chunk of RIFF ("<") or IFF (">").

    Recorders that were cut off had written how much there was at that moment. Nor are tags sound, or nothing but zeros.
    """
    rest = len(data) - end
    if rest <= max(stated, _LEAST_REST) or data.startswith(_TAGS, end) or data.count(0, end) == rest:
        return False
    if order is None:
        return True
    name, size = struct.unpack_from(f"{order}4sI", data, end)
    return not (all(0x20 <= letter < 0x7F for letter in name) and size <= rest - 8)


def partly_there(stated: int, there: int) -> str:
    """Return the note about a file that states more bytes of sound than it holds."""
    return f"the file states {stated} bytes of sound and holds {there}; what is there was heard"
