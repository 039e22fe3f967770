"""The `attention` index: what waits for a person, and what people judged, so that reading it costs what it shows.

    attention                         attention_rank
    unreviewed#<category>#<shard>     <confidence>#<when it ended>   a caption that nobody has judged yet
    <state>#<shard>                   <when it ended>                a failed, blocked or rejected upload
    judged#<shard>                    <cell>#<verdict>#<when>        a verdict, by what it is counted in (quality.cells)

An upload has one entry: a verdict, another version and another end replace it
(docs/decisions/0007-attention-index.md).
"""

import hashlib
from collections.abc import Mapping

from captions.picture_class import CATEGORIES
from captions.records.record import Record

ATTENTION = frozenset({"attention", "attention_rank"})
"""The attributes that make an item stand in the index."""
SHARDS = 2
"""Partitions of one category or state. Confidences spread over the whole sort key, so that DynamoDB splits a busy
partition by itself; two let an even load begin at 2,000 captions a second."""
OTHER = "other"
"""The category of pictures that were not looked at."""
GROUPS: tuple[str, ...] = (*CATEGORIES, "audio", "video", OTHER)
"""What unreviewed captions are grouped by: a picture's category, or what else it is."""
JUDGED = "judged"
ENDED_WITHOUT = ("failed", "blocked", "rejected")
"""The states without a caption that a person may do something about."""


def group_of(category: str | None, kind: str | None) -> str:
    """Return which of GROUPS a picture of a category, or a recording of a kind, belongs to."""
    return category if category in GROUPS else kind if kind in GROUPS else OTHER


def unreviewed(
    asset: str, *, category: str | None, kind: str | None, confidence: float | None, at: str
) -> dict[str, str]:
    """Return the place of a caption that nobody has judged; without a confidence it stands first of all."""
    return {
        "attention": f"unreviewed#{group_of(category, kind)}#{shard_of(asset)}",
        "attention_rank": f"{min(max(confidence or 0.0, 0.0), 1.0):.4f}#{at}",
    }


def without_caption(asset: str, state: str, at: str) -> Mapping[str, str]:
    """Return the place of an upload that ended without a caption; empty for the other states."""
    if state not in ENDED_WITHOUT:
        return {}
    return {"attention": f"{state}#{shard_of(asset)}", "attention_rank": at}


def judged_in(asset: str, cell: str, verdict: str, at: str) -> dict[str, str]:
    """Return the place of a caption that a person judged at `at`, by the id of what the verdict is counted in."""
    return {"attention": f"{JUDGED}#{shard_of(asset)}", "attention_rank": f"{cell}#{verdict}#{at}"}


def places(record: Record) -> dict[str, str]:
    """Return where an ended upload stands in the indexes for people: what its end and its verdict write there."""
    provenance, human, result = record.provenance, record.human, record.result
    at = record.completed_at or record.updated_at
    places: dict[str, str] = {}
    if record.reviewed and human is not None:
        if human.judged is not None and human.judged.cell is not None:
            places |= judged_in(record.asset, human.judged.cell.id, human.action, human.at)
    elif record.state == "captioned" and result is not None:
        category = provenance.category if provenance else None
        places |= unreviewed(record.asset, category=category, kind=record.kind, confidence=result.confidence, at=at)
    else:
        places |= without_caption(record.asset, record.state, at)
    if record.state == "captioned" and provenance is not None and provenance.copied_from:
        places["copy_of"] = provenance.copied_from
    return places


def partitions(name: str) -> tuple[str, ...]:
    """Return the partitions of a state, of JUDGED, or of `unreviewed#<category>`."""
    return tuple(f"{name}#{shard}" for shard in range(SHARDS))


def shard_of(asset: str) -> int:
    """Return the shard an asset belongs to."""
    return hashlib.sha256(asset.encode()).digest()[1] % SHARDS
