"""What runs in a sandbox: loads one handler and serves it through the Lambda Runtime API.

Run by its path, with the function's environment alone, and with the standard library alone: nothing of the local stack
is imported into the process that the handler lives in. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import importlib
import json
import os
import sys
import threading
import time
import traceback
from typing import Any

_API = "/2018-06-01/runtime"
_true_time, _true_time_ns = time.time, time.time_ns


class LambdaContext:
    """The context object a handler gets (https://docs.aws.amazon.com/lambda/latest/dg/python-context.html)."""

    def __init__(self, request_id: str, function_arn: str, deadline_ms: int) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = function_arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.tenant_id = None
        self.identity = None
        self.client_context = None
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the runtime ends this invocation."""
        return max(0, int(self._deadline_ms - _true_time() * 1000))

    def log(self, message: object) -> None:
        """Write to the function's log."""
        sys.stdout.write(str(message))


class RuntimeApi:
    """The runtime's side of the API, over one connection that stays open."""

    def __init__(self, address: str) -> None:
        host, _, self._prefix = address.partition("/")
        self._prefix = f"/{self._prefix}{_API}" if self._prefix else _API
        self._connection = http.client.HTTPConnection(host)

    def next(self) -> tuple[dict[str, str], bytes]:
        """Wait for the next invocation; returns its headers (lower-case names) and the event."""
        self._connection.request("GET", f"{self._prefix}/invocation/next")
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(0)  # the stack has given this sandbox up
        return {name.lower(): value for name, value in response.getheaders()}, body

    def post(self, path: str, body: bytes, error_type: str = "") -> None:
        """Report a response or an error."""
        headers = {"Content-Type": "application/json"}
        if error_type:
            headers["Lambda-Runtime-Function-Error-Type"] = error_type
        self._connection.request("POST", f"{self._prefix}/{path}", body, headers)
        self._connection.getresponse().read()


def _end_with_parent() -> None:
    # The stack holds the other end of standard input and never writes. The pipe ends with the stack, however it ends.
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(0)


def _skew_clock(seconds: float) -> None:
    # What asks `datetime` for the time still gets the right one: signatures have to hold.
    time.time = lambda: _true_time() + seconds
    time.time_ns = lambda: _true_time_ns() + int(seconds * 1e9)


def _described(error: BaseException) -> tuple[str, bytes]:
    trace = traceback.format_exception(type(error), error, error.__traceback__)
    report = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": trace}
    sys.stderr.write("[ERROR] " + "".join(trace))
    sys.stderr.flush()
    return report["errorType"], json.dumps(report).encode()  # type: ignore[return-value]


def _load(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module.replace("/", ".")), attribute)


def main() -> None:
    """Initialise the handler, then serve invocations until the stack ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if skew := os.environ.pop("LOCAL_CLOCK_SKEW_S", ""):
        _skew_clock(float(skew))
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    gc.disable()  # what imports make stays: looking for garbage meanwhile only delays the start
    try:
        handler = _load(os.environ["_HANDLER"])
    except BaseException as error:
        error_type, report = _described(error)
        api.post("init/error", report, error_type)
        sys.exit(1)
    gc.enable()
    while True:
        headers, body = api.next()
        request_id = headers["lambda-runtime-aws-request-id"]
        os.environ["_X_AMZN_TRACE_ID"] = headers["lambda-runtime-trace-id"]
        context = LambdaContext(
            request_id,
            headers["lambda-runtime-invoked-function-arn"],
            int(headers["lambda-runtime-deadline-ms"]),
        )
        try:
            answer = json.dumps(handler(json.loads(body), context), ensure_ascii=False).encode()
        except Exception as error:
            error_type, report = _described(error)
            api.post(f"invocation/{request_id}/error", report, error_type)
        else:
            api.post(f"invocation/{request_id}/response", answer)
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main()
