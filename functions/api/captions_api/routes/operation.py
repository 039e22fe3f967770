"""How the stack is: queues, circuits, budgets, alarms, models, costs and what people make of captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from captions.bulk.protocol import BatchState
from captions.cost import Cost
from captions.quality import cells
from captions.records import attention
from captions.records.listing import BEGINNING, Bounds, Filters, Page, Position, last_day, stages
from captions.records.spending import Spending
from captions.timestamps import timestamp
from captions_api.dependencies import Serving, Who
from captions_api.problems import Refusal
from captions_api.services import Services
from captions_api.views import ApiShape, Money

router = APIRouter(tags=["operation"])

MOST_RECORDS = 5_000
"""Records that one look at costs reads at the most, the newest first; the next one goes on from there."""
_COSTS = Bounds(entries=20_000, reads=MOST_RECORDS, stages=400, at_once=800, of_partition=700)
_QUEUES = {
    "uploads": "uploads_queue_url",
    "image": "image_queue_url",
    "audio": "audio_queue_url",
    "uploads_dead": "uploads_dead_letter_queue_url",
    "image_dead": "image_dead_letter_queue_url",
    "audio_dead": "audio_dead_letter_queue_url",
}
_DEPTHS = {
    "visible": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


class Queue(ApiShape):
    """Messages of a queue, about."""

    name: str
    dead_letters: bool
    visible: int
    in_flight: int
    delayed: int


class Circuit(ApiShape):
    """A model or an endpoint that is left alone for a while."""

    name: str
    reason: str
    open_until: str
    level: int


class Budget(ApiShape):
    """What may be spent in a day (UTC), and what has been."""

    scope: str = Field(description="A key prefix, or * for everything.")
    limit: str
    spent: str


class Alarm(ApiShape):
    """An alarm that rings."""

    name: str
    since: str | None
    reason: str


class Batch(ApiShape):
    """A batch of the bulk lane."""

    id: str
    state: BatchState
    model: str
    lines: int
    taken: int = Field(description="Lines of its results that were handed out.")
    gathered_at: str = Field(description="When the first of its lines began to wait.")
    deadline: str = Field(description="What it has not answered then goes the ordinary way.")
    cost: Money = Field(description="Of the lines that were handed out.")
    saved: Money = Field(description="What they would have cost by themselves, beyond that.")
    remote_id: str | None = Field(description="What the endpoint calls it.")
    reason: str | None = Field(description="Why it does not go on, or ended without results.")


class BulkStatus(ApiShape):
    """What waits in the bulk lane, and in which batches."""

    waiting: int = Field(description="Uploads that are gathered, and in no batch yet.")
    waiting_complete: bool = Field(description="Whether all of them were counted.")
    waiting_since: str | None = Field(description="When the oldest of them was gathered.")
    batches: tuple[Batch, ...] = Field(description="Those under way, and those closed in the last day; oldest first.")


class Status(ApiShape):
    """How the stack is; what is about all uploads is left out (null) for callers of some prefixes."""

    queues: tuple[Queue, ...] | None
    circuits: tuple[Circuit, ...]
    budgets: tuple[Budget, ...]
    alarms: tuple[Alarm, ...] | None
    alarms_known: bool = Field(description="Whether there is a stack whose alarms can ring.")
    alarms_without_data: int | None = Field(
        description="Alarms of which nothing can be told, as what they watch was not measured."
    )
    bulk: BulkStatus | None = None
    states: dict[str, int] = Field(description="Uploads by state: on their way, ended without a caption, unreviewed.")
    states_complete: bool = Field(description="Whether all of them were counted.")


@router.get("/status", summary="See how the stack is")
def status(stack: Serving, who: Who) -> Status:
    """Return queues, circuits, budgets, alarms and uploads by state."""
    prefixes = stack.prefixes(who)
    states, complete = {}, True
    partitions = {
        "on_their_way": ("activity", tuple(f"pending#{shard}" for shard in range(8))),
        **{state: ("attention", attention.partitions(state)) for state in attention.ENDED_WITHOUT},
        "unreviewed": (
            "attention",
            tuple(entry for group in attention.GROUPS for entry in attention.partitions(f"unreviewed#{group}")),
        ),
    }
    for name, (index, names) in partitions.items():
        states[name], whole = stack.listing.count(index, names, prefixes)
        complete = complete and whole
    alarms, without_data = (None, None) if who.limited else _alarms(stack)
    return Status(
        queues=None if who.limited else tuple(_queues(stack)),
        circuits=tuple(_circuits(stack)),
        budgets=tuple(entry for entry in _budgets(stack) if not who.limited or who.may(entry.scope)),
        alarms=alarms,
        alarms_without_data=without_data,
        alarms_known=bool(stack.settings.stack_name),
        bulk=None if who.limited else _bulk(stack),
        states=states,
        states_complete=complete,
    )


def _queues(stack: Services) -> Iterator[Queue]:
    for name, setting in _QUEUES.items():
        if (url := getattr(stack.settings, setting)) is None:
            continue
        answer = stack.clients("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(_DEPTHS.values()))
        depths = {depth: int(answer["Attributes"][attribute]) for depth, attribute in _DEPTHS.items()}
        yield Queue(name=name.removesuffix("_dead"), dead_letters=name.endswith("_dead"), **depths)


def _bulk(stack: Services) -> BulkStatus:
    from captions.bulk.batch_table import BatchTable

    table = BatchTable(stack.clients("dynamodb"), stack.settings.control_table, None, "")
    waiting = table.count_waiting()
    return BulkStatus(
        waiting=waiting.number,
        waiting_complete=waiting.complete,
        waiting_since=None if waiting.since is None else timestamp(waiting.since),
        batches=tuple(
            Batch(
                gathered_at=timestamp(batch.gathered_at),
                deadline=timestamp(batch.deadline),
                cost=Money.of(batch.spent),
                saved=Money.of(batch.saved),
                **{name: getattr(batch, name) for name in _OF_A_BATCH},
            )
            for batch in table.recent(stack.now())
        ),
    )


_OF_A_BATCH = ("id", "state", "model", "lines", "taken", "remote_id", "reason")


def _circuits(stack: Services) -> Iterator[Circuit]:
    from captions.gateway import ControlTable

    for entry in ControlTable(stack.clients("dynamodb"), stack.settings.control_table).read():
        if entry.open_until > stack.now():
            until = datetime.fromtimestamp(entry.open_until, UTC).isoformat(timespec="seconds")
            yield Circuit(name=entry.circuit, reason=entry.reason, open_until=until, level=entry.level)


def _budgets(stack: Services) -> Iterator[Budget]:
    from captions import control_table

    limits = {**({control_table.EVERYTHING: daily} if (daily := stack.policy.budgets.daily) is not None else {})}
    limits |= stack.policy.budgets.prefixes
    day = datetime.fromtimestamp(stack.now(), UTC).date().isoformat()
    for scope, limit in limits.items():
        key = control_table.budget(scope, day)
        answer = stack.clients("dynamodb").query(
            TableName=stack.settings.control_table,
            KeyConditionExpression="pk = :pk AND sk = :sk",
            ExpressionAttributeValues={":pk": key["pk"], ":sk": key["sk"]},
        )
        spent = Decimal(answer["Items"][0].get("dollars", {"N": "0"})["N"]) if answer["Items"] else Decimal(0)
        yield Budget(scope=scope, limit=format(limit, "f"), spent=format(spent, "f"))


def _alarms(stack: Services) -> tuple[tuple[Alarm, ...] | None, int | None]:
    """Return the alarms that ring, and how many there are of which nothing can be told."""
    if not stack.settings.stack_name:
        return None, None
    pages = stack.clients("cloudwatch").get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=f"{stack.settings.stack_name}-", AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )  # fmt: skip
    alarms = [entry for page in pages for kind in ("MetricAlarms", "CompositeAlarms") for entry in page.get(kind, ())]
    ringing = tuple(
        Alarm(
            name=entry["AlarmName"],
            since=entry["StateUpdatedTimestamp"].isoformat() if "StateUpdatedTimestamp" in entry else None,
            reason=str(entry.get("StateReason", ""))[:500],
        )
        for entry in alarms
        if entry["StateValue"] == "ALARM"
    )
    return ringing, sum(entry["StateValue"] == "INSUFFICIENT_DATA" for entry in alarms)


class ModelEntry(ApiShape):
    """A model of the catalogue; prices in dollars per million tokens, or per minute of sound; null: not published."""

    name: str
    provider: str
    modalities: tuple[str, ...]
    context: int
    tiers: tuple[str, ...]
    input_price: str | None
    output_price: str | None
    minute_price: str | None
    enabled: bool


class Models(ApiShape):
    """The catalogue."""

    models: tuple[ModelEntry, ...]


@router.get("/models", summary="List models")
def models(stack: Serving, who: Who) -> Models:
    """Return the models that may be asked, with their prices."""
    tiers = stack.policy.tiers

    def price(value: Decimal | None) -> str | None:
        return None if value is None else format(value, "f")

    return Models(
        models=tuple(
            ModelEntry(
                name=entry.name,
                provider=entry.provider,
                modalities=tuple(sorted(entry.modalities)),
                context=entry.context,
                tiers=tuple(name for name, tier in tiers.items() if entry.name in tier.models),
                input_price=price(entry.input_price),
                output_price=price(entry.output_price),
                minute_price=price(entry.minute_price),
                enabled=entry.enabled,
            )
            for entry in stack.catalogue.models.values()
        )
    )


class CostRow(ApiShape):
    """What some uploads cost and saved."""

    name: str
    uploads: int
    calls: int
    copied: int
    paid: Money
    saved_by_cache: Money
    saved_by_batches: Money


class CostTotals(ApiShape):
    """What all uploads looked at cost, and what they would have."""

    uploads: int
    calls: int
    copied: int
    paid: Money
    saved_by_cache: Money
    saved_by_batches: Money = Field(
        description="What calls in batches would have cost by themselves, beyond their cost."
    )
    saved_by_tiers: Money = Field(
        description="What asking cheaper tiers first saved against the first model of the tier they step up to, by the"
        " prices of now; below zero: what stepping up cost beyond that."
    )
    cost_of_fallback: Money = Field(
        description="What falling back cost beyond what the first model of each chain would have, by the prices of now."
    )
    baseline: Money | None = Field(description="What the model that `baseline` names would have cost alone.")


class Costs(ApiShape):
    """Costs of the uploads that ended in the last days."""

    rows: tuple[CostRow, ...]
    totals: CostTotals
    embeddings: Money | None = Field(
        default=None,
        description="What embeddings of captions and queries cost in these days, for all prefixes, beside the totals;"
        " null: nothing is searched, or the caller sees some prefixes only.",
    )
    simulated: bool = Field(
        description="Whether the local stack's own models gave some of the answers, at the prices of those asked for."
    )
    complete: bool = Field(description="Whether every upload of these days is in the sums.")
    cursor: str | None = Field(
        None, description="Goes on from these sums: the answer has all of them and the next uploads; null: complete."
    )
    back_to: str | None = Field(
        None, description="Of what ended since then every upload is in the sums, exactly; null: complete."
    )


@router.get("/costs", summary="See what was paid and saved")
def costs(
    stack: Serving,
    who: Who,
    by: Annotated[Literal["day", "model", "tier", "task", "prefix"], Query()] = "day",
    days: Annotated[int, Query(ge=1, le=366)] = 7,
    baseline: Annotated[
        str, Query(max_length=200, description="A model of the catalogue: what it alone would have cost.")
    ] = "",
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
) -> Costs:
    """Return what the uploads of the last days cost; of many, the newest first, and a cursor for the rest."""
    from captions_api.cost_sums import CostSums  # brings the gateway along

    alone = stack.catalogue.models.get(baseline)
    if baseline and alone is None:
        raise Refusal(422, "invalid", "baseline: no model of the catalogue has this name; /v1/models lists them")
    purpose = json.dumps(["costs", who.name, who.prefixes, by, days, baseline])
    today, after, sums = datetime.fromtimestamp(stack.now(), UTC).date(), BEGINNING, CostSums()
    if alone is not None:
        sums.baseline = Cost()
    if cursor is not None:
        position = stack.seal.unseal(cursor, purpose)
        today, after = date.fromisoformat(position["today"]), Position(**position["after"])
        sums = CostSums.read(stack.own.sums(position["sums"]))
    page = _ended(stack, stack.prefixes(who), today, days, after)
    sums.add(page.records, by, stack.policy, stack.catalogue, alone)
    following = None
    if page.next is not None:
        kept = {"today": today.isoformat(), "after": vars(page.next), "sums": stack.own.keep_sums(sums.stored())}
        following = stack.seal.seal(kept, purpose)
    rows = sorted(sums.rows.items(), reverse=by == "day")
    return Costs(
        rows=tuple(CostRow(name=name, **_money(part)) for name, part in rows),
        totals=CostTotals(
            **_money(sums.total),
            saved_by_tiers=Money.of(sums.saved_by_tiers),
            cost_of_fallback=Money.of(sums.cost_of_fallback),
            baseline=Money.of_known(sums.baseline),
        ),
        embeddings=None if who.limited or not stack.settings.search_function else _embeddings(stack, days),
        simulated=sums.simulated,
        complete=following is None,
        cursor=following,
        back_to=sums.back_to if following is not None else None,
    )


def _embeddings(stack: Services, days: int) -> Money:
    from captions.search import embeddings

    today = datetime.fromtimestamp(stack.now(), UTC).date()
    dynamodb, table = stack.clients("dynamodb"), stack.settings.control_table
    spent = (embeddings.spent(dynamodb, table, str(today - timedelta(days=ago))) for ago in range(days))
    return Money.of(Cost.sum(cost for _, _, cost in spent))


def _money(part: Spending) -> dict[str, Any]:
    return {
        "uploads": part.uploads,
        "calls": part.calls,
        "copied": part.copied,
        "paid": Money.of(part.cost),
        "saved_by_cache": Money.of(part.saved),
        "saved_by_batches": Money.of(part.saved_by_batches),
    }


def _ended(stack: Services, prefixes: tuple[str, ...], today: date, days: int, after: Position) -> Page:
    if not prefixes:
        return Page((), None)
    filters = Filters(prefixes, states=frozenset({"captioned", "rejected", "blocked", "failed", "deleted"}))
    first, last = stack.listing.first_day(), last_day(stack.now())
    order = stages("newest", filters, today=today, first=first, last=last, days=days)
    return stack.listing.page(order, filters, limit=MOST_RECORDS, after=after, bounds=_COSTS)


class QualityCell(ApiShape):
    """What people did with the captions of one category, model, task and prompt; shares are 0 to 1."""

    id: str
    category: str
    model: str
    task: str
    prompt_version: str
    experiment: str | None
    arm: str | None
    edited: int
    accepted: int
    share: float | None = Field(description="Edited among edited and accepted; null: none was judged.")
    low: float = Field(description="Where the 95 % interval of the share begins.")
    high: float
    flagged: bool = Field(description="Whether people edit too many of them, for certain.")
    flagged_since: str | None


class QualityReport(ApiShape):
    """What people make of captions; flagged cells first."""

    cells: tuple[QualityCell, ...]
    minimum: int = Field(description="Verdicts in a cell, below which nothing is said about it.")
    line: float = Field(description="The share of edited captions that is too large.")


@router.get("/quality", summary="See what people edit")
def quality(stack: Serving, who: Who, days: Annotated[int, Query(ge=1, le=cells.KEPT_DAYS)] = 28) -> QualityReport:
    """Return how often people edit captions, by category, model, task and prompt version."""
    if who.limited:
        # Verdicts are counted over all prefixes.
        raise Refusal(403, "not-yours", "what people edit is counted over all keys, not only those of yours")
    dynamodb, table = stack.clients("dynamodb"), stack.settings.control_table
    report = cells.report(dynamodb, table, days=days, now=stack.now())
    return QualityReport(
        cells=tuple(QualityCell(**entry.as_dict()) for entry in report), minimum=cells.MINIMUM, line=cells.LINE
    )
