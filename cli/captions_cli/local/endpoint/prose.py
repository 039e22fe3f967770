"""Answering text with text: an extract of what was said, never a phrase that was there before."""

from __future__ import annotations

import re
from collections import Counter

_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_KEPT_SENTENCES = 3


def sentences(text: str) -> list[str]:
    """Cut text into its sentences and lines, without empty ones."""
    return [piece.strip() for piece in _SENTENCE.split(text) if piece.strip()]


def condense(text: str, kept: int = _KEPT_SENTENCES) -> str:
    """Return the `kept` sentences of `text` whose words are the most frequent in it, in their order.

    The measure is Luhn's (The automatic creation of literature abstracts, 1958): a sentence weighs as much as the
    words that the text repeats.
    """
    found = sentences(text)
    if not found:
        return "The request holds no text to answer."
    if len(found) <= kept:
        return " ".join(found)
    frequency = Counter(word.lower() for word in _WORD.findall(text))

    def weight(sentence: str) -> float:
        words = {word.lower() for word in _WORD.findall(sentence)}
        return sum(frequency[word] - 1 for word in words) / (len(words) + 4) if words else -1.0

    best = sorted(range(len(found)), key=lambda at: (-weight(found[at]), at))[:kept]
    return " ".join(found[at] for at in sorted(best))
