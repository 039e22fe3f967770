"""The bulk lane of the real template on one machine: captions from batches, though who looks after them is killed."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from captions import control_table
from captions.bulk.batch_table import BatchTable
from captions.bulk.protocol import SETTLING_SECONDS
from captions_cli.local import LocalStack
from captions_cli.local.cloudformation.translate import load_template
from captions_cli.local.options import ModelOptions
from captions_cli.main import app
from support.bulk import noise
from support.permissions import Witness, allowed
from support.small_stack import inside

ROOT = Path(__file__).parents[2]
BULK = load_template(ROOT / "bulk.yaml")["Resources"]
POLICY = "/captions/policy"
RULES = '[[rules]]\nprefix = "archive/"\nlane = "bulk"\n'


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(frozenset({"BulkFunction"}))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, witness: Witness) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("bulk")
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=home,
        parameters={
            "Bulk": "batches",
            "BulkGatherSeconds": "0",
            "PolicyOverride": POLICY,
            "ImageModels": "GPT-4o",
        },
        model=ModelOptions(latency_scale=0),
        interceptors=[witness],
    ) as running:
        (home / "stack.json").write_text(json.dumps(running.state()))
        running.client("ssm").put_parameter(Name=POLICY, Value=RULES, Type="String")
        yield running


@pytest.fixture
def captions(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("CAPTIONS_HOME", str(stack.state_dir))

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--output", "json"])
        assert done.exit_code in (0, 1), done.output
        return json.loads(done.stdout)

    return run


UNCONFIRMED_SECONDS = 45.0
"""After how long a batch that was created without an answer is listed for certain, by an endpoint on this machine."""


def look(stack: LocalStack, function: str) -> None:
    """Have the function look after its batches now, as its schedule does every minute."""
    control = stack.outputs["ControlTableName"]
    # Whoever was killed has the lease until its time-out would have ended it.
    stack.client("dynamodb").delete_item(TableName=control, Key=control_table.bulk_run())
    # One that was killed between storing that it would ask for a batch and asking for it leaves that to those who come
    # SETTLING_SECONDS later: of these the test waits for a part only.
    table = BatchTable(stack.client("dynamodb"), control, stack.client("s3"), inside(stack, "BulkLane")["BulkBucket"])
    for batch in table.batches():
        if batch.state == "submitting" and batch.at + UNCONFIRMED_SECONDS < time.time() < batch.at + SETTLING_SECONDS:
            table.move(batch, replace(batch, at=batch.at - SETTLING_SECONDS))
    stack.client("lambda").invoke(FunctionName=f"{function}:live", Payload=b"{}")


def captioned(item: dict[str, Any]) -> bool:
    return bool(item["state"]["S"] == "captioned")


def gathered(item: dict[str, Any]) -> bool:
    """Whether its lease is the lane's: those of functions at work are minutes long."""
    return "lease_until" in item and float(item["lease_until"]["N"]) > time.time() + 3_600


@pytest.mark.deep
def test_pictures_that_can_wait_are_captioned_from_batches_though_the_function_is_killed(
    stack: LocalStack, captions: Callable[..., Any], witness: Witness
) -> None:
    bucket, inner = stack.outputs["MediaBucketName"], inside(stack, "BulkLane")
    s3 = stack.client("s3")
    can_wait = ["archive/0.png", "archive/1.png", "old/2.png", "old/3.png"]
    events: dict[str, Any]
    for events, prefix in (({}, "old/"), ({"EventBridgeConfiguration": {}}, "archive/")):
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=events)
        for number, key in enumerate(can_wait):
            if key.startswith(prefix):
                s3.put_object(Bucket=bucket, Key=key, Body=noise(number))
    s3.put_object(Bucket=bucket, Key="now.png", Body=noise(99))
    assert captions("reconcile", "--bulk", "--prefix", "old/", "--older-than", "0")["sent"] == 2

    def records() -> dict[str, dict[str, Any]]:
        items = stack.client("dynamodb").scan(TableName=stack.outputs["CaptionsTableName"])["Items"]
        return {item["key"]["S"]: item for item in items}

    def count(what: Callable[[dict[str, Any]], bool]) -> int:
        return sum(what(item) for item in records().values())

    until = time.monotonic() + 270
    # A job whose gathering is killed comes again after half an hour: those that look after batches are killed here.
    while count(lambda record: "lane" in record and (gathered(record) or captioned(record))) < len(can_wait):
        assert time.monotonic() < until, captions("status")
        time.sleep(0.5)
    kills = 0
    while count(captioned) < len(can_wait) + 1:
        assert time.monotonic() < until, captions("status")
        looking = threading.Thread(target=look, args=(stack, inner["BulkFunction"]))
        looking.start()
        if kills < 4:
            time.sleep(0.3 * (kills + 1))
            for name, pid in stack.workers():
                if "Bulk" in name or "bulk" in name:
                    stack.kill_worker(pid)
                    kills += 1
        looking.join()
        time.sleep(0.2)
    assert kills >= 2
    look(stack, inner["BulkFunction"])

    with urllib.request.urlopen(f"{stack.endpoint_url.removesuffix('/v1')}/_local/requests") as answer:
        paid = [call for call in json.load(answer)["requests"] if call["outcome"] == "ok"]
    assert set(Counter(call["media_sha256"] for call in paid).values()) == {1}
    assert sum(call["batch"] is not None for call in paid) == len(can_wait)
    lanes = {key: "lane" in item for key, item in records().items()}
    assert lanes == dict.fromkeys(can_wait, True) | {"now.png": False}
    status = captions("status")
    assert status["bulk"]["waiting"]["number"] == 0
    batches = status["bulk"]["batches"]
    assert sum(batch["taken"] for batch in batches) == len(can_wait)
    assert {(batch["state"], batch["cost"] == batch["saved"]) for batch in batches} == {("closed", True)}
    assert status["queues"]["Bulk"]["visible"] == status["queues"]["BulkDeadLetter"]["visible"] == 0
    assert [finding["level"] for finding in captions("doctor") if finding["check"] == "bulk lane"]

    # It asked AWS for nothing that its role does not allow.
    short = {
        inner["BulkQueue"].rpartition("/")[2]: "BulkQueue",
        inner["BulkBucket"]: "BulkBucket",
    }
    asked = {(call.action, short.get(call.resource, "")) for call in witness.asked if call.function == "BulkFunction"}
    assert asked
    may = allowed(BULK, "BulkFunction")
    # The parameter's name is one of the template's parameters; PolicyParameterPolicy allows it alone.
    for action, resource in asked - {("ssm:GetParameter", "")}:
        assert action in {name for name, on in may if not resource or on == resource}, (action, resource)
