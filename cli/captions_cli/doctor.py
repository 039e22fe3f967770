"""Looks for what keeps a stack from captioning, and says what to do about it.

Every check answers; what cannot be asked, for want of a permission or of the service, is said as such.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from captions.gateway.catalogue import Catalogue, load
from captions.near_duplicates import Splits
from captions_cli import alarms, deploying, drift, endpoint_models, redriving, setting_prices
from captions_cli.errors import CommandError, explain
from captions_cli.stack import Stack

Level = Literal["ok", "warning", "problem", "unknown"]

UNSET_KEY = "unset"
"""What the template puts into the secret when no key was given."""
SKEW_WARNING_SECONDS = 30.0
SKEW_PROBLEM_SECONDS = 240.0
"""AWS refuses signatures that are more than five minutes off."""
CONCURRENCY_QUOTA = "L-B99A9384"
"""Service Quotas' code of Lambda's concurrent executions."""
LEFT_OVER_CONCURRENCY = 10
"""For the sweep, and for whatever else the account runs."""


@dataclass(frozen=True)
class Finding:
    """What one check found; `remedy` says what to do where something is."""

    check: str
    level: Level
    message: str
    remedy: str = ""


def examine(stack: Stack) -> Iterator[Finding]:
    """Run every check; each yields at least one finding.

    Raises CommandError when there is no such stack.
    """
    _ = stack.outputs
    for name, check in CHECKS.items():
        try:
            yield from (Finding(name, level, message, remedy) for level, message, remedy in check(stack))
        except Exception as error:
            explained = error if isinstance(error, CommandError) else explain(error)
            if explained is None:
                raise
            yield Finding(name, "unknown", f"cannot be asked: {explained.message}", _permission(explained.message))


def _permission(message: str) -> str:
    denied = any(word in message for word in ("AccessDenied", "UnauthorizedOperation", "not authorized"))
    return "ask someone who may, or let this identity do what was refused" if denied else ""


_Said = Iterator[tuple[Level, str, str]]


def _identity(stack: Stack) -> _Said:
    identity = stack.client("sts").get_caller_identity()
    yield "ok", f"{identity['Arn']} in account {identity['Account']}", ""


def _clock(stack: Stack) -> _Said:
    answer = stack.client("sts").get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]
    if "date" not in answer:
        yield "unknown", "the answer tells no time", ""
        return
    skew = (datetime.now(UTC) - parsedate_to_datetime(answer["date"])).total_seconds()
    if abs(skew) < SKEW_WARNING_SECONDS:
        yield "ok", f"this machine's clock is {skew:+.0f} s off AWS's", ""
    else:
        level: Level = "problem" if abs(skew) > SKEW_PROBLEM_SECONDS else "warning"
        remedy = "set this machine's clock (NTP); AWS refuses signatures that are five minutes off"
        yield level, f"this machine's clock is {skew:+.0f} s off AWS's", remedy


def _stack_status(stack: Stack) -> _Said:
    status = stack.status
    if status in deploying.SETTLED:
        yield "ok", f"{status}", ""
    elif status.endswith("_IN_PROGRESS"):
        yield "warning", f"{status}: a deployment is under way", "run doctor again when it has ended"
    else:
        yield "problem", f"{status}", "see the stack's events in CloudFormation, then deploy again"


def _drift(stack: Stack) -> _Said:
    drifted = drift.detect(stack)
    if not drifted.known:
        yield "unknown", f"cannot be asked: {drifted.why}", _permission(drifted.why)
    elif not drifted.resources:
        yield "ok", "the resources are as the template made them", ""
    for resource in drifted.resources:
        remedy = "put it back by hand, or change the template and deploy"
        yield "problem", f"{resource.logical_id} is {resource.status}: {resource.difference}", remedy


def _bucket_events(stack: Stack) -> _Said:
    notifications = stack.client("s3").get_bucket_notification_configuration(Bucket=stack.bucket)
    if "EventBridgeConfiguration" in notifications:
        yield "ok", f"{stack.bucket} tells EventBridge of its events", ""
    else:
        remedy = f"captions bucket connect {stack.bucket}, then captions reconcile for what was uploaded meanwhile"
        yield "problem", f"{stack.bucket} does not tell EventBridge of its events: no upload is noticed", remedy


def _rule(stack: Stack) -> _Said:
    rules = drift.resources(stack, "AWS::Events::Rule")
    name = rules.get("UploadsRule")
    if name is None:
        yield "problem", "the stack has no UploadsRule", "deploy again"
        return
    events = stack.client("events")
    name = name.rpartition("|")[2]
    rule = events.describe_rule(Name=name)
    if rule["State"] != "ENABLED":
        yield "problem", f"the rule {name} is {rule['State']}", f"aws events enable-rule --name {name}"
    pattern = json.loads(rule.get("EventPattern") or "{}")
    buckets = pattern.get("detail", {}).get("bucket", {}).get("name", [])
    if stack.bucket not in buckets:
        yield "problem", f"the rule {name} is about {', '.join(map(str, buckets)) or 'no bucket'}", "deploy again"
    queue = _attributes(stack, "UploadsQueueUrl", "QueueArn", "Policy")
    targets = [target["Arn"] for target in events.list_targets_by_rule(Rule=name)["Targets"]]
    if queue["QueueArn"] not in targets:
        yield "problem", f"the rule {name} does not lead to the uploads queue", "deploy again"
    if not _lets_send(json.loads(queue.get("Policy") or "{}"), queue["QueueArn"], rule["Arn"]):
        yield "problem", "the uploads queue does not take events of the rule: its policy lacks the rule", "deploy again"
    elif rule["State"] == "ENABLED" and stack.bucket in buckets and queue["QueueArn"] in targets:
        yield "ok", f"{name} carries events of {stack.bucket} to the uploads queue, which takes them", ""


def _attributes(stack: Stack, output: str, *names: str) -> Mapping[str, str]:
    answer = stack.client("sqs").get_queue_attributes(QueueUrl=stack.output(output), AttributeNames=list(names))
    attributes: Mapping[str, str] = answer["Attributes"]
    return attributes


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _lets_send(policy: Mapping[str, Any], queue: str, rule: str) -> bool:
    """Whether a statement of a queue's policy lets EventBridge send what the rule carries."""
    for statement in policy.get("Statement", []):
        principal = statement.get("Principal", {})
        services = _listed(principal.get("Service", [])) if isinstance(principal, dict) else []
        about = _listed(statement.get("Condition", {}).get("ArnEquals", {}).get("aws:SourceArn", rule))
        if (
            statement.get("Effect") == "Allow"
            and "events.amazonaws.com" in services
            and "sqs:SendMessage" in _listed(statement.get("Action", []))
            and queue in _listed(statement.get("Resource", []))
            and rule in about
        ):
            return True
    return False


