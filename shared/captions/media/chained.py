"""Ogg recordings that stand one behind another in a file (RFC 3533, section 4: chained), as of stations and joins.

FFmpeg reads on into the next one only where it has the same rate and channels, and ends there otherwise.
"""

from __future__ import annotations

import io
import os

_HEAD = 27
_BEGINS = 2  # flag of a stream's first page
_MOST_LINKS = 1_000
_MOST_PAGES = 3_000_000


class Link(io.RawIOBase):
    """A stretch of a file, as a file."""

    def __init__(self, file: io.FileIO, start: int, end: int) -> None:
        self._file, self._start, self._end, self._at = file, start, end, start

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that places in it can be gone to."""
        return True

    def tell(self) -> int:
        """Return the place in it."""
        return self._at - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place in it, at most to its end."""
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, min(base + offset, self._end))
        return self.tell()

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes of it, at most `size`."""
        left = self._end - self._at
        self._file.seek(self._at)
        data = self._file.read(left if size < 0 else min(size, left)) or b""
        self._at += len(data)
        return data


def links(file: io.FileIO) -> list[io.FileIO | Link]:
    """Return the recordings that a file holds: itself, but for chained Ogg files."""
    starts = _starts(file)
    if len(starts) < 2:
        return [file]
    size = os.fstat(file.fileno()).st_size
    return [Link(file, start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


def _starts(file: io.FileIO) -> list[int]:
    starts: list[int] = []
    position, begins = 0, False
    for _ in range(_MOST_PAGES):
        file.seek(position)
        head = file.read(_HEAD + 255) or b""
        if head[:4] != b"OggS" or len(head) < _HEAD:
            break
        if head[5] & _BEGINS and not begins and len(starts) < _MOST_LINKS:
            starts.append(position)  # the first pages of multiplexed streams stand together
        begins = bool(head[5] & _BEGINS)
        position += _HEAD + head[26] + sum(head[_HEAD : _HEAD + head[26]])
    return starts
