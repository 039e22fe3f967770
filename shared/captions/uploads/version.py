"""What happened to an object, and which of two happenings is the later one.

S3 gives each change of a key a sequencer: hexadecimal text that grows, of differing length. Two are compared after
padding the shorter with zeros on the right (Amazon S3 user guide, "Event message structure").
"""

import hashlib
import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

SEQUENCER_WIDTH = 64
"""Digits a stored sequencer is padded to; S3's own have 16 to 18."""

Sequencer = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{64}$")]


BEFORE_ITS_EVENT = "0" * 24
"""What a sequencer begins with that is none of S3's: of a version that was taken before its event came. S3's own are
shorter, and older than every one of them."""


def taken_before_its_event() -> Sequencer:
    """Return a sequencer for a version whose event has not come yet; every event of the object is later."""
    return BEFORE_ITS_EVENT + secrets.token_hex(20).upper()


def pad_sequencer(sequencer: str | None) -> str:
    """Return the sequencer as it is stored and compared: upper case, zeros on the right, SEQUENCER_WIDTH digits.

    An event without one counts as older than every event that has one.
    """
    return (sequencer or "").upper().ljust(SEQUENCER_WIDTH, "0")


class ObjectVersion(BaseModel):
    """One version of one object, as far as an event told."""

    model_config = ConfigDict(frozen=True)

    bucket: str = Field(min_length=1)
    key: str = Field(min_length=1)
    version_id: str | None = None
    sequencer: Sequencer
    etag: str = ""
    size: int = Field(default=0, ge=0)

    @property
    def asset(self) -> str:
        """The object's name in the captions table."""
        return f"{self.bucket}/{self.key}"

    @property
    def digest(self) -> str:
        """What names this one version of the object: 32 hexadecimal digits, which no other version has."""
        named = "\0".join((self.asset, self.version_id or "", self.sequencer))
        return hashlib.sha256(named.encode()).hexdigest()[:32]


class Upload(ObjectVersion):
    """An object was written."""

    lane: Literal["bulk"] | None = None
    """`bulk`: nobody waits for its caption, which may come from a batch. S3's own events say nothing of it."""


class Deletion(ObjectVersion):
    """An object, or one of its versions, was removed."""

    permanent: bool
    """The version itself is gone; otherwise a delete marker now hides the object."""


class Restored(ObjectVersion):
    """An archived object can be read again for a while. S3 gives such an event no sequencer: nothing was written."""


class Ignored(BaseModel):
    """A well-formed message that asks for nothing: S3's test event, or one about what the pipeline wrote itself."""

    reason: str


class UnreadableEventError(ValueError):
    """A message that is none of the events this pipeline knows."""


def _detail(*path: str, default: Any = ...) -> Any:
    return Field(default, validation_alias=AliasPath("detail", *path))


class _S3Event(BaseModel):
    """An S3 event as EventBridge delivers it; its key is raw, not URL-encoded.

    Powertools has classes for it too: its data class un-quotes the raw key, which turns `a+b.jpg` into `a b.jpg`, and
    its parser models cost dedupe's cold start a quarter of a second.
    """

    source: Literal["aws.s3"]
    detail_type: Literal["Object Created", "Object Deleted", "Object Restore Completed"] = Field(alias="detail-type")
    time: datetime
    bucket: str = _detail("bucket", "name")
    key: str = _detail("object", "key")
    version_id: str | None = _detail("object", "version-id", default=None)
    sequencer: str | None = _detail("object", "sequencer", default=None)
    etag: str = _detail("object", "etag", default="")
    size: int = _detail("object", "size", default=0)
    deletion_type: str | None = _detail("deletion-type", default=None)
    lane: Literal["bulk"] | None = _detail("lane", default=None)


WRITTEN_BACK = (".caption.json", ".caption.xmp", ".caption.vtt", ".caption.srt")
"""Ends of the keys that the pipeline writes beside objects, and never looks at."""
COPIES_WRITTEN_BACK = (".caption.jpg", ".caption.png", ".caption.webp", ".caption.tif", ".caption.gif")
"""How the keys of copies end that have their caption inside."""


def is_written_back(key: str) -> bool:
    """Whether a key is of what the pipeline writes itself, so that no caption is made of a caption."""
    return key.endswith((*WRITTEN_BACK, *COPIES_WRITTEN_BACK))


def from_event(event: Any) -> Upload | Deletion | Restored | Ignored:
    """Read one event of the uploads queue.

    Raises UnreadableEventError for anything but S3's events "Object Created", "Object Deleted" and "Object Restore
    Completed" and its test event.
    """
    if isinstance(event, dict) and event.get("Event") == "s3:TestEvent":
        return Ignored(reason="s3:TestEvent")
    try:
        parsed = _S3Event.model_validate(event)
        if is_written_back(parsed.key):
            return Ignored(reason="written back")
        version = {
            "bucket": parsed.bucket,
            "key": parsed.key,
            # Buckets that were never versioned give no id, or the literal "null".
            "version_id": None if parsed.version_id in (None, "", "null") else parsed.version_id,
            "sequencer": pad_sequencer(parsed.sequencer),
            "etag": parsed.etag.strip('"'),
            "size": parsed.size,
        }
        if parsed.detail_type == "Object Created":
            return Upload.model_validate({**version, "lane": parsed.lane})
        if parsed.detail_type == "Object Restore Completed":
            return Restored.model_validate(version)
        return Deletion.model_validate({**version, "permanent": parsed.deletion_type != "Delete Marker Created"})
    except ValidationError as error:
        raise UnreadableEventError(f"not an S3 event: {error.error_count()} fields are missing or wrong") from error