def _functions(stack: Stack) -> _Said:
    client = stack.client("lambda")
    well = []
    for output in sorted(name for name in stack.outputs if name.endswith("FunctionName")):
        name = stack.output(output)
        function = client.get_function_configuration(FunctionName=name)
        state, update = function.get("State", "Active"), function.get("LastUpdateStatus", "Successful")
        if state not in {"Active", "Inactive"} or update == "Failed":
            reason = function.get("StateReason") or function.get("LastUpdateStatusReason") or ""
            yield "problem", f"{name} is {state}, its last update {update}: {reason}", "deploy again"
            continue
        sources = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        asleep = [
            source for source in sources if source.get("State") not in {"Enabled", "Enabling", "Updating", "Creating"}
        ]
        for source in asleep:
            remedy = f"aws lambda update-event-source-mapping --uuid {source['UUID']} --enabled"
            yield "problem", f"{name} does not read {source['EventSourceArn']}: {source.get('State')}", remedy
        if not asleep:
            well.append(name)
    if well:
        yield "ok", f"{', '.join(well)} are active", ""
    if not any(name.endswith("FunctionName") for name in stack.outputs):
        yield "problem", "the stack names no functions", "deploy again"


def _permissions(stack: Stack) -> _Said:
    """What the functions' roles may really do: an organisation's policies may forbid what the template allows."""
    needed = {
        "DedupeFunctionName": [
            ("s3:GetObject", f"arn:{_partition(stack)}:s3:::{stack.bucket}/any"),
            ("dynamodb:UpdateItem", _table_arn(stack, "CaptionsTableName")),
            ("sqs:SendMessage", _attributes(stack, "ImageQueueUrl", "QueueArn")["QueueArn"]),
        ],
        "CaptionFunctionName": [
            ("s3:GetObject", f"arn:{_partition(stack)}:s3:::{stack.bucket}/any"),
            ("dynamodb:UpdateItem", _table_arn(stack, "CaptionsTableName")),
            ("secretsmanager:GetSecretValue", stack.output("EndpointSecretArn")),
        ],
    }
    iam, client = stack.client("iam"), stack.client("lambda")
    for output, actions in needed.items():
        name = stack.output(output)
        role = client.get_function_configuration(FunctionName=name)["Role"]
        refused = []
        for action, resource in actions:
            answer = iam.simulate_principal_policy(PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource])
            if answer["EvaluationResults"][0]["EvalDecision"] != "allowed":
                refused.append(action)
        if refused:
            remedy = "see the role's policies, its permissions boundary, and the organisation's control policies"
            yield "problem", f"{name} may not {', '.join(refused)}", remedy
        else:
            yield "ok", f"{name} may do what it needs", ""


