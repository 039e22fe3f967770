"""What people make of captions: their own words in a model's place, or their consent; and what that says of models.

A verdict is written in one transaction with the counts it changes (captions.control_table), so that neither a
second try nor a crash counts it twice. Those by model, task and the answer's score are what its confidence is
calibrated from; those by day and cell (captions.quality.cells) show where people edit too often.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

from pydantic import BaseModel

from captions import control_table, telemetry
from captions.aws.dynamodb import from_item, to_item
from captions.quality.calibration import BINS, Platt, Verdicts, bin_of, fit
from captions.quality.cells import VerdictKind, expires_at
from captions.records import lifecycle
from captions.records.attention import ATTENTION, group_of, judged_in, unreviewed, without_caption
from captions.records.lifecycle import Transition
from captions.records.record import BeforeVerdict, Human, Judged, Record, Result
from captions.records.table import ChangedMeanwhileError as ChangedMeanwhileError
from captions.records.table import Records, ended
from captions.timestamps import timestamp

COUNTS_MAX_AGE_SECONDS = 300.0
"""How long a calibration is used before the counts are read again."""
MAX_TEXT_BYTES = 40_000
"""Of a person's words, which stand in a record twice, beside an answer of up to 250 KB and what it took; an item holds
400 KB in all (Amazon DynamoDB, quotas)."""


class NotReviewableError(Exception):
    """There is nothing to be said about this upload, as it stands."""


class Reviews:
    """Writes people's verdicts; `dynamodb` is a boto3 DynamoDB client."""

    def __init__(self, dynamodb: Any, captions_table: str, counts_table: str) -> None:
        self._records = Records(dynamodb, captions_table)
        self._counts_table = counts_table

    def edit(self, record: Record, text: str, *, now: float, language: str | None = None) -> Record:
        """Put a person's words in the place of a caption, or of none; the model's stay beside them.

        The same words once more change nothing. Raises NotReviewableError, ChangedMeanwhileError.
        """
        text = text.strip()
        if not text or len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
            raise NotReviewableError(f"a caption has 1 to {MAX_TEXT_BYTES:,} bytes in UTF-8")
        written = record.state in ("failed", "blocked")
        if record.result is None and not written:
            raise NotReviewableError(f"it is {record.state}, and has no caption yet")
        if has_words(record, text, language):
            return record
        before = record.result
        result: dict[str, Any] = {"text": text, "language": language or (before.language if before else "und")}
        result["task"] = before.task if before else "caption"
        if before is not None:
            result |= {"style": before.style, "tags": list(before.tags), "safety": before.safety}
        values: dict[str, Any] = {"source": "human", "result": result}
        if record.answer is not None:
            seen = record.answer.model_copy(update={"replaced": True})
            values["suggestion"] = seen.model_dump(exclude_none=True)
        if written:
            values |= ended(record.asset, now)
        return self._give(record, "edited", lifecycle.WRITE if written else lifecycle.EDIT, values, text=text, now=now)

    def accept(self, record: Record, *, now: float) -> Record:
        """Note that a person finds a model's caption right; a suggestion newer than their word takes its place.

        A second time changes nothing. Raises NotReviewableError, ChangedMeanwhileError.
        """
        if record.result is None:
            raise NotReviewableError(f"it is {record.state}, and has no caption")
        newer = record.suggestion if _newer(record) else None
        if is_accepted(record):
            return record
        if record.reviewed and newer is None:
            raise NotReviewableError("its caption is a person's words already")
        if newer is None:
            return self._give(record, "accepted", lifecycle.AGREE, {}, text="", now=now)
        values = {"result": newer.result.model_dump(exclude_none=True), "source": newer.source}
        return self._give(record, "accepted", lifecycle.PREFER, values, text="", now=now)

    def undo(self, record: Record, *, now: float) -> Record:
        """Take back the last verdict on this version, and what it was counted for: the one before it holds again.

        Where there was none, the model's latest answer is the caption again, or the upload is without one as before. A
        consent to words that a newer answer has replaced since does not come back. Raises NotReviewableError,
        ChangedMeanwhileError.
        """
        human = record.human if record.reviewed else None
        if human is None:
            raise NotReviewableError("nobody has said anything about it")
        before = human.before or BeforeVerdict()
        earlier, answer = before.human, record.answer
        values: dict[str, Any] = {}
        changes: _Changes = Counter()
        if human.judged is not None:
            _count(changes, human.judged, human.action, -1, human.at)
        if earlier is not None and earlier.sequencer == record.sequencer and earlier.action == "edited":
            way = lifecycle.UNDO_TO_WORDS
            restored = before.result or Result(text="", language=earlier.language, task="caption")
            values = {"source": "human", "result": restored.model_copy(update={"text": earlier.text})}
            if human.action == "accepted" and answer is not None:
                values["suggestion"] = answer.model_copy(update={"replaced": False})
        elif answer is not None:
            way = lifecycle.UNDO_TO_ANSWER
            values = {"source": answer.source, "result": answer.result}
            values |= unreviewed(
                record.asset,
                category=record.provenance.category if record.provenance is not None else None,
                kind=record.kind,
                confidence=answer.result.confidence,
                at=record.completed_at or timestamp(now),
            )
            same_words = human.action == "edited" and not _newer(record)
            if earlier is not None and earlier.sequencer == record.sequencer and not same_words:
                earlier = None
        elif before.state is None:
            raise NotReviewableError("no model has answered, so that no caption would be left")
        elif record.state != "captioned":
            raise NotReviewableError(f"it is {record.state}; wait until it has ended")
        else:
            way = lifecycle.UNDO_TO_NONE
            values = {"state": before.state, **ended(record.asset, now), "reason": before.reason}
            values |= {"completed_at": before.completed_at} if before.completed_at else {}
            values |= without_caption(record.asset, before.state, timestamp(now))
        values |= {"human": earlier, "undone": (record.updated_at, timestamp(now))}
        if earlier is not None and earlier.sequencer == record.sequencer:
            values = {name: value for name, value in values.items() if name not in ATTENTION}
            values |= _place(record, earlier)
            if before.counted_out and earlier.judged is not None:
                _count(changes, earlier.judged, earlier.action, 1, earlier.at)
        return self._write(record, way, values, changes, now=now)

    def _give(
        self,
        record: Record,
        verdict: VerdictKind,
        way: Transition,
        values: Mapping[str, Any],
        *,
        text: str,
        now: float,
    ) -> Record:
        judged = _judged(record)
        # A newer answer is another one to judge: what was said about the one before it stays counted.
        replaced = record.human if record.reviewed and not _newer(record) else None
        was_judged = replaced.judged if replaced is not None else None
        changes: _Changes = Counter()
        if judged is not None:
            _count(changes, judged, verdict, 1, timestamp(now))
        if replaced is not None and was_judged is not None:
            _count(changes, was_judged, replaced.action, -1, replaced.at)
        human = Human(
            sequencer=record.sequencer,
            action=verdict,
            text=text,
            language=values.get("result", {}).get("language", "und"),
            at=timestamp(now),
            content=record.content,
            judged=judged,
            before=_before(record, counted_out=was_judged is not None),
        )
        return self._write(record, way, {**values, "human": human, **_place(record, human)}, changes, now=now)

    def _write(
        self, record: Record, way: Transition, values: Mapping[str, Any], changes: "_Changes", *, now: float
    ) -> Record:
        """Store a changed record and the changes of the counts, both or neither, if the record is as it was seen."""
        stored = {name: value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
                  for name, value in values.items() if value is not None} | {"updated_at": timestamp(now)}  # fmt: skip
        return self._records.review(record, way, stored, tuple(self._counted(changes)))

    def _counted(self, changes: "_Changes") -> Iterator[dict[str, Any]]:
        """Yield the update of each item of counts that changes."""
        items: dict[tuple[str, str], dict[str, int]] = {}
        for (pk, sk, name), by in changes.items():
            if by:
                items.setdefault((pk, sk), {})[name] = by
        for (pk, sk), added in items.items():
            expression = "ADD " + ", ".join(f"#{place} :{place}" for place, _ in enumerate(added))
            values: dict[str, Any] = {f":{place}": by for place, by in enumerate(added.values())}
            if pk == control_table.VERDICTS:
                expression += " SET expires_at = if_not_exists(expires_at, :until)"
                values[":until"] = expires_at(sk.partition("#")[0])
            yield {
                "TableName": self._counts_table,
                "Key": {"pk": {"S": pk}, "sk": {"S": sk}},
                "UpdateExpression": expression,
                "ExpressionAttributeNames": {f"#{place}": name for place, name in enumerate(added)},
                "ExpressionAttributeValues": to_item(values),
            }


