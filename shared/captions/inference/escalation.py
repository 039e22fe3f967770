"""One answer to one ask: a call, one repair round, one step up where the answer cannot be trusted; the better is kept.

Whatever was paid stands among the attempts with its role (`first`, `repair`, `escalation`, `fallback`) and its tier,
also where a later call fails: it never takes an answer away that is already there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from captions.cost import Cost
from captions.gateway import (
    AccountProblem,
    Attempt,
    BudgetSpent,
    CircuitsOpen,
    Completion,
    DeadlineExceeded,
    ErrorClass,
    Exhausted,
    Gateway,
    GatewayError,
    Media,
    Request,
    Usage,
)
from captions.quality.calibration import Platt, fuse
from captions.routing.routes import Chains
from captions.tasks import TASKS, Ask, Output, Problem, Prompt, Reading, Seen, prompt, read, repair

Role = Literal["first", "repair", "escalation", "fallback"]

LEAST_SECONDS = 5.0
"""With less time left than this, no further call is made."""
WORTH_REPAIR = 0.2
"""From which sum of the repairable problems' weights an answer that is of use is asked for again; a cut at the end of a
sentence or a tag too many is mended without a model."""
_LATER = (AccountProblem, BudgetSpent, CircuitsOpen, DeadlineExceeded)


@dataclass(frozen=True)
class Candidate:
    """One model's answer, and what it is worth."""

    role: Role
    tier: str
    completion: Completion
    reading: Reading
    score: float
    """0 to 1, before calibration."""
    confidence: float

    @property
    def usable(self) -> bool:
        """Whether anything of it can be kept."""
        return self.reading.output is not None


def stored(candidate: Candidate) -> dict[str, Any]:
    """Return an answer as plain JSON values, for a record's draft."""
    completion, reading = candidate.completion, candidate.reading
    return {
        "role": candidate.role,
        "tier": candidate.tier,
        "text": completion.text,
        "model": completion.model,
        "reported_model": completion.reported_model,
        "endpoint": completion.endpoint,
        "cost_source": completion.cost_source,
        "transcribed": completion.transcribed,
        "output": reading.output.model_dump(mode="json") if reading.output is not None else None,
        "problems": [problem.model_dump(mode="json") for problem in reading.problems],
        "repaired": reading.repaired,
        "score": candidate.score,
        "confidence": candidate.confidence,
    }


def restored(values: Mapping[str, Any]) -> Candidate:
    """Read what `stored` wrote; its completion has no attempts, as the record holds them."""
    output, problems = values["output"], values["problems"]
    return Candidate(
        role=values["role"],
        tier=values["tier"],
        completion=Completion(
            text=values["text"],
            model=values["model"],
            reported_model=values["reported_model"],
            endpoint=values["endpoint"],
            finish_reason="stop",
            usage=Usage(),
            cost=None,
            spent=Cost(uncounted_calls=1),  # what it took stands in the record's attempts
            cost_source=values["cost_source"],
            latency_ms=0,
            attempts=(),
            transcribed=values["transcribed"],
        ),
        reading=Reading(
            Output.model_validate(output) if output is not None else None,
            tuple(Problem.model_validate(problem) for problem in problems),
            values["repaired"],
        ),
        score=values["score"],
        confidence=values["confidence"],
    )


@dataclass(frozen=True)
class Noted:
    """How far an ask has come: its answers in order, the roles of the calls made, the models that refused."""

    candidates: tuple[Candidate, ...] = ()
    asked: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


class Drafts(Protocol):
    """Where it is noted how far an ask has come before another call is made for it."""

    def before(self, ask: Ask) -> Noted:
        """Return what a delivery before this one noted."""

    async def note(self, ask: Ask, so_far: Noted, made: Sequence[Attempt]) -> bool:
        """Keep it, with every attempt made for this ask; False: another delivery took over."""

    async def paid(self, made: Sequence[Attempt]) -> bool:
        """Keep attempts alone; False: another delivery took over."""


