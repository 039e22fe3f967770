"""The claim protocol: decides who leads, without knowing where claims are kept.

Each upload announces a claim (OPEN), publishes postings that others will find it by, and only then reads the index
with strong consistency. Whoever announces before reading sees the other, or is seen. What is seen decides:

* READY or LEAD: followed;
* OPEN with a smaller id: waited for;
* OPEN with a larger id: made to YIELD by a conditional write, after which its owner starts anew.

Then OPEN becomes LEAD by a conditional write, and only a LEAD may pay. A leader that died is found by its lease, and a
generation number keeps what it may still write from being taken for its successor's.

The protocol is written as generators that yield one step at a time and are sent its answer, so that a test can run the
very same code through every interleaving and a crash after every step.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from captions.uploads import ObjectVersion

ClaimState = Literal["OPEN", "YIELD", "LEAD", "READY", "FOLLOW", "DEAD"]

OPEN_LEASE_SECONDS = 30.0
"""How long an OPEN claim is waited for; deciding takes well under a second, unless its owner died."""
PATIENCE_SECONDS = 8.0
"""How long one call waits for others to decide before its upload goes back to the queue."""
POLL_SECONDS = 0.1
MAX_ROUNDS = 12
"""How often a claim starts anew after yielding before its upload goes back to the queue."""


@dataclass(frozen=True)
class Announcement:
    """What one upload brings to the index."""

    id: str
    scope: str
    upload: ObjectVersion
    exact: tuple[str, ...]
    """Keys of exact identity, such as a SHA-256 of the bytes."""
    phash: bytes | None
    """256-bit perceptual hash, 32 bytes; None where only exact identity counts."""
    evidence: bytes | None


@dataclass(frozen=True)
class Claim:
    """One claim as it stands in the index."""

    id: str
    state: ClaimState
    generation: int
    lease_until: float
    """Epoch seconds until which an OPEN or LEAD claim is believed to be worked on."""
    expires_at: float
    upload: ObjectVersion
    exact: tuple[str, ...] = ()
    phash: bytes | None = None
    evidence: bytes | None = None
    outcome: Mapping[str, Any] | None = None


def claim_id(scope: str, upload: ObjectVersion) -> str:
    """The id of an upload's claim: the same for every delivery of its event, 32 hexadecimal digits."""
    text = "\x00".join((scope, upload.asset, upload.version_id or "", upload.sequencer))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# -- steps: what the protocol asks of a store; each is atomic on its own --------------------------------------------


@dataclass(frozen=True)
class Create:
    """Write the claim as OPEN unless one of that id is there; answers the Claim that then stands."""

    announcement: Announcement
    lease_until: float


@dataclass(frozen=True)
class Publish:
    """Write the evidence, then every posting; may stop half way in a crash."""

    announcement: Announcement


@dataclass(frozen=True)
class Scan:
    """Answer the ids of other claims that share an exact key or lie within the radius."""

    announcement: Announcement
    consistent: bool


@dataclass(frozen=True)
class Read:
    """Answer the claims of the given ids with their evidence, strongly consistent, leaving out what is not there."""

    ids: tuple[str, ...]
    evidence: bool = True


@dataclass(frozen=True)
class Move:
    """Change a claim's state if it still is as it was seen; answers whether it was."""

    seen: Claim
    state: ClaimState
    generation: int
    lease_until: float
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Withdraw:
    """Remove the postings and evidence of a claim that will not lead."""

    announcement: Announcement


@dataclass(frozen=True)
class Enlist:
    """Write an upload down among a claim's followers."""

    claim_id: str
    follower: ObjectVersion


@dataclass(frozen=True)
class Dismiss:
    """Take an upload from a claim's followers."""

    claim_id: str
    follower: ObjectVersion


@dataclass(frozen=True)
class Followers:
    """Answer the uploads that follow a claim, strongly consistent."""

    claim_id: str


@dataclass(frozen=True)
class Rest:
    """Let time pass, so that others can move."""

    seconds: float


Step = Create | Publish | Scan | Read | Move | Withdraw | Enlist | Dismiss | Followers | Rest


# -- outcomes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lead:
    """This upload is to be captioned; its result will serve the others."""

    claim_id: str
    generation: int


@dataclass(frozen=True)
class Hit:
    """The same picture was captioned: `claim.outcome` is the answer."""

    claim: Claim


@dataclass(frozen=True)
class Follow:
    """The same picture is being captioned: this upload was written down among its followers."""

    claim_id: str


@dataclass(frozen=True)
class Contended:
    """Others did not decide in time; try again later."""


Outcome = Lead | Hit | Follow | Contended
Same = Callable[[Claim], bool]
"""Whether a claim's picture is the announced one, on all the evidence; must be symmetric."""


@dataclass(frozen=True)
class Clock:
    """Where the protocol takes the time from, epoch seconds, and how long it may lend claims and wait for others."""

    now: Callable[[], float]
    queue_lease: float = 900.0
    open_lease: float = OPEN_LEASE_SECONDS
    patience: float = PATIENCE_SECONDS


def probe(me: Announcement, same: Same, clock: Clock) -> Generator[Step, Any, Hit | Follow | None]:
    """Look for a captioned twin, or one in flight, without announcing anything: a hit costs reads only."""
    ids = yield Scan(me, consistent=False)
    if not ids:
        return None
    claims: list[Claim] = yield Read(tuple(sorted(ids)))
    twins = [claim for claim in claims if claim.expires_at > clock.now() and same(claim)]
    for claim in twins:
        if claim.state == "READY":
            return Hit(claim)
    for claim in twins:
        if claim.state == "LEAD" and claim.lease_until > clock.now():
            followed = yield from follow(claim.id, me.upload)
            if followed is not None:
                return followed
    return None


