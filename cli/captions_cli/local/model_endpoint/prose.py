"""Answering text with text: an extract of what was said, never a phrase that was there before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

NAME = "extract"
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
    parts = sentences(text)
    if not parts:
        return "The request holds no text to answer."
    if len(parts) <= kept:
        return " ".join(parts)
    frequency = Counter(word.lower() for word in _WORD.findall(text))

    def weight(sentence: str) -> float:
        words = {word.lower() for word in _WORD.findall(sentence)}
        return sum(frequency[word] - 1 for word in words) / (len(words) + 4) if words else -1.0

    best = sorted(range(len(parts)), key=lambda at: (-weight(parts[at]), at))[:kept]
    return " ".join(parts[at] for at in sorted(best))


_ASKING = frozenset(
    {"what", "which", "when", "where", "whom", "whose", "does", "that", "this", "there", "they", "have"}
)


def answer(question: str, sentences_heard: Sequence[str]) -> str | None:
    """Return what was said that shares the most words of four letters and more with a question, None if nothing does.

    The measure is Luhn's again; it finds where the matter is spoken of, and understands neither question nor answer.
    """
    wanted = _long_words(question) - _ASKING
    shared = [len(wanted & _long_words(text)) for text in sentences_heard]
    most = max(shared, default=0)
    return sentences_heard[shared.index(most)] if most else None


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]{4,}", text.lower()))
