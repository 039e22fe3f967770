"""The worker: captions one upload, hands the result to everyone who waits for it, and tells the event bus.

The order of its writes is what makes a second delivery harmless: the lease is taken before anything is paid, the result
is stored before anything else is done with it, and all that follows the stored result can be repeated from the record.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from botocore.exceptions import ClientError

from captions import media, telemetry
from captions.completion_events import Notifier
from captions.config import policy
from captions.config.function_environments import WorkerSettings
from captions.config.policy import Policy
from captions.gateway import (
    AccountProblem,
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
from captions.inference import asking
from captions.inference.escalation import Answered, Asking, Content
from captions.inference.part_store import Forgetful, Progress
from captions.near_duplicates import Neighbours
from captions.near_duplicates.exemplar import Asked
from captions.pipeline.delivery import Delivery
from captions.pipeline.publish import HandOver
from captions.quality.calibration import Platt
from captions.queues import Job, Queues, Revisit, backoff
from captions.records.attempts import paid, paid_since
from captions.records.record import Ended, Provenance, Reason, Record, Result, fitted
from captions.records.table import Begun, Busy, Duplicate, Records, Superseded
from captions.routing import routes
from captions.routing.routes import Chains
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

FINAL = (GoneError, UnreadableError, media.MediaError, Refused, NoCapableModel, Unacceptable)
_WAITS_FOR: Mapping[type[GatewayError], str] = {
    AccountProblem: "account_problem",
    BudgetSpent: "budget_spent",
    CircuitsOpen: "circuits_open",
    DeadlineExceeded: "out_of_time",
}

JobEnding = Literal[
    "captioned", "settled", "deferred", "superseded", "rejected", "blocked", "failed", "deleted", "lost"
]


class JobNotStartedError(Exception):
    """There was not enough time left to start the job; its message is to be delivered again."""


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
    """Where the answered parts of recordings are kept; None: nowhere, and what fails begins again."""

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

    async def run(self, job: Job, *, deadline: float) -> JobEnding:
        """Take one job as far as it goes before `deadline` (time.monotonic), and say how far that was.

        Raises JobNotStartedError, or whatever AWS raised, when the job's message is to be delivered again.
        """
        begun = await self.begin(job, deadline)
        if isinstance(begun, Busy):
            # The other delivery may yet fail, so this one looks again, at the latest when its lease is over. Half of
            # what is left each time makes seven rounds of a transcription's lease, and not sixty.
            left = max(1.0, begun.lease_until - self.now())
            await self.send_later(job, min(left, max(BUSY_SECONDS, left / 2)))
            return "deferred"
        if not isinstance(begun, Delivery):
            return begun
        if not await self.lead(begun):
            return "lost"
        try:
            item, data = await self.read(job)
            answered, chains = await self._ask(begun, item, data, deadline - STORING_SECONDS)
        except FINAL as error:
            return await self.give_up(begun, *ending_of(error))
        except GatewayError as error:
            return await self.defer(begun, error)
        return await self.store(begun, answered, chains)

    async def begin(self, job: Job, deadline: float) -> Delivery | Busy | JobEnding:
        """Take the lease on the upload, or say what became of it where there is nothing to do."""
        left = deadline - time.monotonic()
        if left < STORING_SECONDS + MIN_CALL_SECONDS:
            raise JobNotStartedError(f"{left:.1f} s are too few to start a job")
        lease_until = round(self.now() + left + STORING_SECONDS, 3)
        begun = await asyncio.to_thread(self.records.begin, job.upload, now=self.now(), lease_until=lease_until)
        match begun:
            case Superseded() | Duplicate(Record(state="deleted")):
                return await self.pass_on(job)
            case Duplicate(record):
                await self.settle(job, record)
                return "settled"
            case Busy():
                return begun
            case Begun(record):
                telemetry.observe("QueueAge", max(0.0, self.now() - job.queued_at) * 1000)
                return Delivery(job, record, lease_until, self.records, self.now)

    async def lead(self, delivery: Delivery, until: float | None = None) -> bool:
        """Renew the claim; False where a twin took this upload for dead and leads now.

        `until` is how long it must hold; None: for this delivery.
        """
        claim = delivery.job.claim
        at_least = until if until is not None else delivery.lease_until
        until = max(at_least, self._queue_lease())
        renew = self.neighbours.renew
        if await asyncio.to_thread(renew, claim.id, claim.generation, until, at_least):
            return True
        await self._release(delivery, due=self.now() + self.settings.sweep_after_seconds)
        # Dedupe finds out what is to be done now.
        revisit = Revisit(upload=delivery.job.upload, reason="leader_lost")
        await asyncio.to_thread(self.queues.send, self.settings.uploads_queue_url, revisit)
        return False

    async def read(self, job: Job) -> tuple[Media, bytes]:
        """Read the object, and make the copy of it that a model is sent."""
        # In a bucket without versions a link could lead to what was uploaded since: such media are sent as data or not.
        link = partial(self.objects.link, job.upload) if job.upload.version_id is not None else None
        pixels = self.settings.max_image_pixels
        async with self._memory:
            data = await asyncio.to_thread(self.objects.read, job.upload)
            item = await asyncio.to_thread(
                asking.payload, job.kind, job.media_type, data, link=link, max_image_pixels=pixels
            )
        return item, data

    async def _ask(self, delivery: Delivery, item: Media, data: bytes, deadline: float) -> tuple[Answered, Chains]:
        """Ask the models that the policy names, and return them with what they answered."""
        job, rules = delivery.job, self.policy
        chains = asking.chains(job.upload.key, job.kind, job.ask, job.looks, rules, job.arm)
        known = await self.calibrated(job, chains, rules)
        call = Asking(
            self.gateway,
            deadline,
            delivery.ledger,
            drafts=delivery,
            progress=self.progress or Forgetful(),
            calibrations=known,
            request_id=job.claim.id,
            budget_scopes=routes.budget_scopes(job.upload, rules.budgets.prefixes),
        )
        content = Content(job.upload.digest, item, data)
        seen = asking.seen(job.kind, job.looks, item, rules)
        telemetry.model_calls(job.ask.task, delivery.taken_over)
        try:
            answered = await asking.answer(call, job.upload.key, job.kind, job.ask, content, chains, seen, rules)
        except (GatewayError, media.MediaError):
            # After any other error, whoever takes over counts what was noted.
            telemetry.model_calls(job.ask.task, delivery.ledger.made)
            raise
        finally:
            await self.gateway.flush()
        telemetry.model_calls(job.ask.task, delivery.ledger.made)
        return answered, chains

    async def calibrated(self, job: Job, chains: Chains, rules: Policy) -> Mapping[tuple[str, str], Platt]:
        """Return what people made of these models' answers to the job's task."""
        if self.calibrations is None:
            return {}
        models, least = (*chains.models, *chains.higher), rules.confidence.calibrated_from
        return await asyncio.to_thread(self.calibrations, models, job.ask.task, least)

    async def store(self, delivery: Delivery, answered: Answered, chains: Chains) -> JobEnding:
        """Store the answer, then hand it to everyone who waits for it."""
        job = delivery.job
        result, provenance = _result(job, answered), self._provenance(delivery, answered, chains)
        try:
            ended = await asyncio.to_thread(
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
                content=job.content or (),
                poster=answered.poster,
                held=delivery.paid_ids,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            # The table would not take it at a later delivery either: it is paid for once.
            telemetry.logger().exception("answer_not_storable", asset=job.upload.asset)
            why = error.response["Error"].get("Message", "")[:200]
            reason = Reason(code="unstorable", message=f"the table does not take the answer: {why}")
            return await self.give_up(delivery, "failed", reason)
        telemetry.count("Captioned")
        if answered.repaired:
            telemetry.count("Repaired")
        if ended is not None:
            await self.settle(job, ended)
            await self._forget(job)
            return "captioned"
        stored = await self.account(delivery)
        if stored is not None and stored.sequencer == job.upload.sequencer and stored.result is not None:
            # Another delivery stored its answer first.
            await self.settle(job, stored)
            return "settled"
        # The object was overwritten or deleted meanwhile. The caption is right for the picture it was made of.
        orphan = {"result": result, "source": "model", "suggestion": None, "provenance": provenance}
        orphaned = delivery.record.model_copy(update={**orphan, "state": "captioned", "poster": answered.poster})
        await asyncio.to_thread(self._handover.share, job.claim, orphaned, Asked.by(job))
        return "superseded"

    def _provenance(self, delivery: Delivery, answered: Answered, chains: Chains) -> Provenance:
        job, completion = delivery.job, answered.completion
        same_prompt = job.prompt_version in (None, job.ask.version)
        if not same_prompt:
            telemetry.count("PromptVersionsDiffer")  # dedupe's was another one: this answer is not shared
        attempts = delivery.ledger.kept
        return Provenance(
            model=completion.model,
            reported_model=completion.reported_model,
            endpoint=completion.endpoint,
            prompt_version=job.ask.version,
            identity=job.ask.identity,
            shared_as=job.shared_as if same_prompt else None,
            tier=chains.tier,
            category=job.looks.category if job.looks else None,
            experiment=chains.arm.experiment if chains.arm else None,
            arm=chains.arm.arm if chains.arm else None,
            score=round(answered.kept.score, 4),
            escalated=answered.escalated or None,
            answered_at=timestamp(self.now()),
            **paid(attempts),
            **paid_since(attempts, delivery.record.recaption).pair("answer_cost"),
            cost_source=completion.cost_source,
            latency_ms=answered.latency_ms,
        )

    async def give_up(self, delivery: Delivery, state: Ended, reason: Reason) -> JobEnding:
        """End an upload without an answer, and everyone who waits for one."""
        job = delivery.job
        ended = await asyncio.to_thread(
            self.records.finish,
            job.upload,
            state,
            now=self.now(),
            reason=reason,
            provenance=Provenance(prompt_version=job.ask.version, **paid(delivery.ledger.kept)),
            kind=job.kind,
            media_type=job.media_type,
            content=job.content or (),
            held=delivery.paid_ids,
        )
        if ended is None:
            await self.account(delivery)
            return await self.pass_on(job)
        # As the record says, and its event: what could not be captioned once more keeps its caption.
        kept_it: dict[str, Any] = {"recaption": state} if ended.state != state else {}
        telemetry.logger().warning(
            "upload_ended", asset=job.upload.asset, state=ended.state, reason=reason.code, **kept_it
        )
        await self.settle(job, ended)
        if state not in ("failed", "blocked"):  # which may be redriven
            await self._forget(job)
        return state

    async def defer(self, delivery: Delivery, error: GatewayError) -> JobEnding:
        """Put a job back whose models all failed for now, or end it when it was tried for long enough."""
        job = delivery.job
        # Parts of a recording that were answered are kept, and say nothing of those that were not.
        outcomes = {call["outcome"] for call in delivery.ledger.made} - {"ok"}
        unusable = bool(outcomes) and outcomes <= UNUSABLE
        if unusable and job.unusable >= UNUSABLE_DEFERRALS:
            # The models answer, and are paid, and always in the same useless way: more of it would cost the same.
            reason = Reason(code="unusable_answers", message=f"no model gives a whole answer: {error}")
            return await self.give_up(delivery, "failed", reason)
        spent_up = isinstance(error, BudgetSpent)
        if not spent_up and self.now() - job.queued_at >= self.settings.max_job_age_seconds:
            message = f"no model answered in {self.settings.max_job_age_seconds:.0f} s; last: {error}"
            return await self.give_up(delivery, "failed", Reason(code="gave_up", message=message))
        delay = (
            backoff(job.unusable, base=UNUSABLE_BASE_SECONDS)
            if unusable
            else backoff(job.deferrals, at_least=error.retry_after_s or 0.0)
        )
        reason = Reason(code=_WAITS_FOR.get(type(error), "models_unavailable"), message=str(error))
        telemetry.count("Deferred")
        if isinstance(error, CircuitsOpen):
            telemetry.task_count("CircuitsOpenForTask", job.ask.task)
        telemetry.logger().warning(
            "job_deferred", asset=job.upload.asset, reason=reason.code, error=str(error), delay=round(delay, 1)
        )
        lease = self._queue_lease() + delay
        if not await self._release(delivery, due=lease, reason=reason):
            await self.account(delivery)
        await asyncio.to_thread(self.neighbours.renew, job.claim.id, job.claim.generation, lease)
        # A budget that is used up is no failure, and comes back: the time until then does not count.
        later = {
            "deferrals": job.deferrals + 1,
            "unusable": job.unusable + 1 if unusable else 0,
            **({"queued_at": self.now()} if spent_up else {}),
        }
        await self.send_later(job.model_copy(update=later), delay)
        return "deferred"

    async def account(self, delivery: Delivery) -> Record | None:
        """Account for calls that came to nothing, as their upload has ended or is another one; return its record."""
        return await asyncio.to_thread(self.records.account, delivery.job.upload, delivery.ledger)

    async def settle(self, job: Job, record: Record) -> None:
        """Do all that follows an upload's stored end."""
        await asyncio.to_thread(self._handover.settle, job.claim, record, Asked.by(job))

    async def pass_on(self, job: Job) -> JobEnding:
        """Free the claim of an upload that was replaced or deleted."""
        await asyncio.to_thread(self._handover.pass_on, job.claim, job.upload)
        return "superseded"

    async def _forget(self, job: Job) -> None:
        """Drop the parts of a recording that has ended; should this not come about, they expire."""
        if self.progress is not None and job.kind in ("audio", "video"):
            await asyncio.to_thread(self.progress.forget, job.upload.digest)

    async def _release(self, delivery: Delivery, *, due: float, reason: Reason | None = None) -> bool:
        return await asyncio.to_thread(
            self.records.release,
            delivery.job.upload,
            delivery.lease_until,
            now=self.now(),
            due=due,
            attempts=delivery.ledger.kept,
            reason=reason,
        )

    async def send_later(self, job: Job, delay: float) -> None:
        """Queue the job again instead of failing its message: a delay must never lead to a dead letter."""
        url = routes.queue_url(job.kind, self.settings, job.lane)
        await asyncio.to_thread(self.queues.send, url, job, delay=delay)

    def _queue_lease(self) -> float:
        return self.now() + self.settings.queue_lease_seconds


