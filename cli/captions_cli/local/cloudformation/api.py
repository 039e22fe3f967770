"""CloudFormation on one machine: stacks made, changed and deleted through change sets, as `sam deploy` does it.

SAM's transform is applied when a change set is created, as in AWS, by aws-sam-translator. Resources come to be by the
calls of `provisioning`; what a stack runs is told to its owner, who may refuse. A failed update is taken back.
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.exceptions import BotoCoreError, ClientError

from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.cloudformation import provisioning
from captions_cli.local.cloudformation.translate import (
    ACCOUNT_ID,
    NESTED_STACK,
    Resource,
    Translation,
    new_stack_id,
    parse_template,
    partition_of,
    translate,
    translate_document,
)
from captions_cli.local.errors import StackError

LOGGER = logging.getLogger(__name__)

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
_STOP_S = 10.0
_IAM_TYPES = {"AWS::IAM::Role": "RoleName", "AWS::IAM::ManagedPolicy": "ManagedPolicyName", "AWS::IAM::Policy": ""}

RegionalClients = Callable[[str, str], Any]  # region, service -> boto3 client


class CloudFormationError(Exception):
    """An answer of the API that is no success; `code` as AWS names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Change:
    """One resource's part in an update; `before` None is an addition, `after` None a removal."""

    before: Resource | None
    after: Resource | None
    replaced: bool = False

    @property
    def resource(self) -> Resource:
        """What it is about."""
        resource = self.after or self.before
        assert resource is not None
        return resource

    @property
    def action(self) -> Literal["Add", "Modify", "Remove"]:
        """As change sets name it."""
        if self.before is None:
            return "Add"
        return "Remove" if self.after is None else "Modify"


def changes_between(before: Translation | None, after: Translation) -> list[Change]:
    """What turns one state of a stack into another, in the order in which it is done: removals last."""
    old = before.resources if before else {}
    changes = []
    for logical_id, resource in after.resources.items():
        was = old.get(logical_id)
        if was == resource:
            continue
        replaced = was is not None and (was.type, was.name) != (resource.type, resource.name)
        changes.append(Change(was, resource, replaced))
    gone = [Change(resource, None) for logical_id, resource in old.items() if logical_id not in after.resources]
    return [*changes, *reversed(gone)]


@dataclass
class ChangeSet:
    """What was asked for, and what it comes to."""

    name: str
    id: str
    kind: str  # CREATE or UPDATE
    template: str
    parameters: Mapping[str, str]
    capabilities: Sequence[str]
    tags: Sequence[Mapping[str, str]]
    description: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = "CREATE_COMPLETE"
    reason: str | None = None
    execution: str = "AVAILABLE"
    changes: Sequence[Change] = ()


@dataclass
class StackRecord:
    """One stack as the API tells it."""

    name: str
    region: str
    id: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime | None = None
    deleted: datetime | None = None
    translation: Translation | None = None
    template: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)  # the template's Parameters
    capabilities: Sequence[str] = ()
    tags: Sequence[Mapping[str, str]] = ()
    protected: bool = False
    parent: str | None = None  # the id of the stack that this one is nested in
    events: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # logical id -> its last status
    change_sets: dict[str, ChangeSet] = field(default_factory=dict)
    drift: dict[str, Any] | None = None
    working: threading.RLock = field(default_factory=threading.RLock)

    @property
    def gone(self) -> bool:
        """Whether it was deleted; it is then known by its id alone."""
        return self.status == "DELETE_COMPLETE"


