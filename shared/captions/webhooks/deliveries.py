"""Sends events to endpoints: each on its own, again after growing delays for three days, at least once.

An event becomes one message for each endpoint that wants it, so that none waits for another. A message that could not
be delivered is put on the queue again, with what is known of it inside: SQS delays no message for longer than a quarter
of an hour, so that it comes round until its time has come. What its endpoint never took ends in the dead-letter queue.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import httpcore2
from pydantic import BaseModel, ConfigDict
from standardwebhooks import Webhook

from captions import telemetry
from captions.queues import MAX_DELAY_SECONDS
from captions.webhooks.addresses import ForbiddenAddressError, PublicOnly
from captions.webhooks.endpoints import TEST_TYPE, WebhookEndpoint, Webhooks, WebhooksError, is_secret
from captions.webhooks.health import HEALTHY, Health, HealthTable
from captions.webhooks.payloads import body_of

ATTEMPT_SECONDS = 10.0
"""For connecting, sending and the answer together: a receiver acknowledges, and works afterwards."""
CONNECT_SECONDS = 3.0
MOST_ANSWER_BYTES = 4_096
"""Of an answer, whose body says nothing to us."""
MINUTE, HOUR = 60.0, 3_600.0
RETRY_SECONDS = (
    *(5.0, 30.0, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR, 8 * HOUR),
    *(10 * HOUR, 12 * HOUR, 12 * HOUR, 16 * HOUR),
)
"""Before each further attempt; 71.7 hours in all."""
GIVE_UP_SECONDS = 3 * 86_400.0
LONGEST_RETRY_AFTER_SECONDS = HOUR
ALARM_AFTER_SECONDS = HOUR
"""An endpoint that failed for so long is notified of, long before it is paused."""


class WebhookDelivery(BaseModel):
    """One event on its way to one endpoint."""

    model_config = ConfigDict(frozen=True)

    type: Literal["delivery"] = "delivery"
    endpoint: str
    id: str
    """The event's own, the same in every attempt and replay: receivers drop what they have."""
    event_type: str
    body: str
    attempt: int = 0
    """How many were made."""
    first_at: float
    not_before: float = 0.0

    def message(self) -> str:
        """Return it as a message, escaped to ASCII: SQS refuses some characters that object keys may have."""
        return json.dumps(self.model_dump(mode="json"))


class BusEvent(BaseModel):
    """An event of the bus as a rule puts it on the queue; `only`: of a replay, the endpoints that are to get it."""

    model_config = ConfigDict(extra="ignore")

    detail_type: str
    time: str
    detail: dict[str, Any]
    only: tuple[str, ...] = ()


class NotConfiguredError(RuntimeError):
    """The endpoints' configuration could not be read yet; the message is to come again."""


@dataclass(frozen=True)
class Receipt:
    """What came of one attempt; `status` is None where there was no answer."""

    ok: bool
    status: int | None = None
    why: str = ""
    retry_after: float = 0.0
    milliseconds: int = 0


