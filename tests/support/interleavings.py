"""Runs uploads through the real claim protocol in every order their steps can take, and watches what comes of it.

Around the protocol stands the least of the pipeline that gives its answers a meaning: records that end once, a lease
before anything is paid, jobs and revisits that are delivered again after a crash, a sweep in the end. Exploration is
stateless model checking with hashed states: generators cannot be copied, so a process is kept as the answers it was
given, from which it is run again when needed, and two are taken for one where their frames are equal, and the step that
they ask for: where each generator of the chain stands and what its variables hold (a loop's position shows in its
variable). A state is the store, the clock and where each process stands.
"""

from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, field
from types import FunctionType, GeneratorType
from typing import Any, NamedTuple

from captions.near_duplicates import protocol
from captions.near_duplicates.protocol import Announcement, Claim, Clock, Contended, Follow, Hit, Lead
from captions.uploads.version import ObjectVersion, pad_sequencer
from support.claims import GetEvidence, Outcome, Store, World

LEASE = 900.0
LEASES_OVER = 1_000.0
"""Seconds a tick of the clock takes: every lease is over then."""
START = 1_000_000.0


class Violation(AssertionError):
    """The protocol did what it must never do."""


class Record(NamedTuple):
    state: str = "pending"
    source: int | None = None
    """Which upload's caption it is."""
    lease: float = 0.0


class System(NamedTuple):
    """Everything stored: the index, the records, and what stands on the queues."""

    world: World
    records: tuple[Record, ...]
    paid: tuple[int, ...]
    revisits: frozenset[int] = frozenset()

    def recording(self, upload: int, record: Record) -> "System":
        return self._replace(records=(*self.records[:upload], record, *self.records[upload + 1 :]))


# -- what the pipeline does besides the protocol's steps; each is atomic ---------------------------------------------


@dataclass(frozen=True)
class Enter:
    """From here on, a crash starts `again` from its beginning. Not a step."""

    again: tuple[Hashable, ...]


@dataclass(frozen=True)
class Look:
    upload: int


@dataclass(frozen=True)
class Begin:
    upload: int
    lease: float


@dataclass(frozen=True)
class Release:
    upload: int


@dataclass(frozen=True)
class Pay:
    upload: int
    generation: int
    lease: float


@dataclass(frozen=True)
class Finish:
    upload: int
    state: str
    source: int | None


@dataclass(frozen=True)
class Revisit:
    upload: int


@dataclass(frozen=True)
class Reopen:
    upload: int


@dataclass(frozen=True)
class Scenario:
    """What is uploaded, what may go wrong and how often."""

    ids: tuple[str, ...]
    """The claim id of each upload: their order decides who waits for whom."""
    near: frozenset[frozenset[int]]
    """Which uploads show the same picture."""
    deliveries: tuple[int, ...]
    """One process each: the upload whose event is delivered."""
    exact: bool = False
    """They are found by an exact key instead of the perceptual hash."""
    finds: frozenset[tuple[int, int]] = frozenset()
    """By probes, the first finds the second, which shows the same picture; both ways if both pairs are there."""
    workers: bool = True
    """Leaders go on to be captioned; without, the exploration ends with who leads."""
    crashes: int = 0
    ticks: int = 0
    failures: tuple[str, ...] = ()
    """How captioning may end other than well, once in all."""
    probe: bool = True
    """Look before announcing, as the pipeline does; that only reads."""
    retirements: tuple[int, ...] = ()
    """One process each: the upload that is captioned once more, its exemplar taken out of service, once it is READY."""
    captioned: tuple[int, ...] = ()
    """Uploads that were delivered and captioned before all this."""
    polls: int = 1
    """How often a process waits for others before it gives up for now."""
    unreadable: frozenset[int] = frozenset()
    """Uploads whose object any look for evidence may find gone or unreadable, and the next one there again."""

    def are_near(self, a: int, b: int) -> bool:
        return a == b or frozenset((a, b)) in self.near or bool({(a, b), (b, a)} & self.finds)

    @property
    def exclusive(self) -> frozenset[frozenset[int]]:
        """Which uploads find each other, so that never both may lead."""
        pairs = self.near | {frozenset((a, b)) for a, b in self.finds if (b, a) in self.finds}
        return frozenset(pair for pair in pairs if self.exact or not pair & self.unreadable)


Program = Generator[Any, Any, None]
Variant = Callable[[Generator[Any, Any, Any]], Generator[Any, Any, Any]]


