"""Answers to questions about recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Flag, Text
from captions.tasks.registry import HEARD_ONLY, NO_NAMES, SOUNDS, Task

if TYPE_CHECKING:
    from captions.tasks.parts import Heard
    from captions.tasks.reader import AnswerDraft


class AudioAnswer(Answer):
    """An answer, with what in the recording it rests on."""

    main: ClassVar[str] = "answer"
    aliases: ClassVar[Mapping[str, str]] = {"text": "answer", "quote": "evidence", "found": "answerable"}
    answerable: Flag = Field(True, description="whether the recording holds the answer")
    answer: Text = Field("", description="the answer, or what is missing in the recording")
    evidence: Text = Field("", description="the words or sounds it rests on")


def read(answer: AudioAnswer, draft: AnswerDraft) -> None:
    """Read an answer; one without evidence is doubted."""
    text = draft.plain(answer.answer)
    if not text and answer.answerable:
        draft.fail("empty", "There was no answer.")
        return
    if answer.answerable and not answer.evidence:
        message = "Name the words or sounds in the recording that the answer rests on."
        draft.doubt("no_evidence", message, repairable=True, weight=0.15)
    draft.text = text
    draft.written, draft.read = [text] if text else [], [answer.evidence]
    draft.data = {"question": draft.ask.question, "answerable": answer.answerable, "evidence": answer.evidence}


def merge(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the data of a recording: answerable if any part answers."""
    answered = [part for part in parts if part.output.data.get("answerable")]
    return {
        "question": parts[0].output.data.get("question", "") if parts else "",
        "answerable": bool(answered),
        "evidence": "\n".join(filter(None, (str(part.output.data.get("evidence") or "") for part in answered))),
    }


TASK = Task(
    name="audio_qa",
    kinds=SOUNDS,
    needs="audio",
    max_tokens=600,
    shape=AudioAnswer,
    role="You answer questions about recordings from what is heard in them, and from nothing else.",
    rules=(
        "If the recording does not hold the answer, 'answerable' is false and 'answer' says what is missing; never "
        "guess and never answer from what you know otherwise.",
        HEARD_ONLY,
        NO_NAMES,
    ),
    request="Answer the question about this recording.",
    read=read,
    merge=merge,
    exact_only=True,
    needs_question=True,
    answered_by="answerable",
)
