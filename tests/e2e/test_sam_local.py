"""Each function in a real container with its built layers, invoked as a developer would, with the files of events/.

Its AWS and its model endpoint are those of a local stack on the host. The queues that jobs are sent to are the test's
own, so that the local stack's functions leave the jobs to the containers.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from captions.records.record import Record
from captions.records.table import Records
from captions_cli.local import LocalStack
from captions_cli.local.cloudformation.translate import load_template
from captions_cli.local.options import Address, ModelOptions, WorkerOptions
from support.permissions import Witness, allowed
from support.sam import ROOT, SamLocal, bridge_address, container_template, docker

# One worker has both files that build.
pytestmark = [pytest.mark.sam, pytest.mark.timeout(900)]

EVENTS = ROOT / "events"
MEDIA = ROOT / "cli" / "captions_cli" / "demo_media"
BUCKET = "amzn-s3-demo-bucket"
"""The bucket that the golden events are about; it has no notifications, so that nothing else works on its objects."""
PHOTO, COPY, SPEECH = "photos/perched-osprey.jpg", "copies/perched-osprey.jpg", "speech/comparatively-modern.mp3"


RESOURCES = load_template(ROOT / "template.yaml")["Resources"]
FUNCTIONS = frozenset(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function")
QUEUES = {"uploads": "UploadsQueue", "images": "ImageQueue", "audio": "AudioQueue", "lost": "RuleDeadLetterQueue"}
"""What the test's own queues stand for."""
PERMISSIONS = {function: allowed(RESOURCES, function) for function in FUNCTIONS}


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness(FUNCTIONS)


@pytest.fixture(scope="module")
def stack(witness: Witness) -> Iterator[LocalStack]:
    with LocalStack(
        ROOT / "template.yaml",
        interceptors=[witness],
        parameters={"Api": "iam"},
        address=Address(bind=bridge_address()),
        workers=WorkerOptions(schedules=False),
        model=ModelOptions(latency_scale=0),
    ) as running:
        outputs = running.outputs
        witness.names |= {
            outputs[f"{table}Name"]: table for table in ("CaptionsTable", "FingerprintsTable", "ControlTable")
        }
        witness.names |= {outputs["EventBusName"]: "EventBus", outputs["EndpointSecretArn"]: "EndpointSecret"}
        witness.names |= {BUCKET: "MediaBucket"} | {f"containers-{queue}": name for queue, name in QUEUES.items()}
        yield running


@dataclass(frozen=True)
class Bench:
    """One test's bucket, queues and empty tables, and the functions in containers."""

    stack: LocalStack
    sam: SamLocal
    records: Records
    queues: dict[str, str]

    def put(self, key: str, file: str) -> str | None:
        """Upload a file of the demo; returns its version."""
        answer = self.stack.client("s3").put_object(Bucket=BUCKET, Key=key, Body=(MEDIA / file).read_bytes())
        version: str | None = answer.get("VersionId")
        return version

    def record(self, key: str) -> Record:
        result = self.records.get(f"{BUCKET}/{key}")
        assert result is not None, f"nothing is recorded of {key}"
        return result

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """Take what stands on one of the test's queues."""
        sqs, url = self.stack.client("sqs"), self.queues[queue]
        taken = []
        while received := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in received:
                taken.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    def event(self, golden: str, *changes: dict[str, Any] | None) -> Path:
        """A golden batch with bodies changed in what only the running stack knows, such as versions and claims."""
        batch = json.loads((EVENTS / golden).read_text(encoding="utf-8"))
        for record, change in zip(batch["Records"], changes, strict=True):
            if change is not None:
                record["body"] = json.dumps(merged(json.loads(record["body"]), change))
        path = self.sam.folder / "event.json"
        path.write_text(json.dumps(batch), encoding="utf-8")
        return path

    def paid(self) -> list[dict[str, Any]]:
        """The requests that the model endpoint answered."""
        url = self.stack.endpoint_url.removesuffix("/v1") + "/_local/requests"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)
        requests = result["requests"] if isinstance(result, dict) else result
        return [request for request in requests if request["outcome"] == "ok"]


