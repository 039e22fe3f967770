"""Invariants of the functions: runtime, layers, logs and environment."""

from collections.abc import Iterator
from typing import Any

from captions.config.environment import FunctionEnvironment, IntakeSettings
from captions.config.function_environments import (
    SearchSettings,
    SweepSettings,
    WebhookSettings,
    WorkerSettings,
    WriteBackSettings,
)
from captions_cli import deploying
from support.template import Invariants, Template, properties

SETTINGS: dict[str, type[FunctionEnvironment]] = {
    "DedupeFunction": IntakeSettings,
    "CaptionFunction": WorkerSettings,
    "TranscribeFunction": WorkerSettings,
    "SweepFunction": SweepSettings,
    "WebhooksFunction": WebhookSettings,
    "WriteBackFunction": WriteBackSettings,
    "SearchFunction": SearchSettings,
}
ANYWHERE = {
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
    "AWS_ENDPOINT_URL",
    "CONFIGURATION_VERSION",
}
"""What every function is told besides its settings."""

INVARIANTS = Invariants()
caught = INVARIANTS.caught


@caught(
    lambda raw: properties(raw, "DedupeFunction").update(Runtime="python3.12"),
    lambda raw: properties(raw, "DedupeFunction").update(Tracing="PassThrough"),
    lambda raw: properties(raw, "SweepFunction").update(Architectures=["arm64"]),
    lambda raw: properties(raw, "SweepFunction").update(Handler="main.handler"),
    lambda raw: properties(raw, "SweepFunction").update(Layers=[{"Ref": "ProductLayer"}]),
    of_doors=True,
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
    lambda raw: properties(raw, "CaptionFunction").pop("ReservedConcurrentExecutions"),
    lambda raw: properties(raw, "CaptionFunction").update(ReservedConcurrentExecutions=12),
    lambda raw: properties(raw, "CaptionFunction").update(
        ReservedConcurrentExecutions={
            "Fn::If": ["ReservesConcurrency", {"Ref": "DedupeConcurrency"}, {"Ref": "AWS::NoValue"}]
        }
    ),
)
def concurrency_is_set_aside_only_where_that_is_wanted_and_then_what_the_pool_may_use(
    template: Template,
) -> Iterator[str]:
    limits = {
        template.function(mapping["FunctionName"]): mapping["ScalingConfig"]["MaximumConcurrency"]
        for _, mapping in template.of_type("AWS::Lambda::EventSourceMapping")
    }
    for name, function in template.of_type("AWS::Lambda::Function"):
        wanted = {"Fn::If": ["ReservesConcurrency", limits.get(name, 1), {"Ref": "AWS::NoValue"}]}
        if function.get("ReservedConcurrentExecutions") != wanted:
            yield f"{name} reserves {function.get('ReservedConcurrentExecutions')}"


@caught(
    lambda raw: raw["Resources"].pop("SweepLogGroup"),
    lambda raw: properties(raw, "SweepLogGroup").pop("RetentionInDays"),
    lambda raw: properties(raw, "SweepFunction").pop("LoggingConfig"),
    lambda raw: properties(raw, "SweepFunction")["LoggingConfig"].update(LogGroup={"Ref": "DedupeLogGroup"}),
    of_doors=True,
)
def every_function_logs_to_a_group_of_its_own_that_forgets(template: Template) -> Iterator[str]:
    groups = dict(template.of_type("AWS::Logs::LogGroup"))
    used: list[str] = []
    for name, function in template.of_type("AWS::Lambda::Function"):
        its_group = template.target(function.get("LoggingConfig", {}).get("LogGroup"))
        used.append(its_group)
        if its_group not in groups:
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
    of_doors=True,
)
def every_function_is_told_what_its_settings_ask_and_no_more(template: Template) -> Iterator[str]:
    for name, function in template.of_type("AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        if missing := ANYWHERE - set(variables):
            yield f"{name} lacks {missing}"
        fields = {field.upper() for field in SETTINGS[name].model_fields}
        if unknown := set(variables) - fields - ANYWHERE:
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
    made_up = "https://endpoint.example/v1"
    if parameter["Type"] == "Number" or template.target(node).endswith(("Price", "Dollars")):
        made_up = "1"
    return str(parameter.get("Default", made_up))


@caught(
    lambda raw: properties(raw, "DedupeFunction").pop("RecursiveLoop"),
    lambda raw: properties(raw, "TranscribeFunction").update(RecursiveLoop="Terminate"),
    lambda raw: properties(raw, "SweepFunction").update(RecursiveLoop="Allow"),
    of_doors=True,
)
def chains_of_requests_are_allowed_just_where_a_function_reads_a_queue(template: Template) -> Iterator[str]:
    # Jobs and revisits go back to the queues that these functions read; nothing leads back to the others (AWS Lambda
    # developer guide, "Use Lambda recursive loop detection to prevent infinite loops").
    readers = {
        template.function(mapping["FunctionName"]) for _, mapping in template.of_type("AWS::Lambda::EventSourceMapping")
    }
    for name, function in template.of_type("AWS::Lambda::Function"):
        if (function.get("RecursiveLoop") == "Allow") != (name in readers):
            yield f"{name} has RecursiveLoop {function.get('RecursiveLoop')}"


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


@caught(
    lambda raw: properties(raw, "SweepFunction").update(
        FunctionName={"Fn::Sub": "${AWS::StackName}-sweeps-what-stopped"}
    ),
    lambda raw: properties(raw, "EventBus").update(Name={"Fn::Sub": "${AWS::StackName}-" + "e" * 250}),
)
def names_derived_from_the_longest_stack_name_are_allowed(template: Template) -> Iterator[str]:
    # AWS Lambda, EventBridge, AppConfig and CloudWatch Logs APIs: lengths of these names.
    limits = {
        "AWS::Lambda::Function": ("FunctionName", 64),
        "AWS::Events::EventBus": ("Name", 256),
        "AWS::AppConfig::Application": ("Name", 64),
        "AWS::Logs::LogGroup": ("LogGroupName", 512),
    }
    longest = "s" * deploying.LONGEST_STACK_NAME
    for type_, (key, limit) in limits.items():
        for name, made in template.of_type(type_):
            node = made[key]
            text = longest if node == {"Ref": "AWS::StackName"} else node["Fn::Sub"]
            if len(text.replace("${AWS::StackName}", longest)) > limit:
                yield f"the name of {name} is too long"


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()
