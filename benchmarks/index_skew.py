"""How crowded the bands of the near-duplicate index get with real pictures: a simulation.

    python benchmarks/index_skew.py --media DIR --json FILE [--crops 60] [--workers 2]

Perceptual hashes of photos are not uniform: bits are biased and hang together, so two unrelated pictures share a band
more often than chance says. DIR/photos holds some hundred distinct photos, too few to meet in 23 bits; crops of them
(random place, size, shape and side) are pictures of their own kind in sufficient number. Counted is how often crops of
two different photos share a band, which is all it takes: a lookup among N pictures meets N times that many postings.
The largest value is an upper estimate, as crops of one photo count towards it. Crops too flat to be indexed are left
out: a luma deviation below 8.

Under `loose` a lookup also asks for the bands of the picture's other framings. For one crop in LOOSE_SAMPLE these are
computed, and the postings of other photos under each of their bands are counted.
"""

import argparse
import json
import math
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageStat

from captions.fingerprint import BAND_BITS, bands, perceptual_hash
from captions.fingerprint.phash import reframed_hashes
from captions.near_duplicates.index import MAX_PAGES

POSTING_BYTES = 123
"""One posting of a band, key and attribute names included (benchmarks/index.py)."""
PAGE_BYTES = 1_000_000
PICTURES = (10**6, 10**8, 10**9)
LOOSE_SAMPLE = 20
LUMA_SIDE = 192


def hashes(task: tuple[Path, int]) -> list[tuple[bytes, tuple[bytes, ...]]]:
    """Hash random crops of one photo, the same every time; of some also as `loose` would frame them."""
    path, crops = task
    random = Random(path.name)
    with Image.open(path) as opened:
        photo = ImageOps.exif_transpose(opened.convert("L"))
    photo.thumbnail((800, 800))
    counts = []
    for number in range(crops):
        width, height = (round(side * random.uniform(0.3, 0.9)) for side in photo.size)
        left, top = random.randint(0, photo.width - width), random.randint(0, photo.height - height)
        crop = photo.crop((left, top, left + width, top + height))
        if random.random() < 0.5:
            crop = ImageOps.mirror(crop)
        if ImageStat.Stat(crop).stddev[0] >= 8:
            square = crop.resize((LUMA_SIDE, LUMA_SIDE), Image.Resampling.BOX)
            framings = reframed_hashes(square) if number % LOOSE_SAMPLE == 0 else ()
            counts.append((perceptual_hash(crop), framings))
    return counts


