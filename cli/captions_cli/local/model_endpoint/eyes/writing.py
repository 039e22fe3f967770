"""Reading the text in pictures with PP-OCRv6: its detector says where lines are, its recogniser what they say.

The two networks come inside the package `rapidocr`, whose own code is not used: it needs OpenCV, which is larger than
the networks and ONNX Runtime together. What stands around them here follows the papers: differentiable binarization
(Liao et al., arXiv 1911.08947, section 3: the shrunk text map, its threshold and how far boxes are grown back) and
CTC decoding (Graves et al., 2006).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions_cli.local.model_endpoint.eyes import packages

NAME = "PP-OCRv6"

Float32s = npt.NDArray[np.float32]
Corners = tuple[float, float, float, float, float, float, float, float]
"""Upper left, lower left, lower right and upper right corner, as Pillow's QUAD takes them."""

_DETECTION_SIDE = 960
_STRIDE = 32
_TEXT_FROM = 0.3
_BOX_FROM = 0.5
_GROWTH = 1.6
_LEAST_SIDE = 3.0
_LINE_HEIGHT = 48
_WIDEST_LINE = 3200
_UPRIGHT_FROM = 1.5
_READ_FROM = 0.5
SURE_FROM = 0.8
"""Mean probability of a line's characters below which it is called unclear."""
_MOST_LINES = 400


@dataclass(frozen=True)
class Line:
    """A line of text with its place in shares of the frame, and the mean probability of its characters."""

    text: str
    confidence: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """Its height as a share of the frame's."""
        return self.bottom - self.top


@dataclass(frozen=True)
class _Box:
    corners: Corners
    width: float
    height: float


class Reader:
    """Finds and reads lines of text; safe to use from several threads."""

    def __init__(self) -> None:
        self._detector = packages.session(packages.file("rapidocr", "models", "PP-OCRv6_det_small.onnx"))
        self._recogniser = packages.session(packages.file("rapidocr", "models", "PP-OCRv6_rec_small.onnx"))
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"]
        self._characters = ["", *characters.split("\n")]
        self._characters.append(" ")

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Return the lines of an RGB picture in reading order."""
        lines = []
        for box in self._boxes(image)[:_MOST_LINES]:
            text, confidence = max(map(self._recognised, _cut_out(image, box)), key=lambda read: read[1])
            if text and confidence >= _READ_FROM:
                xs, ys = box.corners[::2], box.corners[1::2]
                place = (min(xs) / image.width, min(ys) / image.height, max(xs) / image.width, max(ys) / image.height)
                lines.append(Line(text, confidence, *place))
        return tuple(itertools.chain.from_iterable(rows(lines)))

    def _boxes(self, image: Image.Image) -> list[_Box]:
        scale = min(1.0, _DETECTION_SIDE / max(image.size))
        width, height = (max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE) for side in image.size)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        heat: Float32s = self._detector.run(None, {"x": _normalised(small)})[0][0, 0]
        horizontal, vertical = image.width / width, image.height / height
        boxes = []
        for runs in _components(heat > _TEXT_FROM):
            box = _grown(runs, heat)
            if box is not None:
                corners = tuple(
                    value * (vertical if place % 2 else horizontal) for place, value in enumerate(box.corners)
                )
                boxes.append(_Box(corners, box.width * horizontal, box.height * vertical))  # type: ignore[arg-type]
        return boxes

    def _recognised(self, line: Image.Image) -> tuple[str, float]:
        width = min(_WIDEST_LINE, max(_LINE_HEIGHT // 3, math.ceil(line.width * _LINE_HEIGHT / line.height)))
        resized = line.resize((width, _LINE_HEIGHT), Image.Resampling.BILINEAR)
        likely: Float32s = self._recogniser.run(None, {"x": _normalised(resized)})[0][0]
        best = likely.argmax(axis=1)
        # CTC: a character counts once for each stretch of it; class 0 is the blank between stretches.
        kept = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
        if not kept.any():
            return "", 0.0
        text = "".join(self._characters[at] for at in best[kept])
        return text.strip(), float(likely.max(axis=1)[kept].mean())


def rows(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines into the rows they stand in, from top to bottom and each from left to right."""
    grouped: list[list[Line]] = []
    for line in sorted(lines, key=lambda box: (box.top + box.bottom, box.left)):
        middle = (line.top + line.bottom) / 2
        if grouped and abs(middle - _middle(grouped[-1])) < 0.5 * min(line.height, grouped[-1][0].height):
            grouped[-1].append(line)
        else:
            grouped.append([line])
    return [sorted(row, key=lambda line: line.left) for row in grouped]


