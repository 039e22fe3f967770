"""What the commands show: records, costs, quality and models as tables for people and as values for JSON."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from captions.cost import Cost
from captions.gateway.catalogue import Catalogue
from captions.quality.cells import Quality, VerdictCounts, grouped
from captions.records.record import Record
from captions.records.spending import Spending
from captions.timestamps import timestamp
from captions_cli.catalogue_comparison import CatalogueComparison
from captions_cli.printable import printable
from captions_cli.printing import columns
from captions_cli.uploading import NotSent, Planned, Sent
from captions_cli.watching import SeenUpload

if TYPE_CHECKING:
    from captions.bulk.batch_table import WaitingCount
    from captions.bulk.protocol import Batch
    from captions_cli.policies import Explanation
    from captions_cli.recaptioning import Due

LOCAL_PREFIX = "local/"
"""What the names begin with that the local endpoint gives its small models."""
COLOURS = {
    "captioned": "green",
    "rejected": "yellow",
    "blocked": "magenta",
    "failed": "red",
    "deleted": "dim",
    "received": "cyan",
    "queued": "cyan",
    "waiting": "cyan",
}


def summary(record: Record) -> dict[str, Any]:
    """A record as one flat object for JSON: what `ls` and `upload` print; absent values are null.

    `model` was asked, `reported_model` is what the endpoint says answered. `cost` and `saved` are dollars as decimal
    text, null where they are not known in full; what is known of them stands in `cost_at_least` and `saved_at_least`.
    `latency_ms` is the model's, `seconds` is from the upload's event to its end.
    """
    provenance = record.provenance
    return {
        "key": record.key,
        "version_id": record.version_id,
        "state": record.state,
        "kind": record.kind,
        "media_type": record.media_type,
        "source": record.source,
        "model": provenance.model if provenance else None,
        "reported_model": provenance.reported_model if provenance else None,
        "latency_ms": provenance.latency_ms if provenance else None,
        "seconds": seconds(record),
        **_both(provenance.spent if provenance else None, "cost"),
        **_both(provenance.spared if provenance else None, "saved"),
        "copied_from": provenance.copied_from if provenance else None,
        "language": record.result.language if record.result else None,
        "text": record.result.text if record.result else None,
        "reason": record.reason.model_dump() if record.reason else None,
        "received_at": record.received_at or None,
        "completed_at": record.completed_at,
    }


def _both(spent: Cost | None, name: str) -> dict[str, Any]:
    return {name: None, f"{name}_at_least": None} | (spent.fields(name) if spent is not None else {})


SUMMARY_FIELDS = (
    "key", "version_id", "state", "kind", "media_type", "source", "model", "reported_model", "latency_ms", "seconds",
    "cost", "cost_at_least", "saved", "saved_at_least", "copied_from", "language", "text", "reason", "received_at",
    "completed_at",
)  # fmt: skip


def seconds(record: Record) -> float | None:
    """Seconds from the event of an upload to its end; None while it is on its way, and for what was deleted."""
    if not record.received_at or not record.completed_at or record.state == "deleted":
        return None
    taken = datetime.fromisoformat(record.completed_at) - datetime.fromisoformat(record.received_at)
    return round(taken.total_seconds(), 3)


RECORD_COLUMNS = ("Upload", "State", "Source", "Model", "Took", "Cost", "Caption or reason")


def records(listed: Iterable[Record]) -> Table:
    """A table of records."""
    table = columns(*RECORD_COLUMNS, right=("Took", "Cost"), clip=("Upload", "Caption or reason"))
    return _facts_table((summary(record) for record in listed), table)


QUALITY_COLUMNS = ("Edited", "Of", "Share", "95 % interval")


def quality(listed: Iterable[Quality]) -> Table:
    """A table of cells, flagged ones first."""
    names = ("Category", "Model", "Prompt", "Experiment", *QUALITY_COLUMNS, "", "Id")
    table = columns(*names, right=QUALITY_COLUMNS, clip=("Model", "Prompt", "Experiment"))
    for each in listed:
        cell = each.cell
        tried = f"{cell.experiment} {cell.arm}" if cell.experiment is not None else ""
        flagged = Text("too often", style="bold red") if each.flagged else Text("")
        table.add_row(
            Text(cell.category),
            Text(model_name(cell.model)),
            Text(printable(cell.prompt_version or "-")),
            Text(printable(tried)),
            *_edited(each.counts),
            flagged,
            Text(cell.id),
        )
    return table


def quality_by(by: Literal["category", "model", "prompt", "experiment"], listed: Iterable[Quality]) -> Table:
    """A table of cells that are added up."""
    table = columns(by.capitalize(), *QUALITY_COLUMNS, right=QUALITY_COLUMNS)
    for name, counts in grouped(listed, by).items():
        table.add_row(Text(printable(" ".join(dict.fromkeys(name)))), *_edited(counts))
    return table


def _edited(counts: VerdictCounts) -> list[Text]:
    (low, high), share = counts.interval, counts.share
    shares = ("-", "-") if share is None else (f"{share:.0%}", f"{low:.0%} to {high:.0%}")
    return [Text(str(counts.edited)), Text(str(counts.judged)), *map(Text, shares)]


def judged(listed: Iterable[Record]) -> Table:
    """A table of what people said of captions, beside the model's words."""
    table = columns("Upload", "Verdict", "When", "Model's words", "Theirs", clip=("Upload", "Model's words", "Theirs"))
    for each in listed:
        answer, human = each.answer, each.human
        if human is not None:
            table.add_row(
                Text(printable(each.key)),
                Text(human.action),
                Text(human.at[:16].replace("T", " ")),
                Text(one_line(answer.result.text if answer is not None else "")),
                Text(one_line(human.text)),
            )
    return table


