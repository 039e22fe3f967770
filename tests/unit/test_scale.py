"""Which key of a table fills its partition first."""

import sys
from collections import defaultdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import scale


@pytest.mark.parametrize(
    ("table", "key", "sort"),
    [
        ("captions", "media/a.jpg", "captions: an object"),
        ("activity", "pending#3", "activity: `pending#<shard>`"),
        ("activity", "2026-11-29#7", "activity: `<day>#<shard>`"),
        ("attention", "unreviewed#photo#1", "attention: `unreviewed#<category>#<shard>`"),
        ("attention", "failed#0", "attention: `failed#<shard>`"),
        ("fingerprints", "c#0123", "fingerprints: a claim"),
        ("fingerprints", "iWl0mZCEUbS1rPk2sUvuPQ#h3:7fe01", "fingerprints: a value of a band"),
        ("fingerprints", "iWl0mZCEUbS1rPk2sUvuPQ#p:7fe01", "fingerprints: an exact key"),
        ("control", "budget#*", "control: `budget`"),
        ("control", "breakers", "control: `breakers`"),
    ],
)
def test_keys_are_sorted_by_what_they_are_of(table: str, key: str, sort: str) -> None:
    assert scale.sort_of(table, key) == sort


def test_the_busiest_key_gets_its_share_of_what_uploads_write() -> None:
    pending = "activity: `pending#<shard>`"
    load: scale.Load = {
        "write": defaultdict(float, {pending: 6.0, "control: `breakers`": 2.0}),
        "read": defaultdict(float, {"control: `breakers`": 1.0}),
    }
    nothing: scale.Load = {"write": defaultdict(float), "read": defaultdict(float)}
    result = {"new": (load, 2), "near copy": (nothing, 1), "same bytes": (nothing, 1)}
    table = {row["key"]: row for row in scale.rows(result, {pending: 0.125}, 1_000.0)}
    assert table[pending]["writes"] == pytest.approx(0.6 * 3)
    assert table[pending]["writes_a_second"] == pytest.approx(0.6 * 3 * 125)
    assert table[pending]["used"] == pytest.approx(0.6 * 3 * 125 / scale.WRITE_UNITS)
    assert table["control: `breakers`"]["writes_a_second"] == pytest.approx(0.6 * 1 * 1_000), "all of one key"


def test_a_budget_of_many_calls_under_way_is_a_large_item() -> None:
    reaches = scale.budget_reaches()
    assert 50 < reaches < scale.WRITE_UNITS / 2
