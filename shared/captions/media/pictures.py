"""Pictures: opened with limits, decoded once at the size needed, and copied for a model.

What a picture looks like is decided here, the same for every reader: orientation applied, transparency on white,
16 bits scaled to 8, CMYK and palettes as RGB, the first frame or page. Colour profiles are not applied: removing one
must not change the fingerprint.
"""

import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

from PIL import Image, ImageStat, UnidentifiedImageError

from captions.media import jpeg_ends, lengths, raw, tiff_pages
from captions.media.bombs import refuse_costly, refuse_size, refuse_structure
from captions.media.errors import Limits, MediaError
from captions.media.sniffing import RAW, Kind, Sniffed

# Both sides of a working picture are at least this many pixels long where the original's are: twice what the
# fingerprint looks at, so that neither averaging nor libjpeg's scaling shows in it. Of a phone's photo it looks at
# less, which can then be decoded at an eighth. (Were smaller ones decoded as coarsely, their halves would be decoded
# twice as finely, and thin lines would differ.)
WORKING_SIDE = 512
PHONE_SIDE, PHONE_WORKING_SIDE = 2048, 375
# Of a photo's thin lines libjpeg leaves other values at another scale, which show where there are about as many cells
# as pixels. A picture that is compared finely has at least four pixels to each cell, which average that out.
FINE_WORKING_SIDE = 2048
LARGE_SIDE = 1536  # pixels of the shorter side, beyond which writing cannot be compared

