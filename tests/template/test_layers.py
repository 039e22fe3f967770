"""Every function works with the packages of its own layers, in the versions that the tests run with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from captions_cli.local.cloudformation.translate import load_template

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = {"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"}
"""What Lambda's Python runtime brings (Lambda developer guide, "Runtime-included SDK versions")."""
BUILDERS = {
    "DedupeFunction": "intake",
    "CaptionFunction": "worker",
    "TranscribeFunction": "worker",
    "SweepFunction": "sweeper",
    "WebhooksFunction": "webhooks",
    "WriteBackFunction": "write_back",
    "SearchFunction": "search",
}
PACKAGED = ("FoundationLayer", "ImagingLayer", "InferenceLayer", "RecordingLayer", "SearchLayer")
RESOURCES = {
    name: resource
    for template in ("template.yaml", "doors.yaml")
    for name, resource in load_template(ROOT / template)["Resources"].items()
}

PROGRAM = """
import importlib.util, json, os, sys
told = json.load(sys.stdin)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in told["absent"]:
            raise ModuleNotFoundError(f"no layer of this function holds {name}", name=name)

sys.meta_path.insert(0, Absent())
os.environ.update(told["environment"])
spec = importlib.util.spec_from_file_location("app", told["handler"])
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
from captions import composition
getattr(composition, told["builder"])()
assert callable(app.handler)
"""
ENVIRONMENT = {
    "CAPTIONS_TABLE": "captions", "FINGERPRINTS_TABLE": "fingerprints", "CONTROL_TABLE": "control",
    "UPLOADS_QUEUE_URL": "uploads", "IMAGE_QUEUE_URL": "images", "AUDIO_QUEUE_URL": "audio", "EVENT_BUS_NAME": "bus",
    "ENDPOINT_URLS": "http://127.0.0.1:9/v1", "ENDPOINT_SECRET_ARN": "arn", "IMAGE_MODELS": "GLM-4.6V",
    "AUDIO_MODELS": "Qwen/Qwen3-Omni-30B-A3B-Instruct", "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    "POWERTOOLS_SERVICE_NAME": "x", "POWERTOOLS_METRICS_NAMESPACE": "x", "WEBHOOKS": "/webhooks",
    "WEBHOOKS_QUEUE_URL": "webhooks", "WEBHOOKS_DEAD_LETTER_QUEUE_URL": "dead", "WEBHOOK_SECRETS_ARN": "arn",
    "SEARCH_BUCKET": "search", "OTLP_ENDPOINT": "http://127.0.0.1:9", "EMBEDDING_MODEL": "m",
    "SEARCH_VECTORS_ARN": "arn:aws:s3vectors:eu-central-1:123456789012:bucket/captions/index/captions",
}  # fmt: skip


def pinned(layer: str) -> dict[str, str]:
    """The packages of a layer with their versions; none for the product's own."""
    requirements = ROOT / RESOURCES[layer]["Properties"]["ContentUri"] / "requirements.txt"
    if not requirements.exists():
        return {}
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE))


def layers_of(function: str) -> list[str]:
    """A function's own. A condition among them, which `sam build` does not take, is no reference."""
    return [layer["Ref"] for layer in RESOURCES[function]["Properties"]["Layers"]]


installed = cache(packages_distributions)


def run(function: str, layers: list[str]) -> subprocess.CompletedProcess[str]:
    held = {package for layer in layers for package in pinned(layer)} | RUNTIME | {"media-captions"}
    absent = [
        name
        for name, packages in installed().items()
        if not held & {package.lower().replace("_", "-") for package in packages}
    ]
    reported = {
        "absent": absent,
        "environment": ENVIRONMENT,
        "handler": str(ROOT / RESOURCES[function]["Properties"]["CodeUri"] / "app.py"),
        "builder": BUILDERS[function],
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(reported),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.deep
@pytest.mark.parametrize("function", BUILDERS)
def test_a_function_needs_no_package_that_its_layers_do_not_hold(function: str) -> None:
    done = run(function, layers_of(function))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("function", "layer"),
    [(name, layer) for name in BUILDERS for layer in layers_of(name) if layer in ("ImagingLayer", "InferenceLayer")],
)
def test_a_function_carries_no_large_layer_that_it_could_do_without(function: str, layer: str) -> None:
    done = run(function, [other for other in layers_of(function) if other != layer])
    assert "no layer of this function holds" in done.stderr


@pytest.mark.deep
def test_only_the_transcribe_function_carries_ffmpeg_and_loads_it_no_sooner_than_it_needs_it() -> None:
    assert [name for name in BUILDERS if "RecordingLayer" in layers_of(name)] == ["TranscribeFunction"]
    done = run("TranscribeFunction", [layer for layer in layers_of("TranscribeFunction") if layer != "RecordingLayer"])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("layer", PACKAGED)
def test_a_layer_holds_the_versions_that_the_tests_run_with(layer: str) -> None:
    tested = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    versions = dict.fromkeys(pinned(layer))
    assert versions
    for package, pin in pinned(layer).items():
        assert re.search(rf"^{re.escape(package)}=={re.escape(pin)}\b", tested, re.MULTILINE), package


@pytest.mark.parametrize("package", ["apsw", "av", "openai", "pillow", "pydantic", "aws-lambda-powertools"])
def test_this_environment_has_the_versions_of_the_layers(package: str) -> None:
    pins = {package: pin for layer in PACKAGED for package, pin in pinned(layer).items()}
    assert version(package) == pins[package]


def test_no_package_stands_in_two_layers() -> None:
    packages = [package for layer in PACKAGED for package in pinned(layer)]
    assert len(set(packages)) == len(packages)
    assert not {"scipy", "pywavelets", "boto3", "botocore"} & set(packages)


@pytest.mark.parametrize("layer", PACKAGED)
def test_a_layers_packages_are_pinned_with_hashes_and_name_no_index(layer: str) -> None:
    text = (ROOT / RESOURCES[layer]["Properties"]["ContentUri"] / "requirements.txt").read_text(encoding="utf-8")
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|--index|--find-links", text)
