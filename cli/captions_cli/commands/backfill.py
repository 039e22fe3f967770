"""Uploads that failed, were missed or are out of date, through the pipeline: `redrive`, `reconcile`, `recaption`."""

from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from captions_cli.commands.options import MOST, Days, DryRun, Globals, Prefix, finite, say
from captions_cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from captions_cli.recaptioning import Due, Mode, Spent

app = typer.Typer()


@app.command()
def redrive(
    ctx: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEYS", help="Only these uploads.")] = None,
    prefix: Prefix = "",
    state: Annotated[
        list[str] | None, typer.Option("--state", help="failed (the default), blocked; may be given twice.")
    ] = None,
    days: Days = 30,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters/--no-dead-letters", help="Move the dead-letter queues' messages back too.")
    ] = True,
    dry_run: DryRun = False,
) -> None:
    """Try failed uploads again, and move the messages of the dead-letter queues back."""
    from captions_cli import printing, redriving, rendering

    given: Globals = ctx.obj
    states = tuple(state or ["failed"])
    if unknown := [name for name in states if name not in redriving.REOPENED]:
        raise CommandError(
            f"{unknown[0]} uploads cannot be tried again; --state takes {' and '.join(redriving.REOPENED)}",
            ExitCode.USAGE,
        )
    stack = given.stack()
    records = list(redriving.failed(stack, keys=keys or [], prefix=prefix, states=states, days=days))
    if not dry_run:
        for record in records:
            redriving.retry(stack, record)
    # A choice of uploads is about those alone.
    everything = dead_letters and not keys and not prefix
    moved = redriving.empty_dead_letters(stack, dry_run=dry_run) if everything else []
    if given.json:
        printing.print_json(
            {
                "dry_run": dry_run,
                "uploads": [record.key for record in records],
                "dead_letters": [vars(queue) for queue in moved],
            }
        )
    else:
        say(f"{len(records)} uploads {'would be tried again' if dry_run else 'on their way again'}")
        if records:
            printing.print_table(rendering.records(records))
        for queue in moved:
            say(rendering.moved(queue.queue, queue.messages, started=queue.started, problem=queue.problem))
    if any(queue.problem for queue in moved):
        raise typer.Exit(ExitCode.AWS)


@app.command()
def reconcile(
    ctx: typer.Context,
    prefix: Prefix = "",
    older_than: Annotated[
        float,
        typer.Option(min=0.0, callback=finite, help="Seconds; a younger object's event may still be on its way."),
    ] = 900.0,
    max_cost: Annotated[
        float | None,
        typer.Option(min=0.0, callback=finite, help="Dollars; sends no more uploads than are estimated to cost that."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=MOST, help="Sends no more uploads than that.")] = None,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="Pictures can wait for a batch, up to a day, at a part of the price.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, and estimate the cost.")] = False,
    index: Annotated[
        bool,
        typer.Option(
            "--index",
            help="Instead, let reviews and the API find uploads that ended before there was an index of them.",
        ),
    ] = False,
) -> None:
    """Find objects whose events never came, such as those from before the stack, and have them captioned."""
    from captions_cli import bulk_lane, printing, reconciling, rendering

    given: Globals = ctx.obj
    stack = given.stack()
    if index:
        _index(given, prefix, limit, max_cost, dry_run=dry_run)
        return
    if bulk:
        bulk_lane.require(stack)
    tally = reconciling.Tally()
    each = reconciling.average_cost(stack)
    most = _most(each, max_cost, limit)
    lost_uploads = reconciling.compare(stack, tally, prefix=prefix, older_than=older_than)
    if dry_run:
        for _ in lost_uploads:
            pass
    else:
        reconciling.send(stack, islice(lost_uploads, most), tally, bulk=bulk)
    lost = tally.lost["missing"] + tally.lost["replaced"]
    estimate = None if each is None else each * (lost if dry_run else tally.sent)
    if given.json:
        printing.print_json(
            {"dry_run": dry_run, **vars(tally), "average_cost": each, "estimated_cost": estimate, "limit": most}
        )
        return
    printing.print_table(rendering.tally(vars(tally)))
    if not dry_run:
        say(f"{tally.sent} events sent to the uploads queue")
        if most is not None and tally.sent >= most:
            say("there may be more: the bucket was not walked to its end; run again to go on")
    if estimate is not None and each is not None:
        say(f"about ${estimate:.4f} at most: {each:.6f} a caption lately; copies cost nothing")
        if bulk:
            say("less for what a batch answers: `captions models` shows at what part of the price each model does")
    elif lost:
        say("the cost cannot be estimated: no caption of this stack has a known one yet")


def _index(given: Globals, prefix: str, limit: int | None, max_cost: float | None, *, dry_run: bool) -> None:
    """Give uploads from before the indexes their place in them."""
    from captions_cli import printing, reconciling

    if max_cost is not None:
        raise CommandError("--index captions nothing, so that it has no cost to limit", ExitCode.USAGE)
    counted = reconciling.index(given.stack(), prefix=prefix, most=limit, dry_run=dry_run)
    if given.json:
        printing.print_json({"dry_run": dry_run, **vars(counted), "limit": limit})
    else:
        say(f"{counted.unindexed} uploads stand in no index; {counted.indexed} were given their place")


