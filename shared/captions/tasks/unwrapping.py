"""Getting an answer out of what a model wraps it in: reasoning, fences, chatter, and JSON that is nearly JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from captions.tasks.answer_schema import snake

How = Literal["exact", "chatter", "repaired", "none"]
MAX_ANSWER = 200_000
"""Characters of an answer that are looked at; the longest task may answer with a tenth of them."""
_MAX_REPAIRED = 30_000
_MAX_STARTS = 200
_MAX_DEPTH = 64
# Possessive, as nothing of what an answer may repeat endlessly is to be tried twice.
_FENCE = re.compile(r"^```[\w-]*+[ \t]*+\n?+(.*?)\n?```$", re.DOTALL)
_STRINGS = re.compile(r'"(?P<content>(?:[^"\\]|\\.)*+)(?P<end>"(?P<key>\s*+:)?)?', re.DOTALL)
_BROKEN = re.compile(r"[\"'“][\w -]{1,40}[\"'”]\s*:")
_PARTS = r"(?:[\w.-]{0,24}[:_-]|ant|\w{2,12}(?=Think|Reason))?"
_NAMES = (
    rf"{_PARTS}(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratch_?pad|monologue|chain_?of_?thought"
    r"|cot|rationale|plan(?:ning)?|critique|deliberation|understanding|observations?|[思反]考|推理|分析|생각|사고|추론|denken|gedanken|überlegung(?:en)?"
    r"|réflexion|raisonnement|pensées?|pensamientos?|razonamiento|pensamentos?|raciocínio|ragionamento|pensier[io]|redenering"
    r"|размышлени[ея]|рассуждени[ея]|мысли)(?:_(?:process|start|begin|end|steps?|content|block)|过程|過程|プロセス)?"
)
# As the templates of DeepSeek, Qwen, GLM, Mistral, Kimi, Seed, Cohere, Apertus, LLaVA-CoT and their like write them.
_OPENS = (
    r"<｜begin▁of▁think｜>|<\|inner_prefix\|>|<start_working_out>|<\|channel>thought"
    r"|<details type=\"reasoning\"[^<>]{0,200}>"
    r"|<details>\s{0,9}<summary>\s{0,9}(?:think|thought|reason)|<unused94>|<ctrl94>thought"
    r"|^\s*here is my thought process:|^\s*here are my reasoning steps:"
    r"|<\|im_start\|>\s?(?:think(?:ing)?|analysis)\b|^\s*```(?:think(?:ing)?|thoughts?|reasoning)[ \t]*\n"
)
_CLOSES = (
    r"<｜end▁of▁think｜>|<\|inner_suffix\|>|<end_working_out>|<channel\|>|</details>|<unused95>|<ctrl95>"
    r"|here is my response:|\[BEGIN FINAL RESPONSE\]|\.\.\.done thinking\.|<\|im_start\|>\s?(?:answer|final)\b"
)
_MARK = re.compile(
    rf"(?P<opens>{_OPENS})|(?P<closes>{_CLOSES})"
    rf"|(?:\*\*|(?<!`)`(?!`))?(?:[<＜]\s?[|｜]?|\[|◁|\{{\{{|&lt;|\\u003c)\s?(?P<slash>/)?\s?(?P<name>{_NAMES})(?:\s[^<>]{{0,200}})?\s?"
    rf"(?P<empty>/)?(?:[|｜]?[>＞]|\]|▷|\}}\}}|&gt;|\\u003e)(?:\*\*|`(?!`))?",
    re.IGNORECASE,
)
_ELEMENT = re.compile(r"^\W{0,20}?<!--|^\W{0,20}?<(?P<name>[a-z][\w-]{1,30})(?:\s[^<>]{0,200})?>", re.IGNORECASE)
_OF_PAGES = re.compile(r"b|body|br|code|div|em|fig\w+|html|i|img|li|ol|p|pre|span|strong|table|ul", re.IGNORECASE)
"""Elements that only say how a text looks."""
_ENDING = re.compile(r"(?:^|[_|])(?:end|close)|end$", re.IGNORECASE)
_FENCED_THOUGHT = re.compile(
    r"^\s*```(?:think(?:ing)?|thoughts?|reasoning)[ \t]*\n.{0,60000}?\n```", re.DOTALL | re.IGNORECASE
)
_BARE_CHANNELS = re.compile(
    r"^\s*(?:analysis|commentary)(?:(?=[A-Z\"'*]).*assistant\s?final|.*assistantfinal)(?=\W|[A-Z])", re.DOTALL
)
"""The harmony format of a server that left out its special tokens."""
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)(?:[^<]|<\|constrain\|>){0,100}<\|message\|>")
_BARE_ANALYSIS = re.compile(r"^\s*(?:analysis|commentary)(?=[A-Z])")
_CHANNEL_END = re.compile(r"<\|(?:end|return|start|channel|call)\|>")
_SECOND_THOUGHTS = re.compile(
    r"^\W*(?:hm+|wait|but|no[,.!]|actually|however|maybe|let me (?!know)|or,|oh|not sure"
    r"|that(?:'s| is) (?:not|wrong)|等等|不对|warte|attend[sz]|espera)\b",
    re.IGNORECASE,
)
_WRAPPING = re.compile(
    r"<\|(?:begin|end)_of_(?:box|solution)\|>|<\|(?:START|END)_RESPONSE\|>|</?answer>|\[END FINAL RESPONSE\]",
    re.IGNORECASE,
)
"""Marks around an answer that a server did not take away."""
_TURN_BEGINS = re.compile(
    r"^(?:\s*(?:<\|im_start\|>\s?assistant|<\|assistant\|>|<｜Assistant｜>|<start_of_turn>model|<\|start_header_id\|>assistant"
    r"<\|end_header_id\|>|\[gMASK\]|<sop>|<s>|<bos>))+\s*"
)
_TURN_ENDS = re.compile(
    r"<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|end|return|user|im_start)\|>|</s>|<eos>|<end_of_turn>|<｜end▁of▁sentence｜>"
    r"|\s?\[/INST\]"
)
"""Behind these comes another turn, which is nobody's answer."""
_SECTION = re.compile(
    r"<(?P<name>final(?:_answer|_caption)?|conclusion|answer|solution|response|output|result|caption|alt_text|description)>"
    r"(?P<text>[^<]{0,20000}(?:<(?!/(?P=name)>)[^<]{0,20000}){0,50})(?:</(?P=name)>|$)"
    r"|<\|begin_of_(?P<kind>box|solution)\|>(?P<inner>[^<]{0,20000})(?:<\|end_of_(?P=kind)\|>|$)",
    re.IGNORECASE,
)


