"""Lists of assets, one asset, and what a person says about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Literal

from botocore.exceptions import ClientError
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from captions import telemetry
from captions.config.policy import is_language
from captions.records.listing import BEGINNING, Filters, Position, last_day, stages
from captions.records.record import Record, State
from captions.records.reviews import (
    MAX_TEXT_BYTES,
    ChangedMeanwhileError,
    NotReviewableError,
    has_words,
    is_accepted,
)
from captions.subtitles import srt, timed, webvtt
from captions.timestamps import timestamp
from captions_api import ids, views
from captions_api.access import Caller
from captions_api.dependencies import IfMatch, Serving, Who
from captions_api.problems import Refusal, not_there
from captions_api.services import Services, changed, tags
from captions_api.views import ApiShape, Asset, AssetSummary, Opened, Original

router = APIRouter(tags=["assets"])

OVERLAP_SECONDS = 5.0
"""How far a look at what is new reaches back: the index may show an end a little later than it was written."""
MOST_PER_PAGE = 200
COPIES_SHOWN = 24
"""Of an asset's copies, with the asset itself."""


class Assets(ApiShape):
    """A page of assets."""

    items: tuple[AssetSummary, ...]
    cursor: str | None = Field(description="Where the next page begins; null: there is no more. A page may be short.")
    live: str = Field(
        description="What `since` takes, to be told what has ended or moved from now on; after `since` itself, where it"
        " goes on: of much that ended, a part is told at once."
    )


@dataclass(frozen=True)
class ListQuery:
    """What a list is asked for, as one value that its cursor is bound to."""

    caller: Caller
    order: Literal["newest", "confidence", "category"]
    filters: Filters
    days: int

    @property
    def purpose(self) -> str:
        query = {**vars(self.filters), "states": sorted(self.filters.states), "order": self.order, "days": self.days}
        return json.dumps(["assets", self.caller.name, self.caller.prefixes, query], sort_keys=True)


def page(stack: Services, asked: ListQuery, limit: int, cursor: str | None) -> tuple[list[Record], str | None]:
    """Read a page; raises Refusal (400) for a cursor of another list."""
    now = stack.now()
    today, after = datetime.fromtimestamp(now, UTC).date(), BEGINNING
    if cursor is not None:
        position = stack.seal.unseal(cursor, asked.purpose)
        today, after = datetime.fromisoformat(position["today"]).date(), Position(**position["after"])
    first, last = stack.listing.first_day(), last_day(now)
    order = stages(asked.order, asked.filters, today=today, first=first, last=last, days=asked.days)
    read = stack.listing.page(order, asked.filters, limit=limit, after=after)
    following = None
    if read.next is not None:
        following = stack.seal.seal({"today": today.isoformat(), "after": vars(read.next)}, asked.purpose)
    return list(read.records), following


def summaries(stack: Services, caller: Caller, records: list[Record]) -> tuple[AssetSummary, ...]:
    """Show records in a list, with who else has them open."""
    opened = stack.own.opened(but=caller.shown) if records else {}
    return tuple(views.summary(record, opened.get(record.asset)) for record in records)


def prefixes(stack: Services, caller: Caller, asked: str) -> tuple[str, ...]:
    """Return the beginnings of `bucket/key` that a caller may see of those they ask for; () is nothing."""
    wanted = f"{stack.bucket}/{asked}"
    own = stack.prefixes(caller)
    return (wanted,) if wanted.startswith(own) else tuple(prefix for prefix in own if prefix.startswith(wanted))


