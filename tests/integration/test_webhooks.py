"""Webhooks on moto: receivers that verify, hang and fail on purpose, and what becomes of events meanwhile."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpcore2
import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from captions.completion_events import end_event
from captions.records.record import Provenance, Record, Result
from captions.webhooks import deliveries as module
from captions.webhooks.addresses import is_public
from captions.webhooks.deliveries import (
    GIVE_UP_SECONDS,
    RETRY_SECONDS,
    Deliveries,
    NotConfiguredError,
    WebhookDelivery,
    parse,
)
from captions.webhooks.endpoints import WebhookEndpoint, Webhooks, load
from captions.webhooks.health import PAUSED_AFTER_SECONDS, HealthTable
from captions.webhooks.payloads import MAX_BODY_BYTES
from support.pipeline import Aws
from support.serving import QuietHandler, serving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
CONTROL = "control"


def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"
    spec = importlib.util.spec_from_file_location("webhook_receiver", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Listener:
    """An endpoint that does as it is told: answers a status, or hangs; it keeps what it got."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: Mapping[str, str] = {}
        self.hangs = threading.Event()
        self.hanging = False
        self.got: list[tuple[dict[str, str], str]] = []
        listener = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.body().decode()
                listener.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if listener.hanging:
                    listener.hangs.wait(20)
                self.answer(listener.status, **listener.headers)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


class Post:
    """The webhooks function's logic with its queue, a clock that the test sets, and the delays that were asked for."""

    def __init__(self, aws: Aws, webhooks: Webhooks) -> None:
        self.aws = aws
        self.now = time.time()
        self.delays: list[int] = []
        self.webhooks = webhooks
        self.secrets: dict[str, tuple[str, ...]] = dict.fromkeys(webhooks.endpoints, (SECRET,))
        urls = [aws.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("webhooks", "webhooks-dead")]
        self.queue, self.dead = urls
        self.health = HealthTable(aws.dynamodb, CONTROL)
        self.deliveries = Deliveries(
            queue_url=self.queue,
            dead_letter_queue_url=self.dead,
            sqs=self,
            health=self.health,
            configured=lambda: self.webhooks,
            secrets=lambda: self.secrets,
            loopback=True,
            clock=lambda: self.now,
        )

    def send_message(self, **message: Any) -> None:
        """SQS as the function uses it, but nothing is delayed: the test's clock says how late it is."""
        delay = message.pop("DelaySeconds", 0)
        if message["QueueUrl"] == self.queue:
            self.delays.append(delay)
        assert len(message["MessageGroupId"]) <= 128
        self.aws.sqs.send_message(**message)

    def put(self, event: Mapping[str, Any]) -> None:
        self.aws.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(event))

    def round(self) -> list[str]:
        """Take what is on the queue now, as one invocation does; say what became of each message."""
        bodies = self.read(self.queue)

        async def batch() -> list[str]:
            await self.deliveries.look()
            return list(await asyncio.gather(*(self.deliveries.take(parse(body)) for body in bodies)))

        return asyncio.run(batch())

    def until_empty(self, most: int = 10) -> list[str]:
        endings: list[str] = []
        for _ in range(most):
            made = self.round()
            if not made:
                break
            endings += made
        return endings

    def read(self, url: str) -> list[str]:
        bodies: list[str] = []
        while messages := self.aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                bodies.append(message["Body"])
                self.aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies


def record(key: str = "shop/a.jpg", text: str = "A dog", **fields: Any) -> Record:
    made: dict[str, Any] = {
        "asset": f"media/{key}", "bucket": "media", "key": key, "sequencer": "0062E99A88DC407460", "state": "captioned",
        "source": "model", "kind": "image", "result": Result(text=text, language="en", task="caption"),
        "provenance": Provenance(model="M", cost="0.0001"), "completed_at": "2026-11-01T10:00:00Z",
        "updated_at": "2026-11-01T10:00:00Z",
    }  # fmt: skip
    return Record(**made | fields)


def event(of: Record | None = None) -> dict[str, Any]:
    """A completion event as the rule puts it on the queue."""
    detail_type, detail = end_event(of or record())
    return {
        "version": "0", "id": "x", "source": "media-captions", "detail-type": detail_type, "detail": detail,
        "time": "2026-11-01T10:00:01Z",
    }  # fmt: skip


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    made = [Listener(), Listener()]
    with ExitStack() as running:
        for listener in made:
            running.enter_context(serving(listener.server))
        yield made
        for listener in made:
            listener.hangs.set()


