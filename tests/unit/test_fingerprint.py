"""The perceptual hash, the exact digests and the bands of the index."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from captions import media
from captions.fingerprint import (
    BAND_BITS,
    RADIUS,
    Fingerprint,
    bands,
    fingerprint_audio,
    fingerprint_image,
    hamming,
    perceptual_hash,
)

MEDIA = Path(__file__).parents[1] / "media"
PICTURES = sorted(p for folder in ("photos", "documents") for p in (MEDIA / folder).iterdir()) + [
    MEDIA / "odd" / name for name in ("otters.avif", "otters.heic", "otters_cmyk.jpg", "otters_gray16.png")
]


def encoded(picture: Image.Image, name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def imagehash_bytes(picture: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(picture, hash_size=16).hash).tobytes()


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_the_hash_is_imagehash_phash_of_the_decoded_picture(path: Path) -> None:
    inspected = media.inspect(path.read_bytes())
    assert inspected.picture is not None
    result = fingerprint_image(inspected)
    assert result.phash == imagehash_bytes(inspected.picture.working)
    assert result.as_image_hash() == imagehash.phash(inspected.picture.working, hash_size=16)
    assert result.as_image_hash() - imagehash.phash(inspected.picture.working, hash_size=16) == 0


def symmetric_pictures() -> list[Image.Image]:
    """Return pictures whose coefficients are zero but for rounding: their bits show whether rounding is the same."""
    rng = np.random.default_rng(5)
    out = []
    for _ in range(12):
        noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
        out += [
            np.minimum(noise, noise[::-1]),
            np.minimum(noise, noise[:, ::-1]),
            np.minimum(np.minimum(noise, noise[:, ::-1]), np.minimum(noise[::-1], noise[::-1, ::-1])),
            np.full((64, 64), noise[0, 0]),
            np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1)),
            np.kron(rng.integers(0, 2, (8, 8)) * 255, np.ones((8, 8))).astype(np.uint8),
        ]
    return [Image.fromarray(pixels) for pixels in out]


def test_the_hash_is_imagehash_phash_even_of_symmetric_and_flat_pictures() -> None:
    for picture in symmetric_pictures():
        assert perceptual_hash(picture) == imagehash_bytes(picture)


def test_the_decoded_size_hardly_moves_the_hash() -> None:
    """A JPEG is decoded at a fraction of its size; imagehash on the full decode is a bit or two away."""
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        large = photo.convert("RGB").resize((4000, 2800), Image.Resampling.BICUBIC)
    result = fingerprint_image(encoded(large, "JPEG", quality=90)).phash
    assert result is not None
    assert hamming(result, imagehash_bytes(large)) <= 4


def test_bits_are_in_row_order_most_significant_first() -> None:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        expected = imagehash.phash(photo.convert("RGB"), hash_size=16)
    assert perceptual_hash(Image.open(MEDIA / "photos" / "coffee.jpg")).hex() == str(expected)


@given(st.binary(min_size=32, max_size=32), st.sets(st.integers(0, 255), max_size=RADIUS))
def test_hashes_within_the_radius_share_a_band(first: bytes, flips: set[int]) -> None:
    second = int.from_bytes(first, "big")
    for bit in flips:
        second ^= 1 << bit
    other = second.to_bytes(32, "big")
    assert hamming(first, other) == len(flips)
    assert set(bands(first)) & set(bands(other))


@given(st.binary(min_size=32, max_size=32))
def test_bands_are_disjoint_and_hold_every_bit(phash: bytes) -> None:
    assert len(bands(phash)) == len(set(bands(phash))) == len(BAND_BITS) == RADIUS + 1
    value = 0
    for band, width in zip(bands(phash), BAND_BITS, strict=True):
        value = value << width | int(band.partition(":")[2], 16)
    assert value.to_bytes(32, "big") == phash


def test_the_same_payload_with_other_metadata_is_exactly_the_same() -> None:
    with Image.open(MEDIA / "photos" / "teddy-bear.jpg") as photo:
        exif = Image.Exif()
        exif[0x010E] = "a teddy bear"
        plain, described = encoded(photo, "JPEG"), encoded(photo, "JPEG", exif=exif)
    assert set(fingerprint_image(plain).exact) & set(fingerprint_image(described).exact)


def test_the_same_payload_turned_by_exif_is_not_exactly_the_same() -> None:
    with Image.open(MEDIA / "photos" / "teddy-bear.jpg") as photo:
        exif = Image.Exif()
        exif[0x0112] = 3
        plain, turned = encoded(photo, "JPEG"), encoded(photo, "JPEG", exif=exif)
    assert not set(fingerprint_image(plain).exact) & set(fingerprint_image(turned).exact)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80}),
        ("TIFF", {}),
        ("BMP", {}),
        ("GIF", {}),
    ],
    ids=lambda value: "".join(map(str, value)) if isinstance(value, dict) else value,
)
def test_who_shares_an_exact_digest_shares_the_last(name: str, how: dict[str, Any]) -> None:
    """By the last alone an upload is looked up."""
    with Image.open(MEDIA / "photos" / "teddy-bear.jpg") as photo:
        small = photo.convert("RGB").resize((200, 150))
    exif = Image.Exif()
    exif[0x010E] = "a teddy bear"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [encoded(small, name, **how, **more) for more in ({}, {"exif": exif}, {"icc_profile": profile})]
    prints = [fingerprint_image(file).exact for file in files]
    for digests in prints[1:]:
        if set(digests) & set(prints[0]):
            assert digests[-1] == prints[0][-1]
    if name != "TIFF":  # whose pixels may be stored elsewhere in the file
        assert prints[0][-1] == prints[1][-1] == prints[2][-1]


def test_a_document_packed_anew_without_loss_is_exactly_the_same() -> None:
    data = (MEDIA / "documents" / "fw9_1.png").read_bytes()
    with Image.open(io.BytesIO(data)) as page:
        again = encoded(page.convert("RGB"), "PNG", compress_level=9)
        webp = encoded(page.convert("RGB"), "WEBP", lossless=True)
    for other in (again, webp):
        assert set(fingerprint_image(data).exact) & set(fingerprint_image(other).exact)


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (400, 300), "white"),
        Image.new("RGB", (400, 300), (3, 2, 4)),
        Image.linear_gradient("L").convert("RGB"),
        Image.fromarray(np.random.default_rng(0).integers(8, 14, (300, 400, 3), dtype=np.uint8)),
        Image.new("RGB", (16, 16), "red"),
    ],
    ids=["blank", "dark", "gradient", "dark noise", "tiny"],
)
def test_a_picture_that_shows_too_little_matches_exactly_or_not_at_all(picture: Image.Image) -> None:
    result = fingerprint_image(encoded(picture, "PNG"))
    assert result.exact
    assert (result.phash, result.evidence, result.probes("loose")) == (None, None, ())
    with pytest.raises(ValueError, match="no perceptual hash"):
        result.as_image_hash()


def test_animations_and_documents_match_exactly_or_not_at_all() -> None:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        small = photo.convert("RGB").resize((200, 150))
    for name in ("GIF", "PNG", "WEBP", "TIFF"):
        result = fingerprint_image(encoded(small, name, save_all=True, append_images=[small.rotate(180)]))
        assert result.phash is None
        assert result.evidence is None


def test_sound_has_no_perceptual_hash() -> None:
    result = fingerprint_audio((MEDIA / "audio" / "lj_5.ogg").read_bytes())
    assert [digest[:2] for digest in result.exact] == ["b:", "p:"]
    assert result.phash is None


def test_only_the_loose_policy_asks_for_reframed_hashes() -> None:
    result = fingerprint_image((MEDIA / "photos" / "coffee.jpg").read_bytes())
    assert result.probes("exact") == result.probes("strict") == ()
    probes = result.probes("loose")
    assert 2 <= len(probes) <= 23
    assert all(len(probe) == 32 for probe in probes)


def test_a_fingerprint_is_a_value() -> None:
    data = (MEDIA / "photos" / "coffee.jpg").read_bytes()
    assert fingerprint_image(data) == fingerprint_image(media.inspect(data)) == fingerprint_image(data)
    assert isinstance(fingerprint_image(data), Fingerprint)


def test_importing_it_loads_no_scipy_and_no_heif() -> None:
    script = (
        "import sys, captions.media, captions.fingerprint\n"
        "heavy = {'scipy', 'pywt', 'imagehash', 'pillow_heif', 'pydantic', 'boto3'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
