"""The documentation of the template says what the template says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from captions_cli.local.cloudformation.translate import load_template

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def parameters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parameters", ROOT / "docs" / "parameters.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_every_parameter_is_documented_as_it_is(parameters: ModuleType) -> None:
    template = load_template(ROOT / "template.yaml")
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert parameters.page_with(page, template) == page, "run python docs/parameters.py"
    assert all(f"| `{name}` |" in page for name in template["Parameters"])


def commands(page: Path) -> list[str]:
    """The commands that a page shows, each with its continued lines."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ {4,}(?:\w+=\$\()?((?:captions|aws) .+)$", text, re.MULTILINE)


def test_each_parameter_of_a_command_has_its_own_option() -> None:
    """`captions deploy` would take any other word for an environment."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    shown = [command for page in pages for command in commands(page) if "--parameter " in command]
    assert len(shown) > 6
    assert [command for command in shown if re.search(r"(?<!--parameter) [A-Z]\w+=", command)] == []


def test_what_is_done_to_a_console_is_done_in_the_region_it_was_deployed_to() -> None:
    page = commands(ROOT / "docs" / "deployment.md")
    shown = [command for command in page if re.match(r"aws (cognito-idp|apigateway)|.*UserPool", command)]
    assert len(shown) == 5
    assert [command for command in shown if "--region eu-west-1" not in command] == []


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_what_each_function_costs_that_can_be_switched_on_counts_the_metrics_of_its_alarms() -> None:
    """A metric of an alarm is $0.10 a month; a function without such a row has no cost in the documentation."""
    counted = []
    for name in ("doors.yaml", "bulk.yaml"):
        resources = load_template(ROOT / name)["Resources"]
        alarms = {
            id_: resource["Properties"]
            for id_, resource in resources.items()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        }
        for function in (id_ for id_, resource in resources.items() if resource["Type"] == "AWS::Serverless::Function"):
            own = [
                alarm for id_, alarm in alarms.items() if id_.startswith(function.removesuffix("Function").rstrip("s"))
            ]
            counted.append(sum(max(1, str(alarm.get("Metrics", "")).count("'MetricStat'")) for alarm in own))
        assert sum(counted) >= len(alarms)
    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    rows = re.findall(r"switched on and idle: .*?(\w+) metrics of alarms.*? \| (.+) \|", page)
    assert [NUMBERS.index(number) for number, _ in rows] == counted
    assert [f"{number / 10:.2f}" in dollars for number, (_, dollars) in zip(counted, rows, strict=True)] == [True] * 4


def test_a_changed_parameter_changes_the_page(parameters: ModuleType) -> None:
    template = load_template(ROOT / "template.yaml")
    template["Parameters"]["Language"]["Default"] = "de"
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert parameters.page_with(page, template) != page
