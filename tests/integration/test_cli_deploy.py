"""`captions deploy` through three regions of the local stack: waves, checks, stopping, going on, looking ahead.

SAM CLI is a stand-in of a few lines here, which makes and executes change sets as SAM CLI does; the real one deploys
the real template in tests/e2e.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from captions_cli import deploying
from captions_cli.errors import CommandError
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions
from captions_cli.main import app
from captions_cli.stack import Stack

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
CANARY = REGIONS[0]
TEMPLATE: dict[str, Any] = {
    "Parameters": {"Seconds": {"Type": "Number", "Default": 30, "AllowedPattern": "[0-9]+"}},
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": {"Ref": "Seconds"}}},
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1,
                "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold",
            },
        },
    },
    "Outputs": {"Queue": {"Value": {"Ref": "Queue"}}},
}  # fmt: skip
SAM = f"""#!{sys.executable}
import argparse, sys, tomllib, uuid
import boto3, botocore.exceptions

parser = argparse.ArgumentParser()
parser.add_argument("command")
for name in ("--config-file", "--config-env", "--template-file"):
    parser.add_argument(name)
for flag in ("--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-execute-changeset"):
    parser.add_argument(flag, action="store_true")
parser.add_argument("--parameter-overrides", nargs="*", default=[])
given = parser.parse_args()
config = tomllib.load(open(given.config_file, "rb"))[given.config_env]["global"]["parameters"]
cloudformation = boto3.client("cloudformation", region_name=config["region"])
try:
    status = cloudformation.describe_stacks(StackName=config["stack_name"])["Stacks"][0]["StackStatus"]
except botocore.exceptions.ClientError:
    status = "REVIEW_IN_PROGRESS"
kind = "CREATE" if status == "REVIEW_IN_PROGRESS" else "UPDATE"
overrides = dict(pair.split("=", 1) for pair in given.parameter_overrides)
made = cloudformation.create_change_set(
    StackName=config["stack_name"], ChangeSetName=f"samcli-deploy{{uuid.uuid4().hex}}", ChangeSetType=kind,
    TemplateBody=open(given.template_file).read(),
    Parameters=[{{"ParameterKey": name, "ParameterValue": value}} for name, value in overrides.items()],
)["Id"]
if cloudformation.describe_change_set(ChangeSetName=made)["Status"] == "FAILED":
    print("No changes to deploy. Stack is up to date")
    sys.exit(0)
if not given.no_execute_changeset:
    cloudformation.execute_change_set(ChangeSetName=made)
    waiter = cloudformation.get_waiter(f"stack_{{kind.lower()}}_complete")
    waiter.wait(StackName=config["stack_name"], WaiterConfig={{"Delay": 0.1, "MaxAttempts": 100}})
"""


class Project:
    """A checkout with a built template, three environments, and a stack's name of its own."""

    def __init__(self, root: Path, local: LocalStack, name: str) -> None:
        self.root, self.local, self.name = root, local, name
        (root / "functions" / "dedupe").mkdir(parents=True)
        (root / "template.yaml").write_text("")
        sam = root / ".venv" / "sam" / "bin" / "sam"
        sam.parent.mkdir(parents=True)
        sam.write_text(SAM)
        sam.chmod(0o755)
        self.build(TEMPLATE)
        self.configure()

    def build(self, template: dict[str, Any]) -> None:
        built = self.root / ".aws-sam" / "build" / "template.yaml"
        built.parent.mkdir(parents=True, exist_ok=True)
        built.write_text(json.dumps(template))

    def configure(self, **overrides: str) -> None:
        """Write samconfig.toml; `overrides` by environment, with underscores for hyphens."""
        lines = []
        for region in REGIONS:
            lines += [f"[{region}.global.parameters]", f'stack_name = "{self.name}"', f'region = "{region}"']
            lines += [f"[{region}.deploy.parameters]", "resolve_s3 = true"]
            if given := overrides.get(region.replace("-", "_")):
                lines.append(f'parameter_overrides = "{given}"')
        (self.root / "samconfig.toml").write_text("\n".join(lines) + "\n")

    def client(self, service: str, region: str) -> Any:
        return self.local.client(service, region)

    def events(self, region: str) -> list[dict[str, Any]]:
        """What happened to the region's stack, oldest first; nothing where there is none."""
        try:
            result = self.client("cloudformation", region).describe_stack_events(StackName=self.name)["StackEvents"]
        except Exception:
            return []
        return list(reversed(result))

    def seconds(self, region: str) -> str:
        stack = self.client("cloudformation", region).describe_stacks(StackName=self.name)["Stacks"][0]
        url = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}["Queue"]
        answer = self.client("sqs", region).get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        return str(answer["Attributes"]["VisibilityTimeout"])

    def ring(self, region: str, state: str) -> None:
        """Set the stack's alarm."""
        resources = self.client("cloudformation", region).describe_stack_resources(StackName=self.name)
        (alarm,) = [r for r in resources["StackResources"] if r["LogicalResourceId"] == "Alarm"]
        self.client("cloudwatch", region).set_alarm_state(
            AlarmName=alarm["PhysicalResourceId"], StateValue=state, StateReason="as the test wants it"
        )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    directory = tmp_path_factory.mktemp("regions")
    with LocalStack(None, state_dir=directory, model=ModelOptions(url="http://127.0.0.1:9/v1")) as running:
        yield running


