"""What tells whether two uploads are the same: exact digests, the perceptual hash, and the evidence beyond it.

The perceptual hash (pHash-256) only finds candidates: receipts that differ in the total, memes that differ in their
words and recoloured products have the same hash. `same_picture` then decides on the evidence.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from captions import media
from captions.fingerprint.comparison import (
    Resemblance,
    Strictness,
    decided_finely,
    may_be_reframed,
    resemblance,
    resemblance_finely,
    same_picture,
)
from captions.fingerprint.phash import (
    BAND_BITS,
    RADIUS,
    bands,
    brightened_hash,
    coarse,
    hamming,
    perceptual_hash,
    reframed_hashes,
)
from captions.fingerprint.recreation import packed_pixels
from captions.fingerprint.thumbnail import evidence_of, luma_of

if TYPE_CHECKING:
    import imagehash

__all__ = [
    "BAND_BITS",
    "HASH_VERSION",
    "RADIUS",
    "Fingerprint",
    "Resemblance",
    "Strictness",
    "bands",
    "decided_finely",
    "finer_evidence",
    "fingerprint_audio",
    "fingerprint_image",
    "hamming",
    "perceptual_hash",
    "resemblance",
    "resemblance_finely",
    "same_picture",
]

# Of the hash and the digests together, which are stored. Those of two versions never meet: it is part of the scope.
HASH_VERSION = "p1"


@dataclass(frozen=True)
class Fingerprint:
    """What an upload is recognised by.

    `exact` holds digests, each prefixed by what it is of: "b:" the bytes, "p:" the payload without metadata, "x:" the
    decoded pixels. Who shares one of them shares the last: the same bytes have the same payload, and that the same
    pixels. `phash` is the 256-bit perceptual hash, 32 bytes, row by row, most significant bit first; `evidence`
    is what `same_picture` compares. Both are None where only an exact match is safe. `brightened` is a second hash of a
    picture on white ground, by which it is found, and finds others, as by the first.
    """

    exact: tuple[str, ...]
    phash: bytes | None = None
    evidence: bytes | None = None
    brightened: bytes | None = None

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes that the picture is found by."""
        return tuple(phash for phash in (self.phash, self.brightened) if phash is not None)

    def content_key(self, *, near: bool) -> str:
        """Return what copies of an upload have in common: the identical ones, and if `near` most of the others.

        Of a picture it is the coarsest part of its perceptual hash, which re-encoding and resizing rarely change; many
        pictures share it.
        """
        return coarse(self.phash) if near and self.phash is not None else self.exact[-1]

    def as_image_hash(self) -> "imagehash.ImageHash":
        """Return the perceptual hash as an imagehash.ImageHash. Raises ValueError if there is none."""
        import imagehash  # imported only here: matching does not need it, and a cold start should not pay for it

        if self.phash is None:
            raise ValueError("this upload has no perceptual hash")
        bits = np.unpackbits(np.frombuffer(self.phash, np.uint8)).astype(bool)
        return imagehash.ImageHash(bits.reshape(16, 16))

    def probes(self, policy: Strictness) -> tuple[bytes, ...]:
        """Return further hashes to look up before a miss is believed, the likeliest first; none unless `loose`.

        A 1 % crop moves a hash by some 16 bits, out of the index's reach. Under `loose` the lookup therefore also asks
        for this picture as it would be framed before or after such a crop.
        """
        if policy != "loose" or self.evidence is None or not may_be_reframed(self.evidence):
            return ()
        return reframed_hashes(luma_of(self.evidence))


def fingerprint_image(data: bytes | media.Inspected) -> Fingerprint:
    """Return the fingerprint of a picture; pass what `media.inspect` returned, so that it is decoded only once.

    Animations, documents and pictures that show too little get exact digests alone. Raises MediaError.
    """
    inspected = data if isinstance(data, media.Inspected) else media.inspect(data)
    exact = ["b:" + hashlib.sha256(inspected.data).hexdigest()]
    picture = inspected.picture
    if picture is None:
        raise media.MediaError("unsupported", "the file is no picture")
    payload = media.picture_payload_digest(inspected.data, picture.orientation)
    if payload is not None:
        exact.append("p:" + payload)
    if inspected.kind != "image":
        return Fingerprint(tuple(exact))
    if picture.pixels_digest is not None:
        exact.append("x:" + picture.pixels_digest)
    evidence = evidence_of(picture)
    if evidence is None:
        return Fingerprint(tuple(exact))
    return Fingerprint(tuple(exact), perceptual_hash(picture.working), evidence, brightened_hash(picture.working))


def finer_evidence(inspected: media.Inspected) -> bytes | None:
    """Return the evidence of a picture that was inspected `finely`: its pixels, or smaller cells of a larger one.

    Of use where `decided_finely` says so. None for what is no single picture, or shows too little.
    """
    if inspected.picture is None or inspected.kind != "image":
        return None
    return packed_pixels(inspected.picture, inspected.data) or evidence_of(inspected.picture)


def fingerprint_audio(data: bytes) -> Fingerprint:
    """Return the fingerprint of a sound or video file: its bytes, and its content without tags. Raises MediaError."""
    exact = ["b:" + hashlib.sha256(data).hexdigest()]
    payload = media.payload_digest(data)
    if payload is not None:
        exact.append("p:" + payload)
    return Fingerprint(tuple(exact))
