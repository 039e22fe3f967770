"""The endpoint in a thread of its own, for tests and for the process that runs the stack."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from captions.gateway.catalogue import Catalogue
from captions_cli.local.model_endpoint.faults import Fault
from captions_cli.local.model_endpoint.server import EndpointServer
from captions_cli.local.model_endpoint.serving import Options

_STARTING_TIMEOUT_S = 30.0


class LocalEndpoint:
    """A running endpoint: started on entering, stopped on leaving; several can run at once.

    Keyword arguments are those of `serving.Options` (`latency_scale`, `seed`, `keys`, `dialect`, ...).
    """

    def __init__(self, *, catalogue: Catalogue | None = None, **options: Any) -> None:
        if "keys" in options and options["keys"] is not None:
            options["keys"] = frozenset(options["keys"])
        self._endpoint = EndpointServer(Options(**options), catalogue)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the thread and return once the endpoint listens. Raises what kept it from listening."""
        self._thread = threading.Thread(target=self._run, name="local-endpoint", daemon=True)
        self._thread.start()
        if not self._ready.wait(_STARTING_TIMEOUT_S):
            raise TimeoutError("the local endpoint did not start")
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        """Stop listening, cut what is still open, and wait for the thread's end. Harmless when stopped already."""
        if self._thread is None:
            return
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:PORT/v1`."""
        return self._endpoint.url

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted since the start."""
        return self._endpoint.connections

    def requests(self) -> list[dict[str, Any]]:
        """Return the request log, oldest first."""
        return self._endpoint.witness.requests()

    def set_faults(self, faults: Iterable[Fault | Mapping[str, Any]]) -> None:
        """Replace all faults by these."""
        self._endpoint.faults.set(faults)

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are set, with how often each matched and fired."""
        return self._endpoint.faults.as_list()

    def stats(self) -> dict[str, Any]:
        """Return the counts `GET /_local/stats` gives."""
        return self._endpoint.stats()

    def clear(self) -> None:
        """Remove all faults and forget the request log."""
        self._endpoint.faults.clear()
        self._endpoint.witness.clear()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            await self._endpoint.start()
        except BaseException as error:  # handed to the thread that waits in start()
            self._failure = error
            return
        finally:
            self._ready.set()
        await self._stopping.wait()
        await self._endpoint.stop()
