"""Photographs of pages made for the near-duplicate benchmark: one page laid on a photo, and the same with one thing
changed.

Pages are the text-like pictures of a folder, with a letter, a word or an amount changed in them, and pages that are
drawn (drawn_pages.py). Both of a pair are photographed alike: seen from aside, unevenly lit, out of focus by a pixel or
less, with the sensor's noise, so that nothing but the change tells them apart, as in an edited photograph or one from
the same stand. Pairs whose change can hardly be seen in the photographs themselves are left out: who cannot read a
digit does not caption it wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import alterations
import drawn_pages
import numpy as np
from PIL import Image, ImageFilter

EDITS = (alterations.amount_changed, alterations.word_changed, alterations.glyph_changed)
SEEN, SEEN_PIXELS = 40, 6  # of 255 in luma, in so many pixels at least
GROUPS = ("receipts", "invoices", "forms", "dialogs", "ocr", "code", "baiona")  # part of the folder's name


def sources(media: Path) -> list[Path]:
    """Return the pictures of pages that a media folder holds."""
    folders = [f for name in ("confusable", "captioned", "families") for f in sorted((media / name).glob("*"))]
    chosen = [folder for folder in folders if any(group in folder.name for group in GROUPS)]
    return [p for f in chosen for p in sorted(f.rglob("*")) if p.suffix in (".png", ".jpg", ".jpeg", ".webp")]


def pair(
    seed: int, pages: list[Path], photos: list[Path], opened: Callable[[Path], Image.Image]
) -> tuple[str, Image.Image, Image.Image] | None:
    """Return a photograph of a page (RGB), and one of the page with something changed; None if nothing can be."""
    rng = Random(seed)
    if pages and rng.random() < 0.6:
        page = alterations.resized(opened(rng.choice(pages)), 2400)
        edit = rng.choice(EDITS)
        other, kind = edit(page, rng), edit.__name__.replace("_", " ")
        if other is None:
            return None
    else:
        kind, page = drawn_pages.page(seed, changed=False)
        _, other = drawn_pages.page(seed, changed=True)
    ground = opened(rng.choice(photos))
    shot = Shot.of(page.size, ground.size, rng)
    first, second = shot.taken(page, ground), shot.taken(other, ground)
    return (kind, first, second) if visible(first, second) else None


def visible(first: Image.Image, second: Image.Image) -> bool:
    """Return whether a reader could tell the two apart."""
    apart = np.abs(np.asarray(first.convert("L"), np.int16) - np.asarray(second.convert("L"), np.int16))
    return bool(np.count_nonzero(apart >= SEEN) >= SEEN_PIXELS)


@dataclass(frozen=True)
class Shot:
    """From where, in which light and how sharply a page is photographed."""

    size: tuple[int, int]
    corners: tuple[tuple[float, float], ...]  # of the page in the photograph, clockwise from the upper left
    light: tuple[float, float, float]  # at the middle, and its slopes over the picture
    tint: tuple[float, float, float]
    blur: float  # pixels
    noise: float  # of 255
    seed: int

    @classmethod
    def of(cls, page: tuple[int, int], ground: tuple[int, int], rng: Random) -> "Shot":
        long_side = rng.choice((800, 1080, 1280, 1600))
        wide = (ground[0] >= ground[1]) if rng.random() < 0.5 else (page[0] >= page[1])
        size = (long_side, round(long_side * 0.75)) if wide else (round(long_side * 0.75), long_side)
        share = rng.choice((0.45, 0.6, 0.75, 0.9, 1.1))  # of the frame; beyond 1 the page's margins are cut
        scale = share * min(size[0] / page[0], size[1] / page[1])
        width, height = page[0] * scale, page[1] * scale
        x = (size[0] - width) * rng.uniform(0.3, 0.7)
        y = (size[1] - height) * rng.uniform(0.3, 0.7)
        slant, turn = rng.choice((0.0, 0.02, 0.05)) * min(width, height), rng.choice((0.0, 0.0, 0.04, -0.08))
        square = ((0, 0), (width, 0), (width, height), (0, height))
        corners = tuple(
            (x + u - turn * (v - height / 2) + rng.uniform(-slant, slant), y + v + turn * (u - width / 2))
            for u, v in square
        )
        return cls(
            size,
            corners,
            (rng.uniform(0.7, 0.95), rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)),
            (1.0, rng.uniform(0.94, 1.0), rng.uniform(0.85, 1.0)),
            rng.choice((0.0, 0.4, 0.7, 1.0)),
            rng.choice((0.0, 1.5, 3.0)),
            rng.randrange(2**31),
        )

    def taken(self, page: Image.Image, ground: Image.Image) -> Image.Image:
        """Return the photograph (RGB) of `page` lying on `ground`."""
        twice = (2 * self.size[0], 2 * self.size[1])  # drawn at twice the size, since a lens does not alias
        coefficients = _perspective([(2 * x, 2 * y) for x, y in self.corners], page.size)
        nearest = min(1.0, max(abs(self.corners[1][0] - self.corners[0][0]) * 2 / page.width, 0.05))
        if nearest < 0.5:  # larger pages are averaged first
            small = (max(1, round(page.width * 2 * nearest)), max(1, round(page.height * 2 * nearest)))
            page = page.resize(small, Image.Resampling.BOX)
            coefficients = _perspective([(2 * x, 2 * y) for x, y in self.corners], page.size)
        scene = ground.resize(twice, Image.Resampling.BILINEAR)
        transform, bilinear = Image.Transform.PERSPECTIVE, Image.Resampling.BILINEAR
        sheet = page.transform(twice, transform, coefficients, bilinear)
        scene.paste(sheet, (0, 0), Image.new("L", page.size, 255).transform(twice, transform, coefficients, bilinear))
        seen = scene.resize(self.size, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(self.blur))
        values = np.asarray(seen, np.float32)
        down, across = np.mgrid[-1 : 1 : self.size[1] * 1j, -1 : 1 : self.size[0] * 1j]
        light = (self.light[0] + self.light[1] * across + self.light[2] * down)[:, :, None] * np.array(self.tint)
        noise = np.random.default_rng(self.seed).normal(0, self.noise, values.shape) if self.noise else 0
        return Image.fromarray(np.clip(np.rint(values * light + noise), 0, 255).astype(np.uint8))


def _perspective(corners: list[tuple[float, float]], size: tuple[int, int]) -> tuple[float, ...]:
    """Return what Pillow's PERSPECTIVE takes to bring a picture's corners to these."""
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)).tolist())
