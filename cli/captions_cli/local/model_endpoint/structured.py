"""Answers in the shape that `response_format`, or the prompt in its own words, asks for.

The local model knows a text, a short form of it, a few tags, and what it measured under the names that such shapes use.
It puts these into the properties whose names ask for them, and the emptiest value the schema allows into every other:
it does not make up what it did not measure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from captions_cli.local.model_endpoint import prose
from captions_cli.local.model_endpoint.description import Description, SpokenSegment

_WHOLE = re.compile(r"^(caption|text|description|long_description|answer|scene|transcript|reply)$", re.IGNORECASE)
_SHORT = re.compile(r"alt|short|title|summary|headline", re.IGNORECASE)
_TAGS = re.compile(r"tags?$|keywords?$|labels?$|categories$", re.IGNORECASE)
_LANGUAGE = re.compile(r"^(language|lang|languages)$", re.IGNORECASE)
_SEGMENTS = re.compile(r"^segments$", re.IGNORECASE)
_MAX_DEPTH = 8


_QUESTION = re.compile(r"\bquestion: *(\"(?:[^\"\\\n]|\\.)*\")", re.IGNORECASE)
_SKELETON = re.compile(r"\bJSON object\b[^\n]*:[ \t]*\n(?=\{)")
_KINDS = {"number or null:": ["number", "null"], "number:": "number", "true or false:": "boolean",
          "true, false or null:": ["boolean", "null"]}  # fmt: skip


def told_in_words(instructions: str) -> dict[str, Any] | None:
    """Return, as a `response_format`, the shape that instructions show as a JSON object after a line that says so.

    The object's values say what stands in their place: "number or null: ...", "true or false: ...", "one of: a | b",
    a list of one such value, an object, or anything else for a text.
    """
    decoder = json.JSONDecoder()
    for match in _SKELETON.finditer(instructions):
        try:
            skeleton, _ = decoder.raw_decode(instructions, match.end())
        except ValueError:
            continue
        if isinstance(skeleton, Mapping):
            return {"type": "json_schema", "json_schema": {"name": "told", "schema": _schema_of(skeleton)}}
    return None


def _schema_of(described: Any) -> dict[str, Any]:
    if isinstance(described, Mapping):
        return {"type": "object", "properties": {name: _schema_of(inner) for name, inner in described.items()}}
    if isinstance(described, list):
        return {"type": "array", "items": _schema_of(described[0]) if described else {"type": "string"}}
    words = described if isinstance(described, str) else ""
    if words.startswith("one of: "):
        return {"type": "string", "enum": [name.strip() for name in words.removeprefix("one of: ").split("|")]}
    kind = next((kind for prefix, kind in _KINDS.items() if words.startswith(prefix)), "string")
    return {"type": kind, "description": words}


def shaped(response_format: Mapping[str, Any], text: str, described: Sequence[Description], user_text: str) -> str:
    """Return `text` as JSON where `response_format` asks for it, as it is otherwise.

    With a `json_schema` the document has every property the schema names, with what was measured in those whose names
    ask for it and the text in the first string whose name does; with `json_object` it is `{"text": ...}`. A list of
    objects in the schema is filled from a JSON list of objects in the user's text, entry by entry, if there is one
    (what captioning in bulk from metadata sends).
    """
    match response_format.get("type"):
        case "json_object":
            return json.dumps({"text": text}, ensure_ascii=False)
        case "json_schema":
            named = response_format.get("json_schema")
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                return json.dumps({"text": text}, ensure_ascii=False)
            document = _Filler(schema, text, described, user_text).document()
            return json.dumps(document, ensure_ascii=False)
    return text


def _records(text: str) -> list[Mapping[str, Any]]:
    """Return the first JSON list of objects that stands in the text."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\[\s*\{", text):
        try:
            document, _ = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if all(isinstance(entry, Mapping) for entry in document):
            return list(document)
    return []


def _answered(user_text: str, segments: Sequence[SpokenSegment]) -> dict[str, Any]:
    """Return the answer to the question in the user's text: what was heard that shares the most words with it."""
    quoted = _QUESTION.search(user_text)
    reply = prose.answer(json.loads(quoted[1]), [segment.text for segment in segments]) if quoted else None
    if reply is not None:
        return {"answerable": True, "answer": reply, "evidence": reply}
    heard = "speech that has none of its words" if segments else "no speech"
    return {"answerable": False, "answer": f"The question is not answered: {heard} was recognised.", "evidence": ""}


