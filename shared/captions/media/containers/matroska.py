"""Matroska and WebM (RFC 9559)."""

import struct
from collections.abc import Iterator
from typing import Literal

from captions.media.containers.container import CUT_OFF, MOST_STREAMS, Chunks, Container, check_parts
from captions.media.errors import MediaError

_MASTERS = frozenset({0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0xA0})
_HEADER, _SEGMENT, _CLUSTER, _TRACK_ENTRY = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xAE
_DOC_TYPE, _TRACK_TYPE, _TRACK_NUMBER, _CODEC, _CODEC_PRIVATE = 0x4282, 0x83, 0xD7, 0x86, 0x63A2
_TIMESTAMP_SCALE, _DURATION, _SIMPLE_BLOCK, _BLOCK = 0x2AD7B1, 0x4489, 0xA3, 0xA1
# How a track's blocks become sound: SamplingFrequency, Channels, BitDepth, CodecDelay, ContentEncodings (which may hold
# the first bytes of every block).
_DECODING = frozenset({_TRACK_NUMBER, _TRACK_TYPE, _CODEC, _CODEC_PRIVATE, 0xB5, 0x9F, 0x6264, 0x56AA, 0x6D80})


_TOP_ELEMENTS = frozenset({0x1A45DFA3, 0x18538067, 0xEC, 0xBF})
_KNOWN = (
    _MASTERS
    | _TOP_ELEMENTS
    | frozenset(
        {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
        | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xA1, 0x9B, 0xFA, 0xFB, 0xA4, 0x8E, 0x75A1, 0x75A2}
    )
)
"""What the segment and its clusters are made of; RFC 9559, section 5.1."""


def _elements(data: bytes, cut: list[int] | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start of the content, end) of every element, walking into those that hold what is wanted.

    Ends behind the segment, whatever was put there. Of a segment of unknown length, as those write it who stream, an
    element cut short at the end is left out, and its place is put into `cut`.
    """
    position = parts = 0
    ends: int | None = None  # where the segment does; None before it, and of unknown length
    live, following = False, 0
    while position < len(data):
        check_parts(parts := parts + 1)
        first = data[position]
        id_length = 9 - first.bit_length() if first else 9
        identity = int.from_bytes(data[position : position + id_length], "big")
        if ends is not None and position >= ends and identity not in _TOP_ELEMENTS:
            return
        if live and identity not in _KNOWN:
            if following < position:
                following = data.find(b"\x1f\x43\xb6\x75", position)
            if following < 0:
                return  # no cluster comes after it: a tail
        if id_length > 4:
            raise MediaError("broken", "the Matroska file's elements are out of step")
        if position + id_length >= len(data):
            return
        begin = position
        position += id_length
        length = 9 - data[position].bit_length() if data[position] else 9
        if length > 8:
            raise MediaError("broken", "the Matroska file has an element of impossible size")
        size = int.from_bytes(data[position : position + length], "big") & (1 << 7 * length) - 1
        unknown = size == (1 << 7 * length) - 1
        position += length
        end = len(data) if unknown else position + size
        if identity in (_HEADER, _SEGMENT):  # of another recording, too, with which players go on
            live, ends = identity == _SEGMENT and unknown, end if identity == _SEGMENT and not unknown else None
        if end > len(data):
            if live:
                if cut is not None:
                    cut.append(begin)
                if identity == _CLUSTER:
                    continue
                return
            raise MediaError("truncated", "the Matroska or WebM file ends inside an element")
        yield identity, position, end
        position = position if identity in _MASTERS else end


def read(data: bytes) -> Container:
    """Read a Matroska or WebM file."""
    doc_type, scale, ticks, recordings = b"", 1_000_000, None, 0
    tracks: list[dict[int, int]] = []
    filled = set[int]()  # the numbers of the tracks that have blocks
    cut: list[int] = []
    for identity, start, end in _elements(data, cut):
        if identity == _HEADER:
            recordings += 1
        elif identity == _DOC_TYPE:
            doc_type = data[start:end].rstrip(b"\0")
        elif identity == _TRACK_ENTRY:
            tracks.append({})
            if len(tracks) > MOST_STREAMS:
                raise MediaError("bomb", f"the Matroska or WebM file holds more than {MOST_STREAMS:,} tracks")
        elif identity in (_TRACK_TYPE, _TRACK_NUMBER) and tracks:
            tracks[-1][identity] = int.from_bytes(data[start:end], "big")
        elif identity == _TIMESTAMP_SCALE:
            scale = int.from_bytes(data[start:end], "big")
        elif identity == _DURATION and end - start in (4, 8):
            ticks = struct.unpack(">f" if end - start == 4 else ">d", data[start:end])[0]
        elif identity in (_SIMPLE_BLOCK, _BLOCK) and start < end and len(filled) <= MOST_STREAMS:
            length = 9 - data[start].bit_length() if data[start] else 9
            filled.add(int.from_bytes(data[start : start + length], "big") & (1 << 7 * length) - 1)
    if not {track.get(_TRACK_TYPE) for track in tracks} & {1, 2}:
        raise MediaError("broken", "the Matroska or WebM file holds neither sound nor video")
    if not filled:
        raise MediaError("truncated", "the Matroska or WebM file ends before its sound or pictures")
    # A browser that records with its camera switched off leaves a track of video empty.
    types = {track.get(_TRACK_TYPE) for track in tracks if track.get(_TRACK_NUMBER) in filled}
    types = types if types & {1, 2} else {track.get(_TRACK_TYPE) for track in tracks}
    kind: Literal["audio", "video"] = "video" if 1 in types else "audio"
    name = "webm" if doc_type == b"webm" else "mkv"
    media_type = f"{kind}/webm" if name == "webm" else f"{kind}/x-matroska"
    known = recordings < 2 and ticks is not None and 0 < ticks * scale < 1e18
    duration = ticks * scale / 1e9 if known and ticks is not None else None
    note = CUT_OFF if cut else None
    return Container(kind, media_type, name, duration, lambda: _matroska_essence(data), note)


def _matroska_essence(data: bytes) -> Chunks:
    """Yield every track's codec and every block, but not its time: how blocks are clustered does not matter."""
    view = memoryview(data)
    for identity, start, end in _elements(data):
        if identity in _DECODING:
            yield struct.pack("<II", identity, end - start)
            yield view[start:end]
        elif identity in (_SIMPLE_BLOCK, _BLOCK) and end > start:
            number = 9 - data[start].bit_length() if data[start] else 1
            yield struct.pack("<I", end - start)
            yield view[start : start + number]
            yield bytes((data[start + number + 2] & 0x06,)) if start + number + 2 < end else b""  # the lacing
            yield view[start + number + 3 : end]
