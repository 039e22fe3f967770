"""The policy: what is wrong is named, what is given goes before what is packaged, and tiers go by what is known."""

from decimal import Decimal

import pytest

from captions.config.environment import IntakeSettings
from captions.config.policy import PolicyError, from_parameters, is_language, load
from captions.gateway.catalogue import load as load_catalogue
from captions.overrides import MAX_AGE_SECONDS, Overridden, UnreadableOverrideError
from captions.picture_class import Looks
from captions.routing import policy_check
from captions.routing.routes import UnroutableError, route
from captions.tasks import TASKS

SETTINGS = IntakeSettings(
    captions_table="c", fingerprints_table="f", uploads_queue_url="u", image_queue_url="i", audio_queue_url="a",
    event_bus_name="b",
)  # fmt: skip
PHOTO = Looks(category="photo", confidence=0.9)


def test_the_packaged_policy_is_one_and_its_models_and_tasks_exist() -> None:
    policy = load(tasks=TASKS, catalogue=load_catalogue())
    policy_check.check(policy)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("a = [", "not valid TOML"),
        ("nonsense = 1", "nonsense"),
        ("[tiers.easy]\nmodels = []", r"tiers\.easy\.models"),
        ('[tiers.easy]\nmodels = ["GPT-5x"]', r"tiers\.easy\.models\.0.*GPT-5x"),
        ('[tiers.easy]\nescalates_to = "easy"', "itself"),
        ('[routing]\nimage = "best"', r"routing\.image.*best"),
        ('[auto]\nimage = "paint"', r"auto\.image.*paint"),
        ('[auto]\naudio = "caption"', r"auto\.audio"),
        ('[[rules]]\ntask = "ocr"\nkinds = ["audio"]', r"rules\.0\.task"),
        ('[[rules]]\nlanguage = "german"', r"rules\.0\.language"),
        ('[languages]\ndefault = "x"', r"languages\.default"),
        ("[escalation]\nthreshold = 1.5", r"escalation\.threshold"),
        ("[budgets]\ndaily = 0", r"budgets\.daily"),
        ('[tasks.caption]\nstyle = "fancy"', r"tasks\.caption\.style"),
        ('[tasks.caption]\nstyle = "custom"', "template"),
        ('[tasks.caption]\ntemplate = "{who}"', r"tasks\.caption\.template"),
        ('[experiments.x]\ntask = "paint"\nshare = 0.1\nstyle = "concise"', r"experiments\.x\.task.*paint"),
        ('[experiments.x]\ntask = "caption"\nshare = 1.0\nstyle = "concise"', r"experiments\.x\.share"),
        ('[experiments.x]\ntask = "caption"\nshare = 0\nstyle = "concise"', r"experiments\.x\.share"),
        ('[experiments.x]\ntask = "caption"\nshare = 0.1', r"experiments\.x.*without it"),
        ('[experiments.x]\ntask = "caption"\nshare = 0.1\ntier = "best"', r"experiments\.x\.tier.*best"),
        ('[experiments.x]\ntask = "caption"\nshare = 0.1\nstyle = "fancy"', r"experiments\.x\.style"),
        ('[experiments.x]\ntask = "caption"\nshare = 0.1\ntemplate = "{who}"', r"experiments\.x\.template"),
        ('[experiments.x]\ntask = "ocr"\nkinds = ["audio"]\nshare = 0.1\ntier = "easy"', r"experiments\.x\.task"),
        ('[experiments."X Y"]\ntask = "ocr"\nshare = 0.1\ntier = "easy"', r"experiments"),
        (
            '[experiments.x]\ntask = "ocr"\nshare = 0.1\ntier = "easy"\n'
            '[experiments.y]\ntask = "ocr"\nprefix = "a/"\nshare = 0.1\ntier = "chinese"',
            r"experiments\.y.*experiments\.x",
        ),
    ],
)
def test_what_is_wrong_with_an_override_is_named(override: str, named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        policy_check.check(load(override, catalogue=load_catalogue()))


def test_an_override_goes_before_the_parameters_and_these_before_what_is_packaged() -> None:
    given = from_parameters(language="fr", image_models=["GPT-4o"], daily_budget_dollars=Decimal(9))
    assert load().tiers["easy"].models[0] == "GLM-4.5V"
    policy = load(parameters=given)
    assert {policy.tiers[name].models for name in ("easy", "hard", "chinese", "long")} == {("GPT-4o",)}
    assert policy.tiers["audio"] == load().tiers["audio"]
    assert (policy.language("a.jpg"), policy.budgets.daily) == ("fr", Decimal(9))
    over = load(
        '[languages]\ndefault = "de"\n[tiers.easy]\nmodels = ["GLM-4.5V"]\n[budgets]\ndaily = 1.5', parameters=given
    )
    assert over.language("a.jpg") == "de"
    assert (over.tiers["easy"].models, over.tiers["hard"].models) == (("GLM-4.5V",), ("GPT-4o",))
    assert over.budgets.daily == Decimal("1.5")


def test_with_models_of_the_users_own_nothing_escalates() -> None:
    assert load().step_up("easy") == "hard"
    assert load(parameters=from_parameters(image_models=["GPT-4o"])).step_up("easy") is None


@pytest.mark.parametrize(
    ("kind", "task", "looks", "tokens", "tier"),
    [
        ("image", "caption", PHOTO, 0, "easy"),
        ("image", "caption", Looks(category="busy", confidence=0.9), 0, "hard"),
        ("image", "caption", Looks(category="photo", confidence=0.3), 0, "hard"),
        ("image", "caption", None, 0, "hard"),
        ("image", "ocr", PHOTO, 0, "hard"),
        ("image", "caption", Looks(category="document", confidence=0.9, text_share=0.3, cjk=0.9), 0, "chinese"),
        ("image", "ocr", Looks(category="document", confidence=0.9, text_share=0.3, cjk=0.9), 0, "chinese"),
        ("image", "caption", Looks(category="photo", confidence=0.9, text_share=0.01, cjk=0.9), 0, "easy"),
        ("image", "caption", PHOTO, 40_000, "long"),
        ("audio", "transcribe", None, 40_000, "audio"),
        ("video", "video", None, 0, "video"),
    ],
)
def test_the_tier_goes_by_what_is_known(kind: str, task: str, looks: Looks | None, tokens: int, tier: str) -> None:
    assert load().tier("a", kind, task, looks, tokens=tokens) == tier


def test_the_first_rule_that_is_about_an_upload_counts_and_the_longest_prefix_of_a_language() -> None:
    policy = load(
        '[[rules]]\nprefix = "scans/cards/"\ntask = "caption"\ntier = "easy"\n'
        '[[rules]]\nprefix = "scans/"\ntask = "ocr"\nlanguage = "nl"\n'
        '[languages.prefixes]\n"a/" = "de"\n"a/b/" = "pt-BR"'
    )
    policy_check.check(policy)

    def asked(key: str, kind: str = "image") -> tuple[str, str]:
        result = route(key, kind, policy, SETTINGS)
        assert result is not None
        return result.task.name, result.ask.language

    assert asked("scans/cards/1.jpg") == ("caption", "en")
    assert asked("scans/1.jpg") == ("ocr", "nl")
    # A rule is about the kinds that its task takes.
    assert asked("scans/1.mp3", "audio") == ("transcribe", "nl")
    assert asked("a/1.jpg") == ("caption", "de")
    assert asked("a/b/1.jpg") == ("caption", "pt-BR")
    looks = Looks(category="busy", confidence=0.9)
    assert policy.tier("scans/cards/1.jpg", "image", "caption", looks) == "easy"


def test_metadata_goes_before_tags_and_these_before_rules() -> None:
    policy = load('[[rules]]\ntask = "alt_text"\nkinds = ["image"]')
    metadata = {"caption-task": "ocr", "caption-context-title": "=?UTF-8?B?R3LDvMOfZQ==?=", "owner": "me"}
    tags = {"caption:task": "objects", "caption:language": "de", "caption:context:place": "Bonn"}

    def named(metadata: dict[str, str], tags: dict[str, str]) -> str:
        result = route("a.jpg", "image", policy, SETTINGS, metadata=metadata, tags=tags)
        assert result is not None
        return result.task.name

    assert [named(metadata, tags), named({}, tags), named({}, {})] == ["ocr", "objects", "alt_text"]
    result = route("a.jpg", "image", policy, SETTINGS, metadata=metadata, tags=tags)
    assert result is not None
    assert result.ask.language == "de"
    assert result.ask.context == {"title": "Grüße", "place": "Bonn"}
    deaf = load("overrides = []")
    assert (reported := route("a.jpg", "image", deaf, SETTINGS, metadata=metadata, tags=tags)) is not None
    assert reported.task.name == "caption"


@pytest.mark.parametrize(
    ("kind", "metadata", "code"),
    [
        ("image", {"caption-task": "paint"}, "unknown_task"),
        ("image", {"caption-task": "transcribe"}, "task_not_for_kind"),
        ("audio", {"caption-task": "ocr"}, "task_not_for_kind"),
        ("image", {"caption-task": "music"}, "task_not_for_kind"),
        ("image", {"caption-language": "german"}, "bad_language"),
        ("image", {"caption-language": "de_DE"}, "bad_language"),
        ("image", {"caption-style": "fancy"}, "bad_style"),
        ("image", {"caption-style": "custom"}, "bad_style"),
        ("image", {"caption-taks": "ocr"}, "unknown_option"),
        ("audio", {"caption-task": "audio_qa"}, "question_missing"),
        ("image", {"caption-question": "why?"}, "question_for_another_task"),
    ],
)
def test_what_cannot_be_done_is_never_left_out(kind: str, metadata: dict[str, str], code: str) -> None:
    with pytest.raises(UnroutableError) as refused:
        route("a", kind, load(), SETTINGS, metadata=metadata)
    assert refused.value.code == code
    assert "caption-" in refused.value.message


def test_a_task_that_is_disabled_is_told() -> None:
    with pytest.raises(UnroutableError, match="disabled"):
        route("a", "image", load("[tasks.caption]\nenabled = false"), SETTINGS)


@pytest.mark.parametrize(("tag", "is_one"), [("en", True), ("zh-Hans-CN", True), ("sr-Latn", True), ("x", False),
                                             ("english", False), ("de_DE", False), ("de-", False)])  # fmt: skip
def test_language_tags(tag: str, is_one: bool) -> None:
    assert is_language(tag) is is_one


class Shelf:
    """A document that changes, and a clock."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.at = 0.0
        self.reads = 0
        self.told: list[str] = []
        self.overridden = Overridden(
            self.read,
            load,
            errors=(PolicyError,),
            broken=lambda error: self.told.append(str(error)),
            now=lambda: self.at,
        )

    def read(self) -> str:
        self.reads += 1
        if self.text is None:
            raise UnreadableOverrideError("it is gone")
        return self.text

    def language_later(self) -> str:
        self.at += MAX_AGE_SECONDS
        return self.overridden.current().languages.default


def test_a_broken_override_keeps_the_last_good_one_is_told_each_time_and_recovers() -> None:
    shelf = Shelf('[languages]\ndefault = "de"')
    assert shelf.language_later() == "de"
    for broken in ("a = [", '[languages]\ndefault = "x"', None):
        shelf.text = broken
        assert shelf.language_later() == "de"
    assert len(shelf.told) == 3
    shelf.text = '[languages]\ndefault = "fr"'
    assert shelf.language_later() == "fr"
    assert len(shelf.told) == 3


def test_without_a_good_override_yet_the_packaged_policy_holds_and_it_is_told() -> None:
    shelf = Shelf("a = [")
    assert shelf.overridden.current() == load()
    assert len(shelf.told) == 1


def test_an_override_is_read_every_few_minutes_and_unchanged_it_stays_the_same_object() -> None:
    shelf = Shelf('[languages]\ndefault = "de"')
    first = shelf.overridden.current()
    for _ in range(50):
        shelf.at += 1.0
        assert shelf.overridden.current() is first
    assert shelf.reads == 1
    shelf.at += MAX_AGE_SECONDS
    assert shelf.overridden.current() is first
    assert shelf.reads == 2


def test_who_may_see_what_is_said_by_name_or_by_the_longest_beginning_of_it() -> None:
    policy = load(
        override='[tenants]\n"role/a*" = ["a/"]\n"role/*" = ["r/"]\n"role/ab" = ["ab/", "x/"]\n"role/none" = []'
    )
    assert policy.prefixes_of("role/ab") == ("ab/", "x/")
    assert policy.prefixes_of("role/abc") == ("a/",)
    assert policy.prefixes_of("role/b") == ("r/",)
    assert policy.prefixes_of("role/none") == ()
    assert policy.prefixes_of("cognito:ann") is None
    assert load(override='[tenants]\n"*" = []').prefixes_of("cognito:ann") == ()
    with pytest.raises(PolicyError):
        load(override='[tenants]\n"" = ["a/"]')
