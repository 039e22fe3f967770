"""What tells whether two uploads are the same: exact digests, the perceptual hash, and the evidence beyond it.

The perceptual hash (pHash-256) only finds candidates: receipts that differ in the total, memes that differ in their
words and recoloured products have the same hash. `same_picture` then decides on the evidence: the aspect ratio, a
luma thumbnail and a chroma thumbnail, compared region by region.
"""

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions import media

if TYPE_CHECKING:
    import imagehash

Policy = Literal["exact", "strict", "loose"]

HASH_VERSION = "p1"
RADIUS = 10  # bits of the 256 within which the band index finds every neighbour
BAND_BITS = (24, 24, 24, 23, 23, 23, 23, 23, 23, 23, 23)

_SIDE = 64  # imagehash.phash: hash_size 16 x highfreq_factor 4
_LUMA = 96
_CHROMA = 32
_HEADER = struct.Struct("<BIIHH")


@dataclass(frozen=True)
class Fingerprint:
    """What an upload is recognised by.

    `exact` holds digests, each prefixed by what it is of: "b:" the bytes, "p:" the payload without metadata, "x:" the
    decoded pixels. `phash` is the 256-bit perceptual hash, 32 bytes, row by row, most significant bit first; `evidence`
    is what `same_picture` compares. Both are None where only an exact match is safe.
    """

    exact: tuple[str, ...]
    phash: bytes | None = None
    evidence: bytes | None = None

    def as_image_hash(self) -> "imagehash.ImageHash":
        """Return the perceptual hash as an imagehash.ImageHash. Raises ValueError if there is none."""
        import imagehash  # imports numpy only until a wavelet hash is asked for, but is not needed for matching

        if self.phash is None:
            raise ValueError("this upload has no perceptual hash")
        bits = np.unpackbits(np.frombuffer(self.phash, np.uint8)).astype(bool)
        return imagehash.ImageHash(bits.reshape(16, 16))


def fingerprint_image(data: "bytes | media.Inspected") -> Fingerprint:
    """Return the fingerprint of a picture; one decode serves `media.inspect` and this. Raises MediaError."""
    inspected = data if isinstance(data, media.Inspected) else media.inspect(data)
    exact = ["b:" + hashlib.sha256(inspected.data).hexdigest()]
    picture = inspected.picture
    if picture is None or inspected.kind != "image":
        return Fingerprint(tuple(exact))
    if picture.pixels_digest is not None:
        exact.append("x:" + picture.pixels_digest)
    evidence = _evidence(picture)
    if evidence is None:
        return Fingerprint(tuple(exact))
    return Fingerprint(tuple(exact), perceptual_hash(picture.working), evidence)


def fingerprint_audio(data: bytes) -> Fingerprint:
    """Return the fingerprint of a sound or video file: its bytes, and its content without tags. Raises MediaError."""
    exact = ["b:" + hashlib.sha256(data).hexdigest()]
    payload = media.payload_digest(data)
    if payload is not None:
        exact.append("p:" + payload)
    return Fingerprint(tuple(exact))


def hamming(a: bytes, b: bytes) -> int:
    """Return in how many bits two hashes of one length differ."""
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def bands(phash: bytes) -> tuple[str, ...]:
    """Return the 11 disjoint bands of a 256-bit hash, "<index>:<hex>": hashes within 10 bits share at least one."""
    value, left, out = int.from_bytes(phash, "big"), 256, []
    for index, width in enumerate(BAND_BITS):
        left -= width
        out.append(f"{index}:{value >> left & (1 << width) - 1:06x}")
    return tuple(out)


# --- The perceptual hash --------------------------------------------------------------------------------------------


def perceptual_hash(image: Image.Image) -> bytes:
    """Return imagehash.phash(image, hash_size=16), bit for bit, as 32 bytes; without SciPy.

    The DCT is computed the way SciPy's does (pocketfft: a real inverse FFT of the same length between two rotations),
    as symmetric pictures have coefficients that are zero but for rounding, and their bits are rounding's.
    """
    pixels = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _dct2(_dct2(pixels.T).T)[:16, :16]
    return np.packbits(low > np.median(low)).tobytes()


