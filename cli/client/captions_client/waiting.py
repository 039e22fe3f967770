"""How `client` waits; `async_waiting` has the same for `async_client`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar, TypeVarTuple, Unpack

Given = TypeVarTuple("Given")
Returned = TypeVar("Returned")

sleep = time.sleep
shielded = nullcontext


def aside(work: Callable[[Unpack[Given]], Returned], *given: *Given) -> Returned:
    """Do it here: whoever calls waits anyway."""
    return work(*given)
