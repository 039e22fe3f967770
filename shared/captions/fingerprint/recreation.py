"""Whether one picture is a copy of another, by making the copy once more, pixel by pixel.

What a codec, another size or a filter leaves in a copy must be allowed for where only thumbnails are compared. Where
both pictures are decoded whole it need not be guessed: one of them is resized, made brighter and sharpened as the other
seems to have been, and saved with the tables of its JPEG or the colours of its palette. Of a copy hardly anything is
left then, in whatever quality it was saved; an edit stays as it was made.
"""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from captions import media
from captions.fingerprint.planes import Plane, mean_around, quantile

MOST_PIXELS = 2_400_000
"""Larger pictures are not compared so: these take up to two seconds of CPU time and 200 MB."""

# Layout, width, height, orientation, how a JPEG's colours are subsampled, how many tables it has, bytes of palette
# (RGB) that follow, before the tables (64 numbers of 16 bits each) and the pixels.
_HEADER = struct.Struct("<BIIBBBH")
LAYOUT = 7
_GREY, _LOSSY, _LOSSLESS = 3, 254, 255  # and what else may stand in the place of a JPEG's subsampling

_COARSEST = 255  # of a table; of coarser ones libjpeg complains on stderr
_FEWEST_COLOURS = 128  # fewer are a drawing's, and what they took away may be all that two pictures differ by

_FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
_FITTED = 60_000  # values of the picture that the fit is made to: more say no more of five terms
_FEWEST = 100
_PULL = np.array([1e-3, 0.5, 0.5, 0.5, 1e-3])  # towards no change
_UNCHANGED = np.array([1.0, 0.0, 0.0, 0.0, 0.0])

_GAIN, _OFFSET, _DETAIL = 1.2, 28, 1.2  # as far as copies may be changed: a ratio, of 255, of the detail's strength
# What may be left: root mean square of 3 x 3 pixels of luma, by the root mean square of all (without the largest 1 %),
# and in no case more than so much; and the mean of 5 x 5 of chroma. Of 255.
_LEFT, _LEFT_BY_NOISE, _MOST_CHROMA = 4.0, 7.0, 16.0
_MOST_LEFT, _MOST_LEFT_LOSSY = 18.0, 22.0  # the second of codecs whose part cannot be done again
_STANDS_OUT, _PLACE = 1.8, 12  # times what is left elsewhere, which is so many pixels away
_OTHER_COLOUR = 2.0
_PLACES_IF_EXACT = 3  # where nearly nothing is left of a copy, more than one place may have been edited
# Of letters on an even ground a copy leaves more than of the ground, too, unless it is exact; and where what a palette
# took is left out, the rest stands out. Of letters that are as light as their ground chroma alone tells.
_FAINT, _FAINT_IF_BANDED, _FAINT_IF_EXACT, _EXACT = (16.0, 8.0), (8.0, 16.0), (5.0, 4.0), 5.0
_PALETTE_SLACK = 12  # of 255: a palette's colour need not be the nearest one


class WholePicture(NamedTuple):
    """A picture decoded whole, and how it was saved."""

    image: Image.Image
    """RGB, upright."""
    orientation: int
    sampling: int
    """How a JPEG's colours are subsampled (0: 4:4:4, 1: 4:2:2, 2: 4:2:0), or _GREY; else how it was packed."""
    tables: list[list[int]]
    """A JPEG's quantisation tables."""
    palette: bytes


class Recreated(NamedTuple):
    """What is left of a copy where another picture, made into it, is taken away, and what may be; of 255."""

    luma: float
    luma_limit: float
    chroma: float
    chroma_limit: float
    elsewhere: float
    """What is left of luma where that place is not which most is left of; of an exact copy, where three are not."""
    chroma_elsewhere: float
    faint: tuple[float, float]
    """What may be left of luma, and of chroma, where nothing is left elsewhere."""

    @property
    def excess(self) -> float:
        """What is left by what may be: up to 1 of a copy."""
        return max(self.luma / self.luma_limit, self.chroma / self.chroma_limit)

    @property
    def is_another(self) -> bool:
        """Whether what is left stands out in a place, of luma or of chroma: one of the two was edited there.

        So much of chroma as codecs leave of thin lines in pure colours alone says it anywhere.
        """
        luma, chroma = self.faint
        stands_out = self.luma > max(luma, _STANDS_OUT * self.elsewhere)
        stands_out |= self.chroma > max(chroma, _STANDS_OUT * self.chroma_elsewhere)
        return stands_out or self.chroma > _OTHER_COLOUR * self.chroma_limit

    @property
    def is_exact(self) -> bool:
        """Whether nearly nothing is left in nearly all places: the copy was made just so."""
        return self.luma_limit < _EXACT


