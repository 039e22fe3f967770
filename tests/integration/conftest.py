"""Fixtures of the pipeline on moto."""

import threading
from collections.abc import Iterator

import boto3
import pytest

from captions.completion_events import Notifier
from captions.config.environment import IntakeSettings
from captions.near_duplicates import Neighbours, Splits
from captions.pipeline.ingest import Intake
from captions.queues import Queues
from captions.records.table import Records
from captions.uploads.s3_objects import Objects
from captions_cli.local.model_endpoint import LocalEndpoint
from support.pipeline import BUCKET, MEDIA, REGION, Aws, Clock, Dedupe, aws_in_this_process, locked
from support.worker import Workshop, workshop


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with aws_in_this_process():
        lock = threading.RLock()
        dynamodb, s3, sqs, events = (
            locked(boto3.client(service, region_name=REGION), lock) for service in ("dynamodb", "s3", "sqs", "events")
        )
        s3.create_bucket(Bucket=BUCKET)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        dynamodb.create_table(
            TableName="captions",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "asset", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("asset", "activity", "activity_at")
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "activity",
                    "KeySchema": [
                        {"AttributeName": "activity", "KeyType": "HASH"},
                        {"AttributeName": "activity_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
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
        yield Aws(dynamodb, s3, sqs, events, urls["uploads"], urls["images"], urls["audio"], urls["heard"])


@pytest.fixture
def dedupe(aws: Aws) -> Dedupe:
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


@pytest.fixture
def photo() -> bytes:
    return (MEDIA / "casa-mila.jpg").read_bytes()


@pytest.fixture
def other_photo() -> bytes:
    return (MEDIA / "perched-osprey.jpg").read_bytes()


@pytest.fixture
def speech() -> bytes:
    return (MEDIA / "block-books.wav").read_bytes()


@pytest.fixture
def endpoint() -> Iterator[LocalEndpoint]:
    with LocalEndpoint(latency_scale=0.0) as running:
        yield running


@pytest.fixture
def shop(aws: Aws, dedupe: Dedupe, endpoint: LocalEndpoint) -> Workshop:
    return workshop(aws, dedupe, endpoint)
