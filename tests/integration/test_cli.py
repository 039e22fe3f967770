"""The `captions` command against AWS as the local stack stands in for it, on records as the pipeline writes them."""

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from captions.aws.dynamodb import to_item
from captions.completion_events import NotDeliveredError, Notifier
from captions.queues import Revisit
from captions.records.attempts import paid as paid_fields
from captions.records.record import Provenance, Reason, Record, Result, fitted
from captions.records.table import Records
from captions.routing.estimates import PICTURE_TOKENS
from captions.tasks import TASKS, Ask
from captions.uploads.s3_objects import Objects, UnreadableError
from captions.uploads.version import ObjectVersion, pad_sequencer
from captions_cli import recaptioning
from captions_cli.local.aws.repairs.message_moves import MessageMoveTasks
from captions_cli.local.aws.server import AwsEndpoint
from captions_cli.main import app
from captions_cli.stack import Choice, connect, home
from captions_cli.webhooks import events_of, events_since

REGION = "us-east-1"
QUEUES = ("Uploads", "Image", "Audio", "UploadsDeadLetter", "ImageDeadLetter", "AudioDeadLetter", "RuleDeadLetter")


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    moves = MessageMoveTasks()
    server = AwsEndpoint([moves])
    moves.locks = server.locks
    yield server.start()
    server.stop()


@functools.cache
def client_at(url: str, service: str) -> Any:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)  # type: ignore[call-overload] # named at run time


