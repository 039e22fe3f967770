"""A transition of a record as an update of DynamoDB: its needs as a condition, what it sets as an expression."""

import re
from collections.abc import Mapping
from typing import Any

from captions.aws.dynamodb import to_item
from captions.records import lifecycle
from captions.records.attempts import named, totals
from captions.records.lifecycle import Need
from captions.uploads.version import ObjectVersion

_CONDITIONS: Mapping[Need, str] = {
    "newer version": "(attribute_not_exists(#asset) OR #sequencer < :sequencer)",
    "no version taken before its event": "NOT (begins_with(#sequencer, :unheard) AND #version_id = :version)",
    "unchanged since it was read": "#updated_at = :seen",
    "no worker at it": "(attribute_not_exists(#lease_until) OR #lease_until < :now)",
    "this worker at it": "#lease_until = :mine",
    "first caption": "attribute_not_exists(#recaption)",
    "another caption": "attribute_exists(#recaption)",
    "no words about this version": "(attribute_not_exists(#human) OR #human.#sequencer <> :sequencer)",
    "words about this version": "#human.#sequencer = :sequencer",
    "no calls of others": "(attribute_not_exists(#paid_ids) OR #paid_ids = :held)",
}


def written(
    table: str, way: lifecycle.Transition, upload: ObjectVersion, values: Mapping[str, Any], **facts: Any
) -> dict[str, Any]:
    """Return a transition as the arguments of UpdateItem: where it may start is its condition.

    `values` are what it sets, `facts` what its needs go by (`captions.records.table`).

    Raises ValueError where the transition sets no such thing.
    """
    given = way.given(values)
    clears = set(way.clears)
    if {"attempts", "provenance"} & (given.keys() | clears):
        # The sums are those of the calls that the record holds, also where it loses them to an end of another's.
        made = given.get("attempts") or given.get("provenance", {}).get("attempts") or ()
        sums = dict(zip(lifecycle.PAID, totals(made), strict=True)) if made else {}
        sums |= {lifecycle.PAID_IDS: [named(upload.sequencer, made)]} if made else {}
        given |= {name: value for name, value in sums.items() if value}
        clears |= {*lifecycle.PAID, lifecycle.PAID_IDS}
    bound = {":sequencer": upload.sequencer, **{f":{name}": fact for name, fact in facts.items()}}
    needs = [_CONDITIONS[need] for need in way.needs]
    if way.starts:
        bound |= {f":from_{state}": state for state in way.starts}
        needs += ["#sequencer = :sequencer", f"#state IN ({', '.join(f':from_{state}' for state in way.starts)})"]
    changes = [f"#{name} = :set_{name}" for name in given]
    bound |= {f":set_{name}": value for name, value in given.items()}
    if way.counts is not None:
        changes.append(f"#{way.counts} = if_not_exists(#{way.counts}, :zero) + :one")
    changes += [f"#{name} = if_not_exists(#{name}, :zero) + if_not_exists(#{by}, :zero)" for name, by in way.adds]
    changes += [
        f"#{name} = list_append(if_not_exists(#{name}, :none), if_not_exists(#{by}, :none))" for name, by in way.joins
    ]
    bound |= {":zero": 0, ":one": 1, ":none": []}
    expression = f"SET {', '.join(changes)}"
    if removed := sorted(clears - given.keys()):
        expression += f" REMOVE {', '.join(f'#{name}' for name in removed)}"
    condition = " AND ".join(needs)
    used = f"{condition} {expression}"
    return {
        "TableName": table,
        "Key": key_of(upload.asset),
        "UpdateExpression": expression,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {name: name[1:] for name in re.findall(r"#\w+", used)},
        "ExpressionAttributeValues": to_item({name: bound[name] for name in re.findall(r":\w+", used)}),
    }


def key_of(asset: str) -> dict[str, Any]:
    """Return the key of an asset's item, as DynamoDB takes it."""
    return {"asset": {"S": asset}}
