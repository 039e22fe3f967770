"""The pipeline's own objects on moto, in one process, with nothing in between that could be mistaken for them."""

import copy
import functools
import io
import json
import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import boto3
import jsonpath_ng.ext.parser
from botocore.config import Config
from moto import mock_aws
from moto.backend_index import backend_url_patterns
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from PIL import Image

from captions.completion_events import Notifier
from captions.config.environment import IntakeSettings
from captions.near_duplicates import Neighbours, Splits
from captions.pipeline.ingest import Intake
from captions.queues import Job, Queues, Revisit
from captions.records.record import Record, Result
from captions.records.table import Records
from captions.uploads.s3_objects import Objects
from captions.uploads.version import from_event
from captions_cli.local.aws.repairs.replacements import Replacements
from captions_cli.local.aws.repairs.speed import SPEED
from support.in_process import IN_PROCESS

MEDIA = Path(__file__).parents[2] / "cli" / "captions_cli" / "demo_media"
BUCKET = "media"
REGION = "us-east-1"
RESULT = Result(text="A house of waving stone.", language="en", task="caption")


_parsed_path = functools.cache(jsonpath_ng.ext.parser.parse)
_MOST_CALLED_FIRST = sorted(backend_url_patterns, key=lambda known: known[0] not in ("dynamodb", "sqs", "events"))
"""The services among which moto looks for that of each request; no other has a URL of these three."""


@contextmanager
def aws_in_this_process() -> Iterator[None]:
    """moto, as fast as in the local stack; test_local_stack_repairs.py shows that it answers the same.

    Whoever uses DynamoDB from several threads takes `locked` clients.
    """
    replacements = Replacements()
    # Nobody here speaks to AWS by way of `requests`, for which moto would set up 1,288 answers for each test.
    no_answers = patch("moto.core.models.RESPONSES_METHODS", ())
    # A parser for each of the eight paths of each event that a rule sends on takes 2 ms.
    read_path = patch("jsonpath_ng.ext.parse", _parsed_path)
    services = patch("moto.backend_index.backend_url_patterns", _MOST_CALLED_FIRST)
    with no_answers, read_path, services, mock_aws():
        for repair in (*SPEED, IN_PROCESS):
            repair.put(replacements)
        try:
            yield
        finally:
            replacements.undo()


@contextmanager
def captions_table_without_indexes() -> Iterator[Any]:
    """DynamoDB in this process with the captions table alone, for tests of single writes; yields its client."""
    with aws_in_this_process():
        client = boto3.client("dynamodb", region_name=REGION)
        client.create_table(
            TableName="captions",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "asset", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "asset", "AttributeType": "S"}],
        )
        yield client


@functools.cache
def _made_client(service: str, signature: str | None) -> Any:
    """Made once for all tests: making one takes longer than most tests do, and moto answers those it never saw."""
    config = Config(signature_version=signature)
    return boto3.client(service, region_name=REGION, config=config)  # type: ignore[call-overload] # named at run time


def client_of(service: str, signature: str | None = None) -> Any:
    """Return a client of moto of the caller's own: what is changed about it, or registered with it, no other has."""
    made = _made_client(service, signature)
    client = object.__new__(type(made))
    client.__dict__.update(made.__dict__, meta=copy.copy(made.meta))
    client.meta.events = _Events(made.meta.events)
    return client


class _Events:
    """A client's events, which are copied once something is registered: a copy takes longer than a call of moto."""

    def __init__(self, shared: Any) -> None:
        self._shared, self._own = shared, None

    def __getattr__(self, name: str) -> Any:
        if self._own is None and name.startswith(("register", "unregister")):
            self._own = copy.copy(self._shared)
        return getattr(self._own or self._shared, name)


def locked(client: Any, lock: threading.RLock) -> Any:
    """Let one call at a time through: moto loses updates of parallel threads, which DynamoDB does not."""
    call = client._make_api_call

    def one_at_a_time(operation: str, arguments: dict[str, Any]) -> Any:
        with lock:
            return call(operation, arguments)

    client._make_api_call = one_at_a_time
    return client


@dataclass
class Aws:
    """moto's tables, queues, bus and bucket, and clients that threads may share."""

    dynamodb: Any
    s3: Any
    sqs: Any
    events: Any
    uploads_queue: str
    image_queue: str
    audio_queue: str
    heard_queue: str
    sequence: int = 0

    def put(
        self,
        key: str,
        data: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Upload, and return the event S3 would send through EventBridge."""
        answer = self.s3.put_object(
            Bucket=BUCKET, Key=key, Body=data, Metadata=dict(metadata or {}), Tagging=urlencode(tags or {})
        )
        return self.event("Object Created", key, answer["VersionId"], size=len(data), etag=answer["ETag"].strip('"'))

    def delete(self, key: str) -> dict[str, Any]:
        """Delete (leaving a delete marker), and return the event."""
        answer = self.s3.delete_object(Bucket=BUCKET, Key=key)
        event = self.event("Object Deleted", key, answer["VersionId"])
        event["detail"]["deletion-type"] = "Delete Marker Created"
        return event

    def event(self, detail_type: str, key: str, version_id: str, **about: Any) -> dict[str, Any]:
        """An S3 event as EventBridge delivers it, later than all before it."""
        self.sequence += 1
        return {
            "source": "aws.s3",
            "detail-type": detail_type,
            "time": "2026-01-01T00:00:00Z",
            "detail": {
                "bucket": {"name": BUCKET},
                "object": {
                    "key": key,
                    "version-id": version_id,
                    "sequencer": f"0066A8D0E7{self.sequence:06X}",
                    **about,
                },
            },
        }

    def receive(self, queue: str) -> list[dict[str, Any]]:
        """Take every message that stands on a queue now."""
        bodies = []
        while messages := self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                bodies.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def heard(self) -> list[tuple[str, str]]:
        """The completion events since last asked: detail type and key."""
        return [(event["detail-type"], event["detail"]["key"]) for event in self.receive(self.heard_queue)]


@dataclass
class Clock:
    """A clock that only moves when told to."""

    at: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Dedupe:
    """The dedupe function's logic on moto."""

    aws: Aws
    intake: Intake
    records: Records
    neighbours: Neighbours
    clock: Clock

    def deliver(self, event: dict[str, Any]) -> str:
        """Deliver one event or revisit of the uploads queue."""
        message = Revisit.model_validate(event) if event.get("type") == "revisit" else from_event(event)
        return self.intake.handle(message)

    def upload(self, key: str, data: bytes, **options: Mapping[str, str]) -> str:
        """Upload, with `metadata` and `tags` where there are any, and deliver the event."""
        return self.deliver(self.aws.put(key, data, **options))

    def record(self, key: str) -> Record:
        record = self.records.get(f"{BUCKET}/{key}")
        assert record is not None, f"no record of {key}"
        return record

    def jobs(self, queue: str | None = None) -> list[Job]:
        return [Job.model_validate(body) for body in self.aws.receive(queue or self.aws.image_queue)]


def half_size(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data))
    out = io.BytesIO()
    image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(out, "JPEG", quality=85)
    return out.getvalue()


