"""Camera raw files of every maker are captioned by their own preview, not by a thumbnail or by what the sensor saw."""

import io
import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from captions import media
from captions.media import MediaError

PHOTO = Image.open(Path(__file__).parents[1] / "media" / "photos" / "coffee.jpg").convert("RGB")
SENSOR, LINEAR = 32_803, 34_892
SUBFILE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, MAKE, STRIPS = 254, 256, 257, 259, 262, 271, 273
ORIENTATION, LENGTHS, TILES, BELOW, JPEG, JPEG_LENGTH, DNG = 274, 279, 324, 330, 513, 514, 50_706
NOISE = random.Random(3).randbytes(60_000).replace(b"\xff\xd8\xff", b"\xff\xd8\0")

Directory = dict[int, int | bytes | list[int]]


def jpeg(width: int, height: int, **options: object) -> bytes:
    file = io.BytesIO()
    PHOTO.resize((width, height)).save(file, "JPEG", quality=70, **options)
    return file.getvalue()


THUMBNAIL, PREVIEW = jpeg(160, 120), jpeg(900, 600)


class Raw:
    """Writes a TIFF of several directories, as cameras do."""

    def __init__(self, head: bytes = b"II*\0", *, first: int = 8) -> None:
        self.order = "<" if head[:1] == b"I" else ">"
        self.data = bytearray(head + struct.pack(f"{self.order}I", first) + bytes(first - 8))

    def add(self, data: bytes) -> int:
        """Append something; return where it stands."""
        self.data += bytes(len(self.data) % 2) + data
        return len(self.data) - len(data)

    def link(self, *directories: Directory, below: tuple[Directory, ...] = ()) -> bytes:
        """Append directories, the first of which has those of `below` below it; return the file."""
        if below:
            places = [self._write(tags, 0) for tags in below]
            directories[0][BELOW] = places
        following = 0
        for tags in reversed(directories):
            following = self._write(tags, following)
        struct.pack_into(f"{self.order}I", self.data, 4, following)
        return bytes(self.data)

    def _write(self, tags: Directory, following: int) -> int:
        entries = b""
        for tag, value in sorted(tags.items()):
            if isinstance(value, bytes):
                entries += struct.pack(f"{self.order}HHII", tag, 2, len(value), self.add(value))
            elif isinstance(value, list):
                there = value[0] if len(value) == 1 else self.add(struct.pack(f"{self.order}{len(value)}I", *value))
                entries += struct.pack(f"{self.order}HHII", tag, 4, len(value), there)
            elif value < 65_536:
                entries += struct.pack(f"{self.order}HHIHH", tag, 3, 1, value, 0)
            else:
                entries += struct.pack(f"{self.order}HHII", tag, 4, 1, value)
        count = struct.pack(f"{self.order}H", len(tags))
        return self.add(count + entries + struct.pack(f"{self.order}I", following))


def sony() -> bytes:
    file = Raw()
    sensor, preview, small = file.add(NOISE), file.add(PREVIEW), file.add(THUMBNAIL)
    return file.link(
        {SUBFILE: 1, COMPRESSION: 6, MAKE: b"SONY\0", ORIENTATION: 6, JPEG: preview, JPEG_LENGTH: len(PREVIEW)},
        {SUBFILE: 1, COMPRESSION: 6, JPEG: small, JPEG_LENGTH: len(THUMBNAIL)},
        below=({WIDTH: 6_000, HEIGHT: 4_000, COMPRESSION: 32_767, PHOTOMETRIC: SENSOR, STRIPS: sensor},),
    )


def pentax() -> bytes:
    file = Raw(b"MM\0*")
    sensor, small, preview = file.add(NOISE), file.add(THUMBNAIL), file.add(PREVIEW)
    return file.link(
        {WIDTH: 4_950, HEIGHT: 3_284, COMPRESSION: 65_535, PHOTOMETRIC: SENSOR, MAKE: b"PENTAX \0", ORIENTATION: 6,
         STRIPS: sensor, LENGTHS: len(NOISE)},
        {COMPRESSION: 6, JPEG: small, JPEG_LENGTH: len(THUMBNAIL)},
        {COMPRESSION: 6, JPEG: preview, JPEG_LENGTH: len(PREVIEW)},
    )  # fmt: skip


def samsung() -> bytes:
    file = Raw()
    preview, small, sensor = file.add(PREVIEW), file.add(THUMBNAIL), file.add(NOISE)
    return file.link(
        {WIDTH: 5_472, HEIGHT: 3_648, MAKE: b"SAMSUNG\0", ORIENTATION: 6, COMPRESSION: 6, STRIPS: preview},
        {COMPRESSION: 6, JPEG: small, JPEG_LENGTH: len(THUMBNAIL)},
        below=({WIDTH: 5_546, HEIGHT: 3_714, COMPRESSION: 32_770, PHOTOMETRIC: SENSOR, STRIPS: sensor},),
    )


def adobe() -> bytes:
    """A DNG whose sensor data are lossy JPEG tiles, each larger than the preview."""
    file = Raw(b"MM\0*")
    small = file.add(bytes(160 * 120 * 3))
    tiles = [file.add(jpeg(1_024, 1_024)) for _ in range(2)]
    preview, parts = file.add(PREVIEW), [file.add(jpeg(1_000, 1_000)) for _ in range(2)]
    return file.link(
        {SUBFILE: 1, WIDTH: 160, HEIGHT: 120, COMPRESSION: 1, PHOTOMETRIC: 2, STRIPS: small, ORIENTATION: 6,
         DNG: 0x01040000},
        below=(
            {WIDTH: 2_048, HEIGHT: 1_024, COMPRESSION: 34_892, PHOTOMETRIC: LINEAR, TILES: tiles},
            {SUBFILE: 1, WIDTH: 900, HEIGHT: 600, COMPRESSION: 7, PHOTOMETRIC: 6, STRIPS: preview},
            {SUBFILE: 1, WIDTH: 2_000, HEIGHT: 1_000, COMPRESSION: 7, PHOTOMETRIC: 6, TILES: parts},
        ),
    )  # fmt: skip


