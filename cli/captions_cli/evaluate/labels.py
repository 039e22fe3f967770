"""Labelled media: a folder with a CSV or JSON Lines file that says what is true of each file."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from captions.config.policy import is_language
from captions.tasks import languages
from captions_cli.errors import CommandError, ExitCode

Measure = Literal["caption", "alt_text", "objects", "text", "scene_text", "chart", "code", "transcript"]

TASKS: Mapping[Measure, str] = {
    "caption": "caption",
    "alt_text": "alt_text",
    "objects": "objects",
    "text": "ocr",
    "scene_text": "ocr",
    "chart": "chart",
    "code": "code",
    "transcript": "transcribe",
}
"""Which task is asked for what a label is about."""
_TESTS: Mapping[Measure, str] = {
    "caption": "captions",
    "alt_text": "alt texts",
    "objects": "objects",
    "text": "OCR",
    "scene_text": "scene text",
    "chart": "charts",
    "code": "code",
    "transcript": "transcription",
}
_GATHERED: frozenset[Measure] = frozenset({"caption", "alt_text", "objects", "scene_text"})
"""Labels of which a file may have several, in one row or in rows of their own."""
_ALIASES = {
    "file": "path", "image": "path", "file_name": "path", "filename": "path", "captions": "caption", "lang": "language",
    "alt_texts": "alt_text", "alt": "alt_text",
}  # fmt: skip
_OTHERS = frozenset({"path", "language", "test", "context", "programming_language"})
_LONGEST_FIELD = 1_000_000
_SEPARATOR = re.compile(r"\s*;\s*")


@dataclass(frozen=True)
class LabelledPoint:
    """One value of a chart: its series (empty: the only one), what it belongs to, and the value."""

    series: str
    x: str
    y: float


@dataclass(frozen=True, eq=False)
class Item:
    """One question about one file, and what is true of it.

    `texts` are the expected captions, the expected text, code or transcript, or the phrases to be found; objects are
    lists of names that mean the same.
    """

    path: Path
    name: str
    """The file as the set names it."""
    measure: Measure
    test: str
    texts: tuple[str, ...] = ()
    objects: tuple[tuple[str, ...], ...] = ()
    points: tuple[LabelledPoint, ...] = ()
    language: str | None = None
    """What is to be written in (captions), or is spoken or written (the rest); None: not said."""
    programming_language: str = ""
    context: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The task that is asked."""
        return TASKS[self.measure]


def read(given: Path, *, root: Path | None = None) -> list[Item]:
    """Return the questions of a labelled set: a folder, or its CSV or JSON Lines file.

    Paths in it begin at its own folder, or at `root`, and never lead out of there.

    Raises CommandError naming the line that cannot be used.
    """
    file = _labels_file(given)
    base = (root or file.parent).resolve()
    items: dict[tuple[str, Measure, str | None], Item] = {}
    rows = _csv_rows(file) if file.suffix.lower() == ".csv" else _json_rows(file)
    for line, row in rows:
        try:
            for item in _items(row, base):
                _add(items, item)
        except ValueError as error:
            raise CommandError(f"{file}, line {line}: {error}", ExitCode.USAGE) from error
    if not items:
        raise CommandError(f"{file} holds no labels", ExitCode.USAGE)
    return list(items.values())


def chosen(items: Sequence[Item], *, tasks: Sequence[str] = (), limit: int | None = None) -> list[Item]:
    """Return the questions of these tasks, `limit` of each test at most.

    Which ones depends on their names alone: a larger limit takes the same ones and more.

    Raises CommandError for a task that no question is about.
    """
    known = {item.task for item in items}
    if missing := [task for task in tasks if task not in known]:
        raise CommandError(f"no label is about {missing[0]!r}; there are {', '.join(sorted(known))}", ExitCode.USAGE)
    wanted = [item for item in items if not tasks or item.task in tasks]
    if limit is None:
        return wanted
    kept: Counter[str] = Counter()
    picked = set()
    for item in sorted(wanted, key=lambda item: hashlib.sha256(item.name.encode()).digest()):
        if kept[item.test] < limit:
            kept[item.test] += 1
            picked.add(id(item))
    return [item for item in wanted if id(item) in picked]


def _labels_file(given: Path) -> Path:
    if given.is_file():
        return given
    if not given.is_dir():
        raise CommandError(f"{given} is neither a folder nor a file", ExitCode.USAGE)
    tables = sorted(path for path in given.iterdir() if path.suffix.lower() in (".csv", ".jsonl") and path.is_file())
    named = [path for path in tables if path.stem == "labels"] or tables
    if len(named) != 1:
        what = f"{len(named)} of them ({', '.join(path.name for path in named[:5])})" if named else "none"
        raise CommandError(f"{given} should hold one .csv or .jsonl file of labels; it holds {what}", ExitCode.USAGE)
    return named[0]


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            for row in reader:
                if None in row:
                    raise CommandError(f"{file}, line {reader.line_num}: more fields than names", ExitCode.USAGE)
                yield reader.line_num, {name: value for name, value in row.items() if value}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{file} cannot be read: {error}", ExitCode.USAGE) from error
    finally:
        csv.field_size_limit(before)


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _json_object(file, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", ExitCode.USAGE) from error


def _json_object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}, line {number}: no JSON ({error})", ExitCode.USAGE) from error
    if not isinstance(row, dict):
        raise CommandError(f"{file}, line {number}: no JSON object", ExitCode.USAGE)
    return {name: value for name, value in row.items() if value is not None}


