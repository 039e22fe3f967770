"""The whole stack on one machine: `LocalStack`."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import unquote

from captions_cli import loopback
from captions_cli.local import deployment
from captions_cli.local.errors import StackError
from captions_cli.local.events import EventRouter, Unreliability, parse_function_name
from captions_cli.local.moto_repairs import MessageMoveTasks, MotoRepairs
from captions_cli.local.pump import EventSource, Pump, Schedule
from captions_cli.local.sandboxes import Function, Outcome, Sandboxes
from captions_cli.local.server import AwsCall, AwsEndpoint, Forward, Interceptor
from captions_cli.local.translate import ACCOUNT_ID, Resource, Translation, load_template, translate

LOGGER = logging.getLogger(__name__)

MODEL_ENDPOINT_START_S = 30.0
LOCAL_KEY = "local-endpoint-needs-no-key"
DEFAULT_WORKERS_PER_CORE = 4  # workers mostly wait: for models, and for the AWS stand-in
MINIMUM_WORKERS = 8
# What a function needs of the surroundings to reach a real model endpoint: certificates and proxies.
_NETWORK_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")

# moto keeps its state in the process: one stack at a time.
_process_holds_a_stack = threading.Lock()


class LocalStack:
    """The template's resources in an AWS stand-in, its functions in processes, and a model endpoint.

    `endpoint` is "local" (a child process), or the base URL of a real one. `parameters` overrides the template's.
    `visibility_scale` multiplies the visibility timeout of the queues that functions read, so that what a killed worker
    held comes back sooner. `deliver_twice` and `shuffle` make EventBridge do what it may: deliver every event twice, in
    another order. `interceptors` see every call to the AWS APIs first, and may answer it. Usable as a context manager.

    Raises StackError from `start` when the template cannot be brought up, the port is taken, or another stack is up.
    """

    def __init__(
        self,
        template: Path,
        *,
        stack_name: str = "media-captions",
        region: str = "us-east-1",
        endpoint: str = "local",
        endpoint_key: str | None = None,
        state_dir: Path | None = None,
        latency_scale: float = 0.1,
        parameters: Mapping[str, str] | None = None,
        python: str = sys.executable,
        bind: str = "127.0.0.1",
        port: int = 0,
        maximum_workers: int | None = None,
        warm: int = 1,
        visibility_scale: float = 1.0,
        deliver_twice: bool = False,
        shuffle: bool = False,
        seed: int | None = None,
        schedules: bool = True,
        endpoint_arguments: Sequence[str] = (),
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._template = Path(template)
        self.stack_name = stack_name
        self.region = region
        self._endpoint = endpoint
        self._endpoint_key = endpoint_key
        self._state_dir = state_dir
        self._latency_scale = latency_scale
        self._parameters = dict(parameters or {})
        self._python = python
        self._bind = bind
        self._port = port
        self._maximum_workers = maximum_workers or max(
            MINIMUM_WORKERS, DEFAULT_WORKERS_PER_CORE * (os.cpu_count() or 1)
        )
        self._warm = warm
        self._visibility_scale = visibility_scale
        self._unreliability = Unreliability(deliver_twice, shuffle, seed)
        self._run_schedules = schedules
        self._endpoint_arguments = list(endpoint_arguments)
        self._interceptors = list(interceptors)
        self._ending = contextlib.ExitStack()
        self._clients: dict[str, Any] = {}
        self._clients_guard = threading.Lock()
        self._functions: dict[str, Function] = {}
        self._sources: list[EventSource] = []
        self._schedules: list[Schedule] = []
        self._translation: Translation | None = None
        self._sandboxes: Sandboxes | None = None
        self._router: EventRouter | None = None
        self._pump: Pump | None = None
        self._aws: AwsEndpoint | None = None
        self.endpoint_url = ""
        self.outputs: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def aws_endpoint_url(self) -> str:
        """Where the AWS APIs are, for clients on this machine."""
        return self._aws.url if self._aws else ""

    @property
    def state_dir(self) -> Path:
        """Where logs are."""
        assert self._state_dir is not None
        return self._state_dir

    def start(self) -> None:
        """Bring the stack up; returns when an upload would be worked on at once."""
        try:
            with _without_garbage_collection():
                self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and thread of the stack, and forget what it held."""
        self._ending.close()

    def client(self, service: str) -> Any:
        """A boto3 client of this stack."""
        with self._clients_guard:
            if service not in self._clients:
                self._clients[service] = self._new_client(service)
            return self._clients[service]

    def coverage(self) -> list[tuple[str, str, str, str]]:
        """For each resource: logical id, type, created / repaired / not emulated, and what that means."""
        assert self._translation is not None
        return deployment.coverage(self._translation)

    def workers(self) -> list[tuple[str, int]]:
        """The function (logical id) and process id of each worker process."""
        return self._sandboxes.workers() if self._sandboxes else []

    def kill_worker(self, pid: int) -> None:
        """`kill -9` one worker process. Raises StackError if it is none of the stack's."""
        if pid not in {worker for _, worker in self.workers()}:
            raise StackError(f"{pid} is no worker of this stack")
        os.kill(pid, 9)

    def restart_pump(self) -> None:
        """End the pump and its workers as a crash would, and start new ones: what they held comes back to its queue."""
        assert self._pump is not None
        assert self._sandboxes is not None
        self._pump.stop()
        self._sandboxes.kill_function()
        self._start_pump()

    def invoke(self, function: str, event: Any) -> Outcome:
        """Invoke a function by logical id or name, synchronously."""
        assert self._pump is not None
        return self._pump.invoke(self._function(function), event)

    def queue_depths(self) -> dict[str, dict[str, int]]:
        """Messages of each queue by its logical id: visible, in flight, delayed."""
        assert self._aws is not None
        return {queue.logical_id: self._depth(queue) for queue in self._queues()}

    def idle(self) -> bool:
        """Whether nothing is left to do: no event on its way, no message on a queue that is read, no invocation."""
        assert self._router is not None
        assert self._pump is not None
        read = {source.queue_name for source in self._sources}
        if self._router.pending() or self._pump.working():
            return False
        return not any(sum(self._depth(queue).values()) for queue in self._queues() if queue.name in read)

    def wait_idle(self, timeout: float = 60.0) -> bool:
        """Wait until `idle`; False if it is not in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.idle():
                return True
            time.sleep(0.1)
        return self.idle()

    # Starting, in order. Each step leaves behind how it is undone.

    def _start(self) -> None:
        self._lock()
        model = self._start_model_endpoint() if self._endpoint == "local" else None
        self._start_aws()
        self.endpoint_url = model.wait() if model else self._endpoint
        self._create()
        self._start_functions()

    def _lock(self) -> None:
        if not _process_holds_a_stack.acquire(blocking=False):
            raise StackError("this process runs a local stack already")
        self._ending.callback(_process_holds_a_stack.release)
        if self._state_dir is None:
            self._state_dir = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="captions-")))
        (self._state_dir / "logs").mkdir(parents=True, exist_ok=True)
        lock = self._ending.enter_context((self._state_dir / "lock").open("a+", encoding="ascii"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise StackError(f"a local stack is up already (process {lock.read().strip()})") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _start_model_endpoint(self) -> _ModelEndpoint:
        endpoint = _ModelEndpoint(
            self._python, self._bind, self._latency_scale, self.state_dir / "logs", self._endpoint_arguments
        )
        self._ending.callback(endpoint.stop)
        return endpoint

    def _start_aws(self) -> None:
        moves = MessageMoveTasks()
        self._aws = AwsEndpoint(interceptors=[*self._interceptors, moves, self._lambda_invocations])
        moves.locks = self._aws.locks
        self._router = EventRouter(self._aws.locks, self._invoke_by_arn, self._unreliability)
        repairs = MotoRepairs(self._aws.locks, self._router)
        repairs.queue_changed = lambda: self._pump.wake() if self._pump else None
        repairs.install()
        self._ending.callback(repairs.remove)
        _forget_everything()
        self._ending.callback(_forget_everything)
        self._aws.start(self._bind, self._port)
        self._ending.callback(self._aws.stop)
        self._router.start()
        self._ending.callback(self._router.stop)

    def _create(self) -> None:
        declared = load_template(self._template).get("Parameters", {})
        own = {"EndpointUrls": self.endpoint_url, "EndpointKey": self._endpoint_key or LOCAL_KEY}
        parameters = {name: value for name, value in own.items() if name in declared} | self._parameters
        translation = translate(self._template, stack_name=self.stack_name, region=self.region, parameters=parameters)
        self._functions = deployment.functions(translation)
        self._sources = deployment.event_sources(translation, self._functions)
        self._schedules = deployment.schedules(translation, self._functions) if self._run_schedules else []
        self._scale_visibility(translation)
        self._translation = translation
        self._warm_functions()  # they import their packages while the resources are made
        self.outputs = deployment.create(translation, self.client)

    def _scale_visibility(self, translation: Translation) -> None:
        read = {source.queue_name for source in self._sources}
        for queue in translation.of_type("AWS::SQS::Queue"):
            if queue.name in read:
                properties = translation.template["Resources"][queue.logical_id]["Properties"]
                seconds = float(properties.get("VisibilityTimeout", 30)) * self._visibility_scale
                properties["VisibilityTimeout"] = max(1, round(seconds))

    def _warm_functions(self) -> None:
        assert self._aws is not None
        self._sandboxes = Sandboxes(
            aws_endpoint_url=self._aws.url,
            region=self.region,
            python=self._python,
            log_dir=self.state_dir / "logs",
            maximum=self._maximum_workers,
            surroundings=self._surroundings(),
        )
        self._sandboxes.start()
        self._ending.callback(self._sandboxes.stop)
        read = {source.function for source in self._sources}
        for function in self._functions.values():
            self._sandboxes.warm(function, self._warm if function in read else 1)

    def _start_functions(self) -> None:
        assert self._sandboxes is not None
        for function in self._functions.values():
            self._sandboxes.wait_warm(function)
        self._ending.callback(lambda: self._pump.stop() if self._pump else None)
        self._start_pump()

    def _start_pump(self) -> None:
        assert self._aws is not None
        assert self._sandboxes is not None
        self._pump = Pump(self._sandboxes, self._aws.locks, self._sources, self._schedules)
        self._pump.start()

    def _surroundings(self) -> dict[str, str]:
        """What every function gets besides its own environment."""
        product = self._template.resolve().parent / "shared"
        extra = {"PYTHONPATH": str(product)} if product.is_dir() else {}
        # Said even where no proxy is: without it, some systems have proxies of their own that clients would take.
        extra["NO_PROXY"] = loopback.no_proxy(self._bind, env=os.environ)
        if self._endpoint != "local":
            extra |= {name: os.environ[name] for name in _NETWORK_VARIABLES if name in os.environ}
        return extra

    # What the AWS stand-in asks of the stack.

    def _invoke_by_arn(self, arn: str, event: Mapping[str, Any]) -> None:
        assert self._pump is not None
        self._pump.invoke_async(self._function(parse_function_name(arn)), event)

    def _lambda_invocations(self, call: AwsCall, forward: Forward) -> Any:
        """Lambda's Invoke, which moto would run in Docker."""
        from werkzeug.wrappers import Response

        match = re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations/?", call.path)
        if call.service != "lambda" or not match or self._pump is None:
            return forward(call)
        try:
            function = self._function(parse_function_name(unquote(match.group(1))))
        except StackError as error:
            answer = json.dumps({"Type": "User", "Message": str(error)})
            return Response(answer, 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
        event = json.loads(call.body or b"{}")
        kind = call.environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if kind == "DryRun":
            return Response(status=204)
        if kind == "Event":
            self._pump.invoke_async(function, event)
            return Response(status=202)
        outcome = self._pump.invoke(function, event)
        headers = {"X-Amz-Executed-Version": "$LATEST"}
        if not outcome.ok:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return Response(json.dumps(outcome.payload, ensure_ascii=False), 200, headers, content_type="application/json")

    def _function(self, name: str) -> Function:
        for function in self._functions.values():
            if name in {function.logical_id, function.name}:
                return function
        raise StackError(f"the stack has no function {name}")

    def _queues(self) -> list[Resource]:
        assert self._translation is not None
        return list(self._translation.of_type("AWS::SQS::Queue"))

    def _depth(self, queue: Resource) -> dict[str, int]:
        from moto.sqs.models import sqs_backends

        assert self._aws is not None
        with self._aws.locks.of("sqs"):
            found = sqs_backends[ACCOUNT_ID][self.region].get_queue(queue.name)
            return {
                "visible": found.approximate_number_of_messages,
                "in_flight": found.approximate_number_of_messages_not_visible,
                "delayed": found.approximate_number_of_messages_delayed,
            }

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        return loopback.session(self.region).client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.aws_endpoint_url,
            config=Config(
                max_pool_connections=50, retries={"max_attempts": 2}, s3={"addressing_style": "path"}, proxies={}
            ),
        )


