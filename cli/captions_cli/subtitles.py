"""The words of one upload by themselves: as text, or as subtitles where its answer has times."""

from __future__ import annotations

from typing import Any, Literal

from captions.records.record import Record
from captions.tasks.subtitles import Segment, srt, webvtt
from captions_cli.errors import CommandError, ExitCode


def words(record: Record, form: Literal["text", "vtt", "srt"]) -> str:
    """Return the record's text, or its segments as WebVTT or SubRip.

    Raises CommandError (NOT_CAPTIONED) where there is no text, or no times.
    """
    result: Any = record.result
    if result is None:
        raise CommandError(f"{record.key} has no text: it is {record.state}", ExitCode.NOT_CAPTIONED)
    if form == "text":
        return f"{result.text}\n"
    segments = timed(getattr(result, "data", None) or {})
    if not segments:
        raise CommandError(
            f"{record.key} has no words with times: only speech, of a model that tells the times, has subtitles",
            ExitCode.NOT_CAPTIONED,
        )
    return webvtt(segments) if form == "vtt" else srt(segments)


def timed(data: dict[str, Any]) -> list[Segment]:
    """Return the segments of an answer's further fields that have a start and an end."""
    segments = data.get("segments") or ()
    return [
        Segment(start_s=float(one["start_s"]), end_s=float(one["end_s"]), text=one["text"], speaker=one.get("speaker"))
        for one in segments
        if one.get("start_s") is not None and one.get("end_s") is not None
    ]