def _partition(stack: Stack) -> str:
    return stack.output("EndpointSecretArn").split(":")[1]


def _table_arn(stack: Stack, output: str) -> str:
    return str(stack.client("dynamodb").describe_table(TableName=stack.output(output))["Table"]["TableArn"])


def _endpoint(stack: Stack) -> _Said:
    """The key is there, and every endpoint takes it and offers the models that the stack asks it for."""
    secret = stack.client("secretsmanager").get_secret_value(SecretId=stack.output("EndpointSecretArn"))
    if secret["SecretString"].strip() == UNSET_KEY and not os.environ.get(endpoint_models.KEY_VARIABLE):
        arn = stack.output("EndpointSecretArn")
        remedy = f'aws secretsmanager put-secret-value --secret-id "{arn}" --secret-string "$KEY"'
        yield "problem", "the endpoint's key was never put into its secret: every job waits", remedy
    try:
        catalogue = endpoint_models.catalogue_of(stack)
    except CommandError:
        catalogue = load()  # as a function that has seen no good override; `overrides` reports the broken one
    if unknown := [name for name in _asked_of(stack) if name not in catalogue.models]:
        remedy = "mend the name in ImageModels, AudioModels or the policy, or add the model by a ModelsOverride"
        yield "problem", f"the catalogue has no model {', '.join(unknown)}: nothing is asked of it", remedy
    for url in endpoint_models.endpoints(stack, os.environ):
        yield from _one_endpoint(stack, url, catalogue)


def _one_endpoint(stack: Stack, url: str, catalogue: Catalogue) -> _Said:
    key = endpoint_models.key(stack, url, os.environ)
    look = endpoint_models.look(url, key, catalogue)
    if look.comparison is None:
        yield look.level, look.message, look.remedy
        return
    comparison = look.comparison
    asked = _asked_of(stack)
    offered = [model for model in asked if model in comparison.present]
    missing = [model for model in asked if model in comparison.missing]
    if not missing:
        yield "ok", f"{url} takes the key and offers {len(offered)} of the stack's {len(asked)} models", ""
        return
    # A proxy with wildcards serves more than it lists.
    name, served = endpoint_models.serves(url, key, catalogue, missing) or (missing[0], None)
    if served:
        yield "ok", f"{url} takes the key and serves {name}, which it does not list; the others were not asked", ""
    elif served is None and not offered:
        remedy = "see whether it serves them: `captions models` lists what it offers"
        message = f"{url} lists none of the stack's models; whether it serves them all the same is not known"
        yield "unknown", message, remedy
    elif offered:
        remedy = "the next model of the chain takes over; see `captions models` and the parameters' chains"
        yield "warning", f"{url} does not offer {', '.join(missing)}", remedy
    else:
        remedy = "name models that it offers in the policy's tiers, or in ImageModels: `captions models` lists them"
        yield "problem", f"{url} offers none of the stack's models", remedy