def row(facts: Mapping[str, Any]) -> list[Text]:
    """The cells of one `summary`, in the order of RECORD_COLUMNS."""
    taken = facts["seconds"]
    reason = facts["reason"]["message"] if facts["reason"] else ""
    return [
        Text(printable(facts["key"])),
        state(facts["state"]),
        Text(facts["source"] or ""),
        Text(model_name(facts["reported_model"] or facts["model"])),
        Text("" if taken is None else f"{taken:.1f} s"),
        Text(_caption_cost(facts)),
        Text(one_line(facts["text"] or reason)),
    ]


def _facts_table(rows: Iterable[Mapping[str, Any]], table: Table) -> Table:
    for facts in rows:
        table.add_row(*row(facts))
    return table


def _caption_cost(facts: Mapping[str, Any]) -> str:
    """What a caption cost; the local endpoint's models answer at the prices of others, which nobody pays."""
    spent = Cost.read(facts)
    shown = cost(spent, unknown=facts["source"] == "model")
    return f"{shown} simulated" if is_local(facts["reported_model"]) and spent is not None and spent.dollars else shown


@dataclass
class AnswerCount:
    """How many of some records a small model of the local endpoint answered, and how many another model."""

    simulated: int = 0
    others: int = 0

    def noted(self, record: Record) -> Record:
        """Count a record, and return it."""
        model = record.provenance.reported_model if record.provenance is not None else None
        if is_local(model):
            self.simulated += 1
        elif model:
            self.others += 1
        return record

    @property
    def note(self) -> str:
        """What stands behind a sum of theirs."""
        return (" partly simulated" if self.others else " simulated") if self.simulated else ""


def is_local(reported_model: str | None) -> bool:
    """Whether a small model of the local endpoint answered."""
    return (reported_model or "").startswith(LOCAL_PREFIX)


def model_name(name: str | None) -> str:
    """A model's name; on a terminal, where room is scarce, without the organisation in front."""
    return (name or "").rpartition("/")[2] if sys.stdout.isatty() else name or ""


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=COLOURS.get(name, ""))


