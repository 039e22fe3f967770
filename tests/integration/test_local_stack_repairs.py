"""The repairs of moto: each is needed, and those that make it fast change nothing of what it answers."""

import inspect
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from captions_cli.local.aws.events import EventRouter, Unreliability
from captions_cli.local.aws.repairs import MotoRepairs, expressions
from captions_cli.local.aws.repairs.replacements import naming
from captions_cli.local.aws.server import AwsEndpoint, ServiceLocks


@pytest.fixture
def endpoint() -> Iterator[AwsEndpoint]:
    from moto.core.base_backend import BackendDict

    BackendDict.reset()
    endpoint = AwsEndpoint()
    endpoint.start()
    yield endpoint
    endpoint.stop()
    BackendDict.reset()


@pytest.fixture
def repairs(endpoint: AwsEndpoint) -> Iterator[MotoRepairs]:
    """Repairs that are not in place yet."""
    repairs = MotoRepairs(endpoint.locks, EventRouter(endpoint.locks, lambda *_: None, Unreliability()))
    yield repairs
    repairs.remove()


def client(endpoint: AwsEndpoint, service: str) -> Any:
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="y", region_name="eu-west-1")
    return session.client(service, endpoint_url=endpoint.url)  # type: ignore[call-overload] # named at run time


def make_tables(dynamodb: Any) -> None:
    """Tables with and without a range key, both with an index, filled at random."""
    index = {
        "IndexName": "activity",
        "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    types = {"pk": "S", "sk": "N", "g": "S", "at": "S"}
    for name, keys in (("ranged", ["pk", "sk"]), ("plain", ["pk"])):
        used = {*keys, "g", "at"}
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": a, "AttributeType": t} for a, t in types.items() if a in used],
            KeySchema=[
                {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ["HASH", "RANGE"], strict=False)
            ],
            GlobalSecondaryIndexes=[index],
        )
    rng = random.Random(1)
    for number in range(60):
        item = {
            "pk": {"S": f"p{rng.randrange(4)}"},
            "sk": {"N": str(rng.randrange(30))},
            "g": {"S": f"g{number % 3}"},
            "at": {"S": f"{rng.randrange(50):03}"},
        }
        if number % 7 == 0:
            del item["g"]  # not in the index then
        dynamodb.put_item(TableName="ranged", Item=item)
        dynamodb.put_item(TableName="plain", Item=item | {"pk": {"S": f"p{number}"}})


def pages(dynamodb: Any, **query: Any) -> list[Any]:
    result = []
    while True:
        page = dynamodb.query(**query)
        result.append((page["Items"], page["Count"], page["ScannedCount"], page.get("LastEvaluatedKey")))
        if "LastEvaluatedKey" not in page:
            return result
        query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def scans(dynamodb: Any) -> list[Any]:
    """Pages of whole tables, and of each of three segments."""
    result = []
    for table in ("ranged", "plain"):
        for segment in ({}, *({"Segment": number, "TotalSegments": 3} for number in range(3))):
            paginator = dynamodb.get_paginator("scan").paginate(
                TableName=table, **segment, PaginationConfig={"PageSize": 7}
            )
            result += [(page["Items"], page["ScannedCount"]) for page in paginator]
    return result


def queries(dynamodb: Any) -> list[Any]:
    result = scans(dynamodb)
    for table in ("ranged", "plain"):
        for options in ({}, {"Limit": 3}, {"ScanIndexForward": False}, {"ScanIndexForward": False, "Limit": 4}):
            base = {"TableName": table} | options
            for partition in ("p1", "p3", "none"):
                values = {":p": {"S": partition}}
                result.append(
                    pages(dynamodb, **base, KeyConditionExpression="pk = :p", ExpressionAttributeValues=values)
                )
                if table == "ranged":
                    values |= {":a": {"N": "5"}, ":b": {"N": "20"}}
                    between = "pk = :p AND sk BETWEEN :a AND :b"
                    result.append(
                        pages(dynamodb, **base, KeyConditionExpression=between, ExpressionAttributeValues=values)
                    )
            result += index_pages(dynamodb, **base)
    return result


