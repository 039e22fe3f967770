"""Nothing that people hear in one of a recording's channels is lost when they become one."""

import io
import math
import tempfile
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from captions.media import MediaError, containers, decoding, payload_digest, recordings
from captions.media.decoder_child import MediaFile
from captions.media.recordings import RATE
from support.recordings import PHRASE, recorded, samples

pytestmark = pytest.mark.deep

Wave = NDArray[np.int16]
LIMITS: dict[str, Any] = {"work_s": 60, "until": math.inf}
WORDS = samples(PHRASE)
SPEECH = WORDS // 2
NONE = np.zeros_like(SPEECH)


def coded(layout: str, codec: str, container: str, *channels: NDArray[Any], rate: int = RATE) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        packed = np.stack(channels, axis=1).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = rate
        fifo, at = av.AudioFifo(), 0
        for piece in av.AudioResampler(format=stream.format, layout=layout, rate=rate).resample(frame):
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1_024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            piece.pts, at = at, at + piece.samples
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def tracks(container: str, codec: str, *sounds: Wave | None) -> bytes:
    """A file with a track for each sound at 48 kHz, of which those of None stay empty."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        streams = [output.add_stream(codec, rate=48_000, layout="mono") for _ in sounds]
        packets: list[av.Packet] = []
        for stream, sound in zip(streams, sounds, strict=True):
            stream.codec_context.open()
            if sound is None:
                continue
            frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate = RATE
            fifo, at = av.AudioFifo(), 0
            for piece in av.AudioResampler(format=stream.format, layout="mono", rate=48_000).resample(frame):
                fifo.write(piece)
            while (piece := fifo.read(stream.codec_context.frame_size, partial=True)) is not None:
                piece.pts, piece.time_base, at = at, Fraction(1, 48_000), at + piece.samples
                packets += stream.encode(piece)
        for packet in sorted(packets, key=lambda packet: packet.pts or 0):
            output.mux(packet)
    return file.getvalue()


class Opened:
    """A recording as the decoder's process has it, in this one, as starting another takes longer."""

    def __init__(self, data: bytes) -> None:
        self._kept = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._kept.write(containers.with_lengths(data))
        self._kept.flush()
        self.file = MediaFile(self._kept.name)

    def __enter__(self) -> MediaFile:
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._kept.close()


def heard(data: bytes) -> Wave:
    with Opened(data) as file:
        (part,) = decoding.cut(
            file, recordings.ENCODINGS[3], wanted=lambda _: True, longest_s=600, total_s=600, **LIMITS
        )
    assert part.data is not None
    sound = np.frombuffer(part.data, "<i2", offset=part.data.index(b"data") + 8)
    assert part.silent == bool((np.abs(sound) < 20).all())
    return sound


def heard_alike(data: bytes) -> bool:
    with Opened(data) as file:
        return decoding.heard_alike(file, **LIMITS)


def likeness(sound: Wave, other: Wave) -> float:
    """How far two sounds hold the same, whichever is louder, from 0 to 1."""
    length = min(len(sound), len(other))
    if not sound[:length].any():
        return 0.0
    return float(abs(np.corrcoef(sound[:length], other[:length])[0, 1]))


def level(sound: Wave) -> float:
    """Return how loud a sound is, in decibels."""
    return 10 * math.log10(float(np.square(sound.astype(float)).mean()) + 1e-3)


RANDOM = np.random.default_rng(1)
NOISE = RANDOM.normal(size=(2, len(SPEECH))) * 20
HUM = 1_500 * np.sin(2 * np.pi * 50 * np.arange(len(SPEECH)) / RATE)
OPPOSITE = {
    "exactly": (SPEECH, -SPEECH),
    "softer": (SPEECH, -0.8 * SPEECH),
    "loud in the second": (-0.9 * SPEECH, SPEECH),
    "with noise of each": (SPEECH + NOISE[0], -SPEECH + NOISE[1]),
    "with an offset": (SPEECH + 300, -SPEECH + 300),
    "with a hum that is not": (SPEECH + HUM, -SPEECH + HUM),
}  # fmt: skip


@pytest.mark.parametrize("pair", OPPOSITE.values(), ids=OPPOSITE)
def test_channels_of_opposite_phase_do_not_cancel_each_other_out(pair: tuple[Wave, Wave]) -> None:
    data = recorded(*pair)

    assert max(likeness(heard(data), channel) for channel in pair) > 0.999
    assert level(heard(data)) == pytest.approx(max(level(channel) for channel in pair), abs=0.5)
    assert not heard_alike(data)


