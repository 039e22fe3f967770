"""The text in pictures, letter by letter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from captions.tasks import languages
from captions.tasks.answer_schema import Answer, Lines, Shape, Text, list_of
from captions.tasks.registry import PICTURES, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft


class Block(Shape):
    """A heading, paragraph, table or label."""

    aliases: ClassVar[Mapping[str, str]] = {"content": "text", "lang": "language", "kind": "role", "type": "role"}
    text: Text = Field("", description="the text verbatim, with its line breaks")
    language: Text = Field("", description="BCP-47 tag")
    role: Text = Field("", description="heading, paragraph, table, label, handwriting ...")


class OcrAnswer(Answer):
    """All text of a picture in reading order."""

    main: ClassVar[str] = "blocks"
    aliases: ClassVar[Mapping[str, str]] = {"text": "blocks", "lines": "blocks", "doubts": "unclear"}
    blocks: Annotated[tuple[Block, ...], list_of(Block)] = Field((), description="in reading order")
    unclear: Lines = Field((), description="what could not be read for certain, and where")


def read(answer: OcrAnswer, draft: AnswerDraft) -> None:
    """Read copied text: each block in a language that its letters allow, and some where the picture has writing."""
    if "blocks" not in answer.model_fields_set:
        draft.fail("missing", "The blocks of text were missing.")
        return
    blocks = [block for block in answer.blocks if block.text]
    draft.text = "\n\n".join(block.text for block in blocks)
    tags = [languages.tag(block.language) or "" for block in blocks]
    if any(block.language and not tag for block, tag in zip(blocks, tags, strict=True)):
        draft.doubt("language_tag", "A block's language was no BCP-47 tag.", weight=0.05)
    for place, block in enumerate(blocks):
        if tags[place] and languages.contradiction(block.text, tags[place]):
            tags[place] = ""
            draft.doubt("language_tag", "A block is not in the language it names.")
        tags[place] = tags[place] or languages.guess(block.text) or languages.UNDETERMINED
    if not blocks and draft.full_of_writing:
        message = "No text was found, but the picture looks full of writing; copy it."
        draft.doubt("text_missed", message, repairable=True, weight=0.4)
    draft.doubt_writing(tuple(block.text for block in blocks))
    characters = dict.fromkeys(tags, 0)
    for block, tag in zip(blocks, tags, strict=True):
        characters[tag] += len(block.text)
    draft.language = max(characters, key=lambda tag: characters[tag], default=languages.UNDETERMINED)
    draft.written, draft.read = [], [draft.text]
    draft.data = {
        "blocks": [
            {"text": block.text, "language": tag, "role": block.role} for block, tag in zip(blocks, tags, strict=True)
        ],
        "languages": list(dict.fromkeys(tags)),
        "scripts": [name.lower() for name, _ in languages.scripts(draft.text).most_common(8)],
        "unclear": list(answer.unclear),
    }


TASK = Task(
    name="ocr",
    kinds=PICTURES,
    needs="image",
    max_tokens=4_000,
    shape=OcrAnswer,
    role="You copy the text in pictures, letter by letter.",
    rules=(
        "Copy all of it verbatim in reading order, one block for each heading, paragraph, table or label: spelling "
        "mistakes, line breaks, punctuation and capitals stay as they are; nothing is translated or completed.",
        "Rows of a table are lines, with a tab between cells. Scripts that are mixed stay mixed, each in its own "
        "script; a block's language is its main one.",
        "Put [unclear] in place of what cannot be read, and say under 'unclear' where that is. If there is no "
        "text, the list of blocks is empty.",
    ),
    request="Copy the text in this picture.",
    read=read,
    exact_only=True,
    copies=True,
)
