"""Assets' ids in addresses: base64url of `bucket/key`, as keys may hold anything."""

from __future__ import annotations

import base64
import binascii
import re

MOST_CHARACTERS = 1_500
"""A bucket's name has 63 bytes, a key 1,024 (Amazon S3 user guide, "Naming objects")."""
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")


def id_of(asset: str) -> str:
    """Return the id of `bucket/key`."""
    return base64.urlsafe_b64encode(asset.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def asset_of(given: str) -> str | None:
    """Return the asset that an id is of; None where it is none."""
    if len(given) > MOST_CHARACTERS or not _ALPHABET.fullmatch(given):
        return None
    try:
        asset = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    bucket, slash, key = asset.partition("/")
    # What the encoder would not have written is another name for the same asset.
    return asset if bucket and slash and key and id_of(asset) == given else None
