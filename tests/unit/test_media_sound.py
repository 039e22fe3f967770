"""Sound: what it is, how long it lasts, and that tags do not make it another."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from captions import media
from captions.fingerprint import fingerprint_audio
from captions.media.containers import container

AUDIO = Path(__file__).parents[1] / "media" / "audio"
FILES = sorted(AUDIO.iterdir())


def read(name: str) -> bytes:
    return (AUDIO / name).read_bytes()


def remuxed(data: bytes, name: str, title: str) -> bytes:
    """Write the same packets with other tags, as `ffmpeg -c copy -metadata title=...` does."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format=name) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        target.metadata["title"] = title
        target.metadata["artist"] = title * 40
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return out.getvalue()


def id3(title: bytes) -> bytes:
    frame = b"TIT2" + struct.pack(">I", len(title) + 1) + b"\0\0\0" + title
    size = len(frame)
    return b"ID3\3\0\0" + bytes((size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127)) + frame


def ape(text: bytes) -> bytes:
    item = struct.pack("<II", len(text), 0) + b"Title\0" + text
    footer = struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(item) + 32, 1, 0)
    return item + footer


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("lj_5.m4a", 8.1), ("lj_5.ogg", 8.1), ("lj_5.opus", 8.1), ("lj_5.webm", 8.1), ("lj_5.gsm.wav", 8.1),
     ("LJ001-0005.mp3", 8.2), ("LJ001-0002.wav", 1.9), ("LJ001-0002.flac", 1.9)],
)  # fmt: skip
def test_duration_is_read_from_the_headers(name: str, seconds: float) -> None:
    duration = media.sniff(read(name)).duration_s
    assert duration == pytest.approx(seconds, abs=0.1)


def test_the_model_gets_the_bytes_with_their_type_and_format() -> None:
    payload = media.audio_payload(read("LJ001-0005.mp3"))
    assert (payload.media_type, payload.format, payload.data) == ("audio/mpeg", "mp3", read("LJ001-0005.mp3"))
    assert media.audio_payload(read("lj_5.opus")).format == "opus"
    assert media.audio_payload(read("LJ001-0002.wav")).format == "wav"


def test_a_picture_is_no_sound() -> None:
    with pytest.raises(media.MediaError) as caught:
        media.audio_payload((AUDIO.parent / "photos" / "coffee.jpg").read_bytes())
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("name", "muxer"),
    [("lj_5.m4a", "mp4"), ("lj_5.ogg", "ogg"), ("lj_5.opus", "ogg"), ("lj_5.webm", "webm"),
     ("LJ001-0002.flac", "flac"), ("LJ001-0005.mp3", "mp3"), ("LJ001-0002.wav", "wav")],
)  # fmt: skip
def test_the_same_sound_with_other_tags_matches(name: str, muxer: str) -> None:
    item, other = remuxed(read(name), muxer, "first"), remuxed(read(name), muxer, "another and longer title")
    assert item != other
    assert media.payload_digest(item) is not None
    assert media.payload_digest(item) == media.payload_digest(other)
    assert set(fingerprint_audio(item).exact) & set(fingerprint_audio(other).exact)


def test_tags_around_mp3_frames_do_not_matter() -> None:
    plain = read("LJ001-0005.mp3")
    tag = b"TAG" + b"a title".ljust(125, b"\0")
    for tagged in (
        id3(b"x" * 300) + plain,
        plain + tag,
        plain + ape(b"y" * 90),
        plain + ape(b"z") + tag,
        id3(b"t") + plain + tag,
    ):
        assert media.payload_digest(tagged) == media.payload_digest(plain)
        assert media.sniff(tagged).duration_s == media.sniff(plain).duration_s