def money(dollars: str | Decimal | None, *, unknown: bool = False, rounding: str = ROUND_HALF_EVEN) -> str:
    """Dollars for people: cents from a dollar on, else millionths; `unknown` tells a missing price from no price.

    What is less than a millionth is shown by its first digit.
    """
    if dollars is None:
        return "unknown" if unknown else ""
    value = Decimal(dollars)
    if value == 0:
        return "$0"
    digits = 2 if value >= 1 else max(6, -value.adjusted())
    return f"${value.quantize(Decimal(1).scaleb(-digits), rounding):f}"


def cost(spent: Cost | None, *, unknown: bool = False) -> str:
    """What something cost, for people: of what is not known in full the lower bound, and what it leaves out."""
    if spent is None or not spent.known:
        return money(None, unknown=unknown or spent is not None)
    return money(spent.exact) if spent.exact is not None else _bound(spent, money(spent.dollars, rounding=ROUND_FLOOR))


def _bound(spent: Cost, dollars: str) -> str:
    sign = "\u2265" if (sys.stdout.encoding or "ascii").lower().startswith("utf") else ">="
    left_out = [f"{spent.unpriced_tokens:,} tokens"] if spent.unpriced_tokens else []
    left_out += [f"{spent.uncounted_calls:,} unknown"] if spent.uncounted_calls else []
    return " + ".join((f"{sign} {dollars}", *left_out))


def one_line(text: str) -> str:
    """Text on one line, without control characters."""
    return printable(" ".join(text.split()))


def upload_facts(key: str, record: Record | None) -> dict[str, Any]:
    """The `summary` of a record; where there is none, the same fields with all but the key and state null."""
    if record is not None:
        return summary(record)
    return {**dict.fromkeys(SUMMARY_FIELDS), "key": key, "state": "uploaded"}


def upload(file: Planned, answer: Sent | NotSent, seen: SeenUpload | None) -> dict[str, Any]:
    """One file of `upload` as a flat object: its `summary`, with `file` in front.

    Its state is `not_uploaded` where it could not be put, `uploaded` while it has no record, `superseded` where another
    version took its key.
    """
    record = seen.record if seen else None
    facts = {"file": str(file.path), **upload_facts(answer.key, record)}
    if isinstance(answer, NotSent):
        return facts | {"state": "not_uploaded", "reason": {"code": "not_uploaded", "message": answer.why}}
    if record is None:
        facts["version_id"] = answer.version_id
    if record is None and seen is not None and seen.ending == "superseded":
        why = "another version of this key was uploaded, or it was deleted, meanwhile"
        return facts | {"state": "superseded", "reason": {"code": "superseded", "message": why}}
    return facts


