"""Taking away what a reasoning model thinks aloud, so that only its answer is read."""

from __future__ import annotations

import re

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
