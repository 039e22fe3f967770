"""How the stack is, what it costs and what people edit, over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from captions_api import cost_sums
from captions_api.ids import id_of
from captions_api.routes import operation

from captions.bulk.batch_table import BatchTable, Waiting
from captions.bulk.protocol import Batch
from captions.cost import Cost
from captions.gateway import ControlTable
from captions.gateway.breakers import SharedCircuit
from captions.search.embeddings import SpendingLedger
from captions.timestamps import timestamp
from support.api import Api, api_on, keys
from support.pipeline import aws_for_the_pipeline


@pytest.fixture
def api() -> Iterator[Api]:
    with (
        aws_for_the_pipeline() as aws,
        api_on(aws, daily_budget_dollars="5", uploads_dead_letter_queue_url=aws.heard_queue) as made,
    ):
        yield made


def test_the_status_tells_queues_circuits_budgets_and_what_waits(api: Api) -> None:
    api.captioned("a.jpg")
    api.failed("b.jpg")
    api.received("c.jpg")
    api.aws.sqs.send_message(QueueUrl=api.aws.image_queue, MessageBody="x")
    circuit = SharedCircuit(circuit="e|GPT-4o", open_until=api.now[0] + 60, level=2, reason="errors")
    ControlTable(api.aws.dynamodb, "control").open(circuit, api.now[0])
    answer = api.get("/v1/status")
    assert {(entry["name"], entry["dead_letters"]): entry["visible"] for entry in answer["queues"]} == {
        ("uploads", False): 0, ("image", False): 1, ("audio", False): 0, ("uploads", True): 0,
    }  # fmt: skip
    assert [(entry["name"], entry["level"]) for entry in answer["circuits"]] == [("e|GPT-4o", 2)]
    assert answer["budgets"] == [{"scope": "*", "limit": "5", "spent": "0"}]
    assert answer["states"] == {"on_their_way": 1, "failed": 1, "blocked": 0, "rejected": 0, "unreviewed": 1}
    assert answer["states_complete"]
    assert (answer["alarms"], answer["alarms_known"]) == (None, False)  # no metrics arrive here


def test_the_status_tells_which_alarms_ring_and_of_how_many_nothing_is_known(api: Api) -> None:
    with api_on(api.aws, stack_name="captions") as deployed:
        cloudwatch = deployed.services.clients("cloudwatch")
        about = {"Namespace": "n", "MetricName": "m", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
        over = {"Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"}
        names = {"captions-rings": "ALARM", "captions-quiet": "OK", "captions-blind": "INSUFFICIENT_DATA",
                 "other-rings": "ALARM"}  # fmt: skip
        for name, state in names.items():
            cloudwatch.put_metric_alarm(AlarmName=name, **about, **over)
            cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="crossed")
        answer = deployed.get("/v1/status")
        assert [(alarm["name"], alarm["reason"]) for alarm in answer["alarms"]] == [("captions-rings", "crossed")]
        assert (answer["alarms_known"], answer["alarms_without_data"]) == (True, 1)
        assert deployed.get("/v1/status", token="photos")["alarms_without_data"] is None


def test_the_status_tells_what_waits_in_the_bulk_lane_and_its_batches(api: Api) -> None:
    at = api.now[0]
    table = BatchTable(api.aws.dynamodb, "control", api.aws.s3, api.services.bucket)
    begun = Batch("b1", "submitted", "GPT-4o", "https://e/v1", 3, 900, at + 9e4, at, "f-1", "r-1", gathered_at=at - 60)
    over = replace(begun, id="b2", state="closed", taken=3, spent=Cost(dollars=Decimal("0.5"), unpriced_tokens=7))
    for batch in (begun, over, replace(over, id="b3", at=at - 90_000)):
        assert table.form(batch, [])
    for number in range(2):
        line = Waiting(f"l-{number}", "GPT-4o", "https://e/v1", 300, at - 30 + number, at + 9e4)
        api.aws.dynamodb.put_item(**table.waiting_put(line))
    answer = api.get("/v1/status")["bulk"]
    assert (answer["waiting"], answer["waiting_complete"]) == (2, True)
    assert answer["waiting_since"] == timestamp(at - 30)
    first, second = answer["batches"]  # the one that was closed long ago is not shown any more
    assert (first["id"], first["state"], first["lines"], first["remote_id"]) == ("b1", "submitted", 3, "r-1")
    assert (first["gathered_at"], first["deadline"]) == (timestamp(at - 60), timestamp(at + 9e4))
    assert (second["id"], second["taken"], second["cost"]["dollars"], second["cost"]["exact"]) == (
        "b2",
        3,
        "0.5",
        False,
    )
    assert api.get("/v1/status", token="photos")["bulk"] is None


def test_calls_in_batches_stand_in_an_assets_way_and_in_the_costs(api: Api) -> None:
    call = {"model": "M", "outcome": "ok", "latency_ms": 0, "cost": "0.25", "started_at": "2026-01-01T00:00:00Z"}
    line = {**call, "lane": "bulk", "batch": "b1", "saved": "0.24"}
    made = api.captioned("a.jpg", attempts=(line,))
    asset = api.get(f"/v1/assets/{id_of(made.asset)}")
    moments = {moment["what"]: moment for moment in asset["timeline"]}
    assert moments["batch"]["detail"] == "waited in batch b1"
    assert (moments["attempt"]["call"]["batch"], moments["attempt"]["call"]["latency_ms"]) == ("b1", None)
    assert api.get("/v1/costs")["totals"]["saved_by_batches"]["dollars"] == "0.24"


def test_models_are_listed_with_their_tiers_and_prices(api: Api) -> None:
    models: dict[str, Any] = {entry["name"]: entry for entry in api.get("/v1/models")["models"]}
    assert "easy" in models["GLM-4.5V"]["tiers"]
    assert any(entry["output_price"] is None for entry in models.values())


def test_costs_are_added_up_with_what_is_not_known_of_them(api: Api) -> None:
    paid = {"model": "M", "outcome": "ok", "cost": "0.25", "started_at": "2026-01-01T00:00:00Z"}
    part = {"dollars": "0.1", "unpriced_tokens": 628}
    api.captioned("photos/a.jpg", attempts=(paid,))
    api.captioned("photos/b.jpg", attempts=({**paid, "model": "N", "cost": None, "cost_at_least": part},))
    api.captioned("scans/c.jpg", source="cache", copied_from="media/photos/a.jpg", saved="0.25", cost="0")
    answer = api.get("/v1/costs?by=prefix")
    assert [(row["name"], row["uploads"]) for row in answer["rows"]] == [("photos/", 2), ("scans/", 1)]
    assert answer["totals"]["paid"] == {
        "dollars": "0.35", "unpriced_tokens": 628, "uncounted_calls": 0, "exact": False,
    }  # fmt: skip
    assert (answer["totals"]["copied"], answer["totals"]["saved_by_cache"]["dollars"]) == (1, "0.25")
    assert (answer["complete"], answer["simulated"]) == (True, False)
    assert {row["name"] for row in api.get("/v1/costs?by=model")["rows"]} == {"M", "N", "-"}


def test_costs_of_many_uploads_are_counted_on_until_all_are_in_the_sums(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(cost: str) -> dict[str, Any]:
        tokens = {"prompt_tokens": 1_000, "completion_tokens": 100}
        return {"model": "M", "tier": "easy", "role": "first", "outcome": "ok", "cost": cost, **tokens}

    costs = [Decimal(number) / 100 for number in range(1, 12)]
    for number, cost in enumerate(costs):
        by = "local/eyes" if number == 10 else None  # the newest: the first sums tell those that go on from them
        api.captioned(f"{'abc'[number % 3]}/{number}.jpg", attempts=(call(str(cost)),), tier="easy", reported_model=by)
    path = "/v1/costs?by=prefix&baseline=GPT-4o"
    whole = api.get(path)
    assert whole["complete"]
    monkeypatch.setattr(operation, "MOST_RECORDS", 4)
    first = api.get(path)
    assert (first["totals"]["uploads"], first["complete"]) == (4, False)
    assert first["back_to"] == api.get("/v1/assets?limit=4")["items"][-1]["completed_at"]
    assert Decimal(first["totals"]["paid"]["dollars"]) == sum(costs[-4:])
    second, again = (api.get(f"{path}&cursor={first['cursor']}") for _ in range(2))
    assert (second["totals"], second["rows"]) == (again["totals"], again["rows"])  # counted twice, added once
    last = api.get(f"{path}&cursor={second['cursor']}")
    assert last == whole
    assert last["simulated"]
    assert api.call("GET", f"{path}&cursor={first['cursor']}", token="other").status_code == 400
    assert api.call("GET", f"/v1/costs?by=prefix&cursor={first['cursor']}").status_code == 400
    monkeypatch.setattr(cost_sums, "MOST_ROWS", 1)
    some = api.get(f"{path}&cursor={api.get(path)['cursor']}")
    assert [(row["name"], row["uploads"]) for row in some["rows"]] == [("*", 5), ("a/", 3)]
    for item in api.aws.dynamodb.scan(TableName="api")["Items"]:
        if item["pk"]["S"] == "sums":
            api.aws.dynamodb.delete_item(TableName="api", Key={"pk": item["pk"], "sk": item["sk"]})
    assert api.call("GET", f"{path}&cursor={first['cursor']}").json()["type"] == "/problems/bad-cursor"


def test_what_people_edit_is_told_by_category_model_and_prompt(api: Api) -> None:
    reviews = api.services.reviews
    reviews.accept(api.captioned("a.jpg", prompt_version="p1"), now=api.now[0])
    reviews.edit(api.captioned("b.jpg", prompt_version="p1"), "a dog", now=api.now[0])
    answer = api.get("/v1/quality?days=7")
    (cell,) = answer["cells"]
    assert (cell["category"], cell["model"], cell["task"], cell["prompt_version"]) == (
        "photo", "GLM-4.6V", "caption", "p1",
    )  # fmt: skip
    assert (cell["edited"], cell["accepted"], cell["share"], cell["flagged"]) == (1, 1, 0.5, False)
    assert (answer["minimum"], answer["line"]) == (20, 0.3)
    assert api.call("GET", "/v1/quality", token="photos").status_code == 403


def test_the_captions_behind_a_row_of_quality_are_listed_edited_first(api: Api) -> None:
    reviews = api.services.reviews
    for name in "abcde":
        made = api.captioned(f"{name}.jpg", prompt_version="p1")
        if name in "bd":
            reviews.edit(made, "a dog", now=api.now[0])
        elif name != "e":
            reviews.accept(made, now=api.now[0])
    reviews.edit(api.captioned("other.jpg", prompt_version="p2"), "a dog", now=api.now[0])
    api.received("b.jpg")  # another version: nobody has judged it
    cell = next(entry["id"] for entry in api.get("/v1/quality")["cells"] if entry["prompt_version"] == "p1")
    pages, cursor = [], ""
    for _ in range(4):
        answer = api.get(f"/v1/assets?cell={cell}&limit=1{cursor}")
        pages += keys(answer)
        cursor = f"&cursor={answer['cursor']}"
        if answer["cursor"] is None:
            break
    assert pages == ["d.jpg", "c.jpg", "a.jpg"]
    assert keys(api.get(f"/v1/assets?cell={cell}", token="photos")) == []
    assert api.call("GET", f"/v1/assets?cell={cell}&order=confidence").status_code == 422
    assert api.call("GET", "/v1/assets?cell=nothing").status_code == 422


def test_costs_tell_what_tiers_saved_what_falling_back_cost_and_one_model_alone(api: Api) -> None:
    def call(model: str, tier: str, **more: Any) -> dict[str, Any]:
        tokens = {"prompt_tokens": 1_000, "completion_tokens": 100}
        return {"model": model, "tier": tier, "role": "first", "outcome": "ok", "cost": "0.001", **tokens, **more}

    easy, hard = "GLM-4.5V", "Qwen/Qwen3-VL-32B-Instruct"
    failed = call(easy, "easy", outcome="timeout", cost="0.5", started_at="1")
    api.captioned("easy.jpg", tier="easy", attempts=(call(easy, "easy"),))
    api.captioned("up.jpg", tier="hard", attempts=(call(easy, "easy"), call(hard, "hard", role="escalation")))
    api.captioned("back.jpg", tier="easy", attempts=(failed, call("GPT-4o", "easy", role="fallback")))
    models = api.services.catalogue.models
    output = {name: models[name].output_price for name in (easy, hard, "GPT-4o")}
    assert None not in output.values()
    totals = api.get("/v1/costs?baseline=GPT-4o")["totals"]
    # Three easy calls answered; what a million tokens cost is in dollars. No price is known of what they read.
    per_answer = {name: price * 100 / 1_000_000 for name, price in output.items() if price is not None}
    saved = 3 * (per_answer[hard] - per_answer[easy]) - Decimal("0.001")
    assert Decimal(totals["saved_by_tiers"]["dollars"]) == saved
    assert (totals["saved_by_tiers"]["unpriced_tokens"], totals["saved_by_tiers"]["exact"]) == (3_000, False)
    fallback = per_answer["GPT-4o"] - per_answer[easy] + Decimal("0.5")
    assert Decimal(totals["cost_of_fallback"]["dollars"]) == fallback
    prompt = models["GPT-4o"].input_price
    alone = 3 * per_answer["GPT-4o"] + (3 * prompt * 1_000 / 1_000_000 if prompt is not None else 0)
    assert Decimal(totals["baseline"]["dollars"]) == alone
    assert totals["baseline"]["exact"] is (prompt is not None)
    rows = {row["name"]: (row["uploads"], row["calls"]) for row in api.get("/v1/costs?by=tier")["rows"]}
    assert rows == {"easy": (3, 4), "hard": (1, 1)}
    assert api.get("/v1/costs")["totals"]["baseline"] is None
    assert api.call("GET", "/v1/costs?baseline=nobody").status_code == 422


def test_costs_tell_those_of_embeddings_where_captions_are_searched(api: Api) -> None:
    assert api.get("/v1/costs")["embeddings"] is None
    with api_on(api.aws, search_function="search") as searched:
        ledger = SpendingLedger(api.aws.dynamodb, "control", now=lambda: searched.now[0])
        ledger.answered(ledger.begun(), 1_000, Cost(dollars=Decimal("0.00002")))
        ledger.begun()
        searched.now[0] += 86_400
        ledger.answered(ledger.begun(), 500, Cost(unpriced_tokens=500))
        assert Decimal(searched.get("/v1/costs?days=1")["embeddings"]["dollars"]) == 0
        spent = searched.get("/v1/costs?days=2")["embeddings"]
        assert Decimal(spent.pop("dollars")) == Decimal("0.00002")
        assert spent == {"unpriced_tokens": 500, "uncounted_calls": 1, "exact": False}
        assert searched.get("/v1/costs", token="photos")["embeddings"] is None
