"""What must hold of template.yaml and no linter checks.

Each invariant is a function from the template to its findings. It must find nothing in the template itself, and
something in each mutated template that is listed under it.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from captions.settings import IntakeSettings, Settings, SweepSettings, WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, type[Settings]] = {
    "DedupeFunction": IntakeSettings,
    "CaptionFunction": WorkerSettings,
    "TranscribeFunction": WorkerSettings,
    "SweepFunction": SweepSettings,
}
OUTPUTS = {
    "MediaBucketName", "CaptionsTableName", "FingerprintsTableName", "ControlTableName", "UploadsQueueUrl",
    "ImageQueueUrl", "AudioQueueUrl", "UploadsDeadLetterQueueUrl", "ImageDeadLetterQueueUrl",
    "AudioDeadLetterQueueUrl", "RuleDeadLetterQueueUrl", "EventBusName", "EndpointSecretArn", "DedupeFunctionName",
    "CaptionFunctionName", "TranscribeFunctionName", "SweepFunctionName",
}  # fmt: skip
"""What the `captions` command and the local stack read."""

WITHOUT_RESOURCES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
"""Actions that know no resource to be scoped to (Service Authorization Reference, AWS X-Ray)."""


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
        document = copy.deepcopy(self.raw)
        for resource in document["Resources"].values():
            for attribute in ("CodeUri", "ContentUri"):
                if attribute in resource.get("Properties", {}):
                    resource["Properties"][attribute] = {"Bucket": "code", "Key": "zip"}
        parameters = {name: str(declared.get("Default", "")) for name, declared in self.raw["Parameters"].items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
            translated: dict[str, Any] = transform(document, parameters, _NoManagedPolicies())
        resources: dict[str, Any] = translated["Resources"]
        return resources

    def of_type(self, type_: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, resource in self.resources.items():
            if resource["Type"] == type_:
                yield name, resource["Properties"]

    def target(self, node: Any) -> str:
        """The logical id that a Ref, GetAtt or Sub names first."""
        match node:
            case {"Ref": str(name)}:
                return name
            case {"Fn::GetAtt": [name, *_]}:
                return str(name)
            case {"Fn::GetAtt": str(path)}:
                return path.split(".")[0]
            case {"Fn::Sub": str(text)} if found := re.search(r"\$\{([A-Za-z0-9]+)", text):
                return found[1]
        return ""


def load() -> Template:
    return Template(yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8")))


@cache
def current() -> Template:
    return load()


Check = Callable[[Template], Iterator[str]]
Mutation = Callable[[dict[str, Any]], object]
MUTATIONS: dict[Check, list[Mutation]] = {}


def caught(*mutations: Mutation) -> Callable[[Check], Check]:
    """Names the changes of the raw template under which an invariant must find something."""

    def register(check: Check) -> Check:
        MUTATIONS[check] = list(mutations)
        return check

    return register


def properties(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = raw["Resources"][name]["Properties"]
    return found


def listed(node: Any) -> list[Any]:
    return node if isinstance(node, list) else [node]


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    return [
        statement
        for policy in template.resources[role]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


# ---------------------------------------------------------------- queues


@caught(
    lambda raw: properties(raw, "ImageQueue").update(VisibilityTimeout=359),
    lambda raw: properties(raw, "TranscribeFunction").update(Timeout=301),
    lambda raw: properties(raw, "UploadsQueue").pop("VisibilityTimeout"),
    lambda raw: properties(raw, "DedupeFunction")["Events"]["Uploads"]["Properties"].update(
        MaximumBatchingWindowInSeconds=1
    ),
)
def messages_stay_hidden_for_six_timeouts(template: Template) -> Iterator[str]:
    for name, mapping in template.of_type("AWS::Lambda::EventSourceMapping"):
        queue = template.target(mapping["EventSourceArn"])
        function = template.target(mapping["FunctionName"])
        visible = template.resources[queue]["Properties"].get("VisibilityTimeout", 30)
        timeout = template.resources[function]["Properties"]["Timeout"]
        if visible < 6 * timeout + mapping.get("MaximumBatchingWindowInSeconds", 0):
            yield f"{name}: {queue} hides messages for {visible} s, {function} may take {timeout} s"


@caught(
    lambda raw: properties(raw, "AudioQueue").pop("RedrivePolicy"),
    lambda raw: properties(raw, "AudioQueue")["RedrivePolicy"].update(maxReceiveCount=4),
    lambda raw: properties(raw, "AudioQueue")["RedrivePolicy"].update(
        deadLetterTargetArn={"Fn::GetAtt": ["ImageDeadLetterQueue", "Arn"]}
    ),
    lambda raw: properties(raw, "ImageDeadLetterQueue").update(MessageRetentionPeriod=345600),
)
def every_queue_has_dead_letters_of_its_own(template: Template) -> Iterator[str]:
    queues = dict(template.of_type("AWS::SQS::Queue"))
    dead = {
        name: template.target(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for name, queue in queues.items()
        if "RedrivePolicy" in queue
    }
    last_stops = set(dead.values()) | {
        template.target(target["DeadLetterConfig"]["Arn"])
        for _, rule in template.of_type("AWS::Events::Rule")
        for target in rule["Targets"]
        if "DeadLetterConfig" in target
    }
    for name, queue in queues.items():
        if name in last_stops:
            if queue.get("MessageRetentionPeriod", 345600) < 14 * 86400:
                yield f"{name} keeps dead letters for less than 14 days"
        elif name not in dead:
            yield f"{name} has no dead-letter queue"
        elif int(queue["RedrivePolicy"]["maxReceiveCount"]) < 5:
            yield f"{name} gives up after fewer than 5 deliveries"
    if len(set(dead.values())) != len(dead):
        yield "two queues share a dead-letter queue"


@caught(
    lambda raw: properties(raw, "CaptionFunction")["Events"]["Images"]["Properties"].pop("FunctionResponseTypes"),
    lambda raw: properties(raw, "TranscribeFunction")["Events"]["Audio"]["Properties"].pop("ScalingConfig"),
    lambda raw: properties(raw, "CaptionFunction")["Events"]["Images"]["Properties"].update(
        ScalingConfig={"MaximumConcurrency": 12}
    ),
)
def batches_fail_in_parts_and_pools_are_bounded_by_parameters(template: Template) -> Iterator[str]:
    for name, mapping in template.of_type("AWS::Lambda::EventSourceMapping"):
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{name} delivers a whole batch again when one record fails"
        limit = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
        if not limit:
            yield f"{name} has no MaximumConcurrency"
        elif template.target(limit) not in template.raw["Parameters"]:
            yield f"the MaximumConcurrency of {name} is no parameter"


@caught(
    lambda raw: properties(raw, "UploadsRule")["Targets"][0].pop("DeadLetterConfig"),
    lambda raw: properties(raw, "RuleTargetsPolicy")["PolicyDocument"]["Statement"][0].pop("Condition"),
    lambda raw: properties(raw, "RuleTargetsPolicy")["PolicyDocument"]["Statement"][0]["Resource"].pop(0),
    lambda raw: properties(raw, "RuleTargetsPolicy")["PolicyDocument"]["Statement"][0]["Resource"].pop(1),
    lambda raw: properties(raw, "RuleTargetsPolicy")["Queues"].pop(1),
    lambda raw: properties(raw, "UploadsRule")["EventPattern"]["detail-type"].remove("Object Deleted"),
    lambda raw: properties(raw, "UploadsRule")["EventPattern"]["detail"].pop("bucket"),
)
def bucket_events_reach_their_queue_or_its_dead_letters(template: Template) -> Iterator[str]:
    rule = template.resources["UploadsRule"]["Properties"]
    pattern = rule["EventPattern"]
    if set(pattern["detail-type"]) != {"Object Created", "Object Deleted"} or pattern["source"] != ["aws.s3"]:
        yield "the rule does not take what is created and what is deleted"
    buckets = pattern["detail"].get("bucket", {}).get("name", [])
    if [template.target(name) for name in buckets] != ["MediaBucket"]:
        yield "the rule takes events of other buckets"
    allowed: set[str] = set()
    for _, policy in template.of_type("AWS::SQS::QueuePolicy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] != "Allow":
                continue
            sources = statement.get("Condition", {}).get("ArnEquals", {})
            if template.target(sources.get("aws:SourceArn")) != "UploadsRule":
                yield f"{statement.get('Sid')} allows more than the rule"
            queues = {template.target(queue) for queue in policy["Queues"]}
            allowed |= queues & {template.target(queue) for queue in listed(statement["Resource"])}
    for target in rule["Targets"]:
        if "DeadLetterConfig" not in target:
            yield f"target {target['Id']} has no dead-letter queue"
            continue
        for queue in (template.target(target["Arn"]), template.target(target["DeadLetterConfig"]["Arn"])):
            if queue not in allowed:
                yield f"EventBridge may not send to {queue}"


# ---------------------------------------------------------------- data


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
    lambda raw: properties(raw, "RuleDeadLetterQueue").update(SqsManagedSseEnabled=False),
)
def tables_and_queues_are_encrypted(template: Template) -> Iterator[str]:
    for name, table in template.of_type("AWS::DynamoDB::Table"):
        if table.get("SSESpecification", {}).get("SSEEnabled") is not True:
            yield f"{name} is not encrypted"
    for name, queue in template.of_type("AWS::SQS::Queue"):
        if queue.get("SqsManagedSseEnabled") is not True and "KmsMasterKeyId" not in queue:
            yield f"{name} is not encrypted"


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
    shapes = {
        "CaptionsTable": (["asset"], {"activity": ["activity", "activity_at"]}, None),
        "FingerprintsTable": (["pk", "sk"], {}, "expires_at"),
        "ControlTable": (["pk", "sk"], {}, "expires_at"),
    }
    for name, table in template.of_type("AWS::DynamoDB::Table"):
        keys = [key["AttributeName"] for key in table["KeySchema"]]
        indexes = {
            index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
            for index in table.get("GlobalSecondaryIndexes", [])
        }
        ttl = table.get("TimeToLiveSpecification", {})
        if shapes[name] != (keys, indexes, ttl.get("AttributeName") if ttl.get("Enabled") else None):
            yield f"{name} has other keys, indexes or expiry than the product reads"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name} is not on demand"


# ---------------------------------------------------------------- functions


@caught(
    lambda raw: properties(raw, "DedupeFunction").update(Runtime="python3.12"),
    lambda raw: properties(raw, "DedupeFunction").update(Tracing="PassThrough"),
    lambda raw: properties(raw, "SweepFunction").update(Architectures=["arm64"]),
    lambda raw: properties(raw, "SweepFunction").update(Handler="main.handler"),
    lambda raw: properties(raw, "SweepFunction").update(Layers=[{"Ref": "ProductLayer"}]),
)
def functions_share_runtime_architecture_tracing_and_layers(template: Template) -> Iterator[str]:
    for name, function in template.of_type("AWS::Lambda::Function"):
        if function["Runtime"] != "python3.13" or function["Handler"] != "app.handler":
            yield f"{name} has another runtime or handler"
        if [template.target(value) for value in function["Architectures"]] != ["Architecture"]:
            yield f"the architecture of {name} is no parameter"
        if function.get("TracingConfig", {}).get("Mode") != "Active":
            yield f"{name} is not traced"
        layers = [layer["Ref"] for layer in template.raw["Resources"][name]["Properties"]["Layers"]]
        if layers[:2] != ["FoundationLayer", "ProductLayer"]:
            yield f"{name} lacks Powertools or the product"


@caught(
    lambda raw: raw["Resources"].pop("SweepLogGroup"),
    lambda raw: properties(raw, "SweepLogGroup").pop("RetentionInDays"),
    lambda raw: properties(raw, "SweepFunction").pop("LoggingConfig"),
    lambda raw: properties(raw, "SweepFunction")["LoggingConfig"].update(LogGroup={"Ref": "DedupeLogGroup"}),
)
def every_function_logs_to_a_group_of_its_own_that_forgets(template: Template) -> Iterator[str]:
    groups = dict(template.of_type("AWS::Logs::LogGroup"))
    used: list[str] = []
    for name, function in template.of_type("AWS::Lambda::Function"):
        group = template.target(function.get("LoggingConfig", {}).get("LogGroup"))
        used.append(group)
        if group not in groups:
            yield f"{name} has no log group in the template"
    if len(set(used)) != len(used):
        yield "two functions share a log group"
    for name, group in groups.items():
        if template.target(group.get("RetentionInDays")) != "LogRetentionDays":
            yield f"{name} keeps logs for ever"


@caught(
    lambda raw: raw["Globals"]["Function"]["Environment"]["Variables"].pop("CAPTIONS_TABLE"),
    lambda raw: properties(raw, "SweepFunction")["Environment"]["Variables"].update(IMAGE_MODELS="x"),
    lambda raw: properties(raw, "CaptionFunction")["Environment"]["Variables"].update(ENDPOINT_URLS=""),
    lambda raw: properties(raw, "SweepFunction")["Environment"]["Variables"].pop("POWERTOOLS_SERVICE_NAME"),
)
def every_function_is_told_what_its_settings_ask_and_no_more(template: Template) -> Iterator[str]:
    anywhere = {
        "POWERTOOLS_SERVICE_NAME",
        "POWERTOOLS_METRICS_NAMESPACE",
        "POWERTOOLS_LOG_LEVEL",
        "AWS_ENDPOINT_URL",
    }
    for name, function in template.of_type("AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        if missing := anywhere - set(variables):
            yield f"{name} lacks {missing}"
        fields = {field.upper() for field in SETTINGS[name].model_fields}
        if unknown := set(variables) - fields - anywhere:
            yield f"{name} is told {unknown}, which it never reads"
        try:
            SETTINGS[name].from_env({key: environment_value(template, value) for key, value in variables.items()})
        except ValueError as error:
            yield f"{name}: {error}"


def environment_value(template: Template, node: Any) -> str:
    """A variable's value with the parameters' defaults, and a made-up name for what only AWS knows."""
    if not isinstance(node, dict):
        return str(node)
    parameter = template.raw["Parameters"].get(template.target(node))
    if parameter is None:
        return "name"
    return str(parameter.get("Default", "https://endpoint.example/v1"))


@caught(
    lambda raw: raw["Parameters"]["MaxImageBytes"].update(Default=1),
    lambda raw: raw["Parameters"]["Language"].update(Default="de"),
)
def parameters_default_to_what_the_product_defaults_to(template: Template) -> Iterator[str]:
    for name, function in template.of_type("AWS::Lambda::Function"):
        for variable, node in function["Environment"]["Variables"].items():
            field = SETTINGS[name].model_fields.get(variable.lower())
            declared = template.raw["Parameters"].get(template.target(node), {}).get("Default")
            if field is None or field.is_required() or declared in (None, "") or not field.default:
                continue
            if str(declared) != str(field.default):
                yield f"{variable}: {declared} in the template, {field.default} in {SETTINGS[name].__name__}"


# ---------------------------------------------------------------- secrets and permissions


@caught(
    lambda raw: raw["Globals"]["Function"]["Environment"]["Variables"].update(ENDPOINT_KEY={"Ref": "EndpointKey"}),
    lambda raw: properties(raw, "CaptionFunction")["Environment"]["Variables"].update(
        LANGUAGE={"Fn::Sub": "${EndpointKey}"}
    ),
    lambda raw: properties(raw, "CaptionFunction")["Environment"]["Variables"].update(API_TOKEN="x"),
    lambda raw: raw["Parameters"]["EndpointKey"].pop("NoEcho"),
    lambda raw: raw["Parameters"]["EndpointKey"].update(Default="sk-1234"),
    lambda raw: raw["Outputs"].update(Key={"Description": "x", "Value": {"Ref": "EndpointKey"}}),
)
def the_endpoints_key_stands_in_its_secret_alone(template: Template) -> Iterator[str]:
    parameter = template.raw["Parameters"]["EndpointKey"]
    if parameter.get("NoEcho") is not True or parameter.get("Default") != "":
        yield "the key's parameter shows it"
    rest = {
        "Globals": template.raw["Globals"],
        "Resources": {name: value for name, value in template.raw["Resources"].items() if name != "EndpointSecret"},
        "Outputs": template.raw["Outputs"],
    }
    if "{'Ref': 'EndpointKey'}" in repr(rest) or "${EndpointKey}" in repr(rest):
        yield "the key is used outside its secret"
    for name, function in template.of_type("AWS::Lambda::Function"):
        for variable in function["Environment"]["Variables"]:
            if re.search("KEY|SECRET|TOKEN|PASSWORD", variable) and not variable.endswith("_ARN"):
                yield f"{name} is told {variable}"


@caught(
    lambda raw: statement(raw, "DedupeRole", "Captions").update(Action="dynamodb:*"),
    lambda raw: statement(raw, "DedupeRole", "Captions").update(Action=["*"]),
    lambda raw: statement(raw, "CaptionRole", "EndpointKey").update(Resource="*"),
    lambda raw: statement(raw, "CaptionRole", "Media").update(Resource="arn:aws:s3:::*"),
    lambda raw: statement(raw, "SweepRole", "Traces")["Action"].append("sqs:SendMessage"),
    lambda raw: properties(raw, "SweepRole").update(ManagedPolicyArns=["arn:aws:iam::aws:policy/AmazonSQSFullAccess"]),
    lambda raw: properties(raw, "SweepFunction").update(Role={"Fn::GetAtt": ["DedupeRole", "Arn"]}),
    lambda raw: properties(raw, "SweepFunction").pop("Role"),
    lambda raw: properties(raw, "ModelsOverridePolicy")["PolicyDocument"]["Statement"][0].update(Resource="*"),
)
def every_function_may_do_little_and_that_to_named_resources(template: Template) -> Iterator[str]:
    roles = [template.target(function["Role"]) for _, function in template.of_type("AWS::Lambda::Function")]
    if len(set(roles)) != len(roles):
        yield "two functions share a role"
    documents = []
    for name, role in template.of_type("AWS::IAM::Role"):
        if role.get("ManagedPolicyArns"):
            yield f"{name} has managed policies"
        documents += [(name, policy["PolicyDocument"]) for policy in role.get("Policies", [])]
    documents += [(name, policy["PolicyDocument"]) for name, policy in template.of_type("AWS::IAM::Policy")]
    for name, document in documents:
        for allowed in document["Statement"]:
            actions = listed(allowed["Action"])
            if any("*" in action for action in actions):
                yield f"{name} allows {actions}"
            for resource in listed(allowed["Resource"]):
                literal = resource if isinstance(resource, str) else ""
                if literal and not (literal == "*" and set(actions) <= WITHOUT_RESOURCES):
                    yield f"{name} allows {actions} on {resource}"


def statement(raw: dict[str, Any], role: str, sid: str) -> Any:
    (found,) = [
        entry for entry in properties(raw, role)["Policies"][0]["PolicyDocument"]["Statement"] if entry["Sid"] == sid
    ]
    return found


@caught(
    lambda raw: statement(raw, "DedupeRole", "OwnQueue").update(Resource={"Fn::GetAtt": ["ImageQueue", "Arn"]}),
    lambda raw: statement(raw, "CaptionRole", "OwnQueue")["Action"].remove("sqs:DeleteMessage"),
    lambda raw: statement(raw, "CaptionRole", "Logs").update(Resource={"Fn::GetAtt": ["SweepLogGroup", "Arn"]}),
)
def every_function_may_read_its_queue_and_write_its_log(template: Template) -> Iterator[str]:
    def may(function: str, action: str, resource: str) -> bool:
        role = template.target(template.resources[function]["Properties"]["Role"])
        return any(
            action in listed(entry["Action"])
            and resource in [template.target(node) for node in listed(entry["Resource"])]
            for entry in statements(template, role)
        )

    for _, mapping in template.of_type("AWS::Lambda::EventSourceMapping"):
        function, queue = template.target(mapping["FunctionName"]), template.target(mapping["EventSourceArn"])
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
            if not may(function, action, queue):
                yield f"{function} may not {action} on {queue}"
    for name, function in template.of_type("AWS::Lambda::Function"):
        group = template.target(function["LoggingConfig"]["LogGroup"])
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            if not may(name, action, group):
                yield f"{name} may not {action} on {group}"


# ---------------------------------------------------------------- the template as a document


@caught(
    lambda raw: raw["Parameters"]["Language"].pop("Description"),
    lambda raw: raw["Parameters"]["MaxJobAgeSeconds"].pop("MinValue"),
    lambda raw: raw["Parameters"]["LogLevel"].pop("Default"),
    lambda raw: raw["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"][0]["Parameters"].pop(),
    lambda raw: raw["Outputs"]["MediaBucketName"].pop("Description"),
)
def parameters_and_outputs_are_described_bounded_and_grouped(template: Template) -> Iterator[str]:
    for name, parameter in template.raw["Parameters"].items():
        if len(parameter.get("Description", "")) < 20:
            yield f"{name} is not described"
        if parameter["Type"] == "Number" and not {"MinValue", "AllowedValues"} & set(parameter):
            yield f"{name} has no lower bound"
        if "Default" not in parameter and name != "EndpointUrls":
            yield f"{name} has no default"
    groups = template.raw["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    if sorted(grouped) != sorted(template.raw["Parameters"]):
        yield "the parameter groups name other parameters than there are"
    for name, output in template.raw["Outputs"].items():
        if not output.get("Description"):
            yield f"output {name} is not described"


@caught(
    lambda raw: raw["Outputs"].pop("EventBusName"),
    lambda raw: raw["Outputs"].update(Other={"Description": "x", "Value": "x"}),
)
def outputs_are_those_that_are_read(template: Template) -> Iterator[str]:
    if different := OUTPUTS ^ set(template.raw["Outputs"]):
        yield f"missing or unread: {different}"


@caught(
    lambda raw: properties(raw, "EventBus").update(Name="arn:aws:events:x"),
    lambda raw: properties(raw, "EventBus").update(Name="bus-eu-west-1"),
    lambda raw: properties(raw, "EventBus").update(Name="bus-123456789012"),
    lambda raw: properties(raw, "EventBus").update(Name="https://sqs.amazonaws.com/"),
)
def no_partition_region_or_account_is_named(template: Template) -> Iterator[str]:
    for text in texts(template.raw):
        if "amazonaws.com" in text and not re.fullmatch(r"[a-z]+\.amazonaws\.com", text):
            yield f"an address of one partition: {text}"
        if re.search(r"arn:aws[a-z-]*:|\b[a-z]{2}(-gov|-iso[a-z]?)?-[a-z]+-\d\b|\b\d{12}\b", text):
            yield f"a partition, region or account: {text}"


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    else:
        yield str(node)


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("check", MUTATIONS, ids=lambda check: check.__name__)
def test_invariant_holds(check: Check) -> None:
    assert list(check(current())) == []


@pytest.mark.parametrize(
    ("check", "mutation"),
    [
        pytest.param(check, mutation, id=f"{check.__name__}-{number}")
        for check, mutations in MUTATIONS.items()
        for number, mutation in enumerate(mutations)
    ],
)
def test_invariant_can_fail(check: Check, mutation: Mutation) -> None:
    raw = copy.deepcopy(current().raw)
    mutation(raw)
    assert raw != current().raw
    assert list(check(Template(raw))) != []


def test_every_function_and_layer_is_where_the_template_says() -> None:
    for name, resource in current().raw["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            assert (ROOT / resource["Properties"]["CodeUri"] / "app.py").is_file(), name
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            makefile = ROOT / resource["Properties"]["ContentUri"] / "Makefile"
            assert f"build-{name}:" in makefile.read_text(encoding="utf-8")


def test_every_region_has_a_complete_environment_in_samconfig() -> None:
    environments = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    del environments["version"]
    assert set(environments) == {"default", "us-east-1", "eu-west-1", "ap-southeast-1"}
    default = environments.pop("default")
    for region, environment in environments.items():
        assert environment["global"]["parameters"].pop("region") == region
        assert environment == default
