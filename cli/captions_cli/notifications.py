"""Lets a bucket that exists already tell EventBridge of its events, and leaves its other notifications as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captions_cli.errors import CommandError, ExitCode

ATTEMPTS = 3
"""S3 replaces the whole configuration and knows no condition: another writer's change at the same moment is redone."""
_KINDS = {
    "TopicConfigurations": "SNS topic",
    "QueueConfigurations": "SQS queue",
    "LambdaFunctionConfigurations": "Lambda function",
}


@dataclass(frozen=True)
class Connection:
    """What was done to a bucket's notifications; `others` are those it had, and has."""

    bucket: str
    changed: bool
    others: tuple[str, ...]


def connect(s3: Any, bucket: str, *, dry_run: bool = False) -> Connection:
    """Add EventBridge to the bucket's notifications; does nothing where it is there.

    Raises CommandError when another writer undid it each time, and ClientError as S3 does.
    """
    before = _read(s3, bucket)
    others = tuple(_targets(before))
    if "EventBridgeConfiguration" in before:
        return Connection(bucket, changed=False, others=others)
    if dry_run:
        return Connection(bucket, changed=True, others=others)
    for _ in range(ATTEMPTS):
        s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration={**before, "EventBridgeConfiguration": {}},
            # The others are written back as they were: S3 need not send each of them a test event.
            SkipDestinationValidation=True,
        )
        after = _read(s3, bucket)
        if "EventBridgeConfiguration" in after:
            lost = [target for target in _targets(before) if target not in _targets(after)]
            if lost:
                raise CommandError(
                    f"{bucket} no longer has {', '.join(lost)}: another writer took it away at the same moment",
                    ExitCode.AWS,
                )
            return Connection(bucket, changed=True, others=tuple(_targets(after)))
        before = after
    raise CommandError(f"another writer sets the notifications of {bucket} all the time; try again", ExitCode.AWS)


def _read(s3: Any, bucket: str) -> dict[str, Any]:
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    return {name: value for name, value in configuration.items() if name != "ResponseMetadata"}


def _targets(configuration: Mapping[str, Any]) -> list[str]:
    """Each notification in words, in no less than tells it from others."""
    targets = []
    for name, kind in _KINDS.items():
        for each in configuration.get(name, []):
            arn = next(value for key, value in each.items() if key.endswith("Arn"))
            rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
            about = "".join(f", {rule['Name'].lower()} {rule['Value']}" for rule in rules)
            targets.append(f"{kind} {arn} ({', '.join(sorted(each['Events']))}{about})")
    return sorted(targets)
