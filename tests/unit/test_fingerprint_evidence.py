"""When two pictures are the same: after benign changes yes, after any edit no."""

import io
import itertools
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from captions import media
from captions.fingerprint import (
    RADIUS,
    Fingerprint,
    decided_finely,
    finer_evidence,
    hamming,
    resemblance,
    same_picture,
)
from captions.fingerprint import fingerprint_image as fingerprint_of
from captions.fingerprint.thumbnail import luma_of
from support.drawn import cameras_photo, soft_photo

pytestmark = pytest.mark.slow

fingerprint_image = lru_cache(maxsize=64)(fingerprint_of)
"""The same originals are compared with many copies."""
MEDIA = Path(__file__).parents[1] / "media"
PHOTOS = sorted((MEDIA / "photos").iterdir())


def encoded(picture: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    usual = {"JPEG": {"quality": 90}, "PNG": {"compress_level": 1}}.get(name, {})
    picture.save(stream, name, **(options or usual))
    return stream.getvalue()


def resized(picture: Image.Image, long_side: int) -> Image.Image:
    share = long_side / max(picture.size)
    return picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def opened_bytes(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB")


def found_same(first: bytes, second: bytes, policy: str) -> bool:
    """Return what a lookup would say: near by hash (or by one of its probes), and the same by evidence."""
    a, b = fingerprint_image(first), fingerprint_image(second)
    return near(a, b, policy) and agree(a, b, policy)


def near(a: Fingerprint, b: Fingerprint, policy: str) -> bool:
    assert a.phash is not None
    assert b.phash is not None
    probes = b.hashes + b.probes(policy)  # type: ignore[arg-type]
    return any(hamming(phash, probe) <= RADIUS for phash in a.hashes for probe in probes)


def agree(a: Fingerprint, b: Fingerprint, policy: str) -> bool:
    assert a.evidence is not None
    assert b.evidence is not None
    return same_picture(a.evidence, b.evidence, policy)  # type: ignore[arg-type]


BENIGN: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg 30": lambda p: encoded(p, quality=30),
    "jpeg 90": lambda p: encoded(p, quality=90),
    "webp": lambda p: encoded(p, "WEBP", quality=80),
    "avif": lambda p: encoded(p, "AVIF", quality=60),
    "png": lambda p: encoded(p, "PNG"),
    "cmyk": lambda p: encoded(p.convert("CMYK"), quality=90),
    "1080": lambda p: encoded(resized(p, 1080)),
    "half": lambda p: encoded(resized(p, max(p.size) // 2)),
    "320": lambda p: encoded(resized(p, 320)),
    "brighter": lambda p: encoded(ImageEnhance.Brightness(p).enhance(1.1)),
    "darker": lambda p: encoded(ImageEnhance.Brightness(p).enhance(0.9)),
    "more contrast": lambda p: encoded(ImageEnhance.Contrast(p).enhance(1.1)),
    "less contrast": lambda p: encoded(ImageEnhance.Contrast(p).enhance(0.9)),
    "sharpened": lambda p: encoded(ImageEnhance.Sharpness(p).enhance(1.5)),
    "unsharp mask": lambda p: encoded(p.filter(ImageFilter.UnsharpMask(2, 50, 2))),
    "jpeg twice": lambda p: encoded(opened_bytes(encoded(p, quality=75)), quality=75),
}


@pytest.mark.parametrize("change", BENIGN)
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_a_benign_change_is_the_same_picture(path: Path, change: str) -> None:
    assert found_same(path.read_bytes(), BENIGN[change](opened(path)), "strict")


def test_either_order_says_the_same_and_loose_finds_whatever_strict_does() -> None:
    """So that all other tests ask once, and where pictures differ only by `loose`."""
    photo = opened(MEDIA / "photos" / "coffee.jpg")
    changes = [photo, marked(photo, 0.35), with_words(photo, "CLOSED TODAY"), resized(photo, 320)]
    pairs = [(fingerprint_image(encoded(photo, "PNG")), fingerprint_image(encoded(changed))) for changed in changes]
    pairs.append((fingerprint_image(encoded(receipt("15.47"))), fingerprint_image(encoded(receipt("18.47")))))
    answers = {
        policy: [(agree(a, b, policy), agree(b, a, policy)) for a, b in pairs]
        for policy in ("exact", "strict", "loose")
    }
    assert all(there == back for pairs_of_answers in answers.values() for there, back in pairs_of_answers)
    assert [there for there, _ in answers["exact"]] == [False] * 5
    assert [there for there, _ in answers["strict"]] == [True, False, False, True, False]
    assert [there for there, _ in answers["loose"]] == [True, True, False, True, False]


def test_a_crop_of_one_percent_is_the_same_picture_only_under_loose() -> None:
    """The original finds its crop; what a crop lost can only be guessed, so the other way misses now and then."""
    guessed = []
    for path in PHOTOS:
        photo = opened(path)
        width, height = photo.size
        box = round(0.01 * width), round(0.01 * height), round(0.99 * width), round(0.99 * height)
        cut, original = fingerprint_image(encoded(photo.crop(box))), fingerprint_image(path.read_bytes())
        assert near(cut, original, "loose")
        assert agree(cut, original, "loose")
        assert not agree(cut, original, "exact")
        guessed.append(near(original, cut, "loose"))
    assert sum(guessed) >= len(guessed) - 1


def marked(photo: Image.Image, opacity: float) -> Image.Image:
    """Return the photo with a line of white letters in its lower right corner."""
    overlay = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    font = ImageFont.load_default(max(10, photo.width // 30))
    corner = photo.width * 0.98, photo.height * 0.98
    ImageDraw.Draw(overlay).text(corner, "(c) example", (255, 255, 255, round(255 * opacity)), font, anchor="rs")
    return Image.alpha_composite(photo.convert("RGBA"), overlay).convert("RGB")


def test_a_small_pale_mark_is_passed_over_only_under_loose() -> None:
    result = []
    for path in PHOTOS:
        photo = opened(path)
        original, pale = fingerprint_image(path.read_bytes()), fingerprint_image(encoded(marked(photo, 0.35)))
        assert not agree(original, pale, "exact")
        result.append((agree(original, pale, "strict"), agree(original, pale, "loose")))
        written = fingerprint_image(encoded(marked(photo, 1.0)))
        assert not agree(original, written, "loose"), "what hides the picture is no mark"
    assert sum(loose for _, loose in result) >= 0.8 * len(result)
    assert sum(strict for strict, _ in result) <= 0.2 * len(result)


def test_a_strip_at_the_edge_that_shows_something_else_is_no_mark() -> None:
    strip = opened(MEDIA / "photos" / "chelsea.jpg")
    for path in PHOTOS:
        photo = opened(path)
        width, height = photo.width // 6, photo.width // 24
        edited = photo.copy()
        edited.paste(ImageOps.invert(strip.crop((60, 90, 60 + width, 90 + height))), (photo.width // 2, 3))
        assert not agree(fingerprint_image(path.read_bytes()), fingerprint_image(encoded(edited)), "loose")


def test_a_small_picture_is_never_held_for_one_with_a_mark_on_it() -> None:
    """A strip of another picture fills as few cells there as a line of letters."""
    photo = resized(opened(MEDIA / "photos" / "chelsea.jpg"), 360)
    assert min(photo.size) < 256
    original, pale = fingerprint_image(encoded(photo)), fingerprint_image(encoded(marked(photo, 0.35)))
    assert not agree(original, pale, "loose")


@pytest.mark.parametrize("name", ["beacon-street-sunset", "chelsea"])
def test_a_pale_band_is_no_line_of_letters(name: str) -> None:
    photo = opened(MEDIA / "photos" / f"{name}.jpg")
    width, height = photo.width // 6, photo.width // 24
    box = (photo.width // 2, 3, photo.width // 2 + width, 3 + height)
    banded = photo.copy()
    banded.paste(Image.blend(photo.crop(box), Image.new("RGB", (width, height), "white"), 0.3), box[:2])
    assert not agree(fingerprint_image(encoded(photo, "PNG")), fingerprint_image(encoded(banded)), "loose")


def turned_hue(photo: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    hue, saturation, value = photo.crop(box).convert("HSV").split()
    part = Image.merge("HSV", (hue.point(lambda v: (v + 100) % 256), saturation, value)).convert("RGB")
    edited = photo.copy()
    edited.paste(part, box[:2])
    return edited


def with_words(photo: Image.Image, words: str) -> Image.Image:
    edited = photo.copy()
    font = ImageFont.load_default(photo.height // 14)
    ImageDraw.Draw(edited).text(
        (photo.width / 2, photo.height * 0.93), words, "white", font, anchor="ms", stroke_width=1, stroke_fill="black"
    )
    return edited


def with_patch(photo: Image.Image) -> Image.Image:
    edited = photo.copy()
    side = max(photo.size) // 14
    left, top = photo.width // 3, photo.height // 3
    patch = opened(MEDIA / "photos" / "chelsea.jpg").resize((side, side)).transpose(Image.Transpose.ROTATE_90)
    edited.paste(ImageOps.invert(patch), (left, top))
    return edited


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_an_edit_is_another_picture(path: Path) -> None:
    photo = opened(path)
    box = (photo.width // 4, photo.height // 4, photo.width // 2, photo.height // 2)
    pairs = [
        (photo, with_patch(photo)),
        (with_words(photo, "COFFEE AT NINE"), with_words(photo, "CLOSED TODAY")),
        (photo, ImageOps.mirror(photo)),
        (photo, turned_hue(photo, (0, 0, *photo.size))),
        (photo, turned_hue(photo, box)),
    ]
    for before, after in pairs:
        if np.abs(np.asarray(before, dtype=int) - np.asarray(after, dtype=int)).mean() < 0.3:
            continue  # nothing there to be changed
        original = fingerprint_image(encoded(before, "PNG"))
        for data in (encoded(after), encoded(after, quality=50), encoded(resized(after, 640))):
            edited = fingerprint_image(data)
            assert not agree(original, edited, "loose")


def receipt(amount: str, word: str = "Cappuccino") -> Image.Image:
    page = Image.new("RGB", (600, 900), (246, 246, 242))
    draw = ImageDraw.Draw(page)
    lines = (
        "CONTOSO COFFEE|12 Main Street||06/10/2026  13:59||"
        f"1 {word}     4.20|1 Bagel            3.10|2 Orange juice     7.00||"
        f"Subtotal          14.30|Tax                1.17|TOTAL             {amount}||VISA  **** 1234|Thank you"
    ).split("|")
    for number, line in enumerate(lines):
        draw.text((60, 60 + 48 * number), line, (30, 30, 34), ImageFont.load_default(26))
    return page


@pytest.mark.parametrize(
    "other", [receipt("15.97"), receipt("18.47"), receipt("15.47", "Cappuccina")], ids=["digit", "digit 2", "letter"]
)
def test_a_receipt_with_one_other_digit_or_letter_is_another_picture(other: Image.Image) -> None:
    first = fingerprint_image(encoded(receipt("15.47"), "PNG"))
    for data in (encoded(other, "PNG"), encoded(other, quality=90), encoded(other, quality=60)):
        second = fingerprint_image(data)
        assert first.phash is not None
        assert second.phash is not None
        assert hamming(first.phash, second.phash) <= RADIUS, "the hash alone would have merged them"
        assert not agree(first, second, "loose")


def test_the_same_receipt_packed_otherwise_is_the_same() -> None:
    assert found_same(encoded(receipt("15.47"), "PNG"), encoded(receipt("15.47"), quality=90), "strict")


def sheet_on_photo(amount: str) -> Image.Image:
    """Return a photo of 1,000 pixels with a sheet on it, ten lines in letters of nine pixels."""
    photo = resized(opened(MEDIA / "photos" / "chelsea.jpg"), 1000)
    sheet = Image.new("RGB", (260, 240), (206, 202, 192))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for line in range(10):
        text = f"amount {amount}" if line == 5 else f"{line} invoice amount"
        draw.text((16, 14 + 22 * line), text, (60, 60, 60), font)
    photo.paste(sheet, (photo.width // 3, photo.height // 3))
    return photo


@pytest.mark.parametrize("amount", ["204.80", pytest.param("981.73", marks=pytest.mark.deep)])
def test_a_photo_of_a_sheet_with_another_digit_is_another_picture(amount: str) -> None:
    first = fingerprint_image(encoded(sheet_on_photo("204.50"), "PNG"))
    second = fingerprint_image(encoded(sheet_on_photo(amount), "PNG"))
    assert near(first, second, "strict"), "the hash alone would have merged them"
    for data in (encoded(sheet_on_photo(amount), quality=quality) for quality in (90, 75, 50, 30)):
        saved = fingerprint_image(data)
        assert not agree(first, saved, "loose")
    assert not agree(first, second, "loose")
    assert found_same(encoded(sheet_on_photo("204.50"), "PNG"), encoded(sheet_on_photo("204.50"), quality=75), "strict")


def small_print(letters: int, width: int = 900) -> Image.Image:
    page = Image.new("RGB", (width, width * 4 // 3), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(letters)
    words = "delivery premium discount account review forecast"
    for line, top in enumerate(range(30, page.height - 30, round(letters * 1.6))):
        draw.text((40, top), f"{line * 7919 % 100:02} {words}"[: 20 + line * 7 % 30], (60, 60, 64), font)
    return page


def dark_form(amount: str) -> Image.Image:
    """Return a photograph of 1,600 pixels of a dark form, in thin letters of eleven pixels between faint lines."""
    photo = opened(MEDIA / "photos" / "chelsea.jpg").resize((1600, 1200), Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(photo), ImageFont.load_default(11)
    draw.rectangle((300, 0, 1170, 1200), fill=(28, 26, 30))
    for line, top in enumerate(range(20, 1190, 40)):
        draw.text((330, top), f"{line * 7919 % 100:02} delivery", (150, 150, 150), font)
        draw.text((1130, top), amount if line == 3 else f"{line * 977 % 2000}.06", (150, 150, 150), font, anchor="ra")
        draw.line((320, top + 15, 1150, top + 15), (90, 90, 90))
    return photo.rotate(2, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.4))


def test_a_thin_digit_on_a_large_photographed_form_makes_another_picture() -> None:
    original = fingerprint_image(encoded(dark_form("1782.06"), "PNG"))
    for data in (encoded(dark_form("1782.56"), "PNG"), encoded(dark_form("1782.56"), quality=75)):
        assert not agree(original, fingerprint_image(data), "loose")


def test_a_page_reduced_to_half_is_never_taken_for_the_whole_one() -> None:
    """A changed digit leaves less there than resampling does."""
    page = small_print(18)
    whole, half = fingerprint_image(encoded(page, "PNG")), fingerprint_image(encoded(resized(page, 600), "PNG"))
    assert not agree(whole, half, "loose")
    assert agree(whole, fingerprint_image(encoded(page, quality=90)), "strict")


def test_a_page_too_large_for_the_thumbnail_matches_exactly_or_not_at_all() -> None:
    result = fingerprint_image(encoded(small_print(36, width=1800), "PNG"))
    assert result.exact
    assert result.phash is None
    assert result.evidence is None


def test_small_print_that_the_thumbnail_shows_as_stripes_matches_exactly_or_not_at_all() -> None:
    page = Image.new("RGB", (900, 1200), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(9)
    for line, top in enumerate(range(20, 1180, 12)):
        draw.text(
            (20, top), f"{line:03} " + "delivery premium discount account review forecast " * 3, (170, 170, 170), font
        )
    assert fingerprint_image(encoded(page, "PNG")).evidence is None


@pytest.mark.parametrize("side", [96, 150])
def test_the_smaller_a_picture_the_smaller_a_change_that_counts(side: int) -> None:
    """An edit of a sixteenth of the side that survives only blurred in so small a copy is still an edit."""
    for path in PHOTOS:
        photo = resized(opened(path), 600)
        edited, part = photo.copy(), max(photo.size) // 16
        box = (photo.width // 2, photo.height // 2, photo.width // 2 + part, photo.height // 2 + part)
        edited.paste(ImageOps.invert(photo.crop(box)), box[:2])
        if (
            np.abs(np.asarray(edited, dtype=int) - np.asarray(photo, dtype=int))[
                box[1] : box[3], box[0] : box[2]
            ].mean()
            < 60
        ):
            continue  # nothing there to be changed
        before, after = (fingerprint_image(encoded(resized(each, side))) for each in (photo, edited))
        assert not agree(before, after, "strict")


@pytest.mark.parametrize(
    ("name", "blur", "pale"), [("coffee", 12, 0.5), ("coffee", 20, 0.3), ("beacon-street-sunset", 20, 0.3)]
)
def test_letters_on_a_blurred_picture_are_no_sharpening(name: str, blur: int, pale: float) -> None:
    """A fit that may sharpen must not explain what was written on a picture without detail."""
    blurred = resized(opened(MEDIA / "photos" / f"{name}.jpg"), 800).filter(ImageFilter.GaussianBlur(blur))
    written, font = blurred.copy(), ImageFont.load_default(14)
    middle = blurred.width / 2, blurred.height / 2
    ImageDraw.Draw(written).text(middle, "COFFEE AT NINE", (235, 235, 235), font, anchor="ms")
    before = fingerprint_image(encoded(blurred, "PNG"))
    after = fingerprint_image(encoded(Image.blend(blurred, written, pale)))
    assert not agree(before, after, "strict")


def test_documents_that_look_alike_are_different() -> None:
    result = [fingerprint_image(path.read_bytes()) for path in sorted((MEDIA / "documents").iterdir())]
    for number, a in enumerate(result):
        for b in result[number + 1 :]:
            assert not set(a.exact) & set(b.exact)
            assert not agree(a, b, "loose")


def test_another_aspect_ratio_is_another_picture() -> None:
    photo = opened(PHOTOS[0])
    a = fingerprint_image(encoded(photo))
    b = fingerprint_image(encoded(photo.resize((photo.width, photo.width))))
    assert not agree(a, b, "strict")


def test_evidence_stays_small() -> None:
    """A process keeps that of 256 pictures."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8))
    for data in (encoded(noise, "PNG"), *(p.read_bytes() for p in PHOTOS)):
        assert len(fingerprint_image(data).evidence or b"") <= 512 * 512 + 2 * 64 * 64 + 1_000


def test_a_picture_with_detail_everywhere_is_the_same_after_a_benign_change() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((900, 900), Image.Resampling.BICUBIC)
    assert found_same(encoded(picture, "PNG"), encoded(picture, quality=90), "strict")


# -- large pictures with smooth grounds --------------------------------------------------------------------------------


def soft(values: int, seed: int) -> Image.Image:
    """Return soft shapes of many tones, of so many values from above to below."""
    rng = np.random.default_rng(seed)
    shown = Image.fromarray(rng.integers(100, 180, (values, round(values * 1.6), 3), dtype=np.uint8))
    return shown.resize((1600, 1000), Image.Resampling.BICUBIC)


def starry(seed: int) -> Image.Image:
    """Return 700 stars over a dark ground: to the grid they look like small print."""
    sky, rng = ImageEnhance.Brightness(soft(5, seed)).enhance(0.35), np.random.default_rng(seed)
    draw = ImageDraw.Draw(sky)
    for x, y, radius, light in rng.uniform((0, 0, 0.5, 120), (1600, 1000, 4, 255), (700, 4)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (round(light),) * 3)
    return sky.filter(ImageFilter.GaussianBlur(0.7))


@pytest.mark.parametrize("change", ["jpeg 90", "half"])
@pytest.mark.parametrize("picture", [starry(3), soft(12, 1)], ids=["stars", "soft shapes"])
def test_a_large_picture_with_a_smooth_ground_is_the_same_after_a_benign_change(
    picture: Image.Image, change: str
) -> None:
    assert found_same(encoded(picture, quality=95), BENIGN[change](picture), "strict")


def test_a_star_more_is_another_picture() -> None:
    for picture in (starry(3), soft(12, 1)):
        edited = picture.copy()
        ImageDraw.Draw(edited).ellipse((800, 500, 806, 506), "white")
        original = fingerprint_image(encoded(picture, quality=95))
        for data in (encoded(edited), encoded(resized(edited, 800))):
            assert not agree(original, fingerprint_image(data), "loose")


@pytest.mark.parametrize("side", [1600, 2000])
def test_a_large_square_picture_has_the_cells_of_its_half(side: int) -> None:
    """Were it decoded at a quarter of its size, thin lines would differ by 25 of 255, as an edit does."""
    rng = np.random.default_rng(1)
    ground = Image.fromarray(rng.integers(60, 200, (12, 12, 3), dtype=np.uint8)).resize(
        (640, 640), Image.Resampling.BICUBIC
    )
    rough = np.asarray(ground).astype(int) + rng.integers(-60, 61, (640, 640, 1))
    picture = Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    whole, half = encoded(picture, quality=95), BENIGN["half"](picture)
    first, second = (fingerprint_image(data).evidence for data in (whole, half))
    assert first is not None
    assert second is not None
    apart = np.asarray(luma_of(first), np.float32) - np.asarray(luma_of(second), np.float32)
    assert np.abs(apart).max() < 12
    assert found_same(whole, half, "strict")


@lru_cache(maxsize=64)
def finely(data: bytes) -> bytes | None:
    return finer_evidence(media.inspect(data, finely=True))


@pytest.mark.deep
def test_a_cameras_photo_is_told_from_an_edit_by_finer_evidence_where_a_copy_shows_other_thin_lines() -> None:
    """Of a photo that is decoded at a quarter of its size, libjpeg leaves other values than of its copy, at a half."""
    photo = cameras_photo("28.60")
    original, copies = encoded(photo, quality=95), {"same": photo, "edited": cameras_photo("23.60")}
    first, first_finely, matches = fingerprint_image(original), finely(original), {}
    assert first_finely is not None
    for name, picture in copies.items():
        copy = encoded(resized(picture, 2048), quality=85)
        second, second_finely = fingerprint_image(copy), finely(copy)
        assert near(first, second, "strict")
        assert not agree(first, second, "loose")
        assert first.evidence is not None
        assert second.evidence is not None
        assert second_finely is not None
        assert decided_finely(first.evidence, second.evidence, None)
        matches[name] = same_picture(first_finely, second_finely, "strict")
    assert matches == {"same": True, "edited": False}


@lru_cache(maxsize=16)
def photo_of_price(price: str, longer: int = 4096, quality: int = 85) -> bytes:
    photo = soft_photo(price, 16)
    return encoded(photo if longer == photo.width else resized(photo, longer), quality=quality)


@pytest.mark.deep
@pytest.mark.parametrize("longer", [4096, 2048])
@pytest.mark.parametrize(("price", "other"), [("71.90", "77.90"), ("10.50", "16.50")])
def test_a_small_price_in_a_cameras_photo_is_told_apart(price: str, other: str, longer: int) -> None:
    """As the fingerprint decodes them, few pixels high, the usual cells do not show which digit it is."""
    photo = photo_of_price(price, quality=95)
    original, matches = fingerprint_image(photo).evidence, {}
    assert original is not None
    for shown in (price, other):
        copy = photo_of_price(shown, longer)
        evidence = fingerprint_image(copy).evidence
        assert evidence is not None
        usual = resemblance(original, evidence, "strict")
        assert usual is not None
        assert decided_finely(original, evidence, usual)
        fine = [finely(data) for data in (photo, copy)]
        assert fine[0] is not None
        assert fine[1] is not None
        matches[shown] = same_picture(fine[0], fine[1], "strict")
    assert matches == {price: True, other: False}


def test_finer_evidence_is_not_asked_for_where_it_could_not_help() -> None:
    photo, other = cameras_photo(""), cameras_photo("", seed=2)
    large, smaller = fingerprint_image(encoded(photo)).evidence, fingerprint_image(BENIGN["half"](photo)).evidence
    unlike = fingerprint_image(BENIGN["half"](other)).evidence
    assert large is not None
    assert smaller is not None
    assert unlike is not None
    assert decided_finely(large, smaller, None)
    assert decided_finely(smaller, large, None)
    assert decided_finely(smaller, smaller, resemblance(smaller, smaller, "strict")), "a pale letter may be another"
    assert not decided_finely(large, unlike, None), "they are unlike on any grid"
    alike = resemblance(large, large, "strict")
    assert alike is not None
    assert decided_finely(large, smaller, alike), "a small letter may be another"
    assert finely(encoded(small_print(18).resize((1800, 1800)), "PNG")) is None, "writing has cells of its own"


def test_evidence_of_another_layout_is_never_the_same() -> None:
    result = fingerprint_image(PHOTOS[0].read_bytes()).evidence
    assert result is not None
    assert not same_picture(result, b"\xff" + result[1:], "strict")


# -- small pictures of one thing on plain ground -----------------------------------------------------------------------


GLAZES = ((205, 190, 170), (120, 60, 50)), ((190, 205, 215), (60, 90, 140)), ((215, 200, 120), (90, 120, 60))


def thing(number: int, side: int) -> Image.Image:
    """Return a shaded cup on white, as a shop would show it: light, with a band, a handle and letters on it."""
    light, dark = GLAZES[number]
    shown = Image.new("RGB", (4 * side, 4 * side), "white")  # drawn large, since a camera does not alias
    draw = ImageDraw.Draw(shown)
    left, right, top, bottom = (round(share * 4 * side) for share in (0.33, 0.63, 0.25, 0.75))
    draw.ellipse(
        (right - side // 4, top + side // 3, right + side // 2, bottom - side // 2), outline=dark, width=side // 8
    )
    for x in range(left, right):
        shade = 0.75 + 0.35 * np.sin(np.pi * (x - left) / (right - left))
        draw.line((x, top, x, bottom), tuple(min(255, round(value * shade)) for value in light))
        draw.line((x, top + side // 2, x, top + side), tuple(min(255, round(value * shade)) for value in dark))
    draw.ellipse((left, top - side // 6, right, top + side // 6), fill=light, outline=dark, width=side // 30)
    draw.text((left + side // 5, bottom - side // 2), "TEA", dark, ImageFont.load_default(side // 3))
    return shown.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("side", [200, 260])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    "change", ["half", "brighter", "darker", "sharpened", "unsharp mask", "jpeg 30", "webp", "320"]
)
def test_a_thing_on_white_ground_is_the_same_after_a_benign_change(number: int, change: str, side: int) -> None:
    """Brightening and sharpening clip the ground, not the thing; half of it is smaller than limits are made for."""
    shown = thing(number, side)
    before, after = encoded(shown, "PNG"), BENIGN[change](shown)
    assert found_same(before, after, "strict")
    assert near(fingerprint_image(after), fingerprint_image(before), "strict")


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("side", [200, 260])
def test_a_thing_on_white_ground_of_which_a_part_changed_is_another(number: int, side: int) -> None:
    shown = thing(number, side)
    edited = shown.copy()
    across = side // 12
    ImageDraw.Draw(edited).ellipse((side // 2, side // 2, side // 2 + across, side // 2 + across), fill=(250, 120, 20))
    for changed in (edited, ImageEnhance.Brightness(edited).enhance(1.1), resized(edited, side // 2)):
        assert not found_same(encoded(shown, "PNG"), encoded(changed), "loose")


def test_a_brighter_copy_on_white_ground_is_near_whichever_comes_first() -> None:
    """Its thing gets brighter, its ground cannot: the hash moves by more than the index reaches."""
    sky = opened(MEDIA / "photos" / "beacon-street-sunset.jpg").crop((557, 66, 746, 255)).resize((120, 120))
    mask = Image.new("L", sky.size, 0)
    ImageDraw.Draw(mask).ellipse((1, 1, 118, 118), fill=255)
    shown = Image.new("RGB", (240, 240), "white")
    shown.paste(sky, (60, 60), mask)
    a, b = fingerprint_image(encoded(shown, "PNG")), fingerprint_image(BENIGN["brighter"](shown))
    assert a.phash is not None
    assert b.phash is not None
    assert hamming(a.phash, b.phash) > RADIUS
    assert near(a, b, "strict")
    assert near(b, a, "strict")
    assert fingerprint_image(encoded(ImageOps.invert(shown), "PNG")).brightened is None


def icon(number: int, side: int) -> Image.Image:
    """Return an icon of thin lines: letters on a sheet, a light grid on a dark tile, and a light sheet on white."""
    ground, ink = (("white", (50, 50, 60)), ((45, 45, 50), (250, 250, 250)), ((236, 238, 242), (120, 130, 150)))[number]
    shown = Image.new("RGB", (4 * side, 4 * side), "white")
    draw = ImageDraw.Draw(shown)
    box = (0.6 * side, 0.4 * side, 3.4 * side, 3.6 * side)
    draw.rounded_rectangle(box, side // 5, fill=ground, outline=ink, width=side // 24)
    for line in range(5):
        y = (0.9 + 0.5 * line) * side
        draw.line((side, y, (2.9 - 0.3 * (line % 3)) * side, y), ink, side // 40)
    draw.text((1.2 * side, 1.4 * side), "A7", ink, ImageFont.load_default(side))
    draw.line((2.7 * side, 1.2 * side, 2.7 * side, 3.2 * side), ink, side // 40)
    return shown.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("number", "change"),
    # Of dark letters on white, half and an unsharp mask leave too much open: these are captioned again.
    [
        *itertools.product(range(3), ("1000", "brighter", "jpeg 30")),
        *itertools.product((1, 2), ("half", "unsharp mask")),
    ],
)
def test_an_icon_of_thin_lines_is_the_same_after_a_benign_change(number: int, change: str) -> None:
    """It counts as writing, but its cells are as fine as its letters; what is white gets no whiter in a grey cell."""
    shown = icon(number, 256)
    changed = encoded(resized(shown, 1000)) if change == "1000" else BENIGN[change](shown)
    assert found_same(encoded(shown, "PNG"), changed, "strict")


@pytest.mark.parametrize("number", range(3))
def test_an_icon_with_another_letter_is_another_however_it_was_resized(number: int) -> None:
    shown = icon(number, 256)
    edited = shown.copy()
    edited.paste(shown.crop((72, 86, 110, 150)), (112, 86))  # the letter in place of the digit
    for changed in (edited, resized(edited, 128), resized(edited, 1000), BENIGN["unsharp mask"](edited)):
        data = changed if isinstance(changed, bytes) else encoded(changed)
        assert not agree(fingerprint_image(encoded(shown, "PNG")), fingerprint_image(data), "loose")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_enlarged_copy_of_odd_width_is_not_shifted_by_the_decoder(orientation: int) -> None:
    """Decoded at half its size it is a column of which the original covers half: all others would be shifted by it."""
    small = opened(MEDIA / "photos" / "chelsea.jpg").crop((60, 40, 359, 339)).resize((301, 299))
    large = small.resize((1087, 1081), Image.Resampling.LANCZOS)
    turned = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    a = fingerprint_image(encoded(small, "PNG"))
    b = fingerprint_image(encoded(large.transpose(turned) if turned is not None else large, quality=90, exif=exif))
    assert a.evidence is not None
    assert b.evidence is not None
    first, second = (
        np.asarray(luma_of(evidence).resize((160, 160), Image.Resampling.BICUBIC), np.float32)
        for evidence in (a.evidence, b.evidence)
    )
    # the mean slope, times the mean shift of the cells
    slope = np.gradient(first, axis=1)
    assert abs((slope * (second - first)).sum() / (slope**2).sum()) < 0.03  # cells


# -- prices ----------------------------------------------------------------------------------------------------------


def with_price(photo: Image.Image, price: str, letters: int, place: tuple[float, float]) -> Image.Image:
    labelled, font = photo.copy(), ImageFont.load_default(letters)
    draw = ImageDraw.Draw(labelled)
    x, y = photo.width * place[0], photo.height * place[1]
    draw.rectangle((x, y, x + draw.textlength(price, font) + letters, y + 1.7 * letters), fill=(250, 240, 120))
    draw.text((x + letters / 2, y + 0.85 * letters), price, (20, 20, 20), font, anchor="lm")
    return labelled


@pytest.mark.parametrize(
    ("name", "prices", "place"),
    [
        ("beacon-street-sunset", ("6.95", "8.95"), (0.368, 0.356)),
        ("coffee", ("16.90", "18.90"), (0.59, 0.183)),
        ("teddy-bear", ("6.95", "8.95"), (0.293, 0.568)),
    ],
)
def test_a_wide_photo_with_another_price_on_its_label_is_another_picture(
    name: str, prices: tuple[str, str], place: tuple[float, float]
) -> None:
    """Letters of 3 % of the height; cells made for the shorter side alone are as wide as they are."""
    photo = opened(MEDIA / "photos" / f"{name}.jpg")
    photo = photo.crop((0, 0, photo.width, round(min(photo.height, photo.width * 0.5625))))
    photo = photo.resize((680, round(photo.height * 680 / photo.width)), Image.Resampling.LANCZOS)
    letters = round(0.03 * photo.height)
    first, second = (with_price(photo, price, letters, place) for price in prices)
    original = fingerprint_image(encoded(first, "PNG"))
    for saved in (encoded(second, "PNG"), encoded(second, quality=75)):
        assert not agree(original, fingerprint_image(saved), "strict")


@pytest.mark.parametrize(
    ("name", "prices", "place"),
    [
        ("chelsea", ("67.94", "67.54"), (0.25, 0.21)),
        ("coffee", ("92.59", "62.59"), (0.53, 0.61)),
        ("coffee", ("93.29", "95.29"), (0.04, 0.43)),
        ("coffee", ("76.61", "79.61"), (0.28, 0.5)),
    ],
)
def test_a_small_picture_with_another_price_is_another_however_strongly_it_is_compressed(
    name: str, prices: tuple[str, str], place: tuple[float, float]
) -> None:
    """Letters of seven pixels; one of the two ways alone takes the digit for noise."""
    photo = resized(opened(MEDIA / "photos" / f"{name}.jpg"), 264)
    first, second, same = (with_price(photo, price, 7, place) for price in (*prices, prices[0]))
    original = fingerprint_image(encoded(first, "PNG"))
    assert not agree(original, fingerprint_image(encoded(second, quality=30)), "strict")
    assert agree(original, fingerprint_image(encoded(same, quality=30)), "strict")
