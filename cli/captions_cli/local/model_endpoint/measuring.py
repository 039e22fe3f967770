"""Measuring a picture's pixels: layout, colours, light, sharpness and structure.

All is measured on small copies of the picture (box-averaged, so that re-encoding and resizing hardly move the figures).
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from captions_cli.local.model_endpoint.description import UnreadableMediaError

Float32s = npt.NDArray[np.float32]

# Colours and layout are measured on a copy of this side, strokes of text on a larger one.
_COLOUR_SIDE = 64
_DETAIL_SIDE = 512
_STROKE_SIDE = 768
# Layout is measured on a grid of so many cells a side.
_GRID = 32

# Hue angles are OKLab's, whose blues do not turn purple as CIELAB's do (Ottosson, "A perceptual color space for image
# processing", 2020); the ends below lie between the CSS colours that carry these names.
_HUES: tuple[tuple[float, str], ...] = (
    (14.0, "pink"),
    (41.0, "red"),
    (78.0, "orange"),
    (115.0, "yellow"),
    (163.0, "green"),
    (214.0, "teal"),
    (277.0, "blue"),
    (320.0, "purple"),
    (344.0, "magenta"),
    (360.0, "pink"),
)
# OKLab's chroma is stretched so that a step of it is about as visible as one of lightness (0-100).
_CHROMA_SCALE = 300.0
_GREY_CHROMA = 8.0
_TO_CONES: Float32s = np.array(
    [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ],
    dtype=np.float32,
)
_TO_OKLAB: Float32s = np.array(
    [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ],
    dtype=np.float32,
) * np.array([100.0, _CHROMA_SCALE, _CHROMA_SCALE], dtype=np.float32)
_EXIF_TEXT = re.compile(r"[^\w .,+\-/()]")


@dataclass(frozen=True)
class Region:
    """A stretch of the picture that stands out from its surroundings; positions and area as shares of the frame."""

    x: float
    y: float
    area: float
    colour: str


@dataclass(frozen=True)
class PixelFacts:
    """What was measured. Shares are 0 to 1, lightness 0 (black) to 100 (white) as in OKLab."""

    width: int
    height: int
    colours: tuple[tuple[str, float], ...]
    lightness: float
    contrast: float
    chroma: float
    warmth: float
    detail: float
    sharpness: float
    flatness: float
    regions: tuple[Region, ...]
    horizon: float | None
    upper_lighter: bool
    direction: str | None
    symmetric: bool
    text_lines: int
    text_share: float
    dark_on_light: bool
    shading: str | None
    transparent: float
    frames: int
    camera: str | None
    taken: str | None
    located: bool


def measure(data: bytes, max_pixels: int = 50_000_000) -> PixelFacts:
    """Return the facts of an encoded picture. Raises UnreadableMediaError as `decoded` does."""
    return facts_of(decoded(data, max_pixels))


def facts_of(image: Image.Image) -> PixelFacts:
    """Return the facts of a picture that `decoded` returned."""
    info = image.info
    return measure_image(image, frames=info["frames"], exif=info["exif_facts"], size=info["full_size"])


def measure_image(
    image: Image.Image,
    *,
    frames: int = 1,
    exif: dict[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> PixelFacts:
    """Return the facts of a decoded picture; `size` is its full size where `image` is a smaller copy."""
    width, height = size or image.size
    rgb, transparent = on_white(image)
    colours_lab = _lab(_box(rgb, _COLOUR_SIDE, _COLOUR_SIDE))
    luma = _luma(rgb, _DETAIL_SIDE)
    lightness: Float32s = colours_lab[..., 0]
    grid = _lab(_box(rgb, _GRID, _GRID))
    detail, sharpness, flatness, direction = _detail(luma)
    lines, text_share, dark_on_light = _text_lines(_luma(rgb, _STROKE_SIDE))
    horizon, upper_lighter = _horizon(colours_lab)
    exif = exif or {}
    return PixelFacts(
        width=width,
        height=height,
        colours=_named_shares(colours_lab),
        lightness=float(lightness.mean()),
        contrast=float(np.percentile(lightness, 95) - np.percentile(lightness, 5)),
        chroma=float(np.hypot(colours_lab[..., 1], colours_lab[..., 2]).mean()),
        warmth=float(colours_lab[..., 2].mean()),
        detail=detail,
        sharpness=sharpness,
        flatness=flatness,
        regions=_regions(grid),
        horizon=horizon,
        upper_lighter=upper_lighter,
        direction=direction,
        symmetric=_symmetric(grid),
        text_lines=lines,
        text_share=text_share,
        dark_on_light=dark_on_light,
        shading=_shading(lightness),
        transparent=transparent,
        frames=frames,
        camera=exif.get("camera"),
        taken=exif.get("taken"),
        located=bool(exif.get("located")),
    )


# Decoding


def decoded(data: bytes, max_pixels: int, side: int = _STROKE_SIDE) -> Image.Image:
    """Return an upright picture, a JPEG one decoded to `side` pixels or little more.

    Its `info` holds `full_size`, the number of `frames`, and `exif_facts`.

    Raises:
        UnreadableMediaError: not a picture, broken, truncated, or of more than `max_pixels` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of pixel bombs; the limit below is ours and exact.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > max_pixels:
                message = f"The image has {width}x{height} pixels; at most {max_pixels} are taken."
                raise UnreadableMediaError("image_too_large", message)
            frames = getattr(image, "n_frames", 1)
            exif = _exif_facts(image)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in {5, 6, 7, 8}
            if image.format == "JPEG":
                image.draft("RGB", (side, side))
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnreadableMediaError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen kinds of errors on hostile bytes
        message = "The image could not be decoded; it is not a valid image, or it is damaged."
        raise UnreadableMediaError("invalid_image", message) from error
    upright.info["full_size"] = (height, width) if turned else (width, height)
    upright.info["frames"] = frames
    upright.info["exif_facts"] = exif
    return upright


