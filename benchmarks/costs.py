"""What a million uploads cost on AWS, service by service, from the calls of a run on the local stack.

    python benchmarks/costs.py --json FILE [--uploads 80] [--distinct 48] [--markdown FILE]

Uploads copies of pictures to the real template on the local stack and counts what the functions really call: every
request to S3, SQS and EventBridge, DynamoDB's request units by its documented rules, bytes of logs, and what the
models cost by the catalogue's prices. Lambda's seconds are stated twice: as the wall clock of that run, emulator and
machine included, and by the model of cost_model.py, which goes by CPU and by the calls that wait for one another.
Prices come from prices-us-east-1.json. With --markdown, the tables between the marks of that page (docs/costs.md) are
written again, all from one run.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cost_model
import pipeline

from captions.records.record import Record
from captions_cli.local import LocalStack
from captions_cli.local.aws.server import AwsCall, AwsEndpoint, Forward
from captions_cli.local.options import ModelOptions
from support.capacity import Meter

ROOT = Path(__file__).parents[1]
PRICES: dict[str, Any] = json.loads((Path(__file__).parent / "prices-us-east-1.json").read_text())
STEPS = {"50,000 a day": 1.5e6, "1.2 million a month": 1.2e6, "100 million a day": 3e9}
"""Uploads a month."""
FUNCTIONS = ("Dedupe", "Caption", "Transcribe", "Sweep")
INDEX_UNITS = 2
"""Write units of the index `activity` for a write to the captions table, at most: its old key goes, a new one comes."""
IDLE_POLLS = 5 * 30 * 86_400 / 20
"""Requests a month of one event source on an empty queue: Lambda polls with five connections of 20 s."""
QUEUES = 3
BATCH_REQUESTS = 2
"""Requests of an event source for an invocation: one receives its messages, one deletes them."""


class Counted:
    """Counts what the functions ask of AWS, and passes it on."""

    def __init__(self, looking: Callable[[], Any]) -> None:
        self.calls: Counter[str] = Counter()
        self.read, self.written, self.captions_writes = 0.0, 0, 0
        self._looking = looking
        self._lock = threading.Lock()

    def __call__(self, call: AwsCall, forward: Forward) -> Any:
        if "AWS_Lambda" not in str(call.environ.get("HTTP_USER_AGENT", "")):
            return forward(call)  # not from a function: the upload itself, the stack's own, a look at an item
        action = call.action or str(call.environ.get("REQUEST_METHOD", ""))
        with self._lock:
            self.calls[f"{call.service} {action}"] += 1
        if call.service != "dynamodb":
            return forward(call)
        with self._lock:
            return self._billed(call, action, json.loads(call.body), forward)

    def _billed(self, call: AwsCall, action: str, arguments: dict[str, Any], forward: Forward) -> Any:
        client = OneCall(self._looking(), arguments, lambda: forward(call))
        meter = Meter(client)
        with meter.measuring() as bill:
            client._make_api_call(action, arguments)
        self.read += bill.read
        self.written += bill.written
        if action in ("PutItem", "UpdateItem", "DeleteItem") and "asset" in (arguments.get("Key") or arguments["Item"]):
            self.captions_writes += 1
        return client.answer


class OneCall:
    """What Meter takes for a client: the one call goes on to the endpoint, and looks at items go to a real client."""

    def __init__(self, looking: Any, arguments: dict[str, Any], forward: Callable[[], Any]) -> None:
        self.answer: Any = None
        self._looking, self._arguments, self._forward = looking, arguments, forward

    def _make_api_call(self, operation: str, arguments: dict[str, Any]) -> Any:
        if arguments is self._arguments:
            self.answer = self._forward()
            return self.answer
        return self._looking._make_api_call(operation, arguments)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Upload, wait for the end, and return what an upload took on average."""
    rng = random.Random(options.seed)
    files = pipeline.burst(options.distinct, options.uploads, pipeline.sources(options.media), rng)
    made: list[Counted] = []
    stacks: list[LocalStack] = []
    begin = AwsEndpoint.__init__

    def looking() -> Any:
        return stacks[0].client("dynamodb")

    def counting(self: AwsEndpoint, interceptors: Any = ()) -> None:
        made.append(Counted(looking))
        begin(self, [made[-1], *interceptors])

    AwsEndpoint.__init__ = counting  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as state:
        stack = LocalStack(
            ROOT / "template.yaml",
            state_dir=Path(state),
            parameters={"ImageModels": "GLM-4-Plus,GPT-4o"},
            model=ModelOptions(latency_scale=options.latency_scale),
        )
        stacks.append(stack)
        with stack:
            s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda file: s3.put_object(Bucket=bucket, Key=file[0], Body=file[1]), files))
            if not stack.wait_idle(options.timeout):
                raise SystemExit("the uploads came to no end in time")
            records = [
                Record.from_item(item)
                for page in stack.client("dynamodb")
                .get_paginator("scan")
                .paginate(TableName=stack.outputs["CaptionsTableName"])
                for item in page["Items"]
            ]
        logs = {file.stem: file.read_text(errors="replace") for file in Path(state).rglob("*.log")}
    AwsEndpoint.__init__ = begin  # type: ignore[method-assign]
    counted = made[0]
    costs = [record.provenance.cost for record in records if record.provenance is not None]
    if len(records) != options.uploads or any(record.state != "captioned" for record in records) or None in costs:
        raise SystemExit(f"not every upload was captioned at a known cost: {Counter(r.state for r in records)}")
    invocations = {name: _invocations(logs, name) for name in FUNCTIONS}
    return {
        "uploads": options.uploads,
        "distinct": options.distinct,
        "latency_scale": options.latency_scale,
        "calls": dict(sorted(counted.calls.items())),
        "dynamodb_read_units": counted.read,
        "dynamodb_write_units": counted.written + INDEX_UNITS * counted.captions_writes,
        "invocations": {name: len(runs) for name, runs in invocations.items()},
        "gb_seconds": {name: sum(ms / 1000 * mb / 1024 for ms, mb in runs) for name, runs in invocations.items()},
        "log_bytes": sum(len(text) for name, text in logs.items() if any(f in name for f in FUNCTIONS)),
        "model_dollars": float(sum(Decimal(cost or 0) for cost in costs)),
        "model_calls": sum(record.source == "model" for record in records),
    }


