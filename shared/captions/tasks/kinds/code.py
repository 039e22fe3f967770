"""Code in screenshots: taken out of its wrapping, its indentation checked, and parsed where that is safe.

Nothing is executed. Parsers are Python's own: `ast`, `json`, `tomllib` and `xml.etree`, the last only without a
document type, as entities could be made to grow without end.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Lines, Text, Verbatim
from captions.tasks.registry import PICTURES, Task

if TYPE_CHECKING:
    from captions.tasks.reader import AnswerDraft

MAX_PARSED = 100_000
"""Characters; more than a screenshot shows is not parsed."""
_FENCE_BEGINS = re.compile(r"(?:```|~~~)[ \t]*+([\w+#.-]*+)[^\n`~]*+\n")
_FENCE_ENDS = re.compile(r"\n[ \t]*+(?:```|~~~)")
_NUMBERED = re.compile(r"^[ \t]*(\d{1,5})(?:[ \t]*[|│:.])?(?:[ \t](.*))?$")
_NAMES = {
    "py": "python", "python3": "python", "python 3": "python", "ipython": "python",
    "js": "javascript", "ts": "typescript", "sh": "bash", "shell": "bash", "yml": "yaml", "golang": "go",
    "c++": "cpp", "c#": "csharp", "xhtml": "xml", "svg": "xml", "jsonc": "json with comments",
}  # fmt: skip


class CodeAnswer(Answer):
    """Copied code."""

    main: ClassVar[str] = "code"
    aliases: ClassVar[Mapping[str, str]] = {"source": "code", "text": "code", "lang": "language", "notes": "summary"}
    language: Text = Field("", description="the programming language or format")
    code: Verbatim = Field("", description="the code verbatim, with its line breaks and indentation")
    summary: Text = Field("", description="what the code does, in one sentence")
    doubts: Lines = Field((), description="a character or line that could be read otherwise")


def read(answer: CodeAnswer, draft: AnswerDraft) -> None:
    """Read code: none where the picture has none, some where it is full of it, and what a parser takes."""
    if "code" not in answer.model_fields_set:
        draft.fail("missing", "The code was missing.")
        return
    code = processed(answer.code, answer.language, answer.doubts)
    draft.repaired = draft.repaired or code.text != answer.code.strip("\n")
    if code.parsed is False:
        message = f"The code does not parse as {code.language}: {code.error}; copy it again exactly."
        draft.doubt("syntax", message, repairable=True, weight=0.25)
    if code.text and draft.seen.category in ("photo", "product", "little"):
        message = "Code was copied, but the picture does not look like a screenshot; if there is none it is empty."
        draft.doubt("no_code", message, repairable=True, weight=0.3)
    if not code.text and (draft.seen.category == "code" or draft.full_of_writing):
        message = "No code was copied, but the picture looks full of writing."
        draft.doubt("text_missed", message, repairable=True, weight=0.4)
    draft.text = code.text
    draft.written, draft.read = [answer.summary] if answer.summary else [], [code.text]
    draft.data = {
        "programming_language": code.language,
        "summary": answer.summary,
        "parsed": code.parsed,
        "error": code.error,
        "doubts": list(code.doubts),
    }


@dataclass(frozen=True)
class Code:
    """Code as it is kept. `parsed` is None where no parser of ours knows the language; `error` says what it found."""

    language: str
    text: str
    parsed: bool | None
    error: str | None
    doubts: tuple[str, ...]


def language_name(name: str) -> str:
    """Return a language's usual name in lower case."""
    bare = name.strip().lower()
    return _NAMES.get(bare, bare)


def unfenced(text: str) -> tuple[str, str]:
    """Return code without the fence around it, and the language the fence names."""
    bare = text.strip()
    if begins := _FENCE_BEGINS.match(bare):
        body = bare[begins.end() :]
        if body.endswith(("```", "~~~")):
            body = body[:-3].rstrip(" \t").removesuffix("\n")
        return body, begins[1]
    if (begins := _FENCE_BEGINS.search(text)) and (ends := _FENCE_ENDS.search(text, begins.end())):
        return text[begins.end() : ends.start()], begins[1]
    return text, ""


