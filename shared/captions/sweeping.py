"""Finds uploads that stopped on the way and puts them back on the uploads queue, at last to be ended.

A worker that died, a job that went to a dead-letter queue, a follower whose leader is gone: each leaves a record that
is still pending when its time has come. Events that never became a record wait in the rule's dead-letter queue.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from captions import telemetry
from captions.jobs import Queues, Revisit
from captions.records import Records
from captions.settings import SweepSettings

MIN_SWEEPS = 3
"""How often an upload is put back, with no worker coming as far as its models, before its age ends it."""
LONGEST_REST_SECONDS = 3_600.0


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    revisited: int = 0
    ended: int = 0
    restored: int = 0


@dataclass
class Sweeper:
    """What the sweep function works with; `sqs` is a boto3 SQS client."""

    settings: SweepSettings
    records: Records
    queues: Queues
    sqs: Any
    now: Callable[[], float] = time.time

    def run(self, *, deadline: float) -> Swept:
        """Look at every upload that is due, until `deadline` (time.monotonic); the next sweep goes on from there."""
        restored = self._restore_events(deadline)
        revisited = ended = 0
        for record in self.records.due(self.now()):
            if time.monotonic() >= deadline:
                telemetry.count("SweepCutShort")
                break
            if record.terminal:
                continue  # the index lags behind the table
            now = self.now()
            age = now - datetime.fromisoformat(record.received_at).timestamp()
            stalled = age >= self.settings.max_job_age_seconds and record.sweeps >= MIN_SWEEPS
            # Sent before it is counted: a crash in between sends it again, which is harmless.
            self.queues.send(
                self.settings.uploads_queue_url,
                Revisit(upload=record.upload, reason="stalled" if stalled else "sweep"),
            )
            rest = min(LONGEST_REST_SECONDS, self.settings.queue_lease_seconds * 2.0**record.sweeps)
            self.records.postpone(record, due=now + rest)
            revisited, ended = revisited + (not stalled), ended + stalled
        telemetry.count("Revisited", revisited)
        return Swept(revisited, ended, restored)

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
