"""A server of the local stack in a process of its own."""

from __future__ import annotations

import json
import select
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from captions_cli.local.errors import StackError

START_S = 60.0
STOP_S = 5.0


class ChildServer:
    """Serves until it is stopped, or this process ends: it prints its URL, then reads its input to the end.

    `what` it is stands in errors; `environment` is all that the process has.
    """

    def __init__(self, what: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path) -> None:
        self.url = ""
        self._what = what
        self._log_file = log_file
        self._log: IO[bytes] = log_file.open("ab")
        self._drain: threading.Thread | None = None
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
        )

    @property
    def process(self) -> int:
        """The id of its process."""
        return self._process.pid

    def wait(self) -> str:
        """Return its URL once it listens. Raises StackError if it does not."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if readable else b""
        try:
            self.url = str(json.loads(line)["url"])
        except (ValueError, KeyError) as error:
            log = self._log_file.read_text(errors="replace")[-2000:]
            raise StackError(f"{self._what} does not start: {log or 'it says nothing'}") from error
        self._drain = threading.Thread(target=self._keep_output, name=f"log of {self._what}", daemon=True)
        self._drain.start()
        return self.url

    def _keep_output(self) -> None:
        """Add what it prints to its log: it stands still once a pipe is full that nobody reads."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.write(line)
            self._log.flush()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._drain is not None:
            self._drain.join(timeout=STOP_S)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()
