"""What a call is expected to take and to cost, before anybody is asked."""

from dataclasses import dataclass
from decimal import Decimal

from captions.cost import Cost
from captions.gateway.catalogue import Catalogue
from captions.gateway.pricing import cost_of
from captions.gateway.types import Usage

PICTURE_TOKENS = 1_200
"""A picture of middling size at a vision model; the largest copy that is sent takes about 2,400."""


@dataclass(frozen=True)
class CallEstimate:
    """What one call is expected to take, and to cost as far as prices are known; None for a model that nobody knows."""

    model: str
    prompt_tokens: int
    answer_tokens: int
    cost: Cost | None

    @property
    def dollars(self) -> Decimal | None:
        """What it costs, None where a price is not known."""
        return self.cost.exact if self.cost is not None else None


def estimate(model: str, prompt_tokens: int, answer_tokens: int, catalogue: Catalogue) -> CallEstimate:
    """Return what a call is expected to cost by the catalogue's prices."""
    entry = catalogue.models.get(model)
    if entry is None or entry.minute_price is not None:
        return CallEstimate(model, prompt_tokens, answer_tokens, None)
    cost, _ = cost_of(Usage(prompt=prompt_tokens, completion=answer_tokens), None, entry)
    return CallEstimate(model, prompt_tokens, answer_tokens, cost)
