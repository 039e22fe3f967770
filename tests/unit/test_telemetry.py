"""What the metrics' lines say: values, dimensions, and that none is lost."""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from captions import telemetry
from captions.cost import Cost

SAVED = Cost(dollars=Decimal("0.001"))
CALL = {
    "model": "a",
    "outcome": "ok",
    "latency_ms": 812,
    "prompt_tokens": 700,
    "completion_tokens": 31,
    "cost": "0.00021",
}


class Context:
    function_name = "caption"
    memory_limit_in_mb = 128
    invoked_function_arn = "arn:aws:lambda:eu-west-1:809313241234:function:caption"
    aws_request_id = "52fdfc07-2182-154f-163f-5f0f9a621d72"


@pytest.fixture(autouse=True)
def _nothing_left_over() -> Iterator[None]:
    telemetry._sets.clear()
    telemetry.metrics().clear_metrics()
    yield
    telemetry._sets.clear()
    telemetry.metrics().clear_metrics()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if '"_aws"' in line]


def values(blobs: list[dict[str, Any]], name: str, *dimensions: str) -> list[float]:
    """The values of a metric in the blobs that write it under exactly these dimensions, in order."""
    result: list[float] = []
    for blob in blobs:
        for directive in blob["_aws"]["CloudWatchMetrics"]:
            if (
                name in [metric["Name"] for metric in directive["Metrics"]]
                and list(dimensions) in directive["Dimensions"]
            ):
                result += blob[name]
    return result


def test_one_invocation_with_several_models_and_tasks_keeps_their_figures_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    telemetry.model_calls(
        "caption", [CALL | {"outcome": "timeout", "cost": "0"}, CALL | {"model": "b", "cost": "0.0005"}]
    )
    telemetry.model_calls("ocr", [CALL, CALL | {"latency_ms": 90}])
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    by = {(blob["model"], blob["task"]): blob for blob in blobs if "model" in blob and "outcome" not in blob}
    assert set(by) == {("a", "caption"), ("b", "caption"), ("a", "ocr")}
    assert by["a", "ocr"]["ModelLatency"] == [812, 90]
    assert by["a", "ocr"]["PromptTokens"] == [700, 700]
    assert by["a", "ocr"]["CostDollars"] == [0.00021, 0.00021]
    assert by["a", "caption"]["CostDollars"] == [0]
    assert "FallbackUsed" not in by["a", "caption"]
    assert by["b", "caption"]["FallbackUsed"] == [1]
    assert sum(values(blobs, "CostDollars", "service")) == pytest.approx(0.00092)
    assert sum(values(blobs, "ModelCalls", "service")) == 4
    outcomes = {(b["model"], b["task"], b["outcome"]): b["ModelCalls"] for b in blobs if "outcome" in b}
    assert outcomes == {("a", "caption", "timeout"): [1], ("b", "caption", "ok"): [1], ("a", "ocr", "ok"): [1, 1]}


def test_of_a_cost_not_known_in_full_the_known_dollars_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    bound = Cost(dollars=Decimal("0.0004"), unpriced_tokens=628)
    telemetry.model_calls("caption", [CALL | {"cost": None} | bound.fields()])
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    assert values(blobs, "CostUnknown", "service") == [1]
    assert values(blobs, "CostDollars", "service") == [pytest.approx(0.0004)]


def test_an_unknown_cost_is_counted_and_never_zero(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.model_calls("caption", [{name: value for name, value in CALL.items() if name != "cost"}])
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    assert values(blobs, "CostUnknown", "service") == [1]
    assert values(blobs, "CostDollars", "service") == []


def test_the_role_of_a_call_says_whether_it_was_a_fallback_or_an_escalation(capsys: pytest.CaptureFixture[str]) -> None:
    roles = ("first", "repair", "escalation", "fallback")
    telemetry.model_calls("caption", [CALL | {"model": role, "role": role} for role in roles])
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    assert [b["model"] for b in blobs if "FallbackUsed" in b] == ["fallback"]
    assert [b["model"] for b in blobs if "Escalated" in b] == ["escalation"]


def test_hits_are_counted_by_kind_and_in_sum_with_what_they_saved(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, saved in (("exact", SAVED), ("near", Cost(dollars=Decimal("0.002"), unpriced_tokens=5)), ("exact", None)):
        telemetry.cache_hit(kind, saved)
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    assert len(values(blobs, "CacheHit", "service")) == 3
    assert {blob["kind"]: blob["CacheHit"] for blob in blobs if "kind" in blob} == {"exact": [1, 1], "near": [1]}
    assert sum(values(blobs, "SavedDollars", "service")) == pytest.approx(0.003)


def test_what_is_about_the_product_is_the_pipelines_and_the_rest_the_functions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry.metrics().provider, "service", "caption")

    @telemetry.measured
    def handler(event: dict[str, Any], context: Context) -> None:
        telemetry.count("TerminalLate")
        telemetry.count("Deferred", 2)

    handler({}, Context())
    blobs = lines(capsys.readouterr().out)
    (late,) = [blob for blob in blobs if "TerminalLate" in blob]
    (deferred,) = [blob for blob in blobs if "Deferred" in blob]
    assert (late["service"], deferred["service"]) == ("pipeline", "caption")
    assert deferred["Deferred"] == [2]


def test_a_handler_that_fails_loses_no_metric(capsys: pytest.CaptureFixture[str]) -> None:
    @telemetry.measured
    def handler(event: dict[str, Any], context: Context) -> None:
        telemetry.count("Deferred")
        telemetry.model_calls("caption", [CALL])
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        handler({}, Context())
    blobs = lines(capsys.readouterr().out)
    assert [blob["Deferred"] for blob in blobs if "Deferred" in blob] == [[1]]
    assert values(blobs, "CostDollars", "service") == [0.00021]


def test_an_invocation_writes_nothing_of_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.model_calls("caption", [CALL])
    telemetry.flush()
    capsys.readouterr()
    telemetry.model_calls("caption", [CALL])
    telemetry.flush()
    assert values(lines(capsys.readouterr().out), "CostDollars", "service") == [0.00021]


def test_more_values_than_a_line_holds_all_arrive_under_their_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.model_calls("caption", [CALL] * 250)
    telemetry.flush()
    blobs = lines(capsys.readouterr().out)
    assert max(len(blob.get("CostDollars", ())) for blob in blobs) <= 100
    assert len(values(blobs, "CostDollars", "model", "task")) == 250
    assert len(values(blobs, "ModelCalls", "model", "task", "outcome")) == 250
    assert len(values(blobs, "ModelCalls", "service")) == 250


def test_threads_lose_no_count(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        for _ in range(200):
            telemetry.cache_hit("exact", SAVED)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    telemetry.flush()
    assert len(values(lines(capsys.readouterr().out), "CacheHit", "kind")) == 1600


def test_no_line_has_dimensions_beyond_the_few_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.model_calls("caption", [CALL])
    telemetry.cache_hit("near", SAVED)
    telemetry.task_count("CircuitsOpenForTask", "caption")
    telemetry.gauge("PendingUploads", 3)
    telemetry.flush()
    named = {
        dimension
        for blob in lines(capsys.readouterr().out)
        for directive in blob["_aws"]["CloudWatchMetrics"]
        for dimensions in directive["Dimensions"]
        for dimension in dimensions
    }
    assert named == {"service", "model", "task", "outcome", "kind"}