@pytest.fixture
def post(aws: Aws, listeners: list[Listener]) -> Post:
    endpoints = {
        "shop": WebhookEndpoint(url=listeners[0].url, prefixes=("shop/",)),
        "audit": WebhookEndpoint(url=listeners[1].url),
    }
    return Post(aws, Webhooks(endpoints=endpoints))


def test_an_event_reaches_each_endpoint_that_wants_it_signed_and_the_example_keeps_it_once(
    post: Post, listeners: list[Listener], tmp_path: Path
) -> None:
    receiving = example()
    store = receiving.Store(str(tmp_path / "captions.sqlite"))
    with serving(receiving.receiver(SECRET, store)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        post.webhooks = Webhooks(endpoints={"shop": WebhookEndpoint(url=url, prefixes=("shop/",))})
        post.put(event())
        post.put(event(record("private/b.jpg")))
        assert sorted(post.until_empty()) == ["delivered", "nobodys", "spread"]
        assert store.caption("media/shop/a.jpg") == ("captioned", "A dog")
        assert store.caption("media/private/b.jpg") is None
        # The same event twice, and an older one that comes late, change nothing; a newer one does.
        late = record(text="Older", updated_at="2026-11-01T09:00:00Z", completed_at="2026-11-01T09:00:00Z")
        newer = record(text="A person's words", updated_at="2026-11-02T00:00:00Z", completed_at="2026-11-02T00:00:00Z")
        for sent in (event(), event(newer), event(late)):
            post.put(sent)
        post.until_empty()
        assert store.caption("media/shop/a.jpg") == ("captioned", "A person's words")
        assert not store.keep(event()["detail"]["id"], event()["detail"])
        post.secrets = {"shop": (OLD_SECRET,)}
        post.put(event(record(text="Forged", updated_at="2026-11-03T00:00:00Z")))
        assert post.round() == ["spread"]
        assert post.round() == ["later"]  # 401
        assert store.caption("media/shop/a.jpg") == ("captioned", "A person's words")


def test_while_a_secret_is_changed_the_new_one_and_the_old_one_verify(post: Post, listeners: list[Listener]) -> None:
    post.webhooks = Webhooks(endpoints={"audit": post.webhooks.endpoints["audit"]})
    post.secrets = {"audit": (SECRET, OLD_SECRET)}
    post.now = time.time()
    post.put(event())
    assert post.until_empty() == ["spread", "delivered"]
    ((headers, body),) = listeners[1].got
    for secret in (SECRET, OLD_SECRET):
        assert Webhook(secret).verify(body, headers)["data"]["key"] == "shop/a.jpg"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers)
    assert headers["webhook-id"] == event()["detail"]["id"]


def test_a_body_is_bounded_and_links_to_the_rest(post: Post, listeners: list[Listener]) -> None:
    post.webhooks = load(
        f'api = "https://api.example/"\n[endpoints.audit]\nurl = "{listeners[1].url}"\nevents = ["Caption.Completed"]'
    )
    for text in ('"\n' * 10_000, "語" * 20_000, "short"):
        post.put(event(record(text=text)))
    assert post.until_empty().count("delivered") == 3
    bodies = sorted((body for _, body in listeners[1].got), key=len)
    assert [len(body.encode()) <= MAX_BODY_BYTES for body in bodies] == [True] * 3
    datas = [json.loads(body)["data"] for body in bodies]
    assert sorted(data["truncated"] for data in datas) == [False, True, True]
    assert {data["url"] for data in datas} == {"https://api.example/v1/assets/bWVkaWEvc2hvcC9hLmpwZw"}
    assert all(len(body.encode()) > MAX_BODY_BYTES - 10 for body in bodies if '"truncated":true' in body)