@dataclass
class Explorer:
    """Explores one scenario. `variant` may tamper with the protocol's steps, `use` with what they do."""

    scenario: Scenario
    variant: Variant = lambda steps: steps
    limit: int = 3_000_000
    states: int = 0
    leads: set[frozenset[int]] = field(default_factory=set)
    """Which uploads were paid for, over all ends."""

    def __post_init__(self) -> None:
        s = self.scenario
        self._me = [
            Announcement(
                id=id_,
                scope="scope",
                upload=ObjectVersion(bucket="b", key=id_, sequencer=pad_sequencer("1")),
                exact=("the same bytes",) if s.exact else (f"bytes {number}",),
                phash=None if s.exact else b"hash",
                evidence=None if s.exact else f"picture {number}".encode(),
            )
            for number, id_ in enumerate(s.ids)
        ]
        self._number = {id_: number for number, id_ in enumerate(s.ids)}
        self.use(Store)
        self._now = START
        self._clock = Clock(now=lambda: self._now, queue_lease=LEASE, patience=(s.polls - 0.5) * protocol.POLL_SECONDS)
        # Everything below is interned, so that states are tuples of small numbers.
        self._systems: dict[System, int] = {}
        self._system: list[System] = []
        self._locals: dict[Hashable, int] = {}
        self._local: list[_Local] = []
        self._nodes: dict[Hashable, _Node] = {}
        self._values: dict[Any, int] = {}
        self._value: list[Any] = []
        self._effects: dict[tuple[int, int, float, int], list[tuple[int, int, int]]] = {}
        self._successor: dict[tuple[int, int, int, float], int] = {}
        self._swept: set[tuple[int, float, bool]] = set()

    def use(self, store: type[Store]) -> None:
        """Explore with another sort of store."""
        self._store = store(
            self._keys, lambda a, b: True, self._reframed, lambda id_: f"picture {self._number[id_]}".encode()
        )

    def _keys(self, me: Announcement) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """One shared posting for each pair, the least that near pictures have in common: each is read on its own."""
        if self.scenario.exact:
            return me.exact, ()
        mine = self._number[me.id]
        bands = sorted("-".join(map(str, sorted(pair))) for pair in self.scenario.near if mine in pair)
        if any(mine == result for _, result in self.scenario.finds):
            bands.append(f"{mine}")
        return (), tuple(bands)

    def _reframed(self, me: Announcement) -> tuple[str, ...]:
        """The band of each picture that this one finds by its probes."""
        mine = self._number[me.id]
        return tuple(f"{result}" for finding, result in sorted(self.scenario.finds) if finding == mine)

    # -- the pipeline around the protocol --------------------------------------------------------------------------

    def _deliver(self, upload: int) -> Program:
        """Dedupe: what a delivery of an upload's event, or a revisit, does."""
        yield Enter(("deliver", upload))
        record = yield Look(upload)
        if record.state != "pending":
            return
        me = self._me[upload]

        def same(claim: Claim) -> bool:
            number = self._number[claim.id]
            if claim.evidence != f"picture {number}".encode():
                raise Violation(f"{upload} compares {number} by evidence {claim.evidence!r}")
            return self.scenario.are_near(upload, number)

        answer = None
        if self.scenario.probe:
            answer = yield from self.variant(protocol.probe(me, same, self._clock, ("exact", "near")))
            if answer is None and self.scenario.finds:
                answer = yield from self.variant(protocol.probe(me, same, self._clock, ("reframed",)))
        if answer is None:
            answer = yield from self.variant(protocol.decide(me, same, self._clock))
        match answer:
            case Hit(claim):
                yield Finish(upload, "captioned", (claim.outcome or {})["source"])
            case Lead(_, generation):
                if self.scenario.workers:
                    yield from self._work(upload, generation)
            case Follow():
                pass  # its leader will tell it
            case Contended():
                yield Revisit(upload)

    def _work(self, upload: int, generation: int) -> Program:
        """The worker: captions what leads, and tells who follows."""
        yield Enter(("work", upload, generation))
        lease = self._now + LEASE
        begun = yield Begin(upload, lease)
        if begun == "busy":
            yield Revisit(upload)
            return
        if begun == "begun":
            if not (yield from self.variant(protocol.renew(self._me[upload].id, generation, lease, lease))):
                yield Release(upload)
                yield Revisit(upload)
                return
            end = yield Pay(upload, generation, lease)
            yield Finish(upload, end, upload if end == "captioned" else None)
        record = yield Look(upload)
        shared = record.source == upload
        followers = yield from self.variant(
            protocol.settle(
                self._me[upload].id,
                generation,
                "READY" if shared else "DEAD",
                Outcome(source=upload) if shared else None,
            )
        )
        for follower in followers:
            number = self._number[follower.key]
            if shared:
                yield Finish(number, "captioned", upload)
            elif record.state == "refused":
                yield Finish(number, "refused", None)
            else:
                yield Revisit(number)
            yield protocol.Dismiss(self._me[upload].id, follower)

    def _retire(self, upload: int) -> Program:
        """What captions an upload once more does: retires its exemplar, and delivers it again."""
        yield Enter(("retire", upload))
        claims = yield protocol.Read((self._me[upload].id,))
        if claims and claims[0].state == "READY":
            yield from self.variant(protocol.retire(claims[0].id, claims[0].generation))
            yield Reopen(upload)
            yield from self._deliver(upload)

    def _apply(  # noqa: C901 - a case for each kind of part
        self, system: System, part: Any, failures: int
    ) -> Iterator[tuple[System, Any, int]]:
        """Yield every way an atomic part may go: the system after it, its answer, and the failures still to come."""
        match part:
            case Look(upload):
                yield system, system.records[upload], failures
            case Begin(upload, lease):
                record = system.records[upload]
                if record.state != "pending":
                    yield system, "ended", failures
                elif record.lease > self._now:
                    yield system, "busy", failures
                else:
                    yield system.recording(upload, record._replace(lease=lease)), "begun", failures
            case Release(upload):
                yield system.recording(upload, system.records[upload]._replace(lease=0.0)), None, failures
            case Pay(upload, generation, _):
                claim = system.world.claim(self._me[upload].id)
                if claim is None or (claim.state, claim.generation) != ("LEAD", generation):
                    raise Violation(f"{upload} is paid for under {claim}")
                paid = tuple(count + (number == upload) for number, count in enumerate(system.paid))
                yield system._replace(paid=paid), "captioned", failures
                if failures:
                    for end in self.scenario.failures:
                        yield system._replace(paid=paid), end, failures - 1
            case Finish(upload, state, source):
                if source is not None and not self.scenario.are_near(source, upload):
                    raise Violation(f"{upload} gets the caption of {source}")
                record = system.records[upload]
                if record.state == "pending":
                    system = system.recording(upload, Record(state, source))
                yield system, None, failures
            case Reopen(upload):
                claim = system.world.claim(self._me[upload].id)
                retired = claim is not None and claim.state == "DEAD"
                yield (system.recording(upload, Record()) if retired else system), None, failures
            case Revisit(upload):
                yield system._replace(revisits=system.revisits | {upload}), None, failures
            case _:
                world, answer = self._store.apply(system.world, part, self._now)
                yield system._replace(world=world), answer, failures
                if isinstance(part, GetEvidence) and self._number[part.id] in self.scenario.unreadable:
                    yield system, None, failures
                if answer and getattr(part, "consistent", True) is False:
                    # An eventually consistent query may not see yet what was written.
                    yield system, frozenset(), failures

    def _check(self, system: System) -> None:
        holding = [
            self._number[claim.id]
            for claim in system.world.claims
            if claim.state in ("LEAD", "READY") and claim.expires_at > self._now
        ]
        for pair in self.scenario.exclusive:
            if pair <= set(holding):
                raise Violation(f"near pictures {sorted(pair)} lead together")

    # -- exploration -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Visit every state; answers how many there are. Raises Violation with the way that led to a wrong one."""
        s = self.scenario
        system = System(World(), tuple(Record() for _ in s.ids), tuple(0 for _ in s.ids))
        for upload in s.captioned:
            system = self._alone(system, self._deliver(upload))
        first = (
            self._intern(system),
            START,
            s.crashes,
            1 if s.failures else 0,
            tuple(
                sorted(
                    self._start((kind, upload))
                    for kind, uploads in (("deliver", s.deliveries), ("retire", s.retirements))
                    for upload in uploads
                )
            ),
        )
        before: dict[Any, tuple[Any, Any] | None] = {first: None}
        stack = [first]
        state: Any = first
        happening: Any = None
        try:
            while stack:
                state = stack.pop()
                ended = True
                for happening, after in self._happenings(state):
                    ended = False
                    if after not in before:
                        before[after] = (state, happening)
                        stack.append(after)
                if ended:
                    happening = "the end"
                    self._end(state)
                if len(before) > self.limit:
                    raise RuntimeError(f"more than {self.limit} states")
        except Violation as violation:
            before[""] = (state, happening)
            raise Violation(f"{violation}\n" + self._way(before, "")) from violation
        self.states = len(before)
        return self.states

    def _happenings(self, state: Any) -> Iterator[tuple[Any, Any]]:
        """Yield all that can happen next, and the state it leads to."""
        system, now, crashes, failures, processes = state
        self._now = now
        running = False
        for position, local in enumerate(processes):
            if local == ENDED:
                continue
            running = True
            standing = self._local[local]
            killed = standing.killed(now)
            for part in () if killed else standing.remaining:
                for system_after, answer, failures_after in self._effect(system, part, failures):
                    after = self._advance(local, part, answer)
                    yield (
                        (position, part, answer),
                        (system_after, now, crashes, failures_after, _with(processes, position, after)),
                    )
            if killed:
                # Its function ran out of time before it could pay: the message is delivered again.
                yield (
                    (position, "killed"),
                    (system, now, crashes, failures, _with(processes, position, self._start(standing.node.again))),
                )
            elif crashes and not standing.fresh:
                yield (
                    (position, "crash"),
                    (system, now, crashes - 1, failures, _with(processes, position, self._start(standing.node.again))),
                )
        if running and now < START + self.scenario.ticks * LEASES_OVER:
            yield "tick", (system, now + LEASES_OVER, crashes, failures, processes)

    def _number_of(self, value: Any) -> int:
        number = self._values.get(value)
        if number is None:
            number = self._values[value] = len(self._value)
            self._value.append(value)
        return number

    def _effect(self, system: int, part: int, failures: int) -> list[tuple[int, int, int]]:
        key = (system, part, self._now, failures)
        known = self._effects.get(key)
        if known is None:
            known = [
                (self._intern(after), self._number_of(_frozen(answer)), left)
                for after, answer, left in self._apply(self._system[system], self._value[part], failures)
            ]
            self._effects[key] = known
        return known

    def _intern(self, system: System) -> int:
        number = self._systems.get(system)
        if number is None:
            self._check(system)
            number = len(self._system)
            self._systems[system] = number
            self._system.append(system)
        return number

    def _start(self, program: tuple[Hashable, ...]) -> int:
        return self._place(self._node(program, ((None, self._now),)), fresh=True)

    def _node(self, program: tuple[Hashable, ...], history: tuple[tuple[Any, float], ...]) -> "_Node":
        """Where a program stands after it was started and given answers, each at a time: what it asks next."""
        now = self._now
        programs: dict[Hashable, Callable[..., Program]] = {
            "deliver": self._deliver, "work": self._work, "retire": self._retire
        }  # fmt: skip
        steps: Any = programs[program[0]](*program[1:])
        again, answers = program, iter(history)
        step: Any = None
        try:
            while True:
                if step is None or not isinstance(step, Enter):
                    sent, self._now = next(answers)
                step = steps.send(_thawed(sent))
                if isinstance(step, Enter):
                    again, sent = step.again, None
                    continue
                phases = tuple(phase for phase in self._store.parts(step) if phase)
                if not phases:
                    # Nothing to ask for, such as a rest: the answer is known, and taken without a step.
                    answers = iter([(_frozen(self._store.combine(step, {})), self._now), *answers])
        except StopIteration as stop:
            ended = steps.gi_frame is None
            frames = None if ended else (again, _frames(steps))
            del stop
        self._now = now
        if frames is None:
            return _Node(program, history, None, (), again)
        # What a step says need not stand in a variable: until when a lease is to hold goes by the time it was asked at.
        key = (*frames, step)
        if key not in self._nodes:
            self._nodes[key] = _Node(program, history, step, phases, again)
        return self._nodes[key]

    def _place(self, node: "_Node", *, fresh: bool = False) -> int:
        if node.step is None:
            return ENDED
        return self._local_number(_Local(node, 0, self._parts(node, 0), frozenset(), fresh))

    def _parts(self, node: "_Node", phase: int) -> frozenset[int]:
        return frozenset(self._number_of(part) for part in node.phases[phase])

    def _local_number(self, local: "_Local") -> int:
        key = (id(local.node), local.phase, local.remaining, local.answers, local.fresh)
        number = self._locals.get(key)
        if number is None:
            number = len(self._local)
            self._locals[key] = number
            self._local.append(local)
        return number

    def _advance(self, number: int, part: int, answer: int) -> int:
        key = (number, part, answer, self._now)
        known = self._successor.get(key)
        if known is not None:
            return known
        local = self._local[number]
        node, phase = local.node, local.phase
        remaining = local.remaining - {part}
        answers = local.answers | {(part, answer)}
        if not remaining and phase + 1 < len(node.phases):
            phase, remaining = phase + 1, self._parts(node, phase + 1)
        if remaining:
            after = self._local_number(_Local(node, phase, remaining, answers, False))
        else:
            given = {self._value[key]: _thawed(self._value[value]) for key, value in answers}
            combined = given[node.step] if _ours(node.step) else self._store.combine(node.step, given)
            after = self._place(self._node(node.program, (*node.history, (_frozen(combined), self._now))))
        self._successor[key] = after
        return after

    # -- what must hold in the end -----------------------------------------------------------------------------------

    def _end(self, state: Any) -> None:
        """Nobody is left running: let the queues and the sweep do what they do, and see that all comes to an end."""
        number, now, crashes, _, _ = state
        faults = crashes < self.scenario.crashes or now > START
        if (number, now, faults) in self._swept:
            return
        self._swept.add((number, now, faults))
        system = self._system[number]
        if not self.scenario.workers:
            return
        for _ in range(3 * len(self.scenario.ids)):
            pending = {upload for upload, record in enumerate(system.records) if record.state == "pending"}
            if not pending:
                break
            # Without a fault nobody may need the sweep: each is told, or is on the queue again.
            due = pending if faults else pending & system.revisits
            if not due:
                raise Violation(f"{sorted(pending)} are stuck")
            system = system._replace(revisits=frozenset())
            self._now += LEASES_OVER if faults else 0.0
            for upload in sorted(due):
                system = self._alone(system, self._deliver(upload))
        else:
            raise Violation(f"{sorted(pending)} come to no end")
        self.leads.add(frozenset(upload for upload, count in enumerate(system.paid) if count))
        if not faults and not self.scenario.failures and not self.scenario.retirements:
            twice = [upload for upload, count in enumerate(system.paid) if count > 1]
            both = [sorted(pair) for pair in self.scenario.exclusive if all(system.paid[upload] for upload in pair)]
            if twice or both:
                raise Violation(f"paid twice: {twice or both}")

    def _alone(self, system: System, steps: Program) -> System:
        """Run a program to its end with nobody in between."""
        sent: Any = None
        while True:
            try:
                step = steps.send(sent)
            except StopIteration:
                return system
            sent = None
            if isinstance(step, Enter):
                continue
            answers = {}
            for phase in self._store.parts(step):
                for part in phase:
                    system, answers[part], _ = next(self._apply(system, part, 0))
                    self._check(system)
            sent = answers[step] if _ours(step) else self._store.combine(step, answers)

    def _way(self, before: Any, state: Any) -> str:
        lines = []
        while before[state] is not None:
            state, happening = before[state]
            if isinstance(happening, tuple) and len(happening) == 3:
                happening = (happening[0], self._value[happening[1]], self._value[happening[2]])
            lines.append(f"  {happening}")
        return "\n".join(reversed(lines))


