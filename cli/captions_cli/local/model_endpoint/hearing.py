"""A small pool of the processes that decode sound and film; see `listening` for what they do."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from typing import Any

from captions_cli.local.model_endpoint.description import UnreadableMediaError

_WORKER = "captions_cli.local.model_endpoint.listening"
# A worker that needs longer than this, beyond the time the sound itself plays, hangs.
_GRACE_S = 60.0


class Listeners:
    """At most `workers` processes, each started when there is work for it and ended by `close`."""

    ENGLISH = "pocketsphinx"

    def __init__(self, *, workers: int, max_audio_s: float, ear: str = ENGLISH) -> None:
        self._ear = ear
        self._max_audio_s = max_audio_s
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._turns = asyncio.Semaphore(workers)

    async def ask(self, kind: str, data: bytes) -> dict[str, Any]:
        """Return what a worker made of the media; `kind` is `a` for sound, `v` for film.

        Raises:
            MediaError: the media was refused, or the worker crashed or hung on it.
        """
        async with self._turns:
            process = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await asyncio.wait_for(_exchange(process, kind, data), self._max_audio_s + _GRACE_S)
            except TimeoutError:
                await self._end(process)
                raise UnreadableMediaError("invalid_media", "The media could not be decoded in time.") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._end(process)
                message = "The media could not be decoded: the process that decodes it ended."
                raise UnreadableMediaError("invalid_media", message) from None
            except BaseException:
                await self._end(process)
                raise
            self._idle.append(process)
        if "refused" in answer:
            raise UnreadableMediaError(*answer["refused"])
        return answer

    async def close(self) -> None:
        """End all processes."""
        for process in list(self._all):
            await self._end(process)
        self._idle.clear()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _WORKER,
            str(self._max_audio_s),
            self._ear,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._all.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._all.discard(process)
        if process.returncode is None:
            try:
                process.kill()
            except ProcessLookupError:
                return
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, kind: str, data: bytes) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(kind.encode() + len(data).to_bytes(7, "big"))
    process.stdin.write(data)
    await process.stdin.drain()
    (length,) = struct.unpack(">I", await process.stdout.readexactly(4))
    answer: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
    return answer
