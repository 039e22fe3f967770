"""Deployment to AWS: `deploy`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captions_cli.commands.options import Globals, pairs, say
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import home, read_local_state

if TYPE_CHECKING:
    from captions_cli.deploying import Deployer, DeploymentPlan

app = typer.Typer()


@app.command()
def deploy(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="ENVIRONMENTS", help="Of samconfig.toml; all without any.")
    ] = None,
    canary: Annotated[
        str | None, typer.Option(help="The environment that goes first; the first one by default.")
    ] = None,
    template: Annotated[Path, typer.Option(help="The built template.")] = Path(".aws-sam/build/template.yaml"),
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter for every environment.")
    ] = None,
    one_by_one: Annotated[bool, typer.Option("--one-by-one", help="No two environments at the same time.")] = False,
    bake: Annotated[float, typer.Option(min=0.0, help="Seconds for which a stack's alarms are watched.")] = 60.0,
    upload_timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds that the upload after each deployment may take; 0 uploads nothing.")
    ] = 300.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the change sets and the drift of each environment.")
    ] = False,
) -> None:
    """Deploy to samconfig.toml's environments: the canary first, checked by an upload and its alarms, then the rest.

    Stops at the first wave that fails; run again, it goes on where it stopped.
    """
    from captions_cli import background, deploying, printing, rendering

    given: Globals = ctx.obj
    root = background.project_root()
    built = (root / template).resolve()
    if not built.is_file():
        raise CommandError(f"{built} is not there; `make build` builds it", ExitCode.USAGE)
    if given.choice.stack_name is not None or given.choice.region is not None:
        raise CommandError("samconfig.toml says which stack of which region; name its environments", ExitCode.USAGE)
    chosen = deploying.choose(deploying.environments(root / "samconfig.toml"), names or [], canary)
    plan = deploying.DeploymentPlan(
        root=root,
        template=built,
        sam=deploying.find_sam(root),
        waves=deploying.waves(chosen, one_by_one=one_by_one),
        parameters=pairs(parameter),
        profile=given.choice.profile,
    )
    ledger = deploying.Ledger(home() / deploying.STATE_FILE, plan)
    deployer = deploying.Deployer(plan, ledger, deploying.Checks(bake, upload_timeout), home() / "deploy", say)
    if dry_run:
        _preview(given, plan, deployer)
        return
    _say_where()
    done = deployer.run()
    standings = [vars(ledger.standing[environment.name]) for environment in plan.all]
    if given.json:
        printing.print_json(standings)
    else:
        printing.print_table(rendering.standings(standings))
    if not done:
        say("stopped; `captions deploy` with the same build and parameters goes on from here")
        raise typer.Exit(ExitCode.AWS)


def _say_where() -> None:
    """Say that it goes to AWS where a stack on this machine is up, which other commands are about then."""
    if read_local_state(home()) is not None and not os.environ.get("AWS_ENDPOINT_URL"):
        say("a local stack is up, but this deploys to AWS; `captions up --empty` tells how to deploy to this machine")


def _preview(given: Globals, plan: "DeploymentPlan", deployer: "Deployer") -> None:
    """Show what a deployment would change in each environment, and what was changed there by hand."""
    from captions_cli import drift, printing, rendering

    previews = {
        environment.name: (deployer.preview(environment), drift.detect(deployer.stack(environment)))
        for environment in plan.all
    }
    if given.json:
        printing.print_json(
            {
                name: {
                    "changes": changes,
                    "drift": [vars(resource) for resource in drifted.resources],
                    "drift_unknown": drifted.why or None,
                }
                for name, (changes, drifted) in previews.items()
            }
        )
        return
    for name, (changes, drifted) in previews.items():
        say(f"{name}: {len(changes)} changes" if changes else f"{name}: nothing to change")
        if changes:
            printing.print_table(rendering.changes(changes))
        if not drifted.known:
            say(f"{name}: drift cannot be told: {drifted.why}")
        for resource in drifted.resources:
            say(f"{name}: drifted: {resource.logical_id} ({resource.status}): {resource.difference}")
