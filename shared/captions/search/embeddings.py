"""Texts as vectors, by the unified endpoint's `/v1/embeddings`, and what that costs.

Each call is counted in the control table before it is sent and settled when it was answered, so that one whose sandbox
died is known as one that nobody counted. A failure of one endpoint is the next one's turn.
"""

import http.client
import json
import re
import threading
import time
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
PROBE = "a picture"
"""What any model of embeddings takes."""
LEAST_CHARACTERS = 400
"""A text that is refused is shortened by halves, down to this."""
TIMEOUT_SECONDS = 20.0
MOST_ANSWER_BYTES = 16_000_000
"""64 vectors of 4,096 numbers as JSON take less."""
_PIECE_BYTES = 65_536
KEPT_SECONDS = 400 * 86_400
PICODOLLAR = Decimal("1e-12")
"""Sums are kept in these: a token costs as little as 1e-8 dollars, and whole numbers add up exactly."""
_MILLION = Decimal(1_000_000)

EndpointKeys = Callable[[bool], Mapping[str, str]]
"""Returns the key by base URL, or under `default`; True asks for a fresh one."""


class EmbeddingsError(RuntimeError):
    """No endpoint gave the vectors that were asked for; the message says why."""


class TextsRefusedError(EmbeddingsError):
    """An endpoint does not take what was asked (400, 413, 422): mostly one text that is too long for the model."""


@dataclass(frozen=True)
class BegunCall:
    """A call that is counted and not answered: its day (UTC), and the dollars that were set aside for it."""

    day: str
    aside: Decimal = Decimal(0)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


@dataclass(frozen=True)
class EmbeddingsCall:
    """One call that has ended, for those who watch calls: nothing of what was asked or answered."""

    base_url: str
    model: str
    dimensions: int
    began: float
    """Epoch seconds."""
    seconds: float
    status: int | None = None
    """Of HTTP; None where there was no answer."""
    error: str | None = None
    """What it failed with, in a word; None where it was answered."""
    reported_model: str | None = None
    tokens: int | None = None
    cost: Cost = field(default_factory=Cost)


