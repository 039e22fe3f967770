"""The console of a stack whose API takes signed requests (`Api=iam`), on this machine: a proxy that signs them."""

from __future__ import annotations

import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import uvicorn
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from captions_api.access import Caller, Door, Tokens
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

PASSED_ON = ("accept", "content-type", "if-match", "if-none-match", "idempotency-key", "range")
"""A request's headers that the API knows; cookies and the token of this machine are none of its business."""
KEPT_BACK = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})
SECONDS = 130
"""How long an answer is waited for: API Gateway ends it after 120."""


class SigningProxy:
    """Passes requests on to the API, signed with the credentials of a boto3 session (Signature Version 4)."""

    def __init__(self, api_url: str, credentials: Any, region: str) -> None:
        self._url = api_url.rstrip("/")
        self._stage = urlsplit(self._url).path
        self._credentials = credentials
        self._region = region
        # Answers come as they are sent, compressed or not.
        self._client = httpx2.AsyncClient(timeout=SECONDS, headers={"accept-encoding": "identity"})

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            answer = await self._client.send(self._signed(request, await request.body()), stream=True)
        except httpx2.TransportError as error:
            problem = {"title": "Not available", "status": 502, "detail": f"the API does not answer: {error}"}
            return JSONResponse(problem, 502, media_type="application/problem+json")
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in KEPT_BACK}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose)
        )

    def _signed(self, request: Request, body: bytes) -> httpx2.Request:
        # The page names its files with the stage before them.
        path = request.scope["raw_path"].decode("latin-1").removeprefix(f"{self._stage}/")
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = f"{self._url}/{path.lstrip('/')}{query}"
        asked = AWSRequest(request.method, url, headers, data=body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(asked)
        return self._client.build_request(request.method, url, headers=dict(asked.headers), content=body)


def application(proxy: SigningProxy, token: str, port: int) -> ASGIApp:
    """Return the proxy behind the door of the local stack's own console: only whoever has the token gets through."""
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    known = Tokens({token: Caller("local")})
    app = Starlette(routes=[Route("/{path:path}", proxy.answer, methods=methods)])
    return Door(app, known, known, frozenset({f"127.0.0.1:{port}", f"localhost:{port}"}))


def serve(api_url: str, credentials: Any, region: str, port: int, announce: Any) -> None:
    """Serve on loopback until Ctrl-C; `announce` is called with the address for a browser.

    Raises OSError when the port is taken.
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        token = secrets.token_urlsafe(24)
        port = listener.getsockname()[1]
        app = application(SigningProxy(api_url, credentials, region), token, port)
        announce(f"http://127.0.0.1:{port}/?token={token}")
        config = uvicorn.Config(app, access_log=False, log_level="warning", server_header=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])
