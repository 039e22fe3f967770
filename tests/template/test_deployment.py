"""Invariants of how an update reaches the functions, and how it is taken back."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from support.template import Invariants, Template, current, properties

ALIAS = "live"

INVARIANTS = Invariants()
caught = INVARIANTS.caught


def versions(resources: dict[str, Any]) -> dict[str, str]:
    """The logical id of each function's published version: another id is another version."""
    return {
        resource["Properties"]["FunctionName"]["Ref"]: name
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Lambda::Version"
    }


@caught(
    lambda raw: [raw["Globals"]["Function"].pop(name) for name in ("AutoPublishAlias", "DeploymentPreference")],
    lambda raw: properties(raw, "SweepFunction").update(AutoPublishAlias="other"),
    lambda raw: properties(raw, "SweepFunction")["Events"]["Schedule"].update(
        Type="EventBridgeRule", Properties={"Pattern": {"source": ["x"]}}
    ),
    of_doors=True,
)
def events_and_schedules_go_to_the_alias(template: Template) -> Iterator[str]:
    functions = {name for name, _ in template.of_type("AWS::Lambda::Function")}
    aliases = {
        template.target(alias["FunctionName"]): name
        for name, alias in template.of_type("AWS::Lambda::Alias")
        if alias["Name"] == ALIAS
    }
    if missing := functions - set(aliases):
        yield f"{missing} have no alias {ALIAS}"
    reached = [mapping["FunctionName"] for _, mapping in template.of_type("AWS::Lambda::EventSourceMapping")]
    scheduled = [
        target["Arn"]
        for _, rule in template.of_type("AWS::Events::Rule")
        if "ScheduleExpression" in rule
        for target in rule["Targets"]
    ]
    permitted = [permission["FunctionName"] for _, permission in template.of_type("AWS::Lambda::Permission")]
    for node in (*reached, *scheduled, *permitted):
        if template.target(node) not in aliases.values():
            yield f"{template.target(node)} is called past its alias"
    if unreached := set(aliases.values()) - {template.target(node) for node in (*reached, *scheduled)}:
        yield f"nothing calls {unreached}"
    if sorted(map(template.target, scheduled)) != sorted(map(template.target, permitted)):
        yield f"{scheduled} are scheduled, {permitted} may be called"


