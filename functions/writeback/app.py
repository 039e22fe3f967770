"""Takes the write-back queue: keeps captions beside their objects as the records are."""

from captions import cold_start  # isort: skip

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from batches import Take, batch_handler
from captions import composition


def begin() -> Take:
    """Take messages in threads, as S3 blocks."""
    write_back = composition.write_back()

    async def take(body: str, _: float) -> Mapping[str, Any]:
        detail = json.loads(body)["detail"]
        ending = await asyncio.to_thread(write_back.take, detail["asset"], detail["key"])
        return {"asset": detail["asset"], "ending": ending}

    return take


handler = batch_handler("write_back", begin)
cold_start.over()
