"""Documents that are kept outside the package and may change at any time: read again every few minutes, never trusted.

A document that is broken, or cannot be read, keeps the last good one, and is reported each time it is looked at; where
there is no good one yet, the packaged one holds.
"""

from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic
from typing import Any, Generic, TypeVar

MAX_AGE_SECONDS = 300.0
"""How long a document is kept before it is read again."""
MAX_BYTES = 1_000_000
"""Of a document in a bucket; a parameter holds 8 KB at most (AWS Systems Manager, quotas)."""

T = TypeVar("T")


class UnreadableOverrideError(Exception):
    """The document is not there, may not be read, or is too large to be one."""


class Overridden(Generic[T]):
    """What `parse` makes of the document that `read` returns; safe to share between threads.

    `parse` is given None for no document, which it must always understand. Any of `errors` means that the document is
    broken; `broken` is called then.
    """

    def __init__(
        self,
        read: Callable[[], str | None],
        parse: Callable[[str | None], T],
        *,
        errors: tuple[type[Exception], ...],
        broken: Callable[[Exception], None],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._read = read
        self._parse = parse
        self._errors: tuple[type[Exception], ...] = (UnreadableOverrideError, *errors)
        self._broken = broken
        self._now = now
        self._lock = Lock()
        self._text: str | None = None
        self._read_at: float | None = None
        self._current = parse(None)

    def current(self) -> T:
        """Return what holds now; the same object until the document changes."""
        with self._lock:
            if self._read_at is None or self._now() - self._read_at >= MAX_AGE_SECONDS:
                self._read_at = self._now()
                self._refresh()
            return self._current

    @property
    def known(self) -> bool:
        """Whether what holds is a document that was read, and not what stands in for one that never could be."""
        self.current()
        return self._text is not None

    def forget(self) -> None:
        """Read the document again when it is asked for next, however lately that was."""
        with self._lock:
            self._read_at = None

    def _refresh(self) -> None:
        try:
            text = self._read()
            if text == self._text:
                return
            self._current = self._parse(text)
            self._text = text
        except self._errors as error:
            self._broken(error)


def read(where: str, client: Callable[[str], Any]) -> str:
    """Return the document at `where`: an SSM parameter's name, or `s3://BUCKET/KEY`; `client` makes boto3 clients.

    Raises:
        UnreadableError: it cannot be had, for whatever reason.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if not where.startswith("s3://"):
            value: str = client("ssm").get_parameter(Name=where)["Parameter"]["Value"]
            return value
        bucket, _, key = where.removeprefix("s3://").partition("/")
        body: bytes = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise UnreadableOverrideError(f"{where} is longer than {MAX_BYTES:,} bytes")
        return body.decode()
    except (BotoCoreError, ClientError, UnicodeDecodeError) as error:
        raise UnreadableOverrideError(f"{where} cannot be read: {error}") from error


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it: tables key by key; other values, lists too, replace what was there."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = laid_over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