def index_pages(dynamodb: Any, **base: Any) -> list[Any]:
    """Pages of the index under each kind of condition, and one under a filter."""
    result = []
    for group in ("g0", "g2", "none"):
        for condition in CONDITIONS:
            names = {"#at": "at"} if "#at" in condition else {}
            values = {":g": {"S": group}, ":a": {"S": "010"}, ":b": {"S": "030"}}
            used = {name: value for name, value in values.items() if name in condition}
            asked: dict[str, Any] = {
                "KeyConditionExpression": "g = :g" + condition,
                "ExpressionAttributeValues": {":g": values[":g"]} | used,
            }
            asked |= {"ExpressionAttributeNames": names} if names else {}
            result.append(pages(dynamodb, **base, IndexName="activity", **asked))
        filtered = {"FilterExpression": "begins_with(pk, :p)", "KeyConditionExpression": "g = :g"}
        asked = {"ExpressionAttributeValues": {":g": {"S": group}, ":p": {"S": "p1"}}}
        result.append(pages(dynamodb, **base, IndexName="activity", **filtered, **asked))
    return result


CONDITIONS = (
    "",
    " AND #at < :b",
    " AND #at <= :b",
    " AND #at > :a",
    " AND #at >= :a",
    " AND #at = :b",
    " AND #at BETWEEN :a AND :b",
    " AND begins_with(#at, :a)",
)


def test_an_index_follows_every_write(endpoint: AwsEndpoint, repairs: MotoRepairs) -> None:
    dynamodb = client(endpoint, "dynamodb")
    make_tables(dynamodb)
    repairs.install()
    index_pages(dynamodb, TableName="plain")  # the index is built now
    rng = random.Random(2)
    for number in range(60):
        key = {"pk": {"S": f"p{rng.randrange(70)}"}}
        at = {":at": {"S": f"{rng.randrange(50):03}"}, ":g": {"S": f"g{rng.randrange(3)}"}}
        match number % 5:
            case 0:
                dynamodb.delete_item(TableName="plain", Key=key)
            case 1:
                dynamodb.put_item(TableName="plain", Item={**key, "g": at[":g"], "at": at[":at"]})
            case 2:
                dynamodb.update_item(TableName="plain", Key=key, UpdateExpression="REMOVE g")
            case 3:
                set_both = {"UpdateExpression": "SET g = :g, #at = :at", "ExpressionAttributeNames": {"#at": "at"}}
                dynamodb.update_item(TableName="plain", Key=key, **set_both, ExpressionAttributeValues=at)
            case 4:
                writes = [
                    {"Put": {"TableName": "plain", "Item": {**key, "g": at[":g"], "at": at[":at"]}}},
                    {"Delete": {"TableName": "plain", "Key": {"pk": {"S": "p3"}}}},
                ]
                if number % 2:  # the transaction fails, and nothing is changed
                    never = {"TableName": "ranged", "Key": {"pk": {"S": "x"}, "sk": {"N": "1"}}}
                    writes.append({"ConditionCheck": never | {"ConditionExpression": "attribute_exists(pk)"}})
                    everything = [dynamodb.scan(TableName=name)["Items"] for name in ("plain", "ranged")]
                    with pytest.raises(ClientError):
                        dynamodb.transact_write_items(TransactItems=writes)
                    assert [dynamodb.scan(TableName=name)["Items"] for name in ("plain", "ranged")] == everything
                else:
                    dynamodb.transact_write_items(TransactItems=writes)
    kept = index_pages(dynamodb, TableName="plain", Limit=4)
    repairs.remove()
    assert index_pages(dynamodb, TableName="plain", Limit=4) == kept


@pytest.mark.deep
def test_queries_find_the_same_items_in_the_same_pages(endpoint: AwsEndpoint, repairs: MotoRepairs) -> None:
    dynamodb = client(endpoint, "dynamodb")
    make_tables(dynamodb)
    before = queries(dynamodb)
    repairs.install()
    assert queries(dynamodb) == before
    assert any(len(result) > 2 for result in before)


UPDATES: list[dict[str, Any]] = [
    {"UpdateExpression": "SET a = :x, b = if_not_exists(b, :y)", "Values": {":x": {"S": "1"}, ":y": {"N": "2"}}},
    {"UpdateExpression": "SET #n.inner = :x REMOVE l[0]", "Values": {":x": {"S": "new"}}, "Names": {"#n": "m"}},
    {"UpdateExpression": "ADD n :one DELETE ss :gone", "Values": {":one": {"N": "1"}, ":gone": {"SS": ["a"]}}},
    {"UpdateExpression": "SET l = list_append(l, :more), n = n - :one", "Values": {":more": {"L": [{"S": "z"}]}}},
    {"UpdateExpression": "SET a = :x, a = :x", "Values": {":x": {"S": "twice"}}},
    {"UpdateExpression": "SET a = :absent", "Values": {":x": {"S": "1"}}},
    {"UpdateExpression": "SET a = :x SET b = :x", "Values": {":x": {"S": "clauses"}}},
    {"UpdateExpression": "SET m.inner = :x, m = :x", "Values": {":x": {"S": "overlap"}}},
    {"UpdateExpression": "SET pk = :x", "Values": {":x": {"S": "key"}}},
    {"UpdateExpression": "SET a = :x", "Values": {":x": {"S": "1"}}, "Condition": "attribute_not_exists(pk)"},
    {"UpdateExpression": "REMOVE nothing.deep", "Values": None},
    {"UpdateExpression": "SET a = n + s", "Values": None},
    {"UpdateExpression": "SET a = :x", "Values": {":x": {"M": {"long": {"L": [{"S": "é" * 100_000}] * 2}}}}},
    {"UpdateExpression": "SET a = :x", "Values": {":x": {"M": {"long": {"L": [{"S": "é" * 100_000}] * 3}}}}},
    {"UpdateExpression": "SET a = :x", "Values": {":x": {"BS": [b"1" * 400_000, b"2" * 6_000]}}},
]


