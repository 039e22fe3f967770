"""What was answered and paid, one JSON line at a time: an evaluation that is killed goes on where it was.

A line is written in one piece as soon as its fact is known: dollars set aside before each call, and what they became
after it; what an ask has come to before it calls a second time; the answer. Dollars that were set aside by a process
that died count as spent.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from captions.cost import Cost
from captions.inference.candidate import Noted
from captions.records.attempts import CallLedger, call_id
from captions.tasks import Ask
from captions_cli.errors import CommandError, ExitCode

VERSION = 1
FINAL = frozenset({"answered", "refused", "unusable", "unable"})
"""States that asking again would not change; `failed` is asked again."""


class Journal:
    """The file, held by one process at a time."""

    def __init__(self, path: Path, endpoints: Sequence[str] = ()) -> None:
        self.path = path
        self._endpoints = list(endpoints)
        self.answers: dict[str, dict[str, Any]] = {}
        """The latest answer line of each question, by its key."""
        self.similarities: dict[str, float] = {}
        self.spent = Decimal(0)
        """Dollars, with what was set aside for calls that are under way or of which nothing more was heard."""
        self.unknown = 0
        """Calls whose cost is not known."""
        self._drafts: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, dict[str, dict[str, Any]]] = {}
        self._reserved: dict[str, Decimal] = {}

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise CommandError(f"{self.path} is in use by another evaluation", ExitCode.USAGE) from None
        self._load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def answered(self, key: str) -> bool:
        """Tell whether a question needs no asking any more."""
        return self.answers.get(key, {}).get("state") in FINAL

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Return every call that was made for a question, in whichever run."""
        return list(self._attempts.get(key, {}).values())

    def answer(self, key: str, **facts: Any) -> None:
        """Note how a question ended."""
        self._write({"line": "answer", "key": key, **facts})

    def draft(self, key: str, **facts: Any) -> None:
        """Note what a question has come to."""
        self._write({"line": "draft", "key": key, **facts})

    def reserve(self, name: str, dollars: Decimal) -> None:
        """Note that a call may cost so much."""
        self._write({"line": "reserved", "id": name, "dollars": format(dollars, "f")})

    def settle(self, name: str, dollars: Decimal, *, known: bool) -> None:
        """Note what it cost; once."""
        if name in self._reserved:
            self._write({"line": "settled", "id": name, "dollars": format(dollars, "f"), "known": known})

    def similar(self, name: str, value: float) -> None:
        """Keep how similar two texts are."""
        self._write({"line": "similar", "id": name, "value": value})

    def noted(self, key: str, identity: str) -> Noted:
        """Return what a question had come to when the process died that asked it."""
        draft = self._drafts.get(key)
        if draft is None or draft["identity"] != identity:
            return Noted()
        return Noted.read(draft["answers"], draft["asked"], draft["refused"])

    def _write(self, line: dict[str, Any]) -> None:
        self._take(line)
        self._file.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def _load(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        for number, line in enumerate(data.split(b"\n"), start=1):
            if not line:
                continue
            try:
                values = json.loads(line)
                self._take(values)
            except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
                if number == data.count(b"\n") + 1:
                    continue  # the process died while it wrote this
                message = f"{self.path}, line {number}, is none that an evaluation writes; give another --results"
                raise CommandError(message, ExitCode.USAGE) from None
        if not data:
            self._write({"line": "journal", "version": VERSION, "endpoints": self._endpoints})
        elif not data.endswith(b"\n"):
            self._file.write(b"\n")

    def _take(self, line: dict[str, Any]) -> None:
        kind = line["line"]
        if kind in ("answer", "draft"):
            calls = self._attempts.setdefault(line["key"], {})
            calls.update((call_id(attempt), attempt) for attempt in line["attempts"])
            (self.answers if kind == "answer" else self._drafts)[line["key"]] = line
            if kind == "answer":
                self._drafts.pop(line["key"], None)
        elif kind == "reserved":
            self._reserved[line["id"]] = Decimal(line["dollars"])
            self.spent += self._reserved[line["id"]]
        elif kind == "settled":
            self.spent += Decimal(line["dollars"]) - self._reserved.pop(line["id"])
            self.unknown += not line["known"]
        elif kind == "similar":
            self.similarities[line["id"]] = float(line["value"])
        elif kind != "journal" or line["version"] != VERSION:
            raise ValueError(kind)
        elif line["endpoints"] != self._endpoints:
            message = f"{self.path} holds answers of {', '.join(line['endpoints'])}; give another --results"
            raise CommandError(message, ExitCode.USAGE)


@dataclass
class JournalDrafts:
    """What `inference.escalation` notes of one question before it pays for a second call."""

    journal: Journal
    key: str
    identity: str
    ledger: CallLedger
    _written: int = 0
    """Calls of the ledger that the journal has."""

    def before(self, ask: Ask) -> Noted:
        """Return what a process before this one noted."""
        return self.journal.noted(self.key, self.identity) if ask.identity == self.identity else Noted()

    async def note(self, ask: Ask, so_far: Noted) -> bool:
        """Keep it."""
        return self._draft(self.identity, so_far)

    async def hold(self) -> bool:
        """Keep what the parts of a recording cost."""
        return self._draft("", Noted())

    def _draft(self, identity: str, so_far: Noted) -> bool:
        made = self.ledger.made
        self.journal.draft(self.key, identity=identity, **so_far.values(), attempts=made[self._written :])
        self._written = len(made)
        return True


def totals(attempts: Sequence[Mapping[str, Any]]) -> tuple[Decimal, int]:
    """Return what calls cost as far as it is known, and of how many that is not in full."""
    costs = [Cost.of_call(attempt) for attempt in attempts]
    return Cost.sum(costs).dollars, sum(cost.exact is None for cost in costs)