def _items(given: Mapping[str, Any], base: Path) -> Iterator[Item]:
    row = {_ALIASES.get(name.strip().lower(), name.strip().lower()): value for name, value in given.items()}
    name = row.get("path")
    if not isinstance(name, str):
        raise ValueError("there is no path")
    path = _inside(base, name)
    language = row.get("language")
    if language is not None and not (isinstance(language, str) and is_language(language)):
        raise ValueError(f"{language!r} is no language tag (BCP-47)")
    context = row.get("context", {})
    if isinstance(context, str):
        context = _parsed(context, "context")
    if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
        raise ValueError("the context is no object of texts")
    known: tuple[Measure, ...] = get_args(Measure)
    for column in row:
        if column not in _OTHERS and column.removesuffix("_file") not in known:
            raise ValueError(f"{column!r} is none of {', '.join((*sorted(_OTHERS), *known))}")
    measures = [measure for measure in known if measure in row or f"{measure}_file" in row]
    if not measures:
        raise ValueError(f"nothing is said of {name!r}; labels are {', '.join(known)}")
    for measure in measures:
        value = row[measure] if measure in row else _content(base, row[f"{measure}_file"])
        truth = _truth(measure, value)
        yield Item(
            path=path,
            name=name,
            measure=measure,
            test=_text(row.get("test"), "test") if "test" in row else _test(measure, truth),
            language=language,
            programming_language=_text(row.get("programming_language", ""), "programming_language"),
            context=context,
            **truth,
        )


def _add(items: dict[tuple[str, Measure, str | None], Item], item: Item) -> None:
    key = (item.name, item.measure, item.language)
    before = items.get(key)
    if before is None:
        items[key] = item
        return
    if item.measure not in _GATHERED:
        raise ValueError(f"{item.name!r} has a {item.measure} already")
    joined = {"texts": (*before.texts, *item.texts), "objects": (*before.objects, *item.objects)}
    items[key] = Item(**{**vars(before), **joined})


def _truth(measure: Measure, value: Any) -> dict[str, Any]:
    if measure == "chart":
        return {"points": _points(_parsed(value, "chart") if isinstance(value, str) else value)}
    if measure == "objects":
        names = _list(value, measure)
        return {"objects": tuple(tuple(part.strip() for part in name.split("|") if part.strip()) for name in names)}
    if measure == "scene_text":
        return {"texts": _list(value, measure)}
    if measure in ("caption", "alt_text") and isinstance(value, list):
        return {"texts": tuple(_text(text, measure) for text in value)}
    return {"texts": (_text(value, measure),)}


def _points(value: Any) -> tuple[LabelledPoint, ...]:
    """Read chart data: {x: y}, {series: {x: y}}, or a list of {series, x, y}."""
    wrong = ValueError("chart data is {x: y}, {series: {x: y}} or a list of {series, x, y}")
    if isinstance(value, dict) and isinstance(value.get("series"), list):
        try:
            value = [
                {"series": series.get("name", ""), **point} for series in value["series"] for point in series["points"]
            ]
        except (AttributeError, KeyError, TypeError):
            raise wrong from None
    if isinstance(value, dict):
        nested = {name: inner if isinstance(inner, dict) else {name: inner} for name, inner in value.items()}
        pairs = [
            (name if isinstance(value[name], dict) else "", x, y)
            for name, inner in nested.items()
            for x, y in inner.items()
        ]
    elif isinstance(value, list) and all(isinstance(row, dict) for row in value):
        pairs = [(row.get("series", ""), row.get("x"), row.get("y")) for row in value]
    else:
        raise wrong
    for _, x, y in pairs:
        if isinstance(y, bool) or not isinstance(y, int | float) or not math.isfinite(y) or x is None:
            raise ValueError(f"the chart's value at {x!r} is no number")
    if not pairs:
        raise ValueError("the chart has no values")
    return tuple(LabelledPoint(str(series), str(x), float(y)) for series, x, y in pairs)


def _test(measure: Measure, truth: Mapping[str, Any]) -> str:
    """Name the test of a label for which the set names none: pages of different scripts are different tests."""
    if measure != "text":
        return _TESTS[measure]
    scripts = languages.scripts(" ".join(truth["texts"]))
    return f"OCR {scripts.most_common(1)[0][0]}" if scripts else "OCR"


def _inside(base: Path, name: str) -> Path:
    path = (base / name).resolve()
    if not path.is_relative_to(base):
        raise ValueError(f"{name!r} leads out of {base}")
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}")
    return path


def _content(base: Path, name: Any) -> str:
    path = _inside(base, _text(name, "file"))
    if path.stat().st_size > _LONGEST_FIELD:
        raise ValueError(f"{name!r} is too long for a label")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name!r} is no UTF-8 text") from error


def _list(value: Any, what: str) -> tuple[str, ...]:
    values = _SEPARATOR.split(value.strip()) if isinstance(value, str) else value
    if not isinstance(values, list):
        raise ValueError(f"{what} is no list")
    return tuple(text for value in values if (text := _text(value, what).strip()))


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")
    return value


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is no JSON ({error})") from error
