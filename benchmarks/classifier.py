"""How well the classifier of looks tells real pictures apart, how sure it is, how stable, and how fast.

    python benchmarks/classifier.py --media DIR --json FILE [--every N]

DIR is laid out as docs/near-duplicates.md says; looks_labels.py gives its pictures their labels. A picture that the
shipped model was fitted on is judged by a model that has seen neither it nor anything of its source
(looks_held_out.json.gz); any other is judged by the shipped model, which has not seen it. Where several labels are
right for a picture, each counts. Times are of this process's CPU, so that other processes do not count.
"""

import argparse
import gzip
import hashlib
import io
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looks_labels import labelled
from PIL import Image

from captions import media
from captions.fingerprint import fingerprint_image
from captions.picture_class import CATEGORIES, Looks
from captions.picture_class.forest import Forest, judged, packaged

HELD_OUT = Path(__file__).parent / "looks_held_out.json.gz"
BINS = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01))
COPIES: dict[str, dict[str, Any]] = {
    "JPEG 90": {"quality": 90},
    "JPEG 50": {"quality": 50},
    "three quarters": {"scale": 0.75, "quality": 85},
    "half": {"scale": 0.5, "quality": 85},
}
SMALLEST = 200  # pixels; of less, half is a thumbnail


@dataclass(frozen=True)
class Judged:
    """One picture and what was said of it and of its copies (None: not made)."""

    path: str
    labels: tuple[str, ...]
    source: str
    held_out: bool
    looks: Looks
    copies: dict[str, Looks]
    classify_ms: float
    fingerprint_ms: float

    @property
    def right(self) -> bool:
        return self.looks.category in self.labels


class Models:
    """The model for each picture: one that has not seen its source."""

    def __init__(self) -> None:
        folds = json.loads(gzip.decompress(HELD_OUT.read_bytes()))["folds"]
        self._folds = {digest: Forest.of(fold["model"]) for fold in folds for digest in fold["digests"][:1]}
        self._of = {digest: fold["digests"][0] for fold in folds for digest in fold["digests"]}

    def for_picture(self, data: bytes) -> tuple[Forest, bool]:
        """Return the model to judge by, and whether the shipped one was fitted on this picture."""
        first = self._of.get(hashlib.sha256(data).hexdigest())
        return (packaged(), False) if first is None else (self._folds[first], True)


def copy_of(picture: Image.Image, quality: int, scale: float = 1.0) -> media.Picture | None:
    if scale < 1:
        if min(picture.size) < SMALLEST:
            return None
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return media.inspect(stream.getvalue()).picture


def examine(folder: Path, every: int) -> list[Judged]:
    models, examined = Models(), []
    for labelled_picture in labelled(folder)[::every]:
        data = (folder / labelled_picture.path).read_bytes()
        try:
            inspected = media.inspect(data)
        except media.MediaError:
            continue
        picture = inspected.picture
        if picture is None:
            continue
        forest, fitted = models.for_picture(data)
        begun = time.process_time()
        looks = judged(picture, forest)
        classified = time.process_time()
        fingerprint_image(media.inspect(data))
        marked = time.process_time()
        copies = {}
        for name, options in COPIES.items():
            copy = copy_of(picture.working, **options)
            if copy is not None:
                copies[name] = judged(copy, forest)
        times = (1000 * (classified - begun), 1000 * (marked - classified))
        examined.append(
            Judged(
                labelled_picture.path, labelled_picture.labels, labelled_picture.source, fitted, looks, copies, *times
            )
        )
    return examined


