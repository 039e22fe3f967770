"""A caption as the user metadata of an S3 object."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from email.header import Header

from captions.records.record import Record, Result
from captions.write_back.embedding import NotEmbeddableError
from captions.write_back.sidecars import alt_text, author

MOST_BYTES = 2_048
"""Of all names and values together (Amazon S3 user guide, "Working with object metadata")."""
NAMES = ("description-language", "description-by", "description-source", "alt-text", "description")
"""Those that are ours, in the order in which they get their room. None begins with "caption-", which names options."""
CUT = "..."
"""Ends a text that was cut. ASCII, as anything else would have all of the text encoded."""
LEAST_CHARACTERS = 20
"""Of a text that is cut; with less room it is left out."""


def metadata(record: Record, result: Result, own: Mapping[str, str], marked: Mapping[str, str]) -> dict[str, str]:
    """Return all user metadata of a copy: the object's `own`, the mark, and what there is room for of the caption.

    Values are ASCII. What is not is encoded as S3 itself answers it, by RFC 2047 in UTF-8.

    Raises NotEmbeddableError: the object's own leaves no room for the mark.
    """
    made = {name: value if value.isascii() else encoded(value) for name, value in own.items() if name not in NAMES}
    made |= marked
    room = MOST_BYTES - sum(len(name) + len(value) for name, value in made.items())
    if room < 0:
        raise NotEmbeddableError(f"with the object's own metadata it would have more than {MOST_BYTES:,} bytes of it")
    texts = (result.language, author(record), record.source or "model", alt_text(result), result.text)
    for name, text in zip(NAMES, texts, strict=True):
        value = fitting(text, room - len(name))
        if value:
            made[name] = value
            room -= len(name) + len(value)
    return made


def encoded(text: str) -> str:
    """Return text as the value of a header: itself where it is ASCII, else words of RFC 2047 with a space between."""
    if text.isascii() and "=?" not in text:
        return text
    return Header(text.encode("utf-8", "replace").decode(), "utf-8").encode(linesep="")


def fitting(text: str, room: int) -> str:
    """Return as much of a text as fits into `room` bytes once it is encoded, cut between words; "" where none does."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(plain) <= room and len(whole := encoded(plain)) <= room:
        return whole
    most = bisect_right(range(min(len(plain), max(0, room))), room, key=lambda count: len(encoded(plain[:count] + CUT)))
    head = plain[: max(0, most - 1)]
    before, _, last = head.rpartition(" ")
    if len(last) < len(before):  # Chinese or Japanese has no spaces to cut at
        head = before
    return encoded(head + CUT) if len(head) >= LEAST_CHARACTERS else ""
