"""The workers' logic on moto, against the local endpoint over real HTTP."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from captions.completion_events import Notifier
from captions.config.function_environments import WorkerSettings
from captions.gateway import Endpoint, Gateway
from captions.gateway.catalogue import load
from captions.inference.part_store import ProgressTable
from captions.pipeline.caption import JobEnding, Worker
from captions.queues import Job, Queues
from captions.records.record import Record
from captions.uploads.s3_objects import Objects
from captions_cli.local.model_endpoint import LocalEndpoint
from support.pipeline import Aws, Dedupe

IMAGE_MODELS = ("Qwen/Qwen3-VL-8B-Instruct", "GLM-4.6V", "GPT-4o")
AUDIO_MODELS = ("Qwen/Qwen3-Omni-30B-A3B-Instruct",)


@dataclass
class Workshop:
    """Everything between a job and its caption; runs the queues by hand."""

    dedupe: Dedupe
    worker: Worker
    endpoint: LocalEndpoint

    def run(self, job: Job, *, seconds: float = 60.0) -> JobEnding:
        """Deliver one job. Raises what kept it from its ending."""
        (ending,) = self.run_all([job], seconds=seconds)
        if isinstance(ending, BaseException):
            raise ending
        return ending

    def run_all(self, jobs: list[Job], *, seconds: float = 60.0) -> list[JobEnding | BaseException]:
        """Deliver jobs side by side, as one batch; an error stands in for the ending it kept from."""

        async def batch() -> list[JobEnding | BaseException]:
            deadline = time.monotonic() + seconds
            try:
                return await asyncio.gather(
                    *(self.worker.run(job, deadline=deadline) for job in jobs), return_exceptions=True
                )
            finally:
                await self.worker.gateway.aclose()

        return asyncio.run(batch())

    def captioned(self, key: str, data: bytes, **options: dict[str, str]) -> Record:
        """Upload something new, caption it, and return its record."""
        self.dedupe.upload(key, data, **options)
        (job,) = self.jobs()
        assert self.run(job) == "captioned"
        return self.dedupe.record(key)

    def recaption(self, key: str, mode: str) -> str:
        """Send a captioned upload on its way once more, a minute later."""
        self.dedupe.clock.at += 60
        record = self.dedupe.record(key)
        revisit = {"type": "revisit", "reason": "recaption", "mode": mode, "seen": record.updated_at}
        return self.dedupe.deliver({**revisit, "upload": record.upload.model_dump()})

    def jobs(self) -> list[Job]:
        return self.dedupe.jobs() + self.dedupe.jobs(self.dedupe.aws.audio_queue)

    def paid(self) -> list[dict[str, Any]]:
        """The endpoint's own log of answers it gave."""
        return [request for request in self.endpoint.requests() if request["outcome"] == "ok"]


def workshop(aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint) -> Workshop:
    """Build the worker on the same tables as dedupe."""
    settings = WorkerSettings(
        **dedupe.intake.settings.model_dump(include=set(WorkerSettings.model_fields)),
        control_table="control",
        endpoint_urls=(endpoint.url,),
        endpoint_secret_arn="arn:of:a:key",
        image_models=IMAGE_MODELS,
        audio_models=AUDIO_MODELS,
    )
    worker = Worker(
        settings=settings,
        records=dedupe.records,
        objects=Objects(aws.s3),
        neighbours=dedupe.neighbours,
        queues=Queues(aws.sqs),
        notifier=Notifier(aws.events, "captions"),
        gateway=Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda fresh: "a key", catalogue=load()),
        now=dedupe.clock,
        progress=ProgressTable(aws.dynamodb, "control"),
    )
    return Workshop(dedupe, worker, endpoint)
