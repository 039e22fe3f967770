"""What keeps data: buckets, queues, tables, secrets, parameters, keys and vectors."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from typing import Any

from captions_cli.local.cloudformation.provider import Clients, Provider, tags_of, truth
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, SECRET_ARN_SUFFIX, Resource
from captions_cli.local.errors import StackError

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
    if truth(notifications.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", "")):
        s3.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if block := properties.get("PublicAccessBlockConfiguration"):
        flags = {flag: truth(value) for flag, value in block.items()}
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
    if tags := tags_of(bucket):
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
        fifo = {"FifoQueue": "true"} if truth(properties.get("FifoQueue", False)) else {}
        # Which queues may send their dead letters here is set afterwards: they may not exist yet.
        first = {name: value for name, value in attributes.items() if name != "RedriveAllowPolicy"} | fifo
        sqs.create_queue(QueueName=queue.name, Attributes=first, tags={t["Key"]: t["Value"] for t in tags_of(queue)})
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
    protected = truth(properties.get("DeletionProtectionEnabled", False))
    if before is None:
        made = {name: properties[name] for name in _TABLE_CREATION if name in properties}
        if stream := properties.get("StreamSpecification"):
            made["StreamSpecification"] = stream | {"StreamEnabled": True}
        if encryption := properties.get("SSESpecification"):
            made["SSESpecification"] = {
                ("Enabled" if name == "SSEEnabled" else name): truth(value) if name == "SSEEnabled" else value
                for name, value in encryption.items()
            }
        dynamodb.create_table(TableName=table.name, DeletionProtectionEnabled=protected, Tags=tags_of(table), **made)
    else:
        dynamodb.update_table(TableName=table.name, DeletionProtectionEnabled=protected)
    ttl = properties.get("TimeToLiveSpecification")
    if ttl and (before is None or ttl != before.properties.get("TimeToLiveSpecification")):
        dynamodb.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={"Enabled": truth(ttl["Enabled"]), "AttributeName": ttl["AttributeName"]},
        )
    recovery = properties.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
    if recovery is not None:
        dynamodb.update_continuous_backups(
            TableName=table.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": truth(recovery)}
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
    if truth(properties.get("EnableKeyRotation", False)):
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


DATA: Mapping[str, Provider] = {
    "AWS::S3::Bucket": Provider(_put_bucket, _delete_bucket, read=_read_bucket),
    "AWS::S3::BucketPolicy": Provider(_put_bucket_policy, _delete_bucket_policy, frozenset({"Bucket"})),
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
    "AWS::S3Vectors::VectorBucket": Provider(
        _put_vector_bucket, _delete_vector_bucket, frozenset({"EncryptionConfiguration"})
    ),
    "AWS::S3Vectors::Index": Provider(
        _put_vector_index, _delete_vector_index, frozenset({"Dimension", "DistanceMetric", "MetadataConfiguration"})
    ),
}
