"""What holds for every test: the environment is a user's, whatever this machine or its owner has set."""

import ctypes
import functools
import gc
import os
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import botocore.context
import botocore.session
import botocore.useragent
import httpcore2
import pytest

for name in list(os.environ):
    if name.startswith(("AWS_", "CAPTIONS_", "POWERTOOLS_", "PYTHON", "SAM_")):
        del os.environ[name]
os.environ["POWERTOOLS_METRICS_NAMESPACE"] = "testing"  # as a deployed function has one
# Where PYTHONDONTWRITEBYTECODE was set, each run rewrote all tests' assertions in each worker: 4 s of CPU.
sys.dont_write_bytecode = False

# A session of boto3 reads the descriptions of AWS's services for itself, and moto makes a new session for each test:
# that took longer than most tests do. The descriptions are files of botocore, which nothing changes.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)
# So it is with the certificates that a client of OpenAI's trusts.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
# A client of AWS puts what it is together for every request, twice.
user_agent: Any = botocore.useragent.UserAgentString
write_user_agent = user_agent.to_string


def written_once(client: Any) -> str:
    context: Any = botocore.context.get_context()
    about = client._client_config, frozenset(context.features if context is not None else ())
    written: dict[Any, str] = vars(client).setdefault("written", {})
    return written[about] if about in written else written.setdefault(about, write_user_agent(client))


user_agent.to_string = written_once

# All the tests' modules and what they import are several hundred thousand objects that stay, and looking through them
# for garbage again and again took a fifth of the tests' time.
gc.disable()

# What is freed stays with the process: the pages of each picture, given back and cleared again, took a twentieth of the
# time of comparing it.
if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
    mallopt(-1, 256 * 1024 * 1024)  # M_TRIM_THRESHOLD (mallopt(3))
    mallopt(-3, 32 * 1024 * 1024)  # M_MMAP_THRESHOLD


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin one file of end-to-end tests, then five others, and so on.

    Workers take the files in this order. Stacks and browsers are waited for during half of their tests' time: with all
    of them first, and what only computes behind, the cores idled for a sixth of a run.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = iter([of for of in files.values() if of[0].path.parent.name == "e2e"])
    computing = iter([of for of in files.values() if of[0].path.parent.name != "e2e"])
    items[:] = []
    while mixed := [*islice(waiting, 1), *islice(computing, 5)]:
        items += chain.from_iterable(mixed)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, and never in what was loaded until now."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """SVT-AV1 makes a process of root real-time that encodes with it: what it starts then starves all else."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
