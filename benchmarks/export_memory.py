"""What `captions export` takes of memory and time for a day of many records: `python benchmarks/export_memory.py`.

Records are made as they are read, in the place of the table, so that what is measured is the export alone: its rows,
its files, and no client of AWS. Each format runs in a process of its own, whose peak of resident memory is printed.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from captions.records.listing import Page, Position
from captions.records.record import Provenance, Record, Result
from captions_cli import exporting

DAY = date(2026, 11, 1)
TEXT = "Two ospreys on their nest above a lake, evenly lit, with dark firs behind them. "


class MadeListing:
    """Yields pages of made records; every thousandth has a transcript of `long` characters."""

    number, long = 0, 0

    def __init__(self, *_: Any) -> None:
        self.made = 0

    def page(self, *_: Any, limit: int, after: Any) -> Page:
        """Return the next page."""
        numbers = range(self.made, min(self.made + limit, self.number))
        self.made += len(numbers)
        more = Position(0, str(self.made)) if self.made < self.number else None
        return Page(tuple(self.record(number) for number in numbers), more)

    def record(self, number: int) -> Record:
        """Return one record, like no other."""
        text = TEXT * (self.long // len(TEXT)) if number % 1_000 == 0 else f"{TEXT}Number {number}."
        at = f"{DAY}T12:00:00.{number:06}Z"
        call = {"model": "GLM-4.6V", "outcome": "ok", "prompt_tokens": 700, "completion_tokens": 90, "cost": "0.0003"}
        return Record(
            asset=f"media/{number}", bucket="media", key=f"photos/{number}.jpg", sequencer=f"{number:016x}",
            state="captioned", kind="image", media_type="image/jpeg", size=1_000_000 + number, source="model",
            result=Result(text=text, language="en", task="caption", tags=("bird", "lake"), confidence=0.9),
            provenance=Provenance(model="GLM-4.6V", attempts=(call,), cost="0.0003"),
            received_at=at, completed_at=at, updated_at=at,
        )  # fmt: skip


def measured(form: Any, number: int, long: int) -> tuple[int, float, int]:
    """Export a day; return the peak of resident memory in bytes, seconds, and the bytes of its file."""
    MadeListing.number, MadeListing.long = number, long
    vars(exporting)["Listing"] = MadeListing
    stack: Any = SimpleNamespace(client=lambda service: None, captions_table="captions", bucket="media")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scope = exporting.Scope("made", form)
        (day,) = exporting.export(stack, Path(folder), scope, DAY, DAY, now=time.time())
        assert day.rows == number
        size = Path(day.path).stat().st_size
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024, time.monotonic() - began, size


def main() -> None:
    """Print a row for each format and number of records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--long", type=int, default=200_000, help="characters of every thousandth text")
    options = parser.parse_args()
    print("| format | records | peak MB | seconds | MB of the file |\n| --- | ---: | ---: | ---: | ---: |")
    for form in ("jsonl", "csv", "parquet"):
        for number in options.records:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak, seconds, size = pool.apply(measured, (form, number, options.long))
            print(f"| {form} | {number:,} | {peak / 1e6:.0f} | {seconds:.1f} | {size / 1e6:.1f} |")


if __name__ == "__main__":
    main()
