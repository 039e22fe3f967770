"""Single ways through the claim protocol that are too long to be met by exploring everything."""

from collections.abc import Generator
from typing import Any

from captions.near_duplicates import protocol
from captions.near_duplicates.protocol import Announcement, Claim, Clock, Follow, Hit, Lead, Move, Withdraw
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.claims import Outcome, Posting, Store, World


class Index:
    """A store with one world, a clock, and near pictures that all share one band."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.world = World()
        self.store = Store(lambda me: ((), ("band",)), lambda a, b: True)
        self.clock = Clock(now=lambda: self.now)

    def decide(self, me: Announcement) -> Generator[Any, Any, Any]:
        return protocol.decide(me, lambda claim: True, self.clock)

    def take(self, step: Any) -> Any:
        self.world, answer = self.store.take(self.world, step, self.now)
        return answer

    def run(self, steps: Generator[Any, Any, Any], until: type | None = None, first: Any = None) -> Any:
        """Take steps to the end, and return the outcome; or up to a step of a kind, which is returned untaken."""
        step = first
        answer: Any = None
        try:
            while True:
                answer = None if step is None else self.take(step)
                step = steps.send(answer)
                if until is not None and isinstance(step, until):
                    return step
        except StopIteration as stop:
            return stop.value

    def claim(self, me: Announcement) -> Claim:
        claim = self.world.claim(me.id)
        assert claim is not None
        return claim

    def postings(self, me: Announcement) -> list[Posting]:
        return [posting for posting in self.world.postings if posting.id == me.id]


def announcement(id_: str) -> Announcement:
    upload = ObjectVersion(bucket="b", key=id_, sequencer=pad_sequencer("1"))
    return Announcement(id_, "scope", upload, (f"b:{id_}",), b"hash", b"evidence")


def test_a_slow_delivery_does_not_withdraw_what_another_published_since() -> None:
    index, a, b = Index(), announcement("a"), announcement("b")
    assert index.run(index.decide(b)) == Lead("b", 1)
    slow = index.decide(a)
    withdrawal = index.run(slow, until=Withdraw)
    index.run(protocol.settle("b", 1, "DEAD", None))
    assert index.run(index.decide(a)) == Lead("a", 2)
    index.run(slow, first=withdrawal)
    assert index.postings(a), "the leader can still be found"
    assert index.run(index.decide(announcement("c"))) == Follow("a")


def test_a_claim_that_was_made_to_yield_stands_back_once_its_rival_leads() -> None:
    index, a, b = Index(), announcement("a"), announcement("b")
    yielding = index.decide(b)
    scan = index.run(yielding, until=protocol.Scan)
    assert index.run(index.decide(a)) == Lead("a", 1)
    assert index.claim(b).state == "YIELD"
    assert index.run(yielding, first=scan) == Follow("a")
    assert index.claim(b).state == "FOLLOW"
    assert index.postings(b) == []


def test_postings_are_written_once_however_often_a_claim_yields() -> None:
    index, a, b = Index(), announcement("a"), announcement("b")
    yielding = index.decide(b)
    commit = index.run(yielding, until=Move)
    lead = index.run(index.decide(a))
    index.run(protocol.settle("a", lead.generation, "DEAD", None))
    taken: list[Any] = []

    def watched() -> Generator[Any, Any, Any]:
        step = commit
        try:
            while True:
                taken.append(step)
                step = yielding.send((yield step))
        except StopIteration as stop:
            return stop.value

    assert index.run(watched()) == Lead("b", 2)
    assert not [step for step in taken if isinstance(step, protocol.Publish)]


def test_only_the_smallest_of_many_copies_writes_to_the_others() -> None:
    index = Index()
    copies = [announcement(id_) for id_ in "abcd"]
    waiting = [index.decide(me) for me in copies]
    scans = [index.run(steps, until=protocol.Scan) for steps in waiting]
    first = {
        me.id: index.run(steps, Move, scan) for me, steps, scan in zip(copies[1:], waiting[1:], scans[1:], strict=True)
    }
    assert [step.state for step in first.values()] == ["YIELD"] * 3, "each gave up waiting, and wrote to itself alone"
    assert [step.seen.id for step in first.values()] == ["b", "c", "d"]


def test_a_dead_leader_is_replaced_and_what_it_writes_late_changes_nothing() -> None:
    index, a, b = Index(), announcement("a"), announcement("b")
    assert index.run(index.decide(a)) == Lead("a", 1)
    index.run(protocol.follow("a", b.upload))
    index.now += 1_000
    assert index.run(index.decide(b)) == Lead("b", 1)
    assert index.run(protocol.renew("a", 1, index.now + 900, index.now + 900)) is False
    assert index.run(protocol.settle("a", 1, "DEAD", None)) == (b.upload,)
    late = index.run(protocol.settle("a", 1, "READY", Outcome(source="a")))
    assert late == (b.upload,), "a caption made late is right for those who waited all the same"
    assert index.claim(a).state == "DEAD"
    assert index.run(index.decide(a)) == Follow("b")
    index.run(protocol.settle("b", 1, "READY", Outcome(source="b")))
    hit = index.run(index.decide(a))
    assert isinstance(hit, Hit)
    assert hit.claim.id == "b"
