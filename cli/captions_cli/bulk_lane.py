"""What the command knows of a stack's bulk lane: its queue, and the batches that are not closed yet."""

from dataclasses import dataclass

from captions.bulk.batch_table import BatchTable
from captions.config.policy import Policy
from captions.gateway.catalogue import Catalogue
from captions.timestamps import timestamp
from captions_cli import redriving
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack


@dataclass(frozen=True)
class OpenBatch:
    """One batch on its way."""

    id: str
    state: str
    model: str
    lines: int
    taken: int
    deadline: str
    remote_id: str | None
    reason: str | None


def has(stack: Stack) -> bool:
    """Whether the stack was made with a bulk lane."""
    return stack.parameters.get("Bulk", "off") != "off"


def require(stack: Stack) -> None:
    """Raise CommandError where the stack has no bulk lane."""
    if not has(stack):
        raise CommandError(
            f"{stack.where} has no bulk lane; deploy it with the parameter Bulk=batches (docs/bulk.md)", ExitCode.USAGE
        )


def depths(stack: Stack) -> dict[str, dict[str, int]]:
    """The messages of the lane's queues by name; nothing where there is no lane."""
    if not has(stack):
        return {}
    sqs = stack.client("sqs")
    outputs = {"Bulk": "BulkQueueUrl", "BulkDeadLetter": "BulkDeadLetterQueueUrl"}
    return {name: redriving.depth(sqs, stack.nested("BulkLane", output)) for name, output in outputs.items()}


def batches(stack: Stack) -> list[OpenBatch]:
    """The batches that are not closed yet, the one with the nearest deadline first."""
    if not has(stack):
        return []
    table = BatchTable(stack.client("dynamodb"), stack.output("ControlTableName"), None, "")
    return [
        OpenBatch(
            id=batch.id,
            state=batch.state,
            model=batch.model,
            lines=batch.lines,
            taken=batch.taken,
            deadline=timestamp(batch.deadline),
            remote_id=batch.remote_id,
            reason=batch.reason,
        )
        for batch in table.batches()
        if batch.state != "closed"
    ]


def without_batches(policy: Policy, catalogue: Catalogue) -> dict[str, str]:
    """The tiers whose first model takes no batches, by name, with that model: their pictures go the ordinary way."""
    firsts = {name: tier.models[0] for name, tier in policy.tiers.items()}
    known = {name: catalogue.models.get(model) for name, model in firsts.items()}
    return {
        name: firsts[name]
        for name, model in known.items()
        if model is not None and "image" in model.modalities and model.batch_factor is None
    }
