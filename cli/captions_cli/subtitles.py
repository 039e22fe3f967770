"""The words of one upload by themselves: as text, or as subtitles where its answer has times."""

from __future__ import annotations

from typing import Any, Literal

from captions.records.record import Record
from captions.subtitles import srt, timed, webvtt
from captions_cli.errors import CommandError, ExitCode


def words(record: Record, form: Literal["text", "vtt", "srt"]) -> str:
    """Return the record's text, or its cues as WebVTT or SubRip.

    Raises CommandError (NOT_CAPTIONED) where there is no text, or no times.
    """
    result: Any = record.result
    if result is None:
        raise CommandError(f"{record.key} has no text: it is {record.state}", ExitCode.NOT_CAPTIONED)
    if form == "text":
        return f"{result.text}\n"
    cues = timed(getattr(result, "data", None) or {})
    if not cues:
        raise CommandError(
            f"{record.key} has no words with times: only speech, of a model that gives the times, has subtitles",
            ExitCode.NOT_CAPTIONED,
        )
    return webvtt(cues) if form == "vtt" else srt(cues)
