"""What a picture looks like: decoded alike in every mode, and copied for a model."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from captions import media

MEDIA = Path(__file__).parents[1] / "media"


def encoded(picture: Image.Image, name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def working(data: bytes) -> Image.Image:
    picture = media.inspect(data).picture
    assert picture is not None
    return picture.working


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.asarray(ImageChops.difference(a.convert("RGB"), b.convert("RGB")), dtype=float).mean())


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    with Image.open(MEDIA / "photos" / "coffee.jpg") as picture:
        return picture.convert("RGB").resize((300, 200))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(photo: Image.Image, orientation: int, name: str) -> None:
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the orientation asks a reader to undo
    stored = photo if orientation == 1 else photo.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = media.inspect(encoded(stored, name, exif=exif)).picture
    assert picture is not None
    assert (picture.width, picture.height, picture.working.size) == (300, 200, (300, 200))
    assert difference(picture.working, photo) < 6


def test_an_alpha_channel_is_laid_on_white() -> None:
    red = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    red.paste((0, 0, 0, 0), (32, 0, 64, 64))
    for name in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if name == "WEBP" else {}
        shown = working(encoded(red, name, **options))
        assert (shown.getpixel((10, 10)), shown.getpixel((50, 10))) == ((255, 0, 0), (255, 255, 255))


def bitmap_with_alpha(picture: Image.Image) -> bytes:
    """A BMP of version 4, whose fourth channel is named."""
    pixels = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
    size = struct.pack("<IiiHHII16x4I", 108, *picture.size, 1, 32, 3, len(pixels), *masks)
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + size.ljust(108, b"\0") + pixels


@pytest.mark.parametrize("name", ["BMP", "TGA", "ICO", "DDS"])
def test_a_fourth_channel_that_was_left_at_0_hides_nothing(photo: Image.Image, name: str) -> None:
    """As in bitmaps from Windows' clipboard."""
    options: dict[str, object] = {"bitmap_format": "bmp", "sizes": [(256, 192)]} if name == "ICO" else {}

    def written(picture: Image.Image) -> bytes:
        return bitmap_with_alpha(picture) if name == "BMP" else encoded(picture, name, **options)

    unused = photo.resize((256, 192)).convert("RGBA")
    unused.putalpha(0)
    data = written(unused)
    assert difference(working(data), photo.resize((256, 192))) < 3
    assert difference(opened(media.model_copy(data)[0]), photo.resize((256, 192))) < 6
    assert working(written(Image.new("RGBA", (256, 192)))).getpixel((9, 9)) == (255, 255, 255)


def test_a_transparent_palette_colour_is_laid_on_white() -> None:
    palette = Image.new("P", (64, 64), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.paste(0, (32, 0, 64, 64))
    shown = working(encoded(palette, "PNG", transparency=0))
    assert (shown.getpixel((10, 10)), shown.getpixel((50, 10))) == ((200, 0, 0), (255, 255, 255))


def png(depth: int, colour_type: int, row: bytes, transparent: tuple[int, ...]) -> bytes:
    """A PNG of 64 rows of 64 pixels, with one transparent colour."""
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, depth, colour_type, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        (b"IDAT", zlib.compress((b"\0" + row) * 64)),
        (b"IEND", b""),
    ):
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "transparent"),
    [
        (16, 0, struct.pack(">64H", *[100] * 32, *[40_000] * 32), (100,)),
        (16, 2, struct.pack(">192H", *[60_000, 300, 300] * 32, *[40_000] * 96), (60_000, 300, 300)),
        (8, 0, bytes([7] * 32 + [156] * 32), (7,)),
        (4, 0, bytes([0x55] * 16 + [0x99] * 16), (5,)),
        (2, 0, bytes([0x55] * 8 + [0xAA] * 8), (1,)),
    ],
)
def test_the_transparent_colour_of_a_png_is_white_at_every_depth(
    depth: int, colour_type: int, row: bytes, transparent: tuple[int, ...]
) -> None:
    data = png(depth, colour_type, row, transparent)
    for shown in (working(data), opened(media.model_copy(data)[0]).convert("RGB")):
        assert shown.getpixel((10, 10)) == (255, 255, 255)
        assert shown.getpixel((50, 10)) in [(value,) * 3 for value in (156, 153, 170)]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))
    shown = np.asarray(working(encoded(Image.fromarray(ramp), "PNG")))
    assert shown[0, 0, 0] == 0
    assert abs(int(shown[0, 128, 0]) - 128) <= 1
    assert shown[0, 255, 0] == 255


