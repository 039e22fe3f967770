"""One answer to one ask: a call, one repair round, one step up where the answer cannot be trusted; the better is kept.

Whatever was paid stands in the call's ledger with its role (`first`, `repair`, `escalation`, `fallback`) and its tier.
Where a later call fails, it never takes an answer away that is already there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
)
from captions.inference.candidate import Candidate, Drafts, Noted, Role
from captions.inference.part_store import Forgetful, Progress
from captions.quality.calibration import Platt, fuse
from captions.records.attempts import CallLedger
from captions.routing.routes import Chains
from captions.tasks import TASKS, Ask, Output, Problem, Prompt, Reading, Seen, prompt, read, repair

LEAST_SECONDS = 5.0
"""With less time left than this, no further call is made."""
WORTH_REPAIR = 0.2
"""From which sum of the repairable problems' weights an answer that is of use is asked for again; a cut at the end of a
sentence or a tag too many is mended without a model."""
_LATER = (AccountProblem, BudgetSpent, CircuitsOpen, DeadlineExceeded)


@dataclass(frozen=True)
class Asking:
    """What all calls about one upload share."""

    gateway: Gateway
    deadline: float
    """A value of time.monotonic()."""
    ledger: CallLedger = field(default_factory=CallLedger)
    """Takes every call, with its role and its tier, also those that fail."""
    drafts: Drafts | None = None
    """Where answers about the whole are noted, and what every call cost; the parts' answers are kept in `progress`."""
    progress: Progress = field(default_factory=Forgetful)
    calibrations: Mapping[tuple[str, str], Platt] = field(default_factory=dict)
    """What people made of models' answers, by model and task."""
    request_id: str = ""
    budget_scopes: tuple[str, ...] = ()

    async def hold(self) -> bool:
        """Have the record hold what was paid before anything else is asked; False: another delivery took over."""
        return self.drafts is None or await self.drafts.hold()

    def part(self) -> Asking:
        """Return what the calls about a part of the upload share: its answers are not noted, only its calls."""
        return replace(self, ledger=CallLedger(above=self.ledger), drafts=_PartDrafts(self))


@dataclass(frozen=True)
class Content:
    """An upload: `whole` as it would go to a model unchanged, the bytes of its file, and what names its version."""

    id: str
    whole: Media
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class _PartDrafts:
    """Drafts of one part's ask: a record has a draft for the whole alone."""

    call: Asking

    def before(self, ask: Ask) -> Noted:
        return Noted()

    async def note(self, ask: Ask, so_far: Noted) -> bool:
        return await self.call.hold()

    async def hold(self) -> bool:
        return await self.call.hold()


@dataclass(frozen=True)
class Answered:
    """The answer that is kept, and those it was chosen from."""

    output: Output
    kept: Candidate
    candidates: tuple[Candidate, ...]
    """In the order they were given; `kept` is one of them."""
    latency_ms: int
    poster: bytes | None = field(default=None, repr=False)
    """A small picture of the video it is about, as WebP."""

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
    call: Asking, ask: Ask, media: tuple[Media, ...], chains: Chains, seen: Seen | None = None
) -> Answered:
    """Return the best answer that one call, one repair and one step up give before the deadline.

    What was paid is noted in the drafts before a second call is made, and what is noted there is not asked again.

    Raises:
        GatewayError: there is no answer of use.
    """
    return await _Asking(call, ask, media, chains, seen or Seen()).answer()


class _Asking:
    def __init__(self, call: Asking, ask: Ask, media: tuple[Media, ...], chains: Chains, seen: Seen) -> None:
        self._context = call
        self._ask = ask
        self._media = media
        self._chains = chains
        self._seen = seen
        self._noted = 0
        before = call.drafts.before(ask) if call.drafts is not None else Noted()
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
        drafts, made = self._context.drafts, len(self._context.ledger.made)
        if drafts is None or made == self._noted:
            return
        so_far = Noted(tuple(self._candidates), frozenset(self._asked), frozenset(self._refused))
        if not await drafts.note(self._ask, so_far):
            raise DeadlineExceeded("another delivery took the upload over")
        self._noted = made

    async def _call(self, asked: Prompt, models: Sequence[str], role: Role, tier: str) -> Candidate:
        await self._note()
        self._asked.add(role)
        readings: dict[str, Reading] = {}

        def judge(text: str) -> ErrorClass | None:
            readings[text] = read(self._ask, text, seen=self._seen)
            return ErrorClass.REFUSED if readings[text].refused else None

        request = replace(
            request_of(self._ask, asked, self._media, self._context.request_id, self._context.budget_scopes),
            judge=judge,
        )
        try:
            completion = await self._context.gateway.complete(request, models, deadline=self._context.deadline)
        except GatewayError as error:
            self._made(marked(error.attempts, role, tier))
            raise
        if completion.transcribed:
            from captions.tasks.kinds.transcribe import transcript

            reading = transcript(self._ask, completion.text, completion.segments, completion.language, self._seen)
        else:
            reading = readings[completion.text]
        made = marked(completion.attempts, role, tier)
        if reading.output is None and made:
            made[-1] = replace(made[-1], outcome=ErrorClass.UNFIT.value)
        self._made(made)
        calibration = self._context.calibrations.get((completion.model, self._ask.task))
        candidate = judged(role, tier, completion, reading, calibration)
        self._candidates.append(candidate)
        return candidate

    def _made(self, attempts: Sequence[Attempt]) -> None:
        self._context.ledger.add(attempt.as_dict() for attempt in attempts)
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
        return Exhausted("no model gave an answer that the task can use")

    def _unasked(self, models: Sequence[str]) -> tuple[str, ...]:
        """Return the models that did not answer yet; one that refused would be paid to refuse again."""
        asked = {candidate.completion.model for candidate in self._candidates} | self._refused
        return tuple(model for model in models if model not in asked)

    def _left(self) -> float:
        return self._context.deadline - time.monotonic()


def request_of(
    ask: Ask, asked: Prompt, media: tuple[Media, ...], request_id: str, budget_scopes: tuple[str, ...]
) -> Request:
    """Return what is sent for a prompt about these media, whether it goes by itself or in a batch."""
    return Request(
        instructions=asked.instructions,
        text=asked.text,
        media=media,
        max_tokens=asked.max_tokens,
        response_format=asked.response_format,
        request_id=request_id,
        budget_scopes=budget_scopes,
        transcription=TASKS[ask.task].transcribes,
    )


def judged(
    role: Role, tier: str, completion: Completion, reading: Reading, calibration: Platt | None = None
) -> Candidate:
    """Return an answer with how far it can be trusted."""
    score = fuse(reading, completion.mean_logprob)
    confidence = calibration(score) if calibration is not None and reading.output is not None else score
    return Candidate(role, tier, completion, reading, score, confidence)


def rests(first: Candidate, chains: Chains) -> bool:
    """Tell whether a first answer is kept as it is: nobody would be asked to repair it, or a step up."""
    doubtful = first.confidence < chains.threshold and set(chains.higher) - {first.completion.model}
    return first.usable and not _repairable(first.reading) and not doubtful


def marked(attempts: Sequence[Attempt], role: Role, tier: str) -> list[Attempt]:
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
