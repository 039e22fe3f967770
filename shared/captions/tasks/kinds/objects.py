"""What is in a picture, thing by thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Count, Lines, Shape, Text, Words, list_of
from captions.tasks.registry import PICTURES, SEEN_ONLY, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft


class Thing(Shape):
    """A kind of thing in a picture."""

    aliases: ClassVar[Mapping[str, str]] = {
        "object": "name",
        "label": "name",
        "number": "count",
        "location": "position",
    }
    name: Text = Field("", description="what it is")
    count: Count = Field(None, description="how many")
    position: Text = Field("", description="where in the picture")
    details: Text = Field("", description="colour, material, state")

    def __str__(self) -> str:
        """Return its name, with how many there are."""
        return f"{self.count} {self.name}" if self.count is not None and self.count > 1 else self.name


class ObjectsAnswer(Answer):
    """An inventory."""

    main: ClassVar[str] = "scene"
    aliases: ClassVar[Mapping[str, str]] = {"summary": "scene", "description": "scene", "items": "objects"}
    scene: Text = Field("", description="the place and situation in one sentence")
    objects: Annotated[tuple[Thing, ...], list_of(Thing)] = Field(())
    brands: Words = Field((), description="brand whose name or logo can be seen")
    signage: Lines = Field((), description="what a sign or label says, verbatim")


def read(answer: ObjectsAnswer, draft: AnswerDraft) -> None:
    """Read an inventory: a scene, and things that have a name."""
    things = [thing for thing in answer.objects if thing.name]
    scene = draft.plain(answer.scene)
    if not scene and not things:
        draft.fail("empty", "Neither a scene nor any object was named.")
        return
    if not things:
        message = "No object was listed; list every kind of thing that can be told."
        draft.doubt("no_objects", message, repairable=True, weight=0.2)
    draft.text = scene or ", ".join(map(str, things))
    draft.doubt_writing((*answer.signage, *answer.brands))
    draft.written = [draft.text, " ".join(f"{thing.name} {thing.position} {thing.details}" for thing in things)]
    draft.read = [*answer.signage, *answer.brands]
    draft.data = {
        "objects": [thing.model_dump() for thing in things],
        "brands": list(answer.brands),
        "signage": list(answer.signage),
    }


TASK = Task(
    name="objects",
    kinds=PICTURES,
    needs="image",
    max_tokens=1_000,
    shape=ObjectsAnswer,
    role="You take inventory of pictures.",
    rules=(
        "List every kind of thing that can be told, the most prominent first: what it is, how many (null where "
        "they cannot be counted), where, and what distinguishes it. People are counted, never named.",
        "Name a brand only if its name or logo can be seen. Give signs and labels verbatim.",
        SEEN_ONLY,
    ),
    request="List what is in this picture.",
    read=read,
    prose_is_useful=False,
)
