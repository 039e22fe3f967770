"""Flags what people edit too often, and tells the event bus and the alarm topic once for each time it comes to that.

A flag is written under a condition before it is published, and marked once it was: who dies in between leaves one that
the next look tells, with the same id. Where two look at once, one of them writes it.

A CloudWatch alarm cannot name what it is about, so the mail that does is published here.
"""

from dataclasses import asdict, dataclass
from typing import Any

from captions import control_table, telemetry
from captions.aws.dynamodb import to_item
from captions.completion_events import Notifier
from captions.quality import cells
from captions.quality.cells import Cell, Quality, QualityFlag, VerdictCounts
from captions.timestamps import timestamp

MAX_SUBJECT = 99
"""Characters of a mail's subject, which is ASCII (Amazon SNS, Publish)."""


@dataclass(frozen=True)
class Mail:
    """Tells people what is flagged; `sns` is a boto3 SNS client, `runbooks` where docs/runbooks is found."""

    sns: Any
    topic: str
    runbooks: str

    def send(self, quality: Quality) -> None:
        """Send one mail about a flagged cell."""
        cell, counts, (low, high) = quality.cell, quality.counts, quality.counts.interval
        subject = f"Captions of {cell.category} by {cell.model} are edited too often"
        tried = f"Experiment: {cell.experiment}, {cell.arm}\n" if cell.experiment is not None else ""
        self.sns.publish(
            TopicArn=self.topic,
            Subject=subject.encode("ascii", "replace").decode()[:MAX_SUBJECT],
            Message=f"People edited {counts.edited} of {counts.judged} captions that they looked at in the last "
            f"{cells.WINDOW_DAYS} days: {counts.share or 0:.0%}, between {low:.0%} and {high:.0%} for certain, where "
            f"{cells.LINE:.0%} is the line.\n\n"
            f"Category: {cell.category}\nModel: {cell.model}\nTask: {cell.task}\nPrompt: {cell.prompt_version}\n{tried}"
            f"\nThe pictures behind it: captions quality {cell.id}\nWhat to do: {self.runbooks}/quality-flagged.md\n",
        )


@dataclass
class QualityWatch:
    """What flagging takes; `dynamodb` is a boto3 DynamoDB client, `table` the control table."""

    dynamodb: Any
    table: str
    notifier: Notifier
    mail: Mail | None = None

    def look(self, now: float) -> int:
        """Flag what is edited too often, take flags back that hold no more, and return how many cells are flagged.

        `now` is in epoch seconds. Raises NotDeliveredError where the bus does not take an event; the next look tells.
        """
        flags = cells.flags(self.dynamodb, self.table)
        counted = cells.counts_by_cell(self.dynamodb, self.table, days=cells.WINDOW_DAYS, now=now)
        for cell, counts in counted.items():
            if cell not in flags and counts.too_often(flagged=False) and (flag := self._raised(cell, now)) is not None:
                flags[cell] = flag
        standing, untold = 0, list[Exception]()
        for cell, flag in flags.items():
            counts = counted.get(cell, VerdictCounts())
            if not counts.too_often(flagged=True):
                self._lower(flag)
                continue
            standing += 1
            if not flag.published:
                quality = Quality(cell, counts, flag.since)
                try:
                    self.notifier.flagged(quality)
                    if self.mail is not None:
                        self.mail.send(quality)
                except Exception as error:  # those behind it are told all the same
                    untold.append(error)
                    continue
                self._mark_published(flag)
                telemetry.logger().warning("quality_flagged", **asdict(cell), **asdict(counts))
        if untold:
            raise untold[0]
        return standing

    def _raised(self, cell: Cell, now: float) -> QualityFlag | None:
        """Write a flag; None where another look has written it meanwhile."""
        flag = QualityFlag(cell, timestamp(now), published=False)
        try:
            self.dynamodb.put_item(
                TableName=self.table,
                Item={
                    **control_table.flag(cell.id),
                    **to_item({**asdict(cell), "since": flag.since, "published": False}),
                },
                ConditionExpression="attribute_not_exists(pk)",
            )
        except self.dynamodb.exceptions.ConditionalCheckFailedException:
            return None
        return flag

    def _mark_published(self, flag: QualityFlag) -> None:
        self._if_it_stands(
            flag,
            self.dynamodb.update_item,
            UpdateExpression="SET published = :published",
            values={":published": {"BOOL": True}},
        )

    def _lower(self, flag: QualityFlag) -> None:
        self._if_it_stands(flag, self.dynamodb.delete_item)

    def _if_it_stands(self, flag: QualityFlag, change: Any, values: dict[str, Any] | None = None, **given: str) -> None:
        """Change a flag; one that another look has lowered, or raised again, is left alone."""
        try:
            change(
                TableName=self.table,
                Key=control_table.flag(flag.cell.id),
                ConditionExpression="since = :since",
                ExpressionAttributeValues={":since": {"S": flag.since}, **(values or {})},
                **given,
            )
        except self.dynamodb.exceptions.ConditionalCheckFailedException:
            return
