"""The API's own table: thumbnails, who has what open, answers to repeated writes, and the secret of its cursors.

    pk                          sk              what
    secret                      cursors         32 bytes that every sandbox seals cursors with
    open                        <asset digest>  somebody has an asset open in review
    thumbnail#<asset digest>    <version>       a small picture
    write#<caller digest>       <key digest>    a write's answer, for whoever sends it again
    sums                        <random>        costs that were added up so far, for whoever goes on from them

All but the secret expire. What is lost with it is made again, and lists begin at their first page.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from captions.aws.dynamodb import from_item, to_item
from captions.timestamps import timestamp
from captions_api.problems import Refusal
from captions_api.views import Opened

THUMBNAIL_SECONDS = 30 * 86_400
OPEN_SECONDS = 120.0
"""How long an asset counts as open unless whoever has it says so again."""
WRITE_SECONDS = 86_400.0
"""How long a write's answer is kept for those who send it again."""
SUMS_SECONDS = 3_600.0
"""How long costs that were added up are kept for whoever goes on from them."""
LEASE_SECONDS = 130.0
"""How long a write that has not answered is believed to be under way: longer than the function may run (api.yaml)."""
MOST_ANSWER_BYTES = 300_000
"""Of an answer that is kept; an item holds 400 KB."""


@dataclass(frozen=True)
class Earlier:
    """A write that came before under the same key: what it was, and its answer; no status: it is under way."""

    fingerprint: str
    prefixes: tuple[str, ...]
    """What its caller might see when it came."""
    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes


class OwnTable:
    """The API's table; `dynamodb` is a boto3 DynamoDB client, safe to share between threads."""

    def __init__(self, dynamodb: Any, table: str, now: Callable[[], float] = time.time) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._now = now

    def secret(self) -> bytes:
        """Return the secret that cursors are sealed with; whoever comes first makes it."""
        key = to_item({"pk": "secret", "sk": "cursors"})
        stored = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")
        if stored is None:
            made = key | to_item({"secret": secrets.token_bytes(32)})
            try:
                self._dynamodb.put_item(
                    TableName=self._table, Item=made, ConditionExpression="attribute_not_exists(pk)"
                )
                stored = made
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                stored = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)["Item"]
        return bytes(from_item(stored)["secret"])

    def open(self, asset: str, caller: str) -> Opened:
        """Note that a caller has an asset open; who had it open before keeps it until they close it, or are gone."""
        now = self._now()
        until = now + OPEN_SECONDS
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item=to_item(
                    {
                        "pk": "open", "sk": _digest(asset), "asset": asset, "by": caller, "until": until,
                        "expires_at": int(until),
                    }
                ),
                ConditionExpression="attribute_not_exists(pk) OR #until < :now OR #by = :caller",
                ExpressionAttributeNames={"#until": "until", "#by": "by"},
                ExpressionAttributeValues=to_item({":now": now, ":caller": caller}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )  # fmt: skip
        except self._dynamodb.exceptions.ConditionalCheckFailedException as refused:
            item = from_item(refused.response["Item"])
            return Opened(by=str(item["by"]), until=timestamp(float(item["until"])))
        return Opened(by=caller, until=timestamp(until), yours=True)

    def close(self, asset: str, caller: str) -> None:
        """Note that a caller has closed an asset."""
        try:
            self._dynamodb.delete_item(
                TableName=self._table,
                Key=to_item({"pk": "open", "sk": _digest(asset)}),
                ConditionExpression="#by = :caller",
                ExpressionAttributeNames={"#by": "by"},
                ExpressionAttributeValues=to_item({":caller": caller}),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return

    def opened(self, but: str) -> dict[str, Opened]:
        """Return what others than a caller have open, by asset: as many as people have, in one page of 1 MB."""
        answer = self._dynamodb.query(
            TableName=self._table,
            KeyConditionExpression="pk = :open",
            FilterExpression="#until > :now AND #by <> :caller",
            ExpressionAttributeNames={"#until": "until", "#by": "by"},
            ExpressionAttributeValues=to_item({":open": "open", ":now": self._now(), ":caller": but}),
        )
        items = map(from_item, answer["Items"])
        return {item["asset"]: Opened(by=str(item["by"]), until=timestamp(float(item["until"]))) for item in items}

    def thumbnail(self, asset: str, version: str) -> bytes | None:
        """Return a small picture that was made before."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=_thumbnail_key(asset, version))
        return bytes(from_item(answer["Item"])["picture"]) if "Item" in answer else None

    def keep_thumbnail(self, asset: str, version: str, picture: bytes) -> None:
        """Keep a small picture for a month."""
        values = {"picture": picture, "expires_at": int(self._now() + THUMBNAIL_SECONDS)}
        self._dynamodb.put_item(TableName=self._table, Item=_thumbnail_key(asset, version) | to_item(values))

    def sums(self, name: str) -> bytes:
        """Return sums that were kept; raises Refusal (400) where they are no longer."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=to_item({"pk": "sums", "sk": name}))
        if "Item" not in answer:
            raise Refusal(400, "bad-cursor", "these sums are too old to go on from; begin at the first page")
        return bytes(from_item(answer["Item"])["sums"])

    def keep_sums(self, sums: bytes) -> str:
        """Keep sums for a while; returns what they are found by. Each are kept apart, so that none is added twice."""
        name = secrets.token_hex(16)
        values = {"pk": "sums", "sk": name, "sums": sums, "expires_at": int(self._now() + SUMS_SECONDS)}
        self._dynamodb.put_item(TableName=self._table, Item=to_item(values))
        return name

    def begin_write(self, caller: str, key: str, fingerprint: str, prefixes: tuple[str, ...]) -> Earlier | None:
        """Note that a write begins; return one that came before under its key."""
        now, begun = self._now(), secrets.token_hex(8)
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item=_write_key(caller, key)
                | to_item(
                    {
                        "fingerprint": fingerprint, "prefixes": list(prefixes), "lease_until": now + LEASE_SECONDS,
                        "expires_at": int(now + WRITE_SECONDS), "begun": begun,
                    }
                ),
                # A write without an answer may be tried again once nobody can still be working on it.
                ConditionExpression="attribute_not_exists(pk) OR expires_at < :now"
                " OR (attribute_not_exists(#status) AND lease_until < :now AND fingerprint = :fingerprint)",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues=to_item({":now": now, ":fingerprint": fingerprint}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )  # fmt: skip
        except self._dynamodb.exceptions.ConditionalCheckFailedException as refused:
            item = from_item(refused.response["Item"])
            if item.get("begun") == begun:
                return None  # it is this one, whose first reply was lost
            status = item.get("status")
            return Earlier(
                fingerprint=str(item["fingerprint"]),
                prefixes=tuple(item.get("prefixes", ("",))),
                status=int(status) if status is not None else None,
                headers=tuple((str(name), str(value)) for name, value in item.get("headers", ())),
                body=bytes(item.get("body", b"")),
            )
        return None

    def end_write(self, caller: str, key: str, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Keep a write's answer for those who send it again."""
        self._dynamodb.update_item(
            TableName=self._table,
            Key=_write_key(caller, key),
            UpdateExpression="SET #status = :status, headers = :headers, body = :body",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=to_item({":status": status, ":headers": headers, ":body": body}),
        )

    def forget_write(self, caller: str, key: str) -> None:
        """Let a write be sent again as if it had never come: it changed nothing."""
        self._dynamodb.delete_item(TableName=self._table, Key=_write_key(caller, key))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _thumbnail_key(asset: str, version: str) -> dict[str, Any]:
    return to_item({"pk": f"thumbnail#{_digest(asset)}", "sk": version})


def _write_key(caller: str, key: str) -> dict[str, Any]:
    return to_item({"pk": f"write#{_digest(caller)}", "sk": _digest(key)})