def merged(body: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {
        **body,
        **{
            name: merged(body.get(name) or {}, value) if isinstance(value, dict) else value
            for name, value in change.items()
        },
    }


def script(name: str) -> ModuleType:
    """A program of events/."""
    spec = importlib.util.spec_from_file_location(name, EVENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def functions_environment(stack: LocalStack) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = script("environment").environment(
        stack.client("lambda"), stack.outputs, stack.aws_endpoint_url
    )
    return result


@pytest.fixture(scope="module")
def built(stack: LocalStack) -> Path:
    return container_template()


@contextlib.contextmanager
def own_resources(stack: LocalStack, template: Path, folder: Path) -> Iterator[Bench]:
    s3, sqs, dynamodb = stack.client("s3"), stack.client("sqs"), stack.client("dynamodb")
    s3.create_bucket(Bucket=BUCKET)
    queues = {name: sqs.create_queue(QueueName=f"containers-{name}")["QueueUrl"] for name in QUEUES}
    reported = {
        "MEDIA_BUCKET": BUCKET,
        "UPLOADS_QUEUE_URL": queues["uploads"],
        "IMAGE_QUEUE_URL": queues["images"],
        "AUDIO_QUEUE_URL": queues["audio"],
        "RULE_DEAD_LETTER_QUEUE_URL": queues["lost"],
    }
    environment = {
        function: {name: reported.get(name, value) for name, value in variables.items()}
        for function, variables in functions_environment(stack).items()
    }
    records = Records(dynamodb, stack.outputs["CaptionsTableName"])
    request = urllib.request.Request(stack.endpoint_url.removesuffix("/v1") + "/_local/requests", method="DELETE")
    urllib.request.urlopen(request, timeout=10).close()
    yield Bench(stack, SamLocal(template, environment, folder), records, queues)
    for url in queues.values():
        sqs.delete_queue(QueueUrl=url)
    result = s3.list_object_versions(Bucket=BUCKET)
    for version in result.get("Versions", []) + result.get("DeleteMarkers", []):
        named = {} if version["VersionId"] == "null" else {"VersionId": version["VersionId"]}
        s3.delete_object(Bucket=BUCKET, Key=version["Key"], **named)
    s3.delete_bucket(Bucket=BUCKET)
    for table, keys in (("Captions", ("asset",)), ("Fingerprints", ("pk", "sk")), ("Control", ("pk", "sk"))):
        name = stack.outputs[f"{table}TableName"]
        for item in dynamodb.scan(TableName=name)["Items"]:
            dynamodb.delete_item(TableName=name, Key={key: item[key] for key in keys})


@pytest.fixture
def bench(stack: LocalStack, witness: Witness, built: Path, tmp_path: Path) -> Iterator[Bench]:
    with own_resources(stack, built, tmp_path) as bench:
        yield bench
    # Moto asks for no permissions; AWS will.
    forbidden = {asked for asked in witness.asked if (asked.action, asked.resource) not in PERMISSIONS[asked.function]}
    assert witness.asked
    assert not forbidden


@pytest.fixture
def served(stack: LocalStack, built: Path, tmp_path: Path) -> Iterator[Bench]:
    """The API's function; tests/support/api_policy.py holds what it asks for against its role."""
    template = tmp_path / "api.json"
    template.write_text(json.dumps(script("api_template").api_template(built)), encoding="utf-8")
    with own_resources(stack, template, tmp_path) as bench:
        yield bench


def test_a_photo_and_its_copy_are_captioned_for_the_price_of_one(bench: Bench) -> None:
    bench.put(PHOTO, "perched-osprey.jpg")
    bench.put(COPY, "perched-osprey.jpg")

    answer = bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "created-put-unversioned.json")
    assert answer == {"batchItemFailures": []}
    assert (bench.record(PHOTO).state, bench.record(PHOTO).kind) == ("queued", "image")
    (job,) = bench.messages("images")
    golden = json.loads((EVENTS / "jobs" / "image.json").read_text(encoding="utf-8"))
    differs = {"claim": None, "queued_at": None, "prompt_version": None}  # from case to case
    assert {**golden, **differs}.items() <= {**job, **differs}.items()
    assert (job["ask"]["task"], job["ask"]["language"], job["looks"]["category"]) == ("caption", "en", "photo")

    answer = bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "created-copy-unversioned.json")
    assert answer == {"batchItemFailures": []}
    assert bench.record(COPY).state == "waiting"
    assert bench.messages("images") == []

    event = bench.event("caption/image.json", {"claim": job["claim"], "queued_at": job["queued_at"]})
    for _ in range(2):  # the second delivery pays nothing
        assert bench.sam.invoke("CaptionFunction", event) == {"batchItemFailures": []}
        assert len(bench.paid()) == 1
    photo, copy = bench.record(PHOTO), bench.record(COPY)
    assert (photo.state, photo.source) == ("captioned", "model")
    assert photo.result is not None
    assert len(photo.result.text) > 20
    assert photo.provenance is not None
    assert photo.provenance.model == "Qwen/Qwen3-VL-32B-Instruct"
    assert [attempt["outcome"] for attempt in photo.provenance.attempts] == ["ok"]
    assert (copy.state, copy.source) == ("captioned", "cache")
    assert copy.result == photo.result
    assert copy.provenance is not None
    assert (copy.provenance.copied_from, copy.provenance.cost) == (f"{BUCKET}/{PHOTO}", "0")


