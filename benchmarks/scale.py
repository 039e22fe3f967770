"""Which keys of the tables get how many writes and reads a second: what stands in the way of 100 million uploads a day.

    python benchmarks/index_skew.py --media DIR --json SKEW
    python benchmarks/scale.py --json FILE --skew SKEW [--markdown docs/scale.md] [--per-second 1157]

Uploads go through the functions' own objects on moto, and every request to DynamoDB is put down to the partition keys
that it writes and reads, by the documented rules for units; an index is written to where its keys change. How a key's
load grows with the uploads depends on how many of them share it. That share is simulated: shards from the hashes of
names, bands of the near-duplicate index from the perceptual hashes of crops of real photos (index_skew.py). What no
simulation tells (how common the commonest picture, category and tenant are) stands in ASSUMED.

A partition serves 1,000 write and 3,000 read units a second (Amazon DynamoDB developer guide, "Best practices for
designing and using partition keys effectively").
"""

import argparse
import json
import math
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cost_model
import costs

from captions.control_table import EVERYTHING
from captions.fingerprint import BAND_BITS
from captions.gateway import Budgets, ControlTable, Endpoint, Gateway
from captions.gateway.catalogue import load
from captions.near_duplicates.splits import NOTED_EVERY_SECONDS
from captions.records.record import SHARDS, shard_of
from captions_cli.local.model_endpoint import LocalEndpoint
from support.capacity import item_size, written
from support.pipeline import aws_for_the_pipeline, dedupe_on
from support.worker import workshop

WRITE_UNITS, READ_UNITS = 1_000, 3_000
"""Of one partition, a second."""
ASSUMED = {
    "copies": (0.4, "of the uploads are copies, half of them of the same bytes"),
    "commonest picture": (0.001, "of the uploads are the very same picture"),
    "commonest category": (0.7, "of the pictures are of one category"),
    "sandboxes": (300, "of dedupe, each of which notes its prompt versions every five minutes"),
    "answer": (1.5, "seconds from a call's reservation to its settlement"),
}
NAMES = 200_000
"""Names of objects whose shards are counted."""
HELD_BYTES = 14
"""Of a budget's item for each call under way: twelve digits and what a set adds (gateway.shared_state)."""

Load = dict[str, defaultdict[str, float]]
"""Write and read units an upload of one kind costs, by sort of key."""


def sort_of(table: str, key: str) -> str:
    """What a partition key is one of."""
    if table == "captions":
        return "captions: an object"
    if table == "activity":
        return "activity: `pending#<shard>`" if key.startswith("pending") else "activity: `<day>#<shard>`"
    if table == "attention":
        return f"attention: `{re.sub('#[0-9]+$', '', re.sub('#.*#', '#<category>#', key))}#<shard>`"
    if table == "fingerprints":
        if key.startswith("c#"):
            return "fingerprints: a claim"
        if key.startswith("split#"):
            return "fingerprints: `split#versions`"
        band = re.search(r"#h\d+:", key)
        return "fingerprints: a value of a band" if band else "fingerprints: an exact key"
    return f"control: `{key.partition('#')[0]}`" if "#" in key else f"control: `{key}`"


