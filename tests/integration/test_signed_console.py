"""`captions console`: the console of a stack whose API takes signed requests."""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Thread
from typing import Any

import boto3
import pytest
import uvicorn
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from captions_api.access import COOKIE
from moto import mock_aws
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from typer.testing import CliRunner

from captions_cli.main import app
from captions_cli.signed_console import SigningProxy, application

MINE = Credentials("AKIDEXAMPLE", "a secret", "a session")
SERVICE, REGION, PORT = "execute-api", "eu-west-1", 8765


def signature(request: Request, body: bytes, credentials: Credentials) -> str:
    """As AWS works it out, of what arrived."""
    given = request.headers["authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    signed = {name: request.headers[name] for name in names}
    path = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
    asked = AWSRequest(request.method, f"http://{request.headers['host']}{path}", signed, data=body)
    moment = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - signed as it is
    asked.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
    auth = SigV4Auth(credentials, SERVICE, REGION)
    return auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked)


async def api(request: Request) -> Response:
    """API Gateway with IAM's authorizer, and what it would pass on."""
    body = await request.body()
    if not request.headers.get("authorization", "").endswith(signature(request, body, MINE)):
        return JSONResponse({"message": "The request signature we calculated does not match"}, 403)
    if request.url.path.endswith("captions:stream"):

        async def events() -> AsyncIterator[bytes]:
            for part in (b"event: delta\n", b"data: {}\n\n"):
                yield part

        return StreamingResponse(events(), media_type="text/event-stream")
    sent = dict(request.headers)
    arrived = {"path": request.url.path, "query": request.url.query, "body": body.decode(), "headers": sent}
    return JSONResponse(arrived, headers={"ETag": '"1"', "Content-Security-Policy": "default-src 'none'"})


@contextmanager
def serving() -> Iterator[str]:
    app = Starlette(routes=[Route("/{rest:path}", api, methods=["GET", "POST", "PATCH"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/live"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as url:
        app = application(SigningProxy(url, Session(MINE), REGION), "the token", PORT)
        with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False) as made:
            yield made


class Session:
    """What boto3 calls credentials: they may be renewed meanwhile."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def get_frozen_credentials(self) -> Any:
        return self._credentials


def test_only_who_has_the_address_gets_to_sign(client: TestClient) -> None:
    assert client.get("/v1/assets").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/v1/assets", headers={"Host": "evil.example"}).status_code == 403
    entered = client.get("/?token=the token")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    foreign = {"Origin": "https://evil.example", "Cookie": f"{COOKIE}=the token"}
    assert client.post("/v1/uploads", headers=foreign).status_code == 403
    client.cookies.clear()


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/", "/live/"), ("/live/static/main-A.js", "/live/static/main-A.js"), ("/live/v1/assets", "/live/v1/assets"),
        ("/v1/assets/bWVkaWEvYS5qcGc/thumbnail", "/live/v1/assets/bWVkaWEvYS5qcGc/thumbnail"),
    ],
)  # fmt: skip
def test_requests_arrive_signed_and_without_what_is_this_machines(client: TestClient, path: str, arrives: str) -> None:
    headers = {"Authorization": "Bearer the token", "If-Match": '"1"', "Cookie": "x=y", "Idempotency-Key": "k"}
    answer = client.request("PATCH", f"{path}?q=a+%C3%A9%26b&limit=2", headers=headers, json={"text": "a é"})
    assert answer.status_code == 200, answer.text
    arrived = answer.json()
    assert (arrived["path"], arrived["query"]) == (arrives, "q=a+%C3%A9%26b&limit=2")
    assert arrived["body"] == '{"text":"a é"}'
    assert (arrived["headers"]["if-match"], arrived["headers"]["idempotency-key"]) == ('"1"', "k")
    assert "cookie" not in arrived["headers"]
    assert "the token" not in str(arrived["headers"])
    assert arrived["headers"]["x-amz-security-token"] == "a session"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-security-policy"] == "default-src 'none'"


def test_a_stream_is_passed_on_and_a_refusal_too(client: TestClient) -> None:
    token = {"Authorization": "Bearer the token"}
    assert client.post("/v1/captions:stream", headers=token).text == "event: delta\ndata: {}\n\n"
    with serving() as url:
        other = Session(Credentials("AKIDEXAMPLE", "another secret"))
        assert asked(url, other).status_code == 403
    gone = asked(url, Session(MINE))
    assert (gone.status_code, gone.headers["content-type"]) == (502, "application/problem+json")


def asked(url: str, credentials: Session) -> Any:
    app = application(SigningProxy(url, credentials, REGION), "t", PORT)
    with TestClient(app, base_url=f"http://localhost:{PORT}") as client:
        return client.get("/v1/assets", headers={"Authorization": "Bearer t"})


@pytest.mark.parametrize(
    ("api", "code", "words"),
    [("cognito", 0, "https://x.example/live"), ("iam", 2, "port {port} is not to be had"), ("off", 2, "has no API")],
)
def test_the_command_tells_where_the_console_is_or_serves_it(api: str, code: int, words: str, aws: None) -> None:
    template = {
        "Parameters": {"Api": {"Type": "String"}},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"ApiUrl": {"Value": "https://x.example/live"}},
    }
    boto3.client("cloudformation", region_name=REGION).create_stack(
        StackName="c",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "Api", "ParameterValue": api}],
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["--region", REGION, "--stack-name", "c", "console", "--port", port])
    assert done.exit_code == code
    assert words.format(port=port) in done.output


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield
