"""Invariants of the alarms: each is told to somebody, leads to its page, and watches a metric that is written."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from captions_cli.local.cloudformation.translate import load_template
from support.template import (
    ROOT,
    Invariants,
    Template,
    bulk,
    current,
    doors,
    properties,
    texts,
)  # fmt: skip

ALARMS = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
RUNBOOKS = ROOT / "docs" / "runbooks"
SOURCES = re.sub(
    # What is only named there is written by nobody.
    r"(?s)PIPELINE_METRICS = frozenset\(.*?\)\n",
    "",
    "".join(
        path.read_text(encoding="utf-8") for room in ("shared", "functions") for path in (ROOT / room).rglob("*.py")
    ),
)

INVARIANTS = Invariants()
caught = INVARIANTS.caught


def alarms(template: Template) -> Iterator[tuple[str, dict[str, Any]]]:
    for type_ in ALARMS:
        yield from template.of_type(type_)


def metrics(alarm: Mapping[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Namespace, name and dimensions of each metric that an alarm watches."""
    stats = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", ()) if "MetricStat" in query]
    for metric in stats or ([alarm] if "MetricName" in alarm else []):
        yield metric["Namespace"], metric["MetricName"], {d["Name"]: d["Value"] for d in metric.get("Dimensions", ())}


@caught(
    lambda raw: properties(raw, "ImageStalledAlarm").pop("AlarmActions"),
    lambda raw: properties(raw, "ImageStalledAlarm").update(AlarmActions=["arn"]),
    lambda raw: properties(raw, "ErrorBudgetFastAlarm").pop("AlarmActions"),
    lambda raw: properties(raw, "ErrorBudgetSlowAlarm").update(
        AlarmRule={"Fn::Sub": 'ALARM("${ErrorBudgetSlowLongAlarm}")'}
    ),
    lambda raw: raw["Resources"].pop("AlarmSubscription"),
    lambda raw: properties(raw, "AlarmSubscription").update(Endpoint="someone@example.com"),
    lambda raw: properties(raw, "AlarmTopicPolicy")["PolicyDocument"]["Statement"].pop(0),
)
def every_alarm_is_told_to_the_topic_and_the_topic_to_a_subscriber(template: Template) -> Iterator[str]:
    halves = {
        name
        for _, composite in template.of_type("AWS::CloudWatch::CompositeAlarm")
        for name in re.findall(r"\$\{(\w+)\}", composite["AlarmRule"]["Fn::Sub"])
    }
    for name, alarm in alarms(template):
        reported = [template.target(action) for action in alarm.get("AlarmActions", ())]
        if reported != ["AlarmTopic"] and name not in halves:
            yield f"{name} is told to nobody"
        if name in halves and reported:
            yield f"{name} is told twice"
    subscriptions = [s for _, s in template.of_type("AWS::SNS::Subscription")]
    if [(template.target(s["TopicArn"]), template.target(s["Endpoint"])) for s in subscriptions] != [
        ("AlarmTopic", "AlarmEmail")
    ]:
        yield "nobody subscribes to the topic"
    publishers = [
        entry["Principal"].get("Service")
        for _, policy in template.of_type("AWS::SNS::TopicPolicy")
        for entry in policy["PolicyDocument"]["Statement"]
        if entry["Effect"] == "Allow"
    ]
    if "cloudwatch.amazonaws.com" not in publishers:
        yield "CloudWatch may not publish to the topic"


