"""`captions alt-texts` with the endpoint that a stack's variables name."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from captions_cli import alt_texts
from captions_cli.commands.options import Globals
from captions_cli.errors import CommandError
from captions_cli.local.model_endpoint import LocalEndpoint
from captions_cli.main import app


class _Stack:
    """What is used of a stack: parameters that name no override, and no endpoint of its own."""

    where = "the test"
    parameters: ClassVar[dict[str, str]] = {}
    local_model_endpoint_url = None


def test_each_line_gets_its_alt_text_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(
        "\n".join(json.dumps(item) for item in (
            {"id": "b.jpg", "title": "Red kite over the hill", "year": 2020},
            {"id": "a.jpg"},
        )),
        encoding="utf-8",
    )  # fmt: skip
    monkeypatch.setattr(Globals, "stack", lambda self: _Stack())
    with LocalEndpoint(latency_scale=0.0) as endpoint:
        monkeypatch.setenv("CAPTIONS_ENDPOINT_URL", endpoint.url)
        monkeypatch.setenv("CAPTIONS_ENDPOINT_KEY", "sk-test")
        ran = CliRunner().invoke(app, ["alt-texts", str(file), "--model", "GLM-4-Plus"])

    first, second = (json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{"))
    assert (first["id"], first["text"]) == ("b.jpg", "Red kite over the hill")
    assert (second["id"], second["why"]) == ("a.jpg", "no_metadata")
    assert ran.exit_code == 1  # one has none
    assert "1 of 2 alt texts in 1 call" in ran.stderr


def test_a_line_ends_where_json_lines_end_and_a_mark_of_byte_order_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    titles = ["one\u2028two", "three\u0085four\u2029"]
    lines = [json.dumps({"id": title, "title": title}, ensure_ascii=False) for title in titles]
    file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    assert [item.id for item in alt_texts.items_of(file)] == titles


@pytest.mark.parametrize("line", ["{", "[]", '{"title": "x"}', '{"id": 7}', '{"id": "a"}\n{"id": "a"}', '{"id": ""}'])
def test_a_file_that_cannot_be_used_is_told_with_its_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(CommandError, match=r"line [12]"):
        alt_texts.items_of(file)
