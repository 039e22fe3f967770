"""Takes the uploads queue: events of S3, and uploads that are to be looked at again."""

import asyncio
import json
import time
from typing import Any

from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from captions import cold_start, composition, telemetry
from captions.pipeline.ingest import LEAST_SECONDS, NotStartedError
from captions.queues import Revisit
from captions.uploads.version import Deletion, Ignored, Restored, Upload, from_event

logger, tracer = telemetry.logger(), telemetry.tracer()
processor = AsyncBatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
asyncio.set_event_loop(asyncio.new_event_loop())


def parse(body: str) -> Upload | Deletion | Restored | Ignored | Revisit:
    """Read one message's body; raises ValueError when it is none that this queue carries."""
    message = json.loads(body)
    if isinstance(message, dict) and message.get("type") == "revisit":
        return Revisit.model_validate(message)
    return from_event(message)


def asset_of(message: Upload | Deletion | Restored | Ignored | Revisit) -> str | None:
    """The object a message is about, for the log."""
    match message:
        case Ignored():
            return None
        case Revisit(upload=upload):
            return upload.asset
        case _:
            return message.asset


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@telemetry.measured
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle a batch, its messages side by side; those that fail are reported one by one."""
    intake = composition.intake()
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    async def take(record: SQSRecord) -> None:
        def start() -> None:
            if (left_s := until - time.monotonic()) < LEAST_SECONDS:
                raise NotStartedError(f"{left_s:.1f} s left")
            message = parse(record.body)
            ending = intake.handle(message, until=until)
            logger.info("upload_handled", asset=asset_of(message), kind_of_event=type(message).__name__, ending=ending)

        try:
            await asyncio.to_thread(start)
        except Exception:
            # The batch goes on without it; its message comes back, and in the end stands in the dead-letter queue.
            logger.exception("upload_not_handled", message_id=record.message_id)
            telemetry.count("RecordFailed")
            raise

    return async_process_partial_response(event=event, record_handler=take, processor=processor, context=context)


cold_start.over()
