"""The whole pipeline under a burst: many copies of fewer pictures, at once, shuffled, every event delivered twice.

    python benchmarks/pipeline.py --json pipeline.json
    python benchmarks/pipeline.py --uploads 60 --distinct 15

Runs the real template on the local stack, whose sandboxes all start cold, with uploads waiting. The endpoint's own
request log is the witness for what was paid. Exits with 1 unless every upload ended, nothing is in a dead-letter queue,
and each distinct picture was paid for exactly once.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from PIL import Image

from captions.records.record import Record
from captions_cli.local import LocalStack
from captions_cli.local.aws.events import Unreliability
from captions_cli.local.options import ModelOptions, WorkerOptions

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "cli" / "captions_cli" / "demo_media"
SIDE = 480


def sources(folder: Path | None) -> list[Image.Image]:
    """Real photos to cut pictures from: those of the demo, or every JPEG of a folder."""
    files = sorted((folder or PHOTOS).rglob("*.jpg"))
    return [Image.open(file).convert("RGB") for file in files]


def collages(photos: list[Image.Image], count: int, rng: random.Random) -> Iterator[Image.Image]:
    """Pictures that share no layout: each is four random cuts of real photos."""
    for _ in range(count):
        canvas = Image.new("RGB", (SIDE, SIDE * 3 // 4))
        across, down = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)
        x, y = int(canvas.width * across), int(canvas.height * down)
        for box in ((0, 0, x, y), (x, 0, canvas.width, y), (0, y, x, canvas.height), (x, y, *canvas.size)):
            photo = rng.choice(photos)
            width, height = box[2] - box[0], box[3] - box[1]
            scale = rng.uniform(0.35, 0.9) * min(photo.width / width, photo.height / height)
            left = rng.uniform(0, photo.width - width * scale)
            top = rng.uniform(0, photo.height - height * scale)
            cut = photo.resize(
                (width, height), Image.Resampling.LANCZOS, (left, top, left + width * scale, top + height * scale)
            )
            canvas.paste(cut, box[:2])
        yield canvas


def encoded(image: Image.Image, form: str) -> bytes:
    """One of the copies people make of a picture."""
    out = io.BytesIO()
    if form == "half":
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        half.save(out, "JPEG", quality=90)
    elif form == "webp":
        image.save(out, "WEBP", quality=85)
    elif form == "png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=int(form))
    return out.getvalue()


FORMS = ("92", "92", "80", "webp", "half", "png")


def burst(distinct: int, uploads: int, photos: list[Image.Image], rng: random.Random) -> list[tuple[str, bytes]]:
    """Keys and bytes of all uploads, shuffled; every picture comes at least once."""
    pictures = list(collages(photos, distinct, rng))
    chosen = list(range(distinct)) + [rng.randrange(distinct) for _ in range(uploads - distinct)]
    seen: Counter[int] = Counter()
    files = []
    for index in chosen:
        form = FORMS[seen[index] % len(FORMS)]
        seen[index] += 1
        extension = {"webp": "webp", "png": "png"}.get(form, "jpg")
        files.append((f"picture-{index:03}/copy-{seen[index]:02}.{extension}", encoded(pictures[index], form)))
    rng.shuffle(files)
    return files


def run(options: argparse.Namespace) -> dict[str, object]:
    """Upload the burst, wait for its end, and return the figures."""
    rng = random.Random(options.seed)
    files = burst(options.distinct, options.uploads, sources(options.media), rng)
    with (
        tempfile.TemporaryDirectory() as temporary,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=options.state or Path(temporary),
            parameters={"ImageModels": "GLM-4-Plus,GPT-4o"},
            workers=WorkerOptions(warm=0),
            model=ModelOptions(latency_scale=options.latency_scale),
            unreliability=Unreliability(deliver_twice=True, shuffle=True, seed=options.seed),
        ) as stack,
    ):
        s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda file: s3.put_object(Bucket=bucket, Key=file[0], Body=file[1]), files))
        arrived = time.perf_counter() - started
        stack.wait_idle(options.timeout)
        elapsed = time.perf_counter() - started
        with urllib.request.urlopen(stack.endpoint_url.removesuffix("/v1") + "/_local/requests") as answer:
            log = json.load(answer)
        requests = log["requests"] if isinstance(log, dict) else log
        records = [
            Record.from_item(item)
            for page in stack.client("dynamodb")
            .get_paginator("scan")
            .paginate(TableName=stack.outputs["CaptionsTableName"])
            for item in page["Items"]
        ]
        depths = stack.queue_depths()
    paid = [request for request in requests if request["outcome"] == "ok"]
    paid_by_picture = Counter(record.key.split("/")[0] for record in records if record.source == "model")
    costs = [record.provenance.cost for record in records if record.provenance is not None]
    dollars = None if None in costs else sum((Decimal(cost or 0) for cost in costs), Decimal(0))
    return {
        "uploads": options.uploads,
        "distinct": options.distinct,
        "events_delivered": 2 * options.uploads,
        "states": dict(Counter(record.state for record in records)),
        "sources": dict(Counter(record.source or "-" for record in records)),
        "model_calls": len(requests),
        "paid_calls": len(paid),
        "pictures_paid_more_than_once": sorted(name for name, times in paid_by_picture.items() if times > 1),
        "calls_per_upload": round(len(requests) / options.uploads, 4),
        "dollars": None if dollars is None else format(dollars, "f"),
        "dollars_per_upload": None if dollars is None else format(dollars / options.uploads, ".8f"),
        "dollars_without_the_cache": None
        if dollars is None
        else format(dollars / options.distinct * options.uploads, ".6f"),
        "dead_letters": sum(sum(depth.values()) for name, depth in depths.items() if "DeadLetter" in name),
        "seconds_to_upload": round(arrived, 2),
        "seconds_until_all_ended": round(elapsed, 2),
        "uploads_per_second": round(options.uploads / elapsed, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--distinct", type=int, default=120)
    parser.add_argument("--media", type=Path, help="a folder of JPEGs to cut pictures from, instead of the demo's")
    parser.add_argument("--latency-scale", type=float, default=0.1, help="model latencies in relation to measured ones")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the end")
    parser.add_argument("--state", type=Path, help="a directory for the stack's logs; they are removed without it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = run(options)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    held = (
        figures["states"] == {"captioned": options.uploads}
        and figures["paid_calls"] == options.distinct
        and not figures["pictures_paid_more_than_once"]
        and figures["dead_letters"] == 0
    )
    if not held:
        print(
            "NOT as promised: every upload captioned, one paid call for each picture, no dead letter", file=sys.stderr
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
