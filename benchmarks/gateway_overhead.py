"""What a call costs the caller: CPU and calls per second of openai alone, the gateway, and litellm.Router.

    python benchmarks/gateway_overhead.py --json overhead.json
    python benchmarks/gateway_overhead.py --calls 200 --rounds 1

The endpoint answers at once, from a process of its own. The clients take turns, in a process each, so that whatever
else the machine does hits all of them. Goal: the gateway's CPU per call within 1.25 times that of openai alone. The
connections are counted by the endpoint: as many as there are callers, if they are used again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway_lab import CLIENTS, endpoint, machine, picture, python_of, table, write

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
GOAL = 1.25


def run(client: str, url: str, concurrency: int, calls: int, image: str) -> dict[str, Any]:
    """Return one run's seconds."""
    spec = {
        "mode": "flat_out",
        "client": client,
        "run": client,
        "urls": [url],
        "chain": [MODEL],
        "timeout_s": 30.0,
        "calls": calls,
        "concurrency": concurrency,
        "image": image,
        "options": {"num_retries": 0, "disable_cooldowns": True},
    }
    done = subprocess.run(
        [python_of(client), CLIENTS], input=json.dumps(spec) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{client} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result["wrong"]:
        sys.exit(f"{client} got {result['wrong']} wrong answers")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each client at each concurrency")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 12, 64])
    parser.add_argument("--clients", nargs="+", default=["bare", "gateway", "litellm"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    image = picture()
    runs: dict[tuple[int, str], list[dict[str, Any]]] = {}
    with endpoint("--latency-scale", "0") as server:
        for concurrency in options.concurrency:
            for _ in range(options.rounds):
                for client in options.clients:
                    before = server.connections()
                    result = run(client, server.url, concurrency, options.calls, image)
                    result["connections"] = server.connections() - before
                    runs.setdefault((concurrency, client), []).append(result)
                    server.forget()

    rows, figures = [], []
    for (concurrency, client), results in runs.items():
        cpu_ms = statistics.median(result["cpu_s"] for result in results) / options.calls * 1000
        rate = options.calls / statistics.median(result["wall_s"] for result in results)
        base = statistics.median(result["cpu_s"] for result in runs[concurrency, "bare"]) / options.calls * 1000
        ratio = cpu_ms / base
        connections = statistics.median(result["connections"] for result in results)
        rows.append([client, concurrency, f"{cpu_ms:.3f}", f"{ratio:.2f}x", f"{rate:.0f}", f"{connections:.0f}"])
        figures.append(
            {
                "client": client,
                "concurrency": concurrency,
                "cpu_ms": cpu_ms,
                "ratio": ratio,
                "calls_per_s": rate,
                "connections": connections,
            }
        )
    print(table(["client", "concurrency", "CPU ms/call", "to openai alone", "calls/s", "connections"], rows))
    worst = max((figure["ratio"] for figure in figures if figure["client"] == "gateway"), default=0.0)
    print(f"\ngateway at most {worst:.2f}x openai alone; the goal is {GOAL}x")
    write(options.json, {"machine": machine(), "calls": options.calls, "rounds": options.rounds, "figures": figures})
    return 0 if worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
