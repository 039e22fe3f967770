"""CloudFormation's intrinsic functions and generated names, resolved without asking a service."""

from __future__ import annotations

import base64
import random
import re
import string
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from captions_cli.local.cloudformation.resources import (
    ACCOUNT_ID,
    NESTED_STACK,
    RESOURCE_TYPES,
    SECRET_ARN_SUFFIX,
    Resource,
    Translation,
    nested_stack_id,
    new_stack_id,
    partition_of,
)
from captions_cli.local.errors import StackError

_NO_VALUE = object()
# References that are no order: a queue names the queues that may use it for dead letters, and they name it.
_UNORDERED_PROPERTIES: Mapping[str, frozenset[str]] = {"AWS::SQS::Queue": frozenset({"RedriveAllowPolicy"})}
_NAME_SUFFIX_LENGTH = 12  # as CloudFormation's generated names have


class Resolver:
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
