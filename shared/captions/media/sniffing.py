"""Tells what a file is from its bytes.

Signatures alone do not answer what the pipeline asks: is this PNG an animation, this TIFF a document of several
pages, this MP4 or WebM or Ogg only sound? So the containers are walked as far as needed, and no further.
"""

import struct
from dataclasses import dataclass
from typing import Literal

from captions.media import containers, raw
from captions.media.errors import MediaError

RAW = "RAW"
"""The `format` of camera raw files, of which the preview is read."""
Kind = Literal["image", "animation", "document", "audio", "video"]


@dataclass(frozen=True)
class Sniffed:
    """What a file is: its kind and media type, and the facts its header tells (None where it tells none).

    `width` and `height` are in pixels as stored (before orientation), `frames` counts frames or pages, `duration_s`
    is in seconds. `format` is the Pillow plugin that reads a picture. `note` is what a reader of the caption should
    know of the file.
    """

    kind: Kind
    media_type: str
    format: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int = 1
    duration_s: float | None = None
    note: str | None = None


# Pictures: signature -> (Pillow format, media type). Only formats that Pillow decodes itself, in process: no
# external program (EPS), no stub (WMF, HDF5, GRIB), no game texture or scientific container.
_PICTURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xd8\xff", "JPEG", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "PNG", "image/png"),
    (b"GIF87a", "GIF", "image/gif"),
    (b"GIF89a", "GIF", "image/gif"),
    (b"II*\0", "TIFF", "image/tiff"),
    (b"MM\0*", "TIFF", "image/tiff"),
    (b"II+\0", "TIFF", "image/tiff"),
    (b"MM\0+", "TIFF", "image/tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000", "image/jp2"),
    (b"\xff\x4f\xff\x51", "JPEG2000", "image/j2c"),
    (b"\0\0\1\0", "ICO", "image/x-icon"),
    (b"\0\0\2\0", "CUR", "image/x-icon"),
    (b"qoif", "QOI", "image/qoi"),
    (b"8BPS\0\1", "PSD", "image/vnd.adobe.photoshop"),
    (b"DDS ", "DDS", "image/vnd-ms.dds"),
    (b"\x01\xda", "SGI", "image/sgi"),
    (b"\x59\xa6\x6a\x95", "SUN", "image/x-sun-raster"),
    (b"DanM", "MSP", "image/x-msp"),
    (b"LinS", "MSP", "image/x-msp"),
    (b"/* XPM */", "XPM", "image/x-xpixmap"),
)

# Known, but not taken: what to call them in the reason.
_UNSUPPORTED: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "PDF documents"),
    (b"PK\3\4", "ZIP archives and office documents"),
    (b"PK\5\6", "ZIP archives"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office documents (OLE)"),
    (b"\xff\x0a", "JPEG XL pictures"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL pictures"),
    (b"BPG\xfb", "BPG pictures"),
    (b"II\xbc", "JPEG XR pictures"),
    (b"gimp xcf", "GIMP projects"),
    (b"%!PS", "PostScript pictures"),
    (b"\xc5\xd0\xd3\xc6", "PostScript pictures"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafiles"),
    (b"\x01\0\x09\0\0\x03", "Windows metafiles"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 data"),
    (b"BLP1", "game textures"),
    (b"BLP2", "game textures"),
    (b"FTEX", "game textures"),
    (b"icns", "macOS icon files"),
    (b"\x1f\x8b", "gzip archives and compressed vector pictures"),
    (b"Rar!", "RAR archives"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archives"),
    (b"\x7fELF", "programs"),
    (b"{\\rtf", "rich text"),
)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


def signature(data: bytes) -> Sniffed:
    """Return what `data` begins like; of a picture only the format, of sound and video also what the container holds.

    Raises MediaError: `empty`; `unsupported` for a type that is not captioned (the message names it) or not known;
    `broken` or `truncated` where the header itself cannot be read.
    """
    if not data:
        raise MediaError("empty", "the file is empty (0 bytes)")
    picture = _picture(data)
    if picture is not None:
        return picture
    for signature, name in _UNSUPPORTED:
        if data.startswith(signature):
            raise MediaError("unsupported", f"{name} are not captioned")
    if data[:4] == b"\x01\0\0\0" and data[40:44] == b" EMF":
        raise MediaError("unsupported", "Windows metafiles are not captioned")
    container = _container(data)
    if container is not None:
        return container
    if _looks_like_svg(data):
        raise MediaError("unsupported", "vector pictures (SVG) are not captioned")
    if _looks_like_targa(data):
        return Sniffed("image", "image/x-tga", "TGA")
    if _looks_like_text(data):
        raise MediaError("unsupported", "the file is plain text, not a picture, sound or video")
    raise MediaError("unsupported", "the file is of no known picture, sound or video type")


def _picture(data: bytes) -> Sniffed | None:
    if (camera_raw := raw.media_type(data)) is not None:
        return Sniffed("image", camera_raw, RAW)
    for signature, name, media_type in _PICTURES:
        if name == "CUR" and data[4:6] == b"\0\0":
            continue  # no cursor in it: an uncompressed Targa begins the same
        if data.startswith(signature):
            return Sniffed("image", media_type, name)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Sniffed("image", "image/webp", "WEBP")
    if (
        data[:2] == b"BM"
        and len(data) >= 18
        and struct.unpack_from("<I", data, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    ):
        return Sniffed("image", "image/bmp", "BMP")
    if len(data) > 2 and data[0:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return Sniffed("image", "image/x-portable-anymap", "PPM")
    if data[4:8] == b"ftyp":
        brands = containers.ftyp_brands(data)
        if brands & _AVIF_BRANDS:
            return Sniffed("image", "image/avif", "AVIF")
        if brands & _HEIF_BRANDS:
            return Sniffed("image", "image/heic", "HEIF")
    if data[4:6] in (b"\x11\xaf", b"\x12\xaf") and data[14:16] in (b"\0\0", b"\3\0"):
        return Sniffed("image", "image/x-fli", "FLI")
    if data.startswith(b"#define") and b"_width" in data[:512] and b"_height" in data[:1024]:
        return Sniffed("image", "image/x-xbitmap", "XBM")
    if data.startswith(b"Image type:") or b"\nImage type:" in data[:512]:
        return Sniffed("image", "image/x-im", "IM")
    return None


def _container(data: bytes) -> Sniffed | None:
    container = containers.identify(data)
    if container is None:
        return None
    return Sniffed(container.kind, container.media_type, duration_s=container.duration_s, note=container.note)


def _looks_like_svg(data: bytes) -> bool:
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<?xml", b"<!doctype svg", b"<svg", b"<!--")) and b"<svg" in data[:65536].lower()


def _looks_like_targa(data: bytes) -> bool:
    """Targa has no signature at its start: all its header's fields must make sense (Truevision TGA 2.0)."""
    if len(data) < 18:
        return False
    _, palette, image_type, _, palette_size, palette_depth, _, _, width, height, depth, flags = struct.unpack_from(
        "<BBBHHBHHHHBB", data
    )
    mapped = image_type in (1, 9)
    return (
        width > 0
        and height > 0
        and image_type in (1, 2, 3, 9, 10, 11)
        and palette in (0, 1)
        and (not mapped or (palette == 1 and palette_depth in (15, 16, 24, 32)))
        and (palette == 1 or (palette_size == 0 and palette_depth == 0))
        and depth in ((8,) if mapped else (1, 8, 16, 24, 32))
        and flags & 0xC0 == 0
    )


def _looks_like_text(data: bytes) -> bool:
    head = data[:4096]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)
