"""Watches what each function asks of AWS, and compares it with what its role allows."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from captions_cli.local.aws.server import AwsCall, Forward
from support.template import statements_of

CREDENTIAL = re.compile(r"Credential=([^/]+)/")


@dataclass(frozen=True)
class Asked:
    """One call: who asked for which action on which of the template's resources."""

    function: str
    action: str
    resource: str


@dataclass
class Witness:
    """An interceptor of the local stack; a function is known by the access key that it signs with, its logical id.

    `names` maps physical names (of tables, buckets, the bus, the secret, and queue URLs' last part) to logical ids.
    """

    functions: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)
    asked: set[Asked] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, call: AwsCall, forward: Forward) -> Any:
        result = CREDENTIAL.search(str(call.environ.get("HTTP_AUTHORIZATION", "")))
        # STS is asked by SAM CLI, which hands its credentials on.
        if result and result[1] in self.functions and call.service != "sts":
            with self._guard:
                self.asked |= {Asked(result[1], action, self.logical(name)) for action, name in actions(call)}
        return forward(call)

    def logical(self, physical: str) -> str:
        """Return the logical id of a resource, as far as `names` knows it, with the index of a table."""
        table, index, rest = physical.partition("/index/")
        return f"{self.names.get(table, table)}{index}{rest}"


def actions(call: AwsCall) -> Iterator[tuple[str, str]]:
    """The IAM actions that a call needs, each with the physical name of its resource.

    Source: Service Authorization Reference; reads of a version need s3:GetObjectVersion instead of s3:GetObject.
    """
    if call.service == "s3":
        yield _of_s3(call)
        return
    body = json.loads(call.body or b"{}")
    action = f"{call.service}:{call.action}"
    match call.service:
        case "dynamodb" if call.action == "TransactWriteItems":
            for write in body["TransactItems"]:
                for kind, about in write.items():
                    yield f"dynamodb:{kind}Item", about["TableName"]
        case "dynamodb":
            tables = body.get("RequestItems") or [body.get("TableName", "?")]
            for table in tables:
                yield action, f"{table}/index/{body['IndexName']}" if "IndexName" in body else table
        case "sqs":
            yield action, body.get("QueueUrl", "?").rpartition("/")[2]
        case "events":
            for entry in body["Entries"]:
                yield action, entry["EventBusName"]
        case "secretsmanager":
            yield action, body["SecretId"]
        case "s3vectors":
            name = call.path.strip("/")
            yield f"s3vectors:{name}", body["indexArn"].rpartition("/")[2]
            if body.get("filter") or body.get("returnMetadata"):  # QueryVectors, "Permissions"
                yield "s3vectors:GetVectors", body["indexArn"].rpartition("/")[2]
        case _:
            yield action, "?"


def _of_s3(call: AwsCall) -> tuple[str, str]:
    bucket = unquote(call.path).strip("/").split("/")[0]
    method = call.environ["REQUEST_METHOD"]
    if "list-type" in call.query:
        return "s3:ListBucket", bucket
    if method in ("GET", "HEAD"):
        return ("s3:GetObjectVersion" if "versionId" in call.query else "s3:GetObject"), bucket
    method = "DELETE" if method == "POST" and "delete" in call.query else method
    return {"PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}.get(method, f"s3:{method}"), bucket


def allowed(resources: Mapping[str, Any], function: str, *conditions: str) -> set[tuple[str, str]]:
    """The actions of a function's role, each with the logical id of a resource, indexes with `/index/NAME`."""
    role = resources[function]["Properties"]["Role"]["Fn::GetAtt"][0]
    result = set()
    for statement in statements_of(resources, role, conditions):
        names, on = statement["Action"], statement["Resource"]
        for node in on if isinstance(on, list) else [on]:
            for action in names if isinstance(names, list) else [names]:
                result.add((action, _named(node)))
    return result


def _named(node: Any) -> str:
    match node:
        case {"Fn::GetAtt": [name, *_]}:
            return str(name)
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text).removesuffix("/*")
        case {"Ref": str(name)}:
            return name
        case {"Fn::If": [_, taken, _]}:
            return _named(taken)
        case _:
            return str(node)
