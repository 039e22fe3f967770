"""The shape of each task's answer, and how much of a model's sloppiness it takes without a word.

These models are what the prompt describes, what `response_format` asks for and what the answer is read into. They take
whatever a model may put there: numbers as text, one thing instead of a list, a list instead of one thing. What makes no
sense is left out and told by the checks; nothing here raises for an answer's content.
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
        return "\n".join(filter(None, (_text(one) for one in value[:_MAX_ITEMS] if not isinstance(one, list | tuple))))
    if isinstance(value, Mapping):
        for key in ("text", "value", "name", "content", "description"):
            if isinstance(value.get(key), str):
                return _text(value[key])
    return ""


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _LIST_MARKS.split(value) if len(value) <= _MAX_TEXT else ()
    if not isinstance(value, list | tuple):
        return ()
    found = (_text(one)[:_MAX_WORD].strip() for one in value[:_MAX_ITEMS] if not isinstance(one, list | tuple))
    return tuple(dict.fromkeys(filter(None, found)))


def _lines(value: Any) -> tuple[str, ...]:
    """Sentences: a text is one of them, whatever commas it has."""
    return _words([value]) if isinstance(value, str) else _words(value)


def number(value: Any) -> float | None:
    """Return the number that `value` is or begins with (`12 %`, `1,250.5 USD`), None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = _NUMBER.search(value[:80])
        if found is None:
            return None
        value = found[0].replace(",", "").replace("\u00a0", "").replace("\u202f", "").replace(" ", "")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(result) or abs(result) > _LARGEST:
        return None
    return result if abs(result) >= _SMALLEST else 0.0


def _share(value: Any) -> float | None:
    """A share of one, also where it was given in percent or out of ten."""
    found = number(value)
    if found is None or found < 0:
        return None
    if isinstance(value, str) and "%" in value:
        found /= 100
    elif found > 1:
        found /= 10 if found <= 10 else 100
    return found if found <= 1 else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, str) and (clock := _CLOCK.match(value.strip().lstrip("[(").rstrip("])"))):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    found = number(value)
    return found if found is not None and found >= 0 else None


def _count(value: Any) -> int | None:
    found = number(value)
    return round(found) if found is not None and 0 <= found <= 1_000_000 else None


def _flag(value: Any) -> bool:
    return value.strip().lower() in _TRUE if isinstance(value, str) else value in (True, 1)


def _perhaps(value: Any) -> bool | None:
    return None if value is None or (isinstance(value, str) and not value.strip()) else _flag(value)