def parse(body: str) -> WebhookDelivery | BusEvent:
    """Read one message; raises ValueError for what is none."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("no message of this queue")
    if message.get("type") == "delivery":
        return WebhookDelivery.model_validate(message)
    return BusEvent.model_validate(message | {"detail_type": message.get("detail-type")})


@dataclass
class Deliveries:
    """Handles the messages of the webhooks queue.

    `configured` gives the endpoints, `secrets` the secrets of each, both as they are now. `sqs` is a boto3 client.
    """

    queue_url: str
    dead_letter_queue_url: str
    sqs: Any
    health: HealthTable
    configured: Callable[[], Webhooks]
    secrets: Callable[[], Mapping[str, tuple[str, ...]]]
    loopback: bool = False
    clock: Callable[[], float] = time.time
    _known: dict[str, Health] = field(default_factory=dict)

    async def look(self) -> None:
        """Read how the endpoints are, once for a batch."""
        self._known = await asyncio.to_thread(self.health.read)

    async def take(self, message: WebhookDelivery | BusEvent) -> str:
        """Handle one message; say what became of it. Raises NotConfiguredError, or as AWS does."""
        webhooks = self.configured()
        if not webhooks.known:
            raise NotConfiguredError("the webhooks' configuration cannot be read")
        if isinstance(message, BusEvent):
            return await asyncio.to_thread(self._spread, message, webhooks)
        endpoint = webhooks.endpoints.get(message.endpoint)
        if endpoint is None or endpoint.paused:
            return "endpoint_gone" if endpoint is None else "switched_off"
        return await self._attempt(message, endpoint)

    async def test(self, name: str) -> Receipt:
        """Send an endpoint a test event now, whatever is known of it. Raises WebhooksError if there is no such one."""
        endpoint = self.configured().endpoints.get(name)
        if endpoint is None:
            raise WebhooksError(f"there is no endpoint {name}")
        now = self.clock()
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        body = json.dumps({"type": TEST_TYPE, "timestamp": at, "data": {"endpoint": name}}, separators=(",", ":"))
        test = WebhookDelivery(endpoint=name, id=f"test-{now:.6f}", event_type=TEST_TYPE, body=body, first_at=now)
        return await self._post(test, endpoint)

    def _spread(self, event: BusEvent, webhooks: Webhooks) -> str:
        key, now = str(event.detail.get("key", "")), self.clock()
        wanted = [
            name
            for name, endpoint in webhooks.endpoints.items()
            if endpoint.wants(event.detail_type, key) and (not event.only or name in event.only)
        ]
        if not wanted:
            return "nobodys"
        body = body_of(event.detail_type, event.time, event.detail, webhooks.api)
        for name in wanted:  # one by one: a batch of bodies of 20 KB may be larger than a request may be
            delivery = WebhookDelivery(
                endpoint=name, id=event.detail["id"], event_type=event.detail_type, body=body, first_at=now
            )
            self._send(delivery, 0.0)
        return "spread"

    async def _attempt(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint) -> str:
        now = self.clock()
        if delivery.not_before > now:
            return await self._again(delivery, delivery.not_before - now)
        known = self._known.get(delivery.endpoint, HEALTHY)
        if known.paused_at:
            telemetry.count("WebhookEndpointFailing")
            return "paused"
        probing = False
        if known.is_open:
            if known.open_until > now or not await asyncio.to_thread(self.health.probe, delivery.endpoint, known, now):
                return await self._wait(delivery, max(0.0, known.open_until - now), now)
            probing = True
        answered = await self._post(delivery, endpoint)
        telemetry.observe("WebhookLatency", answered.milliseconds)
        if answered.ok:
            telemetry.count("WebhookDelivered")
            if known is not HEALTHY:
                self._known.pop(delivery.endpoint, None)
                await asyncio.to_thread(self.health.succeeded, delivery.endpoint)
            return "delivered"
        return await self._failed(delivery, answered, probing=probing)

    async def _failed(self, delivery: WebhookDelivery, answered: Receipt, *, probing: bool) -> str:
        now = self.clock()
        telemetry.count("WebhookFailed")
        telemetry.logger().warning(
            "webhook_failed",
            endpoint=delivery.endpoint,
            event_id=delivery.id,
            attempt=delivery.attempt + 1,
            status=answered.status,
            why=answered.why,
        )
        health, paused = await asyncio.to_thread(
            lambda: self.health.failed(
                delivery.endpoint, answered.why, now, probing=probing, gone=answered.status == 410
            )
        )
        self._known[delivery.endpoint] = health
        if paused or (health.is_open and now - health.failing_since >= ALARM_AFTER_SECONDS):
            telemetry.count("WebhookEndpointFailing")
        if paused:
            telemetry.logger().error("webhook_endpoint_paused", endpoint=delivery.endpoint, why=answered.why)
        if delivery.attempt >= len(RETRY_SECONDS) or now - delivery.first_at >= GIVE_UP_SECONDS:
            return await self._give_up(delivery, answered.why)
        delay = RETRY_SECONDS[delivery.attempt] * random.uniform(0.9, 1.1)  # noqa: S311 - spreads retries
        # The last try is not much later than that, however the delays before it fell out.
        delay = max(min(delay, delivery.first_at + GIVE_UP_SECONDS - now), answered.retry_after)
        tried = delivery.model_copy(update={"attempt": delivery.attempt + 1, "not_before": now + delay})
        return await self._again(tried, delay)

    async def _wait(self, delivery: WebhookDelivery, least: float, now: float) -> str:
        """Come again once the endpoint may be tried: soon if the event is young, for it is soon known if it works."""
        age = now - delivery.first_at
        if age >= GIVE_UP_SECONDS:
            return await self._give_up(delivery, "its endpoint answered nobody")
        spread = min(MAX_DELAY_SECONDS, max(5.0, age / 4))
        return await self._again(delivery, least + random.uniform(0, spread))  # noqa: S311 - spreads retries

    async def _again(self, delivery: WebhookDelivery, seconds: float) -> str:
        await asyncio.to_thread(self._send, delivery, seconds)
        return "later"

    def _send(self, delivery: WebhookDelivery, seconds: float) -> None:
        self.sqs.send_message(
            QueueUrl=self.queue_url,
            MessageBody=delivery.message(),
            DelaySeconds=min(MAX_DELAY_SECONDS, max(0, round(seconds))),
            # A fair queue: while one endpoint's messages pile up, those of the others go first.
            MessageGroupId=delivery.endpoint,
        )

    async def _give_up(self, delivery: WebhookDelivery, why: str) -> str:
        telemetry.count("WebhookGivenUp")
        telemetry.logger().error("webhook_given_up", endpoint=delivery.endpoint, event_id=delivery.id, why=why)
        await asyncio.to_thread(
            lambda: self.sqs.send_message(
                QueueUrl=self.dead_letter_queue_url,
                MessageBody=delivery.message(),
                MessageGroupId=delivery.endpoint,
            )
        )
        return "given_up"

    async def _post(self, delivery: WebhookDelivery, endpoint: WebhookEndpoint) -> Receipt:
        began = time.monotonic()
        try:
            if not endpoint.url.startswith("https:") and not self.loopback:
                raise WebhooksError("endpoints are notified over HTTPS; plain HTTP is for a local stack alone")
            headers = self._signed(delivery)
            async with asyncio.timeout(ATTEMPT_SECONDS):
                status, retry_after = await self._exchange(endpoint.url, headers, delivery.body)
        except (ForbiddenAddressError, WebhooksError) as error:
            answered = Receipt(False, why=str(error))
        except TimeoutError:
            answered = Receipt(False, why=f"no answer within {ATTEMPT_SECONDS:.0f} s")
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
            answered = Receipt(False, why=f"{type(error).__name__}: {error}")
        else:
            ok = 200 <= status < 300
            why = "" if ok else f"HTTP {status}" + (" (redirects are not followed)" if 300 <= status < 400 else "")
            answered = Receipt(ok, status, why, retry_after)
        milliseconds = round((time.monotonic() - began) * 1000)
        return Receipt(answered.ok, answered.status, answered.why, answered.retry_after, milliseconds)

    def _signed(self, delivery: WebhookDelivery) -> dict[str, str]:
        secrets = self.secrets().get(delivery.endpoint, ())
        if not secrets:
            raise WebhooksError(f"{delivery.endpoint} has no secret")
        if not all(map(is_secret, secrets)):
            raise WebhooksError(f"a secret of {delivery.endpoint} is not whsec_ and 24 to 64 bytes in base64")
        now = datetime.fromtimestamp(int(self.clock()), UTC)
        signatures = [Webhook(secret).sign(delivery.id, now, delivery.body) for secret in secrets]
        return {
            "content-type": "application/json",
            "user-agent": "media-captions-webhooks",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    async def _exchange(self, url: str, headers: Mapping[str, str], body: str) -> tuple[int, float]:
        """Post, and return the status and Retry-After in seconds. A pool for one call: nothing hangs on to a host."""
        split = httpcore2.URL(url)
        host = split.host.decode()
        port = split.port
        given = [("host", host if port is None else f"{host}:{port}"), *headers.items()]
        async with (
            httpcore2.AsyncConnectionPool(network_backend=PublicOnly(loopback=self.loopback)) as pool,
            pool.stream(
                "POST",
                url,
                headers=[(name.encode(), value.encode()) for name, value in given],
                content=body.encode("utf-8", "replace"),
                extensions={"timeout": {"connect": CONNECT_SECONDS, "read": ATTEMPT_SECONDS, "write": ATTEMPT_SECONDS}},
            ) as response,
        ):
            # The status is all that counts; what follows is left on the line.
            after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
            wait = float(after) if after.isdigit() else 0.0
            return response.status, min(wait, LONGEST_RETRY_AFTER_SECONDS)
