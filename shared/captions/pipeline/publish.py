"""Ends a claim: gives everyone who waits for a leader's end the same one, and tells the event bus.

Everything here follows an end that is already stored, and can be repeated from the record as often as need be.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from captions import telemetry
from captions.completion_events import Notifier
from captions.near_duplicates import Neighbours
from captions.near_duplicates.exemplar import Asked, Outcome
from captions.queues import Queues, Revisit
from captions.records.attempts import paid
from captions.records.record import ClaimRef, Ended, Provenance, Record
from captions.records.table import Records
from captions.uploads.version import ObjectVersion

TELLERS = 16
"""Followers completed at the same time; an outage can gather thousands of copies behind one leader."""


@dataclass
class HandOver:
    """What ending a claim takes."""

    records: Records
    neighbours: Neighbours
    queues: Queues
    notifier: Notifier
    uploads_queue_url: str
    now: Callable[[], float] = time.time

    def settle(self, claim: ClaimRef, record: Record, asked: Asked) -> None:
        """Do all that follows an upload's stored end: share it, then tell the event bus."""
        self.share(claim, record, asked)
        self.notifier.ended([record])

    def share(self, claim: ClaimRef, record: Record, asked: Asked) -> None:
        """End the claim of a record and give everyone who waits for it the same end.

        `asked` is what the claim was made for; an answer to anything else is not shared.
        """
        outcome = Outcome.of(record, asked)
        followers = self.neighbours.settle(
            claim.id, claim.generation, "READY" if outcome else "DEAD", outcome.stored() if outcome else None
        )
        with ThreadPoolExecutor(TELLERS) as tellers:
            list(tellers.map(lambda follower: self._tell(claim, record, outcome, follower), followers))
        if outcome is not None:
            self._forget_if_deleted(claim, record.asset)

    def pass_on(self, claim: ClaimRef, upload: ObjectVersion) -> None:
        """Free the claim of an upload that is no longer there to be captioned; one of its followers is to lead."""
        for follower in self.neighbours.settle(claim.id, claim.generation, "DEAD"):
            if follower != upload:
                self._lead_anew(follower)
            self.neighbours.dismiss(claim.id, follower)
        # An earlier delivery may have died when it had just shared its answer.
        self._forget_if_deleted(claim, upload.asset)

    def _forget_if_deleted(self, claim: ClaimRef, asset: str) -> None:
        """Take the answer of an object out of the index that was deleted when there was no exemplar yet to forget."""
        current = self.records.get(asset)
        if current is not None and current.state == "deleted":
            self.neighbours.retire(claim.id, claim.generation)

    def _tell(self, claim: ClaimRef, leader: Record, outcome: Outcome | None, follower: ObjectVersion) -> None:
        state = _of_the_media(leader, outcome)
        if state is None:
            self._lead_anew(follower)
        else:
            self._end(follower, state, leader, outcome)
        self.neighbours.dismiss(claim.id, follower)

    def _end(self, follower: ObjectVersion, state: Ended, leader: Record, outcome: Outcome | None) -> None:
        before = self.records.get(follower.asset)
        # One that led before, and lost its claim, may have been paid for already.
        current = before if before is not None and before.sequencer == follower.sequencer else None
        attempts = current.attempts if current is not None else ()
        likeness = current.likeness if current is not None else None
        tried = Provenance(**paid(attempts)) if attempts else None
        ended = self.records.finish(
            follower,
            state,
            now=self.now(),
            source="cache" if outcome else None,
            result=outcome.result if outcome else None,
            provenance=outcome.copied(attempts, likeness) if outcome else tried,
            reason=None if outcome else leader.reason,
            kind=before.kind if before is not None else None,
            poster=outcome.poster if outcome else None,
        )
        if ended is not None and outcome is not None:
            telemetry.cache_hit("in_flight", outcome.spent)
        if ended is None:
            # Told before, perhaps by a delivery that died before the event was sent; or superseded since.
            now = self.records.get(follower.asset)
            ended = now if now and now.sequencer == follower.sequencer and now.terminal else None
        if ended is not None:
            self.notifier.ended([ended])

    def _lead_anew(self, follower: ObjectVersion) -> None:
        self.queues.send(self.uploads_queue_url, Revisit(upload=follower, reason="leader_lost"))


def _of_the_media(leader: Record, outcome: Outcome | None) -> Ended | None:
    """Return the end to share: one that says something of the media, rather than of the leader's own object."""
    if outcome is not None:
        return "captioned"
    return leader.state if leader.state in ("blocked", "failed") else None
