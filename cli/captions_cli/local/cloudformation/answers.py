"""How CloudFormation's API describes templates, stacks and changes, and what a template needs to be allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError

from captions_cli.local.cloudformation import provisioning
from captions_cli.local.cloudformation.provider import Clients
from captions_cli.local.cloudformation.resources import Resource
from captions_cli.local.cloudformation.stacks import Change, CloudFormationError, StackRecord

_IAM_TYPES = {"AWS::IAM::Role": "RoleName", "AWS::IAM::ManagedPolicy": "ManagedPolicyName", "AWS::IAM::Policy": ""}


def _transforms(document: Mapping[str, Any]) -> list[str]:
    declared = document.get("Transform", [])
    return [str(name) for name in (declared if isinstance(declared, list) else [declared])]


def _needed_capabilities(document: Mapping[str, Any]) -> list[str]:
    """The capabilities that a template needs; SAM makes roles for functions that name none."""
    needed = set()
    for resource in document["Resources"].values():
        properties = resource.get("Properties") or {}
        if resource["Type"] in _IAM_TYPES:
            named = _IAM_TYPES[resource["Type"]] in properties
            needed.add("CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM")
        if resource["Type"] == "AWS::Serverless::Function" and "Role" not in properties:
            needed.add("CAPABILITY_IAM")
    return sorted(needed)


def check_capabilities(document: Mapping[str, Any], given: Sequence[str], *, directly: bool) -> None:
    """Refuse what AWS refuses; `directly`: without a change set, where a transform has to be allowed as well."""
    missing = set(_needed_capabilities(document)) - set(given)
    if "CAPABILITY_NAMED_IAM" in given:
        missing.discard("CAPABILITY_IAM")
    if directly and _transforms(document) and "CAPABILITY_AUTO_EXPAND" not in given:
        missing.add("CAPABILITY_AUTO_EXPAND")
    if missing:
        raise CloudFormationError("InsufficientCapabilitiesException", f"Requires capabilities : {sorted(missing)}")


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what GetTemplateSummary answers about a template, and ValidateTemplate a part of."""
    parameters = [
        {
            "ParameterKey": name,
            "DefaultValue": None if "Default" not in parameter else str(parameter["Default"]),
            "ParameterType": parameter.get("Type", "String"),
            "NoEcho": bool(parameter.get("NoEcho")),
            "Description": parameter.get("Description"),
        }
        for name, parameter in document.get("Parameters", {}).items()
    ]
    return {
        "Description": document.get("Description", ""),
        "Parameters": parameters,
        "ResourceTypes": sorted({resource["Type"] for resource in document["Resources"].values()}),
        "DeclaredTransforms": _transforms(document),
        "Capabilities": _needed_capabilities(document),
    }


def parameters_shown(values: Mapping[str, str], document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the parameters of a stack; what `NoEcho` hides stays hidden."""
    declared = document.get("Parameters", {})
    return [
        {"ParameterKey": name, "ParameterValue": "****" if declared.get(name, {}).get("NoEcho") else value}
        for name, value in values.items()
    ]


def described(stack: StackRecord) -> dict[str, Any]:
    """Return a stack as DescribeStacks shows it."""
    translation = stack.translation
    outputs = translation.outputs if translation else {}
    descriptions = translation.output_descriptions if translation else {}
    drift = stack.drift or {"StackDriftStatus": "NOT_CHECKED"}
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "Description": str((translation.processed if translation else {}).get("Description", "")),
        "Parameters": parameters_shown(translation.parameters if translation else {}, {"Parameters": stack.declared}),
        "CreationTime": stack.created,
        "LastUpdatedTime": stack.updated,
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason,
        "DisableRollback": False,
        "Capabilities": list(stack.capabilities),
        "Outputs": [
            {"OutputKey": name, "OutputValue": value, "Description": descriptions.get(name, "")}
            for name, value in outputs.items()
        ],
        "Tags": list(stack.tags),
        "EnableTerminationProtection": stack.protected,
        "ParentId": stack.parent,
        "DriftInformation": {
            "StackDriftStatus": drift["StackDriftStatus"],
            "LastCheckTimestamp": drift.get("Timestamp"),
        },
    }


def described_change(change: Change) -> dict[str, Any]:
    """Return a change as DescribeChangeSet shows it."""
    resource = change.resource
    described: dict[str, Any] = {
        "Action": change.action,
        "LogicalResourceId": resource.logical_id,
        "ResourceType": resource.type,
    }
    if change.before is not None:
        described["PhysicalResourceId"] = change.before.reference
    if change.before is not None and change.after is not None:
        old, new = change.before.properties, change.after.properties
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        described |= {
            "Replacement": "True" if change.replaced else "False",
            "Scope": ["Properties"],
            "Details": [
                {
                    "Target": {"Attribute": "Properties", "Name": name, "RequiresRecreation": "Never"},
                    "Evaluation": "Static",
                    "ChangeSource": "DirectModification",
                }
                for name in names
            ],
        }
    return {"Type": "Resource", "ResourceChange": described}


def error_document(code: str, message: str, request_id: str) -> str:
    """Return the body of an answer that is an error."""
    return (
        '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>'
        f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )


def drift_of(stack: StackRecord, resource: Resource, clients: Clients) -> dict[str, Any]:
    """Return whether a resource is what the stack made it, as DescribeStackResourceDrifts shows it."""
    described: dict[str, Any] = {
        "StackId": stack.id,
        "LogicalResourceId": resource.logical_id,
        "PhysicalResourceId": resource.reference,
        "ResourceType": resource.type,
        "Timestamp": datetime.now(UTC),
    }
    try:
        different = provisioning.drifted(resource, clients)
    except ClientError:
        return described | {"StackResourceDriftStatus": "DELETED"}
    if different is None:
        return described | {"StackResourceDriftStatus": "NOT_CHECKED"}
    described["StackResourceDriftStatus"] = "MODIFIED" if different else "IN_SYNC"
    described["PropertyDifferences"] = [
        {
            "PropertyPath": f"/{name}",
            "ExpectedValue": json.dumps(expected, default=str),
            "ActualValue": json.dumps(actual, default=str),
            "DifferenceType": "NOT_EQUAL",
        }
        for name, expected, actual in different
    ]
    return described
