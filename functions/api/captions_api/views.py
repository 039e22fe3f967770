"""What the routes answer with, made of records: the shapes of the OpenAPI document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captions.cost import Cost
from captions.records.record import Likeness, Reason, Record, Result, State
from captions.subtitles import timed
from captions_api.ids import id_of

SUMMARY_CHARACTERS = 2_000
"""Of a text in a list; a transcript is read with its asset."""
MAX_TIMELINE = 200


class ApiShape(BaseModel):
    """What the shapes share."""

    model_config = ConfigDict(frozen=True)


class Money(ApiShape):
    """What is known of a cost: dollars for certain, tokens without a known price, calls that nobody counted."""

    dollars: str = Field(description="Decimal text: the part that is known.", examples=["0.000054"])
    unpriced_tokens: int = 0
    uncounted_calls: int = 0
    exact: bool = Field(description="Whether the dollars are all there is.")

    @classmethod
    def of(cls, cost: Cost) -> Money:
        """Show a cost."""
        return cls(
            dollars=format(cost.dollars, "f"),
            unpriced_tokens=cost.unpriced_tokens,
            uncounted_calls=cost.uncounted_calls,
            exact=cost.exact is not None,
        )

    @classmethod
    def of_known(cls, cost: Cost | None) -> Money | None:
        """Show a cost; None where nothing is known of it."""
        return None if cost is None else cls.of(cost)


class Opened(ApiShape):
    """Somebody has an asset open in review."""

    by: str
    until: str
    yours: bool = Field(False, description="Whether that is the caller.")


class AssetSummary(ApiShape):
    """One upload in a list."""

    id: str
    bucket: str
    key: str
    state: State
    reason: Reason | None
    kind: str | None = Field(description="image, animation, document, audio or video; null until it was looked at.")
    media_type: str | None
    task: str | None
    category: str | None
    tier: str | None
    text: str = Field(description=f"Its caption; in lists at most {SUMMARY_CHARACTERS} characters of it.")
    text_cut: bool = Field(description="Whether the text goes on.")
    alt_text: str | None
    tags: tuple[str, ...]
    language: str | None
    safety: str | None
    confidence: float | None
    model: str | None
    reported_model: str | None
    source: Literal["model", "cache", "human"] | None
    reviewed: Literal["accepted", "edited"] | None
    reviewed_at: str | None
    size: int
    received_at: str
    updated_at: str
    completed_at: str | None
    recaptioning: bool = Field(description="Whether it is on its way once more, with the caption it has.")
    cost: Money | None
    thumbnail: str | None = Field(description="Path of a small picture; null for what has none.")
    opened_by: Opened | None
    etag: str = Field(description="What `If-Match` takes.")


class Call(ApiShape):
    """One call to one model, or several older ones in one."""

    model: str
    endpoint: str | None
    outcome: str
    role: str | None
    tier: str | None
    status: int | None
    detail: str | None
    started_at: str | None
    latency_ms: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    calls: int
    cost: Money
    batch: str | None = Field(None, description="The batch it was a line of; how long it took is not known then.")


class Moment(ApiShape):
    """One step on an upload's way."""

    at: str
    what: Literal["received", "batch", "attempt", "answered", "copied", "ended", "reviewed", "recaption"]
    detail: str
    call: Call | None = None


class Comparison(ApiShape):
    """Why a copy was held for the same as what it was copied from."""

    kind: Literal["same_bytes", "same_content", "near"]
    hash_distance: int | None = Field(None, description="Bits of 256 in which the perceptual hashes differ.")
    why: str


class Original(ApiShape):
    """The asset a caption was copied from; null members: it is gone, or none of the caller's."""

    id: str
    key: str
    thumbnail: str | None
    comparison: Comparison | None


class Copy(ApiShape):
    """An asset that took this one's caption."""

    id: str
    key: str
    thumbnail: str | None
    at: str
    comparison: Comparison | None = Field(description="Null: it is older than what is kept of comparisons.")


class Track(ApiShape):
    """Subtitles of a recording."""

    kind: Literal["captions"]
    format: Literal["vtt", "srt"]
    language: str | None
    url: str


class Suggested(ApiShape):
    """A model's answer beside a person's words."""

    result: Result
    source: Literal["model", "cache"]
    at: str
    replaced: bool


class Verdict(ApiShape):
    """What a person said."""

    action: Literal["edited", "accepted"]
    text: str
    language: str
    at: str
    of_this_version: bool