def test_updates_change_and_refuse_the_same(endpoint: AwsEndpoint, repairs: MotoRepairs) -> None:
    dynamodb = client(endpoint, "dynamodb")
    make_tables(dynamodb)
    before = [update(dynamodb, **each) for each in UPDATES]
    repairs.install()
    for _ in range(2):  # an expression is read once
        assert [update(dynamodb, **each) for each in UPDATES] == before
    assert {type(result) for result in before} == {dict, str}  # some were refused


CONDITIONS_ON_ITEMS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("attribute_exists(pk) AND #n.#i = :x", {"#n": "m", "#i": "inner"}, {":x": {"S": "old"}}),
    ("attribute_exists(pk) AND #n.#i = :x", {"#n": "m", "#i": "inner"}, {":x": {"S": "other"}}),
    ("attribute_exists(pk) AND #n.#i = :x", {"#n": "m", "#i": "absent"}, {":x": {"S": "old"}}),
    ("attribute_exists(pk) AND #n.#i = :x", {"#n": "m"}, {":x": {"S": "old"}}),
    ("attribute_exists(pk) AND #n.#i = :x", {"#n": "m", "#i": "inner"}, {":y": {"S": "old"}}),
    ("attribute_exists(pk)", {"#unused": "m"}, {}),
    ("n BETWEEN :a AND :b OR NOT (n IN (:a, :b))", {}, {":a": {"N": "4"}, ":b": {"N": "6"}}),
    ("n BETWEEN :a AND :b OR NOT (n IN (:a, :b))", {}, {":a": {"N": "5.0"}, ":b": {"N": "1"}}),
    ("size(l) = :two AND l[1] = :y AND contains(ss, :a)", {}, {":two": {"N": "2"}, ":y": {"S": "y"}, ":a": {"S": "a"}}),
    ("size(l) = :two AND l[1] = :y AND contains(ss, :a)", {}, {":two": {"N": "2"}, ":y": {"S": "y"}, ":a": {"S": "c"}}),
    ("begins_with(s, :t) AND attribute_type(b, :k)", {}, {":t": {"S": "te"}, ":k": {"S": "B"}}),
    ("begins_with(s, :t) AND attribute_type(b, :k)", {}, {":t": {"S": "te"}, ":k": {"S": "nonsense"}}),
    ("n < s", {}, {}),
    ("n < :t", {}, {":t": {"S": "text"}}),
    ("((attribute_exists(pk)))", {}, {}),
    ("attribute_exists(pk", {}, {}),
    ("status = :x", {}, {":x": {"S": "reserved"}}),
    ("pk ? :x", {}, {":x": {"S": "p"}}),
]


def test_conditions_are_read_the_same_however_often() -> None:
    from moto.dynamodb.comparisons import ConditionExpressionParser
    from moto.dynamodb.models.dynamo_type import Item

    item = Item(None, None, FRESH)

    def read(parse: Any, condition: str, names: dict[str, str], values: dict[str, Any]) -> Any:
        reader = ConditionExpressionParser(condition, names, values)
        try:
            holds = parse(reader).expr(item)
        except Exception as error:
            holds = repr(error)
        return holds, reader.expr_attr_names_found, reader.expr_attr_values_found

    original, once = ConditionExpressionParser.parse, expressions._reader_of_conditions()
    before = [read(original, *each) for each in CONDITIONS_ON_ITEMS]
    for _ in range(2):
        assert [read(once, *each) for each in CONDITIONS_ON_ITEMS] == before
    assert {type(holds) for holds, *_ in before} == {bool, str}


