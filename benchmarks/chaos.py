"""The whole pipeline while everything around it fails: uploads at a steady rate, and then the time to drain.

    python benchmarks/chaos.py --minutes 10 --json chaos.json
    python benchmarks/chaos.py --minutes 1 --rate 2 --seed 4

Runs the real template on the local stack, whose sandboxes all start cold. While uploads keep coming, workers are
killed, all of them at once with their pump now and then; DynamoDB, SQS, S3 and EventBridge throttle or lose answers to
what they did; every event comes twice, in another order, and queued messages are sent twice; each worker's clock is
wrong; models time out, break off, answer nonsense or are down. Then all of it ends, and what is left has to drain.

The endpoint's own request log is the witness for what was paid, the AWS stand-in for when a result was stored, a queue
on the event bus for what was told. Exits with 1 unless

* every upload ended as it must, in its last version: captioned, rejected if it is no picture, deleted,
* no answer was paid for whose result was stored already, and none twice at the same time for one claim,
* the records' account holds no call twice: it is at most what the endpoint charged,
* every model's result names a claim under which the endpoint answered, as often as there are results of it,
* no copy has another picture's caption,
* the event bus got every end, and no queue holds anything. Dead letters are put back and counted.
"""

import argparse
import io
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pipeline import FORMS, collages, encoded, sources

from captions.records.record import Record
from captions.records.spending import spending
from captions_cli.local import LocalStack, StackError
from captions_cli.local.aws.events import Unreliability
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.aws_faults import AwsFault, AwsFaults

ROOT = Path(__file__).parents[1]
CHAIN = ("GLM-4-Plus", "GPT-4o", "Qwen/Qwen3-VL-32B-Instruct")
COPIES, OVERWRITTEN, DELETED, BROKEN = 0.30, 0.05, 0.05, 0.05
"""Shares of the uploads that copy an earlier picture, are overwritten or deleted soon after, or are no picture."""
CLOCK_SKEW_S = 2.0
VISIBILITY_SCALE = 0.08
"""What a killed worker held comes back in half a minute instead of six."""
SWEEP = {"SweepAfterSeconds": "30", "SweepSchedule": "rate(1 minute)"}
SENT_TWICE = 0.05

Faults = tuple[dict[str, Any], ...]
ENDPOINT_STORMS: dict[str, Faults] = {
    "rate limits": ({"fault": "rate_limited", "retry_after": 2, "probability": 0.7},),
    "server errors": ({"fault": "server_error", "probability": 0.5},),
    "cuts": ({"fault": "connection_reset", "probability": 0.3}, {"fault": "cut_stream", "probability": 0.3}),
    "nonsense": (
        {"fault": "error_body", "probability": 0.3},
        {"fault": "malformed", "probability": 0.3},
        {"fault": "empty", "model": CHAIN[0]},
    ),
    "answers of no use": ({"fault": "answer", "text": '{"caption": ""}', "probability": 0.4},),
    "one model down": ({"fault": "overloaded", "model": CHAIN[0]},),
    "one model hangs": ({"fault": "hang", "model": CHAIN[0], "delay_s": 20},),
    "two models down": ({"fault": "overloaded", "model": CHAIN[0]}, {"fault": "not_found", "model": CHAIN[1]}),
    "everything down": ({"fault": "overloaded"},),
}
AWS_STORMS: dict[str, tuple[AwsFault, ...]] = {
    "DynamoDB throttles": (AwsFault("dynamodb", probability=0.4),),
    "DynamoDB is out": (AwsFault("dynamodb", for_s=4.0),),
    "DynamoDB loses answers": (AwsFault("dynamodb", "*Item*", probability=0.2, lost_answer=True),),
    "SQS throttles": (AwsFault("sqs", probability=0.5),),
    "SQS loses answers": (AwsFault("sqs", "SendMessage*", probability=0.3, lost_answer=True),),
    "S3 slows down": (AwsFault("s3", probability=0.3),),
    "EventBridge throttles": (AwsFault("events", "PutEvents", probability=0.5),),
}


@dataclass
class Plan:
    """What was uploaded: for each key the state it must end in, its last version, and when that was put."""

    state: dict[str, str] = field(default_factory=dict)
    version: dict[str, str] = field(default_factory=dict)
    put_at: dict[str, float] = field(default_factory=dict)
    uploads: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, state: str, version: str) -> None:
        """Note an upload or a deletion."""
        with self.guard:
            self.uploads += state != "deleted"
            self.state[key], self.version[key], self.put_at[key] = state, version, time.time()


