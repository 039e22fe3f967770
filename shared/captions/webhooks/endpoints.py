"""Which endpoints are notified of which events: an operator's TOML in a parameter or a bucket, and their secrets."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from captions.completion_events import DETAIL_TYPES, REVIEW_TYPES, UNDONE_TYPE

EVENT_TYPES = (*DETAIL_TYPES.values(), *REVIEW_TYPES.values(), UNDONE_TYPE)
TEST_TYPE = "Caption.Test"
"""What `captions webhooks test` sends, to any endpoint, whatever events it asks for."""
MOST_SECRETS = 2
"""Valid at once: while a receiver changes over, what is sent is signed with the new secret and the old one."""


class WebhooksError(ValueError):
    """The configuration, or the secrets, cannot be used; the message says where."""


class WebhookEndpoint(BaseModel):
    """One receiver of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    events: tuple[str, ...] = EVENT_TYPES
    prefixes: tuple[str, ...] = ("",)
    """Beginnings of object keys; an event about another key is not sent."""
    paused: bool = False
    """Switched off by the operator: nothing is sent, and nothing is kept for it."""

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("holds what a URL has to write in %xx, or in Punycode")
        split = urlsplit(value)
        if split.scheme not in ("https", "http") or not split.hostname:
            raise ValueError("is no http(s) URL")
        if split.username is not None or split.password is not None or split.fragment:
            raise ValueError("holds a user, a password or a fragment")
        _ = split.port  # raises ValueError for one that is no number
        return value

    @field_validator("events")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(EVENT_TYPES)):
            raise ValueError(f"there is no event {', '.join(unknown)}; there are {', '.join(EVENT_TYPES)}")
        return value

    def wants(self, event_type: str, key: str) -> bool:
        """Whether an event of this type about this object's key is for it."""
        return not self.paused and event_type in self.events and key.startswith(self.prefixes)


class Webhooks(BaseModel):
    """All endpoints by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: str = ""
    """Base URL of the stack's API, which bodies link to; empty: they hold its path alone."""
    endpoints: dict[str, WebhookEndpoint] = Field(default_factory=dict)
    known: bool = Field(default=True, exclude=True)
    """False before the configuration was ever read: then nobody knows what is for whom."""


def load(text: str | None) -> Webhooks:
    """Read the configuration; None is one that could not be read yet. Raises WebhooksError."""
    if text is None:
        return Webhooks(known=False)
    try:
        return Webhooks.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise WebhooksError(f"the webhooks' configuration is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WebhooksError(f"the webhooks' configuration, {where}: {first['msg']}") from error


def secrets_of(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read the secrets: JSON of an endpoint's name to its secret, or to up to two, the newest first.

    Raises WebhooksError, which never holds a secret.
    """
    try:
        document: Any = json.loads(text)
    except ValueError:
        raise WebhooksError("the webhooks' secrets are no JSON") from None
    if not isinstance(document, dict):
        raise WebhooksError("the webhooks' secrets are no JSON object")
    read = {}
    for name, value in document.items():
        secrets = [value] if isinstance(value, str) else value
        if not isinstance(secrets, list) or not all(isinstance(secret, str) and secret for secret in secrets):
            raise WebhooksError(f"the secret of {name} is neither text nor a list of texts")
        if len(secrets) > MOST_SECRETS:
            raise WebhooksError(f"{name} has {len(secrets)} secrets; {MOST_SECRETS} are valid at once")
        read[name] = tuple(secrets)
    return read


def is_secret(text: str) -> bool:
    """Whether text is a secret as Standard Webhooks makes them: `whsec_` and 24 to 64 bytes in base64.

    The library takes whatever Python's base64 makes something of, if only of a part.
    """
    try:
        return text.startswith("whsec_") and 24 <= len(base64.b64decode(text[6:], validate=True)) <= 64
    except ValueError:
        return False
