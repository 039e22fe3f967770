"""The real template, made ready for one machine: SAM translated to CloudFormation, intrinsics resolved, names given.

Every resource gets its physical name here, as CloudFormation would generate it, and every reference is resolved before
anything is created: what a stack will be is known, and can be compared with what it is, without asking a service.
Nothing in this module talks to a server.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import re
import string
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from captions.once import once
from captions_cli import loopback
from captions_cli.local.errors import StackError

ACCOUNT_ID = "123456789012"  # moto's account
CODE_BUCKET = "local-deployment-artifacts"  # what functions and layers of the source tree are said to be in
CODE_KEY = "source-tree"
SECRET_ARN_SUFFIX = "LocAl1"  # Secrets Manager adds six characters to a secret's name

NESTED_STACK = "AWS::CloudFormation::Stack"
_NO_VALUE = object()
_NAME_SUFFIX_LENGTH = 12  # as CloudFormation's generated names have

Treatment = Literal["created", "repaired", "not emulated"]


@dataclass(frozen=True)
class ResourceType:
    """How a resource type of the template is made on this machine.

    `created`: by the calls that CloudFormation would make, in the AWS stand-in. `repaired`: so as well, but what it
    does is done by the local stack. `not emulated`: named in the start-up summary with the reason.
    """

    treatment: Treatment
    note: str = ""
    name_property: str | None = None


_SERVED = "the API is served on loopback, behind a token"

# One place for every type the local stack knows. A type that is not here is an error.
RESOURCE_TYPES: Mapping[str, ResourceType] = {
    "AWS::S3::Bucket": ResourceType("created", "encryption and access logs are not emulated", "BucketName"),
    "AWS::S3::BucketPolicy": ResourceType("created", "policies are not enforced"),
    "AWS::S3Vectors::VectorBucket": ResourceType("created", "encryption is not emulated", "VectorBucketName"),
    "AWS::S3Vectors::Index": ResourceType("repaired", "searched exactly", "IndexName"),
    "AWS::SQS::Queue": ResourceType("created", "", "QueueName"),
    "AWS::SQS::QueuePolicy": ResourceType("created", "policies are not enforced"),
    "AWS::DynamoDB::Table": ResourceType("created", "", "TableName"),
    "AWS::SecretsManager::Secret": ResourceType("created", "", "Name"),
    "AWS::CloudWatch::Alarm": ResourceType("created", "no metrics arrive", "AlarmName"),
    "AWS::CloudWatch::CompositeAlarm": ResourceType("not emulated", "no metrics arrive", "AlarmName"),
    "AWS::CloudWatch::Dashboard": ResourceType("created", "there is no console", "DashboardName"),
    "AWS::Lambda::Function": ResourceType("repaired", "runs in processes of this machine", "FunctionName"),
    "AWS::Lambda::EventSourceMapping": ResourceType("repaired", "polled by the pump, not by moto"),
    "AWS::Lambda::LayerVersion": ResourceType(
        "created", "used where code was uploaded; the source tree runs with the packages of this Python", "LayerName"
    ),
    "AWS::Lambda::Version": ResourceType("not emulated", "what was deployed last is the only version"),
    "AWS::Lambda::Alias": ResourceType("repaired", "an alias means what was deployed last", "Name"),
    "AWS::Lambda::Permission": ResourceType("not emulated", "permissions are not enforced"),
    "AWS::Lambda::EventInvokeConfig": ResourceType("not emulated", "asynchronous calls are tried thrice"),
    "AWS::Events::Rule": ResourceType("repaired", "matched and delivered by the event router", "Name"),
    "AWS::Events::EventBus": ResourceType("created", "", "Name"),
    "AWS::Events::EventBusPolicy": ResourceType("not emulated", "policies are not enforced"),
    "AWS::IAM::Role": ResourceType("created", "policies are not enforced", "RoleName"),
    "AWS::IAM::Policy": ResourceType("created", "policies are not enforced"),
    "AWS::IAM::ManagedPolicy": ResourceType("not emulated", "policies are not enforced"),
    "AWS::Logs::LogGroup": ResourceType("created", "functions log to files in the state directory", "LogGroupName"),
    "AWS::Logs::MetricFilter": ResourceType("not emulated", "no metrics arrive"),
    "AWS::Logs::ResourcePolicy": ResourceType("not emulated", "policies are not enforced"),
    "AWS::Logs::QueryDefinition": ResourceType("not emulated", "there is no console", "Name"),
    "AWS::KMS::Key": ResourceType("created", "nothing is encrypted with it"),
    "AWS::KMS::Alias": ResourceType("created", "", "AliasName"),
    "AWS::SNS::Topic": ResourceType("created", "nothing is delivered from it", "TopicName"),
    "AWS::SNS::TopicPolicy": ResourceType("created", "policies are not enforced"),
    "AWS::SNS::Subscription": ResourceType("created", "nothing is delivered to it"),
    "AWS::SSM::Parameter": ResourceType("created", "", "Name"),
    "AWS::Scheduler::Schedule": ResourceType("repaired", "run by the pump", "Name"),
    "AWS::Scheduler::ScheduleGroup": ResourceType("not emulated", "schedules run without their group", "Name"),
    "AWS::CodeDeploy::Application": ResourceType("not emulated", "deployments are immediate"),
    "AWS::CodeDeploy::DeploymentGroup": ResourceType("not emulated", "deployments are immediate"),
    "AWS::AppConfig::Application": ResourceType("not emulated", "functions get their parameters at the start"),
    "AWS::AppConfig::ConfigurationProfile": ResourceType("not emulated", "functions get their parameters at the start"),
    "AWS::AppConfig::HostedConfigurationVersion": ResourceType(
        "not emulated", "functions get their parameters at the start"
    ),
    "AWS::CloudFormation::Stack": ResourceType("created", "a stack of its own"),
    "AWS::ApiGateway::RestApi": ResourceType("not emulated", _SERVED, "Name"),
    "AWS::ApiGateway::Resource": ResourceType("not emulated", _SERVED),
    "AWS::ApiGateway::Method": ResourceType("not emulated", _SERVED),
    "AWS::ApiGateway::Authorizer": ResourceType("not emulated", _SERVED),
    "AWS::ApiGateway::Deployment": ResourceType("not emulated", _SERVED),
    "AWS::ApiGateway::Stage": ResourceType("not emulated", _SERVED),
    "AWS::Cognito::UserPool": ResourceType("not emulated", "a token lets callers in"),
    "AWS::Cognito::UserPoolClient": ResourceType("not emulated", "a token lets callers in"),
    "AWS::Cognito::UserPoolDomain": ResourceType("not emulated", "a token lets callers in"),
    "AWS::Cognito::ManagedLoginBranding": ResourceType("not emulated", "a token lets callers in"),
    "AWS::XRay::Group": ResourceType("not emulated", "traces are not collected"),
    "AWS::Budgets::Budget": ResourceType("not emulated", "nothing is billed"),
}

# References that are no order: a queue names the queues that may use it for dead letters, and they name it.
_UNORDERED_PROPERTIES: Mapping[str, frozenset[str]] = {"AWS::SQS::Queue": frozenset({"RedriveAllowPolicy"})}

# The translator's classes hold some state of their own.
_translating = threading.Lock()


@dataclass(frozen=True)
class Resource:
    """One resource with its references resolved."""

    logical_id: str
    type: str
    name: str  # physical name
    properties: Mapping[str, Any]
    deletion_policy: str = "Delete"
    number: int = 1  # of a layer's version
    reference: str = ""  # what Ref gives: the physical id that CloudFormation shows

    @property
    def treatment(self) -> ResourceType:
        """How this machine treats the resource's type."""
        return RESOURCE_TYPES[self.type]


