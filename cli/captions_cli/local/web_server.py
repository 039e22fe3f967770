"""The API as a process of the local stack: what Lambda Web Adapter is in AWS, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from captions_cli.local.errors import StackError

START_S = 60.0
STOP_S = 5.0
LOG_NAME = "api.log"


class WebServer:
    """Serves the API until it is stopped, or this process ends; its log is in `log_dir`.

    `environment` is that of its function, and all that the process has.
    """

    def __init__(self, python: str, environment: Mapping[str, str], log_dir: Path, bind: str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.url = ""
        self._log_file = log_dir / LOG_NAME
        self._log: IO[bytes] = self._log_file.open("ab")
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [python, "-P", "-m", "captions_api", "--host", bind, "--port", str(port), "--exit-with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={**environment, "API_TOKEN": self.token, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
        )

    def wait(self) -> str:
        """Its URL without the token, once it listens. Raises StackError if it does not."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if readable else b""
        try:
            self.url = str(json.loads(line)["url"])
        except (ValueError, KeyError) as error:
            log = self._log_file.read_text(errors="replace")[-2000:]
            raise StackError(f"the API does not start: {log or 'it says nothing'}") from error
        return self.url

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


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
