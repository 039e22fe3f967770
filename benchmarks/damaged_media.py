"""Damaged copies of files of every format: each is to end as a kind or a refusal, soon and in little memory.

    python benchmarks/damaged_media.py --media DIR --json FILE [--seconds 60] [--seed 1]

Files of DIR/odd and DIR/audio up to 200 KB, and a photo encoded in every format that Pillow writes, are cut, flipped,
overwritten with extreme numbers, doubled and shortened in places, most of them near the beginning. What is raised other
than MediaError, takes more than a second of processor time or adds 200 MB is a fault, and is kept in --keep.
"""

import argparse
import io
import json
import random
import resource
import time
from pathlib import Path
from typing import Any

from PIL import Image

from captions import media
from captions.fingerprint import fingerprint_audio, fingerprint_image

PHOTO = Path(__file__).parents[1] / "tests" / "media" / "photos" / "coffee.jpg"
LARGEST = 200_000
SLOW_S, MUCH_KB = 1.0, 200_000
EXTREMES = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\x1b\x58",
    b"\x58\x1b\0\0",
)


def samples(folder: Path) -> dict[str, bytes]:
    seen = {
        path.name: path.read_bytes()
        for part in ("odd", "audio")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and 0 < path.stat().st_size <= LARGEST
    }
    with Image.open(PHOTO) as opened:
        photo = opened.convert("RGB").resize((150, 100))
    others = {"append_images": [photo.rotate(180), photo.rotate(90)], "save_all": True}
    bilevel = photo.convert("1")
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = [
        *(
            (name, photo, {})
            for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "TGA", "QOI")
        ),
        *((name, photo, {}) for name in ("GIF", "ICO", "DDS", "SGI", "IM")),
        *((name, photo, others) for name in ("GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO")),
        *(("TIFF", photo, {"compression": each}) for each in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        *(("TIFF", bilevel, {"compression": each}) for each in ("group3", "group4", "tiff_ccitt")),
        ("JPEG", photo, {"progressive": True}),
        ("JPEG", photo.convert("CMYK"), {}),
        ("PNG", photo.quantize(64), {}),
        ("WEBP", photo.convert("RGBA"), {"lossless": True}),
    ]
    for number, (name, picture, options) in enumerate(pictures):
        stream = io.BytesIO()
        picture.save(stream, name, **options)
        seen[f"{number} {name}"] = stream.getvalue()
    return seen


def damaged(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data[: dice.randrange(1, len(data) + 1)] if dice.random() < 0.25 else data)
    for _ in range(dice.randrange(8)):
        at = dice.randrange(min(len(out), dice.choice((32, 128, 600, len(out)))))
        match dice.choice(("bit", "bit", "byte", "byte", "number", "double", "shorten")):
            case "bit":
                out[at] ^= 1 << dice.randrange(8)
            case "byte":
                out[at] = dice.choice((0, 255, 127, 128, dice.randrange(256)))
            case "number":
                out[at : at + 4] = dice.choice(EXTREMES)
            case "double":
                out[at:at] = out[max(0, at - 40) : at]
            case "shorten":
                del out[at : at + dice.randrange(1, 30)]
        out = out or bytearray(b"x")
    return bytes(out)


def looked_at(data: bytes) -> str:
    """Do what dedupe does, and what a worker does with a picture; answer how it ended."""
    try:
        inspected = media.inspect(data)
        if inspected.picture is None:
            fingerprint_audio(data)
        else:
            fingerprint_image(inspected)
            media.model_copy(data)
    except media.MediaError as error:
        return error.code
    return "taken"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    files, dice = samples(arguments.media), random.Random(arguments.seed)
    names, ends, faults, slowest = sorted(files), dict[str, int](), [], 0.0
    looked, until = 0, time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        looked, name = looked + 1, dice.choice(names)
        data, fault = damaged(files[name], dice), None
        memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            end = looked_at(data)
            ends[end] = ends.get(end, 0) + 1
        except Exception as error:  # what this looks for
            fault = repr(error)[:200]
        took = time.process_time() - begun
        slowest = max(slowest, took)
        if took > SLOW_S:
            fault = f"{took:.1f} s"
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory > MUCH_KB:
            fault = "memory"
        if fault is not None:
            faults.append({"file": name, "fault": fault})
            if arguments.keep is not None:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                (arguments.keep / f"{arguments.seed}-{len(faults)}").write_bytes(data)
    report = {
        "files": len(files),
        "damaged": looked,
        "ends": ends,
        "slowest_s": round(slowest, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "faults": faults,
    }
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
