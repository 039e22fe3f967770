"""The whole pipeline while everything around it fails: uploads at a steady rate, and then the time to drain.

    python benchmarks/chaos.py --minutes 10 --json chaos.json
    python benchmarks/chaos.py --minutes 1 --rate 2 --seed 4

Runs the real template on the local stack, whose sandboxes all start cold. While uploads keep coming, workers are
killed, of the function that was killed least, and all of them at once with their pump now and then; DynamoDB, SQS, S3
and EventBridge throttle or lose answers to what they did; every event comes twice, in another order, and queued
messages are sent twice; each worker's clock is wrong; models time out, break off, answer nonsense or are down; batches
lose lines or end half done; who is notified fails. Then all of it ends, and what is left has to drain.

The endpoint's own request log is the witness for what was paid, the AWS stand-in for when a result was stored, a queue
on the event bus for what was told. Exits with 1 unless

* every upload ended as it must, in its last version: captioned, rejected if it is no picture, deleted,
* no answer was paid for whose result was stored already, and none twice at the same time for one claim,
* the records' account holds no call twice: it is at most what the endpoint charged, and the tokens it has no price for,
* every model's result names a claim under which the endpoint answered, as often as there are results of it,
* no copy has another picture's caption,
* the event bus got every end, and no queue holds anything. Dead letters are put back and counted,
* a picture that a batch answered was paid for in no other way,
* each endpoint of a webhook got every event that is for it, and what it got was signed,
* every captioned object has its caption beside it, in its last words, and nothing else has one,
* search finds every caption by its words and by its meaning, and nothing that has none.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import random
import re
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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from standardwebhooks import Webhook, WebhookVerificationError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pipeline import FORMS, collages, encoded, sources

from captions.control_table import bulk_run
from captions.cost import Cost
from captions.gateway import Usage
from captions.gateway.catalogue import load
from captions.gateway.pricing import cost_of
from captions.records.record import Record
from captions.records.spending import spending
from captions_cli.local import LocalStack, StackError
from captions_cli.local.aws.events import Unreliability
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.aws_faults import AwsFault, AwsFaults
from support.serving import serving
from support.small_stack import inside

ROOT = Path(__file__).parents[1]
CHAIN = ("GLM-4-Plus", "GPT-4o", "Qwen/Qwen3-VL-32B-Instruct")
COPIES, OVERWRITTEN, DELETED, BROKEN, CAN_WAIT = 0.30, 0.05, 0.05, 0.05, 0.10
"""Shares of the uploads that copy an earlier picture, are overwritten or deleted soon after, are no picture, or are
captioned in batches."""
CATALOGUE = load()
CLOCK_SKEW_S = 2.0
VISIBILITY_S = 30
"""What a killed worker held comes back in half a minute instead of three to thirty-five."""
SWEEP = {"SweepAfterSeconds": "30", "SweepSchedule": "rate(1 minute)"}
SENT_TWICE = 0.05
DOORS = {
    "Webhooks": "/chaos/webhooks", "WriteBack": "true", "Search": "meaning", "SearchDelaySeconds": "1",
    "Bulk": "batches", "BulkGatherSeconds": "5", "PolicyOverride": "/chaos/policy",
}  # fmt: skip
RULES = '[[rules]]\nprefix = "archive/"\nlane = "bulk"\n[[write_back]]\nprefix = ""\nto = ["sidecar"]\n'
SIDECAR = ".caption.json"
ENDPOINTS = {"all": "", "pictures": "picture-"}
"""Who is notified of what: the prefix of the keys."""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KILLED = frozenset(
    {"DedupeFunction", "CaptionFunction", "WebhooksFunction", "WriteBackFunction", "SearchFunction", "BulkFunction"}
)
"""Chaos goes on until each of these was killed and a receiver failed, for MOST_MORE_SECONDS at the most."""
MOST_MORE_SECONDS = 240.0
LOOK_SECONDS = 5.0
"""Between two looks at the batches; in the template a minute."""
LEASE_SECONDS = 10.0
"""After which a killed look at the batches counts as over: its time-out, scaled as visibility is."""

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
    "lines lost and doubled": (
        {"fault": "lost_line", "probability": 0.3},
        {"fault": "doubled_line", "probability": 0.3},
    ),
    "batches expire": ({"fault": "batch_expired"},),
    "batches are not confirmed": ({"fault": "batch_unconfirmed"},),
}
AWS_STORMS: dict[str, tuple[AwsFault, ...]] = {
    "DynamoDB throttles": (AwsFault("dynamodb", probability=0.4),),
    "DynamoDB is out": (AwsFault("dynamodb", for_s=4.0),),
    "DynamoDB loses answers": (AwsFault("dynamodb", "*Item*", probability=0.2, lost_answer=True),),
    "SQS throttles": (AwsFault("sqs", probability=0.5),),
    "SQS loses answers": (AwsFault("sqs", "SendMessage*", probability=0.3, lost_answer=True),),
    "S3 slows down": (AwsFault("s3", probability=0.3),),
    "EventBridge throttles": (AwsFault("events", "PutEvents", probability=0.5),),
    "parameters throttle": (AwsFault("ssm", probability=0.5), AwsFault("secretsmanager", probability=0.5)),
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


class Receiver:
    """Another program, with an endpoint for each of ENDPOINTS; `failing`: it takes events in or not, and says neither.

    `server` is to be served while it is needed.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._guard = threading.Lock()
        self.failing = False
        self.failed = self.unsigned = 0
        self.got: dict[str, Counter[str]] = {name: Counter() for name in ENDPOINTS}
        """By endpoint, how often it got each event."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(receiver.take(self.path[1:], self.rfile.read(self._length()), dict(self.headers)))
                self.end_headers()

            def _length(self) -> int:
                return int(self.headers["content-length"])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def take(self, name: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Take an event in, and return the status to answer with."""
        with self._guard:
            fault = self._random.choice((None, "refused", "answer lost")) if self.failing else None
            self.failed += fault is not None
            if fault == "refused":
                return 503
            try:
                event = Webhook(SECRET).verify(body, dict(headers))
            except WebhookVerificationError:
                self.unsigned += 1
                return 401
            self.got[name][event["data"]["id"]] += 1
            return 500 if fault else 204


