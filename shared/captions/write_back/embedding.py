"""Captions inside a picture's own file, as XMP: everything else of the file stays as it is, byte for byte.

Only the XMP packet is exchanged, segment by segment, as no library that a function could carry does that: Pillow writes
metadata by encoding the pixels again, and ExifTool and Exiv2 are programs and libraries of another kind. What an
existing packet says of other things stays in it.

Sources: XMP specification part 3 (where a packet stands in JPEG, PNG, TIFF, GIF); WebP container specification ("XMP ",
VP8X); TIFF 6.0, section 2 (a directory may stand anywhere);
Metadata Working Group guidelines (EXIF's ImageDescription and IPTC-IIM's Caption are older places of a description).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar
from xml.etree import ElementTree

from captions.write_back.sidecars import NAMESPACES

T = TypeVar("T")
Existing = Literal["skip", "replace", "keep-as-context"]
"""What becomes of words that a file holds already: it gets no copy, or ours take their place, or they stay and ours are
added where it has none."""

MOST_PACKET_BYTES = 65_502
"""Of XMP in one JPEG segment; larger packets are not read or written anywhere."""
MOST_PARTS = 100_000
"""Of one file: ten million empty ones, which fit into 40 MB, took gigabytes of memory."""
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_IIM, _IIM_DIGEST = 0x0404, 0x0425
"""Photoshop's image resources that hold IPTC-IIM, and the MD5 of it."""
_IMAGE_DESCRIPTION, _EXIF_IFD, _USER_COMMENT = 0x010E, 0x8769, 0x9286
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp\0"
_TIFF_XMP, _TIFF_IIM, _TIFF_PHOTOSHOP = 700, 33723, 34377
_TIFF_SUB_DIRECTORIES, _TIFF_DNG, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC = 330, 50706, 259, 262
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34712, 34925, 50000, 50001})
"""Those of TIFF files; raw formats that begin like one have others of their own."""
_TIFF_STACKS = (b"ImageJ=", b"<?xml", b"<OME", b"{")
"""How an ImageDescription begins that is for programs: of ImageJ, OME-TIFF and tifffile, which need it."""
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
"""How long values are of the types that metadata are of."""
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
_GIF_MAGIC = b"\1" + bytes(range(0xFF, -1, -1)) + b"\0"
"""Behind a packet, which is no blocks of GIF: wherever a reader of blocks lands in here, it comes to the end."""
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
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tif"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    raise NotEmbeddableError("only JPEG, PNG, WebP, TIFF and GIF are written into")


def embed(data: bytes, xmp: str, existing: Existing) -> bytes:
    """Return the file with the properties of an XMP document in its own packet.

    Raises NotEmbeddableError: another format, a broken file, words of its own that are to stay, a packet too large.
    """
    work = {"jpg": _in_jpeg, "png": _in_png, "webp": _in_webp, "tif": _in_tiff, "gif": _in_gif}[extension_of(data)]
    try:
        return work(data, xmp, existing)
    except (struct.error, IndexError) as error:
        raise NotEmbeddableError("the file's parts cannot be told apart") from error
    except RecursionError as error:
        raise NotEmbeddableError("the file's XMP is nested too deep") from error


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
    # The latter two where it names an encoding that it is not in, or that there is none of.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
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
    parts = _bounded(list(itertools.islice(_jpeg_parts(data), MOST_PARTS + 1)))
    packet, kept, older = None, list[FilePart](), False
    for part in parts:
        if part.kind == "e1" and part.content.startswith(_JPEG_XMP):
            packet = _only(packet, part.content.removeprefix(_JPEG_XMP))
            continue
        content = part.content
        if part.kind == "e1" and content.startswith(_JPEG_MORE_XMP):
            # Words of ours beside words in there would be two descriptions, and one may lie across segments.
            raise NotEmbeddableError("the file's XMP is in several parts")
        if part.kind == "e1" and content.startswith(b"Exif\0\0") and _exif_describes(content[6:]):
            older = True
            content = _put_right(content[:6], content[6:], _exif_without_words, _exif_describes, existing)
        if part.kind == "ed" and _iim_describes(content):
            older = True
            content = _put_right(b"", content, _iim_without_words, _iim_describes, existing)
        if content is not part.content:
            whole = b"\xff" + bytes.fromhex(part.kind) + struct.pack(">H", len(content) + 2) + content
            part = FilePart(part.kind, content, whole if content else b"")
        kept.append(part)
    content = _JPEG_XMP + _merged(xmp, packet, older, existing)
    ours = FilePart("e1", content, b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content)
    # Behind JFIF and Exif, which come first, and before what counts bytes from its own place (APP2, multi-picture).
    place = next((n for n, part in enumerate(kept) if part.kind not in ("e0", "e1")), len(kept))
    return data[:2] + b"".join(part.whole for part in (*kept[:place], ours, *kept[place:]))


