"""Invariants of the nested template of functions beside the way of an upload, and of what it is given."""

import re
from typing import Any

from captions.uploads.version import COPIES_WRITTEN_BACK
from captions_cli.local.cloudformation.translate import load_template, translate
from support.template import DOORS, ROOT, current, doors

GIVEN: dict[str, Any] = load_template(ROOT / "template.yaml")["Resources"][DOORS]
PARAMETERS: dict[str, Any] = doors().raw["Parameters"]


def test_it_is_given_every_parameter_that_has_no_default() -> None:
    given = GIVEN["Properties"]["Parameters"]
    assert set(given) == {name for name, declared in PARAMETERS.items() if "Default" not in declared}
    assert all(len(declared["Description"]) > 15 for declared in PARAMETERS.values())


def test_a_door_that_is_not_wanted_makes_nothing() -> None:
    """Idle queues are polled, and alarms cost by the month."""
    resources = doors().raw["Resources"]
    assert all("Condition" in resource for resource in resources.values())
    assert GIVEN["Condition"] == "OpensDoors"
    values = {"EndpointUrls": "https://models.example/v1"}
    closed = translate(ROOT / "template.yaml", stack_name="captions", region="eu-central-1", parameters=values)
    assert DOORS not in closed.resources
    assert "SearchLayer" not in closed.resources
    values |= {"Webhooks": "/captions/webhooks", "KmsKeyArn": "create"}
    opened = translate(ROOT / "template.yaml", stack_name="captions", region="eu-central-1", parameters=values)
    assert ":key/" in opened.resources[DOORS].properties["Parameters"]["KeyArn"]


def test_a_changed_layer_or_parameter_is_published() -> None:
    """Of a nested template both come as parameters' values, which change no version of SAM's."""
    for name, version in doors().of_type("AWS::Lambda::Version"):
        function = doors().raw["Resources"][version["FunctionName"]["Ref"]]["Properties"]
        text, named = version["Description"]["Fn::Sub"]
        assert "${Configuration}" in text, name
        numbers = {repr({"Fn::Select": [7, {"Fn::Split": [":", layer]}]}) for layer in function["Layers"]}
        assert numbers == {repr(value) for value in named.values()}, name
        assert all(f"${{{value}}}" in text for value in named), name
        assert function["AutoPublishAliasAllProperties"] is True
        variables = doors().resources[version["FunctionName"]["Ref"]]["Properties"]["Environment"]["Variables"]
        assert variables["CONFIGURATION_VERSION"] == {"Ref": "Configuration"}
    content = current().raw["Resources"]["Configuration"]["Properties"]["Content"]["Fn::Sub"]
    used = {"Webhooks", "Search", "SearchDelaySeconds", "LogLevel", "AwsEndpointUrl", "Architecture"}
    assert used <= set(re.findall(r"\$\{(\w+)\}", content))


def test_alarms_are_told_to_the_topic_and_an_update_is_stopped_by_those_of_its_function() -> None:
    for name, alarm in doors().of_type("AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopicArn"}], name
    for name, group in doors().of_type("AWS::CodeDeploy::DeploymentGroup"):
        (alarm,) = group["AlarmConfiguration"]["Alarms"]
        watched = doors().resources[doors().target(alarm["Name"])]["Properties"]
        assert watched["MetricName"] == "Errors", name
        dimensions = {d["Name"]: d["Value"] for d in watched["Dimensions"]}
        function = dimensions["FunctionName"]["Ref"]
        assert dimensions["Resource"] == {"Fn::Sub": f"${{{function}}}:live"}
        assert name.startswith(function)


def test_each_rule_takes_what_the_product_tells_and_alone_may_send_to_its_queue() -> None:
    policies = [policy for _, policy in doors().of_type("AWS::SQS::QueuePolicy")]
    for name, rule in doors().of_type("AWS::Events::Rule"):
        if "ScheduleExpression" in rule:
            continue
        assert rule["EventPattern"]["source"] == ["media-captions"]
        assert rule["EventBusName"] == {"Ref": "EventBusName"}
        (target,) = rule["Targets"]
        queues = {doors().target(target["Arn"]), doors().target(target["DeadLetterConfig"]["Arn"])}
        (allowed,) = [
            statement
            for policy in policies
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Allow" and name in str(statement["Condition"])
        ]
        assert {doors().target(queue) for queue in allowed["Resource"]} == queues
        assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [name, "Arn"]}}}


def test_copies_elsewhere_are_all_that_write_back_may_write_there() -> None:
    assert doors().raw["Conditions"]["WritesCopiesElsewhere"]
    policy = doors().raw["Resources"]["WriteBackCopiesPolicy"]
    assert policy["Condition"] == "WritesCopiesElsewhere"
    written, listed = policy["Properties"]["PolicyDocument"]["Statement"]
    assert {resource["Fn::Sub"].partition("/")[2] for resource in written["Resource"]} == {
        f"*{end}" for end in COPIES_WRITTEN_BACK
    }
    assert listed["Action"] == "s3:ListBucket"
    assert all("${CopiesBucketName}" in each["Fn::Sub"] for each in (*written["Resource"], listed["Resource"]))
