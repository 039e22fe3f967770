"""A minute in which everything fails at once, and the end of every upload that came in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.deep
@pytest.mark.timeout(900)
def test_a_minute_of_chaos_loses_nothing_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    chaos = [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), "--minutes", "1", "--seed", "5"]
    done = subprocess.run(
        [*chaos, "--timeout", "500", "--json", str(figures)], capture_output=True, text=True, timeout=650, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    result = json.loads(figures.read_text())
    assert set(result["states"]) == {"captioned", "rejected", "deleted"}
    # It was chaos indeed.
    assert sum(result["killed"].values()) >= 5
    assert result["killed"]["pump and all workers"] >= 1
    new = {"WebhooksFunction", "WriteBackFunction", "SearchFunction", "BulkFunction"}
    assert result["killed"].keys() >= new
    assert result["webhooks_failed"] > 0
    assert result["answers_of_batches"] > 0
    assert len(result["storms"]) >= 8
    assert {name.partition(".")[0] for name in result["aws_calls_failed"]} >= {"dynamodb", "sqs"}
    assert result["messages_sent_twice"] > 0
