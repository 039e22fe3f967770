"""Finds uploads that stopped on the way and puts them back on the uploads queue, at last to be ended.

A worker that died, a job that went to a dead-letter queue, a follower whose leader is gone: each leaves a record that
is still pending when its time has come. Events that never became a record wait in the rule's dead-letter queue.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from captions import telemetry
from captions.config.function_environments import SweepSettings
from captions.control_table import ControlState
from captions.queues import LONGEST_REST_SECONDS, Queues, Revisit
from captions.records.record import SHARDS, Record
from captions.records.table import Records
from captions.telemetry import MetricUnit

MIN_TRIES = 3
"""How often an upload is put back, or begun by a worker that comes to nothing, before its age ends it."""


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
    control: Callable[[float], ControlState] | None = None
    """Reads what the control table tells at a moment."""
    quality: Callable[[float], int] | None = None
    """Flags what people edit too often, and returns how many cells are flagged."""

    def run(self, *, deadline: float) -> Swept:
        """Look at every upload that is due, until `deadline` (time.monotonic); the next sweep goes on from there.

        The shards take turns, so that none waits for the end of another. What keeps one of them, or the lost events,
        from being read is raised once the others had their turns.
        """
        problems: list[Exception] = []
        restored = revisited = ended = 0
        try:
            # However many events wait, there is time for the uploads.
            restored = self._restore_events((time.monotonic() + deadline) / 2)
        except Exception as error:
            problems.append(error)
        turns = self._turns(problems)
        oldest = max((self._age(head) for head, _ in turns), default=0.0)
        for record in _in_turns(turns, problems):
            if time.monotonic() >= deadline:
                telemetry.count("SweepCutShort")
                break
            oldest = max(oldest, self._age(record))
            stalled = self._stalled(record)
            try:
                self._put_back(record, "stalled" if stalled else "sweep")
            except Exception:
                # Whatever one record suffers from, those behind it must be looked at all the same.
                telemetry.logger().exception("not_put_back", asset=record.asset)
                telemetry.count("NotPutBack")
                continue
            revisited, ended = revisited + (not stalled), ended + stalled
        telemetry.count("Revisited", revisited)
        telemetry.gauge("OldestDueSeconds", oldest, MetricUnit.Seconds)
        telemetry.gauge("PendingUploads", self.records.pending_count())
        if self.control is not None:
            state = self.control(self.now())
            telemetry.gauge("Edited", state.edited)
            telemetry.gauge("Accepted", state.accepted)
            telemetry.gauge("OpenCircuits", state.open_circuits)
            if state.spent is not None:
                telemetry.gauge("SpentTodayDollars", float(state.spent), MetricUnit.NoUnit)
        if self.quality is not None:
            try:
                telemetry.gauge("FlaggedCells", self.quality(self.now()))
            except Exception as error:
                problems.append(error)
        if problems:
            raise ExceptionGroup("a part of the sweep could not be done", problems)
        return Swept(revisited, ended, restored)

    def _turns(self, problems: list[Exception]) -> list[tuple[Record, Iterator[Record]]]:
        """Each shard's longest overdue upload and those behind it, from a random shard on.

        A sweep that manages fewer uploads than there are shards would otherwise never come to the last ones.
        """
        turns: list[tuple[Record, Iterator[Record]]] = []
        for shard in random.sample(range(SHARDS), SHARDS):
            try:
                # What ended is there for as long as the index lags behind the table.
                due = (record for record in self.records.due(shard, self.now()) if not record.terminal)
                head = next(due, None)
            except Exception as error:
                problems.append(error)
                continue
            if head is not None:
                turns.append((head, due))
        return turns

    def _stalled(self, record: Record) -> bool:
        """Whether an upload was tried for long enough, and something breaks whoever tries it.

        One that merely stands on a long queue was begun by nobody, and is never given up; nor is a follower, as that
        is for its leader to decide.
        """
        if self._age(record) < self.settings.max_job_age_seconds:
            return False
        if record.state == "received":
            return record.sweeps >= MIN_TRIES
        return record.state == "queued" and record.begun >= MIN_TRIES

    def _age(self, record: Record) -> float:
        return self.now() - datetime.fromisoformat(record.received_at).timestamp()

    def _put_back(self, record: Record, reason: Literal["sweep", "stalled"]) -> None:
        revisit = Revisit(upload=record.upload, reason=reason, seen=record.updated_at)
        try:
            # Sent before it is counted: a crash in between sends it again, which is harmless.
            self.queues.send(self.settings.uploads_queue_url, revisit)
        except Exception:
            # It makes room for those behind it, and loses none of its tries to what may be the queue's fault.
            self.records.postpone(record, due=self.now() + self.settings.queue_lease_seconds, counted=False)
            raise
        rest = min(LONGEST_REST_SECONDS, self.settings.queue_lease_seconds * 2.0**record.sweeps)
        self.records.postpone(record, due=self.now() + rest)

    def _restore_events(self, deadline: float) -> int:
        """Move events that EventBridge could not deliver from the rule's dead-letter queue to the uploads queue."""
        queue = self.settings.rule_dead_letter_queue_url
        restored, refused = 0, list[Exception]()
        while queue and not refused and time.monotonic() < deadline:
            messages = self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            if not messages:
                break
            for message in messages:
                try:
                    self.sqs.send_message(QueueUrl=self.settings.uploads_queue_url, MessageBody=message["Body"])
                    self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                except Exception as error:  # those that came with it are moved all the same
                    refused.append(error)
                else:
                    restored += 1
        if refused:
            telemetry.count("NotPutBack", len(refused))
            if not restored:
                raise refused[0]
            telemetry.logger().error("events_not_restored", events=len(refused), error=str(refused[0]))
        return restored


def _in_turns(turns: list[tuple[Record, Iterator[Record]]], problems: list[Exception]) -> Iterator[Record]:
    """Yield one record of each shard, then the next of each, until all have ended or failed."""
    waiting = deque(turns)
    while waiting:
        head, behind = waiting.popleft()
        yield head
        try:
            head = next(behind)
        except StopIteration:
            continue
        except Exception as error:
            problems.append(error)
            continue
        waiting.append((head, behind))
