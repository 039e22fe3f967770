"""Sound and video containers: what is in them, how long it is, and the part that no tag editor touches.

Only headers and indexes are read; nothing is decoded. Every length found in a file is checked against the bytes that
are there, and every loop moves forward, so that hostile input ends in an answer. Sources: RIFF (Microsoft/IBM 1991),
ISO/IEC 14496-12 (MP4), 11172-3 and 13818-3 (MPEG audio), 14496-3 (ADTS), RFC 3533 and 7845 (Ogg, Opus), RFC 9639
(FLAC), RFC 9559 (Matroska), RFC 4867 (AMR), the ASF specification 01.20.03, AIFF-C (Apple 1991), ID3v2.4, APEv2.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from captions.media.errors import MediaError

Chunks = Iterable[bytes | memoryview]

# Frames, packets, boxes, blocks. Four hours of 20 ms frames are 720,000; a file made of empty ones would be walked for
# minutes.
_MOST_PARTS = 3_000_000
_MOST_STREAMS = 1_000
_MOST_TAGS = 100


def _few(parts: int) -> None:
    if parts > _MOST_PARTS:
        raise MediaError("bomb", f"the file is made of more than {_MOST_PARTS:,} parts")


@dataclass(frozen=True)
class Container:
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


def _chunks(*chunks: bytes | memoryview) -> Callable[[], Chunks]:
    return lambda: chunks


def identify(data: bytes) -> Container | None:
    """Return the sound or video container that `data` is, or None if it is none.

    Raises MediaError (`broken`, `truncated`, `unsupported`) where the signature is right but the rest is not.
    """
    reader = _reader(data)
    if reader is None:
        return None
    try:
        return reader(data)
    except (struct.error, IndexError, OverflowError, ZeroDivisionError) as error:
        raise MediaError("broken", "the container's headers cannot be read") from error


def _reader(data: bytes) -> Callable[[bytes], Container | None] | None:
    head = data[:16]
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return {b"WAVE": _wave, b"AVI ": _avi}.get(head[8:12])
    for signature, reader in _SIGNATURES:
        if head.startswith(signature):
            return reader
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and len(data) >= 16:
        return _mp4
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff
    if head[4:8] in (b"\xf8\x72\x6f\xba", b"\xf8\x72\x6f\xbb"):
        return _plain("audio", "audio/vnd.dolby.mlp", "mlp")
    if _ts_layout(data) is not None:
        return _transport_stream
    return _framed_audio


# --- RIFF -----------------------------------------------------------------------------------------------------------

_UNKNOWN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF)  # what programs write that cannot seek back to fill in the length


_CUT_OFF = "the recording was cut off; what is there was heard and seen"
_STREAMED = 0x7F000000
"""A length from here on says that it is not known: what SoX, GStreamer and others write."""


def _heard(stated: int, there: int) -> str:
    return f"the file tells of {stated} bytes of sound and holds {there}; what is there was heard"


def _wave(data: bytes) -> Container:
    fmt: memoryview | None = None
    note: str | None = None
    view = memoryview(data)
    position, parts = 12, 0
    while position + 8 <= len(data):
        _few(parts := parts + 1)
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
                note = _heard(stated, size) if stated not in (0, *_UNKNOWN_SIZES, size) else None
            size -= size % max(struct.unpack_from("<H", fmt, 12)[0], 1)  # whole samples of all channels
            if size == 0:
                raise MediaError("broken", "the WAV file holds no samples")
            rate = struct.unpack_from("<I", fmt, 8)[0]
            essence = _chunks(struct.pack("<I", len(fmt)), fmt, view[body : body + size])
            return Container("audio", "audio/wav", "wav", size / rate if rate else None, essence, note)
        position = body + size + size % 2
    raise MediaError("truncated", "the WAV file ends before its samples")


def with_lengths(data: bytes) -> bytes:
    """Return a WAV, W64, AIFF or AU file whose header tells the lengths that are there; any other file as it is.

    Recorders that stream leave 0, all ones or too much, and decoders believe them.
    """
    match data[:4]:
        case b"RIFF" if data[8:12] == b"WAVE":
            return _told_riff(data)
        case b"RF64" | b"BW64":
            return _told_riff(b"RIFF" + data[4:12] + b"JUNK" + data[16:] if data[12:16] == b"ds64" else data)
        case b"FORM" if data[8:12] in (b"AIFF", b"AIFC"):
            return _told_aiff(data)
        case b".snd" if len(data) >= 24 and (length := _basic_end(data) - int.from_bytes(data[4:8], "big")) > 0:
            return data[:8] + struct.pack(">I", length) + data[12:]
        case b"riff" if (chunk := _w64_chunk(data, b"data")) is not None and chunk[1] > len(data):
            return data[: chunk[0] - 8] + struct.pack("<Q", len(data) - chunk[0] + 24) + data[chunk[0] :]
    return data


def _told_riff(data: bytes) -> bytes:
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


def _w64_chunk(data: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the content of a Wave64 chunk starts and ends, past the file's end if its length is not known."""
    position, parts = 40, 0
    while position + 24 <= len(data):
        _few(parts := parts + 1)
        size = struct.unpack_from("<Q", data, position + 16)[0]
        if data[position : position + 4] == name:
            known = 24 < size <= len(data) - position
            return position + 24, position + size if known else len(data) + 1
        if size < 24:
            return None
        position += size + -size % 8
    return None


