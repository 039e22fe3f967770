"""Every order in which two and three uploads can take the claim protocol's steps, with what may go wrong between them.

The generators explored are those that run in Lambda. In every state near pictures never lead together and nothing is
paid for but under a leadership that stands; a caption only goes to pictures near the one it was made of; in the end
everybody has come to an end, without a fault also without the sweep, and nothing near was paid for twice.

`pytest -m deep` explores what takes minutes.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest

from captions.near_duplicates import protocol
from support.claims import Store, World
from support.interleavings import Explorer, Scenario, Violation

pytestmark = pytest.mark.slow

PAIR = ((0, 1),)
TRIANGLE = ((0, 1), (1, 2), (0, 2))
CHAIN = ((0, 1), (1, 2))
"""The first and the third picture are each near the second, but not near each other."""


def scenario(ids: str, near: Iterable[tuple[int, int]], **more: Any) -> Scenario:
    """Uploads with these claim ids, one letter each; one delivery of each unless told otherwise."""
    deliveries = more.pop("deliveries", tuple(range(len(ids))))
    return Scenario(tuple(ids), frozenset(frozenset(pair) for pair in near), deliveries, **more)


def explored(scenario: Scenario) -> set[frozenset[int]]:
    """Explore all of it; answers which uploads were paid for, over all ends."""
    explorer = Explorer(scenario)
    assert explorer.run() > 100
    return explorer.leads


@pytest.mark.parametrize("ids", ["ab", "ba"])
@pytest.mark.parametrize("exact", [False, True])
def test_of_two_copies_either_is_paid_for_and_never_both(ids: str, exact: bool) -> None:
    assert explored(scenario(ids, PAIR, exact=exact)) == {frozenset({0}), frozenset({1})}


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_copies_and_a_crash_anywhere(ids: str) -> None:
    explored(scenario(ids, PAIR, crashes=1))


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_copies_when_every_lease_ends_at_any_moment(ids: str) -> None:
    """Whoever is slow then wakes up deposed, before or after another has taken its place."""
    explored(scenario(ids, PAIR, ticks=1))


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_copies_whose_leader_is_refused_or_loses_its_object(ids: str) -> None:
    explored(scenario(ids, PAIR, failures=("refused", "deleted")))


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_deliveries_of_one_event_beside_a_copy(ids: str) -> None:
    ends = explored(scenario(ids, PAIR, deliveries=(0, 0, 1), probe=False))
    assert ends == {frozenset({0}), frozenset({1})}


def test_three_copies_have_one_leader() -> None:
    """All orders of the ids are the same but for the uploads' names."""
    explored(scenario("abc", TRIANGLE, workers=False, probe=False))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_caption_never_goes_along_a_chain(ids: str) -> None:
    """The middle picture's claim id the second, the first and the last of the three."""
    ends = explored(scenario(ids, CHAIN, probe=False))
    assert ends == {frozenset({1}), frozenset({0, 2})}


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_chain_and_a_crash_anywhere(ids: str) -> None:
    explored(scenario(ids, CHAIN, workers=False, probe=False, crashes=1))


BOTH_WAYS = frozenset({(0, 1), (1, 0)})
ONE_WAY = frozenset({(0, 1)})


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_of_a_picture_and_its_crop_that_find_each_other_never_both_are_paid_for(ids: str) -> None:
    assert explored(scenario(ids, (), finds=BOTH_WAYS)) == {frozenset({0}), frozenset({1})}


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_a_crop_and_its_picture_and_a_crash_anywhere(ids: str) -> None:
    explored(scenario(ids, (), finds=BOTH_WAYS, probe=False, crashes=1))


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_where_only_one_finds_the_other_both_may_be_paid_for_and_nobody_is_stuck(ids: str) -> None:
    """As they would be one after the other, if the one that is not found came last."""
    ends = explored(scenario(ids, (), finds=ONE_WAY))
    assert ends == {frozenset({1}), frozenset({0, 1})}


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_where_only_one_finds_the_other_and_leases_end_or_a_leader_fails(ids: str) -> None:
    explored(scenario(ids, (), finds=ONE_WAY, ticks=1))
    explored(scenario(ids, (), finds=ONE_WAY, failures=("refused", "deleted")))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_caption_never_goes_from_a_copy_to_what_only_the_original_finds(ids: str) -> None:
    """The first two are copies; the second alone finds the third, of which it is a crop."""
    explored(scenario(ids, PAIR, finds=frozenset({(1, 2)}), probe=False))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_an_exemplar_that_two_deliveries_retire_beside_a_copy(ids: str) -> None:
    """The slower of the two may not end what leads again meanwhile."""
    explored(scenario(ids, PAIR, deliveries=(1,), probe=False, captioned=(0,), retirements=(0, 0)))


@pytest.mark.parametrize("ids", ["ab", "ba"])
@pytest.mark.parametrize("lost", [{0}, {1}, {0, 1}])
def test_without_its_evidence_a_picture_is_paid_for_again_and_nobody_is_stuck(ids: str, lost: set[int]) -> None:
    """Whoever looks may find the other's object gone, and at the next look there: at worst both are paid for."""
    ends = explored(scenario(ids, PAIR, unreadable=frozenset(lost), failures=("refused", "deleted")))
    assert {frozenset({0}), frozenset({1}), frozenset({0, 1})} <= ends


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_what_exact_keys_show_to_be_the_same_needs_no_evidence(ids: str) -> None:
    ends = explored(scenario(ids, PAIR, exact=True, unreadable=frozenset({0, 1})))
    assert ends == {frozenset({0}), frozenset({1})}


