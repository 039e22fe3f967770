"""AWS's APIs on one port: moto's backends behind an HTTP/1.1 server, with one lock per service.

moto is not thread-safe: without locks, eight threads lost updates in DynamoDB and received SQS messages twice. A
request passes a chain of interceptors before it reaches moto; what moto lacks is answered there.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from captions_cli.local.aws.http import HttpAnswer, HttpServer
from captions_cli.local.cloudformation.resources import ACCOUNT_ID

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response

LOGGER = logging.getLogger(__name__)

# Signing names that differ from moto's name of the service.
_SIGNING_ALIASES = {"monitoring": "cloudwatch", "eventbridge": "events"}


@dataclass(frozen=True)
class AwsCall:
    """One request to one service."""

    service: str
    region: str
    environ: WSGIEnvironment
    body: bytes
    request_id: str = field(default_factory=lambda: secrets.token_hex(8).upper())

    @property
    def action(self) -> str:
        """The operation of a JSON protocol (X-Amz-Target) or the query protocol's Action; empty for REST services."""
        if target := self.environ.get("HTTP_X_AMZ_TARGET"):
            return str(target).rpartition(".")[2]
        if b"Action=" in self.body and "urlencoded" in str(self.environ.get("CONTENT_TYPE", "")):
            return dict(parse_qsl(self.body.decode())).get("Action", "")
        return ""

    @property
    def path(self) -> str:
        """The path as it arrived, percent-encoded."""
        return str(self.environ.get("RAW_URI") or self.environ.get("PATH_INFO", "/")).split("?", 1)[0]

    @property
    def query(self) -> dict[str, str]:
        """The query string's fields."""
        return dict(parse_qsl(str(self.environ.get("QUERY_STRING", "")), keep_blank_values=True))


Forward = Callable[[AwsCall], "Response"]


class Interceptor(Protocol):
    """Answers a call itself, or passes it on."""

    def __call__(self, call: AwsCall, forward: Forward, /) -> Response:
        """Return the answer to a call; `forward` is whoever would answer it otherwise."""
        ...


class ServiceLocks:
    """One re-entrant lock per service."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Condition] = {}

    def of(self, service: str) -> threading.Condition:
        """The service's lock, as a condition so that long polls can wait without holding it."""
        with self._guard:
            return self._locks.setdefault(service, threading.Condition(threading.RLock()))


# The call that the current thread is answering; moto's backends do not know who called them.
current_call: contextvars.ContextVar[AwsCall | None] = contextvars.ContextVar("current_call", default=None)


class AwsEndpoint:
    """moto's services on one port.

    `start` raises StackError if the port is taken.
    """

    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self.locks = ServiceLocks()
        self.url = ""
        self._handle: Forward = self._moto
        for interceptor in reversed(interceptors):
            self._handle = _chained(interceptor, self._handle)
        self._routes: dict[str, list[tuple[re.Pattern[str], Callable[..., Any]]]] = {}
        self._routes_guard = threading.Lock()
        self._server: HttpServer | None = None

    def start(self, bind: str = "127.0.0.1", port: int = 0) -> str:
        """Serve on `bind`:`port` (0: any free port); returns the URL clients on this machine use."""
        self._server = HttpServer(self._answer)
        bound = self._server.start(bind, port)
        host = "127.0.0.1" if bind in {"0.0.0.0", "::", ""} else bind
        self.url = f"http://{host}:{bound}"
        return self.url

    def stop(self) -> None:
        """Stop serving and close the port."""
        if self._server is not None:
            self._server.stop()

    def _answer(self, environ: WSGIEnvironment, body: bytes) -> HttpAnswer:

        call = _parse(environ, body)
        token = current_call.set(call)
        try:
            response = self._handle(call)
        except Exception as error:
            # What a service answers when it fails inside; SDKs retry it. The traceback belongs to the stack's log.
            LOGGER.exception("aws_call_failed service=%s action=%s path=%s", call.service, call.action, call.path)
            response = _failure(call, error)
        finally:
            current_call.reset(token)
        response.headers.setdefault("x-amzn-RequestId", call.request_id)
        response.headers.setdefault("Date", formatdate(usegmt=True))
        return HttpAnswer(response.status, list(response.headers.items()), response.get_data())

    def _moto(self, call: AwsCall) -> Response:
        from botocore.exceptions import ClientError
        from moto.core.request import Request
        from werkzeug.wrappers import Response

        request = Request(call.environ)
        request.from_wsgi_server = True
        handler = self._route(call.service, call.path)
        if handler is None:
            return Response(f"the local stack emulates no such call of {call.service}", status=501)
        with self.locks.of(call.service):
            try:
                answer = handler(request, request.raw_url, dict(request.headers))
            except ClientError as error:
                answer = (400, {}, error.response["Error"]["Message"])
        status, headers, body = answer if len(answer) == 3 else (200, {}, answer)
        response = Response(body, status=status, headers=headers)
        if request.method == "HEAD" and "content-length" in headers:
            response.headers["Content-Length"] = headers["content-length"]
        return response

    def _route(self, service: str, path: str) -> Callable[..., Any] | None:
        routes = self._routes.get(service)
        if routes is None:
            with self._routes_guard:
                routes = self._routes[service] = list(_moto_routes(service))
        return next((handler for pattern, handler in routes if pattern.match(path)), None)


