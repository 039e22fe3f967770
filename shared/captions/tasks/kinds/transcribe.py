"""What is said in recordings, word for word, with times and speakers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from captions.tasks import languages
from captions.tasks.answer_schema import Answer, Seconds, Shape, Text, list_of
from captions.tasks.registry import SOUNDS, Task

if TYPE_CHECKING:
    from captions.gateway import Segment
    from captions.tasks.ask import Ask
    from captions.tasks.parts import Heard
    from captions.tasks.reader import AnswerDraft
    from captions.tasks.result import Reading, Seen

_TOKENS = re.compile(r"^language \w{2,20}\s?<asr_text>|\s*<\|[\w.:-]{1,30}\|>\s*|^<s>|</s>$")
"""Of models that hear, which some servers leave in what they heard: Whisper's, SenseVoice's, Qwen3-ASR's."""
_WORDS_PER_SECOND = 7.0
"""More is not spoken: the fastest speakers reach about six words a second for short stretches."""
_SILENCE: Mapping[str, Any] = MappingProxyType({"speech": False, "segments": [], "speakers": [], "sounds": ""})
# Whisper names languages in English words (openai/whisper, tokenizer.py); others give codes.
_LANGUAGES = MappingProxyType(
    {
        "afrikaans": "af", "arabic": "ar", "armenian": "hy", "azerbaijani": "az", "belarusian": "be", "bengali": "bn",
        "bosnian": "bs", "bulgarian": "bg", "cantonese": "yue", "catalan": "ca", "chinese": "zh", "croatian": "hr",
        "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "estonian": "et", "finnish": "fi",
        "french": "fr", "galician": "gl", "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi",
        "hungarian": "hu", "icelandic": "is", "indonesian": "id", "italian": "it", "japanese": "ja", "kannada": "kn",
        "kazakh": "kk", "korean": "ko", "latvian": "lv", "lithuanian": "lt", "macedonian": "mk", "malay": "ms",
        "maori": "mi", "marathi": "mr", "nepali": "ne", "norwegian": "no", "persian": "fa", "polish": "pl",
        "portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr", "slovak": "sk", "slovenian": "sl",
        "spanish": "es", "swahili": "sw", "swedish": "sv", "tagalog": "tl", "tamil": "ta", "telugu": "te",
        "thai": "th", "turkish": "tr", "ukrainian": "uk", "urdu": "ur", "vietnamese": "vi", "welsh": "cy",
    }
)  # fmt: skip


class Utterance(Shape):
    """A stretch of speech."""

    aliases: ClassVar[Mapping[str, str]] = {"start_s": "start", "end_s": "end", "begin": "start", "from": "start",
                                            "to": "end", "content": "text", "who": "speaker"}  # fmt: skip
    text: Text = Field("", description="what is said, word for word")
    start: Seconds = Field(None, description="seconds from the start")
    end: Seconds = Field(None, description="seconds from the start")
    speaker: Text = Field("", description="'Speaker 1', ...")


class Speaker(Shape):
    """A voice, and how it sounds."""

    aliases: ClassVar[Mapping[str, str]] = {"name": "speaker", "id": "speaker", "mood": "emotion", "feeling": "emotion"}
    speaker: Text = Field("", description="'Speaker 1', ...")
    emotion: Text = Field("", description="calm, happy, sad, angry, afraid, surprised, ... as it sounds")


class TranscribeAnswer(Answer):
    """A transcript."""

    main: ClassVar[str] = "segments"
    aliases: ClassVar[Mapping[str, str]] = {"text": "segments", "transcript": "segments", "transcription": "segments",
                                            "heard": "sounds"}  # fmt: skip
    language: Text = Field("", description="BCP-47 tag of what is spoken; 'und' if nobody speaks")
    segments: Annotated[tuple[Utterance, ...], list_of(Utterance)] = Field(())
    speakers: Annotated[tuple[Speaker, ...], list_of(Speaker)] = Field(())
    sounds: Text = Field("", description="one sentence on what else is heard")


def read(answer: TranscribeAnswer, draft: AnswerDraft) -> None:
    """Read a transcript: what is said, in the language it is said in; or else what is heard."""
    segments = segments_of(answer.segments, draft)
    words = " ".join(segment["text"] for segment in segments)
    sounds = " ".join(answer.sounds.split())
    if not words and not sounds:
        draft.fail("empty", "There was neither speech nor a word on what else is heard.")
        return
    draft.text = words or sounds
    language = languages.tag(answer.language)
    if answer.language and language is None:
        draft.doubt("language_tag", "The language was no BCP-47 tag.", weight=0.05)
    if language == languages.UNDETERMINED:
        language = None
    if words and language and languages.contradiction(words, language):
        message = "The transcript is not in the language it names; transcribe in the language that is spoken."
        draft.doubt("language_tag", message, repairable=True, weight=0.2)
        language = None
    draft.language = (language or languages.guess(words) or languages.UNDETERMINED) if words else draft.ask.language
    draft.written, draft.read = ([sounds] if sounds else []), [words]
    draft.data = {
        "speech": bool(words),
        "segments": segments,
        "speakers": [speaker.model_dump() for speaker in answer.speakers if speaker.speaker],
        "sounds": sounds,
    }


def _without_tokens(utterance: Utterance) -> Utterance:
    bare = _TOKENS.sub(" ", utterance.text).strip()
    return utterance if bare == utterance.text else utterance.model_copy(update={"text": bare})


