"""Texts as vectors, by the unified endpoint's `/v1/embeddings`, and what that costs.

Each call is counted in the control table before it is sent and settled when it was answered, so that one whose sandbox
died is known as one that nobody counted. A failure of one endpoint is the next one's turn.
"""

import http.client
import json
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_UP, Decimal
from typing import Any

from captions import control_table, telemetry
from captions.cost import Cost

TEXTS_AT_ONCE = 64
TIMEOUT_SECONDS = 20.0
MOST_ANSWER_BYTES = 16_000_000
"""64 vectors of 4,096 numbers as JSON take less."""
KEPT_SECONDS = 400 * 86_400
PICODOLLAR = Decimal("1e-12")
"""Sums are kept in these: a token costs as little as 1e-8 dollars, and whole numbers add up exactly."""
_MILLION = Decimal(1_000_000)

EndpointKeys = Callable[[bool], Mapping[str, str]]
"""Returns the key by base URL, or under `default`; True asks for a fresh one."""


class EmbeddingsError(RuntimeError):
    """No endpoint gave the vectors that were asked for; the message says why."""


class SpendingLedger:
    """What embeddings cost, by day (UTC): items `embeddings#<day>` of the control table, one for each sandbox.

    Each write is named, and the last name stands in the item: botocore repeats a write whose reply was lost, and the
    repetition changes nothing. Safe to share between threads.
    """

    def __init__(self, dynamodb: Any, table: str, *, now: Callable[[], float]) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._now = now
        self._writer = uuid.uuid4().hex[:16]
        self._guard = threading.Lock()

    def begun(self) -> str:
        """Count a call that nobody has counted yet; return its day."""
        day = datetime.fromtimestamp(self._now(), UTC).date().isoformat()
        self._add(day, uncounted_calls=1)
        return day

    def answered(self, day: str, tokens: int | None, cost: Cost) -> None:
        """Note what a call cost that was begun on that day."""
        self._add(
            day,
            calls=1,
            tokens=tokens or 0,
            picodollars=int((cost.dollars / PICODOLLAR).to_integral_value(ROUND_UP)),
            unpriced_tokens=cost.unpriced_tokens,
            uncounted_calls=cost.uncounted_calls - 1,
        )

    def unanswered(self, day: str) -> None:
        """Note that a call that was begun was refused, which costs nothing."""
        self._add(day, uncounted_calls=-1)

    def _add(self, day: str, **amounts: int) -> None:
        changes = {name: amount for name, amount in amounts.items() if amount}
        with self._guard:
            try:
                self._dynamodb.update_item(
                    TableName=self._table,
                    Key=control_table.embeddings(day, self._writer),
                    UpdateExpression=f"ADD {', '.join(f'{name} :{name}' for name in changes)} "
                    "SET last_write = :id, expires_at = :expires",
                    ConditionExpression="attribute_not_exists(last_write) OR last_write <> :id",
                    ExpressionAttributeValues={
                        **{f":{name}": {"N": str(amount)} for name, amount in changes.items()},
                        ":id": {"S": uuid.uuid4().hex},
                        ":expires": {"N": str(int(self._now()) + KEPT_SECONDS)},
                    },
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return  # it was done; its reply was lost


def spent(dynamodb: Any, table: str, day: str) -> tuple[int, int, Cost]:
    """Return the calls of a day (UTC, YYYY-MM-DD), their tokens, and what is known of their cost."""
    calls, tokens, cost = 0, 0, Cost()
    start: dict[str, Any] = {}
    while True:
        page = dynamodb.query(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": control_table.embeddings(day)["pk"]},
            ConsistentRead=True,
            **start,
        )
        for item in page["Items"]:
            count = {name: int(value["N"]) for name, value in item.items() if "N" in value}
            calls, tokens = calls + count.get("calls", 0), tokens + count.get("tokens", 0)
            cost += Cost(
                dollars=count.get("picodollars", 0) * PICODOLLAR,
                unpriced_tokens=count.get("unpriced_tokens", 0),
                uncounted_calls=max(0, count.get("uncounted_calls", 0)),
            )
        if "LastEvaluatedKey" not in page:
            return calls, tokens, cost
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would take the key to a host that nobody configured."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class CaptionEmbeddings:
    """One model's vectors, of `dimensions` numbers. Safe to share between threads."""

    urls: Sequence[str]
    """OpenAI-compatible base URLs, in the order of failover."""
    keys: EndpointKeys
    model: str
    dimensions: int
    ledger: SpendingLedger
    price: Decimal | None = None
    """Dollars per million tokens; None: not known."""
    timeout: float = TIMEOUT_SECONDS
    _opener: urllib.request.OpenerDirector = field(default_factory=lambda: urllib.request.build_opener(_Stay()))

    def of(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vector of each text, none of which is empty. Raises EmbeddingsError."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            vectors += self._some(texts[start : start + TEXTS_AT_ONCE])
        return vectors

    def _some(self, texts: Sequence[str]) -> list[list[float]]:
        why = "no endpoint is configured"
        for url in self.urls:
            base = url.rstrip("/")
            try:
                return self._ask(base, texts)
            except EmbeddingsError as error:
                why = str(error)
                telemetry.count("EmbeddingsFailed")
                telemetry.logger().warning("embeddings_failed", endpoint=base, error=why)
        raise EmbeddingsError(why)

    def _ask(self, base: str, texts: Sequence[str]) -> list[list[float]]:
        day = self.ledger.begun()
        try:
            try:
                answer = self._post(base, texts, fresh=False)
            except urllib.error.HTTPError as error:
                if error.code not in (401, 403):
                    raise
                answer = self._post(base, texts, fresh=True)
        except urllib.error.HTTPError as error:
            self.ledger.unanswered(day)
            raise EmbeddingsError(f"{base} answered {error.code} to /embeddings") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Cut off, or no JSON: what it cost is not known, and stands as a call that nobody counted.
            raise EmbeddingsError(f"{base} gave no embeddings: {getattr(error, 'reason', error)}") from error
        tokens = _tokens(answer)
        self.ledger.answered(day, tokens, self._cost(tokens))
        return self._read(answer, base, len(texts))

    def _post(self, base: str, texts: Sequence[str], *, fresh: bool) -> Any:
        keys = self.keys(fresh)
        key = keys.get(base) or keys.get("default") or "none"
        body = json.dumps({"model": self.model, "input": list(texts), "encoding_format": "float"}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(f"{base}/embeddings", body, headers)  # noqa: S310 - the configured endpoint
        with self._opener.open(request, timeout=self.timeout) as answer:
            content = answer.read(MOST_ANSWER_BYTES + 1)
        if len(content) > MOST_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MOST_ANSWER_BYTES} bytes")
        return json.loads(content)

    def _cost(self, tokens: int | None) -> Cost:
        if tokens is None:
            return Cost(uncounted_calls=1)
        return Cost(unpriced_tokens=tokens) if self.price is None else Cost(dollars=tokens * self.price / _MILLION)

    def _read(self, answer: Any, base: str, number: int) -> list[list[float]]:
        data = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(data, list) or len(data) != number:
            raise EmbeddingsError(f"{base} did not give {number} embeddings")
        vectors: list[list[float]] = [[]] * number
        for place, entry in enumerate(data):
            at = entry.get("index", place) if isinstance(entry, Mapping) else None
            vector = entry.get("embedding") if isinstance(entry, Mapping) else None
            if type(at) is not int or not 0 <= at < number or not isinstance(vector, list):
                raise EmbeddingsError(f"{base} gave embeddings that cannot be read")
            if len(vector) != self.dimensions:
                raise EmbeddingsError(
                    f"{self.model} has {len(vector)} dimensions, not {self.dimensions} (parameter EmbeddingDimensions)"
                )
            if not all(type(value) in (int, float) and abs(value) < 1e9 for value in vector) or not any(vector):
                raise EmbeddingsError(f"{base} gave embeddings that cannot be read")
            vectors[at] = [float(value) for value in vector]
        if not all(vectors):
            raise EmbeddingsError(f"{base} gave one embedding twice")
        return vectors


def _tokens(answer: Any) -> int | None:
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    value = (usage.get("total_tokens") or usage.get("prompt_tokens")) if isinstance(usage, Mapping) else None
    return value if type(value) is int and 0 <= value <= 1_000_000_000 else None
