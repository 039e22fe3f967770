"""Fixtures of the pipeline on moto."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from captions_cli.local.model_endpoint import LocalEndpoint
from captions_cli.local.model_endpoint.hearing import Listeners
from support.pipeline import MEDIA, Aws, Dedupe, aws_for_the_pipeline, dedupe_on
from support.worker import Workshop, workshop


@pytest.fixture(scope="session", autouse=True)
def heard_once() -> Iterator[None]:
    """A recording is heard once, whichever endpoint is asked: starting a process that listens takes seconds."""
    ask, heard = Listeners.ask, dict[Any, str]()

    async def once_for_each_recording(self: Listeners, kind: str, data: bytes) -> dict[str, Any]:
        recording = (self._ear, self._max_audio_s, kind, hashlib.sha256(data).digest())
        if recording not in heard:
            heard[recording] = json.dumps(await ask(self, kind, data))
        answer: dict[str, Any] = json.loads(heard[recording])
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Listeners, "ask", once_for_each_recording)
        yield


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with aws_for_the_pipeline() as made:
        yield made


@pytest.fixture
def dedupe(aws: Aws) -> Dedupe:
    return dedupe_on(aws)


@pytest.fixture
def photo() -> bytes:
    return (MEDIA / "casa-mila.jpg").read_bytes()


@pytest.fixture
def other_photo() -> bytes:
    return (MEDIA / "perched-osprey.jpg").read_bytes()


@pytest.fixture
def speech() -> bytes:
    return (MEDIA / "block-books.wav").read_bytes()


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0) as running:
        yield running


@pytest.fixture(scope="module")
def _hearer() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0) as running:
        yield running


@pytest.fixture
def hearer(_hearer: LocalEndpoint) -> LocalEndpoint:
    """One endpoint for all tests of a file: it recognises the same recording only once."""
    _hearer.clear()
    return _hearer


@pytest.fixture
def shop(aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint) -> Workshop:
    return workshop(aws, dedupe, endpoint)
