"""Writes models' prices into the document that a stack's `ModelsOverride` names, with the day they were read."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from captions.gateway.catalogue import Catalogue, CatalogueError, load
from captions.overrides import UnreadableOverrideError, laid_over, read
from captions_cli.endpoint_models import Offer
from captions_cli.errors import CommandError, ExitCode
from captions_cli.price_lists import MOST_PRICE, Price
from captions_cli.stack import Stack

_TABLE = re.compile(r"""\s*\[\s*models\s*\.\s*(?:"([^"\\]+)"|'([^']+)'|([\w-]+))\s*\]\s*(?:#.*)?$""")
_ANY_TABLE = re.compile(r"\s*\[")


def parse(given: Iterable[str], catalogue: Catalogue) -> dict[str, Price]:
    """Read `MODEL=INPUT,OUTPUT`, in dollars per million tokens; either price may be left out.

    Raises CommandError when the catalogue has no such model, or a price cannot be one.
    """
    prices: dict[str, Price] = {}
    for text in given:
        name, equals, both = text.rpartition("=")
        into, comma, out = both.partition(",")
        if not equals or not comma or not (into.strip() or out.strip()):
            raise CommandError(f"{text!r} is not MODEL=INPUT,OUTPUT in dollars per million tokens", ExitCode.USAGE)
        if name not in catalogue.models:
            raise CommandError(f"the catalogue has no model {name!r}", ExitCode.USAGE)
        prices[name] = Price(_dollars(into), _dollars(out))
    return prices


def _dollars(text: str) -> Decimal | None:
    if not text.strip():
        return None
    try:
        price = Decimal(text.strip())
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or not 0 <= price <= MOST_PRICE:
        raise CommandError(f"{text.strip()!r} is no price: $0 to ${MOST_PRICE:,} per million tokens", ExitCode.USAGE)
    return price


def offered(offers: Iterable[Offer]) -> dict[str, Price]:
    """Return the prices that endpoints list of models that lack them; the first endpoint's, as it is asked first."""
    changes: dict[str, dict[str, Decimal]] = {}
    for offer in offers:
        for change in offer.comparison.price_changes:
            if change.catalogue is None:
                changes.setdefault(change.model, {}).setdefault(change.what, change.endpoint)
    return {name: Price(**sides) for name, sides in changes.items()}


def write(stack: Stack, prices: Mapping[str, Price], today: date) -> str:
    """Write prices into the stack's models override; returns where that is. Its functions read it every few minutes.

    Raises CommandError when the stack has none, when it cannot be read or written, or what results is no catalogue.
    """
    where = stack.parameters.get("ModelsOverride")
    if not where:
        lines = with_prices("", prices, today).strip()
        raise CommandError(
            "the stack has no models override to write to: put these lines into an SSM parameter, and deploy with its "
            f"name as ModelsOverride:\n{lines}",
            ExitCode.USAGE,
        )
    try:
        text = read(where, stack.client)
    except UnreadableOverrideError as error:
        raise CommandError(str(error), ExitCode.AWS) from error
    try:
        changed = with_prices(text, prices, today)
        load(changed)
    except (CatalogueError, tomllib.TOMLDecodeError) as error:
        raise CommandError(f"{where}: {error}", ExitCode.USAGE) from error
    _put(stack, where, text, changed)
    return where


def with_prices(text: str, prices: Mapping[str, Price], today: date) -> str:
    """Return an override document with these prices; whatever else it says, and its comments, stay.

    Raises CommandError where that cannot be done line by line.
    """
    lines = text.splitlines()
    expected: dict[str, Any] = tomllib.loads(text, parse_float=Decimal)
    for name, price in prices.items():
        sides = {"input_price": price.input, "output_price": price.output, "cached_input_price": price.cached_input}
        fields: dict[str, Any] = {side: dollars for side, dollars in sides.items() if dollars is not None}
        fields["priced_on"] = today
        lines = _edited(lines, name, fields)
        expected = laid_over(expected, {"models": {name: fields}})
    changed = "\n".join(lines) + "\n"
    try:
        as_expected = tomllib.loads(changed, parse_float=Decimal) == expected
    except tomllib.TOMLDecodeError:
        as_expected = False
    if not as_expected:
        raise CommandError(
            f"the models override does not have {', '.join(prices)} in a table of its own: put the prices in by hand",
            ExitCode.USAGE,
        )
    return changed


def _edited(lines: list[str], name: str, fields: Mapping[str, Any]) -> list[str]:
    new = [f"{field} = {value}" for field, value in fields.items()]
    for at, line in enumerate(lines):
        header = _TABLE.match(line)
        if header and name in header.groups():
            end = next((to for to in range(at + 1, len(lines)) if _ANY_TABLE.match(lines[to])), len(lines))
            old = re.compile(rf"\s*(?:{'|'.join(fields)})\s*=")
            return [
                *lines[: at + 1],
                *new,
                *(line for line in lines[at + 1 : end] if not old.match(line)),
                *lines[end:],
            ]
    return [*lines, *([""] if lines else []), f'[models."{name}"]', *new]


def _put(stack: Stack, where: str, before: str, text: str) -> None:
    if where.startswith("s3://"):
        bucket, _, key = where.removeprefix("s3://").partition("/")
        s3 = stack.client("s3")
        stored = s3.get_object(Bucket=bucket, Key=key)
        if stored["Body"].read().decode() != before:
            raise CommandError(f"{where} was changed meanwhile; try again", ExitCode.AWS)
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), IfMatch=stored["ETag"])
        return
    ssm = stack.client("ssm")
    kind = ssm.get_parameter(Name=where)["Parameter"]["Type"]
    ssm.put_parameter(Name=where, Value=text, Type=kind, Overwrite=True)