def _invocations(logs: dict[str, str], function: str) -> list[tuple[float, int]]:
    """Duration in milliseconds and memory in megabytes of each invocation, from its REPORT line."""
    report = re.compile(r"REPORT .*?Duration: ([\d.]+) ms\tMemory Size: (\d+) MB")
    return [
        (float(duration), int(memory))
        for name, text in logs.items()
        if function in name
        for duration, memory in report.findall(text)
    ]


def price(name: str, amount: float) -> float:
    return float(amount * PRICES[name]["dollars"] / PRICES[name]["per"])


def per_million(run: dict[str, Any]) -> dict[str, float]:
    """Dollars for a million uploads like these, service by service."""
    scale = 1e6 / run["uploads"]
    calls: dict[str, float] = run["calls"]

    def asked(service: str, *actions: str) -> float:
        return sum(
            n for name, n in calls.items() if name.split()[0] == service and (not actions or name.split()[1] in actions)
        )

    work = {name: run["invocations"][name] for name in FUNCTIONS if name != "Sweep"}  # the sweep goes by the clock
    seconds = sum(value for name, value in run["gb_seconds"].items() if name != "Sweep")
    invocations = sum(work.values())
    return {
        "Lambda, GB-seconds": scale * price("lambda_gb_second", seconds),
        "Lambda, requests": scale * price("lambda_request", invocations),
        "SQS": scale * price("sqs_request", asked("sqs") + BATCH_REQUESTS * invocations + run["uploads"]),
        "DynamoDB, reads": scale * price("dynamodb_read_unit", run["dynamodb_read_units"]),
        "DynamoDB, writes": scale * price("dynamodb_write_unit", run["dynamodb_write_units"]),
        "S3, reads": scale * price("s3_get", asked("s3", "GET", "HEAD")),
        "EventBridge": scale * price("eventbridge_event", asked("events", "PutEvents") and run["uploads"]),
        "CloudWatch Logs": scale * price("logs_gigabyte", run["log_bytes"] / 1e9),
        "Secrets and parameters": scale * price("secret_or_parameter_call", asked("secretsmanager") + asked("ssm")),
        "models": scale * run["model_dollars"],
    }


Row = list[float | None]
"""Dollars by the wall clock of the run, and low, typical and high by the model."""


