"""What models are asked, and what of their answers is kept: prompt, shape, checks, and one repair round.

    ask = Ask(task="alt_text", language="de", context={"title": "Our stand at the fair"})
    sent = prompt(ask)                                  # instructions, text, max_tokens, response_format
    reading = read(ask, answer, Seen(category="photo"))  # never raises for what an answer holds
    if reading.output is None:
        sent = repair(ask, answer, reading.problems)

All but the names of tasks is imported when it is first used: the function that claims and queues reads no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captions.tasks.ask import Ask
from captions.tasks.registry import TASKS, Task

if TYPE_CHECKING:
    from captions.tasks.parts import Heard
    from captions.tasks.prompts import Prompt, prompt, repair
    from captions.tasks.quoting import TemplateError, check_template
    from captions.tasks.reader import clean, read
    from captions.tasks.result import Output, Problem, Reading, Seen

__all__ = [
    "TASKS",
    "Ask",
    "Heard",
    "Output",
    "Problem",
    "Prompt",
    "Reading",
    "Seen",
    "Task",
    "TemplateError",
    "check_template",
    "clean",
    "prompt",
    "read",
    "repair",
]

_WHERE = {
    "Heard": "parts",
    "Output": "result",
    "Problem": "result",
    "Prompt": "prompts",
    "Reading": "result",
    "Seen": "result",
    "TemplateError": "quoting",
    "check_template": "quoting",
    "clean": "reader",
    "prompt": "prompts",
    "read": "reader",
    "repair": "prompts",
}


if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"captions.tasks.{_WHERE[name]}"), name)
