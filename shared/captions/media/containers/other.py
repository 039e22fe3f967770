"""ASF (specification 01.20.03), AIFF-C (Apple 1991), AMR (RFC 4867), AU, MPEG streams (ISO/IEC 13818-1), and others."""

import re
import struct

from captions.media.containers.container import STREAMED, Container, check_parts, essence_of, goes_on, partly_there
from captions.media.errors import MediaError

ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER = 50  # bytes of a data object without a packet (ASF specification, section 5.1)
_ASF_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_ASF_ENCRYPTED = frozenset(
    {bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"), bytes.fromhex("14e68a292226174cb935dae07ee9289c")}
)
"""The content encryption object and the extended one (ASF specification, sections 3.14 and 3.15)."""


def asf(data: bytes) -> Container:
    """Read a Windows Media file."""
    view = memoryview(data)
    header_end = struct.unpack_from("<Q", data, 16)[0]
    if header_end > len(data):
        raise MediaError("truncated", "the ASF file ends inside its header")
    streams: list[memoryview] = []
    types, duration, position = set(), None, 30
    parts = 0
    while position + 24 <= header_end:
        check_parts(parts := parts + 1)
        size = struct.unpack_from("<Q", data, position + 16)[0]
        if size < 24:
            raise MediaError("broken", "the ASF file has an object of impossible size")
        if data[position : position + 16] == _ASF_STREAM:
            types.add(data[position + 24 : position + 40])
            streams.append(view[position + 24 : position + size])
        elif data[position : position + 16] == _ASF_FILE:
            ticks, _, preroll = struct.unpack_from("<QQQ", data, position + 64)
            duration = max(ticks / 1e7 - preroll / 1e3, 0) or None
        elif data[position : position + 16] in _ASF_ENCRYPTED:
            raise MediaError("unsupported", "the recording is encrypted (DRM)")
        position += size
    if data[header_end : header_end + 16] != _ASF_DATA:
        raise MediaError("truncated", "the ASF file ends before its sound or pictures")
    size = struct.unpack_from("<Q", data, header_end + 16)[0]
    if size <= _ASF_DATA_HEADER:
        size = len(data) - header_end  # who streams cannot come back to tell it
    if header_end + size > len(data):
        raise MediaError("truncated", "the ASF file ends inside its sound or pictures")
    if size <= _ASF_DATA_HEADER:
        raise MediaError("truncated", "the ASF file ends before its sound or pictures")
    essence = essence_of(struct.pack("<I", sum(map(len, streams))), *streams, view[header_end + 40 : header_end + size])
    if _ASF_VIDEO in types:
        return Container("video", "video/x-ms-wmv", "wmv", duration, essence)
    if _ASF_AUDIO in types:
        return Container("audio", "audio/x-ms-wma", "wma", duration, essence)
    raise MediaError("unsupported", "the ASF file holds neither sound nor video")


_LEAST_SOUND = 8  # bytes of an SSND chunk before its samples; so much tells who could not come back to tell more


def _aiff_essence_of(data: bytes) -> dict[bytes, tuple[int, int, int]]:
    """Return the start and end of the common and the sound chunk, and the length each tells."""
    chunks: dict[bytes, tuple[int, int, int]] = {}
    position, parts = 12, 0
    while position + 8 <= len(data) and len(chunks) < 2:  # they may stand in any order
        check_parts(parts := parts + 1)
        name, size = struct.unpack_from(">4sI", data, position)
        body = position + 8
        if name in (b"COMM", b"SSND") and name not in chunks:
            unknown = name == b"SSND" and (size <= _LEAST_SOUND or goes_on(data, body + size + size % 2, size, ">"))
            chunks[name] = body, len(data) if unknown else min(body + size, len(data)), size
        position = body + size + size % 2
    return chunks


def lengths_of_aiff(data: bytes) -> bytes:
    """Return an AIFF file whose header states the lengths that are there."""
    chunks = _aiff_essence_of(data)
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


def aiff(data: bytes) -> Container:
    """Read an AIFF file."""
    chunks = _aiff_essence_of(data)
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
        note = partly_there(stated, end - start) if _LEAST_SOUND < stated < STREAMED else None
    essence = essence_of(struct.pack("<I", common_end - common), view[common:common_end], view[start:end])
    return Container("audio", "audio/aiff", "aiff", frames / rate if rate and frames else None, essence, note)


_AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def amr(data: bytes) -> Container:
    """Read an AMR file, narrow or wide."""
    wide = data.startswith(b"#!AMR-WB\n")
    position, table, frames = (9, _AMR_WB_BYTES, 0) if wide else (6, _AMR_BYTES, 0)
    while position < len(data):
        check_parts(frames)
        position += table[data[position] >> 3 & 15]
        frames += 1
    if not frames or position > len(data) + 32:
        raise MediaError("truncated", "the AMR file holds no whole frame")
    return Container("audio", "audio/amr-wb" if wide else "audio/amr", "amr", frames * 0.02)  # 20 ms a frame (RFC 4867)


def basic_end(data: bytes) -> int:
    """Return where an AU file's samples end: where it tells a length that cannot be, at the end of the file."""
    offset, size = struct.unpack_from(">II", data, 4)
    there = 0 < size <= len(data) - offset and not goes_on(data, offset + size, size, None)
    return offset + size if there else len(data)


def basic(data: bytes) -> Container:
    """Read an AU file."""
    offset, size, encoding, rate, channels = struct.unpack_from(">5I", data, 4)
    view = memoryview(data)
    end = basic_end(data)
    if offset < 24 or not 0 < rate < 1_000_000 or not 0 < channels < 256:
        raise MediaError("broken", "the AU file's header makes no sense")
    if offset >= end:
        raise MediaError("truncated", "the AU file ends before its samples")
    bytes_per_sample = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding)
    duration = (end - offset) / (rate * channels * bytes_per_sample) if bytes_per_sample else None
    essence = essence_of(struct.pack("<III", encoding, rate, channels), view[offset:end])
    note = partly_there(size, end - offset) if 0 < size < STREAMED and size != end - offset else None
    return Container("audio", "audio/basic", "au", duration, essence, note)


