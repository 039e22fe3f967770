"""Finds captions to be made again, says what that may cost, and sends their uploads on their way once more.

What one costs is said twice: as expected, by the model that is asked first and the tokens of the last answer, and at
the most, where the dearest models answer at full length, one is shown its answer and asked to mend it, and the tier
above is asked as well. Under a limit an upload is sent only while its most, and that of all that are on their way, fits
beside what the records say was really spent. Calls that fail and are billed all the same may go beyond it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from pydantic import ValidationError

from captions.config.policy import Policy
from captions.cost import Cost
from captions.gateway.catalogue import Catalogue
from captions.queues import Queues, Revisit
from captions.records.recaption_costs import ANSWER_TOKENS, most_of, recaption_cost
from captions.records.record import Record
from captions.records.spending import Spending, spending
from captions.records.table import READ_AT_ONCE, Records
from captions.routing import routes
from captions.routing.estimates import PICTURE_TOKENS, estimate
from captions.tasks import TASKS, Ask
from captions.uploads.s3_objects import Objects, UnreadableError
from captions.uploads.version import ObjectVersion, is_written_back
from captions_cli.stack import Stack

Mode = Literal["missing", "stale", "force"]
PATIENCE_SECONDS = 600.0
"""So long nothing may end before what is left is not sent: everything on its way waits for models then."""
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Due:
    """One upload to be captioned again; `record` is None where there is only an object.

    `expected` is the expected cost as far as prices are known, `most` the largest one by the models that have a price;
    None: not known. `unpriced` are the models that may be asked and have none.
    """

    key: str
    why: str
    upload: ObjectVersion | None
    record: Record | None
    model: str | None
    expected: Cost | None
    most: Decimal | None = None
    unpriced: tuple[str, ...] = ()

    @property
    def dollars(self) -> Decimal | None:
        """The expected cost, where it is known in full."""
        return self.expected.exact if self.expected is not None else None


@dataclass
class Spent:
    """What came of sending under a limit: dollars as far as known, and how many were sent, not sent, not yet done."""

    sent: int = 0
    left_out: int = 0
    on_their_way: int = 0
    dollars: Decimal = Decimal(0)
    unknown: int = 0
    """Calls whose cost is unknown."""
    patience_ended: bool = False


@dataclass(frozen=True)
class RecaptionCosts:
    """What uploads may cost together, in dollars: as expected and at the most, by the models that have a price."""

    expected: Decimal
    bound: Cost
    """As expected, with what prices are known of the others."""
    most: Decimal
    unknown: int
    """Uploads whose cost is not known."""
    unpriced: list[str]
    """Models without a price."""


def costs(due: Sequence[Due]) -> RecaptionCosts:
    """Add up what uploads may cost."""
    return RecaptionCosts(
        sum((each.dollars for each in due if each.dollars is not None), Decimal(0)),
        Cost.sum(each.expected or Cost(uncounted_calls=1) for each in due),
        sum((each.most for each in due if each.most is not None), Decimal(0)),
        sum(each.dollars is None for each in due),
        sorted({model for each in due for model in each.unpriced}),
    )


def due(stack: Stack, mode: Mode, prefix: str, rules: Policy, catalogue: Catalogue) -> Iterator[Due]:
    """Yield what is to be captioned again: objects without a record, stale captions, or every caption."""
    if mode == "missing":
        yield from _missing(stack, prefix, rules, catalogue)
        return
    for record in stack.listing.captioned(f"{stack.bucket}/{prefix}"):
        why = stale(record, rules) if mode == "stale" else "asked for"
        if why is not None:
            yield _due(record, why, rules, catalogue)


def stale(record: Record, rules: Policy) -> str | None:
    """Say why a caption is out of date by the policy; None where it is not, or no model gave it."""
    answer, provenance = record.answer, record.provenance
    if answer is None or provenance is None:
        return None
    result = answer.result
    if result.task not in TASKS:
        return f"the task {result.task} is no more"
    if rules.recaption.prompt:
        about = rules.task(result.task)
        # While an experiment runs, its prompt is one of today's.
        tried = [
            experiment.varied(about) for experiment in rules.experiments.values() if experiment.task == result.task
        ]
        versions = set()
        for template in {about.template, *(variant.template for variant in tried)}:
            used = template if result.style == "custom" or result.task != "caption" else ""
            with suppress(ValidationError):
                versions.add(Ask(task=result.task, style=result.style, template=used).version)
        if not versions:
            return f"the style {result.style} is no more"
        if provenance.prompt_version not in versions:
            return "the prompt changed"
    if rules.recaption.model and provenance.model not in {
        name for tier in rules.tiers.values() for name in tier.models
    }:
        return f"{provenance.model} is in no tier any more"
    return None


def within(due: Iterable[Due], most: Decimal) -> tuple[list[Due], int]:
    """Return those whose expected costs stay within `most` dollars together, and how many are left out.

    What has no known price is left out: nobody could say what it adds.
    """
    chosen: list[Due] = []
    spent, left_out = Decimal(0), 0
    for each in due:
        if each.dollars is None or spent + each.dollars > most:
            left_out += 1
            continue
        spent += each.dollars
        chosen.append(each)
    return chosen, left_out


@dataclass
class _Account:
    """What uploads that were sent under a limit cost since then, by their records."""

    records: Records
    limit: Decimal
    spent: Spent = field(default_factory=Spent)
    pending: dict[str, tuple[Due, Decimal]] = field(default_factory=dict)
    """By asset, with what each has cost so far."""
    ended: Decimal = Decimal(0)

    def fits(self, due: Due) -> bool:
        """Tell whether an upload can be paid for whatever those before it turn out to cost."""
        reserved = sum((max(_reserve(due), cost) for due, cost in self.pending.values()), Decimal(0))
        return self.ended + reserved + _reserve(due) <= self.limit

    def look(self) -> int:
        """Read what is on its way; return how many of them ended."""
        done = 0
        for record in list(self.records.read(list(self.pending))):
            due, _ = self.pending[record.asset]
            before = spending([due.record], "day")[1] if due.record is not None else Spending()
            after = spending([record], "day")[1]
            cost = (after.cost - before.cost).dollars
            self.pending[record.asset] = due, cost
            if record.terminal and (due.record is None or record.updated_at != due.record.updated_at):
                del self.pending[record.asset]
                self.ended += cost
                self.spent.unknown += after.cost_unknown - before.cost_unknown
                done += 1
        self.spent.dollars = self.ended + sum((cost for _, cost in self.pending.values()), Decimal(0))
        self.spent.on_their_way = len(self.pending)
        return done


def _reserve(due: Due) -> Decimal:
    return max(due.most or Decimal(0), due.dollars or Decimal(0))


def send_within(
    stack: Stack,
    due: Sequence[Due],
    mode: Mode,
    limit: Decimal,
    *,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Spent:
    """Send uploads while what was spent leaves room for the next, in order, waiting for those on their way if need be.

    What has no known price, or could go beyond `limit` by itself, is left out.
    """
    account = _Account(stack.records, limit)
    spent, waiting = account.spent, deque(due)
    last_end = now()
    while waiting:
        first = waiting[0]
        if first.dollars is None or _reserve(first) > limit:
            spent.left_out += 1
            waiting.popleft()
        elif account.fits(first):
            waiting.popleft()
            if send(stack, first, mode):
                spent.sent += 1
                account.pending[f"{stack.bucket}/{first.key}"] = first, Decimal(0)
        elif not account.pending or now() - last_end > PATIENCE_SECONDS:
            spent.patience_ended = bool(account.pending)
            break
        else:
            pause(LOOK_SECONDS)
            if account.look():
                last_end = now()
    account.look()
    spent.left_out += len(waiting)
    return spent


def send(stack: Stack, due: Due, mode: Mode) -> bool:
    """Put an upload back on the uploads queue; False where its object is gone meanwhile, or S3 does not tell of it."""
    try:
        upload = due.upload or Objects(stack.client("s3")).current(stack.bucket, due.key)
    except UnreadableError:
        return False
    if upload is None:
        return False
    seen = due.record.updated_at if due.record is not None else None
    revisit = Revisit(upload=upload, reason="recaption", seen=seen, mode=mode)
    Queues(stack.client("sqs")).send(stack.output("UploadsQueueUrl"), revisit)
    return True


def _missing(stack: Stack, prefix: str, rules: Policy, catalogue: Catalogue) -> Iterator[Due]:
    pages = stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix=prefix)
    chains = routes.chains("", "image", "caption", rules)
    model = chains.models[0]
    most, unpriced = most_of(chains, PICTURE_TOKENS, TASKS["caption"].max_tokens, catalogue)
    for page in pages:
        sizes = {entry["Key"]: entry["Size"] for entry in page.get("Contents", [])}
        keys = [key for key, size in sizes.items() if size > 0 and not is_written_back(key)]
        for start in range(0, len(keys), READ_AT_ONCE):
            batch = keys[start : start + READ_AT_ONCE]
            known = {record.key for record in stack.records.read(f"{stack.bucket}/{key}" for key in batch)}
            for key in batch:
                if key not in known:
                    expected = estimate(model, PICTURE_TOKENS, ANSWER_TOKENS, catalogue).cost
                    yield Due(key, "there is no record of it", None, None, model, expected, most, unpriced)


def _due(record: Record, why: str, rules: Policy, catalogue: Catalogue) -> Due:
    """Return a caption to be made again, with the tokens of its last answer as far as they are known."""
    cost = recaption_cost(record, rules, catalogue)
    return Due(record.key, why, record.upload, record, cost.model, cost.expected, cost.most, cost.unpriced)
