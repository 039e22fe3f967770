"""The near-duplicate index on DynamoDB, and the driver that takes the claim protocol's steps there.

One table holds three sorts of item, none of more than a write unit:

    pk                       sk                        what
    <scope>#<band or exact>  <claim id>#<edition>      a posting: the perceptual hash, so that most candidates fall
                                                       away without another read
    c#<claim id>             claim                     a claim
    c#<claim id>             f#<asset hash>#<seq>      a follower of the claim

A crowded band is billed by the bytes of its postings, so they hold little and name their scope by a digest. Of an
upload's exact keys the last is posted alone: each is implied by those before it. Expired items stay readable until
DynamoDB removes them (up to days later), so every read filters them itself. What two pictures are compared by is not
stored: it is made of their objects (evidence.py).
"""

import base64
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any, Literal, TypeVar

from captions.aws.dynamodb import from_item, to_item
from captions.config.environment import Strictness
from captions.fingerprint import (
    RADIUS,
    Fingerprint,
    Resemblance,
    bands,
    decided_finely,
    hamming,
    resemblance,
    resemblance_finely,
)
from captions.near_duplicates import protocol
from captions.near_duplicates.protocol import Announcement, Claim, Clock, Decision, Follow, Hit, Step
from captions.records.record import Likeness
from captions.uploads.version import ObjectVersion

T = TypeVar("T")

UNDECIDED_TTL_SECONDS = 7 * 86_400
"""How long a claim without a result is kept; longer than any upload is tried."""
_HASHES = ("phash", "brightened")
MAX_PAGES = 4
"""Pages of one megabyte read of one crowded band (some 30,000 postings) before the lookup is cut short: a miss."""
MOST_COMPARED = 4
"""Exemplars besides the one that was hit whose evidence is read to see whether they match it."""
MOST_LIKELY = 8
"""Neighbours with an answer, or soon to have one, that a picture is compared with: those of the nearest hashes. As many
besides of those that are not decided on, by which id goes first. Further ones count as others. Each takes up to half a
second, and of invoices on one form, or of a fixed camera, all that were ever taken are neighbours."""
MOST_DOUBTED, MOST_CONFIRMED = 3, 8
"""Pictures that one is compared with by finer evidence, which takes up to two seconds: of those that the usual evidence
holds for others, and for the same. Further ones are held to be others."""
EVIDENCE_AT_ONCE = 4
"""Threads that make evidence, apart from those that query bands, which would wait behind them."""
BATCH_WRITE = 25
BATCH_GET = 100

_FIRST: tuple[Literal["exact", "near"], ...] = ("exact", "near")


