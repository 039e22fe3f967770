"""Circuit breakers, one for each endpoint and one for each model at each endpoint.

A circuit is closed (calls pass), open (none passes before `open_until`) or half open (one leased probe passes and
decides). State lives in memory. With a store it is shared between sandboxes, and written on transitions only: a healthy
system writes nothing. The states are those of M. Nygard, "Release It!", and the failure rate over a window is what
resilience4j calls a time-based sliding window.

Which outcome counts as what:

* failures of the model (5xx, time-outs, cut, garbled and empty answers) count towards its rate and its row;
* rate limits are counted apart, and a Retry-After is taken as the open time at once;
* refusals, requests that are wrong or too large, and truncated texts say that the model works;
* an endpoint's circuit opens on connections that cannot be made, on a row of failures over two models or more, and on
  401, 402 and 403, where no call can succeed before somebody acts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import uuid4

from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import AttemptFailed


@dataclass(frozen=True)
class BreakerPolicy:
    """When circuits open, and for how long. Times are in seconds."""

    consecutive: int = 5
    failure_rate: float = 0.5
    minimum_calls: int = 10
    window_s: float = 30.0
    rate_limited_consecutive: int = 3
    unreachable_consecutive: int = 3
    endpoint_consecutive: int = 8
    open_s: float = 5.0
    longest_open_s: float = 30.0
    longest_retry_after_s: float = 900.0
    account_open_s: float = 60.0
    unavailable_open_s: float = 300.0
    settled_after_s: float = 60.0
    """A circuit that stayed closed for so long starts from the shortest open time again."""
    probe_lease_s: float = 60.0
    """Longer than most attempts may take: a probe whose sandbox died must not keep the circuit open for ever."""
    shared_above_s: float = 2.0
    """Shorter open times are not worth a write: they are over before another sandbox reads of them."""
    refresh_s: float = 5.0
    """How old a sandbox's knowledge of the other sandboxes' circuits may grow while it is calling."""
    doubt_refresh_s: float = 0.25
    """The same for a circuit whose last call failed: then a sandbox looks before it calls again."""
    look_s: float = 0.1
    """How long a call in doubt waits for what other sandboxes know: a read takes a tenth of it."""
    suspected_after: int = 2
    """Failures in a row after which a sandbox writes down its suspicion. One alone is everyday life."""
    suspecting_sandboxes: int = 3
    """Sandboxes whose suspicions together open a circuit: many that call seldom see what none would see alone."""


@dataclass(frozen=True)
class SharedCircuit:
    """A circuit that some sandbox opened, as the store holds it. Times are epoch seconds."""

    circuit: str
    open_until: float
    level: int
    reason: str


class BreakerStore(Protocol):
    """Where sandboxes share their circuits. The methods block, and are called in threads."""

    def read(self) -> Iterable[SharedCircuit]:
        """Return every circuit that is not closed."""

    def open(self, circuit: SharedCircuit, now: float) -> None:
        """Write down that a circuit opened, unless it is already open for longer."""

    def suspect(self, circuit: str, owner: str, now: float, window_s: float) -> int:
        """Write down that a sandbox suspects a circuit, and return how many did within the window."""

    def lease(self, circuit: str, owner: str, now: float, lease_s: float) -> bool:
        """Take the one probe of a half-open circuit; False if somebody else holds it or the circuit is open."""

    def close(self, circuit: str, owner: str) -> None:
        """Forget the circuit, if `owner` still holds its probe."""


T = TypeVar("T")
Observer = Callable[[str, Mapping[str, object]], None]
TimeSource = Callable[[], float]


class _Window:
    """Successes and failures of the last seconds, in ten slices."""

    __slots__ = ("_slice_s", "_slices", "bad", "good")

    def __init__(self, seconds: float) -> None:
        self._slice_s = seconds / 10
        self._slices: deque[list[int]] = deque()
        self.good = 0
        self.bad = 0

    def add(self, failed: bool, now: float) -> None:
        current = int(now / self._slice_s)
        slices = self._slices
        while slices and slices[0][0] <= current - 10:
            _, good, bad = slices.popleft()
            self.good -= good
            self.bad -= bad
        if not slices or slices[-1][0] != current:
            slices.append([current, 0, 0])
        if failed:
            slices[-1][2] += 1
            self.bad += 1
        else:
            slices[-1][1] += 1
            self.good += 1

    def clear(self) -> None:
        self._slices.clear()
        self.good = self.bad = 0


class CircuitBreaker:
    """One circuit, in memory."""

    __slots__ = (
        "_failed_models",
        "_policy",
        "_row",
        "_row_rate_limited",
        "_row_unreachable",
        "_window",
        "changed_at",
        "generation",
        "is_endpoint",
        "level",
        "name",
        "open_until",
        "opened",
        "probe_until",
        "reason",
        "shared",
    )

    def __init__(self, name: str, policy: BreakerPolicy, *, is_endpoint: bool) -> None:
        self.name = name
        self.is_endpoint = is_endpoint
        self.opened = False
        self.open_until = 0.0
        self.probe_until = 0.0
        self.reason = ""
        self.level = 0
        self.generation = 0
        self.changed_at = float("-inf")
        self.shared = False
        self._policy = policy
        self._window = _Window(policy.window_s)
        self._row = 0
        self._row_rate_limited = 0
        self._row_unreachable = 0
        self._failed_models: set[str] = set()

    def blocked_until(self) -> float:
        """Return the moment up to which no call passes, which is in the past for a circuit that lets one through."""
        return max(self.open_until, self.probe_until) if self.opened else 0.0

    def open(self, until: float, reason: str, now: float, *, level: int | None = None) -> None:
        """Open the circuit until `until`."""
        self.opened = True
        self.open_until = until
        self.probe_until = 0.0
        self.reason = reason
        self.generation += 1
        self.changed_at = now
        if level is not None:
            self.level = level
        self._forget()

    def close(self, now: float) -> None:
        """Close the circuit; how often it opened lately is remembered until it settled."""
        self.opened = False
        self.open_until = self.probe_until = 0.0
        self.reason = ""
        self.shared = False
        self.generation += 1
        self.changed_at = now
        self._forget()

    def _forget(self) -> None:
        self._window.clear()
        self._row = self._row_rate_limited = self._row_unreachable = 0
        self._failed_models.clear()

    @property
    def in_doubt(self) -> bool:
        """Whether the last call failed, and the circuit is still closed."""
        return self._row > 0 and not self.opened

    @property
    def failures_in_row(self) -> int:
        """How many calls failed since the last answer."""
        return self._row

    def succeeded(self, now: float) -> None:
        """Count an answer."""
        self._row = self._row_rate_limited = self._row_unreachable = 0
        if self._failed_models:
            self._failed_models.clear()
        if not self.is_endpoint:
            self._window.add(False, now)
        if self.level and now - self.changed_at > self._policy.settled_after_s:
            self.level = 0

    def failed(self, failure: AttemptFailed, model: str, now: float) -> tuple[float, str] | None:
        """Count a failure; return the open time in seconds and the reason if it trips the circuit."""
        if self.is_endpoint:
            return self._endpoint_failed(failure, model)
        return self._model_failed(failure, now)

    def _endpoint_failed(self, failure: AttemptFailed, model: str) -> tuple[float, str] | None:
        policy = self._policy
        if failure.error_class is ErrorClass.ACCOUNT:
            return policy.account_open_s, "account"
        if not failure.error_class.unhealthy:
            self._row = self._row_unreachable = 0
            self._failed_models.clear()
            return None
        self._row += 1
        self._failed_models.add(model)
        self._row_unreachable = self._row_unreachable + 1 if failure.unreachable else 0
        if self._row_unreachable >= policy.unreachable_consecutive:
            return self._open_s(), "unreachable"
        if self._row >= policy.endpoint_consecutive and len(self._failed_models) >= 2:
            return self._open_s(), "failing"
        return None

    def _model_failed(self, failure: AttemptFailed, now: float) -> tuple[float, str] | None:
        policy = self._policy
        asked = failure.retry_after_s
        if failure.error_class is ErrorClass.RATE_LIMITED:
            self._row_rate_limited += 1
            if asked:
                return min(asked, policy.longest_retry_after_s), "retry_after"
            if self._row_rate_limited >= policy.rate_limited_consecutive:
                return self._open_s(), "rate_limited"
            return None
        if failure.error_class is ErrorClass.UNAVAILABLE:
            return policy.unavailable_open_s, "unavailable"
        if not failure.error_class.unhealthy:
            return None
        self._row += 1
        self._window.add(True, now)
        if asked:
            return min(asked, policy.longest_retry_after_s), "retry_after"
        calls = self._window.good + self._window.bad
        if self._row >= policy.consecutive or (
            calls >= policy.minimum_calls and self._window.bad >= policy.failure_rate * calls
        ):
            return self._open_s(), "failing"
        return None

    def again(self) -> tuple[float, str]:
        """Return the open time in seconds and the reason where no single failure names them."""
        return self._open_s(), "failing" if self.reason in ("", "retry_after") else self.reason

    def _open_s(self) -> float:
        seconds = min(self._policy.open_s * 2.0**self.level, self._policy.longest_open_s)
        # Sandboxes that tripped together must not come back together.
        return seconds * random.uniform(0.8, 1.2)  # noqa: S311


_LOST_LEASE_S = 1.0
_PROBE_LOOK_S = 0.1
"""How soon to look again while another call's probe is under way: it takes about as long as any call."""


