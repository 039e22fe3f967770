"""Transcripts that came as such, from `/v1/audio/transcriptions` instead of a chat: words and times, and no JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import MappingProxyType

from captions.tasks import languages
from captions.tasks.asks import Ask
from captions.tasks.outputs import Output, Reading, Seen
from captions.tasks.reading import read
from captions.tasks.subtitles import Segment

# Whisper names languages in English words (openai/whisper, tokenizer.py); others give codes.
_NAMES = MappingProxyType(
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


def transcript(
    ask: Ask, text: str, segments: Iterable[Segment] = (), language: str | None = None, seen: Seen | None = None
) -> Reading:
    """Read a transcript as `read` reads an answer to the task `transcribe`: the same checks, the same output.

    `language` is what the endpoint calls it, a code or an English name. Without words the output's text is empty: these
    models hear speech and nothing else.
    """
    timed = [{"text": one.text, "start": one.start_s, "end": one.end_s} for one in segments]
    if not text.strip() and not timed:
        data = {"speech": False, "segments": [], "speakers": [], "sounds": ""}
        return Reading(Output(text="", language=languages.UNDETERMINED, data=data))
    tag = _NAMES.get((language or "").strip().lower()) or languages.tag(language or "") or ""
    return read(ask, json.dumps({"language": tag, "segments": timed or [{"text": text}]}), seen)
