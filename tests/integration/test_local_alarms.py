"""Alarms on one machine ring by what the stack measures, and say what they cannot know."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captions_cli.local.aws.alarms import Alarms, LoggedMetrics, NotMeasuredError, calculated
from captions_cli.local.aws.server import AwsCall
from support.pipeline import aws_in_this_process, client_of

NOW = 1_800_000_000.0
SUM = {"Namespace": "pipeline", "Statistic": "Sum", "Period": 60, "Dimensions": [{"Name": "service", "Value": "all"}]}
OVER_TWO = {"ComparisonOperator": "GreaterThanThreshold", "Threshold": 2.0, "TreatMissingData": "notBreaching"}


class Watched:
    """Alarms in this process, a log that functions write to, and how deep each queue is."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "Function.log"
        self.depths = {"dead-letters": 0}
        self.cloudwatch = client_of("cloudwatch")
        self.now = NOW
        self._alarms = Alarms(lambda queue, region: self.depths[queue], now=lambda: self.now)
        self._alarms.metrics = LoggedMetrics(directory)

    def write(self, seconds_ago: float, end: str = "\n", **metrics: Any) -> None:
        """Log metrics as Powertools does."""
        named = [{"Name": name, "Unit": "Count"} for name in metrics]
        about = {"Namespace": "pipeline", "Dimensions": [["service"]], "Metrics": named}
        blob = {"_aws": {"Timestamp": (self.now - seconds_ago) * 1000, "CloudWatchMetrics": [about]}, "service": "all"}
        with self.log.open("a") as log:
            log.write("START RequestId: 1\n" + json.dumps(blob | metrics) + end)

    def set(self, alarm: str, state: str) -> None:
        """Set an alarm's state by hand."""
        self._pass("SetAlarmState")
        self.cloudwatch.set_alarm_state(AlarmName=alarm, StateValue=state, StateReason="a drill")

    def _pass(self, action: str) -> None:
        call = AwsCall("cloudwatch", "us-east-1", {"HTTP_X_AMZ_TARGET": f"GraniteService.{action}"}, b"")
        self._alarms(call, lambda passed: None)  # type: ignore[arg-type, return-value]

    def states(self) -> dict[str, tuple[str, str]]:
        """The state of each alarm and its reason."""
        self._pass("DescribeAlarms")
        alarms = self.cloudwatch.describe_alarms()["MetricAlarms"]
        return {alarm["AlarmName"]: (alarm["StateValue"], alarm["StateReason"]) for alarm in alarms}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with aws_in_this_process():
        yield Watched(tmp_path)


def test_an_alarm_rings_by_the_metrics_in_the_logs(watched: Watched) -> None:
    often = {"EvaluationPeriods": 3, "DatapointsToAlarm": 2}
    watched.cloudwatch.put_metric_alarm(AlarmName="failed", MetricName="Failed", **SUM, **OVER_TWO, **often)
    assert watched.states()["failed"][0] == "OK"
    watched.write(90, Failed=[1.0, 2.0])
    watched.write(10, Failed=3)
    watched.write(5, end="", Failed=100)  # which is still being written
    assert watched.states()["failed"] == ("ALARM", "Threshold crossed: 3, 3 > 2")
    with watched.log.open("a") as log:
        log.write("\n")
    assert watched.states()["failed"] == ("ALARM", "Threshold crossed: 103, 3 > 2")


def test_an_alarm_rings_by_an_expression_of_metrics_and_by_the_depth_of_a_queue(watched: Watched) -> None:
    def stat(id: str, name: str) -> dict[str, Any]:
        metric = {name: SUM[name] for name in ("Namespace", "Dimensions")} | {"MetricName": name}
        return {"Id": id, "ReturnData": False, "MetricStat": {"Stat": "Sum", "Period": 60, "Metric": metric}}

    share = {"Id": "share", "Expression": "IF(calls >= 20, 10 * FILL(failed, 0) / calls, 0)"}
    metrics = [share, stat("calls", "Calls"), stat("failed", "Failed")]
    watched.cloudwatch.put_metric_alarm(AlarmName="share", Metrics=metrics, EvaluationPeriods=1, **OVER_TWO)
    depth = {"Namespace": "AWS/SQS", "MetricName": "ApproximateNumberOfMessagesVisible", "Statistic": "Maximum"}
    queue = {"Period": 60, "EvaluationPeriods": 1, "Dimensions": [{"Name": "QueueName", "Value": "dead-letters"}]}
    watched.cloudwatch.put_metric_alarm(AlarmName="dead", **depth, **queue, **OVER_TWO)
    watched.write(5, Calls=20)
    assert {name: state for name, (state, _) in watched.states().items()} == {"share": "OK", "dead": "OK"}
    watched.write(5, Failed=5)
    watched.depths["dead-letters"] = 3
    assert watched.states() == {
        "share": ("ALARM", "Threshold crossed: 2.5 > 2"), "dead": ("ALARM", "Threshold crossed: 3 > 2"),
    }  # fmt: skip


def test_an_alarm_says_what_is_not_measured(watched: Watched) -> None:
    errors = {**SUM, "Namespace": "AWS/Lambda", "MetricName": "Errors", "EvaluationPeriods": 2}
    watched.cloudwatch.put_metric_alarm(AlarmName="errors", **errors, **OVER_TWO)
    assert watched.states()["errors"] == ("INSUFFICIENT_DATA", "Not measured on one machine: AWS/Lambda Errors")
    with pytest.raises(NotMeasuredError, match="DIFF"):
        calculated("IF(depth > 1000 AND DIFF(depth) > 0, 1, 0)", {"depth": 2_000.0})


def test_a_calculation_lacks_what_its_metrics_lack() -> None:
    assert calculated("IF(age > 300 AND FILL(done, 0) == 0, 1, 0)", {"age": 301.0, "done": None}) == 1.0
    assert calculated("a - b", {"a": 1.0, "b": None}) is None
    assert calculated("a / b", {"a": 1.0, "b": 0.0}) is None


def test_a_state_that_somebody_sets_stands_until_another_is_measured(watched: Watched) -> None:
    watched.cloudwatch.put_metric_alarm(
        AlarmName="failed", MetricName="Failed", **SUM, **OVER_TWO, EvaluationPeriods=1, DatapointsToAlarm=1
    )
    for _ in range(2):
        watched.set("failed", "ALARM")
        assert watched.states()["failed"][0] == "ALARM"
    watched.write(5, Failed=3)
    assert watched.states()["failed"] == ("ALARM", "Threshold crossed: 3 > 2")
    watched.set("failed", "OK")
    assert watched.states()["failed"][0] == "OK"
    watched.now += 60
    assert watched.states()["failed"] == ("OK", "Threshold not crossed (> 2)")
    watched.write(5, Failed=4)
    assert watched.states()["failed"] == ("ALARM", "Threshold crossed: 4 > 2")
