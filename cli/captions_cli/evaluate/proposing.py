"""A policy from measurements: for each task and kind of picture the cheapest model that is good enough."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from captions.config.policy import Policy
from captions_cli.evaluate import intervals
from captions_cli.evaluate.journal import totals
from captions_cli.evaluate.summary import JudgedAnswer, scored


@dataclass(frozen=True)
class MeasuredModel:
    """One model on one group of questions; `dollars` per 1,000 are None where they are not known in full."""

    model: str
    score: float
    dollars: Decimal | None
    answers: int


@dataclass(frozen=True)
class Proposal:
    """The tier of a group: `models` in the order they are to be asked, `higher` for doubtful answers (empty: none)."""

    place: str
    """What of a policy names the tier: `tasks.ocr.tier`, `routing.categories.photo`."""
    name: str
    models: tuple[str, ...]
    higher: tuple[str, ...]
    measured: tuple[MeasuredModel, ...]
    """The best first."""


@dataclass(frozen=True)
class Undecided:
    """A group of which too little is known."""

    name: str
    why: str


def propose(judged: Sequence[JudgedAnswer], rules: Policy, within: float) -> tuple[list[Proposal], list[Undecided]]:
    """Return a tier for each group that has one in a policy; `within` is how much worse than the best is good enough.

    A model whose cost is not known is never called the cheapest.
    """
    proposals: list[Proposal] = []
    undecided: list[Undecided] = []
    for (place, name), group in _groups(judged, rules):
        ranked = sorted(_measured(group), key=lambda model: -model.score)
        fewest = min((model.answers for model in ranked), default=0)
        if fewest < intervals.FEWEST:
            undecided.append(Undecided(name, f"{fewest} answers of a model are too few, {intervals.FEWEST} are needed"))
            continue
        enough = [model for model in ranked if model.score >= ranked[0].score - within]
        priced = [(model.dollars, -model.score, model) for model in enough if model.dollars is not None]
        if not priced:
            undecided.append(Undecided(name, "no price of a model that is good enough is known"))
            continue
        chosen = min(priced, key=lambda entry: entry[:2])[2]
        others = tuple(model.model for model in ranked if model is not chosen)
        higher = () if chosen is ranked[0] else others
        proposals.append(Proposal(place, name, (chosen.model, *others), higher, tuple(ranked)))
    return proposals, undecided


def document(proposals: Sequence[Proposal], undecided: Sequence[Undecided], within: float) -> str:
    """Return the proposal as a policy override."""
    lines = [
        "# Proposed by `captions evaluate`: for each group the cheapest model within "
        f"{100 * within:g} points of the best, then the others.",
        *(f"# {group.name}: left as it is, as {group.why}." for group in undecided),
    ]
    for proposal in proposals:
        tier = f"measured_{proposal.name}"
        lines += ["", f"# {proposal.name}:"]
        lines += [f"#   {each.model}: {100 * each.score:.1f}, {_cost(each)} per 1,000" for each in proposal.measured]
        lines += [f"[tiers.{tier}]", f"models = {json.dumps(proposal.models)}"]
        if proposal.higher:
            lines += [
                f'escalates_to = "{tier}_best"',
                "",
                f"[tiers.{tier}_best]",
                f"models = {json.dumps(proposal.higher)}",
            ]
    for place in dict.fromkeys(proposal.place.rpartition(".")[0] for proposal in proposals):
        lines += ["", f"[{place}]"]
        lines += [
            f'{proposal.place.rpartition(".")[2]} = "measured_{proposal.name}"'
            for proposal in proposals
            if proposal.place.rpartition(".")[0] == place
        ]
    return "\n".join(lines) + "\n"


def _groups(judged: Sequence[JudgedAnswer], rules: Policy) -> Iterator[tuple[tuple[str, str], list[JudgedAnswer]]]:
    """Yield questions by what a policy chooses a tier by: the task where it has one of its own, else the category."""
    groups: dict[tuple[str, str], list[JudgedAnswer]] = defaultdict(list)
    for each in judged:
        task, file = each.question.ask.task, each.question.file
        if rules.task(task).tier is not None or file.looks is None:
            groups[f"tasks.{task}.tier", task].append(each)
        elif file.looks.confidence >= rules.routing.category_from:
            category = file.looks.category
            groups[f"routing.categories.{category}", category].append(each)
    yield from sorted(groups.items())


def _measured(group: Sequence[JudgedAnswer]) -> Iterator[MeasuredModel]:
    models: dict[str, list[JudgedAnswer]] = defaultdict(list)
    for each in group:
        models[each.question.contender.model or ""].append(each)
    tests = {each.test for each in group}
    for model, judged in models.items():
        counted = scored(judged)
        if counted.keys() != tests:
            continue  # what it cannot take at all it is not to be asked
        value = intervals.of({name: [each.score for each in test] for name, test in counted.items()})
        ended = [each for test in counted.values() for each in test]
        costs = [totals(each.attempts) for each in ended]
        unknown = any(number for _, number in costs)
        dollars = None if unknown else 1000 * sum((spent for spent, _ in costs), Decimal(0)) / len(ended)
        assert value is not None
        yield MeasuredModel(model, value.value, dollars, len(ended))


def _cost(model: MeasuredModel) -> str:
    return "at a cost that is not known" if model.dollars is None else f"${model.dollars:.4f}"