def test_cmyk_and_palette_look_like_the_rgb_they_were_made_from(photo: Image.Image) -> None:
    assert difference(working(encoded(photo.convert("CMYK"), "JPEG", quality=95)), photo) < 4
    assert difference(working(encoded(photo.quantize(256), "PNG")), photo) < 6
    assert difference(working(encoded(photo, "AVIF", quality=90)), photo) < 4


def test_heic_looks_like_the_avif_of_the_same_picture() -> None:
    heic, avif = (working((MEDIA / "odd" / name).read_bytes()) for name in ("otters.heic", "otters.avif"))
    assert difference(heic, avif.resize(heic.size)) < 5


def test_a_large_picture_is_reduced_alike_from_jpeg_and_png(photo: Image.Image) -> None:
    large = photo.resize((3000, 2000), Image.Resampling.BICUBIC)
    jpeg, png = working(encoded(large, "JPEG", quality=95)), working(encoded(large, "PNG", compress_level=1))
    assert min(jpeg.size) >= 375
    assert max(jpeg.size + png.size) < 2048
    assert difference(jpeg.resize((256, 256)), png.resize((256, 256))) < 2


def test_pixels_digest_is_of_what_is_seen(photo: Image.Image) -> None:
    def digest(data: bytes) -> str | None:
        picture = media.inspect(data).picture
        assert picture is not None
        return picture.pixels_digest

    png = digest(encoded(photo, "PNG"))
    assert png is not None
    assert png == digest(encoded(photo, "BMP")) == digest(encoded(photo, "WEBP", lossless=True))
    assert png == digest(encoded(photo.convert("RGBA"), "PNG", compress_level=9))
    changed = photo.copy()
    changed.putpixel((7, 7), (0, 0, 0))
    assert digest(encoded(changed, "PNG")) != png
    assert digest(encoded(photo, "JPEG")) is None


def test_strips_of_a_large_picture_make_the_same_digest_as_the_whole() -> None:
    import hashlib

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2100, 1500, 3), dtype=np.uint8))
    picture = media.inspect(encoded(noise, "PNG", compress_level=0)).picture
    assert picture is not None
    assert picture.pixels_digest == hashlib.sha256(b"1500x2100" + noise.tobytes()).hexdigest()
    assert difference(picture.working, noise.reduce((2, 2))) < 0.5