class Keys:
    """Puts the units of a DynamoDB client's requests down to keys."""

    def __init__(self, client: Any) -> None:
        self.written: defaultdict[str, float] = defaultdict(float)
        self.read: defaultdict[str, float] = defaultdict(float)
        self._call = client._make_api_call
        client._make_api_call = self._noting

    def _noting(self, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "Query":
            ((values),) = [arguments["ExpressionAttributeValues"]]
            name = next(v["S"] for k, v in values.items() if k in arguments["KeyConditionExpression"])
            where = arguments.get("IndexName", arguments["TableName"])
            answer = self._call(operation, arguments)
            size = sum(map(item_size, answer["Items"]))
            self.read[sort_of(where, name)] += _read(size, arguments.get("ConsistentRead", False))
            return answer
        if operation in ("GetItem", "BatchGetItem"):
            asked = arguments.get("RequestItems") or {arguments["TableName"]: {**arguments, "Keys": [arguments["Key"]]}}
            for table, each in asked.items():
                for key in each["Keys"]:
                    size = item_size(self._item(table, key))
                    self.read[sort_of(table, _partition(key))] += _read(size, each.get("ConsistentRead", False))
            return self._call(operation, arguments)
        if operation not in ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"):
            return self._call(operation, arguments)
        keys = list(written(operation, arguments))
        before = [self._item(table, key) for table, key in keys]
        try:
            return self._call(operation, arguments)
        finally:
            for (table, key), old in zip(keys, before, strict=True):
                self._changed(table, key, old, self._item(table, key))

    def _changed(self, table: str, key: Mapping[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
        units = max(1, math.ceil(max(item_size(old), item_size(new)) / 1024))
        self.written[sort_of(table, _partition(key))] += units
        for index in ("activity", "attention") if table == "captions" else ():
            places = [[item.get(name, {}).get("S") for name in (index, _RANK[index])] for item in (old, new)]
            if places[0] != places[1]:  # the old entry goes, the new one comes
                for partition, _ in places:
                    if partition is not None:
                        self.written[sort_of(index, partition)] += 1

    def _item(self, table: str, key: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._call("GetItem", {"TableName": table, "Key": key, "ConsistentRead": True})
        return dict(result.get("Item", {}))


_RANK = {"activity": "activity_at", "attention": "attention_rank"}


def _partition(key: Mapping[str, Any]) -> str:
    return str((key.get("asset") or key["pk"])["S"])


def _read(size: int, consistent: bool) -> float:
    return max(1, math.ceil(size / 4096)) * (1.0 if consistent else 0.5)


def loads(pictures: list[tuple[bytes, bytes]]) -> dict[str, tuple[Load, int]]:
    """Caption pictures and copies of them under a budget; answer the units of each kind, and how many there were."""
    result: dict[str, tuple[Load, int]] = {}
    with aws_for_the_pipeline() as aws, cost_model._endpoint() as url:
        dedupe = dedupe_on(aws)
        shop = workshop(aws, dedupe, cast(LocalEndpoint, SimpleNamespace(url=url)))
        shop.worker.gateway = Gateway(
            endpoints=[Endpoint(url)],
            keys=lambda fresh: "a key",
            catalogue=load(),
            budgets=Budgets({EVERYTHING: Decimal(1_000)}, ControlTable(aws.dynamodb, "control")),
        )
        keys = Keys(aws.dynamodb)
        for number, (picture, copy) in enumerate(pictures):
            for kind, data in (("new", picture), ("near copy", copy), ("same bytes", picture)):
                load_, count = result.setdefault(kind, ({"write": defaultdict(float), "read": defaultdict(float)}, 0))
                keys.written, keys.read = load_["write"], load_["read"]
                dedupe.deliver(aws.put(f"{number}-{kind}", data))
                for job in dedupe.jobs():
                    shop.run(job)
                result[kind] = (load_, count + 1)
    return result


def shares(largest: float) -> dict[str, float]:
    """What share of the uploads that touch a sort of key touch the busiest key of it.

    `largest` is the share of pictures whose hashes have the commonest value of a band.
    """
    random = Random(0)
    names = [f"media/tenants/{random.randrange(500)}/{random.randbytes(6).hex()}.jpg" for _ in range(NAMES)]
    shard = max(Counter(map(shard_of, names)).values()) / NAMES
    picture = ASSUMED["commonest picture"][0]
    return {
        "captions: an object": 0.0,
        "activity: `pending#<shard>`": shard,
        "activity: `<day>#<shard>`": shard,
        "attention: `unreviewed#<category>#<shard>`": ASSUMED["commonest category"][0] / 2,
        "fingerprints: a value of a band": largest / len(BAND_BITS),
        "fingerprints: an exact key": picture,
        "fingerprints: a claim": picture,
    }


def rows(
    measured: Mapping[str, tuple[Load, int]], share: Mapping[str, float], per_second: float
) -> list[dict[str, Any]]:
    """Of each sort of key: units an upload costs, and units a second of its busiest key."""
    copies = ASSUMED["copies"][0]
    mix = {"new": 1 - copies, "near copy": copies / 2, "same bytes": copies / 2}
    units: dict[str, dict[str, float]] = defaultdict(lambda: {"write": 0.0, "read": 0.0})
    for kind, (load_, count) in measured.items():
        for way, each in load_.items():
            for sort, total in each.items():
                units[sort][way] += mix[kind] * total / count
    table = []
    for sort, sort_units in sorted(units.items()):
        busiest = share.get(sort, 1.0)
        writes, reads = (per_second * busiest * sort_units[way] for way in ("write", "read"))
        if sort == "fingerprints: `split#versions`":  # by the clock, not by uploads
            writes = ASSUMED["sandboxes"][0] / NOTED_EVERY_SECONDS
        if sort == "control: `budget`":
            writes *= 1 + math.floor(per_second * (1 - copies) * ASSUMED["answer"][0] * HELD_BYTES / 1024)
        used = max(writes / WRITE_UNITS, reads / READ_UNITS)
        table.append(
            {"key": sort, "writes": sort_units["write"], "reads": sort_units["read"], "share": busiest,
             "writes_a_second": writes, "reads_a_second": reads, "used": used}
        )  # fmt: skip
    return table


def budget_reaches() -> float:
    """Calls a second at which one budget's item takes all write units of its partition."""
    calls = 1.0
    while 2 * calls * (1 + math.floor(calls * ASSUMED["answer"][0] * HELD_BYTES / 1024)) <= WRITE_UNITS:
        calls += 1
    return calls - 1


def page(table: list[dict[str, Any]], per_second: float) -> str:
    """The table of the page."""
    lines = [
        f"| key | write, read units an upload | share of the busiest | write, read units a second at {per_second:,.0f} "
        "uploads a second | of a partition |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in table:
        share = "its own uploads" if not row["share"] else f"{row['share']:.4%}".rstrip("0").rstrip(".%") + " %"
        used = f"**{row['used']:.0%}**" if row["used"] >= 0.5 else f"{row['used']:.0%}"
        lines.append(
            f"| {row['key']} | {row['writes']:.2f}, {row['reads']:.2f} | {share} | "
            f"{row['writes_a_second']:,.0f}, {row['reads_a_second']:,.0f} | {used} |"
        )
    pending = next(row for row in table if "pending" in row["key"])
    lines += ["", "| shards of the `activity` index | write units a second of `pending#<shard>` | of a partition |"]
    lines.append("| ---: | ---: | ---: |")
    for shards in (8, 16, 32, 64, 128):
        writes = pending["writes_a_second"] * SHARDS / shards
        lines.append(f"| {shards} | {writes:,.0f} | {writes / WRITE_UNITS:.0%} |")
    lines += ["", "| assumed | | |", "| --- | ---: | --- |"]
    lines += [f"| {name} | {value:g} | {what} |" for name, (value, what) in ASSUMED.items()]
    lines += ["", f"One budget's item is full at {budget_reaches():.0f} calls of models a second."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, help="a page whose tables are replaced")
    parser.add_argument("--per-second", type=float, default=1e8 / 86_400)
    parser.add_argument("--skew", type=Path, required=True, help="what index_skew.py found")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    share = shares(json.loads(options.skew.read_text())["largest"]["share_of_hashes"])
    result = loads(costs.pairs(argparse.Namespace(seed=options.seed, pictures=options.pictures, media=None)))
    table = rows(result, share, options.per_second)
    options.json.write_text(json.dumps({"keys": table, "assumed": ASSUMED}, indent=2) + "\n")
    text = page(table, options.per_second)
    print(text)
    if options.markdown:
        costs.rewrite(options.markdown, {"keys": text})
    return 0


if __name__ == "__main__":
    sys.exit(main())
