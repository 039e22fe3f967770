"""Makes, changes and removes resources by the calls that CloudFormation makes, type by type.

A `put` gets what the resource is to be and what it was (None: it is new). An update that failed half way is taken
back by putting what was.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from captions_cli.local.cloudformation.translate import ACCOUNT_ID, SECRET_ARN_SUFFIX, Resource
from captions_cli.local.errors import StackError

Clients = Callable[[str], Any]  # service -> boto3 client of the stack's region

_Put = Callable[[Resource, Resource | None, Clients], None]
_Delete = Callable[[Resource, Clients], None]
_Read = Callable[[Resource, Clients], Mapping[str, Any]]


@dataclass(frozen=True)
class Provider:
    """How one type is put and deleted, and how what matters of it is read back, for drift.

    `fixed`: properties whose change would need another resource in its place, which the local stack does not do.
    `read` gives properties as the template names them, those that it can tell.
    """

    put: _Put
    delete: _Delete
    fixed: frozenset[str] = frozenset()
    read: _Read | None = None


def put(resource: Resource, before: Resource | None, clients: Clients) -> None:
    """Make the resource, or turn what it was into what it is to be.

    Raises StackError for a change that needs another resource in its place; ClientError as the service does.
    """
    provider = PROVIDERS.get(resource.type)
    if provider is None:
        return
    if before is not None:
        changed = {name for name in provider.fixed if resource.properties.get(name) != before.properties.get(name)}
        if changed:
            raise StackError(f"the local stack does not replace {resource.logical_id}: {', '.join(sorted(changed))}")
    provider.put(resource, before, clients)


def delete(resource: Resource, clients: Clients) -> None:
    """Remove the resource. Raises ClientError as the service does."""
    if (provider := PROVIDERS.get(resource.type)) is not None:
        provider.delete(resource, clients)


def drifted(resource: Resource, clients: Clients) -> list[tuple[str, Any, Any]] | None:
    """Properties that are not as the template says: name, expected, actual; None where that cannot be told."""
    provider = PROVIDERS.get(resource.type)
    if provider is None or provider.read is None:
        return None
    actual = provider.read(resource, clients)
    expected = {name: resource.properties.get(name) for name in actual}
    return [
        (name, expected[name], actual[name])
        for name in sorted(actual)
        if expected[name] is not None and _plain(expected[name]) != _plain(actual[name])
    ]


def _plain(value: Any) -> Any:
    """A value as it compares: CloudFormation takes numbers and truth values as strings as well."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value).lower() if isinstance(value, bool | int | float) else value


def _truth(value: Any) -> bool:
    return str(value).lower() == "true"


def _tags(resource: Resource) -> list[dict[str, str]]:
    tags = resource.properties.get("Tags", [])
    if isinstance(tags, Mapping):
        return [{"Key": key, "Value": str(value)} for key, value in tags.items()]
    return [{"Key": tag["Key"], "Value": str(tag["Value"])} for tag in tags]


# S3


def _put_bucket(bucket: Resource, before: Resource | None, clients: Clients) -> None:
    s3, name, properties = clients("s3"), bucket.name, bucket.properties
    if before is None:
        region = s3.meta.region_name
        location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **location)
    if status := properties.get("VersioningConfiguration", {}).get("Status"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
    notifications = properties.get("NotificationConfiguration", {})
    if unsupported := sorted(set(notifications) - {"EventBridgeConfiguration"}):
        raise StackError(f"{bucket.logical_id}: the local stack does not do {', '.join(unsupported)}; use EventBridge")
    if _truth(notifications.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", "")):
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if block := properties.get("PublicAccessBlockConfiguration"):
        flags = {flag: _truth(value) for flag, value in block.items()}
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
    if tags := _tags(bucket):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})


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


def _delete_bucket(bucket: Resource, clients: Clients) -> None:
    clients("s3").delete_bucket(Bucket=bucket.name)


def _read_bucket(bucket: Resource, clients: Clients) -> Mapping[str, Any]:
    s3 = clients("s3")
    status = s3.get_bucket_versioning(Bucket=bucket.name).get("Status")
    notifications = s3.get_bucket_notification_configuration(Bucket=bucket.name)
    enabled = "EventBridgeConfiguration" in notifications
    attributes: dict[str, Any] = {
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": enabled}},
        "VersioningConfiguration": {"Status": status or "Suspended"},
    }
    return attributes


