"""What a local stack is started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

WORKERS_PER_CORE = 4  # workers mostly wait: for models, and for the AWS stand-in
MINIMUM_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model endpoint: a child process that is started with `arguments`, unless `url` names a real one."""

    url: str | None = None
    key: str | None = None
    latency_scale: float = 0.1
    """Of the catalogue's latencies, what the child process takes."""
    arguments: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The processes that functions run in."""

    python: str = sys.executable
    maximum: int | None = None
    """Processes at the same time; None goes by the machine's cores."""
    warm: int = 1
    """Started before there is work, of each function that reads a queue; with 0 all start cold, as new processes."""
    visibility_s: int | None = None
    """The visibility timeout of all queues that functions read, instead of their own: what a killed worker held comes
    back after so many seconds. It must stay longer than a batch takes."""
    clock_skew_s: float = 0.0
    """By how much the clock of each worker is wrong at the most, fast or slow."""
    schedules: bool = True

    @property
    def most(self) -> int:
        """How many processes may run at the same time."""
        return self.maximum or max(MINIMUM_WORKERS, WORKERS_PER_CORE * (os.cpu_count() or 1))


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the AWS APIs listen; port 0 is any free one."""

    bind: str = "127.0.0.1"
    port: int = 0
