"""`POST /v1/embeddings`: texts as vectors by the letters and words they have, without a model.

Counts of words and of stretches of three to five letters are hashed into a vector of unit length (Weinberger et al.,
"Feature Hashing for Large Scale Multitask Learning", ICML 2009): texts that share words, or forms of them, are near.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from captions_cli.local.model_endpoint.wire import ApiError, count_tokens

DIMENSIONS = 256
_LENGTHS = (3, 4, 5)
_MOST_TEXTS = 2_048


def answer(body: Any) -> dict[str, Any]:
    """Return the response to a request's JSON; raise ApiError for one that is none of embeddings."""
    given = body.get("input") if isinstance(body, Mapping) else None
    texts = [given] if isinstance(given, str) else given
    name = body.get("model") if isinstance(body, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ApiError(400, "you must provide a model parameter", param="model")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ApiError(400, "'input' must be a text or a list of texts, none of them empty.", param="input")
    if len(texts) > _MOST_TEXTS:
        raise ApiError(400, f"'input' must have at most {_MOST_TEXTS} texts.", param="input")
    tokens = sum(map(count_tokens, texts))
    return {
        "object": "list",
        "model": name,
        "data": [{"object": "embedding", "index": at, "embedding": vector(text)} for at, text in enumerate(texts)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(text: str) -> list[float]:
    """Return a text's vector, of unit length."""
    features: Counter[str] = Counter()
    for word in text.casefold().split():
        padded = f"<{word}>"
        features[padded] += 1
        features.update(padded[at : at + size] for size in _LENGTHS for at in range(len(padded) - size + 1))
    values = [0.0] * DIMENSIONS
    for feature, count in features.items():
        digest = hashlib.blake2b(feature.encode(), digest_size=4).digest()
        at = int.from_bytes(digest[:3]) % DIMENSIONS
        values[at] += math.sqrt(count) * (1 if digest[3] & 1 else -1)
    norm = math.hypot(*values) or 1.0
    return [value / norm for value in values]
