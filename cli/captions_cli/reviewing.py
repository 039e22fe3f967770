"""A person's verdict on a caption: their own words, that the model's are right, or that they take it back."""

import time
from collections.abc import Callable

from captions.completion_events import Notifier
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
    now = time.time()
    edited = _reviewed(stack, key, lambda reviews, record: reviews.edit(record, text, language=language, now=now))
    _notifier(stack).reviewed(edited)
    return edited


def accept(stack: Stack, key: str) -> Record:
    """Note that a person finds a key's caption right, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    accepted = _reviewed(stack, key, lambda reviews, record: reviews.accept(record, now=time.time()))
    _notifier(stack).reviewed(accepted)
    return accepted


def undo(stack: Stack, key: str) -> Record:
    """Take back the last verdict on a key's caption, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    undone = _reviewed(stack, key, lambda reviews, record: reviews.undo(record, now=time.time()))
    _notifier(stack).undone(undone)
    return undone


def _reviewed(stack: Stack, key: str, judge: Callable[[Reviews, Record], Record]) -> Record:
    record = listing.get(stack, key)
    try:
        return judge(Reviews(stack.client("dynamodb"), stack.captions_table, stack.output("ControlTableName")), record)
    except (NotReviewableError, ChangedMeanwhileError) as error:
        raise CommandError(f"{printable(record.key)}: {error}", ExitCode.NOT_CAPTIONED) from error


def _notifier(stack: Stack) -> Notifier:
    return Notifier(stack.client("events"), stack.output("EventBusName"))
