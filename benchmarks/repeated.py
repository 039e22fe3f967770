"""Runs the pipeline's burst and the demo again and again on a busy machine: each picture is paid for exactly once.

    python benchmarks/repeated.py --runs 20 --load 3 --json repeated.json
    python benchmarks/repeated.py demo --runs 3 --keep logs

`pipeline` is benchmarks/pipeline.py with its defaults, `demo` is `captions demo`; both end with 1 unless each picture
was paid for once. Every run is a stack of its own whose sandboxes start cold, a demo's as forks. `--load` busy
processes for each core, of the same priority, take the machine's time meanwhile. Output and logs of failed runs are
kept. Exits with 1 if any did.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SUBJECTS = ("pipeline", "demo")
BUSY = """
import os, sys
parent = int(sys.argv[2])
for _ in range(int(sys.argv[1]) - 1):
    me = os.getpid()
    if os.fork() == 0:
        parent = me  # which may be gone by now, and is not then what getppid tells
        break
while os.getppid() == parent:
    sum(range(100_000))
"""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy; they end with this one, however it ends."""
    if not processes:
        yield
        return
    # A session of its own, as Linux may share the processors out between sessions: the load is another user's.
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(processes), str(os.getpid())], start_new_session=True
    ) as running:
        try:
            yield
        finally:
            running.kill()


def ran(subject: str, state: Path, timeout: float) -> dict[str, Any]:
    """Run one of them in a directory of its own; `problem` is empty where all held."""
    figures = state / "figures.json"
    line: list[str | Path]
    if subject == "pipeline":
        line = ["benchmarks/pipeline.py", "--json", figures, "--state", state / "stack", "--timeout", str(timeout)]
    else:
        line = ["-m", "captions_cli.main", "demo", "--output", "json"]
    environment = {**os.environ, "CAPTIONS_HOME": str(state / "home")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *line], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = round(time.monotonic() - began, 1)
    (state / "output.txt").write_text(done.stdout + done.stderr)
    try:
        facts = json.loads(figures.read_text() if subject == "pipeline" else done.stdout)
    except (OSError, ValueError):
        return {"seconds": seconds, "problem": done.stderr.strip()[-500:] or "it printed no figures"}
    pictures = (
        facts["distinct"] if subject == "pipeline" else len({upload["picture"] for upload in facts["uploads"]} - {None})
    )
    problem = "; ".join(facts.get("problems", ()))
    if done.returncode != 0:
        problem = problem or done.stderr.strip()[-500:] or f"it ended with {done.returncode}"
    if facts["paid_calls"] != pictures:
        problem = f"{facts['paid_calls']} paid calls for {pictures} pictures; {problem}"
    return {"pictures": pictures, "paid_calls": facts["paid_calls"], "seconds": seconds, "problem": problem}


def main() -> int:
    """Run them all; print and write each run as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="pipeline, demo; both by default")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--load", type=float, default=3.0, help="busy processes for each core")
    parser.add_argument("--timeout", type=float, default=1_800.0, help="seconds that one burst may take")
    parser.add_argument("--keep", type=Path, help="a directory for what failed runs leave")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(SUBJECTS)}")
    keep = options.keep or Path(tempfile.mkdtemp(prefix="captions-repeated-"))
    cores, runs = os.cpu_count() or 1, []
    with busy(round(options.load * cores)):
        for number in range(1, options.runs + 1):
            for subject in options.subjects or SUBJECTS:
                state = keep / f"{subject}-{number:02}"
                state.mkdir(parents=True)
                run = {"subject": subject, "run": number, "load": round(os.getloadavg()[0], 1)}
                run |= ran(subject, state, options.timeout)
                if not run["problem"]:
                    shutil.rmtree(state)
                print(" ".join(f"{name}={value}" for name, value in run.items()), flush=True)
                runs.append(run)
                machine = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "python": platform.python_version()}
                figures = {"machine": machine | {"cores": cores}, "busy": round(options.load * cores), "runs": runs}
                if options.json:
                    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    failed = [f"{run['subject']} {run['run']}" for run in runs if run["problem"]]
    print(f"{len(runs) - len(failed)} of {len(runs)} runs paid once for each picture" + f"; see {keep}" * bool(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
