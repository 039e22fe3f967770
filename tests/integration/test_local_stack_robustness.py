"""The local stack when things go wrong: killed workers, a restarted pump, repeated events, a stack that is ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from werkzeug import Response

from captions_cli.local import LocalStack, StackError
from captions_cli.local.aws.events import Unreliability
from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.options import Address, ModelOptions, WorkerOptions
from support.aws_faults import AwsFault, AwsFaults
from support.small_stack import TEMPLATE, Small, eventually, make_template

pytestmark = pytest.mark.deep

Start = Callable[..., Small]
CREDENTIALS = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start small stacks; each ends before the next one or with the test."""
    running: list[LocalStack] = []

    def start(**options: Any) -> Small:
        template = tmp_path / "template.yaml"
        stack = LocalStack(
            template if template.exists() else make_template(tmp_path),
            stack_name="small",
            state_dir=tmp_path / "state",
            parameters={"Trace": str(tmp_path / "trace")},
            **options,
            model=ModelOptions(url="http://127.0.0.1:9/v1"),
        )
        stack.start()
        running.append(stack)
        return Small(stack, tmp_path / "trace")

    yield start
    for stack in running:
        stack.stop()


class TestKills:
    def test_the_message_of_a_killed_worker_comes_back(self, start: Start) -> None:
        small = start()
        small.send(do="sleep", seconds=2.5, times=1, name="victim")
        victim = eventually(lambda: [c for c in small.traced() if c["event"].get("Records")])[0]["pid"]
        small.stack.kill_worker(victim)
        assert small.stack.wait_idle(30)
        assert small.receive_counts("victim") == ["1", "2"]
        assert victim not in {pid for _, pid in small.stack.workers()}

    def test_only_own_workers_can_be_killed(self, start: Start) -> None:
        with pytest.raises(StackError, match="no worker"):
            start().stack.kill_worker(os.getpid())

    def test_an_idle_worker_that_died_is_replaced_without_a_failed_delivery(self, start: Start) -> None:
        small = start()
        killed = {pid for _, pid in small.stack.workers()}
        for pid in killed:
            small.stack.kill_worker(pid)
        eventually(lambda: not killed & {pid for _, pid in small.stack.workers()})
        for number in range(5):
            small.send(name=f"after-{number}")
        assert small.stack.wait_idle(30)
        assert [small.receive_counts(f"after-{number}") for number in range(5)] == [["1"]] * 5

    def test_a_restarted_pump_loses_nothing(self, start: Start) -> None:
        small = start()
        small.send(do="sleep", seconds=2.5, times=1, name="interrupted")
        eventually(lambda: small.receive_counts("interrupted"))
        for number in range(10):
            small.send(name=f"queued-{number}")
        small.stack.restart_pump()
        assert small.stack.wait_idle(30)
        assert small.receive_counts("interrupted") == ["1", "2"]
        assert all(small.receive_counts(f"queued-{number}") for number in range(10))


class TestDeliveries:
    def test_every_event_twice_and_in_another_order(self, start: Start) -> None:
        small = start(unreliability=Unreliability(deliver_twice=True, shuffle=True, seed=1))
        keys = [f"key-{number:02}" for number in range(10)]
        for key in keys:
            small.s3.put_object(Bucket=small.bucket, Key=key, Body=b"")
        events = small.events(20)
        delivered = [event["detail"]["object"]["key"] for event in events]
        assert sorted(delivered) == sorted(keys * 2)
        assert delivered != sorted(delivered)
        assert len({event["id"] for event in events}) == 10

    def test_visibility_can_be_set_for_trials(self, start: Start) -> None:
        small = start(workers=WorkerOptions(visibility_s=1_000))
        small.send(do="fail", times=1, name="hidden")
        eventually(lambda: small.receive_counts("hidden"))
        time.sleep(2.5)  # longer than the queue's own two seconds
        assert small.receive_counts("hidden") == ["1"]
        assert small.stack.queue_depths()["WorkQueue"]["in_flight"] == 1


