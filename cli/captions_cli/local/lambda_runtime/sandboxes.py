"""Functions in processes of their own behind the Lambda Runtime API, with their timeouts, re-use and limits."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import psutil

from captions_cli.local.aws.http import HttpAnswer, HttpServer
from captions_cli.local.errors import StackError
from captions_cli.local.lambda_runtime.processes import FORKS, ForkServer, NewProcess, Process

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LOGGER = logging.getLogger(__name__)

INIT_TIMEOUT_S = 60.0  # Lambda gives 10 s; a laptop whose cores are all busy may need longer
INIT_RETRY_S = 1.0  # a handler that cannot be loaded is not tried more often
IDLE_S = 300.0  # an unused sandbox goes after this, as Lambda's do after some minutes
# An unused sandbox makes room for another function's after this. Between two messages each is unused for a moment:
# without it, functions that all had work took one another's processes away, and started more than they worked.
SPARE_S = 2.0
_RUNTIME_API = "/2018-06-01/runtime"


@dataclass(frozen=True, eq=False)
class Function:
    """One function as the template configures it."""

    logical_id: str
    name: str
    arn: str
    handler: str
    code: Path
    timeout_s: float
    memory_mb: int
    environment: Mapping[str, str]
    python: str = sys.executable
    packages: tuple[Path, ...] = ()  # where it imports from, besides its own code and what `python` has
    log_name: str = ""  # of its log file; its logical id by default
    forked: bool = False  # its sandboxes find packages of third parties imported (fork_server.py)
    recursive_loop: str = "Terminate"  # or Allow: what becomes of the 17th time in one chain of requests

    @property
    def region(self) -> str:
        """Where it runs."""
        return self.arn.split(":")[3]

    def same_as(self, other: Function) -> bool:
        """Whether the two are alike in everything, so that one's sandboxes can serve the other."""
        return vars(self) == vars(other)


@dataclass(frozen=True)
class InvocationOutcome:
    """How an invocation ended: `payload` is what the handler returned, or the error as Lambda describes it."""

    ok: bool
    payload: Any
    request_id: str


