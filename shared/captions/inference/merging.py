"""One output out of those of a recording's parts, with every time counted from the start of the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from captions.tasks import TASKS, Heard, Output
from captions.tasks.parts import lists, longest

MAX_BYTES = 140_000
"""Of a text and its segments as JSON: a record keeps 150 KB of one result (captions.records.record)."""
MERGED_SECONDS = (6.0, 15.0, 60.0, 600.0)
"""So long segments may become, one step after the other, while they take too much room."""


def joined(name: str, parts: Sequence[Heard]) -> Output:
    """Return the output of the whole recording for a task; that of a single part only gets its times moved.

    Texts follow each other in paragraphs, one a part. The language is that of most of the time; data are merged as the
    task says. What a record has no room for is left out: first short segments become longer ones, then there are none,
    and of a text beyond that the end (`data.truncated`).
    """
    task = TASKS[name]
    with_text = [part for part in parts if part.output.text]
    texts = [part.output.text for part in with_text if not task.answered_by or part.output.data.get(task.answered_by)]
    text = "\n".join(texts or dict.fromkeys(part.output.text for part in with_text))
    data = (task.merge or lists)(parts)
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
        language=longest(with_text, lambda part: part.output.language)
        or (parts[0].output.language if parts else "und"),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part.output.tags)),
        safety=_worst(part.output.safety for part in with_text),
        confidence=_mean((part.output.confidence, part.seconds) for part in with_text),
        data=data,
    )


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


def within(segments: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return segments that take at most `most` bytes as JSON: neighbours become one, for as long as is needed.

    Where even the longest take too much, there are none: the text has every word.
    """
    kept = [dict(segment) for segment in segments]
    for seconds in MERGED_SECONDS:
        if _bytes(kept) <= most:
            return kept
        kept = _merged(kept, seconds)
    return kept if _bytes(kept) <= most else []


def _merged(segments: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    merged: list[dict[str, Any]] = []
    for segment in segments:
        last = merged[-1] if merged else None
        fits = last is not None and segment["end_s"] - last["start_s"] <= seconds
        if last is not None and fits and segment.get("speaker") == last.get("speaker"):
            last["text"] = f"{last['text']} {segment['text']}"
            last["end_s"] = max(last["end_s"], segment["end_s"])
        else:
            merged.append(dict(segment))
    return merged


def _beginning(text: str) -> str:
    """Return as much of a text as is kept, up to the end of a word; JSON escapes line ends and quotation marks."""
    kept = text.encode()[: MAX_BYTES * 9 // 10].decode(errors="ignore")
    return kept[: kept.rfind(" ") + 1].rstrip() or kept


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())
