"""The template made ready for one machine: parameters, intrinsics, names, order."""

from pathlib import Path
from typing import Any

import pytest

from captions_cli.local.cloudformation.resources import Translation
from captions_cli.local.cloudformation.translate import load_template, translate
from captions_cli.local.errors import StackError

QUEUE = {"Type": "AWS::SQS::Queue"}


@pytest.fixture
def translated(tmp_path: Path) -> Any:
    """Translate a template given as a dictionary."""

    def translated(template: dict[str, Any], region: str = "eu-west-1", **parameters: str) -> Translation:
        import json

        path = tmp_path / "template.json"
        path.write_text(json.dumps(template))
        return translate(path, stack_name="stack", region=region, parameters=parameters)

    return translated


@pytest.mark.parametrize("name", ["template.yaml", "monitoring.yaml", "cli/captions_cli/results.yaml"])
def test_templates_are_read_as_sam_reads_them(name: str) -> None:
    from samtranslator.yaml_helper import yaml_parse

    path = Path(__file__).parents[2] / name
    assert load_template(path) == yaml_parse(path.read_text(encoding="utf-8"))


def value_of(translation: Translation, name: str = "Value") -> Any:
    return translation.outputs[name]


def output(value: Any, **sections: Any) -> dict[str, Any]:
    resources = {"Queue": QUEUE, "Table": {"Type": "AWS::DynamoDB::Table"}}
    return {"Resources": resources, "Outputs": {"Value": {"Value": value}}} | sections