class Chaos:
    """Everything that goes wrong, in a thread for each kind, until it is stopped."""

    def __init__(
        self, stack: LocalStack, faults: AwsFaults, receiver: Receiver, seed: int, kill_every_s: float
    ) -> None:
        self._stack = stack
        self._receiver = receiver
        self._faults = faults
        self._seed = seed
        self._kill_every_s = kill_every_s
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.killed: Counter[str] = Counter()
        self.storms: Counter[str] = Counter()

    def start(self, pump_every_s: float) -> None:
        """Begin."""
        storms = (self._storm_endpoint, self._storm_aws, self._storm_receiver)
        for work in (self._kill, lambda: self._restart(pump_every_s), *storms):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()

    def complete(self) -> bool:
        """Whether each function was killed, and a receiver failed."""
        return self._receiver.failed > 0 and self.killed.keys() >= KILLED

    def stop(self) -> None:
        """End all of it."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._faults.clear()
        self._receiver.failing = False
        endpoint_faults(self._stack, ())

    def _kill(self) -> None:
        rng = random.Random(self._seed)
        while not self._stopped.wait(rng.expovariate(1 / self._kill_every_s)):
            workers = self._stack.workers()
            if not workers:
                continue
            fewest = min(self.killed[function] for function, _ in workers)
            chosen, pid = rng.choice([worker for worker in workers if self.killed[worker[0]] == fewest])
            if chosen == "BulkFunction":
                all_of_it = (process for name, process in workers if name == chosen)
                self._end_lease_after(partial(self._kill_now, chosen, *all_of_it))
            else:
                self._kill_now(chosen, pid)

    def _kill_now(self, function: str, *victims: int) -> None:
        for pid in victims:
            with contextlib.suppress(StackError, ProcessLookupError):  # it ended by itself meanwhile
                self._stack.kill_worker(pid)
                self.killed[function] += 1

    def _end_lease_after(self, kill: Callable[[], None]) -> None:
        """Kill every worker that may look after the batches; its lease is over soon, instead of after its time-out."""
        dynamodb = self._stack.client("dynamodb")
        lease = {"TableName": self._stack.outputs["ControlTableName"], "Key": bulk_run()}
        before = _insist(lambda: dynamodb.get_item(**lease)).get("Item")
        kill()

        def end() -> None:
            with contextlib.suppress(dynamodb.exceptions.ConditionalCheckFailedException):  # it is another one's
                seen = {":seen": before["lease_until"]}
                dynamodb.delete_item(**lease, ConditionExpression="lease_until = :seen", ExpressionAttributeValues=seen)

        if before is not None:
            threading.Timer(LEASE_SECONDS, _insist, [end]).start()

    def _restart(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            self._end_lease_after(self._stack.restart_pump)
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

    def _storm_receiver(self) -> None:
        rng = random.Random(self._seed + 3)
        while not self._stopped.wait(rng.uniform(4, 10)):
            self._receiver.failing = True
            self.storms["receiver fails"] += 1
            self._stopped.wait(rng.uniform(3, 8))
            self._receiver.failing = False


@contextlib.contextmanager
def looked_after(stack: LocalStack) -> Iterator[None]:
    """Have the batches looked after every few seconds, as their schedule does every minute."""
    function, stopped = inside(stack, "BulkLane")["BulkFunction"], threading.Event()

    def look() -> None:
        while not stopped.wait(LOOK_SECONDS):
            with contextlib.suppress(ClientError, BotoCoreError):  # it was killed: another one looks in a while
                stack.client("lambda").invoke(FunctionName=f"{function}:live", Payload=b"{}")

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        stopped.set()
        looking.join()


def configure(stack: LocalStack, receiver: Receiver) -> None:
    """Say what is written back, what is captioned in batches, and who is notified."""
    url = f"http://127.0.0.1:{receiver.server.server_address[1]}"
    tables = (
        f'[endpoints.{name}]\nurl = "{url}/{name}"\nprefixes = ["{prefix}"]\n' for name, prefix in ENDPOINTS.items()
    )
    for name, value in ((DOORS["PolicyOverride"], RULES), (DOORS["Webhooks"], "".join(tables))):
        stack.client("ssm").put_parameter(Name=name, Value=value, Type="String")
    secrets = json.dumps({name: [SECRET] for name in ENDPOINTS})
    stack.client("secretsmanager").put_secret_value(
        SecretId=inside(stack, "Doors")["WebhookSecrets"], SecretString=secrets
    )


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
            if kind >= 1 - CAN_WAIT:
                jobs.append(pool.submit(put, f"archive/{number:05}.jpg", body, "captioned"))
            elif kind < BROKEN + COPIES + OVERWRITTEN:
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
    began, letters, shown = time.monotonic(), 0, 0
    while (waited := time.monotonic() - began) < seconds:
        if waited // 30 > shown:
            shown = int(waited // 30)
            busy = {name: depth for name, depth in stack.queue_depths().items() if any(depth.values())}
            left = Counter(record.state for record in records_of(stack).values() if not record.terminal)
            print(f"after {waited:.0f} s of draining: {busy}, {dict(left)}", file=sys.stderr)
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


def heard(stack: LocalStack, url: str) -> dict[str, tuple[str, str]]:
    """Return the key and state of every end that the event bus got, by the event's id."""
    sqs, events = stack.client("sqs"), {}
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=3600).get("Messages"):
        for message in messages:
            detail = json.loads(message["Body"])["detail"]
            if "state" in detail:
                events[detail["id"]] = detail["key"], detail["state"]
    return events