def test_payload_digest_of_a_picture_ignores_metadata_but_not_orientation(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    for name in ("JPEG", "PNG", "WEBP"):
        options = {"quality": 80} if name != "PNG" else {}
        plain, described = encoded(photo, name, **options), encoded(photo, name, exif=exif, **options)
        assert plain != described
        assert media.picture_payload_digest(plain) == media.picture_payload_digest(described)
        assert media.picture_payload_digest(plain, 6) != media.picture_payload_digest(plain, 1)


def payload(data: bytes) -> str | None:
    picture = media.inspect(data).picture
    assert picture is not None
    return media.picture_payload_digest(data, picture.orientation)


def test_what_changes_how_a_jpegs_colours_are_decoded_is_part_of_its_payload(photo: Image.Image) -> None:
    """Components named R, G and B are decoded as such, unless JFIF says that they are luma and chroma all the same."""
    jfif = bytearray(encoded(photo, "JPEG"))
    frame, scan = jfif.find(b"\xff\xc0"), jfif.find(b"\xff\xda")
    for number, name in enumerate(b"RGB"):
        jfif[frame + 10 + 3 * number] = jfif[scan + 5 + 2 * number] = name
    bare = bytes(jfif[:2] + jfif[20:])
    assert difference(working(bytes(jfif)), working(bare)) > 30
    assert payload(bytes(jfif)) != payload(bare)


def test_jfif_that_changes_nothing_is_metadata(photo: Image.Image) -> None:
    data = encoded(photo, "JPEG")
    assert payload(data) == payload(data[:2] + data[20:])


def test_the_flags_and_the_canvas_of_a_webp_are_part_of_its_payload(photo: Image.Image) -> None:
    faded = photo.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(photo.size))
    transparent = bytearray(encoded(faded, "WEBP"))
    opaque = bytearray(transparent)
    opaque[opaque.find(b"VP8X") + 8] &= ~0x10
    assert difference(working(bytes(transparent)), working(bytes(opaque))) > 30
    assert payload(bytes(transparent)) != payload(bytes(opaque))

    film = encoded(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)])
    wider, shorter = bytearray(film), bytearray(film)
    at = film.find(b"VP8X")
    wider[at + 12 : at + 15] = (599).to_bytes(3, "little")
    shorter[4:8] = struct.pack("<I", film.rindex(b"ANMF") - 8)
    assert media.sniff(bytes(shorter)).frames == 1
    assert len({payload(film), payload(bytes(wider)), payload(bytes(shorter))}) == 3


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("place", ["front", "end"])
def test_an_orientation_in_xmp_or_behind_the_pixels_is_seen(photo: Image.Image, name: str, place: str) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    plain = encoded(photo, name)
    if name == "JPEG":
        body = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        part, at = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body, 2 if place == "front" else 20
    else:
        body = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + xmp
        part = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        at = 33 if place == "front" else len(plain) - 12
    turned = plain[:at] + part + plain[at:]
    assert working(turned).size == (200, 300)
    assert payload(turned) != payload(plain)


def test_the_model_gets_an_upright_copy_without_metadata(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    data = encoded(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif, icc_profile=b"x" * 200)
    copy, media_type = media.model_copy(data)
    assert media_type == "image/jpeg"
    assert b"where I live" not in copy
    shown = opened(copy)
    assert shown.size == (300, 200)
    assert not shown.getexif()
    assert "icc_profile" not in shown.info
    assert difference(shown, photo) < 4
    assert media.model_copy(data)[0] == copy


def test_the_copy_fits_the_side_and_the_bytes_it_is_given() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1200, 1800, 3), dtype=np.uint8))
    copy, _ = media.model_copy(encoded(noise, "PNG", compress_level=1), max_side=900)
    assert max(opened(copy).size) == 900
    small, _ = media.model_copy(encoded(noise, "JPEG"), max_bytes=30_000)
    assert len(small) <= 30_000
    with pytest.raises(media.MediaError):
        media.model_copy(encoded(noise, "JPEG"), max_bytes=100)


def test_the_copy_is_of_a_type_the_model_takes(photo: Image.Image) -> None:
    data = (MEDIA / "odd" / "otters.heic").read_bytes()
    for media_type in ("image/jpeg", "image/png", "image/webp"):
        copy, declared = media.model_copy(data, media_types=(media_type,))
        assert declared == media_type == media.sniff(copy).media_type


def test_graphics_stay_png_and_photos_become_jpeg(photo: Image.Image) -> None:
    assert media.model_copy((MEDIA / "documents" / "fw9_1.png").read_bytes())[1] == "image/png"
    assert media.model_copy(encoded(photo, "PNG"))[1] == "image/jpeg"
    assert media.model_copy(encoded(photo.convert("L"), "PNG"))[1] == "image/jpeg"


