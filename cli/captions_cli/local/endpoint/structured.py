"""Answers in the shape `response_format` asks for.

The local model knows a text, a short form of it, a few tags and whether there is speech or text. It puts these into
the properties whose names ask for them, and the emptiest value the schema allows into every other: it does not make
up what it did not measure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from captions_cli.local.endpoint import prose
from captions_cli.local.endpoint.description import Description

_SHORT = re.compile(r"alt|short|title|summary|headline", re.IGNORECASE)
_TAGS = re.compile(r"tags?$|keywords?$|labels?$|categories$", re.IGNORECASE)
_LANGUAGE = re.compile(r"^(language|lang|languages)$", re.IGNORECASE)
_SEGMENTS = re.compile(r"^segments$", re.IGNORECASE)
_MAX_DEPTH = 8


def shaped(response_format: Mapping[str, Any], text: str, described: Sequence[Description], user_text: str) -> str:
    """Return `text` as JSON where `response_format` asks for it, as it is otherwise.

    With a `json_schema` the document has every property the schema names, with the text in the first string; with
    `json_object` it is `{"text": ...}`. A list of objects in the schema is filled from a JSON list of objects in the
    user's text, entry by entry, if there is one (what captioning in bulk from metadata sends).
    """
    match response_format.get("type"):
        case "json_object":
            return json.dumps({"text": text}, ensure_ascii=False)
        case "json_schema":
            named = response_format.get("json_schema")
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                return json.dumps({"text": text}, ensure_ascii=False)
            document = _Filler(schema, text, described, _records(user_text)).document()
            return json.dumps(document, ensure_ascii=False)
    return text


def _records(text: str) -> list[Mapping[str, Any]]:
    """Return the first JSON list of objects that stands in the text."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\[\s*\{", text):
        try:
            found, _ = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if all(isinstance(entry, Mapping) for entry in found):
            return list(found)
    return []


class _Filler:
    def __init__(
        self,
        schema: Mapping[str, Any],
        text: str,
        described: Sequence[Description],
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        self._schema = schema
        self._text = text
        self._short = " ".join(description.short for description in described) or text
        self._tags = list(dict.fromkeys(tag for description in described for tag in description.tags))
        self._segments = [segment for description in described for segment in description.segments]
        self._records = records
        self._unsaid = True

    def document(self) -> Any:
        return self._value(self._schema, "", {}, 0)

    def _value(self, schema: Any, name: str, given: Mapping[str, Any], depth: int) -> Any:
        """Return a value for `schema`; `given` holds what an input record says under the same names."""
        schema = self._resolved(schema)
        if depth > _MAX_DEPTH or schema is None:
            return None
        kind = schema.get("type")
        kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
        if kind == "string" and "enum" not in schema and "const" not in schema:
            return self._string(schema, name, given)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        match kind:
            case "object":
                properties = schema.get("properties") or {}
                return {key: self._value(inner, key, given, depth + 1) for key, inner in properties.items()}
            case "array":
                return self._array(schema, name, given, depth)
            case "integer" | "number":
                known = given.get(name)
                if isinstance(known, int | float) and not isinstance(known, bool):
                    return known
                return schema.get("minimum", 0)
            case "boolean":
                return False
        return None

    def _resolved(self, schema: Any) -> Mapping[str, Any] | None:
        """Follow references and choose the first alternative that is not null."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, Mapping):
                return None
            if isinstance(reference := schema.get("$ref"), str):
                target: Any = self._schema
                for step in reference.removeprefix("#/").split("/"):
                    target = target.get(step) if isinstance(target, Mapping) else None
                schema = target
                continue
            alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if isinstance(alternatives, list) and alternatives:
                schema = next(
                    (one for one in alternatives if isinstance(one, Mapping) and one.get("type") != "null"), None
                )
                continue
            return schema
        return None

    def _array(self, schema: Mapping[str, Any], name: str, given: Mapping[str, Any], depth: int) -> list[Any]:
        items = self._resolved(schema.get("items")) or {}
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 1000))
        if items.get("type") == "object" and _SEGMENTS.match(name) and self._segments:
            told = [
                self._value(items, name, {"start": one.start, "end": one.end, "text": one.text}, depth + 1)
                for one in self._segments
            ]
            return told[:most]
        if items.get("type") == "object" and self._records and not given:
            return [self._value(items, name, record, depth + 1) for record in self._records][:most]
        if items.get("type") == "string" and "enum" not in items:
            if _TAGS.search(name):
                return self._tags[:most]
            if _LANGUAGE.match(name) and self._segments:
                return ["en"]
        return [self._value(items, name, given, depth + 1) for _ in range(least)]

    def _string(self, schema: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> str:
        longest = schema.get("maxLength")
        text = self._words(name, given)
        return _cut(text, longest) if isinstance(longest, int) else text

    def _words(self, name: str, given: Mapping[str, Any]) -> str:
        if isinstance(given.get(name), str):
            return str(given[name])
        if given:
            # An input record that has no such property: an extract of what it says otherwise.
            said = [str(value) for value in given.values() if isinstance(value, str) and " " in value]
            return prose.condense(". ".join(said), 1) if said else ""
        if _LANGUAGE.match(name):
            return "en"
        if self._unsaid:
            self._unsaid = False
            return self._short if _SHORT.search(name) else self._text
        return self._short if _SHORT.search(name) else ""


def _cut(text: str, longest: int) -> str:
    """Return `text` within `longest` characters, cut after a sentence, else a clause, else a word."""
    if len(text) <= longest:
        return text
    for end in (". ", "; ", ", ", " "):
        at = text.rfind(end, 0, longest)
        if at > longest // 3:
            return text[:at].rstrip(".;,") + ("." if end == ". " else "")
    return text[:longest]