@pytest.fixture
def project(
    local: LocalStack, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Project:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", local.aws_endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, local, f"stack-{abs(hash(request.node.name)) % 10**8}")


@pytest.fixture
def deploy(project: Project) -> Callable[..., Ran]:
    quick = ("deploy", "--bake", "0", "--upload-timeout", "0", "--output", "json")
    return lambda *words: CliRunner().invoke(app, [*quick, *words])


def statuses(ran: Ran) -> dict[str, str]:
    return {row["environment"]: row["status"] for row in json.loads(ran.stdout)}


@pytest.mark.deep
def test_the_canary_is_deployed_and_verified_before_the_others_begin(
    project: Project, deploy: Callable[..., Ran]
) -> None:
    project.configure(eu_west_1="Seconds=77")
    ran = deploy()
    assert ran.exit_code == 0, ran.output
    assert statuses(ran) == dict.fromkeys(REGIONS, "verified")
    canary = project.events(CANARY)[-1]
    assert canary["ResourceStatus"] == "CREATE_COMPLETE"
    assert all(project.events(region)[0]["Timestamp"] > canary["Timestamp"] for region in REGIONS[1:])
    assert [project.seconds(region) for region in REGIONS] == ["30", "77", "30"]

    again = deploy()
    assert [row["changed"] for row in json.loads(again.stdout)] == [False] * 3


@pytest.mark.deep
def test_a_parameter_for_all_goes_before_an_environments_own(project: Project, deploy: Callable[..., Ran]) -> None:
    project.configure(us_east_1="Seconds=77")
    assert deploy(CANARY, "--parameter", "Seconds=55").exit_code == 0
    assert project.seconds(CANARY) == "55"
    assert project.events("eu-west-1") == []


@pytest.mark.deep
def test_an_alarm_of_the_canary_stops_it_and_a_second_run_goes_on_from_there(
    project: Project, deploy: Callable[..., Ran]
) -> None:
    assert deploy(CANARY).exit_code == 0
    project.ring(CANARY, "ALARM")
    project.build(TEMPLATE | {"Resources": TEMPLATE["Resources"] | {"Another": {"Type": "AWS::SQS::Queue"}}})
    stopped = deploy()
    assert stopped.exit_code == 5
    assert statuses(stopped) == {CANARY: "deployed", "eu-west-1": "pending", "ap-southeast-1": "pending"}
    assert "in ALARM" in stopped.stderr
    assert project.events("eu-west-1") == []

    project.ring(CANARY, "OK")
    happened = len(project.events(CANARY))
    went_on = deploy()
    assert went_on.exit_code == 0, went_on.output
    assert statuses(went_on) == dict.fromkeys(REGIONS, "verified")
    assert len(project.events(CANARY)) == happened  # checked again, not deployed again


@pytest.mark.deep
def test_a_region_that_fails_is_told_and_done_again_alone(project: Project, deploy: Callable[..., Ran]) -> None:
    project.configure(eu_west_1="Seconds=many")
    stopped = deploy()
    assert stopped.exit_code == 5
    assert statuses(stopped) == {CANARY: "verified", "eu-west-1": "failed", "ap-southeast-1": "verified"}
    assert "does not match" in stopped.stderr
    log = project.root / ".captions" / "deploy" / "eu-west-1.log"
    assert "does not match" in log.read_text()

    project.configure(eu_west_1="Seconds=40")
    went_on = deploy()
    assert went_on.exit_code == 0, went_on.output
    assert "us-east-1: deployed and verified by an earlier run" in went_on.stderr
    assert project.seconds("eu-west-1") == "40"


STILLBORN: dict[str, Any] = {
    **TEMPLATE,
    "Resources": {
        **TEMPLATE["Resources"],
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "RetainExceptOnCreate",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "BillingMode": "PAY_PER_REQUEST",
                "DeletionProtectionEnabled": True,
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            },
        },
        "Broken": {
            "Type": "AWS::SQS::Queue",
            "DependsOn": "Table",
            "Properties": {
                "RedrivePolicy": {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:none", "maxReceiveCount": 1}
            },
        },
    },
}