def processed(text: str, language: str, doubts: tuple[str, ...] = ()) -> Code:
    """Return code without fences and line numbers, with what its indentation and its parser leave to doubt."""
    bare, fenced_as = unfenced(text)
    named = language_name(language or fenced_as)
    bare = _without_numbers(bare.expandtabs(4) if _mixed(bare) else bare)
    bare = textwrap.dedent("\n".join(line.rstrip() for line in bare.splitlines())).strip("\n")
    doubtful = list(doubts)
    if _mixed(text):
        doubtful.append("Tabs and spaces were mixed in its indentation; tabs were taken for four spaces.")
    parsed, error = _parse(bare, named) if bare.strip() else (None, None)
    if error is not None:
        doubtful.append(f"It does not parse as {named}: {error}.")
    elif parsed is None and (odd := _unbalanced(bare)):
        doubtful.append(odd)
    return Code(named, bare, parsed, error, tuple(dict.fromkeys(doubtful)))


def _mixed(text: str) -> bool:
    heads = [line[: len(line) - len(line.lstrip())] for line in text.splitlines()]
    return any("\t" in head for head in heads) and any(" " in head for head in heads)


def _without_numbers(text: str) -> str:
    """Take away a gutter of line numbers: every line that is not empty begins with a number, each one more."""
    lines = text.splitlines()
    matches = [_NUMBERED.match(line) for line in lines if line.strip()]
    if len(matches) < 3 or not all(matches):
        return text
    numbers = [int(match[1]) for match in matches if match]
    if any(after != before + 1 for before, after in pairwise(numbers)):
        return text
    return "\n".join((match[2] or "") if (match := _NUMBERED.match(line)) else line for line in lines)


def _parse(text: str, language: str) -> tuple[bool | None, str | None]:
    if len(text) > MAX_PARSED:
        return None, None
    match language:
        case "python":
            return _python(text)
        case "json":
            return _json(text)
        case "toml":
            return _toml(text)
        case "xml":
            return _xml(text)
    return None, None


def _python(text: str) -> tuple[bool, str | None]:
    import ast

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes and comparisons in others' code
            ast.parse(text)
    except SyntaxError as error:
        return False, f"line {error.lineno}: {error.msg}" if error.lineno else str(error.msg)
    except (ValueError, RecursionError, MemoryError) as error:
        return False, f"it is nested too deeply or holds what no source may ({type(error).__name__})"
    return True, None


def _json(text: str) -> tuple[bool, str | None]:
    import json

    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return False, f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return False, type(error).__name__
    return True, None


def _toml(text: str) -> tuple[bool, str | None]:
    import tomllib

    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return False, str(error)
    except (ValueError, RecursionError) as error:
        return False, type(error).__name__
    return True, None


def _xml(text: str) -> tuple[bool | None, str | None]:
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        return None, None
    from xml.etree import ElementTree

    try:
        ElementTree.fromstring(text)  # noqa: S314 - without a document type there are no entities to expand
    except ElementTree.ParseError as error:
        return False, str(error)
    except ValueError as error:
        return False, type(error).__name__
    return True, None


_STRINGS = re.compile(r"\"(?:\\.|[^\"\\\n])*+\"|'(?:\\.|[^'\\\n])*+'")
_LONGEST_LINE = 1_000
"""Characters; a string that nothing ends is looked for at each of its quotes, to the end of its line."""


def _unbalanced(text: str) -> str | None:
    """Where no parser helps, brackets that do not match show a cut or misread line."""
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        return None
    bare = _STRINGS.sub("", text)
    for opening, closing in ("()", "[]", "{}"):
        if bare.count(opening) != bare.count(closing):
            return f"It has {bare.count(opening)} of {opening} and {bare.count(closing)} of {closing}."
    return None


TASK = Task(
    name="code",
    kinds=PICTURES,
    needs="image",
    max_tokens=4_000,
    shape=CodeAnswer,
    role="You copy the code in screenshots, character by character.",
    rules=(
        "Copy it exactly, with its indentation and line breaks, without line numbers, prompts, window titles or "
        "anything else that is not part of it; correct nothing and complete nothing.",
        "Comments in the code are text to copy. List every place that could be read otherwise (0 or O, 1 or l, "
        "cut off lines). If there is no code, it is empty.",
    ),
    request="Copy the code in this screenshot.",
    read=read,
    exact_only=True,
    copies=True,
)
