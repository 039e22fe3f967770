"""`python -m captions_cli.local`: a local stack as a process of its own.

Writes STATE_DIR/stack.json once an upload would be worked on, prints the same as one JSON line, runs until SIGTERM or
SIGINT, and removes the file. What is not emulated goes to standard error. $CAPTIONS_ENDPOINT_URL and
$CAPTIONS_ENDPOINT_KEY put a real model endpoint in place of the local one. $CAPTIONS_STOP_WITH is the id of a process;
the stack ends as on SIGTERM once that process has ended in any way.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from captions_cli.local.errors import StackError
from captions_cli.local.options import Address, ModelOptions, WorkerOptions

STATE_FILE = "stack.json"
LOOK_SECONDS = 1.0
"""Seconds between looks at the process with which the stack ends."""
TERMINATED = 143
"""The exit code of a stack that is ended while it starts (128 + SIGTERM)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stack until told to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    for noisy in ("botocore", "boto3", "urllib3", "samtranslator"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    stopping, ready = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        begun = stopping.is_set()
        stopping.set()
        if not ready.is_set() and not begun:
            sys.exit(TERMINATED)  # what has been started so far is taken down again

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        _run(options, os.environ, stopping, ready)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(
    options: argparse.Namespace, environ: Mapping[str, str], stopping: threading.Event, ready: threading.Event
) -> None:
    from captions_cli.local.stack import LocalStack

    owner = _process(environ.get("CAPTIONS_STOP_WITH"))
    stack = LocalStack(
        None if options.empty else options.template,
        stack_name=options.stack_name,
        region=options.region,
        state_dir=options.state_dir,
        parameters=dict(options.parameter),
        serve_api=True,
        lock=options.lock,
        model=ModelOptions(
            url=options.endpoint or environ.get("CAPTIONS_ENDPOINT_URL") or None,
            key=environ.get("CAPTIONS_ENDPOINT_KEY"),
            latency_scale=options.latency_scale,
            arguments=("--eyes",) if options.eyes else (),
        ),
        address=Address(bind=options.bind, port=options.port),
        workers=WorkerOptions(maximum=options.maximum_workers),
    )
    try:
        stack.start()
        ready.set()
        gc.freeze()  # moto's modules need no second look at every collection
        _summarise(stack.coverage())
        state_file = options.state_dir / STATE_FILE
        state = stack.state()
        _write_whole(state_file, json.dumps(state, indent=2) + "\n")
        print(json.dumps(state), flush=True)
        try:
            while not stopping.wait(LOOK_SECONDS) and _lives(owner):
                pass
        finally:
            state_file.unlink(missing_ok=True)
    finally:
        stack.stop()


def _process(number: str | None) -> psutil.Process | None:
    if not number:
        return None
    try:
        return psutil.Process(int(number))
    except (ValueError, OverflowError, psutil.NoSuchProcess) as error:
        raise StackError(f"CAPTIONS_STOP_WITH={number!r} is no running process") from error


def _lives(process: psutil.Process | None) -> bool:
    try:
        return process is None or (process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _summarise(coverage: Sequence[tuple[str, str, str, str]]) -> None:
    by_kind: dict[tuple[str, str, str], list[str]] = {}
    for logical_id, resource_type, treatment, note in coverage:
        by_kind.setdefault((treatment, resource_type, note), []).append(logical_id)
    for (treatment, resource_type, note), logical_ids in sorted(by_kind.items()):
        print(f"{treatment:13} {resource_type} ({', '.join(logical_ids)}){': ' if note else ''}{note}", file=sys.stderr)


def _write_whole(path: Path, text: str) -> None:
    """Write a file that readers see complete or not at all."""
    draft = path.with_suffix(".tmp")
    draft.touch(mode=0o600)  # it holds the API's token
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captions_cli.local", description=__doc__)
    parser.add_argument("--template", type=Path, default=Path("template.yaml"))
    parser.add_argument("--empty", action="store_true", help="no stack: AWS's APIs alone, to deploy to")
    parser.add_argument("--state-dir", type=Path, default=Path(".captions"))
    parser.add_argument("--lock", type=int, help="descriptor of the state directory's lock, taken for this process")
    parser.add_argument("--stack-name", default="media-captions")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--bind", default="127.0.0.1", help="0.0.0.0 lets containers reach the stack")
    parser.add_argument("--port", type=int, default=0, help="of the AWS APIs; 0 takes a free one (default)")
    parser.add_argument("--endpoint", help="base URL of a model endpoint; the local one without it")
    parser.add_argument("--latency-scale", type=float, default=0.1, help="multiplies the local endpoint's latencies")
    parser.add_argument("--eyes", action="store_true", help="let small models look at pictures in the local endpoint")
    parser.add_argument("--parameter", type=_pair, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--maximum-workers", type=int, help="worker processes of all functions together")
    return parser


if __name__ == "__main__":
    sys.exit(main())
