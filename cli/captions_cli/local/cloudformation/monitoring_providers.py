"""What watches: alarms, dashboards, log groups and topics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from captions_cli.local.cloudformation.provider import Clients, Provider, truth
from captions_cli.local.cloudformation.resources import Resource


def _put_alarm(alarm: Resource, before: Resource | None, clients: Clients) -> None:
    clients("cloudwatch").put_metric_alarm(**_alarm(alarm.properties), AlarmName=alarm.name)


_ALARM_NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "Period": int,
    "EvaluationPeriods": int,
    "DatapointsToAlarm": int,
    "Threshold": float,
    "ReturnData": truth,
    "ActionsEnabled": truth,
}


def _alarm(node: Any) -> Any:
    """An alarm's properties with numbers as numbers, without its name and tags."""
    if isinstance(node, Mapping):
        return {
            name: _ALARM_NUMBERS[name](value) if name in _ALARM_NUMBERS else _alarm(value)
            for name, value in node.items()
            if name not in {"AlarmName", "Tags"}
        }
    return [_alarm(item) for item in node] if isinstance(node, list) else node


def _delete_alarm(alarm: Resource, clients: Clients) -> None:
    clients("cloudwatch").delete_alarms(AlarmNames=[alarm.name])


def _put_dashboard(dashboard: Resource, before: Resource | None, clients: Clients) -> None:
    clients("cloudwatch").put_dashboard(
        DashboardName=dashboard.name, DashboardBody=dashboard.properties["DashboardBody"]
    )


def _delete_dashboard(dashboard: Resource, clients: Clients) -> None:
    clients("cloudwatch").delete_dashboards(DashboardNames=[dashboard.name])


def _put_log_group(group: Resource, before: Resource | None, clients: Clients) -> None:
    logs = clients("logs")
    if before is None:
        logs.create_log_group(logGroupName=group.name)
    if days := group.properties.get("RetentionInDays"):
        logs.put_retention_policy(logGroupName=group.name, retentionInDays=int(days))


def _delete_log_group(group: Resource, clients: Clients) -> None:
    clients("logs").delete_log_group(logGroupName=group.name)


def _put_topic(topic: Resource, before: Resource | None, clients: Clients) -> None:
    sns = clients("sns")
    arn = sns.create_topic(Name=topic.name)["TopicArn"]
    for name in ("DisplayName", "KmsMasterKeyId"):
        if topic.properties.get(name):
            sns.set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=topic.properties[name])


def _delete_topic(topic: Resource, clients: Clients) -> None:
    clients("sns").delete_topic(TopicArn=topic.reference)


def _put_topic_policy(policy: Resource, before: Resource | None, clients: Clients) -> None:
    for arn in policy.properties["Topics"]:
        clients("sns").set_topic_attributes(
            TopicArn=arn, AttributeName="Policy", AttributeValue=json.dumps(policy.properties["PolicyDocument"])
        )


def _put_subscription(subscription: Resource, before: Resource | None, clients: Clients) -> None:
    if before is not None:
        if before.properties == subscription.properties:
            return
        _delete_subscription(before, clients)
    properties = subscription.properties
    clients("sns").subscribe(
        TopicArn=properties["TopicArn"], Protocol=properties["Protocol"], Endpoint=properties["Endpoint"]
    )


def _delete_subscription(subscription: Resource, clients: Clients) -> None:
    sns, properties = clients("sns"), subscription.properties
    for listed in sns.list_subscriptions_by_topic(TopicArn=properties["TopicArn"])["Subscriptions"]:
        if listed["Endpoint"] == properties["Endpoint"] and listed["SubscriptionArn"].startswith("arn:"):
            sns.unsubscribe(SubscriptionArn=listed["SubscriptionArn"])


def _nothing(resource: Resource, clients: Clients) -> None:
    """Goes with what it belongs to."""


MONITORING: Mapping[str, Provider] = {
    "AWS::CloudWatch::Alarm": Provider(_put_alarm, _delete_alarm),
    "AWS::CloudWatch::Dashboard": Provider(_put_dashboard, _delete_dashboard),
    "AWS::Logs::LogGroup": Provider(_put_log_group, _delete_log_group),
    "AWS::SNS::Topic": Provider(_put_topic, _delete_topic, frozenset({"FifoTopic"})),
    "AWS::SNS::TopicPolicy": Provider(_put_topic_policy, _nothing),
    "AWS::SNS::Subscription": Provider(_put_subscription, _delete_subscription),
}
