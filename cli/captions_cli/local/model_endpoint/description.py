"""What looking at, or listening to, one piece of media gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class UnreadableMediaError(Exception):
    """The media cannot be described: `code` is a short name, `message` a sentence for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[UnreadableMediaError], tuple[str, str]]:
        return type(self), (self.code, self.message)


@dataclass(frozen=True)
class SpokenSegment:
    """A stretch of recognised speech: seconds from the start, and its words."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Description:
    """A description computed from media: the text, what it costs as prompt, and the facts it rests on."""

    text: str
    tokens: int
    """How many prompt tokens the media counts."""
    short: str = ""
    """The same in a few words, without the closing remark: what fits an alt text."""
    tags: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[SpokenSegment, ...] = ()
    duration_s: float | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, by the names that a wanted shape may ask for it; lists of mappings for lists of objects."""
    model: str = ""
    """The small models that looked or listened; `pixels` where no model recognised anything."""


class Describer(Protocol):
    """What looks at pictures; it is called from several threads at once."""

    def describe(self, data: bytes, max_pixels: int) -> Description:
        """Return the description of an encoded picture, the same for the same bytes.

        Raises:
            MediaError: not a picture, broken, truncated, or of more than `max_pixels` pixels.
        """
