"""Prints the environment of a running local stack's functions for `sam local … --env-vars FILE`.

    captions up --bind 172.17.0.1                    # the address of Docker's bridge, which containers reach
    python events/environment.py > environment.json
    sam local invoke DedupeFunction -e events/dedupe/created-put.json --env-vars environment.json …

`sam local` sets only variables that the template names, and of these all that the file holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FUNCTIONS = ("DedupeFunction", "CaptionFunction", "TranscribeFunction", "SweepFunction", "ApiFunction")


def environment(functions: Any, outputs: Mapping[str, str], aws_endpoint_url: str) -> dict[str, dict[str, str]]:
    """Return each function's environment by its logical id, with the AWS stand-in's address in it.

    `functions` is a boto3 Lambda client of the stack, `outputs` the stack's.
    """
    return {
        name: {
            variable: str(value)
            for variable, value in functions.get_function_configuration(FunctionName=outputs[f"{name}Name"])[
                "Environment"
            ]["Variables"].items()
        }
        | {"AWS_ENDPOINT_URL": aws_endpoint_url}
        for name in FUNCTIONS
        if f"{name}Name" in outputs  # not every stack has the API
    }


def main() -> int:
    import boto3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path(".captions/stack.json"), help="what `captions up` wrote")
    state = json.loads(parser.parse_args().state.read_text(encoding="utf-8"))
    session = boto3.Session("local", "local", region_name=state["region"])
    formation = session.client("cloudformation", endpoint_url=state["aws_endpoint_url"])
    (stack,) = formation.describe_stacks(StackName=state["stack_name"])["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    functions = session.client("lambda", endpoint_url=state["aws_endpoint_url"])
    json.dump(environment(functions, outputs, state["aws_endpoint_url"]), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
