"""What the API's role allows, by api.yaml, and what the API asks of AWS while it answers a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from captions_cli.local.cloudformation.translate import load_template, translate
from support.pipeline import BUCKET, REGION

TEMPLATE = Path(__file__).resolve().parents[2] / "api.yaml"
_ARN = f"arn:aws:{{}}:{REGION}:123456789012:"
_S3 = {
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "GetObjectTagging": "GetObjectTagging",
}
"""Actions whose name is not that of the operation (Service Authorization Reference, Amazon S3)."""
_WRITES = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


@dataclass
class ApiWitness:
    """Notes each action and resource that is asked for while a request is answered."""

    asked: set[tuple[str, str]] = field(default_factory=set)
    answering: bool = False

    def watch(self, client: Any) -> None:
        """Note what a boto3 client is asked for."""
        call, service = client._make_api_call, client.meta.service_model.service_name

        def noted(operation: str, arguments: dict[str, Any]) -> Any:
            if self.answering:
                self.asked.update(actions(service, operation, arguments))
            return call(operation, arguments)

        client._make_api_call = noted

    @contextmanager
    def request(self) -> Iterator[None]:
        """Note what is asked for meanwhile."""
        self.answering = True
        try:
            yield
        finally:
            self.answering = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Note nothing meanwhile: another function is at work."""
        answering, self.answering = self.answering, False
        try:
            yield
        finally:
            self.answering = answering

    @property
    def denied(self) -> set[tuple[str, str]]:
        """What the role does not allow of it."""
        return {asked for asked in self.asked if not allowed(*asked)}


def actions(service: str, operation: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The IAM actions that a call needs, each with the ARN of its resource."""
    match service:
        case "s3":
            name, key = _S3.get(operation, operation), arguments.get("Key")
            if key is not None and name.startswith("GetObject") and arguments.get("VersionId"):
                name = name.replace("GetObject", "GetObjectVersion")
            yield f"s3:{name}", f"arn:aws:s3:::{arguments['Bucket']}" + (f"/{key}" if key is not None else "")
        case "dynamodb":
            table = _ARN.format("dynamodb") + "table/"
            for item in arguments.get("TransactItems", ()):
                for kind, about in item.items():
                    yield f"dynamodb:{_WRITES[kind]}", table + about["TableName"]
            index = f"/index/{arguments['IndexName']}" if "IndexName" in arguments else ""
            tables = [arguments["TableName"]] if "TableName" in arguments else arguments.get("RequestItems", ())
            for name in tables:
                yield f"dynamodb:{operation}", table + name + index
        case "sqs":
            yield f"sqs:{operation}", _ARN.format("sqs") + arguments["QueueUrl"].rpartition("/")[2]
        case "events":
            for entry in arguments["Entries"]:
                yield "events:PutEvents", _ARN.format("events") + f"event-bus/{entry['EventBusName']}"
        case "cloudwatch":
            yield (
                f"cloudwatch:{operation}",
                _ARN.format("cloudwatch") + f"alarm:{arguments.get('AlarmNamePrefix', '*')}",
            )
        case _:
            yield f"{service}:{operation}", "?"


@cache
def statements() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """The actions and resources of each statement of the role, of a stack that the tests' tables and queues are of."""
    declared = load_template(TEMPLATE)["Parameters"]
    values = {name: "1" if about["Type"] == "Number" else "" for name, about in declared.items()}
    sqs = _ARN.format("sqs")
    values |= {
        "Authorizer": "iam", "Architecture": "arm64", "Pipeline": "s", "MediaBucketName": BUCKET,
        "CaptionsTableName": "captions", "FingerprintsTableName": "fingerprints", "ControlTableName": "control",
        "EventBusName": "captions", "UploadsQueueArn": f"{sqs}uploads", "ImageQueueArn": f"{sqs}images",
        "AudioQueueArn": f"{sqs}audio", "DeadLetterQueueArns": f"{sqs}heard",
    }  # fmt: skip
    stack = translate(TEMPLATE, stack_name="s", region=REGION, parameters=values)
    own = stack.resources["ApiTable"].name
    documents = [policy["PolicyDocument"] for policy in stack.resources["ApiRole"].properties["Policies"]]
    return tuple(
        (tuple(_listed(statement["Action"])), tuple(_own_named(_listed(statement["Resource"]), own)))
        for document in documents
        for statement in document["Statement"]
    )


def allowed(action: str, resource: str) -> bool:
    """Tell whether the role may do something with a resource."""
    return any(
        action in actions and any(fnmatchcase(resource, pattern) for pattern in resources)
        for actions, resources in statements()
    )


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _own_named(resources: list[str], own: str) -> Iterator[str]:
    return (resource.replace(f"table/{own}", "table/api") for resource in resources)