def working(template: dict[str, Any]) -> dict[str, Any]:
    return {
        **template,
        "Resources": {name: resource for name, resource in template["Resources"].items() if name != "Broken"},
    }


@pytest.mark.deep
def test_a_first_deployment_that_failed_is_removed_with_its_protected_table_and_done_again(
    project: Project, deploy: Callable[..., Ran]
) -> None:
    project.build(STILLBORN)
    assert deploy(CANARY).exit_code == 5
    stack = project.client("cloudformation", CANARY).describe_stacks(StackName=project.name)["Stacks"][0]
    assert stack["StackStatus"] == "ROLLBACK_FAILED"  # the table refuses to be deleted
    dynamodb = project.client("dynamodb", CANARY)
    left = set(dynamodb.list_tables()["TableNames"])

    project.build(working(STILLBORN))
    looked = deploy(CANARY, "--dry-run")
    assert looked.exit_code == 5
    assert "ROLLBACK_FAILED" in looked.stderr
    again = deploy(CANARY)
    assert again.exit_code == 0, again.output
    assert "Broken" in again.stderr  # why the first one failed
    assert statuses(again) == {CANARY: "verified"}
    assert len(left & set(dynamodb.list_tables()["TableNames"])) == len(left) - 1


@pytest.mark.deep
def test_a_table_that_holds_something_is_never_removed(project: Project, deploy: Callable[..., Ran]) -> None:
    project.build(STILLBORN)
    before = set(project.client("dynamodb", CANARY).list_tables()["TableNames"])
    assert deploy(CANARY).exit_code == 5
    dynamodb = project.client("dynamodb", CANARY)
    (table,) = set(dynamodb.list_tables()["TableNames"]) - before
    dynamodb.put_item(TableName=table, Item={"pk": {"S": "dear"}})
    project.build(working(STILLBORN))
    refused = deploy(CANARY)
    assert refused.exit_code == 5
    assert f"there is something in {table}" in refused.stderr
    assert dynamodb.scan(TableName=table)["Count"] == 1


