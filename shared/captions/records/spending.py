"""What a stack's models cost, and what its cache saved, from its records."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from captions.cost import Cost
from captions.records.attempts import calls
from captions.records.record import Record

By = Literal["day", "model", "tier", "task", "prefix", "experiment"]
NONE = "-"
"""What stands where a record says nothing: no model was called, no task was found."""


@dataclass
class Spending:
    """What some uploads cost and saved; what is unknown is counted beside the sums, never taken for zero."""

    uploads: int = 0
    calls: int = 0
    cost: Cost = field(default_factory=Cost)
    cost_unknown: int = 0
    """Calls whose cost is not known in full: the model has no published price, and its answer named none."""
    copied: int = 0
    saved: Cost = field(default_factory=Cost)
    """A copied caption of which nothing is known counts as one call that nobody counted."""
    saved_unknown: int = 0
    """Copied captions of which it is not known in full what they had cost."""
    saved_by_batches: Cost = field(default_factory=Cost)
    """What lines of batches would have cost by themselves, beyond what they cost."""

    def add(self, other: "Spending") -> None:
        """Add another's sums to these."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """As JSON: dollars as decimal text, null where nothing of a sum is known; and the tokens that lack a price."""
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            values[name] = value
            if isinstance(value, Cost):
                values[name] = format(value.dollars, "f") if value.dollars or value.exact is not None else None
                values[f"{name}_unpriced_tokens"] = value.unpriced_tokens
        return values


def spending(records: Iterable[Record], by: By) -> tuple[list[tuple[str, Spending]], Spending]:
    """Add up records by day of their end (UTC), model, tier, task, first folder or experiment; return groups and total.

    By model and by tier, an upload counts once with each that it called.
    """
    groups: dict[str, Spending] = defaultdict(Spending)
    total = Spending()
    for record in records:
        for name, part in _parts(record, by):
            groups[name].add(part)
        total.add(_whole(record))
    newest_first = by == "day"
    return sorted(groups.items(), reverse=newest_first), total


def _parts(record: Record, by: By) -> Iterator[tuple[str, Spending]]:
    whole = _whole(record)
    if by == "day":
        yield (record.completed_at or record.updated_at)[:10] or NONE, whole
    elif by == "task":
        yield (record.result.task if record.result else NONE), whole
    elif by == "experiment":
        provenance = record.provenance
        taking_part = provenance is not None and provenance.experiment is not None
        yield (f"{provenance.experiment} {provenance.arm}" if provenance and taking_part else NONE), whole
    elif by == "prefix":
        folder, slash, _ = record.key.partition("/")
        yield (folder + slash if slash else NONE), whole
    else:
        yield from _by_call(record, whole, by)


def _by_call(record: Record, whole: Spending, by: Literal["model", "tier"]) -> Iterator[tuple[str, Spending]]:
    parts: dict[str, Spending] = {}
    # Sums of older calls name no tier: theirs is that of the answer.
    tier = record.provenance.tier if record.provenance is not None and by == "tier" else None
    for call in calls_of(record):
        _add_call(parts.setdefault(str(call.get(by) or tier or NONE), Spending(uploads=1)), call)
    if record.superseded_calls or record.superseded_cost is not None:
        _add_superseded(parts.setdefault(NONE, Spending(uploads=0 if parts else 1)), record)
    if not parts or whole.copied:
        copied = parts.setdefault(NONE, Spending(uploads=0 if parts else 1))
        copied.copied, copied.saved, copied.saved_unknown = whole.copied, whole.saved, whole.saved_unknown
    yield from parts.items()


def _whole(record: Record) -> Spending:
    spending = Spending(uploads=1)
    for call in calls_of(record):
        _add_call(spending, call)
    _add_superseded(spending, record)
    if record.source == "cache" and record.provenance is not None:
        spending.copied = 1
        spending.saved = record.provenance.spared or Cost(uncounted_calls=1)
        spending.saved_unknown = int(spending.saved.exact is None)
    return spending


def _add_superseded(to: Spending, record: Record) -> None:
    """Add what versions took that were replaced since; of them the record holds sums only."""
    to.calls += record.superseded_calls
    to.cost_unknown += record.superseded_unknown
    to.cost += record.superseded


def _add_call(to: Spending, call: Mapping[str, Any]) -> None:
    number = calls(call)
    to.calls += number
    cost = Cost.of_call(call)
    to.cost += cost
    to.cost_unknown += number if cost.exact is None else 0
    to.saved_by_batches += Cost.read(call, "saved") or Cost()


def calls_of(record: Record) -> Sequence[Mapping[str, Any]]:
    """Every call that is written down, whether it answered or not; one that was refused cost zero, and says so."""
    provenance = record.provenance
    # Where there are attempts beside a provenance, they begin with its own: it is captioned again, or was.
    return record.attempts or (provenance.attempts if provenance else ())