class Stored:
    """An interceptor that notes when an upload's end was first stored, and sends some messages twice."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._guard = threading.Lock()
        self.ended_at: dict[tuple[str, str, str], float] = {}
        """By asset, sequencer and state."""
        self.sent_twice = 0

    def __call__(self, call: Any, forward: Callable[[Any], Any]) -> Any:
        """Pass the call on."""
        untouched = dict(call.environ)
        response = forward(call)
        if call.service == "dynamodb" and call.action == "UpdateItem" and response.status_code == 200:
            self._note(response.get_data())
        elif call.service == "sqs" and call.action == "SendMessage" and response.status_code == 200:
            with self._guard:
                again = self._random.random() < SENT_TWICE
                self.sent_twice += again
            if again:
                return forward(replace(call, environ=untouched | {"wsgi.input": io.BytesIO(call.body)}))
        return response

    def _note(self, answer: bytes) -> None:
        item = json.loads(answer or b"{}").get("Attributes") or {}
        if "asset" in item and "completed_at" in item:
            key = (item["asset"]["S"], item["sequencer"]["S"], item["state"]["S"])
            with self._guard:
                self.ended_at.setdefault(key, time.time())


class Chaos:
    """Everything that goes wrong, in a thread for each kind, until it is stopped."""

    def __init__(self, stack: LocalStack, faults: AwsFaults, seed: int, kill_every_s: float) -> None:
        self._stack = stack
        self._faults = faults
        self._seed = seed
        self._kill_every_s = kill_every_s
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.killed: Counter[str] = Counter()
        self.storms: Counter[str] = Counter()

    def start(self, pump_every_s: float) -> None:
        """Begin."""
        for work in (self._kill, lambda: self._restart(pump_every_s), self._storm_endpoint, self._storm_aws):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """End all of it."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._faults.clear()
        endpoint_faults(self._stack, ())

    def _kill(self) -> None:
        rng = random.Random(self._seed)
        while not self._stopped.wait(rng.expovariate(1 / self._kill_every_s)):
            if workers := self._stack.workers():
                function, pid = rng.choice(workers)
                try:
                    self._stack.kill_worker(pid)
                except (StackError, ProcessLookupError):
                    continue  # it ended by itself meanwhile
                self.killed[function] += 1

    def _restart(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            self._stack.restart_pump()
            self.killed["pump and all workers"] += 1

    def _storm_endpoint(self) -> None:
        rng = random.Random(self._seed + 1)
        for name in _in_turn(list(ENDPOINT_STORMS), rng):
            if self._stopped.wait(rng.uniform(2, 5)):
                return
            endpoint_faults(self._stack, ENDPOINT_STORMS[name])
            self.storms[name] += 1
            self._stopped.wait(rng.uniform(4, 10))
            endpoint_faults(self._stack, ())

    def _storm_aws(self) -> None:
        rng = random.Random(self._seed + 2)
        for name in _in_turn(list(AWS_STORMS), rng):
            if self._stopped.wait(rng.uniform(1, 4)):
                return
            self._faults.set(AWS_STORMS[name])
            self.storms[name] += 1
            self._stopped.wait(rng.uniform(3, 8))
            self._faults.clear()


def _in_turn(names: list[str], rng: random.Random) -> Iterator[str]:
    """Yield each name once, then again in another order, so that a short run meets every kind."""
    while True:
        rng.shuffle(names)
        yield from names


def endpoint_faults(stack: LocalStack, faults: Sequence[Mapping[str, Any]]) -> None:
    """Set the model endpoint's faults."""
    _endpoint(stack, "PUT", "faults", list(faults))


def _endpoint(stack: LocalStack, method: str, what: str, body: object = None) -> Any:
    url = f"{stack.endpoint_url.removesuffix('/v1')}/_local/{what}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method)) as answer:
        return json.load(answer)


def upload(stack: LocalStack, plan: Plan, rng: random.Random, rate: float, seconds: float) -> None:
    """Upload at a steady rate for so many seconds; overwrites and deletions follow soon after what they concern."""
    s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
    pictures = collages(sources(None), sys.maxsize, rng)
    earlier: list[tuple[str, bytes]] = []
    began = time.monotonic()

    def put(key: str, body: bytes, state: str) -> None:
        plan.put(key, state, _insist(lambda: s3.put_object(Bucket=bucket, Key=key, Body=body))["VersionId"])

    def put_later(key: str, body: bytes | None, after_s: float, first: Future[None]) -> None:
        first.result()  # or S3, which may refuse it for a while, would take the two the other way round
        time.sleep(after_s)
        if body is not None:
            put(key, body, "captioned")
            return
        plan.put(key, "deleted", _insist(lambda: s3.delete_object(Bucket=bucket, Key=key))["VersionId"])

    with ThreadPoolExecutor(32) as pool:
        jobs = []
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            kind, later_s = rng.random(), rng.uniform(0.0, min(20.0, seconds / 3))
            if kind < BROKEN:
                jobs.append(pool.submit(put, f"broken/{number:05}.jpg", rng.randbytes(3_000), "rejected"))
                continue
            if kind < BROKEN + COPIES and earlier:
                name, body = rng.choice(earlier)
                jobs.append(pool.submit(put, f"{name}/copy-{number:05}.jpg", body, "captioned"))
                continue
            image = next(pictures)
            body = encoded(image, "92")
            if kind < BROKEN + COPIES + OVERWRITTEN:
                key = f"overwritten/{number:05}.jpg"
                jobs.append(pool.submit(put, key, body, "captioned"))
                jobs.append(pool.submit(put_later, key, encoded(next(pictures), "92"), later_s, jobs[-1]))
            elif kind < BROKEN + COPIES + OVERWRITTEN + DELETED:
                key = f"deleted/{number:05}.jpg"
                jobs.append(pool.submit(put, key, body, "captioned"))
                jobs.append(pool.submit(put_later, key, None, later_s, jobs[-1]))
            else:
                name = f"picture-{number:05}"
                earlier.append((name, encoded(image, rng.choice(FORMS))))
                jobs.append(pool.submit(put, f"{name}/original.jpg", body, "captioned"))
        for job in jobs:
            job.result()


def _insist(call: Callable[[], Any]) -> Any:
    """Make the uploader's call until S3 takes it: what it takes must be captioned, what it refuses is nobody's."""
    while True:
        try:
            return call()
        except (ClientError, BotoCoreError):
            time.sleep(0.2)


def records_of(stack: LocalStack) -> dict[str, Record]:
    """Return the records by key."""
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["CaptionsTableName"])
    records = (Record.from_item(item) for page in pages for item in page["Items"])
    return {record.key: record for record in records}


