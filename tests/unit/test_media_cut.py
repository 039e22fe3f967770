"""Pictures that were cut off are told from whole ones, also when an end was put behind what is left."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captions import media
from captions.media import MediaError

pytestmark = pytest.mark.deep

MEDIA = Path(__file__).parents[1] / "media"
PHOTO = Image.open(MEDIA / "photos" / "coffee.jpg").convert("RGB")
END = b"\xff\xd9"


def jpeg(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


OPTIONS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "restarts in rows": {"restart_marker_rows": 1},
    "restarts in blocks": {"restart_marker_blocks": 7},
    "coarse": {"quality": 20},
}


@pytest.mark.parametrize("size", [(333, 251), (1_601, 1_203)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_jpeg_that_was_cut_is_truncated_though_it_ends_as_it_should(
    options: str, mode: str, size: tuple[int, int]
) -> None:
    whole = jpeg(PHOTO.resize(size).convert(mode), **OPTIONS[options])
    assert media.inspect(whole).picture
    for share in (0.3, 0.5):
        with pytest.raises(MediaError) as caught:
            media.inspect(whole[: int(len(whole) * share)] + END)
        assert caught.value.code == "truncated"


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("size", [(200, 150), (1_601, 1_203)], ids=str)
@pytest.mark.parametrize("name", ["refined", "by frequency"])
def test_a_progressive_jpeg_that_was_cut_in_its_last_scan_is_truncated(
    name: str, size: tuple[int, int], part: float
) -> None:
    # One whose last scan adds a bit to all frequencies of the luminance, and one whose last scan holds the high ones.
    by_frequency = (MEDIA / "odd" / "by-frequency.jpg").read_bytes()
    whole = jpeg(PHOTO.resize(size), progressive=True) if name == "refined" else by_frequency
    assert media.inspect(whole).picture
    last = whole.rindex(b"\xff\xda") + 12
    with pytest.raises(MediaError) as caught:
        media.inspect(whole[: last + int(part * (len(whole) - last))].removesuffix(b"\xff") + END)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("ground", [(255, 255, 255), (128, 128, 128), (0, 0, 0), (250, 240, 10)])
def test_a_whole_jpeg_that_ends_in_one_colour_is_taken(ground: tuple[int, int, int], options: str) -> None:
    picture = Image.new("RGB", (640, 700), ground)
    picture.paste(PHOTO.resize((300, 200)), (40, 40))
    assert media.inspect(jpeg(picture, **OPTIONS[options])).picture
    assert media.inspect(jpeg(Image.new("RGB", (640, 700), ground), **OPTIONS[options])).picture


def test_what_stands_behind_a_jpeg_and_before_its_end_is_passed_over() -> None:
    whole = jpeg(Image.new("RGB", (640, 700), (255, 255, 255)))
    assert media.inspect(whole + bytes(5_000)).picture
    assert media.inspect(whole[:-2] + bytes(5_000) + END).picture


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("ICO", {}),
    ],
)
def test_a_picture_that_was_cut_is_truncated_in_every_format(name: str, options: dict[str, object]) -> None:
    file = io.BytesIO()
    PHOTO.resize((400, 300)).save(file, name, **options)
    whole = file.getvalue()
    assert media.inspect(whole).picture
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(MediaError) as caught:
            media.inspect(whole[: int(len(whole) * share)])
        assert caught.value.code == "truncated"


@pytest.mark.parametrize("name", ["JPEG", "JPEG2000", "PNG", "GIF", "ICO", "QOI"])
def test_a_preallocated_picture_whose_tail_was_not_written_is_rejected(name: str) -> None:
    """Zeros stand in its place; behind a whole file they are harmless. Other formats do not say where they end."""
    file = io.BytesIO()
    PHOTO.resize((400, 300)).save(file, name)
    whole = file.getvalue()
    assert media.inspect(whole + bytes(5_000)).picture
    for share in (0.3, 0.6, 0.95):
        written = whole[: int(len(whole) * share)]
        with pytest.raises(MediaError) as caught:
            media.inspect(written + bytes(len(whole) - len(written)))
        assert caught.value.code in ("truncated", "broken")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "QOI", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "PPM"])
def test_what_stands_behind_a_picture_is_passed_over(name: str) -> None:
    file = io.BytesIO()
    PHOTO.resize((200, 150)).save(file, name)
    for tail in (b"\n", b"--boundary--\r\n", bytes(5_000), bytes(3_000_000)):
        assert media.inspect(file.getvalue() + tail).picture


def closed_png(whole: bytes, end: int) -> bytes:
    data = whole[whole.index(b"IDAT") + 4 : end]
    packed = (struct.pack(">I", len(body)) + name + body for name, body in ((b"IDAT", data), (b"IEND", b"")))
    return whole[:33] + b"".join(body + struct.pack(">I", zlib.crc32(body[4:])) for body in packed)


def closed_gif(whole: bytes, end: int) -> bytes:
    block = whole.index(b",", 13 + 768) + 11
    while block + 1 + whole[block] < end:
        block += 1 + whole[block]
    return whole[:block] + b"\0;"


def closed_webp(whole: bytes, end: int) -> bytes:
    body = whole[20 : end - end % 2]
    return b"RIFF" + struct.pack("<I", len(body) + 12) + whole[8:16] + struct.pack("<I", len(body)) + body


def closed_avif(whole: bytes, end: int) -> bytes:
    start = whole.index(b"mdat")
    return whole[: start - 4] + struct.pack(">I", end - start + 4) + whole[start:end]


@pytest.mark.parametrize(
    ("name", "options", "closed"),
    [
        ("PNG", {}, closed_png),
        ("GIF", {}, closed_gif),
        ("WEBP", {}, closed_webp),
        ("WEBP", {"lossless": True}, closed_webp),
        ("AVIF", {}, closed_avif),
        ("JPEG2000", {"no_jp2": True}, lambda whole, end: whole[:end] + END),
    ],
)
def test_a_picture_that_was_cut_and_closed_is_rejected_in_every_format(
    name: str, options: dict[str, object], closed: Callable[[bytes, int], bytes]
) -> None:
    file = io.BytesIO()
    PHOTO.resize((120, 90)).save(file, name, **options)
    whole = file.getvalue()
    assert media.inspect(closed(whole, len(whole) - (16 if name == "PNG" else 0))).picture  # which closes nothing new
    for share in (0.5, 0.95):
        with pytest.raises(MediaError) as caught:
            media.inspect(closed(whole, int(len(whole) * share)))
        assert caught.value.code in ("truncated", "broken")


@pytest.mark.parametrize("end", [b"", bytes(12), bytes(5_000)])
def test_a_png_that_lacks_its_end_marker_alone_is_taken(end: bytes) -> None:
    file = io.BytesIO()
    PHOTO.resize((400, 300)).save(file, "PNG")
    without_marker = file.getvalue()[:-12]
    assert media.inspect(without_marker + end).picture
    icon = struct.pack("<HHH8xII", 0, 1, 1, len(without_marker), 22) + without_marker
    assert media.inspect(icon + end).picture
    even = io.BytesIO()
    Image.new("L", (3_000, 2_000), 200).save(even, "PNG")  # a few bytes hold many
    assert media.inspect(even.getvalue()[:-12] + end).picture


def test_an_icon_that_nobody_draws_may_state_too_long_a_length() -> None:
    file = io.BytesIO()
    PHOTO.resize((256, 256)).save(file, "ICO", sizes=[(16, 16), (256, 256)])
    icons = bytearray(file.getvalue())
    struct.pack_into("<I", icons, 6 + 8, 1_000_000)  # of the smaller one
    assert media.inspect(bytes(icons)).picture


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 7}, {"optimize": True}],
    ids=["baseline", "progressive", "restarts", "optimised"],
)
def test_a_jpeg_that_lacks_its_end_marker_alone_is_taken(options: dict[str, object]) -> None:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        data = jpeg(photo.convert("RGB").resize((300, 200)), quality=90, **options)
    for cut in (data[:-2], data[:-1], data[:-2] + b"\r\n--boundary--\r\n"):
        assert media.inspect(cut).picture is not None
        assert media.model_copy(cut)[1] == "image/jpeg"
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(media.MediaError) as caught:
            media.inspect(data[: int(len(data) * share)])
        assert caught.value.code == "truncated"