class _ModelEndpoint:
    """The local model endpoint as a child process, which ends with this process."""

    def __init__(self, python: str, bind: str, latency_scale: float, log_dir: Path, arguments: Sequence[str]) -> None:
        self._log_file = log_dir / "endpoint.log"
        self._log: IO[bytes] = self._log_file.open("ab")
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [
                *(python, "-m", "captions_cli.local.endpoint", "--host", bind, "--port", "0"),
                *("--latency-scale", str(latency_scale), "--exit-with-parent"),
                *("--log", str(log_dir / "endpoint-requests.jsonl")),
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )

    def wait(self) -> str:
        """Its base URL, once it listens. Raises StackError if it does not."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], MODEL_ENDPOINT_START_S)
        line = self._process.stdout.readline() if readable else b""
        try:
            url = str(json.loads(line)["url"])
        except (ValueError, KeyError) as error:
            said = self._log_file.read_text(errors="replace")[-2000:]
            raise StackError(f"the local model endpoint does not start: {said or 'it says nothing'}") from error
        return url.replace("//0.0.0.0:", "//127.0.0.1:")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Importing moto makes millions of objects that stay: looking for garbage among them took a third of the start."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _forget_everything() -> None:
    """Empty moto's backends."""
    from moto.core.base_backend import BackendDict
    from moto.core.model_instances import reset_model_data

    BackendDict.reset()
    reset_model_data()
