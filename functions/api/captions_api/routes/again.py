"""Another try for an upload: captioned once more, or redriven."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from captions.queues import Revisit
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal
from captions_api.views import ApiShape, Money

router = APIRouter(tags=["assets"])


class RecaptionOrder(BaseModel):
    """How an asset is to be captioned once more."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(True, description="Whether only the cost is told.")
    mode: Literal["force", "stale"] = Field(
        "force", description="`stale`: a copy of a caption that is not stale will do."
    )
    max_cost: Annotated[Decimal, Field(gt=0, le=10_000, max_digits=12)] | None = Field(
        None, description="Dollars it may cost at the most; what has no known price is refused then."
    )


class Recaptioned(ApiShape):
    """Whether an asset is on its way once more, and what that may cost."""

    queued: bool
    model: str
    cost: Money | None = Field(description="As expected; null: not known.")
    most: str | None = Field(description="Dollars at the most, by the models that have a price.")
    unpriced: tuple[str, ...] = Field(description="Models that may be asked and have no price.")


class Queued(ApiShape):
    """Whether an upload is on its way again."""

    queued: bool


@router.post("/assets/{id}/recaption", summary="Caption once more")
def recaption_asset(stack: Serving, who: Who, id: str, order: RecaptionOrder) -> Recaptioned:
    """Tell what captioning an asset once more may cost, and, unless it is a dry run, have it done."""
    from captions.records.recaption_costs import recaption_cost  # brings the gateway along

    record = stack.record(who, id)
    if record.state != "captioned":
        raise Refusal(409, "not-captioned", f"it is {record.state}: only what has a caption is captioned once more")
    cost = recaption_cost(record, stack.policy, stack.catalogue)
    if order.max_cost is not None:
        most = max(
            (amount for amount in (cost.most, cost.expected.exact if cost.expected else None) if amount is not None),
            default=None,
        )
        if most is None or cost.unpriced or most > order.max_cost:
            about = f"{', '.join(cost.unpriced)} have no known price" if cost.unpriced else f"it may cost ${most}"
            raise Refusal(409, "too-dear", f"{about}, more than ${order.max_cost:f} for all that is known")
    if not order.dry_run:
        revisit = Revisit(upload=record.upload, reason="recaption", seen=record.updated_at, mode=order.mode)
        stack.queues.send(stack.settings.uploads_queue_url, revisit)
    return Recaptioned(
        queued=not order.dry_run,
        model=cost.model,
        cost=Money.of_known(cost.expected),
        most=format(cost.most, "f") if cost.most is not None else None,
        unpriced=cost.unpriced,
    )


@router.post("/assets/{id}/redrive", summary="Try a failed upload again")
def redrive_asset(stack: Serving, who: Who, id: str) -> Queued:
    """Send a failed or blocked upload on its way again."""
    record = stack.record(who, id)
    if record.state not in ("failed", "blocked"):
        raise Refusal(409, "not-failed", f"it is {record.state}: only what failed or was blocked is tried again")
    revisit = Revisit(upload=record.upload, reason="redrive", seen=record.updated_at)
    stack.queues.send(stack.settings.uploads_queue_url, revisit)
    return Queued(queued=True)
