"""What a file is, told from its bytes; and that every bad file ends in a reason."""

import contextlib
import io
import random
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captions import media
from captions.media import Limits, MediaError, containers
from captions.media.containers import container

MEDIA = Path(__file__).parents[1] / "media"
SMALL = Limits(image_bytes=300_000, image_pixels=1_000_000, audio_bytes=100_000, video_bytes=100_000)


def encoded(picture: Image.Image, name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def frames(count: int = 3) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), (60 * n, 10, 200 - 60 * n)) for n in range(count)]


@pytest.mark.parametrize(
    ("path", "kind", "media_type"),
    [
        ("odd/jpeg_named.png", "image", "image/jpeg"),
        ("odd/webp_named.jpg", "image", "image/webp"),
        ("odd/picture_without_extension", "image", "image/jpeg"),
        ("odd/one_pixel.png", "image", "image/png"),
        ("odd/very_wide.png", "image", "image/png"),
        ("odd/otters.avif", "image", "image/avif"),
        ("odd/otters.heic", "image", "image/heic"),
        ("odd/otters_cmyk.jpg", "image", "image/jpeg"),
        ("odd/otters_gray16.png", "image", "image/png"),
        ("odd/otters_palette_alpha.png", "image", "image/png"),
        ("odd/otters_progressive.jpg", "image", "image/jpeg"),
        ("audio/lj_5.gsm.wav", "audio", "audio/wav"),
        ("audio/lj_5.m4a", "audio", "audio/mp4"),
        ("audio/lj_5.ogg", "audio", "audio/ogg"),
        ("audio/lj_5.opus", "audio", "audio/ogg"),
        ("audio/lj_5.webm", "audio", "audio/webm"),
        ("audio/LJ001-0002.flac", "audio", "audio/flac"),
        ("audio/LJ001-0002.wav", "audio", "audio/wav"),
        ("audio/LJ001-0005.mp3", "audio", "audio/mpeg"),
    ],
)
def test_kind_and_type_come_from_the_bytes(path: str, kind: str, media_type: str) -> None:
    result = media.inspect((MEDIA / path).read_bytes())
    assert (result.kind, result.media_type) == (kind, media_type)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("odd/zero_bytes.jpg", "empty"),
        ("odd/text_named.jpg", "unsupported"),
        ("odd/text_named.mp3", "unsupported"),
        ("odd/noise_named.wav", "unsupported"),
        ("odd/otters.jxl", "unsupported"),
        ("odd/otters_truncated.jpg", "truncated"),
        ("odd/mono.invalid.wav", "truncated"),
        ("odd/mono.zero.wav", "broken"),
        ("odd/truncated.mp3", "truncated"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(path: str, code: str) -> None:
    with pytest.raises(MediaError) as caught:
        media.inspect((MEDIA / path).read_bytes())
    assert caught.value.code == code
    assert caught.value.message


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\3\4" + bytes(40), "ZIP"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(40), "office"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(20), "metafile"),
    ],
)
def test_types_that_are_not_captioned_are_named(data: bytes, name: str) -> None:
    with pytest.raises(MediaError, match=name) as caught:
        media.sniff(data)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "AVIF"])
def test_several_frames_make_an_animation(name: str) -> None:
    first, *rest = frames()
    data = encoded(first, name, save_all=True, append_images=rest, duration=100)
    assert (media.sniff(data).kind, media.sniff(data).frames) == ("animation", 3)


def test_one_frame_in_an_animated_format_is_a_picture() -> None:
    assert media.sniff(encoded(frames(1)[0], "GIF", save_all=True)).kind == "image"


def test_several_pages_make_a_document() -> None:
    first, *rest = frames()
    data = encoded(first, "TIFF", save_all=True, append_images=rest)
    assert media.inspect(data).kind == "document"


