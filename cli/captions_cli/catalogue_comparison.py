"""The catalogue beside what an endpoint says it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from captions.gateway.catalogue import Catalogue, CatalogueError, Model
from captions_cli import price_lists
from captions_cli.price_lists import Price


@dataclass(frozen=True)
class PriceChange:
    """A price that the endpoint lists otherwise than the catalogue, in dollars per million tokens."""

    model: str
    what: Literal["input", "output"]
    catalogue: Decimal | None
    endpoint: Decimal


@dataclass(frozen=True)
class CatalogueComparison:
    """The catalogue beside what an endpoint's `/v1/models` offers.

    `present` and `missing` hold catalogue names, in the catalogue's order; `new` holds the endpoint's names that the
    catalogue does not know, sorted; `contexts` maps a catalogue name to the context (tokens) the endpoint lists where
    that is smaller than the catalogue's.
    """

    present: tuple[str, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]
    price_changes: tuple[PriceChange, ...]
    contexts: Mapping[str, int]


def compare_with_endpoint(
    catalogue: Catalogue,
    models_payload: object,
    base_url: str | None = None,
    prices: Mapping[str, Price] | None = None,
) -> CatalogueComparison:
    """Compare the catalogue with the body of an endpoint's `GET /v1/models`.

    Prices are read in the shapes that `price_lists` knows, unless `prices` has them by the endpoint's names; contexts
    from `context_length` or vLLM's `max_model_len`. With `base_url` only what this endpoint is to serve is compared, by
    its own names.

    Raises:
        CatalogueError: the payload is not a list of models.
    """
    offered = price_lists.entries(models_payload)
    if offered is None:
        raise CatalogueError("the endpoint's answer to /v1/models is not a list of models")
    listed = price_lists.prices(models_payload) if prices is None else prices
    wanted: dict[str, str] = {}
    for name, model in catalogue.models.items():
        if not model.enabled:
            continue
        served = (model, name) if base_url is None else catalogue.served(name, base_url)
        if served is not None:
            wanted[name] = served[1]
    changes: list[PriceChange] = []
    contexts: dict[str, int] = {}
    for name, theirs in wanted.items():
        entry = offered.get(theirs)
        if entry is None:
            continue
        if theirs in listed:
            changes.extend(_price_changes(catalogue.models[name], listed[theirs]))
        context = entry.get("context_length") or entry.get("max_model_len")
        if isinstance(context, int) and context < catalogue.models[name].context:
            contexts[name] = context
    return CatalogueComparison(
        present=tuple(name for name, theirs in wanted.items() if theirs in offered),
        missing=tuple(name for name, theirs in wanted.items() if theirs not in offered),
        new=tuple(sorted(set(offered) - set(wanted.values()))),
        price_changes=tuple(changes),
        contexts=contexts,
    )


def _price_changes(model: Model, price: Price) -> list[PriceChange]:
    sides: tuple[tuple[Literal["input", "output"], Decimal | None, Decimal | None], ...] = (
        ("input", model.input_price, price.input),
        ("output", model.output_price, price.output),
    )
    return [
        PriceChange(model=model.name, what=what, catalogue=ours, endpoint=theirs)
        for what, ours, theirs in sides
        if theirs is not None and theirs != ours
    ]