def test_speech_is_transcribed(bench: Bench) -> None:
    bench.put(SPEECH, "comparatively-modern.mp3")
    answer = bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "created-audio-unversioned.json")
    assert answer == {"batchItemFailures": []}
    (job,) = bench.messages("audio")
    event = bench.event("transcribe/audio.json", {"claim": job["claim"], "queued_at": job["queued_at"]})
    assert bench.sam.invoke("TranscribeFunction", event) == {"batchItemFailures": []}
    speech = bench.record(SPEECH)
    assert (speech.state, speech.source, speech.kind) == ("captioned", "model", "audio"), speech.reason
    assert speech.result is not None
    assert "comparatively" in speech.result.text.lower()
    assert speech.provenance is not None
    assert speech.provenance.model == "Qwen/Qwen3-Omni-30B-A3B-Instruct"


def test_a_version_under_an_odd_key_is_read_by_its_raw_key(bench: Bench) -> None:
    s3 = bench.stack.client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    golden = json.loads((EVENTS / "s3" / "created-odd-key.json").read_text(encoding="utf-8"))
    key = golden["detail"]["object"]["key"]
    version = bench.put(key, "perched-osprey.jpg")
    s3.delete_object(Bucket=BUCKET, Key=key)  # only its version is there to be read now
    event = bench.event("dedupe/created-odd-key.json", {"detail": {"object": {"version-id": version}}})
    assert bench.sam.invoke("DedupeFunction", event) == {"batchItemFailures": []}
    assert (bench.record(key).state, bench.record(key).version_id) == ("queued", version)


def test_only_the_garbage_of_a_batch_is_handed_back(bench: Bench) -> None:
    bench.put(PHOTO, "perched-osprey.jpg")
    path = EVENTS / "dedupe" / "batch-with-garbage.json"
    records = json.loads(path.read_text(encoding="utf-8"))["Records"]
    answer = bench.sam.invoke("DedupeFunction", path)
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    assert failed == {record["messageId"] for record in records[1:-1]}
    assert bench.record(PHOTO).state == "queued"

    (job,) = bench.messages("images")
    path = bench.event("caption/batch-with-garbage.json", None, {"claim": job["claim"]}, None)
    first, _, last = json.loads(path.read_text(encoding="utf-8"))["Records"]
    answer = bench.sam.invoke("CaptionFunction", path)
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    assert failed == {first["messageId"], last["messageId"]}
    assert bench.record(PHOTO).state == "captioned"


def test_a_deletion_ends_the_upload(bench: Bench) -> None:
    bench.put(PHOTO, "perched-osprey.jpg")
    bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "created-put-unversioned.json")
    bench.stack.client("s3").delete_object(Bucket=BUCKET, Key=PHOTO)
    answer = bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "deleted-unversioned.json")
    assert answer == {"batchItemFailures": []}
    assert bench.record(PHOTO).state == "deleted"


