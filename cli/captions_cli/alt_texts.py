"""Alt texts in bulk: JSON lines of what is written about pictures in, JSON lines of alt texts out."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from captions_cli import endpoint_models
from captions_cli.bulk_alt_texts import AltTextItem, AltTexts, generate_alt_texts
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack


def items_of(path: Path) -> list[AltTextItem]:
    """Read one item a line: an object with `id`, and any other names whose values are text.

    Raises CommandError, with the line's number, for a file that is not like that or names an id twice.
    """
    items: list[AltTextItem] = []
    ids: set[str] = set()
    try:
        # A text may hold what else ends a line (U+2028, U+0085); JSON leaves it as it is.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", ExitCode.USAGE) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{path}, line {number}: no JSON ({error})", ExitCode.USAGE) from error
        if not isinstance(values, dict) or not isinstance(values.get("id"), str) or not values["id"]:
            raise CommandError(f"{path}, line {number}: no object with an id that is text", ExitCode.USAGE)
        if values["id"] in ids:
            raise CommandError(f"{path}, line {number}: the id {values['id']!r} was there before", ExitCode.USAGE)
        ids.add(values["id"])
        texts = {name: value for name, value in values.items() if name != "id" and isinstance(value, str)}
        items.append(AltTextItem(id=values["id"], context=texts))
    return items


def written(
    stack: Stack, items: Sequence[AltTextItem], chain: Sequence[str], language: str, seconds: float
) -> AltTexts:
    """Write the alt texts with the stack's endpoints and catalogue.

    Raises CommandError when a model of the chain is not in the catalogue.
    """
    from captions.gateway import Endpoint, Gateway

    catalogue = endpoint_models.catalogue_of(stack)
    if unknown := [name for name in chain if name not in catalogue.models or not catalogue.models[name].enabled]:
        raise CommandError(f"the catalogue has no model {unknown[0]!r}", ExitCode.USAGE)
    urls = endpoint_models.endpoints(stack, os.environ)
    keys = {url: endpoint_models.key(stack, url, os.environ) for url in urls}

    async def run() -> AltTexts:
        gateway = Gateway(endpoints=[Endpoint(url) for url in urls], keys=lambda force: keys, catalogue=catalogue)
        try:
            deadline = time.monotonic() + seconds
            return await generate_alt_texts(items, gateway=gateway, chain=chain, deadline=deadline, language=language)
        finally:
            await gateway.aclose()

    return asyncio.run(run())
