"""MP4, QuickTime and 3GP (ISO/IEC 14496-12)."""

import struct
import sys
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from captions.media.containers.container import CUT_OFF, MOST_PARTS, MOST_STREAMS, Chunks, Container, check_parts
from captions.media.errors import MediaError


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start of the content, end) of the boxes between `start` and `end`."""
    position, parts = start, 0
    while position + 8 <= end:
        check_parts(parts := parts + 1)
        size, name = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, body)[0]
            body += 8
        elif size == 0:
            size = end - position
        if size < body - position:
            raise MediaError("broken", "the MP4 file has a box of impossible size")
        if position + size > end:
            raise MediaError("truncated", "the MP4 file ends inside one of its boxes")
        yield name, body, position + size
        position += size


_TOP_LEVEL = frozenset(
    b"ftyp styp moov moof mfra mdat free skip wide pnot uuid meta sidx ssix prft emsg pdin udta junk PICT".split()
)


def _mp4_end(data: bytes) -> int:
    """Return where the last box ends that belongs to the file; what an upload form put behind it is passed over.

    Players do so too. A box of a known type that is cut short belongs to the file, which is then truncated; but of
    what was recorded in fragments all that came before counts.
    """
    position, held, parts = 0, set[bytes](), 0
    while position + 8 <= len(data) and {b"moov", b"mdat"} - held:
        check_parts(parts := parts + 1)
        size, name = struct.unpack_from(">I4s", data, position)
        held.add(name)
        if size == 1:
            size = struct.unpack_from(">Q", data, position + 8)[0]
        if size < 8 or position + size > len(data):
            return len(data)
        position += size
    while position + 8 <= len(data):
        check_parts(parts := parts + 1)
        size, name = struct.unpack_from(">I4s", data, position)
        if name not in _TOP_LEVEL:
            return position
        if size == 1 and position + 16 <= len(data):
            size = struct.unpack_from(">Q", data, position + 8)[0]
        if size < 8 or position + size > len(data):
            return position if b"moof" in held else len(data)
        held.add(name)
        position += size
    return position if {b"moov", b"mdat"} <= held else len(data)


_MOST_SIBLINGS = 1_000
"""Boxes within one of a track's, which are gone through for each that is looked for; there are some ten."""


def _box(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    for wanted in path:
        for number, (name, body, after) in enumerate(boxes(data, start, end)):
            if number == _MOST_SIBLINGS:
                raise MediaError("bomb", f"the MP4 file has more than {_MOST_SIBLINGS:,} boxes in one of a track's")
            if name == wanted:
                start, end = body, after
                break
        else:
            return None
    return start, end


def ftyp_brands(data: bytes) -> frozenset[bytes]:
    """Return the brands that an ISO base media file says it is written to."""
    if len(data) < 16:
        return frozenset()
    end = min(struct.unpack_from(">I", data)[0], len(data), 4096)
    return frozenset([data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))])


class _Track(NamedTuple):
    handler: bytes
    codec: bytes
    timescale: int
    duration: int  # in timescale units
    table: tuple[int, int]  # the stbl box
    edits: bytes
    shown: bytes  # whether the track is played, and of pictures the matrix that turns them


def _mp4_tracks(data: bytes, moov: tuple[int, int]) -> list[_Track]:
    tracks: list[_Track] = []
    count = 0
    for name, start, end in boxes(data, *moov):
        if name != b"trak":
            continue
        count += 1
        if count > MOST_STREAMS:
            raise MediaError("bomb", f"the MP4 file holds more than {MOST_STREAMS:,} tracks")
        handler = _box(data, start, end, b"mdia", b"hdlr")
        header = _box(data, start, end, b"mdia", b"mdhd")
        table = _box(data, start, end, b"mdia", b"minf", b"stbl")
        described = table and _box(data, *table, b"stsd")
        if not (handler and header and table and described):
            continue
        version = data[header[0]]
        timescale, duration = struct.unpack_from(
            ">IQ" if version == 1 else ">II", data, header[0] + (20 if version == 1 else 12)
        )
        if duration == (1 << 64 if version == 1 else 1 << 32) - 1:
            duration = 0  # it could not be determined (8.4.2.3)
        edits = _box(data, start, end, b"edts", b"elst")
        head = _box(data, start, end, b"tkhd")
        tracks.append(
            _Track(
                handler=data[handler[0] + 8 : handler[0] + 12],
                codec=data[described[0] + 12 : described[0] + 16],
                timescale=timescale,
                duration=duration,
                table=table,
                edits=data[edits[0] : edits[1]] if edits else b"",
                shown=_mp4_shown(data, head) if head else b"",
            )
        )
    return tracks


def _mp4_shown(data: bytes, head: tuple[int, int]) -> bytes:
    """Return of a track's header whether it is enabled, and its matrix (ISO/IEC 14496-12, 8.3.2)."""
    matrix = head[0] + (52 if data[head[0]] == 1 else 40)
    return bytes((data[head[0] + 3] & 1,)) + data[matrix : min(matrix + 36, head[1])]


