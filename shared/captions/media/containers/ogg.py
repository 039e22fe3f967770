"""Ogg (RFC 3533) with Vorbis, Opus (RFC 7845), Speex, FLAC and Theora."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from captions.media.containers.container import MOST_STREAMS, Chunks, Container, check_parts
from captions.media.errors import MediaError


def _ogg_packets(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (stream serial, packet, granule position of the page it ends on)."""
    parts: dict[int, list[bytes]] = {}
    position = packets = pages = 0
    while position < len(data):
        check_parts(packets + (pages := pages + 1))
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
        if len(parts) > MOST_STREAMS:
            raise MediaError("bomb", f"the Ogg file holds more than {MOST_STREAMS:,} streams")
        for length in lacing:
            open_parts.append(data[body : body + length])
            body += length
            if length < 255:
                packets += 1
                yield serial, b"".join(open_parts), granule
                open_parts.clear()
        position = body


@dataclass
class _Sound:
    """A stream of sound: its timing, its packets until now, and its last granule position."""

    serial: int
    timing: tuple[str, int, int, int]
    packets: int = 0
    last: int = 0

    @property
    def begun(self) -> bool:
        return self.packets > self.timing[3]

    @property
    def seconds(self) -> float:
        _, rate, skip, _ = self.timing
        return max(self.last - skip, 0) / rate if rate else 0.0


def read(data: bytes) -> Container:
    """Read an Ogg file."""
    heads: dict[int, bytes] = {}
    sounds: list[_Sound] = []  # one behind another; of those side by side the first
    for serial, packet, granule in _ogg_packets(data):
        heads.setdefault(serial, packet[:64])
        timing = _ogg_timing(packet[:64])
        if timing is not None and (not sounds or sounds[-1].begun):
            sounds.append(_Sound(serial, timing))
        if sounds and sounds[-1].serial == serial:
            sounds[-1].packets += 1
            sounds[-1].last = max(sounds[-1].last, granule)
    if any(head.startswith((b"\x80theora", b"BBCD\0", b"OVP80")) for head in heads.values()):
        return Container("video", "video/ogg", "ogg", essence=lambda: _ogg_essence(data))
    if not sounds:
        raise MediaError("unsupported", "the Ogg file holds no sound or video that is known")
    if not sounds[0].begun:
        raise MediaError("truncated", "the Ogg file ends before its sound")
    duration = sum(sound.seconds for sound in sounds) if sounds[0].timing[1] else None
    return Container("audio", "audio/ogg", sounds[0].timing[0], duration, lambda: _ogg_essence(data))


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