@dataclass(frozen=True)
class Blocked:
    """A model cannot be called for the next `wait_s` seconds."""

    wait_s: float
    reason: str
    probing: bool = False
    """Whether another call's probe is under way, which `wait_s` does not foresee the end of."""

    @property
    def rate_limited(self) -> bool:
        """Whether the endpoint named the time, so that the model is expected to work after it."""
        return self.reason in ("retry_after", "rate_limited")


class Admission:
    """Leave to make one call. Hand it back through `Breakers.settle` or `Breakers.abandon`, exactly once."""

    __slots__ = ("_endpoint", "_endpoint_generation", "_model", "_model_generation", "probes")

    def __init__(self, endpoint: CircuitBreaker, model: CircuitBreaker, probes: tuple[CircuitBreaker, ...]) -> None:
        self._endpoint = endpoint
        self._model = model
        self._endpoint_generation = endpoint.generation
        self._model_generation = model.generation
        self.probes = probes

    def circuits(self) -> list[CircuitBreaker]:
        """Return the circuits that are still as they were when the call began: only those does its outcome concern."""
        current = []
        if self._endpoint.generation == self._endpoint_generation:
            current.append(self._endpoint)
        if self._model.generation == self._model_generation:
            current.append(self._model)
        return current


class Breakers:
    """All circuits of a sandbox, shared with the other sandboxes if there is a store."""

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        store: BreakerStore | None = None,
        clock: TimeSource = time.time,
        observe: Observer | None = None,
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self._store = store
        self._clock = clock
        self._observe = observe or (lambda event, fields: None)
        self._circuits: dict[str, CircuitBreaker] = {}
        self._owner = uuid4().hex
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    def circuit(self, endpoint: str, model: str | None = None) -> CircuitBreaker:
        """Return the circuit of an endpoint, or of a model at it."""
        name = endpoint if model is None else f"{endpoint}#{model}"
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = CircuitBreaker(name, self.policy, is_endpoint=model is None)
        return circuit

    def blocked(self, endpoint: str, model: str) -> Blocked | None:
        """Return why, and for how long, a model cannot be called at an endpoint; None if it can."""
        now = self._clock()
        worst: CircuitBreaker | None = None
        for circuit in (self.circuit(endpoint), self.circuit(endpoint, model)):
            if circuit.blocked_until() > now and (worst is None or circuit.blocked_until() > worst.blocked_until()):
                worst = circuit
        if worst is None:
            return None
        if worst.open_until <= now:
            return Blocked(min(_PROBE_LOOK_S, worst.probe_until - now), worst.reason, probing=True)
        return Blocked(worst.open_until - now, worst.reason)

    async def admit(self, endpoint: str, model: str) -> Admission | None:
        """Return leave to call the model at the endpoint, or None while a circuit is open or its probe is taken."""
        circuits = (self.circuit(endpoint), self.circuit(endpoint, model))
        if self._store is not None and circuits[1].in_doubt:
            await self._look_again()
        if not circuits[0].opened and not circuits[1].opened:
            return Admission(*circuits, probes=())
        now = self._clock()
        if any(circuit.blocked_until() > now for circuit in circuits):
            return None
        probes = tuple(circuit for circuit in circuits if circuit.opened)
        for circuit in probes:  # at once, before anything is awaited: the other calls of this loop must see it
            circuit.probe_until = now + self.policy.probe_lease_s
        leased = False
        try:
            leased = all([await self._lease(circuit, now) for circuit in probes])
        finally:
            if not leased:
                for circuit in probes:
                    circuit.probe_until = 0.0
        if not leased:
            # Somebody else probes; look again when his result may be there.
            for circuit in probes:
                circuit.open_until = max(circuit.open_until, now + _LOST_LEASE_S)
            return None
        return Admission(*circuits, probes=probes)

    async def _look_again(self) -> None:
        now = self._clock()
        if self._writing:
            await asyncio.wait(self.pending(), timeout=self.policy.look_s)
        if now - self._read_at >= self.policy.doubt_refresh_s or (self._reading and not self._reading.done()):
            await asyncio.wait({self._refresh(now)}, timeout=self.policy.look_s)

    async def _lease(self, circuit: CircuitBreaker, now: float) -> bool:
        if self._store is None or not circuit.shared:
            return True
        leased = await self._in_thread(self._store.lease, circuit.name, self._owner, now, self.policy.probe_lease_s)
        return leased is not False  # a store that cannot be reached must not keep the circuit open

    def settle(self, admission: Admission, model: str, failure: AttemptFailed | None) -> None:
        """Count the outcome of an admitted call: None for an answer."""
        now = self._clock()
        for circuit in admission.circuits():
            if circuit in admission.probes:
                self._probed(circuit, model, failure, now)
            elif not circuit.opened:
                self._counted(circuit, model, failure, now)

    def abandon(self, admission: Admission) -> None:
        """Take back an admission whose call, cancelled or cut short by its deadline, says nothing about the model."""
        for circuit in admission.circuits():
            if circuit in admission.probes:
                circuit.probe_until = 0.0

    def _counted(self, circuit: CircuitBreaker, model: str, failure: AttemptFailed | None, now: float) -> None:
        if failure is None:
            circuit.succeeded(now)
            return
        tripped = circuit.failed(failure, model, now)
        if tripped is not None:
            self._open(circuit, *tripped, now)
        elif self._store is not None and failure.error_class.unhealthy and not circuit.is_endpoint:
            if circuit.failures_in_row == self.policy.suspected_after:
                self._spawn(self._suspect(circuit, now))
            else:
                self._refresh(now)  # another sandbox may already know

    def _probed(self, circuit: CircuitBreaker, model: str, failure: AttemptFailed | None, now: float) -> None:
        if failure is not None and self._still_broken(circuit, failure):
            seconds, reason = circuit.failed(failure, model, now) or circuit.again()
            self._open(circuit, seconds, reason, now)
            return
        self._close(circuit, now)

    @staticmethod
    def _still_broken(circuit: CircuitBreaker, failure: AttemptFailed) -> bool:
        if not circuit.is_endpoint:
            return failure.error_class.unhealthy or failure.error_class in (
                ErrorClass.RATE_LIMITED,
                ErrorClass.UNAVAILABLE,
            )
        if failure.error_class is ErrorClass.ACCOUNT or failure.unreachable:
            return True
        # An HTTP answer, whichever, proves a connection and a key: only a row of failures is not disproved by another.
        return circuit.reason == "failing" and failure.error_class.unhealthy

    def _open(self, circuit: CircuitBreaker, seconds: float, reason: str, now: float) -> None:
        grows = reason in ("failing", "unreachable", "rate_limited")  # the others' open times are given
        circuit.open(now + seconds, reason, now, level=min(circuit.level + grows, 16))
        self._observe("circuit_opened", {"circuit": circuit.name, "reason": reason, "open_s": round(seconds, 3)})
        if self._store is not None and seconds >= self.policy.shared_above_s:
            circuit.shared = True
            shared = SharedCircuit(circuit.name, circuit.open_until, circuit.level, reason)
            self._write(self._store.open, shared, now)

    def _close(self, circuit: CircuitBreaker, now: float) -> None:
        shared = circuit.shared
        circuit.close(now)
        self._observe("circuit_closed", {"circuit": circuit.name})
        if self._store is not None and shared:
            self._write(self._store.close, circuit.name, self._owner)

    async def refresh(self, *, wait_s: float = 0.3) -> None:
        """Learn what the other sandboxes opened and closed, if that was not done lately.

        Only a sandbox's first call waits for it (no longer than `wait_s`); later ones read in the background.
        """
        if self._store is None:
            return
        now = self._clock()
        if now - self._read_at < self.policy.refresh_s:
            return
        first = self._read_at == float("-inf")
        task = self._refresh(now)
        if first:
            await asyncio.wait({task}, timeout=wait_s)

    def _refresh(self, now: float) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done() or self._reading.get_loop() is not asyncio.get_running_loop():
            self._read_at = now
            self._reading = asyncio.get_running_loop().create_task(self._read(now))
        return self._reading

    async def _read(self, started: float) -> None:
        assert self._store is not None
        circuits = await self._in_thread(self._store.read)
        if circuits is None:
            return
        now = self._clock()
        current = {shared.circuit: shared for shared in circuits}
        for shared in current.values():
            endpoint, _, model = shared.circuit.partition("#")
            circuit = self.circuit(endpoint, model or None)
            if circuit.changed_at >= started or (circuit.opened and circuit.open_until >= shared.open_until):
                continue
            if circuit.probe_until > now:
                continue
            circuit.open(shared.open_until, shared.reason, now, level=max(circuit.level, shared.level))
            circuit.shared = True
        for circuit in self._circuits.values():
            if circuit.shared and circuit.opened and circuit.changed_at < started and circuit.name not in current:
                circuit.close(now)

    async def _suspect(self, circuit: CircuitBreaker, now: float) -> None:
        assert self._store is not None
        generation = circuit.generation
        suspecting = await self._in_thread(self._store.suspect, circuit.name, self._owner, now, self.policy.window_s)
        if suspecting is None or circuit.generation != generation or circuit.opened:
            return
        if suspecting >= self.policy.suspecting_sandboxes:
            self._open(circuit, *circuit.again(), self._clock())
        else:
            await self._read(now)

    def _write(self, write: Callable[..., None], *arguments: object) -> None:
        async def in_thread() -> None:
            await self._in_thread(write, *arguments)

        self._spawn(in_thread())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T | None:
        try:
            return await asyncio.to_thread(call, *arguments)
        except Exception as error:  # whatever the store's client raises: circuits work without it
            self._observe("breaker_store_failed", {"error": type(error).__name__})
            return None

    def pending(self) -> set[asyncio.Task[None]]:
        """Return the writes that are under way on this loop."""
        if not self._writing:
            return set()
        loop = asyncio.get_running_loop()
        return {task for task in self._writing if task.get_loop() is loop}

    @property
    def shared(self) -> bool:
        """Whether there is a store."""
        return self._store is not None