def _put_bucket_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    clients("s3").put_bucket_policy(
        Bucket=policy.properties["Bucket"], Policy=json.dumps(policy.properties["PolicyDocument"])
    )


def _delete_bucket_policy(policy: Resource, clients: Clients) -> None:
    clients("s3").delete_bucket_policy(Bucket=policy.properties["Bucket"])


# SQS

_QUEUE_JSON = ("RedrivePolicy", "RedriveAllowPolicy")
_QUEUE_ATTRIBUTES = (
    "VisibilityTimeout",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "DelaySeconds",
    "MaximumMessageSize",
    "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds",
    "SqsManagedSseEnabled",
    "ContentBasedDeduplication",
)


def _queue_url(clients: Clients, name: str) -> str:
    return str(clients("sqs").get_queue_url(QueueName=name)["QueueUrl"])


def _put_queue(queue: Resource, before: Resource | None, clients: Clients) -> None:
    sqs, properties = clients("sqs"), queue.properties
    attributes = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in properties.items()
        if name in _QUEUE_ATTRIBUTES
    }
    attributes |= {name: json.dumps(properties[name]) for name in _QUEUE_JSON if name in properties}
    if before is None:
        fifo = {"FifoQueue": "true"} if _truth(properties.get("FifoQueue", False)) else {}
        # Which queues may send their dead letters here is set afterwards: they may not exist yet.
        first = {name: value for name, value in attributes.items() if name != "RedriveAllowPolicy"} | fifo
        sqs.create_queue(QueueName=queue.name, Attributes=first, tags={t["Key"]: t["Value"] for t in _tags(queue)})
        attributes = {name: value for name, value in attributes.items() if name == "RedriveAllowPolicy"}
    if attributes:
        sqs.set_queue_attributes(QueueUrl=_queue_url(clients, queue.name), Attributes=attributes)


def _delete_queue(queue: Resource, clients: Clients) -> None:
    clients("sqs").delete_queue(QueueUrl=_queue_url(clients, queue.name))


def _read_queue(queue: Resource, clients: Clients) -> Mapping[str, Any]:
    url = _queue_url(clients, queue.name)
    attributes = clients("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    numbers = ("VisibilityTimeout", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds")
    read = {name: int(attributes[name]) for name in numbers if name in attributes}
    return read | {name: json.loads(attributes[name]) for name in _QUEUE_JSON if name in attributes}


