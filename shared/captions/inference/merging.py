"""One output out of those of a recording's parts, with every time counted from the start of the whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from captions.tasks import Output

MAX_BYTES = 140_000
"""Of a text and its segments as JSON: a record keeps 150 KB of one result (captions.records.record)."""
MERGED_SECONDS = (6.0, 15.0, 60.0, 600.0)
"""So long segments may become, one step after the other, while they take too much room."""


@dataclass(frozen=True)
class Heard:
    """What one part, from `start_s` to `end_s` of the recording, was answered with; its own times count from 0."""

    start_s: float
    end_s: float
    output: Output
    model: str = ""

    @property
    def seconds(self) -> float:
        """How long the part plays."""
        return max(0.0, self.end_s - self.start_s)


def joined(task: str, parts: Sequence[Heard]) -> Output:
    """Return the output of the whole recording; that of a single part only gets its times moved.

    Texts follow each other in paragraphs, one a part. A language, and what a task tells once, are those of most of the
    time; what it lists is listed on. What a record has no room for is left out: first short segments become longer
    ones, then there are none, and of a text beyond that the end (`data.truncated`).
    """
    told = [part for part in parts if part.output.text]
    saying = [part.output.text for part in _spoken(task, told)]
    text = "\n".join(saying or dict.fromkeys(part.output.text for part in told))
    data = _JOINERS.get(task, _lists)(parts)
    if "segments" in data:
        data["segments"] = within(data["segments"], MAX_BYTES - _bytes(text))
    if _bytes(text) > MAX_BYTES:
        text, data["truncated"] = _beginning(text), True
    if len(parts) > 1:
        data["parts"] = [
            {"start_s": part.start_s, "end_s": part.end_s, **({"model": part.model} if part.model else {})}
            for part in parts
        ]
    return Output(
        text=text,
        language=_most(told, lambda part: part.output.language) or (parts[0].output.language if parts else "und"),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part.output.tags)),
        safety=_worst(part.output.safety for part in told),
        confidence=_mean((part.output.confidence, part.seconds) for part in told),
        data=data,
    )


def _spoken(task: str, told: Sequence[Heard]) -> list[Heard]:
    """Return the parts that say something of the task: a transcript leaves out what is heard where nobody speaks."""
    tells = {"transcribe": "speech", "audio_qa": "answerable", "music": "music"}.get(task)
    return [part for part in told if tells is None or part.output.data.get(tells)]


def _most(parts: Sequence[Heard], of: Callable[[Heard], str]) -> str | None:
    seconds: Counter[str] = Counter()
    for part in parts:
        seconds[of(part)] += max(1, round(part.seconds * 1000))
    return seconds.most_common(1)[0][0] if seconds else None


def _worst(verdicts: Iterable[str]) -> Literal["safe", "sensitive", "unsafe", "unknown"]:
    given = set(verdicts)
    for verdict in ("unsafe", "sensitive", "unknown"):
        if verdict in given:
            return verdict
    return "safe" if given else "unknown"


def _mean(values: Iterable[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight > 0]
    total = sum(weight for _, weight in known)
    return round(sum(value * weight for value, weight in known) / total, 4) if total else None


# --- by task --------------------------------------------------------------------------------------------------------


def _transcript(parts: Sequence[Heard]) -> dict[str, Any]:
    several = sum(bool(part.output.data.get("speakers") or _voices(part)) for part in parts) > 1
    segments = [segment for number, part in enumerate(parts, 1) for segment in _moved(part, number if several else 0)]
    speakers = [
        {**one, "speaker": _label(str(one.get("speaker", "")), number if several else 0)}
        for number, part in enumerate(parts, 1)
        for one in part.output.data.get("speakers", ())
    ]
    sounds = dict.fromkeys(str(part.output.data.get("sounds") or "") for part in parts)
    return {
        "speech": any(part.output.data.get("speech") for part in parts),
        "segments": segments,
        "speakers": speakers,
        "sounds": " ".join(filter(None, sounds)),
    }


def _voices(part: Heard) -> bool:
    return any(segment.get("speaker") for segment in part.output.data.get("segments", ()))


def _label(speaker: str, number: int) -> str:
    """A model numbers speakers anew in each part; who is who across parts is not known, and not claimed."""
    return f"{speaker} (part {number})" if speaker and number else speaker


def _moved(part: Heard, number: int) -> list[dict[str, Any]]:
    """Return a part's segments with times of the whole; those without times stand for the part they are in."""
    segments = [dict(one) for one in part.output.data.get("segments", ()) if one.get("text")]
    timed = [one for one in segments if one.get("start_s") is not None and one.get("end_s") is not None]
    if segments and len(timed) < len(segments):
        voices = {one.get("speaker") for one in segments}
        text = " ".join(str(one["text"]) for one in segments)
        speaker = voices.pop() if len(voices) == 1 else None
        segments = [{"start_s": 0.0, "end_s": part.seconds, "text": text, "speaker": speaker}]
    for one in segments:
        one["start_s"] = round(part.start_s + min(float(one["start_s"]), part.seconds), 3)
        one["end_s"] = round(part.start_s + min(float(one["end_s"]), part.seconds), 3)
        one["speaker"] = _label(str(one.get("speaker") or ""), number) or None
    return segments


