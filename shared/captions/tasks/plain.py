"""Answers in prose, taken out of their wrapping."""

import re
import unicodedata

_FENCE = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}
_LEAD = re.compile(r"^(?:caption|transcript)\s*:\s*", re.IGNORECASE)


def clean(text: str) -> str:
    """Take an answer out of the wrapping models like to give: fences, quotes around the whole, a leading label.

    Characters that no caption needs and that could break a terminal or a page (controls) become spaces.
    """
    text = "".join(" " if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text).strip()
    if fenced := _FENCE.match(text):
        text = fenced.group(1).strip()
    text = _LEAD.sub("", text)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
