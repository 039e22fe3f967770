"""Builds what each function works with from its settings: once per process, when first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from captions import telemetry
from captions.aws import client
from captions.jobs import Queues
from captions.notify import Notifier
from captions.objective import Objective
from captions.objects import Objects
from captions.records import Records
from captions.settings import IntakeSettings, Policy, Settings, SweepSettings, WorkerSettings

if TYPE_CHECKING:
    from captions.captioning import Worker
    from captions.catalogue import Catalogue
    from captions.gateway import Gateway
    from captions.intake import Intake
    from captions.neighbours import Neighbours
    from captions.sweeping import Sweeper

DAY_SECONDS = 86_400.0
KEY_MAX_AGE_SECONDS = 10
"""How long Powertools keeps the endpoint's key; the gateway itself asks every 300 s, and then means a new one."""
OVERRIDE_MAX_AGE_SECONDS = 300
"""How long the catalogue's override is kept before it is read again."""


@cache
def intake() -> Intake:
    """The dedupe function's logic."""
    from captions.intake import Intake

    settings = IntakeSettings.from_env()
    return Intake(
        settings=settings,
        records=_records(settings),
        objects=Objects(client("s3")),
        neighbours=_neighbours(settings, settings.near_duplicates),
        queues=Queues(client("sqs")),
        notifier=Notifier(client("events"), settings.event_bus_name),
    )


@cache
def sweeper() -> Sweeper:
    """The sweep function's logic."""
    from captions.sweeping import Sweeper, reviewed

    settings = SweepSettings.from_env()
    return Sweeper(
        settings=settings,
        records=_records(settings),
        queues=Queues(client("sqs")),
        sqs=client("sqs"),
        reviews=partial(reviewed, client("dynamodb"), settings.control_table) if settings.control_table else None,
    )


def _records(settings: Settings) -> Records:
    dynamodb = client("dynamodb")
    objective = Objective(dynamodb, settings.captions_table, settings.terminal_seconds)
    return Records(dynamodb, settings.captions_table, objective)


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


class _Catalogues:
    """The catalogue with its override, read again every few minutes, so that changing a model needs no deploy.

    A broken override keeps the last good catalogue, and is counted so that an alarm can tell.
    """

    def __init__(self, parameter: str | None) -> None:
        from captions.catalogue import load

        self._parameter = parameter
        self._text: str | None = None
        self._current = load()

    def current(self) -> Catalogue:
        if self._parameter is None:
            return self._current
        from aws_lambda_powertools.utilities.parameters import SSMProvider
        from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

        from captions.catalogue import CatalogueError, load

        provider = _provider(SSMProvider, "ssm")
        try:
            text = provider.get(self._parameter, max_age=OVERRIDE_MAX_AGE_SECONDS)
            if text != self._text:
                self._text = text
                self._current = load(text)
        except (GetParameterError, CatalogueError) as error:
            telemetry.count("BrokenModelsOverride")
            telemetry.logger().error("models_override_unusable", parameter=self._parameter, error=str(error))
        return self._current


@cache
def _provider(kind: Any, service: str) -> Any:
    """Powertools' cache of parameters or secrets, on our own client."""
    return kind(boto3_client=client(service))


class _Workers:
    """The worker, with a new gateway whenever the catalogue changed; circuits are kept."""

    def __init__(self) -> None:
        from captions.captioning import Worker
        from captions.gateway import EVERYTHING, Breakers, Budgets, ControlTable

        self._settings = settings = WorkerSettings.from_env()
        self._catalogues = _Catalogues(settings.models_override)
        self._catalogue = self._catalogues.current()
        store = ControlTable(client("dynamodb"), settings.control_table)
        self._breakers = Breakers(store=store, observe=_observed)
        limits = dict(settings.prefix_budgets)
        if settings.daily_budget_dollars is not None:
            limits[EVERYTHING] = settings.daily_budget_dollars
        self._budgets = Budgets(limits, store) if limits else None
        self._worker = Worker(
            settings=settings,
            records=_records(settings),
            objects=Objects(client("s3")),
            # A worker only renews and settles claims: which pictures match was decided before.
            neighbours=_neighbours(settings, "exact"),
            queues=Queues(client("sqs")),
            notifier=Notifier(client("events"), settings.event_bus_name),
            gateway=self._gateway(),
        )

    def current(self) -> Worker:
        latest = self._catalogues.current()
        if latest is not self._catalogue:
            self._catalogue = latest
            outdated, self._worker.gateway = self._worker.gateway, self._gateway()
            asyncio.get_event_loop().run_until_complete(outdated.aclose())
        return self._worker

    def _gateway(self) -> Gateway:
        from captions.gateway import Endpoint, Gateway

        return Gateway(
            endpoints=[Endpoint(url) for url in self._settings.endpoint_urls],
            keys=self._keys,
            catalogue=self._catalogue,
            breakers=self._breakers,
            budgets=self._budgets,
            observe=_observed,
        )

    def _keys(self, fresh: bool) -> Mapping[str, str]:
        from aws_lambda_powertools.utilities.parameters import SecretsProvider

        from captions.gateway import parse_secret

        provider = _provider(SecretsProvider, "secretsmanager")
        arn = self._settings.endpoint_secret_arn
        return parse_secret(provider.get(arn, max_age=KEY_MAX_AGE_SECONDS, force_fetch=fresh))


@cache
def _workers() -> _Workers:
    return _Workers()


def worker() -> Worker:
    """The caption and transcribe functions' logic, on the catalogue as it stands now."""
    return _workers().current()


_COUNTED = {
    "attempt_failed": "ModelAttemptFailed",
    "circuit_opened": "CircuitOpened",
    "account_problem": "EndpointAccountProblem",
    "breaker_store_failed": "BreakerStoreFailed",
    "unknown_model": "UnknownModel",
}


def _observed(event: str, fields: Mapping[str, Any]) -> None:
    """Log and count what the gateway tells of."""
    if event in _COUNTED:
        telemetry.count(_COUNTED[event])
    telemetry.logger().info(event, **{f"gateway_{name}": value for name, value in fields.items()})
