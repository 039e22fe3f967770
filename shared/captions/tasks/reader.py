"""Reading an answer: out of whatever a model wrapped it in, into the task's output, with all that is doubtful."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captions.tasks import chatter, checks, languages, refusals
from captions.tasks.answer_schema import Answer, snake
from captions.tasks.ask import Ask
from captions.tasks.registry import PICTURES, TASKS, Task
from captions.tasks.result import Output, Problem, Reading, Seen
from captions.tasks.unwrapping import (
    MAX_ANSWER,
    answer_object,
    answer_section,
    begins_with_an_element,
    begins_with_reasoning,
    broken,
    cut_within,
    doubts_itself,
    field_has_reasoning,
    held_object,
    no_answer,
    unwrapped_field,
    whole_object,
    without_asides,
    without_reasoning,
    without_wrapping,
)

WRITING_FROM, PAGE_WRITING_FROM, NO_WRITING = 0.2, 0.06, 0.005
"""Shares of a picture that look like writing (`picture_class`): above the first there is some whatever the picture
looks like, above the second if it looks like a page; below the third there is hardly any. Of 52 photos the one with the
most had 0.17; invoices, receipts and screenshots of code had 0.04 to 0.14, slides and pages more."""
_PAGES = frozenset({"document", "screenshot", "code"})
_MUCH_TEXT = 80
"""Characters; a word on a small sign is easily missed, a paragraph is not."""
MAX_TAGS = 20
_TAG_CHARACTERS = 40
_NO_TAG = re.compile(r"[<>{}]|(.)\1{5}|\b(\w+)(?: \2){2}\b|^\W+$")
_NUMBER = re.compile(r"\d+")
_NUMBERED_TAGS = 3
"""Tags that differ in their number alone; more of them are a loop."""
_FENCE = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}
_LEAD = re.compile(r"^(?:caption|transcript)\s*:\s*", re.IGNORECASE)


@dataclass
class AnswerDraft:
    """The output of an ask in the making, and what is doubtful about it.

    `written` are the texts that the model wrote in its own words, the main one first; `read` are those it copied.
    """

    ask: Ask
    seen: Seen
    text: str = ""
    language: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    repaired: bool = False
    useless: bool = False

    def add(self, *problems: Problem | None) -> None:
        """Note problems; None is none."""
        self.problems.extend(problem for problem in problems if problem is not None)

    def doubt(self, code: str, message: str, *, repairable: bool = False, weight: float = 0.1) -> None:
        """Note a problem."""
        self.add(Problem(code=code, message=message, repairable=repairable, weight=weight))

    def fail(self, code: str, message: str) -> None:
        """Note that the answer is of no use."""
        self.doubt(code, message, repairable=True, weight=1.0)
        self.useless = True

    def plain(self, text: str) -> str:
        """Return a written text without markup and lead-in, and note what of these it had."""
        text = text.removeprefix(TASKS[self.ask.task].request)
        if chatter.thinks_aloud(text):
            text = chatter.spoken_answer(text) or text
        spoken = chatter.without_courtesies(" ".join(text.split()) if "\n" not in text else text)
        bare, markup = checks.without_markup(spoken)
        bare, lead_in = checks.without_lead_in(bare)
        self.add(markup, lead_in)
        self.repaired = self.repaired or bare != text
        return bare

    @property
    def full_of_writing(self) -> bool:
        """Whether the picture looks full of writing."""
        return (self.seen.text_share or 0.0) >= (PAGE_WRITING_FROM if self.seen.category in _PAGES else WRITING_FROM)

    def doubt_writing(self, texts: Sequence[str]) -> None:
        """Note text that is claimed on a picture which looks as if it had none."""
        characters = sum(len(text) for text in texts)
        if self.seen.text_share is None or self.seen.text_share > NO_WRITING or not characters:
            return
        message = "Text was read, but the picture looks as if it had none; give only what can be read."
        much = characters >= _MUCH_TEXT
        self.doubt("no_writing", message, repairable=much, weight=0.4 if much else 0.1)


def clean(text: str) -> str:
    """Take an answer out of the wrapping models like to give: fences, quotes around the whole, a leading label.

    Characters that no caption needs and that could break a terminal or a page (controls) become spaces.
    """
    text = "".join(" " if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text).strip()
    if fenced := _FENCE.match(text):
        text = fenced.group(1).strip()
    text = _LEAD.sub("", text)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def tidy(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags in lower case without marks around them, each once, at most twenty; sentences are no tags."""
    tidied = (" ".join(tag.strip(" #.,;:'\"").replace("_", " ").lower().split()) for tag in tags)
    kept = dict.fromkeys(tag for tag in tidied if tag and len(tag) <= _TAG_CHARACTERS and not _NO_TAG.search(tag))
    numbered: Counter[str] = Counter()
    for tag in tuple(kept):
        stem = _NUMBER.sub("", tag)
        numbered[stem] += bool(stem.strip()) and stem != tag
        if numbered[stem] > _NUMBERED_TAGS:
            del kept[tag]
    return tuple(kept)[:MAX_TAGS]


