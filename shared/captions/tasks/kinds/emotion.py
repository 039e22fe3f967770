"""How the voices in recordings sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Seconds, Shape, Share, Text, list_of
from captions.tasks.parts import Heard, longest
from captions.tasks.registry import HEARD_ONLY, SOUNDS, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft


class Feeling(Shape):
    """How a voice sounds for a while."""

    aliases: ClassVar[Mapping[str, str]] = {"name": "speaker", "id": "speaker", "from": "start", "to": "end"}
    speaker: Text = Field("", description="'Speaker 1', ...")
    emotion: Text = Field("", description="calm, happy, sad, angry, afraid, surprised, disgusted, ...")
    intensity: Share = Field(None, description="from 0 to 1")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")
    evidence: Text = Field("", description="what in the voice tells it")


class EmotionAnswer(Answer):
    """The prevailing emotion, and each voice's."""

    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"text": "summary", "overall": "emotion", "speakers": "voices"}
    summary: Text = Field("", description="how the voices sound, in one or two sentences")
    emotion: Text = Field("", description="the prevailing emotion in one word; 'none' if there is no voice")
    voices: Annotated[tuple[Feeling, ...], list_of(Feeling)] = Field(())


def read(answer: EmotionAnswer, draft: AnswerDraft) -> None:
    """Read emotions: without a voice there are none."""
    voices = [voice for voice in answer.voices if voice.emotion]
    summary = draft.plain(answer.summary)
    emotion = " ".join(answer.emotion.lower().split())[:60]
    if not summary and not voices and not emotion:
        draft.fail("empty", "No emotion was named.")
        return
    if emotion == "none" and voices:
        message = "No voice was said to be there, but voices were described."
        draft.doubt("contradiction", message, repairable=True, weight=0.25)
    draft.text = summary or emotion or ", ".join(dict.fromkeys(voice.emotion for voice in voices))
    draft.written = [draft.text]
    draft.read = [voice.evidence for voice in voices]
    draft.data = {
        "emotion": emotion or "unknown",
        "voices": [
            voice.model_dump(exclude={"start", "end"}) | {"start_s": voice.start, "end_s": voice.end}
            for voice in voices
        ],
    }


def merge(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the data of a recording: the emotion of most of the time, and all voices with times of the whole."""
    voices = []
    for part in parts:
        for voice in part.output.data.get("voices", ()):
            times = {
                name: round(part.start_s + float(voice[name]), 3)
                for name in ("start_s", "end_s")
                if voice.get(name) is not None
            }
            voices.append({**voice, **times})
    heard = [part for part in parts if part.output.data.get("emotion") not in (None, "none", "unknown")]
    return {"emotion": longest(heard, lambda part: str(part.output.data["emotion"])) or "none", "voices": voices}


TASK = Task(
    name="emotion",
    kinds=SOUNDS,
    needs="audio",
    max_tokens=1_000,
    shape=EmotionAnswer,
    role="You tell how the voices in recordings sound.",
    rules=(
        "Judge the voice (pitch, pace, loudness, breaks), not the words. Speakers are numbered, never named; give "
        "each change of feeling its own entry with its times.",
        "If there is no voice, the prevailing emotion is 'none' and the list is empty.",
        HEARD_ONLY,
    ),
    request="How do the voices in this recording sound?",
    read=read,
    merge=merge,
    exact_only=True,
    prose_is_useful=False,
)
