"""A process that has imported packages of third parties, and forks itself into sandboxes that need not do so again.

Run by its path, with the standard library alone, like the bootstrap that each fork goes on with: nothing of the local
stack, of the product or of a function is imported here, so all of those start as cold in a fork as in a new process.
It reads requests from the socket on standard input. With each come three descriptors: the sandbox's standard input, its
log, and the pipe that is told the sandbox's process id and, once it has ended, how. It ends with that socket.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from typing import Any

PACKAGES = (
    "asyncio",
    "boto3.dynamodb.types",
    "boto3.s3.inject",
    "boto3.s3.transfer",
    "concurrent.futures.thread",
    "dateutil.parser",
    "langcodes",
    "numpy",
    "openai.lib._chat_completion_resources",
    "openai.lib.streaming.chat",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.ImageChops",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin",
    "pydantic.root_model",
    "tomllib",
)
"""What functions import of third parties and find ready. Packages that read a function's environment as they are
imported are not among them (Powertools, the X-Ray SDK): a fork imports those itself, with its own environment."""
SERVICES = ("dynamodb", "events", "s3", "sqs", "ssm")
"""Whose clients functions make: botocore's descriptions of them take longer to read than boto3 takes to import."""
MOST_BYTES = 2**20
"""Of a request, by far."""


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork until the socket ends. Returns in a fork alone, with what it was asked to be."""
    read_end, write_end = os.pipe()
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler has to be there for its number to be written
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), read_end], [], [])
        if read_end in ready:
            os.read(read_end, 4096)
            _report(reports)
        if control.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, MOST_BYTES, 3)
        if not message:
            sys.exit(0)
        try:
            if len(descriptors) < 3:
                raise OSError("this process has no room for more descriptors")
            pid = os.fork()
        except OSError as error:  # whoever asked finds the pipe closed; the other forks go on
            print(error, file=sys.stderr)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        report = descriptors[2]
        if pid:
            for descriptor in descriptors[:2]:
                os.close(descriptor)
            reports[pid] = report
            _tell(report, pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (read_end, write_end, report, *reports.values()):
            os.close(descriptor)
        control.close()
        request: dict[str, Any] = json.loads(message)
        return request | {"stdin": descriptors[0], "log": descriptors[1]}


def _report(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        report = reports.pop(pid)
        _tell(report, os.waitstatus_to_exitcode(status))
        os.close(report)


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report, b"%d\n" % number)


def become(request: dict[str, Any]) -> None:
    """Be in this process what a new one would be that was started as the request says."""
    os.setsid()  # Ctrl-C at the terminal is the stack's to handle
    for standard, given in ((0, request["stdin"]), (1, request["log"]), (2, request["log"])):
        os.dup2(given, standard)
    for descriptor in (request["stdin"], request["log"]):
        os.close(descriptor)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.path[:0] = filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep))


def import_packages() -> None:
    """Import what functions will; another Python than the project's has not all of it."""
    for name in PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def read_descriptions() -> None:
    """Have botocore read its descriptions, and keep them for all sessions to come."""
    with contextlib.suppress(ImportError):
        import boto3.session
        import botocore.session

        botocore.session.create_loader = functools.cache(botocore.session.create_loader)
        session: Any = boto3.session.Session("none", "none", region_name="us-east-1")
        for service in SERVICES:
            session.client(service)


def main() -> None:
    """Load, then fork until nobody asks any more."""
    control = socket.socket(fileno=os.dup(0))
    gc.disable()
    import_packages()
    read_descriptions()
    gc.freeze()  # so that no fork copies pages only to look through them for garbage
    request = serve(control)
    gc.enable()
    become(request)
    runpy.run_path(request["program"], run_name="__main__")


if __name__ == "__main__":
    main()
