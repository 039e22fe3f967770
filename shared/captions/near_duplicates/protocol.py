"""The claim protocol: decides who leads, without knowing where claims are kept.

Each upload announces a claim (OPEN), publishes postings that others will find it by, and only then reads the index
with strong consistency. Whoever announces before reading sees the other, or is seen. What is seen decides:

* READY or LEAD: followed;
* OPEN with a smaller id: waited for;
* OPEN with a larger id: made to YIELD by a conditional write, after which its owner starts again.

Then OPEN becomes LEAD by a conditional write, and only a LEAD may pay. A leader that died is found by its lease, and a
generation number keeps what it may still write from being taken for its successor's.

Why two near pictures never lead together: both published before they scanned, so one of them found the other, and
read it when it was neither OPEN, LEAD nor READY, or made it so. It can only come back as a new generation, which
scans again, and finds the first. This holds however the reads of one scan, or the writes of one publication, are
spread in time. A picture that another one finds by its probes alone (policy loose) need not find that one in turn:
the two may then both lead, as they would one after the other; a caption still goes only where the pictures are the
same. A claim that withdrew takes its postings away. A slow delivery may do so when another has already published
again; so postings carry an edition, a claim that leaves FOLLOW takes a new one, and only the edition that was
withdrawn is removed.

Evidence, which is made of the objects, decides whether two near pictures are the same. An object is there before its
claim, and may be gone or unreadable at any time after. A claim without evidence matches nothing but by an exact key:
its picture may be paid for again, and is never confused with another.

The protocol is written as generators that yield one step at a time and are sent its answer, so that a test can run the
very same code through every interleaving and a crash after every step.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from captions.uploads.version import ObjectVersion

if TYPE_CHECKING:
    from captions.records.record import Likeness

ClaimState = Literal["OPEN", "YIELD", "LEAD", "READY", "FOLLOW", "DEAD"]

OPEN_LEASE_SECONDS = 30.0
"""How long an OPEN claim is waited for; deciding takes well under a second, unless its owner died."""
PATIENCE_SECONDS = 8.0
"""How long one call waits for others to decide before its upload goes back to the queue."""
POLL_SECONDS = 0.1
MAX_ROUNDS = 12
"""How often a claim starts again after yielding before its upload goes back to the queue."""


class Announcement(NamedTuple):
    """What one upload brings to the index."""

    id: str
    scope: str
    upload: ObjectVersion
    exact: tuple[str, ...]
    """Keys of exact identity, such as a SHA-256 of the bytes."""
    phash: bytes | None
    """256-bit perceptual hash, 32 bytes; None where only exact identity counts."""
    evidence: bytes | None
    probes: tuple[bytes, ...] = ()
    """Further hashes that it looks for others by, but is not found by."""
    brightened: bytes | None = None
    """A second hash, 32 bytes, that it looks for others by and is found by."""

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes that it is found by."""
        return tuple(phash for phash in (self.phash, self.brightened) if phash is not None)


class Claim(NamedTuple):
    """One claim as it stands in the index."""

    id: str
    state: ClaimState
    generation: int
    lease_until: float
    """Epoch seconds until which an OPEN or LEAD claim is believed to be worked on."""
    expires_at: float
    upload: ObjectVersion
    edition: int = 1
    """Which edition of its postings counts; a claim that withdrew them returns with a new one."""
    exact: tuple[str, ...] = ()
    phash: bytes | None = None
    brightened: bytes | None = None
    evidence: bytes | None = None
    outcome: Mapping[str, Any] | None = None

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes that it is found by."""
        return tuple(phash for phash in (self.phash, self.brightened) if phash is not None)


def claim_id(scope: str, upload: ObjectVersion) -> str:
    """The id of an upload's claim: the same for every delivery of its event, 32 hexadecimal digits."""
    text = "\x00".join((scope, upload.asset, upload.version_id or "", upload.sequencer))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# -- steps: what the protocol asks of a store; each is atomic on its own --------------------------------------------


class Create(NamedTuple):
    """Write the claim as OPEN unless one of that id is there; answers the Claim that then stands."""

    announcement: Announcement
    lease_until: float


class Publish(NamedTuple):
    """Write every posting, as one edition; may stop half way in a crash."""

    announcement: Announcement
    edition: int


