"""What the tests leave out between botocore and moto, and make once for all, changes nothing of what is answered."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.request import Request
from werkzeug.wrappers import Request as WerkzeugRequest

from support import in_process
from support.pipeline import REGION, Aws, aws_for_the_pipeline, aws_in_this_process, client_of

CALLS: dict[str, Callable[[Aws], Any]] = {
    "an item": lambda aws: aws.dynamodb.get_item(TableName="captions", Key={"asset": {"S": "a/\u00e9.jpg"}}),
    "a message": lambda aws: aws.sqs.send_message(QueueUrl=aws.uploads_queue, MessageBody="\u00e9=&;%20"),
    "events": lambda aws: aws.events.put_events(Entries=[{"Source": "s", "DetailType": "d", "Detail": "{}"}]),
    "a body": lambda aws: aws.s3.put_object(
        Bucket="media",
        Key="a b/\u00e9+(1)~.jpg",
        Body=b"body",
        Metadata={"my_key": "1", "other-key": "2"},
        Tagging="k=v",
    ),
    "no body": lambda aws: aws.s3.put_object(Bucket="media", Key="none", Body=b""),
    "a key that begins with a slash": lambda aws: aws.s3.put_object(Bucket="media", Key="/a//b", Body=b"1"),
    "a page": lambda aws: aws.s3.list_objects_v2(Bucket="media", Prefix="a b/", Delimiter="/", StartAfter="a b/\u00e0"),
    "metrics": lambda aws: client_of("cloudwatch").put_metric_data(
        Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.0}]
    ),
    "what is not there": lambda aws: aws.s3.get_object(Bucket="media", Key="nothing"),
    "a bucket that is not there": lambda aws: aws.s3.head_object(Bucket="other", Key="nothing"),
}


def taken(monkeypatch: pytest.MonkeyPatch, call: Callable[[Aws], Any], aws: Aws) -> list[AWSPreparedRequest]:
    """The requests of a call."""
    requests = []

    def process(self: Any, request: AWSPreparedRequest) -> Any:
        requests.append(request)
        return in_process.process_request(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(BotocoreStubber, "process_request", process)
        with suppress(ClientError):
            call(aws)
    return requests


@pytest.mark.parametrize("name", CALLS)
def test_a_request_reaches_moto_as_werkzeug_makes_it(name: str, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = taken(monkeypatch, CALLS[name], aws)
    assert requests
    for request in requests:
        body: Any = request.body
        body = body.read() if hasattr(body, "read") else body
        given = (Request, request.method, request.url, request.headers, body)
        made = in_process._from_primitives(*given)
        with monkeypatch.context() as patch:
            if "amazonaws.com//" not in request.url:
                patch.delattr(in_process, "_from_primitives")
            assert seen(in_process.from_primitives(*given)) == seen(made)
        assert made.raw_url == request.url


def seen(request: WerkzeugRequest) -> Any:
    """All that moto can know of a request."""
    environ = {name: value for name, value in request.environ.items() if name not in ("wsgi.input", "werkzeug.request")}
    return environ, list(request.headers), request.url, request.get_data(), dict(request.values), type(request)


def test_each_service_has_its_own_handler(aws: Aws) -> None:
    handlers = {
        url: in_process.handler_of(f"https://{url}")
        for url in (
            "dynamodb.us-east-1.amazonaws.com/", "sqs.us-east-1.amazonaws.com/", "events.us-east-1.amazonaws.com/",
            "s3.us-east-1.amazonaws.com/media/key", "media.s3.us-east-1.amazonaws.com/key", "media.s3.amazonaws.com/",
        )
    }  # fmt: skip
    assert [handler.__qualname__ for handler in handlers.values()] == [
        "BaseResponse.dispatch", "BaseResponse.dispatch", "BaseResponse.dispatch",
        "S3Response.key_dispatch", "S3Response.ambiguous_dispatch", "S3Response.bucket_dispatch",
    ]  # fmt: skip
    assert in_process.handler_of("https://nothing.example/") is None


def test_only_a_call_goes_unsigned() -> None:
    with aws_in_this_process():
        client = boto3.client("s3", region_name=REGION)
        signed: list[str] = []
        client.meta.events.register(
            "before-send.s3", lambda request, **_: signed.append(request.headers["Authorization"])
        )
        client.list_buckets()
        (header,) = signed
        header = header.decode() if isinstance(header, bytes) else header
        assert f"/{REGION}/s3/aws4_request, " in header
        assert header.endswith(in_process.NO_SIGNATURE)
        url = client.generate_presigned_url("get_object", Params={"Bucket": "media", "Key": "a"})
        assert "Signature=" in url
        assert in_process.NO_SIGNATURE not in url


def test_what_one_test_puts_there_the_next_does_not_find() -> None:
    for _ in range(2):
        with aws_for_the_pipeline() as aws:
            assert aws.dynamodb.scan(TableName="captions")["Count"] == 0
            assert "Versions" not in aws.s3.list_object_versions(Bucket="media")
            assert (aws.receive(aws.uploads_queue), aws.heard()) == ([], [])
            aws.dynamodb.put_item(TableName="captions", Item={"asset": {"S": "a"}})
            aws.put("a.jpg", b"1")
            aws.sqs.send_message(QueueUrl=aws.uploads_queue, MessageBody="{}")
            aws.sqs.create_queue(QueueName="more")
            entry = {
                "Source": "media-captions",
                "DetailType": "d",
                "Detail": '{"key": "a"}',
                "EventBusName": "captions",
            }
            aws.events.put_events(Entries=[entry])
            assert aws.heard() == [("d", "a")]
            assert len(aws.sqs.list_queues()["QueueUrls"]) == 5


def test_what_is_registered_with_one_client_no_other_has(aws: Aws) -> None:
    heard: list[str] = []
    mine, other = client_of("sqs"), client_of("sqs")
    mine.meta.events.register("before-call", lambda model, **_: heard.append(model.name))
    other.list_queues()
    aws.sqs.list_queues()
    assert heard == []
    mine.list_queues()
    assert heard == ["ListQueues"]