@pytest.mark.parametrize(
    ("intrinsic", "expected"),
    [
        ({"Ref": "AWS::Region"}, "eu-west-1"),
        ({"Ref": "AWS::Partition"}, "aws"),
        ({"Fn::Sub": "${AWS::StackName}-${!Literal}-${Name}"}, "stack-${Literal}-given"),
        ({"Fn::Sub": ["${own}/${Name}", {"own": {"Ref": "AWS::AccountId"}}]}, "123456789012/given"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Name"}, {"Ref": "AWS::NoValue"}]]}, "a-given"),
        ({"Fn::Select": ["1", {"Fn::Split": [",", "a,b,c"]}]}, "b"),
        ({"Fn::Select": [0, {"Ref": "Names"}]}, "x"),
        ({"Fn::If": ["IsGiven", "yes", "no"]}, "yes"),
        ({"Fn::If": ["IsNot", "yes", "no"]}, "no"),
        ({"Fn::FindInMap": ["Map", {"Ref": "Name"}, "Key"]}, "mapped"),
        ({"Fn::FindInMap": ["Map", "absent", "Key", {"DefaultValue": "fallback"}]}, "fallback"),
        ({"Fn::Base64": "text"}, "dGV4dA=="),
        ({"Fn::Select": [2, {"Fn::GetAZs": ""}]}, "eu-west-1c"),
    ],
)
def test_intrinsics_are_resolved(translated: Any, intrinsic: Any, expected: str) -> None:
    template = output(
        intrinsic,
        Parameters={"Name": {"Type": "String"}, "Names": {"Type": "CommaDelimitedList", "Default": "x,y"}},
        Mappings={"Map": {"given": {"Key": "mapped"}}},
        Conditions={
            "IsGiven": {"Fn::And": [{"Fn::Equals": [{"Ref": "Name"}, "given"]}, {"Fn::Not": [{"Condition": "IsNot"}]}]},
            "IsNot": {"Fn::Or": [{"Fn::Equals": [{"Ref": "Name"}, "a"]}, {"Fn::Equals": [{"Ref": "Name"}, "b"]}]},
        },
    )
    assert value_of(translated(template, Name="given")) == expected


def test_references_to_resources_are_what_aws_gives(translated: Any) -> None:
    template = output({"Ref": "Queue"})
    template["Outputs"] |= {
        "Arn": {"Value": {"Fn::GetAtt": ["Queue", "Arn"]}},
        "Sub": {"Value": {"Fn::Sub": "${Queue.QueueName} ${Table.Arn}"}},
    }
    translation = translated(template, region="cn-north-1")
    name = translation.resources["Queue"].name
    assert value_of(translation) == f"https://sqs.cn-north-1.amazonaws.com.cn/123456789012/{name}"
    assert value_of(translation, "Arn") == f"arn:aws-cn:sqs:cn-north-1:123456789012:{name}"
    table = translation.resources["Table"].name
    assert value_of(translation, "Sub") == f"{name} arn:aws-cn:dynamodb:cn-north-1:123456789012:table/{table}"


def test_resources_and_outputs_with_a_false_condition_are_left_out(translated: Any) -> None:
    template = output("x", Conditions={"Never": {"Fn::Equals": ["a", "b"]}})
    template["Resources"]["Extra"] = QUEUE | {"Condition": "Never"}
    template["Outputs"]["Extra"] = {"Value": {"Ref": "Extra"}, "Condition": "Never"}
    translation = translated(template)
    assert set(translation.resources) == {"Queue", "Table"}
    assert set(translation.outputs) == {"Value"}


def test_resources_come_after_those_they_refer_to(translated: Any) -> None:
    redrive = {"deadLetterTargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}, "maxReceiveCount": 5}
    allow = {"redrivePermission": "byQueue", "sourceQueueArns": [{"Fn::GetAtt": ["Work", "Arn"]}]}
    template = {
        "Resources": {
            "Work": QUEUE | {"Properties": {"RedrivePolicy": redrive}},
            "Dead": QUEUE | {"Properties": {"RedriveAllowPolicy": allow}},
        }
    }
    assert list(translated(template).resources) == ["Dead", "Work"]


def test_iam_conditions_are_not_taken_for_the_templates_conditions(translated: Any) -> None:
    condition = {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    template = output("x")
    template["Resources"]["Policy"] = {
        "Type": "AWS::SQS::QueuePolicy",
        "Properties": {"Queues": [{"Ref": "Queue"}], "PolicyDocument": condition},
    }
    assert translated(template).resources["Policy"].properties["PolicyDocument"] == condition


def test_generated_names_keep_to_the_services_rules(translated: Any) -> None:
    template = output("x")
    template["Resources"] |= {
        "ABucketWithAVeryLongLogicalIdThatGoesOnAndOn": {"Type": "AWS::S3::Bucket"},
        "First": QUEUE | {"Properties": {"FifoQueue": True}},
        "Named": QUEUE | {"Properties": {"QueueName": {"Fn::Sub": "${AWS::StackName}-named"}}},
    }
    names = {logical_id: resource.name for logical_id, resource in translated(template).resources.items()}
    bucket = names["ABucketWithAVeryLongLogicalIdThatGoesOnAndOn"]
    assert bucket == bucket.lower()
    assert len(bucket) <= 63
    assert names["First"].endswith(".fifo")
    assert names["Named"] == "stack-named"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (output({"Ref": "Nobody"}), "reference to Nobody"),
        (output({"Fn::GetAtt": ["Queue", "Colour"]}), "does not know the attribute Colour"),
        (output({"Fn::ImportValue": "x"}), "does not resolve Fn::ImportValue"),
        (output({"Fn::If": ["Absent", 1, 2]}), "no condition Absent"),
        (output("x") | {"Resources": {"A": {"Type": "Not::A::Type"}}}, "does not know the resource types Not::A::Type"),
        (output("x", Parameters={"P": {"Type": "String"}}), "parameter P has no default"),
        ({"Description": "nothing"}, "has no Resources"),
    ],
)
def test_what_cannot_be_resolved_is_an_error_that_says_so(
    translated: Any, template: dict[str, Any], message: str
) -> None:
    with pytest.raises(StackError, match=message):
        translated(template)


def test_parameters_are_held_to_what_the_template_allows(translated: Any) -> None:
    declared = {"Mode": {"Type": "String", "AllowedValues": ["a", "b"], "Default": "a"}}
    assert translated(output({"Ref": "Mode"}, Parameters=declared), Mode="b").outputs["Value"] == "b"
    with pytest.raises(StackError, match="'c' is not one of a, b"):
        translated(output("x", Parameters=declared), Mode="c")
    with pytest.raises(StackError, match="has no parameter Other"):
        translated(output("x", Parameters=declared), Other="x")


def test_an_alias_stands_for_its_function(translated: Any, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    template = {
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {
            "Function": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "CodeUri": "code/",
                    "Handler": "app.handler",
                    "Runtime": "python3.13",
                    "AutoPublishAlias": "live",
                },
            }
        },
        "Outputs": {"Value": {"Value": {"Ref": "Function.Alias"}}},
    }
    translation = translated(template)
    name = translation.resources["Function"].name
    assert value_of(translation) == f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:live"
    assert translation.code == {"Function": tmp_path / "code"}


def test_the_products_own_template_is_covered_in_full() -> None:
    root = Path(__file__).parents[2]
    translation = translate(
        root / "template.yaml",
        stack_name="media-captions",
        region="ap-southeast-1",
        parameters={"EndpointUrls": "http://127.0.0.1:1/v1"},
    )
    assert {resource.treatment.treatment for resource in translation.resources.values()} <= {
        "created",
        "repaired",
        "not emulated",
    }
    assert set(translation.code) == {"DedupeFunction", "CaptionFunction", "TranscribeFunction", "SweepFunction"}
    assert all((directory / "app.py").is_file() for directory in translation.code.values())
