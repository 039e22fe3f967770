"""What people make of captions: their own words in a model's place, or their consent; and what that says of models.

A verdict is written in one transaction with the counts it changes (captions.control_table), so that neither a
second try nor a crash counts it twice. Counts are kept by the answer's score, which is what its confidence is
calibrated from.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Literal

from captions import control_table, telemetry
from captions.aws.dynamodb import from_item, to_item
from captions.quality.calibration import BINS, Platt, Verdicts, bin_of, fit
from captions.records.attention import ATTENTION
from captions.records.record import Human, Record
from captions.records.table import ended
from captions.timestamps import timestamp

COUNTS_MAX_AGE_SECONDS = 300.0
"""How long a calibration is used before the counts are read again."""
MAX_TEXT_BYTES = 40_000
"""Of a person's words, which stand in a record twice, beside an answer of up to 250 KB and what it took; an item holds
400 KB in all (Amazon DynamoDB, quotas)."""

Verdict = Literal["edited", "accepted"]


class NotReviewableError(Exception):
    """There is nothing to be said about this upload, as it stands."""


class ChangedMeanwhileError(Exception):
    """The record is not as it was when the person saw it; they should look again."""


class Reviews:
    """Writes people's verdicts; `dynamodb` is a boto3 DynamoDB client."""

    def __init__(self, dynamodb: Any, captions_table: str, counts_table: str) -> None:
        self._dynamodb = dynamodb
        self._captions_table = captions_table
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
        before = record.result
        if record.reviewed and record.source == "human" and before is not None and before.text == text:
            return record
        result: dict[str, Any] = {"text": text, "language": language or (before.language if before else "und")}
        result["task"] = before.task if before else "caption"
        if before is not None:
            result |= {"style": before.style, "tags": list(before.tags), "safety": before.safety}
        values: dict[str, Any] = {"source": "human", "result": result}
        if record.answer is not None:
            seen = record.answer.model_copy(update={"replaced": True})
            values["suggestion"] = seen.model_dump(exclude_none=True)
        if written:
            values |= ended(record.asset, "captioned", now)
        return self._write(record, "edited", values, {"reason"} if written else set(), text=text, now=now)

    def accept(self, record: Record, *, now: float) -> Record:
        """Note that a person finds a model's caption right; a suggestion newer than their word takes its place.

        A second time changes nothing. Raises NotReviewableError, ChangedMeanwhileError.
        """
        if record.result is None:
            raise NotReviewableError(f"it is {record.state}, and has no caption")
        newer = record.suggestion if record.suggestion is not None and not record.suggestion.replaced else None
        if record.reviewed and newer is None:
            if record.human is not None and record.human.action == "accepted":
                return record
            raise NotReviewableError("its caption is a person's words already")
        values: dict[str, Any] = {}
        if newer is not None:
            values = {"result": newer.result.model_dump(exclude_none=True), "source": newer.source}
        return self._write(record, "accepted", values, {"suggestion"} if newer else set(), text="", now=now)

    def _write(
        self, record: Record, verdict: Verdict, values: Mapping[str, Any], removed: set[str], *, text: str, now: float
    ) -> Record:
        human = Human(
            sequencer=record.sequencer,
            action=verdict,
            text=text,
            language=values.get("result", {}).get("language", "und"),
            at=timestamp(now),
            content=record.content,
        )
        values = {**values, "human": human.model_dump(), "updated_at": timestamp(now)}
        removed |= ATTENTION  # it was judged
        names = {f"#{name}": name for name in (*values, *removed, "sequencer", "updated_at")}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in values)
        expression += " REMOVE " + ", ".join(f"#{name}" for name in sorted(removed))
        bound = {f":{name}": value for name, value in values.items()}
        update: dict[str, Any] = {
            "TableName": self._captions_table,
            "Key": {"asset": {"S": record.asset}},
            "UpdateExpression": expression,
            "ConditionExpression": "#sequencer = :decided_on AND #updated_at = :seen",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": to_item(
                {**bound, ":decided_on": record.sequencer, ":seen": record.updated_at}
            ),
        }
        counted = self._counted(record, verdict)
        writes = [{"Update": update}, *([{"Update": counted}] if counted is not None else [])]
        try:
            self._dynamodb.transact_write_items(TransactItems=writes)
        except self._dynamodb.exceptions.TransactionCanceledException as error:
            codes = [reason.get("Code") for reason in error.response.get("CancellationReasons", [])]
            if "ConditionalCheckFailed" in codes or "TransactionConflict" in codes:
                raise ChangedMeanwhileError("the record changed meanwhile") from error
            raise
        answer = self._dynamodb.get_item(TableName=self._captions_table, Key=update["Key"], ConsistentRead=True)
        return Record.from_item(answer["Item"])

    def _counted(self, record: Record, verdict: Verdict) -> dict[str, Any] | None:
        """The change of the counts; None where no model's answer was judged, or it was judged so before."""
        answer, provenance = record.answer, record.provenance
        if answer is None or provenance is None or provenance.model is None:
            return None
        changes: dict[str, int] = {}
        earlier = record.human.action if record.reviewed and record.human is not None else None
        newer = record.suggestion is not None and not record.suggestion.replaced
        for name, by in ((verdict, 1), *(((earlier, -1),) if earlier is not None and not newer else ())):
            changes[name] = changes.get(name, 0) + by
            if provenance.score is not None:
                binned = f"{name}_{bin_of(provenance.score)}"
                changes[binned] = changes.get(binned, 0) + by
        changes = {name: by for name, by in changes.items() if by}
        if not changes:
            return None
        return {
            "TableName": self._counts_table,
            "Key": control_table.verdicts(provenance.model, answer.result.task),
            "UpdateExpression": "ADD " + ", ".join(f"{name} :{name}" for name in changes),
            "ExpressionAttributeValues": to_item({f":{name}": by for name, by in changes.items()}),
        }