@pytest.mark.parametrize(
    ("layout", "codec", "container", "rate"),
    [
        ("stereo", "libmp3lame", "mp3", 44_100),
        ("stereo", "aac", "mp4", 48_000),
        ("stereo", "libopus", "ogg", 48_000),
        ("stereo", "flac", "flac", 8_000),
        ("stereo", "pcm_u8", "wav", RATE),
        ("stereo", "pcm_f64le", "wav", 96_000),
        ("5.1", "aac", "mp4", 48_000),
        ("7.1", "aac", "mp4", 48_000),
    ],
)
def test_opposite_phase_is_found_in_whatever_codec(layout: str, codec: str, container: str, rate: int) -> None:
    tone = 6_000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    count = av.AudioLayout(layout).nb_channels
    data = coded(layout, codec, container, tone, -tone, *[0 * tone] * (count - 2), rate=rate)

    assert level(heard(data)) == pytest.approx(level(tone), abs=1.5)
    assert not heard_alike(data)


@pytest.mark.parametrize("order", [1, -1], ids=["first", "then"])
def test_a_recording_that_is_opposite_for_a_while_is_heard_all_along(order: int) -> None:
    both = np.concatenate([SPEECH, SPEECH])
    signs = np.concatenate([np.full(len(SPEECH), 1), np.full(len(SPEECH), -1)])[::order]

    sound = heard(recorded(both, both * signs))

    assert likeness(np.abs(sound), np.abs(both)) > 0.95
    assert level(sound[: len(SPEECH)]) == pytest.approx(level(sound[len(SPEECH) :]), abs=1.0)


def test_who_speaks_in_one_channel_is_heard_beside_what_is_opposite() -> None:
    """The channel that is heard in place of the mix is not kept when somebody speaks in another."""
    opposite, left, right = (SPEECH, -SPEECH), (SPEECH, NONE), (NONE, SPEECH)
    data = recorded(*(np.concatenate(side) for side in zip(opposite, left, right, opposite, strict=True)))

    sound = heard(data)

    for number in range(4):
        assert likeness(sound[number * len(SPEECH) :], SPEECH) > 0.9


def wide(alike: float) -> tuple[Wave, Wave]:
    """Return two channels of speech and noise that are correlated so far."""
    common, own = (RANDOM.normal(size=4 * RATE) * 2_000 for _ in range(2))
    swell = np.abs(np.sin(np.arange(4 * RATE) / RATE * 3))
    other = (alike * common + math.sqrt(1 - alike**2) * own) * swell
    return (common * swell).astype(np.int16), other.astype(np.int16)


ORDINARY = {
    "mono": (SPEECH,),
    "twice the same": (SPEECH, SPEECH),
    "left alone": (SPEECH, NONE),
    "right alone": (NONE, SPEECH),
    "delayed": (SPEECH, np.roll(SPEECH, 13)),
    "with an offset": (SPEECH + 300, SPEECH - 300),
    "silence": (NONE, NONE),
    "opposite below what is heard": (SPEECH // 4_000, -SPEECH // 4_000),
    **{f"correlated by {alike}": wide(alike) for alike in (0.5, 0.0, -0.5, -0.8)},
}


@pytest.mark.parametrize("sound", ORDINARY.values(), ids=ORDINARY)
def test_the_mix_of_an_ordinary_recording_is_ffmpegs_own_to_the_bit(sound: tuple[Wave, ...]) -> None:
    data = recorded(*sound)

    assert np.array_equal(heard(data), samples(data))
    assert heard_alike(data)


@pytest.mark.parametrize("layout", ["3.0", "quad", "5.1", "7.1"])
def test_so_is_that_of_channels_with_places(layout: str) -> None:
    count = av.AudioLayout(layout).nb_channels
    data = coded(layout, "pcm_s16le", "wav", *(np.roll(SPEECH, 100 * number) for number in range(count)))

    assert np.array_equal(heard(data), samples(data))
    assert heard_alike(data)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8, 9, 11, 12, 16, 24, 32])
