"""What people say of captions: `edit`, `accept` and `undo`."""

from typing import Annotated

import typer

from captions_cli.commands.options import Globals, Key, say
from captions_cli.errors import CommandError, ExitCode

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
    from captions_cli import rendering, reviewing

    given: Globals = ctx.obj
    if language is not None and not is_language(language):
        raise CommandError(f"{language!r} is no BCP 47 language tag", ExitCode.USAGE)
    record = reviewing.edit(given.stack(), key, text, language)
    if given.json:
        rendering.print_json(rendering.summary(record))
    else:
        say(f"{rendering.one_line(record.key)} has your words")


@app.command()
def accept(ctx: typer.Context, key: Key) -> None:
    """Say that a caption is right: it stays, and its model is trusted more."""
    from captions_cli import rendering, reviewing

    given: Globals = ctx.obj
    record = reviewing.accept(given.stack(), key)
    if given.json:
        rendering.print_json(rendering.summary(record))
    else:
        say(f"the caption of {rendering.one_line(record.key)} is accepted")


@app.command()
def undo(ctx: typer.Context, key: Key) -> None:
    """Take back the last `edit` or `accept` of a caption; it counts no more, and what was there before is back."""
    from captions_cli import rendering, reviewing

    given: Globals = ctx.obj
    record = reviewing.undo(given.stack(), key)
    if given.json:
        rendering.print_json(rendering.summary(record))
    else:
        say(f"the last verdict on {rendering.one_line(record.key)} is taken back")
