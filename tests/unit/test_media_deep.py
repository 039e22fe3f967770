"""Pictures of more than 8 bits a channel are shown stretched where they use little of them; dark ones stay dark."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from captions import media

MEDIA = Path(__file__).parents[1] / "media"
across, down = np.meshgrid(np.linspace(0, 1, 96), np.linspace(0, 1, 80))
COLOURS = np.dstack([across, down, (across + down) / 2])
GREYS = across
Values = NDArray[np.float64]


def png(values: Values, *, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits: grey, with transparency, RGB or RGBA as there are channels."""
    deep = np.atleast_3d(values).round().astype(">u2")
    height, width, channels = deep.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        *([(b"tRNS", struct.pack(f">{len(clear)}H", *clear))] if clear else []),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in deep))),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values: Values, order: str = "<", *, packed: bool = False, white: int = 1, apart: bool = False) -> bytes:
    """A TIFF of 16 bits a channel; `white` is 0 where 0 is white, and `apart` puts one channel behind the other."""
    deep = np.atleast_3d(values).round().astype(f"{order}u2")
    height, width, channels = deep.shape
    body, kind = (np.moveaxis(deep, 2, 0) if apart else deep).tobytes(), order + "H"
    body = zlib.compress(body) if packed else body
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 0), (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2 if channels >= 3 else white), (273, 4, 1, 0), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, len(body)), *([(284, 3, 1, 2)] if apart else []), *([(338, 3, 1, 2)] if channels in (2, 4) else []),
    ]  # fmt: skip
    behind = 8 + 2 + 12 * len(tags) + 4
    places = behind + 2 * channels
    plane = len(body) // channels
    table = [*range(places + 8 * channels, places + 8 * channels + len(body), plane), *[plane] * channels]
    entries = b""
    for tag, size, count, value in tags:
        if tag == 258 and channels > 2:
            value = behind
        elif tag == 258:
            entries += struct.pack(f"{order}HHIHH", tag, size, count, 16, 16 if channels == 2 else 0)
            continue
        elif tag == 273:
            count, value = (channels, places) if apart else (1, places)
        elif tag == 279 and apart:
            count, value = channels, places + 4 * channels
        inline = struct.pack(kind, value) + bytes(2) if size == 3 and count == 1 else struct.pack(f"{order}I", value)
        entries += struct.pack(f"{order}HHI", tag, size, count) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    bits += struct.pack(f"{order}{2 * channels}I", *table) if apart else b""
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + bits + body


def ppm(values: Values) -> bytes:
    height, width, _ = values.shape
    return b"P6\n%d %d\n65535\n" % (width, height) + values.round().astype(">u2").tobytes()


def plain_ppm(values: Values) -> bytes:
    height, width, _ = values.shape
    rows = (" ".join(str(int(value)) for value in row) for row in values.round().reshape(height, -1))
    return f"P3\n{width} {height} # of 16 bits\n65535\n# 1 row\n{chr(10).join(rows)}\n# the end".encode()


def saved(values: Values, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(kind)).save(file, "TIFF")
    return file.getvalue()


def with_alpha(values: Values, alpha: Values | float = 65_535) -> Values:
    return np.dstack([values, np.broadcast_to(alpha, values.shape[:2])])


def shown(data: bytes) -> list[Image.Image]:
    """What the fingerprint is computed from, and what a model gets."""
    picture = media.inspect(data).picture
    assert picture is not None
    return [picture.working, Image.open(io.BytesIO(media.model_copy(data)[0])).convert("RGB")]


def red(picture: Image.Image, at: tuple[int, int]) -> int:
    values = picture.getpixel(at)
    assert isinstance(values, tuple)
    return values[0]


def extremes(picture: Image.Image) -> tuple[int, int]:
    pixels = np.asarray(picture)
    return int(pixels.min()), int(pixels.max())


KINDS: dict[str, Callable[[float], bytes]] = {
    "grey PNG": lambda top: png(GREYS * top),
    "grey PNG with transparency": lambda top: png(with_alpha(GREYS * top)),
    "RGB PNG": lambda top: png(COLOURS * top),
    "RGBA PNG": lambda top: png(with_alpha(COLOURS * top)),
    "grey TIFF": lambda top: tiff(GREYS * top),
    "grey TIFF, big-endian": lambda top: tiff(GREYS * top, ">"),
    "RGB TIFF": lambda top: tiff(COLOURS * top),
    "RGB TIFF, big-endian": lambda top: tiff(COLOURS * top, ">"),
    "RGB TIFF, packed": lambda top: tiff(COLOURS * top, packed=True),
    "RGB TIFF, packed, big-endian": lambda top: tiff(COLOURS * top, ">", packed=True),
    "RGB TIFF, channels apart": lambda top: tiff(COLOURS * top, apart=True),
    "RGB TIFF, channels apart, big-endian": lambda top: tiff(COLOURS * top, ">", apart=True),
    "RGBA TIFF, channels apart": lambda top: tiff(with_alpha(COLOURS * top), apart=True),
    "RGBA TIFF": lambda top: tiff(with_alpha(COLOURS * top)),
    "RGB PPM": lambda top: ppm(COLOURS * top),
    "RGB PPM, plain": lambda top: plain_ppm(COLOURS * top),
    "integers": lambda top: saved(GREYS * top, "int32"),
    "floats to 1": lambda top: saved(GREYS * top / 65_535, "float32"),
}


