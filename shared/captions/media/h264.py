"""How many pictures an H.264 stream has its decoder keep, from its sequence parameter set (ITU-T H.264, 7.3.2.1.1)."""

from __future__ import annotations

_WITH_CHROMA = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""Profiles whose parameter set tells of chroma, depth and scaling lists first."""


def reference_frames(extradata: bytes) -> int | None:
    """Return max_num_ref_frames of the first parameter set in a decoder's extradata; None if there is none to be read.

    `extradata` is an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1) or begins with start codes.
    """
    if extradata[:1] == b"\1" and len(extradata) > 8:
        size = int.from_bytes(extradata[6:8], "big")
        unit = extradata[8 : 8 + size]
    else:
        start = next((at for at in _starts(extradata) if extradata[at] & 0x1F == 7), None)
        if start is None:
            return None
        unit = extradata[start : start + 256]
    try:
        return _frames(_Bits(unit[1:].replace(b"\0\0\3", b"\0\0")))
    except IndexError:
        return None


def _starts(data: bytes) -> list[int]:
    found, at = [], data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        found.append(at + 3)
        at = data.find(b"\0\0\1", at + 3)
    return found


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


def _frames(bits: _Bits) -> int:
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
