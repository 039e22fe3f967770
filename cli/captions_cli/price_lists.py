"""What an endpoint's own list of models says of prices.

There is no common shape. Those that are read, each with the page that documents it:

* `pricing.prompt` and `pricing.completion`, dollars per token, as text (OpenRouter,
  https://openrouter.ai/docs/api-reference/list-available-models; SambaNova and Nebius do alike)
* `pricing.input` and `pricing.output`: numbers are dollars per million tokens (Together,
  https://docs.together.ai/reference/models-1), text is dollars per token (Vercel,
  https://vercel.com/docs/ai-gateway/models-and-providers)
* `metadata.pricing.input_tokens` and `output_tokens`, dollars per million tokens (DeepInfra,
  https://deepinfra.com/docs/openai_api)
* `model_info.input_cost_per_token` and `output_cost_per_token`, dollars per token (LiteLLM's `/model/info`,
  https://docs.litellm.ai/docs/proxy/model_management)
* `input_token_price_per_m` and `output_token_price_per_m`, ten-thousandths of a dollar per million tokens (Novita,
  https://novita.ai/docs/api-reference/model-apis-llm-list-models)

A list is what a server says, not what is charged: a price is taken only if it can be one. Zero is not, as servers write
it for what they do not know; neither are prices in other currencies, and those of models that cost by picture or by
request beside their tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

LEAST_PRICE, MOST_PRICE = Decimal("0.001"), Decimal(1_000)
"""Dollars per million tokens; the cheapest models cost some 0.01, the dearest 600. A price that is out by the million
between tokens and millions of them lies outside."""
_LONGEST_NUMBER = 40
_PER_TOKEN, _PER_MILLION, _NOVITA = Decimal(1_000_000), Decimal(1), Decimal("0.0001")


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens; None: not listed, or not believed."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None


def entries(payload: object) -> dict[str, Mapping[str, Any]] | None:
    """Return the models of an answer to `/v1/models` or `/model/info` by name; None where it is no list of models."""
    # Together answers with a bare list, which must hold something to be one of models.
    listed = payload.get("data") if isinstance(payload, Mapping) else payload or None
    if not isinstance(listed, list):
        return None
    models = [entry for entry in listed if isinstance(entry, Mapping)]
    named = ((entry.get("id") or entry.get("model_name"), entry) for entry in models)
    return {name: entry for name, entry in named if isinstance(name, str)}


def prices(payload: object) -> dict[str, Price]:
    """Return the prices that an answer lists, by the endpoint's names of the models."""
    every = {name: price_of(entry) for name, entry in (entries(payload) or {}).items()}
    return {name: price for name, price in every.items() if price != Price()}


def price_of(entry: Mapping[str, Any]) -> Price:
    """Return what an entry of a list says of its model's price."""
    for holder, names, unit in _shapes(entry):
        price = Price(*(_dollars(holder.get(name), unit) if name else None for name in names))
        if price != Price():
            return price
    return Price()


def _shapes(entry: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], tuple[str, str, str], Decimal]]:
    pricing = _table(entry.get("pricing"))
    elsewhere = str(pricing.get("currency") or "USD").upper() != "USD"
    extra = any(_number(pricing.get(name)) not in (None, 0) for name in ("request", "image"))
    if not elsewhere and not extra:
        yield pricing, ("prompt", "completion", "input_cache_read"), _PER_TOKEN
        unit = _PER_TOKEN if isinstance(pricing.get("input"), str) else _PER_MILLION
        yield pricing, ("input", "output", "input_cache_read" if unit == _PER_TOKEN else "cached_input"), unit
    yield (
        _table(_table(entry.get("metadata")).get("pricing")),
        ("input_tokens", "output_tokens", "cache_read_tokens"),
        _PER_MILLION,
    )
    info = _table(entry.get("model_info"))
    yield info, ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"), _PER_TOKEN
    yield entry, ("input_token_price_per_m", "output_token_price_per_m", ""), _NOVITA


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        text = str(value)
        number = Decimal(text) if len(text) <= _LONGEST_NUMBER else None
    except (InvalidOperation, ValueError):
        return None
    # An exponent that no price has would overflow in whatever is done with it.
    return number if number is not None and number.is_finite() and abs(number.adjusted()) < _LONGEST_NUMBER else None


def _dollars(value: object, unit: Decimal) -> Decimal | None:
    number = _number(value)
    price = number * unit if number is not None else Decimal(0)
    return price.normalize() + 0 if LEAST_PRICE <= price <= MOST_PRICE else None