class Scan(NamedTuple):
    """Answer the ids of other claims whose postings share an exact key, or lie within the radius, of the hash (near) or
    of one of the probes (reframed); or any of these.
    """

    announcement: Announcement
    by: Literal["exact", "near", "reframed", "all"]
    consistent: bool


class Read(NamedTuple):
    """Answer the claims of the given ids without their evidence, strongly consistent, leaving out what is not there."""

    ids: tuple[str, ...]


class Evidence(NamedTuple):
    """Answer the evidence of the given claims by claim id, leaving out those whose object cannot be read (any more).

    Of very many, those that are the least likely to stand for the announced picture are left out, too.
    """

    of: tuple[Claim, ...]
    announcement: Announcement


class Move(NamedTuple):
    """Change a claim's state if it still is as it was seen; answers whether it was."""

    seen: Claim
    state: ClaimState
    generation: int
    lease_until: float
    edition: int
    outcome: Mapping[str, Any] | None = None


class Withdraw(NamedTuple):
    """Remove one edition of the postings of a claim that became a follower."""

    announcement: Announcement
    edition: int


class Enlist(NamedTuple):
    """Write an upload down among a claim's followers."""

    claim_id: str
    follower: ObjectVersion


class Dismiss(NamedTuple):
    """Take an upload from a claim's followers."""

    claim_id: str
    follower: ObjectVersion


class Followers(NamedTuple):
    """Answer the uploads that follow a claim, strongly consistent."""

    claim_id: str


class Consult(NamedTuple):
    """Answer what the upload of a claim was captioned with, if its end is stored; None if it is not."""

    claim: Claim


class Rest(NamedTuple):
    """Let time pass, so that others can move."""

    seconds: float


Step = Create | Publish | Scan | Read | Evidence | Move | Withdraw | Enlist | Dismiss | Followers | Consult | Rest


# -- outcomes -------------------------------------------------------------------------------------------------------


class Lead(NamedTuple):
    """The upload is to be captioned; its result will serve the others."""

    claim_id: str
    generation: int


@dataclass(frozen=True)
class Hit:
    """The same picture was captioned: `claim.outcome` is the answer.

    `also` are further captioned claims that match it. Where one of these matches `claim`, a picture was paid for twice.
    """

    claim: Claim
    also: tuple[Claim, ...] = ()
    likeness: "Likeness | None" = field(default=None, compare=False)
    """Why the pictures are held for the same; whoever compared them adds it."""


@dataclass(frozen=True)
class Follow:
    """The same picture is being captioned: this upload was written down among its followers."""

    claim_id: str
    claim: Claim | None = field(default=None, compare=False)
    likeness: "Likeness | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Contended:
    """Others did not decide in time; try again later."""


Decision = Lead | Hit | Follow | Contended
Same = Callable[[Claim], bool]
"""Whether the picture of a claim, its evidence at hand, is the announced one; must be symmetric."""


@dataclass(frozen=True)
class Clock:
    """Where the protocol takes the time from, epoch seconds, and how long it may lend claims and wait for others."""

    now: Callable[[], float]
    queue_lease: float = 900.0
    open_lease: float = OPEN_LEASE_SECONDS
    patience: float = PATIENCE_SECONDS


def probe(
    me: Announcement, same: Same, clock: Clock, parts: tuple[Literal["exact", "near", "reframed"], ...]
) -> Generator[Step, Any, Hit | Follow | None]:
    """Look for a captioned twin, or one in flight, without announcing anything: a hit costs reads only.

    Exact keys come first in `parts`: a copy of the very file is then found with two queries, however crowded its bands
    are. Probes, which are many, come last.
    """
    for by in parts:
        ids = yield Scan(me, by, consistent=False)
        twins = yield from _twins(me, ids, same, clock)
        serving = _serving(twins, clock)
        if serving is not None:
            answer = yield from _take(serving, twins, me.upload)
            if answer is not None:
                return answer
        for claim in twins:
            if claim.state == "LEAD" and claim.lease_until <= clock.now():
                # Its worker may have died after it stored the answer, which is then not paid for again.
                outcome = yield Consult(claim)
                if outcome is not None and (yield Move(claim, "READY", claim.generation, 0.0, claim.edition, outcome)):
                    return Hit(claim._replace(state="READY", lease_until=0.0, outcome=outcome))
    return None


