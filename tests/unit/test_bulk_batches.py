"""Every way a batch can go: a crash before, after or within each step, and every answer of the endpoint.

However it goes, each upload ends, and is paid for once.

The generator explored is the one that runs in Lambda. A way is a list of choices; each is replayed from the beginning.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from captions.bulk import protocol
from captions.bulk.protocol import Batch, Finished, HandedOut, Postponed, Refusal, Running, Unconfirmed, advance
from captions.cost import Cost

LINES = ("a", "b", "c")
LOOK_EVERY = 300.0
DEADLINE = 3 * 3_600.0
MOST_LOOKS = 60
LISTED_AFTER = protocol.SETTLING_SECONDS - 1


class Crash(Exception):
    """The function was killed."""


class Choices:
    """The choices of one way: those given, then always the first; remembers how many there were each time."""

    def __init__(self, given: list[int], crashes: int, faults: int) -> None:
        self._given = given
        self._left = {"crash": crashes, "fault": faults}
        self.made: list[tuple[int, int]] = []

    def among(self, usual: str, *others: tuple[str, str]) -> str:
        """Choose the usual course, or one of others that take something of what may go wrong on one way."""
        possible = [("", usual), *(other for other in others if self._left[other[0]])]
        place = len(self.made)
        choice = self._given[place] if place < len(self._given) else 0
        self.made.append((choice, len(possible)))
        kind, name = possible[choice]
        if kind:
            self._left[kind] -= 1
        return name


@dataclass
class Remote:
    """A batch at the endpoint."""

    file: str
    listed_from: float
    fate: str | None = None
    finished: Finished | None = None


@dataclass
class World:
    """The endpoint, the store and the uploads of one batch."""

    choices: Choices
    now: float = 0.0
    stored: Batch = field(default_factory=lambda: Batch("x", "formed", "m", "http://e/v1", 3, 9, DEADLINE, 0.0))
    waiting: set[str] = field(default_factory=lambda: set(LINES))
    files: int = 0
    remotes: dict[str, Remote] = field(default_factory=dict)
    results: dict[str, list[str]] = field(default_factory=dict)
    lease: set[str] = field(default_factory=lambda: set(LINES))
    """Uploads that the lane holds."""
    released: set[str] = field(default_factory=set)
    """Given back without a job: the sweep sees to them."""
    captioned: set[str] = field(default_factory=set)
    paid: Counter[str] = field(default_factory=Counter)
    created: int = 0

    def look(self) -> None:
        """Take the batch as far as it goes, as one invocation does; it may be killed."""
        steps = advance(self.stored, lambda: self.now)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                course = self.choices.among("takes", ("crash", "dies before"), ("crash", "dies after"))
                if course == "dies before":
                    raise Crash
                answer = self.take(step)
                if course == "dies after":
                    raise Crash
        except StopIteration:
            return

    def take(self, step: protocol.BatchStep) -> Any:
        match step:
            case protocol.MoveBatch(seen, batch):
                assert self.stored == seen  # nobody else works at it
                self.stored = batch
                return True
            case protocol.Detach():
                self.waiting.clear()
                return None
            case protocol.UploadFile():
                return self.upload()
            case protocol.CreateBatch(batch):
                return self.create(batch)
            case protocol.Find(batch):
                listed = [name for name, remote in self.remotes.items() if remote.file == batch.file_id]
                assert len(listed) <= 1
                shown = next((name for name in listed if self.remotes[name].listed_from <= self.now), None)
                return shown if self.choices.among("lists", ("fault", "fails")) == "lists" else Postponed("503")
            case protocol.Retrieve(batch):
                return self.retrieve(self.remotes[batch.remote_id or ""])
            case protocol.Cancel(batch):
                remote = self.remotes[batch.remote_id or ""]
                if remote.finished is None and remote.fate != "ends in its own words":
                    self.finish(remote, LINES[:1], "cancelled")
                return None
            case protocol.HandOut(batch):
                return self.hand_out(batch)
            case protocol.ReturnRest(batch):
                return self.return_rest(batch)
            case protocol.Discard():
                assert not self.lease, "lines are removed while an upload waits for them"
                return None
            case protocol.RemoveFiles():
                assert self.stored.state == "closed", "files are removed that are still read"
                return None
        raise AssertionError(step)

    def upload(self) -> Any:
        course = self.choices.among("sent", ("fault", "postponed"), ("fault", "refused"))
        if course == "postponed":
            return Postponed("503")
        if course == "refused":
            return Refusal("400")
        assert not self.waiting, "a line that still waits could get into another batch"
        self.files += 1
        return f"file-{self.files}"

    def create(self, batch: Batch) -> Any:
        assert self.stored.state == "submitting", "what is asked for must be stored before"
        course = self.choices.among(
            "created", ("fault", "created, unanswered, listed late"), ("fault", "created, unanswered"),
            ("fault", "lost"), ("fault", "postponed"), ("fault", "refused"),
        )  # fmt: skip
        if course == "lost":
            return Unconfirmed()
        if course == "postponed":
            return Postponed("429")
        if course == "refused":
            return Refusal("400")
        self.created += 1
        late = LISTED_AFTER if course.endswith("late") else 0.0
        name = f"remote-{self.created}"
        self.remotes[name] = Remote(batch.file_id or "", self.now + late)
        return name if course == "created" else Unconfirmed()

    def retrieve(self, remote: Remote) -> Any:
        if remote.fate is None:
            remote.fate = self.choices.among(
                "completes", ("fault", "completes later"), ("fault", "expires"), ("fault", "fails"),
                ("fault", "is stuck"), ("fault", "loses and doubles lines"), ("fault", "is not told of"),
                ("fault", "ends in its own words"),
            )  # fmt: skip
        if remote.finished is not None:
            return remote.finished
        match remote.fate:
            case "completes later":
                remote.fate = "completes"
                return Running()
            case "is not told of":
                remote.fate = "completes"
                return Postponed("404")
            case "is stuck":
                return Running()
            case "ends in its own words":
                if not self.results:
                    self.finish(Remote("", 0.0), LINES, None)
                return Running(tuple(self.results))
            case "completes":
                self.finish(remote, LINES, None)
            case "loses and doubles lines":
                self.finish(remote, ("a", "a", "c", "c"), None)
            case "expires":
                self.finish(remote, LINES[:1], "expired")
            case "fails":
                remote.finished = Finished((), "failed")
        return remote.finished

    def finish(self, remote: Remote, lines: tuple[str, ...], reason: str | None) -> None:
        self.paid.update(set(lines))
        output = f"output-{len(self.results)}"
        self.results[output] = list(lines)
        remote.finished = Finished((output,), reason)

    def hand_out(self, batch: Batch) -> Any:
        course = self.choices.among("reads", ("fault", "postponed"), ("fault", "no time"))
        if course != "reads":
            return Postponed("503") if course == "postponed" else None
        rest = [line for output in batch.outputs for line in self.results[output]][batch.taken :][:2]
        failed = []
        for line in rest:
            course = self.choices.among("stored", ("crash", "killed between two lines"), ("fault", "fails"))
            if course == "killed between two lines":
                raise Crash
            if course == "fails":
                failed.append(line)
                continue
            self.captioned.add(line)
            self.lease.discard(line)
        return HandedOut(len(rest), tuple(failed), Cost(dollars=Decimal(len(rest))))

    def return_rest(self, batch: Batch) -> Any:
        answered = {line for output in batch.outputs for line in self.results[output]}
        for line in answered & set(batch.failed):  # once more
            self.captioned.add(line)
            self.lease.discard(line)
        for line in LINES:
            if line in answered or line not in self.lease:
                continue
            self.lease.discard(line)
            self.released.add(line)
            course = self.choices.among("queued", ("crash", "killed before it is queued"), ("fault", "no time"))
            if course == "killed before it is queued":
                raise Crash
            self.ordinary(line)
            if course == "no time":
                return False
        return True

    def ordinary(self, line: str) -> None:
        """A worker captions it; what was captioned before is not asked about again."""
        self.released.discard(line)
        if line not in self.captioned:
            self.paid[line] += 1
            self.captioned.add(line)

    def live(self) -> None:
        """Look at the batch again and again until it is closed, then let the sweep find what was left over."""
        for _ in range(MOST_LOOKS):
            if self.stored.state == "closed":
                break
            with contextlib.suppress(Crash):
                self.look()
            self.now += LOOK_EVERY
        for line in sorted(self.released):
            self.ordinary(line)
        for remote in self.remotes.values():
            if remote.finished is None and not self.results:  # nobody knows of it, and it is billed all the same
                self.finish(remote, LINES, None)


def ways(crashes: int, faults: int) -> Iterator[World]:
    """Every way with so many crashes and faults at the most."""
    given: list[int] = []
    while True:
        choices = Choices(given, crashes, faults)
        world = World(choices)
        world.live()
        yield world
        made = choices.made
        while made and made[-1][0] + 1 == made[-1][1]:
            made.pop()
        if not made:
            return
        given = [choice for choice, _ in made[:-1]] + [made[-1][0] + 1]


@pytest.mark.parametrize(
    ("crashes", "faults", "at_least"),
    [(0, 0, 1), (1, 1, 500), (2, 0, 400), (0, 3, 1_000), pytest.param(2, 1, 5_000, marks=pytest.mark.deep)],
)
def test_however_a_batch_goes_each_upload_ends_and_is_paid_for_once(crashes: int, faults: int, at_least: int) -> None:
    number = 0
    for number, world in enumerate(ways(crashes, faults), 1):  # noqa: B007 - counted
        where = (world.choices.made, world.stored)
        assert world.stored.state == "closed", where
        assert world.captioned == set(LINES), where
        assert world.paid == Counter(LINES), where
        assert not world.waiting, where
        assert world.stored.spent.dollars == world.stored.taken, where
    assert number >= at_least


def test_the_exploration_finds_a_batch_that_is_created_without_being_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A protocol that creates again at once, instead of looking, pays twice: the check can fail."""
    monkeypatch.setattr(protocol, "_recover", protocol._create)
    assert any(world.paid != Counter(LINES) for world in ways(1, 1))


def test_the_exploration_finds_a_batch_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SETTLING_SECONDS", -1.0)  # whoever does not wait for the listing creates another
    assert any(world.created > 1 for world in ways(0, 2))


def test_a_batch_that_comes_too_late_is_not_submitted() -> None:
    world = World(Choices([], 0, 0), now=DEADLINE - protocol.LEAST_SECONDS)
    world.live()
    assert (world.created, world.stored.reason) == (0, "not submitted in time")
    assert world.paid == Counter(LINES)


def test_a_batch_that_never_ends_is_cancelled_and_its_rest_goes_the_ordinary_way() -> None:
    world = next(world for world in ways(0, 1) if any(remote.fate == "is stuck" for remote in world.remotes.values()))
    assert world.now > DEADLINE
    assert world.stored.reason == "cancelled"
    assert world.paid == Counter(LINES)
