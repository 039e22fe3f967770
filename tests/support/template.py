"""Reads template.yaml for the tests of what must hold of it and no linter checks.

Each invariant is a function from the template to its findings. It must find nothing in the template itself, and
something in each mutated template that is listed under it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from samtranslator.translator.transform import transform

from captions_cli.local.cloudformation.translate import load_template

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"


class _NoManagedPolicies:
    """The template names none; the translator wants to be able to look them up all the same."""

    def load(self) -> dict[str, str]:
        return {"none": "none"}


@dataclass(frozen=True)
class Template:
    """The template as it is written, and as CloudFormation sees it once SAM's transform was applied."""

    raw: dict[str, Any]

    @cached_property
    def resources(self) -> dict[str, Any]:
        return self.translated()

    def translated(self, *, uploaded: str = "zip", **parameters: str) -> dict[str, Any]:
        """The resources as they are with these parameters, and with code that was uploaded under this key."""
        document = copy.deepcopy(self.raw)
        for resource in document["Resources"].values():
            for attribute in ("CodeUri", "ContentUri"):
                if isinstance(resource.get("Properties", {}).get(attribute), str):
                    resource["Properties"][attribute] = {"Bucket": "code", "Key": uploaded}
        values = {name: str(declared.get("Default", "")) for name, declared in self.raw["Parameters"].items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_DEFAULT_REGION", REGION)
            translated: dict[str, Any] = transform(document, values | parameters, _NoManagedPolicies())
        resources: dict[str, Any] = translated["Resources"]
        return resources

    def of_type(self, type_: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, resource in self.resources.items():
            if resource["Type"] == type_:
                yield name, resource["Properties"]

    def target(self, node: Any) -> str:
        """The logical id that a Ref, GetAtt or Sub names first; of an If, in the branch taken by default."""
        match node:
            case {"Ref": str(name)}:
                return name
            case {"Fn::GetAtt": [name, *_]}:
                return str(name)
            case {"Fn::GetAtt": str(path)}:
                return path.split(".")[0]
            case {"Fn::Sub": str(text)} if result := re.search(r"\$\{([A-Za-z0-9]+)", text):
                return result[1]
            case {"Fn::If": [_, taken, other]}:
                return self.target(taken) or self.target(other)
        return ""

    def function(self, node: Any) -> str:
        """The logical id of the function that a reference names, by itself or by its alias."""
        name = self.target(node)
        if self.resources[name]["Type"] == "AWS::Lambda::Alias":
            return self.target(self.resources[name]["Properties"]["FunctionName"])
        return name


DOORS = "Doors"
"""The nested stack of functions beside the way of an upload: a SAM template with globals of its own."""
BULK = "BulkLane"
"""The nested stack of the bulk lane, which tests/template/test_bulk.py is about."""
API = "ApiApplication"
"""The nested stack of the API, which tests/template/test_api.py is about."""


@cache
def current() -> Template:
    """The template of the working copy, with the resources of its nested stack of alarms among its own."""
    return Template(flattened(load_template(ROOT / "template.yaml")))


@cache
def doors() -> Template:
    """The template of what is nested beside the way of an upload, by itself."""
    return Template(load_template(ROOT / "doors.yaml"))


@cache
def bulk() -> Template:
    """The template of the bulk lane, by itself."""
    return Template(load_template(ROOT / "bulk.yaml"))


def flattened(raw: dict[str, Any]) -> dict[str, Any]:
    """A template in whose nested stacks' place stand their resources, with what their parameters are given."""
    resources: dict[str, Any] = {}
    conditions = dict(raw["Conditions"])
    for name, resource in raw["Resources"].items():
        if name in (DOORS, BULK, API):
            continue
        if resource["Type"] != "AWS::CloudFormation::Stack":
            resources[name] = resource
            continue
        given = resource["Properties"]["Parameters"]
        nested = load_template(ROOT / resource["Properties"]["TemplateURL"])
        assert set(given) == set(nested["Parameters"]), name
        own = {"Resources": nested["Resources"], "Conditions": nested.get("Conditions", {})}
        filled = _filled(own, given)
        assert not set(filled["Resources"]) & set(raw["Resources"]), name
        resources |= filled["Resources"]
        conditions |= filled["Conditions"]
    return raw | {"Resources": resources, "Conditions": conditions}


def _filled(node: Any, given: dict[str, Any]) -> Any:
    """A node of a nested template with its parameters replaced by what they are given."""
    match node:
        case {"Ref": str(name)} if name in given and len(node) == 1:
            return given[name]
        case {"Fn::Sub": str(text)}:
            return {"Fn::Sub": re.sub(r"\$\{(\w+)\}", lambda result: _in_text(result, given), text)}
        case dict():
            return {key: _filled(value, given) for key, value in node.items()}
        case list():
            return [_filled(value, given) for value in node]
    return node


def _in_text(reference: re.Match[str], given: dict[str, Any]) -> str:
    match given.get(reference[1]):
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::GetAtt": str(path)}:
            return f"${{{path}}}"
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join("${" + ".".join(part["Fn::GetAtt"]) + "}" for part in parts)
    return reference[0]


Check = Callable[[Template], Iterator[str]]
Mutation = Callable[[dict[str, Any]], object]


class Invariants:
    """The invariants of one test file, each with the changes of the raw template under which it must find something."""

    def __init__(self) -> None:
        self._mutations: dict[Check, list[Mutation]] = {}
        self._of_doors: list[Check] = []

    def caught(self, *mutations: Mutation, of_doors: bool = False) -> Callable[[Check], Check]:
        """Decorate an invariant with the changes that it catches; `of_doors`: it must hold of doors.yaml as well."""

        def register(check: Check) -> Check:
            self._mutations[check] = list(mutations)
            if of_doors:
                self._of_doors.append(check)
            return check

        return register

    def tests(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """The tests of a file: each invariant holds, of the doors too if it is about them; each mutation is caught."""
        holding = [pytest.param(check, current, id=check.__name__) for check in self._mutations]
        holding += [pytest.param(check, doors, id=f"{check.__name__}-doors") for check in self._of_doors]
        failing = [
            pytest.param(check, mutation, id=f"{check.__name__}-{number}")
            for check, mutations in self._mutations.items()
            for number, mutation in enumerate(mutations)
        ]

        @pytest.mark.parametrize(("check", "template"), holding)
        def holds(check: Check, template: Callable[[], Template]) -> None:
            if findings := list(check(template())):
                pytest.fail("\n".join(findings))

        @pytest.mark.parametrize(("check", "mutation"), failing)
        def can_fail(check: Check, mutation: Mutation) -> None:
            if not list(check(mutated(mutation))):
                pytest.fail("it finds nothing")

        return holds, can_fail


def mutated(mutation: Mutation, template: Template | None = None) -> Template:
    """The template after a change, which must have changed something."""
    before = (template or current()).raw
    raw = copy.deepcopy(before)
    mutation(raw)
    assert raw != before
    return Template(raw)


def properties(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """A resource's properties."""
    result: dict[str, Any] = raw["Resources"][name]["Properties"]
    return result


def listed(node: Any) -> list[Any]:
    """What may be one or a list of them, as a list."""
    return node if isinstance(node, list) else [node]


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    """The statements of a role's own policies, and of those it always has with other roles."""
    return statements_of(template.resources, role)


def statement(raw: dict[str, Any], role: str, sid: str) -> Any:
    """One statement of a role's policies."""
    (result,) = [entry for entry in statements_of(raw["Resources"], role) if entry["Sid"] == sid]
    return result


def statements_of(resources: Mapping[str, Any], role: str, conditions: Collection[str] = ()) -> list[dict[str, Any]]:
    """The statements of a role's own policies, of those it always shares and those it has under some conditions."""
    documents = [policy["PolicyDocument"] for policy in resources[role]["Properties"]["Policies"]]
    documents += [
        resource["Properties"]["PolicyDocument"]
        for resource in resources.values()
        if resource["Type"] == "AWS::IAM::Policy"
        and resource.get("Condition") in (None, *conditions)
        and {"Ref": role} in resource["Properties"]["Roles"]
    ]
    return [statement for document in documents for statement in document["Statement"]]


def texts(node: Any) -> Iterator[str]:
    """Every key and value below a node, as text."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    else:
        yield str(node)
