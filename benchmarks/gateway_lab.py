"""What the gateway benchmarks have in common: an endpoint to call, peers to compare with, tables to print."""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
CLIENTS = Path(__file__).with_name("gateway_clients.py")
MODULE = "captions_cli.local.model_endpoint"
PEER = ROOT / ".venv" / "peers" / "litellm"
PEER_REQUIREMENTS = Path(__file__).with_name("peers") / "litellm.txt"
PACKAGES = {"bare": "openai", "gateway": "openai", "litellm": "litellm"}


def peer_python() -> Path:
    """Return the interpreter of litellm's own venv, made first if need be: it cannot live beside openai 3."""
    python = PEER / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        environment = os.environ | {"UV_LINK_MODE": "copy", "UV_NATIVE_TLS": "true", "UV_SYSTEM_CERTS": "true"}
        commands: tuple[list[str | Path], ...] = (
            [uv, "venv", "--quiet", "--python", sys.executable, str(PEER)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", PEER_REQUIREMENTS],
        )
        for command in commands:
            subprocess.run(command, check=True, env=environment)
    return python


def python_of(client: str) -> Path:
    """Return the interpreter that has the client's packages."""
    return peer_python() if client == "litellm" else Path(sys.executable)


def versions() -> dict[str, str]:
    """Return the versions of what is compared."""
    counts = {}
    for client, package in (("gateway", "openai"), ("litellm", "litellm"), ("litellm", "openai")):
        code = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run([python_of(client), "-c", code], check=True, capture_output=True, text=True)
        counts[package if package == client or client == "gateway" else f"{package} beside {client}"] = (
            done.stdout.strip()
        )
    return counts


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "nice": os.nice(0),  # children inherit it
        "versions": versions(),
    }


class EndpointProcess:
    """A local endpoint in a process of its own, so that its work is not counted as the client's."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "captions_cli.local.model_endpoint",
                "--port",
                "0",
                "--exit-with-parent",
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["url"]
        self._asked = 0

    def faults(self, faults: Sequence[dict[str, Any]]) -> None:
        """Replace all faults."""
        self._admin("PUT", "faults", list(faults))

    def forget(self) -> None:
        """Empty the request log."""
        self._admin("DELETE", "requests")

    def requests(self) -> list[dict[str, Any]]:
        """Return the request log."""
        requests: list[dict[str, Any]] = self._admin("GET", "requests")["requests"]
        return requests

    def connections(self) -> int:
        """Return how many connections clients have opened; those of this class do not count."""
        return int(self._admin("GET", "stats")["connections"]) - self._asked

    def _admin(self, method: str, what: str, body: object = None) -> Any:
        self._asked += 1  # each opens a connection
        url = f"{self.url.removesuffix('/v1')}/_local/{what}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method)) as response:
            text = response.read()
        return json.loads(text) if text else None

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(timeout=10)


@contextmanager
def endpoint(*arguments: str) -> Iterator[EndpointProcess]:
    """An endpoint for as long as the block runs."""
    process = EndpointProcess(*arguments)
    try:
        yield process
    finally:
        process.stop()


def picture() -> str:
    """Return a small JPEG in base64: the size of its body is the same work for every client."""
    file = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((320, 240))
    Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM), gradient)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table for people: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Write the result where `--json` says."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
