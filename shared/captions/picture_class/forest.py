"""From a picture's measurements to its category: a small forest of decision trees, kept as data in model.json.

benchmarks/fit_looks.py fits it (extremely randomised trees: Geurts, Ernst, Wehenkel 2006,
doi:10.1007/s10994-006-6226-1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from captions import media
from captions.once import once
from captions.picture_class import CATEGORIES, Looks
from captions.picture_class.cjk import ScriptModel, measured_lines
from captions.picture_class.features import Measured, measured

Float64s = npt.NDArray[np.float64]
_WRITTEN = ("document", "screenshot", "code")  # writing in lines, of which the script can be told
_ARRAYS = ("feature", "threshold", "left", "right")


@dataclass(frozen=True)
class Forest:
    """Trees as flat arrays: an inner node sends a picture to `left` if its feature is at most `threshold`, else right.

    Leaves lead to themselves; `shares` are the leaves' shares of each category. `temperature` below 1 sharpens the mean
    of the shares to what was right as often as it says.
    """

    features: tuple[str, ...]
    roots: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]
    depth: int
    temperature: float
    script: ScriptModel

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Forest:
        """Return the forest that a document like model.json describes. Raises ValueError on other categories."""
        if tuple(document["categories"]) != CATEGORIES:
            raise ValueError(f"the model tells {document['categories']} apart, not {list(CATEGORIES)}")
        trees = document["trees"]
        sizes = [len(tree["feature"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        own = np.arange(sum(sizes))
        feature, threshold, left, right = (
            np.concatenate([np.asarray(tree[name]) for tree in trees]) for name in _ARRAYS
        )
        shift = np.repeat(roots, sizes)
        leaf = left < 0
        empty = [0.0] * len(CATEGORIES)  # an inner node has no shares
        shares = np.array([row or empty for tree in trees for row in tree["shares"]], np.float32)
        return cls(
            features=tuple(document["features"]),
            roots=roots.astype(np.int32),
            feature=np.where(leaf, 0, feature).astype(np.int32),
            threshold=threshold.astype(np.float32),
            left=np.where(leaf, own, left + shift).astype(np.int32),
            right=np.where(leaf, own, right + shift).astype(np.int32),
            shares=shares / np.maximum(shares.sum(axis=1, keepdims=True), 1),
            depth=int(document["depth"]),
            temperature=float(document["temperature"]),
            script=ScriptModel.of(document["script"]),
        )

    def likelihoods(self, values: Mapping[str, float]) -> Float64s:
        """Return how likely each of CATEGORIES is (sums to 1) for a picture with these measurements."""
        row = np.array([values[name] for name in self.features], np.float32)
        at = self.roots
        for _ in range(self.depth):
            at = np.where(row[self.feature[at]] <= self.threshold[at], self.left[at], self.right[at])
        return sharpened(self.shares[at].mean(axis=0, dtype=np.float64), self.temperature)


def sharpened(likelihoods: Float64s, temperature: float) -> Float64s:
    """Return likelihoods (last axis) raised to 1/temperature and scaled to a sum of 1."""
    powers = np.maximum(likelihoods, 1e-4) ** (1 / temperature)
    scaled: Float64s = powers / powers.sum(axis=-1, keepdims=True)
    return scaled


@once
def packaged() -> Forest:
    """Return the forest of model.json beside this module; read once."""
    return Forest.of(json.loads(files("captions.picture_class").joinpath("model.json").read_bytes()))


def judged(picture: media.Picture, forest: Forest | None = None) -> Looks:
    """Return what `picture` looks like, by the packaged forest unless another is given."""
    features = measured(picture.working, picture.width, picture.height)
    forest = forest or packaged()
    likelihoods = forest.likelihoods(features.values)
    best = int(likelihoods.argmax())
    return Looks(
        category=CATEGORIES[best],
        confidence=round(float(likelihoods[best]), 3),
        text_share=round(features.text_share, 3),
        cjk=_cjk(picture, features, forest.script) if CATEGORIES[best] in _WRITTEN else None,
    )


def _cjk(picture: media.Picture, features: Measured, model: ScriptModel) -> float | None:
    lines = measured_lines(picture.working, features.written) if features.written is not None else None
    return None if lines is None else round(model.likelihood(lines), 3)
