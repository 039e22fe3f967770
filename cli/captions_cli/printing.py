"""How the commands print: data on stdout, as tables for people and JSON for programs; progress on stderr."""

import json
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from captions_cli.printable import printable, printable_json

MOST_PADDING = 60
"""Cells of a column's width where the output is no terminal: rows are never wrapped there, so that grep and cut see
whole lines, and a longer cell moves the rest of its own row alone."""


def stderr() -> Console:
    """The console for progress and errors."""
    return _console(stderr=True, soft_wrap=not sys.stderr.isatty())


def _console(**how: Any) -> Console:
    """Make a console that takes text as it is: neither `[...]` for markup nor `:name:` for an emoji."""
    return Console(highlight=False, markup=False, emoji=False, **how)


class _Table(Table):
    """A table whose cells are shown as they are, with what a terminal would act upon as escapes."""

    def add_row(self, *cells: Any, **how: Any) -> None:
        super().add_row(*map(_cell, cells), **how)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return Text(printable(value))
    if isinstance(value, Text) and not value.plain.isprintable():
        return Text(printable(value.plain), style=value.style)
    return value


def print_json(value: Any) -> None:
    """Print a value as one JSON document on stdout."""
    print_json_text(json.dumps(value, indent=2, ensure_ascii=False, default=_json))


def print_json_text(document: str) -> None:
    """Print a JSON document on stdout, in characters that its encoding has and no terminal acts upon."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    sys.stdout.write(printable_json(document, only_ascii=encoding != "utf8") + "\n")
    sys.stdout.flush()


def print_table(table: Table | Text) -> None:
    """Print a table on stdout: fitted to a terminal, one whole line per row otherwise."""
    if sys.stdout.isatty():
        _console().print(table)
        return
    lines = table.plain.splitlines() if isinstance(table, Text) else _plain_rows(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines if line.strip()))
    sys.stdout.flush()


def _plain_rows(table: Table) -> Iterator[str]:
    """A table's rows, its header first, without colours."""
    texts = [[str(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    lengths = [map(cell_len, column) for column in texts]
    widths = [max((length for length in column if length <= MOST_PADDING), default=0) for column in lengths]
    for row in zip(*texts, strict=True):
        cells = zip(row, widths, table.columns, strict=True)
        yield "  ".join(_padded(text, width, right=column.justify == "right") for text, width, column in cells)


def _padded(text: str, width: int, *, right: bool) -> str:
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding


def columns(*names: str, right: Iterable[str] = (), fold: Iterable[str] = (), clip: Iterable[str] = ()) -> Table:
    """An empty table; columns in `right` are aligned right.

    On a terminal, those in `fold` take what width is left on as many lines as they need, those in `clip` on one line,
    cut at its end. Elsewhere every row is one whole line.
    """
    terminal = sys.stdout.isatty()
    rights, folds, clips = set(right), set(fold), set(clip)
    # Columns with a share of the width only give way to the others in a table that takes all of it.
    shares = terminal and bool(folds or clips)
    table = _Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold", expand=shares)
    for name in names:
        table.add_column(
            name,
            justify="right" if name in rights else "left",
            overflow="ellipsis" if name in clips else "fold",
            no_wrap=name not in folds or not terminal,
            ratio=(3 if name in folds else 2 if name in clips else None) if shares else None,
        )
    return table


def _json(value: object) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