def test_the_second_view_of_a_stereo_picture_is_no_animation() -> None:
    first, *rest = frames(2)
    result = media.inspect(encoded(first, "MPO", save_all=True, append_images=rest))
    assert (result.kind, result.media_type) == ("image", "image/jpeg")


def test_a_camera_raw_file_is_not_taken_for_a_tiff() -> None:
    entries = struct.pack("<HHIHHHI4BI", 2, 256, 0, 0, 50706, 1, 4, 1, 4, 0, 0, 0)
    with pytest.raises(MediaError, match="raw"):
        media.sniff(
            b"II*\0"
            + struct.pack("<I", 8)
            + struct.pack("<H", 1)
            + struct.pack("<HHI4B", 50706, 1, 4, 1, 4, 0, 0)
            + entries
        )


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), *chunks):
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


def gif_with_frame(width: int, height: int) -> bytes:
    picture = encoded(Image.new("P", (16, 16)), "GIF")
    return picture[:-1] + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


def icon_with(width: int, height: int) -> bytes:
    inner = png(width, height)
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


@pytest.mark.parametrize(
    "data",
    [
        png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1000)))),
        png(8, 8, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", zlib.compress(bytes(200)))),
        gif_with_frame(65_000, 65_000),
        icon_with(40_000, 40_000),
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(50),
    ],
    ids=["png", "png text", "gif frame", "icon", "bmp"],
)
def test_a_bomb_is_refused_before_it_is_decoded(data: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        media.inspect(data)
    assert caught.value.code == "bomb"


def jpeg(**options: object) -> bytes:
    return encoded(Image.new("RGB", (64, 48), "red"), "JPEG", **options)


def tiff(tags: dict[int, int], *, pages: int = 1) -> bytes:
    """A grey TIFF of 16 x 16 pixels with further LONG tags; its pages stand one behind the other."""
    plain = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 256}
    entries = sorted((plain | tags).items())
    size, out = 2 + 12 * len(entries) + 4, bytearray(b"II*\0" + struct.pack("<I", 8 + 256) + bytes(256))
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    for page in range(1, pages + 1):
        out += body + struct.pack("<I", len(out) + size if page < pages else 0)
    return bytes(out)


def progressive_jpeg_with_scans(count: int) -> bytes:
    data = jpeg(progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: jpeg()[:2] + b"\xff\xe5\0\2" * 200_000 + jpeg()[2:], id="jpeg segments"),
        pytest.param(lambda: progressive_jpeg_with_scans(200), id="jpeg scans"),
        pytest.param(lambda: png(8, 8) + png(8, 8, (b"teSt", b""))[33:] * 110_000, id="png chunks"),
        pytest.param(lambda: gif_with_frame(8, 8)[:-1] + b"!\xfe\0" * 1_100_000 + b";", id="gif blocks"),
        pytest.param(lambda: tiff({}, pages=6_000), id="tiff pages"),
        pytest.param(lambda: tiff({322: 30_000, 323: 30_000, 324: 8, 325: 256}), id="tiff tile"),
        pytest.param(lambda: b"P5 3000 3000 127\n" + bytes(9_000_000), id="pgm decoded in Python"),
    ],
)
def test_a_file_that_takes_long_or_much_memory_for_what_it_shows_is_refused(data: Callable[[], bytes]) -> None:
    with pytest.raises(MediaError) as caught:
        media.inspect(data())
    assert caught.value.code == "bomb"


def test_bands_that_take_more_memory_take_from_the_pixels() -> None:
    limits = Limits(image_pixels=10_000)
    assert media.sniff(encoded(Image.new("RGB", (100, 100)), "JPEG2000"), limits).kind == "image"
    assert media.sniff(encoded(Image.new("RGBA", (86, 86)), "JPEG2000"), limits).kind == "image"
    with pytest.raises(MediaError) as caught:
        media.sniff(encoded(Image.new("RGBA", (100, 100)), "JPEG2000"), limits)
    assert caught.value.code == "bomb"