def undelivered(events: Mapping[str, tuple[str, str]], receiver: Receiver) -> list[str]:
    """Return the events that an endpoint did not get, though they are for it."""
    return sorted(
        f"{name}: {key} {state}"
        for name, prefix in ENDPOINTS.items()
        for id_, (key, state) in events.items()
        if key.startswith(prefix) and not receiver.got[name][id_]
    )


def wrong_sidecars(stack: LocalStack, records: Mapping[str, Record]) -> list[str]:
    """Return the objects that have no caption beside them, or an older one, or one though they are not captioned."""
    s3, bucket = stack.client("s3"), stack.outputs["MediaBucketName"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    written = {
        name.removesuffix(SIDECAR): json.loads(s3.get_object(Bucket=bucket, Key=name)["Body"].read())["text"]
        for page in pages
        for listed in page.get("Contents", [])
        if (name := listed["Key"]).endswith(SIDECAR)
    }
    words = {key: record.result.text for key, record in records.items() if record.result is not None}
    return sorted(key for key in words.keys() | written.keys() if words.get(key) != written.get(key))


def wrong_hits(stack: LocalStack, records: Mapping[str, Record]) -> list[str]:
    """Return the captions that search does not find by words or by meaning, and what it finds that has no caption."""
    function = inside(stack, "Doors")["SearchFunction"]

    def hit(key: str, text: str, by: str) -> bool:
        asked = json.dumps({"search": {"text": text, "by": by, "prefix": key, "limit": 10}})
        invoked = stack.client("lambda").invoke(FunctionName=f"{function}:live", Payload=asked)
        return key in {item["key"] for item in json.loads(invoked["Payload"].read())["items"]}

    wrong = []
    for key, record in records.items():
        text = " ".join(re.findall(r"[^\W\d_]+", record.result.text if record.result is not None else "a picture")[:6])
        wrong += [f"{key} by {by}" for by in ("words", "meaning") if hit(key, text, by) != (record.result is not None)]
    return wrong


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
        claim = entry["client_request_id"] or ""
        if entry["batch"]:
            claim = claim.rsplit("-", 2)[0]  # a line's name goes on with the generation and the lease
        by_claim.setdefault(claim, []).append((began, began + entry["latency_ms"] / 1000))
    # Two uploads can have answers of one claim: a copy leads where the first leader is taken for dead.
    claims: dict[str, list[float]] = {}
    for record in records.values():
        if record.source == "model":
            ended_at = stored.ended_at.get((record.asset, record.sequencer, record.state), float("inf"))
            claims.setdefault(record.claim.id if record.claim else "", []).append(ended_at)
    results = sum(len(times) for times in claims.values())
    in_batches = {entry["media_sha256"] for entry in usable if entry["batch"]}
    times_paid = Counter(entry["media_sha256"] for entry in usable)
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
        "answers_of_batches": sum(entry["batch"] is not None for entry in usable),
        "paid_beside_a_batch": sorted(sha for sha in in_batches if times_paid[sha] > 1),
        "paid_after_it_was_stored": again,
        "paid_twice_at_once": at_once,
        "results_that_nobody_paid": [
            claim for claim, times in claims.items() if not claim or len(times) > len(by_claim.get(claim, ()))
        ],
    }


