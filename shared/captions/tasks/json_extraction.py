"""Getting the object out of an answer: through fences, reasoning, chatter around it, and JSON that is nearly JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from captions.tasks.answer_schema import snake

How = Literal["exact", "chatter", "repaired", "none"]
MAX_ANSWER = 200_000
"""Characters of an answer that are looked at; the longest task may answer with a tenth of them."""
_MAX_REPAIRED = 30_000
_MAX_STARTS = 200
_MAX_DEPTH = 64
# Possessive, as nothing of what an answer may repeat endlessly is to be tried twice.
_FENCE = re.compile(r"^```[\w-]*+[ \t]*+\n?+(.*?)\n?```$", re.DOTALL)
_BROKEN = re.compile(r"[\"'“][\w -]{1,40}[\"'”]\s*:")


def answer_object(text: str, known: Collection[str]) -> tuple[Mapping[Any, Any] | None, How]:
    """Return the object an answer holds, and how it was got.

    Of several objects it is the one with the most keys that are `known`, and among equals the last: what a model
    quotes stands before what it says. What is no JSON goes to `json_repair`, which closes what was left open and quotes
    what was not.
    """
    text = text[:MAX_ANSWER].strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    try:
        return _unwrapped(json.loads(text, strict=False), known), "exact"
    except (ValueError, RecursionError):
        pass
    best: Mapping[Any, Any] | None = None
    most = 0
    start = text.find("{")
    for at, candidate in _objects(text):
        score = _score(candidate, known)
        if score >= max(1, most):
            best, most = candidate, score
        if at == start:
            start = -1  # the first object is whole, so that none of the others is a part of a broken one
    if best is not None and start < 0:
        return best, "chatter"
    repaired = _unwrapped(_repaired(text), known)
    if repaired is not None and _score(repaired, known) > most:
        return repaired, "repaired"
    return (best, "chatter") if best is not None else (None, "none")


def whole_object(text: str) -> bool:
    """Tell whether an answer is one JSON object and nothing else, fences aside."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    try:
        return text.startswith("{") and isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def broken(text: str) -> bool:
    """Tell whether a text that holds no object was meant to be one, so that it is not taken for prose."""
    bare = text.strip().lstrip("`json \n")
    return bare.startswith(("{", "[")) or len(_BROKEN.findall(text)) >= 2


def _objects(text: str) -> list[tuple[int, Mapping[Any, Any]]]:
    """Return the objects that stand in a text, with where each begins."""
    decoder = json.JSONDecoder(strict=False)
    objects: list[tuple[int, Mapping[Any, Any]]] = []
    at = text.find("{")
    for _ in range(_MAX_STARTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        except RecursionError:
            break  # so are the many that begin within it
        else:
            if isinstance(value, Mapping):
                objects.append((at, value))
        at = text.find("{", end)
    return objects


def _repaired(text: str) -> Any:
    start = text.find("{")
    if start < 0:
        return None
    text = text[start : start + _MAX_REPAIRED]
    if _depth(text) > _MAX_DEPTH:
        return None  # a loop of brackets, which takes the repairer seconds
    # Imported here: functions that only put jobs on queues never read an answer.
    import json_repair

    try:
        return json_repair.loads(text, skip_json_loads=True)
    # What a parser of broken text may raise on hostile text is no error of ours, and there is nothing to act on.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _depth(text: str) -> int:
    """Return how deep brackets are opened; those in strings count as well, of which no answer has so many."""
    depth = deepest = 0
    for char in text:
        if char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth = max(0, depth - 1)
    return deepest


def _unwrapped(value: Any, known: Collection[str]) -> Mapping[Any, Any] | None:
    """Return the object with the answer's keys, out of lists and objects that hold nothing else."""
    for _ in range(4):
        if isinstance(value, list):
            objects = [item for item in value if isinstance(item, Mapping)]
            value = max(objects, key=lambda item: _score(item, known), default=None)
        if not isinstance(value, Mapping):
            return None
        if _score(value, known):
            return value
        inner = [item for item in value.values() if isinstance(item, Mapping | list)]
        if len(inner) != 1:
            return value
        value = inner[0]
    return value if isinstance(value, Mapping) else None


def _score(value: Mapping[Any, Any], known: Collection[str]) -> int:
    return sum(snake(key) in known for key in list(value)[:100])
