"""What the local stack promises of AWS, tried on a small SAM template with a handler that does as it is told."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import psutil
import pytest

from captions_cli.local import LocalStack, StackError
from captions_cli.local.lambda_runtime import lineage
from captions_cli.local.options import ModelOptions
from support.small_stack import Small, eventually, make_template


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    directory = tmp_path_factory.mktemp("small")
    stack = LocalStack(
        make_template(directory),
        stack_name="small",
        region="eu-west-1",
        state_dir=directory / "state",
        parameters={"Trace": str(directory / "trace")},
        model=ModelOptions(url="http://127.0.0.1:9/v1"),
    )
    with stack:
        yield Small(stack, directory / "trace")


class TestRecursiveLoops:
    def test_a_message_that_goes_back_to_its_own_queue_is_a_dead_letter_after_sixteen_rounds(
        self, small: Small
    ) -> None:
        dead = small.stack.outputs["DeadLetterQueueUrl"]
        small.send(do="again", name="round and round")

        def ended() -> list[Any]:
            result = small.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)
            return [m for m in result.get("Messages", []) if "round and round" in m["Body"]]

        (letter,) = eventually(ended)
        small.sqs.delete_message(QueueUrl=dead, ReceiptHandle=letter["ReceiptHandle"])
        assert len(small.receive_counts("round and round")) == 16

    def test_each_function_is_counted_for_itself_whatever_chains_a_batch_has(self) -> None:
        header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0;Lineage=" + lineage.advanced([], "arn:a")
        for _ in range(30):
            header = "Sampled=0;Lineage=" + lineage.advanced([header, "Sampled=0"], "arn:a")
        assert lineage.ended(header, "arn:a")
        assert not lineage.ended(header, "arn:b")


class TestResources:
    def test_outputs_are_in_cloudformation_for_everyone(self, small: Small) -> None:
        described = small.stack.client("cloudformation").describe_stacks(StackName="small")["Stacks"][0]
        assert {o["OutputKey"]: o["OutputValue"] for o in described["Outputs"]} == small.stack.outputs

    def test_what_cloudformations_stand_in_drops_is_put_in_place(self, small: Small) -> None:
        dynamodb, table = small.stack.client("dynamodb"), small.stack.outputs["TableName"]
        ttl = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
        assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
        assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        assert small.s3.get_bucket_versioning(Bucket=small.bucket)["Status"] == "Enabled"
        assert json.loads(small.s3.get_bucket_policy(Bucket=small.bucket)["Policy"])["Statement"][0]["Effect"] == "Deny"
        secret = small.stack.client("secretsmanager").get_secret_value(SecretId=small.stack.outputs["SecretArn"])
        assert len(secret["SecretString"]) == 32
        assert secret["ARN"] == small.stack.outputs["SecretArn"]

    def test_every_resource_says_how_it_is_treated(self, small: Small) -> None:
        coverage = {logical_id: (treatment, note) for logical_id, _, treatment, note in small.stack.coverage()}
        assert coverage["Bus"][0] == "created"
        assert coverage["Secret"][0] == "created"
        assert coverage["WorkFunctionHourly"][0] == "repaired"
        layer = next(logical_id for logical_id in coverage if logical_id.startswith("Layer"))
        assert coverage[layer][0] == "created"
        assert all(note for treatment, note in coverage.values() if treatment != "created")
        assert "FancyTopic" not in coverage  # its condition is false


class TestS3Events:
    def test_upload_overwrite_and_delete_are_announced_as_in_aws(self, small: Small) -> None:
        key = "a folder/ö+& %20.jpg"
        first = small.s3.put_object(Bucket=small.bucket, Key=key, Body=b"one")
        second = small.s3.put_object(Bucket=small.bucket, Key=key, Body=b"three")
        marker = small.s3.delete_object(Bucket=small.bucket, Key=key)
        small.s3.delete_object(Bucket=small.bucket, Key=key, VersionId=first["VersionId"])
        events = small.events(4)

        details = [event["detail"] for event in events]
        assert [event["detail-type"] for event in events] == ["Object Created"] * 2 + ["Object Deleted"] * 2
        assert {event["source"] for event in events} == {"aws.s3"}
        assert {event["region"] for event in events} == {"eu-west-1"}
        assert len({event["id"] for event in events}) == 4
        assert [detail["object"]["key"] for detail in details] == [key] * 4
        assert details[0]["object"]["version-id"] == first["VersionId"]
        assert details[1]["object"]["version-id"] == second["VersionId"]
        assert details[2]["object"]["version-id"] == marker["VersionId"]
        assert details[3]["object"]["version-id"] == first["VersionId"]
        assert details[0]["object"]["etag"] == first["ETag"].strip('"')
        assert [detail["object"].get("size") for detail in details] == [3, 5, None, None]
        assert [detail["reason"] for detail in details] == ["PutObject"] * 2 + ["DeleteObject"] * 2
        assert [d.get("deletion-type") for d in details] == [None, None, "Delete Marker Created", "Permanently Deleted"]
        sequencers = [detail["object"]["sequencer"] for detail in details]
        assert sequencers == sorted(sequencers)
        assert len(set(sequencers)) == 4
        assert all(int(sequencer, 16) for sequencer in sequencers)

    def test_a_restored_object_is_announced_without_a_sequencer(self, small: Small) -> None:
        put = small.s3.put_object(Bucket=small.bucket, Key="old.jpg", Body=b"one", StorageClass="GLACIER")
        small.s3.restore_object(Bucket=small.bucket, Key="old.jpg", RestoreRequest={"Days": 1})
        _, restored = small.events(2)
        assert restored["detail-type"] == "Object Restore Completed"
        assert restored["detail"]["object"] == {
            "key": "old.jpg",
            "size": 3,
            "etag": put["ETag"].strip('"'),
            "version-id": put["VersionId"],
        }

    def test_a_multipart_upload_is_announced_once(self, small: Small) -> None:
        upload = small.s3.create_multipart_upload(Bucket=small.bucket, Key="long.mp4")["UploadId"]
        parts = []
        for number, body in ((1, b"x" * 5 * 2**20), (2, b"the end")):
            part = small.s3.upload_part(
                Bucket=small.bucket, Key="long.mp4", UploadId=upload, PartNumber=number, Body=body
            )
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        small.s3.complete_multipart_upload(
            Bucket=small.bucket, Key="long.mp4", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        small.s3.put_object(Bucket=small.bucket, Key="next", Body=b"", Tagging="a=b")
        multipart, after = small.events(2)
        assert multipart["detail"]["reason"] == "CompleteMultipartUpload"
        assert multipart["detail"]["object"]["size"] == 5 * 2**20 + 7
        assert multipart["detail"]["object"]["etag"].endswith("-2")
        assert after["detail"]["object"]["key"] == "next"

    def test_copies_and_batch_deletes_are_announced(self, small: Small) -> None:
        small.s3.put_object(Bucket=small.bucket, Key="original", Body=b"body")
        small.s3.copy_object(Bucket=small.bucket, Key="copy", CopySource={"Bucket": small.bucket, "Key": "original"})
        small.s3.delete_objects(Bucket=small.bucket, Delete={"Objects": [{"Key": "original"}, {"Key": "copy"}]})
        events = small.events(4)
        assert [event["detail"]["reason"] for event in events[:2]] == ["PutObject", "CopyObject"]
        assert {event["detail"]["object"]["key"] for event in events[2:]} == {"original", "copy"}

    def test_a_browsers_form_upload_is_announced_as_such(self, small: Small) -> None:
        import requests

        form = small.s3.generate_presigned_post(small.bucket, "from a form.txt")
        answer = requests.post(form["url"], data=form["fields"], files={"file": b"form"}, timeout=10)
        assert answer.ok
        (event,) = small.events(1)
        assert event["detail"]["reason"] == "POST Object"
        assert event["detail"]["object"]["key"] == "from a form.txt"
        assert event["detail"]["object"]["size"] == 4

    def test_the_rules_pattern_decides(self, small: Small) -> None:
        small.s3.put_object(Bucket=small.bucket, Key="ignored/one", Body=b"")
        small.s3.put_object(Bucket=small.bucket, Key="taken/one", Body=b"")
        assert small.events(1)[0]["detail"]["object"]["key"] == "taken/one"

    def test_an_event_whose_target_is_gone_ends_in_the_rules_dead_letter_queue(self, small: Small) -> None:
        events, queues = small.stack.client("events"), "arn:aws:sqs:eu-west-1:123456789012:"
        dead_letter = small.stack.outputs["RuleDeadLetterQueueUrl"]
        dead_letters = {"Arn": queues + dead_letter.rpartition("/")[2]}
        target = {"Id": "gone", "Arn": queues + "gone", "DeadLetterConfig": dead_letters}
        events.put_rule(Name="to-nowhere", EventPattern=json.dumps({"detail": {"object": {"key": ["lost"]}}}))
        events.put_targets(Rule="to-nowhere", Targets=[target])
        try:
            small.s3.put_object(Bucket=small.bucket, Key="lost", Body=b"")
            received = small.sqs.receive_message(
                QueueUrl=dead_letter, WaitTimeSeconds=10, MessageAttributeNames=["All"]
            )["Messages"][0]
            small.sqs.delete_message(QueueUrl=dead_letter, ReceiptHandle=received["ReceiptHandle"])
        finally:
            events.remove_targets(Rule="to-nowhere", Ids=["gone"])
            events.delete_rule(Name="to-nowhere")
        assert json.loads(received["Body"])["detail"]["object"]["key"] == "lost"
        assert received["MessageAttributes"]["TARGET_ARN"]["StringValue"] == target["Arn"]
        assert small.events(1)[0]["detail"]["object"]["key"] == "lost"


class TestFunctions:
    def test_get_their_own_environment_and_lambdas_context(self, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
        outcome = small.stack.invoke("WorkFunction", {"echo": "grüße"})
        assert outcome.ok
        assert outcome.payload["echo"] == "grüße"
        call = next(c for c in small.traced() if c["event"] == {"echo": "grüße"})
        environment = call["environment"]
        assert environment["SECRET_ARN"] == small.stack.outputs["SecretArn"]
        assert environment["SECOND_COLOUR"] == "green"
        assert "TOPIC" not in environment
        assert environment["AWS_ENDPOINT_URL"] == small.stack.aws_endpoint_url
        assert environment["AWS_REGION"] == "eu-west-1"
        assert "HOME" not in environment  # the parent has one
        assert not {name for name in environment if name.startswith("PYTEST")}
        context = call["context"]
        assert context["request_id"] == outcome.request_id
        assert context["function_name"] == small.stack.outputs["FunctionName"]
        assert context["arn"].endswith(f":function:{small.stack.outputs['FunctionName']}")
        assert context["memory"] == "256"
        assert 0 < context["left_ms"] <= 3000

    def test_are_invoked_through_lambdas_api(self, small: Small) -> None:
        client, name = small.stack.client("lambda"), small.stack.outputs["FunctionName"]
        answer = client.invoke(FunctionName=name, Payload=json.dumps({"echo": 1}))
        assert json.load(answer["Payload"])["echo"] == 1
        failed = client.invoke(
            FunctionName=name, Payload=json.dumps({"Records": [{"body": '{"do": "raise"}', "attributes": {}}]})
        )
        assert failed["FunctionError"] == "Unhandled"
        error = json.load(failed["Payload"])
        assert (error["errorType"], error["errorMessage"]) == ("ValueError", "as asked")
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.invoke(FunctionName="nobody", Payload=b"{}")

    def test_are_invoked_by_rules_of_a_bus_with_the_transformed_input(self, small: Small) -> None:
        entry = {"Source": "tests", "DetailType": "Greeting", "Detail": '{"name": "\\"you\\""}'}
        small.stack.client("events").put_events(Entries=[entry | {"EventBusName": small.stack.outputs["BusName"]}])
        eventually(lambda: [c for c in small.traced() if c["event"] == {"greeted": 'hello "you"'}])


class TestEventSource:
    def test_a_message_arrives_as_lambda_delivers_it_and_is_deleted(self, small: Small) -> None:
        sent = small.sqs.send_message(
            QueueUrl=small.stack.outputs["WorkQueueUrl"],
            MessageBody=json.dumps({"do": "put", "pk": "written", "name": "plain"}),
            MessageAttributes={"kind": {"DataType": "String", "StringValue": "photo"}},
        )
        assert small.stack.wait_idle(30)
        record = next(
            record
            for call in small.traced()
            for record in call["event"].get("Records", [])
            if record.get("messageId") == sent["MessageId"]
        )
        assert record["eventSource"] == "aws:sqs"
        assert record["eventSourceARN"].startswith("arn:aws:sqs:eu-west-1:123456789012:small-WorkQueue-")
        assert record["awsRegion"] == "eu-west-1"
        assert record["md5OfBody"] == sent["MD5OfMessageBody"]
        assert record["md5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
        assert record["messageAttributes"]["kind"]["stringValue"] == "photo"
        assert record["messageAttributes"]["kind"]["dataType"] == "String"
        assert record["attributes"]["ApproximateReceiveCount"] == "1"
        assert abs(int(record["attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60
        table = small.stack.client("dynamodb")
        assert "Item" in table.get_item(TableName=small.stack.outputs["TableName"], Key={"pk": {"S": "written"}})

    def test_only_the_failed_message_of_a_batch_comes_back(self, small: Small) -> None:
        entries = [
            {"Id": str(i), "MessageBody": json.dumps({"do": "fail", "times": int(i == 2), "name": f"part-{i}"})}
            for i in range(4)
        ]
        small.sqs.send_message_batch(QueueUrl=small.stack.outputs["WorkQueueUrl"], Entries=entries)
        assert small.stack.wait_idle(30)
        assert [small.receive_counts(f"part-{i}") for i in range(4)] == [["1"], ["1"], ["1", "2"], ["1"]]

    @pytest.mark.parametrize(
        "order",
        [{"do": "raise"}, {"do": "crash"}, {"do": "malformed"}, {"do": "sleep", "seconds": 60}],
        ids=["error", "crash", "malformed answer", "timeout"],
    )
    def test_what_never_succeeds_ends_in_the_dead_letter_queue(self, small: Small, order: dict[str, Any]) -> None:
        name = f"hopeless-{order['do']}"
        small.send(**order, name=name)
        url = small.stack.outputs["DeadLetterQueueUrl"]
        dead = eventually(lambda: small.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages"))[0]
        small.sqs.delete_message(QueueUrl=url, ReceiptHandle=dead["ReceiptHandle"])
        assert json.loads(dead["Body"])["name"] == name
        assert small.receive_counts(name) == ["1", "2"]
        log = (small.stack.state_dir / "logs" / "WorkFunction.log").read_text()
        assert {"raise": "as asked", "crash": "REPORT", "malformed": "REPORT", "sleep": "Task timed out after 3.00"}[
            order["do"]
        ] in log

    def test_concurrency_stays_under_the_maximum(self, small: Small) -> None:
        for number in range(20):
            small.send(do="sleep", seconds=0.2, name=f"many-{number}")
        most = 0
        while not small.stack.idle():
            most = max(most, small.stack.queue_depths()["WorkQueue"]["in_flight"])
            time.sleep(0.02)
        assert 0 < most <= 10  # two batches of five
        assert [small.receive_counts(f"many-{number}") for number in range(20)] == [["1"]] * 20


class TestRedrive:
    def test_a_move_task_takes_dead_letters_back_to_their_queue(self, small: Small) -> None:
        dead_letter = small.stack.outputs["DeadLetterQueueUrl"]
        arn = small.sqs.get_queue_attributes(QueueUrl=dead_letter, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        small.sqs.send_message(QueueUrl=dead_letter, MessageBody=json.dumps({"name": "redriven"}))
        small.sqs.start_message_move_task(SourceArn=arn)
        eventually(lambda: small.receive_counts("redriven"))
        task = eventually(
            lambda: [
                t for t in small.sqs.list_message_move_tasks(SourceArn=arn)["Results"] if t["Status"] == "COMPLETED"
            ]
        )[0]
        assert task["ApproximateNumberOfMessagesMoved"] == 1

    def test_a_queue_that_is_nobodys_dead_letter_queue_cannot_be_redriven(self, small: Small) -> None:
        url = small.stack.outputs["RuleDeadLetterQueueUrl"]
        arn = small.arn(url)
        with pytest.raises(botocore.exceptions.ClientError, match="Dead Letter Queue"):
            small.sqs.start_message_move_task(SourceArn=arn)


class TestAwsEndpoint:
    def test_presigned_urls_ranges_and_heads_work_over_one_connection(self, small: Small) -> None:
        import urllib.request

        small.s3.put_object(Bucket=small.bucket, Key="taken/p", Body=b"0123456789", Metadata={"a_b": "c"})
        small.events(1)
        head = small.s3.head_object(Bucket=small.bucket, Key="taken/p")
        assert head["ContentLength"] == 10
        assert small.s3.get_object(Bucket=small.bucket, Key="taken/p", Range="bytes=2-4")["Body"].read() == b"234"
        url = small.s3.generate_presigned_url("get_object", Params={"Bucket": small.bucket, "Key": "taken/p"})
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"0123456789"

    def test_parallel_conditional_updates_lose_nothing(self, small: Small) -> None:
        from concurrent.futures import ThreadPoolExecutor

        dynamodb, table = small.stack.client("dynamodb"), small.stack.outputs["TableName"]

        def add(_: int) -> None:
            dynamodb.update_item(
                TableName=table,
                Key={"pk": {"S": "counter"}},
                UpdateExpression="ADD #n :one",
                ExpressionAttributeNames={"#n": "n"},
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(200)))
        assert dynamodb.get_item(TableName=table, Key={"pk": {"S": "counter"}})["Item"]["n"] == {"N": "200"}

    def test_every_kind_of_attribute_comes_back_as_it_was_put(self, small: Small) -> None:
        item = {
            "pk": {"S": "kinds"},
            "s": {"S": "text ü"},
            "n": {"N": "1.50"},
            "b": {"B": b"\x00\xff"},
            "bool": {"BOOL": False},
            "null": {"NULL": True},
            "l": {"L": [{"S": "x"}, {"M": {"y": {"N": "2"}, "z": {"B": b"\x01"}}}]},
            "m": {"M": {"empty": {"L": []}, "s": {"S": ""}}},
            "ss": {"SS": ["a", "b"]},
            "ns": {"NS": ["1", "2"]},
            "bs": {"BS": [b"\x02"]},
        }
        dynamodb, table = small.stack.client("dynamodb"), small.stack.outputs["TableName"]
        dynamodb.put_item(TableName=table, Item=item)
        assert dynamodb.get_item(TableName=table, Key={"pk": {"S": "kinds"}})["Item"] == item

    def test_a_long_poll_does_not_keep_others_from_sending(self, small: Small) -> None:
        import threading

        url = small.stack.outputs["EventsQueueUrl"]
        threading.Timer(0.3, lambda: small.sqs.send_message(QueueUrl=url, MessageBody="came late")).start()
        received = small.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"][0]
        small.sqs.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])
        assert received["Body"] == "came late"

    def test_signatures_decide_the_service_for_any_client(self, small: Small) -> None:
        session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="y", region_name="eu-west-1")
        sts = session.client("sts", endpoint_url=small.stack.aws_endpoint_url)
        assert sts.get_caller_identity()["Account"] == "123456789012"


def test_one_process_holds_one_stack(small: Small, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="runs a local stack already"):
        LocalStack(make_template(tmp_path), parameters={"Trace": "x"}).start()
    assert psutil.pid_exists(os.getpid())
    assert small.stack.workers()