@pytest.mark.parametrize("white", [255, 253])
def test_a_white_drawing_on_transparency_stays_visible(white: int) -> None:
    drawing = Image.new("RGBA", (80, 80), (255, 255, 255, 0))
    drawing.paste((white, white, white, 255), (20, 20, 60, 60))
    copy, _ = media.model_copy(encoded(drawing, "PNG"))
    assert np.ptp(np.asarray(opened(copy).convert("L"))) > 50


def test_the_first_frame_of_an_animation_is_copied() -> None:
    first, second = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (50, 40), "blue")
    copy, _ = media.model_copy(encoded(first, "GIF", save_all=True, append_images=[second]))
    assert opened(copy).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("empty", [(0, 0, 0, 255), (0, 0, 0, 0)], ids=["black", "clear"])
def test_an_animation_that_begins_with_nothing_is_copied_from_where_it_shows_something(
    photo: Image.Image, name: str, empty: tuple[int, ...]
) -> None:
    first = Image.new("RGBA", photo.size, empty)
    data = encoded(first, name, save_all=True, append_images=[photo.convert("RGBA")], duration=100)

    assert difference(opened(media.model_copy(data)[0]), photo) < 10


def test_an_animation_that_is_damaged_behind_an_empty_frame_is_copied_all_the_same(photo: Image.Image) -> None:
    data = encoded(Image.new("RGB", photo.size), "GIF", save_all=True, append_images=[photo])

    assert opened(media.model_copy(data[: len(data) // 2])[0]).size == photo.size


def tiff(*directories: tuple[Image.Image, dict[int, int]]) -> bytes:
    """A TIFF of RGB pictures, each with further tags."""
    out = bytearray(b"II*\0" + bytes(4))
    link = 4
    for picture, further in directories:
        at, body = len(out), picture.convert("RGB").tobytes()
        out += body + struct.pack("<HHH", 8, 8, 8)
        plain = {256: picture.width, 257: picture.height, 259: 1, 262: 2, 273: at, 277: 3, 279: len(body)} | further
        entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in plain.items()}
        entries[258] = struct.pack("<HHII", 258, 3, 3, at + len(body))
        out[link : link + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
        link = len(out)
        out += bytes(4)
    return bytes(out)


def test_smaller_copies_and_masks_in_a_tiff_are_no_pages(photo: Image.Image) -> None:
    small, mask = (photo.resize((75, 50)), {254: 1}), (photo, {254: 4, 262: 4})
    for data in (tiff((photo, {}), small), tiff(small, (photo, {})), tiff((photo, {}), mask), tiff(small)):
        assert (media.inspect(data).kind, media.inspect(data).frames) == ("image", 1)
    assert difference(working(tiff(small, (photo, {}))), working(tiff((photo, {})))) == 0
    assert opened(media.model_copy(tiff(small, (photo, {}), small))[0]).size == photo.size
    assert media.inspect(tiff((photo, {}), small, (photo, {254: 2}))).frames == 2


def test_sound_is_no_picture() -> None:
    with pytest.raises(media.MediaError) as caught:
        media.model_copy((MEDIA / "audio" / "lj_5.ogg").read_bytes())
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("size", [(1600, 1600), (2700, 2100), (3840, 2160), (6400, 700)], ids=str)
def test_a_picture_is_decoded_at_the_same_size_whatever_its_format(size: tuple[int, int]) -> None:
    """Were it not, thin lines would differ as edits do, and copies in another format would be paid for again."""
    picture, sizes = Image.linear_gradient("L").resize(size), set()
    for name in ("JPEG", "PNG", "WEBP", "BMP"):
        file = io.BytesIO()
        picture.convert("RGB").save(file, name)
        shown = media.inspect(file.getvalue()).picture
        assert shown is not None
        sizes.add(shown.working.size)
    assert len(sizes) == 1