@caught(
    lambda raw: properties(raw, "EditRateAlarm").update(AlarmDescription="People rewrite captions"),
    lambda raw: properties(raw, "EditRateAlarm").update(AlarmDescription={"Fn::Sub": "x. ${RunbookUrl}/absent.md"}),
    lambda raw: properties(raw, "EditRateAlarm").update(
        AlarmDescription={"Fn::Sub": "x. ${RunbookUrl}/dead-letters.md"}
    ),
    lambda raw: raw["Resources"].update(NewAlarm=raw["Resources"]["EditRateAlarm"]),
    lambda raw: raw["Resources"].pop("SweepSilentAlarm"),
    lambda raw: raw["Resources"].pop("ThrottlesAlarm"),
)
def every_alarm_has_its_page_and_every_page_its_alarm(template: Template) -> Iterator[str]:
    on_pages = {
        alarm: page.name
        for page in RUNBOOKS.glob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("Alarms: ")
        for alarm in re.findall(r"`(\w+)`", line)
    }
    named = {}
    api = load_template(ROOT / "api.yaml")["Resources"]
    of_the_api = [(name, resource["Properties"]) for name, resource in api.items() if resource["Type"] in ALARMS]
    for name, alarm in (*alarms(template), *alarms(doors()), *alarms(bulk()), *of_the_api):
        result = re.search(
            r"\$\{RunbookUrl\}/([\w-]+\.md)$",
            str(alarm["AlarmDescription"].get("Fn::Sub")) if isinstance(alarm["AlarmDescription"], dict) else "",
        )
        if result is None:
            yield f"{name} does not lead to a page"
        else:
            named[name] = result[1]
    for name in sorted({*named, *on_pages}):
        if named.get(name) != on_pages.get(name):
            yield f"{name} leads to {named.get(name)} and stands on {on_pages.get(name)}"


def test_every_page_says_what_it_means_and_what_to_do_with_a_command() -> None:
    pages = [page for page in RUNBOOKS.glob("*.md") if page.name != "README.md"]
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "\n## What it means\n" in text, page.name
        assert re.search(r"\n {4,}(aws|captions|sam|curl|KEY=)", text.partition("\n## What to do\n")[2]), page.name
        assert f"({page.name})" in index, page.name


