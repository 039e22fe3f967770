"""The benchmark that repeats others on a busy machine: what it takes for a failure, and what it leaves behind."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

BURST = """
import json, sys
figures = {"distinct": 3, "paid_calls": PAID, "uploads": 9}
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps(figures))
sys.exit(ENDS)
"""


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("repeated")


@pytest.fixture
def burst(repeated: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a burst stands that takes no time: the test writes it."""
    monkeypatch.setattr(repeated, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path / "benchmarks" / "pipeline.py"


def main(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["repeated.py", "pipeline", "--load", "0", *map(str, words)])
    ended: int = importlib.import_module("repeated").main()
    return ended


@pytest.mark.parametrize(("paid", "ends", "failed"), [(3, 0, False), (4, 0, True), (4, 1, True), (3, 1, True)])
def test_a_run_fails_by_its_exit_code_and_by_what_was_paid(
    burst: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paid: int, ends: int, failed: bool
) -> None:
    burst.write_text(BURST.replace("PAID", str(paid)).replace("ENDS", str(ends)))

    ended = main(monkeypatch, "--runs", "2", "--keep", tmp_path / "kept", "--json", tmp_path / "figures.json")

    assert ended == int(failed)
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert [run["paid_calls"] for run in runs] == [paid, paid]
    assert all(bool(run["problem"]) is failed for run in runs)
    assert len(list((tmp_path / "kept").iterdir())) == (2 if failed else 0)


def test_a_run_that_breaks_off_is_a_failure_with_its_words(
    burst: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst.write_text("raise SystemExit('the stack does not start')")

    assert main(monkeypatch, "--runs", "1", "--keep", tmp_path / "kept") == 1
    assert "does not start" in (tmp_path / "kept" / "pipeline-01" / "output.txt").read_text()


def test_the_machine_is_busy_while_it_lasts_and_not_after(repeated: ModuleType) -> None:
    me = psutil.Process()
    before = set(me.children(recursive=True))
    with repeated.busy(3):
        deadline = time.monotonic() + 20
        while len(result := set(me.children(recursive=True)) - before) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(result) == 3
    _, alive = psutil.wait_procs(result, timeout=20)
    assert not alive
