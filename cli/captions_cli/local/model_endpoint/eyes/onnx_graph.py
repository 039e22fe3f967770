"""Writing a small network as an ONNX model, so that ONNX Runtime runs weights that came in another form.

Only what convolutional networks need, in the protocol buffers wire format (https://protobuf.dev/programming-guides/encoding)
with the field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: the `onnx` package, which does
more, would be as large as everything else that these models need.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Attribute = float | int | str | Sequence[int]

_FLOAT = 1
"""TensorProto.DataType.FLOAT."""
_IR_VERSION, _OPSET = 8, 13


@dataclass
class Graph:
    """A network under construction; `add` returns the name of the new value, which later nodes take."""

    _nodes: list[bytes] = field(default_factory=list)
    _constants: list[bytes] = field(default_factory=list)

    def constant(self, values: npt.NDArray[np.float32]) -> str:
        """Add fixed values, such as weights."""
        name = f"constant_{len(self._constants)}"
        shape = b"".join(_field(1, int(side)) for side in values.shape)
        raw = np.ascontiguousarray(values, dtype="<f4").tobytes()
        self._constants.append(shape + _field(2, _FLOAT) + _field(8, name) + _field(9, raw))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an operator of ONNX's default set with one output; an empty input stands for one left out."""
        output = f"value_{len(self._nodes)}"
        node = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, operator)
        node += b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())
        self._nodes.append(node)
        return output

    def model(self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]) -> bytes:
        """Return the serialised model; the mappings give each value's shape."""
        graph = b"".join(_field(1, node) for node in self._nodes) + _field(2, "graph")
        graph += b"".join(_field(5, constant) for constant in self._constants)
        graph += b"".join(_field(11, _value(name, shape)) for name, shape in inputs.items())
        graph += b"".join(_field(12, _value(name, shape)) for name, shape in outputs.items())
        opset = _field(1, "") + _field(2, _OPSET)
        return _field(1, _IR_VERSION) + _field(8, opset) + _field(7, graph)


def _attribute(name: str, value: Attribute) -> bytes:
    start = _field(1, name)
    if isinstance(value, float):
        return start + _field(2, value) + _field(20, 1)
    if isinstance(value, int):
        return start + _field(3, value) + _field(20, 2)
    if isinstance(value, str):
        return start + _field(4, value) + _field(20, 3)
    return start + b"".join(_field(8, number) for number in value) + _field(20, 7)


def _value(name: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dimensions)))


def _field(number: int, value: int | float | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
