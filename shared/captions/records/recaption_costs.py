"""What it may cost to have a caption made once more.

There are two figures: the expected cost, by the model that is asked first and the tokens of the last answer, and at
the most, where the dearest models answer at full length, one is shown its answer and asked to mend it, and the tier
above is asked as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from captions.config.policy import Policy
from captions.cost import Cost
from captions.gateway.catalogue import Catalogue
from captions.records.attempts import calls
from captions.records.record import Record
from captions.routing import routes
from captions.routing.estimates import PICTURE_TOKENS, estimate
from captions.routing.routes import Chains
from captions.tasks import TASKS

ANSWER_TOKENS = 200
"""Of an answer, where the record does not tell how many its last one had."""


@dataclass(frozen=True)
class RecaptionCost:
    """What one caption may cost; `expected` and `most` as far as prices are known, None: not known.

    `unpriced` are the models that may be asked and have no price.
    """

    model: str
    expected: Cost | None
    most: Decimal | None
    unpriced: tuple[str, ...]


def recaption_cost(record: Record, rules: Policy, catalogue: Catalogue) -> RecaptionCost:
    """Return what it may cost to caption a record's upload once more."""
    kind, task = record.kind or "image", record.answer.result.task if record.answer else "caption"
    before = record.provenance.tier if record.provenance else None
    chains = routes.chains(record.key, kind, task, rules)
    if before is not None and before in rules.tiers and before != chains.tier:
        higher = rules.step_up(before)
        chains = replace(
            chains,
            tier=before,
            models=rules.tiers[before].models,
            higher_tier=higher,
            higher=rules.tiers[higher].models if higher is not None else (),
        )
    last: dict[str, Any] = {}
    for attempt in record.provenance.attempts if record.provenance else ():
        last = attempt if attempt.get("completion_tokens") and calls(attempt) == 1 else last
    prompt_tokens = int(last.get("prompt_tokens") or PICTURE_TOKENS)
    answer_tokens = int(last.get("completion_tokens") or ANSWER_TOKENS)
    # Each part of a recording is asked about by itself.
    parts = max(1, len(record.answer.result.data.get("parts") or ())) if record.answer else 1
    longest = max(answer_tokens, TASKS[task].max_tokens if task in TASKS else answer_tokens)
    expected = estimate(chains.models[0], prompt_tokens, answer_tokens, catalogue).cost
    most, unpriced = most_of(chains, prompt_tokens, longest, catalogue)
    return RecaptionCost(
        chains.models[0],
        Cost.sum([expected] * parts) if expected is not None else None,
        most * parts if most is not None else None,
        unpriced,
    )


def most_of(
    chains: Chains, prompt_tokens: int, answer_tokens: int, catalogue: Catalogue
) -> tuple[Decimal | None, tuple[str, ...]]:
    """Return what an answer, a repair and a step up cost at the most, and the models that have no price."""

    def dearest(models: Sequence[str], prompt: int) -> Decimal | None:
        costs = [estimate(model, prompt, answer_tokens, catalogue).dollars for model in models]
        return max((cost for cost in costs if cost is not None), default=None)

    parts = (
        dearest(chains.models, prompt_tokens),
        dearest(chains.models, prompt_tokens + answer_tokens),  # a repair shows the model its answer
        dearest(chains.higher, prompt_tokens),
    )
    known = [part for part in parts if part is not None]
    names = (*chains.models, *chains.higher)
    unpriced = tuple(
        dict.fromkeys(name for name in names if estimate(name, prompt_tokens, answer_tokens, catalogue).dollars is None)
    )
    return (sum(known, Decimal(0)) if known else None), unpriced