Text = Annotated[str, BeforeValidator(_text)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Number = Annotated[float | None, BeforeValidator(number)]
Share = Annotated[float | None, BeforeValidator(_share)]
Seconds = Annotated[float | None, BeforeValidator(_seconds)]
Count = Annotated[int | None, BeforeValidator(_count)]
Perhaps = Annotated[bool | None, BeforeValidator(_perhaps)]
Flag = Annotated[bool, BeforeValidator(_flag)]


def _choice(*names: str, otherwise: str) -> BeforeValidator:
    def choose(value: Any) -> str:
        said = _text(value).lower().replace(" ", "_")
        return said if said in names else otherwise

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
        """Read what a mapping says under this shape's names or their aliases; the first of several counts."""
        fields: dict[str, Any] = {}
        for key, one in value.items():
            name = snake(key)
            name = name if name in cls.model_fields else cls.aliases.get(name, "")
            if name and (name not in fields or not fields[name]):
                fields[name] = one
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
        for one in value[:_MAX_ITEMS]:
            if isinstance(one, shape):
                gathered.append(one)
            elif isinstance(one, Mapping):
                try:
                    gathered.append(shape.taken(one))
                except (ValidationError, RecursionError):
                    continue
            elif isinstance(one, str) and one.strip():
                gathered.append(shape.taken({first: one}))
        return tuple(gathered)

    return BeforeValidator(gather)


def _part(shape: type[Shape]) -> BeforeValidator:
    def read(value: Any) -> Shape:
        if isinstance(value, shape):
            return value
        if isinstance(value, Mapping):
            return shape.taken(value)
        return shape.taken({next(iter(shape.model_fields)): value} if isinstance(value, str) else {})

    return BeforeValidator(read)


Verdict = Literal["safe", "sensitive", "unsafe", "unknown"]


class Answer(Shape):
    """What every task's answer ends with."""

    main: ClassVar[str] = ""
    """The field without which the answer is of no use."""
    tags: Words = Field((), description="a few lower-case words to find it by")
    safety: Annotated[Verdict, _choice("safe", "sensitive", "unsafe", otherwise="unknown")] = Field(
        "unknown", json_schema_extra={"enum": ["safe", "sensitive", "unsafe", "unknown"]}
    )
    confidence: Share = Field(None, description="from 0 to 1, how sure you are that all of this is right")


class CaptionAnswer(Answer):
    main: ClassVar[str] = "caption"
    aliases: ClassVar[Mapping[str, str]] = {"text": "caption", "description": "caption", "answer": "caption"}
    caption: Text = Field("", description="the caption")
    visible_text: Lines = Field((), description="words written in the picture that the caption relies on")


class AltTextAnswer(Answer):
    main: ClassVar[str] = "alt"
    aliases: ClassVar[Mapping[str, str]] = {"alt_text": "alt", "alttext": "alt", "text": "alt", "role": "purpose",
                                            "description": "long_description"}  # fmt: skip
    purpose: Annotated[
        Literal["informative", "text", "functional", "decorative", "unknown"],
        _choice("informative", "text", "functional", "decorative", otherwise="unknown"),
    ] = Field("unknown", json_schema_extra={"enum": ["informative", "text", "functional", "decorative"]})
    reason: Text = Field("", description="why it has this purpose, in a few words")
    alt: Text = Field("", description="the alt text; empty if decorative")
    long_description: Text = Field("", description="what the alt text has no room for, in full sentences")
    visible_text: Lines = Field((), description="words written in the picture")


class Thing(Shape):
    aliases: ClassVar[Mapping[str, str]] = {
        "object": "name",
        "label": "name",
        "number": "count",
        "location": "position",
    }
    name: Text = Field("", description="what it is")
    count: Count = Field(None, description="how many")
    position: Text = Field("", description="where in the picture")
    details: Text = Field("", description="colour, material, state")


class ObjectsAnswer(Answer):
    main: ClassVar[str] = "scene"
    aliases: ClassVar[Mapping[str, str]] = {"summary": "scene", "description": "scene", "items": "objects"}
    scene: Text = Field("", description="the place and situation in one sentence")
    objects: Annotated[tuple[Thing, ...], list_of(Thing)] = Field(())
    brands: Words = Field((), description="brand whose name or logo can be seen")
    signage: Lines = Field((), description="what a sign or label says, verbatim")


class Block(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"content": "text", "lang": "language", "kind": "role", "type": "role"}
    text: Text = Field("", description="the text verbatim, with its line breaks")
    language: Text = Field("", description="BCP-47 tag")
    role: Text = Field("", description="heading, paragraph, table, label, handwriting ...")


class OcrAnswer(Answer):
    main: ClassVar[str] = "blocks"
    aliases: ClassVar[Mapping[str, str]] = {"text": "blocks", "lines": "blocks", "doubts": "unclear"}
    blocks: Annotated[tuple[Block, ...], list_of(Block)] = Field((), description="in reading order")
    unclear: Lines = Field((), description="what could not be read for certain, and where")


class Axis(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"title": "label", "name": "label", "minimum": "min", "maximum": "max"}
    label: Text = Field("", description="its title")
    unit: Text = Field("", description="its unit")
    min: Number = Field(None, description="the value at its start")
    max: Number = Field(None, description="the value at its end")
    scale: Text = Field("", description="linear, log, categories, dates")


class Point(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"label": "x", "category": "x", "name": "x", "value": "y"}
    x: Text = Field("", description="category or value")
    y: Number = Field(None, description="value")


class Series(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"label": "name", "data": "points", "values": "points"}
    name: Text = Field("", description="its name in the legend")
    points: Annotated[tuple[Point, ...], list_of(Point)] = Field(())
    read: Text = Field("", description="'labels' if the values are written, 'estimated' if read off the axis")


class ChartAnswer(Answer):
    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"type": "chart_type", "description": "summary", "data": "series"}
    summary: Text = Field("", description="what the chart shows and its main finding, in one to three sentences")
    chart_type: Text = Field("", description="bar, line, pie, scatter, ...; 'none' if this is no chart")
    title: Text = Field("", description="the title as written")
    x_axis: Annotated[Axis, _part(Axis)] = Field(Axis())
    y_axis: Annotated[Axis, _part(Axis)] = Field(Axis())
    series: Annotated[tuple[Series, ...], list_of(Series)] = Field(())
    trends: Lines = Field((), description="one trend or comparison, with its figures")
    misleading: Lines = Field((), description="what could mislead: an axis not from zero, uneven steps, two scales ...")


