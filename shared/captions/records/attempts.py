"""The ledger of an upload's model calls: what is kept of them, their sums, and what they cost."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any

from captions.cost import Cost
from captions.records.record import Recaption, Record

MAX_ATTEMPTS_KEPT = 60
"""Model calls kept one by one in a record, older ones as sums; an item holds 400 KB (Amazon DynamoDB, quotas)."""

MAX_ATTEMPTS_BYTES = 16_000
"""Of the calls kept one by one, as JSON; sums take as much at the most."""

MAX_SUMS = 20
"""Sums of older calls in one record."""

MAX_CALL_IDS = 1_000
"""Ids of calls in sums, by which a repeated call is recognised: twice the parts of the longest recording, cut for a
model that hears 30 seconds. Beyond that, a call of a part that is still kept apart (captions.inference.part_store) may
count twice."""

MAX_SUPERSEDED_IDS_BYTES = 8_000
"""Of the ids of calls for replaced versions. Older ones go: their workers' leases are over."""

SEVERAL_MODELS = "-"
"""In a sum's place for the model, where sums of one model each would be too many."""

_CALL_ID_CHARACTERS = 8


class CallLedger:
    """The calls made for one upload: those that its record held when a delivery began, and those made since, each once.

    It is passed down to whoever calls a model and takes a call as soon as that ends, so that neither an answer nor an
    error has to carry what was paid. `above` is the ledger of the whole that this one is about a part of.
    """

    def __init__(self, held: Iterable[Mapping[str, Any]] = (), *, above: "CallLedger | None" = None) -> None:
        self._held = tuple(map(dict, held))
        self._known = call_ids(self._held)
        self._made: dict[str, dict[str, Any]] = {}
        self._above = above

    def add(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Take calls; one that is known already is not another one."""
        new = [dict(call) for call in calls]
        self._made |= {name: call for call in new if (name := call_id(call)) not in self._known}
        if self._above is not None:
            self._above.add(new)

    @property
    def made(self) -> tuple[dict[str, Any], ...]:
        """The calls that the record did not hold, in the order they ended."""
        return tuple(self._made.values())

    def unknown_to(self, record: Record, sequencer: str) -> tuple[dict[str, Any], ...]:
        """Return the calls made for a version that its record, as it was read, does not account for."""
        known = accounted(record, sequencer)
        return tuple(call for name, call in self._made.items() if name not in known)

    @property
    def kept(self) -> tuple[dict[str, Any], ...]:
        """All calls, as far as a record has room for them one by one."""
        return kept((*self._held, *self._made.values()))


def cost(attempts: Iterable[Mapping[str, Any]]) -> Cost:
    """Add up what attempts cost; zero for no attempts."""
    return Cost.sum(map(Cost.of_call, attempts))


def paid(attempts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a `Provenance` that tell these attempts and what they cost."""
    return {"attempts": tuple(attempts), **cost(attempts).pair()}


def paid_since(attempts: Sequence[Mapping[str, Any]], recaption: Recaption | None) -> Cost:
    """Return what attempts cost without those before the upload was sent on its way once more."""
    before = Cost.read(recaption.model_dump(), "paid") if recaption is not None else None
    return cost(attempts) - (before or Cost())


def totals(attempts: Sequence[Mapping[str, Any]]) -> tuple[Decimal, int, int, int, int]:
    """Add up attempts: dollars as far as known, calls, those of unknown cost, of these the counted, unpriced tokens."""
    sums, made, unknown = Cost(), 0, 0
    for attempt in attempts:
        spent = Cost.of_call(attempt)
        sums += spent
        made += calls(attempt)
        unknown += calls(attempt) if spent.exact is None else 0
    return sums.dollars, made, unknown, unknown - sums.uncounted_calls, sums.unpriced_tokens


def kept(attempts: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Keep as many attempts as a record has room for, newest last, behind sums of the older ones.

    Those that cost nothing are summed first, then the oldest. A sum (it has `calls`) stands for the calls of one model,
    those of unknown cost apart: their number, outcomes, tokens, milliseconds and dollars, exactly.
    """
    sums = [attempt for attempt in attempts if "calls" in attempt]
    single = [attempt for attempt in attempts if "calls" not in attempt]
    sizes = [len(json.dumps(attempt, default=str, ensure_ascii=False).encode()) for attempt in single]
    number, size = len(single), sum(sizes)
    folded: set[int] = set()
    for index in sorted(range(len(single)), key=lambda index: single[index].get("cost") != "0"):
        if number <= MAX_ATTEMPTS_KEPT and size <= MAX_ATTEMPTS_BYTES:
            break
        folded.add(index)
        number, size = number - 1, size - sizes[index]
    if folded:
        sums = _summed([*sums, *(single[index] for index in sorted(folded))])
    return (*sums, *(attempt for index, attempt in enumerate(single) if index not in folded))


def _summed(attempts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for attempt in attempts:
        model = str(attempt.get("model") or SEVERAL_MODELS)
        known = attempt.get("cost") is not None
        if (model, known) not in groups and len(groups) >= MAX_SUMS - 2:
            model = SEVERAL_MODELS
        groups.setdefault((model, known), []).append(attempt)
    return [_sum(model, group, MAX_CALL_IDS // len(groups)) for (model, _), group in groups.items()]


def _sum(model: str, attempts: Sequence[Mapping[str, Any]], ids: int) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for attempt in attempts:
        outcomes.update(attempt.get("outcomes") or {str(attempt.get("outcome") or "unknown"): 1})
    known = "".join(attempt["ids"] if "calls" in attempt else call_id(attempt) for attempt in attempts)
    begun = [str(attempt["started_at"]) for attempt in attempts if attempt.get("started_at")]
    saved = [part for attempt in attempts if (part := Cost.read(attempt, "saved")) is not None]
    folded: dict[str, Any] = {
        "model": model,
        "calls": sum(calls(attempt) for attempt in attempts),
        "outcomes": dict(outcomes),
        "latency_ms": sum(int(attempt.get("latency_ms") or 0) for attempt in attempts),
        **cost(attempts).fields(),
        **(Cost.sum(saved).fields("saved") if saved else {}),
        "started_at": min(begun, default=None),
        "ids": known[-ids * _CALL_ID_CHARACTERS :],
    }
    for name in ("prompt_tokens", "completion_tokens"):
        tokens = [int(attempt[name]) for attempt in attempts if attempt.get(name) is not None]
        folded[name] = sum(tokens) if tokens else None
    return {name: value for name, value in folded.items() if value is not None}


def calls(attempt: Mapping[str, Any]) -> int:
    """Return how many calls an attempt stands for, as records hold it: one, or those of a sum."""
    return int(attempt.get("calls", 1))


def call_id(attempt: Mapping[str, Any]) -> str:
    """Return what tells a call from others of its upload: 48 bits of a digest of when it began, its model, its host."""
    named = json.dumps([attempt.get(name) for name in ("started_at", "model", "endpoint")])
    return base64.urlsafe_b64encode(hashlib.sha256(named.encode()).digest()[:6]).decode()


def call_ids(attempts: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the ids of all calls that attempts stand for, of sums those of the newest calls (MAX_CALL_IDS)."""
    return frozenset(
        name for attempt in attempts for name in _cut(attempt["ids"] if "calls" in attempt else call_id(attempt))
    )


def named(sequencer: str, attempts: Iterable[Mapping[str, Any]]) -> str:
    """Return one text that tells which calls were made for a version: two versions' calls of one batch look alike."""
    return f"{sequencer.rstrip('0')}:{''.join(sorted(call_ids(attempts)))}"


def accounted(record: Record, sequencer: str) -> frozenset[str]:
    """Return the ids of a version's calls that its record accounts for, wherever it holds them."""
    own = (*record.attempts, *(record.provenance.attempts if record.provenance else ()))
    held = call_ids(own) if record.sequencer == sequencer else frozenset()
    texts = (text.partition(":") for text in (*record.paid_ids, *record.superseded_ids))
    return held.union(*(_cut(ids) for version, _, ids in texts if version == sequencer.rstrip("0")))


def newest(texts: Sequence[str]) -> list[str]:
    """Return those of such texts, oldest first, that a record has room for; the last one always."""
    sizes = accumulate(map(len, reversed(texts)))
    room = sum(size <= MAX_SUPERSEDED_IDS_BYTES for size in sizes)
    return list(texts[-max(1, room) :])


def _cut(ids: str) -> Iterator[str]:
    return (ids[at : at + _CALL_ID_CHARACTERS] for at in range(0, len(ids), _CALL_ID_CHARACTERS))
