"""The shape of an answer as a model is given it: JSON Schema in `response_format`, or words in the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from captions.once import once
from captions.tasks.answer_schema import Answer, Shape

ANNOUNCED = "Answer with one JSON object of this shape and nothing else:"
"""The line before a shape in a prompt."""
_KEPT = ("type", "enum", "description")


@once
def schema(shape: type[Shape]) -> Mapping[str, Any]:
    """Return the JSON Schema of an answer, in the subset that strict modes take: all required, nothing besides."""
    document = shape.built().model_json_schema()
    definitions = document.get("$defs", {})
    names = list(document["properties"])
    # What a model is asked about itself comes after what it was asked to do.
    ordered = sorted(names, key=lambda name: name in Answer.model_fields)
    return _object({name: _simple(document["properties"][name], definitions) for name in ordered})


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _simple(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": schema["description"]} if "description" in schema else {}
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return _object({name: _simple(inner, definitions) for name, inner in target["properties"].items()})
    if "anyOf" in schema:
        kinds = [kind["type"] for kind in schema["anyOf"]]
        return {"type": kinds, **described}
    if schema.get("type") == "array":
        items = _simple(schema["items"], definitions)
        if items.get("type") == "string":
            items |= described
        return {"type": "array", "items": items}
    return {name: schema[name] for name in _KEPT if name in schema}


@once
def skeleton(shape: type[Shape]) -> str:
    """Return the shape as a JSON object whose values say what stands in their place."""
    return json.dumps(_in_words(schema(shape)), ensure_ascii=False)


def _in_words(schema: Mapping[str, Any]) -> Any:
    kind = schema["type"]
    if kind == "object":
        return {name: _in_words(inner) for name, inner in schema["properties"].items()}
    if kind == "array":
        return [_in_words(schema["items"])]
    if "enum" in schema:
        return "one of: " + " | ".join(schema["enum"])
    described = schema.get("description", "")
    if isinstance(kind, list):
        return f"true, false or null: {described}" if "boolean" in kind else f"number or null: {described}"
    if kind == "boolean":
        return f"true or false: {described}"
    return described


@once
def response_format(name: str, shape: type[Shape]) -> Mapping[str, Any]:
    """Return the strongest `response_format`; the gateway weakens it for models that take less."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema(shape)}}
