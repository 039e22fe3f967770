"""The console's lists beside more and more records: what a page takes, and what it reads.

    python benchmarks/console_scale.py --json console_scale.json
    python benchmarks/console_scale.py --records 1000 10000

Uploads pictures through the local stack, and fills the captions table with the records that came of them, under other
names: each stands in both indexes as the pipeline's own writes would have it. Then a client in a process of its own
asks the API for what the console asks for. Read units are counted by DynamoDB's rules from what each call answered
(tests/support/capacity.py names the source). All records ended today: that is the most that a day's partitions can
hold, and the local table knows no other days. Goals: the gallery's first page in less than 300 ms as a median, and no
list that reads more for more records. Exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_lab import machine, table, write
from pipeline import ROOT, collages, sources
from streaming import jpeg

from captions.records import attention
from captions.records.record import Record
from captions.records.table import ended
from captions_cli.local import LocalStack
from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.options import ModelOptions

sys.path.insert(0, str(ROOT / "tests"))
from support.capacity import item_size

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

FIRST_PAGE_MS = 300.0
SLACK = 1.2
"""What a list may read more beside the most records than beside the fewest: draws and sizes of items differ."""
LISTS = {
    "gallery, first page": "assets?limit=48",
    "gallery, second page": "assets?limit=48&cursor={cursor}",
    "gallery, what has changed": "assets?limit=48&since={live}",
    "review, least sure first": "review?n=50",
    "review, one category": "review?n=50&order=category&category=photo",
    "review, 500 at random": "review?n=500&order=random",
    "quality": "quality",
    "costs, 5,000 uploads": "costs?days=7",
}


class Units:
    """Counts the read units of the calls that pass, by DynamoDB's rules."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls, self.read = 0, 0.0

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        answer = forward(call)
        if call.service == "dynamodb" and call.action in ("Query", "BatchGetItem", "GetItem", "Scan"):
            asked, given = json.loads(call.body), json.loads(answer.get_data())
            read = sum(self._units(call.action, asked, given))
            with self._lock:
                self.calls, self.read = self.calls + 1, self.read + read
        return answer

    @staticmethod
    def _units(action: str, asked: dict[str, Any], given: dict[str, Any]) -> Iterator[float]:
        match action:
            case "Query" | "Scan":
                # What a count, or a filter, went through is not in the answer: such entries have some 200 bytes.
                seen = max(given.get("ScannedCount", 0), given.get("Count", 0))
                size = sum(map(item_size, given.get("Items", [])))
                yield _rounded(max(size, 200 * (seen - len(given.get("Items", [])))), asked)
            case "BatchGetItem":
                for name, of_table in asked["RequestItems"].items():
                    read = given.get("Responses", {}).get(name, [])
                    yield from (_rounded(item_size(item), of_table) for item in read)
                    yield 0.5 * (len(of_table["Keys"]) - len(read))
            case _:
                yield _rounded(item_size(given.get("Item", {})), asked)


