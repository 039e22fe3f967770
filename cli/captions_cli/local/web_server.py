"""The API as a process of the local stack: what Lambda Web Adapter is in AWS, on loopback."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from captions_cli.local.child_server import ChildServer

LOG_NAME = "api.log"


class WebServer(ChildServer):
    """Serves the API; its log is in `log_dir`. `environment` is that of its function, and all that the process has."""

    def __init__(self, python: str, environment: Mapping[str, str], log_dir: Path, bind: str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        arguments = [python, "-P", "-m", "captions_api", "--host", bind, "--port", str(port), "--exit-with-parent"]
        super().__init__("the API", arguments, {**environment, "API_TOKEN": self.token}, log_dir / LOG_NAME)


def environment(
    functions: Mapping[str, Mapping[str, str]], outputs: Mapping[str, str], table: str, search_function: str | None
) -> dict[str, str]:
    """Return the API's environment, of those of the stack's functions and of what the stack puts out."""
    joined = {name: value for variables in functions.values() for name, value in variables.items()}
    return joined | {
        "POWERTOOLS_SERVICE_NAME": "api",
        "API_TABLE": table,
        "API_AUTHORIZER": "token",
        "SEARCH_FUNCTION": search_function or "",
        "MEDIA_BUCKET": outputs["MediaBucketName"],
        "CONTROL_TABLE": outputs["ControlTableName"],
        "UPLOADS_DEAD_LETTER_QUEUE_URL": outputs["UploadsDeadLetterQueueUrl"],
        "IMAGE_DEAD_LETTER_QUEUE_URL": outputs["ImageDeadLetterQueueUrl"],
        "AUDIO_DEAD_LETTER_QUEUE_URL": outputs["AudioDeadLetterQueueUrl"],
        "PATH": os.environ["PATH"],
    }