def _most(each: Decimal | None, max_cost: float | None, limit: int | None) -> int | None:
    """Return how many uploads may be sent where a caption costs `each` dollars; None: all."""
    if max_cost is None:
        return limit
    if each is None:
        raise CommandError(
            "the cost cannot be estimated: no caption of this stack has a known one; caption a few first",
            ExitCode.USAGE,
        )
    if not each:
        return limit
    fits = int(max_cost / float(each))
    return fits if limit is None else min(limit, fits)


@app.command()
def recaption(
    ctx: typer.Context,
    missing: Annotated[bool, typer.Option("--missing", help="Objects that have no record.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Captions of an older prompt (policy: recaption).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Every caption.")] = False,
    prefix: Prefix = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--run", help="Only count them and say what they may cost.")
    ] = True,
    max_cost: Annotated[
        float | None,
        typer.Option(min=0.0, help="Dollars that all may cost together; stops before. Unknown prices are left out."),
    ] = None,
) -> None:
    """Caption uploads again. What a person wrote or accepted stays; a new answer is stored beside it."""
    from captions_cli import endpoint_models, policies, printing, recaptioning, rendering

    given: Globals = ctx.obj
    flags: dict[Mode, bool] = {"missing": missing, "stale": stale, "force": force}
    modes = [mode for mode, chosen in flags.items() if chosen]
    if len(modes) != 1:
        raise CommandError("give one of --missing, --stale and --force", ExitCode.USAGE)
    stack = given.stack()
    catalogue = endpoint_models.catalogue_of(stack)
    due = list(recaptioning.due(stack, modes[0], prefix, policies.of(stack), catalogue))
    left_out, sent = 0, 0
    spent: Spent | None = None
    if max_cost is not None and not dry_run:
        spent = recaptioning.send_within(stack, due, modes[0], Decimal(str(max_cost)))
        left_out, sent = spent.left_out, spent.sent
        unsent = len(due) - left_out - sent
    else:
        if max_cost is not None:
            due, left_out = recaptioning.within(due, Decimal(str(max_cost)))
        sent = 0 if dry_run else sum(recaptioning.send(stack, upload, modes[0]) for upload in due)
        unsent = 0 if dry_run else len(due) - sent
    if unsent:
        say(f"{unsent} objects are gone, or S3 does not tell of them; `captions reconcile` has the pipeline say why")
    if given.json:
        costs = recaptioning.costs(due)
        printing.print_json(
            {
                "dry_run": dry_run,
                "uploads": [
                    {
                        "key": upload.key,
                        "why": upload.why,
                        "model": upload.model,
                        "cost": upload.dollars,
                        "largest_cost": upload.most,
                    }
                    for upload in due
                ],
                "sent": sent,
                "left_out": left_out,
                "expected_cost": f"{costs.expected:f}",
                "largest_cost": f"{costs.most:f}",
                "without_known_price": costs.unknown,
                "models_without_price": costs.unpriced,
                "spent": f"{spent.dollars:f}" if spent else None,
                "calls_of_unknown_cost": spent.unknown if spent else None,
                "on_their_way": spent.on_their_way if spent else None,
            }
        )
        return
    for line in _recaptioned(due, sent, left_out, spent, dry_run=dry_run):
        say(line)
    if due:
        printing.print_table(rendering.due(due))


def _recaptioned(due: "list[Due]", sent: int, left_out: int, spent: "Spent | None", *, dry_run: bool) -> list[str]:
    """Say what was or would be done, for how much, and what was left out."""
    from captions.cost import Cost
    from captions_cli.recaptioning import PATIENCE_SECONDS, costs
    from captions_cli.rendering import cost as shown
    from captions_cli.rendering import money

    cost = costs(due)
    number = len(due) if dry_run else sent
    verb = "would be captioned again" if dry_run else f"on {'its' if number == 1 else 'their'} way"
    what = f"{number} {'upload' if number == 1 else 'uploads'} {verb}"
    lines = []
    if spent is None:
        lines.append(f"{what}, for about {shown(cost.bound)}, {money(cost.most)} with repairs and steps up")
    else:
        rest = f", {spent.on_their_way} of them not captioned yet" if spent.on_their_way else ""
        lines.append(
            f"{what}{rest}; {shown(Cost(dollars=spent.dollars, uncounted_calls=spent.unknown))} was spent so far"
        )
        if spent.patience_ended:
            lines.append(f"nothing ended for {PATIENCE_SECONDS:.0f} s, so no more was sent")
    if cost.unpriced:
        lines.append(f"without a published price, and not in these sums: {', '.join(cost.unpriced)}")
    if left_out:
        lines.append(f"{left_out} more would go beyond --max-cost, or have no known price")
    return lines
