"""How far a command has come, on stderr: a bar on a terminal, lines otherwise."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from captions_cli.printable import printable
from captions_cli.printing import stderr
from captions_cli.rendering import one_line, state
from captions_cli.uploading import NotSent, Sent
from captions_cli.watching import SeenUpload


class CountingBar:
    """A bar for each thing that is counted, with what else `columns` show; it goes when the work is done."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console = stderr()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class UploadProgress(CountingBar):
    """Shows how far a number of uploads have come."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._uploading = self._bar.add_task("uploaded ", total=total)
        self._captioning = self._bar.add_task("ended    ", total=total)

    def sent(self, answer: Sent | NotSent) -> None:
        """A file was put, or could not be."""
        if isinstance(answer, NotSent):
            self._line(Text("not uploaded", style="red"), answer.key, answer.why)
            self._bar.advance(self._captioning)
        self._bar.advance(self._uploading)

    def seen(self, changed: Sequence[str], seen: Mapping[str, SeenUpload]) -> None:
        """The records were read."""
        for key in changed:
            known = seen[key]
            if known.ending is None:
                continue
            self._bar.advance(self._captioning)
            if known.record is None:
                self._line(Text("superseded", style="yellow"), key, "")
            else:
                why = known.record.reason.message if known.record.reason else known.record.source or ""
                self._line(state(known.record.state), key, why)

    def _line(self, what: Text, key: str, more: str) -> None:
        line = Text.assemble(what, " ", printable(key))
        if more:
            line.append(f" ({one_line(more)})", style="dim")
        self._bar.console.print(line)
