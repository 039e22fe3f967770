"""The API on moto, in this process, and records for it to show."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from captions_api.access import Caller
from captions_api.application import create
from captions_api.ids import id_of
from captions_api.services import Services
from starlette.testclient import TestClient

from captions.config.function_environments import ApiSettings
from captions.records.record import Provenance, Reason, Record, Result
from captions.records.table import Records
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.api_policy import ApiWitness
from support.pipeline import BUCKET, Aws, client_of, moto_backend
from support.search import SearchFunction

HOST = "127.0.0.1:8080"
TOKENS = {
    "all": Caller("all"),
    "other": Caller("other"),
    "photos": Caller("photos", ("photos/",)),
    "two": Caller("two", ("a/", "b/")),
    "nothing": Caller("nothing", ()),
}
NOW = float(int(time.time()))


@dataclass
class Api:
    """The application and what stands behind it; `now` is its clock."""

    aws: Aws
    services: Services
    client: TestClient
    now: list[float] = field(default_factory=lambda: [NOW])
    made: int = 0
    witness: ApiWitness = field(default_factory=ApiWitness)

    @property
    def records(self) -> Records:
        return self.services.records

    def call(self, method: str, path: str, *, token: str | None = "all", **more: Any) -> Any:
        """Send a request; returns the answer, whose errors must be problems."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        with self.witness.request():
            answer = self.client.request(method, path, headers=headers, **more)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            assert answer.json()["status"] == answer.status_code
        return answer

    def get(self, path: str, **more: Any) -> Any:
        """GET a path that must answer; returns the JSON."""
        answer = self.call("GET", path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def version(self, key: str, number: int | None = None) -> ObjectVersion:
        """A version of an object, later than all before it."""
        self.made += 1
        return ObjectVersion(bucket=BUCKET, key=key, sequencer=pad_sequencer(f"{number or self.made:08X}"), size=7)

    def received(self, key: str) -> Record:
        """An upload on its way."""
        self.now[0] += 1
        self.records.accept(version := self.version(key), now=self.now[0], due=self.now[0] + 60)
        record = self.records.get(version.asset)
        assert record is not None
        return record

    def captioned(self, key: str, text: str = "a cat", **about: Any) -> Record:
        """A captioned upload; `about` are fields of its result, its provenance, or of the end itself."""
        record = self.received(key)
        result = {name: about.pop(name) for name in list(about) if name in Result.model_fields}
        reported = {name: about.pop(name) for name in list(about) if name in Provenance.model_fields}
        self.now[0] += 1
        ended = self.records.finish(
            record.upload,
            "captioned",
            now=self.now[0],
            **{"source": "model", "kind": "image", "media_type": "image/jpeg", **about},
            result=Result(**{"text": text, "language": "en", "task": "caption", "confidence": 0.5, **result}),
            provenance=Provenance(**{"model": "GLM-4.6V", "category": "photo", "score": 0.5, **reported}),
        )
        assert ended is not None
        return ended

    def failed(self, key: str, state: Any = "failed") -> Record:
        """An upload that ended without a caption."""
        record = self.received(key)
        reason = Reason(code="gave_up", message="no model answered")
        ended = self.records.finish(record.upload, state, now=self.now[0], reason=reason)
        assert ended is not None
        return ended


def path_of(record: Record, rest: str = "") -> str:
    """The path of an asset."""
    return f"/v1/assets/{id_of(record.asset)}{rest}"


@dataclass
class Invoked:
    """A function with a role of its own, which the API may invoke."""

    function: SearchFunction
    witness: ApiWitness

    def invoke(self, **arguments: Any) -> dict[str, Any]:
        """Invoke it as Lambda's client does."""
        with self.witness.aside():
            return self.function.invoke(**arguments)


@contextmanager
def api_on(
    aws: Aws, tokens: Mapping[str, Caller] | None = TOKENS, *, search: SearchFunction | None = None, **settings: Any
) -> Iterator[Api]:
    """The application on these tables and queues, and beside a search function.

    At its end it must have asked for nothing that its role in api.yaml forbids.
    """
    made = aws.dynamodb.list_tables()["TableNames"]
    if "api" not in made:
        aws.dynamodb.create_table(
            TableName="api",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        )
    # As old as these tests' clock, though midnight has passed since that was set.
    moto_backend("dynamodb").tables["captions"].created_at = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None)
    reported = ApiSettings.model_validate(
        {
            "captions_table": "captions", "fingerprints_table": "fingerprints", "control_table": "control",
            "api_table": "api", "uploads_queue_url": aws.uploads_queue, "image_queue_url": aws.image_queue,
            "audio_queue_url": aws.audio_queue, "event_bus_name": "captions", "media_bucket": BUCKET,
            "endpoint_urls": "http://127.0.0.1:9/v1", "endpoint_secret_arn": "-",
            "search_function": "search" if search else "", **settings,
        }
    )  # fmt: skip
    s3, cloudwatch = client_of("s3", "s3v4"), client_of("cloudwatch")
    clients: dict[str, Any] = {
        "dynamodb": aws.dynamodb, "s3": s3, "sqs": aws.sqs, "events": aws.events, "cloudwatch": cloudwatch,
    }  # fmt: skip
    now = [NOW]

    def tick() -> float:
        now[0] += 0.001  # no two writes at one moment
        return now[0]

    services = Services(reported, clients=clients.__getitem__, now=tick)
    app = create(services, tokens=tokens, hosts=frozenset({HOST}))
    with TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        api = Api(aws, services, client, now)
        if search is not None:
            clients["lambda"] = Invoked(search, api.witness)
        for watched in (aws.dynamodb, aws.s3, aws.sqs, aws.events, s3, cloudwatch):
            api.witness.watch(watched)
        yield api
        assert not api.witness.denied, f"api.yaml's role does not allow {sorted(api.witness.denied)}"


def keys(answer: Any) -> list[str]:
    """The keys of a page of assets."""
    return [item["key"] for item in answer["items"]]
