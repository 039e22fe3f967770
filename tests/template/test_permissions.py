"""Invariants of keys, roles and policies."""

import re
from collections.abc import Iterator

from captions import control_table
from support.template import (
    Invariants,
    Template,
    listed,
    properties,
    statement,
    statements,
    texts,
)

WITHOUT_RESOURCES = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
"""Actions that know no resource to be scoped to (Service Authorization Reference, AWS X-Ray)."""

INVARIANTS = Invariants()
caught = INVARIANTS.caught


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
    lambda raw: properties(raw, "ModelsObjectPolicy")["PolicyDocument"]["Statement"][0].update(Resource="*"),
    of_doors=True,
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


@caught(
    lambda raw: properties(raw, "ModelsObjectPolicy")["PolicyDocument"]["Statement"][0].update(Action="s3:PutObject"),
    lambda raw: properties(raw, "ModelsObjectPolicy")["Roles"].pop(),
    lambda raw: properties(raw, "PolicyObjectPolicy")["Roles"].pop(0),
    lambda raw: raw["Resources"]["ModelsObjectPolicy"].update(Condition="ModelsAreAParameter"),
    lambda raw: raw["Parameters"]["ModelsOverride"].update(AllowedPattern="^(/[A-Za-z0-9_./-]+)?$"),
)
def an_override_is_read_by_those_who_go_by_it_from_a_parameter_or_an_object(template: Template) -> Iterator[str]:
    workers = {"CaptionRole", "TranscribeRole"}
    for name, parameter, condition, action, readers in (
        ("ModelsOverridePolicy", "ModelsOverride", "ModelsAreAParameter", "ssm:GetParameter", workers),
        ("ModelsObjectPolicy", "ModelsOverride", "ModelsAreAnObject", "s3:GetObject", workers),
        ("PolicyParameterPolicy", "PolicyOverride", "PolicyIsAParameter", "ssm:GetParameter", {"DedupeRole", *workers}),
        ("PolicyObjectPolicy", "PolicyOverride", "PolicyIsAnObject", "s3:GetObject", {"DedupeRole", *workers}),
    ):
        given = template.resources[name]
        (only,) = given["Properties"]["PolicyDocument"]["Statement"]
        if (given["Condition"], only["Action"]) != (condition, action):
            yield f"{name} is not {action} under {condition}"
        if parameter not in "".join(texts(only["Resource"])):
            yield f"{name} is about something else than {parameter}"
        if {template.target(role) for role in given["Properties"]["Roles"]} != readers:
            yield f"{name} is not for {sorted(readers)}"
        pattern = template.raw["Parameters"][parameter]["AllowedPattern"]
        if not all(re.match(pattern, where) for where in ("", "/captions/one", "s3://a-bucket/one.toml")):
            yield f"{parameter} takes no parameter or no object"
        if any(re.match(pattern, where) for where in ("s3://a-bucket/*", "s3://a-bucket", "captions")):
            yield f"{parameter} takes more than one parameter or object"


@caught(
    lambda raw: statement(raw, "DedupeRole", "Media").update(Resource={"Fn::Sub": "${MediaBucket.Arn}/*"}),
    lambda raw: statement(raw, "CaptionRole", "GoneOrForbidden").update(
        Resource={"Fn::Sub": "arn:${AWS::Partition}:s3:::${ExistingBucketName}"}
    ),
    lambda raw: raw["Resources"]["MediaBucket"].pop("Condition"),
    lambda raw: raw["Resources"]["MediaBucketPolicy"].pop("Condition"),
    lambda raw: properties(raw, "ExistingBucketKeyPolicy")["Roles"].pop(1),
)
def an_existing_bucket_takes_the_place_of_the_stacks_own(template: Template) -> Iterator[str]:
    for name in ("MediaBucket", "MediaBucketPolicy"):
        if template.resources[name].get("Condition") != "MakesBucket":
            yield f"{name} is made beside an existing bucket"
    own, existing = "${MediaBucket.Arn}", "arn:${AWS::Partition}:s3:::${ExistingBucketName}"
    readers = {"DedupeRole", "CaptionRole", "TranscribeRole"}
    for role in readers:
        for sid, path in (("Media", "/*"), ("GoneOrForbidden", "")):
            (result,) = [entry for entry in statements(template, role) if entry["Sid"] == sid]
            item = {"Fn::Sub": own + path} if path else {"Fn::GetAtt": ["MediaBucket", "Arn"]}
            if result["Resource"] != {"Fn::If": ["MakesBucket", item, {"Fn::Sub": existing + path}]}:
                yield f"{role}: {sid} is not about the bucket that is read"
    policy = template.resources["ExistingBucketKeyPolicy"]["Properties"]
    if {template.target(role) for role in policy["Roles"]} != readers:
        yield "a function may not decrypt what it reads"


