"""How many pictures a video has its decoder keep, from its sequence parameter set.

ITU-T H.264, 7.3.2.1.1, and ITU-T H.265, 7.3.2.2.1. Their place in extradata: ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

SLOTS = {"vp8": 3, "vp9": 8, "av1": 8, "libdav1d": 8}
"""Decoders of formats that state no number of pictures: each has so many places, which may hold the same one."""
_WITH_CHROMA = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""Profiles of H.264 whose parameter set begins with chroma, depth and scaling lists."""
_H264_SET, _H265_SET = 7, 33
_MOST_ARRAYS = 64


def declared(codec: str, extradata: bytes) -> int | None:
    """Return the reference frames of a video in H.264 or H.265; None if there is no parameter set to be read.

    `extradata` is the decoder's configuration record or begins with start codes.
    """
    try:
        if codec == "h264":
            unit = next((unit for unit in _h264_units(extradata) if unit[0] & 0x1F == _H264_SET), None)
            return None if unit is None else _h264_frames(_bits(unit[1:]))
        if codec == "hevc":
            unit = next((unit for unit in _h265_units(extradata) if unit[0] >> 1 & 0x3F == _H265_SET), None)
            return None if unit is None else _h265_frames(_bits(unit[2:]))
    except IndexError:
        return None
    return None


def _h264_units(extradata: bytes) -> Iterator[bytes]:
    if extradata[:1] == b"\1" and len(extradata) > 8:
        yield extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")] or b"\0"
    else:
        yield from _between_start_codes(extradata)


def _h265_units(extradata: bytes) -> Iterator[bytes]:
    if extradata[:1] != b"\1":
        yield from _between_start_codes(extradata)
        return
    position = 23
    for _ in range(min(extradata[22], _MOST_ARRAYS)):
        count, position = int.from_bytes(extradata[position + 1 : position + 3], "big"), position + 3
        for _ in range(min(count, _MOST_ARRAYS)):
            size, position = int.from_bytes(extradata[position : position + 2], "big"), position + 2
            yield extradata[position : position + size] or b"\0"
            position += size


def _between_start_codes(extradata: bytes) -> Iterator[bytes]:
    return (extradata[at : at + 512] for at in _starts(extradata))


def _bits(unit: bytes) -> _Bits:
    return _Bits(unit.replace(b"\0\0\3", b"\0\0"))


def _starts(data: bytes) -> list[int]:
    units, at = [], data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        units.append(at + 3)
        at = data.find(b"\0\0\1", at + 3)
    return units


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        """Return an unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise IndexError("no number is that long")
        return (1 << zeros) - 1 + self.take(zeros)


def _h264_frames(bits: _Bits) -> int:
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    bits.golomb()  # its number
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for matrix in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling(bits, 16 if matrix < 6 else 64)
    bits.golomb()  # log2_max_frame_num
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    return bits.golomb()


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            number = bits.golomb()
            delta = (number + 1) // 2 if number % 2 else -(number // 2)
            following = (last + delta + 256) % 256
        last = following or last


def _h265_frames(bits: _Bits) -> int:
    bits.take(4)  # the video's parameter set
    layers = bits.take(3)
    bits.take(1)
    bits.take(96)  # profile, tier, level
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()  # its number
    if bits.golomb() == 3:  # chroma
        bits.take(1)
    bits.golomb()
    bits.golomb()
    if bits.take(1):
        for _ in range(4):
            bits.golomb()  # the part that is shown
    bits.golomb()
    bits.golomb()  # depths
    bits.golomb()  # log2_max_pic_order_cnt
    most = 0
    for _ in range(layers + 1 if bits.take(1) else 1):
        most = max(most, bits.golomb())  # sps_max_dec_pic_buffering_minus1: without the picture being decoded
        bits.golomb()
        bits.golomb()
    return most