def decide(me: Announcement, same: Same, clock: Clock) -> Generator[Step, Any, Outcome]:
    """Claim the picture: lead, follow, take a ready result, or give up for now."""
    waited = 0.0
    for _ in range(MAX_ROUNDS):
        own: Claim = yield Create(me, clock.now() + clock.open_lease)
        if own.state == "READY":
            return Hit(own)
        if own.state == "LEAD":
            # An earlier delivery came this far: its job may never have reached the queue, so it is sent again.
            if own.lease_until > clock.now():
                return Lead(own.id, own.generation)
            lease = clock.now() + clock.queue_lease
            if (yield Move(own, "LEAD", own.generation, lease)):
                return Lead(own.id, own.generation)
            continue
        # OPEN is another delivery of the same event, or one that died: both may go on, the commit picks one.
        # Anything else starts a new generation, which no late write of the old one can touch.
        generation = own.generation if own.state == "OPEN" else own.generation + 1
        lease = clock.now() + clock.open_lease
        if own.state != "OPEN" or own.lease_until < lease - clock.open_lease / 2:
            if not (yield Move(own, "OPEN", generation, lease)):
                continue
            own = replace(own, state="OPEN", generation=generation, lease_until=lease)
        yield Publish(me)
        undecided = set((yield Scan(me, consistent=True)))
        known: set[str] = set()
        while undecided:
            claims: list[Claim] = yield Read(tuple(sorted(undecided)), evidence=not undecided <= known)
            present = {claim.id: claim for claim in claims if claim.expires_at > clock.now()}
            undecided &= present.keys()
            for id_ in sorted(undecided - known):
                known.add(id_)
                if not same(present[id_]):
                    undecided.discard(id_)
            undecided = {id_ for id_ in undecided if present[id_].state in ("OPEN", "LEAD", "READY")}
            twins = [present[id_] for id_ in sorted(undecided)]
            for claim in twins:
                if claim.state == "READY":
                    yield Move(own, "FOLLOW", own.generation, 0.0)
                    yield Withdraw(me)
                    return Hit(claim)
            for claim in twins:
                if claim.state == "LEAD" and claim.lease_until > clock.now():
                    yield Move(own, "FOLLOW", own.generation, 0.0)
                    yield Withdraw(me)
                    followed = yield from follow(claim.id, me.upload)
                    if followed is not None:
                        return followed
                    break  # the leader gave up between the two reads
            else:
                must_wait = False
                for claim in twins:
                    if claim.lease_until <= clock.now():
                        if (yield Move(claim, "DEAD", claim.generation, 0.0)):
                            undecided.discard(claim.id)
                    elif claim.id > me.id:
                        if (yield Move(claim, "YIELD", claim.generation, 0.0)):
                            undecided.discard(claim.id)
                    else:
                        must_wait = True
                if must_wait:
                    if waited >= clock.patience:
                        yield Move(own, "YIELD", own.generation, 0.0)
                        return Contended()
                    yield Rest(POLL_SECONDS)
                    waited += POLL_SECONDS
                continue
            break
        else:
            if (yield Move(own, "LEAD", own.generation, clock.now() + clock.queue_lease)):
                return Lead(own.id, own.generation)
    return Contended()


def follow(leader: str, follower: ObjectVersion) -> Generator[Step, Any, Hit | Follow | None]:
    """Write a follower down, then look again; None when the claim will bring no result.

    A leader writes READY and then reads its followers, so one of the two always sees the other.
    """
    yield Enlist(leader, follower)
    claims: list[Claim] = yield Read((leader,), evidence=False)
    if claims and claims[0].state == "LEAD":
        return Follow(leader)
    yield Dismiss(leader, follower)
    if claims and claims[0].state == "READY":
        return Hit(claims[0])
    return None


def settle(
    id_: str, generation: int, state: Literal["READY", "DEAD"], outcome: Mapping[str, Any] | None
) -> Generator[Step, Any, list[ObjectVersion]]:
    """End a leadership and answer the followers to be told.

    A second call, by a second delivery of the job, finds the state as it left it and answers whoever is still waiting.
    A leader that was taken for dead meanwhile may not touch its claim any more; a caption it brings is right for its
    followers all the same, while giving up is then no longer its decision.
    """
    for _ in range(MAX_ROUNDS):
        claims: list[Claim] = yield Read((id_,), evidence=False)
        if not claims or claims[0].generation != generation or claims[0].state != "LEAD":
            break
        if (yield Move(claims[0], state, generation, 0.0, outcome)):
            break
    else:
        return []
    if state == "DEAD" and not (claims and claims[0].generation == generation and claims[0].state in ("LEAD", "DEAD")):
        return []
    followers: list[ObjectVersion] = yield Followers(id_)
    return followers


def renew(id_: str, generation: int, lease_until: float) -> Generator[Step, Any, bool]:
    """Extend a leader's lease; False when the leadership was lost."""
    claims: list[Claim] = yield Read((id_,), evidence=False)
    if not claims or claims[0].generation != generation or claims[0].state != "LEAD":
        return False
    moved: bool = yield Move(claims[0], "LEAD", generation, lease_until)
    return moved