_ENCRYPTED = frozenset({b"enca", b"encv", b"drms", b"drmi", b"aavd"})
"""Sample entries of encrypted tracks (ISO/IEC 14496-12, 8.12); the last ones are those of Apple and of Audible."""


def read(data: bytes) -> Container:
    """Read an MP4, QuickTime or 3GP file."""
    firsts: dict[bytes, tuple[int, int]] = {}  # of each type
    last = _mp4_end(data)
    for name, body, end in boxes(data, 0, last):
        firsts.setdefault(name, (body, end))
    cut = b"moof" in firsts and data[last + 4 : last + 8] in _TOP_LEVEL
    note = CUT_OFF if cut else None
    brands = ftyp_brands(data) if data[4:8] == b"ftyp" else frozenset({b"qt  "})
    moov = firsts.get(b"moov")
    if moov is None:
        raise MediaError("truncated", "the MP4 file has no index (moov)")
    tracks = _mp4_tracks(data, moov)
    for track in tracks:
        _refuse_index(data, track)
    fragmented = b"moof" in firsts
    video = [track for track in tracks if track.handler == b"vide" and (fragmented or not _is_cover(data, track))]
    sound = [track for track in tracks if track.handler == b"soun"]
    if any(track.codec in _ENCRYPTED for track in (*video, *sound)):
        raise MediaError("unsupported", "the recording is encrypted (DRM)")
    if fragmented:
        _refuse_fragments(data)
    if not video and not sound:
        raise MediaError("unsupported", "the MP4 file holds neither sound nor video")
    main = (video or sound)[0]
    duration = main.duration / main.timescale if main.timescale and main.duration else None
    essence = _mp4_essence(data, [*video, *sound], fragmented)
    if b"mdat" not in firsts:
        raise MediaError("truncated", "the MP4 file has an index, but no sound or pictures follow")
    if video:
        if b"qt  " in brands:
            return Container("video", "video/quicktime", "mov", duration, essence, note)
        if any(brand.startswith((b"3gp", b"3g2")) for brand in brands):
            return Container("video", "video/3gpp", "3gp", duration, essence, note)
        return Container("video", "video/mp4", "mp4", duration, essence, note)
    short = "m4a" if b"M4A " in brands or b"M4B " in brands else "mp4"
    return Container("audio", "audio/mp4", short, duration, essence, note)


def _samples(data: bytes, track: _Track) -> int:
    sizes = _box(data, *track.table, b"stsz") or _box(data, *track.table, b"stz2")
    return int(struct.unpack_from(">I", data, sizes[0] + 8)[0]) if sizes else 0


def _is_cover(data: bytes, track: _Track) -> bool:
    """Whether a track of stills is a cover or the pictures of chapters; old cameras wrote Motion JPEG as stills."""
    if track.codec not in (b"jpeg", b"png ", b"mjpg", b"mjpa", b"mjpb"):
        return False
    seconds = track.duration / track.timescale if track.timescale else 0.0
    return _samples(data, track) < max(2.0, seconds)


