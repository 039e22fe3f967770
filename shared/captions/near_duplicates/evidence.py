"""What the picture of a claim is compared by, made of the claim's object when a picture may be the same.

Evidence is a function of an object's bytes, and S3 keeps those anyway. To store it as well costs more than to make it
where it is needed: most pictures never meet another that their hash cannot tell from them (docs/index-cost.md).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from threading import Lock

from captions import media, telemetry
from captions.fingerprint import Fingerprint, finer_evidence, fingerprint_image
from captions.near_duplicates.protocol import Announcement, Claim
from captions.uploads.s3_objects import GoneError, Objects, UnreadableError

KEPT = 256
"""Pictures whose evidence a process remembers: at most 70 MB."""
KEPT_FINELY = 12
"""The same of finer evidence: at most 87 MB."""

Exact = tuple[str, ...]


class ObjectEvidence:
    """Makes evidence, once for all threads of a process that ask for the same bytes at the same time.

    `decoding` is held while an object is read and decoded, `one_large` besides while that is a large picture. `finely`
    makes the finer evidence that decides where the usual cannot (fingerprint.decided_finely).
    """

    def __init__(
        self,
        objects: Objects,
        limits: media.Limits,
        decoding: Callable[[], AbstractContextManager[None]],
        one_large: Callable[[], AbstractContextManager[None]],
        *,
        finely: bool = False,
    ) -> None:
        self._objects = objects
        self._limits = limits
        self._decoding = decoding
        self._one_large = one_large
        self._finely = finely
        self._kept = KEPT_FINELY if finely else KEPT
        self._lock = Lock()
        self._made: OrderedDict[Exact, Future[bytes | None]] = OrderedDict()

    def remember(self, fingerprint: Fingerprint) -> None:
        """Keep the evidence of an upload that was decoded here: copies that come together need not read it."""
        with self._lock:
            if fingerprint.evidence is not None and fingerprint.exact not in self._made:
                self._keep(fingerprint.exact).set_result(fingerprint.evidence)

    def __call__(self, claim: Announcement | Claim) -> bytes | None:
        """Return the evidence of a claim's object; None where the object cannot be read, or is another by now.

        Raises what S3 answers when another try may succeed.
        """
        with self._lock:
            making = self._made.get(claim.exact)
            mine = making is None
            if making is None:
                making = self._keep(claim.exact)
            self._made.move_to_end(claim.exact)
        if not mine:
            return making.result()
        try:
            evidence = self._make(claim)
        except BaseException as error:
            making.set_exception(error)
            self._forget(claim.exact)
            raise
        making.set_result(evidence)
        if evidence is None:
            self._forget(claim.exact)  # it may be readable later
        return evidence

    def _keep(self, exact: Exact) -> Future[bytes | None]:
        future: Future[bytes | None] = Future()
        self._made[exact] = future
        if len(self._made) > self._kept:
            self._made.popitem(last=False)
        return future

    def _forget(self, exact: Exact) -> None:
        with self._lock:
            self._made.pop(exact, None)

    def _make(self, claim: Announcement | Claim) -> bytes | None:
        try:
            with self._decoding():
                data = self._objects.read(claim.upload)
                if "b:" + hashlib.sha256(data).hexdigest() not in claim.exact:
                    raise GoneError(f"{claim.upload.asset} has other bytes by now")
                inspected = media.inspect(data, self._limits, one_large=self._one_large(), finely=self._finely)
                return finer_evidence(inspected) if self._finely else fingerprint_image(inspected).evidence
        except (GoneError, UnreadableError, media.MediaError) as error:
            telemetry.count("EvidenceUnreadable")
            telemetry.logger().warning("evidence_unreadable", asset=claim.upload.asset, claim=claim.id, why=str(error))
            return None
