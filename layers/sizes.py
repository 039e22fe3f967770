"""Prints how large each function is with its layers, unzipped, and fails when one is over the limit.

    python layers/sizes.py .aws-sam/build/template.yaml

Lambda allows 250 MB (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html). The limits here are
stricter, since every cold start loads what is there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

LIMIT_BYTES = 120_000_000
LIMITS = {"TranscribeFunction": 235_000_000}
"""FFmpeg's libraries weigh 100 MB; they are loaded only for recordings that no model takes as they are."""


def folder_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below `folder`, in bytes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: build first")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def function_bytes(built_template: Path) -> dict[str, dict[str, int]]:
    """Bytes of each function's parts, by logical ids: its own code under its own id, then each layer.

    `built_template` is the template.yaml that `sam build` wrote, whose paths are relative to it.
    """
    resources: dict[str, Any] = yaml_parse(built_template.read_text())["Resources"]

    def size(resource: str, attribute: str) -> int:
        return folder_bytes((built_template.parent / resources[resource]["Properties"][attribute]).resolve())

    return {
        name: {name: size(name, "CodeUri")}
        | {layer["Ref"]: size(layer["Ref"], "ContentUri") for layer in resource["Properties"].get("Layers", [])}
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def limit_of(function: str) -> int:
    """The bytes a function, by its logical id, may have with its layers."""
    return LIMITS.get(function, LIMIT_BYTES)


def main() -> int:
    sizes = function_bytes(Path(sys.argv[1]))
    for name, parts in sizes.items():
        total = sum(parts.values())
        listing = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in parts.items() if part != name)
        print(f"{name}: {total / 1e6:.1f} MB of {limit_of(name) / 1e6:.0f} ({listing})")
    return int(any(sum(parts.values()) > limit_of(name) for name, parts in sizes.items()))


if __name__ == "__main__":
    sys.exit(main())
