"""A small store that takes the claim protocol's steps in memory, each as the atomic parts that DynamoDB makes of it.

A publication is many writes, a scan many queries and a read many items, done in any order and with others' in between;
everything else is one conditional write. `parts` says which, `apply` does one of them, `combine` makes the answer.
Worlds are values: applying a part makes a new one, so that an exploration can go back to any of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from captions.near_duplicates import protocol
from captions.near_duplicates.protocol import Announcement, Claim
from captions.uploads.version import ObjectVersion


class Posting(NamedTuple):
    key: str
    id: str
    edition: int
    phash: bytes | None
    expires_at: int


class World(NamedTuple):
    """All that is stored."""

    claims: tuple[Claim, ...] = ()
    postings: frozenset[Posting] = frozenset()
    followers: frozenset[tuple[str, str, ObjectVersion, int]] = frozenset()

    def claim(self, id_: str) -> Claim | None:
        return next((claim for claim in self.claims if claim.id == id_), None)

    def having(self, claim: Claim) -> "World":
        others = tuple(other for other in self.claims if other.id != claim.id)
        return self._replace(claims=tuple(sorted((*others, claim), key=lambda each: each.id)))


class Outcome(dict[str, Any]):
    """What a claim brings, as a value that worlds can be told apart by."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self)))


# -- the parts that a step is made of ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PutPosting:
    key: str
    id: str
    edition: int
    phash: bytes | None


@dataclass(frozen=True)
class Remove:
    key: str
    id: str
    edition: int


@dataclass(frozen=True)
class Query:
    key: str
    id: str
    phash: bytes | None
    consistent: bool


@dataclass(frozen=True)
class GetClaim:
    id: str


@dataclass(frozen=True)
class GetEvidence:
    """Of the claim's object, which is no part of the store: it was there before the claim."""

    id: str


Part = Any
Keys = Callable[[Announcement], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True)
class Store:
    """Applies parts of steps to worlds.

    `keys` answers the exact keys and the band keys of an announcement, `within` whether two hashes are near, `reframed`
    the bands of its probes, by which it finds but is not found, `evidence` what the object of a claim shows.
    """

    keys: Keys
    within: Callable[[bytes, bytes], bool]
    reframed: Callable[[Announcement], tuple[str, ...]] = lambda me: ()
    evidence: Callable[[str], bytes | None] = lambda id_: b"evidence"
    exemplar_ttl: float = 90 * 86_400.0
    undecided_ttl: float = 7 * 86_400.0

    def parts(self, step: Any) -> tuple[tuple[Part, ...], ...]:
        """Split a step into phases: one after the other, the parts of each in any order."""
        match step:
            case protocol.Publish(me, edition):
                exact, near = self.keys(me)
                postings = tuple(
                    PutPosting(key, me.id, edition, None if key in exact else me.phash) for key in (*exact, *near)
                )
                return (postings,)
            case protocol.Withdraw(me, edition):
                exact, near = self.keys(me)
                return (tuple(Remove(key, me.id, edition) for key in (*exact, *near)),)
            case protocol.Scan(me, by, consistent):
                exact, near = self.keys(me)
                further = self.reframed(me)
                keys = {"exact": exact, "near": near, "reframed": further, "all": exact + near + further}[by]
                return (tuple(Query(key, me.id, me.phash, consistent) for key in keys),)
            case protocol.Read(ids):
                return (tuple(GetClaim(id_) for id_ in ids),)
            case protocol.Evidence(of):
                return (tuple(GetEvidence(claim.id) for claim in of),)
            case protocol.Rest():
                return ()
            case _:
                return ((step,),)

    def combine(self, step: Any, answers: Mapping[Part, Any]) -> Any:
        """Make a step's answer from those of its parts."""
        match step:
            case protocol.Publish() | protocol.Withdraw() | protocol.Rest():
                return None
            case protocol.Scan():
                return frozenset().union(*answers.values())
            case protocol.Read(ids):
                result = [answers[GetClaim(id_)] for id_ in ids]
                return tuple(claim for claim in result if claim is not None)
            case protocol.Evidence():
                return {part.id: data for part, data in answers.items() if data is not None}
            case _:
                return answers[step]

    def apply(self, world: World, part: Part, now: float) -> tuple[World, Any]:
        """Do one atomic part; answers the world after it, and what it brought."""
        match part:
            case protocol.Create(me, lease_until):
                standing = world.claim(me.id)
                if standing is not None and not standing.expires_at < int(now):
                    return world, standing
                claim = Claim(
                    id=me.id,
                    state="OPEN",
                    generation=1,
                    lease_until=lease_until,
                    expires_at=float(int(now + self.undecided_ttl)),
                    upload=me.upload,
                    edition=1,
                    exact=me.exact,
                    phash=me.phash,
                )
                return world.having(claim), claim
            case protocol.Move(seen, state, generation, lease_until, edition, outcome):
                standing = world.claim(seen.id)
                if standing is None or (standing.state, standing.generation, standing.lease_until) != (
                    seen.state,
                    seen.generation,
                    seen.lease_until,
                ):
                    return world, False
                kept = self.exemplar_ttl if state == "READY" else self.undecided_ttl
                moved = standing._replace(
                    state=state,
                    generation=generation,
                    lease_until=lease_until,
                    edition=edition,
                    outcome=outcome,
                    expires_at=float(int(now + kept)),
                )
                return world.having(moved), True
            case PutPosting(key, id_, edition, phash):
                kept = max(self.exemplar_ttl, self.undecided_ttl)
                others = {each for each in world.postings if (each.key, each.id, each.edition) != (key, id_, edition)}
                posting = Posting(key, id_, edition, phash, int(now + kept))
                return world._replace(postings=frozenset(others | {posting})), None
            case Remove(key, id_, edition):
                left = frozenset(
                    each for each in world.postings if (each.key, each.id, each.edition) != (key, id_, edition)
                )
                return world._replace(postings=left), None
            case Query(key, id_, phash):
                result = (each for each in world.postings if each.key == key and each.expires_at > int(now))
                near = (
                    each.id for each in result if each.phash is None or phash is None or self.within(each.phash, phash)
                )
                return world, frozenset(near) - {id_}
            case GetClaim(id_):
                return world, world.claim(id_)
            case GetEvidence(id_):
                return world, self.evidence(id_)
            case protocol.Consult():
                return world, None
            case protocol.Enlist(claim_id, follower):
                expires_at = int(now + self.undecided_ttl)
                listed = (claim_id, f"{follower.asset}#{follower.sequencer}")
                remaining = {each for each in world.followers if each[:2] != listed}
                return world._replace(followers=frozenset(remaining | {(*listed, follower, expires_at)})), None
            case protocol.Dismiss(claim_id, follower):
                listed = (claim_id, f"{follower.asset}#{follower.sequencer}")
                return world._replace(followers=frozenset(e for e in world.followers if e[:2] != listed)), None
            case protocol.Followers(claim_id):
                waiting = sorted(e for e in world.followers if e[0] == claim_id and e[3] > int(now))
                return world, tuple(each[2] for each in waiting)
        raise TypeError(f"unknown part {part!r}")

    def take(self, world: World, step: Any, now: float) -> tuple[World, Any]:
        """Take a whole step at once."""
        answers: dict[Part, Any] = {}
        for phase in self.parts(step):
            for part in phase:
                world, answers[part] = self.apply(world, part, now)
        return world, self.combine(step, answers)
