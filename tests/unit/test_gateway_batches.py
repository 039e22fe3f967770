"""What lines of a batch's results mean, as the endpoints of the field write them, and what they cost."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from captions.bulk.batch_table import BatchLine
from captions.gateway import Endpoint, Reservation
from captions.gateway.batch_api import read_line, request_line, result_lines
from captions.gateway.catalogue import load
from captions.queues import Job
from captions.uploads.version import Upload, from_event
from captions_cli import bulk_lane
from captions_cli.reconciling import Listed, Lost, event

MODEL = load().model("GPT-4o")
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100}


def completion(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "gpt-4o-x", "usage": USAGE, "choices": [choice | changes]}


def answered(body: Any, status: Any = 200, error: Any = None) -> Any:
    line = {"custom_id": "a", "response": {"status_code": status, "body": body}, "error": error}
    return read_line(line, MODEL, Endpoint("https://e.example/v1"), "2026-01-01T00:00:00Z")


def test_an_answer_costs_a_batchs_part_of_the_catalogues_price() -> None:
    result = answered(completion())
    assert result.answer is not None
    assert (result.answer.text, result.answer.reported_model) == ("A cat.", "gpt-4o-x")
    # 1,000 tokens at $2.50 and 100 at $10 a million, halved.
    assert result.attempt.cost == Decimal("0.00175")
    assert result.attempt.as_dict()["lane"] == "bulk"
    stated = answered(completion() | {"usage": USAGE | {"cost": 0.0003}})
    assert (stated.attempt.cost, stated.cost_source) == (Decimal("0.0003"), "endpoint")


@pytest.mark.parametrize(
    ("body", "status", "error", "outcome", "cost"),
    [
        ({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, 429, None, "rate_limited", "0"),
        ({"error": {"message": "no such model", "code": "model_not_found"}}, 404, None, "unavailable", "0"),
        (None, None, {"code": "batch_expired", "message": "not executed in time"}, "error_body", "0"),
        (completion(finish_reason="length"), 200, None, "truncated", "0.00175"),
        (completion(finish_reason="content_filter"), 200, None, "refused", "0.00175"),
        (completion(message={"role": "assistant", "content": None, "refusal": "no"}), 200, None, "refused", "0.00175"),
        (completion(message={"role": "assistant", "content": ""}), 200, None, "empty", "0.00175"),
        ({"choices": []}, 200, None, "garbled", None),
        ({"choices": "text", "usage": "much"}, 200, None, "garbled", None),
        ("text", 200, None, "error_body", None),
        (completion(), "200", None, "ok", "0.00175"),
    ],
)
def test_what_is_no_answer_is_a_failed_attempt_with_what_it_cost(
    body: Any, status: Any, error: Any, outcome: str, cost: str | None
) -> None:
    result = answered(body, status, error)
    assert result.attempt.outcome == outcome
    assert result.attempt.cost == (None if cost is None else Decimal(cost))
    assert (result.answer is None) == (outcome != "ok")


@pytest.mark.parametrize("line", [{}, {"response": None}, {"response": []}, {"error": "text"}, {"response": {}}])
def test_a_line_of_any_shape_is_an_attempt(line: dict[str, Any]) -> None:
    result = read_line(line, MODEL, Endpoint("https://e.example/v1"), "2026-01-01T00:00:00Z")
    assert result.answer is None
    assert result.attempt.outcome == "error_body"


def test_a_file_of_results_is_read_line_by_line_whatever_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    deep = "[" * 100_000
    path.write_text(f'{{"custom_id": "a"}}\n\nno json\n[1]\n{{"custom_id": 7}}\n{deep}\n{{"custom_id": "b"}}')
    assert [line_id for line_id, _ in result_lines(path)] == ["a", "", "", "", "", "b"]


def test_a_request_is_one_line() -> None:
    text = request_line("a-1", {"model": "m", "messages": [{"role": "user", "content": "one\ntwo\u2028three"}]})
    assert b"\n" not in text
    assert json.loads(text)["url"] == "/v1/chat/completions"


def test_what_a_line_is_about_is_read_as_it_was_written() -> None:
    job = Job.model_validate(json.loads((Path(__file__).parents[2] / "events/jobs/image.json").read_text()))
    line = BatchLine("x-1", job, 1_800_000_000.125, Reservation("2026-01-01", ("*", "photos/"), Decimal("0.01"), "ab"))
    assert BatchLine.read(line.stored()) == line
    assert BatchLine.read(BatchLine("x-1", job, 5.0).stored()).reservation is None


def test_reconcile_tells_of_an_upload_that_can_wait() -> None:
    from datetime import UTC, datetime

    listed = Listed("a.jpg", "v", "etag", 3, datetime(2026, 1, 1, tzinfo=UTC), is_marker=False)
    lost = Lost("missing", listed, None)
    for bulk, lane in ((True, "bulk"), (False, None)):
        upload = from_event(event(lost, "media", "eu-west-1", bulk=bulk))
        assert isinstance(upload, Upload)
        assert upload.lane == lane


def test_tiers_whose_first_model_takes_no_batches_are_named() -> None:
    from captions.config import policy

    rules = policy.load('[tiers.easy]\nmodels = ["GPT-4o"]')
    ordinary = bulk_lane.without_batches(rules, load())
    assert "easy" not in ordinary
    assert ordinary["hard"] == "Qwen/Qwen3-VL-32B-Instruct"
