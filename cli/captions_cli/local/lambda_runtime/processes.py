"""The processes that sandboxes live in: new ones, or forks of one that has imported packages of third parties."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_FORK_SERVER = Path(__file__).with_name("fork_server.py")
FORKS = sys.platform == "linux"
"""Whether a process may go on in Python after a fork; macOS' own libraries forbid it."""


class Process(Protocol):
    """What a sandbox asks of its process."""

    pid: int

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the signal that ended it."""

    def kill(self) -> None:
        """End it at once, if it has not ended."""

    def close(self) -> None:
        """Close its standard input; called once it has ended."""


class NewProcess:
    """A process of an interpreter that has imported nothing."""

    def __init__(self, python: str, environment: Mapping[str, str], directory: Path, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and bootstrap
            [python, "-P", str(_BOOTSTRAP)],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: its end tells the sandbox that the stack is gone
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at the terminal is the stack's to handle
        )
        self.pid = self._process.pid

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the signal that ended it."""
        return self._process.wait()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """Close its standard input; called once it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class Fork:
    """A process that a fork server made."""

    def __init__(self, report: int, stdin: int) -> None:
        self._report = os.fdopen(report, "rb")
        self._stdin = stdin
        self._guard = threading.Lock()
        self._ended = False
        self.pid = int(self._report.readline() or 0)
        if not self.pid:
            self._report.close()
            os.close(stdin)
            raise OSError("the fork server made no process, or has ended")

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the signal that ended it."""
        line = self._report.readline()
        if not line:  # nobody learns any more how it ends
            self.kill()
        with self._guard:
            self._ended = True
        self._report.close()
        return int(line or -signal.SIGKILL)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        with self._guard, contextlib.suppress(OSError):
            if not self._ended:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close its standard input; called once it has ended."""
        os.close(self._stdin)


class ForkServer:
    """Makes sandboxes of `python` that find packages of third parties imported (fork_server.py)."""

    def __init__(self, python: str, log_dir: Path) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._guard = threading.Lock()
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "PYTHONUNBUFFERED": "1",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",  # as `captions.cold_start` has it
        }
        with other, (log_dir / "fork-server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [python, "-P", str(_FORK_SERVER)],
                stdin=other.fileno(),
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def fork(self, environment: Mapping[str, str], directory: Path, log: IO[bytes]) -> Fork:
        """Make a process that runs the bootstrap. Raises OSError if the server cannot, or has ended."""
        request = {"environment": environment, "directory": str(directory), "program": str(_BOOTSTRAP)}
        (stdin, own_stdin), (report, others_report) = os.pipe(), os.pipe()
        try:
            with self._guard:
                socket.send_fds(self._control, [json.dumps(request).encode()], [stdin, log.fileno(), others_report])
        except OSError:
            for end in (own_stdin, report):
                os.close(end)
            raise
        finally:
            for end in (stdin, others_report):
                os.close(end)
        return Fork(report, own_stdin)

    def stop(self) -> None:
        """End it, and with it the forks that are left."""
        self._control.close()
        self._process.kill()
        self._process.wait()
