"""Segments of speech as WebVTT (W3C, "WebVTT: The Web Video Text Tracks Format") and SubRip."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

LEAST_SECONDS = 0.5
"""A cue is shown at least so long; a model that gives a start alone gives no end to show it until."""


class Segment(BaseModel):
    """A stretch of speech: seconds from the start of the recording, its words, and who says them."""

    model_config = ConfigDict(frozen=True)

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    text: str
    speaker: str | None = None


def webvtt(segments: Iterable[Segment]) -> str:
    """Return the segments as a WebVTT file; what would end a cue or open a tag in it is escaped."""
    return "WEBVTT\n\n" + "\n".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_voice(one.speaker)}{_escaped(_cue(one.text))}\n"
        for start, end, one in _cues(segments)
    )


def srt(segments: Iterable[Segment]) -> str:
    """Return the segments as a SubRip file, which knows no escapes: a speaker stands before the words."""
    return "\n".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n"
        f"{_named(one.speaker)}{_cue(one.text).replace('-->', '->')}\n"
        for number, (start, end, one) in enumerate(_cues(segments), start=1)
    )


def _cues(segments: Iterable[Segment]) -> list[tuple[float, float, Segment]]:
    ordered = sorted((one for one in segments if one.text.strip()), key=lambda one: (one.start_s, one.end_s))
    return [(one.start_s, max(one.end_s, one.start_s + LEAST_SECONDS), one) for one in ordered]


def _cue(text: str) -> str:
    """An empty line ends a cue in both formats."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _voice(speaker: str | None) -> str:
    return f"<v {_escaped(' '.join(speaker.split()))}>" if speaker else ""


def _named(speaker: str | None) -> str:
    return f"{' '.join(speaker.split())}: ".replace("-->", "->") if speaker and speaker.strip() else ""


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"
