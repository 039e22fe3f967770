"""Pictures of more than 8 bits a channel, brought to 8: as they are, or stretched where they use little of their range.

Sensors of 10 to 14 bits write 16, X-rays and heat cameras use a narrow band of them: shown as they are, they are black
or one grey. A dark picture is another thing, and stays dark: one that was made of 8 bits, and one of noise alone.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

NARROW = 0.25
"""Share of its range below which a picture is stretched to what it uses."""
_NOISE = 0.25
"""Of the spread of pixels, what is left in means of 8 x 8: an eighth of white noise, nearly all of a picture."""
_BLOCK = 8
_STRIPS = 64
_STRIP_PIXELS = 2_000_000
PPM = "PPM"
"""In a raw mode's place, as PPMs of colours have none."""
_PPM_COMMENT = re.compile(rb"#[^\r\n]*")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
Float32s = npt.NDArray[np.float32]


def grey_scale(image: Image.Image) -> tuple[float, float]:
    """Return (the value that becomes black, the factor to 0..255) for a picture of one deep channel."""
    low, scale = _dark_to_bright(image)
    tags = getattr(image, "tag_v2", None)
    if scale and tags is not None and tags.get(262) == 0:  # WhiteIsZero, which Pillow minds at 8 bits alone
        return low + 255.0 / scale, -scale
    return low, scale


def _dark_to_bright(image: Image.Image) -> tuple[float, float]:
    low, high, of_8_bits = _extremes(image)
    most, whole = _range(image, low, high)
    if whole:
        return low, 255.0 / (high - low) if high > low else 0.0
    if not 0 < high - low < most * NARROW or of_8_bits(most) or _is_noise(image, _grey_strip):
        return 0.0, 255.0 / most
    return low, 255.0 / (high - low)


def _range(image: Image.Image, low: float, high: float) -> tuple[float, bool]:
    """Return the largest value there could be; or that there is no telling, and what is there is the whole range."""
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", None)
        bits = tags[258][0] if tags is not None and isinstance(tags.get(258), tuple) else 16
        return float((1 << min(max(bits, 8), 16)) - 1), False  # BitsPerSample: 12-bit scans fill a sixteenth
    if image.mode == "I" and low >= 0 and high <= 65_535:
        return (65_535.0 if high > 255 else 255.0), False
    if image.mode == "F" and low >= 0 and high <= 255:
        return (255.0 if high > 1 else 1.0), False
    return 0.0, True


def _extremes(image: Image.Image) -> tuple[float, float, Callable[[float], bool]]:
    """Return the least and the largest value, and what tells whether all values are those of 8 bits in a range."""
    low, high, whole, byte = np.inf, -np.inf, {1.0: True, 255.0: True, 65_535.0: True}, True
    for strip in _strips(image):
        values = _grey_strip(strip)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        for most in whole:
            if whole[most]:
                steps = values * np.float32(255.0 / most)
                whole[most] = bool((np.abs(steps - np.rint(steps)) < 1e-3).all())
        byte = byte and bool((values % 256 == 0).all())
    if low > high:
        low = high = 0.0
    return low, high, lambda most: whole.get(most, False) or (most == 65_535.0 and byte)


def to_8_bits(part: Image.Image, low: float, scale: float, clear: int | None) -> Image.Image:
    """Return a part of a grey picture, scaled; what is not finite is black, what is `clear` white."""
    values = _grey_strip(part)
    grey = np.clip(np.rint((np.nan_to_num(values, nan=low, posinf=low, neginf=low) - low) * scale), 0, 255)
    grey = grey.astype(np.uint8)
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _grey_strip(strip: Image.Image) -> Float32s:
    return np.asarray(strip).astype(np.float32)


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


