"""Prints how large each function is with its layers, unzipped, and fails when one is over the limit.

    python layers/sizes.py .aws-sam/build/template.yaml

Lambda allows 250 MB (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html). The limits here are
stricter, since every cold start loads what is there. 5 MB of what most functions have is OpenTelemetry, which is
imported where OtlpEndpoint is given only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

LIMIT_BYTES = 125_000_000
LIMITS = {"TranscribeFunction": 235_000_000}
"""FFmpeg's libraries weigh 100 MB; they are loaded only for recordings that no model takes as they are."""


def folder_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below `folder`, in bytes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: build first")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def function_bytes(built_template: Path, layers: Mapping[str, Path] | None = None) -> dict[str, dict[str, int]]:
    """Bytes of each function's parts, by logical ids: its own code under its own id, then each layer.

    `built_template` is the template.yaml that `sam build` wrote, whose paths are relative to it. Functions of nested
    templates are among them; `layers` are the folders of those that a nested template is given, by its parameters. A
    layer that is not built here, such as one of AWS's, is left out.
    """
    resources: dict[str, Any] = yaml_parse(built_template.read_text())["Resources"]
    folders = dict(layers or {})
    folders |= {
        name: built_template.parent / resource["Properties"]["ContentUri"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::LayerVersion"
    }
    sizes: dict[str, dict[str, int]] = {}
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Serverless::Function":
            sizes[name] = {name: folder_bytes((built_template.parent / properties["CodeUri"]).resolve())}
            ids = [_layer(layer) for layer in properties.get("Layers", [])]
            sizes[name] |= {layer: folder_bytes(folders[layer]) for layer in ids if layer and layer in folders}
        elif resource["Type"] == "AWS::CloudFormation::Stack":
            given = {parameter: _layer(value) for parameter, value in properties.get("Parameters", {}).items()}
            known = {parameter: folders[layer] for parameter, layer in given.items() if layer in folders}
            sizes |= function_bytes(built_template.parent / properties["TemplateURL"], known)
    return sizes


def _layer(value: Any) -> str | None:
    """Return the logical id that a value refers to, if need be on a condition."""
    match value:
        case {"Ref": str(name)} | {"Fn::If": [_, {"Ref": str(name)}, _]}:
            return name
    return None


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
