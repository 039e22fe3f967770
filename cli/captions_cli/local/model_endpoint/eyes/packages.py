"""Where the small models' weights are: in installed packages, which are never imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any


def file(package: str, *parts: str) -> Path:
    """Return the path of a file inside an installed package.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed")
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise FileNotFoundError(f"the package {package} has no {'/'.join(parts)}")
    return path


def session(model: bytes | Path) -> Any:
    """Return an ONNX Runtime session that uses one thread, so that equal pictures get equal answers under any load."""
    import onnxruntime  # here, so that a file can be looked up without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The pictures' sizes differ: memory kept for each of them would only grow.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
