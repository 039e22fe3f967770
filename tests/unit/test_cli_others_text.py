"""What other people write (keys, endpoints' and AWS's messages) is shown as it is, and no terminal acts upon it."""

import json
import re
import sys
from typing import Any

import pytest
import typer
from rich.table import Table

from captions.records.record import Reason, Record
from captions_cli import main, printing, progress, rendering
from captions_cli.errors import CommandError, ExitCode
from captions_cli.uploading import NotSent

MARKUP = "400: unknown field [temperature] at [/body], :warning: see [link=https://x]here[/link] [bold]\\[x]"
ACTED_UPON = "a\x1b[2Jb\x9b31m\x85c\x7fd\u202egnp\u2066e\u200bf\ufeffg\u2028h\x00i\U000e0041"
DANGEROUS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)


def tables(text: str) -> dict[str, Table]:
    record = Record(
        asset=f"media/{text}", bucket="media", key=text, state="failed", sequencer="0" * 64,
        reason=Reason(code="c", message=text),
    )  # fmt: skip
    return {
        "findings": rendering.findings([{"check": text, "level": "problem", "message": text, "remedy": text}]),
        "standings": rendering.standings([{"environment": text, "status": text, "changed": None, "reason": text}]),
        "changes": rendering.changes(
            [{"action": text, "resource": text, "type": text, "replacement": "False", "properties": [text]}]
        ),
        "queues": rendering.queue_depths({text: {"visible": 1, "in_flight": 0, "delayed": 0}}),
        "records": rendering.records([record]),
        "details": rendering.details(record),
        "flat": rendering.flat({text: text}),
    }


@pytest.mark.parametrize("name", list(tables("x")))
def test_brackets_and_colons_stand_in_tables_as_they_were_written(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printing.print_table(tables(MARKUP)[name])
    assert MARKUP in capsys.readouterr().out


@pytest.mark.parametrize("name", list(tables("x")))
def test_tables_show_as_escapes_what_a_terminal_acts_upon(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_table(tables(ACTED_UPON)[name])
    shown = capsys.readouterr().out
    assert not DANGEROUS.search(shown)
    assert "\\x1b" in shown
    assert "\\u202e" in shown


def test_tables_do_the_same_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "400")
    printing.print_table(tables("[/x] [red]y :smile: \u202ez")["findings"])
    assert "[/x] [red]y :smile: \\u202ez" in capsys.readouterr().out


def test_progress_and_errors_do_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.UploadProgress(1) as shown:
        shown.sent(NotSent("[/key]\x9b", "[/why] \u202e"))
    printing.stderr().print("[/body] :warning:")
    with pytest.raises(typer.Exit):
        main._fail(CommandError("[/error]\nnext \x1b[2J line", ExitCode.AWS))
    text = capsys.readouterr().err
    assert "not uploaded [/key]\\x9b ([/why] \\u202e)" in text
    assert "[/body] :warning:" in text
    assert "captions: [/error]\nnext \\x1b[2J line\n" in text


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso-8859-1"])
def test_json_says_the_same_with_escapes_for_what_a_terminal_acts_upon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    value: Any = {ACTED_UPON: [ACTED_UPON, MARKUP, "é 猫 😀 \ud800"], "n": 1}
    monkeypatch.setattr(sys.stdout, "_encoding", encoding, raising=False)
    monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
    printing.print_json(value)
    shown = capsys.readouterr().out
    assert not DANGEROUS.search(shown)
    assert json.loads(shown) == value
    assert ("猫" in shown) == (encoding == "utf-8")
    assert shown.isascii() == (encoding != "utf-8")