def _bounded(parts: list[T]) -> list[T]:
    if len(parts) > MOST_PARTS:
        raise NotEmbeddableError(f"the file has more than {MOST_PARTS:,} parts")
    return parts


def _only(packet: bytes | None, another: bytes) -> bytes:
    if packet is not None:
        raise NotEmbeddableError("the file has several XMP packets")
    return another


def _put_right(
    head: bytes,
    older: bytes,
    without_words: Callable[[bytes], bytes],
    describes: Callable[[bytes], bool],
    existing: Existing,
) -> bytes:
    """Return an older place of a description, without it where ours replaces it; empty where nothing is left."""
    if existing != "replace":
        return head + older
    rest = without_words(older)
    if describes(rest):
        raise NotEmbeddableError("the file's older description cannot be taken out")
    return head + rest if rest else b""


def _in_png(data: bytes, xmp: str, existing: Existing) -> bytes:
    kept, packet, older, at = list[bytes](), None, False, len(_PNG_SIGNATURE)
    while at < len(data):
        _bounded(kept)
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
            packet = _only(packet, text)
            continue
        if kind in (b"tEXt", b"zTXt", b"iTXt") and content.startswith(b"Description\0"):
            older = True
            if existing == "replace":
                continue
        if kind == b"eXIf" and _exif_describes(content):
            older = True
            rest = _put_right(b"", content, _exif_without_words, _exif_describes, existing)
            whole = _png_chunk(kind, rest) if rest else b""
        kept.append(whole)
        if kind == b"IEND":
            kept.append(data[at:])
            break
    ours = _png_chunk(b"iTXt", _PNG_XMP + b"\0\0\0\0" + _merged(xmp, packet, older, existing))
    return _PNG_SIGNATURE + b"".join((kept[0], ours, *kept[1:]))


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _in_webp(data: bytes, xmp: str, existing: Existing) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    chunks, packet, older, at = list[FilePart](), None, False, 12
    while at < min(len(data), 8 + size):
        _bounded(chunks)
        (length,) = struct.unpack_from("<I", data, at + 4)
        kind, content = data[at : at + 4].decode("latin-1"), data[at + 8 : at + 8 + length]
        if len(content) < length:
            raise NotEmbeddableError("the file's parts cannot be told apart")
        whole = data[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
        if kind == "XMP ":
            packet = _only(packet, content)
            continue
        tiff = content.removeprefix(b"Exif\0\0")
        if kind == "EXIF" and _exif_describes(tiff):
            older = True
            head = content[: len(content) - len(tiff)]
            content = _put_right(head, tiff, _exif_without_words, _exif_describes, existing)
            whole = _chunk(b"EXIF", content)
        if content or kind != "EXIF":
            chunks.append(FilePart(kind, content, whole))
    if chunks[0].kind == "VP8X":
        head, rest = chunks[0].content, chunks[1:]
    else:
        head, rest = _extended(chunks[0]), chunks
    described = 0x08 if any(each.kind == "EXIF" for each in rest) else 0
    head = bytes([head[0] & ~0x08 | 0x04 | described]) + head[1:]
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


def _in_tiff(data: bytes, xmp: str, existing: Existing) -> bytes:
    """Append a packet and another first directory that names it: whatever has its place in the file keeps it."""
    order, first = _tiff(data)
    listed = _entries(data, order, first)
    entries = dict(listed)
    if len(entries) < len(listed):  # readers differ in which of two they take
        raise NotEmbeddableError("the file names a tag twice")
    small = {tag: struct.unpack_from(f"{order}H", entries[tag], 8)[0] for tag in entries}
    raw = small.get(_TIFF_PHOTOMETRIC, 0) > 0x7FFF or small.get(_TIFF_COMPRESSION, 1) not in _TIFF_COMPRESSIONS
    if raw or data[8:10] == b"CR" or {_TIFF_DNG, _TIFF_SUB_DIRECTORIES} & set(entries):
        raise NotEmbeddableError("the file is a raw format, or has directories within directories")
    older, changed = _exif_describes(data), dict[int, bytes]()
    if older:
        if existing == "replace" and _exif_value(data, order, first, _IMAGE_DESCRIPTION).startswith(_TIFF_STACKS):
            raise NotEmbeddableError("the file's older description says how its pictures belong together")
        data = _put_right(b"", data, _exif_without_words, _exif_describes, existing)
    for tag, describes, without_words in (
        (_TIFF_IIM, _iim_describes, _kept_datasets),
        (_TIFF_PHOTOSHOP, _iim_describes, lambda value: _iim_without_words(_PHOTOSHOP + value)[len(_PHOTOSHOP) :]),
    ):
        value = _tiff_value(data, order, entries.get(tag))
        if describes(value):
            older = True
            changed[tag] = _put_right(b"", value, without_words, describes, existing)
    present = _tiff_value(data, order, entries.get(_TIFF_XMP)) or None
    changed[_TIFF_XMP] = _merged(xmp, present, older, existing)

    listed = _entries(data, order, first)
    kept, (following,) = dict(listed), struct.unpack_from(f"{order}I", data, first + 2 + 12 * len(listed))
    out = bytearray(data)
    for tag, value in changed.items():
        kept.pop(tag, None)
        if not value:
            continue
        out += b"\0" * (len(out) % 2)
        kind = 1 if tag != _TIFF_IIM else 7
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(f"{order}I", len(out))
        kept[tag] = struct.pack(f"{order}HHI", tag, kind, len(value)) + inline
        out += value if len(value) > 4 else b""
    out += b"\0" * (len(out) % 2)
    struct.pack_into(f"{order}I", out, 4, len(out))
    out += struct.pack(f"{order}H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept))
    return bytes(out + struct.pack(f"{order}I", following))


def _tiff_value(tiff: bytes, order: str, entry: bytes | None) -> bytes:
    """Return the bytes of an entry's value, as they stand; empty where there is none."""
    if entry is None:
        return b""
    kind, count, value = struct.unpack_from(f"{order}HII", entry, 2)
    length = count * _TIFF_BYTES.get(kind, 0)
    if not length or (length > 4 and value + length > len(tiff)):
        raise NotEmbeddableError("the file's parts cannot be told apart")
    return entry[8 : 8 + length] if length <= 4 else tiff[value : value + length]


def _in_gif(data: bytes, xmp: str, existing: Existing) -> bytes:
    """Put the packet before the end of the file; what stands before it keeps its place."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept, packet, older = [b"GIF89a" + data[6:at]], None, False  # GIF87a has no extensions
    while data[at] != 0x3B:
        _bounded(kept)
        begun = at
        if data.startswith(_GIF_XMP, at):
            if (end := data.find(_GIF_MAGIC, at)) < 0:
                raise NotEmbeddableError("the file's parts cannot be told apart")
            packet = _only(packet, data[at + len(_GIF_XMP) : end])
            at = end + len(_GIF_MAGIC)
            continue
        comment = data[at : at + 2] == b"\x21\xfe"
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C:
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        else:
            raise NotEmbeddableError("the file's parts cannot be told apart")
        words = bytearray()
        while data[at]:
            words += data[at + 1 : at + 1 + data[at]] if comment else b""
            at += 1 + data[at]
        at += 1
        older |= bool(words.strip(b"\0 "))
        if not (words and existing == "replace"):
            kept.append(data[begun:at])
    ours = _merged(xmp, packet, older, existing)
    return b"".join(kept) + _GIF_XMP + ours + _GIF_MAGIC + data[at:]


def _exif_describes(tiff: bytes) -> bool:
    """Whether EXIF has an ImageDescription that says something."""
    try:
        order, first = _tiff(tiff)
        return bool(_exif_value(tiff, order, first, _IMAGE_DESCRIPTION).strip(b"\0 "))
    except struct.error:
        return False


def _exif_without_words(tiff: bytes) -> bytes:
    """Return EXIF without its ImageDescription, nor a UserComment of the same words; empty where nothing is left.

    Entries go from their directories, and nothing else moves: what other entries point at stays where it is.
    """
    order, first = _tiff(tiff)
    words = _exif_value(tiff, order, first, _IMAGE_DESCRIPTION).decode("utf-8", "replace").strip("\0 ")
    pointer = dict(_entries(tiff, order, first)).get(_EXIF_IFD)
    if pointer is not None:
        (at,) = struct.unpack_from(f"{order}I", pointer, 8)
        comment = _exif_value(tiff, order, at, _USER_COMMENT)
        encoding = {b"UNICODE\0": "utf-16-le" if order == "<" else "utf-16-be"}.get(comment[:8], "utf-8")
        if comment[8:].decode(encoding, "replace").strip("\0 ") == words:
            tiff = _without_entry(tiff, order, at, _USER_COMMENT)
    if len(_entries(tiff, order, first)) == 1:
        return b""
    return _without_entry(tiff, order, first, _IMAGE_DESCRIPTION)


def _tiff(tiff: bytes) -> tuple[str, int]:
    """Return the byte order of TIFF, as `struct` has it, and where its first directory is; raises struct.error."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise struct.error("no TIFF")
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    return order, first


def _entries(tiff: bytes, order: str, at: int) -> list[tuple[int, bytes]]:
    """Return the tags and entries of a directory, each of 12 bytes."""
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    raw = struct.unpack_from("12s" * count, tiff, at + 2)
    return [(struct.unpack_from(f"{order}H", entry)[0], entry) for entry in raw]


def _exif_value(tiff: bytes, order: str, at: int, tag: int) -> bytes:
    """Return a text (or what has no type) of a directory; empty where it is not there."""
    entry = dict(_entries(tiff, order, at)).get(tag, b"\0" * 12)
    kind, length, value = struct.unpack_from(f"{order}HII", entry, 2)
    if kind not in (2, 7):
        return b""
    return entry[8 : 8 + length] if length <= 4 else tiff[value : value + length]


def _without_entry(tiff: bytes, order: str, at: int, tag: int) -> bytes:
    entries = _entries(tiff, order, at)
    kept = [entry for each, entry in entries if each != tag]
    end = at + 2 + 12 * len(entries)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + tiff[end : end + 4]
    return tiff[:at] + directory + bytes(12 * (len(entries) - len(kept))) + tiff[end + 4 :]


def _iim_without_words(photoshop: bytes) -> bytes:
    """Return Photoshop's image resources without IPTC-IIM's Caption (2:120) and its writer (2:122)."""
    if not photoshop.startswith(_PHOTOSHOP):
        raise NotEmbeddableError("the file's IPTC-IIM cannot be read")
    resources, at = list[tuple[int, bytes, bytes]](), len(_PHOTOSHOP)
    while at < len(photoshop):
        _bounded(resources)
        number, name_length = struct.unpack_from(">HB", photoshop, at + 4)
        body = at + 7 + name_length + (name_length + 1) % 2
        (length,) = struct.unpack_from(">I", photoshop, body)
        end = body + 4 + length
        if photoshop[at : at + 4] != b"8BIM" or end > len(photoshop):
            raise NotEmbeddableError("the file's IPTC-IIM cannot be read")
        resources.append((number, photoshop[at:body], photoshop[body + 4 : end]))
        at = end + length % 2
    iim = b"".join(_kept_datasets(content) for number, _, content in resources if number == _IIM)
    made = {_IIM: iim, _IIM_DIGEST: hashlib.md5(iim, usedforsecurity=False).digest()}
    out = bytearray(_PHOTOSHOP)
    for number, head, content in resources:
        now = made.get(number, content)
        out += head + struct.pack(">I", len(now)) + now + b"\0" * (len(now) % 2)
    return bytes(out)


def _kept_datasets(iim: bytes) -> bytes:
    out, at = bytearray(), 0
    while at + 5 <= len(iim) and iim[at] == 0x1C:
        (length,) = struct.unpack_from(">H", iim, at + 3)
        if length & 0x8000:
            raise NotEmbeddableError("the file's IPTC-IIM has a dataset of more than 32 KB")
        end = at + 5 + length
        out += b"" if iim[at + 1 : at + 3] in (b"\x02\x78", b"\x02\x7a") else iim[at:end]
        at = end
    return bytes(out + iim[at:])


def _iim_describes(photoshop: bytes) -> bool:
    """Whether a JPEG's IPTC-IIM has a Caption (dataset 2:120) that says something."""
    captions = re.finditer(rb"\x1c\x02\x78([\x00-\x7f].)", photoshop, re.DOTALL)
    return any(int.from_bytes(length[1]) for length in captions)