@dataclass(frozen=True)
class Translation:
    """A template with everything resolved: what a stack is to be."""

    stack_name: str
    region: str
    stack_id: str
    parameters: Mapping[str, str]
    resources: Mapping[str, Resource]  # by logical id, each after those it refers to
    code: Mapping[str, Path]  # a function's logical id -> the directory its handler lies in, where that is not uploaded
    outputs: Mapping[str, str] = field(default_factory=dict)
    nested_outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Outputs that are one of a nested stack, known once that is made: its logical id, and the output's name."""
    output_descriptions: Mapping[str, str] = field(default_factory=dict)
    processed: Mapping[str, Any] = field(default_factory=dict)  # the template after its transform

    def of_type(self, *types: str) -> Iterator[Resource]:
        """The resources of the types given, in template order."""
        return (resource for resource in self.resources.values() if resource.type in types)


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
        values[name] = text
    return values


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
    resolver = _Resolver(template, stack_name, region, values, stack_id, previous)
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


class _Resolver:
    """Resolves CloudFormation's intrinsic functions with every physical name known beforehand.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        stack_name: str,
        region: str,
        parameter_values: Mapping[str, str],
        stack_id: str | None,
        previous: Translation | None,
    ) -> None:
        self._region = region
        self._previous: Mapping[str, Resource] = previous.resources if previous else {}
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._mappings: Mapping[str, Any] = template.get("Mappings", {})
        self._types: dict[str, str] = {name: r["Type"] for name, r in template["Resources"].items()}
        self._properties: dict[str, Any] = {name: r.get("Properties", {}) for name, r in template["Resources"].items()}
        self._partition = partition_of(region)
        self._stack_name = stack_name
        self._suffixes = random.SystemRandom()
        self.names: dict[str, str] = {}
        declared = template.get("Parameters", {})
        self._values: dict[str, Any] = {
            name: value.split(",") if "List" in declared[name].get("Type", "") else value
            for name, value in parameter_values.items()
        }
        self.numbers: dict[str, int] = {}
        self.stack_id = stack_id or new_stack_id(region, stack_name)
        self._values |= {
            "AWS::Region": region,
            "AWS::AccountId": ACCOUNT_ID,
            "AWS::Partition": self._partition,
            "AWS::URLSuffix": "amazonaws.com.cn" if self._partition == "aws-cn" else "amazonaws.com",
            "AWS::StackName": stack_name,
            "AWS::StackId": self.stack_id,
            "AWS::NotificationARNs": [],
            "AWS::NoValue": _NO_VALUE,
        }
        self._functions: dict[str, Callable[[Any, str], Any]] = {
            "Ref": self._ref,
            "Condition": lambda name, _: self.condition(name),
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": lambda a, at: str(a[0]).join(str(v) for v in self.value(a[1], at)),
            "Fn::Split": lambda a, at: str(self.value(a[1], at)).split(a[0]),
            "Fn::Select": lambda a, at: self.value(a[1], at)[int(self.value(a[0], at))],
            "Fn::Base64": lambda a, at: base64.b64encode(str(self.value(a, at)).encode()).decode(),
            "Fn::FindInMap": self._find_in_map,
            "Fn::If": lambda a, at: self.value(a[1] if self.condition(a[0]) else a[2], at),
            "Fn::Equals": lambda a, at: str(self.value(a[0], at)) == str(self.value(a[1], at)),
            "Fn::And": lambda a, at: all(self.value(v, at) for v in a),
            "Fn::Or": lambda a, at: any(self.value(v, at) for v in a),
            "Fn::Not": lambda a, at: not self.value(a[0], at),
            "Fn::GetAZs": lambda a, at: [f"{self.value(a, at) or region}{zone}" for zone in "abc"],
        }

    def nested_output(self, value: Any) -> tuple[str, str] | None:
        """Return the nested stack and the output of it that a value is; None where it is none."""
        argument = value.get("Fn::GetAtt") if isinstance(value, Mapping) else None
        name, _, attribute = ".".join([argument] if isinstance(argument, str) else argument or ()).partition(".")
        if self._types.get(name) != NESTED_STACK or not attribute.startswith("Outputs."):
            return None
        return name, attribute.removeprefix("Outputs.")

    def drop_disabled(self, resources: dict[str, Any]) -> None:
        """Remove the resources whose condition is false."""
        for logical_id, resource in list(resources.items()):
            if "Condition" in resource and not self.condition(resource["Condition"]):
                del resources[logical_id]
                del self._types[logical_id]

    def name(self, resources: Mapping[str, Any]) -> None:
        """Give every resource its physical name: the template's, or one such as CloudFormation generates."""
        unnamed: list[str] = []
        for logical_id, resource in resources.items():
            name_property = RESOURCE_TYPES[resource["Type"]].name_property
            if name_property and name_property in (resource.get("Properties") or {}):
                unnamed.append(logical_id)
                continue
            self.names[logical_id] = self._generated_name(logical_id, resource)
        # A name in the template may refer to the generated name of another resource.
        for _ in range(len(unnamed) + 1):
            for logical_id in list(unnamed):
                resource = resources[logical_id]
                name_property = RESOURCE_TYPES[resource["Type"]].name_property
                assert name_property is not None
                try:
                    name = self.value(resource["Properties"][name_property], logical_id)
                except _NotNamedYetError:
                    continue
                unnamed.remove(logical_id)
                self.names[logical_id] = self._generated_name(logical_id, resource) if name is _NO_VALUE else str(name)
        if unnamed:
            raise StackError(f"the names of {', '.join(unnamed)} refer to each other")

    def number(self, resources: Mapping[str, Any], next_number: Callable[[str], int]) -> None:
        """Give every version of a layer its number: the one it has, or the next of its layer."""
        for logical_id, resource in resources.items():
            if resource["Type"] == "AWS::Lambda::LayerVersion":
                before = self._previous.get(logical_id)
                same = before is not None and before.name == self.names[logical_id]
                self.numbers[logical_id] = before.number if before and same else next_number(self.names[logical_id])

    def _generated_name(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        before = self._previous.get(logical_id)
        if before is not None and before.type == resource["Type"]:
            return before.name
        alphabet = string.ascii_uppercase + string.digits
        suffix = "".join(self._suffixes.choice(alphabet) for _ in range(_NAME_SUFFIX_LENGTH))
        if resource["Type"] == "AWS::KMS::Key":
            return str(uuid.UUID(int=self._suffixes.getrandbits(128), version=4))
        if resource["Type"] in ("AWS::S3::Bucket", "AWS::S3Vectors::VectorBucket", "AWS::S3Vectors::Index"):
            return f"{self._stack_name[: 63 - len(logical_id) - len(suffix) - 2]}-{logical_id}-{suffix}".lower()
        name = f"{self._stack_name[:24]}-{logical_id[:26]}-{suffix}"  # 64 characters is the shortest limit (roles)
        if resource["Type"] == "AWS::SQS::Queue" and (resource.get("Properties") or {}).get("FifoQueue"):
            return f"{name}.fifo"
        return name

    def in_dependency_order(self, resources: Mapping[str, Any]) -> list[str]:
        """Logical ids such that each comes after those it refers to; raises StackError on a cycle."""
        ordered: list[str] = []
        visiting: set[str] = set()

        def visit(logical_id: str) -> None:
            if logical_id in ordered:
                return
            if logical_id in visiting:
                raise StackError(f"circular dependency through {logical_id}")
            visiting.add(logical_id)
            resource = resources[logical_id]
            unordered = _UNORDERED_PROPERTIES.get(resource["Type"], frozenset())
            depends_on = resource.get("DependsOn", [])
            for name in [depends_on] if isinstance(depends_on, str) else depends_on:
                if name in resources:
                    visit(name)
            for key, value in (resource.get("Properties") or {}).items():
                if key in unordered:
                    continue
                for name in _references(value):
                    if name in resources and name != logical_id:
                        visit(name)
            visiting.discard(logical_id)
            ordered.append(logical_id)

        for logical_id in resources:
            visit(logical_id)
        return ordered

    def condition(self, name: str) -> bool:
        """Whether the template's named condition holds."""
        if name not in self._conditions:
            raise StackError(f"the template has no condition {name}")
        return bool(self.value(self._conditions[name], f"Conditions.{name}"))

    def value(self, node: Any, at: str) -> Any:
        """`node` with its intrinsic functions resolved; `at` says where it stands, for errors."""
        if isinstance(node, list):
            return [v for v in (self.value(item, at) for item in node) if v is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, argument),) = node.items()
            if key == "Condition" and not isinstance(argument, str):
                pass  # an IAM statement's Condition
            elif key in self._functions:
                return self._functions[key](argument, at)
            elif key.startswith("Fn::"):
                raise StackError(f"{at}: the local stack does not resolve {key}")
        resolved = {key: self.value(item, f"{at}.{key}") for key, item in node.items()}
        return {key: item for key, item in resolved.items() if item is not _NO_VALUE}

    def _find_in_map(self, argument: Any, at: str) -> Any:
        keys = [self.value(key, at) for key in argument[:3]]
        value: Any = self._mappings
        for key in keys:
            if not isinstance(value, Mapping) or str(key) not in value:
                if len(argument) > 3 and "DefaultValue" in argument[3]:
                    return self.value(argument[3]["DefaultValue"], at)
                raise StackError(f"{at}: no {'.'.join(map(str, keys))} in Mappings")
            value = value[str(key)]
        return value

    def _sub(self, argument: Any, at: str) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])

        def substitute(match: re.Match[str]) -> str:
            name = match.group(1)
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            name = name.strip()
            if name in own:
                return str(self.value(own[name], at))
            if "." in name:
                return str(self._get_att(name, at))
            resolved = self._ref(name, at)
            return ",".join(resolved) if isinstance(resolved, list) else str(resolved)

        return re.sub(r"\$\{([^}]+)\}", substitute, text)

    def _ref(self, name: str, at: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name not in self._types:
            raise StackError(f"{at}: reference to {name}, which the template does not have")
        physical = self._physical(name)
        match self._types[name]:
            case "AWS::SQS::Queue":
                return f"https://sqs.{self._region}.{self._values['AWS::URLSuffix']}/{ACCOUNT_ID}/{physical}"
            case "AWS::SNS::Topic":
                return self._arn("sns", physical)
            case "AWS::SecretsManager::Secret":
                return self._arn("secretsmanager", f"secret:{physical}-{SECRET_ARN_SUFFIX}")
            case "AWS::Lambda::LayerVersion":
                return self._arn("lambda", f"layer:{physical}:{self.numbers.get(name, 1)}")
            case "AWS::Lambda::Version" | "AWS::Lambda::Alias":
                qualifier = physical if self._types[name] == "AWS::Lambda::Alias" else "$LATEST"
                function = str(self.value(self._properties[name]["FunctionName"], at)).split(":function:")[-1]
                return self._arn("lambda", f"function:{function.split(':')[0]}:{qualifier}")
            case "AWS::CloudFormation::Stack":
                return nested_stack_id(self.stack_id, physical)
            case "AWS::IAM::ManagedPolicy":
                return f"arn:{self._partition}:iam::{ACCOUNT_ID}:policy/{physical}"
            case _:
                return physical

    def _get_att(self, argument: Any, at: str) -> Any:  # noqa: C901 - a table of types and their attributes
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        if name not in self._types:
            raise StackError(f"{at}: reference to {name}, which the template does not have")
        physical = self._physical(name)
        match self._types[name], attribute:
            case "AWS::SQS::Queue", "Arn":
                return self._arn("sqs", physical)
            case "AWS::SQS::Queue", "QueueUrl":
                return self._ref(name, at)
            case "AWS::S3::Bucket", "Arn":
                return f"arn:{self._partition}:s3:::{physical}"
            case "AWS::S3Vectors::VectorBucket", "VectorBucketArn":
                return self._arn("s3vectors", f"bucket/{physical}")
            case "AWS::S3Vectors::Index", "IndexArn":
                return f"{self.value(self._properties[name]['VectorBucketArn'], at)}/index/{physical}"
            case "AWS::S3::Bucket", "RegionalDomainName":
                return f"{physical}.s3.{self._region}.{self._values['AWS::URLSuffix']}"
            case "AWS::S3::Bucket", "DomainName":
                return f"{physical}.s3.{self._values['AWS::URLSuffix']}"
            case "AWS::DynamoDB::Table", "Arn":
                return self._arn("dynamodb", f"table/{physical}")
            case "AWS::Lambda::Function", "Arn":
                return self._arn("lambda", f"function:{physical}")
            case "AWS::Lambda::Version", "Version":
                return "$LATEST"
            case "AWS::KMS::Key", "Arn":
                return self._arn("kms", f"key/{physical}")
            case "AWS::IAM::Role", "Arn":
                return f"arn:{self._partition}:iam::{ACCOUNT_ID}:role/{physical}"
            case "AWS::Events::EventBus", "Arn":
                return self._arn("events", f"event-bus/{physical}")
            case "AWS::Events::Rule", "Arn":
                return self._arn("events", f"rule/{physical}")
            case "AWS::Logs::LogGroup", "Arn":
                return self._arn("logs", f"log-group:{physical}:*")
            case "AWS::SNS::Topic", "TopicArn":
                return self._arn("sns", physical)
            case "AWS::CloudWatch::Alarm" | "AWS::CloudWatch::CompositeAlarm", "Arn":
                return self._arn("cloudwatch", f"alarm:{physical}")
            case "AWS::Scheduler::Schedule", "Arn":
                return self._arn("scheduler", f"schedule/default/{physical}")
            case "AWS::ApiGateway::RestApi", "RootResourceId":
                return f"{physical}-root"
            case "AWS::Cognito::UserPool", "Arn":
                return self._arn("cognito-idp", f"userpool/{physical}")
            case "AWS::SecretsManager::Secret", "Id":
                return self._ref(name, at)
            case _, ("Name" | "QueueName" | "TopicName"):
                return physical
            case type_, _:
                raise StackError(f"{at}: the local stack does not know the attribute {attribute} of {type_}")

    def _physical(self, name: str) -> str:
        if name not in self.names:
            raise _NotNamedYetError(name)
        return self.names[name]

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self._partition}:{service}:{self._region}:{ACCOUNT_ID}:{resource}"


class _NotNamedYetError(StackError):
    """A reference to a resource whose name is still being made out."""


def new_stack_id(region: str, stack_name: str) -> str:
    """An ARN for a new stack, as CloudFormation makes one."""
    return f"arn:{partition_of(region)}:cloudformation:{region}:{ACCOUNT_ID}:stack/{stack_name}/{uuid.uuid4()}"


def nested_stack_id(parent_id: str, name: str) -> str:
    """The ARN of a nested stack: known before it is made, and the same as long as it is there."""
    account = parent_id.partition(":stack/")[0]
    return f"{account}:stack/{name}/{uuid.uuid5(uuid.NAMESPACE_URL, f'{parent_id}/{name}')}"


def partition_of(region: str) -> str:
    """The AWS partition a region belongs to, as ARNs name it."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _references(node: Any) -> Iterator[str]:
    """Logical ids (and parameter names) that `node` refers to."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref" and isinstance(value, str):
                yield value
            elif key == "Fn::GetAtt":
                yield value.split(".")[0] if isinstance(value, str) else value[0]
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from (match.split(".")[0].strip() for match in re.findall(r"\$\{([^!}][^}]*)\}", text))
                if not isinstance(value, str):
                    yield from _references(value[1])
            else:
                yield from _references(value)
