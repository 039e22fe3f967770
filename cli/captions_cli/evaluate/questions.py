"""Who is measured, and what each of them is asked: every question as an upload of the same name would be asked it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from captions.config.policy import Policy
from captions.gateway.catalogue import Catalogue
from captions.inference import asking
from captions.routing import estimates, routes
from captions.routing.routes import Chains
from captions.tasks import Ask, prompt
from captions_cli import policies
from captions_cli.evaluate.labels import Item

if TYPE_CHECKING:
    from captions.picture_class import Looks


@dataclass(frozen=True)
class Contender:
    """What is measured: a policy with its tiers, or one model alone with a policy's prompts."""

    name: str
    rules: Policy
    model: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A question that is not asked, and why."""

    item: Item
    why: str


@dataclass(frozen=True)
class File:
    """What is known of a file without a model."""

    sha256: str
    kind: str
    media_type: str
    duration_s: float | None
    looks: Looks | None


@dataclass(frozen=True, eq=False)
class Question:
    """One item as one contender is asked it."""

    contender: Contender
    item: Item
    file: File
    ask: Ask
    chains: Chains

    @cached_property
    def key(self) -> str:
        """What tells its answer from others: bytes, ask and models. Contenders that agree in them share it."""
        chains = self.chains
        models = (chains.models, chains.higher, chains.threshold if chains.higher else 0)
        given = json.dumps([self.file.sha256, self.ask.identity, models])
        return hashlib.sha256(given.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Estimate:
    """What questions are expected to cost; `unpriced` names the models that are in none of the sums."""

    questions: int
    expected: Decimal
    most: Decimal
    """If every answer is as long as it may be; without repairs, steps up and second tries."""
    unpriced: tuple[str, ...]


def contenders(models: Sequence[str], rules: Mapping[str, Policy]) -> list[Contender]:
    """Return each model with each policy's prompts; without models, each policy as it is."""
    if not models:
        return [Contender(name, policy) for name, policy in rules.items()]
    return [
        Contender(model if len(rules) == 1 else f"{model} ({name})", policy, model)
        for model in models
        for name, policy in rules.items()
    ]


def prepare(items: Sequence[Item], measured: Sequence[Contender]) -> tuple[list[Question], list[LeftOut]]:
    """Return the questions, a question's contenders one after the other; nothing is asked yet."""
    asked: list[Question] = []
    left_out: list[LeftOut] = []
    files: dict[str, File | LeftOut] = {}
    for item in items:
        if item.name not in files:
            files[item.name] = _file(item)
        file = files[item.name]
        if isinstance(file, LeftOut):
            left_out.append(replace(file, item=item))
            continue
        for contender in measured:
            try:
                asked.append(_question(contender, item, file))
            except routes.UnroutableError as error:
                left_out.append(LeftOut(item, f"{contender.name}: {error.message}"))
    return asked, left_out


def estimate(asked: Iterable[Question], catalogue: Catalogue) -> Estimate:
    """Return what questions cost by the catalogue's prices."""
    expected, most = Decimal(0), Decimal(0)
    unpriced: set[str] = set()
    once = {question.key: question for question in asked}
    for question in once.values():
        sent = prompt(question.ask)
        text = (len(sent.instructions) + len(sent.text)) // policies.CHARACTERS_PER_TOKEN
        shown = estimates.PICTURE_TOKENS
        if question.file.kind in ("audio", "video"):
            shown = round((question.file.duration_s or 0.0) * policies.SOUND_TOKENS_PER_SECOND)
        model = question.chains.models[0]
        usual = estimates.estimate(model, text + shown, round(sent.max_tokens * policies.ANSWERED_SHARE), catalogue)
        longest = estimates.estimate(model, text + shown, sent.max_tokens, catalogue)
        if usual.dollars is None or longest.dollars is None:
            unpriced.add(model)
        else:
            expected += usual.dollars
            most += longest.dollars
    return Estimate(len(once), expected, most, tuple(sorted(unpriced)))


def _file(item: Item) -> File | LeftOut:
    from captions import media, picture_class

    try:
        data = item.path.read_bytes()
        inspected = media.inspect(data)
    except OSError as error:
        return LeftOut(item, f"it cannot be read: {error.strerror}")
    except media.MediaError as error:
        return LeftOut(item, f"{error.code}: {error.message}")
    looks = picture_class.classify(inspected.picture) if inspected.picture is not None else None
    return File(hashlib.sha256(data).hexdigest(), inspected.kind, inspected.media_type, inspected.duration_s, looks)


def _question(contender: Contender, item: Item, file: File) -> Question:
    # The set decides on the task, whatever the policy lets uploaders decide.
    rules = contender.rules.model_copy(update={"overrides": ("metadata",)})
    metadata = {f"caption-context-{name}": value for name, value in item.context.items()}
    metadata["caption-task"] = item.task
    if item.language is not None and item.measure in ("caption", "alt_text", "objects"):
        metadata["caption-language"] = item.language
    route = routes.route(item.name, file.kind, rules, policies.NO_QUEUES, metadata=metadata, looks=file.looks)
    if route is None:
        raise routes.UnroutableError("unsupported_kind", f"{file.kind} is not captioned")
    chains = asking.chains(item.name, file.kind, route.ask, file.looks, rules)
    if contender.model is not None:
        chains = replace(chains, models=(contender.model,), higher_tier=None, higher=())
    return Question(contender, item, file, route.ask, chains)
