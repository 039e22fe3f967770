"""What benchmarks/chaos.py promises of a run, each promise shown able to be broken."""

import importlib
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from captions.records.record import Record

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("chaos")


def record(key: str = "picture-1/original.jpg", **changes: Any) -> Record:
    return Record.model_validate(
        {
            "asset": f"media/{key}",
            "bucket": "media",
            "key": key,
            "version_id": "v1",
            "sequencer": "01",
            "state": "captioned",
            "source": "model",
            "claim": {"id": "claim-1", "generation": 1},
        }
        | changes
    )


def paid(at: float, *, claim: str = "claim-1", seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(at, UTC).isoformat(),
        "latency_ms": seconds * 1000,
        "client_request_id": claim,
        "outcome": "ok",
        "finish_reason": "stop",
        "fault": None,
        "batch": None,
        "media_sha256": "the picture",
    } | changes


def judged(chaos: ModuleType, log: list[dict[str, Any]], stored_at: float = 105.0) -> dict[str, Any]:
    stored = chaos.Stored(0)
    stored.ended_at["media/picture-1/original.jpg", "01", "captioned"] = stored_at
    result: dict[str, Any] = chaos.payments(log, {"picture-1/original.jpg": record()}, stored)
    return result


def test_one_paid_answer_for_a_stored_result_is_as_promised(chaos: ModuleType) -> None:
    result = judged(chaos, [paid(90.0, outcome="error"), paid(95.0, fault="empty"), paid(100.0)])

    assert (result["answers_paid"], result["answers_without_a_result"]) == (1, 0)
    assert not result["paid_after_it_was_stored"]
    assert not result["paid_twice_at_once"]
    assert not result["results_that_nobody_paid"]


def test_an_answer_lost_to_a_kill_is_counted_and_no_broken_promise(chaos: ModuleType) -> None:
    result = judged(chaos, [paid(50.0), paid(100.0)])

    assert result["answers_without_a_result"] == 1
    assert not result["paid_after_it_was_stored"]
    assert not result["paid_twice_at_once"]


def test_a_payment_after_the_result_was_stored_is_found(chaos: ModuleType) -> None:
    assert judged(chaos, [paid(100.0), paid(106.0)])["paid_after_it_was_stored"] == ["claim-1"]


def test_a_copy_that_pays_although_its_leaders_result_was_stored_is_found(chaos: ModuleType) -> None:
    stored, copy = chaos.Stored(0), record("picture-1/copy-2.jpg")
    stored.ended_at["media/picture-1/original.jpg", "01", "captioned"] = 105.0
    stored.ended_at["media/picture-1/copy-2.jpg", "01", "captioned"] = 115.0
    records = {"picture-1/original.jpg": record(), copy.key: copy}

    result = chaos.payments([paid(100.0), paid(110.0)], records, stored)

    assert (result["results_of_models"], result["answers_without_a_result"]) == (2, 0)
    assert result["paid_after_it_was_stored"] == ["claim-1"]


def test_two_payments_at_once_for_one_claim_are_found(chaos: ModuleType) -> None:
    assert judged(chaos, [paid(100.0), paid(100.5)])["paid_twice_at_once"] == ["claim-1"]


def test_what_is_paid_beside_the_answer_of_a_batch_is_found(chaos: ModuleType) -> None:
    line = paid(100.0, claim="claim-1-1-1800000000", batch="batch-1")

    once, twice = judged(chaos, [line]), judged(chaos, [line, paid(102.0)])

    assert (once["results_that_nobody_paid"], once["answers_of_batches"], once["paid_beside_a_batch"]) == ([], 1, [])
    assert twice["paid_beside_a_batch"] == ["the picture"]


def test_an_event_that_an_endpoint_never_got_is_found(chaos: ModuleType) -> None:
    receiver = chaos.Receiver(0)
    receiver.server.server_close()
    events = {"1": ("picture-1/a.jpg", "captioned"), "2": ("broken/b.jpg", "rejected")}
    receiver.got["all"].update(["1", "1"])

    assert chaos.undelivered(events, receiver) == ["all: broken/b.jpg rejected", "pictures: picture-1/a.jpg captioned"]
    assert receiver.take("all", b"{}", {}) == 401
    assert receiver.unsigned == 1


def test_a_result_that_nobody_paid_for_is_found(chaos: ModuleType) -> None:
    assert judged(chaos, [])["results_that_nobody_paid"] == ["claim-1"]


