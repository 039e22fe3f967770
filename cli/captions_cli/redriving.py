"""Gives failed uploads another try, and empties the dead-letter queues back to where their messages came from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from captions.queues import Queues, Revisit
from captions.records.record import Record
from captions_cli import listing
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack

REOPENED = ("failed", "blocked")
"""States that another try can leave; what is rejected stays so as long as its bytes do."""
DEAD_LETTER_QUEUES = {
    "UploadsDeadLetterQueueUrl": "uploads",
    "ImageDeadLetterQueueUrl": "image",
    "AudioDeadLetterQueueUrl": "audio",
}
RULE_QUEUE = "RuleDeadLetterQueueUrl"
DOORS = "Doors"
"""The nested stack of what follows completion events; each part is there if it is wanted."""
DOORS_QUEUES = {"Webhooks": "webhooks", "WriteBack": "write-back", "Search": "search"}


@dataclass(frozen=True)
class Moved:
    """A dead-letter queue: how many messages it holds (about), and whether they were set moving.

    `problem` says why not, where that is not simply that it was empty or that nothing should be done.
    """

    queue: str
    messages: int
    started: bool
    problem: str | None = None


def failed(stack: Stack, *, keys: Iterable[str], prefix: str, states: tuple[str, ...], days: int) -> Iterator[Record]:
    """Yield the records to try again: the given keys, or all in the given states.

    Raises CommandError when a given key is in another state.
    """
    given = list(keys)
    if not given:
        yield from listing.recent(stack, states=states, prefix=prefix, days=days)
        return
    for key in given:
        record = listing.get(stack, key)
        if record.state not in states:
            raise CommandError(f"{printable(key)} is {record.state}, not {' or '.join(states)}", ExitCode.NOT_CAPTIONED)
        yield record


def retry(stack: Stack, record: Record) -> None:
    """Put a failed upload back on the uploads queue."""
    revisit = Revisit(upload=record.upload, reason="redrive", seen=record.updated_at)
    Queues(stack.client("sqs")).send(stack.output("UploadsQueueUrl"), revisit)


def empty_dead_letters(stack: Stack, *, dry_run: bool = False) -> list[Moved]:
    """Move every dead-letter queue's messages back; AWS does so in the background.

    The queue of the bucket's rule goes back by hand: StartMessageMoveTask only knows queues that fail to a queue.
    """
    moved = [_start_moving(stack, url, name, dry_run) for name, url in dead_letter_queues(stack)]
    # Rules and functions put letters of doors there too, which have no queue of their own to go back to.
    moved += [_start_moving(stack, url, name, dry_run, back=queue) for name, url, queue in doors(stack)]
    return [*moved, _return_events(stack, dry_run)]


def doors(stack: Stack) -> list[tuple[str, str, str]]:
    """Return name, URL of the dead letters and URL of the queue, of each door that is open."""
    outputs = stack.nested_outputs(DOORS)
    return [
        (name, outputs[letters], outputs[f"{output}QueueUrl"])
        for output, name in DOORS_QUEUES.items()
        if (letters := f"{output}DeadLetterQueueUrl") in outputs
    ]


def dead_letter_queues(stack: Stack) -> Iterator[tuple[str, str]]:
    """Yield name and URL of each dead-letter queue on the way of an upload, and of the bulk lane where there is one."""
    for output, name in DEAD_LETTER_QUEUES.items():
        yield name, stack.output(output)
    if stack.parameters.get("Bulk", "off") != "off":
        yield "bulk", stack.nested("BulkLane", "BulkDeadLetterQueueUrl")


def depth(sqs: Any, url: str) -> dict[str, int]:
    """Messages of a queue, about: `visible`, `in_flight`, `delayed`."""
    names = {
        "visible": "ApproximateNumberOfMessages",
        "in_flight": "ApproximateNumberOfMessagesNotVisible",
        "delayed": "ApproximateNumberOfMessagesDelayed",
    }
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names.values()))
    return {name: int(answer["Attributes"][attribute]) for name, attribute in names.items()}


def _start_moving(stack: Stack, url: str, name: str, dry_run: bool, back: str | None = None) -> Moved:
    from botocore.exceptions import ClientError

    sqs = stack.client("sqs")
    messages = depth(sqs, url)["visible"]
    if not messages or dry_run:
        return Moved(name, messages, started=False)
    arn = _arn(sqs, url)
    destination = {} if back is None else {"DestinationArn": _arn(sqs, back)}
    try:
        sqs.start_message_move_task(SourceArn=arn, **destination)
    except ClientError as error:
        # One move per queue may run at a time: an earlier one that still does is what was asked for.
        if any(task.get("Status") == "RUNNING" for task in _tasks(sqs, arn)):
            return Moved(name, messages, started=True)
        details = error.response.get("Error", {})
        return Moved(name, messages, started=False, problem=f"{details.get('Code')}: {details.get('Message')}")
    return Moved(name, messages, started=True)


def _arn(sqs: Any, url: str) -> str:
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def _tasks(sqs: Any, arn: str) -> list[dict[str, Any]]:
    from botocore.exceptions import ClientError

    try:
        return list(sqs.list_message_move_tasks(SourceArn=arn).get("Results", []))
    except ClientError:
        return []


def _return_events(stack: Stack, dry_run: bool) -> Moved:
    sqs = stack.client("sqs")
    url, back = stack.output(RULE_QUEUE), stack.output("UploadsQueueUrl")
    waiting = depth(sqs, url)["visible"]
    if not waiting or dry_run:
        return Moved("rule", waiting, started=False)
    moved = 0
    # Bounded: what arrives meanwhile fails for a reason of its own.
    while moved < waiting:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        if not messages:
            break
        for message in messages:
            sqs.send_message(QueueUrl=back, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            moved += 1
    return Moved("rule", waiting, started=moved > 0)
