"""A typed client of media-captions, for code that waits (`Client`) and for code on an event loop (`AsyncClient`)."""

from captions_client.async_client import AsyncClient
from captions_client.client import Client
from captions_client.errors import (
    BadRequestError,
    CaptionsError,
    ChangedMeanwhileError,
    ConflictError,
    ConnectionFailedError,
    EtagNeededError,
    InvalidError,
    NotAllowedError,
    NotAvailableError,
    NotFoundError,
    NotSignedInError,
    ProblemError,
    StorageError,
    TooLargeError,
    TooManyRequestsError,
    UnexpectedAnswerError,
    UnsupportedMediaError,
    WaitTimeoutError,
)
from captions_client.events import Delta, Done, Event, Restart, Waiting
from captions_client.media import Uploaded
from captions_client.models import Asset, AssetSummary, Money

__all__ = [
    "Asset",
    "AssetSummary",
    "AsyncClient",
    "BadRequestError",
    "CaptionsError",
    "ChangedMeanwhileError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "Delta",
    "Done",
    "EtagNeededError",
    "Event",
    "InvalidError",
    "Money",
    "NotAllowedError",
    "NotAvailableError",
    "NotFoundError",
    "NotSignedInError",
    "ProblemError",
    "Restart",
    "StorageError",
    "TooLargeError",
    "TooManyRequestsError",
    "UnexpectedAnswerError",
    "UnsupportedMediaError",
    "Uploaded",
    "WaitTimeoutError",
    "Waiting",
]
