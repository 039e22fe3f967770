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


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_what_each_function_costs_that_can_be_switched_on_counts_the_metrics_of_its_alarms() -> None:
    """A metric of an alarm is $0.10 a month; a function without such a row has no cost in the documentation."""
    counted = []
    for name in ("doors.yaml", "bulk.yaml"):
        resources = load_template(ROOT / name)["Resources"]
        alarms = {id_: it["Properties"] for id_, it in resources.items() if it["Type"] == "AWS::CloudWatch::Alarm"}
        for function in (id_ for id_, it in resources.items() if it["Type"] == "AWS::Serverless::Function"):
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
