"""The optional stack that gathers results of all regions: its function, taken from its template, on moto's DynamoDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from captions.completion_events import DETAIL_TYPES, SOURCE, Notifier
from captions.records.record import Record, Result
from captions.uploads.version import pad_sequencer
from captions_cli.local.cloudformation.translate import load_template

TEMPLATE = load_template(Path(__file__).parents[2] / "cli" / "captions_cli" / "results.yaml")
RESOURCES = TEMPLATE["Resources"]


class Bus:
    """Keeps what is put on it, as rules get it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.events += [
            {
                "source": entry["Source"],
                "detail-type": entry["DetailType"],
                "region": "eu-west-1",
                "detail": json.loads(entry["Detail"]),
            }
            for entry in Entries
        ]
        return {"FailedEntryCount": 0}


def ended(number: int, state: str, at: str, text: str | None = None) -> dict[str, Any]:
    """The event of an upload's end, as the product sends it."""
    bus = Bus()
    record = Record(
        asset="bucket/a.jpg",
        bucket="bucket",
        key="a.jpg",
        sequencer=pad_sequencer(f"{number:016X}"),
        state=state,
        result=Result(text=text, language="en", task="caption") if text else None,
        completed_at=at,
    )
    Notifier(bus, "media-captions").ended([record])
    return bus.events[0]


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Hand an event to the function; answers the table's item afterwards."""
    monkeypatch.setenv("TABLE", "results")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with mock_aws():
        table = RESOURCES["Table"]["Properties"]
        made = boto3.resource("dynamodb").create_table(
            TableName="results",
            BillingMode=table["BillingMode"],
            AttributeDefinitions=table["AttributeDefinitions"],
            KeySchema=table["KeySchema"],
        )
        code: dict[str, Any] = {}
        exec(RESOURCES["Function"]["Properties"]["Code"]["ZipFile"], code)

        def taken(event: dict[str, Any]) -> dict[str, Any]:
            code["handler"](event, None)
            return dict(made.get_item(Key={"asset": "bucket/a.jpg"})["Item"])

        yield taken


def test_the_last_change_stands_in_whatever_order_events_come(take: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    first = ended(1, "captioned", "2026-01-01T00:00:01Z", "a dog")
    second = ended(2, "captioned", "2026-01-01T00:00:09Z", "a cat")
    assert take(first)["text"] == "a dog"
    assert take(second)["text"] == "a cat"
    assert take(first)["text"] == "a cat"  # late, or once more
    gone = take(ended(3, "deleted", "2026-01-01T00:00:20Z"))
    assert (gone["state"], gone.get("text"), gone["region"]) == ("deleted", None, "eu-west-1")
    assert take(second)["state"] == "deleted"


def test_of_two_ends_of_one_change_the_later_stands(take: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    redriven = ended(1, "captioned", "2026-01-02T00:00:00Z", "a dog")
    assert take(redriven)["state"] == "captioned"
    assert take(ended(1, "failed", "2026-01-01T00:00:00Z"))["state"] == "captioned"


def test_the_rule_takes_every_end_and_nothing_else() -> None:
    pattern = RESOURCES["Rule"]["Properties"]["EventPattern"]
    assert pattern["source"] == [SOURCE]
    assert set(pattern["detail-type"]) == set(DETAIL_TYPES.values())