def packed_pixels(picture: media.Picture, data: bytes) -> bytes | None:
    """Return what `recreation` compares of a picture that was decoded finely from `data`; None where that is too much.

    Three bytes a pixel, at most 7.2 MB.
    """
    image = picture.working
    if image.size != (picture.width, picture.height) or image.width * image.height > MOST_PIXELS:
        return None
    sampling, tables = _jpeg_of(data) or (_LOSSY if picture.pixels_digest is None else _LOSSLESS, [])
    palette = picture.palette if picture.palette and len(picture.palette) >= 3 * _FEWEST_COLOURS else b""
    head = _HEADER.pack(LAYOUT, *image.size, picture.orientation, sampling, len(tables), len(palette))
    return b"".join((head, palette, *(struct.pack("<64H", *table) for table in tables), image.tobytes()))


def unpacked_pixels(evidence: bytes) -> WholePicture | None:
    """Read packed pixels; None for evidence of another layout."""
    if evidence[0] != LAYOUT:
        return None
    _, width, height, orientation, sampling, count, palette_size = _HEADER.unpack_from(evidence)
    at = _HEADER.size + palette_size
    tables = [list(struct.unpack_from("<64H", evidence, at + 128 * number)) for number in range(count)]
    image = Image.frombytes("RGB", (width, height), memoryview(evidence)[at + 128 * count :])
    return WholePicture(image, orientation, sampling, tables, evidence[_HEADER.size : at])


def _jpeg_of(data: bytes) -> tuple[int, list[list[int]]] | None:
    """Return the subsampling and the tables of a JPEG that can be saved like this again."""
    if not data.startswith(b"\xff\xd8"):
        return None
    from PIL import JpegImagePlugin  # it has read the JPEG; a function that reads none need not load it

    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        tables = getattr(image, "quantization", {})
        sampling = _GREY if image.mode == "L" else JpegImagePlugin.get_sampling(image) if image.mode == "RGB" else -1
        known = sampling >= 0 and sorted(tables) in ([0], [0, 1]) and image.info.get("adobe_transform", 1) == 1
        known = known and max(map(max, tables.values())) <= _COARSEST
        return (sampling, [list(tables[number]) for number in sorted(tables)]) if known else None


def recreation(a: WholePicture, b: WholePicture) -> Recreated | None:
    """Return what is left where one of two pictures is made into the other: what tells the most.

    The smaller one is the copy, and of one size either. None where each is larger than the other along a side.
    """
    ways: list[Recreated] = []
    for source, copy in ((a, b), (b, a)):
        if source.image.width < copy.image.width or source.image.height < copy.image.height:
            continue
        for made, slack in _made_into(source, copy):
            ways.append(_left(made, copy, slack))
            if ways[-1].is_exact and ways[-1].excess <= 1 and not ways[-1].is_another:
                return ways[-1]
    exact = (left for left in ways if left.is_exact and left.is_another)
    return next(exact, None) or min(ways, key=lambda left: left.excess, default=None)


def _made_into(source: WholePicture, copy: WholePicture) -> Iterator[tuple[Image.Image, Plane | None]]:
    """Yield what the copy may look like, made from the source, and how far its palette may have moved each pixel."""
    resized = _resized(source.image, copy)
    images = [resized, *_adjusted(resized, copy.image)]
    for image in images:
        if copy.tables:
            yield _saved(image, copy), None
        elif copy.palette:
            yield image, _moved_by(copy.palette, image)
    for image in images:
        yield image, None


def _resized(source: Image.Image, copy: WholePicture) -> Image.Image:
    """Return the source at the copy's size, by the filter that leaves least once the copy's tables took their share."""
    size = copy.image.size
    if source.size == size:
        return source
    pixels = np.asarray(copy.image, np.int16)

    def off(image: Image.Image) -> float:
        saved = image if not copy.tables else _saved(image, copy)
        return float(np.abs(pixels - np.asarray(saved, np.int16)).mean())

    return min((source.resize(size, how) for how in _FILTERS), key=off)


