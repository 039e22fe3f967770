"""Putting what was heard and seen into words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from captions_cli.local.model_endpoint import measuring, pixels
from captions_cli.local.model_endpoint.description import Description, SpokenSegment

UNSURE = "(recognised with low confidence by the local model, which knows English only)"
UNSURE_OF_LANGUAGE = "(recognised with low confidence by the local model)"
# Qwen3-Omni encodes sound at 12.5 tokens a second (arXiv 2509.17765).
_TOKENS_PER_SECOND = 12.5
_SILENCE_DBFS = -60.0


def sound(heard: Mapping[str, Any]) -> Description:
    """Return the transcript of speech, or what can be said of a recording in which none was recognised."""
    duration = float(heard["duration_s"])
    segments = tuple(SpokenSegment(**segment) for segment in heard["segments"])
    transcript = " ".join(segment.text for segment in segments)
    text = transcript or _without_speech(heard)
    if transcript and not heard["sure"]:
        text = f"{transcript} {UNSURE if heard['only_english'] else UNSURE_OF_LANGUAGE}"
    return Description(
        text=text,
        tokens=max(1, math.ceil(duration * _TOKENS_PER_SECOND)),
        short=transcript or _without_speech(heard),
        tags=("speech",) if transcript else ("no speech",),
        facts={key: value for key, value in heard.items() if key != "segments"},
        segments=segments,
        duration_s=duration,
        measured=_answers(heard, segments),
        model=heard["model"],
    )


def _answers(heard: Mapping[str, Any], segments: tuple[SpokenSegment, ...]) -> dict[str, Any]:
    """Return what was measured by the names that the shapes of answers use for it."""
    loudness = f"{heard['loudness_dbfs']:.0f} dB below full scale".replace("-", "")
    times = [{"start": segment.start, "end": segment.end, "text": segment.text} for segment in segments]
    if not segments:
        without = _without_speech(heard)
        return {
            "language": "und",
            "segments": times,
            "sounds": without,
            "emotion": "none",
            "summary/voices": without,
            "summary/music": f"{without} Its loudness is {loudness}; whether it is music is not known.",
        }
    words = sum(len(segment.text.split()) for segment in segments)
    pace = words / max(0.5, sum(segment.end - segment.start for segment in segments))
    speech = "English speech" if heard["language"] == "en" else f"Speech (language {heard['language']})"
    manner = f"about {pace:.1f} words a second, {loudness}"
    return {
        "language": heard["language"],
        "segments": times,
        "speech": times,
        "sounds": "",
        "confidence": heard["confidence"],
        "emotion": "unknown",
        "summary/voices": f"{speech}, {manner}; the local model does not hear emotions.",
        "summary/music": f"{speech}, {manner}; whether there is music besides is not known.",
    }


def film(seen: Mapping[str, Any], heard: Mapping[str, Any] | None) -> Description:
    """Return what a film's frames look like, and what is said in it."""
    frames = [(frame["at_s"], _facts(frame["facts"])) for frame in seen["frames"]]
    duration = seen["duration_s"]
    first = frames[0][1]
    length = f"A video of {_seconds(duration)}" if duration else "A video"
    sentences = [f"{length}, {first.width}x{first.height}."]
    summary = ""
    scenes: list[dict[str, Any]] = []
    for at, facts in frames:
        words = pixels.phrase(facts)[0]
        if words != summary:
            if scenes:
                scenes[-1]["end"] = at
            scenes.append({"start": at, "end": duration, "text": words})
            sentences.append(f"At {_seconds(at)}: {words[0].lower()}{words[1:]}")
            summary = words
    short = " ".join(sentences[:2])
    measured: dict[str, Any] = {"scenes": scenes}
    if heard is not None:
        listened = sound(heard)
        # What a film's sound answers stands beside what its frames do; how sure the ear was is no measure of the film.
        measured |= {name: value for name, value in listened.measured.items() if name != "confidence"}
        sentence = f'It says: "{listened.short}"' if listened.segments else "No speech was recognised in it."
        sentences.append(sentence)
    tokens = sum(max(4, -(-facts.width * facts.height // 1024)) for _, facts in frames)
    return Description(
        text=" ".join([*sentences, pixels.CLOSING]),
        tokens=tokens + math.ceil((duration or 0.0) * _TOKENS_PER_SECOND),
        short=short,
        tags=("video", *pixels.tags(first)),
        segments=sound(heard).segments if heard is not None else (),
        duration_s=duration,
        measured=measured,
        model=pixels.NAME if heard is None else f"{pixels.NAME}+{heard['model']}",
    )


def _without_speech(heard: Mapping[str, Any]) -> str:
    length = _seconds(float(heard["duration_s"]))
    if heard["loudness_dbfs"] <= _SILENCE_DBFS:
        return f"No speech was recognised in this recording: {length} of silence."
    words = "English words" if heard["only_english"] else "words"
    return f"No speech was recognised in this recording: {length} of sound without intelligible {words}."


def _seconds(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.1f} seconds"


def _facts(fields: Mapping[str, Any]) -> measuring.PixelFacts:
    regions = tuple(measuring.Region(**region) for region in fields["regions"])
    colours = tuple((name, share) for name, share in fields["colours"])
    return measuring.PixelFacts(**{**fields, "regions": regions, "colours": colours})
