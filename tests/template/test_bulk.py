"""What holds of bulk.yaml: what its function may do, what it is told, and that it takes what template.yaml gives."""

import re
from typing import Any

from captions.config.function_environments import BulkSettings
from captions_cli.local.cloudformation.resources import Translation
from captions_cli.local.cloudformation.translate import load_template, translate
from support.template import BULK, ROOT, bulk, current, listed

PARENT = load_template(ROOT / "template.yaml")
GIVEN: dict[str, Any] = PARENT["Resources"][BULK]["Properties"]["Parameters"]
TEMPLATE = bulk()
PARAMETERS: dict[str, Any] = TEMPLATE.raw["Parameters"]
ACTIONS = {
    "Logs": ["logs:CreateLogStream", "logs:PutLogEvents"],
    "Traces": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
    "OwnQueue": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"],
    "Jobs": ["sqs:SendMessage"],
    "Media": ["s3:GetObject", "s3:GetObjectVersion"],
    "GoneOrForbidden": ["s3:ListBucket", "s3:ListBucketVersions"],
    "Lines": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
    "LinesThatAreGone": ["s3:ListBucket"],
    "Captions": ["dynamodb:GetItem", "dynamodb:UpdateItem"],
    "Fingerprints": ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:Query", "dynamodb:UpdateItem"],
    "Control": ["dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:PutItem",
                "dynamodb:Query", "dynamodb:UpdateItem"],
    "EndpointKey": ["secretsmanager:GetSecretValue"],
    "CompletionEvents": ["events:PutEvents"],
}  # fmt: skip
"""All that the function may do; anything more is to be written here by somebody who means it."""


def translated(**given: str) -> Translation:
    values = {name: "600" if about["Type"] == "Number" else "x" for name, about in PARAMETERS.items()}
    values |= {"Architecture": "arm64", "KeyArn": "", "ExistingBucketKeyArn": "", "PolicyOverride": ""}
    arns = {name: f"arn:aws:lambda:eu-west-1:1:layer:{name}:7" for name in PARAMETERS if name.endswith("Layer")}
    values |= {"ModelsOverride": "", "BulkMaxBytes": "95000000", "BulkPatienceSeconds": "93600", **arns, **given}
    return translate(ROOT / "bulk.yaml", stack_name="s", region="eu-west-1", parameters=values)


def test_it_is_off_unless_asked_for_and_costs_nothing_then() -> None:
    assert PARENT["Parameters"]["Bulk"]["Default"] == "off"
    assert PARENT["Resources"][BULK]["Condition"] == "KeepsBatches"
    values = {"EndpointUrls": "https://models.example/v1"}
    closed = translate(ROOT / "template.yaml", stack_name="captions", region="eu-central-1", parameters=values)
    assert BULK not in closed.resources
    assert "BulkJobsPolicy" not in closed.resources
    variables = closed.resources["DedupeFunction"].properties["Environment"]["Variables"]
    assert variables["BULK_QUEUE_URL"] == ""


def test_while_it_drains_it_stays_and_takes_nothing_new() -> None:
    def opened(bulk: str) -> Translation:
        values = {"EndpointUrls": "https://models.example/v1", "Bulk": bulk, "BulkGatherSeconds": "60"}
        return translate(ROOT / "template.yaml", stack_name="captions", region="eu-central-1", parameters=values)

    drained, open_ = opened("draining"), opened("batches")
    assert drained.resources["DedupeFunction"].properties["Environment"]["Variables"]["BULK_QUEUE_URL"] == ""
    assert set(drained.resources) == set(open_.resources)  # a dedupe function of before may still send to its queue
    gathers = [template.resources[BULK].properties["Parameters"]["BulkGatherSeconds"] for template in (open_, drained)]
    assert [int(seconds) for seconds in gathers] == [60, 0]  # what waits is sent at once


def test_it_is_given_every_parameter_that_has_no_default() -> None:
    assert set(GIVEN) == {name for name, declared in PARAMETERS.items() if "Default" not in declared}
    assert all(len(declared["Description"]) > 12 for declared in PARAMETERS.values())