def mapped(tags: Iterable[str], vocabulary: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the allowed tags these stand for, and those that stand for none.

    A tag is found by itself or one of its synonyms, without regard to case, and in the plural where the vocabulary has
    the singular or the other way round (a closing "s").
    """
    known: dict[str, str] = {}
    for allowed, synonyms in vocabulary.items():
        for name in synonyms:
            known.setdefault(_tag_key(name), allowed)
    # A tag itself stands before another's synonym.
    known |= {_tag_key(allowed): allowed for allowed in vocabulary}
    kept: dict[str, None] = {}
    unknown: list[str] = []
    for tag in tidy(tags):
        key = _tag_key(tag)
        meant = known.get(key) or known.get(f"{key}s") or (known.get(key[:-1]) if key.endswith("s") else None)
        if meant is None:
            unknown.append(tag)
        else:
            kept[meant] = None
    return tuple(kept), tuple(unknown)


def read(ask: Ask, answer_text: str, seen: Seen | None = None) -> Reading:
    """Read what a model answered to `prompt(ask)`; nothing that an answer can hold makes this raise.

    `seen` is what is known of the media without a model, to hold the answer against.
    """
    task = TASKS[ask.task]
    shape = task.shape
    answer_text = answer_text.encode("utf-8", "replace").decode()  # halves of surrogate pairs are no text
    if not answer_text.strip():
        return _failed("empty", "There was no answer.")
    text = _unpacked(answer_text[:MAX_ANSWER], task)
    if isinstance(text, Reading):
        return text
    draft = AnswerDraft(ask, seen or Seen())
    document, how = answer_object(text, {*shape.model_fields, *shape.aliases})
    if document is not None:
        if how == "chatter" and doubts_itself(text):
            return _failed("reasoning", "There were second thoughts after the answer. Give the answer alone.")
        if how == "repaired" and snake(cut_within(text) or "") in _mains(shape):
            return _failed("cut", _CUT, _BROKEN)
        answer = shape.taken(_meant(document, task))
        if how == "repaired":
            draft.add(_BROKEN)
        draft.repaired = how == "repaired"
    else:
        prose = _prose(text, task)
        if isinstance(prose, Reading):
            return prose
        answer = shape.taken({shape.main: prose})
        message = "The answer was prose, not JSON of the shape that was asked for."
        useful = task.prose_is_useful
        draft.doubt("prose", message, repairable=not useful, weight=0.1 if useful else 0.3)
        if task.copies and chatter.thinks_aloud(prose):
            draft.doubt("reasoning", "The text may hold the model's own thoughts.", repairable=True, weight=0.3)
        draft.repaired = True
    if (declined := _declined(str(getattr(answer, shape.main, "")), task)) is not None:
        return declined
    task.read(answer, draft)
    if draft.useless:
        return Reading(None, tuple(draft.problems), draft.repaired)
    return _finished(task, answer, draft)


_BROKEN = Problem(code="json", message="The answer was not valid JSON.")
_CUT = "The answer broke off in the middle; give it in full."
_THOUGHTS_ALONE = "There was reasoning, and no answer after it. Answer at once."


def _unpacked(text: str, task: Task) -> str | Reading:
    """Return an answer without reasoning and what a template leaves around it; a failure where nothing is left."""
    if whole_object(text):
        return text
    if begins_with_reasoning(text):
        text, complete = without_reasoning(text, copied=task.copies)
        if not complete or not text:
            return _failed("reasoning", _THOUGHTS_ALONE)
    elif not task.copies:
        text = without_asides(text)
    return without_wrapping(text if task.copies else answer_section(text))


def _prose(text: str, task: Task) -> str | Reading:
    """Return the answer of a model that did not answer in JSON, or the failure that its words are."""
    prose = clean(text)
    if (declined := _declined(prose, task)) is not None:
        return declined
    if broken(text) or not prose or (not task.copies and no_answer(text)):
        return _failed("json", "The answer was not valid JSON of the shape that was asked for.")
    if not task.copies and begins_with_an_element(prose):
        return _failed("reasoning", "Something stood before the answer. Give the answer alone.")
    prose = clean(chatter.copied_answer(prose) if task.copies else chatter.spoken_answer(prose))
    if not prose:
        return _failed("reasoning", _THOUGHTS_ALONE)
    if not task.copies and checks.breaks_off(prose):
        return _failed("cut", _CUT)
    return prose


def _meant(document: Mapping[Any, Any], task: Task) -> Mapping[Any, Any]:
    """Return the object that a model meant: under the shape's own keys, out of JSON within it, without reasoning."""
    shape = task.shape
    known = {*shape.model_fields, *shape.aliases}
    named = {snake(name): value for name, value in document.items()}
    if not known & named.keys():
        document = next(({shape.main: named[key]} for key in _GENERIC if isinstance(named.get(key), str)), document)
    if task.copies and not task.transcribes:
        return document  # what is written in a picture may well be such marks; nobody speaks them
    document = {name: _without_its_reasoning(value, kept=task.copies) for name, value in document.items()}
    if task.copies:
        return document
    within = (held_object(value, known) for name, value in document.items() if snake(name) in _mains(shape))
    return next(filter(None, within), document)


_GENERIC = ("final_answer", "final", "answer", "result", "output", "response", "final_caption", "content", "text")
"""Keys that models put an answer under when they do not keep to its shape, the surest first."""


def _mains(shape: type[Answer]) -> set[str]:
    """The names of the field without which an answer is of no use."""
    return {shape.main, *(alias for alias, name in shape.aliases.items() if name == shape.main)}


_MARKED = re.compile(r"[<\[◁＜{&\\]")
_DEEPEST_FIELD = 4


def _without_its_reasoning(value: Any, *, kept: bool, depth: int = 0) -> Any:
    """A field, and those within it, without the reasoning that a model put there where it had to answer in JSON.

    `kept`: what only looks like it, such as `[thinking]` in a transcript, stays.
    """
    if isinstance(value, str):
        if depth and not _MARKED.search(value):
            return value
        value = unwrapped_field(value)
        if not field_has_reasoning(value):
            return without_asides(value)
        left, _ = without_reasoning(value)
        return value if kept and not left and value.lstrip().startswith("[") else left
    if depth >= _DEEPEST_FIELD:
        return value
    if isinstance(value, list):
        return [_without_its_reasoning(item, kept=True, depth=depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {name: _without_its_reasoning(item, kept=True, depth=depth + 1) for name, item in value.items()}
    return value


def _failed(code: str, message: str, *others: Problem, repairable: bool = True) -> Reading:
    return Reading(None, (Problem(code=code, message=message, repairable=repairable, weight=1.0), *others))


def _declined(text: str, task: Task) -> Reading | None:
    """A refusal, or words that no media came along; what a recording or a page says may well be one."""
    if task.copies:
        return None
    if refusals.unseen(text):
        return _failed("unseen", "The model says that it got no media.", repairable=False)
    if refusals.refused(text):
        return _failed("refusal", "The model declined to answer.", repairable=False)
    return None


def _finished(task: Task, answer: Answer, draft: AnswerDraft) -> Reading:
    ask = draft.ask
    given = [*ask.context.values(), ask.question]
    written = [text for text in draft.written if text]
    draft.add(checks.wrong_language(written, ask.language) if written else None)
    if (thought := checks.thought(written)) is not None:
        return Reading(None, (*draft.problems, thought), draft.repaired)
    if (echo := checks.echo(draft.text, ask)) is not None:
        return Reading(None, (*draft.problems, echo), draft.repaired)
    if (degenerate := checks.degenerate(draft.text, copied=task.copies)) is not None:
        return Reading(None, (*draft.problems, degenerate), draft.repaired)
    if written and written[0] == draft.text and task.kinds == PICTURES and checks.says_nothing(draft.text):
        return _failed("empty", "The answer said nothing; say who or what is shown.")
    draft.add(checks.repetition("\n".join(filter(None, (draft.text, *written[1:]))), written=not task.copies))
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


def _tag_key(tag: str) -> str:
    return " ".join(tag.replace("_", " ").replace("-", " ").casefold().split())
