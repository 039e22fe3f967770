"""What Lambda takes is reckoned from CPU and from the calls that wait for one another."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from moto.core.botocore_stubber import BotocoreStubber

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cost_model
from cost_model import ASSUMED, Call, Taken, Taps, Usual, longest_chain, modelled

PRICES = json.loads((Path(__file__).parents[2] / "benchmarks" / "prices-us-east-1.json").read_text())


def call(name: str, start: float, end: float) -> Call:
    return Call(name, start, end)


def test_the_chain_is_the_sequence_without_an_overlap_that_takes_longest() -> None:
    calls = [
        call("dynamodb UpdateItem", 0.0, 1.0),
        call("s3 GetObject", 1.1, 2.0),
        *(call("dynamodb Query", 2.1 + number / 100, 3.0 + number / 100) for number in range(11)),  # side by side
        call("dynamodb PutItem", 3.2, 4.0),
        call("sqs SendMessage", 2.2, 5.0),  # at the same time, and slow
    ]
    names = [item.name for item in longest_chain(calls, lambda item: 1.0)]
    assert names == ["dynamodb UpdateItem", "s3 GetObject", "dynamodb Query", "dynamodb PutItem"]
    slow = [item.name for item in longest_chain(calls, lambda item: 9.0 if item.service == "sqs" else 1.0)]
    assert slow == ["dynamodb UpdateItem", "s3 GetObject", "sqs SendMessage"]
    assert longest_chain([], lambda item: 1.0) == []


def test_calls_side_by_side_are_seen_side_by_side_and_others_one_after_the_other() -> None:
    class Client:
        def _make_api_call(self, operation: str, arguments: dict[str, Any]) -> str:
            return operation

    client = Client()
    taps = Taps({"dynamodb": client})

    def work() -> None:
        client._make_api_call("First", {})
        threads = [threading.Thread(target=client._make_api_call, args=("Query", {})) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sum(range(200_000))  # works, and waits for nothing

    _, taken = taps.taken(work)
    assert len(taken.calls) == 6
    assert [item.name for item in longest_chain(taken.calls, lambda item: 1.0)] == ["dynamodb First", "dynamodb Query"]
    assert 0 < taken.cpu_s < cost_model.HELD_S * 6


def test_what_the_emulator_takes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    monkeypatch.setattr(BotocoreStubber, "__call__", busy)
    taps = Taps({})
    with taps.without_the_emulator():
        _, taken = taps.taken(lambda: BotocoreStubber.__call__(None))
    assert taken.cpu_s < 0.02
    assert BotocoreStubber.__call__ is busy


def test_waits_are_shared_by_the_uploads_of_an_invocation_and_cpu_is_not() -> None:
    item = Usual.of([Taken(0.1, (call("dynamodb Query", 0, 1), call("s3 GetObject", 2, 3)))] * 3)
    assert (item.cpu_s, item.calls, item.uploads, len(item.chain)) == (0.1, 2, 3, 2)

    def typical(name: str) -> float:
        return ASSUMED[name].typical

    alone = item.seconds(typical, overlap=1.0)
    assert alone == pytest.approx(0.1 * 1.2 + 2 * 0.0003 + 0.005 + 0.060)
    assert item.seconds(typical, overlap=5.0) == pytest.approx(alone - 0.065 * 4 / 5)
    assert item.seconds(typical, overlap=1.0, models=1) == pytest.approx(alone + 0.72)


def test_dollars_are_a_range_with_storage_by_share() -> None:
    dedupe = Usual(cpu_s=0.1, calls=10, chain=("dynamodb Query",), uploads=1)
    usual = {
        ("Dedupe", "new picture"): dedupe,
        ("Caption", "new picture"): dedupe,
        ("Dedupe", "copy in other bytes"): dedupe,
    }
    result = {"usual": usual, "stored_bytes": {"fingerprints": 20_000.0, "captions": 2_000.0}}

    def price(name: str, amount: float) -> float:
        return float(amount * PRICES[name]["dollars"] / PRICES[name]["per"])

    shares = {"new picture": 0.5, "copy in other bytes": 0.5}
    ranges = modelled(result, shares, {"Dedupe": 4.0, "Caption": 4.0}, price)

    for name in ("Lambda, Dedupe", "Lambda, Caption"):
        assert 0 < ranges["low"][name] < ranges["typical"][name] < ranges["high"][name]
    # Half a million pictures of 20 KB, for three months at $0.25.
    assert ranges["typical"]["storage of the index, 90 days"] == pytest.approx(10 * 0.25 * 3)
    assert ranges["low"]["storage of the records, 90 days"] == pytest.approx(2 * 0.25 * 3)


def test_less_memory_saves_what_is_waited_and_nothing_of_the_cpu() -> None:
    working = Usual(cpu_s=0.1, calls=0, chain=(), uploads=1)
    waiting = Usual(cpu_s=0.0, calls=0, chain=("s3 GetObject",), uploads=1)

    def cost(usual: Usual, megabytes: int, overlap: float = 1.0) -> float:
        result = {"usual": {("Dedupe", "new picture"): usual}}
        shares = {"new picture": 1.0}
        return cost_model.by_memory(result, shares, lambda _, amount: amount, megabytes=megabytes, overlap=overlap)

    assert cost(working, 1_024) == pytest.approx(cost(working, 2_048))
    assert cost(waiting, 1_024) == pytest.approx(cost(waiting, 2_048) / 2)
    assert cost(waiting, 2_048, overlap=8.0) == pytest.approx(cost(waiting, 2_048) / 8)


def test_every_assumption_is_a_range_with_its_reason_and_every_price_has_its_date() -> None:
    for assumed in ASSUMED.values():
        assert assumed.low < assumed.typical < assumed.high
        assert assumed.why
    for price in PRICES.values():
        assert not isinstance(price, dict) or (price["as_of"] and price["source"].startswith("https://"))
