"""Invariants of the queues, and of what carries events to them."""

from collections.abc import Iterator

import pytest

from support.template import Check, Invariants, Mutation, Template, current, listed, mutated, properties

INVARIANTS = Invariants()
caught = INVARIANTS.caught


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
        function = template.function(mapping["FunctionName"])
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
    lambda raw: properties(raw, "UploadsRule")["EventPattern"]["detail"]["bucket"].update(
        name=[{"Ref": "ExistingBucketName"}]
    ),
)
def bucket_events_reach_their_queue_or_its_dead_letters(template: Template) -> Iterator[str]:
    rule = template.resources["UploadsRule"]["Properties"]
    pattern = rule["EventPattern"]
    if set(pattern["detail-type"]) != {"Object Created", "Object Deleted"} or pattern["source"] != ["aws.s3"]:
        yield "the rule does not take what is created and what is deleted"
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


@pytest.mark.parametrize("check", INVARIANTS.holding())
def test_invariant_holds(check: Check) -> None:
    assert list(check(current())) == []


@pytest.mark.parametrize(("check", "mutation"), INVARIANTS.failing())
def test_invariant_can_fail(check: Check, mutation: Mutation) -> None:
    assert list(check(mutated(mutation))) != []
