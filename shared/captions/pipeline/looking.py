"""Reads and decodes uploads within the memory of a sandbox: what kind of file each is, and what it is recognised by."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from threading import TIMEOUT_MAX, BoundedSemaphore

from captions import media
from captions.config.environment import IntakeSettings
from captions.config.policy import Policy
from captions.fingerprint import Fingerprint, fingerprint_audio, fingerprint_image
from captions.near_duplicates.evidence import ObjectEvidence
from captions.picture_class import Looks, classify
from captions.routing import routes
from captions.uploads.s3_objects import Fetched, Objects
from captions.uploads.version import ObjectVersion

DECODERS = 3
"""Media decoded at the same time in one sandbox, only one of them large; it is memory, not time, that sets this."""
SIDE_BY_SIDE = 10
"""Messages of a batch, which are handled side by side (the template's BatchSize)."""
SMALL_BYTES = 8_000_000
"""Objects up to this size are read before a decoder is free, so that one waits for S3 while others are decoded."""
SNIFFED_BYTES = 65_536
"""How much of an object too large to be read whole is looked at to say what it is."""
LEAST_SECONDS = 20.0
"""With less time left, an upload is not started: reading, decoding and claiming it may take that long."""
FREE_WITHIN_SECONDS = 20.0
"""How long an upload that was decoded waits for a decoder once more, to compare itself with another picture."""


class NotStartedError(Exception):
    """There was not enough time left to start on the message; it is to be delivered again."""


@dataclass(frozen=True)
class Subject:
    """What an upload turned out to be. Of a kind that is not captioned, the fingerprint is empty."""

    media: media.Sniffed
    fingerprint: Fingerprint = field(default_factory=lambda: Fingerprint(exact=()))
    looks: Looks | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    """The file's own, where the policy has it shown to models."""

    @property
    def content(self) -> tuple[str, ...]:
        """The digests that say whether two uploads have the same content."""
        return self.fingerprint.exact


class Looker:
    """Looks at uploads, several at a time; safe to share between threads."""

    def __init__(self, objects: Objects, settings: IntakeSettings) -> None:
        self.objects = objects
        self.decoders, self.one_large = BoundedSemaphore(DECODERS), BoundedSemaphore(1)
        held = (lambda: _soon(self.decoders)), (lambda: _soon(self.one_large))
        self.evidence = ObjectEvidence(objects, limits_of(settings), *held)
        self.finer_evidence = ObjectEvidence(objects, limits_of(settings), *held, finely=True)
        self._readers = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="objects")

    def read_ahead(self, upload: ObjectVersion, settings: IntakeSettings) -> Future[Fetched] | None:
        """Begin to read an object, unless it is too large to be kept until there is a decoder for it."""
        if upload.size > SMALL_BYTES:
            return None
        return self._readers.submit(self._fetch, upload, settings)

    def look(
        self,
        upload: ObjectVersion,
        rules: Policy,
        settings: IntakeSettings,
        until: float,
        reading: Future[Fetched] | None,
    ) -> Subject:
        """Read and decode an object; `reading` is what `read_ahead` answered, where that was asked.

        Raises MediaError for what will never be captioned, GoneError, ReplicaError and UnreadableError as Objects does,
        and NotStartedError where no decoder gets free in time before `until`, by time.monotonic().
        """
        reading = reading or self.read_ahead(upload, settings)
        fetched = None if reading is None else reading.result()
        with _held(self.decoders, until):
            fetched = fetched or self._fetch(upload, settings)
            subject = self._decoded(upload, fetched.data, rules, settings, until)
        tags = self.objects.tags(upload) if fetched.tag_count and "tags" in rules.overrides else {}
        description = ""
        if subject.looks is not None and rules.asks_with_description(upload.key, subject.media.kind):
            from captions.media.descriptions import own_description  # loaded by few stacks

            description = own_description(fetched.data)
        return replace(subject, metadata=fetched.metadata, tags=tags, description=description)

    def _fetch(self, upload: ObjectVersion, settings: IntakeSettings) -> Fetched:
        first = SNIFFED_BYTES if upload.size > _largest(limits_of(settings)) else None
        return self.objects.fetch(upload, first=first, replicas=settings.replica_handling == "caption")

    def _decoded(
        self, upload: ObjectVersion, data: bytes, rules: Policy, settings: IntakeSettings, until: float
    ) -> Subject:
        limits = limits_of(settings)
        if upload.size > _largest(limits):
            return Subject(_refused_for_size(upload, data, rules))
        inspected = media.inspect(data, limits, one_large=_held(self.one_large, until))
        if not routes.captioned_at_all(inspected.kind, rules):
            return Subject(inspected)
        if inspected.kind in ("audio", "video"):
            return Subject(inspected, fingerprint_audio(data))
        looks = classify(inspected.picture) if inspected.picture is not None else None
        return Subject(inspected, fingerprint_image(inspected), looks)


def _refused_for_size(upload: ObjectVersion, begin: bytes, rules: Policy) -> media.Sniffed:
    """Return what kind of file it is if that is not captioned anyway; raises MediaError (`too_large`) if it is."""
    try:
        sniffed = media.sniff(begin)
    except media.MediaError as error:
        raise media.MediaError("too_large", f"{upload.size} bytes are more than any kind may have") from error
    if routes.captioned_at_all(sniffed.kind, rules):
        raise media.MediaError("too_large", f"{upload.size} bytes of {sniffed.media_type} are too many")
    return sniffed


def limits_of(settings: IntakeSettings) -> media.Limits:
    """How large media may be."""
    return media.Limits(
        image_bytes=settings.max_image_bytes,
        image_pixels=settings.max_image_pixels,
        audio_bytes=settings.max_audio_bytes,
        video_bytes=settings.max_video_bytes,
    )


def _largest(limits: media.Limits) -> int:
    return max(limits.image_bytes, limits.audio_bytes, limits.video_bytes)


def _soon(places: BoundedSemaphore) -> AbstractContextManager[None]:
    """Hold one of the places; raises NotStartedError where none gets free for longer than a decoding takes."""
    return _held(places, time.monotonic() + LEAST_SECONDS + FREE_WITHIN_SECONDS)


@contextmanager
def _held(places: BoundedSemaphore, until: float) -> Iterator[None]:
    """Hold one of the places; raises NotStartedError as soon as too little time is left for what it is held for."""
    left_s = until - LEAST_SECONDS - time.monotonic()
    if left_s < 0 or not places.acquire(timeout=min(left_s, TIMEOUT_MAX)):
        raise NotStartedError("the time was over before a decoder was free")
    try:
        yield
    finally:
        places.release()