def drained(stack: LocalStack, plan: Plan, seconds: float) -> tuple[float, int]:
    """Wait until every upload ended and no queue that is read holds anything.

    Dead letters are put back, as whoever their alarm calls does with `captions redrive`. Returns the seconds it took,
    and how many dead letters there were.
    """
    began, letters = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        if stack.idle():
            dead = redrive(stack)
            if not dead and not unended(records_of(stack), plan):
                break
            letters += dead
        time.sleep(1.0)
    return time.monotonic() - began, letters


def redrive(stack: LocalStack) -> int:
    """Move every dead letter back to its queue; return how many there were."""
    sqs, moved = stack.client("sqs"), 0
    for url in sqs.list_queues().get("QueueUrls", []):
        about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "ApproximateNumberOfMessages"])
        waiting = int(about["Attributes"]["ApproximateNumberOfMessages"])
        if waiting and sqs.list_dead_letter_source_queues(QueueUrl=url).get("queueUrls"):
            sqs.start_message_move_task(SourceArn=about["Attributes"]["QueueArn"])
            moved += waiting
    return moved


def unended(records: Mapping[str, Record], plan: Plan) -> dict[str, str]:
    """Return the keys whose last version did not end as it must, with what was found instead."""
    wrong = {}
    for key, state in plan.state.items():
        record = records.get(key)
        if record is None:
            wrong[key] = "no record"
        elif record.state != state:
            reason = f" ({record.reason.code}: {record.reason.message})" if record.reason else ""
            wrong[key] = f"{record.state}{reason} instead of {state}"
        elif state != "deleted" and record.version_id != plan.version[key]:
            wrong[key] = "an older version's end"
    return wrong


