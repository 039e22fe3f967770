"""The clients the gateway benchmarks compare, each run in a process of its own, with its own packages.

Not a benchmark itself: `gateway_overhead.py` and `gateway_faults.py` start it as
`<python of the client's venv> benchmarks/gateway_clients.py`, write one JSON specification to its standard input and
read one JSON result from its standard output. Only the client that is asked for is imported.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

INSTRUCTIONS = "Write one sentence that says what the picture shows."
TEXT = "Caption this picture."
MARK = "local model)"
"""What every whole caption of the local endpoint ends with: a text without it was cut, refused or made up."""

Call = Callable[[int, float], Awaitable[str]]
"""Makes the call of this number with this deadline (time.monotonic), and returns the text."""


def messages(image: bytes) -> list[dict[str, Any]]:
    """Return the messages every client sends."""
    url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    picture = {"type": "image_url", "image_url": {"url": url}}
    return [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": [picture, {"type": "text", "text": TEXT}]},
    ]


def bare(spec: dict[str, Any]) -> Call:
    """The openai client alone: one model, no retries, nothing looked at."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=spec["urls"][0], api_key="sk-bench", max_retries=0, timeout=spec["timeout_s"])
    image = base64.b64decode(spec["image"])

    async def call(number: int, deadline: float) -> str:
        response = await client.chat.completions.create(
            model=spec["chain"][0],
            messages=messages(image),  # type: ignore[arg-type]
            max_tokens=256,
            temperature=0.2,
            extra_headers={"X-Client-Request-Id": f"{spec['run']}-{number}"},
        )
        return response.choices[0].message.content or ""

    return call


def gateway(spec: dict[str, Any]) -> Call:
    """The gateway, as the functions use it."""
    from captions.gateway import Endpoint, Gateway, Media, Request
    from captions.gateway.catalogue import load

    client = Gateway(
        endpoints=[Endpoint(url) for url in spec["urls"]],
        keys=lambda force: "sk-bench",
        catalogue=load(f"[defaults.timeouts]\nimage = {spec['timeout_s']}"),
    )
    image = base64.b64decode(spec["image"])

    def request(number: int) -> Request:
        media = (Media("image", "image/jpeg", image),)
        return Request(INSTRUCTIONS, TEXT, media, max_tokens=256, request_id=f"{spec['run']}-{number}")

    async def call(number: int, deadline: float) -> str:
        return (await client.complete(request(number), spec["chain"], deadline=deadline)).text

    async def stream(number: int, deadline: float) -> str:
        text = ""
        async for event in client.stream(request(number), spec["chain"], deadline=deadline):
            text = "" if event.kind == "restart" else text + event.text
        return text

    return stream if spec.get("stream") else call


def litellm(spec: dict[str, Any]) -> Call:
    """litellm.Router, set up as `spec["options"]` says."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its price map when imported
    import litellm
    from litellm import Router

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    options = dict(spec.get("options", {}))
    one_group = options.pop("one_group", False)
    deployments = []
    for place, model in enumerate(spec["chain"]):
        for order, url in enumerate(spec["urls"]):
            parameters: dict[str, Any] = {"model": f"openai/{model}", "api_base": url, "api_key": "sk-bench"}
            parameters["order"] = 1 + (place * len(spec["urls"]) + order if one_group else order)
            deployments.append({"model_name": "caption" if one_group else model, "litellm_params": parameters})
    if not one_group:
        first, *rest = spec["chain"]
        options["fallbacks"] = [{first: rest}]
        options["max_fallbacks"] = len(rest)
    router = Router(model_list=deployments, timeout=spec["timeout_s"], **options)
    name = "caption" if one_group else spec["chain"][0]
    image = base64.b64decode(spec["image"])

    async def call(number: int, deadline: float) -> str:
        response = await router.acompletion(
            model=name,
            messages=messages(image),
            max_tokens=256,
            temperature=0.2,
            stream=bool(spec.get("stream")),
            extra_headers={"X-Client-Request-Id": f"{spec['run']}-{number}"},
        )
        if not spec.get("stream"):
            return response.choices[0].message.content or ""
        text = ""
        async for chunk in response:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        return text

    return call


async def flat_out(call: Call, spec: dict[str, Any]) -> dict[str, Any]:
    """Make the calls as fast as `concurrency` callers can; return seconds of wall clock and of CPU."""
    numbers = iter(range(spec["calls"]))
    wrong = 0

    async def caller() -> None:
        nonlocal wrong
        for number in numbers:
            text = await call(number, time.monotonic() + 60.0)
            wrong += not text.endswith(MARK)

    await asyncio.gather(*(call(-1 - place, time.monotonic() + 60.0) for place in range(spec["concurrency"])))
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(spec["concurrency"])))
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "wrong": wrong}


async def paced(call: Call, spec: dict[str, Any]) -> dict[str, Any]:
    """Start the calls at a steady rate; return for each how it ended, when, and how far beyond its deadline.

    With `requeue_s` a call that fails is made again as a queue would deliver it, until `requeue_s` have passed: after
    the delay the pipeline gives it (doubling from four seconds to twenty, half of it jitter, and no sooner than a
    little after the time its error names), and with no more than `workers` calls under way, as an event source allows.
    """
    ends: list[dict[str, Any]] = []
    requeue_s = spec.get("requeue_s", 0.0)
    workers = asyncio.Semaphore(spec["workers"] if requeue_s else spec["calls"] + 1)

    async def answer_call(number: int) -> None:
        began = time.monotonic()
        made, overrun, text, error = 0, 0.0, "", None
        while True:
            async with workers:
                deadline = time.monotonic() + spec["deadline_s"]
                error, named = None, 0.0
                try:
                    text = await call(number, deadline)
                except Exception as raised:  # each client has its own: which one it was is all that is compared
                    error = type(raised).__name__
                    named = getattr(raised, "retry_after_s", None) or 0.0
                overrun = max(overrun, time.monotonic() - deadline)
            most = min(4.0 * 2.0**made, 20.0)
            pause = max(named + random.uniform(0.0, min(named, 5.0)), random.uniform(most / 2, most))
            made += 1
            if error is None or time.monotonic() - began + pause > requeue_s:
                break
            await asyncio.sleep(pause)
        right = error is None and text.endswith(MARK)
        ends.append(
            {"right": right, "error": error, "latency_s": time.monotonic() - began, "overrun_s": overrun, "made": made}
        )

    # One call first: connections, lazy imports and price tables are not what is measured here.
    await call(-1, time.monotonic() + 60.0)
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    running: set[asyncio.Task[None]] = set()
    for number in range(spec["calls"]):
        delay = began + number / spec["rate"] - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        running.add(asyncio.create_task(answer_call(number)))
    # What is not over by now never will be: the machine cannot keep up with this client at this rate.
    _, unfinished = await asyncio.wait(running, timeout=spec.get("requeue_s", 0.0) + 10 * spec["deadline_s"])
    for task in unfinished:
        task.cancel()
        ends.append({"right": False, "error": "unfinished", "latency_s": 0.0, "overrun_s": 0.0, "made": 1})
    return {"ends": ends, "wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}


async def main() -> None:
    spec = json.loads(sys.stdin.readline())
    call = {"bare": bare, "gateway": gateway, "litellm": litellm}[spec["client"]](spec)
    result = await (flat_out if spec["mode"] == "flat_out" else paced)(call, spec)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
