"""What there is to review: the least certain captions, by category, or a random sample with its margin of error."""

from __future__ import annotations

import math
import random
import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from captions.records.attention import GROUPS
from captions.records.listing import Filters
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal
from captions_api.routes.assets import ListQuery, page, summaries
from captions_api.views import ApiShape, AssetSummary

router = APIRouter(tags=["review"])

MOST_SAMPLED = 1_000
_Z = 1.959964
"""Standard deviations to either side that hold 95 % of a normal distribution."""


class ReviewQueue(ApiShape):
    """Captions to be judged."""

    items: tuple[AssetSummary, ...]
    cursor: str | None
    population: int | None = Field(
        description="About how many captions a sample stands for; null: not known, or no sample."
    )
    margin_of_error: float | None = Field(
        description="Half of the 95 % interval of a share that is found in the sample, at the widest; null: no sample."
    )
    seed: str | None = Field(description="Draws the same sample again, as long as the table stays the same.")


@router.get("/review", summary="Get captions to judge")
def review(
    stack: Serving,
    who: Who,
    order: Annotated[Literal["confidence", "category", "random"], Query()] = "confidence",
    category: Annotated[str | None, Query(max_length=40)] = None,
    n: Annotated[int, Query(ge=1, le=MOST_SAMPLED, description="How many; of a sample, 500 is usual.")] = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
    seed: Annotated[str | None, Query(max_length=64)] = None,
) -> ReviewQueue:
    """Return captions that nobody has judged, the least certain first, or a sample of all captions."""
    if category is not None and category not in GROUPS:
        raise Refusal(422, "invalid", f"category: categories are {', '.join(GROUPS)}")
    prefixes = stack.prefixes(who)
    if not prefixes:
        return ReviewQueue(items=(), cursor=None, population=None, margin_of_error=None, seed=None)
    if order != "random":
        filters = Filters(prefixes, states=frozenset({"captioned"}), reviewed=False, group=category)
        records, following = page(stack, ListQuery(who, order, filters, days=0), n, cursor)
        return ReviewQueue(
            items=summaries(stack, who, records), cursor=following, population=None, margin_of_error=None, seed=None
        )
    drawn_by = seed or secrets.token_hex(8)
    filters = Filters(prefixes, states=frozenset({"captioned"}), group=category)
    drawn = stack.listing.sample(filters, n, random.Random(drawn_by))  # noqa: S311 - a sample, no secret
    # How many there are of other prefixes is not for everybody.
    population = drawn.population if not who.limited else None
    return ReviewQueue(
        items=summaries(stack, who, list(drawn.records)),
        cursor=None,
        population=population,
        margin_of_error=margin_of_error(len(drawn.records), population),
        seed=drawn_by,
    )


def margin_of_error(drawn: int, population: int | None) -> float | None:
    """Return half of the widest 95 % interval of a share in a sample, with the correction for small populations."""
    if not drawn:
        return None
    correction = 1.0
    if population is not None and population > 1:
        correction = math.sqrt(max(0, population - drawn) / (population - 1))
    return round(_Z * math.sqrt(0.25 / drawn) * correction, 4)
