"""Long and odd recordings: cut where nobody speaks, encoded again for models that do not take them as they are, and the
key frames of video.

FFmpeg does the work (`captions.media.decoding`) in a process of its own with limits of memory and processor time
(`captions.media.decoder`), since its files come from anybody. Nothing here decodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from threading import Lock
from types import TracebackType
from typing import Any, Self

from captions.media import containers
from captions.media.decoder import DecoderKilled, DecoderProcess
from captions.media.errors import MediaError

RATE = 16_000
"""Samples a second of every part: what speech models are trained on (Whisper, Qwen-Omni: 16 kHz, mono)."""
SILENCE = 1e-6
"""Mean square of samples between -1 and 1 (-60 dBFS) below which nothing is heard."""
TOTAL_S = 4 * 3_600.0
"""How long a recording may play at the most."""
WORK_S = 200.0
"""Seconds of processor time that decoding one recording may take; four hours of sound take about a third of it."""

MAX_PIXELS = 36_000_000
"""Of a frame of video: 8K (7,680 x 4,320) has 33 million."""
MAX_KEPT_PIXELS = 214_000_000
"""Of a frame times the frames that a decoder has to keep: what H.265 allows at its highest levels (table A.8: six
pictures of 35,651,584), some 320 MB; H.264 allows 178 million (table A-1). A file that asks for more is made to fill
the memory. VP9 and AV1 keep up to eight without saying so: where those may be more, their key frames are enough."""
_SOUND_MEMORY = 128_000_000
_FRAMES_MEMORY = 448_000_000
"""Bytes of addresses that decoding may take beyond what the process has with its libraries loaded: for sound besides
what a part takes; for pictures what videos of 8K were seen to take (330 to 416 MB)."""
_one_at_a_time = Lock()
"""Held while pictures of a video are decoded: two at once would fill the function's memory."""


@dataclass(frozen=True)
class Encoding:
    """How parts are encoded: FFmpeg's names of container and codec, and the bytes a second of sound takes at most.

    `effort` is the codec's `compression_level`: how much time it takes over the same bytes.
    """

    media_type: str
    container: str
    codec: str
    bytes_per_s: float
    bit_rate: int | None = None
    effort: str | None = None


ENCODINGS = (
    Encoding("audio/mpeg", "mp3", "libmp3lame", 4_000.0, 32_000, "7"),
    Encoding("audio/ogg", "ogg", "libopus", 4_000.0, 24_000, "3"),
    Encoding("audio/flac", "flac", "flac", 33_000.0),
    Encoding("audio/wav", "wav", "pcm_s16le", 32_000.0),
)
"""In order of preference: what is small, so that parts may be long, and taken nearly everywhere, comes first."""

_HEADER_BYTES = 4_096
_FRAME_BYTES = 65_536
_SAMPLE_BYTES = 2
_MOST_PARTS = 1_000_000


def encoding_for(accepts: Callable[[str], bool]) -> Encoding | None:
    """Return the first encoding whose media type is accepted; None if none is."""
    return next((encoding for encoding in ENCODINGS if accepts(encoding.media_type)), None)


def longest_part(encoding: Encoding, *, max_bytes: int, longest_s: float | None = None) -> float:
    """Return the seconds a part may play so that it has at most `max_bytes` and plays for at most `longest_s`."""
    seconds = max(1.0, (max_bytes - _HEADER_BYTES) / encoding.bytes_per_s)
    return seconds if longest_s is None else min(seconds, longest_s)


@dataclass(frozen=True)
class Part:
    """A stretch of a recording, from `start_s` to `end_s` seconds; parts follow each other without gap or overlap.

    `data` is None where the part was not wanted. `silent` says that nothing in it is louder than -60 dBFS. `pause_db`
    is how far the tenth of a second around its end lies below the loud places (the 90th percentile): it is small where
    somebody speaks all the time, and None at the end of the recording.
    """

    index: int
    start_s: float
    end_s: float
    media_type: str
    data: bytes | None = field(repr=False)
    silent: bool = False
    pause_db: float | None = None


@dataclass(frozen=True)
class Facts:
    """What a container says of itself: seconds (None: unknown), and whether it holds sound and moving pictures."""

    duration_s: float | None
    sound: bool
    pictures: bool
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class KeyFrame:
    """One picture of a video, as JPEG, with the second it is shown at."""

    at_s: float
    data: bytes = field(repr=False)
    width: int
    height: int


