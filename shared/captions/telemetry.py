"""Powertools' logger, tracer and metrics, made once and only when first asked for."""

from functools import cache

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

__all__ = ["MetricUnit", "count", "logger", "metrics", "observe", "tracer"]


@cache
def logger() -> Logger:
    """The process's logger: JSON lines, an event name with fields, never media, keys or whole captions."""
    return Logger(use_rfc3339=True)


@cache
def metrics() -> Metrics:
    """The process's metrics, written as CloudWatch embedded metric format when a handler returns."""
    return Metrics()


@cache
def tracer() -> Tracer:
    """The process's tracer; does nothing outside Lambda."""
    return Tracer()


def count(name: str, value: float = 1) -> None:
    """Add to a count."""
    metrics().add_metric(name=name, unit=MetricUnit.Count, value=value)


def observe(name: str, milliseconds: float) -> None:
    """Add a duration."""
    metrics().add_metric(name=name, unit=MetricUnit.Milliseconds, value=milliseconds)
