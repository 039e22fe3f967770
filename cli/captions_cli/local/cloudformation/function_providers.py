"""What runs, and what starts it: functions, layers, aliases, event sources, rules, buses and roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from captions_cli.local.cloudformation.provider import Clients, Provider, tags_of, truth
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, Resource
from captions_cli.local.errors import StackError

# Lambda

_FUNCTION_CONFIGURATION = ("Role", "Handler", "Description", "Runtime")


def _function_configuration(function: Resource) -> dict[str, Any]:
    properties = function.properties
    configuration = {name: properties[name] for name in _FUNCTION_CONFIGURATION if properties.get(name)}
    configuration |= {name: int(properties[name]) for name in ("Timeout", "MemorySize") if name in properties}
    # Those of other accounts, as Lambda Web Adapter's is, are not here, nor is what they would start.
    configuration["Layers"] = [arn for arn in properties.get("Layers", []) if arn.split(":")[4] == ACCOUNT_ID]
    variables = properties.get("Environment", {}).get("Variables", {})
    configuration["Environment"] = {"Variables": {name: str(value) for name, value in variables.items()}}
    if "TracingConfig" in properties:
        configuration["TracingConfig"] = properties["TracingConfig"]
    if properties.get("KmsKeyArn"):
        configuration["KMSKeyArn"] = properties["KmsKeyArn"]
    return configuration


def _function_code(function: Resource) -> dict[str, Any]:
    code = function.properties.get("Code", {})
    if "S3Bucket" not in code:
        raise StackError(f"{function.logical_id}: the local stack runs code from S3 only")
    return {name: code[name] for name in ("S3Bucket", "S3Key", "S3ObjectVersion") if name in code}


def _put_function(function: Resource, before: Resource | None, clients: Clients) -> None:
    client = clients("lambda")
    configuration, code = _function_configuration(function), _function_code(function)
    if before is None:
        client.create_function(
            FunctionName=function.name,
            Code=code,
            Architectures=function.properties.get("Architectures", ["x86_64"]),
            Tags={tag["Key"]: tag["Value"] for tag in tags_of(function)},
            **configuration,
        )
    else:
        client.update_function_configuration(FunctionName=function.name, **configuration)
        client.update_function_code(FunctionName=function.name, **code)
    reserved = function.properties.get("ReservedConcurrentExecutions")
    if reserved is not None:
        client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=int(reserved))
    elif before is not None and "ReservedConcurrentExecutions" in before.properties:
        client.delete_function_concurrency(FunctionName=function.name)


def _delete_function(function: Resource, clients: Clients) -> None:
    clients("lambda").delete_function(FunctionName=function.name)


def _read_function(function: Resource, clients: Clients) -> Mapping[str, Any]:
    configuration = clients("lambda").get_function_configuration(FunctionName=function.name)
    return {
        "Timeout": configuration["Timeout"],
        "MemorySize": configuration["MemorySize"],
        "Handler": configuration["Handler"],
        "Environment": {"Variables": configuration.get("Environment", {}).get("Variables", {})},
    }


def _put_layer(layer: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        return  # a version does not change; another content is another version
    client, properties = clients("lambda"), layer.properties
    content = {n: v for n, v in properties["Content"].items() if n in {"S3Bucket", "S3Key", "S3ObjectVersion"}}
    answer = client.publish_layer_version(
        LayerName=layer.name,
        Description=properties.get("Description", ""),
        Content=content,
        CompatibleRuntimes=properties.get("CompatibleRuntimes", []),
        CompatibleArchitectures=properties.get("CompatibleArchitectures", []),
    )
    if answer["Version"] != layer.number:
        raise StackError(f"{layer.name} got version {answer['Version']} instead of {layer.number}")


def _delete_layer(layer: Resource, clients: Clients) -> None:
    clients("lambda").delete_layer_version(LayerName=layer.name, VersionNumber=layer.number)


def _function_name(reference: str) -> str:
    return reference.split(":function:")[-1].split(":")[0]


def _put_function_alias(alias: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        return  # it means what was deployed last
    clients("lambda").create_alias(
        FunctionName=_function_name(alias.properties["FunctionName"]), Name=alias.name, FunctionVersion="$LATEST"
    )


def _delete_function_alias(alias: Resource, clients: Clients) -> None:
    clients("lambda").delete_alias(FunctionName=_function_name(alias.properties["FunctionName"]), Name=alias.name)


_SOURCE_CHANGES = (
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "FunctionResponseTypes",
    "ScalingConfig",
    "FilterCriteria",
)


def _source_uuid(source: Resource, clients: Clients) -> str:
    arn, name = source.properties["EventSourceArn"], _function_name(source.properties["FunctionName"])
    mappings = clients("lambda").list_event_source_mappings(FunctionName=name, EventSourceArn=arn)[
        "EventSourceMappings"
    ]
    if not mappings:
        raise StackError(f"{source.logical_id}: {name} does not read {arn}")
    return str(mappings[0]["UUID"])


def _put_event_source(source: Resource, before: Resource | None, clients: Clients) -> None:
    client, properties = clients("lambda"), source.properties
    settings = {name: properties[name] for name in _SOURCE_CHANGES if name in properties}
    for name in ("BatchSize", "MaximumBatchingWindowInSeconds"):
        if name in settings:
            settings[name] = int(settings[name])
    if "ScalingConfig" in settings:
        settings["ScalingConfig"] = {name: int(value) for name, value in settings["ScalingConfig"].items()}
    settings["Enabled"] = truth(properties.get("Enabled", True))
    # moto does not find a function by its alias; an alias means the function here anyway.
    settings["FunctionName"] = _function_name(properties["FunctionName"])
    if before is None:
        client.create_event_source_mapping(EventSourceArn=properties["EventSourceArn"], **settings)
    else:
        client.update_event_source_mapping(UUID=_source_uuid(before, clients), **settings)


def _delete_event_source(source: Resource, clients: Clients) -> None:
    clients("lambda").delete_event_source_mapping(UUID=_source_uuid(source, clients))


# EventBridge


def _bus(rule: Resource) -> dict[str, str]:
    return {"EventBusName": rule.properties["EventBusName"]} if rule.properties.get("EventBusName") else {}


def _put_rule(rule: Resource, before: Resource | None, clients: Clients) -> None:
    events, properties = clients("events"), rule.properties
    settings = {
        name: properties[name] for name in ("Description", "State", "ScheduleExpression") if properties.get(name)
    }
    if "EventPattern" in properties:
        settings["EventPattern"] = json.dumps(properties["EventPattern"])
    events.put_rule(Name=rule.name, **settings, **_bus(rule))
    targets = properties.get("Targets", [])
    kept = {target["Id"] for target in targets}
    if before is not None:
        gone = [t["Id"] for t in before.properties.get("Targets", []) if t["Id"] not in kept]
        if gone:
            events.remove_targets(Rule=rule.name, Ids=gone, **_bus(rule))
    if targets:
        events.put_targets(Rule=rule.name, Targets=[_with_retries(target) for target in targets], **_bus(rule))


def _with_retries(target: Mapping[str, Any]) -> dict[str, Any]:
    """A target with its numbers as numbers."""
    translated = dict(target)
    if "RetryPolicy" in translated:
        translated["RetryPolicy"] = {name: int(value) for name, value in translated["RetryPolicy"].items()}
    return translated


def _delete_rule(rule: Resource, clients: Clients) -> None:
    events = clients("events")
    if ids := [target["Id"] for target in rule.properties.get("Targets", [])]:
        events.remove_targets(Rule=rule.name, Ids=ids, **_bus(rule))
    events.delete_rule(Name=rule.name, **_bus(rule))


def _read_rule(rule: Resource, clients: Clients) -> Mapping[str, Any]:
    described = clients("events").describe_rule(Name=rule.name, **_bus(rule))
    read: dict[str, Any] = {"State": described["State"]}
    if described.get("EventPattern"):
        read["EventPattern"] = json.loads(described["EventPattern"])
    return read


def _put_bus(bus: Resource, before: Resource | None, clients: Clients) -> None:
    if before is None:
        clients("events").create_event_bus(Name=bus.name)


def _delete_bus(bus: Resource, clients: Clients) -> None:
    clients("events").delete_event_bus(Name=bus.name)


# IAM


def _policy_text(document: Mapping[str, Any]) -> str:
    """A policy as IAM's stand-in takes it; IAM itself does without a version."""
    return json.dumps({"Version": "2012-10-17"} | dict(document))


