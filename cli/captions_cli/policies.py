"""The policy a stack works by, and what it would do with a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captions.config import policy
from captions.config.environment import IntakeSettings
from captions.config.function_environments import WorkerSettings
from captions.config.policy import Policy, PolicyError
from captions.gateway.catalogue import Catalogue
from captions.overrides import UnreadableOverrideError, read
from captions.routing import policy_check, routes
from captions.routing.estimates import PICTURE_TOKENS, CallEstimate, estimate
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack

if TYPE_CHECKING:
    from captions.picture_class import Looks

SOUND_TOKENS_PER_SECOND = 12.5
VIDEO_TOKENS_PER_SECOND = 64.0
CHARACTERS_PER_TOKEN = 4
ANSWERED_SHARE = 0.5
"""Of the tokens an answer may have, how many it is reckoned to have."""


@dataclass(frozen=True)
class Explanation:
    """What would become of a file; `rejected` says why nothing would."""

    kind: str
    media_type: str
    looks: "Looks | None"
    rejected: tuple[str, str] | None = None
    task: str | None = None
    named_by: str | None = None
    ask: Mapping[str, Any] | None = None
    prompt_version: str | None = None
    chains: routes.Chains | None = None
    estimate: CallEstimate | None = None


def parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """Return a stack's parameters as a policy document."""
    names = {
        "language": "Language",
        "image_models": "ImageModels",
        "audio_models": "AudioModels",
        "daily_budget_dollars": "DailyBudgetDollars",
        "prefix_budgets": "PrefixBudgets",
    }
    needed = {
        name: "-" for name, about in WorkerSettings.model_fields.items() if about.is_required()
    }  # what the policy does not depend on
    values = {name: given[parameter] for name, parameter in names.items() if given.get(parameter)}
    settings = WorkerSettings.model_validate({**needed, **values})
    return policy.from_parameters(
        language=settings.language if "language" in values else "",
        image_models=settings.image_models,
        audio_models=settings.audio_models,
        daily_budget_dollars=settings.daily_budget_dollars,
        prefix_budgets=settings.prefix_budgets,
    )


def of(stack: Stack, catalogue: Catalogue | None = None) -> Policy:
    """Return the policy that a stack's functions work by; with a catalogue, its models are checked as the workers do.

    Raises CommandError when its override cannot be read or is broken; the functions then keep the last good one.
    """
    where = stack.parameters.get("PolicyOverride")
    try:
        text = read(where, stack.client) if where else None
    except UnreadableOverrideError as error:
        raise CommandError(str(error), ExitCode.AWS) from error
    models = catalogue if text is not None else None
    return checked(text, parameters=parameters(stack.parameters), catalogue=models, where=where or "the policy")


def checked(
    text: str | None,
    *,
    parameters: Mapping[str, Any] | None = None,
    catalogue: Catalogue | None = None,
    where: str = "the policy",
) -> Policy:
    """Return the policy with an override over it, checked as the functions check it.

    Raises CommandError naming the place that is wrong.
    """
    try:
        checked = policy.load(text, parameters=parameters, catalogue=catalogue)
        policy_check.check(checked)
    except PolicyError as error:
        raise CommandError(f"{where}: {error}", ExitCode.USAGE) from error
    return checked


def explain(
    file: Path,
    key: str,
    rules: Policy,
    catalogue: Catalogue,
    *,
    metadata: Mapping[str, str],
    tags: Mapping[str, str],
) -> Explanation:
    """Tell what dedupe and the workers would do with a file under this key. Nothing is uploaded, and nobody is asked.

    Raises CommandError when the file cannot be read.
    """
    from captions import media, picture_class
    from captions.fingerprint import fingerprint_audio, fingerprint_image
    from captions.media.descriptions import own_description
    from captions.tasks import prompt

    try:
        data = file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    try:
        inspected = media.inspect(data)
    except media.MediaError as error:
        return Explanation("unknown", "unknown", None, rejected=(error.code, error.message))
    seen = picture_class.classify(inspected.picture) if inspected.picture is not None else None
    try:
        fingerprint = fingerprint_image(inspected) if inspected.picture is not None else fingerprint_audio(data)
        described = seen is not None and rules.asks_with_description(key, inspected.kind)
        target = routes.route(
            key, inspected.kind, rules, NO_QUEUES, metadata=metadata, tags=tags, looks=seen, fingerprint=fingerprint,
            description=own_description(data) if described else "",
        )  # fmt: skip
    except routes.UnroutableError as error:
        return Explanation(inspected.kind, inspected.media_type, seen, rejected=(error.code, error.message))
    if target is None:
        message = f"{inspected.kind} ({inspected.media_type}) is not captioned"
        return Explanation(inspected.kind, inspected.media_type, seen, rejected=("unsupported_kind", message))
    asked = prompt(target.ask)
    text = (len(asked.instructions) + len(asked.text)) // CHARACTERS_PER_TOKEN
    length = inspected.duration_s or 0.0
    shown = {
        "audio": round(length * SOUND_TOKENS_PER_SECOND),
        "video": round(length * VIDEO_TOKENS_PER_SECOND),
    }.get(inspected.kind, PICTURE_TOKENS)
    tokens = text + shown + asked.max_tokens
    chains = routes.chains(key, inspected.kind, target.task.name, rules, looks=seen, tokens=tokens, arm=target.arm)
    return Explanation(
        inspected.kind,
        inspected.media_type,
        seen,
        task=target.task.name,
        named_by=target.named_by,
        ask=target.ask.model_dump(exclude_defaults=True),
        prompt_version=target.ask.version,
        chains=chains,
        estimate=estimate(chains.models[0], text + shown, round(asked.max_tokens * ANSWERED_SHARE), catalogue),
    )


NO_QUEUES = IntakeSettings(
    captions_table="-",
    fingerprints_table="-",
    uploads_queue_url="-",
    event_bus_name="-",
    image_queue_url="-",
    audio_queue_url="-",
)
