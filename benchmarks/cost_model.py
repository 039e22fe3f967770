"""What an upload takes of Lambda, from what the code decides: its CPU, and the calls that it waits for.

Wall clock against an emulator on a busy machine says little about AWS. Here the functions' own objects run on moto in
one process, one upload after the other, and three things are counted, each as the median over the pictures:

* CPU seconds of an upload by function, without those of moto, which runs in the same process.
* The longest chain of AWS calls that wait for one another: of the start and end of each call, the sequence without an
  overlap that takes longest by the latencies assumed. Each call is held for `HELD_S`, so that calls that are made side
  by side are seen side by side.
* What is stored, by DynamoDB's rules for the size of items.

Seconds of Lambda are then CPU, and the chain's latencies shared by the uploads that one invocation handles side by
side. What is assumed for that stands in `ASSUMED`, each with a low, a typical and a high value and its source.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from moto.core.botocore_stubber import BotocoreStubber

from captions_cli.local.model_endpoint import LocalEndpoint
from support.capacity import item_size
from support.pipeline import Aws, aws_for_the_pipeline, dedupe_on
from support.worker import workshop

HELD_S = 0.3
"""Longer than the pauses between calls made side by side; on a busy machine those pauses look like waits."""
WARM_UP = 2
"""Pictures that are not counted: the first ones import, open connections and fill caches."""
MEMORY_GB = {"Dedupe": 2.0, "Caption": 2.0}
ITEM_OVERHEAD = 100
"""Bytes that DynamoDB adds to each item, and to each entry of an index, when it bills storage (developer guide)."""
EVIDENCE_MONTHS = 3.0
"""How long an exemplar is kept: 90 days."""


@dataclass(frozen=True)
class Assumed:
    """Something that no run on one machine tells."""

    low: float
    typical: float
    high: float
    why: str


ASSUMED: dict[str, Assumed] = {
    "dynamodb": Assumed(
        0.003, 0.005, 0.010, "seconds a call; single-digit milliseconds (DynamoDB developer guide, What is DynamoDB)"
    ),
    "s3": Assumed(
        0.020, 0.060, 0.200, "seconds a call; 100 to 200 ms as documented is the high end (S3 user guide, Performance)"
    ),
    "sqs": Assumed(0.005, 0.015, 0.050, "seconds a call; tens of milliseconds (SQS FAQs); the low end is assumed"),
    "events": Assumed(0.010, 0.025, 0.060, "seconds a PutEvents; not documented, assumed to be like SQS"),
    "model": Assumed(0.38, 0.72, 2.3, "seconds an answer; p50 of the fastest, of a slower model, a p99 (models.toml)"),
    "cpu": Assumed(0.8, 1.2, 2.0, "CPU of Lambda's vCPU for one of the run's (2,048 MB have 1.16 vCPU); assumed"),
    "call_cpu": Assumed(0.0001, 0.0003, 0.0006, "CPU seconds a call of TLS and sockets, which moto has not; assumed"),
}
"""What is in relation to the machine of the run, or of AWS: change it here for figures of one's own."""


@dataclass(frozen=True)
class Call:
    """One call of AWS; times in seconds."""

    name: str
    start: float
    end: float

    @property
    def service(self) -> str:
        """The service that was called."""
        return self.name.partition(" ")[0]


def longest_chain(calls: Sequence[Call], seconds: Callable[[Call], float]) -> list[Call]:
    """Return the calls that take longest one after the other: each begins when the one before has ended."""
    ordered = sorted(calls, key=lambda call: call.end)
    ends = [call.end for call in ordered]
    best: list[tuple[float, list[Call]]] = [(0.0, [])]  # of the first n calls
    for call in ordered:
        before, chain = best[min(bisect_right(ends, call.start), len(best) - 1)]
        taken = (before + seconds(call), [*chain, call])
        best.append(max(best[-1], taken, key=lambda chain: chain[0]))
    return best[-1][1]