FRESH: dict[str, Any] = {
    "pk": {"S": "p"},
    "m": {"M": {"inner": {"S": "old"}}},
    "l": {"L": [{"S": "x"}, {"S": "y"}]},
    "n": {"N": "5"},
    "s": {"S": "text"},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2.5"]},
    "b": {"B": b"\x00\xff"},
    "bs": {"BS": [b"\x00", b"\xfe"]},
    "deep": {"L": [{"M": {"b": {"B": b"1"}, "l": {"L": [{"NULL": True}, {"BOOL": False}]}}}, {"SS": ["é"]}]},
}


def update(
    dynamodb: Any,
    UpdateExpression: str,
    Values: dict[str, Any] | None,
    Names: dict[str, str] | None = None,
    Condition: str | None = None,
) -> dict[str, Any] | str:
    """One update of a fresh item: the item afterwards, or the error."""
    dynamodb.put_item(TableName="plain", Item=FRESH)
    if Values is not None and ":one" in UpdateExpression:
        Values = Values | {":one": {"N": "1"}}
    optional = {
        "ExpressionAttributeValues": Values,
        "ExpressionAttributeNames": Names,
        "ConditionExpression": Condition,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    try:
        answer = dynamodb.update_item(
            TableName="plain",
            Key={"pk": {"S": "p"}},
            UpdateExpression=UpdateExpression,
            ReturnValues="ALL_NEW",
            **given,
        )
    except ClientError as error:
        return str(error)
    result: dict[str, Any] = answer["Attributes"]
    return result


def test_queues_behave_the_same(endpoint: AwsEndpoint, repairs: MotoRepairs) -> None:
    before = queue_story(client(endpoint, "sqs"), "before")
    repairs.install()
    assert queue_story(client(endpoint, "sqs"), "after") == before


def queue_story(sqs: Any, name: str) -> list[Any]:
    """Send, receive, hide, show, delete and lose messages; what could be seen of it."""
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = f'{{"deadLetterTargetArn": "{dead_arn}", "maxReceiveCount": 2}}'
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive, "VisibilityTimeout": "30"})["QueueUrl"]

    def receive(queue: str = url) -> list[Any]:
        answer = sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["kind"]
        )
        return list(answer.get("Messages", []))

    def depths() -> list[str]:
        names = ["", "NotVisible", "Delayed"]
        attributes = [f"ApproximateNumberOfMessages{suffix}" for suffix in names]
        result = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=attributes)["Attributes"]
        return [result[attribute] for attribute in attributes]

    story: list[Any] = []
    for number in range(3):
        sqs.send_message(
            QueueUrl=url,
            MessageBody=f"m{number}",
            MessageAttributes={"kind": {"DataType": "String", "StringValue": "a"}, "other": _string("b")},
        )
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=600)
    story.append(depths())
    first = receive()
    story.append([(m["Body"], m["MessageAttributes"], m["Attributes"]["ApproximateReceiveCount"]) for m in first])
    story += [depths(), receive()]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first[0]["ReceiptHandle"])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first[0]["ReceiptHandle"])
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first[1]["ReceiptHandle"], VisibilityTimeout=0)
    second = receive()
    story.append([(m["Body"], m["Attributes"]["ApproximateReceiveCount"]) for m in second])
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=second[0]["ReceiptHandle"], VisibilityTimeout=0)
    story += [receive(), [m["Body"] for m in receive(dead)], depths()]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first[2]["ReceiptHandle"])
    story.append(depths())
    try:
        sqs.delete_message(QueueUrl=url, ReceiptHandle="no such handle")
    except ClientError as error:
        story.append(error.response["Error"]["Code"])
    return story


def _string(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def test_moto_gets_its_own_functions_back(repairs: MotoRepairs) -> None:
    from moto.dynamodb.models.table import Table
    from moto.s3.models import S3Backend
    from moto.sqs.models import Queue

    owners = (Table, S3Backend, Queue)
    before = [dict(vars(owner)) for owner in owners]
    repairs.install()
    assert [dict(vars(owner)) for owner in owners] != before
    repairs.remove()
    assert [dict(vars(owner)) for owner in owners] == before


def test_arguments_get_the_names_that_python_gives_them() -> None:
    from moto.dynamodb.models.table import Table

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (Table.query, tuple(range(9)), {}),
        (Table.query, (0, 1), {"index_name": "i", "hash_key_conditions": []}),
        (Table.query, (0, 1), {"limit": 3, "other": 4, "another": 5}),
        (Table.scan, (0,), {"segments": (1, 2)}),
    ]
    for function, arguments, more in calls:
        expected = inspect.signature(function).bind_partial(*arguments, **more).arguments
        assert naming(function)(*arguments, **more) == expected