def side_by_side(run: dict[str, Any], dollars: dict[str, float], facts: dict[str, Any]) -> dict[str, Row]:
    """Dollars a million uploads, old and new."""
    copies = 1 - run["distinct"] / run["uploads"]
    shares = {"new picture": 1 - copies, "copy in other bytes": copies}
    ranges = cost_model.modelled(facts, shares, overlaps(run), price)

    def new(*names: str) -> Row:
        return [sum(level[name] for name in names) for level in ranges.values()]

    lambdas = [name for name in ranges["low"] if name.startswith("Lambda")]
    rows: dict[str, Row] = {}
    for name, value in dollars.items():
        if name == "Lambda, GB-seconds":
            rows[name] = [value, *new(*lambdas)]
            rows |= {f"of it {each}": [None, *new(each)] for each in lambdas}
        elif name != "models":
            rows[name] = [value] * 4
    rows |= {name: [None, *new(name)] for name in ranges["low"] if name not in lambdas}
    whole = [row for name, row in rows.items() if not name.startswith("of it")]
    rows["all of AWS"] = [sum(row[column] or 0.0 for row in whole) for column in range(4)]
    rows["models"] = [dollars["models"]] * 4
    return rows


def overlaps(run: dict[str, Any]) -> dict[str, float]:
    """Uploads that one invocation of each function handled side by side."""
    handled = {"Dedupe": run["uploads"], "Caption": run["model_calls"]}
    return {name: count / max(1, run["invocations"][name]) for name, count in handled.items()}