def _adjusted(source: Image.Image, copy: Image.Image) -> Iterator[Image.Image]:
    """Yield the source as bright, contrasting and sharp as the copy: a least squares fit, without the worst 3 %.

    Nothing where there is too little to fit to, or where copies are not changed as much.
    """
    from PIL import ImageFilter  # only a comparison as close as this needs it, and no cold start

    kernel = ImageFilter.Kernel((3, 3), (1, 1, 1, 1, 5, 1, 1, 1, 1))
    blurred = [source.filter(how) for how in (kernel, ImageFilter.GaussianBlur(1), ImageFilter.GaussianBlur(2))]
    pixels = np.asarray(source).reshape(-1)
    step = max(1, pixels.size // _FITTED)
    step += step % 3 == 0  # each of the three colours
    values = pixels[::step].astype(np.float64)
    details = [values - np.asarray(image).reshape(-1)[::step] for image in blurred]
    terms = np.stack([values, *details, np.ones_like(values)])
    wanted = np.asarray(copy).reshape(-1)[::step].astype(np.float64)
    usable = (wanted > 2) & (wanted < 253) & (values > 0) & (values < 255)  # what clips says nothing of the gain
    chosen, weights = usable, _UNCHANGED
    for _ in range(4):
        if chosen.sum() < _FEWEST:
            return
        pull = np.diag(_PULL * [1, *[chosen.sum()] * 3, 1])
        taken = terms[:, chosen]
        weights = np.linalg.solve(taken @ taken.T + pull, taken @ wanted[chosen] + pull @ _UNCHANGED)
        made = weights @ terms
        error = np.abs(wanted - np.clip(made, 0, 255))
        chosen = usable & (made > 0) & (made < 255) & (error <= quantile(error[usable], 0.97) + 1)
    gain, *sharper, offset = (float(weight) for weight in weights)
    if not 1 / _GAIN <= gain <= _GAIN or abs(offset) > _OFFSET or sum(map(abs, sharper)) > _DETAIL:
        return
    adjusted = gain * np.asarray(source, np.float32) + offset
    for weight, image in zip(sharper, blurred, strict=True):
        adjusted += weight * (np.asarray(source, np.float32) - np.asarray(image, np.float32))
    yield Image.fromarray(np.clip(np.rint(adjusted), 0, 255).astype(np.uint8))


def _saved(image: Image.Image, copy: WholePicture) -> Image.Image:
    """Return what a picture becomes where it is saved as the copy's JPEG was."""
    out = io.BytesIO()
    stored = media.stored(image, copy.orientation)
    if copy.sampling != _GREY:
        stored.save(out, "JPEG", qtables=copy.tables, subsampling=copy.sampling)
        return media.upright(_opened(out), copy.orientation)
    # What a grey copy lacks of colour stays to be seen.
    stored.convert("L").save(out, "JPEG", qtables=copy.tables)
    _, *colours = stored.convert("YCbCr").split()
    return media.upright(Image.merge("YCbCr", (_opened(out), *colours)).convert("RGB"), copy.orientation)


def _opened(file: io.BytesIO) -> Image.Image:
    image = Image.open(file, formats=["JPEG"])
    image.load()
    return image


def _moved_by(palette: bytes, image: Image.Image) -> Plane:
    """Return how far each pixel may be from what it was in a picture of these colours."""
    colours = Image.new("P", (1, 1))
    colours.putpalette(palette)
    nearest = image.quantize(palette=colours, dither=Image.Dither.NONE).convert("RGB")
    off = np.asarray(image, np.float32) - np.asarray(nearest, np.float32)
    distance: Plane = np.sqrt((off**2).sum(axis=2)) + _PALETTE_SLACK
    return distance


def _left(made: Image.Image, copy: WholePicture, slack: Plane | None) -> Recreated:
    off = np.asarray(copy.image, np.float32) - np.asarray(made, np.float32)
    if slack is not None:
        distance = np.sqrt((off**2).sum(axis=2))
        off *= (np.maximum(distance - slack, 0) / np.maximum(distance, 1e-6))[:, :, None]
    luma: Plane = off @ np.array([0.299, 0.587, 0.114], np.float32)
    blue, red = (off[:, :, 2] - luma) / 1.772, (off[:, :, 0] - luma) / 1.402
    size = np.abs(luma)
    noise = float(np.sqrt((np.minimum(size, quantile(size, 0.99)) ** 2).mean()))
    around = np.sqrt(mean_around(luma**2, 3))
    luma_limit = min(_MOST_LEFT_LOSSY if copy.sampling == _LOSSY else _MOST_LEFT, _LEFT + _LEFT_BY_NOISE * noise)
    exact = luma_limit < _EXACT
    faint = _FAINT if not exact else _FAINT_IF_BANDED if slack is not None else _FAINT_IF_EXACT
    places = _PLACES_IF_EXACT if faint is _FAINT_IF_EXACT else 1
    most, elsewhere = _in_and_outside_of_places(around, places)
    most_chroma, chroma_elsewhere = _in_and_outside_of_places(
        np.hypot(mean_around(blue, 5), mean_around(red, 5)), places
    )
    return Recreated(
        luma=most,
        luma_limit=luma_limit,
        chroma=most_chroma,
        chroma_limit=_MOST_CHROMA,
        elsewhere=elsewhere,
        chroma_elsewhere=chroma_elsewhere,
        faint=faint,
    )


def _in_and_outside_of_places(around: Plane, places: int) -> tuple[float, float]:
    """Return the most of all, and the most of what is near none of so many places."""
    most = float(around.max())
    for _ in range(places):
        row, column = divmod(int(around.argmax()), around.shape[1])
        around[max(0, row - _PLACE) : row + _PLACE + 1, max(0, column - _PLACE) : column + _PLACE + 1] = 0
    return most, float(around.max())
