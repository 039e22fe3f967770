"""What moto gets wrong, put right, by service."""

from __future__ import annotations

from collections.abc import Callable, Collection

from captions_cli.local.aws.events import EventRouter
from captions_cli.local.aws.repairs.eventbridge import eventbridge_repairs
from captions_cli.local.aws.repairs.replacements import Repair, Replacements
from captions_cli.local.aws.repairs.s3 import s3_repairs
from captions_cli.local.aws.repairs.s3vectors import s3vectors_repairs
from captions_cli.local.aws.repairs.speed import SPEED
from captions_cli.local.aws.repairs.sqs import sqs_repairs
from captions_cli.local.aws.server import ServiceLocks


class MotoRepairs:
    """Holds the repairs in place between `install` and `remove`."""

    def __init__(self, locks: ServiceLocks, router: EventRouter) -> None:
        self._replace = Replacements()
        self.queue_changed: Callable[[], None] = lambda: None
        """Called whenever a message became receivable."""
        self.all: tuple[Repair, ...] = (
            *s3_repairs(router),
            *s3vectors_repairs(),
            *eventbridge_repairs(router),
            *sqs_repairs(locks, lambda: self.queue_changed()),
            *SPEED,
        )

    def install(self, *, without: Collection[str] = ()) -> None:
        """Put the repairs in place, but for those that are named."""
        for repair in self.all:
            if repair.name not in without:
                repair.put(self._replace)

    def remove(self) -> None:
        """Give moto its own functions back."""
        self._replace.undo()
