"""Invariants of the template as a document: parameters, outputs, and what ties it to a place."""

import re
import tomllib
from collections.abc import Iterator

import pytest

from captions.config.function_environments import WorkerSettings
from captions.config.policy import is_language
from support.template import ROOT, Invariants, Template, current, properties, texts

OUTPUTS = {
    "MediaBucketName", "CaptionsTableName", "FingerprintsTableName", "ControlTableName", "UploadsQueueUrl",
    "ImageQueueUrl", "AudioQueueUrl", "UploadsDeadLetterQueueUrl", "ImageDeadLetterQueueUrl",
    "AudioDeadLetterQueueUrl", "RuleDeadLetterQueueUrl", "EventBusName", "EndpointSecretArn", "DedupeFunctionName",
    "ApiFunctionName", "ApiUrl", "CaptionFunctionName", "TranscribeFunctionName", "SweepFunctionName", "AlarmTopicArn",
    "UserPoolId",
}  # fmt: skip
"""What the `captions` command, the local stack and the commands of docs/deployment.md read."""

NEEDED = dict.fromkeys(
    ("CAPTIONS_TABLE", "FINGERPRINTS_TABLE", "UPLOADS_QUEUE_URL", "EVENT_BUS_NAME", "IMAGE_QUEUE_URL",
     "AUDIO_QUEUE_URL", "CONTROL_TABLE", "ENDPOINT_URLS", "ENDPOINT_SECRET_ARN"), "x",
)  # fmt: skip
"""What a worker's environment holds in any case."""

INVARIANTS = Invariants()
caught = INVARIANTS.caught


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
    lambda raw: raw["Resources"]["MediaBucket"]["Metadata"]["checkov"]["skip"][0].pop("comment"),
    lambda raw: raw["Resources"]["MediaBucket"]["Metadata"]["checkov"]["skip"][0].update(comment="no"),
    lambda raw: raw["Resources"]["MediaBucket"]["Metadata"].update({"cfn-lint": {"config": {"ignore_checks": ["W"]}}}),
    of_doors=True,
)
def what_a_linter_is_told_to_pass_over_has_its_reason(template: Template) -> Iterator[str]:
    for name, resource in template.raw["Resources"].items():
        metadata = resource.get("Metadata", {})
        for skipped in metadata.get("checkov", {}).get("skip", ()):
            if len(skipped.get("comment", "")) < 20:
                yield f"{name}: {skipped['id']} is passed over without a reason"
        if "cfn-lint" in metadata:
            yield f"{name}: cfn-lint has no room for a reason"


@caught(
    lambda raw: properties(raw, "EventBus").update(Name="arn:aws:events:x"),
    lambda raw: properties(raw, "EventBus").update(Name="bus-eu-west-1"),
    lambda raw: properties(raw, "EventBus").update(Name="bus-123456789012"),
    lambda raw: properties(raw, "EventBus").update(Name="https://sqs.amazonaws.com/"),
    of_doors=True,
)
def no_partition_region_or_account_is_named(template: Template) -> Iterator[str]:
    for text in texts(template.raw):
        if "amazonaws.com" in text and not re.fullmatch(r"([a-z]+|indexing\.s3vectors)\.amazonaws\.com", text):
            yield f"an address of one partition: {text}"
        if re.search(r"arn:aws[a-z-]*:|\b[a-z]{2}(-gov|-iso[a-z]?)?-[a-z]+-\d\b|\b\d{12}\b", text):
            yield f"a partition, region or account: {text}"


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()


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


@pytest.mark.parametrize(
    ("parameter", "value", "taken"),
    [
        ("DailyBudgetDollars", "", True),
        ("DailyBudgetDollars", "20", True),
        ("DailyBudgetDollars", "0.50", True),
        ("DailyBudgetDollars", "010.5", True),
        ("DailyBudgetDollars", "0", False),
        ("DailyBudgetDollars", "0.00", False),
        ("DailyBudgetDollars", "-1", False),
        ("PrefixBudgets", "photos/=5,scans/=0.50", True),
        ("PrefixBudgets", "photos/=0", False),
        ("PrefixBudgets", "photos/=5,scans/=0.0", False),
        ("Language", "en", True),
        ("Language", "en-GB", True),
        ("Language", "zh-Hant-TW", True),
        ("Language", "es-419", True),
        ("Language", "de-1996", True),
        ("Language", "en-GB-US", False),
        ("Language", "english please", False),
    ],
)
def test_a_parameter_takes_what_the_functions_can_work_with(parameter: str, value: str, taken: bool) -> None:
    pattern = current().raw["Parameters"][parameter]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, value)) == taken
    if taken and parameter == "Language":
        assert is_language(value)
    elif taken:
        name = {"DailyBudgetDollars": "DAILY_BUDGET_DOLLARS", "PrefixBudgets": "PREFIX_BUDGETS"}[parameter]
        WorkerSettings.from_env({**NEEDED, name: value})


def test_the_template_stays_short_enough_to_read() -> None:
    """Parts of their own stand in templates of their own; a parameter takes as few lines as it can."""
    assert len((ROOT / "template.yaml").read_text(encoding="utf-8").splitlines()) < 1_400