def segments_of(utterances: Sequence[Utterance], draft: AnswerDraft) -> list[dict[str, Any]]:
    """Return segments in order, with times only where they can be right; what contradicts the recording is doubted."""
    kept = [_without_tokens(utterance) for utterance in utterances if _TOKENS.sub("", utterance.text).strip()]
    words = sum(len(utterance.text.split()) for utterance in kept)
    duration = draft.seen.duration_s
    if duration is not None and words and words > max(2.0, duration * _WORDS_PER_SECOND):
        message = f"There are more words than can be spoken in {duration:.1f} seconds; write down only what is said."
        draft.doubt("too_much_speech", message, repairable=True, weight=0.5)
    starts = [utterance.start for utterance in kept if utterance.start is not None]
    if starts != sorted(starts):
        draft.doubt("times", "The segments were not in the order of their times.")
        if len(starts) == len(kept):
            kept.sort(key=lambda utterance: utterance.start or 0.0)
    beyond = duration is not None and any((last.end or last.start or 0.0) > duration + 1.0 for last in kept)
    if beyond:
        draft.doubt("times", "Segments lay beyond the recording's end.", weight=0.2)
    segments = []
    for place, utterance in enumerate(kept):
        start, end = utterance.start, utterance.end
        if start is not None and end is None:
            following = kept[place + 1].start if place + 1 < len(kept) else duration
            end = following if following is not None and following > start else None
        if start is None or end is None or end < start or (beyond and duration is not None and start >= duration):
            start = end = None
        elif duration is not None:
            end = min(end, duration) if start < duration else end
        segments.append({"start_s": start, "end_s": end, "text": utterance.text, "speaker": utterance.speaker or None})
    return segments


def transcript(
    ask: Ask, text: str, segments: Iterable[Segment] = (), language: str | None = None, seen: Seen | None = None
) -> Reading:
    """Read what `/v1/audio/transcriptions` answered, words and times without JSON, as an answer to this task is read.

    `language` is what the endpoint calls it, a code or an English name. Without words the output's text is empty: these
    models hear speech and nothing else.
    """
    from captions.tasks.reader import read as read_answer
    from captions.tasks.result import Output, Reading

    text = _TOKENS.sub(" ", text)
    stripped = ((_TOKENS.sub(" ", segment.text), segment) for segment in segments)
    timed = [{"text": words, "start": at.start_s, "end": at.end_s} for words, at in stripped if words.strip()]
    if not text.strip() and not timed:
        return Reading(Output(text="", language=languages.UNDETERMINED, data=dict(_SILENCE)))
    tag = _LANGUAGES.get((language or "").strip().lower()) or languages.tag(language or "") or ""
    return read_answer(ask, json.dumps({"language": tag, "segments": timed or [{"text": text}]}), seen)


def merge(parts: Sequence[Heard]) -> dict[str, Any]:
    """Return the data of a recording, its segments with times of the whole.

    A model numbers speakers from one in each part; who is who across parts is not known, and not claimed.
    """
    with_voices = sum(bool(part.output.data.get("speakers") or _has_voices(part)) for part in parts)
    numbered = [(number if with_voices > 1 else 0, part) for number, part in enumerate(parts, 1)]
    sounds = dict.fromkeys(str(part.output.data.get("sounds") or "") for part in parts)
    return {
        "speech": any(part.output.data.get("speech") for part in parts),
        "segments": [segment for number, part in numbered for segment in _moved(part, number)],
        "speakers": [
            {**speaker, "speaker": _label(str(speaker.get("speaker", "")), number)}
            for number, part in numbered
            for speaker in part.output.data.get("speakers", ())
        ],
        "sounds": " ".join(filter(None, sounds)),
    }


def _has_voices(part: Heard) -> bool:
    return any(segment.get("speaker") for segment in part.output.data.get("segments", ()))


def _label(speaker: str, number: int) -> str:
    return f"{speaker} (part {number})" if speaker and number else speaker


def _moved(part: Heard, number: int) -> list[dict[str, Any]]:
    """Return a part's segments with times of the whole; those without times stand for the part they are in."""
    segments = [dict(segment) for segment in part.output.data.get("segments", ()) if segment.get("text")]
    if any(segment.get("start_s") is None or segment.get("end_s") is None for segment in segments):
        voices = {segment.get("speaker") for segment in segments}
        text = " ".join(str(segment["text"]) for segment in segments)
        speaker = voices.pop() if len(voices) == 1 else None
        segments = [{"start_s": 0.0, "end_s": part.seconds, "text": text, "speaker": speaker}]
    for segment in segments:
        segment["start_s"] = round(part.start_s + min(float(segment["start_s"]), part.seconds), 3)
        segment["end_s"] = round(part.start_s + min(float(segment["end_s"]), part.seconds), 3)
        segment["speaker"] = _label(str(segment.get("speaker") or ""), number) or None
    return segments


TASK = Task(
    name="transcribe",
    kinds=SOUNDS,
    needs="audio",
    max_tokens=6_000,
    shape=TranscribeAnswer,
    role="You transcribe recordings word for word, in the language that is spoken.",
    rules=(
        "Leave out nothing that is said and add nothing; nothing is translated. Mark what cannot be understood as "
        "[unclear].",
        "Begin a segment with each sentence or change of speaker, with its times in seconds where you can tell "
        "them. Speakers are numbered, never named, and each has the emotion that is heard in the voice.",
        "If nobody speaks, there are no segments, and 'sounds' says what is heard instead.",
    ),
    request="Transcribe this recording.",
    read=read,
    merge=merge,
    exact_only=True,
    copies=True,
    transcribes=True,
    answered_by="speech",
    silence=_SILENCE,
)
