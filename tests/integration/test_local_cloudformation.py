"""The local stack's CloudFormation: what is deployed through change sets runs, and an update takes its place."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions

pytestmark = pytest.mark.deep

REGION = "eu-west-1"
BUCKET = "artifacts-of-the-test"
TEMPLATE: dict[str, Any] = {
    "Transform": "AWS::Serverless-2016-10-31",
    "Parameters": {
        "Greeting": {"Type": "String", "Default": "hello"},
        "Key": {"Type": "String", "NoEcho": True, "Default": "none"},
        "Timeout": {"Type": "Number", "Default": 5},
    },
    "Resources": {
        "Bucket": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain"},
        "Answers": {"Type": "AWS::SQS::Queue"},
        "Work": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 30}},
        "Words": {
            "Type": "AWS::Serverless::LayerVersion",
            "Properties": {"ContentUri": f"s3://{BUCKET}/layer", "RetentionPolicy": "Delete"},
        },
        "Worker": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "CodeUri": f"s3://{BUCKET}/code",
                "Handler": "app.handler",
                "Runtime": "python3.13",
                "Timeout": {"Ref": "Timeout"},
                "Layers": [{"Ref": "Words"}],
                "Environment": {"Variables": {"GREETING": {"Ref": "Greeting"}, "ANSWERS": {"Ref": "Answers"}}},
                "Events": {
                    "Work": {"Type": "SQS", "Properties": {"Queue": {"Fn::GetAtt": ["Work", "Arn"]}, "BatchSize": 1}}
                },
            },
        },
    },
    "Outputs": {
        "Work": {"Value": {"Ref": "Work"}},
        "Answers": {"Value": {"Ref": "Answers"}},
        "Bucket": {"Value": {"Ref": "Bucket"}},
        "Worker": {"Value": {"Ref": "Worker"}},
    },
}
CODE = """
import os, time
import boto3, words

def handler(event, context):
    for record in event["Records"]:
        time.sleep(float(os.environ.get("PAUSE", "0.3")))
        answer = f'{os.environ["GREETING"]} {record["body"]}{words.MARK}'
        boto3.client("sqs").send_message(QueueUrl=os.environ["ANSWERS"], MessageBody=answer)
"""


class Deployer:
    """Deploys templates as SAM CLI does: archives in a bucket, a change set, its execution."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.capabilities = ["CAPABILITY_IAM"]
        self.cloudformation = stack.client("cloudformation", REGION)
        self.s3 = stack.client("s3", REGION)
        self.sqs = stack.client("sqs", REGION)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.upload("code", {"app.py": CODE})
        self.upload("layer", {"python/words.py": "MARK = '!'"})

    def upload(self, key: str, files: dict[str, str]) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writing:
            for name, text in files.items():
                writing.writestr(name, text)
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=archive.getvalue())

    def change_set(self, name: str, template: dict[str, Any], kind: str, **parameters: str) -> dict[str, Any]:
        self.s3.put_object(Bucket=BUCKET, Key="template", Body=json.dumps(template).encode())
        made = self.cloudformation.create_change_set(
            StackName=name,
            ChangeSetName=f"set-{time.monotonic_ns()}",
            ChangeSetType=kind,
            TemplateURL=f"{self.s3.meta.endpoint_url}/{BUCKET}/template",
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=self.capabilities,
        )
        result: dict[str, Any] = self.cloudformation.describe_change_set(ChangeSetName=made["Id"])
        return result

    def deploy(self, name: str, template: dict[str, Any], kind: str = "CREATE", **parameters: str) -> dict[str, str]:
        change_set = self.change_set(name, template, kind, **parameters)
        self.cloudformation.execute_change_set(ChangeSetName=change_set["ChangeSetId"])
        waiter = self.cloudformation.get_waiter(f"stack_{kind.lower()}_complete")
        waiter.wait(StackName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 200})
        return self.outputs(name)

    def outputs(self, name: str) -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in self.described(name).get("Outputs", [])}

    def described(self, name: str) -> dict[str, Any]:
        result: dict[str, Any] = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        return result

    def answers(self, url: str, count: int) -> list[str]:
        """What the function has answered, in no order."""
        result: list[str] = []
        deadline = time.monotonic() + 60
        while len(result) < count and time.monotonic() < deadline:
            received = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in received.get("Messages", []):
                result.append(message["Body"])
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return sorted(result)


@pytest.fixture(scope="module")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    directory = tmp_path_factory.mktemp("bare")
    with LocalStack(None, state_dir=directory, model=ModelOptions(url="http://127.0.0.1:9/v1")) as stack:
        yield Deployer(stack)