_Changes = Counter[tuple[str, str, str]]
"""By how much counts change: by the two keys of the item and the name of the count."""


def has_words(record: Record, text: str, language: str | None = None) -> bool:
    """Tell whether these words, in that language if one is given, are a person's about this version, and in force."""
    result = record.result if record.reviewed and record.source == "human" else None
    return result is not None and result.text == text.strip() and language in (None, result.language)


def is_accepted(record: Record) -> bool:
    """Tell whether a person finds the caption right that a record has, and no newer answer stands beside it."""
    return record.reviewed and record.human is not None and record.human.action == "accepted" and not _newer(record)


def _newer(record: Record) -> bool:
    """Tell whether a model has answered after the last verdict."""
    return record.suggestion is not None and not record.suggestion.replaced


def _judged(record: Record) -> Judged | None:
    """Return what a verdict on a record is counted by; None where it is about no model's answer."""
    answer, provenance = record.answer, record.provenance
    if answer is None or provenance is None or provenance.model is None:
        return None
    return Judged(
        model=provenance.model,
        task=answer.result.task,
        category=group_of(provenance.category, record.kind),
        prompt_version=provenance.prompt_version or "",
        experiment=provenance.experiment,
        arm=provenance.arm,
        score=provenance.score,
    )


def _count(changes: _Changes, judged: Judged, verdict: VerdictKind, by: int, at: str) -> None:
    """Note what a verdict given at `at` (ISO 8601) adds to the counts, or takes from them."""
    pk, sk = (value["S"] for value in control_table.verdicts(judged.model, judged.task).values())
    changes[pk, sk, verdict] += by
    if judged.score is not None:
        changes[pk, sk, f"{verdict}_{bin_of(judged.score)}"] += by
    pk, sk = (value["S"] for value in control_table.verdicts_of_day(at[:10], judged.category).values())
    changes[pk, sk, judged.cell.count(verdict)] += by


