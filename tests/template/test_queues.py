"""Invariants of the queues, and of what carries events to them."""

import json
from collections.abc import Iterator
from typing import Any

from moto.events.models import EventPattern

from captions_cli.local.aws.events import s3_event
from captions_cli.local.cloudformation.translate import translate
from support.template import REGION, ROOT, Invariants, Template, listed, properties

INVARIANTS = Invariants()
caught = INVARIANTS.caught


@caught(
    lambda raw: properties(raw, "ImageQueue").update(VisibilityTimeout=359),
    lambda raw: properties(raw, "TranscribeFunction").update(Timeout=301),
    lambda raw: properties(raw, "UploadsQueue").pop("VisibilityTimeout"),
    lambda raw: properties(raw, "DedupeFunction")["Events"]["Uploads"]["Properties"].update(
        MaximumBatchingWindowInSeconds=1
    ),
    of_doors=True,
)
def messages_stay_hidden_for_six_timeouts(template: Template) -> Iterator[str]:
    for name, mapping in template.of_type("AWS::Lambda::EventSourceMapping"):
        queue = template.target(mapping["EventSourceArn"])
        function = template.function(mapping["FunctionName"])
        visible = template.resources[queue]["Properties"].get("VisibilityTimeout", 30)
        timeout = template.resources[function]["Properties"]["Timeout"]
        window = mapping.get("MaximumBatchingWindowInSeconds", 0)
        if isinstance(window, dict):  # the longest that the parameter allows
            window = template.raw["Parameters"][window["Ref"]]["MaxValue"]
        if visible < 6 * timeout + window:
            yield f"{name}: {queue} hides messages for {visible} s, {function} may take {timeout} s"


@caught(
    lambda raw: properties(raw, "AudioQueue").pop("RedrivePolicy"),
    lambda raw: properties(raw, "AudioQueue")["RedrivePolicy"].update(maxReceiveCount=4),
    lambda raw: properties(raw, "AudioQueue")["RedrivePolicy"].update(
        deadLetterTargetArn={"Fn::GetAtt": ["ImageDeadLetterQueue", "Arn"]}
    ),
    lambda raw: properties(raw, "ImageDeadLetterQueue").update(MessageRetentionPeriod=345600),
    of_doors=True,
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
    of_doors=True,
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
    lambda raw: properties(raw, "UploadsRule")["EventPattern"]["detail"]["bucket"].update(
        name=[{"Ref": "ExistingBucketName"}]
    ),
)
def bucket_events_reach_their_queue_or_its_dead_letters(template: Template) -> Iterator[str]:
    rule = template.resources["UploadsRule"]["Properties"]
    pattern = rule["EventPattern"]
    wanted = {"Object Created", "Object Deleted", "Object Restore Completed"}
    if set(pattern["detail-type"]) != wanted or pattern["source"] != ["aws.s3"]:
        yield "the rule does not take what is created, deleted and restored"
    buckets = pattern["detail"].get("bucket", {}).get("name", [])
    named = {"Fn::If": ["MakesBucket", {"Ref": "MediaBucket"}, {"Ref": "ExistingBucketName"}]}
    if buckets != [named]:
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


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()


# ---------------------------------------------------------------- the rule, on the events that S3 and its stand-in send


def matched(event: dict[str, Any], **parameters: str) -> bool:
    """Whether the rule, translated as the local stack does, takes an event; moto's matching is that stack's own."""
    given = {"EndpointUrls": "https://models.example/v1", **parameters}
    translation = translate(ROOT / "template.yaml", stack_name="captions", region=REGION, parameters=given)
    (bucket,) = (resource.name for resource in translation.of_type("AWS::S3::Bucket")) if not parameters else ("",)
    pattern = EventPattern.load(json.dumps(translation.resources["UploadsRule"].properties["EventPattern"]))
    return bool(pattern.matches_event(json.loads(json.dumps(event).replace("OWN-BUCKET", bucket))))


def sent(detail_type: str, bucket: str = "OWN-BUCKET") -> dict[str, Any]:
    return s3_event(
        detail_type,
        region=REGION,
        bucket=bucket,
        key="a.jpg",
        version_id="v",
        sequencer="0F",
        etag="e",
        size=1,
        reason="PutObject",
        request_id="r",
        source_ip="127.0.0.1",
    )


def test_the_rule_takes_what_the_local_stack_sends_of_the_stacks_bucket_alone() -> None:
    assert matched(sent("Object Created"))
    assert matched(sent("Object Deleted"))
    assert matched(sent("Object Restore Completed"))
    assert not matched(sent("Object Restore Initiated"))
    assert not matched(sent("Object Created", bucket="another"))


def test_the_rule_takes_what_is_sent_of_an_existing_bucket_alone() -> None:
    existing = {"ExistingBucketName": "amzn-s3-demo-bucket"}
    assert matched(sent("Object Created", bucket="amzn-s3-demo-bucket"), **existing)
    assert not matched(sent("Object Created", bucket="another"), **existing)


def test_the_rule_takes_the_golden_events() -> None:
    taken = 0
    for path in sorted((ROOT / "events" / "s3").rglob("*.json")):
        event = json.loads(path.read_text(encoding="utf-8"))
        if event.get("source") != "aws.s3":
            continue
        bucket = event["detail"]["bucket"]["name"]
        assert matched(event, ExistingBucketName=bucket), path.name
        taken += 1
    assert taken


def test_with_an_existing_bucket_none_is_made_and_with_a_key_it_encrypts() -> None:
    given = {
        "EndpointUrls": "https://models.example/v1",
        "ExistingBucketName": "amzn-s3-demo-bucket",
        "KmsKeyArn": "create",
    }
    translation = translate(ROOT / "template.yaml", stack_name="captions", region=REGION, parameters=given)
    assert not list(translation.of_type("AWS::S3::Bucket", "AWS::S3::BucketPolicy"))
    assert translation.outputs["MediaBucketName"] == "amzn-s3-demo-bucket"
    for queue in translation.of_type("AWS::SQS::Queue"):
        assert ":key/" in queue.properties["KmsMasterKeyId"]
        assert "SqsManagedSseEnabled" not in queue.properties
