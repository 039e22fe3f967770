"""The process that decodes: reads requests, runs FFmpeg within limits, replies. See `captions.media.decoder`."""

from __future__ import annotations

import io
import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

# All that decoding uses is loaded before a limit is set.
import av  # noqa: F401
import numpy as np  # noqa: F401
from PIL import Image, JpegImagePlugin  # noqa: F401

from captions.media import decoding
from captions.media.errors import MediaError
from captions.media.recordings import Encoding, Part

_PAGE = resource.getpagesize()
_FILES = 32
_CPU_SLACK_S = 10.0
"""Beyond the processor time that the decoder keeps account of itself, between two frames."""
Reply = tuple[dict[str, Any], bytes]
_TOO_MUCH = {"code": "bomb", "message": "decoding the recording takes more memory than is allowed"}


class MediaFile(io.FileIO):
    """A file in which one can seek as far as a damaged header says, as in memory: it ends there all the same."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place in the file, at most to its end."""
        return super().seek(min(offset, os.fstat(self.fileno()).st_size) if whence == os.SEEK_SET else offset, whence)


class Served:
    """One file, and the parts of it that are being handed out."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._parts: Iterator[Part] = iter(())
        self._wanted = True
        self._nearly_full = 0

    def filled_memory(self) -> bool:
        """Tell whether the memory was nearly full: decoders that get no more of it often say only that they failed."""
        if not self._nearly_full:
            return False
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))
        return peak * 1024 > self._nearly_full

    def reply(self, request: dict[str, Any]) -> Reply:
        """Answer one request; raises what decoding raises."""
        asked = request.pop("request")
        if asked == "part":
            self._wanted = request["wanted"]
            return self._part()
        self._nearly_full = _limit(request.pop("memory"), request.get("work_s", _CPU_SLACK_S))
        request["until"] = time.monotonic() + request.pop("left_s") if request.get("left_s") is not None else math.inf
        handlers: dict[str, Callable[..., Reply]]
        handlers = {
            "facts": self._facts,
            "heard_alike": self._heard_alike,
            "key_frames": self._key_frames,
            "cut": self._cut,
        }
        return handlers[asked](**request)

    def _facts(self, *, until: float) -> Reply:
        return asdict(decoding.facts(self._file)), b""

    def _heard_alike(self, **limits: Any) -> Reply:
        return {"alike": decoding.heard_alike(self._file, **limits)}, b""

    def _key_frames(self, **limits: Any) -> Reply:
        frames = decoding.key_frames(self._file, **limits)
        described = [{**asdict(frame), "data": len(frame.data)} for frame in frames]
        return {"frames": described}, b"".join(frame.data for frame in frames)

    def _cut(self, encoding: dict[str, Any], **limits: Any) -> Reply:
        self._parts = decoding.cut(self._file, Encoding(**encoding), wanted=lambda index: self._wanted, **limits)
        return {}, b""

    def _part(self) -> Reply:
        part = next(self._parts, None)
        if part is None:
            return {"part": None}, b""
        return {"part": {**asdict(part), "data": None if part.data is None else len(part.data)}}, part.data or b""


def _limit(memory: int, cpu_s: float) -> int:
    """Let this process take `memory` bytes more than it has, and `cpu_s` more seconds of processor time.

    Returns the bytes of addresses of which it is nearly full, 0 where memory is not bounded (elsewhere than on Linux).
    """
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + cpu_s + _CPU_SLACK_S))
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    taken = int(statm.read_bytes().split()[0]) * _PAGE
    _lower(resource.RLIMIT_AS, taken + memory)
    return taken + memory * 3 // 4


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _first_to_go() -> None:
    """Have the kernel choose this process, and not its parent, should memory run out all the same (proc(5))."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def _read(requests: SimpleQueue[bytes]) -> None:
    """Hand on what is asked. Its end is the parent's: nobody waits for what is being decoded."""
    with os.fdopen(0, "rb", closefd=False) as lines:
        while line := lines.readline():
            requests.put(line)
    os._exit(0)


def main() -> None:
    """Serve the file whose descriptor is the first argument until the input ends."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints is no reply

    def send(fields: dict[str, Any], data: bytes = b"") -> None:
        for piece in (json.dumps({**fields, "bytes": len(data)}).encode() + b"\n", data):
            rest = memoryview(piece)
            while rest:
                rest = rest[replies.write(rest) :]

    requests: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read, args=(requests,), daemon=True).start()
    _first_to_go()
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _FILES)
    served = Served(MediaFile(int(sys.argv[1])))
    send({"ready": True})
    os.dup2(nowhere, 2)
    while True:
        request = json.loads(requests.get())
        try:
            fields, data = served.reply(request)
        except MemoryError:
            fields, data = {"failed": _TOO_MUCH}, b""
        except MediaError as error:
            failure = {"code": error.code, "message": error.message}
            fields, data = {"failed": _TOO_MUCH if error.code == "broken" and served.filled_memory() else failure}, b""
        except TimeoutError:
            fields, data = {"late": True}, b""
        except Exception:
            fields, data = {"fault": traceback.format_exc()[-2_000:]}, b""
        send(fields, data)


if __name__ == "__main__":
    main()
