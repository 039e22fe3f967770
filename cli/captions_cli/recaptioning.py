"""Finds captions to be made anew, says what that may cost, and sends their uploads on their way once more."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import ValidationError

from captions import routing
from captions.catalogue import Catalogue
from captions.jobs import Queues, Revisit
from captions.objects import Objects
from captions.policy import Policy
from captions.records import Record, Records
from captions.tasks import TASKS, Ask
from captions.uploads import ObjectVersion
from captions_cli.policies import PICTURE_TOKENS, estimate
from captions_cli.stack import Stack

Mode = Literal["missing", "stale", "force"]
READ_AT_ONCE = 100
"""The most that BatchGetItem takes."""
ANSWER_TOKENS = 200
"""Of an answer, where the record does not tell how many its last one had."""


@dataclass(frozen=True)
class Due:
    """One upload to be captioned anew; `record` is None where there is only an object. `dollars` None: not known."""

    key: str
    why: str
    upload: ObjectVersion | None
    record: Record | None
    model: str | None
    dollars: Decimal | None


def due(stack: Stack, mode: Mode, prefix: str, rules: Policy, catalogue: Catalogue) -> Iterator[Due]:
    """Yield what is to be captioned anew: objects without a record, stale captions, or every caption."""
    if mode == "missing":
        yield from _missing(stack, prefix, rules, catalogue)
        return
    for record in _captioned(stack, prefix):
        why = stale(record, rules) if mode == "stale" else "asked for"
        if why is not None:
            model, dollars = _expected(record, rules, catalogue)
            yield Due(record.key, why, record.upload, record, model, dollars)


def stale(record: Record, rules: Policy) -> str | None:
    """Say why a caption is out of date by the policy; None where it is not, or no model gave it."""
    answer, provenance = record.answer, record.provenance
    if answer is None or provenance is None:
        return None
    result = answer.result
    if result.task not in TASKS:
        return f"the task {result.task} is no more"
    if rules.recaption.prompt:
        template = rules.task(result.task).template
        used = template if result.style == "custom" or result.task != "caption" else ""
        try:
            version = Ask(task=result.task, style=result.style, template=used).version
        except ValidationError:
            return f"the style {result.style} is no more"
        if version != provenance.prompt_version:
            return "the prompt changed"
    if rules.recaption.model and provenance.model not in {
        name for tier in rules.tiers.values() for name in tier.models
    }:
        return f"{provenance.model} is in no tier any more"
    return None


def within(found: Iterable[Due], most: Decimal) -> tuple[list[Due], int]:
    """Return those whose expected costs stay within `most` dollars together, and how many are left out.

    What has no known price is left out: nobody could say what it adds.
    """
    chosen: list[Due] = []
    spent, left_out = Decimal(0), 0
    for one in found:
        if one.dollars is None or spent + one.dollars > most:
            left_out += 1
            continue
        spent += one.dollars
        chosen.append(one)
    return chosen, left_out


def send(stack: Stack, one: Due, mode: Mode) -> bool:
    """Put an upload back on the uploads queue; False where its object is gone meanwhile."""
    upload = one.upload or Objects(stack.client("s3")).current(stack.bucket, one.key)
    if upload is None:
        return False
    seen = one.record.updated_at if one.record is not None else None
    revisit = Revisit(upload=upload, reason="recaption", seen=seen, mode=mode)
    Queues(stack.client("sqs")).send(stack.output("UploadsQueueUrl"), revisit)
    return True


def _captioned(stack: Stack, prefix: str) -> Iterator[Record]:
    """Read the whole table, as captions may be of any age; it is read once, whatever the prefix."""
    pages = (
        stack.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName=stack.captions_table,
            FilterExpression="#state = :captioned AND begins_with(asset, :prefix)",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":captioned": {"S": "captioned"}, ":prefix": {"S": f"{stack.bucket}/{prefix}"}},
        )
    )
    for page in pages:
        yield from map(Record.from_item, page["Items"])


def _missing(stack: Stack, prefix: str, rules: Policy, catalogue: Catalogue) -> Iterator[Due]:
    records = Records(stack.client("dynamodb"), stack.captions_table)
    pages = stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix=prefix)
    model = rules.tiers[rules.routing.image].models[0]
    for page in pages:
        keys = [entry["Key"] for entry in page.get("Contents", []) if entry["Size"] > 0]
        for start in range(0, len(keys), READ_AT_ONCE):
            batch = keys[start : start + READ_AT_ONCE]
            known = {record.key for record in records.read(f"{stack.bucket}/{key}" for key in batch)}
            for key in batch:
                if key not in known:
                    dollars = estimate(model, PICTURE_TOKENS, ANSWER_TOKENS, catalogue).dollars
                    yield Due(key, "there is no record of it", None, None, model, dollars)


def _expected(record: Record, rules: Policy, catalogue: Catalogue) -> tuple[str, Decimal | None]:
    """Return the model that would be asked first, and what the tokens of the last answer cost there."""
    kind, task = record.kind or "image", record.answer.result.task if record.answer else "caption"
    before = record.provenance.tier if record.provenance else None
    chains = routing.chains(record.key, kind, task, rules)
    tier = before if before is not None and before in rules.tiers else chains.tier
    model = rules.tiers[tier].models[0]
    last: dict[str, Any] = {}
    for attempt in record.provenance.attempts if record.provenance else ():
        last = attempt if attempt.get("completion_tokens") else last
    prompt_tokens = int(last.get("prompt_tokens") or PICTURE_TOKENS)
    answer_tokens = int(last.get("completion_tokens") or ANSWER_TOKENS)
    return model, estimate(model, prompt_tokens, answer_tokens, catalogue).dollars