class TestInterceptors:
    def test_aws_can_be_made_to_refuse(self, start: Start) -> None:
        refused: list[str] = []

        def throttle(call: AwsCall, forward: Forward) -> Response:
            if call.action == "PutItem" and len(refused) < 2:
                refused.append(call.region)
                error = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"
                return Response(json.dumps({"__type": error, "message": "slower"}), 400)
            return forward(call)

        small = start(interceptors=[throttle])
        small.send(do="put", pk="in the end")
        assert small.stack.wait_idle(30)
        key = {"pk": {"S": "in the end"}}
        table = small.stack.outputs["TableName"]
        assert "Item" in small.stack.client("dynamodb").get_item(TableName=table, Key=key)
        assert refused == ["us-east-1"] * 2

    def test_faults_speak_each_services_language_until_they_are_cleared(self, start: Start) -> None:
        faults = AwsFaults(seed=1)
        small = start(interceptors=[faults])
        client, once = small.stack.client, Config(retries={"max_attempts": 0})
        table, queue = small.stack.outputs["TableName"], small.stack.outputs["EventsQueueUrl"]
        item = {"pk": {"S": "a"}, "n": {"N": "1"}}
        calls: dict[str, tuple[Callable[[Any], Any], str]] = {
            "dynamodb": (lambda c: c.put_item(TableName=table, Item=item), "ProvisionedThroughputExceededException"),
            "sqs": (lambda c: c.send_message(QueueUrl=queue, MessageBody="a"), "RequestThrottled"),
            "s3": (lambda c: c.list_objects_v2(Bucket=small.bucket), "SlowDown"),
            "events": (lambda c: c.list_rules(), "ThrottlingException"),
        }
        impatient = {
            name: boto3.client(  # type: ignore[call-overload] # named at run time
                name, endpoint_url=small.stack.aws_endpoint_url, config=once, **CREDENTIALS
            )
            for name in calls
        }
        for name, (call, code) in calls.items():
            faults.set([AwsFault(name)])
            with pytest.raises(ClientError) as caught:
                call(impatient[name])
            assert caught.value.response["Error"]["Code"] == code
            faults.clear()
            call(client(name))
        assert sum(faults.struck.values()) == len(calls)

    def test_a_fault_strikes_what_it_names_for_its_time_and_as_often_as_it_may(self, start: Start) -> None:
        now = [0.0]
        faults = AwsFaults(seed=1, clock=lambda: now[0])
        faults.set([AwsFault("dynamodb", "Put*", probability=0.5, for_s=10.0)])

        def struck(action: str) -> bool:
            call = AwsCall("dynamodb", "us-east-1", {"HTTP_X_AMZ_TARGET": f"DynamoDB_20120810.{action}"}, b"")
            return bool(faults(call, lambda _: Response("passed")).status_code != 200)

        assert not any(struck("GetItem") for _ in range(50))
        assert 10 < sum(struck("PutItem") for _ in range(50)) < 40
        now[0] = 10.0
        assert not any(struck("PutItem") for _ in range(50))

    def test_an_answer_can_be_lost_after_the_work_was_done(self, start: Start) -> None:
        faults = AwsFaults()
        small = start(interceptors=[faults])
        url = small.stack.outputs["EventsQueueUrl"]
        faults.set([AwsFault("sqs", "SendMessage", lost_answer=True, probability=1.0)])
        with pytest.raises(ClientError, match="InternalServerError"):
            small.sqs.send_message(QueueUrl=url, MessageBody="said, and not heard to be said")
        faults.clear()
        assert small.sqs.receive_message(QueueUrl=url)["Messages"]

    def test_a_request_whose_client_died_in_its_middle_has_no_effect(self, start: Start) -> None:
        small = start()
        url = urlsplit(small.s3.generate_presigned_url("put_object", Params={"Bucket": small.bucket, "Key": "half"}))
        with socket.create_connection((url.hostname, url.port)) as client:
            head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 100\r\n\r\n"
            client.sendall(head.encode() + b"x" * 50)
        small.s3.put_object(Bucket=small.bucket, Key="whole", Body=b"")
        time.sleep(0.3)
        assert [result["Key"] for result in small.s3.list_objects_v2(Bucket=small.bucket)["Contents"]] == ["whole"]


class TestClocks:
    def test_each_workers_clock_is_wrong_but_its_remaining_time_is_right(self, start: Start) -> None:
        small = start(workers=WorkerOptions(clock_skew_s=3_000.0, warm=2))
        before = time.time()
        for number in range(2):
            small.send(do="sleep", seconds=1.0, name=f"at-{number}")
        assert small.stack.wait_idle(30)
        reported = [call["context"] for call in small.traced() if call["event"].get("Records")]
        assert any(abs(context["clock"] - before) > 60 for context in reported)
        assert all(0 < context["left_ms"] <= 3_000 for context in reported)
        small.s3.put_object(Bucket=small.bucket, Key="signed", Body=b"")  # and nobody else's is


