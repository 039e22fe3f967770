"""What is uploaded: a file or bytes, read in parts; and how the bucket takes it."""

from __future__ import annotations

import io
import mimetypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx

from captions_client.calls import Asking, AskingPicture
from captions_client.errors import StorageError
from captions_client.models import Form, NewUpload

Media = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or a file that can be sought in."""

ONE_PART_BYTES = 16 * 1_048_576
"""What is sent in one request and held in memory; larger files go in parts of such a size."""


@dataclass(frozen=True)
class Uploaded:
    """A file that is in the bucket. `version_id` is None where the bucket keeps no versions."""

    id: str
    key: str
    version_id: str | None


@dataclass(frozen=True)
class OpenMedia:
    """A file that is open, with what the API is asked for it."""

    file: BinaryIO
    wanted: NewUpload

    def part(self, number: int, size: int) -> bytes:
        """Return the part of a number, from 1, where parts have a size."""
        self.file.seek((number - 1) * size)
        return self.file.read(size)


@contextmanager
def opened(
    media: Media, name: str | None, media_type: str | None, asking: Asking | AskingPicture
) -> Iterator[OpenMedia]:
    """Open what is to be uploaded; raises OSError, and ValueError where it is empty."""
    path = os.fspath(media) if isinstance(media, str | os.PathLike) else None
    held: Any = io.BytesIO(media) if isinstance(media, bytes) else media
    file: BinaryIO = held if path is None else open(path, "rb")  # noqa: SIM115 - closed below
    try:
        given = name or (os.path.basename(path) if path else os.path.basename(str(getattr(file, "name", "") or "")))
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise ValueError(f"{given or 'what is to be uploaded'} is empty")
        guessed = media_type or mimetypes.guess_type(given)[0] or "application/octet-stream"
        yield OpenMedia(file, NewUpload(name=given, size=size, media_type=guessed, **asking))
    finally:
        if path is not None:
            file.close()


def form_request(form: Form, media: OpenMedia) -> dict[str, Any]:
    """Return the request that sends a file by a form of the API's."""
    file = (media.wanted.name or "file", media.part(1, media.wanted.size), media.wanted.media_type)
    return {"method": "POST", "url": form.url, "data": form.fields, "files": {"file": file}}


def picture_form(media: OpenMedia) -> dict[str, Any]:
    """Return the body that sends a picture to be streamed."""
    asked = {"key", "name", "task", "style", "language", "question"}
    fields = media.wanted.model_dump(include=asked, exclude_defaults=True)
    file = (media.wanted.name or "picture", media.part(1, media.wanted.size), media.wanted.media_type)
    return {"data": fields, "files": {"file": file}}


def stored(answer: httpx.Response) -> httpx.Response:
    """Return what the bucket answered; raises StorageError where it refused."""
    if answer.is_success:
        return answer
    code = re.search(r"<Code>([A-Za-z0-9]{1,80})</Code>", answer.text)
    raise StorageError(answer.status_code, code[1] if code else answer.reason_phrase)


def version_in(answer: httpx.Response) -> str | None:
    """Return the version that the bucket made of a file."""
    version = answer.headers.get("x-amz-version-id")
    return None if version in (None, "", "null") else str(version)