class Decoder:
    """Decodes one recording or video in a process of its own. For one thread at a time; `close` it, or use `with`.

    Every method raises:
        MediaError: `broken` (no container, sound or picture can be made out), `bomb` (decoding takes more memory or
            processor time than is allowed, or crashes the decoder), or what is said there.
        TimeoutError: `until`, a value of time.monotonic(), has passed.
        DecoderStopped: the process was stopped from outside; try again later.
    """

    def __init__(self, data: bytes) -> None:
        self._process = DecoderProcess(containers.with_lengths(data))
        self._facts: Facts | None = None
        self._killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def facts(self, *, until: float = math.inf) -> Facts:
        """Return what the recording holds, without decoding more of it than its headers."""
        if self._facts is None:
            self._facts = Facts(**self._ask({"request": "facts", "memory": _SOUND_MEMORY}, until=until)[0])
        return self._facts

    def heard_alike(self, *, work_s: float = WORK_S, until: float = math.inf) -> bool:
        """Tell whether whoever mixes the recording's channels hears all that people hear in it.

        They do not where channels cancel each other out, or have no usual places, or where one recording stands behind
        another in the file.
        """
        request = {"request": "heard_alike", "memory": _SOUND_MEMORY, "work_s": work_s}
        return bool(self._ask(request, until=until)[0]["alike"])

    def key_frames(
        self,
        count: int,
        *,
        longest_side: int = 768,
        max_pixels: int = MAX_PIXELS,
        max_kept_pixels: int = MAX_KEPT_PIXELS,
        work_s: float = 60.0,
        until: float = math.inf,
    ) -> list[KeyFrame]:
        """Return at most `count` pictures of a video, in order: those of evenly spread moments that differ most.

        A moment that shows nothing (a black frame) is left out if others show something, and so is one that looks like
        one already taken, so that a still picture gives one frame.

        Args:
            count: pictures at the most.
            longest_side: pixels of a picture's longest side.
            max_pixels: pixels a frame may have.
            max_kept_pixels: pixels a decoder may be made to keep.
            work_s: seconds of processor time that decoding may take before the first picture.
            until: a value of time.monotonic() at which to stop.
        """
        request = {
            "request": "key_frames",
            "memory": _FRAMES_MEMORY,
            "count": count,
            "longest_side": longest_side,
            "max_pixels": max_pixels,
            "max_kept_pixels": max_kept_pixels,
            "work_s": work_s,
        }
        if not _one_at_a_time.acquire(timeout=-1 if math.isinf(until) else max(0.0, until - time.monotonic())):
            raise TimeoutError("the time for decoding the video passed while another one was decoded")
        try:
            reply, data = self._ask(request, most=count * (_FRAME_BYTES + 3 * longest_side**2), until=until)
        finally:
            _one_at_a_time.release()
        frames, start = [], 0
        for frame in reply["frames"]:
            end = start + frame["data"]
            frames.append(KeyFrame(**{**frame, "data": data[start:end]}))
            start = end
        return frames

    def cut(
        self,
        encoding: Encoding,
        *,
        longest_s: float,
        wanted: Callable[[int], bool] = lambda index: True,
        total_s: float = TOTAL_S,
        work_s: float = WORK_S,
        until: float = math.inf,
    ) -> Iterator[Part]:
        """Yield the sound of the recording (or of a video) in parts of at most `longest_s` seconds, mono at 16 kHz.

        Parts are about equally long. Each ends in the middle of the quietest half second of the stretch in which it may
        end (between 0.75 and 1.25 times the length aimed at), which in speech is a pause: no word is split, lost or
        doubled there. In sound without any pause it is the quietest place all the same. The same bytes and limits give
        the same parts. One part of samples (32 KB a second) is held at a time, and decoded when it is asked for.

        Args:
            encoding: how the parts are encoded.
            longest_s: seconds a part may play.
            wanted: tells by its number whether a part is to be encoded at all.
            total_s: seconds the recording may play; beyond, MediaError `too_large`.
            work_s: seconds of processor time that decoding may take.
            until: a value of time.monotonic() at which to stop.
        """
        begin = {
            "request": "cut",
            "memory": _SOUND_MEMORY + 4 * int(max(1.0, longest_s) * RATE * _SAMPLE_BYTES),
            "encoding": asdict(encoding),
            "longest_s": longest_s,
            "total_s": total_s,
            "work_s": work_s,
        }
        most = 2 * _HEADER_BYTES + int(max(1.0, longest_s) * 1.1 * encoding.bytes_per_s)
        given = 0
        while True:
            try:
                self._once(begin, until=until)
                for index in range(_MOST_PARTS):
                    known = index < given  # by the process before this one, which was killed
                    asked = {"request": "part", "wanted": not known and wanted(index)}
                    reply, data = self._once(asked, most=most, until=until)
                    if (part := reply["part"]) is None:
                        return
                    if not known:
                        given += 1
                        yield Part(**{**part, "data": None if part["data"] is None else data})
                return
            except DecoderKilled:
                self._again()

    def _ask(self, request: Mapping[str, Any], *, most: int = 0, until: float) -> tuple[dict[str, Any], bytes]:
        while True:
            try:
                return self._once(request, most=most, until=until)
            except DecoderKilled:
                self._again()

    def _once(self, request: Mapping[str, Any], *, most: int = 0, until: float) -> tuple[dict[str, Any], bytes]:
        left = {} if request["request"] == "part" or math.isinf(until) else {"left_s": until - time.monotonic()}
        reply, data = self._process.ask({**request, **left}, most=most, until=until)
        return {name: value for name, value in reply.items() if name != "bytes"}, data

    def _again(self) -> None:
        """Start over once: the system may have taken the memory for another file's sake."""
        if self._killed:
            raise MediaError("bomb", "decoding the recording was ended by the system twice: it takes too much memory")
        self._killed = True
        self._process.restart()


def facts(data: bytes) -> Facts:
    """Return what a recording holds, as `Decoder.facts` does."""
    with Decoder(data) as decoder:
        return decoder.facts()


def cut(data: bytes, encoding: Encoding, *, longest_s: float, **limits: Any) -> Iterator[Part]:
    """Yield the sound of a recording in parts, as `Decoder.cut` does."""
    with Decoder(data) as decoder:
        yield from decoder.cut(encoding, longest_s=longest_s, **limits)


def key_frames(data: bytes, count: int, **limits: Any) -> list[KeyFrame]:
    """Return at most `count` pictures of a video, as `Decoder.key_frames` does."""
    with Decoder(data) as decoder:
        return decoder.key_frames(count, **limits)
