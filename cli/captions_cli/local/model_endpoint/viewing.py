"""What media show: fetched where they are a link, described once, and that off the event loop.

Pictures are looked at in threads, sound and film in worker processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import aiohttp

from captions_cli.local.model_endpoint import whisper
from captions_cli.local.model_endpoint.description import Describer, Description, UnreadableMediaError
from captions_cli.local.model_endpoint.hearing import Listeners
from captions_cli.local.model_endpoint.wire import ApiError, MediaKind, MediaPart

# Decoding and numpy release the interpreter's lock for most of their time; more threads than cores only wait.
_PICTURE_THREADS = 2
_CACHED_DESCRIPTIONS = 20_000
_FETCH_TIMEOUT_S = 15.0
_READING_CEILING = 64 * 1024 * 1024


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
            UnreadableMediaError: the bytes are not media of this kind, are broken, or are too large or long.
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


class MediaReader:
    """Descriptions of the media of calls, made by `viewer`; those behind links come from this machine or `hosts`."""

    def __init__(self, viewer: Viewer, hosts: Set[str] = frozenset()) -> None:
        self._viewer = viewer
        self._hosts = hosts
        self._descriptions: OrderedDict[tuple[str, str], asyncio.Task[Description]] = OrderedDict()
        self._fetching: aiohttp.ClientSession | None = None

    @property
    def described(self) -> int:
        """How many media are described, or being described."""
        return len(self._descriptions)

    def warm(self) -> None:
        """Begin to load what pictures will need."""
        self._viewer.warm()

    async def close(self) -> None:
        """Give up what is being described, and end threads and processes."""
        pending = [task for task in self._descriptions.values() if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._fetching is not None:
            await self._fetching.close()
        await self._viewer.close()

    async def describe(self, part: MediaPart) -> Description:
        """Return the part's description; the same bytes are looked at once, however many ask at the same time."""
        if part.data is not None:
            data, digest = part.data, part.sha256
        else:
            data = await self._fetch(part.url or "")
            digest = hashlib.sha256(data).hexdigest()
        key = (part.kind, digest)
        task = self._descriptions.get(key)
        if task is None:
            task = asyncio.ensure_future(self._viewer.describe(part.kind, data))
            self._descriptions[key] = task
            while len(self._descriptions) > _CACHED_DESCRIPTIONS:
                self._descriptions.popitem(last=False)
        try:
            # Shielded: a client that leaves must not take the others' description along.
            return await asyncio.shield(task)
        except UnreadableMediaError as refused:
            raise ApiError(400, refused.message, code=refused.code, param="messages") from None
        except BaseException:
            if task.done() and (task.cancelled() or task.exception() is not None):
                self._descriptions.pop(key, None)
            raise

    async def _fetch(self, url: str) -> bytes:
        split = urlsplit(url)
        host = split.hostname or ""
        if not _is_loopback(host) and host not in self._hosts:
            message = "Media is only fetched from this machine: the URL's host is not a loopback address."
            raise ApiError(400, message, code="invalid_media_url", param="messages")
        if self._fetching is None:
            timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
            self._fetching = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        try:
            async with self._fetching.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ApiError(400, f"Fetching the media gave HTTP {response.status}.", code="media_fetch_failed")
                data = await response.content.read(_READING_CEILING + 1)
                while len(data) <= _READING_CEILING and (more := await response.content.read(_READING_CEILING)):
                    data += more
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(400, "The media could not be fetched from its URL.", code="media_fetch_failed") from error
        if not data or len(data) > _READING_CEILING:
            raise ApiError(400, "The media behind the URL is empty or too large.", code="media_fetch_failed")
        return data


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
