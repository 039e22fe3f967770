"""Small pictures of one thing on plain ground, as shops show their goods: for the near-duplicate benchmark.

They are made of icons and cut-out photographs from packages that hold such pictures, and of pieces cut out of photos.
One half is there to tune limits on, the other half is only measured: no package, and no photo, is in both.

    python benchmarks/plain_ground.py DIR

fetches the packages with npm and apt-get, as far as these are there, and unpacks them into DIR. Nothing of them is
installed, and none of their programs run.
"""

import argparse
import hashlib
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import alterations
from PIL import Image, ImageDraw, ImageFilter

Half = Literal["tuned on", "measured"]
HALVES: tuple[Half, ...] = ("tuned on", "measured")


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    by: Literal["npm", "apt"]
    licence: str
    half: Half


PACKAGES = (
    Package("@lobehub/fluent-emoji-3d", "1.1.0", "npm", "MIT", "tuned on"),
    Package("oxygen-icon-theme", "", "apt", "LGPL-3+", "tuned on"),
    Package("tuxpaint-stamps-default", "", "apt", "GPL-2+, and freer for many", "measured"),
    Package("mate-icon-theme", "", "apt", "GPL-2 / LGPL-3 / CC-BY-SA-3.0", "measured"),
)
SIZES = (200, 320)  # pixels of the longer side
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Thing:
    """One picture: where it is from, and how it is shown."""

    path: Path
    half: Half
    cut_out: bool
    """Whether a piece is cut out of a photo, or the picture is one already."""

    @property
    def name(self) -> str:
        return f"{'cut-out of ' if self.cut_out else ''}{self.path.parent.name}/{self.path.name}"

    def shown(self, opened: Callable[[Path], Image.Image]) -> Image.Image:
        """Return the thing on white (RGB) or on transparent ground (RGBA), 200 to 320 pixels at its longer side."""
        rng = Random(self.name)
        picture = _cut_out(opened(self.path), rng) if self.cut_out else Image.open(self.path).convert("RGBA")
        picture = alterations.resized(picture, min(max(picture.size), rng.randrange(*SIZES)))
        margin = round(rng.choice((0, 0.03, 0.08)) * max(picture.size))
        ground = Image.new("RGBA", (picture.width + 2 * margin, picture.height + 2 * margin), (*WHITE, 0))
        ground.paste(picture, (margin, margin))
        if rng.random() < 0.5:
            return ground
        return Image.alpha_composite(Image.new("RGBA", ground.size, WHITE), ground).convert("RGB")

    def saved(self, opened: Callable[[Path], Image.Image]) -> bytes:
        """Return the picture as a shop would save it: PNG or WebP if it is transparent, else JPEG or WebP."""
        picture = self.shown(opened)
        if picture.mode == "RGBA":
            lossless = hashlib.sha256(self.name.encode()).digest()[0] % 2
            return alterations.png(picture) if lossless else alterations.encode(picture, "WEBP", quality=85)
        return alterations.jpeg(picture, 90)


def _cut_out(photo: Image.Image, rng: Random) -> Image.Image:
    """Return a rounded piece of a photo on transparent ground (RGBA): its outline is a circle with three waves."""
    side = round(min(photo.size) * rng.uniform(0.6, 0.95))
    left, top = (round((length - side) * rng.uniform(0.2, 0.8)) for length in photo.size)
    piece = photo.crop((left, top, left + side, top + side)).convert("RGBA")
    waves = [(rng.uniform(0, 0.12), rng.uniform(0, 6.3)) for _ in range(3)]
    points = []
    for step in range(180):
        turn = step * math.pi / 90
        radius = side * (0.34 + sum(size * math.sin((number + 2) * turn + start) for number, (size, start) in
                                    enumerate(waves)) / 2)  # fmt: skip
        points.append((side / 2 + radius * math.cos(turn), side / 2 + radius * math.sin(turn)))
    mask = Image.new("L", piece.size, 0)
    ImageDraw.Draw(mask).polygon(points, fill=255)
    piece.putalpha(mask.filter(ImageFilter.GaussianBlur(max(1, side / 300))))
    return piece.crop(mask.getbbox())


def things(packages: Path, photos: list[Path], count: int, half: Half) -> list[Thing]:
    """Return `count` pictures of one half, the same from each of its sources, evenly spread over what a source has."""
    sources = [
        [Thing(path, half, False) for path in _large(packages / package.name)]
        for package in PACKAGES
        if package.half == half
    ]
    mine = [path for path in photos if half_of(path) == half]
    sources.append([Thing(path, half, True) for path in mine])
    sources = [source for source in sources if source]
    chosen = []
    for source in sources:
        step = max(1.0, len(source) * len(sources) / count)
        chosen += [source[int(number * step)] for number in range(int(len(source) / step))]
    return chosen


def half_of(photo: Path) -> Half:
    """Return the half that a photo, and what is cut out of it, belongs to."""
    return HALVES[hashlib.sha256(photo.name.encode()).digest()[0] % 2]


def _large(folder: Path) -> Iterator[Path]:
    """Yield the pictures of a package that are large enough, one of those with the same bytes."""
    met = set()
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".png", ".webp", ".jpg") or path.is_symlink():
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        with Image.open(path) as picture:
            large = max(picture.size) >= SIZES[0] and min(picture.size) >= SIZES[0] / 2
        if large and digest not in met:
            met.add(digest)
            yield path


def fetch(folder: Path) -> None:
    """Download the packages and unpack them into `folder`, those that are not there yet."""
    for package in PACKAGES:
        target = folder / package.name
        if target.exists():
            continue
        tool = "npm" if package.by == "npm" else "apt-get"
        if shutil.which(tool) is None:
            print(f"{package.name} is left out: it wants {tool}", file=sys.stderr)
            continue
        download = folder / "download"
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        if package.by == "npm":
            call = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        else:
            call = ["apt-get", "-qq", "download", package.name]
        if subprocess.run(call, cwd=download, stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"{package.name} is left out: {' '.join(call)} failed", file=sys.stderr)
            continue
        (archive,) = download.iterdir()
        part = folder / "part"
        shutil.rmtree(part, ignore_errors=True)
        if package.by == "npm":
            shutil.unpack_archive(archive, part, filter="data")
        else:
            subprocess.run(["dpkg-deb", "-x", archive, part], check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
        shutil.rmtree(download)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    fetch(parser.parse_args().folder)
