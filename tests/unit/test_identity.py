"""What must be equal in every sandbox: the identity of an ask and its prompt version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "identities.json"
"""Computed once. A change of it is meant (a prompt or a shape was changed), and costs every cached answer concerned."""
THREADS = 10

# Nothing of the product is loaded: each child is a cold sandbox whose first uploads come all at once.
COLD = """
import json, os, sys, threading
import langcodes, pydantic, pydantic.json_schema
sys.setswitchinterval(1e-4)
processes, threads = int(sys.argv[1]), int(sys.argv[2])

def identities():
    from captions.tasks import TASKS, Ask
    asks = {name: Ask(task=name, question="Who speaks?" if name == "audio_qa" else "") for name in TASKS}
    asks |= {f"caption {style}": Ask(task="caption", style=style) for style in ("concise", "descriptive")}
    asks["caption custom"] = Ask(task="caption", style="custom", template="Say what {title} shows.")
    asks["alt_text ja"] = Ask(task="alt_text", language="ja", context={"title": "Käfer & Co."})
    asks["caption tags"] = Ask(task="caption", vocabulary={"dog": ("hound",), "cat": ()})
    return {name: ask.identity for name, ask in asks.items()}

def child(out):
    found, barrier = [], threading.Barrier(threads)
    def work():
        barrier.wait()
        try:
            found.append(json.dumps(identities(), sort_keys=True))
        except BaseException as error:
            found.append(json.dumps(repr(error)))
    workers = [threading.Thread(target=work) for _ in range(threads)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    os.write(out, "".join(f"{line}\\n" for line in sorted(set(found))).encode())

for _ in range(processes):
    reading, writing = os.pipe()
    if os.fork() == 0:
        child(writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        sys.stdout.write(lines.read())
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cold children are forked")
@pytest.mark.parametrize("processes", [8, pytest.param(50, marks=pytest.mark.deep)])
def test_every_thread_of_every_cold_process_computes_the_same_identities(processes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(processes), str(THREADS)], capture_output=True, text=True, check=True
    )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == processes, "some process gave several answers"
    assert {json.dumps(answer, sort_keys=True) for answer in answers} == {
        json.dumps(json.loads(GOLDEN.read_text(encoding="utf-8")), sort_keys=True)
    }
