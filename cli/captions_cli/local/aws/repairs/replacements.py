"""Repairs of moto: each replaces functions of its classes while a stack is up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Replace = Callable[[Any, str, Any], None]
"""Replaces `owner.name`."""
_ABSENT = object()


def naming(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return what gives a call's arguments their names, as `inspect.Signature.bind` does, which takes long."""
    parameters = inspect.signature(function).parameters
    names = tuple(parameters)
    others = next((name for name, each in parameters.items() if each.kind is each.VAR_KEYWORD), None)

    def named(*arguments: Any, **more: Any) -> dict[str, Any]:
        if others is not None and not more.keys() <= parameters.keys():
            rest = {name: more.pop(name) for name in more.keys() - parameters.keys()}
            more[others] = rest
        return {**dict(zip(names, arguments, strict=False)), **more}

    return named


class Replacements:
    """Functions of other people's classes and modules that are replaced for a while."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def __call__(self, owner: Any, name: str, replacement: Any) -> None:
        """Replace `owner.name`."""
        self._originals.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, replacement)

    def undo(self) -> None:
        """Give every owner its own back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            if original is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


@dataclass(frozen=True)
class Repair:
    """What moto gets wrong, and what puts it right.

    `moto` is the newest version that was tried without it and is still wrong. A test takes each repair away and fails
    where nothing is wrong without it (tests/integration/test_local_stack_repairs.py): then it goes.
    """

    name: str
    why: str
    put: Callable[[Replace], None]
    moto: str = "5.2.5"