@caught(
    lambda raw: statement(raw, "CaptionRole", "Fingerprints")["Action"].append("dynamodb:PutItem"),
    lambda raw: statement(raw, "TranscribeRole", "Fingerprints")["Action"].append("dynamodb:BatchWriteItem"),
    lambda raw: statement(raw, "SweepRole", "Captions")["Action"].append("dynamodb:DeleteItem"),
    lambda raw: statement(raw, "CaptionRole", "Media")["Action"].append("s3:PutObject"),
)
def nobody_may_make_what_only_dedupe_makes_nor_remove_a_record_nor_write_media(template: Template) -> Iterator[str]:
    """Workers renew, settle and retire claims; a claim and its postings are dedupe's to make."""
    for name, _ in template.of_type("AWS::IAM::Role"):
        for entry in statements(template, name):
            on = {template.target(node) for node in listed(entry["Resource"])}
            actions = set(listed(entry["Action"]))
            made = actions & {"dynamodb:PutItem", "dynamodb:BatchWriteItem"}
            if name != "DedupeRole" and "FingerprintsTable" in on and made:
                yield f"{name} may {made}"
            if written := {a for a in actions if a.startswith("s3:") and not a.startswith(("s3:Get", "s3:List"))}:
                yield f"{name} may {written}"
            if "CaptionsTable" in on and (removing := {a for a in actions if "Delete" in a}):
                yield f"{name} may {removing}"


@caught(
    lambda raw: statement(raw, "SweepRole", "Flags").pop("Condition"),
    lambda raw: statement(raw, "SweepRole", "Flags")["Condition"]["ForAllValues:StringEquals"].update(
        {"dynamodb:LeadingKeys": ["flags", "quality#GPT-4o#caption"]}
    ),
    lambda raw: statement(raw, "SweepRole", "FlagMails").update(Resource={"Fn::GetAtt": ["EventBus", "Arn"]}),
    lambda raw: statement(raw, "SweepRole", "FlagEvents").update(Action="events:PutRule"),
    lambda raw: statement(raw, "CaptionRole", "Logs")["Action"].append("sns:Publish"),
    lambda raw: properties(raw, "SweepFunction")["Environment"]["Variables"].pop("ALARM_TOPIC_ARN"),
)
def the_sweep_alone_writes_flags_and_mails_and_nothing_else_of_verdicts(template: Template) -> Iterator[str]:
    sweep = {entry["Sid"]: entry for entry in statements(template, "SweepRole")}
    flags = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [control_table.flag()["pk"]["S"]]}}
    if sweep["Flags"].get("Condition") != flags:
        yield "the sweep may write more of the control table than its flags"
    for sid, action, resource in (
        ("FlagEvents", "events:PutEvents", "EventBus"), ("FlagMails", "sns:Publish", "AlarmTopic"),
    ):  # fmt: skip
        if (sweep[sid]["Action"], template.target(sweep[sid]["Resource"])) != (action, resource):
            yield f"the sweep may not {action} on {resource}"
    for name, _ in template.of_type("AWS::IAM::Role"):
        if name != "SweepRole" and any(
            "sns:Publish" in listed(entry["Action"]) for entry in statements(template, name)
        ):
            yield f"{name} may send mails"
    variables = template.resources["SweepFunction"]["Properties"]["Environment"]["Variables"]
    if template.target(variables.get("ALARM_TOPIC_ARN")) != "AlarmTopic":
        yield "the sweep does not know the topic"


@caught(
    lambda raw: statement(raw, "DedupeRole", "OwnQueue").update(Resource={"Fn::GetAtt": ["ImageQueue", "Arn"]}),
    lambda raw: statement(raw, "CaptionRole", "OwnQueue")["Action"].remove("sqs:DeleteMessage"),
    lambda raw: statement(raw, "CaptionRole", "Logs").update(Resource={"Fn::GetAtt": ["SweepLogGroup", "Arn"]}),
    of_doors=True,
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
        reader, queue = template.function(mapping["FunctionName"]), template.target(mapping["EventSourceArn"])
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
            if not may(reader, action, queue):
                yield f"{reader} may not {action} on {queue}"
    for name, function in template.of_type("AWS::Lambda::Function"):
        group = template.target(function["LoggingConfig"]["LogGroup"])
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            if not may(name, action, group):
                yield f"{name} may not {action} on {group}"


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()
