"""`captions search`: captions by their words and by what they mean."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from captions_cli.commands.options import Globals, Prefix, plausible, say
from captions_cli.errors import ExitCode

app = typer.Typer()

DayOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], callback=plausible, help="A day (UTC) the caption may be from."),
]


@app.command()
def search(
    ctx: typer.Context,
    text: Annotated[
        str,
        typer.Argument(
            help='Words; "a phrase" just so, begin* for beginnings of words, -word for what must not be there.'
        ),
    ] = "",
    prefix: Prefix = "",
    category: Annotated[str | None, typer.Option(help="What the picture looks like: photo, document …")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag it has.")] = None,
    since: DayOption = None,
    until: DayOption = None,
    by: Annotated[
        Literal["both", "words", "meaning"], typer.Option(help="By what, where the stack knows both.")
    ] = "both",
    limit: Annotated[int, typer.Option(min=1, max=100, help="Results at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before this one ended.")] = None,
    index_since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            callback=plausible,
            help="Only have what was captioned since this day written to the index.",
        ),
    ] = None,
) -> None:
    """Find captions, by words the newest first: `captions search "dog on a beach"`."""
    from captions_cli import printing, searching

    given: Globals = ctx.obj
    stack = given.stack()
    if index_since is not None:
        searching.index_since(stack, index_since.replace(tzinfo=UTC))
        say("what is missing since then is found within a quarter of an hour, and later if it is very much")
        return
    days = {name: day.date().isoformat() for name, day in (("since", since), ("until", until)) if day is not None}
    about = {"prefix": prefix, "category": category, "tag": tag, "by": by, "limit": limit, "cursor": cursor, **days}
    page = searching.search(stack, text, {name: value for name, value in about.items() if value is not None})
    if given.json:
        printing.print_json(page)
    # A page may be empty where others follow or came before: what is in the index is not always there any more.
    if not page["items"] and page["cursor"] is None and cursor is None:
        say("no caption in the index has these words; a new one is there within half a minute or so")
        raise typer.Exit(ExitCode.NOT_CAPTIONED)
    if given.json:
        return
    if page["relaxed"]:
        say("no caption has all of these words; these have some")
    printing.print_table(searching.table(page["items"]))
    if page["cursor"]:
        say(f"there are more: --cursor {page['cursor']}")