class Asset(AssetSummary):
    """One upload in full."""

    version_id: str | None
    result: Result | None
    provenance: dict[str, Any] | None
    attempts: tuple[Call, ...]
    suggestion: Suggested | None
    human: Verdict | None
    model_text: str | None = Field(description="The model's own latest words.")
    media_url: str | None = Field(description="A link to the media, good for five minutes at the most.")
    tracks: tuple[Track, ...]
    timeline: tuple[Moment, ...]
    copies: tuple[Copy, ...] = Field(description="The newest; `/v1/assets?copy_of=` lists them all.")
    more_copies: bool = Field(description="Whether there are more, or may be.")
    copied_from: Original | None


PICTURES = ("image", "animation", "document")
_LEFT_OUT = frozenset({"attempts", "copied_from", "likeness"})


def etag_of(record: Record) -> str:
    """Return the tag of a record's state: it changes with every change that `If-Match` guards against."""
    return _etag(record, record.updated_at)


def etag_before_undo(record: Record) -> str | None:
    """Return the tag a record had before it was undone; None where that was not the last that became of it."""
    seen, at = record.undone or ("", "")
    return _etag(record, seen) if at and at == record.updated_at else None


def _etag(record: Record, updated_at: str) -> str:
    identity = f"{record.asset}\x00{record.sequencer}\x00{updated_at}"
    return f'"{hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:24]}"'


def thumbnail_of(record: Record) -> str | None:
    """Return the path of a record's thumbnail; another version has another one."""
    shown = record.kind in PICTURES or record.poster is not None
    if not shown or record.state in ("rejected", "deleted"):
        return None
    version = hashlib.sha256(record.sequencer.encode()).hexdigest()[:12]
    return f"/v1/assets/{id_of(record.asset)}/thumbnail?v={version}"


def summary(record: Record, opened: Opened | None = None) -> AssetSummary:
    """Show a record in a list."""
    return AssetSummary(**_summary(record, opened, SUMMARY_CHARACTERS))


def _summary(record: Record, opened: Opened | None, characters: int | None) -> dict[str, Any]:
    result, provenance = record.result, record.provenance
    text = result.text if result is not None else ""
    human = record.human if record.reviewed else None
    spent = provenance.spent if provenance is not None else None
    if record.attempts:
        # What is on its way has its calls beside the provenance; where there are both, they begin with its own.
        spent = Cost.sum(map(Cost.of_call, record.attempts))
    spent_in_all = spent + record.superseded if spent is not None else record.superseded
    return {
        "id": id_of(record.asset),
        "bucket": record.bucket,
        "key": record.key,
        "state": record.state,
        "reason": record.reason,
        "kind": record.kind,
        "media_type": record.media_type,
        "task": result.task if result else None,
        "category": provenance.category if provenance else None,
        "tier": provenance.tier if provenance else None,
        "text": text if characters is None else text[:characters],
        "text_cut": characters is not None and len(text) > characters,
        "alt_text": _alt_text(result),
        "tags": result.tags if result else (),
        "language": result.language if result else None,
        "safety": result.safety if result else None,
        "confidence": result.confidence if result else None,
        "model": provenance.model if provenance else None,
        "reported_model": provenance.reported_model if provenance else None,
        "source": record.source,
        "reviewed": human.action if human else None,
        "reviewed_at": human.at if human else None,
        "size": record.size,
        "received_at": record.received_at,
        "updated_at": record.updated_at,
        "completed_at": record.completed_at,
        "recaptioning": record.recaption is not None,
        "cost": Money.of(spent_in_all) if spent is not None or record.superseded_calls else None,
        "thumbnail": thumbnail_of(record),
        "opened_by": opened,
        "etag": etag_of(record),
    }


def _alt_text(result: Result | None) -> str | None:
    if result is None:
        return None
    if result.task == "alt_text":
        return result.text
    text = result.data.get("alt_text") or result.data.get("alt")
    return text if isinstance(text, str) else None


def asset(
    record: Record,
    *,
    opened: Opened | None = None,
    media_url: str | None = None,
    copies: Sequence[Copy] = (),
    more_copies: bool = False,
    copied_from: Original | None = None,
) -> Asset:
    """Show a record in full."""
    provenance, suggestion, human = record.provenance, record.suggestion, record.human
    # Where there are attempts beside a provenance, they begin with its own.
    made: Sequence[Mapping[str, Any]] = record.attempts or (provenance.attempts if provenance else ())
    calls = tuple(_call(entry) for entry in made)
    answer = record.answer
    return Asset(
        **_summary(record, opened, None),
        version_id=record.version_id,
        result=record.result,
        provenance=provenance.model_dump(mode="json", exclude=set(_LEFT_OUT)) if provenance else None,
        attempts=calls,
        suggestion=Suggested(**suggestion.model_dump(exclude={"result"}), result=suggestion.result)
        if suggestion
        else None,
        human=Verdict(**human.model_dump(include={"action", "text", "language", "at"}), of_this_version=record.reviewed)
        if human
        else None,
        model_text=answer.result.text if answer else None,
        media_url=media_url,
        tracks=_tracks(record),
        timeline=_timeline(record, calls),
        copies=tuple(copies),
        more_copies=more_copies,
        copied_from=copied_from,
    )