def _exif_facts(image: Image.Image) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    try:
        exif = image.getexif()
        model = str(exif.get(ExifTags.Base.Model, "") or "")
        model = _EXIF_TEXT.sub("", model).strip()[:40]
        if model:
            facts["camera"] = model
        taken = str(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, "") or "")
        if (match := re.match(r"(\d{4}):(\d{2}):(\d{2})\b", taken)) and match[1] != "0000":
            facts["taken"] = "-".join(match.groups())
        facts["located"] = bool(exif.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitude))
    except Exception:  # damaged EXIF is no reason not to look at the picture
        return facts
    return facts


def on_white(image: Image.Image) -> tuple[Image.Image, float]:
    """Return the picture as RGB on white, and the share of it that is transparent."""
    if image.mode in {"I", "I;16", "I;16B", "I;16L", "F"}:
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        top = high if high > 255 else 255.0
        scaled = np.clip((values - min(low, 0.0)) * (255.0 / max(top, 1.0)), 0, 255).astype(np.uint8)
        return Image.fromarray(scaled, "L").convert("RGB"), 0.0
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        ground = Image.new("RGB", rgba.size, (255, 255, 255))
        ground.paste(rgba, mask=alpha)
        clear = float((np.asarray(_box(alpha, _COLOUR_SIDE, _COLOUR_SIDE)) < 128).mean())
        return ground, clear
    return image.convert("RGB"), 0.0


def _luma(image: Image.Image, side: int) -> Float32s:
    """Return the picture's lightness, 0 to 255, its longer side at most `side`."""
    copy = image.convert("L")
    copy.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(copy, dtype=np.float32)


def _box(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BOX)


def _lab(image: Image.Image) -> Float32s:
    """Return the picture in OKLab, shape (height, width, 3): lightness 0-100, then a and b times `_CHROMA_SCALE`."""
    srgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab: Float32s = (np.cbrt(linear @ _TO_CONES) @ _TO_OKLAB).astype(np.float32)
    return lab


# Colour


def colour_grid(image: Image.Image) -> list[list[str]]:
    """Return the names of the colours of 16 rows of as many cells of an RGB picture."""
    side = _GRID // 2
    return [[colour_name(*cell) for cell in row] for row in _lab(_box(image, side, side)).tolist()]


