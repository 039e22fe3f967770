"""The progress of `upload` on stderr: a bar on a terminal, a line per file otherwise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from captions_cli.printable import printable
from captions_cli.rendering import one_line, state, stderr
from captions_cli.uploading import NotSent, Sent
from captions_cli.watching import SeenUpload


class UploadProgress:
    """Tells how far a number of uploads have come."""

    def __init__(self, total: int) -> None:
        self._console = stderr()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._uploading = self._bar.add_task("uploaded ", total=total)
        self._captioning = self._bar.add_task("ended    ", total=total)
        self._ended: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def sent(self, answer: Sent | NotSent) -> None:
        """A file was put, or could not be."""
        if isinstance(answer, NotSent):
            self._line(Text("not uploaded", style="red"), answer.key, answer.why)
            self._bar.advance(self._captioning)
        self._bar.advance(self._uploading)

    def seen(self, changed: Sequence[str], seen: Mapping[str, SeenUpload]) -> None:
        """The records were read."""
        for key in changed:
            found = seen[key]
            if found.ending is None:
                continue
            self._bar.advance(self._captioning)
            if found.record is None:
                self._line(Text("superseded", style="yellow"), key, "")
            else:
                why = found.record.reason.message if found.record.reason else found.record.source or ""
                self._line(state(found.record.state), key, why)

    def _line(self, what: Text, key: str, more: str) -> None:
        line = Text.assemble(what, " ", printable(key))
        if more:
            line.append(f" ({one_line(more)})", style="dim")
        self._bar.console.print(line)
