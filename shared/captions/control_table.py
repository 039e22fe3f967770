"""Every key of the control table, and what the table says about the whole product at one moment.

Its items (`pk`, `sk`, TTL `expires_at`), each with the module that reads and writes it:

* `breakers`, `<circuit>`: a circuit that is not closed. A closed one has no item, so a healthy table has none
  (gateway.shared_state).
* `suspects`, `<circuit>`: the sandboxes that saw it fail lately, `since` when (gateway.shared_state).
* `budget#<scope>`, `<YYYY-MM-DD>`: `dollars` spent and set aside on that day, UTC (gateway.shared_state,
  search.embeddings).
* `recording#<version>`, `<plan>#<number>`: what a part of a recording was answered with (inference.part_store).
* `quality#<model>#<task>`, `counts`: what people did with a model's captions; it stays (records.reviews).
* `verdicts`, `<YYYY-MM-DD>#<category>`: what people did on a day, UTC, with captions of a category, a count for each
  cell and verdict (quality.cells); written with the verdict (records.reviews).
* `embeddings#<YYYY-MM-DD>`, `<sandbox>`: what embeddings cost on that day, UTC (search.embeddings).
* `flags`, `<cell>`: a cell that is edited too often (pipeline.quality_watch).
* `bulk-waiting`, `<when>#<line>`, and `bulk-batches`, `<batch>`: lines that wait for a batch, and batches; `bulk-run`,
  `lease`: which invocation looks after them (bulk.batch_table).
* `webhooks`, `<endpoint>`: an endpoint that fails or is paused; one that answers has no item (webhooks.health).
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from captions.timestamps import timestamp

EVERYTHING = "*"
"""The budget scope that every call counts against."""
BUDGET_KEPT_SECONDS = 35 * 86_400
ASSUMED_PRICE = Decimal("3.00")
"""Dollars per million tokens whose price is not published, as budgets count them."""
_QUALITY = "quality#"
VERDICTS = "verdicts"
"""The `pk` of what people did on each day."""

ControlKey = dict[str, dict[str, str]]


def _key(pk: str, sk: str) -> ControlKey:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def breaker(circuit: str = "") -> ControlKey:
    """The key of an open circuit; its `pk` alone is that of all of them."""
    return _key("breakers", circuit)


def suspects(circuit: str) -> ControlKey:
    """The key of those who suspect a circuit."""
    return _key("suspects", circuit)


def budget(scope: str, day: str) -> ControlKey:
    """The key of what a scope spent on a day, YYYY-MM-DD."""
    return _key(f"budget#{scope}", day)


def part(recording: str, place: str = "") -> ControlKey:
    """The key of a recording's part; its `pk` alone is that of all of them."""
    return _key(f"recording#{recording}", place)


def verdicts(model: str, task: str) -> ControlKey:
    """The key of what people made of a model's answers to a task."""
    return _key(f"{_QUALITY}{model}#{task}", "counts")


def verdicts_of_day(day: str, category: str = "") -> ControlKey:
    """The key of what people did on a day, YYYY-MM-DD, with captions of a category; without one, before all of them."""
    return _key(VERDICTS, f"{day}#{category}")


def flag(cell: str = "") -> ControlKey:
    """The key of a cell that is edited too often; its `pk` alone is that of all of them."""
    return _key("flags", cell)


def embeddings(day: str, writer: str = "") -> ControlKey:
    """The key of what one sandbox's embeddings cost on a day, YYYY-MM-DD; its `pk` alone is that of all of them."""
    return _key(f"embeddings#{day}", writer)


def webhook(endpoint: str = "") -> ControlKey:
    """The key of what is known of an endpoint; its `pk` alone is that of all of them."""
    return _key("webhooks", endpoint)


def bulk_waiting(line: str = "") -> ControlKey:
    """The key of a line that waits for a batch; its `pk` alone is that of all of them."""
    return _key("bulk-waiting", line)


def bulk_batch(batch: str = "") -> ControlKey:
    """The key of a batch; its `pk` alone is that of all of them."""
    return _key("bulk-batches", batch)


def bulk_run() -> ControlKey:
    """The key of which invocation looks after the batches."""
    return _key("bulk-run", "lease")


class ControlState(NamedTuple):
    """What the control table says about the whole product at one moment.

    `edited` and `accepted` are what people did with captions so far, `open_circuits` how many models and endpoints are
    left alone, `spent` the dollars of this day (UTC); None: no budget is set, so nobody adds up.
    """

    edited: int = 0
    accepted: int = 0
    open_circuits: int = 0
    spent: Decimal | None = None


def read_control(dynamodb: Any, table: str, now: float) -> ControlState:
    """Read the whole control table: a few hundred items, and one for each category on each of a hundred days."""
    edited = accepted = open_circuits = 0
    spent: Decimal | None = None
    today = budget(EVERYTHING, timestamp(now)[:10])
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table,
        FilterExpression="begins_with(pk, :quality) OR pk = :breakers OR (pk = :budget AND sk = :today)",
        ProjectionExpression="pk, edited, accepted, open_until, dollars",
        ExpressionAttributeValues={
            ":quality": {"S": _QUALITY},
            ":breakers": breaker()["pk"],
            ":budget": today["pk"],
            ":today": today["sk"],
        },
    )
    for item in (item for page in pages for item in page["Items"]):
        number = {name: Decimal(value["N"]) for name, value in item.items() if "N" in value}
        edited += int(number.get("edited", 0))
        accepted += int(number.get("accepted", 0))
        open_circuits += item["pk"] == breaker()["pk"] and number.get("open_until", 0) > now
        if item["pk"] == today["pk"]:
            spent = number.get("dollars", Decimal(0))
    return ControlState(edited, accepted, open_circuits, spent)


# Dollars set aside stand among `held` from their first write to their last. botocore repeats a write whose reply it did
# not get, and DynamoDB may have done it: the condition then fails, which says that it is done.


def set_aside(client: Any, table: str, scope: str, day: str, id_: str, dollars: Decimal, limit: Decimal) -> bool:
    """Add dollars to what a scope's calls of a day (UTC) cost; False where that would be more than the limit.

    `id_` tells them from all others of the day.
    """
    ends = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + BUDGET_KEPT_SECONDS
    try:
        client.update_item(
            TableName=table,
            Key=budget(scope, day),
            UpdateExpression="ADD dollars :dollars, held :ids SET expires_at = :expires",
            ConditionExpression="attribute_not_exists(dollars) OR (dollars <= :room AND NOT contains(held, :id))",
            ExpressionAttributeValues={
                ":dollars": {"N": str(dollars)},
                ":room": {"N": str(limit - dollars)},
                ":expires": {"N": str(int(ends))},
                ":ids": {"SS": [id_]},
                ":id": {"S": id_},
            },
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except client.exceptions.ConditionalCheckFailedException as refused:
        return id_ in refused.response.get("Item", {}).get("held", {}).get("SS", [])
    return True


def settle(client: Any, table: str, scope: str, day: str, id_: str, difference: Decimal) -> None:
    """Add what a call cost more (or less) than was set aside for it; once, however often it is called."""
    try:
        client.update_item(
            TableName=table,
            Key=budget(scope, day),
            UpdateExpression="ADD dollars :difference DELETE held :ids",
            ConditionExpression="contains(held, :id)",
            ExpressionAttributeValues={
                ":difference": {"N": str(difference)},
                ":ids": {"SS": [id_]},
                ":id": {"S": id_},
            },
        )
    except client.exceptions.ConditionalCheckFailedException:
        return
