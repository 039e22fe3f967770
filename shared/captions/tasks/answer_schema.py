"""What the answers of all tasks are made of, and how much of a model's sloppiness they take without a word.

The models of answers (in `captions.tasks.kinds`) are what the prompt describes, what `response_format` asks for and
what an answer is read into. They take whatever a model may put there: numbers as text, a single thing instead of a
list, a list instead of a single thing. What makes no sense is left out and reported by the checks; nothing here raises
for an answer's content.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from threading import RLock
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from captions.tasks.quoting import plain

_MAX_ITEMS = 2_000
"""Of one list; more is a loop, not an answer."""
_MAX_TEXT = 100_000
_MAX_WORD = 300
_LARGEST, _SMALLEST = 1e100, 1e-100
"""Of a number's size; a table holds no larger ones (Amazon DynamoDB, data types: 1E-130 to 9.9E+125)."""
_LIST_MARKS = re.compile(r"[,;、,;\n]+")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,\u00a0\u202f ]*)?\.?\d+(?:[eE][-+]?\d{1,3})?")
_CLOCK = re.compile(r"^(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)$")
_TRUE = frozenset({"true", "yes", "y", "1"})
_building = RLock()
_KEY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s\-]+")


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return plain(value[:_MAX_TEXT]).strip()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)[:40]
    if isinstance(value, list | tuple):
        return "\n".join(
            filter(None, (_text(item) for item in value[:_MAX_ITEMS] if not isinstance(item, list | tuple)))
        )
    if isinstance(value, Mapping):
        for key in ("text", "value", "name", "content", "description", "caption", "alt", "summary", "answer"):
            if isinstance(value.get(key), str):
                return _text(value[key])
        texts = [item for key, item in value.items() if isinstance(item, str) and key != "type"]
        if len(texts) == len(value) == 1:  # such as {"en": "..."}
            return _text(texts[0])
    return ""


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _LIST_MARKS.split(value) if len(value) <= _MAX_TEXT else ()
    if not isinstance(value, list | tuple):
        return ()
    words = (_text(item)[:_MAX_WORD].strip() for item in value[:_MAX_ITEMS] if not isinstance(item, list | tuple))
    return tuple(dict.fromkeys(filter(None, words)))


def _lines(value: Any) -> tuple[str, ...]:
    """Sentences: a text is one of them, whatever commas it has."""
    return _words([value]) if isinstance(value, str) else _words(value)


def number(value: Any) -> float | None:
    """Return the number that `value` is or begins with (`12 %`, `1,250.5 USD`), None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _NUMBER.search(value[:80])
        if match is None:
            return None
        value = match[0].replace(",", "").replace("\u00a0", "").replace("\u202f", "").replace(" ", "")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(result) or abs(result) > _LARGEST:
        return None
    return result if abs(result) >= _SMALLEST else 0.0


def _share(value: Any) -> float | None:
    """A share of one, also where it was given in percent or out of ten."""
    share = number(value)
    if share is None or share < 0:
        return None
    if isinstance(value, str) and "%" in value:
        share /= 100
    elif share > 1:
        share /= 10 if share <= 10 else 100
    return share if share <= 1 else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, str) and (clock := _CLOCK.match(value.strip().lstrip("[(").rstrip("])"))):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    bare = number(value)
    return bare if bare is not None and bare >= 0 else None


def _count(value: Any) -> int | None:
    count = number(value)
    return round(count) if count is not None and 0 <= count <= 1_000_000 else None


def _flag(value: Any) -> bool:
    return value.strip().lower() in _TRUE if isinstance(value, str) else value in (True, 1)


def _verbatim(value: Any) -> str:
    return plain(value[:_MAX_TEXT]) if isinstance(value, str) else ""


def _perhaps(value: Any) -> bool | None:
    return None if value is None or (isinstance(value, str) and not value.strip()) else _flag(value)


Text = Annotated[str, BeforeValidator(_text)]
Verbatim = Annotated[str, BeforeValidator(_verbatim)]
"""Text whose spaces and line breaks count."""
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Number = Annotated[float | None, BeforeValidator(number)]
Share = Annotated[float | None, BeforeValidator(_share)]
Seconds = Annotated[float | None, BeforeValidator(_seconds)]
Count = Annotated[int | None, BeforeValidator(_count)]
Perhaps = Annotated[bool | None, BeforeValidator(_perhaps)]
Flag = Annotated[bool, BeforeValidator(_flag)]


def choice(*names: str, otherwise: str) -> BeforeValidator:
    """Return what reads one of these names, however it is written; anything else is `otherwise`."""

    def choose(value: Any) -> str:
        name = _text(value).lower().replace(" ", "_")
        return name if name in names else otherwise

    return BeforeValidator(choose)


def snake(key: Any) -> str:
    """Return a key as the answers' models write theirs: `visibleText` and `Visible text` are `visible_text`."""
    return _KEY.sub("_", str(key)[:100].strip()).lower()