def test_an_endpoint_that_hangs_delays_no_other(
    post: Post, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", 0.5)
    listeners[0].hanging = True
    for number in range(6):
        post.put(event(record(f"shop/{number}.jpg")))
    began = time.monotonic()
    post.round()
    endings = post.round()
    assert time.monotonic() - began < 5
    assert endings.count("delivered") == 6  # the audit's, which waited for one attempt at the most
    assert len(listeners[1].got) == 6
    assert endings.count("later") == 6
    # From now on only one attempt at a time is made at the one that hangs, and nobody else's time is spent on it.
    calls = len(listeners[0].got)
    post.now += 60
    assert set(post.round()) == {"later"}
    assert len(listeners[0].got) == calls + 1


@pytest.mark.parametrize("drawn", [min, max, random.uniform])
def test_a_delivery_is_tried_for_three_days_with_growing_delays_then_given_up(
    post: Post, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch, drawn: Callable[[float, float], float]
) -> None:
    monkeypatch.setattr("captions.webhooks.deliveries.random", SimpleNamespace(uniform=drawn))
    listeners[1].status = 500
    post.put(event(record("other.jpg")))
    began = post.now
    assert post.round() == ["spread"]
    waits: list[float] = []
    for _ in range(500):
        last = post.now
        (ending,) = post.round()
        if ending == "given_up":
            break
        (body,) = post.read(post.queue)
        again = parse(body)
        assert isinstance(again, WebhookDelivery)
        waits.append(max(again.not_before, last) - last)
        post.now = max(again.not_before, last + post.delays[-1])
        post.aws.sqs.send_message(QueueUrl=post.queue, MessageBody=body)
    assert ending == "given_up"
    assert 2.6 * 86_400 < post.now - began < 1.01 * GIVE_UP_SECONDS
    tried = [wait for wait in waits if wait]
    assert len(listeners[1].got) >= len(RETRY_SECONDS)
    assert tried[:6] == sorted(tried[:6])
    assert max(post.delays) <= 900
    (letter,) = post.read(post.dead)
    last_try = parse(letter)
    assert isinstance(last_try, WebhookDelivery)
    assert last_try.endpoint == "audit"


def test_a_receiver_that_is_back_gets_what_it_missed(post: Post, listeners: list[Listener]) -> None:
    listeners[1].status = 503
    for number in range(5):
        post.put(event(record(f"{number}.jpg")))
    post.until_empty(4)
    listeners[1].status = 204
    for _ in range(40):
        post.now += 120
        if not post.round():
            break
    got = {json.loads(body)["data"]["key"] for _, body in listeners[1].got}
    assert got == {f"{number}.jpg" for number in range(5)}
    assert post.health.read() == {}


def test_an_endpoint_that_never_answers_is_paused_and_nothing_is_kept_for_it(
    post: Post, listeners: list[Listener]
) -> None:
    listeners[1].status = 500
    post.put(event(record("a.jpg")))
    post.until_empty(2)
    post.now += PAUSED_AFTER_SECONDS + 1
    post.put(event(record("b.jpg")))
    post.until_empty(3)
    assert post.health.read()["audit"].paused_at
    calls = len(listeners[1].got)
    post.put(event(record("c.jpg")))
    assert "paused" in post.until_empty(3)
    assert len(listeners[1].got) == calls
    listeners[1].status = 204
    assert post.health.resume("audit") is not None
    post.put(event(record("d.jpg")))
    assert "delivered" in post.until_empty(3)


def test_410_pauses_at_once_and_retry_after_is_heeded(post: Post, listeners: list[Listener]) -> None:
    listeners[1].status, listeners[1].headers = 429, {"retry-after": "700"}
    post.put(event(record("a.jpg")))
    assert post.round() == ["spread"]
    assert post.round() == ["later"]
    assert post.delays[-1] == 700
    listeners[1].status = 410
    post.now += 701
    assert post.round() == ["later"]
    assert post.health.read()["audit"].paused_at == pytest.approx(post.now, abs=0.01)


@pytest.mark.parametrize(
    "url", ["https://exämple.com/", "https://example.com/a b", "https://example.com/\r\nx: y", "https://e.com/ü"]
)
def test_a_url_that_no_request_could_hold_is_no_configuration(url: str) -> None:
    with pytest.raises(ValidationError, match="%xx"):
        WebhookEndpoint(url=url)


@pytest.mark.parametrize("key", ["a\ufffe.jpg", "b\uffff \x01\x7f\x9f.jpg", "e\u0301 + %2B.jpg"])
def test_a_message_about_any_key_holds_what_sqs_takes_and_is_read_as_it_was(key: str) -> None:
    about = WebhookDelivery(
        endpoint="audit", id="1", event_type="Caption.Completed", body=json.dumps({"key": key}, ensure_ascii=False),
        first_at=1.0,
    )  # fmt: skip
    assert about.message().isascii()
    assert about.message().isprintable()
    assert parse(about.message()) == about


def test_redirects_are_not_followed(post: Post, listeners: list[Listener]) -> None:
    listeners[1].status, listeners[1].headers = 307, {"location": listeners[0].url}
    post.put(event(record("a.jpg")))
    assert post.until_empty(2) == ["spread", "later"]
    assert listeners[0].got == []
    assert "redirects" in post.health.read()["audit"].last_error


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://localhost/hook", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
        ("http://example.com/", "HTTPS"),
    ],
)
def test_on_aws_nothing_but_public_addresses_over_https_is_called(post: Post, url: str, why: str) -> None:
    post.deliveries.loopback = False
    post.webhooks = Webhooks(endpoints={"audit": WebhookEndpoint(url=url)})
    post.put(event())
    assert post.until_empty(2) == ["spread", "later"]
    assert why in post.health.read()["audit"].last_error


