"""Decides what becomes of an upload before anything is paid for it.

The object is looked at, and rejected if it cannot be captioned. Then the upload is claimed: what is known is copied,
what is on its way is waited for, and what is new becomes a job.

Every step may be repeated, by a second delivery or after a crash: the record's sequencer, the claim's id and the
followers' keys come from the event itself, so that a repetition finds what the first try wrote.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from captions import media, telemetry
from captions.completion_events import Notifier
from captions.config import policy
from captions.config.environment import IntakeSettings
from captions.config.policy import Policy
from captions.fingerprint import HASH_VERSION, Fingerprint
from captions.near_duplicates import Claim, Contended, Follow, Hit, Lead, Neighbours, Splits
from captions.near_duplicates.exemplar import Outcome
from captions.near_duplicates.protocol import Decision, claim_id
from captions.near_duplicates.scope import scope_of
from captions.pipeline.looking import Looker, Subject
from captions.queues import LONGEST_REST_SECONDS, Job, Queues, Revisit, backoff
from captions.records.attempts import paid
from captions.records.record import BeforeVerdict, ClaimRef, Ended, Human, Likeness, Provenance, Reason, Record, Result
from captions.records.table import Records
from captions.routing import routes
from captions.uploads.s3_objects import Fetched, GoneError, Objects, ReplicaError, UnreadableError

MOST_RETIRED = 20
"""Exemplars with an outdated answer that one upload takes out of the index before it goes back to its queue."""

Ending = Literal[
    "ignored", "duplicate", "superseded", "rejected", "hit", "waiting", "queued", "contended", "deleted", "failed"
]


@dataclass
class Dedupe:
    """What it takes to decide about an upload."""

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
        self.looker = Looker(self.objects, self.settings)
        self.neighbours.evidence = self.looker.evidence
        self.neighbours.finer_evidence = self.looker.finer_evidence

    @property
    def policy(self) -> Policy:
        """The policy as it stands now."""
        if self.policies is not None:
            return self.policies()
        return policy.load(parameters=policy.from_parameters(language=self.settings.language))

    def _place(
        self,
        record: Record,
        until: float,
        revisit: Revisit | None = None,
        reading: Future[Fetched] | None = None,
    ) -> Ending:
        """Find out what the upload is, and who captions it."""
        rules = self.policy
        try:
            subject = self.looker.look(record.upload, rules, self.settings, until, reading)
        except GoneError:
            return self._gone(record)
        except ReplicaError:
            return self._rejected(record, "replica", "a replica of another bucket's object, which is captioned there")
        except UnreadableError as error:
            return self._unreadable(record, error)
        except media.MediaError as error:
            return self._rejected(record, error.code, error.message)
        kind, media_type = subject.media.kind, subject.media.media_type
        try:
            target = routes.route(
                record.upload.key, kind, rules, self.settings, metadata=subject.metadata, tags=subject.tags,
                looks=subject.looks, fingerprint=subject.fingerprint, description=subject.description,
            )  # fmt: skip
        except routes.UnroutableError as error:
            return self._rejected(record, error.code, error.message, subject)
        if target is None:
            message = f"{kind} ({media_type}) is not captioned by this version"
            return self._rejected(record, "unsupported_kind", message, subject)
        if (words := _words_about(record, subject.content)) is not None:
            # The very thing that a person described was uploaded again, as a sync of a folder does.
            return self._described(record, words, target, subject)
        match self._claim(record, subject, target, rules):
            case Hit(claim, likeness=likeness):
                return self._copied(record, claim, subject, likeness)
            case Follow() as follow:
                return self._waiting(record, follow, subject)
            case Lead(id_, generation):
                lane = self._lane(record, kind, rules)
                return self._queued(record, ClaimRef(id=id_, generation=generation), target, subject, lane)
            case Contended():
                return self._contended(record, revisit)

    def _claim(self, record: Record, subject: Subject, target: routes.Route, rules: Policy) -> Decision:
        """Ask the index who captions the upload, and note what the answer shows of the index."""
        fingerprint = subject.fingerprint
        if target.task.exact_only:
            fingerprint = Fingerprint(exact=fingerprint.exact)
        self.looker.evidence.remember(fingerprint)
        if record.recaption is not None and record.claim is not None:
            # Its answer is to be replaced; whoever copied it keeps it.
            self.neighbours.retire(record.claim.id, record.claim.generation)
        scope = scope_of(record.upload, target.shared_as, HASH_VERSION, self.settings)
        answer = self._find_or_claim(scope, record, fingerprint, rules)
        _log_decision(record, scope, fingerprint, answer)
        self.splits.uses(target.ask)
        if isinstance(answer, Hit):
            self.splits.met_twins(answer.claim, self.neighbours.twins(answer))
        return answer

    def _find_or_claim(self, scope: str, record: Record, fingerprint: Fingerprint, rules: Policy) -> Decision:
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

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def _copied(self, record: Record, exemplar: Claim, subject: Subject, likeness: Likeness | None) -> Ending:
        outcome = Outcome.read(exemplar.outcome or {})
        ended = self._end(
            record,
            "captioned",
            source="cache",
            result=outcome.result,
            provenance=outcome.copied(record.attempts, likeness),
            content=subject.content,
            poster=outcome.poster,
            **_kind_of(subject),
        )
        if ended:
            near = set(exemplar.exact).isdisjoint(subject.content)
            telemetry.cache_hit("near" if near else "exact", outcome.spent)
        return "hit"

    def _lane(self, record: Record, kind: str, rules: Policy) -> Literal["bulk"] | None:
        """Return whether its job is to be answered in a batch; what was said of this upload goes before the rule."""
        rule = rules.rule(record.key, kind)
        wanted = record.lane or (rule.lane if rule is not None else None)
        in_bulk = routes.queue_url(kind, self.settings, "bulk") == self.settings.bulk_queue_url
        return "bulk" if wanted == "bulk" and in_bulk else None

    def _waiting(self, record: Record, follow: Follow, subject: Subject) -> Ending:
        now, lease = self.now(), self.settings.queue_lease_seconds
        until = follow.claim.lease_until if follow.claim is not None else 0.0
        self._progress(
            record,
            "waiting",
            subject,
            # A leader in a batch may take a day: looking again and again would cost more than its caption.
            due=until if until > now + lease else now + lease / 2,
            claim=ClaimRef(id=follow.claim_id, generation=0),
            likeness=follow.likeness,
        )
        telemetry.count("InFlightTwin")
        return "waiting"

    def _queued(
        self,
        record: Record,
        claim: ClaimRef,
        target: routes.Route,
        subject: Subject,
        lane: Literal["bulk"] | None = None,
    ) -> Ending:
        now = self.now()
        job = Job(
            upload=record.upload,
            ask=target.ask,
            prompt_version=target.ask.version,
            shared_as=target.shared_as if target.shared_as != target.ask.identity else None,
            content=subject.content,
            looks=subject.looks,
            arm=target.arm,
            note=subject.media.note,
            since=record.recaption.at if record.recaption else None,
            claim=claim,
            lane=lane,
            queued_at=now,
            **_kind_of(subject),
        )
        # Sent before it is noted: a crash in between sends it twice, which the worker's lease makes harmless.
        self.queues.send(routes.queue_url(job.kind, self.settings, lane), job)
        self._progress(
            record,
            "queued",
            subject,
            # A long queue is no reason to queue it again and again: each sweep waits twice as long.
            due=now + min(LONGEST_REST_SECONDS, self.settings.queue_lease_seconds * 2.0**record.sweeps),
            claim=claim,
            lane=lane,
        )
        telemetry.count("CacheMiss")
        return "queued"

    def _progress(self, record: Record, state: Literal["queued", "waiting"], subject: Subject, **how: Any) -> None:
        """Note how far an upload has come, and what it is: that, too, where its worker or leader was faster."""
        what = {"content": subject.content, **_kind_of(subject)}
        if not self.records.progress(record.upload, state, now=self.now(), **what, **how):
            self.records.identify(record.upload, **what)

    def _contended(self, record: Record, revisit: Revisit | None) -> Ending:
        """Others did not decide in time: the upload goes through dedupe again."""
        attempt = revisit.attempt + 1 if revisit is not None and revisit.reason == "contention" else 0
        self.queues.send(
            self.settings.uploads_queue_url,
            Revisit(upload=record.upload, reason="contention", attempt=attempt),
            delay=backoff(attempt, base=2.0, cap=60.0),
        )
        return "contended"

    def _described(self, record: Record, words: Human, target: routes.Route, subject: Subject) -> Ending:
        others = [verdict for verdict in record.human.known() if verdict is not words] if record.human else []
        self._end(
            record,
            "captioned",
            source="human",
            result=Result(text=words.text, language=words.language, task=target.task.name),
            provenance=_paid(record),
            content=subject.content,
            human=Human(
                sequencer=record.sequencer,
                text=words.text,
                language=words.language,
                at=words.at,
                content=subject.content,
                # Words about other content under this name are in force again where that is uploaded again.
                before=BeforeVerdict(human=others[0].above(others[1:])) if others else None,
            ),
            **_kind_of(subject),
        )
        telemetry.count("HumanWordsKept")
        return "hit"

    def _rejected(self, record: Record, code: str, message: str, subject: Subject | None = None) -> Ending:
        reason = Reason(code=code, message=message)
        self._end(record, "rejected", provenance=_paid(record), reason=reason, **(_kind_of(subject) if subject else {}))
        telemetry.count("Rejected")
        return "rejected"

    def _unreadable(self, record: Record, error: UnreadableError) -> Ending:
        """End it as failed, not as rejected: its bytes may be all right, and a redrive or a restore opens it again."""
        reason = Reason(code=error.code, message=error.message)
        if self._end(record, "failed", provenance=_paid(record), reason=reason):
            telemetry.logger().warning("upload_unreadable", asset=record.asset, reason=error.code)
            telemetry.count("Unreadable")
        return "failed"

    def _gone(self, record: Record) -> Ending:
        reason = Reason(code="gone", message="this version of the object was gone before it could be read")
        self._end(record, "deleted", provenance=_paid(record), reason=reason)
        return "deleted"

    def _end(self, record: Record, state: Ended, **what: Any) -> bool:
        """Store an upload's end and publish it; False where it had ended, or was overwritten, meanwhile."""
        ended = self.records.finish(record.upload, state, now=self.now(), **what)
        if ended is not None:
            self.notifier.ended([ended])
        return ended is not None


def _kind_of(subject: Subject) -> dict[str, Any]:
    return {"kind": subject.media.kind, "media_type": subject.media.media_type}


def _words_about(record: Record, content: tuple[str, ...]) -> Human | None:
    """Return what a person wrote about an earlier version under this name that had the same content.

    It may be an earlier verdict than the last one, which was then about a version between.
    """
    if record.human is None or record.reviewed or record.recaption is not None:
        return None
    words = next((each for each in record.human.known() if not set(each.content).isdisjoint(content)), None)
    return words if words is not None and words.action == "edited" else None


def _log_decision(record: Record, scope: str, fingerprint: Fingerprint, answer: Decision) -> None:
    """Say under which claim and scope an upload was decided on: it tells two exemplars of one picture apart."""
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
