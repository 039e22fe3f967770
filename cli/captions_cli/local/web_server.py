"""The API as a process of the local stack: what Lambda Web Adapter is in AWS, on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from captions_cli.local.child_server import ChildServer

LOG_NAME = "api.log"
IN_PLACE_OF_API_GATEWAY = {"API_AUTHORIZER": "token"}
"""What its environment is on one machine: a token lets callers in."""


class WebServer(ChildServer):
    """Serves the API; its log is in `log_dir`. `environment` is that of its function, and all that the process has."""

    def __init__(self, python: str, environment: Mapping[str, str], log_dir: Path, bind: str) -> None:
        self.token = secrets.token_urlsafe(24)
        arguments = [python, "-P", "-m", "captions_api", "--host", bind, "--port", "0", "--exit-with-parent"]
        super().__init__("the API", arguments, {**environment, "API_TOKEN": self.token}, log_dir / LOG_NAME)
