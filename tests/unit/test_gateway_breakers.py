"""When circuits open and close, what counts and what does not, and what sandboxes tell each other."""

import asyncio
import threading
from typing import Any

import pytest

from captions.gateway import BreakerPolicy, Breakers, ErrorClass, SharedCircuit
from captions.gateway.breakers import Admission, Blocked
from captions.gateway.errors import AttemptFailed

pytestmark = pytest.mark.anyio

E, M = "http://e/v1", "GLM-4.6V"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class MemoryStore:
    """A store as the control table keeps it, in memory; counts what it is asked for."""

    def __init__(self) -> None:
        self.items: dict[str, SharedCircuit] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.suspects: dict[str, set[str]] = {}
        self.writes = 0
        self.reads = 0
        self.broken = False
        self._lock = threading.Lock()

    def read(self) -> list[SharedCircuit]:
        self._check()
        self.reads += 1
        return list(self.items.values())

    def open(self, circuit: SharedCircuit, now: float) -> None:
        self._check()
        with self._lock:
            standing = self.items.get(circuit.circuit)
            if standing is None or standing.open_until < max(now, circuit.open_until - 5.0):
                self.writes += 1
                self.items[circuit.circuit] = circuit
                self.leases.pop(circuit.circuit, None)

    def suspect(self, circuit: str, owner: str, now: float, window_s: float) -> int:
        self._check()
        with self._lock:
            self.writes += 1
            self.suspects.setdefault(circuit, set()).add(owner)
            return len(self.suspects[circuit])

    def lease(self, circuit: str, owner: str, now: float, lease_s: float) -> bool:
        self._check()
        with self._lock:
            item = self.items.get(circuit)
            holder, until = self.leases.get(circuit, (owner, 0.0))
            if item is None or item.open_until > now or (holder != owner and until > now):
                return False
            self.writes += 1
            self.leases[circuit] = (owner, now + lease_s)
            return True

    def close(self, circuit: str, owner: str) -> None:
        self._check()
        with self._lock:
            if self.leases.get(circuit, ("", 0))[0] == owner:
                self.writes += 1
                del self.items[circuit]
                del self.leases[circuit]

    def _check(self) -> None:
        if self.broken:
            raise ConnectionError("the table cannot be reached")


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def call(
    breakers: Breakers, error_class: ErrorClass | None = None, *, model: str = M, endpoint: str = E, **facts: Any
) -> bool:
    """One call with the given outcome; False if it was not admitted."""
    admission = await breakers.admit(endpoint, model)
    if admission is None:
        return False
    breakers.settle(admission, model, None if error_class is None else AttemptFailed(error_class, **facts))
    return True


async def admitted(breakers: Breakers) -> Admission:
    admission = await breakers.admit(E, M)
    assert admission is not None
    return admission


def blocking(breakers: Breakers, model: str = M) -> Blocked:
    blocked = breakers.blocked(E, model)
    assert blocked is not None
    return blocked


async def trip(breakers: Breakers, model: str = M, endpoint: str = E) -> None:
    for _ in range(breakers.policy.consecutive):
        assert await call(breakers, ErrorClass.SERVER_ERROR, model=model, endpoint=endpoint)


async def test_a_row_of_failures_opens_the_circuit_of_that_model_only(clock: Clock) -> None:
    breakers = Breakers(clock=clock)

    await trip(breakers)

    assert not await call(breakers)
    assert await call(breakers, model="GPT-4o")
    assert await call(breakers, endpoint="http://other/v1")


