"""Putting what others wrote into a prompt so that it stays data: it can neither end its quotation nor hide in it."""

from __future__ import annotations

import hashlib
import json
import string
import unicodedata
from collections.abc import Mapping

MAX_VALUE_CHARACTERS = 1_000
"""Of one value of the context; titles and descriptions of pages are shorter."""
MAX_NAME_CHARACTERS = 64
MAX_VALUES = 20
"""S3 holds 2 KB of metadata an object (Amazon S3, "Working with object metadata"): no upload brings more than this."""

_KEPT = frozenset("\n\t")
# Beside controls (Cc): formatting characters that reorder or hide text (bidirectional marks, zero widths, tags),
# surrogates, private use, and characters that are not assigned. Joiners stay: words of Persian or Hindi and emoji
# need them.
_DROPPED = frozenset({"Cf", "Cs", "Co", "Cn"})
_JOINERS = frozenset("\u200c\u200d")


def plain(text: str) -> str:
    """Return `text` without characters that control a terminal, reorder what is read, or cannot be seen."""
    return "".join(
        " " if unicodedata.category(char) == "Cc" and char not in _KEPT else char
        for char in text.replace("\r\n", "\n").replace("\r", "\n")
        if char in _JOINERS or unicodedata.category(char) not in _DROPPED
    )


def shortened(text: str, characters: int) -> str:
    """Return at most `characters` of `text`, ending in an ellipsis where something was left out."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def quoted(text: str) -> str:
    """Return `text` as one JSON string: in one line, with what could end the quotation escaped."""
    words = " ".join(plain(text[: MAX_VALUE_CHARACTERS * 4]).split())
    return json.dumps(shortened(words, MAX_VALUE_CHARACTERS), ensure_ascii=False).replace("<", "\\u003c")


def bounded(context: Mapping[str, str]) -> dict[str, str]:
    """Return the context as it may stand in a prompt: few values, short ones, without what cannot be seen."""
    kept: dict[str, str] = {}
    for name, value in list(context.items())[:MAX_VALUES]:
        clean_name = shortened(" ".join(plain(name).split()), MAX_NAME_CHARACTERS)
        clean_value = shortened(" ".join(plain(value[: MAX_VALUE_CHARACTERS * 4]).split()), MAX_VALUE_CHARACTERS)
        if clean_name and clean_value:
            kept[clean_name] = clean_value
    return kept


def data_block(name: str, value: object) -> str:
    """Return JSON-plain data between two lines that nothing within can forge: they carry a digest of the whole.

    The JSON holds no "<", so that no line of it could look like the closing one even if the digest were known.
    """
    body = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    mark = hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"<{name} {mark}>\n{body}\n</{name} {mark}>"


class TemplateError(ValueError):
    """A template of the user's own cannot be used; `variable` is what it names and does not exist."""

    def __init__(self, message: str, variable: str | None = None) -> None:
        super().__init__(message)
        self.variable = variable


VARIABLES = ("language", "title", "description", "context")
"""What a template may name; besides these `context.NAME`, one value of the object's own metadata."""


def check_template(template: str) -> None:
    """Raise `TemplateError` unless every variable of the template is known; braces themselves are doubled."""
    _render(template, {})


def render(template: str, language: str, context: Mapping[str, str]) -> str:
    """Return the template with its variables filled in, each value quoted; what a value holds is never interpreted.

    Raises:
        TemplateError: it names a variable that does not exist, or its braces do not match.
    """
    given = bounded(context)
    values = {f"context.{name}": quoted(value) for name, value in given.items()}
    values |= {name: quoted(given.get(name, "")) for name in ("title", "description")}
    values["language"] = language
    values["context"] = json.dumps(given, ensure_ascii=False).replace("<", "\\u003c")
    return _render(template, values)


def _render(template: str, values: Mapping[str, str]) -> str:
    pieces: list[str] = []
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise TemplateError(f"the template's braces do not match: {error}") from error
    for literal, variable, form, conversion in parsed:
        pieces.append(literal)
        if variable is None:
            continue
        known = variable in VARIABLES or (variable.startswith("context.") and len(variable) > len("context."))
        if not known:
            names = ", ".join(f"{{{name}}}" for name in VARIABLES)
            raise TemplateError(
                f"the template names {{{variable}}}, which does not exist; there are {names} and {{context.NAME}}",
                variable,
            )
        if form or conversion:
            raise TemplateError(f"the variable {{{variable}}} takes no format or conversion", variable)
        pieces.append(values.get(variable, '""'))
    return "".join(pieces)
