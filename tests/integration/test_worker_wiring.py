"""The worker as its function's environment builds it."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from captions import composition, telemetry
from captions.aws import clients
from captions.gateway import Media, Request
from captions_cli.local.model_endpoint import LocalEndpoint
from support.pipeline import REGION, Aws

MODEL = "Qwen/Qwen3-VL-8B-Instruct"


@pytest.fixture
def secret(aws: Aws) -> Any:
    manager = boto3.client("secretsmanager", region_name=REGION)
    return manager, manager.create_secret(Name="endpoint", SecretString="sk-old")["ARN"]


@pytest.fixture
def rotating(aws: Aws, secret: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoint]:
    """An endpoint that takes the new key alone, and the environment of a function that knows it."""
    with LocalEndpoint(latency_scale=0.0, keys=["sk-new"]) as endpoint:
        for name, value in {
            "AWS_DEFAULT_REGION": REGION,
            "CAPTIONS_TABLE": "captions",
            "FINGERPRINTS_TABLE": "fingerprints",
            "CONTROL_TABLE": "control",
            "UPLOADS_QUEUE_URL": aws.uploads_queue,
            "IMAGE_QUEUE_URL": aws.image_queue,
            "AUDIO_QUEUE_URL": aws.audio_queue,
            "EVENT_BUS_NAME": "captions",
            "ENDPOINT_URLS": endpoint.url,
            "ENDPOINT_SECRET_ARN": secret[1],
            "IMAGE_MODELS": MODEL,
        }.items():
            monkeypatch.setenv(name, value)
        caches = (clients.client, composition._provider, composition._workers)
        for cache in caches:
            cache.cache_clear()
        yield endpoint
        for cache in caches:
            cache.cache_clear()


def test_a_rotated_key_is_read_from_secrets_manager_without_a_deploy(
    rotating: LocalEndpoint, secret: Any, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, arn = secret
    gateway = composition.worker().gateway
    counted: list[str] = []
    monkeypatch.setattr(telemetry, "count", counted.append)

    async def caption() -> str:
        request = Request("Be brief.", "What is it?", (Media("image", "image/jpeg", photo),))
        return (await gateway.complete(request, [MODEL], deadline=time.monotonic() + 30.0)).text

    async def before_and_after() -> list[str]:
        manager.put_secret_value(SecretId=arn, SecretString="sk-old")
        await gateway._keys.key(rotating.url)  # the old key is the one that is held
        manager.put_secret_value(SecretId=arn, SecretString="sk-new")
        texts = [await caption(), await caption()]
        await gateway.aclose()
        return texts

    assert all(asyncio.run(before_and_after()))
    assert [entry["status"] for entry in rotating.requests()] == [401, 200, 200]
    assert "EndpointAccountProblem" not in counted


def test_a_policy_override_changes_models_and_budgets_and_a_broken_one_changes_nothing(
    rotating: LocalEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssm = boto3.client("ssm", region_name=REGION)
    monkeypatch.setenv("POLICY_OVERRIDE", "/captions/policy")
    asyncio.set_event_loop(asyncio.new_event_loop())  # as the handlers do, for the life of the sandbox
    counted: list[str] = []
    monkeypatch.setattr(telemetry, "count", counted.append)

    def later(text: str) -> Any:
        """Put a document in its place, and let the time pass until it is read again."""
        ssm.put_parameter(Name="/captions/policy", Value=text, Type="String", Overwrite=True)
        if composition._workers._built:
            monkeypatch.setattr(composition._workers()._policies, "_read_at", None)
        return composition.worker()

    worker = later("a = [")
    assert worker.policy.tiers["easy"].models == (MODEL,)  # the template's parameter holds
    assert counted == ["PolicyOverrideBroken"]
    first = worker.gateway
    worker = later('[tiers.easy]\nmodels = ["GLM-4.5V"]\n[budgets]\ndaily = 2.5')
    assert (worker.policy.tiers["easy"].models, worker.policy.tiers["hard"].models) == (("GLM-4.5V",), (MODEL,))
    assert worker.gateway is not first  # with the new budget
    worker = later('[tiers.easy]\nmodels = ["GPT-5x"]')
    assert worker.policy.tiers["easy"].models == ("GLM-4.5V",)
    assert counted == ["PolicyOverrideBroken", "PolicyOverrideBroken"]
