"""What POST /v1/audio/transcriptions answers: a transcript in one of OpenAI's five formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from captions.subtitles import Cue, srt, webvtt
from captions_cli.local.model_endpoint.description import Description, SpokenSegment
from captions_cli.local.model_endpoint.faults import Fault
from captions_cli.local.model_endpoint.wire import ApiError


def formatted(heard: Description, response_format: str, usage: Mapping[str, object]) -> tuple[bytes, str]:
    """Return the transcript and its content type: `json`, `text`, `verbose_json`, `srt` or `vtt`.

    `usage` stands in the JSON formats: tokens, or seconds where the model is billed by time.

    Without recognised speech the transcript is empty, as Whisper's is. Raises `ApiError` 400 for another format.
    """
    words = " ".join(segment.text for segment in heard.segments)
    match response_format:
        case "json":
            return json.dumps({"text": words, "usage": dict(usage)}).encode(), "application/json"
        case "text":
            return f"{words}\n".encode(), "text/plain"
        case "verbose_json":
            return json.dumps({**_verbose(heard, words), "usage": dict(usage)}).encode(), "application/json"
        case "srt":
            return srt(_cues(heard)).encode(), "text/plain"
        case "vtt":
            return webvtt(_cues(heard)).encode(), "text/plain"
    raise ApiError(400, f"Invalid 'response_format': {response_format!r}.", param="response_format")


def spoiled(heard: Description, fault: Fault) -> Description:
    """Return the transcript as the faults that spoil answers leave it; others leave it as it is."""
    match fault.fault:
        case "empty":
            return replace(heard, text="", segments=())
        case "truncated":
            kept = heard.segments[: max(1, len(heard.segments) // 2)]
            return replace(
                heard, segments=tuple(replace(segment, text=segment.text[: len(segment.text) // 2]) for segment in kept)
            )
        case "answer":
            end = heard.duration_s or 0.0
            return replace(heard, text=fault.text or "", segments=(SpokenSegment(0.0, end, fault.text or ""),))
    return heard


def _verbose(heard: Description, words: str) -> dict[str, object]:
    return {
        "task": "transcribe",
        # OpenAI names the language where others give its tag; only English has a name here.
        "language": "english" if (language := heard.measured.get("language", "en")) == "en" else language,
        "duration": heard.duration_s,
        "text": words,
        "segments": [
            {"id": number, "start": segment.start, "end": segment.end, "text": segment.text}
            for number, segment in enumerate(heard.segments)
        ],
    }


def _cues(heard: Description) -> list[Cue]:
    return [Cue(start_s=segment.start, end_s=segment.end, text=segment.text) for segment in heard.segments]
