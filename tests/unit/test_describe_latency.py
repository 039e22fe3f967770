"""The latencies the local endpoint draws."""

from __future__ import annotations

import pytest

from captions.gateway.catalogue import Latency
from captions_cli.local.model_endpoint.serving import drawn_seconds

MEASURED = Latency(p50=0.72, p99=2.1)


def test_they_follow_the_measured_percentiles() -> None:
    drawn = sorted(drawn_seconds(MEASURED, f"7/model/{nth}") for nth in range(20_000))
    assert drawn[10_000] == pytest.approx(MEASURED.p50, rel=0.03)
    assert drawn[19_800] == pytest.approx(MEASURED.p99, rel=0.1)


def test_they_are_the_same_for_the_same_seed_and_never_over_the_longest() -> None:
    bounded = Latency(p50=3.1, p99=8.2, longest=9.0)
    drawn = [drawn_seconds(bounded, str(nth)) for nth in range(5_000)]
    assert drawn == [drawn_seconds(bounded, str(nth)) for nth in range(5_000)]
    assert max(drawn) == bounded.longest
