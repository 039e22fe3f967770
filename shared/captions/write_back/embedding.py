"""Captions inside a picture's own file, as XMP: everything else of the file stays as it is, byte for byte.

Only the XMP packet is exchanged, segment by segment, as no library that a function could carry does that: Pillow writes
metadata by encoding the pixels again, and ExifTool and Exiv2 are programs and libraries of another kind. What an
existing packet says of other things stays in it.

Sources: XMP specification part 3 (where a packet stands in JPEG, PNG); WebP container specification ("XMP ", VP8X);
Metadata Working Group guidelines (EXIF's ImageDescription and IPTC-IIM's Caption are older places of a description).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from captions.write_back.sidecars import NAMESPACES

Existing = Literal["skip", "replace", "keep-as-context"]
"""What becomes of words that a file holds already: it gets no copy, or ours take their place in its XMP, or they stay
and ours are added where it has none."""

MOST_PACKET_BYTES = 65_502
"""Of XMP in one JPEG segment; larger packets are not read or written anywhere."""
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_OURS = (
    ("dc", "description"), ("dc", "subject"), ("Iptc4xmpCore", "AltTextAccessibility"),
    ("Iptc4xmpCore", "ExtDescrAccessibility"), ("photoshop", "CaptionWriter"),
)  # fmt: skip
_WORDS = (("dc", "description"), ("Iptc4xmpCore", "AltTextAccessibility"), ("Iptc4xmpCore", "ExtDescrAccessibility"))


class NotEmbeddableError(Exception):
    """A file gets no copy with its caption inside; the message says why, for good."""


@dataclass(frozen=True)
class FilePart:
    """A part of a file: its kind (a marker, or a chunk's name), its content, and its bytes as they stand."""

    kind: str
    content: bytes
    whole: bytes


def extension_of(data: bytes) -> str:
    """Return what a picture's copy ends with; raises NotEmbeddableError for formats without a place for XMP here."""
    if data.startswith(b"\xff\xd8"):
        return "jpg"
    if data.startswith(_PNG_SIGNATURE):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise NotEmbeddableError("only JPEG, PNG and WebP are written into")


def embed(data: bytes, xmp: str, existing: Existing) -> bytes:
    """Return the file with the properties of an XMP document in its own packet.

    Raises NotEmbeddableError: another format, a broken file, words of its own that are to stay, a packet too large.
    """
    work = {"jpg": _in_jpeg, "png": _in_png, "webp": _in_webp}[extension_of(data)]
    try:
        return work(data, xmp, existing)
    except (struct.error, IndexError) as error:
        raise NotEmbeddableError("the file's parts cannot be told apart") from error


def _merged(xmp: str, present: bytes | None, older: bool, existing: Existing) -> bytes:
    """Return a packet with our properties and all others of the one that is there."""
    root = ElementTree.fromstring(xmp)  # noqa: S314 - our own
    (ours,) = root.iter(_name("rdf", "Description"))
    described = {_name("dc", "description")} if older else set[str]()
    if present is not None:
        root, said_in_xmp = _without_ours(present, kept=existing == "keep-as-context")
        described |= said_in_xmp
        rdf = next(root.iter(_name("rdf", "RDF")))
        ours.set(_name("rdf", "about"), next((each.get(_name("rdf", "about"), "") for each in rdf), ""))
        rdf.append(ours)
    if existing == "skip" and described & {_name(*each) for each in _WORDS}:
        raise NotEmbeddableError("the file has a description of its own")
    if existing == "keep-as-context":
        if _name("dc", "description") in described:
            described.add(_name("photoshop", "CaptionWriter"))  # it is of the description, which is not ours
        for each in [each for each in ours if each.tag in described]:
            ours.remove(each)
    text = ElementTree.tostring(root, encoding="unicode")
    packet = f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{text}<?xpacket end="w"?>'.encode()
    if len(packet) > MOST_PACKET_BYTES:
        raise NotEmbeddableError(f"the XMP would have {len(packet):,} bytes, more than {MOST_PACKET_BYTES:,}")
    return packet


def _without_ours(packet: bytes, *, kept: bool) -> tuple[ElementTree.Element, set[str]]:
    """Read a packet; return it without the properties that are ours, and which of them it had words in.

    Where those are `kept`, only empty ones are taken out.
    """
    if len(packet) > MOST_PACKET_BYTES or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise NotEmbeddableError("the file's XMP is too large, or of a kind that is not read")
    text = re.sub(rb"<\?xpacket[^>]*\?>", b"", packet).strip(b"\0 \t\r\n\xef\xbb\xbf")
    if b"\0" in text:  # UTF-16, in which entities would not be seen
        raise NotEmbeddableError("the file's XMP is too large, or of a kind that is not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - bounded, and without entities
    except ElementTree.ParseError as error:
        raise NotEmbeddableError("the file's XMP cannot be read") from error
    if next(root.iter(_name("rdf", "RDF")), None) is None:
        raise NotEmbeddableError("the file's XMP cannot be read")
    described = set[str]()
    abouts, names = list(root.iter(_name("rdf", "Description"))), [_name(*each) for each in _OURS]
    for about in abouts:
        for name in names:
            words = [about.get(name, ""), *(text for child in about.findall(name) for text in child.itertext())]
            if any(text.strip() for text in words):
                described.add(name)
    for about in abouts:
        for name in names:
            if kept and name in described:
                continue
            about.attrib.pop(name, None)
            for child in about.findall(name):
                about.remove(child)
    return root, described


def _name(prefix: str, local: str) -> str:
    return f"{{{NAMESPACES[prefix]}}}{local}"


def _jpeg_parts(data: bytes) -> Iterator[FilePart]:
    """Yield the segments before the first scan, then the rest as it is."""
    at = 2
    while True:
        begun = at
        if data[at] != 0xFF:
            raise NotEmbeddableError("the file's parts cannot be told apart")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker == 0xDA:
            yield FilePart("scan", b"", data[begun:])
            return
        (length,) = struct.unpack_from(">H", data, at + 1)
        end = at + 1 + length
        if length < 2 or end > len(data):
            raise NotEmbeddableError("the file's parts cannot be told apart")
        yield FilePart(f"{marker:02x}", data[at + 3 : end], data[begun:end])
        at = end


def _in_jpeg(data: bytes, xmp: str, existing: Existing) -> bytes:
    parts = list(_jpeg_parts(data))
    packet, kept, older = None, list[FilePart](), False
    for part in parts:
        if part.kind == "e1" and part.content.startswith(_JPEG_XMP):
            packet = part.content.removeprefix(_JPEG_XMP)
            continue
        if part.kind == "e1" and part.content.startswith(b"Exif\0\0"):
            older = older or _exif_describes(part.content[6:])
        if part.kind == "ed":
            older = older or _iim_describes(part.content)
        kept.append(part)
    content = _JPEG_XMP + _merged(xmp, packet, older, existing)
    ours = FilePart("e1", content, b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content)
    # Behind JFIF and Exif, which come first, and before what counts bytes from its own place (APP2, multi-picture).
    place = next((n for n, part in enumerate(kept) if part.kind not in ("e0", "e1")), len(kept))
    return data[:2] + b"".join(part.whole for part in (*kept[:place], ours, *kept[place:]))


def _in_png(data: bytes, xmp: str, existing: Existing) -> bytes:
    kept, packet, older, at = list[bytes](), None, False, len(_PNG_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content, whole = data[at + 4 : at + 8], data[at + 8 : at + 8 + length], data[at : at + 12 + length]
        if len(whole) < 12 + length:
            raise NotEmbeddableError("the file's parts cannot be told apart")
        at += len(whole)
        if kind == b"iTXt" and content.startswith(_PNG_XMP):
            flags, rest = content[len(_PNG_XMP) : len(_PNG_XMP) + 2], content[len(_PNG_XMP) + 2 :]
            text = rest.split(b"\0", 2)[2]
            if flags[0]:
                inflate = zlib.decompressobj()
                try:
                    text = inflate.decompress(text, MOST_PACKET_BYTES + 1)
                except zlib.error as error:
                    raise NotEmbeddableError("the file's XMP cannot be read") from error
            packet = text
            continue
        older = older or (kind in (b"tEXt", b"zTXt", b"iTXt") and content.startswith(b"Description\0"))
        older = older or (kind == b"eXIf" and _exif_describes(content))
        kept.append(whole)
        if kind == b"IEND":
            kept.append(data[at:])
            break
    body = b"iTXt" + _PNG_XMP + b"\0\0\0\0" + _merged(xmp, packet, older, existing)
    ours = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return _PNG_SIGNATURE + b"".join((kept[0], ours, *kept[1:]))


def _in_webp(data: bytes, xmp: str, existing: Existing) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    chunks, packet, older, at = list[FilePart](), None, False, 12
    while at < min(len(data), 8 + size):
        (length,) = struct.unpack_from("<I", data, at + 4)
        kind, content = data[at : at + 4].decode("latin-1"), data[at + 8 : at + 8 + length]
        if len(content) < length:
            raise NotEmbeddableError("the file's parts cannot be told apart")
        if kind == "XMP ":
            packet = content
        else:
            older = older or (kind == "EXIF" and _exif_describes(content.removeprefix(b"Exif\0\0")))
            chunks.append(FilePart(kind, content, data[at : at + 8 + length + length % 2]))
        at += 8 + length + length % 2
    if chunks[0].kind == "VP8X":
        head, rest = chunks[0].content, chunks[1:]
    else:
        head, rest = _extended(chunks[0]), chunks
    head = bytes([head[0] | 0x04]) + head[1:]
    ours = _merged(xmp, packet, older, existing)
    packed = _chunk(b"VP8X", head) + b"".join(each.whole for each in rest) + _chunk(b"XMP ", ours)
    return b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _extended(picture: FilePart) -> bytes:
    """Return the extended header of a simple file: its flags, and the size of its canvas less one."""
    if picture.kind == "VP8L":
        bits = int.from_bytes(picture.content[1:5], "little")
        width, height, flags = bits & 0x3FFF, bits >> 14 & 0x3FFF, 0x10 if bits >> 28 & 1 else 0
    elif picture.kind == "VP8 ":
        first, second = struct.unpack_from("<HH", picture.content, 6)
        width, height, flags = max((first & 0x3FFF) - 1, 0), max((second & 0x3FFF) - 1, 0), 0
    else:
        raise NotEmbeddableError("the file's parts cannot be told apart")
    return bytes([flags, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")


def _exif_describes(tiff: bytes) -> bool:
    """Whether EXIF has an ImageDescription (tag 270) that says something."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return False
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for number in range(count):
            tag, kind, length, value = struct.unpack_from(f"{order}HHII", tiff, at + 2 + 12 * number)
            if tag == 270 and kind == 2:
                start = at + 10 + 12 * number if length <= 4 else value
                return bool(tiff[start : start + length].strip(b"\0 "))
    except struct.error:
        return False
    return False


def _iim_describes(photoshop: bytes) -> bool:
    """Whether a JPEG's IPTC-IIM has a Caption (dataset 2:120) that says something."""
    match = re.search(rb"\x1c\x02\x78([\x00-\x7f].)", photoshop, re.DOTALL)
    return match is not None and int.from_bytes(match[1]) > 0
