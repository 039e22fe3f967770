"""Puts files into the media bucket and remembers which version of which key each became."""

import mimetypes
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.printable import printable
from captions_cli.stack import Stack

THREADS = 8
MAX_KEY_BYTES = 1024
"""Longest object key in UTF-8 (Amazon S3 user guide, "Naming Amazon S3 objects")."""


@dataclass(frozen=True)
class Planned:
    """A file and the key it is to get."""

    path: Path
    key: str


@dataclass(frozen=True)
class Sent:
    """An object that was put: its key, the version it became (None in a bucket without versions) and its entity tag."""

    key: str
    version_id: str | None
    etag: str
    size: int


@dataclass(frozen=True)
class NotSent:
    """A file that could not be put, and why."""

    key: str
    why: str


def plan(paths: Iterable[Path], prefix: str = "") -> list[Planned]:
    """Decide the key of each file, in the order given and sorted within a directory.

    A file's key is its name; a directory's files keep the directory's name and their place in it, as `cp -r` does,
    and hidden files in it are left out. `prefix` goes in front as it is.

    Raises CommandError (usage) for a path that does not exist, a name that is no S3 key, two files with one key, or
    when there is nothing to upload.
    """
    planned = [Planned(path, prefix + name) for given in paths for path, name in _named(given)]
    if not planned:
        raise CommandError("there is no file to upload", ExitCode.USAGE)
    taken: dict[str, Path] = {}
    for file in planned:
        _check_key(file)
        other = taken.setdefault(file.key, file.path)
        if other is not file.path:
            raise CommandError(
                f"{printable(other)} and {printable(file.path)} would both become {printable(file.key)}; "
                "upload them with different --prefix",
                ExitCode.USAGE,
            )
    return planned


def _named(given: Path) -> list[tuple[Path, str]]:
    try:
        if not given.is_dir():
            if not given.exists():
                raise CommandError(f"{printable(given)} does not exist", ExitCode.USAGE)
            if not given.is_file():  # a pipe would be waited for without an end
                raise CommandError(f"{printable(given)} is neither a file nor a folder", ExitCode.USAGE)
            return [(given, given.name)]
        # "." and ".." have no name of their own to keep; nor has a drive or the root.
        root = given if given.name in ("", "..") else given.parent
        inside = ((path, path.relative_to(given)) for path in sorted(given.rglob("*")))
        return [
            (path, path.relative_to(root).as_posix())
            for path, place in inside
            if not any(part.startswith(".") for part in place.parts) and path.is_file()
        ]
    except OSError as error:
        raise CommandError(f"{printable(given)} cannot be read: {error.strerror}", ExitCode.USAGE) from error


def _check_key(file: Planned) -> None:
    try:
        length = len(file.key.encode("utf-8"))
    except UnicodeEncodeError:
        raise CommandError(
            f"the name of {printable(file.path)} is not Unicode text, which a key must be", ExitCode.USAGE
        ) from None
    if length > MAX_KEY_BYTES:
        raise CommandError(
            f"{printable(file.path)} would get a key of {length} bytes; S3 takes {MAX_KEY_BYTES}", ExitCode.USAGE
        )


def put(stack: Stack, key: str, body: bytes | BinaryIO, size: int) -> Sent:
    """Put one object, in one request, so that it makes one event and its version is known."""
    extra = {}
    media_type, encoding = mimetypes.guess_type(key)
    if media_type and not encoding:
        # For whoever downloads it; what the file is, the pipeline decides from its bytes.
        extra["ContentType"] = media_type
    answer = stack.client("s3").put_object(Bucket=stack.bucket, Key=key, Body=body, **extra)
    return Sent(key, answer.get("VersionId"), answer["ETag"].strip('"'), size)


def send(stack: Stack, files: Sequence[Planned], done: Callable[[Sent | NotSent], None]) -> list[Sent | NotSent]:
    """Put files, several at a time; `done` is called in the caller's thread as each one ends.

    One file's failure does not stop the others. The answer is in the order of `files`.
    """
    _ = stack.bucket, stack.client("s3")  # found once, before the threads
    with ThreadPoolExecutor(THREADS) as pool:
        pending = {pool.submit(_send_file, stack, file): file for file in files}
        ended = {}
        for future in as_completed(pending):
            ended[pending[future].key] = outcome = future.result()
            done(outcome)
    return [ended[file.key] for file in files]


def _send_file(stack: Stack, file: Planned) -> Sent | NotSent:
    try:
        with file.path.open("rb") as body:
            return put(stack, file.key, body, file.path.stat().st_size)
    except OSError as error:
        return NotSent(file.key, f"cannot be read: {error.strerror or error}")
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        return NotSent(file.key, explained.message)
