"""The worker process that decodes sound and film and recognises speech: English, or with Whisper many languages.

A process of its own for three reasons: pocketsphinx holds the interpreter's lock while it works, a decoder that
crashes on hostile bytes must not take the server along, and a decoder that hangs can be killed. It reads jobs from
standard input and writes answers to standard output, and ends with its input.

A job is a header of eight bytes (kind `a` or `v`, then the length, big endian) and the media's bytes; an answer is a
length of four bytes and JSON: `{"heard": ...}`, `{"seen": ...}` or `{"refused": [code, message]}`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import statistics
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import av
import numpy as np
import pocketsphinx

from captions_cli.local.model_endpoint import whisper
from captions_cli.local.model_endpoint.description import UnreadableMediaError
from captions_cli.local.model_endpoint.whisper import Whisper

NAME = "pocketsphinx"
RATE = 16_000
_BYTES_PER_SAMPLE = 2
# Demuxers that read one file and nothing else: playlists and the like open further files and URLs by themselves.
_CONTAINERS = "wav,w64,mp3,flac,ogg,mov,matroska,webm,aac,amr,asf,avi,aiff,caf,au,mpeg,mpegts,gsm"
_SAFELY = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
# Tags are nobody's concern here, but PyAV reads them on opening and before version 19, which takes any bytes and no
# longer takes this argument, it fails on those that are not UTF-8.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
# Decoding ends when so many packets in all were damaged: a file with a few is still worth hearing.
_DAMAGED_PACKETS = 200
# One utterance of the recogniser: longer ones take long and gain nothing.
_UTTERANCE_S = 15.0
_FRAME = RATE // 50
# A third of the default hypotheses a frame bounds what sounds that are no words cost; fewer still made such sounds
# score like words. The mean of each utterance by itself ("batch"), so that nothing heard before changes what is heard.
_DECODING = {"maxhmmpf": 10_000, "cmn": "batch"}
_MEMORY_BYTES = 3 << 30
_KEY_FRAMES = 4
_FRAME_SIDE = 512
# On English prompts, readings and commands the mean posterior of the words lay between 0.26 and 0.99 and they took at
# most 0.45 s each; on animals' voices and music one of the two was outside. Below the second limit they are doubted.
_POSTERIOR_HEARD, _POSTERIOR_SURE = 0.25, 0.4
_SECONDS_PER_WORD = 0.6


def main(arguments: list[str]) -> int:
    """Answer jobs until standard input ends or the parent is gone."""
    max_seconds = float(arguments[0])
    parent = os.getppid()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # Native libraries print to descriptor 1 when they please; the answers go over a copy of it.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    jobs = sys.stdin.buffer
    ear: type[Recogniser] | type[Whisper] = Whisper if whisper.NAME in arguments[1:] else Recogniser
    recogniser: Recogniser | Whisper | None = None
    while job := _next_job(jobs):
        kind, data = job
        try:
            samples = _samples(data, max_seconds, required=kind == "a")
            heard = None
            if samples is not None:
                recogniser = recogniser or ear()
                heard = {**_measured(samples), **recogniser.hear(samples, parent)}
            answer: dict[str, Any] = {"heard": heard} if kind == "a" else {"seen": _seen(data), "heard": heard}
        except UnreadableMediaError as refused:
            answer = {"refused": [refused.code, refused.message]}
        except MemoryError:
            answer = {"refused": ["media_too_large", "The media needs too much memory to be decoded."]}
        except Exception as error:
            # Not foreseen: most likely a mistake here or in a library. Whoever asked shall read what it was, which a
            # process that just ended would not tell; what the recogniser was left in the middle of is dropped.
            recogniser = None
            message = f"The media could not be decoded: {type(error).__name__}: {error}"
            answer = {"refused": ["decoder_failed", message]}
        encoded = json.dumps(answer).encode()
        answers.write(struct.pack(">I", len(encoded)) + encoded)
    return 0


def _next_job(jobs: BinaryIO) -> tuple[str, bytes] | None:
    header = jobs.read(8)
    if len(header) < 8:
        return None
    length = int.from_bytes(header[1:], "big")
    data = jobs.read(length)
    return (chr(header[0]), data) if len(data) == length else None


def _open(data: bytes) -> Any:
    try:
        return av.open(io.BytesIO(data), container_options=_SAFELY, **_ANY_TAGS)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UnreadableMediaError(
            "invalid_media", "The media could not be decoded; its container is not known."
        ) from error


def _samples(data: bytes, max_seconds: float, *, required: bool) -> bytes | None:
    """Return the sound as 16-bit mono samples at `RATE`; None if there is none and none is `required`."""
    with _open(data) as container:
        if not container.streams.audio:
            if required:
                raise UnreadableMediaError("invalid_audio", "The media holds no sound.")
            return None
        pieces: list[bytes] = []
        size = 0
        for piece in _resampled(container):
            pieces.append(piece)
            size += len(piece)
            if size > max_seconds * RATE * _BYTES_PER_SAMPLE:
                message = f"The audio is longer than {max_seconds:g} seconds, the most this server takes."
                raise UnreadableMediaError("audio_too_long", message)
    if not size and required:
        raise UnreadableMediaError("invalid_audio", "The media holds no sound that can be decoded.")
    return b"".join(pieces)


def _resampled(container: Any) -> Iterator[bytes]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    damaged = 0
    packets = container.demux(audio=0)
    while damaged < _DAMAGED_PACKETS:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                for out in resampler.resample(frame):
                    yield out.to_ndarray().tobytes()
        except (av.error.FFmpegError, ValueError):
            damaged += 1
    with contextlib.suppress(av.error.FFmpegError, ValueError):
        for out in resampler.resample(None):
            yield out.to_ndarray().tobytes()


class Recogniser:
    """English speech recognition with the model the pocketsphinx wheel carries (US English)."""

    def __init__(self) -> None:
        self._decoder = pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL", **_DECODING)

    def hear(self, samples: bytes, parent: int | None = None) -> dict[str, Any]:
        """Return `model`, `only_english`, `language`, `confidence` (None without words), `sure` and `segments`."""
        segments: list[dict[str, Any]] = []
        posteriors: list[float] = []
        spoken = 0.0
        for start, end, utterance in _utterances(samples):
            if parent is not None and os.getppid() != parent:
                sys.exit(0)  # Nobody waits any more.
            words = self._words(utterance)
            if not words:
                continue
            posteriors.extend(posterior for _, posterior, _ in words)
            spoken += sum(seconds for _, _, seconds in words)
            segments.append({"start": start, "end": end, "text": " ".join(word for word, _, _ in words)})
        confidence = statistics.fmean(posteriors) if posteriors else None
        if confidence is None or confidence < _POSTERIOR_HEARD or spoken > _SECONDS_PER_WORD * len(posteriors):
            segments = []
        return {
            "model": NAME,
            "only_english": True,
            "language": "en" if segments else "und",
            "confidence": None if confidence is None else round(confidence, 3),
            "sure": confidence is not None and confidence >= _POSTERIOR_SURE,
            "segments": segments,
        }

    def _words(self, utterance: bytes) -> list[tuple[str, float, float]]:
        """Return the words of one utterance with their posterior probability and their seconds."""
        decoder = self._decoder
        decoder.start_utt()
        # The whole utterance at once: its mean can be normalised, which live decoding cannot.
        decoder.process_raw(utterance, full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return []
        words = []
        for part in decoder.seg():
            if part.word[0] in "<[+":
                continue
            seconds = (part.end_frame - part.start_frame + 1) / 100
            words.append((part.word.partition("(")[0], float(part.prob), seconds))
        return words


def _utterances(samples: bytes) -> Iterator[tuple[float, float, bytes]]:
    """Cut sound where nobody speaks: start and end in seconds, and the samples."""
    # The end of speech is only noticed in the silence after it, so some is added.
    stream = io.BytesIO(samples + bytes(RATE * _BYTES_PER_SAMPLE))
    duration = len(samples) / RATE / _BYTES_PER_SAMPLE
    for speech in pocketsphinx.Segmenter(sample_rate=RATE).segment(stream):
        start = float(speech.start_time)
        for piece in _short_enough(speech.pcm):
            seconds = len(piece) / RATE / _BYTES_PER_SAMPLE
            yield round(start, 2), round(min(start + seconds, duration), 2), piece
            start += seconds


def _short_enough(pcm: bytes) -> Iterator[bytes]:
    """Cut speech without a pause at its quietest places."""
    longest = int(_UTTERANCE_S * RATE)
    while len(pcm) > longest * _BYTES_PER_SAMPLE:
        window = np.frombuffer(pcm, dtype=np.int16, count=longest).astype(np.float32)
        energy = (window[: longest // _FRAME * _FRAME].reshape(-1, _FRAME) ** 2).mean(axis=1)
        later = len(energy) // 2
        cut = (later + int(energy[later:].argmin())) * _FRAME * _BYTES_PER_SAMPLE
        yield pcm[:cut]
        pcm = pcm[cut:]
    yield pcm


def _measured(samples: bytes) -> dict[str, float]:
    duration = len(samples) / RATE / _BYTES_PER_SAMPLE
    return {"duration_s": round(duration, 3), "loudness_dbfs": round(_loudness(samples), 1)}


def _loudness(samples: bytes) -> float:
    """Return the root mean square level in decibels below full scale; -90 for silence."""
    values = np.frombuffer(samples, dtype=np.int16).astype(np.float32)
    if not values.size:
        return -90.0
    return float(max(-90.0, 20 * np.log10(max(1e-9, np.sqrt(np.square(values).mean()) / 32768))))


def _seen(data: bytes) -> dict[str, Any]:
    """Return a film's size, length and the facts of a few of its frames."""
    from captions_cli.local.model_endpoint import measuring

    with _open(data) as container:
        if not container.streams.video:
            raise UnreadableMediaError("invalid_video", "The media holds no pictures.")
        stream = container.streams.video[0]
        duration = float(container.duration / av.time_base) if container.duration else None
        moments = [duration * (place + 0.5) / _KEY_FRAMES for place in range(_KEY_FRAMES)] if duration else [0.0]
        frames = []
        for moment in moments:
            frame = _frame_at(container, stream, moment if len(moments) > 1 else None)
            if frame is None:
                continue
            image = frame.to_image()
            image.thumbnail((_FRAME_SIDE, _FRAME_SIDE))
            facts = measuring.measure_image(image, size=(frame.width, frame.height))
            frames.append({"at_s": round(frame.time or 0.0, 2), "facts": asdict(facts)})
        if not frames:
            raise UnreadableMediaError("invalid_video", "No frame of the video could be decoded.")
    return {"duration_s": duration, "frames": frames}


def _frame_at(container: Any, stream: Any, moment: float | None) -> Any:
    try:
        if moment is not None:
            container.seek(int(moment * av.time_base), backward=True)
        for frame in container.decode(stream):
            if moment is None or frame.time is None or frame.time >= moment - 0.5:
                return frame
    except (av.error.FFmpegError, ValueError):
        return None
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
