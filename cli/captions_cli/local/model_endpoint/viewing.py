"""Getting media described off the event loop: pictures in threads, sound and film in worker processes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from captions_cli.local.model_endpoint import whisper
from captions_cli.local.model_endpoint.description import Describer, Description
from captions_cli.local.model_endpoint.hearing import Listeners
from captions_cli.local.model_endpoint.wire import MediaKind

# Decoding and numpy release the interpreter's lock for most of their time; more threads than cores only wait.
_PICTURE_THREADS = 2


class Viewer:
    """Describes media. Everything it needs (threads, processes, imaging libraries, models) is made at the first use.

    `eyes`: small models look at pictures, which are measured otherwise, and Whisper listens where it is installed.
    """

    def __init__(self, *, eyes: bool, max_image_pixels: int, max_audio_s: float, speech_workers: int) -> None:
        self._eyes = eyes
        self._describer: Describer | None = None
        self._loading = threading.Lock()
        self._max_image_pixels = max_image_pixels
        ear = whisper.NAME if eyes and whisper.installed() else Listeners.ENGLISH
        self._listeners = Listeners(workers=speech_workers, max_audio_s=max_audio_s, ear=ear)
        self._threads: ThreadPoolExecutor | None = None

    def warm(self) -> None:
        """Begin to load the models that pictures will need, so that the first one does not wait for all of it."""
        if self._eyes:
            threading.Thread(target=self._loaded, name="load-eyes", daemon=True).start()

    async def describe(self, kind: MediaKind, data: bytes) -> Description:
        """Return the description of one picture, sound or film.

        Raises:
            MediaError: the bytes are not media of this kind, are broken, or are too large or long.
        """
        if kind == "image":
            return await self._seen(data)
        from captions_cli.local.model_endpoint import recounting

        if kind == "audio":
            answer = await self._listeners.ask("a", data)
            return recounting.sound(answer["heard"])
        answer = await self._listeners.ask("v", data)
        return recounting.film(answer["seen"], answer["heard"])

    async def close(self) -> None:
        """End the threads and processes."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        await self._listeners.close()

    async def _seen(self, data: bytes) -> Description:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_PICTURE_THREADS, thread_name_prefix="describe")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._look, data)

    def _look(self, data: bytes) -> Description:
        return self._loaded().describe(data, self._max_image_pixels)

    def _loaded(self) -> Describer:
        with self._loading:
            if self._describer is None:
                self._describer = _describer(self._eyes)
            return self._describer


def _describer(eyes: bool) -> Describer:
    if eyes:
        from captions_cli.local.model_endpoint.eyes.sight import Sight

        return Sight()
    from captions_cli.local.model_endpoint import pixels

    return pixels.Pixels()