def _prices(stack: Stack) -> _Said:
    """What calls cost can be told: the models in use have prices, in the catalogue or at the endpoint's own word."""
    try:
        catalogue = endpoint_models.catalogue_of(stack)
    except CommandError:
        catalogue = load()
    yield from without_price(stack, catalogue)


def without_price(stack: Stack, catalogue: Catalogue) -> _Said:
    """Name the models in use whose price is missing, and what to do: take it from the endpoint, or give it."""
    urls = endpoint_models.endpoints(stack, os.environ)
    used = [name for name in _asked_of(stack) if name in catalogue.models and catalogue.models[name].enabled]
    served = {name: [entry for url in urls if (entry := catalogue.served(name, url)) is not None] for name in used}
    missing = [name for name, entries in served.items() if any(not model.priced for model, _ in entries)]
    if not missing:
        yield "ok", f"the stack's {len(used)} models have prices", ""
        return
    try:
        listed = setting_prices.offered(endpoint_models.compare(stack))
    except CommandError:
        listed = {}  # `endpoint` tells what is the matter with it
    given = [name for name in missing if name in listed]
    message = f"{', '.join(missing)}: no full price is known, so that costs are lower bounds"
    remedy = f"captions models --set-price '{next((name for name in missing if name not in given), missing[0])}=IN,OUT'"
    if given:
        remedy = f"captions models --take-prices writes what the endpoint lists of {', '.join(given)}; else {remedy}"
    yield "warning", message, f"{remedy}, in dollars per million tokens"


def _asked_of(stack: Stack) -> list[str]:
    """The models that the stack's policy names, in all of its tiers; without its override where that is broken."""
    from captions_cli import policies

    try:
        rules = policies.of(stack)
    except CommandError:
        rules = policies.checked(None, parameters=policies.parameters(stack.parameters))
    return list(dict.fromkeys(name for tier in rules.tiers.values() for name in tier.models))


def _overrides(stack: Stack) -> _Said:
    """What the functions read every few minutes can be read and used."""
    from captions_cli import policies

    given = [name for name in ("ModelsOverride", "PolicyOverride") if stack.parameters.get(name)]
    if not given:
        yield "ok", "neither models nor policy are overridden", ""
        return
    keys: list[str] = []
    catalogue = None
    try:
        catalogue = endpoint_models.catalogue_of(stack)
    except CommandError as error:
        keys.append(f"the models override cannot be used: {error}")
    try:
        policies.of(stack, catalogue)
    except CommandError as error:
        keys.append(f"the policy override cannot be used: {error}")
    for message in keys:
        remedy = "mend it (`captions policy check FILE`): until then the last good one holds, or the packaged one"
        yield "problem", message, remedy
    if not keys:
        yield "ok", f"{' and '.join(given)} can be read and used", ""


def _concurrency(stack: Stack) -> _Said:
    limit = stack.client("lambda").get_account_settings()["AccountLimit"]
    total, free = int(limit["ConcurrentExecutions"]), int(limit["UnreservedConcurrentExecutions"])
    names = ("DedupeConcurrency", "CaptionConcurrency", "TranscribeConcurrency")
    wanted = sum(int(stack.parameters.get(name, 0)) for name in names)
    if free >= wanted + LEFT_OVER_CONCURRENCY:
        yield "ok", f"{free} of {total} concurrent executions are free; the stack takes up to {wanted}", ""
        return
    remedy = (
        f"aws service-quotas request-service-quota-increase --service-code lambda --quota-code {CONCURRENCY_QUOTA} "
        "--desired-value 1000 (new accounts have 10), or lower the stack's concurrency parameters"
    )
    level: Level = "problem" if free < wanted else "warning"
    yield level, f"Lambda lets this account run {free} invocations at once; the stack takes up to {wanted}", remedy


