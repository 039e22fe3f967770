"""A caption as it is written: server-sent events (WHATWG HTML, "Server-sent events"), read as types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from captions_client.errors import UnexpectedAnswerError, problem
from captions_client.models import Asset, Money


@dataclass(frozen=True)
class Waiting:
    """The same picture is being captioned; its answer comes as Done."""


@dataclass(frozen=True)
class Delta:
    """`text` continues the caption."""

    text: str
    model: str | None


@dataclass(frozen=True)
class Restart:
    """What was shown is void: another model, or another try, begins."""

    model: str | None


@dataclass(frozen=True)
class Done:
    """The asset as it was stored. `copied`: its caption was known, and nothing was paid."""

    asset: Asset
    cost: Money | None
    usage: dict[str, Any] | None
    copied: bool


Event = Waiting | Delta | Restart | Done


@dataclass
class EventReader:
    """Takes a stream's bytes as they come, in pieces of any size, and returns the events that are whole."""

    ended: bool = False
    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that a piece completes; raises ProblemError for an error event."""
        # By CR and LF alone, not by what Unicode counts as ends of lines: a caption may hold those.
        lines = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line:
                self._take(line.decode("utf-8", "replace"))
            elif self._name or self._data:
                event = self._made()
                if event is not None:
                    yield event

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)

    def _made(self) -> Event | None:
        name, text = self._name or "message", "\n".join(self._data)
        self._name, self._data = "", []
        try:
            data = json.loads(text or "{}")
            match name:
                case "waiting":
                    return Waiting()
                case "delta":
                    return Delta(str(data["text"]), data.get("model"))
                case "restart":
                    return Restart(data.get("model"))
                case "hit" | "done":
                    self.ended = True
                    asset = Asset.model_validate(data["asset"])
                    return Done(asset, asset.cost, data.get("usage"), copied=name == "hit")
                case "error":
                    self.ended = True
                    failed = problem(int(data["status"]), data)
                case _:
                    return None  # of a later API
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
            raise UnexpectedAnswerError(f"the stream's event {name!r} cannot be read: {error}") from error
        raise failed
