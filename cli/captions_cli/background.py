"""Starts and ends the local stack as a process of its own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from captions_cli.errors import CommandError, ExitCode
from captions_cli.local.model_endpoint import eyes
from captions_cli.stack import (
    DEFAULT_LOCAL_REGION,
    DEFAULT_STACK_NAME,
    STATE_FILE,
    LocalState,
    connect_local,
    read_local_state,
)

START_SECONDS = 90.0
STOP_SECONDS = 15.0
OWNER_SECONDS = 5.0
"""How long whoever has just taken the lock may need to write down which process holds it."""
ENDED_WHILE_STARTING = (143, -signal.SIGTERM)
"""The exit codes of a local stack that SIGTERM ended before it was up."""
LOG_FILE = "stack.log"
LOCK_FILE = "lock"
TAIL_LINES = 15
MODULE = "captions_cli.local"


@dataclass(frozen=True)
class LocalSettings:
    """How the local stack is to be started; port 0 is any free one."""

    port: int = 0
    bind: str = "127.0.0.1"
    latency_scale: float = 0.1
    stack_name: str = DEFAULT_STACK_NAME
    region: str = DEFAULT_LOCAL_REGION
    parameters: Mapping[str, str] = field(default_factory=dict)
    empty: bool = False
    """Without the template's stack: AWS's APIs alone, for `sam deploy` and `captions deploy`."""


def project_root() -> Path:
    """Return the checkout with template.yaml and the functions: around the working directory, else around this file.

    Raises CommandError when there is none.
    """
    here = Path.cwd()
    for directory in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (directory / "template.yaml").is_file() and (directory / "functions" / "dedupe").is_dir():
            return directory
    raise CommandError(
        "the local stack is made from the project's template.yaml: run this inside a checkout of media-captions",
        ExitCode.USAGE,
    )


def command(directory: Path, settings: LocalSettings) -> list[str]:
    """Return the command line that runs the local stack in the foreground."""
    arguments: Sequence[str] = (
        *("--template", str(project_root() / "template.yaml")),
        *("--state-dir", str(directory.resolve())),
        *("--stack-name", settings.stack_name),
        *("--region", settings.region),
        *("--bind", settings.bind),
        *("--port", str(settings.port)),
        *("--latency-scale", str(settings.latency_scale)),
    )
    parameters = [f"--parameter={name}={value}" for name, value in settings.parameters.items()]
    flags = [*(["--empty"] if settings.empty else []), *(["--eyes"] if not eyes.missing() else [])]
    return [sys.executable, "-m", MODULE, *arguments, *flags, *parameters]


class TakenError(CommandError):
    """A local stack of this directory is up or starting already, as process `pid`."""

    def __init__(self, directory: Path, pid: int) -> None:
        super().__init__(
            f"a local stack is up or starting in {directory} (process {pid}); "
            f"`CAPTIONS_HOME={shlex.quote(str(directory))} captions down` ends it",
            ExitCode.UNREACHABLE,
        )
        self.pid = pid


def start(directory: Path, settings: LocalSettings, *, progress: Callable[[str], None] = lambda _: None) -> LocalState:
    """Start the local stack detached and wait until it is ready.

    Raises TakenError when there is one, up or starting, and CommandError with the end of its log when it does not
    come up.
    """
    log = directory / LOG_FILE
    with _owned(directory) as lock:
        progress("starting the local stack")
        with log.open("wb") as output:
            process = _launch(directory, settings, lock, stdout=output, stderr=subprocess.STDOUT)
    try:
        return _wait_until_ready(directory, process, log)
    except BaseException:
        _end(process.pid)
        raise


def run_in_foreground(directory: Path, settings: LocalSettings, ready: Callable[[LocalState], None]) -> int:
    """Run the local stack until it ends or is interrupted, its log on this process's stderr; its exit code.

    Raises TakenError when there is one, up or starting.
    """
    with _owned(directory) as lock:
        # The stack ends with this process even where that is killed.
        process = _launch(directory, settings, lock, stdout=sys.stderr, own={"CAPTIONS_STOP_WITH": str(os.getpid())})
    try:
        ready(_wait_until_ready(directory, process, None))
        return process.wait()
    finally:
        _end(process.pid)
        process.wait()


def awaited(directory: Path, pid: int) -> LocalState:
    """Wait until the local stack that somebody else started as process `pid` is up, and return its state.

    Raises CommandError when it ends, or is not up in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while _is_ours(pid):
        if (state := read_local_state(directory)) is not None and state.pid == pid:
            return state
        if time.monotonic() > deadline:
            raise _not_started(f"the local stack that was starting (process {pid}) is not up", directory / LOG_FILE)
        time.sleep(0.05)
    raise _not_started(f"the local stack that was starting (process {pid}) has ended", directory / LOG_FILE)