KEYS = [
    "a\x01b", "\x1b[31mred", "tab\there", "line\nbreak", "p+q r", "x%41", "a&<b>", "ü/", "folder/", "../up", "\x7f",
    "e\u0085", "\u2028", "\u202egnp.exe", "😀" * 256,
]  # fmt: skip


@pytest.mark.parametrize("size", [3, 1_000])
def test_versions_are_listed_whatever_characters_their_keys_have(
    endpoint: AwsEndpoint, repairs: MotoRepairs, size: int
) -> None:
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket="media", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket="media", VersioningConfiguration={"Status": "Enabled"})
    repairs.install()
    for key in KEYS:
        s3.put_object(Bucket="media", Key=key, Body=b"")
        s3.delete_object(Bucket="media", Key=key)
    pages = s3.get_paginator("list_object_versions").paginate(Bucket="media", PaginationConfig={"PageSize": size})
    listed = [
        (result["Key"], kind)
        for page in pages
        for kind in ("Versions", "DeleteMarkers")
        for result in page.get(kind, [])
    ]
    assert sorted(listed) == sorted((key, kind) for key in KEYS for kind in ("Versions", "DeleteMarkers"))
    (page,) = s3.get_paginator("list_object_versions").paginate(Bucket="media", Prefix="p+q ")
    assert [result["Key"] for result in page["Versions"]] == ["p+q r"]


def test_an_object_under_a_customers_own_key_is_read_with_that_key_alone(
    endpoint: AwsEndpoint, repairs: MotoRepairs
) -> None:
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket="media", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    repairs.install()
    own = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0" * 32}
    s3.put_object(Bucket="media", Key="a", Body=b"secret", **own)
    assert s3.get_object(Bucket="media", Key="a", **own)["Body"].read() == b"secret"
    with pytest.raises(ClientError, match="InvalidRequest"):
        s3.get_object(Bucket="media", Key="a")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket="media", Key="a", SSECustomerAlgorithm="AES256", SSECustomerKey="1" * 32)
    s3.put_object(Bucket="media", Key="a", Body=b"open")
    assert s3.get_object(Bucket="media", Key="a")["Body"].read() == b"open"


# Each repair by itself: what is wrong without it, and right with all of them. Where a scenario holds without its
# repair, moto no longer needs it.


class Router(EventRouter):
    """Keeps what it is given."""

    def __init__(self, locks: ServiceLocks) -> None:
        super().__init__(locks, lambda *_: None, Unreliability())
        self.published: list[Mapping[str, Any]] = []
        self.offered: list[Mapping[str, Any]] = []

    def publish(self, bus: str, region: str, event: Mapping[str, Any]) -> None:
        self.published.append(event)

    def offer(self, rule: Any, event: Mapping[str, Any]) -> None:
        self.offered.append(event)


@dataclass
class Bench:
    """moto on a port, with repairs in place."""

    endpoint: AwsEndpoint
    router: Router
    changed: list[int]
    count: Callable[[str], int]
    """How often a property of moto's messages was read since it was asked for first."""

    def client(self, service: str) -> Any:
        return client(self.endpoint, service)

    def bucket(self, *, versioned: bool = False) -> Any:
        s3 = self.client("s3")
        s3.create_bucket(Bucket="media", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        configuration: Any = {"EventBridgeConfiguration": {}}
        s3.put_bucket_notification_configuration(Bucket="media", NotificationConfiguration=configuration)
        if versioned:
            s3.put_bucket_versioning(Bucket="media", VersioningConfiguration={"Status": "Enabled"})
        return s3

    def queue(self, messages: int = 0) -> tuple[Any, str]:
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName="jobs")["QueueUrl"]
        for number in range(messages):
            sqs.send_message(QueueUrl=url, MessageBody=f"m{number}")
        return sqs, url


def path_style(bench: Bench) -> None:
    s3 = bench.bucket()
    s3.put_object(Bucket="media", Key="a", Body=b"1")
    s3.meta.events.register("before-send.s3.GetObject", named_host)
    assert s3.get_object(Bucket="media", Key="a")["Body"].read() == b"1"


def named_host(request: Any, **_: Any) -> None:
    request.headers["Host"] = "stack.example.com"


