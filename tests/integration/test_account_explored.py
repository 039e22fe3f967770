"""The account of an upload's calls while others overwrite it, delete it or end it between any two of its writes.

The real worker writes its record on DynamoDB. Before one of its writes, or after one whose answer is lost so that the
client makes it again, others do their work; or the worker is killed there. Whatever the order, each call that was paid
is accounted for once; those of a killed worker at most once.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from unittest.mock import MagicMock

import pytest

from captions.config.function_environments import WorkerSettings
from captions.cost import Cost
from captions.gateway import Exhausted, Gateway, Refused
from captions.inference.candidate import Noted, restored
from captions.inference.escalation import Answered
from captions.pipeline.caption import Worker
from captions.pipeline.delivery import Delivery
from captions.queues import Job
from captions.records.attempts import paid
from captions.records.record import ClaimRef, Provenance, Reason, Record, Result
from captions.records.spending import spending
from captions.records.table import Records
from captions.routing.routes import Chains
from captions.tasks import Ask
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.pipeline import Clock, captions_table_without_indexes

pytestmark = pytest.mark.deep

ASSET, LEASE = "media/a.jpg", 1_000.0
Ends = Literal["captioned", "blocked", "deferred"]
Strikes = Literal["before", "lost", "killed"]


class KilledError(BaseException):
    """The sandbox is gone: nothing of ours catches it."""


class Struck:
    """A DynamoDB client at one of whose updates something happens; `twice`: the answer to every update is lost."""

    def __init__(self, client: Any, at: int, strikes: Strikes, happening: Callable[[], None], twice: bool) -> None:
        self._client, self._at, self._strikes, self._twice = client, at, strikes, twice
        self._happening = happening
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_item(self, **update: Any) -> Any:
        mine = self.writes == self._at
        self.writes += 1
        if mine and self._strikes == "killed":
            raise KilledError
        if mine and self._strikes == "before":
            self._happening()
        if self._twice or (mine and self._strikes == "lost"):
            self._lose_answer(update)
        if mine and self._strikes == "lost":
            self._happening()
        return self._client.update_item(**update)

    def _lose_answer(self, update: dict[str, Any]) -> None:
        try:
            self._client.update_item(**update)
        except self._client.exceptions.ConditionalCheckFailedException:
            return


class Ticking(Clock):
    """A clock that no two writes read the same time from."""

    def __call__(self) -> float:
        self.at += 0.001
        return self.at


@dataclass
class Upload:
    """One object, the calls that were paid for it, and all that can happen to it."""

    client: Any
    twice: bool
    clock: Clock = field(default_factory=Ticking)
    versions: int = 0
    charged: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client.delete_item(TableName="captions", Key={"asset": {"S": ASSET}})
        self.table = Records(Struck(self.client, -1, "before", lambda: None, self.twice), "captions")
        self.overwritten()
        self.as_seen = self.record

    @property
    def record(self) -> Record:
        record = self.table.get(ASSET)
        assert record is not None
        return record

    def call(self) -> dict[str, Any]:
        """Pay for a call. Every one has another price, one in three none that is published."""
        number = len(self.charged)
        price = Cost(unpriced_tokens=2**number) if number % 3 == 2 else Cost(dollars=Decimal(2**number).scaleb(-6))
        self.charged.append({"model": "m", "outcome": "ok", "started_at": f"at {number}", **price.fields()})
        return self.charged[-1]

    def work(self, ends: Ends, records: Records | None = None, upload: ObjectVersion | None = None) -> None:
        """Have a worker make two calls and note the first of them in between."""
        job = Job(
            upload=upload or self.record.upload, kind="image", media_type="image/jpeg", ask=Ask(task="caption"),
            claim=ClaimRef(id="claim", generation=1), queued_at=self.clock(),
        )  # fmt: skip
        worker = Worker(
            SETTINGS, records or self.table, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock(Gateway),
            now=self.clock,
        )  # fmt: skip
        worker._handover = MagicMock()

        async def read(job: Job) -> tuple[None, bytes]:
            return None, b""

        async def ask(delivery: Delivery, *_: Any) -> tuple[Answered, Chains]:
            delivery.ledger.add([self.call()])
            noted = await delivery.note(job.ask, Noted())
            if noted:
                delivery.ledger.add([self.call()])
            if ends == "blocked":
                raise Refused("no")
            if ends == "deferred" or not noted:
                raise Exhausted("later")
            return ANSWERED, Chains("t", ("m",))

        worker.read, worker._ask = read, ask  # type: ignore[method-assign, assignment]
        asyncio.run(worker.run(job, deadline=time.monotonic() + 60))

    def overwritten(self) -> None:
        """Another version is uploaded."""
        self.versions += 1
        version = ObjectVersion(bucket="media", key="a.jpg", sequencer=pad_sequencer(f"{self.versions:04}"))
        self.table.accept(version, now=self.clock(), due=self.clock())

    def deleted(self) -> None:
        """The object is deleted."""
        self.versions += 1
        version = ObjectVersion(bucket="media", key="a.jpg", sequencer=pad_sequencer(f"{self.versions:04}"))
        self.table.delete(version, now=self.clock())

    def captioned_by_another(self) -> None:
        """A second worker takes the first one for dead."""
        self.clock.at += LEASE
        self.work("captioned")

    def deferred_by_another(self) -> None:
        """A second worker takes the first one for dead, and puts the job back."""
        self.clock.at += LEASE
        self.work("deferred")

    def copied(self) -> None:
        """Dedupe finds the caption of a copy; it read the record before the worker began."""
        provenance = Provenance(copied_from="b", **paid(self.as_seen.attempts))
        about: dict[str, Any] = {"source": "cache", "provenance": provenance, "result": RESULT}
        self.table.finish(self.as_seen.upload, "captioned", now=self.clock(), **about)

    def stalled(self) -> None:
        """The sweep gives the upload up."""
        self.clock.at += LEASE
        self.table.end_stalled(self.record, now=self.clock(), reason=Reason(code="stalled", message="it stood still"))

    def again(self) -> None:
        """What has ended is sent on its way once more."""
        if self.record.state in ("failed", "blocked"):
            self.table.reopen(self.record, now=self.clock(), due=self.clock())
        elif self.record.state == "captioned":
            self.table.recaption(self.record, "force", now=self.clock(), due=self.clock())


RESULT = Result(text="A barn.", language="en", task="caption")
SETTINGS = WorkerSettings(
    captions_table="captions", fingerprints_table="f", uploads_queue_url="u", image_queue_url="i", audio_queue_url="a",
    event_bus_name="b", control_table="control", endpoint_urls=("http://127.0.0.1:1",), endpoint_secret_arn="arn",
)  # fmt: skip
CANDIDATE = restored(
    {"role": "first", "tier": "t", "text": "A barn.", "model": "m", "reported_model": "m", "endpoint": "e",
     "cost_source": "computed", "transcribed": False, "output": {"text": "A barn.", "language": "en"}, "problems": [],
     "repaired": False, "score": 0.9, "confidence": 0.9}
)  # fmt: skip
assert CANDIDATE.reading.output is not None
ANSWERED = Answered(CANDIDATE.reading.output, CANDIDATE, (CANDIDATE,), 1)
HAPPENINGS = ("overwritten", "deleted", "captioned_by_another", "deferred_by_another", "copied", "stalled", "again")
WRITES = 4
"""Of a worker: it takes the lease, before it pays; notes a call, ends the upload, accounts for what came too late."""


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    with captions_table_without_indexes() as client:
        yield client


def explore(dynamodb: Any, happenings: tuple[str, ...], ends: Ends, *, twice: bool) -> None:
    """Let others do this, in this order, at each write of a worker."""
    for at, strikes in itertools.product(range(1, WRITES), ("before", "lost", "killed")):
        upload = Upload(dynamodb, twice)

        def happen(upload: Upload = upload) -> None:
            for happening in happenings:
                getattr(upload, happening)()

        version = upload.record.upload
        mine = Struck(dynamodb, at, strikes, happen, twice)  # type: ignore[arg-type]
        try:
            upload.work(ends, Records(mine, "captions"), version)
            lost = 0
        except KilledError:
            lost = len(upload.charged)
            happen()
        what = f"{ends}, {at}: {strikes}, {happenings}, {twice=}"
        check(upload, lost, what)
        upload.overwritten()
        check(upload, lost, f"{what}, overwritten")


def check(upload: Upload, lost: int, what: str) -> None:
    """Every call is in the account once; the first ones, of a worker that was killed, perhaps not at all.

    Each is another power of two: sums of as many calls as they have ones hold no call twice.
    """
    account = spending([upload.record], "day")[1]
    dollars, tokens = int(account.cost.dollars.scaleb(6)), account.cost.unpriced_tokens
    assert (dollars & tokens, (dollars | tokens).bit_count()) == (0, account.calls), f"{what}: {account}"
    held = {number for number in range(len(upload.charged)) if (dollars | tokens) >> number & 1}
    assert held | set(range(lost)) == set(range(len(upload.charged))), f"{what}: {held}"
    assert Cost.sum(Cost.of_call(upload.charged[number]) for number in held) == account.cost, what


@pytest.mark.parametrize(
    ("ends", "twice"),
    [("captioned", False), ("blocked", False), ("deferred", True)],
)
def test_each_call_is_accounted_for_once(dynamodb: Any, ends: Ends, twice: bool) -> None:
    for happening in ("overwritten", "deleted", "captioned_by_another", "copied"):
        explore(dynamodb, (happening,), ends, twice=twice)


@pytest.mark.parametrize("ends", ["captioned", "blocked", "deferred"])
@pytest.mark.parametrize("first", HAPPENINGS)
def test_each_call_is_accounted_for_once_whatever_two_things_happen(dynamodb: Any, ends: Ends, first: str) -> None:
    for number, second in enumerate(HAPPENINGS):
        explore(dynamodb, (first, second), ends, twice=number % 2 == 0)
    explore(dynamodb, (first,), ends, twice=True)
