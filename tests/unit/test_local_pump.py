"""Partial batch responses, filters, schedules and targets' input, as AWS documents them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from captions_cli.local.aws.events import Sequencers, parse_function_name, s3_event, target_input
from captions_cli.local.aws.schedules import parse_schedule
from captions_cli.local.errors import StackError
from captions_cli.local.lambda_runtime.pump import Schedule, failed_messages, matches, schedule_event
from captions_cli.local.lambda_runtime.sandboxes import Function, InvocationOutcome

BATCH = ["a", "b", "c"]


def failures(*identifiers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


@pytest.mark.parametrize(
    ("payload", "stay"),
    [
        (None, ""),
        ({}, ""),
        ({"batchItemFailures": []}, ""),
        ({"batchItemFailures": None}, ""),
        (failures("b"), "b"),
        (failures("a", "c", "c"), "ac"),
        (failures(""), "abc"),
        (failures(None), "abc"),
        (failures("b", "not of the batch"), "abc"),
        ({"batchItemFailures": [{"itemId": "b"}]}, "abc"),
        ({"batchItemFailures": ["b"]}, "abc"),
        ({"batchItemFailures": {"itemIdentifier": "b"}}, "abc"),
        ("done", "abc"),
    ],
)
def test_partial_batch_responses_count_as_lambda_counts_them(payload: Any, stay: str) -> None:
    assert failed_messages(InvocationOutcome(True, payload, "id"), BATCH, partial=True) == set(stay)


def test_without_partial_responses_any_answer_is_success() -> None:
    assert failed_messages(InvocationOutcome(True, failures("b"), "id"), BATCH, partial=False) == set()


def test_an_error_fails_the_whole_batch_whatever_it_says() -> None:
    assert failed_messages(InvocationOutcome(False, failures("b"), "id"), BATCH, partial=True) == set(BATCH)


def test_filter_criteria_let_a_message_pass_if_any_pattern_matches() -> None:
    patterns: list[dict[str, Any]] = [{"body": {"kind": ["image"]}}, {"body": {"size": [{"numeric": [">", 10]}]}}]
    assert matches(patterns, '{"kind": "image"}')
    assert matches(patterns, '{"kind": "audio", "size": 11}')
    assert not matches(patterns, '{"kind": "audio", "size": 9}')
    assert not matches(patterns, "no JSON")
    assert matches([], "no JSON")


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("rate(2 minutes)", "2026-03-01T10:00:30", "2026-03-01T10:02:30"),
        ("rate(1 hour)", "2026-03-01T10:00:00", "2026-03-01T11:00:00"),
        ("rate(1 day)", "2026-03-01T10:00:00", "2026-03-02T10:00:00"),
        ("cron(0/15 * * * ? *)", "2026-03-01T10:07:30", "2026-03-01T10:15:00"),
        ("cron(0 12 * * ? *)", "2026-03-01T12:00:00", "2026-03-02T12:00:00"),
        ("cron(30 8 ? * MON-FRI *)", "2026-03-06T09:00:00", "2026-03-09T08:30:00"),
        ("cron(30 8 ? * WED,7 *)", "2026-03-01T09:00:00", "2026-03-04T08:30:00"),
        ("cron(0 0 1 JAN ? *)", "2026-03-06T09:00:00", "2027-01-01T00:00:00"),
        ("cron(5,10 0 29 2 ? *)", "2026-03-06T09:00:00", "2028-02-29T00:05:00"),
        ("at(2026-12-24T18:00:00)", "2026-03-06T09:00:00", "2026-12-24T18:00:00"),
        ("at(2026-01-01T00:00:00)", "2026-03-06T09:00:00", None),
        ("cron(0 0 1 1 ? 2020)", "2026-03-06T09:00:00", None),
    ],
)
def test_schedules_fire_when_they_should(expression: str, after: str, expected: str | None) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    result = parse_schedule(expression)(moment)
    assert result == (expected and datetime.fromisoformat(expected).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    "expression",
    [
        "rate(0 minutes)",
        "rate(1 week)",
        "cron(* * * * * *)",
        "cron(61 * * * ? *)",
        "cron(0 0 L * ? *)",
        "cron(0 0 ? * 2#1 *)",
        "hourly",
    ],
)
def test_what_is_no_schedule_is_an_error(expression: str) -> None:
    with pytest.raises(StackError, match="schedule"):
        parse_schedule(expression)


def test_scheduled_functions_get_the_services_own_event_or_the_input() -> None:
    function = Function("F", "f", "arn", "app.handler", Path(), 3.0, 128, {})
    due = datetime(2026, 3, 1, 10, tzinfo=UTC)
    rule = Schedule("arn:aws:events:eu-west-1:1:rule/r", function, parse_schedule("rate(1 hour)"), None, "aws.events")
    event = schedule_event(rule, due)
    assert event["detail-type"] == "Scheduled Event"
    assert event["time"] == "2026-03-01T10:00:00Z"
    assert event["resources"] == [rule.arn]
    assert event["detail"] == {}
    text = '{"at": "<aws.scheduler.scheduled-time>"}'
    scheduler = Schedule("arn:aws:scheduler:x:1:schedule/d/s", function, rule.next_after, text, "aws.scheduler")
    assert schedule_event(scheduler, due) == {"at": "2026-03-01T10:00:00Z"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({}, {"id": 'a"b', "detail": {"n": 1, "tags": ["x"]}}),
        ({"Input": '{"fixed": true}'}, {"fixed": True}),
        ({"InputPath": "$.detail.tags"}, ["x"]),
        (
            {"InputTransformer": {"InputPathsMap": {"n": "$.detail.n", "i": "$.id"}, "InputTemplate": '"<i> <n>"'}},
            'a"b 1',
        ),
        (
            {"InputTransformer": {"InputPathsMap": {"d": "$.detail"}, "InputTemplate": '{"was": <d>}'}},
            {"was": {"n": 1, "tags": ["x"]}},
        ),
    ],
)
def test_targets_get_what_their_rule_says(target: dict[str, Any], expected: Any) -> None:
    event = {"id": 'a"b', "detail": {"n": 1, "tags": ["x"]}}
    assert json.loads(target_input(target, event)) == expected


def test_sequencers_only_grow() -> None:
    sequencers = Sequencers()
    given = [sequencers.next() for _ in range(1000)]
    assert given == sorted(set(given))
    assert all(len(sequencer) == 16 for sequencer in given)


def test_an_unversioned_buckets_events_have_no_version() -> None:
    event = s3_event(
        "Object Created",
        region="eu-west-1",
        bucket="b",
        key="k",
        version_id=None,
        sequencer="00",
        etag="e",
        size=1,
        reason="PutObject",
        request_id="R",
        source_ip="127.0.0.1",
    )
    assert event["detail"]["object"] == {"key": "k", "size": 1, "etag": "e", "sequencer": "00"}
    assert event["resources"] == ["arn:aws:s3:::b"]


@pytest.mark.parametrize(
    "reference", ["name", "name:live", "arn:aws:lambda:r:1:function:name", "arn:aws:lambda:r:1:function:name:live"]
)
def test_a_function_is_found_by_any_of_its_names(reference: str) -> None:
    assert parse_function_name(reference) == "name"
