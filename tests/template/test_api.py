"""What holds of api.yaml: what its function may do, what it is told, and that it takes what template.yaml gives."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from captions_api import console
from captions_api.access import CLAIM
from captions_api.own_table import LEASE_SECONDS

from captions.config.function_environments import ApiSettings
from captions_cli.local.cloudformation.resources import Translation
from captions_cli.local.cloudformation.translate import load_template, translate
from support.sign_in import route_of, routes
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
    values |= {
        "PolicyOverride": "",
        "ModelsOverride": "",
        "WebAdapterLayerArn": "",
        "SearchFunctionName": "",
        "ApiOrigins": "",
        **given,
    }
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
def test_nobody_is_served_data_without_an_authorizer_and_every_answer_streams(authorizer: str) -> None:
    resources = translated(Authorizer=authorizer).resources
    methods = {
        name: resource.properties for name, resource in resources.items() if resource.type == "AWS::ApiGateway::Method"
    }
    assert set(methods) == {"ApiMethod", "PageMethod", "ConfigurationMethod", "StaticFileMethod"}
    for name, method in methods.items():
        kind = {"iam": "AWS_IAM", "cognito": "COGNITO_USER_POOLS" if name == "ApiMethod" else "NONE"}[authorizer]
        assert method["AuthorizationType"] == kind
        assert ("AuthorizerId" in method) == (kind == "COGNITO_USER_POOLS")
        assert method["Integration"]["ResponseTransferMode"] == "STREAM"
        assert method["Integration"]["Uri"].endswith("/response-streaming-invocations")


def test_the_routes_that_people_need_before_they_have_a_token_are_these_alone() -> None:
    assert routes() == {
        ("ANY", "/{proxy+}"): True,
        ("GET", "/"): False,
        ("GET", "/config.json"): False,
        ("GET", "/static/{proxy+}"): False,
    }
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for path in document["paths"]:
        assert route_of("GET", path.replace("{id}", "x")) is True
    assert route_of("POST", "/static/x.js") is None


@pytest.mark.parametrize("authorizer", ["iam", "cognito"])
def test_other_routes_are_another_deployment(authorizer: str) -> None:
    """A deployment is what its routes were when it was made: CloudFormation makes another for another name alone."""
    kinds = {f"AWS::ApiGateway::{kind}" for kind in ("RestApi", "Resource", "Method", "Authorizer")}
    served = {name: resource for name, resource in RESOURCES.items() if resource["Type"] in kinds}
    digest = hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()[:8]
    resources = translated(Authorizer=authorizer).resources
    (name,) = [name for name, resource in resources.items() if resource.type == "AWS::ApiGateway::Deployment"]
    assert name == f"{authorizer.capitalize()}Deployment{digest}"
    assert set(RESOURCES[name]["DependsOn"]) == {
        id_ for id_, about in served.items() if about["Type"].endswith("Method")
    }
    chosen = RESOURCES["Stage"]["Properties"]["DeploymentId"]["Fn::If"]
    assert chosen == ["HasCognito", {"Ref": f"CognitoDeployment{digest}"}, {"Ref": f"IamDeployment{digest}"}]


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
    pool, client = RESOURCES["UserPool"]["Properties"], RESOURCES["UserPoolClient"]["Properties"]
    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert client["WriteAttributes"] == ["email"]
    # Beside other scopes, and where the client may not read it, an ID token lacks the attribute that limits its owner.
    assert client["AllowedOAuthScopes"] == [console.SCOPE] == ["openid"]
    assert CLAIM in client["ReadAttributes"]


def test_the_client_is_public_and_signs_people_in_by_a_code_alone() -> None:
    client = RESOURCES["UserPoolClient"]["Properties"]
    assert client["GenerateSecret"] is False
    assert client["AllowedOAuthFlows"] == ["code"]
    assert client["RefreshTokenRotation"]["Feature"] == "ENABLED"
    assert "ALLOW_REFRESH_TOKEN_AUTH" not in client["ExplicitAuthFlows"], "Cognito refuses it beside rotation"
    expression = RESOURCES["Authorized"]["Properties"]["IdentityValidationExpression"]
    assert expression == {"Fn::Sub": "^${UserPoolClient}$"}


@pytest.mark.parametrize(
    ("origins", "addresses"),
    [
        ("", ["https://x-api.execute-api.eu-west-1.amazonaws.com/live/"]),
        ("https://captions.example", ["https://captions.example/"]),
        ("https://a.example,https://b.example", ["https://a.example/", "https://b.example/"]),
    ],
)
def test_people_are_led_back_to_the_consoles_own_addresses_alone(origins: str, addresses: list[str]) -> None:
    resources = translated(Authorizer="cognito", ApiOrigins=origins).resources
    client, pool = resources["UserPoolClient"].properties, resources["UserPool"].properties
    assert client["CallbackURLs"] == addresses
    assert client["LogoutURLs"] == client["CallbackURLs"]
    message = pool["AdminCreateUserConfig"]["InviteMessageTemplate"]["EmailMessage"]
    assert addresses[0].removesuffix("/") in message
    assert {"{username}", "{####}"} <= set(re.findall(r"\{[^}]+\}", message))


def test_the_function_is_told_all_that_it_needs() -> None:
    variables = translated().resources["ApiFunction"].properties["Environment"]["Variables"]
    given = {name: value for name, value in variables.items() if value != "x"}
    settings = ApiSettings.from_env({**dict.fromkeys(variables, "5"), **given, "NEAR_DUPLICATES": "strict",
                                     "API_AUTHORIZER": "iam", "REPLICA_HANDLING": "caption"})  # fmt: skip
    assert settings.api_authorizer == "iam"
    wanted = {name.upper() for name, about in ApiSettings.model_fields.items() if about.is_required()}
    assert wanted <= set(variables)


def test_a_write_is_believed_to_be_under_way_for_as_long_as_the_function_may_run() -> None:
    assert translated().resources["ApiFunction"].properties["Timeout"] < LEASE_SECONDS


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