def created(bench: Bench) -> None:
    s3 = bench.bucket()
    for body in (b"1", b"2"):
        s3.put_object(Bucket="media", Key="a", Body=body)
    upload = s3.create_multipart_upload(Bucket="media", Key="b")["UploadId"]
    part = s3.upload_part(Bucket="media", Key="b", UploadId=upload, PartNumber=1, Body=b"1")
    parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket="media", Key="b", UploadId=upload, MultipartUpload=parts)
    assert [event["detail"]["object"]["key"] for event in bench.router.published] == ["a", "a", "b"]
    sequencers = [event["detail"]["object"]["sequencer"] for event in bench.router.published]
    assert sequencers == sorted(set(sequencers))


def deleted(bench: Bench) -> None:
    s3 = bench.bucket(versioned=True)
    s3.put_object(Bucket="media", Key="a", Body=b"1")
    s3.delete_object(Bucket="media", Key="a")
    assert [event["detail-type"] for event in bench.router.published] == ["Object Created", "Object Deleted"]


def policies(bench: Bench) -> None:
    s3 = bench.bucket()
    plain = {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:PrincipalAccount": "999999999999"}}
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*", "Condition": plain}
    s3.put_bucket_policy(Bucket="media", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    s3.put_object(Bucket="media", Key="a", Body=b"1")
    assert s3.get_object(Bucket="media", Key="a")["Body"].read() == b"1"


def notifications(bench: Bench) -> None:
    s3 = bench.bucket()
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket="media")


def listed_keys(bench: Bench) -> None:
    s3 = bench.bucket(versioned=True)
    s3.put_object(Bucket="media", Key="a\x01b", Body=b"")
    assert [version["Key"] for version in s3.list_object_versions(Bucket="media")["Versions"]] == ["a\x01b"]


def customer_keys(bench: Bench) -> None:
    s3 = bench.bucket()
    s3.put_object(Bucket="media", Key="a", Body=b"1", SSECustomerAlgorithm="AES256", SSECustomerKey="0" * 32)
    with pytest.raises(ClientError, match="InvalidRequest"):
        s3.get_object(Bucket="media", Key="a")


def posted_versions(bench: Bench) -> None:
    s3 = bench.bucket(versioned=True)
    form = s3.generate_presigned_post("media", "a")
    answer = httpx.post(form["url"], data=form["fields"], files={"file": b"1"})
    assert answer.headers.get("x-amz-version-id") == s3.head_object(Bucket="media", Key="a")["VersionId"]


def rules(bench: Bench) -> None:
    sqs, url = bench.queue()
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = bench.client("events")
    events.put_rule(Name="off", EventPattern='{"source": ["test"]}', State="DISABLED")
    events.put_targets(Rule="off", Targets=[{"Id": "queue", "Arn": arn}])
    events.put_events(Entries=[{"Source": "test", "DetailType": "a", "Detail": "{}"}])
    assert not sqs.receive_message(QueueUrl=url).get("Messages"), "a disabled rule's target got an event"


def mappings(bench: Bench) -> None:
    from moto.sqs.models import sqs_backends

    sqs, url = bench.queue()
    invoked: list[str] = []
    mapping = SimpleNamespace(batch_size=1, enabled=True, function_arn="a:function:b")
    queue = sqs_backends["123456789012"]["eu-west-1"].queues["jobs"]
    queue.lambda_event_source_mappings = {"b": mapping}
    assert not queue.lambda_event_source_mappings, "sending would invoke the function in Docker"
    sqs.send_message(QueueUrl=url, MessageBody="m")
    assert invoked == []


def depths(bench: Bench) -> None:
    sqs, url = bench.queue(messages=20)
    bench.count("visible")
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
    assert bench.count("visible") == 0


def traced(request: Any, **_: Any) -> None:
    request.headers["X-Amzn-Trace-Id"] = "Root=1-2"


def sent(bench: Bench) -> None:
    sqs, url = bench.queue()
    sqs.meta.events.register("before-send.sqs.SendMessage", traced)
    sqs.send_message(QueueUrl=url, MessageBody="m")
    (message,) = sqs.receive_message(QueueUrl=url, AttributeNames=["AWSTraceHeader"])["Messages"]
    assert message.get("Attributes", {}).get("AWSTraceHeader") == "Root=1-2"
    assert bench.changed


def received(bench: Bench) -> None:
    sqs, url = bench.queue()
    waiting = threading.Thread(target=sqs.receive_message, kwargs={"QueueUrl": url, "WaitTimeSeconds": 6})
    waiting.start()
    time.sleep(0.5)
    began = time.monotonic()
    sqs.send_message(QueueUrl=url, MessageBody="m")
    took_s = time.monotonic() - began
    waiting.join()
    assert took_s < 3.0, "a long poll held the lock"


def deleted_messages(bench: Bench) -> None:
    sqs, url = bench.queue(messages=20)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    bench.count("had_receipt_handle")
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert bench.count("had_receipt_handle") == 0


def shown(bench: Bench) -> None:
    sqs, url = bench.queue(messages=1)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    bench.changed.clear()
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert bench.changed


def speed(bench: Bench) -> None:
    dynamodb = bench.client("dynamodb")
    make_tables(dynamodb)
    bench.count("getmembers")
    scans(dynamodb)
    assert bench.count("getmembers") <= 1, "the methods of a class are listed for each request"
    bench.count("__lt__")
    dynamodb.scan(TableName="plain")
    assert bench.count("__lt__") == 0, "keys are compared in Python"
    sqs = bench.client("sqs")
    url = sqs.create_queue(QueueName="long")["QueueUrl"]
    bench.count("unix_time")
    for _ in range(3):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    assert bench.count("unix_time") == 0, "the time is made of datetimes for each message of a queue"


def indexes(bench: Bench) -> None:
    dynamodb = bench.client("dynamodb")
    make_tables(dynamodb)
    index_pages(dynamodb, TableName="plain")
    bench.count("sorted_items")
    dynamodb.query(
        TableName="plain",
        IndexName="activity",
        Limit=4,
        KeyConditionExpression="g = :g",
        ExpressionAttributeValues={":g": {"S": "g0"}},
    )
    assert bench.count("sorted_items") == 5, "for a page of four, and whether there is more"


def vectors(bench: Bench, metric: str = "cosine") -> tuple[Any, dict[str, Any]]:
    client = bench.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="vectors")
    index = {"vectorBucketName": "vectors", "indexName": "captions"}
    client.create_index(**index, dataType="float32", dimension=2, distanceMetric=metric)
    about = {
        "east": ([1, 0], {"tags": ["a", "b"], "at": 1}),
        "north-east": ([5, 5], {"tags": ["b"], "at": 2}),
        "west": ([-1, 0], {"at": 3, "kind": "x"}),
    }
    client.put_vectors(
        **index,
        vectors=[{"key": k, "data": {"float32": data}, "metadata": metadata} for k, (data, metadata) in about.items()],
    )
    return client, index