def test_a_tag_whose_length_is_a_lie_does_not_hide_sound() -> None:
    """Players play what stands where the tag would have to begin, so it belongs to what is heard."""
    whole = read("LJ001-0005.mp3")
    first = max(whole.find(b"Info"), whole.find(b"Xing"))
    plain = whole[whole.index(b"\xff\xf3", first) :]  # without the frame that counts the others
    beginning = plain[: len(plain) // 2]
    covered = len(plain) - len(beginning)
    for lie in (
        struct.pack("<8sIIII8x", b"APETAGEX", 2000, covered + 32, 1, 0),
        b"%06dLYRICS200" % covered,
        b"3DI\4\0\0" + bytes((covered >> 21 & 127, covered >> 14 & 127, covered >> 7 & 127, covered & 127)),
    ):
        assert media.payload_digest(plain + lie) not in (None, media.payload_digest(beginning))


def test_lyrics_and_an_id3_tag_at_the_end_do_not_matter() -> None:
    plain = read("LJ001-0005.mp3")
    lyrics = b"LYRICSBEGIN" + b"LYR00005words"
    appended = bytearray(id3(b"q" * 40))
    appended[3], appended[5] = 4, 0x10
    footer = b"3DI" + bytes(appended[3:10])
    for tagged in (plain + lyrics + b"%06dLYRICS200" % len(lyrics), plain + bytes(appended) + footer):
        assert media.payload_digest(tagged) == media.payload_digest(plain)


def test_what_was_cut_out_of_a_stream_begins_with_its_first_whole_frame() -> None:
    whole = read("LJ001-0005.mp3")
    first = whole.index(b"\xff\xf3", whole.find(b"Info"))
    second = whole.index(whole[first : first + 2], first + 4)
    assert media.sniff(whole[first + 7 :]).media_type == "audio/mpeg"
    assert media.payload_digest(whole[first + 7 :]) == media.payload_digest(whole[second:])


def test_a_flat_picture_of_the_right_bytes_is_no_stream() -> None:
    targa = io.BytesIO()
    Image.new("RGB", (200, 100), (0x90, 0xFB, 0xFF)).save(targa, "TGA")
    assert media.sniff(targa.getvalue()).media_type == "image/x-tga"


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("LJ001-0002.wav", struct.pack("<II", 22050, 44100), struct.pack("<II", 44100, 88200)),
        ("LJ001-0002.wav", b"fmt \x10\0\0\0\1\0\1\0", b"fmt \x10\0\0\0\1\0\2\0"),
        ("lj_5.m4a", struct.pack(">I", 22050 << 16), struct.pack(">I", 11025 << 16)),
        ("lj_5.webm", b"\xb5\x88" + struct.pack(">d", 24000), b"\xb5\x88" + struct.pack(">d", 16000)),
        ("LJ001-0002.flac", (22050 << 4).to_bytes(3, "big"), (11025 << 4).to_bytes(3, "big")),
    ],
    ids=["wav rate", "wav channels", "m4a rate", "webm rate", "flac rate"],
)
def test_the_same_bytes_played_another_way_are_another_sound(name: str, old: bytes, new: bytes) -> None:
    data = read(name)
    digest = media.payload_digest(replaced(data, old, new))
    assert digest not in (None, media.payload_digest(data))


def test_samples_divided_another_way_and_a_track_switched_off_are_another_sound() -> None:
    plain = read("lj_5.m4a")
    sizes, head = plain.find(b"stsz") + 4 + 12, plain.find(b"tkhd") + 7
    first, second = struct.unpack_from(">II", plain, sizes)
    divided, silent = bytearray(plain), bytearray(plain)
    struct.pack_into(">II", divided, sizes, first - 3, second + 3)
    silent[head] &= 0xFE
    assert len({media.payload_digest(data) for data in (plain, bytes(divided), bytes(silent))} - {None}) == 3


def test_the_whole_decoder_configuration_of_aac_counts_and_its_bit_rates_do_not() -> None:
    plain = read("lj_5.m4a")
    at = plain.find(b"\x04\x80\x80\x80")  # DecoderConfigDescriptor
    rates = plain[: at + 5 + 5] + struct.pack(">II", 99_000, 98_000) + plain[at + 5 + 13 :]
    config = at + 5 + 13 + 5
    other = bytearray(plain)
    other[config + plain[config - 1] - 1] ^= 1
    assert media.payload_digest(rates) == media.payload_digest(plain)
    assert media.payload_digest(bytes(other)) != media.payload_digest(plain)


def test_a_second_recording_behind_an_ogg_file_is_no_tag() -> None:
    item, two = read("lj_5.ogg"), read("lj_5.opus")
    assert media.payload_digest(item + b"TAG" + bytes(125)) == media.payload_digest(item)
    with pytest.raises(media.MediaError):
        media.payload_digest(item + b"TAG" + two)


