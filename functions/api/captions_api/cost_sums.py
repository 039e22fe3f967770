"""What many uploads cost and saved, added up page by page, so that no request reads more than it has time for."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from captions.config.policy import Policy
from captions.cost import Cost
from captions.gateway.catalogue import Catalogue, Model
from captions.records.cost_comparison import compared
from captions.records.record import Record
from captions.records.spending import By, Spending, spending

MOST_ROWS = 1_000
"""Rows that are kept apart: those that are met first, the newest. What others cost is exact in one row for all."""
OTHERS = "*"
"""The name of that row."""
LOCAL = "local/"
"""How the names begin that the models of the local stack's own endpoint report."""


@dataclass
class CostSums:
    """Sums of all uploads that were looked at so far; `baseline` is None where no model is compared with."""

    rows: dict[str, Spending] = field(default_factory=dict)
    total: Spending = field(default_factory=Spending)
    saved_by_tiers: Cost = field(default_factory=Cost)
    cost_of_fallback: Cost = field(default_factory=Cost)
    baseline: Cost | None = None
    simulated: bool = False
    """Whether the local endpoint's models gave some of the answers: what these cost, nobody paid."""
    back_to: str | None = None
    """When the last of them ended, ISO 8601."""

    def add(self, records: Sequence[Record], by: By, rules: Policy, catalogue: Catalogue, alone: Model | None) -> None:
        """Add uploads that were not looked at before, newest first; `alone` is the one model that is compared with."""
        if records:
            self.back_to = records[-1].completed_at
        provenances = (record.provenance for record in records)
        self.simulated |= any(
            provenance is not None and (provenance.reported_model or "").startswith(LOCAL) for provenance in provenances
        )
        groups, total = spending(records, by)
        for name, part in groups:
            row = name if name in self.rows or len(self.rows) < MOST_ROWS else OTHERS
            self.rows.setdefault(row, Spending()).add(part)
        self.total.add(total)
        beside = compared(records, rules, catalogue, alone)
        self.saved_by_tiers += beside.saved_by_tiers
        self.cost_of_fallback += beside.cost_of_fallback
        if beside.baseline is not None:
            self.baseline = (self.baseline or Cost()) + beside.baseline

    def stored(self) -> bytes:
        """Return the sums for whoever goes on from them."""
        return zlib.compress(_SUMS.dump_json(self))

    @classmethod
    def read(cls, stored: bytes) -> CostSums:
        """Read what `stored` returned."""
        return _SUMS.validate_json(zlib.decompress(stored))


_SUMS = TypeAdapter(CostSums)