class TestStarting:
    def test_a_second_stack_in_the_same_place_says_who_is_there(self, start: Start, tmp_path: Path) -> None:
        small = start()
        other = run_module(tmp_path, "--state-dir", str(small.stack.state_dir))
        assert other.wait(timeout=60) == 1
        assert other.stderr is not None
        assert f"a local stack is up already (process {os.getpid()})" in other.stderr.read()

    def test_a_taken_port_is_an_error_that_names_it(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(StackError, match=f"cannot listen on 127.0.0.1:{port}"):
                start(address=Address(port=port))

    def test_stacks_can_follow_one_another_and_share_nothing(self, start: Start) -> None:
        first = start()
        first.s3.put_object(Bucket=first.bucket, Key="old", Body=b"")
        first.stack.stop()
        second = start()
        assert second.bucket != first.bucket
        names = {bucket["Name"] for bucket in second.s3.list_buckets()["Buckets"]}
        assert first.bucket not in names

    def test_a_handler_that_cannot_be_loaded_is_shown(self, start: Start, tmp_path: Path) -> None:
        make_template(tmp_path)
        (tmp_path / "work" / "app.py").write_text("import nothing_of_the_kind\n")
        with pytest.raises(StackError, match="No module named 'nothing_of_the_kind'"):
            start()

    def test_an_unknown_resource_type_is_an_error(self, start: Start, tmp_path: Path) -> None:
        make_template(tmp_path)
        unknown = TEMPLATE.replace("Resources:\n", "Resources:\n  Odd: {Type: AWS::Mystery::Machine}\n", 1)
        (tmp_path / "template.yaml").write_text(unknown)
        with pytest.raises(StackError, match="AWS::Mystery::Machine"):
            start()


class TestProcess:
    def test_writes_its_state_and_removes_it(self, tmp_path: Path) -> None:
        make_template(tmp_path)
        process = run_module(tmp_path)
        state = ready(process)
        assert json.loads((tmp_path / "state" / "stack.json").read_text()) == state
        assert state["pid"] == process.pid
        assert state["stack_name"] == "small"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not (tmp_path / "state" / "stack.json").exists()

    def test_sigterm_ends_a_start_with_all_it_started(self, tmp_path: Path) -> None:
        make_template(tmp_path)
        process = run_module(tmp_path, endpoint=None)
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert not (tmp_path / "state" / "stack.json").exists()
        assert psutil.wait_procs(children, timeout=20)[1] == []

    def test_nothing_it_started_outlives_it_even_when_it_is_killed(self, tmp_path: Path) -> None:
        make_template(tmp_path)
        process = run_module(tmp_path, endpoint=None)
        ready(process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2  # a worker and the model endpoint
        process.kill()
        process.wait(timeout=10)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []

    def test_it_ends_in_good_order_with_the_process_that_it_was_started_for(self, tmp_path: Path) -> None:
        make_template(tmp_path)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
            process = run_module(tmp_path, CAPTIONS_STOP_WITH=str(owner.pid))
            ready(process)
            owner.kill()  # and not waited for: it is a zombie now
            assert process.wait(timeout=30) == 0
        assert not (tmp_path / "state" / "stack.json").exists()
        process = run_module(tmp_path, CAPTIONS_STOP_WITH=str(owner.pid))
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert errors.endswith(f"error: CAPTIONS_STOP_WITH='{owner.pid}' is no running process\n")


def run_module(
    directory: Path, *arguments: str, endpoint: str | None = "http://127.0.0.1:9/v1", **environment: str
) -> "subprocess.Popen[str]":
    """Run `python -m captions_cli.local` with the small template."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "captions_cli.local"),
            *("--template", str(directory / "template.yaml"), "--stack-name", "small"),
            *("--state-dir", str(directory / "state"), "--parameter", f"Trace={directory / 'trace'}"),
            *(("--endpoint", endpoint) if endpoint else ()),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("CAPTIONS_")} | environment,
    )


def ready(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for the line that says that the stack is up."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    state: dict[str, Any] = json.loads(line)
    return state