def _put_queue_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    gone = set(before.properties["Queues"] if before else []) - set(policy.properties["Queues"])
    for url in policy.properties["Queues"]:
        clients("sqs").set_queue_attributes(
            QueueUrl=url, Attributes={"Policy": json.dumps(policy.properties["PolicyDocument"])}
        )
    for url in gone:
        clients("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


def _delete_queue_policy(policy: Resource, clients: Clients) -> None:
    for url in policy.properties["Queues"]:
        clients("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


# DynamoDB

_TABLE_CREATION = (
    "BillingMode",
    "ProvisionedThroughput",
    "AttributeDefinitions",
    "KeySchema",
    "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
    "TableClass",
)


def _put_table(table: Resource, before: Resource | None, clients: Clients) -> None:
    dynamodb, properties = clients("dynamodb"), table.properties
    protected = _truth(properties.get("DeletionProtectionEnabled", False))
    if before is None:
        made = {name: properties[name] for name in _TABLE_CREATION if name in properties}
        if stream := properties.get("StreamSpecification"):
            made["StreamSpecification"] = stream | {"StreamEnabled": True}
        if encryption := properties.get("SSESpecification"):
            made["SSESpecification"] = {
                ("Enabled" if name == "SSEEnabled" else name): _truth(value) if name == "SSEEnabled" else value
                for name, value in encryption.items()
            }
        dynamodb.create_table(TableName=table.name, DeletionProtectionEnabled=protected, Tags=_tags(table), **made)
    else:
        dynamodb.update_table(TableName=table.name, DeletionProtectionEnabled=protected)
    ttl = properties.get("TimeToLiveSpecification")
    if ttl and (before is None or ttl != before.properties.get("TimeToLiveSpecification")):
        dynamodb.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={"Enabled": _truth(ttl["Enabled"]), "AttributeName": ttl["AttributeName"]},
        )
    recovery = properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
    if recovery is not None:
        dynamodb.update_continuous_backups(
            TableName=table.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": _truth(recovery)}
        )


def _delete_table(table: Resource, clients: Clients) -> None:
    clients("dynamodb").delete_table(TableName=table.name)


def _read_table(table: Resource, clients: Clients) -> Mapping[str, Any]:
    described = clients("dynamodb").describe_table(TableName=table.name)["Table"]
    return {"DeletionProtectionEnabled": described.get("DeletionProtectionEnabled", False)}


# Secrets Manager, SSM, KMS


def _put_secret(secret: Resource, before: Resource | None, clients: Clients) -> None:
    client, properties = clients("secretsmanager"), secret.properties
    if before is not None:
        # As in AWS the value is only written again where the template's own has changed: a person may have put another.
        if properties.get("SecretString") not in {None, before.properties.get("SecretString")}:
            client.put_secret_value(SecretId=secret.name, SecretString=properties["SecretString"])
        return
    value = properties.get("SecretString")
    if value is None:
        alphabet = string.ascii_letters + string.digits
        value = "".join(secrets.choice(alphabet) for _ in range(32))
        generate = properties.get("GenerateSecretString", {})
        if "SecretStringTemplate" in generate:
            template = json.loads(generate["SecretStringTemplate"])
            value = json.dumps(template | {generate["GenerateStringKey"]: value})
    client.create_secret(Name=secret.name, SecretString=value, Description=properties.get("Description", ""))
    from moto.secretsmanager.models import secretsmanager_backends

    # The template's references were resolved before: the secret gets the ARN they hold.
    stored = secretsmanager_backends[ACCOUNT_ID][client.meta.region_name].secrets[secret.name]
    stored.arn = f"{stored.arn.rpartition(':secret:')[0]}:secret:{secret.name}-{SECRET_ARN_SUFFIX}"


def _delete_secret(secret: Resource, clients: Clients) -> None:
    clients("secretsmanager").delete_secret(SecretId=secret.name, ForceDeleteWithoutRecovery=True)


def _put_parameter(parameter: Resource, before: Resource | None, clients: Clients) -> None:
    properties = {k: v for k, v in parameter.properties.items() if k in {"Type", "Value", "Description", "Tier"}}
    clients("ssm").put_parameter(Name=parameter.name, Overwrite=True, **properties)


def _delete_parameter(parameter: Resource, clients: Clients) -> None:
    clients("ssm").delete_parameter(Name=parameter.name)


def _put_key(key: Resource, before: Resource | None, clients: Clients) -> None:
    client, properties = clients("kms"), key.properties
    policy = json.dumps(properties["KeyPolicy"]) if "KeyPolicy" in properties else None
    if before is None:
        made = client.create_key(Description=properties.get("Description", ""))["KeyMetadata"]
        from moto.kms.models import kms_backends

        # The template's references were resolved before: the key gets the id they hold.
        backend = kms_backends[ACCOUNT_ID][client.meta.region_name]
        stored = backend.keys.pop(made["KeyId"])
        stored.id, stored.arn = key.name, stored.arn.replace(made["KeyId"], key.name)
        backend.keys[key.name] = stored
    if policy is not None:
        client.put_key_policy(KeyId=key.name, PolicyName="default", Policy=policy)
    if _truth(properties.get("EnableKeyRotation", False)):
        client.enable_key_rotation(KeyId=key.name)


def _delete_key(key: Resource, clients: Clients) -> None:
    clients("kms").schedule_key_deletion(KeyId=key.name, PendingWindowInDays=7)


def _put_key_alias(alias: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        clients("kms").delete_alias(AliasName=alias.name)
    clients("kms").create_alias(AliasName=alias.name, TargetKeyId=alias.properties["TargetKeyId"])


def _delete_key_alias(alias: Resource, clients: Clients) -> None:
    clients("kms").delete_alias(AliasName=alias.name)


# S3 Vectors


def _put_vector_bucket(bucket: Resource, before: Resource | None, clients: Clients) -> None:
    if before is None:
        clients("s3vectors").create_vector_bucket(vectorBucketName=bucket.name)


def _delete_vector_bucket(bucket: Resource, clients: Clients) -> None:
    clients("s3vectors").delete_vector_bucket(vectorBucketName=bucket.name)


def _put_vector_index(index: Resource, before: Resource | None, clients: Clients) -> None:
    if before is None:
        clients("s3vectors").create_index(
            vectorBucketArn=index.properties["VectorBucketArn"],
            indexName=index.name,
            dataType=index.properties["DataType"],
            dimension=int(index.properties["Dimension"]),
            distanceMetric=index.properties["DistanceMetric"],
        )


def _delete_vector_index(index: Resource, clients: Clients) -> None:
    clients("s3vectors").delete_index(indexArn=f"{index.properties['VectorBucketArn']}/index/{index.name}")


# Lambda

_FUNCTION_CONFIGURATION = ("Role", "Handler", "Description", "Runtime")


def _function_configuration(function: Resource) -> dict[str, Any]:
    properties = function.properties
    configuration = {name: properties[name] for name in _FUNCTION_CONFIGURATION if properties.get(name)}
    configuration |= {name: int(properties[name]) for name in ("Timeout", "MemorySize") if name in properties}
    # Those of other accounts, as Lambda Web Adapter's is, are not here, nor is what they would start.
    configuration["Layers"] = [arn for arn in properties.get("Layers", []) if arn.split(":")[4] == ACCOUNT_ID]
    variables = properties.get("Environment", {}).get("Variables", {})
    configuration["Environment"] = {"Variables": {name: str(value) for name, value in variables.items()}}
    if "TracingConfig" in properties:
        configuration["TracingConfig"] = properties["TracingConfig"]
    if properties.get("KmsKeyArn"):
        configuration["KMSKeyArn"] = properties["KmsKeyArn"]
    return configuration


def _function_code(function: Resource) -> dict[str, Any]:
    code = function.properties.get("Code", {})
    if "S3Bucket" not in code:
        raise StackError(f"{function.logical_id}: the local stack runs code from S3 only")
    return {name: code[name] for name in ("S3Bucket", "S3Key", "S3ObjectVersion") if name in code}


def _put_function(function: Resource, before: Resource | None, clients: Clients) -> None:
    client = clients("lambda")
    configuration, code = _function_configuration(function), _function_code(function)
    if before is None:
        client.create_function(
            FunctionName=function.name,
            Code=code,
            Architectures=function.properties.get("Architectures", ["x86_64"]),
            Tags={tag["Key"]: tag["Value"] for tag in _tags(function)},
            **configuration,
        )
    else:
        client.update_function_configuration(FunctionName=function.name, **configuration)
        client.update_function_code(FunctionName=function.name, **code)
    reserved = function.properties.get("ReservedConcurrentExecutions")
    if reserved is not None:
        client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=int(reserved))
    elif before is not None and "ReservedConcurrentExecutions" in before.properties:
        client.delete_function_concurrency(FunctionName=function.name)


def _delete_function(function: Resource, clients: Clients) -> None:
    clients("lambda").delete_function(FunctionName=function.name)


def _read_function(function: Resource, clients: Clients) -> Mapping[str, Any]:
    configuration = clients("lambda").get_function_configuration(FunctionName=function.name)
    return {
        "Timeout": configuration["Timeout"],
        "MemorySize": configuration["MemorySize"],
        "Handler": configuration["Handler"],
        "Environment": {"Variables": configuration.get("Environment", {}).get("Variables", {})},
    }


def _put_layer(layer: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        return  # a version does not change; another content is another version
    client, properties = clients("lambda"), layer.properties
    content = {n: v for n, v in properties["Content"].items() if n in {"S3Bucket", "S3Key", "S3ObjectVersion"}}
    answer = client.publish_layer_version(
        LayerName=layer.name,
        Description=properties.get("Description", ""),
        Content=content,
        CompatibleRuntimes=properties.get("CompatibleRuntimes", []),
        CompatibleArchitectures=properties.get("CompatibleArchitectures", []),
    )
    if answer["Version"] != layer.number:
        raise StackError(f"{layer.name} got version {answer['Version']} instead of {layer.number}")


def _delete_layer(layer: Resource, clients: Clients) -> None:
    clients("lambda").delete_layer_version(LayerName=layer.name, VersionNumber=layer.number)


def _function_name(reference: str) -> str:
    return reference.split(":function:")[-1].split(":")[0]


def _put_function_alias(alias: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        return  # it means what was deployed last
    clients("lambda").create_alias(
        FunctionName=_function_name(alias.properties["FunctionName"]), Name=alias.name, FunctionVersion="$LATEST"
    )


def _delete_function_alias(alias: Resource, clients: Clients) -> None:
    clients("lambda").delete_alias(FunctionName=_function_name(alias.properties["FunctionName"]), Name=alias.name)


_SOURCE_CHANGES = (
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "FunctionResponseTypes",
    "ScalingConfig",
    "FilterCriteria",
)


def _source_uuid(source: Resource, clients: Clients) -> str:
    arn, name = source.properties["EventSourceArn"], _function_name(source.properties["FunctionName"])
    mappings = clients("lambda").list_event_source_mappings(FunctionName=name, EventSourceArn=arn)[
        "EventSourceMappings"
    ]
    if not mappings:
        raise StackError(f"{source.logical_id}: {name} does not read {arn}")
    return str(mappings[0]["UUID"])


def _put_event_source(source: Resource, before: Resource | None, clients: Clients) -> None:
    client, properties = clients("lambda"), source.properties
    settings = {name: properties[name] for name in _SOURCE_CHANGES if name in properties}
    for name in ("BatchSize", "MaximumBatchingWindowInSeconds"):
        if name in settings:
            settings[name] = int(settings[name])
    if "ScalingConfig" in settings:
        settings["ScalingConfig"] = {name: int(value) for name, value in settings["ScalingConfig"].items()}
    settings["Enabled"] = _truth(properties.get("Enabled", True))
    # moto does not find a function by its alias; an alias means the function here anyway.
    settings["FunctionName"] = _function_name(properties["FunctionName"])
    if before is None:
        client.create_event_source_mapping(EventSourceArn=properties["EventSourceArn"], **settings)
    else:
        client.update_event_source_mapping(UUID=_source_uuid(before, clients), **settings)


def _delete_event_source(source: Resource, clients: Clients) -> None:
    clients("lambda").delete_event_source_mapping(UUID=_source_uuid(source, clients))


# EventBridge


def _bus(rule: Resource) -> dict[str, str]:
    return {"EventBusName": rule.properties["EventBusName"]} if rule.properties.get("EventBusName") else {}


def _put_rule(rule: Resource, before: Resource | None, clients: Clients) -> None:
    events, properties = clients("events"), rule.properties
    settings = {
        name: properties[name] for name in ("Description", "State", "ScheduleExpression") if properties.get(name)
    }
    if "EventPattern" in properties:
        settings["EventPattern"] = json.dumps(properties["EventPattern"])
    events.put_rule(Name=rule.name, **settings, **_bus(rule))
    targets = properties.get("Targets", [])
    kept = {target["Id"] for target in targets}
    if before is not None:
        gone = [t["Id"] for t in before.properties.get("Targets", []) if t["Id"] not in kept]
        if gone:
            events.remove_targets(Rule=rule.name, Ids=gone, **_bus(rule))
    if targets:
        events.put_targets(Rule=rule.name, Targets=[_with_retries(target) for target in targets], **_bus(rule))


def _with_retries(target: Mapping[str, Any]) -> dict[str, Any]:
    """A target with its numbers as numbers."""
    translated = dict(target)
    if "RetryPolicy" in translated:
        translated["RetryPolicy"] = {name: int(value) for name, value in translated["RetryPolicy"].items()}
    return translated


def _delete_rule(rule: Resource, clients: Clients) -> None:
    events = clients("events")
    if ids := [target["Id"] for target in rule.properties.get("Targets", [])]:
        events.remove_targets(Rule=rule.name, Ids=ids, **_bus(rule))
    events.delete_rule(Name=rule.name, **_bus(rule))


def _read_rule(rule: Resource, clients: Clients) -> Mapping[str, Any]:
    described = clients("events").describe_rule(Name=rule.name, **_bus(rule))
    read: dict[str, Any] = {"State": described["State"]}
    if described.get("EventPattern"):
        read["EventPattern"] = json.loads(described["EventPattern"])
    return read


def _put_bus(bus: Resource, before: Resource | None, clients: Clients) -> None:
    if before is None:
        clients("events").create_event_bus(Name=bus.name)


def _delete_bus(bus: Resource, clients: Clients) -> None:
    clients("events").delete_event_bus(Name=bus.name)


# IAM


def _policy_text(document: Mapping[str, Any]) -> str:
    """A policy as IAM's stand-in takes it; IAM itself does without a version."""
    return json.dumps({"Version": "2012-10-17"} | dict(document))


def _put_role(role: Resource, before: Resource | None, clients: Clients) -> None:
    iam, properties = clients("iam"), role.properties
    trust = _policy_text(properties["AssumeRolePolicyDocument"])
    if before is None:
        iam.create_role(
            RoleName=role.name, AssumeRolePolicyDocument=trust, Description=properties.get("Description", "")
        )
    else:
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=trust)
    policies = {policy["PolicyName"]: policy["PolicyDocument"] for policy in properties.get("Policies", [])}
    for name, document in policies.items():
        iam.put_role_policy(RoleName=role.name, PolicyName=name, PolicyDocument=_policy_text(document))
    for policy in before.properties.get("Policies", []) if before else []:
        if policy["PolicyName"] not in policies:
            iam.delete_role_policy(RoleName=role.name, PolicyName=policy["PolicyName"])


def _delete_role(role: Resource, clients: Clients) -> None:
    iam = clients("iam")
    for name in iam.list_role_policies(RoleName=role.name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=role.name, PolicyName=name)
    iam.delete_role(RoleName=role.name)


def _put_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    iam, properties = clients("iam"), policy.properties
    roles = properties.get("Roles", [])
    for role in roles:
        document = _policy_text(properties["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=properties["PolicyName"], PolicyDocument=document)
    if before is not None:
        for role in set(before.properties.get("Roles", [])) - set(roles):
            iam.delete_role_policy(RoleName=role, PolicyName=before.properties["PolicyName"])


def _delete_policy(policy: Resource, clients: Clients) -> None:
    for role in policy.properties.get("Roles", []):
        clients("iam").delete_role_policy(RoleName=role, PolicyName=policy.properties["PolicyName"])


# CloudWatch, logs, SNS


def _put_alarm(alarm: Resource, before: Resource | None, clients: Clients) -> None:
    clients("cloudwatch").put_metric_alarm(**_alarm(alarm.properties), AlarmName=alarm.name)


_ALARM_NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "Period": int,
    "EvaluationPeriods": int,
    "DatapointsToAlarm": int,
    "Threshold": float,
    "ReturnData": _truth,
    "ActionsEnabled": _truth,
}


def _alarm(node: Any) -> Any:
    """An alarm's properties with numbers as numbers, without its name and tags."""
    if isinstance(node, Mapping):
        return {
            name: _ALARM_NUMBERS[name](value) if name in _ALARM_NUMBERS else _alarm(value)
            for name, value in node.items()
            if name not in {"AlarmName", "Tags"}
        }
    return [_alarm(item) for item in node] if isinstance(node, list) else node


def _delete_alarm(alarm: Resource, clients: Clients) -> None:
    clients("cloudwatch").delete_alarms(AlarmNames=[alarm.name])


def _put_dashboard(dashboard: Resource, before: Resource | None, clients: Clients) -> None:
    clients("cloudwatch").put_dashboard(
        DashboardName=dashboard.name, DashboardBody=dashboard.properties["DashboardBody"]
    )


def _delete_dashboard(dashboard: Resource, clients: Clients) -> None:
    clients("cloudwatch").delete_dashboards(DashboardNames=[dashboard.name])


def _put_log_group(group: Resource, before: Resource | None, clients: Clients) -> None:
    logs = clients("logs")
    if before is None:
        logs.create_log_group(logGroupName=group.name)
    if days := group.properties.get("RetentionInDays"):
        logs.put_retention_policy(logGroupName=group.name, retentionInDays=int(days))


def _delete_log_group(group: Resource, clients: Clients) -> None:
    clients("logs").delete_log_group(logGroupName=group.name)


def _put_topic(topic: Resource, before: Resource | None, clients: Clients) -> None:
    sns = clients("sns")
    arn = sns.create_topic(Name=topic.name)["TopicArn"]
    for name in ("DisplayName", "KmsMasterKeyId"):
        if topic.properties.get(name):
            sns.set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=topic.properties[name])


def _delete_topic(topic: Resource, clients: Clients) -> None:
    clients("sns").delete_topic(TopicArn=topic.reference)


def _put_topic_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    for arn in policy.properties["Topics"]:
        clients("sns").set_topic_attributes(
            TopicArn=arn, AttributeName="Policy", AttributeValue=json.dumps(policy.properties["PolicyDocument"])
        )


def _put_subscription(subscription: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        if before.properties == subscription.properties:
            return
        _delete_subscription(before, clients)
    properties = subscription.properties
    clients("sns").subscribe(
        TopicArn=properties["TopicArn"], Protocol=properties["Protocol"], Endpoint=properties["Endpoint"]
    )


def _delete_subscription(subscription: Resource, clients: Clients) -> None:
    sns, properties = clients("sns"), subscription.properties
    for listed in sns.list_subscriptions_by_topic(TopicArn=properties["TopicArn"])["Subscriptions"]:
        if listed["Endpoint"] == properties["Endpoint"] and listed["SubscriptionArn"].startswith("arn:"):
            sns.unsubscribe(SubscriptionArn=listed["SubscriptionArn"])


def _nothing(resource: Resource, clients: Clients) -> None:
    """Goes with what it belongs to."""


PROVIDERS: Mapping[str, Provider] = {
    "AWS::S3::Bucket": Provider(_put_bucket, _delete_bucket, read=_read_bucket),
    "AWS::S3::BucketPolicy": Provider(_put_bucket_policy, _delete_bucket_policy, frozenset({"Bucket"})),
    "AWS::S3Vectors::VectorBucket": Provider(
        _put_vector_bucket, _delete_vector_bucket, frozenset({"EncryptionConfiguration"})
    ),
    "AWS::S3Vectors::Index": Provider(
        _put_vector_index, _delete_vector_index, frozenset({"Dimension", "DistanceMetric", "MetadataConfiguration"})
    ),
    "AWS::SQS::Queue": Provider(_put_queue, _delete_queue, frozenset({"FifoQueue"}), _read_queue),
    "AWS::SQS::QueuePolicy": Provider(_put_queue_policy, _delete_queue_policy),
    "AWS::DynamoDB::Table": Provider(
        _put_table,
        _delete_table,
        frozenset({"KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes", "LocalSecondaryIndexes"}),
        _read_table,
    ),
    "AWS::SecretsManager::Secret": Provider(_put_secret, _delete_secret),
    "AWS::SSM::Parameter": Provider(_put_parameter, _delete_parameter, frozenset({"Type"})),
    "AWS::KMS::Key": Provider(_put_key, _delete_key, frozenset({"KeySpec", "KeyUsage"})),
    "AWS::KMS::Alias": Provider(_put_key_alias, _delete_key_alias),
    "AWS::Lambda::Function": Provider(_put_function, _delete_function, frozenset({"PackageType"}), _read_function),
    "AWS::Lambda::LayerVersion": Provider(_put_layer, _delete_layer),
    "AWS::Lambda::Alias": Provider(_put_function_alias, _delete_function_alias, frozenset({"FunctionName"})),
    "AWS::Lambda::EventSourceMapping": Provider(_put_event_source, _delete_event_source, frozenset({"EventSourceArn"})),
    "AWS::Events::Rule": Provider(_put_rule, _delete_rule, frozenset({"EventBusName"}), _read_rule),
    "AWS::Events::EventBus": Provider(_put_bus, _delete_bus),
    "AWS::IAM::Role": Provider(_put_role, _delete_role, frozenset({"Path"})),
    "AWS::IAM::Policy": Provider(_put_policy, _delete_policy, frozenset({"PolicyName"})),
    "AWS::CloudWatch::Alarm": Provider(_put_alarm, _delete_alarm),
    "AWS::CloudWatch::Dashboard": Provider(_put_dashboard, _delete_dashboard),
    "AWS::Logs::LogGroup": Provider(_put_log_group, _delete_log_group),
    "AWS::SNS::Topic": Provider(_put_topic, _delete_topic, frozenset({"FifoTopic"})),
    "AWS::SNS::TopicPolicy": Provider(_put_topic_policy, _nothing),
    "AWS::SNS::Subscription": Provider(_put_subscription, _delete_subscription),
}
"""The types that are made; the others of RESOURCE_TYPES are run by the local stack alone, or not emulated."""