class SpendingLedger:
    """What embeddings cost, by day (UTC): items `embeddings#<day>` of the control table, one for each sandbox.

    Each write is named, and the last name stands in the item: botocore repeats a write whose reply was lost, and the
    repetition changes nothing. Safe to share between threads.
    """

    def __init__(self, dynamodb: Any, table: str, *, now: Callable[[], float], limit: Decimal | None = None) -> None:
        """Keep to a limit in dollars a day, which calls of models count against too; None: there is none."""
        self._dynamodb = dynamodb
        self._table = table
        self._now = now
        self._limit = limit
        self._writer = uuid.uuid4().hex[:16]
        self._guard = threading.Lock()

    def begun(self, most: Decimal = Decimal(0)) -> BegunCall:
        """Count a call that nobody has counted yet, and set aside what it costs at the most.

        Raises EmbeddingsError: the limit leaves no room.
        """
        day = datetime.fromtimestamp(self._now(), UTC).date().isoformat()
        call = BegunCall(day, most if self._limit is not None else Decimal(0))
        if self._limit is not None and not (
            most <= self._limit
            and control_table.set_aside(
                self._dynamodb, self._table, control_table.EVERYTHING, day, call.id, most, self._limit
            )
        ):
            raise EmbeddingsError(f"the spending limit of ${self._limit} a day is used up on {day}")
        self._add(day, uncounted_calls=1)
        return call

    def answered(self, call: BegunCall, tokens: int | None, cost: Cost) -> None:
        """Note what a call cost that was begun."""
        self._add(
            call.day,
            calls=1,
            tokens=tokens or 0,
            picodollars=int((cost.dollars / PICODOLLAR).to_integral_value(ROUND_UP)),
            unpriced_tokens=cost.unpriced_tokens,
            uncounted_calls=cost.uncounted_calls - 1,
        )
        # Of one that nobody counted, what was set aside stands.
        self._settle(call, call.aside if cost.uncounted_calls else cost.assumed(control_table.ASSUMED_PRICE))

    def unanswered(self, call: BegunCall) -> None:
        """Note that a call that was begun was refused, which costs nothing."""
        self._add(call.day, uncounted_calls=-1)
        self._settle(call, Decimal(0))

    def _settle(self, call: BegunCall, spent: Decimal) -> None:
        if self._limit is not None:
            control_table.settle(
                self._dynamodb, self._table, control_table.EVERYTHING, call.day, call.id, spent - call.aside
            )

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
    report: Callable[[EmbeddingsCall], None] | None = None
    """Is called with each call that has ended, whatever came of it."""
    _opener: urllib.request.OpenerDirector = field(default_factory=lambda: urllib.request.build_opener(_Stay()))

    def of(self, texts: Sequence[str]) -> list[list[float] | None]:
        """Return the vector of each text, none of which is empty; None where no endpoint takes the text.

        Raises EmbeddingsError.
        """
        vectors: list[list[float] | None] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            vectors += self._some(texts[start : start + TEXTS_AT_ONCE])
        return vectors

    def _some(self, texts: Sequence[str]) -> Sequence[list[float] | None]:
        why, refused = EmbeddingsError("no endpoint is configured"), False
        for url in self.urls:
            base = url.rstrip("/")
            try:
                return self._ask(base, texts)
            except EmbeddingsError as error:
                why, refused = error, refused or isinstance(error, TextsRefusedError)
                telemetry.count("EmbeddingsFailed")
                telemetry.logger().warning("embeddings_failed", endpoint=base, error=str(error))
        if not refused or list(texts) == [PROBE]:
            raise why
        # One text must not keep the others from their vectors, if it is the text: whoever takes none takes no word.
        self._some([PROBE])
        if len(texts) > 1:
            half = len(texts) // 2
            return [*self._some(texts[:half]), *self._some(texts[half:])]
        if len(texts[0]) > LEAST_CHARACTERS:
            return self._some([texts[0][: len(texts[0]) // 2]])
        telemetry.logger().error("text_without_vector", error=str(why))
        return [None]

    def _ask(self, base: str, texts: Sequence[str]) -> list[list[float]]:
        price = control_table.ASSUMED_PRICE if self.price is None else self.price
        # In some scripts a character is a token; more than one it is hardly ever.
        call = self.ledger.begun(sum(map(len, texts)) * price / _MILLION)
        try:
            try:
                answer = self._post(base, texts, fresh=False)
            except urllib.error.HTTPError as error:
                if error.code not in (401, 403):
                    raise
                answer = self._post(base, texts, fresh=True)
        except urllib.error.HTTPError as error:
            self.ledger.unanswered(call)
            kind = TextsRefusedError if _refuses_texts(error) else EmbeddingsError
            raise kind(f"{base} answered {error.code} to /embeddings") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Cut off, or no JSON: what it cost is not known, and stands as a call that nobody counted.
            raise EmbeddingsError(f"{base} gave no embeddings: {getattr(error, 'reason', error)}") from error
        tokens = _tokens(answer)
        self.ledger.answered(call, tokens, self._cost(tokens))
        return self._read(answer, base, len(texts))

    def _post(self, base: str, texts: Sequence[str], *, fresh: bool) -> Any:
        began, started = time.time(), time.monotonic()
        status: int | None = None
        error: str | None = None
        answer: Any = None
        try:
            answer = self._sent(base, texts, fresh=fresh)
            status = 200
        except urllib.error.HTTPError as refused:
            status, error = refused.code, str(refused.code)
            raise
        except (OSError, http.client.HTTPException, ValueError) as failed:
            reason = getattr(failed, "reason", failed)
            error = type(reason if isinstance(reason, Exception) else failed).__name__
            raise
        finally:
            if self.report is not None:
                tokens = _tokens(answer)
                model = answer.get("model") if isinstance(answer, Mapping) else None
                cost = self._cost(tokens) if error is None else Cost()
                self.report(
                    EmbeddingsCall(
                        base, self.model, self.dimensions, began, time.monotonic() - started, status, error,
                        model if isinstance(model, str) else None, tokens, cost,
                    )
                )  # fmt: skip
        return answer

    def _sent(self, base: str, texts: Sequence[str], *, fresh: bool) -> Any:
        keys = self.keys(fresh)
        key = keys.get(base) or keys.get("default") or "none"
        body = json.dumps({"model": self.model, "input": list(texts), "encoding_format": "float"}).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(f"{base}/embeddings", body, headers)  # noqa: S310 - the configured endpoint
        until, content = time.monotonic() + self.timeout, bytearray()
        with self._opener.open(request, timeout=self.timeout) as answer:
            while piece := answer.read1(_PIECE_BYTES):
                content += piece
                if len(content) > MOST_ANSWER_BYTES:
                    raise ValueError(f"an answer of more than {MOST_ANSWER_BYTES} bytes")
                if time.monotonic() > until:  # the opener's own limit is that of each read
                    raise TimeoutError("an answer that does not end")
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("an answer that is nested too deep") from None

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


_TOO_LONG = re.compile(
    rb"too (?:large|long|big)|context (?:length|size|window)|maximum .{0,20}(?:tokens|length)", re.IGNORECASE
)


def _refuses_texts(error: urllib.error.HTTPError) -> bool:
    """Whether it is what was asked that an endpoint does not take: llama.cpp answers 500 to a text that is too long."""
    if error.code in (400, 413, 422):
        return True
    try:
        return error.code >= 500 and bool(_TOO_LONG.search(error.read(_PIECE_BYTES)))
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _tokens(answer: Any) -> int | None:
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    value = (usage.get("total_tokens") or usage.get("prompt_tokens")) if isinstance(usage, Mapping) else None
    return value if type(value) is int and 0 <= value <= 1_000_000_000 else None