def within(segments: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return segments that take at most `most` bytes as JSON: neighbours become one, for as long as is needed.

    Where even the longest take too much, there are none: the text has every word.
    """
    kept = [dict(one) for one in segments]
    for seconds in MERGED_SECONDS:
        if _bytes(kept) <= most:
            return kept
        kept = _merged(kept, seconds)
    return kept if _bytes(kept) <= most else []


def _merged(segments: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for one in segments:
        last = merged[-1] if merged else None
        fits = last is not None and one["end_s"] - last["start_s"] <= seconds
        if last is not None and fits and one.get("speaker") == last.get("speaker"):
            last["text"] = f"{last['text']} {one['text']}"
            last["end_s"] = max(last["end_s"], one["end_s"])
        else:
            merged.append(dict(one))
    return merged


def _beginning(text: str) -> str:
    """Return as much of a text as is kept, up to the end of a word; JSON escapes line ends and quotation marks."""
    kept = text.encode()[: MAX_BYTES * 9 // 10].decode(errors="ignore")
    return kept[: kept.rfind(" ") + 1].rstrip() or kept


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _question(parts: Sequence[Heard]) -> dict[str, Any]:
    answered = [part for part in parts if part.output.data.get("answerable")]
    return {
        "question": parts[0].output.data.get("question", "") if parts else "",
        "answerable": bool(answered),
        "evidence": "\n".join(filter(None, (str(part.output.data.get("evidence") or "") for part in answered))),
    }


def _emotion(parts: Sequence[Heard]) -> dict[str, Any]:
    voices = []
    for part in parts:
        for voice in part.output.data.get("voices", ()):
            times = {
                name: round(part.start_s + float(voice[name]), 3)
                for name in ("start", "end")
                if voice.get(name) is not None
            }
            voices.append({**voice, **times})
    heard = [part for part in parts if part.output.data.get("emotion") not in (None, "none", "unknown")]
    return {"emotion": _most(heard, lambda part: str(part.output.data["emotion"])) or "none", "voices": voices}


def _music(parts: Sequence[Heard]) -> dict[str, Any]:
    playing = [part for part in parts if part.output.data.get("music")]
    if not playing:
        return dict(parts[0].output.data) if parts else {}
    longest = max(playing, key=lambda part: part.seconds)
    lists = _lists(playing)
    return {**longest.output.data, **{name: lists[name] for name in ("genres", "instruments") if name in lists}}


def _lists(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the first part's fields, with what the others add to its lists."""
    data: dict[str, Any] = {}
    for part in parts:
        for name, value in part.output.data.items():
            if name not in data:
                data[name] = list(value) if isinstance(value, list) else value
            elif isinstance(value, list) and isinstance(data[name], list):
                data[name] += [one for one in value if one not in data[name]]
    return data


_JOINERS: Mapping[str, Callable[[Sequence[Heard]], dict[str, Any]]] = {
    "transcribe": _transcript,
    "audio_qa": _question,
    "emotion": _emotion,
    "music": _music,
}
