"""Long and odd recordings are cut where nobody speaks, within limits, and nothing of them is lost; video has frames."""

import io
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captions.media import MediaError, decoding, reference_frames
from captions.media.recordings import (
    ENCODINGS,
    RATE,
    Encoding,
    Part,
    cut,
    encoding_for,
    facts,
    key_frames,
    longest_part,
)
from support.recordings import (
    AUDIO,
    BLACK,
    READING,
    SENTENCE,
    VIDEO,
    encoded,
    film,
    samples,
    silence,
    spoken,
)

pytestmark = pytest.mark.slow

MP3, OPUS, FLAC, WAV = ENCODINGS
NO_SPEECH_HERE = 20.0
"""Decibels below the loud places that only pauses have in the readings used here."""


def parts(data: bytes, longest_s: float, encoding: Encoding = WAV, **limits: Any) -> list[Part]:
    return list(cut(data, encoding, longest_s=longest_s, **limits))


@pytest.mark.deep
@pytest.mark.parametrize("longest_s", [8.0, 13.0, 20.0, 30.0])
def test_no_word_of_a_reading_is_cut_in_two(longest_s: float) -> None:
    result = parts(READING, longest_s)
    assert len(result) >= 53 / longest_s
    wave = samples(READING).astype(np.float64)
    loud = np.sqrt(np.percentile(np.square(wave[: len(wave) // 320 * 320]).reshape(-1, 320).mean(axis=1), 90))
    for part in result[:-1]:
        assert part.pause_db is not None
        assert part.pause_db >= NO_SPEECH_HERE
        at = int(part.end_s * RATE)
        around = wave[at - RATE // 20 : at + RATE // 20]  # a tenth of a second
        assert 20 * np.log10(loud / max(1.0, np.sqrt(np.square(around).mean()))) >= NO_SPEECH_HERE


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.container)
def test_parts_follow_each_other_without_gap_or_overlap_within_the_limits(encoding: Encoding, tmp_path: Path) -> None:
    most = 200_000
    longest_s = longest_part(encoding, max_bytes=most, longest_s=12.0)
    result = parts(READING, longest_s, encoding)
    assert result[0].start_s == pytest.approx(0.0, abs=0.05)
    assert [part.start_s for part in result[1:]] == [part.end_s for part in result[:-1]]
    assert result[-1].end_s == pytest.approx(53.3, abs=0.2)
    assert [part.index for part in result] == list(range(len(result)))
    for part in result:
        assert part.end_s - part.start_s <= longest_s
        assert part.data is not None
        assert len(part.data) <= most
        (tmp_path / "part").write_bytes(part.data)
        with io.FileIO(tmp_path / "part") as file:  # in this process, which our own parts do not harm
            assert decoding.facts(file).duration_s == pytest.approx(part.end_s - part.start_s, abs=0.15)


def test_the_parts_together_are_the_recording_sample_by_sample() -> None:
    joined = np.concatenate([samples(part.data) for part in parts(READING, 10.0) if part.data])
    assert np.array_equal(joined, samples(READING))


def test_what_stands_apart_is_cut_in_the_middle_of_the_silence() -> None:
    recording = encoded(spoken(SENTENCE, SENTENCE, SENTENCE, pauses=2.0))
    result = parts(recording, 11.0)
    assert [round(part.end_s, 1) for part in result] == pytest.approx([9.1, 19.2, 28.3], abs=0.3)


def test_sound_without_any_pause_is_cut_all_the_same() -> None:
    noise = (np.random.default_rng(1).normal(size=30 * RATE) * 3_000).astype(np.int16)
    result = parts(encoded(noise), 8.0)
    assert max(part.end_s - part.start_s for part in result) <= 8.0
    assert all(part.pause_db is None or part.pause_db < 6.0 for part in result)


def test_silence_is_told_from_sound() -> None:
    result = parts(encoded(np.concatenate([samples(SENTENCE), silence(20.0)])), 10.0)
    assert not result[0].silent
    assert result[-1].silent


def test_the_same_bytes_give_the_same_parts_and_only_what_is_wanted_is_encoded() -> None:
    first = parts(READING, 10.0)
    again = parts(READING, 10.0, wanted=lambda index: index == 2)
    assert [(part.start_s, part.end_s) for part in again] == [(part.start_s, part.end_s) for part in first]
    assert [part.index for part in again if part.data is not None] == [2]
    assert again[2].data == first[2].data


WINDOWS_MEDIA = encoded(samples(SENTENCE), "asf", "wmav2")
# Two seconds of noise at 12.2 kbit/s: a header byte and 31 bytes of parameters every 20 ms (RFC 4867).
TELEPHONE = b"#!AMR\n" + b"".join(b"\x3c" + np.random.default_rng(n).bytes(31) for n in range(100))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (WINDOWS_MEDIA, 8.1),
        (TELEPHONE, 2.0),
        ((AUDIO / "lj_5.webm").read_bytes(), 8.1),
        ((AUDIO / "lj_5.gsm.wav").read_bytes(), 8.1),
        ((AUDIO / "lj_5.m4a").read_bytes(), 8.1),
        (encoded(samples(SENTENCE), "caf", "pcm_s16be"), 8.1),
        (encoded(samples(SENTENCE), "au", "pcm_mulaw", 8_000), 8.1),
        (encoded(samples(SENTENCE), "aiff", "pcm_s16be"), 8.1),
        (VIDEO, 2.0),
    ],
    ids=["wma", "amr", "webm", "gsm", "m4a", "caf", "au", "aiff", "video"],
)
def test_what_models_do_not_take_becomes_what_they_take(data: bytes, seconds: float) -> None:
    (part,) = parts(data, 600.0, MP3)
    assert part.data is not None
    assert facts(part.data).sound
    assert part.media_type == "audio/mpeg"
    assert part.end_s - part.start_s == pytest.approx(seconds, abs=0.25)


def test_the_encoding_is_one_that_is_taken() -> None:
    assert encoding_for(lambda media_type: True) == MP3
    assert encoding_for(lambda media_type: media_type in ("audio/wav", "audio/ogg")) == OPUS
    assert encoding_for(lambda media_type: media_type == "audio/midi") is None
    assert longest_part(MP3, max_bytes=2_900_000) == pytest.approx(724, abs=1)


@pytest.mark.deep
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF\x24\0\0\0WAVE",
        b"OggS" + bytes(200),
        b"\x1aE\xdf\xa3" + os.urandom(300),
        READING[:200] + b"\0" * 4_000,
        encoded(silence(0.1), "flac", "flac")[:60],
        b"#EXTM3U\nhttp://127.0.0.1:9/a.mp3\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ],
)
def test_what_cannot_be_decoded_ends_with_a_reason(data: bytes) -> None:
    with pytest.raises(MediaError) as raised:
        parts(data, 60.0)
    assert raised.value.code == "broken"
    with pytest.raises(MediaError):
        key_frames(data, 4)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(1, 12))])
