"""What the demo uploads: real media, and copies of it made on the spot as people's devices and websites make them."""

import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from PIL import Image

ARCHIVE = "archive/"
"""Keys of pictures that can wait begin so."""


@dataclass(frozen=True)
class DemoUpload:
    """One upload of the demo and how it must end.

    `picture` names what is seen or heard: uploads of one picture share one paid caption. None: the upload must be
    rejected, with a reason whose code is in `codes` (any reason where that is empty).
    """

    key: str
    body: bytes
    wave: int
    what: str
    picture: str | None
    kind: Literal["image", "audio", "video", "none"] = "image"
    codes: tuple[str, ...] = ()
    waits: bool = False
    """Nobody waits for its caption, which comes from a batch where there is a bulk lane: it is looked at last."""

    @property
    def state(self) -> str:
        """The state it must end in."""
        return "rejected" if self.picture is None else "captioned"


def uploads() -> list[DemoUpload]:
    """Make the uploads of all waves, in the order they are sent; the same bytes each time."""
    return [*_first_wave(), *_second_wave()]


def _first_wave() -> list[DemoUpload]:
    osprey, colosseum, garden = media("perched-osprey.jpg"), media("roman-colosseum.jpg"), media("tea-gardens.jpg")
    casa, screenshot = media("casa-mila.jpg"), media("code-screenshot.png")
    speech, words = media("block-books.wav"), media("comparatively-modern.mp3")
    return [
        DemoUpload("osprey.jpg", osprey, 1, "photo", "osprey"),
        DemoUpload("osprey-half.jpg", resized(osprey, 0.5), 1, "the photo at half size, at the same moment", "osprey"),
        DemoUpload("osprey.webp", re_encoded(osprey, "WEBP"), 1, "the photo as WebP, at the same moment", "osprey"),
        DemoUpload("colosseum.jpg", colosseum, 1, "photo", "colosseum"),
        DemoUpload("colosseum-turned.jpg", turned(colosseum), 1, "the photo stored sideways, EXIF-turned", "colosseum"),
        DemoUpload("tea gardens (été) #1.jpg", garden, 1, "photo with an awkward name", "tea gardens"),
        DemoUpload("copies/tea-gardens.jpg", garden, 1, "the same bytes under another key", "tea gardens"),
        DemoUpload("casa-mila.heic", heic(casa), 1, "photo as HEIC", "casa mila"),
        DemoUpload("avatar.png", cut_out(casa), 1, "round cut-out, transparent PNG", "avatar"),
        DemoUpload("screenshot.png", screenshot, 1, "screenshot of code", "screenshot"),
        DemoUpload("invoice-a.png", media("invoice-a.png"), 1, "invoice", "invoice a"),
        DemoUpload("invoice-b.png", media("invoice-b.png"), 1, "another invoice on the same form", "invoice b"),
        DemoUpload("rabbit.gif", media("rabbit.gif"), 1, "animated GIF", "rabbit"),
        DemoUpload("speech.wav", speech, 1, "speech, WAV", "speech", kind="audio"),
        DemoUpload("speech.mp3", words, 1, "speech, MP3", "words", kind="audio"),
        DemoUpload("clip.webm", media("rabbit.webm"), 1, "short video", "clip", kind="video"),
        *(
            DemoUpload(f"{ARCHIVE}{name}.jpg", corner(photo), 1, "another picture, which can wait", name, waits=True)
            for name, photo in (("arches", colosseum), ("pagoda", garden), ("balcony", casa))
        ),
        _unfit("cut-off.jpg", osprey[: len(osprey) * 6 // 10], "JPEG cut off at 60 %", "truncated", "broken"),
        _unfit("empty.jpg", b"", "empty file", "empty"),
        _unfit("shopping-list.jpg", b"eggs, flour, two lemons\n" * 20, "text file named .jpg", "unsupported"),
    ]


def _second_wave() -> list[DemoUpload]:
    osprey, colosseum, casa = media("perched-osprey.jpg"), media("roman-colosseum.jpg"), media("casa-mila.jpg")
    screenshot, words = media("code-screenshot.png"), media("comparatively-modern.mp3")
    return [
        DemoUpload(
            "web/osprey-q40.jpg", re_encoded(osprey, "JPEG", 40), 2, "the photo again, JPEG quality 40", "osprey"
        ),
        DemoUpload("web/osprey-300.jpg", resized(osprey, 0.375), 2, "the photo again, 300 pixels wide", "osprey"),
        DemoUpload("web/colosseum.avif", re_encoded(colosseum, "AVIF"), 2, "the photo again, AVIF", "colosseum"),
        DemoUpload("web/casa-mila.jpg", casa, 2, "the HEIC photo as JPEG", "casa mila"),
        DemoUpload(
            "web/shot.webp", re_encoded(screenshot, "WEBP", None), 2, "the screenshot, lossless WebP", "screenshot"
        ),
        DemoUpload("web/tagged.mp3", tagged(words), 2, "the MP3 with another title", "words", kind="audio"),
        DemoUpload("cityscape.jpg", media("singaporean-cityscape.jpg"), 2, "a photo not seen before", "cityscape"),
    ]


def _unfit(key: str, body: bytes, what: str, *codes: str) -> DemoUpload:
    return DemoUpload(key, body, 1, what, None, kind="none", codes=codes)


@cache
def media(name: str) -> bytes:
    """Read one of the packaged files."""
    return files("captions_cli").joinpath("demo_media", name).read_bytes()


def resized(data: bytes, factor: float) -> bytes:
    """The picture scaled by a factor, as JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        size = (round(image.width * factor), round(image.height * factor))
        return _saved(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=85)


def re_encoded(data: bytes, encoding: str, quality: int | None = 75) -> bytes:
    """The picture in another encoding; quality None is lossless."""
    with Image.open(io.BytesIO(data)) as image:
        if quality is None:
            return _saved(image, encoding, lossless=True)
        return _saved(image, encoding, quality=quality)


def turned(data: bytes) -> bytes:
    """The picture stored a quarter turned, with the EXIF orientation that turns it upright again."""
    with Image.open(io.BytesIO(data)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # Orientation: turn a quarter clockwise to view (EXIF 2.3, tag 274)
        return _saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def heic(data: bytes) -> bytes:
    """The picture as HEIC."""
    from pillow_heif import from_pillow

    with Image.open(io.BytesIO(data)) as image:
        out = io.BytesIO()
        from_pillow(image.convert("RGB")).save(out, quality=80)
        return out.getvalue()


def corner(data: bytes) -> bytes:
    """The lower left quarter of the picture, a picture of its own."""
    with Image.open(io.BytesIO(data)) as image:
        box = (0, image.height // 2, image.width // 2, image.height)
        return _saved(image.convert("RGB").crop(box), "JPEG", quality=90)


def cut_out(data: bytes) -> bytes:
    """A disc from the picture's middle on a transparent ground, as PNG."""
    from PIL import ImageDraw

    side = 360
    with Image.open(io.BytesIO(data)) as image:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse((4, 4, side - 4, side - 4), fill=255)
    square.putalpha(mask)
    return _saved(square, "PNG")


def tagged(data: bytes) -> bytes:
    """The MP3 with an ID3v2.3 title in front (https://id3.org/id3v2.3.0)."""
    text = b"\x00Comparatively modern"
    frame = b"TIT2" + len(text).to_bytes(4, "big") + b"\x00\x00" + text
    # The tag's length is written seven bits to the byte.
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    without = data[10 + _syncsafe(data[6:10]) :] if data[:3] == b"ID3" else data
    return b"ID3\x03\x00\x00" + size + frame + without


def _syncsafe(four: bytes) -> int:
    return four[0] << 21 | four[1] << 14 | four[2] << 7 | four[3]


def _saved(image: Image.Image, encoding: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, encoding, **options)
    return out.getvalue()