def vector_queries(bench: Bench) -> None:
    client, index = vectors(bench)

    def nearest(most: int = 10, **more: Any) -> list[str]:
        answer = client.query_vectors(**index, topK=most, queryVector={"float32": [1, 0.1]}, **more)
        return [each["key"] for each in answer["vectors"]]

    assert nearest() == ["east", "north-east", "west"]
    assert nearest(1) == ["east"]
    for wanted, keys in (
        ({"kind": "x"}, ["west"]),
        ({"tags": {"$eq": "b"}}, ["east", "north-east"]),
        ({"tags": {"$in": ["a", "z"]}}, ["east"]),
        ({"tags": {"$nin": ["a"]}}, ["north-east", "west"]),
        ({"kind": {"$exists": False}}, ["east", "north-east"]),
        ({"at": {"$gt": 1, "$lte": 3}}, ["north-east", "west"]),
        ({"$or": [{"kind": "x"}, {"$and": [{"tags": "b"}, {"at": {"$lt": 2}}]}]}, ["east", "west"]),
        ({"tags": {"$ne": "b"}}, ["west"]),
    ):
        assert nearest(filter=wanted) == keys
    answer = client.query_vectors(
        **index, topK=2, queryVector={"float32": [2, 0]}, returnDistance=True, returnMetadata=True
    )
    assert answer["distanceMetric"] == "cosine"
    assert [round(each["distance"], 4) for each in answer["vectors"]] == [0, 0.2929]
    assert answer["vectors"][0]["metadata"] == {"tags": ["a", "b"], "at": 1}
    wrong: dict[str, Any]
    for wrong in (
        {"topK": 101}, {"queryVector": {"float32": [1]}}, {"queryVector": {"float32": [0, 0]}}, {"filter": {}},
        {"filter": {"at": {"$gt": "1"}}}, {"filter": {"$and": []}}, {"filter": {"at": {"$near": 1}}},
    ):  # fmt: skip
        with pytest.raises(client.exceptions.ValidationException):
            client.query_vectors(**{**index, "topK": 1, "queryVector": {"float32": [1, 0]}, **wrong})
    with pytest.raises(client.exceptions.NotFoundException):
        client.query_vectors(**{**index, "indexName": "none"}, topK=1, queryVector={"float32": [1, 0]})


