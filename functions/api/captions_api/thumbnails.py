"""Small pictures for lists: made when first asked for, and kept in the API's own table; a video's is in its record."""

from __future__ import annotations

from threading import BoundedSemaphore

from captions import media
from captions.records.record import Record
from captions.uploads.s3_objects import GoneError, UnreadableError
from captions_api import views
from captions_api.problems import Refusal, not_there
from captions_api.services import Services

SIDE = 480
"""Pixels on the longer side: sharp on a dense screen at 240."""
MOST_BYTES = 120_000
DECODERS = 2
"""Pictures decoded at the same time; it is memory, not time, that sets this."""

_decoders = BoundedSemaphore(DECODERS)


def thumbnail(stack: Services, record: Record) -> bytes:
    """Return a record's thumbnail as WebP.

    Raises Refusal: 404 where it can have none, 503 while others are being made.
    """
    if views.thumbnail_of(record) is None:
        raise not_there()
    if record.poster is not None:
        return record.poster
    kept = stack.own.thumbnail(record.asset, record.sequencer)
    if kept is not None:
        return kept
    if not _decoders.acquire(timeout=10):
        raise Refusal(503, "busy", "too many pictures are being made small", headers={"Retry-After": "2"})
    try:
        data = stack.objects.read(record.upload)
        limits = media.Limits(image_pixels=stack.settings.max_image_pixels)
        picture, _ = media.model_copy(
            data, max_side=SIDE, max_bytes=MOST_BYTES, media_types=("image/webp",), limits=limits
        )
    except (GoneError, UnreadableError, media.MediaError) as error:
        raise Refusal(404, "no-picture", "its picture cannot be read") from error
    finally:
        _decoders.release()
    stack.own.keep_thumbnail(record.asset, record.sequencer, picture)
    return picture