class Calibrations:
    """What people made of models' answers so far, read again every few minutes; safe to share between threads."""

    def __init__(self, dynamodb: Any, counts_table: str, now: Callable[[], float] = time.monotonic) -> None:
        self._dynamodb = dynamodb
        self._table = counts_table
        self._now = now
        self._lock = Lock()
        self._known: dict[tuple[str, str], tuple[float, Verdicts]] = {}

    def __call__(self, models: Sequence[str], task: str, least: int) -> dict[tuple[str, str], Platt]:
        """Return the calibrations of these models for a task, of those that at least `least` answers were judged of."""
        found = {}
        for model in models:
            calibration = fit(self._verdicts(model, task), least=least)
            if calibration is not None:
                found[model, task] = calibration
        return found

    def _verdicts(self, model: str, task: str) -> Verdicts:
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            read_at, verdicts = self._known.get((model, task), (None, Verdicts()))
            if read_at is None or self._now() - read_at >= COUNTS_MAX_AGE_SECONDS:
                try:
                    verdicts = read_verdicts(self._dynamodb, self._table, model, task)
                except (BotoCoreError, ClientError):
                    # An answer is kept without it; what was known before goes on being used.
                    telemetry.logger().exception("calibration_not_read", model=model, task=task)
                self._known[model, task] = (self._now(), verdicts)
            return verdicts


def read_verdicts(dynamodb: Any, counts_table: str, model: str, task: str) -> Verdicts:
    """Read how often people accepted and edited a model's answers to a task, by score."""
    pages = dynamodb.query(
        TableName=counts_table,
        KeyConditionExpression="pk = :pk AND sk = :sk",
        ExpressionAttributeValues={f":{name}": value for name, value in control_table.verdicts(model, task).items()},
    )
    counts = from_item(pages["Items"][0]) if pages["Items"] else {}

    def of(verdict: Verdict) -> tuple[int, ...]:
        return tuple(max(0, int(counts.get(f"{verdict}_{index}", 0))) for index in range(BINS))

    return Verdicts(accepted=of("accepted"), edited=of("edited"))
