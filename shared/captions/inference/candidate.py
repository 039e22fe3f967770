"""One model's answer to an ask, how far an ask has come, and how both are kept for whoever takes over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from captions.cost import Cost
from captions.gateway import Completion, Usage
from captions.tasks import Ask, Output, Problem, Reading

Role = Literal["first", "repair", "escalation", "fallback"]


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
    """Return an answer as plain JSON values."""
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
    """Read what `stored` wrote; its completion has no attempts, as a ledger holds them.

    Raises KeyError, ValidationError where another version of the code wrote it.
    """
    output = values["output"]
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
            spent=Cost(uncounted_calls=1),  # the ledger knows
            cost_source=values["cost_source"],
            latency_ms=0,
            attempts=(),
            transcribed=values["transcribed"],
        ),
        reading=Reading(
            Output.model_validate(output) if output is not None else None,
            tuple(Problem.model_validate(problem) for problem in values["problems"]),
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

    @classmethod
    def read(cls, answers: Iterable[Mapping[str, Any]], asked: Iterable[str], refused: Iterable[str]) -> Noted:
        """Read what `values` gave; where there is no answer, or one that another version wrote, nothing was noted."""
        try:
            candidates = tuple(map(restored, answers))
        except (KeyError, TypeError, ValidationError):
            return cls()
        return cls(candidates, frozenset(asked), frozenset(refused)) if candidates else cls()

    def values(self) -> dict[str, list[Any]]:
        """Return it as plain JSON values."""
        answers = [stored(candidate) for candidate in self.candidates]
        return {"answers": answers, "asked": sorted(self.asked), "refused": sorted(self.refused)}


class Drafts(Protocol):
    """Where it is noted how far an ask has come, with every call in its ledger, before another one is made for it."""

    def before(self, ask: Ask) -> Noted:
        """Return what a delivery before this one noted."""

    async def note(self, ask: Ask, so_far: Noted) -> bool:
        """Keep it; False: another delivery took over."""

    async def hold(self) -> bool:
        """Keep the calls alone, if any cost something; False: another delivery took over."""