class Neighbours:
    """Finds and claims near-duplicates; `dynamodb` is a boto3 DynamoDB client, safe to share between threads."""

    def __init__(
        self,
        dynamodb: Any,
        table: str,
        *,
        exemplar_ttl: float = 90 * 86_400.0,
        queue_lease: float = 900.0,
        policy: Strictness = "strict",
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        on_capped: Callable[[str], None] = lambda posting: None,
        evidence: Callable[[Claim], bytes | None] = lambda claim: None,
        threads: int = 32,
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._exemplar_ttl = exemplar_ttl
        self._policy = policy
        self._clock = Clock(now=now, queue_lease=queue_lease)
        self._sleep = sleep
        self._on_capped = on_capped
        self.evidence = evidence
        """Answers what the picture of a claim is compared by; None where its object cannot be read."""
        self.finer_evidence: Callable[[Announcement | Claim], bytes | None] | None = None
        """Answers the same of a picture that is decoded finely, which decides; without this the usual evidence does."""
        self.consult: Callable[[Claim], Mapping[str, Any] | None] = lambda claim: None
        """Answers what a claim's upload was captioned with, from where captions are kept."""
        self._one_finely = Lock()
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="bands")
        self._makers = ThreadPoolExecutor(EVIDENCE_AT_ONCE, thread_name_prefix="evidence")

    def find_or_claim(self, scope: str, upload: ObjectVersion, fingerprint: Fingerprint) -> Decision:
        """Answer who captions this picture: a ready result, a leader to follow, or this upload itself.

        `scope` holds everything that must be equal for a caption to be shared. Blocks up to PATIENCE_SECONDS.
        """
        me = self._announcement(scope, upload, fingerprint)
        compared: dict[str, Resemblance] = {}
        same = self._same(me, me.evidence, compared=compared)
        matches = self._run(protocol.probe(me, same, self._clock, ("exact",) if me.phash is None else _FIRST))
        if matches is None and (probes := fingerprint.probes(self._policy)):
            me, same = me._replace(probes=probes), self._same(me, me.evidence, probes, compared)
            matches = self._run(protocol.probe(me, same, self._clock, ("reframed",)))
        answer: Decision = matches or self._run(protocol.decide(me, same, self._clock))
        if isinstance(answer, Hit | Follow) and answer.claim is not None:
            return replace(answer, likeness=_likeness(me, answer.claim, compared.get(answer.claim.id)))
        return answer

    def twins(self, hit: Hit) -> list[Claim]:
        """Return the exemplars that match the one that was hit, so that a picture was paid for more than once.

        What one upload matches need not match each other: of those that it does match, some evidence is compared.
        """
        if not hit.also:
            return []
        others = hit.also[:MOST_COMPARED]
        evidence = self._evidence((hit.claim, *others))
        same = self._same(hit.claim, evidence.get(hit.claim.id))
        return [claim for claim in others if same(claim._replace(evidence=evidence.get(claim.id)))]

    def follow(self, claim_id: str, upload: ObjectVersion) -> Hit | Follow | None:
        """Wait for a claim's result; None when it will bring none."""
        return self._run(protocol.follow(claim_id, upload))

    def renew(self, claim_id: str, generation: int, lease_until: float, at_least: float | None = None) -> bool:
        """Extend a leader's lease, unless it holds until `at_least`; False when the leadership was lost."""
        least = lease_until if at_least is None else at_least
        return self._run(protocol.renew(claim_id, generation, lease_until, least))

    def settle(
        self,
        claim_id: str,
        generation: int,
        state: Literal["READY", "DEAD"],
        outcome: Mapping[str, Any] | None = None,
    ) -> list[ObjectVersion]:
        """End a leadership and return the followers that now have an answer. Safe to repeat."""
        return self._run(protocol.settle(claim_id, generation, state, outcome))

    def retire(self, claim_id: str, generation: int) -> bool:
        """Take an exemplar out of service, with its caption; False when it is none. Safe to repeat."""
        return self._run(protocol.retire(claim_id, generation))

    def dismiss(self, claim_id: str, follower: ObjectVersion) -> None:
        """Take a follower off the list once it was notified."""
        self._dismiss(protocol.Dismiss(claim_id, follower))

    def _announcement(self, scope: str, upload: ObjectVersion, fingerprint: Fingerprint) -> Announcement:
        near = self._policy != "exact"
        return Announcement(
            id=protocol.claim_id(scope, upload),
            scope=scope,
            upload=upload,
            exact=fingerprint.exact,
            phash=fingerprint.phash if near else None,
            evidence=fingerprint.evidence if near else None,
            brightened=fingerprint.brightened if near else None,
        )

    def _same(
        self,
        me: Announcement | Claim,
        evidence: bytes | None,
        probes: tuple[bytes, ...] = (),
        compared: dict[str, Resemblance] | None = None,
    ) -> Callable[[Claim], bool]:
        """Return what tells whether a claim's picture is the same, and writes into `compared` how alike they are."""
        decided: dict[str, Resemblance | None] = {}
        finely: Counter[bool] = Counter()  # how many were compared so that the usual evidence held for others, or not

        def alike(mine: bytes, claim: Claim, other: bytes) -> Resemblance | None:
            usual = resemblance(mine, other, self._policy)
            finer = self.finer_evidence if self._policy != "exact" else None
            if finer is None or not decided_finely(mine, other, usual):
                return usual
            finely[usual is None] += 1
            if finely[usual is None] > (MOST_DOUBTED if usual is None else MOST_CONFIRMED):
                return None
            first, second = self._makers.map(finer, (me, claim))
            with self._one_finely:  # it takes 200 MB
                return None if first is None or second is None else resemblance_finely(first, second, usual)

        def same(claim: Claim) -> bool:
            if set(me.exact) & set(claim.exact):
                return True
            if evidence is None or claim.evidence is None or not _near(claim.hashes, me.hashes + probes):
                return False
            if claim.id not in decided:  # by what two objects show, which stays the same
                decided[claim.id] = alike(evidence, claim, claim.evidence)
            likeness = decided[claim.id]
            if likeness is not None and compared is not None:
                compared[claim.id] = likeness
            return likeness is not None

        return same

    def _run(self, steps: Generator[Step, Any, T]) -> T:
        """Take a protocol's steps on the table until it returns."""
        answer: Any = None
        try:
            while True:
                answer = self.take(steps.send(answer))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def take(self, step: Step) -> Any:
        """Take one step of the protocol and answer what it asks."""
        match step:
            case protocol.Create():
                return self._create(step)
            case protocol.Publish():
                return self._publish(step.announcement, step.edition)
            case protocol.Scan():
                return self._scan(step)
            case protocol.Read():
                return self._read(step.ids)
            case protocol.Evidence():
                return self._evidence(self._likely(step))
            case protocol.Move():
                return self._move(step)
            case protocol.Withdraw():
                return self._withdraw(step.announcement, step.edition)
            case protocol.Enlist():
                return self._enlist(step)
            case protocol.Dismiss():
                return self._dismiss(step)
            case protocol.Followers():
                return self._followers(step.claim_id)
            case protocol.Consult():
                return self.consult(step.claim)
            case protocol.Rest():
                return self._sleep(step.seconds)

    def _create(self, step: protocol.Create) -> Claim:
        me, now = step.announcement, self._clock.now()
        claim = Claim(
            id=me.id,
            state="OPEN",
            generation=1,
            lease_until=step.lease_until,
            expires_at=float(int(now + UNDECIDED_TTL_SECONDS)),
            upload=me.upload,
            exact=me.exact,
            phash=me.phash,
            brightened=me.brightened,
        )
        item = {
            "state": claim.state,
            "generation": claim.generation,
            "edition": claim.edition,
            "lease_until": claim.lease_until,
            "expires_at": int(claim.expires_at),
            "upload": me.upload.model_dump(exclude_none=True),
            "exact": list(me.exact),
            "phash": me.phash,
            "brightened": me.brightened,
        }
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item={**_key(me.id, "claim"), **to_item(item)},
                ConditionExpression="attribute_not_exists(pk) OR expires_at < :now",
                ExpressionAttributeValues=to_item({":now": int(now)}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as failure:
            return _claim(failure.response["Item"])
        return claim

    def _publish(self, me: Announcement, edition: int) -> None:
        # A posting must outlive the work on its claim, however short exemplars are kept.
        expires_at = int(self._clock.now() + max(self._exemplar_ttl, UNDECIDED_TTL_SECONDS))
        self._write(
            {"PutRequest": {"Item": {**key, **to_item({**hashes, "expires_at": expires_at})}}}
            for key, hashes in _posting_items(me, edition)
        )

    def _withdraw(self, me: Announcement, edition: int) -> None:
        self._write({"DeleteRequest": {"Key": key}} for key, _ in _posting_items(me, edition))

    def _write(self, requests: Iterable[dict[str, Any]]) -> None:
        waiting = list(requests)
        rounds = 0
        while waiting:
            answer = self._dynamodb.batch_write_item(RequestItems={self._table: waiting[:BATCH_WRITE]})
            unprocessed = answer.get("UnprocessedItems", {}).get(self._table, [])
            waiting = unprocessed + waiting[BATCH_WRITE:]
            if unprocessed:
                rounds += 1
                self._sleep(_pause(rounds))

    def _scan(self, step: protocol.Scan) -> frozenset[str]:
        me = step.announcement
        # Probes differ from the hash in some 16 bits: many of their bands are the hash's own, or each other's.
        hashes = {"exact": (), "near": me.hashes, "reframed": me.probes, "all": me.hashes + me.probes}[step.by]
        keys = dict.fromkeys(_exact_keys(me) if step.by in ("exact", "all") else ())
        keys |= dict.fromkeys(key for phash in hashes for key in _band_keys(me.scope, phash))
        lookups = [self._readers.submit(self._query, key, hashes, step.consistent) for key in keys]
        return frozenset(id_ for lookup in lookups for id_ in lookup.result() if id_ != me.id)

    def _query(self, pk: str, hashes: tuple[bytes, ...], consistent: bool) -> list[str]:
        ids: list[str] = []
        start: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            answer = self._dynamodb.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                FilterExpression="expires_at > :now",
                ProjectionExpression="sk, phash, brightened",
                ExpressionAttributeValues={":pk": {"S": pk}, **to_item({":now": int(self._clock.now())})},
                ConsistentRead=consistent,
                **start,
            )
            for item in answer["Items"]:
                posted = tuple(bytes(item[name]["B"]) for name in _HASHES if name in item)
                if not posted or _near(posted, hashes):
                    ids.append(item["sk"]["S"].partition("#")[0])
            if "LastEvaluatedKey" not in answer:
                return ids
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        self._on_capped(pk)
        return ids

    def _read(self, ids: tuple[str, ...]) -> list[Claim]:
        items = {item["pk"]["S"]: item for item in self._get(_key(id_, "claim") for id_ in ids)}
        return [_claim(items[pk]) for pk in (f"c#{id_}" for id_ in ids) if pk in items]

    def _likely(self, step: protocol.Evidence) -> tuple[Claim, ...]:
        """Return the claims to compare with: all but of very many."""
        me = step.announcement
        by_id = sorted(step.of, key=lambda claim: claim.id)
        undecided = [claim for claim in by_id if claim.state == "OPEN"]
        others = [claim for claim in by_id if claim.state != "OPEN"]
        others.sort(key=lambda claim: _distance(claim.hashes, me.hashes + me.probes))
        likely = (*others[:MOST_LIKELY], *undecided[:MOST_LIKELY])
        if len(likely) < len(step.of):
            self._on_capped(f"{len(step.of)} neighbours of {me.id}")
        return likely

    def _evidence(self, of: tuple[Claim, ...]) -> dict[str, bytes]:
        made = zip(of, self._makers.map(self.evidence, of), strict=True)
        return {claim.id: evidence for claim, evidence in made if evidence is not None}

    def _get(self, keys: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Read items, strongly consistent, in any order."""
        waiting, fetched, rounds = list(keys), [], 0
        while waiting:
            request = {self._table: {"Keys": waiting[:BATCH_GET], "ConsistentRead": True}}
            answer = self._dynamodb.batch_get_item(RequestItems=request)
            fetched += answer["Responses"].get(self._table, [])
            # DynamoDB leaves out items it had no room or capacity for, and says which.
            unprocessed = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            waiting = unprocessed + waiting[BATCH_GET:]
            if unprocessed:
                rounds += 1
                self._sleep(_pause(rounds))
        return fetched

    def _move(self, step: protocol.Move) -> bool:
        seen = step.seen
        kept = self._exemplar_ttl if step.state == "READY" else UNDECIDED_TTL_SECONDS
        values = {
            "state": step.state,
            "generation": step.generation,
            "lease_until": step.lease_until,
            "edition": step.edition,
            "expires_at": int(self._clock.now() + kept),
            "outcome": step.outcome,
        }
        given = {name: value for name, value in values.items() if value is not None}
        expression = "SET " + ", ".join(f"#{name} = :{name}" for name in given)
        if "outcome" not in given:
            expression += " REMOVE #outcome"
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(seen.id, "claim"),
                UpdateExpression=expression,
                ConditionExpression="#state = :was AND #generation = :of AND #lease_until = :lent",
                ExpressionAttributeNames={f"#{name}": name for name in values},
                ExpressionAttributeValues=to_item(
                    {
                        **{f":{name}": value for name, value in given.items()},
                        ":was": seen.state,
                        ":of": seen.generation,
                        ":lent": seen.lease_until,
                    }
                ),
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _enlist(self, step: protocol.Enlist) -> None:
        upload = step.follower.model_dump(exclude_none=True)
        expires_at = int(self._clock.now() + UNDECIDED_TTL_SECONDS)
        self._dynamodb.put_item(
            TableName=self._table,
            Item={
                **_key(step.claim_id, _follower_sk(step.follower)),
                **to_item({"upload": upload, "expires_at": expires_at}),
            },
        )

    def _dismiss(self, step: protocol.Dismiss) -> None:
        self._dynamodb.delete_item(TableName=self._table, Key=_key(step.claim_id, _follower_sk(step.follower)))

    def _followers(self, claim_id: str) -> list[ObjectVersion]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :followers)",
            FilterExpression="expires_at > :now",
            ExpressionAttributeValues={
                ":pk": {"S": f"c#{claim_id}"},
                ":followers": {"S": "f#"},
                **to_item({":now": int(self._clock.now())}),
            },
            ConsistentRead=True,
        )
        return [ObjectVersion.model_validate(from_item(item)["upload"]) for page in pages for item in page["Items"]]


def _exact_keys(me: Announcement) -> list[str]:
    """The key that every upload shares which shares any of the exact ones: the last, of what all others imply."""
    return [f"{_digest(me.scope)}#{key}" for key in me.exact[-1:]]


def _band_keys(scope: str, phash: bytes) -> list[str]:
    return [f"{_digest(scope)}#h{band}" for band in bands(phash)]


def _likeness(me: Announcement, claim: Claim, alike: Resemblance | None) -> Likeness:
    shared = {key[:2] for key in set(me.exact) & set(claim.exact)}
    apart = _distance(claim.hashes, me.hashes + me.probes)
    distance = int(apart) if apart < math.inf else None
    if shared:
        return Likeness(kind="same_bytes" if "b:" in shared else "same_content", hash_distance=distance)
    return Likeness(kind="near", hash_distance=distance, **(_rounded(alike) if alike is not None else {}))


def _rounded(alike: Resemblance) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in alike._asdict().items()}


def _near(hashes: tuple[bytes, ...], others: tuple[bytes, ...]) -> bool:
    return _distance(hashes, others) <= RADIUS


def _distance(hashes: tuple[bytes, ...], others: tuple[bytes, ...]) -> float:
    """Return in how many bits the nearest two of them differ; infinitely many where there are none."""
    return min((hamming(phash, other) for phash in hashes for other in others), default=math.inf)


def _posting_items(me: Announcement, edition: int) -> Iterator[tuple[dict[str, Any], dict[str, bytes | None]]]:
    """Yield the key of each posting of an upload, and the hashes it carries.

    Exact keys carry none: whoever shares one is a twin whatever its hash.
    """
    sk = {"S": f"{me.id}#{edition}"}
    for pk in _exact_keys(me):
        yield {"pk": {"S": pk}, "sk": sk}, {}
    for pk in dict.fromkeys(key for phash in me.hashes for key in _band_keys(me.scope, phash)):
        yield {"pk": {"S": pk}, "sk": sk}, {"phash": me.phash, "brightened": me.brightened}


def _digest(scope: str) -> str:
    """22 characters that stand for a scope; 128 bits, as two scopes that met would share captions."""
    return base64.urlsafe_b64encode(hashlib.sha256(scope.encode()).digest()[:16]).decode().rstrip("=")


def _pause(rounds: int) -> float:
    """Seconds to wait before asking again for what DynamoDB had no capacity for."""
    return min(2.0, 0.05 * 2.0**rounds)


def _key(claim_id: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": f"c#{claim_id}"}, "sk": {"S": sk}}


def _follower_sk(follower: ObjectVersion) -> str:
    # A key of 1,024 bytes with its bucket would not fit into a sort key beside anything else.
    return f"f#{hashlib.sha256(follower.asset.encode()).hexdigest()[:32]}#{follower.sequencer}"


def _claim(item: Mapping[str, Any]) -> Claim:
    values = from_item(item)
    return Claim(
        id=values["pk"].removeprefix("c#"),
        state=values["state"],
        generation=values["generation"],
        lease_until=float(values["lease_until"]),
        expires_at=float(values["expires_at"]),
        upload=ObjectVersion.model_validate(values["upload"]),
        edition=values["edition"],
        exact=tuple(values.get("exact", ())),
        phash=values.get("phash"),
        brightened=values.get("brightened"),
        outcome=values.get("outcome"),
    )