def test_a_jpeg_padded_with_millions_of_fill_bytes_is_refused() -> None:
    with pytest.raises(MediaError) as caught:
        media.inspect(jpeg()[:2] + b"\xff" * 2_000_000 + jpeg()[2:])
    assert caught.value.code == "broken"


def test_what_real_files_are_made_of_is_not_too_much() -> None:
    """Progressive scans, fill bytes, several pages, tiles larger than the picture, and IFDs that go in circles."""
    circle = bytearray(tiff({}, pages=2))
    circle[-4:] = circle[4:8]
    tile = {322: 256, 323: 256, 324: 8, 325: 256}
    assert media.inspect(jpeg(progressive=True)).kind == "image"
    assert media.inspect(jpeg()[:2] + b"\xff" * 300 + jpeg()[2:]).kind == "image"
    assert media.inspect(tiff({}, pages=40)).frames == 40
    assert media.inspect(bytes(circle)).frames == 2
    assert media.sniff(tiff(tile)).kind == "image"
    assert media.inspect(b"P5 300 300 127\n" + bytes(90_000)).kind == "image"


def test_only_one_large_picture_is_decoded_at_a_time() -> None:
    large, small = (
        encoded(Image.new("L", (4100, 3100)), "PNG", compress_level=1),
        encoded(Image.new("L", (9, 9)), "PNG"),
    )
    one_large, waiting = threading.Lock(), threading.Thread(target=lambda: media.inspect(large, one_large=one_large))
    with one_large:
        assert media.inspect(small, one_large=one_large).kind == "image"
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join()
    assert not one_large.locked()


def test_a_file_over_its_limit_is_too_large() -> None:
    noise = random.Random(1).randbytes(400 * 400 * 3)
    with pytest.raises(MediaError) as caught:
        media.inspect(encoded(Image.frombytes("RGB", (400, 400), noise), "PNG"), SMALL)
    assert caught.value.code == "too_large"
    wav = b"RIFF" + struct.pack("<I", 200_036) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    with pytest.raises(MediaError) as caught:
        media.inspect(wav + b"data" + struct.pack("<I", 200_000) + bytes(200_000), SMALL)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "TGA", "QOI"])