def model_tables(rows: dict[str, Row], facts: dict[str, Any], run: dict[str, Any]) -> str:
    """The old and the new figures beside one another, and what the new ones consist of."""
    lines = ["| $ a million uploads | wall clock of the run | model, low | model, typical | model, high |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        bold = "**" if name == "all of AWS" else ""
        cells = ["" if value is None else f"{bold}{value:,.2f}{bold}" for value in row]
        lines.append(f"| {bold}{name}{bold} | {' | '.join(cells)} |")
    lines += [
        "",
        "| function | upload | CPU, ms | calls of AWS | waits, one after the other |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for (function, kind), usage in facts["usual"].items():
        waits = Counter(usage.chain)
        way = ", ".join(f"{count} {name}" if count > 1 else name for name, count in waits.items())
        lines.append(
            f"| {function} | {kind} | {usage.cpu_s * 1000:,.0f} | {usage.calls:,.0f} | {len(usage.chain)}: {way} |"
        )
    lines += ["", "| assumed | low | typical | high | what it is |", "| --- | ---: | ---: | ---: | --- |"]
    for name, assumed in cost_model.ASSUMED.items():
        lines.append(f"| {name} | {assumed.low:g} | {assumed.typical:g} | {assumed.high:g} | {assumed.why} |")
    lines += memory_table(facts, {"new picture": 0.5, "copy in other bytes": 0.25, "same bytes": 0.25}, overlaps(run))
    handled = ", ".join(f"{name} {count:.1f}" for name, count in overlaps(run).items())
    stored = facts["stored_bytes"]
    lines += [
        "",
        f"Uploads that an invocation handled side by side: {handled} (low: 10, high: 1). Stored: "
        f"{stored['fingerprints'] / 1000:,.1f} KB of the index a new picture, {stored['captions'] / 1000:,.1f} KB of "
        "record and its index an upload.",
    ]
    return "\n".join(lines)


def memory_table(facts: dict[str, Any], shares: dict[str, float], measured: dict[str, float]) -> list[str]:
    """What dedupe costs by its memory, with the uploads overlapping as measured, and one at a time."""
    lines = ["", "| memory of dedupe, MB | $ a million uploads, overlapping as measured | one at a time |"]
    lines.append("| ---: | ---: | ---: |")
    for megabytes in (1_024, 1_536, 2_048):
        each = [
            cost_model.by_memory(facts, shares, price, megabytes=megabytes, overlap=overlap)
            for overlap in (max(1.0, measured["Dedupe"]), 1.0)
        ]
        lines.append(f"| {megabytes:,} | {each[0]:.2f} | {each[1]:.2f} |")
    return lines


def steps(run: dict[str, Any]) -> list[dict[str, Any]]:
    """What each step of growth takes: rates, concurrency, dollars a month."""
    dollars = per_million(run)
    scale = 1 / run["uploads"]
    rows_found = []
    for name, monthly in STEPS.items():
        per_second = monthly / (30 * 86_400)
        concurrency = {
            function: per_second * scale * _seconds(run, function) for function in FUNCTIONS if function != "Sweep"
        }
        rows_found.append(
            {
                "step": name,
                "uploads_per_second": per_second,
                "lambda_concurrency": concurrency,
                "write_units_per_second": per_second * scale * run["dynamodb_write_units"],
                "read_units_per_second": per_second * scale * run["dynamodb_read_units"],
                "events_per_second": per_second,
                "model_calls_per_second": per_second * scale * run["model_calls"],
                "aws_dollars_a_month": monthly / 1e6 * sum(v for k, v in dollars.items() if k != "models")
                + price("sqs_request", QUEUES * IDLE_POLLS),
                "model_dollars_a_month": monthly / 1e6 * dollars["models"],
            }
        )
    return rows_found


MEMORY_GB = {"Dedupe": 2.0, "Caption": 2.0, "Transcribe": 1.0}


def _seconds(run: dict[str, Any], function: str) -> float:
    return float(run["gb_seconds"][function] / MEMORY_GB[function])


def pairs(options: argparse.Namespace) -> list[tuple[bytes, bytes]]:
    """Pictures like those of the run, each with a copy in other bytes."""
    rng = random.Random(options.seed + 1)
    count = options.pictures + cost_model.WARM_UP
    pictures = list(pipeline.collages(pipeline.sources(options.media), count, rng))
    first, *forms = pipeline.FORMS
    return [
        (pipeline.encoded(picture, first), pipeline.encoded(picture, forms[number % len(forms)]))
        for number, picture in enumerate(pictures)
    ]


def price_table() -> str:
    """The list prices, each with its date."""
    lines = ["| list price, us-east-1 | $ | as of | page |", "| --- | ---: | --- | --- |"]
    for name, price in PRICES.items():
        if isinstance(price, dict):
            per = f"{price['per']:,} " if price["per"] != 1 else ""
            lines.append(
                f"| {per}{name.replace('_', ' ')} | {price['dollars']:.10g} | {price['as_of']} | {price['source']} |"
            )
    return "\n".join(lines)


def tables(run: dict[str, Any], grown: list[dict[str, Any]]) -> str:
    """What growth takes, by the wall clock of the run, and what the functions ask of AWS."""
    lines = [
        "| | uploads a second | Lambda concurrency (dedupe, caption) | write units a second | read units a second | "
        "model calls a second | AWS, $ a month | models, $ a month |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for step in grown:
        lambdas = step["lambda_concurrency"]
        lines.append(
            f"| {step['step']} | {step['uploads_per_second']:,.1f} | "
            f"{lambdas['Dedupe']:,.1f}, {lambdas['Caption']:,.1f} | "
            f"{step['write_units_per_second']:,.0f} | {step['read_units_per_second']:,.0f} | "
            f"{step['model_calls_per_second']:,.1f} | {step['aws_dollars_a_month']:,.0f} | "
            f"{step['model_dollars_a_month']:,.0f} |"
        )
    lines += ["", "Asked of AWS by the functions, an upload: "]
    lines[-1] += ", ".join(f"{name} {count / run['uploads']:.2f}" for name, count in run["calls"].items()) + "."
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, help="a page whose tables are replaced")
    parser.add_argument("--run", type=Path, help="the JSON of an earlier run, whose counts on the stack are taken")
    parser.add_argument("--uploads", type=int, default=80)
    parser.add_argument("--distinct", type=int, default=48)
    parser.add_argument("--pictures", type=int, default=12, help="pictures that the model's medians are of")
    parser.add_argument("--media", type=Path, help="a folder of JPEGs to cut pictures from, instead of the demo's")
    parser.add_argument("--latency-scale", type=float, default=1.0, help="model latencies in relation to measured ones")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the end")
    options = parser.parse_args()
    run = json.loads(options.run.read_text())["run"] if options.run else measured(options)
    facts = cost_model.measured(pairs(options))
    dollars, grown = per_million(run), steps(run)
    rows = side_by_side(run, dollars, facts)
    usual = {f"{function}, {kind}": vars(usage) for (function, kind), usage in facts["usual"].items()}
    model = {**facts, "usual": usual, "assumed": {name: vars(assumed) for name, assumed in cost_model.ASSUMED.items()}}
    figures = {"run": run, "model": model, "dollars_per_million": rows, "steps": grown, "prices": PRICES}
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    parts = {"model": model_tables(rows, facts, run), "tables": tables(run, grown), "prices": price_table()}
    print("\n\n".join(parts.values()))
    if options.markdown:
        rewrite(options.markdown, parts)
    return 0


def rewrite(page: Path, parts: dict[str, str]) -> None:
    """Put texts between their marks in a page."""
    text = page.read_text()
    for name, part in parts.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- end of {name} -->\n")
        text = f"{before}<!-- {name} -->\n{part}\n<!-- end of {name} -->\n{after}"
    page.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
