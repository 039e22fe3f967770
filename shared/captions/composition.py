"""Builds what each function works with from its settings: once per process, when first asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from captions import telemetry
from captions.aws.clients import client
from captions.completion_events import Notifier
from captions.config.environment import IntakeSettings, Settings, Strictness
from captions.once import once
from captions.overrides import Overridden, read
from captions.queues import Queues
from captions.records.slo import Objective
from captions.records.table import Records
from captions.uploads.s3_objects import Objects

if TYPE_CHECKING:
    from captions.bulk.batch_table import BatchTable
    from captions.bulk.lane import BulkLane
    from captions.config.function_environments import BulkSettings, SearchSettings, WorkerSettings
    from captions.config.policy import Policy
    from captions.gateway import Gateway
    from captions.gateway.batch_api import BatchApi
    from captions.gateway.catalogue import Catalogue
    from captions.model_spans import ModelSpans
    from captions.near_duplicates import Neighbours
    from captions.pipeline.caption import Worker
    from captions.pipeline.ingest import Intake
    from captions.pipeline.sweep import Sweeper
    from captions.search.fusion import Search
    from captions.search.meaning import MeaningIndex
    from captions.webhooks.deliveries import Deliveries
    from captions.webhooks.endpoints import Webhooks
    from captions.write_back.writing import WriteBack

T = TypeVar("T")

DAY_SECONDS = 86_400.0
SECRETS_MAX_AGE_SECONDS = 60
"""How long the webhooks' secrets are kept: a new one is in use everywhere so soon after it was put there."""
KEY_MAX_AGE_SECONDS = 10
"""How long Powertools keeps the endpoint's key; the gateway itself asks every 300 s, and then means a new one."""


@once
def intake() -> Intake:
    """The dedupe function's logic."""
    from captions.config.policy import from_parameters
    from captions.near_duplicates import Splits
    from captions.pipeline.ingest import Intake

    settings = IntakeSettings.from_env()
    return Intake(
        settings=settings,
        records=_records(settings),
        objects=Objects(client("s3")),
        neighbours=_neighbours(settings, settings.near_duplicates),
        queues=Queues(client("sqs")),
        notifier=Notifier(client("events"), settings.event_bus_name),
        splits=Splits(client("dynamodb"), settings.fingerprints_table),
        policies=policies(settings.policy_override, from_parameters(language=settings.language)).current,
    )


@once
def _webhooks() -> tuple[Deliveries, Overridden[Webhooks]]:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

    from captions.config.function_environments import WebhookSettings
    from captions.webhooks.deliveries import Deliveries
    from captions.webhooks.endpoints import WebhooksError, load, secrets_of
    from captions.webhooks.health import HealthTable

    settings = WebhookSettings.from_env()
    configured = _overridden(
        settings.webhooks, load, WebhooksError, "WebhooksConfigurationBroken", "webhooks_configuration_unusable"
    )
    secrets = _provider(SecretsProvider, "secretsmanager")
    deliveries = Deliveries(
        queue_url=settings.webhooks_queue_url,
        dead_letter_queue_url=settings.webhooks_dead_letter_queue_url,
        sqs=client("sqs"),
        health=HealthTable(client("dynamodb"), settings.control_table),
        configured=configured.current,
        secrets=lambda: secrets_of(secrets.get(settings.webhook_secrets_arn, max_age=SECRETS_MAX_AGE_SECONDS)),
        loopback=settings.loopback,
    )
    return deliveries, configured


def webhooks(*, fresh: bool = False) -> Deliveries:
    """The webhooks function's logic; `fresh`: on the configuration as it stands this moment."""
    deliveries, configured = _webhooks()
    if fresh:
        configured.forget()
    return deliveries


@once
def write_back() -> WriteBack:
    """The write-back function's logic."""
    from captions.config.function_environments import WriteBackSettings
    from captions.write_back.writing import WriteBack

    settings = WriteBackSettings.from_env()
    return WriteBack(
        records=Records(client("dynamodb"), settings.captions_table),
        s3=client("s3"),
        policies=policies(settings.policy_override, {}).current,
        copies_bucket=settings.copies_bucket,
    )


@once
def search() -> Search:
    """Both sides of the search: what follows completion events, and what answers."""
    from captions.config.function_environments import SearchSettings
    from captions.search.fusion import Search
    from captions.search.index import WordsIndex
    from captions.search.searching import WordsSearch
    from captions.search.segment_store import SegmentStore

    settings = SearchSettings.from_env()
    store = SegmentStore(client("s3"), settings.search_bucket)
    records = Records(client("dynamodb"), settings.captions_table)
    meaning = _meaning(settings, records) if settings.search_vectors_arn else None
    return Search(WordsIndex(store, records, meaning=meaning), WordsSearch(store, records), meaning)


