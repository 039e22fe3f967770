"""What an attempt cost, in exact dollars."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import Any

from captions.cost import Cost
from captions.gateway.catalogue import Model
from captions.gateway.types import CostSource, Usage

_MILLION = Decimal(1_000_000)
_MOST_TOKENS = 1_000_000_000
"""More is no count: the largest context there is holds ten million."""
_MOST_SECONDS = 1e7
_MOST_DOLLARS = Decimal(1_000_000)
_DOLLAR_DIGITS = Decimal("1e-12")
"""What an endpoint states is kept to this digit: tables hold 38 digits of a number, and nothing under 1e-130 (Amazon
DynamoDB, "Supported data types"), while sums of many costs must still fit."""


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


def cost_of(usage: Usage, stated: Decimal | None, model: Model) -> tuple[Cost, CostSource]:
    """Return what an attempt cost and where that comes from: the endpoint's own figure, else tokens times prices.

    Cached tokens are part of the prompt's and reasoning tokens part of the completion's, so the buckets that are priced
    are disjoint: fresh prompt, cached prompt, completion. Where a price is missing, its tokens are counted beside the
    dollars, and where a count is, the call. A model with a price per minute costs its seconds of sound, and no tokens.
    """
    if stated is not None:
        return Cost(dollars=stated), "endpoint"
    if model.minute_price is not None:
        if usage.seconds is None and model.minute_price:
            return Cost(uncounted_calls=1), "unknown"
        return Cost(dollars=Decimal(str(usage.seconds or 0)) * model.minute_price / 60), "catalogue"
    prompt, completion = usage.prompt or 0, usage.completion or 0
    cached = min(usage.cached or 0, prompt)
    # Without a price of its own a cached token is taken at the full price, which it never exceeds.
    cached_price = model.cached_input_price if model.cached_input_price is not None else model.input_price
    buckets = ((prompt - cached, model.input_price), (cached, cached_price), (completion, model.output_price))
    cost = Cost(
        dollars=sum((count * price for count, price in buckets if price is not None), Decimal(0)) / _MILLION,
        unpriced_tokens=sum(count for count, price in buckets if price is None),
        uncounted_calls=int(usage.prompt is None or usage.completion is None),
    )
    return cost, "unknown" if cost.exact is None else "catalogue"


def saved_in_batch(usage: Usage, stated: Decimal | None, spent: Cost, model: Model) -> Cost:
    """Return what a line of a batch would have cost by itself, at the model's own prices, beyond what it cost.

    Where a price is missing, its tokens stand beside the dollars, as in what was spent.
    """
    alone, _ = cost_of(usage, None, model)
    if stated is not None and alone.exact is None:
        return alone.model_copy(update={"dollars": Decimal(0)})
    return alone.model_copy(update={"dollars": alone.dollars - spent.dollars})


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
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if 0 <= seconds <= _MOST_SECONDS else None


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def _dollars(value: object) -> Decimal | None:
    """Return the dollars stated, rounded up to a digit that tables hold; None for what can be no cost."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        dollars = Decimal(str(value)[:400])
    except (InvalidOperation, ValueError):
        return None
    if not dollars.is_finite() or not 0 <= dollars <= _MOST_DOLLARS:
        return None
    return dollars.quantize(_DOLLAR_DIGITS, ROUND_UP).normalize() if dollars else Decimal(0)
