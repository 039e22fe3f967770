"""What is known of uploads: `ls`, `get` and `costs`."""

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from captions_cli.commands.options import MOST, Days, Globals, Key, Prefix, plausible, say
from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable_lines

app = typer.Typer()


class WordsFormat(StrEnum):
    """What `captions get --format` prints."""

    TEXT = "text"
    VTT = "vtt"
    SRT = "srt"


@app.command("ls")
def list_records(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these states; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Records at most.")] = 50,
    prefix: Prefix = "",
    days: Days = 7,
) -> None:
    """List uploads: those on their way, then those that ended, newest first."""
    from captions_cli import listing, printing, rendering

    given: Globals = ctx.obj
    if unknown := [name for name in state or [] if name not in listing.STATES]:
        raise CommandError(f"there is no state {unknown[0]!r}; states are {', '.join(listing.STATES)}", ExitCode.USAGE)
    states = tuple(state or listing.STATES)
    records = list(islice(listing.recent(given.stack(), states=states, prefix=prefix, days=days, chunk=limit), limit))
    if given.json:
        printing.print_json([rendering.summary(record) for record in records])
    elif not records:
        say(f"no {'such ' if state or prefix else ''}uploads in the last {days} days; --days looks further back")
    else:
        printing.print_table(rendering.records(records))


@app.command()
def get(
    ctx: typer.Context,
    key: Key,
    words_format: Annotated[
        WordsFormat | None, typer.Option("--format", help="Only the words: as text, or as subtitles with times.")
    ] = None,
) -> None:
    """Show everything that is known about one upload, or print its words alone."""
    from captions_cli import listing, printing, rendering, subtitles

    given: Globals = ctx.obj
    record = listing.get(given.stack(), key)
    if words_format is not None:
        words = subtitles.words(record, words_format.value)
        # A file gets the words as they are.
        typer.echo(printable_lines(words) if sys.stdout.isatty() else words, nl=False)
    elif given.json:
        printing.print_json(rendering.whole(record))
    else:
        printing.print_table(rendering.details(record))


@app.command()
def export(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where each day's file is written; it is made where it is missing.")],
    form: Annotated[Literal["jsonl", "csv", "parquet"], typer.Option("--format", help="What the files are.")] = "jsonl",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], callback=plausible, help="The first day (UTC); a week ago by default."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], callback=plausible, help="The last day (UTC); today by default."),
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these states; may be given several times.")
    ] = None,
    prefix: Prefix = "",
    again: Annotated[bool, typer.Option("--again", help="Write days again that are there already.")] = False,
) -> None:
    """Write records into a file for each day on which uploads last ended; run again, it goes on where it stopped."""
    from captions_cli import exporting, listing, printing

    given: Globals = ctx.obj
    if unknown := [name for name in state or [] if name not in listing.STATES]:
        raise CommandError(f"there is no state {unknown[0]!r}; states are {', '.join(listing.STATES)}", ExitCode.USAGE)
    now = datetime.now(UTC)
    # Nothing has ended on days to come.
    last = min(until.date(), now.date()) if until is not None else now.date()
    first = since.date() if since is not None else last - timedelta(days=6)
    if first > last:
        raise CommandError(f"--since {first} is after --until {last}", ExitCode.USAGE)
    stack = given.stack()
    scope = exporting.Scope(stack.name, form, prefix, tuple(sorted(set(state or ()))))  # type: ignore[arg-type]
    days = []
    for day in exporting.export(stack, folder, scope, first, last, now=now.timestamp(), again=again):
        what = "there already" if day.rows is None else f"{day.rows} records"
        say(f"{day.path}: {what}")
        days.append(vars(day))
    if given.json:
        printing.print_json(days)


@app.command()
def costs(
    ctx: typer.Context,
    by: Annotated[
        Literal["day", "model", "tier", "task", "prefix", "experiment"], typer.Option(help="What to add up by.")
    ] = "day",
    days: Days = 30,
    prefix: Prefix = "",
    at_most: Annotated[int, typer.Option(min=1, max=MOST, help="Records read at most.")] = 100_000,
) -> None:
    """Show what the models cost and what the cache saved; unknown costs are counted, never taken for zero."""
    from captions.records.spending import spending
    from captions_cli import listing, printing, rendering, searching

    given: Globals = ctx.obj
    stack = given.stack()
    records = listing.recent(stack, prefix=prefix, days=days)
    answers = rendering.AnswerCount()
    groups, total = spending(map(answers.noted, islice(records, at_most)), by)
    complete = next(records, None) is None
    embedded = searching.spent(stack, days)
    if given.json:
        printing.print_json(
            {
                "stack": stack.name,
                "days": days,
                "by": by,
                "embeddings": embedded.as_dict(),
                "groups": [{by: name, **group.as_dict()} for name, group in groups],
                "total": total.as_dict(),
                "complete": complete,
                "simulated": answers.simulated > 0,
            }
        )
        return
    if embedded.calls or embedded.cost.uncounted_calls:
        cost = f"{rendering.cost(embedded.cost)}{answers.note}"
        say(f"embeddings for the search, of all prefixes: {cost} in {embedded.calls:,} calls")
    if not total.uploads:
        say(f"no uploads in the last {days} days; --days looks further back")
        return
    printing.print_table(rendering.spendings(by, groups, total, answers.note))
    if not complete:
        say(f"only the first {at_most} records were read; --at-most reads more")
