"""`captions webhooks`: who is notified of completion events, and how that goes."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from captions_cli.commands.options import DryRun, Globals, Prefix, plausible, say
from captions_cli.errors import ExitCode
from captions_cli.printable import printable

app = typer.Typer(help="Who is notified of completion events, and how that goes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The endpoint's name in the configuration.")]


@app.command("list")
def list_endpoints(ctx: typer.Context) -> None:
    """List the endpoints, what they are notified of, and whether they take it."""
    from captions.timestamps import timestamp
    from captions_cli import printing, rendering, webhooks

    given: Globals = ctx.obj
    rows = webhooks.standings(given.stack())
    if given.json:
        printing.print_json(
            [
                {
                    "name": row.name,
                    **row.endpoint.model_dump(),
                    "state": row.state,
                    "failures": row.health.failures,
                    "failing_since": timestamp(row.health.failing_since) if row.health.failing_since else None,
                    "paused_at": timestamp(row.health.paused_at) if row.health.paused_at else None,
                    "last_error": row.health.last_error or None,
                }
                for row in rows
            ]
        )
        return
    if not rows:
        say("no endpoint is configured")
        return
    table = printing.columns("Endpoint", "State", "Prefixes", "URL", "Last error", fold=("URL", "Last error"))
    for row in rows:
        prefixes = ", ".join(prefix or "all" for prefix in row.endpoint.prefixes)
        table.add_row(
            *map(rendering.one_line, (row.name, row.state, prefixes, row.endpoint.url, row.health.last_error))
        )
    printing.print_table(table)


@app.command()
def test(ctx: typer.Context, name: Name) -> None:
    """Have the stack send a test event to an endpoint now, and show what came of it."""
    from captions_cli import printing, webhooks

    given: Globals = ctx.obj
    answered = webhooks.test(given.stack(), name)
    if given.json:
        printing.print_json(answered)
    elif answered["ok"]:
        say(f"{name} took it: HTTP {answered['status']} after {answered['milliseconds']} ms")
    else:
        say(f"{name} did not take it: {printable(str(answered['why']))}")
    if not answered["ok"]:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command()
def resume(ctx: typer.Context, name: Name) -> None:
    """End the pause of an endpoint that kept failing; `replay` sends what it missed."""
    from captions.timestamps import timestamp
    from captions_cli import webhooks

    given: Globals = ctx.obj
    before = webhooks.resume(given.stack(), name)
    if before is None or not before.paused_at:
        say(f"{name} was not paused")
        return
    since = timestamp(before.paused_at)
    say(f"{name} is notified again; `captions webhooks replay {name} --since {since}` sends the rest")


@app.command()
def replay(
    ctx: typer.Context,
    name: Name,
    since: Annotated[
        datetime,
        typer.Option(
            help="From when on, UTC.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%fZ"],
            callback=plausible,
        ),
    ],
    prefix: Prefix = "",
    dry_run: DryRun = False,
) -> None:
    """Send an endpoint once more what ended since a moment; receivers drop what they have."""
    from captions_cli import printing, webhooks

    given: Globals = ctx.obj
    sent = webhooks.replay(given.stack(), name, since.replace(tzinfo=UTC), prefix, dry_run=dry_run)
    if given.json:
        printing.print_json({"endpoint": name, "events": sent, "dry_run": dry_run})
    else:
        say(f"{sent} events {'would be' if dry_run else 'are'} sent to {name}")
