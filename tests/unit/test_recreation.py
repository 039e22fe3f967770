"""Copies that are made once more from the other picture: nothing is left of a copy, and an edit stays."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from captions import media
from captions.fingerprint import (
    decided_finely,
    finer_evidence,
    fingerprint_image,
    resemblance,
    resemblance_finely,
)
from captions.fingerprint.recreation import MOST_PIXELS, Recreated, recreation, unpacked_pixels
from support.drawn import page

pytestmark = pytest.mark.slow

PHOTOS = Path(__file__).parents[1] / "media" / "photos"


def encoded(picture: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def photo(side: int = 264, name: str = "chelsea") -> Image.Image:
    with Image.open(PHOTOS / f"{name}.jpg") as picture:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture.convert("RGB")


def priced(picture: Image.Image, price: str, letters: int = 9) -> Image.Image:
    """Put a price on a picture, in letters of so many pixels."""
    labelled = picture.copy()
    draw = ImageDraw.Draw(labelled)
    draw.rectangle((20, 30, 20 + 4 * letters, 30 + 1.7 * letters), fill=(250, 240, 120))
    draw.text((22, 30), price, (20, 20, 20), ImageFont.load_default(letters))
    return labelled


def left(first: bytes, second: bytes) -> Recreated | None:
    """What is left of one where it is made of the other, or the other way round."""
    pixels = []
    for data in (first, second):
        evidence = finer_evidence(media.inspect(data, finely=True))
        assert evidence is not None
        pixels.append(unpacked_pixels(evidence))
    a, b = pixels
    assert a is not None
    assert b is not None
    there, back = recreation(a, b), recreation(b, a)
    assert there is not None
    assert back is not None
    assert (there.excess <= 1) == (back.excess <= 1)
    return there if there.excess <= 1 else None


def half(picture: Image.Image, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), how)


def turned(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(media.stored(picture, orientation), quality=60, exif=exif)


SAVED: dict[str, Callable[[Image.Image], bytes]] = {
    **{f"jpeg {quality}": lambda p, q=quality: encoded(p, quality=q) for quality in (5, 15, 30, 50, 95)},  # type: ignore[misc]
    **{f"subsampled {how}": lambda p, how=how: encoded(p, quality=40, subsampling=how) for how in (0, 1, 2)},  # type: ignore[misc]
    **{f"turned {number}": lambda p, number=number: turned(p, number) for number in range(2, 9)},  # type: ignore[misc]
    "progressive": lambda p: encoded(p, quality=30, progressive=True, optimize=True),
    "tables of its own": lambda p: encoded(p, qtables="web_low"),
    **{
        f"half, {how.name}": lambda p, how=how: encoded(half(p, how), quality=40)  # type: ignore[misc]
        for how in (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
    },
}


@pytest.mark.parametrize("name", SAVED)
def test_of_a_copy_that_was_only_saved_or_reduced_next_to_nothing_is_left(name: str) -> None:
    """However coarsely: what its tables took away is taken away here as well."""
    shown = photo()
    remains = left(encoded(shown, "PNG"), SAVED[name](shown))
    assert remains is not None
    assert remains.luma < 1
    assert remains.chroma < 1


CHANGED: dict[str, Callable[[Image.Image], bytes]] = {
    "brighter": lambda p: encoded(ImageEnhance.Brightness(p).enhance(1.1), quality=50),
    "more contrast": lambda p: encoded(ImageEnhance.Contrast(p).enhance(1.1), quality=50),
    "less contrast": lambda p: encoded(ImageEnhance.Contrast(p).enhance(0.9), quality=90),
    "sharpened": lambda p: encoded(ImageEnhance.Sharpness(p).enhance(1.5), quality=90),
    "unsharp mask": lambda p: encoded(p.filter(ImageFilter.UnsharpMask(2, 50, 2)), quality=90),
    "webp": lambda p: encoded(p, "WEBP", quality=80),
    "avif": lambda p: encoded(p, "AVIF", quality=60),
    "palette": lambda p: encoded(p.quantize(256), "PNG"),
    "enlarged": lambda p: encoded(p.resize((2 * p.width, 2 * p.height), Image.Resampling.BICUBIC), quality=85),
    "reduced and brighter": lambda p: encoded(ImageEnhance.Brightness(half(p)).enhance(1.1), quality=80),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_copy_that_was_changed_all_over_is_made_as_it_was(name: str) -> None:
    shown = photo()
    remains = left(encoded(shown, "PNG"), CHANGED[name](shown))
    assert remains is not None
    assert remains.luma <= remains.luma_limit


@pytest.mark.parametrize("name", [*SAVED, *CHANGED])
@pytest.mark.parametrize(
    ("price", "other"),
    [
        ("6.95", "8.95"),
        pytest.param("71.9", "77.9", marks=pytest.mark.deep),
        pytest.param("3.50", "3.60", marks=pytest.mark.deep),
    ],
)
def test_another_digit_stays_however_the_picture_was_saved(name: str, price: str, other: str) -> None:
    """Letters of nine pixels and, where the picture is reduced to half of its size, of eighteen."""
    ground, letters = (photo(528), 18) if "half" in name or "reduced" in name else (photo(), 9)
    first, second = (priced(ground, shown, letters) for shown in (price, other))
    assert left(encoded(first, "PNG"), {**SAVED, **CHANGED}[name](second)) is None


@pytest.mark.parametrize("degrees", [45, 120, 180])
def test_another_colour_of_the_same_brightness_is_another_picture(degrees: int) -> None:
    shown = photo(name="coffee")
    hue, saturation, value = shown.convert("HSV").split()
    moved = hue.point([(level + degrees * 256 // 360) % 256 for level in range(256)])
    recoloured = Image.merge("HSV", (moved, saturation, value)).convert("RGB")
    for data in (encoded(recoloured, quality=75), encoded(recoloured.quantize(256), "PNG")):
        assert left(encoded(shown, "PNG"), data) is None


@pytest.mark.parametrize(
    ("saved", "name", "place", "colour", "letters"),
    [
        ("jpeg 75", "beacon-street-sunset", (288, 27), (255, 186, 0), 24),
        ("palette", "beacon-street-sunset", (288, 27), (255, 186, 0), 24),
        ("jpeg 75", "chelsea", (45, 255), (255, 134, 0), 16),
    ],
)
def test_another_digit_in_a_colour_as_light_as_its_ground_is_another_picture(
    saved: str, name: str, place: tuple[int, int], colour: tuple[int, int, int], letters: int
) -> None:
    """As a camera prints the date into a photo: little but chroma tells."""
    shown, other = photo(480, name), photo(480, name)
    for picture, date in ((shown, "'98 7 14"), (other, "'96 7 14")):
        ImageDraw.Draw(picture).text(place, date, colour, ImageFont.load_default(letters))
    original = encoded(shown, "PNG")
    copied = CHANGED.get(saved, partial(encoded, quality=75))
    assert not index_says(original, copied(other))
    assert index_says(original, copied(shown))


@pytest.mark.parametrize(
    ("name", "letters", "places", "levels"),
    [
        ("coffee", 12, ((60, 30), (330, 150)), (136, 141)),
        ("teddy-bear", 9, ((40, 60), (300, 200)), (65, 81)),
        ("chelsea", 12, ((30, 200), (380, 40)), (191, 169)),
    ],
)
def test_two_edits_do_not_hide_each_other(
    name: str, letters: int, places: tuple[tuple[int, int], ...], levels: tuple[int, ...]
) -> None:
    """Of two digits changed at two places neither stands out from all others, though each does from what is no edit."""
    shown, other = photo(480, name), photo(480, name)
    for picture, prices in ((shown, ("8.43", "9.26")), (other, ("6.43", "9.28"))):
        for place, price, level in zip(places, prices, levels, strict=True):
            ImageDraw.Draw(picture).text(place, price, (level,) * 3, ImageFont.load_default(letters))
    original = encoded(shown, "PNG")
    assert not index_says(original, encoded(half(other), quality=85))
    assert index_says(original, encoded(half(shown), quality=85))


@pytest.mark.parametrize("saved", ["png", "jpeg 75", "webp"])
def test_a_line_of_a_chart_in_another_colour_as_light_is_another_picture(saved: str) -> None:
    """It is another all along, so that no place stands out; and the cells of a thumbnail's colour are wider than it."""

    def chart(colour: tuple[int, int, int]) -> Image.Image:
        picture = Image.new("RGB", (800, 600), "white")
        draw = ImageDraw.Draw(picture)
        draw.line((60, 30, 60, 540, 760, 540), "black", 3)
        for tint, base in (((30, 30, 200), 90), (colour, 260), ((30, 140, 30), 420)):
            draw.line([(60 + 64 * step, base + 37 * (step * base) % 80) for step in range(12)], tint, 5)
        return picture

    further = {"png": partial(encoded, name="PNG"), "jpeg 75": partial(encoded, quality=75)}
    copied = further[saved] if saved in further else CHANGED[saved]
    original = encoded(chart((200, 30, 30)), "PNG")
    assert not index_says(original, copied(chart((120, 80, 10))))
    assert saved == "png" or index_says(original, copied(chart((200, 30, 30))))