def _failure(call: AwsCall, error: Exception) -> Response:
    """What went wrong inside, as the service's clients read it. What moto lacks is not tried again."""
    from werkzeug.wrappers import Response

    lacking = isinstance(error, NotImplementedError)
    code, status = ("NotImplemented", 501) if lacking else ("InternalFailure", 500)
    message = f"{type(error).__name__}: {error}"
    if call.environ.get("HTTP_X_AMZ_TARGET"):
        return Response(json.dumps({"__type": code, "message": message}), status, content_type="application/json")
    if call.service == "s3" or call.action:
        fields = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
        body = (
            f"<Error>{fields}</Error>"
            if call.service == "s3"
            else f"<ErrorResponse><Error>{fields}</Error></ErrorResponse>"
        )
        return Response(body, status, content_type="text/xml")
    headers = {"x-amzn-ErrorType": code}
    return Response(json.dumps({"message": message}), status, headers, content_type="application/json")


def _chained(interceptor: Interceptor, forward: Forward) -> Forward:
    return lambda call: interceptor(call, forward)


def _moto_routes(service: str) -> Iterator[tuple[re.Pattern[str], Callable[..., Any]]]:
    from moto import backends

    try:
        backend = backends.get_backend(service)  # type: ignore[call-overload,unused-ignore]
    except (KeyError, ImportError, ValueError):
        return
    regions = backend[ACCOUNT_ID]
    any_region = regions["us-east-1"] if "us-east-1" in regions else regions["aws"]
    for path, handler in any_region._url_module.url_paths.items():
        yield re.compile(path.replace("{0}", "")), handler


def _parse(environ: WSGIEnvironment, body: bytes) -> AwsCall:
    service, region = _service_and_region(environ)
    if service == "s3":
        _path_style(environ)
    return AwsCall(service, region, environ, body)


def _service_and_region(environ: WSGIEnvironment) -> tuple[str, str]:
    credential = ""
    authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
    if match := re.search(r"Credential=([^,\s]+)", authorization):
        credential = match.group(1)
    elif "X-Amz-Credential=" in str(environ.get("QUERY_STRING", "")):
        credential = dict(parse_qsl(environ["QUERY_STRING"]))["X-Amz-Credential"]
    scope = credential.split("/")
    if len(scope) < 5:
        return "s3", "us-east-1"  # unsigned, signature version 2 and browser forms are S3's
    service, region = scope[-2].lower(), scope[-3]
    if service == "dynamodb" and str(environ.get("HTTP_X_AMZ_TARGET", "")).startswith("DynamoDBStreams"):
        service = "dynamodbstreams"
    return _SIGNING_ALIASES.get(service, service), region


def _path_style(environ: WSGIEnvironment) -> None:
    """Turn a virtual-hosted request (bucket.localhost:4566/key) into a path-style one (localhost:4566/bucket/key)."""
    host, _, port = str(environ.get("HTTP_HOST", "")).partition(":")
    bucket, _, domain = host.rpartition(".localhost")
    if bucket and not domain:
        environ["HTTP_HOST"] = f"localhost:{port}" if port else "localhost"
        environ["PATH_INFO"] = f"/{bucket}{environ.get('PATH_INFO', '/')}"
        for raw in ("RAW_URI", "REQUEST_URI"):
            if raw in environ:
                environ[raw] = f"/{bucket}{environ[raw]}"