def _is_noise(image: Image.Image, values_of: Callable[[Image.Image], Float32s]) -> bool:
    """Tell whether nothing is left of a picture once its pixels are averaged: a sensor that saw no light."""
    width, height = image.size[0] // _BLOCK * _BLOCK, image.size[1] // _BLOCK * _BLOCK
    if min(width, height) < 8 * _BLOCK:
        return False
    tops = np.unique(np.linspace(0, height - _BLOCK, _STRIPS).astype(int) // _BLOCK * _BLOCK)
    rows = np.stack([values_of(image.crop((0, int(top), width, int(top) + _BLOCK))) for top in tops])
    rows = np.nan_to_num(rows, posinf=0.0, neginf=0.0)
    means = rows.reshape(len(tops), _BLOCK, width // _BLOCK, _BLOCK).mean(axis=(1, 3))
    return bool(means.std() < _NOISE * rows.std())


# --- colours, and grey with transparency: Pillow keeps the upper byte of each value --------------------------------


def stretched(image: Image.Image, data: bytes, tiles: Sequence[Any], raw: str) -> Image.Image:
    """Return a loaded picture whose 16 bits were stored as Pillow's `raw` mode, stretched if it uses little of them.

    `tiles` are those of the picture before it was loaded.
    """
    if not _narrow(image, 256 * NARROW):
        return image
    upper, lower = _bytes_of_ppm(image, data) if raw == PPM else (image, _lower_bytes(image, data, tiles))
    if lower is None or lower.size != image.size:
        return image
    pairs = _Pairs(upper, lower, raw == "LA;16B")
    low, high, same, empty = 65_535.0, 0.0, True, True
    for above, under, seen in pairs.strips():
        values = (above.astype(np.uint16) << 8 | under)[seen]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            same, empty = same and bool((above == under)[seen].all()), empty and not under[seen].any()
    if same or empty or not 0 < high - low < 65_535 * NARROW or pairs.are_noise():
        return image
    return pairs.scaled(low, 255.0 / (high - low))


def _clear_colour(image: Image.Image) -> tuple[int, int, int] | None:
    """Return the colour of 16 bits a channel that is transparent in a PNG."""
    clear = image.info.get("transparency")
    return clear if isinstance(clear, tuple) and len(clear) == 3 else None


def _narrow(image: Image.Image, most: float) -> bool:
    low, high, clear = 255, 0, _clear_colour(image)
    for strip in _strips(image):
        values = np.asarray(strip)
        colours = values[..., :3][values[..., 3] > 0] if values.shape[2] == 4 else values
        if clear is not None:
            colours = colours[(colours != np.array(clear) >> 8).any(axis=-1)]
        if colours.size:
            low, high = min(low, int(colours.min())), max(high, int(colours.max()))
        if high - low >= most:
            return False
    return high >= low


def _bytes_of_ppm(image: Image.Image, data: bytes) -> tuple[Image.Image, Image.Image]:
    """Return the upper and the lower bytes of a PPM, of whose values Pillow keeps the nearest of 8 bits."""
    tile: Any = Image.open(io.BytesIO(data), formats=["PPM"]).tile[0]
    most = tile.args[1]
    count = 3 * image.width * image.height
    if tile.codec_name == "ppm_plain":
        text = _PPM_COMMENT.sub(b"", data[tile.offset :])
        values = np.fromstring(text, np.uint16, count, sep=" ")
    else:
        values = np.frombuffer(data, ">u2", count, tile.offset)
    if most != 65_535:
        values = ((values.astype(np.uint32) * 65_535 + most // 2) // most).astype(np.uint16)
    values = values.reshape(image.height, image.width, 3)
    return Image.fromarray((values >> 8).astype(np.uint8)), Image.fromarray((values & 255).astype(np.uint8))


def _lower_bytes(image: Image.Image, data: bytes, tiles: Sequence[Any]) -> Image.Image | None:
    """Return the picture's lower bytes, by reading it as if its values stood in the other order."""

    def other(mode: str) -> str:
        return "RGBA" if mode == "LA;16B" else mode[:-1] + _OTHER_BYTE[mode[-1]]

    again: Any = Image.open(io.BytesIO(data), formats=[str(image.format)])
    again.seek(image.tell())
    again.tile = [
        tile._replace(args=other(tile.args) if isinstance(tile.args, str) else (other(tile.args[0]), *tile.args[1:]))
        for tile in tiles
    ]
    try:
        again.load()
    except (OSError, ValueError):
        return None  # there is no such order for it
    lower: Image.Image = again
    return lower


class _Pairs:
    """The upper and the lower bytes of a picture, strip by strip."""

    def __init__(self, upper: Image.Image, lower: Image.Image, grey: bool) -> None:
        self._upper, self._lower, self._grey = upper, lower, grey
        self._clear = _clear_colour(upper)

    def strips(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
        """Yield upper bytes, lower bytes, and which pixels are seen."""
        for upper, lower in zip(_strips(self._upper), _strips(self._lower), strict=True):
            yield self._split(upper, lower)

    def _split(
        self, upper: Image.Image, lower: Image.Image
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        high, under = np.asarray(upper), np.asarray(lower)
        seen = high[..., 3] > 0 if high.shape[2] == 4 else np.ones(high.shape[:2], dtype=bool)
        if self._grey:  # as RGBA are read: upper and lower byte of the grey, then of the transparency
            under = np.repeat(under[..., 1:2], 3, axis=2)
        if self._clear is not None:
            values = high.astype(np.uint16) << 8 | under[..., :3]
            seen = ~(values == np.array(self._clear, dtype=np.uint16)).all(axis=2)
        return high[..., :3], under[..., :3], seen

    def are_noise(self) -> bool:
        green = Image.merge("LA", (self._upper.getchannel(1), self._lower.getchannel(1)))
        return _is_noise(green, lambda strip: np.asarray(strip).astype(np.float32) @ np.array([256, 1], np.float32))

    def scaled(self, low: float, scale: float) -> Image.Image:
        """Return the picture with its values scaled, and its transparency as it was."""
        with_alpha = self._upper.mode == "RGBA" or self._clear is not None
        result = Image.new("RGBA" if with_alpha else "RGB", self._upper.size)
        top = 0
        for upper, under, seen in self.strips():
            values = (upper.astype(np.uint16) << 8 | under).astype(np.float32)
            grey = np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
            strip = Image.fromarray(grey)
            if with_alpha:
                alpha = Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
                if self._upper.mode == "RGBA":
                    alpha = self._upper.getchannel("A").crop((0, top, strip.width, top + strip.height))
                strip.putalpha(alpha)
            result.paste(strip, (0, top))
            top += strip.height
        result.info = {name: value for name, value in self._upper.info.items() if name != "transparency"}
        return result