@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_chain_whose_middle_cannot_always_be_read(ids: str) -> None:
    """What is near the first and the third may be taken for neither; the first and the third never for each other."""
    explored(scenario(ids, CHAIN, probe=False, workers=False, unreadable=frozenset({1})))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_chain_whose_middle_cannot_always_be_read_to_its_end(ids: str) -> None:
    explored(scenario(ids, CHAIN, probe=False, unreadable=frozenset({1})))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_copies_that_cannot_always_be_read_and_a_crash_anywhere(ids: str) -> None:
    explored(scenario(ids, PAIR, unreadable=frozenset({0, 1}), crashes=1, ticks=1))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_copies_a_crash_and_the_end_of_all_leases(ids: str) -> None:
    explored(scenario(ids, PAIR, crashes=1, ticks=1))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_deliveries_of_one_event_beside_a_copy_that_fails(ids: str) -> None:
    explored(scenario(ids, PAIR, deliveries=(0, 0, 1), probe=False, failures=("deleted",)))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_deliveries_of_one_event_beside_a_copy_when_leases_end(ids: str) -> None:
    explored(scenario(ids, PAIR, deliveries=(0, 0, 1), probe=False, workers=False, ticks=1))


@pytest.mark.deep
def test_three_copies_and_a_crash_anywhere() -> None:
    """Whoever would wait gives up at once, to keep it to some two million states."""
    explored(scenario("abc", TRIANGLE, workers=False, probe=False, crashes=1, polls=0))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_chain_when_every_lease_ends_at_any_moment(ids: str) -> None:
    """Without workers, who bring late captions: dedupe alone has two to three million states."""
    explored(scenario(ids, CHAIN, workers=False, probe=False, ticks=1))


@pytest.mark.deep
@pytest.mark.parametrize("ids", ["abc", "bac", "acb"])
def test_a_chain_with_a_leader_that_fails(ids: str) -> None:
    explored(scenario(ids, CHAIN, probe=False, failures=("deleted",)))


# -- that the exploration would find a fault: protocols and stores broken on purpose -----------------------------------

Steps = Generator[Any, Any, Any]


def tie_broken_by_id_alone(steps: Steps) -> Steps:
    """Larger claims are passed over instead of being made to yield."""
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = True if isinstance(step, protocol.Move) and step.state == "YIELD" else (yield step)


def postings_written_after_the_scan(steps: Steps) -> Steps:
    return (yield from _put_off(steps, protocol.Publish, protocol.Scan))


def followers_that_look_before_they_enlist(steps: Steps) -> Steps:
    return (yield from _put_off(steps, protocol.Enlist, protocol.Read))


def leaders_that_look_for_followers_before_they_are_ready(steps: Steps) -> Steps:
    """The followers' list is read ahead of the write of the result."""
    answer: Any = None
    read: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(step, protocol.Move) and step.state == "READY":
            read = yield protocol.Followers(step.seen.id)
        answer = read if isinstance(step, protocol.Followers) and read is not None else (yield step)


def _put_off(steps: Steps, put_off: type, until: type) -> Steps:
    answer: Any = None
    waiting: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = None
        if isinstance(step, put_off):
            waiting = step
            continue
        answer = yield step
        if isinstance(step, until) and waiting is not None:
            yield waiting
            waiting = None


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (tie_broken_by_id_alone, "lead together"),
        (postings_written_after_the_scan, "lead together"),
        (followers_that_look_before_they_enlist, "stuck"),
        (leaders_that_look_for_followers_before_they_are_ready, "stuck"),
    ],
)
def test_a_broken_protocol_is_found_out(broken: Callable[[Steps], Steps], complaint: str) -> None:
    with pytest.raises(Violation, match=complaint):
        Explorer(scenario("ab", PAIR), variant=broken).run()


class CommitsUnconditionally(Store):
    def apply(self, world: World, part: Any, now: float) -> tuple[World, Any]:
        if isinstance(part, protocol.Move) and part.state == "LEAD":
            standing = world.claim(part.seen.id)
            assert standing is not None
            part = part._replace(seen=standing)
        return super().apply(world, part, now)


class ComparesTheStateAlone(Store):
    def apply(self, world: World, part: Any, now: float) -> tuple[World, Any]:
        if isinstance(part, protocol.Move) and (standing := world.claim(part.seen.id)) is not None:
            seen = part.seen._replace(generation=standing.generation, lease_until=standing.lease_until)
            part = part._replace(seen=seen)
        return super().apply(world, part, now)


@pytest.mark.parametrize("broken", [CommitsUnconditionally, ComparesTheStateAlone])
def test_a_broken_store_is_found_out(broken: type[Store]) -> None:
    explorer = Explorer(scenario("ab", PAIR, ticks=1))
    explorer.use(broken)
    with pytest.raises(Violation, match=r"lead together|is paid for under"):
        explorer.run()