@dataclass
class _Invocation:
    event: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    trace_id: str = field(default_factory=lambda: f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Sampled=0")
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    started_at: float = 0.0  # monotonic, when the sandbox took it
    outcome: InvocationOutcome | None = None

    def end(self, ok: bool, payload: Any) -> None:
        """Give the outcome, if there is none yet."""
        if self.outcome is None:
            self.outcome = InvocationOutcome(ok, payload, self.request_id)
            self.ended.set()


_StartProcess = Callable[[Function, Mapping[str, str], IO[bytes]], Process]


class Sandbox:
    """One process that serves one invocation at a time."""

    def __init__(
        self, function: Function, environment: Mapping[str, str], runtime: str, log: Path, start: _StartProcess
    ) -> None:
        self.id = secrets.token_hex(8)
        self.function = function
        self.state: Literal["starting", "idle", "busy", "dead"] = "starting"
        self.started_at = self.idle_since = time.monotonic()
        self._turn = threading.Condition()
        self._invocation: _Invocation | None = None
        self._log: IO[bytes] = log.open("ab", buffering=0)
        variables = {**environment, "AWS_LAMBDA_RUNTIME_API": f"{runtime}/{self.id}"}
        self._process = start(function, variables, self._log)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def give(self, invocation: _Invocation) -> bool:
        """Hand over an invocation, which the sandbox takes at its next call to the Runtime API; False if it is dead."""
        with self._turn:
            if self.state == "dead":
                return False
            self._invocation = invocation
            self._turn.notify_all()
            return True

    def take(self) -> _Invocation | None:
        """Wait for an invocation; None when the sandbox is given up."""
        with self._turn:
            while self.state != "dead":
                if self._invocation is not None and not self._invocation.started.is_set():
                    self.write_log(f"START RequestId: {self._invocation.request_id} Version: $LATEST")
                    self._invocation.started_at = time.monotonic()
                    self._invocation.started.set()
                    return self._invocation
                self._turn.wait(5.0)
        return None

    @property
    def invocation(self) -> _Invocation | None:
        """What it works on."""
        return self._invocation

    def wait(self) -> int:
        """Wait for the process to end; returns its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """End the process at once, as the timeout does."""
        self._process.kill()

    def close(self) -> None:
        """Called once the process is gone."""
        with self._turn:
            self.state = "dead"
            self._turn.notify_all()
        self._process.close()
        self._log.close()

    def write_log(self, line: str) -> None:
        """A line of the platform's own in the function's log."""
        with contextlib.suppress(ValueError, OSError):
            self._log.write(line.encode() + b"\n")

    def memory_mb(self) -> int:
        """Memory the process holds now, in MB."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss // 2**20)
        except psutil.Error:
            return 0


class Sandboxes:
    """Starts, re-uses, replaces and reaps the sandboxes of all functions.

    `maximum` caps the processes of all functions together; a function without any may always have one. Each sandbox's
    clock is wrong by up to `clock_skew_s` seconds. `forks_of` is the Python of functions whose sandboxes are forked.
    """

    def __init__(
        self,
        *,
        aws_endpoint_url: str,
        log_dir: Path,
        maximum: int,
        surroundings: Mapping[str, str],
        clock_skew_s: float = 0.0,
        forks_of: str | None = None,
    ) -> None:
        self._clock_skew_s = clock_skew_s
        self._endpoint = aws_endpoint_url
        self._log_dir = log_dir
        self._maximum = maximum
        self._surroundings = surroundings
        # Each cold start takes a second of a whole core: more at once than there are cores only delay one another.
        self._starting_at_once = os.cpu_count() or 1
        self._changed = threading.Condition()
        self._sandboxes: dict[str, Sandbox] = {}
        self._waiting: Counter[Function] = Counter()
        self._init_failed_at: dict[Function, float] = {}
        self._retired: set[Function] = set()
        self._runtime = HttpServer(self._runtime_api)
        self._runtime_address = ""
        self._stopped = False
        self._forks_of = forks_of
        self._fork_server: ForkServer | None = None

    def start(self) -> None:
        """Serve the Runtime API, and have imported what functions will need."""
        if FORKS and self._forks_of:
            self._fork_server = ForkServer(self._forks_of, self._log_dir)
        self._runtime_address = f"127.0.0.1:{self._runtime.start('127.0.0.1', 0)}"
        threading.Thread(target=self._reap, name="sandbox-reaper", daemon=True).start()

    def stop(self) -> None:
        """Kill every sandbox."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            sandboxes = list(self._sandboxes.values())
        for sandbox in sandboxes:
            sandbox.kill()
        deadline = time.monotonic() + 5
        with self._changed:
            while self._sandboxes and time.monotonic() < deadline:
                self._changed.wait(0.1)
        if self._fork_server is not None:
            self._fork_server.stop()
        self._runtime.stop()

    def warm(self, function: Function, count: int = 1) -> None:
        """Have `count` sandboxes of the function started, without waiting for them."""
        with self._changed:
            have = sum(1 for s in self._sandboxes.values() if s.function is function)
            for _ in range(count - have):
                self._spawn(function)

    def wait_warm(self, function: Function) -> None:
        """Wait until a sandbox of the function is ready; raises StackError with what it said if it cannot be."""
        deadline = time.monotonic() + INIT_TIMEOUT_S
        with self._changed:
            while True:
                mine = [s for s in self._sandboxes.values() if s.function is function]
                if any(s.state in {"idle", "busy"} for s in mine):
                    return
                if not mine or time.monotonic() > deadline:
                    raise StackError(
                        f"{function.logical_id} does not start; the end of its log:\n{self.log_tail(function)}"
                    )
                self._changed.wait(0.2)

    def log_file(self, function: Function) -> Path:
        """Where the function's output goes."""
        return self._log_dir / f"{function.log_name or function.logical_id}.log"

    def log_tail(self, function: Function, size: int = 3000) -> str:
        """The end of the function's log."""
        with contextlib.suppress(OSError):
            return self.log_file(function).read_bytes()[-size:].decode(errors="replace")
        return ""

    def workers(self) -> list[tuple[str, int]]:
        """Logical id and process id of each sandbox."""
        with self._changed:
            return [(s.function.logical_id, s.pid) for s in self._sandboxes.values() if s.state != "dead"]

    def busy(self) -> int:
        """How many sandboxes have an invocation."""
        with self._changed:
            return sum(1 for s in self._sandboxes.values() if s.state == "busy")

    def acquire(self, function: Function, timeout_s: float) -> Sandbox | None:
        """An idle sandbox of the function, reserved for the caller; None if there is none in time.

        The caller gives it an invocation (`run`) or gives it back (`release`).
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._waiting[function] += 1
            try:
                while not self._stopped:
                    if (idle := self._take_idle(function)) is not None:
                        return idle
                    if self._may_start(function):
                        self._spawn(function)
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        return None
                    # Time alone may let one start, too: INIT_RETRY_S and SPARE_S are over without any change.
                    self._changed.wait(min(left_s, INIT_RETRY_S))
            finally:
                self._waiting[function] -= 1
        return None

    def _take_idle(self, function: Function) -> Sandbox | None:
        idle = [s for s in self._sandboxes.values() if s.function is function and s.state == "idle"]
        if not idle:
            return None
        chosen = max(idle, key=lambda s: s.idle_since)  # the most recently used, so that others can go
        chosen.state = "busy"
        return chosen

    def release(self, sandbox: Sandbox) -> None:
        """Give back a reserved sandbox."""
        with self._changed:
            if sandbox.state == "busy":
                sandbox.state = "idle"
                sandbox.idle_since = time.monotonic()
            if sandbox.function in self._retired:
                self._discard(sandbox)
            self._changed.notify_all()

    def run(self, sandbox: Sandbox, event: Any, *, lineage: str = "") -> InvocationOutcome:
        """Have a reserved sandbox handle `event`; the sandbox is free, or dead, afterwards.

        If it turns out to have died while it was idle, another one takes the event. `lineage` (lineage.py) says which
        chain of requests the event is of.
        """
        invocation = _Invocation(json.dumps(event).encode())  # in ASCII: half of a surrogate pair has no UTF-8
        if lineage:
            invocation.trace_id += f";Lineage={lineage}"
        while True:
            self._run_in(sandbox, invocation)
            if invocation.outcome is not None:
                return invocation.outcome
            another = self.acquire(sandbox.function, INIT_TIMEOUT_S)
            if another is None:
                return InvocationOutcome(False, _exit_error(invocation, "no sandbox starts"), invocation.request_id)
            sandbox = another

    def _run_in(self, sandbox: Sandbox, invocation: _Invocation) -> None:
        function = sandbox.function
        if not sandbox.give(invocation):
            return
        while not invocation.started.wait(0.5):
            if sandbox.state == "dead":
                return
        if not invocation.ended.wait(function.timeout_s):
            message = f"{invocation.request_id} Task timed out after {function.timeout_s:.2f} seconds"
            invocation.end(False, {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {message}"})
            sandbox.write_log(message)
            self._discard(sandbox)
        duration_ms = (time.monotonic() - invocation.started_at) * 1000
        sandbox.write_log(
            f"END RequestId: {invocation.request_id}\n"
            f"REPORT RequestId: {invocation.request_id}\tDuration: {duration_ms:.2f} ms\t"
            f"Memory Size: {function.memory_mb} MB\tMemory Used: {sandbox.memory_mb()} MB"
        )
        self.release(sandbox)

    def _discard(self, sandbox: Sandbox) -> None:
        """Kill a sandbox, and see that nobody gets it any more."""
        with self._changed:
            sandbox.state = "dead"
            sandbox.kill()

    def retire(self, function: Function) -> None:
        """Give up a function that another one has replaced: what it works on ends, then its sandboxes do."""
        with self._changed:
            self._retired.add(function)
            for sandbox in self._sandboxes.values():
                if sandbox.function is function and sandbox.state in {"idle", "starting"}:
                    self._discard(sandbox)

    def kill_function(self, function: Function | None = None) -> None:
        """Kill the sandboxes of a function, or all."""
        with self._changed:
            doomed = [s for s in self._sandboxes.values() if function is None or s.function is function]
        for sandbox in doomed:
            sandbox.kill()

    def _may_start(self, function: Function) -> bool:
        mine = [s for s in self._sandboxes.values() if s.function is function]
        if time.monotonic() < self._init_failed_at.get(function, -INIT_RETRY_S) + INIT_RETRY_S:
            return False
        starting = [s for s in self._sandboxes.values() if s.state == "starting"]
        if len(starting) >= self._starting_at_once:
            return False
        if sum(1 for s in starting if s.function is function) >= self._waiting[function]:
            return False  # one is on its way for everyone who waits
        if len(self._sandboxes) < self._maximum or not mine:
            return True
        # Another function's unused sandbox makes room, if that function keeps one.
        unused_since = time.monotonic() - SPARE_S
        for sandbox in sorted(self._sandboxes.values(), key=lambda s: s.idle_since):
            others = sum(1 for s in self._sandboxes.values() if s.function is sandbox.function)
            unused = sandbox.state == "idle" and sandbox.idle_since <= unused_since
            if sandbox.function is not function and unused and others > 1:
                self._discard(sandbox)
                return True
        return False

    def _spawn(self, function: Function) -> None:
        environment, log_file = self.environment(function), self.log_file(function)
        sandbox = Sandbox(function, environment, self._runtime_address, log_file, self._start_process)
        self._sandboxes[sandbox.id] = sandbox
        threading.Thread(target=self._watch, args=(sandbox,), name="sandbox-watch", daemon=True).start()

    def _start_process(self, function: Function, environment: Mapping[str, str], log: IO[bytes]) -> Process:
        if self._fork_server is not None and function.forked:
            try:
                return self._fork_server.fork(environment, function.code, log)
            except OSError as error:  # too large an environment, no process to be had, or the server has ended
                LOGGER.warning("not_forked function=%s error=%s", function.logical_id, error)
        return NewProcess(function.python, environment, function.code, log)

    def environment(self, function: Function) -> dict[str, str]:
        """The function's own environment and what Lambda itself adds; nothing of the stack's process."""
        environment = dict(function.environment)
        if self._clock_skew_s:
            skew_s = random.uniform(-self._clock_skew_s, self._clock_skew_s)  # noqa: S311 - of test clocks
            environment["LOCAL_CLOCK_SKEW_S"] = f"{skew_s:.3f}"
        for name, value in {
            "AWS_ENDPOINT_URL": self._endpoint,
            "POWERTOOLS_TRACE_DISABLED": "true",  # no X-Ray daemon listens here
        }.items():
            if not environment.get(name):
                environment[name] = value
        return (
            environment
            | {
                "PATH": os.pathsep.join([str(Path(function.python).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
                "LANG": "C.UTF-8",
                "TZ": ":UTC",
                "PYTHONUNBUFFERED": "1",
                "AWS_ACCESS_KEY_ID": function.logical_id,  # whoever sees a call knows whose it is
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_REGION": function.region,
                "AWS_DEFAULT_REGION": function.region,
                "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_LAMBDA_FUNCTION_NAME": function.name,
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
                "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d')}/[$LATEST]{secrets.token_hex(16)}",
                "LAMBDA_TASK_ROOT": str(function.code),
                "LAMBDA_RUNTIME_DIR": str(Path(__file__).parent),
                "_HANDLER": function.handler,
            }
            | ({"PYTHONPATH": os.pathsep.join(map(str, function.packages))} if function.packages else {})
            | dict(self._surroundings)
        )

    def _watch(self, sandbox: Sandbox) -> None:
        code = sandbox.wait()
        with self._changed:
            self._sandboxes.pop(sandbox.id, None)
            if sandbox.state == "starting":
                self._init_failed_at[sandbox.function] = time.monotonic()
            sandbox.close()
            self._changed.notify_all()
        invocation = sandbox.invocation
        if invocation is not None and invocation.started.is_set():
            cause = f"signal: {-code}" if code < 0 else f"exit status {code}"
            invocation.end(False, _exit_error(invocation, f"Runtime exited with error: {cause}"))

    def _reap(self) -> None:
        while not self._stopped:
            with self._changed:
                self._changed.wait(5)
                now = time.monotonic()
                for sandbox in list(self._sandboxes.values()):
                    others = sum(1 for s in self._sandboxes.values() if s.function is sandbox.function)
                    unused = sandbox.state == "idle" and now - sandbox.idle_since > IDLE_S and others > 1
                    stuck = sandbox.state == "starting" and now - sandbox.started_at > INIT_TIMEOUT_S
                    if unused or stuck:
                        self._discard(sandbox)

    def _runtime_api(self, environ: WSGIEnvironment, body: bytes) -> HttpAnswer:
        _, sandbox_id, rest = str(environ["PATH_INFO"]).split("/", 2)
        sandbox = self._sandboxes.get(sandbox_id)
        route = f"/{rest}".removeprefix(_RUNTIME_API)
        if sandbox is None:
            return _json(403, {"errorType": "InvalidStateTransition"})
        if route == "/invocation/next":
            return self._next(sandbox)
        if route == "/init/error":
            return _json(202, {"status": "OK"})  # the sandbox has logged it, and ends
        _, _, request_id, kind = route.split("/")
        invocation = sandbox.invocation
        if invocation is None or invocation.request_id != request_id or kind not in {"response", "error"}:
            return _json(400, {"errorType": "InvalidRequestID"})
        try:
            payload = json.loads(body)
        except ValueError:
            invocation.end(False, {"errorType": "Runtime.MalformedResponse", "errorMessage": "the answer is not JSON"})
        else:
            invocation.end(kind == "response", payload)
        return _json(202, {"status": "OK"})

    def _next(self, sandbox: Sandbox) -> HttpAnswer:
        if sandbox.state == "starting":
            with self._changed:
                sandbox.state = "idle"
                sandbox.idle_since = time.monotonic()
                self._changed.notify_all()
        invocation = sandbox.take()
        if invocation is None:
            return _json(410, {"errorType": "SandboxGone"})
        deadline_ms = int((time.time() + sandbox.function.timeout_s) * 1000)
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(deadline_ms)),
            ("Lambda-Runtime-Invoked-Function-Arn", sandbox.function.arn),
            ("Lambda-Runtime-Trace-Id", invocation.trace_id),
        ]
        return HttpAnswer("200 OK", headers, invocation.event)


def _exit_error(invocation: _Invocation, message: str) -> dict[str, str]:
    return {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {invocation.request_id} Error: {message}"}


def _json(status: int, value: Mapping[str, Any]) -> HttpAnswer:
    return HttpAnswer(f"{status} .", [("Content-Type", "application/json")], json.dumps(value).encode())
