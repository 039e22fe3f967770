"""Reading an answer: out of whatever a model wrapped it in, into the task's output, with all that is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from captions.tasks import alt_text, answers, charts, checks, languages, prompts
from captions.tasks import code as codes
from captions.tasks.asks import Ask
from captions.tasks.outputs import Output, Problem, Reading, Seen
from captions.tasks.parsing import MAX_ANSWER, answer_object, broken, whole_object
from captions.tasks.plain import clean
from captions.tasks.reasoning import begins_with_reasoning, field_has_reasoning, without_reasoning
from captions.tasks.vocabulary import mapped, tidy

WRITING_FROM, PAGE_WRITING_FROM, NO_WRITING = 0.2, 0.06, 0.005
"""Shares of a picture that look like writing (`picture_class`): above the first there is some whatever the picture
looks like, above the second if it looks like a page; below the third there is hardly any. Of 52 photos the one with the
most had 0.17; invoices, receipts and screenshots of code had 0.04 to 0.14, slides and pages more."""
_PAGES = frozenset({"document", "screenshot", "code"})
_WORDS_PER_SECOND = 7.0
"""More is not spoken: the fastest speakers reach about six words a second for short stretches."""
_PROSE_TASKS = frozenset({"caption", "alt_text", "ocr", "code", "transcribe", "audio_qa", "music", "video"})
"""Tasks whose answer in prose is of use; the others need their fields."""


@dataclass
class _Draft:
    """An output in the making: its text, which texts of it were written by the model and which were copied."""

    text: str = ""
    language: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    repaired: bool = False
    useless: bool = False

    def add(self, *found: Problem | None) -> None:
        self.problems.extend(problem for problem in found if problem is not None)

    def fail(self, code: str, message: str) -> None:
        self.add(Problem(code=code, message=message, repairable=True, weight=1.0))
        self.useless = True


def read(ask: Ask, answer_text: str, seen: Seen | None = None) -> Reading:
    """Read what a model answered to `prompt(ask)`; nothing that an answer can hold makes this raise.

    `seen` is what is known of the media without a model, to hold the answer against.
    """
    seen = seen or Seen()
    shape = prompts.shape(ask.task)
    answer_text = answer_text.encode("utf-8", "replace").decode()  # halves of surrogate pairs are no text
    if not answer_text.strip():
        return _failed("empty", "There was no answer.")
    known = {*shape.model_fields, *shape.aliases}
    answer_text = answer_text[:MAX_ANSWER]
    draft = _Draft()
    if begins_with_reasoning(answer_text) and not whole_object(answer_text):
        answer_text, complete = without_reasoning(answer_text)
        if not complete or not answer_text:
            return _failed("reasoning", "There was reasoning, and no answer after it. Answer at once.")
    document, how = answer_object(answer_text, known)
    if document is not None and ask.task not in prompts.COPYING:
        document = {name: _answered(value) for name, value in document.items()}
    if document is not None:
        answer = shape.taken(document)
        if how == "repaired":
            draft.add(Problem(code="json", message="The answer was not valid JSON.", weight=0.1))
        draft.repaired = how == "repaired"
    else:
        answer_text, _ = without_reasoning(answer_text)
        prose = clean(answer_text)
        if _refusal(prose, ask):
            return _failed("refusal", "The model declined to answer.", repairable=False)
        if broken(answer_text) or not prose:
            return _failed("json", "The answer was not valid JSON of the shape that was asked for.")
        answer = shape.taken({shape.main: prose})
        structured = ask.task not in _PROSE_TASKS
        message = "The answer was prose, not JSON of the shape that was asked for."
        draft.add(Problem(code="prose", message=message, repairable=structured, weight=0.3 if structured else 0.1))
        draft.repaired = True
    if ask.task not in prompts.COPYING and _refusal(str(getattr(answer, shape.main, "")), ask):
        return _failed("refusal", "The model declined to answer.", repairable=False)
    _DRAFTS[ask.task](ask, answer, seen, draft)
    if draft.useless:
        return Reading(None, tuple(draft.problems), draft.repaired)
    return _finished(ask, answer, draft)


def _answered(value: Any) -> Any:
    """A field without the reasoning that a model put into it where it had to answer in JSON."""
    return without_reasoning(value)[0] if isinstance(value, str) and field_has_reasoning(value) else value


def _failed(code: str, message: str, *, repairable: bool = True) -> Reading:
    return Reading(None, (Problem(code=code, message=message, repairable=repairable, weight=1.0),))


def _refusal(text: str, ask: Ask) -> bool:
    # What a recording or a page says may well be a refusal.
    return ask.task not in prompts.COPYING and checks.refused(text)


def _finished(ask: Ask, answer: answers.Answer, draft: _Draft) -> Reading:
    given = [*ask.context.values(), ask.question]
    written = [text for text in draft.written if text]
    draft.add(checks.wrong_language(written, ask.language) if written else None)
    copied = ask.task in prompts.COPYING
    if (degenerate := checks.degenerate(draft.text, copied=copied)) is not None:
        return Reading(None, (*draft.problems, degenerate), draft.repaired)
    draft.add(checks.repetition("\n".join(filter(None, (draft.text, *written[1:])))))
    draft.add(checks.leaked("\n".join(written)))
    draft.add(checks.obedience(draft.text, [*given, *draft.read]))
    if written:
        known = " ".join((*given, *draft.read))
        draft.add(checks.strange_links(" ".join(written), known))
        draft.add(checks.names(written[0], ask.language, [*given, *draft.read, ask.template]))
    language = draft.language or ask.language
    if any(problem.code == "wrong_language" for problem in draft.problems):
        language = languages.guess(" ".join(written)) or languages.UNDETERMINED
    tags, others = mapped(answer.tags, ask.vocabulary) if ask.vocabulary else (tidy(answer.tags), ())
    data = draft.data | ({"other_tags": list(others)} if others else {})
    return Reading(
        Output(
            text=draft.text,
            language=language,
            tags=tags,
            safety=answer.safety,
            confidence=answer.confidence,
            data=data,
        ),
        tuple(_distinct(draft.problems)),
        draft.repaired,
    )


def _distinct(problems: Iterable[Problem]) -> Iterable[Problem]:
    """Yield one problem of each code, the heaviest."""
    heaviest: dict[str, Problem] = {}
    for problem in problems:
        if problem.code not in heaviest or heaviest[problem.code].weight < problem.weight:
            heaviest[problem.code] = problem
    return heaviest.values()


def _told(draft: _Draft, text: str) -> str:
    """Return a written text without what does not belong into it, and note what that was."""
    bare, markup = checks.without_markup(" ".join(text.split()) if "\n" not in text else text)
    bare, lead_in = checks.without_lead_in(bare)
    draft.add(markup, lead_in)
    draft.repaired = draft.repaired or bare != text
    return bare


def _caption(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.CaptionAnswer, answer)
    text = _told(draft, answer.caption)
    if not text:
        draft.fail("empty", "There was no caption.")
        return
    draft.add(checks.file_name(text))
    if checks.estimated_tokens(text) > prompts.CAPTION_TOKENS:
        message = f"The caption was longer than {prompts.CAPTION_TOKENS} tokens."
        draft.add(Problem(code="too_long", message=message, weight=0.2))
        text = _within_tokens(text, prompts.CAPTION_TOKENS)
        draft.repaired = True
    elif checks.estimated_tokens(text) < 4:
        message = "The caption said next to nothing; say who or what is shown, what happens, and where."
        draft.add(Problem(code="too_short", message=message, repairable=True, weight=0.3))
    _note_writing(answer.visible_text, seen, draft)
    draft.text = text
    draft.written, draft.read = [text], list(answer.visible_text)
    draft.data = {"visible_text": list(answer.visible_text)}


def _within_tokens(text: str, tokens: int) -> str:
    characters = len(text) * tokens // checks.estimated_tokens(text)
    while checks.estimated_tokens(cut := checks.cut(text, characters)) > tokens:
        characters = characters * 9 // 10
    return cut


def _alt_text(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.AltTextAnswer, answer)
    purpose = answer.purpose
    long_description = _told(draft, answer.long_description)
    alt = _told(draft, answer.alt)
    if purpose == "decorative":
        if alt:
            message = "A decorative picture has an empty alt text; either it has none or another purpose."
            draft.add(Problem(code="decorative", message=message, repairable=True, weight=0.25))
            # To say too much is the lesser harm to somebody who cannot see.
            purpose = "informative"
        elif seen.category in ("chart", "document", "screenshot", "code", "product"):
            message = f"The picture was called decorative but looks like a {seen.category}; say what it shows."
            draft.add(Problem(code="decorative", message=message, repairable=True, weight=0.4))
        elif not answer.reason:
            draft.add(Problem(code="reason", message="Say why the picture is decorative.", weight=0.1))
    elif not alt:
        if not long_description:
            draft.fail("empty", "There was no alt text, and the picture was not called decorative.")
            return
        alt = checks.cut(checks.sentences(long_description)[0], prompts.ALT_LIMIT)
        draft.add(Problem(code="empty", message="There was no alt text.", repairable=True, weight=0.2))
        draft.repaired = True
    if purpose == "unknown" and alt:
        draft.add(Problem(code="purpose", message="The picture's purpose was not told.", weight=0.05))
    fitted, too_long = alt_text.fitted(alt)
    draft.add(too_long, checks.file_name(fitted))
    draft.repaired = draft.repaired or fitted != alt
    _note_writing(answer.visible_text, seen, draft)
    title = ask.context.get("title", "").strip()
    if title and title.casefold() == fitted.casefold():
        draft.add(Problem(code="title", message="The alt text only repeats the title.", repairable=True, weight=0.2))
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


def _objects(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.ObjectsAnswer, answer)
    things = [thing for thing in answer.objects if thing.name]
    scene = _told(draft, answer.scene)
    if not scene and not things:
        draft.fail("empty", "Neither a scene nor any object was named.")
        return
    if not things:
        message = "No object was listed; list every kind of thing that can be told."
        draft.add(Problem(code="no_objects", message=message, repairable=True, weight=0.2))
    draft.text = scene or ", ".join(_counted(thing) for thing in things)
    _note_writing((*answer.signage, *answer.brands), seen, draft)
    draft.written = [draft.text, " ".join(f"{thing.name} {thing.position} {thing.details}" for thing in things)]
    draft.read = [*answer.signage, *answer.brands]
    draft.data = {
        "objects": [thing.model_dump() for thing in things],
        "brands": list(answer.brands),
        "signage": list(answer.signage),
    }


def _counted(thing: answers.Thing) -> str:
    return f"{thing.count} {thing.name}" if thing.count is not None and thing.count > 1 else thing.name


def _ocr(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.OcrAnswer, answer)
    if "blocks" not in answer.model_fields_set:
        draft.fail("missing", "The blocks of text were missing.")
        return
    blocks = [block for block in answer.blocks if block.text]
    draft.text = "\n\n".join(block.text for block in blocks)
    tags = [languages.tag(block.language) or "" for block in blocks]
    wrong = sum(bool(block.language) and not tag for block, tag in zip(blocks, tags, strict=True))
    if wrong:
        draft.add(Problem(code="language_tag", message="A block's language was no BCP-47 tag.", weight=0.05))
    for place, block in enumerate(blocks):
        if tags[place] and languages.contradiction(block.text, tags[place]):
            tags[place] = languages.guess(block.text) or languages.UNDETERMINED
            draft.add(Problem(code="language_tag", message="A block is not in the language it names.", weight=0.1))
        tags[place] = tags[place] or languages.guess(block.text) or languages.UNDETERMINED
    if not blocks and _full_of_writing(seen):
        message = "No text was found, but the picture looks full of writing; copy it."
        draft.add(Problem(code="text_missed", message=message, repairable=True, weight=0.4))
    _note_writing(tuple(block.text for block in blocks), seen, draft)
    weight = {tag: sum(len(block.text) for block, one in zip(blocks, tags, strict=True) if one == tag) for tag in tags}
    draft.language = max(weight, key=lambda tag: weight[tag]) if weight else languages.UNDETERMINED
    draft.written, draft.read = [], [draft.text]
    draft.data = {
        "blocks": [
            {"text": block.text, "language": tag, "role": block.role} for block, tag in zip(blocks, tags, strict=True)
        ],
        "languages": list(dict.fromkeys(tags)),
        "scripts": [name.lower() for name, _ in languages.scripts(draft.text).most_common(8)],
        "unclear": list(answer.unclear),
    }


def _chart(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.ChartAnswer, answer)
    summary = _told(draft, answer.summary)
    if not summary and not answer.series:
        draft.fail("empty", "There was neither a summary nor any data.")
        return
    is_chart = answer.chart_type.strip().lower() not in ("none", "no chart")
    if is_chart:
        draft.add(*charts.problems(answer))
        if seen.category in ("photo", "product", "busy", "little"):
            message = "A chart was described, but the picture does not look like one; its type is 'none' if it is none."
            draft.add(Problem(code="no_chart", message=message, repairable=True, weight=0.3))
    elif seen.category == "chart":
        message = "The picture looks like a chart, but was called none."
        draft.add(Problem(code="chart_missed", message=message, repairable=True, weight=0.3))
    draft.text = summary or answer.title or answer.chart_type
    draft.written = [text for text in (summary, *answer.trends, *answer.misleading) if text]
    draft.read = [answer.title, answer.x_axis.label, answer.y_axis.label, *(one.name for one in answer.series)]
    draft.read += [point.x for series in answer.series for point in series.points]
    draft.data = {
        "chart_type": answer.chart_type.strip().lower() or "unknown",
        "title": answer.title,
        "x_axis": answer.x_axis.model_dump(),
        "y_axis": answer.y_axis.model_dump(),
        "series": [series.model_dump(mode="json") for series in answer.series],
        "trends": list(answer.trends),
        "misleading": list(charts.notes(answer)) if is_chart else [],
    }


def _code(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.CodeAnswer, answer)
    if "code" not in answer.model_fields_set:
        draft.fail("missing", "The code was missing.")
        return
    found = codes.processed(answer.code, answer.language, answer.doubts)
    draft.repaired = draft.repaired or found.text != answer.code.strip("\n")
    if found.parsed is False:
        message = f"The code does not parse as {found.language}: {found.error}; copy it again exactly."
        draft.add(Problem(code="syntax", message=message, repairable=True, weight=0.25))
    if found.text and seen.category in ("photo", "product", "little"):
        message = "Code was copied, but the picture does not look like a screenshot; if there is none it is empty."
        draft.add(Problem(code="no_code", message=message, repairable=True, weight=0.3))
    if not found.text and (seen.category == "code" or _full_of_writing(seen)):
        message = "No code was copied, but the picture looks full of writing."
        draft.add(Problem(code="text_missed", message=message, repairable=True, weight=0.4))
    draft.text = found.text
    draft.written, draft.read = [answer.summary] if answer.summary else [], [found.text]
    draft.data = {
        "programming_language": found.language,
        "summary": answer.summary,
        "parsed": found.parsed,
        "error": found.error,
        "doubts": list(found.doubts),
    }


def _transcribe(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.TranscribeAnswer, answer)
    segments = _segments(answer.segments, seen, draft)
    said = " ".join(segment["text"] for segment in segments)
    sounds = " ".join(answer.sounds.split())
    if not said and not sounds:
        draft.fail("empty", "There was neither speech nor a word on what else is heard.")
        return
    draft.text = said or sounds
    told = languages.tag(answer.language)
    if answer.language and told is None:
        draft.add(Problem(code="language_tag", message="The language was no BCP-47 tag.", weight=0.05))
    if said and told and told != languages.UNDETERMINED and languages.contradiction(said, told):
        message = "The transcript is not in the language it names; transcribe in the language that is spoken."
        draft.add(Problem(code="language_tag", message=message, repairable=True, weight=0.2))
        told = None
    if told == languages.UNDETERMINED:
        told = None
    draft.language = (told or languages.guess(said) or languages.UNDETERMINED) if said else ask.language
    draft.written, draft.read = ([sounds] if sounds else []), [said]
    draft.data = {
        "speech": bool(said),
        "segments": segments,
        "speakers": [one.model_dump() for one in answer.speakers if one.speaker],
        "sounds": sounds,
    }


def _segments(said: Sequence[answers.Said], seen: Seen, draft: _Draft) -> list[dict[str, Any]]:
    """Return segments in order, with times only where they can be right, and note what contradicts the recording."""
    kept = [one for one in said if one.text]
    words = sum(len(one.text.split()) for one in kept)
    duration = seen.duration_s
    if duration is not None and words and words > max(2.0, duration * _WORDS_PER_SECOND):
        message = f"There are more words than can be spoken in {duration:.1f} seconds; write down only what is said."
        draft.add(Problem(code="too_much_speech", message=message, repairable=True, weight=0.5))
    timed = [one.start for one in kept if one.start is not None]
    if timed != sorted(timed):
        draft.add(Problem(code="times", message="The segments were not in the order of their times.", weight=0.1))
        if len(timed) == len(kept):
            kept.sort(key=lambda one: one.start or 0.0)
    beyond = duration is not None and any((one.end or one.start or 0.0) > duration + 1.0 for one in kept)
    if beyond:
        draft.add(Problem(code="times", message="Segments lay beyond the recording's end.", weight=0.2))
    segments = []
    for place, one in enumerate(kept):
        start, end = one.start, one.end
        if start is not None and end is None:
            following = kept[place + 1].start if place + 1 < len(kept) else duration
            end = following if following is not None and following > start else None
        if start is None or end is None or end < start or (beyond and duration is not None and start >= duration):
            start = end = None
        elif duration is not None:
            end = min(end, duration) if start < duration else end
        segments.append({"start_s": start, "end_s": end, "text": one.text, "speaker": one.speaker or None})
    return segments


def _audio_qa(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.AudioAnswer, answer)
    text = _told(draft, answer.answer)
    if not text and answer.answerable:
        draft.fail("empty", "There was no answer.")
        return
    if answer.answerable and not answer.evidence:
        message = "Name the words or sounds in the recording that the answer rests on."
        draft.add(Problem(code="no_evidence", message=message, repairable=True, weight=0.15))
    draft.text = text
    draft.written, draft.read = [text] if text else [], [answer.evidence]
    draft.data = {"question": ask.question, "answerable": answer.answerable, "evidence": answer.evidence}


def _emotion(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.EmotionAnswer, answer)
    voices = [voice for voice in answer.voices if voice.emotion]
    summary = _told(draft, answer.summary)
    emotion = " ".join(answer.emotion.lower().split())[:60]
    if not summary and not voices and not emotion:
        draft.fail("empty", "No emotion was named.")
        return
    if emotion == "none" and voices:
        message = "No voice was said to be there, but voices were described."
        draft.add(Problem(code="contradiction", message=message, repairable=True, weight=0.25))
    draft.text = summary or emotion or ", ".join(dict.fromkeys(voice.emotion for voice in voices))
    draft.written = [draft.text]
    draft.read = [voice.evidence for voice in voices]
    told = [
        voice.model_dump(exclude={"start", "end"}) | {"start_s": voice.start, "end_s": voice.end} for voice in voices
    ]
    draft.data = {"emotion": emotion or "unknown", "voices": told}


def _music(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.MusicAnswer, answer)
    summary = _told(draft, answer.summary)
    if not summary and not answer.genres and not answer.instruments:
        draft.fail("empty", "Nothing was said of the music.")
        return
    tempo = answer.tempo_bpm
    if tempo is not None and not 20 <= tempo <= 400:
        draft.add(Problem(code="tempo", message="The tempo is none that music has.", weight=0.1))
        tempo = None
    if answer.music is False and (answer.genres or answer.instruments):
        message = "There was said to be no music, but genres or instruments were named."
        draft.add(Problem(code="contradiction", message=message, repairable=True, weight=0.25))
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


def _video(ask: Ask, answer: answers.Answer, seen: Seen, draft: _Draft) -> None:
    answer = cast(answers.VideoAnswer, answer)
    summary = _told(draft, answer.summary)
    scenes = [scene for scene in answer.scenes if scene.text]
    if not summary and not scenes:
        draft.fail("empty", "Neither a summary nor any scene was given.")
        return
    speech = _segments(answer.speech, seen, draft)
    if seen.duration_s is not None and any((scene.start or 0.0) > seen.duration_s + 1.0 for scene in scenes):
        draft.add(Problem(code="times", message="Scenes lay beyond the video's end.", weight=0.2))
    draft.text = summary or " ".join(scene.text for scene in scenes)
    draft.written = [draft.text, *(scene.text for scene in scenes)]
    draft.read = [*answer.visible_text, *(segment["text"] for segment in speech)]
    draft.data = {
        "scenes": [{"start_s": one.start, "end_s": one.end, "text": one.text} for one in scenes],
        "segments": speech,
        "sounds": answer.sounds,
        "visible_text": list(answer.visible_text),
    }


def _full_of_writing(seen: Seen) -> bool:
    return (seen.text_share or 0.0) >= (PAGE_WRITING_FROM if seen.category in _PAGES else WRITING_FROM)


def _note_writing(claimed: Sequence[str], seen: Seen, draft: _Draft) -> None:
    """Note text that is claimed on a picture which looks as if it had none; a word on a small sign is easily missed."""
    characters = sum(len(text) for text in claimed)
    if seen.text_share is None or seen.text_share > NO_WRITING or not characters:
        return
    message = "Text was read, but the picture looks as if it had none; give only what can be read."
    much = characters >= 80
    draft.add(Problem(code="no_writing", message=message, repairable=much, weight=0.4 if much else 0.1))


_DRAFTS: Mapping[str, Callable[[Ask, answers.Answer, Seen, _Draft], None]] = {
    "caption": _caption,
    "alt_text": _alt_text,
    "objects": _objects,
    "ocr": _ocr,
    "chart": _chart,
    "code": _code,
    "transcribe": _transcribe,
    "audio_qa": _audio_qa,
    "emotion": _emotion,
    "music": _music,
    "video": _video,
}
