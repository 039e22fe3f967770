"""From bytes to what the file is, and to the proof that it can be read."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

from PIL import Image

from captions.media.errors import DEFAULT_LIMITS, Limits, MediaError
from captions.media.pictures import Picture, decode, one_at_a_time, open_picture
from captions.media.sniffing import Sniffed, signature


@dataclass(frozen=True)
class Inspected(Sniffed):
    """What `sniff` tells, the bytes, and for pictures the decoded picture that the fingerprint is computed from."""

    data: bytes = b""
    picture: Picture | None = None


def sniff(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Sniffed:
    """Return what `data` is, from its bytes alone: kind, media type, size, frames, duration. Decodes nothing.

    Raises MediaError: `empty`; `unsupported` for a type that is not captioned (the message names it) or not known;
    `broken`, `truncated` or `bomb` where the headers say so.
    """
    sniffed = signature(data)
    if sniffed.format is None:
        return sniffed
    return open_picture(data, sniffed, limits)[1]


def opened(data: bytes, limits: Limits) -> tuple[Image.Image, Sniffed]:
    """Open a picture, not yet decoded. Raises MediaError as `sniff` does, and `unsupported` if it is no picture."""
    sniffed = signature(data)
    if sniffed.format is None:
        raise MediaError("unsupported", "the file is no picture")
    return open_picture(data, sniffed, limits)


def inspect(
    data: bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    one_large: AbstractContextManager[object] | None = None,
    finely: bool = False,
) -> Inspected:
    """Return what `data` is and prove that it can be read: a picture is decoded once, at the fingerprint's size.

    `one_large` (by default the process's own lock) is held while a picture of more than LARGE_PIXELS is decoded, so
    that threads do not do so at the same time. `finely` has a large picture decoded finer than its fingerprint needs,
    for evidence that is compared with that of a reduced copy (fingerprint.decided_finely).

    Sound and video are checked as far as their containers tell. Raises MediaError with the code and the reason: as
    `sniff` does, `too_large` for more bytes than `limits` allow, and what only decoding finds.
    """
    sniffed = signature(data)
    allowed = {"audio": limits.audio_bytes, "video": limits.video_bytes}.get(sniffed.kind, limits.image_bytes)
    if len(data) > allowed:
        raise MediaError(
            "too_large",
            f"the file is {len(data) / 1e6:.1f} MB long; at most {allowed / 1e6:g} MB of this kind are taken",
        )
    picture = None
    if sniffed.format is not None:
        image, sniffed = open_picture(data, sniffed, limits)
        with one_at_a_time(sniffed, one_large):
            picture = decode(image, data, sniffed, finely=finely)
    return Inspected(
        **{field.name: getattr(sniffed, field.name) for field in fields(sniffed)}, data=data, picture=picture
    )