ENDED = -1


class _Node(NamedTuple):
    program: tuple[Hashable, ...]
    history: tuple[tuple[Any, float], ...]
    step: Any
    phases: tuple[tuple[Any, ...], ...]
    again: Any


class _Local(NamedTuple):
    node: _Node
    phase: int
    remaining: frozenset[int]
    """The parts of the step, by number, that are still to be done; and the answers of the others."""
    answers: frozenset[tuple[int, int]]
    fresh: bool

    def killed(self, now: float) -> bool:
        return isinstance(self.node.step, Pay) and now >= self.node.step.lease


def _with(processes: tuple[int, ...], position: int, local: int) -> tuple[int, ...]:
    return (*processes[:position], local, *processes[position + 1 :])


def _ours(step: Any) -> bool:
    return isinstance(step, Look | Begin | Release | Pay | Finish | Revisit | Reopen)


def _frozen(value: Any) -> Any:
    """A value that can be hashed and stands for `value`."""
    if isinstance(value, dict) and not isinstance(value, Outcome):
        return _Map(sorted((key, _frozen(inner)) for key, inner in value.items()))
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return tuple(_frozen(inner) for inner in value)
    if isinstance(value, set):
        return frozenset(value)
    return value


class _Map(tuple[Any, ...]):
    """A mapping as its sorted items."""


def _thawed(value: Any) -> Any:
    return dict(value) if isinstance(value, _Map) else value


def _frames(steps: Any) -> Hashable:
    """Where a chain of generators stands, and what their variables hold."""
    chain: list[Hashable] = []
    while isinstance(steps, GeneratorType) and (frame := steps.gi_frame) is not None:
        held = (
            (name, _frames(value) if isinstance(value, GeneratorType) else _frozen(value))
            for name, value in sorted(frame.f_locals.items())
            if not isinstance(value, FunctionType | Clock | Explorer)
        )
        chain.append((frame.f_code.co_qualname, frame.f_lasti, tuple(held)))
        steps = steps.gi_yieldfrom
    return tuple(chain)
