"""The 256-bit perceptual hash: bit for bit imagehash.phash(image, hash_size=16), without SciPy."""

import math

import numpy as np
import numpy.typing as npt
from numpy.fft import irfft
from PIL import Image

from captions.once import once

Float64s = npt.NDArray[np.float64]

RADIUS = 10  # bits of the 256 within which the band index finds every neighbour
BAND_BITS = (24, 24, 24, 23, 23, 23, 23, 23, 23, 23, 23)

_WHITE, _WHITE_SHARE = 250, 0.05  # of 255; of the picture's pixels
_BRIGHTER, _MOVED = 1.1, 4  # bits, less than which the hash alone reaches as far

_SIDE = 64  # imagehash.phash: hash_size 16 x highfreq_factor 4
_LOW = 16
_COARSE_BITS = 16
_COARSE = sorted(
    ((row, column) for row in range(_LOW) for column in range(_LOW) if row or column), key=lambda at: (sum(at), at)
)[:_COARSE_BITS]
"""Rows and columns of the lowest frequencies but the mean, in the order of their sum."""

# Framings that a crop of 1 % may undo, as shares of (left, top, right, bottom): all sides, one side, a corner, two
# opposite sides. Positive adds a margin (this is the crop), negative takes one away (this is the original).
_MARGIN = 0.01
_FRAMINGS = ("1111", "0011", "1100", "1001", "0110", "1000", "0100", "0010", "0001", "1010", "0101")


def perceptual_hash(image: Image.Image) -> bytes:
    """Return imagehash.phash(image, hash_size=16), bit for bit, as 32 bytes: row by row, most significant bit first.

    The DCT is computed the way SciPy's does (pocketfft: a real inverse FFT of the same length between two rotations),
    since symmetric pictures have coefficients that are zero but for rounding, and their bits are rounding's.
    """
    pixels = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _dct2(_dct2(pixels.T).T)[:_LOW, :_LOW]
    return np.packbits(low > np.median(low)).tobytes()


def brightened_hash(image: Image.Image) -> bytes | None:
    """Return the hash of the picture as it is a tenth brighter, 32 bytes; None where that leaves the hash as it is.

    Brightening clips a white ground and not what stands on it, which moves the hash out of the index's reach. A picture
    that is found by both hashes is found by its copies that are brighter, and by those that are darker.
    """
    luma = image.convert("L")
    if sum(luma.histogram()[_WHITE:]) < _WHITE_SHARE * luma.width * luma.height:
        return None
    curve = [min(255, round(value * _BRIGHTER)) for value in range(256)]
    brighter = perceptual_hash(image.point(curve * len(image.getbands())))  # each colour clips by itself
    return brighter if hamming(brighter, perceptual_hash(luma)) > _MOVED else None


def hamming(a: bytes, b: bytes) -> int:
    """Return in how many bits two hashes of one length differ."""
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def coarse(phash: bytes) -> str:
    """Return the bits of the lowest frequencies, which tell how a picture is laid out, as hexadecimal digits."""
    value = int.from_bytes(phash, "big")
    bits = [value >> (255 - (row * _LOW + column)) & 1 for row, column in _COARSE]
    return f"{int(''.join(map(str, bits)), 2):x}"


def bands(phash: bytes) -> tuple[str, ...]:
    """Return the 11 disjoint bands of a 256-bit hash, "<index>:<hex>": hashes within 10 bits share at least one."""
    value, left, out = int.from_bytes(phash, "big"), 256, []
    for index, width in enumerate(BAND_BITS):
        left -= width
        out.append(f"{index}:{value >> left & (1 << width) - 1:06x}")
    return tuple(out)


def reframed_hashes(luma: Image.Image) -> tuple[bytes, ...]:
    """Return the hashes of `luma` (mode L, square) with 1 % margins added and with 1 % margins cut off.

    What a crop took can only be guessed. Repeating the edge guesses it within the index's radius for 19 pictures of
    20; for the commonest crop, at all sides alike, its slope is carried on as a second guess.
    """
    side = luma.width
    pad = math.ceil(side * _MARGIN) + 4
    pixels = np.asarray(luma)
    repeated = Image.fromarray(np.pad(pixels, pad, mode="edge"))
    carried = np.pad(pixels.astype(np.int16), pad, mode="reflect", reflect_type="odd")
    sloped = Image.fromarray(np.clip(carried, 0, 255).astype(np.uint8))
    hashes = []
    for number, sides in enumerate(_FRAMINGS):
        for sign in (1, -1):
            left, top, right, bottom = (sign * _MARGIN * side * int(flag) for flag in sides)
            box = (pad - left, pad - top, pad + side + right, pad + side + bottom)
            hashes.append(_hash_of_part(repeated, box))
            if number == 0 and sign == 1:
                hashes.append(_hash_of_part(sloped, box))
    return tuple(dict.fromkeys(hashes))


def _hash_of_part(picture: Image.Image, box: tuple[float, float, float, float]) -> bytes:
    return perceptual_hash(picture.resize((2 * _SIDE, 2 * _SIDE), Image.Resampling.BICUBIC, box=box))


@once
def _twiddles() -> Float64s:
    """Return cos(pi/2 * i/64) for i = 1..63, rounded as pocketfft rounds it: each a product of two table entries."""
    n = 4 * _SIDE

    def point(x: int) -> complex:  # the point at x/n of the circle's first quarter, computed from the smaller angle
        angle = 0.25 * math.pi / n
        if 8 * x < n:
            return complex(math.cos(8 * x * angle), math.sin(8 * x * angle))
        return complex(math.sin((2 * n - 8 * x) * angle), math.cos((2 * n - 8 * x) * angle))

    fine, coarse = [point(x) for x in range(16)], [point(16 * x) for x in range(5)]
    return np.array(
        [fine[i % 16].real * coarse[i // 16].real - fine[i % 16].imag * coarse[i // 16].imag for i in range(1, _SIDE)]
    )


def _dct2(rows: Float64s) -> Float64s:
    """Return the unnormalised DCT-II of each row of 64 (Makhoul 1980, doi:10.1109/TASSP.1980.1163351)."""
    n, half = _SIDE, _SIDE // 2
    odd, even = rows[:, 1 : n - 1 : 2], rows[:, 2:n:2]
    spectrum = np.empty((len(rows), half + 1), dtype=np.complex128)
    spectrum[:, 0] = 2 * rows[:, 0]
    spectrum[:, 1:half].real, spectrum[:, 1:half].imag = odd + even, even - odd
    spectrum[:, half] = 2 * rows[:, n - 1]
    signal = irfft(spectrum, n=n, norm="forward")
    k, twiddle = np.arange(1, half), _twiddles()
    first, last = signal[:, k], signal[:, n - k]
    t1 = twiddle[k - 1] * last + twiddle[n - k - 1] * first
    t2 = twiddle[k - 1] * first - twiddle[n - k - 1] * last
    out = np.empty_like(rows)
    out[:, 0] = signal[:, 0]
    out[:, k], out[:, n - k] = 0.5 * (t1 + t2), 0.5 * (t1 - t2)
    out[:, half] = signal[:, half] * twiddle[half - 1]
    return out