def ending_of(error: Exception) -> tuple[Ended, Reason]:
    """Return how an upload ends for one of the errors that no later try would meet otherwise."""
    match error:
        case GoneError():
            reason = Reason(code="gone", message="this version of the object was gone before it could be captioned")
            return "deleted", reason
        case UnreadableError(code=code, message=message):
            return "failed", Reason(code=code, message=message)
        case media.MediaError(code=code, message=message):
            return "rejected", Reason(code=code, message=message)
        case Refused():
            return "blocked", Reason(code="refused", message="every model that could caption it refused to")
        case NoCapableModel():
            return "failed", Reason(code="no_capable_model", message=f"none of the configured models takes it: {error}")
    return "failed", Reason(code="unacceptable", message=f"no model accepted the request: {error}")


def _result(job: Job, answered: Answered) -> Result:
    output = answered.output
    return fitted(
        Result(
            text=output.text,
            language=output.language,
            task=job.ask.task,
            style=job.ask.style,
            tags=output.tags,
            safety=output.safety,
            confidence=round(answered.confidence, 4),
            data=output.data | ({"note": job.note} if job.note else {}),
        )
    )


def parameters(settings: WorkerSettings) -> dict[str, Any]:
    """Return the template's parameters as a policy document."""
    return policy.from_parameters(
        language=settings.language,
        image_models=settings.image_models,
        audio_models=settings.audio_models,
        daily_budget_dollars=settings.daily_budget_dollars,
        prefix_budgets=settings.prefix_budgets,
    )