@pytest.mark.parametrize("host", ["a..example.com", ".example.com", f"{'a' * 64}.example.com"])
def test_a_name_that_cannot_be_looked_up_is_a_failed_try(post: Post, host: str) -> None:
    post.webhooks = Webhooks(endpoints={"audit": WebhookEndpoint(url=f"https://{host}/")})
    post.put(event())
    assert post.round() == ["spread"]
    assert post.round() == ["later"]
    assert "has no address" in post.health.read()["audit"].last_error


def test_no_address_that_leads_to_a_network_of_ones_own_is_public() -> None:
    public = ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
    own = [
        "127.0.0.1", "10.1.2.3", "100.64.0.1", "169.254.169.254", "192.0.0.8", "192.88.99.1", "198.18.0.1", "0.0.0.0",
        "240.0.0.1", "224.0.0.1", "::", "::1", "::127.0.0.1", "::ffff:7f00:1", "::ffff:0:7f00:1", "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "fd00:ec2::254", "fe80::1%eth0",
        "fec0::1", "ff02::1", "100::1", "3fff::1", "2001:db8::1",
    ]  # fmt: skip
    assert [address for address in public if not is_public(address)] == []
    assert [address for address in own if is_public(address)] == []


def test_a_name_that_turns_private_after_it_was_judged_leads_nowhere_else(
    post: Post, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a public address at first, the machine's own from then on. Names are resolved once."""
    asked = 0

    async def rebinding(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        nonlocal asked
        asked += 1
        address = "198.51.100.7" if asked % 2 else "127.0.0.1"
        return [(2, 1, 6, "", (address if host == "evil.example" else host, port))]

    connected: list[str] = []

    async def connect(self: Any, host: str, *_: Any, **__: Any) -> Any:
        connected.append(host)
        raise httpcore2.ConnectError("nobody there")

    monkeypatch.setattr("captions.webhooks.addresses.is_public", lambda address: address.startswith("198."))
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", rebinding)
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    post.deliveries.loopback = False
    post.webhooks = Webhooks(endpoints={"audit": WebhookEndpoint(url="https://evil.example/")})
    post.put(event())
    assert post.until_empty(2) == ["spread", "later"]
    assert connected == ["198.51.100.7"]
    post.now += 10
    assert post.round() == ["later"]  # it leads to this machine now, and is refused
    assert connected == ["198.51.100.7"]
    assert "127.0.0.1" in post.health.read()["audit"].last_error


def test_nothing_is_dropped_while_the_configuration_cannot_be_read_and_without_a_secret_nothing_is_sent(
    post: Post, listeners: list[Listener]
) -> None:
    configured = post.webhooks
    post.webhooks = load(None)
    post.put(event())
    with pytest.raises(NotConfiguredError):
        post.round()
    post.webhooks, post.secrets = configured, {"shop": ("whsec_!!",)}
    post.put(event())
    assert post.round() == ["spread"]
    assert post.round() == ["later", "later"]
    assert not listeners[0].got
    assert not listeners[1].got
    assert "no secret" in post.health.read()["audit"].last_error
    assert "!!" not in post.health.read()["shop"].last_error


def test_a_probe_is_one_sandboxs_alone_and_what_succeeded_meanwhile_does_not_come_back(aws: Aws) -> None:
    table = HealthTable(aws.dynamodb, CONTROL)
    for _ in range(3):
        table.failed("a", "HTTP 500", 1000.0)
    seen = table.read()["a"]
    assert seen.is_open
    assert [table.probe("a", seen, 1100.0), table.probe("a", seen, 1100.0)] == [True, False]
    table.failed("a", "HTTP 500", 1100.5, probing=True)
    longer = table.read()["a"]
    assert longer.open_until - 1100.5 > seen.open_until - 1000.0
    table.succeeded("a")
    assert table.read() == {}
    assert table.pause("b", 5.0)
    assert not table.pause("b", 6.0)
    table.succeeded("b")
    assert table.read()["b"].paused_at == 5.0
