"""What the command knows of a stack's bulk lane: its queue, what waits for a batch, and its batches."""

import time
from dataclasses import dataclass
from typing import Any

from captions.bulk.batch_table import BatchTable, WaitingCount
from captions.bulk.protocol import Batch
from captions.config.policy import Policy
from captions.gateway.catalogue import Catalogue, first_in_batches
from captions.timestamps import timestamp
from captions_cli import redriving
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack


@dataclass(frozen=True)
class Lane:
    """What waits for a batch, and the batches: those on their way and those closed in the last day, oldest first."""

    waiting: WaitingCount
    batches: tuple[Batch, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON: times as ISO 8601, dollars as decimal text where they are known in full."""
        waiting, since = vars(self.waiting), self.waiting.since
        return {
            "waiting": waiting | {"since": None if since is None else timestamp(since)},
            "batches": [_plain(batch) for batch in self.batches],
        }


_TIMES = ("gathered_at", "deadline", "at")
_SHOWN = ("id", "state", "model", "endpoint", "lines", "taken", "remote_id", "reason")


def _plain(batch: Batch) -> dict[str, Any]:
    values = {name: getattr(batch, name) for name in _SHOWN} | {
        name: timestamp(getattr(batch, name)) for name in _TIMES
    }
    return values | batch.spent.pair() | batch.saved.pair("saved")


def has(stack: Stack) -> bool:
    """Whether the stack was made with a bulk lane."""
    return stack.parameters.get("Bulk", "off") != "off"


def drains(stack: Stack) -> bool:
    """Whether the lane only brings to an end what it has."""
    return stack.parameters.get("Bulk") == "draining"


def require(stack: Stack) -> None:
    """Raise CommandError where the stack has no bulk lane that takes anything new."""
    if drains(stack) or not has(stack):
        why = "is draining its bulk lane" if drains(stack) else "has no bulk lane"
        raise CommandError(
            f"{stack.where} {why}; deploy it with the parameter Bulk=batches (docs/bulk.md)", ExitCode.USAGE
        )


def require_drained(stack: Stack) -> None:
    """Raise CommandError where batches are under way, which would be paid for again without the lane, or where jobs
    are among its dead letters, which would be lost with it.
    """
    lane = look(stack)
    if lane is None:
        return
    open_batches = [batch for batch in lane.batches if batch.state != "closed"]
    queues = depths(stack)
    queued, dead = (sum(queues[name].values()) for name in ("Bulk", "BulkDeadLetter"))
    if dead:
        raise CommandError(
            f"{stack.where}: {dead} jobs are in the bulk lane's dead-letter queue, which goes with the lane: "
            "`captions redrive` puts them back (docs/bulk.md)",
            ExitCode.USAGE,
        )
    if open_batches or lane.waiting.number or queued:
        raise CommandError(
            f"{stack.where}: pictures that wait for a batch: {queued + lane.waiting.number}, batches under way: "
            f"{len(open_batches)}. They would be paid for again; deploy with Bulk=draining first, and with Bulk=off "
            "when `captions status` has none left (docs/bulk.md)",
            ExitCode.USAGE,
        )


def depths(stack: Stack) -> dict[str, dict[str, int]]:
    """The messages of the lane's queues by name; nothing where there is no lane."""
    if not has(stack):
        return {}
    sqs = stack.client("sqs")
    outputs = {"Bulk": "BulkQueueUrl", "BulkDeadLetter": "BulkDeadLetterQueueUrl"}
    return {name: redriving.depth(sqs, stack.nested("BulkLane", output)) for name, output in outputs.items()}


def look(stack: Stack) -> Lane | None:
    """What the lane holds now; None where there is none."""
    if not has(stack):
        return None
    table = BatchTable(stack.client("dynamodb"), stack.output("ControlTableName"), None, "")
    return Lane(table.count_waiting(), tuple(table.recent(time.time())))


def without_batches(policy: Policy, catalogue: Catalogue) -> dict[str, str]:
    """The tiers whose pictures go the ordinary way, by name, with the first model that sees: none takes batches, or
    each costs more in them than that one by itself.
    """
    chains = {name: [catalogue.models.get(model) for model in tier.models] for name, tier in policy.tiers.items()}
    seeing = {
        name: [
            model
            for model in chain
            if model is not None and model.enabled and model.chats and "image" in model.modalities
        ]
        for name, chain in chains.items()
    }
    return {name: models[0].name for name, models in seeing.items() if models and first_in_batches(models) is None}
