"""What functions that take batches from a queue share: messages side by side, those that fail reported one by one.

Powertools' batch utility does the same, and loads what reads events of forty other services: a twenty-fifth of dedupe's
cold start.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from aws_lambda_powertools.utilities.typing import LambdaContext

from captions import composition, telemetry
from captions.queues import Job

Take = Callable[[str, float], Awaitable[Mapping[str, Any]]]
"""Handles one message, its body and a deadline (time.monotonic) given, and returns what the log says of it."""
Handler = Callable[[dict[str, Any], LambdaContext], dict[str, list[dict[str, str]]]]
"""Takes an SQS event, and names the messages that are to come back (`ReportBatchItemFailures`)."""


def batch_handler(subject: str, begin: Callable[[], Take], end: Callable[[], None] | None = None) -> Handler:
    """Return a function's handler; `begin` is called for each batch, `end` after it, `subject` names its messages."""
    logger, tracer = telemetry.logger(), telemetry.tracer()
    # One loop for the life of the sandbox: connections to the endpoint stay open from one batch to the next.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    @logger.inject_lambda_context(clear_state=True)
    @tracer.capture_lambda_handler(capture_response=False)
    @telemetry.measured
    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
        take = begin()
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000

        async def handle(record: Mapping[str, Any]) -> None:
            try:
                handled = await take(record["body"], deadline)
            except Exception:
                # The batch goes on without it; its message comes back, and in the end stands in the dead-letter queue.
                logger.exception(f"{subject}_not_handled", message_id=record["messageId"])
                telemetry.count("RecordFailed")
                raise
            logger.info(f"{subject}_handled", **handled)

        async def side_by_side() -> list[BaseException | None]:
            return await asyncio.gather(*map(handle, event["Records"]), return_exceptions=True)

        try:
            outcomes = zip(event["Records"], loop.run_until_complete(side_by_side()), strict=True)
            failed = [record["messageId"] for record, error in outcomes if error is not None]
            return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
        finally:
            if end is not None:
                end()

    return cast(Handler, handler)


def jobs_handler() -> Handler:
    """Return the handler of the functions that caption: they differ in their queue, memory and layers alone."""

    def begin() -> Take:
        worker = composition.worker()

        async def take(body: str, deadline: float) -> Mapping[str, Any]:
            job = Job.model_validate_json(body)
            ending = await worker.run(job, deadline=deadline)
            return {"asset": job.upload.asset, "kind": job.kind, "ending": ending}

        return take

    def end() -> None:
        # The sandbox may be frozen now, and not wake again.
        if (spans := composition.model_spans()) is not None:
            spans.flush()

    return batch_handler("job", begin, end)
