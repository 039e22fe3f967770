"""Descriptions in the shape a schema asks for, and answers to text alone."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from captions_cli.local.model_endpoint import prose
from captions_cli.local.model_endpoint.description import Description, SpokenSegment
from captions_cli.local.model_endpoint.structured import shaped
from captions_cli.local.model_endpoint.wire import clip_tokens, count_tokens, split_deltas

PICTURE = Description(
    text="A square picture, mostly red. Bright. (described)", tokens=9, short="A square picture.", tags=("red",)
)
SPEECH = Description(
    text="hello there and goodbye",
    tokens=9,
    short="hello there and goodbye",
    segments=(SpokenSegment(0.0, 1.5, "hello there"), SpokenSegment(1.5, 3.0, "and goodbye")),
)


def filled(schema: dict[str, Any], *described: Description, user: str = "") -> Any:
    text = "\n".join(item.text for item in described) or prose.condense(user)
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    document = json.loads(shaped(wanted, text, described, user))
    jsonschema.validate(document, schema)
    return document


class _AltText(BaseModel):
    alt: str = Field(max_length=250)
    long_description: str | None
    language: str
    tags: list[str]
    decorative: bool
    confidence: float = Field(ge=0, le=1)


def test_names_of_properties_get_what_they_ask_for() -> None:
    document = filled(_AltText.model_json_schema(), PICTURE)
    assert document["alt"] == PICTURE.short
    assert document["language"] == "en"
    assert document["tags"] == ["red"]
    assert document["decorative"] is False
    assert _AltText.model_validate(document)


class _Segment(BaseModel):
    start: float
    end: float
    text: str


class _Transcript(BaseModel):
    text: str
    segments: list[_Segment]


def test_segments_carry_their_times_through_references() -> None:
    document = filled(_Transcript.model_json_schema(), SPEECH)
    assert document["text"] == SPEECH.text
    assert document["segments"][1] == {"start": 1.5, "end": 3.0, "text": "and goodbye"}


def test_items_in_bulk_are_answered_one_by_one_from_what_they_say() -> None:
    item = {"type": "object", "properties": {"id": {"type": "string"}, "alt": {"type": "string"}}}
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": item}}}
    user = 'Write alt texts: [{"id": "a", "title": "Red kite over the hill"}, {"id": "b", "title": "x"}]'
    assert filled(schema, user=user) == {
        "items": [{"id": "a", "alt": "Red kite over the hill"}, {"id": "b", "alt": ""}]
    }


def test_a_length_limit_cuts_after_a_sentence() -> None:
    schema = {"type": "object", "properties": {"caption": {"type": "string", "maxLength": 40}}}
    assert filled(schema, PICTURE) == {"caption": "A square picture, mostly red. Bright."}


@pytest.mark.parametrize("response_format", [{"type": "json_object"}, {"type": "json_schema"}])
def test_without_a_schema_the_text_is_the_document(response_format: dict[str, Any]) -> None:
    assert json.loads(shaped(response_format, "words", (), "")) == {"text": "words"}


def test_plain_text_stays_plain() -> None:
    assert shaped({"type": "text"}, "words", (), "") == "words"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        {"type": "array", "items": {"type": "array", "minItems": 1, "items": True}, "minItems": 1},
    ],
)
def test_hostile_schemas_end(schema: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    json.loads(shaped(wanted, "words", (), ""))


@pytest.mark.deep
@given(st.text(max_size=300))
def test_pieces_of_a_stream_join_to_the_text(text: str) -> None:
    assert "".join(split_deltas(text)) == text


@given(st.text(max_size=300), st.integers(min_value=1, max_value=60))
@example(" 0000", 1)
@example("\u2003long-word two", 2)
def test_clipped_text_is_a_prefix_within_the_limit(text: str, limit: int) -> None:
    clipped = clip_tokens(text, limit)
    assert text.startswith(clipped)
    assert count_tokens(clipped) <= limit


@given(st.text(max_size=400))
def test_an_extract_holds_nothing_but_the_text(text: str) -> None:
    answer = prose.condense(text)
    if prose.sentences(text):
        assert all(word in text for word in answer.split())