def _put_role(role: Resource, before: Resource | None, clients: Clients) -> None:
    iam, properties = clients("iam"), role.properties
    trust = _policy_text(properties["AssumeRolePolicyDocument"])
    if before is None:
        iam.create_role(
            RoleName=role.name, AssumeRolePolicyDocument=trust, Description=properties.get("Description", "")
        )
    else:
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=trust)
    policies = {policy["PolicyName"]: policy["PolicyDocument"] for policy in properties.get("Policies", [])}
    for name, document in policies.items():
        iam.put_role_policy(RoleName=role.name, PolicyName=name, PolicyDocument=_policy_text(document))
    for policy in before.properties.get("Policies", []) if before else []:
        if policy["PolicyName"] not in policies:
            iam.delete_role_policy(RoleName=role.name, PolicyName=policy["PolicyName"])


def _delete_role(role: Resource, clients: Clients) -> None:
    iam = clients("iam")
    for name in iam.list_role_policies(RoleName=role.name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=role.name, PolicyName=name)
    iam.delete_role(RoleName=role.name)


def _put_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    iam, properties = clients("iam"), policy.properties
    roles = properties.get("Roles", [])
    for role in roles:
        document = _policy_text(properties["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=properties["PolicyName"], PolicyDocument=document)
    if before is not None:
        for role in set(before.properties.get("Roles", [])) - set(roles):
            iam.delete_role_policy(RoleName=role, PolicyName=before.properties["PolicyName"])


def _delete_policy(policy: Resource, clients: Clients) -> None:
    for role in policy.properties.get("Roles", []):
        clients("iam").delete_role_policy(RoleName=role, PolicyName=policy.properties["PolicyName"])


FUNCTIONS: Mapping[str, Provider] = {
    "AWS::Lambda::Function": Provider(_put_function, _delete_function, frozenset({"PackageType"}), _read_function),
    "AWS::Lambda::LayerVersion": Provider(_put_layer, _delete_layer),
    "AWS::Lambda::Alias": Provider(_put_function_alias, _delete_function_alias, frozenset({"FunctionName"})),
    "AWS::Lambda::EventSourceMapping": Provider(_put_event_source, _delete_event_source, frozenset({"EventSourceArn"})),
    "AWS::Events::Rule": Provider(_put_rule, _delete_rule, frozenset({"EventBusName"}), _read_rule),
    "AWS::Events::EventBus": Provider(_put_bus, _delete_bus),
    "AWS::IAM::Role": Provider(_put_role, _delete_role, frozenset({"Path"})),
    "AWS::IAM::Policy": Provider(_put_policy, _delete_policy, frozenset({"PolicyName"})),
}
