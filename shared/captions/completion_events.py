"""Tells the event bus how an upload ended.

Delivery is at least once: where an upload's end was stored but its event may not have been sent, the event is published
again, with the same `id`, when the upload's message is delivered again.
"""

import hashlib
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captions.quality.cells import LINE, WINDOW_DAYS, Quality
from captions.records.record import Record

SOURCE = "media-captions"
DETAIL_TYPES = {
    "captioned": "Caption.Completed",
    "rejected": "Caption.Rejected",
    "blocked": "Caption.Blocked",
    "failed": "Caption.Failed",
    "deleted": "Caption.Deleted",
}
REVIEW_TYPES = {"edited": "Caption.Edited", "accepted": "Caption.Accepted"}
UNDONE_TYPE = "Caption.Undone"
FLAGGED_TYPE = "Quality.Flagged"
MAX_ENTRIES = 10
"""Entries of one PutEvents call (Amazon EventBridge, quotas)."""
TRIES = 4
LONGEST_REST_SECONDS = 0.2
"""Between two tries of what the bus did not take."""
MAX_TEXT_CHARACTERS = 20_000
"""An event holds 256 KB; a long transcript is read from the table."""


class NotDeliveredError(RuntimeError):
    """The event bus did not take every event; the message that caused them is to be delivered again."""


class Notifier:
    """Sends completion events; `events` is a boto3 EventBridge client."""

    def __init__(self, events: Any, bus: str) -> None:
        self._events = events
        self._bus = bus

    def ended(self, records: Sequence[Record]) -> None:
        """Send one event for each record, which must be terminal. Raises NotDeliveredError."""
        for start in range(0, len(records), MAX_ENTRIES):
            self._put(self._entry(*end_event(record)) for record in records[start : start + MAX_ENTRIES])

    def reviewed(self, record: Record) -> None:
        """Publish what a person said about a caption; to be repeated, with the same `id`, after an error."""
        self._put([self._entry(*review_event(record))])

    def undone(self, record: Record) -> None:
        """Publish that a verdict was taken back, and what the caption is since; to be repeated as `reviewed` is."""
        self._put([self._entry(*undo_event(record))])

    def flagged(self, cell: Quality) -> None:
        """Publish that a cell is edited too often; to be repeated, with the same `id`, after an error."""
        detail = cell.as_dict()
        named = hashlib.sha256(f"{cell.cell.id}\x00{cell.flagged_since}".encode()).hexdigest()[:32]
        # In whole percent too, for messages that a rule makes of the event, which cannot calculate.
        percent = {f"{name}_percent": round(100 * (detail[name] or 0)) for name in ("share", "low", "high")}
        detail = {**detail, "id": named, "cell": cell.cell.id, "judged": cell.counts.judged, **percent}
        detail |= {"line_percent": round(100 * LINE), "days": WINDOW_DAYS}
        self._put([self._entry(FLAGGED_TYPE, detail)])

    def _put(self, entries: Iterable[dict[str, Any]]) -> None:
        """Publish events, and again those that the bus did not take: its answer is a success, which no SDK repeats."""
        left, codes = list(entries), set[str]()
        for tries_left in reversed(range(TRIES)):
            answer = self._events.put_events(Entries=left)
            if not answer.get("FailedEntryCount"):
                return
            refused = [
                (entry, each) for entry, each in zip(left, answer["Entries"], strict=True) if "ErrorCode" in each
            ]
            left, codes = [entry for entry, _ in refused], {each["ErrorCode"] for _, each in refused}
            if tries_left:
                time.sleep(random.uniform(0, LONGEST_REST_SECONDS))  # noqa: S311 - spreads tries, no secret
        raise NotDeliveredError(f"{len(left)} events were not taken: {', '.join(sorted(codes))}")

    def _entry(self, detail_type: str, detail: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": detail_type,
            "Detail": json.dumps(detail, ensure_ascii=False),
        }


def end_event(record: Record) -> tuple[str, dict[str, Any]]:
    """The type and the detail of the event that tells how an upload ended; the record must be terminal."""
    # A version ends again when it is redriven or captioned again: its time tells one end from the other.
    return DETAIL_TYPES[record.state], _detail(record, f"{record.state}\x00{record.completed_at}")


def review_event(record: Record) -> tuple[str, dict[str, Any]]:
    """The type and the detail of the event that tells what a person said. Raises ValueError if nobody did."""
    if record.human is None:
        raise ValueError(f"nobody reviewed {record.asset}")
    return REVIEW_TYPES[record.human.action], _detail(record, f"{record.human.action}\x00{record.human.at}")


def undo_event(record: Record) -> tuple[str, dict[str, Any]]:
    """The type and the detail of the event that tells that a verdict was taken back, and what the caption is since."""
    return UNDONE_TYPE, _detail(record, f"undone\x00{record.updated_at}")


def _detail(record: Record, what: str) -> dict[str, Any]:
    at_least = record.provenance.cost_at_least if record.provenance else None
    about = f"{record.asset}\x00{record.sequencer}\x00{what}"
    return {
        "id": hashlib.sha256(about.encode()).hexdigest()[:32],
        "asset": record.asset,
        "bucket": record.bucket,
        "key": record.key,
        "version_id": record.version_id,
        # Events come in any order: of one object's, the greater sequencer is the later, then the later update.
        "sequencer": record.sequencer,
        "ended_at": record.completed_at or record.updated_at,
        "updated_at": record.updated_at,
        "state": record.state,
        "source": record.source,
        "kind": record.kind,
        "language": record.result.language if record.result else None,
        "text": record.result.text[:MAX_TEXT_CHARACTERS] if record.result else None,
        "model": record.provenance.model if record.provenance else None,
        "cost": record.provenance.cost if record.provenance else None,
        "cost_at_least": at_least.model_dump() if at_least is not None else None,
        "reason": record.reason.model_dump() if record.reason else None,
    }
