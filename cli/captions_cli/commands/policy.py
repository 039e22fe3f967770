"""What is asked about which upload, of which models: `policy check`, `policy show` and `route`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captions_cli.commands.options import Globals, pairs, say, text_of
from captions_cli.errors import ExitCode

if TYPE_CHECKING:
    from captions.gateway.catalogue import Catalogue

ModelsFile = Annotated[
    Path | None, typer.Option("--models", help="A models override to go by; otherwise the stack's, where there is one.")
]

app = typer.Typer()
policy_app = typer.Typer(no_args_is_help=True, help="What is asked about which upload, of which models.")


@policy_app.command("check")
def check_policy(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML that is to be laid over the packaged policy.")],
    models: ModelsFile = None,
) -> None:
    """Check a policy before it is put where the functions read it; exit code 2 names the place that is wrong."""
    from captions_cli import policies, printing

    given: Globals = ctx.obj
    policy = policies.checked(text_of(file), catalogue=_catalogue(given, models), where=str(file))
    if given.json:
        printing.print_json(policy.model_dump(mode="json"))
    else:
        say(f"{file} is a policy")


@policy_app.command("show")
def show_policy(ctx: typer.Context) -> None:
    """Show the policy the stack works by: the packaged one, its parameters, its override."""
    from captions_cli import policies, printing, rendering

    given: Globals = ctx.obj
    policy = policies.of(given.stack()).model_dump(mode="json", exclude_none=True)
    if given.json:
        printing.print_json(policy)
    else:
        printing.print_table(rendering.flat(policy))


@app.command()
def route(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A picture, recording or video on this machine.")],
    key: Annotated[str | None, typer.Option(help="The key it would have; its name by default.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE", help="As in --metadata caption-task=ocr.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="As in --tag caption:task=ocr.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A policy override to try; otherwise the stack's policy, where there is one.")
    ] = None,
    models: ModelsFile = None,
) -> None:
    """Explain what would become of a file: task, looks, models, expected tokens and cost. Nothing is uploaded."""
    from captions_cli import policies, printing, rendering

    given: Globals = ctx.obj
    catalogue = _catalogue(given, models)
    if policy is not None:
        rules = policies.checked(text_of(policy), catalogue=catalogue, where=str(policy))
    elif given.has_stack():
        rules = policies.of(given.stack())
    else:
        rules = policies.checked(None)
    explanation = policies.explain(
        file,
        key or file.name,
        rules,
        catalogue,
        metadata=pairs(metadata, "--metadata"),
        tags=pairs(tag, "--tag"),
    )
    facts = rendering.explanation(explanation)
    if given.json:
        printing.print_json(facts)
    else:
        printing.print_table(rendering.flat(facts))
    if explanation.rejected is not None:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


def _catalogue(given: Globals, models: Path | None) -> "Catalogue":
    """Return the models that a command knows: a file's, the stack's, or the packaged ones alone."""
    from captions_cli import endpoint_models

    if models is None and given.has_stack():
        return endpoint_models.catalogue_of(given.stack())
    return endpoint_models.catalogue_with(models)


app.add_typer(policy_app, name="policy")
