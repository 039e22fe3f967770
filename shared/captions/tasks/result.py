"""What is kept of an answer, and what was found wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from captions.tasks.answer_schema import Safety


class Problem(BaseModel):
    """One thing that is wrong with an answer, or may be.

    `weight` is how much it takes from the answer's confidence, 0 to 1; `repairable` says that asking again may help.
    `message` tells the model, and people, what is wrong; it never quotes the answer.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    repairable: bool = False
    weight: float = Field(0.1, ge=0, le=1)


class Seen(BaseModel):
    """What is known of the media without a model: its kind, what it looks like, the share of it that looks like writing
    (0 to 1), and how many seconds it plays. What is not known is None.
    """

    model_config = ConfigDict(frozen=True)

    kind: str = ""
    category: str | None = None
    text_share: float | None = None
    duration_s: float | None = None


class Output(BaseModel):
    """An answer as it is kept.

    `text` is what a person reads (empty for a decorative picture's alt text and where there is no text or speech),
    `language` its BCP-47 tag, `confidence` the model's own. `data` holds the task's further fields (docs/tasks.md).
    """

    model_config = ConfigDict(frozen=True)

    text: str
    language: str
    tags: tuple[str, ...] = ()
    safety: Safety = "unknown"
    confidence: float | None = Field(None, ge=0, le=1)
    data: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """An answer that was read. `output` is None if it is of no use; `repaired` says it was not taken as it came."""

    output: Output | None
    problems: tuple[Problem, ...] = ()
    repaired: bool = False

    @property
    def refused(self) -> bool:
        """Whether the model put a refusal into words."""
        return any(problem.code == "refusal" for problem in self.problems)
