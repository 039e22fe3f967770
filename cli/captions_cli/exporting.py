"""Writes records into files, one for each day (UTC) on which uploads last ended: `captions export`.

A day's file appears whole or not at all, under its name; what was written in full after its day was over is not written
again, so that an export that was interrupted goes on where it stopped. Records are read and written some hundreds at
a time, however many a day has.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from captions.cost import Cost
from captions.records.listing import BEGINNING, Filters, Listing, Position, ended_on
from captions.records.record import Record, State
from captions.records.spending import calls_of
from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack

ExportFormat = Literal["jsonl", "csv", "parquet"]
ExportRow = dict[str, Any]
Write = Callable[[Sequence[ExportRow]], None]

PAGE = 200
LATE_SECONDS = 900.0
"""How long after a day its last ends may still be written, clocks and slow writes included."""
COLUMNS: Mapping[str, str] = {
    "bucket": "text", "key": "text", "version_id": "text", "state": "text", "reason": "text", "reason_message": "text",
    "kind": "text", "media_type": "text", "size": "number", "category": "text", "task": "text", "text": "text",
    "alt_text": "text", "language": "text", "tags": "list", "safety": "text", "confidence": "share", "data": "object",
    "source": "text", "reviewed": "text", "model": "text", "reported_model": "text", "prompt_version": "text",
    "calls": "number", "prompt_tokens": "number", "completion_tokens": "number", "dollars": "dollars",
    "unpriced_tokens": "number", "uncounted_calls": "number", "received_at": "time", "completed_at": "time",
    "updated_at": "time",
}  # fmt: skip
"""The columns and what they hold; new ones come at the end, none goes (docs/operation.md, "Exports")."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes a cell for a formula by (OWASP, "CSV Injection"), in full width too."""
_CONTROL = dict.fromkeys({*range(32), 127} - set(map(ord, "\t\n\r")), "\ufffd")
"""What no reader of CSV need take, such as NUL."""
GROUP_ROWS, GROUP_BYTES = 10_000, 64_000_000
"""Of a row group of Parquet, whichever comes first: small groups make files large, and slow to read."""
_SCALE = Decimal(1).scaleb(-18)


@dataclass(frozen=True)
class Scope:
    """What an export holds; a folder holds one."""

    stack: str
    format: ExportFormat
    prefix: str = ""
    states: tuple[State, ...] = ()


@dataclass(frozen=True)
class ExportedDay:
    """A day's file; None for rows where it was there already, 0 without a file where there is nothing."""

    day: str
    path: str
    rows: int | None


def row(record: Record) -> ExportRow:
    """Return a record as one flat row; what is not known is None, and a cost is what is known of it."""
    result, provenance = record.result, record.provenance
    calls = calls_of(record)
    spent = provenance.spent if provenance is not None and not calls else None
    cost = (spent or Cost.sum(map(Cost.of_call, calls))) + record.superseded
    given = (result.text if result.task == "alt_text" else result.data.get("alt_text")) if result else None

    def summed(name: str) -> int:
        return sum(int(call.get(name) or 0) for call in calls)

    return {
        "bucket": record.bucket,
        "key": record.key,
        "version_id": record.version_id,
        "state": record.state,
        "reason": record.reason.code if record.reason else None,
        "reason_message": record.reason.message if record.reason else None,
        "kind": record.kind,
        "media_type": record.media_type,
        "size": record.size,
        "category": provenance.category if provenance else None,
        "task": result.task if result else None,
        "text": result.text if result else None,
        "alt_text": given if isinstance(given, str) else None,
        "language": result.language if result else None,
        "tags": list(result.tags) if result else [],
        "safety": result.safety if result else None,
        "confidence": result.confidence if result else None,
        "data": result.data if result else {},
        "source": record.source,
        "reviewed": record.human.action if record.human and record.reviewed else None,
        "model": provenance.model if provenance else None,
        "reported_model": provenance.reported_model if provenance else None,
        "prompt_version": provenance.prompt_version if provenance else None,
        "calls": sum(int(call.get("calls", 1)) for call in calls),
        "prompt_tokens": summed("prompt_tokens"),
        "completion_tokens": summed("completion_tokens"),
        "dollars": format(cost.dollars, "f"),
        "unpriced_tokens": cost.unpriced_tokens,
        "uncounted_calls": cost.uncounted_calls,
        "received_at": record.received_at or None,
        "completed_at": record.completed_at,
        "updated_at": record.updated_at or None,
    }


def pages(listing: Listing, bucket: str, scope: Scope, day: date) -> Iterator[list[ExportRow]]:
    """Yield the rows of a day, some hundreds at a time, the newest first."""
    states: tuple[State, ...] = scope.states or ("captioned", "rejected", "blocked", "failed", "deleted")
    filters = Filters((f"{bucket}/{scope.prefix}",), states=frozenset(states))
    after: Position | None = BEGINNING
    while after is not None:
        page = listing.page((ended_on(day),), filters, limit=PAGE, after=after)
        if page.records:
            yield [row(record) for record in page.records]
        after = page.next


