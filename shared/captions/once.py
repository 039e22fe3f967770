"""What a process builds once, however many threads ask for it first."""

from collections.abc import Callable
from functools import update_wrapper
from threading import RLock
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Once(Generic[P, T]):
    """A function whose answer for each set of arguments is built by one thread, and is the same object for all.

    `functools.cache` lets every thread that comes first build its own, and keeps whichever ended last: two AWS clients,
    two loggers that write each line twice, or what one thread made of another's half-built value. What raises is not
    kept.
    """

    def __init__(self, build: Callable[P, T]) -> None:
        self._build = build
        self._building = RLock()
        self._built: dict[Any, T] = {}
        update_wrapper(self, build)

    def __call__(self, *args: P.args, **named: P.kwargs) -> T:
        """Return what was built for these arguments; builds it if nothing was."""
        key = (args, tuple(sorted(named.items())))
        try:
            return self._built[key]
        except KeyError:
            pass  # outside, so that what building raises is not said to come of this
        with self._building:
            if key not in self._built:
                self._built[key] = self._build(*args, **named)
            return self._built[key]

    def cache_clear(self) -> None:
        """Forget what was built."""
        self._built.clear()


def once(build: Callable[P, T]) -> Once[P, T]:
    """Decorate a function so that it builds its answer once in a process."""
    return Once(build)
