"""RIFF (Microsoft/IBM 1991) and its wide relatives: WAV, RF64, Wave64, AVI."""

import re
import struct
from collections.abc import Iterator

from captions.media.containers.container import Container, check_parts, essence_of, goes_on, partly_there
from captions.media.errors import MediaError

_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF)  # what programs write that cannot seek back to fill in the length


_NAMES = frozenset({b"data", b"fmt ", b"fact", b"LIST", b"bext", b"cue "})


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start of the content, stated size) of the chunks of a RIFF file.

    One of odd size is padded, but not by every program: where the next one's name stands a byte early, it begins there.
    """
    position, parts = 12, 0
    while position + 8 <= len(data):
        check_parts(parts := parts + 1)
        name, size = struct.unpack_from("<4sI", data, position)
        yield name, position + 8, size
        position += 8 + size
        if size % 2 and data[position : position + 4] not in _NAMES:
            position += 1


def _there(data: bytes, start: int, stated: int) -> int:
    """Return how many bytes of sound there are, whatever is stated.

    Recorders that stream cannot go back to tell the length, or tell what they meant to record, or what they had when
    they wrote the header: then more follows than is stated, and is no chunk.
    """
    end = start + stated
    rest = len(data) - end
    if stated in (0, *_UNKNOWN_SIZES) or data[:4] != b"RIFF" or rest < 0:
        return len(data) - start
    if goes_on(data, end if data[end : end + 4] in _NAMES else end + stated % 2, stated, "<"):
        return len(data) - start
    return stated


def wave(data: bytes) -> Container:
    """Read a WAV file (RIFF, RF64, BW64)."""
    fmt: memoryview | None = None
    sound: Container | None = None
    view = memoryview(data)
    for name, body, size in _chunks(data):
        if sound is not None:
            if name == b"data":
                raise MediaError("broken", "the WAV file has samples in two places, of which players choose one")
        elif name == b"fmt ":
            if body + size > len(data):
                raise MediaError("truncated", "the WAV file ends inside its format header")
            if size < 14:
                raise MediaError("broken", "the WAV file's format header is too short")
            if fmt is not None:
                raise MediaError("broken", "the WAV file has two format headers")
            fmt = view[body : body + size]
        elif name == b"data":
            if fmt is None:
                raise MediaError("broken", "the WAV file has no format header before its samples")
            there = _there(data, body, size)
            note = None if size in (0, *_UNKNOWN_SIZES, there) else partly_there(size, there)
            goes_to_end = there != size
            there -= there % max(struct.unpack_from("<H", fmt, 12)[0], 1)  # whole samples of all channels
            if there == 0:
                raise MediaError("broken", "the WAV file holds no samples")
            rate = struct.unpack_from("<I", fmt, 8)[0]
            essence = essence_of(struct.pack("<I", len(fmt)), fmt, view[body : body + there])
            sound = Container("audio", "audio/wav", "wav", there / rate if rate else None, essence, note)
            if goes_to_end:
                break  # what follows is no chunk
    if sound is None:
        raise MediaError("truncated", "the WAV file ends before its samples")
    return sound


def lengths_of_riff(data: bytes) -> bytes:
    """Return a RIFF file whose header states the lengths that are there, and whose chunks are padded."""
    if data[:4] != b"RIFF":
        return data
    fmt, padded, following = b"", True, 12
    for name, body, size in _chunks(data):
        padded = padded and body - 8 == following
        following = body + size + size % 2
        if name == b"fmt ":
            fmt = data[body - 8 : body + size] + bytes(size % 2)
        elif name == b"data":
            there = _there(data, body, size)
            if there == size and padded:
                return data
            ahead = data[12 : body - 8] if padded else fmt  # which is all that decoders need
            lengths = struct.pack("<I", 12 + len(ahead) + len(data) - body), struct.pack("<I", there)
            return b"".join((b"RIFF", lengths[0], b"WAVE", ahead, b"data", lengths[1], data[body:]))
    return data


def w64_chunk(data: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the content of a Wave64 chunk starts and ends, past the file's end if its length is not known."""
    position, parts = 40, 0
    while position + 24 <= len(data):
        check_parts(parts := parts + 1)
        size = struct.unpack_from("<Q", data, position + 16)[0]
        if data[position : position + 4] == name:
            known = 24 < size <= len(data) - position
            return position + 24, position + size if known else len(data) + 1
        if size < 24:
            return None
        position += size + -size % 8
    return None


def w64(data: bytes) -> Container:
    """Read a Wave64 file."""
    fmt, samples = w64_chunk(data, b"fmt "), w64_chunk(data, b"data")
    if fmt is None or samples is None or fmt[1] > len(data):
        raise MediaError("truncated", "the Wave64 file ends before its samples")
    start, end = samples[0], min(samples[1], len(data))
    rate = struct.unpack_from("<I", data, fmt[0] + 8)[0]
    if end <= start:
        raise MediaError("broken", "the Wave64 file holds no samples")
    return Container("audio", "audio/x-w64", "w64", (end - start) / rate if rate else None)


_AVI_STREAM = re.compile(rb"strh.{4}(vids|auds|iavs)", re.DOTALL)


def avi(data: bytes) -> Container:
    """Tell AVI files that hold sound alone from others."""
    types = set(_AVI_STREAM.findall(data, 0, 65_536))
    if types == {b"auds"}:
        return Container("audio", "audio/x-msvideo", "avi")
    return Container("video", "video/x-msvideo", "avi")
