"""What several commands share: the options of all of them, those of some, and messages to the user."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from captions_cli.errors import CommandError, ExitCode
from captions_cli.printable import printable_lines
from captions_cli.stack import Choice, Stack, connect, home


def finite(number: float | None) -> float | None:
    """Return a number of the command line; raises BadParameter for infinity and others that times cannot hold."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no finite number")
    if number is not None and number > MOST:
        raise typer.BadParameter(f"{number} is more than {MOST:,}")
    return number


def plausible(day: datetime | None) -> datetime | None:
    """Return a day of the command line; raises BadParameter for one that cannot be calculated with."""
    if day is not None and not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise typer.BadParameter(f"{day.year} is no year from {_FIRST_YEAR} to {_LAST_YEAR}")
    return day


MOST = 1_000_000_000
"""Of whatever is counted on the command line."""
_FIRST_YEAR, _LAST_YEAR = 2000, 2999
Prefix = Annotated[str, typer.Option(help="Only keys that begin so.")]
Days = Annotated[int, typer.Option(min=1, max=3_650, help="How many days back to look.")]
Key = Annotated[str, typer.Argument(help="The key, or s3://BUCKET/KEY.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of template.yaml.")
]


@dataclass
class Globals:
    """The options that every command takes."""

    output: Literal["table", "json"] = "table"
    choice: Choice = field(default_factory=Choice)

    @property
    def json(self) -> bool:
        """Whether stdout is to be JSON."""
        return self.output == "json"

    def stack(self) -> Stack:
        """Return the stack that the command is about."""
        return connect(self.choice, home())

    def has_stack(self) -> bool:
        """Whether there may be a stack: the command line names one, or the local one is up."""
        return self.choice.names_a_deployed_stack or (home() / "stack.json").exists()


def pairs(given: list[str] | None, option: str = "--parameter") -> dict[str, str]:
    """Return the names and values of NAME=VALUE arguments. Raises CommandError for one that has no name or no `=`."""
    values = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{option} takes NAME=VALUE, not {pair!r}", ExitCode.USAGE)
        values[name] = value
    return values


def text_of(file: Path) -> str:
    """Return a file's text. Raises CommandError if it cannot be read, or is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", ExitCode.USAGE) from error


def say(text: str) -> None:
    """Write a message to the user on stderr."""
    typer.echo(printable_lines(text), err=True)
