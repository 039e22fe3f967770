"""What becomes of a batch, without knowing where batches are kept or who answers them.

    formed ── ready ── submitting ── submitted ── ended ── closed

A batch is formed of lines that wait; its lines then stop waiting (ready), and its file is uploaded. That it is about to
be created is stored before it is asked for (submitting): whoever finds it so cannot know whether the endpoint took it,
and looks for a batch of that very file before another is created. Its results are taken line by line, and what no
line answers goes the ordinary way, before its uploads' leases end.

Why nothing is paid twice: a line is in one batch, since lines stop waiting before the batch's file is sent; a batch
is created once, or once more when a batch of its file could have been listed for SETTLING_SECONDS and is not; and a
line's upload is worked at by nobody else while its lease holds, which outlasts the batch.

It is written as a generator that yields one step at a time and is sent its answer, so that a test can run the very
same code through a crash at every step and every answer of the endpoint.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from captions.cost import Cost
from captions.timestamps import timestamp

BatchState = Literal["formed", "ready", "submitting", "submitted", "ended", "closed"]

LEAST_SECONDS = 1_800.0
"""With less time left than this, a batch is not submitted any more."""
SETTLING_SECONDS = 900.0
"""After how long a batch that was created without an answer is listed for certain."""
CANCELLING_SECONDS = 1_800.0
"""How long a batch that is overdue may take to be cancelled, so that what it has answered is not lost."""
READING_SECONDS = 2_700.0
"""How long after its deadline a batch's results may still be read and handed out."""
HANDING_SECONDS = 3_600.0
"""How long the uploads' leases outlast their batch's deadline: cancelling, reading its results, returning the rest."""


@dataclass(frozen=True)
class Batch:
    """One batch as it is stored. `at` and `deadline` are in epoch seconds."""

    id: str
    state: BatchState
    model: str
    """The catalogue's name."""
    endpoint: str
    """Its base URL."""
    lines: int
    size: int
    """Bytes of its lines."""
    deadline: float
    """Until when it may take; what it has not answered then goes the ordinary way."""
    at: float
    """When it came to its state, or when it was last asked for."""
    file_id: str | None = None
    remote_id: str | None = None
    submitted_at: str | None = None
    """ISO 8601: when the calls of its lines began, as the ledgers have it."""
    outputs: tuple[str, ...] = ()
    """The endpoint's files with its results and errors."""
    taken: int = 0
    """How many lines of these files were handed out."""
    failed: tuple[str, ...] = ()
    """The lines whose results could not be handed out: they are tried once more, and then go the ordinary way."""
    doubtful: bool = False
    """Whether what no result answers may have been billed all the same."""
    reason: str | None = None
    """Why it ended without results, or with a part of them."""
    gathered_at: float = 0.0
    """When the first of its lines began to wait."""
    spent: Cost = field(default_factory=Cost)
    """What the lines that were handed out cost, as far as it is known."""
    saved: Cost = field(default_factory=Cost)
    """What they would have cost by themselves, beyond that."""
    factor: Decimal | None = None
    """The part of its prices that the model's calls cost in it: as the catalogue said when it was formed."""


# -- steps; each may stop half way in a crash, and can be taken again ------------------------------------------------


@dataclass(frozen=True)
class Detach:
    """Have the batch's lines wait no longer."""

    batch: Batch


@dataclass(frozen=True)
class MoveBatch:
    """Store a batch in place of what was seen, if that still stands; answers whether it did."""

    seen: Batch
    batch: Batch


@dataclass(frozen=True)
class UploadFile:
    """Send the batch's file; answers its id, Postponed or Refusal."""

    batch: Batch


@dataclass(frozen=True)
class CreateBatch:
    """Have the endpoint begin; answers the remote id, Unconfirmed, Postponed or Refusal."""

    batch: Batch


@dataclass(frozen=True)
class Find:
    """Look for a batch that was made of this file; answers its remote id, None or Postponed."""

    batch: Batch


@dataclass(frozen=True)
class Retrieve:
    """Ask how the batch is; answers Running, Finished or Postponed.

    An endpoint that does not know the batch may know it again: until the deadline no line is paid for elsewhere.
    """

    batch: Batch


@dataclass(frozen=True)
class Cancel:
    """Ask the endpoint to stop; answers nothing."""

    batch: Batch


@dataclass(frozen=True)
class HandOut:
    """Hand out some of the results behind those that were; answers HandedOut, Postponed where they cannot be read or
    handed out now, or None where there is no time left.
    """

    batch: Batch


@dataclass(frozen=True)
class ReturnRest:
    """Send the uploads that no line answers the ordinary way; answers whether that was all of them, or Postponed."""

    batch: Batch


@dataclass(frozen=True)
class Discard:
    """Remove what was kept of the batch's lines."""

    batch: Batch


@dataclass(frozen=True)
class RemoveFiles:
    """Have the endpoint remove the batch's files, which hold the pictures; answers nothing."""

    batch: Batch


BatchStep = (
    Detach | MoveBatch | UploadFile | CreateBatch | Find | Retrieve | Cancel | HandOut | ReturnRest | Discard
    | RemoveFiles
)  # fmt: skip


# -- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postponed:
    """It did not work now, certainly without effect, and may later; `reason` says why."""

    reason: str


@dataclass(frozen=True)
class Refusal:
    """It will never work, certainly without effect."""

    reason: str


@dataclass(frozen=True)
class Unconfirmed:
    """Whether it had an effect is not known."""


