"""Invariants of where media and captions are kept."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.template import Invariants, Template, current, listed, properties

KEYED = {
    "AWS::SNS::Topic": "KmsMasterKeyId",
    "AWS::Logs::LogGroup": "KmsKeyId",
    "AWS::SecretsManager::Secret": "KmsKeyId",
    "AWS::Events::EventBus": "KmsKeyIdentifier",
    "AWS::Lambda::Function": "KmsKeyArn",
    "AWS::AppConfig::ConfigurationProfile": "KmsKeyIdentifier",
}
"""Where else a key of one's own is given, by type."""

INVARIANTS = Invariants()
caught = INVARIANTS.caught


@caught(
    lambda raw: properties(raw, "MediaBucket")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
    lambda raw: properties(raw, "MediaBucket").pop("PublicAccessBlockConfiguration"),
    lambda raw: properties(raw, "MediaBucket").pop("VersioningConfiguration"),
    lambda raw: properties(raw, "MediaBucket").pop("NotificationConfiguration"),
    lambda raw: properties(raw, "MediaBucket").pop("BucketEncryption"),
    lambda raw: properties(raw, "MediaBucket")["LifecycleConfiguration"]["Rules"].pop(0),
)
def buckets_are_private_versioned_encrypted_and_tell_eventbridge(template: Template) -> Iterator[str]:
    switches = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for name, bucket in template.of_type("AWS::S3::Bucket"):
        blocked = bucket.get("PublicAccessBlockConfiguration", {})
        if not all(blocked.get(switch) is True for switch in switches):
            yield f"{name} can be made public"
        if bucket.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield f"{name} keeps no versions"
        if "BucketEncryption" not in bucket:
            yield f"{name} is not encrypted"
        bridge = bucket.get("NotificationConfiguration", {}).get("EventBridgeConfiguration", {})
        if bridge.get("EventBridgeEnabled") is not True:
            yield f"{name} tells EventBridge nothing"
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        if not any("AbortIncompleteMultipartUpload" in rule and rule["Status"] == "Enabled" for rule in rules):
            yield f"{name} keeps the parts of abandoned uploads"


@caught(
    lambda raw: raw["Resources"].pop("MediaBucketPolicy"),
    lambda raw: properties(raw, "MediaBucketPolicy")["PolicyDocument"]["Statement"][0].update(Effect="Allow"),
    lambda raw: properties(raw, "MediaBucketPolicy")["PolicyDocument"]["Statement"][0]["Resource"].pop(1),
    lambda raw: properties(raw, "QueuesTlsPolicy")["Queues"].pop(),
    lambda raw: properties(raw, "RuleTargetsPolicy")["PolicyDocument"]["Statement"].pop(1),
    of_doors=True,
)
def buckets_and_queues_refuse_plain_http(template: Template) -> Iterator[str]:
    guarded: list[str] = []
    for type_, attribute in (("AWS::S3::BucketPolicy", "Bucket"), ("AWS::SQS::QueuePolicy", "Queues")):
        for _, policy in template.of_type(type_):
            for statement in policy["PolicyDocument"]["Statement"]:
                insecure = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
                if statement["Effect"] == "Deny" and statement["Principal"] == "*" and insecure == "false":
                    named = {template.target(node) for node in listed(policy[attribute])}
                    guarded += [
                        name for node in listed(statement["Resource"]) if (name := template.target(node)) in named
                    ]
    for name, _ in template.of_type("AWS::SQS::Queue"):
        if name not in guarded:
            yield f"{name} takes plain HTTP"
    for name, _ in template.of_type("AWS::S3::Bucket"):
        if guarded.count(name) != 2:  # the bucket and its objects
            yield f"{name} takes plain HTTP"