def captioned(dedupe: Dedupe, key: str) -> None:
    """End an upload as its worker would."""
    record = dedupe.record(key)
    ended = dedupe.records.finish(record.upload, "captioned", now=dedupe.clock(), source="model", result=RESULT)
    assert ended is not None
    assert record.claim is not None
    outcome = {"asset": record.asset, "result": RESULT.model_dump(), "model": "a-model", "cost": "0.0002"}
    dedupe.neighbours.settle(record.claim.id, record.claim.generation, "READY", outcome)


@contextmanager
def aws_for_the_pipeline() -> Iterator[Aws]:
    """moto's bucket, tables, queues and bus as the pipeline needs them, with credentials that are none."""
    made, urls = _made_for_the_pipeline()
    with aws_in_this_process():
        for service, held in _Unpickler(io.BytesIO(made)).load().items():
            setattr(moto_backend(service), _HOLDINGS[service], held)
        lock = threading.RLock()
        dynamodb, s3, sqs, events = (
            locked(client_of(service), lock) for service in ("dynamodb", "s3", "sqs", "events")
        )
        yield Aws(dynamodb, s3, sqs, events, urls["uploads"], urls["images"], urls["audio"], urls["heard"])


_HOLDINGS = {"dynamodb": "tables", "s3": "buckets", "sqs": "queues", "events": "event_buses"}
"""What of moto's state of each service is put back for the next test."""


def moto_backend(service: str) -> Any:
    """What moto holds of a service."""
    return get_backend(service)[ACCOUNT_ID][REGION if service != "s3" else "aws"]


class _Pickler(pickle.Pickler):
    """Leaves out the locks of queues."""

    def persistent_id(self, value: Any) -> str | None:
        return "condition" if isinstance(value, threading.Condition) else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> threading.Condition:
        return threading.Condition()


@functools.cache
def _made_for_the_pipeline() -> tuple[bytes, Mapping[str, str]]:
    """Make everything by its 14 calls, once in a process; returns what moto then holds, and the URLs of the queues."""
    with aws_in_this_process():
        dynamodb, s3, sqs, events = map(client_of, ("dynamodb", "s3", "sqs", "events"))
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        dynamodb.create_table(
            TableName="captions",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "asset", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"}
                for name in (
                    "asset",
                    "activity",
                    "activity_at",
                    "attention",
                    "attention_rank",
                    "copy_of",
                    "completed_at",
                )
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": hashed,
                    "KeySchema": [
                        {"AttributeName": hashed, "KeyType": "HASH"},
                        {"AttributeName": ranged, "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
                for hashed, ranged in (
                    ("activity", "activity_at"),
                    ("attention", "attention_rank"),
                    ("copy_of", "completed_at"),
                )
            ],
        )
        for table in ("fingerprints", "control"):
            dynamodb.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            )
        urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("uploads", "images", "audio", "heard")}
        events.create_event_bus(Name="captions")
        events.put_rule(Name="heard", EventBusName="captions", EventPattern='{"source": ["media-captions"]}')
        arn = sqs.get_queue_attributes(QueueUrl=urls["heard"], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_targets(Rule="heard", EventBusName="captions", Targets=[{"Id": "heard", "Arn": arn}])
        made = io.BytesIO()
        _Pickler(made).dump({service: getattr(moto_backend(service), held) for service, held in _HOLDINGS.items()})
        return made.getvalue(), urls


def dedupe_on(aws: Aws) -> Dedupe:
    """Build the dedupe function's logic on these tables and queues."""
    clock = Clock()
    settings = IntakeSettings(
        captions_table="captions",
        fingerprints_table="fingerprints",
        uploads_queue_url=aws.uploads_queue,
        image_queue_url=aws.image_queue,
        audio_queue_url=aws.audio_queue,
        event_bus_name="captions",
    )
    records = Records(aws.dynamodb, "captions")
    neighbours = Neighbours(aws.dynamodb, "fingerprints", now=clock)
    intake = Intake(
        settings=settings,
        records=records,
        objects=Objects(aws.s3),
        neighbours=neighbours,
        queues=Queues(aws.sqs),
        notifier=Notifier(aws.events, "captions"),
        splits=Splits(aws.dynamodb, "fingerprints", clock),
        now=clock,
    )
    return Dedupe(aws, intake, records, neighbours, clock)
