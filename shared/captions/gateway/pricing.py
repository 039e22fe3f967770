"""What an attempt cost, in exact dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from captions.gateway.catalogue import Model
from captions.gateway.types import CostSource, Usage

_MILLION = Decimal(1_000_000)


def usage_of(usage: object) -> tuple[Usage, Decimal | None]:
    """Return the tokens of a response's `usage` object, and the dollars the endpoint itself names in `usage.cost`."""
    if usage is None:
        return Usage(), None
    prompt_details = _field(usage, "prompt_tokens_details")
    completion_details = _field(usage, "completion_tokens_details")
    tokens = Usage(
        prompt=_count(_first(usage, "prompt_tokens", "input_tokens")),
        completion=_count(_first(usage, "completion_tokens", "output_tokens")),
        cached=_count(_field(prompt_details, "cached_tokens")),
        reasoning=_count(_field(completion_details, "reasoning_tokens")),
        seconds=_seconds(_field(usage, "seconds")),
    )
    return tokens, _dollars(_field(usage, "cost"))


def cost_of(usage: Usage, stated: Decimal | None, model: Model) -> tuple[Decimal | None, CostSource]:
    """Return an attempt's dollars and where they come from: the endpoint's own figure, else tokens times prices.

    Cached tokens are part of the prompt's and reasoning tokens part of the completion's, so the buckets that are priced
    are disjoint: fresh prompt, cached prompt, completion. A price or a count that is missing makes the cost unknown. A
    model with a price per minute costs its seconds of sound, and no tokens.
    """
    if stated is not None:
        return stated, "endpoint"
    if model.minute_price is not None:
        if usage.seconds is None and model.minute_price:
            return None, "unknown"
        return Decimal(str(usage.seconds or 0)) * model.minute_price / 60, "catalogue"
    if usage.prompt is None or usage.completion is None:
        return None, "unknown"
    cached = min(usage.cached or 0, usage.prompt)
    # Without a price of its own a cached token is taken at the full price, which it never exceeds.
    cached_price = model.cached_input_price if model.cached_input_price is not None else model.input_price
    total = Decimal(0)
    for count, price in (
        (usage.prompt - cached, model.input_price),
        (cached, cached_price),
        (usage.completion, model.output_price),
    ):
        if count == 0:
            continue
        if price is None:
            return None, "unknown"
        total += count * price
    return total / _MILLION, "catalogue"


def _field(holder: object, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)


def _first(holder: object, *names: str) -> Any:
    """Return the first field that is there: transcriptions have other names for the counts than chats."""
    return next((value for name in names if (value := _field(holder, name)) is not None), None)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _dollars(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        dollars = Decimal(str(value))
    except InvalidOperation:
        return None
    return dollars if dollars.is_finite() and dollars >= 0 else None