def test_the_sweep_puts_back_what_stopped_and_what_got_lost(bench: Bench) -> None:
    bench.put(PHOTO, "perched-osprey.jpg")
    bench.sam.invoke("DedupeFunction", EVENTS / "dedupe" / "created-put-unversioned.json")
    bench.messages("images")  # the job is lost
    upload = bench.record(PHOTO).upload
    assert bench.records.progress(upload, "queued", now=time.time() - 60, due=time.time() - 1)
    lost = json.loads((EVENTS / "s3" / "created-audio-unversioned.json").read_text(encoding="utf-8"))
    bench.stack.client("sqs").send_message(QueueUrl=bench.queues["lost"], MessageBody=json.dumps(lost))

    answer = bench.sam.invoke("SweepFunction", EVENTS / "sweep" / "schedule.json")
    assert (answer["revisited"], answer["restored"]) == (1, 1)
    revisit = json.loads((EVENTS / "jobs" / "revisit-sweep.json").read_text(encoding="utf-8"))
    stopped = bench.record(PHOTO)
    revisit["seen"] = stopped.updated_at
    by_key = sorted(bench.messages("uploads"), key=lambda message: "type" in message)
    assert by_key == [lost, revisit]
    assert stopped.sweeps == 1
    assert bench.messages("lost") == []


def test_start_lambda_serves_a_lambda_client_with_containers_that_stay(bench: Bench) -> None:
    bench.put(PHOTO, "perched-osprey.jpg")
    created = (EVENTS / "dedupe" / "created-put-unversioned.json").read_bytes()
    before = docker("ps", "--quiet").stdout.split()
    with bench.sam.serving("DedupeFunction") as url:
        functions = boto3.client(
            "lambda",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(read_timeout=180, retries={"max_attempts": 0}, proxies={}),
        )
        for _ in range(2):  # the second delivery finds what the first one did
            answer = functions.invoke(FunctionName="DedupeFunction", Payload=created)
            assert answer["StatusCode"] == 200
            assert "FunctionError" not in answer
            assert json.load(answer["Payload"]) == {"batchItemFailures": []}
        assert bench.record(PHOTO).state == "queued"
        assert len(bench.messages("images")) == 1
        warm = set(docker("ps", "--quiet").stdout.split()) - set(before)
        assert len(warm) == 1  # both went to one container

        # What is no batch is an error of the function's. SAM CLI overlooks to say so in a header, as Lambda does.
        answer = functions.invoke(FunctionName="DedupeFunction", Payload=b'{"Records": "none"}')
        assert {"errorMessage", "errorType", "stackTrace"} <= set(json.load(answer["Payload"]))
        with pytest.raises(ClientError, match="Function not found"):
            functions.invoke(FunctionName="NobodysFunction", Payload=b"{}")
    assert set(docker("ps", "--quiet").stdout.split()) <= set(before)


def test_the_api_answers_what_api_gateway_hands_on(served: Bench) -> None:
    def answer(event: Path) -> tuple[int, str, str]:
        response = served.sam.invoke("ApiFunction", event)
        body = base64.b64decode(response["body"]).decode()
        return response["statusCode"], response["multiValueHeaders"]["content-type"][0].partition(";")[0], body

    golden = json.loads((EVENTS / "api" / "assets-iam.json").read_text(encoding="utf-8"))
    form = (
        f'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n{PHOTO}\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = form.encode() + (MEDIA / "perched-osprey.jpg").read_bytes() + b"\r\n--x--\r\n"
    posted = {
        "httpMethod": "POST",
        "path": "/v1/captions:stream",
        "multiValueQueryStringParameters": None,
        "multiValueHeaders": {"Content-Type": ["multipart/form-data; boundary=x"]},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    event = served.sam.folder / "stream.json"
    event.write_text(json.dumps(golden | posted), encoding="utf-8")
    status, kind, streamed = answer(event)
    assert (status, kind) == (200, "text/event-stream"), streamed
    assert [line for line in streamed.splitlines() if line.startswith("event: ")][-1] == "event: done"
    photo = served.record(PHOTO)
    assert (photo.state, photo.source) == ("captioned", "model")
    assert len(served.paid()) == 1

    status, kind, listed = answer(EVENTS / "api" / "assets-iam.json")
    assert (status, kind) == (200, "application/json"), listed
    assert [(item["key"], item["state"]) for item in json.loads(listed)["items"]] == [(PHOTO, "captioned")]
    assert photo.result is not None
    assert photo.result.text in listed

    status, _, limited = answer(EVENTS / "api" / "assets-cognito.json")  # whose claim is another prefix
    assert (status, json.loads(limited)["items"]) == (200, [])
