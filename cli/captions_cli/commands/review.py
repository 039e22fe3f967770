"""What people say of captions: `edit`, `accept` and `undo`; and what that says of models: `quality`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from captions_cli.commands.options import MOST, Days, Globals, Key, say
from captions_cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from captions.records.record import Record

app = typer.Typer()


@app.command()
def edit(
    ctx: typer.Context,
    key: Key,
    text: Annotated[str, typer.Argument(help="The caption in your words.")],
    language: Annotated[str | None, typer.Option(help="BCP 47 tag of your words; as before by default.")] = None,
) -> None:
    """Put your words in the place of a caption; no model ever overwrites them."""
    from captions.config.policy import is_language
    from captions_cli import reviewing

    given: Globals = ctx.obj
    if language is not None and not is_language(language):
        raise CommandError(f"{language!r} is no BCP 47 language tag", ExitCode.USAGE)
    if not text.strip():
        raise CommandError("the caption's text is empty; `captions undo` takes your words back", ExitCode.USAGE)
    record = reviewing.edit(given.stack(), key, text, language)
    _tell(given, record, "{} has your words")


@app.command()
def accept(ctx: typer.Context, key: Key) -> None:
    """Say that a caption is right: it stays, and its model is trusted more."""
    from captions_cli import reviewing

    given: Globals = ctx.obj
    record = reviewing.accept(given.stack(), key)
    _tell(given, record, "the caption of {} is accepted")


@app.command()
def undo(ctx: typer.Context, key: Key) -> None:
    """Take back the last `edit` or `accept` of a caption; it counts no more, and what was there before is back."""
    from captions_cli import reviewing

    given: Globals = ctx.obj
    record = reviewing.undo(given.stack(), key)
    _tell(given, record, "the last verdict on {} is taken back")


@app.command()
def quality(
    ctx: typer.Context,
    cell: Annotated[
        str | None, typer.Argument(metavar="ID", help="Id of a row, to list the pictures behind it.")
    ] = None,
    days: Days = 28,
    by: Annotated[
        Literal["cell", "category", "model", "prompt", "experiment"],
        typer.Option(help="What to add up by; a cell is a category, model, prompt and side of an experiment."),
    ] = "cell",
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Pictures at most, where an id is given.")] = 50,
) -> None:
    """Show how often people edit captions, with what is certain of it, and which are edited too often."""
    from captions_cli import printing, rendering
    from captions_cli import quality as qualities

    given: Globals = ctx.obj
    stack = given.stack()
    shown = [
        entry
        for entry in qualities.report(stack, days=days)
        if category in (None, entry.cell.category) and model in (None, entry.cell.model)
    ]
    if cell is not None:
        behind, records = qualities.behind(stack, shown, cell, limit=limit)
        if given.json:
            printing.print_json(behind.as_dict() | {"uploads": [rendering.summary(record) for record in records]})
        else:
            printing.print_table(rendering.judged(records))
    elif given.json:
        printing.print_json(qualities.as_json(shown, by, days))
    elif not shown:
        say(f"nobody judged {'such ' if category or model else ''}captions in the last {days} days")
    else:
        printing.print_table(rendering.quality(shown) if by == "cell" else rendering.quality_by(by, shown))
        for entry in qualities.differences(shown) if by == "experiment" else ():
            comparison = ("better" if entry.by < 0 else "worse") if entry.certain else "which is better cannot be told"
            points = f"{100 * entry.by:+.0f} points ({100 * entry.low:+.0f} to {100 * entry.high:+.0f})"
            say(f"{entry.experiment}: the variant's share of edited captions is {points}: {comparison}")


def _tell(given: Globals, record: "Record", what: str) -> None:
    from captions_cli import printing, rendering

    if given.json:
        printing.print_json(rendering.summary(record))
    else:
        say(what.format(rendering.one_line(record.key)))
