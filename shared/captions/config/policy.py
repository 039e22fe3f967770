"""What is asked about which upload, of which models, and what may be spent: one document, checked as a whole.

The defaults stand in `policy.toml` beside this module. The template's parameters are laid over them, then an override
document of the same shape (from a parameter store or a bucket), so that another model or prompt needs no deploy:

    >>> policy = load(override='[languages]\\ndefault = "de"')
    >>> policy.language("holiday/a.jpg")
    'de'
"""

# Annotations stay what they are: Pydantic would have to compile each of them, in every cold start.
import re
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from captions.once import once
from captions.overrides import laid_over

if TYPE_CHECKING:
    from captions.gateway.catalogue import Catalogue
    from captions.picture_class import Looks

Kind = Literal["image", "animation", "document", "audio", "video"]
Category = Literal["product", "photo", "busy", "document", "chart", "screenshot", "code", "drawing", "little"]
IMAGE_TIERS = ("easy", "hard", "chinese", "long")
"""The packaged tiers that the template's ImageModels stands in for."""
AUDIO_TIERS = ("audio", "video")
"""The packaged tiers that the template's AudioModels stands in for."""
LONGEST_DOCUMENT = 1_000_000
"""Characters of an override, at most."""

_LANGUAGE = re.compile(
    r"[a-z]{2,3}(?:-[a-z]{3}){0,3}"  # language and its extensions
    r"(?:-[a-z]{4})?"  # script
    r"(?:-(?:[a-z]{2}|[0-9]{3}))?"  # region
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[a-wy-z0-9](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?",  # private use
    re.IGNORECASE,
)


class PolicyError(Exception):
    """The policy, or the document that overrides it, is not what the pipeline can work with."""


def is_language(tag: str) -> bool:
    """Tell whether a text is a well-formed language tag with a primary subtag of two or three letters (RFC 5646)."""
    return _LANGUAGE.fullmatch(tag) is not None


def _language(tag: str) -> str:
    if not is_language(tag):
        raise ValueError(f"{tag!r} is no BCP-47 language tag")
    return tag


Language = Annotated[str, AfterValidator(_language)]
Threshold = Annotated[float, Field(ge=0, le=1)]
ExperimentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Dollars = Annotated[Decimal, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskPolicy(_Part):
    """One task: whether it may be asked for, and how it is asked where nobody says otherwise."""

    enabled: bool = True
    style: str = ""
    template: str = Field(default="", max_length=8_000)
    """A prompt of the user's own with {variables}, in place of the packaged one."""
    tier: str | None = None
    """The tier its uploads go to, whatever they look like."""


class Rule(_Part):
    """What holds for the keys under a prefix; an empty prefix holds for every key."""

    prefix: str = ""
    kinds: tuple[Kind, ...] = ()
    """Of these kinds; empty: of every kind."""
    task: str | None = None
    style: str | None = None
    language: Language | None = None
    tier: str | None = None
    question: str | None = None
    lane: Literal["now", "bulk"] | None = None
    """`bulk`: nobody waits for these captions, which may come from a batch (docs/bulk.md)."""

    def holds_for(self, key: str, kind: str) -> bool:
        """Tell whether the rule is about such an upload."""
        return key.startswith(self.prefix) and (not self.kinds or kind in self.kinds)


class WriteBackRule(_Part):
    """Where captions of the keys under a prefix are written to."""

    prefix: str = ""
    kinds: tuple[Kind, ...] = ()
    """Of these kinds; empty: of every kind."""
    to: tuple[Literal["sidecar", "xmp", "subtitles", "tags", "embed", "metadata"], ...] = Field(min_length=1)
    copies: str = Field(default="", max_length=400, pattern=r"^([^/\s][^\s]*)?$")
    """What the keys of copies begin with that have their caption inside (`embed`) or in S3's metadata (`metadata`)."""
    existing: Literal["skip", "replace", "keep-as-context"] = "skip"
    """What becomes of a description that a file has already: it gets no copy, or ours takes its place in the copy, or
    it stays there and is shown to the model, as what its owner says of it."""

    @model_validator(mode="after")
    def _copies_have_a_place(self) -> "WriteBackRule":
        if bool({"embed", "metadata"} & set(self.to)) != bool(self.copies):
            raise ValueError("`embed` and `metadata` need `copies`, and `copies` needs one of them")
        return self


class Auto(_Part):
    """The task of an upload for which nobody names one."""

    image: str
    animation: str
    document: str
    audio: str
    video: str
    categories: Mapping[Category, str] = Field(default_factory=dict)


class Tier(_Part):
    """Models that are good enough for the same uploads, in order of preference."""

    models: tuple[str, ...] = Field(min_length=1)
    escalates_to: str | None = None


class Routing(_Part):
    """Which tier an upload goes to."""

    image: str
    animation: str
    document: str
    audio: str
    video: str
    category_from: Threshold
    cjk_from: Threshold
    cjk_text_share_from: Threshold
    cjk_tier: str
    long_from_tokens: int = Field(gt=0)
    long_tier: str
    categories: Mapping[Category, str] = Field(default_factory=dict)


class Escalation(_Part):
    """From which confidence an answer is good enough."""

    threshold: Threshold
    least_seconds: float = Field(gt=0)
    tasks: Mapping[str, Threshold] = Field(default_factory=dict)


class ConfidencePolicy(_Part):
    """When people's accepts and edits are enough to calibrate a model's scores."""

    calibrated_from: int = Field(ge=20)


CallerName = Annotated[str, Field(min_length=1, max_length=2_048)]
"""As the API's authorizer names a caller: the ARN they sign as, or `cognito:NAME`; or a beginning of it and a *."""


class SpendingLimits(_Part):
    """Dollars a day (UTC): for everything, and by key prefix."""

    daily: Dollars | None = None
    prefixes: Mapping[str, Dollars] = Field(default_factory=dict)


class Languages(_Part):
    """The language of what is written, by key prefix."""

    default: Language
    prefixes: Mapping[str, Language] = Field(default_factory=dict)


class Experiment(_Part):
    """Another prompt or tier for a share of a task's uploads, so that what people edit can decide between the two."""

    task: str
    share: Annotated[float, Field(gt=0, lt=1)]
    """Of its uploads, how many are the variant; the others are the control."""
    prefix: str = ""
    kinds: tuple[Kind, ...] = ()
    """Of these kinds; empty: of every kind."""
    style: str | None = None
    template: str | None = Field(default=None, min_length=1, max_length=8_000)
    tier: str | None = None

    def is_about(self, key: str, kind: str, task: str) -> bool:
        """Tell whether an upload takes part, in either arm."""
        return task == self.task and key.startswith(self.prefix) and (not self.kinds or kind in self.kinds)

    def varied(self, about: TaskPolicy) -> TaskPolicy:
        """Return how the variant asks for the task."""
        return about.model_copy(
            update={"style": self._style or about.style, "template": self.template or about.template}
        )

    def ruled(self, style: str | None) -> str | None:
        """Return the style that a rule asks the variant for; none where the experiment is about styles."""
        return style if self._style is None else None

    @property
    def _style(self) -> str | None:
        return self.style or ("custom" if self.template is not None and self.task == "caption" else None)


class RecaptionPolicy(_Part):
    """What makes a stored answer stale."""

    prompt: bool
    model: bool


class Policy(_Part):
    """The whole policy; field names are the document's."""

    overrides: tuple[Literal["metadata", "tags"], ...]
    auto: Auto
    languages: Languages
    tasks: Mapping[str, TaskPolicy] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    tiers: Mapping[str, Tier]
    routing: Routing
    escalation: Escalation
    confidence: ConfidencePolicy
    budgets: SpendingLimits
    vocabulary: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    recaption: RecaptionPolicy
    experiments: Mapping[ExperimentName, Experiment] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """By name; an upload takes part in the first that is about it."""
    write_back: tuple[WriteBackRule, ...] = Field(default=(), exclude_if=lambda value: not value)
    tenants: Mapping[CallerName, tuple[str, ...]] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Beginnings of the keys that callers of the API may see, by who they are; of whom it says nothing, their claim
    alone decides."""

    @model_validator(mode="after")
    def _names_tiers_it_has(self) -> "Policy":
        named = {f"routing.{kind}": getattr(self.routing, kind) for kind in (*KINDS, "cjk_tier", "long_tier")}
        named |= {f"routing.categories.{name}": tier for name, tier in self.routing.categories.items()}
        named |= {f"tasks.{name}.tier": task.tier for name, task in self.tasks.items()}
        named |= {f"rules.{index}.tier": rule.tier for index, rule in enumerate(self.rules)}
        named |= {f"tiers.{name}.escalates_to": tier.escalates_to for name, tier in self.tiers.items()}
        named |= {f"experiments.{name}.tier": experiment.tier for name, experiment in self.experiments.items()}
        for place, tier in named.items():
            if tier is not None and tier not in self.tiers:
                raise ValueError(f"{place}: there is no tier {tier!r}")
        if circle := next((name for name, tier in self.tiers.items() if tier.escalates_to == name), None):
            raise ValueError(f"tiers.{circle}.escalates_to: a tier cannot escalate to itself")
        return self

    def task(self, name: str) -> TaskPolicy:
        """Return what is said about a task; the defaults where nothing is."""
        return self.tasks.get(name, TaskPolicy())

    def rule(self, key: str, kind: str) -> Rule | None:
        """Return the first rule that is about an upload."""
        return next((rule for rule in self.rules if rule.holds_for(key, kind)), None)

    def prefixes_of(self, caller: str) -> tuple[str, ...] | None:
        """Return the beginnings of the keys that a caller of the API may see; None: nothing is said of them.

        Their own name goes before its beginnings, a longer one before a shorter one.
        """
        fits = [name for name in self.tenants if name == caller or (name[-1] == "*" and caller.startswith(name[:-1]))]
        return self.tenants[max(fits, key=lambda name: (name == caller, len(name)))] if fits else None

    def write_back_rule(self, key: str, kind: str) -> WriteBackRule | None:
        """Return the first rule that says where an object's caption is written to."""
        about = (rule for rule in self.write_back if key.startswith(rule.prefix))
        # Of what was deleted or never read the kind may be unknown: what stands beside it is still ours to remove.
        return next((rule for rule in about if not rule.kinds or not kind or kind in rule.kinds), None)

    def asks_with_description(self, key: str, kind: str) -> bool:
        """Whether the description that a file has of its own is part of what is asked about it."""
        rule = self.write_back_rule(key, kind)
        return rule is not None and rule.existing == "keep-as-context"

    def experiment(self, key: str, kind: str, task: str) -> str | None:
        """Return the name of the first experiment that an upload takes part in."""
        return next((name for name, about in self.experiments.items() if about.is_about(key, kind, task)), None)

    def language(self, key: str) -> str:
        """Return the language of what is written about a key, by the longest prefix that it lies under."""
        under = [prefix for prefix in self.languages.prefixes if key.startswith(prefix)]
        return self.languages.prefixes[max(under, key=len)] if under else self.languages.default

    def automatic(self, kind: str, looks: "Looks | None") -> str:
        """Return the task of an upload for which nobody names one."""
        if looks is not None and looks.confidence >= self.routing.category_from:
            named = self.auto.categories.get(looks.category)
            if named is not None:
                return named
        task: str = getattr(self.auto, kind)
        return task

    def automatic_tasks(self, kind: str) -> frozenset[str]:
        """Return the tasks that uploads of a kind may get for which nobody names one, whatever they look like."""
        pictured = kind in ("image", "animation", "document")
        return frozenset({getattr(self.auto, kind), *(self.auto.categories.values() if pictured else ())})

    def tier(
        self, key: str, kind: str, task: str, looks: "Looks | None", *, tokens: int = 0, variant: str | None = None
    ) -> str:
        """Return the tier of an upload: what a rule says, the task, its length, its writing, its looks, its kind.

        `variant` is the tier of an experiment; it goes before all of them but the length.
        """
        if variant is not None:
            too_long = tokens > self.routing.long_from_tokens and kind in ("image", "animation", "document")
            return self.routing.long_tier if too_long else variant
        rule = self.rule(key, kind)
        if rule is not None and rule.tier is not None:
            return rule.tier
        pictured = kind in ("image", "animation", "document")
        if tokens > self.routing.long_from_tokens and pictured:
            return self.routing.long_tier
        if (
            looks is not None
            and looks.cjk is not None
            and looks.cjk >= self.routing.cjk_from
            and looks.text_share >= self.routing.cjk_text_share_from
        ):
            return self.routing.cjk_tier
        if (named := self.task(task).tier) is not None:
            return named
        if pictured and looks is not None and looks.confidence >= self.routing.category_from:
            named = self.routing.categories.get(looks.category)
            if named is not None:
                return named
        default: str = getattr(self.routing, kind)
        return default

    def threshold(self, task: str) -> float:
        """Return the confidence under which an answer to a task is asked for once more."""
        return self.escalation.tasks.get(task, self.escalation.threshold)

    def step_up(self, tier: str) -> str | None:
        """Return the tier to escalate to; None where it would ask the same model first."""
        higher = self.tiers[tier].escalates_to
        if higher is None or self.tiers[higher].models[0] == self.tiers[tier].models[0]:
            return None
        return higher


KINDS: tuple[Kind, ...] = ("image", "animation", "document", "audio", "video")


def load(
    override: str | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    tasks: Iterable[str] | None = None,
    catalogue: "Catalogue | None" = None,
) -> Policy:
    """Return the packaged policy with `parameters` (see `from_parameters`) and then an override document laid over it.

    Tables are merged key by key; every other value, lists too, replaces what stood there. `tasks` are the names that
    tasks may have, and `catalogue` the models; what is not given is not checked.

    Raises:
        PolicyError: the document is not TOML, or what results of it is no policy. The message names the place.
    """
    document = laid_over(_packaged(), parameters or {})
    if override is not None and override.strip():
        if len(override) > LONGEST_DOCUMENT:
            raise PolicyError(f"the policy's override is longer than {LONGEST_DOCUMENT:,} characters")
        document = laid_over(document, _parse(override, "the policy's override"))
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise PolicyError(f"the policy is wrong at {where or 'its top'}: {first['msg']}") from error
    if tasks is not None:
        _check_tasks(policy, frozenset(tasks))
    if catalogue is not None:
        _check_models(policy, catalogue)
    return policy


def from_parameters(
    *,
    language: str = "",
    image_models: Iterable[str] = (),
    audio_models: Iterable[str] = (),
    daily_budget_dollars: Decimal | None = None,
    prefix_budgets: Mapping[str, Decimal] | None = None,
) -> dict[str, Any]:
    """Return the template's parameters as a document; those that are not given leave the packaged policy as it is.

    Models that are given stand in for those of every packaged tier of their kind, so that nothing escalates.
    """
    document: dict[str, Any] = {}
    tiers: dict[str, Any] = {}
    if images := list(image_models):
        tiers |= {name: {"models": images} for name in IMAGE_TIERS}
    if sounds := list(audio_models):
        tiers |= {name: {"models": sounds} for name in AUDIO_TIERS}
    if tiers:
        document["tiers"] = tiers
    if language:
        document["languages"] = {"default": language}
    budgets: dict[str, Any] = {}
    if daily_budget_dollars is not None:
        budgets["daily"] = daily_budget_dollars
    if prefix_budgets:
        budgets["prefixes"] = dict(prefix_budgets)
    if budgets:
        document["budgets"] = budgets
    return document


def _check_tasks(policy: Policy, tasks: frozenset[str]) -> None:
    named = {f"tasks.{name}": name for name in policy.tasks}
    named |= {f"auto.{kind}": getattr(policy.auto, kind) for kind in KINDS}
    named |= {f"auto.categories.{name}": task for name, task in policy.auto.categories.items()}
    named |= {f"rules.{index}.task": rule.task for index, rule in enumerate(policy.rules) if rule.task is not None}
    named |= {f"escalation.tasks.{name}": name for name in policy.escalation.tasks}
    named |= {f"experiments.{name}.task": experiment.task for name, experiment in policy.experiments.items()}
    for place, task in named.items():
        if task not in tasks:
            raise PolicyError(f"the policy is wrong at {place}: there is no task {task!r}")


def _check_models(policy: Policy, catalogue: "Catalogue") -> None:
    for name, tier in policy.tiers.items():
        for index, model in enumerate(tier.models):
            # One that is only disabled is passed over, so that a model can be taken out in one place.
            if model not in catalogue.models:
                raise PolicyError(
                    f"the policy is wrong at tiers.{name}.models.{index}: the catalogue has no model {model!r}"
                )


@once
def _packaged() -> Mapping[str, Any]:
    return _parse(files("captions.config").joinpath("policy.toml").read_text(encoding="utf-8"), "policy.toml")


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{what} is not valid TOML: {error}") from error
