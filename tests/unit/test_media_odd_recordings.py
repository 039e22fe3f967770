"""Recordings as they are met: with tails, with lengths that were never filled in, in whatever a device writes."""

import io
import math
import re
import struct
import tempfile
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from captions import media
from captions.fingerprint import fingerprint_audio
from captions.media import MediaError, containers, decoding, recordings
from captions.media.decoder_child import MediaFile

pytestmark = pytest.mark.deep

RATE = 16_000
RANDOM = np.random.default_rng(7)


def recorded(
    container: str, codec: str, *, rate: int = RATE, layout: str = "mono", seconds: int = 1, **options: str
) -> bytes:
    """A tone that swells and fades."""
    moments = np.arange(rate * seconds) / rate
    wave = 8_000 * np.sin(2 * np.pi * 440 * moments) * np.sin(np.pi * moments / seconds)
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for piece in av.AudioResampler(format=stream.format, layout=layout, rate=rate).resample(frame):
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1_024
        at = 0
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            piece.pts, piece.time_base = at, Fraction(1, rate)
            at += piece.samples
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


class Pipe:
    """What one can write to, but not go back in."""

    def __init__(self, file: io.BytesIO) -> None:
        self.write = file.write


def filmed(
    container: str,
    codec: str,
    *,
    frames: int = 12,
    begins: int = 0,
    pixels: str = "yuv420p",
    apart: int = 4,
    coding: dict[str, str] | None = None,
    piped: bool = False,
    **options: str,
) -> bytes:
    """A bar that grows on a ground that changes."""
    file = io.BytesIO()
    with av.open(Pipe(file) if piped else file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, pixels
        stream.gop_size, stream.options = apart, coding or {}
        for number in range(frames):
            picture = np.full((144, 176, 3), number * 17 % 255, np.uint8)
            picture[:, : 10 * number + 1] = 220
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts = begins + number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def heard_s(data: bytes) -> float:
    """How long what is decoded of a recording plays; in this process, as starting another takes longer."""
    limits = {"longest_s": 600, "total_s": 600, "work_s": 60, "until": math.inf}
    with tempfile.NamedTemporaryFile() as kept:
        kept.write(containers.with_lengths(data))
        kept.flush()
        with MediaFile(kept.name) as file:
            return list(decoding.cut(file, recordings.ENCODINGS[0], wanted=lambda _: True, **limits))[-1].end_s


def put(data: bytes, at: int, values: bytes) -> bytes:
    return data[:at] + values + data[at + len(values) :]


@pytest.mark.parametrize(
    ("container", "codec", "rate", "media_type"),
    [
        ("aiff", "pcm_s16be", RATE, "audio/aiff"),
        ("au", "pcm_mulaw", RATE, "audio/basic"),
        ("caf", "alac", RATE, "audio/x-caf"),
        ("w64", "pcm_s16le", RATE, "audio/x-w64"),
        ("tta", "tta", RATE, "audio/x-tta"),
        ("wv", "wavpack", RATE, "audio/x-wavpack"),
        ("ac3", "ac3", 48_000, "audio/ac3"),
        ("eac3", "eac3", 48_000, "audio/ac3"),
        ("mp2", "mp2", RATE, "audio/mpeg"),
        ("amr", "libopencore_amrnb", 8_000, "audio/amr"),
        ("3gp", "libopencore_amrnb", 8_000, "audio/mp4"),
        ("mpegts", "aac", RATE, "audio/mp2t"),
        ("mpegts", "libopus", 48_000, "audio/mp2t"),
        ("mpeg", "mp2", 48_000, "audio/mp2p"),
        ("vob", "ac3", 48_000, "audio/mp2p"),
        ("sox", "pcm_s32le", RATE, "audio/x-sox"),
        ("flv", "aac", RATE, "audio/x-flv"),
        ("avi", "pcm_s16le", RATE, "audio/x-msvideo"),
        ("voc", "pcm_u8", RATE, "audio/x-voc"),
        ("rm", "ac3", 48_000, "audio/vnd.rn-realaudio"),
    ],
)
def test_sound_is_taken_in_what_devices_write_it_in(container: str, codec: str, rate: int, media_type: str) -> None:
    data = recorded(container, codec, rate=rate)

    seen = media.inspect(data)
    fingerprint_audio(data)

    assert (seen.kind, seen.media_type, seen.note) == ("audio", media_type, None)
    assert heard_s(data) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("container", "codec", "pixels", "media_type"),
    [
        ("avi", "mjpeg", "yuvj420p", "video/x-msvideo"),
        ("mov", "mjpeg", "yuvj420p", "video/quicktime"),
        ("mov", "prores_ks", "yuv422p10le", "video/quicktime"),
        ("mp4", "libx265", "yuv420p", "video/mp4"),
        ("mp4", "libsvtav1", "yuv420p", "video/mp4"),
        ("webm", "libvpx-vp9", "yuv420p", "video/webm"),
        ("3gp", "h263", "yuv420p", "video/3gpp"),
        ("asf", "wmv2", "yuv420p", "video/x-ms-wmv"),
        ("mpeg", "mpeg2video", "yuv420p", "video/mpeg"),
        ("mpegts", "mpeg2video", "yuv420p", "video/mp2t"),
        ("mxf", "mpeg2video", "yuv420p", "video/mxf"),
        ("flv", "flv", "yuv420p", "video/x-flv"),
        ("ivf", "libvpx", "yuv420p", "video/x-ivf"),
        ("wtv", "mpeg2video", "yuv420p", "video/x-ms-wtv"),
        ("h264", "libx264", "yuv420p", "video/h264"),
        ("hevc", "libx265", "yuv420p", "video/h265"),
    ],
)
def test_video_is_taken_in_what_devices_write_it_in(container: str, codec: str, pixels: str, media_type: str) -> None:
    data = filmed(container, codec, pixels=pixels)

    seen = media.inspect(data)

    assert (seen.kind, seen.media_type) == ("video", media_type)
    assert recordings.key_frames(data, 4)


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("webm", "libvpx-vp9", "yuv420p"),  # as browsers record
        ("matroska", "libx264", "yuv420p"),
        ("asf", "wmv2", "yuv420p"),
        ("ivf", "libvpx", "yuv420p"),  # states 4,294,967,295 frames
        ("avi", "mjpeg", "yuvj420p"),  # states 2 GB of pictures
        ("h264", "libx264", "yuv420p"),
    ],
)
def test_a_video_that_does_not_tell_its_length_shows_all_its_scenes(container: str, codec: str, pixels: str) -> None:
    pictures = recordings.key_frames(filmed(container, codec, frames=16, pixels=pixels, piped=True), 4)
    assert len(pictures) == 4
    assert pictures[-1].at_s > 0.4


