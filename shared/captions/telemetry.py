"""Powertools' logger, tracer and metrics, made once and only when first asked for.

Metrics are CloudWatch embedded metric format: JSON lines in the log, one for each set of dimensions, written when a
handler ends. Dimensions are few and their values too, as every combination is a metric that is paid for by the month:
`service` (a function, or PIPELINE for what is about the product as a whole), `model`, `task`, `outcome`, `kind`. Never
an object's key.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from captions.cost import Cost
from captions.once import once

__all__ = [
    "MetricUnit",
    "cache_hit",
    "count",
    "flush",
    "gauge",
    "logger",
    "measured",
    "metrics",
    "model_call",
    "model_calls",
    "observe",
    "task_count",
    "tracer",
]

PIPELINE = "pipeline"
"""The `service` of metrics that several functions write and alarms read as one."""
PIPELINE_METRICS = frozenset(
    {
        "Accepted",
        "BrokenModelsOverride",
        "Edited",
        "EndpointAccountProblem",
        "NotIndexed",
        "PolicyOverrideBroken",
        "TerminalInTime",
        "TerminalLate",
        "WebhookEndpointFailing",
        "WebhooksConfigurationBroken",
    }
)
"""Counts that belong to the product as a whole, whichever function reports them."""

_guard = threading.RLock()
"""Powertools' metrics are not made for threads; dedupe handles its messages in several."""
_sets: dict[tuple[tuple[str, str], ...], EphemeralMetrics] = {}


@once
def logger() -> Logger:
    """The process's logger: JSON lines, an event name with fields, never media, keys or whole captions."""
    return Logger(use_rfc3339=True)


@once
def metrics() -> Metrics:
    """The process's own metrics, written as CloudWatch embedded metric format when a handler returns."""
    return Metrics()


@once
def tracer() -> Tracer:
    """The process's tracer; does nothing outside Lambda."""
    return Tracer(patch_modules=("botocore",))  # by itself it imports whatever else is installed that it could patch


def count(name: str, value: float = 1) -> None:
    """Add to a count; PIPELINE_METRICS are the product's, every other one is the function's own."""
    if name in PIPELINE_METRICS:
        _add((), name, MetricUnit.Count, value)
    else:
        _add_own(name, MetricUnit.Count, value)


def observe(name: str, milliseconds: float) -> None:
    """Add a duration of the function's own."""
    _add_own(name, MetricUnit.Milliseconds, milliseconds)


def gauge(name: str, value: float, unit: MetricUnit = MetricUnit.Count) -> None:
    """Say how much there is of something in the whole product at this moment."""
    _add((), name, unit, value)


def task_count(name: str, task: str) -> None:
    """Add to a count that is kept by task and in sum."""
    _add((("task", task),), name, MetricUnit.Count, 1)


def cache_hit(kind: str, saved: Cost | None) -> None:
    """Count an upload that needed no model: `exact` or `near` content, or `in_flight` as its twin was captioned.

    `saved` is what the copied caption had cost, added as far as it is known.
    """
    _add((("kind", kind),), "CacheHit", MetricUnit.Count, 1)
    if saved is not None and (saved.dollars or saved.exact is not None):
        _add((), "SavedDollars", MetricUnit.NoUnit, float(saved.dollars))


def model_call(
    *,
    model: str,
    task: str,
    outcome: str,
    latency_ms: float | None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    cost: Cost | None = None,
    fallback: bool = False,
    escalated: bool = False,
) -> None:
    """Add one call of a model: `outcome` is "ok" or an error class; what is None is unknown, and not added. Of a
    cost that is not known in full the known dollars are added, and the call counts as `CostUnknown`.

    Each figure is kept by model and task and in sum, calls by outcome as well.
    """
    _add((("model", model), ("task", task), ("outcome", outcome)), "ModelCalls", MetricUnit.Count, 1)
    by = (("model", model), ("task", task))
    if latency_ms is not None:
        _add(by, "ModelLatency", MetricUnit.Milliseconds, latency_ms)
    figures: Mapping[str, float | None] = {
        "PromptTokens": prompt_tokens,
        "CompletionTokens": completion_tokens,
        # Counts of zero are left out: they say nothing, and a metric costs by the hour in which it is written.
        "FallbackUsed": 1 if fallback else None,
        "Escalated": 1 if escalated else None,
        "CostUnknown": 1 if cost is None or cost.exact is None else None,
    }
    for name, value in figures.items():
        if value is not None:
            _add(by, name, MetricUnit.Count, value)
    if cost is not None and (cost.dollars or cost.exact is not None):
        _add(by, "CostDollars", MetricUnit.NoUnit, float(cost.dollars))


def model_calls(task: str, attempts: Iterable[Mapping[str, Any]]) -> None:
    """Add the calls made for one upload, in the plain form that records keep them in.

    A call of another model than the first one's was a fallback, unless its role says what it was.
    """
    first: str | None = None
    for attempt in attempts:
        first = first or attempt["model"]
        role = attempt.get("role") or ("first" if attempt["model"] == first else "fallback")
        model_call(
            model=attempt["model"],
            task=task,
            outcome=attempt["outcome"],
            # How long a batch took says nothing of the model.
            latency_ms=None if attempt.get("lane") == "bulk" else attempt["latency_ms"],
            prompt_tokens=attempt.get("prompt_tokens"),
            completion_tokens=attempt.get("completion_tokens"),
            cost=Cost.read(attempt),
            fallback=role == "fallback",
            escalated=role == "escalation",
        )


def flush() -> None:
    """Write what was added since the last time, one line for each set of dimensions."""
    with _guard:
        written = list(_sets.values())
        _sets.clear()
        for provider in written:
            if provider.metric_set:
                provider.flush_metrics()


_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def measured(handler: _Handler) -> _Handler:
    """Decorate a handler: its metrics are written when it ends, also when it fails."""

    @wraps(handler)
    def measuring(*arguments: Any, **named: Any) -> Any:
        try:
            return handler(*arguments, **named)
        finally:
            flush()

    return cast(_Handler, metrics().log_metrics(capture_cold_start_metric=True)(measuring))


def _add_own(name: str, unit: MetricUnit, value: float) -> None:
    with _guard:
        if metrics().provider.namespace is not None:  # there is none outside of a function
            metrics().add_metric(name=name, unit=unit, value=value)


def _add(dimensions: tuple[tuple[str, str], ...], name: str, unit: MetricUnit, value: float) -> None:
    """Add to a metric of the whole product, and to the same by these dimensions."""
    with _guard:
        provider = _sets.get(dimensions)
        if provider is None:
            provider = EphemeralMetrics(service=PIPELINE)
            # Powertools would add it when it writes, and forgets it where it writes a hundred values ahead of time.
            provider.add_dimension("service", PIPELINE)
            if dimensions:
                provider.add_dimensions(**dict(dimensions))
            _sets[dimensions] = provider
        if provider.namespace is not None:
            provider.add_metric(name=name, unit=unit, value=value)