def listen(stack: LocalStack) -> str:
    """Put a queue behind the event bus; return its URL."""
    url: str = stack.client("sqs").create_queue(QueueName="heard")["QueueUrl"]
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    bus, events = stack.outputs["EventBusName"], stack.client("events")
    events.put_rule(Name="heard", EventBusName=bus, EventPattern=json.dumps({"source": ["media-captions"]}))
    events.put_targets(Rule="heard", EventBusName=bus, Targets=[{"Id": "heard", "Arn": attributes["QueueArn"]}])
    return url


def heard(stack: LocalStack, url: str) -> set[tuple[str, str]]:
    """Return the key and state of every end that the event bus got."""
    sqs, bodies = stack.client("sqs"), set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=3600).get("Messages"):
        for message in messages:
            detail = json.loads(message["Body"])["detail"]
            if "state" in detail:
                bodies.add((detail["key"], detail["state"]))
    return bodies


def payments(log: Sequence[Mapping[str, Any]], records: Mapping[str, Record], stored: Stored) -> dict[str, Any]:
    """Return what the endpoint's log says of paid answers: those that made a caption, and those that did not.

    An answer has no result in the end if its upload was overwritten or deleted meanwhile, or if the worker that paid
    for it was killed, or kept from storing it, before it was stored.
    """
    usable = [entry for entry in log if entry["outcome"] == "ok" and entry["finish_reason"] == "stop"]
    usable = [entry for entry in usable if entry["fault"] in (None, "late")]
    by_claim: dict[str, list[tuple[float, float]]] = {}
    for entry in usable:
        began = datetime.fromisoformat(entry["at"]).timestamp()
        by_claim.setdefault(entry["client_request_id"] or "", []).append((began, began + entry["latency_ms"] / 1000))
    # Two uploads can have answers of one claim: a copy leads where the first leader is taken for dead.
    claims: dict[str, list[float]] = {}
    for record in records.values():
        if record.source == "model":
            ended_at = stored.ended_at.get((record.asset, record.sequencer, record.state), float("inf"))
            claims.setdefault(record.claim.id if record.claim else "", []).append(ended_at)
    results = sum(len(times) for times in claims.values())
    again = [
        claim
        for claim, times in claims.items()
        if any(began > min(times) + 0.001 for began, _ in by_claim.get(claim, ()))
    ]
    at_once = [
        claim
        for claim, calls in by_claim.items()
        if any(second[0] < first[1] for first, second in zip(sorted(calls), sorted(calls)[1:], strict=False))
    ]
    return {
        "model_calls": len(log),
        "answers_paid": len(usable),
        "results_of_models": results,
        "answers_without_a_result": len(usable) - results,
        "paid_after_it_was_stored": again,
        "paid_twice_at_once": at_once,
        "results_that_nobody_paid": [
            claim for claim, times in claims.items() if not claim or len(times) > len(by_claim.get(claim, ()))
        ],
    }


