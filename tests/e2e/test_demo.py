"""The demo, and a stack that stays up: the commands of the README as users run them."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEMO_MEDIA = ROOT / "cli" / "captions_cli" / "demo_media"
SECONDS = 240


def captions(env: Mapping[str, str], *words: str | Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "captions_cli.main", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, env=env, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CAPTIONS_"))}
    # A proxy nobody answers at, and a profile nobody has: a stack on this machine must need neither.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        kept.pop(name, None)
    home = str(tmp_path_factory.mktemp("captions-home"))
    # No stack outlives its test, not even one that is killed.
    return {**kept, **nowhere, "AWS_PROFILE": "nobody", "CAPTIONS_HOME": home, "CAPTIONS_STOP_WITH": str(os.getpid())}


@pytest.mark.deep
@pytest.mark.timeout(SECONDS + 30)
def test_the_demo_ends_with_every_upload_as_it_must_be(env: dict[str, str]) -> None:
    ran = captions(env, "demo", "--output", "json", "--latency-scale", "0.02", "--keep")
    console = re.search(r"console is (http://127\.0\.0\.1:\d+)/\?token=(\S+)$", ran.stderr, re.MULTILINE)
    try:
        assert ran.returncode == 0, ran.stderr
        assert console is not None, ran.stderr
        request = urllib.request.Request(
            f"{console[1]}/v1/assets?limit=200", headers={"Authorization": f"Bearer {console[2]}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            shown = {item["key"] for item in json.load(answer)["items"]}
    finally:
        down = captions({**env, "CAPTIONS_HOME": f"{env['CAPTIONS_HOME']}/demo"}, "down")
    assert "is down" in down.stderr + down.stdout
    report = json.loads(ran.stdout)
    assert shown == {row["key"] for row in report["uploads"]}
    assert report["problems"] == []
    assert [line.partition(":")[0] for line in report["doors"]] == ["webhooks", "write-back", "search", "bulk lane"]
    assert re.match(r"bulk lane: 3 pictures in \d \w+ for (\$0\.\d+), saving \1$", report["doors"][3])
    assert len(report["uploads"]) == 29
    assert report["paid_calls"] == report["paid"] == len({row["picture"] for row in report["uploads"]} - {None})
    by_key = {row["key"]: row for row in report["uploads"]}
    assert "printed book" in by_key["speech.wav"]["text"].lower()
    assert by_key["invoice-a.png"]["text"] != by_key["invoice-b.png"]["text"]


@pytest.fixture(scope="module")
def up(env: dict[str, str]) -> Iterator[dict[str, Any]]:
    ran = captions(env, "up", "--output", "json", "--latency-scale", "0.02")
    assert ran.returncode == 0, ran.stderr
    yield json.loads(ran.stdout)
    assert captions(env, "down").returncode == 0
    assert not (Path(env["CAPTIONS_HOME"]) / "stack.json").exists()


def test_up_is_content_with_a_stack_that_is_up(up: dict[str, Any], env: dict[str, str]) -> None:
    again = captions(env, "up", "--output", "json")

    assert again.returncode == 0
    assert json.loads(again.stdout) == up
    assert "already up" in again.stderr


def test_files_are_uploaded_captioned_listed_and_shown(up: dict[str, Any], env: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "[notes] é #1.jpg"
    text.write_text("not a picture")

    sent = captions(env, "upload", DEMO_MEDIA / "tea-gardens.jpg", text, "--prefix", "mine/", "-o", "json")
    listed = captions(env, "ls", "--prefix", "mine/")
    whole = captions(env, "get", "mine/tea-gardens.jpg", "-o", "json")

    assert sent.returncode == 1, sent.stderr  # one of the two cannot be captioned
    rows = json.loads(sent.stdout)
    assert [(row["key"], row["state"]) for row in rows] == [
        ("mine/tea-gardens.jpg", "captioned"),
        ("mine/[notes] é #1.jpg", "rejected"),
    ]
    assert "mine/[notes] é #1.jpg" in listed.stdout
    assert json.loads(whole.stdout)["result"]["text"] == rows[0]["text"]


def test_the_line_that_up_prints_uploads_by_any_s3_client(up: dict[str, Any], env: dict[str, str]) -> None:
    """The credentials, endpoint and bucket that `up` prints are all an S3 client needs."""
    code = (
        "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).upload_file(sys.argv[2], sys.argv[3], 'o.jpg')"
    )
    line = [sys.executable, "-c", code, up["aws_endpoint_url"], str(DEMO_MEDIA / "perched-osprey.jpg"), up["bucket"]]
    others = {name: value for name, value in env.items() if name != "AWS_PROFILE"}
    subprocess.run(line, env={**others, **up["env"]}, check=True, timeout=60)

    # The same file under another key: it waits for, or takes, the caption of the first.
    sent = captions(env, "upload", DEMO_MEDIA / "perched-osprey.jpg", "--timeout", "60", "-o", "json")

    assert sent.returncode == 0, sent.stderr
    listed = json.loads(captions(env, "ls", "-o", "json").stdout)
    assert {row["key"]: row["state"] for row in listed if "o" in row["key"]}["o.jpg"] == "captioned"
    assert len({row["text"] for row in listed if row["key"] in ("o.jpg", "perched-osprey.jpg")}) == 1


def test_what_every_model_refused_is_captioned_once_it_is_redriven(up: dict[str, Any], env: dict[str, str]) -> None:
    photo, admin = (
        DEMO_MEDIA / "singaporean-cityscape.jpg",
        up["model_endpoint_url"].removesuffix("/v1") + "/_local/faults",
    )
    put = urllib.request.Request(admin, method="PUT", data=json.dumps([{"fault": "refusal"}]).encode())
    urllib.request.urlopen(put, timeout=10).close()
    refused = captions(env, "upload", photo, "--timeout", "60", "-o", "json")
    urllib.request.urlopen(urllib.request.Request(admin, method="DELETE"), timeout=10).close()

    redriven = captions(env, "redrive", "--state", "blocked", photo.name, "-o", "json")

    assert refused.returncode == 1, refused.stderr
    assert json.loads(refused.stdout)[0]["state"] == "blocked"
    assert json.loads(redriven.stdout)["uploads"] == [photo.name]
    deadline = time.monotonic() + 60
    while (record := json.loads(captions(env, "get", photo.name, "-o", "json").stdout))["state"] != "captioned":
        assert time.monotonic() < deadline, record
    assert record["result"]["text"]
    assert record["reason"] is None


def test_status_and_models_answer_from_the_running_stack(up: dict[str, Any], env: dict[str, str]) -> None:
    status = json.loads(captions(env, "status", "-o", "json").stdout)
    models = json.loads(captions(env, "models", "-o", "json").stdout)

    assert status["bucket"] == up["bucket"]
    assert all(depths["visible"] == 0 for name, depths in status["queues"].items() if "DeadLetter" in name)
    assert all(model["offered"] for model in models[0]["models"])


def test_a_parameter_the_template_does_not_have_is_refused_at_once(env: dict[str, str], tmp_path: Path) -> None:
    ran = captions({**env, "CAPTIONS_HOME": str(tmp_path)}, "up", "--parameter", "NoSuchParameter=1")

    assert ran.returncode == 2
    assert "NoSuchParameter" in ran.stderr
    assert not (tmp_path / "stack.json").exists()