def uploads(rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of what `upload` gave."""
    table = columns(*RECORD_COLUMNS, right=("Took", "Cost"), fold=("Caption or reason",), clip=("Upload",))
    return _facts_table(rows, table)


def explanation(explained: "Explanation") -> dict[str, Any]:
    """What would become of a file, as plain values; what is not known is null, what does not apply is left out."""
    facts: dict[str, Any] = {"kind": explained.kind, "media_type": explained.media_type}
    if explained.looks is not None:
        facts["looks"] = explained.looks.model_dump()
    if explained.rejected is not None:
        return facts | {"rejected": {"code": explained.rejected[0], "message": explained.rejected[1]}}
    facts |= {
        "task": explained.task,
        "because_of": explained.named_by,
        "asked": explained.ask,
        "prompt_version": explained.prompt_version,
    }
    if explained.chains is not None and explained.chains.arm is not None:
        facts["experiment"] = explained.chains.arm.model_dump()
    if explained.chains is not None:
        facts["tier"] = explained.chains.tier
        facts["models"] = list(explained.chains.models)
        if explained.chains.higher:
            facts["escalates"] = {
                "below_confidence": explained.chains.threshold,
                "to": explained.chains.higher_tier,
                "models": list(explained.chains.higher),
            }
    if explained.estimate is not None:
        facts["expected"] = {
            "model": explained.estimate.model,
            "prompt_tokens": explained.estimate.prompt_tokens,
            "answer_tokens": explained.estimate.answer_tokens,
            "dollars": None,
            **(explained.estimate.cost.fields("dollars") if explained.estimate.cost is not None else {}),
        }
    return facts


def due(listed: "Iterable[Due]") -> Table:
    """A table of what is to be captioned again."""
    table = columns("Upload", "Why", "Model", "About", "At most", right=("About", "At most"), clip=("Upload",))
    for each in listed:
        costs = cost(each.expected, unknown=True), money(each.most, unknown=True)
        table.add_row(Text(printable(each.key)), Text(each.why), Text(model_name(each.model)), *costs)
    return table


def flat(facts: Mapping[str, Any]) -> Table:
    """Nested plain values as dotted names; null reads unknown."""
    table = columns("Field", "Value", fold=("Value",))
    for name, value in _flattened(_with_costs_as_text(facts)):
        table.add_row(Text(name), Text("unknown" if value is None else one_line(str(value))))
    return table


def whole(record: Record) -> dict[str, Any]:
    """Everything in one record, for JSON; absent values are null.

    Of a model's answer beside a person's words it tells which one it is: `replaced_answer`, which the words took the
    place of, or `suggestion`, which came after them, and which `captions accept` takes.
    """
    values = record.model_dump(exclude={"poster"})
    if record.provenance is not None:
        values["provenance"] |= _both(record.provenance.spent, "cost")
    beside, words = record.suggestion, record.human
    # Records of the first version that knew of edits have times alone to tell it by.
    replaced = beside is not None and (beside.replaced or (words is not None and words.at >= beside.at > ""))
    shown = beside.model_dump(exclude={"replaced"}) if beside is not None else None
    values["suggestion"] = None if replaced else shown
    values["replaced_answer"] = shown if replaced else None
    return values


def details(record: Record) -> Table:
    """Everything in one record that is for people to read, nested values as dotted names."""
    table = columns("Field", "Value", fold=("Value",))
    flat = _flattened(_with_costs_as_text(whole(record)))
    fields = [(name, value) for name, value in flat if value is not None and not _unread(name)]
    if record.superseded_calls:
        fields.append(("replaced_versions", f"{cost(record.superseded)} in {record.superseded_calls:,} calls"))
    # A value of thousands of characters would take the room of the names.
    table.columns[0].min_width = max(len(name) for name, _ in fields)
    for name, value in fields:
        shown = printable(value) if name in KEY_FIELDS else one_line(str(value))
        text = state(str(value)) if name == "state" else Text(shown)
        table.add_row(Text(name), text)
    return table


def _with_costs_as_text(value: Any) -> Any:
    """Put each cost, which two fields tell, into the one whose name it has."""
    if isinstance(value, list | tuple):
        return [_with_costs_as_text(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    texts = {name: _with_costs_as_text(inner) for name, inner in value.items() if not name.endswith("_at_least")}
    bounds = [name for name in value if name.endswith("_at_least") and value[name] is not None]
    return texts | {name.removesuffix("_at_least"): cost(Cost.model_validate(value[name])) for name in bounds}


KEY_FIELDS = ("asset", "key", "provenance.copied_from")
"""Every character of these tells."""
UNREAD_FIELDS = ("draft.", "human.before.", "sweeps", "begun", "superseded_", "paid_ids", "undone")
"""How the fields begin that people are not shown."""


def _unread(name: str) -> bool:
    """Tell what only programs make sense of: the ids of summed calls, answers on their way, what `undo` needs."""
    return name.startswith(UNREAD_FIELDS) or ("attempts[" in name and name.endswith("].ids"))


def _flattened(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flattened(inner, f"{name}.{key}" if name else key)]
    if isinstance(value, list | tuple):
        return [pair for index, inner in enumerate(value) for pair in _flattened(inner, f"{name}[{index}]")]
    return [(name, value)]


def queue_depths(depths: Mapping[str, Mapping[str, int]]) -> Table:
    """Messages of each queue."""
    table = columns("Queue", "Visible", "In flight", "Delayed", right=("Visible", "In flight", "Delayed"))
    for name, numbers in depths.items():
        alarming = "DeadLetter" in name and any(numbers.values())
        cells = [str(numbers[kind]) for kind in ("visible", "in_flight", "delayed")]
        table.add_row(name, *cells, style="bold red" if alarming else "")
    return table


def waiting_for_a_batch(waiting: "WaitingCount") -> str:
    """How many uploads are gathered and in no batch yet."""
    if waiting.since is None:
        return "no upload waits for a batch"
    number = f"{waiting.number:,}" if waiting.complete else f"at least {waiting.number:,}"
    return f"{number} uploads wait for a batch, the first since {timestamp(waiting.since)[:16]}"


def batches(listed: "Iterable[Batch]") -> Table:
    """Batches: those on their way, and those closed lately."""
    numbers = ("Lines", "Handed out", "Cost", "Saved")
    table = columns(
        "Batch",
        "State",
        "Model",
        *numbers,
        "Gathered",
        "Deadline",
        "At the endpoint",
        "Why",
        right=numbers,
        fold=("Why",),
    )
    for batch in listed:
        known = batch.taken > 0
        table.add_row(
            batch.id[:12],
            batch.state,
            model_name(batch.model),
            f"{batch.lines:,}",
            f"{batch.taken:,}",
            cost(batch.spent) if known else "",
            cost(batch.saved) if known else "",
            timestamp(batch.gathered_at)[:16],
            timestamp(batch.deadline)[:16],
            batch.remote_id or "",
            batch.reason or "",
        )
    return table


def changes(listed: Sequence[Mapping[str, Any]]) -> Table:
    """What a change set would do."""
    table = columns("Action", "Resource", "Type", "Properties")
    for change in listed:
        replaced = change["replacement"] in {"True", "Conditional"}
        action = f"{change['action']} (replacement)" if replaced else change["action"]
        risky = replaced or change["action"] == "Remove"
        properties = ", ".join(change["properties"])
        table.add_row(action, change["resource"], change["type"], properties, style="bold red" if risky else "")
    return table


def tally(counts: Mapping[str, Any]) -> Table:
    """What a comparison of the bucket with the captions table found."""
    table = columns("Objects", "Count", right=("Count",))
    table.add_row("listed", str(counts["listed"]))
    table.add_row("in order", str(counts["in_order"]))
    table.add_row("too young to tell", str(counts["recent"]))
    table.add_row("without any event", str(counts["lost"]["missing"]))
    table.add_row("event for an older version", str(counts["lost"]["replaced"]))
    table.add_row("deleted, without an event", str(counts["lost"]["deleted"]))
    return table


def findings(listed: Sequence[Mapping[str, Any]]) -> Table:
    """What a check of the stack found, and what to do."""
    colours = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "cyan"}
    table = columns("Check", "", "Found", "What to do")
    for finding in listed:
        level = Text(finding["level"], style=colours[finding["level"]])
        table.add_row(finding["check"], level, printable(finding["message"]), printable(finding["remedy"]))
    return table


def standings(listed: Sequence[Mapping[str, Any]]) -> Table:
    """How far each environment of a deployment has come."""
    table = columns("Environment", "Status", "Changed", "")
    for environment in listed:
        changed = {None: "", True: "yes", False: "no"}[environment["changed"]]
        reason = printable(environment["reason"].splitlines()[0]) if environment["reason"] else ""
        table.add_row(
            environment["environment"],
            environment["status"],
            changed,
            reason,
            style="" if environment["status"] == "verified" else "red",
        )
    return table


def spendings(by: str, groups: Iterable[tuple[str, Spending]], total: Spending, note: str = "") -> Table:
    """What was spent and saved, group by group, and in all; where a sum is not known in full, what it leaves out.

    `note` stands behind the name of each column of dollars.
    """
    names = [f"{name},{note}" if note and name in SPENDING_DOLLARS else name for name in SPENDING_COLUMNS]
    table = columns(by.capitalize(), *names, right=names)
    for name, group in (*groups, ("total", total)):
        table.add_row(
            Text(printable(name)),
            str(group.uploads),
            str(group.calls),
            _sum(group.cost),
            str(group.copied),
            _sum(group.saved),
            _sum(group.saved_by_batches),
        )
    return table


SPENDING_COLUMNS = ("Uploads", "Model calls", "Cost", "Copied", "Saved by copies", "Saved by batches")
SPENDING_DOLLARS = {"Cost", "Saved by copies", "Saved by batches"}


def _sum(spent: Cost) -> str:
    if not spent.known:
        return f"unknown ({spent.uncounted_calls})"
    dollars = f"${spent.dollars.normalize() + 0:f}"
    return dollars if spent.exact is not None else _bound(spent, dollars)


def state_counts(counts: Mapping[str, int], *, complete: bool) -> Table:
    """Uploads by state; those without any are left out."""
    table = columns("Uploads on their way, and ended since yesterday", "Count", right=("Count",))
    for name, number in counts.items():
        if number:
            table.add_row(state(name), str(number) if complete else f"at least {number}")
    if not any(counts.values()):
        table.add_row("none", "0")
    return table


def moved(queue: str, messages: int, *, started: bool, problem: str | None) -> str:
    """One dead-letter queue in words."""
    if problem:
        return f"{queue} dead letters: {messages} could not be moved: {one_line(problem)}"
    if not messages:
        return f"{queue} dead letters: none"
    return f"{queue} dead letters: {messages} " + ("on their way back" if started else "would be moved back")


def offer(endpoint: str, catalogue: Catalogue, comparison: CatalogueComparison) -> dict[str, Any]:
    """A catalogue beside an endpoint's models, for JSON; prices in dollars per million tokens as decimal text."""
    return {
        "endpoint": endpoint,
        "models": [
            {
                "name": model.name,
                "provider": model.provider,
                "modalities": sorted(model.modalities),
                "context": model.context,
                "input_price": _text(model.input_price),
                "output_price": _text(model.output_price),
                "priced_on": model.priced_on.isoformat() if model.priced_on else None,
                "offered": model.name in comparison.present,
                "endpoint_context": comparison.contexts.get(model.name),
            }
            for model in catalogue.models.values()
            if model.enabled
        ],
        "price_changes": [
            {
                "model": change.model,
                "what": change.what,
                "catalogue": _text(change.catalogue),
                "endpoint": _text(change.endpoint),
            }
            for change in comparison.price_changes
        ],
        "new": list(comparison.new),
    }


def models(catalogue: Catalogue, comparison: CatalogueComparison) -> Table:
    """The catalogue's models, and how the endpoint's differ."""
    names = ("Model", "Provider", "Takes", "Context", "$/M in", "$/M out", "In batches", "At the endpoint")
    table = columns(*names, right=("Context", "$/M in", "$/M out", "In batches"), fold=("At the endpoint",))
    changes: dict[str, list[str]] = {}
    for change in comparison.price_changes:
        changes.setdefault(change.model, []).append(f"{change.what} ${change.endpoint:f}")
    for model in catalogue.models.values():
        if not model.enabled:
            continue
        notes = ["yes" if model.name in comparison.present else "no", *changes.get(model.name, [])]
        if model.name in comparison.contexts:
            notes.append(f"context {comparison.contexts[model.name]:,}")
        table.add_row(
            model.name,
            model.provider,
            ", ".join(sorted(model.modalities)),
            f"{model.context:,}",
            _text(model.input_price) or "unknown",
            _text(model.output_price) or "unknown",
            f"{model.batch_factor * 100:.0f} %" if model.batch_factor is not None else "no",
            Text("; ".join(notes), style="" if model.name in comparison.present else "yellow"),
        )
    return table


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"
