"""Fit the classifier of looks: writes shared/captions/picture_class/model.json and the models that hold sources out.

    make looks MEDIA=DIR CORPUS=DIR

MEDIA is a folder that looks_labels.py knows to label, CORPUS what looks_corpus.py wrote. Runs in the environment
.venv/peers/looks with PYTHONPATH=shared. Every picture is measured as it is, as a JPEG of quality 60 and at 60 % of its
size, so that such copies look alike. Sources count the less per picture the more pictures they have.

The model that is shipped has seen everything. For benchmarks/classifier.py the sources of MEDIA are also divided into
FOLDS parts, and for each part a model is fitted that has seen neither its sources nor their relatives in CORPUS
(benchmarks/looks_held_out.json.gz). The temperature is fitted on what those say about the sources they have not seen.
"""

import argparse
import gzip
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from looks_labels import PICTURES, labelled
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from captions import media
from captions.picture_class import CATEGORIES
from captions.picture_class.cjk import ScriptModel, measured_lines
from captions.picture_class.features import measured
from captions.picture_class.forest import sharpened

FOLDS = 4
TREES, LEAVES = 48, 96
SHARES = 200  # a leaf's shares are kept in steps of one in so many
MEDIA_WEIGHT = 2.0  # of a picture of MEDIA, to one of CORPUS
PLENTY = 50  # pictures of one source, from which on each counts less
HELD_OUT = Path(__file__).parent / "looks_held_out.json.gz"
MODEL = Path(__file__).parents[1] / "shared" / "captions" / "looks" / "model.json"
CJK = ("-zh", "-ja", "-ko")  # ends of the names of sources
WRITTEN = ("document", "code", "screenshot", "chart")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One picture, or a copy of it: `origin` is "media", "package" or "rendered"."""

    path: str
    labels: tuple[str, ...]
    source: str
    origin: str
    copy: bool
    digest: str
    values: dict[str, float]
    lines: dict[str, float] | None  # of writing, if there is enough

    @property
    def cjk(self) -> bool:
        return self.source.split(" ")[0].endswith(CJK)


def relatives(source: str) -> str:
    """Return the name that sources share which come from one collection: they are held out together."""
    for part, name in (
        ("chart", "scikit-learn plots"), ("tuxpaint", "tuxpaint"), ("sign", "tuxpaint"), ("mdn", "mdn"),
        ("hopper", "pillow"), ("odd", "pillow"), ("invoice", "contoso"), ("receipts", "contoso"), ("qr", "zxing"),
    ):  # fmt: skip
        if part in source:
            return name
    return source


def measure(job: tuple[str, tuple[str, ...], str, str]) -> list[Row]:
    path, labels, source, origin = job
    data = Path(path).read_bytes()
    try:
        picture = media.inspect(data, media.Limits(image_bytes=1 << 28)).picture
    except media.MediaError:
        return []
    if picture is None:
        return []
    digest = hashlib.sha256(data).hexdigest()
    rows = []
    for number, seen in enumerate((picture, *copies(picture.working))):
        features = measured(seen.working, seen.width, seen.height)
        lines = measured_lines(seen.working, features.written) if features.written else None
        rows.append(Row(path, labels, source, origin, number > 0, digest, features.values, lines))
    return rows


def copies(picture: Image.Image) -> list[media.Picture]:
    made = []
    for scale, quality in ((1.0, 60), (0.6, 85)):
        if scale < 1 and min(picture.size) < 200:
            continue
        size = (round(picture.width * scale), round(picture.height * scale))
        stream = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=quality)
        inspected = media.inspect(stream.getvalue()).picture
        assert inspected is not None
        made.append(inspected)
    return made


def gathered(folder: Path, corpus: Path) -> list[Row]:
    jobs = [(str(folder / picture.path), picture.labels, picture.source, "media") for picture in labelled(folder)]
    for file in sorted(corpus.rglob("*")):
        if file.suffix in PICTURES:
            labels, source = file.relative_to(corpus).parts[:2]
            origin = "rendered" if source.startswith("rendered") else "package"
            jobs.append(
                (str(file), tuple(labels.split("+")), f"{source} {labels}" if origin == "rendered" else source, origin)
            )
    with Pool() as pool:
        return [row for rows in pool.imap(measure, jobs, chunksize=8) for row in rows]


def weights(rows: Sequence[Row]) -> Floats:
    """Return each row's weight: sources and categories with many pictures do not drown the others."""
    sizes = Counter((row.source, row.labels[0]) for row in rows)
    each = np.array([
        (MEDIA_WEIGHT if row.origin == "media" else 1.0)
        * min(1.0, 3 * PLENTY / sizes[row.source, row.labels[0]]) ** 0.7
        / (1 if len(row.labels) == 1 else 2)
        for row in rows
    ])  # fmt: skip
    target = np.array([CATEGORIES.index(row.labels[0]) for row in rows])
    totals = np.bincount(target, each, len(CATEGORIES))
    balanced: Floats = each * (totals.mean() / np.maximum(totals[target], 1)) ** 0.6
    return balanced


