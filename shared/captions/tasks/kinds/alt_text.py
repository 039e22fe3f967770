"""Alt texts by the W3C's alt decision tree, and the long description beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from captions.tasks.answer_schema import Answer, Lines, Text, choice
from captions.tasks.registry import NO_NAMES, PICTURES, SEEN_ONLY, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft
    from captions.tasks.result import Problem

TARGET = 125
"""Characters of an alt text: screen readers are often said to break there, and one sentence fits."""
LIMIT = 250
_INFORMATIVE = frozenset({"chart", "document", "screenshot", "code", "product"})
"""Categories of pictures that are hardly ever there for decoration."""


class AltTextAnswer(Answer):
    """An alt text, with what the picture is for."""

    main: ClassVar[str] = "alt"
    aliases: ClassVar[Mapping[str, str]] = {"alt_text": "alt", "alttext": "alt", "text": "alt", "role": "purpose",
                                            "description": "long_description"}  # fmt: skip
    purpose: Annotated[
        Literal["informative", "text", "functional", "decorative", "unknown"],
        choice("informative", "text", "functional", "decorative", otherwise="unknown"),
    ] = Field("unknown", json_schema_extra={"enum": ["informative", "text", "functional", "decorative"]})
    reason: Text = Field("", description="why it has this purpose, in a few words")
    alt: Text = Field("", description="the alt text; empty if decorative")
    long_description: Text = Field("", description="what the alt text has no room for, in full sentences")
    visible_text: Lines = Field((), description="words written in the picture")


def read(answer: AltTextAnswer, draft: AnswerDraft) -> None:
    """Read an alt text: its purpose and its words must agree, and it stays within its limit."""
    from captions.tasks import checks

    purpose = answer.purpose
    long_description = draft.plain(answer.long_description)
    alt = draft.plain(answer.alt)
    if purpose == "decorative":
        if alt:
            message = "A decorative picture has an empty alt text; either it has none or another purpose."
            draft.doubt("decorative", message, repairable=True, weight=0.25)
            # To say too much is the lesser harm to somebody who cannot see.
            purpose = "informative"
        elif draft.seen.category in _INFORMATIVE:
            message = f"The picture was called decorative but looks like a {draft.seen.category}; say what it shows."
            draft.doubt("decorative", message, repairable=True, weight=0.4)
        elif not answer.reason:
            draft.doubt("reason", "Say why the picture is decorative.")
    elif not alt:
        if not long_description:
            draft.fail("empty", "There was no alt text, and the picture was not called decorative.")
            return
        alt = checks.cut(checks.sentences(long_description)[0], LIMIT)
        draft.doubt("empty", "There was no alt text.", repairable=True, weight=0.2)
        draft.repaired = True
    if purpose == "unknown" and alt:
        draft.doubt("purpose", "The picture's purpose was not given.", weight=0.05)
    fitted, too_long = fit(alt)
    draft.add(too_long, checks.file_name(fitted))
    draft.repaired = draft.repaired or fitted != alt
    draft.doubt_writing(answer.visible_text)
    title = draft.ask.context.get("title", "").strip()
    if title and title.casefold() == fitted.casefold():
        draft.doubt("title", "The alt text only repeats the title.", repairable=True, weight=0.2)
    draft.text = fitted
    # The words of a picture that is there for its words stay in their language.
    copied = purpose == "text"
    draft.written = [text for text in (*(() if copied else (fitted,)), long_description) if text]
    draft.read = [*answer.visible_text, *((fitted,) if copied else ())]
    draft.data = {
        "purpose": purpose,
        "reason": answer.reason,
        "long_description": long_description,
        "visible_text": list(answer.visible_text),
    }


def fit(alt: str) -> tuple[str, Problem | None]:
    """Return an alt text within its limit, in one line, and the problem if it was longer than it should be."""
    from captions.tasks import checks
    from captions.tasks.result import Problem

    alt = " ".join(alt.split())
    if len(alt) > LIMIT:
        message = f"The alt text had more than {LIMIT} characters."
        return checks.cut(alt, LIMIT), Problem(code="too_long", message=message, repairable=True, weight=0.2)
    if len(alt) > TARGET:
        return alt, Problem(code="long", message=f"The alt text has more than {TARGET} characters.", weight=0.03)
    return alt, None


TASK = Task(
    name="alt_text",
    kinds=PICTURES,
    needs="image",
    max_tokens=600,
    shape=AltTextAnswer,
    role="You write alt texts for people who cannot see a picture and have a page read to them.",
    rules=(
        "First decide what the picture is for, as the W3C's alt decision tree does. 'text': it is there for the "
        "words in it; the alt text is those words, verbatim. 'functional': it is a button, link or icon that does "
        "something; the alt text says what it does, not how it looks. 'informative': it shows something; the alt "
        "text says what, as briefly as its point allows. 'decorative': it adds nothing (a border, a spacer, a "
        "background, a mere ornament); the alt text is empty, and the reason says why.",
        f"An alt text is one sentence of at most {TARGET} characters where that is possible and never more than "
        f"{LIMIT}.",
        "It does not begin with 'Image of' or 'Picture of' and does not repeat a title that is given.",
        "The long description says in full sentences what the alt text has no room for: of a chart its data, of a "
        "document its content. It is empty for what is decorative.",
        SEEN_ONLY,
        NO_NAMES,
    ),
    request="Write the alt text for this picture.",
    read=read,
)
