"""What music is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Number, Perhaps, Text, Words
from captions.tasks.parts import Heard, lists
from captions.tasks.registry import HEARD_ONLY, SOUNDS, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft


class MusicAnswer(Answer):
    """A description of music."""

    main: ClassVar[str] = "summary"
    aliases: ClassVar[Mapping[str, str]] = {"text": "summary", "description": "summary", "genre": "genres",
                                            "bpm": "tempo_bpm", "tempo": "tempo_bpm", "is_music": "music"}  # fmt: skip
    summary: Text = Field("", description="what kind of music it is and how it goes, in one to three sentences")
    music: Perhaps = Field(None, description="whether there is music at all")
    genres: Words = Field((), description="genre")
    instruments: Words = Field((), description="instrument that is heard")
    vocals: Text = Field("", description="none, or what voices")
    mood: Text = Field("", description="in a few words")
    tempo_bpm: Number = Field(None, description="beats a minute, if they can be counted")


def read(answer: MusicAnswer, draft: AnswerDraft) -> None:
    """Read what music is like: a tempo that music has, and nothing of music where there is none."""
    summary = draft.plain(answer.summary)
    if not summary and not answer.genres and not answer.instruments:
        draft.fail("empty", "Nothing was said of the music.")
        return
    tempo = answer.tempo_bpm
    if tempo is not None and not 20 <= tempo <= 400:
        draft.doubt("tempo", "The tempo is none that music has.")
        tempo = None
    if answer.music is False and (answer.genres or answer.instruments):
        message = "There was said to be no music, but genres or instruments were named."
        draft.doubt("contradiction", message, repairable=True, weight=0.25)
    draft.text = summary or ", ".join((*answer.genres, *answer.instruments))
    draft.written = [draft.text]
    draft.data = {
        "music": answer.music,
        "genres": list(answer.genres),
        "instruments": list(answer.instruments),
        "vocals": answer.vocals,
        "mood": answer.mood,
        "tempo_bpm": tempo,
    }


def merge(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the data of a recording: the longest part with music, and the genres and instruments of all."""
    playing = [part for part in parts if part.output.data.get("music")]
    if not playing:
        return dict(parts[0].output.data) if parts else {}
    main = max(playing, key=lambda part: part.seconds)
    every = lists(playing)
    return {**main.output.data, **{name: every[name] for name in ("genres", "instruments") if name in every}}


TASK = Task(
    name="music",
    kinds=SOUNDS,
    needs="audio",
    max_tokens=600,
    shape=MusicAnswer,
    role="You describe the music in recordings.",
    rules=(
        "Say how it sounds, not who made it: never name a piece or performer unless the data given with the "
        "recording does. If there is no music, 'music' is false and the summary says what is heard.",
        HEARD_ONLY,
    ),
    request="Describe the music in this recording.",
    read=read,
    merge=merge,
    exact_only=True,
    answered_by="music",
)
