"""`python -m captions_cli.local.model_endpoint`: the endpoint as a process of its own.

Prints one JSON line, `{"url": "http://127.0.0.1:PORT/v1"}`, once it listens, and runs until SIGTERM or SIGINT, or,
with --exit-with-parent, until its standard input is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from captions_cli.local.model_endpoint.server import EndpointServer
from captions_cli.local.model_endpoint.serving import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the endpoint until it is told to stop; return the exit code."""
    options = _parser().parse_args(arguments)
    endpoint = EndpointServer(
        Options(
            latency_scale=options.latency_scale,
            seed=options.seed,
            keys=frozenset(options.key) if options.key else None,
            dialect=options.dialect,
            names=dict(pair.split("=", 1) for pair in options.name),
            only_named=options.only_named,
            report_cost=options.report_cost,
            quality={name: float(value) for name, _, value in (pair.rpartition("=") for pair in options.quality)},
            assumed_input_price=options.assume_input_price,
            log=options.log,
            eyes=options.eyes,
            media_hosts=frozenset(options.media_host),
            max_audio_s=options.max_audio_seconds,
            speech_workers=options.speech_workers,
        )
    )
    if options.faults:
        endpoint.faults.set(json.loads(options.faults))
    try:
        asyncio.run(_serve(endpoint, options.host, options.port, exit_with_parent=options.exit_with_parent))
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


async def _serve(endpoint: EndpointServer, host: str, port: int, *, exit_with_parent: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    url = await endpoint.start(host, port)
    print(json.dumps({"url": url}), flush=True)
    if exit_with_parent:
        threading.Thread(target=_watch_parent, args=(loop, stopping), daemon=True).start()
    await stopping.wait()
    await endpoint.stop()


def _watch_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Wait for the end of standard input, which comes when the parent closes it or dies, however it dies."""
    descriptor = sys.stdin.fileno()
    while os.read(descriptor, 4096):
        pass
    loop.call_soon_threadsafe(stopping.set)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captions_cli.local.model_endpoint", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--latency-scale", type=float, default=1.0, help="multiplies the catalogue's latencies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", action="append", default=[], help="an accepted key; any is accepted without one")
    parser.add_argument("--dialect", default="openai", help="openai, vllm, ollama, sglang or dashscope")
    parser.add_argument("--name", action="append", default=[], metavar="MODEL=NAME", help="serve MODEL as NAME")
    parser.add_argument("--only-named", action="store_true", help="serve no models but those of --name")
    parser.add_argument("--report-cost", action="store_true", help="put usage.cost into answers")
    parser.add_argument("--quality", action="append", default=[], metavar="MODEL=0.8", help="have MODEL err so much")
    parser.add_argument("--assume-input-price", type=Decimal, help="dollars per million tokens where none is published")
    parser.add_argument("--log", type=Path, help="append finished requests to this file as JSON lines")
    parser.add_argument("--eyes", action="store_true", help="let small models look at pictures")
    parser.add_argument("--media-host", action="append", default=[], help="fetch media from this host too")
    parser.add_argument("--max-audio-seconds", type=float, default=Options.max_audio_s)
    parser.add_argument("--speech-workers", type=int, default=Options.speech_workers)
    parser.add_argument("--faults", help="a JSON list of faults to start with")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
