"""What is handed to copies: a captioned exemplar's answer, where it is one to what was asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from captions.cost import Cost
from captions.queues import Job
from captions.records.attempts import paid
from captions.records.record import Likeness, Provenance, Record, Result


class Asked(NamedTuple):
    """What a claim was made for; an answer to anything else is not shared."""

    identity: str
    prompt_version: str | None = None
    """None: whichever."""
    since: str | None = None
    """ISO 8601; an answer from before is not what was asked for."""

    @classmethod
    def by(cls, job: Job) -> "Asked":
        """What a job's claim was made for."""
        return cls(job.ask.identity, job.prompt_version, job.since)

    def answered_by(self, provenance: Provenance) -> bool:
        """Tell whether an answer is one to this."""
        if self.since is not None and (provenance.answered_at or "") < self.since:
            return False
        if self.prompt_version not in (None, provenance.prompt_version):
            return False
        return self.identity == provenance.identity


@dataclass(frozen=True)
class Outcome:
    """A captioned exemplar's answer, as its claim keeps it for those that copy it."""

    asset: str
    result: Result
    model: str | None = None
    reported_model: str | None = None
    endpoint: str | None = None
    prompt_version: str | None = None
    cost: str | None = None
    """What it had cost; None: not known in full."""
    cost_at_least: Cost | None = None
    identity: str | None = None
    score: float | None = None
    at: str | None = None
    """When the model gave it, ISO 8601."""
    category: str | None = None
    """What its picture looked like, without a model."""
    experiment: str | None = None
    arm: str | None = None
    """The side of the experiment that it was given in; a copy counts there, too."""
    poster: bytes | None = None
    """Of a video, whose copies have its very content."""

    @classmethod
    def of(cls, record: Record, asked: Asked) -> "Outcome | None":
        """Take the answer of a record; None unless a model made it for this very picture, as it was asked for here.

        Nothing is shared between asks and prompts, whatever was deployed while a job stood on its queue. What a person
        wrote in the answer's place is about one upload, and is not spread.

        A caption that was itself copied (from a leader taken for dead too early) may not be copied on: matches would
        chain. Those who wait go through dedupe again and find the exemplar, if it is theirs.
        """
        answer, provenance = record.answer, record.provenance or Provenance()
        if answer is None or answer.source == "cache" or not asked.answered_by(provenance):
            return None
        spent = provenance.answer_spent
        return cls(
            asset=record.asset,
            result=answer.result,
            model=provenance.model,
            reported_model=provenance.reported_model,
            endpoint=provenance.endpoint,
            prompt_version=provenance.prompt_version,
            **(spent.pair() if spent is not None else {}),
            identity=provenance.identity,
            score=provenance.score,
            at=provenance.answered_at,
            category=provenance.category,
            experiment=provenance.experiment,
            arm=provenance.arm,
            poster=record.poster,
        )

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Outcome":
        """Read what `stored` wrote, in this version or another."""
        known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        score = known.get("score")
        known["score"] = None if score is None else float(score)
        bound = known.get("cost_at_least")
        known["cost_at_least"] = None if bound is None else Cost.model_validate(bound)
        return cls(**{**known, "result": Result.model_validate(known["result"])})

    def stored(self) -> dict[str, Any]:
        """Return the answer as plain values for the claim."""
        bound = None if self.cost_at_least is None else self.cost_at_least.model_dump()
        return {**self.__dict__, "cost_at_least": bound, "result": self.result.model_dump(exclude_none=True)}

    @property
    def spent(self) -> Cost | None:
        """What the answer had cost as far as it is known; None: unknown."""
        return Cost.read(self.__dict__)

    def copied(self, attempts: tuple[dict[str, Any], ...] = (), likeness: Likeness | None = None) -> Provenance:
        """Return the provenance of a copy: what it saved, and what its own upload had cost before, mostly nothing."""
        return Provenance(
            model=self.model,
            reported_model=self.reported_model,
            endpoint=self.endpoint,
            prompt_version=self.prompt_version,
            identity=self.identity,
            score=self.score,
            answered_at=self.at,
            category=self.category,
            experiment=self.experiment,
            arm=self.arm,
            **paid(attempts),
            cost_source="cache",
            copied_from=self.asset,
            likeness=likeness,
            saved=self.cost,
            saved_at_least=self.cost_at_least,
        )
