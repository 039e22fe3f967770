"""Captions of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Lines, Text
from captions.tasks.registry import NO_NAMES, PICTURES, SEEN_ONLY, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft

MOST_TOKENS = 200
_LEAST_TOKENS = 4


class CaptionAnswer(Answer):
    """A caption."""

    main: ClassVar[str] = "caption"
    aliases: ClassVar[Mapping[str, str]] = {"text": "caption", "description": "caption", "answer": "caption"}
    caption: Text = Field("", description="the caption")
    visible_text: Lines = Field((), description="words written in the picture that the caption relies on")


def read(answer: CaptionAnswer, draft: AnswerDraft) -> None:
    """Read a caption: neither next to nothing nor more than its tokens, and no file name."""
    from captions.tasks import checks

    text = draft.plain(answer.caption)
    if not text:
        draft.fail("empty", "There was no caption.")
        return
    draft.add(checks.file_name(text))
    if checks.estimated_tokens(text) > MOST_TOKENS:
        draft.doubt("too_long", f"The caption was longer than {MOST_TOKENS} tokens.", weight=0.2)
        text = checks.cut_to_tokens(text, MOST_TOKENS)
        draft.repaired = True
    elif checks.estimated_tokens(text) < _LEAST_TOKENS:
        message = "The caption said next to nothing; say who or what is shown, what happens, and where."
        draft.doubt("too_short", message, repairable=True, weight=0.3)
    draft.doubt_writing(answer.visible_text)
    draft.text = text
    draft.written, draft.read = [text], list(answer.visible_text)
    draft.data = {"visible_text": list(answer.visible_text)}


TASK = Task(
    name="caption",
    kinds=PICTURES,
    needs="image",
    max_tokens=400,
    shape=CaptionAnswer,
    role="You write captions for pictures that people rely on.",
    styles={
        "": ("Write one to three sentences: who or what is shown, what happens, and where.",),
        "concise": ("Write one sentence of at most 20 words: who or what is shown, what happens, and where.",),
        "descriptive": (
            "Write three to six sentences: subjects and what they do, setting, arrangement, colours and light, and "
            "what gives the picture its mood.",
        ),
        "custom": (
            "The wish of the collection's owner stands in the request; it decides on content, tone and length.",
        ),
    },
    rules=(
        "Start with the subject itself, never with words such as 'The image shows' or 'A picture of'.",
        f"Stay below {MOST_TOKENS} tokens.",
        SEEN_ONLY,
        NO_NAMES,
    ),
    request="Caption this picture.",
    read=read,
)
