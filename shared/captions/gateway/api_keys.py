"""The endpoints' keys: fetched when needed, cached, fetched again, once, when an endpoint rejects one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from captions.endpoint_secret import parse_secret
from captions.gateway.errors import AccountProblem

Keys = Callable[[bool], Mapping[str, str] | str]
"""Returns the key of every endpoint, or a mapping from base URL (or "default") to key. True asks for a fresh one.
It may block; it is called in a thread."""

CACHED_S = 300.0
_REFRESHED_AT_MOST_EVERY_S = 10.0

NO_KEY = "none"
"""What is sent where no key is set: servers of one's own ignore it, and the header must hold something."""


class KeyRing:
    """The keys as they were last fetched."""

    def __init__(self, keys: Keys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = keys
        self._clock = clock
        self._keys: Mapping[str, str] | None = None
        self._fetched_at = float("-inf")
        self._forced = False
        self._fetching: asyncio.Task[Mapping[str, str]] | None = None
        self._fetching_forced = False

    async def key(self, base_url: str) -> str:
        """Return the endpoint's key.

        Raises:
            AccountProblem: no key was ever fetched, and fetching one failed.
        """
        keys = self._keys
        if keys is None or self._clock() - self._fetched_at > CACHED_S:
            keys = await self._fetched(force=False)
        return _for(base_url, keys)

    async def own(self, base_url: str) -> bool:
        """Whether this very endpoint has a key; raises AccountProblem as `key` does."""
        await self.key(base_url)
        return base_url in (self._keys or {})

    async def renewed(self, base_url: str, rejected: str) -> str | None:
        """Return another key than the one that was rejected, or None if there is none.

        Calls that are rejected together fetch once.
        """
        if self._keys is not None and _for(base_url, self._keys) != rejected:
            return _for(base_url, self._keys)
        if self._clock() - self._fetched_at < _REFRESHED_AT_MOST_EVERY_S and self._forced:
            return None
        key = _for(base_url, await self._fetched(force=True))
        return key if key != rejected else None

    async def _fetched(self, *, force: bool) -> Mapping[str, str]:
        loop = asyncio.get_running_loop()
        task = self._fetching
        under_way = task is not None and not task.done() and task.get_loop() is loop
        if task is None or not under_way or (force and not self._fetching_forced):
            task = self._fetching = loop.create_task(self._fetch_now(force))
            self._fetching_forced = force
        # Shielded: the fetch serves other calls too, and must not die with the one that began it.
        return await asyncio.shield(task)

    async def _fetch_now(self, force: bool) -> Mapping[str, str]:
        try:
            fetched = await asyncio.to_thread(self._fetch, force)
        except Exception as error:
            # Whatever the secret's client raises. An old key is better than none; its text may be in the error's.
            if self._keys is None:
                raise AccountProblem(f"the endpoint's key cannot be read ({type(error).__name__})") from None
            self._fetched_at = self._clock() - CACHED_S + _REFRESHED_AT_MOST_EVERY_S
            return self._keys
        self._keys = (
            parse_secret(fetched)
            if isinstance(fetched, str)
            else {url.rstrip("/"): key for url, key in fetched.items()}
        )
        self._fetched_at = self._clock()
        self._forced = force
        return self._keys


def _for(base_url: str, keys: Mapping[str, str]) -> str:
    return keys.get(base_url, keys.get("default", "")) or NO_KEY
