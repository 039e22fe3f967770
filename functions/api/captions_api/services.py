"""What the routes work with, built once from the function's settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from captions import composition
from captions.aws.clients import client
from captions.completion_events import Notifier
from captions.config.function_environments import ApiSettings
from captions.config.policy import Policy, from_parameters
from captions.once import Once
from captions.queues import Queues
from captions.records.listing import Listing
from captions.records.record import Record
from captions.records.reviews import Reviews
from captions.records.table import Records
from captions.uploads.s3_objects import Objects
from captions_api import ids
from captions_api.access import Caller
from captions_api.cursors import Seal
from captions_api.own_table import OwnTable
from captions_api.problems import Refusal, not_there
from captions_api.views import etag_of

if TYPE_CHECKING:
    from captions.gateway.catalogue import Catalogue
    from captions.pipeline.caption import Worker
    from captions.pipeline.ingest import Intake
    from captions.pipeline.streaming import Streaming

LINK_SECONDS = 300
"""How long a presigned URL is good for: five minutes, and no longer."""


@dataclass
class Services:
    """The stack as the API sees it; `clients` gives boto3 clients that threads may share."""

    settings: ApiSettings
    clients: Callable[[str], Any] = client
    now: Callable[[], float] = time.time
    intake: Callable[[], Intake] = composition.intake
    worker: Callable[[], Worker] = composition.worker
    _seal: Once[[], Seal] = field(init=False)

    def __post_init__(self) -> None:
        dynamodb, table = self.clients("dynamodb"), self.settings.captions_table
        self.records = Records(dynamodb, table)
        self.listing = Listing(dynamodb, table)
        self.reviews = Reviews(dynamodb, table, self.settings.control_table)
        self.own = OwnTable(dynamodb, self.settings.api_table, self.now)
        self.queues = Queues(self.clients("sqs"))
        self.notifier = Notifier(self.clients("events"), self.settings.event_bus_name)
        self.objects = Objects(self.clients("s3"))
        self._seal = Once(lambda: Seal(self.own.secret()))
        self._streaming = Once(self._new_streaming)
        settings = self.settings
        self._catalogues = composition.catalogues(settings.models_override)
        parameters = from_parameters(
            language=settings.language,
            image_models=settings.image_models,
            audio_models=settings.audio_models,
            daily_budget_dollars=settings.daily_budget_dollars,
            prefix_budgets=settings.prefix_budgets,
        )
        self._policies = composition.policies(settings.policy_override, parameters)

    @property
    def policy(self) -> Policy:
        """The policy as it stands now."""
        return self._policies.current()

    @property
    def catalogue(self) -> Catalogue:
        """The models as they stand now."""
        return self._catalogues.current()

    @property
    def seal(self) -> Seal:
        """What cursors are sealed with."""
        return self._seal()

    def streaming(self) -> Streaming:
        """What captions pictures while somebody watches; building it loads the models' side, and takes a moment."""
        return self._streaming()

    def _new_streaming(self) -> Streaming:
        from captions.pipeline.streaming import Streaming

        self.worker()
        return Streaming(self.intake(), self.worker, self.clients("s3"), self.clients("sqs"))

    @property
    def bucket(self) -> str:
        """The bucket media is uploaded to."""
        return self.settings.media_bucket

    def tenant(self, caller: Caller) -> Caller:
        """Return a caller as the policy limits them; raises Refusal (503) where it should, and was never read."""
        prefixes = self.policy.prefixes_of(caller.name)
        if prefixes is None and self.settings.policy_override and not self._policies.known:
            # It may say that they are limited.
            raise Refusal(503, "no-policy", "the policy cannot be read, and it says who may see what")
        return caller if prefixes is None else caller.within(prefixes)

    def prefixes(self, caller: Caller) -> tuple[str, ...]:
        """Return the beginnings of `bucket/key` that a caller may see."""
        return tuple(f"{self.bucket}/{prefix}" for prefix in caller.prefixes)

    def record(self, caller: Caller, given: str) -> Record:
        """Return the record of an id, strongly consistent; raises Refusal (404) for what is not there or not theirs."""
        asset = ids.asset_of(given)
        if asset is None or not asset.startswith(self.prefixes(caller)):
            raise not_there()
        record = self.records.get(asset)
        if record is None:
            raise not_there()
        return record

    def matched(
        self, caller: Caller, given: str, if_match: str | None, done: Callable[[Record], bool] = lambda _: False
    ) -> Record:
        """Return the record of an id as its caller saw it last, or as it is `done` already: by a try before this one
        whose answer they did not get (RFC 9110, 13.1.1).

        Raises Refusal: 404, 428 where they did not say what they saw, 412 where it is another now.
        """
        record = self.record(caller, given)
        if if_match is None or if_match.strip() == "*":
            raise Refusal(428, "no-if-match", "send If-Match with the asset's etag, so that nobody's words are lost")
        current = etag_of(record)
        if current not in tags(if_match) and not done(record):
            raise changed(current)
        return record

    def link(self, record: Record) -> str | None:
        """Return a presigned URL of a record's media; None where it has none."""
        if record.state == "deleted":
            return None
        request = {"Bucket": record.bucket, "Key": record.key}
        if record.version_id is not None:
            request["VersionId"] = record.version_id
        if record.media_type and "/" in record.media_type:
            request["ResponseContentType"] = record.media_type
        url: str = self.clients("s3").generate_presigned_url("get_object", Params=request, ExpiresIn=LINK_SECONDS)
        return url


def tags(if_match: str) -> frozenset[str]:
    """Return the etags of an `If-Match`."""
    return frozenset(tag.strip() for tag in if_match.split(","))


def changed(current: str) -> Refusal:
    """Return the problem of the later of two editors."""
    return Refusal(412, "changed", "somebody changed it meanwhile; look again", headers={"ETag": current}, etag=current)
