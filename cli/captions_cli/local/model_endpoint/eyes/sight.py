"""What the small models see in a picture, put into words: objects for photos, text for what is written.

What kind of picture it is decides which model's finding counts most: `captions.picture_class` tells, as it does in the
pipeline. Below a confidence the words are "perhaps", or those of the description from pixels.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from captions import media, picture_class
from captions_cli.local.model_endpoint import measuring, pixels
from captions_cli.local.model_endpoint.description import Description
from captions_cli.local.model_endpoint.eyes import objects, writing
from captions_cli.local.model_endpoint.eyes.objects import Detection
from captions_cli.local.model_endpoint.eyes.writing import Line

_SIDE = 2000
"""Pixels of the longer side that is looked at: print of 6 points on a page of A4 still has strokes of 2 pixels."""
_WRITTEN = frozenset({"document", "screenshot", "code", "chart"})
_KIND_FROM = 0.5
_QUOTED = 420
"""Characters of a page's text in a caption; all of it stands in the answers to the tasks that copy text."""
_QUOTED_SHORT = 160
_SIGNS = 6
"""Lines of text that a photo's description quotes at most."""
_KINDS_OF_OBJECTS = 6
_MANY = 10
_PLURALS = {"person": "people", "mouse": "mice", "knife": "knives", "sheep": "sheep", "skis": "skis",
            "scissors": "scissors", "broccoli": "broccoli"}  # fmt: skip
_UNCOUNTED = frozenset({"skis", "scissors", "broccoli"})
_ASIDE = 0.25


class Sight:
    """A describer with eyes."""

    def __init__(self) -> None:
        self._detector = objects.Detector()
        self._reader = writing.Reader()

    def describe(self, data: bytes, max_pixels: int) -> Description:
        """Return the description of an encoded picture. Raises `MediaError` as `pixels.describe` does."""
        image = measuring.decoded(data, max_pixels, _SIDE)
        facts = measuring.facts_of(image)
        measured = pixels.description_of(image, facts)
        if pixels.is_plain(facts):
            return measured
        seen = measuring.on_white(image)[0]
        seen.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        kind = _kind(data)
        lines = self._reader.read(seen)
        if kind in _WRITTEN and lines:
            return _page(measured, facts, kind, lines, seen.width / seen.height)
        detections = self._detector.find(seen) if kind not in _WRITTEN else ()
        return _scene(measured, facts, detections, lines, seen)


def _kind(data: bytes) -> str:
    """Return the category of a picture; `photo` for what the pipeline would not take, and where it is in doubt."""
    try:
        picture = media.inspect(data).picture
    except media.MediaError:
        return "photo"
    looks = picture_class.classify(picture) if picture is not None else None
    return looks.category if looks is not None and looks.confidence >= _KIND_FROM else "photo"


# Photos


@dataclass(frozen=True)
class _Group:
    """The objects of one name: those that are certain, and those that are only possible."""

    name: str
    sure: tuple[Detection, ...]
    possible: tuple[Detection, ...]

    @property
    def all(self) -> tuple[Detection, ...]:
        return self.sure + self.possible

    @property
    def area(self) -> float:
        return sum(detection.area for detection in self.all)

    def words(self) -> str:
        """Return how many of what: "two or three horses", "perhaps a dog"."""
        least, most = len(self.sure), len(self.all)
        if not least:
            return f"perhaps {_counted(most, self.name)}"
        if least > _MANY:
            return f"many {plural(self.name)} (more than {_MANY})"
        if least == most or self.name in _UNCOUNTED:
            return _counted(least, self.name)
        if most > least + 2:
            return f"at least {_number(least)} {self.name if least == 1 else plural(self.name)}"
        between = "or" if most == least + 1 else "to"
        return f"{_number(least)} {between} {_number(most)} {plural(self.name)}"

    def place(self) -> str:
        left, right = min(detection.left for detection in self.all), max(detection.right for detection in self.all)
        if len(self.all) > 1 and right - left > 2 / 3:
            return "across the frame"
        top, bottom = min(detection.top for detection in self.all), max(detection.bottom for detection in self.all)
        return pixels.place_words((left + right) / 2, (top + bottom) / 2)


def plural(name: str) -> str:
    """Return the plural of a class's name."""
    if name in _PLURALS:
        return _PLURALS[name]
    return f"{name}es" if name.endswith(("s", "sh", "ch", "x")) else f"{name}s"


def _number(count: int) -> str:
    return pixels.NUMBERS[count] if count < len(pixels.NUMBERS) else str(count)


