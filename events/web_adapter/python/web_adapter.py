"""Stands in for Lambda Web Adapter in a container that cannot have its layer: an event of API Gateway's (REST, proxy
integration) becomes a request to what the function's own run.sh serves, and the answer becomes a proxy response.

The adapter streams an answer; this one waits for its end. Source of the two shapes: API Gateway developer guide,
"Lambda proxy integrations"; of the header, the adapter's documentation, "Lambda context and request context".
"""

import base64
import contextlib
import http.client
import json
import os
import subprocess
import time
from typing import Any
from urllib.parse import urlencode

PORT = int(os.environ["AWS_LWA_PORT"])
READY_SECONDS = 60
_server = subprocess.Popen([os.path.join(os.environ["LAMBDA_TASK_ROOT"], "run.sh")])  # noqa: S603 - as the adapter does


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Ask the application, once it is ready, and return what it answers, always in base64."""
    _wait(time.monotonic() + READY_SECONDS)
    headers = http.client.HTTPMessage()
    for name, values in (event.get("multiValueHeaders") or {}).items():
        for value in values:
            headers.add_header(name, value)
    del headers["x-amzn-request-context"]  # whoever sends it is not the gateway
    headers.add_header("x-amzn-request-context", json.dumps(event["requestContext"]))
    query = urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True)
    body = event.get("body") or ""
    data = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    status, answered, content = _ask(event["httpMethod"], f"{event['path']}?{query}".rstrip("?"), headers, data)
    return {
        "statusCode": status,
        "multiValueHeaders": answered,
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }


def _ask(method: str, path: str, headers: http.client.HTTPMessage, data: bytes) -> tuple[int, dict[str, Any], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in ("host", "content-length", "transfer-encoding"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        answer = connection.getresponse()
        named = {name.lower(): answer.headers.get_all(name) for name in answer.headers}
        return answer.status, named, answer.read()
    finally:
        connection.close()


def _wait(until: float) -> None:
    path = os.environ["AWS_LWA_READINESS_CHECK_PATH"]
    while time.monotonic() < until:
        if _server.poll() is not None:
            raise RuntimeError(f"run.sh ended with {_server.returncode}")
        with contextlib.suppress(OSError):
            if _ask("GET", path, http.client.HTTPMessage(), b"")[0] == 200:
                return
        time.sleep(0.02)
    raise TimeoutError(f"the application is not ready after {READY_SECONDS} s")