def with_a_bulk_lane(root: Path) -> dict[str, Any]:
    """The template with a nested stack that its parameter Bulk makes, and the table that knows the batches."""
    queues = {name: {"Type": "AWS::SQS::Queue"} for name in ("BulkQueue", "BulkDeadLetterQueue")}
    lane = root / "lane.json"
    lane.write_text(
        json.dumps({"Resources": queues, "Outputs": {f"{name}Url": {"Value": {"Ref": name}} for name in queues}})
    )
    keys = (("pk", "HASH"), ("sk", "RANGE"))
    table = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys],
    }
    return {
        "Parameters": TEMPLATE["Parameters"] | {"Bulk": {"Type": "String", "Default": "off"}},
        "Conditions": {"KeepsBatches": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Bulk"}, "off"]}]}},
        "Resources": {
            **TEMPLATE["Resources"],
            "Control": {"Type": "AWS::DynamoDB::Table", "Properties": table},
            "BulkLane": {
                "Type": "AWS::CloudFormation::Stack",
                "Condition": "KeepsBatches",
                "Properties": {"TemplateURL": lane.as_uri()},
            },
        },
        "Outputs": TEMPLATE["Outputs"] | {"ControlTableName": {"Value": {"Ref": "Control"}}},
    }


@pytest.mark.deep
def test_a_bulk_lane_is_drained_before_it_is_switched_off(project: Project, deploy: Callable[..., Ran]) -> None:
    project.build(with_a_bulk_lane(project.root))
    assert deploy(CANARY, "--parameter", "Bulk=batches").exit_code == 0
    stack = project.client("cloudformation", CANARY).describe_stacks(StackName=project.name)["Stacks"][0]
    table = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}["ControlTableName"]
    dynamodb = project.client("dynamodb", CANARY)
    waits = {"pk": {"S": "bulk-waiting"}, "sk": {"S": "001795968000.000#line"}}
    dynamodb.put_item(TableName=table, Item=waits)

    for words in ((), ("--dry-run",)):
        refused = deploy(CANARY, "--parameter", "Bulk=off", *words)
        assert refused.exit_code != 0
        assert "pictures that wait for a batch: 1, batches under way: 0" in refused.stderr
        assert "Bulk=draining" in refused.stderr
    assert deploy(CANARY, "--parameter", "Bulk=draining").exit_code == 0
    assert deploy(CANARY, "--parameter", "Bulk=off").exit_code == 5
    dynamodb.delete_item(TableName=table, Key=waits)
    sqs = project.client("sqs", CANARY)
    (dead,) = (url for url in sqs.list_queues()["QueueUrls"] if "bulk" in url.lower() and "dead" in url.lower())
    sqs.send_message(QueueUrl=dead, MessageBody="a job")
    refused = deploy(CANARY, "--parameter", "Bulk=off", "--dry-run")
    assert (refused.exit_code, "1 jobs are in the bulk lane's dead-letter queue" in refused.stderr) == (2, True)
    sqs.purge_queue(QueueUrl=dead)
    assert deploy(CANARY, "--parameter", "Bulk=off").exit_code == 0