@caught(
    lambda raw: properties(raw, "ControlTable").pop("SSESpecification"),
    lambda raw: properties(raw, "ImageQueue").pop("SqsManagedSseEnabled"),
    lambda raw: properties(raw, "ImageQueue").pop("KmsMasterKeyId"),
    lambda raw: properties(raw, "RuleDeadLetterQueue").update(SqsManagedSseEnabled=False),
    lambda raw: properties(raw, "CaptionsTable")["SSESpecification"].pop("KMSMasterKeyId"),
    lambda raw: properties(raw, "EventBus").update(KmsKeyIdentifier={"Ref": "KmsKeyArn"}),
    lambda raw: properties(raw, "AlarmTopic").update(KmsMasterKeyId="alias/aws/sns"),
    lambda raw: properties(raw, "SweepLogGroup").pop("KmsKeyId"),
    lambda raw: properties(raw, "EndpointSecret").pop("KmsKeyId"),
    lambda raw: properties(raw, "ConfigurationProfile").pop("KmsKeyIdentifier"),
    lambda raw: raw["Globals"]["Function"].pop("KmsKeyArn"),
    lambda raw: properties(raw, "MediaBucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"][0][
        "ServerSideEncryptionByDefault"
    ].pop("KMSMasterKeyID"),
    of_doors=True,
)
def everything_that_is_kept_is_encrypted_with_a_key_of_ones_own_if_there_is_one(template: Template) -> Iterator[str]:
    chosen: dict[str, Any] = {"Fn::If": ["MakesKey", {"Fn::GetAtt": ["DataKey", "Arn"]}, {"Ref": "KmsKeyArn"}]}
    condition = "HasKey"
    if "KeyArn" in template.raw["Parameters"]:  # of a nested template, which is given the chosen key
        condition, chosen = "HasOwnKey", {"Ref": "KeyArn"}
    own = {"Fn::If": [condition, chosen, {"Ref": "AWS::NoValue"}]}
    for name, table in template.of_type("AWS::DynamoDB::Table"):
        if table.get("SSESpecification") != {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": own}:
            yield f"{name} is not encrypted"
    for name, queue in template.of_type("AWS::SQS::Queue"):
        managed = {"Fn::If": [condition, {"Ref": "AWS::NoValue"}, True]}
        if (queue.get("SqsManagedSseEnabled"), queue.get("KmsMasterKeyId")) != (managed, own):
            yield f"{name} is not encrypted"
    for name, bucket in template.of_type("AWS::S3::Bucket"):
        (rule,) = bucket.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [{}])
        default = rule.get("ServerSideEncryptionByDefault", {})
        algorithm = {"Fn::If": [condition, "aws:kms", "AES256"]}
        if default != {"SSEAlgorithm": algorithm, "KMSMasterKeyID": own}:
            yield f"{name} is not encrypted"
    for type_, attribute in KEYED.items():
        for name, resource in template.of_type(type_):
            if resource.get(attribute) != own:
                yield f"{name} is not encrypted with the key"


@caught(
    lambda raw: properties(raw, "DataKey")["KeyPolicy"]["Statement"].pop(1),
    lambda raw: properties(raw, "DataKey")["KeyPolicy"]["Statement"].pop(2),
    lambda raw: properties(raw, "DataKey")["KeyPolicy"]["Statement"].pop(3),
    lambda raw: properties(raw, "DataKey")["KeyPolicy"]["Statement"][1]["Action"].remove("kms:GenerateDataKey"),
    lambda raw: properties(raw, "DataKey")["KeyPolicy"]["Statement"][1].pop("Condition"),
    lambda raw: properties(raw, "DataKey").pop("EnableKeyRotation"),
    lambda raw: raw["Resources"]["DataKey"].pop("DeletionPolicy"),
    lambda raw: properties(raw, "KeyPolicy")["Roles"].pop(),
    lambda raw: properties(raw, "KeyPolicy")["PolicyDocument"]["Statement"][0]["Action"].remove("kms:Decrypt"),
    lambda raw: properties(raw, "KeyPolicy")["PolicyDocument"]["Statement"][0]["Condition"]["StringLike"][
        "kms:ViaService"
    ].pop(4),
)
def the_key_may_be_used_by_those_who_need_it(template: Template) -> Iterator[str]:
    key = template.resources["DataKey"]
    if (key.get("DeletionPolicy"), key.get("UpdateReplacePolicy")) != ("RetainExceptOnCreate", "Retain"):
        yield "what the key encrypts outlives it"
    if key["Properties"].get("EnableKeyRotation") is not True:
        yield "the key is never renewed"
    granted: dict[str, set[str]] = {}
    for statement in key["Properties"]["KeyPolicy"]["Statement"]:
        for service in listed(statement["Principal"].get("Service", [])):
            name = service if isinstance(service, str) else service["Fn::Sub"]
            granted.setdefault(name.split(".")[0], set()).update(listed(statement["Action"]))
            if "Condition" not in statement and name != "cloudwatch.amazonaws.com":
                yield f"{name} may use the key for other accounts"
    for service in ("events", "cloudwatch", "logs"):
        if not {"kms:Decrypt", "kms:GenerateDataKey"} <= granted.get(service, set()):
            yield f"{service} may not use the key"
    policy = template.resources["KeyPolicy"]["Properties"]
    roles = {template.target(function["Role"]) for _, function in template.of_type("AWS::Lambda::Function")}
    if {template.target(role) for role in policy["Roles"]} != roles:
        yield "a function may not use the key"
    (allowed,) = policy["PolicyDocument"]["Statement"]
    if not {"kms:Decrypt", "kms:GenerateDataKey"} <= set(allowed["Action"]):
        yield "functions may not use the key"
    via = {entry["Fn::Sub"].split(".")[0] for entry in allowed["Condition"]["StringLike"]["kms:ViaService"]}
    if via != {"dynamodb", "events", "lambda", "s3", "secretsmanager", "sns", "sqs"}:
        yield f"functions may use the key through {via}"