class CodeAnswer(Answer):
    main: ClassVar[str] = "code"
    aliases: ClassVar[Mapping[str, str]] = {"source": "code", "text": "code", "lang": "language", "notes": "summary"}
    language: Text = Field("", description="the programming language or format")
    code: Annotated[str, BeforeValidator(lambda value: plain(value[:_MAX_TEXT]) if isinstance(value, str) else "")] = (
        Field("", description="the code verbatim, with its line breaks and indentation")
    )
    summary: Text = Field("", description="what the code does, in one sentence")
    doubts: Lines = Field((), description="a character or line that could be read otherwise")


class Said(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"start_s": "start", "end_s": "end", "begin": "start", "from": "start",
                                            "to": "end", "content": "text", "who": "speaker"}  # fmt: skip
    text: Text = Field("", description="what is said, word for word")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")
    speaker: Text = Field("", description="'Speaker 1', ...")


class Speaker(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"name": "speaker", "id": "speaker", "mood": "emotion", "feeling": "emotion"}
    speaker: Text = Field("", description="'Speaker 1', ...")
    emotion: Text = Field("", description="calm, happy, sad, angry, afraid, surprised, ... as it sounds")


class TranscribeAnswer(Answer):
    main: ClassVar[str] = "segments"
    aliases: ClassVar[Mapping[str, str]] = {"text": "segments", "transcript": "segments", "transcription": "segments",
                                            "heard": "sounds"}  # fmt: skip
    language: Text = Field("", description="BCP-47 tag of what is spoken; 'und' if nobody speaks")
    segments: Annotated[tuple[Said, ...], list_of(Said)] = Field(())
    speakers: Annotated[tuple[Speaker, ...], list_of(Speaker)] = Field(())
    sounds: Text = Field("", description="one sentence on what else is heard")


class AudioAnswer(Answer):
    main: ClassVar[str] = "answer"
    aliases: ClassVar[Mapping[str, str]] = {"text": "answer", "quote": "evidence", "found": "answerable"}
    answerable: Flag = Field(True, description="whether the recording holds the answer")
    answer: Text = Field("", description="the answer, or what is missing in the recording")
    evidence: Text = Field("", description="the words or sounds it rests on")


class Feeling(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"name": "speaker", "id": "speaker", "from": "start", "to": "end"}
    speaker: Text = Field("", description="'Speaker 1', ...")
    emotion: Text = Field("", description="calm, happy, sad, angry, afraid, surprised, disgusted, ...")
    intensity: Share = Field(None, description="from 0 to 1")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")
    evidence: Text = Field("", description="what in the voice tells it")


class EmotionAnswer(Answer):
    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"text": "summary", "overall": "emotion", "speakers": "voices"}
    summary: Text = Field("", description="how the voices sound, in one or two sentences")
    emotion: Text = Field("", description="the prevailing emotion in one word; 'none' if there is no voice")
    voices: Annotated[tuple[Feeling, ...], list_of(Feeling)] = Field(())


class MusicAnswer(Answer):
    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"text": "summary", "description": "summary", "genre": "genres",
                                            "bpm": "tempo_bpm", "tempo": "tempo_bpm", "is_music": "music"}  # fmt: skip
    summary: Text = Field("", description="what kind of music it is and how it goes, in one to three sentences")
    music: Perhaps = Field(None, description="whether there is music at all")
    genres: Words = Field((), description="genre")
    instruments: Words = Field((), description="instrument that is heard")
    vocals: Text = Field("", description="none, or what voices")
    mood: Text = Field("", description="in a few words")
    tempo_bpm: Number = Field(None, description="beats a minute, if they can be counted")


class Scene(Shape):
    aliases: ClassVar[Mapping[str, str]] = {"description": "text", "start_s": "start", "end_s": "end", "from": "start",
                                            "to": "end"}  # fmt: skip
    text: Text = Field("", description="what happens")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")


class VideoAnswer(Answer):
    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"caption": "summary", "text": "summary", "description": "summary",
                                            "transcript": "speech", "segments": "speech"}  # fmt: skip
    summary: Text = Field("", description="what the video shows from start to end, in one to four sentences")
    scenes: Annotated[tuple[Scene, ...], list_of(Scene)] = Field(())
    speech: Annotated[tuple[Said, ...], list_of(Said)] = Field(())
    sounds: Text = Field("", description="one sentence on music and noises")
    visible_text: Lines = Field((), description="words written in the pictures")
