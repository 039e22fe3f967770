"""Which task an upload gets and what is asked of which models, and what must be equal for two uploads to share it.

What is asked is settled before anything is claimed or paid, from the object's metadata, its tags, the rules of the
policy, and what the upload is: in this order, field by field. What cannot be done is an UnroutableError, never left
out.
"""

import email.errors
import email.header
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from captions.config.environment import RoutingSettings
from captions.config.policy import Policy, TaskPolicy, is_language
from captions.routing.experiments import Arm, arm_of
from captions.tasks import TASKS, Ask, Task
from captions.uploads.version import ObjectVersion

if TYPE_CHECKING:
    from captions.config.policy import Rule
    from captions.fingerprint import Fingerprint
    from captions.picture_class import Looks

METADATA_PREFIX = "caption-"
"""Begins the names of user metadata that are meant for this pipeline (`x-amz-meta-caption-task`)."""
TAG_PREFIX = "caption:"
CONTEXT = "context-"
_FIELDS = ("task", "style", "language", "question")


class UnroutableError(Exception):
    """What is asked for cannot be done: `code` for programs, `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Wishes:
    """What was said beside an object about its caption; None: nothing. `named_by` tells where each field came from."""

    task: str | None = None
    style: str | None = None
    language: str | None = None
    question: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    named_by: Mapping[str, str] = field(default_factory=dict)


class Route(NamedTuple):
    """The task of an upload, what is asked, why, and the queue its job stands on."""

    task: Task
    ask: Ask
    queue_url: str
    named_by: str
    """What decided on the task."""
    shared_as: str
    """What must be equal for two uploads to share an answer: the ask's identity. Where the task was taken for what a
    picture looks like, those of all asks that its copies may get, as they may look otherwise."""
    arm: Arm | None = None
    """Its side of an experiment; None: it takes part in none."""


def wishes(metadata: Mapping[str, str], tags: Mapping[str, str], policy: Policy) -> Wishes:
    """Read what an object's metadata and tags say, as far as the policy lets them; metadata goes first.

    Raises:
        UnroutableError: a name that begins as ours do is none that is known.
    """
    given: dict[str, str] = {}
    named_by: dict[str, str] = {}
    context: dict[str, str] = {}
    sources = {
        "tags": ((f"tag {name}", name[len(TAG_PREFIX) :], value) for name, value in tags.items()
                 if name.lower().startswith(TAG_PREFIX)),
        "metadata": ((f"x-amz-meta-{name.lower()}", name[len(METADATA_PREFIX) :], _decoded(value))
                     for name, value in metadata.items() if name.lower().startswith(METADATA_PREFIX)),
    }  # fmt: skip
    for source, values in sources.items():
        if source not in policy.overrides:
            continue
        for place, name, value in values:
            name = name.lower().replace(":", "-")
            if name.startswith(CONTEXT) and len(name) > len(CONTEXT):
                context[name[len(CONTEXT) :]] = value
            elif name in _FIELDS:
                if value.strip():
                    given[name] = value.strip()
                    named_by[name] = place
            else:
                known = ", ".join((*_FIELDS, f"{CONTEXT}*"))
                raise UnroutableError("unknown_option", f"{_printable(place)} is none of {known}")
    return Wishes(**given, context=context, named_by=named_by)


def route(
    key: str,
    kind: str,
    policy: Policy,
    settings: RoutingSettings,
    *,
    metadata: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    looks: "Looks | None" = None,
    fingerprint: "Fingerprint | None" = None,
    description: str = "",
) -> Route | None:
    """Return the route of an upload; None for a kind that no task takes.

    `description` is the file's own, where the policy has it shown to models; what stands beside the object goes before.

    `fingerprint` decides on the upload's side of an experiment; without it, it takes part in none.

    Raises:
        UnroutableError: what its metadata, tags or rule ask for is unknown, disabled or not for this kind.
    """
    wished = wishes(metadata or {}, tags or {}, policy)
    if description:
        wished = replace(wished, context={"description": description} | dict(wished.context))
    rule = policy.rule(key, kind)
    chosen = _named(kind, policy, wished, rule, looks)
    if chosen is None:
        return None
    name, named_by, automatic = chosen
    task = _allowed(name, named_by, kind, policy)
    language = _language(key, policy, wished, rule)
    question = wished.question or (rule.question if rule else None) or ""
    if task.needs_question and not question:
        raise UnroutableError("question_missing", f"{named_by} asks for {name!r} without a question")
    if wished.question is not None and not task.needs_question:
        raise UnroutableError(
            "question_for_another_task",
            f"{wished.named_by['question']} asks a question, which {name!r} does not answer",
        )

    def asked(task_name: str) -> tuple[Ask, Arm | None]:
        about, style = policy.task(task_name), rule.style if rule else None
        ask = _ask(task_name, language, question, wished, style, about, policy)
        experiment = policy.experiment(key, kind, task_name) if fingerprint is not None else None
        if experiment is None or fingerprint is None:
            return ask, None
        trial = policy.experiments[experiment]
        # Of an upload whose style its owner names, both arms may ask the same.
        varied = _ask(task_name, language, question, wished, trial.ruled(style), trial.varied(about), policy)
        if varied == ask and trial.tier is None:
            return ask, None
        arm = arm_of(experiment, trial.share, fingerprint.content_key(near=not TASKS[task_name].exact_only))
        return (varied if arm.arm == "variant" else ask), arm

    ask, arm = asked(name)
    identities = {ask.identity}
    if automatic and not task.exact_only:
        for other in policy.automatic_tasks(kind) - {name}:
            if _shares(other, kind, policy):
                # Where a copy would be rejected, it gets no answer, and so shares none.
                with suppress(UnroutableError):
                    identities.add(asked(other)[0].identity)
    return Route(task, ask, queue_url(kind, settings), named_by, "+".join(sorted(identities)), arm)


def _named(
    kind: str, policy: Policy, wished: Wishes, rule: "Rule | None", looks: "Looks | None"
) -> tuple[str, str, bool] | None:
    """Return the task that is asked for, by whom, and whether that is the policy by itself; None: no task takes it."""
    if wished.task is not None:
        return wished.task, wished.named_by["task"], False
    if rule is not None and rule.task is not None and (rule.kinds or _takes(rule.task, kind)):
        return rule.task, f"the policy's rule for {rule.prefix!r}", False
    name, named_by = policy.automatic(kind, looks), f"the policy's task for {kind}"
    if looks is not None and policy.automatic(kind, None) != name:
        named_by = f"the policy's task for pictures that look like {looks.category}"
    return (name, named_by, True) if name in TASKS else None


def _allowed(name: str, named_by: str, kind: str, policy: Policy) -> Task:
    """Return a task. Raises UnroutableError for an unknown or disabled one, and one that is not for this kind."""
    task = TASKS.get(name)
    if task is None:
        raise UnroutableError("unknown_task", f"{named_by} asks for {name!r}; tasks are {', '.join(TASKS)}")
    if kind not in task.kinds:
        takes = ", ".join(sorted(task.kinds))
        raise UnroutableError(
            "task_not_for_kind", f"{named_by} asks for {name!r}, which is for {takes}, not for {kind}"
        )
    if not policy.task(name).enabled:
        raise UnroutableError("task_disabled", f"{named_by} asks for {name!r}, which the policy has disabled")
    return task


def _language(key: str, policy: Policy, wished: Wishes, rule: "Rule | None") -> str:
    """Return the language that is asked for; raises UnroutableError where it is none."""
    language = wished.language or (rule.language if rule else None) or policy.language(key)
    if not is_language(language):
        place = wished.named_by.get("language", "the policy")
        raise UnroutableError("bad_language", f"{place} asks for {language[:80]!r}, which is no BCP-47 language tag")
    return language


def _shares(name: str, kind: str, policy: Policy) -> bool:
    """Tell whether pictures that only look alike may share an answer to a task."""
    task = TASKS.get(name)
    return task is not None and kind in task.kinds and not task.exact_only and policy.task(name).enabled


def _ask(
    name: str,
    language: str,
    question: str,
    asked: Wishes,
    ruled_style: str | None,
    about: TaskPolicy,
    policy: Policy,
) -> Ask:
    style = asked.style or ruled_style or about.style or ("custom" if about.template else "")
    if style == "custom" and not about.template:
        place = asked.named_by.get("style", "the policy")
        raise UnroutableError("bad_style", f"{place} asks for the style 'custom', but the policy has no template")
    try:
        return Ask(
            task=name,
            language=language,
            style=style,
            context=dict(asked.context),
            question=question,
            template=about.template if style == "custom" or not TASKS[name].styles else "",
            vocabulary=dict(policy.vocabulary),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "task"
        place = asked.named_by.get(where, f"the policy's {where}")
        raise UnroutableError(f"bad_{where}", f"{place} cannot be asked for: {first['msg']}") from error


def queue_url(kind: str, settings: RoutingSettings, lane: str | None = None) -> str:
    """Return the queue that jobs of a kind of media stand on; video is as slow as sound and shares its pool.

    Of the bulk lane, where there is one, only pictures: a recording is asked about in several calls.
    """
    if lane == "bulk" and settings.bulk_queue_url is not None and kind not in ("audio", "video"):
        return settings.bulk_queue_url
    return settings.audio_queue_url if kind in ("audio", "video") else settings.image_queue_url


def captioned_at_all(kind: str, policy: Policy) -> bool:
    """Tell whether any task is meant for a kind, so that its bytes are worth reading."""
    return policy.automatic(kind, None) in TASKS


def _takes(task: str, kind: str) -> bool:
    """A rule without kinds is about those that its task takes; one whose task is unknown must not pass for none."""
    known = TASKS.get(task)
    return known is None or kind in known.kinds


def _printable(text: str) -> str:
    """Half of a pair of surrogates can be in no record and on no queue."""
    return text.encode("utf-8", "replace").decode()


def _decoded(value: str) -> str:
    """Read a metadata value that S3 wrapped for having other characters than ASCII (RFC 2047)."""
    if "=?" not in value:
        return value
    try:
        return str(email.header.make_header(email.header.decode_header(value)))
    except (email.errors.MessageError, LookupError, UnicodeError, ValueError):
        return value


@dataclass(frozen=True)
class Chains:
    """The models to ask: those of the upload's tier, and of the tier a doubtful answer escalates to (empty: none)."""

    tier: str
    models: tuple[str, ...]
    higher_tier: str | None = None
    higher: tuple[str, ...] = ()
    threshold: float = 0.0
    """The confidence from which on an answer is kept without asking further."""
    least_seconds: float = 8.0
    """So much time must be left for a step up."""
    arm: Arm | None = None
    """The upload's side of an experiment that still makes a difference to it."""


