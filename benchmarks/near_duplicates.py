"""How well near-duplicates are recognised: recall on benign changes, wrong merges of pictures that are different.

    python benchmarks/near_duplicates.py --media DIR --json FILE [--quick] [--workers N] [--minutes N] [--seed TEXT ...]
        [--pages N] [--photographed N] [--packages DIR] [--copies]

DIR is laid out like this: photos/ (distinct photos), confusable/<group>/ (different pictures that look alike) and,
optionally, families/ with LABELS.csv (near-duplicates made by others) and fullsize/ (photos as a camera makes them). To
these come drawn pages (drawn_pages.py), photographs of pages that are made of them (photographed_pages.py) and, if
--packages are there, small pictures of one thing on plain ground (plain_ground.py). --copies makes no edits. Every edit
is saved as PNG, JPEG of quality 75 and 30 and WebP, and reduced to 640 px and to half its size. Each seed makes pages
of its own, and the edits of some pictures; by default seeds that once showed a wrong merge are among them.
Compared are this project's three policies with imagehash.phash (64 bit, distance <= 10), imagehash.phash (256 bit,
<= 30) and PDQ (<= 31; from the environment .venv/peers/near_duplicates, left out if that is missing). The peers get the
fully decoded, upright RGB picture; this project gets the file's bytes. The order is random: after --minutes it ends,
and says how much of it was done.
"""

import argparse
import csv
import hashlib
import itertools
import json
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import TimeoutError as OutOfTime
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import imagehash
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import alterations
import drawn_pages
import photographed_pages
import plain_ground

from captions import media
from captions.fingerprint import (
    RADIUS,
    Fingerprint,
    decided_finely,
    finer_evidence,
    fingerprint_image,
    hamming,
    resemblance,
    resemblance_finely,
)
from captions.media.pictures import _converter, _orientation

PEER_PYTHON = Path(sys.prefix) / "peers" / "near_duplicates" / "bin" / "python"
POLICIES = ("exact", "strict", "loose")
METHODS = (*POLICIES, "phash-64", "phash-256", "pdq")
LARGEST = 1600  # pixels: larger originals are reduced first, so that the run stays short, but for those of a camera
CAMERA = 4000
UNSEEN = ", then so small that the change cannot be seen"
SEEDS = ("", "held", "unseen", "spruce", "gravel")
# Pages that were merged with what was changed on them, under earlier rules: sort, number, seed.
MERGED_ONCE = (("photographed", 25, "held"), ("photographed", 2, "quartz"))


@dataclass(frozen=True)
class Marks:
    """What every method knows of one file."""

    ours: Fingerprint
    phash64: bytes
    phash256: bytes
    pdq: bytes | None
    data: bytes