def canon() -> bytes:
    file = Raw(b"II*\0", first=16)
    file.data[8:12] = b"CR\2\0"
    preview, small, sensor = file.add(PREVIEW), file.add(THUMBNAIL), file.add(NOISE)
    return file.link(
        {WIDTH: 900, HEIGHT: 600, COMPRESSION: 6, MAKE: b"Canon\0", ORIENTATION: 6, STRIPS: preview},
        {JPEG: small, JPEG_LENGTH: len(THUMBNAIL)},
        {COMPRESSION: 6, STRIPS: sensor},
    )


def hasselblad() -> bytes:
    """Only a thumbnail and its maker stand in the first directory, the preview somewhere behind."""
    file = Raw()
    small = file.add(bytes(160 * 120 * 3))
    file.add(bytes(64) + PREVIEW)
    return file.link({WIDTH: 160, HEIGHT: 120, COMPRESSION: 1, MAKE: b"Hasselblad\0", ORIENTATION: 6, STRIPS: small})


def headed(head: bytes) -> bytes:
    file = Raw(head)
    file.add(THUMBNAIL + NOISE)
    file.add(PREVIEW)
    return file.link({1: 300, MAKE: b"Somebody\0", ORIENTATION: 6})


def within(head: bytes) -> bytes:
    return head + bytes(200) + headed(b"MM\0*") + NOISE


RAWS = {
    "ARW": sony(),
    "PEF": pentax(),
    "SRW": samsung(),
    "DNG": adobe(),
    "CR2": canon(),
    "3FR": hasselblad(),
    "ORF": headed(b"IIRO"),
    "ORF of old": headed(b"MMOR"),
    "RW2": headed(b"IIU\0"),
    "MRW": within(b"\0MRM"),
    "RAF": within(b"FUJIFILMCCD-RAW "),
    "CR3": within(b"\0\0\0\x18ftypcrx "),
    "CRW": within(b"II\x1a\0\0\0HEAPCCDR"),
    "X3F": within(b"FOVb"),
}


@pytest.mark.parametrize("name", RAWS)
def test_a_raw_file_is_captioned_by_its_preview_turned_as_it_says(name: str) -> None:
    seen = media.inspect(RAWS[name])

    assert (seen.kind, seen.width, seen.height) == ("image", 900, 600)
    assert seen.picture is not None
    assert (seen.picture.width, seen.picture.height) == (600, 900)
    copy, media_type = media.model_copy(RAWS[name])
    assert (media_type, Image.open(io.BytesIO(copy)).size) == ("image/jpeg", (600, 900))


@pytest.mark.parametrize("name", [name for name in RAWS if name != "3FR"])  # which is a TIFF then
def test_a_raw_file_without_a_preview_has_a_reason(name: str) -> None:
    without = RAWS[name].replace(PREVIEW, bytes(len(PREVIEW)))
    with pytest.raises(MediaError, match="preview") as caught:
        media.inspect(without)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("name", RAWS)
def test_a_raw_file_that_was_cut_in_its_preview_is_truncated(name: str) -> None:
    at = RAWS[name].index(PREVIEW)
    cut = RAWS[name][: at + len(PREVIEW) // 2]
    with pytest.raises(MediaError) as caught:
        media.inspect(cut)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("written", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", RAWS)
def test_a_raw_file_whose_preview_was_written_in_part_is_refused(name: str, written: float) -> None:
    whole = RAWS[name]
    start = whole.index(PREVIEW)
    end = start + len(PREVIEW)
    for rest in (whole[end:], bytes(len(whole) - end)):
        part = whole[: start + int(written * len(PREVIEW))]
        with pytest.raises(MediaError) as caught:
            media.inspect(part + bytes(end - len(part)) + rest)
        assert caught.value.code in ("truncated", "broken", "unsupported")


@pytest.mark.parametrize("sampling", ["12 bits", "lossless"])
def test_what_the_sensor_saw_is_no_preview(sampling: str) -> None:
    frame = PREVIEW.index(b"\xff\xc0")
    sensor = bytearray(PREVIEW)
    sensor[frame + 1], sensor[frame + 4] = (0xC1, 12) if sampling == "12 bits" else (0xC3, 8)
    with pytest.raises(MediaError, match="preview"):
        media.inspect(within(b"FOVb").replace(PREVIEW, bytes(sensor)))


@pytest.mark.parametrize("size", [(600, 400), (1_200, 800)])
def test_a_scan_with_a_maker_is_a_tiff(size: tuple[int, int]) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[MAKE] = "A scanner"
    PHOTO.resize(size).save(file, "TIFF", exif=exif)
    seen = media.inspect(file.getvalue())
    assert (seen.media_type, seen.width, seen.height) == ("image/tiff", *size)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_raw_files_end_in_a_picture_or_a_reason(seed: int) -> None:
    chance = random.Random(seed)
    name = chance.choice(list(RAWS))
    data = bytearray(RAWS[name])
    for _ in range(chance.randrange(1, 40)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    at = data.find(b"\x01\x12")
    data[at + 8 : at + 12] = chance.randbytes(4)
    with suppress(MediaError):
        assert media.inspect(bytes(data)).width
