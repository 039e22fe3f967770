"""How fast a phone's photo is fingerprinted, and in how much memory.

    python benchmarks/fingerprint_speed.py [--media DIR] [--json FILE] [--repeat N] [--quick]

Times `fingerprint_image` (decode, perceptual hash, evidence, digests; from the file's bytes) at 12 and 24 megapixels
against imagehash.phash on Pillow's full decode and against pdqhash on the same (decode included for both). Peak memory
(Linux only) is that of a process of its own each; also at the largest picture that is accepted. The pictures are
scaled from a photo in DIR/fullsize, or from noise that looks like one.
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from captions.fingerprint import fingerprint_image
from captions.media import DEFAULT_LIMITS, Limits, inspect

PEER_PYTHON = Path(sys.prefix) / "peers" / "near_duplicates" / "bin" / "python"
SIZES = {"12 MP": (4000, 3000), "24 MP": (6000, 4000)}
LARGEST = (8160, 6120)  # 49.9 megapixels
FORMATS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 90},
    "progressive JPEG": {"quality": 90, "progressive": True},
    "PNG": {"compress_level": 6},
    "HEIF": {"quality": 60},
    "WEBP": {"quality": 80, "method": 0},
    "AVIF": {"quality": 60, "speed": 10},
    "JPEG2000": {"quality_layers": [20]},
    "TIFF": {},
}


def encoded(picture: Image.Image, name: str) -> bytes:
    stream = io.BytesIO()
    if name == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    picture.save(stream, name.split()[-1], **FORMATS[name])
    return stream.getvalue()


def source(media: Path | None) -> Image.Image:
    photos = sorted((media / "fullsize").glob("*.jpg")) if media and (media / "fullsize").is_dir() else []
    if photos:
        with Image.open(photos[0]) as photo:
            return photo.convert("RGB")
    rng = np.random.default_rng(0)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (3 << n, 4 << n, 3), dtype=np.uint8)).resize((2048, 1536)))
        for n in range(2, 9)
    ]
    mixed = sum(layer.astype(np.float32) / (n + 1.5) for n, layer in enumerate(layers))
    return Image.fromarray(np.clip(mixed / sum(1 / (n + 1.5) for n in range(len(layers))), 0, 255).astype(np.uint8))


def best(repeat: int, run: Callable[[], object]) -> float:
    """Return the shortest of `repeat` runs in seconds of this process's CPU time: other processes do not count."""
    times = []
    for _ in range(repeat):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


def pdq_seconds(picture: Image.Image) -> float | None:
    if not PEER_PYTHON.exists():
        return None
    question = struct.pack("<II", *picture.size) + picture.tobytes()
    script = Path(__file__).parent / "peers" / "pdq.py"
    answer = subprocess.run([PEER_PYTHON, script], input=question, stdout=subprocess.PIPE, check=True).stdout
    return float(struct.unpack_from("<d", answer, 33)[0])


PROBE = """
import sys
data = open(sys.argv[1], "rb").read()
if sys.argv[2] == "ours":
    from captions.fingerprint import fingerprint_image
    fingerprint_image(data)
else:
    import io, imagehash
    from PIL import Image
    if data[4:8] == b"ftyp" and data[8:12] != b"avif":
        import pillow_heif
        pillow_heif.register_heif_opener()
    imagehash.phash(Image.open(io.BytesIO(data)), hash_size=16)
# not getrusage: its maximum outlives fork and exec, so that it would be the benchmark's own
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_megabytes(path: Path, who: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROBE, path, who], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--quick", action="store_true", help="JPEG alone, and nothing of 50 megapixels")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    photo = source(options.media)
    rows = []
    print(f"{'':28}{'ours':>9}{'imagehash':>11}{'pdqhash':>9}{'times':>8}{'ours MB':>9}{'imagehash MB':>14}")
    for size_name, size in SIZES.items():
        picture = photo.resize(size, Image.Resampling.BICUBIC)
        pdq = pdq_seconds(picture)
        for name in ("JPEG", "progressive JPEG", *(() if options.quick else ("PNG", "HEIF"))):
            data = encoded(picture, name)
            ours = best(options.repeat, lambda data=data: fingerprint_image(data))  # type: ignore[misc]
            peer = best(options.repeat, lambda data=data: imagehash.phash(Image.open(io.BytesIO(data)), hash_size=16))  # type: ignore[misc]
            decode = best(options.repeat, lambda data=data: Image.open(io.BytesIO(data)).convert("RGB"))  # type: ignore[misc]
            path = options.scratch / "speed.bin"
            path.write_bytes(data)
            row = {
                "size": size_name,
                "format": name,
                "bytes": len(data),
                "ours_s": round(ours, 4),
                "imagehash_s": round(peer, 4),
                "pdqhash_s": None if pdq is None else round(decode + pdq, 4),
                "times_faster_than_imagehash": round(peer / ours, 2),
                "per_second": round(1 / ours, 1),
                "ours_peak_mb": round(peak_megabytes(path, "ours")),
                "imagehash_peak_mb": round(peak_megabytes(path, "imagehash")),
            }
            rows.append(row)
            shown = "-" if pdq is None else f"{1000 * (decode + pdq):.0f} ms"
            print(
                f"{size_name + ' ' + name:28}{1000 * ours:>6.0f} ms{1000 * peer:>8.0f} ms{shown:>9}"
                f"{peer / ours:>7.1f}x{row['ours_peak_mb']:>9}{row['imagehash_peak_mb']:>14}"
            )
    largest = []
    picture = photo.resize(LARGEST, Image.Resampling.BICUBIC)
    for name in () if options.quick else FORMATS:
        data = encoded(picture.convert("RGBA") if name == "PNG" else picture, name)
        inspect(data, Limits(image_bytes=1 << 30))
        path = options.scratch / "speed.bin"
        path.write_bytes(data)
        largest.append(
            {
                "format": name,
                "bytes": len(data),
                "peak_mb": round(peak_megabytes(path, "ours")) if len(data) <= DEFAULT_LIMITS.image_bytes else None,
            }
        )
        print(
            f"{'50 MP ' + name:28}{len(data) / 1e6:>7.1f} MB  peak {largest[-1]['peak_mb'] or 'over the byte limit'} MB"
        )
    (options.scratch / "speed.bin").unlink(missing_ok=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"rows": rows, "largest": largest}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