def _meaning(settings: SearchSettings, records: Records) -> MeaningIndex:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider

    from captions.endpoint_secret import parse_secret
    from captions.search.embeddings import CaptionEmbeddings, SpendingLedger
    from captions.search.meaning import MeaningIndex

    arn, vectors, model = settings.endpoint_secret_arn, settings.search_vectors_arn, settings.embedding_model
    if not (arn and vectors and model and settings.control_table and settings.endpoint_urls):
        raise ValueError("search by meaning needs an endpoint, its secret, a model, an index and the control table")

    def keys(fresh: bool) -> Mapping[str, str]:
        provider = _provider(SecretsProvider, "secretsmanager")
        return parse_secret(provider.get(arn, max_age=KEY_MAX_AGE_SECONDS, force_fetch=fresh))

    ledger = SpendingLedger(
        client("dynamodb"), settings.control_table, now=time.time, limit=settings.daily_budget_dollars
    )
    spans = model_spans()
    embeddings = CaptionEmbeddings(
        settings.endpoint_urls,
        keys,
        model,
        settings.embedding_dimensions,
        ledger,
        settings.embedding_price,
        report=spans.add_embeddings if spans is not None else None,
    )
    return MeaningIndex(client("s3vectors"), vectors, records, embeddings)


@once
def sweeper() -> Sweeper:
    """The sweep function's logic."""
    from captions.config.function_environments import SweepSettings
    from captions.control_table import read_control
    from captions.pipeline.quality_watch import Mail, QualityWatch
    from captions.pipeline.sweep import Sweeper

    settings = SweepSettings.from_env()
    table, notifier = settings.control_table, Notifier(client("events"), settings.event_bus_name)
    topic = settings.alarm_topic_arn
    mail = Mail(client("sns"), topic, settings.runbook_url) if topic is not None else None
    return Sweeper(
        settings=settings,
        records=_records(settings),
        queues=Queues(client("sqs")),
        sqs=client("sqs"),
        control=partial(read_control, client("dynamodb"), table) if table else None,
        quality=QualityWatch(client("dynamodb"), table, notifier, mail).look if table else None,
    )


def _records(settings: Settings) -> Records:
    return Records(client("dynamodb"), settings.captions_table, Objective(settings.terminal_seconds))


def _neighbours(settings: Settings, policy: Strictness) -> Neighbours:
    from captions.near_duplicates import Neighbours

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


def _overridden(
    where: str | None, parse: Callable[[str | None], T], errors: type[Exception], metric: str, event: str
) -> Overridden[T]:
    """What `parse` makes of an override, with a count and a log line, for an alarm, whenever that is broken."""

    def broken(error: Exception) -> None:
        telemetry.count(metric)
        telemetry.logger().error(event, override=where, error=str(error))

    return Overridden(
        lambda: read(where, client) if where is not None else None, parse, errors=(errors,), broken=broken
    )


def catalogues(where: str | None) -> Overridden[Catalogue]:
    """Return the catalogue of models, with the override that stands at `where`."""
    from captions.gateway.catalogue import CatalogueError, load

    return _overridden(where, load, CatalogueError, "BrokenModelsOverride", "models_override_unusable")


def policies(
    where: str | None, parameters: Mapping[str, Any], catalogue: Callable[[], Catalogue] | None = None
) -> Overridden[Policy]:
    """The policy; where no catalogue is given, the names of its models are left to those who call them."""
    from captions.config.policy import PolicyError, load
    from captions.routing import policy_check

    def parse(text: str | None) -> Policy:
        # The packaged policy and the template's parameters must hold even where the catalogue has lost a model.
        models = catalogue() if catalogue is not None and text is not None else None
        policy = load(text, parameters=parameters, catalogue=models)
        policy_check.check(policy)
        return policy

    return _overridden(where, parse, PolicyError, "PolicyOverrideBroken", "policy_override_unusable")


@once
def _provider(kind: Any, service: str) -> Any:
    """Powertools' cache of parameters or secrets, on our own client."""
    return kind(boto3_client=client(service))