def vector_pages(bench: Bench) -> None:
    client, index = vectors(bench)
    first = client.list_vectors(**index, maxResults=2, returnMetadata=True)
    last = client.list_vectors(**index, maxResults=2, nextToken=first.get("nextToken", "none"))
    assert [each["key"] for page in (first, last) for each in page["vectors"]] == ["east", "north-east", "west"]
    assert "nextToken" not in last


def vector_limits(bench: Bench) -> None:
    client, index = vectors(bench)
    many = [f"{number}" for number in range(501)]
    with pytest.raises(client.exceptions.ValidationException):
        client.get_vectors(**index, keys=many[:101])
    with pytest.raises(client.exceptions.ValidationException):
        client.delete_vectors(**index, keys=many)
    with pytest.raises(client.exceptions.ValidationException):
        client.put_vectors(**index, vectors=[{"key": key, "data": {"float32": [1, 0]}} for key in many])


SCENARIOS: dict[str, Callable[[Bench], None]] = {
    "path-style": path_style, "created": created, "deleted": deleted, "policies": policies,
    "notifications": notifications, "listed-keys": listed_keys, "customer-keys": customer_keys,
    "posted-versions": posted_versions, "vector-queries": vector_queries, "vector-pages": vector_pages,
    "vector-limits": vector_limits, "rules": rules, "mappings": mappings, "depths": depths, "sent": sent,
    "received": received, "deleted-messages": deleted_messages, "shown": shown, "speed": speed, "indexes": indexes,
}  # fmt: skip


@pytest.fixture
def bench(endpoint: AwsEndpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], Bench]]:
    made: list[MotoRepairs] = []

    def repaired(without: str | None) -> Bench:
        router = Router(endpoint.locks)
        repairs = MotoRepairs(endpoint.locks, router)
        changed: list[int] = []
        repairs.queue_changed = lambda: changed.append(1)
        repairs.install(without=() if without is None else (without,))
        made.append(repairs)
        return Bench(endpoint, router, changed, counter(monkeypatch))

    yield repaired
    for repairs in made:
        repairs.remove()


def counter(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Count reads and calls of what walks all messages, methods or items, from the first question on."""
    import inspect

    import moto.core.utils
    from moto.dynamodb.models.dynamo_type import DynamoType
    from moto.dynamodb.models.table import Table
    from moto.sqs.models import Message

    counts: Counter[str] = Counter()

    def count(name: str) -> int:
        if name in counts:
            return counts[name]
        counts[name] = 0
        if name == "getmembers":
            original: Any = inspect.getmembers
            monkeypatch.setattr(
                inspect, name, lambda *args, **named: (counts.update([name]), original(*args, **named))[1]
            )
        elif name == "sorted_items":
            sorting: Any = Table.sorted_items

            def sort(self: Table, hashes: Any, ranges: Any, items: list[Any]) -> list[Any]:
                counts[name] = max(counts[name], len(items))
                return list(sorting(self, hashes, ranges, items))

            monkeypatch.setattr(Table, name, sort)
        elif name == "__lt__":
            compare: Any = DynamoType.__lt__
            monkeypatch.setattr(DynamoType, name, lambda *both: (counts.update([name]), compare(*both))[1])
        elif name == "unix_time":
            asked = moto.core.utils.unix_time
            monkeypatch.setattr(moto.core.utils, name, lambda *args: (counts.update([name]), asked(*args))[1])
        elif isinstance(vars(Message)[name], property):
            getter: Any = vars(Message)[name].fget
            monkeypatch.setattr(Message, name, property(lambda self: (counts.update([name]), getter(self))[1]))
        else:
            method: Any = vars(Message)[name]
            monkeypatch.setattr(Message, name, lambda self, *args: (counts.update([name]), method(self, *args))[1])
        return 0

    return count


def test_every_repair_has_a_scenario(repairs: MotoRepairs) -> None:
    assert [repair.name for repair in repairs.all] == list(SCENARIOS)
    assert {repair.moto for repair in repairs.all} == {version("moto")}, "try them without on that version"


@pytest.mark.parametrize("name", SCENARIOS)
def test_with_the_repairs_it_is_as_in_aws(bench: Callable[[str | None], Bench], name: str) -> None:
    SCENARIOS[name](bench(None))


@pytest.mark.deep
@pytest.mark.parametrize("name", SCENARIOS)
def test_without_a_repair_moto_is_still_wrong(bench: Callable[[str | None], Bench], name: str) -> None:
    with pytest.raises((AssertionError, ClientError, BotoCoreError, pytest.fail.Exception)):
        SCENARIOS[name](bench(name))
