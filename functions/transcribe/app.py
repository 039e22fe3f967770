"""Takes the audio queue: recordings to be transcribed."""

import asyncio
import time
from typing import Any

from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from captions import cold_start, composition, telemetry
from captions.queues import Job

logger, tracer = telemetry.logger(), telemetry.tracer()
processor = AsyncBatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
# One loop for the life of the sandbox: connections to the endpoint stay open from one batch to the next.
asyncio.set_event_loop(asyncio.new_event_loop())


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@telemetry.measured
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch, its jobs side by side; those that fail are reported one by one."""
    worker = composition.worker()
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    async def take(record: SQSRecord) -> None:
        try:
            job = Job.model_validate_json(record.body)
            ending = await worker.run(job, deadline=deadline)
        except Exception:
            # The batch goes on without it; its message comes back, and in the end stands in the dead-letter queue.
            logger.exception("job_not_handled", message_id=record.message_id)
            telemetry.count("RecordFailed")
            raise
        logger.info("job_handled", asset=job.upload.asset, kind=job.kind, ending=ending)

    return async_process_partial_response(event=event, record_handler=take, processor=processor, context=context)


cold_start.over()
