"""Dedupe: decides what becomes of an upload before anything is paid for it.

Every step may be repeated, by a second delivery or after a crash: the record's sequencer, the claim's id and the
followers' keys come from the event itself, so that a repetition finds what the first try wrote.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import TIMEOUT_MAX, BoundedSemaphore
from typing import Any, Literal

from captions import media, telemetry
from captions.completion_events import Notifier
from captions.config import policy
from captions.config.environment import IntakeSettings
from captions.config.policy import Policy
from captions.fingerprint import HASH_VERSION, Fingerprint, fingerprint_audio, fingerprint_image
from captions.near_duplicates import Claim, Contended, Follow, Hit, Lead, Neighbours, Splits
from captions.near_duplicates import Outcome as Answer
from captions.near_duplicates.evidence import ObjectEvidence
from captions.near_duplicates.protocol import claim_id
from captions.picture_class import Looks, classify
from captions.pipeline.publish import Asked, HandOver, Outcome
from captions.pipeline.sweep import LONGEST_REST_SECONDS
from captions.queues import Job, Queues, Revisit, backoff
from captions.records.attempts import paid
from captions.records.record import ClaimRef, Human, Provenance, Reason, Record, Result
from captions.records.table import Accepted, Duplicate, Records, Superseded
from captions.routing import routes
from captions.uploads.s3_objects import Fetched, GoneError, Objects, ReplicaError, UnreadableError
from captions.uploads.version import Deletion, Ignored, ObjectVersion, Restored, Upload

DECODERS = 3
"""Media decoded at the same time in one sandbox, only one of them large; it is memory, not time, that sets this."""
SNIFFED_BYTES = 65_536
"""How much of an object too large to be read whole is looked at to say what it is."""

LEAST_SECONDS = 20.0
"""With less time left, an upload is not started: reading, decoding and claiming it may take that long."""
FREE_WITHIN_SECONDS = 20.0
"""How long an upload that was decoded waits for a decoder once more, to compare itself with another picture."""
MOST_RETIRED = 20
"""Exemplars with an outdated answer that one upload takes out of the index before it goes back to its queue."""

Ending = Literal[
    "ignored", "duplicate", "superseded", "rejected", "hit", "waiting", "queued", "contended", "deleted", "failed"
]


class NotStartedError(Exception):
    """There was not enough time left to start on the message; it is to be delivered again."""


@dataclass
class Intake:
    """What the dedupe function works with."""

    settings: IntakeSettings
    records: Records
    objects: Objects
    neighbours: Neighbours
    queues: Queues
    notifier: Notifier
    splits: Splits
    now: Callable[[], float] = time.time
    policies: Callable[[], Policy] | None = None
    """The policy as it stands now; None: the packaged one with the settings' language."""

    def __post_init__(self) -> None:
        self._decoders, self._one_large = BoundedSemaphore(DECODERS), BoundedSemaphore(1)
        self._handover = HandOver(
            self.records, self.neighbours, self.queues, self.notifier, self.settings.uploads_queue_url, self.now
        )
        self._evidence = ObjectEvidence(
            self.objects, _limits(self.settings), lambda: _soon(self._decoders), lambda: _soon(self._one_large)
        )
        self.neighbours.consult, self.neighbours.evidence = self._stored_end, self._evidence

    @property
    def policy(self) -> Policy:
        """The policy as it stands now."""
        if self.policies is not None:
            return self.policies()
        return policy.load(parameters=policy.from_parameters(language=self.settings.language))

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
        match self.records.accept(upload, now=now, due=now + self.settings.sweep_after_seconds):
            case Superseded():
                return "superseded"
            case Duplicate(record) if record.terminal:
                return self._told_again(record)
            case Duplicate(record) if record.state != "received":
                return "duplicate"
            case Accepted(record) | Duplicate(record):
                return self._place(record, until)

    def _told_again(self, record: Record) -> Ending:
        """Tell how an upload ended once more: an earlier delivery may have died before it did."""
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
            return self._told_again(record)
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
            return self._told_again(record)
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
        own and keep it. The next copy is captioned anew."""
        if deleted.source in ("model", "human") and deleted.claim is not None:
            self.neighbours.retire(deleted.claim.id, deleted.claim.generation)

    def _stored_end(self, claim: Claim) -> Mapping[str, Any] | None:
        """Answer what a leader was captioned with whose worker died before it told anybody."""
        record = self.records.get(claim.upload.asset)
        if record is None or record.sequencer != claim.upload.sequencer or record.state != "captioned":
            return None
        provenance = record.provenance
        if provenance is None or provenance.identity is None:
            return None  # of a version that did not write down what it asked
        identity = provenance.identity
        scope = routes.scope(claim.upload, provenance.shared_as or identity, HASH_VERSION, self.settings)
        if claim_id(scope, claim.upload) != claim.id:
            return None  # what the claim is for is not what it was captioned with
        outcome = Outcome.of(record, Asked(identity=identity))
        return outcome.stored() if outcome else None

    def _place(self, record: Record, until: float, revisit: Revisit | None = None) -> Ending:
        """Find out what the upload is, and who captions it."""
        upload, rules = record.upload, self.policy
        try:
            with _held(self._decoders, until):
                found, fingerprint, looks, said = self._look(upload, rules, until)
            tags = self.objects.tags(upload) if said.tag_count and "tags" in rules.overrides else {}
        except GoneError:
            return self._gone(record)
        except ReplicaError:
            return self._rejected(record, "replica", "a replica of another bucket's object, which is captioned there")
        except UnreadableError as error:
            return self._unreadable(record, error)
        except media.MediaError as error:
            return self._rejected(record, error.code, error.message)
        try:
            target = routes.route(
                upload.key, found.kind, rules, self.settings, metadata=said.metadata, tags=tags, looks=looks,
                fingerprint=fingerprint,
            )  # fmt: skip
        except routes.UnroutableError as error:
            return self._rejected(record, error.code, error.message, kind=found.kind, media_type=found.media_type)
        if target is None:
            return self._rejected(
                record,
                "unsupported_kind",
                f"{found.kind} ({found.media_type}) is not captioned by this version",
                kind=found.kind,
                media_type=found.media_type,
            )
        content = fingerprint.exact
        if (words := _words_about(record, content)) is not None:
            # The very thing that a person described was uploaded again, as a sync of a folder does.
            return self._spoken(record, words, target.task.name, content, found)
        if target.task.exact_only:
            fingerprint = Fingerprint(exact=fingerprint.exact)
        self._evidence.remember(fingerprint)
        if record.recaption is not None and record.claim is not None:
            # Its answer is to be replaced; whoever copied it keeps it.
            self.neighbours.retire(record.claim.id, record.claim.generation)
        scope = routes.scope(upload, target.shared_as, HASH_VERSION, self.settings)
        answer = self._claim(scope, record, fingerprint, rules)
        _log_decision(record, scope, fingerprint, answer)
        self.splits.uses(target.ask)
        if isinstance(answer, Hit):
            self.splits.met_twins(answer.claim, self.neighbours.twins(answer))
        now = self.now()
        match answer:
            case Hit(claim):
                match_kind = "near" if set(claim.exact).isdisjoint(fingerprint.exact) else "exact"
                outcome = Outcome.read(claim.outcome or {})
                return self._hit(record, outcome, match_kind, found.kind, found.media_type, content)
            case Follow(claim_id):
                self.records.progress(
                    upload,
                    "waiting",
                    now=now,
                    due=now + self.settings.queue_lease_seconds / 2,
                    kind=found.kind,
                    media_type=found.media_type,
                    claim=ClaimRef(id=claim_id, generation=0),
                    content=content,
                )
                telemetry.count("InFlightTwin")
                return "waiting"
            case Lead(claim_id, generation):
                job = Job(
                    upload=upload,
                    kind=found.kind,
                    media_type=found.media_type,
                    ask=target.ask,
                    prompt_version=target.ask.version,
                    shared_as=target.shared_as if target.shared_as != target.ask.identity else None,
                    looks=looks,
                    arm=target.arm,
                    note=found.note,
                    since=record.recaption.at if record.recaption else None,
                    claim=ClaimRef(id=claim_id, generation=generation),
                    queued_at=now,
                )
                # Sent before it is noted: a crash in between sends it twice, which the worker's lease makes harmless.
                self.queues.send(target.queue_url, job)
                self.records.progress(
                    upload,
                    "queued",
                    now=now,
                    # A long queue is no reason to queue it again and again: each sweep waits twice as long.
                    due=now + min(LONGEST_REST_SECONDS, self.settings.queue_lease_seconds * 2.0**record.sweeps),
                    kind=found.kind,
                    media_type=found.media_type,
                    claim=job.claim,
                    content=content,
                )
                telemetry.count("CacheMiss")
                return "queued"
            case Contended():
                attempt = revisit.attempt + 1 if revisit is not None and revisit.reason == "contention" else 0
                self.queues.send(
                    self.settings.uploads_queue_url,
                    Revisit(upload=upload, reason="contention", attempt=attempt),
                    delay=backoff(attempt, base=2.0, cap=60.0),
                )
                return "contended"

    def _claim(self, scope: str, record: Record, fingerprint: Fingerprint, rules: Policy) -> Answer:
        """Claim the upload; where it is to be captioned once more, answers that are outdated leave the index first."""
        for _ in range(MOST_RETIRED):
            answer = self.neighbours.find_or_claim(scope, record.upload, fingerprint)
            if record.recaption is None or not isinstance(answer, Hit):
                return answer
            outcome = Outcome.read(answer.claim.outcome or {})
            outdated = (outcome.at or "") < record.recaption.at
            if record.recaption.mode == "stale":
                # One of the same scope has today's prompt, so that its model alone can make it stale.
                current = {model for tier in rules.tiers.values() for model in tier.models}
                outdated = outdated and rules.recaption.model and outcome.model not in current
            if not outdated:
                return answer
            self.neighbours.retire(answer.claim.id, answer.claim.generation)
        return Contended()

    def _look(
        self, upload: ObjectVersion, rules: Policy, until: float
    ) -> tuple[media.Sniffed, Fingerprint, Looks | None, Fetched]:
        """Read and decode the object; raises MediaError for what will never be captioned."""
        limits = _limits(self.settings)
        replicas = self.settings.replica_handling == "caption"
        nothing = Fingerprint(exact=(), phash=None, evidence=None)
        if upload.size > max(limits.image_bytes, limits.audio_bytes, limits.video_bytes):
            said = self.objects.fetch(upload, first=SNIFFED_BYTES, replicas=replicas)
            try:
                found = media.sniff(said.data)
            except media.MediaError as error:
                raise media.MediaError("too_large", f"{upload.size} bytes are more than any kind may have") from error
            if routes.captioned_at_all(found.kind, rules):
                raise media.MediaError("too_large", f"{upload.size} bytes of {found.media_type} are too many")
            return found, nothing, None, said
        said = self.objects.fetch(upload, replicas=replicas)
        inspected = media.inspect(said.data, limits, one_large=_held(self._one_large, until))
        if not routes.captioned_at_all(inspected.kind, rules):
            return inspected, nothing, None, said
        if inspected.kind in ("audio", "video"):
            return inspected, fingerprint_audio(said.data), None, said
        looks = classify(inspected.picture) if inspected.picture is not None else None
        return inspected, fingerprint_image(inspected), looks, said

    def _spoken(
        self, record: Record, words: Human, task: str, content: tuple[str, ...], found: media.Sniffed
    ) -> Ending:
        ended = self.records.finish(
            record.upload,
            "captioned",
            now=self.now(),
            source="human",
            result=Result(text=words.text, language=words.language, task=task),
            provenance=_paid(record),
            kind=found.kind,
            media_type=found.media_type,
            content=content,
            human=Human(
                sequencer=record.sequencer, text=words.text, language=words.language, at=words.at, content=content
            ),
        )
        if ended is not None:
            self.notifier.ended([ended])
        telemetry.count("HumanWordsKept")
        return "hit"

    def _hit(
        self,
        record: Record,
        outcome: Outcome,
        match_kind: str,
        kind: str,
        media_type: str,
        content: tuple[str, ...],
    ) -> Ending:
        ended = self.records.finish(
            record.upload,
            "captioned",
            now=self.now(),
            source="cache",
            result=outcome.result,
            provenance=outcome.copied(record.attempts),
            kind=kind,
            media_type=media_type,
            content=content,
        )
        if ended is not None:
            telemetry.cache_hit(match_kind, outcome.spent)
            self.notifier.ended([ended])
        return "hit"

    def _rejected(
        self, record: Record, code: str, message: str, *, kind: str | None = None, media_type: str | None = None
    ) -> Ending:
        ended = self.records.finish(
            record.upload,
            "rejected",
            now=self.now(),
            provenance=_paid(record),
            reason=Reason(code=code, message=message),
            kind=kind,
            media_type=media_type,
        )
        if ended is not None:
            self.notifier.ended([ended])
        telemetry.count("Rejected")
        return "rejected"

    def _unreadable(self, record: Record, error: UnreadableError) -> Ending:
        """End it as failed, not as rejected: its bytes may be all right, and a redrive or a restore opens it again."""
        reason = Reason(code=error.code, message=error.message)
        ended = self.records.finish(record.upload, "failed", now=self.now(), provenance=_paid(record), reason=reason)
        if ended is not None:
            telemetry.logger().warning("upload_unreadable", asset=record.asset, reason=error.code)
            telemetry.count("Unreadable")
            self.notifier.ended([ended])
        return "failed"

    def _gone(self, record: Record) -> Ending:
        reason = Reason(code="gone", message="this version of the object was gone before it could be read")
        ended = self.records.finish(record.upload, "deleted", now=self.now(), provenance=_paid(record), reason=reason)
        if ended is not None:
            self.notifier.ended([ended])
        return "deleted"


@contextmanager
def _held(places: BoundedSemaphore, until: float) -> Iterator[None]:
    """Hold one of the places; raises NotStartedError as soon as too little time is left for what it is held for."""
    left_s = until - LEAST_SECONDS - time.monotonic()
    if left_s < 0 or not places.acquire(timeout=min(left_s, TIMEOUT_MAX)):
        raise NotStartedError("the time was over before a decoder was free")
    try:
        yield
    finally:
        places.release()


def _limits(settings: IntakeSettings) -> media.Limits:
    return media.Limits(
        image_bytes=settings.max_image_bytes,
        image_pixels=settings.max_image_pixels,
        audio_bytes=settings.max_audio_bytes,
        video_bytes=settings.max_video_bytes,
    )


def _soon(places: BoundedSemaphore) -> AbstractContextManager[None]:
    """Hold one of the places; raises NotStartedError where none gets free for longer than a decoding takes."""
    return _held(places, time.monotonic() + LEAST_SECONDS + FREE_WITHIN_SECONDS)


def _words_about(record: Record, content: tuple[str, ...]) -> Human | None:
    """Return what a person wrote about an earlier version under this name that had the same content."""
    words = record.human
    if words is None or words.action != "edited" or record.reviewed or record.recaption is not None:
        return None
    return words if not set(words.content).isdisjoint(content) else None


def _log_decision(record: Record, scope: str, fingerprint: Fingerprint, answer: Answer) -> None:
    """Say under which claim and scope an upload was decided on: two exemplars of one picture are told apart by it."""
    telemetry.logger().debug(
        "claim_decided",
        asset=record.asset,
        decision=type(answer).__name__,
        scope=scope,
        claim=claim_id(scope, record.upload),
        answered_by=answer.claim.id if isinstance(answer, Hit) else getattr(answer, "claim_id", None),
        phash=fingerprint.phash.hex() if fingerprint.phash is not None else None,
    )


def _paid(record: Record) -> Provenance | None:
    """What tries before this one cost stays with an upload that ends here; None where none was made."""
    if not record.attempts:
        return None
    return (record.provenance or Provenance()).model_copy(update=paid(record.attempts))