def test_a_picture_cut_in_the_middle_is_refused(name: str) -> None:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        data = encoded(photo.resize((120, 90)), name)
    assert media.inspect(data).kind == "image"
    with pytest.raises(MediaError):
        media.inspect(data[: len(data) * 6 // 10])


@pytest.mark.parametrize("path", ["odd/otters.heic", "audio/lj_5.m4a", "audio/lj_5.webm"])
def test_a_container_cut_in_the_middle_is_refused(path: str) -> None:
    data = (MEDIA / path).read_bytes()
    with pytest.raises(MediaError) as caught:
        media.inspect(data[: len(data) * 6 // 10])
    assert caught.value.code in ("truncated", "broken")


SAMPLES = sorted(
    p
    for p in MEDIA.rglob("*")
    if p.suffix in (".jpg", ".png", ".avif", ".heic", ".wav", ".mp3", ".m4a", ".ogg", ".opus", ".webm", ".flac")
)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_damaged_bytes_always_end_in_an_answer(path: Path) -> None:
    """Whatever happens to a file, it is taken or refused with a reason: no other exception, no endless loop."""
    data = path.read_bytes()[:40_000]
    rng = random.Random(path.name)
    for _ in range(25):
        damaged = bytearray(data[: rng.randrange(1, len(data))] if data and rng.random() < 0.5 else data)
        for _ in range(rng.randrange(12)):
            if damaged:
                damaged[rng.randrange(min(len(damaged), rng.choice((32, 400, 40_000))))] = rng.choice(
                    (0, 255, rng.randrange(256))
                )
        with contextlib.suppress(MediaError):
            media.inspect(bytes(damaged), SMALL)
            media.picture_payload_digest(bytes(damaged))
            media.payload_digest(bytes(damaged))


def wave(samples: bytes, stated: int) -> bytes:
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16) + b"data" + struct.pack("<I", stated)
    return b"RIFF" + struct.pack("<I", min(stated + 36, 0xFFFFFFFF)) + head + samples


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 0x7FFFFFFF, 16_001, 20_000, 3_000_000_000])
def test_of_a_recording_whose_length_is_not_known_yet_what_is_there_is_taken(stated: int) -> None:
    data = wave(random.Random(3).randbytes(16_000), stated)

    seen, payload = media.inspect(data), media.audio_payload(data)

    assert (seen.kind, seen.duration_s) == ("audio", 1.0)
    assert (seen.note is not None) == (stated in (16_001, 20_000, 3_000_000_000))
    assert payload.data[40:44] == struct.pack("<I", 16_000)  # decoders of models believe the header
    assert payload.data[44:] == data[44:]


def test_a_recording_without_a_sample_is_broken() -> None:
    for reported in (0, 400):
        with pytest.raises(MediaError):
            media.inspect(wave(b"", reported))


@pytest.mark.parametrize("tail", [b"--boundary--\r\n", bytes(4_096), b"TAG" + bytes(125), b"\xff" * 50, b"\n"])
def test_what_stands_behind_a_videos_last_box_is_passed_over(tail: bytes) -> None:
    data = (MEDIA / "audio" / "lj_5.m4a").read_bytes()

    assert media.inspect(data + tail).duration_s == media.inspect(data).duration_s


def test_an_index_that_claims_more_samples_than_there_are_bytes_is_a_bomb() -> None:
    data = bytearray((MEDIA / "audio" / "lj_5.m4a").read_bytes())
    sizes, times = data.index(b"stsz"), data.index(b"stts")
    for at in (sizes + 12, times + 12):
        bomb = bytearray(data)
        bomb[at : at + 4] = struct.pack(">I", 30_000_000)
        with pytest.raises(MediaError) as caught:
            media.sniff(bytes(bomb))
        assert caught.value.code == "bomb"


def box(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)


def sound_with(samples: int, *before: bytes) -> bytes:
    """An MP4 of a track in which each of `samples` bytes is a chunk of its own, all at two places."""
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), box(b"sowt", bytes(28))),
        box(b"stsz", struct.pack(">III", 0, 0, samples), bytes(4 * samples)),
        box(b"stsc", struct.pack(">5I", 0, 1, 1, 1, 1)),
        box(b"stco", struct.pack(">II", 0, samples), struct.pack(">II", 40, 44) * (samples // 2)),
        box(b"stts", struct.pack(">4I", 0, 1, samples, 1)),
    )
    header = box(b"mdhd", bytes(12), struct.pack(">II", 16_000, 16_000), bytes(4))
    handler = box(b"hdlr", bytes(8), b"soun", bytes(13))
    track = box(b"trak", *before, box(b"mdia", header, handler, box(b"minf", table)))
    return box(b"ftyp", b"M4A ", bytes(4)) + box(b"mdat", bytes(64)) + box(b"moov", track)


def test_an_index_takes_little_memory() -> None:
    data = sound_with(20_000)
    tracemalloc.start()
    try:
        assert media.payload_digest(data) is not None
        assert tracemalloc.get_traced_memory()[1] < 8 * len(data)
    finally:
        tracemalloc.stop()


def test_a_wav_of_countless_chunks_takes_little_memory() -> None:
    plain = wave(bytes(16_000), 16_000)
    data = plain[:12] + b"JUNK" + bytes(4) + (b"JUNK" + bytes(4)) * 50_000 + plain[12:]
    tracemalloc.start()
    try:
        assert containers.with_lengths(data) == data
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()


def test_an_index_of_too_many_places_is_not_taken_apart() -> None:
    data = sound_with(container.MOST_PARTS // 2 + 2)
    assert media.sniff(data).kind == "audio"
    assert media.payload_digest(data) is None


def test_countless_boxes_and_tracks_are_a_bomb() -> None:
    start = box(b"ftyp", b"M4A ", bytes(4)) + box(b"mdat", bytes(64))
    for data in (sound_with(2, box(b"free") * 2_000), start + box(b"moov", box(b"trak") * 2_000)):
        with pytest.raises(MediaError) as caught:
            media.sniff(data)
        assert caught.value.code == "bomb"


@pytest.mark.parametrize(
    ("head", "media_type"),
    [(b"wvpk", "audio/x-wavpack"), (b"\x0b\x77", "audio/ac3"), (b"TTA1", "audio/x-tta"), (b"MAC ", "audio/x-ape")],
)
def test_formats_of_sound_that_are_decoded_are_taken(head: bytes, media_type: str) -> None:
    assert media.sniff(head + bytes(400)).media_type == media_type


def transport_stream(*types: int) -> bytes:
    """Packets of a program association table and of a program map with streams of these types (ISO/IEC 13818-1)."""

    def packet(pid: int, table: bytes) -> bytes:
        return (struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + b"\0" + table).ljust(188, b"\xff")

    streams = b"".join(struct.pack(">BHH", kind, 0xE101 + n, 0xF000) for n, kind in enumerate(types))
    association = struct.pack(">BHHBBBHH", 0, 0xB00D, 1, 0xC1, 0, 0, 1, 0xE100) + bytes(4)
    program = struct.pack(">BHHBBBHH", 2, 0xB000 | (13 + len(streams)), 1, 0xC1, 0, 0, 0xE101, 0xF000)
    return packet(0, association) + packet(0x100, program + streams + bytes(4)) + packet(0x1FFF, b"") * 3


@pytest.mark.parametrize(
    ("types", "kind"), [((0x0F,), "audio"), ((0x03, 0x06), "audio"), ((0x1B, 0x0F), "video"), ((), "video")]
)
def test_a_transport_stream_is_what_its_program_map_names(types: tuple[int, ...], kind: str) -> None:
    assert media.sniff(transport_stream(*types)).kind == kind


def camera_raw(*previews: bytes, orientation: int = 1) -> bytes:
    """A TIFF as cameras write it: a directory with a thumbnail's tags, and JPEG pictures somewhere below."""
    tags = [(254, 4, 1), (256, 4, 160), (257, 4, 120), (271, 2, 0), (274, 3, orientation), (330, 4, 0)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head + bytes(200) + b"".join(bytes(64) + preview for preview in previews) + random.Random(1).randbytes(5_000)


def test_a_camera_raw_file_is_captioned_by_its_largest_preview() -> None:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as photo:
        small, large = (encoded(photo.convert("RGB").resize(size), "JPEG") for size in ((160, 120), (900, 600)))

    seen = media.inspect(camera_raw(small, large, orientation=6))

    assert (seen.kind, seen.media_type, seen.width, seen.height) == ("image", "image/x-raw", 900, 600)
    assert seen.picture is not None
    assert (seen.picture.width, seen.picture.height) == (600, 900)
    copy, media_type = media.model_copy(camera_raw(small, large))
    assert (media_type, Image.open(io.BytesIO(copy)).size) == ("image/jpeg", (900, 600))
    with pytest.raises(MediaError) as caught:
        media.inspect(camera_raw(small))
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(("least", "most"), [(0, 255), (0, 4095), (30_000, 31_000)])
def test_deep_greys_of_a_small_range_are_stretched_to_what_is_there(least: int, most: int) -> None:
    ramp = np.linspace(least, most, 64 * 64).reshape(64, 64).astype(np.uint16)

    picture = media.inspect(encoded(Image.fromarray(ramp), "PNG")).picture

    assert picture is not None
    assert picture.working.getextrema()[0] == (0, 255)
