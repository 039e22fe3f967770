"""Search of the real template on one machine: what is uploaded is found by its words and by what they mean, edited, and
gone when it is deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from captions_cli.local import LocalStack
from captions_cli.local.cloudformation.translate import load_template
from captions_cli.local.options import ModelOptions, WorkerOptions
from captions_cli.main import app
from support.permissions import Witness, allowed
from support.pipeline import MEDIA
from support.small_stack import eventually, inside

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
DOORS = load_template(ROOT / "doors.yaml")["Resources"]


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(frozenset({"SearchFunction"}))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, witness: Witness) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("search")
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=home,
        parameters={"Search": "meaning", "EmbeddingPrice": "0.02", "SearchDelaySeconds": "1"},
        model=ModelOptions(latency_scale=0),
        workers=WorkerOptions(maximum=1),  # of each function
        interceptors=[witness],
    ) as running:
        (home / "stack.json").write_text(json.dumps(running.state()))
        yield running


@pytest.fixture
def hits(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setenv("CAPTIONS_HOME", str(stack.state_dir))

    def search(text: str, *options: str, by: str = "words") -> list[str]:
        done = CliRunner().invoke(app, ["search", text, "--by", by, *options, "--output", "json"])
        keys = [item["key"] for item in json.loads(done.stdout)["items"]]
        assert done.exit_code == (0 if keys else 1), done.output
        return keys

    return search


def test_what_is_uploaded_is_found_edited_and_gone_when_it_is_deleted(
    stack: LocalStack, hits: Callable[..., list[str]], witness: Witness
) -> None:
    bucket = stack.outputs["MediaBucketName"]
    for key in ("shop/osprey.jpg", "private/osprey.jpg"):
        stack.client("s3").put_object(Bucket=bucket, Key=key, Body=(MEDIA / "perched-osprey.jpg").read_bytes())
    both = ["private/osprey.jpg", "shop/osprey.jpg"]
    eventually(lambda: sorted(hits("green contrast")) == both)
    assert hits("pictures", "--prefix", "shop/") == ["shop/osprey.jpg"]
    assert CliRunner().invoke(app, ["search", "zeppelin", "--by", "words"]).exit_code == 1
    eventually(lambda: sorted(hits("greenish", by="meaning")) == both)
    assert hits("greenish", "--prefix", "shop/", by="both") == ["shop/osprey.jpg"]
    assert CliRunner().invoke(app, ["search", ""]).exit_code == 2
    table = CliRunner().invoke(app, ["search", "picture"])
    assert "shop/osprey.jpg" in table.stdout

    assert CliRunner().invoke(app, ["edit", "shop/osprey.jpg", "Ein Fischadler über dem Zürichsee"]).exit_code == 0
    eventually(lambda: hits("fischadler zurichsee") == ["shop/osprey.jpg"])
    assert hits("contrast") == ["private/osprey.jpg"]
    eventually(lambda: hits("fischadlers", by="meaning")[0] == "shop/osprey.jpg")
    assert sorted(hits("green")) == both  # a tag, and an edit leaves those

    stack.client("s3").delete_object(Bucket=bucket, Key="shop/osprey.jpg")
    eventually(lambda: hits("fischadler") == [] and hits("fischadler", by="meaning") == ["private/osprey.jpg"])
    costs = json.loads(CliRunner().invoke(app, ["costs", "--output", "json"]).stdout)["embeddings"]
    assert (costs["calls"] >= 3, costs["tokens"] > 10, float(costs["dollars"]) > 0) == (True, True, True)

    inner = inside(stack, "Doors")
    answer = stack.client("lambda").invoke(FunctionName=inner["SearchFunction"], Payload=b"{}")
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())["missing"] == 0
    assert stack.wait_idle(30)

    names = {physical.rpartition("/")[2]: logical for logical, physical in inner.items()}
    table_arn = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${CaptionsTableName}"
    control_arn = table_arn.replace("${CaptionsTableName}", "${ControlTableName}")
    witness.names |= names | {
        stack.outputs["CaptionsTableName"]: table_arn,
        stack.outputs["ControlTableName"]: control_arn,
        stack.outputs["EndpointSecretArn"]: "EndpointSecretArn",
    }
    asked = {(call.action, witness.logical(call.resource)) for call in witness.asked}
    assert {action for action, _ in asked} >= {
        "dynamodb:BatchGetItem", "dynamodb:UpdateItem", "s3:PutObject", "s3:GetObject", "s3vectors:PutVectors",
        "s3vectors:QueryVectors", "s3vectors:DeleteVectors", "secretsmanager:GetSecretValue",
    }  # fmt: skip
    assert asked <= allowed(DOORS, "SearchFunction", "SearchesMeaning")