def as_text(lines: Sequence[Line], aspect: float) -> str:
    """Return lines as text: one row to a line, a tab where a row has a gap wider than two of its letters are high.

    `aspect` is the frame's width divided by its height.
    """
    texts = []
    for row in rows(lines):
        text = row[0].text
        for before, line in itertools.pairwise(row):
            gap = (line.left - before.right) * aspect
            text += ("\t" if gap > 2 * line.height else " ") + line.text
        texts.append(text)
    return "\n".join(texts)


def _middle(row: Sequence[Line]) -> float:
    return sum(line.top + line.bottom for line in row) / (2 * len(row))


def _normalised(image: Image.Image) -> Float32s:
    """Return the picture as the networks take it: blue, green, red from -1 to 1, shape (1, 3, height, width)."""
    values = np.asarray(image, dtype=np.float32)[..., ::-1]
    return np.ascontiguousarray((values / 127.5 - 1).transpose(2, 0, 1)[None])


def _components(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """Return the 8-connected components of a mask as their runs: rows of (y, first x, last x)."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    runs = np.column_stack([starts, ends[:, 1] - 1]) if len(starts) else np.zeros((0, 3), dtype=np.int64)
    parents = list(range(len(runs)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    before = 0
    listed = runs.tolist()
    for at, (y, first, last) in enumerate(listed):
        while listed[before][0] < y - 1 or (listed[before][0] == y - 1 and listed[before][2] < first - 1):
            before += 1
        above = before
        while listed[above][0] == y - 1 and listed[above][1] <= last + 1:
            parents[root(at)] = root(above)
            above += 1
    groups: dict[int, list[int]] = {}
    for at in range(len(listed)):
        groups.setdefault(root(at), []).append(at)
    return [runs[group] for group in groups.values()]


def _grown(runs: npt.NDArray[np.int64], heat: Float32s) -> _Box | None:
    """Return the rectangle around a component, grown to the size of the text that the network shrinks."""
    rows_, firsts, lasts = runs.T
    xs = np.concatenate([firsts, lasts + 1, firsts, lasts + 1]).astype(np.float64)
    ys = np.concatenate([rows_, rows_, rows_ + 1, rows_ + 1]).astype(np.float64)
    upright = _rectangle(xs, ys, 0.0)
    rectangle = upright
    if len(runs) > 1:
        covariance = np.cov(xs, ys)
        angle = 0.5 * math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])
        tilted = _rectangle(xs, ys, angle)
        # Along its longer axis unless that gains little: single letters have no direction.
        if tilted[2] * tilted[3] < 0.85 * upright[2] * upright[3]:
            rectangle = tilted
    x, y, width, height, angle = rectangle
    if min(width, height) < _LEAST_SIDE:
        return None
    warmth = sum(float(heat[row, first : last + 1].sum()) for row, first, last in runs.tolist())
    if warmth / (width * height) < _BOX_FROM:
        return None
    growth = width * height * _GROWTH / (width + height)
    width, height = width + growth, height + growth
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    corners: list[float] = []
    for right, down in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        corners.append(x + (right * width * along[0] + down * height * across[0]) / 2)
        corners.append(y + (right * width * along[1] + down * height * across[1]) / 2)
    return _Box(tuple(corners), width, height)  # type: ignore[arg-type]


def _rectangle(
    xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64], angle: float
) -> tuple[float, float, float, float, float]:
    """Return the rectangle around points that is turned by an angle: its middle, width, height and the angle."""
    if abs(angle) > math.pi / 4:  # The text's baseline is the axis nearer to the horizontal.
        angle -= math.copysign(math.pi / 2, angle)
    cosine, sine = math.cos(angle), math.sin(angle)
    along, across = xs * cosine + ys * sine, ys * cosine - xs * sine
    middle_along, middle_across = (along.min() + along.max()) / 2, (across.min() + across.max()) / 2
    return (
        float(middle_along * cosine - middle_across * sine),
        float(middle_along * sine + middle_across * cosine),
        float(along.max() - along.min()),
        float(across.max() - across.min()),
        angle,
    )


def _cut_out(image: Image.Image, box: _Box) -> list[Image.Image]:
    """Return the line in a box, straightened; one that stands upright turned both ways, as it may run up or down."""
    size = (max(1, round(box.width)), max(1, round(box.height)))
    line = image.transform(size, Image.Transform.QUAD, box.corners, Image.Resampling.BICUBIC)
    if box.height <= _UPRIGHT_FROM * box.width:
        return [line]
    return [line.transpose(turn) for turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)]
