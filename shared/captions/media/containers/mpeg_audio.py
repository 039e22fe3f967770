"""MPEG audio (ISO/IEC 11172-3, 13818-3), ADTS (14496-3) and FLAC (RFC 9639): frames among tags (ID3v2.4, APEv2)."""

import struct
from typing import NamedTuple

from captions.media.containers.container import MOST_PARTS, MOST_TAGS, Container, check_parts, essence_of
from captions.media.errors import MediaError

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
_STREAM_LIMIT = 65_536  # bytes searched for the first whole frame where no tag says that this is sound
_CLOSE = 4_096  # bytes from the beginning in which frames may be alike, as those of silence are
_JUNK_LIMIT = 65_536  # bytes between a wrong ID3 size and the first frame that are searched


class _Frame(NamedTuple):
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


def id3v2_end(data: bytes, position: int) -> int:
    """Return where the ID3v2 tags that start at `position` end (`position` itself if there is none)."""
    for _ in range(MOST_TAGS):
        if data[position : position + 3] != b"ID3" or position + 10 > len(data):
            break
        position += 10 + _synchsafe(data[position + 6 : position + 10]) + (10 if data[position + 5] & 0x10 else 0)
    return min(position, len(data))


def _tags_start(data: bytes, begin: int) -> int:
    """Return where the ID3v1, Lyrics3, APE and ID3v2.4 tags at the end of `data` begin.

    A tag whose beginning does not bear its size out is taken for sound: players play it.
    """
    end = len(data)
    for _ in range(MOST_TAGS):
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
    for _ in range(min(count, MOST_PARTS)):
        if position + 8 > end:
            return False
        zero = data.find(b"\0", position + 8, min(position + 8 + 256, end))
        if zero < 0:
            return False
        position = zero + 1 + int(struct.unpack_from("<I", data, position)[0])
    return position == end


def framed_audio(data: bytes) -> Container | None:
    """Read MPEG audio, ADTS or FLAC behind whatever tags there are; None where there is none."""
    begin = id3v2_end(data, 0)
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
    essence = essence_of(memoryview(data)[first:end])
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
    they would be in a flat picture that happens to hold the right bytes; farther within, all of them must differ.
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
        if len(frames) == 5 and len({content for _, content in frames}) >= (2 if position < _CLOSE else 5):
            return position
        position += 1
    return None


def _walk(data: bytes, position: int, end: int) -> tuple[int, bool]:
    """Count the frames from `position` on; also tell whether the last one is cut."""
    frames = lost = 0
    while position < end:
        check_parts(frames + 10 * lost)  # looking for the next frame takes longer than finding it in its place
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
        check_parts(blocks := blocks + 1)
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
    essence = essence_of(info, memoryview(data)[position:end])
    duration = samples / rate if rate and samples else None
    return Container("audio", "audio/flac", "flac", duration, essence)
