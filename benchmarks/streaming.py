"""Captions that are watched: how long a client waits for the first words, beside the bare endpoint, and for a hit.

    python benchmarks/streaming.py --json streaming.json
    python benchmarks/streaming.py --pairs 20 --hits 20

Runs the real template and API on the local stack. In turns, a client in a process of its own sends a picture to
`/v1/captions:stream` and another one, with the worker's own prompt, straight to the model endpoint, and notes when it
reads the first words of either. The endpoint's log says when each call reached it and when its first token left. Then
copies of the pictures are sent, which are hits. Goals, as medians: the first words within 50 ms of the endpoint's first
token, a hit within 200 ms of its request. Exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway_lab import machine, table, write
from PIL import Image
from pipeline import ROOT, collages, sources

from captions.gateway import Media, Request
from captions.gateway.catalogue import load
from captions.gateway.requests import MessageParts
from captions.inference import asking
from captions.pipeline.streaming import MainText
from captions.tasks import Ask, prompt
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions

MODEL = "GPT-4o"
TASK = "caption"
FIRST_WORDS_MS = 50.0
HIT_MS = 200.0
_WARM = 3
"""Pairs before those that count: imports, connections and the endpoint's own first picture are nobody's first words."""


class Client:
    """One kept connection that reads server-sent events; times are the wall clock's, as the endpoint's log has."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=300)
        self._base = parts.path
        self._token = token

    def post(self, path: str, body: bytes, media_type: str) -> Iterator[tuple[float, str, str]]:
        """Yield (seconds, event's name, its data) as they are read."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type}
        self._connection.request("POST", self._base + path, body, headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {answer.read(500)!r}")
        name = ""
        while line := answer.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield time.time(), name, value


def form(data: bytes) -> tuple[bytes, str]:
    """Return a form with a picture, and its media type."""
    head = b'--captions\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head + data + b"\r\n--captions--\r\n", "multipart/form-data; boundary=captions"


def of_api(client: Client, data: bytes) -> dict[str, Any]:
    """Show the API a picture; returns when its first words came (`first`), when it ended, and how (`ending`)."""
    body, media_type = form(data)
    shown: dict[str, Any] = {"began": time.time(), "first": None}
    for at, name, _ in client.post("/v1/captions:stream", body, media_type):
        if shown["first"] is None and name in ("delta", "hit"):
            shown["first"] = at
        shown |= {"ending": name, "ended": at}
    return shown


def of_endpoint(client: Client, data: bytes) -> dict[str, Any]:
    """Show the endpoint a picture as the worker would."""
    item = asking.payload("image", "image/jpeg", data)
    asked = prompt(Ask(task=TASK))
    request = Request(
        instructions=asked.instructions,
        text=asked.text,
        media=(Media(item.kind, item.media_type, item.data),),
        max_tokens=asked.max_tokens,
        response_format=asked.response_format,
    )
    model = load().models[MODEL]
    body = MessageParts(request).body(model, MODEL, max_tokens=asked.max_tokens, stream=True, seconds=60.0)
    encoded = json.dumps(body).encode()
    words = MainText(TASK)
    shown: dict[str, Any] = {"began": time.time(), "first": None}
    for at, _, value in client.post("/chat/completions", encoded, "application/json"):
        choices = json.loads(value)["choices"] if value != "[DONE]" else []
        if choices and (piece := choices[0]["delta"].get("content")) and words.add(piece) and shown["first"] is None:
            shown["first"] = at
        shown["ended"] = at
    return shown


def cpu_s(process: int) -> float:
    """Return the CPU seconds that a process has taken (Linux, proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    api_url: str, token: str, api_process: int, endpoint_url: str, pairs: int, hits: int, seed: int
) -> dict[str, Any]:
    """Return what a client saw of each request, in order."""
    rng = random.Random(seed)
    api, endpoint = Client(api_url, token), Client(endpoint_url, "sk-bench")
    pictures = collages(sources(None), 2 * (pairs + _WARM), rng)
    seen: dict[str, list[dict[str, Any]]] = {"api": [], "endpoint": [], "hit": []}
    kept: list[Image.Image] = []
    order: list[str] = []
    began = cpu_s(api_process)
    for index, (first, second) in enumerate(zip(pictures, pictures, strict=True)):
        turns = [("api", first), ("endpoint", second)]
        for name, picture in turns if index % 2 else reversed(turns):
            ask = of_api if name == "api" else of_endpoint
            seen[name].append(ask(api if name == "api" else endpoint, jpeg(picture)))
            order.append(name)
        kept.append(first)
    between = cpu_s(api_process)
    log = admin(endpoint_url, "GET", "requests")["requests"]  # a copy that is no hit is asked about, too
    for index in range(hits + _WARM):
        width = 400 - index // len(kept)  # each copy is a file of its own
        seen["hit"].append(of_api(api, jpeg(kept[index % len(kept)].resize((width, width * 3 // 4)))))
    cpu = {
        "new": (between - began) / (pairs + _WARM) * 1000,
        "copy": (cpu_s(api_process) - between) / (hits + _WARM) * 1000,
    }
    return {**seen, "order": order, "cpu": cpu, "log": log}


def jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def admin(endpoint_url: str, method: str, what: str, body: object = None) -> Any:
    """Ask the endpoint's own routes."""
    data = None if body is None else json.dumps(body).encode()
    url = f"{endpoint_url.removesuffix('/v1')}/_local/{what}"
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
        return json.loads(answer.read() or b"null")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the client saw, and the endpoint's log of it."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=options.state or Path(temporary),
            parameters={"ImageModels": MODEL},
            model=ModelOptions(latency_scale=options.latency_scale),
            serve_api=True,
        ) as stack,
        # The AWS APIs are threads of this process: the client must not wait for them.
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        assert stack.api is not None
        admin(stack.endpoint_url, "PUT", "faults", [{"fault": "slow_drip", "delay_s": options.token_ms / 1000}])
        api = (stack.api.url, stack.api.token, stack.api.process)
        return pool.submit(measure, *api, stack.endpoint_url, options.pairs, options.hits, options.seed).result()


def figures_of(seen: dict[str, Any]) -> dict[str, Any]:
    """Join what the client saw with the endpoint's log; times in milliseconds."""
    log = seen["log"]
    if len(log) != len(seen["order"]):
        sys.exit(f"{len(log)} calls of the endpoint for {len(seen['order'])} pictures: some were asked about twice")
    numbers = {"api": 0, "endpoint": 0}
    waits: dict[str, list[dict[str, float] | None]] = {"api": [], "endpoint": []}
    for name, call in zip(seen["order"], log, strict=True):
        watch = seen[name][numbers[name]]
        numbers[name] += 1
        if watch["first"] is None:
            waits[name].append(None)  # the upload's own event was quicker, and its words came all at once
            continue
        arrived = datetime.fromisoformat(call["at"]).timestamp()
        token = arrived + call["first_token_ms"] / 1000
        waits[name].append(
            {
                "before": (arrived - watch["began"]) * 1000,
                "thinking": (token - arrived) * 1000,
                "after": (watch["first"] - token) * 1000,
                "whole": (watch["first"] - watch["began"]) * 1000,
            }
        )
    pairs = list(zip(waits["api"], waits["endpoint"], strict=True))[_WARM:]
    both = [(api, endpoint) for api, endpoint in pairs if api is not None and endpoint is not None]
    copies = seen["hit"][_WARM:]
    hits = [watch for watch in copies if watch["ending"] == "hit"]  # of the others the upload's own event was quicker
    return {
        "pairs": len(pairs),
        "watched": len(both),
        "api": {part: spread([api[part] for api, _ in both]) for part in both[0][0]},
        "endpoint": {part: spread([endpoint[part] for _, endpoint in both]) for part in both[0][1]},
        "difference": {part: spread([api[part] - endpoint[part] for api, endpoint in both]) for part in both[0][0]},
        "hits": len(hits),
        "copies": len(copies),
        "hit": spread([(watch["ended"] - watch["began"]) * 1000 for watch in hits]),
        "copy": spread([(watch["ended"] - watch["began"]) * 1000 for watch in copies]),
        "cpu_ms": {"new": round(seen["cpu"]["new"], 1), "copy": round(seen["cpu"]["copy"], 1)},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)], 2),
    }


PARTS = {
    "before": "request until the endpoint is called",
    "thinking": "the endpoint, until its first token",
    "after": "its first token until the client has words",
    "whole": "request until the client has words",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--hits", type=int, default=200)
    parser.add_argument("--latency-scale", type=float, default=0.05, help="of a model's latency until its first token")
    parser.add_argument("--token-ms", type=float, default=5.0, help="between two tokens of the endpoint")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--state", type=Path, help="a directory for the stack's logs; they are removed without it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = figures_of(run(options))
    rows = []
    for part, name in PARTS.items():
        api, bare = figures["api"][part], figures["endpoint"][part]
        ratio = f"{api['median'] / bare['median']:.2f}x" if bare["median"] > 0 else ""
        rows.append([name, *cells(bare), *cells(api), *cells(figures["difference"][part]), ratio])
    print(
        table(
            ["milliseconds: median, p95", "bare", "", "API", "", "pair by pair", "", "ratio"],
            rows,
        )
    )
    added = figures["difference"]["after"]["median"]
    hit = figures["hit"]
    print(f"\n{figures['watched']} of {figures['pairs']} pictures were captioned while they were watched")
    print(
        f"first words after the endpoint's first token: {added:.1f} ms more than bare; the goal is {FIRST_WORDS_MS:.0f}"
    )
    print(
        f"{figures['hits']} of {figures['copies']} copies were hits: {hit['median']:.0f} ms (p95 {hit['p95']:.0f}) "
        f"from the request; the goal is {HIT_MS:.0f}. All copies: {figures['copy']['median']:.0f} ms"
    )
    cpu = figures["cpu_ms"]
    print(f"CPU of the API's process: {cpu['new']:.0f} ms for a new picture, {cpu['copy']:.0f} ms for a copy")
    write(options.json, {"machine": machine(), "figures": figures})
    return 0 if added <= FIRST_WORDS_MS and hit["median"] <= HIT_MS else 1


def cells(spread_of: dict[str, float]) -> list[str]:
    return [f"{spread_of['median']:.1f}", f"{spread_of['p95']:.1f}"]


if __name__ == "__main__":
    sys.exit(main())
