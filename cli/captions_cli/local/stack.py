"""The whole stack on one machine: `LocalStack`."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from captions_cli import loopback
from captions_cli.local import web_server
from captions_cli.local.aws.alarms import Alarms, LoggedMetrics
from captions_cli.local.aws.cross_origin import CrossOrigin
from captions_cli.local.aws.events import EventRouter, Unreliability, parse_function_name
from captions_cli.local.aws.limits import ServiceLimits, partition_key
from captions_cli.local.aws.repairs import MotoRepairs
from captions_cli.local.aws.repairs.message_moves import MessageMoveTasks
from captions_cli.local.aws.server import AwsCall, AwsEndpoint, Forward, Interceptor
from captions_cli.local.child_server import ChildServer
from captions_cli.local.cloudformation.api import CloudFormation
from captions_cli.local.cloudformation.artifacts import Artifacts
from captions_cli.local.cloudformation.deployment import Deployment, Deployments
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, CODE_BUCKET, CODE_KEY, Translation
from captions_cli.local.cloudformation.translate import load_template, translate
from captions_cli.local.errors import StackError
from captions_cli.local.lambda_runtime.sandboxes import Function, InvocationOutcome, Sandboxes
from captions_cli.local.model_endpoint import embedding
from captions_cli.local.options import Address, ModelOptions, WorkerOptions

LOGGER = logging.getLogger(__name__)

LOCAL_KEY = "local-endpoint-needs-no-key"
# What a function needs of the surroundings to reach a real model endpoint: certificates and proxies.
_NETWORK_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")

_API_FUNCTION = "ApiFunction"

# moto keeps its state in the process: one stack at a time.
_process_holds_a_stack = threading.Lock()


class LocalStack:
    """The template's resources in an AWS stand-in, its functions in processes, and a model endpoint.

    Without a template there is nothing at first but the AWS APIs, for `sam deploy` in any region, and the endpoint.
    `parameters` overrides the template's. `unreliability` makes EventBridge do what it may: deliver every event twice,
    in another order. `interceptors` see every call to the AWS APIs first, and may answer it.
    `serve_api` serves the API, whose address is then `api.url`. `lock` is the descriptor of the state directory's lock
    where whoever started this process has taken it for it, and written down its id. Usable as a context manager.

    Raises StackError from `start` when the template cannot be brought up, the port is taken, or another stack is up.
    """

    def __init__(
        self,
        template: Path | None,
        *,
        stack_name: str = "media-captions",
        region: str = "us-east-1",
        state_dir: Path | None = None,
        parameters: Mapping[str, str] | None = None,
        model: ModelOptions = ModelOptions(),  # noqa: B008 - frozen, as are the others
        workers: WorkerOptions = WorkerOptions(),  # noqa: B008
        address: Address = Address(),  # noqa: B008
        unreliability: Unreliability = Unreliability(),  # noqa: B008
        interceptors: Sequence[Interceptor] = (),
        serve_api: bool = False,
        lock: int | None = None,
    ) -> None:
        self._template = None if template is None else Path(template)
        self.stack_name = stack_name
        self.region = region
        self._state_dir = state_dir
        self._parameters = dict(parameters or {})
        self._model = model
        self._workers = workers
        self._address = address
        self._unreliability = unreliability
        self._interceptors = list(interceptors)
        self._cross_origin = CrossOrigin()
        self._alarms = Alarms(lambda queue, region: self._depth(queue, region)["visible"])
        self._serve_api = serve_api
        self._given_lock = lock
        self.api: web_server.WebServer | None = None
        self._ending = contextlib.ExitStack()
        self._clients: dict[tuple[str, str], Any] = {}
        self._sessions: dict[str, Any] = {}
        self._clients_guard = threading.Lock()
        self._translation: Translation | None = None
        self._nested: tuple[Translation, ...] = ()
        self._sandboxes: Sandboxes | None = None
        self._router: EventRouter | None = None
        self._deployments: Deployments | None = None
        self._cloudformation: CloudFormation | None = None
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

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client of this stack's region, or of another."""
        wanted = (service, region or self.region)
        with self._clients_guard:
            if wanted not in self._clients:
                self._clients[wanted] = self._new_client(*wanted)
            return self._clients[wanted]

    def coverage(self) -> list[tuple[str, str, str, str]]:
        """For each resource: logical id, type, created / repaired / not emulated, and what that means."""
        resources = self._translation.resources.values() if self._translation else ()
        return [(r.logical_id, r.type, r.treatment.treatment, r.treatment.note) for r in resources]

    def workers(self) -> list[tuple[str, int]]:
        """The function (logical id) and process id of each worker process."""
        return self._sandboxes.workers() if self._sandboxes else []

    def state(self) -> dict[str, Any]:
        """Return what its state file tells (captions_cli.stack)."""
        return {
            "pid": os.getpid(),
            "aws_endpoint_url": self.aws_endpoint_url,
            "model_endpoint_url": self.endpoint_url,
            "stack_name": self.stack_name,
            "region": self.region,
            "bucket": self.outputs.get("MediaBucketName", ""),
            "api_url": self.api.url if self.api else "",
            "api_token": self.api.token if self.api else "",
            "bind": self._address.bind,
            "latency_scale": self._model.latency_scale,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def kill_worker(self, pid: int) -> None:
        """`kill -9` one worker process. Raises StackError if it is none of the stack's."""
        if pid not in {worker for _, worker in self.workers()}:
            raise StackError(f"{pid} is no worker of this stack")
        os.kill(pid, 9)

    def restart_pump(self) -> None:
        """End the pump and its workers as a crash would, and start new ones: what they held comes back to its queue."""
        assert self._deployments is not None
        self._deployments.crash()

    def invoke(self, function: str, event: Any) -> InvocationOutcome:
        """Invoke a function by logical id or name, synchronously."""
        deployment, function_resource = self._function(function)
        assert deployment.pump is not None
        return deployment.pump.invoke(function_resource, event)

    def queue_depths(self) -> dict[str, dict[str, int]]:
        """Messages of each queue, those of nested stacks too, by its logical id: visible, in flight, delayed."""
        assert self._translation is not None
        of_all = (self._translation, *self._nested)
        queues = [queue for translation in of_all for queue in translation.of_type("AWS::SQS::Queue")]
        return {queue.logical_id: self._depth(queue.name, self.region) for queue in queues}

    def idle(self) -> bool:
        """Whether nothing is left to do: no event on its way, no message on a queue that is read, no invocation."""
        assert self._router is not None
        assert self._deployments is not None
        deployments = self._deployments.all()
        if self._router.pending() or any(d.pump is not None and d.pump.working() for d in deployments):
            return False
        read = {(source.queue_name, source.region) for deployment in deployments for source in deployment.sources}
        return not any(sum(self._depth(name, region).values()) for name, region in read)

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
        model = self._start_model_endpoint() if self._model.url is None else None
        self._start_aws()
        self.endpoint_url = model.wait().replace("//0.0.0.0:", "//127.0.0.1:") if model else self._model.url or ""
        self._start_deployments()
        if self._template is not None:
            self._create(self._template)

    def _lock(self) -> None:
        if not _process_holds_a_stack.acquire(blocking=False):
            raise StackError("this process runs a local stack already")
        self._ending.callback(_process_holds_a_stack.release)
        if self._state_dir is None:
            self._state_dir = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="captions-")))
        (self._state_dir / "logs").mkdir(parents=True, exist_ok=True)
        self._alarms.metrics = LoggedMetrics(self._state_dir / "logs")
        if self._given_lock is not None:
            os.set_inheritable(self._given_lock, False)
            self._ending.callback(os.close, self._given_lock)
            return
        lock = self._ending.enter_context((self._state_dir / "lock").open("a+", encoding="ascii"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise StackError(f"a local stack is up already (process {lock.read().strip()})") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _start_model_endpoint(self) -> ChildServer:
        logs = self.state_dir / "logs"
        arguments = [
            *(self._workers.python, "-m", "captions_cli.local.model_endpoint"),
            *("--host", self._address.bind, "--port", "0", "--latency-scale", str(self._model.latency_scale)),
            *("--exit-with-parent", "--log", str(logs / "endpoint-requests.jsonl"), *self._model.arguments),
        ]
        endpoint = ChildServer("the local model endpoint", arguments, os.environ, logs / "endpoint.log")
        self._ending.callback(endpoint.stop)
        return endpoint

    def _start_aws(self) -> None:
        moves = MessageMoveTasks()
        self._cloudformation = CloudFormation(
            lambda region, service: self.client(service, region), self._deployed, self._removed
        )
        self._aws = AwsEndpoint(
            interceptors=[
                *self._interceptors,
                self._cross_origin,
                self._cloudformation,
                self._alarms,
                moves,
                self._lambda_invocations,
                ServiceLimits(partition_key),
            ]
        )
        moves.locks = self._aws.locks
        self._router = EventRouter(self._aws.locks, self._invoke_by_arn, self._unreliability)
        repairs = MotoRepairs(self._aws.locks, self._router)
        repairs.queue_changed = lambda: self._deployments.wake() if self._deployments else None
        repairs.install()
        self._ending.callback(repairs.remove)
        _forget_everything()
        self._ending.callback(_forget_everything)
        self._aws.start(self._address.bind, self._address.port)
        self._ending.callback(self._aws.stop)
        self._router.start()
        self._ending.callback(self._router.stop)

    def _start_deployments(self) -> None:
        assert self._aws is not None
        product = self._template.resolve().parent / "shared" if self._template is not None else None
        if product is not None and not product.is_dir():
            product = None
        self._sandboxes = Sandboxes(
            aws_endpoint_url=self._aws.url,
            log_dir=self.state_dir / "logs",
            maximum=self._workers.most,
            surroundings=self._surroundings(),
            clock_skew_s=self._workers.clock_skew_s,
            forks_of=self._workers.python if product is not None and self._workers.warm else None,
        )
        self._sandboxes.start()
        self._ending.callback(self._sandboxes.stop)
        self._deployments = Deployments(
            self._sandboxes,
            self._aws.locks,
            uploaded=Artifacts(Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="captions-code-")))),
            s3=lambda region: self.client("s3", region),
            python=self._workers.python,
            product=product,
            run_schedules=self._workers.schedules,
            visibility_s=self._workers.visibility_s,
        )
        self._ending.callback(self._deployments.stop)
        assert self._cloudformation is not None
        self._ending.callback(self._cloudformation.stop)

    def _create(self, template: Path) -> None:
        assert self._sandboxes is not None
        assert self._deployments is not None
        assert self._cloudformation is not None
        declared = load_template(template).get("Parameters", {})
        own = {"EndpointUrls": self.endpoint_url, "EndpointKey": self._model.key or LOCAL_KEY, "LogLevel": "DEBUG"}
        if self._serve_api:
            own["Api"] = "iam"
        if self._model.url is None:
            own |= {"EmbeddingModel": "local/letters", "EmbeddingDimensions": str(embedding.DIMENSIONS)}
        parameters = {name: value for name, value in own.items() if name in declared} | self._parameters
        translation = translate(template, stack_name=self.stack_name, region=self.region, parameters=parameters)
        self._translation = translation
        prepared = self._deployments.prepare(translation)
        read = {source.function for source in prepared.sources}
        early = [function for function in prepared.functions.values() if self._workers.warm]
        for function in early:  # they import their packages while the resources are made
            self._sandboxes.warm(function, self._workers.warm if function in read else 1)
        self._upload_stand_in()
        self._cloudformation.create(translation)  # whose outputs `_deployed` takes
        for function in early:
            self._sandboxes.wait_warm(function)
        api = self._deployments.find(_API_FUNCTION)
        if self._serve_api and api is not None:  # another template has no captions to show
            self._start_api(api[1])

    def _start_api(self, function: Function) -> None:
        """Serve the API on loopback, with the settings that its function has in AWS."""
        assert self._sandboxes is not None
        variables = self._sandboxes.environment(function) | web_server.IN_PLACE_OF_API_GATEWAY
        self.api = web_server.WebServer(self._workers.python, variables, self.state_dir / "logs", self._address.bind)
        self._ending.callback(self.api.stop)
        # Uploads go from the console's page to the bucket itself.
        self._cross_origin.origins.add(self.api.wait())

    def _upload_stand_in(self) -> None:
        """Lambda wants an archive to point at; the code itself runs from the source tree."""
        location = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        configuration = {"CreateBucketConfiguration": location} if location else {}
        s3 = self.client("s3")
        s3.create_bucket(Bucket=CODE_BUCKET, **configuration)
        s3.put_object(Bucket=CODE_BUCKET, Key=CODE_KEY, Body=b"")

    def _surroundings(self) -> dict[str, str]:
        """What every function gets besides its own environment."""
        # Said even where no proxy is: without it, some systems have proxies of their own that clients would take.
        extra = {"NO_PROXY": loopback.no_proxy(self._address.bind, env=os.environ)}
        if self._model.url is not None:
            extra |= {name: os.environ[name] for name in _NETWORK_VARIABLES if name in os.environ}
        return extra

    # What the AWS stand-in asks of the stack.

    def _deployed(self, translations: Sequence[Translation]) -> None:
        assert self._deployments is not None
        self._deployments.deploy(translations)
        translation = translations[0]
        if self._translation is not None and translation.stack_id == self._translation.stack_id:
            self._translation, self._nested = translation, tuple(translations[1:])
            self.outputs = dict(translation.outputs)

    def _removed(self, translation: Translation) -> None:
        assert self._deployments is not None
        self._deployments.remove(translation)

    def _invoke_by_arn(self, arn: str, event: Mapping[str, Any]) -> None:
        deployment, function = self._function(parse_function_name(arn), arn.split(":")[3])
        assert deployment.pump is not None
        deployment.pump.invoke_async(function, event)

    def _lambda_invocations(self, call: AwsCall, forward: Forward) -> Any:
        """Lambda's Invoke, which moto would run in Docker."""
        from werkzeug.wrappers import Response

        match = re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations/?", call.path)
        if call.service != "lambda" or not match or self._deployments is None:
            return forward(call)
        try:
            deployment, function = self._function(parse_function_name(unquote(match.group(1))), call.region)
        except StackError as error:
            answer = json.dumps({"Type": "User", "Message": str(error)})
            return Response(answer, 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
        assert deployment.pump is not None
        event = json.loads(call.body or b"{}")
        kind = call.environ.get("HTTP_X_AMZ_INVOCATION_TYPE", "RequestResponse")
        if kind == "DryRun":
            return Response(status=204)
        if kind == "Event":
            deployment.pump.invoke_async(function, event)
            return Response(status=202)
        outcome = deployment.pump.invoke(function, event)
        headers = {"X-Amz-Executed-Version": "$LATEST"}
        if not outcome.ok:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return Response(json.dumps(outcome.payload, ensure_ascii=False), 200, headers, content_type="application/json")

    def _function(self, name: str, region: str | None = None) -> tuple[Deployment, Function]:
        assert self._deployments is not None
        resource = self._deployments.find(name, region)
        if resource is None:
            raise StackError(f"the stack has no function {name}")
        return resource

    def _depth(self, queue: str, region: str) -> dict[str, int]:
        from moto.sqs.models import sqs_backends

        assert self._aws is not None
        with self._aws.locks.of("sqs"):
            backend = sqs_backends[ACCOUNT_ID][region].get_queue(queue)
            return {
                "visible": backend.approximate_number_of_messages,
                "in_flight": backend.approximate_number_of_messages_not_visible,
                "delayed": backend.approximate_number_of_messages_delayed,
            }

    def _new_client(self, service: str, region: str) -> Any:
        from botocore.config import Config

        if region not in self._sessions:  # one reads the services' descriptions once for all its clients
            self._sessions[region] = loopback.session(region)
        return self._sessions[region].client(
            service,
            endpoint_url=self.aws_endpoint_url,
            config=Config(
                max_pool_connections=50, retries={"max_attempts": 2}, s3={"addressing_style": "path"}, proxies={}
            ),
        )


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
