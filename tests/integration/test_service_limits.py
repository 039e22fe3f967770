"""What AWS's services refuse, the local stack refuses, with the service's own error."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from captions_cli.local.aws.limits import ServiceLimits, partition_key
from captions_cli.local.aws.server import AwsEndpoint
from captions_cli.local.options import ModelOptions
from captions_cli.local.stack import LocalStack
from support.small_stack import make_template

ONCE = Config(retries={"max_attempts": 1, "mode": "standard"}, s3={"addressing_style": "path"})
Client = Callable[[str], Any]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> Iterator[Client]:
    """Give clients of an endpoint with a table `t`, a queue `q` and a bucket `b`."""
    with moto.mock_aws():
        pass  # its backends exist now, and are empty
    endpoint = AwsEndpoint([ServiceLimits(partition_key, partition_writes=10, clock=clock)])
    endpoint.start()

    def made(service: str) -> Any:
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
        return boto3.client(service, endpoint_url=endpoint.url, config=ONCE, **keys)  # type: ignore[call-overload] # named at run time

    made("dynamodb").create_table(
        TableName="t",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    made("sqs").create_queue(QueueName="q")
    made("s3").create_bucket(Bucket="bucket")
    yield made
    endpoint.stop()
    moto.mock_aws().reset()


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def put(client: Client, key: str = "a", **attributes: Any) -> Any:
    return client("dynamodb").put_item(TableName="t", Item={"pk": {"S": key}, **attributes})


def nested(levels: int) -> Any:
    return {"L": [nested(levels - 1)]} if levels else {"S": ""}


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        ({"n": {"N": "9" * 38 + "e10"}}, {"n": {"N": "9" * 39}}),
        ({"n": {"N": "-0.00" + "1" * 38}}, {"n": {"M": {"deep": {"N": "1" * 39}}}}),
        ({"n": nested(32)}, {"n": nested(33)}),
        ({"n": {"S": "x" * 399_000}}, {"n": {"S": "x" * 410_000}}),
    ],
    ids=["digits", "digits within", "levels", "bytes"],
)
def test_an_item_that_dynamodb_does_not_hold_is_refused(client: Client, fits: Any, too_much: Any) -> None:
    put(client, "fits", **fits)
    assert refused(lambda: put(client, "not", **too_much)) == "ValidationException"


def test_a_transaction_holds_four_megabytes(client: Client) -> None:
    def written(number: int) -> Any:
        items = [{"pk": {"S": f"{number}-{each}"}, "n": {"S": "x" * 390_000}} for each in range(number)]
        puts = [{"Put": {"TableName": "t", "Item": item}} for item in items]
        return client("dynamodb").transact_write_items(TransactItems=puts)

    written(10)
    assert refused(lambda: written(11)) == "ValidationException"


def test_an_expression_has_four_kilobytes(client: Client) -> None:
    def updated(length: int) -> Any:
        return client("dynamodb").update_item(
            TableName="t",
            Key={"pk": {"S": "a"}},
            UpdateExpression="SET " + "x" * (length - 8) + " = :v",
            ExpressionAttributeValues={":v": {"S": ""}},
        )

    updated(200)
    assert refused(lambda: updated(4_100)) == "ValidationException"


def test_a_partition_takes_so_many_units_a_second_and_its_neighbour_as_many(client: Client, clock: Clock) -> None:
    for _ in range(5):
        put(client, "hot", n={"S": "x" * 1_500})  # two units each
    assert refused(lambda: put(client, "hot")) == "ThrottlingException"
    put(client, "cold")
    key = {"pk": {"S": "hot"}}
    assert refused(lambda: client("dynamodb").delete_item(TableName="t", Key=key)) == "ThrottlingException"
    clock.now += 1
    put(client, "hot")


def test_a_throttled_write_is_tried_again_by_the_sdk(client: Client, clock: Clock) -> None:
    dynamodb = client("dynamodb")
    patient = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb.meta.endpoint_url,
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
        aws_access_key_id="local",
        aws_secret_access_key="local",
        region_name="us-east-1",
    )
    put(client, "hot", n={"S": "x" * 10_000})
    patient.meta.events.register("before-send.dynamodb.PutItem", lambda **_: setattr(clock, "now", clock.now + 0.5))
    answer = patient.put_item(TableName="t", Item={"pk": {"S": "hot"}})
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


@pytest.mark.parametrize("body", ["\x00", "a\x0bb", "\x1f", "￾"])
def test_a_message_of_characters_that_xml_lacks_is_refused(client: Client, body: str) -> None:
    sqs = client("sqs")
    url = sqs.get_queue_url(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="tab\t, newline\n, \U0001f600 and \x85 are allowed")
    assert refused(lambda: sqs.send_message(QueueUrl=url, MessageBody=body)) == "InvalidMessageContents"
    entries = [{"Id": "1", "MessageBody": "a"}, {"Id": "2", "MessageBody": body}]
    assert refused(lambda: sqs.send_message_batch(QueueUrl=url, Entries=entries)) == "InvalidMessageContents"


def test_an_event_has_256_kilobytes(client: Client) -> None:
    def sent(size: int) -> Any:
        detail = '{"text": "' + "x" * (size - 12) + '"}'
        return client("events").put_events(Entries=[{"Source": "s", "DetailType": "t", "Detail": detail}])

    sent(256 * 1024 - 2)
    assert refused(lambda: sent(256 * 1024)) == "ValidationException"


def test_an_object_has_a_key_of_1024_bytes_and_two_kilobytes_of_metadata(client: Client) -> None:
    s3 = client("s3")
    s3.put_object(Bucket="bucket", Key="é" * 512, Body=b"", Metadata={"a": "x" * 2_000})
    assert refused(lambda: s3.put_object(Bucket="bucket", Key="é" * 512 + "x", Body=b"")) == "KeyTooLongError"
    more = {"Bucket": "bucket", "Key": "k", "Body": b"", "Metadata": {"a": "x" * 2_048}}
    assert refused(lambda: s3.put_object(**more)) == "MetadataTooLarge"


def test_a_protected_table_is_not_deleted(client: Client) -> None:
    dynamodb = client("dynamodb")
    dynamodb.update_table(TableName="t", DeletionProtectionEnabled=True)
    assert refused(lambda: dynamodb.delete_table(TableName="t")) == "ValidationException"


def test_the_local_stack_has_them(tmp_path: Path) -> None:
    with LocalStack(
        make_template(tmp_path),
        stack_name="small",
        state_dir=tmp_path / "state",
        parameters={"Trace": str(tmp_path / "trace")},
        model=ModelOptions(url="http://127.0.0.1:9/v1"),
    ) as stack:
        sqs, url = stack.client("sqs"), stack.outputs["EventsQueueUrl"]
        assert refused(lambda: sqs.send_message(QueueUrl=url, MessageBody="\x01")) == "InvalidMessageContents"