@pytest.mark.deep
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("DELETE_FAILED", "delete-stack"),
        ("UPDATE_IN_PROGRESS", "wait"),
    ],
)
def test_a_stack_that_needs_a_person_is_left_alone_and_the_way_back_is_said(
    project: Project, deploy: Callable[..., Ran], status: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy(CANARY).exit_code == 0
    happened = len(project.events(CANARY))
    monkeypatch.setattr(Stack, "status", status)
    project.configure(us_east_1="Seconds=77")
    refused = deploy(CANARY)
    assert refused.exit_code == 5
    assert status in refused.stderr
    assert advice in refused.stderr
    assert len(project.events(CANARY)) == happened


@pytest.mark.parametrize("name", ["s" * 54, "1st", "under_score", "ends-with-dot."])
def test_a_stack_name_that_cannot_be_is_refused_before_anything_is_done(
    project: Project, deploy: Callable[..., Ran], name: str
) -> None:
    project.name = name
    project.configure()
    refused = deploy()
    assert refused.exit_code == 2
    assert name in refused.stderr


@pytest.mark.deep
def test_one_by_one_no_region_begins_after_one_that_failed(project: Project, deploy: Callable[..., Ran]) -> None:
    project.configure(eu_west_1="Seconds=many")
    stopped = deploy("--one-by-one", "--canary", "ap-southeast-1")
    assert stopped.exit_code == 5
    assert statuses(stopped) == {"ap-southeast-1": "verified", CANARY: "verified", "eu-west-1": "failed"}


@pytest.mark.deep
def test_a_dry_run_shows_changes_and_drift_and_leaves_nothing(project: Project, deploy: Callable[..., Ran]) -> None:
    assert deploy(CANARY).exit_code == 0
    cloudformation, sqs = project.client("cloudformation", CANARY), project.client("sqs", CANARY)
    outputs = cloudformation.describe_stacks(StackName=project.name)["Stacks"][0]["Outputs"]
    sqs.set_queue_attributes(QueueUrl=outputs[0]["OutputValue"], Attributes={"VisibilityTimeout": "99"})
    ledger = (project.root / ".captions" / "deployment.json").read_bytes()

    ran = deploy("--dry-run", "--parameter", "Seconds=45")
    assert ran.exit_code == 0, ran.output
    shown = json.loads(ran.stdout)
    (change,) = shown[CANARY]["changes"]
    assert (change["action"], change["resource"], change["properties"]) == ("Modify", "Queue", ["VisibilityTimeout"])
    assert [(drifted["logical_id"], drifted["status"]) for drifted in shown[CANARY]["drift"]] == [("Queue", "MODIFIED")]
    assert [change["action"] for change in shown["eu-west-1"]["changes"]] == ["Add", "Add"]
    assert shown["eu-west-1"]["drift"] == []
    left = cloudformation.list_change_sets(StackName=project.name)["Summaries"]
    assert [summary["ExecutionStatus"] for summary in left] == ["EXECUTE_COMPLETE"]
    other = project.client("cloudformation", "eu-west-1").describe_stacks()["Stacks"]
    assert project.name not in {stack["StackName"] for stack in other if stack["StackStatus"] != "DELETE_IN_PROGRESS"}
    assert (project.root / ".captions" / "deployment.json").read_bytes() == ledger


@pytest.mark.deep
def test_an_empty_local_stack_says_how_to_deploy_to_it(tmp_path: Path) -> None:
    captions = [sys.executable, "-m", "captions_cli.main"]
    environment = {**os.environ, "CAPTIONS_HOME": str(tmp_path / "home"), "CAPTIONS_STOP_WITH": str(os.getpid())}
    try:
        up = subprocess.run([*captions, "up", "--empty"], env=environment, capture_output=True, text=True, check=False)
        assert up.returncode == 0, up.stderr
        (line,) = [line for line in up.stdout.splitlines() if "AWS_ENDPOINT_URL=" in line]
        url = line.rpartition("AWS_ENDPOINT_URL=")[2]
        formation = boto3.client(
            "cloudformation",
            endpoint_url=url,
            region_name="ap-southeast-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        assert formation.describe_stacks()["Stacks"] == []
    finally:
        subprocess.run([*captions, "down"], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "no environment nowhere"),
        (("--template", "absent.yaml"), "`make build` builds it"),
        (("--region", "eu-west-1"), "name its environments"),
        (("--parameter", "x"), "takes NAME=VALUE"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_done(
    deploy: Callable[..., Ran], words: tuple[str, ...], message: str
) -> None:
    ran = deploy(*words)
    assert ran.exit_code == 2
    assert message in ran.stderr


def test_the_projects_own_environments_are_read() -> None:
    listed = deploying.environments(Path(__file__).parents[2] / "samconfig.toml")
    assert [(environment.name, environment.region, environment.stack_name) for environment in listed] == [
        (r, r, "media-captions") for r in REGIONS
    ]


def test_overrides_are_read_in_every_form_that_sam_cli_takes(tmp_path: Path) -> None:
    path = tmp_path / "samconfig.toml"
    head = '[{0}.global.parameters]\nstack_name = "s"\nregion = "{0}"\n[{0}.deploy.parameters]\n'
    path.write_text(
        head.format("a") + "parameter_overrides = \"A=1 B='two words'\"\n"
        + head.format("b") + 'parameter_overrides = ["A=1", "B=two words"]\n'
        + head.format("c") + 'parameter_overrides = { A = 1, B = "two words" }\n'
    )  # fmt: skip
    assert {environment.overrides for environment in deploying.environments(path)} == {("A=1", "B=two words")}
    path.write_text("[x]\ny = 1\n")
    with pytest.raises(CommandError, match="no environment"):
        deploying.environments(path)
