"""The documentation of the template says what the template says."""

from __future__ import annotations

import importlib.util
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


def test_a_changed_parameter_changes_the_page(parameters: ModuleType) -> None:
    template = load_template(ROOT / "template.yaml")
    template["Parameters"]["Language"]["Default"] = "de"
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert parameters.page_with(page, template) != page
