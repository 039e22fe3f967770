"""The real template, made ready for one machine: SAM translated to CloudFormation, intrinsics resolved, names given.

Every resource gets its physical name here, as CloudFormation would generate it, and every reference is resolved before
anything is created: what a stack will be is known, and can be compared with what it is, without asking a service.
Nothing in this module talks to a server.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from captions.once import once
from captions_cli import loopback
from captions_cli.local.cloudformation.intrinsics import Resolver
from captions_cli.local.cloudformation.resources import (
    CODE_BUCKET,
    CODE_KEY,
    NESTED_STACK,
    RESOURCE_TYPES,
    Resource,
    Translation,
)
from captions_cli.local.errors import StackError

# The translator's classes hold some state of their own.
_translating = threading.Lock()


def load_template(path: Path) -> dict[str, Any]:
    """Read a SAM template in YAML or JSON, with short intrinsics in their long form.

    Raises StackError if the file is missing or is no template.
    """
    try:
        return parse_template(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise StackError(f"cannot read the template: {error}") from error


def parse_template(text: str, name: str = "the template") -> dict[str, Any]:
    """A template's text as `load_template` reads it. Raises StackError if it is no template."""
    from yaml import YAMLError, load

    try:
        template = load(text, _template_loader())  # noqa: S506 - a subclass of the safe one
    except (YAMLError, ValueError) as error:
        raise StackError(f"{name} is neither YAML nor JSON: {error}") from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise StackError(f"{name} is not a CloudFormation template: it has no Resources")
    return template


@once
def _template_loader() -> Any:
    """What reads templates: SAM's short intrinsics, and several times as fast as SAM's own where PyYAML has libyaml."""
    import yaml
    from samtranslator.yaml_helper import intrinsics_multi_constructor

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.add_multi_constructor("!", intrinsics_multi_constructor)
    return Loader


def translate(
    path: Path,
    *,
    stack_name: str,
    region: str,
    parameters: Mapping[str, str],
    stack_id: str | None = None,
    previous: Translation | None = None,
) -> Translation:
    """Translate the SAM template at `path`, whose functions run from its source tree, for one machine.

    `parameters` overrides the template's defaults, as strings. Raises StackError for an unknown or missing parameter,
    an unknown resource type, a reference that leads nowhere, or a template that SAM rejects.
    """
    sam = load_template(path)
    code = _local_code(sam, path.parent)
    translation = translate_document(
        sam, stack_name=stack_name, region=region, parameters=parameters, stack_id=stack_id, previous=previous
    )
    return replace(translation, code=code)


def translate_document(
    document: dict[str, Any],
    *,
    stack_name: str,
    region: str,
    parameters: Mapping[str, str],
    stack_id: str | None = None,
    previous: Translation | None = None,
    next_number: Callable[[str], int] = lambda _: 1,
) -> Translation:
    """Translate a template whose code is in buckets, as `sam package` leaves it.

    `stack_id` is an ARN; None makes one. `previous` is what the stack is now: what stays keeps its name. `next_number`
    gives the number that a layer's next version gets, by the layer's name. Raises StackError as `translate` does.
    """
    document = copy.deepcopy(document)
    values = _parameter_values(document.get("Parameters", {}), parameters)
    cloudformation = _to_cloudformation(document, values, region)
    return _resolve(cloudformation, stack_name, region, values, stack_id, previous, next_number)


def check_parameters(path: Path, parameters: Mapping[str, str]) -> None:
    """Raise StackError for a parameter that the template at `path` has not, or whose value it does not take."""
    declared = load_template(path).get("Parameters", {})
    _parameter_values({name: declared[name] for name in parameters if name in declared}, parameters)


def _parameter_values(declared: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(overrides) - set(declared)):
        raise StackError(f"the template has no parameter {', '.join(unknown)}")
    values: dict[str, str] = {}
    for name, declaration in declared.items():
        value = overrides.get(name, declaration.get("Default"))
        if value is None:
            raise StackError(f"parameter {name} has no default and was not given")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        allowed = [str(choice) for choice in declaration.get("AllowedValues", [])]
        if allowed and text not in allowed:
            raise StackError(f"parameter {name}: {text!r} is not one of {', '.join(allowed)}")
        pattern = declaration.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, text):
            raise StackError(f"parameter {name}: {text!r} does not match {pattern}")
        if declaration.get("Type") == "Number":
            _check_number(name, text, declaration)
        values[name] = text
    return values


