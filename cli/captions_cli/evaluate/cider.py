"""CIDEr-D: how much a caption says what people say, rare words counting more.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 6, with the
constants of the COCO caption evaluation: n-grams of 1 to 4 words, sigma 6, times 10. Words are taken in lower case
without punctuation, and not stemmed, as there.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_LONGEST = 4
_SIGMA = 6.0
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")

_Grams = list[Counter[tuple[str, ...]]]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case; of scripts that put no spaces between words, the characters."""
    spaced = _UNSPACED.sub(lambda match: f" {match[0]} ", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(spaced)


class CiderD:
    """CIDEr-D against a set of references: all of them together say how rare a phrase is."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        """`references` holds the captions of each picture."""
        self._documents = len(references)
        self._frequency: Counter[tuple[str, ...]] = Counter()
        for captions in references:
            self._frequency.update({gram for caption in captions for grams in _grams(caption) for gram in grams})

    def score(self, caption: str, references: Sequence[str]) -> float:
        """Return 0 to 10 for one caption against the references of its picture."""
        if not references or self._documents < 2:
            return 0.0
        candidate = _grams(caption)
        length = sum(candidate[0].values())
        return (
            10.0
            * sum(self._similar(candidate, length, _grams(reference)) for reference in references)
            / len(references)
        )

    def _similar(self, candidate: _Grams, length: int, reference: _Grams) -> float:
        delta = length - sum(reference[0].values())
        total = 0.0
        for ours, theirs in zip(candidate, reference, strict=True):
            mine, other = self._weighted(ours), self._weighted(theirs)
            norms = math.hypot(*mine.values()) * math.hypot(*other.values())
            if norms:
                shared = mine.keys() & other.keys()
                total += sum(min(mine[gram], other[gram]) * other[gram] for gram in shared) / norms
        return total / _LONGEST * math.exp(-(delta**2) / (2 * _SIGMA**2))

    def _weighted(self, grams: Counter[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
        everywhere = math.log(self._documents)
        return {gram: count * (everywhere - math.log(max(1, self._frequency[gram]))) for gram, count in grams.items()}


def _grams(text: str) -> _Grams:
    counts = words(text)
    return [
        Counter(tuple(counts[at : at + size]) for at in range(len(counts) - size + 1))
        for size in range(1, _LONGEST + 1)
    ]