def copy(record: Record) -> Copy:
    """Show a record as one that took another's caption."""
    return Copy(
        id=id_of(record.asset),
        key=record.key,
        thumbnail=thumbnail_of(record),
        at=record.completed_at or record.updated_at,
        comparison=comparison(record),
    )


_WAYS = {"whole": "", "marked": ", but for a small pale mark", "cropped": ", in the part that both show"}


def comparison(record: Record, original: Record | None = None) -> Comparison | None:
    """Return why a copy was held for the same as `original`; without what was decided by, their contents tell."""
    likeness = record.provenance.likeness if record.provenance is not None else None
    if likeness is None and original is not None:
        same = not set(original.content).isdisjoint(record.content)
        bytes_too = same and original.etag == record.etag != "" and original.size == record.size
        likeness = Likeness(kind="same_bytes" if bytes_too else "same_content" if same else "near")
    if likeness is None:
        return None
    why = {
        "same_bytes": "the files are the same, byte for byte",
        "same_content": "the content is the same, in another file",
        "near": f"the pictures look the same in every part that is compared{_WAYS[likeness.way or 'whole']}",
    }[likeness.kind]
    if likeness.luma is not None and likeness.chroma is not None:
        why += (
            f": no part differs by more than {likeness.luma:.1f} of 255 in brightness (limit {likeness.luma_limit:.1f})"
            f" and {likeness.chroma:.1f} in colour (limit {likeness.chroma_limit:.1f})"
        )
    return Comparison(kind=likeness.kind, hash_distance=likeness.hash_distance, why=why)


_NUMBERS = ("status", "latency_ms", "prompt_tokens", "completion_tokens")
_TEXTS = ("endpoint", "role", "tier", "detail", "started_at", "batch")


def _call(attempt: Mapping[str, Any]) -> Call:
    outcomes = attempt.get("outcomes")
    outcome = ", ".join(f"{name} {number}" for name, number in outcomes.items()) if outcomes else attempt.get("outcome")
    numbers = {name: _whole(attempt.get(name)) for name in _NUMBERS}
    texts = {name: _as_text(attempt.get(name)) for name in _TEXTS}
    return Call(
        model=str(attempt.get("model") or ""),
        outcome=str(outcome or "unknown"),
        calls=int(attempt.get("calls", 1)),
        cost=Money.of(Cost.of_call(attempt)),
        **(numbers | ({"latency_ms": None} if texts["batch"] else {})),
        **texts,
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _tracks(record: Record) -> tuple[Track, ...]:
    if record.result is None or not timed(record.result.data):
        return ()
    language = record.result.language
    path = f"/v1/assets/{id_of(record.asset)}/tracks/captions"
    return tuple(
        Track(kind="captions", format=form, language=language, url=f"{path}.{form}") for form in ("vtt", "srt")
    )


def _timeline(record: Record, calls: Sequence[Call]) -> tuple[Moment, ...]:
    provenance = record.provenance
    moments = [Moment(at=record.received_at, what="received", detail=f"{record.size} bytes")]
    moments += [
        Moment(at=call.started_at, what="batch", detail=f"waited in batch {call.batch}")
        for call in calls
        if call.started_at and call.batch
    ]
    if record.lane == "bulk" and not record.terminal:
        moments.append(Moment(at=record.updated_at, what="batch", detail="waits for a batch"))
    moments += [
        Moment(at=call.started_at, what="attempt", detail=f"{call.model}: {call.outcome}", call=call)
        for call in calls
        if call.started_at
    ]
    if provenance is not None and provenance.answered_at and record.source != "cache":
        moments.append(Moment(at=provenance.answered_at, what="answered", detail=provenance.model or ""))
    if record.recaption is not None:
        moments.append(Moment(at=record.recaption.at, what="recaption", detail=record.recaption.mode))
    if record.completed_at:
        copied = record.source == "cache"
        detail = record.reason.message if record.reason else "another upload's caption" if copied else record.state
        moments.append(Moment(at=record.completed_at, what="copied" if copied else "ended", detail=detail))
    if record.human is not None and record.reviewed:
        moments.append(Moment(at=record.human.at, what="reviewed", detail=record.human.action))
    return tuple(sorted((entry for entry in moments if entry.at), key=lambda entry: entry.at))[-MAX_TIMELINE:]
