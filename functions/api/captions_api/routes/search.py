"""Captions by their words and by what they mean; the index is the search function's, which is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from captions import telemetry
from captions_api.access import Caller
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal
from captions_api.routes.assets import summaries
from captions_api.services import Services
from captions_api.views import ApiShape, AssetSummary

router = APIRouter(tags=["assets"])

MOST_PER_PAGE = 100
Day = Annotated[date | None, Query(description="A day (UTC) that the caption may be from.")]


class FoundAssets(ApiShape):
    """A page of a search."""

    items: tuple[AssetSummary, ...]
    cursor: str | None = Field(description="Where the next page begins; null: there is no more. A page may be short.")
    relaxed: bool = Field(description="Whether no caption has every word, so that these lack some.")
    by: tuple[Literal["words", "meaning"], ...] = Field(
        description="By what was searched; by words alone: newest first."
    )


@router.get("/search", summary="Search captions")
def search_assets(
    stack: Serving,
    who: Who,
    q: Annotated[
        str,
        Query(
            max_length=500,
            description='Words; "a phrase" just so, begin* for beginnings of words, -word for what must not be there.',
        ),
    ] = "",
    prefix: Annotated[str, Query(max_length=1_024, description="What the key begins with.")] = "",
    category: Annotated[str | None, Query(max_length=40)] = None,
    tag: Annotated[str | None, Query(max_length=200)] = None,
    since: Day = None,
    until: Day = None,
    by: Annotated[
        Literal["both", "words", "meaning"], Query(description="By what, where the stack knows both.")
    ] = "both",
    limit: Annotated[int, Query(ge=1, le=MOST_PER_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
) -> FoundAssets:
    """Return captions by their words (docs/search.md), the newest first; 404 where the stack keeps no index."""
    days = {name: day.isoformat() for name, day in (("since", since), ("until", until)) if day is not None}
    about = {"text": q, "prefix": prefix, "category": category or None, "tag": tag or None, "by": by, **days}
    purpose = json.dumps(["search", who.name, who.prefixes, about], sort_keys=True)
    after = stack.seal.unseal(cursor, purpose) if cursor is not None else None
    page = ask(stack, {"search": {**about, "within": who.prefixes, "limit": limit, "cursor": after}})
    if "problem" in page:
        raise Refusal(422, "invalid", str(page["problem"]))
    following = stack.seal.seal(page["cursor"], purpose) if page["cursor"] is not None else None
    return FoundAssets(
        items=_shown(stack, who, page["items"]), cursor=following, relaxed=page["relaxed"], by=page["by"]
    )


def _shown(stack: Services, who: Caller, items: list[Mapping[str, Any]]) -> tuple[AssetSummary, ...]:
    own = stack.prefixes(who)
    assets = [str(item["asset"]) for item in items if str(item["asset"]).startswith(own)]
    records = {record.asset: record for record in stack.records.read(assets)}
    # What was deleted since the index was asked is not shown.
    kept = [records[asset] for asset in assets if asset in records and records[asset].state != "deleted"]
    return summaries(stack, who, kept)


def ask(stack: Services, event: Mapping[str, Any]) -> dict[str, Any]:
    """Invoke the search function; raises Refusal (404, 503), and boto3's errors."""
    if not stack.settings.search_function:
        raise Refusal(404, "no-search", "this stack keeps no index of captions: deploy it with Search=words")
    answer = stack.clients("lambda").invoke(
        FunctionName=stack.settings.search_function, Qualifier="live", Payload=json.dumps(event).encode()
    )
    reported: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        telemetry.logger().warning("search_failed", error=reported.get("errorType"))
        telemetry.count("ApiUnavailable")
        raise Refusal(503, "not-available", "the search did not answer; try again", headers={"Retry-After": "2"})
    return reported
