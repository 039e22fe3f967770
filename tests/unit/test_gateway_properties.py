"""Whatever happens, in whatever order: a call's plan ends, and a circuit never lets two probes through."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from captions.gateway import Breakers, Endpoint, ErrorClass, GatewayError, Request
from captions.gateway.catalogue import load
from captions.gateway.errors import AttemptFailed
from captions.gateway.fallback import Plan
from captions.gateway.requests import MessageParts

CATALOGUE = load()
ENDPOINTS = [Endpoint("http://a/v1"), Endpoint("http://b/v1")]
CHATTING = sorted(name for name, model in CATALOGUE.models.items() if model.chats)
FINAL = {ErrorClass.ACCOUNT, ErrorClass.UNAVAILABLE, ErrorClass.REFUSED, ErrorClass.UNFIT, ErrorClass.OURS}


@given(
    chain=st.lists(st.sampled_from(CHATTING), min_size=1, max_size=5),
    errors=st.lists(st.sampled_from(list(ErrorClass)), min_size=200, max_size=200),
)
@settings(deadline=None, max_examples=200)
def test_a_plan_tries_each_candidate_before_it_repeats_one_and_ends_with_an_error(
    chain: list[str], errors: list[ErrorClass]
) -> None:
    request = Request("", "What is this?")
    plan = Plan.of(request, chain, ENDPOINTS, CATALOGUE.served, MessageParts(request))

    for error in errors:
        order = plan.in_order()
        if not order:
            assert isinstance(plan.last_error(), GatewayError)
            return
        assert order[0].tries == min(candidate.tries for candidate in order)
        assert all(candidate.out is None for candidate in order)
        tried = order[0]
        plan.failed(tried, AttemptFailed(error))
        assert tried.tries > 0
        if error in FINAL:
            assert tried not in plan.in_order()
    assert plan.in_order()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    steps=st.lists(
        st.one_of(
            st.sampled_from(["admit", "answer", "abandon"]),
            st.sampled_from([e for e in ErrorClass if e is not ErrorClass.DEADLINE]),
            st.floats(min_value=0.0, max_value=40.0),
        ),
        max_size=80,
    )
)
@settings(deadline=None, max_examples=200)
def test_an_open_circuit_lets_one_probe_through_and_a_closed_one_everything(
    steps: list[str | ErrorClass | float],
) -> None:
    asyncio.run(walk(steps))


async def walk(steps: list[str | ErrorClass | float]) -> None:
    clock = Clock()
    breakers = Breakers(clock=clock)
    under_way = []
    for step in steps:
        if isinstance(step, float):
            clock.now += step
        elif step == "admit":
            circuits = (breakers.circuit("e"), breakers.circuit("e", "m"))
            was_open = [circuit for circuit in circuits if circuit.opened]
            admission = await breakers.admit("e", "m")
            if not was_open:
                assert admission is not None
                assert admission.probes == ()
            elif admission is not None:
                assert all(circuit.open_until <= clock.now for circuit in was_open)
                assert set(admission.probes) == set(was_open)
                assert await breakers.admit("e", "m") is None
            if admission is not None:
                under_way.append(admission)
        elif under_way:
            admission = under_way.pop(0)
            if step == "abandon":
                breakers.abandon(admission)
            else:
                breakers.settle(admission, "m", AttemptFailed(step) if isinstance(step, ErrorClass) else None)
    clock.now += 2_000.0
    for admission in under_way:
        breakers.abandon(admission)
    last = await breakers.admit("e", "m")
    assert last is not None
    breakers.settle(last, "m", None)
    assert breakers.blocked("e", "m") is None
