"""Tells which of a stack's alarms ring."""

from collections.abc import Sequence
from dataclasses import dataclass

from captions_cli import drift
from captions_cli.errors import explain
from captions_cli.stack import Stack

KINDS = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
ASKED_AT_ONCE = 100
"""As many as DescribeAlarms takes."""


@dataclass(frozen=True)
class Look:
    """How many alarms a stack has and which ring; `why` says why that is not known."""

    all: int = 0
    ringing: tuple[str, ...] = ()
    why: str | None = None


def look(stack: Stack) -> Look:
    """Look at the stack's alarms; the answer says what AWS did not answer."""
    try:
        own = names(stack)
        return Look(len(own), tuple(ringing(stack, own)))
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        return Look(why=explained.message)


def names(stack: Stack) -> list[str]:
    """The names of the stack's alarms."""
    return sorted(drift.resources(stack, *KINDS).values())


def ringing(stack: Stack, own: Sequence[str]) -> list[str]:
    """Those of the alarms that ring. Raises as CloudWatch does."""
    cloudwatch, standings = stack.client("cloudwatch"), []
    for start in range(0, len(own), ASKED_AT_ONCE):
        answer = cloudwatch.describe_alarms(
            AlarmNames=list(own[start : start + ASKED_AT_ONCE]), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        listed = [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]
        standings += [alarm["AlarmName"] for alarm in listed if alarm.get("StateValue") == "ALARM"]
    return sorted(standings)
