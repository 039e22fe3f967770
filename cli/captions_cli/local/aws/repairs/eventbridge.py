"""Repairs of moto's EventBridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captions_cli.local.aws.events import EventRouter, event_time
from captions_cli.local.aws.repairs.replacements import Repair, Replace


def eventbridge_repairs(router: EventRouter) -> tuple[Repair, ...]:
    """Return the repairs; `router` gets the events of all rules."""

    def put(replace: Replace) -> None:
        from moto.events.models import Rule

        def send_to_targets(self: Any, original_event: Mapping[str, Any], transform_input: bool = True) -> None:
            event = {key: value for key, value in original_event.items() if key != "ingestion-time"}
            if not isinstance(event.get("time"), str):
                event["time"] = event_time(float(event["time"]))
            router.offer(self, event)

        replace(Rule, "send_to_targets", send_to_targets)

    why = "Input transformers are skipped for S3's events; disabled rules and dead-letter queues are ignored."
    return (Repair("rules", why, put),)
