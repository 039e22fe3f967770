"""The doors of the real template on one machine: programs are notified of captions as people would see it."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from captions_cli.local import LocalStack
from captions_cli.local.cloudformation.translate import load_template
from captions_cli.local.options import ModelOptions, WorkerOptions
from captions_cli.main import app
from support.permissions import Witness, allowed
from support.pipeline import MEDIA
from support.serving import serving
from support.small_stack import eventually, inside

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
DOORS = load_template(ROOT / "doors.yaml")["Resources"]
FUNCTIONS = frozenset(name for name, resource in DOORS.items() if resource["Type"] == "AWS::Serverless::Function")
WEBHOOKS = "/captions/webhooks"
POLICY = "/captions/policy"
RULES = """
[[write_back]]
prefix = "beside/"
to = ["sidecar", "xmp", "subtitles", "tags", "embed"]
copies = "copies/"
"""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("webhook_receiver", ROOT / "examples" / "webhook_receiver.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(FUNCTIONS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, witness: Witness) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("doors")
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=home,
        parameters={"Webhooks": WEBHOOKS, "WriteBack": "true", "PolicyOverride": POLICY},
        model=ModelOptions(latency_scale=0),
        workers=WorkerOptions(maximum=1),  # of each function
        interceptors=[witness],
    ) as running:
        (home / "stack.json").write_text(json.dumps(running.state()))
        for name, text in ((POLICY, RULES), (WEBHOOKS, "[endpoints]\n")):
            running.client("ssm").put_parameter(Name=name, Value=text, Type="String")
        yield running


@pytest.fixture
def captions(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("CAPTIONS_HOME", str(stack.state_dir))

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--output", "json"])
        assert done.exit_code in (0, 1), done.output
        return json.loads(done.stdout) if done.stdout.strip() else done.exit_code

    return run


def test_a_caption_and_what_a_person_makes_of_it_reach_an_endpoint_that_verifies(
    stack: LocalStack, captions: Callable[..., Any], witness: Witness, tmp_path: Path
) -> None:
    receiving = example()
    store = receiving.Store(str(tmp_path / "captions.sqlite"))
    inner = inside(stack, "Doors")
    with serving(receiving.receiver(SECRET, store)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        text = f'[endpoints.shop]\nurl = "{url}"\nprefixes = ["shop/"]\n[endpoints.off]\nurl = "{url}"\npaused = true\n'
        stack.client("ssm").put_parameter(Name=WEBHOOKS, Value=text, Type="String", Overwrite=True)
        stack.client("secretsmanager").put_secret_value(
            SecretId=inner["WebhookSecrets"], SecretString=json.dumps({"shop": [SECRET]})
        )
        assert [(row["name"], row["state"]) for row in captions("webhooks", "list")] == [
            ("shop", "ok"), ("off", "switched off"),
        ]  # fmt: skip
        assert captions("webhooks", "test", "shop")["ok"]

        bucket = stack.outputs["MediaBucketName"]
        for key, name in (("shop/casa.jpg", "casa-mila.jpg"), ("private/osprey.jpg", "perched-osprey.jpg")):
            stack.client("s3").put_object(Bucket=bucket, Key=key, Body=(MEDIA / name).read_bytes())
        asset = f"{bucket}/shop/casa.jpg"
        state, words_of_it = eventually(lambda: store.caption(asset))
        assert (state, bool(words_of_it)) == ("captioned", True)

        captions("edit", "shop/casa.jpg", "A house of stone waves")
        eventually(lambda: store.caption(asset) == ("captioned", "A house of stone waves"))
        assert store.caption(f"{bucket}/private/osprey.jpg") is None

        # A receiver that lost everything gets it again.
        store = receiving.Store(str(tmp_path / "again.sqlite"))
        server.RequestHandlerClass = receiving.receiver(SECRET, store).RequestHandlerClass
        today = time.strftime("%Y-%m-%d", time.gmtime())
        assert captions("webhooks", "replay", "shop", "--since", today, "--dry-run")["events"] == 2
        captions("webhooks", "replay", "shop", "--since", today)
        eventually(lambda: store.caption(asset) == ("captioned", "A house of stone waves"))

        stack.client("s3").delete_object(Bucket=bucket, Key="shop/casa.jpg")
        eventually(lambda: (store.caption(asset) or ("",))[0] == "deleted")
        assert stack.wait_idle(30)  # what comes after the receiver is gone is tried again for days

    control = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${ControlTableName}"
    witness.names |= {stack.outputs["ControlTableName"]: control}
    asked = {
        (call.action, {**witness.names, **{v.rpartition("/")[2]: k for k, v in inner.items()},
                       inner["WebhookSecrets"]: "WebhookSecrets"}.get(call.resource, call.resource))
        for call in witness.asked
        if call.function == "WebhooksFunction"
    }  # fmt: skip
    # The parameter's name is a parameter of the template; WebhooksParameterPolicy allows it alone (tests/template).
    assert asked - allowed(DOORS, "WebhooksFunction") == {("ssm:GetParameter", "?")}
    assert {"dynamodb:Query", "secretsmanager:GetSecretValue", "sqs:SendMessage"} <= {action for action, _ in asked}


def test_a_caption_and_a_persons_words_stand_beside_the_object_and_go_with_it(
    stack: LocalStack, captions: Callable[..., Any], witness: Witness
) -> None:
    bucket, s3 = stack.outputs["MediaBucketName"], stack.client("s3")

    def beside() -> set[str]:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix="beside/").get("Contents", [])
        return {entry["Key"].removeprefix("beside/") for entry in listed}

    def sidecar(name: str) -> Any:
        if f"{name}.caption.json" not in beside():
            return None
        return json.loads(s3.get_object(Bucket=bucket, Key=f"beside/{name}.caption.json")["Body"].read())

    for name in ("perched-osprey.jpg", "casa-mila.jpg"):
        s3.put_object(Bucket=bucket, Key=f"beside/{name}", Body=(MEDIA / name).read_bytes())
    made = eventually(lambda: sidecar("perched-osprey.jpg"), 60)
    eventually(lambda: sidecar("casa-mila.jpg"), 60)
    assert made["text"]

    def tags() -> set[str]:
        tag_set = s3.get_object_tagging(Bucket=bucket, Key="beside/perched-osprey.jpg")["TagSet"]
        return {tag["Key"] for tag in tag_set}

    eventually(lambda: tags() >= {"captioned-text", "captioned-by"})  # written after the sidecar
    captions("edit", "beside/perched-osprey.jpg", "An osprey on a branch")
    eventually(lambda: sidecar("perched-osprey.jpg")["text"] == "An osprey on a branch")

    def copies() -> set[str]:
        return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="copies/").get("Contents", [])}

    def copy(key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read() if key in copies() else b""

    edited, other = (f"copies/beside/{name}.jpg.caption.jpg" for name in ("perched-osprey", "casa-mila"))
    eventually(lambda: b"An osprey on a branch" in copy(edited))
    assert stack.wait_idle(30)
    # Nothing that was written back became an upload of its own.
    assert {record["key"] for record in captions("ls", "--prefix", "beside/")} == {
        "beside/perched-osprey.jpg", "beside/casa-mila.jpg",
    }  # fmt: skip
    s3.delete_object(Bucket=bucket, Key="beside/perched-osprey.jpg")
    eventually(lambda: beside() == {"casa-mila.jpg", "casa-mila.jpg.caption.json", "casa-mila.jpg.caption.xmp"})
    eventually(lambda: copies() == {other})
    assert not captions("ls", "--prefix", "copies/")
    asked = {call.action for call in witness.asked if call.function == "WriteBackFunction"}
    assert {action for action in asked if action.startswith("dynamodb:")} == {"dynamodb:GetItem"}
    assert {action for action in asked if not action.startswith("s3:")} == {"dynamodb:GetItem", "ssm:GetParameter"}

    # A dead letter of a door goes back by `redrive`, one that its rule put there too.
    key = "beside/casa-mila.jpg"
    letter = {"detail-type": "Caption.Completed", "detail": {"asset": f"{bucket}/{key}", "key": key}}
    s3.delete_object(Bucket=bucket, Key="beside/casa-mila.jpg.caption.json")
    sqs, inner = stack.client("sqs"), inside(stack, "Doors")
    sqs.send_message(QueueUrl=inner["WriteBackDeadLetterQueue"], MessageBody=json.dumps(letter))
    assert captions("status")["queues"]["WriteBackDeadLetter"]["visible"] == 1
    moved = {row["queue"]: row for row in captions("redrive")["dead_letters"]}
    assert {name: row["messages"] for name, row in moved.items()} == {
        "uploads": 0, "image": 0, "audio": 0, "webhooks": 0, "write-back": 1, "rule": 0,
    }  # fmt: skip
    eventually(lambda: sidecar("casa-mila.jpg"), 60)
    assert captions("status")["queues"]["WriteBackDeadLetter"]["visible"] == 0
