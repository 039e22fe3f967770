"""What models are asked, and what of their answers is kept: prompt, shape, checks, and one repair round.

    ask = Ask(task="alt_text", language="de", context={"title": "Our stand at the fair"})
    sent = prompt(ask)                                  # instructions, text, max_tokens, response_format
    reading = read(ask, answer, Seen(category="photo"))  # never raises for what an answer holds
    if reading.output is None:
        sent = repair(ask, answer, reading.problems)

Reading is imported when it is first used: who only claims and queues needs the tasks and their versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captions.tasks.asks import CAPTION, TASKS, TRANSCRIBE, Ask, Task
from captions.tasks.plain import clean

if TYPE_CHECKING:
    from captions.tasks.bulk import AltText, AltTextItem, AltTexts, generate_alt_texts
    from captions.tasks.outputs import Output, Problem, Reading, Seen
    from captions.tasks.prompts import Prompt, prompt, repair
    from captions.tasks.quoting import TemplateError, check_template
    from captions.tasks.reading import read

__all__ = [
    "CAPTION",
    "TASKS",
    "TRANSCRIBE",
    "AltText",
    "AltTextItem",
    "AltTexts",
    "Ask",
    "Output",
    "Problem",
    "Prompt",
    "Reading",
    "Seen",
    "Task",
    "TemplateError",
    "check_template",
    "clean",
    "generate_alt_texts",
    "prompt",
    "read",
    "repair",
]

_WHERE = {
    "AltText": "bulk",
    "AltTextItem": "bulk",
    "AltTexts": "bulk",
    "Output": "outputs",
    "Problem": "outputs",
    "Prompt": "prompts",
    "Reading": "outputs",
    "Seen": "outputs",
    "TemplateError": "quoting",
    "check_template": "quoting",
    "generate_alt_texts": "bulk",
    "prompt": "prompts",
    "read": "reading",
    "repair": "prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"captions.tasks.{_WHERE[name]}"), name)