def export(
    stack: Stack, folder: Path, scope: Scope, first: date, last: date, *, now: float, again: bool = False
) -> Iterator[ExportedDay]:
    """Write the days from `first` to `last` and yield each once its file is there.

    Raises CommandError where the folder holds another export, cannot be written, or what writes Parquet is missing.
    """
    opener = _opener(scope.format)
    listing = Listing(stack.client("dynamodb"), stack.captions_table)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, scope)
        bare: list[date] = []  # without records, before any day that has some
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            path = folder / f"{day.isoformat()}.{scope.format}"
            over = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC).timestamp() + LATE_SECONDS
            if not again and path.exists() and path.stat().st_mtime >= over:
                yield ExportedDay(day.isoformat(), str(path), None)
                continue
            read = pages(listing, stack.bucket, scope, day)
            first_page = next(read, [])
            if not first_page and len(bare) == number and not path.exists():
                bare.append(day)
                continue
            for earlier in bare:
                yield _written(folder, scope, opener, earlier, (), now)
            bare.clear()
            yield _written(folder, scope, opener, day, chain([first_page], read), now)
        # Where there is nothing yet, files without a row would only look like an export.
        yield from (ExportedDay(day.isoformat(), str(folder / f"{day}.{scope.format}"), 0) for day in bare)
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error}", ExitCode.USAGE) from error


def _written(
    folder: Path,
    scope: Scope,
    opener: Callable[[Path], AbstractContextManager[Write]],
    day: date,
    read: Iterable[Sequence[ExportRow]],
    now: float,
) -> ExportedDay:
    path, rows = folder / f"{day.isoformat()}.{scope.format}", 0
    with _whole(path, now) as part, opener(part) as write:
        for page in filter(None, read):
            write(page)
            rows += len(page)
    return ExportedDay(day.isoformat(), str(path), rows)


def _claim(folder: Path, scope: Scope) -> None:
    """Note what a folder's export holds; raises CommandError where it holds another."""
    about = json.loads(json.dumps({**asdict(scope), "columns": list(COLUMNS)}))
    note = folder / "export.json"
    try:
        noted = json.loads(note.read_text())
    except FileNotFoundError:
        part = folder / f".{note.name}.{os.getpid()}.part"
        part.write_text(json.dumps(about, indent=2) + "\n")
        part.replace(note)  # a note that ends half way would keep the folder from ever being used
        return
    except ValueError as error:
        raise CommandError(f"{note} cannot be read: {error}", ExitCode.USAGE) from error
    if noted != about:
        raise CommandError(f"{folder} holds another export ({note}): name a folder of its own", ExitCode.USAGE)


@contextmanager
def _whole(path: Path, now: float) -> Iterator[Path]:
    """Give a file to write that takes the place of `path` once the block is over, and goes where it fails.

    It gets the time its reading began: what a day that was not over lacks is then read at the next export.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.utime(part, (now, now))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _opener(form: ExportFormat) -> Callable[[Path], AbstractContextManager[Write]]:
    if form == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise CommandError(
                "Parquet needs pyarrow, which is not installed: pip install 'media-captions[parquet]'", ExitCode.USAGE
            ) from error
        return _parquet
    return _text_file(as_lines if form == "jsonl" else as_csv)


def _text_file(writer: Callable[[IO[str]], Write]) -> Callable[[Path], AbstractContextManager[Write]]:
    @contextmanager
    def opened(path: Path) -> Iterator[Write]:
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            yield writer(file)

    return opened


def as_lines(file: IO[str]) -> Write:
    """Write rows as JSON Lines."""

    def write(rows: Sequence[ExportRow]) -> None:
        file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)

    return write


def as_csv(file: IO[str]) -> Write:
    """Write rows as CSV (RFC 4180), their names first; lists and objects are JSON.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    out = csv.writer(file)
    out.writerow(COLUMNS)

    def write(rows: Sequence[ExportRow]) -> None:
        out.writerows([_cell(kind, each[name]) for name, kind in COLUMNS.items()] for each in rows)

    return write


def _cell(kind: str, value: Any) -> Any:
    if kind in ("list", "object"):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        value = value.translate(_CONTROL)
    if kind == "text" and isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "text": pa.string(), "object": pa.string(), "list": pa.list_(pa.string()), "number": pa.int64(),
        "share": pa.float64(), "dollars": pa.decimal128(38, 18), "time": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])

    def typed(kind: str, value: Any) -> Any:
        if value is None:
            return None
        match kind:
            case "object":
                return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
            case "text":
                return value.encode("utf-8", "replace").decode()
            case "list":
                return [entry.encode("utf-8", "replace").decode() for entry in value]
            case "dollars":
                return Decimal(value).quantize(_SCALE)
            case "time":
                return datetime.fromisoformat(value)
        return value

    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        held: list[pa.RecordBatch] = []

        def write_group() -> None:
            if held:
                out.write_table(pa.Table.from_batches(held))
                held.clear()

        def write(rows: Sequence[ExportRow]) -> None:
            columns = {name: [typed(kind, each[name]) for each in rows] for name, kind in COLUMNS.items()}
            held.append(pa.RecordBatch.from_pydict(columns, schema=schema))
            sizes = [(batch.num_rows, batch.nbytes) for batch in held]
            if sum(rows for rows, _ in sizes) >= GROUP_ROWS or sum(size for _, size in sizes) >= GROUP_BYTES:
                write_group()

        yield write
        write_group()
