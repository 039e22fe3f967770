"""Has a stack's search function answer, which is beside the index, and shows what it found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from captions.cost import Cost
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


@dataclass(frozen=True)
class EmbeddingsSpent:
    """What embeddings of captions and queries cost."""

    calls: int
    tokens: int
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "calls": self.calls,
            "tokens": self.tokens,
            "dollars": format(self.cost.dollars, "f"),
            "unpriced_tokens": self.cost.unpriced_tokens,
            "uncounted_calls": self.cost.uncounted_calls,
        }


def spent(stack: Stack, days: int) -> EmbeddingsSpent:
    """Return what embeddings cost in the last days (UTC), today among them."""
    from captions.search import embeddings

    today = datetime.now(UTC).date()
    each = [
        embeddings.spent(stack.client("dynamodb"), stack.output("ControlTableName"), str(today - timedelta(days=ago)))
        for ago in range(days)
    ]
    calls, tokens, costs = zip(*each, strict=True)
    return EmbeddingsSpent(sum(calls), sum(tokens), Cost.sum(costs))


def table(items: Iterable[Mapping[str, Any]]) -> Table:
    """Return results as a table."""
    from captions_cli import printing

    shown = printing.columns("Upload", "Ended", "Category", "Caption", fold=("Caption",))
    for item in items:
        ended, category = str(item["completed_at"])[:10], str(item["category"] or item["kind"])
        shown.add_row(*map(printable, (str(item["key"]), ended, category, str(item["text"]))))
    return shown


def _invoke(stack: Stack, event: Mapping[str, Any]) -> dict[str, Any]:
    payload = json.dumps(event, ensure_ascii=False).encode()  # a word that is no text is told by its name
    name = stack.nested_outputs("Doors").get("SearchFunctionName")
    if name is None:
        raise CommandError(
            f"{stack.where} has no search: its parameter Search is {stack.parameters.get('Search', 'off')}; "
            "`captions up` and `captions deploy` take --parameter Search=words (docs/search.md)",
            ExitCode.NOT_CAPTIONED,
        )
    answer = stack.client("lambda").invoke(FunctionName=f"{name}:live", Payload=payload)
    reported: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise CommandError(f"the search function failed: {reported.get('errorMessage')}", ExitCode.NOT_CAPTIONED)
    return reported