def test_whichever_of_many_channels_somebody_speaks_in_is_heard(count: int) -> None:
    """As field recorders write them, a microphone to a channel, whose places nobody tells."""
    for speaking in {0, 2, count // 2, count - 1}:
        data = recorded(*(SPEECH if number == speaking else NONE for number in range(count)))
        assert likeness(heard(data), SPEECH) > 0.97
        assert level(heard(data)) > level(SPEECH) - 20 * math.log10(count) - 1
    assert not heard_alike(data)


def test_of_many_channels_without_places_all_are_mixed() -> None:
    voices = [np.roll(SPEECH, number * len(SPEECH) // 9) for number in range(9)]
    assert likeness(heard(recorded(*voices)), sum(voices) // 9) > 0.999  # type: ignore[arg-type]


def test_a_faint_voice_in_one_of_many_channels_is_no_silence() -> None:
    faint = SPEECH // 20
    assert likeness(heard(recorded(*[NONE] * 15, faint)), faint) > 0.95


def test_what_stands_in_the_channel_of_low_frequencies_alone_is_heard() -> None:
    data = coded("3.1", "pcm_s16le", "wav", NONE, NONE, NONE, SPEECH)
    assert likeness(heard(data), SPEECH) > 0.99


@pytest.mark.parametrize("count", [33, 64])
def test_more_channels_than_are_decoded_are_refused_by_their_number(count: int) -> None:
    with pytest.raises(MediaError, match=f"{count} channels"):
        heard(recorded(*[SPEECH] * count))


@pytest.mark.parametrize(("count", "codec", "container"), [(9, "wavpack", "wv"), (9, "tta", "tta")])
def test_many_channels_are_heard_in_whatever_codec(count: int, codec: str, container: str) -> None:
    data = coded(f"{count} channels", codec, container, *[NONE] * (count - 1), SPEECH)
    assert likeness(heard(data), SPEECH) > 0.99


def test_chained_recordings_are_not_left_to_whoever_reads_the_first() -> None:
    link = coded("mono", "libopus", "ogg", SPEECH, rate=48_000)
    assert heard_alike(link)
    assert not heard_alike(link + link)


@pytest.mark.parametrize(
    ("container", "codec", "first"),
    [
        ("mp4", "aac", NONE),
        ("matroska", "libopus", NONE),
        ("matroska", "aac", None),
        ("mpegts", "aac", None),
    ],
)
def test_a_track_without_sound_does_not_hide_the_next(container: str, codec: str, first: Wave | None) -> None:
    """Programs that record screens and calls keep a track for each source."""
    data = tracks(container, codec, first, SPEECH)
    assert level(heard(data)) == pytest.approx(level(SPEECH), abs=1)
    assert not heard_alike(data)


def test_of_several_tracks_in_which_something_is_heard_the_first_is_taken() -> None:
    data = tracks("mp4", "aac", SPEECH, SPEECH // 4)
    assert level(heard(data)) == pytest.approx(level(SPEECH), abs=1)
    assert heard_alike(data)
    assert level(heard(tracks("mp4", "aac", NONE, NONE))) < 0


def test_a_track_that_is_switched_off_is_not_taken_before_one_that_is_on() -> None:
    """As a commentary is that stands before the sound of the film (ISO/IEC 14496-12, 8.3.2)."""
    data = tracks("mp4", "aac", SPEECH // 4, SPEECH)
    first = data.index(b"tkhd") + 7
    second = data.index(b"tkhd", first) + 7
    assert (data[first] & 1, data[second] & 1) == (1, 0)
    off = data[:first] + b"\2" + data[first + 1 : second] + b"\3" + data[second + 1 :]

    assert level(heard(off)) == pytest.approx(level(SPEECH), abs=1)
    assert level(heard(data)) == pytest.approx(level(SPEECH // 4), abs=1)
    assert payload_digest(off) != payload_digest(data)


@pytest.mark.parametrize("count", [1, 2])
def test_samples_that_are_no_numbers_do_not_drown_their_neighbours(count: int) -> None:
    data = bytearray(coded({1: "mono", 2: "stereo"}[count], "pcm_f32le", "wav", *[SPEECH] * count, rate=44_100))
    samples_at = data.index(b"data") + 8
    for place in range(samples_at, len(data) - 4, 4 * count * 2_000):
        data[place : place + 4] = np.float32(np.nan).tobytes()
    plain = heard(coded("mono", "pcm_s16le", "wav", SPEECH, rate=44_100))

    assert likeness(heard(bytes(data)), plain) > 0.99
