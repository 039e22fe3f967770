"""What happens to pictures on their way: benign changes that keep a caption right, and edits that make it wrong.

Every function takes an upright RGB picture and a seeded random generator, and returns encoded files, so that what is
measured goes through the decoders as an upload does. Edits that this picture does not allow (no word to change, no
colour to turn) are left out, never faked.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from scipy import ndimage

Encoded = bytes


def encode(picture: Image.Image, name: str, **options: object) -> Encoded:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def jpeg(picture: Image.Image, quality: int = 90, **options: object) -> Encoded:
    return encode(picture, "JPEG", quality=quality, **options)


def png(picture: Image.Image) -> Encoded:
    return encode(picture, "PNG", compress_level=1)


def resized(picture: Image.Image, long_side: int) -> Image.Image:
    factor = long_side / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Return `picture` without these shares of its width and height at each side."""
    width, height = picture.size
    box = round(left * width), round(top * height), width - round(right * width), height - round(bottom * height)
    return picture.crop(box)


def _orientation_in_exif(picture: Image.Image) -> Encoded:
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(turned, 90, exif=exif)


def _with_profile(picture: Image.Image) -> Encoded:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a description"
    return jpeg(picture, 90, icc_profile=profile, exif=exif)


def _watermarked(picture: Image.Image) -> Image.Image:
    overlay = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    font = ImageFont.load_default(max(10, picture.width // 30))
    ImageDraw.Draw(overlay).text(
        (picture.width * 0.98, picture.height * 0.98), "(c) example", (255, 255, 255, 90), font, anchor="rs"
    )
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


REENCODED: dict[str, Callable[[Image.Image], Encoded]] = {
    "jpeg 90": lambda p: jpeg(p, 90),
    "jpeg 75": lambda p: jpeg(p, 75),
    "jpeg 50": lambda p: jpeg(p, 50),
    "jpeg 30": lambda p: jpeg(p, 30),
    "webp 80": lambda p: encode(p, "WEBP", quality=80),
    "avif 60": lambda p: encode(p, "AVIF", quality=60, speed=8),
    "png": png,
    "cmyk jpeg": lambda p: jpeg(p.convert("CMYK"), 90),
    "palette": lambda p: png(p.quantize(256)),
    "exif orientation": _orientation_in_exif,
    "profile and exif added": _with_profile,
}
RESIZED: dict[str, Callable[[Image.Image], Encoded]] = {
    "2048 px": lambda p: jpeg(resized(p, 2048), 85),  # as messengers do with a camera's photo
    "1080 px": lambda p: jpeg(resized(p, 1080), 85),
    "640 px": lambda p: jpeg(resized(p, 640), 85),
    "half": lambda p: jpeg(resized(p, max(p.size) // 2), 85),
    "320 px": lambda p: jpeg(resized(p, 320), 85),
}
ADJUSTED: dict[str, Callable[[Image.Image], Encoded]] = {
    "brightness +10 %": lambda p: jpeg(ImageEnhance.Brightness(p).enhance(1.1), 90),
    "brightness -10 %": lambda p: jpeg(ImageEnhance.Brightness(p).enhance(0.9), 90),
    "contrast +10 %": lambda p: jpeg(ImageEnhance.Contrast(p).enhance(1.1), 90),
    "contrast -10 %": lambda p: jpeg(ImageEnhance.Contrast(p).enhance(0.9), 90),
    "sharpened": lambda p: jpeg(ImageEnhance.Sharpness(p).enhance(1.5), 90),
    "unsharp mask": lambda p: jpeg(p.filter(ImageFilter.UnsharpMask(2, 50, 2)), 90),
}
LOOSE: dict[str, Callable[[Image.Image], Encoded]] = {
    "crop 1 % each side": lambda p: jpeg(cropped(p, 0.01, 0.01, 0.01, 0.01), 90),
    "crop 0.5 % each side": lambda p: jpeg(cropped(p, 0.005, 0.005, 0.005, 0.005), 90),
    "crop 1 % left": lambda p: jpeg(cropped(p, 0.01, 0, 0, 0), 90),
    "crop 1 % right, bottom": lambda p: jpeg(cropped(p, 0, 0, 0.01, 0.01), 90),
    "small watermark": lambda p: jpeg(_watermarked(p), 90),
}


# --- Edits of photos ------------------------------------------------------------------------------------------------


def _difference(a: Image.Image, b: Image.Image, mask: "np.ndarray | None" = None) -> float:
    """Return the mean absolute difference, 0..255, of two pictures of one size, inside `mask`."""
    values = np.asarray(ImageChops.difference(a, b), dtype=np.float32).max(axis=2)
    return float(values[mask].mean() if mask is not None and mask.any() else values.mean())


def _ellipse(size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(1))


def hue_turned(picture: Image.Image, degrees: int) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda v: (v + degrees * 256 // 360) % 256), saturation, value)).convert("RGB")


def part_replaced(picture: Image.Image, other: Image.Image, share: float, rng: Random) -> Image.Image | None:
    """Put a piece of another picture in place of a face or sign, `share` of the longer side across."""
    across = max(8, round(share * max(picture.size)))
    if across * 2 > min(picture.size):
        return None
    for _ in range(20):
        left, top = rng.randrange(picture.width - across), rng.randrange(picture.height - across)
        source = other.resize((max(across, other.width // 3), max(across, other.height // 3)))
        x, y = rng.randrange(source.width - across + 1), rng.randrange(source.height - across + 1)
        piece = source.crop((x, y, x + across, y + across))
        edited = picture.copy()
        edited.paste(piece, (left, top), _ellipse((across, across), (1, 1, across - 2, across - 2)))
        box = (left, top, left + across, top + across)
        if _difference(edited.crop(box), picture.crop(box)) > 30:
            return edited
    return None


def edge_replaced(picture: Image.Image, other: Image.Image, wide: float, rng: Random) -> Image.Image | None:
    """Put a piece of another picture, `wide` times as wide as high, at the upper or lower edge, where marks stand."""
    across = round((0.08 if wide == 1 else 0.15) * picture.width)
    down = max(6, round(across / wide))
    if across * 2 > min(picture.size):
        return None
    for _ in range(20):
        near = rng.randrange(max(1, round(0.04 * picture.height)))
        left, top = rng.randrange(picture.width - across), rng.choice((near, picture.height - down - near))
        source = other.resize((max(across, other.width // 3), max(down, other.height // 3)))
        x, y = rng.randrange(source.width - across + 1), rng.randrange(source.height - down + 1)
        edited = picture.copy()
        edited.paste(source.crop((x, y, x + across, y + down)), (left, top))
        box = (left, top, left + across, top + down)
        if _difference(edited.crop(box), picture.crop(box)) > 30:
            return edited
    return None


def object_recoloured(picture: Image.Image, share: float, degrees: int, rng: Random) -> Image.Image | None:
    """Turn the hue of one round part that has colour."""
    across = round(share * max(picture.size))
    if across * 1.2 > min(picture.size):
        return None
    turned = hue_turned(picture, degrees)
    for _ in range(30):
        left, top = rng.randrange(picture.width - across), rng.randrange(picture.height - across)
        box = (left, top, left + across, top + across)
        mask = _ellipse(picture.size, box)
        edited = Image.composite(turned, picture, mask)
        if _difference(edited.crop(box), picture.crop(box)) > 40:
            return edited
    return None


PALE = 75  # of 255, lighter or darker than what it is written on
WORDS = ("SALE", "FREE", "STOP", "OPEN", "MONDAY", "NEVER", "ALWAYS", "HELLO", "COFFEE", "SUMMER", "WINTER", "CLOSED")


def with_caption(picture: Image.Image, words: str, share: float = 0.07) -> Image.Image:
    written = picture.copy()
    height = max(9, round(share * picture.height))
    ImageDraw.Draw(written).text(
        (picture.width / 2, picture.height * 0.95), words, "white", ImageFont.load_default(height), anchor="ms",
        stroke_width=max(1, height // 12), stroke_fill="black",
    )  # fmt: skip
    return written


def with_sign(picture: Image.Image, words: str, at: tuple[float, float], share: float) -> Image.Image:
    written = picture.copy()
    height = max(9, round(share * picture.width / 3))
    draw = ImageDraw.Draw(written)
    font = ImageFont.load_default(height)
    x, y = at[0] * picture.width, at[1] * picture.height
    draw.rectangle((x, y, x + share * picture.width, y + height * 1.4), fill=(235, 235, 225))
    draw.text((x + share * picture.width / 2, y + height * 0.7), words, (20, 20, 60), font, anchor="mm")
    return written


def with_price(picture: Image.Image, price: str, at: tuple[float, float], share: float) -> Image.Image:
    """Put a label with a price on the picture, its letters `share` of the picture's height."""
    labelled = picture.copy()
    height = max(6, round(share * picture.height))
    draw, font = ImageDraw.Draw(labelled), ImageFont.load_default(height)
    width = draw.textlength(price, font)
    x, y = at[0] * (picture.width - width - height), at[1] * (picture.height - 2 * height)
    draw.rectangle((x, y, x + width + height, y + 1.7 * height), fill=(250, 240, 120))
    draw.text((x + height / 2, y + 0.85 * height), price, (20, 20, 20), font, anchor="lm")
    return labelled


def _prices(rng: Random) -> tuple[str, str]:
    """Return two prices that differ in one digit."""
    price = f"{rng.randrange(1, 99)}.{rng.randrange(10, 99)}"
    at = rng.choice([number for number, letter in enumerate(price) if letter.isdigit()])
    return price, price[:at] + rng.choice([d for d in "123456789" if d != price[at]]) + price[at + 1 :]


def photo_edits(
    picture: Image.Image, other: Image.Image, rng: Random
) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield (name, one picture, the edited one): pairs that must not share a caption."""
    for share in (0.06, 0.1, 0.18):
        edited = part_replaced(picture, other, share, rng)
        if edited is not None:
            yield f"part replaced {share:.0%}", picture, edited
    for name, wide in (("square", 1), ("strip", 4)):
        edited = edge_replaced(picture, other, wide, rng)
        if edited is not None:
            yield f"{name} at the edge replaced", picture, edited
    for share, degrees in ((0.12, 120), (0.25, 60), (0.25, 180)):
        edited = object_recoloured(picture, share, degrees, rng)
        if edited is not None:
            yield f"object recoloured {share:.0%}", picture, edited
    for degrees in (45, 120, 180):
        turned = hue_turned(picture, degrees)
        if _difference(picture, turned) > 20:
            yield f"hue turned {degrees}", picture, turned
    mirrored = ImageOps.mirror(picture)
    if _difference(picture, mirrored) > 10:
        yield "mirrored", picture, mirrored
    first, second = rng.sample(WORDS, 2)
    yield "other words on it", with_caption(picture, first), with_caption(picture, second)
    yield "words added", picture, with_caption(picture, first)
    yield from price_edits(picture, rng, (0.03, 0.05))
    at = rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.8)
    yield "other sign 10%", with_sign(picture, first, at, 0.1), with_sign(picture, second, at, 0.1)
    yield from pale_price_edits(picture, Random(repr(rng.getstate()[1][:5])))  # what follows stays as it was


def pale_price_edits(picture: Image.Image, rng: Random) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield (name, the picture with a price in pale letters on it, with another one), of so many pixels."""
    for letters in (8, 10, 13):
        if min(picture.size) < 8 * letters:
            continue
        x, y = rng.randrange(picture.width - 5 * letters), rng.randrange(picture.height - 2 * letters)
        ground = picture.crop((x, y, x + 3 * letters, y + letters)).convert("L").resize((1, 1), Image.Resampling.BOX)
        level = int(ground.getpixel((0, 0)))  # type: ignore[arg-type]  # of a picture of one band
        ink = level + PALE if level < 128 else level - PALE
        written = []
        for price in _prices(rng):
            written.append(picture.copy())
            ImageDraw.Draw(written[-1]).text((x, y), price, (ink,) * 3, ImageFont.load_default(letters))
        yield f"other price in pale letters of {letters} px", written[0], written[1]


def price_edits(
    picture: Image.Image, rng: Random, shares: Iterable[float]
) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield (name, the picture with a price label, with another price on it), letters of each share of the height."""
    for share in shares:
        first, second = _prices(rng)
        at = rng.random(), rng.random()
        labelled, relabelled = (with_price(picture, price, at, share) for price in (first, second))
        yield f"other price, letters of {share:.0%}", labelled, relabelled


# --- Edits of pictures with text ------------------------------------------------------------------------------------


def _glyphs(picture: Image.Image) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Return the luma and the (left, top, right, bottom) of the dark parts on a light ground that look like glyphs."""
    luma = np.asarray(picture.convert("L"), dtype=np.int16)
    ground = ndimage.maximum_filter(luma, 15)
    labels, _ = ndimage.label(luma < ground - 70, structure=np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(labels):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if 6 <= height <= 40 and 2 <= width <= 1.6 * height and columns.start > 2 and rows.start > 2:
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    return luma, [box for box in boxes if _in_line(box, boxes)]


def _in_line(box: tuple[int, int, int, int], boxes: list[tuple[int, int, int, int]]) -> bool:
    """Whether at least three more marks of like height stand close by on one line: a letter or digit, not a speck."""
    left, _, right, bottom = box
    height = bottom - box[1]
    return (
        sum(
            abs(other[3] - bottom) <= 3
            and 0.6 < (other[3] - other[1]) / height < 1.7
            and min(abs(other[0] - right), abs(left - other[2])) <= 3 * height
            for other in boxes
            if other is not box
        )
        >= 3
    )


def _words(glyphs: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join glyphs that stand side by side on one line."""
    words: list[list[int]] = []
    for left, top, right, bottom in sorted(glyphs, key=lambda box: (box[3] // 4, box[0])):
        height = bottom - top
        last = words[-1] if words else None
        if last and abs(last[3] - bottom) <= 3 and -1 <= left - last[2] <= max(2, 0.35 * height):
            last[1], last[2], last[3] = min(last[1], top), right, max(last[3], bottom)
        else:
            words.append([left, top, right, bottom])
    return [tuple(word) for word in words if word[2] - word[0] >= 1.5 * (word[3] - word[1])]  # type: ignore[misc]


def _ground(picture: Image.Image, box: tuple[int, int, int, int]) -> tuple[int, int, int]:
    left, top, right, bottom = box
    pixels = np.asarray(picture.crop((left - 2, top - 2, right + 2, bottom + 2))).reshape(-1, 3)
    return tuple(int(v) for v in pixels[pixels.sum(axis=1).argsort()[-max(1, len(pixels) // 4) :]].mean(axis=0))  # type: ignore[return-value]


def _ink(picture: Image.Image, box: tuple[int, int, int, int]) -> tuple[int, int, int]:
    pixels = np.asarray(picture.crop(box)).reshape(-1, 3)
    return tuple(int(v) for v in pixels[pixels.sum(axis=1).argsort()[: max(1, len(pixels) // 8)]].mean(axis=0))  # type: ignore[return-value]


def glyph_changed(picture: Image.Image, rng: Random) -> Image.Image | None:
    """Put one glyph (a digit, a letter) of the picture in place of another of the same size."""
    _, glyphs = _glyphs(picture)
    for _ in range(60):
        if len(glyphs) < 2:
            return None
        target, source = rng.sample(glyphs, 2)
        height, other = target[3] - target[1], source[3] - source[1]
        if abs(height - other) > 1 or abs((target[2] - target[0]) - (source[2] - source[0])) > 2:
            continue
        edited = picture.copy()
        edited.paste(picture.crop(source).resize((target[2] - target[0], height)), target[:2])
        if _difference(edited.crop(target), picture.crop(target)) > 35:
            return edited
    return None


def word_changed(picture: Image.Image, rng: Random) -> Image.Image | None:
    """Put one word of the picture in place of another."""
    _, glyphs = _glyphs(picture)
    words = _words(glyphs)
    for _ in range(60):
        if len(words) < 2:
            return None
        target, source = rng.sample(words, 2)
        if not 0.7 < (target[3] - target[1]) / (source[3] - source[1]) < 1.4:
            continue
        edited = picture.copy()
        edited.paste(_ground(picture, target), target)
        piece = picture.crop(source).crop((0, 0, target[2] - target[0], target[3] - target[1]))
        piece = picture.crop((source[0], source[1], min(source[2], source[0] + target[2] - target[0]), source[3]))
        edited.paste(piece.resize((piece.width, target[3] - target[1])), target[:2])
        if _difference(edited.crop(target), picture.crop(target)) > 25:
            return edited
    return None


def amount_changed(picture: Image.Image, rng: Random) -> Image.Image | None:
    """Write another amount where a word stands."""
    _, glyphs = _glyphs(picture)
    words = _words(glyphs)
    for _ in range(30):
        if not words:
            return None
        target = rng.choice(words)
        height, width = target[3] - target[1], target[2] - target[0]
        edited = picture.copy()
        draw = ImageDraw.Draw(edited)
        draw.rectangle((target[0], target[1], target[2] - 1, target[3] - 1), fill=_ground(picture, target))
        amount = f"{rng.randrange(1, 10 ** max(1, min(6, round(width / height / 0.6) - 2)))}.{rng.randrange(100):02}"
        font = ImageFont.load_default(max(8, round(height * 1.3)))
        draw.text((target[0], target[3]), amount, _ink(picture, target), font, anchor="ls")
        if _difference(edited.crop(target), picture.crop(target)) > 25:
            return edited
    return None


def text_edits(picture: Image.Image, rng: Random) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """Yield (name, the picture, the edited one) for pictures with text."""
    for name, edit in (
        ("glyph changed", glyph_changed),
        ("word changed", word_changed),
        ("amount changed", amount_changed),
    ):
        for _ in range(2):
            edited = edit(picture, rng)
            if edited is not None:
                yield name, picture, edited