@caught(
    lambda raw: properties(raw, "CaptionsTable").pop("PointInTimeRecoverySpecification"),
    lambda raw: raw["Resources"]["CaptionsTable"].pop("DeletionPolicy"),
    lambda raw: raw["Resources"]["MediaBucket"].update(UpdateReplacePolicy="Delete"),
    lambda raw: properties(raw, "CaptionsTable").pop("DeletionProtectionEnabled"),
)
def what_cannot_be_made_again_survives(template: Template) -> Iterator[str]:
    table = template.resources["CaptionsTable"]["Properties"]
    if table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled") is not True:
        yield "the captions cannot be restored to a point in time"
    if "DeletionProtectionEnabled" not in table:
        yield "the captions table can be deleted"
    for name in ("CaptionsTable", "MediaBucket"):
        kept = template.resources[name].get("DeletionPolicy"), template.resources[name].get("UpdateReplacePolicy")
        if kept != ("RetainExceptOnCreate", "Retain"):
            yield f"{name} goes with the stack"


@caught(
    lambda raw: properties(raw, "FingerprintsTable").pop("TimeToLiveSpecification"),
    lambda raw: properties(raw, "ControlTable")["TimeToLiveSpecification"].update(Enabled=False),
    lambda raw: properties(raw, "ControlTable").update(BillingMode="PROVISIONED"),
    lambda raw: properties(raw, "CaptionsTable").pop("GlobalSecondaryIndexes"),
)
def tables_are_on_demand_with_their_keys_and_expiry(template: Template) -> Iterator[str]:
    indexed = {
        "activity": ["activity", "activity_at"],
        "attention": ["attention", "attention_rank"],
        "copy_of": ["copy_of", "completed_at"],  # with the API alone
    }
    shapes = {
        "CaptionsTable": (["asset"], indexed, None),
        "FingerprintsTable": (["pk", "sk"], {}, "expires_at"),
        "ControlTable": (["pk", "sk"], {}, "expires_at"),
    }
    for name, table in template.of_type("AWS::DynamoDB::Table"):
        keys = [key["AttributeName"] for key in table["KeySchema"]]
        indexes = {
            index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
            for entry in table.get("GlobalSecondaryIndexes", [])
            for index in [entry["Fn::If"][1] if "Fn::If" in entry else entry]
        }
        ttl = table.get("TimeToLiveSpecification", {})
        if shapes[name] != (keys, indexes, ttl.get("AttributeName") if ttl.get("Enabled") else None):
            yield f"{name} has other keys, indexes or expiry than the product reads"
        conditions = [entry["Fn::If"][0] for entry in table.get("GlobalSecondaryIndexes", []) if "Fn::If" in entry]
        if conditions != ["HasApi"] * len(conditions):
            yield f"{name} has an index of the API's without it"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name} is not on demand"


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()


KEPT = {
    "AWS::AppConfig::Application": {"ConfigurationApplication"},
    "AWS::DynamoDB::Table": {"CaptionsTable", "ControlTable", "FingerprintsTable"},
    "AWS::Events::EventBus": {"EventBus"},
    "AWS::KMS::Key": {"DataKey"},
    "AWS::Lambda::Function": {"CaptionFunction", "DedupeFunction", "SweepFunction", "TranscribeFunction"},
    "AWS::Logs::LogGroup": {"CaptionLogGroup", "DedupeLogGroup", "SweepLogGroup", "TranscribeLogGroup"},
    "AWS::S3::Bucket": {"MediaBucket"},
    "AWS::SNS::Topic": {"AlarmTopic"},
    "AWS::SQS::Queue": {
        "AudioDeadLetterQueue", "AudioQueue", "ImageDeadLetterQueue", "ImageQueue", "RuleDeadLetterQueue",
        "UploadsDeadLetterQueue", "UploadsQueue",
    },
    "AWS::SecretsManager::Secret": {"EndpointSecret"},
}  # fmt: skip
"""Logical ids that deployed stacks have: another id for the same thing would replace it, with what it holds."""


@pytest.mark.parametrize("type_", KEPT)
def test_an_update_of_a_deployed_stack_replaces_nothing_that_holds_data(type_: str) -> None:
    names = {name for name, _ in current().of_type(type_)}
    assert KEPT[type_] <= names
