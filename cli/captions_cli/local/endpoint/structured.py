"""Answers in the shape `response_format` asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from captions_cli.local.endpoint.description import Description


def shaped(response_format: Mapping[str, Any], text: str, described: Sequence[Description], user_text: str) -> str:
    """Return `text` as JSON where `response_format` asks for it, as it is otherwise.

    With a `json_schema` the document has every property the schema names, the text in the first string; with
    `json_object` it is `{"text": ...}`.
    """
    match response_format.get("type"):
        case "json_object":
            return json.dumps({"text": text}, ensure_ascii=False)
        case "json_schema":
            named = response_format.get("json_schema")
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                return json.dumps({"text": text}, ensure_ascii=False)
            return json.dumps(_Filler(schema, text).document(), ensure_ascii=False)
    return text


class _Filler:
    def __init__(self, schema: Mapping[str, Any], text: str) -> None:
        self._schema = schema
        self._text: str | None = text
        self._all = text

    def document(self) -> Any:
        return self._value(self._schema)

    def _value(self, schema: Any) -> Any:
        if not isinstance(schema, Mapping):
            return None
        if schema.get("enum"):
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type")
        kind = next((name for name in kind if name != "null"), "null") if isinstance(kind, list) else kind
        match kind:
            case "object":
                properties = schema.get("properties")
                return {name: self._value(inner) for name, inner in (properties or {}).items()}
            case "array":
                return [self._value(schema.get("items")) for _ in range(int(schema.get("minItems", 0)))]
            case "string":
                text, self._text = self._text or "", None
                return text[: schema["maxLength"]] if isinstance(schema.get("maxLength"), int) else text
            case "integer" | "number":
                return schema.get("minimum", 0)
            case "boolean":
                return False
        return None
