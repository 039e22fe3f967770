"""A sandbox's process is the same whether it is new or a fork of one that has imported packages of third parties."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from captions_cli.local.lambda_runtime import processes
from captions_cli.local.lambda_runtime.processes import FORKS, ForkServer, NewProcess, Process
from support.small_stack import eventually

pytestmark = pytest.mark.skipif(not FORKS, reason="sandboxes are forked on Linux only")

PROGRAM = """
import gc, json, locale, os, random, signal, subprocess, sys, threading, time
handed_on = subprocess.run(["env"], capture_output=True, text=True).stdout
print(json.dumps({
    "environment": dict(os.environ), "handed_on": sorted(handed_on.splitlines()), "directory": os.getcwd(),
    "path": sys.path, "arguments": sys.argv, "name": __name__, "flags": repr(sys.flags), "umask": os.umask(0o22),
    "session": os.getsid(0) == os.getpid(), "group": os.getpgrp() == os.getpid(), "zone": time.tzname,
    "locale": locale.setlocale(locale.LC_ALL), "encoding": [sys.stdout.encoding, sys.getfilesystemencoding()],
    "signals": {s.name: repr(signal.getsignal(s)) for s in signal.Signals}, "wakeup": signal.set_wakeup_fd(-1),
    "masked": [s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])], "threads": threading.active_count(),
    "own": sorted(name for name in sys.modules if name.partition(".")[0] in
        ("app", "batches", "bootstrap", "captions", "captions_api", "captions_cli", "captions_client")),
    "open": [os.readlink(f"/proc/self/fd/{fd}") for fd in range(100) if os.path.lexists(f"/proc/self/fd/{fd}")],
    "collects": gc.isenabled(),
}))
print(random.random(), os.environ["NAME"])
sys.stderr.write("an error\\n")
do = os.environ["DO"]
if do == "wait":
    os.read(0, 1)
elif do == "abort":
    os.kill(os.getpid(), signal.SIGABRT)