def test_the_function_may_do_what_is_written_down_and_nothing_else() -> None:
    role = TEMPLATE.raw["Resources"]["BulkRole"]["Properties"]
    (policy,) = role["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    assert {statement["Sid"]: listed(statement["Action"]) for statement in statements} == ACTIONS
    assert "ManagedPolicyArns" not in role
    for statement in statements:
        assert statement["Resource"] != "*" or statement["Sid"] == "Traces"
    by_sid = {statement["Sid"]: statement["Resource"] for statement in statements}
    assert by_sid["Lines"] == {"Fn::Sub": "${BulkBucket.Arn}/*"}
    assert "MediaBucketName" in str(by_sid["Media"])


def test_dedupe_may_send_to_its_queue_where_there_is_one() -> None:
    policy = PARENT["Resources"]["BulkJobsPolicy"]
    assert policy["Condition"] == "KeepsBatches"
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Action"] == "sqs:SendMessage"
    name = TEMPLATE.raw["Resources"]["BulkQueue"]["Properties"]["QueueName"]["Fn::Sub"].replace(
        "Pipeline", "AWS::StackName"
    )
    assert GIVEN["Pipeline"] == {"Ref": "AWS::StackName"}
    assert statement["Resource"]["Fn::Sub"].rpartition(":${AWS::AccountId}:")[2] == name
    values = {"EndpointUrls": "https://models.example/v1", "Bulk": "batches"}
    opened = translate(ROOT / "template.yaml", stack_name="captions", region="eu-central-1", parameters=values)
    url = opened.resources["DedupeFunction"].properties["Environment"]["Variables"]["BULK_QUEUE_URL"]
    own = translated(Pipeline="captions").resources["BulkQueue"]
    assert url.rpartition("/")[2] == own.name == "captions-bulk"


def test_the_function_is_told_all_that_it_needs() -> None:
    variables = translated().resources["BulkFunction"].properties["Environment"]["Variables"]
    settings = BulkSettings.from_env({**variables, "ENDPOINT_URLS": "https://e/v1", "DAILY_BUDGET_DOLLARS": "",
                                      "PREFIX_BUDGETS": ""})  # fmt: skip
    assert settings.bulk_max_requests == 600
    wanted = {name.upper() for name, about in BulkSettings.model_fields.items() if about.is_required()}
    assert wanted | {"BULK_QUEUE_URL"} <= set(variables)
    defaults = BulkSettings.model_fields
    for name in ("BulkMaxRequests", "BulkMaxBytes", "BulkPatienceSeconds"):
        own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        assert PARAMETERS[name]["Default"] == defaults[own].default, name
    assert PARENT["Parameters"]["BulkGatherSeconds"]["Default"] == defaults["bulk_gather_seconds"].default


def test_its_queue_waits_for_six_timeouts_and_the_window() -> None:
    resources = TEMPLATE.resources
    (mapping,) = (mapped for _, mapped in TEMPLATE.of_type("AWS::Lambda::EventSourceMapping"))
    function = resources["BulkFunction"]["Properties"]
    visible = resources["BulkQueue"]["Properties"]["VisibilityTimeout"]
    assert visible >= 6 * function["Timeout"] + mapping["MaximumBatchingWindowInSeconds"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert resources["BulkQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"] >= 5
    assert mapping["MaximumBatchingWindowInSeconds"] > 0


def test_what_it_keeps_is_closed_to_others_and_goes_by_itself() -> None:
    bucket = TEMPLATE.raw["Resources"]["BulkBucket"]["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert any(rule.get("ExpirationInDays") == 7 for rule in bucket["LifecycleConfiguration"]["Rules"])


def test_a_changed_layer_or_parameter_is_published() -> None:
    ((_, version),) = TEMPLATE.of_type("AWS::Lambda::Version")
    text, named = version["Description"]["Fn::Sub"]
    layers = TEMPLATE.raw["Resources"]["BulkFunction"]["Properties"]["Layers"]
    assert {repr({"Fn::Select": [7, {"Fn::Split": [":", layer]}]}) for layer in layers} == {
        repr(value) for value in named.values()
    }
    assert "${Configuration}" in text
    content = current().raw["Resources"]["Configuration"]["Properties"]["Content"]["Fn::Sub"]
    assert {"Bulk", "BulkGatherSeconds"} <= set(re.findall(r"\$\{(\w+)\}", content))


def test_each_alarm_names_its_page_and_a_metric_that_is_written() -> None:
    written = " ".join(path.read_text() for path in (ROOT / "shared" / "captions" / "bulk").glob("*.py"))
    pages = {page.name for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    for name, alarm in TEMPLATE.of_type("AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopicArn"}], name
        assert alarm["AlarmDescription"]["Fn::Sub"].rpartition("/")[2] in pages, name
        for metric in re.findall(r"'MetricName': '(Bulk\w+)'", str(alarm)):
            assert f'"{metric}"' in written, metric
