"""What reaches the caller when models, providers and endpoints fail: the gateway against litellm.Router.

    python benchmarks/gateway_faults.py --json faults.json
    python benchmarks/gateway_faults.py --calls 300 --scenarios model_down slow_drip

Calls start at a steady rate and each has a deadline. The endpoint's own request log says which calls went to what was
down, and what everything cost. litellm.Router is tried in several set-ups on every scenario with some calls, and the
best of them runs the scenario in full. Times are a tenth of the real ones: a model answers in about 70 ms, an
attempt may take 1.5 s, a call 6 s. litellm.Router has no deadline for a whole call; nothing is wrapped around it.

Goals for the gateway: at least 99.99 % right answers while a capable model is up, no call more than 50 ms beyond its
deadline, at most 1 % of the calls wasted on what was known to be down.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway_clients import MARK
from gateway_lab import CLIENTS, EndpointProcess, machine, picture, python_of, table, write

QWEN_8B, QWEN_32B, GLM, HUNYUAN = (
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen3-VL-32B-Instruct",
    "GLM-4.6V",
    "Hunyuan-Vision",
)
CHAIN = [QWEN_8B, QWEN_32B, GLM, HUNYUAN]
SCALE, TIMEOUT_S, DEADLINE_S = 0.1, 1.5, 6.0
OUTAGE_S = 30.0
REQUEUE_S = 180.0
WORKERS = 64
"""Calls under way at once where a queue delivers them: six or seven batches of ten."""
FAILURES_TO_KNOW, SETTLED_S = 5, 0.5
"""A client could know that something is down once five calls to it failed and those under way then have ended."""
GOAL_RIGHT, GOAL_OVERRUN_S, GOAL_WASTED = 0.9999, 0.050, 0.01

HEAD = ["scenario", "client", "right", "p50 ms", "p99 ms", "overrun ms", "wasted", "$ / 1,000", "CPU ms", "errors"]

SETUPS: dict[str, dict[str, Any]] = {
    # One group for each model with fallbacks between them, no retries before the fallback.
    "fallbacks": {"num_retries": 0, "allowed_fails": 3, "cooldown_time": 10},
    "fallbacks and retries": {"num_retries": 2, "allowed_fails": 3, "cooldown_time": 10},
    # One group of all models in order, where a retry goes to the next deployment.
    "ordered group": {"one_group": True, "num_retries": 3, "allowed_fails": 0, "cooldown_time": 10},
}


@dataclass(frozen=True)
class Scenario:
    """Faults, and which of them mean that something is down."""

    faults: tuple[dict[str, Any], ...] = ()
    stream: bool = False
    dead_endpoint: bool = False
    requeue: bool = False
    knowable: bool = True
    """Whether calls to what fails count as wasted: a model that refuses, or fails now and then, is not down."""
    chain: list[str] = field(default_factory=lambda: CHAIN)


SCENARIOS = {
    "healthy": Scenario(),
    "model_down": Scenario(({"fault": "overloaded", "model": QWEN_8B},)),
    "provider_down": Scenario(({"fault": "server_error", "provider": "Qwen"},)),
    "rate_limited": Scenario(({"fault": "rate_limited", "model": QWEN_8B, "retry_after": 3},)),
    "flapping": Scenario(
        ({"fault": "server_error", "model": QWEN_8B, "period_s": 4.0, "down_s": 2.0},), knowable=False
    ),
    "slow_drip": Scenario(({"fault": "slow_drip", "model": QWEN_8B, "delay_s": 0.4},)),
    "error_with_200": Scenario(({"fault": "error_body", "model": QWEN_8B},)),
    "cut_streams": Scenario(({"fault": "cut_stream", "model": QWEN_8B},), stream=True),
    "empty_text": Scenario(({"fault": "empty", "model": QWEN_8B},)),
    "refusals": Scenario(({"fault": "refusal", "provider": "Qwen"},), knowable=False),
    "region_down": Scenario(dead_endpoint=True),
    "all_down": Scenario(({"fault": "overloaded", "for_s": OUTAGE_S},), requeue=True),
}


def run(client: str, scenario: Scenario, options: dict[str, Any], calls: int, rate: float, outage_s: float) -> Any:
    """Return what became of the calls, and the endpoint's request log, of one client in one scenario."""
    server = EndpointProcess(
        "--latency-scale", str(SCALE), "--report-cost", "--assume-input-price", "0.10", "--seed", "7"
    )
    try:
        urls = [server.url]
        with socket.socket() as closed:  # bound but not listening: what connects is refused
            closed.bind(("127.0.0.1", 0))
            if scenario.dead_endpoint:
                urls.insert(0, f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
            spec = {
                "mode": "paced",
                "client": client,
                "run": "bench",
                "urls": urls,
                "chain": scenario.chain,
                "stream": scenario.stream,
                "timeout_s": TIMEOUT_S,
                "deadline_s": DEADLINE_S,
                "requeue_s": REQUEUE_S if scenario.requeue else 0.0,
                "workers": WORKERS,
                "calls": calls,
                "rate": rate,
                "image": picture(),
                "options": options,
            }
            result = _run_client(client, spec, server, [_timed(fault, outage_s) for fault in scenario.faults])
        result["log"] = [entry for entry in server.requests() if entry["client_request_id"] != "bench--1"]
        return result
    finally:
        server.stop()


def _timed(fault: dict[str, Any], outage_s: float) -> dict[str, Any]:
    return fault | {"for_s": outage_s} if "for_s" in fault else fault


def _run_client(client: str, spec: dict[str, Any], server: EndpointProcess, faults: list[dict[str, Any]]) -> Any:
    # What a client prints to stderr (litellm logs every failure) must not fill a pipe that nobody reads.
    with subprocess.Popen(
        [python_of(client), CLIENTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # A hanging client must not hang the benchmark.
        longest = spec["calls"] / spec["rate"] + spec["requeue_s"] + 180.0
        watchdog = threading.Timer(longest, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(spec) + "\n")
            process.stdin.flush()
            while (line := process.stdout.readline()) and line.strip() != "ready":
                pass
            server.faults(faults)
            process.stdin.write("go\n")
            process.stdin.flush()
            *_, last = process.stdout.read().splitlines() or [""]
        finally:
            watchdog.cancel()
    if not last:
        sys.exit(f"{client} ended without a result")
    return json.loads(last)


def judged(scenario: Scenario, result: dict[str, Any], calls: int) -> dict[str, Any]:
    """Return the figures of one run."""
    ends, log = result["ends"], result["log"]
    latencies = sorted(end["latency_s"] for end in ends)
    right = sum(end["right"] for end in ends)
    paid = sum(float(entry["cost"] or 0) for entry in log)
    return {
        "right": right / calls,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1000,
        "overrun_ms": max(0.0, *(end["overrun_s"] for end in ends)) * 1000,
        "wasted": _wasted(log) / calls if scenario.knowable else None,
        "calls_made": len(log),
        "client_cpu_ms": result["cpu_s"] / calls * 1000,
        "client_core_share": result["cpu_s"] / result["wall_s"],
        "dollars_per_1000": paid / max(1, right) * 1000,
        "errors": dict(_count(end["error"] or "wrong text" for end in ends if not end["right"])),
    }


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _wasted(log: list[dict[str, Any]]) -> int:
    """Count the calls that a fault struck although the client could know: by model, from the request log."""
    struck: dict[str, list[tuple[float, float]]] = {}
    for entry in log:
        if entry["fault"]:
            ended = datetime.fromisoformat(entry["at"]).timestamp()
            began = ended - entry["latency_ms"] / 1000
            struck.setdefault(entry["model"], []).append((began, ended))
    wasted = 0
    for times in struck.values():
        ends = sorted(ended for _, ended in times)
        if len(ends) <= FAILURES_TO_KNOW:
            continue
        known = ends[FAILURES_TO_KNOW - 1] + SETTLED_S
        wasted += sum(began > known for began, _ in times)
    return wasted


def best_setup(scenario: Scenario, calls: int, rate: float, outage_s: float) -> str:
    """Return litellm's best set-up for a scenario: most right answers, then fewest wasted calls, then the fastest."""
    results = {}
    for name, options in SETUPS.items():
        figures = judged(scenario, run("litellm", scenario, options, calls, rate, outage_s), calls)
        results[name] = (figures["right"], -(figures["wasted"] or 0.0), -figures["p99_ms"])
    return max(results, key=lambda name: results[name])


async def shared_breakers(sandboxes: int, rate: float, seconds: float) -> dict[str, Any]:
    """Let many sandboxes meet a dead model, with one control table and without; count what each has to learn."""
    return {
        "with_table": await _sandboxes(sandboxes, rate, seconds, shared=True),
        "without_table": await _sandboxes(sandboxes, rate, seconds, shared=False),
    }


async def _sandboxes(sandboxes: int, rate: float, seconds: float, *, shared: bool) -> dict[str, Any]:
    import base64
    import random

    from captions.gateway import Breakers, ControlTable, Endpoint, Gateway, Media, Request
    from captions.gateway.catalogue import load

    lock, writes, reads = threading.Lock(), [0], [0]
    stand_in = _table(lock, writes, reads)
    server = await asyncio.to_thread(EndpointProcess, "--latency-scale", str(SCALE))
    image = Media("image", "image/jpeg", base64.b64decode(picture()))
    gateways = [
        Gateway(
            endpoints=[Endpoint(server.url)],
            keys=lambda force: "sk-bench",
            catalogue=load(f"[defaults.timeouts]\nimage = {TIMEOUT_S}"),
            breakers=Breakers(store=ControlTable(stand_in, "control") if shared else None),
        )
        for _ in range(sandboxes)
    ]
    request = Request("Write one sentence.", "Caption this picture.", (image,), max_tokens=256)
    right = 0

    async def call(gateway: Gateway) -> None:
        nonlocal right
        completion = await gateway.complete(request, CHAIN, deadline=time.monotonic() + DEADLINE_S)
        right += completion.text.endswith(MARK)

    async def traffic() -> int:
        running = set()
        began = time.monotonic()
        calls = int(rate * seconds)
        for number in range(calls):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            running.add(asyncio.create_task(call(random.choice(gateways))))
        await asyncio.wait(running)
        return calls

    try:
        calls = await traffic()
        healthy_writes = writes[0]
        await asyncio.to_thread(server.forget)
        await asyncio.to_thread(server.faults, [{"fault": "overloaded", "model": QWEN_8B}])
        calls += await traffic()
        log = await asyncio.to_thread(server.requests)
        for gateway in gateways:
            await gateway.aclose()
    finally:
        await asyncio.to_thread(server.stop)
    return {
        "sandboxes": sandboxes,
        "calls": calls,
        "right": right / calls,
        "writes_while_healthy": healthy_writes,
        "writes": writes[0],
        "reads": reads[0],
        "calls_to_dead_model": sum(entry["model"] == QWEN_8B for entry in log),
    }


def _table(lock: threading.Lock, writes: list[int], reads: list[int]) -> Any:
    """Return a client of an emulated control table that counts writes and reads, one call at a time."""
    import boto3

    client = boto3.client("dynamodb", region_name="us-east-1")
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        client.delete_table(TableName="control")
    client.create_table(
        TableName="control",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )

    class Counted:
        exceptions = client.exceptions

        def __getattr__(self, name: str) -> Any:
            def call(**arguments: Any) -> Any:
                with lock:
                    (reads if name == "query" else writes)[0] += 1
                    return getattr(client, name)(**arguments)

            return call

    return Counted()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each scenario")
    parser.add_argument("--tried", type=int, default=200, help="calls that each of litellm's set-ups is tried with")
    parser.add_argument("--rate", type=float, default=40.0, help="calls started in a second")
    parser.add_argument("--outage", type=float, default=OUTAGE_S, help="seconds that everything is down in all_down")
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--clients", nargs="+", choices=["gateway", "litellm"], default=["gateway", "litellm"])
    parser.add_argument("--sandboxes", type=int, default=20, help="of the shared-breaker part; 0 leaves it out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    result: dict[str, Any] = {
        "machine": machine(),
        "calls": options.calls,
        "rate": options.rate,
        "scenarios": {},
        "shared_breakers": None,
    }
    figures: dict[str, dict[str, Any]] = result["scenarios"]
    rows: list[list[object]] = []
    for name in options.scenarios:
        figures[name] = {}
        for client in options.clients:
            figures[name][client] = figure = _measured(SCENARIOS[name], client, options)
            rows.append(_row(name, client, figure))
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
        write(options.json, result)  # after each scenario: the whole takes most of an hour
    print(table(HEAD, rows))

    if options.sandboxes:
        result["shared_breakers"] = _shared(options)
        write(options.json, result)
    failed = [name for name in figures if "gateway" in figures[name] and not _reached(figures[name]["gateway"])]
    print(f"\ngoals missed in: {', '.join(failed)}" if failed else "\nevery goal reached")
    return 1 if failed else 0


def _measured(scenario: Scenario, client: str, options: argparse.Namespace) -> dict[str, Any]:
    setup = None
    if client == "litellm":
        tried = min(options.calls, options.tried)
        setup = best_setup(scenario, tried, options.rate, min(options.outage, 5.0))
    result = run(client, scenario, SETUPS.get(setup or "", {}), options.calls, options.rate, options.outage)
    return judged(scenario, result, options.calls) | {"setup": setup}


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    import os

    from moto import mock_aws

    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with mock_aws():
        shared = asyncio.run(shared_breakers(options.sandboxes, options.rate, min(30.0, options.calls / options.rate)))
    keys = ["sandboxes", "calls", "right", "calls_to_dead_model", "writes_while_healthy", "writes", "reads"]
    rows = [[name, *(shared[name][key] for key in keys)] for name in shared]
    print("\n" + table(["shared breakers", *keys], rows))
    return shared


def _row(name: str, client: str, figure: dict[str, Any]) -> list[object]:
    wasted = figure["wasted"]
    return [
        name,
        client if figure["setup"] is None else f"{client} ({figure['setup']})",
        f"{figure['right']:.3%}",
        f"{figure['p50_ms']:.0f}",
        f"{figure['p99_ms']:.0f}",
        f"{figure['overrun_ms']:.0f}",
        "-" if wasted is None else f"{wasted:.2%}",
        f"{figure['dollars_per_1000']:.4f}",
        f"{figure['client_cpu_ms']:.1f}",
        ", ".join(f"{count} {error}" for error, count in figure["errors"].items()) or "-",
    ]


def _reached(figure: dict[str, Any]) -> bool:
    return (
        figure["right"] >= GOAL_RIGHT
        and figure["overrun_ms"] <= GOAL_OVERRUN_S * 1000
        and (figure["wasted"] or 0.0) <= GOAL_WASTED
    )


if __name__ == "__main__":
    sys.exit(main())