def stop(directory: Path) -> bool:
    """End the local stack of a directory, up or starting, and forget its state; False when there was none.

    A process that merely got the number of one that is gone is left alone.
    """
    if not directory.exists():
        return False
    ended = False
    while True:
        try:
            with _owned(directory):
                return ended
        except TakenError as taken:
            _end(taken.pid)
            ended = True


def tail(log: Path) -> str:
    """Return the last lines of a log file."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
    except OSError:
        return ""


@contextmanager
def _owned(directory: Path) -> Iterator[IO[str]]:
    """Hold the lock of a directory, which the process of its local stack holds otherwise; its files are ours then.

    A state file that is there is an old one, and is removed. Raises TakenError when a local stack holds the lock, and
    CommandError when the directory cannot be written.
    """
    import fcntl

    deadline = time.monotonic() + OWNER_SECONDS
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK_FILE).open("a+", encoding="ascii")
    except OSError as error:
        why = f"{directory} cannot hold the local stack's state ({error.strerror}): give another CAPTIONS_HOME"
        raise CommandError(why, ExitCode.USAGE) from error
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip()
                if holder.isdecimal() and _is_ours(int(holder)):
                    raise TakenError(directory, int(holder)) from None
                if time.monotonic() > deadline:
                    why = f"{directory / LOCK_FILE} is held by a process that is no local stack ({holder or 'unknown'})"
                    raise CommandError(why, ExitCode.UNREACHABLE) from None
            time.sleep(0.05)
        lock.truncate(0)
        (directory / STATE_FILE).unlink(missing_ok=True)
        yield lock


def _launch(
    directory: Path,
    settings: LocalSettings,
    lock: IO[str],
    *,
    stdout: IO[Any],
    stderr: int | None = None,
    own: dict[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start the process of the local stack, which has the lock from its first moment to its last.

    Raises CommandError for parameters that the template has not, or does not take.
    """
    if settings.parameters:
        _check(settings.parameters)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [*command(directory, settings), "--lock", str(lock.fileno())],
        stdin=subprocess.DEVNULL,
        # A session of its own: Ctrl-C reaches only this process, which ends the other in good order.
        start_new_session=True,
        cwd=project_root(),
        stdout=stdout,
        stderr=stderr,
        env=_environment() | (own or {}),
        pass_fds=(lock.fileno(),),
    )
    lock.write(str(process.pid))
    lock.flush()
    return process


def _check(parameters: Mapping[str, str]) -> None:
    from captions_cli.local.cloudformation.translate import check_parameters
    from captions_cli.local.errors import StackError

    try:
        check_parameters(project_root() / "template.yaml", parameters)
    except StackError as error:
        raise CommandError(f"{error} (--parameter)", ExitCode.USAGE) from error


def _environment() -> dict[str, str]:
    # The user's AWS profile and settings are about AWS itself; a profile that does not exist would end the stack.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # What it prints and what it raises go to one log, in the order in which they happened, whatever the locale.
    return own | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _wait_until_ready(directory: Path, process: "subprocess.Popen[bytes]", log: Path | None) -> LocalState:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() in ENDED_WHILE_STARTING:
            raise CommandError("the local stack was ended while it was starting", ExitCode.UNREACHABLE)
        if process.returncode is not None:
            raise _not_started(f"the local stack ended with exit code {process.returncode} while starting", log)
        if (directory / STATE_FILE).exists() and (state := read_local_state(directory)):
            stack = connect_local(state)
            _ = stack.bucket if state.bucket else stack.exists  # it answers, and its stack, if it has one, is complete
            return state
        time.sleep(0.05)
    raise _not_started(f"the local stack was not ready after {START_SECONDS:.0f} s", log)


def _not_started(what: str, log: Path | None) -> CommandError:
    end = tail(log) if log else ""
    return CommandError(f"{what}; the end of {log}:\n{end}" if end else what, ExitCode.UNREACHABLE)


def _is_ours(pid: int) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        return MODULE in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return False


def _end(pid: int) -> None:
    """Ask a process to end, with all it started; after STOP_SECONDS end what is left."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    if process in alive:  # it may have started others meanwhile
        alive += [late for late in process.children(recursive=True) if late not in alive]
    for left in alive:
        try:
            left.kill()
        except psutil.NoSuchProcess:
            continue
