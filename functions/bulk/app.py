"""The bulk lane: takes jobs that can wait from its queue, and looks after their batches on a schedule."""

from captions import cold_start  # isort: skip

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from batches import Take, batch_handler
from captions import composition, telemetry
from captions.queues import Job

logger, tracer = telemetry.logger(), telemetry.tracer()


def begin() -> Take:
    """Make lines of jobs, side by side."""
    lane = composition.bulk_lane()

    async def take(body: str, deadline: float) -> Mapping[str, Any]:
        job = Job.model_validate_json(body)
        return {"asset": job.upload.asset, "kind": job.kind, "ending": await lane.gather(job, deadline=deadline)}

    return take


take_batch = batch_handler("job", begin)


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@telemetry.measured
def look(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Look after the batches once, and say what was done."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1_000
    ran = asyncio.get_event_loop().run_until_complete(composition.bulk_lane().run(deadline=deadline))
    if (spans := composition.model_spans()) is not None:
        spans.flush()
    did = asdict(ran) if ran is not None else {}
    logger.info("looked_after_batches", other_is_at_it=ran is None, **did)
    return did


def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    """Handle a batch of jobs, or, invoked by the schedule, look after the batches."""
    return take_batch(event, context) if "Records" in event else look(event, context)


cold_start.over()