def _refuse_index(data: bytes, track: _Track) -> None:
    """Refuse a track that claims more samples than the file has bytes: decoders make an entry of 24 bytes for each."""
    samples = _samples(data, track)
    times = _box(data, *track.table, b"stts")
    runs = min(struct.unpack_from(">I", data, times[0] + 4)[0], (times[1] - times[0] - 8) // 8) if times else 0
    counted = sum(_numbers(data, times[0] + 8, 2 * runs, "I")[::2]) if times else 0
    if max(samples, counted) > len(data):
        raise MediaError("bomb", f"the MP4 file claims {max(samples, counted):,} samples in {len(data):,} bytes")


def _refuse_fragments(data: bytes) -> None:
    """Refuse fragments that claim more samples than the file has bytes (ISO/IEC 14496-12, 8.8.8)."""
    claimed = parts = 0
    for name, start, end in boxes(data, 0, _mp4_end(data)):
        if name != b"moof":
            continue
        for inner, body, after in boxes(data, start, end):
            check_parts(parts := parts + 1)
            for run, at, _ in boxes(data, body, after) if inner == b"traf" else ():
                check_parts(parts := parts + 1)
                if run == b"trun":
                    claimed += struct.unpack_from(">I", data, at + 4)[0]
    if claimed > len(data):
        raise MediaError("bomb", f"the MP4 file's fragments claim {claimed:,} samples in {len(data):,} bytes")


def _mp4_essence(data: bytes, tracks: list[_Track], fragmented: bool) -> Callable[[], Chunks] | None:
    """Return what yields each track's configuration and samples, wherever they lie; None if that is unclear."""
    if fragmented:
        return None
    placed = []
    total = parts = 0
    for track in tracks:
        spans = _mp4_spans(data, track.table, len(data) - total, MOST_PARTS - parts)
        if spans is None:
            return None
        placed.append((track, spans, sum(spans[1::2]) - sum(spans[::2])))
        total, parts = total + placed[-1][2], parts + _samples(data, track) + len(spans)
    return lambda: _mp4_chunks(data, placed)


def _mp4_chunks(data: bytes, placed: list[tuple[_Track, "array[int]", int]]) -> Chunks:
    view = memoryview(data)
    for track, spans, length in placed:
        parts = _mp4_configuration(data, track), track.edits, track.shown, _mp4_sample_sizes(data, track.table)
        yield struct.pack("<4s4sIIIIIQ", track.handler, track.codec, track.timescale, *map(len, parts), length)
        yield from parts
        yield from (view[start:end] for start, end in zip(spans[::2], spans[1::2], strict=True))


def _mp4_sample_sizes(data: bytes, table: tuple[int, int]) -> memoryview:
    """Return how the track's bytes are divided into samples."""
    sizes = _box(data, *table, b"stsz")
    assert sizes is not None
    return memoryview(data)[sizes[0] : sizes[1]]


def _mp4_configuration(data: bytes, track: _Track) -> bytes:
    """Return the decoder's configuration: of AAC only what is decoded by, as muxers rewrite the rest (bit rates)."""
    described = _box(data, *track.table, b"stsd")
    assert described is not None
    entry_start = described[0] + 8
    entry = data[entry_start : min(entry_start + struct.unpack_from(">I", data, entry_start)[0], described[1])]
    at = entry.find(b"esds")
    if struct.unpack_from(">I", data, described[0] + 4)[0] != 1:
        return data[described[0] : described[1]]
    if track.codec != b"mp4a" or at < 0:
        return entry
    return entry[16:36] + (_audio_specific_config(entry, at + 8) or entry[at:])


def _audio_specific_config(data: bytes, position: int) -> bytes | None:
    """Return the DecoderSpecificInfo inside the ES descriptor at `position` (ISO/IEC 14496-1, 7.2.6); None if odd."""
    try:
        for tag in (3, 4, 5):
            if data[position] != tag:
                return None
            position, size = position + 1, 0
            for _ in range(4):
                byte = data[position]
                position, size = position + 1, size << 7 | byte & 0x7F
                if not byte & 0x80:
                    break
            if tag == 5:
                return data[position : position + size] if position + size <= len(data) else None
            if tag == 3:
                flags = data[position + 2]
                position += 3 + (2 if flags & 0x80 else 0) + (1 + data[position + 3] if flags & 0x40 else 0)
                position += 2 if flags & 0x20 else 0
            else:
                position += 13  # object type, stream type, buffer size, bit rates
    except IndexError:
        return None
    return None


def _mp4_spans(data: bytes, table: tuple[int, int], budget: int, parts: int) -> "array[int] | None":
    """Return where each chunk of samples starts and ends, in turn.

    None if the index is odd, spans more than `budget` bytes or has more than `parts` samples or chunks: a list of them
    would take twenty times the memory of the file.
    """
    sizes, runs = _box(data, *table, b"stsz"), _box(data, *table, b"stsc")
    narrow, wide = _box(data, *table, b"stco"), _box(data, *table, b"co64")
    offsets_box = narrow or wide
    if not sizes or not runs or not offsets_box:
        return None
    constant, samples = struct.unpack_from(">II", data, sizes[0] + 4)
    chunk_count = struct.unpack_from(">I", data, offsets_box[0] + 4)[0]
    run_count = struct.unpack_from(">I", data, runs[0] + 4)[0]
    width = 4 if narrow else 8
    if chunk_count + (0 if constant else samples) > parts:
        return None
    if 8 + chunk_count * width > offsets_box[1] - offsets_box[0] or 8 + run_count * 12 > runs[1] - runs[0]:
        return None
    if not constant and 12 + samples * 4 > sizes[1] - sizes[0]:
        return None
    offsets = _numbers(data, offsets_box[0] + 8, chunk_count, "I" if narrow else "Q")
    lengths = _numbers(data, sizes[0] + 12, 0 if constant else samples, "I")
    table_runs = _numbers(data, runs[0] + 8, 3 * run_count, "I")
    spans = array("Q")
    sample = run = 0
    for chunk, offset in enumerate(offsets, 1):
        while 3 * run + 3 < len(table_runs) and table_runs[3 * run + 3] <= chunk:
            run += 1
        count = min(table_runs[3 * run + 1], samples - sample) if table_runs else 0
        length = constant * count if constant else sum(lengths[sample : sample + count])
        budget -= length
        if budget < 0 or offset + length > len(data):
            return None
        if spans and spans[-1] == offset:
            spans[-1] = offset + length
        else:
            spans.extend((offset, offset + length))
        sample += count
    return spans if spans and sample == samples else None


def _numbers(data: bytes, start: int, count: int, code: str) -> "array[int]":
    """Return a table of numbers of 32 bits (`code` I) or 64 (Q)."""
    numbers = array(code)
    numbers.frombytes(data[start : start + count * numbers.itemsize])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
