"""What a client weighs: import time, memory after the import, and installed size.

    python benchmarks/gateway_weight.py --json weight.json
    python benchmarks/gateway_weight.py --rounds 3

Each import runs in a fresh interpreter; the clients take turns, and the medians are compared. Goals: the gateway within
60 ms and 10 MB of openai alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway_lab import ROOT, machine, python_of, table, write

IMPORTS = {
    "bare": "from openai import AsyncOpenAI",
    "gateway": "from captions.gateway import Gateway; from captions.gateway.catalogue import load; load()",
    "litellm": "from litellm import Router",
}
GOAL_MS, GOAL_MB = 60.0, 10.0

_MEASURE = """
import json, os, resource, sys, time
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else litellm fetches its price map while it is imported
def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
before, wall, cpu = resident(), time.perf_counter(), time.process_time()
exec(sys.argv[1])
print(json.dumps({"wall_ms": (time.perf_counter() - wall) * 1000, "cpu_ms": (time.process_time() - cpu) * 1000,
                  "rss_mb": resident() - before, "modules": len(sys.modules)}))
"""

_INSTALLED = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, distribution
sizes, queue = {}, [sys.argv[1]]
while queue:
    name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
    if name in sizes:
        continue
    try:
        package = distribution(name)
    except PackageNotFoundError:
        continue
    located = (file.locate() for file in package.files or [] if "__pycache__" not in file.parts)
    sizes[name] = sum(path.stat().st_size for path in located if path.is_file())
    for requirement in package.requires or []:
        if "extra ==" not in requirement:
            queue.append(re.match(r"[A-Za-z0-9._-]+", requirement).group())
print(json.dumps(sizes))
"""


def imported(client: str) -> dict[str, float]:
    """Return what one import took in a fresh interpreter."""
    done = subprocess.run(
        [python_of(client), "-c", _MEASURE, IMPORTS[client]], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def installed_mb(client: str) -> float:
    """Return the megabytes of a client's packages and all they need, without compiled bytecode."""
    package = "litellm" if client == "litellm" else "openai"
    done = subprocess.run([python_of(client), "-c", _INSTALLED, package], check=True, capture_output=True, text=True)
    size = sum(json.loads(done.stdout).values())
    if client == "gateway":
        captions = ROOT / "shared" / "captions"
        own = [*(captions / "gateway").glob("*.py"), captions / "gateway" / "models.toml"]
        size += sum(file.stat().st_size for file in own)
    return float(size) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", "--calls", type=int, default=15, help="imports of each client")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    runs: dict[str, list[dict[str, float]]] = {client: [] for client in IMPORTS}
    for client in IMPORTS:
        imported(client)  # writes the bytecode, fills the page cache
    for _ in range(options.rounds):
        for client in IMPORTS:
            runs[client].append(imported(client))

    figures: dict[str, dict[str, Any]] = {
        client: {
            **{key: statistics.median(run[key] for run in results) for key in results[0]},
            "installed_mb": installed_mb(client),
        }
        for client, results in runs.items()
    }
    base = figures["bare"]
    rows = [
        [
            client,
            *(f"{figure[key]:.0f} ({figure[key] / base[key]:.2f}x)" for key in ("cpu_ms", "wall_ms")),
            *(f"{figure[key]:.1f} ({figure[key] / base[key]:.2f}x)" for key in ("rss_mb", "installed_mb")),
            int(figure["modules"]),
        ]
        for client, figure in figures.items()
    ]
    print(table(["client", "import CPU ms", "import wall ms", "memory MB", "installed MB", "modules"], rows))
    more_ms = figures["gateway"]["cpu_ms"] - base["cpu_ms"]
    more_mb = figures["gateway"]["rss_mb"] - base["rss_mb"]
    print(
        f"\ngateway over openai alone: {more_ms:.0f} ms of CPU (goal {GOAL_MS:.0f}), "
        f"{more_mb:.1f} MB (goal {GOAL_MB:.0f})"
    )
    write(options.json, {"machine": machine(), "rounds": options.rounds, "figures": figures})
    return 0 if more_ms <= GOAL_MS and more_mb <= GOAL_MB else 1


if __name__ == "__main__":
    sys.exit(main())
