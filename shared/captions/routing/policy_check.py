"""What of a policy could only fail on uploads: what its rules, defaults and experiments ask of tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from captions.config.policy import KINDS, Experiment, Policy, PolicyError
from captions.tasks import TASKS, Ask, TemplateError, check_template

LONGEST_VOCABULARY = 100_000
"""Bytes of a policy's vocabulary as JSON: it travels in every job, and a message holds 256 KB (Amazon SQS, quotas)."""


@dataclass(frozen=True)
class _Wish:
    """What a place of the policy asks for, and where its template stands."""

    place: str
    task: str
    style: str
    template: str
    template_place: str
    question: str = ""


def check(policy: Policy) -> None:
    """Find what could only fail on uploads: rules and defaults that ask tasks for what they do not take.

    Raises:
        PolicyError: the message names the place.
    """
    _check_kinds(policy)
    _check_experiments(policy)
    for wish in _wishes(policy):
        _check_wish(wish)
    _check_vocabulary(policy)


def _check_kinds(policy: Policy) -> None:
    for kind in KINDS:
        _fit(f"auto.{kind}", getattr(policy.auto, kind), (kind,))
    for category, name in policy.auto.categories.items():
        _fit(f"auto.categories.{category}", name, ("image",))
    for index, rule in enumerate(policy.rules):
        if rule.task is not None:
            _fit(f"rules.{index}.task", rule.task, rule.kinds)
    for name in (*policy.tasks, *policy.escalation.tasks):
        _fit(f"tasks.{name}", name, ())


def _fit(place: str, name: str, kinds: Iterable[str]) -> None:
    if name not in TASKS:
        raise _wrong(place, f"there is no task {name!r}")
    for kind in kinds:
        if kind not in TASKS[name].kinds:
            raise _wrong(place, f"{name!r} is for {', '.join(sorted(TASKS[name].kinds))}, not for {kind}")


def _check_experiments(policy: Policy) -> None:
    earlier: dict[str, Experiment] = {}
    for name, experiment in policy.experiments.items():
        place, about = f"experiments.{name}", policy.task(experiment.task)
        _fit(f"{place}.task", experiment.task, experiment.kinds)
        if experiment.varied(about) == about and experiment.tier is None:
            raise _wrong(place, "its variant is what holds without it")
        for other_name, other in earlier.items():
            if _covers(other, experiment):
                raise _wrong(place, f"experiments.{other_name} is about all of its uploads")
        earlier[name] = experiment


def _wishes(policy: Policy) -> Iterator[_Wish]:
    for name, about in policy.tasks.items():
        yield _Wish(f"tasks.{name}", name, about.style, about.template, f"tasks.{name}.template")
    for index, rule in enumerate(policy.rules):
        name = rule.task or "caption"
        template = policy.task(name).template
        yield _Wish(f"rules.{index}", name, rule.style or "", template, f"tasks.{name}.template", rule.question or "")
    for name, experiment in policy.experiments.items():
        varied, place = experiment.varied(policy.task(experiment.task)), f"experiments.{name}"
        yield _Wish(place, experiment.task, varied.style, varied.template, f"{place}.template")


def _check_wish(wish: _Wish) -> None:
    if wish.template:
        try:
            check_template(wish.template)
        except TemplateError as error:
            raise _wrong(wish.template_place, str(error)) from error
    if wish.style == "custom" and not wish.template:
        raise _wrong(wish.place, f"the style 'custom' needs tasks.{wish.task}.template")
    try:
        Ask(task=wish.task, style=wish.style, template=wish.template, question=wish.question)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _wrong(".".join(str(step) for step in (wish.place, *first["loc"])), first["msg"]) from error


def _check_vocabulary(policy: Policy) -> None:
    vocabulary = json.dumps({tag: list(words) for tag, words in policy.vocabulary.items()})
    if len(vocabulary) > LONGEST_VOCABULARY:
        raise _wrong("vocabulary", f"it takes more than {LONGEST_VOCABULARY:,} bytes")
    try:
        Ask(task="caption", vocabulary=dict(policy.vocabulary))
    except ValidationError as error:
        raise _wrong("vocabulary", error.errors()[0]["msg"]) from error


def _wrong(place: str, why: str) -> PolicyError:
    return PolicyError(f"the policy is wrong at {place}: {why}")


def _covers(first: Experiment, other: Experiment) -> bool:
    """Tell whether each upload that an experiment is about takes part in another one."""
    kinds = TASKS[first.task].kinds & frozenset(first.kinds or TASKS[first.task].kinds)
    others = TASKS[first.task].kinds & frozenset(other.kinds or TASKS[first.task].kinds)
    return first.task == other.task and other.prefix.startswith(first.prefix) and others <= kinds
