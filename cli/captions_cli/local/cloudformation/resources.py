"""The resources of a stack: which types this machine knows and how it treats them, and what they are resolved to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ACCOUNT_ID = "123456789012"  # moto's account
CODE_BUCKET = "local-deployment-artifacts"  # what functions and layers of the source tree are said to be in
CODE_KEY = "source-tree"
SECRET_ARN_SUFFIX = "LocAl1"  # Secrets Manager adds six characters to a secret's name

NESTED_STACK = "AWS::CloudFormation::Stack"

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
