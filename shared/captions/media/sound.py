"""Sound as a model gets it, and the digest of its content without tags."""

import hashlib
from typing import NamedTuple

from captions.media import containers
from captions.media.errors import MediaError


class AudioPayload(NamedTuple):
    """A sound file for a model: its bytes as they are, the sniffed media type and the short format name of the
    `input_audio` part of the chat completions API ("wav", "mp3", "flac", "ogg", "opus", "m4a", "webm"...).

    `duration_s` is in seconds, None where no header tells it.
    """

    data: bytes
    media_type: str
    format: str
    duration_s: float | None


def audio_payload(data: bytes) -> AudioPayload:
    """Return what a speech model is sent for the sound file `data`.

    Raises MediaError (`empty`, `unsupported`, `broken`, `truncated`) if it is no sound file.
    """
    if not data:
        raise MediaError("empty", "the file is empty (0 bytes)")
    container = containers.identify(data)
    if container is None or container.kind != "audio":
        raise MediaError("unsupported", "the file is no sound file")
    return AudioPayload(containers.with_lengths(data), container.media_type, container.format, container.duration_s)


def payload_digest(data: bytes) -> str | None:
    """Return the SHA-256 (hex) of the sound's or video's content without tags, None where its format has no such view.

    Two files with one digest hold the same encoded sound, whatever their tags say and wherever they are placed.
    """
    container = containers.identify(data)
    if container is None or container.essence is None:
        return None
    digest = hashlib.sha256(f"{container.kind}\0".encode())
    for chunk in container.essence():
        digest.update(chunk)
    return digest.hexdigest()
