"""Takes the webhooks queue: tells other programs' endpoints about completion events."""

from captions import cold_start  # isort: skip

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from batches import Take, batch_handler
from captions import composition
from captions.webhooks.deliveries import parse
from captions.webhooks.endpoints import WebhooksError


def begin() -> Take:
    """Look once how the endpoints are, for the whole batch."""
    deliveries = composition.webhooks()
    asyncio.get_event_loop().run_until_complete(deliveries.look())

    async def take(body: str, _: float) -> Mapping[str, Any]:
        message = parse(body)
        return {"kind_of_message": type(message).__name__, "ending": await deliveries.take(message)}

    return take


take_batch = batch_handler("webhook", begin)


def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    """Handle a batch; or, invoked with `{"test": NAME}`, send that endpoint a test event and return what came of it."""
    return test(str(event["test"])) if "test" in event else take_batch(event, context)


def test(name: str) -> dict[str, Any]:
    """Send an endpoint a test event by the configuration as it stands now."""
    try:
        return asdict(asyncio.get_event_loop().run_until_complete(composition.webhooks(fresh=True).test(name)))
    except WebhooksError as error:
        return {"ok": False, "status": None, "why": str(error)}


cold_start.over()