class _Mark(NamedTuple):
    """Where reasoning begins or ends in a text."""

    start: int
    end: int
    opens: bool


def _marks(text: str) -> Iterator[_Mark]:
    for mark in _MARK.finditer(text):
        if mark["name"] is None:
            yield _Mark(mark.start(), mark.end(), mark["opens"] is not None)
        elif not mark["empty"]:
            yield _Mark(mark.start(), mark.end(), not mark["slash"] and not _ENDING.search(mark["name"]))


def answer_section(text: str) -> str:
    """Return what stands in the last section that a model set apart as its answer; the text where there is none."""
    sections = [section["text"] or section["inner"] or "" for section in _SECTION.finditer(text)]
    return next((section.strip() for section in reversed(sections) if section.strip()), text)


def without_reasoning(text: str, *, copied: bool = False) -> tuple[str, bool]:
    """Return what is left of an answer without its reasoning, and whether that was complete.

    Reasoning whose start the chat template swallowed ends with a lone closing mark: all before it goes. Reasoning that
    never ends takes the rest along, drafts of answers included: then the answer was not given. `copied`: an object
    behind it holds what somebody else wrote, such marks too.
    """
    if channels := list(_CHANNEL.finditer(text)):
        # OpenAI's harmony format: the last message of the channel "final" is the answer.
        final = next((channel for channel in reversed(channels) if channel[1].lower() == "final"), None)
        if final is None:
            return "", False
        end = _CHANNEL_END.search(text, final.end())
        return text[final.end() : end.start() if end else len(text)].strip(), True
    text = _FENCED_THOUGHT.sub("", _BARE_CHANNELS.sub("", text))
    if _BARE_ANALYSIS.match(text):
        return "", False
    visible: list[str] = []
    at, inside = 0, False
    for mark in _marks(text):
        if mark.opens:
            if not inside:
                visible.append(text[at : mark.start])
            inside = True
        else:
            if not inside:
                visible.clear()
            inside = False
            if copied and whole_object(text[mark.end :]):
                return text[mark.end :].strip(), True
        at = mark.end
    if not inside:
        visible.append(text[at:])
    left = "".join(visible).strip()
    return "" if inside and _NO_WORDS.fullmatch(left) else left, not inside