def changed(**resources: Any) -> dict[str, Any]:
    """The template with some resources' properties changed, and resources added (None: removed)."""
    template: dict[str, Any] = json.loads(json.dumps(TEMPLATE))
    for name, change in resources.items():
        if change is None:
            del template["Resources"][name]
        elif name in template["Resources"]:
            template["Resources"][name].setdefault("Properties", {}).update(change)
        else:
            template["Resources"][name] = change
    return template


def test_what_is_deployed_runs_with_its_layers_and_an_update_loses_nothing(deployer: Deployer) -> None:
    outputs = deployer.deploy("updated", TEMPLATE)
    deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody="world")
    assert deployer.answers(outputs["Answers"], 1) == ["hello world!"]

    for number in range(8):
        deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody=f"{number}")
    deployer.upload("next-layer", {"python/words.py": "MARK = '?'"})
    update = changed(Words={"ContentUri": f"s3://{BUCKET}/next-layer"})
    assert deployer.deploy("updated", update, "UPDATE", Greeting="goodbye") == outputs
    deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody="last")
    answers = deployer.answers(outputs["Answers"], 9)
    assert sorted(answer.split()[1].strip("!?") for answer in answers) == [*map(str, range(8)), "last"]
    assert {answer.split()[0] + answer[-1] for answer in answers} <= {"hello!", "goodbye?"}
    assert "goodbye last?" in answers

    resources = deployer.cloudformation.describe_stack_resources(StackName="updated")["StackResources"]
    (layer,) = [r for r in resources if r["ResourceType"] == "AWS::Lambda::LayerVersion"]
    assert layer["PhysicalResourceId"].endswith(":layer:Words:2")
    left = deployer.stack.client("lambda", REGION).list_layer_versions(LayerName="Words")["LayerVersions"]
    assert [version["Version"] for version in left] == [2]


