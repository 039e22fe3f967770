"""Which container a file is, by its first bytes."""

import struct
from collections.abc import Callable
from typing import Literal

from captions.media.containers import matroska, mp4, mpeg_audio, ogg, other, riff
from captions.media.containers.container import Container
from captions.media.containers.mpeg_audio import id3v2_end
from captions.media.errors import MediaError


def identify(data: bytes) -> Container | None:
    """Return the sound or video container that `data` is, or None if it is none.

    Raises MediaError (`broken`, `truncated`, `unsupported`) where the signature is right but the rest is not.
    """
    data = without_tag(data)
    reader = _reader(data)
    if reader is None:
        return None
    try:
        return reader(data)
    except (struct.error, IndexError, OverflowError, ZeroDivisionError) as error:
        raise MediaError("broken", "the container's headers cannot be read") from error


def without_tag(data: bytes) -> bytes:
    """Return a recording without the ID3v2 tag before it, if it is none of MP3, AAC or FLAC, which have one there.

    Programs put one before everything, and not every decoder passes over it.
    """
    begin = id3v2_end(data, 0)
    if begin and _reader(data[begin : begin + _LOOK]) not in (None, mpeg_audio.framed_audio):
        return data[begin:]
    return data


def _reader(data: bytes) -> Callable[[bytes], Container | None] | None:
    head = data[:16]
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return {b"WAVE": riff.wave, b"AVI ": riff.avi}.get(head[8:12])
    for signature, reader in _SIGNATURES:
        if head.startswith(signature):
            return reader
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and len(data) >= 16:
        return mp4.read
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return other.aiff
    if head[4:8] in (b"\xf8\x72\x6f\xba", b"\xf8\x72\x6f\xbb"):
        return _plain("audio", "audio/vnd.dolby.mlp", "mlp")
    if other.ts_layout(data) is not None:
        return other.transport_stream
    return mpeg_audio.framed_audio


def _plain(kind: Literal["audio", "video"], media_type: str, name: str) -> Callable[[bytes], Container]:
    """Return the reader of a format that is not taken apart here: decoding tells how long it plays."""
    return lambda data: Container(kind, media_type, name)


_LOOK = 65_536
"""Bytes behind a tag by which a container is told."""
_STARTS = (b"\0\0\0\1", b"\0\0\1")
_PLAIN_SOUND = (
    (b"wvpk", "audio/x-wavpack", "wv"),
    (b"\x0b\x77", "audio/ac3", "ac3"),
    (b"\x77\x0b", "audio/ac3", "ac3"),
    (b"TTA1", "audio/x-tta", "tta"),
    (b"TTA2", "audio/x-tta", "tta"),
    (b"MAC ", "audio/x-ape", "ape"),
    (b"MPCK", "audio/x-musepack", "mpc"),
    (b"MP+", "audio/x-musepack", "mpc"),
    (b"\x7f\xfe\x80\x01", "audio/vnd.dts", "dts"),
    (b"\xfe\x7f\x01\x80", "audio/vnd.dts", "dts"),
    (b"\x1f\xff\xe8\x00", "audio/vnd.dts", "dts"),
    (b"\xff\x1f\x00\xe8", "audio/vnd.dts", "dts"),
    (b"DTSHDHDR", "audio/vnd.dts.hd", "dts"),
    (b"DSD ", "audio/x-dsf", "dsf"),
    (b".SoX", "audio/x-sox", "sox"),
    (b"XoS.", "audio/x-sox", "sox"),
    (b"Creative Voice File\x1a"[:16], "audio/x-voc", "voc"),
)
_PLAIN_VIDEO = (
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "video/mxf", "mxf"),
    (b"\x1f\x07\x00", "video/x-dv", "dv"),
    (b"DKIF\0\0", "video/x-ivf", "ivf"),
    (bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), "video/x-ms-wtv", "wtv"),
    # What surveillance cameras save: H.264 and H.265 in no container, from a parameter set or a delimiter on.
    *((start + unit, "video/h264", "h264") for start in _STARTS for unit in (b"\x67", b"\x27", b"\x47", b"\x09")),
    *((start + unit, "video/h265", "h265") for start in _STARTS for unit in (b"\x40\x01", b"\x42\x01", b"\x46\x01")),
)

_SIGNATURES: tuple[tuple[bytes, Callable[[bytes], Container | None]], ...] = (
    (b"OggS", ogg.read),
    (b"\x1a\x45\xdf\xa3", matroska.read),
    (other.ASF_HEADER, other.asf),
    (b"#!AMR", other.amr),
    (b".snd", other.basic),
    (b"caff", other.core_audio),
    (b"\0\0\1\xba", other.mpeg_video),
    (b"\0\0\1\xb3", other.mpeg_video),
    (b"FLV\1", other.flash),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", riff.w64),
    (b".RMF", other.real_media),
    *((head, _plain("audio", media_type, name)) for head, media_type, name in _PLAIN_SOUND),
    *((head, _plain("video", media_type, name)) for head, media_type, name in _PLAIN_VIDEO),
)


def with_lengths(data: bytes) -> bytes:
    """Return a WAV, W64, AIFF or AU file whose header tells the lengths that are there; any other file as it is.

    Recorders that stream leave 0, all ones or too much, and decoders believe them. Nor is there a tag before it
    (`without_tag`).
    """
    data = without_tag(data)
    match data[:4]:
        case b"RIFF" if data[8:12] == b"WAVE":
            return riff.lengths_of_riff(data)
        case b"RF64" | b"BW64":
            return riff.lengths_of_riff(b"RIFF" + data[4:12] + b"JUNK" + data[16:] if data[12:16] == b"ds64" else data)
        case b"FORM" if data[8:12] in (b"AIFF", b"AIFC"):
            return other.lengths_of_aiff(data)
        case b".snd" if len(data) >= 24 and (length := other.basic_end(data) - int.from_bytes(data[4:8], "big")) > 0:
            return data[:8] + struct.pack(">I", length) + data[12:]
        case b"riff" if (chunk := riff.w64_chunk(data, b"data")) is not None and chunk[1] > len(data):
            return data[: chunk[0] - 8] + struct.pack("<Q", len(data) - chunk[0] + 24) + data[chunk[0] :]
    return data
