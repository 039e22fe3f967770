"""What the demo shows: a table that changes while it runs on a terminal, lines otherwise, and a summary at the end."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from captions.cost import Cost
from captions.records.record import Record
from captions_cli import printing, rendering
from captions_cli.demo import Audience, DemoOutcome, Report
from captions_cli.demo_uploads import DemoUpload
from captions_cli.local.model_endpoint import eyes
from captions_cli.printable import printable
from captions_cli.printing import stderr
from captions_cli.rendering import LOCAL_PREFIX, cost, one_line, state
from captions_cli.watching import SeenUpload

LINE_CHARACTERS = 120
"""Length of a progress line where there is no terminal."""


SAID = ("What", "Caption or reason")
NO_EYES = "the small models that see and read are not installed (`make install`): pictures were described from pixels"


class LiveAudience(Audience):
    """Shows the demo on stderr as it happens."""

    def __init__(self) -> None:
        self._console = stderr()
        self._uploads: list[DemoUpload] = []
        self._seen: Mapping[str, SeenUpload] = {}
        self._headline = ""
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Show what is being done."""
        self._headline = text
        self._show(text)

    def wave(self, number: int, sent: Sequence[DemoUpload]) -> None:
        """Show a wave's uploads, before they have records."""
        self._uploads += sent
        self._headline = f"wave {number}: {len(sent)} uploads at once"
        self._show(self._headline)

    def seen(self, changed: Sequence[str], seen: Mapping[str, SeenUpload]) -> None:
        """Show how far the uploads have come."""
        self._seen = dict(seen)
        if self._live:
            self._live.refresh()
            return
        for key in changed:
            record = seen[key].record
            if record is not None and seen[key].ending is not None:
                line = Text.assemble("  ", state(record.state), f" {printable(key)} ", _short(record))
                line.truncate(LINE_CHARACTERS, overflow="ellipsis")
                self._console.print(line)

    def _show(self, line: str) -> None:
        if self._live:
            self._live.refresh()
        else:
            self._console.print(line)

    def __rich__(self) -> RenderableType:
        """The table as of now; uploads that have ended make room first when the terminal is low."""
        if not self._uploads:
            return Text(self._headline, style="bold")
        room = max(5, self._console.height - 5)
        shown = self._uploads
        if len(shown) > room:
            moving = [upload for upload in shown if not self._ended(upload.key)]
            resting = [upload for upload in shown if self._ended(upload.key)]
            shown = [*resting[len(moving) - room :], *moving][-room:] if len(moving) < room else moving[:room]
        table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
        table.add_column("Upload", no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column("What", no_wrap=True, overflow="ellipsis", ratio=4)
        table.add_column("State", no_wrap=True, width=9)
        table.add_column("Caption or reason", no_wrap=True, overflow="ellipsis", ratio=8)
        for upload in shown:
            seen = self._seen.get(upload.key, SeenUpload())
            record = seen.record
            table.add_row(
                Text(printable(upload.key)),
                Text(upload.what, style="dim"),
                state(record.state) if record else Text("uploaded", style="dim"),
                _short(record) if record and seen.ending else Text(""),
            )
        ended = sum(1 for upload in self._uploads if self._ended(upload.key))
        headline = f"{self._headline}   {ended} of {len(self._uploads)} ended"
        return Group(Text(headline, style="bold"), table)

    def _ended(self, key: str) -> bool:
        return self._seen.get(key, SeenUpload()).ending is not None


def _short(record: Record) -> Text:
    if record.result is None:
        return Text(one_line(record.reason.message if record.reason else ""), style="yellow")
    source = Text(f"{record.source}: ", style="green" if record.source == "cache" else "bold")
    return source.append(one_line(record.result.text), style="not bold")


def print_report(report: Report) -> None:
    """Print every upload with its state, source, model, latency, cost and caption, then the totals.

    On a terminal the captions follow the table, each content's once.
    """
    right = ("Latency", "Took", "Cost")
    terminal = sys.stdout.isatty()
    facts = ("Upload", "State", "Source", "Model", *right)
    table = (
        printing.columns(*facts, right=right, clip=("Upload", "Model"))
        if terminal
        else printing.columns(*facts, *SAID, right=right)
    )
    for outcome in report.outcomes:
        table.add_row(*_cells(outcome)[: len(table.columns)])
    printing.print_table(table)
    if terminal:
        printing.print_table(_captions(report.outcomes))
    for line in totals(report):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _captions(outcomes: Sequence[DemoOutcome]) -> Table:
    table = printing.columns(*SAID, fold=("Caption or reason",))
    seen: set[str] = set()
    for outcome in outcomes:
        name = outcome.upload.picture or outcome.upload.key
        if name not in seen:
            seen.add(name)
            table.add_row(Text(name), _cells(outcome)[-1])
    return table


def totals(report: Report) -> list[str]:
    """The demo in a few sentences."""
    states = Counter(outcome.record.state if outcome.record else "without a record" for outcome in report.outcomes)
    ended = ", ".join(f"{number} {name}" for name, number in states.most_common())
    log = "" if report.paid is None else f"; the endpoint's own log has {len(report.paid)} answered calls"
    simulated = "" if report.paid is None else ", simulated"
    wrong = len(report.problems)
    return [
        f"{len(report.outcomes)} uploads: {ended}",
        f"{len(report.costs)} captions were paid for: {cost(Cost.sum(report.costs))}{simulated}{log}",
        f"{len(report.savings)} uploads took the caption of the same content, "
        f"saving {cost(Cost.sum(report.savings))}{simulated}",
        *report.doors.lines,
        f"{report.seconds:.1f} s in all, {report.starting_seconds:.1f} s of them to start the stack",
        *([] if report.paid is None else _stand_in(report.outcomes)),
        f"{wrong} things are not as they must be" if wrong else "everything ended as it must",
    ]


def _stand_in(outcomes: Sequence[DemoOutcome]) -> list[str]:
    """Who answered in place of the models that were asked, and how often each."""
    records = [outcome.record for outcome in outcomes if outcome.record and outcome.record.source == "model"]
    names = Counter(
        (record.provenance.reported_model if record.provenance else None) or "unnamed" for record in records
    )
    answered = ", ".join(f"{name.removeprefix(LOCAL_PREFIX)} {number}" for name, number in names.most_common())
    return [
        f"small local models gave these answers ({answered}) at the simulated prices of the models that were asked: "
        "no money was spent; CAPTIONS_ENDPOINT_URL puts a real endpoint in their place",
        *([NO_EYES] if eyes.missing() else []),
    ]


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "uploads": [
            {
                "wave": outcome.upload.wave,
                "what": outcome.upload.what,
                "picture": outcome.upload.picture,
                "expected": outcome.upload.state,
                **rendering.upload_facts(outcome.upload.key, outcome.record),
            }
            for outcome in report.outcomes
        ],
        "paid": len(report.costs),
        **_known(report.costs, "cost"),
        "reused": len(report.savings),
        **_known(report.savings, "saved"),
        "paid_calls": None if report.paid is None else len(report.paid),
        "seconds": round(report.seconds, 3),
        "starting_seconds": round(report.starting_seconds, 3),
        "doors": list(report.doors.lines),
        "problems": report.problems,
    }


def _known(costs: Sequence[Cost], name: str) -> dict[str, Any]:
    total = Cost.sum(costs)
    return {name: format(total.dollars, "f"), f"{name}_unpriced_tokens": total.unpriced_tokens}


def _cells(outcome: DemoOutcome) -> list[Text]:
    facts = rendering.upload_facts(outcome.upload.key, outcome.record)
    key, ended, source, model, took, cost, words = rendering.row(facts)
    latency = facts["latency_ms"] if facts["source"] == "model" else None
    shown = Text("" if latency is None else f"{latency / 1000:.2f} s")
    return [key, ended, source, model, shown, took, cost, Text(outcome.upload.what, style="dim"), words]