def decide(me: Announcement, same: Same, clock: Clock) -> Generator[Step, Any, Decision]:
    """Claim the picture: lead, follow, take a ready result, or give up for now."""
    waited = 0.0
    published: int | None = None
    for _ in range(MAX_ROUNDS):
        own: Claim = yield Create(me, clock.now() + clock.open_lease)
        if own.state == "READY":
            return Hit(own)
        if own.state == "LEAD":
            # An earlier delivery came this far: its job may never have reached the queue, so it is sent again.
            if own.lease_until > clock.now() or (yield _move(own, "LEAD", clock.now() + clock.queue_lease)):
                return Lead(own.id, own.generation)
            continue
        opened = yield from _open(own, clock)
        if opened is None:
            continue
        own = opened
        if published != own.edition:
            yield Publish(me, own.edition)
            published = own.edition
        ids = yield Scan(me, "all", consistent=True)
        rivals = yield from _twins(me, ids, same, clock)
        while rivals:
            serving = _serving(rivals, clock)
            if serving is not None:
                yield from _stand_back(own, me)
                answer = yield from _take(serving, rivals, me.upload)
                if answer is not None:
                    return answer
                break  # the leader gave up between the two reads
            rivals, must_wait = yield from _demote(me, rivals, clock)
            if must_wait:
                if waited >= clock.patience:
                    yield _move(own, "YIELD", 0.0)
                    return Contended()
                yield Rest(POLL_SECONDS)
                waited += POLL_SECONDS
            if rivals:
                claims: list[Claim] = yield Read(tuple(claim.id for claim in rivals))
                rivals = [claim for claim in claims if _live(claim, clock)]
        else:
            if (yield _move(own, "LEAD", clock.now() + clock.queue_lease)):
                return Lead(own.id, own.generation)
    return Contended()


def _move(seen: Claim, state: ClaimState, lease_until: float) -> Move:
    return Move(seen, state, seen.generation, lease_until, seen.edition)


def _open(own: Claim, clock: Clock) -> Generator[Step, Any, Claim | None]:
    """Make the own claim OPEN with a fresh lease; None when it moved on meanwhile."""
    lease = clock.now() + clock.open_lease
    if own.state == "OPEN":
        # Another delivery of the same event, or one that died: both may go on, the commit picks one.
        generation, edition = own.generation, own.edition
        if own.lease_until >= lease - clock.open_lease / 2:
            return own
    else:
        # A new generation, which no late write of the old one can touch.
        generation = own.generation + 1
        # What was withdrawn may be removed once more by a slow delivery, which cannot touch another edition.
        edition = generation if own.state == "FOLLOW" else own.edition
    if not (yield Move(own, "OPEN", generation, lease, edition)):
        return None
    return own._replace(state="OPEN", generation=generation, lease_until=lease, edition=edition)


def _live(claim: Claim, clock: Clock) -> bool:
    """Whether a claim has to be reckoned with. Any other must scan again before it may lead, and finds it then."""
    return claim.state in ("OPEN", "LEAD", "READY") and claim.expires_at > clock.now()


def _twins(me: Announcement, ids: frozenset[str], same: Same, clock: Clock) -> Generator[Step, Any, list[Claim]]:
    """Of the claims found, those that are live and stand for the announced picture.

    Evidence takes a read and a decoding of the object, so it is made for those alone that nothing else has decided.
    """
    if not ids:
        return []
    claims: list[Claim] = yield Read(tuple(sorted(ids)))
    live = [claim for claim in claims if _live(claim, clock)]
    twins = {claim.id for claim in live if not set(me.exact).isdisjoint(claim.exact)}
    unsure = [claim for claim in live if claim.id not in twins]
    if unsure and me.evidence is not None:
        evidence: Mapping[str, bytes] = yield Evidence(tuple(unsure), me)
        twins |= {
            claim.id for claim in unsure if claim.id in evidence and same(claim._replace(evidence=evidence[claim.id]))
        }
    return [claim for claim in live if claim.id in twins]


def _serving(twins: list[Claim], clock: Clock) -> Claim | None:
    """Return the twin that has a result, or else one that is being captioned."""
    ready = [claim for claim in twins if claim.state == "READY"]
    leading = [claim for claim in twins if claim.state == "LEAD" and claim.lease_until > clock.now()]
    return next(iter(ready + leading), None)


