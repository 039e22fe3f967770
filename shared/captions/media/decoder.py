"""A process of its own for FFmpeg: a file made to crash the decoder or to fill its memory ends that process alone.

One process serves one job. The file reaches it as an open file without a name, so that it is in memory once; requests
come as lines of JSON on its input. To each it gives one reply: a line of JSON that says how many bytes follow, and
those. It sets its own limits of memory and processor time (setrlimit(2)) before each request, and ends when its input
does, so that it outlives neither its job nor its parent. Of the environment it gets only what starting Python takes:
no credentials.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from captions.media.errors import MediaError
from captions.once import once

CHILD = "captions.media.decoder_child"
MAX_HEADER = 65_536
"""Bytes of a line of JSON, either way."""
START_S = 60.0
"""Seconds a process has to start; it takes a quarter of one, and longer on a machine that is busy."""
_GRACE_S = 1.0
"""The child looks at the time itself. So much later it is stopped, should it be inside of FFmpeg."""
_ASKED_TO_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
Reply = tuple[dict[str, Any], bytes]
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "TZ")
_SETTINGS = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Threads and arenas take room of addresses, which is what the limit of memory counts."""


class DecoderStopped(RuntimeError):
    """The process did not start, or was asked to stop from outside: it says nothing of the file; try again later."""


class DecoderKilled(Exception):
    """The process was killed (SIGKILL): by the system, for the memory of this file or of another, or by a person."""


class DecoderProcess:
    """A running decoder of one file. Used by one thread at a time; `close` it, or use it in a `with` statement."""

    def __init__(self, data: bytes) -> None:
        self._ready = False
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this object
        try:
            self._file.write(data)
            self._file.flush()
            self._start()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does, and reap it."""
        self._end()
        self._file.close()

    def restart(self) -> None:
        """Begin again with a fresh process for the same file."""
        self._end()
        self._start()

    def ask(
        self, request: Mapping[str, Any], *, most: int = 0, until: float = math.inf
    ) -> tuple[dict[str, Any], bytes]:
        """Return the reply to a request: its fields, and the bytes that follow them.

        Args:
            request: its fields, as JSON takes them.
            most: bytes that may follow.
            until: a value of time.monotonic() after which the process is stopped.

        Raises:
            MediaError: what the decoder says of the file; `bomb` also where the file ended the process.
            TimeoutError: `until` has passed.
            DecoderKilled: somebody else ended the process.
            DecoderStopped: the process did not start, or was asked to stop.
        """
        try:
            if not self._ready:
                self._ready = bool(self._reply(0, min(until, time.monotonic() + START_S))[0]["ready"])
            self._send(request)
            return self._reply(most, until + _GRACE_S)
        except TimeoutError:
            self._end()
            raise
        except (EOFError, BrokenPipeError):
            raise self._verdict() from None
        except (ValueError, KeyError, TypeError):
            self._end()
            raise MediaError("bomb", "decoding the file makes the decoder answer nonsense") from None

    def _start(self) -> None:
        self._ready = False
        self._rest = b""
        self._file.seek(0)
        self._process = subprocess.Popen(  # noqa: S603  this very Python
            [sys.executable, "-P", "-m", CHILD, str(self._file.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_environment(),
            pass_fds=(self._file.fileno(),),
            start_new_session=True,  # what stops this process's group would else look like a fault of the file
        )

    def _end(self) -> int:
        """Kill and reap the process; return how it ended."""
        process = self._process
        with suppress(ProcessLookupError):
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return process.wait()

    def _verdict(self) -> Exception:
        """Return what the end of the process says of the file."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)  # its pipes close a moment before it ends
        code = self._end()
        _log("decoder_ended", code=code, ready=self._ready)
        if not self._ready or -code in _ASKED_TO_STOP:
            return DecoderStopped(f"the decoder's process ended with {_named(code)}")
        if code == -signal.SIGKILL:
            return DecoderKilled()
        if code == -signal.SIGXCPU:
            return MediaError("bomb", "decoding the file takes more processor time than is allowed")
        return MediaError("bomb", f"decoding the file crashes the decoder ({_named(code)})")

    def _send(self, request: Mapping[str, Any]) -> None:
        line = json.dumps(request).encode() + b"\n"
        assert self._process.stdin is not None
        assert len(line) <= MAX_HEADER
        self._process.stdin.write(line)

    def _reply(self, most: int, until: float) -> Reply:
        line = self._line(until)
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise TypeError("a reply is an object")
        size = reply["bytes"]
        if not 0 <= size <= most:
            raise ValueError("more bytes than were asked for")
        pieces = [self._rest[:size]]
        self._rest, missing = self._rest[size:], size - len(pieces[0])
        while missing:
            pieces.append(self._read(missing, until))
            missing -= len(pieces[-1])
        if (failed := reply.get("failed")) is not None:
            raise MediaError(failed["code"], failed["message"])
        if (fault := reply.get("fault")) is not None:
            _log("decoder_fault", fault=fault)
            raise MediaError("broken", "the recording cannot be decoded")
        if reply.get("late"):
            raise TimeoutError("the time for decoding the recording is over")
        return reply, b"".join(pieces)

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._rest:
            if len(self._rest) > MAX_HEADER:
                raise ValueError("a line without an end")
            self._rest += self._read(MAX_HEADER, until)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _read(self, most: int, until: float) -> bytes:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        left_s = until - time.monotonic()
        if left_s <= 0 or not poll.poll(None if math.isinf(left_s) else left_s * 1_000):
            raise TimeoutError("the time for decoding the recording is over")
        data = self._process.stdout.read(min(most, 1 << 20))
        if not data:
            raise EOFError
        return data


def _log(event: str, **fields: Any) -> None:
    from captions import telemetry  # the child imports this module, and starts faster without it

    telemetry.logger().warning(event, **fields)


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    passed_on["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return passed_on | _SETTINGS | _bytecode()


def _bytecode() -> dict[str, str]:
    folder = os.environ.get("PYTHONPYCACHEPREFIX") or _bytecode_folder()
    return {"PYTHONPYCACHEPREFIX": folder} if folder else {}


@once
def _bytecode_folder() -> str | None:
    """Return where compiled modules are kept, where they cannot be beside their sources.

    Lambda's layers are read-only and hold none: each process would compile NumPy and the rest again.
    """
    return None if os.access(os.path.dirname(__file__), os.W_OK) else tempfile.mkdtemp(prefix="bytecode-")


def _named(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
