"""What must be equal in every sandbox: identities of asks, hash version, fingerprints, policy and catalogue."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "identities.json"
"""Computed once. A change of it is meant: of a prompt or a shape, which costs every cached answer concerned, of the
policy, or of a model. `identities.py` beside it writes it again."""
THREADS = 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cold children are forked")
@pytest.mark.parametrize("processes", [2, pytest.param(50, marks=pytest.mark.deep)])
def test_every_thread_of_every_cold_process_computes_the_same(processes: int) -> None:
    command = [sys.executable, str(GOLDEN.with_suffix(".py")), str(processes), str(THREADS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == processes, "some process gave several answers"
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for answer in answers:
        changed = sorted(changes(golden, answer)) if isinstance(answer, dict) else answer
        assert not changed, (
            f"tests/golden/identities.json is not what is computed: {changed}. If that is meant, run "
            "`python tests/golden/identities.py > tests/golden/identities.json`"
        )


def changes(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """The places where two documents differ, such as `asks/caption`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() | after.keys():
            yield from changes(before.get(name), after.get(name), f"{at}/{name}".strip("/"))
    elif before != after:
        yield at


def test_a_change_is_named_by_its_place() -> None:
    before = {"asks": {"caption": "1", "ocr": "2"}, "policy": "3"}
    assert sorted(changes(before, {"asks": {"caption": "1", "hues": "4"}, "policy": "5"})) == [
        "asks/hues", "asks/ocr", "policy",
    ]  # fmt: skip