def _rounded(size: int, asked: dict[str, Any]) -> float:
    return max(1, -(-size // 4096)) * (1.0 if asked.get("ConsistentRead") else 0.5)


def templates(stack: LocalStack, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Caption some pictures, and return the items that came of them."""
    s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
    for number, picture in enumerate(collages(sources(None), count, rng)):
        s3.put_object(Bucket=bucket, Key=f"{number}.jpg", Body=jpeg(picture))
    stack.wait_idle(300)
    items: list[dict[str, Any]] = stack.client("dynamodb").scan(TableName=stack.outputs["CaptionsTableName"])["Items"]
    return [item for item in items if item["state"]["S"] == "captioned"]


def copies(items: Sequence[dict[str, Any]], first: int, end: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield the items under other names, ended at other times of today, captioned with another confidence."""
    midnight = time.time() // 86_400 * 86_400
    for number in range(first, end):
        item = items[number % len(items)]
        record = Record.from_item(item)
        key = f"folder-{number % 40:02}/{number:06}.jpg"
        asset = f"{record.bucket}/{key}"
        placed: dict[str, str] = ended(asset, rng.uniform(midnight, time.time()))
        confidence = round(rng.betavariate(5, 2), 4)
        category = rng.choice(["photo", "photo", "chart", "screenshot", "document"])
        at = placed["completed_at"]
        placed |= attention.unreviewed(asset, category=category, kind=record.kind, confidence=confidence, at=at)
        result = {**item["result"]["M"], "confidence": {"N": str(confidence)}}
        provenance = {**item["provenance"]["M"], "category": {"S": category}}
        yield {
            **item,
            "asset": {"S": asset},
            "key": {"S": key},
            "result": {"M": result},
            "provenance": {"M": provenance},
            **{name: {"S": value} for name, value in placed.items()},
        }


def fill(stack: LocalStack, items: Iterator[dict[str, Any]]) -> None:
    """Write items in batches, as many at once as it takes to keep the stand-in busy."""
    dynamodb, name = stack.client("dynamodb"), stack.outputs["CaptionsTableName"]

    def put(batch: list[dict[str, Any]]) -> None:
        requests = [{"PutRequest": {"Item": item}} for item in batch]
        assert not dynamodb.batch_write_item(RequestItems={name: requests})["UnprocessedItems"]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, iter(lambda: list(islice(items, 25)), [])))


def asked(url: str, token: str, path: str, body: object = None, etag: str = "") -> Any:
    """Ask the API."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "If-Match": etag}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/{path}", data, {k: v for k, v in headers.items() if v})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def timed(url: str, token: str, path: str, times: int) -> list[float]:
    """Return the milliseconds that a list took, each time."""
    took = []
    for _ in range(times + 1):
        began = time.perf_counter()
        asked(url, token, path)
        took.append((time.perf_counter() - began) * 1000)
    return took[1:]


def measured(stack: LocalStack, units: Units, client: ProcessPoolExecutor, times: int) -> dict[str, Any]:
    """Return what each list takes beside the records that there are."""
    assert stack.api is not None
    url, token = stack.api.url, stack.api.token
    page = asked(url, token, "assets?limit=48")
    result = {}
    for name, path in LISTS.items():
        asked(url, token, path := path.format(cursor=page["cursor"], live=page["live"]))
        calls, read = units.calls, units.read
        asked(url, token, path)
        cost = {"calls": units.calls - calls, "read_units": units.read - read}
        # A scan looks through all of the stand-in's table.
        took = sorted(
            client.submit(
                timed, url, token, path, times if "=random" not in path and "costs" not in path else 3
            ).result()
        )
        result[name] = {"ms": round(statistics.median(took), 1), "p95": round(took[len(took) * 95 // 100], 1), **cost}
    calls, read, began, path = units.calls, units.read, time.perf_counter(), "costs?days=7"
    while (sums := asked(url, token, path))["cursor"] is not None:
        path = f"costs?days=7&cursor={sums['cursor']}"
    took_ms = round((time.perf_counter() - began) * 1000, 1)
    cost = {"calls": units.calls - calls, "read_units": units.read - read}
    result["costs, all uploads"] = {"ms": took_ms, "p95": took_ms, "uploads": sums["totals"]["uploads"], **cost}
    began = time.perf_counter()
    for item in page["items"][:5]:
        asked(url, token, f"assets/{item['id']}/accept", {}, item["etag"])
    result["accept"] = {"ms": round((time.perf_counter() - began) / 5 * 1000, 1)}
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--times", type=int, default=20, help="that each list is asked for")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rng, units = random.Random(options.seed), Units()
    figures: dict[int, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=Path(temporary),
            parameters={"ImageModels": "GPT-4o"},
            model=ModelOptions(latency_scale=0.0),
            interceptors=[units],
            serve_api=True,
        ) as stack,
        # The AWS APIs are threads of this process: the client must not wait for them.
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as client,
    ):
        items = templates(stack, 12, rng)
        there = 0
        for count in sorted(options.records):
            began = time.perf_counter()
            fill(stack, copies(items, there, count, rng))
            print(f"{count - there:,} records written in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            there = count
            figures[count] = measured(stack, units, client, options.times)
    counts = sorted(figures)
    head = ["median ms (p95), read units"]
    for count in counts:
        head += [f"{count:,} records", ""]
    rows = []
    for name in (*LISTS, "costs, all uploads"):
        row: list[str] = [name]
        for count in counts:
            taken = figures[count][name]
            row += [f"{taken['ms']:.0f} ({taken['p95']:.0f})", f"{taken['read_units']:g}"]
        rows.append(row)
    rows.append(["accept", *(cell for count in counts for cell in (f"{figures[count]['accept']['ms']:.0f}", ""))])
    print(table(head, rows))
    first, last = figures[counts[0]], figures[counts[-1]]
    # A draw, and costs, read as many records as are wanted, and all of them where there are fewer.
    lists = [name for name in LISTS if "random" not in name and "costs" not in name]
    grown = [name for name in lists if last[name]["read_units"] > SLACK * first[name]["read_units"]]
    took = last["gallery, first page"]["ms"]
    print(f"\nthe gallery's first page beside {counts[-1]:,} records: {took:.0f} ms; the goal is {FIRST_PAGE_MS:.0f}")
    print(f"lists that read more for more records: {', '.join(grown) or 'none'}")
    write(options.json, {"machine": machine(), "figures": figures})
    return 0 if took < FIRST_PAGE_MS and not grown else 1


if __name__ == "__main__":
    sys.exit(main())