def _cache(stack: Stack) -> _Said:
    """What the functions noted of pictures paid for twice, and of prompts that were not the same everywhere."""
    splits = Splits(stack.client("dynamodb"), stack.output("FingerprintsTableName"))
    twins, versions = splits.twins(), splits.versions()
    for pair in twins:
        remedy = 'copies take either caption; see docs/operation.md, "A cache that split"'
        yield "warning", f"{' and '.join(pair.assets)} match each other and were both paid for", remedy
    for version in versions:
        at = datetime.fromtimestamp(version.seen_at, UTC)
        remedy = 'it passes after a deployment; else see docs/operation.md, "A cache that split"'
        message = f"until {at:%Y-%m-%d %H:%M} UTC {version.ask} was asked with {' and '.join(version.versions)} at once"
        yield "warning", message, remedy
    if not twins and not versions:
        yield "ok", "no picture was paid for twice, and each ask has one prompt version", ""


def _bulk(stack: Stack) -> _Said:
    """Whether the bulk lane has models that take batches, and its batches end."""
    from captions_cli import bulk_lane, policies

    if not bulk_lane.has(stack):
        yield "ok", "there is no bulk lane", ""
        return
    catalogue = endpoint_models.catalogue_of(stack)
    drains = bulk_lane.drains(stack)
    ordinary = {} if drains else bulk_lane.without_batches(policies.of(stack, catalogue), catalogue)
    for tier, model in ordinary.items():
        remedy = "set its batch_factor in a ModelsOverride if the endpoint takes batches of it (docs/bulk.md)"
        none = f"neither {model} takes batches, nor one that costs no more in them"
        yield "warning", f"pictures of the tier {tier} go the ordinary way: {none}", remedy
    lane = bulk_lane.look(stack)
    batches = lane.batches if lane is not None else ()
    late = [batch for batch in batches if batch.state != "closed" and batch.deadline < time.time()]
    for batch in late:
        yield "problem", f"batch {batch.id[:12]} ({batch.state}) is past its deadline", "docs/runbooks/bulk.md"
    if drains and not late:
        yield "ok", "the bulk lane is draining: it takes nothing new, and no batch is overdue", ""
    elif not ordinary and not late:
        yield "ok", "every tier has a model that takes batches, and none is overdue", ""


def _dead_letters(stack: Stack) -> _Said:
    urls = dict(redriving.dead_letter_queues(stack)) | {"rule": stack.output(redriving.RULE_QUEUE)}
    urls |= {name: letters for name, letters, _ in redriving.doors(stack)}
    depths = {name: redriving.depth(stack.client("sqs"), url) for name, url in urls.items()}
    held = {name: sum(depth.values()) for name, depth in depths.items() if sum(depth.values())}
    if not held:
        yield "ok", "no dead letters", ""
    for name, messages in held.items():
        remedy = "captions redrive moves them back, once what they failed for is gone: see the functions' logs"
        yield "problem", f"about {messages} dead letters of the {name} queue", remedy


def _alarms(stack: Stack) -> _Said:
    names = alarms.names(stack)
    if not names:
        yield "warning", "the stack has no alarms", "deploy the current template"
        return
    ringing = alarms.ringing(stack, names)
    for name in ringing:
        yield "problem", f"{name} is in ALARM", "docs/runbooks has a page for it"
    if not ringing:
        yield "ok", f"none of {len(names)} alarms rings", ""


CHECKS: Mapping[str, Callable[[Stack], _Said]] = {
    "identity": _identity,
    "clock": _clock,
    "stack": _stack_status,
    "drift": _drift,
    "bucket": _bucket_events,
    "rule": _rule,
    "functions": _functions,
    "permissions": _permissions,
    "overrides": _overrides,
    "endpoint": _endpoint,
    "prices": _prices,
    "concurrency": _concurrency,
    "cache": _cache,
    "bulk lane": _bulk,
    "dead letters": _dead_letters,
    "alarms": _alarms,
}
"""In the order in which they are shown: who asks, what is deployed, then along the way of an upload."""
