"""Tells where a stack's resources are no longer as its template made them, and which resources it has."""

import time
from dataclasses import dataclass
from typing import Any

from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack

DETECTION_SECONDS = 300.0
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Drifted:
    """A resource that is not as the template says."""

    logical_id: str
    kind: str
    status: str  # MODIFIED or DELETED
    difference: str


@dataclass(frozen=True)
class Drift:
    """What a detection found; `known` False: it could not be asked, and `why` says so."""

    known: bool
    resources: tuple[Drifted, ...] = ()
    why: str = ""


def detect(stack: Stack) -> Drift:
    """Ask CloudFormation for the stack's drift, and wait for the answer; a stack that is not there has none."""
    from botocore.exceptions import ClientError

    if not stack.exists:
        return Drift(True)
    cloudformation = stack.client("cloudformation")
    try:
        detection = cloudformation.detect_stack_drift(StackName=stack.name)["StackDriftDetectionId"]
        status = _wait(cloudformation, detection)
        if status["DetectionStatus"] == "DETECTION_FAILED":
            return Drift(False, why=str(status.get("DetectionStatusReason", "the detection failed")))
        if status.get("StackDriftStatus") == "IN_SYNC":
            return Drift(True)
        pages = cloudformation.describe_stack_resource_drifts(
            StackName=stack.name, StackResourceDriftStatusFilters=["MODIFIED", "DELETED"], MaxResults=100
        )
    except ClientError as error:
        details: Any = error.response.get("Error", {})
        return Drift(False, why=f"{error.operation_name}: {details.get('Code')}: {details.get('Message')}")
    return Drift(True, tuple(_drifted(resource) for resource in pages.get("StackResourceDrifts", [])))


def _wait(cloudformation: Any, detection: str) -> dict[str, Any]:
    deadline = time.monotonic() + DETECTION_SECONDS
    while True:
        status: dict[str, Any] = cloudformation.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            return status
        if time.monotonic() > deadline:
            raise CommandError(f"the drift detection did not end in {DETECTION_SECONDS:g} s", ExitCode.TIMEOUT)
        time.sleep(POLL_SECONDS)


def _drifted(resource: dict[str, Any]) -> Drifted:
    differences = [
        f"{difference['PropertyPath']}: {difference.get('ExpectedValue')} is {difference.get('ActualValue')}"
        for difference in resource.get("PropertyDifferences", [])
    ]
    return Drifted(
        resource["LogicalResourceId"],
        resource["ResourceType"],
        resource["StackResourceDriftStatus"],
        "; ".join(differences) or "gone",
    )


def resources(stack: Stack, *kinds: str) -> dict[str, str]:
    """Physical ids of the stack's resources of these types, by logical id, those of its nested stacks among them."""
    pages = stack.client("cloudformation").get_paginator("list_stack_resources")
    values: dict[str, str] = {}
    stacks = [stack.name]
    while stacks:
        for page in pages.paginate(StackName=stacks.pop()):
            for resource in page["StackResourceSummaries"]:
                if not resource.get("PhysicalResourceId"):
                    continue
                if resource["ResourceType"] == "AWS::CloudFormation::Stack":
                    stacks.append(resource["PhysicalResourceId"])
                if resource["ResourceType"] in kinds:
                    values[resource["LogicalResourceId"]] = resource["PhysicalResourceId"]
    return values
