"""Subtitles: WebVTT (W3C, "WebVTT: The Web Video Text Tracks Format") and SubRip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LEAST_SECONDS = 0.5
"""A cue is shown at least so long; a model that gives a start alone gives no end to show it until."""


class Cue(BaseModel):
    """A stretch of speech: seconds from the start of the recording, its words, and who says them."""

    model_config = ConfigDict(frozen=True)

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    text: str
    speaker: str | None = None


def timed(data: dict[str, Any]) -> list[Cue]:
    """Return the segments of an answer's further fields that have a start and an end."""
    segments = data.get("segments") or ()
    return [
        Cue(start_s=float(each["start_s"]), end_s=float(each["end_s"]), text=each["text"], speaker=each.get("speaker"))
        for each in segments
        if each.get("start_s") is not None and each.get("end_s") is not None
    ]


def webvtt(cues: Iterable[Cue]) -> str:
    """Return the cues as a WebVTT file; what would end a cue or open a tag in it is escaped."""
    return "WEBVTT\n\n" + "\n".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_voice(cue.speaker)}{_escaped(_lines(cue.text))}\n"
        for start, end, cue in _timed(cues)
    )


def srt(cues: Iterable[Cue]) -> str:
    """Return the cues as a SubRip file, which knows no escapes: a speaker stands before the words."""
    return "\n".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n"
        f"{_named(cue.speaker)}{_lines(cue.text).replace('-->', '->')}\n"
        for number, (start, end, cue) in enumerate(_timed(cues), start=1)
    )


def _timed(cues: Iterable[Cue]) -> list[tuple[float, float, Cue]]:
    ordered = sorted((cue for cue in cues if cue.text.strip()), key=lambda cue: (cue.start_s, cue.end_s))
    return [(cue.start_s, max(cue.end_s, cue.start_s + LEAST_SECONDS), cue) for cue in ordered]


def _lines(text: str) -> str:
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
