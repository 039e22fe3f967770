"""An ask: everything that a prompt depends on besides the media."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from captions.tasks.quoting import MAX_NAME_CHARACTERS, MAX_VALUE_CHARACTERS, MAX_VALUES, shortened
from captions.tasks.registry import TASKS

Style = Literal["", "concise", "descriptive", "custom"]
_MAX_QUESTION = 1_000


class Ask(BaseModel):
    """Everything a prompt depends on besides the media.

    `language` is what is written in (BCP-47); `context` is what the object's owner says of it (title, description and
    the like): it is quoted in the prompt as data, and bounded here. `template` is a prompt of the user's own with
    variables (see `captions.tasks.quoting`), `vocabulary` maps each allowed tag to its synonyms; empty allows any.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    language: str = Field("en", max_length=64)
    style: Style = ""
    context: dict[str, str] = Field(default_factory=dict)
    question: str = ""
    template: str = Field("", max_length=8_000)
    vocabulary: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
        return name

    @field_validator("language")
    @classmethod
    def _written_one_way(cls, tag: str) -> str:
        """`EN-gb` and `en-GB` are one language (RFC 5646, 2.1.1), and so one scope."""
        subtags = tag.lower().split("-")
        private = next((at for at, subtag in enumerate(subtags) if len(subtag) == 1), len(subtags))
        for at, subtag in enumerate(subtags[1:private], 1):
            subtags[at] = {2: subtag.upper(), 4: subtag.title()}.get(len(subtag), subtag)
        return "-".join(subtags)

    @field_validator("context")
    @classmethod
    def _bounded(cls, context: dict[str, str]) -> dict[str, str]:
        # As it came, so that a digest of it is of what was given; what cannot be seen goes when it is quoted.
        kept = list(context.items())[:MAX_VALUES]
        return {name[:MAX_NAME_CHARACTERS]: shortened(value, MAX_VALUE_CHARACTERS) for name, value in kept}

    @field_validator("question")
    @classmethod
    def _short(cls, question: str) -> str:
        return shortened(question, _MAX_QUESTION)

    @property
    def version(self) -> str:
        """Task and a digest of the prompt itself: instructions, style, template, shape and limits.

        It is the record's `prompt_version`: results of different prompts are never mixed up.
        """
        from captions.tasks.prompts import wording

        return f"{self.task}-{_digest(wording(self))}"

    @property
    def identity(self) -> str:
        """What must be equal for two uploads to share an answer: the version and a digest of all that was given."""
        given = (self.language, self.context, self.question, self.vocabulary)
        return f"{self.version}-{_digest(given)}"


def _digest(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
