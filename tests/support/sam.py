"""SAM CLI as the tests use it: the build, `sam deploy` to a local stack, `sam local` in real containers."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import ipaddress
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAM = ROOT / ".venv" / "sam" / "bin" / "sam"
ARCHITECTURE = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine().lower()]
"""Containers run the host's instructions; the build is for these."""
BASE_IMAGE = f"public.ecr.aws/lambda/python:3.13-{ARCHITECTURE}"
INVOCATION_SECONDS = 180
DEPLOYMENT_SECONDS = 600
SERVING_SECONDS = 120


def missing(what: str) -> NoReturn:
    """Skip for want of something on a developer's machine; where everything must be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)


def _interruptible() -> None:
    """Undo that SIGINT is ignored, which a shell does to what it starts in the background, and children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _containers() -> set[str]:
    """The ids of the containers that SAM CLI started and that still run."""
    listed = docker("ps", "--quiet", "--no-trunc", "--filter", "label=sam.cli.container.type=lambda").stdout.split()
    return set(listed)


def bridge_address() -> str:
    """The host's address on Docker's bridge, which containers reach and other machines do not."""
    if shutil.which("docker") is None:
        missing("docker is not installed")
    inspected = docker("network", "inspect", "bridge")
    if inspected.returncode:
        missing(f"Docker does not run: {inspected.stderr.strip()}")
    config = json.loads(inspected.stdout)[0]["IPAM"]["Config"][0]
    return str(config.get("Gateway") or next(ipaddress.ip_network(config["Subnet"]).hosts()))


@functools.cache
def built_template() -> Path:
    """Build for the host's architecture, from the source as it is now, and return the built template.

    Once in a run of the tests: a second build would take the folder away from what another worker runs.
    """
    folder = ROOT / ".aws-sam"
    folder.mkdir(exist_ok=True)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with (folder / "tests.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() != run:
            _build()
            lock.truncate(0)
            lock.write(run)
    return folder / ("build" if ARCHITECTURE == "arm64" else f"build-{ARCHITECTURE}") / "template.yaml"


def _build() -> None:
    built = subprocess.run(
        ["make", "--no-print-directory", "build", f"ARCH={ARCHITECTURE}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if built.returncode:
        missing(f"make build failed: {(built.stdout + built.stderr)[-2000:]}")


def container_template() -> Path:
    """The built template, once it is known that containers can run it."""
    if docker("image", "inspect", BASE_IMAGE).returncode:
        missing(f"the image {BASE_IMAGE} is not there, and may not be pulled by tests")
    return built_template()


def deploy_environment(aws_endpoint_url: str) -> dict[str, str]:
    """What SAM CLI is given to deploy to a local stack, and nothing of the user's own AWS configuration."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL": aws_endpoint_url,
        "NO_PROXY": "127.0.0.1,localhost",
        "SAM_CLI_TELEMETRY": "0",
    }


def begin_deploy(
    environment: str, aws_endpoint_url: str, template: Path, parameters: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Begin `sam deploy --config-env ENVIRONMENT` of the project's samconfig.toml."""
    return subprocess.Popen(
        [
            str(SAM), "deploy", "--config-file", str(ROOT / "samconfig.toml"), "--config-env", environment,
            "--template-file", str(template),
            "--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items()),
        ],
        cwd=ROOT,
        env=deploy_environment(aws_endpoint_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish_deploy(deploying: subprocess.Popen[str]) -> str:
    """Wait for a deployment, and return what it said; fails the test when it failed."""
    text, _ = deploying.communicate(timeout=DEPLOYMENT_SECONDS)
    assert deploying.returncode == 0, text[-6000:]
    return text


@dataclass(frozen=True)
class SamLocal:
    """`sam local` with the built template and one environment for each function."""

    template: Path
    environment: Mapping[str, Mapping[str, str]]
    folder: Path
    """Where the files that are handed to SAM CLI are written."""

    def invoke(self, function: str, event: Path) -> Any:
        """Invoke a function with an event's file in a container of its own, and return what it answers.

        Fails the test when the function raised, was killed or timed out.
        """
        variables = self._variables()
        done = subprocess.run(
            [
                str(SAM), "local", "invoke", function,
                "--template", str(self.template),
                "--event", str(event),
                "--env-vars", str(variables),
                "--parameter-overrides", f"Architecture={ARCHITECTURE}",
                "--skip-pull-image",
                "--region", "us-east-1",
            ],
            cwd=self.folder,
            env=self._surroundings(function),
            capture_output=True,
            text=True,
            timeout=INVOCATION_SECONDS,
            check=False,
        )  # fmt: skip
        text = done.stderr[-6000:]
        assert done.returncode == 0, text
        assert done.stdout.strip(), text
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        assert not (isinstance(answer, dict) and "errorMessage" in answer), f"{answer}\n{text}"
        return answer

    @contextlib.contextmanager
    def serving(self, caller: str) -> Iterator[str]:
        """`sam local start-lambda`: the URL at which any Lambda client invokes the functions, in containers kept warm.

        `caller` is the function whose permissions the calls to AWS are held against.
        """
        port = free_port()
        log = self.folder / "start-lambda.log"
        before = _containers()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    str(SAM), "local", "start-lambda",
                    "--template", str(self.template),
                    "--env-vars", str(self._variables()),
                    "--parameter-overrides", f"Architecture={ARCHITECTURE}",
                    "--host", "127.0.0.1", "--port", str(port),
                    "--warm-containers", "LAZY", "--no-watch",
                    "--skip-pull-image",
                    "--region", "us-east-1",
                ],
                cwd=self.folder,
                env=self._surroundings(caller),
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_interruptible,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + SERVING_SECONDS
            while not listens(port):
                assert process.poll() is None, log.read_text(errors="replace")[-6000:]
                assert time.monotonic() < deadline, log.read_text(errors="replace")[-6000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does: SAM CLI removes its containers
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # What SAM CLI leaves behind must not outlive the test.
            if left := _containers() - before:
                docker("rm", "--force", *left)

    def _variables(self) -> Path:
        path = self.folder / "environment.json"
        path.write_text(json.dumps(self.environment), encoding="utf-8")
        return path

    def _surroundings(self, caller: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            # SAM CLI hands its credentials on; these tell who calls.
            "AWS_ACCESS_KEY_ID": caller,
            "AWS_SECRET_ACCESS_KEY": "local",
            # SAM CLI asks who it is; without an answer at hand it waits for the network to time out.
            "AWS_ENDPOINT_URL_STS": self.environment[caller]["AWS_ENDPOINT_URL"],
            "SAM_CLI_TELEMETRY": "0",
        }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
