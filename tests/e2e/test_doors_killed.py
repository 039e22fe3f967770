"""`kill -9` of each function that follows completion events, in the middle of its work: nothing is lost."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from captions_cli.local import LocalStack
from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.options import ModelOptions, WorkerOptions
from support.permissions import CREDENTIAL
from support.pipeline import MEDIA
from support.serving import QuietHandler, serving
from support.small_stack import eventually, inside

ROOT = Path(__file__).parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PICTURES = 5
FIRST_WRITES = {"SearchFunction": "/PutVectors", "WriteBackFunction": ".caption.json"}
"""What a function is killed after: its first write whose path ends so, the answer to which it never gets."""


class Killer:
    """An interceptor that kills a function once, when its first write is done and before it hears of that."""

    def __init__(self) -> None:
        self.stack: LocalStack | None = None
        self.killed: Counter[str] = Counter()
        self._guard = threading.Lock()

    def __call__(self, call: AwsCall, forward: Forward) -> Any:
        answer = forward(call)
        signed = CREDENTIAL.search(str(call.environ.get("HTTP_AUTHORIZATION", "")))
        function = signed[1] if signed else ""
        writes = call.environ["REQUEST_METHOD"] in ("PUT", "POST")
        if writes and function in FIRST_WRITES and call.path.endswith(FIRST_WRITES[function]):
            self.kill(function)
        return answer

    def kill(self, function: str) -> None:
        """Kill the workers of a function, unless that was done."""
        with self._guard:
            if self.killed[function] or self.stack is None:
                return
            for name, pid in self.stack.workers():
                if name == function:
                    self.stack.kill_worker(pid)
                    self.killed[function] += 1


@pytest.fixture
def killer() -> Killer:
    return Killer()


@pytest.fixture
def stack(tmp_path: Path, killer: Killer) -> Iterator[LocalStack]:
    doors = {"Webhooks": "/webhooks", "WriteBack": "true", "PolicyOverride": "/policy", "Search": "meaning"}
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=tmp_path,
        parameters={**doors, "SearchDelaySeconds": "1"},
        model=ModelOptions(latency_scale=0),
        workers=WorkerOptions(warm=0, visibility_s=15),
        interceptors=[killer],
    ) as running:
        rule = '[[write_back]]\nprefix = ""\nto = ["sidecar"]\n'
        running.client("ssm").put_parameter(Name="/policy", Value=rule, Type="String")
        killer.stack = running
        yield running


@pytest.mark.deep
@pytest.mark.timeout(400)
def test_each_function_killed_at_its_first_write_does_its_work_all_the_same(stack: LocalStack, killer: Killer) -> None:
    received: Counter[str] = Counter()
    states: dict[str, str] = {}
    guard = threading.Lock()

    class Receiver(QuietHandler):
        def do_POST(self) -> None:
            event = Webhook(SECRET).verify(self.body(), dict(self.headers))
            with guard:
                received[self.headers["webhook-id"]] += 1
                states[event["data"]["asset"].partition("/")[2]] = event["data"]["state"]
            killer.kill("WebhooksFunction")
            self.answer(204)

    s3 = stack.client("s3")
    bucket = stack.outputs["MediaBucketName"]
    named = inside(stack, "Doors")
    keys = {f"{number}.jpg" for number in range(PICTURES)}

    def searched(by: str) -> set[str]:
        asked = {"search": {"text": "green contrast", "by": by, "limit": 100}}
        answer = stack.client("lambda").invoke(FunctionName=named["SearchFunction"], Payload=json.dumps(asked))
        return {item["key"] for item in json.loads(answer["Payload"].read()).get("items", ())}

    def written() -> set[str]:
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {item["Key"].removesuffix(".caption.json") for item in listed if item["Key"].endswith(".caption.json")}

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Receiver)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        stack.client("ssm").put_parameter(Name="/webhooks", Value=f'[endpoints.all]\nurl = "{url}"\n', Type="String")
        stack.client("secretsmanager").put_secret_value(
            SecretId=named["WebhookSecrets"], SecretString=json.dumps({"all": [SECRET]})
        )
        body = (MEDIA / "perched-osprey.jpg").read_bytes()
        for key in keys:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        eventually(lambda: states == dict.fromkeys(keys, "captioned"), 120)
        eventually(lambda: written() == keys, 120)
        eventually(lambda: searched("words") >= keys and searched("meaning") == keys, 120)
        assert stack.wait_idle(60)
    assert killer.killed.keys() >= {"WebhooksFunction", "WriteBackFunction", "SearchFunction"}
    # An event comes again when its function died before it could note the answer, and then as the same event.
    assert len(received) == PICTURES
    assert sum(received.values()) <= PICTURES + 10 * killer.killed["WebhooksFunction"]
    depths = {name: depth for name, depth in stack.queue_depths().items() if "DeadLetter" in name}
    assert depths.keys() >= {"WebhooksDeadLetterQueue", "WriteBackDeadLetterQueue", "SearchDeadLetterQueue"}
    assert not any(depth["visible"] for depth in depths.values())
