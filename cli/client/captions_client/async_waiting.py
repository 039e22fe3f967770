"""How `async_client` waits; `waiting` has the same for `client`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

Given = TypeVarTuple("Given")
Returned = TypeVar("Returned")

sleep = anyio.sleep


async def aside(work: Callable[[Unpack[Given]], Returned], *given: *Given) -> Returned:
    """Do what blocks, such as reading a file, in a thread."""
    return await anyio.to_thread.run_sync(work, *given)


def shielded() -> anyio.CancelScope:
    """Finish what stands in this block, though the task was cancelled."""
    return anyio.CancelScope(shield=True)
