"""Answers of a worse model: what a better one saw is left out, misread or misjudged, by seed.

A quality of 1 leaves an answer as it is. At 0.8 each object, point or block of a list is left out with a probability of
0.1, each letter misread with 0.05, and each number is off by 10% (the standard deviation).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

_LEFT_OUT, _MISREAD, _OFF = 0.5, 0.25, 0.5
"""What each point of missing quality adds to the probabilities, and to the standard deviation of numbers."""
_SEEN, _TAKEN_FOR = "aecilO01uv5S8Bgq2ZmnrthbdsywoI69", "ecelI0OlvuS5B8qgZ2nrnfbhazvvclbg"
_LOOKALIKES = dict(zip(_SEEN, _TAKEN_FOR, strict=True))
_KEPT = frozenset({
    "safety", "purpose", "language", "confidence", "chart_type", "unit", "scale", "read", "emotion", "answerable",
    "music", "number", "start", "end",
})  # fmt: skip
"""What says of which kind something is; another word there would make another answer, not a worse one."""


def worsened(text: str, quality: float, seed: str) -> str:
    """Return an answer as a model of this quality (0 to 1) would have given it; the same for the same seed."""
    if quality >= 1.0:
        return text
    chance = random.Random(seed)  # noqa: S311 - it plays a model
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict | list):
        return _misread(text, 1.0 - quality, chance)
    return json.dumps(_worse(document, 1.0 - quality, chance), ensure_ascii=False)


def _worse(value: Any, lack: float, chance: random.Random) -> Any:
    if isinstance(value, Mapping):
        return {name: inner if name in _KEPT else _worse(inner, lack, chance) for name, inner in value.items()}
    if isinstance(value, list):
        return [_worse(inner, lack, chance) for inner in value if chance.random() >= _LEFT_OUT * lack]
    if isinstance(value, str):
        return _misread(value, lack, chance)
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        off = value * (1.0 + chance.gauss(0.0, _OFF * lack))
        return round(off) if isinstance(value, int) else off
    return value


def _misread(text: str, lack: float, chance: random.Random) -> str:
    return "".join(
        _LOOKALIKES.get(letter, "" if letter.isalnum() else letter) if chance.random() < _MISREAD * lack else letter
        for letter in text
    )