async def test_a_model_that_fails_half_of_its_calls_is_opened_too(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    admitted = [
        await call(breakers, ErrorClass.CUT if turn % 2 else None) for turn in range(breakers.policy.minimum_calls + 1)
    ]

    assert admitted.count(False) == 1


async def test_failures_that_lie_longer_back_are_forgotten(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    for turn in range(30):
        assert await call(breakers, ErrorClass.CUT if turn % 2 else None)
        clock.now += 10.0


@pytest.mark.parametrize(
    "error_class",
    [ErrorClass.REFUSED, ErrorClass.OURS, ErrorClass.TOO_LARGE, ErrorClass.TRUNCATED, ErrorClass.UNFIT],
)
async def test_what_does_not_speak_against_the_model_never_opens_it(clock: Clock, error_class: ErrorClass) -> None:
    breakers = Breakers(clock=clock)

    assert all([await call(breakers, error_class) for _ in range(50)])


async def test_rate_limits_are_counted_apart_from_failures(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    for _ in range(breakers.policy.consecutive - 1):
        await call(breakers, ErrorClass.SERVER_ERROR)
    await call(breakers, ErrorClass.RATE_LIMITED)
    await call(breakers, ErrorClass.RATE_LIMITED)

    assert breakers.blocked(E, M) is None
    await call(breakers, ErrorClass.RATE_LIMITED)
    assert blocking(breakers).rate_limited


async def test_retry_after_is_the_open_time(clock: Clock) -> None:
    breakers = Breakers(clock=clock)

    await call(breakers, ErrorClass.RATE_LIMITED, retry_after_s=42.0)

    assert blocking(breakers).wait_s == 42.0
    clock.now += 41.9
    assert not await call(breakers)
    clock.now += 0.2
    assert await call(breakers)
    assert breakers.blocked(E, M) is None


async def test_a_retry_after_beyond_reason_is_capped(clock: Clock) -> None:
    breakers = Breakers(clock=clock)

    await call(breakers, ErrorClass.RATE_LIMITED, retry_after_s=1e6)

    assert blocking(breakers).wait_s == breakers.policy.longest_retry_after_s


async def test_half_open_lets_one_probe_through_and_its_answer_closes(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    await trip(breakers)
    clock.now += 60.0

    probe = await breakers.admit(E, M)
    others = [await breakers.admit(E, M) for _ in range(10)]
    assert probe is not None
    assert others == [None] * 10
    assert blocking(breakers).wait_s < 1.0
    breakers.settle(probe, M, None)

    assert all([await call(breakers) for _ in range(10)])


async def test_a_failed_probe_opens_for_longer_up_to_a_limit(clock: Clock) -> None:
    policy = BreakerPolicy()
    breakers = Breakers(policy, clock=clock)
    await trip(breakers)
    waits = [blocking(breakers).wait_s]
    for _ in range(6):
        clock.now += blocking(breakers).wait_s + 0.01
        assert await call(breakers, ErrorClass.TIMEOUT)
        waits.append(blocking(breakers).wait_s)

    assert 4.0 <= waits[0] <= 6.0
    assert waits[1] > waits[0]
    assert 24.0 <= waits[-1] <= policy.longest_open_s * 1.2


async def test_a_model_that_flaps_is_opened_for_longer_each_time_until_it_settled(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    await trip(breakers)
    first = blocking(breakers).wait_s
    clock.now += first + 0.01
    await call(breakers)
    await trip(breakers)
    second = blocking(breakers).wait_s
    assert second > first

    clock.now += second + 0.01
    await call(breakers)
    clock.now += breakers.policy.settled_after_s + 1.0
    await call(breakers)
    await trip(breakers)
    assert blocking(breakers).wait_s <= 6.0


async def test_calls_that_began_before_the_circuit_changed_do_not_change_it(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    early = [await admitted(breakers) for _ in range(20)]
    await trip(breakers)
    until = breakers.circuit(E, M).open_until

    for admission in early:
        breakers.settle(admission, M, AttemptFailed(ErrorClass.SERVER_ERROR))
    assert breakers.circuit(E, M).open_until == until
    late = await breakers.admit(E, M)
    assert late is None


async def test_a_probe_that_is_abandoned_frees_its_place(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    await trip(breakers)
    clock.now += 60.0
    breakers.abandon(await admitted(breakers))

    assert await call(breakers)


async def test_an_account_problem_closes_the_whole_endpoint_at_once(clock: Clock) -> None:
    breakers = Breakers(clock=clock)

    await call(breakers, ErrorClass.ACCOUNT, status=402)

    assert not await call(breakers, model="GPT-4o")
    assert blocking(breakers, "GPT-4o").reason == "account"
    assert await call(breakers, endpoint="http://other/v1")


async def test_an_endpoint_that_cannot_be_reached_is_opened(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    for model in ("a", "b", "c"):
        await call(breakers, ErrorClass.CONNECTION, model=model, unreachable=True)

    assert not await call(breakers, model="d")


async def test_one_dead_model_never_opens_its_endpoint(clock: Clock) -> None:
    breakers = Breakers(BreakerPolicy(consecutive=1_000, minimum_calls=1_000), clock=clock)
    for _ in range(100):
        await call(breakers, ErrorClass.SERVER_ERROR)

    assert await call(breakers, model="GPT-4o")


async def test_a_row_of_failures_over_several_models_opens_the_endpoint(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    for turn in range(breakers.policy.endpoint_consecutive):
        await call(breakers, ErrorClass.SERVER_ERROR, model=f"m{turn % 4}")

    assert not await call(breakers, model="another")
    clock.now += 60.0
    # Any HTTP answer but another failure proves the endpoint.
    assert await call(breakers, ErrorClass.RATE_LIMITED, model="another")
    assert await call(breakers, model="one more")


async def test_a_healthy_system_writes_nothing(clock: Clock) -> None:
    store = MemoryStore()
    breakers = Breakers(store=store, clock=clock)
    for turn in range(1_000):
        await breakers.refresh()
        await call(breakers, ErrorClass.SERVER_ERROR if turn % 20 == 0 else None)
        clock.now += 0.1
    await settled(breakers)

    assert store.writes == 0
    assert store.reads <= 100.0 / breakers.policy.refresh_s + 50 + 1


async def settled(*all_breakers: Breakers) -> None:
    for breakers in all_breakers:
        if pending := breakers.pending():
            await asyncio.wait(pending)
        if breakers._reading is not None:
            await breakers._reading


async def learn(breakers: Breakers, clock: Clock) -> None:
    clock.now += breakers.policy.refresh_s + 0.01
    await breakers.refresh()
    await settled(breakers)


async def test_what_one_sandbox_learns_the_others_know(clock: Clock) -> None:
    store = MemoryStore()
    first, second = (Breakers(store=store, clock=clock) for _ in range(2))
    await first.refresh()
    await second.refresh()

    await trip(first)
    await settled(first)
    assert await call(second, ErrorClass.SERVER_ERROR)  # it fails once, and looks at what the others know
    await settled(second)

    assert not await call(second)
    assert store.writes == 2  # the suspicion, and what it grew to


async def test_a_new_sandbox_knows_before_its_first_call(clock: Clock) -> None:
    store = MemoryStore()
    old = Breakers(store=store, clock=clock)
    await trip(old)
    await settled(old)

    new = Breakers(store=store, clock=clock)
    await new.refresh(wait_s=5.0)

    assert not await call(new)


async def test_one_sandbox_probes_for_all_and_tells_them(clock: Clock) -> None:
    store = MemoryStore()
    sandboxes = [Breakers(store=store, clock=clock) for _ in range(20)]
    await trip(sandboxes[0])
    await settled(sandboxes[0])
    for sandbox in sandboxes:
        await sandbox.refresh(wait_s=5.0)
    clock.now += 10.0

    admissions = [await sandbox.admit(E, M) for sandbox in sandboxes]
    assert sum(admission is not None for admission in admissions) == 1

    winner = sandboxes[next(place for place, admission in enumerate(admissions) if admission)]
    winner.settle(next(filter(None, admissions)), M, None)
    await settled(winner)
    assert store.items == {}
    for sandbox in sandboxes:
        await learn(sandbox, clock)
    assert all([await call(sandbox) for sandbox in sandboxes])


async def test_a_probe_whose_sandbox_died_is_taken_over_after_its_lease(clock: Clock) -> None:
    store = MemoryStore()
    dead, alive = (Breakers(store=store, clock=clock) for _ in range(2))
    await trip(dead)
    await settled(dead)
    await alive.refresh(wait_s=5.0)
    clock.now += 10.0
    assert await dead.admit(E, M) is not None

    assert await alive.admit(E, M) is None
    clock.now += dead.policy.probe_lease_s + 2.0
    assert await alive.admit(E, M) is not None


async def test_sandboxes_that_trip_together_write_once(clock: Clock) -> None:
    store = MemoryStore()
    sandboxes = [Breakers(store=store, clock=clock) for _ in range(10)]

    for _ in range(5):
        await asyncio.gather(*(call(sandbox, ErrorClass.SERVER_ERROR) for sandbox in sandboxes))
    await settled(*sandboxes)

    # A suspicion of each; open times differ by chance, and only a clearly longer one is written over.
    assert store.writes <= len(sandboxes) + 2


async def test_sandboxes_that_call_seldom_see_together_what_none_sees_alone(clock: Clock) -> None:
    store = MemoryStore()
    long = BreakerPolicy(open_s=600.0, longest_open_s=600.0)
    sandboxes = [Breakers(long, store=store, clock=clock) for _ in range(20)]
    failed = 0
    for _ in range(5):
        for sandbox in sandboxes:
            clock.now += 1.0
            failed += await call(sandbox, ErrorClass.SERVER_ERROR)
            await settled(sandbox)

    # Each once, and three of them twice.
    assert failed <= len(sandboxes) + BreakerPolicy().suspecting_sandboxes


async def test_single_failures_here_and_there_write_nothing(clock: Clock) -> None:
    store = MemoryStore()
    sandboxes = [Breakers(store=store, clock=clock) for _ in range(20)]
    for turn in range(50):
        for sandbox in sandboxes:
            assert await call(sandbox, ErrorClass.SERVER_ERROR if turn % 10 == 0 else None)
            clock.now += 0.05
        await settled(*sandboxes)

    assert store.writes == 0


async def test_short_open_times_are_not_shared(clock: Clock) -> None:
    store = MemoryStore()
    breakers = Breakers(store=store, clock=clock)

    await call(breakers, ErrorClass.RATE_LIMITED, retry_after_s=1.0)
    await settled(breakers)

    assert store.writes == 0


async def test_circuits_work_without_their_table(clock: Clock) -> None:
    store, seen = MemoryStore(), list[str]()
    store.broken = True
    breakers = Breakers(store=store, clock=clock, observe=lambda event, fields: seen.append(event))

    await breakers.refresh()
    await trip(breakers)
    await settled(breakers)
    assert not await call(breakers)
    clock.now += 60.0
    assert await call(breakers)
    assert all([await call(breakers) for _ in range(5)])
    assert "breaker_store_failed" in seen


async def test_an_expired_entry_of_the_table_is_probed_and_not_believed_for_ever(clock: Clock) -> None:
    store = MemoryStore()
    store.items[f"{E}#{M}"] = SharedCircuit(f"{E}#{M}", clock.now - 500.0, 3, "failing")
    breakers = Breakers(store=store, clock=clock)
    await breakers.refresh(wait_s=5.0)

    assert await call(breakers)
    await settled(breakers)
    assert store.items == {}