class Shape(BaseModel):
    """A part of an answer. `aliases` maps other names that models give a field."""

    # Built when first needed (`built`): each task needs its own shape only, and all of them take 30 ms.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
    aliases: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def built(cls) -> type[Self]:
        """Return this class once its schema and validator are complete.

        Pydantic's own deferred build is not safe when several threads come first: some see half of a schema, and what
        they make of it is another identity of the same ask.
        """
        if not cls.__pydantic_complete__:
            with _building:
                if not cls.__pydantic_complete__:
                    cls.model_rebuild()
        return cls

    @classmethod
    def taken(cls, value: Mapping[Any, Any]) -> Self:
        """Read what a mapping says under this shape's names or else their aliases; the first of several counts."""
        fields: dict[str, Any] = {}
        for key, content in sorted(value.items(), key=lambda item: snake(item[0]) not in cls.model_fields):
            name = snake(key)
            name = name if name in cls.model_fields else cls.aliases.get(name, "")
            if name and (name not in fields or not fields[name]):
                fields[name] = content
        return cls.built().model_validate(fields)


def list_of(shape: type[Shape]) -> BeforeValidator:
    """Return what reads a list of these shapes, leaving out what is none."""

    def gather(value: Any) -> tuple[Shape, ...]:
        if isinstance(value, Mapping):
            value = [value]
        elif isinstance(value, str):
            value = [value] if value.strip() else []
        if not isinstance(value, list | tuple):
            return ()
        first = next(iter(shape.model_fields))
        gathered = []
        for item in value[:_MAX_ITEMS]:
            if isinstance(item, shape):
                gathered.append(item)
            elif isinstance(item, Mapping):
                try:
                    gathered.append(shape.taken(item))
                except (ValidationError, RecursionError):
                    continue
            elif isinstance(item, str) and item.strip():
                gathered.append(shape.taken({first: item}))
        return tuple(gathered)

    return BeforeValidator(gather)


def part_of(shape: type[Shape]) -> BeforeValidator:
    """Return what reads one of these shapes; a text alone is its first field."""

    def read(value: Any) -> Shape:
        if isinstance(value, shape):
            return value
        if isinstance(value, Mapping):
            return shape.taken(value)
        return shape.taken({next(iter(shape.model_fields)): value} if isinstance(value, str) else {})

    return BeforeValidator(read)


Safety = Literal["safe", "sensitive", "unsafe", "unknown"]


class Answer(Shape):
    """What every task's answer ends with."""

    main: ClassVar[str] = ""
    """The field without which the answer is of no use."""
    tags: Words = Field((), description="a few lower-case words to find it by")
    safety: Annotated[Safety, choice("safe", "sensitive", "unsafe", otherwise="unknown")] = Field(
        "unknown", json_schema_extra={"enum": ["safe", "sensitive", "unsafe", "unknown"]}
    )
    confidence: Share = Field(None, description="from 0 to 1, how sure you are that all of this is right")
