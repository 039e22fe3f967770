"""The request log: what was really asked of the endpoint, whatever the clients believe."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

# A stack may stay up for days; the newest so many requests are kept, the file (if any) holds all.
_KEPT_REQUESTS = 200_000
# Messages may repeat what the client sent, which may be long.
_MESSAGE_CHARACTERS = 300


class Entry:
    """One request, from its arrival to its end."""

    __slots__ = ("_started", "fields")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self._started = time.perf_counter()

    def note(self, **fields: Any) -> None:
        """Add what has become known of the request."""
        self.fields.update(fields)

    def note_error(self, code: str | int | None, message: str) -> None:
        """Add the error that the client got: the error object's code, and its message cut to a short one."""
        if len(message) > _MESSAGE_CHARACTERS:
            message = message[: _MESSAGE_CHARACTERS - 1] + "…"
        self.note(error_code=code, error_message=message)

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the request arrived."""
        return round((time.perf_counter() - self._started) * 1000, 3)


class Witness:
    """Every request in order of arrival, in memory and, if `path` is given, as JSON lines once each has ended."""

    def __init__(self, path: Path | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT_REQUESTS)
        self._lock = threading.Lock()
        self._count = 0
        self._file: TextIO | None = path.open("a", encoding="utf-8", buffering=1) if path else None

    def open(self, *, connection: int, client_request_id: str | None, path: str) -> Entry:
        """Note the arrival of a request; its outcome is `open` until `close`."""
        with self._lock:
            self._count += 1
            entry = Entry(
                {
                    "id": self._count,
                    "at": datetime.now(UTC).isoformat(timespec="microseconds"),
                    "path": path,
                    "model": None,
                    "client_request_id": client_request_id,
                    "kind": None,
                    "media_sha256": None,
                    "authorized": False,
                    "status": None,
                    "fault": None,
                    "outcome": "open",
                    "error_code": None,
                    "error_message": None,
                    "finish_reason": None,
                    "prompt_tokens": 0,
                    "completion_tokens": 0,
                    "cached_tokens": 0,
                    "cost": None,
                    "streamed": False,
                    "batch": None,
                    "connection": connection,
                    "first_token_ms": None,
                    "latency_ms": None,
                }
            )
            self._entries.append(entry)
        return entry

    def close(self, entry: Entry, outcome: str) -> None:
        """Note the end of a request: `ok`, `error`, `cut` (ended by a fault) or `gone` (the client left)."""
        entry.note(outcome=outcome, latency_ms=entry.elapsed_ms())
        if self._file is not None:
            with self._lock:
                self._file.write(json.dumps(entry.fields) + "\n")

    def requests(self) -> list[dict[str, Any]]:
        """Return a copy of all entries, oldest first."""
        with self._lock:
            return [dict(entry.fields) for entry in self._entries]

    def clear(self) -> None:
        """Forget all entries (the file keeps them; numbering goes on)."""
        with self._lock:
            self._entries.clear()

    def tally(self) -> dict[str, Any]:
        """Return counts by outcome, fault and model over the entries in memory."""
        entries = self.requests()
        return {
            "requests": len(entries),
            "outcomes": dict(Counter(entry["outcome"] for entry in entries)),
            "faults": dict(Counter(entry["fault"] for entry in entries if entry["fault"])),
            "models": dict(Counter(entry["model"] for entry in entries if entry["model"])),
        }

    def end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