def _place(record: Record, human: Human) -> Mapping[str, str]:
    """Return where a judged caption stands in the index, so that the pictures behind a cell are found."""
    return judged_in(record.asset, human.judged.cell.id, human.action, human.at) if human.judged is not None else {}


def _before(record: Record, *, counted_out: bool) -> BeforeVerdict:
    """Return what undoing a verdict on this record needs: the one before, and how an upload without a caption ended."""
    human = record.human
    earlier = human.before if record.reviewed and human is not None else None
    uncaptioned = record if record.state in ("failed", "blocked") else earlier
    ending = {name: getattr(uncaptioned, name, None) for name in ("state", "reason", "completed_at")}
    if human is not None:
        # Words about other content, which may come again, stay; those that these took the place of go.
        others = (verdict for verdict in human.known() if verdict.sequencer not in (human.sequencer, record.sequencer))
        human = human.above(others, **(ending if ending["state"] is not None else {}))
    words = record.result if record.reviewed and record.source == "human" else None
    return BeforeVerdict(
        human=human,
        result=words.model_copy(update={"text": ""}) if words is not None else None,
        counted_out=counted_out,
        **ending,
    )


class Calibrations:
    """What people made of models' answers so far, read again every few minutes; safe to share between threads."""

    def __init__(self, dynamodb: Any, counts_table: str) -> None:
        self._dynamodb = dynamodb
        self._table = counts_table
        self._lock = Lock()
        self._known: dict[tuple[str, str], tuple[float, Verdicts]] = {}

    def __call__(self, models: Sequence[str], task: str, least: int) -> dict[tuple[str, str], Platt]:
        """Return the calibrations of these models for a task, of those that at least `least` answers were judged of."""
        known = {}
        for model in models:
            calibration = fit(self._verdicts(model, task), least=least)
            if calibration is not None:
                known[model, task] = calibration
        return known

    def _verdicts(self, model: str, task: str) -> Verdicts:
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            read_at, verdicts = self._known.get((model, task), (None, Verdicts()))
            if read_at is None or time.monotonic() - read_at >= COUNTS_MAX_AGE_SECONDS:
                try:
                    verdicts = read_verdicts(self._dynamodb, self._table, model, task)
                except (BotoCoreError, ClientError):
                    # An answer is kept without it; what was known before goes on being used.
                    telemetry.logger().exception("calibration_not_read", model=model, task=task)
                self._known[model, task] = (time.monotonic(), verdicts)
            return verdicts


def read_verdicts(dynamodb: Any, counts_table: str, model: str, task: str) -> Verdicts:
    """Read how often people accepted and edited a model's answers to a task, by score."""
    pages = dynamodb.query(
        TableName=counts_table,
        KeyConditionExpression="pk = :pk AND sk = :sk",
        ExpressionAttributeValues={f":{name}": value for name, value in control_table.verdicts(model, task).items()},
    )
    counts = from_item(pages["Items"][0]) if pages["Items"] else {}

    def of(verdict: VerdictKind) -> tuple[int, ...]:
        return tuple(max(0, int(counts.get(f"{verdict}_{index}", 0))) for index in range(BINS))

    return Verdicts(accepted=of("accepted"), edited=of("edited"))
