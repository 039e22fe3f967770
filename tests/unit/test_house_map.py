"""What the map of the code says: no circles, and nothing in the layer that no function needs."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("house_map", Path(__file__).parents[2] / "tools" / "house_map.py")
assert _spec is not None
assert _spec.loader is not None
house_map = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house_map)

CHILD = "the decoder starts it as a process of its own, which imports these"
NOT_IMPORTED = {
    "captions.media.chained": CHILD,
    "captions.media.channels": CHILD,
    "captions.media.decoder_child": CHILD,
    "captions.media.decoding": CHILD,
    "captions.media.reference_frames": CHILD,
}
"""Modules of the layer that no function imports, and why they travel all the same."""


def test_what_no_function_imports_does_not_travel_in_the_layer() -> None:
    assert house_map.unused() == set(NOT_IMPORTED)


def test_that_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_map, "FUNCTIONS", ["sweep"])
    assert "captions.pipeline.ingest" in house_map.unused()


def test_every_package_is_installed() -> None:
    root = Path(__file__).parents[2]
    setuptools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {
        ".".join((name, *package.relative_to(root / folder).parts))
        for name, folder in setuptools["package-dir"].items()
        for package in (file.parent for file in (root / folder).rglob("__init__.py"))
    }
    assert set(setuptools["packages"]) == packages


def test_no_room_leads_back_to_itself() -> None:
    assert house_map.circles() == []


@pytest.mark.parametrize(
    ("function", "needs", "does_without"),
    [
        ("dedupe", "captions.fingerprint.phash", "captions.gateway.client"),
        ("caption", "captions.gateway.client", "captions.pipeline.sweep"),
        ("transcribe", "captions.tasks.reader", "captions.pipeline.ingest"),
        ("sweep", "captions.pipeline.sweep", "captions.fingerprint.phash"),
    ],
)
def test_a_function_imports_its_own_part_of_the_house(function: str, needs: str, does_without: str) -> None:
    closure = house_map.closure(function)
    assert needs in closure
    assert does_without not in closure
