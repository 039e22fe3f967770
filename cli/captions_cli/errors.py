"""What a command may end with, and how AWS's errors are put in one line."""

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit codes of every command; scripts may rely on them."""

    DONE = 0
    """Everything that was asked for is done; after `upload`, every file is captioned."""
    NOT_CAPTIONED = 1
    """The command ran, but some upload is not captioned, or what was asked for does not exist."""
    USAGE = 2
    """The command line, or a file it names, cannot be used."""
    UNREACHABLE = 3
    """There is no such stack, it does not answer, or the local one does not start."""
    TIMEOUT = 4
    """Time ran out while uploads were still on their way."""
    AWS = 5
    """AWS answered and said no: access denied, throttled, no credentials."""
    INTERRUPTED = 130
    """Ctrl-C; what a shell reports for it (128 + SIGINT)."""
    TERMINATED = 143
    """SIGTERM; what a shell reports for it (128 + SIGTERM)."""


class Terminated(BaseException):
    """SIGTERM came: what the command started is ended on the way out, as after Ctrl-C."""


class CommandError(Exception):
    """A command cannot go on; `message` is what the user sees, `exit_code` how the process ends."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


_REACHING = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ReadTimeoutError",
    "ProxyConnectionError",
    "SSLError",
    "HTTPClientError",
}


def explain(error: BaseException) -> CommandError | None:
    """Turn an error of botocore into a CommandError; None when it is none of botocore's."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        details: Any = error.response.get("Error", {})
        code = details.get("Code", "unknown error")
        message = details.get("Message") or "no further message"
        return CommandError(f"AWS refused {error.operation_name}: {code}: {_one_line(message)}", ExitCode.AWS)
    if isinstance(error, BotoCoreError):
        if {kind.__name__ for kind in type(error).__mro__} & _REACHING:
            return CommandError(f"AWS cannot be reached: {_one_line(str(error))}", ExitCode.UNREACHABLE)
        return CommandError(_one_line(str(error)), ExitCode.AWS)
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
