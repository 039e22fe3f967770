"""What each picture of a media folder looks like, by the folder and group it stands in and by looks_labels.csv.

The rules name groups, so that other media laid out alike get their labels too; looks_labels.csv names the files of
mixed groups, by people who looked at them. Several labels mean that each of them would be right; the first is the one
that the classifier is fitted to. Pictures without a label (filtered, broken, odd on purpose) are left out.
"""

import csv
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

PICTURES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".avif",
        ".heic",
        ".ppm",
        ".pgm",
        ".sgi",
        ".tga",
    )
)

# (paths, labels), the first that fits
RULES = (
    ("captioned/code/*", "code"),
    ("captioned/ocr/*", "document"),
    ("captioned/charts/*", "chart"),
    ("captioned/tuxpaint/*", "product"),
    ("captioned/coco/*", "photo|busy"),
    ("confusable/*receipt*/*", "document"),
    ("confusable/*invoice*/*", "document"),
    ("confusable/*form*/*", "document"),
    ("confusable/*slide*/*", "document"),
    ("confusable/*chart*/*", "chart"),
    ("confusable/*dialog*/*", "screenshot"),
    ("confusable/*screenshot*/*", "screenshot"),
    ("confusable/*qr_code*/*", "drawing|little|document"),  # codes to be scanned
    ("confusable/*flag*/*", "drawing"),
    ("confusable/*shape*/*", "drawing|little"),
    ("confusable/*bucket*/*", "drawing"),
    ("confusable/*planet*/*", "product"),
    ("confusable/*sign_language*/*", "drawing"),
    ("confusable/*sign*/*", "drawing|product"),
    ("families/*taj*/*", "photo|busy"),
    ("families/*hopper*/*", "photo"),
    ("families/*desaturate*/*", "photo"),
    ("families/*favorite*/*", "photo"),
    ("families/*panda*/*", "photo"),
    ("families/*dinosaur*/*", "photo"),
    ("families/*bridge*/*", "photo|busy"),
    ("families/*no_logo*/*", "little|photo"),
    ("families/*Wallpaper*/*", "little|drawing"),
    ("families/*wallpaper*/*", "little|drawing"),
    ("families/*baiona*/*", "drawing|chart"),  # a map
    ("families/*qr*/*", "photo|document|product|drawing"),  # photographs of printed codes
    ("fullsize/*", "photo"),
    ("photos/*", "photo"),
)


@dataclass(frozen=True)
class Labelled:
    """A picture (path below the media folder), the labels that are right for it, and the source it came from."""

    path: str
    labels: tuple[str, ...]
    source: str


def labelled(media: Path) -> list[Labelled]:
    """Return the labelled pictures below `media`, by path."""
    by_hand = _by_hand()
    groups = _groups(media)
    pictures = []
    for file in sorted(media.rglob("*")):
        path = file.relative_to(media).as_posix()
        if file.suffix.lower() not in PICTURES or not file.is_file():
            continue
        labels = by_hand.get(path) or next((names for paths, names in RULES if fnmatch(path, paths)), "")
        if labels:
            pictures.append(Labelled(path, tuple(labels.split("|")), groups.get(path) or _source(path)))
    return pictures


def _by_hand() -> dict[str, str]:
    with (Path(__file__).parent / "looks_labels.csv").open(newline="") as rows:
        return {row["path"]: row["labels"] for row in csv.DictReader(rows)}


def _groups(media: Path) -> dict[str, str]:
    """Return each file's group by the manifest: photos of one source stand in one folder with others."""
    manifest = media / "MANIFEST.csv"
    if not manifest.exists():
        return {}
    with manifest.open(newline="") as rows:
        return {row["path"]: row["group"] for row in csv.DictReader(rows) if row["path"].startswith(("photos/",))}


def _source(path: str) -> str:
    parts = path.split("/")
    if parts[0] == "photos":
        return "photos " + parts[-1].split("_")[0]
    return "/".join(parts[:-1])