def accounts(log: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> dict[str, Any]:
    """Return what the endpoint charged by its log, and what the records account for, in dollars and unpriced tokens.

    A model without a published price for its prompts costs its answers' dollars, at the least, and its prompts' tokens:
    its log names no cost, so both are reckoned here. What is missing from the account was charged for calls during
    which the worker was killed, or its stores were out.
    """
    charged = Cost.sum(charge(entry) for entry in log)
    accounted = spending(records.values(), "day")[1].cost
    over = {
        "dollars": accounted.dollars - charged.dollars,
        "tokens": Decimal(accounted.unpriced_tokens - charged.unpriced_tokens),
    }
    return {
        "dollars_charged": f"{charged.dollars:f}",
        "dollars_accounted": f"{accounted.dollars:f}",
        "unpriced_tokens_charged": charged.unpriced_tokens,
        "unpriced_tokens_accounted": accounted.unpriced_tokens,
        "accounted_twice": [f"{more.normalize():f} {unit}" for unit, more in over.items() if more > 0],
    }


def charge(entry: Mapping[str, Any]) -> Cost:
    """Return what the endpoint took for a call of its log."""
    if entry.get("cost") is not None:
        return Cost(dollars=Decimal(entry["cost"]))
    if not entry.get("prompt_tokens"):
        return Cost()  # it ended before anything was counted
    usage = Usage(entry["prompt_tokens"], entry["completion_tokens"], entry["cached_tokens"])
    return cost_of(usage, None, CATALOGUE.model(entry["model"]))[0]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Let chaos reign, then wait for the end of everything; return the figures."""
    seconds = options.minutes * 60
    faults, stored, receiver = AwsFaults(options.seed), Stored(options.seed), Receiver(options.seed)
    plan = Plan()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving(receiver.server),
        LocalStack(
            ROOT / "template.yaml",
            state_dir=options.state or Path(temporary),
            parameters={"ImageModels": ",".join(CHAIN)} | SWEEP | DOORS,
            interceptors=[faults, stored],
            workers=WorkerOptions(warm=0, visibility_s=VISIBILITY_S, clock_skew_s=CLOCK_SKEW_S),
            model=ModelOptions(latency_scale=options.latency_scale),
            unreliability=Unreliability(deliver_twice=True, shuffle=True, seed=options.seed),
        ) as stack,
    ):
        configure(stack, receiver)
        bus_queue = listen(stack)
        with looked_after(stack):
            chaos = Chaos(stack, faults, receiver, options.seed, options.kill_every)
            chaos.start(pump_every_s=min(90.0, seconds / 2.5))
            began = time.monotonic()
            upload(stack, plan, random.Random(options.seed), options.rate, seconds)
            uploaded_s = time.monotonic() - began
            while not chaos.complete() and time.monotonic() - began < seconds + MOST_MORE_SECONDS:
                time.sleep(0.5)
            chaos.stop()
            backlog = sum(not record.terminal for record in records_of(stack).values())
            print(f"{plan.uploads} uploads in {uploaded_s:.0f} s, {backlog} not ended; chaos is over", file=sys.stderr)
            drain_s, letters = drained(stack, plan, options.timeout)
        records = records_of(stack)
        events = heard(stack, bus_queue)
        depths = stack.queue_depths()
        log = _endpoint(stack, "GET", "requests")["requests"]
        sidecars, hits = wrong_sidecars(stack, records), wrong_hits(stack, records)
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
        "not_told": sorted(
            key for key, state in plan.state.items() if key not in wrong and (key, state) not in events.values()
        ),
        "not_delivered": undelivered(events, receiver),
        "not_signed": receiver.unsigned,
        "webhooks": {name: sum(got.values()) for name, got in receiver.got.items()},
        "webhooks_failed": receiver.failed,
        "wrong_beside_objects": sidecars,
        "wrong_in_search": hits,
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
    "paid_beside_a_batch",
    "accounted_twice",
    "not_delivered",
    "not_signed",
    "wrong_beside_objects",
    "wrong_in_search",
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
