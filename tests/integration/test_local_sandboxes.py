"""Which functions' processes the local stack keeps when there is no room for more."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from captions_cli.local.lambda_runtime import sandboxes as lambda_sandboxes
from captions_cli.local.lambda_runtime.sandboxes import Function, Sandboxes
from support.small_stack import eventually


@pytest.fixture
def sandboxes(tmp_path: Path) -> Iterator[Sandboxes]:
    (tmp_path / "app.py").write_text("def handler(event, context):\n    return event\n")
    running = Sandboxes(aws_endpoint_url="http://127.0.0.1:1", log_dir=tmp_path, maximum=3, surroundings={})
    running.start()
    yield running
    running.stop()


def function(name: str, code: Path) -> Function:
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    return Function(name, name, arn, "app.handler", code, timeout_s=10, memory_mb=128, environment={})


def test_an_event_that_no_utf_8_can_hold_leaves_its_sandbox_free(sandboxes: Sandboxes, tmp_path: Path) -> None:
    only = function("only", tmp_path)
    for event in ("\udcff", "done"):
        sandbox = sandboxes.acquire(only, 30)
        assert sandbox is not None
        outcome = sandboxes.run(sandbox, event)
    assert outcome.payload == "done"
    assert sandboxes.busy() == 0


def test_a_sandbox_makes_room_for_another_function_once_it_is_unused(
    sandboxes: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> Counter[str]:
        return Counter(name for name, _ in sandboxes.workers())

    monkeypatch.setattr(lambda_sandboxes, "SPARE_S", 60.0)
    many, other = function("many", tmp_path), function("other", tmp_path)
    sandboxes.warm(many, 2)
    for sandbox in [sandboxes.acquire(many, 30) for _ in range(2)]:
        assert sandbox is not None
        assert sandboxes.run(sandbox, "done").payload == "done"
    unused_since = time.monotonic()
    assert sandboxes.acquire(other, 30) is not None, "who has none may always start one"
    assert sandboxes.acquire(other, 0.2) is None
    assert kept() == {"many": 2, "other": 1}, "one that was used a moment ago will be used again"
    # Nothing happens meanwhile that would have those look again who wait.
    monkeypatch.setattr(lambda_sandboxes, "SPARE_S", time.monotonic() - unused_since + 1.0)
    assert sandboxes.acquire(other, 30) is not None
    eventually(lambda: kept() == {"many": 1, "other": 2})