def test_a_change_set_tells_what_it_would_do_and_an_empty_one_fails(deployer: Deployer) -> None:
    deployer.deploy("changing", changed(Words={"LayerName": "changing"}), Greeting="hi")
    template = changed(Words={"LayerName": "changing"}, Extra={"Type": "AWS::SQS::Queue"}, Answers=None)
    template["Resources"]["Worker"]["Properties"]["Environment"]["Variables"] = {"GREETING": {"Ref": "Greeting"}}
    del template["Outputs"]["Answers"]
    change_set = deployer.change_set("changing", template, "UPDATE", Greeting="hi")
    reported = {c["ResourceChange"]["LogicalResourceId"]: c["ResourceChange"] for c in change_set["Changes"]}
    assert {name: change["Action"] for name, change in reported.items()} == {
        "Extra": "Add", "Answers": "Remove", "Worker": "Modify",
    }  # fmt: skip
    assert [detail["Target"]["Name"] for detail in reported["Worker"]["Details"]] == ["Environment"]

    empty = deployer.change_set("changing", changed(Words={"LayerName": "changing"}), "UPDATE", Greeting="hi")
    assert (empty["Status"], empty["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in empty["StatusReason"]
    with pytest.raises(ClientError, match="cannot be executed"):
        deployer.cloudformation.execute_change_set(ChangeSetName=empty["ChangeSetId"])


def test_a_failed_update_is_taken_back_and_the_function_runs_on(deployer: Deployer) -> None:
    template = changed(Words={"LayerName": "failing"})
    outputs = deployer.deploy("failing", template)
    broken = changed(Words={"LayerName": "failing"}, Worker={"CodeUri": f"s3://{BUCKET}/absent"})
    broken["Resources"]["Work"]["Properties"]["VisibilityTimeout"] = 60
    with pytest.raises(WaiterError):
        deployer.deploy("failing", broken, "UPDATE", Greeting="never")
    described = deployer.described("failing")
    assert described["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "absent" in described["StackStatusReason"] or "key" in described["StackStatusReason"]
    attributes = deployer.sqs.get_queue_attributes(QueueUrl=outputs["Work"], AttributeNames=["VisibilityTimeout"])
    assert attributes["Attributes"]["VisibilityTimeout"] == "30"
    deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody="still")
    assert deployer.answers(outputs["Answers"], 1) == ["hello still!"]


def test_a_failed_creation_leaves_nothing(deployer: Deployer) -> None:
    broken = changed(Words={"LayerName": "stillborn"}, Worker={"CodeUri": f"s3://{BUCKET}/absent"})
    with pytest.raises(WaiterError):
        deployer.deploy("stillborn", broken)
    assert deployer.described("stillborn")["StackStatus"] == "ROLLBACK_COMPLETE"
    queues = deployer.sqs.list_queues(QueueNamePrefix="stillborn").get("QueueUrls", [])
    assert queues == []


def test_parameters_keep_their_values_and_secrets_are_not_shown(deployer: Deployer) -> None:
    deployer.deploy("values", changed(Words={"LayerName": "values"}), Greeting="hi", Key="secret")
    kept = [{"ParameterKey": name, "UsePreviousValue": True} for name in ("Greeting", "Key")]
    deployer.cloudformation.update_stack(
        StackName="values",
        UsePreviousTemplate=True,
        Parameters=[*kept, {"ParameterKey": "Timeout", "ParameterValue": "9"}],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    deployer.cloudformation.get_waiter("stack_update_complete").wait(StackName="values", WaiterConfig={"Delay": 0.2})
    shown = {p["ParameterKey"]: p["ParameterValue"] for p in deployer.described("values")["Parameters"]}
    assert shown == {"Greeting": "hi", "Key": "****", "Timeout": "9"}


@pytest.mark.parametrize(
    ("template", "capabilities", "message"),
    [
        (
            changed(Extra={"Type": "AWS::EC2::Instance"}),
            ["CAPABILITY_IAM"],
            "does not know the resource types AWS::EC2",
        ),
        (TEMPLATE, [], "Requires capabilities"),
        (TEMPLATE | {"Outputs": {"A": {"Value": {"Ref": "Nobody"}}}}, ["CAPABILITY_IAM"], "reference to Nobody"),
    ],
)
def test_what_aws_or_the_local_stack_refuses_is_refused_at_the_change_set(
    deployer: Deployer, template: dict[str, Any], capabilities: list[str], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        deployer.cloudformation.create_change_set(
            StackName="refused",
            ChangeSetName="refused",
            ChangeSetType="CREATE",
            TemplateBody=json.dumps(template),
            Capabilities=capabilities,
        )


def test_drift_is_detected(deployer: Deployer) -> None:
    outputs = deployer.deploy("drifting", changed(Words={"LayerName": "drifting"}))

    def detected() -> dict[str, Any]:
        started = deployer.cloudformation.detect_stack_drift(StackName="drifting")["StackDriftDetectionId"]
        result: dict[str, Any] = deployer.cloudformation.describe_stack_drift_detection_status(
            StackDriftDetectionId=started
        )
        return result

    assert detected()["StackDriftStatus"] == "IN_SYNC"
    deployer.sqs.set_queue_attributes(QueueUrl=outputs["Work"], Attributes={"VisibilityTimeout": "77"})
    assert (detected()["StackDriftStatus"], detected()["DriftedStackResourceCount"]) == ("DRIFTED", 1)
    (drift,) = deployer.cloudformation.describe_stack_resource_drifts(
        StackName="drifting", StackResourceDriftStatusFilters=["MODIFIED"]
    )["StackResourceDrifts"]
    assert drift["LogicalResourceId"] == "Work"
    assert [(d["PropertyPath"], d["ActualValue"]) for d in drift["PropertyDifferences"]] == [
        ("/VisibilityTimeout", "77")
    ]


def test_a_deleted_stack_leaves_what_is_retained(deployer: Deployer, tmp_path: Path) -> None:
    outputs = deployer.deploy("deleted", changed(Words={"LayerName": "deleted"}))
    deployer.cloudformation.delete_stack(StackName="deleted")
    deployer.cloudformation.get_waiter("stack_delete_complete").wait(StackName="deleted", WaiterConfig={"Delay": 0.2})
    assert deployer.s3.head_bucket(Bucket=outputs["Bucket"])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        deployer.stack.client("lambda", REGION).get_function(FunctionName=outputs["Worker"])
    with pytest.raises(ClientError, match="does not exist"):
        deployer.described("deleted")


ALARM = {
    "Type": "AWS::CloudWatch::Alarm",
    "Properties": {
        "Namespace": "AWS/SQS", "MetricName": "ApproximateNumberOfMessagesVisible", "Statistic": "Maximum",
        "Period": 60, "EvaluationPeriods": 1, "Threshold": {"Ref": "Depth"},
        "ComparisonOperator": "GreaterThanThreshold",
        "Dimensions": [{"Name": "QueueName", "Value": {"Ref": "QueueName"}}],
    },
}  # fmt: skip


def nesting(deployer: Deployer, key: str, **alarms: Any) -> dict[str, Any]:
    """A template with a queue, and a nested stack that watches it."""
    nested = {
        "Parameters": {"QueueName": {"Type": "String"}, "Depth": {"Type": "Number"}},
        "Resources": {"Deep": ALARM} | alarms,
        "Outputs": {"Depth": {"Value": {"Ref": "Depth"}}},
    }
    deployer.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(nested).encode())
    return {
        "Parameters": {"Depth": {"Type": "Number", "Default": 5}},
        "Resources": {
            "Work": {"Type": "AWS::SQS::Queue"},
            "Watch": {
                "Type": "AWS::CloudFormation::Stack",
                "Properties": {
                    "TemplateURL": f"{deployer.s3.meta.endpoint_url}/{BUCKET}/{key}",
                    "Parameters": {"QueueName": {"Fn::GetAtt": ["Work", "QueueName"]}, "Depth": {"Ref": "Depth"}},
                },
            },
        },
        "Outputs": {"DepthWithin": {"Value": {"Fn::GetAtt": ["Watch", "Outputs.Depth"]}}},
    }


def test_a_nested_stack_is_made_changed_and_removed_with_its_parent(deployer: Deployer) -> None:
    cloudwatch = deployer.stack.client("cloudwatch", REGION)

    def thresholds() -> list[float]:
        return [alarm["Threshold"] for alarm in cloudwatch.describe_alarms()["MetricAlarms"]]

    deployer.deploy("nesting", nesting(deployer, "nested"))
    (watch,) = [
        resource["PhysicalResourceId"]
        for resource in deployer.cloudformation.describe_stack_resources(StackName="nesting")["StackResources"]
        if resource["LogicalResourceId"] == "Watch"
    ]
    inner = deployer.described(watch)
    assert (inner["StackStatus"], inner["ParentId"]) == ("CREATE_COMPLETE", deployer.described("nesting")["StackId"])
    assert thresholds() == [5.0]

    deployer.deploy("nesting", nesting(deployer, "nested"), "UPDATE", Depth="7")
    assert (deployer.described(watch)["StackStatus"], thresholds()) == ("UPDATE_COMPLETE", [7.0])
    outputs = deployer.described("nesting")["Outputs"]
    assert [(output["OutputKey"], output["OutputValue"]) for output in outputs] == [("DepthWithin", "7")]

    # A queue that cannot be made takes back what was changed, in the nested stack too.
    broken = nesting(deployer, "broken", Wrong={"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "a"}})
    with pytest.raises(WaiterError):
        deployer.deploy("nesting", broken, "UPDATE", Depth="9")
    assert deployer.described("nesting")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert thresholds() == [7.0]

    deployer.cloudformation.delete_stack(StackName="nesting")
    deployer.cloudformation.get_waiter("stack_delete_complete").wait(StackName="nesting", WaiterConfig={"Delay": 0.2})
    assert thresholds() == []
    assert deployer.described(watch)["StackStatus"] == "DELETE_COMPLETE"


def test_a_nested_stacks_functions_run_with_the_layers_of_the_stack_around_it(deployer: Deployer) -> None:
    """As the doors of template.yaml do: a nested SAM template with a function, whose layer its parent makes."""
    worker = json.loads(json.dumps(TEMPLATE["Resources"]["Worker"]))
    worker["Properties"] |= {"Layers": [{"Ref": "Layer"}], "Timeout": 5}
    worker["Properties"]["Environment"] = {"Variables": {"GREETING": "hi", "ANSWERS": {"Ref": "Answers"}}}
    worker["Properties"]["Events"]["Work"]["Properties"]["Queue"] = {"Ref": "Work"}
    within = {
        "Transform": "AWS::Serverless-2016-10-31",
        "Parameters": {name: {"Type": "String"} for name in ("Layer", "Work", "Answers")},
        "Resources": {"Worker": worker},
    }
    deployer.s3.put_object(Bucket=BUCKET, Key="within", Body=json.dumps(within).encode())
    parts = {name: TEMPLATE["Resources"][name] for name in ("Answers", "Work", "Words")}
    around = {
        "Transform": TEMPLATE["Transform"],
        "Parameters": {"On": {"Type": "String", "Default": "true"}},
        "Conditions": {"IsOn": {"Fn::Equals": [{"Ref": "On"}, "true"]}},
        "Resources": parts
        | {
            "Within": {
                "Type": "AWS::CloudFormation::Stack",
                "Condition": "IsOn",
                "Properties": {
                    "TemplateURL": f"{deployer.s3.meta.endpoint_url}/{BUCKET}/within",
                    "Parameters": {
                        "Layer": {"Ref": "Words"},
                        "Work": {"Fn::GetAtt": ["Work", "Arn"]},
                        "Answers": {"Ref": "Answers"},
                    },
                },
            }
        },
        "Outputs": {name: TEMPLATE["Outputs"][name] for name in ("Work", "Answers")},
    }
    with pytest.raises(WaiterError):  # AWS does not expand what is nested unless that is allowed
        deployer.deploy("unexpanded", around)

    deployer.capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    outputs = deployer.deploy("around", around)
    deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody="there")
    assert deployer.answers(outputs["Answers"], 1) == ["hi there!"]

    deployer.deploy("around", around, "UPDATE", On="false")
    deployer.sqs.send_message(QueueUrl=outputs["Work"], MessageBody="again")
    time.sleep(1)
    (left,) = deployer.sqs.receive_message(QueueUrl=outputs["Work"])["Messages"]
    assert left["Body"] == "again"
