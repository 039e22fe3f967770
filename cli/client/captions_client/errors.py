"""What can go wrong, as types: the API's problems (RFC 9457) by their status, and what keeps it from answering."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx


class CaptionsError(Exception):
    """What all errors of this package are."""


class ConnectionFailedError(CaptionsError):
    """The API, or the bucket, could not be reached, or went away, after all retries."""


class UnexpectedAnswerError(CaptionsError):
    """Something answered that is not the API, or one that this client does not know."""


class StorageError(CaptionsError):
    """The bucket refused a file. `status` is HTTP's, `code` S3's own, such as `EntityTooLarge`."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"the bucket refused the file: {status} {code}".rstrip())
        self.status = status
        self.code = code


class WaitTimeoutError(CaptionsError, TimeoutError):
    """An upload had not ended in time; it goes on by itself. `state` is its last, None if it was never seen."""

    def __init__(self, id: str, state: str | None) -> None:
        super().__init__(f"{id} had not ended in time: {state or 'it is not known to the API yet'}")
        self.id = id
        self.state = state


class ProblemError(CaptionsError):
    """The API refused a request. `members` holds what the problem says beyond `type`, `title` and `detail`."""

    def __init__(self, status: int, members: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(members.get("type") or "about:blank")
        self.title = str(members.get("title") or "")
        self.detail = str(members.get("detail") or members.get("message") or "")
        self.members = {name: value for name, value in members.items() if name not in _STANDARD}
        super().__init__(f"{status} {self.title}: {self.detail}" if self.title else f"{status} {self.detail}")


class BadRequestError(ProblemError):
    """400: the request makes no sense, such as the cursor of another list."""


class NotSignedInError(ProblemError):
    """401: no token, or one that does not count."""


class NotAllowedError(ProblemError):
    """403: not this caller."""


class NotFoundError(ProblemError):
    """404: there is no such asset, or none that this caller may see."""


class ConflictError(ProblemError):
    """409: the asset is not in a state for this."""


class ChangedMeanwhileError(ConflictError):
    """412: the asset is another than when it was read. `etag` is its current one."""

    @property
    def etag(self) -> str:
        """What `If-Match` takes now."""
        return str(self.members.get("etag", ""))


class TooLargeError(ProblemError):
    """413: `members["most"]` is how many bytes it may have."""


class UnsupportedMediaError(ProblemError):
    """415: this kind of file is not taken there."""


class InvalidError(ProblemError):
    """422: a value cannot be taken; `members["errors"]` says which, where there are several."""


class EtagNeededError(ProblemError):
    """428: an edit without the asset's etag."""


class TooManyRequestsError(ProblemError):
    """429, after all retries."""


class NotAvailableError(ProblemError):
    """500 and above, after all retries where those may help."""


_STANDARD = frozenset({"type", "title", "status", "detail"})
_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: BadRequestError,
    401: NotSignedInError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    412: ChangedMeanwhileError,
    413: TooLargeError,
    415: UnsupportedMediaError,
    422: InvalidError,
    428: EtagNeededError,
    429: TooManyRequestsError,
}


def problem(status: int, members: Mapping[str, Any]) -> ProblemError:
    """Return a problem as the type of its status."""
    of_status = _BY_STATUS.get(status) or (NotAvailableError if status >= 500 else ProblemError)
    return of_status(status, members)


def problem_of(answer: httpx.Response) -> ProblemError:
    """Return what an answer refuses with: the API's problem, or whatever stands before the API says."""
    try:
        members = json.loads(answer.content)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        members = {"title": answer.reason_phrase, "detail": answer.text[:200]}
    return problem(answer.status_code, members)