def _w64(data: bytes) -> Container:
    fmt, samples = _w64_chunk(data, b"fmt "), _w64_chunk(data, b"data")
    if fmt is None or samples is None or fmt[1] > len(data):
        raise MediaError("truncated", "the Wave64 file ends before its samples")
    start, end = samples[0], min(samples[1], len(data))
    rate = struct.unpack_from("<I", data, fmt[0] + 8)[0]
    if end <= start:
        raise MediaError("broken", "the Wave64 file holds no samples")
    return Container("audio", "audio/x-w64", "w64", (end - start) / rate if rate else None)


_AVI_STREAM = re.compile(rb"strh.{4}(vids|auds|iavs)", re.DOTALL)


def _avi(data: bytes) -> Container:
    types = set(_AVI_STREAM.findall(data, 0, 65_536))
    if types == {b"auds"}:
        return Container("audio", "audio/x-msvideo", "avi")
    return Container("video", "video/x-msvideo", "avi")


# --- MPEG audio, ADTS, FLAC: frames with tags around them ------------------------------------------------------------

_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MP3_KBITS = {  # (MPEG 1?, layer) -> kbit/s by index
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_STREAM_LIMIT = 4_096  # bytes searched for the first whole frame where no tag says that this is sound
_JUNK_LIMIT = 65_536  # bytes between a wrong ID3 size and the first frame that are searched


@dataclass(frozen=True)
class _Frame:
    length: int  # bytes
    samples: int
    rate: int  # samples per second
    codec: str  # "mp3", "mp2", "mp1" or "aac"


def _frame(data: bytes, position: int) -> _Frame | None:
    """Return the MPEG audio or ADTS frame whose header stands at `position`."""
    if position + 7 > len(data) or data[position] != 0xFF or data[position + 1] & 0xE0 != 0xE0:
        return None
    second, third = data[position + 1], data[position + 2]
    version, layer_bits = second >> 3 & 3, second >> 1 & 3
    if layer_bits == 0:
        if second & 0xF0 != 0xF0 or third >> 2 & 15 >= len(_ADTS_RATES):
            return None
        length = (data[position + 3] & 3) << 11 | data[position + 4] << 3 | data[position + 5] >> 5
        blocks = (data[position + 6] & 3) + 1
        return _Frame(length, 1024 * blocks, _ADTS_RATES[third >> 2 & 15], "aac") if length > 7 else None
    layer, index, rate_index = 4 - layer_bits, third >> 4, third >> 2 & 3
    if version == 1 or index in (0, 15) or rate_index == 3:
        return None
    rate, kbits = _MP3_RATES[version][rate_index], _MP3_KBITS[version == 3, layer][index - 1]
    padding = third >> 1 & 1
    if layer == 1:
        return _Frame((12 * kbits * 1000 // rate + padding) * 4, 384, rate, "mp1")
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Frame(samples // 8 * kbits * 1000 // rate + padding, samples, rate, f"mp{layer}")


def _synchsafe(sizes: bytes) -> int:
    """Return the length that four bytes of 7 bits tell, or of 8 bits, as some old programs wrote it."""
    if any(byte & 0x80 for byte in sizes):
        return int.from_bytes(sizes, "big")
    return sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]


def _id3v2_end(data: bytes, position: int) -> int:
    """Return where the ID3v2 tags that start at `position` end (`position` itself if there is none)."""
    for _ in range(_MOST_TAGS):
        if data[position : position + 3] != b"ID3" or position + 10 > len(data):
            break
        position += 10 + _synchsafe(data[position + 6 : position + 10]) + (10 if data[position + 5] & 0x10 else 0)
    return min(position, len(data))


def _tags_start(data: bytes, begin: int) -> int:
    """Return where the ID3v1, Lyrics3, APE and ID3v2.4 tags at the end of `data` begin.

    A tag whose beginning does not bear its size out is taken for sound: players play it.
    """
    end = len(data)
    for _ in range(_MOST_TAGS):
        if data[end - 128 : end - 125] == b"TAG":
            start = end - 128
        elif data[end - 9 : end] == b"LYRICS200" and data[end - 15 : end - 9].isdigit():
            start = end - 15 - int(data[end - 15 : end - 9])
            if data[start : start + 11] != b"LYRICSBEGIN":
                return end
        elif data[end - 32 : end - 24] == b"APETAGEX":
            size, items, flags = struct.unpack_from("<III", data, end - 20)
            start = end - size
            if start < begin or not _ape_items(data, start, end - 32, items):
                return end
            start -= 32 if flags & 1 << 31 else 0
        elif data[end - 10 : end - 7] == b"3DI":
            start = end - 20 - _synchsafe(data[end - 4 : end])
            if data[start : start + 3] != b"ID3" or start + 20 + _synchsafe(data[start + 6 : start + 10]) != end:
                return end
        else:
            return end
        if not begin <= start < end:
            return end
        end = start
    return end


def _ape_items(data: bytes, position: int, end: int, count: int) -> bool:
    """Whether `count` items (APEv2: size, flags, key, zero, value) fill the bytes from `position` to `end`."""
    for _ in range(min(count, _MOST_PARTS)):
        if position + 8 > end:
            return False
        zero = data.find(b"\0", position + 8, min(position + 8 + 256, end))
        if zero < 0:
            return False
        position = zero + 1 + int(struct.unpack_from("<I", data, position)[0])
    return position == end


def _framed_audio(data: bytes) -> Container | None:
    begin = _id3v2_end(data, 0)
    if data[begin : begin + 4] == b"fLaC":
        return _flac(data, begin)
    if data[begin : begin + 8] == b"APETAGEX":
        size, flags = struct.unpack_from("<I4xI", data, begin + 12)
        begin += size + (32 if flags & 1 << 31 else 0)
    tagged = begin > 0
    first = _first_frame(data, begin, search=_JUNK_LIMIT if tagged else 1)
    if first is None and tagged:
        first = _first_frame(data, 10, search=_JUNK_LIMIT + 10)  # the tag's size was a lie
    if first is None and tagged:
        raise MediaError("broken", "the file has tags of a sound file, but no sound follows them")
    if first is None:
        first = _stream_start(data)
    if first is None:
        return None
    end = _tags_start(data, first)
    frames, cut = _walk(data, first, end)
    frame = _frame(data, first)
    assert frame is not None
    declared = _declared(data, first, frame)
    if declared is not None and declared > max(frames + 2, frames * 1.02):
        raise MediaError("truncated", f"the sound ends after {frames} of {declared} frames")
    if frames == 0 or (cut and frames < 2):
        raise MediaError("truncated", "the sound ends inside its first frame")
    media_type, name = ("audio/aac", "aac") if frame.codec == "aac" else ("audio/mpeg", frame.codec)
    essence = _chunks(memoryview(data)[first:end])
    return Container("audio", media_type, name, frames * frame.samples / frame.rate, essence)


def _first_frame(data: bytes, begin: int, search: int) -> int | None:
    """Return where two frames of one kind follow each other, looking at most `search` bytes ahead."""
    position = begin
    while (position := data.find(b"\xff", position, begin + search)) >= 0:
        frame = _frame(data, position)
        if frame is not None:
            following = position + frame.length
            after = _frame(data, following)
            if after is not None and (after.codec, after.rate) == (frame.codec, frame.rate):
                return position
            if following == len(data) or data[following : following + 3] == b"TAG":
                return position
        position += 1
    return None


def _stream_start(data: bytes) -> int | None:
    """Return where frames begin in what was cut out of a stream, or None: it begins within a frame.

    Without a tag to say that this is sound, five frames of one kind must follow each other and not be all alike, as
    they would be in a flat picture that happens to hold the right bytes.
    """
    position = 0
    while (position := data.find(b"\xff", position, _STREAM_LIMIT)) >= 0:
        frames: list[tuple[tuple[str, int], bytes]] = []
        at = position
        while len(frames) < 5 and (frame := _frame(data, at)) is not None:
            if frames and (frame.codec, frame.rate) != frames[0][0]:
                break
            frames.append(((frame.codec, frame.rate), data[at : at + frame.length]))
            at += frame.length
        if len(frames) == 5 and len({content for _, content in frames}) > 1:
            return position
        position += 1
    return None


def _walk(data: bytes, position: int, end: int) -> tuple[int, bool]:
    """Count the frames from `position` on; also tell whether the last one is cut."""
    frames = lost = 0
    while position < end:
        _few(frames + 10 * lost)  # looking for the next frame takes longer than finding it in its place
        frame = _frame(data, position)
        if frame is None:
            lost += 1
            following = data.find(b"\xff", position + 1, min(position + _JUNK_LIMIT, end))
            if following < 0:
                break
            position = following
            continue
        if position + frame.length > end:
            return frames, True
        frames += 1
        position += frame.length
    return frames, False


def _declared(data: bytes, position: int, frame: _Frame) -> int | None:
    """Return how many frames the first frame's Xing, Info or VBRI header says there are, itself included."""
    content = data[position : position + frame.length]
    for tag in (b"Xing", b"Info"):
        at = content.find(tag, 0, 48)
        if at > 0 and content[at + 7] & 1:
            return 1 + int(struct.unpack_from(">I", content, at + 8)[0])
    if content[36:40] == b"VBRI":
        return 1 + int(struct.unpack_from(">I", content, 50)[0])
    return None


def _flac(data: bytes, begin: int) -> Container:
    position, last, info, blocks = begin + 4, False, b"", 0
    while not last:
        _few(blocks := blocks + 1)
        last, block = bool(data[position] & 0x80), data[position] & 0x7F
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        if position + 4 + size > len(data):
            raise MediaError("truncated", "the FLAC file ends inside its metadata")
        if block == 0 and not info:
            info = data[position + 4 : position + 4 + size]
        position += 4 + size
    if len(info) < 34:
        raise MediaError("broken", "the FLAC file has no stream information")
    end = _tags_start(data, position)
    if end <= position:
        raise MediaError("truncated", "the FLAC file ends before its sound")
    packed = int.from_bytes(info[10:18], "big")
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    essence = _chunks(info, memoryview(data)[position:end])
    duration = samples / rate if rate and samples else None
    return Container("audio", "audio/flac", "flac", duration, essence)


# --- Ogg ------------------------------------------------------------------------------------------------------------


def _ogg_packets(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (stream serial, packet, granule position of the page it ends on)."""
    parts: dict[int, list[bytes]] = {}
    position = packets = pages = 0
    while position < len(data):
        _few(packets + (pages := pages + 1))
        if data[position : position + 4] != b"OggS":
            if packets and data.find(b"OggS", position) < 0:
                return  # what stands behind the last page (a tag, an upload form's boundary) is passed over
            raise MediaError("broken", "the Ogg file's pages are out of step")
        granule, serial = struct.unpack_from("<qI", data, position + 6)
        count = data[position + 26]
        lacing = data[position + 27 : position + 27 + count]
        body = position + 27 + count
        if body + sum(lacing) > len(data):
            raise MediaError("truncated", "the Ogg file ends inside a page")
        open_parts = parts.setdefault(serial, [])
        if len(parts) > _MOST_STREAMS:
            raise MediaError("bomb", f"the Ogg file holds more than {_MOST_STREAMS:,} streams")
        for length in lacing:
            open_parts.append(data[body : body + length])
            body += length
            if length < 255:
                packets += 1
                yield serial, b"".join(open_parts), granule
                open_parts.clear()
        position = body


def _ogg(data: bytes) -> Container:
    heads: dict[int, bytes] = {}
    last: dict[int, int] = {}
    packets: dict[int, int] = {}
    for serial, packet, granule in _ogg_packets(data):
        heads.setdefault(serial, packet[:64])
        packets[serial] = packets.get(serial, 0) + 1
        if granule >= 0:
            last[serial] = max(granule, last.get(serial, 0))
    if any(head.startswith((b"\x80theora", b"BBCD\0", b"OVP80")) for head in heads.values()):
        return Container("video", "video/ogg", "ogg", essence=lambda: _ogg_essence(data))
    for serial, head in heads.items():
        timing = _ogg_timing(head)
        if timing is None:
            continue
        name, rate, skip, header_packets = timing
        if packets[serial] <= header_packets:
            raise MediaError("truncated", "the Ogg file ends before its sound")
        duration = max(last.get(serial, 0) - skip, 0) / rate if rate else None
        return Container("audio", "audio/ogg", name, duration, lambda: _ogg_essence(data))
    raise MediaError("unsupported", "the Ogg file holds no sound or video that is known")


def _ogg_timing(head: bytes) -> tuple[str, int, int, int] | None:
    """Return (short name, samples per second, samples to skip, header packets) of the stream that `head` begins."""
    if head.startswith(b"\x01vorbis"):
        return "ogg", struct.unpack_from("<I", head, 12)[0], 0, 3
    if head.startswith(b"OpusHead"):
        return "opus", 48000, struct.unpack_from("<H", head, 10)[0], 2
    if head.startswith(b"Speex   "):
        return "spx", struct.unpack_from("<I", head, 36)[0], 0, 2
    if head.startswith(b"\x7fFLAC"):
        return "ogg", int.from_bytes(head[27:30], "big") >> 4, 0, 2
    return None


def _ogg_essence(data: bytes) -> Chunks:
    """Yield each stream's packets but its comments, each with its length: how they are paged does not matter."""
    counts: dict[int, int] = {}
    codecs: dict[int, bytes] = {}
    numbers: dict[int, int] = {}
    last = 0
    for serial, packet, granule in _ogg_packets(data):
        count = counts[serial] = counts.get(serial, 0) + 1
        codec = codecs.setdefault(serial, packet[:8])
        number = numbers.setdefault(serial, len(numbers))
        last = max(last, granule)
        if packet.startswith((b"\x03vorbis", b"OpusTags", b"\x81theora")) and count == 2:
            continue
        if codec.startswith(b"Speex   ") and count == 2:
            continue
        if codec.startswith(b"\x7fFLAC"):
            if count > 1 and packet[:1] != b"\xff":  # metadata blocks; sound frames begin with their sync code
                continue
            if count == 1:
                packet = packet[:7] + packet[9:]  # the number of metadata packets that follow
        yield struct.pack("<II", number, len(packet))
        yield packet
    yield struct.pack("<q", last)


# --- MP4, QuickTime, 3GP ----------------------------------------------------------------------------------------------


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start of the content, end) of the boxes between `start` and `end`."""
    position, parts = start, 0
    while position + 8 <= end:
        _few(parts := parts + 1)
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
    position, held = 0, set[bytes]()
    while position + 8 <= len(data) and {b"moov", b"mdat"} - held:
        size, name = struct.unpack_from(">I4s", data, position)
        held.add(name)
        if size == 1:
            size = struct.unpack_from(">Q", data, position + 8)[0]
        if size < 8 or position + size > len(data):
            return len(data)
        position += size
    while position + 8 <= len(data):
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


def _box(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    for wanted in path:
        for name, body, after in _boxes(data, start, end):
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


@dataclass(frozen=True)
class _Track:
    handler: bytes
    codec: bytes
    timescale: int
    duration: int  # in timescale units
    table: tuple[int, int]  # the stbl box
    edits: bytes
    shown: bytes  # whether the track is played, and of pictures the matrix that turns them


def _mp4_tracks(data: bytes, moov: tuple[int, int]) -> list[_Track]:
    tracks: list[_Track] = []
    for name, start, end in _boxes(data, *moov):
        if name != b"trak":
            continue
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
        edits = _box(data, start, end, b"edts", b"elst")
        head = _box(data, start, end, b"tkhd")
        if len(tracks) == _MOST_STREAMS:
            raise MediaError("bomb", f"the MP4 file holds more than {_MOST_STREAMS:,} tracks")
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


def _mp4(data: bytes) -> Container:
    boxes: dict[bytes, tuple[int, int]] = {}  # the first of each type
    last = _mp4_end(data)
    for name, body, end in _boxes(data, 0, last):
        boxes.setdefault(name, (body, end))
    cut = b"moof" in boxes and data[last + 4 : last + 8] in _TOP_LEVEL
    note = _CUT_OFF if cut else None
    brands = ftyp_brands(data) if data[4:8] == b"ftyp" else frozenset({b"qt  "})
    moov = boxes.get(b"moov")
    if moov is None:
        raise MediaError("truncated", "the MP4 file has no index (moov)")
    tracks = _mp4_tracks(data, moov)
    for track in tracks:
        _refuse_index(data, track)
    video = [track for track in tracks if track.handler == b"vide" and not _is_cover(data, track)]
    sound = [track for track in tracks if track.handler == b"soun"]
    if b"moof" in boxes:
        _refuse_fragments(data)
    if not video and not sound:
        raise MediaError("unsupported", "the MP4 file holds neither sound nor video")
    main = (video or sound)[0]
    duration = main.duration / main.timescale if main.timescale and main.duration else None
    essence = _mp4_essence(data, [*video, *sound], b"moof" in boxes)
    if b"mdat" not in boxes:
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
    counted = sum(
        struct.unpack_from(">I", data, times[0] + 8 + 8 * run)[0] for run in range(min(runs, _MOST_PARTS)) if times
    )
    if max(samples, counted) > len(data):
        raise MediaError("bomb", f"the MP4 file claims {max(samples, counted):,} samples in {len(data):,} bytes")


def _refuse_fragments(data: bytes) -> None:
    """Refuse fragments that claim more samples than the file has bytes (ISO/IEC 14496-12, 8.8.8)."""
    claimed = parts = 0
    for name, start, end in _boxes(data, 0, _mp4_end(data)):
        if name != b"moof":
            continue
        for inner, body, after in _boxes(data, start, end):
            for run, at, _ in _boxes(data, body, after) if inner == b"traf" else ():
                _few(parts := parts + 1)
                if run == b"trun":
                    claimed += struct.unpack_from(">I", data, at + 4)[0]
    if claimed > len(data):
        raise MediaError("bomb", f"the MP4 file's fragments claim {claimed:,} samples in {len(data):,} bytes")


def _mp4_essence(data: bytes, tracks: list[_Track], fragmented: bool) -> Callable[[], Chunks] | None:
    """Return what yields each track's configuration and samples, wherever they lie; None if that is unclear."""
    if fragmented:
        return None
    chunks: list[bytes | memoryview] = []
    view = memoryview(data)
    total = 0
    for track in tracks:
        configuration = _mp4_configuration(data, track)
        spans = _mp4_spans(data, track.table, len(data) - total)
        if spans is None:
            return None
        total += sum(end - start for start, end in spans)
        sizes = _mp4_sample_sizes(data, track.table)
        parts = configuration, track.edits, track.shown, sizes
        lengths = (*map(len, parts), sum(end - start for start, end in spans))
        chunks.append(struct.pack("<4s4sIIIIIQ", track.handler, track.codec, track.timescale, *lengths))
        chunks += parts
        chunks += [view[start:end] for start, end in spans]
    return lambda: chunks


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


def _mp4_spans(data: bytes, table: tuple[int, int], budget: int) -> list[tuple[int, int]] | None:
    """Return the (start, end) of each chunk of samples; None if the index is odd or spans more than `budget` bytes."""
    sizes, runs = _box(data, *table, b"stsz"), _box(data, *table, b"stsc")
    narrow, wide = _box(data, *table, b"stco"), _box(data, *table, b"co64")
    offsets_box = narrow or wide
    if not sizes or not runs or not offsets_box:
        return None
    constant, samples = struct.unpack_from(">II", data, sizes[0] + 4)
    chunk_count = struct.unpack_from(">I", data, offsets_box[0] + 4)[0]
    run_count = struct.unpack_from(">I", data, runs[0] + 4)[0]
    width, code = (4, "I") if narrow else (8, "Q")
    if max(chunk_count, 0 if constant else samples) > _MOST_PARTS:
        return None
    if 8 + chunk_count * width > offsets_box[1] - offsets_box[0] or 8 + run_count * 12 > runs[1] - runs[0]:
        return None
    if not constant and 12 + samples * 4 > sizes[1] - sizes[0]:
        return None
    offsets = struct.unpack_from(f">{chunk_count}{code}", data, offsets_box[0] + 8)
    lengths = () if constant else struct.unpack_from(f">{samples}I", data, sizes[0] + 12)
    table_runs = list(struct.iter_unpack(">III", data[runs[0] + 8 : runs[0] + 8 + run_count * 12]))
    spans: list[tuple[int, int]] = []
    sample = run = 0
    for chunk, offset in enumerate(offsets, 1):
        while run + 1 < len(table_runs) and table_runs[run + 1][0] <= chunk:
            run += 1
        count = min(table_runs[run][1], samples - sample) if table_runs else 0
        length = constant * count if constant else sum(lengths[sample : sample + count])
        budget -= length
        if budget < 0 or offset + length > len(data):
            return None
        begin = spans.pop()[0] if spans and spans[-1][1] == offset else offset
        spans.append((begin, offset + length))
        sample += count
    return spans if spans and sample == samples else None


# --- Matroska, WebM ---------------------------------------------------------------------------------------------------

_MASTERS = frozenset({0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0xA0})
_SEGMENT, _CLUSTER, _TRACK_ENTRY = 0x18538067, 0x1F43B675, 0xAE
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
        _few(parts := parts + 1)
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
        if identity == _SEGMENT:
            live, ends = unknown, None if unknown else end
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


def _matroska(data: bytes) -> Container:
    doc_type, types, scale, ticks, blocks = b"", set(), 1_000_000, None, 0
    cut: list[int] = []
    for identity, start, end in _elements(data, cut):
        if identity == _DOC_TYPE:
            doc_type = data[start:end].rstrip(b"\0")
        elif identity == _TRACK_TYPE:
            types.add(int.from_bytes(data[start:end], "big"))
        elif identity == _TIMESTAMP_SCALE:
            scale = int.from_bytes(data[start:end], "big")
        elif identity == _DURATION and end - start in (4, 8):
            ticks = struct.unpack(">f" if end - start == 4 else ">d", data[start:end])[0]
        elif identity in (_SIMPLE_BLOCK, _BLOCK):
            blocks += 1
    if not types & {1, 2}:
        raise MediaError("broken", "the Matroska or WebM file holds neither sound nor video")
    if not blocks:
        raise MediaError("truncated", "the Matroska or WebM file ends before its sound or pictures")
    kind: Literal["audio", "video"] = "video" if 1 in types else "audio"
    name = "webm" if doc_type == b"webm" else "mkv"
    media_type = f"{kind}/webm" if name == "webm" else f"{kind}/x-matroska"
    duration = ticks * scale / 1e9 if ticks is not None and 0 < ticks * scale < 1e18 else None
    note = _CUT_OFF if cut else None
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


# --- The rest ---------------------------------------------------------------------------------------------------------

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")


def _asf(data: bytes) -> Container:
    view = memoryview(data)
    header_end = struct.unpack_from("<Q", data, 16)[0]
    if header_end > len(data):
        raise MediaError("truncated", "the ASF file ends inside its header")
    streams: list[memoryview] = []
    types, duration, position = set(), None, 30
    parts = 0
    while position + 24 <= header_end:
        _few(parts := parts + 1)
        size = struct.unpack_from("<Q", data, position + 16)[0]
        if size < 24:
            raise MediaError("broken", "the ASF file has an object of impossible size")
        if data[position : position + 16] == _ASF_STREAM:
            types.add(data[position + 24 : position + 40])
            streams.append(view[position + 24 : position + size])
        elif data[position : position + 16] == _ASF_FILE:
            ticks, _, preroll = struct.unpack_from("<QQQ", data, position + 64)
            duration = max(ticks / 1e7 - preroll / 1e3, 0) or None
        position += size
    if data[header_end : header_end + 16] != _ASF_DATA:
        raise MediaError("truncated", "the ASF file ends before its sound or pictures")
    size = struct.unpack_from("<Q", data, header_end + 16)[0]
    if header_end + size > len(data):
        raise MediaError("truncated", "the ASF file ends inside its sound or pictures")
    essence = _chunks(struct.pack("<I", sum(map(len, streams))), *streams, view[header_end + 40 : header_end + size])
    if _ASF_VIDEO in types:
        return Container("video", "video/x-ms-wmv", "wmv", duration, essence)
    if _ASF_AUDIO in types:
        return Container("audio", "audio/x-ms-wma", "wma", duration, essence)
    raise MediaError("unsupported", "the ASF file holds neither sound nor video")


_LEAST_SOUND = 8  # bytes of an SSND chunk before its samples; so much tells who could not come back to tell more


def _aiff_chunks(data: bytes) -> dict[bytes, tuple[int, int, int]]:
    """Return the start and end of the common and the sound chunk, and the length each tells."""
    chunks: dict[bytes, tuple[int, int, int]] = {}
    position, parts = 12, 0
    while position + 8 <= len(data) and len(chunks) < 2:  # they may stand in any order
        _few(parts := parts + 1)
        name, size = struct.unpack_from(">4sI", data, position)
        body = position + 8
        if name in (b"COMM", b"SSND") and name not in chunks:
            unknown = name == b"SSND" and size <= _LEAST_SOUND
            chunks[name] = body, len(data) if unknown else min(body + size, len(data)), size
        position = body + size + size % 2
    return chunks


def _told_aiff(data: bytes) -> bytes:
    chunks = _aiff_chunks(data)
    common, sound = chunks.get(b"COMM"), chunks.get(b"SSND")
    if common is None or sound is None or sound[1] - sound[0] == sound[2]:
        return data
    start, length = sound[0], sound[1] - sound[0]
    width = _aiff_frame_bytes(data, common[0])
    frames = (length - _LEAST_SOUND) // width if width else struct.unpack_from(">I", data, common[0] + 2)[0]
    out = bytearray(data)
    out[4:8] = struct.pack(">I", len(data) - 8)
    out[start - 4 : start] = struct.pack(">I", length)
    out[common[0] + 2 : common[0] + 6] = struct.pack(">I", frames)
    return bytes(out)


def _aiff_frame_bytes(data: bytes, common: int) -> int | None:
    """Return the bytes of one sample of all channels, None where the sound is packed."""
    channels, bits = struct.unpack_from(">H4xH", data, common)
    plain = data[8:12] == b"AIFF" or data[common + 18 : common + 22] in (b"NONE", b"sowt", b"twos")
    return channels * ((bits + 7) // 8) if plain else None


def _aiff(data: bytes) -> Container:
    chunks = _aiff_chunks(data)
    if len(chunks) < 2:
        raise MediaError("truncated", "the AIFF file ends before its samples")
    view, (common, common_end, _), (start, end, stated) = memoryview(data), chunks[b"COMM"], chunks[b"SSND"]
    if end - start <= _LEAST_SOUND:
        raise MediaError("truncated", "the AIFF file ends before its samples")
    frames, _, exponent, mantissa = struct.unpack_from(">IHHQ", data, common + 2)
    rate = mantissa * 2.0 ** (max(min((exponent & 0x7FFF) - 16383, 64), -64) - 63)
    note = None
    if end - start != stated:
        width = _aiff_frame_bytes(data, common)
        frames = (end - start - _LEAST_SOUND) // width if width else 0
        note = _heard(stated, end - start) if _LEAST_SOUND < stated < _STREAMED else None
    essence = _chunks(struct.pack("<I", common_end - common), view[common:common_end], view[start:end])
    return Container("audio", "audio/aiff", "aiff", frames / rate if rate and frames else None, essence, note)


_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def _amr(data: bytes) -> Container:
    wide = data.startswith(b"#!AMR-WB\n")
    position, table, frames = (9, _AMR_WB_BYTES, 0) if wide else (6, _AMR_BYTES, 0)
    while position < len(data):
        _few(frames)
        position += table[data[position] >> 3 & 15]
        frames += 1
    if not frames or position > len(data) + 32:
        raise MediaError("truncated", "the AMR file holds no whole frame")
    return Container("audio", "audio/amr-wb" if wide else "audio/amr", "amr", frames * 0.02)  # 20 ms a frame (RFC 4867)


def _basic_end(data: bytes) -> int:
    """Return where an AU file's samples end: where it tells a length that cannot be, at the end of the file."""
    offset, size = struct.unpack_from(">II", data, 4)
    return offset + size if 0 < size <= len(data) - offset else len(data)


def _basic(data: bytes) -> Container:
    offset, size, encoding, rate, channels = struct.unpack_from(">5I", data, 4)
    view = memoryview(data)
    end = _basic_end(data)
    if offset < 24 or not 0 < rate < 1_000_000 or not 0 < channels < 256:
        raise MediaError("broken", "the AU file's header makes no sense")
    if offset >= end:
        raise MediaError("truncated", "the AU file ends before its samples")
    bytes_per_sample = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding)
    duration = (end - offset) / (rate * channels * bytes_per_sample) if bytes_per_sample else None
    essence = _chunks(struct.pack("<III", encoding, rate, channels), view[offset:end])
    note = _heard(size, end - offset) if end - offset < size < _STREAMED else None
    return Container("audio", "audio/basic", "au", duration, essence, note)


def _core_audio(data: bytes) -> Container:
    return Container("audio", "audio/x-caf", "caf")


def _mpeg_video(data: bytes) -> Container:
    return Container("video", "video/mpeg", "mpg")


_TS_VIDEO = frozenset({0x01, 0x02, 0x10, 0x1B, 0x1E, 0x20, 0x21, 0x24, 0x33, 0x42, 0xD1, 0xD2, 0xEA})
_TS_SOUND = frozenset({0x03, 0x04, 0x0F, 0x11, 0x1C, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0xA1})
"""Types of elementary streams (ISO/IEC 13818-1, table 2-34; ATSC A/53 for the private ones)."""
_TS_PACKETS = 20_000
"""How many packets are searched for the tables: they are sent ten times a second."""


_TS_ALIKE = 5


def _ts_layout(data: bytes) -> tuple[int, int] | None:
    """Return where the packets of a transport stream begin and how far apart they are; None if it is none.

    Cameras (AVCHD) and Blu-ray put four bytes before each packet, broadcasters 16 behind; what was cut out of a
    stream begins anywhere in a packet, and is believed only if it also names its streams.
    """
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return 0, 188
    head = data[: 204 * (_TS_ALIKE + 1)]
    for stride in (192, 188, 204):
        for start in range(min(stride, len(head) - stride * (_TS_ALIKE - 1))):
            if head[start : start + stride * _TS_ALIKE : stride] == b"\x47" * _TS_ALIKE:
                return (start, stride) if _ts_types(data, start, stride) else None
    return None


def _transport_stream(data: bytes) -> Container:
    layout = _ts_layout(data)
    assert layout is not None
    types = _ts_types(data, *layout)
    if types & _TS_SOUND and not types & _TS_VIDEO:
        return Container("audio", "audio/mp2t", "ts")
    return Container("video", "video/mp2t", "ts")


def _ts_types(data: bytes, begin: int, stride: int) -> set[int]:
    """Return the types of the streams that a transport stream's program maps name."""
    maps: set[int] = set()
    types: set[int] = set()
    for position in range(begin, min(len(data) - 187, begin + stride * _TS_PACKETS), stride):
        packet = data[position : position + 188]
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if packet[0] != 0x47 or not packet[1] & 0x40 or (pid != 0 and pid not in maps):
            continue
        at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        at += 1 + packet[at] if at < 188 else 0  # the pointer to the table
        if at + 12 > 188:
            continue
        end = min(at + 3 + ((packet[at + 1] & 0x0F) << 8 | packet[at + 2]) - 4, 188)
        if pid == 0 and packet[at] == 0x00:
            maps |= {(packet[i + 2] & 0x1F) << 8 | packet[i + 3] for i in range(at + 8, end - 3, 4)}
        elif packet[at] == 0x02:
            entry = at + 12 + ((packet[at + 10] & 0x0F) << 8 | packet[at + 11])
            while entry + 5 <= end:
                types.add(packet[entry])
                entry += 5 + ((packet[entry + 3] & 0x0F) << 8 | packet[entry + 4])
    return types


def _plain(kind: Literal["audio", "video"], media_type: str, name: str) -> Callable[[bytes], Container]:
    """Return the reader of a format that is not taken apart here: decoding tells how long it plays."""
    return lambda data: Container(kind, media_type, name)


def _real_media(data: bytes) -> Container:
    if b"video/x-pn-realvideo" in data[:65_536]:
        return Container("video", "video/vnd.rn-realvideo", "rm")
    return Container("audio", "audio/vnd.rn-realaudio", "rm")


def _flash(data: bytes) -> Container:
    if data[4] & 1:
        return Container("video", "video/x-flv", "flv")
    return Container("audio", "audio/x-flv", "flv")


_STARTS = (b"\0\0\0\1", b"\0\0\1")
_PLAIN_SOUND = (
    (b"wvpk", "audio/x-wavpack", "wv"),
    (b"\x0b\x77", "audio/ac3", "ac3"),
    (b"\x77\x0b", "audio/ac3", "ac3"),
    (b"TTA1", "audio/x-tta", "tta"),
    (b"TTA2", "audio/x-tta", "tta"),
    (b"MAC ", "audio/x-ape", "ape"),
    (b"MPCK", "audio/x-musepack", "mpc"),
    (b"MP+", "audio/x-musepack", "mpc"),
    (b"\x7f\xfe\x80\x01", "audio/vnd.dts", "dts"),
    (b"\xfe\x7f\x01\x80", "audio/vnd.dts", "dts"),
    (b"\x1f\xff\xe8\x00", "audio/vnd.dts", "dts"),
    (b"\xff\x1f\x00\xe8", "audio/vnd.dts", "dts"),
    (b"DTSHDHDR", "audio/vnd.dts.hd", "dts"),
    (b"DSD ", "audio/x-dsf", "dsf"),
    (b"Creative Voice File\x1a"[:16], "audio/x-voc", "voc"),
)
_PLAIN_VIDEO = (
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "video/mxf", "mxf"),
    (b"\x1f\x07\x00", "video/x-dv", "dv"),
    (b"DKIF\0\0", "video/x-ivf", "ivf"),
    # What surveillance cameras save: H.264 and H.265 in no container, from a parameter set or a delimiter on.
    *((start + unit, "video/h264", "h264") for start in _STARTS for unit in (b"\x67", b"\x27", b"\x47", b"\x09")),
    *((start + unit, "video/h265", "h265") for start in _STARTS for unit in (b"\x40\x01", b"\x42\x01", b"\x46\x01")),
)

_SIGNATURES: tuple[tuple[bytes, Callable[[bytes], Container | None]], ...] = (
    (b"OggS", _ogg),
    (b"\x1a\x45\xdf\xa3", _matroska),
    (_ASF_HEADER, _asf),
    (b"#!AMR", _amr),
    (b".snd", _basic),
    (b"caff", _core_audio),
    (b"\0\0\1\xba", _mpeg_video),
    (b"\0\0\1\xb3", _mpeg_video),
    (b"FLV\1", _flash),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", _w64),
    (b".RMF", _real_media),
    *((head, _plain("audio", media_type, name)) for head, media_type, name in _PLAIN_SOUND),
    *((head, _plain("video", media_type, name)) for head, media_type, name in _PLAIN_VIDEO),
)
