"""What happens in videos, scene by scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Lines, Seconds, Shape, Text, list_of
from captions.tasks.kinds.transcribe import Utterance, segments_of
from captions.tasks.registry import NO_NAMES, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft


class Scene(Shape):
    """What happens for a while."""

    aliases: ClassVar[Mapping[str, str]] = {"description": "text", "start_s": "start", "end_s": "end", "from": "start",
                                            "to": "end"}  # fmt: skip
    text: Text = Field("", description="what happens")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")


class VideoAnswer(Answer):
    """A description of a video."""

    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"caption": "summary", "text": "summary", "description": "summary",
                                            "transcript": "speech", "segments": "speech"}  # fmt: skip
    summary: Text = Field("", description="what the video shows from start to end, in one to four sentences")
    scenes: Annotated[tuple[Scene, ...], list_of(Scene)] = Field(())
    speech: Annotated[tuple[Utterance, ...], list_of(Utterance)] = Field(())
    sounds: Text = Field("", description="one sentence on music and noises")
    visible_text: Lines = Field((), description="words written in the pictures")


def read(answer: VideoAnswer, draft: AnswerDraft) -> None:
    """Read a description: scenes and speech lie within the video."""
    summary = draft.plain(answer.summary)
    scenes = [scene for scene in answer.scenes if scene.text]
    if not summary and not scenes:
        draft.fail("empty", "Neither a summary nor any scene was given.")
        return
    speech = segments_of(answer.speech, draft)
    duration = draft.seen.duration_s
    if duration is not None and any((scene.start or 0.0) > duration + 1.0 for scene in scenes):
        draft.doubt("times", "Scenes lay beyond the video's end.", weight=0.2)
    draft.text = summary or " ".join(scene.text for scene in scenes)
    draft.written = [draft.text, *(scene.text for scene in scenes)]
    draft.read = [*answer.visible_text, *(segment["text"] for segment in speech)]
    draft.data = {
        "scenes": [{"start_s": scene.start, "end_s": scene.end, "text": scene.text} for scene in scenes],
        "segments": speech,
        "sounds": answer.sounds,
        "visible_text": list(answer.visible_text),
    }


TASK = Task(
    name="video",
    kinds=frozenset({"video"}),
    needs="video",
    max_tokens=3_000,
    shape=VideoAnswer,
    role="You describe videos for people who have not seen them.",
    rules=(
        "Start with the subject itself, never with words such as 'The video shows'. Say what happens in order, "
        "scene by scene with times in seconds, and what is said and heard.",
        "Say only what can be seen or heard; what is uncertain is left out or called uncertain.",
        NO_NAMES,
    ),
    request="Describe this video.",
    read=read,
    exact_only=True,
    own_context="frames",
)
