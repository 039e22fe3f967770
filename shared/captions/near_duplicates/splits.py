"""Remembers where the cache has split: two exemplars of one picture, or two prompt versions of one ask in use.

Each costs a paid answer that a copy would have made needless, and nothing else would tell: what stands in two scopes is
never compared. Both are noted beside the index by whoever meets them (`pk` is one of two words, `sk` says which), where
`captions doctor` reads them with two queries.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from captions import telemetry
from captions.aws.dynamodb import from_item, to_item
from captions.near_duplicates.protocol import Claim
from captions.tasks import Ask

TWINS, VERSIONS = "split#twins", "split#versions"
NOTED_EVERY_SECONDS = 300.0
"""How often a sandbox notes that it uses a prompt version, while it has uploads."""
IN_USE_SECONDS = 2 * NOTED_EVERY_SECONDS
"""Two versions that were noted within this time of each other were in use together."""
KEPT_SECONDS = 30 * 86_400
PAIRS_READ = 50
"""Pairs of exemplars that are looked at; one request reads the claims of all of them (100 items, BatchGetItem)."""


class Twins(NamedTuple):
    """Two uploads that were both paid for, though they match each other."""

    assets: tuple[str, str]
    seen_at: float
    """Epoch seconds at which a third upload matched both."""


class Versions(NamedTuple):
    """Prompt versions of one ask that were in use together, and until when, epoch seconds."""

    ask: str
    versions: tuple[str, ...]
    seen_at: float


class Splits:
    """Notes what was met, and answers what was noted; `dynamodb` is a boto3 client, `table` that of the index."""

    def __init__(self, dynamodb: Any, table: str, now: Callable[[], float] = time.time) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._now = now
        self._lock = Lock()
        self._noted: dict[tuple[str, str], float] = {}

    def met_twins(self, exemplar: Claim, others: Sequence[Claim]) -> None:
        """Note and count exemplars that match one that was hit."""
        for other in others:
            first, second = sorted((exemplar, other), key=lambda claim: claim.id)
            assets = (first.upload.asset, second.upload.asset)
            telemetry.count("TwinExemplars")
            telemetry.logger().warning("twin_exemplars", assets=assets, claims=(first.id, second.id))
            item = {"pk": TWINS, "sk": f"{first.id}#{second.id}", "assets": assets, "seen_at": self._now()}
            self._try(self._dynamodb.put_item, Item=to_item(item | {"expires_at": int(self._now() + KEPT_SECONDS)}))

    def uses(self, ask: Ask) -> None:
        """Note that an ask is made with the prompt version this sandbox knows, and count it if others know another."""
        now, key, version = self._now(), _key(ask), ask.version
        with self._lock:
            if now - self._noted.get((key, version), float("-inf")) < NOTED_EVERY_SECONDS:
                return
            self._noted[key, version] = now
        answer = self._try(
            self._dynamodb.update_item,
            Key=to_item({"pk": VERSIONS, "sk": key}),
            UpdateExpression="SET #version = :now, expires_at = :until",
            ExpressionAttributeNames={"#version": f"v#{version}"},
            ExpressionAttributeValues=to_item({":now": now, ":until": int(now + KEPT_SECONDS)}),
            ReturnValues="ALL_NEW",
        )
        if answer is not None and (together := _together(from_item(answer["Attributes"]))) is not None:
            telemetry.count("PromptVersionsDiffer")
            telemetry.logger().warning("prompt_versions_differ", ask=together.ask, versions=together.versions)

    def twins(self) -> list[Twins]:
        """Return pairs of exemplars that are both in service still; at most PAIRS_READ of them."""
        items = [from_item(item) for item in self._query(TWINS, Limit=PAIRS_READ)]
        keys = {id_: to_item({"pk": f"c#{id_}", "sk": "claim"}) for item in items for id_ in item["sk"].split("#")}
        if not keys:
            return []
        answer = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": list(keys.values())}})
        ready = {
            claim["pk"].removeprefix("c#")
            for claim in map(from_item, answer["Responses"].get(self._table, ()))
            if claim["state"] == "READY" and claim["expires_at"] > self._now()
        }
        serving = (item for item in items if ready.issuperset(item["sk"].split("#")))
        return [Twins(tuple(item["assets"]), float(item["seen_at"])) for item in serving]

    def versions(self) -> list[Versions]:
        """Return the asks of which several prompt versions were in use at the last."""
        return [together for item in self._query(VERSIONS) if (together := _together(from_item(item))) is not None]

    def _query(self, pk: str, **limit: int) -> Iterator[dict[str, Any]]:
        answer = self._dynamodb.query(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": pk}},
            **limit,
        )
        yield from answer["Items"]

    def _try(self, call: Callable[..., Any], **arguments: Any) -> Any:
        """Call DynamoDB; None where it does not answer, as no upload has to wait for what only people read."""
        try:
            return call(TableName=self._table, **arguments)
        except (BotoCoreError, ClientError) as error:
            telemetry.logger().warning("split_not_noted", error=str(error))
            return None


def _key(ask: Ask) -> str:
    """What decides on the wording of a prompt besides this package's version."""
    own = hashlib.sha256(ask.template.encode()).hexdigest()[:12] if ask.template else ""
    return " ".join(filter(None, (ask.task, ask.style, own)))


def _together(item: dict[str, Any]) -> Versions | None:
    """Return the versions of an item that were in use when the last of them was noted, if there are several."""
    seen = {name.removeprefix("v#"): float(at) for name, at in item.items() if name.startswith("v#")}
    last = max(seen.values())
    versions = tuple(sorted(version for version, at in seen.items() if last - at < IN_USE_SECONDS))
    return Versions(item["sk"], versions, last) if len(versions) > 1 else None
