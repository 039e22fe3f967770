"""One delivery of a job to a worker: the lease it holds, the calls it paid for, and how far it has come."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from captions import telemetry
from captions.inference.candidate import Noted
from captions.queues import Job
from captions.records.attempts import CallLedger, named
from captions.records.record import Draft, Record
from captions.records.table import Records
from captions.tasks import Ask


@dataclass
class Delivery:
    """What the steps of a worker pass on, and the drafts (`inference.candidate.Drafts`) that it notes in the record."""

    job: Job
    record: Record
    """As it was when the lease was taken."""
    lease_until: float
    records: Records
    now: Callable[[], float]
    held: tuple[dict[str, Any], ...] = ()
    """The calls of this delivery that the record holds."""
    paid_ids: tuple[str, ...] = ()
    """Which calls it holds in all, as far as is known here."""
    _guard: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Parts of a recording end side by side: each write holds what those before it held."""

    def __post_init__(self) -> None:
        self.ledger = CallLedger(self.record.attempts)
        self.paid_ids = self.record.paid_ids

    @property
    def taken_over(self) -> tuple[dict[str, Any], ...]:
        """The calls of a delivery that crashed before it counted them."""
        draft = self.record.draft
        if draft is None or draft.sequencer != self.job.upload.sequencer:
            return ()
        return self.record.attempts[len(self.record.attempts) - draft.calls :]

    def before(self, ask: Ask) -> Noted:
        """Return what the delivery before this one noted for the same claim and ask."""
        draft = self.record.draft
        asked_as = (self.job.upload.sequencer, self.job.claim.id, ask.identity)
        if draft is None or (draft.sequencer, draft.claim, draft.identity) != asked_as:
            return Noted()
        return Noted.read(draft.answers, draft.asked, draft.refused)

    async def note(self, ask: Ask, so_far: Noted) -> bool:
        """Keep the answers and calls so far; False: another delivery has the lease now."""
        async with self._guard:
            return await self._write(ask.identity, so_far)

    async def hold(self) -> bool:
        """Keep the calls so far, if any cost something since; False: another delivery has the lease now."""
        async with self._guard:
            if all(call.get("cost") == "0" for call in self.ledger.made[len(self.held) :]):
                return True
            return await self._write("", Noted())

    async def _write(self, identity: str, so_far: Noted) -> bool:
        upload, made = self.job.upload, self.ledger.made
        draft = Draft(
            sequencer=upload.sequencer,
            claim=self.job.claim.id,
            identity=identity,
            calls=len(made),
            **so_far.values(),
        )
        kept = self.ledger.kept
        try:
            noted = await asyncio.to_thread(
                self.records.note, upload, self.lease_until, now=self.now(), attempts=kept, draft=draft
            )
        except (ClientError, BotoCoreError) as error:
            # The answer is here, and its end will be stored as always: only that nobody could take over from here.
            telemetry.logger().warning("draft_not_noted", asset=upload.asset, error=str(error))
            return True
        if noted:
            self.held, self.paid_ids = made, (named(upload.sequencer, kept),)
        return noted