def _take(serving: Claim, twins: list[Claim], upload: ObjectVersion) -> Generator[Step, Any, Hit | Follow | None]:
    if serving.state == "READY":
        return Hit(serving, tuple(claim for claim in twins if claim.state == "READY" and claim.id != serving.id))
    return (yield from follow(serving.id, upload))


def _stand_back(own: Claim, me: Announcement) -> Generator[Step, Any, None]:
    """Make the own claim FOLLOW and take its postings away.

    It is left alone where another delivery of the same upload went on with it: those postings are not ours any more.
    """
    for _ in range(MAX_ROUNDS):
        if (yield _move(own, "FOLLOW", 0.0)):
            yield Withdraw(me, own.edition)
            return
        claims: list[Claim] = yield Read((own.id,))
        if not claims or claims[0].generation != own.generation or claims[0].state not in ("OPEN", "YIELD"):
            return
        own = claims[0]


def _demote(me: Announcement, rivals: list[Claim], clock: Clock) -> Generator[Step, Any, tuple[list[Claim], bool]]:
    """End the claims of the dead and, unless a smaller id is to be waited for, make the larger ones yield.

    Answers the rivals that remain and whether to wait. With many copies at once, only the one with the smallest id
    writes to the others.
    """
    remaining = []
    for claim in rivals:
        # A leader that is taken for dead ends as one that gave up.
        ended: ClaimState = "YIELD" if claim.state == "OPEN" else "DEAD"
        if claim.lease_until > clock.now() or not (yield _move(claim, ended, 0.0)):
            remaining.append(claim)
    if any(claim.id < me.id and claim.lease_until > clock.now() for claim in remaining):
        return remaining, True
    undecided = []
    for claim in remaining:
        if claim.state != "OPEN" or not (yield _move(claim, "YIELD", 0.0)):
            undecided.append(claim)  # noqa: PERF401 - a comprehension cannot yield
    return undecided, False


def follow(leader: str, follower: ObjectVersion) -> Generator[Step, Any, Hit | Follow | None]:
    """Write a follower down, then look again; None when the claim will bring no result.

    A leader writes READY and then reads its followers, so one of the two always sees the other.
    """
    yield Enlist(leader, follower)
    claims: list[Claim] = yield Read((leader,))
    if claims and claims[0].state == "LEAD":
        return Follow(leader, claims[0])
    yield Dismiss(leader, follower)
    if claims and claims[0].state == "READY":
        return Hit(claims[0])
    return None


def settle(
    id_: str, generation: int, state: Literal["READY", "DEAD"], outcome: Mapping[str, Any] | None
) -> Generator[Step, Any, list[ObjectVersion]]:
    """End a leadership and return the followers that now have an answer.

    A second call, by a second delivery of the job, finds the state as it left it and answers whoever is still waiting.
    A leader that was taken for dead meanwhile may not touch its claim any more; a caption it brings is right for its
    followers all the same, while giving up is then no longer its decision.
    """
    for _ in range(MAX_ROUNDS):
        claims: list[Claim] = yield Read((id_,))
        if not claims or claims[0].generation != generation or claims[0].state != "LEAD":
            break
        if (yield Move(claims[0], state, generation, 0.0, claims[0].edition, outcome)):
            break
    else:
        return []
    if state == "DEAD" and not (claims and claims[0].generation == generation and claims[0].state in ("LEAD", "DEAD")):
        return []
    followers: list[ObjectVersion] = yield Followers(id_)
    return followers


def renew(id_: str, generation: int, lease_until: float, at_least: float) -> Generator[Step, Any, bool]:
    """Extend a leader's lease unless it holds until `at_least` as it is; False when the leadership was lost."""
    claims: list[Claim] = yield Read((id_,))
    if not claims or claims[0].generation != generation or claims[0].state != "LEAD":
        return False
    if claims[0].lease_until >= at_least:
        return True
    moved: bool = yield _move(claims[0], "LEAD", lease_until)
    return moved


def retire(id_: str, generation: int) -> Generator[Step, Any, bool]:
    """Take an exemplar out of service, with its caption; False when it is none (any more).

    Its postings stay until they expire: they hold nothing but a hash, and lead to a claim that is dead.
    """
    claims: list[Claim] = yield Read((id_,))
    if not claims or claims[0].generation != generation or claims[0].state not in ("READY", "DEAD"):
        return False
    (exemplar,) = claims
    return exemplar.state == "DEAD" or (yield _move(exemplar, "DEAD", 0.0))