@dataclass
class Cloud:
    """A stack's resources, and the hand of the pipeline that writes its records."""

    url: str
    name: str
    outputs: dict[str, str] = field(default_factory=dict)
    sequence: int = 0

    def client(self, service: str) -> Any:
        return client_at(self.url, service)

    @property
    def bucket(self) -> str:
        return self.outputs["MediaBucketName"]

    @property
    def records(self) -> Records:
        return Records(self.client("dynamodb"), self.outputs["CaptionsTableName"])

    def accept(self, key: str, version_id: str | None = None, *, at: float | None = None) -> ObjectVersion:
        self.sequence += 1
        version = ObjectVersion(
            bucket=self.bucket, key=key, version_id=version_id, sequencer=pad_sequencer(f"{self.sequence:016X}")
        )
        now = time.time() if at is None else at
        self.records.accept(version, now=now, due=now + 120)
        return version

    def caption(self, key: str, text: str = "a dog", version_id: str | None = None, **more: Any) -> Record | None:
        at = more.pop("at", time.time())
        provenance = Provenance(model="GPT-4o", cost="0.00123", latency_ms=840, attempts=({"outcome": "ok"},))
        return self.records.finish(
            self.accept(key, version_id, at=at),
            "captioned",
            now=at + 1.5,
            source=more.pop("source", "model"),
            result=fitted(Result(text=text, language="en", task="caption")),
            provenance=more.pop("provenance", provenance),
            kind="image",
            media_type="image/jpeg",
        )

    def end(self, key: str, state: Any, code: str, message: str, version_id: str | None = None) -> None:
        reason = Reason(code=code, message=message)
        self.records.finish(self.accept(key, version_id), state, now=time.time(), reason=reason)

    def listen(self) -> Callable[[], list[dict[str, Any]]]:
        """Return what takes the events of the stack's bus since now, in their order."""
        sqs, events = self.client("sqs"), self.client("events")
        url = sqs.create_queue(QueueName=f"heard-{self.name}")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name="heard", EventBusName=self.name, EventPattern='{"source": ["media-captions"]}')
        events.put_targets(Rule="heard", EventBusName=self.name, Targets=[{"Id": "heard", "Arn": arn}])

        def heard() -> list[dict[str, Any]]:
            result = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            return [json.loads(message["Body"]) for message in result.get("Messages", [])]

        return heard

    def taken(self, queue: str) -> list[dict[str, Any]]:
        """Take every message off a queue."""
        url, bodies = self.outputs[f"{queue}QueueUrl"], []
        while messages := self.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(json.loads(message["Body"]))
                self.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def messages(self, queue: str) -> list[dict[str, Any]]:
        result = self.client("sqs").receive_message(
            QueueUrl=self.outputs[f"{queue}QueueUrl"], MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        return [json.loads(message["Body"]) for message in result.get("Messages", [])]


@pytest.fixture
def cloud(aws_url: str, request: pytest.FixtureRequest) -> Cloud:
    name = f"stack-{abs(hash(request.node.nodeid)) % 10**8}"
    made = Cloud(aws_url, name)
    made.client("s3").create_bucket(Bucket=f"media-{name}")
    made.client("s3").put_bucket_versioning(Bucket=f"media-{name}", VersioningConfiguration={"Status": "Enabled"})
    made.client("dynamodb").create_table(
        TableName=f"captions-{name}",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": attribute, "AttributeType": "S"}
            for attribute in ("asset", "activity", "activity_at", "attention", "attention_rank")
        ],
        KeySchema=[{"AttributeName": "asset", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "activity",
                "KeySchema": [
                    {"AttributeName": "activity", "KeyType": "HASH"},
                    {"AttributeName": "activity_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
            {
                "IndexName": "attention",
                "KeySchema": [
                    {"AttributeName": "attention", "KeyType": "HASH"},
                    {"AttributeName": "attention_rank", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    )
    made.client("dynamodb").create_table(
        TableName=f"control-{name}",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": attribute, "AttributeType": "S"} for attribute in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    made.client("events").create_event_bus(Name=name)
    made.outputs = {
        "MediaBucketName": f"media-{name}",
        "CaptionsTableName": f"captions-{name}",
        "ControlTableName": f"control-{name}",
        "EventBusName": name,
    }
    for queue in QUEUES:
        created = made.client("sqs").create_queue(QueueName=f"{queue}-{name}")
        made.outputs[f"{queue}QueueUrl"] = created["QueueUrl"]
    for queue in ("Uploads", "Image", "Audio"):
        sqs, dead = made.client("sqs"), made.outputs[f"{queue}DeadLetterQueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
        sqs.set_queue_attributes(QueueUrl=made.outputs[f"{queue}QueueUrl"], Attributes={"RedrivePolicy": policy})
    template = {
        "Resources": {"Marker": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in made.outputs.items()},
    }
    made.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))
    return made


Captions = Callable[..., Ran]


@pytest.fixture
def captions(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captions:
    """Runs the command as a user of a local stack does."""
    state = {
        "pid": 1,
        "aws_endpoint_url": cloud.url,
        "model_endpoint_url": "http://127.0.0.1:9/v1",
        "stack_name": cloud.name,
        "region": REGION,
        "bucket": cloud.bucket,
        "started_at": "2026-01-01T00:00:00Z",
    }
    home = tmp_path / "home"
    home.mkdir()
    (home / "stack.json").write_text(json.dumps(state))
    monkeypatch.setenv("CAPTIONS_HOME", str(home))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def pipeline(cloud: Cloud) -> Iterator[dict[str, Callable[[str, str], object]]]:
    """Ends uploads while a command waits: what to do with a key and its version, by key."""
    todo: dict[str, Callable[[str, str], object]] = {}
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            versions = cloud.client("s3").list_object_versions(Bucket=cloud.bucket).get("Versions", [])
            for version in versions:
                if version["IsLatest"] and (act := todo.pop(version["Key"], None)):
                    act(version["Key"], version["VersionId"])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        yield todo
        stop.set()
        running.result()


def photo(directory: Path, name: str, content: bytes = b"jpeg") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_upload_waits_for_captions_and_prints_them_in_the_order_given(
    captions: Captions, cloud: Cloud, pipeline: dict[str, Callable[[str, str], object]], tmp_path: Path
) -> None:
    pipeline["b.jpg"] = lambda key, version: cloud.caption(key, "a bee", version)
    pipeline["a.jpg"] = lambda key, version: cloud.caption(key, "an ant", version)

    ran = captions("upload", photo(tmp_path, "b.jpg"), photo(tmp_path, "a.jpg"), "--output", "json", "--timeout", "20")

    assert ran.exit_code == 0
    rows = json.loads(ran.stdout)
    assert [(row["key"], row["state"], row["text"]) for row in rows] == [
        ("b.jpg", "captioned", "a bee"),
        ("a.jpg", "captioned", "an ant"),
    ]
    assert rows[0]["cost"] == "0.00123"
    assert rows[0]["seconds"] == 1.5
    assert "captioned a.jpg" in ran.stderr


def test_upload_of_a_directory_keeps_its_names_under_the_prefix(
    captions: Captions, cloud: Cloud, tmp_path: Path
) -> None:
    photo(tmp_path, "trip/day 1/é #1.jpg")
    photo(tmp_path, "trip/z.jpg")
    photo(tmp_path, "trip/.DS_Store")

    ran = captions("upload", tmp_path / "trip", "--prefix", "2026/", "--no-wait", "-o", "json")

    assert ran.exit_code == 0
    keys = [entry["Key"] for entry in cloud.client("s3").list_objects_v2(Bucket=cloud.bucket)["Contents"]]
    assert keys == ["2026/trip/day 1/é #1.jpg", "2026/trip/z.jpg"]
    assert [row["state"] for row in json.loads(ran.stdout)] == ["uploaded", "uploaded"]


def test_upload_of_something_that_is_rejected_says_why_and_exits_1(
    captions: Captions, cloud: Cloud, pipeline: dict[str, Callable[[str, str], object]], tmp_path: Path
) -> None:
    pipeline["notes.jpg"] = lambda key, version: cloud.end(key, "rejected", "unsupported", "it is text", version)

    ran = captions("upload", photo(tmp_path, "notes.jpg"), "--timeout", "20")

    assert ran.exit_code == 1
    assert "rejected" in ran.stdout
    assert "it is text" in ran.stdout


def test_upload_whose_caption_never_comes_exits_4(captions: Captions, cloud: Cloud, tmp_path: Path) -> None:
    ran = captions("upload", photo(tmp_path, "a.jpg"), "--timeout", "0.1", "-o", "json")

    assert ran.exit_code == 4
    assert json.loads(ran.stdout)[0]["state"] == "uploaded"
    assert "1 of 1 uploads were still on their way" in ran.stderr


def test_upload_over_a_captioned_key_waits_for_the_new_version(
    captions: Captions, cloud: Cloud, pipeline: dict[str, Callable[[str, str], object]], tmp_path: Path
) -> None:
    cloud.caption("a.jpg", "the old picture", "an-older-version")
    pipeline["a.jpg"] = lambda key, version: cloud.caption(key, "the new picture", version)

    ran = captions("upload", photo(tmp_path, "a.jpg"), "-o", "json", "--timeout", "20")

    assert ran.exit_code == 0
    assert json.loads(ran.stdout)[0]["text"] == "the new picture"


def test_upload_that_another_one_replaces_ends_as_superseded(
    captions: Captions, cloud: Cloud, pipeline: dict[str, Callable[[str, str], object]], tmp_path: Path
) -> None:
    def replace(key: str, version: str) -> None:
        newer = cloud.client("s3").put_object(Bucket=cloud.bucket, Key=key, Body=b"other")
        cloud.caption(key, "the other picture", newer["VersionId"])

    pipeline["a.jpg"] = replace

    ran = captions("upload", photo(tmp_path, "a.jpg"), "-o", "json", "--timeout", "20")

    assert ran.exit_code == 1
    assert json.loads(ran.stdout)[0]["state"] == "superseded"


def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    captions: Captions, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = photo(tmp_path, "gone.jpg")
    whole = photo(tmp_path, "whole.jpg")
    opened = Path.open

    def unreadable(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == gone:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", unreadable)

    ran = captions("upload", gone, whole, "--no-wait", "-o", "json")

    assert ran.exit_code == 1
    rows = json.loads(ran.stdout)
    assert [row["state"] for row in rows] == ["not_uploaded", "uploaded"]
    assert "Permission denied" in rows[0]["reason"]["message"]


def test_ls_shows_what_is_on_its_way_then_what_ended_newest_first(captions: Captions, cloud: Cloud) -> None:
    now = time.time()
    for index in range(12):
        cloud.caption(f"done-{index:02}.jpg", at=now - 60 + index)
    cloud.caption("yesterday.jpg", at=now - 86_400)
    cloud.accept("moving.jpg")

    ran = captions("ls", "-o", "json")

    assert ran.exit_code == 0
    assert [row["key"] for row in json.loads(ran.stdout)] == [
        "moving.jpg",
        *(f"done-{index:02}.jpg" for index in reversed(range(12))),
        "yesterday.jpg",
    ]
    limited = json.loads(captions("ls", "--limit", "3", "--state", "captioned", "--output=json").stdout)
    assert [row["key"] for row in limited] == ["done-11.jpg", "done-10.jpg", "done-09.jpg"]


def test_ls_filters_by_state_and_prefix(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("a/one.jpg")
    cloud.caption("b/one.jpg")
    cloud.end("a/two.jpg", "failed", "exhausted", "every model failed")

    by_state = captions("ls", "--state", "failed", "--state", "blocked", "-o", "json")
    by_prefix = captions("ls", "--prefix", "a/", "-o", "json")

    assert [row["key"] for row in json.loads(by_state.stdout)] == ["a/two.jpg"]
    assert sorted(row["key"] for row in json.loads(by_prefix.stdout)) == ["a/one.jpg", "a/two.jpg"]
    assert captions("ls", "--state", "nonsense").exit_code == 2


def test_ls_prints_one_whole_line_per_upload_and_no_control_characters(captions: Captions, cloud: Cloud) -> None:
    key = "odd [bold]\x1b[31mname\x1b[0m\n.jpg"
    cloud.caption(key, "a caption\nof two lines " + "and many words " * 40)

    ran = captions("ls")

    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert len(lines) == 2  # the heading and the record
    assert "odd [bold]\\x1b[31mname\\x1b[0m\\n.jpg" in lines[1]
    assert "\x1b" not in ran.stdout


def test_ls_of_an_empty_stack_says_so(captions: Captions, cloud: Cloud) -> None:
    ran = captions("ls")

    assert (ran.exit_code, ran.stdout, ran.stderr) == (
        0,
        "",
        "no uploads in the last 7 days; --days looks further back\n",
    )


def test_an_answer_that_came_after_a_persons_words_is_a_suggestion(captions: Captions, cloud: Cloud) -> None:
    record = cloud.caption("a.jpg", "a dog")
    assert record is not None
    words = {"sequencer": record.sequencer, "action": "edited", "text": "Rex", "at": "2026-01-01T00:00:00.000000Z"}
    beside = {"source": "model", "result": {"text": "a dog", "language": "en", "task": "caption"}}

    def get(at: str) -> dict[str, Any]:
        cloud.client("dynamodb").update_item(
            TableName=cloud.outputs["CaptionsTableName"],
            Key={"asset": {"S": record.asset}},
            UpdateExpression="SET human = :words, suggestion = :beside",
            ExpressionAttributeValues=to_item({":words": words, ":beside": beside | {"at": at}}),
        )
        shown: dict[str, Any] = json.loads(captions("get", "a.jpg", "-o", "json").stdout)
        return shown

    later, earlier = get("2026-01-02T00:00:00.000000Z"), get("2025-12-31T00:00:00.000000Z")
    assert (later["suggestion"]["result"]["text"], later["replaced_answer"]) == ("a dog", None)
    assert (earlier["suggestion"], earlier["replaced_answer"]["result"]["text"]) == (None, "a dog")


def test_get_shows_the_whole_record(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("a b.jpg", "a dog")

    whole = json.loads(captions("get", f"s3://{cloud.bucket}/a b.jpg", "-o", "json").stdout)
    pretty = captions("get", "a b.jpg").stdout

    assert whole["provenance"]["attempts"] == [{"outcome": "ok"}]
    unsaid: dict[str, Any] = {"style": "", "tags": [], "safety": None, "confidence": None, "data": {}, "left_out": []}
    assert whole["result"] == {"text": "a dog", "language": "en", "task": "caption", **unsaid}
    assert "provenance.attempts[0].outcome  ok" in pretty


def test_get_says_what_a_record_had_no_room_for(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("long.png", "a page " * 60_000)

    assert json.loads(captions("get", "long.png", "-o", "json").stdout)["result"]["left_out"] == ["text"]
    assert "result.left_out[0]" in captions("get", "long.png").stdout


def test_get_tells_a_missing_object_from_one_without_a_record(captions: Captions, cloud: Cloud) -> None:
    cloud.client("s3").put_object(Bucket=cloud.bucket, Key="early.jpg", Body=b"x")

    early, never = captions("get", "early.jpg"), captions("get", "never.jpg")

    assert (early.exit_code, never.exit_code) == (1, 1)
    assert "has no record yet" in early.stderr
    assert "there is no never.jpg" in never.stderr


@pytest.mark.parametrize(
    "words", ["get {}", "edit {} text", "edit a.jpg {}", "search {}", "redrive {}", "reconcile --prefix {}"]
)
def test_a_word_in_another_encoding_is_refused_in_one_line(captions: Captions, words: str) -> None:
    ran = captions(*words.format("caf\udce9.jpg").split())

    assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1)
    assert "caf\\udce9.jpg is no Unicode text" in ran.stderr


def test_redrive_puts_failed_uploads_back_on_the_uploads_queue(captions: Captions, cloud: Cloud) -> None:
    cloud.end("lost.jpg", "failed", "exhausted", "every model failed")
    cloud.end("refused.jpg", "blocked", "refused", "every model refused")
    cloud.caption("fine.jpg")

    assert json.loads(captions("redrive", "--days", "2", "--dry-run", "-o", "json").stdout)["uploads"] == ["lost.jpg"]
    assert cloud.messages("Uploads") == []
    ran = captions("redrive", "--days", "2", "-o", "json")

    assert ran.exit_code == 0
    revisits = [Revisit.model_validate(message) for message in cloud.messages("Uploads")]
    assert [(revisit.upload.key, revisit.reason) for revisit in revisits] == [("lost.jpg", "redrive")]


def test_redrive_of_a_key_that_has_not_failed_does_nothing(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("fine.jpg")

    ran = captions("redrive", "fine.jpg")

    assert ran.exit_code == 1
    assert "fine.jpg is captioned, not failed" in ran.stderr
    assert captions("redrive", "--state", "captioned").exit_code == 2


def test_redrive_returns_events_that_never_reached_the_uploads_queue(captions: Captions, cloud: Cloud) -> None:
    for number in range(12):
        cloud.client("sqs").send_message(
            QueueUrl=cloud.outputs["RuleDeadLetterQueueUrl"], MessageBody=json.dumps({"event": number})
        )

    ran = captions("redrive", "--days", "2", "-o", "json")

    assert {"queue": "rule", "messages": 12, "started": True, "problem": None} in json.loads(ran.stdout)["dead_letters"]
    left = captions("status", "-o", "json")
    queues = json.loads(left.stdout)["queues"]
    assert queues["RuleDeadLetter"]["visible"] == 0
    assert queues["Uploads"]["visible"] == 12


def test_redrive_moves_dead_letters_back_to_their_queue(captions: Captions, cloud: Cloud) -> None:
    for number in range(3):
        cloud.client("sqs").send_message(
            QueueUrl=cloud.outputs["ImageDeadLetterQueueUrl"], MessageBody=json.dumps({"job": number})
        )

    dry = json.loads(captions("redrive", "--days", "2", "--dry-run", "-o", "json").stdout)["dead_letters"]
    done = json.loads(captions("redrive", "--days", "2", "-o", "json").stdout)["dead_letters"]

    assert {"queue": "image", "messages": 3, "started": False, "problem": None} in dry
    assert {"queue": "image", "messages": 3, "started": True, "problem": None} in done
    deadline = time.monotonic() + 20
    while len(cloud.messages("Image")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_redrive_of_single_uploads_leaves_dead_letters_alone(captions: Captions, cloud: Cloud) -> None:
    cloud.end("lost.jpg", "failed", "gave_up", "no model answered")
    cloud.client("sqs").send_message(QueueUrl=cloud.outputs["ImageDeadLetterQueueUrl"], MessageBody="{}")

    assert json.loads(captions("redrive", "lost.jpg", "-o", "json").stdout)["dead_letters"] == []


def test_status_counts_queues_and_states(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("fine.jpg")
    cloud.accept("moving.jpg")
    cloud.client("sqs").send_message(QueueUrl=cloud.outputs["ImageDeadLetterQueueUrl"], MessageBody="{}")

    result = json.loads(captions("status", "-o", "json").stdout)
    shown = captions("status")

    assert result["bucket"] == cloud.bucket
    assert result["queues"]["ImageDeadLetter"] == {"visible": 1, "in_flight": 0, "delayed": 0}
    assert {state: number for state, number in result["uploads"].items() if number} == {"captioned": 1, "received": 1}
    assert shown.exit_code == 0
    assert "ImageDeadLetter" in shown.stdout


def test_a_deployed_stack_is_found_by_its_name_although_a_local_one_is_up(
    captions: Captions, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.caption("fine.jpg")
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")

    there = captions("ls", "--stack-name", cloud.name, "--region", REGION, "-o", "json")
    elsewhere = captions("--region", "eu-west-1", "ls", "--stack-name", cloud.name)

    assert [row["key"] for row in json.loads(there.stdout)] == ["fine.jpg"]
    assert elsewhere.exit_code == 3
    assert f"there is no stack {cloud.name} in eu-west-1" in elsewhere.stderr


def test_a_stack_that_does_not_answer_exits_3_in_one_line(
    captions: Captions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "home" / "stack.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "aws_endpoint_url": "http://127.0.0.1:9"}))

    ran = captions("ls")

    assert ran.exit_code == 3
    assert ran.stderr.strip().splitlines() == [
        "captions: the local stack at http://127.0.0.1:9 does not answer; `captions up` starts it"
    ]


def test_what_aws_refuses_is_told_in_one_line(captions: Captions, cloud: Cloud) -> None:
    cloud.client("dynamodb").delete_table(TableName=cloud.outputs["CaptionsTableName"])

    ran = captions("ls")

    assert ran.exit_code == 5
    assert ran.stderr.startswith("captions: AWS refused Query: ResourceNotFoundException")
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_persons_words_take_the_captions_place_and_its_acceptance_is_noted(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("a.jpg", "a dog")
    cloud.caption("b.jpg", "a cat")
    heard = cloud.listen()

    assert captions("edit", "a.jpg", "My dog Rex", "--language", "en-GB").exit_code == 0
    assert captions("accept", f"s3://{cloud.bucket}/b.jpg").exit_code == 0
    assert captions("accept", "b.jpg").exit_code == 0  # once more changes nothing

    edited = json.loads(captions("get", "a.jpg", "-o", "json").stdout)
    assert (edited["source"], edited["result"]["text"], edited["result"]["language"]) == (
        "human",
        "My dog Rex",
        "en-GB",
    )
    # The person saw what they replaced: it is no suggestion.
    assert (edited["replaced_answer"]["result"]["text"], edited["suggestion"]) == ("a dog", None)
    pretty = captions("get", "a.jpg").stdout
    assert "replaced_answer.result.text" in pretty
    assert "suggestion" not in pretty
    reported = [(item["detail-type"], item["detail"]["key"], item["detail"]["text"]) for item in heard()]
    assert reported[:2] == [("Caption.Edited", "a.jpg", "My dog Rex"), ("Caption.Accepted", "b.jpg", "a cat")]
    assert set(reported[2:]) <= {reported[1]}  # the acceptance that changed nothing is told again, with the same id
    items = cloud.client("dynamodb").scan(TableName=cloud.outputs["ControlTableName"])["Items"]
    counted = [item for item in items if item["pk"]["S"].startswith("quality#")]
    assert [(item["pk"]["S"], item["accepted"]["N"], item["edited"]["N"]) for item in counted] == [
        ("quality#GPT-4o#caption", "1", "1")
    ]
    assert captions("accept", "a.jpg").exit_code == 1
    assert captions("edit", "a.jpg", " ").exit_code == 2
    assert captions("edit", "a.jpg", "words", "--language", "english").exit_code == 2
    assert captions("edit", "none.jpg", "words").exit_code == 1
    assert captions("undo", "a.jpg").exit_code == 0
    undone = json.loads(captions("get", "a.jpg", "-o", "json").stdout)
    assert (undone["source"], undone["result"]["text"], undone["human"]) == ("model", "a dog", None)
    assert [(item["detail-type"], item["detail"]["text"]) for item in heard()] == [("Caption.Undone", "a dog")]
    assert captions("undo", "a.jpg").exit_code == 1


def test_a_verdict_that_could_not_be_published_is_said_to_be_stored(
    captions: Captions, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.caption("a.jpg", "a dog")
    captions("edit", "a.jpg", "one")
    captions("edit", "a.jpg", "two")

    def refused(self: Notifier, record: Record) -> None:
        raise NotDeliveredError("1 events were not taken: ThrottlingException")

    monkeypatch.setattr(Notifier, "undone", refused)
    ran = captions("undo", "a.jpg")

    # Whoever took it for a failure and undid once more would take the first words back too.
    assert (ran.exit_code, ran.stderr.count("\n")) == (5, 1)
    assert "a.jpg: the verdict is taken back, but its event could not be published" in ran.stderr


def test_a_replay_tells_of_a_verdict_that_was_taken_back_under_the_id_it_had(captions: Captions, cloud: Cloud) -> None:
    cloud.caption("a.jpg", "a dog")
    heard = cloud.listen()
    for words in (("edit", "a.jpg", "one"), ("edit", "a.jpg", "two"), ("undo", "a.jpg")):
        captions(*words)
    undone = next(item["detail"] for item in heard() if item["detail-type"] == "Caption.Undone")

    record = Records(cloud.client("dynamodb"), cloud.outputs["CaptionsTableName"]).get(f"{cloud.bucket}/a.jpg")
    assert record is not None
    assert dict(events_of(record))["Caption.Undone"] == undone
    captions("edit", "a.jpg", "three")
    edited = Records(cloud.client("dynamodb"), cloud.outputs["CaptionsTableName"]).get(f"{cloud.bucket}/a.jpg")
    assert edited is not None
    assert "Caption.Undone" not in dict(events_of(edited))


def test_a_replay_tells_of_verdicts_on_captions_of_any_age(captions: Captions, cloud: Cloud) -> None:
    for key in ("old.jpg", "older.jpg", "other/old.jpg"):
        cloud.caption(key, at=time.time() - 40 * 86_400)
    cloud.caption("new.jpg")
    for key in ("old.jpg", "new.jpg", "other/old.jpg"):
        captions("edit", key, "My words")

    since = datetime.fromtimestamp(time.time() - 60, UTC)
    stack = connect(Choice(), home())
    replayed = sorted((event["detail"]["key"], event["detail-type"]) for event in events_since(stack, since, ""))
    assert replayed == [
        ("new.jpg", "Caption.Completed"),
        ("new.jpg", "Caption.Edited"),
        ("old.jpg", "Caption.Edited"),
        ("other/old.jpg", "Caption.Edited"),
    ]
    assert [event["detail"]["key"] for event in events_since(stack, since, "other/")] == ["other/old.jpg"]


def test_days_to_come_are_not_exported(captions: Captions, cloud: Cloud, tmp_path: Path) -> None:
    cloud.caption("a.jpg", "a dog")
    today = datetime.now(UTC).date()
    ran = captions("export", str(tmp_path / "out"), "--since", str(today), "--until", "2900-01-01")

    assert ran.exit_code == 0
    assert {path.stem for path in (tmp_path / "out").glob("2*")} <= {str(today), str(datetime.now(UTC).date())}


@pytest.mark.deep
def test_quality_tells_what_people_edit_and_opens_the_pictures_behind_it(captions: Captions, cloud: Cloud) -> None:
    assert captions("quality").exit_code == 0
    tried = {"experiment": "short", "category": "photo", "prompt_version": "caption-1"}
    for number in range(6):
        arm = {"arm": "variant" if number % 2 else "control"}
        cloud.caption(f"{number}.jpg", provenance=Provenance(model="GPT-4o", **tried, **arm))
    for key in ("1.jpg", "3.jpg", "5.jpg"):
        assert captions("edit", key, "My dog\x1b[2J Rex").exit_code == 0
    assert captions("accept", "0.jpg").exit_code == 0
    report = json.loads(captions("quality", "-o", "json").stdout)
    assert (report["minimum"], report["line"]) == (20, 0.3)
    variant, control = report["cells"]
    assert (variant["category"], variant["model"], variant["arm"]) == ("photo", "GPT-4o", "variant")
    assert (variant["edited"], variant["share"], variant["flagged"]) == (3, 1.0, False)
    assert 0 < variant["low"] < 1 == variant["high"]
    assert control["accepted"] == 1
    shown = captions("quality").stdout
    assert "short variant" in shown
    assert variant["id"] in shown
    behind = json.loads(captions("quality", variant["id"][:6], "-o", "json").stdout)
    assert [upload["key"] for upload in behind["uploads"]] == ["5.jpg", "3.jpg", "1.jpg"]
    assert "\x1b" not in captions("quality", variant["id"]).stdout
    assert captions("quality", "nothing").exit_code == 1
    sides = captions("quality", "--by", "experiment")
    assert "cannot be told" in sides.stderr
    grouped = json.loads(captions("quality", "--by", "experiment", "-o", "json").stdout)
    assert [group["experiment"] for group in grouped["groups"]] == ["short control", "short variant"]
    assert grouped["differences"][0]["by"] == 1.0
    assert json.loads(captions("quality", "--category", "chart", "-o", "json").stdout)["cells"] == []
    for by in ("category", "model", "prompt"):
        (group,) = json.loads(captions("quality", "--by", by, "-o", "json").stdout)["groups"]
        assert (group["edited"], group["accepted"]) == (3, 1)


def test_recaption_only_counts_until_it_is_told_to_run(captions: Captions, cloud: Cloud) -> None:
    today = Ask(task="caption").version
    last = {"outcome": "ok", "prompt_tokens": 1000, "completion_tokens": 100}
    for key, version in (("a.jpg", "caption-0ld"), ("b.jpg", today), ("sub/c.jpg", "caption-0ld")):
        provenance = Provenance(model="GPT-4o", prompt_version=version, tier="long", attempts=(last,))
        cloud.caption(key, provenance=provenance)
    cloud.end("d.jpg", "failed", "gave_up", "no model answered")

    dry = json.loads(captions("recaption", "--stale", "-o", "json").stdout)
    assert (dry["dry_run"], dry["sent"]) == (True, 0)
    assert sorted(upload["key"] for upload in dry["uploads"]) == ["a.jpg", "sub/c.jpg"]
    # GLM-4-Plus, the first model of that tier: 1,000 tokens at $0.20 and 100 at $0.80 a million, twice.
    assert (dry["expected_cost"], dry["without_known_price"]) == ("0.00056", 0)
    # GPT-4o is the dearest of it: 1,000 tokens at $2.50 and an answer of full length at $10 a million, and again where
    # it is shown its answer.
    longest = TASKS["caption"].max_tokens
    each = Decimal(1000 * 5 + longest * 5 // 2 + longest * 20) / 1_000_000
    assert Decimal(dry["largest_cost"]) == 2 * each
    assert dry["models_without_price"] == []
    assert cloud.messages("Uploads") == []

    ran = captions("recaption", "--stale", "--run", "--prefix", "sub/")
    assert ran.exit_code == 0
    assert "1 upload on its way" in ran.stderr
    (sent,) = cloud.messages("Uploads")
    revisit = Revisit.model_validate(sent)
    assert (revisit.upload.key, revisit.reason, revisit.mode) == ("sub/c.jpg", "recaption", "stale")

    within = json.loads(captions("recaption", "--force", "--max-cost", "0.0006", "-o", "json").stdout)
    assert (len(within["uploads"]), within["left_out"]) == (2, 1)
    assert captions("recaption").exit_code == 2
    assert captions("recaption", "--stale", "--force").exit_code == 2


def test_the_most_counts_the_tier_above(captions: Captions, cloud: Cloud) -> None:
    longest = TASKS["caption"].max_tokens
    cloud.caption("a.jpg", provenance=Provenance(model="GLM-4-Plus", tier="easy", attempts=({"outcome": "ok"},)))
    (item,) = json.loads(captions("recaption", "--force", "-o", "json").stdout)["uploads"]
    # Without an answer's tokens to go by: a picture's, with GPT-4o for all three calls, the second one being a repair.
    tokens, answers = 3 * PICTURE_TOKENS + longest, 3 * longest
    assert Decimal(item["largest_cost"]) == (Decimal("2.5") * tokens + 10 * answers) / 1_000_000


@pytest.mark.parametrize("cost", ["0.0005", pytest.param("0.004", marks=pytest.mark.deep)])
def test_recaption_stops_when_what_was_spent_leaves_no_room_for_another(
    captions: Captions, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, cost: str
) -> None:
    last = {"outcome": "ok", "prompt_tokens": 1000, "completion_tokens": 100, "cost": "0.5", "model": "GPT-4o"}
    for number in range(12):
        cloud.caption(f"{number}.jpg", provenance=Provenance(model="GPT-4o", tier="long", attempts=(last,)))
    dry = json.loads(captions("recaption", "--force", "-o", "json").stdout)
    limit, most = Decimal("0.05"), Decimal(dry["largest_cost"])
    paid: dict[str, Decimal] = {}

    def worked(seconds: float) -> None:
        """What the functions make of everything that was sent so far."""
        for message in cloud.taken("Uploads"):
            upload, now = Revisit.model_validate(message).upload, time.time() + 1
            record = cloud.records.get(upload.asset)
            assert record is not None
            taken = cloud.records.recaption(record, "force", now=now, due=now)
            assert taken is not None
            made = (*taken.attempts, last | {"cost": cost})
            result = Result(text="again", language="en", task="caption")
            provenance = Provenance(model="GPT-4o", **paid_fields(made))
            cloud.records.finish(upload, "captioned", now=now, source="model", result=result, provenance=provenance)
            paid[upload.key] = Decimal(cost)

    monkeypatch.setattr(recaptioning, "send_within", partial(recaptioning.send_within, pause=worked))
    reported = json.loads(captions("recaption", "--force", "--run", "--max-cost", str(limit), "-o", "json").stdout)
    worked(0)
    assert reported["sent"] == len(paid)
    assert reported["sent"] + reported["left_out"] == 12
    assert sum(paid.values()) <= limit
    if cost == "0.0005":
        assert most > limit  # what they turned out to cost made room for all of them
        assert reported["left_out"] == 0
    else:
        assert sum(paid.values()) + most / 12 > limit
        assert reported["left_out"] > 0
        assert Decimal(reported["spent"]) == sum(paid.values())


def test_recaption_waits_for_nothing_that_does_not_come(
    captions: Captions, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = {"outcome": "ok", "prompt_tokens": 1000, "completion_tokens": 100}
    for number in range(12):
        cloud.caption(f"{number}.jpg", provenance=Provenance(model="GPT-4o", tier="long", attempts=(last,)))
    at = iter(range(0, 100_000, 100))
    impatient = partial(recaptioning.send_within, pause=lambda seconds: None, now=lambda: next(at))
    monkeypatch.setattr(recaptioning, "send_within", impatient)
    ran = captions("recaption", "--force", "--run", "--max-cost", "0.05")
    assert ran.exit_code == 0
    assert "nothing ended for 600 s" in ran.stderr
    assert 0 < len(cloud.messages("Uploads")) < 12


def test_recaption_finds_objects_that_nothing_is_known_of(captions: Captions, cloud: Cloud) -> None:
    for key in ("known.jpg", "unknown.jpg", "folder/"):
        cloud.client("s3").put_object(Bucket=cloud.bucket, Key=key, Body=b"" if key.endswith("/") else b"jpeg")
    cloud.caption("known.jpg")

    assert captions("recaption", "--missing", "--run").exit_code == 0

    (sent,) = cloud.messages("Uploads")
    assert (sent["upload"]["key"], sent["mode"]) == ("unknown.jpg", "missing")


def test_an_object_that_s3_does_not_tell_of_keeps_no_other_from_being_captioned(
    captions: Captions, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a-foreign-key.jpg", "mine.jpg"):
        cloud.client("s3").put_object(Bucket=cloud.bucket, Key=key, Body=b"jpeg")
    current = Objects.current

    def refused(objects: Objects, bucket: str, key: str) -> ObjectVersion | None:
        if key == "a-foreign-key.jpg":
            raise UnreadableError("key_unusable", "encrypted with a key of its owner's")
        return current(objects, bucket, key)

    monkeypatch.setattr(Objects, "current", refused)
    ran = captions("recaption", "--missing", "--run")
    assert (ran.exit_code, [sent["upload"]["key"] for sent in cloud.messages("Uploads")]) == (0, ["mine.jpg"])
    assert "1 objects are gone, or S3 does not tell of them" in ran.stderr


@pytest.mark.parametrize("words", ["reconcile --max-cost inf", "reconcile --older-than inf"])
def test_a_limit_that_is_no_number_is_refused(captions: Captions, words: str) -> None:
    ran = captions(*words.split())
    assert (ran.exit_code, "is no finite number" in ran.stderr) == (2, True)


def priced(*calls: tuple[str, str | None]) -> Provenance:
    """Provenance of calls to these models at these costs."""
    attempts = tuple({"model": model, "outcome": "ok", "cost": cost} for model, cost in calls)
    costs = [cost for _, cost in calls]
    known = None if None in costs else str(sum(map(Decimal, filter(None, costs))))
    return Provenance(model=calls[-1][0], cost=known, attempts=attempts)


TODAY = ("--days", "2")
"""Each day has eight queries, and a command looks at thirty days."""


def spent_by(captions: Captions, by: str, *arguments: str) -> dict[str, Any]:
    reported = json.loads(captions("--output", "json", "costs", "--by", by, *arguments).stdout)
    return {group[by]: group for group in reported["groups"]} | {
        "total": reported["total"],
        "complete": reported["complete"],
    }


@pytest.mark.deep
def test_costs_are_added_up_and_what_is_unknown_is_never_zero(cloud: Cloud, captions: Captions) -> None:
    cloud.caption("a/one.jpg", provenance=priced(("GLM-4-Plus", "0.002"), ("GPT-4o", "0.01")))
    tried = {"experiment": "short", "arm": "variant"}
    cloud.caption("a/two.jpg", provenance=priced(("free", None)).model_copy(update=tried))
    cloud.caption("b/copy.jpg", source="cache", provenance=Provenance(copied_from="x", saved="0.012", cost="0"))
    cloud.caption("b/copy2.jpg", source="cache", provenance=Provenance(copied_from="y", cost="0"))
    cloud.end("c.jpg", "rejected", "bomb", "too large")
    models = spent_by(captions, "model")
    assert models["GLM-4-Plus"]["cost"] == "0.002"
    assert models["free"]["cost"] is None
    assert models["free"]["cost_unknown"] == 1
    assert models["total"] == {
        "uploads": 5,
        "calls": 3,
        "cost": "0.012",
        "cost_unpriced_tokens": 0,
        "cost_unknown": 1,
        "copied": 2,
        "saved": "0.012",
        "saved_unpriced_tokens": 0,
        "saved_unknown": 1,
        "saved_by_batches": "0",
        "saved_by_batches_unpriced_tokens": 0,
    }
    prefixes = spent_by(captions, "prefix", *TODAY)
    assert {name: prefixes[name]["uploads"] for name in ("a/", "b/", "-")} == {"a/": 2, "b/": 2, "-": 1}
    assert spent_by(captions, "task", *TODAY)["caption"]["calls"] == 3
    sides = spent_by(captions, "experiment", *TODAY)
    assert {name: sides[name]["uploads"] for name in ("short variant", "-")} == {"short variant": 1, "-": 4}
    days = [group for name, group in spent_by(captions, "day").items() if name[:2] == "20"]
    assert sum(group["uploads"] for group in days) == 5
    assert spent_by(captions, "day", "--prefix", "b/", *TODAY)["total"]["calls"] == 0
    assert spent_by(captions, "day", "--at-most", "2", *TODAY)["complete"] is False


def test_the_table_of_costs_tells_what_is_unknown(cloud: Cloud, captions: Captions) -> None:
    cloud.caption("one.jpg", provenance=priced(("free", None)))
    cloud.caption("two.jpg", provenance=priced(("GPT-4o", "0.01")))
    lines = captions("costs", "--by", "model").stdout.splitlines()
    assert any("free" in line and "unknown (1)" in line for line in lines)
    assert lines[-1].split() == ["total", "2", "2", "\u2265", "$0.01", "+", "1", "unknown", "0", "$0", "$0"]


def test_reconcile_gives_uploads_from_before_the_indexes_their_places(cloud: Cloud, captions: Captions) -> None:
    for name in ("a/one.jpg", "a/two.jpg", "b/three.jpg"):
        cloud.caption(name)
        cloud.client("dynamodb").update_item(
            TableName=f"captions-{cloud.name}",
            Key={"asset": {"S": f"media-{cloud.name}/{name}"}},
            UpdateExpression="REMOVE attention, attention_rank",
        )

    def reconciled(*arguments: str) -> dict[str, Any]:
        reported: dict[str, Any] = json.loads(captions("--output", "json", "reconcile", "--index", *arguments).stdout)
        return reported

    assert reconciled("--dry-run") == {"dry_run": True, "unindexed": 3, "indexed": 0, "limit": None}
    assert reconciled("--prefix", "a/")["indexed"] == 2
    assert reconciled() == {"dry_run": False, "unindexed": 1, "indexed": 1, "limit": None}
    assert reconciled()["unindexed"] == 0