def chains(
    key: str,
    kind: str,
    task: str,
    policy: Policy,
    *,
    looks: "Looks | None" = None,
    tokens: int = 0,
    arm: Arm | None = None,
) -> Chains:
    """Return the models to ask about an upload; `tokens` is what the whole exchange is estimated to take.

    `arm` is its side of an experiment, which may have ended since it was decided on.
    """
    tier = policy.tier(key, kind, task, looks, tokens=tokens)
    trial = policy.experiments.get(arm.experiment) if arm is not None else None
    if arm is None or trial is None:
        arm = None
    elif trial.tier is not None:
        varied = policy.tier(key, kind, task, looks, tokens=tokens, variant=trial.tier)
        if varied == tier and trial.varied(policy.task(task)) == policy.task(task):
            arm = None
        elif arm.arm == "variant":
            tier = varied
    higher = policy.step_up(tier)
    return Chains(
        tier=tier,
        models=policy.tiers[tier].models,
        higher_tier=higher,
        higher=policy.tiers[higher].models if higher is not None else (),
        threshold=policy.threshold(task),
        least_seconds=policy.escalation.least_seconds,
        arm=arm,
    )


def budget_scopes(upload: ObjectVersion, prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return the spending limits an upload counts against: those of the prefixes its key lies under."""
    return tuple(prefix for prefix in prefixes if upload.key.startswith(prefix))
