"""How far an evaluation has come: a bar with the time that is left, or a line for each tenth of it."""

from __future__ import annotations

from rich.progress import TimeRemainingColumn

from captions_cli.evaluate.questions import Question
from captions_cli.progress import CountingBar


class EvaluationProgress(CountingBar):
    """Counts questions that need no asking any more."""

    def __init__(self, total: int) -> None:
        super().__init__(TimeRemainingColumn())
        self._total, self._done = total, 0
        self._task = self._bar.add_task("answered", total=total)

    def ended(self, question: Question) -> None:
        """Count one."""
        before, self._done = self._done, self._done + 1
        self._bar.advance(self._task)
        if not self._console.is_terminal and 10 * before // self._total != 10 * self._done // self._total:
            self._console.print(f"{self._done} of {self._total}")
