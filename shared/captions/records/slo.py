"""The service level objective: how many uploads reach their end in time.

Each upload counts once, as soon as it is decided: in time when it ends in time, late when it ends late or, while it is
still on its way, when its time is seen to be over. So an outage shows while it lasts, not when its uploads are through.
Uploads of the bulk lane do not count: they wait for a batch on purpose.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from captions import telemetry


class Objective:
    """Counts uploads as in time or late, as the `watch` of `Records`; `seconds` is the time an upload may take."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._now = now

    def __call__(self, item: Mapping[str, Any], *, ended: bool, mark_late: Callable[[], bool]) -> None:
        """Take note of a record that was just changed; `item` as DynamoDB has it, `ended` if this change ended it."""
        received_at = item.get("received_at", {}).get("S")
        if (
            received_at is None
            or item["state"]["S"] == "deleted"
            or "lane" in item
            or item.get("late_since", {}).get("S") == received_at
        ):
            return
        late = self._now() - datetime.fromisoformat(received_at).timestamp() > self._seconds
        if ended:
            telemetry.count("TerminalLate" if late else "TerminalInTime")
        elif late and mark_late():
            telemetry.count("TerminalLate")