def fitted(rows: Sequence[Row], names: Sequence[str]) -> ExtraTreesClassifier:
    forest = ExtraTreesClassifier(
        TREES, max_leaf_nodes=LEAVES, min_samples_leaf=3, max_features=0.35, random_state=7, n_jobs=1
    )
    values = np.array([[row.values[name] for name in names] for row in rows], np.float32)
    target = [CATEGORIES.index(row.labels[0]) for row in rows]
    return forest.fit(values, target, sample_weight=weights(rows))


def fitted_script(rows: Sequence[Row]) -> dict[str, float]:
    """Fit what tells Chinese, Japanese and Korean writing from other: each source counts alike, and each side."""
    names = ("stacked", "stacked_many", "upper", "filled", "even", "dense")
    values = np.array([[row.lines[name] for name in names] for row in rows if row.lines])
    target = np.array([row.cjk for row in rows if row.lines])
    sizes = Counter((row.source, row.cjk) for row in rows if row.lines)
    weight = np.array([sizes[row.source, row.cjk] ** -0.5 for row in rows if row.lines])
    weight *= np.where(target, 1 / weight[target].sum(), 1 / weight[~target].sum()) * len(target) / 2
    middle, spread = values.mean(axis=0), values.std(axis=0)
    model = LogisticRegression(C=1.0).fit((values - middle) / spread, target, sample_weight=weight)
    slopes = model.coef_[0] / spread
    fitted_values = dict(zip(names, (round(float(slope), 4) for slope in slopes), strict=True))
    return fitted_values | {"bias": round(float(model.intercept_[0] - (slopes * middle).sum()), 4)}


def script_held_out(rows: Sequence[Row]) -> dict[str, tuple[int, int, int]]:
    """Return how a model that has not seen a source judges its writing: right, judged, pictures."""
    table = {}
    for source in sorted({row.source for row in rows}):
        mine = [row for row in rows if row.source == source and not row.copy]
        written = [row for row in mine if row.lines]
        model = ScriptModel.of(fitted_script([row for row in rows if row.source != source]))
        right = sum((model.likelihood(row.lines or {}) >= 0.5) == row.cjk for row in written)
        table[source] = (right, len(written), len(mine))
    return table