def colour_name(lightness: float, a: float, b: float) -> str:
    """Return the everyday name of a colour, given as `_lab` scales it."""
    chroma = float(np.hypot(a, b))
    if lightness < 24 and chroma < 15:
        return "black"
    if chroma < _GREY_CHROMA:
        if lightness > 95:
            return "white"
        return "dark grey" if lightness < 48 else "light grey" if lightness > 76 else "grey"
    hue = float(np.degrees(np.arctan2(b, a)) % 360)
    base = next(name for end, name in _HUES if hue <= end)
    earthy = base in {"red", "orange", "yellow"} and hue < 97
    if earthy and lightness < 66 and chroma < (27 if base == "red" else 47):
        return "dark brown" if lightness < 40 else "brown"
    if base in {"orange", "yellow"} and chroma < 28 and lightness >= 66:
        return "beige"
    if base == "yellow" and lightness < 70:
        return "dark olive" if lightness < 40 else "olive"
    if base == "red" and lightness > 70:
        return "pink"
    if base == "pink" and lightness < 50:
        return "dark red"
    if base == "blue" and lightness < 34:
        return "navy"
    if base == "teal" and lightness > 76 and chroma > 24:
        return "cyan"
    if base == "magenta" and lightness < 60:
        base = "purple"
    # The eye's full blue and purple are darker than its full green or red.
    if lightness < (38 if base in {"blue", "purple", "magenta"} else 46):
        return f"dark {base}"
    if lightness > 78 and base not in {"yellow", "pink", "orange"} and chroma < 40:
        return f"light {base}"
    return base