def test_the_chunks_of_an_aiff_may_stand_in_any_order() -> None:
    common = b"COMM" + struct.pack(">IhIhHQ", 18, 1, 100, 16, 16383 + 12, 8000 << 51)
    samples = b"SSND" + struct.pack(">III", 208, 0, 0) + bytes(range(200))
    files = [
        b"FORM" + struct.pack(">I", 4 + len(body)) + b"AIFF" + body for body in (common + samples, samples + common)
    ]
    assert [media.sniff(data).media_type for data in files] == ["audio/aiff"] * 2
    assert media.payload_digest(files[0]) == media.payload_digest(files[1])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: b"#!AMR\n" + b"\x78" * 60_000, id="amr"),
        pytest.param(lambda: read("lj_5.m4a") + struct.pack(">I4s", 8, b"free") * 60_000, id="mp4"),
        pytest.param(lambda: read("LJ001-0005.mp3") + b"\xff" * 60_000, id="mp3"),
        pytest.param(lambda: read("lj_5.webm") + b"\xec\x80" * 60_000, id="webm"),
        pytest.param(lambda: read("LJ001-0002.flac")[:42] + b"\1\0\0\0" * 60_000, id="flac"),
        pytest.param(lambda: read("lj_5.ogg") + (b"OggS" + bytes(22) + b"\xff" + bytes(255)) * 300, id="ogg"),
    ],
)
def test_sound_made_of_countless_empty_parts_is_refused(
    data: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walking through three millions takes seconds; here fifty thousand stand for them."""
    monkeypatch.setattr(container, "MOST_PARTS", 50_000)
    with pytest.raises(media.MediaError) as caught:
        media.sniff(data())
    assert caught.value.code == "bomb"


def test_information_chunks_of_a_wav_do_not_matter() -> None:
    plain = read("LJ001-0002.wav")
    note = b"LIST" + struct.pack("<I", 18) + b"INFOINAM" + struct.pack("<I", 6) + b"title\0"
    before = plain[:12] + note + plain[12:]
    assert media.payload_digest(before) == media.payload_digest(plain) == media.payload_digest(plain + note)


def test_a_tagged_m4a_with_its_index_in_front_matches(tmp_path: Path) -> None:
    """The usual tag editor rewrites moov in place: the sound moves, and its chunk offsets with it."""
    plain = read("lj_5.m4a")
    fast = tmp_path / "fast.m4a"
    with (
        av.open(io.BytesIO(plain)) as source,
        av.open(fast, "w", format="mp4", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        target.metadata["title"] = "another"
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    moved = fast.read_bytes()
    assert moved.find(b"moov") < moved.find(b"mdat")
    again = remuxed(plain, "mp4", "one")
    assert again.find(b"moov") > again.find(b"mdat")
    assert media.payload_digest(moved) == media.payload_digest(again)


def test_different_speech_never_matches() -> None:
    digests = [fingerprint_audio(path.read_bytes()).exact for path in FILES]
    flat = [digest for exact in digests for digest in exact]
    assert len(flat) == len(set(flat))


@pytest.mark.parametrize(
    "name", ["lj_5.m4a", "lj_5.ogg", "lj_5.opus", "lj_5.webm", "LJ001-0002.flac", "LJ001-0005.mp3", "LJ001-0002.wav"]
)
def test_one_changed_byte_of_sound_is_another_sound(name: str) -> None:
    data = bytearray(read(name))
    data[len(data) * 3 // 5] ^= 1
    assert media.payload_digest(bytes(data)) != media.payload_digest(read(name))


def test_sound_alone_in_a_video_container_is_sound_and_video_is_video() -> None:
    assert media.sniff(read("lj_5.webm")).kind == "audio"
    assert media.sniff(remuxed(read("lj_5.m4a"), "mp4", "t")).kind == "audio"
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as target:
        stream = target.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            for packet in stream.encode(av.VideoFrame(64, 48, "yuv420p")):
                target.mux(packet)
        for packet in stream.encode():
            target.mux(packet)
    assert media.sniff(film.getvalue()).kind == "video"
    assert media.sniff(film.getvalue()).media_type == "video/mp4"


def test_a_recording_of_unknown_length_is_taken() -> None:
    """Browsers' recorders and pipes cannot go back to write the length."""
    data = bytearray(read("LJ001-0002.wav"))
    at = data.find(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    assert media.sniff(bytes(data)).duration_s == pytest.approx(1.9, abs=0.1)
