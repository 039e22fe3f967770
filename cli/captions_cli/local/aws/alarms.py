"""States of alarms, worked out whenever somebody asks for them, from what a stack on one machine measures.

That is the functions' own metrics, which stand in their logs (CloudWatch embedded metric format), and how deep queues
are at the moment. An alarm that watches anything else (metrics of Lambda, the past of a queue) has insufficient data,
and its reason names what is missing. Periods end now, rather than at full minutes.
"""

from __future__ import annotations

import ast
import json
import operator
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.cloudformation.resources import ACCOUNT_ID

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

DEPTH = ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
_STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": len,
}
_COMPARISONS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "GreaterThanOrEqualToThreshold": (">=", operator.ge),
    "GreaterThanThreshold": (">", operator.gt),
    "LessThanThreshold": ("<", operator.lt),
    "LessThanOrEqualToThreshold": ("<=", operator.le),
}
_OPERATORS: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq,
}  # fmt: skip


class NotMeasuredError(Exception):
    """An alarm watches what no stack on one machine measures; says what."""


@dataclass
class LoggedMetrics:
    """The metrics in all logs of a directory, each line read once."""

    directory: Path
    _read: dict[Path, int] = field(default_factory=dict)
    _samples: dict[tuple[str, str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def refresh(self) -> None:
        """Read what was logged since."""
        for path in self.directory.glob("*.log"):
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                for line in log:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    self._read[path] = self._read.get(path, 0) + len(line)
                    if b'"_aws"' in line:
                        self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            blob = json.loads(line)
            at = blob["_aws"]["Timestamp"] / 1000
            for directive in blob["_aws"]["CloudWatchMetrics"]:
                for dimensions in directive["Dimensions"]:
                    named = frozenset((name, str(blob[name])) for name in dimensions)
                    for metric in directive["Metrics"]:
                        values = blob[metric["Name"]]
                        of_it = self._samples[directive["Namespace"], metric["Name"], named]
                        of_it += [(at, float(value)) for value in (values if isinstance(values, list) else [values])]
        except (ValueError, KeyError, TypeError):
            return  # some other line that says "_aws"

    def between(
        self, namespace: str, name: str, dimensions: frozenset[tuple[str, str]], begin: float, end: float
    ) -> list[float]:
        """Return a metric's values of a stretch of time (epoch seconds)."""
        samples = self._samples.get((namespace, name, dimensions), ())
        return [value for at, value in samples if begin < at <= end]


class Alarms:
    """Brings the states of alarms up to date before a call that asks for them, or sets one, passes.

    A state that somebody sets (SetAlarmState) stands until what is measured gives another state than it did then.
    `metrics` are those of the functions' logs; `depth` tells how many messages of a queue, by its name, are visible.
    """

    def __init__(self, depth: Callable[[str, str], int], now: Callable[[], float] = time.time) -> None:
        self.metrics: LoggedMetrics | None = None
        self._depth = depth
        self._now = now
        self._guard = threading.Lock()
        self._measured: dict[str, str] = {}  # the state that was last worked out, by the alarm's ARN

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        """Evaluate all alarms of the region where they are asked for, and answer."""
        if call.service == "cloudwatch" and call.action in ("DescribeAlarms", "SetAlarmState"):
            with self._guard:
                self._evaluate(call.region)
        return forward(call)

    def _evaluate(self, region: str) -> None:
        from moto.cloudwatch.models import cloudwatch_backends

        if self.metrics is None:
            return
        self.metrics.refresh()
        for alarm in list(cloudwatch_backends[ACCOUNT_ID][region].alarms.values()):
            if alarm.rule is not None:
                continue
            state, reason = self._state(alarm, region)
            if alarm.state_value == state:
                alarm.state_reason = reason  # since when it is so stays
            elif self._measured.get(alarm.alarm_arn) != state:
                alarm.update_state(reason, "{}", state)
            self._measured[alarm.alarm_arn] = state

    def _state(self, alarm: Any, region: str) -> tuple[str, str]:
        try:
            values = list(self._values(alarm, region))
        except NotMeasuredError as missing:
            return "INSUFFICIENT_DATA", f"Not measured on one machine: {missing}"
        sign, breaches = _COMPARISONS[alarm.comparison_operator]
        known = [value for value in values if value is not None]
        if not known and alarm.treat_missing_data in (None, "missing"):
            return "INSUFFICIENT_DATA", "No datapoint yet"
        missing_ones = len(values) - len(known) if alarm.treat_missing_data == "breaching" else 0
        breaching = [value for value in known if breaches(value, alarm.threshold)]
        needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
        if len(breaching) + missing_ones < needed:
            return "OK", f"Threshold not crossed ({sign} {alarm.threshold:g})"
        seen = ", ".join(f"{value:g}" for value in breaching) or "no data"
        return "ALARM", f"Threshold crossed: {seen} {sign} {alarm.threshold:g}"

    def _values(self, alarm: Any, region: str) -> Iterator[float | None]:
        """Yield the datapoints of an alarm's periods, the newest first; None: there is none."""
        queries = {query.id: query for query in alarm.metric_data_queries}
        for back in range(int(alarm.evaluation_periods)):
            if not queries:
                named = (alarm.namespace, alarm.metric_name, alarm.dimensions)
                yield self._value(named, alarm.statistic, int(alarm.period), back, region)
                continue
            values: dict[str, float | None] = {}
            for id, query in queries.items():
                if (stat := query.metric_stat) is not None:
                    named = (stat.metric.namespace, stat.metric.metric_name, stat.metric.dimensions)
                    values[id] = self._value(named, stat.stat, int(stat.period), back, region)
            (judged,) = (query for query in queries.values() if str(query.return_data).lower() != "false")
            yield calculated(judged.expression, values) if judged.expression else values[judged.id]

    def _value(self, metric: tuple[str, str, Any], statistic: str, period: int, back: int, region: str) -> float | None:
        namespace, name, listed = metric
        dimensions = frozenset((dimension.name, dimension.value) for dimension in listed)
        if (namespace, name) == DEPTH and back == 0:
            return float(self._depth(dict(dimensions)["QueueName"], region))
        if namespace.startswith("AWS/") or statistic not in _STATISTICS:
            raise NotMeasuredError(f"{namespace} {name}" + (" of the past" if (namespace, name) == DEPTH else ""))
        assert self.metrics is not None
        end = self._now() - back * period
        values = self.metrics.between(namespace, name, dimensions, end - period, end)
        return float(_STATISTICS[statistic](values)) if values else None


def calculated(expression: str, values: Mapping[str, float | None]) -> float | None:
    """Return what an expression of metrics gives for one period; None where a metric that it needs has no datapoint.

    It knows IF, FILL, AND, comparisons and arithmetic (Amazon CloudWatch user guide, "Using math expressions").
    Raises NotMeasuredError for anything else.
    """
    return _calculated(ast.parse(expression.replace(" AND ", " and "), mode="eval").body, values)


def _calculated(node: ast.AST, values: Mapping[str, float | None]) -> float | None:
    def of(inner: ast.AST) -> float | None:
        return _calculated(inner, values)

    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.Call(func=ast.Name(id="FILL"), args=[metric, filler]):
            value = of(metric)
            return of(filler) if value is None else value
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            holds = of(condition)
            return None if holds is None else of(then) if holds else of(otherwise)
        case ast.BoolOp(op=ast.And(), values=parts):
            both = [of(part) for part in parts]
            return None if None in both else float(all(both))
        case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
            first, second = of(left), of(right)
            if first is None or second is None or (isinstance(op, ast.Div) and not second):
                return None
            return float(_OPERATORS[type(op)](first, second))
    raise NotMeasuredError(ast.unparse(node))
