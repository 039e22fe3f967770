"""RIFF (Microsoft/IBM 1991) and its wide relatives: WAV, RF64, Wave64, AVI."""

import re
import struct

from captions.media.containers.container import Container, check_parts, essence_of, partly_there
from captions.media.errors import MediaError

_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF)  # what programs write that cannot seek back to fill in the length


def wave(data: bytes) -> Container:
    """Read a WAV file (RIFF, RF64, BW64)."""
    fmt: memoryview | None = None
    note: str | None = None
    view = memoryview(data)
    position, parts = 12, 0
    while position + 8 <= len(data):
        check_parts(parts := parts + 1)
        name, size = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if name == b"fmt ":
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
            if size in (0, *_UNKNOWN_SIZES) or data[:4] != b"RIFF" or body + size > len(data):
                # Recorders that stream cannot go back to tell the length, or tell what they meant to record.
                stated, size = size, len(data) - body
                note = partly_there(stated, size) if stated not in (0, *_UNKNOWN_SIZES, size) else None
            size -= size % max(struct.unpack_from("<H", fmt, 12)[0], 1)  # whole samples of all channels
            if size == 0:
                raise MediaError("broken", "the WAV file holds no samples")
            rate = struct.unpack_from("<I", fmt, 8)[0]
            essence = essence_of(struct.pack("<I", len(fmt)), fmt, view[body : body + size])
            return Container("audio", "audio/wav", "wav", size / rate if rate else None, essence, note)
        position = body + size + size % 2
    raise MediaError("truncated", "the WAV file ends before its samples")


def lengths_of_riff(data: bytes) -> bytes:
    """Return a RIFF file whose header states the lengths that are there."""
    position = 12
    while data[:4] == b"RIFF" and position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        there = len(data) - position - 8
        if name == b"data":
            if 0 < size <= there:
                return data
            lengths = struct.pack("<I", len(data) - 8), struct.pack("<I", there)
            return b"".join((data[:4], lengths[0], data[8 : position + 4], lengths[1], data[position + 8 :]))
        position += 8 + size + size % 2
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