def accounts(log: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> dict[str, Any]:
    """Return the dollars that the endpoint charged by its log, and those that the records account for.

    What is missing from the account was charged for calls during which the worker was killed, or its stores were out.
    """
    charged = sum((Decimal(entry["cost"]) for entry in log if entry.get("cost") is not None), Decimal(0))
    accounted = spending(records.values(), "day")[1].cost.dollars
    return {
        "dollars_charged": f"{charged:f}",
        "dollars_accounted": f"{accounted:f}",
        "accounted_twice": f"{accounted - charged:f}" if accounted > charged else "",
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Let chaos reign, then wait for the end of everything; return the figures."""
    seconds = options.minutes * 60
    faults, stored = AwsFaults(options.seed), Stored(options.seed)
    plan = Plan()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as temporary,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=options.state or Path(temporary),
            parameters={"ImageModels": ",".join(CHAIN)} | SWEEP,
            interceptors=[faults, stored],
            workers=WorkerOptions(warm=0, visibility_scale=VISIBILITY_SCALE, clock_skew_s=CLOCK_SKEW_S),
            model=ModelOptions(latency_scale=options.latency_scale),
            unreliability=Unreliability(deliver_twice=True, shuffle=True, seed=options.seed),
        ) as stack,
    ):
        bus_queue = listen(stack)
        chaos = Chaos(stack, faults, options.seed, options.kill_every)
        chaos.start(pump_every_s=min(90.0, seconds / 2.5))
        began = time.monotonic()
        upload(stack, plan, random.Random(options.seed), options.rate, seconds)
        uploaded_s = time.monotonic() - began
        chaos.stop()
        backlog = sum(not record.terminal for record in records_of(stack).values())
        print(f"{plan.uploads} uploads in {uploaded_s:.0f} s, {backlog} not ended; chaos is over", file=sys.stderr)
        drain_s, letters = drained(stack, plan, options.timeout)
        records = records_of(stack)
        events = heard(stack, bus_queue)
        depths = stack.queue_depths()
        log = _endpoint(stack, "GET", "requests")["requests"]
    ends = sorted(
        stored.ended_at[(record.asset, record.sequencer, record.state)] - plan.put_at[key]
        for key, record in records.items()
        if key in plan.put_at and (record.asset, record.sequencer, record.state) in stored.ended_at
    )
    wrong = unended(records, plan)
    return {
        "machine": {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": round(load, 2),
            "nice": os.nice(0),
        },
        "minutes": options.minutes,
        "seed": options.seed,
        "uploads": plan.uploads,
        "uploads_per_second": round(plan.uploads / uploaded_s, 2),
        "seconds_between_kills": options.kill_every,
        "killed": dict(chaos.killed),
        "storms": dict(chaos.storms),
        "aws_calls_failed": dict(faults.struck),
        "messages_sent_twice": stored.sent_twice,
        "states": dict(Counter(record.state for record in records.values())),
        "sources": dict(Counter(record.source or "-" for record in records.values())),
        "ended_wrong": wrong,
        "another_pictures_caption": foreign_copies(records),
        "not_told": sorted(key for key, state in plan.state.items() if key not in wrong and (key, state) not in events),
        **payments(log, records, stored),
        **accounts(log, records),
        "left_on_queues": {
            name: left for name, depth in depths.items() if "DeadLetter" not in name and (left := sum(depth.values()))
        },
        "dead_letters_put_back": letters,
        "dead_letters_left": {
            name: left for name, depth in depths.items() if "DeadLetter" in name and (left := sum(depth.values()))
        },
        "claims_with_several_results": sorted(_several(records)),
        "backlog_at_the_end_of_chaos": backlog,
        "seconds_to_drain": round(drain_s, 1),
        "seconds_to_end_p50": round(ends[len(ends) // 2], 1) if ends else None,
        "seconds_to_end_p99": round(ends[int(len(ends) * 0.99)], 1) if ends else None,
    }


def foreign_copies(records: Mapping[str, Record]) -> list[str]:
    """Return the copies that took their caption from another picture: a picture's copies share its folder."""
    problems = []
    for key, record in records.items():
        source = record.provenance.copied_from if record.provenance else None
        folder = key.partition("/")[0] if key.startswith("picture-") else key
        if source is not None and not source.partition("/")[2].startswith(folder):
            problems.append(f"{key} from {source}")
    return problems


def _several(records: Mapping[str, Record]) -> list[str]:
    """Return the uploads that models captioned under one claim: each was paid for once, where once could have done."""
    keys: dict[str, list[str]] = {}
    for key, record in records.items():
        if record.claim is not None and record.source == "model":
            keys.setdefault(record.claim.id, []).append(key)
    return [" ".join([claim, *keys_found]) for claim, keys_found in keys.items() if len(keys_found) > 1]


PROMISES = (
    "ended_wrong",
    "another_pictures_caption",
    "not_told",
    "paid_after_it_was_stored",
    "paid_twice_at_once",
    "results_that_nobody_paid",
    "accounted_twice",
    "left_on_queues",
    "dead_letters_left",
)
"""What must be empty in the end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long chaos lasts")
    parser.add_argument("--rate", type=float, default=2.0, help="uploads in a second")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between kills of a worker, on average")
    parser.add_argument("--latency-scale", type=float, default=0.3, help="model latencies in relation to measured ones")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds to wait for the end")
    parser.add_argument("--state", type=Path, help="a directory for the stack's logs; they are removed without it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = run(options)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    broken = [name for name in PROMISES if figures[name]]
    if broken:
        print(f"NOT as promised: {', '.join(broken).replace('_', ' ')}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
