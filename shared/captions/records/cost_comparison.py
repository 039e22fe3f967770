"""What models would have cost had they been asked otherwise: without tiers, without falling back, or one model alone.

Each is worked out call by call, from the tokens that records hold, the policy and the catalogue's prices as they stand
now. Where a price is missing, the tokens it is missing for stand beside the dollars; a call without tokens is one that
nobody counted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from captions.config.policy import Policy
from captions.cost import Cost
from captions.gateway.catalogue import Catalogue, Model
from captions.records.attempts import calls
from captions.records.record import Record
from captions.records.spending import calls_of

_MILLION = Decimal(1_000_000)
_TOKENS = (("prompt_tokens", "input_price"), ("completion_tokens", "output_price"))


@dataclass(frozen=True)
class CostComparison:
    """What was saved (negative: lost) and lost, and what another way would have cost."""

    saved_by_tiers: Cost
    """By asking a cheaper tier first: what its calls would have cost at the first model of the tier that it steps up
    to, less their own, less the calls of the step up. By the price of each tier's first model."""
    cost_of_fallback: Cost
    """Of models after a chain's first: what their calls cost beyond what the first model would have, and the calls that
    failed before them."""
    baseline: Cost | None
    """What one model alone would have cost: the first answer to each ask, without repairs and steps up. Copies are
    copies there, too."""


def compared(
    records: Iterable[Record], rules: Policy, catalogue: Catalogue, baseline: Model | None = None
) -> CostComparison:
    """Compare what the calls of records cost with other ways; `baseline` is the one model that is asked instead."""
    tiers, fallback, alone = Cost(), Cost(), Cost()
    for record in records:
        made = calls_of(record)
        tier = record.provenance.tier if record.provenance is not None else None
        tiers += Cost.sum(_saved_by_tier(call, tier, rules, catalogue) for call in made)
        fallback += Cost.sum(_of_fallback(made, tier, rules, catalogue))
        if baseline is not None:
            first = (call for call in made if _answered(call) and call.get("role") in (None, "first", "fallback"))
            alone += Cost.sum(_between(call, baseline, None) for call in first)
    return CostComparison(tiers, fallback, alone if baseline is not None else None)


def _saved_by_tier(call: Mapping[str, Any], tier: str | None, rules: Policy, catalogue: Catalogue) -> Cost:
    if call.get("role") == "escalation":
        paid = Cost.of_call(call)
        return paid.model_copy(update={"dollars": -paid.dollars})
    asked = str(call.get("tier") or tier)
    if asked not in rules.tiers or not _answered(call) or (top := _top(asked, rules)) == asked:
        return Cost()
    dear, cheap = (catalogue.models.get(rules.tiers[name].models[0]) for name in (top, asked))
    return _between(call, dear, cheap) if dear is not None and cheap is not None else _unknown(call)


def _top(tier: str, rules: Policy) -> str:
    """Return the tier that steps up from a tier end at."""
    passed = [tier]
    while (higher := rules.step_up(passed[-1])) is not None and higher not in passed:
        passed.append(higher)
    return passed[-1]


def _of_fallback(
    made: Sequence[Mapping[str, Any]], tier: str | None, rules: Policy, catalogue: Catalogue
) -> Iterator[Cost]:
    fell_back: set[str] = set()
    for call in made:
        asked = str(call.get("tier") or tier)
        models = rules.tiers[asked].models if asked in rules.tiers else ()
        # A first model whose circuit was open has no call of its own.
        # The bulk lane asks the first one that takes batches.
        in_batch = call.get("lane") == "bulk"
        later = not in_batch and (call.get("role") == "fallback" or call.get("model") in models[1:])
        if later and _answered(call):
            fell_back.add(asked)
            called = catalogue.models.get(str(call.get("model")))
            first = catalogue.models.get(models[0]) if models else None
            yield _between(call, called, first) if called is not None and first is not None else _unknown(call)
    for call in made:
        if not _answered(call) and str(call.get("tier") or tier) in fell_back:
            yield Cost.of_call(call)


def _answered(call: Mapping[str, Any]) -> bool:
    """Tell whether a call, or one of a sum of them, brought an answer."""
    return call.get("outcome") == "ok" or "ok" in (call.get("outcomes") or ())


def _between(call: Mapping[str, Any], model: Model | None, other: Model | None) -> Cost:
    """Return what a call's tokens cost at a model beyond what they do at another; None: beyond nothing."""
    if any(entry is not None and entry.minute_price is not None for entry in (model, other)):
        return Cost(uncounted_calls=calls(call))  # seconds are not kept
    dollars, unpriced = Decimal(0), 0
    for tokens, price in _TOKENS:
        if call.get(tokens) is None:
            return _unknown(call)
        prices = [getattr(entry, price) for entry in (model, other) if entry is not None]
        if None in prices:
            unpriced += int(call[tokens])
        else:
            dollars += int(call[tokens]) * (prices[0] - sum(prices[1:], Decimal(0))) / _MILLION
    return Cost(dollars=dollars, unpriced_tokens=unpriced)


def _unknown(call: Mapping[str, Any]) -> Cost:
    tokens = sum(int(call.get(name) or 0) for name, _ in _TOKENS)
    return Cost(unpriced_tokens=tokens, uncounted_calls=0 if tokens else calls(call))