class _Workers:
    """The worker, with a new gateway whenever the catalogue or the budgets changed; circuits are kept."""

    def __init__(self, settings: WorkerSettings) -> None:
        from captions.gateway import Breakers, ControlTable
        from captions.inference.part_store import ProgressTable
        from captions.pipeline.caption import Worker, parameters
        from captions.records.reviews import Calibrations

        self._settings = settings
        self._catalogues = catalogues(settings.models_override)
        self._catalogue = self._catalogues.current()
        self._policies = policies(settings.policy_override, parameters(settings), self._catalogues.current)
        self._limits = self._policies.current().budgets
        self._store = ControlTable(client("dynamodb"), settings.control_table)
        self._closing: asyncio.Task[None] | None = None
        self._breakers = Breakers(store=self._store, observe=_observed)
        self._worker = Worker(
            settings=settings,
            records=_records(settings),
            objects=Objects(client("s3")),
            # A worker only renews and settles claims: which pictures match was decided before.
            neighbours=_neighbours(settings, "exact"),
            queues=Queues(client("sqs")),
            notifier=Notifier(client("events"), settings.event_bus_name),
            gateway=self._gateway(),
            policies=self._policies.current,
            calibrations=Calibrations(client("dynamodb"), settings.control_table),
            progress=ProgressTable(client("dynamodb"), settings.control_table),
        )

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue of the current worker's gateway."""
        return self._catalogue

    def current(self) -> Worker:
        catalogue, limits = self._catalogues.current(), self._policies.current().budgets
        if catalogue is not self._catalogue or limits != self._limits:
            self._catalogue, self._limits = catalogue, limits
            outdated, self._worker.gateway = self._worker.gateway, self._gateway()
            try:
                self._closing = asyncio.get_running_loop().create_task(outdated.aclose())
            except RuntimeError:  # between two batches
                asyncio.get_event_loop().run_until_complete(outdated.aclose())
        return self._worker

    def _gateway(self) -> Gateway:
        from captions.gateway import EVERYTHING, Budgets, Endpoint, Gateway

        limits = dict(self._limits.prefixes)
        if self._limits.daily is not None:
            limits[EVERYTHING] = self._limits.daily
        spans = model_spans()
        return Gateway(
            endpoints=[Endpoint(url) for url in self._settings.endpoint_urls],
            keys=self.keys,
            catalogue=self._catalogue,
            breakers=self._breakers,
            budgets=Budgets(limits, self._store) if limits else None,
            observe=_observed,
            report=spans.add if spans is not None else None,
        )

    def keys(self, fresh: bool) -> Mapping[str, str]:
        """Return the endpoints' keys, from their secret."""
        from aws_lambda_powertools.utilities.parameters import SecretsProvider

        from captions.gateway import parse_secret

        provider = _provider(SecretsProvider, "secretsmanager")
        arn = self._settings.endpoint_secret_arn
        return parse_secret(provider.get(arn, max_age=KEY_MAX_AGE_SECONDS, force_fetch=fresh))


@once
def model_spans() -> ModelSpans | None:
    """What sends spans and metrics of model calls; None where no collector is configured."""
    from captions.config.function_environments import TracedSettings

    endpoint = TracedSettings.from_env().otlp_endpoint
    if endpoint is None:
        return None
    from captions.model_spans import ModelSpans

    return ModelSpans(endpoint)


@once
def _workers() -> _Workers:
    from captions.config.function_environments import WorkerSettings

    return _Workers(WorkerSettings.from_env())


@once
def _bulk() -> tuple[BulkSettings, _Workers, BatchTable, BatchApi]:
    from captions.bulk.batch_table import BatchTable
    from captions.config.function_environments import BulkSettings
    from captions.gateway.batch_api import BatchApi

    settings = BulkSettings.from_env()
    workers = _Workers(settings)
    table = BatchTable(client("dynamodb"), settings.control_table, client("s3"), settings.bulk_bucket)
    return settings, workers, table, BatchApi(workers.keys, settings.endpoint_urls)


def bulk_lane() -> BulkLane:
    """The bulk function's logic, on the catalogue as it stands now."""
    from captions.bulk.lane import BulkLane

    settings, workers, table, api = _bulk()
    worker = workers.current()
    spans = model_spans()
    return BulkLane(settings, worker, table, api, workers.catalogue, spans.add if spans is not None else None)


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
    """Log and count what the gateway reports."""
    if event in _COUNTED:
        telemetry.count(_COUNTED[event])
    telemetry.logger().info(event, **{f"gateway_{name}": value for name, value in fields.items()})
