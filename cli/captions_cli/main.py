"""The `captions` command."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from captions_cli.commands import (
    backfill,
    deploy,
    evaluate,
    health,
    local,
    models,
    policy,
    records,
    review,
    search,
    uploads,
    webhooks,
)
from captions_cli.commands.options import Globals, say
from captions_cli.errors import CommandError, ExitCode, Terminated, explain
from captions_cli.printable import printable
from captions_cli.stack import Choice

GLOBAL_OPTIONS = ("--output", "-o", "--profile", "--region", "--stack-name")
ATTACHED = (*(f"{name}=" for name in GLOBAL_OPTIONS if name.startswith("--")), "-o")
"""How they begin with their value attached: --output=json, -ojson."""
EXIT_CODES = """Exit codes: 0 done (after upload: everything is captioned), 1 some upload is not captioned,
or doctor found a problem, 2 usage, 3 no such stack or it does not answer, 4 time ran out, 5 AWS refused,
130 interrupted, 143 terminated."""


class CaptionsGroup(TyperGroup):
    """Takes the global options before and after the command's name, and reports errors in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move global options to the front, up to a `--`."""
        front, rest = _hoisted(args)
        return super().parse_args(ctx, [*front, *rest])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it cannot do ends in a line on stderr and an exit code."""
        words = list(ctx.args)
        try:
            with _unwound_by_sigterm():
                return super().invoke(ctx)
        except CommandError as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail(CommandError("interrupted", ExitCode.INTERRUPTED))
        except Terminated:
            _fail(CommandError("terminated", ExitCode.TERMINATED))
        except UnicodeEncodeError as error:
            word = next((word for word in words if any("\udc80" <= char <= "\udcff" for char in word)), None)
            if word is None:
                raise
            _fail(CommandError(f"{word} is no Unicode text: {error.reason}", ExitCode.USAGE))
        except BrokenPipeError:
            # The reader, such as head, has seen enough; what is still buffered has nowhere to go.
            sys.stderr.close()
            raise typer.Exit(ExitCode.DONE) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with suppress(OSError):  # what is still buffered has nowhere to go either
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _fail(CommandError(f"the output cannot be written: {error.strerror}", ExitCode.USAGE))
        except Exception as error:
            explained = explain(error)
            if explained is None:
                _hint_at_files(error, words)
                raise
            _fail(explained)


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the command as Ctrl-C does, so that what it started is ended, and says why."""

    def end(*_: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hoisted(args: list[str]) -> tuple[list[str], list[str]]:
    front: list[str] = []
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return front, [*rest, word, *waiting]
        if word in GLOBAL_OPTIONS:
            front += [word, *waiting[:1]]
            del waiting[:1]
        elif word.startswith(ATTACHED):
            front.append(word)
        else:
            rest.append(word)
    return front, rest


def _hint_at_files(error: Any, words: list[str]) -> None:
    """Add to the error of an option that is none how a file of such a name is given."""
    files = [word for word in words if word.startswith("-") and Path(word).exists()]
    if files and hasattr(error, "option_name"):
        error.message += f". The file {printable(files[0])} is given as ./{printable(files[0])}."


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"captions {version('media-captions')}")
        raise typer.Exit


def _fail(error: CommandError) -> NoReturn:
    say(f"captions: {error.message}")
    raise typer.Exit(error.exit_code)


app = typer.Typer(
    cls=CaptionsGroup,
    help=f"Upload media, receive captions: on this machine or on AWS.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _globals(
    ctx: typer.Context,
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="What stdout holds; progress goes to stderr.")
    ] = "table",
    profile: Annotated[str | None, typer.Option(help="AWS profile; means a deployed stack.")] = None,
    region: Annotated[
        str | None, typer.Option(help="AWS region; means a deployed stack (`up`: the local one's).")
    ] = None,
    stack_name: Annotated[
        str | None, typer.Option(help="CloudFormation stack; means a deployed stack (`up`: the local one's).")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        # Keys and captions hold any character; a terminal of another encoding gets escapes instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    ctx.obj = Globals(output, Choice(stack_name, region, profile))


for _group in (local, health, uploads, records, search, review, backfill, models, policy, deploy):
    app.add_typer(_group.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(webhooks.app, name="webhooks")


if __name__ == "__main__":
    app()
