"""How a stack is: `status` and `doctor`."""

import typer

from captions_cli.commands.options import Globals, say
from captions_cli.errors import ExitCode

app = typer.Typer()


@app.command()
def status(ctx: typer.Context) -> None:
    """Show whether the stack is up, its queues, dead letters, uploads by state, and the alarms that ring."""
    from captions_cli import alarms, bulk_lane, listing, printing, redriving, rendering

    given: Globals = ctx.obj
    stack = given.stack()
    sqs = stack.client("sqs")
    outputs = {**stack.outputs, **stack.nested_outputs(redriving.DOORS)}
    urls = {name.removesuffix("QueueUrl"): url for name, url in sorted(outputs.items()) if name.endswith("QueueUrl")}
    depths = {name: redriving.depth(sqs, url) for name, url in urls.items()}
    depths |= bulk_lane.depths(stack)
    lane = bulk_lane.look(stack)
    counts, complete = listing.count(stack)
    watched = alarms.look(stack)
    if given.json:
        printing.print_json(
            {
                "stack": stack.name,
                "region": stack.region,
                "aws_endpoint_url": stack.endpoint_url,
                "bucket": stack.bucket,
                "queues": depths,
                "bulk": lane.as_dict() if lane is not None else None,
                "uploads": counts,
                "uploads_complete": complete,
                "alarms": vars(watched),
            }
        )
        return
    say(f"{stack.where} is up, bucket {stack.bucket}")
    printing.print_table(rendering.queue_depths(depths))
    printing.print_table(rendering.state_counts(counts, complete=complete))
    if lane is not None:
        say(rendering.waiting_for_a_batch(lane.waiting))
        if lane.batches:
            printing.print_table(rendering.batches(lane.batches))
    for name in watched.ringing:
        say(f"in ALARM: {name}")
    if watched.why is not None:
        say(f"whether alarms ring is not known: {watched.why}")
    elif not watched.ringing:
        say(f"none of {watched.all} alarms rings")


@app.command()
def doctor(ctx: typer.Context) -> None:
    """Look for what keeps the stack from captioning, and say what to do; exit code 1 when something does."""
    from captions_cli import doctor as examination
    from captions_cli import printing, rendering

    given: Globals = ctx.obj
    findings = [vars(finding) for finding in examination.examine(given.stack())]
    if given.json:
        printing.print_json(findings)
    else:
        printing.print_table(rendering.findings(findings))
    levels = [finding["level"] for finding in findings]
    problems, warnings, unknown = map(levels.count, ("problem", "warning", "unknown"))
    say(
        f"{problems} problems"
        + (f", {warnings} warnings" if warnings else "")
        + (f", {unknown} questions without an answer" if unknown else "")
    )
    if problems:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)
