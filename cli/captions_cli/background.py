"""Starts and ends the local stack as a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
LOG_FILE = "stack.log"
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


def running(directory: Path) -> LocalState | None:
    """Return the state of the local stack of a directory while its process lives; None otherwise."""
    state = read_local_state(directory)
    return state if state and _is_ours(state.pid) else None


def start(directory: Path, settings: LocalSettings, *, progress: Callable[[str], None] = lambda _: None) -> LocalState:
    """Start the local stack detached and wait until it is ready.

    Raises CommandError with the end of its log when it does not come up.
    """
    line = command(directory, settings)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / STATE_FILE).unlink(missing_ok=True)
    log = directory / LOG_FILE
    progress("starting the local stack")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=project_root(),
            env=_environment(),
        )
    try:
        return _wait_until_ready(directory, process, log)
    except BaseException:
        _end(process.pid)
        (directory / STATE_FILE).unlink(missing_ok=True)
        raise


def run_in_foreground(directory: Path, settings: LocalSettings, ready: Callable[[LocalState], None]) -> int:
    """Run the local stack until it ends or is interrupted, its log on this process's stderr; its exit code."""
    line = command(directory, settings)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / STATE_FILE).unlink(missing_ok=True)
    # A session of its own: Ctrl-C reaches only this process, which ends the other in good order.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        line,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        cwd=project_root(),
        env=_environment() | {"CAPTIONS_STOP_WITH": str(os.getpid())},  # even where this process is killed
    )
    try:
        ready(_wait_until_ready(directory, process, None))
        return process.wait()
    finally:
        _end(process.pid)
        process.wait()
        (directory / STATE_FILE).unlink(missing_ok=True)


def stop(directory: Path) -> bool:
    """End the local stack of a directory and forget its state; False when none was running.

    A process that merely got the number of one that is gone is left alone.
    """
    try:
        state = read_local_state(directory)
    except CommandError:
        state = None
    alive = state is not None and _is_ours(state.pid)
    if state is not None and alive:
        _end(state.pid)
    (directory / STATE_FILE).unlink(missing_ok=True)
    return alive


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log file."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _environment() -> dict[str, str]:
    # The user's AWS profile and settings are about AWS itself; a profile that does not exist would end the stack.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # What it prints and what it raises go to one log, in the order in which they happened, whatever the locale.
    return own | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _wait_until_ready(directory: Path, process: "subprocess.Popen[bytes]", log: Path | None) -> LocalState:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
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
    for left in alive:
        try:
            left.kill()
        except psutil.NoSuchProcess:
            continue
