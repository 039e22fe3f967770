"""Prints a template with which `sam local invoke` runs the API's function as it was built.

    make build ARCH=x86_64
    python events/api_template.py .aws-sam/build-x86_64/template.yaml > api.json
    sam local invoke ApiFunction --template api.json -e events/api/assets-iam.json --env-vars environment.json …

`sam local` knows a nested template's layers by its parameters alone, which it takes for ARNs, and fetches Lambda Web
Adapter's layer from AWS. Here the layers are the folders that were built, and web_adapter/ stands in for the adapter.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ADAPTER = Path(__file__).resolve().parent / "web_adapter"
FUNCTION, STACK = "ApiFunction", "ApiApplication"


def api_template(built: Path) -> dict[str, Any]:
    """Return the template of the function and its layers; `built` is the template.yaml that `sam build` wrote."""
    parent = yaml_parse(built.read_text(encoding="utf-8"))["Resources"]
    nested = built.parent / parent[STACK]["Properties"]["TemplateURL"]
    function = yaml_parse(nested.read_text(encoding="utf-8"))["Resources"][FUNCTION]["Properties"]
    given = parent[STACK]["Properties"]["Parameters"]
    layers = [given[layer["Ref"]]["Ref"] for layer in function["Layers"] if "Ref" in layer]
    folders = {name: (built.parent / parent[name]["Properties"]["ContentUri"]).resolve() for name in layers}
    variables = {  # of these, `sam local` sets what --env-vars gives
        name: value if isinstance(value, str) else ""
        for name, value in function["Environment"]["Variables"].items()
        if name != "AWS_LAMBDA_EXEC_WRAPPER"  # the adapter's own
    }
    properties = {
        "CodeUri": str((nested.parent / function["CodeUri"]).resolve()),
        "Handler": "web_adapter.handler",
        "Runtime": function["Runtime"],
        "Architectures": [{"Ref": "Architecture"}],
        "Timeout": function["Timeout"],
        "MemorySize": function["MemorySize"],
        "Layers": [{"Ref": name} for name in (*folders, "WebAdapterLayer")],
        "Environment": {"Variables": variables},
    }
    resources: dict[str, Any] = {
        name: {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": str(folder)}}
        for name, folder in {**folders, "WebAdapterLayer": ADAPTER}.items()
    }
    resources[FUNCTION] = {"Type": "AWS::Serverless::Function", "Properties": properties}
    declared = {"Architecture": {"Type": "String", "Default": "arm64"}}
    return {"Transform": "AWS::Serverless-2016-10-31", "Parameters": declared, "Resources": resources}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="the template.yaml that `sam build` wrote")
    json.dump(api_template(parser.parse_args().built), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
