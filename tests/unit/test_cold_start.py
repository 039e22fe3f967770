"""What a function's module does while it loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).parents[2] / "functions"
PROGRAM = """
import gc, os, sys
runs = []
gc.callbacks.append(lambda phase, info: runs.append(info["generation"]))
import app
threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(runs), threads, *sys.modules)
"""
UNNEEDED = {
    "captions.config.function_environments",
    "captions.gateway.client",
    "captions.search.index",
    "captions.webhooks.deliveries",
    "captions.write_back.writing",
    "email.mime",
    "imagehash",
    "pillow_heif",
    "av",
    "scipy",
    "statistics",
    "PIL.ImageDraw",
    "numpy.ma",
    "numpy.random",
    "aws_lambda_powertools.utilities.batch",
    "aws_lambda_powertools.utilities.data_classes",
    "aws_lambda_powertools.utilities.parser",
    "aws_lambda_powertools.utilities.idempotency",
}
"""What no function needs that only decides about uploads: dedupe is to load within 2.7 times what boto3 takes alone."""


@pytest.mark.parametrize("function", sorted(path.parent.name for path in FUNCTIONS.glob("*/app.py")))
def test_loading_a_function_collects_no_garbage_and_starts_no_thread(function: str) -> None:
    collecting, kept_out, runs, threads, *modules = loaded(function).split()
    assert (collecting, kept_out) == ("True", "True")
    assert int(runs) <= 2
    assert int(threads) == 1
    needless = {name for name in UNNEEDED if name.startswith("aws_")} if function != "dedupe" else UNNEEDED
    assert set(modules) & needless == set()


def loaded(function: str) -> str:
    """What a fresh process prints that loads a function."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(FUNCTIONS / function),
        "LAMBDA_TASK_ROOT": str(FUNCTIONS / function),
        "POWERTOOLS_METRICS_NAMESPACE": "testing",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout
