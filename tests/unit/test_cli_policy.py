"""`captions policy` and `captions route`: they explain, and neither upload nor ask."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from captions_cli.main import app
from captions_cli.policies import parameters

MEDIA = Path(__file__).parents[2] / "cli" / "captions_cli" / "demo_media"
Captions = Callable[..., Ran]


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captions:
    """Runs the command where no stack is."""
    monkeypatch.setenv("CAPTIONS_HOME", str(tmp_path / "none"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def override(directory: Path, text: str) -> Path:
    path = directory / "policy.toml"
    path.write_text(text)
    return path


def test_a_good_override_is_told_to_be_one(captions: Captions, tmp_path: Path) -> None:
    assert captions("policy", "check", override(tmp_path, '[languages]\ndefault = "de"')).exit_code == 0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[tiers.easy]\nmodels = ["GPT-5x"]', "tiers.easy.models.0"),
        ('[[rules]]\ntask = "ocr"\nkinds = ["audio"]', "rules.0.task"),
        ("a = [", "not valid TOML"),
    ],
)
def test_a_bad_override_is_refused_naming_the_place(captions: Captions, tmp_path: Path, text: str, place: str) -> None:
    ran = captions("policy", "check", override(tmp_path, text))
    assert ran.exit_code == 2
    assert place in ran.stderr


def test_a_model_that_a_models_override_adds_is_known(captions: Captions, tmp_path: Path) -> None:
    rules = override(tmp_path, '[tiers.easy]\nmodels = ["House-VL"]')
    models = tmp_path / "models.toml"
    models.write_text(
        '[models."House-VL"]\nprovider = "us"\nmodalities = ["text", "image"]\ncontext = 32768\n'
        "input_price = 1.0\noutput_price = 2.0\n"
    )
    assert captions("policy", "check", rules).exit_code == 2
    assert captions("policy", "check", rules, "--models", models).exit_code == 0
    file = MEDIA / "casa-mila.jpg"
    reported = json.loads(captions("route", file, "--policy", rules, "--models", models, "-o", "json").stdout)
    assert reported["models"] == ["House-VL"]
    assert float(reported["expected"]["dollars"]) > 0
    models.write_text("models = [")
    broken = captions("policy", "check", rules, "--models", models)
    assert (broken.exit_code, "models.toml" in broken.stderr) == (2, True)


def test_route_tells_task_tier_models_and_costs(captions: Captions) -> None:
    reported = json.loads(captions("route", MEDIA / "casa-mila.jpg", "-o", "json").stdout)
    assert (reported["kind"], reported["task"], reported["looks"]["category"]) == ("image", "caption", "photo")
    assert (reported["tier"], reported["models"][0], reported["escalates"]["to"]) == ("easy", "GLM-4.5V", "hard")
    assert reported["expected"]["dollars"] is None  # no input price is published
    sound = json.loads(captions("route", MEDIA / "block-books.wav", "-o", "json").stdout)
    assert sound["tier"] == "audio"
    assert "escalates" not in sound  # no tier stands above it


def test_route_tells_the_side_of_an_experiment_and_what_is_asked_there(captions: Captions, tmp_path: Path) -> None:
    file, sides = MEDIA / "casa-mila.jpg", {}
    for share in ("0.001", "0.999"):
        text = f'[experiments.short]\ntask = "caption"\nshare = {share}\ntemplate = "Six words."\ntier = "hard"'
        reported = json.loads(captions("route", file, "--policy", override(tmp_path, text), "-o", "json").stdout)
        assert reported["experiment"]["experiment"] == "short"
        sides[reported["experiment"]["arm"]] = (
            reported["tier"],
            "template" in reported["asked"],
            reported["prompt_version"],
        )
    assert sides["control"][:2] == ("easy", False)
    assert sides["variant"][:2] == ("hard", True)
    assert sides["control"][2] != sides["variant"][2]
    assert "experiment" not in json.loads(captions("route", file, "-o", "json").stdout)


def test_route_goes_by_key_metadata_tags_and_an_override(captions: Captions, tmp_path: Path) -> None:
    rules = override(tmp_path, '[[rules]]\nprefix = "scans/"\ntask = "ocr"\n[tiers.hard]\nmodels = ["GPT-4o"]')
    file = MEDIA / "casa-mila.jpg"
    reported = json.loads(captions("route", file, "--policy", rules, "--key", "scans/1.jpg", "-o", "json").stdout)
    assert (reported["task"], reported["models"]) == ("ocr", ["GPT-4o"])
    assert float(reported["expected"]["dollars"]) > 0
    asked = captions("route", file, "--metadata", "caption-task=alt_text", "--tag", "caption:language=de", "-o", "json")
    reported = json.loads(asked.stdout)
    assert (reported["task"], reported["because_of"], reported["asked"]["language"]) == (
        "alt_text", "x-amz-meta-caption-task", "de",
    )  # fmt: skip


def test_route_tells_why_a_file_would_be_rejected(captions: Captions, tmp_path: Path) -> None:
    ran = captions("route", MEDIA / "casa-mila.jpg", "--metadata", "caption-task=music", "-o", "json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["rejected"]["code"] == "task_not_for_kind"
    text = tmp_path / "notes.txt"
    text.write_text("eggs, flour")
    assert json.loads(captions("route", text, "-o", "json").stdout)["rejected"]["code"] == "unsupported"


def test_a_stacks_parameters_are_its_policys() -> None:
    given = {"ImageModels": "a,b", "Language": "de", "PrefixBudgets": "x/=2", "NearDuplicates": "strict"}
    result = parameters(given)
    assert result["tiers"]["easy"]["models"] == ["a", "b"]
    assert result["languages"] == {"default": "de"}
    assert {name: str(amount) for name, amount in result["budgets"]["prefixes"].items()} == {"x/": "2"}
    assert parameters({}) == {}
