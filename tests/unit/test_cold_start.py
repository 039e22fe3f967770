"""What a function's module does while it loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).parents[2] / "functions"
PROGRAM = """
import gc, sys
runs = []
gc.callbacks.append(lambda phase, info: runs.append(info["generation"]))
import app
parses = "aws_lambda_powertools.utilities.parser" in sys.modules
print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(runs), parses)
"""


@pytest.mark.parametrize("function", sorted(path.parent.name for path in FUNCTIONS.glob("*/app.py")))
def test_garbage_is_collected_only_once_a_function_is_loaded(function: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(FUNCTIONS / function),
        "LAMBDA_TASK_ROOT": str(FUNCTIONS / function),
        "POWERTOOLS_METRICS_NAMESPACE": "testing",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    collecting, kept_out, runs, parses = done.stdout.split()
    assert (collecting, kept_out, parses) == ("True", "True", "False")
    assert int(runs) <= 2
