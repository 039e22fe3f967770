"""Finds uploads that stopped on the way and puts them back on the uploads queue.

A worker that died, a job that went to a dead-letter queue, a follower whose leader is gone: each leaves a record that
is still pending when its time has come. Events that never became a record wait in the rule's dead-letter queue.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from captions import telemetry
from captions.jobs import Queues, Revisit
from captions.notify import Notifier
from captions.records import Provenance, Reason, Records, spent
from captions.settings import SweepSettings

MIN_SWEEPS = 3
"""How often an upload is put back, with no worker coming as far as its models, before its age ends it."""
LONGEST_REST_SECONDS = 3_600.0


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    revisited: int = 0
    failed: int = 0
    restored: int = 0


@dataclass
class Sweeper:
    """What the sweep function works with; `sqs` is a boto3 SQS client."""

    settings: SweepSettings
    records: Records
    queues: Queues
    notifier: Notifier
    sqs: Any
    now: Callable[[], float] = time.time

    def run(self, *, deadline: float) -> Swept:
        """Look at every upload that is due, until `deadline` (time.monotonic); the next sweep goes on from there."""
        restored = self._restore_events(deadline)
        revisited = failed = 0
        for record in self.records.due(self.now()):
            if time.monotonic() >= deadline:
                telemetry.count("SweepCutShort")
                break
            if record.terminal:
                continue  # the index lags behind the table
            now = self.now()
            age = now - _epoch(record.received_at)
            if age >= self.settings.max_job_age_seconds and record.sweeps >= MIN_SWEEPS:
                ended = self.records.finish(
                    record.upload,
                    "failed",
                    now=now,
                    reason=Reason(code="stalled", message=f"no end was reached in {age:.0f} s"),
                    provenance=Provenance(attempts=record.attempts, cost=spent(record.attempts)),
                )
                if ended is not None:
                    self.notifier.ended([ended])
                    failed += 1
                continue
            # Sent before it is counted: a crash in between sends it again, which is harmless.
            self.queues.send(self.settings.uploads_queue_url, Revisit(upload=record.upload, reason="sweep"))
            rest = min(LONGEST_REST_SECONDS, self.settings.queue_lease_seconds * 2.0**record.sweeps)
            self.records.postpone(record, due=now + rest)
            revisited += 1
        telemetry.count("Revisited", revisited)
        telemetry.count("Stalled", failed)
        return Swept(revisited, failed, restored)

    def _restore_events(self, deadline: float) -> int:
        """Move events that EventBridge could not deliver from the rule's dead-letter queue to the uploads queue."""
        queue = self.settings.rule_dead_letter_queue_url
        restored = 0
        while queue and time.monotonic() < deadline:
            messages = self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                break
            for message in messages:
                self.sqs.send_message(QueueUrl=self.settings.uploads_queue_url, MessageBody=message["Body"])
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                restored += 1
        return restored


def _epoch(timestamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(timestamp).timestamp()
