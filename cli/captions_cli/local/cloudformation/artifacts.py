"""Uploaded code and layers, unpacked: what deployed functions run from."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captions_cli.local.errors import StackError

LAMBDA_PYTHON = (3, 13)
"""What the template's functions run on; layers hold compiled code for it."""
_RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
"""What Lambda's Python brings along, all of it in plain Python: lent from this process's packages."""
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


class Artifacts:
    """Unpacks each uploaded archive once, by its content, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guard = threading.Lock()

    def unpacked(self, content: Mapping[str, Any], s3: Any) -> Path:
        """The directory that holds an archive's files. Raises StackError if it is no zip archive or not there."""
        from botocore.exceptions import ClientError

        version = {"VersionId": content["S3ObjectVersion"]} if content.get("S3ObjectVersion") else {}
        try:
            data = s3.get_object(Bucket=content["S3Bucket"], Key=content["S3Key"], **version)["Body"].read()
        except ClientError as error:
            raise StackError(f"s3://{content['S3Bucket']}/{content['S3Key']}: {error}") from error
        directory = self._directory / hashlib.sha256(data).hexdigest()[:24]
        with self._guard:
            if not directory.is_dir():
                draft = directory.with_suffix(".tmp")
                shutil.rmtree(draft, ignore_errors=True)
                try:
                    with zipfile.ZipFile(io.BytesIO(data)) as archive:
                        archive.extractall(draft)
                except zipfile.BadZipFile as error:
                    raise StackError(f"s3://{content['S3Bucket']}/{content['S3Key']} is no zip archive") from error
                draft.rename(directory)
        return directory

    def runtime(self) -> Path:
        """A directory with the packages that Lambda's Python has of its own."""
        directory = self._directory / "runtime"
        with self._guard:
            if not directory.is_dir():
                draft = directory.with_suffix(".tmp")
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                for name in _RUNTIME_PACKAGES:
                    spec = importlib.util.find_spec(name)
                    if spec is None or spec.origin is None:
                        raise StackError(f"this Python has no {name}, which Lambda's has")
                    origin = Path(spec.origin)
                    folder = origin.parent if origin.name == "__init__.py" else origin
                    (draft / folder.name).symlink_to(folder)
                draft.rename(directory)
        return directory


def layer_paths(layer: Path) -> Iterator[Path]:
    """Where Lambda's Python looks for packages in an unpacked layer."""
    version = ".".join(map(str, LAMBDA_PYTHON))
    for path in (layer / "python" / "lib" / f"python{version}" / "site-packages", layer / "python"):
        if path.is_dir():
            yield path


def has_third_parties(path: Path) -> bool:
    """Whether a directory of packages holds installed ones, which may be compiled for Lambda's Python alone."""
    return any(path.glob("*.dist-info"))


def machine() -> str:
    """The machine's processor as Lambda names it. Raises StackError if Lambda knows none such."""
    try:
        return _MACHINES[platform.machine().lower()]
    except KeyError:
        raise StackError(f"Lambda has no processor like this machine's ({platform.machine()})") from None


@functools.cache
def lambda_python() -> str | None:
    """An interpreter of Lambda's version on this machine: this one, one on the path, pyenv's, or uv's; None without."""
    if sys.version_info[:2] == LAMBDA_PYTHON:
        return sys.executable
    return next((candidate for candidate in _candidates() if _answers(candidate)), None)


def _candidates() -> Iterator[str]:
    version = ".".join(map(str, LAMBDA_PYTHON))
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    # pyenv's root is found by its place on the path as well: its stand-ins there work for chosen versions only.
    given = os.environ.get("PYENV_ROOT")
    shims = (path.parent for path in map(Path, os.get_exec_path()) if path.name == "shims")
    for pyenv in dict.fromkeys((Path(given) if given else Path.home() / ".pyenv", *shims)):
        yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")), reverse=True)
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    yield from sorted(map(str, uv.glob(f"cpython-{version}.*/bin/python3")), reverse=True)


def _answers(python: str) -> bool:
    """Whether an interpreter is one: a version manager's stand-in fails unless that version is chosen."""
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter found on this machine
            [python, "-c", "import ssl, sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.split() == [str(number) for number in LAMBDA_PYTHON]
