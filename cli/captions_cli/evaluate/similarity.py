"""How near a caption's meaning is to the expected ones', by the endpoint's embeddings (`/v1/embeddings`)."""

from __future__ import annotations

import hashlib
import json
import math
import urllib.error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPException
from typing import Any

from captions_cli import endpoint_models
from captions_cli.evaluate.journal import Journal

BATCH = 64
ASSUMED_PRICE = Decimal("0.50")
"""Dollars per million tokens that are set aside: several times what embeddings are sold at."""


@dataclass(frozen=True)
class Pair:
    """A caption and the expected ones."""

    text: str
    references: tuple[str, ...]

    def id(self, model: str) -> str:
        """What a journal keeps its similarity under."""
        return hashlib.sha256(json.dumps([model, self.text, self.references]).encode()).hexdigest()[:24]


class Embeddings:
    """One endpoint's embeddings; `why` says why there are none."""

    def __init__(self, url: str, key: str, model: str | None, journal: Journal, limit: Decimal | None) -> None:
        self._url, self._key, self._journal, self._limit = url, key, journal, limit
        self.why: str | None = None
        self.model = model or self._listed() or ""

    def similarities(self, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Return each caption's similarity to the nearest expected one, -1 to 1; without those that are not known."""
        wanted = list(dict.fromkeys(pairs))
        known = self._journal.similarities
        missing = [pair for pair in wanted if pair.id(self.model) not in known]
        texts = list(dict.fromkeys(text for pair in missing for text in (pair.text, *pair.references) if text.strip()))
        vectors: dict[str, Sequence[float]] = {}
        for start in range(0, len(texts), BATCH):
            if self.why is not None:
                break
            vectors |= self._vectors(texts[start : start + BATCH])
        for pair in missing:
            if pair.text in vectors and any(text in vectors for text in pair.references):
                nearest = max(
                    _cosine(vectors[pair.text], vectors[reference])
                    for reference in pair.references
                    if reference in vectors
                )
                self._journal.similar(pair.id(self.model), nearest)
        return {pair: known[pair.id(self.model)] for pair in wanted if pair.id(self.model) in known}

    def _listed(self) -> str | None:
        """Return the first model that the endpoint lists and whose name says what it is for."""
        try:
            listed = endpoint_models.ask(f"{self._url}/models", self._key)
        except (OSError, ValueError, HTTPException):
            listed = None
        cards = listed.get("data") if isinstance(listed, Mapping) else None
        names = [card.get("id") for card in cards if isinstance(card, Mapping)] if isinstance(cards, list) else []
        model = next((name for name in names if isinstance(name, str) and "embed" in name.lower()), None)
        if model is None:
            self.why = f"{self._url} lists no model of embeddings; --embedding-model names one"
        return model

    def _vectors(self, texts: Sequence[str]) -> dict[str, Sequence[float]]:
        most = ASSUMED_PRICE * sum(map(len, texts)) / 1_000_000
        if self._limit is not None and self._journal.spent + most > self._limit:
            self.why = "--max-cost leaves no room for embeddings"
            return {}
        name = f"embeddings-{hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:12]}"
        self._journal.reserve(name, most)
        try:
            answer = endpoint_models.ask(f"{self._url}/embeddings", self._key, {"model": self.model, "input": texts})
        except urllib.error.HTTPError as error:
            self._journal.settle(name, Decimal(0), known=True)
            self.why = f"{self._url} answered {error.code} {error.reason} to /embeddings"
            return {}
        except (OSError, ValueError, HTTPException) as error:
            self.why = f"{self._url} gave no embeddings: {getattr(error, 'reason', error)}"
            return {}
        self._journal.settle(name, most, known=False)
        read = _read(answer, len(texts))
        if read is None:
            self.why = f"{self._url} gave embeddings that cannot be read"
            return {}
        return dict(zip(texts, read, strict=True))


def _read(answer: Any, number: int) -> list[Sequence[float]] | None:
    """Return the vectors in the order of the texts; None for what is no such answer."""
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(data, list) or len(data) != number:
        return None
    vectors: list[Sequence[float]] = [()] * number
    for place, entry in enumerate(data):
        vector = entry.get("embedding") if isinstance(entry, Mapping) else None
        at = entry.get("index", place) if isinstance(entry, Mapping) else None
        if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
            return None
        if type(at) is not int or not 0 <= at < number:
            return None
        vectors[at] = vector
    sizes = {len(vector) for vector in vectors}
    return vectors if len(sizes) == 1 and 0 not in sizes else None


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    norms = math.hypot(*first) * math.hypot(*second)
    return math.fsum(map(lambda a, other: a * other, first, second)) / norms if norms else 0.0
