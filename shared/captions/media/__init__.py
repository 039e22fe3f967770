"""What an uploaded file really is: its kind, told from its bytes, and the copies of it that a model can take.

`sniff` reads headers only. `inspect` also proves that a picture decodes, once, at the size the fingerprint needs.
Nothing here trusts a name, an extension or a declared content type.
"""

from captions.media.errors import DEFAULT_LIMITS, Limits, MediaError
from captions.media.inspection import Inspected, inspect, sniff
from captions.media.pictures import (
    LARGE_SIDE,
    PHONE_SIDE,
    Picture,
    model_copy,
    picture_payload_digest,
    stored,
    upright,
)
from captions.media.sniffing import Kind, Sniffed
from captions.media.sound import AudioPayload, audio_payload, payload_digest

__all__ = [
    "DEFAULT_LIMITS",
    "LARGE_SIDE",
    "PHONE_SIDE",
    "AudioPayload",
    "Inspected",
    "Kind",
    "Limits",
    "MediaError",
    "Picture",
    "Sniffed",
    "audio_payload",
    "inspect",
    "model_copy",
    "payload_digest",
    "picture_payload_digest",
    "sniff",
    "stored",
    "upright",
]
