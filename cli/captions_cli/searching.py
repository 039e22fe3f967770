"""Has a stack's search function answer, which is beside the index, and shows what it found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable
from captions_cli.stack import Stack

if TYPE_CHECKING:
    from rich.table import Table


def search(stack: Stack, text: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return `items`, `cursor` and `relaxed`; `about` are fields of SearchQuery. Raises CommandError."""
    page = _invoke(stack, {"search": {"text": text, **about}})
    if "problem" in page:
        raise CommandError(printable(page["problem"]), ExitCode.USAGE)
    return page


def index_since(stack: Stack, since: datetime) -> None:
    """Have everything captioned since then compared with the index. Raises CommandError."""
    _invoke(stack, {"since": since.timestamp()})


def table(items: Iterable[Mapping[str, Any]]) -> Table:
    """Return results as a table."""
    from captions_cli import rendering

    shown = rendering.columns("Upload", "Ended", "Category", "Caption", fold=("Caption",))
    for item in items:
        ended, category = str(item["completed_at"])[:10], str(item["category"] or item["kind"])
        shown.add_row(*map(printable, (str(item["key"]), ended, category, str(item["text"]))))
    return shown


def _invoke(stack: Stack, event: Mapping[str, Any]) -> dict[str, Any]:
    name = stack.nested("Doors", "SearchFunctionName")
    answer = stack.client("lambda").invoke(FunctionName=f"{name}:live", Payload=json.dumps(event))
    reported: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise CommandError(f"the search function failed: {reported.get('errorMessage')}", ExitCode.NOT_CAPTIONED)
    return reported
