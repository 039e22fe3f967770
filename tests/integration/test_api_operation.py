"""How the stack is, what it costs and what people edit, over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest

from captions.gateway import ControlTable
from captions.gateway.breakers import SharedCircuit
from support.api import Api, api_on
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
    assert answer["complete"]
    assert {row["name"] for row in api.get("/v1/costs?by=model")["rows"]} == {"M", "N", "-"}


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
