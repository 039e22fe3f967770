"""How far an evaluation has come, on stderr: a bar on a terminal, a line for each tenth of it otherwise."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from captions_cli.evaluate.questions import Question
from captions_cli.rendering import stderr


class Progress:
    """Counts questions that need no asking any more."""

    def __init__(self, total: int) -> None:
        console = stderr()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._console, self._total, self._done = console, total, 0
        self._task = self._bar.add_task("answered", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def ended(self, question: Question) -> None:
        """Count one."""
        before, self._done = self._done, self._done + 1
        self._bar.advance(self._task)
        if not self._console.is_terminal and 10 * before // self._total != 10 * self._done // self._total:
            self._console.print(f"{self._done} of {self._total}")