@pytest.mark.parametrize("useless", [{"outcome": "error"}, {"finish_reason": "length"}, {"fault": "malformed"}])
def test_a_result_is_not_paid_by_an_answer_of_no_use(chaos: ModuleType, useless: dict[str, Any]) -> None:
    assert judged(chaos, [paid(100.0, **useless)])["results_that_nobody_paid"] == ["claim-1"]


def test_a_result_is_not_paid_by_what_was_paid_for_another(chaos: ModuleType) -> None:
    result = judged(chaos, [paid(90.0, claim="claim-2"), paid(100.0, claim="claim-2")])

    assert result["results_that_nobody_paid"] == ["claim-1"]


def test_two_results_are_not_paid_by_one_answer(chaos: ModuleType) -> None:
    records = {item.key: item for item in (record(), record("picture-1/copy-2.jpg"))}

    result = chaos.payments([paid(100.0), paid(100.0, claim="claim-2")], records, chaos.Stored(0))

    assert result["results_that_nobody_paid"] == ["claim-1"]


def test_a_result_that_names_no_claim_is_found(chaos: ModuleType) -> None:
    result = chaos.payments([paid(100.0)], {"picture-1/original.jpg": record(claim=None)}, chaos.Stored(0))

    assert result["results_that_nobody_paid"] == [""]


def test_a_call_that_is_accounted_twice_is_found(chaos: ModuleType) -> None:
    once = {"model": "GPT-4o", "outcome": "ok", "cost": "0.01", "started_at": "2026-01-01T00:00:00.000+00:00"}
    log = [paid(100.0, cost="0.01"), paid(101.0, cost="0.005"), paid(102.0, outcome="error", cost=None)]

    def account(*attempts: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = chaos.accounts(log, {"a": record("a", provenance={"attempts": list(attempts)})})
        return result

    assert account(once) == {
        "dollars_charged": "0.015",
        "dollars_accounted": "0.01",
        "unpriced_tokens_charged": 0,
        "unpriced_tokens_accounted": 0,
        "accounted_twice": [],
    }
    assert account(once, once)["accounted_twice"] == ["0.005 dollars"]


def test_a_model_without_a_price_for_its_prompts_is_charged_as_it_is_accounted(chaos: ModuleType) -> None:
    model = "Qwen/Qwen3-VL-32B-Instruct"
    log = [paid(100.0, model=model, cost=None, prompt_tokens=600, completion_tokens=100, cached_tokens=0)]
    known = {"dollars": "0.000052", "unpriced_tokens": 600}  # 52 cents for a million tokens of its answers
    once = {"model": model, "outcome": "ok", "cost_at_least": known, "started_at": "2026-01-01T00:00:00.000+00:00"}

    def over(*attempts: dict[str, Any]) -> Any:
        return chaos.accounts(log, {"a": record("a", provenance={"attempts": list(attempts)})})["accounted_twice"]

    assert over(once) == []
    assert over(once, once) == ["0.000052 dollars", "600 tokens"]


def test_every_wrong_end_is_found(chaos: ModuleType) -> None:
    plan = chaos.Plan()
    for key, state in {"right": "captioned", "lost": "captioned", "old": "captioned", "kept": "deleted"}.items():
        plan.put(key, state, "v1")
    plan.put("old", "captioned", "v2")
    plan.put("failed", "captioned", "v1")
    gave_up = {"code": "gave_up", "message": "no model answered"}
    records = {
        "right": record("right"),
        "old": record("old"),
        "kept": record("kept"),
        "failed": record("failed", state="failed", reason=gave_up),
    }

    assert chaos.unended(records, plan) == {
        "lost": "no record",
        "old": "an older version's end",
        "kept": "captioned instead of deleted",
        "failed": "failed (gave_up: no model answered) instead of captioned",
    }


def test_a_copy_of_another_picture_is_found(chaos: ModuleType) -> None:
    def copy(key: str, source: str) -> Record:
        return record(key, source="cache", provenance={"copied_from": f"media/{source}"})

    right = copy("picture-1/copy-2.jpg", "picture-1/original.jpg")
    wrong = copy("picture-3/original.jpg", "picture-1/original.jpg")

    result = chaos.foreign_copies({right.key: right, wrong.key: wrong})

    assert result == ["picture-3/original.jpg from media/picture-1/original.jpg"]
