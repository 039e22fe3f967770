"""Cursors: where a list goes on, sealed, so that they tell nobody of others' records and cannot be made up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import zlib
from typing import Any

from captions_api.problems import Refusal

_NONCE_BYTES, _TAG_BYTES = 12, 16
MOST_CHARACTERS = 4_000


class Seal:
    """Seals values under a secret of 32 bytes: encrypted with SHAKE-256 as a stream, then signed with HMAC-SHA-256.

    The place a page ended may be an entry that its reader may not see, so a signature alone would tell of it.
    """

    def __init__(self, secret: bytes) -> None:
        self._stream, self._sign = (hashlib.sha256(name + secret).digest() for name in (b"stream", b"sign"))

    def seal(self, value: Any, purpose: str) -> str:
        """Return a cursor that `unseal` takes for the same purpose alone: the query and the caller it is for."""
        # A key may hold 1,024 bytes, each of which JSON may write as six characters; an address has no room for these.
        plain = zlib.compress(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), 9)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._crypt(nonce, plain)
        return base64.urlsafe_b64encode(sealed + self._tag(sealed, purpose)).decode().rstrip("=")

    def unseal(self, cursor: str, purpose: str) -> Any:
        """Return what was sealed; raises Refusal (400) for anything else."""
        try:
            if len(cursor) > MOST_CHARACTERS:
                raise ValueError
            whole = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            sealed, tag = whole[:-_TAG_BYTES], whole[-_TAG_BYTES:]
            if len(sealed) < _NONCE_BYTES or not hmac.compare_digest(tag, self._tag(sealed, purpose)):
                raise ValueError
            return json.loads(zlib.decompress(self._crypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:])))
        except (ValueError, zlib.error):
            raise Refusal(400, "bad-cursor", "this cursor is not one of this list; begin at the first page") from None

    def _crypt(self, nonce: bytes, text: bytes) -> bytes:
        stream = hashlib.shake_256(self._stream + nonce).digest(len(text))
        return bytes(byte ^ other for byte, other in zip(text, stream, strict=True))

    def _tag(self, sealed: bytes, purpose: str) -> bytes:
        about = hashlib.sha256(purpose.encode("utf-8", "surrogatepass")).digest()
        return hmac.digest(self._sign, about + sealed, "sha256")[:_TAG_BYTES]
