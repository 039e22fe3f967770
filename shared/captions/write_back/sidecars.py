"""What is written beside an object: its caption as JSON and XMP, its words as subtitles; and its caption as tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from captions.records.record import Record, Result
from captions.subtitles import srt, timed, webvtt
from captions.uploads.version import WRITTEN_BACK

MOST_TAGS = 10
MOST_TAG_CHARACTERS = 256
"""Of a value; an object has ten tags, a name has 128 characters (Amazon S3 user guide, "Categorizing your objects")."""
TAGS = ("captioned-text", "captioned-language", "captioned-by", "captioned-source")
"""The tags that are ours, the most useful first: where others leave too little room, the last are left out."""
ALT_TEXT_CHARACTERS = 250
"""IPTC Photo Metadata Standard, "Alt Text (Accessibility)": should be no longer."""
_NOT_IN_TAGS = re.compile(r"[^\w +\-=.:/@]+")
"""Letters, digits and spaces of any language, and these signs (the same guide)."""
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
}
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
for _prefix, _uri in NAMESPACES.items():
    ElementTree.register_namespace(_prefix, _uri)


def files(record: Record, kinds: tuple[str, ...]) -> Mapping[str, tuple[str, str]]:
    """Return what stands beside a captioned object: by the end of its key, the text and its media type."""
    result = record.result
    if result is None:
        return {}
    made: dict[str, tuple[str, str]] = {}
    if "sidecar" in kinds:
        made[".caption.json"] = (as_json(record, result), "application/json")
    if "xmp" in kinds:
        made[".caption.xmp"] = (as_xmp(record, result), "application/rdf+xml")
    cues = timed(result.data)
    if "subtitles" in kinds and cues:
        made[".caption.vtt"] = (webvtt(cues), "text/vtt; charset=utf-8")
        made[".caption.srt"] = (srt(cues), "application/x-subrip; charset=utf-8")
    assert set(made) <= set(WRITTEN_BACK)
    return made


def alt_text(result: Result) -> str:
    """The alt text of a result: the model's own, or as much of the caption as an alt text may be long."""
    if result.task == "alt_text":
        return result.text
    given = result.data.get("alt_text") or result.data.get("alt")
    if isinstance(given, str) and given.strip():
        return given
    if len(result.text) <= ALT_TEXT_CHARACTERS:
        return result.text
    return result.text[: ALT_TEXT_CHARACTERS - 2].rsplit(" ", 1)[0] + " …"


def author(record: Record) -> str:
    """Who wrote the words: a person, or the model as it named itself; the one that was asked for may be an alias."""
    if record.source == "human":
        return "human"
    made = record.provenance
    return (made.reported_model or made.model if made is not None else None) or "unknown"


def as_json(record: Record, result: Result) -> str:
    """The caption and where it came from."""
    caption = {
        "asset": record.asset,
        "version_id": record.version_id,
        "sequencer": record.sequencer,
        "text": result.text,
        "alt_text": alt_text(result),
        "language": result.language,
        "task": result.task,
        "tags": list(result.tags),
        "safety": result.safety,
        "confidence": result.confidence,
        "data": result.data,
        "source": record.source,
        "by": author(record),
        "updated_at": record.updated_at,
    }
    return json.dumps(caption, ensure_ascii=False, indent=2) + "\n"


def as_xmp(record: Record, result: Result) -> str:
    """An XMP sidecar: alt text and extended description of IPTC, description, keywords, and who wrote them.

    `DigitalSourceType` is left alone: it says how the picture itself was made, and a photo stays one whoever describes
    it. So are the four properties for AI of IPTC 2025.1, of what generated an image. That a model wrote the words
    stands in `CaptionWriter`.
    """

    def name(prefix: str, local: str) -> str:
        return f"{{{NAMESPACES[prefix]}}}{local}"

    def text(value: str) -> str:
        return _NOT_IN_XML.sub(" ", value)

    root = ElementTree.Element(name("x", "xmpmeta"))
    about = ElementTree.SubElement(
        ElementTree.SubElement(root, name("rdf", "RDF")), name("rdf", "Description"), {name("rdf", "about"): ""}
    )
    for prefix, local, value in (
        ("dc", "description", result.text),
        ("Iptc4xmpCore", "AltTextAccessibility", alt_text(result)),
        ("Iptc4xmpCore", "ExtDescrAccessibility", result.text),
    ):
        alternatives = ElementTree.SubElement(ElementTree.SubElement(about, name(prefix, local)), name("rdf", "Alt"))
        languages = ["x-default", *([result.language] if result.language != "und" else [])]
        for language in languages:
            entry = ElementTree.SubElement(
                alternatives, name("rdf", "li"), {"{http://www.w3.org/XML/1998/namespace}lang": language}
            )
            entry.text = text(value)
    if result.tags:
        bag = ElementTree.SubElement(ElementTree.SubElement(about, name("dc", "subject")), name("rdf", "Bag"))
        for tag in result.tags:
            ElementTree.SubElement(bag, name("rdf", "li")).text = text(tag)
    ElementTree.SubElement(about, name("photoshop", "CaptionWriter")).text = text(author(record))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def tags(record: Record, present: Mapping[str, str]) -> dict[str, str]:
    """Return all tags of an object: those it has that are not ours, and what there is room for of ours."""
    kept = {name: value for name, value in present.items() if name not in TAGS}
    result = record.result
    if result is None:
        return kept
    values = (result.text, result.language, author(record), record.source or "model")
    ours = {name: " ".join(_NOT_IN_TAGS.sub(" ", value).split()) for name, value in zip(TAGS, values, strict=True)}
    room = max(0, MOST_TAGS - len(kept))
    return kept | {name: value[:MOST_TAG_CHARACTERS].strip() for name, value in list(ours.items())[:room]}
