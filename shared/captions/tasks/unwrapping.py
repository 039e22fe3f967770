"""Getting an answer out of what a model wraps it in: reasoning, fences, chatter, and JSON that is nearly JSON."""

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
_NAMES = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|(?:reasoning_)?scratch_?pad"
    r"|inner_?monologue|chain_?of_?thought)"
)
# As the templates of DeepSeek, Qwen, GLM, Mistral, Kimi, Seed, Cohere, Apertus and their like write them.
_OPENS = (
    rf"<\s?\|?(?:[\w-]{{1,20}}:)?{_NAMES}(?:\s[^<>]{{0,200}})?\|?>|\[{_NAMES}\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|START_THINKING\|>|<\|inner_prefix\|>|<｜begin▁of▁think｜>|<start_working_out>|<\|channel>thought"
    rf"|&lt;{_NAMES}&gt;|<details type=\"reasoning\"[^<>]{{0,200}}>|<unused94>thought|^\s*here is my thought process:"
)
_CLOSES = (
    rf"<\s?\|?/\s?(?:[\w-]{{1,20}}:)?{_NAMES}\s?\|?>|\[/{_NAMES}\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>"
    r"|<\|inner_suffix\|>|<｜end▁of▁think｜>|<end_working_out>|<channel\|>"
    rf"|&lt;/{_NAMES}&gt;|</details>|<unused95>|here is my response:"
)
_MARK = re.compile(rf"(?P<opens>{_OPENS})|(?P<closes>{_CLOSES})", re.IGNORECASE)
_BARE_CHANNELS = re.compile(r"^\s*analysis(?=[A-Z\"'*]).*assistant\s?final(?=\W|[A-Z])", re.DOTALL)
"""The harmony format of a server that left out its special tokens."""
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]{0,100}<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|start|channel|call)\|>")
_WRAPPING = re.compile(
    r"<\|(?:begin|end)_of_(?:box|solution)\|>|<\|(?:START|END)_RESPONSE\|>|<\|(?:im_end|endoftext|eot_id|end)\|>|</?answer>"
)
"""Marks around an answer that a server did not take away."""


def without_reasoning(text: str) -> tuple[str, bool]:
    """Return what is left of an answer without its reasoning, and whether that was complete.

    Reasoning whose start the chat template swallowed ends with a lone closing mark: all before it goes. Reasoning that
    never ends takes the rest along, drafts of answers included: then the answer was not given.
    """
    if channels := list(_CHANNEL.finditer(text)):
        # OpenAI's harmony format: the last message of the channel "final" is the answer.
        final = next((channel for channel in reversed(channels) if channel[1].lower() == "final"), None)
        if final is None:
            return "", False
        end = _CHANNEL_END.search(text, final.end())
        return text[final.end() : end.start() if end else len(text)].strip(), True
    text = _BARE_CHANNELS.sub("", text)
    visible: list[str] = []
    at, inside = 0, False
    for mark in _MARK.finditer(text):
        if mark["opens"]:
            if not inside:
                visible.append(text[at : mark.start()])
            inside = True
        else:
            if not inside:
                visible.clear()
            inside = False
        at = mark.end()
    if not inside:
        visible.append(text[at:])
    return _WRAPPING.sub("", "".join(visible)).strip(), not inside


def begins_with_reasoning(text: str) -> bool:
    """Tell whether a text opens with reasoning, or closes some that it never opened; not whether it mentions a mark."""
    if _CHANNEL.search(text) or _BARE_CHANNELS.match(text):
        return True
    first = _MARK.search(text)
    return first is not None and (bool(first["closes"]) or not text[: first.start()].strip())


def field_has_reasoning(text: str) -> bool:
    """Tell the same of one field of an answer in JSON, which may well speak of a page that shows such marks."""
    first = _MARK.search(text)
    if first is None:
        return bool(_CHANNEL.match(text))
    if first["opens"]:
        return not text[: first.start()].strip() and any(mark["closes"] for mark in _MARK.finditer(text))
    return text[first.end() :].startswith("\n")


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