def _counted(count: int, name: str) -> str:
    if name in _UNCOUNTED:
        return name
    if count == 1:
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return f"{_number(count)} {plural(name)}"


def _grouped(detections: Sequence[Detection]) -> list[_Group]:
    """Return the objects by name, what is certain first and then what takes up most of the frame."""
    groups = []
    for name in dict.fromkeys(detection.name for detection in detections):
        of_it = [detection for detection in detections if detection.name == name]
        sure = tuple(detection for detection in of_it if detection.confidence >= objects.SURE_FROM)
        groups.append(
            _Group(name, sure, tuple(detection for detection in of_it if detection.confidence < objects.SURE_FROM))
        )
    return sorted(groups, key=lambda group: (not group.sure, -round(group.area, 3), group.name))


def _scene(
    measured: Description,
    facts: measuring.PixelFacts,
    detections: Sequence[Detection],
    lines: Sequence[Line],
    image: Image.Image,
) -> Description:
    groups = _grouped(detections)[:_KINDS_OF_OBJECTS]
    signs = [line for line in lines if line.confidence >= writing.SURE_FROM and len(line.text) > 1]
    if not groups and not signs:
        return measured
    short, more = pixels.phrase(facts)
    if groups and groups[0].sure:
        short = f"{_listed(groups)}; {_surroundings(image, detections)}."
    elif groups:
        short = f"{short[:-1]}; {_listed(groups, capital=False)}."
    written = f"Written in it: {_quoted_lines(signs)}." if signs else ""
    used = [name for name, used in ((objects.NAME, groups), (writing.NAME, signs)) if used]
    sure = [detection.confidence for group in groups for detection in group.all] + [line.confidence for line in signs]
    texts = [line.text for line in signs]
    names = [group.name for group in groups if group.sure]
    measures: dict[str, Any] = {
        "visible_text": texts,
        "signage": texts,
        "blocks": _blocks(signs),
        "unclear": [],
        "confidence": round(statistics.fmean(sure), 3),
    }
    if groups:
        measures["objects"] = [
            {
                "name": group.name if group.sure else f"perhaps {group.name}",
                "count": len(group.sure) or len(group.possible),
                "position": group.place(),
                "details": "" if group.sure else "uncertain",
            }
            for group in groups
        ]
    return replace(
        measured,
        text=" ".join(part for part in (short, written, more, _closing(used)) if part),
        short=" ".join(part for part in (short, written) if part),
        tags=tuple(dict.fromkeys([*names, *(("text",) if signs else ()), *measured.tags])),
        measured={**measured.measured, **measures},
        model="+".join(used),
    )


def _listed(groups: Sequence[_Group], *, capital: bool = True) -> str:
    words = [f"{group.words()} {group.place()}" for group in groups]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return listed[0].upper() + listed[1:] if capital else listed


