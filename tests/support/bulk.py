"""The bulk lane's logic on moto, against the local endpoint's batches over real HTTP."""

import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from PIL import Image

from captions.bulk.batch_table import BatchTable
from captions.bulk.lane import BulkLane, Ran
from captions.bulk.protocol import Batch
from captions.config.function_environments import BulkSettings
from captions.gateway import Endpoint, Gateway
from captions.gateway.batch_api import BatchApi, RemoteBatch
from captions.gateway.catalogue import load
from captions.queues import Job
from captions_cli.local.model_endpoint import LocalEndpoint
from support.pipeline import Aws, Dedupe
from support.worker import IMAGE_MODELS, Workshop, workshop

MODEL = IMAGE_MODELS[0]
IN_BATCHES = f'[models."{MODEL}"]\ninput_price = 0.3\nbatch_factor = 0.5'
CATALOGUE = load(IN_BATCHES)
BUCKET = "bulk-lines"
GATHER_SECONDS = 600.0


def noise(seed: int) -> bytes:
    """A small picture that is like no other."""
    pixels = random.Random(seed).randbytes(48 * 48 * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (48, 48), pixels).resize((96, 96)).save(out, "PNG")
    return out.getvalue()


@dataclass
class BulkShop:
    """Everything between an upload and its caption from a batch; runs the queues and the schedule by hand."""

    shop: Workshop
    lane: BulkLane
    bulk_queue: str
    endings: Counter[str] = field(default_factory=Counter)

    @property
    def dedupe(self) -> Dedupe:
        return self.shop.dedupe

    def upload(self, key: str, data: bytes) -> str:
        """Upload something whose caption nobody waits for."""
        event = self.dedupe.aws.put(key, data)
        event["detail"]["lane"] = "bulk"
        return self.dedupe.deliver(event)

    def queued(self) -> list[Job]:
        return self.dedupe.jobs(self.bulk_queue)

    def gather(self, jobs: list[Job] | None = None) -> list[str]:
        """Deliver what stands on the bulk queue."""

        async def batch() -> list[str]:
            deadline = time.monotonic() + 60
            return [await self.lane.gather(job, deadline=deadline) for job in (self.queued() if jobs is None else jobs)]

        return asyncio.run(batch())

    def look(self, seconds: float = 0.0) -> Ran | None:
        """Look after the batches, so many seconds later."""
        self.dedupe.clock.at += seconds

        async def once() -> Ran | None:
            try:
                return await self.lane.run(deadline=time.monotonic() + 120)
            finally:
                await self.lane.api.aclose()
                await self.lane.worker.gateway.aclose()

        return asyncio.run(once())

    def submit(self) -> None:
        """Have a batch begin, and see nothing of its end yet: on a busy machine the endpoint may be the quicker one."""
        retrieve = self.lane.api.retrieve

        async def running(base_url: str, batch: str) -> RemoteBatch:
            return RemoteBatch(batch, "running")

        self.lane.api.retrieve = running  # type: ignore[method-assign]
        try:
            self.look(GATHER_SECONDS)
        finally:
            self.lane.api.retrieve = retrieve  # type: ignore[method-assign]
        assert [batch.state for batch in self.batches()] == ["submitted"]

    def settle(self, looks: int = 60, seconds: float = 60.0) -> None:
        """Gather, and look again and again until nothing waits and no batch is open; workers take what comes back."""
        for _ in range(looks):
            self.gather()
            ran = self.look(seconds)
            self.endings.update(str(ending) for ending in self.shop.run_all(self.shop.jobs()))
            if ran is not None and not ran.open and not ran.waiting:
                return
            time.sleep(0.05)
        raise AssertionError(f"still open: {self.batches()}")

    def batches(self) -> list[Batch]:
        return self.lane.table.batches()

    def payments(self) -> Counter[str]:
        """How often each picture was paid for, in batches and by calls, by its digest as the endpoint saw it."""
        return Counter(call["media_sha256"] for call in self.shop.paid())

    def kept(self) -> list[str]:
        """What lies in the lane's bucket."""
        return [item["Key"] for item in self.dedupe.aws.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def bulk_shop(aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint, **more: Any) -> BulkShop:
    """Build the lane on the same tables as dedupe and the worker."""
    queue = aws.sqs.create_queue(QueueName="bulk")["QueueUrl"]
    aws.s3.create_bucket(Bucket=BUCKET)
    dedupe.intake.settings = dedupe.intake.settings.model_copy(update={"bulk_queue_url": queue})
    shop = workshop(aws, dedupe, endpoint)
    made = shop.worker.settings.model_dump() | {"bulk_queue_url": queue, "bulk_bucket": BUCKET, **more}
    settings = BulkSettings(**{"bulk_gather_seconds": GATHER_SECONDS, **made})
    gateway = Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda fresh: "a key", catalogue=CATALOGUE)
    shop.worker.gateway = gateway
    worker = type(shop.worker)(
        settings=settings,
        records=dedupe.records,
        objects=shop.worker.objects,
        neighbours=dedupe.neighbours,
        queues=shop.worker.queues,
        notifier=shop.worker.notifier,
        gateway=gateway,
        now=dedupe.clock,
        progress=shop.worker.progress,
    )
    table = BatchTable(aws.dynamodb, "control", aws.s3, BUCKET)
    lane = BulkLane(settings, worker, table, BatchApi(lambda fresh: "a key", [endpoint.url]), CATALOGUE)
    return BulkShop(shop, lane, queue)


class Killed(BaseException):
    """The function's process was killed."""


class Killer:
    """Kills a look at the batches before or after one of its calls of AWS and of the endpoint, counted from 1."""

    def __init__(self, shop: BulkShop, patch: pytest.MonkeyPatch) -> None:
        self._shop = shop
        self._armed = False
        self._calls = 0
        self._at = (0, "")
        aws = shop.dedupe.aws
        for client in (aws.dynamodb, aws.s3, aws.sqs, aws.events):
            patch.setattr(client, "_make_api_call", self._guarded(client._make_api_call))
        asked = shop.lane.api._call

        async def asking(*arguments: Any, **named: Any) -> Any:
            mine = self._begun()
            answer = await asked(*arguments, **named)
            self._ended(mine)
            return answer

        patch.setattr(shop.lane.api, "_call", asking)

    def aim(self, call: int, when: Literal["before", "after"]) -> None:
        """Choose the call of the looks from now on."""
        self._calls, self._at = 0, (call, when)

    def look(self, seconds: float) -> Ran | None:
        """Look after the batches; raises Killed once."""
        self._armed = True
        try:
            return self._shop.look(seconds)
        except Killed:
            self._at = (0, "")
            raise
        finally:
            self._armed = False

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            mine = self._begun()
            answer = call(*arguments, **named)
            self._ended(mine)
            return answer

        return made

    def _begun(self) -> int:
        if not self._armed:
            return 0
        self._calls += 1
        if (self._calls, "before") == self._at:
            raise Killed
        return self._calls

    def _ended(self, mine: int) -> None:
        if (mine, "after") == self._at:
            raise Killed
