"""The classes of failure that one attempt can end with."""

from __future__ import annotations

from enum import StrEnum


class ErrorClass(StrEnum):
    """Why one attempt failed. What follows from it is decided in `fallback`."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    ERROR_BODY = "error_body"
    GARBLED = "garbled"
    CUT = "cut"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    UNFIT = "unfit"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    OURS = "ours"
    ACCOUNT = "account"
    DEADLINE = "deadline"

    @property
    def unhealthy(self) -> bool:
        """Whether it says that the model, at this endpoint, does not work. Rate limits are counted apart."""
        return self in _UNHEALTHY

    @property
    def unbilled(self) -> bool:
        """Whether the endpoint surely did not charge for it. A call that was cut off may have been charged."""
        return self in _UNBILLED


_UNHEALTHY = frozenset(
    {
        ErrorClass.SERVER_ERROR,
        ErrorClass.TIMEOUT,
        ErrorClass.CONNECTION,
        ErrorClass.ERROR_BODY,
        ErrorClass.GARBLED,
        ErrorClass.CUT,
        ErrorClass.EMPTY,
    }
)

_UNBILLED = frozenset(
    {
        ErrorClass.RATE_LIMITED,
        ErrorClass.SERVER_ERROR,
        ErrorClass.CONNECTION,
        ErrorClass.TOO_LARGE,
        ErrorClass.UNAVAILABLE,
        ErrorClass.OURS,
        ErrorClass.ACCOUNT,
    }
)