@pytest.mark.parametrize("top", [1_023, 4_095, 16_000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_uses_little_of_its_range_is_stretched(kind: str, top: float) -> None:
    for picture in shown(KINDS[kind](top)):
        assert extremes(picture) == (0, 255)
        assert abs(red(picture.resize((96, 80)), (48, 40)) - 128) <= 6


@pytest.mark.parametrize("most", [1_023, 4_095])
@pytest.mark.parametrize("plain", [False, True])
def test_a_ppm_is_stretched_whatever_its_range_is(most: int, plain: bool) -> None:
    data = (plain_ppm if plain else ppm)(COLOURS * most / 8).replace(b"65535", b"%d" % most, 1)
    for picture in shown(data):
        low, high = extremes(picture)
        assert (low <= 2, high >= 250) == (True, True)


@pytest.mark.parametrize("top", [65_535, 4_095, 700])
@pytest.mark.parametrize("packed", [False, True])
def test_where_0_is_white_at_16_bits_the_picture_is_no_negative(top: float, packed: bool) -> None:
    for plain, turned in zip(
        shown(tiff(GREYS * top)), shown(tiff((1 - GREYS) * top, packed=packed, white=0)), strict=True
    ):
        assert np.abs(np.asarray(plain, dtype=int) - np.asarray(turned, dtype=int)).max() <= 2


def test_channels_that_stand_apart_are_read_at_their_depth() -> None:
    for together, apart in zip(shown(tiff(COLOURS * 65_535)), shown(tiff(COLOURS * 65_535, apart=True)), strict=True):
        assert together.tobytes() == apart.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_uses_its_range_is_shown_as_it_is(kind: str) -> None:
    for picture in shown(KINDS[kind](40_000)):
        low, high = extremes(picture)
        assert low == 0
        assert high == pytest.approx(156, abs=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dark_picture_of_8_bits_stays_dark_at_16(kind: str) -> None:
    steps = {name: (GREYS * 30).round() * 257 for name in ("grey",)}["grey"]
    dark = png(steps) if "PNG" in kind else tiff(steps, ">" if "big" in kind else "<")
    if "RGB" in kind:
        colours = (COLOURS * 30).round() * 257
        dark = png(colours) if "PNG" in kind else tiff(colours, ">" if "big" in kind else "<", packed="packed" in kind)
        dark = ppm(colours) if "PPM" in kind else dark
    if kind == "integers":
        dark = saved(steps, "int32")
    if kind == "floats to 1":
        dark = saved(steps / 65_535, "float32")
    for picture in shown(dark):
        assert extremes(picture)[1] <= 31


@pytest.mark.parametrize("channels", [1, 3])
def test_the_noise_of_a_sensor_that_saw_no_light_stays_black(channels: int) -> None:
    noise = np.random.default_rng(7).normal(600, 60, (160, 200, channels)).clip(0)
    for picture in shown(png(noise)):
        assert extremes(picture)[1] < 8


def test_a_few_lights_in_the_night_keep_it_dark() -> None:
    night = COLOURS * 1_500
    night[40, 40:44] = 60_000
    for picture in shown(png(night)):
        assert np.median(np.asarray(picture)) < 8


def test_colours_keep_their_proportions_and_what_is_clear_stays_clear() -> None:
    values = np.zeros((64, 64, 3))
    values[:, :32], values[:, 32:48] = (4_000, 2_000, 1_000), (0, 0, 0)
    values[:, 48:] = (60_000, 60_000, 60_000)
    for picture in shown(png(values, clear=(60_000, 60_000, 60_000))):
        assert picture.getpixel((10, 10)) == pytest.approx((255, 128, 64), abs=4)
        assert picture.getpixel((60, 10)) == (255, 255, 255)
    hidden = with_alpha(values, np.where(np.arange(64) < 48, 65_535, 0))
    for picture in shown(png(hidden)):
        assert picture.getpixel((10, 10)) == pytest.approx((255, 128, 64), abs=4)
        assert picture.getpixel((60, 10)) == (255, 255, 255)


def test_what_is_no_number_is_black_and_does_not_spoil_the_rest() -> None:
    values = GREYS.copy()
    values[:8], values[8:10] = np.nan, np.inf
    for picture in shown(saved(values, "float32")):
        assert picture.getpixel((90, 3)) == (0, 0, 0)
        assert red(picture, (90, 60)) > 200
    assert extremes(shown(saved(np.full((80, 96), np.nan), "float32"))[0]) == (0, 0)


@pytest.mark.parametrize("name", ["deep-rgb.jp2", "deep-rgba.j2k", "deep-grey-alpha.jp2"])
def test_a_deep_jpeg_2000_has_its_white_and_is_opaque(name: str) -> None:
    # White above; below, grey from black to white, in RGB with green the other way round.
    for picture in shown((MEDIA / "odd" / name).read_bytes()):
        values = np.asarray(picture.convert("RGB").resize((64, 48))).astype(int)
        assert values[:22].min() >= 250
        ramp = np.linspace(0, 255, 64)
        for channel in range(3):
            falls = channel == 1 and "grey" not in name
            assert np.abs(values[26:, :, channel] - (ramp[::-1] if falls else ramp)).max() <= 12


def test_a_picture_of_16_bits_keeps_its_orientation_when_it_is_stretched() -> None:
    data = png(COLOURS * 4_095)
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    turned = data[:33] + chunk + data[33:]
    picture = media.inspect(turned).picture
    assert picture is not None
    assert (picture.width, picture.height, picture.orientation) == (80, 96, 6)
    assert picture.working.size == (80, 96)
