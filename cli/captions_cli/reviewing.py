"""A person's verdict on a caption: their own words, that the model's are right, or that they take it back."""

import time
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from captions.completion_events import NotDeliveredError, Notifier
from captions.records.record import Record
from captions.records.reviews import ChangedMeanwhileError, NotReviewableError, Reviews
from captions_cli import listing
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack


def edit(stack: Stack, key: str, text: str, language: str | None) -> Record:
    """Put a person's words in the place of a key's caption, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    text.encode()  # what is no text is refused here, not by DynamoDB
    now = time.time()
    edited = _reviewed(stack, key, lambda reviews, record: reviews.edit(record, text, language=language, now=now))
    _publish(edited, _notifier(stack).reviewed, "your words are stored")
    return edited


def accept(stack: Stack, key: str) -> Record:
    """Note that a person finds a key's caption right, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    accepted = _reviewed(stack, key, lambda reviews, record: reviews.accept(record, now=time.time()))
    _publish(accepted, _notifier(stack).reviewed, "it is accepted")
    return accepted


def undo(stack: Stack, key: str) -> Record:
    """Take back the last verdict on a key's caption, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    undone = _reviewed(stack, key, lambda reviews, record: reviews.undo(record, now=time.time()))
    _publish(undone, _notifier(stack).undone, "the verdict is taken back")
    return undone


def _reviewed(stack: Stack, key: str, judge: Callable[[Reviews, Record], Record]) -> Record:
    record = listing.get(stack, key)
    try:
        return judge(Reviews(stack.client("dynamodb"), stack.captions_table, stack.output("ControlTableName")), record)
    except (NotReviewableError, ChangedMeanwhileError) as error:
        raise CommandError(f"{printable(record.key)}: {error}", ExitCode.NOT_CAPTIONED) from error


def _publish(record: Record, publish: Callable[[Record], None], done: str) -> None:
    """Publish what was stored; raises CommandError that says so, as `undo` again would take another verdict back."""
    try:
        publish(record)
    except (NotDeliveredError, ClientError, BotoCoreError) as error:
        raise CommandError(
            f"{printable(record.key)}: {done}, but its event could not be published, so that webhooks, write-back and "
            f"search do not know: {error}",
            ExitCode.AWS,
        ) from error


def _notifier(stack: Stack) -> Notifier:
    return Notifier(stack.client("events"), stack.output("EventBusName"))
