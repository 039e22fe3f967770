"""Writes the parts of `captions_client` that follow from others (`make openapi`).

Its models follow from the API's OpenAPI document, and the client for code that waits from the one for an event loop.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "openapi.json"
PACKAGE = ROOT / "cli" / "client" / "captions_client"
MODELS, SOURCE, CLIENT = PACKAGE / "models.py", PACKAGE / "async_client.py", PACKAGE / "client.py"
HEADER = '"""What the API takes and answers, written from its OpenAPI document by `make openapi`; not to be edited."""'
CLIENT_HEADER = (
    '"""The client for code that waits, written from `async_client.py` by `make openapi`; not to be edited."""'
)
WAITING = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(Client|BaseTransport|Iterator)\b", r"\1"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|read|iter_bytes)\(", r"\1("),
    (r"async_waiting", "waiting"),
)
"""What differs where nothing waits on a loop."""
LIMITS = {"maxLength", "minLength", "maximum", "minimum", "exclusiveMinimum", "maxItems", "minItems", "pattern"}
"""What the API alone checks: a client that did too would refuse what a later API takes."""


def loosened(schema: Any) -> Any:
    """Leave limits and titles out, and have each closed list of words take the words of a later API too."""
    if isinstance(schema, list):
        return [loosened(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: value
        for name, value in schema.items()
        if not (name in LIMITS and not isinstance(value, dict)) and not (name == "title" and isinstance(value, str))
    }
    if "enum" in kept or "const" in kept:
        words = {"type": "string", "enum": kept.pop("enum", None) or [kept.pop("const")]}
        return {**kept, "type": None, "anyOf": [words, {"type": "string"}]}
    return {name: loosened(value) for name, value in kept.items() if name not in ("examples", "additionalProperties")
            or isinstance(value, dict)}  # fmt: skip


def models(document: dict[str, Any]) -> str:
    """Return the module's text."""
    about = {"openapi": document["openapi"], "info": document["info"], "paths": {}}
    about["components"] = {"schemas": loosened(document["components"]["schemas"])}
    options = [
        "--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel",
        "--target-python-version", "3.11", "--custom-file-header", HEADER, "--enum-field-as-literal", "all",
        "--use-standard-collections", "--use-union-operator", "--base-class", "captions_client.shape.Shape",
        "--use-schema-description", "--use-field-description", "--use-single-line-docstring", "--use-double-quotes",
        "--disable-timestamp", "--strict-nullable", "--formatters", "ruff-check", "ruff-format",
    ]  # fmt: skip
    return _run([Path(sys.executable).parent / "datamodel-codegen", *options], json.dumps(about))


def client(source: str) -> str:
    """Return the text of the client that waits, from that of the one that does not."""
    _, _, rest = source.partition('"""\n')
    for pattern, replacement in WAITING:
        rest = re.sub(pattern, replacement, rest)
    tidy = Path(sys.executable).parent / "ruff"
    rest = _run([tidy, "check", "--quiet", "--fix-only", "--unsafe-fixes", "--stdin-filename", CLIENT, "-"], rest)
    return _run([tidy, "format", "--quiet", "--stdin-filename", CLIENT, "-"], f"{CLIENT_HEADER}\n{rest}")


def _run(command: list[str | Path], given: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed commands
        command, input=given, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    MODELS.write_text(models(json.loads(DOCUMENT.read_text())))
    CLIENT.write_text(client(SOURCE.read_text()))
