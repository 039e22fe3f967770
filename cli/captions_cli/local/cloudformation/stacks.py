"""The stacks that CloudFormation's stand-in knows, what changes between two states of one, and its change sets."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from captions_cli.local.cloudformation.resources import Resource, Translation
from captions_cli.local.cloudformation.translate import parse_template, translate_document


class CloudFormationError(Exception):
    """An answer of the API that is no success; `code` as AWS names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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

    def event(self, status: str, reason: str | None = None) -> None:
        """Give the stack a status, and note it among its events."""
        self._note(self.name, self.id, "AWS::CloudFormation::Stack", status, reason)
        self.status = status

    def resource_event(self, resource: Resource, status: str, reason: str | None = None) -> None:
        """Give a resource a status, and note it among the stack's events."""
        self.statuses[resource.logical_id] = (status, datetime.now(UTC))
        self._note(resource.logical_id, resource.reference, resource.type, status, reason)

    def _note(self, logical_id: str, physical_id: str, kind: str, status: str, reason: str | None) -> None:
        self.events.append(
            {
                "StackId": self.id,
                "EventId": str(uuid.uuid4()),
                "StackName": self.name,
                "LogicalResourceId": logical_id,
                "PhysicalResourceId": physical_id,
                "ResourceType": kind,
                "Timestamp": datetime.now(UTC),
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
            }
        )


class Stacks:
    """Every stack of every region, and the numbers of the layers' versions that they made; safe to use in threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._stacks: list[StackRecord] = []
        self._layers: Counter[tuple[str, str]] = Counter()  # region, layer -> versions made so far

    def add(self, stack: StackRecord) -> None:
        """Know a stack from now on."""
        with self._guard:
            if stack not in self._stacks:
                self._stacks.append(stack)

    def find(self, name: str, region: str, *, with_deleted: bool = False) -> StackRecord | None:
        """Return a stack by its name or id, the newest of that name; a deleted one by its id alone."""
        for stack in self.of(region):
            if name == stack.id or (name == stack.name and (with_deleted or not stack.gone)):
                return stack
        return None

    def get(self, name: str, region: str) -> StackRecord:
        """Return a stack that is not deleted. Raises CloudFormationError where there is none."""
        stack = self.find(name, region)
        if stack is None:
            raise CloudFormationError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    def of(self, region: str) -> list[StackRecord]:
        """Return a region's stacks, the newest first."""
        with self._guard:
            return [stack for stack in reversed(self._stacks) if stack.region == region]

    def change_set(self, request: Mapping[str, Any], region: str) -> tuple[StackRecord, ChangeSet]:
        """Return the change set that is asked for, and its stack. Raises CloudFormationError."""
        wanted = request["ChangeSetName"]
        for stack in self.of(region):
            if request.get("StackName") in {None, stack.name, stack.id}:
                for change_set in stack.change_sets.values():
                    if wanted in {change_set.name, change_set.id}:
                        return stack, change_set
        raise CloudFormationError("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist")

    def nested_in(self, stack: StackRecord) -> Iterator[Translation]:
        """Yield what the stacks within a stack are now, at any depth."""
        for nested in reversed(self.of(stack.region)):
            if nested.parent == stack.id and not nested.gone:
                if nested.translation is not None:
                    yield nested.translation
                yield from self.nested_in(nested)

    def count_layers(self, after: Translation, before: Translation | None) -> None:
        """Take the numbers of the layers' versions that an update makes."""
        with self._guard:
            for logical_id, resource in after.resources.items():
                new = before is None or logical_id not in before.resources
                if new and resource.type == "AWS::Lambda::LayerVersion":
                    self._layers[after.region, resource.name] += 1

    def translated(self, stack: StackRecord, text: str, parameters: Mapping[str, str]) -> Translation:
        """Return what a template makes of a stack. Raises StackError for one that is invalid."""
        return translate_document(
            parse_template(text),
            stack_name=stack.name,
            region=stack.region,
            parameters=parameters,
            stack_id=stack.id,
            previous=stack.translation,
            next_number=lambda layer: self._layers[stack.region, layer] + 1,
        )