def _named_shares(lab: Float32s) -> tuple[tuple[str, float], ...]:
    """Return the names of the picture's colours with their shares, the largest first."""
    # Steps of 4 in each coordinate: naming a few hundred colours instead of 4,096 pixels.
    steps = np.round(lab.reshape(-1, 3) / 4).astype(np.int16)
    colours, counts = np.unique(steps, axis=0, return_counts=True)
    shares: dict[str, float] = {}
    for (lightness, a, b), count in zip(colours.tolist(), counts.tolist(), strict=True):
        name = colour_name(lightness * 4.0, a * 4.0, b * 4.0)
        shares[name] = shares.get(name, 0.0) + count / len(steps)
    return tuple(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _shading(lightness: Float32s) -> str | None:
    """Return the side light falls from, if lightness rises evenly across the frame."""
    size = lightness.shape[0]
    across = np.linspace(-1, 1, size, dtype=np.float32)
    variance = float(lightness.var())
    if variance < 4:
        return None
    for values, names in ((lightness.mean(axis=0), ("left", "right")), (lightness.mean(axis=1), ("top", "bottom"))):
        slope = float((values * across).mean() / (across**2).mean())
        explained = float(((slope * across) ** 2).mean()) / variance
        if explained > 0.35:
            return names[1] if slope > 0 else names[0]
    return None


# Structure


def _detail(luma: Float32s) -> tuple[float, float, float, str | None]:
    """Return edge density, sharpness, the share of flat ground, and the direction most edges run in."""
    if min(luma.shape) < 8:
        return 0.0, 0.0, 1.0, None
    dy = luma[1:, :-1] - luma[:-1, :-1]
    dx = luma[:-1, 1:] - luma[:-1, :-1]
    strength = np.hypot(dx, dy)
    edges = strength > 24
    detail = float(edges.mean())
    flatness = float((strength < 3).mean())
    laplace = luma[1:-1, 1:-1] * 4 - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    strongest = np.percentile(strength, 99)
    sharpness = float(np.percentile(np.abs(laplace), 99) / max(float(strongest), 4.0))
    direction = None
    if edges.sum() > 200:
        upright = float(np.abs(dx[edges]).sum())
        lying = float(np.abs(dy[edges]).sum())
        if upright > 1.7 * lying:
            direction = "vertical"
        elif lying > 1.7 * upright:
            direction = "horizontal"
    return detail, sharpness, flatness, direction


def _text_lines(luma: Float32s) -> tuple[int, float, bool]:
    """Return how many lines of strokes there are, the share of rows they fill, and whether they are dark on light.

    A line of text is a band of rows that crosses the ground's lightness many times in thin strokes, with rows of
    hardly any crossing above and below it. The limits were set on 37 rendered pages, slides, forms, receipts and code
    screenshots against 316 photos, drawings, flags and icons: all but three of the first pass, none of the others.
    """
    height, width = luma.shape
    if height < 24 or width < 24:
        return 0, 0.0, True
    histogram = np.bincount((luma / 8).astype(np.int64).ravel(), minlength=32)
    ground = float(histogram.argmax() * 8 + 4)
    dark_on_light = ground >= 110
    strokes = (luma < ground - 40) if dark_on_light else (luma > ground + 40)
    flat = float((np.abs(luma - ground) < 16).mean())
    if flat < 0.5 or float(strokes.mean()) > 0.25:
        return 0, 0.0, dark_on_light
    crossings = (strokes[:, 1:] != strokes[:, :-1]).sum(axis=1)
    bands = _runs(crossings >= max(6, width * 0.02))
    lines = [
        (start, end)
        for start, end in bands
        if 3 <= end - start <= 40 and 2 * strokes[start:end].sum() <= 7 * crossings[start:end].sum()
    ]
    heights = np.array([end - start for start, end in lines], dtype=np.float32)
    share = float(heights.sum()) / height
    if len(lines) < 5 or share < 0.1 or len(lines) < 0.45 * len(bands):
        return 0, 0.0, dark_on_light
    unevenness = float(heights.std() / heights.mean())
    if unevenness > (0.62 if flat >= 0.6 else 0.45):
        return 0, 0.0, dark_on_light
    return len(lines), share, dark_on_light


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches of True as (start, end) pairs."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in steps.reshape(-1, 2)]


def _horizon(lab: Float32s) -> tuple[float | None, bool]:
    """Return where a level edge parts the frame (share of the height from the top), and if it is lighter above."""
    rows = lab.mean(axis=1)
    size = len(rows)
    total = float(((rows - rows.mean(axis=0)) ** 2).sum())
    if total < size * 20:
        return None, False
    best, at = 0.0, 0
    for cut in range(size // 8, size - size // 8):
        upper, lower = rows[:cut].mean(axis=0), rows[cut:].mean(axis=0)
        between = cut * (size - cut) / size * float(((upper - lower) ** 2).sum())
        if between > best:
            best, at = between, cut
    # An edge across the frame, not a slow change of light: most columns must step at that height.
    step = np.linalg.norm(lab[max(0, at - 3) : at].mean(axis=0) - lab[at : at + 3].mean(axis=0), axis=-1)
    if best / total < 0.72 or float((step > 10).mean()) < 0.6:
        return None, False
    return at / size, bool(rows[:at, 0].mean() > rows[at:, 0].mean())


def _regions(grid: Float32s) -> tuple[Region, ...]:
    """Return what stands out from the frame's border, the largest first; nothing if too much or too little does."""
    size = grid.shape[0]
    border = np.concatenate([grid[:2].reshape(-1, 3), grid[-2:].reshape(-1, 3), grid[2:-2, :2].reshape(-1, 3)])
    border = np.concatenate([border, grid[2:-2, -2:].reshape(-1, 3)])
    centre = np.median(border, axis=0)
    spread = float(np.median(np.linalg.norm(border - centre, axis=-1)))
    distance = np.linalg.norm(grid - centre, axis=-1)
    threshold = max(14.0, 2.2 * spread, 0.45 * float(np.percentile(distance, 98)))
    standing_out = distance > threshold
    labels = _components(standing_out)
    regions = []
    for label in range(1, int(labels.max()) + 1):
        cells = labels == label
        area = float(cells.mean())
        if area < 0.008:
            continue
        ys, xs = np.nonzero(cells)
        regions.append(
            Region(
                x=float((xs.mean() + 0.5) / size),
                y=float((ys.mean() + 0.5) / size),
                area=area,
                colour=colour_name(*(float(value) for value in np.median(grid[cells], axis=0))),
            )
        )
    if sum(region.area for region in regions) > 0.75:
        return ()
    return tuple(sorted(regions, key=lambda region: (-round(region.area, 2), region.x, region.y)))


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Label the 4-connected components of a small mask from 1 on; 0 is outside."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    height, width = mask.shape
    label = 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        label += 1
        waiting = [(int(start[0]), int(start[1]))]
        labels[waiting[0]] = label
        while waiting:
            y, x = waiting.pop()
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= ny < height and 0 <= nx < width and mask[ny, nx] and not labels[ny, nx]:
                    labels[ny, nx] = label
                    waiting.append((ny, nx))
    return labels


def _symmetric(grid: Float32s) -> bool:
    """Return whether the left half mirrors the right."""
    spread = float(grid.std(axis=(0, 1)).sum())
    if spread < 6:
        return False
    return float(np.abs(grid - grid[:, ::-1]).mean()) < 0.22 * spread
