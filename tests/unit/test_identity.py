"""What must be equal in every sandbox: identities of asks, hash version, fingerprints, policy and catalogue."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "identities.json"
"""Computed once. A change of it is meant: of a prompt or a shape, which costs every cached answer concerned, of the
policy, or of a model. `identities.py` beside it writes it again."""
THREADS = 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cold children are forked")
@pytest.mark.parametrize("processes", [5, pytest.param(50, marks=pytest.mark.deep)])
def test_every_thread_of_every_cold_process_computes_the_same(processes: int) -> None:
    command = [sys.executable, str(GOLDEN.with_suffix(".py")), str(processes), str(THREADS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == processes, "some process gave several answers"
    for answer in answers:
        assert answer == json.loads(GOLDEN.read_text(encoding="utf-8"))