def without_wrapping(text: str) -> str:
    """Return an answer without the tokens of its template, and without what follows its turn."""
    text = _TURN_BEGINS.sub("", text.strip())
    if (end := _TURN_ENDS.search(text)) and text[: end.start()].strip():
        text = text[: end.start()]
    return _WRAPPING.sub("", text).strip()


_QUOTE = "\"'“”«»„‘’`("
_ASIDE = re.compile(rf"(?<![{_QUOTE}])<(?P<name>{_NAMES})>[^<]{{6,}}+</(?P=name)>", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")


def without_asides(text: str) -> str:
    """Return a text without thoughts in its middle; that it speaks of such marks is no thought."""
    return _SPACES.sub(" ", _ASIDE.sub(" ", text)).strip() if _ASIDE.search(text) else text


def unwrapped_field(text: str) -> str:
    """Return a field without the tokens of a template before and around it."""
    return _WRAPPING.sub("", _TURN_BEGINS.sub("", text))


_FIRST_WORDS = 80
"""Characters of courtesies that may stand before reasoning."""
_NO_WORDS = re.compile(
    r"(?:<[^<>]{0,40}>|\[/?[A-Z_]{1,20}\]|\b(?:sure|ok(?:ay)?|certainly|of course|assistant|model)\b"
    rf"|[^\w{_QUOTE}]|[\d_])*+",
    re.IGNORECASE,
)
"""Tokens of a template, signs that may be invisible, and a courtesy; behind a quotation mark a mark is spoken of."""


def begins_with_reasoning(text: str) -> bool:
    """Tell whether a text opens with reasoning, or closes some that it never opened; not whether it mentions a mark."""
    if any(begins.match(text) for begins in (_BARE_CHANNELS, _BARE_ANALYSIS, _FENCED_THOUGHT)) or _CHANNEL.search(text):
        return True
    first = next(_marks(text), None)
    if first is None:
        return False
    before = text[: first.start]
    courtesy = before.endswith("\n") and len(before) <= _FIRST_WORDS
    return not first.opens or courtesy or bool(_NO_WORDS.fullmatch(before))


def begins_with_an_element(text: str) -> bool:
    """Tell an answer in prose before which stands something in marks that are nobody's, such as `<draft>…</draft>`."""
    begins = _ELEMENT.match(text)
    if begins is None or (name := begins["name"]) is None:
        return begins is not None
    ends = text.rfind(f"</{name}>")
    return not _OF_PAGES.fullmatch(name) and ends >= 0 and not _NO_WORDS.fullmatch(text[ends + len(name) + 3 :])


def field_has_reasoning(text: str) -> bool:
    """Tell the same of one field of an answer in JSON, which may well speak of a page that shows such marks."""
    first = next(_marks(text), None)
    if first is None:
        return text.lstrip().startswith("<|") and bool(_CHANNEL.search(text))
    before = text[: first.start].rstrip()
    if first.opens:
        return bool(_NO_WORDS.fullmatch(before))
    # What shows such a mark stands in the middle of a sentence; thoughts end with theirs.
    return text[first.end :].startswith("\n") or before.endswith((".", "?", "!", "…", "。", "？", "！"))


def answer_object(text: str, known: Collection[str]) -> tuple[Mapping[Any, Any] | None, How]:
    """Return the object an answer holds, and how it was got.

    Of several objects it is the one with the most keys that are `known`, and among equals the last: what a model
    quotes stands before what it says. What is no JSON goes to `json_repair`, which closes what was left open and quotes
    what was not.
    """
    text = text[:MAX_ANSWER].strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    try:
        return _unwrapped(json.loads(text, strict=False), known), "exact"
    except (ValueError, RecursionError):
        pass
    best: Mapping[Any, Any] | None = None
    most = 0
    start = text.find("{")
    for at, candidate in _objects(text):
        score = _score(candidate, known)
        if score >= max(1, most) or (score and doubts_itself(text[:at])):
            best, most = candidate, score
        if at == start:
            start = -1  # the first object is whole, so that none of the others is a part of a broken one
    if best is not None and start < 0:
        return best, "chatter"
    repaired = _unwrapped(_repaired(text), known)
    if repaired is not None and _score(repaired, known) > most:
        return repaired, "repaired"
    return (best, "chatter") if best is not None else (None, "none")


def whole_object(text: str) -> bool:
    """Tell whether an answer is one JSON object and nothing else, fences aside."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[1].strip()
    try:
        return text.startswith("{") and isinstance(json.loads(text, strict=False), dict)
    except (ValueError, RecursionError):
        return False


_NO_ANSWER = re.compile(
    r"^\s*+<(?:!doctype html|html|\?xml)|(?:^|\n)[ \t]*+(?:<(?:\w{1,20}:)?tool_call|<function_calls>|<invoke |<｜tool)"
    r"|^\W*+(?:error:? )?(?:\d{3}:? )?(?:internal server error|bad gateway|service unavailable|gateway time-?out"
    r"|too many requests)\W*$"
    r"|^\W*+(?:sorry, )?(?:an (?:\w+ )?error (?:has )?occurred|something went wrong|rate limit (?:reached|exceeded))"
    r"[^.\n]{0,80}(?:\. ?(?:please )?(?:try|retry)[^.\n]{0,60})?\W*$",
    re.IGNORECASE,
)


def no_answer(text: str) -> bool:
    """Tell a server's page or words, or the call of a tool that nobody offered, in the place of an answer in prose."""
    return bool(_NO_ANSWER.search(text[:_MAX_REPAIRED]))


def broken(text: str) -> bool:
    """Tell whether a text that holds no object was meant to be one, so that it is not taken for prose."""
    bare = text.strip().lstrip("`json \n")
    return bare.startswith(("{", "[")) or len(_BROKEN.findall(text)) >= 2


def _objects(text: str) -> list[tuple[int, Mapping[Any, Any]]]:
    """Return the objects that stand in a text, with where each begins."""
    decoder = json.JSONDecoder(strict=False)
    objects: list[tuple[int, Mapping[Any, Any]]] = []
    at = text.find("{")
    for _ in range(_MAX_STARTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        except RecursionError:
            break  # so are the many that begin within it
        else:
            if isinstance(value, Mapping):
                objects.append((at, value))
        at = text.find("{", end)
    return objects


def _repaired(text: str) -> Any:
    start = text.find("{")
    if start < 0:
        return None
    text = text[start : start + _MAX_REPAIRED]
    if _depth(text) > _MAX_DEPTH:
        return None  # a loop of brackets, which takes the repairer seconds
    # Imported here: functions that only put jobs on queues never read an answer.
    import json_repair

    try:
        return json_repair.loads(text, skip_json_loads=True)
    # What a parser of broken text may raise on hostile text is no error of ours, and there is nothing to act on.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _depth(text: str) -> int:
    """Return how deep brackets are opened; those in strings count as well, of which no answer has so many."""
    depth = deepest = 0
    for char in text:
        if char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth = max(0, depth - 1)
    return deepest


def held_object(value: Any, known: Collection[str]) -> Mapping[Any, Any] | None:
    """Return the object with the answer's keys that a text is, or an object: some models put JSON into their JSON."""
    if isinstance(value, str):
        bare = value.strip()
        if fenced := _FENCE.match(bare):
            bare = fenced[1].strip()
        if not bare.startswith(("{", "[", '"')):
            return None
        try:
            value = json.loads(bare[:MAX_ANSWER], strict=False)
        except (ValueError, RecursionError):
            return None
    within = _unwrapped(value, known)
    return within if within is not None and _score(within, known) else None


def doubts_itself(text: str) -> bool:
    """Tell whether a model had second thoughts after the last object that its answer holds."""
    return bool(_SECOND_THOUGHTS.match(text[text.rfind("}") + 1 :]))


def cut_within(text: str) -> str | None:
    """Return the key of the text in which an answer in JSON breaks off; None where that is elsewhere, or nowhere."""
    key: str | None = None
    for string in _STRINGS.finditer(text):
        if string["end"] is None:
            return key
        key = string["content"] if string["key"] else None
    return None


def _unwrapped(value: Any, known: Collection[str]) -> Mapping[Any, Any] | None:
    """Return the object with the answer's keys, out of lists, texts and objects that hold nothing else."""
    for _ in range(4):
        if isinstance(value, str):
            try:
                value = json.loads(value, strict=False)
            except (ValueError, RecursionError):
                return None
            continue
        if isinstance(value, list):
            objects = [item for item in value if isinstance(item, Mapping)]
            # Among equals the last: what stands before it are drafts.
            value = max(reversed(objects), key=lambda item: _score(item, known), default=None)
        if not isinstance(value, Mapping):
            return None
        if _score(value, known):
            return value
        inner = [item for item in value.values() if isinstance(item, Mapping | list) or _is_json(item)]
        if len(inner) != 1:
            return value
        value = inner[0]
    return value if isinstance(value, Mapping) else None


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("{") and value.rstrip().endswith("}")


def _score(value: Mapping[Any, Any], known: Collection[str]) -> int:
    return sum(snake(key) in known for key in list(value)[:100])