class _Filler:
    def __init__(
        self,
        schema: Mapping[str, Any],
        text: str,
        described: Sequence[Description],
        user_text: str,
    ) -> None:
        self._schema = schema
        self._text = text
        self._short = " ".join(description.short for description in described) or text
        self._tags = list(dict.fromkeys(tag for description in described for tag in description.tags))
        self._segments = [segment for description in described for segment in description.segments]
        self._measured: dict[str, Any] = {}
        for description in described:
            self._measured |= description.measured
        self._records = _records(user_text)
        top = self._resolved(schema) or {}
        self._names = frozenset(top.get("properties") or {})
        if "answerable" in self._names:
            self._measured |= _answered(user_text, self._segments)
        # Where some name asks for the text itself, no other gets it; the first string gets it where none does.
        asked = (_WHOLE.match(name) or _SHORT.search(name) or self._keyed(name) for name in self._names)
        self._unsaid = not any(asked)

    def document(self) -> Any:
        return self._value(self._schema, "", {}, 0)

    def _value(self, schema: Any, name: str, given: Mapping[str, Any], depth: int) -> Any:
        """Return a value for `schema`; `given` holds what an input record says under the same names."""
        schema = self._resolved(schema)
        if depth > _MAX_DEPTH or schema is None:
            return None
        kind = schema.get("type")
        nullable = isinstance(kind, list) and "null" in kind
        kind = next((name for name in kind if name != "null"), "null") if isinstance(kind, list) else kind
        if depth == 1 and (key := self._keyed(name)) is not None:
            return self._known(schema, self._measured[key], depth)
        if nullable and kind != "string" and name not in given:
            return None
        if kind == "string" and "enum" not in schema and "const" not in schema:
            return self._string(schema, name, given)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            named = schema["enum"]
            return given[name] if given.get(name) in named else "unknown" if "unknown" in named else named[0]
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

    def _keyed(self, name: str) -> str | None:
        """Return the key of what was measured for a property: its name, if need be with the name of one beside it."""
        beside = (key for key in self._measured if key.startswith(f"{name}/") and key.partition("/")[2] in self._names)
        return next(beside, name if name in self._measured else None)

    def _known(self, schema: Any, value: Any, depth: int) -> Any:
        """Return what was measured, with no more of it than the schema has a place for."""
        schema = self._resolved(schema) or {}
        if depth > _MAX_DEPTH:
            return None
        if isinstance(value, list | tuple):
            return [self._known(schema.get("items"), inner, depth + 1) for inner in value]
        if isinstance(value, Mapping):
            properties = schema.get("properties") or {}
            return {
                key: self._known(inner, value[key], depth + 1) if key in value else self._blank(inner)
                for key, inner in properties.items()
            }
        if isinstance(value, str) and value not in schema.get("enum", [value]):
            return self._blank(schema)
        return value

    def _blank(self, schema: Any) -> Any:
        """Return the emptiest value a schema allows."""
        schema = self._resolved(schema) or {}
        kind = schema.get("type")
        if isinstance(kind, list):
            return None if "null" in kind else self._blank({**schema, "type": kind[0]})
        if named := schema.get("enum"):
            return "unknown" if "unknown" in named else named[0]
        match kind:
            case "object":
                return {name: self._blank(inner) for name, inner in (schema.get("properties") or {}).items()}
            case "array":
                return []
            case "string":
                return ""
            case "integer" | "number":
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
                    (
                        alternative
                        for alternative in alternatives
                        if isinstance(alternative, Mapping) and alternative.get("type") != "null"
                    ),
                    None,
                )
                continue
            return schema
        return None

    def _array(self, schema: Mapping[str, Any], name: str, given: Mapping[str, Any], depth: int) -> list[Any]:
        items = self._resolved(schema.get("items")) or {}
        least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 1000))
        if items.get("type") == "object" and _SEGMENTS.match(name) and self._segments:
            spoken = [
                self._value(items, name, {"start": segment.start, "end": segment.end, "text": segment.text}, depth + 1)
                for segment in self._segments
            ]
            return spoken[:most]
        if items.get("type") == "object" and self._records and not given:
            return [self._value(items, name, record, depth + 1) for record in self._records][:most]
        if items.get("type") == "string" and "enum" not in items:
            if _TAGS.search(name):
                return self._tags[:most]
            if _LANGUAGE.match(name) and self._segments:
                return [self._measured.get("language", "en")]
        return [self._value(items, name, given, depth + 1) for _ in range(least)]

    def _string(self, schema: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> str:
        longest = schema.get("maxLength")
        text = self._words(schema, name, given)
        return _cut(text, longest) if isinstance(longest, int) else text

    def _words(self, schema: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> str:
        if isinstance(given.get(name), str):
            return str(given[name])
        if given:
            if not (_SHORT.search(name) or _WHOLE.match(name)):
                return ""
            # An input record that has no such property: an extract of what it says otherwise.
            texts = [str(value) for value in given.values() if isinstance(value, str) and " " in value]
            return prose.condense(". ".join(texts), 1) if texts else ""
        if _LANGUAGE.match(name):
            return "" if "programming" in schema.get("description", "") else "en"
        if self._unsaid or _WHOLE.match(name):
            self._unsaid = False
            return self._text
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