_LOSSLESS = frozenset(
    {"PNG", "GIF", "BMP", "TIFF", "PPM", "TGA", "QOI", "ICO", "CUR", "SGI", "SUN", "PSD", "IM", "MSP", "FLI"}
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # EXIF tag
_ZEROS = bytes(64)
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # a JPEG's start of frame


class Picture(NamedTuple):
    """A decoded picture: `working` is RGB, upright, reduced to about WORKING_SIDE; `width` x `height` is the
    original's size in pixels, upright. `pixels_digest` is the SHA-256 (hex) of all its RGB pixels and their shape, for
    formats that keep every pixel; None for the others, which are never decoded whole. `palette` holds the colours
    (RGB) of a picture that has a palette. `finely`: reduced to about FINE_WORKING_SIDE instead. `hidden`: it is
    transparent, and hardly shows anything on white, so that models may be sent it on grey.
    """

    working: Image.Image
    width: int
    height: int
    orientation: int
    pixels_digest: str | None
    palette: bytes | None = None
    finely: bool = False
    hidden: bool = False


@contextmanager
def _decoder_errors(data: bytes, name: str) -> Iterator[None]:
    """Turn what Pillow's decoders raise on bad files into MediaError; `name` is the plugin that reads `data`."""
    what = f"the {name} file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd tags are no reason to tell anyone
            yield
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError("bomb", f"{what} would unpack to far more pixels than a picture has") from error
    except UnidentifiedImageError as error:
        if lengths.ends_early(data, name):
            raise MediaError("truncated", f"{what} ends before the whole picture") from error
        raise MediaError("broken", f"{what} begins like a picture, but its header cannot be read") from error
    except MemoryError as error:
        raise MediaError("bomb", f"{what} would unpack to more than the memory there is") from error
    except Exception as error:  # the decoders raise nearly everything: OSError, SyntaxError, struct.error, TypeError…
        text = str(error).lower()
        if "decompressed data too large" in text or "too large" in text or "too much memory" in text:
            raise MediaError("bomb", f"{what} holds a packed part that unpacks to far too much") from error
        if any(sign in text for sign in ("truncated", "not enough", "unexpected end", "eof", "end of file", "short")):
            raise MediaError("truncated", f"{what} ends before the whole picture") from error
        if lengths.ends_early(data, name):
            raise MediaError("truncated", f"{what} ends before the whole picture") from error
        raise MediaError("broken", f"{what} cannot be decoded") from error


LARGE_PIXELS = 12_500_000
"""Above it, decoding a picture takes hundreds of megabytes (up to 20 bytes a pixel)."""
_one_large = Lock()
_loading = Lock()


def one_at_a_time(
    sniffed: Sniffed, lock: AbstractContextManager[object] | None = None
) -> AbstractContextManager[object]:
    """Return what is held while a picture is decoded: for a large one a lock, the process's own if none is given."""
    large = (sniffed.width or 0) * (sniffed.height or 0) > LARGE_PIXELS
    return (lock or _one_large) if large else nullcontext()


def _load_codec(name: str) -> None:
    """Have one thread load what reads a format; the others wait, rather than find plugins that are half registered."""
    with _loading:
        Image.preinit()
        from PIL import WebPImagePlugin  # noqa: F401 - fingerprints are written in it; else Pillow would load all it has

        if name == "HEIF":
            import pillow_heif  # its libraries load only where a HEIC picture is met

            pillow_heif.register_heif_opener(thumbnails=False)
        elif name.upper() not in Image.OPEN:
            Image.init()


def open_picture(data: bytes, sniffed: Sniffed, limits: Limits) -> tuple[Image.Image, Sniffed]:
    """Open a picture without decoding it, and complete `sniffed` with its size and frames.

    Raises MediaError: `bomb` where it is larger than `limits` allow, `broken` where its header is.
    """
    assert sniffed.format is not None
    if sniffed.format == RAW:
        preview = raw.preview(data)
        image, shown = open_picture(preview.data, replace(sniffed, format="JPEG"), limits)
        if preview.orientation != 1 and _orientation(image) == 1:
            image.getexif()[_ORIENTATION] = preview.orientation
        return image, replace(shown, frames=1, kind="image")
    refuse_structure(data, sniffed.format, limits)
    if sniffed.format == "JPEG":
        data = jpeg_ends.closed(data)
    with _decoder_errors(data, sniffed.format):
        _load_codec(sniffed.format)
        image = Image.open(io.BytesIO(data), formats=[sniffed.format])  # JPEG's makes an MPO of what is one
        if sniffed.format == "TIFF":
            first, *further = tiff_pages.pages(data)
            image.seek(first)
            frames = 1 + len(further)
        else:
            stills = ("MPO", "HEIF", "ICO", "CUR", "PSD", "DDS")
            frames = 1 if image.format in stills else int(getattr(image, "n_frames", 1))
        width, height = image.size
        refuse_size(width, height, limits.image_pixels)
        refuse_costly(image, limits)
    kind: Kind = sniffed.kind
    if frames > 1:
        kind = "document" if sniffed.format == "TIFF" else "animation"
    return image, replace(sniffed, kind=kind, width=width, height=height, frames=frames)


def decode(image: Image.Image, data: bytes, sniffed: Sniffed, *, finely: bool = False) -> Picture:
    """Decode the opened picture at the size the fingerprint needs; proves that it decodes to its end.

    `finely` keeps FINE_WORKING_SIDE pixels a side, for a comparison that needs them.

    Raises MediaError (`truncated`, `broken`, `bomb`).
    """
    name = str(sniffed.format)
    if name == "JPEG" and not data.startswith(b"\xff\xd8"):
        data = raw.preview(data).data
    with _decoder_errors(data, name):
        width, height = image.size
        least = FINE_WORKING_SIDE if finely else _working_side(width, height)
        if image.format in ("JPEG", "MPO"):
            # libjpeg then transforms only the low frequencies it needs: a quarter of the time of a full decode.
            image.draft("RGB", (least, least))
        tiles = tuple(getattr(image, "tile", ()))
        image, orientation = _loaded(image, data)
        if name == "JPEG" and jpeg_ends.is_cut_short(image, data):
            raise MediaError("truncated", "the JPEG file ends before the whole picture")
        if lengths.drawn_in_part(data, name):
            raise MediaError("truncated", f"the {name} file ends before the whole picture")
        if _ZEROS in data:
            from captions.media import holes  # few files hold so many zeros

            if holes.drawn_over(image, tiles, data, name):
                raise MediaError("truncated", f"a part of the {name} file was never written: it is all zeros")
        lossless = name in _LOSSLESS or (name == "WEBP" and _keeps_every_pixel(data))
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else None
        if lossless:
            image = upright(image, orientation)
        working, digest = _reduced(image, least, hashed=lossless)
        hidden = _converter(image) is _on_white and _is_blank(working, _MAYBE_BLANK)
        if hidden:
            # Of white drawn on transparency these pixels show nothing, while a model sees it on grey.
            digest = None
        if not lossless:
            working = upright(working, orientation)
        if orientation >= 5:
            width, height = height, width
    return Picture(working, width, height, orientation, digest, palette, finely, hidden)


_DEEP = frozenset(f"{name};16{order}" for name in ("RGB", "RGBA", "RGBX", "LA", *"RGBA") for order in "BLN")
"""How Pillow names colours of 16 bits in a file; of a picture that it has loaded, 8 are left."""


_UNUSED_ALPHA = frozenset({"BMP", "TGA", "ICO", "CUR", "DDS"})
"""Formats in which programs leave a fourth channel at 0 that they do not use: what all viewers show is the rest."""


def _loaded(image: Image.Image, data: bytes) -> tuple[Image.Image, int]:
    """Return the opened picture with all its pixels, and its orientation."""
    if image.format == "TIFF":
        _plane_by_plane(image)
    tiles: Sequence[Any] = getattr(image, "tile", ())
    modes = {tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in tiles}
    deep_ppm = image.format == "PPM" and len(tiles) == 1 and _is_deep_ppm(tiles[0])
    image.load()
    orientation = _orientation(image)  # after load: a PNG's EXIF may stand behind its pixels
    if deep_ppm or (image.format in ("PNG", "TIFF") and modes and modes <= _DEEP):
        from captions.media import deep

        image = deep.stretched(image, data, tiles, deep.PPM if deep_ppm else str(modes.pop()))
    elif image.format == "JPEG2000":
        from captions.media import jpeg2000

        image = jpeg2000.unwrapped(image, data)
    _scale_transparency(image, data)
    if image.format in _UNUSED_ALPHA and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        colours = image.convert("RGB")
        image = colours if colours.getbbox() else image
    return image, orientation


def _is_deep_ppm(tile: Any) -> bool:
    mode, most, *_ = (*tile.args, 0) if isinstance(tile.args, tuple) else ("", 0)
    return tile.codec_name in ("ppm", "ppm_plain") and mode == "RGB" and most > 255


def _plane_by_plane(image: Image.Image) -> None:
    """Have Pillow read channels of 16 bits that stand one after the other; it reads them as if they had 8."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(284) == 2 and 16 in tags.get(258, ()) and image.mode in ("RGB", "RGBA"):
        order = "L" if tags.prefix == b"II" else "B"
        image.tile = [  # type: ignore[attr-defined]
            tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) if tile.codec_name == "raw" else tile
            for tile in image.tile  # type: ignore[attr-defined]
        ]


def picture_payload_digest(data: bytes, orientation: int = 1) -> str | None:
    """Return the SHA-256 (hex) of a JPEG's, PNG's or WebP's payload: what stays when its metadata is stripped.

    `orientation` is the EXIF orientation that is in force, which belongs to what is seen. None for other formats, and
    where the file's parts do not add up.
    """
    parts = _payload_parts(data)
    if parts is None:
        return None
    digest = hashlib.sha256(f"orientation {orientation}".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _payload_parts(data: bytes) -> list[memoryview] | None:
    view = memoryview(data)
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_parts(view)
        if data[:4] == b"\x89PNG":
            return [
                view[start - 4 : end]
                for name, start, end in _chunks(data, 8, ">I4s", 4)
                if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"gAMA")
            ]
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_parts(data)
    except (struct.error, IndexError):
        return None
    return None


def _chunks(data: bytes, position: int, layout: str, after: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of a PNG's or WebP's chunks; after each follow `after` bytes, or padding."""
    while position + 8 <= len(data):
        head = struct.unpack_from(layout, data, position)
        name, size = (head[1], head[0]) if layout[0] == ">" else (head[0], head[1])
        if position + 8 + size > len(data):
            raise IndexError("a chunk ends outside the file")
        yield name, position + 8, position + 8 + size
        position += 8 + size + after + (0 if after else size % 2)


def _keeps_every_pixel(webp: bytes) -> bool:
    """Whether a WebP is a lossless one, wherever among its chunks its pixels stand."""
    try:
        return any(name == b"VP8L" for name, _, _ in _chunks(webp, 12, "<4sI", 0))
    except (struct.error, IndexError):
        return False


def _webp_parts(data: bytes) -> list[memoryview]:
    """Return a WebP's parts but its metadata; what stands behind the length of its container is not read by anybody."""
    data = data[: 8 + struct.unpack_from("<I", data, 4)[0]]
    view, parts, extended = memoryview(data), [], b""
    for name, start, end in _chunks(data, 12, "<4sI", 0):
        if name == b"VP8X":
            # Of its flags those that say whether transparency and animation count, and the size of the canvas.
            extended = bytes((data[start] & 0x12,)) + data[start + 4 : start + 10]
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            parts.append((name, view[start:end]))
    if any(name in (b"ALPH", b"ANIM", b"ANMF") for name, _ in parts):
        parts.append((b"VP8X", memoryview(extended)))
    return [part for _, part in parts]


def _jpeg_parts(view: memoryview) -> list[memoryview]:
    """Return a JPEG's segments but comments and APPn, other than those that say how colours are coded.

    Adobe's always does, and JFIF's where libjpeg would otherwise go by Adobe's or by components named R, G and B.
    """
    parts: list[memoryview] = []
    position, jfif, other = 2, False, False
    while True:
        while view[position] == 0xFF and view[position + 1] == 0xFF:
            position += 1
        if view[position] != 0xFF:
            raise IndexError("no marker where a segment begins")
        marker = view[position + 1]
        if marker == 0xD9:
            return parts
        size = struct.unpack_from(">H", view, position + 2)[0]
        body = bytes(view[position + 4 : position + 2 + size])
        if marker == 0xDA:
            if jfif and other:
                parts.append(memoryview(b"JFIF"))
            parts.append(view[position:])  # the scans; what may follow the picture (MPO) is taken as part of it
            return parts
        jfif |= marker == 0xE0 and body[:5] == b"JFIF\0"
        other |= (marker == 0xEE and body[:5] == b"Adobe") or (marker in _SOF and body[6::3] == b"RGB")
        if marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(view[position : position + 2 + size])
        position += 2 + size


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF blocks are broken in every way there is; the picture is not
        return 1
    return int(value) if value in _TRANSPOSE else 1


def _working_side(width: int, height: int) -> int:
    return WORKING_SIDE if min(width, height) < PHONE_SIDE else PHONE_WORKING_SIDE


def _reduced(image: Image.Image, least: int, *, hashed: bool) -> tuple[Image.Image, str | None]:
    """Return the picture as RGB, box-averaged to `least` pixels a side, and the digest of its full RGB pixels.

    Works on strips, so that a large picture is in memory once, in its own mode, and not a second time as RGB.
    """
    width, height = image.size
    # a power of two, the same in both directions, as a scaled JPEG is, but for very long pictures
    factor = 1 << max(1, min(width, height) // least).bit_length() - 1
    across, down = max(factor, width // (4 * least)), max(factor, height // (4 * least))
    convert = _converter(image)
    digest = hashlib.sha256(f"{width}x{height}".encode()) if hashed else None
    rows = down * max(1, 2_000_000 // (width * down))
    if rows >= height:
        whole = convert(image)
        if digest is not None:
            digest.update(whole.tobytes())
        reduced = whole.reduce((across, down)) if across * down > 1 else whole
        return reduced, digest.hexdigest() if digest is not None else None
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    for top in range(0, height, rows):
        strip = convert(image.crop((0, top, width, min(top + rows, height))))
        if digest is not None:
            digest.update(strip.tobytes())
        reduced.paste(strip.reduce((across, down)), (0, top // down))
    return reduced, digest.hexdigest() if digest is not None else None


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return the function that turns `image`, or a strip of it, into RGB on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        from captions.media import deep  # NumPy is loaded where such a picture is met

        low, scale = deep.grey_scale(image)
        clear = image.info.get("transparency")
        return lambda part: deep.to_8_bits(part, low, scale, clear).convert("RGB")
    if image.mode == "LAB":
        return _lab_converter()
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white
    return lambda part: part.convert("RGB")


def _on_white(part: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    if part.mode in ("La",):
        part = part.convert("LA")
    over = part.convert("RGBA")
    under = Image.new("RGB", over.size, background)
    under.paste(over, mask=over.getchannel("A"))
    return under


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return a picture that is stored with an EXIF orientation as it is seen."""
    return image if orientation == 1 else image.transpose(_TRANSPOSE[orientation])


def stored(image: Image.Image, orientation: int) -> Image.Image:
    """Return an upright picture as it is stored with an EXIF orientation."""
    return upright(image, {6: 8, 8: 6}.get(orientation, orientation))


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Bring a PNG's transparent colour, which is given at the file's depth, to that of the pixels Pillow returns."""
    clear = image.info.get("transparency")
    if image.format != "PNG" or clear is None:
        return
    depth = data[24]
    if image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = clear * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _lab_converter() -> Callable[[Image.Image], Image.Image]:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    return lambda part: ImageCms.applyTransform(part, transform) or part


def model_copy(
    data: bytes,
    *,
    max_side: int = 1568,
    max_bytes: int = 3_000_000,
    media_types: Sequence[str] = ("image/jpeg", "image/png", "image/webp"),
    limits: Limits | None = None,
) -> tuple[bytes, str]:
    """Return a copy of the picture for a model and its media type: upright, first frame, on white, without metadata.

    At most `max_side` pixels on its longer side and `max_bytes` long; the same bytes give the same copy. Pictures of
    few colours stay PNG if the model takes it, since JPEG smears their text. Raises MediaError as `inspect` does.
    """
    from captions.media.inspection import opened

    image, sniffed = opened(data, limits or Limits())
    with one_at_a_time(sniffed), _decoder_errors(data, str(sniffed.format)):
        width, height = image.size
        shrink = min(1.0, max_side / max(width, height))
        target = max(1, round(width * shrink)), max(1, round(height * shrink))
        if image.format in ("JPEG", "MPO"):
            image.draft("RGB", target)
        image, orientation = _loaded(image, data)
        picture = _copied(image, target)
        if sniffed.kind == "animation" and _is_blank(picture):
            picture = _first_shown(image, sniffed.frames, target) or picture
        if orientation != 1:
            picture = picture.transpose(_TRANSPOSE[orientation])
    return _encoded(picture, max_bytes, media_types)


def _copied(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Return `image` as RGB in `target` size; on grey where white would leave nothing to see."""
    convert = _converter(image)
    width, height = image.size
    factor = max(1, min(width // (2 * target[0]), height // (2 * target[1])))
    if factor > 1 and image.mode in ("RGB", "L", "RGBA", "LA", "CMYK") and "transparency" not in image.info:
        image = image.reduce(factor)
    picture = convert(image)
    if convert is _on_white and _is_blank(picture):
        picture = _on_white(image, (128, 128, 128))
    return picture if picture.size == target else picture.resize(target, Image.Resampling.LANCZOS)


_BLANK, _MAYBE_BLANK = 3.0, 6.0
"""Standard deviation of the luma (of 255) below which a frame shows nothing, as in a video; below the second it may
show nothing in another size."""
_MOST_BLANK_PIXELS = 100_000_000
"""Pixels of frames that are decoded to find one that shows something."""


def _is_blank(picture: Image.Image, below: float = _BLANK) -> bool:
    return ImageStat.Stat(picture.convert("L")).stddev[0] < below


def _first_shown(image: Image.Image, frames: int, target: tuple[int, int]) -> Image.Image | None:
    """Return the first frame of an animation that shows something: many fade in, or begin with an empty canvas."""
    for number in range(1, min(frames, max(2, _MOST_BLANK_PIXELS // (image.width * image.height)))):
        try:
            image.seek(number)
            picture = _copied(image, target)
        except (EOFError, OSError, SyntaxError, ValueError, struct.error):
            return None  # from here on it is damaged
        if not _is_blank(picture):
            return picture
    return None


def _encoded(picture: Image.Image, max_bytes: int, media_types: Sequence[str]) -> tuple[bytes, str]:
    few_colours = picture.getcolors(max(256, picture.width * picture.height // 32)) is not None
    if "image/png" in media_types and (few_colours or "image/jpeg" not in media_types):
        copy = _saved(picture, "PNG")
        photo = "image/jpeg" in media_types and len(copy) > 2 * len(_saved(picture, "JPEG", quality=90))
        if len(copy) <= max_bytes and not photo:
            return copy, "image/png"
    name = next((name for name in ("jpeg", "webp", "png") if f"image/{name}" in media_types), None)
    if name is None:
        raise ValueError(f"none of {media_types} can be written")
    while True:
        for quality in (90, 80, 65):
            copy = _saved(picture, name.upper(), quality=quality)
            if len(copy) <= max_bytes:
                return copy, f"image/{name}"
        if max(picture.size) < 64:
            raise MediaError("too_large", f"no copy of the picture fits {max_bytes} bytes")
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS)


def _saved(picture: Image.Image, name: str, **options: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()
