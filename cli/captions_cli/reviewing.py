"""A person's verdict on a caption: their own words, or that the model's are right."""

import time

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
    record = listing.get(stack, key)
    try:
        edited = _reviews(stack).edit(record, text, language=language, now=time.time())
    except (NotReviewableError, ChangedMeanwhileError) as error:
        raise CommandError(f"{printable(record.key)}: {error}", ExitCode.NOT_CAPTIONED) from error
    return _told(stack, edited)


def accept(stack: Stack, key: str) -> Record:
    """Note that a person finds a key's caption right, and tell the event bus.

    Raises CommandError where that cannot be.
    """
    record = listing.get(stack, key)
    try:
        accepted = _reviews(stack).accept(record, now=time.time())
    except (NotReviewableError, ChangedMeanwhileError) as error:
        raise CommandError(f"{printable(record.key)}: {error}", ExitCode.NOT_CAPTIONED) from error
    return _told(stack, accepted)


def _reviews(stack: Stack) -> Reviews:
    return Reviews(stack.client("dynamodb"), stack.captions_table, stack.output("ControlTableName"))


def _told(stack: Stack, record: Record) -> Record:
    Notifier(stack.client("events"), stack.output("EventBusName")).reviewed(record)
    return record
