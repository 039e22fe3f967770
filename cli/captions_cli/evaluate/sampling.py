"""A labelled set from a stack: uploads whose captions people put into their own words, with those as the truth."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from captions.config.policy import is_language
from captions.records.record import Record
from captions.routing.routes import CONTEXT, METADATA_PREFIX
from captions.uploads.s3_objects import GoneError, Objects, UnreadableError
from captions_cli import listing
from captions_cli.errors import CommandError, ExitCode
from captions_cli.evaluate.labels import Measure
from captions_cli.stack import Stack

_LABELS: dict[str, Measure] = {
    "caption": "caption",
    "alt_text": "alt_text",
    "ocr": "text",
    "code": "code",
    "transcribe": "transcript",
}
"""Tasks whose text is all of the answer that a person corrects."""
_LONGEST_SUFFIX = 8


@dataclass(frozen=True)
class Sampled:
    """What was drawn: of `fitting` uploads `drawn`, of which `gone` could not be read any more."""

    fitting: int
    drawn: int
    gone: int


def sample(stack: Stack, folder: Path, number: int, *, seed: int, prefix: str, days: int, accepted: bool) -> Sampled:
    """Draw uploads by chance and write them and their labels into an empty folder; the same ones for the same seed.

    `accepted` takes models' captions as well that people found right.

    Raises CommandError when the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} is there already, and not empty", ExitCode.USAGE)
    fitting = (
        record
        for record in listing.recent(stack, states=("captioned",), prefix=prefix, days=days)
        if _truth(record, accepted=accepted) is not None
    )
    drawn, count = _drawn(fitting, number, seed)
    objects = Objects(stack.client("s3"))
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows, gone = [], 0
    for record in drawn:
        try:
            fetched = objects.fetch(record.upload)
        except (GoneError, UnreadableError):
            gone += 1
            continue
        name = _name(record)
        (media / name).write_bytes(fetched.data)
        row = _row(record, f"media/{name}", accepted=accepted)
        prefix_of = METADATA_PREFIX + CONTEXT
        context = {key[len(prefix_of) :]: value for key, value in fetched.metadata.items() if key.startswith(prefix_of)}
        rows.append(row | ({"context": context} if context else {}))
    # Last, and in one piece: a folder without it is none that was drawn to its end.
    labels = folder / "labels.jsonl"
    partial = folder / "labels.jsonl.part"
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    partial.replace(labels)
    return Sampled(count, len(rows), gone)


def _drawn(records: Iterable[Record], number: int, seed: int) -> tuple[list[Record], int]:
    """Return `number` of the records, each equally likely, and how many there were, without holding all of them.

    Each gets a number by chance from its name and the seed; those with the smallest are drawn.
    """
    import heapq

    count = 0
    held: list[tuple[float, str, Record]] = []
    for record in records:
        count += 1
        rank = random.Random(f"{seed}/{record.asset}").random()  # noqa: S311 - it draws a sample
        entry = (-rank, record.asset, record)
        if len(held) < number:
            heapq.heappush(held, entry)
        elif entry > held[0]:
            heapq.heapreplace(held, entry)
    return [record for _, _, record in sorted(held, key=lambda entry: entry[1])], count


def _truth(record: Record, *, accepted: bool) -> str | None:
    human, result = record.human, record.result
    if not record.reviewed or human is None or result is None or result.task not in _LABELS:
        return None
    if human.action == "edited":
        return human.text or None
    return (result.text or None) if accepted else None


def _row(record: Record, path: str, *, accepted: bool) -> dict[str, Any]:
    assert record.result is not None
    assert record.human is not None
    language = record.human.language if record.human.action == "edited" else record.result.language
    row = {"path": path, _LABELS[record.result.task]: _truth(record, accepted=accepted)}
    return row | ({"language": language} if is_language(language) and language != "und" else {})


def _name(record: Record) -> str:
    """Return a file's name that no key can lead astray."""
    suffix = PurePosixPath(record.key).suffix[1:].lower()
    known = f".{suffix}" if suffix.isalnum() and suffix.isascii() and len(suffix) <= _LONGEST_SUFFIX else ""
    return hashlib.sha256(f"{record.asset}\0{record.version_id or ''}".encode()).hexdigest()[:24] + known
