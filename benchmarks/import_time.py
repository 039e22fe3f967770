"""How long each function's imports take: what a cold start pays before the first event.

    python benchmarks/import_time.py --json import_time.json

Each figure is the best of several fresh interpreters, as anything else that runs can only add to it. The row of boto3
alone is what no function gets around, and what the ratio is taken to. Everything a first event would import is counted,
also what a function imports only then.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import importlib, resource, sys, time
started = time.perf_counter()
for name in sys.argv[1:]:
    importlib.import_module(name)
elapsed = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("scipy", "pywt", "openai", "numpy", "PIL", "imagehash") if name in sys.modules]
print(elapsed * 1000, used.ru_maxrss / 1024, len(sys.modules), ",".join(heavy) or "-")
"""
SUBJECTS: dict[str, tuple[str, ...]] = {
    "boto3 alone": ("boto3",),
    "dedupe": ("app", "captions.pipeline.ingest"),
    "caption": ("app", "captions.pipeline.caption"),
    "transcribe": ("app", "captions.pipeline.caption"),
    "sweep": ("app", "captions.pipeline.sweep"),
    "api": ("captions_api.application",),
}


def measure(subject: str, modules: tuple[str, ...], runs: int) -> dict[str, object]:
    """The best of `runs` fresh interpreters."""
    environment = {
        "PATH": os.environ["PATH"],
        "POWERTOOLS_SERVICE_NAME": subject,
        "POWERTOOLS_METRICS_NAMESPACE": "bench",
        # As in Lambda: outside of it X-Ray's recorder makes a client of its own at import.
        "LAMBDA_TASK_ROOT": str(ROOT / "functions" / subject),
        "PYTHONPATH": str(ROOT / "functions" / subject),
    }
    best: tuple[float, float, int, str] | None = None
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *modules], env=environment, capture_output=True, text=True, check=True
        )
        milliseconds, memory, count, heavy = done.stdout.split()
        measured = (float(milliseconds), float(memory), int(count), heavy)
        best = min(best, measured) if best else measured
    assert best is not None
    return {"subject": subject, "ms": best[0], "peak_mb": best[1], "modules": best[2], "heavy": best[3]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [measure(subject, modules, options.runs) for subject, modules in SUBJECTS.items()]
    alone = float(str(rows[0]["ms"]))
    print(f"{'':12} {'ms':>7} {'ratio':>6} {'MB':>6} {'modules':>8}  heavy ones")
    for row in rows:
        row["ratio"] = round(float(str(row["ms"])) / alone, 2)
        print(
            f"{row['subject']:12} {row['ms']:7.0f} {row['ratio']:6.2f} {row['peak_mb']:6.0f} {row['modules']:8}  "
            f"{row['heavy']}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