@dataclass(frozen=True)
class Taken:
    """What one upload took of one function."""

    cpu_s: float
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Usual:
    """The medians over uploads of one kind: CPU seconds, calls, and the chain of the upload in the middle."""

    cpu_s: float
    calls: float
    chain: tuple[str, ...]
    uploads: int

    @classmethod
    def of(cls, taken: Sequence[Taken]) -> Usual:
        """Take the medians."""
        chains = [longest_chain(run.calls, lambda call: ASSUMED[call.service].typical) for run in taken]
        chains.sort(key=lambda chain: sum(ASSUMED[call.service].typical for call in chain))
        return cls(
            cpu_s=statistics.median(run.cpu_s for run in taken),
            calls=statistics.median(len(run.calls) for run in taken),
            chain=tuple(call.name for call in chains[len(chains) // 2]),
            uploads=len(taken),
        )

    def seconds(self, value: Callable[[str], float], *, overlap: float, models: int = 0) -> float:
        """Return the seconds of one vCPU that an upload takes, by values of what is assumed."""
        waits = sum(value(name.partition(" ")[0]) for name in self.chain) + models * value("model")
        return self.cpu_s * value("cpu") + self.calls * value("call_cpu") + waits / overlap


class Taps:
    """Notes start and end of each call that the clients make, and the CPU that moto takes for them."""

    def __init__(self, clients: Mapping[str, Any]) -> None:
        self.calls: list[Call] = []
        self.emulator_s = 0.0
        self._lock = threading.Lock()
        for service, client in clients.items():
            client._make_api_call = self._noting(service, client._make_api_call)

    def _noting(self, service: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(operation: str, arguments: Mapping[str, Any]) -> Any:
            start = time.perf_counter()
            time.sleep(HELD_S)
            try:
                return call(operation, arguments)
            finally:
                with self._lock:
                    self.calls.append(Call(f"{service} {operation}", start, time.perf_counter()))

        return noted

    @contextmanager
    def without_the_emulator(self) -> Iterator[None]:
        """Count apart what moto takes."""
        answer = BotocoreStubber.__call__

        def counted(stubber: Any, *args: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return answer(stubber, *args, **named)
            finally:
                with self._lock:
                    self.emulator_s += time.thread_time() - began

        BotocoreStubber.__call__ = counted
        try:
            yield
        finally:
            BotocoreStubber.__call__ = answer

    def taken(self, work: Callable[[], Any]) -> tuple[Any, Taken]:
        """Do something, and return what it answered and took."""
        self.calls, emulator, began = [], self.emulator_s, time.process_time()
        answer = work()
        cpu = time.process_time() - began - (self.emulator_s - emulator)
        return answer, Taken(max(cpu, 0.0), tuple(self.calls))


def measured(pictures: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Caption pictures one after the other, then a copy of each in other bytes and one in the same, and count."""
    groups: dict[tuple[str, str], list[Taken]] = {}
    with aws_for_the_pipeline() as aws, _endpoint() as url:
        dedupe = dedupe_on(aws)
        shop = workshop(aws, dedupe, cast(LocalEndpoint, SimpleNamespace(url=url)))
        clients = {"dynamodb": aws.dynamodb, "s3": aws.s3, "sqs": aws.sqs, "events": aws.events}
        taps = Taps(clients)
        with taps.without_the_emulator():
            for number, (picture, copy) in enumerate(pictures):
                for kind, data in (("new picture", picture), ("copy in other bytes", copy), ("same bytes", picture)):
                    event = aws.put(f"{number}-{kind}", data)
                    ending, taken = taps.taken(partial(dedupe.deliver, event))
                    counted = kind if ending == ("queued" if kind == "new picture" else "hit") else f"other: {ending}"
                    jobs = dedupe.jobs()
                    worked = [taps.taken(partial(shop.run, job))[1] for job in jobs]
                    if number >= WARM_UP:
                        groups.setdefault(("Dedupe", counted), []).append(taken)
                        groups.setdefault(("Caption", counted), []).extend(worked)
        stored = _stored(aws, len(pictures))
    return {
        "pictures": len(pictures) - WARM_UP,
        "usual": {key: Usual.of(taken) for key, taken in groups.items() if taken},
        "stored_bytes": stored,
    }


@contextmanager
def _endpoint() -> Iterator[str]:
    """The local model endpoint in a process of its own, whose CPU does not count; yields its URL."""
    command = [sys.executable, "-m", "captions_cli.local.model_endpoint", "--latency-scale", "0", "--exit-with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())["url"]
        process.stdin.close()


def _stored(aws: Aws, pictures: int) -> dict[str, float]:
    """Bytes that are billed for storage: of the near-duplicate index a new picture, of the records an upload."""
    sizes: dict[str, float] = {}
    for table in ("fingerprints", "captions"):
        items = [
            item for page in aws.dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]
        ]
        indexed = table == "captions"
        keys = sum(
            item_size({name: item[name] for name in ("asset", *index)}) + ITEM_OVERHEAD
            for item in items
            for index in (("activity", "activity_at"), ("attention", "attention_rank"))
            if indexed and index[0] in item
        )
        uploads = len(items) if indexed else pictures
        sizes[table] = (sum(item_size(item) + ITEM_OVERHEAD for item in items) + keys) / uploads
    return sizes


def by_memory(
    facts: Mapping[str, Any],
    shares: Mapping[str, float],
    prices: Callable[[str, float], float],
    *,
    megabytes: int,
    overlap: float,
) -> float:
    """Return what a million uploads cost of the dedupe function with so much memory, by typical values.

    Lambda gives CPU in proportion to memory (Lambda developer guide, "Configure Lambda function memory"): it takes as
    much longer as there is less, and costs the same; only waiting is cheaper. What `cpu` assumes is of MEMORY_GB.
    """
    slower = MEMORY_GB["Dedupe"] * 1024 / megabytes
    seconds = 0.0
    for kind, share in shares.items():
        usual: Usual = facts["usual"]["Dedupe", kind]
        waits = sum(ASSUMED[name.partition(" ")[0]].typical for name in usual.chain)
        cpu = usual.cpu_s * ASSUMED["cpu"].typical + usual.calls * ASSUMED["call_cpu"].typical
        seconds += share * (slower * cpu + waits / overlap)
    return prices("lambda_gb_second", 1e6 * seconds * megabytes / 1024)


def modelled(
    measured_facts: Mapping[str, Any],
    shares: Mapping[str, float],
    overlaps: Mapping[str, float],
    prices: Callable[[str, float], float],
) -> dict[str, dict[str, float]]:
    """Return dollars for a million uploads of this mix of kinds: low, typical and high.

    `overlaps` are the uploads that one invocation of each function handles side by side, as measured; the low figure
    takes ten, the size of a batch, and the high one a single upload.
    """
    usual, stored = measured_facts["usual"], measured_facts["stored_bytes"]
    million = 1e6
    new = shares["new picture"]
    storage = {
        "storage of the index, 90 days": prices("dynamodb_gb_month", million * new * stored["fingerprints"] / 1e9)
        * EVIDENCE_MONTHS,
        "storage of the records, 90 days": prices("dynamodb_gb_month", million * stored["captions"] / 1e9)
        * EVIDENCE_MONTHS,
    }
    ranges: dict[str, dict[str, float]] = {}
    for level in ("low", "typical", "high"):

        def value(name: str, level: str = level) -> float:
            return float(getattr(ASSUMED[name], level))

        seconds = dict.fromkeys(MEMORY_GB, 0.0)
        for (function, kind), usage in usual.items():
            overlap = {"low": 10.0, "typical": max(1.0, overlaps[function]), "high": 1.0}[level]
            share = shares.get(kind, 0.0)
            seconds[function] += share * usage.seconds(value, overlap=overlap, models=int(function == "Caption"))
        ranges[level] = {
            f"Lambda, {function}": prices("lambda_gb_second", million * seconds[function] * MEMORY_GB[function])
            for function in MEMORY_GB
        } | storage
    return ranges
