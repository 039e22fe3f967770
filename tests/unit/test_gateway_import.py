"""Importing the gateway costs little beyond openai itself, and does nothing."""

import json
import os
import subprocess
import sys

_SCRIPT = """
import json, sys
import openai
before = set(sys.modules)
import socket
opened = []
socket.socket = lambda *a, **k: opened.append(a)
import captions.gateway.client, captions.gateway.catalogue
print(json.dumps({"new": sorted(set(sys.modules) - before), "opened": len(opened)}))
"""
_HEAVY = ("boto3", "botocore", "aws_lambda_powertools", "numpy", "PIL", "aiohttp", "requests", "yaml")


def test_the_gateway_brings_nothing_heavy_and_needs_no_environment() -> None:
    environment = {"PATH": os.environ["PATH"]}

    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, env=environment, check=True)

    result = json.loads(done.stdout)
    packages = {name.partition(".")[0] for name in result["new"]}
    assert not packages & set(_HEAVY)
    assert result["opened"] == 0
    assert len(result["new"]) < 60


def test_the_catalogue_and_the_command_that_lists_uploads_load_no_client_of_models() -> None:
    code = "import sys, captions_cli.listing, captions_cli.rendering; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "captions.gateway.catalogue" in done.stdout.split()
    assert not {"openai", "httpx2", "aiohttp"} & set(done.stdout.split())