def test_damaged_recordings_end_in_parts_or_a_reason(seed: int) -> None:
    random = np.random.default_rng(seed)
    for data in (SENTENCE, WINDOWS_MEDIA, (AUDIO / "lj_5.m4a").read_bytes(), VIDEO):
        damaged = bytearray(data)
        for place in random.integers(0, len(damaged), size=1 + len(damaged) // 400):
            damaged[place] = int(random.integers(0, 256))
        try:
            result = parts(bytes(damaged), 4.0, total_s=60.0)
        except MediaError:
            continue
        assert result


def test_a_header_that_lies_of_its_length_is_not_believed() -> None:
    wave = bytearray(encoded(samples(READING)))
    at = wave.index(b"data") + 4
    wave[4:8] = wave[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert parts(bytes(wave), 20.0)[-1].end_s == pytest.approx(53.3, abs=0.2)


def test_a_recording_that_plays_too_long_is_refused_and_not_held_in_memory() -> None:
    bomb = encoded(silence(600.0), "flac", "flac")
    assert len(bomb) < 150_000 < 600 * RATE * 2 / 100
    taken: list[Part] = []
    with pytest.raises(MediaError, match="longer than 120 s") as raised:
        taken.extend(cut(bomb, WAV, longest_s=30.0, total_s=120.0))
    assert raised.value.code == "too_large"
    assert len(taken) <= 5


def test_decoding_that_takes_out_of_all_proportion_is_given_up() -> None:
    with pytest.raises(MediaError) as raised:
        parts(encoded(silence(300.0), "flac", "flac"), 10.0, MP3, work_s=0.0)
    assert raised.value.code == "bomb"


def test_decoding_stops_when_its_time_is_over() -> None:
    with pytest.raises(TimeoutError):
        parts(READING, 10.0, until=time.monotonic())
    with pytest.raises(TimeoutError):
        key_frames(VIDEO, 4, until=time.monotonic())


def test_sound_at_impossible_rates_is_refused() -> None:
    wave = bytearray(encoded(silence(0.2)))
    wave[24:28] = struct.pack("<I", 1)
    with pytest.raises(MediaError) as raised:
        parts(bytes(wave), 10.0)
    assert raised.value.code == "broken"


def test_a_container_tells_what_it_holds() -> None:
    reported = facts(VIDEO)
    assert (reported.sound, reported.pictures, reported.width, reported.height) == (True, True, 320, 240)
    assert reported.duration_s == pytest.approx(2.0, abs=0.1)
    reported = facts(SENTENCE)
    assert (reported.sound, reported.pictures) == (True, False)


COLOURS = [(250, 250, 250), (200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 0)]


def test_key_frames_are_the_different_scenes_in_order_with_their_times() -> None:
    frames = key_frames(film(COLOURS, seconds_each=2.0), 5)
    assert [int(frame.at_s // 2) for frame in frames] == [0, 1, 2, 3, 4]
    for frame, colour in zip(frames, COLOURS, strict=True):
        shown = Image.open(io.BytesIO(frame.data))
        assert (shown.format, shown.size) == ("JPEG", (320, 180))
        assert shown.getpixel((160, 150)) == pytest.approx(colour, abs=25)


def test_a_still_picture_gives_one_frame_and_a_moving_one_no_more_than_asked_for() -> None:
    assert len(key_frames(film([(120, 10, 10)], seconds_each=4.0), 6)) == 1
    assert len(key_frames(film(COLOURS), 3)) == 3
    assert 1 <= len(key_frames(VIDEO, 3)) <= 3


def test_black_frames_are_left_out_unless_there_is_nothing_else() -> None:
    frames = key_frames(film([BLACK, (30, 200, 30), BLACK], seconds_each=2.0), 6)
    assert [int(frame.at_s // 2) for frame in frames] == [1]
    assert len(key_frames(film([BLACK], seconds_each=2.0), 6)) == 1


def test_frames_are_small_enough_to_be_sent() -> None:
    (frame,) = key_frames(film([(10, 200, 10)], size=(1280, 720)), 1, longest_side=400)
    assert (frame.width, frame.height) == (400, 225)
    assert Image.open(io.BytesIO(frame.data)).size == (400, 225)


def test_pictures_with_too_many_pixels_are_not_decoded() -> None:
    with pytest.raises(MediaError) as raised:
        key_frames(film([(10, 200, 10)], size=(1280, 720)), 2, max_pixels=500_000)
    assert raised.value.code == "bomb"


def test_sound_alone_has_no_frames() -> None:
    with pytest.raises(MediaError, match="no moving pictures"):
        key_frames(SENTENCE, 2)


def moving(codec: str, container: str, options: dict[str, str], shades: Sequence[int] = (20, 90, 160)) -> bytes:
    """A video of one key frame, and of frames that refer to it."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=container) as writing:
        stream = writing.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = options
        for shade in shades:
            picture = np.full((240, 320, 3), shade, dtype=np.uint8)
            picture[:80] = 255
            writing.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        writing.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    "references", [pytest.param(1, marks=pytest.mark.deep), 4, pytest.param(8, marks=pytest.mark.deep)]
)
def test_how_many_frames_a_video_has_its_decoder_keep_is_read_from_its_header(
    references: int, codec: str, container: str
) -> None:
    parameters = f"ref={references}:bframes=0:b-pyramid=0"
    options = {"preset": "ultrafast", f"{codec[3:]}-params": parameters}
    data = moving(codec, container, options)
    bound = 320 * 240 * 6  # as a frame of 8K has it with the real one

    if references < 8:
        assert key_frames(data, 2, max_kept_pixels=bound)
        return
    with pytest.raises(MediaError, match="keep 8 frames") as caught:
        key_frames(data, 2, max_kept_pixels=bound)
    assert caught.value.code == "bomb"


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "g": "1000"}),
        ("libvpx-vp9", "ivf", {"deadline": "realtime", "cpu-used": "8", "g": "1000"}),
        ("libsvtav1", "mp4", {"preset": "12", "g": "1000"}),
    ],
)
def test_of_formats_that_do_not_say_what_they_keep_large_frames_are_taken_from_key_frames(
    codec: str, container: str, options: dict[str, str]
) -> None:
    shades = [shade for shade in (20, 90, 160, 230) for _ in range(10)]
    data = moving(codec, container, options, shades)
    assert len(key_frames(data, 4)) > 1
    assert len(key_frames(data, 4, max_kept_pixels=320 * 240 * 8)) == 1


@pytest.mark.parametrize(
    ("codec", "extradata"),
    [
        *(("h264", data) for data in (b"", b"\1", b"\0\0\1\x67", b"\1\x64\0\x1f\xff\xe1\0\4\x67\0\0\0")),
        ("h264", b"\0\0\1\x67" + bytes(90)),
        *(("hevc", data) for data in (b"", b"\1", b"\0\0\1\x42", b"\1" + b"\xff" * 40, b"\1" + bytes(21) + b"\1\x21")),
        ("hevc", b"\0\0\1\x42\1" + bytes(90)),
        ("mpeg4", b"\0\0\1\x67"),
    ],
)
def test_a_header_that_makes_no_sense_tells_of_no_frames(codec: str, extradata: bytes) -> None:
    assert reference_frames.declared(codec, extradata) is None