class CloudFormation:
    """Answers CloudFormation's API; everything else is passed on.

    `deployed` is told what a stack and those nested in it are now, once their resources are; a StackError from it makes
    the update fail. `removed` is told before a stack's resources go.
    """

    def __init__(
        self,
        clients: RegionalClients,
        deployed: Callable[[Sequence[Translation]], None],
        removed: Callable[[Translation], None],
    ) -> None:
        self._clients = clients
        self._deployed = deployed
        self._removed = removed
        self._guard = threading.Lock()
        self._stacks: list[StackRecord] = []
        self._layers: Counter[tuple[str, str]] = Counter()  # region, layer -> versions made so far
        self._detections: dict[str, dict[str, Any]] = {}
        self._threads: list[threading.Thread] = []
        self._stopped = False

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
            return Response(_error(error.code, error.message, call.request_id), 400, content_type="text/xml")
        except StackError as error:
            return Response(_error("ValidationError", str(error), call.request_id), 400, content_type="text/xml")
        serialized = QuerySerializer(model, context=SerializationContext(call.request_id)).serialize(result)
        return Response(serialized["body"], serialized["status_code"], content_type="text/xml")

    def create(self, translation: Translation, template: str = "") -> None:
        """Make a stack from what is translated already, and wait for it. Raises StackError if it fails."""
        stack = StackRecord(translation.stack_name, translation.region, translation.stack_id, template=template)
        stack.declared = translation.processed.get("Parameters", {})
        for resource in translation.resources.values():
            if resource.type == "AWS::Lambda::LayerVersion":
                self._layers[translation.region, resource.name] += 1
        with self._guard:
            self._stacks.append(stack)
        self._apply(stack, translation)
        if stack.status != "CREATE_COMPLETE":
            raise StackError(f"the stack ended as {stack.status}: {stack.reason}")

    def stop(self) -> None:
        """Let what is under way end."""
        self._stopped = True
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

    # Finding

    def _find(self, name: str, region: str, *, with_deleted: bool = False) -> StackRecord | None:
        with self._guard:
            for stack in reversed(self._stacks):
                if stack.region != region:
                    continue
                if name == stack.id or (name == stack.name and (with_deleted or not stack.gone)):
                    return stack
        return None

    def _get(self, name: str, region: str) -> StackRecord:
        stack = self._find(name, region)
        if stack is None:
            raise CloudFormationError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    def _change_set(self, request: Mapping[str, Any], region: str) -> tuple[StackRecord, ChangeSet]:
        wanted = request["ChangeSetName"]
        with self._guard:
            stacks = [stack for stack in self._stacks if stack.region == region]
        for stack in reversed(stacks):
            if request.get("StackName") in {None, stack.name, stack.id}:
                for change_set in stack.change_sets.values():
                    if wanted in {change_set.name, change_set.id}:
                        return stack, change_set
        raise CloudFormationError("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist")

    # What is asked for

    def _template_text(self, request: Mapping[str, Any], region: str, stack: StackRecord | None) -> str:
        if body := request.get("TemplateBody"):
            return str(body)
        if url := request.get("TemplateURL"):
            return self._fetch(str(url), region)
        if request.get("UsePreviousTemplate") and stack is not None:
            return stack.template
        raise CloudFormationError("ValidationError", "Either Template URL or Template Body must be specified.")

    def _fetch(self, url: str, region: str) -> str:
        """A template from S3; its URL is path-style, or has the bucket in front of the host. Or a file's."""
        split = urlsplit(url)
        if split.scheme == "file":  # of a nested stack, in the source tree
            return Path(unquote(split.path)).read_text(encoding="utf-8")
        path = unquote(split.path).lstrip("/")
        host = split.hostname or ""
        if ".s3." in host or ".s3-" in host or (host.endswith(".localhost") and host != "localhost"):
            bucket, key = host.split(".s3", 1)[0].removesuffix(".localhost"), path
        else:
            bucket, _, key = path.partition("/")
        version = parse_qs(split.query).get("versionId", [])
        try:
            answer = self._clients(region, "s3").get_object(
                Bucket=bucket, Key=key, **({"VersionId": version[0]} if version else {})
            )
            return str(answer["Body"].read().decode("utf-8"))
        except ClientError as error:
            raise CloudFormationError("ValidationError", f"S3 error: {error.response['Error']['Message']}") from error

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

    def _translated(self, stack: StackRecord, text: str, parameters: Mapping[str, str]) -> Translation:
        return translate_document(
            parse_template(text),
            stack_name=stack.name,
            region=stack.region,
            parameters=parameters,
            stack_id=stack.id,
            previous=stack.translation,
            next_number=lambda layer: self._layers[stack.region, layer] + 1,
        )

    # Stacks

    def _create_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name = request["StackName"]
        if self._find(name, region) is not None:
            raise CloudFormationError("AlreadyExistsException", f"Stack [{name}] already exists")
        text = self._template_text(request, region, None)
        document = parse_template(text)
        stack = StackRecord(name, region, new_stack_id(region, name))
        _check_capabilities(document, request.get("Capabilities", []), directly=True)
        self._begin(stack, text, self._parameters(request, None, document.get("Parameters", {})), request)
        return {"StackId": stack.id}

    def _update_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region)
        _check_ready(stack)
        text = self._template_text(request, region, stack)
        document = parse_template(text)
        _check_capabilities(document, request.get("Capabilities", []), directly=True)
        parameters = self._parameters(request, stack, document.get("Parameters", {}))
        after = self._translated(stack, text, parameters)
        if not changes_between(stack.translation, after) and _same_outputs(stack.translation, after):
            raise CloudFormationError("ValidationError", "No updates are to be performed.")
        self._begin(stack, text, parameters, request)
        return {"StackId": stack.id}

    def _begin(self, stack: StackRecord, text: str, parameters: Mapping[str, str], request: Mapping[str, Any]) -> None:
        after = self._translated(stack, text, parameters)
        for resource in after.resources.values():
            new = stack.translation is None or resource.logical_id not in stack.translation.resources
            if new and resource.type == "AWS::Lambda::LayerVersion":
                self._layers[stack.region, resource.name] += 1
        with self._guard:
            if stack not in self._stacks:
                self._stacks.append(stack)
        stack.template, stack.declared = text, parse_template(text).get("Parameters", {})
        stack.capabilities = list(request.get("Capabilities", []))
        if request.get("Tags") is not None:
            stack.tags = list(request["Tags"])
        stack.status = "CREATE_IN_PROGRESS" if stack.translation is None else "UPDATE_IN_PROGRESS"
        self._run(lambda: self._apply(stack, after), f"apply-{stack.name}")

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _delete_stack(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._find(request["StackName"], region)
        if stack is None:
            return {}  # as in AWS
        if stack.protected:
            raise CloudFormationError(
                "ValidationError", f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
            )
        stack.status = "DELETE_IN_PROGRESS"
        self._run(lambda: self._take_down(stack), f"delete-{stack.name}")
        return {}

    # Doing it

    def _apply(self, stack: StackRecord, after: Translation) -> None:
        with stack.working:
            before = stack.translation
            verb = "CREATE" if before is None else "UPDATE"
            stack.reason = None
            self._stack_event(stack, f"{verb}_IN_PROGRESS", "User Initiated")
            done: list[Change] = []
            try:
                for change in changes_between(before, after):
                    if change.after is not None:
                        self._put(stack, change, done)
                after = replace(after, outputs={**after.outputs, **dict(self._outputs_of_nested(after))})
                if stack.parent is None:  # what is nested runs with the stack around it, whose layers it may use
                    self._deployed([after, *self._nested_in(stack)])
            except Exception as error:
                if not isinstance(error, StackError | ClientError | BotoCoreError):
                    LOGGER.exception("stack_update_failed stack=%s", stack.name)
                self._take_back(stack, before, done, str(error))
                return
            stack.translation = after
            stack.updated = datetime.now(UTC) if before is not None else None
            if before is not None:
                self._stack_event(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
                self._clean_up(stack, before, after)
            self._stack_event(stack, f"{verb}_COMPLETE")

    def _put(self, stack: StackRecord, change: Change, done: list[Change]) -> None:
        assert change.after is not None
        if self._stopped:
            raise StackError("the local stack has stopped")
        before = None if change.replaced else change.before
        verb = "CREATE" if before is None else "UPDATE"
        self._event(stack, change.after, f"{verb}_IN_PROGRESS")
        done.append(change)
        try:
            self._provision(stack, change.after, before)
        except (StackError, ClientError, BotoCoreError) as error:
            self._event(stack, change.after, f"{verb}_FAILED", str(error))
            raise StackError(f"{change.after.logical_id}: {error}") from error
        self._event(stack, change.after, f"{verb}_COMPLETE")

    def _take_back(self, stack: StackRecord, before: Translation | None, done: Sequence[Change], why: str) -> None:
        verb = "ROLLBACK" if before is None else "UPDATE_ROLLBACK"
        stack.reason = why
        self._stack_event(stack, f"{verb}_IN_PROGRESS", why)
        left = []
        for change in reversed(done):
            assert change.after is not None
            came_to_be = stack.statuses[change.after.logical_id][0].endswith("_COMPLETE")
            try:
                if change.before is not None and not change.replaced:
                    self._provision(stack, change.before, change.after)
                else:
                    self._remove(stack, change.after)
            except Exception as error:
                # What failed to come to be may not be there to be removed.
                LOGGER.info("rollback_left resource=%s error=%s", change.after.logical_id, error)
                if came_to_be:
                    action = "UPDATE" if change.before is not None and not change.replaced else "DELETE"
                    self._event(stack, change.after, f"{action}_FAILED", str(error))
                    left.append(change.after.logical_id)
        stack.reason = f"The following resource(s) could not be rolled back: [{', '.join(left)}]." if left else why
        self._stack_event(stack, f"{verb}_FAILED" if left else f"{verb}_COMPLETE")

    def _clean_up(self, stack: StackRecord, before: Translation, after: Translation) -> None:
        for change in changes_between(before, after):
            gone = change.before
            if gone is None or not (change.after is None or change.replaced):
                continue
            if gone.deletion_policy == "Retain" or gone.deletion_policy == "RetainExceptOnCreate":
                self._event(stack, gone, "DELETE_SKIPPED")
                continue
            try:
                self._remove(stack, gone)
                self._event(stack, gone, "DELETE_COMPLETE")
            except (StackError, ClientError, BotoCoreError) as error:
                self._event(stack, gone, "DELETE_FAILED", str(error))  # and the update is complete, as in AWS
        for logical_id in set(before.resources) - set(after.resources):
            stack.statuses.pop(logical_id, None)

    def _take_down(self, stack: StackRecord) -> None:
        with stack.working:
            self._stack_event(stack, "DELETE_IN_PROGRESS", "User Initiated")
            failed = []
            if stack.translation is not None:
                self._removed(stack.translation)
                for resource in reversed(list(stack.translation.resources.values())):
                    if resource.deletion_policy != "Delete":
                        self._event(stack, resource, "DELETE_SKIPPED")
                        continue
                    try:
                        self._remove(stack, resource)
                        self._event(stack, resource, "DELETE_COMPLETE")
                    except (StackError, ClientError, BotoCoreError) as error:
                        self._event(stack, resource, "DELETE_FAILED", str(error))
                        failed.append(resource.logical_id)
            if failed:
                stack.reason = f"The following resource(s) failed to delete: [{', '.join(failed)}]."
                self._stack_event(stack, "DELETE_FAILED", stack.reason)
            else:
                stack.deleted = datetime.now(UTC)
                self._stack_event(stack, "DELETE_COMPLETE")

    def _provision(self, stack: StackRecord, resource: Resource, before: Resource | None) -> None:
        if resource.type != NESTED_STACK:
            provisioning.put(resource, before, self._of(stack))
            return
        nested = self._find(resource.reference, stack.region)
        if nested is None:
            nested = StackRecord(resource.name, stack.region, resource.reference, parent=stack.id)
            with self._guard:
                self._stacks.append(nested)
        url = str(resource.properties["TemplateURL"])
        nested.template = self._fetch(url, stack.region)
        document = parse_template(nested.template)
        nested.declared = document.get("Parameters", {})
        parameters = {name: str(value) for name, value in resource.properties.get("Parameters", {}).items()}
        if url.startswith("file:"):  # its functions run from the source tree too
            after = translate(
                Path(unquote(urlsplit(url).path)),
                stack_name=nested.name,
                region=nested.region,
                parameters=parameters,
                stack_id=nested.id,
                previous=nested.translation,
            )
        else:
            nested.capabilities = stack.capabilities
            try:
                _check_capabilities(document, nested.capabilities, directly=True)
            except CloudFormationError as error:
                raise StackError(str(error)) from error
            after = self._translated(nested, nested.template, parameters)
        self._apply(nested, after)
        if not nested.status.endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE")) or "ROLLBACK" in nested.status:
            raise StackError(f"{nested.name} ended as {nested.status}: {nested.reason}")

    def _outputs_of_nested(self, translation: Translation) -> Iterator[tuple[str, str]]:
        for name, (logical_id, output) in translation.nested_outputs.items():
            nested = self._find(translation.resources[logical_id].reference, translation.region)
            if nested is None or nested.translation is None or output not in nested.translation.outputs:
                raise StackError(f"Outputs.{name}: {logical_id} has no output {output}")
            yield name, nested.translation.outputs[output]

    def _nested_in(self, stack: StackRecord) -> Iterator[Translation]:
        """What the stacks within a stack are now, at any depth."""
        with self._guard:
            within = [nested for nested in self._stacks if nested.parent == stack.id and not nested.gone]
        for nested in within:
            if nested.translation is not None:
                yield nested.translation
            yield from self._nested_in(nested)

    def _remove(self, stack: StackRecord, resource: Resource) -> None:
        if resource.type != NESTED_STACK:
            provisioning.delete(resource, self._of(stack))
            return
        nested = self._find(resource.reference, stack.region)
        if nested is not None and not nested.gone:
            self._take_down(nested)
            if not nested.gone:
                raise StackError(f"{nested.name} ended as {nested.status}: {nested.reason}")

    def _of(self, stack: StackRecord) -> provisioning.Clients:
        return lambda service: self._clients(stack.region, service)

    def _stack_event(self, stack: StackRecord, status: str, reason: str | None = None) -> None:
        self._record(stack, stack.name, stack.id, "AWS::CloudFormation::Stack", status, reason)
        stack.status = status

    def _event(self, stack: StackRecord, resource: Resource, status: str, reason: str | None = None) -> None:
        stack.statuses[resource.logical_id] = (status, datetime.now(UTC))
        self._record(stack, resource.logical_id, resource.reference, resource.type, status, reason)

    def _record(
        self, stack: StackRecord, logical_id: str, physical_id: str, kind: str, status: str, reason: str | None
    ) -> None:
        stack.events.append(
            {
                "StackId": stack.id,
                "EventId": str(uuid.uuid4()),
                "StackName": stack.name,
                "LogicalResourceId": logical_id,
                "PhysicalResourceId": physical_id,
                "ResourceType": kind,
                "Timestamp": datetime.now(UTC),
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
            }
        )

    # Telling

    def _describe_stacks(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        if name := request.get("StackName"):
            return {"Stacks": [_described(self._get(name, region))]}
        with self._guard:
            return {"Stacks": [_described(s) for s in reversed(self._stacks) if s.region == region and not s.gone]}

    def _list_stacks(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        wanted = set(request.get("StackStatusFilter") or [])
        with self._guard:
            stacks = [s for s in reversed(self._stacks) if s.region == region and (not wanted or s.status in wanted)]
        names = ("StackId", "StackName", "CreationTime", "LastUpdatedTime", "StackStatus", "StackStatusReason")
        return {
            "StackSummaries": [
                {name: value for name, value in _described(stack).items() if name in names}
                | {"DeletionTime": stack.deleted}
                for stack in stacks
            ]
        }

    def _describe_events(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name = request["StackName"]
        stack = self._find(name, region, with_deleted=True)
        if stack is None:
            raise CloudFormationError("ValidationError", f"Stack [{name}] does not exist")
        return {"StackEvents": list(reversed(stack.events))}

    def _resources(self, name: str, region: str) -> Iterator[dict[str, Any]]:
        stack = self._get(name, region)
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
            _, change_set = self._change_set(request, region)
            return {"TemplateBody": change_set.template, "StagesAvailable": ["Original"]}
        stack = self._get(request["StackName"], region)
        body = stack.template
        if request.get("TemplateStage") == "Processed" and stack.translation is not None:
            body = json.dumps(stack.translation.processed, default=str)
        return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}

    def _get_summary(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region) if request.get("StackName") else None
        text = stack.template if stack else self._template_text(request, region, None)
        document = parse_template(text)
        return {
            "Description": document.get("Description", ""),
            "Parameters": _declared(document),
            "ResourceTypes": sorted({resource["Type"] for resource in document["Resources"].values()}),
            "DeclaredTransforms": _transforms(document),
            "Capabilities": _needed(document),
        }

    def _validate(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        document = parse_template(self._template_text(request, region, None))
        parameters = [
            {
                "ParameterKey": name,
                "DefaultValue": None if "Default" not in it else str(it["Default"]),
                "NoEcho": bool(it.get("NoEcho")),
                "Description": it.get("Description"),
            }
            for name, it in document.get("Parameters", {}).items()
        ]
        return {
            "Parameters": parameters,
            "Description": document.get("Description", ""),
            "Capabilities": _needed(document),
            "DeclaredTransforms": _transforms(document),
        }

    def _protect(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region)
        stack.protected = bool(request["EnableTerminationProtection"])
        return {"StackId": stack.id}

    # Change sets

    def _create_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        name, kind = request["StackName"], request.get("ChangeSetType") or "UPDATE"
        if kind not in {"CREATE", "UPDATE"}:
            raise CloudFormationError("ValidationError", f"the local stack makes no change sets of type {kind}")
        stack = self._find(name, region)
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
        _check_capabilities(document, request.get("Capabilities", []), directly=False)
        parameters = self._parameters(request, stack, document.get("Parameters", {}))
        if stack is None:
            stack = StackRecord(name, region, new_stack_id(region, name))
        after = self._translated(stack, text, parameters)  # an invalid template is refused at once
        if request["ChangeSetName"] in stack.change_sets:
            raise CloudFormationError(
                "AlreadyExistsException", f"ChangeSet {request['ChangeSetName']} cannot be created: it exists already"
            )
        with self._guard:
            if stack not in self._stacks:
                self._stacks.append(stack)
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
            self._stack_event(stack, "REVIEW_IN_PROGRESS", "User Initiated")
        stack.change_sets[change_set.name] = change_set
        return {"Id": change_set.id, "StackId": stack.id}

    def _describe_change_set(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack, change_set = self._change_set(request, region)
        return {
            "ChangeSetName": change_set.name,
            "ChangeSetId": change_set.id,
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": change_set.description,
            "Parameters": _parameters_shown(change_set.parameters, parse_template(change_set.template)),
            "CreationTime": change_set.created,
            "ExecutionStatus": change_set.execution,
            "Status": change_set.status,
            "StatusReason": change_set.reason,
            "Capabilities": list(change_set.capabilities),
            "Tags": list(change_set.tags),
            "Changes": [_change(change) for change in change_set.changes],
        }

    def _list_change_sets(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region)
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
        stack, change_set = self._change_set(request, region)
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
        stack, change_set = self._change_set(request, region)
        del stack.change_sets[change_set.name]
        return {}

    # Drift

    def _detect_drift(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region)
        drifts = [self._drift(stack, r) for r in (stack.translation.resources.values() if stack.translation else ())]
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

    def _drift(self, stack: StackRecord, resource: Resource) -> dict[str, Any]:
        described: dict[str, Any] = {
            "StackId": stack.id,
            "LogicalResourceId": resource.logical_id,
            "PhysicalResourceId": resource.reference,
            "ResourceType": resource.type,
            "Timestamp": datetime.now(UTC),
        }
        try:
            different = provisioning.drifted(resource, self._of(stack))
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

    def _describe_detection(self, request: dict[str, Any], _: str) -> dict[str, Any]:
        detection = self._detections.get(request["StackDriftDetectionId"])
        if detection is None:
            raise CloudFormationError("ValidationError", "there was no such drift detection")
        return detection

    def _describe_drifts(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        stack = self._get(request["StackName"], region)
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


def _transforms(document: Mapping[str, Any]) -> list[str]:
    declared = document.get("Transform", [])
    return [str(name) for name in (declared if isinstance(declared, list) else [declared])]


def _needed(document: Mapping[str, Any]) -> list[str]:
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


def _check_capabilities(document: Mapping[str, Any], given: Sequence[str], *, directly: bool) -> None:
    """Refuse what AWS refuses; `directly`: without a change set, where a transform has to be allowed as well."""
    missing = set(_needed(document)) - set(given)
    if "CAPABILITY_NAMED_IAM" in given:
        missing.discard("CAPABILITY_IAM")
    if directly and _transforms(document) and "CAPABILITY_AUTO_EXPAND" not in given:
        missing.add("CAPABILITY_AUTO_EXPAND")
    if missing:
        raise CloudFormationError("InsufficientCapabilitiesException", f"Requires capabilities : {sorted(missing)}")


def _declared(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "ParameterKey": name,
            "DefaultValue": None if "Default" not in it else str(it["Default"]),
            "ParameterType": it.get("Type", "String"),
            "NoEcho": bool(it.get("NoEcho")),
            "Description": it.get("Description"),
        }
        for name, it in document.get("Parameters", {}).items()
    ]


def _parameters_shown(values: Mapping[str, str], document: Mapping[str, Any]) -> list[dict[str, str]]:
    declared = document.get("Parameters", {})
    return [
        {"ParameterKey": name, "ParameterValue": "****" if declared.get(name, {}).get("NoEcho") else value}
        for name, value in values.items()
    ]


def _described(stack: StackRecord) -> dict[str, Any]:
    translation = stack.translation
    outputs = translation.outputs if translation else {}
    descriptions = translation.output_descriptions if translation else {}
    drift = stack.drift or {"StackDriftStatus": "NOT_CHECKED"}
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "Description": str((translation.processed if translation else {}).get("Description", "")),
        "Parameters": _parameters_shown(translation.parameters if translation else {}, {"Parameters": stack.declared}),
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


def _change(change: Change) -> dict[str, Any]:
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


def _error(code: str, message: str, request_id: str) -> str:
    return (
        '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>'
        f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