@cache
def _twiddles() -> npt.NDArray[np.float64]:
    """Return cos(pi/2 * i/64) for i = 1..63, rounded as pocketfft rounds it: each a product of two table entries."""
    n = 4 * _SIDE

    def point(x: int) -> complex:  # the point at x/n of the circle's first quarter; the smaller angle is the exact one
        angle = 0.25 * math.pi / n
        if 8 * x < n:
            return complex(math.cos(8 * x * angle), math.sin(8 * x * angle))
        return complex(math.sin((2 * n - 8 * x) * angle), math.cos((2 * n - 8 * x) * angle))

    fine, coarse = [point(x) for x in range(16)], [point(16 * x) for x in range(5)]
    return np.array(
        [fine[i % 16].real * coarse[i // 16].real - fine[i % 16].imag * coarse[i // 16].imag for i in range(1, _SIDE)]
    )


def _dct2(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the unnormalised DCT-II of each row (Makhoul 1980; the order of operations is pocketfft's)."""
    n = _SIDE
    c = rows.copy()
    c[:, 0] *= 2
    c[:, n - 1] *= 2
    odd, even = rows[:, 1 : n - 1 : 2], rows[:, 2:n:2]
    c[:, 2:n:2], c[:, 1 : n - 1 : 2] = even - odd, odd + even
    # pocketfft's half-complex order r0 r1 i1 r2 i2 ... as numpy's complex half spectrum
    half = np.empty((len(rows), n // 2 + 1), dtype=np.complex128)
    half[:, 0] = c[:, 0]
    half[:, 1 : n // 2].real, half[:, 1 : n // 2].imag = c[:, 1 : n - 1 : 2], c[:, 2 : n - 1 : 2]
    half[:, n // 2] = c[:, n - 1]
    c = np.fft.irfft(half, n=n, norm="forward")
    k = np.arange(1, n // 2)
    first, last, tw = c[:, k], c[:, n - k], _twiddles()
    t1 = tw[k - 1] * last + tw[n - k - 1] * first
    t2 = tw[k - 1] * first - tw[n - k - 1] * last
    out = c.copy()
    out[:, k], out[:, n - k] = 0.5 * (t1 + t2), 0.5 * (t1 - t2)
    out[:, n // 2] = c[:, n // 2] * tw[n // 2 - 1]
    return out


# --- Evidence -------------------------------------------------------------------------------------------------------


def _evidence(picture: media.Picture) -> bytes | None:
    grid = picture.working.convert("YCbCr")
    luma, blue, red = grid.split()
    thumb = luma.resize((_LUMA, _LUMA), Image.Resampling.BOX)
    values = np.asarray(thumb, dtype=np.float32)
    if min(picture.width, picture.height) < 32 or values.std() < 8:
        return None
    small = [plane.resize((_CHROMA, _CHROMA), Image.Resampling.BOX).tobytes() for plane in (blue, red)]
    packed = zlib.compress(b"".join([thumb.tobytes(), *small]))
    return _HEADER.pack(1, picture.width, picture.height, _LUMA, _CHROMA) + packed


def same_picture(a: bytes, b: bytes, policy: Policy) -> bool:
    """Return whether two pictures' evidence says that they show the same; symmetric. The caller has compared hashes."""
    if policy == "exact":
        return False
    first, second = _unpack(a), _unpack(b)
    if first is None or second is None:
        return False
    (size_a, luma_a, chroma_a), (size_b, luma_b, chroma_b) = first, second
    if abs(size_a[0] * size_b[1] - size_a[1] * size_b[0]) > 0.02 * size_a[0] * size_b[1]:
        return False
    if abs(luma_a - luma_b).max() > 16:
        return False
    return bool(abs(chroma_a - chroma_b).max() <= 12)


def _unpack(evidence: bytes) -> "tuple[tuple[int, int], npt.NDArray[np.float32], npt.NDArray[np.float32]] | None":
    version, width, height, luma, chroma = _HEADER.unpack_from(evidence)
    if (version, luma, chroma) != (1, _LUMA, _CHROMA):
        return None
    raw = np.frombuffer(zlib.decompress(evidence[_HEADER.size :]), np.uint8).astype(np.float32)
    return (width, height), raw[: luma * luma].reshape(luma, luma), raw[luma * luma :]