@pytest.mark.parametrize("quality", [90, 50, 30])
def test_a_page_is_told_from_one_with_another_amount(quality: int) -> None:
    """In the qualities that thumbnails of writing do not allow for."""
    first = page("Total  128.40", "VAT 19 %  20.50")
    second = page("Total  128.46", "VAT 19 %  20.50")
    assert left(encoded(first, "PNG"), encoded(first, quality=quality)) is not None
    assert left(encoded(first, "PNG"), encoded(second, quality=quality)) is None


def index_says(first: bytes, second: bytes) -> bool:
    """What a lookup would decide of two pictures whose hashes are near."""
    a, b = fingerprint_image(first).evidence, fingerprint_image(second).evidence
    assert a is not None
    assert b is not None
    alike = resemblance(a, b, "strict")
    if decided_finely(a, b, alike):
        finely = [finer_evidence(media.inspect(data, finely=True)) for data in (first, second)]
        assert finely[0] is not None
        assert finely[1] is not None
        alike = resemblance_finely(finely[0], finely[1], alike)
    return alike is not None


@pytest.mark.parametrize("quality", [30, 10])
def test_a_copy_that_thumbnails_do_not_allow_for_is_found_all_the_same(quality: int) -> None:
    shown, other = (priced(photo(name="teddy-bear"), price) for price in ("6.95", "8.95"))
    original, copy = encoded(shown, "PNG"), encoded(shown, quality=quality)
    a, b = fingerprint_image(original).evidence, fingerprint_image(copy).evidence
    assert a is not None
    assert b is not None
    assert resemblance(a, b, "strict") is None
    assert index_says(original, copy)
    assert not index_says(original, encoded(other, quality=quality))


