"""The worker: captions one upload, hands the result to everyone who waits for it, and tells the event bus.

The order of its writes is what makes a second delivery harmless: the lease is taken before anything is paid, the result
is stored before anything else is done with it, and all that follows the stored result can be repeated from the record.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from captions import media, telemetry
from captions.completion_events import Notifier
from captions.config import policy
from captions.config.environment import WorkerSettings
from captions.config.policy import Policy
from captions.gateway import (
    AccountProblem,
    Attempt,
    BudgetSpent,
    CircuitsOpen,
    DeadlineExceeded,
    Gateway,
    GatewayError,
    Media,
    NoCapableModel,
    Refused,
    Unacceptable,
)
from captions.inference import asking, escalation
from captions.inference.escalation import Answered, Noted
from captions.inference.part_store import Forgetful, Progress, recording_id
from captions.inference.recording import Call, Recording, Spoilt
from captions.near_duplicates import Neighbours
from captions.pipeline.publish import Asked, HandOver
from captions.quality.calibration import Platt
from captions.queues import Job, Queues, Revisit, backoff
from captions.records.attempts import call_id, call_ids, kept, paid, paid_since
from captions.records.record import Draft, Ended, Provenance, Reason, Record, Result, fitted
from captions.records.table import Begun, Busy, Duplicate, Records, Superseded
from captions.routing import routes
from captions.routing.routes import Chains
from captions.tasks import Ask, Seen
from captions.timestamps import timestamp
from captions.uploads.s3_objects import GoneError, Objects, UnreadableError

STORING_SECONDS = 6.0
"""Kept back from the time a function has, for storing what a model answered."""
MIN_CALL_SECONDS = 5.0
"""With less time left than this for the model, a job is not started."""
DECODERS = 2
"""Pictures decoded at the same time in one sandbox; it is memory, not time, that sets this."""
BUSY_SECONDS = 5.0
"""After how long at least a second delivery looks again at an upload that is being captioned."""
UNUSABLE_DEFERRALS = 3
"""After how many deferrals in a row a job ends whose models all answer and none usably."""
UNUSABLE_BASE_SECONDS = 60.0
"""How long such a job waits at first: each try is paid for, and what makes all models talk nonsense at once is mostly a
fault on their way that passes in minutes."""
UNUSABLE = frozenset({"truncated", "empty", "unfit"})

_WAITS_FOR: Mapping[type[GatewayError], str] = {
    AccountProblem: "account_problem",
    BudgetSpent: "budget_spent",
    CircuitsOpen: "circuits_open",
    DeadlineExceeded: "out_of_time",
}

Ending = Literal["captioned", "settled", "deferred", "superseded", "rejected", "blocked", "failed", "deleted", "lost"]


class NotStartedError(Exception):
    """There was not enough time left to start the job; its message is to be delivered again."""


@dataclass
class _Drafts:
    """What one delivery notes in the record of its upload while it asks on, and what the one before it had noted."""

    records: Records
    job: Job
    record: Record
    lease_until: float
    now: Callable[[], float]
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    """This delivery's attempts that are to be held, by their ids."""
    noted: tuple[dict[str, Any], ...] = ()
    """Those that the record holds."""
    guard: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Parts of a recording end side by side: each write holds what those before it held."""

    def before(self, ask: Ask) -> Noted:
        draft = self.record.draft
        if draft is None or (draft.sequencer, draft.claim, draft.identity) != (
            self.job.upload.sequencer,
            self.job.claim.id,
            ask.identity,
        ):
            return Noted()
        try:
            answers = tuple(escalation.restored(one) for one in draft.answers)
        except (KeyError, ValidationError):
            return Noted()  # another version of the code wrote it
        return Noted(answers, frozenset(draft.asked), frozenset(draft.refused)) if answers else Noted()

    async def note(self, ask: Ask, so_far: Noted, made: Sequence[Attempt]) -> bool:
        return await self._write(
            made,
            Draft(
                sequencer=self.job.upload.sequencer,
                claim=self.job.claim.id,
                identity=ask.identity,
                asked=tuple(sorted(so_far.asked)),
                refused=tuple(sorted(so_far.refused)),
                answers=tuple(escalation.stored(one) for one in so_far.candidates),
            ),
        )

    async def paid(self, made: Sequence[Attempt]) -> bool:
        return await self._write(made, Draft(sequencer=self.job.upload.sequencer, claim=self.job.claim.id, identity=""))

    async def _write(self, made: Sequence[Attempt], draft: Draft) -> bool:
        async with self.guard:
            known = call_ids(self.record.attempts)
            calls = {call_id(call): call for call in (attempt.as_dict() for attempt in made)}
            self.made |= {name: call for name, call in calls.items() if name not in known}
            told = tuple(self.made.values())
            try:
                held = await asyncio.to_thread(
                    partial(
                        self.records.note,
                        self.job.upload,
                        self.lease_until,
                        now=self.now(),
                        attempts=kept((*self.record.attempts, *told)),
                        draft=draft.model_copy(update={"calls": len(told)}),
                    )
                )
            except (ClientError, BotoCoreError) as error:
                # The answer is here, and its end will be stored as always: only that nobody could take over from here.
                telemetry.logger().warning("draft_not_noted", asset=self.job.upload.asset, error=str(error))
                return True
            if held:
                self.noted = told
            return held


@dataclass
class Worker:
    """What the caption and transcribe functions work with."""

    settings: WorkerSettings
    records: Records
    objects: Objects
    neighbours: Neighbours
    queues: Queues
    notifier: Notifier
    gateway: Gateway
    now: Callable[[], float] = time.time
    policies: Callable[[], Policy] | None = None
    """The policy as it stands now; None: the packaged one with the settings' models, language and budgets."""
    calibrations: Callable[[Sequence[str], str, int], Mapping[tuple[str, str], Platt]] | None = None
    """What people made of these models' answers to a task, where enough were judged; None: nothing is known."""
    progress: Progress | None = None
    """Where the answered parts of recordings are kept; None: nowhere, and what fails begins anew."""

    def __post_init__(self) -> None:
        self._memory = asyncio.Semaphore(DECODERS)
        self._handover = HandOver(
            self.records, self.neighbours, self.queues, self.notifier, self.settings.uploads_queue_url, self.now
        )

    @property
    def policy(self) -> Policy:
        """The policy as it stands now."""
        if self.policies is not None:
            return self.policies()
        return policy.load(parameters=parameters(self.settings))

    async def run(self, job: Job, *, deadline: float) -> Ending:
        """Take one job as far as it goes before `deadline` (time.monotonic), and say how far that was.

        Raises NotStartedError, or whatever AWS raised, when the job's message is to be delivered again.
        """
        if deadline - time.monotonic() < STORING_SECONDS + MIN_CALL_SECONDS:
            raise NotStartedError(f"{deadline - time.monotonic():.1f} s are too few to start a job")
        lease_until = round(self.now() + (deadline - time.monotonic()) + STORING_SECONDS, 3)
        begun = await asyncio.to_thread(
            partial(self.records.begin, job.upload, now=self.now(), lease_until=lease_until)
        )
        match begun:
            case Superseded() | Duplicate(Record(state="deleted")):
                return await self._pass_on(job)
            case Duplicate(record):
                await self._settle(job, record)
                return "settled"
            case Busy(until):
                # The other delivery may yet fail, so this one looks again, at the latest when its lease is over. Half
                # of what is left each time makes seven rounds of a transcription's lease, and not sixty.
                left = max(1.0, until - self.now())
                await self._send_later(job, min(left, max(BUSY_SECONDS, left / 2)))
                return "deferred"
            case Begun(record):
                telemetry.observe("QueueAge", max(0.0, self.now() - job.queued_at) * 1000)
        renewed = max(lease_until, self._queue_lease())
        if not await asyncio.to_thread(self.neighbours.renew, job.claim.id, job.claim.generation, renewed, lease_until):
            # A twin took this upload for dead and leads now: find out what to do by going through dedupe again.
            due = self.now() + self.settings.sweep_after_seconds
            await self._release(job, lease_until, due=due, attempts=record.attempts)
            await self._revisit(job, "leader_lost")
            return "lost"
        try:
            item, data = await self._read(job)
        except GoneError:
            reason = Reason(code="gone", message="this version of the object was gone before it could be captioned")
            return await self._give_up(job, record, "deleted", reason)
        except UnreadableError as error:
            return await self._give_up(job, record, "failed", Reason(code=error.code, message=error.message))
        except media.MediaError as error:
            return await self._give_up(job, record, "rejected", Reason(code=error.code, message=error.message))
        return await self._call(job, record, item, data, lease_until, deadline - STORING_SECONDS)

    def _queue_lease(self) -> float:
        return self.now() + self.settings.queue_lease_seconds

    async def _call(
        self, job: Job, record: Record, item: Media, data: bytes, lease_until: float, deadline: float
    ) -> Ending:
        rules, ask, looks = self.policy, job.asked, job.looks
        chains = asking.chains(job.upload.key, job.kind, ask, looks, rules, job.arm)
        seen = asking.seen(job.kind, looks, item, rules)
        drafts = _Drafts(self.records, job, record, lease_until, self.now)
        if record.draft is not None and record.draft.sequencer == job.upload.sequencer:
            # Who noted these calls died before it could count them.
            telemetry.model_calls(job.task, record.attempts[len(record.attempts) - record.draft.calls :])
        try:
            answered = await self._answer(job, record, item, data, rules, chains, seen, deadline, drafts)
        except media.MediaError as error:
            paid = error if isinstance(error, Spoilt) else None
            reason = Reason(code=error.code, message=error.message)
            return await self._give_up(job, record, "rejected", reason, paid, drafts)
        except Refused as error:
            reason = Reason(code="refused", message="every model that could caption it refused to")
            return await self._give_up(job, record, "blocked", reason, error, drafts)
        except NoCapableModel as error:
            reason = Reason(code="no_capable_model", message=f"none of the configured models takes it: {error}")
            return await self._give_up(job, record, "failed", reason, error, drafts)
        except Unacceptable as error:
            reason = Reason(code="unacceptable", message=f"no model accepted the request: {error}")
            return await self._give_up(job, record, "failed", reason, error, drafts)
        except GatewayError as error:
            return await self._defer(job, record, error, lease_until, drafts)
        finally:
            await self.gateway.flush()
        try:
            return await self._store(job, record, answered, chains, drafts)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return await self._unstorable(job, record, answered, error)

    async def _unstorable(self, job: Job, record: Record, answered: Answered, error: ClientError) -> Ending:
        """End an upload whose answer the table does not take, now or at any later delivery: it is paid for once."""
        telemetry.logger().exception("answer_not_storable", asset=job.upload.asset)
        attempts = kept((*record.attempts, *(attempt.as_dict() for attempt in answered.attempts)))
        why = error.response["Error"].get("Message", "")[:200]
        ended = await asyncio.to_thread(
            partial(
                self.records.finish,
                job.upload,
                "failed",
                now=self.now(),
                reason=Reason(code="unstorable", message=f"the table does not take the answer: {why}"),
                provenance=Provenance(prompt_version=job.asked.version, **paid(attempts)),
                kind=job.kind,
                media_type=job.media_type,
            )
        )
        if ended is None:
            raise error  # the record holds its end: what was refused came after it
        await self._settle(job, ended)
        return "failed"

    async def _answer(
        self,
        job: Job,
        record: Record,
        item: Media,
        data: bytes,
        rules: Policy,
        chains: Chains,
        seen: Seen,
        deadline: float,
        drafts: _Drafts,
    ) -> Answered:
        """Ask the models, in one call or, about sound and video that none takes as it is, in several."""
        key = job.upload.key
        known: Mapping[tuple[str, str], Platt] = {}
        if self.calibrations is not None:
            models, least = (*chains.models, *chains.higher), rules.confidence.calibrated_from
            known = await asyncio.to_thread(self.calibrations, models, job.asked.task, least)
        call = Call(
            self.gateway,
            self.progress or Forgetful(),
            deadline,
            calibrations=known,
            request_id=job.claim.id,
            budget_scopes=routes.budget_scopes(job.upload, rules.budgets.prefixes),
            paid=record.attempts,
            drafts=drafts,
        )
        upload = Recording(recording_id(job.upload), item, data)
        return await asking.answer(call, key, job.kind, job.asked, upload, chains, seen, rules)

    async def _read(self, job: Job) -> tuple[Media, bytes]:
        async with self._memory:
            data = await asyncio.to_thread(self.objects.read, job.upload)
            return await asyncio.to_thread(self._media, job, data), data

    def _media(self, job: Job, data: bytes) -> Media:
        # In a bucket without versions a link could lead to what was uploaded since: such media are sent as data or not.
        link = partial(self.objects.link, job.upload) if job.upload.version_id is not None else None
        pixels = self.settings.max_image_pixels
        return asking.payload(job.kind, job.media_type, data, link=link, max_image_pixels=pixels)

    async def _store(self, job: Job, record: Record, answered: Answered, chains: Chains, drafts: _Drafts) -> Ending:
        ask, output, completion = job.asked, answered.output, answered.completion
        if job.prompt_version not in (None, ask.version):
            telemetry.count("PromptVersionsDiffer")  # dedupe's was another one: this answer is not shared
        made = [attempt.as_dict() for attempt in answered.attempts]
        telemetry.model_calls(job.task, made)  # they were made, whatever becomes of their answer
        attempts = kept((*record.attempts, *made))
        since = paid_since(attempts, record.recaption)
        provenance = Provenance(
            model=completion.model,
            reported_model=completion.reported_model,
            endpoint=completion.endpoint,
            prompt_version=ask.version,
            identity=ask.identity,
            # An answer to another prompt than the claim's is shared with nobody.
            shared_as=job.shared_as if job.prompt_version in (None, ask.version) else None,
            tier=chains.tier,
            category=job.looks.category if job.looks else None,
            experiment=chains.arm.experiment if chains.arm else None,
            arm=chains.arm.arm if chains.arm else None,
            score=round(answered.kept.score, 4),
            escalated=answered.escalated or None,
            answered_at=timestamp(self.now()),
            **paid(attempts),
            **(since.pair("answer_cost") if since is not None else {}),
            cost_source=completion.cost_source,
            latency_ms=answered.latency_ms,
        )
        result = fitted(
            Result(
                text=output.text,
                language=output.language,
                task=ask.task,
                style=ask.style,
                tags=output.tags,
                safety=output.safety,
                confidence=round(answered.confidence, 4),
                data=output.data | ({"note": job.note} if job.note else {}),
            )
        )
        ended = await asyncio.to_thread(
            partial(
                self.records.finish,
                job.upload,
                "captioned",
                now=self.now(),
                source="model",
                result=result,
                provenance=provenance,
                kind=job.kind,
                media_type=job.media_type,
                claim=job.claim,
            )
        )
        telemetry.count("Captioned")
        if answered.repaired:
            telemetry.count("Repaired")
        if ended is not None:
            await self._settle(job, ended)
            await self._forget(job)
            return "captioned"
        stored = await self._account(job, made, drafts)
        if stored is not None and stored.sequencer == job.upload.sequencer and stored.result is not None:
            # Another delivery stored its answer first.
            await self._settle(job, stored)
            return "settled"
        # The object was overwritten or deleted meanwhile. The caption is right for the picture it was made of.
        orphan = record.model_copy(
            update={
                "result": result,
                "source": "model",
                "suggestion": None,
                "provenance": provenance,
                "state": "captioned",
            }
        )
        await asyncio.to_thread(self._handover.share, job.claim, orphan, Asked.by(job))
        return "superseded"

    async def _forget(self, job: Job) -> None:
        """Drop the parts of a recording that has ended; should this not come about, they expire."""
        if self.progress is not None and job.kind in ("audio", "video"):
            await asyncio.to_thread(self.progress.forget, recording_id(job.upload))

    async def _account(self, job: Job, made: Sequence[dict[str, Any]], drafts: _Drafts | None) -> Record | None:
        """Account for calls that came to nothing, as their upload has ended or is another one; return its record.

        Those that the record holds, or held when it was replaced, are in its sums already.
        """
        stored = await asyncio.to_thread(self.records.get, job.upload.asset)
        noted: Sequence[Mapping[str, Any]] = drafts.noted if drafts is not None else ()
        if stored is not None and stored.sequencer == job.upload.sequencer:
            noted = (*stored.attempts, *(stored.provenance.attempts if stored.provenance else ()))
        held = call_ids(noted)
        late = [attempt for attempt in made if call_id(attempt) not in held]
        await asyncio.to_thread(self.records.add_superseded, job.upload.asset, late)
        return stored

    async def _settle(self, job: Job, record: Record) -> None:
        await asyncio.to_thread(self._handover.settle, job.claim, record, Asked.by(job))

    async def _give_up(
        self,
        job: Job,
        record: Record,
        state: Ended,
        reason: Reason,
        error: GatewayError | Spoilt | None = None,
        drafts: _Drafts | None = None,
    ) -> Ending:
        made = tuple(attempt.as_dict() for attempt in error.attempts) if error else ()
        telemetry.model_calls(job.task, made)
        attempts = kept((*record.attempts, *made))
        ended = await asyncio.to_thread(
            partial(
                self.records.finish,
                job.upload,
                state,
                now=self.now(),
                reason=reason,
                provenance=Provenance(prompt_version=job.asked.version, **paid(attempts)),
                kind=job.kind,
                media_type=job.media_type,
            )
        )
        if ended is None:
            if made:
                await self._account(job, made, drafts)
            return await self._pass_on(job)
        # As the record says, and its event: what could not be captioned once more keeps its caption.
        kept_it: dict[str, Any] = {"recaption": state} if ended.state != state else {}
        telemetry.logger().warning(
            "upload_ended", asset=job.upload.asset, state=ended.state, reason=reason.code, **kept_it
        )
        await self._settle(job, ended)
        if state not in ("failed", "blocked"):  # which may be redriven
            await self._forget(job)
        return state

    async def _pass_on(self, job: Job) -> Ending:
        await asyncio.to_thread(self._handover.pass_on, job.claim, job.upload)
        return "superseded"

    async def _defer(
        self, job: Job, record: Record, error: GatewayError, lease_until: float, drafts: _Drafts
    ) -> Ending:
        """Put a job back whose models all failed for now, or end it when it was tried for long enough."""
        # Parts of a recording that were answered are kept, and say nothing of those that were not.
        outcomes = {attempt.outcome for attempt in error.attempts} - {"ok"}
        unusable = bool(outcomes) and outcomes <= UNUSABLE
        if unusable and job.unusable >= UNUSABLE_DEFERRALS:
            # The models answer, and are paid, and always in the same useless way: more of it would cost the same.
            reason = Reason(code="unusable_answers", message=f"no model gives a whole answer: {error}")
            return await self._give_up(job, record, "failed", reason, error, drafts)
        spent_up = isinstance(error, BudgetSpent)
        if not spent_up and self.now() - job.queued_at >= self.settings.max_job_age_seconds:
            message = f"no model answered in {self.settings.max_job_age_seconds:.0f} s; last: {error}"
            return await self._give_up(job, record, "failed", Reason(code="gave_up", message=message), error, drafts)
        # A budget that is used up is no failure, and comes back: the time until then does not count.
        later = {
            "deferrals": job.deferrals + 1,
            "unusable": job.unusable + 1 if unusable else 0,
            **({"queued_at": self.now()} if spent_up else {}),
        }
        if unusable:
            delay = backoff(job.unusable, base=UNUSABLE_BASE_SECONDS)
        else:
            delay = backoff(job.deferrals, at_least=error.retry_after_s or 0.0)
        reason = Reason(code=_WAITS_FOR.get(type(error), "models_unavailable"), message=str(error))
        telemetry.count("Deferred")
        if isinstance(error, CircuitsOpen):
            telemetry.task_count("CircuitsOpenForTask", job.task)
        telemetry.logger().warning(
            "job_deferred", asset=job.upload.asset, reason=reason.code, error=str(error), delay=round(delay, 1)
        )
        made = [attempt.as_dict() for attempt in error.attempts]
        telemetry.model_calls(job.task, made)
        attempts = kept((*record.attempts, *made))
        lease = self._queue_lease() + delay
        if not await self._release(job, lease_until, due=lease, attempts=attempts, reason=reason) and made:
            await self._account(job, made, drafts)
        await asyncio.to_thread(self.neighbours.renew, job.claim.id, job.claim.generation, lease)
        await self._send_later(job.model_copy(update=later), delay)
        return "deferred"

    async def _release(
        self,
        job: Job,
        lease_until: float,
        *,
        due: float,
        attempts: Sequence[dict[str, Any]],
        reason: Reason | None = None,
    ) -> bool:
        return await asyncio.to_thread(
            partial(
                self.records.release,
                job.upload,
                lease_until,
                now=self.now(),
                due=due,
                attempts=attempts,
                reason=reason,
            )
        )

    async def _revisit(self, job: Job, reason: Literal["leader_lost"]) -> None:
        await asyncio.to_thread(
            self.queues.send, self.settings.uploads_queue_url, Revisit(upload=job.upload, reason=reason)
        )

    async def _send_later(self, job: Job, delay: float) -> None:
        """Queue the job anew instead of failing its message: a delay must never lead to a dead letter."""
        queue = routes.queue_url(job.kind, self.settings)
        await asyncio.to_thread(partial(self.queues.send, queue, job, delay=delay))


def parameters(settings: WorkerSettings) -> dict[str, Any]:
    """Return the template's parameters as a policy document."""
    return policy.from_parameters(
        language=settings.language,
        image_models=settings.image_models,
        audio_models=settings.audio_models,
        daily_budget_dollars=settings.daily_budget_dollars,
        prefix_budgets=settings.prefix_budgets,
    )
