"""The measure of the small models counts what people say as people mean it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from captions_cli.local.model_endpoint.description import Description

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import eyes as benchmark

CLASSES = ["person", "horse", "bus", "traffic light", "dining table", "sandwich", "bird"]


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("Two men ride horses past a double-decker bus.", {"person", "horse", "bus"}),
        ("Traffic lights above parked buses", {"traffic light", "bus"}),
        ("Sandwiches on a table", {"sandwich", "dining table"}),
        ("An Adelaide Rosella.", {"bird"}),
        ("Business as usual", set()),
    ],
)
def test_people_name_classes_in_their_own_words(caption: str, named: set[str]) -> None:
    assert benchmark.named_in(caption, CLASSES) == named


@pytest.mark.parametrize(
    ("given", "true", "edits"), [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "", 2)]
)
def test_edit_distance(given: str, true: str, edits: int) -> None:
    assert benchmark.distance(given, true) == edits


def test_recall_is_over_what_two_people_name_and_precision_over_what_anyone_does(tmp_path: Path) -> None:
    class Describer:
        def describe(self, data: bytes, max_pixels: int) -> Description:
            objects: list[Mapping[str, Any]] = [{"name": name} for name in ("horse", "bus", "dog", "perhaps person")]
            return Description("", 1, measured={"objects": objects})

    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    captions = {picture: ["a man on a horse", "a woman rides a horse past a bus", "a horse"]}
    result = benchmark.seen(captions, benchmark.Timed(Describer()))
    assert (result["wanted"], result["found"], result["found_or_possible"]) == (2, 1, 2)
    assert (result["named"], result["right"], result["possible"], result["possible_right"]) == (3, 2, 1, 1)
    assert result["not_in_any_caption"] == ["a.png: dog"]