@router.get("/assets", summary="List assets")
def list_assets(
    stack: Serving,
    who: Who,
    state: Annotated[list[State] | None, Query(description="Of these states; without it of all but deleted.")] = None,
    prefix: Annotated[str, Query(max_length=1_024, description="What the key begins with.")] = "",
    kind: Annotated[str | None, Query(max_length=40)] = None,
    category: Annotated[str | None, Query(max_length=40)] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    task: Annotated[str | None, Query(max_length=40)] = None,
    reviewed: Annotated[bool | None, Query(description="Whether a person has judged it.")] = None,
    max_confidence: Annotated[float | None, Query(ge=0, le=1)] = None,
    copy_of: Annotated[
        str | None, Query(max_length=ids.MOST_CHARACTERS, description="Id of an asset: those that took its caption.")
    ] = None,
    cell: Annotated[
        str | None,
        Query(pattern=r"^[0-9a-f]{12}$", description="Id of a row of /v1/quality: what is behind it, edited first."),
    ] = None,
    q: Annotated[str, Query(max_length=200, description="In the key, the text or the tags.")] = "",
    order: Annotated[
        Literal["newest", "confidence"],
        Query(description="`confidence`: what nobody has judged, the least certain first."),
    ] = "newest",
    days: Annotated[int, Query(ge=1, le=3_650, description="How many days back to look.")] = 365,
    limit: Annotated[int, Query(ge=1, le=MOST_PER_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
    since: Annotated[str | None, Query(max_length=4_000, description="A list's `live`.")] = None,
) -> Assets:
    """Return a page of assets, newest first, or what has happened since an earlier look."""
    if (cell is not None or copy_of is not None) and order != "newest":
        raise Refusal(422, "invalid", "order: what is behind a cell, and copies, come newest first")
    exemplar = None
    if copy_of is not None:
        exemplar = ids.asset_of(copy_of)
        if exemplar is None or not exemplar.startswith(stack.prefixes(who)):
            raise not_there()
    filters = Filters(
        prefixes=prefixes(stack, who, prefix),
        states=frozenset(state or ()),
        kind=kind,
        group=category,
        model=model,
        task=task,
        reviewed=False if order == "confidence" else reviewed,
        most_confidence=max_confidence,
        copy_of=exemplar,
        cell=cell,
        words=q,
    )
    now = stack.now()
    live = stack.seal.seal(timestamp(now - OVERLAP_SECONDS), f"live {who.name}")
    if not filters.prefixes:
        return Assets(items=(), cursor=None, live=live)
    if since is not None:
        begun: str = stack.seal.unseal(since, f"live {who.name}")
        news, reached = stack.listing.since(begun, filters, now=timestamp(now), limit=limit)
        if reached is not None:
            live = stack.seal.seal(min(reached, timestamp(now - OVERLAP_SECONDS)), f"live {who.name}")
        return Assets(items=summaries(stack, who, list(news)), cursor=None, live=live)
    records, following = page(stack, ListQuery(who, order, filters, days), limit, cursor)
    return Assets(items=summaries(stack, who, records), cursor=following, live=live)


def shown(stack: Services, caller: Caller, record: Record, response: Response) -> Asset:
    """Show an asset in full, with its etag."""
    response.headers["ETag"] = views.etag_of(record)
    response.headers["Cache-Control"] = "no-store"
    copies, more = _copies(stack, caller, record)
    return views.asset(
        record,
        opened=stack.own.opened(but=caller.shown).get(record.asset),
        media_url=stack.link(record),
        copies=copies,
        more_copies=more,
        copied_from=_original(stack, caller, record),
    )


def _copies(stack: Services, caller: Caller, record: Record) -> tuple[tuple[views.Copy, ...], bool]:
    """Return the newest uploads of the caller's that took a record's caption, and whether there may be more."""
    filters = Filters(stack.prefixes(caller), copy_of=record.asset)
    if record.result is None or not filters.prefixes:
        return (), False
    today = datetime.fromtimestamp(stack.now(), UTC).date()
    try:
        read = stack.listing.page(
            stages("newest", filters, today=today, first=None, days=0), filters, limit=COPIES_SHOWN
        )
    except ClientError as error:
        # A stack's update does not wait until a new index is built.
        if error.response.get("Error", {}).get("Code") != "ValidationException":
            raise
        telemetry.logger().warning("index_not_ready", index="copy_of")
        return (), True
    return tuple(map(views.copy, read.records)), read.next is not None


def _original(stack: Services, caller: Caller, record: Record) -> Original | None:
    copied = record.answer is not None and record.answer.source == "cache"
    source = record.provenance.copied_from if record.provenance is not None and copied else None
    if source is None or not source.startswith(stack.prefixes(caller)):
        return None
    original = stack.records.get(source)
    return Original(
        id=ids.id_of(source),
        key=source.partition("/")[2],
        thumbnail=views.thumbnail_of(original) if original is not None else None,
        comparison=views.comparison(record, original),
    )


@router.get("/assets/{id}", summary="Read one asset")
def get_asset(stack: Serving, who: Who, id: str, response: Response) -> Asset:
    """Return everything known about an asset."""
    return shown(stack, who, stack.record(who, id), response)


class EditedCaption(BaseModel):
    """A person's words in a caption's place."""

    text: str = Field(min_length=1, max_length=MAX_TEXT_BYTES)
    language: str | None = Field(None, max_length=80, description="A BCP 47 tag; without it that of the caption.")


def _judged(
    stack: Services,
    caller: Caller,
    record: Record,
    judge: Callable[[], Record],
    response: Response,
    publish: Callable[[Record], None],
) -> Asset:
    """Store a verdict and publish it; raises Refusal (409, 412)."""
    try:
        judged = judge()
    except NotReviewableError as error:
        raise Refusal(409, "not-reviewable", str(error)) from error
    except ChangedMeanwhileError as error:
        current = stack.records.get(record.asset)
        raise changed(views.etag_of(current) if current is not None else "") from error
    publish(judged)
    return shown(stack, caller, judged, response)


@router.patch("/assets/{id}", summary="Write a caption in place of the model's")
def edit_asset(
    stack: Serving, who: Who, id: str, words: EditedCaption, response: Response, if_match: IfMatch = None
) -> Asset:
    """Put a person's words in a caption's place; no model ever overwrites them."""
    text = words.text.encode("utf-8", "replace").decode()
    record = stack.matched(who, id, if_match, lambda record: has_words(record, text, words.language))
    if words.language is not None and not is_language(words.language):
        raise Refusal(422, "invalid", "language: it is no BCP 47 language tag")

    def judge() -> Record:
        return stack.reviews.edit(record, text, language=words.language, now=stack.now())

    return _judged(stack, who, record, judge, response, stack.notifier.reviewed)


@router.post("/assets/{id}/accept", summary="Find a caption right")
def accept_asset(stack: Serving, who: Who, id: str, response: Response, if_match: IfMatch = None) -> Asset:
    """Note that a person finds a model's caption right."""
    record = stack.matched(who, id, if_match, is_accepted)
    judge = partial(stack.reviews.accept, record, now=stack.now())
    return _judged(stack, who, record, judge, response, stack.notifier.reviewed)


@router.post("/assets/{id}/undo", summary="Take a verdict back")
def undo_asset(stack: Serving, who: Who, id: str, response: Response, if_match: IfMatch = None) -> Asset:
    """Take a person's last verdict back: the one before it holds again, or the model's words, which nobody judged."""

    def done(record: Record) -> bool:
        return views.etag_before_undo(record) in tags(if_match or "")

    record = stack.matched(who, id, if_match, done)
    judge = partial(stack.reviews.undo, record, now=stack.now())
    # Undone by a try before this one it is only published again: another undo would take one more verdict back.
    return _judged(stack, who, record, (lambda: record) if done(record) else judge, response, stack.notifier.undone)


@router.post("/assets/{id}/open", summary="Mark as open in review")
def open_asset(stack: Serving, who: Who, id: str) -> Opened:
    """Note that the caller has an asset open, for two minutes; answers who has it, if that is another."""
    return stack.own.open(stack.record(who, id).asset, who.shown)


@router.post("/assets/{id}/close", status_code=204, summary="Mark as closed")
def close_asset(stack: Serving, who: Who, id: str) -> None:
    """Note that the caller has closed an asset."""
    stack.own.close(stack.record(who, id).asset, who.shown)


@router.get(
    "/assets/{id}/tracks/captions.{form}",
    response_class=Response,
    responses={200: {"content": {"text/vtt": {}, "application/x-subrip": {}}}},
    summary="Read a recording's subtitles",
)
def get_track(stack: Serving, who: Who, id: str, form: Literal["vtt", "srt"]) -> Response:
    """Return a transcript as WebVTT or SubRip."""
    record = stack.record(who, id)
    cues = timed(record.result.data) if record.result is not None else []
    if not cues:
        raise not_there()
    text, media_type = (webvtt(cues), "text/vtt") if form == "vtt" else (srt(cues), "application/x-subrip")
    return Response(text, media_type=media_type, headers={"Cache-Control": "private, no-cache"})


@router.get(
    "/assets/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}},
    summary="See a small picture",
)
def get_thumbnail(stack: Serving, who: Who, id: str) -> Response:
    """Return a small picture of a picture; made when it is first asked for."""
    from captions_api.thumbnails import thumbnail

    picture = thumbnail(stack, stack.record(who, id))
    headers = {"Cache-Control": "private, max-age=604800, immutable"}
    return Response(picture, media_type="image/webp", headers=headers)