def confusion(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """Return what was said of the pictures with one label only, by that label."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in judged:
        if len(picture.labels) == 1:
            rows[picture.labels[0]][picture.looks.category] += 1
    return {label: dict(rows[label]) for label in CATEGORIES if label in rows}


def by_category(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return recall on the pictures with this label alone, and precision over all: right if it is among the labels."""
    table: dict[str, dict[str, Any]] = {}
    for name in CATEGORIES:
        mine = [picture for picture in judged if picture.labels == (name,)]
        called = [picture for picture in judged if picture.looks.category == name]
        table[name] = {
            "pictures": len(mine),
            "sources": len({picture.source for picture in mine}),
            "recall": round(sum(picture.right for picture in mine) / len(mine), 3) if mine else None,
            "said": len(called),
            "precision": round(sum(picture.right for picture in called) / len(called), 3) if called else None,
        }
    return table


def calibration(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    rows = []
    for low, high in BINS:
        mine = [picture for picture in judged if low <= picture.looks.confidence < high]
        if mine:
            rows.append({
                "confidence": [low, min(high, 1.0)],
                "pictures": len(mine),
                "mean_confidence": round(statistics.fmean(picture.looks.confidence for picture in mine), 3),
                "right": round(sum(picture.right for picture in mine) / len(mine), 3),
            })  # fmt: skip
    return rows


def flips(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    table = {}
    for name in COPIES:
        pairs = [
            (picture.looks.category, picture.copies[name].category) for picture in judged if name in picture.copies
        ]
        if pairs:
            table[name] = {"pictures": len(pairs), "flipped": round(sum(a != b for a, b in pairs) / len(pairs), 4)}
    return table


EASY = frozenset({"product", "photo", "drawing", "little"})


def routed(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return how often easy and hard kinds are taken for each other, which is what routing costs or saves."""
    sides: dict[bool, list[bool]] = defaultdict(list)
    for picture in judged:
        if len({name in EASY for name in picture.labels}) == 1:
            sides[picture.labels[0] in EASY].append(picture.looks.category in EASY)
    return {
        "easy": len(sides[True]),
        "easy_taken_for_easy": round(sum(sides[True]) / max(1, len(sides[True])), 3),
        "hard": len(sides[False]),
        "hard_taken_for_easy": round(sum(sides[False]) / max(1, len(sides[False])), 3),
    }


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    sources: dict[str, list[bool]] = defaultdict(list)
    for picture in judged:
        sources[picture.source].append(picture.right)
    writing = [
        picture.looks.text_share for picture in judged if picture.labels in (("document",), ("code",), ("screenshot",))
    ]
    bare = [picture.looks.text_share for picture in judged if picture.labels in (("photo",), ("product",))]
    classify_ms = sorted(picture.classify_ms for picture in judged)
    fingerprint_ms = statistics.fmean(picture.fingerprint_ms for picture in judged)
    return {
        "pictures": len(judged),
        "held_out_by_source": sum(picture.held_out for picture in judged),
        "right": round(sum(picture.right for picture in judged) / len(judged), 3),
        "right_by_source": round(statistics.fmean(statistics.fmean(source) for source in sources.values()), 3),
        "sources": {name: [sum(right), len(right)] for name, right in sorted(sources.items())},
        "confusion": confusion(judged),
        "categories": by_category(judged),
        "calibration": calibration(judged),
        "routing": routed(judged),
        "flips": flips(judged),
        "text_share": {
            "writing_over_0.01": round(sum(share > 0.01 for share in writing) / max(1, len(writing)), 3),
            "photos_and_products_over_0.05": round(sum(share > 0.05 for share in bare) / max(1, len(bare)), 3),
        },
        "milliseconds": {
            "median": round(statistics.median(classify_ms), 1),
            "p95": round(classify_ms[int(0.95 * len(classify_ms))], 1),
            "times_the_fingerprint": round(statistics.fmean(classify_ms) / fingerprint_ms, 2),
        },
        "wrong": [
            {
                "path": picture.path,
                "labels": picture.labels,
                "said": picture.looks.category,
                "confidence": picture.looks.confidence,
            }
            for picture in judged
            if not picture.right
        ],
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['pictures']} pictures; {result['held_out_by_source']} judged by a model that held their source out")
    print(f"right: {result['right']:.1%} of the pictures, {result['right_by_source']:.1%} as the mean over sources\n")
    print(f"{'':12}" + "".join(f"{name[:9]:>11}" for name in CATEGORIES) + f"{'recall':>9}{'precision':>11}")
    for name, called in result["confusion"].items():
        table = result["categories"][name]
        precision = "-" if table["precision"] is None else f"{table['precision']:.0%}"
        cells = "".join(f"{called.get(other, 0) or '.':>11}" for other in CATEGORIES)
        print(f"{name:12}{cells}{table['recall']:>9.0%}{precision:>11}")
    print("\nconfidence    pictures   mean   right")
    for row in result["calibration"]:
        low, high = row["confidence"]
        print(f"{low:.2f} to {high:.2f}{row['pictures']:>10}{row['mean_confidence']:>8.2f}{row['right']:>8.2f}")
    easy = result["routing"]
    print(f"\neasy kinds taken for easy: {easy['easy_taken_for_easy']:.1%} of {easy['easy']}; ", end="")
    print(f"hard kinds taken for easy: {easy['hard_taken_for_easy']:.1%} of {easy['hard']}")
    print("flipped: " + ", ".join(f"{name} {row['flipped']:.1%}" for name, row in result["flips"].items()))
    text = result["text_share"]
    print(
        f"writing seen (share over 0.01) in {text['writing_over_0.01']:.0%} of documents, code and screenshots; "
        f"over 0.05 in {text['photos_and_products_over_0.05']:.1%} of photos and products"
    )
    times = result["milliseconds"]
    of = times["times_the_fingerprint"]
    print(f"{times['median']} ms a picture, p95 {times['p95']}: {of} of the fingerprint's time")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every N-th picture")
    options = parser.parse_args()
    judged = examine(options.media, options.every)
    if not judged:
        print(f"no picture below {options.media} has a label", file=sys.stderr)
        return 1
    result = summary(judged)
    show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