def _check_number(name: str, text: str, declaration: Mapping[str, Any]) -> None:
    try:
        number = float(text)
    except ValueError:
        raise StackError(f"parameter {name}: {text!r} is no number") from None
    least, most = declaration.get("MinValue", "-inf"), declaration.get("MaxValue", "inf")
    if not float(least) <= number <= float(most):
        raise StackError(f"parameter {name}: {text} is not within {least} and {most}")


def _local_code(sam: dict[str, Any], root: Path) -> dict[str, Path]:
    """Point CodeUri and ContentUri at an object in a bucket, as `sam package` does; returns the directories named.

    The templates of nested stacks get file URLs.
    """
    default = sam.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    uploaded = {"Bucket": CODE_BUCKET, "Key": CODE_KEY}
    code: dict[str, Path] = {}
    for logical_id, resource in sam["Resources"].items():
        properties = resource.setdefault("Properties", {}) or {}
        if resource["Type"] == "AWS::Serverless::Function" and "InlineCode" not in properties:
            uri = properties.get("CodeUri", default)
            if isinstance(uri, str) and not uri.startswith("s3://"):
                code[logical_id] = (root / uri).resolve()
            properties["CodeUri"] = dict(uploaded)
        elif resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = dict(uploaded)
        elif resource["Type"] == NESTED_STACK and "://" not in str(properties.get("TemplateURL")):
            properties["TemplateURL"] = (root / str(properties.get("TemplateURL"))).resolve().as_uri()
    return code


def _to_cloudformation(sam: dict[str, Any], parameters: Mapping[str, str], region: str) -> dict[str, Any]:
    if "AWS::Serverless-2016-10-31" not in json.dumps(sam.get("Transform", "")):
        return sam
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    # The translator asks IAM for this map only if a template names managed policies; one entry keeps it offline.
    policies = {"AWSXRayDaemonWriteAccess": "arn:aws:iam::aws:policy/AWSXRayDaemonWriteAccess"}
    try:
        with _translating:
            translator = Translator(policies, Parser(), boto_session=loopback.session(region))
            translated: dict[str, Any] = translator.translate(sam, parameter_values=dict(parameters))
    except InvalidDocumentException as error:
        causes = "; ".join(cause.message for cause in error.causes)
        raise StackError(f"SAM rejects the template: {causes or error.message}") from error
    return translated


def _resolve(
    template: dict[str, Any],
    stack_name: str,
    region: str,
    values: Mapping[str, str],
    stack_id: str | None,
    previous: Translation | None,
    next_number: Callable[[str], int],
) -> Translation:
    resources: dict[str, Any] = template["Resources"]
    if unknown := sorted({r["Type"] for r in resources.values()} - set(RESOURCE_TYPES)):
        raise StackError(f"the local stack does not know the resource types {', '.join(unknown)}")
    resolver = Resolver(template, stack_name, region, values, stack_id, previous)
    resolver.drop_disabled(resources)
    resolver.name(resources)
    resolver.number(resources, next_number)

    resolved: dict[str, Resource] = {}
    for logical_id in resolver.in_dependency_order(resources):
        resource = resources[logical_id]
        resolved[logical_id] = Resource(
            logical_id,
            resource["Type"],
            resolver.names[logical_id],
            resolver.value(resource.get("Properties", {}), f"Resources.{logical_id}"),
            deletion_policy=str(resource.get("DeletionPolicy", "Delete")),
            number=resolver.numbers.get(logical_id, 1),
            reference=str(resolver.value({"Ref": logical_id}, logical_id)),
        )
    outputs: dict[str, str] = {}
    nested_outputs: dict[str, tuple[str, str]] = {}
    descriptions: dict[str, str] = {}
    for name, output in template.get("Outputs", {}).items():
        if "Condition" in output and not resolver.condition(output["Condition"]):
            continue
        if (source := resolver.nested_output(output["Value"])) is not None:
            nested_outputs[name] = source
        else:
            outputs[name] = resolver.value(output["Value"], f"Outputs.{name}")
        descriptions[name] = str(output.get("Description", ""))
    return Translation(
        stack_name=stack_name,
        region=region,
        stack_id=resolver.stack_id,
        parameters=values,
        resources=resolved,
        code={},
        outputs=outputs,
        nested_outputs=nested_outputs,
        output_descriptions=descriptions,
        processed=template,
    )
