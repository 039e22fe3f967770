"""Takes the messages of the uploads queue: uploads, deletions, restored objects, and uploads to be looked at again."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from captions import telemetry
from captions.fingerprint import HASH_VERSION
from captions.near_duplicates import Claim
from captions.near_duplicates.exemplar import Asked, Outcome
from captions.near_duplicates.protocol import claim_id
from captions.near_duplicates.scope import scope_of
from captions.pipeline.dedupe import Dedupe, Ending
from captions.pipeline.publish import HandOver
from captions.queues import Revisit
from captions.records.record import Reason, Record
from captions.records.table import Accepted, Duplicate, Superseded
from captions.uploads.s3_objects import UnreadableError
from captions.uploads.version import Deletion, Ignored, ObjectVersion, Restored, Upload


class Intake(Dedupe):
    """What the dedupe function works with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._handover = HandOver(
            self.records, self.neighbours, self.queues, self.notifier, self.settings.uploads_queue_url, self.now
        )
        self.neighbours.consult = self._stored_end

    def handle(self, message: Upload | Deletion | Restored | Ignored | Revisit, *, until: float = math.inf) -> Ending:
        """Take one message of the uploads queue as far as it goes now, and say how far that was.

        `until` is a value of time.monotonic() by which it is to be done. Raises NotStartedError where too little time
        was left before it was decoded, or whatever AWS raised, when the message is to be delivered again.
        """
        match message:
            case Ignored():
                return "ignored"
            case Deletion():
                return self._deleted(message, until)
            case Restored():
                return self._restored(message, until)
            case Revisit():
                return self._revisited(message, until)
            case Upload():
                return self._uploaded(message, until)

    def _uploaded(self, upload: ObjectVersion, until: float) -> Ending:
        now = self.now()
        reading = self.looker.read_ahead(upload, self.settings)  # while the record is written
        lane = upload.lane if isinstance(upload, Upload) else None
        match self.records.accept(upload, now=now, due=now + self.settings.sweep_after_seconds, lane=lane):
            case Superseded():
                return "superseded"
            case Duplicate(record) if record.terminal:
                return self._publish_again(record)
            case Duplicate(record) if record.state != "received":
                return "duplicate"
            case Accepted(record) | Duplicate(record):
                return self._place(record, until, reading=reading)

    def _publish_again(self, record: Record) -> Ending:
        """Publish how an upload ended once more: an earlier delivery may have died before it did."""
        self.notifier.ended([record])
        return "duplicate"

    def _revisited(self, revisit: Revisit, until: float) -> Ending:
        record = self.records.get(revisit.upload.asset)
        if record is None and revisit.reason == "recaption":
            # An object from before the pipeline was there; should its event come after all, it is the later one.
            return self._uploaded(revisit.upload, until)
        if record is None or record.sequencer != revisit.upload.sequencer:
            return "superseded"
        as_seen = revisit.seen == record.updated_at
        if revisit.reason == "redrive" and record.state in ("failed", "blocked") and as_seen:
            now = self.now()
            record = self.records.reopen(record, now=now, due=now + self.settings.sweep_after_seconds) or record
        if revisit.reason == "recaption" and record.state == "captioned" and as_seen:
            now = self.now()
            mode: Literal["stale", "force"] = "force" if revisit.mode == "force" else "stale"
            due = now + self.settings.sweep_after_seconds
            record = self.records.recaption(record, mode, now=now, due=due) or record
            telemetry.count("Recaptioned")
        if record.terminal:
            return self._publish_again(record)
        if revisit.reason == "stalled":
            return self._stalled(record) if as_seen else "duplicate"
        return self._place(record, until, revisit)

    def _restored(self, restored: Restored, until: float) -> Ending:
        """Caption what could not be read while it was archived; what ended otherwise, or is on its way, stays so."""
        record = self.records.get(restored.asset)
        if record is None or record.version_id != restored.version_id:
            return "superseded"
        if record.state == "failed" and record.reason is not None and record.reason.code == "archived":
            now = self.now()
            record = self.records.reopen(record, now=now, due=now + self.settings.sweep_after_seconds) or record
        return self._place(record, until) if record.state == "received" else "duplicate"

    def _stalled(self, record: Record) -> Ending:
        """End an upload that got nowhere for too long, and everyone who waits for it."""
        message = f"no end was reached since {record.received_at}; {record.begun} workers began and came to nothing"
        reason = record.reason or Reason(code="stalled", message=message)
        ended = self.records.end_stalled(record, now=self.now(), reason=reason)
        if ended is None:
            return "duplicate"
        telemetry.count("Stalled")
        if ended.claim is not None and ended.claim.generation > 0:
            # What it still has from before is no answer to what its followers wait for.
            self._handover.settle(ended.claim, ended, Asked(identity=""))
        else:
            self.notifier.ended([ended])
        return "failed"

    def _deleted(self, deletion: Deletion, until: float) -> Ending:
        record = self.records.get(deletion.asset)
        if record is not None and record.sequencer == deletion.sequencer and record.state == "deleted":
            self._forget(record)
            return self._publish_again(record)
        if record is None or record.sequencer < deletion.sequencer:
            # What was removed may have been an older version, or a delete marker: S3 sends no other event when an
            # object comes to light again.
            try:
                current = self.objects.current(deletion.bucket, deletion.key)
            except UnreadableError:
                # Something may be there, and could not be captioned. Only what the record is about is known to be gone.
                if deletion.permanent and record is not None and record.version_id != deletion.version_id:
                    return "duplicate"
                current = None
            if current is not None:
                if record is None or (record.state != "deleted" and record.version_id == current.version_id):
                    return "duplicate"
                return self._uploaded(current.model_copy(update={"sequencer": deletion.sequencer}), until)
        deleted = self.records.delete(deletion, now=self.now())
        if deleted is None:
            return "duplicate"
        self._forget(deleted)
        self.notifier.ended([deleted])
        return "deleted"

    def _forget(self, deleted: Record) -> None:
        """Take what is known of a deleted picture out of the index; copies that have its caption are uploads of their
        own and keep it. The next copy is captioned again.
        """
        if deleted.source in ("model", "human") and deleted.claim is not None:
            self.neighbours.retire(deleted.claim.id, deleted.claim.generation)

    def _stored_end(self, claim: Claim) -> Mapping[str, Any] | None:
        """Return what a leader was captioned with whose worker died before it published that."""
        record = self.records.get(claim.upload.asset)
        if record is None or record.sequencer != claim.upload.sequencer or record.state != "captioned":
            return None
        provenance = record.provenance
        if provenance is None or provenance.identity is None:
            return None  # of a version that did not write down what it asked
        identity = provenance.identity
        scope = scope_of(claim.upload, provenance.shared_as or identity, HASH_VERSION, self.settings)
        if claim_id(scope, claim.upload) != claim.id:
            return None  # what the claim is for is not what it was captioned with
        outcome = Outcome.of(record, Asked(identity=identity))
        return outcome.stored() if outcome else None
