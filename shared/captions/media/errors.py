"""Why a file is not taken, and the sizes up to which it is."""

from typing import Literal, NamedTuple

MediaErrorCode = Literal["empty", "unsupported", "broken", "truncated", "too_large", "bomb"]


class MediaError(Exception):
    """A file that will not be captioned; `code` is for programs, `message` for the person who uploaded it."""

    def __init__(self, code: MediaErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: MediaErrorCode = code
        self.message = message


class Limits(NamedTuple):
    """The largest files taken: bytes per kind, and pixels (width times height) of one picture.

    50 megapixels hold every phone's and nearly every camera's picture.
    """

    image_bytes: int = 40_000_000
    image_pixels: int = 50_000_000
    audio_bytes: int = 100_000_000
    video_bytes: int = 500_000_000


DEFAULT_LIMITS = Limits()
