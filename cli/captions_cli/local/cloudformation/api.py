"""CloudFormation on one machine: stacks made, changed and deleted through change sets, as `sam deploy` does it.

SAM's transform is applied when a change set is created, as in AWS, by aws-sam-translator. `updates` carries a change
set out and rolls a failed one back, `stacks` keeps what there is, `answers` writes the API's answers.
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.cloudformation.answers import (
    check_capabilities,
    described,
    described_change,
    drift_of,
    error_document,
    parameters_shown,
    summary,
)
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, Translation, new_stack_id, partition_of
from captions_cli.local.cloudformation.stacks import (
    ChangeSet,
    CloudFormationError,
    StackRecord,
    Stacks,
    changes_between,
)
from captions_cli.local.cloudformation.translate import parse_template
from captions_cli.local.cloudformation.updates import RegionalClients, Updates
from captions_cli.local.errors import StackError

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_STOP_S = 10.0


class CloudFormation:
    """Answers CloudFormation's API; everything else is passed on. The arguments are those of `Updates`."""

    def __init__(
        self,
        clients: RegionalClients,
        deployed: Callable[[Sequence[Translation]], None],
        removed: Callable[[Translation], None],
    ) -> None:
        self._stacks = Stacks()
        self._updates = Updates(self._stacks, clients, deployed, removed)
        self._detections: dict[str, dict[str, Any]] = {}
        self._threads: list[threading.Thread] = []

    def __call__(self, call: AwsCall, forward: Forward) -> Any:
        """Answer a call to CloudFormation."""
        if call.service != "cloudformation":
            return forward(call)
        from moto.core.parse import QueryParser
        from moto.core.serialize import QuerySerializer, SerializationContext
        from moto.core.utils import get_service_model
        from werkzeug.datastructures import MultiDict
        from werkzeug.wrappers import Response

        try:
            operation = self._operations().get(call.action)
            if operation is None:
                raise CloudFormationError("InvalidAction", f"the local stack has no CloudFormation {call.action}")
            model = get_service_model("cloudformation").operation_model(call.action)
            fields = parse_qs(call.body.decode(), keep_blank_values=True)
            values = MultiDict([(name, value) for name, given in fields.items() for value in given])
            request = QueryParser(model).parse({"values": values})
            result = operation(request, call.region)
        except CloudFormationError as error:
            return Response(error_document(error.code, str(error), call.request_id), 400, content_type="text/xml")
        except StackError as error:
            text = error_document("ValidationError", str(error), call.request_id)
            return Response(text, 400, content_type="text/xml")
        serialized = QuerySerializer(model, context=SerializationContext(call.request_id)).serialize(result)
        return Response(serialized["body"], serialized["status_code"], content_type="text/xml")

    def create(self, translation: Translation, template: str = "") -> None:
        """Make a stack from what is translated already, and wait for it. Raises StackError if it fails."""
        stack = StackRecord(translation.stack_name, translation.region, translation.stack_id, template=template)
        stack.declared = translation.processed.get("Parameters", {})
        self._stacks.count_layers(translation, None)
        self._stacks.add(stack)
        self._updates.apply(stack, translation)
        if stack.status != "CREATE_COMPLETE":
            raise StackError(f"the stack ended as {stack.status}: {stack.reason}")

    def stop(self) -> None:
        """Let what is under way end."""
        self._updates.stopped = True
        for thread in list(self._threads):
            thread.join(_STOP_S)

    def _operations(self) -> Mapping[str, Callable[[dict[str, Any], str], dict[str, Any]]]:
        return {
            "CreateStack": self._create_stack,
            "UpdateStack": self._update_stack,
            "DeleteStack": self._delete_stack,
            "DescribeStacks": self._describe_stacks,
            "ListStacks": self._list_stacks,
            "DescribeStackEvents": self._describe_events,
            "DescribeStackResources": self._describe_resources,
            "DescribeStackResource": self._describe_resource,
            "ListStackResources": self._list_resources,
            "GetTemplate": self._get_template,
            "GetTemplateSummary": self._get_summary,
            "ValidateTemplate": self._validate,
            "UpdateTerminationProtection": self._protect,
            "CreateChangeSet": self._create_change_set,
            "DescribeChangeSet": self._describe_change_set,
            "ListChangeSets": self._list_change_sets,
            "ExecuteChangeSet": self._execute_change_set,
            "DeleteChangeSet": self._delete_change_set,
            "DetectStackDrift": self._detect_drift,
            "DescribeStackDriftDetectionStatus": self._describe_detection,
            "DescribeStackResourceDrifts": self._describe_drifts,
            "ListExports": lambda _, __: {"Exports": []},
        }

    # What is asked for

    def _template_text(self, request: Mapping[str, Any], region: str, stack: StackRecord | None) -> str:
        if body := request.get("TemplateBody"):
            return str(body)
        if url := request.get("TemplateURL"):
            return self._updates.fetch(str(url), region)
        if request.get("UsePreviousTemplate") and stack is not None:
            return stack.template
        raise CloudFormationError("ValidationError", "Either Template URL or Template Body must be specified.")

    def _parameters(
        self, request: Mapping[str, Any], stack: StackRecord | None, declared: Mapping[str, Any]
    ) -> dict[str, str]:
        before = stack.translation.parameters if stack and stack.translation else {}
        tags: dict[str, str] = {}
        for given in request.get("Parameters", []):
            name = given["ParameterKey"]
            if not given.get("UsePreviousValue"):
                tags[name] = given.get("ParameterValue", "")
            elif name in before:
                tags[name] = before[name]
            elif name in declared:
                raise CloudFormationError(
                    "ValidationError", f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as "
                    "true for a parameter key not in the previous template"
                )  # fmt: skip
        return tags

    # Stacks

    def _create_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name = request["StackName"]
        if self._stacks.find(name, region) is not None:
            raise CloudFormationError("AlreadyExistsException", f"Stack [{name}] already exists")
        text = self._template_text(request, region, None)
        document = parse_template(text)
        stack = StackRecord(name, region, new_stack_id(region, name))
        check_capabilities(document, request.get("Capabilities", []), directly=True)
        self._begin(stack, text, self._parameters(request, None, document.get("Parameters", {})), request)
        return {"StackId": stack.id}

    def _update_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region)
        _check_ready(stack)
        text = self._template_text(request, region, stack)
        document = parse_template(text)
        check_capabilities(document, request.get("Capabilities", []), directly=True)
        parameters = self._parameters(request, stack, document.get("Parameters", {}))
        after = self._stacks.translated(stack, text, parameters)
        if not changes_between(stack.translation, after) and _same_outputs(stack.translation, after):
            raise CloudFormationError("ValidationError", "No updates are to be performed.")
        self._begin(stack, text, parameters, request)
        return {"StackId": stack.id}

    def _begin(self, stack: StackRecord, text: str, parameters: Mapping[str, str], request: Mapping[str, Any]) -> None:
        after = self._stacks.translated(stack, text, parameters)
        self._stacks.count_layers(after, stack.translation)
        self._stacks.add(stack)
        stack.template, stack.declared = text, parse_template(text).get("Parameters", {})
        stack.capabilities = list(request.get("Capabilities", []))
        if request.get("Tags") is not None:
            stack.tags = list(request["Tags"])
        stack.status = "CREATE_IN_PROGRESS" if stack.translation is None else "UPDATE_IN_PROGRESS"
        self._run(lambda: self._updates.apply(stack, after), f"apply-{stack.name}")

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _delete_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.find(request["StackName"], region)
        if stack is None:
            return {}  # as in AWS
        if stack.protected:
            raise CloudFormationError(
                "ValidationError", f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
            )
        stack.status = "DELETE_IN_PROGRESS"
        self._run(lambda: self._updates.take_down(stack), f"delete-{stack.name}")
        return {}

    # Telling

    def _describe_stacks(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        if name := request.get("StackName"):
            return {"Stacks": [described(self._stacks.get(name, region))]}
        return {"Stacks": [described(stack) for stack in self._stacks.of(region) if not stack.gone]}

    def _list_stacks(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        wanted = set(request.get("StackStatusFilter") or [])
        stacks = [stack for stack in self._stacks.of(region) if not wanted or stack.status in wanted]
        names = ("StackId", "StackName", "CreationTime", "LastUpdatedTime", "StackStatus", "StackStatusReason")
        return {
            "StackSummaries": [
                {name: value for name, value in described(stack).items() if name in names}
                | {"DeletionTime": stack.deleted}
                for stack in stacks
            ]
        }

    def _describe_events(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name = request["StackName"]
        stack = self._stacks.find(name, region, with_deleted=True)
        if stack is None:
            raise CloudFormationError("ValidationError", f"Stack [{name}] does not exist")
        return {"StackEvents": list(reversed(stack.events))}

    def _resources(self, name: str, region: str) -> Iterator[dict[str, Any]]:
        stack = self._stacks.get(name, region)
        for resource in stack.translation.resources.values() if stack.translation else ():
            status, at = stack.statuses.get(resource.logical_id, ("CREATE_COMPLETE", stack.created))
            yield {
                "StackName": stack.name,
                "StackId": stack.id,
                "LogicalResourceId": resource.logical_id,
                "PhysicalResourceId": resource.reference,
                "ResourceType": resource.type,
                "ResourceStatus": status,
                "Timestamp": at,
                "LastUpdatedTimestamp": at,
                "Description": resource.treatment.note,
            }

    def _describe_resources(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        wanted = request.get("LogicalResourceId")
        resources = [
            r for r in self._resources(request["StackName"], region) if wanted in {None, r["LogicalResourceId"]}
        ]
        return {"StackResources": resources}

    def _describe_resource(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        wanted = request["LogicalResourceId"]
        for resource in self._resources(request["StackName"], region):
            if resource["LogicalResourceId"] == wanted:
                return {"StackResourceDetail": resource}
        raise CloudFormationError("ValidationError", f"Resource {wanted} does not exist for stack")

    def _list_resources(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return {"StackResourceSummaries": list(self._resources(request["StackName"], region))}

    def _get_template(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        if request.get("ChangeSetName"):
            _, change_set = self._stacks.change_set(request, region)
            return {"TemplateBody": change_set.template, "StagesAvailable": ["Original"]}
        stack = self._stacks.get(request["StackName"], region)
        body = stack.template
        if request.get("TemplateStage") == "Processed" and stack.translation is not None:
            body = json.dumps(stack.translation.processed, default=str)
        return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}

    def _get_summary(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region) if request.get("StackName") else None
        return summary(parse_template(stack.template if stack else self._template_text(request, region, None)))

    def _validate(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        return summary(parse_template(self._template_text(request, region, None)))

    def _protect(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region)
        stack.protected = bool(request["EnableTerminationProtection"])
        return {"StackId": stack.id}

    # Change sets

    def _create_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name, kind = request["StackName"], request.get("ChangeSetType") or "UPDATE"
        if kind not in {"CREATE", "UPDATE"}:
            raise CloudFormationError("ValidationError", f"the local stack makes no change sets of type {kind}")
        stack = self._stacks.find(name, region)
        if kind == "UPDATE" and stack is None:
            raise CloudFormationError("ValidationError", f"Stack [{name}] does not exist")
        if stack is not None and kind == "CREATE" and stack.status != "REVIEW_IN_PROGRESS":
            raise CloudFormationError(
                "ValidationError", f"Stack [{name}] already exists and cannot be created again with the changeSet"
            )
        if stack is not None and kind == "UPDATE":
            _check_ready(stack)
        text = self._template_text(request, region, stack)
        document = parse_template(text)
        check_capabilities(document, request.get("Capabilities", []), directly=False)
        parameters = self._parameters(request, stack, document.get("Parameters", {}))
        if stack is None:
            stack = StackRecord(name, region, new_stack_id(region, name))
        after = self._stacks.translated(stack, text, parameters)  # an invalid template is refused at once
        if request["ChangeSetName"] in stack.change_sets:
            raise CloudFormationError(
                "AlreadyExistsException", f"ChangeSet {request['ChangeSetName']} cannot be created: it exists already"
            )
        self._stacks.add(stack)
        arn = f"arn:{partition_of(region)}:cloudformation:{region}:{ACCOUNT_ID}:changeSet"
        change_set = ChangeSet(
            name=request["ChangeSetName"],
            id=f"{arn}/{request['ChangeSetName']}/{uuid.uuid4()}",
            kind=kind,
            template=text,
            parameters=parameters,
            capabilities=list(request.get("Capabilities", [])),
            tags=list(request["Tags"]) if request.get("Tags") is not None else list(stack.tags),
            description=request.get("Description", ""),
            changes=changes_between(stack.translation, after),
        )
        if not change_set.changes and _same_outputs(stack.translation, after):
            change_set.status, change_set.execution, change_set.reason = "FAILED", "UNAVAILABLE", NO_CHANGES
        if stack.status == "REVIEW_IN_PROGRESS" and not stack.events:
            stack.event("REVIEW_IN_PROGRESS", "User Initiated")
        stack.change_sets[change_set.name] = change_set
        return {"Id": change_set.id, "StackId": stack.id}

    def _describe_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack, change_set = self._stacks.change_set(request, region)
        return {
            "ChangeSetName": change_set.name,
            "ChangeSetId": change_set.id,
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": change_set.description,
            "Parameters": parameters_shown(change_set.parameters, parse_template(change_set.template)),
            "CreationTime": change_set.created,
            "ExecutionStatus": change_set.execution,
            "Status": change_set.status,
            "StatusReason": change_set.reason,
            "Capabilities": list(change_set.capabilities),
            "Tags": list(change_set.tags),
            "Changes": [described_change(change) for change in change_set.changes],
        }

    def _list_change_sets(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region)
        return {
            "Summaries": [
                {
                    "StackId": stack.id,
                    "StackName": stack.name,
                    "ChangeSetId": change_set.id,
                    "ChangeSetName": change_set.name,
                    "ExecutionStatus": change_set.execution,
                    "Status": change_set.status,
                    "StatusReason": change_set.reason,
                    "CreationTime": change_set.created,
                }
                for change_set in stack.change_sets.values()
            ]
        }

    def _execute_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack, change_set = self._stacks.change_set(request, region)
        if change_set.execution != "AVAILABLE":
            raise CloudFormationError(
                "InvalidChangeSetStatus",
                f"ChangeSet [{change_set.id}] cannot be executed in its current status of [{change_set.status}]",
            )
        if stack.status != "REVIEW_IN_PROGRESS":
            _check_ready(stack)
        change_set.execution = "EXECUTE_COMPLETE"
        request = {"Capabilities": change_set.capabilities, "Tags": change_set.tags}
        self._begin(stack, change_set.template, change_set.parameters, request)
        for other in stack.change_sets.values():
            if other is not change_set and other.execution == "AVAILABLE":
                other.execution = "OBSOLETE"
        return {}

    def _delete_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack, change_set = self._stacks.change_set(request, region)
        del stack.change_sets[change_set.name]
        return {}

    # Drift

    def _detect_drift(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region)
        clients = self._updates.clients_of(stack)
        drifts = [
            drift_of(stack, r, clients) for r in (stack.translation.resources.values() if stack.translation else ())
        ]
        drifted = [d for d in drifts if d["StackResourceDriftStatus"] in {"MODIFIED", "DELETED"}]
        detection: dict[str, Any] = {
            "StackId": stack.id,
            "StackDriftDetectionId": str(uuid.uuid4()),
            "StackDriftStatus": "DRIFTED" if drifted else "IN_SYNC",
            "DetectionStatus": "DETECTION_COMPLETE",
            "DriftedStackResourceCount": len(drifted),
            "Timestamp": datetime.now(UTC),
        }
        stack.drift = detection | {"drifts": drifts}
        self._detections[detection["StackDriftDetectionId"]] = detection
        return {"StackDriftDetectionId": detection["StackDriftDetectionId"]}

    def _describe_detection(self, request: dict[str, Any], _: str) -> dict[str, Any]:
        detection = self._detections.get(request["StackDriftDetectionId"])
        if detection is None:
            raise CloudFormationError("ValidationError", "there was no such drift detection")
        return detection

    def _describe_drifts(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._stacks.get(request["StackName"], region)
        wanted = set(request.get("StackResourceDriftStatusFilters") or [])
        drifts = [d for d in (stack.drift or {}).get("drifts", []) if d["StackResourceDriftStatus"] != "NOT_CHECKED"]
        return {"StackResourceDrifts": [d for d in drifts if not wanted or d["StackResourceDriftStatus"] in wanted]}


def _check_ready(stack: StackRecord) -> None:
    if stack.status.endswith(("_IN_PROGRESS", "ROLLBACK_FAILED")) or stack.status in {
        "ROLLBACK_COMPLETE",
        "DELETE_FAILED",
    }:
        raise CloudFormationError(
            "ValidationError", f"Stack:{stack.id} is in {stack.status} state and can not be updated."
        )


def _same_outputs(before: Translation | None, after: Translation) -> bool:
    return before is not None and before.outputs == after.outputs