@caught(
    lambda raw: raw["Globals"]["Function"].pop("DeploymentPreference"),
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"].update(Enabled=False),
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"].update(Type="AllAtOnce"),
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"].pop("Role"),
    of_doors=True,
)
def updates_shift_traffic_as_the_parameter_says_and_roll_back_on_failure(template: Template) -> Iterator[str]:
    chosen = "Linear10PercentEvery1Minute"
    resources = template.translated(DeploymentPreference=chosen)
    groups = {name: r["Properties"] for name, r in resources.items() if r["Type"] == "AWS::CodeDeploy::DeploymentGroup"}
    for name, resource in resources.items():
        if resource["Type"] != "AWS::Lambda::Alias":
            continue
        policy = resource.get("UpdatePolicy", {}).get("CodeDeployLambdaAliasUpdate", {})
        group = groups.get(policy.get("DeploymentGroupName", {}).get("Ref", ""))
        if group is None:
            yield f"{name} is switched over at once"
            continue
        if {"ConfigName": chosen} not in group["DeploymentConfigName"].get("Fn::Sub", []):
            yield f"{name} is not shifted as the parameter says"
        events = group["AutoRollbackConfiguration"]["Events"]
        if not {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"} <= set(events):
            yield f"{name} is not rolled back"
        if template.target(group["ServiceRoleArn"]) not in ("DeploymentRole", "DeploymentRoleArn"):
            yield f"{name} is shifted with a role of AWS's own making"


@caught(
    lambda raw: raw["Globals"]["LayerVersion"].pop("PublishLambdaVersion"),
    lambda raw: properties(raw, "CaptionFunction").pop("AutoPublishAliasAllProperties"),
    lambda raw: properties(raw, "InferenceLayer").update(RetentionPolicy="Delete"),
)
def a_changed_layer_reaches_the_alias_of_every_function_that_has_it(template: Template) -> Iterator[str]:
    before = versions(template.resources)
    for layer, declared in template.raw["Resources"].items():
        if declared["Type"] != "AWS::Serverless::LayerVersion":
            continue
        if declared["Properties"].get("RetentionPolicy") != "Retain":
            yield f"{layer}: the version that a rollback returns to loses its layer"
        raw = copy.deepcopy(template.raw)
        properties(raw, layer)["ContentUri"] = {"Bucket": "code", "Key": "changed"}
        after = versions(Template(raw).resources)
        for function, version in before.items():
            has_it = {"Ref": layer} in template.raw["Resources"][function]["Properties"]["Layers"]
            if (after.get(function) != version) != has_it:
                yield f"{layer} changed: {function} goes from {version} to {after.get(function)}"


@caught(
    lambda raw: properties(raw, "CaptionFunction").pop("AutoPublishAliasAllProperties"),
    of_doors=True,
)
def a_changed_function_gets_a_new_version(template: Template) -> Iterator[str]:
    before = versions(template.resources)
    for change in ({"MemorySize": 3008}, {"Timeout": 7}, {"CodeUri": {"Bucket": "code", "Key": "changed"}}):
        raw = copy.deepcopy(template.raw)
        for function in before:
            properties(raw, function).update(change)
        after = versions(Template(raw).resources)
        for function, version in before.items():
            if after[function] == version:
                yield f"{function}: {change} stays without effect"


@caught(
    lambda raw: properties(raw, "CaptionFunction").pop("VersionDescription"),
    lambda raw: properties(raw, "CaptionFunction").update(VersionDescription="Captions images"),
    lambda raw: raw["Globals"]["Function"]["Environment"]["Variables"].pop("CONFIGURATION_VERSION"),
    lambda raw: properties(raw, "Configuration").update(
        Content={"Fn::Sub": properties(raw, "Configuration")["Content"]["Fn::Sub"].replace("${ImageModels}", "")}
    ),
    lambda raw: raw["Globals"]["Function"]["Environment"]["Variables"].update(NEW={"Ref": "SweepSchedule"}),
    lambda raw: raw["Globals"]["Function"]["Environment"]["Variables"].update(NEW={"Fn::Sub": "x${SweepSchedule}"}),
)
def a_changed_parameter_reaches_the_alias(template: Template) -> Iterator[str]:
    """SAM's version ids do not depend on parameters' values; the description of the version must."""
    content = set(
        re.findall(r"\$\{(\w+)\}", template.raw["Resources"]["Configuration"]["Properties"]["Content"]["Fn::Sub"])
    )
    for name, version in template.of_type("AWS::Lambda::Version"):
        if version.get("Description") != {"Fn::Sub": "Configuration ${Configuration}"}:
            yield f"{name} stays when a parameter changes"
    conditions = template.raw["Conditions"]
    for name, function in template.of_type("AWS::Lambda::Function"):
        # To Lambda a version like the one before is none, which CloudFormation takes for an error.
        if function["Environment"]["Variables"].get("CONFIGURATION_VERSION") != {"Ref": "Configuration"}:
            yield f"{name} is the same function under every configuration"
        # How much runs at once is no part of a version.
        function = {key: value for key, value in function.items() if key != "ReservedConcurrentExecutions"}
        used = set(references([function, *(conditions[c] for c in conditions_in(function))]))
        if missing := used & set(template.raw["Parameters"]) - content:
            yield f"{name}: a change of {missing} is not published"


def references(node: Any) -> Iterator[str]:
    match node:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::Sub": str(text)}:
            yield from re.findall(r"\$\{(\w+)", text)
        case dict():
            for value in node.values():
                yield from references(value)
        case list():
            for value in node:
                yield from references(value)


def conditions_in(node: Any) -> Iterator[str]:
    match node:
        case {"Fn::If": [str(name), *branches]}:
            yield name
            yield from conditions_in(branches)
        case dict():
            for value in node.values():
                yield from conditions_in(value)
        case list():
            for value in node:
                yield from conditions_in(value)


def test_the_parameters_value_alone_does_not_change_sams_version() -> None:
    """Why there is a configuration resource at all: once this fails, it can go."""
    assert versions(current().translated(LogLevel="DEBUG")) == versions(current().resources)


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()