@dataclass(frozen=True)
class Running:
    """The endpoint still works at it, as far as it says; `outputs` are files that it has already."""

    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """It has ended: `outputs` are the files with what it answered, `reason` is None where that is everything."""

    outputs: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True)
class HandedOut:
    """So many lines of results are done with (0: there are no more), beside those that could not be handed out; what
    the lines cost, and would have cost by themselves beyond that.
    """

    lines: int
    failed: tuple[str, ...] = ()
    spent: Cost = field(default_factory=Cost)
    saved: Cost = field(default_factory=Cost)


Steps = Generator[BatchStep, Any, Batch]


def advance(batch: Batch, now: Callable[[], float]) -> Steps:
    """Take a batch as far as it goes now, and return it as it then stands."""
    if batch.state == "formed":
        yield Detach(batch)
        batch = yield from _moved(batch, now, state="ready")
    if batch.state == "ready":
        batch = yield from _submit(batch, now)
    elif batch.state == "submitting":
        batch = yield from _recover(batch, now)
    if batch.state == "submitted":
        batch = yield from _poll(batch, now)
    if batch.state == "ended":
        batch = yield from _take(batch, now)
    return batch


class OvertakenError(Exception):
    """Somebody else moved the batch meanwhile; they go on with it."""


def _moved(batch: Batch, now: Callable[[], float], **changes: Any) -> Steps:
    changed = replace(batch, at=now(), **changes)
    if not (yield MoveBatch(batch, changed)):
        raise OvertakenError(batch.id)
    return changed


def _too_late(batch: Batch, now: Callable[[], float]) -> bool:
    return now() >= batch.deadline - LEAST_SECONDS


def _submit(batch: Batch, now: Callable[[], float]) -> Steps:
    if _too_late(batch, now):
        return (yield from _moved(batch, now, state="ended", reason=batch.reason or "not submitted in time"))
    file_id = batch.file_id
    if file_id is None:
        uploaded = yield UploadFile(batch)
        if isinstance(uploaded, Refusal):
            return (yield from _moved(batch, now, state="ended", reason=uploaded.reason))
        if isinstance(uploaded, Postponed):
            return replace(batch, reason=uploaded.reason)
        file_id = uploaded
    # The same for all tries: a ledger tells calls apart by when they began.
    began = batch.submitted_at or timestamp(now())
    moved = yield from _moved(batch, now, state="submitting", file_id=file_id, submitted_at=began)
    return (yield from _create(moved, now))


def _create(batch: Batch, now: Callable[[], float]) -> Steps:
    """Have a batch begin that is stored as about to."""
    created = yield CreateBatch(batch)
    match created:
        case Unconfirmed():
            return batch
        case Postponed(reason):
            return (yield from _moved(batch, now, state="ready", reason=reason))
        case Refusal(reason):
            return (yield from _moved(batch, now, state="ended", reason=reason))
    return (yield from _moved(batch, now, state="submitted", remote_id=created, reason=None))


def _recover(batch: Batch, now: Callable[[], float]) -> Steps:
    """Go on with a batch of which nobody knows whether the endpoint took it."""
    remote = yield Find(batch)
    if isinstance(remote, str):
        return (yield from _moved(batch, now, state="submitted", remote_id=remote))
    settled = now() >= batch.at + SETTLING_SECONDS
    if isinstance(remote, Postponed):
        # An endpoint that lists nothing until the deadline will not tell either whether it took it.
        overdue = now() >= batch.deadline
        return (yield from _lost(batch, now, remote.reason)) if overdue else batch
    if not settled:
        return batch
    if _too_late(batch, now):
        return (yield from _lost(batch, now, "its creation was never confirmed"))
    return (yield from _create((yield from _moved(batch, now)), now))


def _lost(batch: Batch, now: Callable[[], float], reason: str, outputs: tuple[str, ...] = ()) -> Steps:
    """Give a batch up of which nobody knows what the endpoint did, and billed."""
    return (yield from _moved(batch, now, state="ended", reason=reason, outputs=outputs, doubtful=True))


def _poll(batch: Batch, now: Callable[[], float]) -> Steps:
    status = yield Retrieve(batch)
    if isinstance(status, Finished):
        # What a batch lacks that says it is complete was answered, and lost.
        ended = {"outputs": status.outputs, "reason": status.reason, "doubtful": status.reason is None}
        return (yield from _moved(batch, now, state="ended", **ended))
    if now() >= batch.deadline + CANCELLING_SECONDS:
        outputs = status.outputs if isinstance(status, Running) else ()
        return (yield from _lost(batch, now, "it did not end by its deadline", outputs))
    if isinstance(status, Running) and now() >= batch.deadline:
        yield Cancel(batch)
    return batch


def _take(batch: Batch, now: Callable[[], float]) -> Steps:
    while batch.outputs:
        handed = yield HandOut(batch)
        if handed is None:
            return batch
        if isinstance(handed, Postponed):
            if now() < batch.deadline + READING_SECONDS:
                return batch
            batch = yield from _lost(batch, now, handed.reason)
            break
        if not handed.lines:
            break
        counted = {"taken": batch.taken + handed.lines, "failed": (*batch.failed, *handed.failed)}
        # Results that are taken again come to the same sums: what they cost is stored with how many were taken.
        sums = {"spent": batch.spent + handed.spent, "saved": batch.saved + handed.saved}
        batch = yield from _moved(batch, now, **counted, **sums)
    if (yield ReturnRest(batch)) is not True:
        return batch
    yield Discard(batch)
    closed = yield from _moved(batch, now, state="closed")
    yield RemoveFiles(batch)
    return closed
