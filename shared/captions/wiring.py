"""Builds what each function works with from its settings: once per process, when first asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from captions import telemetry
from captions.aws import client
from captions.jobs import Queues
from captions.notify import Notifier
from captions.objects import Objects
from captions.records import Records
from captions.settings import IntakeSettings, Policy, Settings, SweepSettings

if TYPE_CHECKING:
    from captions.intake import Intake
    from captions.neighbours import Neighbours
    from captions.sweeping import Sweeper

DAY_SECONDS = 86_400.0
KEY_MAX_AGE_SECONDS = 300
"""How long the endpoint's key is kept before Secrets Manager is asked again."""
OVERRIDE_MAX_AGE_SECONDS = 300
"""How long the catalogue's override is kept before it is read again."""


@cache
def intake() -> Intake:
    """The dedupe function's logic."""
    from captions.intake import Intake

    settings = IntakeSettings.from_env()
    return Intake(
        settings=settings,
        records=Records(client("dynamodb"), settings.captions_table),
        objects=Objects(client("s3")),
        neighbours=_neighbours(settings, settings.near_duplicates),
        queues=Queues(client("sqs")),
        notifier=Notifier(client("events"), settings.event_bus_name),
    )


@cache
def sweeper() -> Sweeper:
    """The sweep function's logic."""
    from captions.sweeping import Sweeper

    settings = SweepSettings.from_env()
    return Sweeper(
        settings=settings,
        records=Records(client("dynamodb"), settings.captions_table),
        queues=Queues(client("sqs")),
        notifier=Notifier(client("events"), settings.event_bus_name),
        sqs=client("sqs"),
    )


def _neighbours(settings: Settings, policy: Policy) -> Neighbours:
    from captions.neighbours import Neighbours

    def capped(posting: str) -> None:
        telemetry.count("CrowdedBand")
        telemetry.logger().warning("lookup_capped", posting=posting)

    return Neighbours(
        client("dynamodb"),
        settings.fingerprints_table,
        exemplar_ttl=settings.exemplar_ttl_days * DAY_SECONDS,
        queue_lease=settings.queue_lease_seconds,
        policy=policy,
        on_capped=capped,
    )