sys.exit(7)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(processes, "_BOOTSTRAP", tmp_path / "program.py")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(sys.executable, tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


def environment(tmp_path: Path, do: str, name: str) -> dict[str, str]:
    packages = f"{tmp_path / 'packages'}{os.pathsep}{tmp_path / 'more'}"
    # What the stack gives every sandbox, and what only some have.
    fixed = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": ":UTC", "PYTHONUNBUFFERED": "1"}
    return {**fixed, "PYTHONPATH": packages, "DO": do, "NAME": name, "OMP_NUM_THREADS": "1", "EMPTY": ""}


def started(tmp_path: Path, server: ForkServer | None, do: str, name: str = "é") -> tuple[Process, Path]:
    log = tmp_path / f"{name}.log"
    variables = environment(tmp_path, do, name)
    with log.open("ab") as opened:
        if server is None:
            return NewProcess(sys.executable, variables, tmp_path, opened), log
        return server.fork(variables, tmp_path, opened), log


def ended(tmp_path: Path, server: ForkServer | None, do: str, name: str = "é") -> tuple[int, list[str]]:
    process, log = started(tmp_path, server, do, name)
    code = process.wait()
    process.close()
    return code, log.read_text(encoding="utf-8").splitlines()


@pytest.mark.usefixtures("program")
def test_a_fork_is_like_a_new_process_in_all_that_a_function_can_see(tmp_path: Path, server: ForkServer) -> None:
    new_code, (new, _, new_error) = ended(tmp_path, None, "end", "new é")
    code, (fork, _, error) = ended(tmp_path, server, "end", "fork é")
    of_new, of_fork = json.loads(new.replace("new \\u00e9", "fork \\u00e9")), json.loads(fork)
    for each in (of_new, of_fork):
        assert each["open"].pop(0).startswith("pipe:")
    assert of_fork == of_new
    assert of_fork["own"] == []
    assert (code, error) == (new_code, new_error) == (7, "an error")


@pytest.mark.usefixtures("program")
def test_no_two_forks_draw_the_same_numbers(tmp_path: Path, server: ForkServer) -> None:
    drawn = [ended(tmp_path, server, "end", f"fork {number}")[1][1].split()[0] for number in range(3)]
    assert len(set(drawn)) == 3


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("forked", [False, True])
def test_how_a_process_ends_is_known(tmp_path: Path, server: ForkServer, forked: bool) -> None:
    parent = server if forked else None
    assert ended(tmp_path, parent, "abort")[0] == -signal.SIGABRT
    killed, _ = started(tmp_path, parent, "wait", "killed")
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    killed.kill()  # it has ended: whoever has its number now is left alone
    killed.close()
    waits, log = started(tmp_path, parent, "wait", "waits")
    eventually(lambda: "an error" in log.read_text())
    waits.close()  # as when the stack ends
    assert waits.wait() == 7


@pytest.mark.usefixtures("program")
def test_a_fork_server_that_is_killed_is_missed_at_once(tmp_path: Path) -> None:
    server = ForkServer(sys.executable, tmp_path)
    left, log = started(tmp_path, server, "wait", "left")
    eventually(lambda: "an error" in log.read_text())
    parent = psutil.Process(left.pid).parent()
    assert parent is not None
    parent.kill()
    assert left.wait() == -signal.SIGKILL
    left.close()
    eventually(lambda: not psutil.pid_exists(left.pid) or psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(OSError, match=r"."):
        started(tmp_path, server, "end")
    server.stop()


@pytest.mark.usefixtures("program")
def test_a_process_that_cannot_be_forked_ends_no_other(tmp_path: Path) -> None:
    server = ForkServer(sys.executable, tmp_path)
    left, log = started(tmp_path, server, "wait", "left")
    eventually(lambda: "an error" in log.read_text())
    parent = psutil.Process(left.pid).parent()
    assert parent is not None
    before = parent.rlimit(psutil.RLIMIT_NOFILE)
    parent.rlimit(psutil.RLIMIT_NOFILE, (parent.num_fds() + 1, before[1]))
    with pytest.raises(OSError, match="made no process"):
        started(tmp_path, server, "end", "none")
    parent.rlimit(psutil.RLIMIT_NOFILE, before)
    with pytest.raises(OSError, match="too long"):
        started(tmp_path, server, "end" * 2**20, "large")
    assert ended(tmp_path, server, "end", "again")[0] == 7
    left.close()
    assert left.wait() == 7
    server.stop()


LOADED = """
import collections, json, os, runpy, sys
read = set()
kept = type(os.environ).__getitem__
def noted(self, name):
    read.add(name)
    return kept(self, name)
type(os.environ).__getitem__ = noted
type(os.environ).__contains__ = lambda self, name: read.add(name) or name in list(self)
program = runpy.run_path(sys.argv[1])
program["import_packages"]()
imported = sorted(read)
program["read_descriptions"]()
pid = os.fork()
if pid == 0:
    print(json.dumps({"read": imported, "threads": len(os.listdir("/proc/self/task")), "modules": sorted(sys.modules)}))
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(os.listdir("/proc/self/task")) == 1, "the server has threads, which a fork would lack"
"""


@pytest.mark.deep
def test_what_is_imported_before_the_fork_is_no_part_of_the_product_and_depends_on_no_function() -> None:
    surroundings = {"PATH": os.environ["PATH"], "PYDANTIC_DISABLE_PLUGINS": "__all__"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED, str(processes._FORK_SERVER)],
        env=surroundings, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    loaded: dict[str, Any] = json.loads(done.stdout)
    ours = {"app", "batches", "captions", "captions_api", "captions_cli", "captions_client"}
    assert [name for name in loaded["modules"] if name.partition(".")[0] in ours] == []
    assert loaded["threads"] == 1
    assert set(loaded["modules"]) > {"boto3", "numpy", "openai", "pydantic"}
    depends = [name for name in loaded["read"] if name.startswith(("AWS_", "POWERTOOLS_", "LAMBDA_", "LOCAL_", "TZ"))]
    assert depends == []
