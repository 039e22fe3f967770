"""The tasks: what each consists of, and where they are looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal

from captions.once import once
from captions.tasks import kinds

if TYPE_CHECKING:
    from captions.tasks.answer_schema import Answer
    from captions.tasks.parts import Heard
    from captions.tasks.reader import AnswerDraft

PICTURES = frozenset({"image", "animation", "document"})
SOUNDS = frozenset({"audio", "video"})
SEEN_ONLY = "Say only what can be seen; what is uncertain is left out or called uncertain."
HEARD_ONLY = "Say only what can be heard; what is uncertain is left out or called uncertain."
NO_NAMES = (
    "Never name a person, place or work of art unless its name is written in the {medium} or stands in the data given "
    "with it; describe it instead."
)
_MEDIUMS = {"image": "picture", "audio": "recording", "video": "video"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that a model can be asked to do with media; a file of `captions.tasks.kinds`.

    `kinds` are the kinds of media it takes, as `captions.media.sniff` names them; `needs` is what the model must
    understand; `max_tokens` bounds the whole answer.
    """

    name: str
    kinds: frozenset[str]
    needs: Literal["image", "audio", "video"]
    max_tokens: int
    shape: type[Answer]
    role: str
    """Opens the instructions."""
    rules: tuple[str, ...]
    request: str
    """The user's turn."""
    read: Callable[[Any, AnswerDraft], None]
    """Puts an answer of `shape` into the draft of an output, with what is doubtful about it."""
    merge: Callable[[Sequence[Heard]], dict[str, Any]] | None = None
    """The data of a recording from those of its parts; None goes on with the lists of the first part."""
    styles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rules that a style puts before the others; a task without any has no styles."""
    exact_only: bool = False
    """Whether the answer is only ever shared between identical media, as where every letter of it counts."""
    copies: bool = False
    """Whether the main text keeps the language it stands in."""
    prose_is_useful: bool = True
    """Whether an answer in prose is of use; others need their fields."""
    needs_question: bool = False
    transcribes: bool = False
    """Whether models that know nothing but speech to text may answer."""
    answered_by: str = ""
    """The field of the data that is false for a part of a recording which holds nothing of what is asked."""
    silence: Mapping[str, Any] = field(default_factory=dict)
    """The data of a part in which nothing can be heard."""
    own_context: str = ""
    """The value of the context that says the pipeline added to it; a template cannot know of it."""

    @property
    def medium(self) -> str:
        """What the prompt calls the media."""
        return _MEDIUMS[self.needs]


@once
def names() -> tuple[str, ...]:
    """Return the names of all tasks, in the alphabet's order."""
    return tuple(sorted(module.name for module in iter_modules(kinds.__path__)))


@once
def _load(name: str) -> Task:
    task: Task = import_module(f"{kinds.__name__}.{name}").TASK
    if task.name != name:
        raise ImportError(f"the task of {kinds.__name__}.{name} calls itself {task.name!r}")
    return task


class _Tasks(Mapping[str, Task]):
    """All tasks by name; each is loaded when it is first looked up, and none to tell whether there is one."""

    def __getitem__(self, name: str) -> Task:
        if name not in names():
            raise KeyError(name)
        return _load(name)

    def __contains__(self, name: object) -> bool:
        return name in names()

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


TASKS: Mapping[str, Task] = _Tasks()