def shared(keys: list[tuple[str, int]]) -> tuple[int, Counter[str], dict[str, set[int]]]:
    """Count pairs of crops of different photos that share a band's value; and how often each value occurs."""
    total, within = Counter(key for key, _ in keys), Counter(keys)
    pairs = sum(count * (count - 1) // 2 for count in total.values())
    pairs -= sum(count * (count - 1) // 2 for count in within.values())
    photos: dict[str, set[int]] = {}
    for key, photo in keys:
        photos.setdefault(key, set()).add(photo)
    return pairs, total, photos


def simulated(paths: list[Path], crops: int, workers: int) -> dict[str, Any]:
    with get_context("spawn").Pool(workers) as pool:
        of = pool.map(hashes, [(path, crops) for path in paths], chunksize=4)
    everything = [(phash, photo) for photo, each in enumerate(of) for phash, _ in each]
    n = len(everything)
    across = n * (n - 1) // 2 - sum(len(each) * (len(each) - 1) // 2 for each in of)
    split = [bands(phash) for phash, _ in everything]
    per_band = []
    largest: dict[str, Any] = {"photos": 0}
    for band, width in enumerate(BAND_BITS):
        keys = [(values[band], photo) for values, (_, photo) in zip(split, everything, strict=True)]
        pairs, total, photos = shared(keys)
        value = max(photos, key=lambda each: len(photos[each]))
        if len(photos[value]) > largest["photos"]:
            largest = {"band": value, "photos": len(photos[value]), "share_of_hashes": total[value] / n}
        probability = pairs / across
        per_band.append(
            {"band": band, "bits": width, "pairs": pairs, "probability": probability, "skew": probability * 2**width}
        )
    probability = sum(band["probability"] for band in per_band)
    uniform = sum(2.0**-width for width in BAND_BITS)
    framed = [(phash, framings, photo) for photo, each in enumerate(of) for phash, framings in each if framings]
    loose = reframed(framed, split, [photo for _, photo in everything])
    ones = np.unpackbits(np.frombuffer(b"".join(phash for phash, _ in everything), np.uint8).reshape(n, 32), axis=1)
    return {
        "photos": len(paths),
        "hashes": n,
        "pairs_of_different_photos": across,
        "bands": per_band,
        "candidates_per_picture_stored": probability,
        "skew": probability / uniform,
        "bits_always_equal": [int(bit) for bit in np.flatnonzero(np.isin(ones.mean(axis=0), (0.0, 1.0)))],
        "largest": largest,
        "loose": loose,
        "at": {
            str(count): at(count, per_band, largest) | {"loose": loose_at(count, loose["bands"])} for count in PICTURES
        },
    }


def reframed(
    lookups: list[tuple[bytes, tuple[bytes, ...], int]], split: list[tuple[str, ...]], photos: list[int]
) -> dict[str, Any]:
    """Count, band by band, what lookups under `loose` ask for and which postings of other photos they meet there."""
    stored: dict[str, Counter[int]] = {}
    for values, photo in zip(split, photos, strict=True):
        for value in values:
            stored.setdefault(value, Counter())[photo] += 1
    of_photo = Counter(photos)
    queries, shares = Counter[int](), dict.fromkeys(range(len(BAND_BITS)), 0.0)
    for phash, framings, photo in lookups:
        for value in dict.fromkeys(value for each in (phash, *framings) for value in bands(each)):
            band = int(value.partition(":")[0])
            under = stored.get(value, Counter())
            queries[band] += 1
            shares[band] += (under.total() - under[photo]) / (len(photos) - of_photo[photo])
    each = [
        {"queries": queries[band] / len(lookups), "postings_per_picture_stored": shares[band] / len(lookups)}
        for band in range(len(BAND_BITS))
    ]
    return {
        "lookups": len(lookups),
        "queries_per_lookup": sum(band["queries"] for band in each),
        "postings_per_picture_stored": sum(band["postings_per_picture_stored"] for band in each),
        "bands": each,
    }


def loose_at(pictures: int, per_band: list[dict[str, float]]) -> dict[str, float]:
    """What the same costs among `pictures`: postings, and read units of strongly consistent queries."""
    units = 0.0
    for band in per_band:
        under = pictures * band["postings_per_picture_stored"] / band["queries"]
        units += band["queries"] * max(1, math.ceil(under * POSTING_BYTES / 4096))
    return {
        "postings_read_per_lookup": pictures * sum(band["postings_per_picture_stored"] for band in per_band),
        "read_units_strong_scan": units,
    }


def at(pictures: int, per_band: list[dict[str, Any]], largest: dict[str, Any]) -> Any:
    sizes = [pictures * band["probability"] for band in per_band]
    crowd = pictures * largest["share_of_hashes"]
    return {
        "postings_read_per_lookup": sum(sizes),
        "uniform": sum(pictures * 2.0**-width for width in BAND_BITS),
        "postings_in_a_band": {"mean": sum(sizes) / len(sizes), "most_crowded_band": max(sizes)},
        "kilobytes_read_per_lookup": sum(sizes) * POSTING_BYTES / 1000,
        "read_units_strong_scan": sum(max(1, math.ceil(size * POSTING_BYTES / 4096)) for size in sizes),
        "largest_value": {
            "postings": crowd,
            "pages": crowd * POSTING_BYTES / PAGE_BYTES,
            "cut_short": crowd * POSTING_BYTES / PAGE_BYTES > MAX_PAGES,
        },
        "table_gigabytes": {"postings": pictures * len(BAND_BITS) * (POSTING_BYTES + 100) / 1e9},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    paths = sorted(path for path in (arguments.media / "photos").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    report = simulated(paths, arguments.crops, arguments.workers)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"{report['hashes']} crops of {report['photos']} photos: bands are shared"
        f" {report['skew']:.1f} x as often as by chance"
    )
    for band in report["bands"]:
        print(f"  band {band['band']:2} ({band['bits']} bits): {band['pairs']:6} pairs, skew {band['skew']:.1f}")
    for pictures, what in report["at"].items():
        print(f"{int(pictures):>13,}: {json.dumps(what)}")
    loose = report["loose"]
    more = loose["postings_per_picture_stored"] / report["candidates_per_picture_stored"]
    print(f"loose: {loose['queries_per_lookup']:.0f} queries a lookup, {more:.1f} x the postings")
    print(report["largest"], report["bits_always_equal"])


if __name__ == "__main__":
    main()
