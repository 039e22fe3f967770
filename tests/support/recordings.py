"""Sound and video made from the test media: joined, silent, in other formats, and read back as samples."""

import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from captions.media.recordings import RATE
from support.pipeline import MEDIA as DEMO

AUDIO = Path(__file__).parents[1] / "media" / "audio"
SENTENCE = (AUDIO / "LJ001-0005.mp3").read_bytes()
PHRASE = (AUDIO / "LJ001-0002.wav").read_bytes()
READING = (AUDIO / "librivox_sonnet_1.mp3").read_bytes()
VIDEO = (DEMO / "rabbit.webm").read_bytes()

BLACK = (0, 0, 0)

Samples = NDArray[np.int16]


def samples(data: bytes) -> Samples:
    """Decode a sound to mono samples at the rate of parts."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    pieces: list[Samples] = []
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(audio=0):
            pieces += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
        pieces += [out.to_ndarray().reshape(-1) for out in resampler.resample(None)]
    return np.concatenate(pieces)


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * RATE), dtype=np.int16)


def encoded(sound: Samples, container: str = "wav", codec: str = "pcm_s16le", rate: int = RATE) -> bytes:
    """Encode samples, as `ffmpeg -c:a codec -ar rate -f container` does."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 64_000
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        for at in range(0, len(sound), RATE):
            frame = av.AudioFrame.from_ndarray(sound[at : at + RATE].reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            for out in resampler.resample(frame):
                output.mux(stream.encode(out))
        for out in resampler.resample(None):
            output.mux(stream.encode(out))
        output.mux(stream.encode(None))
    return file.getvalue()


def recorded(*channels: NDArray[Any], rate: int = RATE) -> bytes:
    """A WAV file of channels, which does not tell where they are heard."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setparams((len(channels), 2, rate, 0, "NONE", ""))
        output.writeframes(np.stack(channels, axis=1).astype("<i2").tobytes())
    return file.getvalue()


def spoken(*pieces: bytes, pauses: float = 1.0) -> Samples:
    """Join sounds with silence between them."""
    joined: list[Samples] = []
    for piece in pieces:
        joined += [samples(piece), silence(pauses)]
    return np.concatenate(joined[:-1])


def film(
    colours: Sequence[tuple[int, int, int]],
    *,
    seconds_each: float = 1.0,
    sound: Samples | None = None,
    size: tuple[int, int] = (320, 180),
    container: str = "mp4",
    codec: str = "mpeg4",
    fps: int = 10,
) -> bytes:
    """A video that shows a pattern in one colour after the other (nothing for black), with a sound."""
    file = io.BytesIO()
    width, height = size
    with av.open(file, "w", format=container) as output:
        video = output.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        waves = np.atleast_2d(silence(len(colours) * seconds_each) if sound is None else sound)
        layout = "mono" if len(waves) == 1 else "stereo"
        audio = output.add_stream("aac" if container != "webm" else "libopus", rate=RATE, layout=layout)
        for place, colour in enumerate(colours):
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            if colour != BLACK:
                left, right = width * place // len(colours), width * (place + 1) // len(colours)
                picture[height // 4 : height // 2, left:right] = 255
                picture[height // 2 :] = colour
            for number in range(int(seconds_each * fps)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = int(place * seconds_each * fps) + number
                output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for at in range(0, waves.shape[1], RATE):
            packed = np.ascontiguousarray(waves[:, at : at + RATE].T).reshape(1, -1)
            piece = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            piece.sample_rate, piece.pts = RATE, at
            output.mux(audio.encode(piece))
        output.mux(audio.encode(None))
    return file.getvalue()
