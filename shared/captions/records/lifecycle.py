"""The ways of a record from one state to the next: where each may start, what it sets, what it clears.

Nothing else says so: `captions.records.table` writes by it, and a test takes every way from every state. Each but
`ACCEPT` and `DELETE` is decided on one version of the object, named by its sequencer, and is open to that one alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from captions.records.attention import ATTENTION
from captions.records.record import PENDING, State

PAID = ("paid", "paid_calls", "paid_unknown", "paid_counted", "paid_tokens")
"""The sums of a version's calls, written, and cleared, with every list of them."""
SUPERSEDED = (
    "superseded_cost", "superseded_calls", "superseded_unknown", "superseded_counted", "superseded_tokens",
)  # fmt: skip
"""What these are added to when another version comes: a single write that need not read them."""
PAID_IDS, SUPERSEDED_IDS = "paid_ids", "superseded_ids"
"""Which calls these sums are of (`captions.records.attempts.named`): a call is added to neither a second time."""
COPY = frozenset({"copy_of"})
"""What makes an item stand in the `copy_of` index, beside the end that every ended item has: which uploads took an
upload's caption, the newest first. A copy stands in it as long as its caption, or the model's answer beside a person's
words, is another one's (`Provenance.copied_from`); the index is made where there is an API to show it."""

Need = Literal[
    "newer version",
    "no version taken before its event",
    "unchanged since it was read",
    "no worker at it",
    "this worker at it",
    "first caption",
    "another caption",
    "no words about this version",
    "words about this version",
    "no calls of others",
]


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One way to change a record. What it clears goes, unless it is set; what it does not name stays."""

    name: str
    starts: tuple[State, ...] = PENDING
    """Empty: in every state, and where there is no record."""
    ends: tuple[State, ...] = ()
    """The state it leads to, or those that the caller chooses from; empty: it stays in its state."""
    needs: tuple[Need, ...] = ()
    sets: frozenset[str] = frozenset()
    """What may be set beside the state."""
    clears: frozenset[str] = frozenset()
    counts: str | None = None
    """A number that grows by one."""
    adds: tuple[tuple[str, str], ...] = ()
    """Pairs of a number that grows and the record's own number that it grows by."""
    joins: tuple[tuple[str, str], ...] = ()
    """Pairs of a list that grows and the record's own list that it grows by."""

    def given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of `values` is known, with the state it leads to.

        Raises ValueError where this transition sets no such thing.
        """
        known = {name: value for name, value in values.items() if value is not None}
        state = known.pop("state", self.ends[0] if len(self.ends) == 1 else None)
        if known.keys() - self.sets or state not in (self.ends or (None,)):
            raise ValueError(f"{self.name} sets no {sorted(known.keys() - self.sets)}, or leads to no {state}")
        return known if state is None else {"state": state, **known}


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


_OBJECT = _names("bucket", "key", "version_id", "sequencer")
_PLACE = _names("activity", "activity_at")
_MOVE = _PLACE | {"updated_at"}
_END = _MOVE | {"completed_at"}
_WHAT_IT_IS = _names("kind", "media_type", "claim", "content")
_TRIES = _names("lease_until", "sweeps", "begun")
_WORK = _TRIES | {"attempts", "reason", "recaption", "draft", "likeness"}
_ANSWERS = _names("result", "suggestion", "poster")

ACCEPT = Transition(
    name="accept",
    starts=(),
    ends=("received",),
    needs=("newer version", "no version taken before its event"),
    sets=_OBJECT | _MOVE | {"etag", "size", "received_at", "lane"},
    clears=_WORK | _ANSWERS | _WHAT_IT_IS | {"source", "provenance", "completed_at", "version_id", "lane"}
    | ATTENTION | COPY,
    adds=tuple(zip(SUPERSEDED, PAID, strict=True)),
    joins=((SUPERSEDED_IDS, PAID_IDS),),
)  # fmt: skip
"""An event of another version; what a person wrote stays, with what it was about."""
DELETE = Transition(
    name="delete",
    starts=(),
    ends=("deleted",),
    needs=("newer version",),
    sets=_OBJECT | _END | {"reason"},
    clears=_TRIES | _ANSWERS | {"recaption", "draft", "likeness", "version_id"} | ATTENTION | COPY,
)
"""An event that says the object is gone; what it cost stays."""
REOPEN = Transition(
    name="reopen",
    starts=("failed", "blocked"),
    ends=("received",),
    needs=("unchanged since it was read",),
    sets=_MOVE | {"received_at", "attempts"},
    clears=_TRIES | {"reason", "completed_at", "claim", "provenance"} | ATTENTION,
)
RECAPTION = Transition(
    name="recaption",
    starts=("captioned",),
    ends=("received",),
    needs=("unchanged since it was read",),
    sets=_MOVE | {"received_at", "attempts", "provenance", "recaption"},
    clears=_TRIES | {"reason", "lane"},
)
QUEUE = Transition(name="queue", ends=("queued",), sets=_MOVE | _WHAT_IT_IS | {"lane"})
"""A worker's lease stays, as the sweep may send an upload through dedupe that is being captioned."""
WAIT = Transition(
    name="wait", ends=("waiting",), sets=_MOVE | _WHAT_IT_IS | {"likeness"}, clears=_names("sweeps", "begun")
)
"""Who waits for a leader that is at work does not stand still."""
BEGIN = Transition(name="begin", needs=("no worker at it",), sets=_names("lease_until"), counts="begun")
NOTE = Transition(name="note", needs=("this worker at it",), sets=_names("updated_at", "attempts", "draft"))
RELEASE = Transition(
    name="release",
    needs=("this worker at it",),
    sets=_MOVE | {"attempts", "reason", "draft", "lane"},
    clears=_TRIES | {"draft"},
)
"""A worker that came this far shows that the upload does not stand still. The bulk lane leaves what a batch answered to
the worker that goes on from there."""
ENTRUST = Transition(
    name="entrust",
    needs=("this worker at it",),
    sets=_MOVE | {"lease_until"},
    clears=_names("sweeps", "begun"),
)
"""The lease is extended for as long as a batch may take."""
POSTPONE = Transition(name="postpone", needs=("unchanged since it was read",), sets=_PLACE | {"sweeps"})

