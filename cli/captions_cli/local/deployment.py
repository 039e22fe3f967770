"""Creates a translated template in the AWS stand-in, and repairs what CloudFormation leaves out there."""

from __future__ import annotations

import json
import logging
import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

from captions_cli.local.errors import StackError
from captions_cli.local.events import parse_function_name
from captions_cli.local.pump import EventSource, Schedule
from captions_cli.local.sandboxes import Function
from captions_cli.local.schedules import parse_schedule
from captions_cli.local.translate import (
    ACCOUNT_ID,
    CODE_BUCKET,
    CODE_KEY,
    SECRET_ARN_SUFFIX,
    Resource,
    Translation,
    partition_of,
)

LOGGER = logging.getLogger(__name__)

Clients = Callable[[str], Any]  # service -> boto3 client

_DEFAULT_TIMEOUT_S = 3  # Lambda's
_DEFAULT_MEMORY_MB = 128  # Lambda's
_DEFAULT_BATCH_SIZE = 10  # of an SQS event source


def create(translation: Translation, clients: Clients) -> dict[str, str]:
    """Create the stack; returns its outputs. Raises StackError if CloudFormation's stand-in rejects it."""
    _upload_code(translation, clients("s3"))
    for secret in translation.of_type("AWS::SecretsManager::Secret"):
        _create_secret(secret, translation.region, clients("secretsmanager"))
    cloudformation = clients("cloudformation")
    cloudformation.create_stack(
        StackName=translation.stack_name,
        TemplateBody=json.dumps(translation.template),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in translation.parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    stack = cloudformation.describe_stacks(StackName=translation.stack_name)["Stacks"][0]
    if stack["StackStatus"] != "CREATE_COMPLETE":
        raise StackError(f"the stack ended as {stack['StackStatus']}: {stack.get('StackStatusReason', '')}")
    _repair(translation, clients)
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def functions(translation: Translation) -> dict[str, Function]:
    """The stack's functions, by logical id. Raises StackError if one's code is not in the source tree."""
    found = {}
    for resource in translation.of_type("AWS::Lambda::Function"):
        properties = resource.properties
        code = translation.code.get(resource.logical_id)
        if code is None or not code.is_dir():
            raise StackError(f"the code of {resource.logical_id} is not there: {code}")
        variables = properties.get("Environment", {}).get("Variables", {})
        found[resource.logical_id] = Function(
            logical_id=resource.logical_id,
            name=resource.name,
            arn=_function_arn(translation.region, resource.name),
            handler=properties["Handler"],
            code=code,
            timeout_s=float(properties.get("Timeout", _DEFAULT_TIMEOUT_S)),
            memory_mb=int(properties.get("MemorySize", _DEFAULT_MEMORY_MB)),
            environment={name: str(value) for name, value in variables.items()},
        )
    return found


def event_sources(translation: Translation, by_id: Mapping[str, Function]) -> list[EventSource]:
    """What the stack's event source mappings say. Raises StackError for one that does not read an SQS queue."""
    sources = []
    by_name = {function.name: function for function in by_id.values()}
    for resource in translation.of_type("AWS::Lambda::EventSourceMapping"):
        properties = resource.properties
        arn = str(properties.get("EventSourceArn", ""))
        if ":sqs:" not in arn:
            raise StackError(f"{resource.logical_id}: the local stack polls SQS queues only, not {arn}")
        filters = properties.get("FilterCriteria", {}).get("Filters", [])
        sources.append(
            EventSource(
                function=by_name[parse_function_name(properties["FunctionName"])],
                queue_arn=arn,
                batch_size=int(properties.get("BatchSize", _DEFAULT_BATCH_SIZE)),
                window_s=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
                maximum_concurrency=_maximum_concurrency(properties),
                partial_responses="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
                filters=tuple(json.loads(f["Pattern"]) for f in filters),
                enabled=str(properties.get("Enabled", True)).lower() == "true",
            )
        )
    return sources


def schedules(translation: Translation, by_id: Mapping[str, Function]) -> list[Schedule]:
    """The stack's schedules: rules with a ScheduleExpression, and EventBridge Scheduler's."""
    by_name = {function.name: function for function in by_id.values()}
    found = []
    for resource in translation.of_type("AWS::Events::Rule", "AWS::Scheduler::Schedule"):
        properties = resource.properties
        expression = properties.get("ScheduleExpression")
        if expression is None or properties.get("State", "ENABLED") != "ENABLED":
            continue
        is_rule = resource.type == "AWS::Events::Rule"
        for target in properties.get("Targets", []) if is_rule else [properties["Target"]]:
            if ":lambda:" not in target["Arn"]:
                raise StackError(
                    f"{resource.logical_id}: the local stack schedules functions only, not {target['Arn']}"
                )
            found.append(
                Schedule(
                    arn=_schedule_arn(translation.region, resource),
                    function=by_name[parse_function_name(target["Arn"])],
                    next_after=parse_schedule(expression),
                    input=target.get("Input"),
                    source="aws.events" if is_rule else "aws.scheduler",
                )
            )
    return found


def coverage(translation: Translation) -> list[tuple[str, str, str, str]]:
    """For each resource: logical id, type, how it is treated, and what that means."""
    return [
        (resource.logical_id, resource.type, resource.treatment.treatment, resource.treatment.note)
        for resource in translation.resources.values()
    ]


def _maximum_concurrency(properties: Mapping[str, Any]) -> int | None:
    most = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
    return None if most is None else int(most)


def _function_arn(region: str, name: str) -> str:
    return f"arn:{partition_of(region)}:lambda:{region}:{ACCOUNT_ID}:function:{name}"


def _schedule_arn(region: str, resource: Resource) -> str:
    if resource.type == "AWS::Events::Rule":
        return f"arn:{partition_of(region)}:events:{region}:{ACCOUNT_ID}:rule/{resource.name}"
    return f"arn:{partition_of(region)}:scheduler:{region}:{ACCOUNT_ID}:schedule/default/{resource.name}"


def _upload_code(translation: Translation, s3: Any) -> None:
    # The stand-in's Lambda wants an object to point at; the code itself runs from the source tree.
    location = {} if translation.region == "us-east-1" else {"LocationConstraint": translation.region}
    s3.create_bucket(Bucket=CODE_BUCKET, **({"CreateBucketConfiguration": location} if location else {}))
    s3.put_object(Bucket=CODE_BUCKET, Key=CODE_KEY, Body=b"")


def _create_secret(secret: Resource, region: str, client: Any) -> None:
    from moto.secretsmanager.models import secretsmanager_backends

    value = secret.properties.get("SecretString")
    if value is None:
        alphabet = string.ascii_letters + string.digits
        value = "".join(secrets.choice(alphabet) for _ in range(32))
        generate = secret.properties.get("GenerateSecretString", {})
        if "SecretStringTemplate" in generate:
            template = json.loads(generate["SecretStringTemplate"])
            value = json.dumps(template | {generate["GenerateStringKey"]: value})
    client.create_secret(Name=secret.name, SecretString=value, Description=secret.properties.get("Description", ""))
    # The template's references were resolved before: the secret gets the ARN they hold.
    stored = secretsmanager_backends[ACCOUNT_ID][region].secrets[secret.name]
    stored.arn = f"{stored.arn.rpartition(':secret:')[0]}:secret:{secret.name}-{SECRET_ARN_SUFFIX}"


def _repair(translation: Translation, clients: Clients) -> None:
    repairs: Mapping[str, Callable[[Resource, Clients], None]] = {
        "AWS::S3::Bucket": _repair_bucket,
        "AWS::S3::BucketPolicy": _repair_bucket_policy,
        "AWS::SQS::Queue": _repair_queue,
        "AWS::SQS::QueuePolicy": _repair_queue_policy,
        "AWS::DynamoDB::Table": _repair_table,
        "AWS::CloudWatch::Alarm": _repair_alarm,
    }
    for resource in translation.resources.values():
        if resource.type in repairs:
            repairs[resource.type](resource, clients)


def _repair_bucket(bucket: Resource, clients: Clients) -> None:
    s3, name, properties = clients("s3"), bucket.name, bucket.properties
    if status := properties.get("VersioningConfiguration", {}).get("Status"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
    notifications = properties.get("NotificationConfiguration", {})
    if unsupported := sorted(set(notifications) - {"EventBridgeConfiguration"}):
        raise StackError(f"{bucket.logical_id}: the local stack does not do {', '.join(unsupported)}; use EventBridge")
    if str(notifications.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", "")).lower() == "true":
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if block := properties.get("PublicAccessBlockConfiguration"):
        flags = {flag: str(value).lower() == "true" for flag, value in block.items()}
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=flags)
    if rules := properties.get("OwnershipControls", {}).get("Rules"):
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls={"Rules": rules})
    if rules := properties.get("CorsConfiguration", {}).get("CorsRules"):
        renamed = {"ExposedHeaders": "ExposeHeaders", "MaxAge": "MaxAgeSeconds", "Id": "ID"}
        s3.put_bucket_cors(
            Bucket=name,
            CORSConfiguration={"CORSRules": [{renamed.get(k, k): v for k, v in rule.items()} for rule in rules]},
        )
    if rules := properties.get("LifecycleConfiguration", {}).get("Rules"):
        s3.put_bucket_lifecycle_configuration(
            Bucket=name, LifecycleConfiguration={"Rules": [_lifecycle_rule(rule) for rule in rules]}
        )


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """CloudFormation's names for a lifecycle rule in S3's."""
    kept = {"Status", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"}
    converted: dict[str, Any] = {key: value for key, value in rule.items() if key in kept}
    if "Id" in rule:
        converted["ID"] = rule["Id"]
    converted["Filter"] = {"Prefix": rule.get("Prefix", "")}
    expiration = {
        key: rule[name]
        for key, name in (("Days", "ExpirationInDays"), ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"))
        if name in rule
    }
    if expiration:
        converted["Expiration"] = expiration
    numbered: dict[str, Any] = _with_numbers(converted)
    return numbered


def _with_numbers(node: Any) -> Any:
    """Parameters are strings; S3's API wants days as numbers."""
    if isinstance(node, dict):
        days = {"Days", "NoncurrentDays", "DaysAfterInitiation", "NewerNoncurrentVersions"}
        return {k: int(v) if k in days else _with_numbers(v) for k, v in node.items()}
    return node


def _repair_bucket_policy(policy: Resource, clients: Clients) -> None:
    clients("s3").put_bucket_policy(
        Bucket=policy.properties["Bucket"], Policy=json.dumps(policy.properties["PolicyDocument"])
    )


def _repair_queue(queue: Resource, clients: Clients) -> None:
    if allowed := queue.properties.get("RedriveAllowPolicy"):
        sqs = clients("sqs")
        url = sqs.get_queue_url(QueueName=queue.name)["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedriveAllowPolicy": json.dumps(allowed)})


def _repair_queue_policy(policy: Resource, clients: Clients) -> None:
    for url in policy.properties["Queues"]:
        clients("sqs").set_queue_attributes(
            QueueUrl=url, Attributes={"Policy": json.dumps(policy.properties["PolicyDocument"])}
        )


def _repair_table(table: Resource, clients: Clients) -> None:
    dynamodb, properties = clients("dynamodb"), table.properties
    if ttl := properties.get("TimeToLiveSpecification"):
        dynamodb.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={
                "Enabled": str(ttl["Enabled"]).lower() == "true",
                "AttributeName": ttl["AttributeName"],
            },
        )
    recovery = properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
    if str(recovery).lower() == "true":
        dynamodb.update_continuous_backups(
            TableName=table.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )


def _repair_alarm(alarm: Resource, clients: Clients) -> None:
    numbers = {"Period": int, "EvaluationPeriods": int, "DatapointsToAlarm": int, "Threshold": float}
    properties = {k: numbers[k](v) if k in numbers else v for k, v in alarm.properties.items() if k != "Tags"}
    clients("cloudwatch").put_metric_alarm(**(properties | {"AlarmName": alarm.name}))