def test_two_copies_of_one_picture_are_told_from_an_edit_as_well() -> None:
    """Neither is made of the other, and thumbnails decide."""
    shown, other = (priced(photo(), price) for price in ("6.95", "8.95"))
    first = encoded(shown, quality=70)
    assert index_says(first, encoded(shown, quality=60))
    assert not index_says(first, encoded(other, quality=60))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("name", "side", "place", "level", "prices"),
    [
        ("coffee", 480, (328, 170), 162, ("8.43", "6.43")),
        ("teddy-bear", 640, (390, 284), 77, ("8.43", "6.43")),
        ("beacon-street-sunset", 640, (462, 213), 201, ("8.43", "6.43")),
        ("coffee", 640, (402, 229), 159, ("9.26", "9.28")),
    ],
)
@pytest.mark.parametrize("change", ["jpeg 90", "jpeg 60", "webp", "avif"])
def test_another_digit_in_pale_letters_is_another_picture(
    name: str, side: int, place: tuple[int, int], level: int, prices: tuple[str, str], change: str
) -> None:
    """Such a digit of eight pixels changes a thumbnail no more than compression does."""
    shown, edited = photo(side, name), photo(side, name)
    for picture, price in zip((shown, edited), prices, strict=True):
        ImageDraw.Draw(picture).text(place, price, (level,) * 3, ImageFont.load_default(8))
    apart = np.asarray(ImageChops.difference(shown, edited).convert("L"))
    assert np.count_nonzero(apart >= 40) >= 6, "a reader can tell them apart"
    original = encoded(shown, "PNG")
    saved = CHANGED[change] if change in CHANGED else partial(encoded, quality=int(change.removeprefix("jpeg ")))
    assert not index_says(original, saved(edited))
    assert index_says(original, saved(shown))


def test_pictures_that_are_far_apart_are_not_decoded_once_more() -> None:
    a, b = (fingerprint_image(encoded(photo(name=name), "PNG")).evidence for name in ("chelsea", "coffee"))
    assert a is not None
    assert b is not None
    assert not decided_finely(a, b, None)


def test_a_larger_picture_is_not_compared_by_its_pixels() -> None:
    large = photo(1400).resize((1600, MOST_PIXELS // 1600 + 1))
    evidence = finer_evidence(media.inspect(encoded(large), finely=True))
    assert evidence is not None
    assert unpacked_pixels(evidence) is None
    usual = fingerprint_image(encoded(large)).evidence
    assert usual is not None
    assert not decided_finely(usual, usual, None)


def test_pixels_and_thumbnails_are_compared_as_thumbnails() -> None:
    """As a camera's photo and a small copy are."""
    with Image.open(PHOTOS / "chelsea.jpg") as shown:
        small = shown.convert("RGB")
    large = small.resize((2200, round(2200 * small.height / small.width)), Image.Resampling.BICUBIC)
    evidence = [finer_evidence(media.inspect(encoded(picture, quality=95), finely=True)) for picture in (small, large)]
    assert evidence[0] is not None
    assert evidence[1] is not None
    assert [unpacked_pixels(each) is None for each in evidence if each] == [False, True]
    assert resemblance(evidence[0], evidence[1], "strict") is not None
    other = finer_evidence(media.inspect(encoded(photo(450, "coffee")), finely=True))
    assert other is not None
    assert resemblance(other, evidence[1], "strict") is None


def test_a_grey_copy_of_a_picture_in_colours_is_another_picture() -> None:
    grey = photo().convert("L")
    remains = left(encoded(grey, "PNG"), encoded(grey, quality=40))
    assert remains is not None
    assert remains.luma < 1
    assert left(encoded(photo(), "PNG"), encoded(grey, quality=40)) is None


def test_a_jpeg_that_cannot_be_saved_like_this_again_is_compared_as_it_looks() -> None:
    plain = encoded(photo(), "PNG")
    assert left(plain, encoded(photo().convert("CMYK"), quality=95)) is not None
    assert left(plain, encoded(photo(), quality=95, subsampling="4:1:1")) is not None
