"""Runs on a schedule: finds uploads that stopped on the way."""

from captions import cold_start  # isort: skip

import time
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from captions import composition, telemetry

STOPPING_SECONDS = 5.0
"""Kept back from the time the function has, so that a sweep ends by itself and the next goes on."""

logger, tracer = telemetry.logger(), telemetry.tracer()


@logger.inject_lambda_context(clear_state=True)
@tracer.capture_lambda_handler(capture_response=False)
@telemetry.measured
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Sweep once, and say how many uploads were put back, sent to be ended, and restored from lost events."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - STOPPING_SECONDS
    swept = asdict(composition.sweeper().run(deadline=deadline))
    logger.info("swept", **swept)
    return swept


cold_start.over()
