"""Bringing media in: `upload`, and `bucket connect` for media that are in a bucket already."""

from pathlib import Path
from typing import Annotated

import typer

from captions_cli.commands.options import DryRun, Globals, say
from captions_cli.errors import CommandError, ExitCode

app = typer.Typer()
bucket_app = typer.Typer(no_args_is_help=True, help="Buckets that exist already.")


@app.command()
def upload(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Files, and directories with all they hold.")],
    prefix: Annotated[str, typer.Option(help="Put in front of every key, as it is.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the captions.")] = True,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Upload files and follow them until each has its caption, or a reason why not."""
    from captions_cli import printing, rendering
    from captions_cli.progress import UploadProgress
    from captions_cli.uploading import Sent, plan, send
    from captions_cli.watching import UploadWatch

    given: Globals = ctx.obj
    planned = plan(files, prefix)
    stack = given.stack()
    try:
        with UploadProgress(len(planned)) as progress:
            answers = send(stack, planned, progress.sent)
            sent = [answer for answer in answers if isinstance(answer, Sent)]
            watch = UploadWatch(stack, sent)
            in_time = watch.until_ended(timeout, progress.seen) if wait else True
    except KeyboardInterrupt:
        why = "interrupted; uploads that arrived go on, and `captions ls` shows them"
        raise CommandError(why, ExitCode.INTERRUPTED) from None
    rows = [
        rendering.upload(file, answer, watch.seen.get(file.key)) for file, answer in zip(planned, answers, strict=True)
    ]
    if given.json:
        printing.print_json(rows)
    else:
        printing.print_table(rendering.uploads(rows))
    if not in_time:
        say(f"{len(watch.pending)} of {len(sent)} uploads were still on their way after {timeout:g} s")
        raise typer.Exit(ExitCode.TIMEOUT)
    wanted = "captioned" if wait else "uploaded"
    if any(row["state"] != wanted for row in rows):
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@bucket_app.command("connect")
def connect_bucket(
    ctx: typer.Context,
    bucket: Annotated[str, typer.Argument(help="The bucket's name.")],
    dry_run: DryRun = False,
) -> None:
    """Have a bucket send its events to EventBridge; its other notifications stay as they are."""
    from captions_cli import notifications, printing

    given: Globals = ctx.obj
    # The stack need not be there yet: its first deployment may name this bucket.
    done = notifications.connect(given.stack().client("s3"), bucket, dry_run=dry_run)
    if given.json:
        printing.print_json({"dry_run": dry_run, **vars(done)})
        return
    if not done.changed:
        say(f"{bucket} sends its events to EventBridge already")
    else:
        say(f"{bucket} {'would send' if dry_run else 'sends'} its events to EventBridge")
    for other in done.others:
        say(f"kept: {other}")


app.add_typer(bucket_app, name="bucket")