@caught(
    lambda raw: raw["Resources"].pop("AudioDeadLettersAlarm"),
    lambda raw: raw["Resources"].pop("RuleDeadLettersAlarm"),
    lambda raw: raw["Resources"].pop("UploadsStalledAlarm"),
    lambda raw: raw["Resources"].pop("ImageGrowingAlarm"),
    lambda raw: raw["Resources"].pop("SweepErrorsAlarm"),
    lambda raw: raw["Resources"].update(NewQueue={"Type": "AWS::SQS::Queue", "Properties": {}}),
    of_doors=True,
)
def every_queue_and_function_is_watched(template: Template) -> Iterator[str]:
    watched: set[tuple[str, str]] = set()
    for _, alarm in alarms(template):
        for _, metric, dimensions in metrics(alarm):
            of = dimensions.get("QueueName", dimensions.get("FunctionName"))
            watched.add((template.target(of), metric))
            if "Metrics" in alarm:
                watched.add((template.target(of), f"{metric} in {alarm['Metrics'][0]['Expression']}"))
    dead = {
        template.target(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for _, queue in template.of_type("AWS::SQS::Queue")
        if "RedrivePolicy" in queue
    } | {"RuleDeadLetterQueue"}
    for name, _ in template.of_type("AWS::SQS::Queue"):
        wanted = ["ApproximateNumberOfMessagesVisible"]
        if name not in dead:
            wanted += ["ApproximateAgeOfOldestMessage", "NumberOfMessagesDeleted"]
        for metric in wanted:
            if (name, metric) not in watched:
                yield f"nobody watches {metric} of {name}"
    for name, _ in template.of_type("AWS::Lambda::Function"):
        for metric in ("Errors", "Throttles"):
            if (name, metric) not in watched:
                yield f"nobody watches {metric} of {name}"


@caught(
    lambda raw: properties(raw, "SweepSilentAlarm").pop("InsufficientDataActions"),
    lambda raw: properties(raw, "SweepSilentAlarm").update(TreatMissingData="notBreaching"),
    lambda raw: properties(raw, "ImageStalledAlarm").update(TreatMissingData="missing"),
    of_doors=True,
)
def silence_is_an_alarm_of_the_sweep_alone(template: Template) -> Iterator[str]:
    for name, alarm in template.of_type("AWS::CloudWatch::Alarm"):
        reported = [template.target(action) for action in alarm.get("InsufficientDataActions", ())]
        silent = (alarm["TreatMissingData"], reported)
        if silent != (("missing", ["AlarmTopic"]) if name == "SweepSilentAlarm" else ("notBreaching", [])):
            yield f"{name} takes no data for {silent}"


@caught(
    lambda raw: properties(raw, "CircuitsOpenAlarm").update(MetricName="CircuitsOpenForTasks"),
    lambda raw: properties(raw, "CostPerHourAlarm")["Dimensions"].append({"Name": "key", "Value": "a.jpg"}),
    lambda raw: properties(raw, "CostPerHourAlarm")["Dimensions"][0].update(Value="caption"),
    lambda raw: properties(raw, "CostPerHourAlarm").update(Namespace="media-captions"),
    lambda raw: properties(raw, "FailedRecordsAlarm")["Metrics"][1]["MetricStat"]["Metric"]["Dimensions"][0].update(
        Value="pipeline"
    ),
    of_doors=True,
)
def alarms_watch_metrics_that_the_functions_write(template: Template) -> Iterator[str]:
    own = {
        function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        for _, function in template.of_type("AWS::Lambda::Function")
    }
    for name, alarm in alarms(template):
        for namespace, metric, dimensions in metrics(alarm):
            if isinstance(namespace, str) and namespace.startswith("AWS/"):
                continue
            if namespace not in ({"Ref": "AWS::StackName"}, {"Ref": "Pipeline"}):
                yield f"{name} watches another namespace than the functions write to"
            if f'"{metric}"' not in SOURCES:
                yield f"{name}: nobody writes {metric}"
            # telemetry.count writes what it does not know under the function's own service.
            wanted = own if metric == "RecordFailed" else {"pipeline"}
            if set(dimensions) != {"service"} or dimensions["service"] not in wanted:
                yield f"{name}: {metric} has not the dimensions {dimensions}"


@caught(
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"].pop("Alarms"),
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"]["Alarms"].pop(),
    lambda raw: raw["Globals"]["Function"]["DeploymentPreference"]["Alarms"].pop(0),
    lambda raw: properties(raw, "CaptionErrorsAlarm")["Dimensions"][1].update(Value="other"),
)
def a_failing_update_is_stopped_by_alarms(template: Template) -> Iterator[str]:
    wanted = {
        "DedupeErrorsAlarm",
        "CaptionErrorsAlarm",
        "TranscribeErrorsAlarm",
        "SweepErrorsAlarm",
        "FailedRecordsAlarm",
    }
    for name, group in template.of_type("AWS::CodeDeploy::DeploymentGroup"):
        given = {template.target(alarm["Name"]) for alarm in group.get("AlarmConfiguration", {}).get("Alarms", ())}
        if given != wanted:
            yield f"{name} is not stopped by {wanted - given}"
    for name, alarm in template.of_type("AWS::CloudWatch::Alarm"):
        if alarm.get("MetricName") == "Errors":
            dimensions = {d["Name"]: d["Value"] for d in alarm["Dimensions"]}
            function = template.target(dimensions["FunctionName"])
            if dimensions.get("Resource") != {"Fn::Sub": f"${{{function}}}:live"}:
                yield f"{name} does not watch the alias"


@caught(
    lambda raw: properties(raw, "Dashboard").update(
        DashboardBody={
            "Fn::Sub": properties(raw, "Dashboard")["DashboardBody"]["Fn::Sub"].replace('"widgets"', "widgets")
        }
    ),
    lambda raw: properties(raw, "Dashboard").update(
        DashboardBody={
            "Fn::Sub": properties(raw, "Dashboard")["DashboardBody"]["Fn::Sub"].replace("QueueAge", "QueueAges")
        }
    ),
    lambda raw: properties(raw, "Dashboard").update(
        DashboardBody={
            "Fn::Sub": properties(raw, "Dashboard")["DashboardBody"]["Fn::Sub"].replace("${ImageStalledAlarm.Arn}", "x")
        }
    ),
)
def the_dashboard_shows_what_there_is(template: Template) -> Iterator[str]:
    body = template.resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    try:
        widgets = json.loads(re.sub(r"\$\{[^}]*\}", "x", body))["widgets"]
    except ValueError as error:
        yield f"no JSON: {error}"
        return
    for widget in widgets:
        for metric in widget["properties"].get("metrics", ()):
            searched = (
                re.findall(r'MetricName="(\w+)"', metric[0].get("expression", ""))
                if isinstance(metric[0], dict)
                else []
            )
            for name in searched or ([] if str(metric[0]).startswith("AWS/") else [metric[1]]):
                if f'"{name}"' not in SOURCES:
                    yield f"nobody writes {name}"
    shown = set(re.findall(r"\$\{(\w+)\.Arn\}", body))
    reported = {
        name
        for name, alarm in alarms(template)
        if "AlarmActions" in alarm and "Condition" not in template.resources[name]
    }
    if shown != reported:
        yield f"alarms that are told and not shown, or the other way round: {shown ^ reported}"


# ---------------------------------------------------------------- what the metric math says


def fires(alarm: str, *, threshold: float | None = None, **values: float | None) -> bool:
    """Whether an alarm's expression passes its threshold with these values of its metrics; None: no data."""
    given = properties(current().raw, alarm)
    expression = given["Metrics"][0]["Expression"]
    text = expression["Fn::Sub"] if isinstance(expression, dict) else expression
    for name, parameter in current().raw["Parameters"].items():
        text = text.replace(f"${{{name}}}", str(parameter.get("Default")))
    python = re.sub(r"\bAND\b", "and", text).replace("IF(", "IF_(")
    known: dict[str, Any] = {
        "IF_": lambda condition, then, other: then if condition else other,
        "FILL": lambda value, fill: fill if value is None else value,
        "DIFF": lambda value: values["grown"],
        **values,
    }
    result = eval(python, {"__builtins__": {}}, known)  # the template's own text
    limit = given["Threshold"] if threshold is None else threshold
    return bool(result > limit if given["ComparisonOperator"] == "GreaterThanThreshold" else result >= limit)


def test_an_old_message_alone_is_a_long_queue_and_no_alarm() -> None:
    assert fires("ImageStalledAlarm", age=900, done=0)
    assert fires("ImageStalledAlarm", age=900, done=None)
    assert not fires("ImageStalledAlarm", age=900, done=1)
    assert not fires("ImageStalledAlarm", age=200, done=0)


def test_a_long_queue_alone_is_no_growing_one() -> None:
    assert fires("ImageGrowingAlarm", depth=5000, grown=1)
    assert not fires("ImageGrowingAlarm", depth=5000, grown=-1)
    assert not fires("ImageGrowingAlarm", depth=500, grown=400)


def test_a_few_fallbacks_among_few_calls_are_no_alarm() -> None:
    assert fires("FallbackRateAlarm", calls=100, fallbacks=21)
    assert not fires("FallbackRateAlarm", calls=100, fallbacks=20)
    assert not fires("FallbackRateAlarm", calls=100, fallbacks=None)
    assert not fires("FallbackRateAlarm", calls=19, fallbacks=19)


@pytest.mark.parametrize(("alarm", "percent"), [("ErrorBudgetFastLongAlarm", 1.44), ("ErrorBudgetSlowLongAlarm", 0.6)])
def test_the_error_budget_burns_at_the_rates_of_the_workbook(alarm: str, percent: float) -> None:
    total = 100_000
    late = total * percent / 100
    assert fires(alarm, late=late + 1, good=total - late - 1)
    assert not fires(alarm, late=late, good=total - late)
    assert not fires(alarm, late=None, good=total)
    assert fires(alarm, late=50, good=None), "an outage in which nothing ends is the worst case"
    assert not fires(alarm, late=2, good=0), "two uploads say nothing"


def test_captions_that_few_people_looked_at_are_no_alarm() -> None:
    before = {"edited_before": 100, "accepted_before": 900}
    assert fires("EditRateAlarm", edited=107, accepted=913, **before)
    assert not fires("EditRateAlarm", edited=106, accepted=914, **before)
    assert not fires("EditRateAlarm", edited=110, accepted=900, **before)


def test_no_alarm_speaks_of_a_key_or_bucket() -> None:
    for name, alarm in alarms(current()):
        assert not [text for text in texts(alarm) if text in ("asset", "key", "bucket")], name


test_invariant_holds, test_invariant_can_fail = INVARIANTS.tests()
