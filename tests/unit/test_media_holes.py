"""Files of which a stretch was never written, so that zeros stand there, are told from whole ones that hold zeros."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from captions import media
from captions.media import MediaError

pytestmark = pytest.mark.deep

PHOTO = Image.open(Path(__file__).parents[1] / "media" / "photos" / "coffee.jpg").convert("RGB").resize((600, 451))
WHITE = Image.new("RGB", (1_600, 1_200), (255, 255, 255))


def page() -> Image.Image:
    picture = WHITE.copy()
    pen = ImageDraw.Draw(picture)
    for line in range(30):
        pen.text((60, 60 + 20 * line), f"Line {line} of a page that is white below it.", fill=(20, 20, 20))
    picture.paste(PHOTO.resize((320, 240)), (1_100, 80))
    return picture


def saved(picture: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


def animated(picture: Image.Image) -> bytes:
    return saved(picture, "WEBP", save_all=True, append_images=[picture.rotate(90), picture.rotate(180)])


def veiled(picture: Image.Image) -> Image.Image:
    result = picture.convert("RGBA")
    result.putalpha(Image.radial_gradient("L").resize(picture.size))
    return result


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda picture: saved(picture, "JPEG"),
    "JPEG with its own tables": lambda picture: saved(picture, "JPEG", optimize=True),
    "JPEG in grey": lambda picture: saved(picture.convert("L"), "JPEG", optimize=True),
    "JPEG in CMYK": lambda picture: saved(picture.convert("CMYK"), "JPEG", optimize=True),
    "JPEG with restarts": lambda picture: saved(picture, "JPEG", restart_marker_rows=1),
    "progressive JPEG": lambda picture: saved(picture, "JPEG", progressive=True, quality=90),
    "PNG": lambda picture: saved(picture, "PNG"),
    "GIF": lambda picture: saved(picture, "GIF"),
    "WebP": lambda picture: saved(picture, "WEBP"),
    "WebP of high quality": lambda picture: saved(picture, "WEBP", quality=100, method=0),
    "lossless WebP": lambda picture: saved(picture, "WEBP", lossless=True, method=0, quality=0),
    "WebP with transparency": lambda picture: saved(veiled(picture), "WEBP"),
    "animated WebP": animated,
    "AVIF": lambda picture: saved(picture, "AVIF", speed=10),
    "JPEG 2000": lambda picture: saved(picture, "JPEG2000", quality_mode="rates", quality_layers=[12]),
    "TIFF in LZW": lambda picture: saved(picture, "TIFF", compression="tiff_lzw"),
    "deflated TIFF": lambda picture: saved(picture, "TIFF", compression="tiff_adobe_deflate"),
    "JPEG in TIFF": lambda picture: saved(picture, "TIFF", compression="jpeg"),
    "TIFF in PackBits": lambda picture: saved(picture, "TIFF", compression="packbits"),
    "fax in TIFF": lambda picture: saved(picture.convert("1"), "TIFF", compression="group4"),
    "TIFF": lambda picture: saved(picture, "TIFF"),
    "BMP": lambda picture: saved(picture, "BMP"),
    "TGA": lambda picture: saved(picture, "TGA"),
    "packed TGA": lambda picture: saved(picture, "TGA", compression="tga_rle"),
    "PPM": lambda picture: saved(picture, "PPM"),
    "PGM": lambda picture: saved(picture.convert("L"), "PPM"),
    "QOI": lambda picture: saved(picture.reduce(2), "QOI"),  # Pillow reads each pixel of it in Python
    "icon": lambda picture: saved(picture, "ICO", sizes=[(256, 256)], bitmap_format="bmp"),
}


@cache
def saved_photo(name: str) -> bytes:
    return FORMATS[name](PHOTO)


NOT_PACKED = {"TIFF", "BMP", "TGA", "PPM", "PGM", "icon"}
"""A hole of one sector is a line in them; nothing behind it is lost."""


def refused(data: bytes) -> str:
    with pytest.raises(MediaError) as caught:
        media.inspect(data)
    return caught.value.code


@pytest.mark.parametrize("share", [0.35, 0.66, 0.91])
@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_whose_tail_was_never_written_is_refused(name: str, share: float) -> None:
    whole = saved_photo(name)
    assert media.inspect(whole).picture
    start = int(len(whole) * share)
    if name in NOT_PACKED:
        start = start // 512 * 512
    assert refused(whole[:start] + bytes(len(whole) - start)) in ("truncated", "broken")


@pytest.mark.parametrize("share", [0.35, 0.66, 0.91])
@pytest.mark.parametrize("name", ["JPEG", "JPEG with its own tables", "JPEG in grey", "progressive JPEG", "PNG", "GIF"])
def test_more_room_than_a_picture_takes_does_not_make_it_whole(name: str, share: float) -> None:
    """Decoders find enough zeros to draw all of it."""
    whole = saved_photo(name)
    assert media.inspect(whole + bytes(2_000_000)).picture
    assert refused(whole[: int(len(whole) * share)] + bytes(2_000_000)) in ("truncated", "broken")


@pytest.mark.parametrize(
    ("name", "place"),
    # At its end a progressive JPEG holds the last bit of each value, of which little is seen.
    [(name, place) for name in FORMATS for place in (0.3, 0.5, 0.7) if name != "progressive JPEG" or place < 0.6],
)
def test_a_picture_that_lost_sectors_within_is_refused(name: str, place: float) -> None:
    whole = saved_photo(name)
    start = int(len(whole) * place) // 512 * 512
    end = start + (max(4_096, len(whole) // 10 // 512 * 512) if name in NOT_PACKED else 1_024)
    assert refused(whole[:start] + bytes(end - start) + whole[end:]) in ("truncated", "broken")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "picture",
    [WHITE, Image.new("RGB", WHITE.size), page(), Image.linear_gradient("L").resize(WHITE.size).convert("RGB")],
    ids=["white", "black", "page", "gradient"],
)
def test_a_whole_picture_is_taken_however_many_zeros_it_holds(name: str, picture: Image.Image) -> None:
    assert media.inspect(FORMATS[name](picture)).picture


@pytest.mark.parametrize(
    "name", ["JPEG in grey", "JPEG in CMYK", "progressive JPEG", "WebP of high quality", "lossless WebP"]
)
def test_flat_parts_of_whole_pictures_are_coded_as_zeros(name: str) -> None:
    """What makes the length of a run no proof."""
    assert any(bytes(512) in FORMATS[name](picture) for picture in (WHITE, page()))


def test_high_efficiency_pictures_never_hold_such_runs() -> None:
    whole = (Path(__file__).parents[1] / "media" / "odd" / "otters.heic").read_bytes()
    assert media.inspect(whole).picture
    start = len(whole) // 2
    assert refused(whole[:start] + bytes(len(whole) - start)) == "truncated"
    assert refused(whole[:start] + bytes(512) + whole[start + 512 :]) == "truncated"


def on_black(offset: tuple[int, int], size: tuple[int, int], angle: float = 0) -> Image.Image:
    picture = Image.new("RGB", size)
    picture.paste(PHOTO.rotate(angle, expand=True), offset)
    return picture


@pytest.mark.parametrize("name", sorted(NOT_PACKED))
@pytest.mark.parametrize(
    "picture",
    [
        on_black((0, 0), (600, 700)),
        on_black((0, 120), (600, 700)),
        on_black((80, 60), (800, 600)),
        on_black((0, 0), (700, 600), angle=0.3),
        on_black((40, 40), (900, 800), angle=7),
        Image.composite(PHOTO, Image.new("RGB", PHOTO.size), Image.linear_gradient("L").resize(PHOTO.size).rotate(181)),
    ],
    ids=["above black", "letterboxed", "framed", "askew", "turned", "fading"],
)
def test_a_photo_on_black_is_whole(name: str, picture: Image.Image) -> None:
    assert media.inspect(FORMATS[name](picture)).picture


def test_zeros_in_what_is_no_picture_are_no_hole() -> None:
    """Makers' notes and colour profiles hold thousands of them."""
    exif = Image.Exif()
    exif[0x927C] = bytes(3_000)
    for name in ("JPEG", "WEBP", "AVIF", "TIFF", "PNG"):
        assert media.inspect(saved(PHOTO, name, exif=exif.tobytes())).picture
    note = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
    whole = saved(PHOTO, "JPEG")
    assert media.inspect(whole[:2] + note + whole[2:]).picture
