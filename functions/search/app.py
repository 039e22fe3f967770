"""Keeps the index of captions, and answers searches.

It takes completion events from its queue, a whole batch as one segment; tidies the index on a schedule; and, invoked
with `{"search": {…}}`, answers a search.
"""

from captions import cold_start  # isort: skip

import json
import time
from collections.abc import Mapping
from datetime import date
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from captions import composition, telemetry
from captions.records.record import Record
from captions.search.searching import SearchQuery
from captions.search.words import QueryError

STOPPING_SECONDS = 30.0
"""Kept back of the time that a tidying has: a merge that began must end."""

logger, tracer = telemetry.logger(), telemetry.tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@telemetry.measured
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a batch, answer a search, have what ended since a time (`{"since": epoch}`) looked at again, or tidy."""
    try:
        return handle(event, context)
    finally:
        if (spans := composition.model_spans()) is not None:
            spans.flush()


def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what an event asks for."""
    if "Records" in event:
        return take(event["Records"])
    if "search" in event:
        return answer(event["search"])
    index = composition.search().index
    if "since" in event:
        index.check_since(float(event["since"]))
        return {}
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1_000 - STOPPING_SECONDS
    tidied = index.tidy(deadline=deadline)
    logger.info("tidied", **tidied.__dict__)
    return dict(tidied.__dict__)


def take(messages: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Index what a batch of events is about; what is no such event comes back alone, in the end to be a dead letter."""
    assets: dict[str, str] = {}
    for message in messages:
        try:
            assets[message["messageId"]] = str(json.loads(message["body"])["detail"]["asset"])
        except (ValueError, TypeError, KeyError):
            logger.exception("event_not_understood", message_id=message["messageId"])
            telemetry.count("RecordFailed")
    try:
        records = composition.search().index.take(assets.values())
    except Exception:
        logger.exception("batch_not_indexed", messages=len(messages))
        telemetry.count("RecordFailed", len(assets))
        assets = {}
    else:
        logger.info("batch_indexed", messages=len(messages), records=len(records))
    failed = [message["messageId"] for message in messages if message["messageId"] not in assets]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a search; what cannot be searched for is a `problem`."""
    about = {**asked, "within": tuple(asked.get("within", ("",)))}
    try:
        about |= {name: _day(name, asked.get(name)) for name in ("since", "until")}
        page = composition.search().find(SearchQuery(**about))
    except QueryError as error:
        return {"problem": str(error)}
    return {
        "items": [_item(record) for record in page.records],
        "cursor": page.cursor,
        "relaxed": page.relaxed,
        "by": list(page.by),
    }


def _day(name: str, given: str | None) -> date | None:
    try:
        return date.fromisoformat(given) if given else None
    except ValueError as error:
        raise QueryError(f"{name}: {error}") from error


def _item(record: Record) -> dict[str, Any]:
    result, provenance = record.result, record.provenance
    return {
        "asset": record.asset,
        "bucket": record.bucket,
        "key": record.key,
        "text": result.text[:2_000] if result else "",
        "language": result.language if result else None,
        "tags": list(result.tags) if result else [],
        "category": provenance.category if provenance else None,
        "kind": record.kind,
        "source": record.source,
        "completed_at": record.completed_at,
    }


cold_start.over()