def _surroundings(image: Image.Image, detections: Sequence[Detection]) -> str:
    """Return the colours above and below, or around, the objects."""
    cells = measuring.colour_grid(image)
    rows, columns = len(cells), len(cells[0])
    upper: list[str] = []
    lower: list[str] = []
    for (row, names), column in itertools.product(enumerate(cells), range(columns)):
        x, y = (column + 0.5) / columns, (row + 0.5) / rows
        if not any(
            detection.left <= x <= detection.right and detection.top <= y <= detection.bottom
            for detection in detections
        ):
            (upper if row < rows // 2 else lower).append(names[column])
    above, below = _common(upper), _common(lower)
    if not above or not below:
        return f"{above or below} around" if above or below else "filling the frame"
    return f"{above} all around" if above == below else f"{above} above, {below} below"


def _common(names: Sequence[str]) -> str:
    """Return the colour, or the two, that take up most of some cells."""
    shares = sorted(((names.count(name) / len(names), name) for name in set(names)), reverse=True)
    return " and ".join(name for share, name in shares[:2] if share > _ASIDE)


# Pages, screens and charts


def _page(
    measured: Description, facts: measuring.PixelFacts, kind: str, lines: Sequence[Line], aspect: float
) -> Description:
    text = writing.as_text(lines, aspect)
    certainty = statistics.fmean(line.confidence for line in lines for _ in line.text)
    unclear = [f'"{line.text}" may be misread' for line in lines if line.confidence < writing.SURE_FROM]
    frame = pixels.format_name(facts)
    start = f"{'An' if frame[0] in 'aeiou' else 'A'} {frame}"
    flowing = " ".join(text.split())
    measures: dict[str, Any] = {
        "visible_text": [line.text for line in lines][:40],
        "blocks": _blocks(lines, aspect),
        "unclear": unclear,
        "doubts": unclear,
        "signage": [],
        "confidence": round(certainty, 3),
    }
    rows = writing.rows(lines)
    many = f"{_number(len(rows))} {'line' if len(rows) == 1 else 'lines'}"
    if kind == "code":
        code = _indented(lines)
        measures |= {"code": code, "summary/code": "What the code does is not known to the local model."}
        lead = f"{start} screenshot with {many} of code"
    elif kind == "chart":
        chart = _chart(rows, aspect)
        measures |= chart
        title = chart.get("title")
        lead = f'{start} chart titled "{title}"' if title else f"{start} chart without a title that could be read"
        summary = measured.measured.get("summary/series")
        measures["summary/series"] = (
            f"{lead}. {summary}" if summary else f"{lead}. Its labels: {_cut(flowing, _QUOTED)}."
        )
    else:
        lead = f"{start} {kind if kind == 'screenshot' else 'page'} with {many} of text"
    doubt = " Perhaps not all of it was read right." if certainty < writing.SURE_FROM else ""
    return replace(
        measured,
        text=f'{lead}: "{_cut(flowing, _QUOTED)}".{doubt} {_closing([writing.NAME])}',
        short=f'{lead}: "{_cut(flowing, _QUOTED_SHORT)}".',
        tags=tuple(dict.fromkeys([kind, "text", *measured.tags])),
        measured={**measured.measured, **measures},
        model=writing.NAME,
    )


def _blocks(lines: Sequence[Line], aspect: float = 1.0) -> list[dict[str, str]]:
    """Return the text in blocks: rows that stand closer together than they are high."""
    blocks: list[list[list[Line]]] = []
    for row in writing.rows(lines):
        top, height = min(line.top for line in row), max(line.height for line in row)
        if blocks and top - max(block.bottom for block in blocks[-1][-1]) < 0.8 * height:
            blocks[-1].append(row)
        else:
            blocks.append([row])
    texts = [writing.as_text(list(itertools.chain.from_iterable(block)), aspect) for block in blocks]
    return [{"text": text, "language": _language(text), "role": "paragraph"} for text in texts]


def _language(text: str) -> str:
    """Return the language that a script gives away, else `und`."""
    if any("぀" <= letter <= "ヿ" for letter in text):
        return "ja"
    if any("가" <= letter <= "힣" for letter in text):
        return "ko"
    return "zh" if any("一" <= letter <= "鿿" for letter in text) else "und"


def _indented(lines: Sequence[Line]) -> str:
    """Return lines of code, each set in by as many letters as it begins to the right of the leftmost one."""
    letter = statistics.median((line.right - line.left) / len(line.text) for line in lines)
    margin = min(line.left for line in lines)
    texts = []
    for row in writing.rows(lines):
        spaces = round((row[0].left - margin) / letter)
        texts.append(" " * spaces + " ".join(line.text for line in row))
    return "\n".join(texts)


def _chart(rows: Sequence[Sequence[Line]], aspect: float) -> dict[str, Any]:
    """Return the title and the axes' names of a chart, where the lines stand that such things are written in."""
    measures: dict[str, Any] = {}
    first, last = rows[0], rows[-1]
    if first[0].top < 0.15 and any(letter.isalpha() for letter in first[0].text):
        measures["title"] = " ".join(line.text for line in first)
    if len(rows) > 1 and len(last) == 1 and last[0].bottom > 0.85 and any(map(str.isalpha, last[0].text)):
        measures["x_axis"] = {"label": last[0].text}
    upright = [line for row in rows for line in row if line.height > 1.5 * aspect * (line.right - line.left)]
    if upright and upright[0].left < 0.15:
        measures["y_axis"] = {"label": upright[0].text}
    return measures


# Words


def _closing(used: Sequence[str]) -> str:
    verbs = " and ".join("seen" if name == objects.NAME else "read" for name in used)
    return f"({verbs} by {'a small local model' if len(used) == 1 else 'small local models'}: {', '.join(used)})"


def _quoted_lines(lines: Sequence[Line]) -> str:
    quoted = ", ".join(f'"{line.text}"' for line in lines[:_SIGNS])
    return f"{quoted} and more" if len(lines) > _SIGNS else quoted


def _cut(text: str, longest: int) -> str:
    """Return `text` within `longest` characters, cut after a word."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 1].rsplit(' ', 1)[0]}…"