def test_a_long_video_with_one_key_frame_is_looked_through_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a call that a browser recorded; what is long, and how far it is decoded to one moment, is less here."""
    monkeypatch.setattr(decoding, "_SHORT_S", 0.1)
    monkeypatch.setattr(decoding, "_FRAMES_TO_A_MOMENT", 2)
    limits: dict[str, Any] = {
        "longest_side": 176,
        "max_pixels": 10**6,
        "max_kept_pixels": 10**7,
        "work_s": 60,
        "until": math.inf,
    }
    with tempfile.NamedTemporaryFile() as kept:
        kept.write(filmed("mp4", "libx264", frames=16, apart=600, coding={"x264-params": "scenecut=0"}))
        kept.flush()
        with MediaFile(kept.name) as file:
            pictures = decoding.key_frames(file, 4, **limits)
    assert len(pictures) == 4
    assert pictures[-1].at_s > 0.4


def seen(picture: recordings.KeyFrame, across: float, down: float) -> int:
    image = Image.open(io.BytesIO(picture.data)).convert("L")
    value = image.getpixel((int(across * image.width), int(down * image.height)))
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize(
    ("matrix", "bar"),
    [
        ((1, 0, 0, 1), (0.1, 0.5)),
        ((-1, 0, 0, 1), (0.9, 0.5)),
        ((1, 0, 0, -1), (0.1, 0.5)),
        ((-1, 0, 0, -1), (0.9, 0.5)),
        ((0, 1, -1, 0), (0.5, 0.1)),
        ((0, 1, 1, 0), (0.5, 0.1)),
        ((0, -1, 1, 0), (0.5, 0.9)),
        ((0, -1, -1, 0), (0.5, 0.9)),
    ],
)
def test_a_video_is_shown_turned_and_mirrored_as_it_says(
    matrix: tuple[int, int, int, int], bar: tuple[float, float]
) -> None:
    data = filmed("mp4", "libx264", frames=5)
    a, b, c, d = (value << 16 for value in matrix)
    turned = put(data, data.index(b"tkhd") + 44, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))

    last = recordings.key_frames(turned, 2)[-1]

    assert seen(last, *bar) > 180
    assert seen(last, 1 - bar[0], 1 - bar[1]) < 120


@pytest.mark.parametrize(("drawn", "ground"), [(0, 255), (255, 128)])
def test_what_is_clear_in_a_video_is_laid_on_what_shows_the_rest(drawn: int, ground: int) -> None:
    file = io.BytesIO()
    picture = np.zeros((144, 176, 4), np.uint8)
    picture[40:100, 40:140] = (drawn, drawn, drawn, 255)
    with av.open(file, "w", format="mov") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, "argb"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="argb")))
        output.mux(stream.encode(None))

    (frame,) = recordings.key_frames(file.getvalue(), 2)

    assert seen(frame, 0.5, 0.5) == pytest.approx(drawn, abs=3)
    assert seen(frame, 0.1, 0.1) == pytest.approx(ground, abs=3)


def test_a_fragmented_video_of_stills_is_a_video() -> None:
    data = filmed("mov", "png", pixels="rgb24", movflags="frag_keyframe+empty_moov")
    assert media.inspect(data).kind == "video"


def test_a_track_of_pictures_that_was_left_empty_makes_no_video() -> None:
    """As of a browser that records with its camera switched off."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as output:
        empty = output.add_stream("libvpx", rate=25)
        empty.width, empty.height, empty.pix_fmt = 176, 144, "yuv420p"
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        empty.codec_context.open()
        for at in range(0, 48_000, 960):
            frame = av.AudioFrame.from_ndarray(np.full((1, 960), at % 7, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, at
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))

    assert media.inspect(file.getvalue()).kind == "audio"
    assert heard_s(file.getvalue()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("claimed", [0, 1, 4, 5])
def test_a_flash_file_is_what_its_tags_are(claimed: int) -> None:
    """Servers that record write a header that claims both sound and video."""
    sound, video = recorded("flv", "aac"), filmed("flv", "flv")
    assert media.inspect(put(sound, 4, bytes([claimed]))).kind == "audio"
    assert media.inspect(put(video, 4, bytes([claimed]))).kind == "video"


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac"), ("mpegts", "aac")])
def test_sound_that_changes_its_form_is_heard_to_its_end(container: str, codec: str) -> None:
    """As of files that were joined, and of stations between programmes."""
    data = recorded(container, codec, rate=48_000) + recorded(container, codec, rate=24_000, layout="stereo")

    assert media.inspect(data).kind == "audio"
    assert heard_s(data) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(("first", "then"), [("mono", "stereo"), ("stereo", "mono"), ("mono", "mono")])
def test_chained_ogg_recordings_are_heard_one_after_the_other(first: str, then: str) -> None:
    data = b"".join(recorded("ogg", "libopus", rate=48_000, layout=layout) for layout in (first, then))

    assert media.inspect(data).duration_s == pytest.approx(2.0, abs=0.05)
    assert heard_s(data) == pytest.approx(2.0, abs=0.05)


def test_a_chain_that_breaks_off_is_heard_up_to_there() -> None:
    whole, broken = recorded("ogg", "libopus", rate=48_000), recorded("ogg", "libopus", rate=48_000, layout="stereo")
    assert heard_s(whole + broken[:60]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("junk", [bytes(600), np.random.default_rng(5).bytes(3_000), bytes(20_000)])
def test_sound_behind_junk_is_found_as_players_find_it(junk: bytes) -> None:
    assert heard_s(junk + recorded("mp3", "libmp3lame", seconds=3)) == pytest.approx(3.0, abs=0.2)
    assert media.inspect(junk + recorded("mp3", "libmp3lame", seconds=3)).media_type == "audio/mpeg"
    if len(junk) <= 4_096:  # as far as FFmpeg looks
        assert media.inspect(junk + recorded("mpegts", "aac", seconds=3)).media_type == "audio/mp2t"
        assert heard_s(junk + recorded("mpegts", "aac", seconds=3)) == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("stated", [0, 50])
def test_two_windows_media_files_that_do_not_tell_their_length_are_not_one(stated: int) -> None:
    """FFmpeg states 50 bytes until it ends (ASF specification, section 5.1: none, while it is broadcast)."""
    data = filmed("asf", "wmv2")
    packets = struct.unpack_from("<Q", data, 16)[0] + 50
    streamed = put(data, packets - 34, struct.pack("<Q", stated))
    other = put(streamed, packets + 150, b"another picture")

    assert media.inspect(streamed).kind == "video"
    assert media.payload_digest(streamed) != media.payload_digest(other)


def test_a_piece_of_a_stream_with_one_key_frame_shows_all_its_scenes() -> None:
    """Segments of a stream (RFC 8216) have one at their beginning."""
    pictures = recordings.key_frames(filmed("mpegts", "libx264", frames=16, apart=1_000), 4)
    assert len(pictures) == 4
    assert pictures[-1].at_s > 0.4


def test_a_length_that_could_not_be_determined_is_unknown() -> None:
    data = recorded("ipod", "aac")
    version = data.index(b"mdhd") + 4
    assert data[version] == 0
    assert media.inspect(data).duration_s == pytest.approx(1.0, abs=0.1)
    assert media.inspect(put(data, version + 16, b"\xff" * 4)).duration_s is None
    assert media.inspect(recorded("ismv", "aac")).duration_s is None  # in 64 bits, as streams are recorded


def test_a_video_written_in_fragments_is_taken_up_to_where_it_was_cut_off() -> None:
    data = filmed("mp4", "libx264", frames=24, movflags="frag_keyframe+empty_moov")
    whole, cut = media.inspect(data), media.inspect(data[: data.rindex(b"mdat") + 20])

    assert (whole.kind, whole.note) == ("video", None)
    assert cut.kind == "video"
    assert cut.note is not None
    assert recordings.key_frames(data[: data.rindex(b"mdat") + 20], 4)


@pytest.mark.parametrize(("before", "behind"), [(4, 0), (0, 16)], ids=["camera", "broadcast"])
def test_packets_of_a_transport_stream_may_stand_further_apart(before: int, behind: int) -> None:
    plain = filmed("mpegts", "mpeg2video")
    packets = [plain[at : at + 188] for at in range(0, len(plain), 188)]
    data = b"".join(bytes(before) + packet + bytes(behind) for packet in packets)

    assert media.inspect(data).media_type == "video/mp2t"
    assert recordings.key_frames(data, 2)


def test_a_piece_cut_out_of_a_transport_stream_is_taken() -> None:
    data = recorded("mpegts", "aac", seconds=3)[188 * 3 + 61 :]

    assert media.inspect(data).media_type == "audio/mp2t"
    assert heard_s(data) > 2


def test_a_flat_picture_of_the_sync_byte_is_no_transport_stream() -> None:
    targa = struct.pack("<BBBHHBHHHHBB", 0, 0, 3, 0, 0, 0, 0, 0, 64, 64, 8, 0) + b"\x47" * 4_096
    assert media.inspect(targa).media_type == "image/x-tga"


TAILS = {
    "newline": b"\n",
    "zeros": bytes(4_096),
    "ID3v1": b"TAG" + b"x" * 125,
    "form": b"\r\n------boundary7MA4YWxk--\r\n",
    "noise": np.random.default_rng(5).bytes(3_000),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("mp3", "libmp3lame", {}),
        ("flac", "flac", {}),
        ("ogg", "libopus", {}),
        ("webm", "libopus", {}),
        ("webm", "libopus", {"live": "1"}),
        ("matroska", "aac", {}),
        ("aiff", "pcm_s16be", {}),
        ("au", "pcm_s16be", {}),
        ("w64", "pcm_s16le", {}),
        ("adts", "aac", {}),
        ("mp4", "aac", {}),
    ],
)
def test_what_stands_behind_a_recording_is_passed_over(
    container: str, codec: str, options: dict[str, Any], tail: bytes
) -> None:
    data = recorded(container, codec, rate=48_000 if codec == "libopus" else RATE, **options)

    plain, tailed = media.inspect(data), media.inspect(data + tail)

    assert (tailed.kind, tailed.media_type, tailed.note) == (plain.kind, plain.media_type, None)
    assert heard_s(data + tail) == pytest.approx(heard_s(data), abs=0.2)


@pytest.mark.parametrize(
    ("container", "codec", "at", "size"),
    [
        ("wav", "pcm_s16le", (b"data", 4), struct.pack("<I", 3_200)),
        ("aiff", "pcm_s16be", (b"SSND", 4), struct.pack(">I", 3_208)),
        ("au", "pcm_s16be", (b".snd", 8), struct.pack(">I", 3_200)),
    ],
)
def test_a_length_that_was_told_too_early_is_not_believed(
    container: str, codec: str, at: tuple[bytes, int], size: bytes
) -> None:
    """A recorder that was cut off had stated what there was a moment after it began."""
    data = recorded(container, codec)
    early = put(data, data.index(at[0]) + at[1], size)
    other = put(early, len(early) - 100, b"other sound")

    assert media.inspect(early).duration_s == pytest.approx(1.0)
    assert media.inspect(early).note is not None
    assert heard_s(early) == pytest.approx(1.0)
    assert media.payload_digest(early) != media.payload_digest(other)


def test_what_stands_behind_the_samples_of_a_short_wav_may_be_longer_than_they_are() -> None:
    data = recorded("wav", "pcm_s16le")
    short = put(data, data.index(b"data") + 4, struct.pack("<I", 3_200))[: data.index(b"data") + 8 + 3_200]
    chunk = b"id3 " + struct.pack("<I", 20_000) + bytes(20_000)
    for tail in (chunk, b"ID3\3\0\0\0\1\x1c\x20" + b"cover" * 4_000, bytes(4_096), bytes(20_000)):
        assert media.inspect(short + tail).duration_s == pytest.approx(0.1)
        assert heard_s(short + tail) == pytest.approx(0.1)


def test_a_chunk_of_a_wav_that_was_not_padded_does_not_hide_the_samples() -> None:
    data = recorded("wav", "pcm_s16le")
    at = data.index(b"data")
    for named in (b"LIST" + struct.pack("<I", 5) + b"INFO!", b"LIST" + struct.pack("<I", 5) + b"INFO!" + b"\0"):
        odd = data[:at] + named + data[at:]
        assert media.inspect(odd).duration_s == pytest.approx(1.0)
        assert heard_s(odd) == pytest.approx(1.0)
        assert media.payload_digest(odd) == media.payload_digest(data)


UNKNOWN = [0, 8, 0x7FFFFFFF, 0x7F000008, 0xFFFFFFFF]


@pytest.mark.parametrize("stated", [*UNKNOWN, 1_000_000])
def test_of_an_aiff_whose_length_is_not_filled_in_what_is_there_is_taken(stated: int) -> None:
    data = recorded("aiff", "pcm_s16be")
    streamed = put(data, data.index(b"SSND") + 4, struct.pack(">I", stated))
    streamed = put(streamed, data.index(b"COMM") + 10, bytes(4))

    seen = media.inspect(streamed)

    assert seen.duration_s == pytest.approx(1.0)
    assert (seen.note is not None) == (stated == 1_000_000)
    assert heard_s(streamed) == pytest.approx(1.0)
    assert media.inspect(media.audio_payload(streamed).data).note is None


@pytest.mark.parametrize("stated", [*UNKNOWN[2:], 0, 1_000_000])
def test_of_an_au_whose_length_is_not_filled_in_what_is_there_is_taken(stated: int) -> None:
    data = recorded("au", "pcm_s16be")
    streamed = put(data, 8, struct.pack(">I", stated))

    assert media.inspect(streamed).duration_s == pytest.approx(1.0)
    assert heard_s(streamed) == pytest.approx(1.0)


@pytest.mark.parametrize("stated", [0, 24, 2**63 - 1, 2**64 - 1, 10**9])
def test_of_a_wave64_whose_length_is_not_filled_in_what_is_there_is_taken(stated: int) -> None:
    data = recorded("w64", "pcm_s16le")
    streamed = put(data, data.index(b"data", 40) + 16, struct.pack("<Q", stated))

    assert media.inspect(streamed).duration_s == pytest.approx(1.0)
    assert heard_s(streamed) == pytest.approx(1.0)


@pytest.mark.parametrize("stated", [0, 10**12])
def test_of_an_rf64_whose_lengths_are_not_filled_in_what_is_there_is_taken(stated: int) -> None:
    data = recorded("wav", "pcm_s16le", rf64="always")
    streamed = put(data, data.index(b"ds64") + 8, struct.pack("<QQQ", stated, stated, stated))

    assert media.inspect(streamed).duration_s == pytest.approx(1.0)
    assert heard_s(streamed) == pytest.approx(1.0)


def test_a_live_webm_that_was_cut_off_is_taken_with_a_note() -> None:
    data = recorded("webm", "libopus", rate=48_000, seconds=4, live="1")

    cut = media.inspect(data[: len(data) * 3 // 4])

    assert (cut.kind, cut.note is not None) == ("audio", True)
    assert 2 < heard_s(data[: len(data) * 3 // 4]) < 4


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("ogg", "libopus")])
def test_a_recording_that_tells_its_length_and_was_cut_off_is_refused(container: str, codec: str) -> None:
    data = recorded(container, codec, rate=48_000, seconds=4)

    with pytest.raises(MediaError, match="ends inside"):
        media.inspect(data[: len(data) * 3 // 4])


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("ogg", "libopus"),
        ("wv", "wavpack"),
        ("tta", "tta"),
        ("ac3", "ac3"),
        ("wav", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("au", "pcm_mulaw"),
        ("caf", "alac"),
        ("w64", "pcm_s16le"),
        ("webm", "libopus"),
        ("mp4", "aac"),
        ("flac", "flac"),
    ],
)
def test_a_tag_before_a_recording_is_passed_over(container: str, codec: str) -> None:
    """Programs put ID3v2 before whatever they take for music; FFmpeg passes over it before some."""
    data = recorded(container, codec, rate=48_000)
    tagged = b"ID3\3\0\0\0\0\2\0" + bytes(256) + data

    plain, seen = media.inspect(data), media.inspect(tagged)

    assert (seen.kind, seen.media_type, seen.duration_s, seen.note) == (
        "audio",
        plain.media_type,
        plain.duration_s,
        None,
    )
    assert media.payload_digest(tagged) == media.payload_digest(data)
    assert heard_s(tagged) == heard_s(data)
    if container != "flac":  # of which everybody expects it
        assert media.audio_payload(tagged).data == data


def test_a_tag_before_what_is_no_recording_is_refused() -> None:
    for rest in (b"", b"RI", b"no recording", bytes(3_000)):
        with pytest.raises(MediaError, match="no sound follows"):
            media.inspect(b"ID3\3\0\0\0\0\2\0" + bytes(256) + rest)


@pytest.mark.parametrize("second", [b"", b"\1\2" * 1_000])
@pytest.mark.parametrize("between", [b"", b"LIST\4\0\0\0INFO"])
def test_a_wav_with_samples_in_two_places_is_refused(between: bytes, second: bytes) -> None:
    """FFmpeg plays the last ones, others the first; whoever compares the first takes two recordings for one."""
    data = recorded("wav", "pcm_s16le")
    with pytest.raises(MediaError, match="two places"):
        media.inspect(data + between + b"data" + struct.pack("<I", len(second)) + second)


@pytest.mark.parametrize("live", ["0", "1"])
def test_recordings_behind_one_another_in_a_matroska_file_are_not_the_first_of_them(live: str) -> None:
    first = recorded("webm", "libopus", rate=48_000, live=live)
    both = first + recorded("webm", "libopus", rate=48_000, seconds=2, live=live)

    assert heard_s(both) == pytest.approx(3.0, abs=0.1)
    assert media.inspect(both).duration_s is None
    assert media.payload_digest(both) != media.payload_digest(first)


@pytest.mark.parametrize("seconds", [1, 3_600])
def test_a_video_that_begins_late_shows_all_its_scenes(seconds: int) -> None:
    """As of a piece of a stream that kept its times, where Matroska states the time of the end as its length."""
    pictures = recordings.key_frames(filmed("matroska", "libx264", frames=16, begins=25 * seconds), 4)
    assert len(pictures) == 4
    assert 0.4 < pictures[-1].at_s < 0.7


@pytest.mark.parametrize("entry", [b"enca", b"drms", b"aavd"])
def test_encrypted_sound_is_refused_as_such(entry: bytes) -> None:
    with pytest.raises(MediaError, match="encrypted"):
        media.inspect(recorded("mp4", "aac").replace(b"mp4a", entry))


@pytest.mark.parametrize("identity", ["fbb3112223bdd211b4b700a0c955fc6e", "14e68a292226174cb935dae07ee9289c"])
def test_an_encrypted_windows_media_file_is_refused_as_such(identity: str) -> None:
    data = filmed("asf", "wmv2")
    added = bytes.fromhex(identity) + struct.pack("<Q", 40) + bytes(16)
    size, objects = struct.unpack_from("<QI", data, 16)
    locked = data[:16] + struct.pack("<QI", size + 40, objects + 1) + data[28:30] + added + data[30:]
    with pytest.raises(MediaError, match="encrypted"):
        media.inspect(locked)


def test_behind_many_damaged_packets_a_recording_goes_on() -> None:
    data = bytearray(recorded("adts", "aac", seconds=30))
    starts = [match.start() for match in re.finditer(rb"\xff[\xf0\xf1]", data)]
    assert len(starts) > 450  # of 64 ms
    for start, end in pairwise(starts[100:351]):
        data[start + 12 : end] = RANDOM.bytes(end - start - 12)

    assert heard_s(bytes(data)) > 12


def test_a_recording_in_which_pictures_begin_later_is_heard_to_its_end() -> None:
    """PyAV counts the streams that are there at the end, and looks them up among those of the beginning."""
    sound, pictures = recorded("flv", "aac", seconds=20), filmed("flv", "flv", frames=30)
    only_sound = put(sound, 4, b"\4")
    assert heard_s(only_sound + pictures[13:]) == heard_s(only_sound)


def delayed(container: str, codec: str, *, after: int, seconds: int, **options: str) -> bytes:
    """Two seconds of a tone; the packets behind so many of them come so much later, as of a recorder that paused."""
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(recorded(container, codec, rate=48_000, seconds=2))) as source,
        av.open(file, "w", format=container, options=options) as output,
    ):
        sound = source.streams.audio[0]
        stream = output.add_stream_from_template(sound)
        for number, packet in enumerate(source.demux(sound)):
            if packet.dts is not None and packet.pts is not None:
                late = int(seconds / packet.time_base) if number >= after else 0
                packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, stream
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "aac", {}),
        ("webm", "libopus", {}),
        ("webm", "libopus", {"live": "1"}),
        ("matroska", "pcm_s16le", {}),
    ],
)
def test_what_was_recorded_after_a_pause_keeps_its_time(container: str, codec: str, options: dict[str, Any]) -> None:
    plain, paused = (delayed(container, codec, after=40, seconds=pause, **options) for pause in (0, 5))
    assert heard_s(paused) == pytest.approx(heard_s(plain) + 5.0, abs=0.05)