class Pdq:
    """The PDQ peer process; `hash` is None if its environment is not installed."""

    def __init__(self) -> None:
        self._process = None
        if PEER_PYTHON.exists():
            script = Path(__file__).parent / "peers" / "pdq.py"
            self._process = subprocess.Popen([PEER_PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hash(self, picture: Image.Image) -> bytes | None:
        if self._process is None:
            return None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if max(picture.size) > 512:  # it averages over 64 x 64 cells in any case; a large picture takes it a second
            picture = picture.resize((512, 512), Image.Resampling.BILINEAR, reducing_gap=2.0)
        self._process.stdin.write(struct.pack("<II", *picture.size) + picture.tobytes())
        self._process.stdin.flush()
        return self._process.stdout.read(41)[:32]


_pdq: Pdq | None = None


def upright(data: bytes) -> Image.Image:
    """Return the whole picture as upright RGB, decoded at full size. Raises MediaError."""
    image, _ = media.inspection.opened(data, media.DEFAULT_LIMITS)
    image.load()
    orientation = _orientation(image)
    picture = _converter(image)(image)
    return media.upright(picture, orientation)


def marks(data: bytes, picture: Image.Image | None = None) -> Marks:
    global _pdq
    if _pdq is None:
        _pdq = Pdq()
    picture = picture or upright(data)
    return Marks(
        fingerprint_image(data),
        np.packbits(imagehash.phash(picture).hash).tobytes(),
        np.packbits(imagehash.phash(picture, hash_size=16).hash).tobytes(),
        _pdq.hash(picture),
        data,
    )


def ours(a: Fingerprint, b: Fingerprint, probed: Callable[[], bool]) -> dict[str, bool]:
    """Return what the index would say under each policy: one of the two stands in it, the other is looked up.

    `probed` tells whether they are near by the further hashes that `loose` looks up, and is asked only if it must be.
    """
    if set(a.exact) & set(b.exact):
        return dict.fromkeys(POLICIES, True)
    alike, near = None, _near(a.hashes, b.hashes)
    if a.evidence is not None and b.evidence is not None and (near or probed()):
        alike = resemblance(a.evidence, b.evidence, "loose")
    strict = near and alike is not None and alike.way == "whole"  # which is what `strict` believes
    return {"exact": False, "strict": strict, "loose": alike is not None}


def _near(hashes: tuple[bytes, ...], others: tuple[bytes, ...]) -> bool:
    return any(hamming(phash, other) <= RADIUS for phash in hashes for other in others)


def _finely(a: Marks, b: Marks) -> bool | None:
    """Return whether two pictures are the same by finer evidence, where that decides; else None."""
    first, second = a.ours.evidence, b.ours.evidence
    if first is None or second is None or not _near(a.ours.hashes, b.ours.hashes):
        return None
    alike = resemblance(first, second, "loose")
    if not decided_finely(first, second, alike):
        return None
    first, second = (finer_evidence(media.inspect(each.data, finely=True)) for each in (a, b))
    return first is not None and second is not None and resemblance_finely(first, second, alike) is not None


def matches(a: Marks, b: Marks) -> dict[str, bool]:
    verdicts = ours(a.ours, b.ours, lambda: _near(a.ours.hashes, b.ours.probes("loose")))
    if not set(a.ours.exact) & set(b.ours.exact) and (same := _finely(a, b)) is not None:
        verdicts |= {"strict": same, "loose": same}
    verdicts["phash-64"] = hamming(a.phash64, b.phash64) <= 10
    verdicts["phash-256"] = hamming(a.phash256, b.phash256) <= 30
    if a.pdq is not None and b.pdq is not None:
        verdicts["pdq"] = hamming(a.pdq, b.pdq) <= 31
    return verdicts


@dataclass(frozen=True)
class Job:
    path: Path
    root: Path
    kind: str  # "photo" or "plain ground" and which half, "camera's photo", or "text-like"
    other: Path
    changed: bool  # whether it is changed and edited, or only compared with the others
    seed: str = ""
    thing: plain_ground.Thing | None = None  # what of the path is shown, on plain ground
    copies: bool = False  # whether it is changed only, and not edited


@dataclass(frozen=True)
class Outcome:
    path: str
    kind: str
    original: Marks
    benign: list[tuple[str, str, dict[str, bool]]]  # class of change, change, who matched
    edits: list[tuple[str, dict[str, bool]]]
    evidence_bytes: int | None


def _opened(path: Path) -> Image.Image:
    return upright(path.read_bytes())


def _limited(picture: Image.Image, largest: int = LARGEST) -> Image.Image:
    return alterations.resized(picture, largest) if max(picture.size) > largest else picture


def examine(job: Job) -> Outcome | None:
    """Make every change and edit of one picture and see who takes it for the original."""
    try:
        data = job.thing.saved(_opened) if job.thing else job.path.read_bytes()
        whole = upright(data)
    except media.MediaError:
        return None
    camera = job.kind == "camera's photo"
    picture = _limited(whole, CAMERA if camera else LARGEST)
    rng = Random(hashlib.sha256((job.path.name + job.seed).encode()).hexdigest())
    if picture is not whole:
        data = alterations.jpeg(picture, 95)
    original = marks(data)
    benign: list[tuple[str, str, dict[str, bool]]] = []
    edits: list[tuple[str, dict[str, bool]]] = []
    evidence = original.ours.evidence
    name = job.thing.name if job.thing else str(job.path.relative_to(job.root))
    outcome = Outcome(name, job.kind, original, benign, edits, None if evidence is None else len(evidence))
    if not job.changed:
        return outcome
    for name, changes in (
        ("re-encoded", alterations.REENCODED),
        ("resized", alterations.RESIZED),
        ("adjusted", alterations.ADJUSTED),
        ("loose", alterations.LOOSE),
    ):
        for change, apply in changes.items():
            if change == "2048 px" and not camera:
                continue
            benign.append((name, change, matches(original, marks(apply(picture)))))
    if job.copies:
        return outcome
    if camera:
        pairs = list(alterations.price_edits(picture, rng, (0.01, 0.02, 0.03)))
    else:
        pairs = list(alterations.photo_edits(picture, _limited(upright(job.other.read_bytes())), rng))
    if job.kind == "text-like":
        pairs += alterations.text_edits(picture, rng)
    for name, before, after in pairs:
        first = original if before is picture else marks(alterations.png(before))
        edits += _judged(name, first, before, after)
    return outcome


def _judged(name: str, first: Marks, before: Image.Image, after: Image.Image) -> list[tuple[str, dict[str, bool]]]:
    """Return who takes an edited picture for the one before, however it is passed on, and what cannot be seen apart."""
    seen = {
        how: photographed_pages.visible(a, b)
        for (how, a), (_, b) in zip(_reduced(before), _reduced(after), strict=True)
        if a.size == b.size
    }
    return [
        (name + (how if seen.get(how, True) else UNSEEN), matches(first, marks(saved))) for how, saved in _saved(after)
    ]


def _reduced(picture: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield the sizes in which an edited picture is passed on."""
    yield "", picture
    if max(picture.size) > 640:
        yield ", then 640 px", alterations.resized(picture, 640)
    yield ", then half", alterations.resized(picture, max(picture.size) // 2)


def _saved(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield the ways an edited picture is passed on."""
    yield "", alterations.png(picture)
    yield "", alterations.jpeg(picture, 75)
    yield "", alterations.jpeg(picture, 30)
    yield "", alterations.encode(picture, "WEBP", quality=80)
    for how, smaller in _reduced(picture):
        if how:
            yield how, alterations.jpeg(smaller, 85)


def examine_page(job: tuple[int, str]) -> list[tuple[str, dict[str, bool]]]:
    """Draw a page, change one thing in it, and see who takes the two for one."""
    number, seed = job
    start = int(hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:12], 16)
    kind, first = drawn_pages.page(start, changed=False)
    _, second = drawn_pages.page(start, changed=True)
    first, second = _limited(first), _limited(second)
    return _judged(f"drawn {kind}", marks(alterations.png(first)), first, second)


def examine_photographed(job: tuple[int, str, list[Path], list[Path]]) -> list[tuple[str, dict[str, bool]]]:
    """Make a photograph of a page, change one thing on the page, and see who takes the two for one."""
    number, seed, pages, photos = job
    start = int(hashlib.sha256(f"{seed} {number} photographed".encode()).hexdigest()[:12], 16)
    pair = photographed_pages.pair(start, pages, photos, _opened)
    if pair is None:
        return []
    kind, first, second = pair
    return _judged(f"photographed page, {kind}", marks(alterations.png(first)), first, second)


def examine_family(job: tuple[Path, list[tuple[Path, str]]]) -> list[tuple[str, str, dict[str, bool]]]:
    """Compare every member of a family of near-duplicates, made by others, with its original."""
    reference, members = job
    out = []
    try:
        first = marks(reference.read_bytes())
    except media.MediaError:
        return []
    for path, expect in members:
        try:
            out.append((path.parent.name, expect, matches(first, marks(path.read_bytes()))))
        except media.MediaError:
            continue
    return out


def wrong_merges(outcomes: list[Outcome]) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Return how many pairs of different pictures there are, and which of them each method merges."""
    pairs = 0
    merged: dict[str, list[tuple[str, str]]] = {method: [] for method in METHODS}
    outcomes = [o for o in outcomes if o.kind != "camera's photo"]  # some are among the photos as well, reduced
    probes = {id(o): o.original.ours.probes("loose") for o in outcomes}
    for a, b in itertools.combinations(outcomes, 2):
        if a.original.ours.exact[0] == b.original.ours.exact[0]:
            continue
        pairs += 1
        first, two = a.original, b.original
        names = (a.path, b.path)
        if hamming(first.phash64, two.phash64) <= 10:
            merged["phash-64"].append(names)
        if hamming(first.phash256, two.phash256) <= 30:
            merged["phash-256"].append(names)
        if first.pdq is not None and two.pdq is not None and hamming(first.pdq, two.pdq) <= 31:
            merged["pdq"].append(names)
        verdicts = ours(first.ours, two.ours, partial(_probed, first.ours, two.ours, probes[id(a)], probes[id(b)]))
        for policy in POLICIES:
            if verdicts[policy]:
                merged[policy].append(names)
    return pairs, merged


def _probed(a: Fingerprint, b: Fingerprint, of_a: tuple[bytes, ...], of_b: tuple[bytes, ...]) -> bool:
    return _near(a.hashes, of_b) or _near(b.hashes, of_a)


def _labels(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="") as stream:
            yield from csv.DictReader(stream)


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() not in (".csv", ".txt", ".md"))


def _spread(paths: list[Path], count: float) -> set[Path]:
    """Return `count` of the paths, evenly spread, so that every group of them is met."""
    step = max(1.0, len(paths) / max(1.0, count))
    return {paths[int(number * step)] for number in range(int(len(paths) / step))}


def _families(root: Path) -> list[tuple[Path, list[tuple[Path, str]]]]:
    groups: dict[str, list[tuple[Path, str, str]]] = defaultdict(list)
    for row in _labels(root / "families" / "LABELS.csv"):
        groups[row["group"]].append((root / row["path"], row["expect"], row["relation"]))
    families = []
    for members in groups.values():
        originals = [m for m in members if m[2] in ("original", "upright reference")]
        first = next(iter(originals or [m for m in members if m[1] == "same"] or members))
        families.append((first[0], [(path, expect) for path, expect, _ in members if path != first[0]]))
    return families


def _share(hits: Iterable[bool]) -> float | None:
    values = list(hits)
    return round(sum(values) / len(values), 4) if values else None


def _recall(rows: list[tuple[str, str, dict[str, bool]]]) -> dict[str, dict[str, object]]:
    grouped: dict[str, list[dict[str, bool]]] = defaultdict(list)
    for name, change, verdicts in rows:
        grouped[f"{name}: {change}"].append(verdicts)
    return {
        change: {"pictures": len(verdicts), **{m: _share(f[m] for f in verdicts if m in f) for m in METHODS}}
        for change, verdicts in grouped.items()
    }


def report(
    outcomes: list[Outcome],
    families: list[tuple[str, str, dict[str, bool]]],
    pages: list[tuple[str, dict[str, bool]]],
    photographed: list[tuple[str, dict[str, bool]]],
    seconds: float,
) -> dict[str, object]:
    result: dict[str, object] = {"seconds": round(seconds, 1), "methods": METHODS}
    for kind in sorted({outcome.kind for outcome in outcomes}):
        chosen = [o for o in outcomes if o.kind == kind]
        result[f"recall, {kind}"] = _recall([row for o in chosen for row in o.benign])
        result[f"wrong merges of edited, {kind}"] = _merged([edit for o in chosen for edit in o.edits])
        result[f"fingerprinted, {kind}"] = {
            "pictures": len(chosen),
            "with a perceptual hash": sum(o.original.ours.phash is not None for o in chosen),
        }
    result["wrong merges of drawn pages"] = _merged(pages)
    result["wrong merges of photographed pages"] = _merged(photographed)
    pairs, merged = wrong_merges(outcomes)
    groups = {o.path: Path(o.path).parent.name if o.kind == "text-like" else o.path for o in outcomes}
    inside = {m: sum(groups[a] == groups[b] for a, b in merged[m]) for m in METHODS}
    result["wrong merges of different pictures"] = {
        "pairs": pairs,
        "pairs inside confusable groups": sum(
            n * (n - 1) // 2 for n in _counts(groups[o.path] for o in outcomes if o.kind == "text-like").values()
        ),
        "all": {m: len(merged[m]) for m in METHODS},
        "inside confusable groups": inside,
        "ours": {policy: merged[policy] for policy in POLICIES},
    }
    result["families"] = _recall([(expect, family, verdicts) for family, expect, verdicts in families])
    sizes = sorted(o.evidence_bytes for o in outcomes if o.evidence_bytes)
    if sizes:
        result["evidence bytes"] = {"median": sizes[len(sizes) // 2], "largest": sizes[-1]}
    return result


def _merged(edits: list[tuple[str, dict[str, bool]]]) -> dict[str, dict[str, int]]:
    grouped: dict[str, list[dict[str, bool]]] = defaultdict(list)
    for name, verdicts in edits:
        grouped[name].append(verdicts)
        if not name.endswith(UNSEEN):
            grouped["ALL THAT CAN BE SEEN"].append(verdicts)
            if "price" in name:
                grouped["ALL PRICES THAT CAN BE SEEN"].append(verdicts)
    return {
        name: {"pairs": len(verdicts), **{m: sum(f[m] for f in verdicts if m in f) for m in METHODS}}
        for name, verdicts in sorted(grouped.items())
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return counts


def show(result: dict[str, object]) -> None:
    for title, rows in result.items():
        if not isinstance(rows, dict) or not rows or not isinstance(next(iter(rows.values())), dict):
            if title not in ("methods", "wrong merges of different pictures"):
                print(f"{title}: {rows}")
            continue
        print(f"\n{title}\n{'':44}{'':>7}" + "".join(f"{method:>11}" for method in METHODS))
        for name, row in rows.items():
            count = next(iter(row.values()))
            cells = "".join(f"{'-' if row.get(m) is None else row[m]:>11}" for m in METHODS)
            print(f"{name:44}{count:>7}{cells}")
    different = result["wrong merges of different pictures"]
    assert isinstance(different, dict)
    print(f"\nwrong merges of different pictures ({different['pairs']} pairs)")
    for name in ("all", "inside confusable groups"):
        print(f"{name:51}" + "".join(f"{different[name][m]:>11}" for m in METHODS))
    for policy, names in different["ours"].items():
        for pair in names:
            print(f"  {policy}: {pair[0]} = {pair[1]}")


def _run(task: tuple[Callable[[Any], Any], Any]) -> tuple[str, Any]:
    work, job = task
    return work.__name__, work(job)


def _tasks(options: argparse.Namespace, photos: list[Path]) -> list[tuple[Callable[[Any], Any], Any]]:
    """Return what is to be done: first what is compared with all others, then the rest in random order."""
    media, seeds, share = options.media, options.seed, 1 / 4 if options.quick else 1
    alike = _pictures(media / "confusable")

    def job(kind: str, path: Path, number: int, changed: bool = True, thing: plain_ground.Thing | None = None) -> Job:
        other, seed = photos[(7 * number + 3) % len(photos)], seeds[number % len(seeds)]
        return Job(path, media, kind, other, changed, seed, thing, options.copies)

    chosen = _spread(photos, share * options.photos) | _spread(alike, share * options.texts)
    jobs = [
        job(kind.format(plain_ground.half_of(path)), path, number, path in chosen)
        for kind, paths in (("photo, {}", photos), ("text-like", alike))
        for number, path in enumerate(paths)
    ]
    cameras = _pictures(media / "fullsize") if (media / "fullsize").is_dir() else []
    jobs += [job("camera's photo", path, n) for n, path in enumerate(cameras[: int(share * options.cameras)])]
    known = {path.read_bytes() for path in alike}  # some of the media are of the same packages
    for half in plain_ground.HALVES if options.packages.is_dir() else ():
        things = plain_ground.things(options.packages, photos, int(share * options.things), half)
        things = [thing for thing in things if thing.cut_out or thing.path.read_bytes() not in known]
        jobs += [job(f"plain ground, {half}", thing.path, n, thing=thing) for n, thing in enumerate(things)]
    first: list[tuple[Callable[[Any], Any], Any]] = [(examine, job) for job in jobs if not job.changed]
    rest: list[tuple[Callable[[Any], Any], Any]] = [(examine, job) for job in jobs if job.changed]
    if not options.copies:
        rest += [(examine_page, (n, seed)) for seed in seeds for n in range(int(share * options.pages))]
        shots = [(n, seed) for seed in seeds for n in range(int(share * options.photographed))]
        shots += [(n, seed) for sort, n, seed in MERGED_ONCE if sort == "photographed" and (n, seed) not in shots]
        sources = photographed_pages.sources(media)
        rest += [(examine_photographed, (n, seed, sources, photos)) for n, seed in shots]
    if not options.quick:
        rest += [(examine_family, family) for family in _families(media)]
    Random(0).shuffle(rest)
    return first + rest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--photos", type=int, default=100, help="how many photos are changed and edited")
    parser.add_argument("--texts", type=int, default=40, help="how many text-like pictures are changed and edited")
    parser.add_argument("--quick", action="store_true", help="a quarter of that")
    parser.add_argument("--cameras", type=int, default=5, help="how many photos as a camera makes them")
    parser.add_argument("--pages", type=int, default=15, help="how many pages are drawn with each seed")
    parser.add_argument("--photographed", type=int, default=15, help="of how many pages photographs are tried")
    parser.add_argument(
        "--packages", type=Path, default=Path(__file__).parent / "results" / "packages",
        help="a folder that plain_ground.py fetched packages into",
    )  # fmt: skip
    parser.add_argument("--things", type=int, default=100, help="how many of them of each half")
    parser.add_argument("--seed", nargs="+", default=SEEDS, help="other edits and other pages")
    parser.add_argument("--copies", action="store_true", help="changes that keep a caption right, and no edits")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="how long it may take; what is left then is left out")
    options = parser.parse_args()
    photos = _pictures(options.media / "photos")
    if not photos:
        parser.error(f"{options.media}/photos holds no pictures")
    begun = time.monotonic()
    results: dict[str, list[Any]] = defaultdict(list)
    tasks = _tasks(options, photos)
    with get_context("spawn").Pool(options.workers) as pool:
        running = pool.imap_unordered(_run, tasks)
        for done in range(1, len(tasks) + 1):
            left = 60 * options.minutes - (time.monotonic() - begun) if options.minutes else None
            try:
                name, result = running.next(None if left is None else max(0.0, left))
            except OutOfTime:
                break
            results[name] += [result] if isinstance(result, Outcome) else result or []
            results["done"] = [done]
            print(f"\r{done} of {len(tasks)} done", end="", file=sys.stderr)
    print(file=sys.stderr)
    outcomes: list[Outcome] = sorted(results["examine"], key=lambda outcome: outcome.path)
    if not outcomes:
        parser.error("none of the pictures could be read")
    result = report(
        outcomes, results["examine_family"], results["examine_page"], results["examine_photographed"],
        time.monotonic() - begun,
    )  # fmt: skip
    result = {"done": f"{results['done'][0]} of {len(tasks)}", **result}
    show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
