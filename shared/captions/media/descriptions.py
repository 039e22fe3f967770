"""What a picture's file says of itself: the description, or alt text, that somebody wrote into it."""

import io
import re
import struct
from xml.etree import ElementTree

from PIL import Image, ImageFile, IptcImagePlugin

MOST_PACKET_BYTES = 65_502
"""Of XMP that is read: what one JPEG segment holds."""
_DESCRIPTIONS = (
    "{http://purl.org/dc/elements/1.1/}description",
    "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}ExtDescrAccessibility",
    "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility",
)
_IMAGE_DESCRIPTION = 0x010E
_IIM_CAPTION = (2, 120)
_READ = ("JPEG", "PNG", "WEBP")


def own_description(data: bytes) -> str:
    """Return the description of a JPEG, PNG or WebP file; "" where it has none that can be read. No pixel is decoded.

    The first of: `dc:description`, Extended Description and Alt Text in XMP, ImageDescription in EXIF, IPTC-IIM's
    Caption, a PNG's Description before its pixels (Metadata Working Group guidelines: XMP goes before EXIF and IIM).
    It is text of whoever wrote the file, and nothing to be trusted.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_READ) as image:
            in_xmp = _in_xmp(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b"")
            return in_xmp or _in_older(image)
    # What Pillow raises for broken metadata differs by format; a picture is captioned without it.
    except (
        OSError, ValueError, TypeError, LookupError, SyntaxError, struct.error, OverflowError,
        Image.DecompressionBombError,
    ):  # fmt: skip
        return ""


def _in_xmp(packet: bytes | str) -> str:
    raw = packet.encode() if isinstance(packet, str) else packet
    if not raw or len(raw) > MOST_PACKET_BYTES or b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        return ""
    text = re.sub(rb"<\?xpacket[^>]*\?>", b"", raw).strip(b"\0 \t\r\n\xef\xbb\xbf")
    if b"\0" in text:
        return ""  # UTF-16, in which entities would not be seen
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - bounded, and without entities
    except ElementTree.ParseError:
        return ""
    for name in _DESCRIPTIONS:
        for each in root.iter():
            if short := each.get(name, "").strip():
                return short
            if each.tag == name:
                # One text in several languages: the first, which is the default one.
                for words in each.itertext():
                    if words.strip():
                        return words.strip()
    return ""


def _in_older(image: Image.Image) -> str:
    iim = (IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None) or {}
    for value in (image.getexif().get(_IMAGE_DESCRIPTION), iim.get(_IIM_CAPTION), image.info.get("Description")):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and (words := value.strip("\0 \t\r\n")):
            return words
    return ""
