"""What else of the stack the demo shows: a webhook received, a caption beside its object, a search, a batch."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from captions.cost import Cost
from captions.records.record import Record
from captions.records.spending import calls_of
from captions_cli import rendering, searching
from captions_cli.demo_uploads import ARCHIVE
from captions_cli.stack import Stack

WEBHOOKS, POLICY = "/captions/demo/webhooks", "/captions/demo/policy"
PARAMETERS = {
    "Webhooks": WEBHOOKS,
    "WriteBack": "true",
    "PolicyOverride": POLICY,
    "Search": "words",
    "SearchDelaySeconds": "1",
    "Bulk": "batches",
    "BulkGatherSeconds": "3",
}
"""Template parameters of the demo's doors; one that was given another value is left as it is, and not looked at."""
SHOWN = "osprey.jpg"
"""The upload whose caption is kept beside it, and searched for."""
WAIT_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""Between two looks at the batches: the stack's own schedule has one a minute."""
MOST_BODY_BYTES = 100_000


@dataclass(frozen=True)
class DoorsSeen:
    """What came of the doors: a line for each that did as it must, a problem for each that did not."""

    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class DemoDoors(AbstractContextManager["DemoDoors"]):
    """Receives the webhooks of a demo's stack, and looks at what its other doors did."""

    def __init__(self, stack: Stack, parameters: Mapping[str, str]) -> None:
        self._stack = stack
        self._open = {name for name, value in PARAMETERS.items() if parameters.get(name) == value}
        self._server: ThreadingHTTPServer | None = None
        self._states: dict[str, set[str]] = {}
        self._refused = 0
        self._over = threading.Event()
        self._looking: threading.Thread | None = None
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        if "PolicyOverride" in self._open:
            rules = f'[[write_back]]\nprefix = "{SHOWN}"\nto = ["sidecar"]\n'
            rules += f'[[rules]]\nprefix = "{ARCHIVE}"\nlane = "bulk"\n'
            self._stack.client("ssm").put_parameter(Name=POLICY, Value=rules, Type="String")
        if "Bulk" in self._open:
            self._looking = threading.Thread(target=self._look_after_batches, daemon=True)
            self._looking.start()
        if "Webhooks" in self._open:
            self._receive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._looking is not None:
            self._looking.join(WAIT_SECONDS)
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        if kind is None:  # a stack that is kept calls nobody who has gone
            self._endpoint(paused=True)

    def look(self, records: Sequence[Record]) -> DoorsSeen:
        """Wait until each door has done its part about these uploads, and say how it went."""
        lines, problems = [], []
        shown = next((record for record in records if record.key == SHOWN and record.result is not None), None)
        looks: list[tuple[bool, str, Callable[[], str | None]]] = [
            (self._server is not None, "webhooks", lambda: self._heard(records)),
            ({"WriteBack", "PolicyOverride"} <= self._open, "write-back", lambda: self._beside(shown)),
            ("Search" in self._open, "search", lambda: self._searched(shown)),
            ({"Bulk", "PolicyOverride"} <= self._open, "bulk lane", lambda: self._batched(records)),
        ]
        deadline = time.monotonic() + WAIT_SECONDS
        for is_open, door, look in looks:
            if not is_open:
                continue
            while (line := look()) is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if line is None:
                problems.append(f"{door}: nothing came of {len(records)} uploads in {WAIT_SECONDS:g} s")
            else:
                lines.append(line)
        if self._refused:
            problems.append(f"webhooks: {self._refused} requests had no valid signature")
        return DoorsSeen(tuple(lines), tuple(problems))

    def _receive(self) -> None:
        import base64
        import secrets

        from standardwebhooks import Webhook, WebhookVerificationError

        secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        webhook, doors = Webhook(secret), self

        class Receiver(BaseHTTPRequestHandler):
            timeout = 10.0

            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MOST_BODY_BYTES))
                try:
                    event = webhook.verify(body, dict(self.headers))
                except WebhookVerificationError:
                    doors._refuse()
                    self.send_error(401)
                    return
                doors._hear(event)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._stack.client("secretsmanager").put_secret_value(
            SecretId=self._stack.nested("Doors", "WebhookSecretsArn"), SecretString=json.dumps({"demo": [secret]})
        )
        self._endpoint()

    def _endpoint(self, *, paused: bool = False) -> None:
        assert self._server is not None
        url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        text = f'[endpoints.demo]\nurl = "{url}"\npaused = {str(paused).lower()}\n'
        self._stack.client("ssm").put_parameter(Name=WEBHOOKS, Value=text, Type="String", Overwrite=True)

    def _hear(self, event: Mapping[str, Any]) -> None:
        data = event["data"]
        with self._guard:
            self._states.setdefault(data["asset"], set()).add(data["state"])

    def _refuse(self) -> None:
        with self._guard:
            self._refused += 1

    def _heard(self, records: Sequence[Record]) -> str | None:
        with self._guard:
            if any(record.state not in self._states.get(record.asset, ()) for record in records):
                return None
        return f"webhooks: the end of all {len(records)} uploads was received, signatures verified"

    def _beside(self, shown: Record | None) -> str | None:
        from botocore.exceptions import ClientError

        if shown is None or shown.result is None:
            return None
        key = f"{shown.key}.caption.json"
        try:
            answer = self._stack.client("s3").get_object(Bucket=shown.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return None
        written = json.load(answer["Body"])
        return f"write-back: {key} has the caption too" if written.get("text") == shown.result.text else None

    def _look_after_batches(self) -> None:
        function = f"{self._stack.nested('BulkLane', 'BulkFunctionName')}:live"
        client = self._stack.client("lambda")
        while not self._over.wait(LOOK_SECONDS):
            client.invoke(FunctionName=function, Payload=b"{}")

    def _batched(self, records: Sequence[Record]) -> str | None:
        could_wait = [record for record in records if record.key.startswith(ARCHIVE)]
        calls = [call for record in could_wait for call in calls_of(record) if call.get("batch")]
        if not calls or len({record.key for record in could_wait}) > len(calls):
            return None
        batches = len({call["batch"] for call in calls})
        paid, saved = (Cost.sum(Cost.read(call, name) or Cost() for call in calls) for name in ("cost", "saved"))
        return (
            f"bulk lane: {len(could_wait)} pictures in {batches} {'batch' if batches == 1 else 'batches'} "
            f"for {rendering.cost(paid)}, saving {rendering.cost(saved)}"
        )

    def _searched(self, shown: Record | None) -> str | None:
        if shown is None or shown.result is None:
            return None
        words = re.findall(r"\w+", shown.result.text)[:3]
        text = f'"{" ".join(words)}"'
        page = searching.search(self._stack, text, {"limit": 100})
        if shown.key not in {item["key"] for item in page["items"]}:
            return None
        return f"search: {text} finds {len(page['items'])} captions, {shown.key} among them"