def core_audio(data: bytes) -> Container:
    """Tell a Core Audio file."""
    return Container("audio", "audio/x-caf", "caf")


_PES = re.compile(rb"\x00\x00\x01([\xb3\xbc-\xff])")
_PES_VIDEO = frozenset({0xB3, *range(0xE0, 0xF0), 0xFD})
_PES_SOUND = frozenset({0xBD, *range(0xC0, 0xE0)})
"""Elementary streams (ISO/IEC 13818-1, table 2-22), and the sequence header of video; AC-3 and DTS are private ones."""
_PES_BYTES = 4_000_000


def mpeg_video(data: bytes) -> Container:
    """Tell MPEG program streams that hold sound alone from others."""
    types, position = set[int](), 0
    while (match := _PES.search(data, position, _PES_BYTES)) and not types & _PES_VIDEO:
        types.add(match[1][0])
        length = int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + (2 + length if match[1][0] >= 0xBC else 0)
    if types & _PES_SOUND and not types & _PES_VIDEO:
        return Container("audio", "audio/mp2p", "mpg")
    return Container("video", "video/mpeg", "mpg")


_TS_VIDEO = frozenset({0x01, 0x02, 0x10, 0x1B, 0x1E, 0x20, 0x21, 0x24, 0x33, 0x42, 0xD1, 0xD2, 0xEA})
_TS_SOUND = frozenset({0x03, 0x04, 0x0F, 0x11, 0x1C, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0xA1})
"""Types of elementary streams (ISO/IEC 13818-1, table 2-34; ATSC A/53 for the private ones)."""
_TS_PRIVATE_SOUND = re.compile(
    rb"[\x6a\x7a\x7b\x7c][\x01-\x40]|\x05[\x04-\x20](?:Opus|AC-3|EAC3|DTS[123]|BSSD)", re.DOTALL
)
"""Descriptors by which private data are sound: AC-3, E-AC-3, DTS, AAC (ETSI EN 300 468, table 12), registrations."""
_TS_PACKETS = 20_000
"""How many packets are searched for the tables: they are sent ten times a second."""


_TS_ALIKE = 5
_TS_JUNK = 4_096
"""Bytes in which the first packet is searched, as decoders do."""


def ts_layout(data: bytes) -> tuple[int, int] | None:
    """Return where the packets of a transport stream begin and how far apart they are; None if it is none.

    Cameras (AVCHD) and Blu-ray put four bytes before each packet, broadcasters 16 behind; what was cut out of a
    stream begins anywhere in a packet, and is believed only if it also names its streams.
    """
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return 0, 188
    start = -1
    while (start := data.find(b"\x47", start + 1, _TS_JUNK)) >= 0:
        for stride in (192, 188, 204):
            if data[start : start + stride * _TS_ALIKE : stride] == b"\x47" * _TS_ALIKE:
                return (start, stride) if _ts_types(data, start, stride) else None
    return None


def transport_stream(data: bytes) -> Container:
    """Tell MPEG transport streams that carry sound alone from others."""
    layout = ts_layout(data)
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
                after = entry + 5 + ((packet[entry + 3] & 0x0F) << 8 | packet[entry + 4])
                private = packet[entry] == 0x06 and _TS_PRIVATE_SOUND.search(packet, entry + 5, min(after, end))
                types.add(0x81 if private else packet[entry])
                entry = after
    return types


def real_media(data: bytes) -> Container:
    """Tell RealMedia files that hold sound alone from others."""
    if b"video/x-pn-realvideo" in data[:65_536]:
        return Container("video", "video/vnd.rn-realvideo", "rm")
    return Container("audio", "audio/vnd.rn-realaudio", "rm")


def flash(data: bytes) -> Container:
    """Tell Flash files that hold sound alone from others: by their tags, as servers claim both in every header."""
    types, position, parts = set[int](), int.from_bytes(data[5:9], "big") + 4, 0
    while position + 11 <= len(data) and not types & {_FLV_VIDEO}:
        check_parts(parts := parts + 1)
        types.add(data[position] & 0x1F)
        position += 15 + int.from_bytes(data[position + 1 : position + 4], "big")
    if _FLV_VIDEO in types or (_FLV_SOUND not in types and data[4] & 1):
        return Container("video", "video/x-flv", "flv")
    return Container("audio", "audio/x-flv", "flv")


_FLV_SOUND, _FLV_VIDEO = 8, 9
"""Types of tags (Adobe Flash Video File Format Specification 10.1, annex E.4.1)."""