def document(
    forest: ExtraTreesClassifier, names: Sequence[str], temperature: float, script: dict[str, float]
) -> dict[str, Any]:
    trees, deepest = [], 0
    known = forest.classes_.astype(int)
    for estimator in forest.estimators_:
        tree = estimator.tree_
        deepest = max(deepest, tree.max_depth)
        shares = np.zeros((tree.node_count, len(CATEGORIES)))
        shares[:, known] = tree.value[:, 0, :]
        shares = np.rint(SHARES * shares / shares.sum(axis=1, keepdims=True)).astype(int)
        leaf = tree.children_left < 0
        shares[~leaf] = 0
        trees.append({
            "feature": np.where(leaf, 0, tree.feature).tolist(),
            "threshold": [float(f"{value:.5g}") for value in np.where(leaf, 0, tree.threshold)],
            "left": tree.children_left.tolist(),
            "right": tree.children_right.tolist(),
            "shares": [row if end else [] for row, end in zip(shares.tolist(), leaf, strict=True)],
        })  # fmt: skip
    return {
        "categories": list(CATEGORIES),
        "features": list(names),
        "temperature": temperature,
        "depth": deepest,
        "script": script,
        "trees": trees,
    }


def likelihoods(forest: ExtraTreesClassifier, rows: Sequence[Row], names: Sequence[str]) -> Floats:
    scores = np.zeros((len(rows), len(CATEGORIES)))
    scores[:, forest.classes_.astype(int)] = forest.predict_proba(
        np.array([[row.values[name] for name in names] for row in rows], np.float32)
    )
    return scores


def divided(rows: Sequence[Row]) -> list[list[str]]:
    """Divide the media's collections into FOLDS parts of about the same number of pictures."""
    sizes = Counter(relatives(row.source) for row in rows if row.origin == "media")
    parts: list[list[str]] = [[] for _ in range(FOLDS)]
    for name, _ in sizes.most_common():
        min(parts, key=lambda part: sum(sizes[member] for member in part)).append(name)
    return parts


def best_temperature(scores: Floats, rows: Sequence[Row]) -> float:
    """Return the temperature at which the likelihood of what is right is greatest, each source counting alike."""
    right = np.array([[name in row.labels for name in CATEGORIES] for row in rows])
    sizes = Counter(row.source for row in rows)
    weight = np.array([sizes[row.source] ** -0.5 for row in rows])

    def loss(temperature: float) -> float:
        return float(-(weight * np.log((sharpened(scores, temperature) * right).sum(axis=1))).sum())

    return min((round(0.3 + 0.05 * step, 2) for step in range(19)), key=loss)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    rows = gathered(options.media, options.corpus)
    names = sorted(rows[0].values)
    print(f"{len(rows)} rows of {len({row.path for row in rows})} pictures, {len(names)} features", file=sys.stderr)
    folds, judged, asked = [], [], []
    for part in divided(rows):
        seen = [row for row in rows if relatives(row.source) not in part]
        unseen = [row for row in rows if row.origin == "media" and relatives(row.source) in part]
        forest = fitted(seen, names)
        judged.append(likelihoods(forest, unseen, names))
        asked.extend(unseen)
        folds.append((sorted({row.digest for row in unseen}), forest))
        right = np.mean([CATEGORIES[p.argmax()] in row.labels for p, row in zip(judged[-1], unseen, strict=True)])
        print(f"held out: {', '.join(part)}: {right:.3f} right", file=sys.stderr)
    temperature = best_temperature(np.concatenate(judged), asked)
    written = [row for row in rows if row.labels[0] in WRITTEN]
    script = fitted_script(written)
    for source, (correct, judged_by_it, count) in script_held_out(written).items():
        print(f"script of {source}: {correct} right of {judged_by_it} judged, of {count} pictures", file=sys.stderr)
    models = [{"digests": digests, "model": document(forest, names, temperature, script)} for digests, forest in folds]
    HELD_OUT.write_bytes(gzip.compress(json.dumps({"folds": models}, separators=(",", ":")).encode(), mtime=0))
    MODEL.write_text(
        json.dumps(document(fitted(rows, names), names, temperature, script), separators=(",", ":")) + "\n"
    )
    print(
        f"temperature {temperature}; {MODEL.stat().st_size / 1000:.0f} KB, {HELD_OUT.stat().st_size / 1000:.0f} KB",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