VANISH = Transition(
    name="vanish",
    ends=("deleted",),
    needs=("no calls of others",),
    sets=_END | _WHAT_IT_IS | {"provenance", "reason"},
    clears=_WORK | _ANSWERS | ATTENTION | COPY,
)
"""The version is gone, and no event said so yet."""
GIVE_UP = Transition(
    name="give up",
    ends=("rejected", "blocked", "failed"),
    needs=("first caption", "no calls of others"),
    sets=_END | _WHAT_IT_IS | {"provenance", "reason"} | ATTENTION,
    clears=_WORK | ATTENTION,
)
KEEP = Transition(
    name="keep",
    ends=("captioned",),
    needs=("another caption", "no calls of others"),
    sets=_END | {"provenance", "reason"},
    clears=_WORK,
)
"""What could not be captioned once more keeps its caption, and a reason why there is no newer one."""
ANSWER = Transition(
    name="answer",
    ends=("captioned",),
    needs=("no words about this version", "no calls of others"),
    sets=_END | _WHAT_IT_IS | {"provenance", "source", "result", "human", "poster"} | ATTENTION | COPY,
    clears=_WORK | ATTENTION | COPY,
)
SUGGEST = Transition(
    name="suggest",
    ends=("captioned",),
    needs=("words about this version", "no calls of others"),
    sets=_END | _WHAT_IT_IS | {"provenance", "suggestion", "poster"} | COPY,
    clears=_WORK | COPY,
)
"""A person's words stay the result, and a model's answer stands beside them; the verdict stays where it is counted."""
STALL = Transition(
    name="stall",
    ends=("failed", "captioned"),
    needs=("unchanged since it was read", "no worker at it"),
    sets=_END | {"provenance", "reason"} | ATTENTION,
    clears=_WORK,
)
IDENTIFY = Transition(
    name="identify", starts=("captioned", "failed", "blocked"), sets=_names("kind", "media_type", "content")
)
"""What it is, told by a dedupe that was slower to note it than a worker, or a leader, was to end the upload."""
INDEX = Transition(
    name="index",
    starts=("captioned", "failed", "blocked", "rejected"),
    needs=("unchanged since it was read",),
    sets=ATTENTION | COPY,
)
"""An upload that ended before there was an index takes its place in it; nothing that people see changes."""

_WITH_A_RESULT: tuple[State, ...] = (*PENDING, "captioned")
EDIT = Transition(
    name="edit",
    starts=_WITH_A_RESULT,
    needs=("unchanged since it was read",),
    sets=_names("updated_at", "source", "result", "suggestion", "human") | ATTENTION,
    clears=ATTENTION,
)
WRITE = Transition(
    name="write",
    starts=("failed", "blocked"),
    ends=("captioned",),
    needs=("unchanged since it was read",),
    sets=_END | {"source", "result", "suggestion", "human"} | ATTENTION,
    clears=ATTENTION | {"reason"},
)
"""A person captions what no model would."""
AGREE = Transition(
    name="agree",
    starts=_WITH_A_RESULT,
    needs=("unchanged since it was read",),
    sets=_names("updated_at", "human") | ATTENTION,
    clears=ATTENTION,
)
PREFER = Transition(
    name="prefer",
    starts=_WITH_A_RESULT,
    needs=("unchanged since it was read",),
    sets=_names("updated_at", "human", "source", "result") | ATTENTION,
    clears=ATTENTION | {"suggestion"},
)
"""A person finds a newer answer right that stood beside their words."""
UNDO_TO_WORDS = Transition(
    name="undo to words",
    starts=_WITH_A_RESULT,
    needs=("unchanged since it was read",),
    sets=EDIT.sets | {"undone"},
    clears=ATTENTION,
)
"""The verdict before it holds again, and was words."""
UNDO_TO_ANSWER = Transition(
    name="undo to answer",
    starts=_WITH_A_RESULT,
    needs=("unchanged since it was read",),
    sets=PREFER.sets | {"undone"},
    clears=ATTENTION | {"suggestion", "human"},
)
UNDO_TO_NONE = Transition(
    name="undo to none",
    starts=("captioned",),
    ends=("failed", "blocked"),
    needs=("unchanged since it was read",),
    sets=_END | {"reason", "human", "undone"} | ATTENTION,
    clears=ATTENTION | {"result", "source", "human"},
)

TRANSITIONS = (
    ACCEPT, DELETE, REOPEN, RECAPTION, QUEUE, WAIT, BEGIN, NOTE, RELEASE, ENTRUST, POSTPONE,
    VANISH, GIVE_UP, KEEP, ANSWER, SUGGEST, STALL, IDENTIFY, INDEX, EDIT, WRITE, AGREE, PREFER,
    UNDO_TO_WORDS, UNDO_TO_ANSWER, UNDO_TO_NONE,
)  # fmt: skip
