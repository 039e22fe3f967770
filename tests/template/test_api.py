"""What holds of api.yaml: what its function may do, what it is told, and that it takes what template.yaml gives."""

import re
from pathlib import Path
from typing import Any

import pytest

from captions.config.environment import ApiSettings
from captions_cli.local.cloudformation.translate import Translation, load_template, translate
from support.template import listed

ROOT = Path(__file__).resolve().parents[2]
PARENT = load_template(ROOT / "template.yaml")
GIVEN: dict[str, Any] = PARENT["Resources"]["ApiApplication"]["Properties"]["Parameters"]
TEMPLATE = load_template(ROOT / "api.yaml")
RESOURCES = TEMPLATE["Resources"]
ACTIONS = {
    "api": {
        "Logs": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Traces": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
        "Captions": ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Scan",
                     "dynamodb:UpdateItem"],
        "Lists": ["dynamodb:Query"],
        "CountsOfVerdicts": ["dynamodb:DeleteItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        "Own": ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        "Media": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"],
        "GoneOrForbidden": ["s3:ListBucket", "s3:ListBucketVersions"],
        "Revisits": ["sqs:SendMessage"],
        "Depths": ["sqs:GetQueueAttributes"],
        "DeadLetters": ["sqs:GetQueueAttributes"],
        "ReviewEvents": ["events:PutEvents"],
        "Ringing": ["cloudwatch:DescribeAlarms"],
    },
    "streaming": {
        "Fingerprints": ["dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:PutItem",
                         "dynamodb:Query", "dynamodb:UpdateItem"],
        "DeferredJobs": ["sqs:SendMessage"],
        "EndpointKey": ["secretsmanager:GetSecretValue"],
    },
}  # fmt: skip
"""All that the API may do; anything more is to be written here by somebody who means it."""


def translated(**given: str) -> Translation:
    values = {name: "1" if TEMPLATE["Parameters"][name]["Type"] == "Number" else "x" for name in TEMPLATE["Parameters"]}
    values |= {"Authorizer": "iam", "Architecture": "arm64", "KmsKeyArn": "", "ExistingBucketKeyArn": ""}
    values |= {"PolicyOverride": "", "ModelsOverride": "", "WebAdapterLayerArn": "", "SearchFunctionName": "", **given}
    return translate(ROOT / "api.yaml", stack_name="s", region="eu-west-1", parameters=values)


def test_it_is_off_unless_asked_for() -> None:
    assert PARENT["Parameters"]["Api"]["Default"] == "off"
    assert PARENT["Resources"]["ApiApplication"]["Condition"] == "HasApi"
    assert set(GIVEN) == set(TEMPLATE["Parameters"])


def test_it_may_do_what_is_written_down_and_nothing_else() -> None:
    allowed = {
        policy["PolicyName"]: {
            statement["Sid"]: listed(statement["Action"]) for statement in policy["PolicyDocument"]["Statement"]
        }
        for policy in RESOURCES["ApiRole"]["Properties"]["Policies"]
    }
    assert allowed == ACTIONS
    assert "ManagedPolicyArns" not in RESOURCES["ApiRole"]["Properties"]
    for policy in RESOURCES["ApiRole"]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Resource"] != "*" or statement["Sid"] == "Traces"


@pytest.mark.parametrize("authorizer", ["iam", "cognito"])
def test_nobody_is_served_without_an_authorizer_and_every_answer_streams(authorizer: str) -> None:
    resources = translated(Authorizer=authorizer).resources
    method = resources["ApiMethod"].properties
    assert method["AuthorizationType"] == {"iam": "AWS_IAM", "cognito": "COGNITO_USER_POOLS"}[authorizer]
    assert ("AuthorizerId" in method) == (authorizer == "cognito")
    assert method["Integration"]["ResponseTransferMode"] == "STREAM"
    assert method["Integration"]["Uri"].endswith("/response-streaming-invocations")
    methods = [it for it in resources.values() if it.type == "AWS::ApiGateway::Method"]
    assert len(methods) == 1


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ({"Api": "off"}, None),
        ({"Api": "iam"}, ["https://*.execute-api.eu-west-1.amazonaws.com"]),
        ({"Api": "iam", "ApiOrigins": "https://captions.example"}, ["https://captions.example"]),
        (
            {"Api": "iam", "ApiOrigins": "https://a.example,http://b.example:81"},
            ["https://a.example", "http://b.example:81"],
        ),
    ],
)
def test_pages_of_the_api_alone_use_the_bucket(given: dict[str, str], origins: list[str] | None) -> None:
    parameters = {"EndpointUrls": "https://models.example/v1", **given}
    stack = translate(ROOT / "template.yaml", stack_name="s", region="eu-west-1", parameters=parameters)
    rules = stack.resources["MediaBucket"].properties.get("CorsConfiguration", {}).get("CorsRules")
    allowed = None if rules is None else [rule["AllowedOrigins"] for rule in rules]
    assert allowed == (None if origins is None else [origins])


@pytest.mark.parametrize(
    "bad", ["*", "https://a.example/", "https://a.example, https://b.example", "a.example", "https://*/x"]
)
def test_an_origin_that_no_browser_sends_is_refused(bad: str) -> None:
    assert not re.fullmatch(PARENT["Parameters"]["ApiOrigins"]["AllowedPattern"], bad)


def test_people_cannot_change_the_prefixes_they_are_limited_to() -> None:
    pool = RESOURCES["UserPool"]["Properties"]
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert RESOURCES["UserPoolClient"]["Properties"]["WriteAttributes"] == ["email"]


def test_the_function_is_told_all_that_it_needs() -> None:
    variables = translated().resources["ApiFunction"].properties["Environment"]["Variables"]
    given = {name: value for name, value in variables.items() if value != "x"}
    settings = ApiSettings.from_env({**dict.fromkeys(variables, "5"), **given, "NEAR_DUPLICATES": "strict",
                                     "API_AUTHORIZER": "iam", "REPLICA_HANDLING": "caption"})  # fmt: skip
    assert settings.api_authorizer == "iam"
    wanted = {name.upper() for name, about in ApiSettings.model_fields.items() if about.is_required()}
    assert wanted <= set(variables)


def test_no_function_has_more_than_five_layers() -> None:
    assert len(translated().resources["ApiFunction"].properties["Layers"]) == 5


def test_the_search_function_may_be_invoked_where_there_is_one() -> None:
    name = GIVEN["SearchFunctionName"]["Fn::If"]
    doors = load_template(ROOT / "doors.yaml")["Resources"]["SearchFunction"]["Properties"]["FunctionName"]
    assert name == ["Searches", {"Fn::Sub": doors["Fn::Sub"].replace("${Pipeline}", "${AWS::StackName}")}, ""]
    policy = translated(SearchFunctionName="stack-search").resources["SearchPolicy"].properties
    (allowed,) = policy["PolicyDocument"]["Statement"]
    assert (allowed["Action"], allowed["Resource"].rpartition(":function:")[2]) == (
        "lambda:InvokeFunction",
        "stack-search:live",
    )
    assert "SearchPolicy" not in translated().resources
