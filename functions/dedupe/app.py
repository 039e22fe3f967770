"""Takes the uploads queue: events of S3, and uploads that are to be looked at again."""

from captions import cold_start  # isort: skip

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batches import Take, batch_handler
from captions import composition
from captions.pipeline.looking import LEAST_SECONDS, SIDE_BY_SIDE, NotStartedError
from captions.queues import Revisit
from captions.uploads.version import Deletion, Ignored, Restored, Upload, from_event


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


def begin() -> Take:
    """Take messages in threads, as reading, decoding and claiming block."""
    intake = composition.intake()

    def start(body: str, until: float) -> Mapping[str, Any]:
        if (left_s := until - time.monotonic()) < LEAST_SECONDS:
            raise NotStartedError(f"{left_s:.1f} s left")
        message = parse(body)
        ending = intake.handle(message, until=until)
        return {"asset": asset_of(message), "kind_of_event": type(message).__name__, "ending": ending}

    async def take(body: str, until: float) -> Mapping[str, Any]:
        return await asyncio.to_thread(start, body, until)

    return take


handler = batch_handler("upload", begin)
# A thread for each message: asyncio's own are five or six on Lambda's processors, and mostly wait for AWS.
asyncio.get_event_loop().set_default_executor(ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="uploads"))
cold_start.over()
