"""What runs on this machine is reached past proxies and AWS configuration."""

import json
import urllib.request
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ProfileNotFound

from captions_cli import loopback
from captions_cli.stack import LocalState, connect_local
from support.serving import QuietHandler, serving

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def url() -> Iterator[str]:
    class Answering(QuietHandler):
        def do_HEAD(self) -> None:
            body = json.dumps({"path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD

    with serving(HTTPServer(("127.0.0.1", 0), Answering)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_proxy_does_not_stand_between_the_command_and_the_local_endpoint(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)

    with loopback.urlopen(urllib.request.Request(f"{url}/models"), timeout=10) as answer:
        assert json.load(answer) == {"path": "/models"}


def test_the_local_stack_is_asked_without_proxy_or_profile(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    stack = connect_local(LocalState(1, url, f"{url}/v1", "media-captions", "us-east-1", "media", ""))

    stack.client("s3").head_object(Bucket="media", Key="photo.jpg")

    with pytest.raises(ProfileNotFound):
        boto3.Session()


@pytest.mark.parametrize(
    ("env", "needed"),
    [
        ({}, {}),
        ({"HTTP_PROXY": NOWHERE}, {"NO_PROXY": "127.0.0.1,localhost"}),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "10.0.0.1"}, {"NO_PROXY": "10.0.0.1,127.0.0.1,localhost"}),
        ({"http_proxy": NOWHERE, "no_proxy": "10.0.0.1"}, {"no_proxy": "10.0.0.1,127.0.0.1,localhost"}),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "localhost,127.0.0.1"}, {}),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "*"}, {}),
    ],
)
def test_other_programs_are_told_to_leave_the_proxy_out_where_there_is_one(
    env: dict[str, str], needed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert loopback.proxy_exception("http://127.0.0.1:4566") == needed