@dataclass(frozen=True)
class Answered:
    """The answer that is kept, and the calls that were made for it."""

    output: Output
    kept: Candidate
    candidates: tuple[Candidate, ...]
    """In the order they were given; `kept` is one of them."""
    attempts: tuple[Attempt, ...]
    """Without those of an earlier delivery."""
    latency_ms: int

    @property
    def completion(self) -> Completion:
        """The kept answer's own completion."""
        return self.kept.completion

    @property
    def reading(self) -> Reading:
        """What was read from the kept answer."""
        return self.kept.reading

    @property
    def confidence(self) -> float:
        """How far the kept answer can be trusted, 0 to 1."""
        return self.kept.confidence

    @property
    def escalated(self) -> bool:
        """Whether a tier above the upload's own was asked and answered."""
        return any(candidate.role == "escalation" for candidate in self.candidates)

    @property
    def repaired(self) -> bool:
        """Whether a repair round was made and answered."""
        return any(candidate.role == "repair" for candidate in self.candidates)


async def answer(
    gateway: Gateway,
    ask: Ask,
    media: tuple[Media, ...],
    chains: Chains,
    *,
    deadline: float,
    seen: Seen | None = None,
    calibrations: Mapping[tuple[str, str], Platt] | None = None,
    request_id: str = "",
    budget_scopes: tuple[str, ...] = (),
    drafts: Drafts | None = None,
) -> Answered:
    """Return the best answer that one call, one repair and one step up give before `deadline` (time.monotonic).

    What was paid is noted in `drafts` before a second call is made, and what is noted there is not asked again.

    Raises:
        GatewayError: there is no answer of use; its `attempts` are those of every call made.
    """
    asking = _Asking(
        gateway, ask, media, chains, deadline, seen or Seen(), calibrations or {}, request_id, budget_scopes, drafts
    )
    return await asking.answer()


class _Asking:
    def __init__(
        self,
        gateway: Gateway,
        ask: Ask,
        media: tuple[Media, ...],
        chains: Chains,
        deadline: float,
        seen: Seen,
        calibrations: Mapping[tuple[str, str], Platt],
        request_id: str,
        budget_scopes: tuple[str, ...],
        drafts: Drafts | None,
    ) -> None:
        self._gateway = gateway
        self._ask = ask
        self._media = media
        self._chains = chains
        self._deadline = deadline
        self._seen = seen
        self._calibrations = calibrations
        self._request_id = request_id
        self._budget_scopes = budget_scopes
        self._drafts = drafts
        self._attempts: list[Attempt] = []
        self._noted = 0
        before = drafts.before(ask) if drafts is not None else Noted()
        self._candidates = list(before.candidates)
        self._asked = set(before.asked)
        self._refused = set(before.refused)
        self._began = time.monotonic()

    async def answer(self) -> Answered:
        chains = self._chains
        if self._candidates:
            best = self._best_so_far()
        else:
            best = await self._call(prompt(self._ask), chains.models, "first", chains.tier)
        if not self._asked & {"repair", "escalation", "fallback"}:
            best = await self._repaired(best)
        if (best.confidence < chains.threshold or not best.usable) and not self._asked & {"escalation", "fallback"}:
            best = await self._escalated(best)
        while not best.usable:
            best = await self._fallback(best)
        assert best.reading.output is not None
        return Answered(
            output=best.reading.output,
            kept=best,
            candidates=tuple(self._candidates),
            attempts=tuple(self._attempts),
            latency_ms=round((time.monotonic() - self._began) * 1000),
        )

    def _best_so_far(self) -> Candidate:
        """Return which of the noted answers counts, by the rules that the calls themselves follow."""
        best, *later = self._candidates
        for candidate in later:
            better = (
                _worth(candidate) >= _worth(best)
                if candidate.role == "escalation"
                else _worth(candidate) > _worth(best)
            )
            best = candidate if better else best
        return best

    async def _note(self) -> None:
        """Note what was paid, if anything was since the last time.

        Raises:
            DeadlineExceeded: another delivery has the upload now, so that nothing more is to be paid for it here.
        """
        if self._drafts is None or len(self._attempts) == self._noted:
            return
        so_far = Noted(tuple(self._candidates), frozenset(self._asked), frozenset(self._refused))
        if not await self._drafts.note(self._ask, so_far, self._attempts):
            raise DeadlineExceeded("another delivery took the upload over", attempts=tuple(self._attempts))
        self._noted = len(self._attempts)

    async def _call(self, asked: Prompt, models: Sequence[str], role: Role, tier: str) -> Candidate:
        await self._note()
        self._asked.add(role)
        readings: dict[str, Reading] = {}

        def judge(text: str) -> ErrorClass | None:
            readings[text] = read(self._ask, text, seen=self._seen)
            return ErrorClass.REFUSED if readings[text].refused else None

        request = Request(
            instructions=asked.instructions,
            text=asked.text,
            media=self._media,
            max_tokens=asked.max_tokens,
            response_format=asked.response_format,
            request_id=self._request_id,
            judge=judge,
            budget_scopes=self._budget_scopes,
            transcription=TASKS[self._ask.task].transcribes,
        )
        try:
            completion = await self._gateway.complete(request, models, deadline=self._deadline)
        except GatewayError as error:
            self._made(_marked(error.attempts, role, tier))
            error.attempts = tuple(self._attempts)
            raise
        if completion.transcribed:
            from captions.tasks.kinds.transcribe import transcript

            reading = transcript(self._ask, completion.text, completion.segments, completion.language, self._seen)
        else:
            reading = readings[completion.text]
        made = _marked(completion.attempts, role, tier)
        if reading.output is None and made:
            made[-1] = replace(made[-1], outcome=ErrorClass.UNFIT.value)
        self._made(made)
        score = fuse(reading, completion.mean_logprob)
        calibration = self._calibrations.get((completion.model, self._ask.task))
        confidence = calibration(score) if calibration is not None and reading.output is not None else score
        candidate = Candidate(role, tier, completion, reading, score, confidence)
        self._candidates.append(candidate)
        return candidate

    def _made(self, attempts: Sequence[Attempt]) -> None:
        self._attempts += attempts
        self._refused |= {attempt.model for attempt in attempts if attempt.outcome == ErrorClass.REFUSED.value}

    async def _repaired(self, first: Candidate) -> Candidate:
        """Show the model its answer and what is wrong with it, once, if that can help."""
        problems = () if first.completion.transcribed else _repairable(first.reading)
        if not problems or self._left() < LEAST_SECONDS:
            return first
        asked = repair(self._ask, first.completion.text, problems)
        try:
            second = await self._call(asked, (first.completion.model,), "repair", first.tier)
        except GatewayError:
            return first
        return second if _worth(second) > _worth(first) else first

    async def _escalated(self, best: Candidate) -> Candidate:
        """Ask the tier above once; its answer is kept unless it is worth less."""
        chains = self._chains
        models = self._unasked(chains.higher)
        if not models or self._left() < max(LEAST_SECONDS, chains.least_seconds):
            return best
        try:
            higher = await self._call(prompt(self._ask), models, "escalation", chains.higher_tier or chains.tier)
        except GatewayError as error:
            if best.usable:
                return best
            raise self._unanswered(error) from error
        return higher if _worth(higher) >= _worth(best) else best

    async def _fallback(self, best: Candidate) -> Candidate:
        """Ask whoever was not asked yet, as no answer so far is of any use.

        Raises:
            GatewayError: nobody is left, or they fail.
        """
        models = self._unasked((*self._chains.models, *self._chains.higher))
        if not models or self._left() < LEAST_SECONDS:
            raise self._unanswered(None)
        try:
            return await self._call(prompt(self._ask), models, "fallback", best.tier)
        except GatewayError as error:
            raise self._unanswered(error) from error

    def _unanswered(self, error: GatewayError | None) -> GatewayError:
        """Return what to raise where models answered, if not usably: not all of them refused, or cannot take it."""
        if isinstance(error, _LATER):
            return error
        unusable = Exhausted("no model gave an answer that the task can use")
        unusable.attempts = tuple(self._attempts)
        return unusable

    def _unasked(self, models: Sequence[str]) -> tuple[str, ...]:
        """Return the models that did not answer yet; one that refused would be paid to refuse again."""
        asked = {candidate.completion.model for candidate in self._candidates} | self._refused
        return tuple(model for model in models if model not in asked)

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _marked(attempts: Sequence[Attempt], role: Role, tier: str) -> list[Attempt]:
    """Say what attempts were made for; in a first call, those after the first model's are fallbacks."""
    return [
        replace(attempt, role="fallback" if role == "first" and attempt.model != attempts[0].model else role, tier=tier)
        for attempt in attempts
    ]


def _repairable(reading: Reading) -> tuple[Problem, ...]:
    problems = tuple(problem for problem in reading.problems if problem.repairable)
    if reading.output is None or sum(problem.weight for problem in problems) >= WORTH_REPAIR:
        return problems
    return ()


def _worth(candidate: Candidate) -> tuple[bool, float]:
    return candidate.usable, candidate.confidence
