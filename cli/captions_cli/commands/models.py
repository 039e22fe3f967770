"""The models, and asking them without an upload: `models` and `alt-texts`."""

from pathlib import Path
from typing import Annotated

import typer

from captions_cli.commands.options import Globals, say
from captions_cli.errors import CommandError, ExitCode

ALT_TEXT_MODELS = ["GLM-4-Plus", "deepseek-ai/DeepSeek-V4-Flash"]

app = typer.Typer()


@app.command()
def models(
    ctx: typer.Context,
    set_price: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=INPUT,OUTPUT", help="Dollars per million tokens, written to the models override."),
    ] = None,
    take_prices: Annotated[
        bool, typer.Option("--take-prices", help="Write what endpoints list of models that have no price.")
    ] = False,
) -> None:
    """Show the model catalogue beside what the stack's endpoint offers, or give models their prices."""
    from captions_cli import endpoint_models, printing, rendering

    given: Globals = ctx.obj
    if set_price or take_prices:
        _set_prices(given, set_price or [], take=take_prices)
        return
    offers = endpoint_models.compare(given.stack())
    if given.json:
        printing.print_json([rendering.offer(offer.endpoint, offer.catalogue, offer.comparison) for offer in offers])
        return
    for offer in offers:
        say(f"models at {offer.endpoint}")
        printing.print_table(rendering.models(offer.catalogue, offer.comparison))
        if offer.comparison.new:
            say(f"{len(offer.comparison.new)} more that the catalogue does not know, see --output json")


def _set_prices(given: Globals, assignments: list[str], *, take: bool) -> None:
    from datetime import UTC, datetime

    from captions_cli import endpoint_models, printing, rendering, setting_prices

    stack = given.stack()
    prices = setting_prices.offered(endpoint_models.compare(stack)) if take else {}
    prices |= setting_prices.parse(assignments, endpoint_models.catalogue_of(stack))
    if not prices:
        raise CommandError("the endpoint lists no price that the catalogue lacks", ExitCode.UNREACHABLE)
    today = datetime.now(UTC).date()
    where = setting_prices.write(stack, prices, today)
    if given.json:
        texts = {name: {"input_price": price.input, "output_price": price.output} for name, price in prices.items()}
        printing.print_json({"written_to": where, "priced_on": today.isoformat(), "models": texts})
        return
    for name, price in prices.items():
        sides = {"input": price.input, "output": price.output}
        known = " and ".join(f"${dollars:f} of {side}" for side, dollars in sides.items() if dollars is not None)
        say(f"{rendering.one_line(name)}: {known} per million tokens, as of {today}, in {where}")


@app.command("alt-texts")
def alt_texts(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSON lines: an id, and what is written about the picture.")],
    model: Annotated[list[str] | None, typer.Option(help="Models in order; a long context serves best.")] = None,
    language: Annotated[str, typer.Option(help="Language of the alt texts (BCP-47).")] = "en",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds in all.")] = 600.0,
) -> None:
    """Write alt texts in bulk from what is written about pictures; JSON lines, one for each item in its order."""
    from captions.tasks.languages import tag
    from captions_cli import alt_texts as bulk
    from captions_cli import printing, rendering

    given: Globals = ctx.obj
    standard = tag(language)
    if standard is None:
        raise CommandError(f"{language!r} is no language tag (BCP-47)", ExitCode.USAGE)
    items = bulk.items_of(file)
    done = bulk.written(given.stack(), items, model or ALT_TEXT_MODELS, standard, timeout)
    for item in done.items:
        printing.print_json_text(item.model_dump_json(exclude_defaults=True))
    missing = sum(item.text is None for item in done.items)
    cost = rendering.cost(done.cost)
    calls = "1 call" if done.calls == 1 else f"{done.calls} calls"
    say(f"{len(done.items) - missing} of {len(done.items)} alt texts in {calls}, for {cost}")
    if missing:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)
