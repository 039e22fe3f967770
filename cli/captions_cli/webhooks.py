"""The webhooks of a stack: its endpoints and how they are, a test of one, and events sent again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from captions.completion_events import SOURCE, end_event, review_event, undo_event
from captions.overrides import UnreadableOverrideError, read
from captions.records import attention
from captions.records.listing import Stage
from captions.records.record import PENDING, Record
from captions.records.table import READ_AT_ONCE
from captions.webhooks.endpoints import WebhookEndpoint, Webhooks, WebhooksError, load
from captions.webhooks.health import HEALTHY, Health, HealthTable
from captions_cli import listing
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack

PARAMETER = "Webhooks"
ENDED = tuple(state for state in listing.STATES if state not in PENDING)


@dataclass(frozen=True)
class EndpointStanding:
    """One endpoint, and what is known of it."""

    name: str
    endpoint: WebhookEndpoint
    health: Health

    @property
    def state(self) -> str:
        """In one word."""
        if self.endpoint.paused:
            return "switched off"
        if self.health.paused_at:
            return "paused"
        return "failing" if self.health.failures else "ok"


def configured(stack: Stack) -> Webhooks:
    """Return the endpoints as they are configured now. Raises CommandError where there are none, or they are broken."""
    where = stack.parameters.get(PARAMETER, "")
    if not where:
        raise CommandError(
            f"{stack.where} has no webhooks: its parameter {PARAMETER} is empty (docs/webhooks.md)",
            ExitCode.NOT_CAPTIONED,
        )
    try:
        return load(read(where, stack.client))
    except (UnreadableOverrideError, WebhooksError) as error:
        raise CommandError(str(error), ExitCode.NOT_CAPTIONED) from error


def standings(stack: Stack) -> list[EndpointStanding]:
    """Return every endpoint with what is known of it."""
    health = _health(stack).read()
    return [
        EndpointStanding(name, endpoint, health.get(name, HEALTHY))
        for name, endpoint in configured(stack).endpoints.items()
    ]


def test(stack: Stack, name: str) -> Mapping[str, Any]:
    """Have the stack send a test event to an endpoint; return `ok`, `status`, `why` and `milliseconds`.

    Raises CommandError for an endpoint that is not there.
    """
    _known(stack, name)
    answer = stack.client("lambda").invoke(
        FunctionName=f"{stack.nested('Doors', 'WebhooksFunctionName')}:live", Payload=json.dumps({"test": name})
    )
    outcome: Mapping[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise CommandError(f"the webhooks function failed: {outcome.get('errorMessage')}", ExitCode.NOT_CAPTIONED)
    return outcome


def resume(stack: Stack, name: str) -> Health | None:
    """Let events be sent again; return what was known of the endpoint, None if it was well."""
    _known(stack, name)
    return _health(stack).resume(name)


def replay(stack: Stack, name: str, since: datetime, prefix: str = "", *, dry_run: bool = False) -> int:
    """Send an endpoint what it wants of what ended since a moment, as it is known now; return how many events.

    Each event has the id that it had before: a receiver drops what it has.
    """
    endpoint = _known(stack, name)
    url, sqs = stack.nested("Doors", "WebhooksQueueUrl"), stack.client("sqs")
    sent = 0
    for event in events_since(stack, since, prefix):
        if not endpoint.wants(event["detail-type"], event["detail"]["key"]):
            continue
        sent += 1
        if not dry_run:
            sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event | {"only": [name]}))
    return sent


def events_since(stack: Stack, since: datetime, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the events of what ended or was judged since a moment, under keys that begin so, as it is known now."""
    days = (datetime.now(UTC).date() - since.date()).days + 1
    start = since.strftime("%Y-%m-%dT%H:%M:%S")
    replayed: set[str] = set()
    for record in listing.recent(stack, states=ENDED, prefix=prefix, days=max(1, days)):
        if max(record.completed_at or "", record.updated_at) >= start:
            replayed.add(record.asset)
            yield from (_event(record, kind, detail) for kind, detail in events_of(record))
    for record in _judged(stack, start, f"{stack.bucket}/{prefix}", replayed):
        yield _event(record, *review_event(record))


def _judged(stack: Stack, start: str, beginning: str, known: Collection[str]) -> Iterator[Record]:
    """Yield captions that people judged since `start`, however long before they ended; `known` are left out."""
    order = (Stage("attention", attention.partitions(attention.JUDGED), newest_first=True),)
    for _, entries in stack.listing.entries(order, limit=None):
        assets = (
            asset
            for rank, asset in entries
            if rank.rpartition("#")[2] >= start and asset.startswith(beginning) and asset not in known
        )
        while some := list(islice(assets, READ_AT_ONCE)):
            yield from (record for record in stack.listing.read(some) if record.reviewed)


def events_of(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the type and the detail of each event that tells how an upload ended and what people said since."""
    yield end_event(record)
    if record.reviewed:
        yield review_event(record)
    if record.undone is not None and record.undone[1] == record.updated_at:
        yield undo_event(record)


def _event(record: Record, kind: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": SOURCE, "detail-type": kind, "detail": detail, "time": record.updated_at}


def _known(stack: Stack, name: str) -> WebhookEndpoint:
    endpoints = configured(stack).endpoints
    if name not in endpoints:
        there_are = ", ".join(sorted(endpoints)) or "none"
        raise CommandError(f"there is no endpoint {printable(name)}; there are {there_are}", ExitCode.NOT_CAPTIONED)
    return endpoints[name]


def _health(stack: Stack) -> HealthTable:
    return HealthTable(stack.client("dynamodb"), stack.output("ControlTableName"))
